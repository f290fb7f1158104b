"""Where a density lives: a box cut into cells, equal or graded.

A density on a grid is an array of **cell averages**: p[i] times the volume of cell i is the probability of that
cell, so that the sum over the cells is 1 exactly where the density integrates to 1. Cell averages differ from values
at the centres by h² p''/24; comparing one with the other mixes in an error of that size.

Unequal cells follow a smooth map x(ξ) of equal ones, ξ counting cells: methods of second order in equal cells keep
their order there, because neighbours differ in width by O(h²) only (Hyman, Li, Knupp & Shashkov 2000). Edges that
jump in width give first order at the jump.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import checks

MAX_DIM = 3
MIN_CELLS = 3
# Neighbouring cells wider by this factor than each other are no smooth map any more.
ROUGH = 1.5


@dataclasses.dataclass(frozen=True)
class Grid:
    """A box [lower, upper] in one to three dimensions, each axis cut into ``n_cells`` cells.

    Arguments are numbers for one dimension, sequences of equal length for more; a single ``n_cells`` serves
    all axes. ``Grid(...)`` makes equal cells; ``Grid.from_edges`` and ``Grid.graded`` make unequal ones.

    Attributes
    ----------
    dim : int
        Number of axes.
    shape : tuple of int
        Cells along each axis: the shape of a density.
    centers, edges : array, or a tuple of ``dim`` arrays
        Cell centres (n,) and cell edges (n + 1,) along each axis; plain arrays in one dimension.
    spacing : float or array, or a tuple of ``dim`` of these
        The cell widths h: a number along an axis of equal cells, an array (n,) along others.
    cell_volume : float or array
        The product of the cell widths: a number where all cells are equal, an array of the grid's shape otherwise.
    uniform : bool
        Whether all cells are equal.

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
    # Edges of the axes with unequal cells, None for the others; set by the constructors below.
    _unequal: tuple[tuple[float, ...] | None, ...] = dataclasses.field(default=(), repr=False)

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

    @classmethod
    def from_edges(cls, *edges: Any) -> "Grid":
        """The grid with these cell edges, one increasing sequence (n + 1,) for each axis.

        Neighbouring widths should differ little: the order of the solver falls to one where they jump.

        Raises ValueError for edges that do not increase, and for neighbours that differ by more than a factor 1.5.
        """
        if not 1 <= len(edges) <= MAX_DIM:
            raise ValueError(f"a grid has 1 to {MAX_DIM} dimensions, got {len(edges)} arrays of edges")
        arrays = [checks.array("edges", e) for e in edges]
        for array in arrays:
            _check_edges(array)
        unequal = tuple(None if _equal_widths(a) else tuple(map(float, a)) for a in arrays)
        bounds = [(float(a[0]), float(a[-1]), len(a) - 1) for a in arrays]
        lower, upper, cells = (_unwrap(tuple(values)) for values in zip(*bounds, strict=True))
        return cls(lower, upper, cells, unequal if any(unequal) else ())

    @classmethod
    def graded(cls, lower: Any, upper: Any, n_cells: Any, *, near: Any, width: Any, finest: float = 0.1) -> "Grid":
        """A grid whose cells are ``finest`` times as wide near some points as far from them.

        The widths follow h(x) ∝ 1/(1 + (1/finest − 1) b), b = 1 − Π (1 − exp(−((x − c)/width)²/2)) over the points c
        of ``near``: walls that absorb, wells, a sharp start. One axis; combine several with ``Grid.product``.

        ``near``: a number or a sequence of them; ``width``: how far from them the cells stay fine.
        """
        points = np.atleast_1d(checks.array("near", near))
        width, finest = checks.real("width", width, above=0.0), checks.real("finest", finest, above=0.0)
        if finest > 1.0:
            raise ValueError(f"finest must be <= 1, the finest width over the widest, got {finest:g}")

        def cells_per_length(x: np.ndarray) -> np.ndarray:
            away = 1.0 - np.exp(-0.5 * ((x[:, None] - points) / width) ** 2)
            return np.asarray(1.0 + (1.0 / finest - 1.0) * (1.0 - away.prod(axis=1)))

        return cls.equidistributed(lower, upper, n_cells, cells_per_length)

    @classmethod
    def equidistributed(cls, lower: float, upper: float, n_cells: int, density: Callable[..., Any]) -> "Grid":
        """One axis whose cells all hold the same integral of ``density(x)`` > 0, the wanted cells per length.

        De Boor 1973's equidistribution; the integral is that of the monotone cubics through 16 points a cell.

        Raises ValueError where the density is not > 0, and where neighbouring cells would differ by more than a factor
        1.5.
        """
        even = cls(lower, upper, n_cells)
        if even.dim != 1:
            raise ValueError("equidistributed makes one axis; combine several with Grid.product")
        x = np.linspace(even.lower, even.upper, 16 * even.n_cells + 1)
        values = checks.array("density(x)", density(x))
        if values.shape != x.shape or not (values > 0.0).all():
            raise ValueError("density(x) must return a number > 0 for each x: the wanted cells per length")
        from scipy.interpolate import PchipInterpolator

        total = PchipInterpolator(x, values).antiderivative()(x)
        edges = PchipInterpolator(total, x)(np.linspace(0.0, total[-1], even.n_cells + 1))
        edges[0], edges[-1] = even.lower, even.upper
        return cls.from_edges(edges)

    @classmethod
    def product(cls, *axes: "Grid") -> "Grid":
        """The grid in several dimensions whose axes are one-dimensional grids."""
        return cls.from_edges(*(axis.edges for axis in axes))

    @property
    def dim(self) -> int:
        return len(self.lower) if isinstance(self.lower, tuple) else 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.n_cells if isinstance(self.n_cells, tuple) else (self.n_cells,)

    @property
    def uniform(self) -> bool:
        return not self._unequal

    @functools.cached_property
    def spacing(self) -> Any:
        even = ((b - a) / n for a, b, n in self._axes())
        widths = tuple(h if e is None else _held(np.diff(e)) for h, e in zip(even, self._edge_lists, strict=True))
        return widths[0] if self.dim == 1 else widths

    @functools.cached_property
    def widths(self) -> tuple[np.ndarray, ...]:
        """The cell widths along each axis as arrays (n,), a tuple also in one dimension."""
        spacing = (self.spacing,) if self.dim == 1 else self.spacing
        return tuple(_held(np.broadcast_to(h, n).astype(float)) for h, n in zip(spacing, self.shape, strict=True))

    @functools.cached_property
    def edges(self) -> Any:
        lists = zip(self._axes(), self._edge_lists, strict=True)
        return _unwrap(tuple(_held(np.linspace(a, b, n + 1) if e is None else np.array(e)) for (a, b, n), e in lists))

    @functools.cached_property
    def centers(self) -> Any:
        found = []
        for (a, b, n), edges in zip(self._axes(), self._edge_lists, strict=True):
            if edges is None:
                found.append(_held(a + (np.arange(n) + 0.5) * ((b - a) / n)))
            else:
                e = np.array(edges)
                found.append(_held(0.5 * (e[1:] + e[:-1])))
        return _unwrap(tuple(found))

    @functools.cached_property
    def cell_volume(self) -> Any:
        if self.uniform:
            return float(np.prod(self.spacing))
        return _held(functools.reduce(np.multiply.outer, self.widths))

    @functools.cached_property
    def axes(self) -> "tuple[Grid, ...]":
        """The axes as one-dimensional grids."""
        if self.dim == 1:
            return (self,)
        return tuple(
            Grid(a, b, n, () if e is None else (e,))
            for (a, b, n), e in zip(self._axes(), self._edge_lists, strict=True)
        )

    def refined(self, factor: int) -> "Grid":
        """The same box with each cell cut into ``factor`` cells along each axis.

        Unequal cells are cut along a cubic spline through their edges, so that the finer grid belongs to the same
        smooth map.
        """
        if self.uniform:
            return dataclasses.replace(self, n_cells=_unwrap(tuple(factor * n for n in self.shape)))
        return Grid.from_edges(*(_finer(np.asarray(axis.edges), factor, axis.uniform) for axis in self.axes))

    @property
    def _edge_lists(self) -> tuple[tuple[float, ...] | None, ...]:
        return self._unequal or (None,) * self.dim

    def _axes(self) -> list[tuple[float, float, int]]:
        lower = self.lower if self.dim > 1 else (self.lower,)
        upper = self.upper if self.dim > 1 else (self.upper,)
        return list(zip(lower, upper, self.shape, strict=True))


