r"""Noising processes: linear SDEs that carry any data to (nearly) a normal law, over t from 0 to ``horizon``.

From a point x₀ each is N(α(t) x₀, v(t)), so that one noisy sample at any time is one normal draw, and the score of
that law is −(x − α x₀)/v: what denoising score matching learns from. ``t_min`` is the time that learning and sampling
stop at: at t = 0 the law is the data's own and may have no score. Samplers use the names ``scale`` α, ``std`` √v,
``snr`` α²/v, and start from the ``prior`` N(0, v(T) I).
"""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from ..targets.isotropic import Isotropic
from .gaussian import GaussianProcess


@dataclasses.dataclass(frozen=True, eq=False)
class Noising(GaussianProcess):
    """Base of the noising processes: ``horizon`` and ``t_min`` beside what a linear process has.

    ``even_clock`` says whether equal steps of t suit it; where t is the noise level they would all be spent on noise.
    """

    even_clock = True

    @property
    def horizon(self) -> float:
        """T, where noising ends and sampling starts."""
        return 1.0

    @property
    def t_min(self) -> float:
        """The smallest time that a network is asked for."""
        return 1e-3

    def diffusion_dx(self, x: Any, t: Any) -> Any:
        return 0.0

    def scale(self, t: Any) -> Any:
        """α(t), what is left of the data: 1 at t = 0."""
        return self.mean_factor(t)

    def std(self, t: Any) -> Any:
        """√v(t), the standard deviation of the noise."""
        return np.sqrt(self.added_variance(t))

    def snr(self, t: Any) -> Any:
        """α²/v, the signal-to-noise ratio for data of unit variance: infinite at t = 0, falling in t."""
        with np.errstate(divide="ignore"):
            return np.float64(1.0) * self.mean_factor(t) ** 2 / self.added_variance(t)

    def prior(self, dim: int) -> Isotropic:
        """N(0, v(T) I) in ``dim`` dimensions: the law of X_T, but for what is left of the data."""
        return Isotropic(dim, float(self.std(self.horizon)))


def _ordered(process: Any, low: str, high: str) -> None:
    checks.real(low, getattr(process, low), above=0.0)
    if not getattr(process, high) > getattr(process, low):
        raise ValueError(f"{high} must be > {low} = {getattr(process, low):g}, got {getattr(process, high):g}")


@dataclasses.dataclass(frozen=True)
class VarianceExploding(Noising):
    r"""dX = σ(t) √(2 ln r) dW with σ(t) = σ_min rᵗ, r = σ_max/σ_min, on 0 <= t <= 1.

    X_t ~ N(x₀, σ(t)² − σ_min²): the mean stays, the variance grows geometrically.

    References
    ----------
    Song et al. (2021), equation 9; Song & Ermon (2019) at discrete levels.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered(self, "sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        return 1e-5

    def drift(self, x: Any, t: Any) -> Any:
        return 0.0 * x

    def diffusion(self, x: Any, t: Any) -> Any:
        rate = np.log(self.sigma_max / self.sigma_min)
        return self.sigma_min * np.exp(rate * t) * np.sqrt(2.0 * rate)

    def mean_factor(self, t: Any) -> Any:
        return 1.0 + 0.0 * np.asarray(t, dtype=np.float64)[()]

    def added_variance(self, t: Any) -> Any:
        return self.sigma_min**2 * np.expm1(2.0 * np.log(self.sigma_max / self.sigma_min) * t)


@dataclasses.dataclass(frozen=True, eq=False)
class _Linear(Noising):
    """What VP and sub-VP share: β(t) = β_min + t (β_max − β_min), drift −½ β(t) x."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered(self, "beta_min", "beta_max")

    def drift(self, x: Any, t: Any) -> Any:
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min)) * x

    def integral(self, t: Any) -> Any:
        """∫₀ᵗ β."""
        return t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)

    def mean_factor(self, t: Any) -> Any:
        return np.exp(-0.5 * self.integral(t))


@dataclasses.dataclass(frozen=True)
class VariancePreserving(_Linear):
    r"""dX = −½ β(t) X dt + √β(t) dW, β(t) = β_min + t (β_max − β_min), on 0 <= t <= 1.

    X_t ~ N(α x₀, 1 − α²) with α = exp(−½ ∫₀ᵗ β): data of unit variance keep it.

    References
    ----------
    Song et al. (2021), equation 11; Ho, Jain & Abbeel (2020) in discrete time.
    """

    def diffusion(self, x: Any, t: Any) -> Any:
        return np.sqrt(self.beta_min + t * (self.beta_max - self.beta_min))

    def added_variance(self, t: Any) -> Any:
        return -np.expm1(-self.integral(t))


