"""The tile engine: the time loop of a scheme, compiled once and run on 256 paths at a time.

A tile is the 256 paths of a leaf (path // 256) as ``x[d, 256]``, which stays in the first-level cache for the whole
time loop. The coefficients arrive as addresses of tile functions, the stages of the scheme are inlined, the noise
comes from the random stream at (seed, purpose, component, step, path). Lanes outside the asked range are computed and
dropped, so a path has the same bits in any company. The engine is serial and releases the GIL: blocks of whole leaves
run side by side on threads.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from ..core import bits, cache, call, elementary, fuse, normals
from ..core.compile import LANES
from . import noise
from .schemes import EULER_MARUYAMA, WEAK_EULER, Scheme, Stage
from .step_text import FLAGS, RESERVED, StepText, indented, nested

_TEMPLATE = """\
import math

import numpy as np
from numba import njit, types

U64 = np.uint64
_T = types.{dtype}
_M, _C, _W = _T[:, ::1], _T[:, :, ::1], types.int64[::1]

@njit(types.void(_M, types.uint64, types.int64, types.float64, types.float64, types.int64, types.int64, types.uint64,
                 types.int64, _T[::1], _W, _W, _C, _W, _W, _W, _W, types.int64[:, ::1], _W, types.int64[:, ::1], _M,
                 types.uint8[::1], _W, types.int64[:, ::1], _C, _C, types.uint64[:, ::1], types.uint64[:, :, ::1], _C,
                 types.uint64[::1], _T[::1]),
      nogil=True, cache=CACHE, error_model="numpy")
def run(x0, path0, n, t0, dt, step0, n_steps, seed, source, p, tiles, flags, increments, coarse, landings, records,
        recorders, slots, watchers, watched, final, stop, report, counts, scratch, z, words, bits, chain, spot, t):
    _wide()
    d = final.shape[1]
    m = flags[0]                # Wiener processes a path
    uses_time = flags[1] != 0
    h, root = {T}(dt), {T}(math.sqrt(dt))
    x, y, w = scratch[0], scratch[1], scratch[2]
{buffers}
{before}
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
{leaf}
        r = 0
        if records.shape[0] > 0 and records[0] == step0:
            for q in range(recorders.shape[0]):
                _record(recorders[q], x, t, lo, hi, row, r, slots[q])
            r = 1
        s, end = step0, step0 + n_steps
        while s < end:
            if stop[0] != 0 and s % {S} == 0:
                return
{step}
            if r < records.shape[0] and records[r] == s + 1:
                now = {T}(t0 + (s + 1) * dt)
                for i in range({L}):
                    t[i] = now
                for q in range(recorders.shape[0]):
                    _record(recorders[q], x, t, lo, hi, row, r, slots[q])
                r += 1
            s += 1
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

_FREEZE = """\
for i in range({L}):
    for j in range(d):
        if not math.isfinite(x[j, i]):
            dead[0, i] = {T}(1.0)
    if dead[0, i] != {T}(0.0):
        for j in range(d):
            x[j, i] = before[j, i]"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a run asks of an engine; each is an engine of its own, so that the usual one is small and soon compiled.

    ``freeze`` holds a path at its last finite state; ``given`` takes the increments from an array; ``coarse`` sums
    finer increments; ``watch`` calls watchers (walls, first passages) after every step; ``fused`` takes whole steps
    compiled with the process (``core.fuse``) in place of its coefficients, and is then the same for all such schemes.
    """

    freeze: bool = False
    given: bool = False
    coarse: bool = False
    watch: bool = False
    fused: bool = False


def engine(scheme: Scheme, dtype: Any, general: bool, variant: Variant = Variant()) -> Any:
    """The compiled time loop ``run`` of a scheme (see the template for its arguments); from the disk when it can be."""
    if variant.fused:  # the schemes differ in the step only
        scheme = WEAK_EULER if scheme.law_only else EULER_MARUYAMA
    return _engine(scheme, np.dtype(dtype), general, variant)


