"""The explicit midpoint rule for Stratonovich equations.

    y = x + ½ f(x, t) dt + ½ g(x, t) dW,
    x + f(y, t + ½ dt) dt + g(y, t + ½ dt) dW

It converges to the Stratonovich solution, strongly with order 1 for commutative noise and ½ otherwise (Kloeden &
Platen 1992, §15.5). Without noise it is the second-order midpoint rule of Runge.
"""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def half_way(x, f, dt):
    """x + ½ f dt."""
    return fma(f, type(dt)(0.5) * dt, x)


@stage_function
def half_kick(y, g, dw, dt, root_dt):
    """y + ½ g dW."""
    return fma(g, type(dw)(0.5) * dw, y)


@stage_function
def move(x, f0, f1, dt):
    """x + f₁ dt, with the drift half way."""
    return fma(f1, dt, x)


@stage_function
def kick(y, g0, g1, dw, dt, root_dt):
    """y + g₁ dW, with the diffusion half way."""
    return fma(g1, dw, y)


MIDPOINT = Scheme(
    name="midpoint",
    stages=(Stage(half_way, half_kick), Stage(move, kick, at=0.5)),
    strong_order=1.0,
    weak_order=1.0,
    noise=("diagonal", "general"),
    calculus="stratonovich",
    reference="Kloeden & Platen 1992, §15.5",
    orders={"general": (0.5, 1.0)},
)
