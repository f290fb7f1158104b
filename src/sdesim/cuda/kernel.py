"""The kernel of an ensemble: a thread a path, a block of threads a leaf of 256, the time loop inside.

The states stand in ``x`` (d, columns), column i the path path0 + i; a thread has its own in registers between two
recorded times (``steps``). The body is index arithmetic: in the simulator it runs in Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core import cache
from ..errors import CompileError
from ..integrate.step_text import indented
from . import backend
from .model import Model
from .reductions import Taken
from .steps import Text

REGISTERS = 64

_KERNEL = """\
import math

import numpy as np
from numba import njit

U32, U64 = np.uint32, np.uint64

{functions}
@cuda.jit{options}
def run(x, x0, many, first, last, path0, {arguments}, segments, saved, times, report{more}):
    lane = cuda.threadIdx.x
    i = cuda.blockIdx.x * {threads} + lane
    inside = first <= i and i < last
    dead = False
    label, when, fraction = 0, 0, 0.0
{setup}
    if inside:
        for j in range(x.shape[0]):
            x[j, i] = x0[(i - first) * many, j]
{opening}
    for g in range(segments.shape[0]):
        s0, n, kind, taken, record = segments[g, 0], segments[g, 1], segments[g, 2], segments[g, 3], segments[g, 4]
        if inside and n > 0:
{advance}
        if record >= 0:
{record}
    if inside:
        bad = dead
        for j in range(x.shape[0]):
            bad = bad or not math.isfinite(x[j, i])
        if bad:
            cuda.atomic.add(report, 0, 1)
            cuda.atomic.min(report, 1, i - first)
{closing}
"""

_SAVE = """\
if inside and saved.shape[0] > 0:
    for j in range(x.shape[0]):
        saved[record, j, i] = x[j, i]
"""


@dataclass(frozen=True)
class Kernel:
    """A module with the kernel ``run``, and the names of the arguments it takes between ``path0`` and ``segments``."""

    module: Any
    arguments: tuple[str, ...]
    contract: bool
    text: str

    def __call__(self, blocks: int, *arguments: Any) -> None:
        """Launch it, compiled at its first call."""
        try:
            with backend.compiling(contract=self.contract):
                self.module.run[blocks, backend.THREADS](*arguments)
        except Exception as error:
            if not backend.is_refusal(error):
                raise
            raise CompileError(
                "a formula compiles for the CPU, and not for the GPU: numba-cuda knows fewer functions; it says: "
                f"{backend.first_line(error)}; use device='cpu'"
            ) from error
        if backend.simulated:
            cache.keep(self.module)  # the functions, compiled for the CPU


def kernel(model: Model, takes: Sequence[Taken] = ()) -> Kernel:
    """The kernel of a process, a scheme and reductions; the same formulas give the same kernel."""
    text = Text(model)
    functions = text.source()
    names = {**text.names, "cuda": backend.cuda}
    for one in takes:
        names |= one.names
    arrays = any(isinstance(spec, tuple) for _, spec in model.layout[1])
    if arrays and backend.simulated:
        names["_plain"] = backend.plain
    arguments = [name for name in text.arguments if name not in ("stack", "point")]  # a thread's own
    setup = f"point = cuda.local.array(({2 * model.width + 1}, 1), {text.T})\n" if model.by_points else ""
    given = ["_plain(q)" if name == "q" and "_plain" in names else name for name in text.arguments]

    def joined(lines: str, spaces: int) -> str:
        return indented("".join(getattr(one, lines) for one in takes), spaces)

    source = _KERNEL.format(
        functions=functions, options=_options(text), arguments=", ".join(arguments),
        more="".join(f", {name}" for one in takes for name in one.arguments), threads=backend.THREADS,
        setup=indented(setup, 4) + joined("setup", 4), opening=joined("opening", 8),
        advance=indented(_advance(text, given), 12),
        record=indented(_SAVE, 12) + "\n" + joined("record", 12), closing=joined("closing", 4),
    )  # fmt: skip
    module = cache.load(source, names)
    return Kernel(module, tuple(arguments), model.fast, source)


def _options(text: Text) -> str:
    """Registers are the limit of how many threads run at once, and an unrolled float32 loop needs few of them.

    A loop with a score in it keeps the score's parameters in registers, and needs what it needs.
    """
    few = text.unrolled and text.T == "np.float32" and not text.model.by_points
    return "" if backend.simulated or not few else f"(max_registers={REGISTERS})"


def _advance(text: Text, given: list[str]) -> str:
    """The lines that take a thread's state over one segment."""
    model = text.model
    lines = ["for j in range(x.shape[0]):" if model.scalar else "if True:"]
    state = ["x[j, i]"] if model.scalar else [f"x[{j}, i]" for j in range(model.d)]
    behind = (["U32(j)"] if model.scalar else []) + ["path0", "i", *given, "s0", "n"]
    target = ", ".join([*state, *text.flags])

    def call(name: str, *more: str) -> str:
        return f"{target} = {name}({', '.join([*state, *text.flags, *behind, *more])})"

    if not model.scheme.law_only:
        return "\n".join([*lines, "    " + call("advance")])
    return "\n".join(
        [*lines, "    if kind == 0:", "        " + call("advance"), "    else:",
         "        " + call("advance_bits", "taken")]
    )  # fmt: skip
