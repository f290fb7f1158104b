"""The equilibrium density of the double well."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ..core import checks, elementary
from .base import Target
from .inverse_cdf import InverseCdf

# Any: a type checker sees an intrinsic with the arguments of its code generator.
fma: Any = elementary.fma


@dataclasses.dataclass(frozen=True, eq=False)
class DoubleWellDensity(Target):
    r"""p(x) = exp(−β (x² − 1)²) / Z.

    ``Z = (π/2) e^{−β/2} [I_{1/4}(β/2) + I_{−1/4}(β/2)]`` with modified Bessel functions.

    Parameters
    ----------
    beta : float
        β > 0, the height of the barrier over the temperature.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", checks.real("beta", self.beta, above=0.0))

    @cached_property
    def log_normaliser(self) -> float:
        """log Z."""
        from scipy.special import ive

        half = 0.5 * self.beta  # ive(v, z) = I_v(z) e^{-z}, so the exponentials cancel
        return float(np.log(0.5 * np.pi * (ive(0.25, half) + ive(-0.25, half))))

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        return (-self.beta * (rows[:, 0] ** 2 - 1.0) ** 2 - self.log_normaliser).reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        x = np.asarray(x, dtype=np.float64)
        return (4.0 * self.beta * x * (1.0 - x * x))[()]

    @cached_property
    def _table(self) -> InverseCdf:
        # β (x² − 1)² = 40 there: the density is e^{-40} of its maximum
        edge = float(np.sqrt(1.0 + np.sqrt(40.0 / self.beta)))
        return InverseCdf(self.density, -edge, edge)

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def cov(self) -> float:
        """E[X²], by quadrature."""
        return self._table.expectation(lambda x: x * x)

    def cdf(self, x: Any) -> Any:
        """P(X <= x), by quadrature."""
        return self._table.cdf(x)

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        return self._table.sample(n, seed, first_path)

    @property
    def score_tile(self) -> Callable[..., None]:
        """The score over a tile of 256 points, for compiled code."""
        return _score_tile

    score_point = score_tile  # one lane, in place of 256

    @property
    def log_density_tile(self) -> Callable[..., None]:
        """The log density over a tile of 256 points, for compiled code."""
        return _log_density_tile

    def fields(self) -> dict[str, Any]:
        return {"beta": self.beta, "slope": 4.0 * self.beta, "log_norm": -self.log_normaliser, "one": 1.0}


def _score_tile(self, x, t, out):
    for i in range(x.shape[1]):
        out[0, i] = self.slope * x[0, i] * fma(-x[0, i], x[0, i], self.one)


def _log_density_tile(self, x, t, out):
    for i in range(x.shape[1]):
        height = fma(x[0, i], x[0, i], -self.one)
        out[0, i] = fma(-self.beta * height, height, self.log_norm)
