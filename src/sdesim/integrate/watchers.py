"""The compiled watcher: what the time loop calls with each tile after every step.

A recorder sees the saved times; a watcher sees every step, with the states at both of its ends, and may change the
states. It is a C function

    watch(before, x, g, lo, hi, row, step, start, seed, slots)

with ``before`` and ``x`` the (d, 256) states at the start and the end of the step, ``g`` the diffusion at the start
(d rows of 256 for diagonal noise, d·m with row j·m + k for general noise), [lo, hi) the lanes that belong to the block,
``row`` the row of lane 0 in the block (negative where the block starts inside the tile), ``step`` the number s of
the step from t₀ + s h to t₀ + (s + 1) h, ``start`` the path of lane 0, ``seed`` the run's seed, and ``slots`` int64
words: d, m and what the watcher's body reads. ``step`` = −1 announces a new tile, with its initial states in both
``before`` and ``x``: what is kept of its paths is set anew.

It runs without the GIL and allocates nothing. What it keeps belongs to a path of the block, not to a lane, so that an
engine may take one tile through all steps or all tiles through one step.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import cache, call, elementary
from ..core.compile import LANES
from .reductions.recorder import Recorder

_WATCHER = """\
import math

import numpy as np
from numba import carray, cfunc, types

U64 = np.uint64
_T = types.{dtype}
_P = types.CPointer(_T)

@cfunc(types.void(_P, _P, _P, types.intp, types.intp, types.intp, types.int64, types.uint64, types.uint64,
                  types.CPointer(types.int64)), cache=CACHE, error_model="numpy")
def watch(before_, x_, g_, lo, hi, row, step, start, seed, slots_):
    _wide()
    slots = carray(slots_, ({n_slots},))
    d, m = slots[0], slots[1]
    before, x, g = carray(before_, (d, {L})), carray(x_, (d, {L})), carray(g_, (d * m, {L}))
{body}
"""


@dataclass(frozen=True)
class StepContext:
    """What a watcher has to know of a run.

    ``t0``, ``dt``, ``n_steps``: the steps; ``d``: components of a state; ``m``: Wiener processes; ``general``: whether
    the diffusion has d·m rows; ``absorbing``: (component, lower, upper) of every absorbing wall, −inf or inf for the
    side that has none: a path beyond one is held there and passes nothing any more.
    """

    t0: float
    dt: float
    n_steps: int
    d: int
    m: int
    general: bool
    absorbing: tuple[tuple[int, float, float], ...] = ()

    @property
    def columns(self) -> int:
        """Rows of ``g`` for each component."""
        return self.m if self.general else 1


def bound(body: str, dtype: Any, slots: list[int], keep: tuple[Any, ...], **names: Any) -> Recorder:
    """The watcher of that body, bound to its words ``slots``; ``keep`` holds the memory that they point to.

    The body knows ``before``, ``x``, ``g``, ``d``, ``m`` (rows of g for each component), ``lo``, ``hi``, ``row``,
    ``step``, ``start``, ``seed``, ``slots``, ``_float_pointer`` and ``_int_pointer`` (an address as a pointer to
    float64, to int64), and ``names``, which are compiled functions.
    """
    known = {"_float_pointer": call.pointer_f64, "_int_pointer": call.pointer_i64, **names}
    used = {name: value for name, value in known.items() if name in body}
    text = _WATCHER.format(dtype=np.dtype(dtype).name, n_slots=len(slots), L=LANES, body=body)
    compiled = cache.load(text, {"_wide": elementary.wide_vectors, **used}).watch
    return Recorder(compiled.address, np.array(slots, np.int64), (compiled, *keep))
