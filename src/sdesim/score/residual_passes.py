r"""Forward, tangent and reverse passes of a residual network with conditioned normalisation.

    h₀ = x W_in + b_in
    n_ℓ = (h_ℓ − mean h_ℓ)/√(var h_ℓ + ε),   z_ℓ = (1 + γ_ℓ) n_ℓ + β_ℓ,   (γ, β) = c G         (FiLM, Perez et al. 2018)
    h_{ℓ+1} = h_ℓ + φ(z_ℓ) W_ℓ + b_ℓ,   ℓ = 0 … L − 1
    F = φ(z_L) W_out + b_out

with φ the SiLU and c the conditions: Fourier features of the noise level, a one, and a one in the place of the class or
of no class.
Normalising before every product (Xiong et al. 2020) leaves a straight way from the first layer to the last.

As in ``passes``, a pass is a list of phases of tasks, cut by the shapes alone: the bits do not depend on the number of
threads.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from ..core import blas
from ..targets.cells import CHUNK, products
from . import kernels, residual_kernels
from .passes import Phase


class Weights(NamedTuple):
    """Views of a vector of parameters, or of its gradient."""

    enter: np.ndarray
    enter_bias: np.ndarray
    film: np.ndarray
    blocks: list[np.ndarray]
    biases: list[np.ndarray]
    leave: np.ndarray
    leave_bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class ResidualLayout:
    """The parameters of a residual network as one vector: W_in, b_in, G, W₀, b₀, …, W_out, b_out.

    Columns 2ℓ w … (2ℓ + 1) w of G (n_conditions, 2 (L + 1) w) make γ_ℓ, the next w make β_ℓ.
    """

    dim: int
    n_inputs: int
    n_conditions: int
    width: int
    n_blocks: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays in their order."""
        w = self.width
        block = [(w, w), (w,)] * self.n_blocks
        film = (self.n_conditions, 2 * w * (self.n_blocks + 1))
        return [(self.n_inputs, w), (w,), film, *block, (w, self.dim), (self.dim,)]

    @property
    def size(self) -> int:
        """The number of parameters, by a formula: what a file says of its blocks would make a list of any length."""
        w, blocks = self.width, self.n_blocks
        ends = (self.n_inputs + 1) * w + (w + 1) * self.dim
        return ends + 2 * self.n_conditions * w * (blocks + 1) + blocks * (w + 1) * w

    def views(self, flat: np.ndarray) -> Weights:
        """The arrays in a vector."""
        found: list[np.ndarray] = []
        start = 0
        for shape in self.shapes:
            stop = start + int(np.prod(shape))
            found.append(flat[start:stop].reshape(shape))
            start = stop
        return Weights(found[0], found[1], found[2], found[3:-2:2], found[4:-2:2], found[-2], found[-1])

    def flops(self, rows: int) -> int:
        """Operations of the matrix products of one forward and one reverse pass over so many rows."""
        products = [int(np.prod(shape)) for shape in self.shapes if len(shape) == 2]
        return rows * (6 * sum(products) - 2 * sum(products[:2]))


