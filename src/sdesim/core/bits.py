"""Two- and three-point random increments from raw bits: what law-only schemes need in place of normals.

A Philox block of a path holds 128 bits. Two-point increments take one bit a step, so a block lasts 128 steps; three-
point increments take one base-6 digit a step, twelve out of each 64-bit word (the digit's law is off by 6¹²/2⁶⁴,
about 1e-10), so a block lasts 24.
"""

import numpy as np
from numba import njit

from .elementary import bits_f32, f32_bits, wide_vectors
from .philox import philox32, tile_words

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


@njit(inline="always", error_model="numpy")
def digit(high, low):
    """A base-6 digit (uint64) off the 64-bit fraction in the uint32 words high, low; and what is left of these."""
    p = U64(low) * _SIX
    q = U64(high) * _SIX + (p >> _S32)
    return q >> _S32, U32(q), U32(p)


@njit(inline="always", error_model="numpy")
def of_digit(number, size):
    """−size, 0 or size for the digits 0, 1 to 4, 5."""
    return -size if number == _NONE else (size if number == _FIVE else size - size)


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
    for i in range(256):
        found, high[i], low[i] = digit(high[i], low[i])
        out[i] = of_digit(found, size)


@njit(error_model="numpy", nogil=True)
def uniforms(out, words, number):
    """out[i] = (k + ½) 2⁻⁵³ with k the 53 leading bits of half ``number`` (0 or 1) of path i's words."""
    wide_vectors()
    rows = words.view(U32)
    high, low = rows[2 * number], rows[2 * number + 1]
    for i in range(256):
        k = ((U64(high[i]) << _S32) | U64(low[i])) >> _S11
        out[i] = np.float64(np.int64(k)) * 2.0**-53 + 2.0**-54


@njit(error_model="numpy")
def word_of_step(step, c1, low, high, keys):
    """The word of one path that holds the random bit of a step, bit step mod 32 of it."""
    a, b, c, d = philox32(U32(step // SIGNS), c1, low, high, keys)
    part = (step // 32) % 4
    return a if part == 0 else (b if part == 1 else (c if part == 2 else d))
