"""The tile engine: the time loop of a scheme, compiled once and run on 256 paths at a time.

A tile is the 256 paths of a leaf (path // 256) as ``x[d, 256]``, which stays in the first-level cache for the whole
time loop. The coefficients arrive as addresses of tile functions, the stages of the scheme are inlined, the noise
comes from the random stream at (seed, purpose, component, step, path). Lanes outside the asked range are computed and
dropped, so a path has the same bits in any company. The engine is serial and releases the GIL: blocks of whole leaves
run side by side on threads.
"""

import functools
from typing import Any

import numpy as np

from ..core import cache, call, elementary, normals
from ..core.compile import LANES
from .schemes import Scheme

_TEMPLATE = """\
import math

import numpy as np
from numba import njit, types

U64 = np.uint64
_T = types.{dtype}
_M, _W = _T[:, ::1], types.int64[::1]

@njit(types.void(_M, types.uint64, types.int64, types.float64, types.float64, types.int64, types.int64, types.uint64,
                 types.int64, _T[::1], _W, _W, _T[:, :, ::1], _W, _W, types.int64[:, ::1], _M, types.uint8[::1], _W,
                 _T[:, :, ::1], _T[:, :, ::1], types.uint64[:, ::1], _T[::1]),
      nogil=True, cache=CACHE, error_model="numpy")
def run(x0, path0, n, t0, dt, step0, n_steps, seed, source, p, tiles, flags, increments, records, recorders, slots,
        final, stop, report, scratch, z, words, t):
    _wide()
    d = final.shape[1]
    m = flags[0]                # Wiener processes a path
    uses_time = flags[1] != 0
    h, root = {T}(dt), {T}(math.sqrt(dt))
    x, y, w = scratch[0], scratch[1], scratch[2]
{buffers}
    t[{L}] = h
    first, last = path0 >> U64({SHIFT}), (path0 + U64(n) - U64(1)) >> U64({SHIFT})
    for leaf in range(first, last + U64(1)):
        start = U64(leaf) << U64({SHIFT})
        row = np.int64(start) - np.int64(path0)     # of lane 0 in the block; negative where the block starts later
        lo, hi = max(np.int64(0), -row), min(np.int64({L}), n - row)
        for j in range(d):
            for i in range({L}):
                # lanes outside the block run with the nearest real state, so that no coefficient sees a made-up one
                x[j, i] = x0[min(max(row + i, 0), n - 1) if x0.shape[0] > 1 else 0, j]
        for i in range({L}):
            t[i] = {T}(t0 + step0 * dt)
        {thaw}
        r = 0
        if records.shape[0] > 0 and records[0] == step0:
            for q in range(recorders.shape[0]):
                _record(recorders[q], x, t, lo, hi, row, r, slots[q])
            r = 1
        for s in range(step0, step0 + n_steps):
            draw = s % {S}
            if stop[0] != 0 and draw == 0:
                return
{noise}
{remember}
{stages}
{freeze}
            if r < records.shape[0] and records[r] == s + 1:
                now = {T}(t0 + (s + 1) * dt)
                for i in range({L}):
                    t[i] = now
                for q in range(recorders.shape[0]):
                    _record(recorders[q], x, t, lo, hi, row, r, slots[q])
                r += 1
        for i in range(lo, hi):
            bad = {is_dead}
            for j in range(d):
                final[row + i, j] = x[j, i]
                bad = bad or not math.isfinite(x[j, i])
            if bad:
                if report[0] == 0:
                    report[1] = row + i
                report[0] += 1
        report[2] += hi - lo
"""

_DRAW = """\
if draw == 0 or s == step0:
    for k in range(m):
        _source(source, z[k], words, U64(s // {S}), U64(k), start, seed)
for k in range(m):
    for i in range({L}):
        w[k, i] = root * z[k, draw, i]"""

_GIVEN = """\
for k in range(m):
    for i in range(lo, hi):
        w[k, i] = increments[row + i, s - step0, k]"""

_REMEMBER = """\
for j in range(d):
    for i in range({L}):
        before[j, i] = x[j, i]"""

_FREEZE = """\
for i in range({L}):
    for j in range(d):
        if not math.isfinite(x[j, i]):
            dead[i] = 1
    if dead[i] != 0:
        for j in range(d):
            x[j, i] = before[j, i]"""


