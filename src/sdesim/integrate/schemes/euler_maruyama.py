"""Euler-Maruyama: the left-point rule for both integrals (Maruyama 1955; Kloeden & Platen 1992, §10.2)."""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def move(x, f, dt):
    """x + f dt."""
    return fma(f, dt, x)


@stage_function
def kick(y, g, dw, dt, root_dt):
    """y + g dW."""
    return fma(g, dw, y)


EULER_MARUYAMA = Scheme(
    name="euler_maruyama",
    stages=(Stage(move, kick),),
    strong_order=0.5,
    weak_order=1.0,
    noise=("diagonal", "general"),
    calculus="ito",
    reference="Maruyama 1955; Kloeden & Platen 1992, eq. 10.2.4",
    orders={"additive": (1.0, 1.0)},
)
