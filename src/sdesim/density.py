"""The density of a process: p(x, t) from the Fokker-Planck equation

    ∂p/∂t = −∂x(μ p) + ∂²x(D p),     D = σ²/2,

with the Itô drift μ of the process, on a grid of cells. Three engines, chosen by what the coefficients are:

=====================  ===============================================================================
``"cf14"``             constant in time, real spectrum: one rational exponential to any t
``"tr_bdf2"``          time-dependent, or a current round a circle: adaptive, second order, L-stable
``"characteristics"``  no diffusion at all (Liouville's equation, a probability flow): nothing smeared
=====================  ===============================================================================

In all of them mass is conserved to rounding and the density stays non-negative (Richardson extrapolation on
top conserves mass, and may undershoot zero where the coarse grid does not resolve). The paths of the same
process, binned on the same grid, have this density: that is what ``compare`` checks.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck import advection, steppers
from .fokker_planck.boundary import walls
from .fokker_planck.grid import Grid, cell_averages, coarsen, gaussian, point_mass, refine
from .fokker_planck.operator import Coefficients, Operator
from .fokker_planck.score import GridScore
from .fokker_planck.stationary import stationary
from .processes.structure import on_arrays

__all__ = [
    "Density",
    "Grid",
    "cell_averages",
    "evolve_density",
    "gaussian",
    "point_mass",
    "stationary_density",
]

METHODS = ("auto", "cf14", "tr_bdf2", "characteristics")
ALL_TIMES = 100
MASS_TOLERANCE = 1e-6
# Times at which coefficients that read the time are compared on request, as fractions of the span: irregular (a
# golden-section sequence), so that no period hides.
PROBES = tuple((k * 0.6180339887498949) % 1.0 for k in range(32))
WALL_SHARE = 1e-3
# Share of p0 that the refinement for Richardson extrapolation may have to limit before it is called
# unresolved.
UNRESOLVED = 1e-3
# Numerical diffusion, as a share of the diffusion, weighted with the density, from which one is warned.
UPWIND_SHARE = 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Density:
    """A density on a grid at one or more times.

    Attributes
    ----------
    t : (n_times,)
        Saved times (inf for a stationary density).
    p : (n_times, *grid.shape)
        Cell averages.
    grid, process, boundary
        What was solved, and where.
    absorbed : (n_times, 2)
        Probability that has left through the low and the high wall so far: ``mass + absorbed.sum(-1)`` is 1.
    method : str
        The engine that was used.
    n_steps, n_rejected : int
        Steps (rational exponentials, TR-BDF2 steps, steps along characteristics) taken and rejected.
    """

    t: np.ndarray
    p: np.ndarray
    grid: Grid
    process: Any
    boundary: tuple[str, str]
    absorbed: np.ndarray
    method: str
    n_steps: int = 0
    n_rejected: int = 0

    def __repr__(self) -> str:
        name = type(self.process).__name__
        times = f"t = {self.t[0]:g}" if len(self.t) == 1 else f"{len(self.t)} times in [{self.t[0]:g}, {self.t[-1]:g}]"
        return f"Density({name}, {times}, {self.grid.n_cells} cells, {self.method}, mass {self.mass[-1]:.6g})"

    @property
    def final(self) -> np.ndarray:
        """The density at the last saved time, shape ``grid.shape``."""
        return np.asarray(self.p[-1])

    @property
    def minimum(self) -> float:
        """The smallest cell average: 0 or above, except by Richardson extrapolation on coarse grids."""
        return float(self.p.min())

    @property
    def mass(self) -> np.ndarray:
        """Probability inside the grid at each saved time, (n_times,)."""
        return np.asarray(self._sum(self.p))

    @property
    def mean(self) -> np.ndarray:
        """E[X | not absorbed] at each saved time, (n_times,)."""
        return np.asarray(self._sum(self.p * self.grid.centers) / self.mass)

    @property
    def variance(self) -> np.ndarray:
        """Var[X | not absorbed] at each saved time, (n_times,).

        The variance of the cell centres under p less h²/12, the part that cells add (Sheppard 1898).
        """
        away = self.grid.centers - self.mean[:, None]
        return np.asarray(self._sum(self.p * away**2) / self.mass - self.grid.spacing**2 / 12.0)

    @property
    def cdf(self) -> np.ndarray:
        """P[X <= edge] at each saved time on the n + 1 edges, (n_times, n + 1), as far as not absorbed."""
        inside = np.cumsum(self.p, axis=-1) * self.grid.cell_volume
        return np.concatenate([np.zeros((len(self.t), 1)), inside], axis=-1)

    def quantile(self, q: Any, index: int = -1) -> Any:
        """The q-quantiles of X, given that it was not absorbed, at a saved time; linear inside a cell."""
        levels = checks.array("q", q)
        if not ((levels >= 0.0) & (levels <= 1.0)).all():
            raise ValueError(f"q must lie in [0, 1], got {levels.min():g} to {levels.max():g}")
        f = self.cdf[index] / self.mass[index]
        rising = np.concatenate([[True], np.diff(f) > 0.0])
        # a level of 0 is where the density begins, not where the grid does
        start = max(int(np.argmax(f > 0.0)) - 1, 0)
        rising[:start] = False
        rising[start] = True
        return np.interp(levels, f[rising], self.grid.edges[rising])

    def marginal(self, axis: int = 0) -> np.ndarray:
        """The density of one component, integrated over the others, (n_times, n_cells of that axis)."""
        axis = checks.integer("axis", axis)
        if not 0 <= axis < self.grid.dim:
            raise ValueError(f"axis must be in 0..{self.grid.dim - 1}, got {axis}")
        return self.p

    def current(self, index: int = -1) -> np.ndarray:
        """The probability current J = μ p − ∂x(D p) on the n + 1 edges; 0 at reflecting walls."""
        t = float(self.t[index])
        coefficients = _coefficients(self.process, self.grid, self.boundary)
        if self.method == "characteristics":
            return self._advective_current(coefficients, t, self.p[index])
        return coefficients.at(t if np.isfinite(t) else 0.0).current(self.p[index])

    @functools.cached_property
    def score(self) -> GridScore:
        """∇ log p as a callable score(x, t), see GridScore; a reversal needs many saved times."""
        return GridScore(self.grid, self.t, self.p, self.boundary[0] == "periodic")

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values.sum(axis=-1) * self.grid.cell_volume)

    def _advective_current(self, coefficients: Coefficients, t: float, p: np.ndarray) -> np.ndarray:
        edges, periodic = self.grid.edges, self.boundary[0] == "periodic"
        speed = np.broadcast_to(np.asarray(coefficients.drift(edges, t), dtype=float), edges.shape)
        out = speed * advection.edge_values(p, periodic=periodic)
        for end, kind in zip((0, -1), self.boundary, strict=True):
            outward = speed[end] * (1 if end else -1)
            if kind == "reflecting" or (kind == "absorbing" and outward < 0.0):
                out[end] = 0.0
        return out


def evolve_density(
    process: Any,
    p0: Any,
    grid: Grid,
    t_span: Any,
    *,
    save: Any = "final",
    rtol: float = 1e-6,
    boundary: Any = "reflecting",
    method: str = "auto",
    richardson: bool = False,
    progress: bool = False,
) -> Density:
    """Solve ∂p/∂t = −∂x(μ p) + ∂²x(σ² p/2) for the density of a process from p0 over ``t_span``.

    Arguments
    ---------
    process : Process
        One-dimensional (``dim`` None or 1); its ``ito_drift`` and ``diffusion`` are called on arrays of
        points.
    p0 : array of shape grid.shape, or a function of a grid
        Cell averages that integrate to 1 within 1e-6; or e.g. ``lambda g: point_mass(g, 0.3, order=4)``,
        which Richardson extrapolation calls again on its finer grid (an array is refined by fourth-degree
        polynomials).
    grid : Grid
    t_span : (t0, t1)
    save : "final", "all", int or sequence of times
        An int k saves k + 1 equally spaced times, both ends included; "all" is 100.
    rtol : float
        Relative error in time, measured in L1: TR-BDF2 keeps that of each step below rtol/10, the rational
        exponential below rtol/100; edges are traced along characteristics to rtol cell widths.
    boundary : "reflecting", "absorbing", "periodic" or a pair (low, high)
    method : "auto", "cf14", "tr_bdf2" or "characteristics"
        "auto" takes characteristics if σ vanishes everywhere; "cf14" if the formulas do not read the time
        (``process.autonomous``) and no current can circulate; TR-BDF2 otherwise. On request "cf14" is also taken
        for formulas that read it and are the same bit for bit at 32 irregular times of the span.
    richardson : bool
        Solve on twice the cells as well and extrapolate, (4 fine − coarse)/3: fourth order in h instead of
        second. The result may undershoot zero where the coarse grid does not resolve the density; see
        ``Density.minimum``.
    progress : bool
        Show a bar (tqdm).

    Returns
    -------
    Density

    Raises
    ------
    ValueError
        For a density that is negative, not normalised or of the wrong shape; coefficients that are not
        finite; times out of order or out of the span; unknown names; a method that cannot solve the problem.
    TypeError
        For arguments of the wrong kind.

    Error O(h²) in space where cells resolve μ/D (first order, with a warning, where they do not; O(h³) for
    characteristics), O(rtol^(2/3)) in time for TR-BDF2. Sources: Scharfetter
    & Gummel 1969; Cody, Meinardus & Varga 1969; Bank et al. 1985.
    """
    _check_process(process, grid)
    t0, t1 = checks.time_span(t_span)
    times = _save_times(save, t0, t1)
    tolerance = checks.real("rtol", rtol, above=0.0)
    sides = walls(boundary)
    method = checks.choice("method", method, METHODS)
    start = _start(p0, grid)
    _warn_of_walls(start, grid, sides)
    coefficients = _coefficients(process, grid, sides)
    method, constant = _engine(coefficients, process.autonomous, method, t0, t1)

    levels = [(coefficients, start)]
    if richardson:
        fine = grid.refined(2)
        finer = _start(p0, fine) if callable(p0) else _refined(start, sides)
        levels.append((_coefficients(process, fine, sides), finer))
    results = []
    with _bar(progress, t0, t1, len(levels)) as report:
        for level, p in levels:
            results.append(_solve(level, p, method, constant, t0, times, tolerance, report))
    last = results[-1]
    p, absorbed = last.p, last.absorbed
    if method != "characteristics":
        _warn_of_upwinding(coefficients, results[0].p[-1], t1)
    if richardson:
        p = (4.0 * coarsen(last.p) - results[0].p) / 3.0
        absorbed = (4.0 * last.absorbed - results[0].absorbed) / 3.0
    steps, rejected = sum(r.n_steps for r in results), sum(r.n_rejected for r in results)
    return Density(np.array(times), p, grid, process, sides, absorbed, method, steps, rejected)


def stationary_density(process: Any, grid: Grid, boundary: Any = "reflecting") -> Density:
    """The density that the process keeps: 0 = −∂x(μ p) + ∂²x(σ² p/2), normalised on the grid.

    A Density with the single time inf; the array is its ``final``. Without a current log p is summed from
    cell to cell (exact at the nodes up to the quadrature of μ/D: to rounding for polynomial drifts up to
    degree five over a constant σ); on a circle with a current it is the null vector of the operator.

    Raises ValueError for coefficients that depend on time, σ = 0 and absorbing walls.
    """
    _check_process(process, grid)
    sides = walls(boundary)
    coefficients = _coefficients(process, grid, sides)
    if not coefficients.constant((0.0, 0.377, 1.913)):
        raise ValueError("a process whose coefficients depend on time has no stationary density")
    if coefficients.still(0.0):
        raise ValueError("a process without diffusion has no stationary density: its mass gathers in points")
    p = stationary(coefficients.at(0.0))
    return Density(np.array([np.inf]), p[None], grid, process, sides, np.zeros((1, 2)), "stationary")


def _solve(
    coefficients: Coefficients,
    p: np.ndarray,
    method: str,
    constant: bool,
    t0: float,
    times: list[float],
    tolerance: float,
    report: steppers.Report | None,
) -> steppers.Evolution:
    if method == "characteristics":
        sides = (coefficients.low, coefficients.high)
        return advection.transport(coefficients.drift, coefficients.grid, sides, p, t0, times, tolerance, report)
    if method == "cf14":
        operator: Operator = coefficients.at(t0)
        return steppers.rational_exponential(operator, p, t0, times, 0.01 * tolerance, report)
    return steppers.tr_bdf2(coefficients, p, t0, times, 0.1 * tolerance, report, constant=constant)


def _engine(coefficients: Coefficients, autonomous: bool, method: str, t0: float, t1: float) -> tuple[str, bool]:
    """The engine, and whether the coefficients need no second evaluation."""
    probes = [t0 + share * (t1 - t0) for share in PROBES]
    still = all(coefficients.still(t) for t in probes)
    if method == "characteristics" and not still:
        raise ValueError("method 'characteristics' is for processes without diffusion; use 'auto'")
    if method == "characteristics" or (method == "auto" and still):
        return "characteristics", False
    if method == "tr_bdf2":
        return method, False
    # formulas that read the time may change for a moment that no probe meets: they are constant on request only
    constant = autonomous or (method == "cf14" and coefficients.constant(probes))
    circulates = constant and coefficients.at(t0).circulates
    if method == "auto":
        return ("cf14" if constant and not circulates else "tr_bdf2"), constant
    if not constant:
        raise ValueError("method 'cf14' needs coefficients that do not depend on time; use 'tr_bdf2'")
    if circulates:
        raise ValueError("method 'cf14' needs a real spectrum, but a current runs round the circle; use 'tr_bdf2'")
    return method, True


def _coefficients(process: Any, grid: Grid, boundary: Any) -> Coefficients:
    def drift(x: np.ndarray, t: float) -> Any:
        return on_arrays("drift", process.ito_drift, x, t)

    def diffusivity(x: np.ndarray, t: float) -> Any:
        sigma = np.asarray(on_arrays("diffusion", process.diffusion, x, t))
        return 0.5 * sigma * sigma

    return Coefficients(drift, diffusivity, grid, boundary)


def _warn_of_upwinding(coefficients: Coefficients, p: np.ndarray, t: float) -> None:
    """Say where the cells are too coarse for the drift: Scharfetter-Gummel then adds D (Pe coth Pe − 1) to D."""
    grid = coefficients.grid
    mu = np.broadcast_to(np.asarray(coefficients.drift(grid.centers, t), float), grid.shape)
    d = np.broadcast_to(np.asarray(coefficients.diffusivity(grid.centers, t), float), grid.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        peclet = np.abs(mu) * grid.spacing / (2.0 * d)
        added = np.where(peclet > 1e-3, peclet / np.tanh(peclet) - 1.0, peclet**2 / 3.0) * d
    seen = np.isfinite(added) & (d > 0.0)
    share = float((added * p)[seen].sum() / max(float((d * p)[seen].sum()), np.finfo(float).tiny))
    if share > UPWIND_SHARE:
        # the share falls at least linearly with h
        cells = math.ceil(grid.n_cells * share / UPWIND_SHARE)
        warnings.warn(
            f"the drift is strong against the diffusion: cells of {grid.spacing:g} add {100 * share:.2g} % to the "
            f"diffusion where the density is; about {cells} cells bring that below {100 * UPWIND_SHARE:g} % "
            "(richardson=True does not)",
            UserWarning,
            stacklevel=3,
        )


def _check_process(process: Any, grid: Any) -> None:
    for name in ("ito_drift", "diffusion"):
        if not callable(getattr(process, name, None)):
            raise TypeError(f"process must be a Process with drift and diffusion, got {type(process).__name__}")
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a Grid, got {type(grid).__name__}")
    dim = process.dim or 1
    if dim != grid.dim:
        raise ValueError(f"{type(process).__name__} has dimension {dim}, the grid has dimension {grid.dim}")
    if grid.dim != 1:
        raise ValueError(f"densities are solved for on 1-D grids, got a grid of dimension {grid.dim}")


def _save_times(save: Any, t0: float, t1: float) -> list[float]:
    if isinstance(save, str):
        if checks.choice("save", save, ("final", "all")) == "final":
            return [t1]
        save = ALL_TIMES
    if np.ndim(save) == 0:
        k = checks.integer("save", save, minimum=1)
        return [*(t0 + (t1 - t0) * i / k for i in range(k)), t1]
    times = checks.array("save", save)
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"save must be 'final', 'all', an int or a sequence of times, got shape {times.shape}")
    order = np.flatnonzero(np.diff(times) <= 0.0)
    if len(order):
        i = int(order[0])
        raise ValueError(f"save must be strictly increasing; index {i + 1}: {times[i + 1]:g} after {times[i]:g}")
    for i in (0, len(times) - 1):
        if not t0 <= times[i] <= t1:
            raise ValueError(f"save[{i}] = {times[i]:g} is outside t_span [{t0:g}, {t1:g}]")
    return [float(t) for t in times]


def _start(p0: Any, grid: Grid) -> np.ndarray:
    p = checks.array("p0", p0(grid) if callable(p0) else p0)
    if p.shape != grid.shape:
        values, cells = (x[0] if len(x) == 1 else x for x in (p.shape, grid.shape))
        raise ValueError(
            f"p0 has {values} values, grid has {cells} cells" if p.ndim else "p0 must be an array over the cells"
        )
    low = int(np.argmin(p))
    if p.flat[low] < 0.0:
        raise ValueError(f"p0 is negative in cell {low}: {p.flat[low]:g}; a density must be >= 0")
    total = float(p.sum() * grid.cell_volume)
    if not abs(total - 1.0) <= MASS_TOLERANCE:
        raise ValueError(
            f"p0 integrates to {total:.6g}, expected 1 (tol {MASS_TOLERANCE:g}); "
            "pass p0 / (p0.sum() * grid.cell_volume)"
        )
    return p


def _refined(p: np.ndarray, sides: tuple[str, str]) -> np.ndarray:
    finer, touched = refine(p, periodic=sides[0] == "periodic")
    if touched > UNRESOLVED:
        warnings.warn(
            "p0 is too sharp for its grid to be refined to fourth order; pass p0 as a function of the grid, "
            "e.g. lambda g: point_mass(g, x, order=4)",
            UserWarning,
            stacklevel=3,
        )
    return finer


def _warn_of_walls(p: np.ndarray, grid: Grid, sides: tuple[str, str]) -> None:
    """Warn of a start that the walls cut off; a start as flat as the uniform density belongs to its box."""
    if sides[0] == "periodic":
        return
    share = float((p[0] + p[-1]) * grid.cell_volume)
    uniform = 1.0 / (grid.upper - grid.lower)
    if share >= WALL_SHARE and max(p[0], p[-1]) > 1.5 * uniform:
        warnings.warn(
            f"{100 * share:.1f}% of p0 lies in the boundary cells: widen the domain",
            UserWarning,
            stacklevel=3,
        )


@contextmanager
def _bar(progress: bool, t0: float, t1: float, levels: int) -> Iterator[steppers.Report | None]:
    """A callable that is told the time reached, or None."""
    if not progress:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(
        total=levels * (t1 - t0), desc="density", unit="t", bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
    ) as bar:
        last = [t0]

        def report(t: float) -> None:
            bar.update(t - last[0] if t > last[0] else t - t0)
            last[0] = t

        yield report
