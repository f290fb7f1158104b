"""The Ornstein-Uhlenbeck process: a spring in a heat bath."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from ..targets.gaussian import Gaussian
from .gaussian import GaussianProcess


@dataclasses.dataclass(frozen=True)
class OrnsteinUhlenbeck(GaussianProcess):
    r"""dX = θ (μ − X) dt + σ dW.

    From a point x0, X_t is normal with mean ``μ + (x0 − μ) e^{−θt}`` and variance ``σ² (1 − e^{−2θt}) / 2θ``.
    For θ > 0 it forgets x0 and reaches N(μ, σ²/2θ): for μ = 0 the density ``√(θ/πσ²) exp(−θx²/σ²)``. Its
    Fokker-Planck equation is ∂p/∂t = +∂ₓ[θ(x − μ) p] + ½σ² ∂ₓₓp. Two solutions driven by one Wiener path
    approach each other as e^{−θt}.

    Parameters
    ----------
    theta : float
        θ, the rate of return; 0 is the Wiener process and θ < 0 runs away, both with the same formulas.
    mu : float
        μ, the mean it returns to.
    sigma : float
        σ >= 0, the strength of the noise.

    References
    ----------
    Uhlenbeck & Ornstein (1930); Gillespie (1996) for the exact transition.
    """

    theta: float = 1.0
    mu: float = 0.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("sigma", self.sigma, minimum=0.0)

    def drift(self, x: Any, t: Any) -> Any:
        return self.theta * (self.mu - x)

    def diffusion(self, x: Any, t: Any) -> Any:
        return self.sigma

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0

    def transition(self, x: Any, t: Any, dt: Any, z: Any) -> Any:
        """X_{t+dt} from X_t = x and a standard normal z; exact for every dt."""
        # expm1 keeps both increments exact to rounding where θ dt is tiny
        if self.theta == 0.0:
            return x + self.sigma * np.sqrt(dt) * z
        spread = np.sqrt(-np.expm1(-2.0 * self.theta * dt) / (2.0 * self.theta))
        return x - (self.mu - x) * np.expm1(-self.theta * dt) + self.sigma * spread * z

    def mean_factor(self, t: Any) -> Any:
        return np.exp(-self.theta * t)

    def mean_shift(self, t: Any) -> Any:
        return -self.mu * np.expm1(-self.theta * t)

    def added_variance(self, t: Any) -> Any:
        if self.theta == 0.0:
            return self.sigma**2 * t
        return -(self.sigma**2) * np.expm1(-2.0 * self.theta * t) / (2.0 * self.theta)

    def stationary(self) -> Gaussian:
        """N(μ, σ²/2θ)."""
        if not self.theta > 0.0:
            raise ValueError(f"OrnsteinUhlenbeck has a stationary law only for theta > 0, got {self.theta}")
        if not self.sigma > 0.0:
            raise ValueError("OrnsteinUhlenbeck has a stationary density only for sigma > 0, got 0.0")
        return Gaussian(self.mu, self.sigma**2 / (2.0 * self.theta))
