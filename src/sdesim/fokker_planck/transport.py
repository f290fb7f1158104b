"""Transport along one axis of a box, ∂p/∂t = −∂_k(v p), without smearing: a conservative semi-Lagrangian step.

Along a line of cells the distribution function F, the mass below an edge, is constant on the characteristics dx/dt = v,
so that after a time dt

    mass of a cell = F(foot of its upper edge) − F(foot of its lower edge),

a foot being where the characteristic through an edge was dt before. Mass telescopes to rounding, and the step has no
Courant limit (Lin & Rood 1996; Zerroukat, Wood & Staniforth 2002).

**Feet** are found in index space, ξ counting cells, so that unequal cells cost nothing: dξ/dt = v / x'(ξ). Where that
does not vary along a line, the line moves rigidly and exactly; elsewhere the feet are traced by the classical
Runge-Kutta method, v interpolated by cubics between the edges, in substeps that bend it by 0.05 at most.

**Between edges** F is the quintic through the six nearest of them: G(s), the mass of a cell below the fraction s of it,
is a sum over five cells, and in the mean a shift by the fraction s leaves an error c(s) h⁶ ∂⁶p with
c = (s+2)(s+1)s(1−s)(2−s)(3−s)/720 <= 0.005. Odd degrees on centred stencils are stable for every s (Strang 1962).

**Limited** is only what would make a mass negative: 0 <= G <= mass of the cell, and G grows with s (compare Filbet,
Sonnendrücker & Bertrand 2001). Smooth peaks are left alone. Next to walls the two cells beyond are extrapolated by
parabolas: third order there. A line moves as its centre does; where v varies across the lines that leaves an error of
second order in their width.

**Walls.** Where mass may leave (absorbing, Robin) nothing comes in. No mass passes other walls: what is driven against
them stays in the last cell.
"""

import concurrent.futures
import dataclasses
import math
from typing import Any

import numpy as np

from ..core.cache import kernel
from .advection import edge_values
from .boundary import Robin, Sides
from .grid import Grid

# Lines worked on at once: a cache line of neighbours along the last axis.
TOGETHER = 8
# A substep of the characteristics bends the velocity by this share, dt |∂v| <= 0.05: feet are right to 1e-7 of the way.
BEND = 0.05
MAX_SUBSTEPS = 10_000
# What a wall does, as the kernels know it.
CLOSED, OPEN, CIRCLE = 0, 1, 2


def shift(
    m: np.ndarray, velocity: np.ndarray, dt: float, grid: Grid, k: int, sides: Sides, *, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masses after the flow dx_k/dt = velocity for the time dt, and what has left through both walls.

    Arguments
    ---------
    m : (*grid.shape)
        Masses of the cells, >= 0.
    velocity : shape of the grid with n_k + 1 along k
        At the edges along axis k and the centres of the others; constant in time.
    dt : float
        > 0, however many cells that carries the mass.
    sides : (low, high)
        The walls of axis k.
    threads : int
        Threads among which the lines are divided; the result does not depend on it.

    Returns
    -------
    m : (*grid.shape), >= 0
    low, high : shape of a wall
        Mass that has left through each; m, low and high add up to the mass before, line by line, to rounding.

    Error of a step O(h⁶) between the edges and, where v varies along the lines, O(h⁴ dt) in the feet. A flow that is
    used again is prepared once, by ``prepare``.
    """
    return prepare(velocity, dt, grid, k, sides)(m, threads=threads)


@dataclasses.dataclass(frozen=True, eq=False)
class Shift:
    """A flow along one axis for a given time, ready to be applied to any masses.

    feet : (lines, 1) or (lines, n + 1)
        In cells: by how much each line moves where it moves rigidly, otherwise where the mass below each edge was.
    shape, axis
        Of the grid, and along which axis.
    walls : (low, high)
        CLOSED, OPEN or CIRCLE.
    """

    feet: np.ndarray
    shape: tuple[int, ...]
    axis: int
    walls: tuple[int, int]

    def __call__(self, m: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(m after the flow, mass that left through the low wall, through the high wall)."""
        if m.shape != self.shape:
            raise ValueError(f"m has shape {m.shape}, the grid {self.shape}")
        before, n, after = _lines(self.shape, self.axis)
        lines = np.ascontiguousarray(m, float).reshape(before, n, after)
        out, low, high = np.empty(lines.shape), np.empty(before * after), np.empty(before * after)
        groups = n_groups(before, after)
        cuts = [groups * i // threads for i in range(threads + 1)]
        arguments = (lines, self.feet, *self.walls, out, low, high)
        if threads == 1:
            carry(*arguments, 0, groups)
        else:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda i: carry(*arguments, cuts[i], cuts[i + 1]), range(threads)))
        wall = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        return out.reshape(m.shape), low.reshape(wall), high.reshape(wall)


