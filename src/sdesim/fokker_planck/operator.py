"""The Fokker-Planck operator as a matrix: finite volumes with exponential fitting.

The equation dp/dt = −∂x J has the current J = μ p − ∂x(D p), D = σ²/2 (Itô). With u = D p it reads
J = (μ/D) u − u', and between two neighbouring cell centres, J taken constant, it is solved exactly:

    J = [B(−w) u_i − B(w) u_(i+1)] / h,     B(w) = w/(e^w − 1),     w = ∫ μ/D dx from x_i to x_(i+1)

(Scharfetter & Gummel 1969; Chang & Cooper 1970 for Fokker-Planck), w by three-point Gauss quadrature. What
follows:

* each cell gains what its neighbours lose, so mass is kept to rounding;
* all rates are >= 0, so the matrix A in dp/dt = A p generates a Markov chain and keeps p >= 0;
* no current means u_(i+1)/u_i = e^w: the grid has the exact stationary state at its nodes;
* D' never appears: the Itô form needs no derivative of the user's function;
* where D vanishes w grows without bound and the flux turns into first-order upwind advection.

The error is O(h²) and smooth in x, which is what Richardson extrapolation needs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.cache import kernel
from .boundary import walls
from .grid import Grid

Coefficient = Callable[[np.ndarray, float], Any]

# Three-point Gauss-Legendre on [-1, 1].
NODES = np.array([-np.sqrt(0.6), 0.0, np.sqrt(0.6)])
WEIGHTS = np.array([5.0, 8.0, 5.0]) / 9.0

# D below this times |μ| h counts as this: the flux is upwind to the last bit and w stays finite.
NO_DIFFUSION = 1e-12
# Within one cell D at a quadrature point counts as at least this times the mean of the two centres: it keeps
# a jump of D to zero from making rates that no solver can hold.
DEGENERATE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A of dp/dt = A p: at cell i, lower[i] p[i−1] + diagonal[i] p[i] + upper[i] p[i+1], indices cyclic.

    bands : (3, n)
        lower, diagonal, upper; ``lower[0]`` and ``upper[-1]`` couple the ends of a circle and are 0
        otherwise.
    exponent : (n − 1,), or (n,) on a circle
        w of each inner face.
    diffusivity : (n,)
        D at the centres.
    absorption : (2,)
        Rates at which the outermost cells lose mass through the low and the high wall.
    """

    bands: np.ndarray
    exponent: np.ndarray
    diffusivity: np.ndarray
    absorption: np.ndarray
    spacing: float
    periodic: bool

    @property
    def absorbs(self) -> bool:
        return bool(self.absorption.any())

    @property
    def circulates(self) -> bool:
        """Whether a stationary current runs round the circle: ∮ μ/D dx ≠ 0, and A has complex eigenvalues."""
        if not self.periodic:
            return False
        return bool(abs(self.exponent.sum()) > 1e-9 * max(1.0, np.abs(self.exponent).sum()))

    def current(self, p: np.ndarray) -> np.ndarray:
        """The probability current J on the n + 1 edges, positive towards increasing x."""
        h, (lower, _, upper) = self.spacing, self.bands
        inner = h * (np.roll(lower, -1) * p - upper * np.roll(p, -1))
        out = np.empty(len(p) + 1)
        out[1:] = inner
        out[0] = inner[-1] if self.periodic else -h * self.absorption[0] * p[0]
        if not self.periodic:
            out[-1] = h * self.absorption[1] * p[-1]
        return out


