r"""Layers of 3 x 3 convolutions with ReLUs, as matrix products, with their reverse pass.

A convolution with padding 1 and stride s is one product: every output pixel's 3 x 3 neighbourhood becomes a row of
9 C numbers, z = rows W + b. Channels come last, so that three neighbours lie side by side in memory and a row is three
copies. The rows are nine times the picture: they are made for a few pictures at a time, in memory that stays in the
second-level cache, and made again for the weights' gradient, which is cheaper than to read them back.

Pictures are handled in **tiles** of 16, which share nothing: each has a gradient of its own, and those are summed in
order. The result does not depend on the number of threads.
"""

import functools
import threading
from typing import NamedTuple

import numpy as np

from ..core.cache import kernel
from ..core.elementary import wide_vectors
from ..score import activations, kernels
from ..score.passes import Phase, each

TILE = 16


class Convolution(NamedTuple):
    """One layer: pictures (height, width, channels) to (rows, columns, outputs), 3 x 3 with padding 1."""

    height: int
    width: int
    channels: int
    outputs: int
    stride: int

    @property
    def rows(self) -> int:
        """The height of the result."""
        return (self.height - 1) // self.stride + 1

    @property
    def columns(self) -> int:
        """The width of the result."""
        return (self.width - 1) // self.stride + 1

    @property
    def size(self) -> int:
        """The number of parameters: W (9 channels, outputs), then b."""
        return (9 * self.channels + 1) * self.outputs


def chain(shape: tuple[int, ...], channels: tuple[int, ...], strides: tuple[int, ...]) -> list[Convolution]:
    """Convolutions one after the other, on pictures of ``shape``."""
    height, width, before = shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    layers = []
    for outputs, stride in zip(channels, strides, strict=True):
        layers.append(Convolution(height, width, before, outputs, stride))
        height, width, before = layers[-1].rows, layers[-1].columns, outputs
    return layers


@kernel
def unfold(x, stride, out):
    """Neighbourhoods of pictures x (n, h, w, C) as rows of ``out`` (n · rows · columns, 9 C); 0 beyond the border."""
    wide_vectors()
    n, h, w, c = x.shape
    rows, columns = (h - 1) // stride + 1, (w - 1) // stride + 1
    lines, numbers = x.reshape(n * h, w * c), out.reshape(n * rows, columns * 9 * c)
    zero = x.dtype.type(0.0)
    for p in range(n):
        for i in range(rows):
            line = numbers[p * rows + i]
            for k in range(3):
                u = i * stride + k - 1
                if u < 0 or u >= h:
                    for j in range(columns):
                        line[9 * c * j + 3 * c * k : 9 * c * j + 3 * c * (k + 1)] = zero
                    continue
                source = lines[p * h + u]
                for j in range(columns):
                    at, left = 9 * c * j + 3 * c * k, (j * stride - 1) * c
                    if left >= 0 and left + 3 * c <= w * c:
                        for q in range(3 * c):
                            line[at + q] = source[left + q]
                    else:
                        for q in range(3 * c):
                            line[at + q] = source[left + q] if 0 <= left + q < w * c else zero


@kernel
def fold(rows_of, stride, x):
    """The transpose of :func:`unfold`: every number of a row is added to the pixel that it came from."""
    wide_vectors()
    n, h, w, c = x.shape
    rows, columns = (h - 1) // stride + 1, (w - 1) // stride + 1
    lines, numbers = x.reshape(n * h, w * c), rows_of.reshape(n * rows, columns * 9 * c)
    lines[:] = x.dtype.type(0.0)
    for p in range(n):
        for i in range(rows):
            line = numbers[p * rows + i]
            for k in range(max(0, 1 - i * stride), min(3, h + 1 - i * stride)):
                target = lines[p * h + i * stride + k - 1]
                for j in range(columns):
                    at, left = 9 * c * j + 3 * c * k, (j * stride - 1) * c
                    first, last = max(0, -left), min(3 * c, w * c - left)
                    # views, whose indices start at 0: the loop becomes vectors
                    into, source = target[left + first : left + last], line[at + first : at + last]
                    for q in range(into.shape[0]):
                        into[q] += source[q]