def prepare(velocity: np.ndarray, dt: float, grid: Grid, k: int, sides: Sides) -> Shift:
    """The flow dx_k/dt = velocity for the time dt > 0; arguments as for ``shift``.

    Raises ValueError for a velocity of the wrong shape or not finite, and for dt <= 0.
    """
    shape = grid.shape
    before, n, after = _lines(shape, k)
    expected = (*shape[:k], n + 1, *shape[k + 1 :])
    if velocity.shape != expected:
        raise ValueError(f"velocity has shape {velocity.shape}, expected {expected}: one more than cells on axis {k}")
    if not np.isfinite(velocity).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(velocity))[0]))
        raise ValueError(f"velocity along axis {k} is {velocity[place]} at index {place}; it must be finite")
    if not dt > 0.0:
        raise ValueError(f"dt must be > 0, got {dt:g}")
    low, high = (_kind(wall) for wall in sides)
    widths = grid.widths[k]
    stretch = edge_values(widths, periodic=low == CIRCLE)  # x'(ξ) at the edges
    lines = np.ascontiguousarray(velocity, float).reshape(before, n + 1, after)
    if grid.axes[k].uniform and (lines == lines[:, :1]).all():
        cells = lines[:, 0].reshape(-1, 1) * (dt / widths[0])
        # beyond its length a line has left the box, or gone round the circle
        cells = np.fmod(cells, n) if low == CIRCLE else np.clip(cells, -n - 1.0, n + 1.0)
        return Shift(cells, shape, k, (low, high))
    feet = np.empty((before * after, n + 1))
    trace(lines, 1.0 / stretch, dt, low, high, feet)
    return Shift(feet, shape, k, (low, high))


def _kind(wall: Any) -> int:
    if wall == "periodic":
        return CIRCLE
    return OPEN if wall == "absorbing" or isinstance(wall, Robin) else CLOSED


def _lines(shape: tuple[int, ...], k: int) -> tuple[int, int, int]:
    """A grid as (cells before axis k, along it, after it)."""
    return math.prod(shape[:k]), shape[k], math.prod(shape[k + 1 :])


# ---- feet -----------------------------------------------------------------------------------------------------------


