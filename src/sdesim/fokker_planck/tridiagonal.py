"""Tridiagonal matrices as three bands, indices cyclic: products, and solves by elimination without pivoting.

The matrices are those of Markov generators and I − a dt A, M-matrices: all pivots are positive and nothing grows. On a
circle the two corners are a rank-one term (Sherman & Morrison 1950).
"""

import numpy as np

from ..core.cache import kernel


@kernel
def apply(bands, p, inflow):
    """A p + s, indices cyclic (the corner entries are zero off the circle)."""
    n = len(p)
    out = np.empty(n)
    out[0] = bands[0, 0] * p[n - 1] + bands[1, 0] * p[0] + bands[2, 0] * p[1]
    for i in range(1, n - 1):
        out[i] = bands[0, i] * p[i - 1] + bands[1, i] * p[i] + bands[2, i] * p[i + 1]
    out[n - 1] = bands[0, n - 1] * p[n - 2] + bands[1, n - 1] * p[n - 1] + bands[2, n - 1] * p[0]
    out[0] += inflow[0]
    out[n - 1] += inflow[1]
    return out


@kernel
def factor(bands, shift, scale, periodic):
    """LU of the M-matrix shift I − scale A, without pivoting.

    Rows: multipliers, reciprocal pivots, upper band over pivot, and on a circle the correction vector of
    Sherman & Morrison (1950), whose ratio goes to the unused first multiplier.
    """
    n = bands.shape[1]
    f = np.zeros((4, n))
    first, last = shift - scale * bands[1, 0], shift - scale * bands[1, n - 1]
    ratio = 0.0
    if periodic:
        # M = T + u vᵀ with u = (−M00, 0, …, M[n−1,0]), v = (1, 0, …, ratio)
        ratio = scale * bands[0, 0] / first
        last += -scale * bands[2, n - 1] * -ratio
        f[3, 0], f[3, n - 1] = -first, -scale * bands[2, n - 1]
        first *= 2.0
    f[1, 0] = 1.0 / first
    f[2, 0] = -scale * bands[2, 0] * f[1, 0]
    for i in range(1, n):
        f[0, i] = -scale * bands[0, i] * f[1, i - 1]
        pivot = (last if i == n - 1 else shift - scale * bands[1, i]) + f[0, i] * scale * bands[2, i - 1]
        f[1, i] = 1.0 / pivot
        f[2, i] = -scale * bands[2, i] * f[1, i]
    f[2, n - 1] = 0.0
    if periodic:
        correction = f[3]
        sweep(f, correction)
        s = 1.0 / (1.0 + correction[0] + ratio * correction[n - 1])
        for i in range(n):
            correction[i] *= s
        f[0, 0] = ratio
    return f


@kernel
def sweep(f, x):
    n = len(x)
    for i in range(1, n):
        x[i] -= f[0, i] * x[i - 1]
    x[n - 1] *= f[1, n - 1]
    for i in range(n - 2, -1, -1):
        x[i] = x[i] * f[1, i] - f[2, i] * x[i + 1]


@kernel
def solve(f, x, periodic):
    """M x = x in place."""
    sweep(f, x)
    if periodic:
        n = len(x)
        c = x[0] + f[0, 0] * x[n - 1]
        for i in range(n):
            x[i] -= c * f[3, i]
