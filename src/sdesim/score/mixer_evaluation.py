r"""A patch mixer at work, in blocks of 256 rows.

With b the backbone's score at x, y = x − α m − β and F the network,

    s = b + B ∘ F(y/√(α² σ_d² + σ²), (y + σ² b)/(α σ_d)),    B_i = α sd_i/(σ √(α² sd_i² + σ²))

pixel by pixel. Derivatives follow the same path; that of b is a Hessian and acts alike from both sides.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..targets.cells import ROWS, Tangents
from . import mixer_kernels, residual_kernels
from .backbone_evaluation import BackboneEvaluator
from .mixer_passes import PICTURES, MixerPasses
from .passes import run


class MixerEvaluator(BackboneEvaluator):
    """The buffers of one thread for one network."""

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.spreads = net.pixel_spreads(self.dtype, self.head)
        self.passes = MixerPasses(net.layout, net.parameters)
        self.bias = np.array(self.passes.weights.leave_bias)

    # ---- the backbone

    def _blocks(self, rows: np.ndarray, t: Any, labels: np.ndarray, kept: bool = False) -> Iterator[slice]:
        """Where every block lies in the rows, with y, the noise levels and the backbone's s worked out."""
        shared = np.ndim(t) == 0
        for lo in range(0, len(rows), ROWS):
            where = slice(lo, min(lo + ROWS, len(rows)))
            n = where.stop - lo
            times = np.full(n, t) if shared else t[where]
            alpha, beta, sigma = self.head.noise(times)
            self.y[n:], self.scales[n:], self.levels[n:], self.classes[n:] = 0.0, 1.0, 0.0, -1
            self.y[:n] = rows[where] - (alpha[:, None] * self.centre + beta[:, None])
            self.scales[:n, 0], self.scales[:n, 1] = alpha, sigma**2
            self.levels[:n], self.classes[:n] = self.head.level(times), labels[where]
            # the whole block, so that a row has the same bits in any company
            z = self._turned(self.y)
            s = np.empty_like(z)
            residual_kernels.divide(z, self.leading, self.principal, self.scales, s, 0, ROWS)
            if kept and self.block is not None:
                self.bent = Tangents(self.block) if self.bent is None else self.bent
                run(self.bent.phases)
            else:
                run(self.phases)
            if self.block is not None:
                s[:, : self.leading.shape[1]] = self.block.out
            self.s[:] = self._turned_back(s)
            yield where

    def _hessian(self, v: np.ndarray) -> np.ndarray:
        """The derivative of the backbone's score along v (m, dim), for the first m rows of the block."""
        m = len(v)
        z = self._turned(v)
        found = -z / ((self.scales[:m, :1] * self.principal) ** 2 + self.scales[:m, 1:])
        if self.bent is not None:
            leading = self.leading.shape[1]
            found[:, :leading] = self.bent.along(z[:, :leading])
        return self._turned_back(found)

    # ---- the network, sixteen pictures at a time

    def _pictures(self, n: int) -> Iterator[slice]:
        """The parts of a block, with the network's forward pass done."""
        p = self.passes
        for lo in range(0, n, PICTURES):
            hi = lo + PICTURES
            mixer_kernels.views(self.y, self.s, self.scales, self.spread, p.views, lo)
            residual_kernels.conditions(
                self.levels[lo:hi], self.classes[lo:hi], self.frequencies, p.conditions, 0, PICTURES
            )  # fmt: skip
            p.forward()
            yield slice(lo, min(hi, n))

    def _gain(self, where: slice) -> np.ndarray:
        """B for rows of the block."""
        wide, noise = self.scales[where, :1] * self.spreads, self.scales[where, 1:]
        found: np.ndarray = wide / np.sqrt(noise * (wide**2 + noise))
        return found

    def _correct(self, part: slice, out: np.ndarray) -> None:
        m = part.stop - part.start
        out[:] = self.s[part]
        residual_kernels.correct(self.passes.out, self.bias, self.spreads, self.scales[part], out, 0, m)

    def score(self, rows: np.ndarray, t: Any, labels: np.ndarray) -> np.ndarray:
        """s at every row."""
        found = np.empty(rows.shape, self.dtype)
        for where in self._blocks(rows, t, labels):
            here = found[where]
            for part in self._pictures(len(here)):
                self._correct(part, here[part])
        return found

    def tangents(
        self, rows: np.ndarray, t: Any, directions: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """s and J vₖ for directions (m, n, dim)."""
        found, along = np.empty(rows.shape, self.dtype), np.empty(directions.shape, self.dtype)
        for where in self._blocks(rows, t, labels, kept=True):
            here, there = found[where], along[:, where]
            turned = [np.asarray(v[where], self.dtype) for v in directions]
            bent = [self._hessian(v) for v in turned]
            for part in self._pictures(len(here)):
                self._correct(part, here[part])
                gain, direction = self._gain(part), np.zeros_like(self.passes.views)
                for k, (v, of_s) in enumerate(zip(turned, bent, strict=True)):
                    self._seen(part, v[part], of_s[part], direction)
                    there[k, part] = of_s[part] + gain * self.passes.push(direction)[: part.stop - part.start]
        return found, along

    def _seen(self, part: slice, v: np.ndarray, of_s: np.ndarray, out: np.ndarray) -> None:
        """How the network's views move with x along v."""
        m = len(v)
        unit, noise = self.scales[part, :1] * self.spread, self.scales[part, 1:]
        out[0, :m] = v / np.sqrt(unit**2 + noise)
        if len(out) > 1:
            out[1, :m] = (v + noise * of_s) / unit

    def reverse(
        self, rows: np.ndarray, t: Any, cotangents: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """s and vᵀJ."""
        found, back = np.empty(rows.shape, self.dtype), np.empty(rows.shape, self.dtype)
        for where in self._blocks(rows, t, labels, kept=True):
            here, there, v = found[where], back[where], np.asarray(cotangents[where], self.dtype)
            of_s = np.array(v)
            for part in self._pictures(len(here)):
                m = part.stop - part.start
                self._correct(part, here[part])
                self.passes.back[m:], self.passes.back[:m] = 0.0, self._gain(part) * v[part]
                self.passes.reverse()
                pull = self.passes.reach_views()
                unit, noise = self.scales[part, :1] * self.spread, self.scales[part, 1:]
                there[part] = pull[0, :m] / np.sqrt(unit**2 + noise)
                if len(pull) > 1:
                    of_mean = pull[1, :m] / unit
                    there[part] += of_mean
                    of_s[part] += noise * of_mean
            there += self._hessian(of_s)
        return found, back

    def divergence(self, rows: np.ndarray, t: Any, labels: np.ndarray) -> np.ndarray:
        """tr J by a tangent for each dimension."""
        n, d = rows.shape
        found = np.zeros(n)
        for i in range(d):
            unit = np.zeros((1, n, d), self.dtype)
            unit[:, :, i] = 1.0
            found += self.tangents(rows, t, unit, labels)[1][0, :, i]
        return found
