"""A particle between two wells: the simplest process with two time scales."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from ..targets.double_well import DoubleWellDensity
from .base import Process


@dataclasses.dataclass(frozen=True)
class DoubleWell(Process):
    r"""dX = −U'(X) dt + √(2T) dW with U(x) = b (x² − 1)².

    The wells are at ±1, the barrier between them is b high. Within a well X settles in a time of about 1/8b;
    it crosses at Kramers' rate, about ``(4√2 b / 2π) e^{−b/T}`` each way for b >> T. Its stationary density
    is ∝ exp(−U/T).

    Parameters
    ----------
    barrier : float
        b > 0.
    temperature : float
        T >= 0, in units of the potential.

    References
    ----------
    Kramers (1940); Risken (1989), section 5.10.
    """

    barrier: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("barrier", self.barrier, above=0.0)
        checks.real("temperature", self.temperature, minimum=0.0)

    def potential(self, x: Any) -> Any:
        """U(x)."""
        x = np.asarray(x, dtype=np.float64)
        return self.barrier * (x * x - 1.0) ** 2

    def drift(self, x: Any, t: Any) -> Any:
        return 4.0 * self.barrier * x * (1.0 - x * x)

    def diffusion(self, x: Any, t: Any) -> Any:
        return np.sqrt(2.0 * self.temperature)

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0

    def stationary(self) -> DoubleWellDensity:
        """The density exp(−U/T)/Z."""
        if not self.temperature > 0.0:
            raise ValueError("DoubleWell has a stationary density only for temperature > 0, got 0.0")
        return DoubleWellDensity(self.barrier / self.temperature)
