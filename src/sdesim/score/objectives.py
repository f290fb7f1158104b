r"""Objectives of score learning: a loss, and its exact gradient in the parameters of a network.

All are means over points of a sum over dimensions, with a weight w of the noise level:

    denoising    w ½ |s(x̃, t) + ε/σ|²,      x̃ = α x + σ ε                              (Vincent 2011)
    implicit     w (½ |s|² + tr ∂s/∂x)                                                  (Hyvärinen 2005)
    sliced       w E_v [vᵀ(∂s/∂x)v + ½ (v·s)²],    E[vvᵀ] = I                           (Song et al. 2019)
    sliced_vr    w E_v [vᵀ(∂s/∂x)v + ½ |s|²]       the same with less variance
    finite_difference   sliced_vr with vᵀ(s(x + hv) − s(x − hv))/2h for the derivative and the mean of the two for s
                                                                                        (after Pang et al. 2020)

The last four differ from ½ E|s − ∇log p|² by a constant, and from each other by nothing, or by what E_v averages out
(finite differences: by O(h²)). Denoising differs from ½ E|s − ∇log p_t|², p_t the law of x̃, by another constant.

With a noising process every objective can be taken at every noise level; without one the last four take x as it is.
The derivative passes are written out; a tangent is carried along by stacking its rows under those of the points.
"""

from typing import Any

import numpy as np

from ..core import blas, checks
from . import kernels
from .divergence import factor
from .head import Head
from .passes import Passes, Phase, columns, each, run, tiles

NAMES = ("denoising", "implicit", "sliced", "sliced_vr", "finite_difference")
WEIGHTINGS = ("prediction", "noise", "data", "likelihood", "none")
STACKED_DIM = 64


def weight(weighting: str, head: Head, t: np.ndarray) -> np.ndarray:
    """w(t): what |s − ∇log p_t|² counts at noise level t.

    prediction: 1/B², an error of the network counts the same at every level (without a process it is σ_d², which makes
    the loss that of data of unit spread, whatever the unit of the data); noise: σ², of ε; data: σ⁴/α², of x₀;
    likelihood: g², which makes the sum over t a bound on the log likelihood (Song et al. 2021, "Maximum likelihood
    training"); none: 1.
    """
    if weighting == "prediction":
        return 1.0 / head.scalings(t)[1] ** 2
    if weighting == "none" or head.process is None:
        return np.ones_like(t)
    alpha, _, sigma = head.noise(t)
    if weighting == "noise":
        return sigma**2
    if weighting == "data":
        return sigma**4 / alpha**2
    assert head.process is not None
    return np.asarray(head.process.diffusion(0.0, np.maximum(t, head.t_min))) ** 2 + 0.0 * t


