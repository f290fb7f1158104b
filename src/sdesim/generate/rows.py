"""A block of samples on their way: their score, their noise, what is known of them, and the loop over the times.

A method of sampling is a function ``advance(x, k, t, next)`` from the state x (n, d) at time t to the state at an
earlier time; k numbers the steps, and with the row and the seed it addresses the noise. Nothing in a step looks at
another row, so a sample is the same in any company.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import stream
from ..core.normals import DRAWS
from ..errors import NonFiniteError
from .guided import GuidedScore
from .linear import Noised
from .sums import weighted

Advance = Callable[[np.ndarray, int, float, float], np.ndarray]


class Stopped(Exception):
    """The caller asked the block to stop."""


class Rows:
    """Rows first_path, first_path + 1, … of the samples.

    Attributes
    ----------
    noised : Noised
    score : GuidedScore
    shape : (n, d)
    dtype
    """

    def __init__(
        self, noised: Noised, score: GuidedScore, shape: tuple[int, int], dtype: np.dtype, first_path: int, seed: int,
        *, known: tuple[np.ndarray, np.ndarray] | None = None, n_resample: int = 1, stop: np.ndarray | None = None,
        tick: Callable[[int], Any] = lambda rows: None,
    ) -> None:  # fmt: skip
        self.noised, self.score, self.shape, self.dtype = noised, score, shape, dtype
        self.first_path, self.seed = first_path, seed
        self.known, self.n_resample = known, n_resample
        self.stop, self.tick = stop, tick
        self._draws: dict[int, tuple[int, np.ndarray]] = {}

    # ---- noise

    def normals(self, k: int, purpose: int = stream.WIENER) -> np.ndarray:
        """Standard normals (n, d): draw number k for this purpose."""
        per_block = DRAWS[self.dtype]
        block, at = divmod(k, per_block)
        held = self._draws.get(purpose)
        if held is None or held[0] != block:
            buffer = np.empty((per_block, *self.shape), self.dtype) if held is None else held[1]
            stream.fill_steps(buffer, self.first_path, block, purpose, self.seed)
            held = self._draws[purpose] = (block, buffer)
        return held[1][at]

    # ---- the law at time t

    def denoised(self, x: np.ndarray, t: float, s: np.ndarray | None = None) -> np.ndarray:
        """E[X₀ | X_t = x] = (x − β + v s)/α, by Tweedie's formula."""
        s = self.score(x, t) if s is None else s
        alpha, beta = self.noised.scale(t), self.noised.shift(t)
        mean = weighted((1.0 / alpha, x), (self.noised.variance(t) / alpha, s))
        return mean if beta == 0.0 else mean - beta / alpha

    def carried(self, x: np.ndarray, t: float, later: float, *terms: tuple[float, np.ndarray]) -> np.ndarray:
        """α(later)/α(t) (x − β(t)) + β(later) + Σ terms: the data's part of x, as large as it is at another time."""
        ratio = self.noised.scale(later) / self.noised.scale(t)
        moved = weighted((ratio, x), *terms) if terms else np.asarray(ratio * x, self.dtype)
        shift = self.noised.shift(later) - ratio * self.noised.shift(t)
        return moved if shift == 0.0 else moved + shift

    def start(self, t: float) -> np.ndarray:
        """Draws of N(m, v I) at the horizon, m the mean of X_t to first order in what is left of the data.

        Tweedie's formula at the centre of the noise gives it: m = β + v s(β, t).
        """
        variance = self.noised.variance(t)
        centre = np.full(self.shape, self.noised.shift(t), self.dtype)
        z = self.normals(0, stream.INITIAL)
        return weighted((1.0, centre), (variance, self.score.plain(centre, t)), (float(np.sqrt(variance)), z))

    # ---- what is known

    def keep(self, x: np.ndarray, t: float, k: int) -> np.ndarray:
        """Put the known pixels at the noise level of time t: α observed + β + √v ε; exactly as observed at t = 0."""
        if self.known is None:
            return x
        mask, observed = self.known
        if t == 0.0:
            return np.where(mask, observed, x)
        alpha, beta, std = self.noised.scale(t), self.noised.shift(t), float(np.sqrt(self.noised.variance(t)))
        return np.where(mask, alpha * observed + beta + std * self.normals(k, stream.KNOWN), x).astype(
            self.dtype, copy=False
        )

    def noisier(self, x: np.ndarray, t: float, later: float, z: np.ndarray) -> np.ndarray:
        """From time t forward to a later one, by the exact transition."""
        ratio = self.noised.scale(later) / self.noised.scale(t)
        added = self.noised.variance(later) - ratio**2 * self.noised.variance(t)
        return self.carried(x, t, later, (float(np.sqrt(max(added, 0.0))), z))

    # ---- the loop

    def count(self, times: np.ndarray) -> int:
        """The number of steps, which is also the first number that no step uses."""
        return (len(times) - 1) * self.n_resample

    def run(self, advance: Advance, x: np.ndarray, times: np.ndarray) -> np.ndarray:
        """All steps; with known pixels each is taken ``n_resample`` times, going back by fresh noise in between.

        That is what lets the unknown pixels settle with the known ones (RePaint, Lugmayr et al. 2022).
        """
        k = 0
        for t, later in itertools.pairwise(times.tolist()):
            for again in range(self.n_resample):
                if self.stop is not None and self.stop[0]:
                    raise Stopped
                if again:
                    x = self.noisier(x, later, t, self.normals(k, stream.JUMP))
                x = self.keep(advance(x, k, t, later), later, k)
                k += 1
            self._check(x, later)
            self.tick(self.shape[0])
        return x

    def _check(self, x: np.ndarray, t: float) -> None:
        flat = x.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.dot(flat, flat)):  # the cheapest look at all of them
                return
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            row = self.score.rows[int(bad.argmax())]
            raise NonFiniteError(
                f"{int(bad.sum())} of {len(x)} samples became non-finite, first row {row} at t = {t:g}; take more "
                "steps (n_steps), or a finer grid where the noise is strong"
            )