@dataclasses.dataclass(frozen=True)
class SubVariancePreserving(_Linear):
    r"""dX = −½ β(t) X dt + √(β(t) (1 − e^{−2B(t)})) dW with B(t) = ∫₀ᵗ β, on 0 <= t <= 1.

    X_t ~ N(α x₀, (1 − α²)²), α = e^{−B/2}: less noise than the variance-preserving process at every t.

    References
    ----------
    Song et al. (2021), equation 12.
    """

    def diffusion(self, x: Any, t: Any) -> Any:
        slope = self.beta_max - self.beta_min
        total = t * self.beta_min + 0.5 * t * t * slope
        return np.sqrt((self.beta_min + t * slope) * (1.0 - np.exp(-2.0 * total)))

    def added_variance(self, t: Any) -> Any:
        return np.expm1(-self.integral(t)) ** 2


@dataclasses.dataclass(frozen=True)
class Cosine(Noising):
    r"""dX = −½ β(t) X dt + √β(t) dW with α(t) = cos u(t)/cos u(0), u = ½π (t + s)/(1 + s), on 0 <= t <= 1.

    So β = π/(1 + s) tan u, and X_t ~ N(α x₀, 1 − α²). At t = 1 the cosine would vanish and β be infinite: from the
    time ``last`` on β stays what it is there (200 for 0.99), as its discrete form holds β below 1.

    References
    ----------
    Nichol & Dhariwal (2021), "Improved denoising diffusion probabilistic models", equation 17: ᾱ = α², s = 0.008.
    """

    offset: float = 0.008
    last: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("offset", self.offset, minimum=0.0)
        checks.real("last", self.last, above=0.0)
        if not self.last < 1.0:
            raise ValueError(f"last must be < 1, where β is infinite, got {self.last:g}")

    def drift(self, x: Any, t: Any) -> Any:
        u = 0.5 * np.pi * (np.minimum(t, self.last) + self.offset) / (1.0 + self.offset)
        return -0.5 * np.pi / (1.0 + self.offset) * np.sin(u) / np.cos(u) * x

    def diffusion(self, x: Any, t: Any) -> Any:
        u = 0.5 * np.pi * (np.minimum(t, self.last) + self.offset) / (1.0 + self.offset)
        return np.sqrt(np.pi / (1.0 + self.offset) * np.sin(u) / np.cos(u))

    def integral(self, t: Any) -> Any:
        """∫₀ᵗ β = −2 ln(cos u(t)/cos u(0)), and the rate at ``last`` times what lies beyond it."""
        t = np.asarray(t, dtype=np.float64)[()]
        quarter = 0.5 * np.pi / (1.0 + self.offset)
        ratio = np.cos(quarter * (np.minimum(t, self.last) + self.offset)) / np.cos(quarter * self.offset)
        rate = 2.0 * quarter * np.tan(quarter * (self.last + self.offset))
        return -2.0 * np.log(ratio) + rate * np.maximum(t - self.last, 0.0)

    def mean_factor(self, t: Any) -> Any:
        return np.exp(-0.5 * self.integral(t))

    def added_variance(self, t: Any) -> Any:
        return -np.expm1(-self.integral(t))


@dataclasses.dataclass(frozen=True)
class EDM(Noising):
    r"""dX = √(2t) dW on 0 <= t <= σ_max: X_t ~ N(x₀, t²), time is the noise level.

    References
    ----------
    Karras et al. (2022), with σ(t) = t and no scaling.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    even_clock = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered(self, "sigma_min", "sigma_max")

    @property
    def horizon(self) -> float:
        return self.sigma_max

    @property
    def t_min(self) -> float:
        return self.sigma_min

    def drift(self, x: Any, t: Any) -> Any:
        return 0.0 * x

    def diffusion(self, x: Any, t: Any) -> Any:
        return np.sqrt(2.0 * t)

    def mean_factor(self, t: Any) -> Any:
        return 1.0 + 0.0 * np.asarray(t, dtype=np.float64)[()]

    def added_variance(self, t: Any) -> Any:
        return np.asarray(t, dtype=np.float64)[()] ** 2
