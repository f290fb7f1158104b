"""The side of the law: a solved density as the probabilities of its cells, or a distribution function."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..core import checks

MASS_TOLERANCE = 1e-6


class Law(NamedTuple):
    """The probabilities ``q`` of the boxes between the edges ``axes``; ``lost``: they sum to less than 1."""

    axes: tuple[np.ndarray, ...]
    q: np.ndarray
    time: float | None
    lost: bool

    def below(self, edges: np.ndarray) -> np.ndarray:
        """F at edges that are edges of a grid of one dimension, up to rounding."""
        probability = np.concatenate([[0.0], np.cumsum(self.q)])
        if not self.lost:
            probability /= probability[-1]
        return probability[nearest(self.axes[0], edges)]

    def marginal(self, component: int) -> "Law":
        others = tuple(k for k in range(len(self.axes)) if k != component)
        return Law((self.axes[component],), self.q.sum(axis=others), self.time, self.lost)


def law_of(rho: Any, time: int) -> Law:
    """The law of a density at one of its times; raises where it is no density."""
    grid = getattr(rho, "grid", None)
    if grid is None or not hasattr(rho, "final"):
        raise TypeError(
            f"rho must be a density with .grid and .final, or a distribution function cdf(x), got {type(rho).__name__}"
        )
    flat = isinstance(grid.edges, np.ndarray) and grid.edges.ndim == 1
    axes = tuple(checks.array("rho.grid.edges", edges) for edges in ([grid.edges] if flat else grid.edges))
    t = getattr(rho, "t", None)
    n_times = 1 if t is None else np.size(t)
    if not -n_times <= time < n_times:
        raise ValueError(f"time must be an index into the {n_times} saved times of rho, got {time}")
    p = checks.array("rho", rho.final if time in (-1, n_times - 1) else rho.p[time])
    shape = tuple(e.size - 1 for e in axes)
    if p.shape != shape:
        raise ValueError(f"rho has shape {p.shape}, its grid has {shape} cells")
    q = p
    for k, e in enumerate(axes):
        q = q * np.diff(e).reshape([-1 if j == k else 1 for j in range(len(axes))])
    mass = q.sum()
    if q.min() < -MASS_TOLERANCE:
        cell = np.unravel_index(int(q.argmin()), shape)
        place = int(cell[0]) if len(cell) == 1 else tuple(map(int, cell))
        raise ValueError(f"rho must be >= 0, cell {place} holds the probability {q.min():.3g}")
    if not 0 < mass <= 1 + MASS_TOLERANCE:
        raise ValueError(f"rho must hold a probability <= 1, got mass {mass:.6g}; divide it by its mass")
    q = np.maximum(q, 0.0)
    lost = bool(mass < 1 - MASS_TOLERANCE)
    q *= (mass if lost else 1.0) / q.sum()
    return Law(axes, q, None if t is None else float(np.ravel(t)[time]), lost)


def distribution_function(cdf: Any, edges: np.ndarray) -> np.ndarray:
    """cdf at the edges, checked."""
    value = checks.array("cdf(x)", cdf(edges))
    if value.shape != edges.shape:
        raise ValueError(f"cdf(x) must return the shape of x, {edges.shape}, got {value.shape}")
    if value.min() < -1e-12 or value.max() > 1 + 1e-12 or np.diff(value).min() < -1e-12:
        raise ValueError(f"cdf(x) must increase from 0 to 1, got values from {value.min():.3g} to {value.max():.3g}")
    return np.clip(value, 0.0, 1.0)


def nearest(edges: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The index of the edge nearest to each x."""
    right = np.clip(np.searchsorted(edges, x), 1, edges.size - 1)
    return np.where(x - edges[right - 1] < edges[right] - x, right - 1, right)


def shared(edges: np.ndarray, grid: np.ndarray, fewest: int) -> np.ndarray:
    """Which edges of a histogram are edges of the grid: cells between them need not be divided."""
    slack = 1e-9 * (grid[-1] - grid[0])
    found = np.flatnonzero(np.abs(grid[nearest(grid, edges)] - edges) <= slack)
    if found.size < min(fewest, edges.size, grid.size):
        raise ValueError(
            f"the histogram must share edges with the grid, {found.size} of its {edges.size} do; "
            f"give it the range ({grid[0]:g}, {grid[-1]:g}) and a divisor of {grid.size - 1} cells"
        )
    return found


def summed(values: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """Sums of the cells between the edges with these indices, along each axis."""
    for k, index in enumerate(axes):
        inside = values[(slice(None),) * k + (slice(0, int(index[-1])),)]
        values = np.add.reduceat(inside, index[:-1], axis=k)
    return values


def occupied(q: np.ndarray) -> float:
    """How many cells a density fills, by its perplexity exp(−Σ q log q)."""
    share = q[q > 0] / q.sum() if q.sum() > 0 else np.ones(1)
    return math.exp(-float(share @ np.log(share)))