@functools.cache
def _engine(scheme: Scheme, dtype: Any, general: bool, variant: Variant) -> Any:
    T, L, S = f"np.{dtype.name}", LANES, normals.DRAWS[dtype]
    text = StepText(coefficients(scheme, general, variant), T, L, general)
    text.names |= {"_wide": elementary.wide_vectors, "_tile": call.call_tile, "_record": call.call_recorder}
    once, leaf, draw = noise.step_source(scheme, general, dtype, variant)
    text.before += once.splitlines()
    text.leaf += leaf.splitlines()
    text.add(*draw.splitlines())
    signs = bits.signs32 if dtype == np.float32 else bits.signs64
    sources = {"_source": call.call_source, "_fill": bits.fill, "_signs": signs, "_digits": bits.digits}
    for name, function in sources.items():
        if f"{name}(" in draw:
            text.function(name, function)
    for label in ("dz", "area"):
        if f"{label}[" in draw:
            text.buffer(label)
    if variant.freeze or variant.watch:
        text.buffer("before")
        text.loop("before[j, i] = x[j, i]")
    if variant.watch:
        text.at_time(0.0)
        g = text.evaluate(len(text.coefficients) - 1, "before")
    if variant.fused:
        _add_fused(text, scheme, one_at_a_time=variant.freeze or variant.watch, S=S)
    elif scheme.step is not None:
        scheme.step(text, keeps=not (variant.freeze or variant.watch))
    else:
        _add_stages(text, scheme)
    if variant.watch:
        text.function("_watch", call.call_watcher)
        for step, lines in (("-1", text.leaf), ("s", text.lines)):
            if step == "-1":
                lines += ["for j in range(d):", f"    for i in range({L}):", "        before[j, i] = x[j, i]"]
            lines += [
                "for q in range(watchers.shape[0]):",
                f"    _watch(watchers[q], before, x, {g}, lo, hi, row, {step}, start, seed, watched[q])",
            ]
    if variant.freeze:
        text.buffer("dead")
        text.leaf += [f"for i in range({L}):", f"    dead[0, i] = {T}(0.0)"]
        text.add(*_FREEZE.format(T=T, L=L).splitlines())
    source = _TEMPLATE.format(
        dtype=dtype.name, T=T, L=L, S=S, SHIFT=LANES.bit_length() - 1,
        buffers=indented(text.buffers, 4), before=indented(text.before, 4), leaf=indented(text.leaf, 8),
        step=indented(text.lines, 12), is_dead=f"dead[0, i] != {T}(0.0)" if variant.freeze else "False",
    )  # fmt: skip
    return cache.load(source, text.names).run


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The memory a run works in, starting on cache lines: an access of 512 bits then never straddles two of them.

    An engine that allocates nothing is sooner compiled.
    """

    scratch: np.ndarray
    z: np.ndarray
    words: np.ndarray
    bits: np.ndarray
    chain: np.ndarray
    spot: np.ndarray
    t: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """In the engine's order."""
        return self.scratch, self.z, self.words, self.bits, self.chain, self.spot, self.t


EXTRA_BUFFERS = 12  # at most, of one scheme's step


