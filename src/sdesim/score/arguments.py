"""What networks are made of and asked with: widths of layers, points as rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import checks


def widths(hidden: Any) -> tuple[int, ...]:
    """The widths of the hidden layers, at least one."""
    if isinstance(hidden, int | str) or not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a sequence of widths such as (128, 128), got {hidden!r}")
    found = tuple(checks.integer(f"hidden[{i}]", width, minimum=1) for i, width in enumerate(hidden))
    if not found:
        raise ValueError("hidden must name >= 1 layer, got none")
    return found


def rows(x: Any, dim: int) -> tuple[np.ndarray, tuple[int, ...], np.dtype]:
    """Points as rows (n, dim), the shape they came in, and the type of the answer; dim 1 takes (n,) too."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"x must hold real numbers, got dtype {x.dtype}")
    kind = x.dtype if x.dtype in (np.dtype(np.float32), np.dtype(np.float64)) else np.dtype(np.float64)
    if x.ndim == 0 or (x.shape[-1] != dim and (dim != 1 or x.ndim != 1)):
        raise ValueError(f"x has shape {x.shape}, expected (n, {dim}): a row of {dim} numbers a point")
    return x.reshape(-1, dim), x.shape, kind
