"""A machine for PTX, the language that libNVVM writes: one thread, in exact arithmetic, a handful of instructions.

Registers hold bits. ``rsqrt.approx`` is the float32 nearest to 1/√x, which a device does not promise; everything else
is what the PTX manual defines.
"""

import operator
import re

import numpy as np
from numba import njit

from sdesim.core.elementary import fma

_fma = njit(lambda a, b, c: fma(a, b, c))
FLOATS = {"f32": (np.uint32, np.float32), "f64": (np.uint64, np.float64)}
COMPARED = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def width(kind):
    return int(re.search(r"\d+", kind).group())


def value(bits, kind):
    """Bits as a number of a PTX type."""
    if kind in FLOATS:
        word, number = FLOATS[kind]
        return np.array(bits, word).view(number)[()]
    size = width(kind)
    bits &= 2**size - 1
    return bits - 2**size if kind[0] == "s" and bits >> (size - 1) else bits


def bits_of(number, kind):
    """A number of a PTX type as bits."""
    if kind in FLOATS:
        word, real = FLOATS[kind]
        return int(np.array(number, real).view(word)[()])
    return int(number) & (2 ** width(kind) - 1)


class Machine:
    """The program of one kernel: ``run(parameters, size)`` gives what it stored."""

    def __init__(self, ptx):
        body = ptx[ptx.index("{", ptx.index(".entry")) :].split("\n")
        self.program, self.labels = [], {}
        for line in body[1:]:
            text = line.split("//")[0].strip().rstrip(";")
            if label := re.match(r"(\$\w+):", text):
                self.labels[label.group(1)] = len(self.program)
            elif text and not text.startswith((".", "}")):
                guard, rest = re.match(r"(?:@(!?%p\d+)\s+)?(.*)", text).groups()
                name, _, operands = rest.partition(" ")
                places = [o.strip() for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", operands)]
                self.program.append((guard, name.split("."), places))

    def read(self, place):
        if place[0] == "%":
            return self.registers[place]
        if place[:2] in ("0f", "0d"):
            return int(place[2:], 16)
        return int(place, 0)

    def run(self, parameters, size):
        self.registers, out, at = {}, {}, 0
        while True:
            guard, name, places = self.program[at]
            at += 1
            if guard and bool(self.read(guard.lstrip("!"))) == (guard[0] == "!"):
                continue
            if name[0] == "ret":
                return [out[i * size] for i in range(len(out))]
            if name[0] == "bra":
                at = self.labels[places[0]]
            elif name[0] == "ld":
                self.registers[places[0]] = parameters[int(re.search(r"_param_(\d+)\]", places[1]).group(1))]
            elif name[0] == "st":
                out[int(re.search(r"\+(\d+)|$", places[0]).group(1) or 0)] = self.read(places[1])
            elif name[0] != "cvta":
                self.step(name, places)

    def step(self, name, places):
        kind, target = name[-1], places[0]
        if name[0] == "mov" and target[0] == "{":
            half, word = width(kind) // 2, self.read(places[1])
            for i, part in enumerate(target.strip("{}").split(",")):
                self.registers[part.strip()] = word >> (i * half) & (2**half - 1)
            return
        if name[0] == "mov" and places[1][0] == "{":
            low, high = (self.read(part.strip()) for part in places[1].strip("{}").split(","))
            self.registers[target] = low | high << width(kind) // 2
            return
        given = [self.read(place) for place in places[1:]]
        if name[0] == "selp":
            self.registers[target] = given[0] if given[2] else given[1]
        elif name[0] == "setp":
            a, b = (value(bits, kind.replace("b", "u")) for bits in given)
            unordered = name[1] not in COMPARED
            nan = a != a or b != b
            self.registers[target] = int(nan if unordered and nan else COMPARED[name[1][:2]](a, b))
        elif name[0] == "cvt":
            to, source = name[-2], name[-1]
            self.registers[target] = bits_of(value(given[0], source), to)
        elif name[0] == "bfi":
            start, length = given[2:]
            mask = (2**length - 1) << start
            self.registers[target] = given[1] & ~mask | given[0] << start & mask
        elif name[:2] == ["mul", "wide"]:
            self.registers[target] = value(given[0], kind) * value(given[1], kind)
        elif name[0] == "rsqrt":
            self.registers[target] = bits_of(1.0 / np.sqrt(float(value(given[0], kind))), kind)
        else:
            self.registers[target] = self.arithmetic(name[0], kind, given)

    @staticmethod
    def arithmetic(name, kind, given):
        if kind not in FLOATS:
            a, b = given[0], given[1] if len(given) > 1 else 0
            done = {
                "mov": lambda: a, "xor": lambda: a ^ b, "and": lambda: a & b, "or": lambda: a | b, "not": lambda: ~a,
                "add": lambda: a + b, "sub": lambda: a - b, "shl": lambda: a << b, "shr": lambda: value(a, kind) >> b,
            }[name]()  # fmt: skip
            return done & (1 if kind == "pred" else 2 ** width(kind) - 1)
        with np.errstate(all="ignore"):
            a, b, c = [*(value(bits, kind) for bits in given), 0, 0][:3]
            done = {
                "mov": lambda: a, "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
                "div": lambda: a / b,
                "sqrt": lambda: np.sqrt(a), "abs": lambda: abs(a), "neg": lambda: -a, "max": lambda: max(a, b),
                "min": lambda: min(a, b), "fma": lambda: FLOATS[kind][1](_fma(a, b, c)),
            }[name]()  # fmt: skip
        return bits_of(done, kind)
