"""Faces from eighty photographs of 25 x 25 pixels: train in half a minute, sample, and see that none is a copy.

    python examples/faces.py
    python examples/faces.py --steps 200    a few seconds, and no claims

The faces are a hundred of Labeled Faces in the Wild (Huang et al. 2007) that scikit-image brings along
(pip install scikit-image). Twenty are held out; the others are learned, and their mirror images with them.

So few pictures are soon known by heart. On a mixture of full rank a network brought nothing for the held-out faces; the
one here has rank 16 only ("no network" in the table), and it and the length of the training were chosen by the
held-out faces of the first split, which flatters the figures a little. An MLP-Mixer
learns what that leaves over, alike for all patches: on faces that neither has seen it denoises better, by a fifth at
least at σ = 0.3, and samples lose their grain (TV, the mean difference of neighbouring pixels, comes near that of
photographs). None is a copy: the samples are about as far from the training faces (NN, root mean square) as the
held-out faces are, in the median and at the least. Energy and sliced distances from twenty faces and their mirror
images differ more from split to split than between network and mixture: they do not show that the network helps.
What it draws are patchy, blurred faces, some of them hardly faces: eighty pictures teach no more.

The validation loss only tells when to stop: the mixture has seen those faces, and the network the mirror images of
most.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

SHAPE, SIGMAS, N = (25, 25), (0.1, 0.3, 0.5, 1.0, 2.0), 160
PROCESS = sde.EDM()


def mirrored(faces: sde.data.Images) -> np.ndarray:
    """The faces and their mirror images."""
    return np.concatenate([faces.images, faces.pictures[:, :, ::-1].reshape(faces.images.shape)])


def denoising_errors(score: sde.MixerMLP, x: np.ndarray) -> np.ndarray:
    """The mean square of E[X₀ | x + σε] − x, a number for each σ, over eight ε."""
    x = np.tile(x, (8, 1))
    noise = np.random.default_rng(7).standard_normal(x.shape, np.float32)
    noisy = {sigma: x + np.float32(sigma) * noise for sigma in SIGMAS}
    return np.array([np.mean((y + sigma**2 * score(y, sigma) - x) ** 2) for sigma, y in noisy.items()])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=1500, help="of the training, at most (default 1500)")
parser.add_argument("--seed", type=int, default=0, help="of the split, the training and the samples (default 0)")
options = parser.parse_args()
seed = options.seed

try:
    from skimage.data import lfw_subset
except ModuleNotFoundError:
    raise SystemExit("the faces come with scikit-image, which is not installed; pip install scikit-image") from None
pixels = (2.0 * lfw_subset()[:100] - 1.0).astype(np.float32)  # the other hundred are no faces
train, test = map(mirrored, sde.data.split(sde.data.Images(pixels.reshape(100, -1), None, SHAPE), n_test=20, seed=seed))

backbone = sde.targets.LowRankMixture.fit(train, 1, 16, seed=seed)
start = sde.MixerMLP(SHAPE, 48, 2, patch=5, backbone=backbone, process=PROCESS)
print(start)
fit = sde.fit_score(
    start, train, process=PROCESS, times=(-0.5, 1.4), n_iterations=options.steps, batch_size=64, learning_rate=2e-3,
    decay="one_cycle", ema=0.98, validation=0.15, validate_every=100, patience=5, seed=seed, progress=True,
)  # fmt: skip
best = fit.validation[fit.validation[:, 1].argmin(), 0]
print(f"{fit}, best on the validation split after {best:g}, {fit.seconds:.0f} s")
scores = {"no network": start, "network": fit.score}

errors = {name: denoising_errors(score, test) for name, score in scores.items()}
print(f"{'mean square error of denoising':30}" + "".join(f"  σ = {sigma:<4g}" for sigma in SIGMAS))
for name, row in errors.items():
    print(f"{name + ', held-out faces':30}" + "".join(f"{error:10.4f}" for error in row))
sets = {
    name: sde.sample(PROCESS, score, N, method="edm_heun", n_steps=14, t_end=0.1, seed=seed, progress=True)
    for name, score in scores.items()
}
print(f"{'':15} {'energy':>7} {'sliced':>7} {'TV':>6} {'NN':>6} {'least':>6}   NN: from the nearest training face")
found = {}
for name, drawn in {**sets, "training faces": train, "held-out faces": test}.items():
    x = np.clip(drawn, -1.0, 1.0)
    near = sde.metrics.nearest_neighbour_rmse(x, train)
    found[name] = (
        sde.metrics.energy_distance(x, test), sde.metrics.sliced_wasserstein(x, test),
        sde.metrics.total_variation(x, SHAPE), near.median, near.rmse.min(),
    )  # fmt: skip
    far = "      –       –" if drawn is test else "{:7.3f} {:7.3f}".format(*found[name][:2])
    print(f"{name:15} {far} " + " ".join("     –" if v == 0.0 else f"{v:6.3f}" for v in found[name][2:]))

drawn = np.clip(sets["network"][:24], -1.0, 1.0)
nearest = train[sde.metrics.nearest_neighbour_rmse(drawn, train).nearest]
pairs = np.concatenate([x for k in range(0, 24, 8) for x in (drawn[k : k + 8], nearest[k : k + 8])])
fig, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
sheets = {
    "drawn from the mixture, no network": np.clip(sets["no network"][:48], -1.0, 1.0),
    "odd rows: drawn from the network;\nbelow each the training face nearest to it": pairs,
    "held-out faces": test[:20],
}
for ax, (title, x) in zip(axes, sheets.items(), strict=True):
    sde.plot.images(x.reshape(-1, *SHAPE), ax, columns=5 if len(x) == 20 else 8, value_range=(-1, 1))
    ax.set_title(title)
fig.savefig("faces.png", dpi=100)

if options.steps >= 1500:
    data, held_out = found["training faces"], found["held-out faces"]
    assert errors["network"][1] < 0.8 * errors["no network"][1]
    assert abs(found["network"][2] - data[2]) < 0.3 * abs(found["no network"][2] - data[2])
    for name in sets:
        assert found[name][3] > 0.85 * held_out[3]
        assert found[name][4] > 0.8 * held_out[4]
