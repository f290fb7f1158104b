"""Tridiagonal matrices as three bands, indices cyclic: products, and solves by elimination without pivoting.

The matrices are those of Markov generators and I − a dt A, M-matrices: all pivots are positive and nothing grows. On a
circle the two corners are a rank-one term (Sherman & Morrison 1950).
"""

import numpy as np

from ..core.cache import kernel


@kernel
def apply(bands, exits, turned, p, inflow):
    """A p + s, indices cyclic (the corner entries are zero off the circle), as in ``factor`` without the diagonal.

    What passes a face is subtracted on one side and added on the other, the same number to the last bit, so that mass
    is kept however fast the rates are; of a transpose (``turned``), what is constant.
    """
    n = len(p)
    out = np.empty(n)
    if turned:
        for i in range(n):
            j, k = i - 1 if i > 0 else n - 1, i + 1 if i + 1 < n else 0
            out[i] = bands[0, i] * (p[j] - p[i]) + bands[2, i] * (p[k] - p[i])
    else:
        through = bands[0, 0] * p[n - 1] - bands[2, n - 1] * p[0]
        last = through
        for i in range(n - 1):
            above = bands[0, i + 1] * p[i] - bands[2, i] * p[i + 1]
            out[i] = through - above
            through = above
        out[n - 1] = through - last
    out[0] += inflow[0] - exits[0] * p[0]
    out[n - 1] += inflow[1] - exits[1] * p[n - 1]
    return out


@kernel
def factor(bands, exits, turned, shift, scale, periodic):
    """LU of the M-matrix shift I − scale A, without pivoting; ``exits`` are the rates out at the two ends.

    Off the circle the diagonal is not read: it is minus the rates out of a cell, up, down and through a wall, which are
    the column sums of A (the row sums, if it is ``turned``, a transpose). A pivot is then scale·up + e, where e carries
    the shift and the exits of the cells before, e' = shift + scale·exit + scale·down·e/pivot: sums of positive numbers,
    relatively exact however small the shift is against the rates (Grassmann, Taksar & Heyman 1985).

    Rows: multipliers, reciprocal pivots, upper band over pivot, and on a circle the correction vector of
    Sherman & Morrison (1950), whose ratio goes to the unused first multiplier.
    """
    n = bands.shape[1]
    f = np.zeros((4, n))
    if not periodic:
        carried = shift + scale * exits[0]
        for i in range(n):
            if i > 0:
                carried *= scale * (bands[0, i] if turned else bands[2, i - 1]) * f[1, i - 1]
                carried += shift
                f[0, i] = -scale * bands[0, i] * f[1, i - 1]
            up = scale * (bands[2, i] if turned else bands[0, i + 1]) if i + 1 < n else scale * exits[1]
            f[1, i] = 1.0 / (up + carried)
            f[2, i] = -scale * bands[2, i] * f[1, i]
        f[2, n - 1] = 0.0
        return f
    # M = T + u vᵀ with u = (−M00, 0, …, M[n−1,0]), v = (1, 0, …, ratio)
    first, last = shift - scale * bands[1, 0], shift - scale * bands[1, n - 1]
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
