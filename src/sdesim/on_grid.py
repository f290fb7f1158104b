"""A process on a grid: from its formulas to the coefficients that the Fokker-Planck solvers take."""

from typing import Any

import numpy as np

from .fokker_planck.boundary import walls_of_axes
from .fokker_planck.box import BoxCoefficients
from .fokker_planck.grid import Grid
from .fokker_planck.operator import Coefficients
from .processes.structure import components_of, on_arrays, rows_of

# Times at which coefficients that read the time are compared.
PROBES = (0.0, 0.377, 1.913, 17.41)


def check_process(process: Any, grid: Any) -> None:
    """Raise where the process has no coefficients, or not the dimension of the grid."""
    for name in ("ito_drift", "diffusion"):
        if not callable(getattr(process, name, None)):
            raise TypeError(f"process must be a Process with drift and diffusion, got {type(process).__name__}")
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a Grid, got {type(grid).__name__}")
    dim = process.dim or grid.dim  # a formula on numbers acts on every axis alike
    if dim != grid.dim:
        raise ValueError(f"{type(process).__name__} has dimension {dim}, the grid has dimension {grid.dim}")


def coefficients(process: Any, grid: Grid, boundary: Any) -> Any:
    """Coefficients of the process's density on a grid, with an operator ``at(t)``."""
    if grid.dim == 1:
        return line_coefficients(process, grid, boundary)
    return box_coefficients(process, grid, boundary)


def line_coefficients(process: Any, grid: Grid, boundary: Any) -> Coefficients:
    """μ and D = σ²/2 of a process of one dimension."""

    def drift(x: np.ndarray, t: float) -> Any:
        return on_arrays("drift", process.ito_drift, x, t)

    def diffusivity(x: np.ndarray, t: float) -> Any:
        sigma = np.asarray(on_arrays("diffusion", process.diffusion, x, t))
        return 0.5 * sigma * sigma

    return Coefficients(drift, diffusivity, grid, boundary)


def box_coefficients(process: Any, grid: Grid, boundary: Any) -> BoxCoefficients:
    """μ and the rows of D = ½ σσᵀ of a process of several dimensions; a literal 0.0 where D vanishes by structure."""
    dim = grid.dim

    def of_components(name: str, formula: Any, x: tuple[np.ndarray, ...], t: float) -> Any:
        if process.dim is None:
            return tuple(on_arrays(name, formula, xk, t) for xk in x)
        return on_arrays(name, formula, x, t)

    def drift(x: tuple[np.ndarray, ...], t: float) -> tuple[Any, ...]:
        return components_of("drift", of_components("drift", process.ito_drift, x, t), dim)

    def tensor(x: tuple[np.ndarray, ...], t: float) -> tuple[tuple[Any, ...], ...]:
        sigma = of_components("diffusion", process.diffusion, x, t)
        if process.noise == "general":
            rows = rows_of(sigma, dim)
            return tuple(tuple(0.5 * sum(a * b for a, b in zip(r, s, strict=True)) for s in rows) for r in rows)
        entries = components_of("diffusion", sigma, dim)
        return tuple(tuple(0.5 * s * s if j == k else 0.0 for j in range(dim)) for k, s in enumerate(entries))

    return BoxCoefficients(drift, tensor, grid, walls_of_axes(boundary, dim), process.autonomous)


def need_constant(made: Any, process: Any, what: str) -> None:
    """Raise where coefficients depend on time, of which ``what`` has no meaning."""
    if not process.autonomous and not made.constant(PROBES):
        raise ValueError(f"{what} needs coefficients that do not depend on time; those of this process do")
