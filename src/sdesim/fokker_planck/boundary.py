"""What happens at the walls of the grid.

``"reflecting"``  no probability passes: the current through the wall is zero, mass is kept.
``"absorbing"``   what reaches the wall is removed: p = 0 there, the current out is the first-passage density.
``"periodic"``    the two walls are one point of a circle.

One word serves both walls; a pair ``(low, high)`` gives one for each. Periodic walls only come together.
"""

from typing import Any

from ..core import checks

KINDS = ("reflecting", "absorbing", "periodic")


def walls(boundary: Any) -> tuple[str, str]:
    """The pair (low, high) of wall names that ``boundary`` stands for.

    Raises ValueError for an unknown name and for a periodic wall facing another kind.
    """
    if isinstance(boundary, tuple | list):
        if len(boundary) != 2:
            raise ValueError(f"boundary must be one name or a pair (low, high), got {len(boundary)} entries")
        low, high = (checks.choice("boundary", kind, KINDS) for kind in boundary)
    else:
        low = high = checks.choice("boundary", boundary, KINDS)
    if (low == "periodic") != (high == "periodic"):
        raise ValueError(f"boundary must be periodic at both walls or at neither, got ({low!r}, {high!r})")
    return low, high
