"""Steps of the splitting with one operator: the loops over bundles and slabs, and over time.

Each step has two phases. In the first, bundles of lines along the first axis: the jumps along it are added to what the
other axes left, and I − g A_0 is solved. In the second, slabs: the other axes are solved, the masses moved on, and the
jumps along these axes of the new masses made ready for the next step, while the slab is in the cache. That is about 100
bytes a cell and step in two dimensions, 130 in three. The threads of a team share bundles and slabs among them, and
meet between phases; each bundle's result and each sum is made by one thread in one order, so that nothing depends on
their number.
"""

import math
from typing import Any

import numpy as np

from ..core.cache import kernel
from .box import BoxOperator
from .bundles import ABSENT, Pivots, bundles, drain, jump, layout, pivots, restored, solve, stored
from .lanes import add, fma, lanes_to_rows, load, rows_to_lanes, spread, store, sub
from .mixed import add_mixed, mixed_parts
from .team import Team, meet, stopped

# Numbers of cells times steps between looks at the clock and the keyboard: about a tenth of a second.
BETWEEN_REPORTS = 2e7
KEPT = 4
THETA_MIXED = 0.5 + math.sqrt(3.0) / 6.0


class Sweeps:
    """One operator made ready for steps: its rates packed, its factors kept for the last few step sizes."""

    def __init__(self, operator: BoxOperator, team: Team, before: "Sweeps | None" = None) -> None:
        self.operator, self.team = operator, team
        self.shape = operator.grid.shape
        self.at = layout(self.shape)
        found = [bundles(axis, k, self.shape, self.at) for k, axis in enumerate(operator.axes)]
        self.lines = found if len(found) == 3 else [found[0], ABSENT, found[1]]
        self.mixed = mixed_parts(operator, self.at)
        source = operator.source
        self.source = np.zeros(0) if source is None else stored(source, self.at)
        self.theta = THETA_MIXED if operator.mixed else 0.5
        self.implicit = any(lines.present for lines in self.lines)
        self._kept: dict[float, tuple[Pivots, ...]] = {}
        # the working memory of the operator before serves again
        self._work: list[np.ndarray] = before._work if before is not None else []
        while len(self._work) < (3 if operator.mixed else 1):
            self._work.append(np.zeros(self.at.size))

    def apply(self, m: np.ndarray) -> np.ndarray:
        """A m + s of the axes with diffusion and their mixed parts."""
        out = np.zeros(self.at.size)
        self.team.run(_apply, self.at, *self.lines, *self.mixed, self.source, stored(m, self.at), out)
        return restored(out, self.at, self.shape)

    def steps(self, m: np.ndarray, dt: float, count: int, lost: np.ndarray, done: Any = None) -> np.ndarray:
        """m after ``count`` steps; what left through the walls is added to ``lost``; done(k) after some k steps."""
        flat, g = stored(m, self.at), self.theta * dt
        drains, factors = self._drains(), self._pivots(g)
        each = max(1, int(BETWEEN_REPORTS / flat.size))
        for start in range(0, count, each):
            n = min(each, count - start)
            if self.operator.mixed:
                self.team.run(
                    _hundsdorfer_verwer, n, self.at, *self.lines, *factors, *self.mixed, dt, g, self.source, flat,
                    *self._work[:3], *drains,
                )  # fmt: skip
            else:
                self.team.run(
                    _douglas, n, self.at, *self.lines, *factors, dt, g, self.source, flat, self._work[0], *drains
                )
            if done is not None:
                done(start + n)
        self._add(drains, lost)
        return restored(flat, self.at, self.shape)

    def damped(self, m: np.ndarray, dt: float, lost: np.ndarray) -> np.ndarray:
        """m after one damped step: two of m = Π (I − g A_k)⁻¹ (m + g (mixed part of A) m + g s), g = dt/2."""
        flat, drains, g = stored(m, self.at), self._drains(), 0.5 * dt
        factors = self._pivots(g)
        for forwards in (True, False):
            if self.operator.mixed:
                before = flat.copy()
                self.team.run(_mix, self.at, *self.mixed, g, before, flat)
            if len(self.source):
                flat += g * self.source
            self.team.run(_damped, forwards, self.at, *self.lines, *factors, g, flat, *drains)
        self._add(drains, lost)
        return restored(flat, self.at, self.shape)

    def _pivots(self, g: float) -> tuple[Pivots, ...]:
        found = self._kept.get(g)
        if found is None:
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            found = self._kept[g] = tuple(pivots(lines, g) for lines in self.lines)
        return found

    def _drains(self) -> list[np.ndarray]:
        return [np.zeros(16 * lines.total) for lines in self.lines]

    def _add(self, drains: list[np.ndarray], lost: np.ndarray) -> None:
        for k, found in enumerate(drains if len(lost) == 3 else drains[::2]):
            lost[k] += found.reshape(-1, 2, 8).sum(axis=(0, 2))


