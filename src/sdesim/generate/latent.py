r"""Latent codes: the probability flow as a bijection between data and normal noise.

``encode`` runs the flow from t_end to the horizon and returns z = (X_T − β)/√v, which is near N(0, I) for data of the
model; ``decode`` runs it back. Points between two codes on the sphere (``interpolate``) keep the length that normal
noise has in many dimensions.
"""

from typing import Any

import numpy as np

from ..core import blas, blocks, checks
from . import flow
from .guided import Guidance, GuidedScore, check_labels
from .likelihood import _points
from .linear import Noised
from .rows import Rows


def encode(
    process: Any, score: Any, x: Any, *, rtol: float = 1e-6, t_end: float | None = None, labels: Any = None,
    **options: Any,
) -> np.ndarray:  # fmt: skip
    """z (n, d), the code of each point.

    Parameters
    ----------
    process, score
        As for ``sample``.
    x : (n, d)
    rtol : float
        Of the adaptive steps; the round trip through ``decode`` is right to a few times this, or to a thousand times
        between the modes of the data, where the flow pulls neighbours apart.
    t_end : float
        The time that the points are taken for, the process's ``t_min`` unless given.
    labels : int or (n,)
        Classes, −1 for none, as in ``sample``: the flow is that of each point's class.
    options
        horizon, workers, progress.
    """
    return _carry(process, score, x, rtol, t_end, labels, True, **options)


def decode(
    process: Any, score: Any, z: Any, *, rtol: float = 1e-6, t_end: float | None = None, labels: Any = None,
    **options: Any,
) -> np.ndarray:  # fmt: skip
    """x (n, d), the point of each code: the inverse of :func:`encode` with the same ``labels``.

    With other labels than the points were encoded with, it is the point of another class that shares their code.
    """
    return _carry(process, score, z, rtol, t_end, labels, False, **options)


def interpolate(z0: Any, z1: Any, n: int) -> np.ndarray:
    r"""n codes from z0 to z1 along the great circle, (n, d) or (n, m, d) for m pairs.

    sin((1 − u)ω)/sin ω · z0 + sin(uω)/sin ω · z1 with ω the angle between the two (Shoemake 1985; White 2016).
    """
    first, last = checks.array("z0", z0), checks.array("z1", z1)
    if first.shape != last.shape or first.ndim not in (1, 2):
        raise ValueError(f"z0 and z1 have shapes {first.shape} and {last.shape}, expected (d,) or (m, d), the same")
    u = np.linspace(0.0, 1.0, checks.integer("n", n, minimum=2)).reshape(-1, *(1,) * first.ndim)
    norms = np.linalg.norm(first, axis=-1, keepdims=True) * np.linalg.norm(last, axis=-1, keepdims=True)
    cosine = (first * last).sum(axis=-1, keepdims=True) / np.where(norms > 0.0, norms, 1.0)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    straight = sine < 1e-6  # nearly parallel, or opposite, where no great circle is singled out
    safe = np.where(straight, 1.0, sine)
    a = np.where(straight, 1.0 - u, np.sin((1.0 - u) * angle) / safe)
    b = np.where(straight, u, np.sin(u * angle) / safe)
    return np.asarray(a * first + b * last)


def _carry(
    process: Any, score: Any, points: Any, rtol: Any, t_end: Any, labels: Any, up: bool, *,
    horizon: float | None = None, workers: int | None = None, progress: Any = False,
) -> np.ndarray:  # fmt: skip
    noised = Noised(process, horizon)
    checks.function("score", score, "score(x, t) with x of shape (n, d)")
    checks.progress(progress)
    points = _points(score, points)
    n, d = points.shape
    classes = check_labels(score, labels, n)
    tolerance = checks.real("rtol", rtol, above=0.0)
    low = noised.t_min if t_end is None else checks.real("t_end", t_end, minimum=0.0)
    top = noised.horizon
    shift, std = noised.shift(top), float(np.sqrt(noised.variance(top)))
    found, stop = np.empty((n, d)), np.zeros(1, np.int64)

    def one(block: blocks.Block) -> None:
        here = slice(block.offset, block.offset + block.size)
        given = None if classes is None else classes[here]
        guided = GuidedScore(noised, score, Guidance(None, None), given, range(here.start, here.stop))
        field = flow.velocity(Rows(noised, guided, (block.size, d), np.dtype(np.float64), block.first, 0))
        if up:
            moved = flow.adaptive(field, points[here], low, top, tolerance, tolerance, stop)
            found[here] = (moved - shift) / std
        else:
            found[here] = flow.adaptive(field, shift + std * points[here], top, low, tolerance, tolerance, stop)

    with blas.single_threaded():
        _, whole = blocks.run(
            one, blocks.cut(0, n, blocks.LEAF), (), workers=blocks.check_executor(None, workers), stop=stop,
            progress=progress, unit=" points",
        )  # fmt: skip
    if not whole:
        raise KeyboardInterrupt
    return found
