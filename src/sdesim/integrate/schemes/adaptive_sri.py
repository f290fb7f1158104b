"""Rößler's SRIW1 with steps chosen by an embedded estimate: strong order 1.5 for diagonal noise.

The stages are those of ``sri``. Without its last two weights the noise is that of a scheme of strong order 1, and with
the drift at the start alone it is Euler's; the differences

    realised = ⅔ |f(H₂⁰) − f(x)| dt + |A dZ/dt + B I₁₁₁/dt|,       A = Σ β³ᵢ σ(Hᵢ¹), B = Σ β⁴ᵢ σ(Hᵢ¹),

of size dt^{3/2} estimate the local error (Rackauckas & Nie 2017, DCDS-B 22, section 3). A step chosen by them alone
looks into its own increments: the errors of the steps that are taken no longer average to zero, and the order falls
from 1.5 to 1. So they are compared with what is expected of them before the increments are known. The supports Hᵢ¹
hold √dt where H₂⁰ holds dZ, and dZ/dt and I₁₁₁/dt are uncorrelated with variances dt/3 and dt/6:

    expected = ⅔ |f(x + ¾ f dt + (3/2) σ √(dt/3)) − f(x)| dt + √(dt (A²/3 + B²/6)),
    e = max(expected, ¼ realised),

of which the second part refuses the few increments that are far out. (Steps chosen by what the state foretells are
also those of Hofmann, Müller-Gronbach & Ritter 2001, J. Complexity 17.) Tolerances bound e for each step, and the
strong error at the end is proportional to them.
"""

import math

from .base import Scheme, Stage, fma, stage_function
from .sri import STAGES, correction_part, kick
from .sri import move as drift_part


@stage_function
def probe(x, f0, f1, dt):
    """x + ¾ f₀ dt + …"""
    return fma(f0, type(dt)(0.75) * dt, x)


@stage_function
def probe_kick(y, g0, g1, g2, g3, dw, dz, dt, root_dt):
    """… + (3/2) g₀ √(dt/3): H₂⁰ for a typical dZ."""
    return fma(g0, type(dw)(math.sqrt(0.75)) * root_dt, y)


@stage_function
def last_move(x, f0, f1, probed, dt):
    """The drift of ``sri``, which knows nothing of the probe."""
    return drift_part(x, f0, f1, dt)


@stage_function
def expected_error(f0, probed, g0, g1, g2, g3, dt):
    """⅔ |f_probe − f₀| dt + √(dt (A²/3 + B²/6))."""
    one = type(dt)
    two_thirds = one(2.0 / 3.0)
    mean = fma(one(2.0), g0, -two_thirds * fma(one(2.0), g1, g2))
    cube = fma(one(-2.0), g0, fma(one(5.0 / 3.0), g1, fma(-two_thirds, g2, g3)))
    noise_part = math.sqrt(dt * fma(mean, mean * one(1.0 / 3.0), cube * cube * one(1.0 / 6.0)))
    return fma(two_thirds * abs(probed - f0), dt, noise_part)


@stage_function
def realised_error(f0, f1, g0, g1, g2, g3, dw, dz, dt):
    """⅔ |f₁ − f₀| dt + |A dZ/dt + B I₁₁₁/dt|."""
    return fma(type(dt)(2.0 / 3.0) * abs(f1 - f0), dt, abs(correction_part(g0, g1, g2, g3, dw, dz, dt)))


@stage_function
def error(f0, f1, probed, g0, g1, g2, g3, dw, dz, dt, root_dt):
    """max(expected, ¼ realised)."""
    expected = expected_error(f0, probed, g0, g1, g2, g3, dt)
    realised = type(dt)(0.25) * realised_error(f0, f1, g0, g1, g2, g3, dw, dz, dt)
    return realised if realised > expected else expected


ADAPTIVE_SRI = Scheme(
    name="adaptive_sri",
    stages=(
        *STAGES[:-1],
        Stage(probe, probe_kick, drifts=(), at=0.25),
        Stage(last_move, kick, noises=(), at=0.75),
    ),
    strong_order=1.5,
    weak_order=1.5,
    noise=("diagonal",),
    calculus="ito",
    reference="Rößler 2010, SRIW1; Rackauckas & Nie 2017",
    space_time=True,
    adaptive=True,
    counts=True,
    error=error,
    error_order=1.5,
)
