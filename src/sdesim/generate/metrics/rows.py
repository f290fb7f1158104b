"""Sets of points as rows, checked, and the distances between them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import blocks
from ...core.blocks import Block
from ...core.cache import kernel
from ...core.elementary import wide_vectors


def rows(name: str, value: Any, *, fewest: int = 2, short: bool = False) -> np.ndarray:
    """Points (n, d) as float64; (n,) is one dimension, and what has more axes than two is flattened.

    With ``short``, float32 stays what it is: pictures by the thousand are not copied.
    """
    x = np.asarray(getattr(value, "images", value))
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim == 0 or len(x) < fewest or x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected (n, d) with n >= {fewest}")
    kind = np.float32 if short and x.dtype == np.float32 else np.float64
    out = np.ascontiguousarray(x.reshape(len(x), -1), dtype=kind)
    finite = np.isfinite(out).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} must be finite; row {int(np.argmin(finite))} is not ({int((~finite).sum())} in all)")
    return out


def pair(
    x: Any, y: Any, names: tuple[str, str] = ("x", "y"), *, fewest: int = 2, short: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of points of one dimension."""
    first, second = (rows(name, z, fewest=fewest, short=short) for name, z in zip(names, (x, y), strict=True))
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[0]} has {first.shape[1]} numbers a row and {names[1]} has {second.shape[1]}; they must be as many"
        )
    return first, second


def by_blocks(
    task: Callable[..., Any], n: int, size: int, arguments: tuple[Any, ...], workers: int | None = None,
    progress: Any = False, unit: str = " points",
) -> list[Any]:  # fmt: skip
    """``task(block, *arguments)`` on several threads for blocks of at most ``size`` of 0 … n − 1, in order.

    Ctrl-C raises KeyboardInterrupt: part of a sum is no answer.
    """
    tasks = [Block(lo, min(size, n - lo), lo) for lo in range(0, n, size)]
    threads = blocks.check_executor(None, workers)
    parts, whole = blocks.run(task, tasks, arguments, workers=threads, progress=progress, unit=unit)
    if not whole:
        raise KeyboardInterrupt
    return parts


@kernel(fastmath=("contract",))
def distances(x, y, out):
    """|x_i − y_j| for rows x (n, d) and columns y (d, m), by differences: equal points have the distance 0."""
    wide_vectors()
    d, m = y.shape
    lanes = min(512, max(64, 131072 // d // 64 * 64))  # of y that stay in the second-level cache
    near = np.empty((d, lanes))
    for start in range(0, m, lanes):
        size = min(lanes, m - start)
        for k in range(d):
            near[k, :size] = y[k, start : start + size]
        for i in range(x.shape[0]):
            sums = out[i, start : start + size]
            sums[:] = 0.0
            for k in range(d):
                at, others = x[i, k], near[k, :size]
                for j in range(size):
                    off = others[j] - at
                    sums[j] += off * off
            for j in range(size):
                sums[j] = np.sqrt(sums[j])
