"""IDX files, the format of MNIST: a magic number, the sizes, and the numbers, in plain or gzipped files.

    bytes 0, 1   zero
    byte 2       the type of number: 8 uint8, 9 int8, 11 int16, 12 int32, 13 float32, 14 float64
    byte 3       the number of axes
    then         a 32-bit size for each axis, and the numbers row by row, all big-endian

Reading believes nothing: at most the declared bytes and one more are ever decompressed.
"""

import contextlib
import gzip
import math
import pathlib
import zlib
from typing import Any, BinaryIO

import numpy as np

MAX_AXES = 8
MAX_BYTES = 2**30
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx(path: Any, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, gzipped or plain, in the machine's byte order.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where the file is no IDX file, is cut short, goes on after its numbers, is damaged, or would need more than
        ``max_bytes`` of memory.
    """
    source = pathlib.Path(path)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(source.open("rb"))
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
        try:
            return _read(stream, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{source.name} is damaged: {error}") from None
        except ValueError as error:
            raise ValueError(f"{source.name} {error}") from None


def _read(stream: BinaryIO, max_bytes: int) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(f"is not an IDX file: it starts with {magic.hex() or 'nothing'}, expected 0000, a type, axes")
    n_axes = magic[3]
    if not 1 <= n_axes <= MAX_AXES:
        raise ValueError(f"declares {n_axes} axes, expected 1 to {MAX_AXES}")
    sizes = stream.read(4 * n_axes)
    if len(sizes) < 4 * n_axes:
        raise ValueError(f"ends within its header, after {4 + len(sizes)} of {4 + 4 * n_axes} bytes")
    shape = tuple(int.from_bytes(sizes[4 * k : 4 * k + 4], "big") for k in range(n_axes))
    kind = np.dtype(_TYPES[magic[2]])
    n_bytes = math.prod(shape) * kind.itemsize
    if n_bytes > max_bytes:
        raise ValueError(f"declares {n_bytes} bytes for shape {shape}, more than the limit max_bytes = {max_bytes}")
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise ValueError(f"ends after {len(data)} of the {n_bytes} bytes that its shape {shape} needs")
    if stream.read(1):
        raise ValueError(f"goes on after the {n_bytes} bytes that its shape {shape} needs")
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="))
