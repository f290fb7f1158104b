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
    F32,
    F64,
    I64,
    U32,
    U64,
    fma,
    minus_two_log32,
    minus_two_log64,
    sincos_turn32,
    sincos_turn64,
    sqrt32,
    wide_vectors,
)  # fmt: skip
from .philox import philox32, philox_pair, tile_words

_LOW, _S32, _S11 = U64(0xFFFFFFFF), U64(32), U64(11)
_UNIT32, _HALF32 = F32(2.0**-32), F32(2.0**-33)
_UNIT64, _HALF64 = 2.0**-53, 2.0**-54

DRAWS = {np.dtype(np.float32): 4, np.dtype(np.float64): 2}


@njit(inline="always", error_model="numpy")
def pair32(a, b):
    """Two float32 normals from two uint32 words."""
    r = sqrt32(minus_two_log32(fma(F32(a), _UNIT32, _HALF32)))
    sine, cosine = sincos_turn32(b)
    return r * cosine, r * sine


@njit(inline="always", error_model="numpy")
def pair64(a, b):
    """Two float64 normals from two uint64 words."""
    r = math.sqrt(minus_two_log64(fma(F64(I64(a >> _S11)), _UNIT64, _HALF64)))
    sine, cosine = sincos_turn64(b)
    return r * cosine, r * sine


@njit(error_model="numpy")
def path_normals32(c0, c1, low, high, keys):
    """The four float32 normals of one path's block: for one path at a time, from uint32 words (see ``philox32``)."""
    a, b, c, d = philox32(c0, c1, low, high, keys)
    z0, z1 = pair32(a, b)
    z2, z3 = pair32(c, d)
    return z0, z1, z2, z3


@njit(error_model="numpy")
def path_normals64(c0, c1, low, high, keys):
    """The two float64 normals of one path's block."""
    a, b, c, d = philox32(c0, c1, low, high, keys)
    return pair64((U64(a) << _S32) | U64(b), (U64(c) << _S32) | U64(d))


@njit(error_model="numpy", nogil=True)
def normals32(z, words, c0, c1, path0, seed):
    """Four float32 normals for each of the 256 paths from path0: z is (4, 256), words a uint64 scratch (4, 128)."""
    wide_vectors()
    tile_words(words, c0, c1, path0, seed)
    # Loops of their own: 32-bit lanes are twice as many, and a long chain of operations would starve the scheduler.
    w = words.view(U32)
    for i in range(256):
        z[0, i], z[1, i] = pair32(w[0, i], w[1, i])
    for i in range(256):
        z[2, i], z[3, i] = pair32(w[2, i], w[3, i])


@njit(error_model="numpy", nogil=True)
def normals64(z, words, c0, c1, path0, seed):
    """Two float64 normals for each of the 256 paths from path0: z is (2, 256), words a uint64 scratch (4, 128)."""
    wide_vectors()
    k0, k1 = seed & _LOW, seed >> _S32
    low, high = path0 & _LOW, path0 >> _S32
    for i in range(128):
        p = low + U64(i)
        a, b, c, d, e, f, g, h = philox_pair(c0, c1, p, high, c0, c1, p + U64(128), high, k0, k1)
        words[0, i] = (a << _S32) | (b & _LOW)
        words[1, i] = (c << _S32) | (d & _LOW)
        words[2, i] = (e << _S32) | (f & _LOW)
        words[3, i] = (g << _S32) | (h & _LOW)
    for i in range(128):
        z[0, i], z[1, i] = pair64(words[0, i], words[1, i])
    for i in range(128):
        z[0, i + 128], z[1, i + 128] = pair64(words[2, i], words[3, i])


_SOURCE = """\
from numba import carray, cfunc, types

_P, _U, _W = types.CPointer(types.{dtype}), types.CPointer(types.uint64), types.uint64

@cfunc(types.void(_P, _U, _W, _W, _W, _W), cache=CACHE, error_model="numpy")
def source(z, words, block, counter, path0, seed):
    _normals(carray(z, ({draws}, 256)), carray(words, (4, 128)), block, counter, path0, seed)
"""


@functools.cache
def source(dtype: np.dtype) -> Any:
    """The compiled noise source of a tile, (z, words, block, counter, path0, seed) on raw memory, one for all engines.

    z is (draws, 256), words a scratch of uint64 (4, 128); block and counter are the words c0 and c1 of the stream.
    """
    names = {"_normals": normals32 if dtype == np.float32 else normals64}
    return cache.load(_SOURCE.format(dtype=dtype.name, draws=DRAWS[dtype]), names).source