@kernel
def reverse_relu(d, h, part):
    """Gradients through a ReLU with the results h: d ← d where h > 0, else 0; ``part`` receives the column sums."""
    wide_vectors()
    zero = d.dtype.type(0.0)
    part[:] = zero
    for i in range(d.shape[0]):
        row, result = d[i], h[i]
        for j in range(row.shape[0]):
            v = row[j] if result[j] > zero else zero
            row[j] = v
            part[j] += v


class Stem:
    """Buffers for n pictures and the phases of the convolutions that a network begins with.

    Attributes
    ----------
    x : (n, pixels), the pictures
    h : the result of every layer, (n, rows, columns, outputs)
    out, d_out : (n, features): the last result as rows, and where its gradient is put before the reverse pass
    """

    def __init__(self, layers: list[Convolution], parameters: np.ndarray, gradient: np.ndarray, n: int) -> None:
        dtype = parameters.dtype
        self.layers, self.n = layers, n
        self.phi = activations.kernels("relu", dtype)
        self.W, self.b = _views(layers, parameters)
        size = sum(layer.size for layer in layers)
        self.gradient = gradient[:size]
        first = layers[0]
        self.x = np.zeros((n, first.height * first.width * first.channels), dtype)
        self.h = [np.zeros((n, layer.rows, layer.columns, layer.outputs), dtype) for layer in layers]
        self.out = self.h[-1].reshape(n, -1)
        self.d_out = np.zeros_like(self.out)
        tiles = [(k, lo, min(lo + TILE, n)) for k, lo in enumerate(range(0, n, TILE))]
        self.parts = np.zeros((len(tiles), size), dtype)
        self.room = threading.local()
        self.forward: list[Phase] = [each(self._forward, [(lo, hi) for _, lo, hi in tiles])]
        self.reverse: list[Phase] = [
            each(self._reverse, tiles), [functools.partial(kernels.add_rows, self.parts, self.gradient)]
        ]  # fmt: skip

    def _rows(self, layer: Convolution, n: int) -> np.ndarray:
        """Memory of this thread for the neighbourhoods of n pictures."""
        shape = (n * layer.rows * layer.columns, 9 * layer.channels)
        memory = getattr(self.room, "memory", None)
        if memory is None:
            largest = max(TILE * one.rows * one.columns * 9 * one.channels for one in self.layers)
            memory = self.room.memory = np.zeros(largest, self.x.dtype)
        return memory[: shape[0] * shape[1]].reshape(shape)

    def _input(self, i: int, lo: int, hi: int) -> np.ndarray:
        layer = self.layers[i]
        source = self.h[i - 1] if i else self.x.reshape(self.n, layer.height, layer.width, layer.channels)
        return source[lo:hi]

    def _forward(self, lo: int, hi: int) -> None:
        for i, layer in enumerate(self.layers):
            rows = self._rows(layer, hi - lo)
            unfold(self._input(i, lo, hi), layer.stride, rows)
            z = self.h[i][lo:hi].reshape(len(rows), layer.outputs)
            np.matmul(rows, self.W[i], out=z)
            self.phi.value(z, self.b[i], 0, len(z), 0, layer.outputs)

    def _reverse(self, k: int, lo: int, hi: int) -> None:
        d = self.d_out[lo:hi]
        weights, biases = _views(self.layers, self.parts[k])
        for i in range(len(self.layers) - 1, -1, -1):
            layer, source = self.layers[i], self._input(i, lo, hi)
            rows = self._rows(layer, hi - lo)
            d = d.reshape(len(rows), layer.outputs)
            reverse_relu(d, self.h[i][lo:hi].reshape(d.shape), biases[i])
            unfold(source, layer.stride, rows)
            np.matmul(rows.T, d, out=weights[i])
            if i:
                np.matmul(d, self.W[i].T, out=rows)
                d = np.empty(source.shape, d.dtype)
                fold(rows, layer.stride, d)


def _views(layers: list[Convolution], flat: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The matrices and the biases in a vector of parameters, or of their gradient."""
    weights, biases, start = [], [], 0
    for layer in layers:
        middle, stop = start + layer.size - layer.outputs, start + layer.size
        weights.append(flat[start:middle].reshape(9 * layer.channels, layer.outputs))
        biases.append(flat[middle:stop])
        start = stop
    return weights, biases
