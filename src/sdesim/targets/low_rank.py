r"""Mixtures of low-rank normal laws (probabilistic PCA): image-like data in closed form.

    p = Σₖ wₖ N(mₖ, Cₖ),    Cₖ = Σⱼ λₖⱼ vₖⱼ vₖⱼᵀ + sₖ (1 − VₖᵀVₖ)

Each cell has q orthonormal directions with variances of their own, and one variance for all that remain (Tipping &
Bishop 1999, "Mixtures of probabilistic principal component analysers"). Its density, score, draws and the exact score
of its noised law need matrix products of k q columns (``cells``) and nothing of the dimension squared.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import blas, checks
from .base import Target, draws
from .cells import ROWS, Block, Cells
from .gaussian import LOG_2PI, Gaussian
from .mixture import GaussianMixture


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankMixture(Target):
    r"""p = Σₖ wₖ N(mₖ, Vₖᵀ diag(λₖ) Vₖ + sₖ (1 − VₖᵀVₖ)).

    Parameters
    ----------
    weights : (k,)
        wₖ >= 0, summing to 1.
    means : (k, d)
        mₖ.
    directions : (k, q, d)
        vₖⱼ, orthonormal in each cell.
    variances : (k, q)
        λₖⱼ > 0 along them.
    residual : number or (k,)
        sₖ > 0, the variance across them.

    Notes
    -----
    Points of float32 are answered in float32 arithmetic, which is about twice as fast; all others in float64.

    Raises
    ------
    ValueError
        Where the shapes do not fit, weights do not sum to 1, directions are not orthonormal, a variance is not > 0.
    """

    weights: Any
    means: Any
    directions: Any
    variances: Any
    residual: Any
    dim: int = dataclasses.field(init=False, default=1)
    _cells: dict[np.dtype, Cells] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means = checks.array("weights", self.weights), checks.array("means", self.means)
        directions, variances = checks.array("directions", self.directions), checks.array("variances", self.variances)
        if weights.ndim != 1 or weights.size == 0:
            raise ValueError(f"weights has shape {weights.shape}, expected (k,)")
        k = weights.size
        if (weights < 0.0).any() or abs(weights.sum() - 1.0) > 1e-6:
            raise ValueError(
                f"weights must be >= 0 and sum to 1, their least is {weights.min():g} and their sum {weights.sum():g}"
            )
        if means.ndim != 2 or len(means) != k or means.size == 0:
            raise ValueError(f"means has shape {means.shape}, expected ({k}, d) for {k} weights")
        d = means.shape[1]
        if directions.ndim != 3 or directions.shape[::2] != (k, d) or not 1 <= directions.shape[1] <= d:
            raise ValueError(f"directions has shape {directions.shape}, expected ({k}, q, {d}) with 1 <= q <= {d}")
        q = directions.shape[1]
        if variances.shape != (k, q):
            raise ValueError(f"variances has shape {variances.shape}, expected ({k}, {q})")
        residual = checks.array("residual", self.residual)
        if residual.shape not in ((), (k,)):
            raise ValueError(f"residual has shape {residual.shape}, expected a number or ({k},)")
        for name, values in (("variances", variances), ("residual", residual)):
            if not (values > 0.0).all():
                raise ValueError(f"{name} must be > 0, got {values.min():g}")
        away = np.abs(directions @ directions.transpose(0, 2, 1) - np.eye(q)).max(axis=(1, 2))
        if away.max() > 1e-4:
            raise ValueError(
                f"directions must be orthonormal in each cell; those of cell {int(away.argmax())} are off by "
                f"{away.max():.2g}: take the rows of Vᵀ of a singular value decomposition"
            )
        for name, value in (
            ("weights", weights / weights.sum()), ("means", means), ("directions", directions),
            ("variances", variances), ("residual", np.broadcast_to(residual, (k,)).copy()), ("dim", d), ("_cells", {}),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cells": {}}

    def __repr__(self) -> str:
        return f"LowRankMixture({self.n_components} cells of rank {self.rank} in dimension {self.dim})"

    @classmethod
    def of(cls, target: Any) -> "LowRankMixture":
        """A Gaussian or a GaussianMixture as cells of full rank."""
        if isinstance(target, cls):
            return target
        if not isinstance(target, Gaussian | GaussianMixture):
            raise TypeError(f"expected a Gaussian, a GaussianMixture or a LowRankMixture, got {type(target).__name__}")
        d = target.dim
        if isinstance(target, Gaussian):
            weights, means = np.ones(1), np.reshape(target.mean, (1, d))
        else:
            weights, means = target.weights, target.means
        variances = np.reshape(target._variances, (-1, d))
        axes = np.eye(d) if target._axes is None else target._axes
        directions = np.broadcast_to(axes, (len(means), d, d)).transpose(0, 2, 1)
        return cls(weights, means, directions, variances, variances.mean(axis=1))

    @classmethod
    def fit(
        cls, data: Any, n_cells: int = 100, rank: int = 30, *, labels: Any = None, seed: int | None = 0,
        n_iterations: int = 20, max_points: int = 1500, floor: float = 1e-4, progress: Any = False,
    ) -> "LowRankMixture":  # fmt: skip
        r"""Cells by k-means, or by given labels, and probabilistic PCA in each: maximum likelihood for given cells.

        Parameters
        ----------
        data : (n, d)
        n_cells : int
            How many cells k-means looks for; those of fewer than 2 rank points are given to their neighbours.
        rank : int
            q, at most d.
        labels : (n,) of int, optional
            One cell for each label, in place of k-means.
        seed : int
            Of the first centres.
        n_iterations : int
            Steps of k-means (Lloyd 1982), at most.
        max_points : int
            Directions are taken from so many points of a cell at most; means are of all.
        floor : float
            The least variance, as a part of the data's mean variance.
        """
        from .clusters import fitted

        return cls(
            *fitted(
                data, n_cells, rank, labels=labels, seed=seed, n_iterations=n_iterations, max_points=max_points,
                floor=floor, progress=progress,
            )
        )  # fmt: skip

    # ---- what it is

    @property
    def n_components(self) -> int:
        """The number k of cells."""
        return len(self.weights)

    @property
    def rank(self) -> int:
        """The number q of directions of a cell."""
        return self.variances.shape[1]

    @property
    def mean(self) -> Any:
        """E X, (d,)."""
        return self.weights @ self.means

    @property
    def cov(self) -> np.ndarray:
        """Cov X, (d, d): made here and nowhere else."""
        away = self.means - self.mean
        cov = (self.weights[:, None] * away).T @ away
        rest = self.weights * self.residual
        flat = self.directions.reshape(-1, self.dim)
        more = (self.weights[:, None] * self.variances - rest[:, None]).reshape(-1, 1)
        return cov + rest.sum() * np.eye(self.dim) + (more * flat).T @ flat

    # ---- what it computes

    def _rows(self, x: Any) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
        rows, points, shape = super()._rows(x)
        return (rows.astype(np.float32) if np.asarray(x).dtype == np.float32 else rows), points, shape

    def values(
        self, x: np.ndarray, *, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """log density (n,) and score (n, d) at ``x`` (n, d) of the law of scale·X + shift + N(0, noise·1).

        ``scale``, ``shift`` and ``noise`` are numbers or (n, 1). Rows are computed in blocks of 256, filled up where
        there are fewer, so that a row has the same bits in any company that starts at the same block.
        """
        density, score = np.empty(len(x), x.dtype), np.empty(x.shape, x.dtype)
        for rows, block in self._blocks(x, scale, shift, noise):
            density[rows] = block.density[: rows.stop - rows.start]
            score[rows] = block.out[: rows.stop - rows.start]
        return density - x.dtype.type(0.5 * self.dim * LOG_2PI), score

    def _blocks(self, x: np.ndarray, scale: Any, shift: Any, noise: Any) -> Iterator[tuple[slice, Block]]:
        if x.dtype not in self._cells:
            self._cells[x.dtype] = Cells(self, x.dtype, self.mean)
        block = Block(self._cells[x.dtype])
        phases = block.phases()
        for lo in range(0, len(x), ROWS):
            rows = slice(lo, min(lo + ROWS, len(x)))
            alpha, beta, v = (u[rows] if np.ndim(u) else u for u in (scale, shift, noise))
            block.fill(x[rows] - np.asarray(alpha * self.mean + beta, x.dtype), alpha, v)
            with blas.single_threaded():
                for phase in phases:
                    for task in phase:
                        task()
            yield rows, block

    def posterior(self, x: Any) -> np.ndarray:
        """rₖ(x): the chance that a point came from cell k, (n, k)."""
        rows, points, _ = self._rows(x)
        found = np.empty((len(rows), self.n_components), rows.dtype)
        for where, block in self._blocks(rows, 1.0, 0.0, 0.0):
            found[where] = block.r[: where.stop - where.start]
        return found.reshape(*points, self.n_components)

    def class_weights(self, x: Any, labels: Any) -> np.ndarray:
        """The weights of the cells in each class, (n_classes, k), from points and their labels 0, 1, …

        The mean posterior of a class's points: one step of expectation maximisation. Each class counts one point of no
        class besides, so that no weight is 0. With these weights in place of its own the mixture is a model of the
        class (``ResidualMLP``).
        """
        posterior = self.posterior(x)
        labels = np.asarray(labels)
        if posterior.ndim != 2 or labels.shape != (len(posterior),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be integers, one for each point, got {labels.dtype} of shape {labels.shape} for x of "
                f"shape {np.shape(x)}"
            )
        members = np.bincount(np.maximum(labels, 0))
        if labels.min() < 0 or members.min() == 0:
            raise ValueError("labels must be 0, 1, … with points of every class")
        totals = np.stack([posterior[labels == k].sum(axis=0, dtype=np.float64) for k in range(len(members))])
        return (totals + self.weights) / (members[:, None] + 1.0)

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        return self.values(rows)[0].reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        rows, _, shape = self._rows(x)
        return self.values(rows)[1].reshape(shape)[()]

    def sample(
        self, n: int, seed: int | None = None, *, first_path: int = 0, residual: bool = True
    ) -> np.ndarray:  # fmt: skip
        """Draw n points, (n, d); without ``residual`` they lie in the planes of their cells, free of its grain."""
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        d = self.dim
        e = stream.normals(seed, stream.INITIAL, n, d, first_path=first_path)[:, :, 0]
        choice = stream.uniforms(seed, stream.INITIAL, n, d + 1, first_path=first_path)[:, d, 0]
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], choice, side="right")
        for k in np.unique(chosen):
            rows = chosen == k
            across = np.sqrt(self.residual[k]) if residual else 0.0
            inside = (e[rows] @ self.directions[k].T) * (np.sqrt(self.variances[k]) - across)
            e[rows] = self.means[k] + across * e[rows] + inside @ self.directions[k]
        return e[:, 0] if d == 1 else e

    def affine(self, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0) -> "LowRankMixture":
        """The law of α X + b + N(0, v·1): ``scale`` α and ``noise`` v are numbers, ``shift`` b a number or (d,)."""
        if np.ndim(scale) or np.ndim(noise):
            raise ValueError("a mixture of low rank stays one under numbers scale and noise, got matrices")
        squared = float(scale) ** 2
        return LowRankMixture(
            self.weights, scale * self.means + shift, self.directions, squared * self.variances + noise,
            squared * self.residual + noise,
        )  # fmt: skip
