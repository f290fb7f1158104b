"""What a step of training is fed with: points, noise levels, noise and directions, all from the random stream."""

from typing import Any

import numpy as np

from ..core import stream
from .data import Data
from .network import DIRECTIONS, NOISE, TIMES
from .noise_levels import Times
from .objectives import Objective
from .passes import each

_CHUNK = 8192  # rows whose times and noise levels are worked out at once


class Feed:
    """Fills an objective's inputs for a step: points, times, noise and directions."""

    def __init__(
        self, learner: Objective, points: Data, rows: np.ndarray, times: Times | None, seed: int, gaussian: bool
    ) -> None:
        self.learner, self.points, self.rows, self.times = learner, points, rows, times
        self.seed, self.gaussian = seed, gaussian
        self.count = rows.size or len(points)  # an empty table of rows stands for all of them
        dtype = learner.x.dtype
        self.normals, self.per_block = stream.normals_kernel(dtype), 16 // dtype.itemsize
        self.chosen = np.zeros(learner.n, np.intp)
        self.ahead = max(1, _CHUNK // learner.n)
        self.known: tuple[int, np.ndarray, list[Any]] | None = None
        self.phase = [each(self._draw, [tile[:2] for tile in learner.tiles])]
        self.step = 0

    def prepare(self, step: int) -> None:
        """Choose the points and noise levels of a step; ``phase`` then draws the noise and gathers the points."""
        first = step - step % self.ahead
        if self.known is None or self.known[0] != first:
            self.known = (first, *self._choose(first))
        _, chosen, levels = self.known
        self.step = step
        self.chosen[:] = chosen[step - first]
        self.learner.take_levels(tuple(part[step - first] for part in levels))

    def _choose(self, first: int) -> tuple[np.ndarray, list[Any]]:
        n = self.learner.n
        steps = range(first, first + self.ahead)
        u = np.stack([stream.uniforms_at(self.seed, stream.TRAINING, n, step, first_path=TIMES).T for step in steps])
        chosen = np.minimum((u[:, :, 0] * self.count).astype(np.intp), self.count - 1)
        if self.rows.size:
            chosen = self.rows[chosen]
        # one number in each nth of the unit interval: every batch sees all noise levels (Kingma et al. 2021)
        t = np.zeros(u.shape[:2]) if self.times is None else self.times((np.arange(n) + u[:, :, 1]) / n)
        return chosen, [part.reshape(*t.shape, *part.shape[1:]) for part in self.learner.levels_at(t.reshape(-1))]

    def _draw(self, p0: int, n: int) -> None:
        learner = self.learner
        d = learner.dim
        self.points.gather(self.chosen[p0 : p0 + n], learner.x[p0 : p0 + n])
        if learner.head.process is not None:
            self._fill(learner.noise, p0 * d, n * d, NOISE)
        if learner.random_directions:
            for k, directions in enumerate(learner.directions):
                flat = directions.reshape(-1)
                size = -(-n * d // 4) * 4
                buffer = np.empty(size, flat.dtype)
                start = p0 * d // self.per_block
                self._normals(buffer, DIRECTIONS + (k << 32) + start)
                drawn = buffer[: n * d]
                flat[p0 * d : (p0 + n) * d] = drawn if self.gaussian else np.copysign(1.0, drawn)

    def _fill(self, flat: np.ndarray, start: int, size: int, place: int) -> None:
        size = -(-size // self.per_block) * self.per_block
        self._normals(flat[start : start + size], place + start // self.per_block)

    def _normals(self, flat: np.ndarray, path: int) -> None:
        out = flat.reshape(-1, 1, self.per_block)
        self.normals(out, path, self.step, stream.TRAINING, self.seed)
