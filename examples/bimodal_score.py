"""The challenge of low density: a score learned where there are no data is wrong, and many noise levels cure it.

Two modes far apart (Song & Ermon 2019, section 3.2). Score matching at one scale learns the score where samples are;
Langevin sampling starts elsewhere and never mixes. A network trained at noise levels from one that fills the plane down
knows the score wherever the samples of each level are, and annealed Langevin gives the modes their weights.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

target = sde.targets.GaussianMixture([0.2, 0.8], [[-4.0, -4.0], [4.0, 4.0]], 1.0)
data = target.sample(20_000, 1)
noise = sde.EDM(0.2, 10.0)  # X_t = X_0 + N(0, t²): time is the noise level
exact, levels = sde.marginal_score(noise, target), np.geomspace(10.0, 0.2, 16)
single = sde.fit_score(sde.ScoreMLP(2, time=None), data, objective="implicit", n_iterations=1500, seed=2).score
multi = sde.fit_score(sde.ScoreMLP(2), data, process=noise, times="log_uniform", n_iterations=5000, seed=2).score

x = 8.0 - 16.0 * np.random.default_rng(3).random((20_000, 2))  # spread evenly on the plane
deciles = np.argsort(target.log_density(x)).reshape(10, -1)
reached = levels[np.argmax([exact.log_density(x, level) for level in levels], axis=0)]  # where x is likeliest
curves = {
    "one scale": (single(x), target.score(x)),
    "many scales, the smallest": (multi(x, 0.2), exact(x, 0.2)),
    "many scales, the one that reaches x": (multi(x, reached), exact(x, reached)),
}
error = np.empty((3, 2, 10))  # E|s − s*|²/E|s*|² of each decile, and its standard error
for k, (s, true) in enumerate(curves.values()):
    gap, size = (np.square(v).sum(axis=1)[deciles] for v in (s - true, true))
    error[k] = np.array([gap.mean(axis=1), gap.std(axis=1) / np.sqrt(gap.shape[1])]) / size.mean(axis=1)
print("relative error of the score by decile of the true density, with its standard error\n   ", "   |   ".join(curves))
for decile in range(10):
    print(f"{decile + 1:2} ", "  ".join(f"{mean:10.5f} ± {sd:.5f}" for mean, sd in error[:, :, decile]))
assert error[2, 0].max() < 0.05 < error[0, 0, :5].min() > 20 * error[0, 0, 9]

one = sde.simulate(sde.Langevin(single), x[:4000], (0.0, 20.0), n_steps=400, seed=4).final
annealed = 1.25 * x[:4000]
for level in levels:
    process = sde.Langevin(lambda x, t, level=level: multi(x, level), dim=2)
    annealed = sde.simulate(process, annealed, (0.0, 6.0 * level**2), n_steps=60, seed=int(1e4 * level)).final
samples = {"Langevin, one scale": one, "annealed Langevin": annealed}
share = {name: float((y.sum(axis=1) < 0).mean()) for name, y in samples.items()}
assert abs(share["annealed Langevin"] - 0.2) < 0.03 < 0.1 < share["Langevin, one scale"] - 0.2

fig, axes = plt.subplots(2, 3, figsize=(14, 8.2), layout="constrained")
fields = {"true score": target, "learned at one scale": single, "many scales, at level 2": multi}
for ax, (name, score) in zip(axes[0], fields.items(), strict=True):
    sde.plot.score_field(score, -8.0, 8.0, ax=ax, t=2.0).set(title=name, xticks=range(-8, 9, 4))
for k, name in enumerate(curves):
    axes[1, 0].errorbar(range(1, 11), error[k, 0], 2 * error[k, 1], marker="os^"[k], ls=("-", "--", ":")[k], label=name)
axes[1, 0].set(yscale="log", xlabel="decile of the true density", ylabel="relative error of the score", ylim=(2e-5, 5))
axes[1, 0].legend(fontsize="small")
for ax, (name, y) in zip(axes[1, 1:], samples.items(), strict=True):
    print(f"{name}: {share[name]:.3f} ± {np.sqrt(share[name] * (1 - share[name]) / 4000):.3f} left, the truth is 0.2")
    ax.plot(*y.T, ".", ms=2, alpha=0.5)
    ax.set(title=f"{name}: {share[name]:.2f} left (truth 0.2)", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    ax.set(xlim=(-8, 8), ylim=(-8, 8), xticks=range(-8, 9, 4))
fig.savefig("bimodal_score.png", dpi=80)
