"""Cells from data: k-means, then the leading directions of each cell.

The residual variance of a cell is what its total variance leaves over its d − q other directions, which makes the fit
that of maximum likelihood for the given cells (Tipping & Bishop 1999, eq. 8).
"""

from typing import Any

import numpy as np

from ..core import blas, blocks, checks, stream

_CHUNK = 4096  # points whose distances are worked out at once
_SEEDING = 20  # points a cell that the first centres are chosen from


def fitted(
    data: Any, n_cells: Any, rank: Any, *, labels: Any, seed: Any, n_iterations: Any, max_points: Any, floor: Any,
    progress: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """(weights, means, directions, variances, residual) of the cells of ``data``."""
    x = checked_points(data)
    n, d = x.shape
    rank = checks.integer("rank", rank, minimum=1)
    if rank > d:
        raise ValueError(f"rank must be <= {d}, the dimension of the data, got {rank}")
    least, most = 2 * rank, checks.integer("max_points", max_points, minimum=2)
    n_iterations = checks.integer("n_iterations", n_iterations, minimum=1)
    floor = checks.real("floor", floor, above=0.0)
    seed = checks.seed(seed)
    if n < least:
        raise ValueError(f"{n} points do not make a cell of rank {rank}: at least {least} are needed")
    if labels is None:
        count = checks.integer("n_cells", n_cells, minimum=1)
        labels = _k_means(x, min(count, n // least), least, seed, n_iterations, progress)
    else:
        labels = _given(labels, n, least)
    names, members = np.unique(labels, return_counts=True)
    bar = blocks.progress_bar(progress, len(names), " cells")
    spread = float(np.var(x, axis=0, dtype=np.float64).mean())
    if not spread > 0.0:
        raise ValueError(f"data is constant: all {n} points are the same; give points that differ")
    with blas.single_threaded():
        cells = []
        for name in names:
            cells.append(_cell(x[labels == name], rank, most, floor * spread))
            bar.update(1)
    bar.close()
    means, directions, variances, residual = (np.stack(part) for part in zip(*cells, strict=True))
    return members / n, means, directions, variances, residual


def checked_points(data: Any) -> np.ndarray:
    """Points (n, d) in float32 or float64, finite."""
    x = np.asarray(data)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"data must hold real numbers, got dtype {x.dtype}")
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"data has shape {x.shape}, expected (n, d)")
    x = np.ascontiguousarray(x, dtype=np.float32 if x.dtype == np.float32 else np.float64)
    if not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(f"data must be finite, got {x[row, column]} at row {row}, column {column}")
    return x


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, the eigenvectors of the covariance (columns) and its eigenvalues, the largest first."""
    mean, d = x.mean(axis=0, dtype=np.float64), x.shape[1]
    total = np.zeros((d, d))
    with blas.single_threaded():
        for lo in range(0, len(x), _CHUNK):
            away = x[lo : lo + _CHUNK] - mean.astype(x.dtype)
            total += away.T @ away
    values, vectors = np.linalg.eigh(total / len(x))
    return mean, np.ascontiguousarray(vectors[:, ::-1]), np.maximum(values[::-1], 0.0)


def _given(labels: Any, n: int, least: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be {n} integers, got {labels.dtype} of shape {labels.shape}")
    names, members = np.unique(labels, return_counts=True)
    if members.min() < least:
        few = int(names[members.argmin()])
        raise ValueError(
            f"label {few} has {members.min()} points, fewer than the {least} that a cell needs; lower the rank"
        )
    return labels


def _k_means(x: np.ndarray, k: int, least: int, seed: int, n_iterations: int, progress: Any) -> np.ndarray:
    """The cell of every point: centres after Arthur & Vassilvitskii 2007, steps of Lloyd 1982.

    Cells of fewer than ``least`` points are dissolved at the end.
    """
    centre = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
    bar = blocks.progress_bar(progress, n_iterations, " steps")
    with blas.single_threaded():
        centres = _first(x, k, seed)
        labels = np.full(len(x), -1)
        for _ in range(n_iterations):
            before, labels = labels, _nearest(x, centres, centre)
            bar.update(1)
            if (labels == before).all():
                break
            sums, members = _sums(x, labels, len(centres))
            kept = members > 0
            centres = (sums[kept] / members[kept, None]).astype(x.dtype)
        labels = _nearest(x, centres, centre)
        while True:
            members = np.bincount(labels, minlength=len(centres))
            if len(centres) == 1 or members.min() >= least:
                break
            centres = np.delete(centres, members.argmin(), axis=0)
            labels = _nearest(x, centres, centre)
    bar.close()
    return labels


def _first(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k points of the data, each with a chance in proportion to its squared distance from those before."""
    n = len(x)
    u = stream.uniforms(seed, stream.INITIAL, min(n, _SEEDING * k) + k, 1)[:, 0, 0]
    # a random part of the data, in the order of the data: every point once
    pool = x[np.unique((u[k:] * n).astype(np.intp))].astype(np.float64)
    squares = (pool**2).sum(axis=1)
    distance = np.full(len(pool), np.inf)
    chosen = [int(u[0] * len(pool))]
    for share in u[1:k]:
        new = pool[chosen[-1]]
        distance = np.minimum(distance, np.maximum(squares - 2.0 * pool @ new + new @ new, 0.0))
        distance[chosen[-1]] = 0.0
        total = np.cumsum(distance)
        if not total[-1] > 0.0:  # fewer different points than cells
            break
        chosen.append(min(int(np.searchsorted(total, share * total[-1], side="right")), len(pool) - 1))
    return pool[chosen].astype(x.dtype)


def _nearest(x: np.ndarray, centres: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The nearest centre of every point, by |x|² − 2 x·c + |c|² about an origin amid the data."""
    away = centres - origin
    half = 0.5 * (away**2).sum(axis=1)
    found = np.empty(len(x), np.intp)
    for lo in range(0, len(x), _CHUNK):
        found[lo : lo + _CHUNK] = ((x[lo : lo + _CHUNK] - origin) @ away.T - half).argmax(axis=1)
    return found


def _sums(x: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the number of the points of every cell."""
    from scipy.sparse import csr_array

    table = csr_array((np.ones(len(x), x.dtype), (labels, np.arange(len(x)))), shape=(k, len(x)))
    return table @ x, np.bincount(labels, minlength=k)


def _cell(x: np.ndarray, rank: int, most: int, floor: float) -> tuple[Any, ...]:
    """Mean, directions, variances and residual variance of the points of one cell."""
    from scipy.linalg import eigh, qr

    mean = x.mean(axis=0, dtype=np.float64)
    some = x[np.linspace(0, len(x) - 1, min(len(x), most)).astype(np.intp)]  # spread over the order of the data
    away = (some - some.mean(axis=0, dtype=np.float64)).astype(x.dtype)
    n, d = away.shape
    top = [min(n, d) - rank, min(n, d) - 1]
    total = float((away.astype(np.float64) ** 2).sum()) / n
    if n < d:  # the Gram matrix has the same eigenvalues
        values, vectors = eigh((away @ away.T).astype(np.float64), subset_by_index=top)
        directions = vectors.T @ away
    else:
        values, vectors = eigh((away.T @ away).astype(np.float64), subset_by_index=top)
        directions = vectors.T
    variances = np.maximum(values[::-1] / n, 0.0)
    # orthonormal to rounding, also where a cell is flatter than its rank
    turned, size = qr(directions[::-1].T.astype(np.float64), mode="economic")
    directions = (turned * np.where(np.diag(size) < 0.0, -1.0, 1.0)).T
    rest = (total - variances.sum()) / (d - rank) if d > rank else floor
    return mean, directions, np.maximum(variances, floor), max(rest, floor)
