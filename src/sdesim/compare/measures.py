"""From counts and probabilities to distances, floors and limits: on one axis, and on the boxes of several."""

import functools
import math
from typing import Any

import numpy as np

from ..core import checks, distances
from .law import occupied, summed
from .result import Comparison, JointComparison

MIN_EXPECTED = 5.0  # samples a chi-square cell must expect (Cochran 1954)
# Cells, counted by perplexity, that L1, KL and chi-square see at most, by dimension.
MOST_CELLS = {1: 64.0, 2: 256.0, 3: 512.0}


def on_line(
    q: np.ndarray, counts: np.ndarray, edges: np.ndarray, *, sideless: bool, cells: Any, bias: float, alpha: float,
    time: float | None,
) -> Comparison:  # fmt: skip
    """All measures in one dimension, from q and counts (n_cells + 2,) below the edges, between them and above."""
    n = int(counts.sum())
    if sideless:  # a histogram does not say on which side its outside is, and what an absorbing wall took has none
        q, counts = q.copy(), counts.copy()
        q[-1] += q[0]
        counts[-1] += counts[0]
        q[0] = counts[0] = 0
    level = alpha / 7
    (groups,) = _groups(q[1:-1], n, cells)
    starts = np.concatenate([[0], 1 + groups[:-1], [q.size - 1]])
    coarse = distances.Cells(np.add.reduceat(q, starts), np.add.reduceat(counts, starts), n)
    fine = distances.Cells(q, counts, n)
    l1, l1_floor, l1_sd = distances.l1(coarse)
    kl, kl_floor, kl_sd, chi2_pvalue, kl_limit = distances.kl_and_chi2(coarse.merged(MIN_EXPECTED), bias, level)
    ks, ks_floor, ks_pvalue = distances.ks(fine)
    wasserstein, wasserstein_floor, wasserstein_sd, spread, drift = distances.wasserstein(fine, edges)
    (mean_z, mean_limit), (variance_z, variance_limit) = distances.moments(fine, edges, sideless, level)
    tail = math.sqrt(2 * math.log(1 / level) / n)
    return Comparison(
        l1=l1,
        kl=kl,
        ks=ks,
        wasserstein=wasserstein,
        chi2_pvalue=chi2_pvalue,
        n=n,
        mean_z=mean_z,
        variance_z=variance_z,
        ks_pvalue=ks_pvalue,
        l1_floor=l1_floor,
        l1_sd=l1_sd,
        kl_floor=kl_floor,
        kl_sd=kl_sd,
        ks_floor=ks_floor,
        ks_sd=distances.KOLMOGOROV_SD / math.sqrt(n),
        wasserstein_floor=wasserstein_floor,
        wasserstein_sd=wasserstein_sd,
        n_outside=int(counts[0] + counts[-1]),
        expected_outside=float(n * (q[0] + q[-1])),
        n_cells=groups.size - 1,
        time=time,
        alpha=alpha,
        bias=bias,
        limits={
            "l1": l1_floor + tail + bias,
            "kl": kl_limit,
            "ks": math.sqrt(math.log(2 / level) / (2 * n)) + bias / 2,
            "wasserstein": wasserstein_floor + spread * tail + bias * drift,
            "chi2_pvalue": level,
            "mean_z": mean_limit + bias * math.sqrt(n),
            "variance_z": variance_limit + bias * math.sqrt(n),
        },
        edges=edges[groups],
        observed=coarse.counts[1:-1] / n,
        expected=coarse.q[1:-1],
    )


