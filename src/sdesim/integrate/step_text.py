"""The text of one step on a tile: buffers, evaluations and loops, gathered by whoever writes a scheme's step."""

from collections.abc import Callable
from typing import Any

RESERVED = 3  # rows of the scratch memory before the coefficients: the state, the point, the increments


class StepText:
    """Lines of the time loop of a tile engine.

    In the lines, ``x`` (d, 256) is the state, ``y`` a point, ``w`` (m, 256) the increments, ``h`` and ``root`` the step
    and its square root in the state's dtype, ``s`` the number of the step, ``t`` the 256 times.
    """

    def __init__(self, coefficients: list[str], scalar: str, lanes: int, general: bool) -> None:
        self.coefficients, self.general = coefficients, general
        self.T, self.L = scalar, lanes
        self.names: dict[str, Any] = {}
        self.lines: list[str] = []
        self.before: list[str] = []  # once, before the leaves
        self.leaf: list[str] = []  # once a leaf, when its states are loaded
        self._labels: list[str] = []

    def buffer(self, label: str) -> str:
        """Another (rows, 256) array of scratch memory under this name."""
        if label not in self._labels:
            self._labels.append(label)
        return label

    def coefficient(self, position: int) -> str:
        """The buffer that holds coefficient number ``position``."""
        return f"c{position}"

    @property
    def buffers(self) -> list[str]:
        """The lines that name the scratch memory."""
        names = [self.coefficient(i) for i in range(len(self.coefficients))] + self._labels
        return [f"{name} = scratch[{RESERVED + i}]" for i, name in enumerate(names)]

    def add(self, *lines: str) -> None:
        """Append lines to the step."""
        self.lines += lines

    def function(self, name: str, function: Callable[..., Any]) -> str:
        """Make a compiled function known to the text."""
        self.names[name] = function
        return name

    def at_time(self, at: float) -> None:
        """Set the times of the lanes to t + at·dt, where a coefficient reads them."""
        self.add(
            "if uses_time:",
            f"    now = {self.T}(t0 + (s + {at}) * dt)",
            f"    for i in range({self.L}):",
            "        t[i] = now",
        )

    def evaluate(self, position: int, point: str, out: str | None = None, rows: str = "d") -> str:
        """Evaluate a coefficient; one that reads neither the state nor the time stands in its buffer from the start."""
        held = out is None
        out = self.coefficient(position) if out is None else out
        call = f"_tile(tiles[{position}], {point}, t, p, {out}, {rows})"
        if held:
            self.add(f"if flags[{FLAGS + position}] == 0:", "    " + call)
        else:
            self.add(call)
        return out

    def loop(self, *body: str, rows: str = "d") -> None:
        """Lines for every row j and lane i."""
        self.add(f"for j in range({rows}):", f"    for i in range({self.L}):", *("        " + line for line in body))


# the words of an engine's flags before those of the coefficients: Wiener processes, whether a coefficient reads the
# time, whether the components of the drift depend on one another, random blocks of a Lévy area
FLAGS = 4


def nested(*lines: str) -> list[str]:
    """The lines one level deeper."""
    return ["    " + line for line in lines]


def indented(lines: list[str] | str, spaces: int) -> str:
    """The lines, moved to the right."""
    if isinstance(lines, str):
        lines = lines.splitlines()
    return "\n".join(" " * spaces + line for line in lines)
