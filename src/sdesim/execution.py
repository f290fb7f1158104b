"""Running a prepared run: blocks of paths on an executor, each through the tile engine or the whole-array engine."""

import contextlib
import ctypes
import dataclasses
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from . import bind
from .core import blas, blocks
from .core.compile import LANES
from .errors import NonFiniteError
from .integrate import adaptive, batch, tiles
from .integrate.reductions import Recorder, save_recorder
from .keeping import Kept
from .preparation import Part, Run, prepare


@dataclasses.dataclass
class Outcome:
    """The parts of the blocks that were finished, whether these are all, and the states where they were kept."""

    blocks: list[blocks.Block]
    parts: list[Part]
    complete: bool
    final: np.ndarray | None
    saved: np.ndarray | None
    placed: bool = False  # the output file was complete, under its name, before

    @property
    def n(self) -> int:
        """The number of paths that were finished."""
        return sum(block.size for block in self.blocks)


def final_states(
    process: Any, x0: Any, t_span: tuple[float, float], n_steps: int, n_paths: int, *, method: str, seed: int,
    first_path: int, dtype: Any = np.float64, coarsen: int = 1, swap: bool = False, executor: Any = None,
    workers: int | None = None,
) -> np.ndarray:  # fmt: skip
    """The final states (n, d) of a run on the Brownian paths of ``coarsen`` times as many steps.

    Each step takes the sum of ``coarsen`` consecutive increments of the stream's finer grid; ``swap`` exchanges the
    first and the second of each pair of them, as antithetic multilevel estimators do.
    """
    run = prepare(
        process, x0, t_span, n_steps=n_steps, n_paths=n_paths, method=method, save="final", reduce=None, seed=seed,
        dtype=dtype, first_path=first_path, increments=None, boundary=None, rtol=None, atol=None, on_nonfinite="raise",
    )  # fmt: skip
    if run.scheme.space_time or run.scheme.law_only or run.scheme.adaptive or run.process.batch_only:
        raise ValueError(f"{run.scheme.name} cannot run on the sums of finer increments")
    if swap and n_steps * coarsen % 2:
        raise ValueError(f"swap exchanges pairs of increments, and {n_steps * coarsen} of them make no whole pairs")
    run.coarsen, run.swap = coarsen, swap
    outcome = execute(run, executor=executor, workers=blocks.check_executor(executor, workers), progress=False)
    if not outcome.complete:
        raise KeyboardInterrupt
    if any(part.n_bad for part in outcome.parts):
        n_bad = sum(part.n_bad for part in outcome.parts)
        raise NonFiniteError(f"{n_bad} of {n_paths} paths of {method} became non-finite; take more steps")
    assert outcome.final is not None
    return outcome.final


def warn_of_times(run: Run) -> None:
    """float32 formulas see float32 times, which far from 0 are coarse against the span."""
    rounding = float(np.spacing(np.float32(max(abs(run.t0), abs(run.t1)))))
    if run.dtype == np.float32 and rounding > 1e-5 * (run.t1 - run.t0) and not run.process.autonomous:
        warnings.warn(
            f"in float32 the times near t = {run.t1:g} are rounded to {rounding:.1g}, and the coefficients depend on "
            "time; use dtype=float64, or a clock that starts at 0",
            UserWarning,
            stacklevel=3,
        )


