"""The exact score of a linear SDE: what every learned score is measured against.

A linear SDE started from Σₖ wₖ N(μₖ, Cₖ) has the marginals Σₖ wₖ N(α μₖ + β, α² Cₖ + v I), with its mean
factor α, mean shift β and added variance v at time t, so that ∇ log p(x, t) is known in closed form at every
time. So it is for any other target that knows the law of αX + β + N(0, v I), such as a checkerboard.
"""

from typing import Any

import numpy as np

from ..targets.base import Target
from .base import Process
from .gaussian import GaussianProcess


class MarginalScore:
    """score(x, t) = ∇ log p(x, t) of a linear process; made by :func:`marginal_score`."""

    def __init__(self, process: GaussianProcess, target: Any) -> None:
        self.process = process
        self.target = target
        self.dim = target.dim

    def __repr__(self) -> str:
        return f"marginal_score({self.process!r}, {self.target!r})"

    def __call__(self, x: Any, t: Any) -> Any:
        return self._values(x, t)[1]

    def log_density(self, x: Any, t: Any) -> Any:
        """log p(x, t), one number a point."""
        return self._values(x, t)[0]

    def law(self, t: float) -> Any:
        """The law of X_t, of the target's kind."""
        process = self.process
        t = float(_times(t))
        return self.target.affine(process.mean_factor(t), process.mean_shift(t), process.added_variance(t))

    def _values(self, x: Any, t: Any) -> tuple[Any, Any]:
        rows, points, shape = self.target._rows(x)
        t = _times(t)
        if np.ndim(t) > 0:
            t = np.broadcast_to(t, points).reshape(-1, 1)
        process = self.process
        log_density, score = self.target.values(
            rows,
            scale=process.mean_factor(t),
            shift=process.mean_shift(t),
            noise=process.added_variance(t),
        )
        return log_density.reshape(points)[()], score.reshape(shape)[()]


def marginal_score(process: Process, target: Any) -> MarginalScore:
    """The exact score of X_t for a linear process started from ``target``.

    Parameters
    ----------
    process : GaussianProcess
        Wiener, Ornstein-Uhlenbeck, or any process with ``mean_factor``, ``mean_shift`` and
        ``added_variance``; it acts on every component alike.
    target : Gaussian, GaussianMixture, LowRankMixture, PrincipalMixture or Checkerboard
        The law of X_0, of any dimension d: any target with ``values(x, scale=, shift=, noise=)`` and ``affine``.

    Returns
    -------
    MarginalScore
        ``score(x, t)`` with x of shape (n, d), or any shape for d = 1, and t a number or (n,): t >= 0, the
        time since the start. ``.log_density(x, t)`` and ``.law(t)`` belong to the same marginal.

    Raises
    ------
    TypeError
        For a process that is not linear, or a start whose law with noise is not known.
    """
    if not isinstance(process, GaussianProcess):
        raise TypeError(
            "marginal_score needs a linear process (Wiener, OrnsteinUhlenbeck, ...), "
            f"got {type(process).__name__}; for others solve the density: evolve_density(...).score"
        )
    if not isinstance(target, Target) or not hasattr(target, "values"):
        raise TypeError(
            "marginal_score needs a start whose law with noise is known (a Gaussian, a mixture, a Checkerboard), "
            f"got {type(target).__name__}"
        )
    return MarginalScore(process, target)


def _times(t: Any) -> Any:
    t = np.asarray(t, dtype=np.float64)
    if not (t >= 0.0).all():
        raise ValueError(f"t must be >= 0, got {t.min():g}")
    return t[()]
