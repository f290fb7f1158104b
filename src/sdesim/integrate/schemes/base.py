"""What a scheme is: a list of stages, each two scalar formulas.

A stage evaluates coefficients at the current point and then moves:

    y = move(x, f₀, f₁, …, dt)                       with every drift evaluated so far,
    y = kick(y, g₀, g₁, …, dw, dt, root_dt)          with every diffusion coefficient evaluated so far,

where x is the state at the start of the step; with general noise ``kick`` is applied once for each Wiener process.
The result is the point at which the next stage evaluates, and after the last stage the new state. The engines (tiles,
whole arrays, CUDA) only loop over stages, so no formula is written twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import njit

from ...core.elementary import fma

__all__ = ["Scheme", "Stage", "fma", "stage_function"]

stage_function = njit(inline="always", error_model="numpy")


@dataclass(frozen=True)
class Stage:
    """Evaluate ``drifts`` and ``noises`` (names of coefficients) at time t + at·dt, then move and kick."""

    move: Callable[..., Any]
    kick: Callable[..., Any]
    drifts: tuple[str, ...] = ("drift",)
    noises: tuple[str, ...] = ("diffusion",)
    at: float = 0.0


@dataclass(frozen=True)
class Scheme:
    """A fixed-step scheme and the facts about it.

    ``strong_order`` and ``weak_order`` hold for smooth coefficients under ``noise`` (the kinds it takes);
    ``calculus`` says in which sense its drift is read; the engine converts a process written in the other sense.
    ``inf`` stands for a scheme that draws from the exact transition law.
    """

    name: str
    stages: tuple[Stage, ...]
    strong_order: float
    weak_order: float
    noise: tuple[str, ...]
    calculus: str
    reference: str
