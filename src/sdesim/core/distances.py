r"""Distances of counts from cell probabilities, and the value that chance gives each.

A partition into cells of probability q_i, and n samples counted into them: c_i. Under q each
c_i is binomial (n, q_i), which fixes the mean of every distance below exactly or to a known order, and
its standard deviation in the Gaussian limit. :mod:`sdesim.compare` is the public face of these functions
and states the definitions.

Sources: de Moivre (1730) for the mean deviation of a binomial; Cochran (1954), Williams (1976) for the
chi-square and KL statistics; Kolmogorov (1933); Broadie, Glasserman and Kou (1997) for extremes that are
seen on a lattice only.
"""

import math
from typing import NamedTuple

import numpy as np

KOLMOGOROV_MEAN = math.sqrt(math.pi / 2) * math.log(2)
KOLMOGOROV_SD = math.sqrt(math.pi**2 / 12 - KOLMOGOROV_MEAN**2)
LATTICE_SHIFT = 0.5825971579390107  # −ζ(1/2)/√(2π)


class Cells(NamedTuple):
    """Probabilities and counts of a partition: on the line below the grid, its cells, above it."""

    q: np.ndarray
    counts: np.ndarray
    n: int

    def merged(self, fewest: float) -> "Cells":
        """Neighbours joined from the left until each expects ``fewest`` samples; a rest joins the last."""
        starts, expected = [0], 0.0
        for k, more in enumerate(self.n * self.q):
            if expected >= fewest:
                starts.append(k)
                expected = 0.0
            expected += more
        if expected < fewest and len(starts) > 1:
            starts.pop()
        return Cells(np.add.reduceat(self.q, starts), np.add.reduceat(self.counts, starts), self.n)


def mean_deviation(n: int, q: np.ndarray) -> np.ndarray:
    """E|c/n − q| for c binomial (n, q): de Moivre's sum, and its limit where that is exact to 1e-5."""
    from scipy.special import gammaln

    variance = n * q * (1 - q)
    out = np.sqrt(2 * variance / np.pi) / n
    few = (variance < 1e4) & (q > 0) & (q < 1)
    p = np.where(q > 0.5, 1 - q, q)[few]  # |c/n − q| is the same for the complement, and n p is then small
    v = np.floor(n * p) + 1
    log_pmf = gammaln(n + 1) - gammaln(v + 1) - gammaln(n - v + 1) + v * np.log(p) + (n - v + 1) * np.log1p(-p)
    out[few] = 2 * v * np.exp(log_pmf) / n
    return out


def l1(cells: Cells) -> tuple[float, float, float]:
    """Σ|c/n − q|, its floor, its standard deviation."""
    q, n = cells.q, cells.n
    floor = mean_deviation(n, q)
    # Gaussians of correlation r have cov(|X|, |Y|) = s_x s_y (r²/π + r⁴/(12π) + …), and here r² = a_i a_j
    s = np.sqrt(q * (1 - q) / n)
    a = np.divide(q, 1 - q, out=np.zeros_like(q), where=q < 1)
    variance = np.sum(q * (1 - q) / n - floor**2)
    for power, factor in ((1, 1 / np.pi), (2, 1 / (12 * np.pi))):
        w = s * a**power
        variance += factor * 2 * (w[1:] @ np.cumsum(w)[:-1])  # pairs i < j, without cancellation
    return float(np.abs(cells.counts / n - q).sum()), float(floor.sum()), math.sqrt(max(variance, 0.0))


def kl_and_chi2(cells: Cells, bias: float, level: float) -> tuple[float, float, float, float, float]:
    """KL, its floor, its standard deviation; the chi-square p-value; the limit of KL."""
    from scipy.special import chdtrc, chdtri, chndtr, chndtrix, xlogy

    q, n = cells.q, cells.n
    freedom = q.size - 1
    if freedom == 0:  # all the mass in one cell: nothing to count
        return 0.0, 0.0, 0.0, 1.0, 0.0
    share = cells.counts / n
    kl = float(xlogy(share, share / q).sum())
    statistic = float(n * np.sum((share - q) ** 2 / q))
    noncentral = n * bias**2
    pvalue = 1 - chndtr(statistic, freedom, noncentral) if noncentral else chdtrc(freedom, statistic)
    quantile = chndtrix(1 - level, freedom, noncentral) if noncentral else chdtri(freedom, level)
    floor = freedom / (2 * n) + (np.sum(1 / q) - 1) / (12 * n**2)
    williams = floor / (freedom / (2 * n))
    return kl, float(floor), math.sqrt(freedom / 2) / n, float(pvalue), float(williams * quantile / (2 * n))