class Coefficients:
    """The operator as a function of time, from a drift μ(x, t) and a diffusivity D(x, t) of arrays.

    Each returns an array of x's shape or a number. ``at(t)`` returns the very same Operator as the last call
    where the coefficients have not changed, so that a stepper can keep its factors.

    Raises
    ------
    ValueError
        If a coefficient is nan or infinite, or D negative, with the place; or has the wrong shape.
    """

    def __init__(self, drift: Coefficient, diffusivity: Coefficient, grid: Grid, boundary: Any) -> None:
        self.drift, self.diffusivity, self.grid = drift, diffusivity, grid
        self.low, self.high = walls(boundary)
        self.periodic = self.low == "periodic"
        self.n = grid.n_cells
        self.points = _points(grid, self.periodic)
        self.faces = self.points[self.n :]
        self._last: tuple[float, np.ndarray, np.ndarray, Operator] | None = None

    def values(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """μ at the quadrature points, and D at the centres followed by the quadrature points; checked."""
        mu = _evaluate("drift", self.drift, self.faces, t)
        d = _evaluate("diffusion", self.diffusivity, self.points, t)
        if d.min() < 0.0:
            low = int(np.argmin(d))
            raise ValueError(
                f"diffusion is negative at x = {self.points[low]:g}, t = {t:g}: D = {d[low]:g}, must be >= 0"
            )
        return mu, d

    def at(self, t: float) -> Operator:
        """The operator at time t."""
        last = self._last
        if last is not None and last[0] == t:
            return last[3]
        mu, d = self.values(t)
        operator = last[3] if last is not None and _equal(mu, last[1]) and _equal(d, last[2]) else self._assemble(mu, d)
        self._last = (t, mu, d, operator)
        return operator

    def constant(self, times: Any) -> bool:
        """Whether the coefficients are the same, bit for bit, at all of these times."""
        self.at(times[0])
        assert self._last is not None
        _, mu, d, _ = self._last
        return all(_equal(mu, other[0]) and _equal(d, other[1]) for other in map(self.values, times[1:]))

    def still(self, t: float) -> bool:
        """Whether there is no diffusion anywhere at time t."""
        last = self._last
        d = last[2] if last is not None and last[0] == t else self.values(t)[1]
        return not d.any()

    def _joined(self, values: np.ndarray) -> np.ndarray:
        """Three values at the joint of a circle, of the four: both sides of the joint itself are averaged."""
        before, here, after, there = values[-4:]
        return np.concatenate([values[:-4], [before, 0.5 * (here + there), after]])

    def _assemble(self, mu: np.ndarray, d: np.ndarray) -> Operator:
        n, h = self.n, self.grid.spacing
        cells, faces = d[:n], d[n:]
        if self.periodic:
            mu, faces = self._joined(mu), self._joined(faces)
        floor = max(NO_DIFFUSION * h * float(np.abs(mu).max()), np.finfo(float).tiny)
        bands, w, rates = _bands(mu, faces, np.maximum(cells, floor), h, floor, self.periodic)
        absorption = rates * np.array([self.low == "absorbing", self.high == "absorbing"])
        bands[1, 0] -= absorption[0]
        bands[1, -1] -= absorption[1]
        return Operator(bands, w, np.maximum(cells, floor), absorption, h, self.periodic)


@functools.lru_cache(maxsize=64)
def _points(grid: Grid, periodic: bool) -> np.ndarray:
    """The cell centres, then the three quadrature points of each inner face, then those at the ends."""
    h = grid.spacing
    faces = (grid.edges[1:-1, None] + 0.5 * h * NODES).ravel()
    if periodic:
        # Around the joint: two points inside, and the joint itself seen from both of its sides.
        ends = [grid.upper + 0.5 * h * NODES[0], grid.upper, grid.lower + 0.5 * h * NODES[2], grid.lower]
    else:
        # Half a cell between the outermost centres and the walls, which only absorbing walls use.
        ends = [*(grid.lower + 0.25 * h * (1.0 + NODES)), *(grid.upper + 0.25 * h * (NODES - 1.0))]
    points = np.concatenate([grid.centers, faces, ends])
    points.setflags(write=False)
    return points


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a == b).all())


def _evaluate(name: str, coefficient: Coefficient, x: np.ndarray, t: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = np.asarray(coefficient(x, t), dtype=np.float64)
        if values.shape != x.shape:
            if values.size != 1:
                raise ValueError(f"{name} returned shape {values.shape}, expected {x.shape} or a number")
            number = values.reshape(())
            values = np.empty(x.shape)
            values.fill(number)
        # one pass over the values where all is well; a sum is not finite unless all its terms are
        finite = np.isfinite(values.sum())
    if not finite and not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{name} is {values[i]} at x = {x[i]:g}, t = {t:g}; it must be finite inside the grid")
    return values


@kernel
def _bernoulli(w):
    """B(w) and B(−w) = B(w) + w; each without cancellation, from the one of |w|."""
    a = abs(w)
    if a < 1e-3:
        small = 1.0 - 0.5 * a + a * a / 12.0 - a * a * a * a / 720.0
    elif a > 700.0:
        small = 0.0
    else:
        small = a / np.expm1(a)
    if w >= 0.0:
        return small, small + a
    return small + a, small


@kernel
def _bands(mu, d, cells, h, floor, periodic):
    """The three bands, w of every inner face, and the loss rates of absorbing walls half a cell away."""
    n = len(cells)
    bands, rates = np.zeros((3, n)), np.zeros(2)
    n_faces = n if periodic else n - 1
    w = np.empty(n_faces)
    r = 1.0 / (h * h)
    for i in range(n_faces):
        j = i + 1 if i + 1 < n else 0
        least = max(floor, DEGENERATE * 0.5 * (cells[i] + cells[j]))
        s = 5.0 * mu[3 * i] / max(d[3 * i], least)
        s += 8.0 * mu[3 * i + 1] / max(d[3 * i + 1], least)
        s += 5.0 * mu[3 * i + 2] / max(d[3 * i + 2], least)
        w[i] = s * h / 18.0
        backward, forward = _bernoulli(w[i])
        forward *= cells[i] * r
        backward *= cells[j] * r
        bands[1, i] -= forward
        bands[0, j] += forward
        bands[1, j] -= backward
        bands[2, i] += backward
    if not periodic:
        for side in range(2):
            cell = cells[0] if side == 0 else cells[n - 1]
            least = max(floor, DEGENERATE * cell)
            s = 0.0
            for k in range(3):
                at = 3 * (n - 1) + 3 * side + k
                s += (8.0 if k == 1 else 5.0) * mu[at] / max(d[at], least)
            # the exponent towards the wall, over half a cell
            out = s * h / 36.0 * (1.0 if side == 1 else -1.0)
            rates[side] = 2.0 * cell * r * _bernoulli(out)[1]
    return bands, w, rates