def apply(operator: BoxOperator, m: np.ndarray) -> np.ndarray:
    """A m + s without the matrix: as ``sparse.matrix(operator) @ m``, for one product or few."""
    with Team(1, m.size) as team:
        out = Sweeps(operator, team).apply(m)
    for k in operator.degenerate:
        from .upwind import upwind

        out += (upwind(operator.axes[k], operator.grid, k) @ m.ravel()).reshape(m.shape)
    return out


@kernel
def _share(member, members, count):
    return member * count // members, (member + 1) * count // members


@kernel
def _group(group, at):
    """Where a group of eight rows is stored."""
    return group // at.groups * at.slab + group % at.groups * 8 * at.row


@kernel
def _take(x, at, stride, n, buffer):
    for i in range(n):
        store(buffer, 8 * i, load(x, at + i * stride))


@kernel
def _put(buffer, x, at, stride, n):
    for i in range(n):
        store(x, at + i * stride, load(buffer, 8 * i))


@kernel
def _rows_in(x, at, layout, buffer):
    for c in range(layout.chunks):
        rows_to_lanes(x, at + 8 * c, layout.row, buffer, 64 * c)


@kernel
def _rows_out(buffer, x, at, layout):
    for c in range(layout.chunks):
        lanes_to_rows(buffer, 64 * c, x, at + 8 * c, layout.row)


@kernel
def _solve_first(bundle, at, a0, q0, jumps, m, drained, leaving, g, w, kept, keep, l0, y):
    """w = (I − g A_0)⁻¹ (w + jumps · A_0 m) on one bundle of lines along the first axis; what the bracket is goes to
    ``kept``. The walls take drained · rate · m + leaving · rate · w."""
    place = bundle // at.chunks * at.row + bundle % at.chunks * 8
    p = bundle * a0.n * 8
    _take(w, place, at.first, a0.n, y)
    if jumps != 0.0:
        jump(a0, p, jumps, m, place, at.first, y, 0)
    if drained != 0.0:
        drain(a0, p, drained, m, place, at.first, l0, 16 * bundle)
    if keep:
        _put(y, kept, place, at.first, a0.n)
    solve(a0, q0, p, g, y, 0)
    drain(a0, p, leaving, y, 0, 8, l0, 16 * bundle)
    _put(y, w, place, at.first, a0.n)


@kernel
def _solve_middle(slab, at, a1, q1, m, drained, leaving, g, w, l1, y):
    """w = (I − g A_1)⁻¹ w on a slab."""
    for c in range(at.chunks):
        place, bundle = slab * at.slab + 8 * c, slab * at.chunks + c
        p = bundle * a1.n * 8
        _take(w, place, at.row, a1.n, y)
        if drained != 0.0:
            drain(a1, p, drained, m, place, at.row, l1, 16 * bundle)
        solve(a1, q1, p, g, y, 0)
        drain(a1, p, leaving, y, 0, 8, l1, 16 * bundle)
        _put(y, w, place, at.row, a1.n)


@kernel
def _solve_last(slab, at, a2, q2, m, drained, leaving, g, w, l2, y, z):
    """w = (I − g A_2)⁻¹ w on a slab."""
    for group in range(slab * at.groups, (slab + 1) * at.groups):
        place, p = _group(group, at), group * a2.n * 8
        _rows_in(w, place, at, y)
        if drained != 0.0:
            _rows_in(m, place, at, z)
            drain(a2, p, drained, z, 0, 8, l2, 16 * group)
        solve(a2, q2, p, g, y, 0)
        drain(a2, p, leaving, y, 0, 8, l2, 16 * group)
        _rows_out(y, w, place, at)


