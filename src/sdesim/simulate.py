"""simulate: paths of a process."""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import bind
from .core import blocks, checks, stream
from .core.compile import LANES
from .errors import MemoryLimitError, NonFiniteError
from .integrate import batch, tiles
from .integrate.reductions import Recorder, save_recorder
from .integrate.schemes import Scheme
from .processes.structure import check_structure

ON_NONFINITE = ("raise", "freeze", "ignore")


@dataclasses.dataclass(frozen=True)
class Paths:
    """What a run returns.

    Attributes
    ----------
    t : (n_times,) the recorded times.
    x : (n_paths, n_times[, d]) the states at those times.
    final : (n_paths[, d]) the states at the end.
    reductions : the results of ``reduce``, in the order asked.
    seed : the seed, also where none was given; with it and ``first_path`` every path can be had again.
    success, message : whether all paths came to the end, finite; and if not, what happened.
    """

    t: np.ndarray
    reductions: list[Any]
    seed: int
    first_path: int
    n_paths: int
    method: str
    success: bool
    message: str
    _states: Callable[[], tuple[np.ndarray, np.ndarray]] = dataclasses.field(repr=False)

    @functools.cached_property
    def _stored(self) -> tuple[np.ndarray, np.ndarray]:
        return self._states()

    @property
    def x(self) -> np.ndarray:
        """States at the recorded times; after ``reduce=`` nothing was kept and the run is repeated."""
        return self._stored[0]

    @property
    def final(self) -> np.ndarray:
        """States at the end; after ``reduce=`` nothing was kept and the run is repeated."""
        return self._stored[1]

    def __getstate__(self) -> dict[str, Any]:
        """Pickling takes the states along where they were kept, and never runs anything again."""
        state = dict(self.__dict__)
        if not self.reductions:
            state["_stored"] = self._stored
        state["_states"] = _not_kept
        return state

    def __repr__(self) -> str:
        return (
            f"Paths(n_paths={self.n_paths}, t={self.t[0]:g}..{self.t[-1]:g} ({len(self.t)} times), "
            f"method={self.method!r}, seed={self.seed}, success={self.success})"
        )


def _not_kept() -> tuple[np.ndarray, np.ndarray]:
    raise RuntimeError("these paths came through a file or from another process, and reduce= kept none of them")


def simulate(
    process: Any,
    x0: Any,
    t_span: tuple[float, float],
    *,
    n_steps: int,
    n_paths: int | None = None,
    method: str = "euler_maruyama",
    save: str | int | Sequence[float] = "final",
    reduce: Sequence[Any] | None = None,
    seed: int | None = None,
    dtype: Any = np.float64,
    executor: Any = None,
    workers: int | None = None,
    first_path: int = 0,
    increments: Any = None,
    progress: Any = False,
    on_nonfinite: str = "raise",
) -> Paths:
    """Simulate paths of ``process`` from ``x0`` over ``t_span`` in ``n_steps`` equal steps.

    Parameters
    ----------
    process : a process; its formulas are compiled, unless it is ``batch_only`` (a learned score), which runs in
        whole-array steps.
    x0 : with ``n_paths``, one state (a number, or d of them) or a target to draw from; without, an array whose axis 0
        is the paths.
    method : a name out of ``sdesim.methods()``.
    save : "final"; "all" steps; every k-th step; or a sequence of times on the step grid. ``paths.t`` tells.
    reduce : reductions such as ``[Histogram(-4, 4, 100), Moments()]``, taken at the saved times inside the time loop.
        No path is kept then, so that 10⁸ paths need no memory; ``paths.x`` and ``paths.final`` run again when asked.
    seed : an integer in [0, 2⁶⁴), or None for one from the operating system (recorded in the result). The Wiener path
        of a (seed, path) pair is the same for every process, method and number of paths: two processes run with one
        seed are driven by one Brownian path.
    dtype : float64, or float32 for three times the speed and 7 digits.
    executor, workers : anything with ``submit`` (threads by default) and how many. The result has the same bits for
        any of them.
    first_path : the number of the first path; two runs over [0, n) and [n, 2n) are the halves of one.
    increments : Wiener increments (n_paths, n_steps[, m]) to use in place of the random stream.
    progress : True for a bar, or a function called as progress(done, total).
    on_nonfinite : "raise" a NonFiniteError that names the first bad path, step and time; "freeze" such paths at their
        last finite state; "ignore".

    Returns
    -------
    Paths. After Ctrl-C, the paths that were finished, with ``success=False``.
    """
    run = _prepare(
        process, x0, t_span, n_steps=n_steps, n_paths=n_paths, method=method, save=save, reduce=reduce, seed=seed,
        dtype=dtype, first_path=first_path, increments=increments, on_nonfinite=on_nonfinite,
    )  # fmt: skip
    workers = blocks.check_executor(executor, workers)
    if not isinstance(progress, (bool, np.bool_)) and not callable(progress):
        raise TypeError(f"progress must be True, False or a function progress(done, total), got {progress!r}")
    _warn_of_times(run)
    execute = functools.partial(_execute, executor=executor, workers=workers, progress=progress)
    return _finish(run, execute(run), execute)


