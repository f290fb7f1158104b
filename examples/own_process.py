"""A process of one's own: two formulas, and everything else follows.

dX = (a sin ωt − X) dt + s √(1 + X²) dW: a driven drift, a noise that grows with |x|, time-dependent and
multiplicative. No closed form is known; paths and PDE check each other.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

process = sde.ito(
    lambda x, t, a, omega: a * np.sin(omega * t) - x,
    lambda x, t, s: s * np.sqrt(1.0 + x * x),
    a=2.0, omega=4.0, s=0.5,
)  # fmt: skip
grid = sde.Grid(-8.0, 10.0, 900)
rho = sde.evolve_density(process, sde.point_mass(grid, 0.5), grid, (0.0, 3.0), save=60)
paths = sde.simulate(process, 0.5, (0.0, 3.0), n_steps=1500, n_paths=200_000, method="milstein", seed=11)

found = sde.compare(paths, rho)
print(found)
assert found.within_noise

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
sde.plot.density(rho, ax=left)
left.set_ylim(-3, 4)
sde.plot.compare(paths, rho, ax=right)
fig.savefig("own_process.png", dpi=110)
