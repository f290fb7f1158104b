r"""Forward, tangent and reverse passes of a patch mixer with conditioned normalisation.

A picture is T patches, each a row of w channels; h is (T, n, w) for n pictures:

    h = window W_in + place
    h ← h + A₂ φ(A₁ N(h) + a₁) + a₂          between the patches, the same for every channel
    h ← h + φ(N(h) C₁ + c₁) C₂ + c₂          between the channels, the same for every patch
    F = N(h) W_out + b_out                   each patch to its pixels

(Tolstikhin et al. 2021), with φ the SiLU and N(h) = (1 + γ) ∘ LayerNorm(h) + β, (γ, β) = c G (FiLM, Perez et al. 2018)
with c the conditions of the picture. The windows of neighbouring patches overlap by ``context`` pixels on each side.

With the patches in front, each of the two mixings is one matrix product for all pictures of a block, without a
transposition: (T, n w) from the left, (T n, w) from the right. A block of pictures goes through all layers and back
before the next, so that it stays in the cache; its gradient is its own, and blocks are summed in their order.
"""

from typing import Any

import numpy as np

from . import mixer_kernels as kernels
from .mixer_layout import MixerLayout, Mixing, Weights

PICTURES = 16


class _Kept:
    """What the reverse pass needs of one normalisation and the layer after it."""

    def __init__(self, t: int, n: int, w: int, rows: int, columns: int, dtype: np.dtype) -> None:
        self.hat, self.normal, self.scale = (np.zeros(shape, dtype) for shape in ((t, n, w), (t, n, w), (t, n)))
        self.a, self.slope = np.zeros((rows, columns), dtype), np.zeros((rows, columns), dtype)