def workspace(
    scheme: Scheme, dtype: Any, d: int, m: int, general: bool, constants: dict[int, np.ndarray], variant: Variant
) -> Workspace:
    """``constants`` holds the rows of coefficients that read neither state nor time, by their position."""
    dtype = np.dtype(dtype)
    draws, pairs = normals.DRAWS[dtype], m * (m - 1) // 2
    buffers = RESERVED + len(coefficients(scheme, general, variant)) + EXTRA_BUFFERS
    rows = max(2 * d, m, d * m if general else 0, pairs if general else 0, d * d if scheme.implicit else 0)
    scratch = aligned((buffers, rows, LANES), dtype)
    for position, values in constants.items():
        scratch[RESERVED + position, : len(values)] = values[:, None]
    bit_rows = m + (pairs if general else 0) if scheme.law_only else int(scheme.counts)
    levy = general and scheme.fan is not None and scheme.fan.iterated == "levy"
    # behind the 256 times stand the step and, where an exact transition looks for it, the spot in the random stream
    t = aligned((LANES + 16,), dtype)
    return Workspace(
        scratch,
        aligned((2 * m if scheme.space_time else m, draws, LANES), dtype),
        aligned((4, LANES // 2), np.dtype(np.uint64)),
        aligned((bit_rows, 4, LANES // 2), np.dtype(np.uint64)),
        aligned((m if levy else 0, draws + 1, LANES), dtype),
        t[LANES + 4 :][: 24 // dtype.itemsize].view(np.uint64),
        t,
    )


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size].view(dtype).reshape(shape)


def stages(scheme: Scheme, general: bool) -> tuple[Stage, ...]:
    """The stages for this kind of noise."""
    return scheme.general_stages if general and scheme.general_stages is not None else scheme.stages


def coefficients(scheme: Scheme, general: bool, variant: Variant = Variant()) -> list[str]:
    """The coefficients in the order in which the engine takes their tile functions."""
    if variant.fused:
        steps = ["step", "bit_step"] if scheme.law_only else ["step"]
        return [*steps, "diffusion"] if variant.watch else steps
    own = list(scheme.coefficients)
    own += [name for stage in stages(scheme, general) for name in (*stage.drifts, *stage.noises)]
    return [*own, "diffusion"] if variant.watch else own


def _add_stages(text: StepText, scheme: Scheme) -> None:
    """The lines of a scheme's stages, and of its fan."""
    T, L, general = text.T, text.L, text.general
    every = stages(scheme, general)
    drifts: list[str] = []
    noises: list[str] = []
    draws = "w[{0}, i], dz[{0}, i]" if scheme.space_time else "w[{0}, i]"
    point, position = "x", 0
    for number, stage in enumerate(every):
        text.at_time(stage.at)
        for name in (*stage.drifts, *stage.noises):
            if name == "transition":
                # the transition is a function of the state and of a standard normal, stacked
                text.buffer("pair")
                text.loop("pair[j, i] = x[j, i]", "pair[d + j, i] = w[j, i] / root")
                text.add("spot[0], spot[1], spot[2] = seed, start, U64(s)")
                label = text.evaluate(position, "pair")
            else:
                label = text.evaluate(position, point)
            (noises if name in stage.noises else drifts).append(label)
            position += 1
        if stage.move is None:
            continue
        last = number == len(every) - 1 and not (general and scheme.fan)
        target = "x" if last else "y"
        move = text.function(f"_move{number}", stage.move)
        f_at = "".join(f"{label}[j, i], " for label in drifts)
        if stage.kick is None:
            text.loop(f"{target}[j, i] = {move}(x[j, i], {f_at}h)")
        elif general:
            kick = text.function(f"_kick{number}", stage.kick)
            g_at = "".join(f"{label}[j * m + k, i], " for label in noises)
            text.add(
                "for j in range(d):",
                f"    for i in range({L}):",
                f"        {target}[j, i] = {move}(x[j, i], {f_at}h)",
                "    for k in range(m):",
                f"        for i in range({L}):",
                f"            {target}[j, i] = {kick}({target}[j, i], {g_at}{draws.format('k')}, h, root)",
            )
        else:
            kick = text.function(f"_kick{number}", stage.kick)
            g_at = "".join(f"{label}[j, i], " for label in noises)
            text.loop(
                f"v = {move}(x[j, i], {f_at}h)",
                f"{target}[j, i] = {kick}(v, {g_at}{draws.format('j')}, h, root)",
            )
        point = target
    if general and scheme.fan is not None:
        _add_fan(text, scheme, noises[0], T, L)


def _add_fused(text: StepText, scheme: Scheme, one_at_a_time: bool, S: int) -> None:
    """The lines that call a step compiled with its coefficients, for as many draws as there is room for."""
    T = text.T
    times, slots = text.buffer("times"), fuse.draws_of(T[3:])
    text.function("_step", call.call_step)
    text.before += [f"times[0, {slots}], times[0, {slots} + 1] = h, root"]
    next_record = "min(end, records[r]) if r < records.shape[0] else end"

    def take(position: int, noise_at: str, first: str, room: str, offset: str) -> list[str]:
        return [
            f"room = min({'1' if one_at_a_time else room}, ({next_record}) - s)",
            "if uses_time:",
            "    for q in range(room):",
            f"        {times}[0, {offset} + q] = {T}(t0 + (s + q) * dt)",
            f"_step(tiles[{position}], x, {noise_at}, {times}, p, {first}, room, d)",
        ]

    gaussian = take(0, "z", "draw", "1" if scheme.law_only else f"{S} - draw", "draw")
    if scheme.law_only:
        block = fuse.UNROLLED_BITS
        ahead = "landings[landing] - 4 - s if landing < landings.shape[0] else end - s"
        bit_steps = take(1, "bits", "draw", f"min({block} - draw % {block}, {ahead})", "0")
        text.add("if smooth:", *nested(*gaussian), "else:", *nested(*bit_steps))
    else:
        text.add(*gaussian)
    text.add("s += room - 1")


def _add_fan(text: StepText, scheme: Scheme, g: str, T: str, L: int) -> None:
    """The lines of a fan, which starts from x, adds to y and ends in x; constant noise needs none."""
    fan = scheme.fan
    assert fan is not None
    at = text.coefficients.index("diffusion")
    support = text.buffer("support")
    lines: list[str] = []
    moved = []
    outer = text.lines
    text.lines = lines
    text.at_time(0.0)
    text.add("for k in range(m):")
    for number, function in enumerate(fan.supports):
        text.function(f"_support{number}", function)
        moved.append(text.buffer(f"moved{number}"))
        lines += [
            "    for j in range(d):",
            f"        for i in range({L}):",
            f"            {support}[j, i] = _support{number}(x[j, i], {g}[j * m + k, i], h, root)",
            f"    _tile(tiles[{at}], {support}, t, p, {moved[-1]}, d)",
        ]
    text.function("_spread", fan.spread)
    moved_at = "".join(f"{label}[j * m + l, i], " for label in moved)
    half = f"{T}(0.5)"
    area = "+ sign * area[c, i]" if fan.iterated != "commutative" else ""
    lines += [
        "    for l in range(m):",
        f"        first, sign = (k, {T}(1.0)) if k < l else (l, {T}(-1.0))",
        "        c = first * m - first * (first + 1) // 2 + (l if k < l else k) - first - 1 if k != l else 0",
        "        for j in range(d):",
        "            if k == l:",
        f"                for i in range({L}):",
        f"                    i_kl = {half} * (w[k, i] * w[k, i] - h)",
        f"                    y[j, i] = _spread(y[j, i], {moved_at}{g}[j * m + l, i], w[l, i], i_kl, h, root)",
        "            else:",
        f"                for i in range({L}):",
        f"                    i_kl = {half} * (w[k, i] * w[l, i]) {area}",
        f"                    y[j, i] = _spread(y[j, i], {moved_at}{g}[j * m + l, i], w[l, i], i_kl, h, root)",
    ]
    text.lines = outer
    text.add(f"if flags[{FLAGS + at}] == 0:", *nested(*lines))
    text.loop("x[j, i] = y[j, i]")
