"""What a scheme is: a list of stages, each of a few scalar formulas.

A stage evaluates coefficients at the current point and then moves and is kicked:

    y = move(x, f₀, f₁, …, dt)                        with every drift evaluated so far,
    y = kick(y, g₀, g₁, …, dw[, dz], dt, √dt)         with every diffusion coefficient evaluated so far,

where x is the state at the start of the step; with general noise ``kick`` is applied once for each Wiener process.
The result is the point at which the next stage evaluates, and after the last stage the new state.

A fan, which may stand last where the noise is general, does what a stage cannot, because its points depend on the
Wiener process: for every k it evaluates the diffusion at points y_k = support(x, g_k, dt, √dt) and gathers

    y_j ← spread(y_j, G_jl…, g_jl, dw_l, i_kl, dt, √dt)     over all l,

where i_kl stands for the iterated integral I_(k,l) = ∫∫ dW_k dW_l. The engines (tiles, whole arrays) only loop over
stages and fans, so no formula is written twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numba import njit

from ...core.elementary import fma

__all__ = ["Fan", "Scheme", "Stage", "fma", "stage_function"]

stage_function = njit(inline="always", error_model="numpy")


@dataclass(frozen=True)
class Stage:
    """Evaluate ``drifts`` and ``noises`` (names of coefficients) at time t + at·dt, then move and kick.

    Without a ``kick`` the point only moves; with neither, it stays and the stage only evaluates.
    """

    move: Callable[..., Any] | None
    kick: Callable[..., Any] | None
    drifts: tuple[str, ...] = ("drift",)
    noises: tuple[str, ...] = ("diffusion",)
    at: float = 0.0


@dataclass(frozen=True)
class Fan:
    """Evaluate the diffusion at ``supports`` for each Wiener process, and gather with ``spread``.

    ``iterated`` says what i_kl is: "commutative" ½(ΔW_k ΔW_l − δ_kl dt); "levy" that plus a sampled Lévy area A_kl;
    "two_point" ½(ΔW_k ΔW_l + V_kl) with V_kk = −dt and V_kl = −V_lk = ±dt with probability ½.
    """

    supports: tuple[Callable[..., Any], ...]
    spread: Callable[..., Any]
    iterated: str


@dataclass(frozen=True)
class Scheme:
    """A scheme and the facts about it.

    Orders
        ``strong_order`` and ``weak_order`` hold for smooth coefficients under ``noise``, the kinds it takes: "none"
        (σ = 0), "additive" (σ does not depend on x), "diagonal", "general". ``orders`` holds what is different for some
        kind, as (strong, weak) by "additive", "diagonal", "commutative" or "general". ``inf`` stands for a scheme that
        draws from the exact transition law, a strong order of 0 for one whose paths follow no Brownian path.
    Calculus
        ``calculus`` says in which sense its drift is read; the engine converts a process written in the other sense.
    Noise
        ``increment`` is the law of dw: "gaussian", "two_point" (±√dt) or "three_point" (0 with probability ⅔, ±√(3dt)
        with ⅙ each). ``space_time`` hands the kicks dz = ∫ (W_s − W_t) ds over the step as well.
    Stages
        With general noise ``general_stages`` stand in for the stages, where they are given, and the ``fan`` comes last.
        What no list of stages can express (an implicit equation, a splitting, a Metropolis test) brings a ``step``
        instead, with the names of the ``coefficients`` it evaluates. ``needs`` names what else a process must have;
        ``implicit`` schemes solve an equation in each step; ``counts`` says that steps are taken or rejected.
    Adaptive schemes
        They choose their steps from rtol and atol by the local error that ``error(f₀, f₁, …, g₀, g₁, …, dw[, dz], dt,
        √dt)`` gives for each component, which falls as dt^``error_order``.
    """

    name: str
    stages: tuple[Stage, ...]
    strong_order: float
    weak_order: float
    noise: tuple[str, ...]
    calculus: str
    reference: str
    fan: Fan | None = None
    general_stages: tuple[Stage, ...] | None = None
    step: Any = None
    coefficients: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    implicit: bool = False
    increment: str = "gaussian"
    space_time: bool = False
    adaptive: bool = False
    metropolis: bool = False  # proposals, accepted or rejected
    counts: bool = False  # steps are taken or rejected, and counted
    error: Callable[..., Any] | None = None
    error_order: float = 0.0
    orders: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def on_arrays(self) -> bool:
        """Whether the whole-array engine runs it too, for coefficients that are not compiled."""
        plain = self.step is None and self.fan is None and self.name != "exact"
        return (plain or self.metropolis) and self.increment == "gaussian" and not self.adaptive

    @property
    def law_only(self) -> bool:
        """Whether its paths follow no Brownian path, so that only their law means something."""
        return self.increment != "gaussian"
