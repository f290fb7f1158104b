"""Milstein's scheme for diagonal noise: Euler-Maruyama plus ½ σ ∂σ/∂x (dW² − dt).

With ``diffusion_dx`` the derivative is the user's; without it Platen's form takes it from a supporting value
(Milstein 1974; Kloeden & Platen 1992, eq. 10.3.1 and, derivative-free, eq. 11.1.3).
"""

from .base import Scheme, Stage, fma, stage_function
from .euler_maruyama import move


@stage_function
def kick(y, g, dg, dw, dt, root_dt):
    """y + g dW + ½ g g′ (dW² − dt)."""
    half = type(dw)(0.5)
    return fma(half * (g * dg), fma(dw, dw, -dt), fma(g, dw, y))


@stage_function
def support(y, g, dw, dt, root_dt):
    """The supporting value y + g √dt."""
    return fma(g, root_dt, y)


@stage_function
def kick_from_support(y, g, h, dw, dt, root_dt):
    """y + g dW + (h − g)/(2√dt) (dW² − dt), with h = σ at the supporting value."""
    half = type(dw)(0.5)
    return fma(half * (h - g) / root_dt, fma(dw, dw, -dt), fma(g, dw, y))


_FACTS = {
    "name": "milstein",
    "strong_order": 1.0,
    "weak_order": 1.0,
    "noise": ("diagonal",),
    "calculus": "ito",
    "reference": "Milstein 1974; Kloeden & Platen 1992, eqs 10.3.1 and 11.1.3",
}

MILSTEIN = Scheme(stages=(Stage(move, kick, noises=("diffusion", "diffusion_dx")),), **_FACTS)  # type: ignore[arg-type]
MILSTEIN_DERIVATIVE_FREE = Scheme(
    stages=(Stage(move, support), Stage(move, kick_from_support, drifts=())),
    **_FACTS,  # type: ignore[arg-type]
)
