"""Garments by a network without torch: train on Fashion-MNIST, sample, measure, fill in what is missing.

    python examples/fashion_mnist.py             a quarter of an hour of training on two cores, a few minutes of figures
    python examples/fashion_mnist.py --quick     a minute or two: the same with few steps and few pictures
    python examples/fashion_mnist.py --long      and the distance at 500 steps of the sampler (ten minutes more)
    python examples/fashion_mnist.py --model fashion.npz    keep the network there, or take it from there

The pictures come from the Debian package dataset-fashion-mnist, or from a folder given with --data.

A mixture of normal laws in principal coordinates gives a first score in closed form ("no network" in the table); a
small MLP-Mixer learns what it leaves over. Samples are the denoised means at σ = 0.2 of 14 steps of Heun's method:
below, there is only grain. Distances (FD) are Fréchet's in the last layer of two classifiers that are trained here,
from all test pictures; they are to be read beside those of real pictures and of the 400-cell mixture in the same
table.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

SIGMA_END, N_STEPS, GUIDANCE = 0.2, 14, 0.05
PROCESS = sde.EDM()


def trained(train: sde.data.Images, n_iterations: int) -> tuple[sde.MixerMLP, sde.MixerMLP]:
    """The network, and the same with nothing learned: its backbone."""
    wall, cpu = time.perf_counter(), time.process_time()
    backbone = sde.targets.PrincipalMixture.fit(train.images)
    start = sde.MixerMLP(
        train.shape, n_classes=10, backbone=backbone, process=PROCESS,
        class_weights=backbone.class_weights(train.images, train.labels),
    )  # fmt: skip
    print(start)
    fit = sde.fit_score(
        start, train.images, labels=train.labels, process=PROCESS, times=(0.7, 1.4), n_iterations=n_iterations,
        batch_size=256, learning_rate=4e-3, decay="one_cycle", ema=0.999, seed=1, progress=True,
    )  # fmt: skip
    print(
        f"{fit}; backbone and network: {(time.perf_counter() - wall) / 60:.1f} minutes, "
        f"{time.process_time() - cpu:.0f} CPU-s"
    )
    return fit.score, start


def draw(score: sde.MixerMLP, n: int, n_steps: int = N_STEPS, **options: object) -> np.ndarray:
    """n pictures."""
    return sde.sample(
        PROCESS, score, n, method="edm_heun", n_steps=n_steps, t_end=SIGMA_END, seed=3, progress=True, **options
    )


def bits(score: sde.MixerMLP, test: sde.data.Images, n: int) -> str:
    """Bits per dimension of the first test pictures."""
    pixels = sde.data.to_pixels(test.images[:n])
    found = sde.bits_per_dim(
        PROCESS, score, pixels, divergence="hutchinson", n_steps=32, t_end=0.01, seed=5, progress=True
    )
    return f"{found.mean():.3f} ± {found.std(ddof=1) / np.sqrt(n):.3f}"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", help="the folder of the four IDX files")
parser.add_argument("--model", type=pathlib.Path, help="where the network is kept")
parser.add_argument("--steps", type=int, default=5000, help="of the training (default 5000)")
parser.add_argument("--quick", action="store_true", help="60 steps with a tenth of the pictures")
parser.add_argument("--long", action="store_true", help="sample with 500 steps too")
options = parser.parse_args()
n = 100 if options.quick else 2000

train, test = sde.data.fashion_mnist(options.data)
if options.quick:
    train = train.take(np.arange(6000))
if options.model and options.model.exists():
    net = sde.load(options.model)
    start = net.with_parameters(np.zeros_like(net.parameters))
else:
    net, start = trained(train, 60 if options.quick else options.steps)
    if options.model:
        sde.save(net, options.model)

labels = np.arange(n) % 10
mixture = sde.targets.LowRankMixture.fit(train.images, 400, 20)
guided = f"given the class, guidance {GUIDANCE:g}"
sets = {
    "400-cell mixture, no network": mixture.sample(n, seed=1, residual=False),
    "no network": draw(start, n),
    "network": draw(net, n),
    "given the class": draw(net, n, labels=labels),
    guided: draw(net, n, labels=labels, guidance=GUIDANCE),
}
if options.long:
    sets["network, 500 steps"] = draw(net, n, n_steps=500)
    sets["network, 18 steps"] = draw(net, n, n_steps=18)
judges = [sde.metrics.image_classifier(train, kind=kind, progress=True) for kind in ("mlp", "cnn")]
print("accuracy of the classifiers:", ", ".join(f"{judge.kind} {judge.accuracy(test):.3f}" for judge in judges))
report = sde.metrics.image_report(sets, train, test, judges)
print(report)
m = 16 if options.quick else 256
print(
    f"bits per dimension of {m} test pictures, by the probability flow from σ = 0.01 (32 steps of RK4, one probe of "
    f"Hutchinson, uniform dequantisation): {bits(net, test, m)}, no network {bits(start, test, m)}"
)

# what is missing is drawn anew, what is there stays
mask = np.zeros(train.shape[:2], bool)
mask[:14] = True
seen = test.images[:5]
fills = [
    sde.sample(
        PROCESS, net, 5, method="edm_heun", n_steps=30, t_end=0.02, seed=seed, observed=seen, mask=mask.reshape(-1),
        n_resample=3,
    )
    for seed in (1, 2, 3)
]  # fmt: skip
for fill in fills:
    assert (fill[:, mask.reshape(-1)] == seen[:, mask.reshape(-1)]).all()
assert all(abs(fill - fills[0]).max() > 0.1 for fill in fills[1:])

fig, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
sheet = {"columns": 10, "value_range": (-1, 1)}
sde.plot.images(sets["network"][:100], axes[0], **sheet)
axes[0].set_title("drawn from the network")
by_class = np.concatenate([sets[guided][k::10][:10] for k in range(10)])
sde.plot.images(by_class, axes[1], **sheet)
axes[1].set_title(guided + ", a row each")
dark = np.where(mask.reshape(-1), seen, -1.0)
sde.plot.images(np.concatenate([seen, dark, *fills]), axes[2], columns=5, value_range=(-1, 1))
axes[2].set_title("test pictures, their upper half, three fills")
fig.savefig("fashion_mnist.png", dpi=100)

if not options.quick:
    best, plain, bar = report["network"], report["no network"], report["400-cell mixture, no network"]
    for kind in ("mlp", "cnn"):
        assert best.frechet[kind] <= bar.frechet[kind]
        assert best.frechet[kind] < plain.frechet[kind]
        assert report[guided].frechet[kind] <= 0.8 * bar.frechet[kind]
    for row in (best, report[guided]):
        assert 0.165 < row.total_variation < 0.185
        assert row.nearest >= 0.23
    assert best.least_share >= 0.07
    assert best.largest_share <= 0.13
