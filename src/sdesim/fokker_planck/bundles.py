"""Lines of cells in bundles of eight: their rates packed for vectors, jumps applied, implicit steps solved.

Along a line, with forward rates f and backward rates b, the part A_k of the operator is

    (A_k m)_i = f_(i−1) m_(i−1) − (f_i + b_i) m_i + b_(i+1) m_(i+1),

and I − g A_k is an M-matrix whose columns add up to 1 plus what passes the walls. It is factored without pivoting;
only the reciprocal pivots q are kept, since the multipliers are rates times pivots:

    v_i = q_i (r_i + g f_(i−1) v_(i−1)),     x_i = v_i + q_i g b_(i+1) x_(i+1).

On a circle I − g A_k = T + u vᵀ with u = (−M_00, 0, …, M_(n−1,0)), v = (1, 0, …, g f_(n−1)/M_00), T tridiagonal; the
correction c = T⁻¹u/(1 + vᵀT⁻¹u) is kept as well, and x = y − (vᵀy) c (Sherman & Morrison 1950).

A bundle is an array (n, 8): eight lines that lie side by side. Arrays over the cells are stored with rows padded to
whole bundles (``Layout``), padded cells have no rates and no mass, so that no loop has a remainder. The padded rows
have an odd number of bundles: powers of two as strides would crowd all lines of an axis into few places of the
cache.
"""

from typing import NamedTuple

import numpy as np

from ..core.cache import kernel
from .box import Axis
from .lanes import WIDTH, add, div, fma, load, mul, spread, store, sub


class Layout(NamedTuple):
    """How arrays over the cells (n0, n1, n2), n1 = 1 in two dimensions, are stored: ``n_slabs`` slabs of rows.

    In three dimensions a slab is a plane of constant first index, in two it is eight rows.
    """

    n0: int
    n1: int
    n2: int
    chunks: int  # bundles in a row of n2 cells
    row: int  # numbers from one row to the next
    groups: int  # groups of eight rows in a slab
    n_slabs: int
    slab: int  # numbers from one slab to the next
    first: int  # numbers from one cell to the next along the first axis

    @property
    def size(self) -> int:
        return self.n_slabs * self.slab


def layout(shape: tuple[int, ...]) -> Layout:
    n0, n2 = shape[0], shape[-1]
    n1 = shape[1] if len(shape) == 3 else 1
    chunks = _bundles(n2)
    row = WIDTH * (chunks | 1)
    if len(shape) == 2:
        return Layout(n0, 1, n2, chunks, row, 1, _bundles(n0), WIDTH * row, row)
    groups = _bundles(n1)
    slab = WIDTH * (groups * row + 1)
    return Layout(n0, n1, n2, chunks, row, groups, n0, slab, slab)


def stored(array: np.ndarray, at: Layout) -> np.ndarray:
    """An array over the cells in that layout, flat."""
    out = np.zeros(at.size)
    _cells(out, at)[...] = array.reshape(at.n0, at.n1, at.n2)
    return out


