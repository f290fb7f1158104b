"""Flow along an axis without diffusion as a linear map: third-order upwind-biased fluxes.

For steady problems, spectra and currents, where ``transport`` with its feet does not serve. The flux through a face is
v p times the face's area, p at the face from the cell averages p_up, p_up2, … on the side that the flow comes from and
p_down on the other (equal cells; Leonard 1979; van Leer's κ = 1/3):

    inside                                    (−p_up2 + 5 p_up + 2 p_down)/6
    at an open wall that the flow leaves by   (11 p_up − 7 p_up2 + 2 p_up3)/6
    one cell behind an open wall it comes from  (5 p_up + p_down)/4, the parabola that is 0 on the wall
    one cell behind a closed wall             (p_up + p_down)/2

Nothing enters through walls, and nothing passes closed ones. Third order in equal cells, second in graded ones and
beside closed walls. The rates of the map are not all >= 0: positivity is not certain, and with it go the theorems
about Markov chains; the error shows as small negative values where cells do not resolve.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from .boundary import Robin
from .box import Axis
from .grid import Grid


def flows(axis: Axis, grid: Grid, k: int, ended: np.ndarray | None = None) -> sparse.csr_matrix:
    """Mass that passes each face across axis k per unit time, upwards, from the masses of the cells.

    Rows are the faces in C order, n_k + 1 of them along k, columns the cells. On a circle the first and the last face
    are one. Cells that are ``ended`` (bool, shape of the grid) take mass as beyond an open wall, and give none.
    """
    assert axis.velocity is not None
    n, size = grid.shape[k], math.prod(grid.shape)
    cells = np.moveaxis(np.arange(size).reshape(grid.shape), k, 0)
    faces = np.moveaxis(np.arange(axis.velocity.size).reshape(axis.velocity.shape), k, 0)
    velocity, h = np.moveaxis(axis.velocity, k, 0), grid.widths[k]
    closed = None if ended is None else np.moveaxis(ended, k, 0)
    rows, columns, values = [], [], []
    for face in range(n + 1):
        for sign in (1, -1):
            speed = sign * np.maximum(sign * velocity[face], 0.0)
            if not speed.any():
                continue
            for lines, stencil in _stencils(face, sign, n, axis, closed):
                for cell, weight in stencil:
                    rows.append(faces[face][lines])
                    columns.append(cells[cell][lines])
                    values.append(speed[lines] * (weight / h[cell]))
    flat = [np.concatenate([np.empty(0), *(a.ravel() for a in arrays)]) for arrays in (values, rows, columns)]
    return sparse.csr_matrix((flat[0], (flat[1].astype(int), flat[2].astype(int))), shape=(velocity.size, size))


def upwind(axis: Axis, grid: Grid, k: int, ended: np.ndarray | None = None) -> sparse.csr_matrix:
    """The part of A that belongs to a degenerate axis: what flows in through the lower face less what flows out."""
    n = grid.shape[k]
    factors: list[Any] = [sparse.identity(m) for m in grid.shape]
    factors[k] = sparse.diags([1.0, -1.0], [0, 1], shape=(n, n + 1))
    return (functools.reduce(sparse.kron, factors) @ flows(axis, grid, k, ended)).tocsr()


def _stencils(
    face: int, sign: int, n: int, axis: Axis, ended: np.ndarray | None
) -> Iterator[tuple[Any, list[tuple[int, float]]]]:
    """The lines (an index) and the stencil that they have at a face."""
    plain = _stencil(face, sign, n, axis)
    if ended is None:
        yield ..., plain
        return
    up, down = (face - 1, face) if sign > 0 else (face, face - 1)

    def seen(cell: int) -> np.ndarray:
        """Where there is a cell that has not ended."""
        if axis.periodic:
            return ~ended[cell % n]
        return ~ended[cell] if 0 <= cell < n else np.zeros(ended.shape[1:], bool)

    further, starts = up - sign, seen(up)
    inner = axis.periodic or 0 <= down < n
    into = starts & ~seen(down) if inner else np.zeros(ended.shape[1:], bool)
    deep = seen(further) & seen(further - sign)
    behind = starts & ~into & ~seen(further) if axis.periodic or 0 <= further < n else np.zeros_like(into)
    cases = (
        (into & deep, [(up, 11 / 6), (further, -7 / 6), (further - sign, 2 / 6)]),
        (into & ~deep, [(up, 1.0)]),
        (behind, [(up, 1.25), (down, 0.25)] if inner else [(up, 1.0)] * bool(plain)),
        (starts & ~into & ~behind, plain),
    )
    for lines, stencil in cases:
        if lines.any():
            yield lines, [(cell % n if axis.periodic else cell, weight) for cell, weight in stencil]


def _stencil(face: int, sign: int, n: int, axis: Axis) -> list[tuple[int, float]]:
    """The cells and weights that make p at a face where the flow has this sign."""
    up, down = (face - 1, face) if sign > 0 else (face, face - 1)
    further = up - sign
    inside = [(further, -1 / 6), (up, 5 / 6), (down, 2 / 6)]
    if axis.periodic:
        return [(cell % n, weight) for cell, weight in inside]
    if not 0 <= up < n:
        return []
    if not 0 <= down < n:
        return [(up, 11 / 6), (further, -7 / 6), (further - sign, 2 / 6)] if _open(axis, down) else []
    if 0 <= further < n:
        return inside
    return [(up, 1.25), (down, 0.25)] if _open(axis, further) else [(up, 0.5), (down, 0.5)]


def _open(axis: Axis, beyond: int) -> bool:
    """Whether mass may leave through the wall on that side."""
    wall = axis.sides[0 if beyond < 0 else 1]
    return wall == "absorbing" or isinstance(wall, Robin)
