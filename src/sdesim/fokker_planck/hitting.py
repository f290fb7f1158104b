"""When and where a process first hits a set: mean first-passage times and splitting probabilities.

The chain of the finite volumes jumps from cell to cell at the rates that make up A, so expectations over its paths
solve systems with Aᵀ and no second discretisation is needed. With τ_j(x) the j-th moment of the time to the set from
x, and q(x) the probability to reach b before a,

    Aᵀ τ_j = −j τ_(j−1),  τ_0 = 1,  τ_j = 0 on the set;        Aᵀ q = 0,  q = 0 on a,  q = 1 on b

(Pontryagin, Andronov & Vitt 1933; for chains Norris 1997, chapter 3). The set begins at the faces of its cells: a jump
into it covers only the half cell up to that face, at the rate of an absorbing wall, which gives second order where the
edges of the set are faces.

On a line elimination adds, multiplies and divides positive numbers only: the rate at which a cell leaves for good is
carried along instead of being found by subtraction (Grassmann, Taksar & Heyman 1985). Every τ is then accurate to
rounding relative to itself, were it e^300.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy import sparse

from ..core.cache import kernel
from .box import Axis, BoxOperator
from .linear import solver
from .operator import Operator, bernoulli
from .sparse import jumps, line_matrices, matrix
from .upwind import upwind


@dataclasses.dataclass(frozen=True, eq=False)
class Goal:
    """The cells where a path ends, and what it is worth to end there.

    cells : bool, shape of the grid, or None
        The set.
    values : float, shape of the grid, or None
        What it is worth to end in those cells; None for 0 in all.
    walls : ((low, high), …) for each axis
        What it is worth to leave through the walls that absorb.
    """

    cells: np.ndarray | None = None
    values: np.ndarray | None = None
    walls: tuple[tuple[float, float], ...] = ()


def passage_moments(operator: Operator, goal: Goal, moments: int) -> np.ndarray:
    """E[T^j] for j = 1 … moments of the time T to the set or out of the box, (moments, n).

    Raises ValueError where the chain cannot get there from some cells.
    """
    up, down, exits, _, turn = _cut_line(operator, goal)
    found = np.empty((moments, len(up)))
    right = np.ones(len(up)) if goal.cells is None else np.where(np.roll(goal.cells, turn), 0.0, 1.0)
    for j in range(moments):
        row = found[j]
        expected(up, down, exits, right, row)
        right = (j + 2.0) * row
    if turn:
        found = np.roll(found, -turn, axis=1)
    _check_reached(found)
    return found


def hitting_value(operator: Operator, goal: Goal) -> np.ndarray:
    """E[value where the path ends], (n,): the probability to end where the goal's value is 1."""
    up, down, exits, gain, turn = _cut_line(operator, goal)
    found = np.empty(len(up))
    expected(up, down, exits, gain, found)
    found = np.roll(found, -turn) if turn else found
    _check_reached(found)
    return found


def _check_reached(found: np.ndarray) -> None:
    if math.isfinite(found.sum()):
        return
    bad = np.flatnonzero(~np.isfinite(found.reshape(-1, found.shape[-1])).all(axis=0))
    raise ValueError(
        f"the process has no way out from {len(bad)} of {found.shape[-1]} cells (the first is {bad[0]}): the target "
        "cannot be reached from there, and no wall absorbs"
    )


