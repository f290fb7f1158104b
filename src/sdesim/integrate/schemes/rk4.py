"""The classical Runge-Kutta scheme of order 4, for σ = 0: dx = f(x, t) dt.

    x + (k₁ + 2k₂ + 2k₃ + k₄) dt/6

(Kutta 1901; Hairer, Nørsett & Wanner 1993, Table II.1.2). It draws no random numbers.
"""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def half_way(x, f0, dt):
    """x + ½ k₁ dt."""
    return fma(f0, type(dt)(0.5) * dt, x)


@stage_function
def half_way_again(x, f0, f1, dt):
    """x + ½ k₂ dt."""
    return fma(f1, type(dt)(0.5) * dt, x)


@stage_function
def all_the_way(x, f0, f1, f2, dt):
    """x + k₃ dt."""
    return fma(f2, dt, x)


@stage_function
def move(x, f0, f1, f2, f3, dt):
    """x + (k₁ + 2k₂ + 2k₃ + k₄) dt/6."""
    two = type(dt)(2.0)
    return fma((f0 + f3) + two * (f1 + f2), dt / type(dt)(6.0), x)


RK4 = Scheme(
    name="rk4",
    stages=(
        Stage(half_way, None, noises=()),
        Stage(half_way_again, None, noises=(), at=0.5),
        Stage(all_the_way, None, noises=(), at=0.5),
        Stage(move, None, noises=(), at=1.0),
    ),
    strong_order=4.0,
    weak_order=4.0,
    noise=("none",),
    calculus="ito",
    reference="Kutta 1901",
)
