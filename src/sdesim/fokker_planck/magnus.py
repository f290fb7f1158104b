"""Coefficients that depend on time, at fourth order: two exponentials of mixtures of the operator a step.

For dp/dt = A(t) p with A₁, A₂ = A(t + (½ ∓ √3/6) h), the commutator-free Magnus formula

    p(t + h) = exp(h (b A₁ + a A₂)) exp(h (a A₁ + b A₂)) p(t),     a = ¼ + √3/6,  b = ¼ − √3/6,

is of order four (Blanes & Moan 2006, "Fourth- and sixth-order commutator-free Magnus integrators"; for parabolic
equations Thalhammer 2006). Its exponentials are those of ``steppers.rational_exponential``: positive, whatever the
stiffness, as long as the mixtures are generators, which b = −0.039 < 0 makes a condition on how much a rate changes in
a step; a step that breaks it is shortened. What leaves through the walls belongs to the same linear system.

Where the density touches a wall whose condition moves with time the order falls, for steps that are long against h²/D:
to two at walls without current, to between two and three at absorbing ones (Thalhammer shows why: the commutator of two
operators with different conditions at the wall is no smooth function there). The error of a pair of steps is therefore
taken to be its distance from one step of twice the size over 3, as for order two, not over 15.
"""

import math
from collections.abc import Sequence

import numpy as np

from .mark import Mark
from .operator import Coefficients, Operator
from .steppers import ROUNDING, UNIFORM_ERROR, Evolution, Report, _absorbed, _exponential, _settled

EARLY, LATE = 0.5 - math.sqrt(3.0) / 6.0, 0.5 + math.sqrt(3.0) / 6.0
A, B = 0.25 + math.sqrt(3.0) / 6.0, 0.25 - math.sqrt(3.0) / 6.0
# A pair of steps is at most this share of the span, so that what happens for a short time is seen.
LONGEST = 1.0 / 16.0
# Short steps between saved times that are taken on the word of one comparison.
TRUSTED = 8
# Share of the span down to which steps are cut for the sake of their error: through a jump of the coefficients.
SHORTEST = 1e-10


class Refused(Exception):
    """A step that cannot be taken at its size: its error is too large."""


class Unfit(Refused):
    """The exponentials of a step are wrong or its mixtures no generators."""


def magnus(
    coefficients: Coefficients,
    p0: np.ndarray,
    t0: float,
    times: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    *,
    fixed_step: float | None = None,
    least: float = 1e-6,
    mark: Mark | None = None,
) -> Evolution:
    """p at each of ``times``, the L1 error of each pair of steps below ``tolerance``.

    ``fixed_step`` switches the error control off (for order tests).

    Raises RuntimeError if a step would be shorter than the share ``least`` of the span for the exponentials to serve,
    or than 1e-10 of it for its error.
    """
    mass, span = float(p0.sum()), times[-1] - t0
    allowed = max(math.sqrt(max(0.1 * tolerance, 1e-12) / UNIFORM_ERROR), 30.0)
    p, lost, t, steps, rejected = p0, np.zeros(2), t0, 0, 0
    dt, trusted = fixed_step or LONGEST * span / 32.0, 0
    rows: list[np.ndarray] = []
    walls: list[np.ndarray] = []
    mark = mark or Mark()
    if found := mark.start(rows, walls):
        p, lost, t, dt = found["m"], found["lost"], float(found["t"]), float(found["dt"])
        steps, rejected, trusted = int(found["steps"]), int(found["rejected"]), int(found["trusted"])
    for goal in times[len(rows) :]:
        while t < goal:
            left = goal - t
            # a step that a saved time cuts short of what the last comparison allows needs none of its own
            single = fixed_step is not None or (left <= dt and trusted > 0)
            parts = max(1, math.ceil(left / dt - 1e-9))
            parts += 0 if single else parts % 2
            step = left / parts
            try:
                q, out = _step(coefficients, p, t, step, allowed)
                if not single:
                    q, more = _step(coefficients, q, t + step, step, allowed)
                    out = out + more
                    error = float(np.abs(q - _step(coefficients, p, t, 2.0 * step, allowed)[0]).sum()) / 3.0
                    if error > tolerance:
                        raise Refused
                    grow = min(2.5, max(0.5, 0.9 * max(error / tolerance, 1e-5) ** -0.2))
                    # a short step says little about what a long one may be
                    dt = min(max(dt, step * grow) if step < 0.7 * dt else step * grow, 0.5 * LONGEST * span)
                    trusted = TRUSTED
            except Refused as refusal:
                if fixed_step is not None:
                    raise RuntimeError(f"a step of {step:.3g} at t = {t:g} is too long; take more steps") from None
                rejected, trusted, dt = rejected + 1, 0, 0.4 * step
                if dt < (least if isinstance(refusal, Unfit) else SHORTEST) * span:
                    raise RuntimeError(
                        f"the step fell to {dt:.1g} at t = {t:g}: the coefficients change too fast, or drift outweighs "
                        "diffusion too far; use method='tr_bdf2'"
                    ) from None
                continue
            taken = 1 if single else 2
            p, lost, steps, trusted = q, lost + out, steps + taken, trusted - 1
            t = goal if taken == parts else t + taken * step
            mark.note(rows, walls, m=p, t=t, lost=lost, dt=dt, steps=steps, rejected=rejected, trusted=trusted)
            if report:
                report(t)
        rows.append(_settled(p, mass - float(lost.sum())))
        walls.append(lost)
    return Evolution(np.array(rows), np.array(walls), steps, rejected)


def _step(
    coefficients: Coefficients, p: np.ndarray, t: float, h: float, allowed: float
) -> tuple[np.ndarray, np.ndarray]:
    """p(t + h), and what has left through the walls; Unfit where the exponentials do not serve."""
    early, late = coefficients.at(t + EARLY * h), coefficients.at(t + LATE * h)
    lost = np.zeros(2)
    for a, b in ((A, B), (B, A)):
        mixture = _mixture(early, late, a, b)
        q, size = _exponential(mixture, p, h)
        if not (size <= allowed and float(q.min()) >= -ROUNDING * max(float(p.max()), float(q.max()))):
            raise Unfit
        keep = None if mixture.absorbs else float(p.sum() + h * mixture.inflow.sum())
        q = _settled(q, keep)
        lost = lost + _absorbed(mixture, p, q, h)
        p = q
    return p, lost


def _mixture(early: Operator, late: Operator, a: float, b: float) -> Operator:
    """a A₁ + b A₂, a generator again; Unfit where it is not."""
    if early is late:
        bands, exits = (a + b) * early.bands, (a + b) * early.absorption
    else:
        bands, exits = a * early.bands + b * late.bands, a * early.absorption + b * late.absorption
    if float(min(bands[0].min(), bands[2].min(), exits.min())) < 0.0:
        raise Unfit
    inflow = (a + b) * early.inflow
    return Operator(bands, early.exponent, early.diffusivity, early.widths, exits, inflow, early.periodic)
