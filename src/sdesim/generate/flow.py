r"""The probability flow dX/dt = a X + b − ½ g² s(X, t), an ODE with the densities of the SDE (Song et al. 2021).

A **field** is a function (x (n, m), t, rows) -> dx/dt; t is one time for all rows or one each, and ``rows`` says which
rows of the block these are. Fixed steps use the stages of a scheme of the library; adaptive steps those of Dormand and
Prince, where every row chooses its own, so that a sample does not depend on which others are solved beside it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import cache, checks
from ..integrate import batch
from ..integrate.schemes import SCHEMES
from ..integrate.schemes.dopri5 import DOPRI5
from .rows import Rows, Stopped
from .sums import weighted

Field = Callable[[np.ndarray, Any, np.ndarray], np.ndarray]
FIXED = ("heun", "midpoint", "rk4")
MAX_STEPS = 100_000


def velocity(rows: Rows) -> Field:
    """The field of the flow for a block."""
    noised = rows.noised

    def field(x: np.ndarray, t: Any, which: np.ndarray) -> np.ndarray:
        if np.ndim(t) == 0:
            s = rows.score(x, t)
            found = weighted((noised.slope(t), x), (-0.5 * noised.diffusion(t) ** 2, s))
            offset = noised.offset(t)
            return found if offset == 0.0 else found + offset
        column = t[:, None]
        drift, g = noised.process.drift(x, column), noised.process.diffusion(x, column)
        return np.asarray(drift - 0.5 * g**2 * rows.score.of(which)(x, t), x.dtype)

    return field


def step(field: Field, name: str, shape: tuple[int, int], dtype: np.dtype) -> Callable[..., np.ndarray]:
    """A function (x, t, to) that takes one step of a scheme, in either direction of time."""
    scheme = SCHEMES[checks.choice("scheme", name, FIXED)]
    updates = batch.updates(scheme, dtype, False)
    still, everyone = np.zeros(shape, dtype), np.arange(shape[0])

    def advance(x: np.ndarray, t: float, to: float) -> np.ndarray:
        dt = to - t
        point, f, g = x, [], []
        for stage, update in zip(scheme.stages, updates, strict=True):
            now = to if stage.at == 1.0 else t + stage.at * dt
            f += [field(point, now, everyone) for _ in stage.drifts]
            g += [still for _ in stage.noises]
            if update is not None:
                out = np.empty_like(x)
                update(x, *f, *g, still, still, dtype.type(dt), dtype.type(math.sqrt(abs(dt))), out)
                point = out
        return point

    return advance


_TEXT = """\
from numba import njit, types

_A, _V = types.float64[:, ::1], types.float64[::1]

@njit(types.void(_A, {types}_V, _A), nogil=True, cache=CACHE, error_model="numpy")
def move(x, {fs}, h, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = _move(x[i, j], {at}, h[i])
"""

_ERROR = """\
import numpy as np
from numba import njit, types

_A, _V, _S = types.float64[:, ::1], types.float64[::1], types.float64

@njit(types.void(_A, _A, {types}_V, _S, _S, _V), nogil=True, cache=CACHE, error_model="numpy")
def error(x, y, {fs}, h, rtol, atol, out):
    for i in range(x.shape[0]):
        total = 0.0
        for j in range(x.shape[1]):
            scale = atol + rtol * max(abs(x[i, j]), abs(y[i, j]))
            part = _error({at}, h[i]) / scale
            total += part * part
        out[i] = np.sqrt(total / x.shape[1])
"""


def _text(template: str, count: int) -> str:
    names = [f"f{i}" for i in range(count)]
    return template.format(types="_A, " * count, fs=", ".join(names), at=", ".join(f"{name}[i, j]" for name in names))


def _kernels() -> tuple[list[Any], Any]:
    """The stages of Dormand and Prince with a step for each row, and the norm of the error estimate."""
    stages = DOPRI5.stages
    moves = [cache.load(_text(_TEXT, k + 1), {"_move": stage.move}).move for k, stage in enumerate(stages[:-1])]
    return moves, cache.load(_text(_ERROR, len(stages)), {"_error": DOPRI5.error}).error


def adaptive(
    field: Field, x: np.ndarray, t0: float, t1: float, rtol: float, atol: float, stop: np.ndarray | None = None
) -> np.ndarray:
    """x (n, m), float64, carried from t0 to t1 with a local error below rtol |x| + atol in every row's own steps."""
    moves, estimate = _kernels()
    sign, end = math.copysign(1.0, t1 - t0), abs(t1 - t0)
    done = x.copy()
    rows = np.arange(len(x))
    s = np.zeros(len(x))  # |t − t0| so far
    x = x.copy()
    slope = field(x, np.full(len(x), t0), rows)
    size = np.sqrt((x**2).mean(axis=1)) + atol
    h = np.minimum(end, 0.01 * size / (np.sqrt((slope**2).mean(axis=1)) + 1e-300))
    for _ in range(MAX_STEPS):
        if stop is not None and stop[0]:
            raise Stopped
        last = s + h >= end * (1.0 - 1e-12)
        h = np.where(last, end - s, h)
        f = [slope]
        signed = sign * h
        for number, advance in enumerate(moves):
            y = np.empty_like(x)
            advance(x, *f, signed, y)
            at = DOPRI5.stages[number + 1].at
            now = np.where(last & (at == 1.0), t1, t0 + sign * (s + at * h))
            f.append(field(y, now, rows))
        errors = np.empty(len(x))
        estimate(x, y, *f, signed, rtol, atol, errors)
        taken = errors <= 1.0
        change = np.clip(0.9 * np.maximum(errors, 1e-10) ** -0.2, 0.2, 5.0)
        s = np.where(taken, s + h, s)
        x[taken], slope[taken] = y[taken], f[-1][taken]
        finished = taken & last
        if finished.any():
            done[rows[finished]] = x[finished]
            go = ~finished
            rows, s, x, slope, h, change = rows[go], s[go], x[go], slope[go], h[go], change[go]
            if not len(rows):
                return done
        h = h * change
        small = ~(h > 1e-13 * end)
        if small.any():
            t = t0 + sign * float(s[int(small.argmax())])
            raise RuntimeError(
                f"the flow needs steps below rounding at t = {t:g} (row {int(rows[small][0])} of a block): "
                "the score is not smooth there; raise rtol, or end earlier (t_end)"
            )
    raise RuntimeError(f"the probability flow took more than {MAX_STEPS} steps; raise rtol")