@functools.cache
def engine(scheme: Scheme, dtype: Any, general: bool, freeze: bool = False, given: bool = False) -> Any:
    """The compiled time loop ``run`` of a scheme (see the template for its arguments); from the disk when it can be.

    ``freeze`` holds a path at its last finite state; ``given`` takes the Wiener increments from an array. Both are
    engines of their own, so that the usual one is small and soon compiled.
    """
    dtype = np.dtype(dtype)
    names: dict[str, Any] = {
        "_wide": elementary.wide_vectors,
        "_tile": call.call_tile,
        "_record": call.call_recorder,
        "_source": call.call_source,
    }
    T, L = f"np.{dtype.name}", str(LANES)
    S = normals.DRAWS[dtype]
    buffers, stages = _stage_source(scheme, general, names, T, L)
    if freeze:
        buffers += f"\n    before = scratch[{len(buffers.splitlines()) + 3}]\n    dead = np.zeros({L}, np.uint8)"

    def piece(text: str, spaces: int, wanted: bool = True) -> str:
        return _indented(text.format(S=S, L=L).splitlines(), spaces) if wanted else ""

    text = _TEMPLATE.format(
        dtype=dtype.name, T=T, L=L, S=S, SHIFT=LANES.bit_length() - 1, buffers=buffers, stages=stages,
        noise=piece(_GIVEN if given else _DRAW, 12), remember=piece(_REMEMBER, 12, freeze),
        thaw="dead[:] = 0" if freeze else "",
        freeze=piece(_FREEZE, 12, freeze), is_dead="dead[i] != 0" if freeze else "False",
    )  # fmt: skip
    return cache.load(text, names).run


def workspace(
    scheme: Scheme, dtype: Any, d: int, m: int, constants: dict[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The memory a run works in (the template's scratch, z, words and t), starting on cache lines.

    An access of 512 bits then never straddles two lines; and an engine that allocates nothing is sooner compiled.
    ``constants`` holds the rows of coefficients that read neither state nor time, by their position.
    """
    dtype = np.dtype(dtype)
    # state, point, increments, coefficients, stacked state and normal, state before the step
    buffers, rows = 3 + len(coefficients(scheme)) + 2, max(2 * d, m, d * m)
    scratch = _aligned((buffers, rows, LANES), dtype)
    for position, values in constants.items():
        scratch[3 + position, : len(values)] = values[:, None]
    return (
        scratch,
        _aligned((m, normals.DRAWS[dtype], LANES), dtype),
        _aligned((4, LANES // 2), np.dtype(np.uint64)),
        _aligned((LANES + 1,), dtype),
    )


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size].view(dtype).reshape(shape)


def coefficients(scheme: Scheme) -> list[str]:
    """The coefficients in the order in which the engine takes their tile functions."""
    return [name for stage in scheme.stages for name in (*stage.drifts, *stage.noises)]


def _stage_source(scheme: Scheme, general: bool, names: dict[str, Any], T: str, L: str) -> tuple[str, str]:
    """Source of the buffers and of the stages of a step."""
    buffers: list[str] = []
    lines: list[str] = []
    drifts: list[str] = []
    noises: list[str] = []
    position = 0
    for number, stage in enumerate(scheme.stages):
        point = "x" if number == 0 else "y"
        lines += [
            "if uses_time:",
            f"    now = {T}(t0 + (s + {stage.at}) * dt)",
            f"    for i in range({L}):",
            "        t[i] = now",
        ]
        for name in (*stage.drifts, *stage.noises):
            is_noise = name in stage.noises
            label = f"{'g' if is_noise else 'f'}{number}_{name}"
            buffers.append(f"{label} = scratch[{len(buffers) + 3}]")
            if name == "transition":
                # the transition is a function of the state and of a standard normal, stacked
                buffers.append(f"pair = scratch[{len(buffers) + 3}]")
                lines += [
                    "for j in range(d):",
                    f"    for i in range({L}):",
                    "        pair[j, i] = x[j, i]",
                    "        pair[d + j, i] = w[j, i] / root",
                ]
                evaluate = f"_tile(tiles[{position}], pair, t, p, {label}, d)"
            else:
                evaluate = f"_tile(tiles[{position}], {point}, t, p, {label}, d)"
            # a coefficient that reads neither the state nor the time stands in its buffer from the start
            lines += [f"if flags[{2 + position}] == 0:", "    " + evaluate]
            (noises if is_noise else drifts).append(label)
            position += 1
        names[f"_move{number}"], names[f"_kick{number}"] = stage.move, stage.kick
        target = "x" if number == len(scheme.stages) - 1 else "y"
        f_at = "".join(f"{label}[j, i], " for label in drifts)
        if general:
            g_at = "".join(f"{label}[j * m + k, i], " for label in noises)
            lines += [
                "for j in range(d):",
                f"    for i in range({L}):",
                f"        {target}[j, i] = _move{number}(x[j, i], {f_at}h)",
                "    for k in range(m):",
                f"        for i in range({L}):",
                f"            {target}[j, i] = _kick{number}({target}[j, i], {g_at}w[k, i], h, root)",
            ]
        else:
            g_at = "".join(f"{label}[j, i], " for label in noises)
            lines += [
                "for j in range(d):",
                f"    for i in range({L}):",
                f"        v = _move{number}(x[j, i], {f_at}h)",
                f"        {target}[j, i] = _kick{number}(v, {g_at}w[j, i], h, root)",
            ]
    return _indented(buffers, 4), _indented(lines, 12)


def _indented(lines: list[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)