def _cut_line(operator: Operator, goal: Goal) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Rates up, down and out of each cell, what the exits are worth, and by how many cells a circle was turned."""
    n, bands, exponent, widths = len(operator.widths), operator.bands, operator.exponent, operator.widths
    cells, values, turn = goal.cells, goal.values, 0
    if cells is None:
        cells = np.zeros(n, bool)
    elif operator.periodic and cells.any():
        # a circle with a cell of the set at its end is a line
        turn = n - 1 - int(np.argmax(cells))
        cells, widths = np.roll(cells, turn), np.roll(widths, turn)
        bands, exponent = np.roll(bands, turn, axis=1), np.roll(exponent, turn)
        values = None if values is None else np.roll(values, turn)
    if not (cells.any() or operator.absorbs):
        raise ValueError("no wall absorbs and there is no target: the process never leaves")
    values = np.zeros(n) if values is None else values
    ends = np.array(goal.walls[0] if goal.walls else (0.0, 0.0))
    return (*_cut(bands, exponent, widths, operator.absorption, cells, values, ends, operator.periodic), turn)


@kernel
def _cut(bands, exponent, widths, absorption, cells, values, ends, periodic):
    n = len(widths)
    up, down, exits, gain = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n if periodic else n - 1):
        j = i + 1 if i + 1 < n else 0
        f, b = bands[0, j], bands[2, i]
        if not cells[i] and not cells[j]:
            up[i], down[j] = f, b
        elif cells[j] and not cells[i]:
            rate = half_rate(f, exponent[i], widths[i], widths[j])
            exits[i] += rate
            gain[i] += rate * values[j]
        elif cells[i] and not cells[j]:
            rate = half_rate(b, -exponent[i], widths[j], widths[i])
            exits[j] += rate
            gain[j] += rate * values[i]
    if not periodic:
        for end in range(2):
            i = 0 if end == 0 else n - 1
            exits[i] += absorption[end]
            gain[i] += absorption[end] * ends[end]
    for i in range(n):
        if cells[i]:
            up[i], down[i], exits[i], gain[i] = 0.0, 0.0, 1.0, values[i]
    return up, down, exits, gain


@kernel
def half_rate(rate, w, h, beyond):
    """The rate at which mass passes to the face of its cell, of width h, from that to the centre beyond the face.

    B(−w) D/(d h) over the distance d, w = ∫ μ/D along it: w shrinks with d.
    """
    if rate == 0.0:
        return 0.0
    s = h / (h + beyond)
    near, far = bernoulli(-s * w), bernoulli(-w)
    return rate * near[0] / (s * far[0])


@kernel
def expected(up, down, exits, right, u):
    """up (u_i − u_(i+1)) + down (u_i − u_(i−1)) + exits u = right, all >= 0; infinite where nothing leads out."""
    n = len(up)
    pivots = np.empty(n)
    leaving, held = exits[0], right[0]
    for i in range(n):
        pivots[i] = up[i] + leaving
        u[i] = held
        if i + 1 < n:
            share = down[i + 1] / pivots[i]
            if down[i + 1] == 0.0:
                share = 0.0
            leaving, held = exits[i + 1] + share * leaving, right[i + 1] + share * held
    u[n - 1] /= pivots[n - 1]
    for i in range(n - 2, -1, -1):
        u[i] += up[i] * u[i + 1] if up[i] > 0.0 else 0.0
        u[i] /= pivots[i]
    return u


# ---- several dimensions ---------------------------------------------------------------------------------------------


def box_passage_moments(operator: BoxOperator, goal: Goal, moments: int) -> np.ndarray:
    """E[T^j] for j = 1 … moments of the time T to the set or out of the box, (moments, *shape).

    Raises ValueError where the set cannot be reached.
    """
    solve = _box_solver(operator, goal)
    free = 1.0 if goal.cells is None else np.where(goal.cells, 0.0, 1.0)
    found, below = [], np.ones(operator.grid.shape)
    for j in range(1, moments + 1):
        below = solve(-j * below * free)
        found.append(below)
    _check_box(operator, found[0])
    return np.array(found)


def box_hitting_value(operator: BoxOperator, goal: Goal) -> np.ndarray:
    """E[value where the path ends], shape of the grid; paths that leave through a wall end with 0."""
    assert goal.cells is not None
    assert goal.values is not None
    return _box_solver(operator, goal)(np.where(goal.cells, -goal.values, 0.0))


def _box_solver(operator: BoxOperator, goal: Goal) -> Callable[[np.ndarray], np.ndarray]:
    """b -> u with Aᵀ u = b, where the rows of the set say u = −b."""
    cells = goal.cells
    if not (operator.absorbs or (cells is not None and cells.any())):
        raise ValueError("no wall absorbs and there is no target: the process never leaves")
    if cells is None or not cells.any():
        lines = line_matrices(operator)
        total = matrix(operator, lines)
    else:
        cut = dataclasses.replace(operator, axes=tuple(_cut_axis(operator, k, cells) for k in range(cells.ndim)))
        keep = sparse.diags((~cells).ravel().astype(float))
        lines = [
            (jumps(axis, cells.shape, k) if axis.velocity is None else upwind(axis, operator.grid, k, cells)) @ keep
            for k, axis in enumerate(cut.axes)
        ]
        end = sparse.diags(cells.ravel().astype(float))
        total = matrix(cut, lines) @ keep - end
        lines[0] = lines[0] - end
    solve = solver(total, lines, operator)

    def transposed(b: np.ndarray) -> np.ndarray:
        return solve(b.ravel(), transposed=True).reshape(b.shape)

    return transposed


def _cut_axis(operator: BoxOperator, k: int, cells: np.ndarray) -> Axis:
    """The jumps along an axis, those into the set at the rate of a wall at its face, none out of it."""
    axis, widths = operator.axes[k], operator.grid.widths[k]
    if axis.velocity is not None:
        return axis
    assert axis.forward is not None
    assert axis.backward is not None
    assert axis.log_ratio is not None
    ended, f, b = (np.moveaxis(a, k, 0) for a in (cells, axis.forward.copy(), axis.backward.copy()))
    ratio = np.moveaxis(axis.log_ratio, k, 0)
    n, n_faces = len(f), len(ratio)
    low, high = np.arange(n_faces), (np.arange(n_faces) + 1) % n
    h = widths.reshape(-1, *([1] * (f.ndim - 1)))
    # w up to the change of log D between the centres, which displaces the edge by O(h²)
    w = ratio + np.log(h[low] / h[high])
    into = ended[high] & ~ended[low]
    f[low] = np.where(into, _half_rates(f[low], w, h[low], h[high]), f[low])
    into = ended[low] & ~ended[high]
    b[high] = np.where(into, _half_rates(b[high], -w, h[high], h[low]), b[high])
    f[ended] = 0.0
    b[ended] = 0.0
    return dataclasses.replace(axis, forward=np.moveaxis(f, 0, k), backward=np.moveaxis(b, 0, k))


def _half_rates(rate: np.ndarray, w: np.ndarray, h: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    parts = (np.ascontiguousarray(a).ravel() for a in np.broadcast_arrays(rate, w, h, beyond))
    return np.asarray(_half_rates_of(*parts)).reshape(rate.shape)


@kernel
def _half_rates_of(rate, w, h, beyond):
    out = np.empty(len(rate))
    for i in range(len(rate)):
        out[i] = half_rate(rate[i], w[i], h[i], beyond[i])
    return out


def _check_box(operator: BoxOperator, tau: np.ndarray) -> None:
    """Raise where no exit is reached; warn where the time is so long that rounding has eaten the digits."""
    rate = max(float(np.max(a.forward + a.backward)) for a in operator.axes if a.forward is not None)
    longest = float(np.max(np.abs(tau)))
    lost = longest * rate * np.finfo(float).eps
    if not np.isfinite(tau).all() or lost > 0.1:
        raise ValueError(
            "the process has no way out from some cells, or takes so long that rounding hides it "
            f"(up to {longest:.2g} at {rate:.2g} jumps per unit time): check that the target can be reached"
        )
    if lost > 1e-6:
        warnings.warn(
            f"times up to {longest:.2g} at {rate:.2g} jumps per unit time are accurate to about {lost:.1g} only",
            UserWarning,
            stacklevel=4,
        )
