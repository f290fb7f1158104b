"""A whole step of a one-stage scheme as one compiled function: coefficients, move and kick without a store between.

Where a scheme evaluates its coefficients at one point only, the formulas and the stage are compiled together, and up
to a block of random draws is taken in one call: the state is loaded and stored once for two (float64) or four
(float32) steps. The operations, and so the bits of the paths, are those of one step at a time.

The function is a C function ``(x, z, times, p, first, count, rows)``: x is (rows, 256), z the normals
(rows, draws, 256) or, for two-point increments, the random words (rows, 4, 256) as uint32; ``times`` holds the times
of the draws, then dt and √dt; p the parameters; the steps are ``first``, …, ``first + count − 1``, counted in draws or
bits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import errors as numba_errors

from ..errors import CompileError
from . import bits, cache, elementary
from .compile import LANES, Layout, Tile, explanation, formula, uses, view_source
from .normals import DRAWS

_HEADER = """\
import numpy as np
from numba import carray, cfunc, types

_T = types.{dtype}
_P = types.CPointer(_T)

@cfunc(types.void(_P, types.CPointer({noise}), _P, _P, types.intp, types.intp, types.intp), cache=CACHE,
       error_model="numpy")
def tile(x_, z_, times_, p_, first, count, rows):
    _wide()
    q = carray(p_, ({size},))
    self = {view}
    x = carray(x_, ({rows}, {L}))
    z = carray(z_, ({rows}, {depth}, {L}))
    times = carray(times_, ({S} + 2,))
    h, root = times[{S}], times[{S} + 1]
{body}
"""

_ONE_BY_ONE = """\
    for s in range(first, first + count):
        now = times[{slot}]
{single}
"""

_UNROLLED = """\
    if count == {unrolled}{aligned}:
{block}
        return
"""

UNROLLED_BITS = 4  # two-point steps in one call
MOST_UNROLLED = 6  # components of a tuple


def fused(
    label: str,
    coefficients: list[tuple[str, Callable[..., Any], str]],
    move: Any,
    kick: Any,
    layout: Layout,
    dtype: Any,
    *,
    dim: int | None,
    two_point: bool,
) -> Tile:
    """Compile one stage with its coefficients.

    ``coefficients`` are (name, formula, "number" or "tuple"), the drift first; the stage is
    ``kick(move(x, drift, dt), others…, dw, dt, √dt)``.
    """
    dtype = np.dtype(dtype)
    draws = DRAWS[dtype]
    names: dict[str, Any] = {"_wide": elementary.wide_vectors, "_move": move, "_kick": kick}
    view, size = view_source(layout, 0, names)
    scalar = dim is None or dim == 1
    if two_point:
        names["_sign"] = bits.sign32 if dtype == np.float32 else bits.sign64

    def increment(j: str, s: str) -> str:
        if two_point:
            return f"_sign(z[{j}, first // 32, i], ({s}) % 32, root)"
        return f"root * z[{j}, {s}, i]"

    def one_step(s: str, now: str) -> list[str]:
        """Lines that take the registers v0, v1, … over one step."""
        components = ["j"] if scalar else [str(j) for j in range(dim or 1)]
        state = "v0" if scalar else "(" + ", ".join(f"v{j}" for j in range(dim or 1)) + ",)"
        lines = [f"c{n} = _{name}(self, {state}, {now})" for n, (name, _, _) in enumerate(coefficients)]
        for k, j in enumerate(components):
            values = [
                f"np.{dtype.name}(c{n}{f'[{k}]' if entries == 'tuple' else ''})"
                for n, (_, _, entries) in enumerate(coefficients)
            ]
            others = "".join(f"{value}, " for value in values[1:])
            lines.append(f"u{k} = _kick(_move(v{k}, {values[0]}, h), {others}{increment(j, s)}, h, root)")
        return lines + [f"v{k} = u{k}" for k in range(len(components))]

    def looped(steps: list[list[str]], indent: int) -> str:
        inner = [line for step in steps for line in step]
        if scalar:
            lines = ["for j in range(rows):", f"    for i in range({LANES}):", "        v0 = x[j, i]"]
            lines += ["        " + line for line in inner] + ["        x[j, i] = v0"]
        else:
            lines = [f"for i in range({LANES}):"] + [f"    v{j} = x[{j}, i]" for j in range(dim or 1)]
            lines += ["    " + line for line in inner] + [f"    x[{j}, i] = v{j}" for j in range(dim or 1)]
        return "\n".join(" " * indent + line for line in lines)

    single = looped([one_step("s", "now")], 8).replace("first // 32", "s // 32")
    body = _ONE_BY_ONE.format(slot="s - first" if two_point else "s", single=single)
    if scalar or (dim or 1) <= MOST_UNROLLED:
        unrolled = UNROLLED_BITS if two_point else draws
        steps = [one_step(f"first + {s}" if two_point else str(s), f"times[{s}]") for s in range(unrolled)]
        aligned = f" and first % {unrolled} == 0" if two_point else ""
        body = _UNROLLED.format(unrolled=unrolled, aligned=aligned, block=looped(steps, 8)) + body
    text = _HEADER.format(
        dtype=dtype.name, noise="types.uint32" if two_point else "_T", size=size, view=view, L=LANES, S=draws_of(dtype),
        rows="rows" if scalar else str(dim), depth=4 if two_point else draws, body=body,
    )  # fmt: skip
    try:
        for name, function, _ in coefficients:
            names[f"_{name}"] = formula(function)
        return Tile(cache.load(text, names), uses_time=any(uses(function)[1] for _, function, _ in coefficients))
    except (numba_errors.NumbaError, NotImplementedError) as error:
        raise CompileError(explanation(label, layout, coefficients[0][1], error)) from None


def draws_of(dtype: Any) -> int:
    """The room for times in the step function's ``times``: what the longest block needs."""
    return max(DRAWS[np.dtype(dtype)], UNROLLED_BITS)
