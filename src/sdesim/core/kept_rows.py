"""Rows that are worked out a block at a time, in a checkpoint and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .blocks import Block
from .checkpoint import Checkpoint
from .identity import Setting


class KeptRows:
    """The finished blocks of an array (n, *shape), of which each block is the result of its task."""

    def __init__(
        self, checkpoint: Checkpoint, settings: dict[str, Setting], shape: tuple[int, ...], dtype: Any
    ) -> None:  # fmt: skip
        self.checkpoint, self.shape, self.dtype = checkpoint, shape, np.dtype(dtype)
        self._found = checkpoint.begin(settings)
        self._plan: Sequence[Block] = ()
        self._written = -1

    def begin(self, plan: Sequence[Block], place: np.ndarray | None) -> dict[int, np.ndarray]:
        """The blocks that are done, put into ``place`` where there is one."""
        self._plan, arrays = plan, self._found
        self._found = None
        if arrays is None:
            return {}
        numbers, rows = (arrays.get(name, np.zeros((0, 0))) for name in ("blocks", "rows"))
        known = numbers.ndim == 1 and numbers.dtype == np.int64 and (np.diff(numbers) > 0).all()
        if not known or not ((numbers >= 0) & (numbers < len(plan))).all():
            raise self.checkpoint.wrong("blocks that this run has not")
        sizes = [plan[number].size for number in numbers.tolist()]
        if rows.shape != (sum(sizes), *self.shape) or rows.dtype != self.dtype:
            raise self.checkpoint.wrong(f"rows of shape {rows.shape} and type {rows.dtype}")
        found, start = {}, 0
        for number, size in zip(numbers.tolist(), sizes, strict=True):
            block, found[number] = plan[number], rows[start : start + size]
            if place is not None:
                place[block.offset : block.offset + size] = found[number]
                found[number] = place[block.offset : block.offset + size]
            start += size
        self._written = len(found)
        return found

    def keep(self, stop: np.ndarray, results: Mapping[int, Any]) -> None:
        """Write the checkpoint where it is time, and once the flag ``stop`` is up; a result of None is none."""
        done = {number: rows for number, rows in results.items() if rows is not None}
        if stop[0] and len(done) != self._written:
            self._write(done, wait=False)
        elif not stop[0] and self.checkpoint.due():
            self._write(done)

    def finish(self, results: Sequence[Any]) -> None:
        """All blocks are done."""
        if len(results) != self._written:
            self._write(dict(enumerate(results)))

    def _write(self, results: Mapping[int, Any], *, wait: bool = True) -> None:
        numbers = sorted(results)
        rows = [results[number] for number in numbers] or [np.zeros((0, *self.shape), self.dtype)]
        arrays = {"blocks": np.array(numbers, np.int64), "rows": np.concatenate(rows)}
        self._written = len(numbers)  # before a Ctrl-C that waits for the file can be heard
        if not self.checkpoint.write(arrays, wait=wait):
            self._written = -1
