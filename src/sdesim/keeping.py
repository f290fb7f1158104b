"""The finished blocks of a simulation, as arrays in a checkpoint and back.

What a block leaves behind is what a ``Part`` has: the numbers of its reductions, its states where the run keeps them,
or a checksum of the rows that it has written into an output file. The arrays of all blocks are joined along their first
axis. Rows of a file that are not what was written (a machine that failed, a file that somebody changed) are noticed by
their checksum, and simulated again.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .core import identity, storage
from .core.blocks import Block
from .core.checkpoint import Arrays, Checkpoint
from .preparation import Part, Run


def settings(run: Run) -> dict[str, identity.Setting]:
    """What of a run decides its bits."""
    return identity.settings(
        process=run.process, x0=run.x0, n_paths=run.n_paths, first_path=run.first_path, t_span=(run.t0, run.t1),
        n_steps=run.n_steps, method=run.scheme.name, save=run.records, reduce=tuple(run.reduce), seed=run.seed,
        dtype=run.dtype.name, increments=run.increments, boundary=run.walls, tolerances=run.tolerances,
        on_nonfinite=run.on_nonfinite, out=None if run.out is None else run.out.path.name, device=run.device,
    )  # fmt: skip


class Kept:
    """The checkpoint of a simulation.

    Raises
    ------
    TypeError
        For a reduction whose parts do not know themselves as arrays.
    CheckpointError
        Where the file is of another run.
    """

    def __init__(self, checkpoint: Checkpoint, run: Run) -> None:
        for reduction in run.reduce:
            if not callable(getattr(reduction, "restored", None)):
                raise TypeError(
                    f"checkpoint cannot keep a {type(reduction).__name__}, which has no restored(arrays, block, d, "
                    "n_times); give it one, and its parts arrays() (see sdesim.integrate.reductions), or leave "
                    "checkpoint out"
                )
        self._check_size(run)
        self.checkpoint, self.run = checkpoint, run
        self._arrays = checkpoint.begin(settings(run))
        self.placed = self.reopened = False
        self._written = -1
        self._plan: Sequence[Block] = ()
        self._size = 0
        self._states: tuple[Any, Any] | None = None

    def _check_size(self, run: Run) -> None:
        times = 0 if run.reduce else len(run.records) + 1
        n_bytes = run.n_paths * times * run.d * run.dtype.itemsize
        if run.out is None and n_bytes > storage.MAX_BYTES // 2:
            raise ValueError(
                f"a checkpoint would hold states of {n_bytes / 2**30:.3g} GiB each time it is written; let them be "
                "written once, to a file (out='paths.npy'), or keep statistics only (reduce=[Moments()])"
            )

    # ---- reading

    @property
    def block_size(self) -> int | None:
        """The size of the blocks of the run that is gone on from."""
        if self._arrays is None:
            return None
        found = self._arrays.get("block_size")
        if found is None or found.shape != () or not 1 <= int(found) <= 2**40:
            raise self.checkpoint.wrong("no block_size")
        return int(found)

    def begin(self, plan: Sequence[Block], size: int, states: tuple[Any, Any] | None) -> dict[int, Part]:
        """The parts of finished blocks; their states are put into ``states``, where the run keeps them there."""
        self._plan, self._size, self._states = plan, size, states
        arrays, self._arrays = self._arrays, None
        if arrays is None:
            return {}
        try:
            found = self._parts(arrays)
        except (LookupError, TypeError, ValueError, AssertionError) as error:
            raise self.checkpoint.wrong(f"blocks that cannot be gone on from ({error})") from None
        if self.run.out is not None:
            found = self._in_file(found)
        self._written = len(found)
        return found

    def _parts(self, arrays: Arrays) -> dict[int, Part]:
        run, numbers = self.run, [int(number) for number in arrays["blocks"]]
        if sorted(set(numbers)) != numbers or (numbers and not 0 <= numbers[0] <= numbers[-1] < len(self._plan)):
            raise ValueError("their numbers are not those of the plan")
        blocks = [self._plan[number] for number in numbers]
        sizes = [block.size for block in blocks]
        cut = {name: _cut(arrays[name], sizes) for name in ("final", "saved", "counts") if name in arrays}
        for name, kind, shape in (
            ("final", run.dtype, (run.d,)), ("saved", run.dtype, (len(run.records), run.d)),
            ("counts", np.dtype(np.int64), (2,)),
        ):  # fmt: skip
            if name in arrays and (arrays[name].dtype != kind or arrays[name].shape[1:] != shape):
                raise ValueError(f"{name} has shape {arrays[name].shape} and type {arrays[name].dtype}")
        bad, digests = arrays["bad"], arrays.get("digests")
        reductions = [self._reductions(i, arrays, blocks) for i in range(len(run.reduce))]
        found = {}
        for k, (number, block) in enumerate(zip(numbers, blocks, strict=True)):
            final, saved = (cut[name][k] if name in cut else None for name in ("final", "saved"))
            if self._states is not None:
                rows = slice(block.offset, block.offset + block.size)
                for place, given in zip(self._states, (final, saved), strict=True):
                    if place is not None:
                        place[rows] = given
                final = saved = None
            counts = np.ascontiguousarray(cut["counts"][k].T) if "counts" in cut else None
            digest = None if digests is None else int(digests[k])
            parts = [reduced[k] for reduced in reductions]
            found[number] = Part(final, saved, parts, counts, int(bad[k, 0]), int(bad[k, 1]), digest)
        return found

    def _reductions(self, i: int, arrays: Arrays, blocks: list[Block]) -> list[Any]:
        run, prefix = self.run, f"{i}."
        names = [name for name in arrays if name.startswith(prefix) and not name.endswith(".n")]
        pieces = {name.removeprefix(prefix): _cut(arrays[name], arrays[f"{name}.n"].tolist()) for name in names}
        return [
            run.reduce[i].restored({name: cut[k] for name, cut in pieces.items()}, block, run.d, len(run.records))
            for k, block in enumerate(blocks)
        ]

    def _in_file(self, found: dict[int, Part]) -> dict[int, Part]:
        """Those of the blocks whose rows are in the output file; whether that is complete, or is to be gone on with."""
        out = self.run.out
        assert out is not None
        if out.partial.exists() and not found:
            self.reopened = True
            return {}
        if not found or not (out.partial.exists() or out.path.exists()):
            if found:
                said = f"{out.partial} is not there; its states are simulated again"
                warnings.warn(said, RuntimeWarning, stacklevel=6)
            return {}
        path = out.partial if out.partial.exists() else out.path
        blocks = self._plan
        whole = {
            number: part
            for number, part in found.items()
            if out.digest(path, blocks[number].offset, blocks[number].size) == part.digest
        }
        if path == out.path:
            if len(whole) < len(found):
                return {}  # create() says that the file is somebody else's
            self.placed = len(whole) == len(blocks)
            if not self.placed:  # complete, but the checkpoint that said so is lost
                os.rename(out.path, out.partial)
        self.reopened = not self.placed
        if len(whole) < len(found):
            warnings.warn(
                f"{len(found) - len(whole)} of {len(found)} blocks in {path.name} are not what was written; they are "
                "simulated again",
                RuntimeWarning,
                stacklevel=6,
            )
        return whole

    # ---- writing

    def start(self) -> None:
        """The output file has been made: from now on it is this run's, however soon that ends."""
        self._write({})

    def keep(self, results: Mapping[int, Part]) -> None:
        """Write the checkpoint where it is time, and at an interruption."""
        stopped = bool(self.run.stop[0])
        if (stopped and len(results) != self._written) or self.checkpoint.due():
            self._write(results, wait=not stopped)

    def finish(self, parts: Sequence[Part]) -> None:
        """All blocks are done."""
        if len(parts) != self._written:
            self._write(dict(enumerate(parts)))

    def _write(self, results: Mapping[int, Part], *, wait: bool = True) -> None:
        numbers = sorted(results)
        parts = [results[number] for number in numbers]
        arrays: Arrays = {
            "block_size": np.array(self._size), "blocks": np.array(numbers, np.int64),
            "bad": np.array([(part.n_bad, part.first_bad) for part in parts], np.int64).reshape(-1, 2),
        }  # fmt: skip
        if self._states is not None:
            arrays |= self._rows(numbers)
        for name in ("final", "saved"):
            if parts and getattr(parts[0], name) is not None:
                arrays[name] = np.concatenate([getattr(part, name) for part in parts])
        if parts and parts[0].counts is not None:
            arrays["counts"] = np.concatenate([part.counts.T for part in parts if part.counts is not None])
        if parts and parts[0].digest is not None:
            arrays["digests"] = np.array([part.digest for part in parts], np.int64)
        for i in range(len(self.run.reduce)):
            pieces = [part.reductions[i].arrays() for part in parts]
            for name in pieces[0] if pieces else ():
                arrays[f"{i}.{name}"] = np.concatenate([piece[name] for piece in pieces])
                arrays[f"{i}.{name}.n"] = np.array([len(piece[name]) for piece in pieces], np.int64)
        self._written = len(results)  # before a Ctrl-C that waits for the file can be heard
        if not self.checkpoint.write(arrays, wait=wait):
            self._written = -1

    def _rows(self, numbers: list[int]) -> Arrays:
        """The states of the finished blocks, out of the room that the run keeps them in."""
        assert self._states is not None
        found = {}
        for name, place in zip(("final", "saved"), self._states, strict=True):
            if place is not None:
                blocks = [self._plan[number] for number in numbers]
                rows = [place[block.offset : block.offset + block.size] for block in blocks]
                found[name] = np.concatenate(rows) if rows else place[:0]
        return found


def _cut(array: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The pieces of these lengths; ValueError where the lengths are not those of the array."""
    if sum(sizes) != len(array) or min(sizes, default=0) < 0:
        raise ValueError(f"an array of {len(array)} rows is cut into {sum(sizes)}")
    return np.split(array, np.cumsum(sizes)[:-1]) if sizes else []
