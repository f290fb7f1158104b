"""Files of numbers: arrays and a header, written whole or not at all, read with checks and without pickle.

A file is an npz archive: one ``.npy`` member an array, and a member ``header`` with JSON text that names the kind of
object, its settings, and for every array its dtype, shape and SHA-256. Reading believes nothing: the size of the file,
the number of members, every declared size, dtype and digest is checked before an array is made, so that a damaged or
malicious file gives a ValueError of one line that says what is wrong, and takes little more memory than it has bytes.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import zipfile

FORMAT = "sdesim 1"
MAX_HEADER, MAX_ARRAYS, MAX_BYTES = 2**20, 256, 4 * 2**30
_MAX_LISTING = 2**17  # bytes of an archive's list of members, of which zipfile makes ten times as many
_MAX_MESSAGE = 400
_DTYPES = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}


def write(path: Any, kind: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write ``arrays`` and the JSON-able ``settings`` to ``path``: the old file stays until the new one is complete."""
    target = pathlib.Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file in it")
    check_folder(target)
    try:
        temporary = write_beside(target, kind, settings, arrays)
        try:
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        before = "; the file that was there is as it was" if target.exists() else ""
        raise OSError(error.errno, f"{target} could not be written: {error.strerror}{before}") from None


def check_folder(target: pathlib.Path) -> None:
    """Raise where there is no folder for a file of this name."""
    if not target.parent.exists():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it before writing {target.name}")
    if not target.parent.is_dir():
        raise NotADirectoryError(f"{target.parent} is a file, and no folder that {target.name} could be in")


def write_beside(
    target: pathlib.Path, kind: str, settings: dict[str, Any], arrays: dict[str, np.ndarray], *, wait: bool = True
) -> pathlib.Path:
    """Write a file in the folder of ``target``, which has yet to be moved over it; it is called as ``temporaries`` are.

    The same content has the same bytes. ``wait`` for the disk, so that also a machine that fails has the file.
    """
    import zipfile

    described, members = {}, {}
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, expected one of {', '.join(_DTYPES)}")
        data = np.ascontiguousarray(array, dtype=_DTYPES[array.dtype.name]).reshape(array.shape)  # (), too
        described[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": _digest(data)}
        members[name] = data
    header = json.dumps({"format": FORMAT, "kind": kind, "settings": settings, "arrays": described}, allow_nan=False)
    with _beside(target, wait) as (file, place), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("header"), header)
        for name, data in members.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=data.nbytes >= 2**31) as member:
                np.lib.format.write_array(member, data, version=(1, 0), allow_pickle=False)
    return place


def write_bytes(target: pathlib.Path, data: bytes) -> None:
    """Write any file whole or not at all."""
    with _beside(target, True) as (file, place):
        file.write(data)
    os.replace(place, target)


@contextlib.contextmanager
def _beside(target: pathlib.Path, wait: bool) -> Iterator[tuple[BinaryIO, pathlib.Path]]:
    """A new file in the folder of ``target``, deleted where writing it fails."""
    place = temporary(target)
    file = open(place, "xb")  # noqa: SIM115
    try:
        with file:
            yield file, place
            if wait:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            place.unlink()
        raise


def temporary(target: pathlib.Path) -> pathlib.Path:
    """A name beside ``target`` that nobody has."""
    return target.with_name(f"{target.name}.{secrets.token_hex(4)}.tmp")


def temporaries(target: pathlib.Path) -> list[pathlib.Path]:
    """What writers of ``target`` that were killed have left in its folder."""
    name = re.compile(re.escape(target.name) + r"\.[0-9a-f]{8}\.tmp")
    return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]


def read(path: Any, *, max_bytes: int = MAX_BYTES) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """(kind, settings, arrays) of a file that :func:`write` wrote.

    Raises
    ------
    ValueError
        Where the file is not such a file, is larger than ``max_bytes``, or was changed after it was written.
    """
    import zipfile

    source = pathlib.Path(path)
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{source.name} is no regular file; give the path of a file that sdesim wrote")
    if found.st_size > max_bytes:
        raise ValueError(f"{source.name} has {found.st_size} bytes, more than the limit of {max_bytes}")
    try:
        with _File(source) as file, zipfile.ZipFile(file) as archive:
            file.limit = found.st_size
            return _read(archive, found.st_size)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and not source.exists():
            raise
        raise ValueError(f"{source.name} is not a file of sdesim: {brief(error)}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError, MemoryError, struct.error) as error:
        raise ValueError(f"{source.name} cannot be loaded: {brief(error)}") from None


def brief(error: Exception | str) -> str:
    """What an error over a file says, in one printable line of bounded length: it may quote the file."""
    said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    line = "".join(c if c.isprintable() else " " for c in said[: 2 * _MAX_MESSAGE])
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"


class _File(io.BufferedReader):
    """A file that gives no more than ``limit`` bytes at a time.

    zipfile reads the list of members whole, and members by the sizes that the list claims, and buffers are made for
    what is asked before it is seen how much there is.
    """

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(io.FileIO(path))
        self.limit = _MAX_LISTING

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.limit:
            raise ValueError(f"it asks for {size} bytes at once, more than {self.limit}")
        return super().read(size)


def _read(archive: "zipfile.ZipFile", size: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    entries = archive.infolist()
    if len(entries) > MAX_ARRAYS + 1:
        raise ValueError(f"it has {len(entries)} members, more than {MAX_ARRAYS + 1}")
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) != len(entries):
        raise ValueError("it has two members of one name")
    import zipfile

    if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
        raise ValueError("it holds compressed members, which sdesim never writes")
    # what is claimed would be asked for at once, before it is seen how much there is
    if sum(sizes.values()) > size:
        raise ValueError(f"its members claim {sum(sizes.values())} bytes, and the file has {size}")
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
    prefix = len(member) - n_bytes
    if not _same_prefix(member[:prefix], dtype, shape):
        raise ValueError(f"array {name!r} is not what the header says")
    array = np.frombuffer(member, _DTYPES[dtype], offset=prefix).reshape(shape)
    if _digest(array) != about["sha256"]:
        raise ValueError(f"array {name!r} is not what was written (its digest differs)")
    return array.astype(dtype)


def _same_prefix(found: bytes, dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether bytes are what npy 1.0 puts before such an array, but for padding: compared, and never parsed."""
    stream = io.BytesIO()
    about = {"descr": _DTYPES[dtype], "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    magic, text = stream.getvalue()[:8], stream.getvalue()[10:]
    length = int.from_bytes(found[8:10], "little")
    return found[:8] == magic and length == len(found) - 10 and found[10:].rstrip() == text.rstrip()


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
