"""Files of numbers: arrays and a header, written whole or not at all, read with checks and without pickle.

A file is an npz archive: one ``.npy`` member an array, and a member ``header`` with JSON text that names the kind of
object, its settings, and for every array its dtype, shape and SHA-256. Reading believes nothing: the size of the file,
the number of members, every declared size, dtype and digest is checked before an array is made, so that a damaged or
malicious file gives a ValueError that says what is wrong.
"""

import hashlib
import io
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import write_atomic

if TYPE_CHECKING:
    import zipfile

FORMAT = "sdesim 1"
MAX_HEADER, MAX_ARRAYS, MAX_BYTES = 2**20, 256, 4 * 2**30
_DTYPES = {"float32": "<f4", "float64": "<f8", "int64": "<i8"}


def write(path: Any, kind: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write ``arrays`` and the JSON-able ``settings`` to ``path``: the old file stays until the new one is complete."""
    import zipfile

    described, members = {}, {}
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, expected one of {', '.join(_DTYPES)}")
        data = np.ascontiguousarray(array, dtype=_DTYPES[array.dtype.name])
        described[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": _digest(data)}
        members[name] = data
    header = json.dumps({"format": FORMAT, "kind": kind, "settings": settings, "arrays": described}, allow_nan=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("header", header)
        for name, data in members.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, data, allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    target = pathlib.Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it before saving {target.name}")
    write_atomic(target, buffer.getvalue())


def read(path: Any, *, max_bytes: int = MAX_BYTES) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """(kind, settings, arrays) of a file that :func:`write` wrote.

    Raises
    ------
    ValueError
        Where the file is not such a file, is larger than ``max_bytes``, or was changed after it was written.
    """
    import zipfile

    source = pathlib.Path(path)
    if source.stat().st_size > max_bytes:
        raise ValueError(f"{source.name} has {source.stat().st_size} bytes, more than the limit of {max_bytes}")
    try:
        with zipfile.ZipFile(source) as archive:
            return _read(archive, max_bytes)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and not isinstance(error, EOFError) and not source.exists():
            raise
        raise ValueError(f"{source.name} is not a file of sdesim: {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{source.name} cannot be loaded: {error}") from None


def _read(archive: "zipfile.ZipFile", max_bytes: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    entries = archive.infolist()
    if len(entries) > MAX_ARRAYS + 1:
        raise ValueError(f"it has {len(entries)} members, more than {MAX_ARRAYS + 1}")
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) != len(entries):
        raise ValueError("it has two members of one name")
    import zipfile

    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(sizes.values()) > max_bytes:
        raise ValueError("it holds compressed or oversized members, which sdesim never writes")
    if "header" not in sizes:
        raise ValueError("it has no header; it is no file of sdesim")
    if sizes["header"] > MAX_HEADER:
        raise ValueError(f"its header has {sizes['header']} bytes, more than {MAX_HEADER}")
    header = json.loads(archive.read("header").decode("utf-8"))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise ValueError(f"its format is {found!r}, expected {FORMAT!r}")
    kind, settings, described = header.get("kind"), header.get("settings"), header.get("arrays")
    if not isinstance(kind, str) or not isinstance(settings, dict) or not isinstance(described, dict):
        raise ValueError("its header is incomplete")
    if {f"{name}.npy" for name in described} | {"header"} != sizes.keys():
        raise ValueError("its members are not those that its header names")
    return kind, settings, {name: _array(archive, name, about) for name, about in described.items()}


def _array(archive: "zipfile.ZipFile", name: str, about: Any) -> np.ndarray:
    dtype, shape = about["dtype"], tuple(about["shape"])
    if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise ValueError(f"array {name!r} is declared as {dtype!r} of shape {shape}")
    n_bytes = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=object))
    member = archive.read(f"{name}.npy")
    if not n_bytes <= len(member) <= n_bytes + 4096:
        raise ValueError(f"array {name!r} has {len(member)} bytes, expected about {n_bytes}")
    # the member's own header is compared with ours before memory is asked for
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"array {name!r} is of another version of the npy format")
    found, by_column, kind = np.lib.format.read_array_header_1_0(stream)
    if found != shape or by_column or kind != np.dtype(_DTYPES[dtype]) or len(member) - stream.tell() != n_bytes:
        raise ValueError(f"array {name!r} is not what the header says")
    array = np.frombuffer(member, kind, offset=stream.tell()).reshape(shape)
    if _digest(array) != about["sha256"]:
        raise ValueError(f"array {name!r} is not what was written (its digest differs)")
    return array.astype(dtype)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
