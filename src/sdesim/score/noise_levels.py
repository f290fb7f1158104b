"""Which noise levels a batch is trained at."""

from typing import Any

import numpy as np

from ..core import checks
from .head import Head

NAMES = ("uniform", "log_uniform")
_TABLE = 4096


class Times:
    r"""Times of a process from uniform numbers.

    ``"uniform"``
        Uniform on [t_min, horizon].
    ``"log_uniform"``
        r = ln(σ/α σ_d), the logarithm of the noise-to-signal ratio, uniform between its ends.
    ``(mean, std)``
        r normal, held within that range (Karras et al. 2022 write P_mean, P_std, without σ_d).
    ``levels=L``
        L fixed levels in place of a continuum, r equally spaced (Song & Ermon 2019).
    """

    def __init__(self, head: Head, horizon: float, times: Any = (-1.2, 1.5), levels: int | None = None) -> None:
        self.low, self.high = head.t_min, horizon
        self.normal: tuple[float, float] | None = None
        if isinstance(times, str):
            checks.choice("times", times, NAMES)
        else:
            try:
                mean, std = times
            except (TypeError, ValueError):
                raise ValueError(
                    f"times must be 'uniform', 'log_uniform' or (mean, std) of ln(σ/α σ_d), got {times!r}"
                ) from None
            self.normal = checks.real("times[0]", mean), checks.real("times[1]", std, above=0.0)
        self.uniform = times == "uniform"
        self.levels = None if levels is None else checks.integer("levels", levels, minimum=1)
        # near t_min σ grows like a power of t, further on like anything: a table of both spacings
        span = self.high - self.low
        near = self.low + span * np.geomspace(1e-9, 1.0, _TABLE)
        self.t = np.unique(np.concatenate([[self.low], near, np.linspace(self.low, self.high, _TABLE)]))
        alpha, _, sigma = head.noise(self.t)
        with np.errstate(divide="ignore"):
            self.log_ratio = np.log(sigma) - np.log(alpha) - np.log(head.spread)
        if not np.isfinite(self.log_ratio).all():
            raise ValueError(
                f"the noise level is 0 or infinite somewhere in t_min = {self.low:g} … horizon = {self.high:g}; "
                "choose t_min > 0"
            )

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Times from numbers in (0, 1), of their shape."""
        if self.levels is not None:
            u = np.floor(u * self.levels) / max(self.levels - 1, 1)
            return self._at(self.log_ratio[0] + u * (self.log_ratio[-1] - self.log_ratio[0]))
        if self.uniform:
            return self.low + u * (self.high - self.low)
        if self.normal is not None:
            from scipy.special import ndtri

            mean, std = self.normal
            return self._at(mean + std * ndtri(u))
        return self._at(self.log_ratio[0] + u * (self.log_ratio[-1] - self.log_ratio[0]))

    def _at(self, log_ratio: np.ndarray) -> np.ndarray:
        if self.log_ratio[-1] <= self.log_ratio[0]:  # one level for all times
            return np.full_like(log_ratio, self.low)
        return np.interp(log_ratio, self.log_ratio, self.t)
