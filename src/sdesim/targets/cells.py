r"""Scores of many low-rank normal cells for a block of points: two matrix products and one loop between them.

Cell k is N(mₖ, Cₖ) with q orthonormal directions vₖⱼ (the rows of Vₖ) and Cₖ = Σⱼ λₖⱼ vₖⱼ vₖⱼᵀ + sₖ (1 − VₖᵀVₖ). The
noised law of α X + N(0, σ²) has the same directions, with λ̃ = α²λ + σ² and s̃ = α²s + σ². With u a point, from a
centre c, and the projections P = V (u − α(m − c)), Woodbury's identity gives the score of a cell,

    g_k = −(u − α(m − c))/s̃ + Vᵀ P (1/s̃ − 1/λ̃),

and that of the mixture is s = Σ rₖ gₖ with the posterior weights rₖ. One matrix W holds all directions and all means:
u W are the projections, and s = coefficients Wᵀ − (Σ rₖ/s̃ₖ) u. Its derivative along v has the same form,

    J v = Σₖ [−rₖ C̃ₖ⁻¹ v + aₖ gₖ],    aₖ = rₖ (gₖ·v − s·v),

so a tangent costs what a score costs. J is a Hessian: vᵀJ = J v. No matrix of the dimension squared appears.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import blas
from ..core.cache import kernel
from ..core.elementary import wide_vectors
from ..core.functions import exp, log

ROWS, CHUNK, COLUMNS = 256, 32, 512
_FAST = ("contract", "reassoc", "nsz")

Phases = list[list[Callable[[], Any]]]


class Cells:
    """The arrays of a mixture in one type of number, about a centre.

    ``class_weights`` (n_classes, k) are weights of the cells for each of several classes; the mixture's own come last.

    ``matrix`` (d, k(q + 1)) holds W: column jk + i is direction j of cell i, column qk + i the mean of cell i.
    """

    def __init__(self, mixture: Any, dtype: Any, centre: Any = 0.0, class_weights: Any = None) -> None:
        directions, means = mixture.directions, mixture.means - centre
        k, q, d = directions.shape
        self.k, self.q, self.d = k, q, d

        def cast(values: Any) -> np.ndarray:
            return np.array(values, dtype=dtype, order="C")

        matrix = np.concatenate([directions.transpose(1, 0, 2).reshape(q * k, d), means]).T
        # entries that are rounding and nothing else can be subnormal in float32, which makes products nine times slower
        self.matrix = cast(np.where(np.abs(matrix) < 1e-20 * np.abs(matrix).max(), 0.0, matrix))
        self.offsets = cast(np.einsum("kqd,kd->qk", directions, means))
        self.variances, self.residual = cast(mixture.variances.T), cast(mixture.residual)
        with np.errstate(divide="ignore"):
            self.logs = cast(np.log(np.vstack([*([] if class_weights is None else class_weights), mixture.weights])))
        self.squares = cast((means**2).sum(axis=1))
        self.free = self.matrix.dtype.type(d - q)

    @property
    def dtype(self) -> np.dtype:
        """Of all arithmetic."""
        return self.matrix.dtype

    @property
    def laws(self) -> tuple[Any, ...]:
        """What the kernels know of the cells."""
        return self.offsets, self.variances, self.residual


class Block:
    """Buffers for up to n points, and the phases that take ``u`` and ``scales`` to ``out``.

    A phase is a list of tasks that write different memory; how it is cut depends on the shapes alone.

    Attributes
    ----------
    u : (n, d) points, from α c + β
    scales : (n, 2) α and σ² of every point
    kinds : (n,) whose weights the cells have: a class, or −1 for the mixture's own
    out : (n, d) scores
    r : (n, k) posterior weights of the cells
    density : (n,) log densities
    """

    def __init__(self, cells: Cells, n: int = ROWS) -> None:
        dtype, d = cells.dtype, cells.d
        self.cells, self.n = cells, n
        self.u, self.out = np.zeros((n, d), dtype), np.zeros((n, d), dtype)
        self.scales, self.kinds = np.ones((n, 2), dtype), np.full(n, -1)
        self.h = np.zeros((n, cells.k * (cells.q + 1)), dtype)
        self.r = np.zeros((n, cells.k), dtype)
        self.density, self.pull = np.zeros(n, dtype), np.zeros(n, dtype)

    def phases(self, coefficients: np.ndarray | None = None) -> Phases:
        """From ``u`` and ``scales`` to ``out``; the projections are overwritten unless ``coefficients`` are kept."""
        coefficients = self.h if coefficients is None else coefficients
        rows = blas.spans(self.n, CHUNK)
        return [
            products(self.u, self.cells.matrix, self.h),
            [functools.partial(self._weigh, coefficients, *span) for span in rows],
            products(coefficients, self.cells.matrix.T, self.out),
            [functools.partial(_subtract, self.out, self.pull, self.u, *span) for span in rows],
        ]

    def _weigh(self, coefficients: np.ndarray, lo: int, hi: int) -> None:
        cells = self.cells
        _posterior(
            self.h, self.r, self.u, *cells.laws, cells.logs, cells.squares, cells.free, self.scales, self.kinds,
            self.density, lo, hi,
        )  # fmt: skip
        _coefficients(self.h, self.r, *cells.laws, self.scales, coefficients, self.pull, lo, hi)

    def fill(self, x: np.ndarray, scale: Any, noise: Any) -> None:
        """Points x (m, d), from their centre, and α and σ², numbers or (m, 1); rows beyond them are 0."""
        m = len(x)
        self.u[:m], self.u[m:] = x, 0.0
        self.scales[:m, :1], self.scales[:m, 1:], self.scales[m:] = scale, noise, 1.0


class Tangents:
    """J v for directions v at the points of a block whose projections were kept."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.coefficients, self.h = np.zeros_like(block.h), np.zeros_like(block.h)
        self.v, self.out = np.zeros_like(block.u), np.zeros_like(block.u)
        self.pull = np.zeros((block.n, 2), block.u.dtype)
        self.phases = block.phases(self.coefficients)

    def along(self, v: np.ndarray) -> np.ndarray:
        """J v for v (m, d), once the phases of the block were run with ``coefficients`` kept; a view."""
        block, cells, m = self.block, self.block.cells, len(v)
        self.v[:m], self.v[m:] = v, 0.0
        np.matmul(self.v, cells.matrix, out=self.h)
        _bend(block.h, block.r, block.u, self.v, block.out, *cells.laws, block.scales, self.h, self.pull)
        np.matmul(self.h, cells.matrix.T, out=self.out)
        self.out -= self.pull[:, :1] * self.v + self.pull[:, 1:] * block.u
        return self.out[:m]


