r"""Samples against a density: five distances, each beside the value that pure chance would give it.

A histogram of n samples never equals the density it was drawn from, so a distance by itself says nothing:
an L1 of 0.008 is perfect agreement for 10^6 samples in 120 cells and a plain error for 10^8. Every
distance is therefore reported with its *noise floor*, the mean it has when the samples do come from the
density, and that mean's standard deviation. Write q_i for the probability of cell i under the density,
c_i for the samples counted in it, p̂_i = c_i/n, and F and F_n for the two distribution functions:

========== ============================ ========================================================
distance   definition                   floor: its mean over n independent draws from the density
========== ============================ ========================================================
L1         Σ |p̂_i − q_i|                Σ E|c_i − n q_i|/n, de Moivre's exact sum
KL         Σ p̂_i log(p̂_i/q_i)           (K − 1)/(2n) + (Σ 1/q_i − 1)/(12n²), K cells of n q_i >= 5
KS         max |F_n − F| at the edges   (0.8687 − 0.5826 √Σq_i²)/√n
W1         ∫ |F_n − F| dx               ∫ E|F_n − F| dx, the same exact sum
chi-square Σ (c_i − n q_i)²/(n q_i)     given as its p-value, on the cells of the KL distance
========== ============================ ========================================================

The exact sum tends to √(2q(1 − q)/(πn)) where many samples are expected.
0.8687 = √(π/2) log 2 is the mean of the largest value of a Brownian bridge, and 0.5826 = −ζ(1/2)/√(2π)
what it loses by being looked at on a lattice only (Broadie, Glasserman and Kou 1997). Two more numbers
are far sharper against the commonest errors, a shifted mean and a wrong width: the deviations of mean and
variance in standard deviations.

**Which cells.** KS, Wasserstein and the two moments use every cell of the grid, which costs them nothing.
The noise of L1, KL and chi-square grows with the number of cells, so these three use a coarser partition:
neighbouring cells are joined until the density occupies about 64 (fewer for small n) of them, counted by
its perplexity exp(−Σ q log q); a normal density then shows some 120. Whatever lies outside the grid is
one more cell on either side, and where rho has lost mass through an absorbing wall, one cell for all that
is gone: nothing is dropped.

**What n finds.** With the default level, every second time (and nearly always at 1.7 times these errors):

========== =================== ================== =================================================
n          mean, in units of   standard deviation an error spread over all cells, as its L1 distance
           the deviation
========== =================== ================== =================================================
10^4       0.043               3.1 %              0.084
10^6       0.0043              0.31 %             0.0091
10^8       0.00043             0.031 %            0.00095
========== =================== ================== =================================================

The moments find the first two, the chi-square the third; KS alone needs an error of the mean of 0.006 at
n = 10^6, and hardly sees the tails. The limits of L1 and Wasserstein are wide, those two are there to say
how far apart the laws are.
"""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .core import checks, distances
from .core.cache import kernel

MIN_SAMPLES = 100
"""Fewest samples: the floors and limits are those of many samples."""

