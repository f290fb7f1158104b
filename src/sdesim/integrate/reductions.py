"""What a run keeps of its paths: saved states, histograms, moments; gathered inside the time loop.

A reduction sees each tile at the recorded times and keeps a few numbers, so that 10⁸ paths need no memory. Counts are
integers, and sums are taken over the paths by one fixed binary tree on the absolute path index, so that a result has
the same bits for any blocks, any workers, and for two halves of an ensemble that were run apart and added.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import cache, call, checks
from ..core.compile import LANES

_RECORDER = """\
import numpy as np
from numba import carray, cfunc, types

_T = types.{dtype}

@cfunc(types.void(types.CPointer(_T), types.CPointer(_T), types.intp, types.intp, types.intp, types.intp,
                  types.CPointer(types.int64)), cache=CACHE, error_model="numpy")
def record(x_, t_, lo, hi, row, index, slots_):
    slots = carray(slots_, ({n_slots},))
    d = slots[0]
    x = carray(x_, (d, {L}))
{body}
"""

# A saved state is written path by path; gathering 16 times first turns scattered stores into whole cache lines.
_SAVE_DEPTH = 16
_SAVE = f"""\
    n_times = slots[1]
    buffer = carray(_state_pointer(slots[3]), ({_SAVE_DEPTH}, d, {LANES}))
    b = index % {_SAVE_DEPTH}
    for j in range(d):
        for i in range({LANES}):
            buffer[b, j, i] = x[j, i]
    if b == {_SAVE_DEPTH} - 1 or index == n_times - 1:
        # a path's states follow one another in memory, so (time, component) is one index on both sides
        out = carray(_state_pointer(slots[2]), (slots[4], n_times * d))
        rows = carray(_state_pointer(slots[3]), ({_SAVE_DEPTH} * d, {LANES}))
        first = (index - b) * d
        for i in range(lo, hi):
            for q in range((b + 1) * d):
                out[row + i, first + q] = rows[q, i]
"""

_HISTOGRAM = f"""\
    k, total = slots[1], slots[2]
    counts = carray(_int_pointer(slots[3]), (slots[4], total + 1))
    lower = carray(_float_pointer(slots[5]), (k,))
    upper = carray(_float_pointer(slots[6]), (k,))
    width = carray(_float_pointer(slots[7]), (k,))
    bins = carray(_int_pointer(slots[8]), (k,))
    component = carray(_int_pointer(slots[9]), (k,))
    cell = carray(_int_pointer(slots[10]), ({LANES},))
    for i in range({LANES}):
        cell[i] = 0
    for c in range(k):
        j, first, last, step, n = component[c], lower[c], upper[c], width[c], bins[c]
        per = np.float64(n) / (last - first)
        for i in range({LANES}):
            value = np.float64(x[j, i])
            inside = value >= first and value < last
            v = min(np.int64((value - first) * per if inside else 0.0), n - 1)
            # the product is rounded; the edges first + v step (NumPy's linspace) decide
            v = v - 1 if value < np.float64(v) * step + first else v
            v = v + 1 if value >= np.float64(v + 1) * step + first and v < n - 1 else v
            old = cell[i]
            cell[i] = old * n + v if inside and old >= 0 else -1
    for i in range(lo, hi):
        v = cell[i]
        counts[index, v if v >= 0 else total] += 1
