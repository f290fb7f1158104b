"""Ornstein-Uhlenbeck: the law relaxes, and two solutions on one Brownian path meet.

Driven by the same noise, the difference of two solutions is dΔ = −θΔ dt: it has no noise left in it and shrinks as
e^{−θt}, although each path goes on for ever.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

process = sde.OrnsteinUhlenbeck(theta=1.5, mu=0.0, sigma=0.8)
span, n_steps, seed = (0.0, 3.0), 300, 7

# one seed, one Brownian path: the two runs differ in their start only
high = sde.simulate(process, 3.0, span, n_steps=n_steps, n_paths=1, method="exact", save="all", seed=seed)
low = sde.simulate(process, -3.0, span, n_steps=n_steps, n_paths=1, method="exact", save="all", seed=seed)
distance = (high.x - low.x)[0]
worst = np.abs(distance / (6.0 * np.exp(-process.theta * high.t)) - 1).max()
print(f"two solutions on one Brownian path: distance 6 e^(−θt) to a relative {worst:.1e}")
assert worst < 1e-10

grid = sde.Grid(-3.0, 5.0, 800)
rho = sde.evolve_density(process, sde.point_mass(grid, 3.0), grid, span, save=[0.1, 0.3, 1.0, 3.0])
cloud = sde.simulate(process, 3.0, span, n_steps=30, n_paths=1_000_000, method="exact", seed=seed)
found = sde.compare(cloud, rho)
rest = sde.stationary_density(process, grid)
print(found)
print(f"at t = 3 the density is {np.abs(rho.final - rest.final).sum() * grid.spacing:.3f} (L1) from the stationary one")
assert found.within_noise

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
left.plot(high.t, high.x[0], high.t, low.x[0])
left.set(xlabel="time $t$", ylabel="$x$", title="one Brownian path, two starts")
sde.plot.density(rho, ax=right)
right.plot(grid.centers, rest.final, "k:", label="stationary")
right.legend()
fig.savefig("ou_relaxation.png", dpi=110)
