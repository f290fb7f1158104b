"""The Gamma law, where mean-reverting positive processes come to rest."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from .base import Target, draws


@dataclasses.dataclass(frozen=True, eq=False)
class Gamma(Target):
    r"""p(x) = x^{a−1} e^{−x/b} / (Γ(a) bᵃ) for x > 0.

    Parameters
    ----------
    shape : float
        a > 0.
    scale : float
        b > 0; the mean is a·b and the variance a·b².
    """

    shape: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checks.real("shape", self.shape, above=0.0))
        object.__setattr__(self, "scale", checks.real("scale", self.scale, above=0.0))

    @property
    def mean(self) -> float:
        return self.shape * self.scale

    @property
    def cov(self) -> float:
        return self.shape * self.scale**2

    def log_density(self, x: Any) -> Any:
        from scipy.special import gammaln

        rows, points, _ = self._rows(x)
        x = rows[:, 0]
        inside = x > 0.0
        at = np.where(inside, x, 1.0)
        value = (self.shape - 1.0) * np.log(at) - at / self.scale
        value -= gammaln(self.shape) + self.shape * np.log(self.scale)
        return np.where(inside, value, -np.inf).reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        """(a − 1)/x − 1/b, for x > 0; nan elsewhere."""
        x = np.asarray(x, dtype=np.float64)
        inside = x > 0.0
        return np.where(inside, (self.shape - 1.0) / np.where(inside, x, 1.0) - 1.0 / self.scale, np.nan)[()]

    def cdf(self, x: Any) -> Any:
        """P(X <= x)."""
        from scipy.special import gammainc

        return gammainc(self.shape, np.maximum(np.asarray(x, dtype=np.float64), 0.0) / self.scale)

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        from scipy.special import gammaincinv

        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        u = stream.uniforms(seed, stream.INITIAL, n, 1, first_path=first_path)[:, 0, 0]
        sample: np.ndarray = self.scale * gammaincinv(self.shape, u)
        return sample
