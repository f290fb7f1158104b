"""The Wiener process: where all the noise comes from."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from .gaussian import GaussianProcess


@dataclasses.dataclass(frozen=True)
class Wiener(GaussianProcess):
    r"""dX = σ dW.

    Starts anywhere, has independent increments X_{t+h} − X_t ~ N(0, σ²h), and continuous paths. From a point
    x0 its density is ``exp(−(x − x0)²/2σ²t) / √(2πσ²t)``, the solution of the heat equation ∂p/∂t = D
    ∂²p/∂x², D = σ²/2.

    Parameters
    ----------
    sigma : float
        σ >= 0, the standard deviation after one unit of time.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("sigma", self.sigma, minimum=0.0)

    def drift(self, x: Any, t: Any) -> Any:
        return 0.0

    def diffusion(self, x: Any, t: Any) -> Any:
        return self.sigma

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0

    def transition(self, x: Any, t: Any, dt: Any, z: Any) -> Any:
        """X_{t+dt} from X_t = x and a standard normal z; exact for every dt."""
        return x + self.sigma * np.sqrt(dt) * z

    def mean_factor(self, t: Any) -> Any:
        return 1.0 + 0.0 * t

    def added_variance(self, t: Any) -> Any:
        return self.sigma**2 * t

    def stationary(self) -> Any:
        """There is none: the variance grows for ever."""
        raise ValueError("Wiener has no stationary law: its variance σ²t grows for ever")
