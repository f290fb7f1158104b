"""Heun's method for Stratonovich equations: a trapezium through an Euler predictor.

    y = x + f(x, t) dt + g(x, t) dW,
    x + ½ (f(x, t) + f(y, t + dt)) dt + ½ (g(x, t) + g(y, t + dt)) dW

It converges to the Stratonovich solution, strongly with order 1 for commutative (in particular diagonal) noise and ½
otherwise (Rümelin 1982; Kloeden & Platen 1992, §15.5). Without noise it is the second-order method for an ODE.
"""

from .base import Scheme, Stage, fma, stage_function
from .euler_maruyama import kick as predict_kick
from .euler_maruyama import move as predict


@stage_function
def correct(x, f0, f1, dt):
    """x + ½ (f₀ + f₁) dt."""
    half = type(dt)(0.5)
    return fma(half * (f0 + f1), dt, x)


@stage_function
def correct_kick(y, g0, g1, dw, dt, root_dt):
    """y + ½ (g₀ + g₁) dW."""
    half = type(dw)(0.5)
    return fma(half * (g0 + g1), dw, y)


HEUN = Scheme(
    name="heun",
    stages=(Stage(predict, predict_kick), Stage(correct, correct_kick, at=1.0)),
    strong_order=1.0,
    weak_order=1.0,
    noise=("diagonal", "general"),
    calculus="stratonovich",
    reference="Rümelin 1982; Kloeden & Platen 1992, §15.5",
    orders={"additive": (1.0, 2.0), "general": (0.5, 1.0)},
)
