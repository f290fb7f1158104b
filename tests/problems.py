"""The zoo: processes with known laws, to run every engine against.

Each problem is a process, a start, a time, and what is known of X_t. There is a time-dependent, a
multiplicative, a Stratonovich and a two-dimensional member, because errors like to hide where σ is constant
and t does not appear.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sdesim.processes.cox_ingersoll_ross import CoxIngersollRoss
from sdesim.processes.custom import ito, stratonovich
from sdesim.processes.gaussian import GaussianProcess
from sdesim.processes.geometric import GeometricBrownian
from sdesim.processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdesim.processes.wiener import Wiener


@dataclasses.dataclass(frozen=True)
class Seasonal(GaussianProcess):
    """dX = (cos t − θ X) dt + σ √(1 + t) dW: a linear process that knows what time it is."""

    theta: float = 0.7
    sigma: float = 0.5

    def drift(self, x, t):
        return np.cos(t) - self.theta * x

    def diffusion(self, x, t):
        return self.sigma * np.sqrt(1.0 + t)

    def diffusion_dx(self, x, t):
        return 0.0

    def mean_factor(self, t):
        return np.exp(-self.theta * t)

    def mean_shift(self, t):
        theta = self.theta
        return (theta * np.cos(t) + np.sin(t) - theta * np.exp(-theta * t)) / (1.0 + theta**2)

    def added_variance(self, t):
        rate = 2.0 * self.theta
        decayed = np.exp(-rate * t) * (1.0 / rate - 1.0 / rate**2)
        return self.sigma**2 * ((1.0 + t) / rate - 1.0 / rate**2 - decayed)


def rotating(theta: float = 0.8, omega: float = 1.5) -> Any:
    """A spring that also turns, pushed by two Wiener processes that are mixed: 2-D, general noise."""
    return ito(
        lambda x, t, theta, omega: (-theta * x[0] - omega * x[1], omega * x[0] - theta * x[1]),
        lambda x, t: ((0.6, 0.2), (0.0, 0.5)),
        dim=2,
        noise="general",
        theta=theta,
        omega=omega,
    )


def rotating_law(x0: np.ndarray, t: float, theta: float = 0.8, omega: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of ``rotating``: turn and spring commute, so the covariance is one integral."""
    noise = np.array([[0.6, 0.2], [0.0, 0.5]])

    def flow(s: float) -> np.ndarray:
        c, w = np.cos(omega * s), np.sin(omega * s)
        return np.exp(-theta * s) * np.array([[c, -w], [w, c]])

    nodes, weights = np.polynomial.legendre.leggauss(40)
    cov = sum(
        0.5 * t * w * flow(0.5 * t * (u + 1.0)) @ noise @ noise.T @ flow(0.5 * t * (u + 1.0)).T
        for u, w in zip(nodes, weights, strict=True)
    )
    return flow(t) @ x0, np.asarray(cov)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A process started at ``x0``, and the law of X_t."""

    name: str
    process: Any
    x0: Any
    t: float
    mean: Any
    cov: Any
    density: Callable[[Any, float], Any] | None = None  # p(x, t) from x0
    support: tuple[float, float] = (-np.inf, np.inf)

    def __repr__(self) -> str:
        return self.name


def _closed(name: str, process: Any, x0: float, t: float, support: tuple[float, float] = (-np.inf, np.inf)) -> Problem:
    return Problem(
        name,
        process,
        x0,
        t,
        float(process.mean(t, x0)),
        float(process.variance(t, x0)),
        lambda x, s: process.density(x, s, x0),
        support,
    )


def _problems() -> list[Problem]:
    half_line = (0.0, np.inf)
    # Stratonovich dX = μX dt + σX ∘ dW is the Itô equation with μ + σ²/2
    twin = GeometricBrownian(0.3 + 0.5 * 0.4**2, 0.4)
    strato = stratonovich(lambda x, t, mu: mu * x, lambda x, t, sigma: sigma * x, mu=0.3, sigma=0.4)
    start = np.array([1.0, -0.5])
    mean, cov = rotating_law(start, 0.9)
    return [
        _closed("wiener", Wiener(0.7), 0.3, 1.2),
        _closed("ornstein_uhlenbeck", OrnsteinUhlenbeck(1.3, 0.4, 0.8), -0.5, 0.7),
        _closed("runaway", OrnsteinUhlenbeck(-0.6, 0.4, 0.8), 0.9, 0.7),
        _closed("seasonal", Seasonal(), 0.5, 1.1),
        _closed("geometric", GeometricBrownian(0.3, 0.4), 1.2, 0.8, half_line),
        _closed("cox_ingersoll_ross", CoxIngersollRoss(1.5, 0.9, 0.6), 0.6, 0.5, half_line),
        Problem(
            "stratonovich",
            strato,
            1.2,
            0.8,
            float(twin.mean(0.8, 1.2)),
            float(twin.variance(0.8, 1.2)),
            lambda x, s: twin.density(x, s, 1.2),
            half_line,
        ),
        Problem("rotating", rotating(), tuple(start), 0.9, mean, cov),
    ]


PROBLEMS = _problems()
ON_THE_LINE = [problem for problem in PROBLEMS if problem.density is not None]


def fokker_planck_residual(
    drift: Callable[..., Any],
    diffusion: Callable[..., Any] | None,
    density: Callable[..., Any],
    x: tuple[Any, ...],
    t: float,
    h: float = 2e-3,
) -> tuple[Any, Any]:
    """∂ₜp + ∇·(a p) − ½ Σ ∂ᵢ∂ⱼ((σσᵀ)ᵢⱼ p) by fourth-order differences at points x, and the size of its terms.

    ``x`` is a tuple of d arrays; ``drift(x, t)`` returns d components, ``diffusion(x, t)`` d rows (None: no
    noise), and ``density(x, t)`` numbers. All derivatives are taken outside the process, so a slip inside it
    shows.
    """
    d = len(x)
    stencil = ((-2, 1.0 / 12.0), (-1, -2.0 / 3.0), (1, 2.0 / 3.0), (2, -1.0 / 12.0))

    def shifted(point: tuple[Any, ...], i: int, k: int) -> tuple[Any, ...]:
        return tuple(c + k * h if j == i else c for j, c in enumerate(point))

    def derivative(f: Callable[..., Any], i: int) -> Callable[..., Any]:
        return lambda point: sum(w * f(shifted(point, i, k)) for k, w in stencil) / h

    def tensor(point: tuple[Any, ...], i: int, j: int) -> Any:
        rows = diffusion(point, t)  # type: ignore[misc]
        return sum(rows[i][k] * rows[j][k] for k in range(len(rows[0]))) * density(point, t)

    dt = sum(w * density(x, t + k * h) for k, w in stencil) / h
    advection = sum(derivative(lambda y, i=i: drift(y, t)[i] * density(y, t), i)(x) for i in range(d))
    spreading = 0.0
    if diffusion is not None:
        for i in range(d):
            for j in range(d):
                spreading = spreading + 0.5 * derivative(derivative(lambda y, i=i, j=j: tensor(y, i, j), i), j)(x)
    return dt + advection - spreading, np.abs(dt) + np.abs(advection) + np.abs(spreading)
