"""Densities to start from, as cell averages, and the passage between grids of different fineness."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks
from .grid import Grid, coordinates

# Standard deviation, in cells, below which the cell averages of a Gaussian do not hold its mean.
NARROW = 0.42


def point_mass(grid: Grid, x: Any, *, order: int = 2) -> np.ndarray:
    """Cell averages of the unit mass at x, as near to it as cells allow.

    The mass is shared among neighbouring cells so that total mass and mean are exact for every x, on or off a
    cell centre. A density that fills a single cell lacks the variance h²/12 that cell averages of a resolved
    density have over and above its own (Sheppard 1898), so

        order 2:  three cells, with the least variance >= h²/12 that needs no negative weight: s the distance of x
                  from the nearest centre in cell widths, v = max(1/12, |s|(1 − |s|)), weights (v + s² ± s)/2 on the
                  neighbours where cells are equal;
        order 4:  the cubic B-spline on four cells, whose first three central moments do not depend on where
                  x lies between the centres: what Richardson extrapolation needs for fourth order. Where cells are
                  unequal it is one along their map, and the mean is right to O(h²).

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
        weights.append(_shared(axis, xi, order) / axis.spacing)
    return functools.reduce(np.multiply.outer, weights)


def gaussian(grid: Grid, mean: Any, std: Any) -> np.ndarray:
    """Exact cell averages of a normal density with independent axes: differences of Φ((e − mean)/std) / h.

    Not renormalised: what the density has outside the box is missing from the sum.

    Arguments: numbers in one dimension; sequences of ``grid.dim`` numbers (or one number for all axes) in
    more. Warns where std is so small against the cells there that the mean moves by more than a hundredth of a cell.
    """
    means, stds = coordinates("mean", mean, grid.dim), coordinates("std", std, grid.dim, above=0.0)
    factors = []
    for m, s, axis in zip(means, stds, grid.axes, strict=True):
        _warn_if_narrow(axis, m, s)
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


def _warn_if_narrow(axis: Grid, mean: float, std: float) -> None:
    """Cell averages of a Gaussian shift its mean by up to (h/π) exp(−2π² std²/h²): h/100 at std = 0.42 h."""
    if not axis.lower <= mean <= axis.upper:
        return
    i = min(max(int(np.searchsorted(axis.edges, mean)) - 1, 0), axis.n_cells - 1)
    h = float(axis.widths[0][i])
    if std < NARROW * h:
        warnings.warn(
            f"std = {std:g} is narrower than the cells of {h:g} at {mean:g} can tell: the mean moves with them below "
            f"{NARROW:g} cells. Take about {math.ceil(axis.n_cells * 0.5 * h / std)} cells, Grid.graded, or point_mass",
            UserWarning,
            stacklevel=3,
        )


def _position(axis: Grid, x: float) -> float:
    """Where x lies along the map of the cells: 0 in the middle of the first, n − 1 in that of the last."""
    if axis.uniform:
        return float((x - axis.lower) * (axis.n_cells / (axis.upper - axis.lower)) - 0.5)
    from scipy.interpolate import CubicSpline

    return float(CubicSpline(axis.edges, np.arange(axis.n_cells + 1) - 0.5)(x))


def _shared(axis: Grid, x: float, order: int) -> np.ndarray:
    """Probabilities of the n cells of one axis for a unit mass at x."""
    n, centers = axis.n_cells, axis.centers
    out = np.zeros(n)
    if order == 4:
        position = _position(axis, x)
        i = round(position)
        if 2 <= i <= n - 3:
            for j in range(-2, 3):
                r = abs(i + j - position)
                out[i + j] = 2.0 / 3.0 - r * r + 0.5 * r**3 if r < 1.0 else max(2.0 - r, 0.0) ** 3 / 6.0
            return out
    above = int(np.searchsorted(centers, x))  # the first centre at x or beyond
    if above == 0 or above == n:
        out[min(above, n - 1)] = 1.0
        return out
    i = above if x - centers[above - 1] > centers[above] - x else above - 1
    if i in (0, n - 1):
        share = float((x - centers[above - 1]) / (centers[above] - centers[above - 1]))
        out[above - 1], out[above] = 1.0 - share, share
        return out
    below, here, after = (float(centers[j]) - x for j in (i - 1, i, i + 1))
    v = max(float(axis.widths[0][i]) ** 2 / 12.0, -here * after, -below * here)
    out[i - 1] = (v + here * after) / ((below - here) * (below - after))
    out[i] = (v + below * after) / ((here - below) * (here - after))
    out[i + 1] = (v + below * here) / ((after - below) * (after - here))
    # a weight that v makes 0 leaves a rounding error below it
    return np.maximum(out, 0.0)
