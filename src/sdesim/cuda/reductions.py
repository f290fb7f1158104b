"""Histograms and moments in the kernel: what a block of threads, a leaf of 256 paths, does at a recorded time.

Counts are integers. Sums are taken over the leaf by the same binary tree as the CPU's recorders, in shared memory, and
what a leaf leaves are the nodes of that tree, which the host joins: the same bits.

A reduction that has no form here is fed on the host with the states of all recorded times (see ``execution``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ..core.compile import formula
from ..integrate.crossing import STACK
from ..integrate.reductions.first_passage import QUANTA_BITS, FirstPassagePart, quantum
from ..integrate.reductions.histogram import HistogramPart, bin_of
from ..integrate.reductions.moments import MERGING, MomentsPart
from ..integrate.reductions.observable import ObservablePart
from .backend import THREADS

SHARED_BYTES = 48_000  # that every block has, for all reductions together
MOST_SHARED_BINS, MOST_MOMENTS = 2048, 4


@dataclass
class Taken:
    """What a kernel needs of one reduction.

    ``setup`` and ``record`` are lines of the kernel, ``arguments`` their arrays and numbers by name, ``names`` the
    compiled functions they call; ``results`` the arguments that come back, and where to.
    """

    setup: str
    record: str
    names: dict[str, Any]
    arguments: dict[str, Any]
    results: dict[str, np.ndarray]
    shared: int
    opening: str = ""  # when a thread has its initial state
    closing: str = ""  # at the end


def taken(part: Any, number: int, dtype: np.dtype) -> Taken | None:
    """The form in a kernel of one block's part of a reduction, or None where there is none."""
    if isinstance(part, HistogramPart):
        return _histogram(part, number)
    if isinstance(part, MomentsPart) and part.tree.n_values > MOST_MOMENTS:
        return None
    if isinstance(part, ObservablePart):
        return _moments(part, number, _observed(part, number, dtype)) if part.d <= 16 else None
    if isinstance(part, MomentsPart):
        return _moments(part, number, None)
    return None


# ---- first passages -------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def side_of(x, lower, upper):
    """The side on which a path starts that starts on a level or beyond it; 0 between them."""
    return -1 if x <= lower else (1 if x >= upper else 0)


@njit(error_model="numpy")
def since_start(when, fraction, start, step):
    """start + (when + fraction)·step, and the start itself for a path that passed at once (when < 0)."""
    return start + (np.float64(when) + fraction) * step if when >= 0 else start


@njit(error_model="numpy")
def elapsed(when, fraction, n_steps):
    """The share of the span after which a path passed."""
    return (np.float64(when) + fraction) / n_steps if when >= 0 else 0.0


@njit(error_model="numpy")
def squared(k):
    """k² in two words of 31 bits, the upper first."""
    return (k * k) >> QUANTA_BITS, (k * k) & (2**QUANTA_BITS - 1)


_PASSED = """\
if inside and label != 0:
    quanta, bin_number = _quantum(_elapsed(when, fraction, whole_span), passages.shape[1])
    upper_word, lower_word = _squared(quanta)
    side = {side}
    cuda.atomic.add(passages, (side, bin_number), 1)
    cuda.atomic.add(passage_sums, (side, 0), quanta)
    cuda.atomic.add(passage_sums, (side, 1), upper_word)
    cuda.atomic.add(passage_sums, (side, 2), lower_word)
    if passage_times.shape[0] > 0:
        passage_times[i - first] = _since_start(when, fraction, passage_start, passage_step)
        passage_sides[i - first] = label
"""


