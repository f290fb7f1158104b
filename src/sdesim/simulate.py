"""simulate: paths of a process."""

import contextlib
import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core import blocks, checks
from .core.checkpoint import Checkpoint
from .core.output import Output
from .core.zarr_output import component_names
from .errors import NonFiniteError
from .execution import Outcome, execute, warn_of_times, work
from .integrate import adaptive
from .keeping import Kept
from .preparation import Run, check_memory, prepare
from .processes.base import Process
from .processes.plain import PlainProcess


@dataclasses.dataclass(frozen=True)
class Paths:
    """What a run returns.

    Attributes
    ----------
    t : (n_times,) the recorded times.
    x : (n_paths, n_times[, d]) the states at those times; with ``out=`` a map of the file, to be read only.
    final : (n_paths[, d]) the states at the end.
    reductions : the results of ``reduce``, in the order asked.
    seed : the seed, also where none was given; with it and ``first_path`` every path can be had again.
    law_only : whether only the law of the states means something: a weak scheme's paths follow no Brownian path.
    steps_taken, steps_rejected : (n_paths,) for methods that may reject a step: adaptive ones, and ``mala``, whose
        rejected proposals count; None for others.
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
    law_only: bool
    steps_taken: np.ndarray | None
    steps_rejected: np.ndarray | None
    _states: Callable[[], tuple[Any, Any]] = dataclasses.field(repr=False)
    _run: Run | None = dataclasses.field(repr=False)

    @functools.cached_property
    def _stored(self) -> tuple[Any, Any]:
        return self._states()

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """What the run was made of, in texts and numbers; files and labelled arrays carry it."""
        assert self._run is not None
        return self._run.attributes

    @property
    def x(self) -> Any:
        """States at the recorded times; after ``reduce=`` nothing was kept and the run is repeated."""
        return self._stored[0]

    @property
    def final(self) -> np.ndarray:
        """States at the end; after ``reduce=`` nothing was kept and the run is repeated."""
        x, final = self._stored
        return x[:, -1] if final is None else final

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` of the states ``x`` (path, time[, component]), with ``attributes``.

        States in a file are read when they are used. Needs the extra ``sdesim[xarray]``.
        """
        try:
            import xarray
        except ImportError:
            raise ImportError("to_xarray() needs xarray; install it by pip install 'sdesim[xarray]'") from None
        path = ("path", self.first_path + np.arange(self.n_paths))
        if not isinstance(self._states, _InFile) or isinstance(self.x, np.ndarray):
            names = ("path", "time", *component_names(self.x.ndim - 2))
            data = xarray.Dataset({"x": (names, self.x)}, {"time": ("time", self.t)}, self.attributes)
        else:
            data = xarray.open_zarr(str(self._states.path), chunks=None, consolidated=False)
        return data.assign_coords(path=path)

    def __getstate__(self) -> dict[str, Any]:
        """Pickling takes the states along where they were kept, or the place of their file; nothing is run again."""
        state = {**self.__dict__, "attributes": self.attributes, "_run": None}
        if isinstance(self._states, _InFile):
            state.pop("_stored", None)
            return state
        if not self.reductions:
            state["_stored"] = self._stored
        state["_states"] = _not_kept
        return state

    def __repr__(self) -> str:
        return (
            f"Paths(n_paths={self.n_paths}, t={self.t[0]:g}..{self.t[-1]:g} ({len(self.t)} times), "
            f"method={self.method!r}{' (law only)' * self.law_only}, seed={self.seed}, success={self.success})"
        )


@dataclasses.dataclass(frozen=True)
class _InFile:
    """The states of the first n paths, in a file; and those at the end, where the file has them not."""

    out: Output
    path: pathlib.Path
    n: int
    final: np.ndarray | None

    def __call__(self) -> tuple[Any, np.ndarray | None]:
        return self.out.opened(self.path, self.n), self.final


def _not_kept() -> tuple[np.ndarray, np.ndarray]:
    raise RuntimeError("these paths came through a file or from another process, and reduce= kept none of them")


