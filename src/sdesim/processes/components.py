"""A state as an array of rows: what a score takes, (n, d), from what a process takes.

A process of dimension d >= 2 sees a tuple of d components; a learned score sees one array of points.
``joined`` and ``split`` go from one to the other and back, ``call_score`` makes sure that what comes back is
what was asked for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Shape = tuple[str, tuple[int, ...]]


def joined(x: Any, dim: int | None) -> tuple[np.ndarray, Shape]:
    """``x`` as rows (n, d), and what :func:`split` needs to undo it.

    A tuple is d components; an array is one number a point where ``dim`` is 1, or where it has fewer than two
    axes, and otherwise points of shape (..., d).
    """
    if isinstance(x, tuple):
        parts = np.broadcast_arrays(*x)
        rows = np.stack([np.asarray(part, dtype=_float(part)).reshape(-1) for part in parts], axis=1)
        return rows, ("tuple", parts[0].shape)
    x = np.asarray(x)
    x = x.astype(_float(x), copy=False)
    if dim == 1 or x.ndim <= 1:
        return x.reshape(-1, 1), ("array", x.shape)
    return x.reshape(-1, x.shape[-1]), ("array", x.shape)


def split(rows: np.ndarray, shape: Shape) -> Any:
    """Rows (n, d) in the structure they came from."""
    kind, points = shape
    if kind == "tuple":
        return tuple(rows[:, j].reshape(points)[()] for j in range(rows.shape[1]))
    return rows.reshape(points)[()]


def rows_of_time(t: Any, shape: Shape, n: int) -> Any:
    """A time as a number, or as one for every row."""
    t = np.asarray(t, dtype=np.float64)
    if t.ndim == 0:
        return float(t)
    kind, points = shape
    if kind == "tuple" or n == int(np.prod(points)):
        return np.broadcast_to(t, points).reshape(-1)
    return np.broadcast_to(t.reshape(t.shape[:-1]) if t.ndim == len(points) else t, points[:-1]).reshape(-1)


def call_score(
    score: Callable[..., Any], x: np.ndarray, t: Any, *, rows: Sequence[int] | None = None, name: str = "score"
) -> np.ndarray:
    """score(x, t) at rows (n, d), checked: the shape of x, and finite wherever x is.

    Messages call it ``name``, and a row by its number in ``rows``.
    """
    value = np.asarray(score(x, t))
    if value.shape != x.shape:
        raise ValueError(
            f"{name} returned shape {value.shape}, expected {x.shape}: a row of {x.shape[1]} numbers a point"
        )
    if value.dtype.kind not in "fiu":
        raise TypeError(f"{name} must return real numbers, got dtype {value.dtype}")
    finite = np.isfinite(value)
    if not finite.all():
        bad = ~finite.all(axis=1) & np.isfinite(x).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            at = t if np.ndim(t) == 0 else np.asarray(t)[row]
            number_of = range(len(x)) if rows is None else rows
            number = value[row][~finite[row]][0]
            raise ValueError(f"{name} returned {number} at row {number_of[row]}, x = {x[row].tolist()[:4]}, t = {at}")
    return value


def _float(x: Any) -> Any:
    dtype = np.asarray(x).dtype
    return dtype if dtype in (np.dtype(np.float32), np.dtype(np.float64)) else np.float64