# ---- a run, as data -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    """Everything that the work on a block needs, and nothing that a process cannot be sent."""

    process: Any
    scheme: Scheme
    x0: Any  # rows (n, d) or (1, d), or a target
    state_shape: tuple[int, ...]
    n_paths: int
    first_path: int
    t0: float
    t1: float
    n_steps: int
    records: np.ndarray
    reduce: list[Any]
    seed: int
    dtype: np.dtype
    increments: np.ndarray | None
    on_nonfinite: str
    stop: np.ndarray

    @property
    def d(self) -> int:
        """Components of a state."""
        return int(np.prod(self.state_shape, dtype=int))

    @property
    def dt(self) -> float:
        """The step."""
        return (self.t1 - self.t0) / self.n_steps

    @property
    def times(self) -> np.ndarray:
        """The recorded times."""
        times = self.t0 + self.records * self.dt
        return np.where(self.records == self.n_steps, self.t1, times)

    @functools.cached_property
    def compiled(self) -> bind.Compiled:
        """Engine and tile functions, made where the work is done."""
        freeze, given = self.on_nonfinite == "freeze", self.increments is not None
        return bind.compiled(self.process, self.scheme, self.dtype, self.d, freeze=freeze, given=given)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "compiled"}


@dataclasses.dataclass
class Part:
    """What a block of paths leaves behind."""

    final: np.ndarray | None
    saved: np.ndarray | None
    reductions: list[Any]
    n_bad: int
    first_bad: int


def _prepare(
    process: Any, x0: Any, t_span: Any, *, n_steps: Any, n_paths: Any, method: Any, save: Any, reduce: Any, seed: Any,
    dtype: Any, first_path: Any, increments: Any, on_nonfinite: Any,
) -> Run:  # fmt: skip
    if isinstance(process, type):
        name = process.__name__
        raise TypeError(f"process must be a process, and {name} is a class; make one: {name}(...)")
    if not callable(getattr(process, "drift", None)) or not callable(getattr(process, "diffusion", None)):
        raise TypeError(f"process must have drift(x, t) and diffusion(x, t), got {type(process).__name__}")
    t0, t1 = checks.time_span(t_span)
    n_steps = checks.integer("n_steps", n_steps, minimum=1, below=2**33)
    dt = (t1 - t0) / n_steps
    if t0 + dt == t0 or t1 - dt == t1:
        raise ValueError(
            f"n_steps={n_steps} makes steps of {dt:g}, which vanish by rounding beside t = {max(abs(t0), abs(t1)):g}; "
            "take fewer steps, or start the clock nearer to 0"
        )
    kind = checks.dtype(dtype)
    scheme = bind.pick_scheme(process, method)
    on_nonfinite = checks.choice("on_nonfinite", on_nonfinite, ON_NONFINITE)
    seed = checks.seed(seed)
    first_path = checks.integer("first_path", first_path, minimum=0)
    states, state_shape, count = _initial_states(process, x0, n_paths, kind)
    checks.integer("first_path + n_paths", first_path + count, below=2**63)
    records = _record_steps(save, t0, t1, n_steps)
    if reduce is not None and not isinstance(reduce, (list, tuple)):
        raise TypeError(f"reduce must be a list of reductions such as [Moments()], got {reduce!r}")
    reduce = list(reduce or ())
    d = int(np.prod(state_shape, dtype=int))
    for reduction in reduce:
        if isinstance(reduction, type) or not hasattr(reduction, "start") or not hasattr(reduction, "check"):
            raise TypeError(f"reduce must hold reductions such as Histogram or Moments, got {reduction!r}")
        reduction.check(d)
    sample = states.sample(1, seed) if hasattr(states, "sample") else states[:1]
    check_structure(process, _probe(process, np.asarray(sample, float).reshape(d)), t0)
    m = bind.noise_dim(process, d)
    checks.integer("components of the state", max(d, m), below=stream.MAX_COMPONENTS)
    given = None if increments is None else _check_increments(increments, count, n_steps, m, state_shape, kind)
    if not reduce:
        _check_memory(count, len(records), d, kind)
    return Run(
        process, scheme, states, state_shape, count, first_path, t0, t1, n_steps, records, reduce, seed, kind, given,
        on_nonfinite, np.zeros(1, np.uint8),
    )  # fmt: skip


