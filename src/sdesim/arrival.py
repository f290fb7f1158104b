"""When a process leaves through the walls of a grid, and through which: the density of the first passage.

With walls that take what reaches them, the probability current through a wall is the density of the time of the first
passage there,

    f_side(t) = ± J(wall, t),     ∂p/∂t = −∂x J,     ∫₀ᵗ (f_low + f_high) ds + ∫ p(x, t) dx = 1.

What is computed is what has left until each edge of a list of time bins; the density of a bin is the mass that leaves
in it over its width, so that the sum over bins and sides and what remains add up to 1.

For coefficients that do not depend on time all bins come at once from the Laplace transform of the walls' flux,
inverted along hyperbolas (``fokker_planck.contour``): the error is that of the cells alone. Everything else is stepped
in time by ``evolve_density``.
"""

import dataclasses
from typing import Any

import numpy as np

from .core import checks
from .evolution import evolve_density
from .fokker_planck import contour, steppers
from .fokker_planck.boundary import Inflow, Robin, walls, walls_of_axes
from .fokker_planck.grid import Grid
from .on_grid import check_process, line_coefficients
from .resolution import warn_of_upwinding
from .starts import averages, from_point, levels

METHODS = ("auto", "contour", "steps")
# Bytes of densities that bins stepped in time may keep.
MOST_KEPT = 2**30
# Masses of bins down to this below zero are rounding, and set to zero.
ROUNDING = 1e-11


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PassageDensity:
    """The law of the time and the side of the first passage through the walls of a grid, up to the last time.

    Attributes
    ----------
    t : (n_bins + 1,)
        Edges of the time bins; ``t[0]`` is the start.
    cdf : (n_bins + 1, 2), or (n_bins + 1, d, 2) in several dimensions
        Probability to have left through the low and the high wall (of each axis) until each edge.
    grid, process, boundary
        What was solved, and where.
    method : "contour" or the engine of evolve_density
    time_error : float
        An estimate of the error of cdf from the inversion in time (not from the cells): how far two ways to the same
        numbers disagree. nan for steps in time, which keep to rtol.
    """

    t: np.ndarray
    cdf: np.ndarray
    grid: Grid
    process: Any
    boundary: Any
    method: str
    time_error: float

    def __repr__(self) -> str:
        name, left = type(self.process).__name__, 1.0 - float(self.survival[-1])
        return (
            f"PassageDensity({name}, {len(self.t) - 1} bins in [{self.t[0]:g}, {self.t[-1]:g}], {self.method}, "
            f"{100 * left:.4g} % have left)"
        )

    @property
    def density(self) -> np.ndarray:
        """Density of the passage time and side: averages over the bins, (n_bins, 2) or (n_bins, d, 2)."""
        widths = np.diff(self.t).reshape(-1, *[1] * (self.cdf.ndim - 1))
        return np.asarray(np.diff(self.cdf, axis=0) / widths)

    @property
    def survival(self) -> np.ndarray:
        """Probability not to have left until each edge, (n_bins + 1,)."""
        return np.asarray(1.0 - self.cdf.reshape(len(self.t), -1).sum(axis=1))

    @property
    def probability(self) -> np.ndarray:
        """Probability to leave through each wall within the time solved, (2,) or (d, 2)."""
        return np.asarray(self.cdf[-1])

    @property
    def mean(self) -> float:
        """E[τ − t₀ | τ <= t₁], the mean time of those that have left: ∫ (F(t₁) − F(t)) dt / F(t₁), F by cubics."""
        from scipy.interpolate import CubicSpline

        left = 1.0 - self.survival
        if not left[-1] > 0.0:
            raise ValueError(f"nothing has left until t = {self.t[-1]:g}, so there is no mean passage time")
        area = float(CubicSpline(self.t, left).integrate(self.t[0], self.t[-1]))
        return float(self.t[-1] - self.t[0] - area / left[-1])

    def quantile(self, q: Any) -> Any:
        """Times until which shares q of all paths have left, inf where that takes longer than the time solved."""
        levels_ = checks.array("q", q)
        if not ((levels_ >= 0.0) & (levels_ <= 1.0)).all():
            raise ValueError(f"q must lie in [0, 1], got {levels_.min():g} to {levels_.max():g}")
        left = 1.0 - self.survival
        rising = np.concatenate([[True], np.diff(left) > 0.0])
        found = np.interp(levels_, left[rising], self.t[rising])
        return np.where(levels_ > left[-1], np.inf, found)[()]


