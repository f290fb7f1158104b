"""Drift-implicit Euler schemes, for stiff drifts.

    y = x + (1 − θ) f(x, t) dt + θ f(y, t + dt) dt + g(x, t) dW

θ = 1 (``implicit_euler``) damps every stiff component; θ = ½ (``implicit_trapezoid``) is of second order in the drift
and keeps the exact stationary variance of a linear equation (Kloeden & Platen 1992, §12.2; Higham 2000). y is found by
Newton's method with the Jacobian of f by differences: element by element where the formula is, a d × d system solved
in each path where the components are coupled. A path whose equation is not solved in 30 iterations becomes nan.
"""

import functools
import math
from typing import Any

import numpy as np
from numba import njit

from ..step_text import StepText, nested
from .base import Scheme, fma, stage_function
from .euler_maruyama import kick

_ITERATIONS = 30


@stage_function
def explicit_part(x, f, dt, theta):
    """x + (1 − θ) f dt."""
    return fma(f, (type(dt)(1.0) - theta) * dt, x)


@stage_function
def residual(y, f, known, dt, theta):
    """y − θ f dt − what is known."""
    return fma(-f, theta * dt, y - known)


@njit(error_model="numpy", nogil=True)
def solve(matrix, right, d, i):
    """Solve lane i's d × d system in place by elimination with row pivots: matrix (d·d, 256), right (d, 256)."""
    for k in range(d):
        best = k
        for j in range(k + 1, d):
            if abs(matrix[j * d + k, i]) > abs(matrix[best * d + k, i]):
                best = j
        if best != k:
            for c in range(d):
                old = matrix[k * d + c, i]
                matrix[k * d + c, i] = matrix[best * d + c, i]
                matrix[best * d + c, i] = old
            old = right[k, i]
            right[k, i] = right[best, i]
            right[best, i] = old
        for j in range(k + 1, d):
            factor = matrix[j * d + k, i] / matrix[k * d + k, i]
            for c in range(k + 1, d):
                matrix[j * d + c, i] -= factor * matrix[k * d + c, i]
            right[j, i] -= factor * right[k, i]
    for back in range(d):
        k = d - 1 - back
        total = right[k, i]
        for c in range(k + 1, d):
            total -= matrix[k * d + c, i] * right[c, i]
        right[k, i] = total / matrix[k * d + k, i]


@stage_function
def extent(y, size, largest):
    """The size of a component, against which its differences and changes are measured; never 0."""
    found = abs(y) if abs(y) > size else size
    found = found if found > type(y)(0.0) else largest
    return found if found > type(y)(1e-18) * type(y)(1e-18) else type(y)(1e-18) * type(y)(1e-18)


def step(theta: float, text: Any, keeps: bool) -> None:
    """The lines of one step with its Newton iteration; a path that is solved stays as it is while others go on."""
    T, L = text.T, text.L
    epsilon = float(np.finfo(T.removeprefix("np.")).eps)
    for name, function in (
        ("_explicit", explicit_part), ("_kick", kick), ("_residual", residual), ("_solve", solve), ("_extent", extent),
    ):  # fmt: skip
        text.function(name, function)
    f, g = text.coefficient(0), text.coefficient(1)
    known, change, probe, moved, matrix, off, size, solved = (
        text.buffer(name) for name in ("known", "change", "probe", "moved", "matrix", "off", "size", "solved")
    )
    # the Jacobian by differences of √ε; Newton's error after a last change of ε^(2/3) is far below rounding
    text.before += [f"theta, tiny, small = {T}({theta}), {T}({math.sqrt(epsilon)}), {T}({epsilon ** (2 / 3)})"]
    text.at_time(0.0)
    text.evaluate(1, "x")
    text.evaluate(0, "x")
    text.loop(f"{known}[j, i] = _explicit(x[j, i], {f}[j, i], h, theta)")
    if text.general:
        text.add("for j in range(d):", "    for k in range(m):", f"        for i in range({L}):")
        text.add(f"            {known}[j, i] = _kick({known}[j, i], {g}[j * m + k, i], w[k, i], h, root)")
    else:
        text.loop(f"{known}[j, i] = _kick({known}[j, i], {g}[j, i], w[j, i], h, root)")
    text.loop(f"y[j, i] = {known}[j, i] + theta * h * {f}[j, i]")
    text.add(f"for i in range({L}):", f"    {solved}[0, i] = {off}[1, i] = {T}(0.0)")
    text.loop(
        f"{size}[j, i] = abs(x[j, i]) + abs({known}[j, i]) + abs(theta * h * {f}[j, i])",
        f"{off}[1, i] = {size}[j, i] if {size}[j, i] > {off}[1, i] else {off}[1, i]",
    )
    text.at_time(1.0)
    newton = StepText([], T, L, text.general)
    _add_newton(newton, f, known, change, probe, moved, matrix, off, size, solved)
    text.add("if flags[4] == 0:", f"    for iteration in range({_ITERATIONS}):", *nested(*nested(*newton.lines)))
    text.add(f"    for i in range({L}):", f"        if {solved}[0, i] == {T}(0.0):", "            y[0, i] = np.nan")
    text.loop("x[j, i] = y[j, i]")


