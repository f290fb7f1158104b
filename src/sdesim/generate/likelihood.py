r"""The density of a point under a score model, by the probability flow, in nats and in bits per dimension.

Along the flow dX/dt = v(X, t) = a X + b − ½ g² s(X, t),

    log p₀(x) = log p_T(X_T) + ∫₀ᵀ ∇·v(X_t, t) dt,      ∇·v = a d − ½ g² ∇·s

from X₀ = x (Song et al. 2021, equations 39 and 40; Chen et al. 2018). p_T is taken for the normal law N(m, V I) that
the score itself shows at the horizon, m its zero near β and V = −d/∇·s(m, T): the prior N(β, v I), and what is left of
the data in it (for σ_max = 50 and data of mean 1, a shift of 0.02 standard deviations).

Below ``t_min`` no score is asked for: the flow from t = 0 to there is driven by the score at ``t_min``, which for a
density smooth on that scale is a second-order error.
"""

import contextlib
import functools
from typing import Any

import numpy as np

from ..core import blas, blocks, checks, identity, stream
from ..core.checkpoint import Checkpoint
from ..core.kept_rows import KeptRows
from . import flow
from .divergence import divergence_of
from .guided import Guidance, GuidedScore, check_labels
from .linear import Noised
from .rows import Rows, Stopped

LOG_2PI = float(np.log(2.0 * np.pi))


def log_likelihood(
    process: Any,
    score: Any,
    x: Any,
    *,
    divergence: str = "exact",
    n_probes: int = 1,
    n_steps: int | None = None,
    scheme: str = "rk4",
    rtol: float | None = None,
    t_end: float | None = None,
    horizon: float | None = None,
    seed: int | None = 0,
    labels: Any = None,
    workers: int | None = None,
    progress: Any = False,
    checkpoint: Any = None,
) -> np.ndarray:
    r"""log p₀(x) in nats, or log p₀(x | label), one number a point.

    Parameters
    ----------
    process, score
        As for ``sample``.
    x : (n, d)
        Points; for one dimension (n,) is taken too.
    divergence : "exact" or "hutchinson"
        Exact: the score's own ``divergence(x, t)`` (closed form for networks of one and two hidden layers), or central
        differences for a plain function of up to 64 dimensions, at 2d evaluations. Hutchinson: vᵀ(∂s/∂x)v with
        ``n_probes`` vectors of signs per point: unbiased, its standard deviation falls as 1/√n_probes.
    n_steps, scheme : int, str
        Fixed steps of "rk4", "heun" or "midpoint", equal in t^{1/3}. Without n_steps the steps are adaptive:
    rtol : float
        Dormand & Prince's method with this tolerance, 1e-5 unless given.
    t_end : float
        The smallest time that the score is asked for, the process's ``t_min`` unless given.
    seed : int
        Of the probes.
    labels : int or (n,)
        Classes, −1 for none, as in ``sample``: the density is that of each point's class.
    checkpoint : path
        As in ``sample``.

    Raises
    ------
    ValueError, TypeError
        Wrong shapes; classes the network does not have; a score that returns nan, with the time and the row.

    References
    ----------
    Song et al. (2021), section 4.3 and appendix D.2; Hutchinson (1989); Grathwohl et al. (2019).
    """
    noised = Noised(process, horizon)
    checks.function("score", score, "score(x, t) with x of shape (n, d)")
    points = _points(score, x)
    n, d = points.shape
    checks.choice("divergence", divergence, ("exact", "hutchinson"))
    count = checks.integer("n_probes", n_probes, minimum=1)
    low = noised.t_min if t_end is None else checks.real("t_end", t_end, minimum=0.0)
    if not low < noised.horizon:
        raise ValueError(f"t_end must lie below the horizon = {noised.horizon:g}, got {low:g}")
    if n_steps is not None and rtol is not None:
        raise ValueError("n_steps and rtol are both given; fixed steps take n_steps, adaptive ones rtol")
    if n_steps is not None:
        checks.choice("scheme", scheme, flow.FIXED)
        n_steps = checks.integer("n_steps", n_steps, minimum=1)
    tolerance = 1e-5 if rtol is None else checks.real("rtol", rtol, above=0.0)
    file = None if checkpoint is None else Checkpoint(checkpoint, "likelihood")
    seed = checks.seed(seed if file is None else file.seed(seed))
    checks.progress(progress)
    classes = check_labels(score, labels, n)
    found = np.empty(n)
    stop = np.zeros(1, np.int64)

    def one(block: blocks.Block) -> np.ndarray:
        here = slice(block.offset, block.offset + block.size)
        given = None if classes is None else classes[here]
        guided = GuidedScore(noised, score, Guidance(None, None), given, range(here.start, here.stop))
        rows = Rows(noised, guided, (block.size, d), np.dtype(np.float64), block.first, seed, stop=stop)
        trace = divergence_of(
            score, divergence, d, n_probes=count, seed=seed, first_path=block.first, n=block.size,
            width=lambda t: np.sqrt(process.added_variance(t)), labels=given,
        )  # fmt: skip
        field = _augmented(rows, trace, low)
        state = np.concatenate([points[here], np.zeros((block.size, 1))], axis=1)
        if n_steps is None:
            state = flow.adaptive(field, state, 0.0, noised.horizon, tolerance, tolerance, stop)
        else:
            times = noised.horizon * (np.arange(n_steps + 1) / n_steps) ** 3
            step = flow.step(field, scheme, state.shape, state.dtype)
            for t, later in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
                if stop[0]:
                    raise Stopped
                state = step(state, t, later)
        found[here] = state[:, d] + _log_prior(rows, trace, state[:, :d])
        return found[here]

    work, kept = blocks.cut(0, n, blocks.LEAF), None
    with file or contextlib.nullcontext(), blas.single_threaded():
        if file is not None:
            settings = identity.settings(
                process=process, horizon=horizon, score=score, x=points, divergence=divergence, n_probes=count,
                n_steps=n_steps, scheme=scheme, rtol=tolerance, t_end=low, labels=classes, seed=seed,
            )  # fmt: skip
            kept = KeptRows(file, settings, (), np.float64)
        parts, whole = blocks.run(
            one, work, (), workers=blocks.check_executor(None, workers), stop=stop, progress=progress, unit=" points",
            found={} if kept is None else kept.begin(work, found),
            keep=None if kept is None else functools.partial(kept.keep, stop),
        )  # fmt: skip
        if kept is not None and whole:
            kept.finish(parts)
    if not whole:
        raise KeyboardInterrupt
    return found


