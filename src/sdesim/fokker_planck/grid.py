"""Where a density lives: a box cut into equal cells, and densities to start from.

A density on a grid is an array of **cell averages**: p[i] · h is the probability of cell i, so that the array
sums to 1 over the cell volume exactly where the density integrates to 1. Cell averages differ from values at
the centres by h² p''/24; comparing one with the other mixes in an error of that size.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import checks

MAX_DIM = 3
MIN_CELLS = 3


@dataclasses.dataclass(frozen=True)
class Grid:
    """A box [lower, upper] in one to three dimensions, each axis cut into ``n_cells`` equal cells.

    Arguments are numbers for one dimension, sequences of equal length for more; a single ``n_cells`` serves
    all axes.

    Attributes
    ----------
    dim : int
        Number of axes.
    shape : tuple of int
        Cells along each axis: the shape of a density.
    centers, edges : array, or a tuple of ``dim`` arrays
        Cell centres (n,) and cell edges (n + 1,) along each axis; plain arrays in one dimension.
    spacing : float, or a tuple of ``dim`` floats
        The cell widths h.
    cell_volume : float
        The product of the cell widths.

    Raises
    ------
    ValueError
        If lower >= upper on an axis, or an axis has fewer than three cells.
    TypeError
        If a bound is not a real number or a number of cells is not an integer.
    """

    lower: Any
    upper: Any
    n_cells: Any

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.lower, self.upper, self.n_cells) if _is_sequence(v)}
        if len(lengths) > 1:
            raise ValueError(f"lower, upper and n_cells must have one length, got lengths {sorted(lengths)}")
        dim = lengths.pop() if lengths else 1
        if not 1 <= dim <= MAX_DIM:
            raise ValueError(f"a grid has 1 to {MAX_DIM} dimensions, got {dim}")
        lower = tuple(checks.real("lower", v) for v in _per_axis(self.lower, dim))
        upper = tuple(checks.real("upper", v) for v in _per_axis(self.upper, dim))
        cells = tuple(checks.integer("n_cells", v) for v in _per_axis(self.n_cells, dim))
        for a, b, n in zip(lower, upper, cells, strict=True):
            if not a < b:
                raise ValueError(f"lower ({a:g}) must be < upper ({b:g})")
            if n < MIN_CELLS:
                raise ValueError(f"n_cells must be >= {MIN_CELLS}, got {n}: a grid needs at least {MIN_CELLS} cells")
            if not (b - a) / n > 4 * np.spacing(max(abs(a), abs(b))):
                raise ValueError(f"{n} cells between {a!r} and {b!r} are narrower than the rounding of the bounds")
        one = dim == 1
        object.__setattr__(self, "lower", lower[0] if one else lower)
        object.__setattr__(self, "upper", upper[0] if one else upper)
        object.__setattr__(self, "n_cells", cells[0] if one else cells)

    @property
    def dim(self) -> int:
        return len(self.lower) if isinstance(self.lower, tuple) else 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.n_cells if isinstance(self.n_cells, tuple) else (self.n_cells,)

    @functools.cached_property
    def spacing(self) -> Any:
        widths = tuple((b - a) / n for a, b, n in self._axes())
        return widths[0] if self.dim == 1 else widths

    @functools.cached_property
    def edges(self) -> Any:
        return self._of_axes(lambda a, b, n: np.linspace(a, b, n + 1))

    @functools.cached_property
    def centers(self) -> Any:
        return self._of_axes(lambda a, b, n: a + (np.arange(n) + 0.5) * ((b - a) / n))

    @functools.cached_property
    def cell_volume(self) -> float:
        return float(np.prod(self.spacing))

    def refined(self, factor: int) -> "Grid":
        """The same box with each cell cut into ``factor`` cells along each axis."""
        return dataclasses.replace(self, n_cells=_unwrap(tuple(factor * n for n in self.shape)))

    def _axes(self) -> list[tuple[float, float, int]]:
        lower = self.lower if self.dim > 1 else (self.lower,)
        upper = self.upper if self.dim > 1 else (self.upper,)
        return list(zip(lower, upper, self.shape, strict=True))

    def _of_axes(self, build: Callable[[float, float, int], np.ndarray]) -> Any:
        arrays = tuple(build(*axis) for axis in self._axes())
        for array in arrays:
            array.setflags(write=False)
        return _unwrap(arrays)


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

    Arguments: ``x`` a number (one dimension) or a sequence of ``grid.dim`` numbers. Nearer to a wall than
    half a cell the mean cannot be right without negative weights, and the mass goes to the outermost cell.

    Raises ValueError if x lies outside the grid.
    """
    if order not in (2, 4):
        raise ValueError(f"order must be 2 or 4, got {order!r}")
    point = _coordinates("x", x, grid.dim)
    weights = []
    for xi, (a, b, n) in zip(point, grid._axes(), strict=True):
        if not a <= xi <= b:
            raise ValueError(f"x = {xi:g} is outside the grid [{a:g}, {b:g}]")
        weights.append(_shared(xi, a, b, n, order) * (n / (b - a)))
    return functools.reduce(np.multiply.outer, weights)