_MIN_EXPECTED = 5.0  # samples a chi-square cell must expect (Cochran 1954)
_MASS_TOLERANCE = 1e-6
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Comparison:
    """The distances between n samples and a density, each with its noise floor; printing it shows all.

    Attributes
    ----------
    l1, kl, ks, wasserstein : float
        The distances, as the module defines them; KL is KL(p̂ ‖ p) in nats, W1 is in the units of x.
    chi2_pvalue, ks_pvalue : float
        Probability of a larger statistic if the samples do come from the density.
    n : int
        Number of samples, those outside the grid included.
    mean_z, variance_z : float
        (sample mean − mean of rho) in standard deviations of the sample mean, and the same for the variance.
    l1_floor, kl_floor, ks_floor, wasserstein_floor : float
        Mean of each distance under the density; ``*_sd`` the standard deviation.
    n_outside, expected_outside : int, float
        Samples outside the grid (or absorbed), and how many rho expects there.
    n_cells : int
        Cells of L1 and of ``observed``; chi-square and KL join those that expect fewer than 5 samples.
    time : float or None
        Time of the density, if it has one.
    limits : mapping
        The largest value of each measure (|z| for the two moments; the smallest p-value) that counts as
        noise.
    alpha, bias : float
        As given to :func:`compare`.
    edges, observed, expected : arrays (n_cells + 1,), (n_cells,), (n_cells,)
        The cells, the fraction p̂ of samples and the probability q in each.
    """

    l1: float
    kl: float
    ks: float
    wasserstein: float
    chi2_pvalue: float
    n: int
    mean_z: float
    variance_z: float
    ks_pvalue: float
    l1_floor: float
    l1_sd: float
    kl_floor: float
    kl_sd: float
    ks_floor: float
    ks_sd: float
    wasserstein_floor: float
    wasserstein_sd: float
    n_outside: int
    expected_outside: float
    n_cells: int
    time: float | None
    alpha: float
    bias: float
    limits: Mapping[str, float] = field(repr=False, compare=False)
    edges: np.ndarray = field(repr=False, compare=False)
    observed: np.ndarray = field(repr=False, compare=False)
    expected: np.ndarray = field(repr=False, compare=False)

    @property
    def beyond_noise(self) -> tuple[str, ...]:
        """Names of the measures that chance does not explain, in the order of ``limits``."""
        outside = []
        for name, limit in self.limits.items():
            value = getattr(self, name)
            if value < limit if name == "chi2_pvalue" else not abs(value) <= limit:
                outside.append(name)
        return tuple(outside)

    @property
    def within_noise(self) -> bool:
        r"""Whether all seven measures are what chance gives: samples of rho fail with probability <= alpha.

        Each measure is held to level a = alpha/7 (Bonferroni), so that the seven together err at most
        with alpha:

        - L1 <= floor + √(2 log(1/a)/n), McDiarmid's inequality (1989), true for every n;
        - KS <= √(log(2/a)/(2n)), the Dvoretzky-Kiefer-Wolfowitz inequality (Massart 1990), true for every n;
        - W1 <= floor + s √(2 log(1/a)/n), s the standard deviation of rho: the Borell-TIS inequality for
          the Gaussian limit of F_n − F, whose largest projection is the mean;
        - KL <= the chi-square quantile/(2n) with Williams' correction (1976); chi-square p-value >= a;
        - mean_z, variance_z: the normal quantile, widened for the statistic's skewness (Cornish-Fisher).

        The chi-square law is a limit: where many cells expect only five samples, its true level at 1e-5
        is up to three times the nominal one (KL's is right); the three inequalities leave that unused.

        With the default alpha = 1e-4 a limit is about 4.3 standard deviations (more for L1 and W1, whose
        inequalities are safe rather than sharp). A declared ``bias`` b, a bound on (Σ (q_i − true
        q_i)²/q_i)^½, moves each by what such an error can do at most: L1 by b, KS by b/2, W1 by b
        ∫√(F(1−F)) dx, z by b√n, and chi-square and KL to the non-central law of parameter n b².
        """
        return not self.beyond_noise

    def __str__(self) -> str:
        at = "" if self.time is None else f" at t = {self.time:g}"
        head = f"{self.n} samples against the density{at}, {self.n_cells} cells"
        rows = [f"{head}; outside the grid {self.n_outside} (expected {self.expected_outside:.3g})"]
        for label, name in (("L1", "l1"), ("KL", "kl"), ("KS", "ks"), ("Wasserstein", "wasserstein")):
            value, floor, sd = (getattr(self, name + tail) for tail in ("", "_floor", "_sd"))
            extra = f", p = {self.ks_pvalue:.3g}" if name == "ks" else ""
            rows.append(f"  {label:<12}{value:<10.3g}(noise floor {floor:.3g} ± {sd:.1g}{extra})")
        rows.append(f"  {'chi-square':<12}p = {self.chi2_pvalue:.3g}")
        z = f"mean {self.mean_z:+.2f}, variance {self.variance_z:+.2f}"
        rows.append(f"  {'moments':<12}{z} standard deviations off")
        verdict = "within noise" if self.within_noise else "beyond noise: " + ", ".join(self.beyond_noise)
        bias = f", declared bias {self.bias:g}" if self.bias else ""
        rows.append(f"  {verdict} (level {self.alpha:g}{bias})")
        return "\n".join(rows)


