"""Autocovariance, autocorrelation and integrated time of stationary paths."""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core import checks
from ...core.compile import LANES
from .recorder import FOLLOW, Recorder, bound, check_followed
from .tree import Tree, block_nodes

# The paths fall into groups, path mod 32, and the sums of each are kept: errors come from leaving one out.
GROUPS = 32

_AUTOCORRELATION = (
    FOLLOW
    + f"""\
    n_times, n_lags = slots[3], slots[4]
    center = carray(_float_pointer(slots[5]), (d,))
    ring = carray(_float_pointer(slots[6]), (n_lags + 1, d, {LANES}))
    total = carray(_float_pointer(slots[7]), (d, {LANES}))
    product = carray(_float_pointer(slots[8]), (d, n_lags + 1, {LANES}))
    edges = carray(_float_pointer(slots[9]), (d, n_lags + 1, {LANES}))
    if index == 0:
        for j in range(d):
            for i in range({LANES}):
                total[j, i] = 0.0
            for k in range(n_lags + 1):
                for i in range({LANES}):
                    product[j, k, i] = 0.0
                    edges[j, k, i] = 0.0
    now = index % (n_lags + 1)
    for j in range(d):
        for i in range({LANES}):
            ring[now, j, i] = np.float64(x[j, i]) - center[j]
        # with total = the sum before this time: the sum over t >= k lacks it at k, that over t < T - k is it at T - k
        if index <= n_lags:
            for i in range({LANES}):
                edges[j, index, i] -= total[j, i]
        if n_times - index <= n_lags:
            for i in range({LANES}):
                edges[j, n_times - index, i] += total[j, i]
        for i in range({LANES}):
            total[j, i] += ring[now, j, i]
        for k in range((index if index < n_lags else n_lags) + 1):
            past = (index - k) % (n_lags + 1)
            for i in range({LANES}):
                product[j, k, i] += ring[now, j, i] * ring[past, j, i]
    if index == n_times - 1:
        for j in range(d):
            for i in range({LANES}):
                edges[j, 0, i] += total[j, i]
            for k in range(n_lags + 1):
                per = 1.0 / np.float64(n_times - k)
                for i in range({LANES}):
                    product[j, k, i] *= per
                    edges[j, k, i] = (edges[j, k, i] + total[j, i]) * per
        n_sums = d * (n_lags + 1)
        nodes = carray(_float_pointer(slots[10]), (slots[11], 2, n_sums, {GROUPS}))
        position = carray(_int_pointer(slots[12]), (slots[13],))[(row + lo - slots[14]) // {LANES}]
        products = carray(_float_pointer(slots[8]), (n_sums, {LANES}))
        edge = carray(_float_pointer(slots[9]), (n_sums, {LANES}))
        size = 1
        while True:
            for k in range({LANES} // size):
                a, b = k * size, k * size + size
                up = (k // 2) * 2 * size
                if a >= lo and b <= hi and (size == {LANES} or up < lo or up + 2 * size > hi):
                    for v in range(n_sums):
                        for i in range(a, b if size < {GROUPS} else a + {GROUPS}):
                            nodes[position, 0, v, i % {GROUPS}] = products[v, i]
                            nodes[position, 1, v, i % {GROUPS}] = edge[v, i]
                    position += 1
            if size == {LANES}:
                break
            if size >= {GROUPS}:
                # the sums of a node of several groups of 32 lanes stand in the first of these
                for v in range(n_sums):
                    for k in range({LANES} // (2 * size)):
                        for i in range(2 * size * k, 2 * size * k + {GROUPS}):
                            products[v, i] += products[v, i + size]
                            edge[v, i] += edge[v, i + size]
            size *= 2
"""
)


