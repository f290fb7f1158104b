r"""∇·s of any score: exact where it knows its own, by differences in low dimension, or estimated (Hutchinson 1989).

exact        score.divergence(x, t); for a plain function Σᵢ (sᵢ(x + h eᵢ) − sᵢ(x − h eᵢ))/2h, 2d evaluations
hutchinson   the mean of vᵀJv over vectors v of random signs, E[vvᵀ] = I: unbiased, one tangent each
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks, stream

STACKED_DIM = 64
METHODS = ("exact", "hutchinson")


def divergence_of(
    score: Any, method: str, d: int, *, n_probes: int, seed: int, first_path: int, n: int, width: Callable[[Any], Any],
    labels: np.ndarray | None = None,
) -> Callable[..., np.ndarray]:  # fmt: skip
    """A function (x, t, rows) -> ∇·s (len(x),), for rows of a block of n.

    ``width(t)`` is the standard deviation of the noise, which sets the step h of differences; ``labels`` (n,) are the
    classes of the block's rows.
    """
    checks.choice("divergence", method, METHODS)

    def given(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {} if labels is None else {"labels": labels[rows]}

    if method == "exact":
        if hasattr(score, "divergence"):
            return lambda x, t, rows: np.asarray(score.divergence(x, t, **given(rows)), dtype=np.float64)
        if d > STACKED_DIM:
            raise ValueError(
                f"the score has no divergence(x, t), and differences in {d} dimensions would take {2 * d} evaluations; "
                "take divergence='hutchinson'"
            )
        return lambda x, t, rows: _trace(functools.partial(score, **given(rows)), x, t, _step(t, width))
    draws = stream.normals(seed, stream.TRAINING, n, d, n_probes, first_path=first_path)
    signs = np.where(draws >= 0.0, 1.0, -1.0)  # one set of probes for the whole path: it is then an ODE

    def estimate(x: np.ndarray, t: Any, rows: np.ndarray) -> np.ndarray:
        total, known = np.zeros(len(x)), given(rows)
        for k in range(n_probes):
            v = np.ascontiguousarray(signs[rows, :, k])
            if hasattr(score, "jacobian_vector"):
                along = score.jacobian_vector(x, t, v, **known)[1]
            else:
                h = _step(t, width)
                along = (score(x + h * v, t, **known) - score(x - h * v, t, **known)) / (2.0 * h)
            total += (v * along).sum(axis=1)
        return total / n_probes

    return estimate


def _step(t: Any, width: Callable[[Any], Any]) -> Any:
    """h: the error of a central difference is h² s‴/6, and 1e-16 |s|/h by rounding."""
    h = 1e-5 * np.clip(width(t), 1e-2, 1e2)
    return h if np.ndim(h) == 0 else h[:, None]


def _trace(score: Any, x: np.ndarray, t: Any, h: Any) -> np.ndarray:
    total = np.zeros(len(x))
    for i in range(x.shape[1]):
        unit = np.zeros(x.shape[1])
        unit[i] = 1.0
        change = np.asarray(score(x + h * unit, t)) - np.asarray(score(x - h * unit, t))
        total += (change / (2.0 * h))[:, i]
    return total
