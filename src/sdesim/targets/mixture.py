"""Mixtures of normal laws: every density one can draw, with an exact score.

For p = Σₖ wₖ N(μₖ, Cₖ) the score is the average of the components' scores under their posterior weights,

    ∇ log p(x) = Σₖ rₖ(x) Cₖ⁻¹ (μₖ − x),     rₖ = wₖ N(x; μₖ, Cₖ) / p(x),

and rₖ is a softmax of the exponents. The largest exponent is subtracted before anything is exponentiated
(log-sum-exp), so the score stays right where every density underflows. A linear SDE turns a mixture into a
mixture, which is why the exact score of a diffused mixture is the yardstick of learned ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks
from .base import Target, draws
from .gaussian import LOG_2PI, mixture_values, push, spectrum
from .mixture_tiles import log_density_tile, score_point, score_tile

# Exponents of one shared variance are linear in x, which is cheapest; a product of this size, (distance /
# σ)², costs them 1e3 · 2⁻²⁴ ≈ 6e-5 in float32, and beyond it the squares are taken of differences.
LINEAR_LIMIT = 1e3


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianMixture(Target):
    r"""p = Σₖ wₖ N(μₖ, Cₖ).

    Parameters
    ----------
    weights : (k,)
        wₖ >= 0, summing to 1.
    means : (k,) or (k, d)
        μₖ; of shape (k,) they make a one-dimensional law.
    covs : number, (k,), (k, d) or (k, d, d)
        Cₖ: one variance for all, one each (round components), one for each component and axis, or full
        matrices.

    Raises
    ------
    ValueError
        Where the weights do not sum to 1, the numbers of components differ, or a covariance is not positive
        definite.
    """

    weights: Any
    means: Any
    covs: Any = 1.0
    dim: int = dataclasses.field(init=False, default=1)
    _variances: np.ndarray = dataclasses.field(init=False, repr=False)
    _axes: np.ndarray | None = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means = checks.array("weights", self.weights), checks.array("means", self.means)
        if weights.ndim != 1 or weights.size == 0:
            raise ValueError(f"weights has shape {weights.shape}, expected (k,)")
        if (weights < 0.0).any():
            raise ValueError(f"weights must be >= 0, got {weights.min():g} at index {int(weights.argmin())}")
        if abs(weights.sum() - 1.0) > 1e-6:
            raise ValueError(f"weights must sum to 1, got {weights.sum():g}; divide them by their sum")
        k = weights.size
        if means.ndim not in (1, 2) or len(means) != k or means.size == 0:
            raise ValueError(f"means has shape {means.shape}, expected ({k},) or ({k}, d) for {k} weights")
        means = means.reshape(k, -1)
        d = means.shape[1]
        covs = self._covariances(checks.array("covs", self.covs), k, d)
        spectra = [spectrum(f"covs[{i}]", covs[i], d) for i in range(k)]
        turned = any(axes is not None for _, axes in spectra)
        for name, value in (
            ("weights", weights / weights.sum()),
            ("means", means),
            ("covs", covs),
            ("dim", d),
            ("_variances", np.stack([variances for variances, _ in spectra])),
            (
                "_axes",
                np.stack([np.eye(d) if axes is None else axes for _, axes in spectra]) if turned else None,
            ),
        ):
            object.__setattr__(self, name, value)

    @staticmethod
    def _covariances(covs: np.ndarray, k: int, d: int) -> np.ndarray:
        if covs.ndim == 0:
            return np.full(k, float(covs))
        if covs.shape in ((k,), (k, d), (k, d, d)):
            return covs.reshape(k) if d == 1 else covs
        wanted = f"a number or ({k},)" if d == 1 else f"a number, ({k},), ({k}, {d}) or ({k}, {d}, {d})"
        raise ValueError(f"covs has shape {covs.shape}, expected {wanted} for {k} components in dimension {d}")

    @property
    def n_components(self) -> int:
        """The number k of components."""
        return len(self.weights)

    @property
    def mean(self) -> Any:
        """E X: a number for dim 1, (d,) otherwise."""
        mean = self.weights @ self.means
        return float(mean[0]) if self.dim == 1 else mean

    @property
    def cov(self) -> Any:
        """Cov X: a number for dim 1, (d, d) otherwise."""
        away = self.means - self.weights @ self.means
        cov = (self.weights[:, None] * away).T @ away
        cov += np.einsum("k,kij->ij", self.weights, self._matrices())
        return float(cov[0, 0]) if self.dim == 1 else cov

    def moment(self, order: int) -> Any:
        """E Xⁿ of every component of X: a number for dim 1, (d,) otherwise."""
        order = checks.integer("order", order, minimum=0)
        variances = np.diagonal(self._matrices(), axis1=1, axis2=2)
        below, moment = np.zeros_like(self.means), np.ones_like(self.means)
        for n in range(order):  # E Xⁿ⁺¹ = μ E Xⁿ + n σ² E Xⁿ⁻¹
            below, moment = moment, self.means * moment + n * variances * below
        mixed = self.weights @ moment
        return float(mixed[0]) if self.dim == 1 else mixed

    def _matrices(self) -> np.ndarray:
        """All covariances as (k, d, d)."""
        k, d = self.n_components, self.dim
        if self.covs.ndim == 3:
            return self.covs
        return self.covs.reshape(k, -1, 1) * np.eye(d)

    def _log_weights(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self.weights)

    def values(self, x: np.ndarray, **affine: Any) -> tuple[np.ndarray, np.ndarray]:
        """log density (n,) and score (n, d) at ``x`` (n, d) of the law of scale·X + shift + N(0, noise·I)."""
        kept = self.weights > 0.0
        axes = None if self._axes is None else self._axes[kept]
        return mixture_values(x, self._log_weights()[kept], self.means[kept], self._variances[kept], axes, **affine)

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        return self.values(rows)[0].reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        rows, _, shape = self._rows(x)
        return self.values(rows)[1].reshape(shape)[()]

    def cdf(self, x: Any) -> Any:
        """P(X <= x), for dim 1."""
        if self.dim != 1:
            raise ValueError(f"cdf is known for dim 1, this mixture has dim {self.dim}")
        from scipy.special import ndtr

        x = np.asarray(x, dtype=np.float64)[..., None]
        return (ndtr((x - self.means[:, 0]) / np.sqrt(self._variances[:, 0])) @ self.weights)[()]

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        d = self.dim
        x = stream.normals(seed, stream.INITIAL, n, d, first_path=first_path)[:, :, 0]
        # the normals use noise components 0 .. d−1 of the stream, the choice of a component the next one
        choice = stream.uniforms(seed, stream.INITIAL, n, d + 1, first_path=first_path)[:, d, 0]
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], choice, side="right")
        x = x * np.sqrt(self._variances)[chosen]
        if self._axes is not None:
            for k in np.unique(chosen):
                x[chosen == k] = x[chosen == k] @ self._axes[k].T
        x += self.means[chosen]
        return x[:, 0] if d == 1 else x

    def affine(self, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0) -> "GaussianMixture":
        """The law of A X + b + N(0, S).

        ``scale`` A and ``noise`` S are numbers or matrices, ``shift`` b a number or (d,).
        """
        if np.ndim(scale) == 0 and np.ndim(noise) == 0 and self.covs.ndim < 3:
            return GaussianMixture(self.weights, scale * self.means + shift, scale**2 * self.covs + noise)
        pushed = [push(mean, cov, scale, shift, noise) for mean, cov in zip(self.means, self._matrices(), strict=True)]
        return GaussianMixture(self.weights, np.stack([m for m, _ in pushed]), np.stack([c for _, c in pushed]))

    # ---- compiled form

    @property
    def _kind(self) -> str:
        if self._axes is not None or not (self._variances == self._variances[:, :1]).all():
            return "full"
        if not (self._variances == self._variances[0, 0]).all():
            return "round"
        away = self.means - self.means.mean(axis=0)
        return "shared" if (away**2).sum(axis=1).max() <= LINEAR_LIMIT * self._variances[0, 0] else "round"

    def fields(self) -> dict[str, Any]:
        """What the tiles need: exponents in base 2, precomputed up to the part that depends on x."""
        kept = self.weights > 0.0
        means, variances = self.means[kept], self._variances[kept]
        biases = self._log_weights()[kept] - 0.5 * (np.log(variances).sum(axis=1) + self.dim * LOG_2PI)
        ln2 = float(np.log(2.0))
        if self._kind == "shared":
            # |x − μ|² = |y|² − 2 y·(μ−c) + |μ−c|² with y = x − c: the first term is common to all components
            centre = means.mean(axis=0)
            slopes = (means - centre) / variances[0, 0]
            biases = biases - 0.5 * ((means - centre) * slopes).sum(axis=1)
            precision = 1.0 / float(variances[0, 0])
            return {
                "centre": centre, "slopes": slopes / ln2, "biases": biases / ln2, "precision": precision,
                "half_precision": 0.5 * precision, "ln2": ln2,
            }  # fmt: skip
        if self._kind == "round":
            precisions = 1.0 / variances[:, 0]
            half_precisions = 0.5 * precisions / ln2
            return {
                "means": means,
                "biases": biases / ln2,
                "precisions": precisions,
                "half_precisions": half_precisions,
                "ln2": ln2,
            }
        axes = np.broadcast_to(np.eye(self.dim), (len(means), self.dim, self.dim))
        if self._axes is not None:
            axes = self._axes[kept]
        precisions = (axes / variances[:, None, :]) @ axes.transpose(0, 2, 1)
        return {
            "means": means,
            "biases": biases / ln2,
            "precisions": precisions,
            "half": 0.5 / ln2,
            "ln2": ln2,
        }

    @property
    def score_tile(self) -> Callable[..., None]:
        """The score over a tile of 256 points, for compiled code."""
        return score_tile(self._kind, self.dim, int((self.weights > 0.0).sum()))

    @property
    def score_point(self) -> Callable[..., None]:
        """The score of one point, x and out of shape (d, 1), for a thread of a GPU."""
        return score_point(self._kind, self.dim, int((self.weights > 0.0).sum()))

    @property
    def log_density_tile(self) -> Callable[..., None]:
        """The log density over a tile of 256 points, for compiled code."""
        return log_density_tile(self._kind, self.dim, int((self.weights > 0.0).sum()))
