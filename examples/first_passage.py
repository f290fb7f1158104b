"""When does a path leave, and through which wall? Passages seen between the steps, against the Fokker-Planck equation.

dX = −X dt + dW starts at 0.2, between walls at −0.8 and 1.2. A path that is looked at only at the ends of its steps
misses passages, so the times come out too long by O(√dt); with the Brownian bridge between the ends (Gobet 2000) what
is left is O(dt). In the Fokker-Planck equation with absorbing walls the survival is the mass that is left.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

process = sde.OrnsteinUhlenbeck(theta=1.0, mu=0.0, sigma=1.0)
span, walls, n = (0.0, 2.0), (-0.8, 1.2), 200_000

grid = sde.Grid(*walls, 640)
rho = sde.evolve_density(process, sde.point_mass(grid, 0.2), grid, span, boundary="absorbing", save=60)

found = {}
for bridge in (False, True):
    passage = sde.FirstPassage(*walls, bins=60, bridge=bridge)
    paths = sde.simulate(process, 0.2, span, n_steps=400, n_paths=n, reduce=[passage], seed=5)
    found[bridge] = paths.reductions[0]

exact = rho.mass[-1]
for bridge, name in ((False, "ends of steps only"), (True, "with the bridge   ")):
    left = found[bridge].n_survived / n
    error = np.sqrt(left * (1 - left) / n)
    print(f"{name}: {left:.4f} ± {error:.4f} still inside at t = 2; Fokker-Planck: {exact:.4f}")
assert abs(found[True].n_survived / n - exact) < 0.004 < abs(found[False].n_survived / n - exact)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for bridge, style, name in ((False, "C1--", "ends of steps only"), (True, "C0", "bridge")):
    left.plot(found[bridge].edges, found[bridge].survival, style, linewidth=3, label=name)
left.plot(rho.t, rho.mass, "k", linewidth=1, label="Fokker-Planck")
left.set(xlabel="t", ylabel="still inside", title="survival, 400 steps")
left.legend()
for side, density in zip(("−0.8", "1.2"), found[True].density, strict=True):
    right.stairs(density, found[True].edges, label=f"through {side}")
right.set(xlabel="t", ylabel="density of the first passage", title="time and side")
right.legend()
fig.savefig("first_passage.png", dpi=110)
