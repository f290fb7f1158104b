"""The adaptive engine: every path of a tile takes dyadic steps of its own, along its own Brownian path.

Each base step [t, t + dt] is the root of a binary tree of intervals. A path attempts the interval it stands before
(a step), and from the scheme's estimate e of the local error

    err = ( (1/d) Σⱼ ( eⱼ / (atol + rtol max(|xⱼ|, |x'ⱼ|)) )² )^½         (Hairer, Nørsett & Wanner 1993, eq. II.4.11)

takes it where err <= 1, and cuts it in halves otherwise. The increments and space-time areas of the halves are those
of the tree in ``brownian``, which belongs to (seed, path) alone: a rejected step is looked at again on the same
Brownian path. Had its increments been drawn anew, large ones would be rejected more often than small ones, and the law
of the path would be wrong (Gaines & Lyons 1997, "Variable step size control in the numerical solution of stochastic
differential equations", SIAM J. Appl. Math. 57; Rackauckas & Nie 2017, "Adaptive methods for stochastic differential
equations via natural embeddings and rejection sampling with memory", DCDS-B 22). After a step, a path goes on at the
coarsest interval that begins where it stands, and is cut without an attempt down to the level that err foretells.

Paths in a tile stand at different times: only at the recorded ones do they wait for each other. A path is the same
in any company.
"""

import functools
from typing import Any

import numpy as np

from ..core import cache, call, elementary, normals, stream
from ..core.compile import LANES
from . import brownian, tiles
from .schemes import Scheme
from .step_text import RESERVED, StepText, indented

MAX_DEPTH = 20  # a step is never smaller than the base step / 2²⁰

_SAFETY = 0.5  # aim at this err: a rejected attempt costs as much as a step
_MOST_LEVELS = 4  # that an attempt is cut by at once

_TEMPLATE = """\
import math

import numpy as np
from numba import njit, types

I64, U64 = np.int64, np.uint64
_T = types.{dtype}
_M, _C, _W = _T[:, ::1], _T[:, :, ::1], types.int64[::1]

@njit(types.void(_M, types.uint64, types.int64, types.float64, types.float64, types.int64, types.uint64, types.int64,
                 types.float64, types.float64, types.int64, _T[::1], _W, _W, _W, _W, types.int64[:, ::1], _M,
                 types.uint8[::1], _W, types.int64[:, ::1], _C, _C, types.uint64[::1], _T[::1], types.int64[:, ::1],
                 types.float64[:, ::1], _T[:, :, :, ::1], _M),
      nogil=True, cache=CACHE, error_model="numpy")
def run(x0, path0, n, t0, dt, n_steps, seed, source, rtol_, atol_, freeze, p, tiles, flags, records, recorders, slots,
        final, stop, report, counts, scratch, z, nodes, t, places, clock, waiting, sizes):
    _wide()
    d, m = final.shape[1], flags[0]
    uses_time = flags[1] != 0
    deepest = sizes.shape[0] - 1
    rtol, atol = {T}(rtol_), {T}(atol_)
    x, y, w = scratch[0], scratch[1], scratch[2]
{buffers}
    h, root, size = scratch[{spare}, 0], scratch[{spare}, 1], scratch[{spare}, 2]
    # where each path stands: base step, level, interval within the base step; the level it wants; what it is doing
    step, level, index, aim, state, who = places[0], places[1], places[2], places[3], places[4], places[5]
    begin, length = clock[0], clock[1]          # of the interval, in base steps
    first, last = path0 >> U64({SHIFT}), (path0 + U64(n) - U64(1)) >> U64({SHIFT})
    for leaf in range(first, last + U64(1)):
        start = U64(leaf) << U64({SHIFT})
        row = I64(start) - I64(path0)           # of lane 0 in the block; negative where the block starts later
        lo, hi = max(I64(0), -row), min(I64({L}), n - row)
        for j in range(d):
            for i in range({L}):
                # lanes outside the block hold the nearest real state, so that no coefficient sees a made-up one
                x[j, i] = x0[min(max(row + i, 0), n - 1) if x0.shape[0] > 1 else 0, j]
        for i in range({L}):
            t[i] = {T}(t0)
            step[i], level[i], index[i], aim[i] = 0, 0, 0, 0
            state[i] = {NEW} if lo <= i < hi else {OUT}
        r = 0
        while True:
            goal = records[r] if r < records.shape[0] else n_steps
            while True:
                if stop[0] != 0:
                    return
                running = 0
                for i in range({L}):
                    if step[i] == goal and state[i] == {NEW}:
                        continue
                    running += 1 if state[i] != {OUT} else 0
                if running == 0:
                    break
{noise}
                for i in range({L}):
                    h[i], root[i] = sizes[level[i], 0], sizes[level[i], 1]
                    length[i] = 1.0 / (1 << level[i])
                    begin[i] = step[i] + index[i] * length[i]
                    size[i] = {T}(0.0)
{integral}
{stages}
                for i in range({L}):
                    if state[i] == {OUT} or (step[i] == goal and state[i] == {NEW}):
                        continue
                    err = math.sqrt(size[i] / d)
                    if err <= {T}(1.0):
                        for j in range(d):
                            x[j, i] = y[j, i]
                        counts[0, row + i] += 1
                        wanted = level[i]
                        foretold = err * {T}({growth})
                        while wanted > 0 and foretold <= {T}({safety}):
                            wanted -= 1
                            foretold = foretold * {T}({growth})
                        aim[i] = wanted
                        l, k = level[i], index[i]
                        while k & 1:                            # right halves end where their parents end
                            l, k = l - 1, k >> 1
                        state[i] = {ON}
                        if l == 0:
                            step[i] += 1
                            state[i] = {NEW}
                        else:
                            k += 1
{turn}
                        level[i], index[i] = l, k
                    else:
                        counts[1, row + i] += 1
                        if level[i] == deepest:
                            state[i] = {OUT}
                            if freeze == 0:
                                for j in range(d):
                                    x[j, i] = {T}(math.nan)
                            if report[0] == 0 or row + i < report[1]:
                                report[1] = row + i
                            report[0] += 1
                            continue
                        wanted = level[i] + 1
                        foretold = err / {T}({growth})
                        # not foretold <= ...: where the attempt was not a number, neither is this
                        while not foretold <= {T}({safety}) and wanted < min(deepest, level[i] + {most}):
                            wanted += 1
                            foretold = foretold / {T}({growth})
                        aim[i] = wanted
            if r < records.shape[0]:
                now = {T}(t0 + goal * dt)
                for i in range({L}):
                    t[i] = now
                for q in range(recorders.shape[0]):
                    _record(recorders[q], x, t, lo, hi, row, r, slots[q])
                r += 1
            if goal == n_steps:
                break
        for i in range(lo, hi):
            for j in range(d):
                final[row + i, j] = x[j, i]
        report[2] += hi - lo
"""

