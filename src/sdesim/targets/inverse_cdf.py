"""Sampling a density on the line through the inverse of its distribution function."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import draws

N_CELLS = 4096
# Gauss-Legendre on each cell: error O(h⁸), far below rounding for densities that the cells resolve.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)


class InverseCdf:
    """A smooth density on [lower, upper], integrated cell by cell.

    Between the nodes the distribution function is the cubic with the density as its slopes (error O(h⁴)); a
    uniform is inverted by Newton steps on it, kept inside the cell, so sampling is exact up to that cubic.
    """

    def __init__(self, density: Callable[[Any], Any], lower: float, upper: float) -> None:
        self.nodes = np.linspace(lower, upper, N_CELLS + 1)
        self.h = (upper - lower) / N_CELLS
        self._x = self.nodes[:-1, None] + 0.5 * self.h * (NODES + 1.0)
        self._mass = 0.5 * self.h * WEIGHTS * density(self._x)
        cumulative = np.concatenate([[0.0], np.cumsum(self._mass.sum(axis=1))])
        self.total = float(cumulative[-1])
        self.values = cumulative / self.total
        self.slopes = density(self.nodes) / self.total

    def expectation(self, f: Callable[[Any], Any]) -> float:
        """E f(X)."""
        return float((self._mass * f(self._x)).sum() / self.total)

    def _cubic(self, cell: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distribution function and the density at the fraction s of a cell."""
        f0, rise = self.values[cell], self.values[cell + 1] - self.values[cell]
        m0, m1 = self.h * self.slopes[cell], self.h * self.slopes[cell + 1]
        c2, c3 = 3.0 * rise - 2.0 * m0 - m1, m0 + m1 - 2.0 * rise
        return f0 + s * (m0 + s * (c2 + s * c3)), (m0 + s * (2.0 * c2 + 3.0 * s * c3)) / self.h

    def cdf(self, x: Any) -> Any:
        """P(X <= x)."""
        place = np.clip((np.asarray(x, dtype=np.float64) - self.nodes[0]) / self.h, 0.0, float(N_CELLS))
        cell = np.minimum(place.astype(np.int64), N_CELLS - 1)
        return np.clip(self._cubic(cell, place - cell)[0], 0.0, 1.0)[()]

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """x with P(X <= x) = u."""
        cell = np.clip(np.searchsorted(self.values, u, side="right") - 1, 0, N_CELLS - 1)
        rise = self.values[cell + 1] - self.values[cell]
        s = np.clip((u - self.values[cell]) / np.where(rise > 0.0, rise, 1.0), 0.0, 1.0)
        for _ in range(4):
            value, slope = self._cubic(cell, s)
            step = (value - u) / np.where(slope > 0.0, slope * self.h, np.inf)
            s = np.clip(s - step, 0.0, 1.0)
        return self.nodes[cell] + s * self.h

    def sample(self, n: Any, seed: Any, first_path: Any) -> np.ndarray:
        """n draws, one uniform of the stream each."""
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        return self.quantile(stream.uniforms(seed, stream.INITIAL, n, 1, first_path=first_path)[:, 0, 0])
