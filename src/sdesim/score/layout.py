"""The parameters of a network as one vector, and the matrices in it as views."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layers of an MLP on (x, features): dim + n_features → hidden … → outputs (dim unless given); z = h W + b.

    The vector holds W₁ row by row (first the dim rows that meet x, then those of the features), b₁, W₂, b₂, …
    """

    dim: int
    n_features: int
    hidden: tuple[int, ...]
    outputs: int | None = None

    @property
    def n_outputs(self) -> int:
        """The width of the last layer."""
        return self.dim if self.outputs is None else self.outputs

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every layer."""
        widths = [self.dim + self.n_features, *self.hidden, self.n_outputs]
        return list(itertools.pairwise(widths))

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(inputs * outputs + outputs for inputs, outputs in self.shapes)

    def views(self, flat: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The matrices and the biases in a vector of parameters, or of their gradient."""
        matrices, biases, start = [], [], 0
        for inputs, outputs in self.shapes:
            matrices.append(flat[start : start + inputs * outputs].reshape(inputs, outputs))
            start += inputs * outputs
            biases.append(flat[start : start + outputs])
            start += outputs
        return matrices, biases

    def flops(self, rows: int) -> int:
        """Operations of the matrix products of one forward and one reverse pass over so many rows."""
        products = [inputs * outputs for inputs, outputs in self.shapes]
        return rows * (6 * sum(products) - 2 * products[0])
