"""Langevin diffusion: a drift up the score and noise that balances it.

The overdamped equation dX = ∇log p dt + √(2T) dW keeps the law ∝ p^{1/T}; at T = 1 it samples p itself, and
needs nothing of p but its score, so that the normalising constant never enters. The underdamped one has a
velocity: it keeps going, and crosses flat ground faster.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks
from ..targets.base import Target
from ..targets.gaussian import Gaussian
from ..targets.mixture import GaussianMixture
from .base import Process
from .components import call_score, joined, split


@dataclasses.dataclass(frozen=True, eq=False)
class Langevin(Process):
    r"""dX = ∇log p(X) dt + √(2T) dW.

    Parameters
    ----------
    target : Target or callable
        The law p; its score becomes the drift and is compiled where the target has a tile form. Or any score,
        ``score(x, t)`` or ``score(x)`` with x of shape (n, d), for example a trained network: run in
        whole-array steps.
    temperature : float
        T >= 0; 0 is gradient ascent on log p.
    dim : int, optional
        The dimension d, for a score that has no attribute ``dim``; 1 if not given.

    Notes
    -----
    The stationary law is ∝ p^{1/T}. On the clock ½∇log p dt + dW, which some texts use, every rate is half of
    these. Source: Roberts & Tweedie (1996).
    """

    target: Any
    temperature: float = 1.0
    dim: int | None = None
    batch_only: bool = dataclasses.field(init=False, repr=False, default=False)
    reversible = True  # in detailed balance with p^{1/T}: what Langevin samplers rely on

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("temperature", self.temperature, minimum=0.0)
        target = self.target
        owner = getattr(target, "__self__", None)
        if isinstance(owner, Target) and getattr(target, "__name__", "") == "score":
            target = owner  # Langevin(p.score) is Langevin(p), which compiles
        if not isinstance(target, Target):
            checks.function("target", target, "score(x, t), or have log_density and score (a target)")
            target = score_of_two(target)
        known = getattr(target, "dim", None)
        dim = self.dim if self.dim is not None else known
        dim = 1 if dim is None else checks.integer("dim", dim, minimum=1)
        if isinstance(known, int) and dim != known:
            raise ValueError(f"dim must be {known}, the dimension of the target, got {dim}")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "dim", dim)
        object.__setattr__(self, "batch_only", not hasattr(target, "score_tile"))

    def drift(self, x: Any, t: Any) -> Any:
        rows, shape = joined(x, self.dim)
        return split(self.drift_batch(rows, t), shape)

    @property
    def autonomous(self) -> bool:
        return isinstance(self.target, Target | TimelessScore)

    def drift_batch(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The drift at points ``x`` of shape (n, d), in one call of the score."""
        return call_score(self.target.score if isinstance(self.target, Target) else self.target, x, t)

    def diffusion(self, x: Any, t: Any) -> Any:
        return np.sqrt(2.0 * self.temperature)

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0

    @property
    def drift_tile(self) -> Callable[..., None]:
        """The drift over a tile of 256 points, for compiled code: the target's score."""
        return _pulled(_tile_of(self.target, "score_tile"))

    @property
    def drift_point(self) -> Callable[..., None]:
        """The drift of one point, x and out of shape (d, 1), for a thread of a GPU."""
        return _pulled(_tile_of(self.target, "score_point"))

    @property
    def log_density(self) -> Callable[..., Any]:
        """log p, where the target knows it; a bare score has none."""
        found: Callable[..., Any] = self.target.log_density
        return found

    @property
    def log_density_tile(self) -> Callable[..., None]:
        """log p over a tile of 256 points, (1, 256), for the Metropolis test."""
        density_tile = _tile_of(self.target, "log_density_tile")

        def log_density_tile(self, x, t, out):
            density_tile(self.target, x, t, out)

        return log_density_tile

    def stationary(self) -> Any:
        """The law ∝ p^{1/T}: the target itself for T = 1, N(μ, T C) for a Gaussian."""
        return tempered(self.target, self.temperature)


