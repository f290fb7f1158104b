"""The normal law, and the arithmetic of sums of normal densities.

A Gaussian density and a mixture of them are evaluated in the eigenbasis of each covariance, C = Q diag(λ) Qᵀ:
with y = Qᵀ(x − μ),

    log N(x; μ, C) = −½ Σⱼ (yⱼ²/λⱼ + log 2πλⱼ),     ∇ log N = −Q (y/λ).

In that basis the law of α X + b + N(0, v I) has the eigenvalues α²λ + v, so the marginal of any linear SDE at
any time costs no more than the density itself; ``mixture_values`` is that one loop, used by every exact
score.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks, elementary
from .base import Target, draws

# Any: a type checker sees an intrinsic with the arguments of its code generator.
fma: Any = elementary.fma
LOG_2PI = float(np.log(2.0 * np.pi))


def spectrum(name: str, cov: Any, d: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Eigenvalues (d,) and eigenvectors (d, d) of a covariance given as a variance, variances (d,) or a
    matrix (d, d).

    The eigenvectors are None where the axes are those of x.
    """
    cov = checks.array(name, cov)
    if cov.ndim == 0 or cov.shape == (d,) or (d == 1 and cov.size == 1):
        variances = np.broadcast_to(cov.reshape(-1), (d,)).copy()
        if not (variances > 0.0).all():
            raise ValueError(f"{name} must be > 0, got {variances.min():g}")
        return variances, None
    if cov.shape != (d, d):
        raise ValueError(f"{name} has shape {cov.shape}, expected a number, ({d},) or ({d}, {d})")
    if not np.allclose(cov, cov.T, rtol=1e-10, atol=1e-12 * float(np.abs(cov).max())):
        raise ValueError(f"{name} must be symmetric; its largest asymmetry is {np.abs(cov - cov.T).max():g}")
    values, vectors = np.linalg.eigh(cov)
    if not values[0] > 0.0:
        raise ValueError(f"{name} must be positive definite, its smallest eigenvalue is {values[0]:g}")
    if np.array_equal(cov, np.diag(np.diag(cov))):
        return np.diag(cov).copy(), None
    return values, vectors


