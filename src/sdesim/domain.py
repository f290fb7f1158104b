"""Where to put the walls of a grid: the box that holds the law of a process throughout a span of time, but for a tail.

In one dimension the answer comes from the equation itself: the density is solved on a coarse grid with absorbing walls,
which is a matter of a millisecond, and the box grows on the sides through which more than the tail leaves, then shrinks
to where the distribution function says that the tail begins. A point where the noise vanishes and the drift does not
lead on (0 for a geometric Brownian motion or a square-root process) is a wall by itself, and so is the end of where
the formulas are defined; the box stops there.

In several dimensions pilot paths are simulated, and each component's quantiles are continued like those of a Gaussian.
"""

import math
import warnings
from typing import Any

import numpy as np

from .core import checks
from .evolution import evolve_density
from .fokker_planck.cells import cell_averages, point_mass
from .fokker_planck.grid import Grid
from .simulate import simulate

CELLS, TIMES, ROUNDS = 400, 12, 60
# Beyond so many times the first guess a process is taken to explode.
WIDEST = 1e4
PILOTS, PILOT_STEPS = 8192, 128
Bound = tuple[float, float]


def domain(process: Any, start: Any, t_span: Any, *, tail: float = 1e-9) -> tuple[Any, Any]:
    """The box (lower, upper) that holds the law of a process at all times of ``t_span``, but for a tail.

    Arguments
    ---------
    process : Process
    start : a number (or a sequence of them, one for each dimension), or a target
    t_span : (t0, t1)
    tail : float
        Probability beyond each wall at any one time of the span, from 1e-12. In one dimension it is solved for, on a
        coarse grid, whose errors make the box rather too wide; in several it is extrapolated from pilot paths,
        component by component, and should be taken as a guide.

    Returns
    -------
    (lower, upper) : numbers, or tuples of them in several dimensions; two significant digits of the width, outwards.

    Raises
    ------
    ValueError
        If no box holds the process: it explodes.

    Example
    -------
    >>> process = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    >>> grid = sde.Grid(*sde.domain(process, 1.5, (0.0, 2.0)), 400)
    """
    t0, t1 = checks.time_span(t_span)
    tail = checks.real("tail", tail, minimum=1e-12)
    if tail >= 0.5:
        raise ValueError(f"tail must be < 0.5, the probability beyond each wall, got {tail:g}")
    is_target = hasattr(start, "log_density")
    if not is_target:
        start = checks.array("start", start)
    dim = process.dim or (start.dim if is_target else max(start.size, 1))
    if dim > 1:
        return _from_paths(process, start, t0, t1, tail)
    return _from_density(process, start if is_target else float(start.reshape(())), t0, t1, tail)


def _from_density(process: Any, start: Any, t0: float, t1: float, tail: float) -> Bound:
    low, high = _first_guess(process, start, t0, t1)
    middle = 0.5 * (low + high) if hasattr(start, "log_density") else start
    ends: list[float | None] = [None, None]
    before, first = math.inf, high - low
    for _ in range(ROUNDS):
        for k, (inside, outside) in enumerate(((middle, low), (middle, high))):
            if ends[k] is None:
                ends[k] = _natural_end(process, inside, outside, t0)
        low, high = (found if found is not None else guess for found, guess in zip(ends, (low, high), strict=True))
        grid = Grid(low, high, CELLS)
        absorbed, cdf = _solved(process, start, grid, t0, t1, ends)
        grown, width = False, high - low
        if ends[0] is None and absorbed[0] > 0.5 * tail:
            low, grown = low - 0.5 * width, True
        if ends[1] is None and absorbed[1] > 0.5 * tail:
            high, grown = high + 0.5 * width, True
        if not high - low <= WIDEST * first:
            break
        if grown:
            continue
        # where the tails begin at the worst of the times, one cell further out
        begin = int(np.searchsorted(cdf.max(axis=0), 0.5 * tail)) - 2
        end = int(np.searchsorted(-(cdf[:, -1:] - cdf).max(axis=0), -0.5 * tail)) + 1
        low, high = grid.edges[max(begin, 0)], grid.edges[min(end, CELLS)]
        if width > 0.8 * before or high - low > 0.7 * width:
            return _rounded(float(low), float(high), ends)
        before = width
    raise ValueError(
        f"no box holds the process: by t = {t1:g} more than {tail:g} has left through walls {high - low:.3g} apart. It "
        "explodes, or its law has too long a tail for a grid (take its logarithm); or give walls of your own"
    )


def _first_guess(process: Any, start: Any, t0: float, t1: float) -> Bound:
    if hasattr(start, "log_density"):
        x = np.asarray(start.sample(256, 0)).reshape(-1)
        low, high = float(x.min()), float(x.max())
    else:
        low = high = start
        process.check_state(np.array([start]))
    x = np.array([low, high])
    noise = float(np.abs(np.asarray(process.diffusion(x, t0), dtype=float)).max())
    spread = max(8.0 * noise * math.sqrt(t1 - t0), high - low, 1e-3 * max(1.0, abs(low), abs(high)))
    return low - spread, high + spread