def products(a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: int = ROWS) -> list[Callable[[], Any]]:
    """out = a b, as tasks over blocks of rows and of columns."""
    return [
        functools.partial(np.matmul, a[r0:r1], b[:, c0:c1], out=out[r0:r1, c0:c1])
        for r0, r1 in blas.spans(len(a), rows)
        for c0, c1 in blas.spans(b.shape[1], COLUMNS)
    ]


@kernel(fastmath=_FAST)
def _posterior(h, r, u, offsets, variances, residual, logs, squares, free, scales, kinds, density, lo, hi):
    """Projections about the means (in place), posterior weights, log densities up to −½ d log 2π."""
    wide_vectors()
    q, k = offsets.shape
    zero, half, two = free - free, h.dtype.type(0.5), h.dtype.type(2.0)
    least = h.dtype.type(1e-20)  # what is less has no part in the sums, and its products would be subnormal
    inside, within, volume = np.empty(k, h.dtype), np.empty(k, h.dtype), np.empty(k, h.dtype)
    for i in range(lo, hi):
        alpha, noise, at, prior = scales[i, 0], scales[i, 1], u[i], logs[kinds[i]]
        square, shrink = zero, alpha * alpha
        for j in range(at.shape[0]):
            square += at[j] * at[j]
        inside[:], within[:], volume[:] = zero, zero, zero
        for j in range(q):
            p, offset, variance = h[i, j * k : (j + 1) * k], offsets[j], variances[j]
            for c in range(k):
                wide = shrink * variance[c] + noise
                near = p[c] - alpha * offset[c]
                p[c] = near
                near *= near
                inside[c] += near
                within[c] += near / wide
                volume[c] += log(wide)
        means, weight = h[i, q * k : (q + 1) * k], r[i]
        for c in range(k):
            narrow = shrink * residual[c] + noise
            # |u − αm|² − |P|²: rounding may take it below 0, and without free directions it is nothing but rounding
            far = square - two * alpha * means[c] + shrink * squares[c] - inside[c]
            far = far if far > zero and free > zero else zero
            weight[c] = prior[c] - half * (within[c] + far / narrow + volume[c] + free * log(narrow))
        top = weight[0]
        for c in range(k):
            top = weight[c] if weight[c] > top else top
        total = zero
        for c in range(k):
            weight[c] = exp(weight[c] - top)
            total += weight[c]
        for c in range(k):
            share = weight[c] / total
            weight[c] = share if share > least else zero
        density[i] = top + log(total)


