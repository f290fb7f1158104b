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
from .boundary import Inflow, Robin, Wall, walls
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
    """A of dm/dt = A m + s for the probabilities m = p h of the cells of one axis.

    At cell i, (A m)[i] = lower[i] m[i−1] + diagonal[i] m[i] + upper[i] m[i+1], indices cyclic: lower[i+1] is the rate
    at which mass passes from cell i to i + 1, upper[i] that from i + 1 to i.

    bands : (3, n)
        lower, diagonal, upper; ``lower[0]`` and ``upper[-1]`` couple the ends of a circle and are 0
        otherwise.
    exponent : (n − 1,), or (n,) on a circle
        w of each inner face.
    diffusivity : (n,)
        D at the centres.
    widths : (n,)
        The cell widths h.
    absorption, inflow : (2,)
        Rates at which the outermost cells lose mass through the low and the high wall, and what enters there.
    """

    bands: np.ndarray
    exponent: np.ndarray
    diffusivity: np.ndarray
    widths: np.ndarray
    absorption: np.ndarray
    inflow: np.ndarray
    periodic: bool

    @property
    def absorbs(self) -> bool:
        return bool(self.absorption.any())

    @property
    def keeps_mass(self) -> bool:
        return not (self.absorption.any() or self.inflow.any())

    @property
    def circulates(self) -> bool:
        """Whether a stationary current runs round the circle: ∮ μ/D dx ≠ 0, and A has complex eigenvalues."""
        if not self.periodic:
            return False
        return bool(abs(self.exponent.sum()) > 1e-9 * max(1.0, np.abs(self.exponent).sum()))

    @property
    def peclet(self) -> np.ndarray:
        """Pe = |μ| h/2D of the cells, (n,): that of the face above each, and of the one below for the last."""
        w = np.abs(self.exponent)
        return 0.5 * (w if self.periodic else np.append(w, w[-1]))

    def current(self, m: np.ndarray) -> np.ndarray:
        """The probability current J on the n + 1 edges, positive towards increasing x."""
        lower, _, upper = self.bands
        inner = np.roll(lower, -1) * m - upper * np.roll(m, -1)
        out = np.empty(len(m) + 1)
        out[1:] = inner
        out[0] = inner[-1] if self.periodic else self.inflow[0] - self.absorption[0] * m[0]
        if not self.periodic:
            out[-1] = self.absorption[1] * m[-1] - self.inflow[1]
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
        self.gaps = _gaps(grid, self.periodic)
        self.points = _points(grid, self.periodic)
        self.faces = self.points[self.n :]
        self._last: tuple[float, np.ndarray, np.ndarray, Operator] | None = None

    def values(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """μ at the quadrature points, and D at the centres followed by the quadrature points; checked."""
        mu = evaluate("drift", self.drift, self.faces, t)
        d = evaluate("diffusion", self.diffusivity, self.points, t)
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

    def crosses(self, end: int, t: float) -> bool:
        """Whether noise or drift leads out through the wall at that end, 0 or −1."""
        x = self.grid.edges[[end]]
        with np.errstate(all="ignore"):
            mu, d = (float(np.max(f(x, t))) for f in (self.drift, self.diffusivity))
        return d > 0.0 or (mu > 0.0 if end else mu < 0.0)

    def _joined(self, values: np.ndarray) -> np.ndarray:
        """Three values at the joint of a circle, of the four: both sides of the joint itself are averaged."""
        before, here, after, there = values[-4:]
        return np.concatenate([values[:-4], [before, 0.5 * (here + there), after]])

    def _assemble(self, mu: np.ndarray, d: np.ndarray) -> Operator:
        n, (widths,) = self.n, self.grid.widths
        cells, faces = d[:n], d[n:]
        if self.periodic:
            mu, faces = self._joined(mu), self._joined(faces)
        floor = max(NO_DIFFUSION * float(widths.max()) * float(np.abs(mu).max()), np.finfo(float).tiny)
        cells = np.maximum(cells, floor)
        bands, w, rates = _bands(mu, faces, cells, self.gaps, widths, floor, self.periodic)
        sides = (self.low, self.high)
        absorption, inflow = np.zeros(2), np.zeros(2)
        for i, wall in enumerate(sides):
            if wall not in ("reflecting", "periodic"):
                absorption[i] = rates[0, i] * _leaves(wall, rates[0, i], rates[1, i])
                inflow[i] = wall.flux if isinstance(wall, Inflow) else 0.0
                bands[1, -i] -= absorption[i]
        return Operator(bands, w, cells, widths, absorption, inflow, self.periodic)


def _leaves(wall: Wall, rate: float, back: float) -> float:
    """Share of the absorbing wall's rate at which this wall takes mass.

    Over the half cell the current is rate·m − back·p_wall; a Robin wall lets J = κ p_wall out, so that
    J = rate·m κ/(κ + back).
    """
    if isinstance(wall, Robin):
        return wall.rate / (wall.rate + back) if wall.rate > 0.0 else 0.0
    return 1.0 if wall == "absorbing" else 0.0


@functools.lru_cache(maxsize=64)
def _gaps(grid: Grid, periodic: bool) -> np.ndarray:
    """Distances between the centres of neighbouring cells, that across the joint of a circle last."""
    (widths,) = grid.widths
    gaps = 0.5 * (widths[:-1] + widths[1:])
    if periodic:
        gaps = np.append(gaps, 0.5 * (widths[-1] + widths[0]))
    return gaps


@functools.lru_cache(maxsize=64)
def _points(grid: Grid, periodic: bool) -> np.ndarray:
    """The cell centres, then the three quadrature points of each inner face, then those at the ends."""
    (widths,), centers = grid.widths, grid.centers
    first, last = widths[0], widths[-1]
    middles = 0.5 * (centers[1:] + centers[:-1])
    faces = (middles[:, None] + 0.5 * np.diff(centers)[:, None] * NODES).ravel()
    if grid.uniform:
        faces = (grid.edges[1:-1, None] + 0.5 * first * NODES).ravel()
    if periodic:
        # Around the joint: two points inside, and the joint itself seen from both of its sides.
        ends = [grid.upper + 0.5 * last * NODES[0], grid.upper, grid.lower + 0.5 * first * NODES[2], grid.lower]
    else:
        # Half a cell between the outermost centres and the walls, which only walls with an exit use.
        ends = [*(grid.lower + 0.25 * first * (1.0 + NODES)), *(grid.upper + 0.25 * last * (NODES - 1.0))]
    points = np.concatenate([grid.centers, faces, ends])
    points.setflags(write=False)
    return points


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a == b).all())


