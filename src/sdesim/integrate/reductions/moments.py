"""Mean and covariance at the recorded times."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numba import njit

from ...core.compile import LANES
from .recorder import Recorder, bound
from .tree import Tree, block_nodes


@njit(inline="always", error_model="numpy")
def merged_mean(a, b):
    """The mean of two halves of the same size."""
    return a + 0.5 * (b - a)


@njit(inline="always", error_model="numpy")
def merged_pair(s_a, s_b, j_a, j_b, l_a, l_b, size):
    """The co-moment of numbers j and l over two halves of ``size`` paths with these co-moments and means."""
    return s_a + s_b + (j_b - j_a) * (l_b - l_a) * (0.5 * size)


MERGING = {"_mean": merged_mean, "_pair": merged_pair}

# The body of a recorder of moments of ``y`` (values, 256), which the lines before it define; its words are those of
# MomentsPart.words, its names MERGING.
MOMENTS = f"""\
    n_values = slots[1]
    n_pairs = n_values * (n_values + 1) // 2
    nodes = carray(_float_pointer(slots[2]), (slots[3], slots[4], n_values + n_pairs))
    position = carray(_int_pointer(slots[5]), (slots[6],))[(row + lo - slots[7]) // {LANES}]
    mean = carray(_float_pointer(slots[8]), (n_values, {LANES}))
    pair = carray(_float_pointer(slots[9]), (n_pairs, {LANES}))
    for j in range(n_values):
        for i in range({LANES}):
            mean[j, i] = np.float64(y[j, i])
    for c in range(n_pairs):
        for i in range({LANES}):
            pair[c, i] = 0.0
    size = 1
    while True:
        for k in range({LANES} // size):
            a, b = k * size, k * size + size
            up = (k // 2) * 2 * size
            if a >= lo and b <= hi and (size == {LANES} or up < lo or up + 2 * size > hi):
                for j in range(n_values):
                    nodes[position, index, j] = mean[j, k]
                for c in range(n_pairs):
                    nodes[position, index, n_values + c] = pair[c, k]
                position += 1
        if size == {LANES}:
            break
        c = 0
        for j in range(n_values):
            for l in range(j, n_values):
                for k in range({LANES} // (2 * size)):
                    a, b = 2 * k, 2 * k + 1
                    pair[c, k] = _pair(pair[c, a], pair[c, b], mean[j, a], mean[j, b], mean[l, a], mean[l, b], size)
                c += 1
        for j in range(n_values):
            for k in range({LANES} // (2 * size)):
                mean[j, k] = _mean(mean[j, 2 * k], mean[j, 2 * k + 1])
        size *= 2
"""


class Moments:
    """Mean and covariance of the state at every recorded time, in float64, by a fixed pairwise tree.

    Chan, Golub & LeVeque (1983): two halves of n paths with means m₁, m₂ and co-moments S₁, S₂ make

        m = m₁ + ½ (m₂ − m₁),   S = S₁ + S₂ + ½ n (m₂ − m₁)(m₂ − m₁)ᵀ,

    which loses no digits where the mean is large against the spread.
    """

    def check(self, d: int) -> None:
        """Any state will do."""

    def start(self, block: Any, d: int, n_times: int) -> "MomentsPart":
        """An empty part for one block of paths."""
        return MomentsPart(block.first, block.size, d, n_times)

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "MomentsPart":
        """The closed part of a block, from its ``arrays()``."""
        return MomentsPart.of(MomentTree(**arrays, n_values=d), block)

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "MomentsResult":
        """The moments of all blocks together."""
        return MomentsResult(t, MomentTree.join([part.tree for part in parts]), state_shape)


@dataclass
class MomentTree(Tree):
    """A tree whose values (nodes, times, n + n(n+1)/2) are the means and co-moments of n numbers."""

    n_values: int

    def merge(self, a: np.ndarray, b: np.ndarray, na: float, nb: float) -> np.ndarray:
        """Chan, Golub & LeVeque (1983), eq. 2.1 and its multivariate form."""
        n = self.n_values
        out = np.empty_like(a)
        delta = b[..., :n] - a[..., :n]
        out[..., :n] = a[..., :n] + (nb / (na + nb)) * delta
        rows, columns = np.triu_indices(n)
        out[..., n:] = a[..., n:] + b[..., n:] + delta[..., rows] * delta[..., columns] * (na * nb / (na + nb))
        return out


class MomentsPart:
    """The nodes of one block of paths, filled by its recorder."""

    def __init__(self, first: int, size: int, n_values: int, n_times: int) -> None:
        levels, indices, self.positions = block_nodes(first, size)
        values = np.zeros((len(levels), n_times, n_values + n_values * (n_values + 1) // 2))
        self.first = first
        self.tree = MomentTree(levels, indices, values, n_values)

    @classmethod
    def of(cls, tree: MomentTree, block: Any) -> Self:
        """The closed part of a block, with these nodes."""
        part = object.__new__(cls)
        part.first, part.tree = block.first, tree
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """What a closed part keeps."""
        return self.tree.arrays()

    def words(self, d: int) -> tuple[list[int], tuple[Any, ...]]:
        """The first words of the recorder for a state of d components, and the memory they point to."""
        n_nodes, n_times, _ = self.tree.values.shape
        n_values = self.tree.n_values
        mean = np.empty((n_values, LANES))
        pair = np.empty((n_values * (n_values + 1) // 2, LANES))
        # the recorder knows rows of the block; the leaf of a row follows from where the first leaf starts
        start = -(self.first % LANES)
        words = [d, n_values, self.tree.values.ctypes.data, n_nodes, n_times, self.positions.ctypes.data,
                 len(self.positions), start, mean.ctypes.data, pair.ctypes.data]  # fmt: skip
        return words, (self.tree.values, self.positions, mean, pair)

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that fills the nodes from tiles."""
        words, keep = self.words(self.tree.n_values)
        return bound("    y = x\n" + MOMENTS, dtype, words, keep, **MERGING)

    def close(self) -> None:
        """Merge siblings: of a block of whole leaves a node or two remain."""
        self.tree = MomentTree.join([self.tree])


@dataclass(frozen=True)
class MomentsResult:
    """Moments at the recorded times; results of disjoint sets of paths add with ``+``, to the bits of one run."""

    t: np.ndarray
    tree: MomentTree = field(repr=False)
    state_shape: tuple[int, ...]
    _total: dict[str, Any] = field(default_factory=dict, repr=False)

    def _values(self) -> tuple[int, np.ndarray]:
        if "value" not in self._total:
            self._total["value"] = self.tree.total()
        count, value = self._total["value"]
        return count, value

    @property
    def n(self) -> int:
        """The number of paths."""
        return self._values()[0]

    @property
    def mean(self) -> np.ndarray:
        """Sample mean, (n_times[, d])."""
        return self._values()[1][:, : self.tree.n_values].reshape(len(self.t), *self.state_shape)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased sample covariance, (n_times, d, d)."""
        n, value = self._values()
        d = self.tree.n_values
        rows, columns = np.triu_indices(d)
        out = np.empty((len(self.t), d, d))
        out[:, rows, columns] = out[:, columns, rows] = value[:, d:] / (n - 1) if n > 1 else np.nan
        return out

    @property
    def variance(self) -> np.ndarray:
        """Unbiased sample variance of each component, (n_times[, d])."""
        return np.einsum("tii->ti", self.covariance).reshape(len(self.t), *self.state_shape)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of the mean, (n_times[, d])."""
        return np.sqrt(self.variance / self.n)

    def __add__(self, other: Self) -> Self:
        same = type(self) is type(other) and np.array_equal(self.t, other.t)
        if not same or self.state_shape != other.state_shape:
            raise ValueError("moments add only when their times and states are the same")
        return type(self)(self.t, MomentTree.join([self.tree, other.tree]), self.state_shape)
