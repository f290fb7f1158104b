"""The parameters of a patch mixer as one vector, and which pixels its patches hold."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np


class Mixing(NamedTuple):
    """Of one block: between patches h + A₂ φ(A₁ n + a₁) + a₂, then between channels h + φ(n C₁ + c₁) C₂ + c₂."""

    A1: np.ndarray
    a1: np.ndarray
    A2: np.ndarray
    a2: np.ndarray
    C1: np.ndarray
    c1: np.ndarray
    C2: np.ndarray
    c2: np.ndarray


class Weights(NamedTuple):
    """Views of a vector of parameters, or of its gradient."""

    enter: np.ndarray
    places: np.ndarray
    film: np.ndarray
    blocks: list[Mixing]
    leave: np.ndarray
    leave_bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class MixerLayout:
    """Sizes, and the order of the parameters: W_in, places, G, the blocks (``Mixing``), W_out, b_out.

    Columns 2jw … (2j + 1) w of G (n_conditions, 2 (2L + 1) w) make γ_j of the j-th normalisation, the next w make β_j.
    """

    shape: tuple[int, int, int]
    patch: int
    context: int
    n_views: int
    n_conditions: int
    width: int
    token_width: int
    channel_width: int
    n_blocks: int

    @property
    def dim(self) -> int:
        """Numbers of a picture."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def n_tokens(self) -> int:
        """Patches of a picture."""
        return (self.shape[0] // self.patch) * (self.shape[1] // self.patch)

    @property
    def n_inputs(self) -> int:
        """Numbers that one patch is seen by: its window in every view."""
        return self.n_views * self.shape[2] * (self.patch + 2 * self.context) ** 2

    @property
    def n_outputs(self) -> int:
        """Numbers of one patch."""
        return self.shape[2] * self.patch**2

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays in their order."""
        t, w, s, c = self.n_tokens, self.width, self.token_width, self.channel_width
        block: list[tuple[int, ...]] = [(s, t), (s,), (t, s), (t,), (w, c), (c,), (c, w), (w,)]
        film = (self.n_conditions, 2 * w * (2 * self.n_blocks + 1))
        return [(self.n_inputs, w), (t, w), film, *block * self.n_blocks, (w, self.n_outputs), (self.dim,)]

    @property
    def size(self) -> int:
        """The number of parameters, by a formula: what a file says of its blocks would make a list of any length."""
        t, w, s, c = self.n_tokens, self.width, self.token_width, self.channel_width
        ends = (self.n_inputs + t + self.n_outputs) * w + self.dim
        block = s * t + s + t * s + t + w * c + c + c * w + w
        return ends + 2 * self.n_conditions * w * (2 * self.n_blocks + 1) + self.n_blocks * block

    def views(self, flat: np.ndarray) -> Weights:
        """The arrays in a vector."""
        found: list[Any] = []
        start = 0
        for shape in self.shapes:
            stop = start + int(np.prod(shape))
            found.append(flat[start:stop].reshape(shape))
            start = stop
        parts = found[3:-2]
        blocks = [Mixing(*parts[k : k + 8]) for k in range(0, len(parts), 8)]
        return Weights(found[0], found[1], found[2], blocks, found[-2], found[-1])

    def flops(self, rows: int) -> int:
        """Operations of the matrix products of one forward and one reverse pass over so many pictures."""
        t, w = self.n_tokens, self.width
        block = 2 * t * w * self.token_width + 2 * t * w * self.channel_width
        whole = self.n_blocks * block + t * w * (self.n_inputs + self.n_outputs)
        return rows * 6 * whole

    @functools.cached_property
    def windows(self) -> np.ndarray:
        """The pixels (n_tokens, n_inputs/n_views) of the window about every patch, −1 beyond the picture's edge."""
        return self._pixels(self.context)

    @functools.cached_property
    def patches(self) -> np.ndarray:
        """The pixels (n_tokens, n_outputs) of every patch: each pixel once."""
        return self._pixels(0)

    def _pixels(self, context: int) -> np.ndarray:
        height, width, _ = self.shape
        numbers = np.arange(self.dim).reshape(self.shape)
        padded = np.pad(numbers, ((context, context), (context, context), (0, 0)), constant_values=-1)
        side = self.patch + 2 * context
        found = [
            padded[i : i + side, j : j + side].reshape(-1)
            for i in range(0, height, self.patch)
            for j in range(0, width, self.patch)
        ]
        return np.stack(found)
