r"""The coefficients of a sampler, read off the sampler itself.

Every method of ``samplers`` moves its samples by sums a x + b s(x, t) + c z + d with numbers that depend on the time
alone, and a network's score is A (x − α m − β) + B F (``score.head``). So a step is an affine function of the state,
of the network's outputs F and of the normals, the same for every component. Its coefficients are found by letting the
method itself take a step, not with samples but with a row of **probes**: in one column every unknown is 0, in each
other column one of them is 1. What comes out, less the first column, are the coefficients. No formula of a method is
written a second time, and a new method is on the device as soon as it is on the CPU.

Unknowns of the last step may still be in a method's memory (the denoised mean of DPM-Solver++), so every third step
uses the same columns: what comes from the last step is told apart, and what comes from further back is noticed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.normals import DRAWS
from ..core.stream import WIENER
from ..cuda.program import CENTRE, FIRST, KEPT, ONE, STATE, Program
from .linear import Noised
from .rows import Advance, Rows

_MIDDLE = 1  # the column of m; column 0 is where all unknowns are 0
_ROOM = 64  # unknowns in a step
_GENERATIONS = 3


class _Asked:
    """A score for probes: each call is one evaluation, and its result a new unknown."""

    def __init__(self, answer: Callable[[np.ndarray, float], np.ndarray]) -> None:
        self._answer = answer

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        return self._answer(x, t)

    plain = __call__


class Probes(Rows):
    """A block of samples that are probes, as a method of sampling sees it."""

    def __init__(self, noised: Noised, head: Any) -> None:
        width = 2 + _GENERATIONS * _ROOM
        super().__init__(noised, _Asked(self._evaluated), (1, width), np.dtype(np.float64), 0, 0)  # type: ignore[arg-type]
        self.head = head
        self.generation = 0
        self._begin()

    def _begin(self) -> None:
        self.used = 0
        self.calls: list[tuple[np.ndarray, float, float, float, float]] = []
        self.outputs: list[int] = []
        self.noises: dict[tuple[int, int], int] = {}

    def _column(self) -> int:
        if self.used == _ROOM:
            raise ValueError(
                f"device='cuda' takes steps of at most {_ROOM // 2} evaluations; lower n_corrector, or use device='cpu'"
            )
        self.used += 1
        return 2 + self.generation * _ROOM + self.used - 1

    def _unknown(self, column: int) -> np.ndarray:
        probe = np.zeros(self.shape)
        probe[0, column] = 1.0
        return probe

    def _evaluated(self, x: np.ndarray, t: float) -> np.ndarray:
        at = np.asarray(t, dtype=np.float64)
        a, b, c, level = (float(value) for value in self.head.scalings(at))
        alpha, beta, _ = (float(value) for value in self.head.noise(at))
        self.calls.append((x[0].copy(), c, alpha, beta, level))
        self.outputs.append(self._column())
        y = x - (alpha * self._unknown(_MIDDLE) + beta)
        return a * y + b * self._unknown(self.outputs[-1])

    def normals(self, k: int, purpose: int = WIENER) -> np.ndarray:
        """One unknown for each draw of a step."""
        if (purpose, k) not in self.noises:
            self.noises[purpose, k] = self._column()
        return self._unknown(self.noises[purpose, k])

    # ---- steps

    def take(self, step: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        """One step: its points and what they are sums of."""
        self._begin()
        state = self._column()
        end = step(self._unknown(state))[0].copy()
        columns = [state, *self.outputs, *self.noises.values()]
        last = (self.generation - 1) % _GENERATIONS
        before = slice(2 + last * _ROOM, 2 + (last + 1) * _ROOM)
        outside = np.ones(len(end), bool)
        outside[[0, _MIDDLE, *columns]] = False
        points = [*(call[0] for call in self.calls), end]
        for point in points:
            allowed = outside.copy()
            if point is end:
                allowed[before] = False
            if (point[allowed] != point[0]).any():
                raise ValueError("device='cuda' cannot run this method: its steps look back further than one step")
        found = {
            "columns": columns,
            "points": [point - point[0] for point in points],
            "constants": [point[0] for point in points],
            "calls": [call[1:] for call in self.calls],
            "draws": list(self.noises),
            "before": (end - end[0]) * _mask(before, len(end)),
        }
        self.generation = (self.generation + 1) % _GENERATIONS
        return found


def _mask(where: slice, size: int) -> np.ndarray:
    mask = np.zeros(size)
    mask[where] = 1.0
    return mask


def program(
    noised: Noised, head: Any, advance_of: Callable[[Rows], Advance], times: np.ndarray, denoise: bool, dtype: Any
) -> Program:
    """The table of a whole run: the start, every step, and the denoised mean at the end where it is wanted.

    ``advance_of`` makes the method's steps for a block, ``dtype`` is that of the stream that the normals come from.
    """
    probes = Probes(noised, head)
    start, end = float(times[0]), float(times[-1])
    steps = [probes.take(lambda x: probes.start(start))]
    advance = advance_of(probes)
    for k, (t, later) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        steps.append(probes.take(lambda x, k=k, t=t, later=later: advance(x, k, t, later)))  # type: ignore[misc]
    reached = [*times.tolist()]
    if denoise and end > 0.0:
        steps.append(probes.take(lambda x: probes.denoised(x, end)))
        reached.append(0.0)
    return _tables(steps, np.array(reached), DRAWS[np.dtype(dtype)])


def _tables(steps: list[dict[str, Any]], times: np.ndarray, lanes: int) -> Program:
    most = max(len(step["calls"]) for step in steps)
    n_draws = max(len(step["draws"]) for step in steps)
    width = FIRST + most + n_draws
    points = np.zeros((len(steps), 1 + most, width))
    kept = np.zeros((len(steps), FIRST + most))
    inputs = np.zeros((len(steps), 1 + most, 3))
    levels = np.zeros((len(steps), most))
    draws = np.zeros((len(steps), n_draws, 3), np.int64)
    # the first step has no state to begin with
    entry = any(not _is_state(step) for step in steps[1:])
    for number, step in enumerate(steps):
        state, *others = step["columns"]
        count = len(step["calls"])
        slots = [*range(FIRST, FIRST + count), *range(FIRST + most, FIRST + most + len(step["draws"]))]
        for s, (row, constant) in enumerate(zip(step["points"], step["constants"], strict=True)):
            points[number, s, STATE], points[number, s, ONE] = row[state] - 1.0, constant
            points[number, s, CENTRE] = row[_MIDDLE]
            points[number, s, slots] = row[others]
        for s, (c, alpha, beta, level) in enumerate(step["calls"]):
            inputs[number, s], levels[number, s] = (c, alpha, beta), level
        if number + 1 < len(steps):
            inputs[number, count] = steps[number + 1]["calls"][0][:3]
        for r, (purpose, k) in enumerate(step["draws"]):
            draws[number, r] = (purpose, *divmod(k, lanes))
        if number and step["before"].any():
            _keep(steps[number - 1], step["before"], kept[number - 1])
            points[number, count, KEPT] = 1.0
    counts = np.array([len(step["calls"]) for step in steps])
    return Program(
        counts, points.astype(np.float32), kept.astype(np.float32) if kept.any() else None, inputs.astype(np.float32),
        levels, draws, times, entry,
    )  # fmt: skip


def _is_state(step: dict[str, Any]) -> bool:
    """Whether the first evaluation is at the state itself."""
    row = step["points"][0]
    return bool(row[step["columns"][0]] == 1.0 and np.count_nonzero(row) == 1 and step["constants"][0] == 0.0)


def _keep(step: dict[str, Any], wanted: np.ndarray, row: np.ndarray) -> None:
    """The coefficients, in a step's own unknowns, of what the next step takes from it."""
    count = len(step["calls"])
    state, outputs, noises = step["columns"][0], step["columns"][1 : 1 + count], step["columns"][1 + count :]
    if wanted[noises].any():
        raise ValueError("device='cuda' cannot run this method: a step takes noise of the one before")
    row[STATE], row[FIRST : FIRST + count] = wanted[state], wanted[outputs]
