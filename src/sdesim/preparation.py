"""A run, as data: everything that ``simulate`` was asked for, checked before anything compiles."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from . import bind
from .core import blocks, checks, stream
from .core.compile import formula
from .core.output import Output
from .errors import DeviceError, MemoryLimitError
from .fokker_planck.boundary import Robin
from .integrate import noise
from .integrate.reductions import FirstPassage
from .integrate.schemes import Scheme
from .integrate.tiles import Variant
from .integrate.watchers import StepContext
from .processes.structure import check_structure

DEVICES = ("cpu", "cuda", "cuda:fast")
ON_NONFINITE = ("raise", "freeze", "ignore")


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
    landings: np.ndarray  # the recorded steps as first asked for: law-only schemes land on them
    walls: Any = None
    watch: bool = False
    coarsen: int = 1  # a step sums so many increments of the stream
    swap: bool = False  # and exchanges the members of each pair of them
    tolerances: tuple[float, float] = (0.0, 0.0)
    out: Output | None = None
    device: str = "cpu"

    @property
    def ends(self) -> bool:
        """Whether the states at the end are among the recorded ones."""
        return int(self.records[-1]) == self.n_steps

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

    @property
    def noise_dim(self) -> int:
        """Wiener processes a path."""
        return bind.noise_dim(self.process, self.d)

    @property
    def general(self) -> bool:
        """Whether the engine sees a matrix of noise."""
        return bind.is_general(self.process, self.scheme)

    @property
    def context(self) -> StepContext:
        """What a watcher of the steps is told."""
        absorbing = () if self.walls is None else self.walls.absorbing
        return StepContext(self.t0, self.dt, self.n_steps, self.d, self.noise_dim, self.general, absorbing)

    @functools.cached_property
    def variant(self) -> Variant:
        """The engine that this run needs."""
        variant = Variant(
            freeze=self.on_nonfinite == "freeze",
            given=self.increments is not None,
            coarse=self.coarsen > 1 or self.swap,
            watch=self.watch,
        )
        return dataclasses.replace(variant, fused=bind.is_fused(self.process, self.scheme, variant))

    @functools.cached_property
    def compiled(self) -> bind.Compiled:
        """Engine and tile functions, made where the work is done."""
        return bind.compiled(self.process, self.scheme, self.dtype, self.d, self.n_steps, self.variant)

    @property
    def passage(self) -> FirstPassage | None:
        """The first passage that is asked for, if any."""
        return next((reduction for reduction in self.reduce if isinstance(reduction, FirstPassage)), None)

    @property
    def watching(self) -> Any:
        """It, as the CUDA engine looks for it."""
        from .cuda.model import Watch

        if self.passage is None:
            return None
        return Watch(self.passage.component, None if self.passage.of is None else formula(self.passage.of))

    @functools.cached_property
    def model(self) -> Any:
        """Process and scheme as the CUDA engine takes them."""
        return bind.device_model(
            self.process, self.scheme, self.dtype, self.d, fused=self.variant.fused,
            freeze=self.on_nonfinite == "freeze", fast=self.device == "cuda:fast", watch=self.watching,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("compiled", "model")}


@dataclasses.dataclass
class Part:
    """What a block of paths leaves behind."""

    final: np.ndarray | None
    saved: np.ndarray | None
    reductions: list[Any]
    counts: np.ndarray | None
    n_bad: int
    first_bad: int


def prepare(
    process: Any, x0: Any, t_span: Any, *, n_steps: Any, n_paths: Any, method: Any, save: Any, reduce: Any, seed: Any,
    dtype: Any, first_path: Any, increments: Any, boundary: Any, rtol: Any, atol: Any, on_nonfinite: Any,
    out: Any = None, device: str = "cpu",
) -> Run:  # fmt: skip
    """Check what was asked for and gather it; the arguments are those of ``simulate``."""
    if isinstance(process, type):
        name = process.__name__
        raise TypeError(f"process must be a process, and {name} is a class; make one: {name}(...)")
    if not callable(getattr(process, "drift", None)) or not callable(getattr(process, "diffusion", None)):
        raise TypeError(f"process must have drift(x, t) and diffusion(x, t), got {type(process).__name__}")
    t0, t1 = checks.time_span(t_span)
    scheme = bind.pick_scheme(process, method)
    tolerances = _tolerances(scheme, rtol, atol)
    if n_steps is None:
        n_steps = _base_steps(scheme, save, t0, t1)
    n_steps = checks.integer("n_steps", n_steps, minimum=1, below=2**33)
    dt = (t1 - t0) / n_steps
    if t0 + dt == t0 or t1 - dt == t1:
        raise ValueError(
            f"n_steps={n_steps} makes steps of {dt:g}, which vanish by rounding beside t = {max(abs(t0), abs(t1)):g}; "
            "take fewer steps, or start the clock nearer to 0"
        )
    kind = checks.dtype(dtype)
    checks.choice("device", device, DEVICES)
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
    times = np.where(records == n_steps, t1, t0 + records * dt)
    for reduction in reduce:
        if isinstance(reduction, type) or not hasattr(reduction, "start") or not hasattr(reduction, "check"):
            raise TypeError(f"reduce must hold reductions such as Histogram or Moments, got {reduction!r}")
        reduction.check(d)
        if hasattr(reduction, "check_times"):
            reduction.check_times(times)
    sample = states.sample(1, seed) if hasattr(states, "sample") else states[:1]
    check_structure(process, _probe(process, np.asarray(sample, float).reshape(d)), t0)
    m = bind.noise_dim(process, d)
    checks.integer("components of the state", max(d, m), below=stream.MAX_COMPONENTS)
    given = None
    if increments is not None:
        _check_takes_increments(scheme)
        given = _check_increments(
            scheme, process, increments, count, n_steps, m, state_shape, kind, seed, first_path, dt
        )
    watch = _check_watchers(scheme, reduce, boundary, d, n_steps)
    if boundary is not None:
        boundary.check(d, None if hasattr(states, "sample") else states)
        _check_mirrors(process, boundary, np.asarray(sample, float).reshape(d), t0)
    if device != "cpu":
        _check_device(process, scheme, d, given, boundary, reduce, on_nonfinite)
    output = None if out is None else Output.at(out, (count, len(records), *state_shape), kind)
    if output is None and not reduce:
        check_memory(count, len(records), d, kind)
    elif output is not None and records[-1] != n_steps:
        check_memory(count, 0, d, kind)  # the states at the end, which the file has not
    return Run(
        process, scheme, states, state_shape, count, first_path, t0, t1, n_steps, records, reduce, seed, kind, given,
        on_nonfinite, np.zeros(1, np.uint8), records, boundary, watch, tolerances=tolerances,
        out=output, device=device,
    )  # fmt: skip


def _check_device(
    process: Any, scheme: Scheme, d: int, given: Any, boundary: Any, reduce: list[Any], on_nonfinite: str
) -> None:
    from .cuda import backend

    bind.check_device(process, scheme, d, on_nonfinite == "freeze")
    if given is not None:
        raise DeviceError("increments= are taken on the CPU; leave device='cuda' out, or draw from the stream")
    if boundary is not None:
        raise DeviceError("boundary= acts between steps on the CPU; leave device='cuda' out")
    passages = [reduction for reduction in reduce if isinstance(reduction, FirstPassage)]
    if len(passages) > 1:
        raise DeviceError("device='cuda' looks for one FirstPassage in a run; run it once for each, or on the CPU")
    if passages and passages[0].of is not None and d > 1 and (process.dim is None or process.dim == 1):
        raise DeviceError(
            "FirstPassage(of=...) looks at all components of a state at once, and device='cuda' takes those of "
            f"{type(process).__name__} one after the other; use device='cpu'"
        )
    backend.require()


def _tolerances(scheme: Scheme, rtol: Any, atol: Any) -> tuple[float, float]:
    if not scheme.adaptive:
        if rtol is not None or atol is not None:
            name = "rtol" if rtol is not None else "atol"
            raise ValueError(
                f"{name} belongs to adaptive methods, and {scheme.name} takes n_steps equal steps; leave it out, or "
                "use method='adaptive_sri' (noise) or 'dopri5' (sigma = 0)"
            )
        return 0.0, 0.0
    return (
        checks.real("rtol", 1e-3 if rtol is None else rtol, above=0.0),
        checks.real("atol", 1e-6 if atol is None else atol, minimum=0.0),
    )


def _base_steps(scheme: Scheme, save: Any, t0: float, t1: float) -> int:
    """The coarsest steps of an adaptive method: few, and such that the saved times are among them."""
    if not scheme.adaptive:
        raise TypeError(
            f"simulate() needs n_steps for method={scheme.name!r}; only adaptive methods choose their steps"
        )
    if isinstance(save, str) or np.ndim(save) == 0:
        return 32
    times = (checks.array("save", save).ravel() - t0) / (t1 - t0)
    for n in range(32, 4097):
        if (abs(times * n - np.rint(times * n)) <= 1e-6).all():
            return n
    raise ValueError("no grid of up to 4096 equal steps holds the times in save; give n_steps, or other times")


def _check_takes_increments(scheme: Scheme) -> None:
    if scheme.law_only:
        raise ValueError(
            f"{scheme.name} follows no Brownian path: its increments are two- or three-point, and only the law of its "
            "paths means something; for given increments use 'euler_maruyama', 'milstein' or 'sri'"
        )
    if scheme.noise == ("none",):
        raise ValueError(f"{scheme.name} draws no noise; leave increments out")
    if scheme.adaptive:
        raise ValueError(
            f"{scheme.name} takes steps of its own, along the Brownian path of (seed, path); leave increments out"
        )


def _check_watchers(scheme: Scheme, reduce: list[Any], boundary: Any, d: int, n_steps: int) -> bool:
    """Whether something looks at every step, and may under this scheme."""
    if boundary is not None and not hasattr(boundary, "watcher"):
        raise TypeError(f"boundary must be walls such as sde.Walls(-1.0, 1.0, 'reflecting'), got {boundary!r}")
    watching = [type(r).__name__ for r in reduce if hasattr(r.start(blocks.Block(0, 1, 0), d, 1), "watcher")]
    watching += ["Walls"] if boundary is not None else []
    if not watching:
        return False
    if scheme.metropolis:
        raise ValueError(
            f"{watching[0]} follows a path in time, and {scheme.name} makes proposals, of which it keeps some; use "
            "'unadjusted_langevin' or 'euler_maruyama'"
        )
    for reduction in reduce:
        if boundary is not None and isinstance(reduction, FirstPassage):
            boundary.check_passage(reduction)
    if scheme.law_only:
        raise ValueError(
            f"{watching[0]} looks at the paths between steps, and {scheme.name} is right in law at the end only (its "
            "increments are two- or three-point); use 'euler_maruyama' or 'milstein'"
        )
    if scheme.adaptive:
        raise ValueError(
            f"{watching[0]} looks at every step of one size, and {scheme.name} takes steps of its own; use a "
            "fixed-step method such as 'euler_maruyama'"
        )
    return True


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


def _check_mirrors(process: Any, walls: Any, state: np.ndarray, t: float) -> None:
    """A component without noise of its own (a position whose velocity is driven) would stick to a reflecting wall."""
    value = process.diffusion(bind.process_state(process, state.reshape(1, -1)), t)
    if process.dim is None or process.dim < 2 or not isinstance(value, (tuple, list)):
        return
    for c, kinds in zip(walls.components, walls.kinds, strict=True):
        row = value[c] if isinstance(value[c], (tuple, list)) else (value[c],)
        folds = any(kind == "reflecting" or isinstance(kind, Robin) for kind in kinds)
        if folds and all(np.all(np.asarray(entry) == 0.0) for entry in row):
            raise ValueError(
                f"a reflecting wall folds component {c} back, and {type(process).__name__} has no noise in it: what "
                "drives it (a velocity) would go on pushing it into the wall; make the potential steep instead"
            )


def _check_increments(
    scheme: Scheme, process: Any, increments: Any, n_paths: int, n_steps: int, m: int, state_shape: tuple[int, ...],
    dtype: np.dtype, seed: int, first_path: int, dt: float,
) -> np.ndarray:  # fmt: skip
    """Increments (paths, steps, columns); space-time integrals that were not given come from the stream."""
    given = checks.array("increments", increments)
    full = noise.columns(scheme, bind.is_general(process, scheme), m)
    if given.shape == (n_paths, n_steps) and m == 1:
        given = given[:, :, None]
    if given.shape == (n_paths, n_steps, *state_shape):
        given = given.reshape(n_paths, n_steps, m)
    if given.shape == (n_paths, n_steps, m) and scheme.space_time:
        zeta = stream.normals(seed, stream.SPACE_TIME, n_paths, m, n_steps, first_path=first_path, dtype=dtype)
        return noise.with_space_time(given, zeta, dt, dtype)
    if given.shape != (n_paths, n_steps, full):
        expected = f"({n_paths}, {n_steps})" if full == 1 else f"({n_paths}, {n_steps}, {full})"
        areas = ", then the Lévy areas A_12, A_13, …" if full > m and not scheme.space_time else ""
        raise ValueError(
            f"increments has shape {given.shape}, expected {expected}: paths, steps, Wiener processes{areas}"
        )
    return np.ascontiguousarray(given, dtype)


def check_memory(n_paths: int, n_times: int, d: int, dtype: np.dtype) -> None:
    """Raise MemoryLimitError where the asked states would not fit."""
    needed = n_paths * (n_times + 1) * d * dtype.itemsize
    free = _available_memory()
    if needed > 0.8 * free:
        raise MemoryLimitError(
            f"{n_paths} paths at {n_times} times need {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; "
            "save fewer times (save=k), keep statistics only (reduce=[Histogram(...), Moments()]), or write the states "
            "to a file (out='paths.npy')"
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