@kernel
def _jump_slab(slab, at, a1, a2, scale, x, out, y, z):
    """out += scale (A_1 + A_2) x on a slab."""
    if a2.present:
        for group in range(slab * at.groups, (slab + 1) * at.groups):
            place = _group(group, at)
            _rows_in(x, place, at, y)
            _rows_in(out, place, at, z)
            jump(a2, group * a2.n * 8, scale, y, 0, 8, z, 0)
            _rows_out(z, out, place, at)
    if a1.present:
        for c in range(at.chunks):
            place = slab * at.slab + 8 * c
            _take(out, place, at.row, a1.n, z)
            jump(a1, (slab * at.chunks + c) * a1.n * 8, scale, x, place, at.row, z, 0)
            _put(z, out, place, at.row, a1.n)


@kernel
def _fill(slab, at, scale, source, out):
    """out = scale · s on a slab, 0 where nothing enters."""
    size = at.slab
    for i in range(slab * size, (slab + 1) * size):
        out[i] = scale * source[i] if len(source) else 0.0


@kernel
def _move_slab(slab, at, a1, a2, q2, dt, g, source, m, w, l2, y, z):
    """w = (I − g A_2)⁻¹ w, m += w, and then w = dt (A_1 + A_2) m + dt s, on a slab."""
    size = at.slab
    zero = spread(0.0)
    for group in range(slab * at.groups, (slab + 1) * at.groups):
        place, p = _group(group, at), group * a2.n * 8
        _rows_in(w, place, at, y)
        _rows_in(m, place, at, z)
        if a2.present:
            drain(a2, p, dt, z, 0, 8, l2, 16 * group)
            solve(a2, q2, p, g, y, 0)
            drain(a2, p, g, y, 0, 8, l2, 16 * group)
        for i in range(0, 64 * at.chunks, 8):
            store(z, i, add(load(z, i), load(y, i)))
            store(y, i, zero)
        if a2.present:
            jump(a2, p, dt, z, 0, 8, y, 0)
        _rows_out(z, m, place, at)
        _rows_out(y, w, place, at)
    if a1.present:
        for c in range(at.chunks):
            place = slab * at.slab + 8 * c
            _take(w, place, at.row, a1.n, z)
            jump(a1, (slab * at.chunks + c) * a1.n * 8, dt, m, place, at.row, z, 0)
            _put(z, w, place, at.row, a1.n)
    if len(source):
        factor = spread(dt)
        for i in range(slab * size, (slab + 1) * size, 8):
            store(w, i, fma(factor, load(source, i), load(w, i)))


@kernel
def _buffer(at):
    # zeros: lanes that only fill up a vector are multiplied with 0, which does not help against nan
    return np.zeros(8 * max(at.n0, at.n1, 8 * at.chunks) + 16)


@kernel
def _apply(member, members, shared, at, a0, a1, a2, p01, p02, p12, source, m, out):
    """out = A m + s."""
    y, z = _buffer(at), _buffer(at)
    first, last = _share(member, members, at.n_slabs)
    for slab in range(first, last):
        _fill(slab, at, 1.0, source, out)
        _jump_slab(slab, at, a1, a2, 1.0, m, out, y, z)
        add_mixed(slab, at, p01, p02, p12, 1.0, m, out, y, z)
    meet(members, shared)
    first, last = _share(member, members, a0.total)
    for bundle in range(first, last):
        place = bundle // at.chunks * at.row + bundle % at.chunks * 8
        _take(out, place, at.first, a0.n, y)
        jump(a0, bundle * a0.n * 8, 1.0, m, place, at.first, y, 0)
        _put(y, out, place, at.first, a0.n)


@kernel
def _douglas(member, members, shared, n, at, a0, a1, a2, q0, q1, q2, dt, g, source, m, w, l0, l1, l2):
    """n steps m += Π (I − g A_k)⁻¹ dt (A m + s)."""
    y, z = _buffer(at), _buffer(at)
    first_bundle, last_bundle = _share(member, members, a0.total)
    first_slab, last_slab = _share(member, members, at.n_slabs)
    for slab in range(first_slab, last_slab):
        _fill(slab, at, dt, source, w)
        _jump_slab(slab, at, a1, a2, dt, m, w, y, z)
    meet(members, shared)
    for _ in range(n):
        for bundle in range(first_bundle, last_bundle):
            if stopped(shared):
                return
            _solve_first(bundle, at, a0, q0, dt, m, dt, g, g, w, w, False, l0, y)
        meet(members, shared)
        for slab in range(first_slab, last_slab):
            if stopped(shared):
                return
            if a1.present:
                _solve_middle(slab, at, a1, q1, m, dt, g, g, w, l1, y)
            _move_slab(slab, at, a1, a2, q2, dt, g, source, m, w, l2, y, z)
        meet(members, shared)


