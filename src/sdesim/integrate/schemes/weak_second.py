"""Weak order 2, derivative-free, with three-point increments.

With ΔŴ = 0, ±√(3dt) (probabilities ⅔, ⅙, ⅙), y = x + f dt, z = y + Σ g ΔŴ and u_k± = x ± g_k √dt:

    x + ½ (f(x) + f(z)) dt + Σ_l ½ (g_l(x) + g_l(y)) ΔŴ_l
      + ¼ Σ_{k,l} [ (g_l(u_k+) + g_l(u_k−) − 2 g_l(x)) ΔŴ_l + (g_l(u_k+) − g_l(u_k−)) (ΔŴ_k ΔŴ_l + V_kl)/√dt ],

V_kk = −dt, V_kl = −V_lk = ±dt with probability ½ (Platen's scheme, Kloeden & Platen 1992, eq. 15.1.3, with the
drift's effect on g taken once, at y, instead of in each u_k). Diagonal noise needs only k = l. For expectations of
smooth functions; the four steps before each recorded time have Gaussian increments.
"""

from .base import Fan, Scheme, Stage, fma, stage_function
from .euler_maruyama import move as advected


@stage_function
def euler_kick(y, g0, g1, dw, dt, root_dt):
    """z = y + g ΔŴ."""
    return fma(g0, dw, y)


@stage_function
def stay(x, f0, f1, dt):
    """u starts from x."""
    return x


@stage_function
def upwards(y, g0, g1, dw, dt, root_dt):
    """u₊ = x + g √dt."""
    return fma(g0, root_dt, y)


@stage_function
def downwards(y, g0, g1, g2, dw, dt, root_dt):
    """u₋ = x − g √dt."""
    return fma(-g0, root_dt, y)


@stage_function
def move(x, f0, f1, dt):
    """x + ½ (f₀ + f₁) dt."""
    return fma(f0 + f1, type(dt)(0.5) * dt, x)


@stage_function
def mean_kick(y, g0, g1, dw, dt, root_dt):
    """y + ½ (g₀ + g₁) ΔŴ."""
    return fma(g0 + g1, type(dw)(0.5) * dw, y)


@stage_function
def spread(y, upper, lower, g, dw, i_kl, dt, root_dt):
    """y + ¼ (u₊ + u₋ − 2g) ΔŴ_l + ½ (u₊ − u₋) I_kl/√dt, I_kl = ½ (ΔŴ_k ΔŴ_l + V_kl)."""
    quarter, half = type(dw)(0.25), type(dw)(0.5)
    curved = (upper - g) + (lower - g)
    return fma(quarter * curved, dw, fma(half * (upper - lower) / root_dt, i_kl, y))


@stage_function
def kick(y, g0, g1, g2, g3, dw, dt, root_dt):
    """Both noise terms, where the noise is diagonal."""
    i_kk = type(dw)(0.5) * fma(dw, dw, -dt)
    return spread(mean_kick(y, g0, g1, dw, dt, root_dt), g2, g3, g0, dw, i_kk, dt, root_dt)


@stage_function
def above(x, g, dt, root_dt):
    """u_k+ = x + g_k √dt."""
    return fma(g, root_dt, x)


@stage_function
def below(x, g, dt, root_dt):
    """u_k− = x − g_k √dt."""
    return fma(-g, root_dt, x)


_START = (Stage(advected, None), Stage(advected, euler_kick, drifts=(), at=1.0))

WEAK_SECOND = Scheme(
    name="weak_second",
    stages=(
        *_START,
        Stage(stay, upwards, noises=(), at=1.0),
        Stage(stay, downwards, drifts=()),
        Stage(move, kick, drifts=()),
    ),
    general_stages=(*_START, Stage(move, mean_kick, noises=(), at=1.0)),
    fan=Fan((above, below), spread, "two_point"),
    strong_order=0.0,
    weak_order=2.0,
    noise=("diagonal", "general"),
    calculus="ito",
    reference="Kloeden & Platen 1992, eq. 15.1.3",
    increment="three_point",
)
