"""Backwards in time in two and three dimensions: du/ds = Aᵀ u, implicit along one axis at a time.

Along an axis with diffusion (A_kᵀ u)_i = f_i (u_(i+1) − u_i) + b_i (u_(i−1) − u_i) with the rates of the jumps: what
a path gains by a jump, times how often it jumps. A step is that of Hundsdorfer & Verwer (2003), with Θ = ½ + √3/6 and
the mixed derivatives explicit, or for two axes without them that of Douglas (1962) with Θ = ½; the first two are
replaced by two implicit Euler steps of half the length each, which damp jumps of f. Along an axis without diffusion u
is constant on the characteristics, u(x, s + ds) = u(x(ds), s): quintic interpolation at their far ends, limited
where u is rough, in Strang's order (1968).

The steps are equal. Their number is doubled until u changes by less than the tolerance, so that the error in time is
known as a whole: second order.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.cache import kernel
from .adjoint import Expectation
from .boundary import Robin
from .box import Axis, BoxCoefficients, BoxOperator
from .grid import Grid
from .sparse import mixed_part
from .steppers import Report
from .transport import CIRCLE, CLOSED, OPEN, _between

THETA_DOUGLAS, THETA_VERWER = 0.5, 0.5 + math.sqrt(3.0) / 6.0
DAMPED = 2
FIRST, MOST = 16, 2**14


def evolve(
    coefficients: BoxCoefficients,
    f: np.ndarray,
    t1: float,
    to_go: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    *,
    n_steps: int | None = None,
) -> Expectation:
    """u at each of the times ``to_go`` before t1; ``tolerance`` relative to the range of f.

    Raises RuntimeError where 2¹⁴ steps do not do.
    """
    if n_steps is not None:
        u, taken = _run(coefficients, f, t1, to_go, n_steps, report)
        return Expectation(u, taken, 0)
    scale = max(float(np.ptp(f)), np.finfo(float).tiny)
    count, wasted = FIRST, 0
    rough, taken = _run(coefficients, f, t1, to_go, count, report)
    while True:
        count, wasted = 2 * count, wasted + taken
        u, taken = _run(coefficients, f, t1, to_go, count, report)
        error = float(np.abs(u - rough).max()) / (3.0 * scale)
        if error <= tolerance:
            return Expectation(u, taken, wasted)
        if count >= MOST:
            raise RuntimeError(f"{count} steps leave an error of {error:.1g} in time (wanted {tolerance:.1g})")
        # second order tells how many are needed
        wanted = count * math.sqrt(error / tolerance)
        while 4 * count < wanted and 2 * count < MOST:
            count *= 2
        rough = u
        if count > taken:
            rough, more = _run(coefficients, f, t1, to_go, count, report)
            wasted, taken = wasted + taken, more


def _run(
    coefficients: BoxCoefficients, f: np.ndarray, t1: float, to_go: Sequence[float], count: int, report: Report | None
) -> tuple[np.ndarray, int]:
    u, s, taken, rows = f, 0.0, 0, []
    step: _Step | None = None
    for goal in to_go:
        parts = max(1, math.ceil(count * (goal - s) / to_go[-1] - 1e-9)) if goal > s else 0
        ds = (goal - s) / max(parts, 1)
        for _ in range(parts):
            operator = coefficients.at(t1 - s - 0.5 * ds)
            if step is None or step.operator is not operator or abs(step.ds - ds) > 1e-12 * ds:
                step = _Step(operator, ds)
            u = step.take(u, damped=taken < DAMPED)
            s, taken = s + ds, taken + 1
            if report:
                report(s)
        s = goal
        rows.append(u)
    return np.array(rows), taken


class _Step:
    """One step of the length ds with one operator."""

    def __init__(self, operator: BoxOperator, ds: float) -> None:
        self.operator, self.ds, grid = operator, ds, operator.grid
        self.jumping = [k for k, axis in enumerate(operator.axes) if axis.velocity is None]
        self.mixed = [mixed_part(operator, k, j, values).T.tocsr() for (k, j), values in operator.mixed.items()]
        self.verwer = bool(self.mixed) or len(self.jumping) > 2
        theta = THETA_VERWER if self.verwer else THETA_DOUGLAS
        self.rates = [_rates(operator, k) for k in self.jumping]
        self.factors = [_factors(*rates, theta * ds) for rates in self.rates]
        self.damping = [_factors(*rates, 0.5 * ds) for rates in self.rates]
        self.theta = theta
        self.feet = {}
        for k in operator.degenerate:
            whole = k == operator.degenerate[-1] and not self.jumping
            self.feet[k] = _feet(operator.axes[k], grid, k, ds if whole else 0.5 * ds)

    def take(self, u: np.ndarray, damped: bool) -> np.ndarray:
        moved = self.operator.degenerate
        if not self.jumping:
            order = (*moved, *moved[-2::-1])
            for k in order:
                u = self._carried(u, k)
            return u
        for k in moved:
            u = self._carried(u, k)
        u = self._damped(u) if damped else self._diffused(u)
        for k in moved[::-1]:
            u = self._carried(u, k)
        return u

    def _apply(self, u: np.ndarray) -> np.ndarray:
        out = np.zeros(u.shape)
        for k, (f, b, circle) in zip(self.jumping, self.rates, strict=True):
            _add(f, b, _lines(u, k), _lines(out, k), circle)
        for part in self.mixed:
            out += (part @ u.ravel()).reshape(u.shape)
        return out

    def _solve(self, factors: list[Any], g: float, x: np.ndarray) -> np.ndarray:
        # the transpose of a forward step takes the axes in the opposite order
        for k, (f, b, circle), (q, c) in reversed(list(zip(self.jumping, self.rates, factors, strict=True))):
            _sweep(f, b, q, c, g, circle, _lines(x, k))
        return x

    def _diffused(self, u: np.ndarray) -> np.ndarray:
        ds, g = self.ds, self.theta * self.ds
        slope = ds * self._apply(u)
        first = self._solve(self.factors, g, slope.copy())
        if not self.verwer:
            return np.asarray(u + first)
        second = self._solve(self.factors, g, slope + 0.5 * ds * self._apply(first) - first)
        return np.asarray(u + first + second)

    def _damped(self, u: np.ndarray) -> np.ndarray:
        g = 0.5 * self.ds
        for order in (1, -1):
            x = u.copy()
            for part in self.mixed:
                x += g * (part @ u.ravel()).reshape(u.shape)
            pieces = list(zip(self.jumping, self.rates, self.damping, strict=True))[::order]
            for k, (f, b, circle), (q, c) in pieces:
                _sweep(f, b, q, c, g, circle, _lines(x, k))
            u = x
        return u

    def _carried(self, u: np.ndarray, k: int) -> np.ndarray:
        out, axis = np.empty(u.shape), self.operator.axes[k]
        low, high = (_kind(wall) for wall in axis.sides)
        _interpolate(_lines(u, k), self.feet[k], low, high, _lines(out, k))
        return out


def _lines(array: np.ndarray, k: int) -> np.ndarray:
    shape = array.shape
    return array.reshape(math.prod(shape[:k]), shape[k], math.prod(shape[k + 1 :]))


def _rates(operator: BoxOperator, k: int) -> tuple[np.ndarray, np.ndarray, bool]:
    axis = operator.axes[k]
    assert axis.forward is not None
    assert axis.backward is not None
    return _lines(axis.forward, k), _lines(axis.backward, k), axis.periodic


def _kind(wall: Any) -> int:
    if wall == "periodic":
        return CIRCLE
    return OPEN if wall == "absorbing" or isinstance(wall, Robin) else CLOSED


@kernel
def _add(f, b, u, out, circle):
    """out += f (u_next − u) + b (u_before − u), u = 0 beyond walls."""
    before, n, after = u.shape
    for o in range(before):
        for i in range(n):
            up, down = (i + 1) % n, (i - 1) % n
            beyond_up = not circle and i + 1 == n
            beyond_down = not circle and i == 0
            for a in range(after):
                here = u[o, i, a]
                above = 0.0 if beyond_up else u[o, up, a]
                below = 0.0 if beyond_down else u[o, down, a]
                out[o, i, a] += f[o, i, a] * (above - here) + b[o, i, a] * (below - here)


@kernel
def _factors(f, b, circle, g):
    """Reciprocal pivots of I − g A_kᵀ, and on a circle the response to the corner (Sherman & Morrison 1950)."""
    before, n, after = f.shape
    q = np.empty((before, n, after))
    correction = np.zeros((before, n, after) if circle else (0, 0, 0))
    for o in range(before):
        for a in range(after):
            first = 1.0 + g * (f[o, 0, a] + b[o, 0, a])
            q[o, 0, a] = 1.0 / (2.0 * first if circle else first)
            for i in range(1, n):
                pivot = 1.0 + g * (f[o, i, a] + b[o, i, a])
                if circle and i == n - 1:
                    pivot += g * f[o, n - 1, a] * g * b[o, 0, a] / first
                pivot -= g * b[o, i, a] * g * f[o, i - 1, a] * q[o, i - 1, a]
                q[o, i, a] = 1.0 / pivot
            if circle:
                # M = T + u vᵀ, u = (−first, 0, …, −g f_(n−1)), v = (1, 0, …, g b_0 / first)
                correction[o, 0, a], correction[o, n - 1, a] = -first, -g * f[o, n - 1, a]
    if circle:
        _eliminate(f, b, q, g, correction)
        for o in range(before):
            for a in range(after):
                ratio = g * b[o, 0, a] / (1.0 + g * (f[o, 0, a] + b[o, 0, a]))
                s = 1.0 / (1.0 + correction[o, 0, a] + ratio * correction[o, n - 1, a])
                for i in range(n):
                    correction[o, i, a] *= s
    return q, correction


@kernel
def _eliminate(f, b, q, g, x):
    before, n, after = x.shape
    for o in range(before):
        for a in range(after):
            x[o, 0, a] *= q[o, 0, a]
        for i in range(1, n):
            for a in range(after):
                x[o, i, a] = q[o, i, a] * (x[o, i, a] + g * b[o, i, a] * x[o, i - 1, a])
        for i in range(n - 2, -1, -1):
            for a in range(after):
                x[o, i, a] += q[o, i, a] * g * f[o, i, a] * x[o, i + 1, a]


@kernel
def _sweep(f, b, q, correction, g, circle, x):
    """(I − g A_kᵀ) x = x in place."""
    _eliminate(f, b, q, g, x)
    if circle:
        before, n, after = x.shape
        for o in range(before):
            for a in range(after):
                ratio = g * b[o, 0, a] / (1.0 + g * (f[o, 0, a] + b[o, 0, a]))
                c = x[o, 0, a] + ratio * x[o, n - 1, a]
                for i in range(n):
                    x[o, i, a] -= c * correction[o, i, a]


def _feet(axis: Axis, grid: Grid, k: int, ds: float) -> np.ndarray:
    """Where the flow takes each centre within ds, in cells: (before, n, after), centres at i + ½."""
    assert axis.velocity is not None
    n, edges = grid.shape[k], np.asarray(grid.axes[k].edges)
    per_cell = 1.0 / np.gradient(edges) if not grid.axes[k].uniform else np.full(n + 1, n / (edges[-1] - edges[0]))
    velocity = np.ascontiguousarray(axis.velocity.reshape(*_lines_shape(grid.shape, k, n + 1)))
    feet = np.empty(_lines_shape(grid.shape, k, n))
    _trace(velocity, per_cell, ds, _kind(axis.sides[0]), feet)
    return feet


def _lines_shape(shape: tuple[int, ...], k: int, n: int) -> tuple[int, int, int]:
    return math.prod(shape[:k]), n, math.prod(shape[k + 1 :])


@kernel
def _trace(velocity, per_cell, ds, low, feet):
    """Classical Runge-Kutta in index space, in substeps that bend the velocity by 0.05 at most."""
    before, n, after = feet.shape
    w = np.empty(n + 1)
    for o in range(before):
        for a in range(after):
            bend = 0.0
            for i in range(n + 1):
                w[i] = velocity[o, i, a] * per_cell[i]
                if i > 0:
                    bend = max(bend, abs(w[i] - w[i - 1]))
            steps = min(max(1, int(np.ceil(20.0 * bend * ds))), 10000)
            h = ds / steps
            for i in range(n):
                y = i + 0.5
                for _ in range(steps):
                    k1 = _between(w, y, n, low)
                    k2 = _between(w, y + 0.5 * h * k1, n, low)
                    k3 = _between(w, y + 0.5 * h * k2, n, low)
                    k4 = _between(w, y + h * k3, n, low)
                    y += h * (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0
                feet[o, i, a] = y


@kernel
def _interpolate(u, feet, low, high, out):
    """u at the feet by polynomials through the six nearest centres, between the two nearest except at smooth peaks.

    Next to walls through the four, the two nearest: what is not centred does not stay bounded. Beyond the last centre u
    is that of the centre, or falls to 0 at a wall that lets mass out.
    """
    before, n, after = u.shape
    w = np.empty(6)
    for o in range(before):
        for i in range(n):
            for a in range(after):
                y = feet[o, i, a] - 0.5
                scale = 1.0
                if low == CIRCLE:
                    y -= np.floor(y / n) * n
                    j, points = min(int(y), n - 1), min(6, n - n % 2)
                else:
                    if low == OPEN:
                        scale = min(max(2.0 * y + 1.0, 0.0), 1.0)
                    if high == OPEN:
                        scale = min(scale, min(max(2.0 * (n - y) - 1.0, 0.0), 1.0))
                    y = min(max(y, 0.0), n - 1.0)
                    j = min(int(y), n - 2)
                    points = min(6, 2 * min(j + 1, n - 1 - j))
                first = j - points // 2 + 1
                s, value = y - first, 0.0
                for p in range(points):
                    w[p] = 1.0
                    for q in range(points):
                        if q != p:
                            w[p] *= (s - q) / (p - q)
                    value += w[p] * u[o, (first + p) % n, a]
                here, next_one = u[o, j, a], u[o, (j + 1) % n, a]
                least, most = min(here, next_one), max(here, next_one)
                if value < least or value > most:
                    # a peak between two centres bends alike at both of them
                    bend, other = 0.0, 0.0
                    if points >= 4:
                        bend = u[o, (j - 1) % n, a] - 2.0 * here + next_one
                        other = here - 2.0 * next_one + u[o, (j + 2) % n, a]
                    if not (bend * other > 0.0 and abs(bend) < 4.0 * abs(other) and abs(other) < 4.0 * abs(bend)):
                        value = min(max(value, least), most)
                out[o, i, a] = scale * value
