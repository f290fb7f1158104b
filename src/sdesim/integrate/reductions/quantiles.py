"""Quantiles at the recorded times, from a histogram over the bits of the states.

The bits of a positive float, read as an integer, are 2^52 log₂ x up to a piecewise linear approximation (an exponent,
then a mantissa). Their leading part is therefore a bin of constant relative width whatever the scale of x, and costs a
shift: the log-linear histogram of Tene (HdrHistogram, 2012) and of Masson, Rim & Lee, "DDSketch" (2019), sec. 2. Its
counts are integers, so that histograms add exactly and in any order.
"""

import functools
import math
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...core import cache, call, checks, elementary
from .recorder import Recorder, bound


@intrinsic
def _int32_pointer(typing, word):
    """An address as an int32 pointer."""
    return call._from_word(types.CPointer(types.int32), ir.IntType(32))


# Bins from low to high: 0 below −largest; 1 … K the negative ones; K + 1 around zero; K + 2 … 2K + 1 the positive
# ones; 2K + 2 from largest up; 2K + 3 nan.
_KEYS = """\
    n_chosen, n, n_bins, first, shift = slots[1], slots[2], slots[3], slots[4], slots[5]
    keys = carray(_int32_pointer(slots[6]), (slots[7], n_chosen, n))
    component = carray(_int_pointer(slots[8]), (n_chosen,))
    for c in range(n_chosen):
        j = component[c]
        for i in range(lo, hi):
            value = np.float64(x[j, i])
            bits = np.int64(_bits(value))
            k = ((bits & 0x7FFFFFFFFFFFFFFF) >> shift) - first
            k = 0 if k < 0 else (n_bins if k >= n_bins else k) + 1
            k = n_bins + 1 + (k if bits >= 0 else -k)
            keys[index, c, row + i] = k if value == value else 2 * n_bins + 3
"""


class Quantiles:
    """Quantiles of the components at every recorded time, with their errors.

    Parameters
    ----------
    probabilities : numbers in (0, 1), in any order; the result can be asked for others.
    components : the components wanted, a number or a sequence; by default all.
    magnitudes : (smallest, largest): states with smallest <= |x| < largest are told apart; widened to powers of 2.
    digits : bits of the mantissa that are kept, so that a bin is 2^−digits wide relative to its lower edge.

    The p-quantile of n paths is the order statistic x₍ᵣ₎ of rank r = ⌈n p⌉ (that of ``np.quantile`` with
    ``method="inverted_cdf"``), known up to its bin. Two errors are told apart: ``value_error``, half the width of that
    bin, which bounds |value − x₍ᵣ₎| whatever the law is; and the error of sampling, in ``interval()``.

    The result has ``values`` (n_probabilities, n_times[, components]), ``value_error`` of the same shape, ``n``,
    ``at(probabilities)`` and ``interval(confidence)``. States below ``smallest`` count as 0 ± smallest; a quantile
    beyond ``largest`` is ±inf with an infinite error, and one of paths of which any is nan is nan.

    While a block of paths runs (65536 at most) it takes 4 bytes a path, recorded time and component; afterwards its
    counts are kept compressed, some 10 kB a recorded time and component.
    """

    def __init__(
        self,
        probabilities: Any = (0.05, 0.25, 0.5, 0.75, 0.95),
        *,
        components: Any = None,
        magnitudes: tuple[float, float] = (1e-6, 1e6),
        digits: int = 10,
    ) -> None:
        self.probabilities = _check_probabilities(probabilities)
        self.components = components
        if components is not None:
            for c in np.atleast_1d(np.asarray(components, object)):
                checks.integer("components", c, minimum=0)
        try:
            low, high = magnitudes
        except (TypeError, ValueError):
            raise ValueError(f"magnitudes must be a pair (smallest, largest), got {magnitudes!r}") from None
        low = checks.real("magnitudes[0]", low, minimum=float(np.finfo(float).tiny))
        high = checks.real("magnitudes[1]", high)
        if not low < high:
            raise ValueError(f"magnitudes must increase, got smallest {low:g} and largest {high:g}")
        digits = checks.integer("digits", digits, minimum=1, below=17)
        bottom, top = math.frexp(low)[1] - 1, math.frexp(high)[1] - (math.frexp(high)[0] == 0.5)
        self.bins = _Bins(bottom, min(top, 1023), digits)

    def chosen(self, d: int) -> np.ndarray:
        """The components wanted of a state of d."""
        return np.arange(d) if self.components is None else np.atleast_1d(self.components).astype(np.int64)

    def check(self, d: int) -> None:
        """Raise where a component is asked for that the state does not have."""
        chosen = self.chosen(d)
        if chosen.size == 0 or chosen.max() >= d:
            raise ValueError(f"Quantiles asks for components {self.components}, but the state has {d}")

    def start(self, block: Any, d: int, n_times: int) -> "QuantilesPart":
        """An empty part for one block of paths."""
        return QuantilesPart(
            self.bins, self.chosen(d), d, np.zeros((n_times, len(self.chosen(d)), block.size), np.int32)
        )

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "QuantilesPart":
        """The closed part of a block, from its ``arrays()``."""
        cells, start = [], 0
        for first, second, n in arrays["sizes"].tolist():
            end = start + n * (first + second)
            cells.append(_packed(f"u{first}", f"u{second}", arrays["data"][start:end].tobytes()))
            start = end
        chosen = self.chosen(d)
        counts = [cells[i : i + len(chosen)] for i in range(0, len(cells), len(chosen))]
        return QuantilesPart(self.bins, chosen, d, None, counts)

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "QuantilesResult":
        """The counts of all blocks together."""
        for part in parts:
            part.close()
        shape = state_shape if self.components is None else np.shape(self.components)
        return QuantilesResult(t, self.probabilities, self.bins, shape, _added([part.counts for part in parts]))


