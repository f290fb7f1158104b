"""Platen's derivative-free scheme of strong order 1 for diagonal noise.

    y = x + f dt + g √dt,
    x + f dt + g dW + (σ(y) − g)/(2√dt) (dW² − dt)

Milstein's scheme with the derivative taken from a supporting value (Kloeden & Platen 1992, eq. 11.1.3);
``method="milstein"`` stands for it where a process gives no ``diffusion_dx``.
"""

from .base import Scheme, Stage, fma, stage_function
from .euler_maruyama import move


@stage_function
def support(y, g, dw, dt, root_dt):
    """The supporting value y + g √dt."""
    return fma(g, root_dt, y)


@stage_function
def kick(y, g, h, dw, dt, root_dt):
    """y + g dW + (h − g)/(2√dt) (dW² − dt), with h = σ at the supporting value."""
    half = type(dw)(0.5)
    return fma(half * (h - g) / root_dt, fma(dw, dw, -dt), fma(g, dw, y))


PLATEN = Scheme(
    name="platen",
    stages=(Stage(move, support), Stage(move, kick, drifts=())),
    strong_order=1.0,
    weak_order=1.0,
    noise=("diagonal",),
    calculus="ito",
    reference="Kloeden & Platen 1992, eq. 11.1.3",
)
