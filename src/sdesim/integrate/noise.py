"""The noise of a step, as text of a tile engine: what fills dw, dz and the areas from the random stream.

Each kind is a few lines that the engine's time loop takes in (see ``tiles``): Gaussian increments two or four steps at
a time, the sums of several finer increments (a coarser step on the same Brownian path), increments that the caller
gave, two- and three-point increments from raw bits, space-time integrals and Lévy areas.

**Lévy areas.** Given ΔW = √h ζ⁰, the expansion of the Brownian path in Legendre polynomials gives

    A_kl = ½h Σ_{q ≥ 1} (ζ_k^{q−1} ζ_l^q − ζ_k^q ζ_l^{q−1}) / √(4q² − 1),   ζ^q independent standard normals

(Kuznetsov 1997; Dickinson 2007). The sum is cut after n terms and what is left, of variance h²/4(2n + 1), is replaced
by a normal variable, as in Wiktorsson (2001) for the Fourier series: the variance of A is right for any n. The number
of terms grows as √n_steps, which keeps the error of an area below what strong order 1 needs.
"""

from typing import Any

import numpy as np

from ..core import bits, stream
from ..core.normals import DRAWS
from .schemes import Scheme

_GAUSSIAN = """\
draw = s % {S}
if draw == 0 or s == step0:
    for k in range(m):
        _source(source, z[k], words, U64(s // {S}), U64(k), start, seed)"""

_INCREMENTS = """\
for k in range(m):
    for i in range({L}):
        w[k, i] = root * z[k, draw, i]"""

_SPACE_TIME = """\
if draw == 0 or s == step0:
    for k in range(m):
        _source(source, z[m + k], words, U64(s // {S}), U64({space_time} + k), start, seed)
for k in range(m):
    for i in range({L}):
        dz[k, i] = h * ({T}(0.5) * w[k, i] + twelfth * z[m + k, draw, i])"""

# step s is the sum of the finer increments r s, ..., r s + r - 1; swap exchanges the members of each pair of these
_COARSE = """\
r_fine, swap = coarse[0], coarse[1]
for q in range(r_fine):
    draw = (s * r_fine + q) % {S}
    if draw == 0 or (s == step0 and q == 0):
        for k in range(m):
            _source(source, z[k], words, U64((s * r_fine + q) // {S}), U64(k), start, seed)
    draw = draw ^ swap
    for k in range(m):
        for i in range({L}):
            w[k, i] = fine_root * z[k, draw, i] + (w[k, i] if q > 0 else {T}(0.0))"""

_GIVEN = """\
for k in range({columns}):
    for i in range(lo, hi):
        {buffer}[k, i] = increments[row + i, s - step0, {offset} + k]"""

_LAW_ONLY = """\
while landing < landings.shape[0] and landings[landing] <= s:
    landing += 1
smooth = landing < landings.shape[0] and landings[landing] - s <= 4
if smooth:
    draw = s % {S}
    if normals_at != s // {S}:
        normals_at = s // {S}
        for k in range(m):
            _source(source, z[k], words, U64(s // {S}), U64(k), start, seed)
else:
    draw = s % {per_block}
    if bits_at != s // {per_block}:
        bits_at = s // {per_block}
        for k in range(m):
            _fill(bits[k], U64(s // {per_block}), U64({purpose} + k), start, seed)"""

_LAW_ONLY_INCREMENTS = """\
for k in range(m):
    if smooth:
        for i in range({L}):
            w[k, i] = root * z[k, draw, i]
    else:
        _{kind}(w[k], bits[k], draw, {size})"""

_TWO_POINT_AREAS = """\
if s % 128 == 0 or s == step0:
    for c in range(m * (m - 1) // 2):
        _fill(bits[m + c], U64(s // 128), U64({levy_area} + c), start, seed)
for c in range(m * (m - 1) // 2):
    _signs(area[c], bits[m + c], s % 128, {T}(0.5) * h)"""