class Autocorrelation:
    """Autocovariance and autocorrelation of each component over the recorded times, averaged along and over paths.

    The process is assumed stationary: with y₀, …, y_{T−1} the recorded states of a path, ⟨·⟩ the mean over paths and
    m = ⟨Σ y_t⟩/T,

        C_k = ⟨ Σ_{t < T−k} (y_t − m)(y_{t+k} − m) ⟩ / (T − k),   ρ_k = C_k / C₀,

    which a transient (an x0 far from equilibrium) spoils: leave it out with ``save=`` times, or draw x0 from the
    stationary law. The recorded times must be equally spaced.

    The integrated time is τ = ∫₀^∞ ρ dt ≈ Δt (½ + ρ₁ + … + ρ_W), summed up to the first lag W with W Δt >= 5 τ (Sokal,
    "Monte Carlo methods in statistical mechanics", 1997, sec. 3): a mean along one path has the variance of T Δt / 2τ
    independent states. It is nan where n_lags does not reach so far.

    Standard errors are over paths, by the jackknife: the paths are cut into 32 groups by their number, and one group
    after the other is left out (Efron & Stein, 1981). They have 31 degrees of freedom, and are nan for one path.

    While a block of paths runs (65536 at most) it takes 512 bytes a lag, component and leaf of 256 paths.

    Parameters
    ----------
    n_lags : the longest lag, in recorded times.
    center : a number, or one for each component, subtracted from the states before they are multiplied. It changes
        nothing but the rounding, and is needed only where the mean is more than 10⁵ times the spread.

    The result has ``lags`` (in time), ``autocovariance`` and ``autocorrelation`` (n_lags + 1[, d]),
    ``integrated_time`` ([d]), each with ``…_error``, ``mean`` ([d]) and ``n``.
    """

    def __init__(self, n_lags: int, *, center: Any = 0.0) -> None:
        self.n_lags = checks.integer("n_lags", n_lags, minimum=1)
        self.center = checks.array("center", center)

    def check(self, d: int) -> None:
        """Raise where ``center`` does not fit the state."""
        if self.center.size not in (1, d):
            raise ValueError(f"center has {self.center.size} numbers, but the state has {d} components")

    def check_times(self, t: np.ndarray) -> None:
        """Raise where the recorded times are too few or not equally spaced."""
        if len(t) <= self.n_lags:
            raise ValueError(
                f"Autocorrelation(n_lags={self.n_lags}) needs at least {self.n_lags + 1} recorded times, got {len(t)}; "
                "save more of them (save='all' or save=k)"
            )
        steps = np.diff(t)
        off = np.flatnonzero(np.abs(steps - steps[0]) > 1e-6 * steps[0] + 4 * np.spacing(np.abs(t).max()))
        if off.size:
            i = int(off[0])
            raise ValueError(
                f"Autocorrelation needs equally spaced times; they go by {steps[0]:g}, but from {t[i]:g} to "
                f"{t[i + 1]:g} at index {i}; choose save=k so that it divides n_steps"
            )

    def start(self, block: Any, d: int, n_times: int) -> "AutocorrelationPart":
        """An empty part for one block of paths."""
        center = np.broadcast_to(self.center.ravel(), (d,)).copy()
        return AutocorrelationPart(block.first, block.size, d, n_times, self.n_lags, center)

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "AutocorrelationPart":
        """The closed part of a block, from its ``arrays()``."""
        part = object.__new__(AutocorrelationPart)
        part.first, part.d, part.n_times, part.n_lags = block.first, d, n_times, self.n_lags
        part.center, part.mixed = np.broadcast_to(self.center.ravel(), (d,)).copy(), arrays["mixed"]
        part.tree = SumTree(arrays["levels"], arrays["indices"], arrays["values"])
        return part

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "AutocorrelationResult":
        """The sums of all blocks together."""
        self.check_times(t)
        for part in parts:
            check_followed("Autocorrelation", part.mixed)
        return AutocorrelationResult(t, SumTree.join([part.tree for part in parts]), state_shape, parts[0].center)


class SumTree(Tree):
    """A tree whose values are sums: they add."""

    def merge(self, a: np.ndarray, b: np.ndarray, na: float, nb: float) -> np.ndarray:
        """a + b."""
        return a + b