# New base steps: W and H from the stream. Then everyone who wants a finer interval is cut, once a pass.
_NOISE = """\
count = 0
for i in range({L}):
    if state[i] == {NEW} and step[i] < goal:
        who[count] = i
        nodes[count] = U64(U64(i) << U64(32)) | U64(step[i] // {S})
        count += 1
if count > 0:
    for k in range(m):
        _source(source, z[0], nodes, U64(count), U64(k), start, seed)
        _source(source, z[1], nodes, U64(count), U64({space_time} + k), start, seed)
        for c in range(count):
            i = who[c]
            draw = step[i] % {S}
            w[k, i] = sizes[0, 1] * z[0, draw, c]
            area[k, i] = sizes[0, 3] * z[1, draw, c]
    for c in range(count):
        state[who[c]] = {ON}
while True:
    count = 0
    for i in range({L}):
        if state[i] == {ON} and level[i] < aim[i]:
            who[count] = i
            node = n_steps * ((1 << level[i]) - 1) + (step[i] << level[i]) + index[i]
            nodes[count] = U64(U64(i) << U64(32)) | U64(node)
            count += 1
    if count == 0:
        break
    for k in range(m):
        _source(source, z[0], nodes, U64(count), U64({bridge} + k), start, seed)
        for c in range(count):
            i = who[c]
            l = level[i]
            w[k, i], area[k, i], waiting[l, 0, k, i], waiting[l, 1, k, i] = _halves(
                w[k, i], area[k, i], sizes[l, 2] * z[0, 0, c], sizes[l, 3] * z[0, 1, c]
            )
    for c in range(count):
        i = who[c]
        level[i], index[i] = level[i] + 1, 2 * index[i]"""

_NO_NOISE = """\
for i in range({L}):
    if state[i] != {OUT} and step[i] < goal:
        state[i] = {ON}
        index[i] = index[i] << (max(aim[i], level[i]) - level[i])
        level[i] = max(aim[i], level[i])"""

_INTEGRAL = """\
for k in range(m):
    for i in range({L}):
        dz[k, i] = h[i] * ({T}(0.5) * w[k, i] + area[k, i])"""

_TURN = """\
for c in range(m):
    w[c, i], area[c, i] = waiting[l - 1, 0, c, i], waiting[l - 1, 1, c, i]"""

_STATES = {"OUT": 0, "NEW": 1, "ON": 2}  # out of the run; before a base step; inside one