"""

_MOMENTS = f"""\
    n_pairs = d * (d + 1) // 2
    nodes = carray(_float_pointer(slots[1]), (slots[2], slots[3], d + n_pairs))
    position = carray(_int_pointer(slots[4]), (slots[5],))[(row + lo - slots[6]) // {LANES}]
    mean = carray(_float_pointer(slots[7]), (d, {LANES}))
    pair = carray(_float_pointer(slots[8]), (n_pairs, {LANES}))
    for j in range(d):
        for i in range({LANES}):
            mean[j, i] = np.float64(x[j, i])
    for c in range(n_pairs):
        for i in range({LANES}):
            pair[c, i] = 0.0
    size = 1
    while True:
        for k in range({LANES} // size):
            a, b = k * size, k * size + size
            up = (k // 2) * 2 * size
            if a >= lo and b <= hi and (size == {LANES} or up < lo or up + 2 * size > hi):
                for j in range(d):
                    nodes[position, index, j] = mean[j, k]
                for c in range(n_pairs):
                    nodes[position, index, d + c] = pair[c, k]
                position += 1
        if size == {LANES}:
            break
        c = 0
        for j in range(d):
            for l in range(j, d):
                for k in range({LANES} // (2 * size)):
                    dj = mean[j, 2 * k + 1] - mean[j, 2 * k]
                    dl = mean[l, 2 * k + 1] - mean[l, 2 * k]
                    pair[c, k] = pair[c, 2 * k] + pair[c, 2 * k + 1] + dj * dl * (0.5 * size)
                c += 1
        for j in range(d):
            for k in range({LANES} // (2 * size)):
                mean[j, k] = mean[j, 2 * k] + 0.5 * (mean[j, 2 * k + 1] - mean[j, 2 * k])
        size *= 2
"""


@functools.cache
def _recorder(body: str, n_slots: int, dtype: np.dtype) -> Any:
    names = {
        "_state_pointer": call.pointer_f32 if dtype == np.float32 else call.pointer_f64,
        "_float_pointer": call.pointer_f64,
        "_int_pointer": call.pointer_i64,
    }
    text = _RECORDER.format(dtype=dtype.name, n_slots=n_slots, L=LANES, body=body)
    used = {name: value for name, value in names.items() if name in body}
    return cache.load(text, used).record


@dataclass
class Recorder:
    """A compiled recorder with the memory it writes into: what the tile engine is handed."""

    address: int
    slots: np.ndarray
    keep: tuple[Any, ...]


def _bound(body: str, dtype: Any, slots: list[int], keep: tuple[Any, ...]) -> Recorder:
    compiled = _recorder(body, len(slots), np.dtype(dtype))
    return Recorder(compiled.address, np.array(slots, np.int64), (compiled, *keep))


def save_recorder(out: np.ndarray) -> Recorder:
    """Write the states of a block into ``out`` (paths, times, d)."""
    n, n_times, d = out.shape
    buffer = np.empty((_SAVE_DEPTH, d, LANES), out.dtype)
    return _bound(_SAVE, out.dtype, [d, n_times, out.ctypes.data, buffer.ctypes.data, n], (out, buffer))


# ---- histograms -----------------------------------------------------------------------------------------------------


class Histogram:
    """Counts of the state in equal bins, at every recorded time.

    Parameters
    ----------
    lower, upper, bins : numbers for one component, or sequences for the joint histogram of several.
    components : the components counted, by default the first ones; needed only for states of more components.

    The result has ``counts`` (n_times, *bins), ``outside`` (n_times,), the paths in no bin, ``edges`` and
    ``density`` (counts over n times the bin's volume). A bin holds its lower edge: [lower, lower + width).
    """

    def __init__(self, lower: Any, upper: Any, bins: Any, *, components: Any = None) -> None:
        lows, highs, numbers = np.atleast_1d(lower), np.atleast_1d(upper), np.atleast_1d(np.asarray(bins, object))
        if not lows.shape == highs.shape == numbers.shape or lows.ndim != 1:
            raise ValueError(
                f"Histogram needs lower, upper and bins of one length, got {lows.shape}, {highs.shape}, {numbers.shape}"
            )
        self.lower = np.array([checks.real("lower", v) for v in lows])
        self.upper = np.array([checks.real("upper", v) for v in highs])
        self.bins = tuple(checks.integer("bins", n, minimum=1) for n in numbers)
        for low, high in zip(self.lower, self.upper, strict=True):
            if not low < high:
                raise ValueError(f"lower {low:g} must be < upper {high:g}")
        chosen = range(len(self.bins)) if components is None else np.atleast_1d(components)
        self.components = tuple(checks.integer("components", c, minimum=0) for c in chosen)
        if len(self.components) != len(self.bins):
            raise ValueError(f"components names {len(self.components)}, but bins has {len(self.bins)} entries")

    def check(self, d: int) -> None:
        """Raise where a component is counted that the state does not have."""
        if max(self.components) >= d:
            raise ValueError(f"Histogram counts component {max(self.components)}, but the state has {d}")

    def start(self, block: Any, d: int, n_times: int) -> "HistogramPart":
        """An empty part for one block of paths."""
        return HistogramPart(self, d, np.zeros((n_times, int(np.prod(self.bins)) + 1), np.int64))

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "HistogramResult":
        """The counts of all blocks together."""
        counts = parts[0].counts.copy()
        for part in parts[1:]:
            counts += part.counts
        edges = tuple(
            np.linspace(low, high, n + 1) for low, high, n in zip(self.lower, self.upper, self.bins, strict=True)
        )
        inside = counts[:, :-1].reshape(len(t), *self.bins)
        return HistogramResult(t, inside, counts[:, -1], edges[0] if len(edges) == 1 else edges)


@dataclass
class HistogramPart:
    """The counts of one block; the last column counts what lies in no bin."""

    spec: Histogram
    d: int
    counts: np.ndarray

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that fills the counts from tiles."""
        spec = self.spec
        bins, components = np.array(spec.bins, np.int64), np.array(spec.components, np.int64)
        width = (spec.upper - spec.lower) / bins
        cell = np.empty(LANES, np.int64)
        pointers = [a.ctypes.data for a in (spec.lower, spec.upper, width, bins, components, cell)]
        slots = [self.d, len(bins), self.counts.shape[1] - 1, self.counts.ctypes.data, self.counts.shape[0], *pointers]
        return _bound(_HISTOGRAM, dtype, slots, (self, width, bins, components, cell))


@dataclass(frozen=True)
class HistogramResult:
    """Counts at the recorded times; results of disjoint sets of paths add with ``+``."""

    t: np.ndarray
    counts: np.ndarray
    outside: np.ndarray
    edges: Any

    @property
    def n(self) -> int:
        """The number of paths."""
        return int(self.counts[0].sum() + self.outside[0])

    @property
    def density(self) -> np.ndarray:
        """Estimated density (n_times, *bins): counts over n and the bin's volume."""
        edges = self.edges if isinstance(self.edges, tuple) else (self.edges,)
        volume = np.prod([e[1] - e[0] for e in edges])
        return self.counts / (self.n * volume)

    def __add__(self, other: "HistogramResult") -> "HistogramResult":
        mine = self.edges if isinstance(self.edges, tuple) else (self.edges,)
        theirs = other.edges if isinstance(other.edges, tuple) else (other.edges,)
        same = len(mine) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        if not same or not np.array_equal(self.t, other.t):
            raise ValueError("histograms add only when their bins and times are the same")
        return HistogramResult(self.t, self.counts + other.counts, self.outside + other.outside, self.edges)


# ---- moments --------------------------------------------------------------------------------------------------------


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
        return MomentsPart.empty(block.first, block.size, d, n_times)

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "MomentsResult":
        """The moments of all blocks together."""
        tree = Tree.join([part.tree for part in parts])
        return MomentsResult(t, tree, state_shape)


@dataclass
class Tree:
    """Maximal dyadic nodes of a set of paths: node (level, index) stands for the paths index·2^level + [0, 2^level).

    ``values`` (nodes, times, d + d(d+1)/2) holds means and co-moments. Siblings are always merged, so that the nodes
    depend on the set of paths alone.
    """

    d: int
    levels: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @staticmethod
    def join(trees: list["Tree"]) -> "Tree":
        """The nodes of the union of disjoint sets."""
        d = trees[0].d
        levels = np.concatenate([tree.levels for tree in trees])
        indices = np.concatenate([tree.indices for tree in trees])
        values = np.concatenate([tree.values for tree in trees])
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        level = int(levels.min()) if len(levels) else 0
        while len(levels):
            here = levels == level
            order = np.argsort(indices[here], kind="stable")
            index, value = indices[here][order], values[here][order]
            rest = ~here
            levels, indices, values = levels[rest], indices[rest], values[rest]
            left = np.flatnonzero((index[:-1] % 2 == 0) & (index[1:] == index[:-1] + 1))
            alone = np.ones(len(index), bool)
            alone[left] = alone[left + 1] = False
            done.append((np.full(int(alone.sum()), level), index[alone], value[alone]))
            if len(left):
                merged = _merge(d, value[left], value[left + 1], float(2**level), float(2**level))
                levels = np.concatenate([levels, np.full(len(left), level + 1)])
                indices = np.concatenate([indices, index[left] // 2])
                values = np.concatenate([values, merged])
            if len(levels):
                level = int(levels.min())
        levels = np.concatenate([part[0] for part in done])
        indices = np.concatenate([part[1] for part in done])
        values = np.concatenate([part[2] for part in done])
        starts = indices << levels
        order = np.lexsort((levels, starts))
        levels, indices, values, starts = levels[order], indices[order], values[order], starts[order]
        if (np.diff(starts) < (1 << levels[:-1])).any():
            raise ValueError("moments add only over disjoint sets of paths; give the second run another first_path")
        return Tree(d, levels, indices, values)

    def total(self) -> tuple[int, np.ndarray]:
        """The number of paths and the values of all of them, folded in the order of the paths."""
        count, value = 2 ** int(self.levels[0]), self.values[0]
        for level, node in zip(self.levels[1:].tolist(), self.values[1:], strict=True):
            value = _merge(self.d, value, node, float(count), float(2**level))
            count += 2**level
        return count, value


def _merge(d: int, a: np.ndarray, b: np.ndarray, na: float, nb: float) -> np.ndarray:
    out = np.empty_like(a)
    delta = b[..., :d] - a[..., :d]
    out[..., :d] = a[..., :d] + (nb / (na + nb)) * delta
    rows, columns = np.triu_indices(d)
    out[..., d:] = a[..., d:] + b[..., d:] + delta[..., rows] * delta[..., columns] * (na * nb / (na + nb))
    return out


def dyadic_nodes(first: int, size: int, leaf: int = LANES) -> list[tuple[int, int]]:
    """The nodes (level, index) that a leaf-by-leaf walk over [first, first + size) emits, in its order."""
    nodes = []
    for start in range(first // leaf * leaf, first + size, leaf):
        lo, hi = max(first, start), min(first + size, start + leaf)
        width, level = 1, 0
        while width <= leaf:
            for a in range(start, start + leaf, width):
                up = a // (2 * width) * (2 * width)
                if a >= lo and a + width <= hi and (width == leaf or up < lo or up + 2 * width > hi):
                    nodes.append((level, a // width))
            width, level = 2 * width, level + 1
    return nodes


@dataclass
class MomentsPart:
    """The nodes of one block of paths, filled by its recorder."""

    d: int
    first: int
    tree_levels: np.ndarray
    tree_indices: np.ndarray
    positions: np.ndarray
    nodes: np.ndarray

    @staticmethod
    def empty(first: int, size: int, d: int, n_times: int) -> "MomentsPart":
        """Room for the nodes of the paths [first, first + size)."""
        levels: list[int] = []
        indices: list[int] = []
        positions: list[int] = []
        start = first
        while start < first + size:
            end = min(first + size, (start // LANES + 1) * LANES)
            positions.append(len(levels))
            if end - start == LANES:
                levels.append(LANES.bit_length() - 1)
                indices.append(start // LANES)
            else:
                for level, index in dyadic_nodes(start, end - start):
                    levels.append(level)
                    indices.append(index)
            start = end
        values = np.zeros((len(levels), n_times, d + d * (d + 1) // 2))
        return MomentsPart(d, first, np.array(levels), np.array(indices), np.array(positions, np.int64), values)

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that fills the nodes from tiles."""
        n_nodes, n_times, _ = self.nodes.shape
        mean = np.empty((self.d, LANES))
        pair = np.empty((self.d * (self.d + 1) // 2, LANES))
        # the recorder knows rows of the block; the leaf of a row follows from where the first leaf starts
        start = -(self.first % LANES)
        slots = [self.d, self.nodes.ctypes.data, n_nodes, n_times, self.positions.ctypes.data, len(self.positions),
                 start, mean.ctypes.data, pair.ctypes.data]  # fmt: skip
        return _bound(_MOMENTS, dtype, slots, (self, mean, pair))

    @property
    def tree(self) -> Tree:
        """The block's nodes, siblings merged."""
        return Tree.join([Tree(self.d, self.tree_levels, self.tree_indices, self.nodes)])


@dataclass(frozen=True)
class MomentsResult:
    """Moments at the recorded times; results of disjoint sets of paths add with ``+``, to the bits of one run."""

    t: np.ndarray
    tree: Tree
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
        return self._values()[1][:, : self.tree.d].reshape(len(self.t), *self.state_shape)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased sample covariance, (n_times, d, d)."""
        n, value = self._values()
        d = self.tree.d
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

    def __add__(self, other: "MomentsResult") -> "MomentsResult":
        if not np.array_equal(self.t, other.t) or self.state_shape != other.state_shape:
            raise ValueError("moments add only when their times and states are the same")
        return MomentsResult(self.t, Tree.join([self.tree, other.tree]), self.state_shape)
