"""Tamed Euler: Euler-Maruyama for drifts that grow faster than linearly.

    x + f dt / (1 + dt |f|) + g dW

Where f grows like −x³, Euler's moments blow up however small the step is; taming bounds the drift's move by 1 and
changes it by O(dt²) only (Hutzenthaler, Jentzen & Kloeden 2012). The drift is tamed component by component, as in
Brosse, Durmus, Moulines & Sabanis 2019.
"""

from .base import Scheme, Stage, fma, stage_function
from .euler_maruyama import kick


@stage_function
def move(x, f, dt):
    """x + f dt / (1 + dt |f|)."""
    return x + f * dt / fma(dt, abs(f), type(dt)(1.0))


TAMED_EULER = Scheme(
    name="tamed_euler",
    stages=(Stage(move, kick),),
    strong_order=0.5,
    weak_order=1.0,
    noise=("diagonal", "general"),
    calculus="ito",
    reference="Hutzenthaler, Jentzen & Kloeden 2012",
    orders={"additive": (1.0, 1.0)},
)
