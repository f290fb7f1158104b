"""A box's operator as a sparse matrix: for steady problems, spectra, and to check the solvers that never form it."""

import functools
import math

import numpy as np
from scipy import sparse

from .box import Axis, BoxOperator
from .grid import Grid


def matrix(operator: BoxOperator) -> sparse.csc_matrix:
    """A with dm/dt = A m, cells in C order."""
    shape = operator.grid.shape
    total = sparse.csr_matrix((math.prod(shape),) * 2)
    for k, axis in enumerate(operator.axes):
        total = total + (jumps(axis, shape, k) if axis.velocity is None else upwind(axis, operator.grid, k))
    for (k, j), values in operator.mixed.items():
        total = total + mixed_part(operator, k, j, values)
    return total.tocsc()


def jumps(axis: Axis, shape: tuple[int, ...], k: int) -> sparse.csr_matrix:
    """The part of one axis with diffusion: jumps to both neighbours, and out through the walls."""
    assert axis.forward is not None and axis.backward is not None
    index = np.arange(math.prod(shape)).reshape(shape)
    after, before = np.roll(index, -1, axis=k), np.roll(index, 1, axis=k)
    f, b = axis.forward.copy(), axis.backward.copy()
    loss = -(f + b)
    if not axis.periodic:
        f[(slice(None),) * k + (-1,)] = 0.0
        b[(slice(None),) * k + (0,)] = 0.0
    rows = np.concatenate([index.ravel(), after.ravel(), before.ravel()])
    columns = np.tile(index.ravel(), 3)
    values = np.concatenate([loss.ravel(), f.ravel(), b.ravel()])
    found = sparse.csr_matrix((values, (rows, columns)), shape=(index.size,) * 2)
    found.eliminate_zeros()
    return found


def upwind(axis: Axis, grid: Grid, k: int) -> sparse.csr_matrix:
    """The part of a degenerate axis: fluxes v p with p at the faces by the third-order upwind-biased formula.

    p at a face is (−p_up2 + 5 p_up + 2 p_down)/6 with p_up on the side that the flow comes from; next to walls,
    where a neighbour is missing, p_up. Nothing enters through a wall that is not periodic.
    """
    assert axis.velocity is not None
    shape, n = grid.shape, grid.shape[k]
    index = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), k, 0)
    velocity, h = np.moveaxis(axis.velocity, k, 0), grid.widths[k]
    rows, columns, values = [], [], []

    def flux(face: int, up: int, weights: list[tuple[int, float]], speed: np.ndarray, down: int | None) -> None:
        for cell, weight in weights:
            share = speed * weight / h[cell]
            rows.append(index[up])
            columns.append(index[cell])
            values.append(-share)
            if down is not None:
                rows.append(index[down])
                columns.append(index[cell])
                values.append(share)

    exits = [not axis.periodic and _leaves(wall) for wall in axis.sides]
    for face in range(n if axis.periodic else n + 1):
        for sign in (1, -1):
            up, down = (face - 1, face) if sign > 0 else (face, face - 1)
            further = up - sign
            speed = np.maximum(sign * velocity[face], 0.0)
            if axis.periodic:
                up, down, further = up % n, down % n, further % n
            elif not 0 <= up < n:
                continue  # nothing comes from beyond a wall
            elif not 0 <= down < n:
                if exits[0 if down < 0 else 1]:
                    flux(face, up, [(up, 1.0)], speed, None)
                continue
            if 0 <= further < n:
                flux(face, up, [(further, -1 / 6), (up, 5 / 6), (down, 2 / 6)], speed, down)
            else:
                flux(face, up, [(up, 0.5), (down, 0.5)], speed, down)
    size = math.prod(shape)
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (values, rows, columns)]
    return sparse.csr_matrix((flat[0], (flat[1], flat[2])), shape=(size, size))


def mixed_part(operator: BoxOperator, k: int, j: int, values: np.ndarray) -> sparse.csr_matrix:
    """∂_k ∂_j(D p) and its mirror image: divergences of the fluxes −∂_j(D p) along k and −∂_k(D p) along j."""
    grid = operator.grid
    q = sparse.diags((values / grid.cell_volume).ravel())  # D p at the centres
    total = None
    for along, across in ((k, j), (j, k)):
        factors: list[sparse.spmatrix] = [sparse.diags(h) for h in grid.widths]
        factors[along] = face_average_divergence(grid.shape[along], operator.axes[along].periodic)
        h = sparse.diags(grid.widths[across])
        factors[across] = h @ central_difference(grid.axes[across], operator.axes[across].periodic)
        part = functools.reduce(sparse.kron, factors) @ q
        total = part if total is None else total + part
    assert total is not None
    return total.tocsr()


def face_average_divergence(n: int, periodic: bool) -> sparse.csr_matrix:
    """Differences over a cell of the averages at its faces; the average at a wall is 0 (no current through it)."""
    if periodic:
        up = sparse.csr_matrix((np.full(n, 0.5), (np.arange(n), (np.arange(n) + 1) % n)), shape=(n, n))
        return (up - up.T).tocsr()
    faces = sparse.diags([0.5, 0.5], [0, -1], shape=(n + 1, n)).tolil()
    faces[0, :] = 0.0
    faces[n, :] = 0.0
    return (sparse.diags([-1.0, 1.0], [0, 1], shape=(n, n + 1)) @ faces).tocsr()


def central_difference(axis: Grid, periodic: bool) -> sparse.csr_matrix:
    """∂/∂x at the centres by the parabola through three of them; one-sided in the cells next to a wall."""
    n, x = axis.n_cells, axis.centers
    rows, columns, values = [], [], []
    for i in range(n):
        if periodic:
            below, above = (i - 1) % n, (i + 1) % n
            length = axis.upper - axis.lower
            left, right = (x[i] - x[below]) % length, (x[above] - x[i]) % length
        elif i in (0, n - 1):
            pair = (0, 1) if i == 0 else (n - 2, n - 1)
            gap = x[pair[1]] - x[pair[0]]
            rows += [i, i]
            columns += list(pair)
            values += [-1 / gap, 1 / gap]
            continue
        else:
            below, above, left, right = i - 1, i + 1, x[i] - x[i - 1], x[i + 1] - x[i]
        rows += [i, i, i]
        columns += [below, i, above]
        total = left + right
        values += [-right / (left * total), (right - left) / (left * right), left / (right * total)]
    return sparse.csr_matrix((values, (rows, columns)), shape=(n, n))


def _leaves(wall: object) -> bool:
    from .boundary import Robin

    return wall == "absorbing" or isinstance(wall, Robin)
