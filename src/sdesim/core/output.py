"""An array that is larger than memory, written to a .npy file a block of rows at a time.

The file is made under a partial name beside the target, as long as it will be, so that a disk too small is known before
any work is done (and not by a signal in the middle of it, as memory maps tell). Every block maps its own rows, in
whatever process it is worked on, and lets go of them when it is done. A complete file gets its name by one renaming.
``zarr_output`` does the same with a Zarr group.
"""

import dataclasses
import errno
import io
import math
import os
import pathlib
import shutil
import tempfile
import zlib
from typing import Any, ClassVar, Self

import numpy as np

from . import storage


@dataclasses.dataclass(frozen=True)
class Output:
    """A .npy file to be: the place of an array of this shape and type.

    It is small and can be sent to another process, which writes to the same file.
    """

    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: np.dtype
    suffix: ClassVar[str] = ".npy"

    @classmethod
    def at(
        cls, path: Any, shape: tuple[int, ...], dtype: np.dtype, *, begun: bool = False, **more: Any
    ) -> Self:  # fmt: skip
        """An output at a path given by a user; raises where there is no place for it.

        Where it may have been ``begun`` by an earlier run, it is looked at later.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"out must be a path that ends in .npy or .zarr, got {path!r}")
        target = pathlib.Path(os.fspath(path)).absolute()
        if target.suffix != cls.suffix:
            raise ValueError(f"out must be a path that ends in .npy or .zarr, got {str(path)!r}")
        storage.check_folder(target)
        output = cls(target, shape, np.dtype(dtype), **more)
        if not begun:
            output._check_free()
        output._check_writable()
        return output

    def block(self, size: int) -> int:
        """How many paths are to be worked on at once, where ``size`` would be right without an output."""
        return size

    @property
    def partial(self) -> pathlib.Path:
        """Where the rows are until all of them are there."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def n_bytes(self) -> int:
        """The length of the file."""
        return len(self._prefix(self.shape)) + math.prod(self.shape) * self.dtype.itemsize

    def _check_free(self) -> None:
        if os.path.lexists(self.path):
            raise FileExistsError(
                f"out={str(self.path)!r} exists and is not overwritten; delete it, or give another name"
            )
        if os.path.lexists(self.partial):
            raise FileExistsError(
                f"{self.partial} exists: another run writes it, or one that was interrupted left it; delete it, or "
                "give another name"
            )

    def _check_writable(self) -> None:
        """Known before hours of work: a folder that takes a file. (Asking for permissions is not enough: the whole
        disk may be read-only.)"""
        try:
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            raise type(error)(
                error.errno, f"out={str(self.path)!r} cannot be written ({error.strerror}); write elsewhere"
            ) from None

    def create(self) -> None:
        """Make the partial file, with room on the disk for all of it."""
        self._check_free()
        free = shutil.disk_usage(self.path.parent).free
        if self.n_bytes > free:
            raise self._no_room(free)
        try:
            with open(self.partial, "xb") as file:
                file.write(self._prefix(self.shape))
                file.flush()
                self._reserve(file.fileno())
        except OSError as error:
            if not isinstance(error, FileExistsError):
                self.partial.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise self._no_room(free) from None
            raise

    def reopen(self) -> None:
        """Make the partial file of an earlier run what it was before that ended: as long as all rows, and saying so."""
        with open(self.partial, "rb+") as file:
            self._reserve(file.fileno())
        self.shorten(self.shape[0])

    def _reserve(self, handle: int) -> None:
        """Take the blocks of the disk now: a map of a file with holes would end in SIGBUS where none are left."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(handle, 0, self.n_bytes)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        os.truncate(handle, self.n_bytes)

    def digest(self, path: pathlib.Path, first: int, n: int) -> int | None:
        """A checksum (CRC-32) of rows first … first + n − 1 of a file; None where it has them not."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        with open(path, "rb") as file:
            file.seek(len(self._prefix(self.shape)) + first * row)
            left, found = n * row, 0
            while left:
                data = file.read(min(left, 2**22))
                if not data:
                    return None
                found, left = zlib.crc32(data, found), left - len(data)
        return found

    def rows(self, first: int, n: int) -> np.ndarray:
        """Rows first … first + n − 1, to be written."""
        offset = len(self._prefix(self.shape)) + first * math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            mapped = np.memmap(self.partial, self.dtype, "r+", offset, (n, *self.shape[1:]))
        except FileNotFoundError:
            raise self._not_there() from None
        return mapped.view(np.ndarray)

    def put(self, first: int, rows: np.ndarray) -> None:
        """Keep what was written into ``rows(first, len(rows))``: they are the file's own memory already."""

    def finish(self) -> pathlib.Path:
        """Give the file its name, once all of it is on the disk; the name that it has."""
        with open(self.partial, "rb+") as file:
            os.fsync(file.fileno())
        if os.path.lexists(self.path):
            return self.partial
        os.rename(self.partial, self.path)
        return self.path

    def shorten(self, n: int) -> None:
        """Let the partial file say that it holds n rows; what others may still write behind them does no harm.

        It does not wait for the disk: this is part of the answer to Ctrl-C.
        """
        prefix = self._prefix((n, *self.shape[1:]))
        assert len(prefix) == len(self._prefix(self.shape))  # NumPy leaves room for a longer or a shorter axis 0
        with open(self.partial, "rb+") as file:
            file.write(prefix)

    def opened(self, path: pathlib.Path, n: int) -> np.ndarray:
        """The first n rows of the file, under the name that it has now: a read-only memory map."""
        shape = (n, *self.shape[1:])
        if n == 0:  # there are no empty maps
            return np.zeros(shape, self.dtype)
        return np.memmap(path, self.dtype, "r", len(self._prefix(self.shape)), shape)

    def _prefix(self, shape: tuple[int, ...]) -> bytes:
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        out = io.BytesIO()
        np.lib.format.write_array_header_1_0(out, about)
        return out.getvalue()

    def _not_there(self) -> FileNotFoundError:
        return FileNotFoundError(
            f"{self.partial} is not there for a worker: out= needs a file system that all workers share, and that "
            "nobody deletes from"
        )

    def _no_room(self, free: int) -> OSError:
        return OSError(
            errno.ENOSPC,
            f"the states need {self.n_bytes / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free where {self.path.name} "
            "is to be; save fewer times (save=k), or write elsewhere",
        )
