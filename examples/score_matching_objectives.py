"""Three ways to learn a score without knowing it, that they agree, and what each costs in d dimensions.

implicit    E[½|s|² + tr ∇s]         = ½ E|s − ∇log p|² − ½ E|∇log p|²                     (Hyvärinen 2005)
sliced      E[½|s|² + vᵀ(∇s)v]       = implicit in expectation, E[vvᵀ] = I                  (Song et al. 2019)
denoising   E[½|s(x + σε) + ε/σ|²]   has its minimum at the score of the perturbed density  (Vincent 2011)
"""

import functools
import time

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde
from sdesim.score.objectives import Objective

target = sde.targets.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.2, -0.4]], [0.4, 0.8])
n, sigma, rng = 400_000, 0.6, np.random.default_rng(0)
net = sde.ScoreMLP(2, (32, 32), time=None, dtype=np.float64)  # any score will do
x, v, e = target.sample(n, 1), rng.choice([-1.0, 1.0], (n, 2)), rng.standard_normal((n, 2))
(s, along), true = net.jacobian_vector(x, 0.0, v), target.score(x)
implicit = 0.5 * (s**2).sum(axis=1) + net.divergence(x)
sliced = 0.5 * (s**2).sum(axis=1) + (v * along).sum(axis=1)
noisy = x + sigma * e
pull = target.affine(noise=sigma**2).score(noisy) + e / sigma  # slope of denoising at the perturbed score
zeros = {
    "implicit − ½F + ½E|∇log p|²": implicit - 0.5 * ((s - true) ** 2).sum(axis=1) + 0.5 * (true**2).sum(axis=1),
    "sliced − implicit": sliced - implicit,
    "slope of denoising at ∇log p_σ, towards the network": (net(noisy) * pull).sum(axis=1),
    "slope of denoising at ∇log p_σ, towards ∇log p": (target.score(noisy) * pull).sum(axis=1),
}
print(f"F = E|s − ∇log p|² = {sde.fisher_divergence(net, target, x):.4f}, the implicit objective {implicit.mean():.4f}")
for name, values in zeros.items():
    print(f"{name}: {values.mean():+.5f} ± {values.std() / np.sqrt(n):.5f}")
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(n)
above = 0.5 * ((target.score(noisy) + e / sigma) ** 2 - pull**2).sum(axis=1)
print(f"denoising at ∇log p is above its minimum by {above.mean():.4f} ± {above.std() / np.sqrt(n):.4f}")
dims, batch, noise = [2, 8, 64, 784], 256, sde.VariancePreserving()
cost = {name: [] for name in ("denoising", "sliced_vr", "implicit", "the trace by d derivatives")}
for d in dims:
    points = rng.standard_normal((batch, d)).astype(np.float32)
    net = sde.fit_score(sde.ScoreMLP(d, (256, 256)), points, process=noise, n_iterations=1, seed=1).score
    steps = {name: Objective(net, batch, name).evaluate for name in list(cost)[:3]}
    calls = {name: 50 * [functools.partial(step, points, 0.5)] for name, step in steps.items()}
    tangents = [functools.partial(net.jacobian_vector, points, 0.5, np.broadcast_to(u, (batch, d))) for u in np.eye(d)]
    for name, repeated in (calls | {"the trace by d derivatives": tangents}).items():
        repeated[0]()  # compiles
        start = time.process_time()
        for call in repeated:
            call()
        cost[name].append(1e3 * (time.process_time() - start) / (50 if name in calls else 1))
for name, ms in cost.items():
    print(f"{name:28}" + "".join(f"{m:10.2f} ms" for m in ms) + f"   at d = {dims}, batch {batch}, two layers of 256")
assert cost["implicit"][-1] < 0.1 * cost["the trace by d derivatives"][-1]
fig, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
for k, (name, ms) in enumerate(cost.items()):
    ax.loglog(dims, ms, marker="os^D"[k], ls=("-", "--", "-.", ":")[k], label=name + ", closed form" * (k == 2))
ax.set(xlabel="dimension d", ylabel="CPU ms per batch", xticks=dims, xticklabels=dims)
ax.legend()
fig.savefig("score_matching_objectives.png", dpi=110)