def compare(
    paths_or_samples: Any,
    rho: Any,
    *,
    time: int = -1,
    component: int | None = None,
    cells: int | None = None,
    absorbed: int = 0,
    bias: float = 0.0,
    alpha: float = 1e-4,
) -> Comparison:
    r"""Distances between samples and a 1-D density, each with its Monte-Carlo noise floor.

    Parameters
    ----------
    paths_or_samples : Paths, histogram or array
        Independent draws: paths from :func:`simulate` (their state at the time of rho is taken), the
        result of a ``Histogram`` reduction (``counts``, ``edges``), or an array (n,) or (n, 1); (n, d)
        with ``component``. States of one path at many times are not independent, and their distances lie
        above the floors.
    rho : Density, or a distribution function
        A solved density (``grid``, ``final``), or a function cdf(x) of an array, or an object with such a
        ``cdf``: a one-dimensional target.
    time : int
        Which of the saved times of rho (an index, the last by default); paths must hold that time.
    component : int, optional
        The component of a state of several, and the marginal of a density of several dimensions.
    cells : int, optional
        Number of cells for L1, KL and chi-square; by default as the module explains.
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

    Raises
    ------
    ValueError
        Fewer than 100 samples, samples that are not finite or of several components without
        ``component``, a density that is negative or holds more than mass 1, paths without the state at
        the time of rho, and a histogram whose edges are not edges of the grid.
    """
    alpha = checks.real("alpha", alpha, above=0.0)
    if alpha >= 1:
        raise ValueError(f"alpha must be < 1, got {alpha:g}")
    bias = checks.real("bias", bias, minimum=0.0)
    absorbed = checks.integer("absorbed", absorbed, minimum=0)
    if isinstance(time, (bool, np.bool_)) or not isinstance(time, numbers.Integral):
        raise TypeError(f"time must be an integer, the index of a saved time (-1 for the last), got {time!r}")

    cdf = None if hasattr(rho, "grid") else getattr(rho, "cdf", rho if callable(rho) else None)
    law = _density(rho, int(time), component) if cdf is None else None
    t = None if law is None else law.time
    counted = hasattr(paths_or_samples, "counts")
    if counted:
        edges, counts = _histogram(paths_or_samples, int(time), t)
        if law is not None:
            edges, counts = _shared_cells(edges, counts, law.edges)
    else:
        samples = _samples(paths_or_samples, int(time), t, component)
        edges = _central_edges(samples) if law is None else law.edges
        counts = _count(samples, edges)
    counts[-1] += absorbed
    n = int(counts.sum())
    if n < MIN_SAMPLES:
        raise ValueError(f"paths_or_samples must hold >= {MIN_SAMPLES} samples, got {n}; noise floors need as many")

    below = _evaluate(cdf, edges) if law is None else law.below(edges)
    q = np.maximum(np.diff(below, prepend=0.0, append=1.0), 0.0)
    sideless = counted or (law is not None and law.lost)
    if sideless:  # a histogram does not say on which side its outside is, and what an absorbing wall took has none
        q[-1] += q[0]
        counts[-1] += counts[0]
        q[0] = counts[0] = 0

    level = alpha / 7
    groups = _groups(q[1:-1], n, cells)
    starts = np.concatenate([[0], 1 + groups[:-1], [q.size - 1]])
    coarse = distances.Cells(np.add.reduceat(q, starts), np.add.reduceat(counts, starts), n)
    fine = distances.Cells(q, counts, n)
    l1, l1_floor, l1_sd = distances.l1(coarse)
    kl, kl_floor, kl_sd, chi2_pvalue, kl_limit = distances.kl_and_chi2(coarse.merged(_MIN_EXPECTED), bias, level)
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
        time=t,
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


# The two sides: a density as the probability below each edge, samples as counts


class _Law(NamedTuple):
    """A density on a grid: ``probability`` below each of ``edges``, starting from 0."""

    edges: np.ndarray
    probability: np.ndarray
    time: float | None
    lost: bool

    def below(self, edges: np.ndarray) -> np.ndarray:
        """F at edges that are edges of the grid up to rounding."""
        return self.probability[_nearest(self.edges, edges)]


