"""Rößler's SRIW1: strong order 1.5 for diagonal noise.

    x + Σᵢ αᵢ f(Hᵢ⁰) dt + Σᵢ (β¹ᵢ dW + β²ᵢ I₁₁/√dt + β³ᵢ dZ/dt + β⁴ᵢ I₁₁₁/dt) σ(Hᵢ¹)

with I₁₁ = ½(dW² − dt), I₁₁₁ = (dW³ − 3 dt dW)/6, dZ = ∫ (W_s − W_t) ds and the supports below: two evaluations of
the drift and four of the diffusion (Rößler 2010, SIAM J. Numer. Anal. 48, Table 6.1). Component j of the diffusion
may depend on component j of the state only.
"""

from .base import Scheme, Stage, fma, stage_function


@stage_function
def drift_support(x, f0, dt):
    """H₂⁰ = x + ¾ f₀ dt + …"""
    return fma(f0, type(dt)(0.75) * dt, x)


@stage_function
def drift_support_kick(y, g0, dw, dz, dt, root_dt):
    """… + (3/2) g₀ dZ/dt."""
    return fma(g0, type(dw)(1.5) * (dz / dt), y)


@stage_function
def second_support(x, f0, f1, dt):
    """H₂¹ = x + ¼ f₀ dt + …"""
    return fma(f0, type(dt)(0.25) * dt, x)


@stage_function
def second_support_kick(y, g0, dw, dz, dt, root_dt):
    """… + ½ g₀ √dt."""
    return fma(g0, type(dw)(0.5) * root_dt, y)


@stage_function
def third_support(x, f0, f1, dt):
    """H₃¹ = x + f₀ dt − …"""
    return fma(f0, dt, x)


@stage_function
def third_support_kick(y, g0, g1, dw, dz, dt, root_dt):
    """… g₀ √dt."""
    return fma(-g0, root_dt, y)


@stage_function
def fourth_support_kick(y, g0, g1, g2, dw, dz, dt, root_dt):
    """H₄¹ = x + ¼ f₀ dt + (−5 g₀ + 3 g₁ + ½ g₂) √dt."""
    one = type(dw)
    return fma(fma(one(0.5), g2, fma(one(3.0), g1, one(-5.0) * g0)), root_dt, y)


@stage_function
def move(x, f0, f1, dt):
    """x + (⅓ f₀ + ⅔ f₁) dt."""
    return fma(fma(type(dt)(2.0), f1, f0), type(dt)(1.0 / 3.0) * dt, x)


@stage_function
def milstein_part(g0, g1, g2, dw, root_dt):
    """What a scheme of order 1 makes of the noise: Σ (β¹ dW + β² I₁₁/√dt) g."""
    one = type(dw)
    third = one(1.0 / 3.0)
    half_square = one(0.5) * fma(dw, dw, -root_dt * root_dt) / root_dt
    on_g0 = -dw - half_square
    on_g1 = one(4.0) * third * (dw + half_square)
    on_g2 = third * fma(one(2.0), dw, -half_square)
    return fma(g0, on_g0, fma(g1, on_g1, g2 * on_g2))


@stage_function
def correction_part(g0, g1, g2, g3, dw, dz, dt):
    """What lifts it to order 1.5: Σ (β³ dZ/dt + β⁴ I₁₁₁/dt) g."""
    one = type(dw)
    third = one(1.0 / 3.0)
    mean = dz / dt
    cube = dw * fma(dw, dw, one(-3.0) * dt) / (one(6.0) * dt)
    on_g0 = one(2.0) * (mean - cube)
    on_g1 = third * fma(one(5.0), cube, one(-4.0) * mean)
    on_g2 = one(-2.0) * third * (mean + cube)
    return fma(g0, on_g0, fma(g1, on_g1, fma(g2, on_g2, g3 * cube)))


@stage_function
def kick(y, g0, g1, g2, g3, dw, dz, dt, root_dt):
    """Both parts of the noise."""
    return y + (milstein_part(g0, g1, g2, dw, root_dt) + correction_part(g0, g1, g2, g3, dw, dz, dt))


STAGES = (
    Stage(drift_support, drift_support_kick),
    Stage(second_support, second_support_kick, noises=(), at=0.75),
    Stage(third_support, third_support_kick, drifts=(), at=0.25),
    Stage(second_support, fourth_support_kick, drifts=(), at=1.0),
    Stage(move, kick, drifts=(), at=0.25),
)

SRI = Scheme(
    name="sri",
    stages=STAGES,
    strong_order=1.5,
    weak_order=1.5,  # 2 where σ is linear in x: the supports hold √dt, and odd powers of it remain
    noise=("diagonal",),
    calculus="ito",
    reference="Rößler 2010, SRIW1",
    space_time=True,
    orders={"additive": (1.5, 2.0)},
)
