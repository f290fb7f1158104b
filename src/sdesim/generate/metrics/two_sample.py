r"""Distances between two samples.

    energy     2 E|X − Y| − E|X − X′| − E|Y − Y′|                                    (Székely & Rizzo 2013)
    mmd        E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y),  k(x, y) = e^{−|x − y|²/2h²}   (Gretton et al. 2012)
    sliced     √ of the mean of W₂² over random directions                            (Bonneel et al. 2015)

The first two are estimated without bias (pairs of a point with itself are left out), so that they are around 0, and
often below it, where the laws are the same. All are computed for many ways to call some of the points x and the rest y
at once, which is what a permutation test needs: the distances of the pooled points are worked out once, block by block,
and never kept.
"""

from typing import Any

import numpy as np

from ...core import blas, checks, stream
from ...core.blocks import Block
from ...core.cache import kernel
from .rows import by_blocks, distances, pair

_ROWS = 256
_COLUMNS = 256  # permutations that are worked on at once
_MEDIAN_OF = 1000
# Where the draws of this package lie in the stream of purpose ``INITIAL``: ranges of paths.
DIRECTIONS, PERMUTATIONS, CHOICES = (k << 56 for k in range(1, 4))


def energy_distance(x: Any, y: Any) -> float:
    """The energy distance 2 E|X − Y| − E|X − X′| − E|Y − Y′| of two samples, without bias.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Points, or (n,) and (m,). 20 000 each take seconds and little memory.
    """
    first, second = pair(x, y)
    return float(energies(np.concatenate([first, second]), _as_they_are(first, second))[0])


def mmd(x: Any, y: Any, *, bandwidth: float | None = None) -> float:
    """The squared maximum mean discrepancy of two samples with a Gaussian kernel, without bias.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
    bandwidth : float, optional
        h; by default the median distance between the points of both samples together (of 1000 of them, where there
        are more).
    """
    first, second = pair(x, y)
    return float(discrepancies(np.concatenate([first, second]), _as_they_are(first, second), bandwidth=bandwidth)[0])


def sliced_wasserstein(x: Any, y: Any, *, n_projections: int = 200, seed: int = 0) -> float:
    """The sliced Wasserstein distance of order 2: √ of the mean of W₂² between the samples' projections.

    W₂ in one dimension pairs the points in their order; samples of different size are paired in shares.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
    n_projections, seed
        Random directions, uniform on the sphere.
    """
    first, second = pair(x, y)
    pooled = np.concatenate([first, second])
    return float(sliced(pooled, _as_they_are(first, second), n_projections=n_projections, seed=seed)[0])