def simulate(
    process: Any,
    x0: Any,
    t_span: tuple[float, float],
    *,
    n_steps: int | None = None,
    n_paths: int | None = None,
    method: str = "euler_maruyama",
    save: str | int | Sequence[float] = "final",
    reduce: Sequence[Any] | None = None,
    out: Any = None,
    seed: int | None = None,
    dtype: Any = np.float64,
    device: str = "cpu",
    executor: Any = None,
    workers: int | None = None,
    first_path: int = 0,
    increments: Any = None,
    boundary: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    progress: Any = False,
    checkpoint: Any = None,
    on_nonfinite: str = "raise",
    debug: bool = False,
) -> Paths:
    """Simulate paths of ``process`` from ``x0`` over ``t_span`` in ``n_steps`` equal steps, or in steps of their own.

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
    out : a path that ends in ``.npy`` or ``.zarr``, for states that are larger than memory: they are written there,
        block by block, and ``paths.x`` is a memory map of the file (``numpy.load(path, mmap_mode="r")`` is another) or
        the ``zarr.Array`` of the group (the extra ``sdesim[zarr]``; first_path must then be a multiple of 256). With
        ``reduce`` as well, both are had in one run. Until all is there the name is ``….npy.partial``; after Ctrl-C,
        which leaves it the finished paths, or an error it stays so, and the message says it. What exists is refused,
        and so is a disk without room for all. Executors of processes must share the file system.
    seed : an integer in [0, 2⁶⁴), or None for one from the operating system (recorded in the result). The Wiener path
        of a (seed, path) pair is the same for every process, method and number of paths: two processes run with one
        seed are driven by one Brownian path.
    dtype : float64, or float32 for three times the speed and 7 digits.
    device : "cpu", or "cuda" for an NVIDIA GPU (``pip install sdesim[cuda]``): a thread a path, the time loop in the
        kernel, the bits of the CPU. "cuda:fast" draws float32 normals by the GPU's own logarithm and sine, at twice the
        speed: the same stream, other bits. It takes compiled formulas and schemes made of stages; docs/gpu.md.
    executor, workers : anything with ``submit`` and how many: threads by default, a process pool, a Dask client or its
        ``get_executor()``, an ``mpi4py.futures.MPIPoolExecutor``. The result has the same bits for any of them. Where a
        worker process dies its blocks are run again, with one RuntimeWarning; ``errors.WorkerError`` names a block that
        kills every worker.
    first_path : the number of the first path; two runs over [0, n) and [n, 2n) are the halves of one.
    increments : Wiener increments (n_paths, n_steps[, m]) to use in place of the random stream. Schemes that take more
        of the path accept it behind these: ``sra`` and ``sri`` the integrals ∫ (W_s − W_t) ds, m more columns (drawn
        where they are absent); ``milstein_levy`` the areas A_12, A_13, …, m (m − 1)/2 more.
    boundary : ``Walls(...)``: reflecting, absorbing, periodic or partly reflecting.
    rtol, atol : tolerances of an adaptive method (1e-3 and 1e-6 by default): the estimated error of a step stays below
        atol + rtol |x|. Its ``n_steps`` are the largest steps and those at which states can be saved, 32 by default.
    progress : True for a bar, or a function called as progress(done, total).
    checkpoint : a file that the finished blocks of paths are written to: every 30 s, on Ctrl-C and SIGTERM, and at the
        end. The same call goes on where that one was, whatever ended it, to the same bits in everything; a call with
        other arguments is refused with the one that differs, and a finished one returns at once. With ``out`` the
        states stay where they are, in the ``.partial`` file.
    on_nonfinite : "raise" a NonFiniteError that names the first bad path, step and time; "freeze" such paths at their
        last finite state; "ignore".
    debug : True to run the process's formulas as plain Python, path by path: a thousand times slower, with indices
        checked, ``print`` and breakpoints, and errors that name path, step and state. Paths are the same but for the
        rounding of functions such as exp. Methods are those of whole-array steps.

    Returns
    -------
    Paths. After Ctrl-C, the paths that were finished, with ``success=False``.
    """
    if device != "cpu" and (executor is not None or workers is not None):
        raise ValueError(f"device={device!r} runs its own threads; leave executor and workers out")
    workers = blocks.check_executor(executor, workers)
    checks.progress(progress)
    if checks.truth("debug", debug):
        if device != "cpu":
            raise ValueError(f"debug=True runs formulas as plain Python, and device={device!r} cannot; leave one out")
        process = _plain(process)
    with Checkpoint(checkpoint, "simulation") if checkpoint is not None else contextlib.nullcontext() as file:
        run = prepare(
            process, x0, t_span, n_steps=n_steps, n_paths=n_paths, method=method, save=save, reduce=reduce,
            seed=seed if file is None else file.seed(seed), dtype=dtype, first_path=first_path, increments=increments,
            boundary=boundary, rtol=rtol, atol=atol, on_nonfinite=on_nonfinite, out=out,
            begun=file is not None and file.exists, device=device,
        )  # fmt: skip
        run.sealed = file is not None and run.out is not None
        kept = None if file is None else Kept(file, run)
        warn_of_times(run)
        again = functools.partial(execute, executor=executor, workers=workers, progress=progress)
        return _finish(run, again(run, kept=kept), again)


