"""Geometric Brownian motion: noise in proportion to the state."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from .base import Process
from .gaussian import elapsed, spread_out


@dataclasses.dataclass(frozen=True)
class GeometricBrownian(Process):
    r"""dX = μ X dt + σ X dW (Itô).

    X_t = x0 exp((μ − σ²/2) t + σ W_t): log |X| is a Wiener process with drift, the sign never changes, and
    the density is lognormal. The mean grows as e^{μt} while almost every path, for μ < σ²/2, goes to 0.

    Parameters
    ----------
    mu : float
        μ, the growth rate of the mean.
    sigma : float
        σ >= 0, the volatility.

    References
    ----------
    Kloeden & Platen (1992), section 4.4.
    """

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("sigma", self.sigma, minimum=0.0)

    def drift(self, x: Any, t: Any) -> Any:
        return self.mu * x

    def diffusion(self, x: Any, t: Any) -> Any:
        return self.sigma * x

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return self.sigma

    def transition(self, x: Any, t: Any, dt: Any, z: Any) -> Any:
        """X_{t+dt} from X_t = x and a standard normal z; exact for every dt."""
        return x * np.exp((self.mu - 0.5 * self.sigma * self.sigma) * dt + self.sigma * np.sqrt(dt) * z)

    def mean(self, t: Any, x0: Any) -> Any:
        """x0 e^{μt}."""
        return np.asarray(x0, dtype=np.float64) * np.exp(self.mu * elapsed(t))

    def variance(self, t: Any, x0: Any) -> Any:
        """x0² e^{2μt} (e^{σ²t} − 1)."""
        t, x0 = elapsed(t), np.asarray(x0, dtype=np.float64)
        return x0 * x0 * np.exp(2.0 * self.mu * t) * np.expm1(self.sigma**2 * t)

    def density(self, x: Any, t: Any, x0: Any) -> Any:
        """The lognormal density of X_t at x from X_0 = x0; 0 on the other side of the origin."""
        spread_out(self, self.variance(t, x0))
        x, t, x0 = np.asarray(x, dtype=np.float64), elapsed(t), np.asarray(x0, dtype=np.float64)
        ratio = x / x0
        reached = ratio > 0.0
        log_ratio = np.log(np.where(reached, ratio, 1.0))
        variance = self.sigma**2 * t
        distance = log_ratio - (self.mu - 0.5 * self.sigma**2) * t
        value = np.exp(-0.5 * distance * distance / variance) / np.sqrt(2.0 * np.pi * variance)
        return np.where(reached, value / np.where(reached, np.abs(x), 1.0), 0.0)[()]

    def stationary(self) -> Any:
        """There is none on the open half line."""
        raise ValueError("GeometricBrownian has no stationary law: log X is a Wiener process with drift")
