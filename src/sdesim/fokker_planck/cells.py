"""Densities to start from, as cell averages, and the passage between grids of different fineness."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks
from .grid import Grid, coordinates


def point_mass(grid: Grid, x: Any, *, order: int = 2) -> np.ndarray:
    """Cell averages of the unit mass at x, as near to it as cells allow.

    The mass is shared among neighbouring cells so that total mass and mean are exact for every x, on or off a
    cell centre. A density that fills a single cell lacks the variance h²/12 that cell averages of a resolved
    density have over and above its own (Sheppard 1898), so with s the distance of x from the nearest centre
    in cell widths,

        order 2:  weights (v + s² ± s)/2 on the two neighbours, v = max(1/12, |s|(1 − |s|)): the least
                  variance >= 1/12 that needs no negative weight;
        order 4:  the cubic B-spline on four cells, whose first three central moments do not depend on where
                  x lies between the centres: what Richardson extrapolation needs for fourth order.

    Where cells are unequal, s is counted along the map of the cells.

    Arguments: ``x`` a number (one dimension) or a sequence of ``grid.dim`` numbers. Nearer to a wall than
    half a cell the mean cannot be right without negative weights, and the mass goes to the outermost cell.

    Raises ValueError if x lies outside the grid.
    """
    if order not in (2, 4):
        raise ValueError(f"order must be 2 or 4, got {order!r}")
    point = coordinates("x", x, grid.dim)
    weights = []
    for xi, axis in zip(point, grid.axes, strict=True):
        if not axis.lower <= xi <= axis.upper:
            raise ValueError(f"x = {xi:g} is outside the grid [{axis.lower:g}, {axis.upper:g}]")
        weights.append(_shared(_position(axis, xi), axis.n_cells, order) / axis.spacing)
    return functools.reduce(np.multiply.outer, weights)


def gaussian(grid: Grid, mean: Any, std: Any) -> np.ndarray:
    """Exact cell averages of a normal density with independent axes: differences of Φ((e − mean)/std) / h.

    Not renormalised: what the density has outside the box is missing from the sum.

    Arguments: numbers in one dimension; sequences of ``grid.dim`` numbers (or one number for all axes) in
    more.
    """
    means, stds = coordinates("mean", mean, grid.dim), coordinates("std", std, grid.dim, above=0.0)
    factors = []
    for m, s, axis in zip(means, stds, grid.axes, strict=True):
        z = (axis.edges - m) / s
        # Each tail is computed from its own end: 1 - Φ would lose the small values of the upper one.
        tail = np.array([0.5 * math.erfc(abs(v) / math.sqrt(2.0)) for v in z])
        below, above = np.where(z < 0, tail, 1.0 - tail), np.where(z > 0, tail, 1.0 - tail)
        cells = np.where(z[:-1] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
        factors.append(cells / axis.spacing)
    return functools.reduce(np.multiply.outer, factors)


def cell_averages(grid: Grid, density: Callable[..., Any], *, n_points: int = 8) -> np.ndarray:
    """Cell averages of a function by Gauss-Legendre quadrature with ``n_points`` points a cell and axis.

    ``density(x)`` takes an array of coordinates (one dimension), or ``density(x, y[, z])`` one array an axis,
    which broadcast, and returns the values. Not renormalised.
    """
    checks.function("density", density, "density(x)")
    nodes, weights = np.polynomial.legendre.leggauss(checks.integer("n_points", n_points, minimum=1))
    dim = grid.dim
    points = []
    for k, axis in enumerate(grid.axes):
        h = np.broadcast_to(axis.spacing, axis.n_cells)[:, None]
        at = (axis.centers[:, None] + 0.5 * nodes * h).ravel()
        points.append(at.reshape([-1 if j == k else 1 for j in range(dim)]))
    full = tuple(len(nodes) * n for n in grid.shape)
    values = np.broadcast_to(checks.array("density(x)", density(*points)), full)
    for k, n in enumerate(grid.shape):
        split = (*values.shape[:k], n, len(nodes), *values.shape[k + 1 :])
        values = np.tensordot(values.reshape(split), 0.5 * weights, axes=(k + 1, 0))
    return np.ascontiguousarray(values)


def refine(m: np.ndarray, periodic: tuple[bool, ...]) -> tuple[np.ndarray, float]:
    """Probabilities of the halves of the cells, along every axis, from those of the cells; conservative.

    Each cell's mass is split by the fourth-degree polynomial through the masses of five cells; the split is limited
    so that neither half is negative, which only acts where the density is not resolved. Returns the masses, and the
    share of the mass that the limit has touched.
    """
    touched, total = 0.0, float(np.abs(m).sum())
    for axis, joined in enumerate(periodic):
        m = np.moveaxis(m, axis, -1)
        q = np.pad(m, [(0, 0)] * (m.ndim - 1) + [(2, 2)], mode="wrap" if joined else "edge")
        tilt = (22.0 * (q[..., 3:-1] - q[..., 1:-3]) - 3.0 * (q[..., 4:] - q[..., :-4])) / 128.0
        limited = np.clip(tilt, -np.abs(m), np.abs(m))
        touched += float(np.abs(tilt - limited).sum() / total)
        halves = np.stack([m - limited, m + limited], axis=-1).reshape(*m.shape[:-1], -1)
        m = np.moveaxis(0.5 * halves, -1, axis)
    return np.ascontiguousarray(m), touched


def coarsen(m: np.ndarray, dim: int) -> np.ndarray:
    """Probabilities of pairs of cells along each of the last ``dim`` axes."""
    for axis in range(-dim, 0):
        m = np.moveaxis(m, axis, -1)
        m = np.moveaxis(m[..., 0::2] + m[..., 1::2], -1, axis)
    return m


def _position(axis: Grid, x: float) -> float:
    """Where x lies among the centres, counted in cells: 0 at the first centre, n − 1 at the last."""
    if axis.uniform:
        return float((x - axis.lower) * (axis.n_cells / (axis.upper - axis.lower)) - 0.5)
    n, centers = axis.n_cells, axis.centers
    i = int(np.clip(np.searchsorted(centers, x) - 1, 0, n - 2))
    # between two centres linear, which is what keeps the mean of two weights exact
    return i + float((x - centers[i]) / (centers[i + 1] - centers[i]))


def _shared(position: float, n: int, order: int) -> np.ndarray:
    """Probabilities of the n cells of one axis for a unit mass at a position counted in cells."""
    i = min(max(round(position), 0), n - 1)
    s = position - i
    out = np.zeros(n)
    if position <= 0.0 or position >= n - 1:
        out[i] = 1.0
    elif order == 4 and 2 <= i <= n - 3:
        for j in range(-2, 3):
            r = abs(j - s)
            out[i + j] = 2.0 / 3.0 - r * r + 0.5 * r**3 if r < 1.0 else max(2.0 - r, 0.0) ** 3 / 6.0
    elif i in (0, n - 1):
        out[i], out[i + (1 if s > 0 else -1)] = 1.0 - abs(s), abs(s)
    else:
        v = max(1.0 / 12.0, abs(s) * (1.0 - abs(s)))
        out[i - 1], out[i], out[i + 1] = 0.5 * (v + s * s - s), 1.0 - v - s * s, 0.5 * (v + s * s + s)
    # |s| on the border of the two formulas leaves a rounding error below zero
    return np.maximum(out, 0.0)
