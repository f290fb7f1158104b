"""The marks of the evolutions of one call, on one grid after the other, with the checkpoint that they share."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.checkpoint import Checkpoint
from .mark import Mark, Numbers
from .splitting import Splitting
from .steppers import Evolution
from .stretches import packed, unpacked

MOST = 2  # grids


class Marks:
    """What has been solved, and where the evolution on the next grid is."""

    def __init__(self, checkpoint: Checkpoint | None, found: Numbers | None) -> None:
        self.checkpoint = checkpoint
        self._found: Numbers = {} if found is None else found
        results = (self._group(f"{k}.") for k in range(MOST))
        self._results = [_result(numbers) for numbers in results if numbers]
        self._given, self._changed = 0, False
        self.method: int | None = int(self._found["method"]) if "method" in self._found else None
        self.now = Mark()

    def _group(self, prefix: str) -> Numbers:
        return {name.removeprefix(prefix): a for name, a in self._found.items() if name.startswith(prefix)}

    def begin(self, method: int) -> None:
        """Begin on the first grid with the method of this number; what was done with another is forgotten."""
        if self.method != method:
            self._found, self._results, self.method = {}, [], method
        self._given = 0

    def solve(self, solver: Callable[..., Any], shape: tuple[int, ...], *arguments: Any, **named: Any) -> Any:
        """The evolution on the next grid, of that shape, by a stepper; or what the checkpoint has of it."""
        if self._given == len(self._results):
            keep, found = None if self.checkpoint is None else self._keep, self._group("at.") or None
            self.now, self._found, self._changed = Mark(keep, found), {}, True
            try:
                if found is not None:
                    _check(found, shape)
                self._results.append(solver(*arguments, **named, mark=self.now))
            except KeyboardInterrupt:
                self.write(wait=False)
                raise
            except (LookupError, TypeError, ValueError) as error:
                if self.checkpoint is None or found is None or self.now.moved:
                    raise
                raise self.checkpoint.wrong(f"a state that cannot be gone on from ({error})") from None
            self.now = Mark()
        self._given += 1
        return self._results[self._given - 1]

    def _keep(self) -> None:
        assert self.checkpoint is not None
        if self.checkpoint.due():
            self.write()

    def write(self, *, wait: bool = True) -> None:
        """Write the results so far, and the last state of the evolution that is on."""
        if self.checkpoint is None or not self._changed:
            return
        arrays = {f"{k}.{name}": a for k, r in enumerate(self._results) for name, a in _numbers(r).items()}
        if self._given == len(self._results):
            arrays |= {f"at.{name}": a for name, a in self.now.arrays().items()}
        if arrays:
            self.checkpoint.write({**arrays, "method": np.array(self.method)}, wait=wait)


def _check(found: Numbers, shape: tuple[int, ...]) -> None:
    wanted = {"m": shape, "t": (), "rows": (len(found["rows"]), *shape), "walls": (len(found["rows"]), *_sides(shape))}
    for name, expected in wanted.items():
        if found[name].shape != expected or not np.isfinite(found[name]).all():
            raise ValueError(f"{name} has shape {found[name].shape}, expected finite numbers of shape {expected}")


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (len(shape), 2) if len(shape) > 1 else (2,)


def _numbers(result: Any) -> Numbers:
    steps = {"steps": packed(result.steps)} if isinstance(result, Splitting) else {}
    counts = np.array([result.n_steps, result.n_rejected])
    return {"m": result.m, "absorbed": result.absorbed, "counts": counts, **steps}


def _result(numbers: Numbers) -> Any:
    m, absorbed, (taken, rejected) = numbers["m"], numbers["absorbed"], (int(n) for n in numbers["counts"])
    if "steps" in numbers:
        return Splitting(m, absorbed, taken, rejected, unpacked(numbers["steps"], len(m)))
    return Evolution(m, absorbed, taken, rejected)