def _plain(process: Any) -> Any:
    return PlainProcess(process) if isinstance(process, Process) and not process.batch_only else process


# ---- results --------------------------------------------------------------------------------------------------------


def _finish(run: Run, outcome: Outcome, repeat: Callable[[Run], Outcome]) -> Paths:
    n = outcome.n
    n_bad = sum(part.n_bad for part in outcome.parts)
    message = "all paths came to the end"
    if not outcome.complete:
        message = f"interrupted: {n} of {run.n_paths} paths came to the end"
    place = None if run.out is None else run.out.partial
    if run.out is not None and not outcome.complete:
        run.out.shorten(n)
        message += f"; their states are in {place}"
    if n_bad:
        message = _bad_paths(run, outcome, n_bad)
        if run.out is not None and (run.on_nonfinite == "raise" or not outcome.complete):
            message += f"; the states are in {place}"
        if run.on_nonfinite == "raise":
            raise NonFiniteError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if run.out is not None and outcome.complete:
        place = run.out.path if outcome.placed else run.out.finish()
        if place != run.out.path:
            message += f"; {run.out.path} was made by somebody else meanwhile, the states are in {place}"
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
        check_memory(n, len(run.records), run.d, run.dtype)
        repeated = repeat(same)
        if not repeated.complete:
            raise KeyboardInterrupt("the paths were being simulated again, because reduce= kept none of them")
        return _shaped(run, repeated)

    states: Callable[[], Any] = again if run.reduce else kept
    if run.out is not None and place is not None:
        final = np.zeros((0, run.d), run.dtype) if outcome.final is None else outcome.final
        states = _InFile(run.out, place, n, None if run.ends else final.reshape(n, *run.state_shape))
    paths = Paths(
        t=run.times, reductions=reductions, seed=run.seed, first_path=run.first_path, n_paths=n,
        method=run.scheme.name, success=outcome.complete and not n_bad, message=message,
        law_only=run.scheme.law_only, steps_taken=_counted(outcome, 0), steps_rejected=_counted(outcome, 1),
        _states=states, _run=run,
    )  # fmt: skip
    if run.out is not None:
        _ = paths.x  # a map that is open survives that its file is moved
    return paths


def _counted(outcome: Outcome, row: int) -> np.ndarray | None:
    parts = [part.counts for part in outcome.parts if part.counts is not None]
    return np.concatenate([counts[row] for counts in parts]) if parts else None


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
        out=None,
        on_nonfinite="ignore",
        stop=np.zeros(1, np.uint8),
    )
    states = work(blocks.Block(alone.first_path, 1, 0), alone, None).saved
    assert states is not None
    step = int(np.argmax(~np.isfinite(states[0]).all(axis=1)))
    cure = f"take more steps (dt is {run.dt:g})"
    if run.scheme.adaptive:
        smallest = run.dt / 2 ** adaptive.depth(run.n_steps)
        cure = f"steps of {smallest:.2g} were still too large for rtol and atol: loosen them"
    fate = {
        "raise": f"; {cure}, or pass on_nonfinite='freeze' or 'ignore'",
        "freeze": "; they were frozen at their last finite states",
        "ignore": "; they are in the result",
    }[run.on_nonfinite]
    what = "became non-finite" if not run.scheme.implicit else "became non-finite or did not solve their equation"
    return (
        f"{n_bad} of {outcome.n} paths {what}, first path {run.first_path + row} at step {step} "
        f"(t={run.t0 + step * run.dt:g}){fate}"
    )