def _solved(
    process: Any, start: Any, grid: Grid, t0: float, t1: float, ends: list[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """What has left through the walls, and the distribution function at some times."""
    if hasattr(start, "log_density"):
        p0 = cell_averages(grid, lambda x: np.exp(start.log_density(x)))
        p0 = np.maximum(p0, 0.0) / (p0 * grid.cell_volume).sum()
    else:
        p0 = point_mass(grid, start)
    times = t0 + (t1 - t0) * np.geomspace(1e-3, 1.0, TIMES)
    boundary = tuple("absorbing" if end is None else "reflecting" for end in ends)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        times[-1] = t1
        rho = evolve_density(process, p0, grid, (t0, t1), save=times, boundary=boundary, rtol=1e-4)
    start_cdf = np.concatenate([[0.0], np.cumsum(p0 * grid.cell_volume)])
    return rho.absorbed[-1], np.concatenate([start_cdf[None], rho.cdf])


def _natural_end(process: Any, inside: float, outside: float, t: float) -> float | None:
    """The nearest point on the way out where the process ends by itself, or its formulas do; None if there is none."""

    def look(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            mu, sigma = (np.broadcast_to(f(x, t), x.shape) for f in (process.ito_drift, process.diffusion))
        return np.asarray(mu, float), np.abs(np.asarray(sigma, float))

    x = np.linspace(inside, outside, 513)[1:]
    mu, sigma = look(x)
    defined = np.isfinite(mu) & np.isfinite(sigma)
    limit = None
    if not defined.all():
        i = int(np.argmin(defined))
        good, bad = (x[i - 1] if i else inside), x[i]
        for _ in range(60):
            here = 0.5 * (good + bad)
            (m,), (s,) = look(np.array([here]))
            good, bad = (here, bad) if math.isfinite(m) and math.isfinite(s) else (good, here)
        limit = 0.0 if abs(good) < 1e-12 * abs(outside - inside) else good
        x, mu, sigma = x[:i], mu[:i], sigma[:i]
    scale = float(sigma.max(initial=0.0))
    if scale == 0.0:
        return limit
    # where the noise dips to nothing: zoom in on each local minimum
    dips = (sigma[1:-1] <= 0.1 * scale) & (sigma[1:-1] <= sigma[:-2]) & (sigma[1:-1] <= sigma[2:])
    for i in map(int, np.flatnonzero(dips) + 1):
        a, b = x[i - 1], x[i + 1]
        for _ in range(12):
            near = np.linspace(a, b, 65)
            k = int(np.argmin(look(near)[1]))
            a, b = near[max(k - 1, 0)], near[min(k + 1, 64)]
        point = 0.5 * (a + b)
        point = 0.0 if abs(point) < 1e-12 * abs(outside - inside) else point
        (m,), (s,) = look(np.array([point]))
        if s <= 1e-9 * scale and m * math.copysign(1.0, outside - inside) <= 1e-9 * float(np.abs(mu).max()):
            return float(point)
    return limit


def _from_paths(process: Any, start: Any, t0: float, t1: float, tail: float) -> tuple[Any, Any]:
    point = start if hasattr(start, "log_density") else tuple(map(float, start))
    steps = PILOT_STEPS
    paths = simulate(process, point, (t0, t1), n_steps=steps, n_paths=PILOTS, save=steps // 16, seed=0)
    x = paths.x  # (n_paths, n_times, d)
    # quantiles at 1.25 and 2.5 standard deviations of a Gaussian, continued to the tail as the Gaussian would
    levels = [0.5 * math.erfc(z / math.sqrt(2.0)) for z in (2.5, 1.25)]
    reach = 1.1 * (_normal_quantile(tail) - 2.5) / 1.25
    low = [np.quantile(x, q, axis=0) for q in levels]
    high = [np.quantile(x, 1.0 - q, axis=0) for q in levels]
    lower = np.minimum(low[0] - reach * (low[1] - low[0]), x.min(axis=0)).min(axis=0)
    upper = np.maximum(high[0] + reach * (high[0] - high[1]), x.max(axis=0)).max(axis=0)
    flat = 1e-3 * np.maximum(1.0, np.abs(lower))
    upper = np.where(upper - lower > flat, upper, lower + flat)
    sides = [_rounded(float(a), float(b), [None, None]) for a, b in zip(lower, upper, strict=True)]
    lowers, uppers = zip(*sides, strict=True)
    return tuple(lowers), tuple(uppers)


def _normal_quantile(tail: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(tail))


def _rounded(low: float, high: float, ends: list[float | None]) -> Bound:
    """The bounds moved outwards to two significant digits of the width, except where the process ends."""
    unit = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    digits = max(0, -math.floor(math.log10(unit) + 0.5))
    if ends[0] is None or low > ends[0]:
        low = round(math.floor(low / unit) * unit, digits)
        low = low if ends[0] is None else max(low, ends[0])
    if ends[1] is None or high < ends[1]:
        high = round(math.ceil(high / unit) * unit, digits)
        high = high if ends[1] is None else min(high, ends[1])
    return low, high