def execute(run: Run, *, executor: Any, workers: int, progress: Any, kept: Kept | None = None) -> Outcome:
    """Run all blocks, but for those that a checkpoint has; the parts in their order."""
    if run.device != "cpu":
        workers = 1
    elif not run.process.batch_only:
        _ = run.compiled  # compile once, here, where an error is the user's to see
    keep = not run.reduce and run.out is None
    storage: tuple[Any, Any] | None = _storage(run) if keep and executor is None else None
    size = block_size(run, workers) if kept is None else kept.block_size or block_size(run, workers)
    plan = blocks.cut(run.first_path, run.n_paths, size if run.out is None else run.out.block(size))
    found = {} if kept is None else kept.begin(plan, size, storage)
    placed = kept is not None and kept.placed
    if run.out is not None and not placed:
        if kept is not None and kept.reopened:
            run.out.reopen()
        else:
            run.out.create()
            if kept is not None:
                kept.start()
    # held to the end: every change of the number of threads wakes those of the library, and they spin for a while
    alone = blas.single_threaded() if run.process.batch_only else contextlib.nullcontext()
    try:
        with alone:
            parts, complete = blocks.run(
                work, plan, (run, storage), executor=executor, workers=workers, stop=run.stop, progress=progress,
                found=found, keep=None if kept is None else kept.keep,
            )  # fmt: skip
    except BaseException as error:
        if run.out is not None:
            error.add_note(f"what was written of {run.out.path.name} is in {run.out.partial}")
        raise
    if kept is not None and complete:
        kept.finish(parts)
    finished = plan[: len(parts)]
    if storage is None and (keep or run.out is not None):
        storage = _joined([part.final for part in parts]), _joined([part.saved for part in parts])
    n = sum(block.size for block in finished)
    final, saved = (None, None) if storage is None else (None if a is None else a[:n] for a in storage)
    return Outcome(finished, parts, complete, final, saved, placed)


