r"""A residual network at work, in blocks of 256 rows.

In principal coordinates z = Aᵀ(x − α m − β), with b the backbone's score there, p the SNR weights and F the network,

    s_z = b + B ∘ F(i),    i = (p ∘ z, (z + σ² b)/(α σ_d)),

and A s_z is the answer. Derivatives follow the same path; that of b is a Hessian and acts alike from both sides.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..targets.cells import ROWS, Tangents
from . import residual_kernels
from .backbone_evaluation import BackboneEvaluator
from .passes import run
from .residual_passes import ResidualPasses


class ResidualEvaluator(BackboneEvaluator):
    """The buffers of one thread for one network."""

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.spreads = self.principal
        self.passes = ResidualPasses(net.layout, net.parameters, None, ROWS)
        self.last_bias = np.array(self.passes.weights.leave_bias)
        self.forward = self.passes.forward()
        self.backward = self.passes.reverse() + self.passes.reach_inputs()

    def _blocks(self, rows: np.ndarray, t: Any, labels: np.ndarray, kept: bool = False) -> Iterator[tuple[slice, Any]]:
        """(where, (α, σ², B)) of every block, with s and the network's output worked out, without the correction."""
        net = self.net
        shared = np.ndim(t) == 0
        for lo in range(0, len(rows), ROWS):
            where = slice(lo, min(lo + ROWS, len(rows)))
            n = where.stop - lo
            times = np.full(n, t) if shared else t[where]
            alpha, beta, sigma = self.head.noise(times)
            self.y[n:], self.scales[n:], self.levels[n:], self.classes[n:] = 0.0, 1.0, 0.0, -1
            self.y[:n] = rows[where] - (alpha[:, None] * self.centre + beta[:, None])
            if self.axes is not None:
                # the whole block, so that a row has the same bits in any company
                self.y[:] = self.y @ self.axes
            self.scales[:n, 0], self.scales[:n, 1] = alpha, sigma**2
            self.levels[:n], self.classes[:n] = self.head.level(times), labels[where]
            residual_kernels.divide(self.y, self.leading, self.spreads, self.scales, self.s, 0, ROWS)
            if kept and self.block is not None:
                self.bent = Tangents(self.block) if self.bent is None else self.bent
                run(self.bent.phases)
            else:
                run(self.phases)
            p = self.passes
            residual_kernels.inputs(
                self.y, self.slopes, self.s, self.spreads, self.scales, self.spread, net.n_components,
                net.sees_backbone, p.inputs, 0, ROWS,
            )  # fmt: skip
            residual_kernels.conditions(self.levels, self.classes, self.frequencies, p.conditions, 0, ROWS)
            run(self.forward)
            wide = self.scales[:n, :1] * self.spreads
            noise = self.scales[:n, 1:]
            yield where, (self.scales[:n, :1], noise, wide, wide / np.sqrt(noise * (wide**2 + noise)))

    def _answer(self, n: int) -> np.ndarray:
        """The scores of a block, in the coordinates of x."""
        found = self.s.copy()
        residual_kernels.correct(self.passes.out, self.last_bias, self.spreads, self.scales, found, 0, ROWS)
        return self._turned_back(found)[:n]

    def _hessian(self, v: np.ndarray, noise: np.ndarray, wide: np.ndarray) -> np.ndarray:
        """The derivative of the backbone's score along v, in principal coordinates."""
        found = -v / (wide**2 + noise)
        if self.bent is not None:
            m = self.leading.shape[1]
            found[:, :m] = self.bent.along(v[:, :m])
        return found

    def score(self, rows: np.ndarray, t: Any, labels: np.ndarray) -> np.ndarray:
        """s at every row."""
        found = np.empty(rows.shape, self.dtype)
        for where, _ in self._blocks(rows, t, labels):
            found[where] = self._answer(where.stop - where.start)
        return found

    def tangents(
        self, rows: np.ndarray, t: Any, directions: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """s and J vₖ for directions (m, n, dim)."""
        found, along = np.empty(rows.shape, self.dtype), np.empty(directions.shape, self.dtype)
        for where, parts in self._blocks(rows, t, labels, kept=True):
            found[where] = self._answer(where.stop - where.start)
            for k, v in enumerate(directions):
                along[k, where] = self._turned_back(self._along(self._turned(v[where]), *parts))
        return found, along

    def _along(self, v: np.ndarray, alpha: Any, noise: Any, wide: Any, gain: Any) -> np.ndarray:
        """J v for v (n, dim), in principal coordinates."""
        c = self.net.n_components
        of_s = self._hessian(v, noise, wide)
        moved = np.zeros((len(v), self.net.layout.n_inputs), self.dtype)
        moved[:, :c] = (wide / (wide**2 + noise) * v)[:, :c]
        if self.net.sees_backbone:
            moved[:, c:] = ((v + noise * of_s) / (alpha * self.spread))[:, :c]
        return of_s + gain * self.passes.push(moved)

    def reverse(
        self, rows: np.ndarray, t: Any, cotangents: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """s and vᵀJ."""
        found, back = np.empty(rows.shape, self.dtype), np.empty(rows.shape, self.dtype)
        c = self.net.n_components
        for where, (alpha, noise, wide, gain) in self._blocks(rows, t, labels, kept=True):
            n = where.stop - where.start
            found[where] = self._answer(n)
            v = self._turned(cotangents[where])
            self.passes.back[:n], self.passes.back[n:] = gain * v, 0.0
            run(self.backward)
            pull = self.passes.of_inputs[:n]
            of_s, of_y = np.array(v), np.zeros_like(v)
            of_y[:, :c] = (wide / (wide**2 + noise))[:, :c] * pull[:, :c]
            if self.net.sees_backbone:
                of_mean = pull[:, c:] / (alpha * self.spread)
                of_y[:, :c] += of_mean
                of_s[:, :c] += noise * of_mean
            back[where] = self._turned_back(of_y + self._hessian(of_s, noise, wide))
        return found, back

    def divergence(self, rows: np.ndarray, t: Any, labels: np.ndarray) -> np.ndarray:
        """tr J by a tangent for each dimension (the trace is the same in principal coordinates)."""
        found, d = np.zeros(len(rows)), self.net.dim
        for where, parts in self._blocks(rows, t, labels, kept=True):
            for i in range(d):
                unit = np.zeros((where.stop - where.start, d), self.dtype)
                unit[:, i] = 1.0
                found[where] += self._along(unit, *parts)[:, i]
        return found
