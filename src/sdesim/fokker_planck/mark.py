"""Where an evolution is: what a stepper hands over after every step, and what it goes on from.

A stepper notes after each step everything that the next one depends on. That is kept (a reference, no copy), so that an
evolution that is interrupted can say how far it came, and written to a checkpoint from time to time; a stepper that is
given such a state takes the steps that are left, to the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Numbers = dict[str, np.ndarray]


class Mark:
    """The state of one evolution.

    Arguments
    ---------
    keep : a function that is called after every step, and may ask for ``arrays()``.
    found : what ``arrays()`` gave an earlier run, to go on from.
    """

    def __init__(self, keep: Callable[[], Any] | None = None, found: Numbers | None = None) -> None:
        self._keep, self.found = keep, found
        self._last: tuple[list[np.ndarray], list[np.ndarray], int, dict[str, Any]] | None = None

    def start(self, rows: list[np.ndarray], walls: list[np.ndarray]) -> Numbers | None:
        """The state to go on from, or None; the results at the saved times before it are put into the lists."""
        if self.found is None:
            return None
        rows.extend(self.found["rows"])
        walls.extend(self.found["walls"])
        return self.found

    def note(self, rows: list[np.ndarray], walls: list[np.ndarray], **state: Any) -> None:
        """A step is done: the results so far, and the state, which has ``m`` and ``t`` among its parts.

        Arrays are not changed afterwards; the lists grow. A part may be a function that makes it.
        """
        self._last = (rows, walls, len(rows), state)
        if self._keep is not None:
            self._keep()

    @property
    def moved(self) -> bool:
        """Whether a step has been taken."""
        return self._last is not None

    def reached(self, times: Sequence[float]) -> tuple[list[float], np.ndarray, np.ndarray] | None:
        """The saved times that were reached and the time of the last step, and what there is of them; None of nothing.

        That is (times, masses of the cells, what has left through the walls).
        """
        if self._last is None:
            return None
        rows, walls, n, state = self._last
        before = list(times[:n])
        if not before or float(state["t"]) > before[-1]:
            lost = state["lost"]() if callable(state["lost"]) else state["lost"]
            return [*before, float(state["t"])], np.array([*rows[:n], state["m"]]), np.array([*walls[:n], lost])
        return before, np.array(rows[:n]), np.array(walls[:n])

    def arrays(self) -> Numbers:
        """The last state as arrays; what was found where no step has been taken since."""
        if self._last is None:
            return self.found or {}
        rows, walls, n, state = self._last
        found = {name: _array(value) for name, value in state.items()}
        shape = found["m"].shape
        found["rows"] = np.array(rows[:n]).reshape(n, *shape)
        found["walls"] = np.array(walls[:n], float).reshape(n, *((len(shape),) if len(shape) > 1 else ()), 2)
        return found


def _array(value: Any) -> np.ndarray:
    """An array of a type that files take."""
    found = np.asarray(value() if callable(value) else value)
    return found.astype(np.int64) if found.dtype.kind in "bi" else found
