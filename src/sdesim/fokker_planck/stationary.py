"""Stationary densities: A p = 0.

Without a current, u = D p obeys u_(i+1)/u_i = e^w from cell to cell, so log p is a running sum of the
exponents of the operator: no solve, no overflow, detailed balance at the nodes to rounding however deep the
wells. On a circle with ∮ μ/D ≠ 0 a constant current runs and p is the null vector of a cyclic matrix: one
cell is set to 1 and the others are solved for, which is a positive (M-matrix) tridiagonal system.
"""

import numpy as np

from .operator import Operator


def stationary(operator: Operator) -> np.ndarray:
    """The stationary density of an operator without absorbing walls, cell averages that integrate to 1.

    Raises ValueError where a wall absorbs: all mass is lost in the end.
    """
    if operator.absorbs:
        raise ValueError("an absorbing wall leaves no stationary density; use 'reflecting' or 'periodic'")
    n = len(operator.diffusivity)
    # on a circle without current the last exponent closes the ring and adds nothing
    log_u = np.concatenate([[0.0], np.cumsum(operator.exponent[: n - 1])])
    log_p = log_u - np.log(operator.diffusivity)
    if operator.circulates:
        p = _null_vector(operator.bands, int(np.argmax(log_p - np.linspace(0.0, operator.exponent.sum(), n))))
    else:
        p = np.exp(log_p - log_p.max())
    return np.asarray(p / (p.sum() * operator.spacing))


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