@kernel
def trace(velocity, per_cell, dt, low, high, feet):
    """Where the edges of each line were dt ago, in cells; those that came from beyond a wall stay on it.

    velocity (before, n + 1, after); per_cell (n + 1): cells per length at the edges; feet (before · after, n + 1).
    """
    before, edges, after = velocity.shape
    n = edges - 1
    w = np.empty(edges)
    for b in range(before):
        for a in range(after):
            bend = 0.0
            for i in range(edges):
                w[i] = velocity[b, i, a] * per_cell[i]
                if i > 0:
                    bend = max(bend, abs(w[i] - w[i - 1]))
            steps = min(max(1, int(np.ceil(bend * dt / BEND))), MAX_SUBSTEPS)
            step = dt / steps
            line = feet[b * after + a]
            for i in range(edges):
                y = float(i)
                for _ in range(steps):
                    k1 = _between(w, y, n, low)
                    k2 = _between(w, y - 0.5 * step * k1, n, low)
                    k3 = _between(w, y - 0.5 * step * k2, n, low)
                    k4 = _between(w, y - step * k3, n, low)
                    y -= step * (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0
                line[i] = y
            if low == CIRCLE:
                first = line[0]
                turns = np.floor(first / n) * n
                line[n] = first + n
                for i in range(edges):
                    line[i] = min(max(line[i], first), first + n) - turns
            else:
                for i in range(edges):
                    line[i] = min(max(line[i], 0.0), float(n))
                if low == CLOSED:
                    line[0] = 0.0
                if high == CLOSED:
                    line[n] = float(n)
            for i in range(1, edges):
                line[i] = max(line[i], line[i - 1])


@kernel
def _between(w, y, n, low):
    """The velocity at y by the cubic through the four nearest edges, constant beyond walls."""
    if low == CIRCLE:
        y -= np.floor(y / n) * n
        i = min(int(y), n - 1)
        s = y - i
        w0, w1, w2, w3 = w[i - 1 if i > 0 else n - 1], w[i], w[i + 1], w[i + 2 if i + 2 <= n else 1]
    else:
        y = min(max(y, 0.0), float(n))
        i = min(max(int(y), 1), n - 2)
        s = y - i
        w0, w1, w2, w3 = w[i - 1], w[i], w[i + 1], w[i + 2]
    a, b, c = s + 1.0, s - 1.0, s - 2.0
    return (s * b * (a * w3 - c * w0)) * (1.0 / 6.0) + (a * c * (b * w1 - s * w2)) * 0.5


# ---- masses ---------------------------------------------------------------------------------------------------------


@kernel
def weights(s):
    """Weights of five cells in G(s), the mass of the middle one below its fraction s.

    F at the edges −2 … 3 in terms of the cells between them, times the Lagrange polynomials of those edges.
    """
    a, b, c, d, e = s + 2.0, s + 1.0, s - 1.0, s - 2.0, s - 3.0
    ab, de, sc = a * b, d * e, s * c
    l_2 = b * sc * de * (-1.0 / 120.0)
    l_1 = a * sc * de * (1.0 / 24.0)
    l1 = ab * s * de * (1.0 / 12.0)
    l2 = ab * sc * e * (-1.0 / 24.0)
    l3 = ab * sc * d * (1.0 / 120.0)
    return -l_2, -l_2 - l_1, l1 + l2 + l3, l2 + l3, l3


@kernel
def n_groups(before, after):
    """Groups of lines that ``carry`` works on together."""
    if after == 1:
        return (before + TOGETHER - 1) // TOGETHER
    return before * ((after + TOGETHER - 1) // TOGETHER)


@kernel
def carry(m, feet, low_wall, high_wall, out, low, high, start, stop):
    """The groups start, …, stop − 1 of lines of m (before, n, after), moved: out, and what left, low and high."""
    before, n, after = m.shape
    rigid = feet.shape[1] == 1
    circle = low_wall == CIRCLE
    length = n if rigid or not circle else 2 * n
    q, r = np.empty((TOGETHER, length + 4)), np.empty((TOGETHER, n))
    part, cell = np.empty(n + 1), np.empty(n + 1, np.int64)
    blocks = (after + TOGETHER - 1) // TOGETHER
    for group in range(start, stop):
        if after == 1:
            b, a = group * TOGETHER, 0
            count = min(TOGETHER, before - b)
            for c in range(count):
                for i in range(n):
                    q[c, i + 2] = m[b + c, i, 0]
        else:
            b, a = group // blocks, group % blocks * TOGETHER
            count = min(TOGETHER, after - a)
            if count == TOGETHER:
                for i in range(n):
                    for c in range(TOGETHER):
                        q[c, i + 2] = m[b, i, a + c]
            else:
                for i in range(n):
                    for c in range(count):
                        q[c, i + 2] = m[b, i, a + c]
        first = b * after + a
        for c in range(count):
            line = first + c
            _extend(q[c], n, length, circle)
            if rigid:
                low[line], high[line] = _rigidly(q[c], feet[line, 0], n, low_wall, high_wall, part, r[c])
            else:
                low[line], high[line] = _by_feet(q[c], feet[line], n, length, part, cell, r[c])
        if after == 1:
            for c in range(count):
                for i in range(n):
                    out[b + c, i, 0] = r[c, i]
        elif count == TOGETHER:
            for i in range(n):
                for c in range(TOGETHER):
                    out[b, i, a + c] = r[c, i]
        else:
            for i in range(n):
                for c in range(count):
                    out[b, i, a + c] = r[c, i]


@kernel
def _extend(q, n, length, circle):
    """Fill the two cells beyond each end, and on a circle those of a second turn."""
    if circle:
        for i in range(n, length):
            q[i + 2] = q[i + 2 - n]
        q[0], q[1] = q[n], q[n + 1]
        q[length + 2], q[length + 3] = q[2], q[3]
    else:
        q[1], q[0] = 3.0 * q[2] - 3.0 * q[3] + q[4], 6.0 * q[2] - 8.0 * q[3] + 3.0 * q[4]
        e = n + 1
        q[n + 2], q[n + 3] = 3.0 * q[e] - 3.0 * q[e - 1] + q[e - 2], 6.0 * q[e] - 8.0 * q[e - 1] + 3.0 * q[e - 2]


@kernel(fastmath=("contract",))
def _rigidly(q, cells, n, low_wall, high_wall, part, out):
    """A line that moves by ``cells``: of each cell the part below s goes one cell less far than the rest."""
    whole = int(np.floor(-cells))
    c0, c1, c2, c3, c4 = weights(-cells - whole)
    # views in place of shifted indices: those would be looked at for signs, one by one
    q0, q1, middle, q3, q4 = q[:n], q[1 : n + 1], q[2 : n + 2], q[3 : n + 3], q[4 : n + 4]
    for j in range(n):
        g = c0 * q0[j] + c1 * q1[j] + c2 * middle[j] + c3 * q3[j] + c4 * q4[j]
        part[j] = min(max(g, 0.0), middle[j])
    if low_wall == CIRCLE:
        whole %= n
        _add_rest(out[: n - whole], middle[whole:], part[whole:])
        _add_rest(out[n - whole :], middle[:whole], part[:whole])
        whole = (whole + 1) % n
        _add(out[: n - whole], part[whole:n])
        _add(out[n - whole :], part[:whole])
        return 0.0, 0.0
    low = high = 0.0
    a, b = min(max(whole, 0), n), max(min(n + whole, n), 0)  # the rests of the cells a … b − 1 stay in the box
    out[:] = 0.0
    if a < b:
        _add_rest(out[a - whole : b - whole], middle[a:b], part[a:b])
    for j in range(a):
        low += middle[j] - part[j]
    for j in range(b, n):
        high += middle[j] - part[j]
    whole += 1
    a, b = min(max(whole, 0), n), max(min(n + whole, n), 0)
    if a < b:
        _add(out[a - whole : b - whole], part[a:b])
    for j in range(a):
        low += part[j]
    for j in range(b, n):
        high += part[j]
    if low_wall == CLOSED:
        out[0] += low
        low = 0.0
    if high_wall == CLOSED:
        out[n - 1] += high
        high = 0.0
    return low, high


@kernel
def _add_rest(out, m, part):
    for i in range(len(out)):
        out[i] = m[i] - part[i]


@kernel
def _add(out, part):
    for i in range(len(out)):
        out[i] += part[i]


@kernel(fastmath=("contract",))
def _by_feet(q, feet, n, length, part, cell, out):
    """A line whose edges came from ``feet``."""
    for i in range(n + 1):
        j = min(int(feet[i]), length - 1)
        c0, c1, c2, c3, c4 = weights(feet[i] - j)
        g = c0 * q[j] + c1 * q[j + 1] + c2 * q[j + 2] + c3 * q[j + 3] + c4 * q[j + 4]
        part[i] = min(max(g, 0.0), q[j + 2])
        cell[i] = j
    if length > n:  # a circle ends where it began, to the last bit
        cell[n], part[n] = cell[0] + n, part[0]
        for i in range(n):
            if cell[i] == cell[n]:
                part[i] = min(part[i], part[n])
    low = part[0]
    for j in range(cell[0]):
        low += q[j + 2]
    for i in range(n):
        j, last = cell[i], cell[i + 1]
        if j == last:
            part[i + 1] = max(part[i + 1], part[i])
            out[i] = part[i + 1] - part[i]
        else:
            total = q[j + 2] - part[i]
            for between in range(j + 1, last):
                total += q[between + 2]
            out[i] = total + part[i + 1]
    high = q[cell[n] + 2] - part[n]
    for j in range(cell[n] + 1, length):
        high += q[j + 2]
    return (low, high) if length == n else (0.0, 0.0)