def _probe(process: Any, state: np.ndarray) -> Any:
    """One state as the compiled formulas will see it: numbers, so that branches and ``math`` functions are served."""
    if process.batch_only:
        return bind.process_state(process, state.reshape(1, -1))
    return tuple(state) if process.dim is not None and process.dim >= 2 else state[0]


def _initial_states(process: Any, x0: Any, n_paths: Any, dtype: np.dtype) -> tuple[Any, tuple[int, ...], int]:
    """Rows of initial states (or the target to draw them from), the shape of a state, and the number of paths."""
    dim = process.dim
    count = None if n_paths is None else checks.integer("n_paths", n_paths, minimum=1)
    if hasattr(x0, "sample"):
        if count is None:
            raise ValueError("n_paths must be given when x0 is a target to draw from")
        if dim is not None and x0.dim != dim:
            raise ValueError(f"x0 has dimension {x0.dim}, the process has dimension {dim}")
        process.check_state(x0.sample(1, 0))
        return x0, (() if x0.dim == 1 else (x0.dim,)), count
    states = checks.array("x0", x0)
    wanted = "(d,) or ()" if dim is None else ("() or (1,)" if dim == 1 else f"({dim},)")
    fits = {None: lambda s: True, 1: lambda s: s in ((), (1,))}.get(dim, lambda s: s == (dim,))
    if count is not None and fits(states.shape):
        shape, rows = states.shape, states.reshape(1, -1)
    else:
        if states.ndim == 0:
            raise ValueError("x0 is one state; give n_paths, or an array whose axis 0 is the paths")
        if len(states) == 0:
            raise ValueError("x0 holds no states; it needs at least one path")
        shape, rows = states.shape[1:], states.reshape(len(states), -1)
        if not fits(shape):
            raise ValueError(f"x0 has shape {states.shape}, expected a state of shape {wanted} or (paths, *state)")
        if count is not None and count != len(states):
            raise ValueError(f"x0 holds {len(states)} states, but n_paths is {count}; leave n_paths out")
        count = len(states)
    process.check_state(states)
    if rows.shape[1] == 0:
        raise ValueError(f"x0 has shape {states.shape}: a state needs at least one component")
    assert count is not None
    if abs(rows).max() > np.finfo(dtype).max:
        raise ValueError(f"x0 has a value of {abs(rows).max():g}, too large for {dtype}")
    return np.ascontiguousarray(rows, dtype), shape, count