class Objective:
    """One objective for batches of n points: inputs, phases, and what they leave behind.

    Inputs: ``x`` (n, d) clean points, ``noise`` (n d,) normals, ``directions`` (m, n, d), and the noise levels by
    :meth:`set_levels`. Then ``run(objective.phases)`` leaves ``losses`` (n,) and ``gradient``.
    """

    def __init__(
        self, net: Any, n: int, name: str = "denoising", *, head: Head | None = None, weighting: str = "prediction",
        n_projections: int = 1, step: float = 0.03,
    ) -> None:  # fmt: skip
        self.name, self.n = checks.choice("objective", name, NAMES), n
        self.weighting = checks.choice("weighting", weighting, WEIGHTINGS)
        self.head = net.head if head is None else head
        self.step = checks.real("step", step, above=0.0)
        if name == "denoising" and self.head.process is None:
            raise ValueError("denoising needs noise: give a process, or sigma for one level")
        self.layout, dtype = net.layout, net.dtype
        self.dim = self.layout.dim
        self.closed = name == "implicit" and len(net.hidden) <= 2
        self.m = self._tangents(checks.integer("n_projections", n_projections, minimum=1))
        self.parameters = np.array(net.parameters)
        self.gradient = np.zeros_like(self.parameters)
        self.frequencies = net.frequencies
        self.two_sided = name == "finite_difference"
        self.passes = Passes(
            self.layout, net.activation, self.parameters, self.gradient, n * (2 if self.two_sided else 1), self.m,
            curved=self.closed,
        )  # fmt: skip
        self.share = dtype.type(1.0 / n)
        self.x, self.y, self.target = (np.zeros((n, self.dim), dtype) for _ in range(3))
        self.noise = np.zeros(-(-n * self.dim // 4) * 4, dtype)
        self.directions = np.zeros((max(self.m, int(self.two_sided)), n, self.dim), dtype)
        if name == "implicit" and self.m:
            self.directions[:] = np.eye(self.dim)[:, None, :]
        self.mix, self.rows = np.zeros((n, 4), dtype), np.zeros((n, 4), dtype)
        self.factors, self.levels, self.weights, self.losses = (np.zeros(n, dtype) for _ in range(4))
        self.centre = np.broadcast_to(np.asarray(self.head.centre, dtype), (self.dim,)).copy()
        self.tiles = tiles(n, self.m)
        self.phases = self._phases()

    def _tangents(self, n_projections: int) -> int:
        if self.name in ("sliced", "sliced_vr"):
            return n_projections
        if self.name != "implicit" or self.closed:
            return 0
        if self.dim > STACKED_DIM:
            raise ValueError(
                f"the exact trace of {len(self.layout.hidden)} hidden layers takes a pass for each of the {self.dim} "
                f"dimensions, more than {STACKED_DIM}; two hidden layers have a closed form, or take 'sliced_vr'"
            )
        return self.dim

    @property
    def flops(self) -> int:
        """Operations of the matrix products of a step."""
        return self.layout.flops(self.n * (1 + self.m))

    @property
    def random_directions(self) -> bool:
        """Whether ``directions`` are to be drawn anew for every batch."""
        return self.name in ("sliced", "sliced_vr", "finite_difference")

    def levels_at(self, t: np.ndarray) -> tuple[np.ndarray, ...]:
        """What :meth:`take_levels` takes, for any number of times: (mix, rows, C, c, weights)."""
        head = self.head
        alpha, _, sigma = head.noise(t)
        a, b, c, level = head.scalings(t)
        w = weight(self.weighting, head, t)
        if self.name == "denoising":
            of_x, of_e = head.regression(t)
            mix = np.stack([alpha, sigma, of_x, of_e], axis=-1)
            w = w * b**2
        else:
            mix = np.stack([alpha, sigma, 0.0 * t, 0.0 * t], axis=-1)
        if self.two_sided:
            epsilon = self.step / c
            rows = np.stack([a, b, epsilon, 0.5 / epsilon], axis=-1)
        else:
            kappa = 1.0 / self.m if self.random_directions else 1.0
            rows = np.stack([a, b, b * c, kappa + 0.0 * t], axis=-1)
        return tuple(np.asarray(value, self.x.dtype) for value in (mix, rows, c, level, w))

    def take_levels(self, levels: tuple[np.ndarray, ...]) -> None:
        """The noise levels of the batch, from :meth:`levels_at`."""
        self.mix[:], self.rows[:], self.factors[:], self.levels[:], self.weights[:] = levels

    def evaluate(
        self, x: Any, t: Any = 0.0, *, noise: Any = None, directions: Any = None, parameters: Any = None
    ) -> tuple[float, np.ndarray]:
        """The loss of one batch and its gradient, with everything given: x (n, d), noise (n, d), directions (m, n, d).

        For checks and experiments; training fills the same arrays from the random stream.
        """
        if parameters is not None:
            self.parameters[:] = parameters
        self.x[:] = x
        self.noise[: self.x.size] = np.zeros(self.x.size) if noise is None else np.ravel(noise)
        if directions is not None:
            self.directions[:] = directions
        self.take_levels(self.levels_at(np.broadcast_to(np.asarray(t, dtype=np.float64), (self.n,))))
        with blas.single_threaded():
            run(self.phases)
        return float(self.losses.mean(dtype=np.float64)), self.gradient.copy()

    # ---- the phases of a batch

    def _phases(self) -> list[Phase]:
        p = self.passes
        enter: list[Phase] = [each(self._enter, self.tiles)]
        if self.name == "denoising":
            loss = [each(self._regression, p.tiles)]
        elif self.two_sided:
            loss = [each(self._two_sided, self.tiles)]
        elif self.closed:
            return enter + self._closed_form()
        else:
            loss = [each(self._projected, p.tiles)]
        return enter + p.forward() + loss + p.reverse() + p.gradient()

    def _enter(self, p0: int, n: int, r0: int) -> None:
        """The network's input from points, noise and levels."""
        inp, d = self.passes.H[0], self.dim
        kernels.noisy(self.x, self.noise, self.centre, self.mix, self.y, self.target, p0, n)
        if self.two_sided:
            steps = np.ascontiguousarray(self.rows[:, 2])
            kernels.offset(self.y, self.directions[0], self.factors, steps, inp, p0, p0, n)
            kernels.offset(self.y, self.directions[0], self.factors, -steps, inp, self.n + p0, p0, n)
        else:
            kernels.scaled(self.y, self.factors, inp, r0, p0, n)
        for k in range(self.m):
            inp[r0 + (k + 1) * n : r0 + (k + 2) * n, :d] = self.directions[k, p0 : p0 + n]
        if self.layout.n_features:
            kernels.fourier(self.levels, self.frequencies, inp, d, r0, p0, n)
            if self.two_sided:
                kernels.fourier(self.levels, self.frequencies, inp, d, self.n + p0, p0, n)

    def _regression(self, p0: int, n: int, r0: int) -> None:
        p = self.passes
        kernels.regression(p.O, p.b[-1], self.target, self.weights, self.share, p.D[-1], self.losses, r0, p0, n)

    def _projected(self, p0: int, n: int, r0: int) -> None:
        p = self.passes
        kernels.projected(
            p.O, p.b[-1], self.y, self.directions, self.rows, self.weights, self.share, self.name != "sliced",
            p.D[-1], self.losses, r0, p0, n, self.m,
        )  # fmt: skip

    def _two_sided(self, p0: int, n: int, r0: int) -> None:
        p = self.passes
        kernels.two_sided(
            p.O, p.b[-1], self.y, self.directions, self.rows, self.weights, self.share, p.D[-1], self.losses, p0, n
        )

    # ---- the exact trace of one and two hidden layers, with its gradient

    def _closed_form(self) -> list[Phase]:
        """The phases of implicit score matching in closed form (``divergence``).

        With κ = w B C / n a row and C = Uᵀ(κV): M enters the gradient by C, so dW₂ += C ∘ K, and with Q = (C ∘ W₂)ᵀ
        dW₃ += Q W₁ᵀ, dW₁ += W₃ᵀ Q; the slopes U and V enter by (κ V Mᵀ) φ″(z₁) and κ (U M) φ″(z₂).
        """
        p, dtype, last = self.passes, self.x.dtype, len(self.layout.hidden) - 1
        widths = self.layout.hidden
        self.kappa = np.zeros(self.n, dtype)
        self.ones = np.ones(self.n, dtype)
        self.images = np.zeros((self.n, widths[-1]), dtype)  # U M, or rows of k
        self.more = [np.zeros((self.n, width), dtype) for width in widths]
        if last == 0:
            prepare, images, after = [each(self._one_prepare, [()])], [], [each(self._one_after, [()])]
            pull: list[Phase] = []
        else:
            self.K, self.M, self.C = (np.zeros(widths, dtype) for _ in range(3))
            self.weighed, self.pulled = np.zeros((self.n, widths[1]), dtype), np.zeros((self.n, widths[0]), dtype)
            self.first, self.last = np.zeros((self.dim, widths[0]), dtype), np.zeros((widths[1], self.dim), dtype)
            spans = list(columns(widths[1]))
            prepare = [each(self._two_prepare, spans)]
            images = [each(self._two_images, p.tiles, spans)]
            firsts = list(columns(widths[0]))
            pull = [each(self._two_pull, p.tiles, firsts)]
            after = [
                each(self._two_cross, spans),
                each(self._two_last, columns(self.dim)) + each(self._two_first, firsts),
            ]
        loss = [each(self._trace, p.tiles)]
        more = dict(enumerate(self.more))
        return prepare + p.forward() + images + loss + pull + p.reverse(more) + p.gradient() + after

    def _trace(self, p0: int, n: int, r0: int) -> None:
        """Losses, the gradient in the outputs, and the parts of the trace's gradient that stay in a tile."""
        p, rows = self.passes, slice(p0, p0 + n)
        left, right = (p.D1[0], self.images) if len(self.layout.hidden) == 1 else (self.images, p.D1[1])
        kernels.score_and_trace(
            p.O, p.b[-1], self.y, left, right, self.rows, self.weights, self.share, p.D[-1], self.losses, r0, p0, n
        )
        self.kappa[rows] = self.share * self.weights[rows] * self.rows[rows, 2]
        kernels.product(self.images, p.D2[-1], self.kappa, self.more[-1], p0, n)
        if len(self.layout.hidden) == 2:
            kernels.weigh(p.D1[1], self.kappa, self.weighed, p0, n)

    def _one_prepare(self) -> None:
        self.k = factor(self.passes.W, self.dim)
        self.images[:] = self.k

    def _one_after(self) -> None:
        p = self.passes
        c = (self.kappa @ p.D1[0])[:, None]
        first = np.array(p.W[0][: self.dim])
        p.gW[0][: self.dim] += (c * p.W[1]).T
        p.gW[1] += c * first.T

    def _two_prepare(self, c0: int, c1: int) -> None:
        p = self.passes
        np.matmul(p.W[0][: self.dim].T, p.W[2][c0:c1].T, out=self.K[:, c0:c1])
        np.multiply(p.W[1][:, c0:c1], self.K[:, c0:c1], out=self.M[:, c0:c1])

    def _two_images(self, p0: int, n: int, r0: int, c0: int, c1: int) -> None:
        rows = slice(p0, p0 + n)
        np.matmul(self.passes.D1[0][rows], self.M[:, c0:c1], out=self.images[rows, c0:c1])

    def _two_pull(self, p0: int, n: int, r0: int, c0: int, c1: int) -> None:
        rows = slice(p0, p0 + n)
        np.matmul(self.weighed[rows], self.M[c0:c1].T, out=self.pulled[rows, c0:c1])
        np.multiply(self.pulled[rows, c0:c1], self.passes.D2[0][rows, c0:c1], out=self.more[0][rows, c0:c1])

    def _two_cross(self, c0: int, c1: int) -> None:
        p, span = self.passes, slice(c0, c1)
        np.matmul(p.D1[0].T, self.weighed[:, span], out=self.C[:, span])
        p.gW[1][:, span] += self.C[:, span] * self.K[:, span]
        self.C[:, span] *= p.W[1][:, span]

    def _two_last(self, c0: int, c1: int) -> None:
        p = self.passes
        np.matmul(self.C.T, p.W[0][c0:c1].T, out=self.last[:, c0:c1])
        p.gW[2][:, c0:c1] += self.last[:, c0:c1]

    def _two_first(self, c0: int, c1: int) -> None:
        p = self.passes
        np.matmul(p.W[2].T, self.C[c0:c1].T, out=self.first[:, c0:c1])
        p.gW[0][: self.dim, c0:c1] += self.first[:, c0:c1]


def fisher_divergence(score: Any, target: Any, x: Any, t: Any = 0.0) -> float:
    """E|s − ∇log p|² over the points ``x`` (n, d), which should be drawn from p; both scores are callables (x, t)."""
    x = np.asarray(x)
    true = target.score if hasattr(target, "score") else target
    gap = np.asarray(score(x, t), dtype=np.float64) - np.asarray(true(x, t), dtype=np.float64)
    return float((gap**2).sum() / len(x))