@kernel
def _hundsdorfer_verwer(
    member, members, shared, n, at, a0, a1, a2, q0, q1, q2, p01, p02, p12, dt, g, source, m, w, r, d, l0, l1, l2
):
    """n steps δ = Π (I − g A_k)⁻¹ r, r = dt (A m + s); m += δ + Π (I − g A_k)⁻¹ (r − δ + ½ dt A δ)."""
    y, z = _buffer(at), _buffer(at)
    first_bundle, last_bundle = _share(member, members, a0.total)
    first_slab, last_slab = _share(member, members, at.n_slabs)
    size = at.slab
    half = 0.5 * dt
    for _ in range(n):
        for slab in range(first_slab, last_slab):
            if stopped(shared):
                return
            _fill(slab, at, dt, source, w)
            _jump_slab(slab, at, a1, a2, dt, m, w, y, z)
            add_mixed(slab, at, p01, p02, p12, dt, m, w, y, z)
            if not a0.present:
                r[slab * size : (slab + 1) * size] = w[slab * size : (slab + 1) * size]
        meet(members, shared)
        for bundle in range(first_bundle, last_bundle):
            if stopped(shared):
                return
            _solve_first(bundle, at, a0, q0, dt, m, dt, 0.0, g, w, r, True, l0, y)
        meet(members, shared)
        for slab in range(first_slab, last_slab):
            if stopped(shared):
                return
            if a1.present:
                _solve_middle(slab, at, a1, q1, m, dt, 0.0, g, w, l1, y)
            if a2.present:
                _solve_last(slab, at, a2, q2, m, dt, 0.0, g, w, l2, y, z)
            d[slab * size : (slab + 1) * size] = w[slab * size : (slab + 1) * size]
        meet(members, shared)
        for slab in range(first_slab, last_slab):
            if stopped(shared):
                return
            for i in range(slab * size, (slab + 1) * size, 8):
                store(w, i, sub(load(r, i), load(d, i)))
            _jump_slab(slab, at, a1, a2, half, d, w, y, z)
            add_mixed(slab, at, p01, p02, p12, half, d, w, y, z)
        meet(members, shared)
        for bundle in range(first_bundle, last_bundle):
            if stopped(shared):
                return
            _solve_first(bundle, at, a0, q0, half, d, half, g, g, w, w, False, l0, y)
        meet(members, shared)
        for slab in range(first_slab, last_slab):
            if stopped(shared):
                return
            if a1.present:
                _solve_middle(slab, at, a1, q1, d, half, g, g, w, l1, y)
            if a2.present:
                _solve_last(slab, at, a2, q2, d, half, g, g, w, l2, y, z)
            for i in range(slab * size, (slab + 1) * size, 8):
                store(m, i, add(load(m, i), add(load(d, i), load(w, i))))
        meet(members, shared)


@kernel
def _mix(member, members, shared, at, p01, p02, p12, scale, m, w):
    """w += scale · (mixed part of A) m."""
    y, z = _buffer(at), _buffer(at)
    first, last = _share(member, members, at.n_slabs)
    for slab in range(first, last):
        if stopped(shared):
            return
        add_mixed(slab, at, p01, p02, p12, scale, m, w, y, z)


@kernel
def _damped(member, members, shared, forwards, at, a0, a1, a2, q0, q1, q2, g, w, l0, l1, l2):
    """w = Π (I − g A_k)⁻¹ w, the axes in one order or the other."""
    y, z = _buffer(at), _buffer(at)
    first_bundle, last_bundle = _share(member, members, a0.total)
    first_slab, last_slab = _share(member, members, at.n_slabs)
    for part in range(2):
        if (part == 0) == forwards:
            for bundle in range(first_bundle, last_bundle):
                if stopped(shared):
                    return
                _solve_first(bundle, at, a0, q0, 0.0, w, 0.0, g, g, w, w, False, l0, y)
        else:
            for slab in range(first_slab, last_slab):
                if stopped(shared):
                    return
                if a1.present and forwards:
                    _solve_middle(slab, at, a1, q1, w, 0.0, g, g, w, l1, y)
                if a2.present:
                    _solve_last(slab, at, a2, q2, w, 0.0, g, g, w, l2, y, z)
                if a1.present and not forwards:
                    _solve_middle(slab, at, a1, q1, w, 0.0, g, g, w, l1, y)
        meet(members, shared)