class AutocorrelationPart:
    """The nodes of one block of paths, filled by its recorder."""

    def __init__(self, first: int, size: int, d: int, n_times: int, n_lags: int, center: np.ndarray) -> None:
        self.first, self.d, self.n_times, self.n_lags, self.center = first, d, n_times, n_lags, center
        levels, indices, self.positions = block_nodes(first, size)
        # −0 + x has the bits of x for every x, 0 + x has not: a node of few paths has nothing in most groups
        self.tree = SumTree(levels, indices, np.full((len(levels), 2, d * (n_lags + 1), GROUPS), -0.0))
        self.mixed = np.zeros(1, np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a closed part keeps."""
        return {**self.tree.arrays(), "mixed": self.mixed}

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that multiplies states with past ones."""
        lags = self.n_lags + 1
        memory = np.zeros(2, np.int64)
        ring, total = np.empty((lags, self.d, LANES)), np.empty((self.d, LANES))
        product, edges = np.empty((self.d, lags, LANES)), np.empty((self.d, lags, LANES))
        nodes = self.tree.values
        words = [
            self.d, memory.ctypes.data, self.mixed.ctypes.data, self.n_times, self.n_lags,
            *[a.ctypes.data for a in (self.center, ring, total, product, edges, nodes)], len(nodes),
            self.positions.ctypes.data, len(self.positions), -(self.first % LANES),
        ]  # fmt: skip
        keep = (memory, self.mixed, self.center, ring, total, product, edges, nodes, self.positions)
        return bound(_AUTOCORRELATION, dtype, words, keep)

    def close(self) -> None:
        """Merge siblings: of a block of whole leaves a node or two remain."""
        self.tree = SumTree.join([self.tree])


@dataclass(frozen=True)
class AutocorrelationResult:
    """Autocorrelations at the lags 0, Δt, …, n_lags Δt; results of disjoint sets of paths add with ``+``."""

    t: np.ndarray
    tree: SumTree = field(repr=False)
    state_shape: tuple[int, ...]
    center: np.ndarray

    @property
    def lags(self) -> np.ndarray:
        """The lags in time, (n_lags + 1,)."""
        return (self.t[-1] - self.t[0]) / (len(self.t) - 1) * np.arange(self.tree.values.shape[2] // self._d)

    @property
    def _d(self) -> int:
        return len(self.center)

    @functools.cached_property
    def n(self) -> int:
        """The number of paths."""
        return int((1 << self.tree.levels).sum())

    @functools.cached_property
    def _covariances(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """mean (d,), C (d, lags) of all paths, and C without one group, (groups, d, lags)."""
        _, sums = self.tree.total()
        sums = sums.reshape(2, self._d, -1, GROUPS)
        counts = np.zeros(GROUPS)
        for level, index in zip(self.tree.levels.tolist(), self.tree.indices.tolist(), strict=True):
            if 2**level >= GROUPS:
                counts += 2**level // GROUPS
            else:
                start = (index << level) % GROUPS
                counts[start : start + 2**level] += 1
        whole = sums.sum(axis=-1)
        mean, value = _covariance(whole, self.n)
        used = np.flatnonzero(counts)
        if len(used) < 2:
            return mean + self.center, value, np.empty((0, *value.shape))
        rest = [_covariance(whole - sums[..., g], self.n - counts[g])[1] for g in used]
        return mean + self.center, value, np.array(rest)

    def _with_error(self, quantity: Any) -> tuple[np.ndarray, np.ndarray]:
        """A function of C (d, lags) with its standard error by the jackknife, the lags in front."""
        _, value, rest = self._covariances
        with np.errstate(invalid="ignore", divide="ignore"):
            whole = quantity(value)
            if not len(rest):
                return whole, np.full_like(whole, np.nan)
            left_out = np.array([quantity(c) for c in rest])
            spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
        return whole, np.sqrt((len(rest) - 1) / len(rest) * spread)

    def _shaped(self, a: np.ndarray) -> np.ndarray:
        return np.moveaxis(a, 0, -1).reshape(*a.shape[1:], *self.state_shape)

    @property
    def mean(self) -> np.ndarray:
        """The mean over paths and recorded times, ([d])."""
        return self._covariances[0].reshape(self.state_shape)

    @property
    def autocovariance(self) -> np.ndarray:
        """C_k, (n_lags + 1[, d])."""
        return self._shaped(self._covariances[1])

    @property
    def autocovariance_error(self) -> np.ndarray:
        """Standard error of C_k over paths."""
        return self._shaped(self._with_error(lambda c: c)[1])

    @property
    def autocorrelation(self) -> np.ndarray:
        """ρ_k = C_k / C₀, (n_lags + 1[, d])."""
        return self._shaped(self._with_error(_correlation)[0])

    @property
    def autocorrelation_error(self) -> np.ndarray:
        """Standard error of ρ_k over paths."""
        return self._shaped(self._with_error(_correlation)[1])

    @functools.cached_property
    def _integrated(self) -> tuple[np.ndarray, np.ndarray]:
        dt = float(self.lags[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            running = np.cumsum(_correlation(self._covariances[1]), axis=1) - 0.5
        enough = np.arange(running.shape[1]) >= 5 * running
        # the same window for all groups, so that they estimate the same number
        window = np.where(enough.any(axis=1), np.argmax(enough, axis=1), -1)

        def integral(c: np.ndarray) -> np.ndarray:
            sums = dt * (np.cumsum(_correlation(c), axis=1) - 0.5)
            return np.where(window >= 0, np.take_along_axis(sums, window[:, None], axis=1)[:, 0], np.nan)

        value, error = self._with_error(integral)
        return value.reshape(self.state_shape), error.reshape(self.state_shape)

    @property
    def integrated_time(self) -> np.ndarray:
        """τ = ∫₀^∞ ρ dt of each component, ([d]); nan where the lags end before 5 τ."""
        return self._integrated[0]

    @property
    def integrated_time_error(self) -> np.ndarray:
        """Standard error of τ over paths."""
        return self._integrated[1]

    def __add__(self, other: "AutocorrelationResult") -> "AutocorrelationResult":
        same = self.tree.values.shape[1:] == other.tree.values.shape[1:] and self.state_shape == other.state_shape
        if not same or not np.array_equal(self.t, other.t) or not np.array_equal(self.center, other.center):
            raise ValueError("autocorrelations add only when their times, lags, states and center are the same")
        return AutocorrelationResult(self.t, SumTree.join([self.tree, other.tree]), self.state_shape, self.center)


def _covariance(sums: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """m (d,) and C (d, lags) from the sums over n paths of Σ y_t y_{t+k}/(T−k) and Σ (y_t + y_{t+k})/(T−k)."""
    product, edges = sums / n
    m = 0.5 * edges[:, :1]
    return m[:, 0], product - m * edges + m * m


def _correlation(c: np.ndarray) -> np.ndarray:
    return c / c[:, :1]