def passed(part: FirstPassagePart, d: int, scalar: bool, clock: tuple[float, float, int]) -> Taken:
    """The form of a first passage; what a step does about it is in ``steps``."""
    spec = part.spec
    part.span = (clock[0], clock[0] + clock[2] * clock[1])
    state = "x[0, i]" if scalar else "(" + ", ".join(f"x[{j}, i]" for j in range(d)) + ",)"
    finite = " and ".join(f"math.isfinite(x[{j}, i])" for j in range(d))
    if spec.of is None:
        setup = f"stack = cuda.local.array((2, {STACK}), np.float64)\n"
        opening = f"label, when = _side_of(np.float64(x[{spec.component}, i]), lower, upper), -1\n"
    else:
        setup = ""
        opening = f"if {finite} and not _inside({state}):\n    label, when = 1, -1\n"
    arrays = {
        "passages": part.counts, "passage_sums": part.sums, "passage_times": part.times, "passage_sides": part.sides,
    }  # fmt: skip
    return Taken(
        setup, "", {"_side_of": side_of, "_quantum": quantum, "_elapsed": elapsed, "_since_start": since_start,
                    "_squared": squared},
        {**arrays, "whole_span": float(clock[2]), "passage_start": clock[0], "passage_step": clock[1]}, arrays, 0,
        opening=opening, closing=_PASSED.format(side="(label + 1) // 2" if spec.of is None else "0"),
    )  # fmt: skip


# ---- histograms -----------------------------------------------------------------------------------------------------

_CELL = """\
if inside:
    cell{q} = 0
    for c in range({k}):
        place = component{q}[c]
        found = _bin(np.float64(x[place, i]), lower{q}[c], upper{q}[c], width{q}[c], per{q}[c], bins{q}[c])
        cell{q} = cell{q} * bins{q}[c] + found if found >= 0 and cell{q} >= 0 else -1
"""

_COUNT_SHARED = (
    _CELL
    + """\
    cuda.atomic.add(partial{q}, cell{q} if cell{q} >= 0 else {total}, 1)
cuda.syncthreads()
for b in range(lane, {total} + 1, {threads}):
    if partial{q}[b] > 0:
        cuda.atomic.add(counts{q}, (record, b), partial{q}[b])
        partial{q}[b] = 0
cuda.syncthreads()
"""
)

_COUNT = (
    _CELL
    + """\
    cuda.atomic.add(counts{q}, (record, cell{q} if cell{q} >= 0 else {total}), 1)
"""
)

_PARTIAL = """\
partial{q} = cuda.shared.array({total} + 1, np.int32)
for b in range(lane, {total} + 1, {threads}):
    partial{q}[b] = 0
cuda.syncthreads()
"""


def all_taken(parts: list[Any], dtype: np.dtype) -> list[Taken | None]:
    """The forms of all reductions, as far as shared memory goes."""
    found: list[Taken | None] = []
    for number, part in enumerate(parts):
        one = taken(part, number, dtype)
        used = sum(other.shared for other in found if other is not None)
        found.append(one if one is not None and used + one.shared <= SHARED_BYTES else None)
    return found


def _histogram(part: HistogramPart, q: int) -> Taken:
    spec = part.spec
    width = (spec.upper - spec.lower) / np.array(spec.bins)
    arguments: dict[str, Any] = {
        f"counts{q}": part.counts,
        f"component{q}": tuple(np.int64(c) for c in spec.components),
        f"lower{q}": tuple(spec.lower),
        f"upper{q}": tuple(spec.upper),
        f"width{q}": tuple(width),
        f"per{q}": tuple(np.array(spec.bins, float) / (spec.upper - spec.lower)),
        f"bins{q}": tuple(np.int64(n) for n in spec.bins),
    }
    shared = spec.total + 1 <= MOST_SHARED_BINS
    values = {"q": q, "k": len(spec.bins), "total": spec.total, "threads": THREADS}
    return Taken(
        _PARTIAL.format(**values) if shared else "", (_COUNT_SHARED if shared else _COUNT).format(**values),
        {"_bin": bin_of}, arguments, {f"counts{q}": part.counts}, 4 * (spec.total + 1) if shared else 0,
    )  # fmt: skip