def coordinates(name: str, value: Any, dim: int, above: float | None = None) -> tuple[float, ...]:
    """A point of a grid as ``dim`` numbers; one number serves all axes."""
    values = tuple(checks.real(name, v, above=above) for v in _per_axis(value, dim))
    if len(values) != dim:
        raise ValueError(f"{name} has {len(values)} numbers, the grid has {dim} dimensions")
    return values


def _finer(edges: np.ndarray, factor: int, even: bool) -> np.ndarray:
    n = len(edges) - 1
    if even:
        return np.linspace(edges[0], edges[-1], factor * n + 1)
    from scipy.interpolate import CubicSpline

    found = np.asarray(CubicSpline(np.arange(n + 1), edges)(np.arange(factor * n + 1) / factor))
    found[::factor] = edges
    return found


def _check_edges(edges: np.ndarray) -> None:
    if edges.ndim != 1 or len(edges) <= MIN_CELLS:
        raise ValueError(f"edges must be one sequence of at least {MIN_CELLS + 1} numbers, got shape {edges.shape}")
    widths = np.diff(edges)
    if not (widths > 0.0).all():
        i = int(np.argmin(widths > 0.0))
        raise ValueError(f"edges must increase; index {i + 1}: {edges[i + 1]:g} after {edges[i]:g}")
    ratio = np.maximum(widths[1:] / widths[:-1], widths[:-1] / widths[1:])
    if ratio.max() > ROUGH:
        i = int(np.argmax(ratio))
        raise ValueError(
            f"neighbouring cells differ too much: widths {widths[i]:.3g} and {widths[i + 1]:.3g} at {edges[i + 1]:g} "
            f"(at most a factor {ROUGH:g}); grade the cells more slowly, or take more of them"
        )


def _equal_widths(edges: np.ndarray) -> bool:
    n = len(edges) - 1
    even = np.linspace(edges[0], edges[-1], n + 1)
    rounding = max(4.0 * float(np.spacing(np.abs(edges).max())), 1e-12 * float(edges[-1] - edges[0]) / n)
    return bool(np.abs(edges - even).max() <= rounding)


def _held(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and np.ndim(value) > 0


def _per_axis(value: Any, dim: int) -> tuple[Any, ...]:
    return tuple(value) if _is_sequence(value) else (value,) * dim


def _unwrap(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values
