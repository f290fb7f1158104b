"""Matrix products on a device: one seam, ``product(a, b, out, stream)``, with cuBLAS or a kernel of our own behind it.

cuBLAS is called through its C interface, which is the same in every release since 11: no package in between decides
which type a sum has or where temporary memory comes from, and a call needs nothing that a stream capture forbids.
"""

import contextlib
import ctypes
import functools
import warnings
from typing import Any

import numpy as np

from ..errors import DeviceError
from . import backend
from .backend import cuda
from .formats import Format

_WORKSPACE = 2**25  # bytes; what cuBLAS itself takes for Hopper
_INSTALL = "pip install 'cuda-toolkit[cublas]==13.0.*'"
TILE = 16


@functools.cache
def library() -> Any:
    """The cuBLAS library, or None where there is none."""
    with contextlib.suppress(Exception):
        from cuda.pathfinder import load_nvidia_dynamic_lib  # knows wheels, conda and system installations

        found = load_nvidia_dynamic_lib("cublas")
        return ctypes.CDLL(found.abs_path)
    for name in ("libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


def version() -> str:
    """Of the cuBLAS library."""
    numbers = []
    for part in range(3):
        value = ctypes.c_int()
        library().cublasGetProperty(part, ctypes.byref(value))
        numbers.append(str(value.value))
    return ".".join(numbers)


def described() -> str:
    """The library that multiplies matrices on the device, or how to get it."""
    return f"no cuBLAS ({_INSTALL})" if library() is None else f"cuBLAS {version()}"


def of(form: Format) -> Any:
    """The product for a format: cuBLAS, or the kernel of tiles for float32 where it is missing."""
    if not backend.simulated and library() is not None:
        return Cublas(form)
    if form.name != "fp32":
        where = "the simulator has no cuBLAS" if backend.simulated else f"cuBLAS was not found; {_INSTALL}"
        raise DeviceError(f"precision={form.name!r} needs cuBLAS, and {where}, or give precision='fp32'")
    if not backend.simulated:
        warnings.warn(
            f"cuBLAS was not found, and products run in a kernel ten times slower; {_INSTALL}", RuntimeWarning,
            stacklevel=2,
        )  # fmt: skip
    return Tiled()


class Tiled:
    """Products by the library's own kernel, float32 only; a row has the same bits in any batch."""

    def __init__(self, tile: int = TILE) -> None:
        self.tile = tile

    def __call__(self, a: Any, b: Any, out: Any, stream: Any) -> None:
        from . import network_kernels

        blocks = (-(-out.shape[0] // self.tile), -(-out.shape[1] // self.tile))
        network_kernels.product(self.tile)[blocks, (self.tile, self.tile), stream](a, b, out)


class Cublas:
    """Products by cuBLAS: numbers in the format, sums in float32."""

    def __init__(self, form: Format) -> None:
        self.form, self.library = form, library()
        cuda.current_context()  # cuBLAS works in the context that is current
        self.handle = ctypes.c_void_p()
        self._check(self.library.cublasCreate_v2(ctypes.byref(self.handle)), "cublasCreate")
        # memory of our own, so that no call of cuBLAS allocates while a graph is recorded
        self.workspace = _room()
        self.one, self.zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        self.stream: int | None = None

    def __call__(self, a: Any, b: Any, out: Any, stream: Any) -> None:
        """out = a b, all row by row in memory: for cuBLAS, which counts by columns, outᵀ = bᵀ aᵀ."""
        self._to(int(stream))
        rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
        kind, flat = ctypes.c_int(self.form.data), ctypes.c_int(0)
        c = ctypes.c_int
        status = self.library.cublasGemmEx(
            self.handle, flat, flat, c(columns), c(rows), c(inner), ctypes.byref(self.one),
            _address(b), kind, c(columns), _address(a), kind, c(inner), ctypes.byref(self.zero),
            _address(out), kind, c(columns), c(self.form.compute), c(-1),
        )  # fmt: skip
        self._check(status, "cublasGemmEx")

    def _to(self, stream: int) -> None:
        if stream == self.stream:
            return
        self._check(self.library.cublasSetStream_v2(self.handle, ctypes.c_void_p(stream)), "cublasSetStream")
        place, size = _address(self.workspace), ctypes.c_size_t(_WORKSPACE)
        self._check(self.library.cublasSetWorkspace_v2(self.handle, place, size), "cublasSetWorkspace")
        self.stream = stream

    def _check(self, status: int, call: str) -> None:
        if status == 3:
            raise DeviceError("cuBLAS found no device memory for itself; give a smaller batch")
        if status != 0:
            name = self.library.cublasGetStatusString
            name.restype = ctypes.c_char_p
            raise DeviceError(
                f"{call} failed: {name(status).decode()} (status {status}); sdesim doctor says what is there"
            )

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self.handle:
                self.library.cublasDestroy_v2(self.handle)


def _room() -> Any:
    return cuda.device_array(_WORKSPACE, np.uint8)


def _address(array: Any) -> ctypes.c_void_p:
    """Where an array lies on the device."""
    return ctypes.c_void_p(array.__cuda_array_interface__["data"][0])
