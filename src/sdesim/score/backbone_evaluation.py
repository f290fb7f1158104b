"""The part of an evaluator that knows the backbone: its buffers for blocks of 256 rows, and its coordinates."""

from typing import Any

import numpy as np

from ..targets.cells import ROWS, Block, Tangents


class BackboneEvaluator:
    """The buffers of one thread for the closed-form part of one network."""

    def __init__(self, net: Any) -> None:
        self.net, self.head, self.dtype = net, net.head, net.dtype
        self.axes, self.principal = net.frame(self.dtype)
        self.centre = net.centre(self.head)
        self.spread = self.dtype.type(self.head.spread)
        self.frequencies = net.frequencies
        self.levels, self.classes = np.zeros(ROWS, self.dtype), np.full(ROWS, -1)
        cells = net.cells(self.dtype)
        self.block = None if cells is None else Block(cells)
        self.bent: Tangents | None = None
        self.y, self.s = (np.zeros((ROWS, net.dim), self.dtype) for _ in range(2))
        self.scales = np.ones((ROWS, 2), self.dtype)
        # without a mixture no coordinate is a leading one
        self.leading = np.zeros((ROWS, 0), self.dtype) if self.block is None else self.block.u
        self.slopes = self.leading if self.block is None else self.block.out
        if self.block is not None:
            self.block.scales = self.scales
            if net.class_weights is not None:
                self.block.kinds = self.classes
        self.phases = [] if self.block is None else self.block.phases()

    def _turned(self, v: np.ndarray) -> np.ndarray:
        v = np.asarray(v, self.dtype)
        return v if self.axes is None else v @ self.axes

    def _turned_back(self, v: np.ndarray) -> np.ndarray:
        return v if self.axes is None else v @ self.axes.T
