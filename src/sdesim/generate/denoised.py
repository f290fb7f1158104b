r"""Samplers that work on the denoised mean: ancestral sampling, DPM-Solver++, and Heun's method of Karras et al.

With r = √v/α the noise-to-signal ratio and D = E[X₀ | X_t] (Tweedie), from t to an earlier t′ with q = r′/r

    ancestral   y′ = q² y + (1 − q²) D + r′ √(1 − q²) z               y = (x − β)/α
    2m          y′ = q y + (1 − q) D̂
    sde_2m      y′ = q² y + (1 − q²) D̂ + r′ √(1 − q²) z

where D̂ = D + (D − D₋)/(2ρ) extrapolates from the last D₋, ρ the ratio of the last step to this one in ln r. Ancestral
sampling draws from q(x_t′ | x_t, x₀ = D) (Ho, Jain & Abbeel 2020), which is also the first-order member of the others
(Lu et al. 2022, "DPM-Solver++", algorithm 2 and appendix; weakly first order, the flow's 2m is second order).
"""

import math
from typing import Any

import numpy as np

from ..core import checks
from .linear import Noised
from .rows import Advance, Rows
from .sums import weighted

SCHEMES = ("2m", "sde_2m")


def _toward(
    rows: Rows, x: np.ndarray, mean: np.ndarray, t: float, later: float, share: float, noise: float, k: int
) -> np.ndarray:
    """α′ ((1 − share) y + share D + noise z) + β′ in terms of x = α y + β."""
    alpha = rows.noised.scale(later)
    keep = 1.0 - share
    ratio = alpha / rows.noised.scale(t)
    terms = [(keep * ratio, x), (share * alpha, mean)]
    if noise > 0.0:
        terms.append((noise * alpha, rows.normals(k)))
    moved = weighted(*terms)
    shift = rows.noised.shift(later) - keep * ratio * rows.noised.shift(t)
    return moved if shift == 0.0 else moved + shift


def multistep(rows: Rows, scheme: str, second_order: bool = True) -> Advance:
    """DPM-Solver++ 2M and its stochastic form; without ``second_order`` DDIM and ancestral sampling."""
    noised = rows.noised
    last: dict[str, tuple[np.ndarray, float]] = {}

    def step(x: np.ndarray, k: int, t: float, later: float) -> np.ndarray:
        before, after = noised.ratio(t), noised.ratio(later)
        mean = rows.denoised(x, t)
        q = after / before
        h = -math.log(q) if q > 0.0 else math.inf
        used = mean
        if second_order:
            if "mean" in last and math.isfinite(h):
                held, width = last["mean"]
                half = 0.5 * h / width
                used = weighted((1.0 + half, mean), (-half, held))
            last["mean"] = (mean, h)
        if scheme == "2m":
            return _toward(rows, x, used, t, later, 1.0 - q, 0.0, k)
        return _toward(rows, x, used, t, later, 1.0 - q * q, after * math.sqrt(1.0 - q * q), k)

    return step


class Churn:
    """Fresh noise before a step of Heun's method: r̂ = r (1 + γ), γ = min(amount/N, √2 − 1) for low <= r <= high.

    (Karras et al. 2022, algorithm 2; ``noise`` is S_noise.)
    """

    def __init__(self, amount: float = 0.0, low: float = 0.0, high: float = math.inf, noise: float = 1.0) -> None:
        self.amount = checks.real("churn", amount, minimum=0.0)
        self.low, self.high, self.noise = low, high, noise

    def times(self, noised: Noised, times: np.ndarray) -> dict[float, float]:
        """The later time t̂ that each time of the grid is churned to, no later than the horizon."""
        if self.amount == 0.0:
            return {}
        ratios = np.array([noised.ratio(t) for t in times[:-1].tolist()])
        gamma = min(self.amount / len(ratios), math.sqrt(2.0) - 1.0)
        churned = np.minimum(ratios * (1.0 + gamma), noised.ratio(noised.horizon))
        inside = (ratios >= self.low) & (ratios <= self.high) & (churned > ratios)
        found = noised.times_at(churned)
        return {t: float(found[i]) for i, t in enumerate(times[:-1].tolist()) if inside[i]}


def churn_of(churn: Any, method: str) -> Churn:
    """The argument ``churn``: S_churn, or (S_churn, S_min, S_max, S_noise)."""
    values = tuple(churn) if isinstance(churn, list | tuple) else (churn,)
    if len(values) not in (1, 4):
        raise ValueError(f"churn must be S_churn or (S_churn, S_min, S_max, S_noise), got {churn!r}")
    found = Churn(*values)
    if found.amount > 0.0 and method != "edm_heun":
        raise ValueError(f"churn belongs to method='edm_heun', got method={method!r}")
    return found


def edm_heun(rows: Rows, churn: Churn, times: np.ndarray) -> Advance:
    """Heun's method for dy/dr = (y − D)/r, with churn (Karras et al. 2022, algorithms 1 and 2)."""
    noised = rows.noised
    back = churn.times(noised, times)

    def step(x: np.ndarray, k: int, t: float, later: float) -> np.ndarray:
        if t in back:
            x = rows.noisier(x, t, back[t], churn.noise * rows.normals(k))
            t = back[t]
        before, after = noised.ratio(t), noised.ratio(later)
        mean = rows.denoised(x, t)
        euler = _toward(rows, x, mean, t, later, 1.0 - after / before, 0.0, k)
        if after == 0.0:
            return euler
        second = rows.denoised(euler, later)
        # y′ = y + ½ (r′ − r) ((y − D)/r + (ỹ − D̃)/r′) in terms of the Euler step ỹ = y + (r′ − r)(y − D)/r:
        # y′ = ½ (y + ỹ) + ½ (1 − r/r′)(ỹ − D̃)
        factor = 0.5 * (1.0 - before / after)
        alpha, ratio = noised.scale(later), noised.scale(later) / noised.scale(t)
        moved = weighted((0.5 * ratio, x), (0.5 + factor, euler), (-factor * alpha, second))
        shift = noised.shift(later) * (0.5 - factor) - 0.5 * ratio * noised.shift(t)
        return moved if shift == 0.0 else moved + shift

    return step
