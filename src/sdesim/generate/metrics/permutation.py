r"""Is a distance larger than chance makes it? Permutation tests, and the distance between two sets of data.

If x and y have one law, it does not matter which of the points are called x. So the distance as it is, and those of B
random ways to call n of the points x, are exchangeable, and p = (1 + #{T_b ≥ T})/(1 + B) is at most α with probability
at most α, for any number of points (Phipson & Smyth 2010).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import checks
from . import two_sample
from .rows import pair
from .two_sample import CHOICES, choose, energy_distance, labellings, mmd, sliced_wasserstein

# The same distances for many labellings at once.
_MANY: dict[Any, Callable[..., np.ndarray]] = {
    energy_distance: two_sample.energies, mmd: two_sample.discrepancies, sliced_wasserstein: two_sample.sliced
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PermutationTest:
    """A distance and what chance makes of it.

    Attributes
    ----------
    statistic : float
    pvalue : float
        (1 + the number of permutations with a distance at least as large) / (1 + n_permutations).
    null : (n_permutations,)
        The distances of the permutations.
    """

    statistic: float
    pvalue: float
    null: np.ndarray

    def __repr__(self) -> str:
        return (
            f"PermutationTest(statistic={self.statistic:.4g}, pvalue={self.pvalue:.4g}; permuted "
            f"{self.null.mean():.4g} ± {self.null.std():.2g}, {self.null.size} of them)"
        )


def permutation_test(
    x: Any,
    y: Any,
    metric: Callable[..., float] = energy_distance,
    *,
    n_permutations: int = 499,
    seed: int | None = 0,
    workers: int | None = None,
    progress: Any = False,
) -> PermutationTest:
    """Test whether two samples have one law.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
    metric : function of (x, y)
        A distance that is larger the more they differ. For ``energy_distance``, ``mmd`` and ``sliced_wasserstein``,
        and a ``functools.partial`` of them, the points' distances are worked out once; any other function is called
        once a permutation.
    n_permutations : int
        The p-value is a multiple of 1/(1 + n_permutations).
    seed, workers, progress
        Of the permutations; the result does not depend on the number of threads.
    """
    first, second = pair(x, y)
    count = checks.integer("n_permutations", n_permutations, minimum=1)
    checks.function("metric", metric, "metric(x, y)")
    seed = checks.seed(seed)
    if workers is not None:
        checks.integer("workers", workers, minimum=1)
    pooled, labels = np.concatenate([first, second]), labellings(len(first), len(second), count, seed)
    options: dict[str, Any] = {}
    function: Any = metric
    if isinstance(metric, functools.partial) and not metric.args:
        function, options = metric.func, metric.keywords
    if function in _MANY:
        found = _MANY[function](pooled, labels, workers=workers, progress=progress, **options)
    else:
        found = np.array([float(metric(pooled[chosen], pooled[~chosen])) for chosen in labels])
    statistic, null = float(found[0]), found[1:]
    # permutations that only swap equal points give the same distance, up to the order of its sums
    slack = 1e-12 * float(np.abs(found).max())
    return PermutationTest(statistic, float((1 + np.count_nonzero(null >= statistic - slack)) / (1 + count)), null)


@dataclasses.dataclass(frozen=True)
class Floor:
    """A distance between two sets of data: what perfect samples would have.

    Attributes
    ----------
    mean, sd : float
        Over the repeats; sd is nan for one.
    values : (n_repeats,)
    n : int
        The number of training points.
    """

    mean: float
    sd: float
    values: np.ndarray
    n: int

    def __repr__(self) -> str:
        spread = "" if math.isnan(self.sd) else f" ± {self.sd:.2g}"
        return f"Floor({self.mean:.4g}{spread}, n={self.n}, {self.values.size} repeats)"


def floor(
    metric: Callable[[Any, Any], float],
    train: Any,
    test: Any,
    n: int | None = None,
    *,
    n_test: int | None = None,
    n_repeats: int = 1,
    seed: int | None = 0,
) -> Floor:
    """``metric(some of train, test)``: training points stand for samples that could not be better.

    Parameters
    ----------
    metric : function of (samples, reference) that returns a number
    train, test : (n, d)
    n : int, optional
        How many training points are drawn, without replacement: as many as there are samples. By default as many as
        the smaller set has.
    n_test : int, optional
        How many test points are drawn; by default all are used.
    n_repeats : int
        How often to draw anew.
    """
    first, second = pair(train, test, ("train", "test"), short=True)
    sizes = [
        min(len(first), len(second)) if n is None else checks.integer("n", n, minimum=2, below=len(first) + 1),
        len(second) if n_test is None else checks.integer("n_test", n_test, minimum=2, below=len(second) + 1),
    ]
    repeats, seed = checks.integer("n_repeats", n_repeats, minimum=1), checks.seed(seed)
    values = np.empty(repeats)
    for k in range(repeats):
        chosen = [
            points[np.sort(choose(seed, CHOICES + ((2 * k + side) << 34), len(points))[:size])]
            for side, (points, size) in enumerate(zip((first, second), sizes, strict=True))
        ]
        values[k] = float(metric(chosen[0], chosen[1]))
    return Floor(float(values.mean()), float(values.std(ddof=1)) if repeats > 1 else math.nan, values, sizes[0])
