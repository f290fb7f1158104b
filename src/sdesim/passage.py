"""How long until, and which first: mean first-passage times and committors of a process on a grid.

From a start x, T is the time to reach a target set, or to leave through a wall that absorbs. Its moments solve

    L τ_j = −j τ_(j−1),  τ_0 = 1,  τ_j = 0 on the target,        L = Σ_k μ_k ∂_k + Σ_kl D_kl ∂_k ∂_l,

and the committor, the probability to reach b before a, L q = 0 with q = 0 on a and q = 1 on b. The generator L of the
grid is the transpose of the Fokker-Planck operator, so these are the means over the very chain that the densities
follow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck.boundary import Robin, Sides, walls, walls_of_axes
from .fokker_planck.grid import Grid
from .grid_function import GridFunction
from .on_grid import check_process, coefficients, need_constant

Target = Callable[..., Any] | np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PassageTimes(GridFunction):
    """E[T] for every start, and the higher moments of T; see GridFunction for its use as an array and a function.

    Attributes
    ----------
    moments : (n, *grid.shape)
        E[T^j] for j = 1 … n.
    """

    moments: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))

    @property
    def mean(self) -> np.ndarray:
        """E[T] at the centres, shape ``grid.shape``."""
        return self.values

    @property
    def variance(self) -> np.ndarray:
        """Var[T] at the centres; needs ``moments=2``."""
        if len(self.moments) < 2:
            raise ValueError("the variance needs moments=2, got moments=1")
        return np.asarray(self.moments[1] - self.moments[0] ** 2)

    def moment(self, j: int) -> GridFunction:
        """E[T^j] as a function of the start."""
        j = checks.integer("j", j, minimum=1)
        if j > len(self.moments):
            raise ValueError(f"moment {j} needs moments={j}, got moments={len(self.moments)}")
        return GridFunction(self.grid, self.moments[j - 1], self.fixed, self.walls)


def mean_first_passage_time(
    process: Any,
    grid: Grid,
    target: Target = None,
    *,
    boundary: Any = "reflecting",
    moments: int = 1,
    richardson: bool = False,
) -> PassageTimes:
    """The mean time E[T | X_0 = x] to reach a target, for every start x of the grid.

    Arguments
    ---------
    process : Process
        Its coefficients must not depend on time.
    target : function of the coordinates to bool, bool array over the cells, or None
        Where the clock stops: the cells whose centre is in the set. The set begins at their faces, so place its edge
        on one (order two). None: only walls that absorb stop the clock.
    boundary
        As in ``evolve_density``; walls that absorb stop the clock as well, those with ``Robin(rate)`` in part.
    moments : int
        Also E[T²] … E[T^moments].
    richardson : bool
        Solve on half the cell width as well and extrapolate, (4 fine − coarse)/3 at the centres. In several
        dimensions for sets that end at walls only.

    Returns
    -------
    PassageTimes
        ``.mean`` (grid.shape), ``.moments``, ``.variance``; call it at any x.

    Raises
    ------
    ValueError
        Where nothing stops the clock, for a target without cells, for coefficients that depend on time.

    Error O(h²), O(h³) or better with Richardson. In one dimension times are relatively accurate however long (e^{300}
    over a barrier); in several up to about 1e-16 × time × fastest rate of jumps, with a warning where that is 1e-6.
    Kramers (1940) estimates them for high barriers.
    """
    check_process(process, grid)
    sides = walls_of_axes(boundary, grid.dim)
    count = checks.integer("moments", moments, minimum=1)
    cells = None if target is None else _cells("target", target, grid)
    found = _moments(process, grid, boundary, cells, count)
    values_at_walls = _known(sides, 0.0, 0.0, _degenerate(process, grid, boundary))
    if richardson:
        if grid.dim > 1 and cells is not None:
            raise ValueError("richardson in several dimensions is for exits through walls, without a target")
        fine = grid.refined(2)
        finer = _moments(process, fine, boundary, None if cells is None else np.repeat(cells, 2), count)
        fixed = None if cells is None else np.repeat(cells, 2)
        for j, values in enumerate(finer):
            found[j] = (4.0 * _at_centers(GridFunction(fine, values, fixed, values_at_walls), grid) - found[j]) / 3.0
    return PassageTimes(grid, found[0], cells, values_at_walls, found)


def committor(
    process: Any,
    grid: Grid,
    a: Target = None,
    b: Target = None,
    *,
    boundary: Any = "reflecting",
) -> GridFunction:
    """The probability to reach b before a, for every start of the grid (splitting probability).

    Arguments
    ---------
    a, b : function of the coordinates to bool, bool array over the cells, or None
        The two sets, apart from each other; their edges lie on faces of cells. In one dimension None means the low
        wall for a and the high wall for b.
    boundary
        As in ``evolve_density``; paths that a wall absorbs have reached neither.

    Returns
    -------
    GridFunction
        0 on a, 1 on b.

    Raises ValueError for sets that overlap, have no cells or cannot be reached, and coefficients that depend on time.

    Error O(h²). In one dimension, with V the potential of the drift, q = ∫_a^x e^V / ∫_a^b e^V for D = 1.
    """
    from .fokker_planck import hitting  # with sparse matrices, which take a while to import

    check_process(process, grid)
    cells_a, cells_b = (None if s is None else _cells(name, s, grid) for name, s in (("a", a), ("b", b)))
    if grid.dim > 1 and (cells_a is None or cells_b is None):
        raise ValueError("in several dimensions a and b must both be given, as functions or as bool arrays")
    if cells_a is not None and cells_b is not None and (cells_a & cells_b).any():
        raise ValueError(f"a and b overlap in {int((cells_a & cells_b).sum())} cells")
    sides = walls_of_axes(boundary, grid.dim)
    none = np.zeros(grid.shape, bool)
    cells = (none if cells_a is None else cells_a) | (none if cells_b is None else cells_b)
    values = none.astype(float) if cells_b is None else cells_b.astype(float)
    if grid.dim == 1:
        low, high = sides[0]
        if low == "periodic" and (a is None or b is None):
            raise ValueError("on a circle there are no walls to reach; give a and b")
        low = "absorbing" if a is None else low
        high = "absorbing" if b is None else high
        goal = hitting.Goal(cells, values, ((0.0, 1.0 if b is None else 0.0),))
        line = coefficients(process, grid, (low, high))
        need_constant(line, process, "committor")
        found = hitting.hitting_value(line.at(0.0), goal)
        known = _known(((low, high),), 0.0, 1.0 if b is None else 0.0)
        return GridFunction(grid, found, cells if cells.any() else None, known)
    box = coefficients(process, grid, boundary)
    need_constant(box, process, "committor")
    found = hitting.box_hitting_value(box.at(0.0), hitting.Goal(cells, values))
    return GridFunction(grid, found, cells, _known(sides, 0.0, 0.0, box.at(0.0).degenerate))


def _moments(process: Any, grid: Grid, boundary: Any, cells: np.ndarray | None, count: int) -> np.ndarray:
    from .fokker_planck import hitting  # with sparse matrices, which take a while to import

    made = coefficients(process, grid, walls(boundary) if grid.dim == 1 else boundary)
    need_constant(made, process, "mean first-passage time")
    engine = hitting.passage_moments if grid.dim == 1 else hitting.box_passage_moments
    return engine(made.at(0.0), hitting.Goal(cells), count)


def _cells(name: str, given: Any, grid: Grid) -> np.ndarray:
    """The cells of a set: those whose centre a function says is in it, or a bool array."""
    if callable(given):
        mesh = (grid.centers,) if grid.dim == 1 else np.meshgrid(*grid.centers, indexing="ij")
        given = given(*mesh)
    cells = np.asarray(given)
    if cells.dtype != bool:
        raise TypeError(f"{name} must be a function to bool or an array of bool, got dtype {cells.dtype}")
    if cells.shape != grid.shape:
        raise ValueError(f"{name} has shape {cells.shape}, expected {grid.shape}, the cells of the grid")
    if not cells.any():
        raise ValueError(f"{name} has no cells: no centre of a cell lies in it; move it, or take finer cells")
    return cells


def _degenerate(process: Any, grid: Grid, boundary: Any) -> tuple[int, ...]:
    """Axes without diffusion: paths reach their walls only where the drift leads there."""
    return () if grid.dim == 1 else coefficients(process, grid, boundary).at(0.0).degenerate


def _known(
    sides: tuple[Sides, ...], low: float, high: float, degenerate: tuple[int, ...] = ()
) -> tuple[tuple[Any, Any], ...]:
    """Values at the walls: those of paths that are absorbed, and None where it is not known."""

    def of(k: int, wall: Any, value: float) -> Any:
        if wall == "periodic":
            return "periodic"
        taken = wall == "absorbing" or (isinstance(wall, Robin) and wall.rate == np.inf)
        return value if taken and k not in degenerate else None

    return tuple((of(k, pair[0], low), of(k, pair[1], high)) for k, pair in enumerate(sides))


def _at_centers(fine: GridFunction, grid: Grid) -> np.ndarray:
    """A function of the refined grid at the centres of the grid, to fourth order: splines along each axis."""
    if grid.dim == 1:
        return np.asarray(fine(grid.centers))
    values = fine.values
    for k, (axis, finer) in enumerate(zip(grid.axes, fine.grid.axes, strict=True)):
        lines = np.moveaxis(values, k, 0)
        known = [None if v is None else v for v in fine.walls[k]]
        values = np.moveaxis(_spline(finer, lines, known, np.asarray(axis.centers)), 0, k)
    return values


def _spline(axis: Grid, lines: np.ndarray, known: list[Any], at: np.ndarray) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    x, u = np.asarray(axis.centers), lines
    if known[0] == "periodic":
        length = axis.upper - axis.lower
        x, u = np.concatenate([x - length, x, x + length]), np.concatenate([u, u, u])
    else:
        if known[0] is not None:
            x, u = np.append(axis.lower, x), np.concatenate([np.full_like(u[:1], known[0]), u])
        if known[1] is not None:
            x, u = np.append(x, axis.upper), np.concatenate([u, np.full_like(u[:1], known[1])])
    return np.asarray(CubicSpline(x, u, axis=0)(at))
