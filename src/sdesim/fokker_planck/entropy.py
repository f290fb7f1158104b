"""Entropy on cells: divergences between probabilities, and what a current produces.

Everything is a sum over cells or over the faces between them, of second order in their width, and 0 exactly where it
must be: a divergence of equal laws, the production of a chain in detailed balance.
"""

import numpy as np

from .box import BoxOperator
from .grid import Grid
from .operator import Operator

# A probability below this share is rounding: a logarithm that is infinite there counts as nothing.
ROUNDING = 1e-12


def kullback_leibler(m: np.ndarray, n: np.ndarray) -> float:
    """Σ m log(m/n) of two laws of the cells, inf where n has nothing and m has more than rounding.

    Summed as m log(m/n) − m + n, which is >= 0 in each cell: no cancellation where the two are close.
    """
    both = (m > 0.0) & (n > 0.0)
    if m[~both & (m > 0.0)].sum() > ROUNDING:
        return np.inf
    a, b = m[both], n[both]
    # log1p keeps the digits of laws that differ in the last ones only
    close = np.abs(a - b) < 0.5 * b
    log = np.where(close, np.log1p(np.where(close, (a - b) / b, 0.0)), np.log(a / b))
    return float((a * log - (a - b)).sum() + n[~both].sum())


def quadratic_form(
    m: np.ndarray, n: np.ndarray, grid: Grid, periodic: tuple[bool, ...], tensor: list[list[np.ndarray | float]] | None
) -> float:
    """∫ p uᵀ D u dx with u = ∇ log(p/q), for the laws m of p and n of q; D = I for None.

    The squares of the components are taken at the faces between cells, where differences are most compact, products
    of two components at the centres. inf where p lives and q does not.
    """
    defined = (m > 0.0) & (n > 0.0)
    ratio = np.zeros(m.shape)
    ratio[defined] = np.log(m[defined] / n[defined])
    total, slopes = 0.0, []
    for k in range(m.ndim):
        face = _Faces(grid, k, periodic[k])
        known = face.low(defined) & face.high(defined)
        slope = np.where(known, face.high(ratio) - face.low(ratio), 0.0) / face.gaps
        share = face.mass(m)
        if share[~known].sum() > ROUNDING:
            return np.inf
        d = 1.0 if tensor is None else face.mean(np.broadcast_to(tensor[k][k], m.shape))
        total += float((share * d * slope**2).sum())
        slopes.append(face.to_centers(slope))
    if tensor is not None:
        for k in range(m.ndim):
            for j in range(k):
                total += 2.0 * float((m * tensor[k][j] * slopes[k] * slopes[j]).sum())
    return total


def production(operator: Operator | BoxOperator, m: np.ndarray, tensor: list[list[np.ndarray | float]] | None) -> float:
    """The rate Σ_faces (J⁺ − J⁻) log(J⁺/J⁻) at which a chain in state m produces entropy (Schnakenberg 1976).

    J⁺ and J⁻ are the flows up and down across a face; the sum tends to ∫ Jᵀ D⁻¹ J / p dx, which is what is summed over
    the cells where mixed derivatives make the operator no chain (``tensor`` is D at the centres). Walls are left out.
    """
    if isinstance(operator, Operator):
        lower, _, upper = operator.bands
        up, down = np.roll(lower, -1) * m, upper * np.roll(m, -1)
        faces = slice(None) if operator.periodic else slice(None, -1)
        return _of_flows(up[faces], down[faces], m, np.roll(m, -1))
    if operator.mixed:
        assert tensor is not None
        return _of_currents(operator, m, tensor)
    total = 0.0
    for k, axis in enumerate(operator.axes):
        assert axis.forward is not None
        assert axis.backward is not None
        inner = (slice(None),) * k + (slice(None) if axis.periodic else slice(None, -1),)
        above = np.roll(m, -1, axis=k)
        down = np.roll(axis.backward, -1, axis=k) * above
        total += _of_flows((axis.forward * m)[inner], down[inner], m[inner], above[inner])
    return total


def _of_flows(up: np.ndarray, down: np.ndarray, m_low: np.ndarray, m_high: np.ndarray) -> float:
    runs = (up > 0.0) & (down > 0.0)
    one_way = ~runs & ((up > 0.0) | (down > 0.0))
    m_low, m_high = m_low[: len(up)], m_high[: len(up)]
    if (m_low[one_way] + m_high[one_way]).sum() > ROUNDING:
        return np.inf
    a, b = up[runs], down[runs]
    return float(((a - b) * np.log(a / b)).sum())


def _of_currents(operator: BoxOperator, m: np.ndarray, tensor: list[list[np.ndarray | float]]) -> float:
    from .currents import box_current  # with sparse matrices, which take a while to import

    d = m.ndim
    j = np.empty((*m.shape, d))
    for k, current in enumerate(box_current(operator, m)):
        low, high = (np.take(current, range(a, a + m.shape[k]), axis=k) for a in (0, 1))
        j[..., k] = 0.5 * (low + high)
    matrices = np.empty((*m.shape, d, d))
    for k in range(d):
        for i in range(d):
            matrices[..., k, i] = tensor[k][i]
    density = m / operator.grid.cell_volume
    inside = density > ROUNDING * density.max()
    force = np.linalg.solve(matrices[inside], j[inside][..., None])[..., 0]
    volume = np.broadcast_to(operator.grid.cell_volume, m.shape)[inside]
    return float(((j[inside] * force).sum(axis=-1) * volume / density[inside]).sum())


class _Faces:
    """The faces between neighbouring cells along one axis of a grid, that across the joint of a circle last."""

    def __init__(self, grid: Grid, k: int, periodic: bool) -> None:
        self.k, self.periodic, dim = k, periodic, grid.dim
        h = grid.widths[k]
        self.n = len(h) if periodic else len(h) - 1
        shape = [-1 if j == k else 1 for j in range(dim)]
        self.h_low, self.h_high = h[: self.n].reshape(shape), np.roll(h, -1)[: self.n].reshape(shape)
        self.gaps = 0.5 * (self.h_low + self.h_high)

    def low(self, values: np.ndarray) -> np.ndarray:
        return np.take(values, range(self.n), axis=self.k)

    def high(self, values: np.ndarray) -> np.ndarray:
        return np.take(np.roll(values, -1, axis=self.k), range(self.n), axis=self.k)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The linear interpolation at the faces of values at the centres."""
        return np.asarray((self.h_high * self.low(values) + self.h_low * self.high(values)) / (2.0 * self.gaps))

    def mass(self, m: np.ndarray) -> np.ndarray:
        """The probability between the centres on both sides of each face."""
        return np.asarray(0.5 * (self.h_high / self.h_low * self.low(m) + self.h_low / self.h_high * self.high(m)))

    def to_centers(self, values: np.ndarray) -> np.ndarray:
        """The means over both faces of each cell; next to a wall the value at the only face."""
        v = np.moveaxis(values, self.k, 0)
        if self.periodic:
            out = 0.5 * (v + np.roll(v, 1, axis=0))
        else:
            out = np.concatenate([v[:1], 0.5 * (v[1:] + v[:-1]), v[-1:]])
        return np.moveaxis(out, 0, self.k)
