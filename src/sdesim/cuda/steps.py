"""The steps of one path as text: what a thread computes between two recorded times, in registers.

The stages of a scheme, the formulas of a process, the random words and what turns them into increments are the
functions that the CPU engines run; what is written here is the order in which a thread calls them. The order of the
operations is the tile engine's (``integrate.tiles``, ``integrate.noise``), and so are the bits.
"""

from typing import Any

import numpy as np

from ..core import bits, normals, stream
from ..core.compile import view_source
from ..core.philox import philox32
from ..integrate.crossing import spot_of
from ..integrate.reductions.first_passage import passage
from ..integrate.step_text import indented, nested
from ..integrate.tiles import stages
from .model import Model

UNROLLED = 4  # stages' evaluations, times components, up to which a block of steps is written out


class Text:
    """The functions of one path, written line by line; ``names`` are the compiled functions that the lines call."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.T = f"np.{model.dtype.name}"
        self.S = normals.DRAWS[model.dtype]
        self.names: dict[str, Any] = {}
        single = model.dtype == np.float32
        if model.fast and single:
            from .fast import path_normals32

            draws: Any = path_normals32
        else:
            draws = normals.path_normals32 if single else normals.path_normals64
        self.names |= {"_normals": draws}
        self.names["_sign"] = bits.sign32 if single else bits.sign64
        self.names |= {"_digit": bits.digit, "_of_digit": bits.of_digit}
        if model.watch is not None and model.watch.inside is None:
            self.names |= {"_passage": passage, "_spot_of": spot_of}
        elif model.watch is not None:
            self.names["_inside"] = model.watch.inside
        self.view, self.size = view_source(model.layout, 0, self.names)
        self.state = [f"v{j}" for j in range(model.width)]
        for position, coefficient in enumerate(model.coefficients):
            if coefficient.function is not None:
                self.names[f"_f{position}"] = coefficient.function

    @property
    def unrolled(self) -> bool:
        """Whether the steps of a whole block are written out one after the other."""
        return len(self.model.coefficients) * self.model.width <= UNROLLED

    # ---- a step ----

    @property
    def opening(self) -> list[str]:
        """Lines that every function starts with: parameters and constants."""
        lines = ["path = U64(path0 + U64(i))", "low, high = U32(path), U32(path >> U64(32))", f"self = {self.view}"]
        at = self.size
        for position, coefficient in enumerate(self.model.coefficients):
            for number, _ in enumerate(self.model.constants_of(coefficient)):
                lines.append(f"k{position}_{number} = q[{at}]")
                at += 1
        return lines

    def _tuple(self, values: list[str]) -> str:
        return values[0] if self.model.scalar else "(" + ", ".join(values) + ",)"

    def _now(self, at: float) -> str:
        return f"{self.T}(t0 + (s + {at}) * dt)"

    def _evaluate(self, position: int, point: list[str], at: float, out: str) -> tuple[list[str], list[list[str]]]:
        """Lines that evaluate a coefficient, and its values: for each component one, or one for each Wiener process."""
        model, coefficient = self.model, self.model.coefficients[position]
        columns = model.wieners if model.general and coefficient.name == "diffusion" else 1
        if coefficient.function is None:
            names = [f"k{position}_{i}" for i in range(model.width * columns)]
            return [], [names[j * columns : (j + 1) * columns] for j in range(model.width)]
        now = self._now(at) if coefficient.uses_time else f"{self.T}(0.0)"
        if coefficient.entries == "point":
            d = model.width
            lines = [f"point[{j}, 0] = {value}" for j, value in enumerate([*point, now])]
            lines.append(f"_f{position}(self, point[:{d}], point[{d}], point[{d + 1}:])")
            values = [[f"{out}_{j}"] for j in range(d)]
            return lines + [f"{out}_{j} = point[{d + 1 + j}, 0]" for j in range(d)], values
        lines = [f"{out} = _f{position}(self, {self._tuple(point)}, {now})"]
        if coefficient.entries == "rows":
            entries = [[f"{out}[{j}][{k}]" for k in range(columns)] for j in range(model.width)]
        else:
            entries = [[f"{out}[{j}]" if coefficient.entries == "tuple" else out] for j in range(model.width)]
        values = []
        for j, row in enumerate(entries):
            values.append([f"{out}_{j}_{k}" for k in range(len(row))])
            lines += [f"{name} = {self.T}({entry})" for name, entry in zip(values[-1], row, strict=True)]
        return lines, values

    def step(self) -> list[str]:
        """Lines that take the state over step ``s``, given the increments w0, w1, … (and e0, … for ∫ (W_s − W) ds)."""
        model = self.model
        lines: list[str] = []
        drifts: list[list[list[str]]] = []
        noises: list[list[list[str]]] = []
        point, position = self.state, 0
        every = stages(model.scheme, model.general)
        fan = model.scheme.fan if model.general else None
        for number, stage in enumerate(every):
            for name in (*stage.drifts, *stage.noises):
                more, values = self._evaluate(position, point, stage.at, f"c{position}")
                lines += more
                (noises if name in stage.noises else drifts).append(values)
                position += 1
            if stage.move is None:
                continue
            self.names[f"_move{number}"] = stage.move
            target = [f"y{number}_{j}" for j in range(model.width)]
            for j, to in enumerate(target):
                f_at = "".join(f"{values[j][0]}, " for values in drifts)
                lines.append(f"{to} = _move{number}(v{j}, {f_at}h)")
                if stage.kick is None:
                    continue
                self.names[f"_kick{number}"] = stage.kick
                for k in range(model.wieners) if model.general else [j]:
                    g_at = "".join(f"{values[j][k if model.general else 0]}, " for values in noises)
                    draws = f"w{k}, e{k}" if model.scheme.space_time else f"w{k}"
                    lines.append(f"{to} = _kick{number}({to}, {g_at}{draws}, h, root)")
            point = target
        if fan is not None and model.coefficients[self._diffusion].function is not None:
            lines += self._fan(fan, noises[0], point)
        return lines + self._watched(point) + self._taken(point)

    def _watched(self, point: list[str]) -> list[str]:
        """Lines that look for a first passage in the step from the state to ``point``."""
        model, watch = self.model, self.model.watch
        if watch is None:
            return []
        if watch.inside is not None:
            finite = " and ".join(f"math.isfinite({name})" for name in point)
            return [
                f"if label == 0 and {finite} and not _inside({self._tuple(point)}):",
                "    label, when, fraction = 1, s, 1.0",
            ]
        lines, g = self._evaluate(len(model.coefficients) - 1, self.state, 0.0, "g")
        j = 0 if model.scalar else watch.component
        lines.append("variance = 0.0")
        for value in g[j]:
            lines += [f"noise = np.float64({value})", "variance += noise * noise * dt"]
        lines += [
            f"spot = _spot_of(s, np.int64({watch.component}), path, seed)",
            f"before, behind = np.float64(v{j}), np.float64({point[j]})",
            "label, fraction = _passage(before, behind, variance, lower, upper, bridge != 0, spot, stack)",
            "when = s",
        ]
        mine = f" and component == U32({watch.component})" if model.scalar else ""
        return [f"if label == 0{mine}:", *nested(*lines)]

    @property
    def _diffusion(self) -> int:
        return [c.name for c in self.model.coefficients].index("diffusion")

    def _fan(self, fan: Any, g: list[list[str]], y: list[str]) -> list[str]:
        model, m, lines = self.model, self.model.wieners, []
        self.names["_spread"] = fan.spread
        for k in range(m):
            moved = []
            for number, function in enumerate(fan.supports):
                self.names[f"_support{number}"] = function
                point = [f"u{j}" for j in range(model.width)]
                lines += [f"u{j} = _support{number}(v{j}, {g[j][k]}, h, root)" for j in range(model.width)]
                more, values = self._evaluate(self._diffusion, point, 0.0, f"b{number}")
                lines += more
                moved.append(values)
            for other in range(m):
                first, second = min(k, other), max(k, other)
                c = first * m - first * (first + 1) // 2 + second - first - 1
                i_kl = f"{self.T}(0.5) * (w{k} * w{other}{' - h' if k == other else ''})"
                if k != other and fan.iterated != "commutative":
                    i_kl += f" {'+' if k < other else '-'} a{c}"
                lines.append(f"i_kl = {i_kl}")
                for j in range(model.width):
                    ends = "".join(f"{values[j][other]}, " for values in moved)
                    lines.append(f"{y[j]} = _spread({y[j]}, {ends}{g[j][other]}, w{other}, i_kl, h, root)")
        return lines

    def _taken(self, point: list[str]) -> list[str]:
        """The new state takes the place of the old one; where paths freeze, only while it is finite."""
        lines = [f"v{j} = {name}" for j, name in enumerate(point)]
        if not self.model.freeze:
            return lines
        finite = " and ".join(f"math.isfinite({name})" for name in point)
        return [f"dead = dead or not ({finite})", "if not dead:", *nested(*lines)]

    # ---- increments ----

    def _blocks_of(self, purpose: int, name: str) -> list[str]:
        """Lines that draw the normals of block ``c0`` for every Wiener process: name0_0, name0_1, …"""
        lines = []
        for k in range(self.model.wieners):
            c1 = "component" if self.model.scalar else f"U32({k})"
            if purpose:
                c1 = f"U32(U32({purpose << 24}) | {c1})"
            targets = ", ".join(f"{name}{k}_{r}" for r in range(self.S))
            lines.append(f"{targets} = _normals(c0, {c1}, low, high, keys)")
        return lines

    def _draw(self) -> list[str]:
        if self.model.scheme.noise == ("none",):
            return []
        lines = self._blocks_of(stream.WIENER, "z")
        return lines + (self._blocks_of(stream.SPACE_TIME, "x") if self.model.scheme.space_time else [])

    def _increments(self, slot: int | None) -> list[str]:
        """Lines that make increments from the draws of slot r, or of the number in ``r``."""
        if self.model.scheme.noise == ("none",):
            return [f"w{k} = {self.T}(0.0)" for k in range(self.model.wieners)]
        lines = []
        for k in range(self.model.wieners):
            lines.append(f"w{k} = root * {self._slot(f'z{k}', slot)}")
            if self.model.scheme.space_time:
                lines.append(f"e{k} = h * ({self.T}(0.5) * w{k} + twelfth * {self._slot(f'x{k}', slot)})")
        return lines

    def _slot(self, name: str, slot: int | None) -> str:
        if slot is not None:
            return f"{name}_{slot}"
        text = f"{name}_{self.S - 1}"
        for r in reversed(range(self.S - 1)):
            text = f"({name}_{r} if r == {r} else {text})"
        return text

    def _areas(self) -> list[str]:
        """Lines for V_kl = ±dt of weak schemes with general noise, halved: a0, a1, … by random bits."""
        fan = self.model.scheme.fan if self.model.general else None
        if fan is None or fan.iterated != "two_point":
            return []
        self.names["_words"] = bits.word_of_step
        m = self.model.wieners
        return [
            f"a{c} = _sign(_words(s, U32({stream.LEVY_AREA << 24} + {c}), low, high, keys), s % 32, {self.T}(0.5) * h)"
            for c in range(m * (m - 1) // 2)
        ]

    # ---- functions ----

    @property
    def given(self) -> str:
        """The arguments of the functions behind the state."""
        names = ["component"] if self.model.scalar else []
        names += ["path0", "i", *self.arguments]
        return ", ".join(names)

    @property
    def arguments(self) -> list[str]:
        """Those that are the same for all threads."""
        names = ["q", "keys", "h", "root"]
        names += ["root3"] if self.model.scheme.increment == "three_point" else []
        names += ["twelfth"] if self.model.scheme.space_time else []
        names += ["t0"] if self.model.uses_time else []
        names += ["point"] if self.model.by_points else []
        levels = self.model.watch is not None and self.model.watch.inside is None
        names += ["dt"] if self.model.uses_time or levels else []
        return names + (["lower", "upper", "bridge", "seed", "stack"] if levels else [])

    @property
    def carried(self) -> str:
        """What a function takes and gives back: the state, and whether it is frozen."""
        return ", ".join([*self.state, *self.flags])

    @property
    def flags(self) -> list[str]:
        """What a thread carries along with the state."""
        passing = ["label", "when", "fraction"] if self.model.watch is not None else []
        return [*passing, *(["dead"] if self.model.freeze else [])]

    def source(self) -> str:
        """The text of ``advance(state…, given…, s0, n)``, and of ``advance_bits(…, taken)`` for law-only schemes."""
        step = self.step()
        text = _PART.format(
            carried=self.carried, given=self.given, opening=indented(self.opening, 4), draw=indented(self._draw(), 4),
            S=self.S, areas=indented(self._areas(), 8), increments=indented(self._increments(None), 8),
            step=indented(step, 8),
        )  # fmt: skip
        if self.unrolled:
            block = [*self._draw()]
            needs_s = self.model.uses_time or self._areas() or self.model.watch is not None
            for r in range(self.S):
                block += [f"s = first + b * {self.S} + {r}"] if needs_s else []
                block += [*self._areas(), *self._increments(r), *step]
            text += _UNROLLED.format(
                carried=self.carried, given=self.given, opening=indented(self.opening, 4), S=self.S,
                block=indented(block, 8),
            )  # fmt: skip
        text += (_ADVANCE_UNROLLED if self.unrolled else _ADVANCE).format(
            carried=self.carried, given=self.given, S=self.S
        )
        if self.model.scheme.law_only:
            text += self._bit_source(step)
        return text

    def _bit_source(self, step: list[str]) -> str:
        two = self.model.scheme.increment == "two_point"
        draw, pick, take, start = [], [], [], []
        for k in range(self.model.wieners):
            c1 = "component" if self.model.scalar else f"U32({k})"
            targets = ", ".join(f"p{k}_{i}" for i in range(4))
            draw.append(f"{targets} = _philox(c0, U32(U32({stream.BITS << 24}) | {c1}), low, high, keys)")
            if two:
                word = f"p{k}_0 if part == 0 else (p{k}_1 if part == 1 else (p{k}_2 if part == 2 else p{k}_3))"
                pick.append(f"word{k} = {word}")
                take.append(f"w{k} = _sign(word{k}, s % 32, root)")
            else:
                pick.append(f"high{k}, low{k} = (p{k}_0, p{k}_1) if part == 0 else (p{k}_2, p{k}_3)")
                start.append(f"number, high{k}, low{k} = _digit(high{k}, low{k})")
                take += [start[-1], f"w{k} = _of_digit(number, root3)"]
        self.names["_philox"] = philox32
        skip = ["for _ in range(taken):", *nested(*start), "taken = 0"] if start else []
        per_block = bits.SIGNS if two else bits.DIGITS
        return _BITS.format(
            carried=self.carried, given=self.given, opening=indented(self.opening, 4), B=per_block,
            P=32 if two else 12, draw=indented(draw, 8), pick=indented([*pick, *skip], 12),
            areas=indented(self._areas(), 16), take=indented(take, 16), step=indented(step, 16),
        )  # fmt: skip


_PART = """\
@njit(error_model="numpy", cache=CACHE)
def part({carried}, {given}, block, lo, hi):
{opening}
    c0 = U32(block)
{draw}
    for r in range(lo, hi):
        s = block * {S} + r
{areas}
{increments}
{step}
    return {carried}

