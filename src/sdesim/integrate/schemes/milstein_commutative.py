"""Milstein's scheme for commutative noise of any number of Wiener processes, free of derivatives.

    x + f dt + Σ_l g_l dW_l + Σ_{k,l} (σ_l(x + g_k √dt) − g_l)/√dt · ½ (dW_k dW_l − δ_kl dt)

Where the noise commutes, (g_k·∇)g_l = (g_l·∇)g_k, the Lévy areas drop out and the strong order is 1 (Kloeden & Platen
1992, eq. 11.1.7 with I_(k,l) + I_(l,k) = dW_k dW_l); elsewhere it is ½, and with the antithetic pairs of multilevel
Monte Carlo the variance still falls as for order 1 (Giles & Szpruch 2014).
"""

from .base import Fan, Scheme, fma, stage_function
from .euler_maruyama import EULER_MARUYAMA


@stage_function
def support(x, g, dt, root_dt):
    """x + g_k √dt."""
    return fma(g, root_dt, x)


@stage_function
def spread(y, moved, g, dw, i_kl, dt, root_dt):
    """y + (σ_l(x + g_k √dt) − g_l)/√dt · I_kl."""
    return fma((moved - g) / root_dt, i_kl, y)


MILSTEIN_COMMUTATIVE = Scheme(
    name="milstein_commutative",
    stages=EULER_MARUYAMA.stages,
    fan=Fan((support,), spread, "commutative"),
    strong_order=1.0,
    weak_order=1.0,
    noise=("general",),
    calculus="ito",
    reference="Kloeden & Platen 1992, eq. 11.1.7",
    orders={"general": (0.5, 1.0)},
)
