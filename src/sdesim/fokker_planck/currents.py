"""Probability currents in a box: what flows through the faces of its cells."""

import functools

import numpy as np

from .box import BoxOperator
from .sparse import central_difference
from .upwind import flows


def box_current(operator: BoxOperator, m: np.ndarray) -> tuple[np.ndarray, ...]:
    """J_k at the faces across each axis k, per unit area: shape of the grid with n_k + 1 along k."""
    grid, found = operator.grid, []
    for k, axis in enumerate(operator.axes):
        if axis.velocity is None:
            flow = _jumps(axis.forward, axis.backward, m, k, axis.periodic)
        else:
            flow = (flows(axis, grid, k) @ m.ravel()).reshape(axis.velocity.shape)
        for (a, b), values in operator.mixed.items():
            if k in (a, b):
                flow = flow + _mixed(operator, k, b if k == a else a, values * m)
        area = functools.reduce(np.multiply.outer, [np.ones(1) if j == k else h for j, h in enumerate(grid.widths)])
        flow = flow / area
        for side, flux in zip((0, -1), axis.inflow, strict=True):
            flow[(slice(None),) * k + (side,)] += flux if side == 0 else -flux
        found.append(flow)
    return tuple(found)


def _jumps(
    forward: np.ndarray | None, backward: np.ndarray | None, m: np.ndarray, k: int, periodic: bool
) -> np.ndarray:
    """Net mass per unit time that jumps up through each face."""
    assert forward is not None
    assert backward is not None
    up, down = np.moveaxis(forward * m, k, 0), np.moveaxis(backward * m, k, 0)
    out = np.empty((len(up) + 1, *up.shape[1:]))
    out[1:-1] = up[:-1] - down[1:]
    if periodic:
        out[0] = out[-1] = up[-1] - down[0]
    else:
        out[0], out[-1] = -down[0], up[-1]
    return np.moveaxis(out, 0, k)


def _mixed(operator: BoxOperator, k: int, across: int, q: np.ndarray) -> np.ndarray:
    """−∂_across(D p) at the faces of axis k, times their area."""
    grid, axes = operator.grid, operator.axes
    gradient = central_difference(grid.axes[across], axes[across].periodic)
    slope = np.tensordot(gradient.toarray(), q / _along(grid.widths[across], across, grid.dim), axes=(1, across))
    slope = np.moveaxis(slope, 0, across) * _along(grid.widths[across], across, grid.dim)
    slope = np.moveaxis(slope / _along(grid.widths[k], k, grid.dim), k, 0)
    out = np.zeros((len(slope) + 1, *slope.shape[1:]))
    out[1:-1] = -0.5 * (slope[1:] + slope[:-1])
    if axes[k].periodic:
        out[0] = out[-1] = -0.5 * (slope[0] + slope[-1])
    return np.moveaxis(out, 0, k)


def _along(values: np.ndarray, k: int, dim: int) -> np.ndarray:
    return values.reshape([-1 if j == k else 1 for j in range(dim)])
