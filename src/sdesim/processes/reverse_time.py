"""Time reversal: the same densities, run backward.

If dX = μ dt + σ dW has the densities p(x, t), 0 <= t <= T, and a = σσᵀ, (∇·a)ᵢ = Σⱼ ∂ⱼaᵢⱼ, then on the clock
s = T − t

    dY = (−μ + ∇·a + a ∇log p) ds + σ dW          (Anderson 1982)
    dY = (−μ + ½ ∇·a + ½ a ∇log p) ds             (the probability flow; Song et al. 2021)

started from p(·, T) both have the density p(·, T − s) at time s, with μ, σ and ∇log p taken at (Y, T − s).
The clock s runs forward: both are processes like any other, and no integrator sees a negative step. In one
dimension ∇·a + a ∇log p is (1/p) ∂ₓ(σ² p), which is not ∂ₓ(σ² log p): the two agree where σ does not depend
on x.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks
from .base import Process
from .components import Shape, call_score, joined, rows_of_time, split
from .langevin import score_of_two


@dataclasses.dataclass(frozen=True, eq=False)
class Reversal(Process):
    """What the reverse SDE and the probability flow share: a process, its score, and the clock s = T − t."""

    process: Process
    score: Callable[..., Any]
    horizon: float
    dim: int | None = None

    batch_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.process, Process):
            raise TypeError(f"process must be a process, got {type(self.process).__name__}")
        score = self.score
        if not callable(score) and callable(getattr(score, "score", None)):
            score = score.score  # a solved density or a target stands for its score
        checks.function("score", score, "score(x, t) with x of shape (n, d)")
        checks.real("horizon", self.horizon, above=0.0)
        known = self.process.dim if self.process.dim is not None else getattr(score, "dim", None)
        dim = known if self.dim is None else checks.integer("dim", self.dim, minimum=1)
        if self.process.dim is not None and dim != self.process.dim:
            raise ValueError(f"dim must be {self.process.dim}, the dimension of the process, got {dim}")
        object.__setattr__(self, "score", score_of_two(score))
        object.__setattr__(self, "dim", dim if isinstance(dim, int) else None)

    def fields(self) -> dict[str, Any]:
        return {}

    def formula(self, name: str) -> Callable[..., Any]:
        found = super().formula(name)
        if isinstance(getattr(type(self), name), property):
            return lambda self, x, t: found(x, t)  # already bound to this process
        return found

    def forward_time(self, s: Any) -> Any:
        """t = T − s; raises ValueError outside [0, T], up to rounding."""
        s = np.asarray(s, dtype=np.float64)
        slack = 1e-9 * self.horizon
        if not ((s >= -slack) & (s <= self.horizon + slack)).all():
            worst = s.reshape(-1)[int(np.argmax(np.abs(s - 0.5 * self.horizon)))]
            raise ValueError(f"s must lie in [0, horizon] = [0, {self.horizon:g}], got {worst:g}")
        return np.clip(self.horizon - s, 0.0, self.horizon)[()]

    def _reverse_drift(self, x: Any, s: Any, share: float) -> Any:
        """−μ + share·(∇·a + a ∇log p) at (x, T − s), in the structure of x."""
        rows, shape = joined(x, self.dim)
        t = rows_of_time(self.forward_time(s), shape, len(rows))
        return split(self._rows_drift(rows, t, share), shape)

    def _rows_drift(self, rows: np.ndarray, t: Any, share: float) -> np.ndarray:
        score = call_score(self.score, rows, t)
        state: Any
        shape: Shape
        if self.process.dim is None or self.process.dim == 1:
            state, shape = rows, ("array", rows.shape)
            t = t if np.ndim(t) == 0 else t[:, None]
        else:
            state, shape = split(rows, ("tuple", (len(rows),))), ("tuple", (len(rows),))
        drift = _rows(self.process.ito_drift(state, t), shape, rows.shape)
        divergence = _rows(self.process.diffusion_divergence(state, t), shape, rows.shape)
        sigma = self.process.diffusion(state, t)
        if self.process.noise == "general":
            spread = _along(sigma, score)
        else:
            spread = _rows(sigma, shape, rows.shape) ** 2 * score
        return -drift + share * (divergence + spread)


@dataclasses.dataclass(frozen=True, eq=False)
class ReverseProcess(Reversal):
    r"""dY = (−μ + ∇·a + a ∇log p) ds + σ dW with everything at (Y, T − s).

    Parameters
    ----------
    process : Process
        The forward process; a Stratonovich one enters with its Itô drift.
    score : callable
        ``score(x, t)``, ∇log p at the forward time t, with x of shape (n, d) and t a number or (n,): exact
        (``marginal_score``), from a solved density, or learned.
    horizon : float
        T > 0, where the reverse process starts.
    dim : int, optional
        The number d of components that the score takes, for a forward process that acts element by element;
        the score's attribute ``dim`` if it has one. Without either an array of two axes holds points (n, d).

    Raises
    ------
    ValueError
        For s outside [0, T], and where the score returns another shape or is not finite.

    References
    ----------
    Anderson (1982); Haussmann & Pardoux (1986).
    """

    @property
    def noise(self) -> str:  # type: ignore[override]
        """The noise of the forward process."""
        return self.process.noise

    def drift(self, x: Any, t: Any) -> Any:
        return self._reverse_drift(x, t, 1.0)

    def drift_batch(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The drift at points ``x`` of shape (n, d)."""
        return self._rows_drift(x, self.forward_time(t), 1.0)

    def diffusion(self, x: Any, t: Any) -> Any:
        return _lifted(self.process, self.process.diffusion, x, self.forward_time(t))

    @property
    def diffusion_dx(self) -> Callable[[Any, Any], Any] | None:  # type: ignore[override]
        """∂σ/∂x of the forward process at T − s, where it is known."""
        derivative = self.process.diffusion_dx
        if derivative is None:
            return None
        return lambda x, t: _lifted(self.process, derivative, x, self.forward_time(t))