@kernel(fastmath=_FAST)
def _coefficients(h, r, offsets, variances, residual, scales, out, pull, lo, hi):
    """What the columns of W count in the score; ``pull`` = Σ rₖ/s̃ₖ."""
    wide_vectors()
    q, k = offsets.shape
    share = np.empty(k, h.dtype)
    for i in range(lo, hi):
        alpha, noise, weight = scales[i, 0], scales[i, 1], r[i]
        total, shrink = noise - noise, alpha * alpha
        means = out[i, q * k : (q + 1) * k]
        for c in range(k):
            share[c] = weight[c] / (shrink * residual[c] + noise)
            total += share[c]
            means[c] = alpha * share[c]
        pull[i] = total
        for j in range(q):
            p, to, variance = h[i, j * k : (j + 1) * k], out[i, j * k : (j + 1) * k], variances[j]
            for c in range(k):
                to[c] = share[c] * p[c] * shrink * (variance[c] - residual[c]) / (shrink * variance[c] + noise)


@kernel(fastmath=_FAST)
def _bend(h, r, u, v, s, offsets, variances, residual, scales, out, pull):
    """What the columns of W, v and u count in J v; ``out`` comes with v W."""
    wide_vectors()
    q, k = offsets.shape
    inside, within, gain = np.empty(k, h.dtype), np.empty(k, h.dtype), np.empty(k, h.dtype)
    for i in range(u.shape[0]):
        alpha, noise, weight = scales[i, 0], scales[i, 1], r[i]
        zero, shrink = noise - noise, alpha * alpha
        along, rise = zero, zero
        for j in range(u.shape[1]):
            along += u[i, j] * v[i, j]
            rise += s[i, j] * v[i, j]
        inside[:], within[:] = zero, zero
        for j in range(q):
            p, to, variance = h[i, j * k : (j + 1) * k], out[i, j * k : (j + 1) * k], variances[j]
            for c in range(k):
                inside[c] += p[c] * to[c]
                within[c] += p[c] * to[c] / (shrink * variance[c] + noise)
        means = out[i, q * k : (q + 1) * k]
        of_v, of_u = zero, zero
        for c in range(k):
            narrow = shrink * residual[c] + noise
            slope = -(within[c] + (along - alpha * means[c] - inside[c]) / narrow)
            gain[c] = weight[c] * (slope - rise) / narrow
            means[c] = alpha * gain[c]
            inside[c] = weight[c] / narrow
            of_v += inside[c]
            of_u += gain[c]
        pull[i, 0], pull[i, 1] = of_v, of_u
        for j in range(q):
            p, to, variance = h[i, j * k : (j + 1) * k], out[i, j * k : (j + 1) * k], variances[j]
            for c in range(k):
                bend = shrink * (variance[c] - residual[c]) / (shrink * variance[c] + noise)
                to[c] = (inside[c] * to[c] + gain[c] * p[c]) * bend


@kernel
def _subtract(out, pull, u, lo, hi):
    wide_vectors()
    for i in range(lo, hi):
        row, at, much = out[i], u[i], pull[i]
        for j in range(row.shape[0]):
            row[j] -= much * at[j]
