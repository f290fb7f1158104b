"""A box's operator as a sparse matrix: for steady problems, spectra, and to check the solvers that never form it."""

import functools
import math
from typing import Any

import numpy as np
from scipy import sparse

from .box import Axis, BoxOperator
from .grid import Grid
from .upwind import upwind


def matrix(operator: BoxOperator, lines: list[sparse.csr_matrix] | None = None) -> sparse.csc_matrix:
    """A with dm/dt = A m, cells in C order; ``lines``: the parts of the axes, where they are known."""
    total = sparse.csr_matrix((math.prod(operator.grid.shape),) * 2)
    for part in lines if lines is not None else line_matrices(operator):
        total = total + part
    for (k, j), values in operator.mixed.items():
        total = total + mixed_part(operator, k, j, values)
    return total.tocsc()


def line_matrices(operator: BoxOperator) -> list[sparse.csr_matrix]:
    """The part of each axis: jumps, or upwind differences where it has no diffusion."""
    shape, grid = operator.grid.shape, operator.grid
    return [
        jumps(axis, shape, k) if axis.velocity is None else upwind(axis, grid, k)
        for k, axis in enumerate(operator.axes)
    ]


def jumps(axis: Axis, shape: tuple[int, ...], k: int) -> sparse.csr_matrix:
    """The part of one axis with diffusion: jumps to both neighbours, and out through the walls."""
    assert axis.forward is not None
    assert axis.backward is not None
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


def mixed_part(operator: BoxOperator, k: int, j: int, values: np.ndarray) -> sparse.csr_matrix:
    """∂_k ∂_j(D p) and its mirror image: divergences of the fluxes −∂_j(D p) along k and −∂_k(D p) along j."""
    grid = operator.grid
    q = sparse.diags((values / grid.cell_volume).ravel())  # D p at the centres
    total: Any = None
    for along, across in ((k, j), (j, k)):
        factors: list[Any] = [sparse.diags(h) for h in grid.widths]
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
