"""The Fokker-Planck operator in two and three dimensions: finite volumes on a box of cells.

    dp/dt = −Σ_k ∂_k J_k,     J_k = μ_k p − Σ_l ∂_l(D_kl p),     D = ½ σσᵀ   (Itô)

Each axis has the exponentially fitted fluxes of ``operator``, with μ_k and D_kk; they give a Markov chain of jumps
between neighbouring cells, conservative and positive. What else there is:

* **Mixed derivatives** (k ≠ l) are explicit parts of the fluxes: ∂_l(D_kl p) by central differences, averaged between
  the two cells at the face; one-sided next to a wall, and no part of the current through a wall. Second order; the
  matrix then has negative rates, so positivity is no longer certain and ``is_chain`` says so.
* **Degenerate axes**, where D_kk is 0 everywhere: the exponential fit would be first-order upwind and smear what it
  moves. They keep the velocities μ_k at their faces instead, and ``transport`` moves the mass; steady problems take
  the third-order upwind-biased difference (Leonard 1979; van Leer's κ = 1/3).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.cache import kernel
from .boundary import Inflow, Robin, Sides
from .grid import Grid
from .operator import DEGENERATE, NO_DIFFUSION, NODES, WEIGHTS, bernoulli, face_rates, not_finite, real

# μ (d numbers or arrays) and the rows of D (a literal 0.0 where it vanishes) at points: (x (d arrays), t) -> …
Drift = Callable[[tuple[np.ndarray, ...], float], tuple[Any, ...]]
Tensor = Callable[[tuple[np.ndarray, ...], float], tuple[tuple[Any, ...], ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """Jumps along one axis; every array has the shape of the grid.

    forward, backward
        Rates at which the mass of a cell passes to the next cell and to the one before. Those of the last and the
        first cell lead through the walls: out of the box, or on a circle to its other end; 0 where walls reflect.
    log_ratio
        log(forward[i] / backward[i + 1]) at the inner faces: n − 1 along the axis, n on a circle. Its sum along any
        path is the change of the log of the stationary mass where there is no current.
    velocity
        For a degenerate axis, which has no rates: μ_k at the n + 1 edges along the axis, otherwise None.
    inflow : (2,)
        Flux densities that enter through the low and the high wall.
    """

    forward: np.ndarray | None
    backward: np.ndarray | None
    log_ratio: np.ndarray | None
    velocity: np.ndarray | None
    sides: Sides
    inflow: np.ndarray

    @property
    def periodic(self) -> bool:
        return self.sides[0] == "periodic"


@dataclasses.dataclass(frozen=True, eq=False)
class BoxOperator:
    """A of dm/dt = A m + s for the probabilities m of the cells of a box.

    axes
        The jumps along each axis.
    mixed
        {(k, l): D_kl at the centres} for k < l, where it does not vanish.
    """

    grid: Grid
    axes: tuple[Axis, ...]
    mixed: dict[tuple[int, int], np.ndarray]

    @property
    def degenerate(self) -> tuple[int, ...]:
        """Axes without diffusion."""
        return tuple(k for k, axis in enumerate(self.axes) if axis.velocity is not None)

    @property
    def is_chain(self) -> bool:
        """Whether A is the generator of a Markov chain: positive whatever the step, for implicit Euler."""
        return not self.mixed and not self.degenerate

    @functools.cached_property
    def keeps_mass(self) -> bool:
        return not self.absorbs and not any(axis.inflow.any() for axis in self.axes)

    @functools.cached_property
    def absorbs(self) -> bool:
        return any(rates.any() for pair in self.exits for rates in pair)

    @functools.cached_property
    def exits(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """For each axis the rates (shape of a wall) at which mass leaves through its low and its high wall."""
        found = []
        for k, axis in enumerate(self.axes):
            wall = tuple(n for j, n in enumerate(self.grid.shape) if j != k)
            low, high = np.zeros(wall), np.zeros(wall)
            if axis.velocity is not None:
                h = self.grid.widths[k]
                if _open(axis.sides[0]):
                    low = np.maximum(-_take(axis.velocity, k, 0), 0.0) / h[0]
                if _open(axis.sides[1]):
                    high = np.maximum(_take(axis.velocity, k, -1), 0.0) / h[-1]
            elif not axis.periodic:
                assert axis.forward is not None
                assert axis.backward is not None
                low, high = _take(axis.backward, k, 0), _take(axis.forward, k, -1)
            found.append((low, high))
        return tuple(found)

    @functools.cached_property
    def source(self) -> np.ndarray | None:
        """s, what enters each cell per unit time; None where no wall has an inflow."""
        if not any(axis.inflow.any() for axis in self.axes):
            return None
        out = np.zeros(self.grid.shape)
        for k, axis in enumerate(self.axes):
            rest = [h for j, h in enumerate(self.grid.widths) if j != k]
            area = functools.reduce(np.multiply.outer, rest)
            for side, flux in zip((0, -1), axis.inflow, strict=True):
                out[(slice(None),) * k + (side,)] += flux * area
        return out


class BoxCoefficients:
    """The operator on a box as a function of time, from the drift and the diffusion tensor at points.

    Raises
    ------
    ValueError
        If a coefficient is nan or infinite, with the place, or has a shape that does not fit.
    """

    def __init__(self, drift: Drift, tensor: Tensor, grid: Grid, sides: tuple[Sides, ...], autonomous: bool) -> None:
        self.drift, self.tensor, self.grid, self.sides, self.autonomous = drift, tensor, grid, sides, autonomous
        self._last: tuple[float, BoxOperator] | None = None

    def at(self, t: float) -> BoxOperator:
        """The operator at time t; the very same one as at the last call where nothing depends on time."""
        if self._last is None or (self._last[0] != t and not self.autonomous):
            with np.errstate(all="ignore"):  # what is not finite is told with its place
                self._last = (t, self._assemble(t))
        return self._last[1]

    def constant(self, times: tuple[float, ...]) -> bool:
        """Whether the coefficients are the same, bit for bit, at all of these times."""
        if self.autonomous:
            return True
        mesh = _mesh(tuple(np.asarray(c) for c in self.grid.centers))

        def values(t: float) -> list[Any]:
            return [*self.drift(mesh, t), *(d for row in self.tensor(mesh, t) for d in row)]

        first = values(times[0])
        return all(np.array_equal(a, b) for t in times[1:] for a, b in zip(first, values(t), strict=True))

    def peclet(self, t: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each axis Pe = |μ_k| h_k/2D_kk and D_kk at the centres; both 0 where there is no diffusion."""
        mesh, shape = _mesh(tuple(np.asarray(c) for c in self.grid.centers)), self.grid.shape
        mu, rows, found = self.drift(mesh, t), self.tensor(mesh, t), []
        for k, widths in enumerate(self.grid.widths):
            h = widths.reshape([-1 if j == k else 1 for j in range(self.grid.dim)])
            d = np.broadcast_to(np.asarray(rows[k][k], float), shape)
            numbers = np.broadcast_to(0.5 * h * np.abs(mu[k]), shape) / np.where(d > 0.0, d, np.inf)
            found.append((numbers, d))
        return found

    def crosses(self, k: int, end: int, t: float) -> bool:
        """Whether noise or drift leads out anywhere through the wall at that end, 0 or −1, of axis k."""
        edge = np.asarray(self.grid.axes[k].edges)[[end]]
        mesh = _mesh(tuple(edge if j == k else np.asarray(c) for j, c in enumerate(self.grid.centers)))
        with np.errstate(all="ignore"):
            mu, d = np.asarray(self.drift(mesh, t)[k]), np.asarray(self.tensor(mesh, t)[k][k])
        return bool((d > 0.0).any() or (mu > 0.0 if end else mu < 0.0).any())

    def _assemble(self, t: float) -> BoxOperator:
        grid, dim = self.grid, self.grid.dim
        centers = tuple(np.asarray(c) for c in grid.centers)
        rows = self.tensor(_mesh(centers), t)
        mixed = {}
        for k in range(dim):
            for j in range(k + 1, dim):
                values = _checked("diffusion", rows[k][j], centers, t)
                if values.any():
                    mixed[k, j] = values
        at_centers = [_checked("diffusion", rows[k][k], centers, t) for k in range(dim)]
        axes = tuple(self._axis(k, at_centers[k], t) for k in range(dim))
        return BoxOperator(grid, axes, mixed)

    def _axis(self, k: int, at_centers: np.ndarray, t: float) -> Axis:
        grid, sides = self.grid, self.sides[k]
        periodic = sides[0] == "periodic"
        inflow = np.array([wall.flux if isinstance(wall, Inflow) else 0.0 for wall in sides])
        gaps, nodes = _face_points(grid.axes[k], periodic)
        n_faces, shape = len(gaps), _lines(grid.shape, k)
        lows = at_centers.reshape(shape)
        highs = np.roll(lows, -1, axis=1)[:, :n_faces]
        least = DEGENERATE * 0.5 * (lows[:, :n_faces] + highs)
        found = [self._on_faces(k, points, t) for points in nodes]
        if not at_centers.any() and not any(d.any() for _, d in found):
            edges, _ = self._on_faces(k, grid.axes[k].edges, t)
            return Axis(None, None, None, edges.reshape(*_edge_shape(grid.shape, k)), sides, inflow)
        fastest = max(float(np.abs(mu).max()) for mu, _ in found)
        floor = max(NO_DIFFUSION * float(grid.widths[k].max()) * fastest, np.finfo(float).tiny)
        np.maximum(least, floor, out=least)
        w = sum(weight * mu / np.maximum(d, least) for weight, (mu, d) in zip(WEIGHTS, found, strict=True))
        w = np.ascontiguousarray(0.5 * gaps[:, None] * w)
        lows = np.maximum(lows, floor)
        forward, backward = np.zeros(shape), np.zeros(shape)
        _fill_rates(forward, backward, w, lows, gaps, grid.widths[k])
        if not periodic:
            for side in (0, -1):
                if _open(sides[side]):
                    rates = self._exit(k, side, lows[:, side], floor, t)
                    (forward if side else backward)[:, side] = rates
        wide = np.log(lows * (1.0 / grid.widths[k][:, None]))
        ratio = w + (wide[:, :n_faces] - np.roll(wide, -1, axis=1)[:, :n_faces])
        full = grid.shape
        return Axis(
            forward.reshape(full), backward.reshape(full), ratio.reshape(_with(full, k, n_faces)), None, sides, inflow
        )

    def _on_faces(self, k: int, points: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        """μ_k and D_kk, (before, n, after), where coordinate k takes these values, the others those of the centres."""
        coordinates = tuple(points if j == k else np.asarray(c) for j, c in enumerate(self.grid.centers))
        mesh = _mesh(coordinates)
        shape = _lines(_with(self.grid.shape, k, len(points)), k)
        mu = _checked("drift", self.drift(mesh, t)[k], coordinates, t)
        d = _checked("diffusion", self.tensor(mesh, t)[k][k], coordinates, t)
        return mu.reshape(shape), d.reshape(shape)

    def _exit(self, k: int, side: int, cells: np.ndarray, floor: float, t: float) -> np.ndarray:
        """Rates (before, after) at which the outermost cells lose mass through a wall, over half a cell."""
        axis, wall = self.grid.axes[k], self.sides[k][side]
        h = float(self.grid.widths[k][side])
        start, sign = (axis.lower, 1.0) if side == 0 else (axis.upper, -1.0)
        points = start + sign * 0.25 * h * (1.0 - NODES)  # from the centre towards the wall
        mu, d = self._on_faces(k, points, t)
        least = np.maximum(floor, DEGENERATE * cells)
        w = sum(weight * mu[:, i] / np.maximum(d[:, i], least) for i, weight in enumerate(WEIGHTS))
        out = np.ascontiguousarray(-0.25 * h * sign * w)
        back, rates = np.empty_like(out), np.empty_like(out)
        _bernoulli_pairs(out.ravel(), back.ravel(), rates.ravel())
        rates *= 2.0 * cells / h**2
        if isinstance(wall, Robin):
            # D at the wall by the parabola through the three points
            at_wall = 0.1878361089654305 * d[:, 0] - 0.6666666666666666 * d[:, 1] + 1.4788305577012361 * d[:, 2]
            back *= 2.0 * np.maximum(at_wall, least) / h
            rates *= wall.rate / (wall.rate + back) if wall.rate > 0.0 else 0.0
        return rates


def _open(wall: Any) -> bool:
    """Whether mass may leave through a wall."""
    return wall == "absorbing" or isinstance(wall, Robin)


def _face_points(axis: Grid, periodic: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """The gaps between neighbouring centres and, for each Gauss node, its coordinate in every gap."""
    centers, (widths,) = axis.centers, axis.widths
    gaps, middles = np.diff(centers), 0.5 * (centers[1:] + centers[:-1])
    if periodic:
        gaps = np.append(gaps, 0.5 * (widths[0] + widths[-1]))
        middles = np.append(middles, axis.upper)
    nodes = [middles + 0.5 * gaps * node for node in NODES]
    if periodic:
        nodes[2][-1] -= axis.upper - axis.lower
    return gaps, nodes


def _lines(shape: tuple[int, ...], k: int) -> tuple[int, int, int]:
    """A shape as (cells before axis k, along it, after it)."""
    return math.prod(shape[:k]), shape[k], math.prod(shape[k + 1 :])


def _with(shape: tuple[int, ...], k: int, n: int) -> tuple[int, ...]:
    return (*shape[:k], n, *shape[k + 1 :])


def _edge_shape(shape: tuple[int, ...], k: int) -> tuple[int, ...]:
    return _with(shape, k, shape[k] + 1)


def _take(values: np.ndarray, k: int, index: int) -> np.ndarray:
    return np.take(values, index, axis=k)


def _mesh(coordinates: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(x) for x in np.meshgrid(*coordinates, indexing="ij"))


def _checked(name: str, value: Any, coordinates: tuple[np.ndarray, ...], t: float) -> np.ndarray:
    """A coefficient as a full array over a mesh; raises where it is not finite, and says where."""
    shape = tuple(len(c) for c in coordinates)
    values = real(name, value)
    if values.size == 1:
        values = np.full(shape, float(values.reshape(())))
    if values.shape != shape:
        raise ValueError(f"{name} returned shape {values.shape}, expected {shape} or a number")
    if not np.isfinite(values.sum()) and not np.isfinite(values).all():
        place = np.unravel_index(int(np.argmin(np.isfinite(values))), shape)
        at = ", ".join(f"{c[i]:g}" for c, i in zip(coordinates, place, strict=True))
        raise ValueError(not_finite(name, values, place, f"({at})", t))
    return values


@kernel
def _bernoulli_pairs(w, plus, minus):
    for i in range(len(w)):
        plus[i], minus[i] = bernoulli(w[i])


@kernel
def _fill_rates(forward, backward, w, d, gaps, widths):
    """Rates across the inner faces of all lines; arrays (before, n, after)."""
    before, n, after = forward.shape
    for b in range(before):
        for i in range(w.shape[1]):
            j = i + 1 if i + 1 < n else 0
            for a in range(after):
                up, down = face_rates(w[b, i, a], d[b, i, a], d[b, j, a], gaps[i], widths[i], widths[j])
                forward[b, i, a] = up
                backward[b, j, a] = down
