"""Milstein's scheme for any noise: strong order 1 also where the noise does not commute.

    x + f dt + Σ_l g_l dW_l + Σ_{k,l} (σ_l(x + g_k √dt) − g_l)/√dt · I_(k,l),   I_(k,l) = ½ (dW_k dW_l − δ_kl dt) + A_kl

with the Lévy areas A_kl = ½ ∫ (W_k dW_l − W_l dW_k) over the step, sampled given dW (Kloeden & Platen 1992, eq.
11.1.7; the sampling is described in ``integrate.noise``).
"""

from .base import Fan, Scheme
from .euler_maruyama import EULER_MARUYAMA
from .milstein_commutative import spread, support

MILSTEIN_LEVY = Scheme(
    name="milstein_levy",
    stages=EULER_MARUYAMA.stages,
    fan=Fan((support,), spread, "levy"),
    strong_order=1.0,
    weak_order=1.0,
    noise=("general",),
    calculus="ito",
    reference="Kloeden & Platen 1992, eq. 11.1.7",
)
