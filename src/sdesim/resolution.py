"""What a grid does not hold, said aloud: a density cut off by its walls, cells too coarse for the drift."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .fokker_planck.boundary import Sides
from .fokker_planck.grid import Grid

WALL_SHARE = 1e-3
# Share of its peak that a density may have at walls that nobody asked for.
WALL_DENSITY = 1e-3
# Numerical diffusion, as a share of the diffusion, weighted with the density, from which one is warned.
UPWIND_SHARE = 0.05


def warn_of_walls(p: np.ndarray, grid: Grid, sides: tuple[Sides, ...]) -> None:
    """Warn of a start that the walls cut off; a start as flat as the uniform density belongs to its box."""
    for k, (axis, pair) in enumerate(zip(grid.axes, sides, strict=True)):
        if pair[0] == "periodic":
            continue
        m = p * grid.cell_volume
        m = m.sum(axis=tuple(j for j in range(grid.dim) if j != k)) if grid.dim > 1 else m
        uniform = 1.0 / (axis.upper - axis.lower)
        share, (widths,) = float(m[0] + m[-1]), axis.widths
        if share >= WALL_SHARE and max(m[0] / widths[0], m[-1] / widths[-1]) > 1.5 * uniform:
            _warn(f"{100 * share:.1f}% of p0 lies in the boundary cells{_of_axis(grid, k)}: widen the domain")


def warn_of_cut(
    start: np.ndarray | None, m: np.ndarray, grid: Grid, crosses: Callable[[int, int], bool], t: float
) -> None:
    """Warn of probabilities that lean at time t against walls that nobody asked for: paths would have gone on.

    ``crosses(axis, end)`` tells whether drift or noise leads through the wall at that end (0 or −1) of an axis; where
    neither does the process ends there by itself. A start that reaches the wall already belongs to its box, or
    ``warn_of_walls`` has spoken. A stationary density has t = inf and no start, None.
    """
    when = "at rest" if math.isinf(t) else f"at t = {t:g}"
    for k in range(grid.dim):
        p = _profile(m, grid, k)
        least = WALL_DENSITY * float(p.max())
        if not (p[0] > least or p[-1] > least):
            continue
        before = np.zeros(len(p)) if start is None else _profile(start, grid, k)
        least_before = WALL_DENSITY * float(before.max())
        for end, name in ((0, "low"), (-1, "high")):
            if p[end] > least and before[end] <= least_before and crosses(k, end):
                share, inside = _percent(WALL_DENSITY * p[end] / least), _percent(p[end] * grid.widths[k][end])
                _warn(
                    f"{when} the density at the {name} wall{_of_axis(grid, k)} is {share} % of its peak, "
                    f"with {inside} % of the mass in the outermost cell: the domain cuts it off. Widen the domain, "
                    "or pass boundary='reflecting' if the wall is meant",
                    stacklevel=4 if start is None else 5,
                )


def warn_of_upwinding(m: np.ndarray, grid: Grid, cells: Iterable[tuple[Any, Any]]) -> None:
    """Warn of cells too coarse for the drift: Scharfetter-Gummel fluxes add D (Pe coth Pe − 1) to D.

    ``cells``: for each axis the Péclet numbers Pe = |μ| h/2D of its cells and D, arrays of the shape of m.
    """
    for k, (peclet, d) in enumerate(cells):
        weight = d * m
        total = max(float(weight.sum()), np.finfo(float).tiny)
        weight *= peclet
        weight *= peclet
        if float(weight.sum()) <= 3.0 * UPWIND_SHARE * total:  # Pe coth Pe − 1 <= Pe²/3
            continue
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            added = np.where(peclet > 1e-3, peclet / np.tanh(peclet) - 1.0, peclet**2 / 3.0) * d
        seen = np.isfinite(added) & (d > 0.0)
        share = float((added * m)[seen].sum()) / total
        if share > UPWIND_SHARE:
            # the share falls at least linearly with h
            needed = math.ceil(grid.shape[k] * share / UPWIND_SHARE)
            _warn(
                f"the drift is strong against the diffusion: cells of {np.max(grid.widths[k]):g}{_of_axis(grid, k)} "
                f"add {_percent(share)} % to the diffusion where the density is; about {needed} cells bring that below "
                f"{100 * UPWIND_SHARE:g} % (richardson=True does not)"
            )


def _profile(m: np.ndarray, grid: Grid, k: int) -> np.ndarray:
    """The density of component k."""
    others = tuple(j for j in range(grid.dim) if j != k)
    return np.asarray((m.sum(axis=others) if others else m) / grid.widths[k])


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def _of_axis(grid: Grid, k: int) -> str:
    return "" if grid.dim == 1 else f" of axis {k}"


def _warn(message: str, stacklevel: int = 5) -> None:
    warnings.warn(message, UserWarning, stacklevel=stacklevel)
