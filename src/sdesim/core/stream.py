"""The random stream, version 1: every draw is a function of what it is for.

    key      the 64-bit seed
    counter  c0  block of steps: a block feeds 2 (float64) or 4 (float32) consecutive draws
             c1  purpose (8 bits) << 24 | component (24 bits)
             c2, c3  the path (64 bits)

so that a path has the same noise in any company: any number of threads, any block of paths, either half of an
ensemble run alone. A stream version is frozen; its known answers are kept with the tests.
"""

import functools
from typing import Any

import numpy as np

from . import cache, call, philox
from . import normals as box_muller

VERSION = 1

WIENER, SPACE_TIME, LEVY_AREA, ACCEPTANCE, INITIAL, BITS, BRIDGE, TRAINING = range(8)
# of samplers: the noise of pixels that are known, of jumps back to an earlier time, of Langevin steps
KNOWN, JUMP, CORRECTION = range(8, 11)

MAX_BLOCKS, MAX_COMPONENTS, MAX_PATHS = 2**32, 2**24, 2**63

_NORMALS = """\
import numpy as np
from numba import njit, types

U64 = np.uint64
_T = types.{dtype}

@njit(types.void(_T[:, :, ::1], types.uint64, types.uint64, types.uint64, types.uint64, types.int64), nogil=True,
      cache=CACHE)
def fill(out, path0, block0, purpose, seed, source):
    n, m, draws = out.shape
    z = np.zeros(({S}, 256), np.{dtype})
    words = np.zeros((4, 128), np.uint64)
    head = np.int64(path0 & U64(255))           # a tile starts at a multiple of 256; the lanes outside are dropped
    for start in range(-head, n, 256):
        lo, hi = max(-start, 0), min(256, n - start)
        for k in range(m):
            for first in range(0, draws, {S}):
                counter = U64((purpose << U64(24)) | U64(k))
                _source(source, z, words, U64(block0 + U64(first // {S})), counter, U64(path0 + U64(start)), seed)
                for s in range(min({S}, draws - first)):
                    for i in range(lo, hi):
                        out[start + i, k, first + s] = z[s, i]
"""

# 64 components at a time, so that whole cache lines are written.
_STEPS = """\
import numpy as np
from numba import njit, types

U64 = np.uint64
_T = types.{dtype}

@njit(types.void(_T[:, :, ::1], types.uint64, types.uint64, types.uint64, types.uint64, types.int64), nogil=True,
      cache=CACHE)
def fill(out, path0, block, purpose, seed, source):
    draws, n, m = out.shape
    z = np.zeros((min(64, m), draws, 256), np.{dtype})
    words = np.zeros((4, 128), np.uint64)
    head = np.int64(path0 & U64(255))
    for start in range(-head, n, 256):
        lo, hi = max(-start, 0), min(256, n - start)
        for k0 in range(0, m, 64):
            width = min(64, m - k0)
            for k in range(width):
                counter = U64((purpose << U64(24)) | U64(k0 + k))
                _source(source, z[k], words, block, counter, U64(path0 + U64(start)), seed)
            for s in range(draws):
                for i in range(lo, hi):
                    for k in range(width):
                        out[s, start + i, k0 + k] = z[k, s, i]
"""

_UNIFORMS = """\
import numpy as np
from numba import njit, types

U64 = np.uint64

@njit(types.void(types.float64[:, :, ::1], types.uint64, types.uint64, types.uint64, types.uint64), nogil=True,
      cache=CACHE)
def fill(out, path0, block0, purpose, seed):
    n, m, draws = out.shape
    words = np.zeros((4, 1), np.uint32)
    for i in range(n):
        for k in range(m):
            for s in range(draws):
                if s % 2 == 0:
                    _words(words, U64(block0 + U64(s // 2)), U64((purpose << U64(24)) | U64(k)), U64(path0 + U64(i)),
                           seed)
                high, low = words[2 * (s % 2), 0], words[2 * (s % 2) + 1, 0]
                bits = ((U64(high) << U64(32)) | U64(low)) >> U64(11)
                out[i, k, s] = np.float64(np.int64(bits)) * 2.0**-53 + 2.0**-54
"""


@functools.cache
def normals_kernel(dtype: np.dtype) -> Any:
    """The compiled ``fill(out, path0, block0, purpose, seed)`` for out of shape (paths, components, draws)."""
    text = _NORMALS.format(dtype=dtype.name, S=box_muller.DRAWS[dtype])
    fill, source = cache.load(text, {"_source": call.call_source}).fill, box_muller.source(dtype)
    return lambda out, path0, block0, purpose, seed: fill(out, path0, block0, purpose, seed, source.address)


@functools.cache
def _steps_kernel(dtype: np.dtype) -> tuple[Any, int]:
    source = box_muller.source(dtype)
    return cache.load(_STEPS.format(dtype=dtype.name), {"_source": call.call_source}).fill, source.address


def fill_steps(out: np.ndarray, first_path: int, block: int, purpose: int, seed: int) -> None:
    """The draws of one block as arrays of their own: out[s] is (paths, components), draw block·draws + s."""
    if out.size:
        fill, address = _steps_kernel(out.dtype)
        fill(out, first_path, block, purpose, seed, address)


@functools.cache
def _uniforms_kernel() -> Any:
    return cache.load(_UNIFORMS, {"_words": philox.words}).fill


def normals(
    seed: int, purpose: int, n_paths: int, n_components: int = 1, n_draws: int = 1, *, first_path: int = 0,
    dtype: Any = np.float64,
) -> np.ndarray:  # fmt: skip
    """Standard normals (n_paths, n_components, n_draws) of the paths first_path, first_path + 1, …

    The float32 and the float64 stream are different draws, not roundings of each other.
    """
    out = np.empty((n_paths, n_components, n_draws), dtype)
    if out.size:
        normals_kernel(np.dtype(dtype))(out, first_path, 0, purpose, seed)
    return out


def uniforms(
    seed: int, purpose: int, n_paths: int, n_components: int = 1, n_draws: int = 1, *, first_path: int = 0
) -> np.ndarray:
    """Uniforms in (0, 1), (n_paths, n_components, n_draws): k + ½ over 2⁵³ for 53 random bits k, in float64."""
    out = np.empty((n_paths, n_components, n_draws))
    if out.size:
        _uniforms_kernel()(out, first_path, 0, purpose, seed)
    return out


def uniforms_at(seed: int, purpose: int, n_paths: int, block: int, *, first_path: int = 0) -> np.ndarray:
    """The two uniforms of each path at one block, (2, n_paths): draws 2·block and 2·block + 1 of ``uniforms``."""
    out = np.empty((n_paths, 1, 2))
    _uniforms_kernel()(out, first_path, block, purpose, seed)
    return np.ascontiguousarray(out[:, 0].T)