# ---- moments --------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def is_node(lo, hi, size, a):
    """Whether the ``size`` lanes from a are a maximal dyadic node of the lanes [lo, hi) of a leaf."""
    up = a // (2 * size) * (2 * size)
    return a >= lo and a + size <= hi and (size == THREADS or up < lo or up + 2 * size > hi)


@njit(error_model="numpy")
def node_rank(lo, hi, size, a):
    """How many nodes of [lo, hi) come before that of ``size`` lanes from a: smaller ones, then those to its left."""
    rank, width = 0, 1
    while width <= size:
        # of each size there are at most two nodes, at the two ends
        left = (lo + width - 1) // width * width
        right = hi // width * width - width
        if is_node(lo, hi, width, left) and (width < size or left < a):
            rank += 1
        if right != left and is_node(lo, hi, width, right) and (width < size or right < a):
            rank += 1
        width *= 2
    return rank


_TREE = """\
if inside:
{values}
for c in range({pairs}):
    pair{q}[c, lane] = 0.0
cuda.syncthreads()
size = 1
while size <= {threads}:
    if lane % size == 0 and _is_node(lo, hi, size, lane):
        node = positions{q}[cuda.blockIdx.x] + _node_rank(lo, hi, size, lane)
        for j in range({n}):
            nodes{q}[node, record, j] = mean{q}[j, lane]
        for c in range({pairs}):
            nodes{q}[node, record, {n} + c] = pair{q}[c, lane]
    other = lane + size
    if size < {threads} and lane % (2 * size) == 0:
        c = 0
        for j in range({n}):
            for l in range(j, {n}):
                pair{q}[c, lane] = _pair(
                    pair{q}[c, lane], pair{q}[c, other], mean{q}[j, lane], mean{q}[j, other], mean{q}[l, lane],
                    mean{q}[l, other], size)
                c += 1
        for j in range({n}):
            mean{q}[j, lane] = _mean(mean{q}[j, lane], mean{q}[j, other])
    cuda.syncthreads()
    size *= 2
"""

_TREE_MEMORY = """\
mean{q} = cuda.shared.array(({n}, {threads}), np.float64)
pair{q} = cuda.shared.array(({pairs}, {threads}), np.float64)
for j in range({n}):
    mean{q}[j, lane] = 0.0
lo, hi = max(first - cuda.blockIdx.x * {threads}, 0), min(last - cuda.blockIdx.x * {threads}, {threads})
"""


def _moments(part: Any, q: int, observed: tuple[str, dict[str, Any]] | None) -> Taken:
    n = part.tree.n_values
    pairs = n * (n + 1) // 2
    values = {"q": q, "n": n, "pairs": pairs, "threads": THREADS}
    if observed is None:
        names: dict[str, Any] = {}
        lines = f"    for j in range({n}):\n        mean{q}[j, lane] = np.float64(x[j, i])"
    else:
        lines, names = observed
    return Taken(
        _TREE_MEMORY.format(**values), _TREE.format(values=lines, **values),
        {"_is_node": is_node, "_node_rank": node_rank, **MERGING, **names},
        {f"nodes{q}": part.tree.values, f"positions{q}": part.positions}, {f"nodes{q}": part.tree.values},
        8 * THREADS * (n + pairs),
    )  # fmt: skip


def _observed(part: ObservablePart, q: int, dtype: np.dtype) -> tuple[str, dict[str, Any]]:
    """The lines that evaluate f of the state in the state's dtype, as the CPU does."""
    state = "x[0, i]" if part.d == 1 else "(" + ", ".join(f"x[{j}, i]" for j in range(part.d)) + ")"
    given = f"{state}, times[record]" if part.spec.takes_time else state
    count = part.tree.n_values
    entries = [f"r{q}[{k}]" for k in range(count)] if part.value_shape else [f"r{q}"]
    lines = [f"    r{q} = _observe{q}({given})"]
    lines += [f"    mean{q}[{k}, lane] = np.float64(np.{dtype.name}({entry}))" for k, entry in enumerate(entries)]
    return "\n".join(lines), {f"_observe{q}": formula(part.spec.f)}
