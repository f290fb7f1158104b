"""Expectations of the future as a function of the start: the backward Kolmogorov equation

    −∂u/∂t = Σ_k μ_k ∂_k u + Σ_kl D_kl ∂_k ∂_l u,     u(x, t1) = f(x),

solved by u(x, t) = E[f(X_t1) | X_t = x]. It is the mirror image of the Fokker-Planck equation: for every start p₀,
∫ f p(t1) = ∫ u(t0) p₀. One backward solution gives the expectation for all starts; one forward solution gives all
expectations for one start.
"""

import dataclasses
from typing import Any

import numpy as np

from .core import checks
from .evolution import PROBES, _bar, _save_times
from .fokker_planck import adjoint
from .fokker_planck.boundary import walls, walls_of_axes
from .fokker_planck.cells import cell_averages
from .fokker_planck.grid import Grid
from .grid_function import GridFunction
from .on_grid import box_coefficients, check_process, line_coefficients
from .passage import _known
from .processes.structure import on_arrays

METHODS = ("auto", "cf14", "tr_bdf2", "splitting")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExpectationOnGrid:
    """u(x, t) = E[f(X_t1) | X_t = x] on a grid.

    Attributes
    ----------
    t : (n_times,)
        Times t of the start, increasing.
    u : (n_times, *grid.shape)
        The expectation from each cell.
    t1 : float
        When f is taken.
    grid, process, boundary
        What was solved, and where.
    method, n_steps, n_rejected
        The engine and its work.
    """

    t: np.ndarray
    u: np.ndarray
    t1: float
    grid: Grid
    process: Any
    boundary: Any
    method: str
    n_steps: int
    n_rejected: int

    def __repr__(self) -> str:
        return (
            f"ExpectationOnGrid({type(self.process).__name__}, t = {self.t[0]:g} to {self.t1:g}, {self.method}, "
            f"{self.u[0].min():.6g} to {self.u[0].max():.6g})"
        )

    @property
    def final(self) -> np.ndarray:
        """u at the earliest time, where the calculation ends; shape ``grid.shape``."""
        return np.asarray(self.u[0])

    def at(self, index: int = 0) -> GridFunction:
        """u at one of the times as a function of the start."""
        sides = (self.boundary,) if self.grid.dim == 1 else self.boundary
        return GridFunction(self.grid, self.u[index], None, _known(sides, 0.0, 0.0))

    def __call__(self, x: Any, index: int = 0) -> Any:
        """u(x) at the earliest time, or at another; x as for a GridFunction."""
        return self.at(index)(x)


