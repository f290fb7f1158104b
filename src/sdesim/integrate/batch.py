"""The whole-array engine: the time loop in Python, coefficients called once a step on all paths of a block.

It runs what is not a formula: learned scores, reverse processes, functions that Numba cannot compile. The updates
are compiled loops over the same stage functions that the tile engine inlines, and the noise is the same stream, so
that both engines give the same paths up to the rounding of the coefficients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import cache, functions, stream
from ..core.normals import DRAWS
from .schemes import Scheme, mala

_UPDATE = """\
import numpy as np
from numba import njit, types

_A, _G = types.{dtype}[:, ::1], types.{dtype}[:, :, ::1]

@njit(types.void(_A, {signature}_A, _A, types.{dtype}, types.{dtype}, _A), nogil=True, cache=CACHE,
      error_model="numpy")
def update(x, {arguments}w, z, h, root, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
{body}
"""


def updates(scheme: Scheme, dtype: Any, general: bool) -> list[Any]:
    """One compiled ``update(x, f…, g…, w, z, dt, √dt, out)`` for each stage that moves, None for one that does not.

    x and f are (n, d); g is (n, d) or (n, d, m); w and z, the increments and the space-time integrals, (n, m).
    """
    compiled: list[Any] = []
    drifts: list[str] = []
    noises: list[str] = []
    for number, stage in enumerate(scheme.stages):
        drifts += [f"f{number}{i}" for i in range(len(stage.drifts))]
        noises += [f"g{number}{i}" for i in range(len(stage.noises))]
        if stage.move is None:
            compiled.append(None)
            continue
        names = {"_move": stage.move}
        if stage.kick is not None:
            names["_kick"] = stage.kick
        f_at = "".join(f"{name}[i, j], " for name in drifts)
        draws = "w[i, {0}], z[i, {0}]" if scheme.space_time else "w[i, {0}]"
        if stage.kick is None:
            body = [f"out[i, j] = _move(x[i, j], {f_at}h)"]
        elif general:
            g_at = "".join(f"{name}[i, j, k], " for name in noises)
            body = [
                f"v = _move(x[i, j], {f_at}h)",
                "for k in range(w.shape[1]):",
                f"    v = _kick(v, {g_at}{draws.format('k')}, h, root)",
                "out[i, j] = v",
            ]
        else:
            g_at = "".join(f"{name}[i, j], " for name in noises)
            body = [
                f"v = _move(x[i, j], {f_at}h)",
                f"out[i, j] = _kick(v, {g_at}{draws.format('j')}, h, root)",
            ]
        text = _UPDATE.format(
            dtype=np.dtype(dtype).name,
            signature="_A, " * len(drifts) + ("_G, " if general else "_A, ") * len(noises),
            arguments="".join(f"{name}, " for name in (*drifts, *noises)),
            body="\n".join(" " * 12 + line for line in body),
        )
        compiled.append(cache.load(text, names).update)
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
    look: Callable[[int, np.ndarray, np.ndarray, np.ndarray], None] | None,
    freeze: bool,
    counts: np.ndarray,
    stop: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Advance the states x (n, d); returns the final states and which paths were frozen or went bad.

    ``coefficients`` maps names to functions of (x (n, d), t) that return (n, d), or (n, d, m) for a general
    diffusion; ``record(index, x)`` is called at the steps in ``records``; ``look(step, before, x, g)`` after every
    step, with the diffusion before it, and may change x.
    """
    dtype = x.dtype
    noise = Noise(scheme, dtype, len(x), noise_dim, first_path, dt, seed, increments)
    h, root = dtype.type(dt), dtype.type(np.sqrt(dt))
    dead = np.zeros(len(x), bool)
    x = np.ascontiguousarray(x)
    wanted = {int(step): index for index, step in enumerate(records)}
    if look is not None:
        x = x.copy()
        look(-1, x, x, coefficients["diffusion"](x, t0))
    if 0 in wanted:
        record(wanted[0], x)
    if scheme.metropolis:
        advance = _metropolis(coefficients, dtype, len(x), first_path, seed, counts, keeps=not freeze)
    else:
        advance = _stages(scheme, coefficients, dtype, general)
    for s in range(n_steps):
        if stop[0]:
            break
        try:
            point = advance(s, x, t0 + s * dt, dt, *noise(s), h, root)
        except Exception as error:
            row = getattr(error, "row", None)
            paths = f"paths {first_path} to {first_path + len(x) - 1}" if row is None else f"path {first_path + row}"
            error.add_note(f"in the step from {s} to {s + 1} (t = {t0 + s * dt:g}) of {paths}")
            raise
        if look is not None:
            look(s, x, point, coefficients["diffusion"](x, t0 + s * dt))
        if freeze:
            dead |= ~np.isfinite(point).all(axis=1)
            point[dead] = x[dead]
        x = point
        if s + 1 in wanted:
            record(wanted[s + 1], x)
    return x, dead


def _stages(
    scheme: Scheme, coefficients: dict[str, Callable[..., np.ndarray]], dtype: np.dtype, general: bool
) -> Callable[..., np.ndarray]:
    """One step of a scheme that is a list of stages."""
    steps = updates(scheme, dtype, general)

    def advance(
        s: int, x: np.ndarray, t: float, dt: float, w: np.ndarray, z: np.ndarray, h: Any, root: Any
    ) -> np.ndarray:
        point, f, g = x, [], []
        for stage, update in zip(scheme.stages, steps, strict=True):
            now = t + stage.at * dt
            f += [coefficients[name](point, now) for name in stage.drifts]
            g += [coefficients[name](point, now) for name in stage.noises]
            if update is not None:
                out = np.empty_like(x)
                update(x, *f, *g, w, z, h, root, out)
                point = out
        return point

    return advance


_PROPOSE = """\
import numpy as np
from numba import njit, types

_A, _S = types.{dtype}[:, ::1], types.{dtype}

@njit(types.void(_A, _A, _A, _A, _S, _S, _A), nogil=True, cache=CACHE, error_model="numpy")
def propose(x, f, g, w, h, root, y):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = _kick(_move(x[i, j], f[i, j], h), g[i, j], w[i, j], h, root)
"""

_DECIDE = """\
import numpy as np
from numba import njit, types

_A, _V, _S = types.{dtype}[:, ::1], types.{dtype}[::1], types.{dtype}

@njit(types.void(_A, _A, _A, _A, _V, _V, _A, types.float64[::1], _S, types.int64[:, ::1]), nogil=True, cache=CACHE,
      error_model="numpy")
def decide(x, y, f, new_f, log_p, new_log_p, g, u, h, counts):
    for i in range(x.shape[0]):
        forward = backward = h - h
        for j in range(x.shape[1]):
            forward = _squared(forward, x[i, j], y[i, j], f[i, j], h)
            backward = _squared(backward, y[i, j], x[i, j], new_f[i, j], h)
        v = _log_ratio(log_p[i], new_log_p[i], forward, backward, g[i, 0], h)
        taken = _S(u[i]) < _exp(v)                  # a ratio that is not a number rejects
        counts[0 if taken else 1, i] += 1
        log_p[i] = new_log_p[i] if taken else log_p[i]
        for j in range(x.shape[1]):
            f[i, j] = new_f[i, j] if taken else f[i, j]
            y[i, j] = y[i, j] if taken else x[i, j]
"""


def _metropolis(
    coefficients: dict[str, Callable[..., np.ndarray]], dtype: np.dtype, n: int, first_path: int, seed: int,
    counts: np.ndarray, keeps: bool,
) -> Callable[..., np.ndarray]:  # fmt: skip
    """One proposal and its test, with the formulas of ``schemes.mala``.

    ``keeps``: nothing else changes the states, so what is known of them serves in the next step.
    """
    stage = {"_move": mala.move, "_kick": mala.kick}
    propose = cache.load(_PROPOSE.format(dtype=dtype.name), stage).propose
    tests = {"_squared": mala.squared, "_log_ratio": mala.log_ratio, "_exp": functions.exp}
    decide = cache.load(_DECIDE.format(dtype=dtype.name), tests).decide
    known: dict[str, Any] = {"x": None}

    def evaluate(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        log_p = np.array(coefficients["log_density"](x, t), dtype).reshape(n)
        return np.array(coefficients["drift"](x, t), dtype), log_p

    def advance(
        s: int, x: np.ndarray, t: float, dt: float, w: np.ndarray, z: np.ndarray, h: Any, root: Any
    ) -> np.ndarray:
        if known["x"] is not x:
            known["f"], known["log_p"] = evaluate(x, t)
        if s % 2 == 0:
            known["u"] = stream.uniforms_at(seed, stream.ACCEPTANCE, n, s // 2, first_path=first_path)
        g, y = coefficients["diffusion"](x, t), np.empty_like(x)
        propose(x, known["f"], g, w, h, root, y)
        new_f, new_log_p = evaluate(y, t)
        decide(x, y, known["f"], new_f, known["log_p"], new_log_p, g, known["u"][s % 2], h, counts)
        known["x"] = y if keeps else None
        return y

    return advance


class Noise:
    """The increments of step s for a block of paths, and their space-time integrals where the scheme takes them."""

    def __init__(
        self, scheme: Scheme, dtype: np.dtype, n: int, m: int, first_path: int, dt: float, seed: int, given: Any
    ) -> None:
        self.scheme, self.given, self.m = scheme, given, m
        self.place = (first_path, seed)
        self.draws, self.fill = DRAWS[np.dtype(dtype)], stream.normals_kernel(np.dtype(dtype))
        self.h, self.root, self.rest = dtype.type(dt), dtype.type(np.sqrt(dt)), dtype.type(np.sqrt(dt / 12.0))
        self.half = dtype.type(0.5)
        silent = scheme.noise == ("none",) or given is not None
        purposes = [] if silent else [stream.WIENER, stream.SPACE_TIME][: 2 if scheme.space_time else 1]
        self.normals = {purpose: np.empty((n, m, self.draws), dtype) for purpose in purposes}
        self.none = np.zeros((n, m), dtype)

    def __call__(self, s: int) -> tuple[np.ndarray, np.ndarray]:
        """(dW, dZ), each (n, m)."""
        if self.given is not None:
            rows = self.given[:, s]
            return np.ascontiguousarray(rows[:, : self.m]), np.ascontiguousarray(rows[:, self.m :])
        first_path, seed = self.place
        if s % self.draws == 0:
            for purpose, z in self.normals.items():
                self.fill(z, first_path, s // self.draws, purpose, seed)
        if not self.normals:
            return self.none, self.none
        w = self.root * np.ascontiguousarray(self.normals[stream.WIENER][:, :, s % self.draws])
        if not self.scheme.space_time:
            return w, self.none
        z = self.normals[stream.SPACE_TIME][:, :, s % self.draws]
        return w, self.h * (self.half * w + self.rest * z)
