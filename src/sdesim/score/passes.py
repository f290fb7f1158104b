r"""Forward, tangent and reverse passes of an MLP, cut into tasks whose results do not depend on who runs them.

Layer by layer z = h W + b, h = φ(z). A pass is a list of **phases**, a phase a list of **tasks** that write different
memory: a tile of at most 256 points (with their tangents stacked below) by at most 512 columns. How a pass is cut
depends on the shapes alone, so any number of threads gives the same bits.

tangent   (z, a) = (h, t) W in one product of the stacked rows, then h = φ(z), t = φ′(z) a
reverse   of a pair (p, q) that arrives at (h, t): dz = φ′ p + φ″ a q and da = φ′ q; again one product a layer,
          and one for the weights: dW = (h, t)ᵀ (dz, da)
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import activations, kernels
from .layout import Layout

ROWS, COLUMNS = 256, 512

Task = Callable[[], Any]
Phase = list[Task]


def tiles(n: int, m: int = 0) -> list[tuple[int, int, int]]:
    """(first point, points, first stacked row) of every tile of n points with m tangents each."""
    return [(p, min(ROWS, n - p), p * (1 + m)) for p in range(0, n, ROWS)]


def columns(width: int) -> Iterator[tuple[int, int]]:
    """Blocks of at most ``COLUMNS`` columns."""
    for start in range(0, width, COLUMNS):
        yield start, min(width, start + COLUMNS)


def each(function: Callable[..., Any], *arguments: Iterable[tuple[Any, ...]]) -> Phase:
    """A phase of one call for each tuple of arguments, or for each pair of tuples of two lists."""
    if len(arguments) == 1:
        return [functools.partial(function, *one) for one in arguments[0]]
    return [functools.partial(function, *one, *two) for one in arguments[0] for two in list(arguments[1])]


def run(phases: Sequence[Phase]) -> None:
    """All tasks, one after the other; what overflows is seen in the losses."""
    with np.errstate(over="ignore", invalid="ignore"):
        for phase in phases:
            for task in phase:
                task()


class Passes:
    """Buffers for n points with m tangents each, and the phases that work on them.

    Parameters
    ----------
    parameters, gradient : vectors of ``layout.size``
        Read and written in place by the phases.
    curved : bool
        Keep φ″, which the reverse of a tangent or of a divergence needs.

    Attributes
    ----------
    H : the inputs of every layer, (n (1 + m), width); H[0] is the network's input
    O : the outputs before the last bias, (n (1 + m), outputs)
    D : gradients in every layer's z, of the outputs' shape; D[-1] is filled in before the reverse pass
    D1, D2 : φ′ and φ″ of the hidden layers, (n, width)
    """

    def __init__(
        self, layout: Layout, activation: str, parameters: np.ndarray, gradient: np.ndarray, n: int, m: int = 0,
        *, curved: bool = False,
    ) -> None:  # fmt: skip
        dtype = parameters.dtype
        self.layout, self.n, self.m, self.curved = layout, n, m, curved or m > 0
        self.W, self.b = layout.views(parameters)
        self.gW, self.gb = layout.views(gradient)
        self.phi = activations.kernels(activation, dtype)
        self.tiles = tiles(n, m)
        stacked = n * (1 + m)

        def room(rows: int, width: int) -> np.ndarray:
            return np.zeros((rows, width), dtype)

        hidden = layout.hidden
        self.H = [room(stacked, inputs) for inputs, _ in layout.shapes]
        self.D = [room(stacked, outputs) for _, outputs in layout.shapes]
        self.O = room(stacked, layout.n_outputs)
        self.D1 = [room(n, width) for width in hidden]
        self.D2 = [room(n, width) for width in hidden] if self.curved else []
        self.A = [room(stacked, width) for width in hidden] if m else []
        self.parts = [np.zeros((len(self.tiles), outputs), dtype) for _, outputs in layout.shapes]

    def forward(self) -> list[Phase]:
        """From H[0] to O; hidden layers are activated, the last bias is left to the loss."""
        phases = []
        for i, width in enumerate(self.layout.hidden):
            phases.append([self._layer(i, tile, span) for tile in self.tiles for span in columns(width)])
        last = len(self.layout.hidden)
        rows = [slice(r0, r0 + n * (1 + self.m)) for _, n, r0 in self.tiles]
        spans = [slice(*span) for span in columns(self.layout.n_outputs)]
        phases.append([_matmul(self.H[last][r], self.W[last][:, c], self.O[r, c]) for r in rows for c in spans])
        return phases

    def _layer(self, i: int, tile: tuple[int, int, int], span: tuple[int, int]) -> Task:
        (p0, n, r0), (c0, c1), m = tile, span, self.m
        rows = slice(r0, r0 + n * (1 + m))
        source, weights, target = self.H[i][rows], self.W[i][:, c0:c1], self.H[i + 1][rows, c0:c1]
        # views over the rows of this tile, so that points and their derivatives have the same row numbers
        h, d1 = self.H[i + 1][rows], self.D1[i][p0 : p0 + n]
        d2 = self.D2[i][p0 : p0 + n] if self.curved else d1
        a = self.A[i][rows] if m else h
        b, phi = self.b[i], self.phi

        if m:

            def task() -> None:
                np.matmul(source, weights, out=target)
                phi.curvature(h, b, d1, d2, 0, n, c0, c1)
                kernels.tangent(h, d1, a, 0, n, m, 0, c0, c1)
        elif self.curved:

            def task() -> None:
                np.matmul(source, weights, out=target)
                phi.curvature(h, b, d1, d2, 0, n, c0, c1)
        else:

            def task() -> None:
                np.matmul(source, weights, out=target)
                phi.slope(h, b, d1, 0, n, c0, c1)

        return task

    def reverse(self, more: dict[int, np.ndarray] | None = None) -> list[Phase]:
        """From D[-1] to every D; ``more[i]`` (n, width) is added to the gradient in z of hidden layer i."""
        phases: list[Phase] = []
        for i in range(len(self.layout.hidden), 0, -1):
            extra = (more or {}).get(i - 1)
            spans = list(columns(self.layout.hidden[i - 1]))
            phases.append([self._back(i, k, tile, span, extra) for k, tile in enumerate(self.tiles) for span in spans])
        return phases

    def _back(
        self, i: int, number: int, tile: tuple[int, int, int], span: tuple[int, int], more: np.ndarray | None
    ) -> Task:
        (p0, n, r0), (c0, c1), m = tile, span, self.m
        rows = slice(r0, r0 + n * (1 + m))
        source, weights, target = self.D[i][rows], self.W[i][c0:c1].T, self.D[i - 1][rows, c0:c1]
        d, d1, part = self.D[i - 1], self.D1[i - 1], self.parts[i - 1][number]
        if m:
            d2, a = self.D2[i - 1], self.A[i - 1]

            def task() -> None:
                np.matmul(source, weights, out=target)
                kernels.reverse_tangent(d, d1, d2, a, part, r0, n, m, p0, c0, c1)
        elif more is not None:

            def task() -> None:
                np.matmul(source, weights, out=target)
                kernels.reverse_plus(d, d1, more, part, r0, n, p0, c0, c1)
        else:

            def task() -> None:
                np.matmul(source, weights, out=target)
                kernels.reverse(d, d1, part, r0, n, p0, c0, c1)

        return task

    def gradient(self) -> list[Phase]:
        """The gradients of all weights and biases from H and D; tangents do not feel the biases."""
        phase: Phase = []
        for i, (_, width) in enumerate(self.layout.shapes):
            for c0, c1 in columns(width):
                phase.append(_matmul(self.H[i].T, self.D[i][:, c0:c1], self.gW[i][:, c0:c1]))
        last = len(self.layout.hidden)

        def biases() -> None:
            for k, (_, n, r0) in enumerate(self.tiles):
                kernels.column_sum(self.D[last], self.parts[last][k], r0, n)
            for parts, out in zip(self.parts, self.gb, strict=True):
                kernels.add_rows(parts, out)

        phase.append(biases)
        return [phase]


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Task:
    return lambda: np.matmul(a, b, out=out)
