"""Rößler's SRA1: strong order 1.5 for additive noise, σ = σ(t).

    y  = x + ¾ f(x, t) dt + (3/2) σ(t + dt) dZ/dt
    x + (⅓ f(x, t) + ⅔ f(y, t + ¾dt)) dt + σ(t + dt) (dW − dZ/dt) + σ(t) dZ/dt

with dZ = ∫ (W_s − W_t) ds over the step (Rößler 2010, "Runge-Kutta methods for the strong approximation of solutions
of stochastic differential equations", SIAM J. Numer. Anal. 48, Table 6.3). Any number of Wiener processes.
"""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def support(x, f, dt):
    """x + ¾ f dt."""
    return fma(f, type(dt)(0.75) * dt, x)


@stage_function
def support_kick(y, g0, g1, dw, dz, dt, root_dt):
    """y + (3/2) g₁ dZ/dt, g₁ at the end of the step."""
    return fma(g1, type(dw)(1.5) * (dz / dt), y)


@stage_function
def move(x, f0, f1, dt):
    """x + (⅓ f₀ + ⅔ f₁) dt."""
    third = type(dt)(1.0 / 3.0)
    return fma(fma(type(dt)(2.0), f1, f0), third * dt, x)


@stage_function
def kick(y, g0, g1, dw, dz, dt, root_dt):
    """y + g₁ (dW − dZ/dt) + g₀ dZ/dt: the stochastic integral of a g that is linear over the step."""
    return fma(g0, dz / dt, fma(g1, dw - dz / dt, y))


SRA = Scheme(
    name="sra",
    stages=(
        Stage(None, None),
        Stage(support, support_kick, drifts=(), at=1.0),
        Stage(move, kick, noises=(), at=0.75),
    ),
    strong_order=1.5,
    weak_order=2.0,
    noise=("additive",),
    calculus="ito",
    reference="Rößler 2010, SRA1",
    space_time=True,
)