def _points(score: Any, x: Any) -> np.ndarray:
    points = checks.array("x", x)
    dim = getattr(score, "dim", None)
    if points.ndim == 1 and (dim == 1 or dim is None):
        points = points.reshape(-1, 1)
    if points.ndim != 2 or (isinstance(dim, int) and points.shape[1] != dim) or not points.size:
        raise ValueError(f"x has shape {points.shape}, expected (n, {dim if isinstance(dim, int) else 'd'})")
    return points


def _augmented(rows: Rows, trace: Any, low: float) -> flow.Field:
    """d/dt of (X, ∫ ∇·v): the flow, and the logarithm of the volume that it carries."""
    process = rows.noised.process

    def field(state: np.ndarray, t: Any, which: np.ndarray) -> np.ndarray:
        d = state.shape[1] - 1
        x = np.ascontiguousarray(state[:, :d])
        seen = np.maximum(t, low) if np.ndim(t) else max(t, low)
        column = t[:, None] if np.ndim(t) else t
        half = 0.5 * process.diffusion(0.0, column) ** 2
        out = np.empty_like(state)
        out[:, :d] = process.drift(x, column) - half * rows.score.of(which)(x, seen)
        slope = process.drift(1.0, column) - process.drift(0.0, column)
        out[:, d] = d * np.reshape(slope, -1) - np.reshape(half, -1) * trace(x, seen, which)
        return out

    return field


def _log_prior(rows: Rows, trace: Any, x: np.ndarray) -> np.ndarray:
    """log N(x; m, V I), m and V of each class from the score at the horizon."""
    noised, (n, d) = rows.noised, x.shape
    horizon = noised.horizon
    variance = noised.variance(horizon)
    labels = np.zeros(n, np.int64) if rows.score.labels is None else rows.score.labels
    _, first, kind = np.unique(labels, return_index=True, return_inverse=True)  # one row of each class stands for it
    score = rows.score.of(first)
    centre = np.full((len(first), d), noised.shift(horizon))
    centre = centre + variance * score(centre, horizon)
    centre = centre + variance * score(centre, horizon)
    spread = -d / trace(centre, horizon, first)
    # a probe or a poorly trained score: the noise alone is the better guess
    spread = np.where((spread > 0.5 * variance) & (spread < 2.0 * variance), spread, variance)[kind]
    return -0.5 * ((x - centre[kind]) ** 2).sum(axis=1) / spread - 0.5 * d * (np.log(spread) + LOG_2PI)


def bits_per_dim(
    process: Any, score: Any, pixels: Any, *, levels: int = 256, low: float = -1.0, high: float = 1.0,
    seed: int | None = 0, **options: Any,
) -> np.ndarray:  # fmt: skip
    r"""Bits per dimension of images with whole-numbered pixels 0 … levels − 1, one number an image.

    The pixels are dequantised with uniform noise u, (k + u)/levels, and put on (low, high), where the score lives; then

        bits = −(log p(x) + d log((high − low)/levels))/(d ln 2),

    which on average is an upper bound of the bits of the discrete pixels (Uria et al. 2013; Theis et al. 2016).

    ``options`` are those of :func:`log_likelihood`, ``labels`` among them.
    """
    given = np.asarray(pixels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"pixels must be whole numbers 0 … {levels - 1}, got dtype {given.dtype}")
    levels = checks.integer("levels", levels, minimum=2)
    low, high = checks.real("low", low), checks.real("high", high)
    if not high > low:
        raise ValueError(f"high must be > low = {low:g}, got {high:g}")
    if given.size and (given.min() < 0 or given.max() >= levels):
        raise ValueError(f"pixels must lie in 0 … {levels - 1}, got {given.min()} to {given.max()}")
    if given.ndim < 2:
        raise ValueError(f"pixels has shape {given.shape}, expected (n, d) or (n, height, width, ...)")
    rows = given.reshape(len(given), -1)
    n, d = rows.shape
    seed = checks.seed(seed)
    u = stream.uniforms(seed, stream.INITIAL, n, d)[:, :, 0]
    x = low + (high - low) * (rows + u) / levels
    nats = log_likelihood(process, score, x, seed=seed, **options)
    return -(nats + d * np.log((high - low) / levels)) / (d * np.log(2.0))
