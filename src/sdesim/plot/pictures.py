"""Sheets of pictures."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checks
from .canvas import drawn_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def images(
    x: Any, ax: "Axes | None" = None, *, shape: Any = None, columns: int | None = None, value_range: Any = None
) -> "Axes":
    """A sheet of pictures, row by row.

    Parameters
    ----------
    x : (n, height, width) or (n, height, width, 3), or (n, side²)
        Grey or colour pictures; flat square ones are unfolded.
    shape : (height, width) or (height, width, 3), optional
        Of one picture, for rows of any other shape.
    columns : int, optional
        Pictures in a row; by default about as many as rows.
    value_range : pair, optional
        Values shown as black and white; by default the smallest and the largest of all pictures.
    """
    x = checks.array("x", x)
    if shape is not None:
        sides = tuple(checks.integer(f"shape[{k}]", side, minimum=1) for k, side in enumerate(shape))
        if len(x) == 0 or x.size != len(x) * math.prod(sides):
            raise ValueError(f"x has shape {x.shape}, not of pictures of shape {sides}")
        x = x.reshape(len(x), *sides)
    elif x.ndim == 2:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(f"x has shape {x.shape}, not of square pictures; reshape to (n, height, width)")
        x = x.reshape(-1, side, side)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 3) or len(x) == 0:
        raise ValueError(f"x has shape {x.shape}, expected (n, height, width[, 3]) or (n, side²)")
    low, high = (x.min(), x.max()) if value_range is None else checks.array("value_range", value_range)
    x = np.clip((x - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    n = len(x)
    columns = math.ceil(math.sqrt(n)) if columns is None else checks.integer("columns", columns, minimum=1)
    rows = math.ceil(n / columns)
    height, width = x.shape[1:3]
    # one white line between pictures
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, *x.shape[3:]))
    for k, one in enumerate(x):
        i, j = divmod(k, columns)
        sheet[i * (height + 1) : i * (height + 1) + height, j * (width + 1) : j * (width + 1) + width] = one
    ax = drawn_on(ax, figsize=(4.8, max(1.0, 4.8 * sheet.shape[0] / sheet.shape[1])))
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    return ax