def evolve_expectation(
    process: Any,
    f: Any,
    grid: Grid,
    t_span: Any,
    *,
    save: Any = "final",
    boundary: Any = "reflecting",
    rtol: float = 1e-6,
    method: str = "auto",
    n_steps: int | None = None,
    progress: bool = False,
) -> ExpectationOnGrid:
    """E[f(X_t1) | X_t = x] for every start x of a grid and times t from t1 back to t0.

    Arguments
    ---------
    process : Process
    f : function of the coordinates, or array of shape grid.shape
        The observable; of a function the cell averages are taken, so that f may jump. What a wall has absorbed counts
        as 0: f = 1 gives the probability to survive.
    grid : Grid
    t_span : (t0, t1)
    save : "final", "all", int or sequence of times
        "final" is t0, where the calculation ends; an int k saves k + 1 equally spaced times, "all" 101.
    boundary
        As in ``evolve_density``.
    rtol : float
        Error in time relative to the range of f: of each step rtol/10 (TR-BDF2) or rtol/100 (rational exponential), of
        the whole in several dimensions.
    method : "auto", "cf14", "tr_bdf2" or "splitting"
        As in ``evolve_density``.
    n_steps : int, optional
        Take that many equal steps ("tr_bdf2", and in several dimensions).
    progress : bool
        Show a bar (tqdm).

    Returns
    -------
    ExpectationOnGrid

    Raises
    ------
    ValueError
        For an f of the wrong shape or not finite, coefficients that are not finite, a process without any diffusion,
        unknown names.

    Error O(h²) in space. Where nothing depends on time, Σ f m(t1) = Σ u m(t0) over the cells to 1e-9 and better in one
    dimension, with the masses m of ``evolve_density``. Sources: Kolmogorov 1931; Hundsdorfer & Verwer 2003.
    """
    check_process(process, grid)
    t0, t1 = checks.time_span(t_span)
    times = [t0] if isinstance(save, str) and save == "final" else _save_times(save, t0, t1)
    tolerance = checks.real("rtol", rtol, above=0.0)
    checks.truth("progress", progress)
    method = checks.choice("method", method, METHODS)
    count = None if n_steps is None else checks.integer("n_steps", n_steps, minimum=1)
    if (grid.dim > 1) != (method == "splitting") and method != "auto":
        raise ValueError(f"method {method!r} is for {'one dimension' if grid.dim > 1 else 'several dimensions'}")
    values = _observable(f, grid)
    to_go = [t1 - t for t in reversed(times)]
    sides: Any = walls(boundary) if grid.dim == 1 else walls_of_axes(boundary, grid.dim)
    with _bar(progress, 0.0, max(to_go[-1], np.finfo(float).tiny), 1) as bar:
        report = bar(0)
        if grid.dim > 1:
            from .fokker_planck import adjoint_box  # with sparse matrices, which take a while to import

            box = box_coefficients(process, grid, boundary)
            found = adjoint_box.evolve(box, values, t1, to_go, tolerance, report, n_steps=count)
            method = "splitting"
        else:
            line = line_coefficients(process, grid, sides)
            if line.still(t0) and line.still(t1):
                raise ValueError(
                    "a process without diffusion carries f along its path, E f = f(x(t1)): follow the path with "
                    "simulate(process, x, t_span, method='rk4', n_steps=…)"
                )
            method, constant = _engine(line, process.autonomous, method, t0, t1, count)
            if method == "cf14":
                found = adjoint.rational_exponential(line.at(t1), values, to_go, 0.01 * tolerance, report)
            else:
                step = None if count is None else to_go[-1] / count
                found = adjoint.tr_bdf2(
                    line, values, t1, to_go, 0.1 * tolerance, report, constant=constant, fixed_step=step
                )
    return ExpectationOnGrid(
        np.array(times), found.u[::-1], t1, grid, process, sides, method, found.n_steps, found.n_rejected
    )


def _engine(line: Any, autonomous: bool, method: str, t0: float, t1: float, count: int | None) -> tuple[str, bool]:
    constant = autonomous or (method == "cf14" and line.constant([t0 + share * (t1 - t0) for share in PROBES]))
    circulates = constant and line.at(t1).circulates
    if method == "cf14":
        if not constant:
            raise ValueError("method 'cf14' needs coefficients that do not depend on time; use 'tr_bdf2'")
        if circulates:
            raise ValueError("method 'cf14' needs a real spectrum, but a current runs round the circle; use 'tr_bdf2'")
        if count is not None:
            raise ValueError("n_steps is for 'tr_bdf2'; the rational exponential takes no steps")
    if method == "auto":
        method = "cf14" if constant and not circulates and count is None else "tr_bdf2"
    return method, constant


def _observable(f: Any, grid: Grid) -> np.ndarray:
    if callable(f):

        def averaged(*x: np.ndarray) -> np.ndarray:
            return np.asarray(on_arrays("f", lambda at, _: f(*at), x, 0.0), dtype=float) + 0.0 * sum(x)

        return cell_averages(grid, averaged)
    values = checks.array("f", f)
    if values.shape != grid.shape:
        raise ValueError(f"f has shape {values.shape}, expected {grid.shape}, the cells of the grid")
    return values
