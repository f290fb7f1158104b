"""Mixed derivatives: ∂_k∂_j(D_kj p) on pairs of axes, a nine-point stencil that is never stored.

The flux along k is −∂_j(D p) averaged between the two cells at a face, that along j its mirror image. With G the
central difference of one axis times the cell width and C the difference over a cell of the averages at its faces
(both tridiagonal, cyclic on a circle, one-sided or without a current at walls), the part of A is

    (C_k ⊗ G_j + G_k ⊗ C_j) diag(D_kj / (h_k h_j)):

three rows of cells are combined with the weights of C and G along one axis, and the result along the other. The
columns of C add up to 0, which keeps mass.
"""

from typing import NamedTuple

import numpy as np

from ..core.cache import kernel
from .box import BoxOperator
from .bundles import Layout, stored
from .grid import Grid
from .lanes import WIDTH, add, fma, load, mul, spread, store


class Mixed(NamedTuple):
    """The mixed part of one pair of axes.

    weights
        D_kj / (h_k h_j) as stored arrays are.
    along, across
        For the first and the second axis of the pair C and G: the weights of the cell before, the cell and the cell
        after, (6, n) flat, padded.
    """

    present: bool
    weights: np.ndarray
    along: np.ndarray
    across: np.ndarray


NONE = Mixed(False, np.zeros(0), np.zeros((6, 0)), np.zeros((6, 0)))


def mixed_parts(operator: BoxOperator, at: Layout) -> tuple[Mixed, Mixed, Mixed]:
    """Those of the pairs (0, 1), (0, 2) and (1, 2) of stored axes; in two dimensions the only pair is (0, 2)."""
    grid, found = operator.grid, [NONE, NONE, NONE]
    for (k, j), values in operator.mixed.items():
        areas = [np.reshape(grid.widths[a], [-1 if b == a else 1 for b in range(grid.dim)]) for a in (k, j)]
        rows = [_weights(grid.axes[a], operator.axes[a].periodic) for a in (k, j)]
        pair = k + j - 1 if grid.dim == 3 else 1
        found[pair] = Mixed(True, stored(values / (areas[0] * areas[1]), at), *rows)
    return found[0], found[1], found[2]


def _weights(axis: Grid, periodic: bool) -> np.ndarray:
    """(6, n): C and G, for each the weights of the cell before, the cell itself and the cell after."""
    n, x, (h,) = axis.n_cells, axis.centers, axis.widths
    out = np.zeros((6, -(-n // WIDTH) * WIDTH))
    flux, slope = out[:3, :n], out[3:, :n]
    flux[0], flux[2] = -0.5, 0.5
    right = np.append(np.diff(x), 0.5 * (h[0] + h[-1]))
    left = np.roll(right, 1)
    slope[0], slope[2] = -right / (left * (left + right)), left / (right * (left + right))
    slope[1] = (right - left) / (left * right)
    if not periodic:
        flux[:, 0], flux[:, -1] = (0.0, 0.5, 0.5), (-0.5, -0.5, 0.0)
        slope[:, 0] = 0.0, -1.0 / right[0], 1.0 / right[0]
        slope[:, -1] = -1.0 / right[-2], 1.0 / right[-2], 0.0
    slope *= h
    return out


@kernel
def add_mixed(slab, at, p01, p02, p12, scale, x, out, c, g):
    """out += scale · (mixed part) x on the rows of a slab; c and g are buffers of a row and 16 numbers."""
    rows = at.n1 if at.n1 > 1 else min(8, at.n0 - 8 * slab)
    for r in range(rows):
        i0, i1 = (slab, r) if at.n1 > 1 else (8 * slab + r, 0)
        if p02.present:
            _add_last(at, p02, scale, x, out, i0 * at.first + i1 * at.row, i0, at.n0, at.first, c, g)
        if p12.present:
            _add_last(at, p12, scale, x, out, i0 * at.first + i1 * at.row, i1, at.n1, at.row, c, g)
        if p01.present:
            _add_first(at, p01, scale, x, out, i0, i1)


@kernel
def _add_last(at, part, scale, x, out, place, i, n, stride, c, g):
    """On the row at ``place``, cell i of n along the first axis of the pair; the second one is that of the row."""
    weights, along, across = part.weights, part.along, part.across
    below = place - stride if i > 0 else place + (n - 1) * stride
    above = place + stride if i + 1 < n else place - (n - 1) * stride
    c0, c1, c2 = spread(along[0, i]), spread(along[1, i]), spread(along[2, i])
    g0, g1, g2 = spread(along[3, i]), spread(along[4, i]), spread(along[5, i])
    for j in range(0, 8 * at.chunks, 8):
        q0 = mul(load(weights, below + j), load(x, below + j))
        q1 = mul(load(weights, place + j), load(x, place + j))
        q2 = mul(load(weights, above + j), load(x, above + j))
        store(c, 8 + j, fma(c0, q0, fma(c1, q1, mul(c2, q2))))
        store(g, 8 + j, fma(g0, q0, fma(g1, q1, mul(g2, q2))))
    c[7], c[8 + at.n2], g[7], g[8 + at.n2] = c[7 + at.n2], c[8], g[7 + at.n2], g[8]
    factor = spread(scale)
    flat, length = across.ravel(), across.shape[1]
    for j in range(0, 8 * at.chunks, 8):
        total = mul(load(flat, 3 * length + j), load(c, 7 + j))
        total = fma(load(flat, 4 * length + j), load(c, 8 + j), total)
        total = fma(load(flat, 5 * length + j), load(c, 9 + j), total)
        total = fma(load(flat, j), load(g, 7 + j), total)
        total = fma(load(flat, length + j), load(g, 8 + j), total)
        total = fma(load(flat, 2 * length + j), load(g, 9 + j), total)
        store(out, place + j, fma(factor, total, load(out, place + j)))


@kernel
def _add_first(at, part, scale, x, out, i0, i1):
    """On the row (i0, i1), for the pair of the first two axes."""
    weights, along, across = part.weights, part.along, part.across
    place = i0 * at.first + i1 * at.row
    for a in range(3):
        for b in range(3):
            w = scale * (along[a, i0] * across[3 + b, i1] + along[3 + a, i0] * across[b, i1])
            if w != 0.0:
                from_ = (i0 + a - 1) % at.n0 * at.first + (i1 + b - 1) % at.n1 * at.row
                factor = spread(w)
                for j in range(0, 8 * at.chunks, 8):
                    q = mul(load(weights, from_ + j), load(x, from_ + j))
                    store(out, place + j, add(load(out, place + j), mul(factor, q)))