@dataclasses.dataclass(frozen=True, eq=False)
class ProbabilityFlow(Reversal):
    r"""dY = (−μ + ½ ∇·a + ½ a ∇log p) ds with everything at (Y, T − s): no noise, the same densities.

    Arguments as for :class:`ReverseProcess`. The flow is a bijection between p(·, T) and p(·, 0):
    ``velocity`` is its field on the forward clock, dX/dt = μ − ½ ∇·a − ½ a ∇log p, for encoding and
    likelihoods.

    References
    ----------
    Song et al. (2021), section 4.3; Maoutsa, Reich & Opper (2020).
    """

    def drift(self, x: Any, t: Any) -> Any:
        return self._reverse_drift(x, t, 0.5)

    def drift_batch(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The drift at points ``x`` of shape (n, d)."""
        return self._rows_drift(x, self.forward_time(t), 0.5)

    def velocity(self, x: Any, t: Any) -> Any:
        """dX/dt at the forward time t."""
        rows, shape = joined(x, self.dim)
        return split(-self._rows_drift(rows, rows_of_time(t, shape, len(rows)), 0.5), shape)

    def diffusion(self, x: Any, t: Any) -> Any:
        return 0.0

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0


def _rows(value: Any, shape: Shape, full: tuple[int, ...]) -> np.ndarray:
    """A coefficient's value as rows (n, d), numbers broadcast."""
    if isinstance(value, tuple):
        return np.stack(np.broadcast_arrays(*value, np.empty(full[0]))[:-1], axis=1)
    return np.broadcast_to(np.asarray(value), full)


def _along(sigma: tuple[tuple[Any, ...], ...], score: np.ndarray) -> np.ndarray:
    """σ(σᵀ s) for σ given as rows."""
    d, m = len(sigma), len(sigma[0])
    columns = [sum(sigma[i][k] * score[:, i] for i in range(d)) for k in range(m)]
    return np.stack([sum(sigma[i][k] * columns[k] for k in range(m)) + 0.0 * score[:, i] for i in range(d)], axis=1)


def _lifted(process: Process, coefficient: Callable[[Any, Any], Any], x: Any, t: Any) -> Any:
    """A coefficient of the forward process, on each component of a tuple if it acts element by element."""
    if isinstance(x, tuple) and (process.dim is None or process.dim == 1):
        return tuple(coefficient(component, t) for component in x)
    if not isinstance(x, tuple) and np.ndim(t) == 1 and np.ndim(x) > 1:
        t = np.reshape(t, (-1,) + (1,) * (np.ndim(x) - 1))
    return coefficient(x, t)