def restored(flat: np.ndarray, at: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """The array over the cells that was stored."""
    return np.ascontiguousarray(_cells(flat, at)).reshape(shape)


def _cells(flat: np.ndarray, at: Layout) -> np.ndarray:
    """The cells as a view (n0, n1, n2)."""
    used = at.first // at.row * at.row
    return flat.reshape(-1, at.first)[: at.n0, :used].reshape(at.n0, -1, at.row)[:, : at.n1, : at.n2]


def _bundles(n: int) -> int:
    return -(-n // WIDTH)


class Bundles(NamedTuple):
    """The rates of one axis, (bundles, n, 8), flat.

    Bundles are ordered by rows and chunks for the first axis, by slabs and chunks for the middle one and by slabs and
    groups for the last. An axis without diffusion is not ``present`` and has no rates.
    """

    forward: np.ndarray
    backward: np.ndarray
    n: int
    total: int
    periodic: bool
    present: bool


class Pivots(NamedTuple):
    """Reciprocal pivots of I − g A_k and, on a circle, the corrections; as the rates."""

    q: np.ndarray
    correction: np.ndarray


ABSENT = Bundles(np.zeros(0), np.zeros(0), 0, 0, False, False)
NO_PIVOTS = Pivots(np.zeros(0), np.zeros(0))


def bundles(axis: Axis, k: int, shape: tuple[int, ...], at: Layout) -> Bundles:
    """The rates of axis k, packed."""
    if axis.forward is None or axis.backward is None:
        return ABSENT
    cells = (at.n0, at.n1, at.n2)
    where = k if len(shape) == 3 else 2 * k
    n = cells[where]
    count = (at.n1 * at.chunks, at.n_slabs * at.chunks, at.n_slabs * at.groups)[where]
    packed = []
    for rates in (axis.forward, axis.backward):
        out = np.zeros(count * n * WIDTH)
        given = np.ascontiguousarray(rates)
        if where == 2:
            _pack_rows(given.reshape(at.n0 if len(shape) == 3 else 1, -1, at.n2), at.groups * WIDTH, out)
        else:
            _pack_columns(given.reshape((1, at.n0, at.n1, at.n2) if where == 0 else (at.n0, at.n1, 1, at.n2)), out)
        packed.append(out)
    return Bundles(packed[0], packed[1], n, count, axis.periodic, True)


def pivots(lines: Bundles, g: float) -> Pivots:
    """What solving with I − g A_k takes."""
    if not lines.present:
        return NO_PIVOTS
    q = np.empty(len(lines.forward))
    correction = np.zeros(len(q) if lines.periodic else 0)
    _factor(lines, g, q, correction)
    return Pivots(q, correction)


@kernel
def _pack_columns(given, out):
    """(before, n, middle, cells) to (before, middle, chunks, n, 8)."""
    before, n, middle, cells = given.shape
    chunks = (cells + 7) // 8
    for b in range(before):
        for i in range(n):
            for m in range(middle):
                for c in range(chunks):
                    place = (((b * middle + m) * chunks + c) * n + i) * 8
                    for lane in range(min(8, cells - 8 * c)):
                        out[place + lane] = given[b, i, m, 8 * c + lane]


@kernel
def _pack_rows(given, rows_per_slab, out):
    """(slabs, rows, n) to (groups, n, 8), the rows of a slab in groups of eight; one slab stands for all in 2-D."""
    slabs, rows, n = given.shape
    for s in range(slabs):
        for r in range(rows):
            place = (s * rows_per_slab + r) // 8 * n * 8 + r % 8
            for i in range(n):
                out[place + 8 * i] = given[s, r, i]


@kernel
def _factor(lines, g, q, correction):
    f, b, n = lines.forward, lines.backward, lines.n
    step, one, two = spread(g), spread(1.0), spread(2.0)
    for bundle in range(lines.total):
        p = bundle * n * 8
        end = p + 8 * (n - 1)
        first = fma(step, add(load(f, p), load(b, p)), one)
        inverse = div(one, mul(two, first)) if lines.periodic else div(one, first)
        store(q, p, inverse)
        for i in range(p + 8, end + 8, 8):
            pivot = fma(step, add(load(f, i), load(b, i)), one)
            pivot = sub(pivot, mul(mul(mul(step, load(f, i - 8)), mul(step, load(b, i))), inverse))
            if lines.periodic and i == end:
                pivot = add(pivot, div(mul(mul(step, load(f, end)), mul(step, load(b, p))), first))
            inverse = div(one, pivot)
            store(q, i, inverse)
        if lines.periodic:
            zero = spread(0.0)
            store(correction, p, sub(zero, first))
            store(correction, end, sub(zero, mul(step, load(b, p))))
            sweep(lines, q, p, g, correction, p)
            ratio = div(mul(step, load(f, end)), first)
            total = fma(ratio, load(correction, end), add(one, load(correction, p)))
            for i in range(p, end + 8, 8):
                store(correction, i, div(load(correction, i), total))


@kernel
def sweep(lines, q, p, g, x, at):
    """T x = x for the bundle at p; x is a buffer (n, 8) from ``at``."""
    f, b, n = lines.forward, lines.backward, lines.n
    step = spread(g)
    v = mul(load(q, p), load(x, at))
    store(x, at, v)
    for i in range(8, 8 * n, 8):
        # v = q (x + g f v), with a single operation in the chain of dependences
        inverse = load(q, p + i)
        v = fma(mul(inverse, mul(step, load(f, p + i - 8))), v, mul(inverse, load(x, at + i)))
        store(x, at + i, v)
    for i in range(8 * (n - 2), -8, -8):
        v = fma(mul(load(q, p + i), mul(step, load(b, p + i + 8))), v, load(x, at + i))
        store(x, at + i, v)


@kernel
def solve(lines, pivots, p, g, x, at):
    """(I − g A_k) x = x for the bundle at p."""
    sweep(lines, pivots.q, p, g, x, at)
    if lines.periodic:
        f, b, c, n = lines.forward, lines.backward, pivots.correction, lines.n
        end = 8 * (n - 1)
        first = fma(spread(g), add(load(f, p), load(b, p)), spread(1.0))
        ratio = div(mul(spread(g), load(f, p + end)), first)
        share = fma(ratio, load(x, at + end), load(x, at))
        for i in range(0, 8 * n, 8):
            store(x, at + i, sub(load(x, at + i), mul(share, load(c, p + i))))


@kernel
def jump(lines, p, scale, x, at, stride, out, to):
    """out += scale · A_k x for the bundle at p, as differences of the flow through each face: nothing is lost to
    rounding. x is read from ``at`` in strides, out is a buffer (n, 8)."""
    f, b, n = lines.forward, lines.backward, lines.n
    factor = spread(scale)
    here = load(x, at)
    end = 8 * (n - 1)
    around = mul(load(f, p + end), load(x, at + (n - 1) * stride))  # through the wall: out, or on to the first cell
    back = mul(load(b, p), here)
    flow = sub(around, back) if lines.periodic else sub(spread(0.0), back)
    last = flow if lines.periodic else around
    for i in range(n - 1):
        after = load(x, at + (i + 1) * stride)
        up = sub(mul(load(f, p + 8 * i), here), mul(load(b, p + 8 * i + 8), after))
        store(out, to + 8 * i, fma(factor, sub(flow, up), load(out, to + 8 * i)))
        here, flow = after, up
    store(out, to + end, fma(factor, sub(flow, last), load(out, to + end)))


@kernel
def drain(lines, p, scale, x, at, stride, lost, to):
    """lost += scale · (rate through the low wall · x in the first cell, the same of the high wall), lane by lane."""
    if not lines.periodic:
        n, factor = lines.n, spread(scale)
        low = mul(factor, mul(load(lines.backward, p), load(x, at)))
        high = mul(factor, mul(load(lines.forward, p + 8 * (n - 1)), load(x, at + (n - 1) * stride)))
        store(lost, to, add(load(lost, to), low))
        store(lost, to + 8, add(load(lost, to + 8), high))
