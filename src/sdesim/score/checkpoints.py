"""Reading the file that a training goes on from: all of it is checked before any of it is used."""

import pathlib
from typing import Any

import numpy as np

from ..core import storage


def read(
    path: pathlib.Path, settings: dict[str, Any], state: dict[str, np.ndarray], n_steps: int
) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint of the training with these settings.

    ``state`` are arrays of the shape and type that those of the same names must have. Beside them there are ``losses``
    (k <= n_steps,), ``tried`` (trials, 2) and ``best_loss`` (1,), which is infinite before the first trial.

    Raises
    ------
    ValueError
        Where the file is damaged, is of another training, or has arrays from which no training can go on.
    """
    kind, found, arrays = storage.read(path)
    if kind != "training":
        raise ValueError(f"checkpoint {path.name} holds a {storage.brief(kind)}, not a training; give another file")
    different = [name for name, value in settings.items() if found.get(name) != value]
    if different:
        raise ValueError(
            f"checkpoint {path.name} belongs to another training ({', '.join(different)} differ); "
            "give another file, or delete this one"
        )
    wrong = _wrong(arrays, state, n_steps)
    if wrong:
        raise ValueError(f"checkpoint {path.name} has {wrong}; give another file, or delete this one")
    return arrays


def _wrong(arrays: dict[str, np.ndarray], state: dict[str, np.ndarray], n_steps: int) -> str:
    """What is wrong with the arrays, or nothing."""
    free = {"losses": lambda n: (min(n, n_steps),), "tried": lambda n: (n // 2, 2), "best_loss": lambda n: (1,)}
    for name in (*free, *state):
        if name not in arrays:
            return f"no {name}"
        array = arrays[name]
        kind = state[name].dtype if name in state else np.dtype(np.float64)
        shape = state[name].shape if name in state else free[name](array.size)
        if array.dtype != kind or array.shape != shape:
            return f"{name} of shape {array.shape} and type {array.dtype}, expected {shape} and {kind}"
        # a trial may have ended in an infinite loss, and before the first there is no best one
        numbers = array[:, :1] if name == "tried" else array[:0] if name == "best_loss" else array
        if not np.isfinite(numbers).all():
            return f"{name} that are not finite"
    if "second" in state and (arrays["second"] < 0.0).any():
        return "mean squares of the gradient below 0"
    return ""