def evaluate(name: str, coefficient: Coefficient, x: np.ndarray, t: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = real(name, coefficient(x, t))
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
        raise ValueError(not_finite(name, values, (i,), f"{x[i]:g}", t))
    return values


def real(name: str, value: Any) -> np.ndarray:
    """A coefficient as an array of float64."""
    values = np.asarray(value)
    if values.dtype.kind in "cSU":
        raise TypeError(f"{name} must return real numbers, got dtype {values.dtype}")
    return values.astype(np.float64, copy=False)


def not_finite(name: str, values: np.ndarray, index: tuple[Any, ...], place: str, t: float) -> str:
    """What is said of a coefficient that is nan or infinite at one point, and at how many more."""
    more = int(np.count_nonzero(~np.isfinite(values))) - 1
    also = f" and at {more} more of {values.size} points" if more else ""
    return f"{name} is {values[index]} at x = {place}, t = {t:g}{also}; it must be finite inside the grid"


@kernel
def bernoulli(w):
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
def face_exponent(mu0, mu1, mu2, d0, d1, d2, gap, least):
    """w = ∫ μ/D dx over a gap between centres, by three-point Gauss quadrature."""
    s = 5.0 * mu0 / max(d0, least) + 8.0 * mu1 / max(d1, least) + 5.0 * mu2 / max(d2, least)
    return s * gap / 18.0


@kernel
def face_rates(w, d_low, d_high, gap, h_low, h_high):
    """Rates at which mass passes a face upwards, out of the cell below it, and downwards, out of the one above."""
    down, up = bernoulli(w)
    return up * d_low / (gap * h_low), down * d_high / (gap * h_high)


@kernel
def _bands(mu, d, cells, gaps, widths, floor, periodic):
    """The three bands, w of every inner face, and for each wall the rate of mass towards it, half a cell away, and the
    speed at which it would come back were p not 0 there."""
    n = len(cells)
    bands, rates = np.zeros((3, n)), np.zeros((2, 2))
    n_faces = n if periodic else n - 1
    w = np.empty(n_faces)
    for i in range(n_faces):
        j = i + 1 if i + 1 < n else 0
        least = max(floor, DEGENERATE * 0.5 * (cells[i] + cells[j]))
        k = 3 * i
        w[i] = face_exponent(mu[k], mu[k + 1], mu[k + 2], d[k], d[k + 1], d[k + 2], gaps[i], least)
        up, down = face_rates(w[i], cells[i], cells[j], gaps[i], widths[i], widths[j])
        bands[1, i] -= up
        bands[0, j] += up
        bands[1, j] -= down
        bands[2, i] += down
    if not periodic:
        for side in range(2):
            cell = cells[0] if side == 0 else cells[n - 1]
            half = 0.5 * (widths[0] if side == 0 else widths[n - 1])
            least = max(floor, DEGENERATE * cell)
            k = 3 * (n - 1) + 3 * side
            out = face_exponent(mu[k], mu[k + 1], mu[k + 2], d[k], d[k + 1], d[k + 2], half, least)
            out = out if side == 1 else -out
            down, up = bernoulli(out)
            # D at the wall by the parabola through the three points
            near, far = (d[k], d[k + 2]) if side == 0 else (d[k + 2], d[k])
            wall = 1.4788305577012361 * near - 0.6666666666666666 * d[k + 1] + 0.1878361089654305 * far
            rates[0, side] = up * cell / (half * 2.0 * half)
            rates[1, side] = down * max(wall, least) / half
    return bands, w, rates
