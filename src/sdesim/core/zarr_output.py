"""States larger than memory in a Zarr group: an array ``x``, its ``time``, and attributes that tell what was run.

A chunk is written by one worker: blocks of paths are whole rows of chunks, so that nobody waits for a lock, and a store
may lie wherever all workers see it. Numbers of random paths do not compress, and are written as they are. As with a
``.npy`` file the group has a partial name until it is complete; the extra ``sdesim[zarr]`` brings what it needs.
"""

import dataclasses
import json
import math
import os
import pathlib
import shutil
import zlib
from typing import Any, ClassVar

import numpy as np

from .blocks import LEAF
from .cache import write_atomic
from .output import Output

_MOST_BYTES, _MOST_ROWS = 2**24, 2**14  # of a chunk


@dataclasses.dataclass(frozen=True)
class ZarrOutput(Output):
    """A Zarr group to be: the place of the states (path, time[, component]) of the paths from ``first_path``."""

    times: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    first_path: int = 0
    suffix: ClassVar[str] = ".zarr"

    def __post_init__(self) -> None:
        try:
            import zarr  # noqa: F401
        except ImportError:
            raise ImportError(
                f"out={self.path.name!r} needs zarr; install it by pip install 'sdesim[zarr]', or write a .npy file"
            ) from None
        if self.first_path % LEAF:
            raise ValueError(
                f"first_path={self.first_path} is no multiple of {LEAF}, and chunks of a Zarr group hold whole groups "
                f"of {LEAF} paths; start at {self.first_path // LEAF * LEAF}, or write a .npy file"
            )

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of a chunk: a power of two of rows, of all times unless 256 paths alone are too much."""
        n_paths, n_times, *state = self.shape
        row = max(1, n_times * math.prod(state) * self.dtype.itemsize)
        most = min(_MOST_BYTES // row, _MOST_ROWS, n_paths // 8)
        rows = max(LEAF, 1 << max(0, most.bit_length() - 1))
        while self.first_path % rows:
            rows //= 2
        times = max(1, min(n_times, n_times * _MOST_BYTES // (rows * row)))
        return rows, times, *state

    @property
    def n_bytes(self) -> int:
        """The length of all chunks; those at the end are as long as the others."""
        whole = (-(-n // c) * c for n, c in zip(self.shape, self.chunks, strict=True))
        return math.prod(whole) * self.dtype.itemsize

    def block(self, size: int) -> int:
        """The rows of a chunk: a block is held in memory until it is written."""
        return self.chunks[0]

    def create(self) -> None:
        """Make the group under its partial name, with everything but the states."""
        import zarr

        self._check_free()
        free = shutil.disk_usage(self.path.parent).free
        if self.n_bytes > free:
            raise self._no_room(free)
        os.mkdir(self.partial)  # which one of two runs alone can
        group = zarr.create_group(str(self.partial), attributes=self.about)
        names = ("path", "time", *component_names(len(self.shape) - 2))
        group.create_array(
            "x", shape=self.shape, chunks=self.chunks, dtype=self.dtype, compressors=None, fill_value=float("nan"),
            dimension_names=names,
        )  # fmt: skip
        group.create_array("time", data=self.times, compressors=None, dimension_names=("time",))

    def reopen(self) -> None:
        """Let the partial group of an earlier run say that it holds all paths, as it did before that ended."""
        self.shorten(self.shape[0])

    def digest(self, path: pathlib.Path, first: int, n: int) -> int | None:
        """A checksum (CRC-32) of rows first … first + n − 1 of a group; None where it has them not."""
        array = self.opened(path, self.shape[0])
        return None if array.shape[0] < first + n else zlib.crc32(np.ascontiguousarray(array[first : first + n]).data)

    def rows(self, first: int, n: int) -> np.ndarray:
        """Room for rows first … first + n − 1, which ``put`` writes."""
        return np.empty((n, *self.shape[1:]), self.dtype)

    def put(self, first: int, rows: np.ndarray) -> None:
        """Write rows first, first + 1, …: whole chunks, that no other block has a part of."""
        import zarr

        last = first + len(rows)
        if first % self.chunks[0] or (last % self.chunks[0] and last != self.shape[0]):
            raise RuntimeError(f"rows {first} to {last} are not whole chunks of {self.chunks[0]}")
        if not self.partial.is_dir():
            raise self._not_there()
        array = zarr.open_array(str(self.partial / "x"), mode="r+")
        array[first:last] = rows

    def finish(self) -> pathlib.Path:
        """Give the group its name; the name that it has."""
        if os.path.lexists(self.path):
            return self.partial
        os.rename(self.partial, self.path)
        return self.path

    def shorten(self, n: int) -> None:
        """Let the partial group say that it holds n paths; chunks that others may still write behind do no harm."""
        about = self.partial / "x" / "zarr.json"
        described = json.loads(about.read_text(encoding="utf-8"))
        described["shape"][0] = n
        write_atomic(about, json.dumps(described, indent=2).encode())

    def opened(self, path: pathlib.Path, n: int) -> Any:
        """The array under the name that it has now: a ``zarr.Array``, which reads what is asked of it."""
        import zarr

        return zarr.open_array(str(path / "x"), mode="r")


def component_names(n: int) -> list[str]:
    """The names of the axes of a state."""
    return ["component"] if n == 1 else [f"component_{i}" for i in range(n)]