_LEVY_AREAS = """\
pairs = m * (m - 1) // 2
for k in range(m):
    for i in range({L}):
        chain[k, 0, i] = w[k, i] / root
for c in range(pairs):
    for i in range({L}):
        area[c, i] = {T}(0.0)
term = 0
for b in range(flags[3]):
    for k in range(m):
        _source(source, chain[k, 1:], words, U64(s), U64({levy_area} + b * m + k), start, seed)
    for q in range({S}):
        term += 1
        factor = {T}(0.5 * dt / math.sqrt(4.0 * term * term - 1.0))
        c = 0
        for k in range(m):
            for l in range(k + 1, m):
                for i in range({L}):
                    area[c, i] += factor * (chain[k, q, i] * chain[l, q + 1, i] - chain[k, q + 1, i] * chain[l, q, i])
                c += 1
    for k in range(m):
        for i in range({L}):
            chain[k, 0, i] = chain[k, {S}, i]
rest = {T}(0.5 * dt / math.sqrt(2.0 * term + 1.0))
for c in range(pairs):
    _source(source, chain[0, 1:], words, U64(s), U64({levy_area} + 2**20 + c), start, seed)
    for i in range({L}):
        area[c, i] += rest * chain[0, 1, i]"""


def can_fuse(scheme: Scheme, general: bool, variant: Any) -> bool:
    """Whether a step can be one compiled function that takes its increments from the normals or bits as it goes."""
    plain = scheme.increment != "three_point" and not (variant.given or variant.coarse)
    one = len(scheme.stages) == 1 and scheme.stages[0].kick is not None and scheme.name != "exact"
    return plain and one and not general and scheme.step is None


def step_source(scheme: Scheme, general: bool, dtype: np.dtype, variant: Any) -> tuple[str, str, str]:
    """Text for before the time loop, for the start of a leaf, and for each step."""
    values = {
        "S": DRAWS[dtype],
        "L": 256,
        "T": f"np.{dtype.name}",
        "space_time": stream.SPACE_TIME << 24,
        "levy_area": stream.LEVY_AREA << 24,
        "purpose": stream.BITS << 24,
    }
    areas = general and scheme.fan is not None and scheme.fan.iterated
    if scheme.noise == ("none",):
        return "", "", ""
    if variant.given:
        pieces = [_GIVEN.format(columns="m", buffer="w", offset="0")]
        if scheme.space_time:
            pieces.append(_GIVEN.format(columns="m", buffer="dz", offset="m"))
        if areas == "levy":
            pieces.append(_GIVEN.format(columns="m * (m - 1) // 2", buffer="area", offset="m"))
        return "", "", "\n".join(pieces)
    if variant.coarse:
        return f"fine_root = {values['T']}(math.sqrt(dt / coarse[0]))", "", _COARSE.format(**values)
    before, leaf = [], []
    if scheme.law_only:
        two = scheme.increment == "two_point"
        values |= {
            "kind": "signs" if two else "digits",
            "per_block": bits.SIGNS if two else bits.DIGITS,
            "size": "root" if two else "root3",
        }
        before += [] if two else [f"root3 = {values['T']}(math.sqrt(3.0 * dt))"]
        leaf.append("landing, normals_at, bits_at = 0, np.int64(-1), np.int64(-1)")
        pieces = [_LAW_ONLY, _LAW_ONLY_INCREMENTS]
    else:
        pieces = [_GAUSSIAN, _INCREMENTS]
    if variant.fused:
        pieces.pop()
    if scheme.space_time:
        before.append(f"twelfth = {values['T']}(math.sqrt(dt / 12.0))")
        pieces.append(_SPACE_TIME)
    if areas in ("two_point", "levy"):
        pieces.append(_TWO_POINT_AREAS if areas == "two_point" else _LEVY_AREAS)
    return "\n".join(before), "\n".join(leaf), "\n".join(piece.format(**values) for piece in pieces)


def columns(scheme: Scheme, general: bool, m: int) -> int:
    """The columns that given increments have: ΔW, then dZ or the areas A_12, A_13, …, where the scheme takes them."""
    if scheme.space_time:
        return 2 * m
    if general and scheme.fan is not None and scheme.fan.iterated == "levy":
        return m + m * (m - 1) // 2
    return m


def with_space_time(increments: np.ndarray, zeta: np.ndarray, dt: float, dtype: np.dtype) -> np.ndarray:
    """Increments (paths, steps, m) with dZ = dt (½ dW + √(dt/12) ζ) behind them, ζ (paths, m, steps) normals."""
    dz = dt * (0.5 * increments + np.sqrt(dt / 12.0) * zeta.transpose(0, 2, 1))
    return np.ascontiguousarray(np.concatenate([increments, dz], axis=2), dtype)


def area_blocks(n_steps: int, dtype: np.dtype) -> int:
    """Random blocks, of 2 or 4 terms of the series each, that a Lévy area takes: about ½√n_steps terms."""
    return max(1, int(np.ceil(0.5 * np.sqrt(n_steps) / DRAWS[dtype])))
