"""All measures of generated pictures in one table, beside those of real ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...core import blocks, checks
from ..classifier import ImageClassifier
from ..data import Images
from .neighbours import nearest_neighbour_rmse
from .pictures import (
    class_shares,
    confidence,
    frechet_distance,
    inception_score,
    prediction_entropy,
    total_variation,
)
from .rows import rows
from .two_sample import CHOICES, choose


@dataclasses.dataclass(frozen=True)
class ImageQuality:
    """The measures of one set of pictures.

    Attributes
    ----------
    name, n
        What the pictures are, and how many.
    frechet : dict of float
        The Fréchet distance from all test pictures in the features of each classifier.
    inception_score, confidence, entropy : float
        Of the last classifier's probabilities.
    least_share, largest_share : float
        The smallest and the largest share of a class.
    nearest : float
        The median RMSE to the nearest training picture, of the first ``n_nearest``.
    total_variation : float
    """

    name: str
    n: int
    frechet: dict[str, float]
    inception_score: float
    confidence: float
    entropy: float
    least_share: float
    largest_share: float
    nearest: float
    total_variation: float


@dataclasses.dataclass(frozen=True)
class ImageReport:
    """Rows of :class:`ImageQuality`: the samples, then real pictures; printing it shows the table."""

    rows: tuple[ImageQuality, ...]

    def __getitem__(self, name: str) -> ImageQuality:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(repr(row.name) for row in self.rows)}")

    def __repr__(self) -> str:
        names = list(self.rows[0].frechet)
        head = ["", "n", *(f"FD {name}" for name in names), "IS*", "conf.", "entropy", "class shares", "NN", "TV"]
        table = [head]
        for row in self.rows:
            distances = [f"{row.frechet[name]:.2f}" for name in names]
            shares = f"{row.least_share:.3f}-{row.largest_share:.3f}"
            table.append(
                [row.name, str(row.n), *distances, f"{row.inception_score:.2f}", f"{row.confidence:.3f}",
                 f"{row.entropy:.3f}", shares, f"{row.nearest:.4f}", f"{row.total_variation:.4f}"]
            )  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        sides = [str.ljust, *[str.rjust] * (len(head) - 1)]
        lines = [[side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)] for line in table]
        return "\n".join(map("  ".join, lines))


def image_report(
    samples: Any,
    train: Images,
    test: Images,
    classifiers: Mapping[str, ImageClassifier] | Sequence[ImageClassifier],
    *,
    n_nearest: int = 1000,
    seed: int = 0,
    progress: Any = False,
) -> ImageReport:
    """Measure generated pictures, and as many real ones beside them.

    Parameters
    ----------
    samples : (n, d) or (n, *shape), or a mapping from names to such arrays
        They are clipped to [−1, 1] first, as a picture would be.
    train, test : Images
        Fréchet distances are from all test pictures; as many training pictures as there are samples, chosen at random,
        make the floor (a row "train, n" for every n), and the test pictures a row without Fréchet distances of their
        own.
    classifiers : sequence of ImageClassifier, or a mapping from names
        Fréchet distances are in the features of each; the last one's probabilities give the other measures.
    n_nearest : int
        Of how many samples the nearest training picture is sought.
    seed : int
        Of the choice of training pictures.
    progress : bool, or a function of (done, total)
        Over the rows of the table.
    """
    judges = dict(classifiers) if isinstance(classifiers, Mapping) else {one.kind: one for one in classifiers}
    if not judges or not all(isinstance(judge, ImageClassifier) for judge in judges.values()):
        raise TypeError("classifiers must be one or more of what image_classifier returns")
    if len(judges) < len(classifiers):
        raise ValueError("classifiers of one kind need names; give a mapping from names to classifiers")
    n_nearest, seed = checks.integer("n_nearest", n_nearest, minimum=1), checks.seed(seed)
    sets = dict(samples) if isinstance(samples, Mapping) else {"samples": samples}
    given = {name: np.clip(rows(name, value), -1.0, 1.0).astype(np.float32) for name, value in sets.items()}
    d = train.images.shape[1]
    for name, x in given.items():
        if x.shape[1] != d:
            raise ValueError(f"{name} has {x.shape[1]} numbers a picture, the training pictures have {d}")
    floors = {f"train, {n}": n for n in sorted({min(len(x), len(train)) for x in given.values()})}
    taken = [name for name in given if name in {*floors, "test"}]
    if taken:
        raise ValueError(f"samples must not be called {taken[0]!r}, which is the name of a row of real pictures")
    given |= {name: train.images[np.sort(choose(seed, CHOICES, len(train))[:n])] for name, n in floors.items()}
    reference = {name: judge.features(test) for name, judge in judges.items()}
    last = list(judges)[-1]

    def measured(name: str, x: np.ndarray) -> ImageQuality:
        found = {key: judge.judge(x) for key, judge in judges.items()}
        p = found[last].probabilities
        shares = class_shares(p)
        distances = {
            key: np.nan if x is test.images else frechet_distance(one.features, reference[key])
            for key, one in found.items()
        }
        return ImageQuality(
            name, len(x), distances, inception_score(p), confidence(p), prediction_entropy(p), float(shares.min()),
            float(shares.max()), nearest_neighbour_rmse(x[:n_nearest], train.images).median,
            total_variation(x, train.shape),
        )  # fmt: skip

    bar = blocks.progress_bar(progress, len(given) + 1, " sets")
    lines = []
    try:
        for name, x in [*given.items(), ("test", test.images)]:
            lines.append(measured(name, x))
            bar.update(1)
    finally:
        bar.close()
    return ImageReport(tuple(lines))