def on_boxes(
    q: np.ndarray, counts: np.ndarray, outside: int, axes: tuple[np.ndarray, ...], *, cells: Any, bias: float,
    alpha: float, time: float | None,
) -> JointComparison:  # fmt: skip
    """All measures in d dimensions, from q and counts of the boxes and the samples in none of them."""
    d, n = q.ndim, int(counts.sum()) + outside
    beyond = max(0.0, 1.0 - float(q.sum()))
    level = alpha / (3 + 4 * d + d * (d - 1) // 2)

    groups = _groups(q, n, cells)
    shape = tuple(g.size - 1 for g in groups)
    coarse_q, coarse_counts = summed(q, groups), summed(counts, groups)
    path = winding(shape)
    boxes = distances.Cells(
        np.append(coarse_q.ravel()[path], beyond), np.append(coarse_counts.ravel()[path], outside), n
    )
    l1, l1_floor, l1_sd = distances.l1(boxes)
    kl, kl_floor, kl_sd, chi2_pvalue, kl_limit = distances.kl_and_chi2(boxes.merged(MIN_EXPECTED), bias, level)

    alone, shared = [], []
    for k, edges in enumerate(axes):
        others = tuple(j for j in range(d) if j != k)
        of_axis = np.concatenate([[0.0], q.sum(axis=others), [beyond]])
        counted = np.concatenate([[0], counts.sum(axis=others), [outside]])
        part = functools.partial(on_line, of_axis, counted, edges, sideless=True, cells=None, bias=bias, time=time)
        alone.append(part(alpha=alpha))
        shared.append(part(alpha=7 * level))  # each of its measures at the level of the others here

    def worst(name: str) -> Comparison:
        return max(shared, key=lambda one: _share(getattr(one, name), one.limits[name]))

    ks, wasserstein, mean, variance = (worst(name) for name in ("ks", "wasserstein", "mean_z", "variance_z"))
    covariance_z, covariance_limit = _covariance(q, counts, beyond, n, axes, level)
    tail = math.sqrt(2 * math.log(1 / level) / n)
    return JointComparison(
        l1=l1,
        kl=kl,
        ks=ks.ks,
        wasserstein=wasserstein.wasserstein,
        chi2_pvalue=chi2_pvalue,
        n=n,
        mean_z=mean.mean_z,
        variance_z=variance.variance_z,
        ks_pvalue=min(1.0, d * ks.ks_pvalue),
        l1_floor=l1_floor,
        l1_sd=l1_sd,
        kl_floor=kl_floor,
        kl_sd=kl_sd,
        ks_floor=ks.ks_floor,
        ks_sd=ks.ks_sd,
        wasserstein_floor=wasserstein.wasserstein_floor,
        wasserstein_sd=wasserstein.wasserstein_sd,
        n_outside=outside,
        expected_outside=n * beyond,
        n_cells=math.prod(shape),
        time=time,
        alpha=alpha,
        bias=bias,
        limits={
            "l1": l1_floor + tail + bias,
            "kl": kl_limit,
            "ks": ks.limits["ks"],
            "wasserstein": wasserstein.limits["wasserstein"],
            "chi2_pvalue": level,
            "mean_z": mean.limits["mean_z"],
            "variance_z": variance.limits["variance_z"],
            "covariance_z": covariance_limit + bias * math.sqrt(n),
        },
        edges=tuple(edges[g] for edges, g in zip(axes, groups, strict=True)),
        observed=coarse_counts / n,
        expected=coarse_q,
        marginals=tuple(alone),
        covariance_z=covariance_z,
    )


def winding(shape: tuple[int, ...]) -> np.ndarray:
    """Indices of the boxes in an order in which each is a neighbour of the one before it, as an ox ploughs."""
    order = np.arange(shape[-1])
    for n in reversed(shape[:-1]):
        size = order.size
        order = np.concatenate([i * size + (order if i % 2 == 0 else order[::-1]) for i in range(n)])
    return order


def _covariance(
    q: np.ndarray, counts: np.ndarray, beyond: float, n: int, axes: tuple[np.ndarray, ...], level: float
) -> tuple[float, float]:
    """The covariance of the pair nearest to its limit, in standard deviations, and that limit."""
    found = []
    for j in range(q.ndim):
        for k in range(j + 1, q.ndim):
            others = tuple(i for i in range(q.ndim) if i not in (j, k))
            pair = distances.Cells(q.sum(axis=others), counts.sum(axis=others), n)
            found.append(distances.covariance(pair, (axes[j], axes[k]), level))
    return max(found, key=lambda one: _share(*one))


def _share(value: float, limit: float) -> float:
    """How much of its limit a measure has used up."""
    return abs(value) / limit if limit else math.inf if value else 0.0


def _groups(q: np.ndarray, n: int, cells: Any) -> list[np.ndarray]:
    """Along each axis the edges (of the grid's edges) of the coarse cells."""
    if cells is not None:
        given = np.broadcast_to(np.asarray(cells, object), (q.ndim,)) if np.ndim(cells) < 2 else np.asarray(cells)
        numbers = [checks.integer("cells", one, minimum=2) for one in given]
        for coarse, size in zip(numbers, q.shape, strict=True):
            if coarse > size:
                raise ValueError(f"cells must be <= {size}, the cells of the grid, got {coarse}")
    else:
        wanted = min(MOST_CELLS[q.ndim], 2 * n**0.4)  # Mann and Wald's exponent (1942)
        along = [occupied(q.sum(axis=tuple(j for j in range(q.ndim) if j != k))) for k in range(q.ndim)]
        # a law that fills a part of the box only, such as a strongly correlated one, is cut more finely
        each = (wanted * math.prod(along) / occupied(q)) ** (1 / q.ndim)
        numbers = [math.ceil(size / max(1, round(one / each))) for size, one in zip(q.shape, along, strict=True)]
    return [np.round(np.linspace(0, size, m + 1)).astype(np.intp) for size, m in zip(q.shape, numbers, strict=True)]
