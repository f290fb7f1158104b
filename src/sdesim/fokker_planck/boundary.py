"""What happens at the walls of the grid.

``"reflecting"``  no probability passes: the current through the wall is zero, mass is kept.
``"absorbing"``   what reaches the wall is removed: p = 0 there, the current out is the first-passage density.
``"periodic"``    the two walls are one point of a circle.
``Robin(rate)``   partly reflecting: the current out is rate · p at the wall; 0 reflects, infinity absorbs.
``Inflow(flux)``  probability enters at ``flux`` per unit time (and, in several dimensions, per unit area of the wall).

One of these serves all walls; a pair ``(low, high)`` gives one for each end of an axis; a sequence with one of the
two for each axis tells them apart. Periodic walls only come together.
"""

import dataclasses
from typing import Any

from ..core import checks

KINDS = ("reflecting", "absorbing", "periodic")


@dataclasses.dataclass(frozen=True)
class Robin:
    """A partly reflecting wall: the current out of the box is J = rate · p at the wall, rate >= 0.

    Paths lose probability there in proportion to their local time L at the wall: they survive it with probability
    exp(−rate L / D). (Also: elastic or radiation boundary; Collins & Kimball 1949.)
    """

    rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", checks.real("rate", self.rate, minimum=0.0))


@dataclasses.dataclass(frozen=True)
class Inflow:
    """A wall through which probability enters, ``flux`` > 0 per unit time, and nothing leaves."""

    flux: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "flux", checks.real("flux", self.flux, minimum=0.0))


Wall = str | Robin | Inflow
Sides = tuple[Wall, Wall]


def walls(boundary: Any) -> Sides:
    """The pair (low, high) of walls that ``boundary`` stands for on one axis.

    Raises ValueError for an unknown name and for a periodic wall facing another kind.
    """
    if isinstance(boundary, tuple | list):
        if len(boundary) != 2:
            raise ValueError(f"boundary must be one name or a pair (low, high), got {len(boundary)} entries")
        low, high = (_wall(kind) for kind in boundary)
    else:
        low = high = _wall(boundary)
    if (low == "periodic") != (high == "periodic"):
        raise ValueError(f"boundary must be periodic at both walls or at neither, got ({low!r}, {high!r})")
    return low, high


def walls_of_axes(boundary: Any, dim: int) -> tuple[Sides, ...]:
    """The pair (low, high) of walls of each axis.

    A flat pair of names is (low, high) on every axis, unless exactly one of them is periodic, which only makes sense
    as one name for each of two axes.
    """
    if dim == 1:
        return (walls(boundary),)
    if not isinstance(boundary, tuple | list):
        return (walls(boundary),) * dim
    nested = any(isinstance(entry, tuple | list) for entry in boundary)
    mixed = [entry == "periodic" for entry in boundary].count(True) == 1
    if len(boundary) == 2 and not nested and not (dim == 2 and mixed):
        return (walls(boundary),) * dim
    if len(boundary) != dim:
        raise ValueError(f"boundary has {len(boundary)} entries, expected one for each of the {dim} axes")
    return tuple(walls(entry) for entry in boundary)


def _wall(kind: Any) -> Wall:
    return kind if isinstance(kind, Robin | Inflow) else checks.choice("boundary", kind, KINDS)
