"""What a density starts from: cell averages, checked, on the grid and on the finer one of Richardson extrapolation."""

import warnings
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck.cells import point_mass, refine
from .fokker_planck.grid import Grid

MASS_TOLERANCE = 1e-6
# Share of p0 that the refinement for Richardson extrapolation may have to limit before it is called
# unresolved.
UNRESOLVED = 1e-3


def averages(p0: Any, grid: Grid) -> np.ndarray:
    """p0, an array or a function of the grid, as cell averages that are >= 0 and integrate to 1; raises otherwise."""
    p = checks.array("p0", p0(grid) if callable(p0) else p0)
    if p.shape != grid.shape:
        values, cells = (x[0] if len(x) == 1 else x for x in (p.shape, grid.shape))
        raise ValueError(
            f"p0 has {values} values, grid has {cells} cells" if p.ndim else "p0 must be an array over the cells"
        )
    low = int(np.argmin(p))
    if p.flat[low] < 0.0:
        place = low if p.ndim == 1 else tuple(map(int, np.unravel_index(low, p.shape)))
        raise ValueError(f"p0 is negative in cell {place}: {p.flat[low]:g}; a density must be >= 0")
    total = float((p * grid.cell_volume).sum())
    if not abs(total - 1.0) <= MASS_TOLERANCE:
        raise ValueError(
            f"p0 integrates to {total:.6g}, expected 1 (tol {MASS_TOLERANCE:g}); "
            "widen the grid where it cuts p0 off, or pass p0 / (p0.sum() * grid.cell_volume)"
        )
    return p


def levels(
    p0: Any, start: np.ndarray, grid: Grid, periodic: tuple[bool, ...], richardson: bool
) -> list[tuple[Grid, np.ndarray]]:
    """The grids to solve on and the masses to start from: the grid, and for Richardson extrapolation the halved one."""
    found = [(grid, start * grid.cell_volume)]
    if richardson:
        fine = grid.refined(2)
        masses = averages(p0, fine) * fine.cell_volume if callable(p0) else _refined(found[0][1], periodic)
        found.append((fine, masses))
    return found


def from_point(x0: Any, grid: Grid, richardson: bool) -> Any:
    """x0 as p0: a number (a point, in several dimensions) becomes its point mass, anything else stays what it is."""
    if callable(x0) or np.shape(x0) != (() if grid.dim == 1 else (grid.dim,)):
        if grid.dim > 1 and not callable(x0) and np.ndim(x0) < 2:
            raise ValueError(
                f"a start in {grid.dim} dimensions is a point of {grid.dim} numbers, an array over the cells or a "
                f"function of a grid, got {x0!r}"
            )
        return x0
    order = 4 if richardson else 2
    return lambda g: point_mass(g, x0, order=order)


def _refined(m: np.ndarray, periodic: tuple[bool, ...]) -> np.ndarray:
    finer, touched = refine(m, periodic)
    if touched > UNRESOLVED:
        warnings.warn(
            "p0 is too sharp for its grid to be refined to fourth order; pass p0 as a function of the grid, "
            "e.g. lambda g: point_mass(g, x, order=4)",
            UserWarning,
            stacklevel=5,
        )
    return finer
