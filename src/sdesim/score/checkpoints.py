"""What a training goes on from: all of it is checked before any of it is used."""

import numpy as np

from ..core.checkpoint import Checkpoint


def check(kept: Checkpoint, arrays: dict[str, np.ndarray], state: dict[str, np.ndarray], n_steps: int) -> None:
    """Raise CheckpointError unless a training of that many steps can go on from the arrays.

    ``state`` are arrays of the shape and type that those of the same names must have. Beside them there are ``losses``
    (k <= n_steps,), ``tried`` (trials, 2) and ``best_loss`` (1,), which is infinite before the first trial; and
    ``acceptance`` of the length of ``losses``, where a training has chains.
    """
    wrong = _wrong(arrays, state, n_steps)
    if wrong:
        raise kept.wrong(wrong)


def _wrong(arrays: dict[str, np.ndarray], state: dict[str, np.ndarray], n_steps: int) -> str:
    """What is wrong with the arrays, or nothing."""
    free = {"losses": lambda n: (min(n, n_steps),), "tried": lambda n: (n // 2, 2), "best_loss": lambda n: (1,)}
    if "acceptance" in state:
        free["acceptance"] = free["losses"]
    for name in {**free, **state}:
        if name not in arrays:
            return f"no {name}"
        array = arrays[name]
        kind = state[name].dtype if name in state else np.dtype(np.float64)
        shape = free[name](array.size) if name in free else state[name].shape
        if array.dtype != kind or array.shape != shape:
            return f"{name} of shape {array.shape} and type {array.dtype}, expected {shape} and {kind}"
        # a trial may have ended in an infinite loss, and before the first there is no best one
        numbers = array[:, :1] if name == "tried" else array[:0] if name == "best_loss" else array
        if not np.isfinite(numbers).all():
            return f"{name} that are not finite"
    if "acceptance" in state and len(arrays["acceptance"]) != len(arrays["losses"]):
        return f"{len(arrays['acceptance'])} rates of acceptance for {len(arrays['losses'])} losses"
    if "second" in state and (arrays["second"] < 0.0).any():
        return "mean squares of the gradient below 0"
    return ""
