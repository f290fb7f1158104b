r"""Activation functions with two derivatives, fused with the bias, over a tile of a matrix.

    silu       φ(z) = z/(1 + e^{−z})
    tanh       φ(z) = tanh z
    softplus   φ(z) = ln(1 + e^z)
    relu       φ(z) = max(z, 0)

The first derivative is what reverse and tangent passes multiply with; score matching, which differentiates a derivative
once more, takes the second. ``NAMES`` are those of scores, smooth as score matching needs them (a ReLU's divergence
knows nothing of its biases); classifiers have ReLUs.
The exponential is the library's own: the loops run in vector registers and give the same bits on every machine.
"""

import functools
from typing import Any

import numpy as np
from numba import njit

from ..core import cache
from ..core.elementary import wide_vectors
from ..core.functions import exp, log, tanh

NAMES = ("silu", "tanh", "softplus")


def _functions(number: Any) -> dict[str, Any]:
    """z -> (φ, φ′, φ″) in one type of number: a constant of another type would widen every operation."""
    one, two, zero = number(1.0), number(2.0), number(0.0)

    @njit(inline="always", error_model="numpy")
    def silu(z):
        s = one / (one + exp(-z))
        slope = s * (one - s)
        return z * s, s + z * slope, slope * (two + z * (one - two * s))

    @njit(inline="always", error_model="numpy")
    def tangens(z):
        h = tanh(z)
        slope = one - h * h
        return h, slope, -two * h * slope

    @njit(inline="always", error_model="numpy")
    def softplus(z):
        e = exp(-abs(z))
        s = one / (one + e)
        s = s if z >= zero else one - s
        return (z if z > zero else zero) + log(one + e), s, s * (one - s)

    @njit(inline="always", error_model="numpy")
    def relu(z):
        positive = z > zero
        return (z if positive else zero), (one if positive else zero), zero

    return {"silu": silu, "tanh": tangens, "softplus": softplus, "relu": relu}


@functools.cache
def scalar(name: str, dtype: np.dtype) -> Any:
    """φ of one number as a compiled function, for engines that loop by themselves."""
    both = _functions(dtype.type)[name]

    @njit(inline="always", error_model="numpy")
    def phi(z):
        return both(z)[0]

    return phi


_TEXT = """\
from numba import njit, types

_I, _M, _V = types.int64, types.{dtype}[:, ::1], types.{dtype}[::1]
_compiled = lambda signature: njit(signature, nogil=True, cache=CACHE, error_model="numpy", fastmath={{"contract"}})

@_compiled(types.void(_M, _V, _I, _I, _I, _I))
def value(h, b, r0, r1, c0, c1):
    _wide()
    for i in range(r0, r1):
        # views from c0 on: an index that starts at 0 is known not to be negative, and the loop becomes vectors
        row, shift = h[i, c0:c1], b[c0:c1]
        for j in range(c1 - c0):
            row[j] = _phi(row[j] + shift[j])[0]

@_compiled(types.void(_M, _V, _M, _I, _I, _I, _I))
def slope(h, b, d1, r0, r1, c0, c1):
    _wide()
    for i in range(r0, r1):
        row, shift, first = h[i, c0:c1], b[c0:c1], d1[i, c0:c1]
        for j in range(c1 - c0):
            row[j], first[j], _ = _phi(row[j] + shift[j])

@_compiled(types.void(_M, _V, _M, _M, _I, _I, _I, _I))
def curvature(h, b, d1, d2, r0, r1, c0, c1):
    _wide()
    for i in range(r0, r1):
        row, shift, first, second = h[i, c0:c1], b[c0:c1], d1[i, c0:c1], d2[i, c0:c1]
        for j in range(c1 - c0):
            row[j], first[j], second[j] = _phi(row[j] + shift[j])
"""


@functools.cache
def kernels(name: str, dtype: np.dtype) -> Any:
    """Compiled ``value(h, b, …)``, ``slope(h, b, d1, …)``, ``curvature(h, b, d1, d2, …)`` on rows r0:r1, columns c0:c1.

    Each puts φ(h + b) in the place of h, and φ′, φ″ beside it.
    """
    phi = _functions(dtype.type)[name]
    return cache.load(_TEXT.format(dtype=dtype.name), {"_phi": phi, "_wide": wide_vectors})
