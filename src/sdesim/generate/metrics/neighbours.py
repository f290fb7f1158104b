r"""Neighbours: what share of the data the samples cover, and whether they are copies of it.

With r_i the distance of data point x_i from its k-th nearest among the others (Naeem et al. 2020, equations 5 and 6):

    coverage   the share of the x_i with a sample nearer than r_i
    density    the mean over the samples of #{i: nearer to x_i than r_i}/k

Where samples and data have one law, and there are N data and M samples, the expected coverage is
1 − (N − 1)…(N − k)/((M + N − 1)…(M + N − k)), nearly 1 − 2⁻ᵏ for N = M, and the expected density is 1.
"""

from typing import Any, NamedTuple

import numpy as np

from ...core import blas, checks
from ...core.blocks import Block
from .rows import by_blocks, distances, pair

_ROWS = 128
_SEARCHED = 4096


class Coverage(NamedTuple):
    """The share of the data that samples cover, how densely, and the coverage expected of perfect samples."""

    coverage: float
    density: float
    expected: float


class Neighbours(NamedTuple):
    """Of every sample the nearest training point: its root mean square difference, its number; the median of all."""

    median: float
    rmse: np.ndarray
    nearest: np.ndarray


def coverage(samples: Any, reference: Any, *, k: int = 5) -> Coverage:
    """Coverage and density of data by samples (Naeem et al. 2020), in the space that both are given in.

    Parameters
    ----------
    samples, reference : (m, d) and (n, d)
        Of pictures, give features.
    k : int
        Which neighbour sets the radius.
    """
    drawn, data = pair(samples, reference, ("samples", "reference"))
    k = checks.integer("k", k, minimum=1, below=len(data))
    n, m = len(data), len(drawn)
    columns = (np.ascontiguousarray(data.T), np.ascontiguousarray(drawn.T))
    inside = np.concatenate(by_blocks(_covered, n, _ROWS, (data, *columns, k)))
    expected = 1.0 - float(np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)]))
    return Coverage(float((inside > 0).mean()), float(inside.sum() / (k * m)), expected)


def _covered(block: Block, data: np.ndarray, others: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """How many samples lie within the radius of every data point of the block."""
    at = data[block.first : block.first + block.size]
    d = np.empty((block.size, others.shape[1]))
    distances(at, others, d)
    radius = np.partition(d, k, axis=1)[:, k]  # the point itself is the 0-th
    d = np.empty((block.size, samples.shape[1]))
    distances(at, samples, d)
    return np.count_nonzero(d < radius[:, None], axis=1)


def nearest_neighbour_rmse(samples: Any, train: Any) -> Neighbours:
    """The root mean square difference per number between every sample and the training point nearest to it.

    Test data show what is to be expected: well below them, samples are copies, or smoother than the data. The
    nearest is sought in float32, by products of matrices; the difference from it is exact.

    Parameters
    ----------
    samples, train : (m, d) and (n, d)
    """
    x, y = pair(samples, train, ("samples", "train"), fewest=1, short=True)
    centre = y.mean(axis=0, dtype=np.float64).astype(y.dtype)
    found = np.zeros(len(x), np.intp)
    best = np.full(len(x), np.inf, np.float32)
    at = (x - centre).astype(np.float32)
    with blas.single_threaded():
        for lo in range(0, len(y), _SEARCHED):
            some = (y[lo : lo + _SEARCHED] - centre).astype(np.float32)
            # |x − y|² − |x|², which has the same order
            d = at @ some.T
            d *= -2.0
            d += np.einsum("nd,nd->n", some, some)
            nearest = d.argmin(axis=1)
            smallest = d[np.arange(len(x)), nearest]
            closer = smallest < best
            best[closer], found[closer] = smallest[closer], lo + nearest[closer]
    rmse = np.sqrt(((x.astype(np.float64) - y[found]) ** 2).mean(axis=1))
    return Neighbours(float(np.median(rmse)), rmse, found)
