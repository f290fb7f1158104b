"""Langevin sampling of a bimodal density in the plane: stuck in a mode at first, mixed in the end.

dX = ∇log p dt + √2 dW keeps p, and reaches it from any start: within a mode in a time of order 1, between the modes at
the rate of the spectral gap of the Fokker-Planck operator. Paths, their density p_t and the spectrum agree.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

target = sde.targets.GaussianMixture(
    [0.4, 0.6], [[-1.5, -0.7], [1.5, 0.7]], [[[0.35, 0.15], [0.15, 0.3]], [[0.3, -0.1], [-0.1, 0.35]]]
)
start = sde.targets.Gaussian([-1.5, -0.7], 0.04)  # in the left mode
process = sde.Langevin(target)
grid = sde.Grid((-4.6, -3.6), (4.6, 3.6), (160, 128))

gap = sde.relaxation_modes(process, grid, 3).gap
short, long = 2, round(6.0 / gap)
print(f"spectral gap {gap:.5f}: the modes mix in a time of {1 / gap:.1f}")

rest = sde.stationary_density(process, grid)
rho = sde.evolve_density(process, sde.gaussian(grid, [-1.5, -0.7], 0.2), grid, (0.0, long), save=[short, long])
paths = sde.simulate(
    process, start, (0.0, long), n_steps=50 * long, n_paths=40_000, method="heun", dtype=np.float32,
    save=[short, long], seed=1,
)  # fmt: skip
for i, t in enumerate(rho.t):
    of_path, of_target = sde.compare(paths, rho, time=i), sde.compare(paths.x[:, i], rest)
    print(f"t = {t:g}: L1 {of_path.l1:.3f} from p_t (by chance {of_path.l1_floor:.3f}), {of_target.l1:.3f} from p")
    assert of_path.within_noise
    assert of_target.within_noise == (i == 1)

# the autocorrelation of the side that a path at rest is on falls at the rate of the gap
at_rest = sde.simulate(
    process, target, (0.0, 1.5 / gap), n_steps=1500, n_paths=100_000, method="heun", dtype=np.float32,
    save=[0.0, 0.5 / gap, 1.5 / gap], seed=2,
)  # fmt: skip
side = np.sign(at_rest.x @ np.array([1.5, 0.7])).reshape(20, -1, 3)
side -= side.mean(axis=1, keepdims=True)
rates = gap * -np.diff(np.log((side[..., :1] * side[..., 1:]).mean(axis=1)), axis=1)[:, 0]
rate, error = rates.mean(), rates.std(ddof=1) / np.sqrt(len(rates))
print(f"rate of mixing measured from paths: {rate:.5f} ± {error:.5f}")
assert abs(rate - gap) < 3 * error < 0.1 * gap

fig, axes = plt.subplots(2, 3, figsize=(14, 7.4), layout="constrained", sharex=True, sharey=True)
sde.plot.density(rest, ax=axes[0, 0])
sde.plot.score_field(target, (-4.6, -3.6), (4.6, 3.6), ax=axes[0, 1])
x, y = grid.centers
for ax, end in ((axes[0, 2], short), (axes[1, 0], long)):
    one = sde.simulate(process, start, (0.0, end), n_steps=50 * end, n_paths=1, method="heun", save="all", seed=4).x[0]
    ax.plot(*one.T, color="C0", lw=0.9 if end == short else 0.4)
for ax, i in ((axes[1, 1], 0), (axes[1, 2], 1)):
    ax.hist2d(*paths.x[:, i].T, bins=90, range=[(-4.6, 4.6), (-3.6, 3.6)], density=True, rasterized=True)
for ax in axes.flat[2:]:
    ax.contour(x, y, rest.final.T, levels=[0.01, 0.05, 0.15], colors="C1", linewidths=1.0)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
drawn = [f"{what} t = {t}" for what in ("one path to", "samples at") for t in (short, long)]
for ax, letter, title in zip(axes.flat, "abcdef", ["density p", "score ∇log p", *drawn], strict=True):
    ax.set_title(f"({letter}) {title}")
    ax.label_outer()
fig.savefig("langevin_bimodal.png", dpi=90)