def _density(rho: Any, time: int, component: int | None) -> _Law:
    grid = getattr(rho, "grid", None)
    if grid is None or not hasattr(rho, "final"):
        raise TypeError(
            f"rho must be a density with .grid and .final, or a distribution function cdf(x), got {type(rho).__name__}"
        )
    flat = isinstance(grid.edges, np.ndarray) and grid.edges.ndim == 1
    axes = [checks.array("rho.grid.edges", edges) for edges in ([grid.edges] if flat else grid.edges)]
    t = getattr(rho, "t", None)
    n_times = 1 if t is None else np.size(t)
    if not -n_times <= time < n_times:
        raise ValueError(f"time must be an index into the {n_times} saved times of rho, got {time}")
    p = checks.array("rho", rho.final if time in (-1, n_times - 1) else rho.p[time])
    shape = tuple(e.size - 1 for e in axes)
    if p.shape != shape:
        raise ValueError(f"rho has shape {p.shape}, its grid has {shape} cells")
    if len(axes) > 1 and component is None:
        raise ValueError(
            f"rho is a {len(axes)}-D density, compare needs one dimension; take its marginal with component=0"
        )
    if component is not None and len(axes) > 1:
        component = checks.integer("component", component, minimum=0, below=len(axes))
        for axis, e in enumerate(axes):
            p = p * np.diff(e).reshape([-1 if k == axis else 1 for k in range(len(axes))])
        q = p.sum(axis=tuple(k for k in range(len(axes)) if k != component))
        edges = axes[component]
    else:
        edges = axes[0]
        q = p * np.diff(edges)
    mass = q.sum()
    if q.min() < -_MASS_TOLERANCE:
        raise ValueError(f"rho must be >= 0, cell {int(q.argmin())} holds the probability {q.min():.3g}")
    if not 0 < mass <= 1 + _MASS_TOLERANCE:
        raise ValueError(f"rho must hold a probability <= 1, got mass {mass:.6g}; divide it by its mass")
    q = np.maximum(q, 0.0)
    lost = mass < 1 - _MASS_TOLERANCE
    probability = np.concatenate([[0.0], np.cumsum(q)])
    probability *= (mass if lost else 1.0) / probability[-1]
    return _Law(edges, probability, None if t is None else float(np.ravel(t)[time]), bool(lost))


def _evaluate(cdf: Any, edges: np.ndarray) -> np.ndarray:
    value = checks.array("cdf(x)", cdf(edges))
    if value.shape != edges.shape:
        raise ValueError(f"cdf(x) must return the shape of x, {edges.shape}, got {value.shape}")
    if value.min() < -1e-12 or value.max() > 1 + 1e-12 or np.diff(value).min() < -1e-12:
        raise ValueError(f"cdf(x) must increase from 0 to 1, got values from {value.min():.3g} to {value.max():.3g}")
    return np.clip(value, 0.0, 1.0)


def _samples(given: Any, time: int, t: float | None, component: int | None) -> np.ndarray:
    """The samples (n,) as they came, float32 or float64."""
    of_paths = hasattr(given, "final")
    name = "paths.final" if of_paths else "paths_or_samples"
    x = np.asarray(_state(given, time, t) if of_paths else given)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim == 2 and component is not None:
        x = x[:, checks.integer("component", component, minimum=0, below=x.shape[1])]
    if x.ndim == 2:
        raise ValueError(
            f"{name} has shape {x.shape}, a 1-D density needs (n,); "
            f"choose one of the {x.shape[1]} components with component=0"
        )
    if x.ndim != 1:
        raise ValueError(f"{name} has shape {x.shape}, expected (n,)")
    if x.size < MIN_SAMPLES:
        raise ValueError(f"{name} must hold >= {MIN_SAMPLES} samples, got {x.size}; noise floors need as many")
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