def first_passage_density(
    process: Any,
    grid: Grid,
    start: Any,
    t_span: Any,
    *,
    bins: Any = 300,
    boundary: Any = "absorbing",
    rtol: float = 1e-6,
    method: str = "auto",
    richardson: bool = False,
    progress: bool = False,
) -> PassageDensity:
    """The density of the time and the side of the first passage through the walls of a grid.

    Arguments
    ---------
    process : Process
        Of the dimension of the grid, whose walls are the levels to pass.
    start : number (one for each dimension), array of shape grid.shape, or a function of a grid
        A point; or cell averages that integrate to 1.
    t_span : (t0, t1)
    bins : int or sequence
        Number of equal time bins, or their edges, from t0 to t1.
    boundary : as for evolve_density
        The default absorbs everywhere; ("reflecting", "absorbing") leaves one way out, Robin(rate) a partial one, whose
        passages are the times at which paths are taken.
    rtol : error in time, relative to a probability of 1: "contour" gives about 1e-12 where it serves.
    method : "auto", "contour" or "steps"
        "contour" inverts the Laplace transform of the flux: one dimension, coefficients that do not depend on time,
        diffusion not overwhelmed by drift. "steps" is ``evolve_density`` with the bins as saved times. "auto" takes the
        contour where it serves (its results are compared with another engine's) and steps otherwise.
    richardson : bool
        Solve on twice the cells as well and extrapolate: fourth order in h instead of second. The densities of early
        bins may then undershoot zero where the coarse grid does not resolve them.
    progress : bool
        Show a bar (tqdm) while stepping.

    Returns
    -------
    PassageDensity

    Raises
    ------
    ValueError
        For walls that take nothing, edges out of order or that do not span t_span, and as evolve_density.

    A point start needs no care on odd or even numbers of cells. Error O(h²); the mass in each bin is exact to that.
    Sources: López-Fernández & Palencia 2004; Weideman & Trefethen 2007 (contours); Scharfetter & Gummel 1969 (flux).
    """
    check_process(process, grid)
    t0, t1 = checks.time_span(t_span)
    edges = _edges(bins, t0, t1)
    tolerance = checks.real("rtol", rtol, above=0.0)
    method = checks.choice("method", method, METHODS)
    p0 = from_point(start, grid, richardson)
    _check_exits(boundary, grid)
    suits = grid.dim == 1 and process.autonomous
    if method == "contour" and not suits:
        raise ValueError(
            "method 'contour' needs one dimension and coefficients that do not depend on time; use 'steps'"
        )
    if method != "steps" and suits:
        found = _by_contour(process, p0, grid, t0, edges, tolerance, boundary, richardson)
        if found is not None:
            return found
        if method == "contour":
            raise ValueError(
                "method 'contour' fails here: drift outweighs diffusion too far for an inversion to rtol; use 'steps'"
            )
    size = 8 * len(edges) * int(np.prod(grid.shape)) * (1 + (2**grid.dim if richardson else 0))
    if size > MOST_KEPT:
        raise ValueError(f"{len(edges)} saved densities would take {size / 2**30:.1f} GB; take fewer bins or cells")
    rho = evolve_density(
        process, p0, grid, (t0, t1), save=edges, rtol=rtol, boundary=boundary, richardson=richardson, progress=progress
    )
    return PassageDensity(edges, _rising(rho.absorbed), grid, process, rho.boundary, rho.method, float("nan"))


def _by_contour(
    process: Any, p0: Any, grid: Grid, t0: float, edges: np.ndarray, tolerance: float, boundary: Any, richardson: bool
) -> PassageDensity | None:
    """The bins by inversion of the transform; None where its error exceeds the tolerance."""
    sides = walls(boundary)
    found, error = [], 0.0
    for level, m in levels(p0, averages(p0, grid), grid, (False,), richardson):
        coefficients = line_coefficients(process, level, sides)
        operator = coefficients.at(t0)
        if coefficients.still(t0):
            return None
        lost, gap = contour.leaving(operator, m, edges - t0)
        if not gap <= tolerance:
            return None
        try:
            last = steppers.rational_exponential(operator, m, 0.0, [float(edges[-1] - t0)], 0.01 * tolerance)
        except RuntimeError:
            return None
        error = max(error, gap, float(np.abs(lost[-1] - last.absorbed[-1]).max()))
        if not error <= tolerance:
            return None
        if level is grid:
            warn_of_upwinding(last.m[-1], grid, [(operator.peclet, operator.diffusivity)])
        found.append(lost)
    cdf = (4.0 * found[1] - found[0]) / 3.0 if richardson else found[0]
    return PassageDensity(edges, _rising(cdf), grid, process, sides, "contour", error)


def _rising(cdf: np.ndarray) -> np.ndarray:
    """cdf without the falls that are rounding."""
    falls = np.diff(cdf, axis=0)
    if falls.min() >= 0.0 or falls.min() < -ROUNDING:
        return cdf
    return np.asarray(np.maximum.accumulate(cdf, axis=0))


def _edges(bins: Any, t0: float, t1: float) -> np.ndarray:
    if np.ndim(bins) == 0 and not isinstance(bins, str):
        return np.linspace(t0, t1, checks.integer("bins", bins, minimum=1) + 1)
    edges = checks.array("bins", bins)
    if edges.ndim != 1 or len(edges) < 2:
        raise ValueError(f"bins must be a number of bins or at least two edges, got shape {edges.shape}")
    order = np.flatnonzero(np.diff(edges) <= 0.0)
    if len(order):
        i = int(order[0])
        raise ValueError(f"bins must increase; index {i + 1}: {edges[i + 1]:g} after {edges[i]:g}")
    if edges[0] != t0 or edges[-1] != t1:
        raise ValueError(f"bins must reach from t0 = {t0:g} to t1 = {t1:g}, got {edges[0]:g} to {edges[-1]:g}")
    return edges


def _check_exits(boundary: Any, grid: Grid) -> None:
    sides = [wall for pair in walls_of_axes(boundary, grid.dim) for wall in pair]
    if any(isinstance(wall, Inflow) for wall in sides):
        raise ValueError("a first passage needs paths that all start at t0; Inflow lets them start later")
    if not any(wall == "absorbing" or (isinstance(wall, Robin) and wall.rate > 0.0) for wall in sides):
        raise ValueError("no wall takes what reaches it; pass boundary='absorbing', Robin(rate), or a pair with one")
