"""The whole-array engine: the time loop in Python, coefficients called once a step on all paths of a block.

It runs what is not a formula: learned scores, reverse processes, functions that Numba cannot compile. The updates
are compiled loops over the same stage functions that the tile engine inlines, and the noise is the same stream, so
that both engines give the same paths up to the rounding of the coefficients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import cache, stream
from ..core.normals import DRAWS
from .schemes import Scheme

_UPDATE = """\
import numpy as np
from numba import njit, types

_A, _G = types.{dtype}[:, ::1], types.{dtype}[:, :, ::1]

@njit(types.void(_A, {signature}_A, types.{dtype}, types.{dtype}, _A), nogil=True, cache=CACHE, error_model="numpy")
def update(x, {arguments}w, h, root, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
{body}
"""


def updates(scheme: Scheme, dtype: Any, general: bool) -> list[Any]:
    """One compiled ``update(x, f…, g…, w, dt, √dt, out)`` for each stage: x and f (n, d); g (n, d) or (n, d, m)."""
    compiled = []
    drifts: list[str] = []
    noises: list[str] = []
    for number, stage in enumerate(scheme.stages):
        drifts += [f"f{number}{i}" for i in range(len(stage.drifts))]
        noises += [f"g{number}{i}" for i in range(len(stage.noises))]
        f_at = "".join(f"{name}[i, j], " for name in drifts)
        if general:
            g_at = "".join(f"{name}[i, j, k], " for name in noises)
            body = [
                f"v = _move(x[i, j], {f_at}h)",
                "for k in range(w.shape[1]):",
                f"    v = _kick(v, {g_at}w[i, k], h, root)",
                "out[i, j] = v",
            ]
        else:
            g_at = "".join(f"{name}[i, j], " for name in noises)
            body = [f"v = _move(x[i, j], {f_at}h)", f"out[i, j] = _kick(v, {g_at}w[i, j], h, root)"]
        text = _UPDATE.format(
            dtype=np.dtype(dtype).name,
            signature="_A, " * len(drifts) + ("_G, " if general else "_A, ") * len(noises),
            arguments="".join(f"{name}, " for name in (*drifts, *noises)),
            body="\n".join(" " * 12 + line for line in body),
        )
        compiled.append(cache.load(text, {"_move": stage.move, "_kick": stage.kick}).update)
    return compiled


def run(
    scheme: Scheme,
    coefficients: dict[str, Callable[[np.ndarray, float], np.ndarray]],
    x: np.ndarray,
    *,
    first_path: int,
    t0: float,
    dt: float,
    n_steps: int,
    seed: int,
    noise_dim: int,
    general: bool,
    increments: np.ndarray | None,
    records: np.ndarray,
    record: Callable[[int, np.ndarray], None],
    freeze: bool,
    stop: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Advance the states x (n, d); returns the final states and which paths were frozen or went bad.

    ``coefficients`` maps names to functions of (x (n, d), t) that return (n, d), or (n, d, m) for a general
    diffusion; ``record(index, x)`` is called at the steps in ``records``.
    """
    dtype = x.dtype
    n = len(x)
    steps = updates(scheme, dtype, general)
    draws = DRAWS[np.dtype(dtype)]
    fill = stream.normals_kernel(np.dtype(dtype))
    h, root = dtype.type(dt), dtype.type(np.sqrt(dt))
    z = np.empty((n, noise_dim, draws), dtype)
    dead = np.zeros(n, bool)
    x = np.ascontiguousarray(x)
    wanted = {int(step): index for index, step in enumerate(records)}
    if 0 in wanted:
        record(wanted[0], x)
    for s in range(n_steps):
        if stop[0]:
            break
        if increments is not None:
            w = np.ascontiguousarray(increments[:, s])
        else:
            if s % draws == 0:
                fill(z, first_path, s // draws, stream.WIENER, seed)
            w = root * np.ascontiguousarray(z[:, :, s % draws])
        point, f, g = x, [], []
        for stage, update in zip(scheme.stages, steps, strict=True):
            now = t0 + (s + stage.at) * dt
            f += [coefficients[name](point, now) for name in stage.drifts]
            g += [coefficients[name](point, now) for name in stage.noises]
            out = np.empty_like(x)
            update(x, *f, *g, w, h, root, out)
            point = out
        if freeze:
            dead |= ~np.isfinite(point).all(axis=1)
            point[dead] = x[dead]
        x = point
        if s + 1 in wanted:
            record(wanted[s + 1], x)
    return x, dead
