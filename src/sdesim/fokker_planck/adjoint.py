"""Backwards in time: the expectation u(x, t) = E[f(X_T) | X_t = x] in one dimension.

With s = T − t left to go, u obeys the backward Kolmogorov equation ∂u/∂s = μ ∂u/∂x + D ∂²u/∂x² (Kolmogorov 1931). On
the grid that is du/ds = Aᵀ u with the very matrix of the densities, so that

    Σ f(x_i) m_i(T) = Σ u_i(t) m_i(t)

for every density m holds to the accuracy of the exponentials, whatever the cells. The engines are those of the forward
problem on the transposed bands: the rational exponential where nothing depends on time, and adaptive TR-BDF2.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import steppers, tridiagonal
from .operator import Coefficients, Operator
from .steppers import ALPHA, C1, C2, E0, E1, E2, GAMMA, SHORTEST, UNIFORM_ERROR, Report


class Expectation(NamedTuple):
    """u at the requested times to go, and the work done."""

    u: np.ndarray
    n_steps: int
    n_rejected: int


def transposed(operator: Operator) -> Operator:
    """The operator whose bands are those of Aᵀ; nothing enters, and f counts as 0 for what a wall has absorbed."""
    lower, diagonal, upper = operator.bands
    bands = np.stack([np.roll(upper, 1), diagonal, np.roll(lower, -1)])
    return dataclasses.replace(operator, bands=bands, inflow=np.zeros(2))


def rational_exponential(
    operator: Operator, f: np.ndarray, to_go: Sequence[float], tolerance: float, report: Report | None = None
) -> Expectation:
    """exp(s Aᵀ) f at each s of ``to_go`` (increasing from 0); error about ``tolerance`` times the range of f.

    Raises RuntimeError if a part would be shorter than a millionth of the way.
    """
    back = transposed(operator)
    # what is constant stays so without rounding where no mass is lost
    level = 0.5 * float(f.max() + f.min()) if not operator.absorbs else 0.0
    u = f - level
    size = max(float(np.abs(u).max()), np.finfo(float).tiny)
    # the sum over cells of |T(tAᵀ) u| bounds its maximum, which the error 3e-14 T² refers to
    allowed = size * max(math.sqrt(tolerance / UNIFORM_ERROR), 2.0 * len(f))
    s, trial, steps, rejected, rows = 0.0, math.inf, 0, 0, []
    for goal in to_go:
        while s < goal:
            ds = min(trial, goal - s)
            new, indicator = steppers._exponential(back, u, ds, True)
            if not (indicator <= allowed and float(np.abs(new).max()) <= (1.0 + tolerance) * size):
                trial, rejected = 0.25 * ds, rejected + 1
                if trial < 1e-6 * to_go[-1]:
                    raise RuntimeError(f"the rational exponential needs steps below {trial:.1g}; use method='tr_bdf2'")
                continue
            u, s, steps = new, s + ds, steps + 1
            if goal - s <= 1e-14 * abs(goal):
                s = goal
            if report:
                report(s)
        rows.append(u + level)
    return Expectation(np.array(rows), steps, rejected)


def tr_bdf2(
    coefficients: Coefficients,
    f: np.ndarray,
    t1: float,
    to_go: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    *,
    constant: bool = False,
    fixed_step: float | None = None,
) -> Expectation:
    """u at each of the times ``to_go`` before t1 by adaptive TR-BDF2 with A at t1 − s.

    The error of each step stays below ``tolerance`` times the range of f; ``fixed_step`` switches the control off.

    Raises RuntimeError when the step falls below rounding.
    """
    known: list[tuple[Operator, Operator]] = []

    def at(s: float) -> Operator:
        operator = coefficients.at(t1 if constant else t1 - s)
        if not known or known[0][0] is not operator:
            known[:] = [(operator, transposed(operator))]
        return known[0][1]

    nothing, scale = np.zeros(2), max(float(np.ptp(f)), float(np.abs(f).max()) * 1e-300, np.finfo(float).tiny)
    u, s, steps, rejected, rows = f, 0.0, 0, 0, []
    operator, span = at(0.0), to_go[-1]
    rate = float(np.abs(operator.bands[1]).max())
    ds = fixed_step or min(span, 0.1 / rate if rate > 0.0 else span)
    slope = tridiagonal.apply(operator.bands, operator.absorption, True, u, nothing)
    factors: dict[int, tuple[float, Operator, np.ndarray]] = {}

    def factor(slot: int, of: Operator, step: float) -> np.ndarray:
        kept = factors.get(slot) or factors.get(1 - slot)
        if kept is None or kept[0] != step or kept[1] is not of:
            kept = (step, of, tridiagonal.factor(of.bands, of.absorption, True, 1.0, ALPHA * step, of.periodic))
        factors[slot] = kept
        return kept[2]

    for goal in to_go:
        while s < goal:
            left = goal - s
            step = left if ds >= left * (1.0 - 1e-12) else (0.5 * left if ds > 0.5 * left else ds)
            middle = operator if constant else at(s + GAMMA * step)
            end = operator if constant else at(s + step)
            r = u + ALPHA * step * slope
            tridiagonal.solve(factor(0, middle, step), r, operator.periodic)
            new = C1 * r - C2 * u
            tridiagonal.solve(factor(1, end, step), new, operator.periodic)
            last = tridiagonal.apply(end.bands, end.absorption, True, new, nothing)
            between = tridiagonal.apply(middle.bands, middle.absorption, True, r, nothing)
            error = step * (E0 * slope + E1 * between + E2 * last)
            tridiagonal.solve(factor(1, end, step), error, operator.periodic)
            ratio = float(np.abs(error).max()) / (tolerance * scale)
            grow = 0.9 * max(ratio, 1e-6) ** (-1.0 / 3.0)
            if fixed_step is None and not ratio <= 1.0:
                rejected += 1
                ds = step * max(0.1, min(0.7, grow))
                if not ds > max(1e-14 * (s if constant else max(s, abs(t1))), SHORTEST * span):
                    raise RuntimeError(
                        f"the step fell to {ds:.1g} at t = {t1 - s:g}; the coefficients change too fast there"
                    )
                continue
            u, slope, operator = new, last, end
            s, steps = (goal if step == left else s + step), steps + 1
            if fixed_step is None and step >= 0.5 * ds and grow > 1.4:
                ds = max(ds, step * min(4.0, 2.0 ** (math.floor(2.0 * math.log2(grow)) / 2.0)))
            if report:
                report(s)
        rows.append(u)
    return Expectation(np.array(rows), steps, rejected)
