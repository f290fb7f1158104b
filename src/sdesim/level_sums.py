"""The samples of multilevel Monte Carlo: how a level draws them, what is summed of them, and how that is kept."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .core.checkpoint import Checkpoint
from .core.compile import LANES
from .errors import NonFiniteError
from .execution import final_states

CHUNK = 2**18  # paths whose states are in memory at once
LEVEL_SHIFT = 48  # level l uses the paths from l · 2⁴⁸ on
WARM_UP = (4096, 1024, 512)  # samples of the first levels, to measure their variances


class Tally:
    """Number, mean and sum of squared deviations of what has been added (Chan, Golub & LeVeque 1983)."""

    def __init__(self, n: float = 0, mean: float = 0.0, squares: float = 0.0, second: float = 0.0, fourth: float = 0.0):
        self.n, self.mean, self.squares = int(n), mean, squares
        self.second, self.fourth = second, fourth  # sums of the powers themselves

    def numbers(self) -> tuple[float, ...]:
        """What makes it again."""
        return self.n, self.mean, self.squares, self.second, self.fourth

    def add(self, values: np.ndarray) -> None:
        n, mean = len(values), float(values.mean())
        gap, total = mean - self.mean, self.n + n
        with np.errstate(over="ignore"):  # an unstable scheme; an infinite variance is told of later
            powers = values * values
            self.squares += float(((values - mean) ** 2).sum()) + (gap * self.n) * (gap * n / total)
            self.second += float(powers.sum())
            self.fourth += float((powers * powers).sum())
        self.mean += gap * n / total
        self.n = total

    @property
    def variance(self) -> float:
        return self.squares / (self.n - 1) if self.n > 1 else 0.0

    @property
    def carriers(self) -> float:
        """How many of the values the sum of squares rests on: (Σ v²)² / Σ v⁴, which is n where all are of one size."""
        return self.second / self.fourth * self.second if self.fourth > 0.0 else 0.0


@dataclasses.dataclass
class Sampler:
    """Draws the differences of a level, from the paths of that level in their order."""

    process: Any
    f: Callable[[np.ndarray], Any]
    x0: Any
    state_shape: tuple[int, ...]
    t_span: tuple[float, float]
    method: str
    n_steps: int
    antithetic: bool
    seed: int
    dtype: np.dtype
    executor: Any
    workers: int

    def cost(self, level: int) -> int:
        """Steps of one sample: the fine paths, and the coarse one."""
        fine = self.n_steps << level
        return fine if level == 0 else fine * (2 if self.antithetic else 1) + fine // 2

    def values(
        self, level: int, first: int, n: int, *, n_steps: int, coarsen: int = 1, swap: bool = False
    ) -> np.ndarray:
        """F of n paths, from number ``first`` of the level on."""
        try:
            states = final_states(
                self.process, self.x0, self.t_span, n_steps, n, method=self.method, seed=self.seed,
                first_path=(level << LEVEL_SHIFT) + first, dtype=self.dtype, coarsen=coarsen, swap=swap,
                executor=self.executor, workers=self.workers,
            ).reshape(n, *self.state_shape)  # fmt: skip
        except NonFiniteError as error:
            raise NonFiniteError(
                f"on level {level} {str(error).partition(';')[0]}; take more steps on the coarsest level (n_steps is "
                f"{self.n_steps}), or a method for steep drifts such as 'tamed_euler'"
            ) from None
        values = np.asarray(self.f(states))
        if values.shape != (n,):
            raise ValueError(
                f"f returned shape {values.shape} for states of shape {states.shape}; it must return one number a "
                f"path, shape ({n},)"
            )
        if values.dtype.kind not in "fiub":
            raise TypeError(f"f must return real numbers, got dtype {values.dtype}")
        values = values.astype(np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"f returned {values[i]} for the state {states[i]} (and for {int(bad.sum())} of {n} paths in all); it "
                "must be finite for every state the paths reach"
            )
        return values

    def sample(self, level: int, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n differences of a level (on level 0, values), and f on the fine paths alone."""
        steps = self.n_steps << level
        fine = self.values(level, first, n, n_steps=steps)
        if level == 0:
            return fine, fine
        coarse = self.values(level, first, n, n_steps=steps // 2, coarsen=2)
        if not self.antithetic:
            return fine - coarse, fine
        swapped = self.values(level, first, n, n_steps=steps, swap=True)
        return 0.5 * (fine + swapped) - coarse, fine


class Sums:
    """The tallies of all levels, of the differences and of f on the fine paths, and the samples yet to be drawn."""

    def __init__(self, sampler: Sampler, bar: Any, kept: Checkpoint | None) -> None:
        self.sampler, self.bar, self.kept = sampler, bar, kept
        self.differences: list[Tally] = []
        self.fine: list[Tally] = []
        self.plan: list[tuple[int, int]] = list(enumerate(WARM_UP))  # (level, its samples), to be done in this order
        self._last: dict[str, np.ndarray] | None = None
        self._finished = False  # and a file says so
        bar.total = 0

    def restore(self, found: dict[str, np.ndarray] | None) -> None:
        """Go on from what ``_note`` has written."""
        if found is None:
            return
        assert self.kept is not None
        tallies, plan = (found.get(name, np.zeros(0)) for name in ("tallies", "plan"))
        if tallies.shape != (len(tallies), 2, 5) or plan.shape != (len(plan), 2) or len(tallies) + len(plan) == 0:
            raise self.kept.wrong("no tallies")
        self.differences, self.fine = ([Tally(*numbers) for numbers in tallies[:, k].tolist()] for k in (0, 1))
        self.plan = [(int(level), int(n)) for level, n in plan.tolist()]
        self._finished = not self.plan
        done = sum(tally.n * self.sampler.cost(level) for level, tally in enumerate(self.differences))
        self.bar.total += done
        self.bar.update(done)

    def carry_out(self) -> None:
        """Draw the samples of the plan, in whole tiles; the state between any two draws can be gone on from."""
        for level, n in self.plan:
            before = self.differences[level].n if level < len(self.differences) else 0
            self.bar.total += (-(-n // LANES) * LANES - before) * self.sampler.cost(level)
        try:
            while self.plan:
                self._grow(*self.plan[0])
                self.plan = self.plan[1:]
        except KeyboardInterrupt:
            if self.kept is not None and self._last is not None:
                self.kept.write(self._last, wait=False)
            raise

    def _grow(self, level: int, n: int) -> None:
        n = -(-n // LANES) * LANES
        if level == len(self.differences):
            self.differences, self.fine = [*self.differences, Tally()], [*self.fine, Tally()]
        while self.differences[level].n < n:
            size = min(CHUNK, n - self.differences[level].n)
            values, on_fine = self.sampler.sample(level, self.differences[level].n, size)
            self.differences[level].add(values)
            self.fine[level].add(on_fine)
            self._note()
            self.bar.update(size * self.sampler.cost(level))

    def _note(self) -> None:
        if self.kept is None:
            return
        self._last = self._state()
        if self.kept.due():
            self.kept.write(self._last)

    def _state(self) -> dict[str, np.ndarray]:
        pairs = [(a.numbers(), b.numbers()) for a, b in zip(self.differences, self.fine, strict=True)]
        return {"tallies": np.array(pairs), "plan": np.array(self.plan, float).reshape(-1, 2)}

    def finish(self) -> None:
        """All samples are there; the last of them may have been in a file whose plan still named them."""
        if self.kept is not None and not self._finished:
            self.kept.write(self._state())
