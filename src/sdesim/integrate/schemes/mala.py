"""The Metropolis-adjusted Langevin algorithm: a chain that keeps p^{1/T} exactly, whatever the step.

Propose y = x + ∇log p(x) dt + √(2T) dW and accept it with probability min(1, r),

    log r = (log p(y) − log p(x))/T + (|y − x − ∇log p(x) dt|² − |x − y − ∇log p(y) dt|²)/(4T dt)

(Besag 1994; Roberts & Tweedie 1996). As dt → 0 it follows the Langevin diffusion; t counts proposals, not the time of
the diffusion, once many of them are rejected. ``Paths.steps_rejected`` has the number for each path; the best step
accepts about 57 % (Roberts & Rosenthal 1998).
"""

from typing import Any

from ...core import bits, functions
from .base import Scheme, fma, stage_function
from .euler_maruyama import kick, move


@stage_function
def log_ratio(before, after, forward, backward, g, dt):
    """log r, from both log densities, both squared distances from the means of the proposals, and g = √(2T)."""
    two, square = type(dt)(2.0), g * g
    return fma(two, after - before, (forward - backward) / (two * dt)) / square


@stage_function
def squared(total, x, y, f, dt):
    """total + (y − x − f dt)²."""
    distance = fma(-f, dt, y - x)
    return fma(distance, distance, total)


def step(text: Any, keeps: bool) -> None:
    """The lines of one proposal and its test; ``keeps``: nothing else changes x, so its score and log p are kept."""
    for name, function in (
        ("_move", move), ("_kick", kick), ("_squared", squared), ("_log_ratio", log_ratio), ("_exp", functions.exp),
        ("_fill", bits.fill), ("_uniforms", bits.uniforms),
    ):  # fmt: skip
        text.function(name, function)
    score, log_p, g = (text.coefficient(i) for i in range(3))
    new_score, new_log_p, u, sums = (text.buffer(name) for name in ("new_score", "new_log_p", "u", "sums"))
    text.at_time(0.0)
    text.add("if s == step0:" if keeps else "if True:")
    text.add(f"    _tile(tiles[0], x, t, p, {score}, d)", f"    _tile(tiles[1], x, t, p, {log_p}, d)")
    text.loop(f"y[j, i] = _kick(_move(x[j, i], {score}[j, i], h), {g}[j, i], w[j, i], h, root)")
    text.add(f"_tile(tiles[0], y, t, p, {new_score}, d)", f"_tile(tiles[1], y, t, p, {new_log_p}, d)")
    text.add("if s % 2 == 0 or s == step0:", "    _fill(bits[0], U64(s // 2), U64(3 << 24), start, seed)")
    text.add(f"_uniforms({u}[0], bits[0], s % 2)")
    text.add(f"for i in range({text.L}):", f"    {sums}[0, i] = {sums}[1, i] = {text.T}(0.0)")
    text.loop(
        f"{sums}[0, i] = _squared({sums}[0, i], x[j, i], y[j, i], {score}[j, i], h)",
        f"{sums}[1, i] = _squared({sums}[1, i], y[j, i], x[j, i], {new_score}[j, i], h)",
    )
    text.add(
        f"for i in range({text.L}):",
        f"    v = _log_ratio({log_p}[0, i], {new_log_p}[0, i], {sums}[0, i], {sums}[1, i], {g}[0, i], h)",
        # a ratio that is not a number rejects
        f"    {u}[0, i] = {text.T}(1.0) if {u}[0, i] < _exp(v) else {text.T}(0.0)",
        f"    {log_p}[0, i] = {new_log_p}[0, i] if {u}[0, i] != {text.T}(0.0) else {log_p}[0, i]",
    )
    text.loop(
        f"x[j, i] = y[j, i] if {u}[0, i] != {text.T}(0.0) else x[j, i]",
        f"{score}[j, i] = {new_score}[j, i] if {u}[0, i] != {text.T}(0.0) else {score}[j, i]",
    )
    text.add(
        "for i in range(lo, hi):",
        f"    counts[0, row + i] += np.int64({u}[0, i])",
        f"    counts[1, row + i] += 1 - np.int64({u}[0, i])",
    )


MALA = Scheme(
    name="mala",
    stages=(),
    step=step,
    coefficients=("drift", "log_density", "diffusion"),
    strong_order=0.0,
    weak_order=1.0,
    noise=("additive",),
    calculus="ito",
    reference="Besag 1994; Roberts & Tweedie 1996",
    needs=("reversible", "temperature"),
    metropolis=True,
    counts=True,
)
