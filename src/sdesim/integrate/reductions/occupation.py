"""The time that paths spend in each bin."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.compile import LANES
from .histogram import CELLS, Boxes, bin_of
from .recorder import FOLLOW, Recorder, bound, check_followed

# The words of CELLS come first, so that FOLLOW's are renamed.
_OCCUPATION = (
    CELLS
    + FOLLOW.replace("slots[1]", "slots[9]").replace("slots[2]", "slots[10]")
    + f"""\
    n_times = slots[11]
    visits = carray(_int_pointer(slots[12]), (total + 1, {LANES}))
    sums = carray(_int_pointer(slots[13]), (2, total + 1))
    if index == 0:
        for v in range(total + 1):
            for i in range({LANES}):
                visits[v, i] = 0
    for i in range({LANES}):
        v = cell[i]
        visits[v if v >= 0 else total, i] += 1
    if index == n_times - 1:
        for v in range(total + 1):
            first, second = 0, 0
            for i in range(lo, hi):
                first += visits[v, i]
                second += visits[v, i] * visits[v, i]
            sums[0, v] += first
            sums[1, v] += second
"""
)


class Occupation(Boxes):
    """The fraction of the recorded times that the paths spend in each bin.

    With N_b the number of the T recorded times at which a path is in bin b, the result has ``fraction`` = mean of
    N_b / T over the paths, its ``standard_error`` over the paths (the recorded times of one path are correlated, so
    that they say little about the error), ``density`` = fraction over the bin's volume, ``outside``, the fraction in
    no bin, and ``edges``. For a stationary process the density estimates the stationary one.

    Parameters
    ----------
    lower, upper, bins, components : as for ``Histogram``; several components give joint bins.
    """

    def start(self, block: Any, d: int, n_times: int) -> "OccupationPart":
        """An empty part for one block of paths."""
        return OccupationPart(self, d, n_times, block.size, np.zeros((2, self.total + 1), np.int64))

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "OccupationPart":
        """The part of a block, from its ``arrays()``."""
        part = OccupationPart(self, d, n_times, block.size, arrays["sums"])
        part.mixed = arrays["mixed"]
        return part

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "OccupationResult":
        """The visits of all blocks together."""
        for part in parts:
            check_followed("Occupation", part.mixed)
        # Python's integers: the sums of squares of 10⁸ paths may leave 64 bits
        sums = sum(part.sums.astype(object) for part in parts)
        return OccupationResult(t, sum(part.size for part in parts), sums, self.edges)


class OccupationPart:
    """For each bin the sums over a block's paths of the number of visits, and of its square."""

    def __init__(self, spec: Occupation, d: int, n_times: int, size: int, sums: np.ndarray) -> None:
        self.spec, self.d, self.n_times, self.size, self.sums = spec, d, n_times, size, sums
        self.mixed = np.zeros(1, np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the part keeps."""
        return {"sums": self.sums, "mixed": self.mixed}

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that counts visits."""
        words, keep = self.spec.words(self.d)
        memory, visits = np.zeros(2, np.int64), np.empty((self.sums.shape[1], LANES), np.int64)
        words += [memory.ctypes.data, self.mixed.ctypes.data, self.n_times, visits.ctypes.data, self.sums.ctypes.data]
        return bound(_OCCUPATION, dtype, words, (*keep, memory, self.mixed, visits, self.sums), _bin=bin_of)


@dataclass(frozen=True)
class OccupationResult:
    """Visits over the recorded times; results of disjoint sets of paths add with ``+``.

    Attributes
    ----------
    t : (n_times,) the recorded times.
    n : the number of paths.
    sums : (2, n_bins + 1) for each bin, and for none, the sums over the paths of the visits and of their squares.
    axes : the edges of the bins along each axis.
    """

    t: np.ndarray
    n: int
    sums: np.ndarray
    axes: tuple[np.ndarray, ...]

    @property
    def edges(self) -> Any:
        """The edges of the bins; one array, or a tuple of them for joint bins."""
        return self.axes[0] if len(self.axes) == 1 else self.axes

    @property
    def visits(self) -> np.ndarray:
        """How many recorded states lie in each bin, (*bins)."""
        return self._shaped(self.sums[0, :-1])

    @property
    def fraction(self) -> np.ndarray:
        """The fraction of the recorded times spent in each bin, (*bins)."""
        return self._shaped(self.sums[0, :-1] / (self.n * len(self.t)))

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of ``fraction`` over the paths, (*bins); nan for one path."""
        n = self.n
        if n < 2:
            return np.full([len(e) - 1 for e in self.axes], np.nan)
        first, second = self.sums[:, :-1]
        # integers until here, so that nothing cancels
        return np.sqrt(self._shaped((n * second - first * first) / (n * n * (n - 1)))) / len(self.t)

    @property
    def outside(self) -> float:
        """The fraction of the recorded times spent in no bin."""
        return float(self.sums[0, -1] / (self.n * len(self.t)))

    @property
    def density(self) -> np.ndarray:
        """``fraction`` over the volume of a bin, (*bins)."""
        return self.fraction / np.prod([e[1] - e[0] for e in self.axes])

    def _shaped(self, a: np.ndarray) -> np.ndarray:
        return a.astype(float).reshape([len(e) - 1 for e in self.axes])

    def __add__(self, other: "OccupationResult") -> "OccupationResult":
        same = len(self.axes) == len(other.axes) and all(map(np.array_equal, self.axes, other.axes))
        if not same or not np.array_equal(self.t, other.t):
            raise ValueError("occupations add only when their bins and times are the same")
        return OccupationResult(self.t, self.n + other.n, self.sums + other.sums, self.axes)
