"""Milstein's scheme for diagonal noise: Euler-Maruyama plus ½ σ ∂σ/∂x (dW² − dt).

It needs the process's ``diffusion_dx``; without one Platen's scheme takes its place (Milstein 1974; Kloeden & Platen
1992, eq. 10.3.1).
"""

from .base import Scheme, Stage, fma, stage_function
from .euler_maruyama import move


@stage_function
def kick(y, g, dg, dw, dt, root_dt):
    """y + g dW + ½ g g′ (dW² − dt)."""
    half = type(dw)(0.5)
    return fma(half * (g * dg), fma(dw, dw, -dt), fma(g, dw, y))


MILSTEIN = Scheme(
    name="milstein",
    stages=(Stage(move, kick, noises=("diffusion", "diffusion_dx")),),
    strong_order=1.0,
    weak_order=1.0,
    noise=("diagonal",),
    calculus="ito",
    reference="Milstein 1974; Kloeden & Platen 1992, eq. 10.3.1",
)
