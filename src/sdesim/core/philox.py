"""Philox4x32-10: four random 32-bit words as a function of a 128-bit counter and a 64-bit key.

A counter-based generator has no state: the words of (seed, path, step) are the same whoever asks for them and in
whatever order, which makes results independent of threads, blocks and interruptions (Salmon, Moraes, Dror & Shaw
2011, "Parallel random numbers: as easy as 1, 2, 3"; the three known answers of their Random123 library are tested).
"""

import numpy as np
from numba import njit

from .elementary import wide_product, wide_vectors

U32, U64 = np.uint32, np.uint64

# Every constant is a typed global: Numba types uint32 + uint32 as uint64 and uint64 + 1 as int64.
_M0, _M1 = U64(0xD2511F53), U64(0xCD9E8D57)
_W0, _W1 = U64(0x9E3779B9), U64(0xBB67AE85)
_LOW, _S32 = U64(0xFFFFFFFF), U64(32)
_M0_WORD, _M1_WORD = U32(_M0), U32(_M1)


@njit(inline="always")
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds on 32-bit words held in uint64 lanes; only the low halves of the results are meant.

    Every word is left with rubbish in its high half: the multiplier of a vector lane reads low halves only, so the
    masks below cost nothing there, and masking the words themselves would.
    """
    for _ in range(10):
        p0 = _M0 * (c0 & _LOW)
        p1 = _M1 * (c2 & _LOW)
        c0 = (p1 >> _S32) ^ c1 ^ k0
        c2 = (p0 >> _S32) ^ c3 ^ k1
        c1 = p1
        c3 = p0
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def round_keys(seed: int) -> tuple[np.uint32, ...]:
    """The keys of the ten rounds, two each: arguments of a GPU's kernel, which then need not add them up."""
    low, high = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    pairs = [(low + i * int(_W0), high + i * int(_W1)) for i in range(10)]
    return tuple(U32(key & 0xFFFFFFFF) for pair in pairs for key in pair)


@njit
def _round32(c0, c1, c2, c3, k0, k1):
    low0, high0 = wide_product(_M0_WORD, c0)
    low1, high1 = wide_product(_M1_WORD, c2)
    return U32(U32(high1 ^ c1) ^ k0), low1, U32(U32(high0 ^ c3) ^ k1), low0


@njit
def philox32(c0, c1, c2, c3, k):
    """The same words from uint32 to uint32, with the keys of :func:`round_keys`: for one path at a time, on a GPU."""
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[0], k[1])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[2], k[3])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[4], k[5])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[6], k[7])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[8], k[9])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[10], k[11])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[12], k[13])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[14], k[15])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[16], k[17])
    c0, c1, c2, c3 = _round32(c0, c1, c2, c3, k[18], k[19])
    return c0, c1, c2, c3


@njit(inline="always")
def philox_pair(a0, a1, a2, a3, b0, b1, b2, b3, k0, k1):
    """Two counters at once, round by round: while one waits for its multiplication, the other fills the gap."""
    for _ in range(10):
        p0 = _M0 * (a0 & _LOW)
        q0 = _M0 * (b0 & _LOW)
        p1 = _M1 * (a2 & _LOW)
        q1 = _M1 * (b2 & _LOW)
        a0 = (p1 >> _S32) ^ a1 ^ k0
        b0 = (q1 >> _S32) ^ b1 ^ k0
        a2 = (p0 >> _S32) ^ a3 ^ k1
        b2 = (q0 >> _S32) ^ b3 ^ k1
        a1, b1, a3, b3 = p1, q1, p0, q0
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return a0, a1, a2, a3, b0, b1, b2, b3


@njit(nogil=True, error_model="numpy")
def tile_words(words, c0, c1, path0, seed):
    """The words of the 256 paths from path0: words is uint64 (4, 128); read as uint32, row r is word r of every path.

    path0 is a multiple of 256, so that the whole tile has one high word.
    """
    wide_vectors()
    k0, k1 = seed & _LOW, seed >> _S32
    low, high = path0 & _LOW, path0 >> _S32
    for i in range(128):
        p = low + U64(2 * i)
        a, b, c, d, e, f, g, h = philox_pair(c0, c1, p, high, c0, c1, p + U64(1), high, k0, k1)
        # an even and an odd path share a uint64
        words[0, i] = (a & _LOW) | (e << _S32)
        words[1, i] = (b & _LOW) | (f << _S32)
        words[2, i] = (c & _LOW) | (g << _S32)
        words[3, i] = (d & _LOW) | (h << _S32)


@njit(nogil=True)
def words(out, c0, c1, path0, seed):
    """Raw words out[4, n] of paths path0, path0 + 1, ... at one counter (c0, c1)."""
    k0, k1 = seed & _LOW, seed >> _S32
    for i in range(out.shape[1]):
        path = U64(path0 + U64(i))
        a, b, c, d = philox(U64(c0), U64(c1), path & _LOW, path >> _S32, k0, k1)
        out[0, i] = U32(a & _LOW)
        out[1, i] = U32(b & _LOW)
        out[2, i] = U32(c & _LOW)
        out[3, i] = U32(d & _LOW)


def known_answer() -> str:
    """ "ok" where the compiled generator gives the published words on this machine, "WRONG" elsewhere."""
    out = np.empty((4, 1), np.uint32)
    words(out, U64(0x243F6A88), U64(0x85A308D3), U64(0x0370734413198A2E), U64(0x299F31D0A4093822))
    return "ok" if out[:, 0].tolist() == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1] else "WRONG"
