r"""A noising process as samplers see it: X_t = α(t) X₀ + β(t) + √v(t) ε, and dX = (a(t) X + b(t)) dt + g(t) dW.

Its noise-to-signal ratio r(t) = √v/α grows with t from 0. In the coordinates y = (x − β)/α, with r as the clock, every
such process is the same one, y = x₀ + r ε (Karras et al. 2022, section 4), which is how samplers written for one
parametrisation serve all of them.
"""

import math
from typing import Any

import numpy as np

from ..core import checks
from ..processes.gaussian import GaussianProcess


class Noised:
    """The numbers of a linear process at single times, as Python floats (which leave float32 arrays what they are)."""

    def __init__(self, process: Any, horizon: float | None = None) -> None:
        if not isinstance(process, GaussianProcess):
            raise TypeError(
                f"process must be a noising process (VariancePreserving, ...) or another linear one, got "
                f"{type(process).__name__}; for others simulate a ReverseProcess from samples of its law at the horizon"
            )
        known = getattr(process, "horizon", None) if horizon is None else horizon
        if known is None:
            raise ValueError(f"{type(process).__name__} has no horizon of its own; give horizon=")
        self.process, self.horizon = process, checks.real("horizon", known, above=0.0)
        self.t_min = float(getattr(process, "t_min", 1e-3 * self.horizon))

    def scale(self, t: float) -> float:
        """α."""
        return float(self.process.mean_factor(t))

    def shift(self, t: float) -> float:
        """β."""
        return float(self.process.mean_shift(t))

    def variance(self, t: float) -> float:
        """v."""
        return float(self.process.added_variance(t))

    def ratio(self, t: float) -> float:
        """r = √v/α."""
        return math.sqrt(self.variance(t)) / self.scale(t)

    def slope(self, t: float) -> float:
        """a of the drift a x + b."""
        return float(self.process.drift(1.0, t) - self.process.drift(0.0, t))

    def offset(self, t: float) -> float:
        """b of the drift a x + b."""
        return float(self.process.drift(0.0, t))

    def diffusion(self, t: float) -> float:
        """g."""
        return float(self.process.diffusion(0.0, t))

    def times_at(self, ratios: np.ndarray) -> np.ndarray:
        """The times at which r is ``ratios``, by bisection in (0, horizon]."""
        wanted = np.asarray(ratios, dtype=np.float64)
        low, high = np.zeros_like(wanted), np.full_like(wanted, self.horizon)
        for _ in range(200):
            middle = 0.5 * (low + high)
            ratio = np.sqrt(self.process.added_variance(middle)) / self.process.mean_factor(middle)
            above = ratio > wanted
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return 0.5 * (low + high)
