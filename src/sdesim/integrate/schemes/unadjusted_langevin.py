"""The unadjusted Langevin algorithm: Euler-Maruyama on dX = ∇log p dt + √(2T) dW.

    x + ∇log p(x) dt + √(2T) dW

It needs nothing of the target but a score, learned ones included, and samples a law that is off by O(dt) (Roberts &
Tweedie 1996); ``mala`` takes the bias away where log p itself is known.
"""

from .base import Scheme
from .euler_maruyama import EULER_MARUYAMA

UNADJUSTED_LANGEVIN = Scheme(
    name="unadjusted_langevin",
    stages=EULER_MARUYAMA.stages,
    strong_order=1.0,
    weak_order=1.0,
    noise=("additive",),
    calculus="ito",
    reference="Roberts & Tweedie 1996",
    needs=("reversible",),
)
