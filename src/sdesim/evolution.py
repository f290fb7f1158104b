"""The density of a process as it evolves, p(x, t) from the Fokker-Planck equation

    ∂p/∂t = −Σ_k ∂_k J_k,     J_k = μ_k p − Σ_l ∂_l(D_kl p),     D = ½ σσᵀ,

with the Itô drift μ of the process, on a grid of cells. The engine is chosen by what the coefficients are:

=====================  ===============================================================================
``"cf14"``             1-D, constant in time, real spectrum: one rational exponential to any t
``"magnus"``           1-D, time-dependent: two rational exponentials a step, adaptive, fourth order
``"tr_bdf2"``          1-D, a current round a circle, or drift too strong for exponentials: adaptive, second order
``"characteristics"``  1-D, no diffusion at all (Liouville's equation, a probability flow): no smearing
``"splitting"``        2-D and 3-D: implicit along one axis at a time, and transport along axes without
                       diffusion; adaptive, second order
=====================  ===============================================================================

In all of them mass is conserved to rounding and the density stays non-negative (Richardson extrapolation on top
conserves mass, and may undershoot zero where the coarse grid does not resolve; so may mixed derivatives). The paths of
the same process, binned on the same grid, have this density: that is what ``compare`` checks.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from .core import checks, identity
from .core.checkpoint import Checkpoint
from .density import Density
from .fokker_planck import advection, magnus, splitting, steppers
from .fokker_planck.boundary import Inflow, walls, walls_of_axes
from .fokker_planck.box import BoxCoefficients
from .fokker_planck.cells import coarsen
from .fokker_planck.grid import Grid
from .fokker_planck.marks import Marks
from .fokker_planck.operator import Coefficients
from .fokker_planck.stationary import stationary
from .on_grid import box_coefficients, check_process, line_coefficients, need_constant
from .resolution import warn_of_cut, warn_of_upwinding, warn_of_walls
from .starts import averages, levels

METHODS = ("auto", "cf14", "magnus", "tr_bdf2", "characteristics", "splitting")
ALL_TIMES = 100
# Share of the span from which the parts of a rational exponential are too short for "auto".
SHORTEST_PART = 2e-3
# Times at which coefficients that read the time are compared on request, as fractions of the span: irregular (a
# golden-section sequence), so that no period hides.
PROBES = tuple((k * 0.6180339887498949) % 1.0 for k in range(32))


def evolve_density(
    process: Any,
    p0: Any,
    grid: Grid,
    t_span: Any,
    *,
    save: Any = "final",
    rtol: float = 1e-6,
    boundary: Any = None,
    method: str = "auto",
    n_steps: int | None = None,
    richardson: bool = False,
    progress: bool = False,
    checkpoint: Any = None,
) -> Density:
    """Solve ∂p/∂t = −∇·(μ p) + ∇∇:(½σσᵀ p) for the density of a process from p0 over ``t_span``.

    Arguments
    ---------
    process : Process
        Of the dimension of the grid (or a formula on numbers, which acts on each axis alike); its ``ito_drift`` and
        ``diffusion`` are called on arrays of points.
    p0 : array of shape grid.shape, or a function of a grid
        Cell averages that integrate to 1 within 1e-6; or e.g. ``lambda g: point_mass(g, 0.3, order=4)``,
        which Richardson extrapolation calls again on its finer grid (an array is refined by fourth-degree
        polynomials).
    grid : Grid
    t_span : (t0, t1)
    save : "final", "all", int or sequence of times
        An int k saves k + 1 equally spaced times, both ends included; "all" is 100.
    rtol : float
        Relative error in time, measured in L1: Magnus, TR-BDF2 and the splitting keep that of each step below rtol/10,
        the rational exponential below rtol/100; edges are traced along characteristics to rtol cell widths.
    boundary : "reflecting", "absorbing", "periodic", Robin(rate), Inflow(flux), a pair (low, high), or one an axis
        None stands for reflecting walls that the density should not reach: a warning says so if it does.
    method : "auto", "cf14", "magnus", "tr_bdf2", "characteristics" or "splitting"
        "auto" takes, in one dimension, characteristics if σ vanishes everywhere; "cf14" if the formulas do not read the
        time (``process.autonomous``), "magnus" if they do; TR-BDF2 where a current can circulate and where drift
        outweighs diffusion so far that steps are cheaper than exponentials. On request "cf14" is also taken for
        formulas that read the time and are the same bit for bit at 32 irregular times of the span.
    n_steps : int, optional
        Take that many equal steps instead of choosing them by rtol ("tr_bdf2", which "auto" becomes, "magnus" and
        "splitting").
    richardson : bool
        Solve on twice the cells (and, with "splitting", in twice the steps) as well and extrapolate,
        (4 fine − coarse)/3: fourth order in h instead of second. The result may undershoot zero where the coarse grid
        does not resolve the density; see ``Density.minimum``.
    progress : bool
        Show a bar (tqdm).
    checkpoint : path, optional
        A file that is written every 30 s, on Ctrl-C and SIGTERM, and at the end; with it the same call goes on where it
        was, to the same bits.

    Returns
    -------
    Density
        After Ctrl-C that of the saved times that were reached and of the last step, with a warning and
        ``success=False`` (KeyboardInterrupt with ``richardson``, which needs two grids).

    Raises
    ------
    ValueError
        For a density that is negative, not normalised or of the wrong shape; coefficients that are not
        finite; times out of order or out of the span; unknown names; a method that cannot solve the problem.
    TypeError
        For arguments of the wrong kind.

    Error O(h²) in space where cells resolve μ/D (first order, with a warning, where they do not; O(h³) for
    characteristics), O(rtol^(2/3)) in time for TR-BDF2 and the splitting, about O(rtol^(4/5)) for
    Magnus, whose order falls from four to between two and three where the density touches walls.
    Sources: Scharfetter & Gummel 1969; Cody, Meinardus & Varga 1969; Blanes & Moan 2006; Bank et al. 1985;
    Douglas 1962.
    """
    check_process(process, grid)
    t0, t1 = checks.time_span(t_span)
    times = _save_times(save, t0, t1)
    tolerance = checks.real("rtol", rtol, above=0.0)
    checks.truth("progress", progress)
    method = checks.choice("method", method, METHODS)
    steps = None if n_steps is None else checks.integer("n_steps", n_steps, minimum=1)
    start = averages(p0, grid)
    if (grid.dim > 1) != (method == "splitting") and method != "auto":
        raise ValueError(f"method {method!r} is for {'one dimension' if grid.dim > 1 else 'several dimensions'}")
    with Checkpoint(checkpoint, "density") if checkpoint is not None else nullcontext() as kept:
        found = None
        if kept is not None:
            settings = identity.settings(
                process=process, p0=start, grid=grid.edges, t_span=(t0, t1), save=times, rtol=tolerance,
                boundary=boundary, method=method, n_steps=steps, richardson=bool(richardson),
            )  # fmt: skip
            found = kept.begin(settings)
        marks = Marks(kept, found)
        problem = _Problem(process, p0, start, grid, t0, times, tolerance, steps, richardson, progress, marks)
        return _evolve_line(problem, boundary, method) if grid.dim == 1 else _evolve_box(problem, boundary)


def stationary_density(process: Any, grid: Grid, boundary: Any = None) -> Density:
    """The density that the process keeps: 0 = −∇·(μ p) + ∇∇:(½σσᵀ p), normalised on the grid.

    A Density with the single time inf; the array is its ``final``, and ``current()`` what circulates in it. Without a
    current log p is summed from cell to cell (exact at the nodes up to the quadrature of μ/D: to rounding for
    polynomial drifts up to degree five over a constant σ), in any dimension. With one it is the null vector of the
    operator: cyclic in one dimension, by sparse LU in two, by preconditioned GMRES in three.

    ``boundary``: as for ``evolve_density``, "reflecting" or "periodic"; None stands for reflecting walls that the
    density should not reach: a warning says so if it does.

    Raises ValueError for coefficients that depend on time, σ = 0 and walls that let mass pass.
    """
    check_process(process, grid)
    asked, boundary = boundary, "reflecting" if boundary is None else boundary
    if grid.dim > 1:
        from .fokker_planck.stationary_box import box_stationary  # with sparse matrices, which take a while to import

        box = box_coefficients(process, grid, boundary)
        need_constant(box, process, "a stationary density")
        m = box_stationary(box.at(0.0))
        if asked is None:
            warn_of_cut(None, m, grid, lambda k, end: box.crosses(k, end, 0.0), np.inf)
        sides: Any = walls_of_axes(boundary, grid.dim)
        absorbed = np.zeros((1, grid.dim, 2))
    else:
        sides, absorbed = walls(boundary), np.zeros((1, 2))
        line = line_coefficients(process, grid, sides)
        need_constant(line, process, "a stationary density")
        operator = line.at(0.0)
        if line.still(0.0):
            raise ValueError("a process without diffusion has no stationary density: its mass gathers in points")
        m = stationary(operator)
        if asked is None:
            warn_of_cut(None, m, grid, lambda _, end: line.crosses(end, 0.0), np.inf)
    return Density(np.array([np.inf]), (m / grid.cell_volume)[None], grid, process, sides, absorbed, "stationary")


# ---- one dimension --------------------------------------------------------------------------------------------------


class _Problem:
    """What a call of evolve_density asks for, checked."""

    def __init__(
        self, process: Any, p0: Any, start: np.ndarray, grid: Grid, t0: float, times: list[float], tolerance: float,
        n_steps: int | None, richardson: bool, progress: bool, marks: Marks,
    ) -> None:  # fmt: skip
        self.process, self.p0, self.start, self.grid = process, p0, start, grid
        self.t0, self.times, self.tolerance, self.n_steps = t0, times, tolerance, n_steps
        self.richardson, self.progress, self.marks = richardson, progress, marks

    def levels(self, sides: tuple[Any, ...]) -> list[tuple[Grid, np.ndarray]]:
        """The grids to solve on and the masses to start from."""
        return levels(self.p0, self.start, self.grid, tuple(low == "periodic" for low, _ in sides), self.richardson)

    def unfinished(self, sides: Any, method: str) -> Density:
        """The density as far as it came; KeyboardInterrupt where that is nowhere."""
        found = None if self.richardson else self.marks.now.reached(self.times)
        if found is None:
            raise KeyboardInterrupt
        times, m, absorbed = found
        message = f"interrupted at t = {times[-1]:g} of {self.times[-1]:g}"
        warnings.warn(f"{message}: the density is returned up to there", RuntimeWarning, stacklevel=4)
        p = m / self.grid.cell_volume
        return Density(
            np.array(times), p, self.grid, self.process, sides, absorbed, method, success=False, message=message
        )  # fmt: skip

    def density(self, results: list[Any], sides: Any, method: str) -> Density:
        """The density of the results on those grids, extrapolated where there are two."""
        self.marks.write()
        m, absorbed = results[-1].m, results[-1].absorbed
        if self.richardson:
            m = (4.0 * coarsen(m, self.grid.dim) - results[0].m) / 3.0
            absorbed = (4.0 * absorbed - results[0].absorbed) / 3.0
        taken, rejected = sum(r.n_steps for r in results), sum(r.n_rejected for r in results)
        p = m / self.grid.cell_volume
        return Density(np.array(self.times), p, self.grid, self.process, sides, absorbed, method, taken, rejected)


def _evolve_line(problem: _Problem, boundary: Any, method: str) -> Density:
    sides = walls("reflecting" if boundary is None else boundary)
    process, grid, t0, t1, asked = problem.process, problem.grid, problem.t0, problem.times[-1], method
    warn_of_walls(problem.start, grid, (sides,))
    coefficients = line_coefficients(process, grid, sides)
    method, constant = _engine(coefficients, process.autonomous, method, t0, t1)
    if problem.n_steps is not None and method != "tr_bdf2" and asked != "magnus":
        if method == "characteristics":
            raise ValueError("n_steps is for 'tr_bdf2' and 'magnus'; characteristics are traced to rtol")
        method = "tr_bdf2"
    grids = problem.levels((sides,))
    least = SHORTEST_PART if asked == "auto" else 1e-6

    def solved(method: str) -> list[steppers.Evolution]:
        problem.marks.begin(METHODS.index(method))
        found = []
        with _bar(problem.progress, t0, t1, len(grids)) as bar:
            for k, (level, m) in enumerate(grids):
                at_level = coefficients if level is grid else line_coefficients(process, level, sides)
                found.append(_solve(at_level, m, method, constant, problem, bar(k), least))
        return found

    if problem.marks.method is not None and asked == "auto":
        method = METHODS[problem.marks.method]
    try:
        try:
            results = solved(method)
        except RuntimeError:
            if method not in ("cf14", "magnus") or asked != "auto":
                raise
            # drift outweighs diffusion so far that steps are cheaper
            method = "tr_bdf2"
            results = solved(method)
    except KeyboardInterrupt:
        return problem.unfinished(sides, method)
    m = results[0].m[-1]
    if method != "characteristics":
        operator = coefficients.at(t1) if not constant else coefficients.at(t0)
        warn_of_upwinding(m, grid, [(operator.peclet, operator.diffusivity)])
    if boundary is None:
        warn_of_cut(grids[0][1], m, grid, lambda _, end: coefficients.crosses(end, t1), t1)
    return problem.density(results, sides, method)


def _solve(
    coefficients: Coefficients, m: np.ndarray, method: str, constant: bool, problem: _Problem,
    report: steppers.Report | None, least: float,
) -> Any:  # fmt: skip
    t0, times, tolerance, solve = problem.t0, problem.times, problem.tolerance, problem.marks.solve
    if method == "characteristics":
        sides = (coefficients.low, coefficients.high)
        shape, drift = m.shape, coefficients.drift
        return solve(advection.transport, shape, drift, coefficients.grid, sides, m, t0, times, tolerance, report)
    if method == "cf14":
        at = coefficients.at(t0)
        return solve(steppers.rational_exponential, m.shape, at, m, t0, times, 0.01 * tolerance, report, least)
    step = None if problem.n_steps is None else (times[-1] - t0) / problem.n_steps
    given: dict[str, Any] = {"constant": constant} if method == "tr_bdf2" else {"least": least}
    stepper = steppers.tr_bdf2 if method == "tr_bdf2" else magnus.magnus
    return solve(stepper, m.shape, coefficients, m, t0, times, 0.1 * tolerance, report, fixed_step=step, **given)


def _engine(coefficients: Coefficients, autonomous: bool, method: str, t0: float, t1: float) -> tuple[str, bool]:
    """The engine, and whether the coefficients need no second evaluation."""
    probes = [t0] if autonomous else [t0 + share * (t1 - t0) for share in PROBES]
    operator = coefficients.at(t0)
    still = all(coefficients.still(t) for t in probes)
    if method == "characteristics" and not still:
        raise ValueError("method 'characteristics' is for processes without diffusion; use 'auto'")
    if method == "characteristics" or (method == "auto" and still):
        if not coefficients.grid.uniform:
            raise ValueError("transport along characteristics needs equal cells; give a Grid(lower, upper, n_cells)")
        if any(isinstance(wall, Inflow) for wall in (coefficients.low, coefficients.high)):
            raise ValueError("a process without diffusion takes no Inflow; use 'reflecting' or 'absorbing'")
        return "characteristics", False
    if method in ("tr_bdf2", "magnus"):
        if method == "magnus" and coefficients.periodic:
            raise ValueError(
                "method 'magnus' needs a real spectrum, and a current may run round a circle; use 'tr_bdf2'"
            )
        return method, False
    # formulas that read the time may change for a moment that no probe meets: they are constant on request only
    constant = autonomous or (method == "cf14" and coefficients.constant(probes))
    circulates = constant and operator.circulates
    if method == "auto":
        if constant:
            return ("tr_bdf2" if circulates else "cf14"), True
        return ("tr_bdf2" if coefficients.periodic else "magnus"), False
    if not constant:
        raise ValueError("method 'cf14' needs coefficients that do not depend on time; use 'tr_bdf2'")
    if circulates:
        raise ValueError("method 'cf14' needs a real spectrum, but a current runs round the circle; use 'tr_bdf2'")
    return method, True


# ---- several dimensions ---------------------------------------------------------------------------------------------


def _evolve_box(problem: _Problem, boundary: Any) -> Density:
    grid, t0, times = problem.grid, problem.t0, problem.times
    sides = walls_of_axes("reflecting" if boundary is None else boundary, grid.dim)
    warn_of_walls(problem.start, grid, sides)
    levels = problem.levels(sides)
    results: list[Any] = []
    problem.marks.begin(METHODS.index("splitting"))
    try:
        with _bar(problem.progress, t0, times[-1], len(levels)) as bar:
            for k, (level, m) in enumerate(levels):
                coefficients: BoxCoefficients = box_coefficients(problem.process, level, sides)
                # the finer grid repeats the steps of the coarser one in halves, so that both errors have one form
                steps = results[0].steps if results else None
                results.append(
                    problem.marks.solve(
                        splitting.evolve, m.shape, coefficients, m, t0, times, 0.1 * problem.tolerance, bar(k),
                        n_steps=problem.n_steps, halved=steps,
                    )
                )  # fmt: skip
    except KeyboardInterrupt:
        return problem.unfinished(sides, "splitting")
    m, at_end = results[0].m[-1], box_coefficients(problem.process, grid, sides)
    warn_of_upwinding(m, grid, at_end.peclet(times[-1]))
    if boundary is None:
        warn_of_cut(levels[0][1], m, grid, lambda k, end: at_end.crosses(k, end, times[-1]), times[-1])
    return problem.density(results, sides, "splitting")


# ---- arguments ------------------------------------------------------------------------------------------------------


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


@contextmanager
def _bar(progress: bool, t0: float, t1: float, levels: int) -> Iterator[Callable[[int], steppers.Report | None]]:
    """For each of the grids solved on, by number, a callable that is told the time reached; or None.

    The times may go back, where steps are rejected: the bar waits until they are made up for.
    """
    if not progress:
        yield lambda level: None
        return
    from tqdm.auto import tqdm

    span = t1 - t0
    with tqdm(total=levels * span, desc="density", unit="t", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:

        def reach(done: float) -> None:
            # set, not added to: a sum of many parts may end beyond the whole, of which tqdm warns
            bar.n = max(bar.n, done)
            bar.update(0)

        def of_level(level: int) -> steppers.Report:
            def report(t: float) -> None:
                reach(level * span + min(t - t0, span))

            return report

        yield of_level
        reach(levels * span)
