"""Dormand and Prince's pair of orders 5 and 4, for σ = 0: dx = f(x, t) dt with steps chosen by its estimate.

Seven evaluations kᵢ = f(x + Σⱼ aᵢⱼ kⱼ dt, t + cᵢ dt); the step goes on with order 5, and the difference to the
embedded order 4 is the estimate (Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae"; Hairer, Nørsett
& Wanner 1993, Table II.5.2). It draws no random numbers.
"""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def second(x, f0, dt):
    """The point of the second evaluation."""
    c = type(dt)
    slope = c(1 / 5) * f0
    return fma(slope, dt, x)


@stage_function
def third(x, f0, f1, dt):
    """The point of the third evaluation."""
    c = type(dt)
    slope = fma(c(3 / 40), f0, c(9 / 40) * f1)
    return fma(slope, dt, x)


@stage_function
def fourth(x, f0, f1, f2, dt):
    """The point of the fourth evaluation."""
    c = type(dt)
    slope = fma(c(44 / 45), f0, fma(c(-56 / 15), f1, c(32 / 9) * f2))
    return fma(slope, dt, x)


@stage_function
def fifth(x, f0, f1, f2, f3, dt):
    """The point of the fifth evaluation."""
    c = type(dt)
    slope = fma(c(19372 / 6561), f0, fma(c(-25360 / 2187), f1, fma(c(64448 / 6561), f2, c(-212 / 729) * f3)))
    return fma(slope, dt, x)


@stage_function
def sixth(x, f0, f1, f2, f3, f4, dt):
    """The point of the sixth evaluation."""
    c = type(dt)
    slope = fma(
        c(9017 / 3168), f0, fma(c(-355 / 33), f1, fma(c(46732 / 5247), f2, fma(c(49 / 176), f3, c(-5103 / 18656) * f4)))
    )
    return fma(slope, dt, x)


@stage_function
def move(x, f0, f1, f2, f3, f4, f5, dt):
    """x + Σ bⱼ kⱼ dt, of order 5; the seventh evaluation is here."""
    c = type(dt)
    slope = fma(
        c(35 / 384), f0, fma(c(500 / 1113), f2, fma(c(125 / 192), f3, fma(c(-2187 / 6784), f4, c(11 / 84) * f5)))
    )
    return fma(slope, dt, x)


@stage_function
def error(f0, f1, f2, f3, f4, f5, f6, dt):
    """Σ (bⱼ − b*ⱼ) kⱼ dt, the difference of the orders 5 and 4."""
    c = type(dt)
    slope = fma(
        c(71 / 57600),
        f0,
        fma(
            c(-71 / 16695),
            f2,
            fma(c(71 / 1920), f3, fma(c(-17253 / 339200), f4, fma(c(22 / 525), f5, c(-1 / 40) * f6))),
        ),
    )
    return slope * dt


DOPRI5 = Scheme(
    name="dopri5",
    stages=(
        Stage(second, None, noises=()),
        Stage(third, None, noises=(), at=1 / 5),
        Stage(fourth, None, noises=(), at=3 / 10),
        Stage(fifth, None, noises=(), at=4 / 5),
        Stage(sixth, None, noises=(), at=8 / 9),
        Stage(move, None, noises=(), at=1.0),
        Stage(None, None, noises=(), at=1.0),
    ),
    strong_order=5.0,
    weak_order=5.0,
    noise=("none",),
    calculus="ito",
    reference="Dormand & Prince 1980",
    adaptive=True,
    counts=True,
    error=error,
    error_order=5.0,
)