class ResidualPasses:
    """Buffers for n points, and the phases that work on them.

    Attributes
    ----------
    inputs : (n, n_inputs), conditions : (n, n_conditions)
    out : (n, dim), before its bias, which is left to the loss
    back : (n, dim), the gradient in ``out``, filled in before the reverse pass
    of_inputs : (n, n_inputs), the gradient in ``inputs``
    """

    def __init__(self, layout: ResidualLayout, parameters: np.ndarray, gradient: np.ndarray | None, n: int) -> None:
        dtype, w, levels = parameters.dtype, layout.width, layout.n_blocks + 1
        self.layout, self.n = layout, n
        self.weights = layout.views(parameters)
        self.slopes = None if gradient is None else layout.views(gradient)
        # kernels are compiled for memory that may be written, and the parameters of a network may not
        self.biases = [np.array(b) if gradient is None else b for b in (self.weights.enter_bias, *self.weights.biases)]
        self.rows = blas.spans(n, CHUNK)

        def room(*shape: int) -> np.ndarray:
            return np.zeros(shape, dtype)

        self.inputs, self.conditions = room(n, layout.n_inputs), room(n, layout.n_conditions)
        self.film, self.of_film = room(n, 2 * w * levels), room(n, 2 * w * levels)
        self.h, self.a, self.hat, self.bent, self.of_h = (
            [room(n, w) for _ in range(levels)] for _ in range(5)
        )  # fmt: skip
        self.scale = [room(n) for _ in range(levels)]
        self.of_a = room(n, w)
        self.out, self.back, self.of_inputs = room(n, layout.dim), room(n, layout.dim), room(n, layout.n_inputs)

    def _each(self, function: Any, *arguments: Any) -> Phase:
        return [functools.partial(function, *arguments, *span) for span in self.rows]

    def forward(self) -> list[Phase]:
        """From ``inputs`` and ``conditions`` to ``out``."""
        weights = self.weights
        phases = [
            products(self.inputs, weights.enter, self.h[0]) + products(self.conditions, weights.film, self.film)
        ]  # fmt: skip
        targets = [*self.h[1:], self.out]
        for k, (matrix, target) in enumerate(zip([*weights.blocks, weights.leave], targets, strict=True)):
            before = self.h[max(k - 1, 0)]
            phases.append(
                self._each(
                    residual_kernels.activate, self.h[k], before, k > 0, self.biases[k], self.film, k, self.hat[k],
                    self.scale[k], self.bent[k], self.a[k],
                )
            )  # fmt: skip
            phases.append(products(self.a[k], matrix, target))
        return phases

    def reverse(self) -> list[Phase]:
        """From ``back`` to the gradients in every h and in the conditioning."""
        phases = []
        sources = [*self.of_h[1:], self.back]
        matrices = [*self.weights.blocks, self.weights.leave]
        last = self.layout.n_blocks
        for k in range(last, -1, -1):
            phases.append(products(sources[k], matrices[k].T, self.of_a))
            phases.append(
                self._each(
                    residual_kernels.reverse, self.of_a, self.of_h[min(k + 1, last)], k < last, self.film, k,
                    self.hat[k], self.scale[k], self.bent[k], self.of_film, self.of_h[k],
                )
            )  # fmt: skip
        return phases

    def reach_inputs(self) -> list[Phase]:
        """And on to ``of_inputs``."""
        return [products(self.of_h[0], self.weights.enter.T, self.of_inputs)]

    def gradient(self) -> list[Phase]:
        """The gradients of all parameters, after :meth:`reverse`."""
        slopes, w = self.slopes, self.layout.width
        assert slopes is not None
        phase = products(self.inputs.T, self.of_h[0], slopes.enter, rows=w)
        sources = [*self.of_h[1:], self.back]
        for a, source, out in zip(self.a, sources, [*slopes.blocks, slopes.leave], strict=True):
            phase += products(a.T, source, out, rows=w)
        phase += products(self.conditions.T, self.of_film, slopes.film)
        totals = [slopes.enter_bias, *slopes.biases, slopes.leave_bias]
        for source, out in zip([*self.of_h, self.back], totals, strict=True):
            phase.append(functools.partial(kernels.column_sum, source, out, 0, self.n))
        return [phase]

    def push(self, direction: np.ndarray) -> np.ndarray:
        """J_F v after :meth:`forward`, for v (m, n_inputs); a view of ``back``."""
        m, carried, moved = len(direction), self.of_h[0], self.of_a
        np.matmul(direction, self.weights.enter, out=carried[:m])
        for k, matrix in enumerate([*self.weights.blocks, self.weights.leave]):
            residual_kernels.tangent(carried, self.film, k, self.hat[k], self.scale[k], self.bent[k], moved, m)
            if k < self.layout.n_blocks:
                carried[:m] += moved[:m] @ matrix
        return np.matmul(moved[:m], matrix, out=self.back[:m])
