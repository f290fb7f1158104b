"""The density that a score model stands for, by its probability flow, and its latent codes.

The flow carries each point to normal noise; the volume it gathers on the way is the density at the point. That of a
network trained on two moons is drawn on a grid: it integrates to 1 though nothing was normalised. Codes go there and
back, and the great circle between two of them leads from one moon to the other.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

rng = np.random.default_rng(0)
angle, upper = np.pi * rng.random(20_000), rng.random(20_000) < 0.5
x = np.where(upper, np.cos(angle), 1.0 - np.cos(angle)) - 0.5
y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
data = np.stack([x, y], axis=1) + 0.1 * rng.normal(size=(20_000, 2))

process = sde.VariancePreserving()
net = sde.ScoreMLP(2, hidden=(96, 96))  # two hidden layers: the divergence is exact at the cost of one matrix product
score = sde.fit_score(net, data, process=process, n_iterations=4000, batch_size=512, seed=1).score

horizontal, vertical = np.linspace(-2.6, 2.6, 105), np.linspace(-2.0, 2.0, 81)
points = np.stack(np.meshgrid(horizontal, vertical), axis=-1)
density = np.exp(sde.log_likelihood(process, score, points.reshape(-1, 2), n_steps=40)).reshape(points.shape[:2])
total = density.sum() * (horizontal[1] - horizontal[0]) * (vertical[1] - vertical[0])
print(f"the learned density integrates to {total:.4f}")
assert abs(total - 1.0) < 0.01

few = data[:200]
codes = sde.encode(process, score, few)
back = sde.decode(process, score, codes)
print(f"codes: mean {codes.mean(axis=0).round(2)}, standard deviation {codes.std(axis=0).round(2)}; there and back "
      f"{np.median(np.abs(back - few)):.1e} in the median")  # fmt: skip
assert np.median(np.abs(back - few)) < 1e-4
nats = sde.log_likelihood(process, score, data[:500], rtol=1e-4)
print(f"mean log-likelihood of the data: {nats.mean():.3f} nats")

walk = sde.decode(process, score, sde.interpolate(codes[0], codes[np.argmax(upper[:200] != upper[0])], 40))
fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
mesh = ax.pcolormesh(horizontal, vertical, density, cmap="viridis")
ax.plot(*walk.T, "w.-", ms=3, lw=0.7, label="between two codes")
ax.legend(loc="upper right", fontsize="small")
ax.set(aspect="equal", xlabel="x", ylabel="y")
fig.colorbar(mesh, label="learned density")
fig.savefig("probability_flow_likelihood.png", dpi=110)
