"""Histograms of the states at the recorded times."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ...core import checks
from ...core.compile import LANES
from .recorder import Recorder, bound

MOST_OUTSIDE = 0.5  # of the paths, at every recorded time: beyond this the range is no choice but a slip


@njit(inline="always", error_model="numpy")
def bin_of(value, first, last, step, per, n):
    """The bin of n equal ones between first and last that holds a value, −1 outside; ``per`` is n over their width."""
    inside = value >= first and value < last
    v = min(np.int64((value - first) * per if inside else 0.0), n - 1)
    # the product is rounded; the edges first + v step (NumPy's linspace) decide
    v = v - 1 if value < np.float64(v) * step + first else v
    v = v + 1 if value >= np.float64(v + 1) * step + first and v < n - 1 else v
    return v if inside else np.int64(-1)


# The cell of every lane in a joint histogram, -1 outside it; the first words are those of Boxes.words.
CELLS = f"""\
    k, total = slots[1], slots[2]
    lower = carray(_float_pointer(slots[3]), (k,))
    upper = carray(_float_pointer(slots[4]), (k,))
    width = carray(_float_pointer(slots[5]), (k,))
    bins = carray(_int_pointer(slots[6]), (k,))
    component = carray(_int_pointer(slots[7]), (k,))
    cell = carray(_int_pointer(slots[8]), ({LANES},))
    for i in range({LANES}):
        cell[i] = 0
    for c in range(k):
        j, first, last, step, n = component[c], lower[c], upper[c], width[c], bins[c]
        per = np.float64(n) / (last - first)
        for i in range({LANES}):
            v = _bin(np.float64(x[j, i]), first, last, step, per, n)
            old = cell[i]
            cell[i] = old * n + v if v >= 0 and old >= 0 else -1
"""

_HISTOGRAM = """\
    counts = carray(_int_pointer(slots[9]), (slots[10], total + 1))
    for i in range(lo, hi):
        v = cell[i]
        counts[index, v if v >= 0 else total] += 1
"""


class Boxes:
    """Equal bins of one component of the state, or equal boxes of several: the arguments of ``Histogram``."""

    def __init__(self, lower: Any, upper: Any, bins: Any, *, components: Any = None) -> None:
        lows, highs, numbers = np.atleast_1d(lower), np.atleast_1d(upper), np.atleast_1d(np.asarray(bins, object))
        if not lows.shape == highs.shape == numbers.shape or lows.ndim != 1:
            raise ValueError(
                f"{type(self).__name__} needs lower, upper and bins of one length, "
                f"got {lows.shape}, {highs.shape}, {numbers.shape}"
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
            raise ValueError(f"{type(self).__name__} counts component {max(self.components)}, but the state has {d}")

    @property
    def edges(self) -> tuple[np.ndarray, ...]:
        """The edges of the bins along each axis."""
        axes = zip(self.lower, self.upper, self.bins, strict=True)
        return tuple(np.linspace(low, high, n + 1) for low, high, n in axes)

    @property
    def total(self) -> int:
        """The number of boxes."""
        return int(np.prod(self.bins))

    def words(self, d: int) -> tuple[list[int], tuple[Any, ...]]:
        """The first words of a recorder that finds cells, and the memory they point to."""
        bins, components = np.array(self.bins, np.int64), np.array(self.components, np.int64)
        width = (self.upper - self.lower) / bins
        memory = (self.lower, self.upper, width, bins, components, np.empty(LANES, np.int64))
        return [d, len(bins), self.total, *[a.ctypes.data for a in memory]], memory


class Histogram(Boxes):
    """Counts of the state in equal bins, at every recorded time.

    Parameters
    ----------
    lower, upper, bins : numbers for one component, or sequences for the joint histogram of several.
    components : the components counted, by default the first ones; needed only for states of more components.

    The result has ``counts`` (n_times, *bins), ``outside`` (n_times,), the paths in no bin, ``edges`` and
    ``density`` (counts over n times the bin's volume). A bin holds its lower edge: [lower, lower + width).
    """

    def start(self, block: Any, d: int, n_times: int) -> "HistogramPart":
        """An empty part for one block of paths."""
        return HistogramPart(self, d, np.zeros((n_times, self.total + 1), np.int64))

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "HistogramPart":
        """The part of a block, from its ``arrays()``."""
        return HistogramPart(self, d, arrays["counts"])

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "HistogramResult":
        """The counts of all blocks together."""
        counts = parts[0].counts.copy()
        for part in parts[1:]:
            counts += part.counts
        outside = counts[:, -1] / counts.sum(axis=1)
        if outside.min() > MOST_OUTSIDE:
            warnings.warn(
                f"{outside.min():.0%} of the paths and more lie in no bin of the histogram at any recorded time; its "
                "range should reach further, unless these are of no interest (result.outside counts them)",
                UserWarning,
                stacklevel=4,
            )
        inside = counts[:, :-1].reshape(len(t), *self.bins)
        return HistogramResult(t, inside, counts[:, -1], self.edges[0] if len(self.bins) == 1 else self.edges)


@dataclass
class HistogramPart:
    """The counts of one block; the last column counts what lies in no bin."""

    spec: Histogram
    d: int
    counts: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """What the part keeps."""
        return {"counts": self.counts}

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that fills the counts from tiles."""
        words, keep = self.spec.words(self.d)
        words += [self.counts.ctypes.data, len(self.counts)]
        return bound(CELLS + _HISTOGRAM, dtype, words, (self.counts, *keep), _bin=bin_of)


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
