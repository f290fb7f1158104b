r"""Networks that name the class of a picture: convolutions or none, dense layers with ReLUs, a softmax.

A network is an :class:`Architecture` and one vector of parameters: those of the convolutions (``convolution.Stem``),
then those of the dense layers, which are the passes that scores are trained with (``score.passes.Passes``). The loss is
the cross entropy −ln p_y, whose gradient in the last layer's z is p − e_y.
"""

import dataclasses
import math

import numpy as np

from ..core import stream
from ..core.cache import kernel
from ..core.functions import exp, log
from ..score.base import WEIGHTS
from ..score.layout import Layout
from ..score.passes import ROWS, Passes, Phase, columns, each
from .convolution import Convolution, Stem, chain


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a classifier is made of.

    Parameters
    ----------
    shape : (height, width) or (height, width, colours)
        Of a picture.
    channels, strides : tuples of int
        Of the convolutions; empty for none.
    hidden : tuple of int
        Widths of the dense layers before the last.
    n_classes : int
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: tuple[int, ...]
    n_classes: int

    @property
    def dim(self) -> int:
        """The numbers of a picture."""
        return math.prod(self.shape)

    @property
    def convolutions(self) -> list[Convolution]:
        """The layers of the stem."""
        return chain(self.shape, self.channels, self.strides)

    @property
    def dense(self) -> Layout:
        """The dense layers."""
        last = self.convolutions[-1] if self.channels else None
        inputs = last.rows * last.columns * last.outputs if last else self.dim
        return Layout(inputs, 0, self.hidden, self.n_classes)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(layer.size for layer in self.convolutions) + self.dense.size

    def initial(self, seed: int) -> np.ndarray:
        """b = 0 and W ~ N(0, 2/inputs), which keeps the size of a signal through a ReLU (He et al. 2015)."""
        parameters = np.zeros(self.size)
        draws = stream.normals(seed, stream.TRAINING, -(-self.size // 2), 1, 2, first_path=WEIGHTS).reshape(-1)
        shapes = [(9 * layer.channels, layer.outputs) for layer in self.convolutions] + self.dense.shapes
        start = 0
        for inputs, outputs in shapes:
            weights = slice(start, start + inputs * outputs)
            parameters[weights] = math.sqrt(2.0 / inputs) * draws[weights]
            start = weights.stop + outputs
        return parameters


@kernel
def softmax(o, b, p, log_sum):
    """p = exp(z − ln Σ e^z) for the rows z = o + b, and ln Σ e^z."""
    for i in range(o.shape[0]):
        row, out = o[i], p[i]
        top = row[0] + b[0]
        for j in range(b.shape[0]):
            out[j] = row[j] + b[j]
            top = max(top, out[j])
        total = top - top
        for j in range(b.shape[0]):
            out[j] = exp(out[j] - top)
            total += out[j]
        for j in range(b.shape[0]):
            out[j] /= total
        log_sum[i] = top + log(total)


class Classification:
    """Buffers for n pictures and the phases of a forward and a reverse pass.

    Attributes
    ----------
    x : (n, dim), to be filled with pictures
    labels : (n,), to be filled with their classes before ``learn``
    features : (n, width), the last hidden layer after its ReLU
    probabilities : (n, n_classes)
    losses : (n,), −ln p of the labels
    forward : phases from x to the features and probabilities
    learn : phases from x to the gradient of the mean loss
    """

    def __init__(self, network: Architecture, parameters: np.ndarray, gradient: np.ndarray, n: int) -> None:
        dtype, layers = parameters.dtype, network.convolutions
        start = sum(layer.size for layer in layers)
        self.n = n
        self.stem = Stem(layers, parameters, gradient, n) if layers else None
        self.passes = Passes(network.dense, "relu", parameters[start:], gradient[start:], n)
        if self.stem is not None:
            self.passes.H[0] = self.stem.out
        self.x = self.stem.x if self.stem is not None else self.passes.H[0]
        self.features = self.passes.H[-1]
        self.probabilities = np.zeros((n, network.n_classes), dtype)
        self.log_sum, self.losses = np.zeros(n, dtype), np.zeros(n, dtype)
        self.labels = np.zeros(n, np.int64)
        self.numbers = np.arange(n)
        forward: list[Phase] = self.stem.forward if self.stem is not None else []
        self.forward = [*forward, *self.passes.forward(), [self._softmax]]
        self.learn = [*self.forward, [self._loss], *self.passes.reverse(), *self.passes.gradient()]
        if self.stem is not None:
            spans = list(columns(network.dense.dim))
            rows = [(lo, min(lo + ROWS, n)) for lo in range(0, n, ROWS)]
            self.learn += [each(self._into_stem, rows, spans), *self.stem.reverse]

    def _softmax(self) -> None:
        softmax(self.passes.O, self.passes.b[-1], self.probabilities, self.log_sum)

    def _loss(self) -> None:
        at = (self.numbers, self.labels)
        self.losses[:] = self.log_sum - self.passes.O[at] - self.passes.b[-1][self.labels]
        d = self.passes.D[-1]
        d[:] = self.probabilities
        d[at] -= 1.0
        d /= self.n

    def _into_stem(self, r0: int, r1: int, c0: int, c1: int) -> None:
        assert self.stem is not None
        np.matmul(self.passes.D[0][r0:r1], self.passes.W[0][c0:c1].T, out=self.stem.d_out[r0:r1, c0:c1])