def _central_edges(x: np.ndarray) -> np.ndarray:
    """Cells to compare with a distribution function: the samples' range, or 20 interquartile ranges of it."""
    _refuse_nonfinite(x)
    low, middle, high = np.percentile(x[:: max(1, x.size // 100_000)], [25, 50, 75])
    reach = 20 * (high - low) if high > low else math.inf
    lower, upper = max(float(x.min()), middle - reach), min(float(x.max()), middle + reach)
    if not upper > lower:
        raise ValueError(f"paths_or_samples must not all be equal, got {lower:g} throughout")
    return np.linspace(lower, upper, 1025)


def _refuse_nonfinite(x: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        raise ValueError(
            f"samples must be finite, got {x[bad[0]]} at index {bad[0]} ({bad.size} non-finite in all); "
            "count absorbed paths with absorbed="
        )


def _count(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (n_cells + 2,): below, in [e_k, e_k+1) (the last cell closed, as in np.histogram), above."""
    counts = np.zeros(edges.size + 1, np.int64)
    for start in range(0, x.size, _CHUNK):
        # one type for the kernel, whatever the stride and the dtype; a chunk stays in cache
        chunk = np.array(x[start : start + _CHUNK], dtype=np.float64)
        if not _count_chunk(chunk, edges, counts):
            _refuse_nonfinite(x)
    return counts


@kernel
def _count_chunk(x, edges, counts):
    n = edges.size - 1
    lower, upper = edges[0], edges[n]
    scale = n / (upper - lower)
    for value in x:
        if not np.isfinite(value):
            return False
        if value < lower:
            counts[0] += 1
        elif value > upper:
            counts[n + 1] += 1
        else:
            # a guess that is right for uniform edges up to rounding, then exact comparison with the edges
            k = min(int((value - lower) * scale), n - 1)
            while value < edges[k]:
                k -= 1
            while k < n - 1 and value >= edges[k + 1]:
                k += 1
            counts[k + 1] += 1
    return True


def _histogram(given: Any, time: int, t: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Edges, and counts (n_cells + 2,) with all that is outside at the end."""
    if isinstance(given.edges, tuple):
        raise ValueError(
            f"the histogram has {len(given.edges)} components, compare needs one; "
            "reduce with Histogram(lower, upper, bins, components=0)"
        )
    edges = checks.array("histogram.edges", given.edges)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"histogram.edges must be one increasing array of edges, got shape {edges.shape}")
    inside = np.asarray(given.counts)
    outside = np.asarray(getattr(given, "outside", np.zeros(inside.shape[:-1])))
    if inside.ndim == 2:
        times = getattr(given, "t", None)
        if times is None:
            index = _index(np.arange(len(inside)), time, None, "histogram")
        else:
            index = _index(np.ravel(times), time, t, "histogram")
        inside, outside = inside[index], outside[index]
    if inside.shape != (edges.size - 1,):
        raise ValueError(f"histogram.counts has shape {inside.shape}, its edges make {edges.size - 1} cells")
    if inside.min() < 0 or np.any(inside != np.floor(inside)):
        raise ValueError("histogram.counts must be whole numbers >= 0; noise floors need counts, not a density")
    return edges, np.concatenate([[0], inside, [outside]]).astype(np.int64)


def _nearest(edges: np.ndarray, x: np.ndarray) -> np.ndarray:
    right = np.clip(np.searchsorted(edges, x), 1, edges.size - 1)
    return np.where(x - edges[right - 1] < edges[right] - x, right - 1, right)


def _shared_cells(edges: np.ndarray, counts: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join histogram cells until every edge is one of the grid's, so that no cell has to be divided."""
    slack = 1e-9 * (grid[-1] - grid[0])
    shared = np.flatnonzero(np.abs(grid[_nearest(grid, edges)] - edges) <= slack)
    if shared.size < min(9, edges.size, grid.size):
        raise ValueError(
            f"the histogram must share edges with the grid, {shared.size} of its {edges.size} do; "
            f"give it the range ({grid[0]:g}, {grid[-1]:g}) and a divisor of {grid.size - 1} cells"
        )
    return edges[shared], np.add.reduceat(counts, np.concatenate([[0], 1 + shared]))


def _groups(q: np.ndarray, n: int, cells: int | None) -> np.ndarray:
    """Edges (of the grid's edges) of the coarse cells."""
    if cells is not None:
        coarse = checks.integer("cells", cells, minimum=2)
        if coarse > q.size:
            raise ValueError(f"cells must be <= {q.size}, the cells of the grid, got {coarse}")
    else:
        wanted = min(64.0, 2 * n**0.4)  # Mann and Wald's exponent (1942)
        share = q[q > 0] / q.sum() if q.sum() > 0 else np.ones(1)
        occupied = math.exp(-float(share @ np.log(share)))
        coarse = math.ceil(q.size / max(1, round(occupied / wanted)))
    return np.round(np.linspace(0, q.size, coarse + 1)).astype(np.intp)
