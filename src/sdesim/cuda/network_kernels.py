"""Kernels around the matrix products of a sampler: bias + activation, and the move of a step with its noise.

A block of threads works on a part of one row, each thread on ``EACH`` columns that lie a block apart, so that every
load of a warp is one run of memory. Indices are unsigned, which spares the look at negative ones, a quarter of the
instructions. The number of the step lies in device memory, with all that changes from step to step in tables behind it:
the launches of a step are the same for every step, and can be recorded once and replayed.
"""

import functools
from typing import Any

import numpy as np
from numba import njit

from ..core.elementary import F32, U32, U64, fma
from ..core.normals import pair32
from ..core.philox import philox32
from .backend import cuda
from .formats import Format
from .program import CENTRE, FIRST, KEPT, ONE, STATE

EACH = 4  # columns of a thread
THREADS, WARP = 256, 32  # of a block, at most
_S32, _S24 = U64(32), U32(24)

I32_MAX = np.int32(2**31 - 1)


def grid_of(rows: int, columns: int) -> tuple[tuple[int, int], int]:
    """(blocks, threads) for kernels over rows × columns: whole warps, but for rows that are shorter than one."""
    threads = -(-columns // EACH)
    threads = min(THREADS, threads if threads < WARP else -(-threads // WARP) * WARP)
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
    """x + (share x + change); where nothing of x is left, it may be anything."""
    return F32(change) if share == -1.0 else F32(x) + fma(F32(share), F32(x), F32(change))


@njit(inline="always", error_model="numpy")
def shown(y, scale, alpha, middle, beta):
    """C (y − α m − β), what the network sees of a point."""
    return F32(scale) * (F32(y) - fma(F32(alpha), F32(middle), F32(beta)))


@njit(inline="always", error_model="numpy")
def is_finite(y):
    """Whether y is a number."""
    return y - y == y - y


@njit(error_model="numpy")
def normal(keys, first_path, row, column, purpose, block, lane):
    """One float32 normal of the stream (``core.stream``): component ``column`` of path first_path + row."""
    path = U64(U64(first_path) + U64(row))
    counter = U32(U32(U32(purpose) << _S24) | U32(column))
    a, b, c, d = philox32(U32(block), counter, U32(path), U32(path >> _S32), keys)
    radius, angle = (a, b) if lane < 2 else (c, d)
    first, second = pair32(radius, angle)
    return second if lane & 1 else first


# ---- kernels --------------------------------------------------------------------------------------------------------


@functools.cache
def activation(phi: Any, threads: int, form: Format) -> Any:
    """``kernel(h, bias, step, stride, offset)``: h ← φ(h + b), b row step·stride + offset of the biases."""
    load, store = form.load, form.store

    # a quotient to the last bit is for float32; what is kept to 11 bits takes the device's own, a third quicker
    @njit(error_model="numpy", fastmath=False if form.name == "fp32" else {"afn", "arcp", "contract"})
    def activated(z, b):
        return phi(F32(z) + F32(b))

    def kernel(h, bias, step, stride, offset):
        i, row = U32(cuda.blockIdx.x), U32(step[0] * stride + offset)
        first = U32(cuda.blockIdx.y * (EACH * threads) + cuda.threadIdx.x)
        for q in range(EACH):
            j = U32(first + U32(q * threads))
            if j < h.shape[1]:
                h[i, j] = store(activated(load(h[i, j]), bias[row, j]))

    return cuda.jit(kernel)


@functools.cache
def move(
    n_outputs: int, most: int, n_draws: int, last: bool, keeps: bool, feeds: bool, threads: int, form: Format
) -> Any:  # fmt: skip
    """The point after ``n_outputs`` evaluations of a step (``program``), and the network's input there.

    ``kernel(x, kept, outputs, bias, centre, inp, points, keep, inputs, draws, step, first_path, keys, bad)``: the
    state is written by ``last`` moves, ``keeps`` says that a step leaves something to the next, ``feeds`` that the
    network's input is wanted. ``bad`` receives the first step with a number that is none.
    """
    load, store = form.load, form.store
    noise_at, many = FIRST + most, 1 + max(n_outputs, n_draws)

    def kernel(x, kept, outputs, bias, centre, inp, points, keep, inputs, draws, step, first_path, keys, bad):
        i = U32(cuda.blockIdx.x)
        k = U32(step[0])
        c_state, c_kept = points[k, n_outputs, STATE], points[k, n_outputs, KEPT]
        c_centre, c_one = points[k, n_outputs, CENTRE], points[k, n_outputs, ONE]
        scale, alpha, beta = inputs[k, n_outputs, 0], inputs[k, n_outputs, 1], inputs[k, n_outputs, 2]
        # what all columns of a thread share, read once: arrays of fixed size are registers
        of_output, of_draw = cuda.local.array(many, np.float32), cuda.local.array(many, np.float32)
        purpose, block = cuda.local.array(many, np.uint32), cuda.local.array(many, np.uint32)
        lane, start = cuda.local.array(many, np.uint32), first_path[0]
        for s in range(n_outputs):
            of_output[s] = points[k, n_outputs, FIRST + s]
        for r in range(n_draws):
            of_draw[r] = points[k, n_outputs, noise_at + r]
            purpose[r], block[r], lane[r] = draws[k, r, 0], draws[k, r, 1], draws[k, r, 2]
        first = U32(cuda.blockIdx.y * (EACH * threads) + cuda.threadIdx.x)
        for q in range(EACH):
            j = U32(first + U32(q * threads))
            if j < x.shape[1]:
                before, middle = x[i, j], centre[j]
                change = mad(c_centre, middle, c_one)
                left = mad(keep[k, STATE], before, np.float32(0.0)) if last and keeps else np.float32(0.0)
                for s in range(n_outputs):
                    f = total(load(outputs[s, i, j]), bias[j])
                    change = mad(of_output[s], f, change)
                    if last and keeps:
                        left = mad(keep[k, FIRST + s], f, left)
                for r in range(n_draws):
                    if of_draw[r] != 0.0:
                        z = normal(keys, start, i, j, purpose[r], block[r], lane[r])
                        change = mad(of_draw[r], z, change)
                if keeps and c_kept != 0.0:
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