"""

_UNROLLED = """\
@njit(error_model="numpy", cache=CACHE)
def whole({carried}, {given}, first, start, n):
{opening}
    for b in range(n):
        c0 = U32(start + U32(b))
{block}
    return {carried}

"""

# n is bounded by the caller, so that the count of whole blocks is an int32
_ADVANCE_UNROLLED = """\
@njit(error_model="numpy", cache=CACHE)
def advance({carried}, {given}, s0, n):
    end = s0 + n
    head = min((-s0) % {S}, n)
    if head > 0:
        {carried} = part({carried}, {given}, s0 // {S}, s0 % {S}, s0 % {S} + head)
    s = s0 + head
    blocks = (end - s) // {S}
    if blocks > 0:
        {carried} = whole({carried}, {given}, s, U32(s // {S}), np.int32(blocks))
    s += blocks * {S}
    if s < end:
        {carried} = part({carried}, {given}, s // {S}, 0, end - s)
    return {carried}

"""

_ADVANCE = """\
@njit(error_model="numpy", cache=CACHE)
def advance({carried}, {given}, s0, n):
    end = s0 + n
    for block in range(s0 // {S}, (end + {S} - 1) // {S}):
        lo, hi = max(s0 - block * {S}, 0), min(end - block * {S}, {S})
        {carried} = part({carried}, {given}, block, lo, hi)
    return {carried}

"""

_BITS = """\
@njit(error_model="numpy", cache=CACHE)
def advance_bits({carried}, {given}, s0, n, taken):
{opening}
    end = s0 + n
    for block in range(s0 // {B}, (end + {B} - 1) // {B}):
        c0 = U32(block)
{draw}
        lo, hi = max(s0 - block * {B}, 0), min(end - block * {B}, {B})
        for part in range(lo // {P}, (hi + {P} - 1) // {P}):
{pick}
            for r in range(max(lo, part * {P}), min(hi, part * {P} + {P})):
                s = block * {B} + r
{areas}
{take}
{step}
    return {carried}

"""
