"""First-passage times: when, and on which side, a path leaves an interval or a set for the first time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import errors as numba_errors
from numba import njit

from ...core import checks, compile
from ...core.compile import LANES
from ...errors import CompileError
from ..crossing import MAX_COMPONENTS, NEGLIGIBLE, STACK, first_crossing, spot_of
from ..watchers import StepContext, bound
from .recorder import Recorder

# Passage times are whole multiples of 2⁻³¹ of the span: their sums are exact integers, in any order.
QUANTA_BITS = 31
_QUANTA, _MASK = 2**QUANTA_BITS, 2**QUANTA_BITS - 1
_QUANTA_F = float(_QUANTA)


@njit(nogil=True, error_model="numpy")
def quantum(elapsed, bins):
    """The fraction ``elapsed`` of the span in quanta, and the bin (edge, next edge] that holds it."""
    k = np.int64(elapsed * _QUANTA_F)
    b = ((k * bins + _MASK) >> QUANTA_BITS) - 1
    return k, b if b > 0 else 0


@njit(inline="always", error_model="numpy")
def may_pass(a, b, variance, lower, upper, bridge):
    """Whether a step from a to b ends beyond a level, or has a bridge that comes near enough to one."""
    reach = 0.5 * NEGLIGIBLE * variance
    beyond = (b <= lower) | (b >= upper)
    close = ((upper - a) * (upper - b) <= reach) | ((a - lower) * (b - lower) <= reach)
    return beyond | (bridge & close)


@njit(nogil=True, error_model="numpy")
def passage(a, b, variance, lower, upper, bridge, spot, stack):
    """Side (−1, 0 for none, 1) and time (as a fraction of the step) of the first passage in a step from a to b."""
    if not may_pass(a, b, variance, lower, upper, bridge):
        return 0, 0.0
    if bridge:
        return first_crossing(a, b, lower, upper, math.sqrt(variance), spot, stack)
    return -1 if b <= lower else 1, 1.0


@njit(nogil=True, error_model="numpy")
def _note(counts, sums, side, elapsed):
    """Count one passage on ``side`` (a row) after the fraction ``elapsed`` of the span."""
    k, b = quantum(elapsed, counts.shape[1])
    counts[side, b] += 1
    sums[side, 0] += k
    sums[side, 1] += (k * k) >> QUANTA_BITS
    sums[side, 2] += (k * k) & _MASK


_OPEN = """\
    passed = carray(_int_pointer(slots[3]), (slots[12],))
    counts = carray(_int_pointer(slots[4]), (slots[5], slots[6]))
    sums = carray(_int_pointer(slots[7]), (slots[5], 3))
    clock = carray(_float_pointer(slots[8]), (3,))
    t0, dt, n_steps = clock[0], clock[1], clock[2]
    times = carray(_float_pointer(slots[9]), (slots[11],))
    sides = carray(_int_pointer(slots[10]), (slots[11],))
    if step < 0:
        for i in range(lo, hi):
            passed[row + i] = 0
"""

_CLOSE = """\
            passed[row + i] = 1
            elapsed = (np.float64(step) + part) / n_steps if step >= 0 else 0.0
            _note(counts, sums, out, elapsed)
            if slots[11] > 0:
                times[row + i] = t0 + (np.float64(step) + part) * dt if step >= 0 else t0
                sides[row + i] = label
