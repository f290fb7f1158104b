"""Samples counted into the cells of a grid, in chunks that stay in cache."""

import numpy as np

from ..core.cache import kernel

_CHUNK = 1 << 18


def count(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (n_cells + 2,): below, in [e_k, e_k+1) (the last cell closed, as in np.histogram), above."""
    counts = np.zeros(edges.size + 1, np.int64)
    for start in range(0, x.size, _CHUNK):
        # one type for the kernel, whatever the stride and the dtype; a chunk stays in cache
        chunk = np.array(x[start : start + _CHUNK], dtype=np.float64)
        if not _count_chunk(chunk, edges, counts):
            refuse_nonfinite(x)
    return counts


def count_points(x: np.ndarray, axes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, int]:
    """Counts of the points x (n, d) in the boxes of a grid, and how many lie outside it."""
    shape = tuple(edges.size - 1 for edges in axes)
    counts = np.zeros(int(np.prod(shape)) + 1, np.int64)
    sizes = np.array(shape)
    joined = np.concatenate(axes)
    for start in range(0, len(x), _CHUNK):
        chunk = np.array(x[start : start + _CHUNK], dtype=np.float64, order="C")
        if not _count_points_chunk(chunk, joined, sizes, counts):
            refuse_nonfinite(x)
    return counts[:-1].reshape(shape), int(counts[-1])


def refuse_nonfinite(x: np.ndarray) -> None:
    """Raise where a sample, or a component of one, is not finite."""
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        place = first[0] if len(first) == 1 else first
        raise ValueError(
            f"samples must be finite, got {x[first]} at index {place} ({len(bad)} non-finite in all); "
            "count absorbed paths with absorbed="
        )


@kernel
def cell_of(value, edges, scale):
    """The cell that a value lies in, -1 below the first edge, the number of cells above the last."""
    n = edges.size - 1
    if value < edges[0]:
        return -1
    if value > edges[n]:
        return n
    # a guess that is right for equal cells up to rounding, then the edges themselves decide
    k = min(int((value - edges[0]) * scale), n - 1)
    if value >= edges[k] and (k == n - 1 or value < edges[k + 1]):
        return k
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        if value >= edges[middle]:
            low = middle
        else:
            high = middle
    return low


@kernel
def _count_chunk(x, edges, counts):
    scale = (edges.size - 1) / (edges[-1] - edges[0])
    for value in x:
        if not np.isfinite(value):
            return False
        counts[cell_of(value, edges, scale) + 1] += 1
    return True


@kernel
def _count_points_chunk(x, edges, sizes, counts):
    outside = counts.size - 1
    for i in range(len(x)):
        at, first, inside = 0, 0, True
        for k in range(x.shape[1]):
            value = x[i, k]
            if not np.isfinite(value):
                return False
            n = sizes[k]
            axis = edges[first : first + n + 1]
            cell = cell_of(value, axis, n / (axis[n] - axis[0]))
            inside = inside and 0 <= cell < n
            at = at * n + cell
            first += n + 1
        counts[at if inside else outside] += 1
    return True
