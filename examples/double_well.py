"""Langevin diffusion in a double well: stuck at first, at rest in exp(−U/T) in the end.

U = b (x² − 1)², dX = −U′ dt + √(2T) dW: within a well the density settles in a time of order 1/U″, across the
barrier in one of order e^{b/T}.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

process = sde.DoubleWell(barrier=2.0, temperature=0.7)
grid = sde.Grid(-2.6, 2.6, 520)
start = sde.point_mass(grid, -1.0)
times = [0.05, 0.5, 4.0]

rho = sde.evolve_density(process, start, grid, (0.0, 4.0), save=times)
paths = sde.simulate(
    process, -1.0, (0.0, 4.0), n_steps=800, n_paths=500_000, method="heun", dtype=np.float32,
    save=times, reduce=[sde.Histogram(-2.6, 2.6, 520)], seed=3,
)  # fmt: skip
for i, t in enumerate(times):
    found = sde.compare(paths.reductions[0], rho, time=i)
    right = rho.p[i][grid.centers > 0].sum() * grid.spacing
    print(f"t = {t:4}: {100 * right:5.2f} % have crossed; {found.l1:.4f} from the PDE, by chance {found.l1_floor:.4f}")
    assert found.within_noise

rest = sde.stationary_density(process, grid)
late = sde.evolve_density(process, start, grid, (0.0, 300.0))
print(f"L1 distance of the PDE at t = 300 from exp(−U/T): {np.abs(late.final - rest.final).sum() * grid.spacing:.1e}")

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
sde.plot.density(rho, ax=ax)
ax.plot(grid.centers, rest.final, "k:", label="stationary, exp(−U/T)/Z")
ax.set_ylim(0, 1.6)
ax.legend()
fig.savefig("double_well.png", dpi=110)
