"""How numbers lie in the memory of a device: float32, float16, or bfloat16 in 16-bit integers.

Arithmetic is in float32 everywhere; ``load`` and ``store`` are what kernels read and write with. bfloat16 is the upper
half of a float32, so that its conversions are a shift and a rounding to even, here and in the simulator alike.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ..core.elementary import F32, U32, bits_f32, f32_bits
from .backend import cuda

U16 = np.uint16
_S16, _ONE, _HALF, _NAN16 = U32(16), U32(1), U32(0x7FFF), U16(0x7FFF)


class Format(NamedTuple):
    """A format of weights, activations and outputs; states are float32 in all of them."""

    name: str
    dtype: np.dtype  # of the arrays
    load: Any  # device functions: a number of an array as float32, and back
    store: Any
    data: int  # cudaDataType, for cuBLAS
    compute: int  # cublasComputeType


NAMES = ("fp32", "tf32", "fp16", "bf16")
LARGEST16 = 65504.0  # of a float16
_FLOAT32, _FLOAT16, _BFLOAT16 = 0, 2, 14
_SUM32, _SUM_TF32 = 68, 77


@njit(inline="always")
def widened(v):
    """A bfloat16, as the bits of a uint16, as float32."""
    return bits_f32(U32(U32(v) << _S16))


@njit(inline="always")
def narrowed(x):
    """A float32 as the bits of the nearest bfloat16, ties to even."""
    w = f32_bits(F32(x))
    rounded = U32(U32(w + _HALF) + U32(U32(w >> _S16) & _ONE))
    return U16(U32(rounded >> _S16)) if x == x else _NAN16


@functools.cache
def of(name: str) -> Format:
    """The format of a precision: "fp32", "tf32" (float32 whose products see 10 bits), "fp16" or "bf16"."""

    @cuda.jit(device=True)
    def same(v):
        return v

    @cuda.jit(device=True)
    def from_half(v):
        return np.float32(v)

    @cuda.jit(device=True)
    def to_half(x):
        return np.float16(x)

    @cuda.jit(device=True)
    def from_bits(v):
        return widened(v)

    @cuda.jit(device=True)
    def to_bits(x):
        return narrowed(x)

    return {
        "fp32": Format("fp32", np.dtype(F32), same, same, _FLOAT32, _SUM32),
        "tf32": Format("tf32", np.dtype(F32), same, same, _FLOAT32, _SUM_TF32),
        "fp16": Format("fp16", np.dtype(np.float16), from_half, to_half, _FLOAT16, _SUM32),
        "bf16": Format("bf16", np.dtype(U16), from_bits, to_bits, _BFLOAT16, _SUM32),
    }[name]


def to_host_format(array: np.ndarray, name: str) -> np.ndarray:
    """An array of float32 in a format, rounded to nearest; infinite where a number is beyond it."""
    array = np.ascontiguousarray(array, np.float32)
    if name == "bf16":
        bits = array.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(U16)
    with np.errstate(over="ignore"):
        return array.astype(of(name).dtype)


def from_host_format(array: np.ndarray, name: str) -> np.ndarray:
    """And back to float32, exactly."""
    if name == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
