"""A grid whose cells follow the solution: fine where the density bends over its life, coarse where nothing happens.

The solver's error in a cell goes like h² p'', its share of the L1 error like h³ |p''|, and for a given number of cells
the sum is least where all cells have the same share: h ∝ |p''|^(−1/3) (de Boor 1973, "Good approximation by splines
with variable knots"; equidistribution). What p'' is comes from a solution on the grid as it is, at times that crowd
towards the start; the smallest widths wanted at any of them count, smoothed so that neighbouring cells differ little,
which the order of the solver needs (Huang & Russell 2011, "Adaptive moving mesh methods", section 2.4).
"""

import warnings
from typing import Any

import numpy as np

from .core import checks
from .evolution import evolve_density
from .fokker_planck.grid import Grid
from .starts import from_point

TIMES = 12
# Cells over which a wanted width spreads: neighbours differ by a factor of about exp(1/SPREAD) at most.
SPREAD = 6.0
# Share of the cells that is spread evenly, and wanted widths below this share of the mean one are not followed further.
EVEN, FINEST = 0.2, 1.0 / 30.0


def adapted_grid(
    process: Any,
    p0: Any,
    grid: Grid,
    t_span: Any,
    *,
    boundary: Any = "reflecting",
    rounds: int = 2,
) -> Grid:
    """A grid with the walls and numbers of cells of ``grid``, its cells as the density over ``t_span`` wants them.

    Arguments
    ---------
    process : Process
    p0 : a point (a number; d numbers), or a function of a grid, e.g. ``lambda g: sde.gaussian(g, 0.0, 0.1)``
        An array would only suit the one grid.
    grid : Grid
        Where to begin: walls and numbers of cells. In several dimensions each axis follows its component's density.
    t_span : (t0, t1)
    boundary : as for evolve_density
    rounds : int
        How often to solve and adapt; the second round sees what the first grid did not resolve.

    Returns
    -------
    Grid

    It pays where the density is sharp in a small part of the box or of its life; for a density that fills the box the
    cells stay nearly equal. The grid serves Richardson extrapolation too: it comes with a smooth map.

    Example
    -------
    >>> process = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.05)
    >>> even = sde.Grid(-1.0, 3.0, 200)
    >>> grid = sde.adapted_grid(process, 2.0, even, (0.0, 1.0))
    >>> rho = sde.evolve_density(process, sde.point_mass(grid, 2.0), grid, (0.0, 1.0))
    """
    t0, t1 = checks.time_span(t_span)
    start = from_point(p0, grid, False)
    if not callable(start):
        raise TypeError("p0 must be a point or a function of a grid: an array suits one grid only, and another is made")
    # not t0: a point mass is as sharp as its cells, on any grid, and that passes at once
    times = t0 + (t1 - t0) * np.geomspace(1e-3, 1.0, TIMES)
    times[-1] = t1
    for _ in range(checks.integer("rounds", rounds, minimum=1)):
        with warnings.catch_warnings():
            # a grid that is too coarse is what this is for
            warnings.simplefilter("ignore", UserWarning)
            rho = evolve_density(process, start, grid, (t0, t1), save=times, boundary=boundary, rtol=1e-4)
        periodic = [pair[0] == "periodic" for pair in ((rho.boundary,) if grid.dim == 1 else rho.boundary)]
        axes = [_adapted(axis, rho.marginal(k), periodic[k]) for k, axis in enumerate(grid.axes)]
        grid = axes[0] if grid.dim == 1 else Grid.product(*axes)
    return grid


def _adapted(axis: Grid, p: np.ndarray, periodic: bool) -> Grid:
    """One axis, its cells equidistributed for densities p (n_times, n_cells)."""
    wanted = np.max([_cells_wanted(axis, row, periodic) for row in p], axis=0)
    (widths,) = axis.widths
    if not wanted.max() > 0.0:
        return axis
    # shares of the cells for each length: what is wanted, and a part spread evenly
    wanted = np.minimum(wanted, float((wanted * widths).sum()) / (axis.upper - axis.lower) / FINEST)
    even = 1.0 / (axis.upper - axis.lower)

    def shares(values: np.ndarray) -> np.ndarray:
        return np.asarray((1.0 - EVEN) * values / float((values * widths).sum()) + EVEN * even)

    density = base = shares(wanted)
    for _ in range(4):
        # how fast it may fall off depends on the cells that come of it
        density = shares(_spread(base, density * widths * axis.n_cells, periodic))
    logarithm = np.log(density)
    from scipy.interpolate import PchipInterpolator

    x = np.concatenate([[axis.lower], axis.centers, [axis.upper]])
    ends = 0.5 * (logarithm[0] + logarithm[-1]) if periodic else None
    values = np.concatenate([
        [logarithm[0] if ends is None else ends], logarithm, [logarithm[-1] if ends is None else ends]
    ])  # fmt: skip
    curve = PchipInterpolator(x, values)
    return Grid.equidistributed(axis.lower, axis.upper, axis.n_cells, lambda at: np.exp(curve(at)))


def _cells_wanted(axis: Grid, p: np.ndarray, periodic: bool) -> np.ndarray:
    """|p''|^(1/3) at the centres, up to a factor."""
    c, length = axis.centers, axis.upper - axis.lower
    if periodic:
        x = np.concatenate([[c[-1] - length], c, [c[0] + length]])
        q = np.concatenate([[p[-1]], p, [p[0]]])
    else:
        x = np.concatenate([[2 * c[0] - c[1]], c, [2 * c[-1] - c[-2]]])
        q = np.concatenate([[p[0]], p, [p[-1]]])
    slopes = np.diff(q) / np.diff(x)
    bend = np.abs(np.diff(slopes) / (0.5 * (x[2:] - x[:-2])))
    if not periodic:  # what bends next to a wall is told by the cell before it
        bend[0], bend[-1] = bend[1], bend[-2]
    # between its zeros p'' is what counts, not where it happens to vanish
    bend = np.maximum(bend, 0.5 * (np.roll(bend, 1) + np.roll(bend, -1)))
    return np.asarray(np.cbrt(bend))


def _spread(wanted: np.ndarray, share: np.ndarray, periodic: bool) -> np.ndarray:
    """Cells per length, raised so that they fall off by exp(−1/SPREAD) a new cell at most, and smoothed."""
    n = len(wanted)
    steps = 0.5 * (share + np.roll(share, -1)) / SPREAD
    log = np.log(wanted)
    for _ in range(2 if periodic else 1):
        for i in range(n if periodic else n - 1):
            j = (i + 1) % n
            log[j] = max(log[j], log[i] - steps[i])
        for i in range(n - 1 if periodic else n - 2, -1, -1):
            j = (i + 1) % n
            log[i] = max(log[i], log[j] - steps[i])
    width = max(2, n // 60)
    kernel = np.hanning(2 * width + 1)
    padded = np.pad(log, width, mode="wrap" if periodic else "edge")
    return np.exp(np.convolve(padded, kernel / kernel.sum(), mode="valid"))
