"""A process whose formulas run as plain Python, one state at a time: what ``simulate(debug=True)`` steps.

Compiled formulas cannot raise, and look into arrays without asking whether the index is inside. Here every call is the
user's own function on numbers: indices are checked, ``print`` and breakpoints work, and an error comes with its own
traceback and the state it was met in. It is a thousand times slower, and draws the same noise.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Process


class PlainProcess(Process):
    """``process``, evaluated state by state in whole-array steps."""

    batch_only = True

    def __init__(self, process: Process) -> None:
        self.__dict__.update(
            process=process, dim=process.dim, noise=process.noise, calculus=process.calculus,
            diffusion_dx=None if process.diffusion_dx is None else self._slope,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainProcess, (self.process,)

    def __getattr__(self, name: str) -> Any:
        # what a method may ask of a process beside its coefficients, such as a force or a temperature
        if name.startswith("_") or name.endswith(("_tile", "_batch")) or name in ("transition", "process"):
            raise AttributeError(f"a process in debug mode has no {name}")
        return getattr(self.process, name)

    def __repr__(self) -> str:
        return repr(self.process)

    def drift(self, x: Any, t: Any) -> Any:
        return self._one_by_one("drift", x, t)

    def diffusion(self, x: Any, t: Any) -> Any:
        return self._one_by_one("diffusion", x, t)

    def _slope(self, x: Any, t: Any) -> Any:
        return self._one_by_one("diffusion_dx", x, t)

    def fields(self) -> dict[str, Any]:
        return self.process.fields()

    def formula(self, name: str) -> Callable[..., Any]:
        return self.process.formula(name)

    def check_state(self, x0: Any) -> None:
        self.process.check_state(x0)

    def _one_by_one(self, name: str, x: Any, t: Any) -> Any:
        formula = getattr(self.process, name)
        parts = x if isinstance(x, tuple) else (x,)
        if all(np.ndim(part) == 0 for part in parts):
            return formula(x, t)
        shape = np.shape(parts[0])
        values = []
        for index in np.ndindex(shape):
            state = tuple(part[index] for part in parts) if isinstance(x, tuple) else x[index]
            try:
                values.append(formula(state, t))
            except Exception as error:
                with contextlib.suppress(AttributeError):
                    error.row = index[0]  # type: ignore[attr-defined]
                error.add_note(f"{name} was evaluated at x = {_brief(state)}, t = {t:g}")
                raise
        found = _stacked(values, shape)
        # a number stands for all components
        return (found,) * len(x) if isinstance(x, tuple) and not isinstance(found, tuple) else found


def _stacked(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Numbers as one array of a shape, tuples of numbers as tuples of such arrays."""
    if isinstance(values[0], (tuple, list)):
        return tuple(_stacked([value[k] for value in values], shape) for k in range(len(values[0])))
    return np.array(values).reshape(shape)


def _brief(state: Any) -> str:
    return f"({', '.join(f'{float(part):g}' for part in state)})" if isinstance(state, tuple) else f"{float(state):g}"
