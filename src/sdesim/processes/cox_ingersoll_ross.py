"""The Cox-Ingersoll-Ross process: mean reversion that stays positive."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from numba import njit

from ..core import checks
from ..core.draws import MAX_COMPONENTS, noncentral_chi_square, spot_of
from ..core.elementary import U64
from ..core.functions import exp, tanh
from ..targets.gamma import Gamma
from .base import Process
from .gaussian import elapsed, spread_out


@dataclasses.dataclass(frozen=True)
class CoxIngersollRoss(Process):
    r"""dX = κ (θ − X) dt + σ √X dW.

    With c = σ² (1 − e^{−κt}) / 4κ, X_t / c has a non-central χ² law with 4κθ/σ² degrees of freedom and
    non-centrality x0 e^{−κt}/c; for t → ∞ a Gamma law with shape 2κθ/σ² and scale σ²/2κ. X stays positive
    where 2κθ >= σ² (Feller); otherwise it touches 0, and a UserWarning says so.

    A discrete step can overshoot 0, so both coefficients see max(X, 0) (full truncation; Lord, Koekkoek & van
    Dijk 2010). ``method="exact"`` draws from the non-central χ² law instead: right at any step and any parameters, and
    driven by the same Wiener path as the other schemes, to the accuracy that one normal a step can carry.

    Parameters
    ----------
    kappa : float
        κ > 0, the rate of return.
    theta : float
        θ > 0, the mean it returns to.
    sigma : float
        σ >= 0.

    References
    ----------
    Cox, Ingersoll & Ross (1985); Feller (1951).
    """

    kappa: float
    theta: float
    sigma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("kappa", self.kappa, above=0.0)
        checks.real("theta", self.theta, above=0.0)
        checks.real("sigma", self.sigma, minimum=0.0)
        if 2.0 * self.kappa * self.theta < self.sigma**2:
            warnings.warn(
                f"2 kappa theta = {2.0 * self.kappa * self.theta:g} < sigma² = {self.sigma**2:g}: "
                "the process touches 0 (Feller's condition fails), where schemes lose accuracy",
                UserWarning,
                stacklevel=3,
            )

    def drift(self, x: Any, t: Any) -> Any:
        return self.kappa * (self.theta - np.maximum(x, 0.0))

    def diffusion(self, x: Any, t: Any) -> Any:
        return self.sigma * np.sqrt(np.maximum(x, 0.0))

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        # finite at 0, where it only ever meets a factor √X
        return 0.5 * self.sigma / np.sqrt(np.maximum(x, 1e-30))

    def check_state(self, x0: Any) -> None:
        low = float(np.min(x0))
        if low < 0.0:
            raise ValueError(f"x0 must be >= 0 for CoxIngersollRoss, got min {low:g}")

    def transition_tile(self, x: Any, t: Any, dt: Any, z: Any, spot: Any, out: Any) -> None:
        """X_{t+dt} from X_t = x (rows, 256), the normals z of the step and spot = (seed, path of lane 0, step)."""
        _transition(self.kappa, self.theta, self.sigma, x, dt, z, spot, out)

    def mean(self, t: Any, x0: Any) -> Any:
        """θ + (x0 − θ) e^{−κt}."""
        self.check_state(x0)
        return self.theta + (np.asarray(x0, dtype=np.float64) - self.theta) * np.exp(-self.kappa * elapsed(t))

    def variance(self, t: Any, x0: Any) -> Any:
        """x0 (σ²/κ) (e^{−κt} − e^{−2κt}) + θ (σ²/2κ) (1 − e^{−κt})²."""
        self.check_state(x0)
        t, x0 = elapsed(t), np.asarray(x0, dtype=np.float64)
        kept, lost = np.exp(-self.kappa * t), -np.expm1(-self.kappa * t)
        return self.sigma**2 / self.kappa * (x0 * kept * lost + 0.5 * self.theta * lost * lost)

    def density(self, x: Any, t: Any, x0: Any) -> Any:
        """The non-central χ² density of X_t at x from X_0 = x0; 0 for x < 0."""
        from scipy.special import gammaln, ive

        spread_out(self, self.variance(t, x0))
        x, t, x0 = np.broadcast_arrays(np.asarray(x, dtype=np.float64), elapsed(t), np.asarray(x0, dtype=np.float64))
        c = -(self.sigma**2) * np.expm1(-self.kappa * t) / (4.0 * self.kappa)
        order = 2.0 * self.kappa * self.theta / self.sigma**2 - 1.0
        inside = x > 0.0
        y, shift = np.where(inside, x, 1.0) / c, x0 * np.exp(-self.kappa * t) / c
        root = np.sqrt(y * shift)
        bessel = ive(
            order, root
        )  # I(z) e^{−z}; for a small argument (½z)^ν e^{z²/4(ν+1)}/Γ(ν+1), which also serves x0 = 0
        series = (bessel == 0.0) | (root < 1e-8)
        safe_shift = np.where(shift > 0.0, shift, 1.0)
        with np.errstate(divide="ignore"):
            log_bessel = 0.5 * order * np.log(y / safe_shift) + np.log(np.where(series, 1.0, bessel))
        log_series = order * np.log(0.5 * y) - gammaln(order + 1.0) - root + 0.25 * root**2 / (order + 1.0)
        log_value = np.where(series, log_series, log_bessel) - 0.5 * (np.sqrt(y) - np.sqrt(shift)) ** 2
        return np.where(inside, 0.5 / c * np.exp(log_value), 0.0)[()]

    def cdf(self, x: Any, t: Any, x0: Any) -> Any:
        """P(X_t <= x) from X_0 = x0."""
        from scipy.special import chndtr

        spread_out(self, self.variance(t, x0))
        t, x0 = elapsed(t), np.asarray(x0, dtype=np.float64)
        c = -(self.sigma**2) * np.expm1(-self.kappa * t) / (4.0 * self.kappa)
        freedom = 4.0 * self.kappa * self.theta / self.sigma**2
        x = np.maximum(np.asarray(x, dtype=np.float64), 0.0)
        return chndtr(x / c, freedom, x0 * np.exp(-self.kappa * t) / c)

    def stationary(self) -> Gamma:
        """Gamma with shape 2κθ/σ² and scale σ²/2κ."""
        if not self.sigma > 0.0:
            raise ValueError("CoxIngersollRoss has a stationary density only for sigma > 0, got 0.0")
        return Gamma(2.0 * self.kappa * self.theta / self.sigma**2, self.sigma**2 / (2.0 * self.kappa))


_FIXED = 1e40
_ZERO = U64(0)


@njit(nogil=True, error_model="numpy")
def _transition(kappa, theta, sigma, x, dt, z, spot, out):
    """c · χ²_f(λ) with c = σ² (1 − e^{−κdt}) / 4κ, f = 4κθ/σ² and λ = x e^{−κdt} / c, in float64 for any dtype.

    Where f + λ > 10⁴⁰ (σ = 0, or a vanishing dt) the standard deviation is below the mean's rounding: the mean is
    returned, which needs no division by c.
    """
    kappa, theta, sigma, dt = np.float64(kappa), np.float64(theta), np.float64(sigma), np.float64(dt)
    half = tanh(0.5 * kappa * dt)
    lost = 2.0 * half / (1.0 + half)  # 1 − e^{−κdt}, without cancellation for a small κdt
    decay = exp(-kappa * dt)
    scale = sigma * sigma * lost / (4.0 * kappa)
    freedom = 4.0 * kappa * theta / (sigma * sigma)
    for j in range(x.shape[0]):
        for i in range(x.shape[1]):
            state = np.float64(x[j, i])
            kept = decay * (0.0 if state < 0.0 else state)
            noncentrality = kept / scale
            if j >= MAX_COMPONENTS:
                out[j, i] = np.nan  # beyond the words of the stream that are set aside for a step
            elif not (freedom + noncentrality < _FIXED):  # also where σ = 0 makes them infinite or 0/0
                out[j, i] = kept + theta * lost
            else:
                here = spot_of(spot[2], j, U64(spot[1] + U64(i)), spot[0])
                value, _ = noncentral_chi_square(freedom, noncentrality, np.float64(z[j, i]), here, _ZERO)
                out[j, i] = scale * value
