"""Denoising score matching of a network that corrects a backbone: what does not depend on the network.

    w ½ |b + B ∘ F + ε/σ|²,    x̃ = α x + σ ε

where b is the backbone's score, which no parameter moves.
"""

import functools
from typing import Any

import numpy as np

from ..core import blas, checks
from ..targets.cells import CHUNK, Block
from .base import checked_labels
from .head import Head
from .objectives import NAMES, WEIGHTINGS, weight
from .passes import Phase, run


class BackboneObjective:
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
        kind = type(net).__name__
        if checks.choice("objective", name, NAMES) != "denoising":
            raise ValueError(
                f"a {kind} learns by denoising; objective={name!r} needs the derivative passes of a ScoreMLP"
            )
        if head.process is None:
            raise ValueError("denoising needs noise: give a process, or sigma for one level")
        if head.kind != "edm":
            raise ValueError(
                f"a {kind} corrects what its backbone denoises, which is prediction='edm'; got {head.kind!r}"
            )
        self.weighting = checks.choice("weighting", weighting, WEIGHTINGS)
        self.n, self.dim, self.n_classes = n, net.dim, net.n_classes
        dtype = net.dtype
        self.parameters = np.array(net.parameters)
        self.gradient = np.zeros_like(self.parameters)
        self.axes, self.principal = net.frame(dtype, head)
        self.frequencies = net.frequencies
        self.share, self.spread = dtype.type(1.0 / n), dtype.type(head.spread)
        self.x, self.y, self.s, self.target = (np.zeros((n, self.dim), dtype) for _ in range(4))
        self.noise = np.zeros(-(-n * self.dim // 4) * 4, dtype)
        self.labels = np.full(n, -1)
        self.mix, self.scales = np.zeros((n, 4), dtype), np.zeros((n, 2), dtype)
        self.units, self.levels, self.weights, self.losses = (np.zeros(n, dtype) for _ in range(4))
        # a multiple of four points, so that every tile starts at a block of the random stream
        self.tiles = [(p, min(CHUNK, n - p), p) for p in range(0, n, CHUNK)]
        cells = net.cells(dtype)
        self.block = None if cells is None else Block(cells, n)
        # without a mixture no coordinate is a leading one
        self.leading = self.slopes = np.zeros((n, 0), dtype)
        self.backbone: list[Phase] = []
        if self.block is not None:
            self.leading, self.slopes, self.block.scales = self.block.u, self.block.out, self.scales
            if net.class_weights is not None:
                self.block.kinds = self.labels
            self.backbone = self.block.phases()
        self.flops = net.layout.flops(n) + (4 * n * cells.matrix.size if cells is not None else 0)

    phases: list[Phase]

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
        """The loss of one batch and its gradient for given x (n, d) and noise (n, d), in the objective's coordinates.

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

    def _each(self, function: Any, *arguments: Any) -> Phase:
        return [functools.partial(function, *arguments, p, p + n) for p, n, _ in self.tiles]
