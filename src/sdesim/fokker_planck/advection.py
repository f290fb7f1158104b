"""Transport without diffusion, dp/dt = −∂x(μ p): the continuity equation along its characteristics.

A finite difference of the flux smears a profile a little in every one of its many steps. In one dimension
none of that is needed: the distribution function F(x, t) is constant along the characteristics
dx/dt = μ(x, t), so that

    F(e, t) = F(foot of e, t0),     cell average = [F(e_(i+1), t) − F(e_i, t)] / h.

Each cell edge is traced back to the start by an embedded Runge-Kutta pair of order 5(4) (Dormand & Prince
1980), and the initial distribution function is interpolated there **once**, whatever the time: mass
telescopes to rounding, and p >= 0 because the interpolant is monotone. It is a piecewise cubic whose slopes
at the edges are fourth-order edge values of p, limited to [0, 3 min(p left, p right)] (de Boor & Swartz
1977), which acts only next to empty cells: smooth peaks are not clipped. The same idea with one remap a step
is the conservative semi-Lagrangian scheme (Zerroukat et al. 2002; Colella & Woodward 1984 for the parabola).

A characteristic that meets a wall on its way back brings nothing with it from beyond.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .boundary import walls
from .grid import Grid
from .mark import Mark
from .operator import evaluate
from .steppers import Evolution, Report

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def transport(
    drift: Callable[[np.ndarray, float], Any],
    grid: Grid,
    boundary: Any,
    m0: np.ndarray,
    t0: float,
    times: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    mark: Mark | None = None,
) -> Evolution:
    """The masses at each of ``times``; edges are traced to ``tolerance`` times the cell width.

    At a reflecting wall mass that is driven against it stays in the last cell; an absorbing wall takes it.
    """
    low, high = walls(boundary)
    periodic = low == "periodic"
    cumulative = np.concatenate([[0.0], np.cumsum(m0)])
    p0 = m0 / grid.spacing
    slopes = edge_values(p0, periodic=periodic)
    near = np.concatenate([p0[-1:] if periodic else p0[:1], p0, p0[:1] if periodic else p0[-1:]])
    slopes = np.clip(slopes, 0.0, 3.0 * np.minimum(near[:-1], near[1:]))
    steps = rejected = 0
    rows: list[np.ndarray] = []
    lost: list[Any] = []
    mark = mark or Mark()
    if found := mark.start(rows, lost):
        steps, rejected = int(found["steps"]), int(found["rejected"])
    for goal in times[len(rows) :]:
        feet, n, r = np.array(grid.edges), 0, 0
        if goal > t0:
            feet, n, r = _trace_back(drift, grid, periodic, goal, t0, tolerance * grid.spacing)
        if low == "reflecting":
            feet[0] = grid.lower
        if high == "reflecting":
            feet[-1] = grid.upper
        f = _distribution(grid, cumulative, slopes, feet, periodic)
        if periodic:
            f[-1] = f[0] + cumulative[-1]
        rows.append(np.maximum(np.diff(f), 0.0))
        lost.append((0.0, 0.0) if periodic else (f[0], cumulative[-1] - f[-1]))
        steps, rejected = steps + n, rejected + r
        mark.note(rows, lost, m=rows[-1], t=goal, steps=steps, rejected=rejected)
        if report:
            report(goal)
    return Evolution(np.array(rows), np.array(lost), steps, rejected)


def edge_values(p: np.ndarray, *, periodic: bool) -> np.ndarray:
    """Values of the density at the n + 1 edges, fourth order from cell averages (third at walls)."""
    if periodic:
        q = np.pad(p, 2, mode="wrap")
    else:
        # ghost cells by the parabola through the three outermost averages
        left, right = p[:3], p[:-4:-1]
        ghosts = [(3 * s[0] - 3 * s[1] + s[2], 6 * s[0] - 8 * s[1] + 3 * s[2]) for s in (left, right)]
        q = np.concatenate([[ghosts[0][1], ghosts[0][0]], p, [ghosts[1][0], ghosts[1][1]]])
    return np.asarray((7.0 * (q[1:-2] + q[2:-1]) - (q[:-3] + q[3:])) / 12.0)


def _distribution(grid: Grid, cumulative: np.ndarray, slopes: np.ndarray, x: np.ndarray, periodic: bool) -> np.ndarray:
    """The monotone cubic interpolant of F at x; on a circle F(x + length) = F(x) + mass."""
    n, h = grid.n_cells, grid.spacing
    y = (x - grid.lower) / h
    turns = np.floor(y / n) if periodic else 0.0
    y = np.clip(y - turns * n, 0.0, n)
    i = np.minimum(y.astype(np.int64), n - 1)
    s = y - i
    f0, f1, d0, d1 = cumulative[i], cumulative[i + 1], h * slopes[i], h * slopes[i + 1]
    rise = f1 - f0
    inside = f0 + s * (d0 + s * ((3.0 * rise - 2.0 * d0 - d1) + s * (d0 + d1 - 2.0 * rise)))
    return np.asarray(inside + turns * cumulative[-1])


def _trace_back(
    drift: Callable[[np.ndarray, float], Any],
    grid: Grid,
    periodic: bool,
    t: float,
    t0: float,
    tolerance: float,
) -> tuple[np.ndarray, int, int]:
    """Where the characteristics through the edges at t were at t0; those from beyond a wall end on it."""
    lower, upper, length = grid.lower, grid.upper, grid.upper - grid.lower
    # coefficients are asked for inside the walls only: many are singular on a natural boundary
    inset = 1e-6 * grid.spacing

    def velocity(x: np.ndarray, time: float) -> np.ndarray:
        inside = lower + np.mod(x - lower, length) if periodic else np.clip(x, lower + inset, upper - inset)
        return evaluate("drift", drift, inside, time)

    x = np.array(grid.edges)
    held = np.zeros(len(x), bool)
    slope = velocity(x, t)
    fastest = float(np.abs(slope).max())
    step = min(t - t0, 0.05 * length / fastest if fastest > 0.0 else t - t0)
    steps = rejected = 0
    while t > t0:
        step = min(step, t - t0)
        k = [slope]
        for node, row in zip(NODES, STAGES, strict=True):
            moved = x - step * sum(a * s for a, s in zip(row, k, strict=True) if a)
            k.append(velocity(moved, t - node * step))
        error = step * np.abs(sum(e * s for e, s in zip(ERROR, k, strict=True) if e))
        # an edge that leaves the box ends on its wall: how exactly it left makes no difference
        leaves = held if periodic else held | (moved < lower) | (moved > upper)
        ratio = float(error[~leaves].max(initial=0.0)) / tolerance
        if ratio <= 1.0:
            x, held = np.where(held, x, moved), leaves
            if not periodic:
                x = np.clip(x, lower, upper)
            t = t - step if step < t - t0 else t0
            # the last stage is the slope at the new point, except where a wall has moved the point
            slope, steps = k[-1], steps + 1
        else:
            rejected += 1
        step *= min(5.0, max(0.2, 0.9 * max(ratio, 1e-9) ** -0.2))
        if t > t0 and not step > 1e-13 * (abs(t) + abs(t0)):
            raise RuntimeError(f"the step fell to {step:.1g} at t = {t:g}; the drift is not smooth enough to follow")
    return x, steps, rejected