"""

_LEVELS = (
    _OPEN
    + f"""\
    j = slots[2]
    levels = carray(_float_pointer(slots[13]), (2,))
    lower, upper = levels[0], levels[1]
    variance = carray(_float_pointer(slots[14]), ({LANES},))
    near = carray(_int_pointer(slots[15]), ({LANES},))
    stack = carray(_float_pointer(slots[16]), (2, {STACK}))
    bridge = slots[17] != 0 and step >= 0
    for i in range({LANES}):
        variance[i] = 0.0
    if bridge:
        for k in range(m):
            for i in range({LANES}):
                noise = np.float64(g[j * m + k, i])
                variance[i] += noise * noise * dt
    for i in range({LANES}):
        a, b = np.float64(before[j, i]), np.float64(x[j, i])
        near[i] = 1 if _may_pass(a, b, variance[i], lower, upper, bridge) else 0
    walled = carray(_int_pointer(slots[19]), (slots[18],))
    walls = carray(_float_pointer(slots[20]), (slots[18], 2))
    for c in range(slots[18]):
        for i in range({LANES}):
            a = np.float64(before[walled[c], i])
            if step >= 0 and (a < walls[c, 0] or a > walls[c, 1]):
                near[i] = 0
    found = 0
    for i in range({LANES}):
        found += near[i]
    if found == 0:
        return
    for i in range(lo, hi):
        if near[i] == 0 or passed[row + i] != 0:
            continue
        a, b = np.float64(before[j, i]), np.float64(x[j, i])
        if bridge:
            spot = _spot_of(step, j, U64(start + U64(i)), seed)
            label, part = _first_crossing(a, b, lower, upper, math.sqrt(variance[i]), spot, stack)
        else:
            label, part = -1 if b <= lower else 1, 1.0
        if label != 0:
            out = (label + 1) // 2
"""
    + _CLOSE
)

_SET = (
    _OPEN
    + """\
    for i in range(lo, hi):
        finite = True
        for j in range(d):
            finite = finite and math.isfinite(x[j, i])
        if passed[row + i] == 0 and finite and not _inside({state}):
            label, out, part = 1, 0, 1.0
"""
    + _CLOSE
)


class FirstPassage:
    """First time at which a component leaves the interval (lower, upper), or the state leaves a set.

    The passages inside a step are drawn from the Brownian bridge between its ends: exact for constant drift and
    diffusion at any step, an error O(h) elsewhere, where looking at the ends of the steps only has O(√h). See
    ``integrate/crossing.py`` for the formulas and their sources.

    Parameters
    ----------
    lower, upper : the two levels; None for a side that is open. A path that starts on a level or beyond it has passed
        at t0.
    component : the component that is watched, of a state of several. In general noise its variance is Σₖ gⱼₖ².
    bins : the number of equal time bins between t0 and t1; a bin is (edge, next edge], the first one holds t0 as well.
    of : in place of levels, a set, as a function ``inside(x) -> bool`` of the state (a number, or a tuple of d), which
        is compiled. The set is looked at when a step ends, without a bridge: times are too long by O(√h).
    bridge : False looks at the ends of the steps only, and gives the end of the step as the time.
    keep : keep the time and the side of every path.

    Example
    -------
    >>> passage = sde.FirstPassage(-1.0, 1.0)
    >>> paths = sde.simulate(sde.Wiener(), 0.0, (0.0, 8.0), n_steps=8, n_paths=100_000, reduce=[passage], seed=1)
    >>> round(paths.reductions[0].mean_time, 1)  # (upper − x)(x − lower)/σ²
    1.0
    """

    def __init__(
        self, lower: Any = None, upper: Any = None, component: int = 0, bins: int = 100,
        of: Callable[..., Any] | None = None, bridge: bool = True, keep: bool = False,
    ) -> None:  # fmt: skip
        self.lower = -math.inf if lower is None else checks.real("lower", lower)
        self.upper = math.inf if upper is None else checks.real("upper", upper)
        levels = lower is not None or upper is not None
        if of is None and not levels:
            raise ValueError("FirstPassage needs a level: lower, upper or both; or a set, of=inside(x)")
        if of is not None and levels:
            raise ValueError("FirstPassage takes levels or a set, got both; put the levels into of=inside(x)")
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower:g}) must be < upper ({self.upper:g})")
        self.of = None if of is None else checks.function("of", of, "inside(x)")
        self.component = checks.integer("component", component, minimum=0, below=MAX_COMPONENTS)
        self.bins = checks.integer("bins", bins, minimum=1, below=2**24)
        self.bridge, self.keep = bool(bridge), bool(keep)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the sides, the rows of ``counts``."""
        return ("lower", "upper") if self.of is None else ("outside",)

    def check(self, d: int) -> None:
        """Raise where a component is watched that the state does not have."""
        if self.component >= d:
            raise ValueError(f"FirstPassage watches component {self.component}, but the state has {d}")

    def start(self, block: Any, d: int, n_times: int) -> "FirstPassagePart":
        """An empty part for one block of paths."""
        n_sides, kept = len(self.labels), block.size if self.keep else 0
        counts, sums = np.zeros((n_sides, self.bins), np.int64), np.zeros((n_sides, 3), np.int64)
        return FirstPassagePart(self, block.size, counts, sums, np.full(kept, np.nan), np.zeros(kept, np.int64))

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "FirstPassagePart":
        """The part of a block, from its ``arrays()``."""
        counts, sums, times, sides, span = (arrays[name] for name in ("counts", "sums", "times", "sides", "span"))
        return FirstPassagePart(self, block.size, counts, sums, times, sides, (float(span[0]), float(span[1])))

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "FirstPassageResult":
        """The passages of all blocks together."""
        counts = sum((part.counts for part in parts[1:]), parts[0].counts)
        times, sides = (np.concatenate([getattr(part, name) for part in parts]) for name in ("times", "sides"))
        totals = [tuple(sum(int(v) for v in column) for column in zip(*rows, strict=True))
                  for rows in zip(*(part.sums.tolist() for part in parts), strict=True)]  # fmt: skip
        start, end = parts[0].span
        return FirstPassageResult(
            np.linspace(start, end, self.bins + 1), counts, sum(part.n for part in parts), self.labels,
            tuple(first for first, _, _ in totals), tuple((high << QUANTA_BITS) + low for _, high, low in totals),
            times if self.keep else None, sides if self.keep else None,
        )  # fmt: skip