def mixture_values(
    x: np.ndarray,
    log_weights: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    axes: np.ndarray | None,
    *,
    scale: Any = 1.0,
    shift: Any = 0.0,
    noise: Any = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """log p (n,) and ∇ log p (n, d) of the law of αX + b + N(0, v I), X from Σₖ wₖ N(μₖ, Qₖ diag(λₖ) Qₖᵀ).

    ``x`` (n, d); ``log_weights`` (k,); ``means`` and ``variances`` (k, d); ``axes`` (k, d, d) or None;
    ``scale`` α, ``shift`` b and ``noise`` v are numbers or (n, 1). One pass over the components with a
    running maximum: the largest exponent is subtracted before anything is exponentiated, so the result is
    right arbitrarily far out.
    """
    n, d = x.shape
    top = np.full(n, -np.inf)
    total = np.zeros(n)
    gradient = np.zeros((n, d))
    for k in range(len(log_weights)):
        y = x - (scale * means[k] + shift)
        if axes is not None:
            y = y @ axes[k]
        spread = scale * scale * variances[k] + noise
        pull = y / spread
        exponent = log_weights[k] - 0.5 * ((y * pull).sum(axis=1) + np.log(spread).sum(axis=-1))
        if axes is not None:
            pull = pull @ axes[k].T
        higher = np.maximum(top, exponent)
        old, new = np.exp(top - higher), np.exp(exponent - higher)
        total = total * old + new
        gradient = gradient * old[:, None] - new[:, None] * pull
        top = higher
    return top + np.log(total) - 0.5 * d * LOG_2PI, gradient / total[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(Target):
    r"""N(mean, cov) on ℝᵈ.

    ``log p(x) = −½ (x − μ)ᵀ C⁻¹ (x − μ) − ½ log det 2πC``, ``score(x) = −C⁻¹ (x − μ)``.

    Parameters
    ----------
    mean : number or (d,)
        μ; a number makes a one-dimensional law.
    cov : number, (d,) or (d, d)
        C: one variance for all components, one each, or the full matrix. Kept as a number for dim 1 and as a
        (d, d) matrix otherwise.

    Raises
    ------
    ValueError
        Where ``cov`` is not symmetric and positive definite.
    """

    mean: Any = 0.0
    cov: Any = 1.0
    dim: int = dataclasses.field(init=False, default=1)
    _variances: np.ndarray = dataclasses.field(init=False, repr=False)
    _axes: np.ndarray | None = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        mean = checks.array("mean", self.mean)
        if mean.ndim > 1 or mean.size == 0:
            raise ValueError(f"mean has shape {mean.shape}, expected a number or (d,)")
        d = mean.size
        variances, axes = spectrum("cov", self.cov, d)
        full = np.diag(variances) if axes is None else np.array(self.cov, dtype=np.float64)
        for name, value in (
            ("mean", float(mean.reshape(-1)[0]) if d == 1 else mean.copy()),
            ("cov", float(variances[0]) if d == 1 else full),
            ("dim", d),
            ("_variances", variances),
            ("_axes", axes),
        ):
            object.__setattr__(self, name, value)

    @property
    def _isotropic(self) -> bool:
        return self._axes is None and bool((self._variances == self._variances[0]).all())

    def values(self, x: np.ndarray, **affine: Any) -> tuple[np.ndarray, np.ndarray]:
        axes = None if self._axes is None else self._axes[None]
        centre = np.reshape(self.mean, (1, self.dim))
        return mixture_values(x, np.zeros(1), centre, self._variances[None], axes, **affine)

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        return self.values(rows)[0].reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        rows, _, shape = self._rows(x)
        return self.values(rows)[1].reshape(shape)[()]

    def cdf(self, x: Any) -> Any:
        """P(X <= x), for dim 1."""
        if self.dim != 1:
            raise ValueError(f"cdf is known for dim 1, this Gaussian has dim {self.dim}")
        from scipy.special import ndtr

        return ndtr((np.asarray(x, dtype=np.float64) - self.mean) / np.sqrt(self.cov))

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        z = stream.normals(seed, stream.INITIAL, n, self.dim, first_path=first_path)[:, :, 0]
        x = z * np.sqrt(self._variances)
        if self._axes is not None:
            x = x @ self._axes.T
        x += self.mean
        return x[:, 0] if self.dim == 1 else x

    def affine(self, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0) -> "Gaussian":
        """The law of A X + b + N(0, S).

        ``scale`` A and ``noise`` S are numbers or matrices, ``shift`` b a number or (d,).
        """
        mean, cov = push(
            np.reshape(self.mean, self.dim), np.reshape(self.cov, (self.dim, self.dim)), scale, shift, noise
        )
        return Gaussian(mean[0], cov[0, 0]) if len(mean) == 1 else Gaussian(mean, cov)

    def fields(self) -> dict[str, Any]:
        half_log_det = 0.5 * float(np.log(self._variances).sum()) + 0.5 * self.dim * LOG_2PI
        if self._isotropic:
            precision: Any = 1.0 / float(self._variances[0])
        elif self._axes is None:
            precision = np.diag(1.0 / self._variances)
        else:
            precision = self._axes @ np.diag(1.0 / self._variances) @ self._axes.T
        return {
            "centre": np.reshape(self.mean, self.dim),
            "precision": precision,
            "half_precision": 0.5 * precision,
            "log_norm": -half_log_det,
        }

    @property
    def score_tile(self) -> Callable[..., None]:
        """The score over a tile of 256 points, for compiled code."""
        return _isotropic_score_tile if self._isotropic else _full_score_tile

    score_point = score_tile  # one lane, in place of 256

    @property
    def log_density_tile(self) -> Callable[..., None]:
        """The log density over a tile of 256 points, for compiled code."""
        return _isotropic_log_density_tile if self._isotropic else _full_log_density_tile


def push(mean: np.ndarray, cov: np.ndarray, scale: Any, shift: Any, noise: Any) -> tuple[np.ndarray, np.ndarray]:
    d = len(mean)
    scale, noise = np.asarray(scale, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    matrix = scale * np.eye(d) if scale.ndim == 0 else scale
    added = noise * np.eye(d) if noise.ndim == 0 else noise
    pushed = matrix @ cov @ matrix.T + added
    return matrix @ mean + shift, 0.5 * (pushed + pushed.T)


def _isotropic_score_tile(self, x, t, out):
    for j in range(x.shape[0]):
        centre = self.centre[j]
        for i in range(x.shape[1]):
            out[j, i] = self.precision * (centre - x[j, i])


def _full_score_tile(self, x, t, out):
    for j in range(x.shape[0]):
        centre, entry = self.centre[0], self.precision[j, 0]
        for i in range(x.shape[1]):
            out[j, i] = entry * (centre - x[0, i])
        for m in range(1, x.shape[0]):
            centre, entry = self.centre[m], self.precision[j, m]
            for i in range(x.shape[1]):
                out[j, i] = fma(entry, centre - x[m, i], out[j, i])


def _isotropic_log_density_tile(self, x, t, out):
    for i in range(x.shape[1]):
        out[0, i] = self.log_norm
    for j in range(x.shape[0]):
        centre = self.centre[j]
        for i in range(x.shape[1]):
            distance = centre - x[j, i]
            out[0, i] = fma(-self.half_precision * distance, distance, out[0, i])


def _full_log_density_tile(self, x, t, out):
    for i in range(x.shape[1]):
        out[0, i] = self.log_norm
    for j in range(x.shape[0]):
        for m in range(x.shape[0]):
            a, b, entry = self.centre[j], self.centre[m], self.half_precision[j, m]
            for i in range(x.shape[1]):
                out[0, i] = fma(-entry * (a - x[j, i]), b - x[m, i], out[0, i])
