"""Matrix products on one thread of the linear algebra library.

BLAS libraries start threads of their own inside a product. Those threads fight with ours, end every product with a
spinning barrier, and may change the order of a sum with their number. Inside :func:`single_threaded` the library works
on one thread, and parallelism is ours: over rows, over blocks of paths, over columns of a gradient.
"""

import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np


class _Libraries:
    """The libraries of this process, and who has them on one thread.

    Most have one number of threads for the whole process: the first thread to come sets it, the last to leave gives it
    back. Those on OpenMP have a number for each thread that calls them, which each thread sets for itself.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.own = threading.local()
        self.found: list[Any] = []
        self.with_scipy: bool | None = None
        self.shared: list[tuple[Any, int]] = []  # what the number was of each library

    def enter(self) -> None:
        depth = getattr(self.own, "depth", 0)
        with self.lock:
            if self.inside == 0:
                self._look()
                self.shared = [(library, _swap(library, 1)) for library in self.found if not _has_own(library)]
            self.inside += 1
        if depth == 0:
            self.own.before = [(library, _swap(library, 1)) for library in self.found if _has_own(library)]
        self.own.depth = depth + 1

    def leave(self) -> None:
        self.own.depth -= 1
        if self.own.depth == 0:
            _give_back(self.own.before)
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                _give_back(self.shared)

    def _look(self) -> None:
        """Find the libraries; SciPy brings one of its own when its linear algebra is imported."""
        with_scipy = "scipy.linalg" in sys.modules
        if with_scipy != self.with_scipy:
            import threadpoolctl

            self.found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            self.with_scipy = with_scipy


def _has_own(library: Any) -> bool:
    """Whether every thread has a number of its own."""
    return library.internal_api == "openblas" and getattr(library, "threading_layer", "") == "openmp"


def _swap(library: Any, n: int) -> int:
    """Set the number of threads of a library, whichever thread asks; what it was."""
    # threadpoolctl 3.8 listens to the thread that asked first, and to no other until that one lets go
    release = getattr(library, "clear_controlling_thread", None)
    before: int = library.get_num_threads()
    if release is not None:
        release(force=True)
    library.set_num_threads(n)
    if release is not None:
        release(force=True)
    return before


def _give_back(numbers: list[tuple[Any, int]]) -> None:
    for library, before in numbers:
        _swap(library, before)


_libraries = _Libraries()


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """BLAS on one thread; may be entered by many threads at once and inside itself."""
    _libraries.enter()
    try:
        yield
    finally:
        _libraries.leave()


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
