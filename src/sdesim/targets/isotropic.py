"""N(mean, std² I) in any dimension, without a covariance matrix: what a noising process ends in."""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks, stream
from .base import Target, draws
from .gaussian import LOG_2PI


@dataclasses.dataclass(frozen=True, eq=False)
class Isotropic(Target):
    r"""N(m, s² I) on ℝᵈ: log p(x) = −½ |x − m|²/s² − d ln s − ½ d ln 2π.

    Parameters
    ----------
    dim : int
        d; images have thousands, and a covariance matrix of that size would be held for nothing.
    std : float
        s > 0.
    mean : number or (d,)
        m.
    """

    dim: int = 1
    std: float = 1.0
    mean: Any = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", checks.integer("dim", self.dim, minimum=1))
        object.__setattr__(self, "std", checks.real("std", self.std, above=0.0))

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        square = (((rows - self.mean) / self.std) ** 2).sum(axis=1)
        return (-0.5 * square - self.dim * (np.log(self.std) + 0.5 * LOG_2PI)).reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        rows, _, shape = self._rows(x)
        return ((self.mean - rows) / self.std**2).reshape(shape)[()]

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0, dtype: Any = np.float64) -> np.ndarray:
        """Draw n points (n, d); the float32 points are other draws, not roundings of the float64 ones."""
        n, seed, first_path = draws(n, seed, first_path)
        z = stream.normals(seed, stream.INITIAL, n, self.dim, first_path=first_path, dtype=dtype)[:, :, 0]
        return np.asarray(self.mean + self.std * z, z.dtype)