@functools.cache
def engine(scheme: Scheme, dtype: Any) -> Any:
    """The compiled loop ``run`` of an adaptive scheme (see the template); from the disk when it can be."""
    dtype = np.dtype(dtype)
    T, L = f"np.{dtype.name}", LANES
    noisy = scheme.noise != ("none",)
    text = StepText(tiles.coefficients(scheme, False), T, L, False)
    text.names |= {"_wide": elementary.wide_vectors, "_tile": call.call_tile, "_record": call.call_recorder}
    if noisy:
        text.names |= {"_source": call.call_source, "_halves": brownian.halves}
        text.buffer("area")
    if scheme.space_time:
        text.buffer("dz")
    _add_stages(text, scheme)
    values = {
        "T": T, "L": L, "S": normals.DRAWS[dtype], "space_time": stream.SPACE_TIME << 24, "bridge": stream.BRIDGE << 24,
        **_STATES,
    }  # fmt: skip
    source = _TEMPLATE.format(
        dtype=dtype.name, SHIFT=L.bit_length() - 1, growth=2.0**scheme.error_order, safety=_SAFETY, most=_MOST_LEVELS,
        buffers=indented(text.buffers, 4), spare=RESERVED + len(text.buffers),
        noise=indented((_NOISE if noisy else _NO_NOISE).format(**values), 16),
        integral=indented(_INTEGRAL.format(**values) if scheme.space_time else "", 16),
        stages=indented(text.lines, 16),
        turn=indented(_TURN if noisy else "", 28),
        **values,
    )  # fmt: skip
    return cache.load(source, text.names).run


def _add_stages(text: StepText, scheme: Scheme) -> None:
    """The lines of the scheme's stages, which end with the attempted state in ``y``, and of its estimate."""
    drifts: list[str] = []
    noises: list[str] = []
    draws = "w[j, i], dz[j, i], h[i], root[i]" if scheme.space_time else "w[j, i], h[i], root[i]"
    point, position = "x", 0
    for number, stage in enumerate(scheme.stages):
        text.add(
            "if uses_time:",
            f"    for i in range({text.L}):",
            f"        t[i] = {text.T}(t0 + (begin[i] + {stage.at} * length[i]) * dt)",
        )
        for name in (*stage.drifts, *stage.noises):
            (noises if name in stage.noises else drifts).append(text.evaluate(position, point))
            position += 1
        if stage.move is None:
            continue
        move = text.function(f"_move{number}", stage.move)
        f_at = "".join(f"{label}[j, i], " for label in drifts)
        if stage.kick is None:
            text.loop(f"y[j, i] = {move}(x[j, i], {f_at}h[i])")
        else:
            kick = text.function(f"_kick{number}", stage.kick)
            g_at = "".join(f"{label}[j, i], " for label in noises)
            text.loop(f"v = {move}(x[j, i], {f_at}h[i])", f"y[j, i] = {kick}(v, {g_at}{draws})")
        point = "y"
    assert scheme.error is not None
    error = text.function("_error", scheme.error)
    at = "".join(f"{label}[j, i], " for label in [*drifts, *noises])
    text.loop(
        f"e = {error}({at}{draws if noises else 'h[i]'})",
        # at rest at 0 there is no error, and with atol = 0 nothing to measure it against
        "e = e / (atol + rtol * max(abs(x[j, i]), abs(y[j, i]))) if e != 0.0 else e",
        # y − y is 0, and not a number where y is infinite or not a number: then so is err, and the step is refused
        "size[i] += e * e + (y[j, i] - y[j, i])",
    )


def depth(n_steps: int) -> int:
    """The finest level of steps below a base grid of n_steps."""
    return min(MAX_DEPTH, brownian.max_level(n_steps))


def workspace(
    scheme: Scheme, dtype: Any, d: int, m: int, n_steps: int, dt: float, constants: dict[int, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """The memory a run works in, in the engine's order: scratch, z, nodes, t, places, clock, waiting, sizes.

    ``waiting`` holds W and H of the right halves on the way from a base step to the present interval, by level;
    ``sizes`` the step, its square root, and the standard deviations of z and n, by level.
    """
    dtype = np.dtype(dtype)
    levels = depth(n_steps)
    noisy = scheme.noise != ("none",)
    scratch = tiles.aligned((RESERVED + len(tiles.coefficients(scheme, False)) + 3, max(d, m, 3), LANES), dtype)
    for position, values in constants.items():
        scratch[RESERVED + position, : len(values)] = values[:, None]
    h = dt / 2.0 ** np.arange(levels + 1)
    return (
        scratch,
        tiles.aligned((2, normals.DRAWS[dtype], LANES), dtype),
        np.zeros(LANES, np.uint64),
        tiles.aligned((LANES + 16,), dtype),
        np.zeros((6, LANES), np.int64),
        np.zeros((2, LANES)),
        tiles.aligned((levels if noisy else 0, 2, m, LANES), dtype),
        np.stack([h, np.sqrt(h), np.sqrt(h / 16.0), np.sqrt(h / 12.0)], axis=1).astype(dtype),
    )
