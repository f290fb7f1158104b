"""Standard normals from Philox words by Box-Muller, with our own logarithm, sine and cosine.

One Philox block of a path gives two float64 normals (53-bit uniform, 64-bit angle) or four float32 normals (32-bit
uniforms and angles):

    u = (w + ½) 2⁻³²,  r = √(−2 ln u),  z₀ = r cos(2π v 2⁻³²),  z₁ = r sin(2π v 2⁻³²)

(Box & Muller 1958). Every operation is correctly rounded (+, ×, ÷, √, fma, integer), so that a draw has the same bits
on every machine. The largest |z| is 8.6 in float64 and 6.7 in float32.
"""

import functools
import math
from typing import Any

import numpy as np
from numba import njit

from . import cache
from .elementary import (
    F32, F64, I64, U32, U64, fma, minus_two_log32, minus_two_log64, sincos_turn32, sincos_turn64, wide_vectors,
)  # fmt: skip
from .philox import philox

_LOW, _S32, _S11 = U64(0xFFFFFFFF), U64(32), U64(11)
_UNIT32, _HALF32 = F32(2.0**-32), F32(2.0**-33)
_UNIT64, _HALF64 = 2.0**-53, 2.0**-54

DRAWS = {np.dtype(np.float32): 4, np.dtype(np.float64): 2}


@njit(inline="always", error_model="numpy")
def pair32(a, b):  # type: ignore[no-untyped-def]
    """Two float32 normals from two uint32 words."""
    r = F32(math.sqrt(minus_two_log32(fma(F32(a), _UNIT32, _HALF32))))
    sine, cosine = sincos_turn32(b)
    return r * cosine, r * sine


@njit(inline="always", error_model="numpy")
def pair64(a, b, c, d):  # type: ignore[no-untyped-def]
    """Two float64 normals from four words; only their low halves count."""
    u = ((a << _S32) | (b & _LOW)) >> _S11
    r = math.sqrt(minus_two_log64(fma(F64(I64(u)), _UNIT64, _HALF64)))
    sine, cosine = sincos_turn64(U64((c << _S32) | (d & _LOW)))
    return r * cosine, r * sine


@njit(error_model="numpy", nogil=True)
def normals32(z, words, c0, c1, path0, seed):  # type: ignore[no-untyped-def]
    """Four float32 normals for each of the paths path0, path0 + 1, ...: z is (4, n), words a uint32 scratch (4, n)."""
    k0, k1 = seed & _LOW, seed >> _S32
    for i in range(z.shape[1]):
        path = U64(path0 + U64(i))
        a, b, c, d = philox(c0, c1, path & _LOW, path >> _S32, k0, k1)
        words[0, i] = U32(a)
        words[1, i] = U32(b)
        words[2, i] = U32(c)
        words[3, i] = U32(d)
    # A second loop, because the first runs on 64-bit lanes and would halve the width of the float32 arithmetic.
    for i in range(z.shape[1]):
        z[0, i], z[1, i] = pair32(words[0, i], words[1, i])
    for i in range(z.shape[1]):
        z[2, i], z[3, i] = pair32(words[2, i], words[3, i])


@njit(error_model="numpy", nogil=True)
def normals64(z, words, c0, c1, path0, seed):  # type: ignore[no-untyped-def]
    """Two float64 normals for each of the paths path0, path0 + 1, ...: z is (2, n); words is not used."""
    k0, k1 = seed & _LOW, seed >> _S32
    for i in range(z.shape[1]):
        path = U64(path0 + U64(i))
        a, b, c, d = philox(c0, c1, path & _LOW, path >> _S32, k0, k1)
        z[0, i], z[1, i] = pair64(a, b, c, d)


_SOURCE = """\
from numba import carray, cfunc, types

_P, _U, _W = types.CPointer(types.{dtype}), types.CPointer(types.uint32), types.uint64

@cfunc(types.void(_P, _U, _W, _W, _W, _W), cache=CACHE, error_model="numpy")
def source(z, words, block, counter, path0, seed):
    _wide()
    _normals(carray(z, ({draws}, 256)), carray(words, (4, 256)), block, counter, path0, seed)
"""


@functools.cache
def source(dtype: np.dtype) -> Any:
    """The compiled noise source of a tile, (z, words, block, counter, path0, seed) on raw memory, one for all engines.

    z is (draws, 256), words a scratch of uint32 (4, 256); block and counter are the words c0 and c1 of the stream.
    """
    names = {"_normals": normals32 if dtype == np.float32 else normals64, "_wide": wide_vectors}
    return cache.load(_SOURCE.format(dtype=dtype.name, draws=DRAWS[dtype]), names).source
