"""Steps of one size in a row, as the splitting counts, repeats and remembers them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Given steps between two marks, at most; transports are joined across no more of them.
PIECE = 256


class Stretch(NamedTuple):
    """``n_steps`` steps of one size."""

    dt: float
    n_steps: int
    damped: bool


def halves(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same with each step taken as two of half the size, and as many damped ones."""
    found = []
    for dt, count, damped in stretches:
        if damped:
            found.append(Stretch(0.5 * dt, count, True))
        found.append(Stretch(0.5 * dt, count if damped else 2 * count, False))
    return found


def pieces(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same in stretches of at most ``PIECE`` steps."""
    return [
        Stretch(dt, min(PIECE, count - start), damped)
        for dt, count, damped in stretches
        for start in range(0, count, PIECE)
    ]


def packed(steps: Sequence[Sequence[Stretch]]) -> np.ndarray:
    """Rows (number of the time, dt, n_steps, damped) of the stretches up to each of some times."""
    rows = [(i, *stretch) for i, stretches in enumerate(steps) for stretch in stretches]
    return np.array(rows, float).reshape(-1, 4)


def unpacked(steps: np.ndarray, n: int) -> tuple[tuple[Stretch, ...], ...]:
    """The stretches up to each of n times, from what ``packed`` made."""
    found: list[list[Stretch]] = [[] for _ in range(n)]
    for i, dt, count, damped in steps.tolist():
        found[int(i)].append(Stretch(dt, int(count), bool(damped)))
    return tuple(tuple(stretches) for stretches in found)


def strang(moved: Sequence[int], dt: float, implicit: bool) -> list[tuple[int | None, float]]:
    """The factors of a step, symmetric: (axis, time) for transport, (None, dt) for the part with diffusion."""
    there: list[tuple[int | None, float]] = [(k, 0.5 * dt) for k in moved]
    middle: list[tuple[int | None, float]] = [(None, dt)] if implicit else []
    return [*there, *middle, *there[::-1]]