def _check_probabilities(probabilities: Any) -> np.ndarray:
    values = checks.array("probabilities", probabilities)
    if values.ndim > 1 or values.size == 0:
        raise ValueError(f"probabilities must be a number or a sequence of numbers, got shape {values.shape}")
    for i, p in enumerate(np.atleast_1d(values)):
        if not 0 < p < 1:
            raise ValueError(f"probabilities must lie in (0, 1), got {p:g} at index {i}")
    return values


@dataclass(frozen=True)
class _Bins:
    """2^digits bins in each octave [2^k, 2^(k+1)), bottom <= k < top, for either sign."""

    bottom: int
    top: int
    digits: int

    @property
    def shift(self) -> int:
        """How many bits of the mantissa a bin does not see."""
        return 52 - self.digits

    @property
    def first(self) -> int:
        """The leading bits of the smallest magnitude."""
        return (self.bottom + 1023) << self.digits

    @property
    def n(self) -> int:
        """Bins for either sign."""
        return (self.top - self.bottom) << self.digits

    @property
    def total(self) -> int:
        """All bins; the last one counts nan."""
        return 2 * self.n + 4


@functools.lru_cache(maxsize=8)
def _edges(bins: _Bins) -> np.ndarray:
    """Edges of all bins but that of nan, (total,)."""
    bits = (bins.first + np.arange(bins.n + 1, dtype=np.int64)) << bins.shift
    positive = bits.view(np.float64)
    return np.concatenate([[-np.inf], -positive[::-1], positive, [np.inf]])


# Counts of one recorded time and component, as few bytes: the bins in use, their distances and counts compressed.
_Packed = tuple[str, str, bytes]


def _pack(bins: np.ndarray, counts: np.ndarray) -> _Packed:
    distances = np.diff(bins, prepend=0)
    small = [a.astype(np.min_scalar_type(int(a.max()))) for a in (distances, counts)]
    return _packed(small[0].dtype.str, small[1].dtype.str, small[0].tobytes() + small[1].tobytes())


