r"""Denoising score matching of a residual network, in principal coordinates.

The noise is as normal there as in any: points are turned once, after that a step is element by element but for the
backbone's and the network's products.
"""

import functools
from typing import Any

import numpy as np

from ..targets.cells import products
from . import kernels, residual_kernels
from .backbone_objective import BackboneObjective
from .passes import Phase
from .residual_passes import ResidualPasses


class ResidualObjective(BackboneObjective):
    """Of a ``ResidualMLP``; noise, targets and scores are in the coordinates of the backbone's axes."""

    def __init__(self, net: Any, n: int, name: str = "denoising", **options: Any) -> None:
        super().__init__(net, n, name, **options)
        self.passes = ResidualPasses(net.layout, self.parameters, self.gradient, n)
        self.n_components, self.sees_backbone = net.n_components, net.sees_backbone
        self.z = np.zeros_like(self.x)
        centre = net.centre(self.head)
        self.centre = (centre if self.axes is None else centre @ self.axes.astype(np.float64)).astype(net.dtype)
        self.phases = self._phases()

    def _phases(self) -> list[Phase]:
        p = self.passes
        turn = [] if self.axes is None else [products(self.x, self.axes, self.z)]
        divide = self._each(residual_kernels.divide, self.y, self.leading, self.principal, self.scales, self.s)
        inputs = self._each(
            residual_kernels.inputs, self.y, self.slopes, self.s, self.principal, self.scales, self.spread,
            self.n_components, self.sees_backbone, p.inputs,
        )  # fmt: skip
        loss = self._each(
            residual_kernels.regression, p.out, p.weights.leave_bias, self.s, self.target, self.principal, self.scales,
            self.units, self.weights, self.share, p.back, self.losses,
        )  # fmt: skip
        enter: Phase = [functools.partial(self._enter, *tile[:2]) for tile in self.tiles]
        return [*turn, enter, divide, *self.backbone, inputs, *p.forward(), loss, *p.reverse(), *p.gradient()]

    def _enter(self, p0: int, n: int) -> None:
        """Noised points and what the score should be, and the conditions."""
        clean = self.x if self.axes is None else self.z
        kernels.noisy(clean, self.noise, self.centre, self.mix, self.y, self.target, p0, n)
        residual_kernels.conditions(
            self.levels, self.labels, self.frequencies, self.passes.conditions, p0, p0 + n
        )  # fmt: skip
