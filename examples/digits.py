"""Handwritten digits of 8 x 8 pixels: train in a minute or two, sample with and without labels, measure.

    python examples/digits.py
    python examples/digits.py --model digits.npz    keep the network there: this made the one inside the package

The pictures come with scikit-learn (pip install scikit-learn), and so does the classifier in whose last hidden layer
the Fréchet distance (FD) from the test pictures is taken: the floor is that of the training pictures.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="where to keep the network")
parser.add_argument("--steps", type=int, default=2500, help="of the training (default 2500)")
options = parser.parse_args()

train, test = sde.data.digits()
process = sde.EDM()
backbone = sde.targets.PrincipalMixture.fit(train.images, 30, 10)
start = sde.MixerMLP(
    train.shape, 64, 3, patch=2, n_classes=10, backbone=backbone, process=process,
    class_weights=backbone.class_weights(train.images, train.labels),
)  # fmt: skip
fit = sde.fit_score(
    start, train.images, labels=train.labels, process=process, times=(0.0, 1.4), n_iterations=options.steps,
    learning_rate=4e-3, decay="one_cycle", ema=0.998, seed=1, progress=True,
)  # fmt: skip
print(fit)
if options.model:
    sde.save(fit.score, options.model)

n = 2000
labels = np.arange(n) % 10
kept = {"method": "edm_heun", "n_steps": 14, "t_end": 0.1, "seed": 3}
sets = {
    "no network": sde.sample(process, start, n, **kept),
    "network": sde.sample(process, fit.score, n, **kept),
    "given the class": sde.sample(process, fit.score, n, labels=labels, **kept),
    "training pictures": train.images,
}

from sklearn.neural_network import MLPClassifier  # noqa: E402

judge = MLPClassifier((64, 32), alpha=0.01, max_iter=60, random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would like more than 60 iterations
    judge.fit(train.images, train.labels)


def features(x: np.ndarray) -> np.ndarray:
    """The second hidden layer."""
    for weights, bias in zip(judge.coefs_[:2], judge.intercepts_[:2], strict=True):
        x = np.maximum(x @ weights + bias, 0.0)
    return x


print(f"accuracy of the classifier on test pictures: {judge.score(test.images, test.labels):.3f}")
print(f"{'':18} {'FD':>6} {'confidence':>11} {'class shares':>13} {'NN':>6}")
found = {}
for name, x in sets.items():
    x = np.clip(x, -1.0, 1.0)
    p = judge.predict_proba(x)
    shares = np.bincount(p.argmax(axis=1), minlength=10) / len(x)
    found[name] = (sde.metrics.frechet_distance(features(x), features(test.images)), p.max(axis=1).mean())
    near = sde.metrics.nearest_neighbour_rmse(x, train.images).median
    print(f"{name:18} {found[name][0]:6.2f} {found[name][1]:11.3f} {shares.min():6.3f}-{shares.max():.3f} {near:6.3f}")
print(f"nearest training picture of a test picture: {sde.metrics.nearest_neighbour_rmse(test, train).median:.3f}")
for name in ("network", "given the class"):
    assert found[name][0] <= 1.0
    assert found[name][0] < found["no network"][0]
    assert found[name][1] >= 0.93

fig, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
sde.plot.images(sets["network"][:100], axes[0], columns=10, value_range=(-1, 1))
axes[0].set_title("drawn from the network")
rows = np.concatenate([sets["given the class"][k::10][:10] for k in range(10)])
sde.plot.images(rows, axes[1], columns=10, value_range=(-1, 1))
axes[1].set_title("given the class, a row each")
fig.savefig("digits.png", dpi=100)
