"""Processes that are linear in their state: Gaussian from every point.

A linear SDE acting element by element,

    dX = (a(t) X + b(t)) dt + g(t) dW,

carries a point x0 to a normal law, X_t ~ N(α(t) x0 + β(t), v(t)), where α is the mean factor, β the mean
shift and v the added variance over (0, t). Everything that is known of such a process follows from these
three: its mean, its variance, its density, and the exact score of its marginal from any Gaussian mixture
(``marginal_score``).
"""

import dataclasses
from typing import Any

import numpy as np

from .base import Process


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianProcess(Process):
    """Base of the linear processes: ``mean_factor``, ``mean_shift``, ``added_variance`` make one."""

    def mean_factor(self, t: Any) -> Any:
        """α(t): E[X_t | X_0 = x0] = α(t) x0 + β(t)."""
        raise NotImplementedError(f"{type(self).__name__} defines no mean_factor(t)")

    def mean_shift(self, t: Any) -> Any:
        """β(t)."""
        return 0.0 * np.asarray(t, dtype=np.float64)[()]

    def added_variance(self, t: Any) -> Any:
        """v(t) = Var[X_t | X_0 = x0]."""
        raise NotImplementedError(f"{type(self).__name__} defines no added_variance(t)")

    def mean(self, t: Any, x0: Any) -> Any:
        """E[X_t | X_0 = x0]."""
        t = elapsed(t)
        return self.mean_factor(t) * np.asarray(x0, dtype=np.float64) + self.mean_shift(t)

    def variance(self, t: Any, x0: Any) -> Any:
        """Var[X_t | X_0 = x0], the same for every x0."""
        t = elapsed(t)
        return self.added_variance(t) + 0.0 * np.asarray(x0, dtype=np.float64)

    def density(self, x: Any, t: Any, x0: Any) -> Any:
        """The normal density of X_t at x from X_0 = x0."""
        variance = spread_out(self, self.variance(t, x0))
        distance = np.asarray(x, dtype=np.float64) - self.mean(t, x0)
        return np.exp(-0.5 * distance * distance / variance) / np.sqrt(2.0 * np.pi * variance)


def elapsed(t: Any) -> Any:
    """An elapsed time, or an array of them, >= 0."""
    t = np.asarray(t, dtype=np.float64)
    if not (t >= 0.0).all():
        raise ValueError(f"t must be >= 0 (the time since the start), got {t.min():g}")
    return t[()]


def spread_out(process: Process, variance: Any) -> Any:
    """The variance of a law that has a density, > 0."""
    if not (np.asarray(variance) > 0.0).all():
        raise ValueError(
            f"{type(process).__name__} has no density where its variance is 0: it still is a point; "
            "ask for t > 0 and sigma > 0"
        )
    return variance
