"""The verb: samples on one side, a law on the other, one partition for both."""

import numbers
from typing import Any

import numpy as np

from ..core import checks
from .counting import count, count_points
from .law import distribution_function, law_of, nearest, shared, summed
from .measures import on_boxes, on_line
from .result import Comparison
from .samples import MIN_SAMPLES, Counts, central_edges, histogram, samples


def compare(
    paths_or_samples: Any,
    rho: Any,
    *,
    time: int = -1,
    component: int | None = None,
    cells: Any = None,
    absorbed: int = 0,
    bias: float = 0.0,
    alpha: float = 1e-4,
) -> Comparison:
    r"""Distances between samples and a density, each with its Monte-Carlo noise floor.

    Parameters
    ----------
    paths_or_samples : Paths, histogram or array
        Independent draws: paths from :func:`simulate` (their state at the time of rho is taken), the
        result of a ``Histogram`` reduction (``counts``, ``edges``), or an array (n,) or (n, d). States of one path at
        many times are not independent, and their distances lie above the floors.
    rho : Density, or a distribution function
        A solved density (``grid``, ``final``) of 1 to 3 dimensions, or a function cdf(x) of an array, or an object
        with such a ``cdf``: a one-dimensional target.
    time : int
        Which of the saved times of rho (an index, the last by default); paths must hold that time.
    component : int, optional
        Compare this component only, with its marginal of a density of several dimensions.
    cells : int, optional
        Number of cells for L1, KL and chi-square (along each axis; a sequence gives each its own); by default as
        the module explains.
    absorbed : int
        Paths that an absorbing wall has taken out of the samples; they are counted with those outside the
        grid and held against the mass that rho has lost.
    bias : float
        Bound on the error of rho itself, or of the scheme behind the samples, as the root mean square of
        its relative error, (∫ (δp)²/p dx)^½; the limits of ``within_noise`` and the chi-square p-value
        allow for it. Without it a discretisation error is found as soon as n is large enough, which is
        right, but may not be the question.
    alpha : float
        Probability that ``within_noise`` refuses samples of rho.

    Returns
    -------
    Comparison
        For a density of several dimensions, without ``component``, a JointComparison.

    Raises
    ------
    ValueError
        Fewer than 100 samples, samples that are not finite or have not the dimension of rho, a density that is
        negative or holds more than mass 1, paths without the state at the time of rho, and a histogram whose edges
        are not edges of the grid.
    """
    alpha = checks.real("alpha", alpha, above=0.0)
    if alpha >= 1:
        raise ValueError(f"alpha must be < 1, got {alpha:g}")
    bias = checks.real("bias", bias, minimum=0.0)
    absorbed = checks.integer("absorbed", absorbed, minimum=0)
    if isinstance(time, (bool, np.bool_)) or not isinstance(time, numbers.Integral):
        raise TypeError(f"time must be an integer, the index of a saved time (-1 for the last), got {time!r}")
    time = int(time)

    cdf = None if hasattr(rho, "grid") else getattr(rho, "cdf", rho if callable(rho) else None)
    law = law_of(rho, time) if cdf is None else None
    dim, t = (1, None) if law is None else (len(law.axes), law.time)
    if law is not None and dim > 1 and component is not None:
        law = law.marginal(checks.integer("component", component, minimum=0, below=dim))
    settings: dict[str, Any] = {"cells": cells, "bias": bias, "alpha": alpha, "time": t}
    given = histogram(paths_or_samples, time, t) if hasattr(paths_or_samples, "counts") else None
    if given is not None:
        given = _fitting(given, dim, component)
    if law is not None and len(law.axes) > 1:
        axes, q = law.axes, law.q
        if given is None:
            counts, outside = count_points(samples(paths_or_samples, time, t, None, dim), axes)
        else:
            index = [shared(mine, theirs, 5) for mine, theirs in zip(given.axes, axes, strict=True)]
            counts = summed(given.inside, index)
            outside = given.outside + int(given.inside.sum()) - int(counts.sum())
            axes = tuple(mine[i] for mine, i in zip(given.axes, index, strict=True))
            q = summed(q, [nearest(theirs, mine) for mine, theirs in zip(axes, law.axes, strict=True)])
        outside += absorbed
        _enough(int(counts.sum()) + outside)
        return on_boxes(q, counts, outside, axes, **settings)

    if given is not None:
        (edges,) = given.axes
        line = np.concatenate([[0], given.inside, [given.outside]])
        if law is not None:
            index = shared(edges, law.axes[0], 9)
            edges, line = edges[index], np.add.reduceat(line, np.concatenate([[0], 1 + index]))
    else:
        x = samples(paths_or_samples, time, t, component, dim)
        edges = central_edges(x) if law is None else law.axes[0]
        line = count(x, edges)
    line[-1] += absorbed
    _enough(int(line.sum()))
    below = distribution_function(cdf, edges) if law is None else law.below(edges)
    q = np.maximum(np.diff(below, prepend=0.0, append=1.0), 0.0)
    return on_line(q, line, edges, sideless=given is not None or (law is not None and law.lost), **settings)


def _fitting(given: Counts, dim: int, component: int | None) -> Counts:
    """The histogram of the components that are compared."""
    of = len(given.axes)
    if of > 1 and component is not None:
        return given.marginal(checks.integer("component", component, minimum=0, below=of))
    wanted = 1 if component is not None else dim
    if of != wanted:
        raise ValueError(
            f"the histogram has {of} components, compare needs {'one' if wanted == 1 else wanted}; reduce with "
            "Histogram(lower, upper, bins, components=0), or choose a component with component=0"
        )
    return given


def _enough(n: int) -> None:
    if n < MIN_SAMPLES:
        raise ValueError(f"paths_or_samples must hold >= {MIN_SAMPLES} samples, got {n}; noise floors need as many")