@dataclass
class FirstPassagePart:
    """The passages of one block: counts (sides, bins), sums of times and of their squares in two words."""

    spec: FirstPassage
    n: int
    counts: np.ndarray
    sums: np.ndarray
    times: np.ndarray
    sides: np.ndarray
    span: tuple[float, float] = (0.0, 0.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the part keeps."""
        kept = {name: getattr(self, name) for name in ("counts", "sums", "times", "sides")}
        return {**kept, "span": np.array(self.span)}

    def watcher(self, dtype: Any, context: StepContext) -> Recorder:
        """The compiled watcher that finds the passages."""
        spec = self.spec
        self.span = (context.t0, context.t0 + context.n_steps * context.dt)
        passed = np.zeros(self.n, np.int64)
        clock = np.array([context.t0, context.dt, context.n_steps], float)
        slots = [
            context.d, context.columns, spec.component, passed.ctypes.data, self.counts.ctypes.data,
            *self.counts.shape, self.sums.ctypes.data, clock.ctypes.data, self.times.ctypes.data,
            self.sides.ctypes.data, len(self.times), self.n,
        ]  # fmt: skip
        keep = (self, passed, clock)
        if spec.of is not None:
            return self._of_set(dtype, context.d, slots, keep)
        levels, variance, near = np.array([spec.lower, spec.upper]), np.empty(LANES), np.empty(LANES, np.int64)
        stack = np.empty((2, STACK))
        walled = np.array([c for c, _, _ in context.absorbing], np.int64)
        walls = np.array([w[1:] for w in context.absorbing], float).reshape(-1, 2)
        slots += [
            levels.ctypes.data, variance.ctypes.data, near.ctypes.data, stack.ctypes.data, int(spec.bridge),
            len(walled), walled.ctypes.data, walls.ctypes.data,
        ]  # fmt: skip
        names = {"_note": _note, "_first_crossing": first_crossing, "_spot_of": spot_of, "_may_pass": may_pass}
        return bound(_LEVELS, dtype, slots, (*keep, levels, variance, near, stack, walled, walls), **names)

    def _of_set(self, dtype: Any, d: int, slots: list[int], keep: tuple[Any, ...]) -> Recorder:
        state = "x[0, i]" if d == 1 else "(" + ", ".join(f"x[{j}, i]" for j in range(d)) + ")"
        assert self.spec.of is not None
        inside = compile.formula(self.spec.of)
        try:
            return bound(_SET.format(state=state), dtype, slots, keep, _note=_note, _inside=inside)
        except numba_errors.NumbaError as error:
            raise CompileError(
                f"of=inside(x) does not compile on {'a number' if d == 1 else f'a tuple of {d} numbers'}; it may use "
                f"arithmetic and NumPy functions, and returns True or False; Numba says: {str(error).strip()}"
            ) from None


@dataclass(frozen=True)
class FirstPassageResult:
    """First passages of n paths between t0 and t1; results of disjoint sets of paths add with ``+``.

    Attributes
    ----------
    edges : (bins + 1,) the edges of the time bins, from t0 to t1.
    counts : (sides, bins) passages in each bin; the sides are ``labels``: lower and upper, or outside of a set.
    n : the number of paths.
    times, sides : (n_paths,) with ``keep=True``: the time, nan for a path that did not pass, and −1 (lower), 0 (did not
        pass), 1 (upper, or outside of the set). ``+`` joins them in its order.

    For the counts and the mean, times are rounded down to multiples of 2⁻³¹ (t1 − t0), so that their sums are exact and
    do not depend on blocks and workers; ``times`` are not rounded.
    """

    edges: np.ndarray
    counts: np.ndarray
    n: int
    labels: tuple[str, ...]
    _sums: tuple[int, ...] = field(repr=False)
    _squares: tuple[int, ...] = field(repr=False)
    times: np.ndarray | None = field(default=None, repr=False)
    sides: np.ndarray | None = field(default=None, repr=False)

    @property
    def n_passed(self) -> np.ndarray:
        """Paths that have passed, (sides,)."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def n_survived(self) -> int:
        """Paths that have not passed by t1."""
        return self.n - int(self.counts.sum())

    @property
    def probability(self) -> np.ndarray:
        """Share of the paths that passed by t1, (sides,)."""
        return self.n_passed / self.n

    @property
    def probability_error(self) -> np.ndarray:
        """Standard error of ``probability``, √(p (1 − p)/n), (sides,)."""
        return np.asarray(np.sqrt(self.probability * (1.0 - self.probability) / self.n))

    @property
    def density(self) -> np.ndarray:
        """Density of the passage time, (sides, bins): its integral over time is ``probability``."""
        return self.counts / (self.n * np.diff(self.edges))

    @property
    def survival(self) -> np.ndarray:
        """Share of the paths that have not passed by each edge, (bins + 1,); 1 at t0."""
        passed = np.concatenate([[0], np.cumsum(self.counts.sum(axis=0))])
        return 1.0 - passed / self.n

    @property
    def mean_time(self) -> float:
        """Mean of the time from t0 to the passage, over the paths that passed by t1; nan where none did."""
        passed = int(self.counts.sum())
        return sum(self._sums) / passed * self._quantum if passed else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of ``mean_time``; nan for fewer than two passages."""
        passed = int(self.counts.sum())
        if passed < 2:
            return math.nan
        spread = passed * sum(self._squares) - sum(self._sums) ** 2  # exact: n² times the variance
        return math.sqrt(spread / (passed * passed * (passed - 1))) * self._quantum

    @property
    def _quantum(self) -> float:
        return float(self.edges[-1] - self.edges[0]) / _QUANTA

    def __add__(self, other: "FirstPassageResult") -> "FirstPassageResult":
        if self.labels != other.labels or not np.array_equal(self.edges, other.edges):
            raise ValueError("first passages add only when their sides and time bins are the same")
        if (self.times is None) != (other.times is None):
            raise ValueError("first passages add only when both kept the times of their paths, or neither did")
        times, sides = (None if a is None else np.concatenate([a, b]) for a, b in
                        ((self.times, other.times), (self.sides, other.sides)))  # fmt: skip
        return FirstPassageResult(
            self.edges, self.counts + other.counts, self.n + other.n, self.labels,
            tuple(a + b for a, b in zip(self._sums, other._sums, strict=True)),
            tuple(a + b for a, b in zip(self._squares, other._squares, strict=True)), times, sides,
        )  # fmt: skip
