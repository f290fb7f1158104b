"""Exact steps, for processes whose transition law can be drawn from: any step is right.

The process's ``transition(x, t, dt, z)`` is evaluated with z = ΔW/√dt, so that the same Wiener path drives it as
drives the other schemes, to the accuracy that one normal a step can carry.
"""

from .base import Scheme, Stage, stage_function


@stage_function
def arrive(x, y, dt):
    """The transition is the new state."""
    return y


@stage_function
def stay(y, dw, dt, root_dt):
    """The noise is inside the transition."""
    return y


EXACT = Scheme(
    name="exact",
    stages=(Stage(arrive, stay, drifts=("transition",), noises=()),),
    strong_order=float("inf"),
    weak_order=float("inf"),
    noise=("diagonal",),
    calculus="ito",
    reference="the transition law of the process",
)