def ks(cells: Cells) -> tuple[float, float, float]:
    """The largest |F_n − F| at the edges, its floor, its p-value; the lattice moves the barrier out."""
    from scipy.special import kolmogorov

    root = math.sqrt(cells.n)
    difference = np.cumsum(cells.counts / cells.n - cells.q)[:-1]
    shift = LATTICE_SHIFT * math.sqrt(float(cells.q @ cells.q))
    largest = float(np.abs(difference).max())
    return largest, (KOLMOGOROV_MEAN - shift) / root, float(kolmogorov(root * largest + shift))


def wasserstein(cells: Cells, edges: np.ndarray) -> tuple[float, float, float, float, float]:
    """W1, its floor, its standard deviation; the standard deviation of x under rho; ∫ √(F(1 − F)) dx."""
    n = cells.n
    width = np.diff(edges)
    weight = (np.append(width, 0.0) + np.append(0.0, width)) / 2  # trapezoid rule on the edges
    below = np.clip(np.cumsum(cells.q)[:-1], 0.0, 1.0)
    difference = np.cumsum(cells.counts / n - cells.q)[:-1]
    floor = mean_deviation(n, below)
    spread = np.sqrt(below * (1 - below))
    position = np.append(0.0, np.cumsum(weight))  # of each cell, as the trapezoid rule sees it
    mean = cells.q @ position
    # cov(|X|, |Y|) of Gaussians, for every pair of (at most 256) stretches of the line
    inside = np.flatnonzero(spread > 0)
    starts = inside[:: max(1, inside.size // 256)]
    if starts.size:
        mass = np.add.reduceat(weight * spread, starts)
        odds = below[starts] / (1 - below[starts])
        r = np.sqrt(np.minimum.outer(odds, odds) / np.maximum.outer(odds, odds))
        covariance = 2 / np.pi * (np.sqrt(1 - r**2) + r * np.arcsin(r) - 1)
        sd = math.sqrt(max(float(mass @ covariance @ mass), 0.0) / n)
    else:
        sd = 0.0
    return (
        float(weight @ np.abs(difference)),
        float(weight @ floor),
        sd,
        math.sqrt(cells.q @ (position - mean) ** 2),
        float(weight @ spread),
    )


def moments(cells: Cells, edges: np.ndarray, sideless: bool, level: float) -> list[tuple[float, float]]:
    """Mean and variance of the cell centres, each as (z, limit of |z|); a sideless outside has no say."""
    q = cells.q
    x = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    present = np.ones(q.size, bool)
    present[-1] = not sideless
    x = x - (q @ (x * present)) / (q @ present)
    of_mean = _deviation(cells, x * present, level)
    return [of_mean, _deviation(cells, (x**2 - (q @ (x**2 * present)) / (q @ present)) * present, level)]


def covariance(cells: Cells, axes: tuple[np.ndarray, np.ndarray], level: float) -> tuple[float, float]:
    """The covariance of the centres of boxes, q and counts (n_x, n_y), as (z, limit of |z|); the outside has no say."""
    q, n = cells.q, cells.n
    x, y = ((edges[1:] + edges[:-1]) / 2 for edges in axes)
    inside = q.sum()
    x, y = x - q.sum(axis=1) @ x / inside, y - q.sum(axis=0) @ y / inside
    product = np.outer(x, y)
    g = np.append((product - (q * product).sum() / inside).ravel(), 0.0)
    beyond, away = max(0.0, 1.0 - float(inside)), n - int(cells.counts.sum())
    return _deviation(Cells(np.append(q.ravel(), beyond), np.append(cells.counts.ravel(), away), n), g, level)


def _deviation(cells: Cells, g: np.ndarray, level: float) -> tuple[float, float]:
    """(sample mean of g − its mean under q) in standard deviations, and the quantile, widened for its skewness."""
    from scipy.special import ndtri

    q, n = cells.q, cells.n
    quantile = -float(ndtri(level / 2))
    g = g - q @ g
    sd = math.sqrt(q @ g**2)
    off = float((cells.counts / n - q) @ g)
    if sd == 0:
        return 0.0 if off == 0 else math.copysign(math.inf, off), quantile
    skewness = abs(float(q @ g**3)) / sd**3 / math.sqrt(n)
    return off * math.sqrt(n) / sd, quantile + (quantile**2 - 1) * skewness / 6
