r"""Denoising score matching of a patch mixer, pixel by pixel.

The backbone works in principal coordinates, the network on pixels: noised points are turned there, and the backbone's
score is turned back. After that every block of pictures goes through the network and back by itself.
"""

import functools
from typing import Any

import numpy as np

from ..core import blas
from ..targets.cells import products
from . import kernels, mixer_kernels, residual_kernels
from .backbone_objective import BackboneObjective
from .mixer_layout import MixerLayout
from .mixer_passes import PICTURES, MixerPasses
from .passes import Phase

_SPAN = 2**16  # parameters whose gradients one task sums
_PARTS = 16  # runs of blocks, each with a gradient of its own


class MixerObjective(BackboneObjective):
    """Of a ``MixerMLP``; noise, targets and scores are in the coordinates of x."""

    def __init__(self, net: Any, n: int, name: str = "denoising", **options: Any) -> None:
        super().__init__(net, n, name, **options)
        layout: MixerLayout = net.layout
        self.layout = layout
        self.centre = net.centre(self.head).astype(net.dtype)
        self.spreads = net.pixel_spreads(net.dtype, self.head)
        self.z, self.turned = (np.zeros_like(self.x) for _ in range(2))
        if self.axes is None:
            self.z, self.turned = self.y, self.s
        blocks = [(lo, min(lo + PICTURES, n)) for lo in range(0, n, PICTURES)]
        self.runs = [blocks[lo:hi] for lo, hi in blas.spans(len(blocks), -(-len(blocks) // _PARTS))]
        self.parts = np.zeros((len(self.runs), layout.size), net.dtype)
        self.bias = layout.views(self.parameters).leave_bias
        self.free: list[tuple[MixerPasses, np.ndarray]] = []  # as many as there are threads at work
        self.phases = self._phases()

    def _phases(self) -> list[Phase]:
        there = [] if self.axes is None else [products(self.y, self.axes, self.z)]
        back = [] if self.axes is None else [products(self.turned, self.axes.T, self.s)]
        enter: Phase = [functools.partial(self._enter, *tile[:2]) for tile in self.tiles]
        divide = self._each(residual_kernels.divide, self.z, self.leading, self.principal, self.scales, self.turned)
        join = self._each(self._join)
        learn: Phase = [functools.partial(self._run, *one) for one in zip(self.parts, self.runs, strict=True)]
        spans = [slice(lo, lo + _SPAN) for lo in range(0, self.layout.size, _SPAN)]
        total: Phase = [functools.partial(self._sum, span) for span in spans]
        return [enter, *there, divide, *self.backbone, join, *back, learn, total]

    def _enter(self, p0: int, n: int) -> None:
        """Noised points and what the score should be."""
        kernels.noisy(self.x, self.noise, self.centre, self.mix, self.y, self.target, p0, n)

    def _join(self, lo: int, hi: int) -> None:
        """The mixture's scores in their place among the coordinates."""
        self.turned[lo:hi, : self.slopes.shape[1]] = self.slopes[lo:hi]

    def _run(self, part: np.ndarray, blocks: list[tuple[int, int]]) -> None:
        """Losses of some blocks of pictures, and the sum of their gradients."""
        try:
            passes, spare = self.free.pop()
        except IndexError:
            passes, spare = MixerPasses(self.layout, self.parameters), np.empty_like(self.parameters)
        self._learn(passes, *blocks[0], part)
        for block in blocks[1:]:
            self._learn(passes, *block, spare)
            part += spare
        self.free.append((passes, spare))

    def _learn(self, passes: MixerPasses, lo: int, hi: int, gradient: np.ndarray) -> None:
        n = hi - lo
        if n < PICTURES:  # what is there of another block must not reach the gradient
            passes.views[:, n:], passes.conditions[n:], passes.back[n:] = 0, 0, 0
        mixer_kernels.views(self.y, self.s, self.scales, self.spread, passes.views[:, :n], lo)
        residual_kernels.conditions(
            self.levels[lo:hi], self.labels[lo:hi], self.frequencies, passes.conditions, 0, n
        )  # fmt: skip
        passes.forward()
        residual_kernels.regression(
            passes.out, self.bias, self.s[lo:hi], self.target[lo:hi], self.spreads, self.scales[lo:hi],
            self.units[lo:hi], self.weights[lo:hi], self.share, passes.back, self.losses[lo:hi], 0, n,
        )  # fmt: skip
        passes.reverse(self.layout.views(gradient))

    def _sum(self, span: slice) -> None:
        self.parts[:, span].sum(axis=0, out=self.gradient[span])
