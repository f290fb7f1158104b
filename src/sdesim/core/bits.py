"""Two- and three-point random increments from raw bits: what law-only schemes need in place of normals.

A Philox block of a path holds 128 bits. Two-point increments take one bit a step, so a block lasts 128 steps; three-
point increments take one base-6 digit a step, twelve out of each 64-bit word (the digit's law is off by 6¹²/2⁶⁴,
about 1e-10), so a block lasts 24.
"""

import numpy as np
from numba import njit

from .elementary import bits_f32, f32_bits, wide_vectors
from .philox import tile_words

U32, U64 = np.uint32, np.uint64

SIGNS, DIGITS = 128, 24
_SIX, _FIVE, _NONE, _S32, _S11 = U64(6), U64(5), U64(0), U64(32), U64(11)
_TOP, _ZERO = U32(0x80000000), U32(0)

fill = tile_words


@njit(inline="always", error_model="numpy")
def sign32(word, number, size):
    """−size where bit ``number`` (of 32) of the word is set, else size; float32."""
    # a product, unlike a shift by a variable, is known to stay within 32 bits
    return bits_f32(U32(U32(U32(word * U32(1 << (31 - number))) & _TOP) | f32_bits(size)))


@njit(inline="always", error_model="numpy")
def sign64(word, number, size):
    """The same in float64."""
    return -size if U32(word & U32(1 << number)) != _ZERO else size


@njit(error_model="numpy", nogil=True)
def signs32(out, words, number, size):
    """out[i] = ±size by bit ``number`` (of 128) of path i's words."""
    wide_vectors()
    row = words.view(U32)[number // 32]
    for i in range(256):
        out[i] = sign32(row[i], number % 32, size)


@njit(error_model="numpy", nogil=True)
def signs64(out, words, number, size):
    """The same in float64."""
    wide_vectors()
    row = words.view(U32)[number // 32]
    for i in range(256):
        out[i] = sign64(row[i], number % 32, size)


@njit(error_model="numpy", nogil=True)
def digits(out, words, number, size):
    """out[i] = −size, 0 or size with probabilities ⅙, ⅔, ⅙; takes digit ``number`` (of 24, in order) off the words."""
    wide_vectors()
    rows = words.view(U32)
    first = 2 * (number // 12)
    high, low = rows[first], rows[first + 1]
    zero = size - size
    for i in range(256):
        p = U64(low[i]) * _SIX
        low[i] = U32(p)
        q = U64(high[i]) * _SIX + (p >> _S32)
        high[i] = U32(q)
        digit = q >> _S32
        out[i] = -size if digit == _NONE else (size if digit == _FIVE else zero)


@njit(error_model="numpy", nogil=True)
def uniforms(out, words, number):
    """out[i] = (k + ½) 2⁻⁵³ with k the 53 leading bits of half ``number`` (0 or 1) of path i's words."""
    wide_vectors()
    rows = words.view(U32)
    high, low = rows[2 * number], rows[2 * number + 1]
    for i in range(256):
        k = ((U64(high[i]) << _S32) | U64(low[i])) >> _S11
        out[i] = np.float64(np.int64(k)) * 2.0**-53 + 2.0**-54