def _record_steps(save: Any, t0: float, t1: float, n_steps: int) -> np.ndarray:
    if isinstance(save, str):
        save = checks.choice("save", save, ("final", "all"))
        return np.array([n_steps]) if save == "final" else np.arange(n_steps + 1)
    if np.ndim(save) == 0:
        every = checks.integer("save", save, minimum=1)
        steps = np.arange(0, n_steps + 1, every)
        return steps if steps[-1] == n_steps else np.append(steps, n_steps)
    times = checks.array("save", save).ravel()
    if times.size == 0:
        raise ValueError("save holds no times")
    dt = (t1 - t0) / n_steps
    slack = 1e-6 * dt
    for i, time in enumerate(times):
        if not t0 - slack <= time <= t1 + slack:
            raise ValueError(f"save[{i}]={time:g} is outside [{t0:g}, {t1:g}]")
        if i and not time > times[i - 1]:
            raise ValueError(f"save must be strictly increasing; index {i}: {time:g} after {times[i - 1]:g}")
    steps = np.rint((times - t0) / dt)
    off = np.flatnonzero(np.abs(t0 + steps * dt - times) > 1e-6 * dt + 1e-12 * max(abs(t0), abs(t1)))
    if off.size:
        i = int(off[0])
        raise ValueError(
            f"save[{i}]={times[i]:g} is not on the step grid; the nearest step is at {t0 + steps[i] * dt:g} "
            f"(dt = {dt:g}); choose n_steps so that it is"
        )
    return steps.astype(np.int64)


