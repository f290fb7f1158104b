r"""Denoising score matching of a residual network, in principal coordinates.

    w ½ |b + B ∘ F + ε/σ|²,    x̃ = α x + σ ε

where b is the backbone's score, which no parameter moves. The noise is as normal in the principal coordinates as in
any: points are turned once, after that a step is element by element but for the backbone's and the network's products.
"""

import functools
from typing import Any

import numpy as np

from ..core import blas, checks
from ..targets.cells import CHUNK, Block, products
from . import kernels, residual_kernels
from .base import checked_labels
from .head import Head
from .objectives import NAMES, WEIGHTINGS, weight
from .passes import Phase, run
from .residual_passes import ResidualPasses


class ResidualObjective:
    """Denoising for batches of n points: inputs, phases, and what they leave behind.

    Inputs: ``x`` (n, d) clean points, ``noise`` (n d,) normals, ``labels`` (n,), and the noise levels by
    :meth:`take_levels`. Then ``run(objective.phases)`` leaves ``losses`` (n,) and ``gradient``.
    """

    random_directions = False
    directions = np.zeros((0, 0, 0))

    def __init__(
        self, net: Any, n: int, name: str = "denoising", *, head: Head | None = None, weighting: str = "prediction",
        n_projections: int = 1,
    ) -> None:  # fmt: skip
        self.head = head = net.head if head is None else head
        if checks.choice("objective", name, NAMES) != "denoising":
            raise ValueError(
                f"a ResidualMLP learns by denoising; objective={name!r} needs the derivative passes of a ScoreMLP"
            )
        if head.process is None:
            raise ValueError("denoising needs noise: give a process, or sigma for one level")
        if head.kind != "edm":
            raise ValueError(
                f"a ResidualMLP corrects what its backbone denoises, which is prediction='edm'; got {head.kind!r}"
            )
        self.weighting = checks.choice("weighting", weighting, WEIGHTINGS)
        self.n, self.dim, self.n_classes = n, net.dim, net.n_classes
        self.labelled = net.class_weights is not None
        dtype = net.dtype
        self.parameters = np.array(net.parameters)
        self.gradient = np.zeros_like(self.parameters)
        self.passes = ResidualPasses(net.layout, self.parameters, self.gradient, n)
        self.axes, self.spreads = net.frame(dtype, head)
        self.n_components, self.sees_backbone = net.n_components, net.sees_backbone
        self.frequencies = net.frequencies
        self.share, self.spread = dtype.type(1.0 / n), dtype.type(head.spread)
        self.x, self.z, self.y, self.s, self.target = (np.zeros((n, self.dim), dtype) for _ in range(5))
        self.noise = np.zeros(-(-n * self.dim // 4) * 4, dtype)
        self.labels = np.full(n, -1)
        self.mix, self.scales = np.zeros((n, 4), dtype), np.zeros((n, 2), dtype)
        self.units, self.levels, self.weights, self.losses = (np.zeros(n, dtype) for _ in range(4))
        centre = net.centre(head)
        self.centre = (centre if self.axes is None else centre @ self.axes.astype(np.float64)).astype(dtype)
        # a multiple of four points, so that every tile starts at a block of the random stream
        self.tiles = [(p, min(CHUNK, n - p), p) for p in range(0, n, CHUNK)]
        cells = net.cells(dtype)
        self.block = None if cells is None else Block(cells, n)
        self.flops = net.layout.flops(n) + (4 * n * cells.matrix.size if cells is not None else 0)
        self.phases = self._phases()

    def levels_at(self, t: np.ndarray) -> tuple[np.ndarray, ...]:
        """What :meth:`take_levels` takes, for any number of times: (mix, scales, 1/B₀, c, weights)."""
        head = self.head
        alpha, _, sigma = head.noise(t)
        _, b, _, level = head.scalings(t)
        mix = np.stack([alpha, sigma, 0.0 * t, -1.0 / (sigma * b)], axis=-1)
        w = weight(self.weighting, head, t) * b**2
        values = (mix, np.stack([alpha, sigma**2], axis=-1), 1.0 / b, level, w)
        return tuple(np.asarray(value, self.x.dtype) for value in values)

    def take_levels(self, levels: tuple[np.ndarray, ...]) -> None:
        """The noise levels of the batch, from :meth:`levels_at`."""
        self.mix[:], self.scales[:], self.units[:], self.levels[:], self.weights[:] = levels

    def evaluate(
        self, x: Any, t: Any = 0.0, *, noise: Any, labels: Any = None, parameters: Any = None
    ) -> tuple[float, np.ndarray]:
        """The loss of one batch and its gradient, with x (n, d) and noise (n, d), in principal coordinates, given.

        For checks and experiments; training fills the same arrays from the random stream.
        """
        self.x[:] = x
        self.noise[: self.n * self.dim] = np.reshape(noise, -1)
        self.labels[:] = checked_labels(labels, self.n_classes, self.n)
        if parameters is not None:
            self.parameters[:] = parameters
        self.take_levels(self.levels_at(np.broadcast_to(np.asarray(t, dtype=np.float64), (self.n,))))
        with blas.single_threaded():
            run(self.phases)
        return float(self.losses.mean(dtype=np.float64)), self.gradient.copy()

    def _phases(self) -> list[Phase]:
        p = self.passes
        turn = [] if self.axes is None else [products(self.x, self.axes, self.z)]
        leading = slopes = np.zeros((self.n, 0), self.x.dtype)  # without a mixture no coordinate is a leading one
        backbone: list[Phase] = []
        if self.block is not None:
            leading, slopes, self.block.scales = self.block.u, self.block.out, self.scales
            if self.labelled:
                self.block.kinds = self.labels
            backbone = self.block.phases()
        divide = self._each(residual_kernels.divide, self.y, leading, self.spreads, self.scales, self.s)
        inputs = self._each(
            residual_kernels.inputs, self.y, slopes, self.s, self.spreads, self.scales, self.spread,
            self.n_components, self.sees_backbone, p.inputs,
        )  # fmt: skip
        loss = self._each(
            residual_kernels.regression, p.out, p.weights.leave_bias, self.s, self.target, self.spreads, self.scales,
            self.units, self.weights, self.share, p.back, self.losses,
        )  # fmt: skip
        enter: Phase = [functools.partial(self._enter, *tile[:2]) for tile in self.tiles]
        return [*turn, enter, divide, *backbone, inputs, *p.forward(), loss, *p.reverse(), *p.gradient()]

    def _each(self, function: Any, *arguments: Any) -> Phase:
        return [functools.partial(function, *arguments, p, p + n) for p, n, _ in self.tiles]

    def _enter(self, p0: int, n: int) -> None:
        """Noised points and what the score should be, and the conditions."""
        clean = self.x if self.axes is None else self.z
        kernels.noisy(clean, self.noise, self.centre, self.mix, self.y, self.target, p0, n)
        residual_kernels.conditions(
            self.levels, self.labels, self.frequencies, self.passes.conditions, p0, p0 + n
        )  # fmt: skip