def block_size(run: Run, workers: int) -> int:
    """Paths of a block; nothing depends on it but how soon a block is done.

    A block is small enough for cores to end together, for its states to be few, and for an interruption, or the loss
    of its worker, to cost little: some tenths of a second in compiled steps, seconds where the steps are in Python.
    """
    if run.device != "cpu":
        return _device_block(run)
    states = not _final_only(run) and (run.out is not None or not run.reduce)
    limit = 16384 if states else 65536
    shares = 1 if workers == 1 else 4 * workers
    steps = (2**22 if run.process.batch_only else 2**26) // (run.n_steps * run.d)
    return max(LANES, min(limit, run.n_paths // shares, steps))


def _joined(pieces: list[Any]) -> np.ndarray | None:
    return np.concatenate(pieces) if pieces and pieces[0] is not None else None


def _storage(run: Run) -> tuple[np.ndarray, np.ndarray | None]:
    """Room for the final states and, where other times are saved, for those."""
    final = np.empty((run.n_paths, run.d), run.dtype)
    if _final_only(run):
        return final, None
    return final, np.empty((run.n_paths, len(run.records), run.d), run.dtype)


def _final_only(run: Run) -> bool:
    return len(run.records) == 1 and run.ends


def work(block: blocks.Block, run: Run, storage: tuple[np.ndarray, np.ndarray | None] | None) -> Part:
    """Run one block; with ``storage`` or an output file the states are written there, otherwise they are sent back."""
    n, d = block.size, run.d
    rows = slice(block.offset, block.offset + n)
    final, saved = np.empty((n, d), run.dtype), None
    if run.out is not None:
        place = run.out.rows(block.offset, n)
        states_of_all = place.reshape(n, len(run.records), d)
        final, saved = (states_of_all[:, 0], None) if _final_only(run) else (final, states_of_all)
    elif storage is not None:
        final = storage[0][rows]
        saved = None if storage[1] is None else storage[1][rows]
    elif not run.reduce and not _final_only(run):
        saved = np.empty((n, len(run.records), d), run.dtype)
    if hasattr(run.x0, "sample"):
        x0 = np.ascontiguousarray(run.x0.sample(n, run.seed, first_path=block.first).reshape(n, d), run.dtype)
        if run.walls is not None:
            run.walls.check(d, x0)
    else:
        x0 = run.x0 if len(run.x0) == 1 else run.x0[rows]
    increments = None if run.increments is None else run.increments[rows]
    parts = [reduction.start(block, d, len(run.records)) for reduction in run.reduce]
    recording = [part for part in parts if not hasattr(part, "watcher")]
    # passages are seen before a wall folds, wraps or holds the path
    watching = [part for part in parts if hasattr(part, "watcher")]
    watchers = [part.watcher(run.dtype, run.context) for part in watching] if run.device == "cpu" else []
    watchers += [] if run.walls is None else [run.walls.watcher(run.dtype, run.context)]
    counts = np.zeros((2, n if run.scheme.counts else 0), np.int64)
    task = _Task(block, x0, increments, recording, watching, watchers, counts, final, saved)
    engine = _step_device if run.device != "cpu" else _step_batch if run.process.batch_only else _step_tiles
    n_bad, first_bad = engine(run, task)
    for part in parts:
        if hasattr(part, "close"):
            part.close()
    if run.out is not None and not run.stop[0]:
        run.out.put(block.offset, place)
    keep = storage is None and not run.reduce and run.out is None
    end = keep or (run.out is not None and not run.ends)
    digest = zlib.crc32(place.data) if run.sealed else None
    return Part(
        final if end else None, saved if keep else None, parts, counts if run.scheme.counts else None, n_bad, first_bad,
        digest,
    )  # fmt: skip


@dataclasses.dataclass
class _Task:
    """One block on its way through an engine: what goes in, and the arrays that are filled."""

    block: blocks.Block
    x0: np.ndarray
    increments: np.ndarray | None
    recording: list[Any]
    watching: list[Any]
    watchers: list[Recorder]
    counts: np.ndarray
    final: np.ndarray
    saved: np.ndarray | None


def _step_tiles(run: Run, task: _Task) -> tuple[int, int]:
    block, recorders = task.block, [part.recorder(run.dtype) for part in task.recording]
    if task.saved is not None:
        recorders = [*recorders, save_recorder(task.saved)]
    code = run.compiled
    report = np.array([0, -1, 0], np.int64)
    records = run.records if recorders else np.zeros(0, np.int64)
    given = np.zeros((0, 0, 0), run.dtype) if task.increments is None else task.increments
    if run.scheme.adaptive:
        code.run(
            task.x0, block.first, block.size, run.t0, run.dt, run.n_steps, run.seed, code.source.address,
            *run.tolerances, run.on_nonfinite == "freeze", code.parameters, code.addresses, code.flags, records,
            _addresses(recorders), _slots(recorders), task.final, run.stop, report, task.counts,
            *adaptive.workspace(run.scheme, run.dtype, run.d, run.noise_dim, run.n_steps, run.dt, code.constants),
        )  # fmt: skip
        return int(report[0]), int(report[1])
    memory = tiles.workspace(run.scheme, run.dtype, run.d, run.noise_dim, run.general, code.constants, run.variant)
    code.run(
        task.x0, block.first, block.size, run.t0, run.dt, 0, run.n_steps, run.seed, code.source.address,
        code.parameters, code.addresses, code.flags, given, np.array([run.coarsen, run.swap], np.int64), run.landings,
        records, _addresses(recorders), _slots(recorders), _addresses(task.watchers), _slots(task.watchers),
        task.final, run.stop, report, task.counts, *memory.arrays,
    )  # fmt: skip
    return int(report[0]), int(report[1])


def _addresses(recorders: list[Recorder]) -> np.ndarray:
    return np.array([r.address for r in recorders], np.int64)


def _slots(recorders: list[Recorder]) -> np.ndarray:
    width = max((len(r.slots) for r in recorders), default=1)
    slots = np.zeros((len(recorders), width), np.int64)
    for row, recorder in zip(slots, recorders, strict=True):
        row[: len(recorder.slots)] = recorder.slots
    return slots


def _step_batch(run: Run, task: _Task) -> tuple[int, int]:
    block = task.block
    x = np.repeat(task.x0, block.size, axis=0) if len(task.x0) == 1 and block.size > 1 else task.x0
    feed = [_fed(part, block, run) for part in task.recording]
    watch = [_watching(watcher, block, run) for watcher in task.watchers]

    def record(index: int, states: np.ndarray) -> None:
        if task.saved is not None:
            task.saved[:, index] = states
        for give in feed:
            give(index, states)

    def look(step: int, before: np.ndarray, states: np.ndarray, g: np.ndarray) -> None:
        for give in watch:
            give(step, before, states, g)

    x, dead = batch.run(
        run.scheme,
        bind.batch_coefficients(run.process, run.scheme, run.dtype, run.d),
        x,
        first_path=block.first,
        t0=run.t0,
        dt=run.dt,
        n_steps=run.n_steps,
        seed=run.seed,
        noise_dim=run.noise_dim,
        general=run.general,
        increments=task.increments,
        records=run.records,
        record=record,
        look=look if watch else None,
        freeze=run.on_nonfinite == "freeze",
        counts=task.counts,
        stop=run.stop,
    )
    task.final[...] = x
    bad = dead | ~np.isfinite(x).all(axis=1)
    return int(bad.sum()), int(np.argmax(bad)) if bad.any() else -1


def _device_block(run: Run) -> int:
    from .cuda import paths

    kept = 0 if _final_only(run) and not run.reduce else len(run.records)
    return paths.block_size(run.n_paths, kept, run.n_steps, run.d, run.dtype.itemsize)


def _step_device(run: Run, task: _Task) -> tuple[int, int]:
    from .cuda import paths, reductions

    if run.stop[0]:
        return 0, -1
    block = task.block
    takes = reductions.all_taken(task.recording, run.dtype)
    # what the kernel has no form for is fed with the states of the recorded times, as they come back
    feed = [_fed(part, block, run) for part, one in zip(task.recording, takes, strict=True) if one is None]
    taken = [one for one in takes if one is not None]
    scalar, clock = run.model.scalar, (run.t0, run.dt, run.n_steps)
    taken += [reductions.passed(part, run.d, scalar, clock) for part in task.watching]
    spec = run.passage
    states = paths.run(
        run.model, task.x0, block.first, block.size, t0=run.t0, dt=run.dt, n_steps=run.n_steps, seed=run.seed,
        records=run.records, landings=run.landings, save=task.saved is not None or bool(feed),
        takes=taken, levels=(0.0, 0.0, False) if spec is None else (spec.lower, spec.upper, spec.bridge),
        keep=not run.reduce or run.out is not None,
    )  # fmt: skip
    if states.saved is not None:
        if task.saved is not None:
            task.saved[...] = states.saved
        for give in feed:
            for index in range(len(run.records)):
                give(index, states.saved[:, index])
    if states.final is not None:
        task.final[...] = states.final
    return states.n_bad, states.first_bad


def _fed(part: Any, block: blocks.Block, run: Run) -> Callable[[int, np.ndarray], None]:
    """A function that hands rows of states to a part's compiled recorders, one for each tile, as a tile engine does."""
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_ssize_t] * 4, ctypes.c_void_p)
    times, t = run.times, np.zeros(LANES + 1, run.dtype)
    tile = np.zeros((run.d, LANES), run.dtype)
    leaves = []
    for start in range(-(block.first % LANES), block.size, LANES):
        recorder = part.recorder(run.dtype)  # a leaf's own, as some remember the states of earlier times
        leaves.append((start, recorder, kind(recorder.address)))

    def give(index: int, states: np.ndarray) -> None:
        t[:] = times[index]
        for start, recorder, call in leaves:
            lo, hi = max(0, -start), min(LANES, block.size - start)
            tile[:, lo:hi] = states[start + lo : start + hi].T
            call(tile.ctypes.data, t.ctypes.data, lo, hi, start, index, recorder.slots.ctypes.data)

    return give


def _watching(watcher: Recorder, block: blocks.Block, run: Run) -> Callable[..., None]:
    """A function that hands the states before and after a step to a compiled watcher, a tile at a time."""
    call = ctypes.CFUNCTYPE(
        None, *[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 4, *[ctypes.c_uint64] * 2, ctypes.c_void_p
    )(watcher.address)
    skip, n, d = block.first % LANES, block.size, run.d
    rows = d * run.noise_dim if run.general else d
    before, after, g = (np.zeros((k, LANES), run.dtype) for k in (d, d, rows))

    def give(step: int, start: np.ndarray, states: np.ndarray, noise: np.ndarray) -> None:
        for first in range(-skip, n, LANES):
            lo, hi = max(0, -first), min(LANES, n - first)
            part = slice(first + lo, first + hi)
            before[:, lo:hi], after[:, lo:hi] = start[part].T, states[part].T
            g[:, lo:hi] = noise[part].reshape(hi - lo, -1).T
            path = block.first + first
            call(before.ctypes.data, after.ctypes.data, g.ctypes.data, lo, hi, first, step, path, run.seed,
                 watcher.slots.ctypes.data)  # fmt: skip
            states[part] = after[:, lo:hi].T

    return give