def _as_they_are(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which of the pooled points are x, (1, n + m)."""
    return (np.arange(len(first) + len(second)) < len(first))[None]


# ---- for many labellings (B, N) of pooled points (N, d): which of them are x, equally many in each


def energies(pooled: np.ndarray, is_x: np.ndarray, *, workers: int | None = None, progress: Any = False) -> np.ndarray:
    """The energy distance of every labelling, (B,)."""
    return _between(pooled, is_x, None, workers, progress)


def discrepancies(
    pooled: np.ndarray, is_x: np.ndarray, *, bandwidth: float | None = None, workers: int | None = None,
    progress: Any = False,
) -> np.ndarray:  # fmt: skip
    """The squared MMD of every labelling, (B,)."""
    width = median_distance(pooled) if bandwidth is None else checks.real("bandwidth", bandwidth, above=0.0)
    return -_between(pooled, is_x, width, workers, progress)


def _between(
    pooled: np.ndarray, is_x: np.ndarray, width: float | None, workers: int | None, progress: Any
) -> np.ndarray:
    """2 mean(x, y) − mean(x, x′) − mean(y, y′) of the distances, or of a Gaussian of them."""
    n_all, n = len(pooled), int(is_x[0].sum())
    m = n_all - n
    columns, labels = np.ascontiguousarray(pooled.T), np.ascontiguousarray(is_x.T)
    with blas.single_threaded():
        parts = by_blocks(_block, n_all, _ROWS, (pooled, columns, labels, width), workers, progress)
    within, of_x, total = (np.sum([part[k] for part in parts], axis=0) for k in range(3))
    between, rest = of_x - within, total - 2.0 * of_x + within
    return 2.0 * between / (n * m) - within / (n * (n - 1)) - rest / (m * (m - 1))


def _block(
    block: Block, pooled: np.ndarray, columns: np.ndarray, labels: np.ndarray, width: float | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums over pairs of a point of the block and one of it or after it: of x and x, of x and any, of any two.

    Pairs with a point after the block count twice, for they stand for their mirror images.
    """
    lo, hi = block.first, block.first + block.size
    d = np.empty((block.size, len(pooled) - lo))
    distances(pooled[lo:hi], columns[:, lo:], d)
    if width is not None:
        np.exp(-0.5 * (d / width) ** 2, out=d)
        np.fill_diagonal(d, 0.0)
    d[:, block.size :] *= 2.0
    by_row, by_column = d.sum(axis=1), d.sum(axis=0)
    within, of_x = np.empty(labels.shape[1]), np.empty(labels.shape[1])
    for start in range(0, labels.shape[1], _COLUMNS):
        some = slice(start, start + _COLUMNS)
        after = labels[lo:, some].astype(np.float64)
        inside = after[: block.size]
        within[some] = np.einsum("ib,ib->b", inside, d @ after)
        of_x[some] = 0.5 * (by_row @ inside + by_column @ after)
    return within, of_x, float(by_row.sum())


def median_distance(pooled: np.ndarray) -> float:
    """The median distance between points; of some of them, which do not depend on their order, where there are many.

    A permutation test is exact only where everything in it treats the points alike: those that are chosen lie evenly
    along a fixed direction.
    """
    if len(pooled) > _MEDIAN_OF:
        along = pooled @ np.cos(np.arange(1.0, pooled.shape[1] + 1.0))
        chosen = np.linspace(0, len(pooled) - 1, _MEDIAN_OF).round().astype(np.intp)
        pooled = pooled[np.argsort(along, kind="stable")[chosen]]
    d = np.empty((len(pooled), len(pooled)))
    distances(pooled, np.ascontiguousarray(pooled.T), d)
    found = float(np.median(d[np.triu_indices(len(pooled), 1)]))
    if not found > 0.0:
        raise ValueError("more than half of the points are the same: their median distance is 0; give bandwidth=")
    return found


def sliced(
    pooled: np.ndarray, is_x: np.ndarray, *, n_projections: int = 200, seed: int = 0, workers: int | None = None,
    progress: Any = False,
) -> np.ndarray:  # fmt: skip
    """The sliced Wasserstein distance of every labelling, (B,)."""
    count = checks.integer("n_projections", n_projections, minimum=1)
    draws = stream.normals(checks.seed(seed), stream.INITIAL, count, pooled.shape[1], first_path=DIRECTIONS)[:, :, 0]
    directions = draws / np.linalg.norm(draws, axis=1, keepdims=True)
    with blas.single_threaded():
        along = directions @ pooled.T
    order = np.argsort(along, axis=1, kind="stable")
    along = np.take_along_axis(along, order, axis=1)
    n = int(is_x[0].sum())
    arguments = (along, order, np.ascontiguousarray(is_x), n)
    parts = by_blocks(_slices, len(is_x), 8, arguments, workers, progress, " permutations")
    return np.sqrt(np.concatenate(parts))


def _slices(block: Block, along: np.ndarray, order: np.ndarray, is_x: np.ndarray, n: int) -> np.ndarray:
    out = np.empty(block.size)
    wasserstein_squares(along, order, is_x[block.first : block.first + block.size], n, out)
    return out


@kernel
def wasserstein_squares(along, order, is_x, n, out):
    """The mean over projections of W₂² for every labelling; a projection is in its order, ``order`` says of what."""
    n_all = order.shape[1]
    m = n_all - n
    x, y = np.empty(n), np.empty(m)
    for b in range(is_x.shape[0]):
        total = 0.0
        for p in range(along.shape[0]):
            i = j = 0
            for k in range(n_all):
                if is_x[b, order[p, k]]:
                    x[i] = along[p, k]
                    i += 1
                else:
                    y[j] = along[p, k]
                    j += 1
            # every x has m shares and every y has n of them: integers, so that nothing is lost
            i = j = 0
            left_x, left_y = m, n
            while i < n and j < m:
                share = min(left_x, left_y)
                total += share * (x[i] - y[j]) ** 2
                left_x -= share
                left_y -= share
                if left_x == 0:
                    i += 1
                    left_x = m
                if left_y == 0:
                    j += 1
                    left_y = n
        out[b] = total / (np.float64(n) * m * along.shape[0])


def choose(seed: int, path: int, n: int) -> np.ndarray:
    """A random order of 0 … n − 1 from the stream."""
    return np.argsort(stream.uniforms(seed, stream.INITIAL, n, first_path=path)[:, 0, 0], kind="stable")


def labellings(n: int, m: int, count: int, seed: int) -> np.ndarray:
    """The labelling as it is, then ``count`` random ones, (count + 1, n + m)."""
    out = np.zeros((count + 1, n + m), bool)
    out[0, :n] = True
    for b in range(1, count + 1):
        out[b, choose(seed, PERMUTATIONS + (b << 34), n + m)[:n]] = True
    return out
