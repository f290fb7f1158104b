"""A network at work: scores, tangents and reverse passes of any number of rows, in blocks of 256.

Every block runs the same products of 256 rows, filled up with zeros where there are fewer. A time that all rows share
enters as a bias: its features are multiplied with their weights once, not once a row.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.blas import staggered
from . import activations, kernels
from .head import Head
from .layout import Layout

BLOCK = 256


class Evaluator:
    """The buffers of one thread for one network."""

    def __init__(
        self, layout: Layout, activation: str, parameters: np.ndarray, head: Head, frequencies: np.ndarray
    ) -> None:
        self.layout, self.head, self.frequencies = layout, head, frequencies
        self.dtype = parameters.dtype
        matrices, biases = layout.views(parameters)
        self.W = [staggered(matrix) for matrix in matrices]
        self.b = [np.array(bias) for bias in biases]  # the kernels are compiled for memory that may be written
        self.phi = activations.kernels(activation, self.dtype)
        self.first = self.W[0][: layout.dim]
        self.shift = np.array(self.b[0])
        self.inp = np.zeros((BLOCK, layout.dim + layout.n_features), self.dtype)
        self.x = np.zeros((BLOCK, layout.dim), self.dtype)
        self.H = [np.zeros((BLOCK, width), self.dtype) for width in layout.hidden]
        self.out = np.zeros((BLOCK, layout.n_outputs), self.dtype)
        self.factor: np.ndarray | None = None  # of the divergence
        self._slopes: list[np.ndarray] | None = None
        self._spare: list[np.ndarray] | None = None

    @property
    def slopes(self) -> list[np.ndarray]:
        """φ′ of every hidden layer, of the last block entered with them."""
        if self._slopes is None:
            self._slopes = [np.zeros_like(h) for h in self.H]
        return self._slopes

    @property
    def spare(self) -> list[np.ndarray]:
        """Memory of the shape of every hidden layer, for tangents and gradients."""
        if self._spare is None:
            self._spare = [np.zeros_like(h) for h in self.H]
        return self._spare

    def blocks(self, rows: np.ndarray, t: Any, slopes: bool = False) -> Iterator[tuple[slice, np.ndarray, Any, Any]]:
        """Run every block forward: (where, A y, B, B C), with the network's output in ``out`` and φ′ in ``slopes``.

        A and B stand for numbers, or columns where every row has its time.
        """
        shared = np.ndim(t) == 0
        scalings = self._scalings(np.asarray(t, dtype=np.float64), rows) if shared else None
        for lo in range(0, len(rows), BLOCK):
            where = slice(lo, min(lo + BLOCK, len(rows)))
            n = where.stop - lo
            a, b, c, level, shift = scalings or self._scalings(t[where], rows)
            y = rows[where] - shift
            if shared:
                self.x[:n] = c * y
                self.x[n:] = 0.0
                if lo == 0:
                    self._fold(level)
                self._forward(self.x, self.first, self.shift, slopes)
            else:
                self.inp[:n, : self.layout.dim] = c * y
                self.inp[n:, : self.layout.dim] = 0.0
                if self.layout.n_features:
                    levels = np.zeros(BLOCK, self.dtype)
                    levels[:n] = level[:, 0]
                    kernels.fourier(levels, self.frequencies, self.inp, self.layout.dim, 0, 0, BLOCK)
                self._forward(self.inp, self.W[0], self.b[0], slopes)
            yield where, a * y, b, b * c

    def _scalings(self, t: np.ndarray, rows: np.ndarray) -> tuple[Any, ...]:
        """A, B, C, c and the shift, in the type of the rows; columns for times (n,)."""
        kind = rows.dtype if rows.dtype.kind == "f" else np.dtype(np.float64)
        shift = np.asarray(self.head.shift(t), kind)
        found = self.head.scalings(t)
        if t.ndim == 0:
            return (*(kind.type(value) for value in found), shift)
        return (*(np.asarray(value, kind)[:, None] for value in found), shift)

    def shifts(self, levels: np.ndarray) -> np.ndarray:
        """The first layer's bias at every noise level, features and all, (n, width)."""
        found = np.empty((len(levels), len(self.shift)), self.dtype)
        for row, level in zip(found, levels.tolist(), strict=True):
            self._fold(level)
            row[:] = self.shift
        return found

    def _fold(self, level: Any) -> None:
        """The first layer's bias at one noise level."""
        self.shift[:] = self.b[0]
        if self.layout.n_features:
            row = np.zeros((1, self.layout.n_features), self.dtype)
            kernels.fourier(np.full(1, level, self.dtype), self.frequencies, row, 0, 0, 0, 1)
            self.shift += (row @ self.W[0][self.layout.dim :])[0]

    def _forward(self, source: np.ndarray, first: np.ndarray, bias: np.ndarray, slopes: bool) -> None:
        for i, h in enumerate(self.H):
            np.matmul(source, first if i == 0 else self.W[i], out=h)
            shift = bias if i == 0 else self.b[i]
            if slopes:
                self.phi.slope(h, shift, self.slopes[i], 0, BLOCK, 0, h.shape[1])
            else:
                self.phi.value(h, shift, 0, BLOCK, 0, h.shape[1])
            source = h
        np.matmul(source, self.W[-1], out=self.out)
        kernels.add_bias(self.out, self.b[-1], 0, BLOCK)

    def score(self, rows: np.ndarray, t: Any) -> np.ndarray:
        """s at every row."""
        found = np.empty(rows.shape, rows.dtype if rows.dtype.kind == "f" else np.float64)
        if np.ndim(t) == 0:
            # what samplers ask for: the head in two loops, where the arrays of NumPy would each be fetched anew
            a, b, c, level, shift = self._scalings(np.asarray(t, dtype=np.float64), rows)
            centre = np.array(np.broadcast_to(shift, (self.layout.dim,)))
            self._fold(level)
            for lo in range(0, len(rows), BLOCK):
                part = np.ascontiguousarray(rows[lo : lo + BLOCK], found.dtype)
                kernels.head_in(part, centre, c, self.x)
                self._forward(self.x, self.first, self.shift, False)
                kernels.head_out(part, centre, a, b, self.out, found[lo : lo + BLOCK])
            return found
        for where, straight, b, _ in self.blocks(rows, t):
            found[where] = straight + b * self.out[: where.stop - where.start]
        return found

    def push(self, direction: np.ndarray) -> np.ndarray:
        """J_F v of the block entered last (with slopes), v (n, dim) before the head; a view of ``out``."""
        self.x[: len(direction)] = direction
        self.x[len(direction) :] = 0.0
        source = self.x
        for i, (t, slope) in enumerate(zip(self.spare, self.slopes, strict=True)):
            np.matmul(source, self.first if i == 0 else self.W[i], out=t)
            t *= slope
            source = t
        return np.matmul(source, self.W[-1], out=self.out)[: len(direction)]

    def pull(self, cotangent: np.ndarray) -> np.ndarray:
        """vᵀJ_F of the block entered last (with slopes); a view of ``x``."""
        self.out[: len(cotangent)] = cotangent
        self.out[len(cotangent) :] = 0.0
        source = self.out
        for i in range(len(self.H), 0, -1):
            np.matmul(source, self.W[i].T, out=self.spare[i - 1])
            self.spare[i - 1] *= self.slopes[i - 1]
            source = self.spare[i - 1]
        return np.matmul(source, self.first.T, out=self.x)[: len(cotangent)]

    def tangents(self, rows: np.ndarray, t: Any, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and J vₖ for directions (m, n, dim)."""
        found, along = np.empty(rows.shape), np.empty(directions.shape)
        a_rows = self._straight(t, rows)
        for where, straight, b, bc in self.blocks(rows, t, slopes=True):
            n = where.stop - where.start
            found[where] = straight + b * self.out[:n]
            for k, v in enumerate(directions):
                along[k, where] = a_rows[where] * v[where] + bc * self.push(v[where])
        return found, along

    def reverse(self, rows: np.ndarray, t: Any, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and vᵀJ."""
        found, back = np.empty(rows.shape), np.empty(rows.shape)
        a_rows = self._straight(t, rows)
        for where, straight, b, bc in self.blocks(rows, t, slopes=True):
            n = where.stop - where.start
            found[where] = straight + b * self.out[:n]
            v = cotangents[where]
            back[where] = a_rows[where] * v + bc * self.pull(v)
        return found, back

    def _straight(self, t: Any, rows: np.ndarray) -> np.ndarray:
        """A, a column for all rows."""
        a = self.head.scalings(np.asarray(t, dtype=np.float64))[0]
        return np.broadcast_to(np.reshape(a, (-1, 1)), (len(rows), 1))
