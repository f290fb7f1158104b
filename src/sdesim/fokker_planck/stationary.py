"""Stationary densities in one dimension: A p = 0.

Without a current, u = D p obeys u_(i+1)/u_i = e^w from cell to cell, so log p is a running sum of the
exponents of the operator: no solve, no overflow, detailed balance at the nodes to rounding however deep the
wells. On a circle with ∮ μ/D ≠ 0 a constant current runs and p is the null vector of a cyclic matrix: one
cell is set to 1 and the others are solved for, which is a positive (M-matrix) tridiagonal system.
"""

import math
import warnings

import numpy as np

from .operator import Operator


def stationary(operator: Operator) -> np.ndarray:
    """The stationary probabilities of the cells, of an operator without walls that let mass pass.

    Raises ValueError where a wall absorbs: all mass is lost in the end.
    """
    if operator.absorbs:
        raise ValueError("an absorbing wall leaves no stationary density; use 'reflecting' or 'periodic'")
    if operator.inflow.any():
        raise ValueError("an inflow without an exit leaves no stationary density; use 'reflecting' or 'periodic'")
    n = len(operator.diffusivity)
    log_p = -np.log(operator.diffusivity)
    # on a circle without current the last exponent closes the ring and adds nothing
    log_p[1:] += operator.exponent[: n - 1].cumsum()
    if operator.circulates:
        m = _null_vector(operator.bands, int(np.argmax(log_p - np.linspace(0.0, operator.exponent.sum(), n))))
    else:
        _check_walls(operator, log_p)
        m = np.exp(log_p - log_p.max()) * operator.widths
    return np.asarray(m / m.sum())


def _check_walls(operator: Operator, log_p: np.ndarray) -> None:
    """Where D vanishes towards a wall, p may grow like a power r^k of the distance: k > −1, or it has no mass.

    With D ~ r² the cells at r = h/2, 3h/2, 5h/2 show k; a wall where D stays is of no concern.
    """
    d = operator.diffusivity
    if not (d[0] < 0.5 * d[1] or d[-1] < 0.5 * d[-2]):
        return
    for side, order in (("low", slice(None)), ("high", slice(None, None, -1))):
        near, log_near = d[order][:3], log_p[order][:3]
        if not near[0] < 0.5 * near[1] or not log_near[0] > log_near[1] > log_near[2]:
            continue
        power = float((log_near[0] - log_near[1]) / math.log(0.5 / 1.5))
        further = float((log_near[1] - log_near[2]) / math.log(1.5 / 2.5))
        if power <= -1.0 and further <= -0.9:
            raise ValueError(
                f"there is no stationary density: it would grow like r^{power:.3g} towards the {side} wall, where the "
                "diffusion vanishes, and gather all mass there"
            )
        if power < -0.05:
            warnings.warn(
                f"the stationary density grows like r^{power:.2g} towards the {side} wall, where the diffusion "
                f"vanishes; cells resolve that only to the order h^{1 + power:.2g}",
                UserWarning,
                stacklevel=4,
            )


def _null_vector(bands: np.ndarray, reference: int) -> np.ndarray:
    from scipy.linalg import solve_banded

    # Rotate the ring so that the reference cell, where p is large, is the last one, and move it to the right
    # side.
    lower, diagonal, upper = np.roll(bands, -reference - 1, axis=1)
    n = len(diagonal)
    band = np.zeros((3, n - 1))
    band[0, 1:], band[1], band[2, :-1] = -upper[: n - 2], -diagonal[: n - 1], -lower[1 : n - 1]
    right = np.zeros(n - 1)
    right[0], right[-1] = lower[0], upper[n - 2]
    p = np.append(solve_banded((1, 1), band, right), 1.0)
    return np.roll(p, reference + 1)
