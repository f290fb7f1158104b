"""Brownian motion and the heat equation: one process, its paths and its density.

The density of a Wiener process that starts in a point solves ∂p/∂t = ½ ∂²p/∂x², and is N(0, t) (Einstein 1905).
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

process = sde.Wiener()
times = [0.25, 0.5, 1.0, 2.0]
grid = sde.Grid(-8.0, 8.0, 800)

rho = sde.evolve_density(process, sde.point_mass(grid, 0.0), grid, (0.0, 2.0), save=times)
histogram = sde.Histogram(-8.0, 8.0, 800)
paths = sde.simulate(process, 0.0, (0.0, 2.0), n_steps=200, n_paths=1_000_000, save=times, reduce=[histogram], seed=1)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
few = sde.simulate(process, 0.0, (0.0, 2.0), n_steps=500, n_paths=30, save="all", seed=1)
sde.plot.paths(few, ax=left)
left.set_title("thirty paths")
sde.plot.compare(paths.reductions[0], rho, ax=right)
right.set_title("a million paths against the heat equation")
fig.savefig("wiener_heat.png", dpi=110)

for i, t in enumerate(times):
    found = sde.compare(paths.reductions[0], rho, time=i)
    exact = sde.gaussian(grid, 0.0, np.sqrt(t))
    error = np.abs(rho.p[i] - exact).sum() * grid.spacing
    print(
        f"t = {t:4}: L1 paths − PDE {found.l1:.4f} (by chance {found.l1_floor:.4f} ± {found.l1_sd:.4f}), "
        f"PDE − N(0, t) {error:.1e}"
    )
    assert found.within_noise
    assert error < 2e-4
