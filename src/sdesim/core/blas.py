"""Matrix products on one thread of the linear algebra library.

BLAS libraries start threads of their own inside a product. Those threads fight with ours, end every product with a
spinning barrier, and may change the order of a sum with their number. Inside :func:`single_threaded` the library works
on one thread, and parallelism is ours: over rows, over blocks of paths, over columns of a gradient.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

_lock = threading.Lock()
_state: dict[str, Any] = {"controller": None, "inside": 0, "limit": None}


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """BLAS on one thread; may be entered by many threads at once and inside itself.

    The number of BLAS threads belongs to the whole process: the first to enter sets it, the last to leave restores it.
    """
    with _lock:
        if _state["inside"] == 0:
            if _state["controller"] is None:
                import threadpoolctl

                _state["controller"] = threadpoolctl.ThreadpoolController().select(user_api="blas")
            _state["limit"] = _state["controller"].limit(limits=1)
        _state["inside"] += 1
    try:
        yield
    finally:
        with _lock:
            _state["inside"] -= 1
            if _state["inside"] == 0:
                _state["limit"].restore_original_limits()


def spans(length: int, most: int) -> list[tuple[int, int]]:
    """Nearly equal parts (lo, hi) of at most ``most`` rows or columns: how a product is cut into tasks."""
    count = -(-length // most)
    ends = [length * k // count for k in range(count + 1)]
    return list(itertools.pairwise(ends))


def staggered(weights: np.ndarray) -> np.ndarray:
    """The matrix, as a copy with gaps between its rows where these would start at the same places of the cache.

    A product packs the rows of its right factor before it works on them. Rows of 512 numbers or 1024 (multiples of 512
    bytes) meet in few sets of the first cache and push each other out, which costs 5 to 10 % of the product; one cache
    line of a gap mends it. It pays where the same weights are multiplied again and again.
    """
    length = weights.shape[1] * weights.itemsize
    if length < 1024 or length % 512:
        return weights
    gap = 64 // weights.itemsize
    copy = np.empty((weights.shape[0], weights.shape[1] + gap), weights.dtype)[:, :-gap]
    copy[:] = weights
    return copy
