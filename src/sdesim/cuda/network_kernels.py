"""Kernels around the matrix products of a sampler: bias + activation, and the move of a step with its noise.

A block of threads works on a part of one row, each thread on ``EACH`` columns that lie a block apart, so that every
load of a warp is one run of memory. The number of the step lies in device memory, with all that changes from step to
step in tables behind it: the launches of a step are the same for every step, and can be recorded once and replayed.
"""

import functools
from typing import Any

import numpy as np
from numba import njit

from ..core.elementary import F32, U32, U64, fma
from ..core.normals import pair32
from ..core.philox import philox
from .backend import cuda
from .formats import Format
from .program import CENTRE, FIRST, KEPT, ONE, STATE

EACH = 4  # columns of a thread
THREADS = 256  # of a block, at most
_LOW, _S32, _S24 = U64(0xFFFFFFFF), U64(32), U64(24)

I32_MAX = np.int32(2**31 - 1)


def grid_of(rows: int, columns: int) -> tuple[tuple[int, int], int]:
    """(blocks, threads) for kernels over rows × columns."""
    threads = min(THREADS, -(-columns // EACH))
    return (rows, -(-columns // (EACH * threads))), threads


# ---- arithmetic: on a device inlined into the kernels, in the simulator compiled for the CPU ------------------------
# The simulator runs kernels in Python, where a float32 that a compiled function returns is a float of 64 bits: so all
# sums are in these functions, which take their arguments as the float32 that they are.


@njit(inline="always", error_model="numpy")
def mad(a, b, c):
    """a b + c, rounded once."""
    return fma(F32(a), F32(b), F32(c))


@njit(inline="always", error_model="numpy")
def total(a, b):
    """a + b."""
    return F32(a) + F32(b)


@njit(inline="always", error_model="numpy")
def changed(x, share, change):
    """x + (share x + change)."""
    return F32(x) + fma(F32(share), F32(x), F32(change))


@njit(inline="always", error_model="numpy")
def shown(y, scale, alpha, middle, beta):
    """C (y − α m − β), what the network sees of a point."""
    return F32(scale) * (F32(y) - fma(F32(alpha), F32(middle), F32(beta)))


@njit(inline="always", error_model="numpy")
def is_finite(y):
    """Whether y is a number."""
    return y - y == y - y


@njit(error_model="numpy")
def normal(seed, first_path, row, column, purpose, block, lane):
    """One float32 normal of the stream (``core.stream``): component ``column`` of path first_path + row."""
    path = U64(U64(first_path) + U64(row))
    counter = U64(U64(U64(purpose) << _S24) | U64(column))
    a, b, c, d = philox(U64(block), counter, path & _LOW, path >> _S32, seed & _LOW, seed >> _S32)
    radius, angle = (a, b) if lane < 2 else (c, d)
    first, second = pair32(U32(radius & _LOW), U32(angle & _LOW))
    return second if lane & 1 else first


# ---- kernels --------------------------------------------------------------------------------------------------------


@functools.cache
def activation(phi: Any, form: Format) -> Any:
    """``kernel(h, bias, step, stride, offset)``: h ← φ(h + b), b row step·stride + offset of the biases."""
    load, store = form.load, form.store

    @njit(error_model="numpy")
    def activated(z, b):
        return phi(F32(z) + F32(b))

    def kernel(h, bias, step, stride, offset):
        i = cuda.blockIdx.x
        row = step[0] * stride + offset
        j = cuda.blockIdx.y * cuda.blockDim.x * EACH + cuda.threadIdx.x
        for _ in range(EACH):
            if j < h.shape[1]:
                h[i, j] = store(activated(load(h[i, j]), bias[row, j]))
            j += cuda.blockDim.x

    return cuda.jit(kernel)


@functools.cache
def move(n_outputs: int, most: int, n_draws: int, last: bool, keeps: bool, feeds: bool, form: Format) -> Any:
    """The point after ``n_outputs`` evaluations of a step (``program``), and the network's input there.

    ``kernel(x, kept, outputs, bias, centre, inp, points, keep, inputs, draws, step, place, bad)``: ``place`` is
    (first path, seed); ``last`` moves write the state, ``keeps`` says that a step leaves something to the next,
    ``feeds`` that the network's input is wanted. ``bad`` receives the first step with a number that is none.
    """
    load, store = form.load, form.store
    noise_at = FIRST + most

    def kernel(x, kept, outputs, bias, centre, inp, points, keep, inputs, draws, step, place, bad):
        i = cuda.blockIdx.x
        k = step[0]
        c_state, c_kept = points[k, n_outputs, STATE], points[k, n_outputs, KEPT]
        c_centre, c_one = points[k, n_outputs, CENTRE], points[k, n_outputs, ONE]
        scale, alpha, beta = inputs[k, n_outputs, 0], inputs[k, n_outputs, 1], inputs[k, n_outputs, 2]
        j = cuda.blockIdx.y * cuda.blockDim.x * EACH + cuda.threadIdx.x
        for _ in range(EACH):
            if j < x.shape[1]:
                before, middle = x[i, j], centre[j]
                change = mad(c_centre, middle, c_one)
                left = mad(keep[k, STATE], before, np.float32(0.0)) if last and keeps else np.float32(0.0)
                for s in range(n_outputs):
                    f = total(load(outputs[s, i, j]), bias[j])
                    change = mad(points[k, n_outputs, FIRST + s], f, change)
                    if last and keeps:
                        left = mad(keep[k, FIRST + s], f, left)
                for r in range(n_draws):
                    size = points[k, n_outputs, noise_at + r]
                    if size != 0.0:
                        z = normal(place[1], place[0], i, j, draws[k, r, 0], draws[k, r, 1], draws[k, r, 2])
                        change = mad(size, z, change)
                        if last and keeps:
                            left = mad(keep[k, noise_at + r], z, left)
                if keeps:
                    change = mad(c_kept, kept[i, j], change)
                y = changed(before, c_state, change)
                if last:
                    x[i, j] = y
                    if keeps:
                        kept[i, j] = left
                    if not is_finite(y):
                        cuda.atomic.min(bad, 0, k)
                if feeds:
                    inp[i, j] = store(shown(y, scale, alpha, middle, beta))
            j += cuda.blockDim.x

    return cuda.jit(kernel)


@functools.cache
def counter() -> Any:
    """``kernel(step)``: the next step."""

    def kernel(step):
        step[0] += 1

    return cuda.jit(kernel)


@functools.cache
def product(tile: int) -> Any:
    """``kernel(a, b, out)``: out = a b in float32, in tiles of shared memory; every sum runs in the order of its index.

    The fallback where cuBLAS is missing: right, and far from what the device can do.
    """

    def kernel(a, b, out):
        of_a = cuda.shared.array((tile, tile), np.float32)
        of_b = cuda.shared.array((tile, tile), np.float32)
        row, column = cuda.threadIdx.y, cuda.threadIdx.x
        i, j = cuda.blockIdx.x * tile + row, cuda.blockIdx.y * tile + column
        value = np.float32(0.0)
        for start in range(0, a.shape[1], tile):
            inside = i < a.shape[0] and start + column < a.shape[1]
            of_a[row, column] = a[i, start + column] if inside else np.float32(0.0)
            inside = start + row < b.shape[0] and j < b.shape[1]
            of_b[row, column] = b[start + row, j] if inside else np.float32(0.0)
            cuda.syncthreads()
            for s in range(tile):
                value = mad(of_a[row, s], of_b[s, column], value)
            cuda.syncthreads()
        if i < out.shape[0] and j < out.shape[1]:
            out[i, j] = value

    return cuda.jit(kernel)