@dataclasses.dataclass(frozen=True, eq=False)
class UnderdampedLangevin(Process):
    r"""dq = v dt, dv = (∇log p(q) − γ v) dt + √(2γT) dW.

    The state is (q₁, …, q_d, v₁, …, v_d), the noise acts on the velocities only, and the stationary law is
    p(q)^{1/T} × N(v; 0, T I). For γ → ∞ the positions follow overdamped Langevin dynamics on the clock γt.

    Parameters
    ----------
    target : Target
        The law p of the positions, of dimension d.
    friction : float
        γ >= 0; 0 is Hamiltonian motion.
    temperature : float
        T >= 0.

    References
    ----------
    Kramers (1940); Leimkuhler & Matthews (2013) for its integrators.
    """

    target: Any
    friction: float = 1.0
    temperature: float = 1.0
    dim: int = dataclasses.field(init=False, repr=False, default=2)
    batch_only: bool = dataclasses.field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("friction", self.friction, minimum=0.0)
        checks.real("temperature", self.temperature, minimum=0.0)
        if not isinstance(self.target, Target):
            raise TypeError(
                "target must be a target such as targets.Gaussian(0.0, 1.0), "
                f"got {type(self.target).__name__}; a bare score gives no dimension"
            )
        object.__setattr__(self, "dim", 2 * self.target.dim)
        object.__setattr__(self, "batch_only", not hasattr(self.target, "score_tile"))

    def drift(self, x: Any, t: Any) -> Any:
        rows, shape = joined(x, self.dim)
        return split(self.drift_batch(rows, t), shape)

    def drift_batch(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The drift at states ``x`` of shape (n, 2d)."""
        d = self.target.dim
        q, v = x[:, :d], x[:, d:]
        return np.concatenate([v, self.target.score(q) - self.friction * v], axis=1)

    @property
    def autonomous(self) -> bool:
        return True

    def diffusion(self, x: Any, t: Any) -> Any:
        noise, d = np.sqrt(2.0 * self.friction * self.temperature), self.target.dim
        return (0.0 * noise,) * d + (noise,) * d

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return (0.0,) * self.dim

    def formula(self, name: str) -> Callable[..., Any]:
        d = self.target.dim
        if name == "diffusion":
            zeros, ones = (0.0,) * d, (1.0,) * d

            def diffusion(self, x, t):
                noise = np.sqrt(2.0 * self.friction * self.temperature)
                return scaled(noise)

            scaled = scaling(zeros + ones)
            return diffusion
        if name == "diffusion_dx":
            scaled = scaling((0.0,) * (2 * d))

            def diffusion_dx(self, x, t):
                return scaled(self.friction)

            return diffusion_dx
        return super().formula(name)

    @property
    def force_tile(self) -> Callable[..., None]:
        """The force ∇log p(q) over a tile: x and out of shape (d, 256)."""
        return _pulled(_tile_of(self.target, "score_tile"))

    @property
    def drift_tile(self) -> Callable[..., None]:
        """The drift over a tile of 256 states, for compiled code."""
        return _pulled_and_slowed(_tile_of(self.target, "score_tile"))

    @property
    def drift_point(self) -> Callable[..., None]:
        """The drift of one state, x and out of shape (2d, 1), for a thread of a GPU."""
        return _pulled_and_slowed(_tile_of(self.target, "score_point"))

    def stationary(self) -> Any:
        """p(q)^{1/T} × N(v; 0, T I), for a Gaussian target or a Gaussian mixture at T = 1."""
        law, d = tempered(self.target, self.temperature), self.target.dim
        if not isinstance(law, (Gaussian, GaussianMixture)):
            raise ValueError(
                "UnderdampedLangevin writes down its stationary law for Gaussian targets and mixtures, "
                f"not for {type(law).__name__}; it is the law of Langevin(target) in q times N(0, T) in v"
            )
        lift = np.concatenate([np.eye(d), np.zeros((d, d))])
        noise = np.diag([0.0] * d + [self.temperature] * d)
        return law.affine(lift, 0.0, noise)


def _pulled(score: Any) -> Callable[..., None]:
    """The formula of a drift that is the target's score."""

    def drift(self, x, t, out):
        score(self.target, x, t, out)

    return drift


def _pulled_and_slowed(score: Any) -> Callable[..., None]:
    """The formula of (v, ∇log p(q) − γ v) at (q, v)."""

    def drift(self, x, t, out):
        d = x.shape[0] // 2
        score(self.target, x[:d], t, out[d:])
        for j in range(d):
            for i in range(x.shape[1]):
                out[j, i] = x[d + j, i]
                out[d + j, i] -= self.friction * x[d + j, i]

    return drift


def score_of_two(score: Callable[..., Any]) -> Callable[..., Any]:
    """A score as a function of (x, t): one that takes x alone is wrapped."""
    try:
        parameters = inspect.signature(score).parameters.values()
    except (TypeError, ValueError):
        return score
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if len(places) == 1 and places[0].kind is not places[0].VAR_POSITIONAL:
        return TimelessScore(score)
    return score


class TimelessScore:
    """A score(x) called as score(x, t)."""

    def __init__(self, score: Callable[..., Any]) -> None:
        self.score = score
        if isinstance(getattr(score, "dim", None), int):
            self.dim = score.dim  # type: ignore[attr-defined]

    def __call__(self, x: Any, t: Any) -> Any:
        return self.score(x)


def tempered(target: Any, temperature: float) -> Any:
    """The law ∝ p^{1/T}, where it can be written down."""
    if not isinstance(target, Target):
        raise ValueError(
            "the stationary law of a Langevin process is known where it was given a target, not a bare score"
        )
    if temperature == 1.0:
        return target
    if isinstance(target, Gaussian) and temperature > 0.0:
        return Gaussian(target.mean, temperature * np.asarray(target.cov))
    raise ValueError(
        f"the stationary law ∝ p^(1/T) has no closed form for a {type(target).__name__} at temperature "
        f"{temperature:g}; its score is target.score(x) / temperature"
    )


def _tile_of(target: Any, name: str) -> Any:
    if not isinstance(target, Target) or not hasattr(target, name):
        raise AttributeError(f"{type(target).__name__} has no {name}")
    return target.formula(name)


def scaling(numbers: tuple[float, ...]) -> Callable[[Any], Any]:
    """The function c -> (c·n₁, c·n₂, …), by recursion because a compiled tuple has a fixed length."""
    head = numbers[0]
    if len(numbers) == 1:
        return lambda c: (c * head,)
    tail = scaling(numbers[1:])
    return lambda c: (c * head,) + tail(c)  # noqa: RUF005 - Numba knows this spelling
