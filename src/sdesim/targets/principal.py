r"""A mixture in the leading principal coordinates, and a normal law across them.

    x = c + A z,    (z₁ … z_m) ~ Σₖ wₖ N(mₖ, Cₖ),    z_j ~ N(0, τ_j) for j > m, all independent

The cells of a ``LowRankMixture`` have one variance for all that their directions leave over, which is far from true of
images: some pixels hardly change. Here it is one variance among the m leading coordinates, and beyond them each has its
own. On 28 × 28 images the exact denoiser of this law errs less than that of the mixture in all 784 coordinates, and
its products are as much smaller as m is less than d.
"""

import dataclasses
from typing import Any

import numpy as np

from ..core import blas, checks
from .base import Target, draws
from .cells import ROWS
from .gaussian import LOG_2PI, Gaussian
from .low_rank import LowRankMixture


@dataclasses.dataclass(frozen=True, eq=False)
class PrincipalMixture(Target):
    """x = centre + axes z, with ``mixture`` the law of the first coordinates z and variances ``tail`` of the others.

    Parameters
    ----------
    centre : (d,)
    axes : (d, d)
        Orthonormal columns.
    mixture : LowRankMixture of dimension m
    tail : (d − m,)
        τ_j > 0.
    """

    centre: Any
    axes: Any
    mixture: LowRankMixture
    tail: Any
    dim: int = dataclasses.field(init=False, default=1)
    _turns: dict[np.dtype, np.ndarray] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        centre, axes, tail = (checks.array(name, getattr(self, name)) for name in ("centre", "axes", "tail"))
        if not isinstance(self.mixture, LowRankMixture):
            raise TypeError(f"mixture must be a LowRankMixture, got {type(self.mixture).__name__}")
        if centre.ndim != 1 or centre.size == 0:
            raise ValueError(f"centre has shape {centre.shape}, expected (d,)")
        d, m = centre.size, self.mixture.dim
        if axes.shape != (d, d):
            raise ValueError(f"axes has shape {axes.shape}, expected ({d}, {d})")
        away = float(np.abs(axes.T @ axes - np.eye(d)).max())
        if away > 1e-4:
            raise ValueError(f"axes must have orthonormal columns, they are off by {away:.2g}")
        if m > d or tail.shape != (d - m,):
            raise ValueError(
                f"tail has shape {tail.shape}, expected ({d - m},): {d} coordinates less {m} of the mixture"
            )
        if not (tail > 0.0).all():
            raise ValueError(f"tail must be > 0, got {tail.min():g}")
        for name, value in (("centre", centre), ("axes", axes), ("tail", tail), ("dim", d), ("_turns", {})):
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_turns": {}}

    def __repr__(self) -> str:
        low = self.mixture
        return (
            f"PrincipalMixture({low.n_components} cells of rank {low.rank} in {low.dim} principal coordinates of "
            f"{self.dim})"
        )

    @classmethod
    def of(cls, target: Any) -> "PrincipalMixture":
        """A Gaussian, a GaussianMixture or a LowRankMixture along the axes of its covariance."""
        if isinstance(target, cls):
            return target
        low = LowRankMixture.of(target)
        values, axes = np.linalg.eigh(low.cov)
        values, axes = values[::-1], np.ascontiguousarray(axes[:, ::-1])
        if isinstance(target, Gaussian):
            line = LowRankMixture([1.0], [[0.0]], [[[1.0]]], [[values[0]]], values[0])
            return cls(low.mean, axes, line, values[1:])
        turned = LowRankMixture(
            low.weights, (low.means - low.mean) @ axes, low.directions @ axes, low.variances, low.residual
        )  # fmt: skip
        return cls(low.mean, axes, turned, np.zeros(0))

    @classmethod
    def fit(
        cls, data: Any, n_cells: int = 100, rank: int = 60, *, n_components: int | None = None, labels: Any = None,
        seed: int | None = 0, n_iterations: int = 20, max_points: int = 1500, floor: float = 1e-4,
        progress: Any = False,
    ) -> "PrincipalMixture":  # fmt: skip
        """Principal axes of the data (n, d), and ``LowRankMixture.fit`` in the leading ``n_components`` (256) of them.

        ``floor`` bounds all variances from below, as a part of the data's mean variance.
        """
        from .clusters import checked_points, principal_axes

        x = checked_points(data)
        d = x.shape[1]
        m = min(d, 256) if n_components is None else checks.integer("n_components", n_components, minimum=1)
        if m > d:
            raise ValueError(f"n_components must be <= {d}, the dimension of the data, got {m}")
        centre, axes, variances = principal_axes(x)
        with blas.single_threaded():
            leading = (x - centre.astype(x.dtype)) @ axes[:, :m].astype(x.dtype)
        mixture = LowRankMixture.fit(
            leading, n_cells, rank, labels=labels, seed=seed, n_iterations=n_iterations, max_points=max_points,
            floor=floor, progress=progress,
        )  # fmt: skip
        return cls(centre, axes, mixture, np.maximum(variances[m:], floor * variances.mean()))

    # ---- what it is

    @property
    def mean(self) -> np.ndarray:
        """E X, (d,)."""
        return self.centre + self.axes[:, : self.mixture.dim] @ self.mixture.mean

    @property
    def cov(self) -> np.ndarray:
        """Cov X, (d, d)."""
        m = self.mixture.dim
        leading, rest = self.axes[:, :m], self.axes[:, m:]
        return leading @ self.mixture.cov @ leading.T + (rest * self.tail) @ rest.T

    @property
    def spreads(self) -> np.ndarray:
        """The standard deviations of the coordinates z, (d,)."""
        return np.sqrt(np.concatenate([np.diag(self.mixture.cov), self.tail]))

    # ---- what it computes

    def _rows(self, x: Any) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
        rows, points, shape = super()._rows(x)
        return (rows.astype(np.float32) if np.asarray(x).dtype == np.float32 else rows), points, shape

    def values(
        self, x: np.ndarray, *, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """log density (n,) and score (n, d) of scale·X + shift + N(0, noise·1); see ``LowRankMixture.values``."""
        n, m, kind = len(x), self.mixture.dim, x.dtype
        axes = self._turns.setdefault(kind, self.axes.astype(kind))
        z = _turned(x - np.asarray(scale * self.centre + shift, kind), axes)
        density, score = np.empty(n, kind), np.empty_like(z)
        density[:], score[:, :m] = self.mixture.values(np.ascontiguousarray(z[:, :m]), scale=scale, noise=noise)
        if m < self.dim:
            wide = np.asarray(scale * scale * self.tail + noise, kind)
            pull = z[:, m:] / wide
            score[:, m:] = -pull
            density -= 0.5 * ((z[:, m:] * pull).sum(axis=1) + np.log(wide).sum(axis=-1))
        return density - kind.type(0.5 * (self.dim - m) * LOG_2PI), _turned(score, axes.T)

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        return self.values(rows)[0].reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        rows, _, shape = self._rows(x)
        return self.values(rows)[1].reshape(shape)[()]

    def sample(
        self, n: int, seed: int | None = None, *, first_path: int = 0, residual: bool = True
    ) -> np.ndarray:  # fmt: skip
        """Draw n points, (n, d); without ``residual`` they lie in the planes of their cells."""
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        d, m = self.dim, self.mixture.dim
        z = np.zeros((n, d))
        z[:, :m] = self.mixture.sample(n, seed, first_path=first_path, residual=residual).reshape(n, m)
        if residual:
            # the mixture has used the components 0 … m of the stream
            e = stream.normals(seed, stream.INITIAL, n, d + 1, first_path=first_path)[:, m + 1 :, 0]
            z[:, m:] = np.sqrt(self.tail) * e
        x = self.centre + z @ self.axes.T
        return x[:, 0] if d == 1 else x

    def class_weights(self, x: Any, labels: Any) -> np.ndarray:
        """See ``LowRankMixture.class_weights``."""
        rows, _, _ = self._rows(x)
        z = _turned(rows - self.centre.astype(rows.dtype), self.axes.astype(rows.dtype))
        return self.mixture.class_weights(z[:, : self.mixture.dim], labels)

    def affine(self, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0) -> "PrincipalMixture":
        """The law of α X + b + N(0, v·1): ``scale`` α and ``noise`` v are numbers, ``shift`` b a number or (d,)."""
        mixture = self.mixture.affine(scale, 0.0, noise)
        return PrincipalMixture(scale * self.centre + shift, self.axes, mixture, scale**2 * self.tail + noise)


def _turned(x: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """x A, in products of 256 rows: a row has the same bits in any company."""
    out, block = np.empty_like(x), np.zeros((ROWS, x.shape[1]), x.dtype)
    with blas.single_threaded():
        for lo in range(0, len(x), ROWS):
            part = x[lo : lo + ROWS]
            block[: len(part)], block[len(part) :] = part, 0.0
            out[lo : lo + ROWS] = (block @ axes)[: len(part)]
    return out
