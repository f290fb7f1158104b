r"""The times that a sampler stops at: t_0 = horizon > t_1 > … > t_N = t_end.

    uniform    equal steps of t
    log_snr    equal steps of ln r, r = √v/α the noise-to-signal ratio (ln r = −½ log SNR)
    edm        equal steps of r^{1/7} (Karras et al. 2022, equation 5, ρ = 7): finer where there is less noise, but less
               so than log_snr

or an array of times, decreasing.
"""

from typing import Any

import numpy as np

from ..core import checks
from .linear import Noised

NAMES = ("auto", "uniform", "log_snr", "edm")
RHO = 7.0


def times(noised: Noised, n_steps: int | None, grid: Any, t_end: float | None, default: str) -> np.ndarray:
    """The n_steps + 1 times. "auto" is ``default``, or "edm" where the process's own clock is no better spaced."""
    if not isinstance(grid, str):
        return _given(noised, n_steps, grid, t_end)
    checks.choice("grid", grid, NAMES)
    if n_steps is None:
        raise ValueError("n_steps is missing: give the number of steps, or grid= an array of times")
    n = checks.integer("n_steps", n_steps, minimum=1)
    start = noised.horizon
    end = noised.t_min if t_end is None else checks.real("t_end", t_end, minimum=0.0)
    if not end < start:
        raise ValueError(f"t_end must lie below the horizon = {start:g}, got {end:g}")
    auto = "edm" if default == "uniform" and not getattr(noised.process, "even_clock", False) else default
    name = auto if grid == "auto" else grid
    share = np.arange(n + 1) / n
    if name == "uniform":
        return start + share * (end - start)
    high, low = noised.ratio(start), noised.ratio(end)
    if name == "log_snr":
        if low == 0.0:
            raise ValueError("grid='log_snr' needs t_end > 0: at t = 0 there is no noise, and the logarithm ends")
        ratios = np.exp(np.log(high) + share * (np.log(low) - np.log(high)))
    else:
        ratios = (high ** (1 / RHO) + share * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
    found = noised.times_at(ratios)
    found[0], found[-1] = start, end
    return found


def _given(noised: Noised, n_steps: int | None, grid: Any, t_end: float | None) -> np.ndarray:
    given = checks.array("grid", grid)
    if given.ndim != 1 or given.size < 2:
        raise ValueError(f"grid must hold >= 2 times, got shape {given.shape}")
    if not (np.diff(given) < 0.0).all():
        raise ValueError("grid must decrease: sampling runs from the noise at the horizon to the data at t_end")
    if given[-1] < 0.0 or given[0] > noised.horizon * (1 + 1e-9):
        raise ValueError(f"grid must lie in [0, horizon] = [0, {noised.horizon:g}], got {given[0]:g} to {given[-1]:g}")
    if n_steps is not None and n_steps != given.size - 1:
        raise ValueError(f"n_steps = {n_steps} contradicts a grid of {given.size} times; leave it out")
    if t_end is not None and t_end != given[-1]:
        raise ValueError(f"t_end = {t_end:g} contradicts a grid that ends at {given[-1]:g}; leave it out")
    return given
