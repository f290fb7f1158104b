"""The side of the samples: arrays, paths at a time, or a histogram that counted them already."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..core import checks
from .counting import refuse_nonfinite

MIN_SAMPLES = 100
"""Fewest samples: the floors and limits are those of many samples."""


def samples(given: Any, time: int, t: float | None, component: int | None, dim: int) -> np.ndarray:
    """The samples, (n,) for one component or dimension and (n, dim) for several, float32 or float64 as they came."""
    of_paths = hasattr(given, "final")
    name = "paths.final" if of_paths else "paths_or_samples"
    x = np.asarray(_state(given, time, t) if of_paths else given)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim == 2 and component is not None:
        x = x[:, checks.integer("component", component, minimum=0, below=x.shape[1])]
    joint = dim > 1 and component is None
    if joint and (x.ndim != 2 or x.shape[1] != dim):
        raise ValueError(
            f"{name} has shape {x.shape}, a {dim}-D density needs (n, {dim}); compare one component with component=0"
        )
    if not joint and x.ndim == 2:
        raise ValueError(
            f"{name} has shape {x.shape}, a 1-D density needs (n,); "
            f"choose one of the {x.shape[1]} components with component=0"
        )
    if not joint and x.ndim != 1:
        raise ValueError(f"{name} has shape {x.shape}, expected (n,)")
    if len(x) < MIN_SAMPLES:
        raise ValueError(f"{name} must hold >= {MIN_SAMPLES} samples, got {len(x)}; noise floors need as many")
    return x


def _state(paths: Any, time: int, t: float | None) -> Any:
    """The state of the paths at the time of rho, or at the index where rho has no time."""
    if getattr(paths, "t", None) is None:
        return paths.final
    index = _index(np.ravel(paths.t), time, t, "paths")
    return paths.final if index == np.size(paths.t) - 1 else paths.x[:, index]


def _index(times: np.ndarray, time: int, t: float | None, name: str) -> int:
    """Which of the saved times is t; the one with index ``time`` where rho has no time or is stationary."""
    if t is None or not math.isfinite(t):
        if not -times.size <= time < times.size:
            raise ValueError(f"time must be an index into the {times.size} saved times of {name}, got {time}")
        return time % times.size
    index = int(np.abs(times - t).argmin())
    if abs(times[index] - t) > 1e-9 * (1 + abs(t)):
        raise ValueError(
            f"{name} must hold the time of rho, t = {t:g}, got times from {times[0]:g} to {times[-1]:g}; "
            "save it, choose another time=, or give paths.final to compare whatever the times"
        )
    return index


def central_edges(x: np.ndarray) -> np.ndarray:
    """Cells to compare with a distribution function: the samples' range, or 20 interquartile ranges of it."""
    refuse_nonfinite(x)
    low, middle, high = np.percentile(x[:: max(1, x.size // 100_000)], [25, 50, 75])
    reach = 20 * (high - low) if high > low else math.inf
    lower, upper = max(float(x.min()), middle - reach), min(float(x.max()), middle + reach)
    if not upper > lower:
        raise ValueError(f"paths_or_samples must not all be equal, got {lower:g} throughout")
    return np.linspace(lower, upper, 1025)


class Counts(NamedTuple):
    """A histogram at one time: the edges of its axes, the counts of its boxes, and the samples in none of them."""

    axes: tuple[np.ndarray, ...]
    inside: np.ndarray
    outside: int

    def marginal(self, component: int) -> "Counts":
        others = tuple(k for k in range(len(self.axes)) if k != component)
        return Counts((self.axes[component],), self.inside.sum(axis=others), self.outside)


def histogram(given: Any, time: int, t: float | None) -> Counts:
    """The counts of a histogram (``counts``, ``edges``) at the time of rho, checked."""
    several = isinstance(given.edges, tuple)
    axes = tuple(checks.array("histogram.edges", edges) for edges in (given.edges if several else [given.edges]))
    for edges in axes:
        if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
            raise ValueError(f"histogram.edges must be one increasing array of edges, got shape {edges.shape}")
    inside = np.asarray(given.counts)
    outside = np.asarray(getattr(given, "outside", np.zeros(inside.shape[: -len(axes)])))
    if inside.ndim == len(axes) + 1:
        times = getattr(given, "t", None)
        if times is None:
            index = _index(np.arange(len(inside)), time, None, "histogram")
        else:
            index = _index(np.ravel(times), time, t, "histogram")
        inside, outside = inside[index], outside[index]
    shape = tuple(edges.size - 1 for edges in axes)
    if inside.shape != shape:
        cells = " x ".join(map(str, shape))
        raise ValueError(f"histogram.counts has shape {inside.shape}, its edges make {cells} cells")
    if inside.min() < 0 or np.any(inside != np.floor(inside)):
        raise ValueError("histogram.counts must be whole numbers >= 0; noise floors need counts, not a density")
    return Counts(axes, inside.astype(np.int64), int(outside))