def _add_newton(
    text: StepText, f: str, known: str, change: str, probe: str, moved: str, matrix: str, off: str, size: str,
    solved: str,
) -> None:  # fmt: skip
    """One Newton iteration on all paths that are not solved yet."""
    T, L = text.T, text.L
    extent_of = f"_extent(y[{{0}}, i], {size}[{{0}}, i], {off}[1, i])"
    text.add(f"_tile(tiles[0], y, t, p, {f}, d)")
    text.loop(f"{change}[j, i] = _residual(y[j, i], {f}[j, i], {known}[j, i], h, theta)")
    at_probe = f"_tile(tiles[0], {probe}, t, p, {moved}, d)"
    text.add("if flags[2] == 0:")  # element by element
    text.add(*nested(
        "for j in range(d):", f"    for i in range({L}):",
        f"        {probe}[j, i] = y[j, i] + tiny * {extent_of.format('j')}",
        at_probe,
        "for j in range(d):", f"    for i in range({L}):",
        f"        slope = ({moved}[j, i] - {f}[j, i]) / ({probe}[j, i] - y[j, i])",
        f"        {change}[j, i] /= {T}(1.0) - theta * h * slope",
    ))  # fmt: skip
    text.add("else:", "    for k in range(d):")
    text.add(*nested(*nested(
        "for j in range(d):", f"    for i in range({L}):",
        f"        {probe}[j, i] = y[j, i] + (tiny * {extent_of.format('j')} if j == k else {T}(0.0))",
        at_probe,
        "for j in range(d):", f"    for i in range({L}):",
        f"        slope = ({moved}[j, i] - {f}[j, i]) / ({probe}[k, i] - y[k, i])",
        f"        {matrix}[j * d + k, i] = ({T}(1.0) if j == k else {T}(0.0)) - theta * h * slope",
    )))  # fmt: skip
    text.add(f"    for i in range({L}):", f"        _solve({matrix}, {change}, d, i)")
    text.add(f"for i in range({L}):", f"    {off}[0, i] = {T}(0.0)")
    text.loop(
        f"y[j, i] -= {change}[j, i] if {solved}[0, i] == {T}(0.0) else {T}(0.0)",
        f"miss = abs({change}[j, i]) / {extent_of.format('j')}",
        f"{off}[0, i] = miss if miss > {off}[0, i] else {off}[0, i]",
    )
    # what is not a number counts as solved: it stays one, and is reported at the end
    text.add("waiting = False", f"for i in range({L}):", f"    if not {off}[0, i] > small:")
    text.add(f"        {solved}[0, i] = {T}(1.0)", f"    waiting = waiting or {solved}[0, i] == {T}(0.0)")
    text.add("if not waiting:", "    break")


def _scheme(name: str, theta: float, reference: str) -> Scheme:
    return Scheme(
        name=name,
        stages=(),
        step=functools.partial(step, theta),
        coefficients=("drift", "diffusion"),
        strong_order=0.5,
        weak_order=1.0,
        noise=("diagonal", "general"),
        calculus="ito",
        reference=reference,
        orders={"additive": (1.0, 1.0)},
        implicit=True,
    )


IMPLICIT_EULER = _scheme("implicit_euler", 1.0, "Kloeden & Platen 1992, eq. 12.2.2")
IMPLICIT_TRAPEZOID = _scheme("implicit_trapezoid", 0.5, "Kloeden & Platen 1992, eq. 12.2.7; Higham 2000")