def _check_increments(
    increments: Any, n_paths: int, n_steps: int, m: int, state_shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    given = checks.array("increments", increments)
    if given.shape == (n_paths, n_steps) and m == 1:
        given = given[:, :, None]
    if given.shape != (n_paths, n_steps, *state_shape) and given.shape != (n_paths, n_steps, m):
        expected = f"({n_paths}, {n_steps})" if m == 1 else f"({n_paths}, {n_steps}, {m})"
        raise ValueError(f"increments has shape {given.shape}, expected {expected}: paths, steps, Wiener processes")
    return np.ascontiguousarray(given.reshape(n_paths, n_steps, m), dtype)


def _check_memory(n_paths: int, n_times: int, d: int, dtype: np.dtype) -> None:
    needed = n_paths * (n_times + 1) * d * dtype.itemsize
    free = _available_memory()
    if needed > 0.8 * free:
        raise MemoryLimitError(
            f"{n_paths} paths at {n_times} times need {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; "
            "save fewer times (save=k), or keep statistics only (reduce=[Histogram(...), Moments()])"
        )


def _available_memory() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return float("inf")


# ---- execution ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """The parts of the blocks that were finished, whether these are all, and the states where they were kept."""

    blocks: list[blocks.Block]
    parts: list[Part]
    complete: bool
    final: np.ndarray | None
    saved: np.ndarray | None

    @property
    def n(self) -> int:
        """The number of paths that were finished."""
        return sum(block.size for block in self.blocks)


def _warn_of_times(run: Run) -> None:
    """float32 formulas see float32 times, which far from 0 are coarse against the span."""
    rounding = float(np.spacing(np.float32(max(abs(run.t0), abs(run.t1)))))
    if run.dtype == np.float32 and rounding > 1e-5 * (run.t1 - run.t0) and not run.process.autonomous:
        warnings.warn(
            f"in float32 the times near t = {run.t1:g} are rounded to {rounding:.1g}, and the coefficients depend on "
            "time; use dtype=float64, or a clock that starts at 0",
            UserWarning,
            stacklevel=3,
        )


def _execute(run: Run, *, executor: Any, workers: int, progress: Any) -> Outcome:
    if not run.process.batch_only:
        _ = run.compiled  # compile once, here, where an error is the user's to see
    keep = not run.reduce
    storage: tuple[Any, Any] | None = _storage(run) if keep and executor is None else None
    limit = 65536 if run.reduce else 16384
    size = min(limit, max(LANES, run.n_paths // (4 * workers)))
    plan = blocks.cut(run.first_path, run.n_paths, size)
    parts, complete = blocks.run(
        _work, plan, (run, storage), executor=executor, workers=workers, stop=run.stop, progress=progress
    )
    finished = plan[: len(parts)]
    if keep and storage is None:
        storage = _joined([part.final for part in parts]), _joined([part.saved for part in parts])
    n = sum(block.size for block in finished)
    final, saved = (None, None) if storage is None else (None if a is None else a[:n] for a in storage)
    return Outcome(finished, parts, complete, final, saved)


def _joined(pieces: list[Any]) -> np.ndarray | None:
    return np.concatenate(pieces) if pieces and pieces[0] is not None else None


def _storage(run: Run) -> tuple[np.ndarray, np.ndarray | None]:
    """Room for the final states and, where other times are saved, for those."""
    final = np.empty((run.n_paths, run.d), run.dtype)
    if _final_only(run):
        return final, None
    return final, np.empty((run.n_paths, len(run.records), run.d), run.dtype)


def _final_only(run: Run) -> bool:
    return len(run.records) == 1 and int(run.records[0]) == run.n_steps


def _work(block: blocks.Block, run: Run, storage: tuple[np.ndarray, np.ndarray | None] | None) -> Part:
    """Run one block; with ``storage`` the states are written there, otherwise they are sent back."""
    n, d = block.size, run.d
    rows = slice(block.offset, block.offset + n)
    final, saved = np.empty((n, d), run.dtype), None
    if storage is not None:
        final = storage[0][rows]
        saved = None if storage[1] is None else storage[1][rows]
    elif not run.reduce and not _final_only(run):
        saved = np.empty((n, len(run.records), d), run.dtype)
    if hasattr(run.x0, "sample"):
        x0 = np.ascontiguousarray(run.x0.sample(n, run.seed, first_path=block.first).reshape(n, d), run.dtype)
    else:
        x0 = run.x0 if len(run.x0) == 1 else run.x0[rows]
    increments = None if run.increments is None else run.increments[rows]
    parts = [reduction.start(block, d, len(run.records)) for reduction in run.reduce]
    recorders = [part.recorder(run.dtype) for part in parts]
    step = _step_batch if run.process.batch_only else _step_tiles
    n_bad, first_bad = step(run, block, x0, increments, recorders, final, saved)
    keep = storage is None and not run.reduce
    return Part(final if keep else None, saved if keep else None, parts, n_bad, first_bad)


def _step_tiles(
    run: Run, block: blocks.Block, x0: np.ndarray, increments: Any, recorders: list[Recorder], final: np.ndarray,
    saved: np.ndarray | None,
) -> tuple[int, int]:  # fmt: skip
    if saved is not None:
        recorders = [*recorders, save_recorder(saved)]
    code = run.compiled
    report = np.array([0, -1, 0], np.int64)
    width = max((len(r.slots) for r in recorders), default=1)
    slots = np.zeros((len(recorders), width), np.int64)
    for row, recorder in zip(slots, recorders, strict=True):
        row[: len(recorder.slots)] = recorder.slots
    records = run.records if recorders else np.zeros(0, np.int64)
    given = np.zeros((0, 0, 0), run.dtype) if increments is None else increments
    code.run(
        x0, block.first, block.size, run.t0, run.dt, 0, run.n_steps, run.seed, code.source.address,
        code.parameters, code.addresses, code.flags, given, records,
        np.array([r.address for r in recorders], np.int64), slots, final, run.stop, report,
        *tiles.workspace(run.scheme, run.dtype, run.d, int(code.flags[0]), code.constants),
    )  # fmt: skip
    return int(report[0]), int(report[1])


def _step_batch(
    run: Run, block: blocks.Block, x0: np.ndarray, increments: Any, recorders: list[Recorder], final: np.ndarray,
    saved: np.ndarray | None,
) -> tuple[int, int]:  # fmt: skip
    x = np.repeat(x0, block.size, axis=0) if len(x0) == 1 and block.size > 1 else x0
    feed = [_fed(recorder, block, run.dtype, run.d) for recorder in recorders]

    def record(index: int, states: np.ndarray) -> None:
        if saved is not None:
            saved[:, index] = states
        for give in feed:
            give(index, states)

    x, dead = batch.run(
        run.scheme,
        bind.batch_coefficients(run.process, run.scheme, run.dtype, run.d),
        x,
        first_path=block.first,
        t0=run.t0,
        dt=run.dt,
        n_steps=run.n_steps,
        seed=run.seed,
        noise_dim=bind.noise_dim(run.process, run.d),
        general=run.process.noise == "general",
        increments=increments,
        records=run.records,
        record=record,
        freeze=run.on_nonfinite == "freeze",
        stop=run.stop,
    )
    final[...] = x
    bad = dead | ~np.isfinite(x).all(axis=1)
    return int(bad.sum()), int(np.argmax(bad)) if bad.any() else -1


def _fed(recorder: Recorder, block: blocks.Block, dtype: np.dtype, d: int) -> Callable[[int, np.ndarray], None]:
    """A function that hands rows of states to a compiled recorder, a tile at a time."""
    import ctypes

    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_ssize_t] * 4, ctypes.c_void_p)(recorder.address)
    t = np.zeros(LANES + 1, dtype)
    skip = block.first % LANES

    def give(index: int, states: np.ndarray) -> None:
        for start in range(-skip, len(states), LANES):
            lo, hi = max(0, -start), min(LANES, len(states) - start)
            tile = np.zeros((d, LANES), dtype)
            tile[:, lo:hi] = states[start + lo : start + hi].T
            call(tile.ctypes.data, t.ctypes.data, lo, hi, start, index, recorder.slots.ctypes.data)

    return give


# ---- results --------------------------------------------------------------------------------------------------------


def _finish(run: Run, outcome: Outcome, execute: Callable[[Run], Outcome]) -> Paths:
    n = outcome.n
    n_bad = sum(part.n_bad for part in outcome.parts)
    message = "all paths came to the end"
    if not outcome.complete:
        message = f"interrupted: {n} of {run.n_paths} paths came to the end"
    if n_bad:
        message = _bad_paths(run, outcome, n_bad)
        if run.on_nonfinite == "raise":
            raise NonFiniteError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    reductions = [
        reduction.result([part.reductions[i] for part in outcome.parts], run.times, run.state_shape)
        for i, reduction in enumerate(run.reduce)
        if outcome.parts
    ]

    def kept() -> tuple[np.ndarray, np.ndarray]:
        return _shaped(run, outcome)

    def again() -> tuple[np.ndarray, np.ndarray]:
        policy = "freeze" if run.on_nonfinite == "freeze" else "ignore"
        same = dataclasses.replace(run, reduce=[], n_paths=n, on_nonfinite=policy, stop=np.zeros(1, np.uint8))
        _check_memory(n, len(run.records), run.d, run.dtype)
        repeated = execute(same)
        if not repeated.complete:
            raise KeyboardInterrupt("the paths were being simulated again, because reduce= kept none of them")
        return _shaped(run, repeated)

    return Paths(
        t=run.times, reductions=reductions, seed=run.seed, first_path=run.first_path, n_paths=n,
        method=run.scheme.name, success=outcome.complete and not n_bad, message=message,
        _states=again if run.reduce else kept,
    )  # fmt: skip


def _shaped(run: Run, outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    final = np.zeros((0, run.d), run.dtype) if outcome.final is None else outcome.final
    saved = outcome.saved if outcome.saved is not None else final[:, None]
    n_times = len(run.records) if len(final) else 0
    return saved.reshape(len(final), max(n_times, 1), *run.state_shape), final.reshape(len(final), *run.state_shape)


def _bad_paths(run: Run, outcome: Outcome, n_bad: int) -> str:
    """What to say of non-finite paths: the first one is run again with every step kept."""
    block, part = next((b, p) for b, p in zip(outcome.blocks, outcome.parts, strict=True) if p.n_bad)
    row = block.offset + part.first_bad
    alone = dataclasses.replace(
        run,
        n_paths=1,
        first_path=run.first_path + row,
        x0=run.x0 if hasattr(run.x0, "sample") or len(run.x0) == 1 else run.x0[row : row + 1],
        increments=None if run.increments is None else run.increments[row : row + 1],
        records=np.arange(run.n_steps + 1),
        reduce=[],
        on_nonfinite="ignore",
        stop=np.zeros(1, np.uint8),
    )
    states = _work(blocks.Block(alone.first_path, 1, 0), alone, None).saved
    assert states is not None
    step = int(np.argmax(~np.isfinite(states[0]).all(axis=1)))
    fate = {
        "raise": "; take more steps (dt is {dt:g}), or pass on_nonfinite='freeze' or 'ignore'",
        "freeze": "; they were frozen at their last finite states",
        "ignore": "; they are in the result",
    }[run.on_nonfinite].format(dt=run.dt)
    return (
        f"{n_bad} of {outcome.n} paths became non-finite, first path {run.first_path + row} at step {step} "
        f"(t={run.t0 + step * run.dt:g}){fate}"
    )
