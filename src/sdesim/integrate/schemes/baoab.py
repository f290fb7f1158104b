"""BAOAB for underdamped Langevin dynamics: dq = v dt, dv = (F(q) − γ v) dt + √(2γT) dW.

    B  v ← v + ½ dt F(q)
    A  q ← q + ½ dt v
    O  v ← e^{−γ dt} v + √(T (1 − e^{−2γ dt})) ξ,  ξ = dW/√dt
    A, B as before

Each part is solved exactly, and one force a step is enough, as the last one is the next step's first. Weak order 2, and
the positions' stationary law is off by far less than that: for a Gaussian target not at all (Leimkuhler & Matthews
2013, "Rational construction of stochastic numerical methods for molecular sampling").
"""

from typing import Any

from ...core import functions
from .base import Scheme, fma, stage_function


@stage_function
def half_move(x, rate, dt):
    """x + ½ dt · rate: B with the force, A with the velocity."""
    return fma(rate, type(dt)(0.5) * dt, x)


@stage_function
def relax(v, kept, spread, xi):
    """O: what is kept of the velocity, and new noise."""
    return fma(kept, v, spread * xi)


def step(text: Any, keeps: bool) -> None:
    """The lines of one step; ``keeps``: nothing else changes x, so that the last force serves again."""
    T = text.T
    for name, function in (("_half_move", half_move), ("_relax", relax), ("_exp", functions.exp)):
        text.function(name, function)
    force, friction, temperature = (text.coefficient(i) for i in range(3))
    text.before += [
        "half = d // 2",
        f"damped = _exp(-np.float64({friction}[0, 0]) * dt)",
        f"kept = {T}(damped)",
        f"spread = {T}(math.sqrt(np.float64({temperature}[0, 0]) * (1.0 - damped * damped)))",
    ]
    text.add("if s == step0:" if keeps else "if True:", f"    _tile(tiles[0], x, t, p, {force}, half)")
    text.loop(
        f"v = _half_move(x[half + j, i], {force}[j, i], h)",
        "q = _half_move(x[j, i], v, h)",
        "v = _relax(v, kept, spread, w[half + j, i] / root)",
        "x[j, i] = _half_move(q, v, h)",
        "x[half + j, i] = v",
        rows="half",
    )
    text.add(f"_tile(tiles[0], x, t, p, {force}, half)")
    text.loop(f"x[half + j, i] = _half_move(x[half + j, i], {force}[j, i], h)", rows="half")


BAOAB = Scheme(
    name="baoab",
    stages=(),
    step=step,
    coefficients=("force", "friction", "temperature"),
    strong_order=1.0,
    weak_order=2.0,
    noise=("additive",),
    calculus="ito",
    reference="Leimkuhler & Matthews 2013",
)