def _packed(first: str, second: str, data: bytes) -> _Packed:
    return np.dtype(first).str, np.dtype(second).str, zlib.compress(data, 1)


def _unpack(packed: _Packed) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.dtype(packed[0]), np.dtype(packed[1])
    data = zlib.decompress(packed[2])
    n = len(data) // (first.itemsize + second.itemsize)
    distances = np.frombuffer(data, first, n)
    counts = np.frombuffer(data, second, n, offset=n * first.itemsize)
    return np.cumsum(distances, dtype=np.int64), counts.astype(np.int64)


def _added(tables: list[list[list[_Packed]]]) -> list[list[_Packed]]:
    """The sum of tables [times][components] of counts."""
    if len(tables) == 1:
        return tables[0]

    def total(cells: tuple[_Packed, ...]) -> _Packed:
        pieces = [_unpack(packed) for packed in cells]
        sums = np.zeros(max(int(bins[-1]) for bins, _ in pieces) + 1, np.int64)
        for bins, counts in pieces:
            sums[bins] += counts  # the bins of one piece are all different
        used = np.flatnonzero(sums)
        return _pack(used, sums[used])

    return [[total(cells) for cells in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]


@cache.kernel
def _count(keys, counts):
    """Add how often each key occurs: np.bincount without its copies."""
    for key in keys:
        counts[key] += 1


@dataclass
class QuantilesPart:
    """The bins of a block's paths, and once it is closed how often each occurs."""

    bins: _Bins
    chosen: np.ndarray
    d: int
    keys: np.ndarray | None
    counts: list[list[_Packed]] | None = None

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that notes the bin of every path."""
        assert self.keys is not None
        n_times, n_chosen, n = self.keys.shape
        words = [self.d, n_chosen, n, self.bins.n, self.bins.first, self.bins.shift, self.keys.ctypes.data, n_times,
                 self.chosen.ctypes.data]  # fmt: skip
        keep = (self.keys, self.chosen)
        return bound(_KEYS, dtype, words, keep, _int32_pointer=_int32_pointer, _bits=elementary.f64_bits)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a closed part keeps; not compressed, since what a file says is not to be unpacked."""
        assert self.counts is not None
        cells = [(np.dtype(a).itemsize, np.dtype(b).itemsize, zlib.decompress(data))
                 for row in self.counts for a, b, data in row]  # fmt: skip
        sizes = np.array([(a, b, len(data) // (a + b)) for a, b, data in cells], np.int64)
        return {"sizes": sizes, "data": np.frombuffer(b"".join(data for _, _, data in cells), np.uint8)}

    def close(self) -> None:
        """Count, and forget the paths."""
        if self.keys is not None:
            counts = np.zeros(self.bins.total, np.int64)

            def packed(row: np.ndarray) -> _Packed:
                if 8 * row.size < counts.size:  # few paths: sorting them is quicker than looking at every bin
                    return _pack(*np.unique(row, return_counts=True))
                _count(row, counts)
                used = np.flatnonzero(counts)
                result = _pack(used, counts[used])
                counts[used] = 0
                return result

            self.counts = [[packed(row) for row in time] for time in self.keys]
            self.keys = None


@dataclass(frozen=True)
class QuantilesResult:
    """Quantiles at the recorded times; results of disjoint sets of paths add with ``+``.

    Attributes
    ----------
    t : (n_times,) the recorded times.
    probabilities : () or (n_probabilities,).
    values : (n_probabilities, n_times[, components]) as ``np.quantile(x, probabilities, axis=0)`` orders them: the
        middles of the bins that hold the order statistics.
    value_error : half the widths of these bins.
    """

    t: np.ndarray
    probabilities: np.ndarray
    bins: _Bins
    shape: tuple[int, ...]
    counts: list[list[_Packed]] = field(repr=False)

    @functools.cached_property
    def n(self) -> int:
        """The number of paths."""
        return int(_unpack(self.counts[0][0])[1].sum())

    def _around(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The edges of the bins that hold the order statistics of these ranks (P,) in 1 … n; (P, n_times, …) each."""
        low = np.empty((len(ranks), len(self.t), len(self.counts[0])))
        high = np.empty_like(low)
        edges = _edges(self.bins)
        for i, row in enumerate(self.counts):
            for c, packed in enumerate(row):
                bins, counts = _unpack(packed)
                if bins[-1] == self.bins.total - 1:
                    low[:, i, c] = high[:, i, c] = np.nan
                    continue
                found = bins[np.searchsorted(np.cumsum(counts), ranks)]
                low[:, i, c], high[:, i, c] = edges[found], edges[found + 1]
        return low, high

    @functools.cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._around(np.maximum(1, np.ceil(self.n * np.atleast_1d(self.probabilities))).astype(np.int64))
        inside = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            value = np.where(inside, 0.5 * (low + high), np.where(np.isinf(low), low, high))
            error = np.where(inside, 0.5 * (high - low), np.where(np.isnan(low), np.nan, np.inf))
        return self._shaped(value), self._shaped(error)

    def _shaped(self, a: np.ndarray) -> np.ndarray:
        return a.reshape(*self.probabilities.shape, len(self.t), *self.shape)

    @property
    def values(self) -> np.ndarray:
        """The quantiles, (n_probabilities, n_times[, components])."""
        return self._found[0]

    @property
    def value_error(self) -> np.ndarray:
        """Bounds of |values − order statistics of the paths|, of the shape of ``values``."""
        return self._found[1]

    def at(self, probabilities: Any) -> "QuantilesResult":
        """The quantiles of the same paths at other probabilities."""
        return replace(self, probabilities=_check_probabilities(probabilities))

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) that hold the quantiles of the law with at least this probability, whatever the law is.

        The number B of n independent paths below the p-quantile is binomial (n, p), so that x₍ₗ₎ and x₍ᵤ₎ enclose it
        with probability P(l <= B < u) (David & Nagaraja, "Order Statistics", 2003, sec. 7.1). l and u leave at most
        (1 − confidence)/2 on either side, and the outer edges of the bins of x₍ₗ₎ and x₍ᵤ₎ are returned: ±inf where
        n paths are too few for that confidence.
        """
        from scipy.special import bdtr, bdtrik

        alpha = 0.5 * (1 - checks.real("confidence", confidence))
        if not 0 < alpha < 0.5:
            raise ValueError(f"confidence must lie in (0, 1), got {confidence:g}")
        n, p = self.n, np.atleast_1d(self.probabilities)

        def lowest(level: float) -> np.ndarray:
            """The lowest k with P(B <= k) >= level."""
            k = np.ceil(np.nan_to_num(bdtrik(level, n, p)))
            k = np.where((k > 0) & (bdtr(np.maximum(k - 1, 0), n, p) >= level), k - 1, k)
            return np.where(bdtr(k, n, p) < level, k + 1, k).astype(np.int64)

        # l is the highest with P(B < l) <= alpha, that is with P(B <= l - 1) <= alpha
        lower, upper = lowest(alpha), lowest(1 - alpha) + 1
        low = self._around(np.clip(lower, 1, n))[0]
        high = self._around(np.clip(upper, 1, n))[1]
        none = (slice(None), *[None] * (low.ndim - 1))
        low = np.where((lower < 1)[none] & ~np.isnan(low), -np.inf, low)
        high = np.where((upper > n)[none] & ~np.isnan(high), np.inf, high)
        return self._shaped(low), self._shaped(high)

    def __add__(self, other: "QuantilesResult") -> "QuantilesResult":
        same = self.bins == other.bins and self.shape == other.shape and np.array_equal(self.t, other.t)
        if not same or not np.array_equal(self.probabilities, other.probabilities):
            raise ValueError("quantiles add only when their probabilities, bins, components and times are the same")
        return replace(self, counts=_added([self.counts, other.counts]))