def gaussian(grid: Grid, mean: Any, std: Any) -> np.ndarray:
    """Exact cell averages of a normal density with independent axes: differences of Φ((e − mean)/std) / h.

    Not renormalised: what the density has outside the box is missing from the sum.

    Arguments: numbers in one dimension; sequences of ``grid.dim`` numbers (or one number for all axes) in
    more.
    """
    means, stds = _coordinates("mean", mean, grid.dim), _coordinates("std", std, grid.dim, above=0.0)
    factors = []
    for m, s, (a, b, n) in zip(means, stds, grid._axes(), strict=True):
        z = (np.linspace(a, b, n + 1) - m) / s
        # Each tail is computed from its own end: 1 - Φ would lose the small values of the upper one.
        tail = np.array([0.5 * math.erfc(abs(v) / math.sqrt(2.0)) for v in z])
        below, above = np.where(z < 0, tail, 1.0 - tail), np.where(z > 0, tail, 1.0 - tail)
        cells = np.where(z[:-1] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
        factors.append(cells * (n / (b - a)))
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
    for k, (a, b, n) in enumerate(grid._axes()):
        h = (b - a) / n
        axis = (a + (np.arange(n)[:, None] + 0.5 + 0.5 * nodes) * h).ravel()
        points.append(axis.reshape([-1 if j == k else 1 for j in range(dim)]))
    full = tuple(len(nodes) * n for n in grid.shape)
    values = np.broadcast_to(checks.array("density(x)", density(*points)), full)
    for k, n in enumerate(grid.shape):
        split = (*values.shape[:k], n, len(nodes), *values.shape[k + 1 :])
        values = np.tensordot(values.reshape(split), 0.5 * weights, axes=(k + 1, 0))
    return np.ascontiguousarray(values)


def refine(p: np.ndarray, *, periodic: bool = False) -> tuple[np.ndarray, float]:
    """Cell averages on cells of half the width from those of a 1-D grid, conservative, no new negatives.

    Each cell's average is split by the fourth-degree polynomial through the averages of five cells; the split
    is limited so that neither half is negative, which only acts where the density is not resolved. Returns
    the averages, and the share of the mass that the limit has touched.
    """
    q = np.pad(p, 2, mode="wrap" if periodic else "edge")
    tilt = (22.0 * (q[3:-1] - q[1:-3]) - 3.0 * (q[4:] - q[:-4])) / 128.0
    limited = np.clip(tilt, -np.abs(p), np.abs(p))
    touched = float(np.abs(tilt - limited).sum() / np.abs(p).sum())
    return np.stack([p - limited, p + limited], axis=1).reshape(2 * len(p)), touched


def coarsen(p: np.ndarray) -> np.ndarray:
    """Averages over pairs of cells along the last axis."""
    return 0.5 * (p[..., 0::2] + p[..., 1::2])


def _shared(x: float, a: float, b: float, n: int, order: int) -> np.ndarray:
    """Probabilities of the n cells of one axis for a unit mass at x."""
    position = (x - a) * (n / (b - a)) - 0.5
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


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and np.ndim(value) > 0


def _per_axis(value: Any, dim: int) -> tuple[Any, ...]:
    return tuple(value) if _is_sequence(value) else (value,) * dim


def _coordinates(name: str, value: Any, dim: int, above: float | None = None) -> tuple[float, ...]:
    values = tuple(checks.real(name, v, above=above) for v in _per_axis(value, dim))
    if len(values) != dim:
        raise ValueError(f"{name} has {len(values)} numbers, the grid has {dim} dimensions")
    return values


def _unwrap(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values
