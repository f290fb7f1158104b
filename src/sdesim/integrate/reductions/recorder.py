"""The compiled recorder: what the time loop calls with each tile at each recorded time.

A recorder is a C function ``record(x, t, lo, hi, row, index, slots)``: x the (d, 256) states, t the 256 times (and the
step behind them), [lo, hi) the lanes that belong to the block, ``row`` the row of lane 0 in the block, ``index`` the
number of the recorded time, and ``slots`` int64 words, d first, then whatever the body of the recorder reads:
numbers, and addresses of the memory that it works in.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core import cache, call
from ...core.compile import LANES

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


# For a recorder that remembers something of its paths from one recorded time to the next: is it handed one leaf from
# the first time to the last? ``memory`` is the recorder's own; what the engine did wrong is noted in the part.
FOLLOW = """\
    memory = carray(_int_pointer(slots[1]), (2,))
    if index == 0:
        memory[0] = row
    elif memory[0] != row or memory[1] != index - 1:
        carray(_int_pointer(slots[2]), (1,))[0] = 1
    memory[1] = index
"""

_POINTERS = {"_float_pointer": call.pointer_f64, "_int_pointer": call.pointer_i64}


@functools.cache
def _compiled(body: str, n_slots: int, dtype: np.dtype, names: tuple[tuple[str, Any], ...]) -> Any:
    known = {
        "_state_pointer": call.pointer_f32 if dtype == np.float32 else call.pointer_f64,
        **_POINTERS,
        **dict(names),
    }
    text = _RECORDER.format(dtype=dtype.name, n_slots=n_slots, L=LANES, body=body)
    return cache.load(text, {name: value for name, value in known.items() if name in body}).record


@dataclass
class Recorder:
    """A compiled recorder with the memory it writes into: what the tile engine is handed.

    It serves one leaf (256 paths) from the first recorded time to the last, then the next leaf. An engine that takes
    all leaves along in time needs one recorder for each of them, since a recorder may remember states in between.
    """

    address: int
    slots: np.ndarray
    keep: tuple[Any, ...]


def bound(body: str, dtype: Any, slots: list[int], keep: tuple[Any, ...], **names: Any) -> Recorder:
    """The recorder of that body, bound to its words ``slots``; ``keep`` holds the memory that they point to.

    The body knows ``x`` (d, 256), ``d``, ``lo``, ``hi``, ``row``, ``index``, ``slots``, the raw ``t_``,
    ``_state_pointer``, ``_float_pointer`` and ``_int_pointer`` (an address as a pointer to the state's dtype, to
    float64, to int64), and ``names``, which are the library's own compiled functions.
    """
    compiled = _compiled(body, len(slots), np.dtype(dtype), tuple(sorted(names.items())))
    return Recorder(compiled.address, np.array(slots, np.int64), (compiled, *keep))


def check_followed(name: str, mixed: np.ndarray) -> None:
    """Raise where a recorder with ``FOLLOW`` was handed several leaves at a time."""
    if mixed[0]:
        raise RuntimeError(
            f"{name} follows its paths through the recorded times, and the engine took all paths of a block along at "
            "once with one recorder; it needs one for each leaf of 256 paths"
        )


def save_recorder(out: np.ndarray) -> Recorder:
    """Write the states of a block into ``out`` (paths, times, d)."""
    n, n_times, d = out.shape
    buffer = np.empty((_SAVE_DEPTH, d, LANES), out.dtype)
    return bound(_SAVE, out.dtype, [d, n_times, out.ctypes.data, buffer.ctypes.data, n], (out, buffer))