class MixerPasses:
    """Buffers for n pictures, and the passes over them.

    Attributes
    ----------
    views : (n_views, n, d), conditions : (n, n_conditions)
    out : (n, d), before its bias, which is left to the loss
    back : (n, d), the gradient in ``out``, filled in before the reverse pass
    of_views : the gradient in ``views``
    """

    def __init__(self, layout: MixerLayout, parameters: np.ndarray, n: int = PICTURES) -> None:
        dtype, t, w = parameters.dtype, layout.n_tokens, layout.width
        self.layout, self.n = layout, n
        # kernels are compiled for memory that may be written, and the parameters of a network may not
        self.weights = layout.views(parameters if parameters.flags.writeable else np.array(parameters))
        s, c, last = layout.token_width, layout.channel_width, 2 * layout.n_blocks

        def room(*shape: int) -> np.ndarray:
            return np.zeros(shape, dtype)

        self.views, self.of_views = room(layout.n_views, n, layout.dim), room(layout.n_views, n, layout.dim)
        self.conditions = room(n, layout.n_conditions)
        self.film, self.of_film = room(n, 2 * w * (last + 1)), room(n, 2 * w * (last + 1))
        self.windows, self.of_windows = room(t, n, layout.n_inputs), room(t, n, layout.n_inputs)
        self.h, self.step, self.of_h = room(t, n, w), room(t, n, w), room(t, n, w)
        self.between = [_Kept(t, n, w, s, n * w, dtype) for _ in range(layout.n_blocks)]
        self.within = [_Kept(t, n, w, t * n, c, dtype) for _ in range(layout.n_blocks)]
        self.final = _Kept(t, n, w, 0, 0, dtype)
        self.of_between, self.of_within = room(s, n * w), room(t * n, c)
        self.patches, self.out, self.back = room(t, n, layout.n_outputs), room(n, layout.dim), room(n, layout.dim)
        self.zero_rows, self.zero_columns = room(max(t * n, s)), room(max(n * w, c, layout.n_inputs))

    # ---- shapes

    def _wide(self, h: np.ndarray) -> np.ndarray:
        """(T, n w): a row for every patch."""
        return h.reshape(len(h), -1)

    def _long(self, h: np.ndarray) -> np.ndarray:
        """(T n, w): a row for every patch of every picture."""
        return h.reshape(-1, h.shape[2])

    # ---- passes

    def forward(self) -> None:
        """From ``views`` and ``conditions`` to ``out``."""
        weights, h, step = self.weights, self.h, self.step
        np.matmul(self.conditions, weights.film, out=self.film)
        kernels.gather(self.views, self.layout.windows, self.windows)
        np.matmul(self._long(self.windows), weights.enter, out=self._long(h))
        h += weights.places[:, None]
        for k, block in enumerate(weights.blocks):
            kept = self.between[k]
            kernels.normalise(h, self.film, 2 * k, kept.hat, kept.scale, kept.normal)
            np.matmul(block.A1, self._wide(kept.normal), out=kept.a)
            kernels.activate(kept.a, block.a1, self.zero_columns, kept.slope)
            np.matmul(block.A2, kept.a, out=self._wide(step))
            kernels.add(self._wide(h), self._wide(step), block.a2, self.zero_columns)
            kept = self.within[k]
            kernels.normalise(h, self.film, 2 * k + 1, kept.hat, kept.scale, kept.normal)
            np.matmul(self._long(kept.normal), block.C1, out=kept.a)
            kernels.activate(kept.a, self.zero_rows, block.c1, kept.slope)
            np.matmul(kept.a, block.C2, out=self._long(step))
            kernels.add(self._long(h), self._long(step), self.zero_rows, block.c2)
        last = self.final
        kernels.normalise(h, self.film, 2 * len(weights.blocks), last.hat, last.scale, last.normal)
        self._leave(last.normal, self.out)

    def _leave(self, normal: np.ndarray, out: np.ndarray) -> None:
        np.matmul(self._long(normal), self.weights.leave, out=self._long(self.patches))
        kernels.scatter(self.patches, self.layout.patches, out[None])

    def reverse(self, slopes: Weights | None = None) -> None:
        """From ``back`` to the gradient in the input of the first layer, and in the parameters where asked for."""
        weights, of_h, of_n = self.weights, self.of_h, self.step
        kernels.gather(self.back[None], self.layout.patches, self.patches)
        if slopes is not None:
            np.matmul(self._long(self.final.normal).T, self._long(self.patches), out=slopes.leave)
            self.back.sum(axis=0, out=slopes.leave_bias)
        np.matmul(self._long(self.patches), weights.leave.T, out=self._long(of_n))
        of_h[:] = 0
        self._through(self.final, 2 * len(weights.blocks))
        for k in range(len(weights.blocks) - 1, -1, -1):
            block = weights.blocks[k]
            grads = None if slopes is None else slopes.blocks[k]
            self._reverse_within(block, grads, k)
            self._reverse_between(block, grads, k)
        if slopes is not None:
            np.matmul(self._long(self.windows).T, self._long(of_h), out=slopes.enter)
            of_h.sum(axis=1, out=slopes.places)
            np.matmul(self.conditions.T, self.of_film, out=slopes.film)

    def _through(self, kept: _Kept, level: int) -> None:
        kernels.normalise_back(self.step, self.film, level, kept.hat, kept.scale, self.of_film, self.of_h)

    def _reverse_within(self, block: Mixing, slopes: Mixing | None, k: int) -> None:
        kept, of_h, of_a = self.within[k], self._long(self.of_h), self.of_within
        np.matmul(of_h, block.C2.T, out=of_a)
        kernels.multiply(of_a, kept.slope)
        if slopes is not None:
            np.matmul(kept.a.T, of_h, out=slopes.C2)
            of_h.sum(axis=0, out=slopes.c2)
            np.matmul(self._long(kept.normal).T, of_a, out=slopes.C1)
            of_a.sum(axis=0, out=slopes.c1)
        np.matmul(of_a, block.C1.T, out=self._long(self.step))
        self._through(kept, 2 * k + 1)

    def _reverse_between(self, block: Mixing, slopes: Mixing | None, k: int) -> None:
        kept, of_h, of_a = self.between[k], self._wide(self.of_h), self.of_between
        np.matmul(block.A2.T, of_h, out=of_a)
        kernels.multiply(of_a, kept.slope)
        if slopes is not None:
            np.matmul(of_h, kept.a.T, out=slopes.A2)
            of_h.sum(axis=1, out=slopes.a2)
            np.matmul(of_a, self._wide(kept.normal).T, out=slopes.A1)
            of_a.sum(axis=1, out=slopes.a1)
        np.matmul(block.A1.T, of_a, out=self._wide(self.step))
        self._through(kept, 2 * k)

    def reach_views(self) -> np.ndarray:
        """On to ``of_views``, after :meth:`reverse`."""
        np.matmul(self._long(self.of_h), self.weights.enter.T, out=self._long(self.of_windows))
        kernels.scatter(self.of_windows, self.layout.windows, self.of_views)
        return self.of_views

    def push(self, direction: np.ndarray) -> np.ndarray:
        """J_F v after :meth:`forward`, for a direction v of the shape of ``views``; a view of ``back``."""
        weights, v, moved = self.weights, self.of_h, self.step
        kernels.gather(direction, self.layout.windows, self.of_windows)
        np.matmul(self._long(self.of_windows), weights.enter, out=self._long(v))
        for k, block in enumerate(weights.blocks):
            kept, a = self.between[k], self.of_between
            kernels.normalise_along(v, self.film, 2 * k, kept.hat, kept.scale, moved)
            np.matmul(block.A1, self._wide(moved), out=a)
            kernels.multiply(a, kept.slope)
            np.matmul(block.A2, a, out=self._wide(moved))
            v += moved
            kept, a = self.within[k], self.of_within
            kernels.normalise_along(v, self.film, 2 * k + 1, kept.hat, kept.scale, moved)
            np.matmul(self._long(moved), block.C1, out=a)
            kernels.multiply(a, kept.slope)
            np.matmul(a, block.C2, out=self._long(moved))
            v += moved
        kernels.normalise_along(v, self.film, 2 * len(weights.blocks), self.final.hat, self.final.scale, moved)
        self._leave(moved, self.back)
        return self.back


def initial(layout: MixerLayout, drawn: Any) -> np.ndarray:
    """Weights that keep the size of a signal, conditions without effect, and W_out = 0: F = 0.

    1.676 is 1/√E φ(z)² for a normal z; the 2L steps together add as much as they are given.
    """
    parameters = np.zeros(layout.size)
    views, normal = layout.views(parameters), layout.views(drawn)
    views.enter[:] = normal.enter / np.sqrt(layout.n_inputs)
    views.places[:] = 0.2 * normal.places
    steps = 2.0 * layout.n_blocks
    for block, part in zip(views.blocks, normal.blocks, strict=True):
        block.A1[:] = part.A1 / np.sqrt(layout.n_tokens)
        block.A2[:] = part.A2 * (1.676 / np.sqrt(layout.token_width * steps))
        block.C1[:] = part.C1 / np.sqrt(layout.width)
        block.C2[:] = part.C2 * (1.676 / np.sqrt(layout.channel_width * steps))
    return parameters
