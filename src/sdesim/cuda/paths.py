"""Ensembles on the device: a block of paths is copied there, runs to its end in one kernel, and its results come back.

A block is as many paths as fit into the free memory of the device, so that any number of paths streams through it.
Paths have the bits of the CPU engines (see ``steps``), and so has what is made of them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.philox import round_keys
from ..errors import DeviceError
from ..integrate.schemes import SCHEMES, Scheme
from . import backend
from .kernel import kernel
from .model import Model
from .reductions import Taken

MOST_COMPONENTS = 16  # of a tuple, in registers
LONGEST = 2**30  # steps between two stops, so that blocks of steps are counted in 32 bits
PATH_STEPS = 2**41  # in one kernel: a few seconds, after which Ctrl-C is answered
FULL = 132 * 2048  # the threads that an H200 holds at once
GAUSSIAN, BITS = 0, 1


def runs(scheme: Scheme) -> bool:
    """Whether a scheme can run on the device: a list of stages on given steps."""
    fan = scheme.fan is None or scheme.fan.iterated != "levy"
    return scheme.step is None and not scheme.adaptive and scheme.name != "exact" and fan


def check_scheme(scheme: Scheme) -> None:
    """Raise where a scheme cannot run on the device."""
    if not runs(scheme):
        known = ", ".join(repr(s.name) for s in SCHEMES.values() if runs(s))
        raise DeviceError(f"method={scheme.name!r} has no form for the GPU; use device='cpu', or one of {known}")


def block_size(n_paths: int, n_times: int, n_steps: int, d: int, itemsize: int) -> int:
    """The paths of a block: what the device's memory holds, and not more than a few seconds of work."""
    per_path = (2 + n_times) * d * itemsize + 64
    fit = int(0.8 * backend.free_memory()) // per_path
    return max(backend.THREADS, min(fit, max(FULL, PATH_STEPS // n_steps), n_paths + backend.THREADS))


# ---- segments -------------------------------------------------------------------------------------------------------


def segments(records: np.ndarray, landings: np.ndarray, n_steps: int, scheme: Scheme) -> np.ndarray:
    """What the kernel does one after the other, as rows (first step, steps, kind, digits taken, recorded time or −1).

    Law-only schemes take their increments from random bits, but for the last four steps before each time in
    ``landings``; three-point increments are digits taken off a word one by one, of which a block may have lost some.
    """
    bounds = {0, n_steps, *range(0, n_steps, LONGEST), *records.tolist()}
    if scheme.law_only:
        bounds |= {max(0, landing - 4) for landing in landings.tolist()} | set(landings.tolist())
    stops = sorted(bound for bound in bounds if bound <= n_steps)
    position = {int(step): r for r, step in enumerate(records)}
    rows = [(0, 0, GAUSSIAN, 0, position[0])] if 0 in position else []
    used: dict[int, int] = {}  # digits taken off each half block of twelve, by its number
    for start, stop in itertools.pairwise(stops):
        kind = BITS if scheme.law_only and not _lands(start, landings) else GAUSSIAN
        taken = 0
        if kind == BITS and scheme.increment == "three_point":
            taken = used.get(start // 12, 0)
            used = {(stop - 1) // 12: stop - max(start, (stop - 1) // 12 * 12)}
            if start // 12 == (stop - 1) // 12:
                used[start // 12] += taken
        rows.append((start, stop - start, kind, taken, position.get(stop, -1)))
    return np.array(rows, np.int64)


def _lands(step: int, landings: np.ndarray) -> bool:
    """Whether one of the four steps before a landing starts at ``step``."""
    after = landings[landings > step]
    return bool(after.size and after[0] - step <= 4)


# ---- blocks ---------------------------------------------------------------------------------------------------------


@dataclass
class States:
    """What a block of paths leaves: the final states (n, d), the recorded ones (n, times, d), and the bad paths."""

    final: np.ndarray | None
    saved: np.ndarray | None
    n_bad: int
    first_bad: int


def run(
    model: Model, x0: np.ndarray, first_path: int, n: int, *, t0: float, dt: float, n_steps: int, seed: int,
    records: np.ndarray, landings: np.ndarray, save: bool, takes: Sequence[Taken] = (),
    levels: tuple[float, float, bool] = (0.0, 0.0, False), keep: bool = True,
) -> States:  # fmt: skip
    """Run the paths first_path, …, first_path + n − 1 from the rows of x0 (one row: the same for all).

    The results of ``takes`` are written to their arrays, which are copied to the device as they stand. ``levels`` are
    those of a first passage, and whether it is looked for between the ends of a step. ``keep`` asks for final states.
    """
    code = kernel(model, takes)
    cuda, dtype = backend.cuda, model.dtype
    head = first_path % backend.THREADS
    blocks = -(-(head + n) // backend.THREADS)
    columns = blocks * backend.THREADS
    with backend.explained("save fewer times, or take statistics only (reduce=)"):
        x = cuda.device_array((model.d, columns), dtype)
        saved = cuda.device_array((len(records) if save else 0, model.d, columns), dtype)
        report = cuda.to_device(np.array([0, n], np.int64))
        values = {
            "q": _values(model, cuda), "keys": round_keys(seed), "h": dtype.type(dt), "root": dtype.type(math.sqrt(dt)),
            "root3": dtype.type(math.sqrt(3.0 * dt)), "twelfth": dtype.type(math.sqrt(dt / 12.0)), "t0": t0, "dt": dt,
            "lower": levels[0], "upper": levels[1], "bridge": int(levels[2]), "seed": np.uint64(seed),
        }  # fmt: skip
        plan = cuda.to_device(segments(records, landings, n_steps, model.scheme))
        behind = {
            name: cuda.to_device(value) if isinstance(value, np.ndarray) else value
            for one in takes for name, value in one.arguments.items()
        }  # fmt: skip
        times = cuda.to_device((t0 + records * dt).astype(dtype))
        start = cuda.to_device(np.ascontiguousarray(x0, dtype))
        code(
            blocks, x, start, int(len(x0) > 1), head, head + n, np.uint64(first_path - head),
            *[values[name] for name in code.arguments], plan, saved, times, report, *behind.values(),
        )  # fmt: skip
        n_bad, first_bad = report.copy_to_host().tolist()
        rows = slice(head, head + n)
        for one in takes:
            for name, result in one.results.items():
                result[...] = behind[name].copy_to_host()
        final = np.ascontiguousarray(x.copy_to_host()[:, rows].T) if keep else None
        kept = np.ascontiguousarray(saved.copy_to_host()[:, :, rows].transpose(2, 0, 1)) if save else None
    return States(final, kept, n_bad, first_bad if n_bad else -1)


def _values(model: Model, cuda: Any) -> Any:
    """Parameters and constants: arguments of the kernel, or an array where a parameter is one."""
    if any(isinstance(spec, tuple) for _, spec in model.layout[1]):
        return cuda.to_device(model.values)
    return tuple(model.values) or (model.dtype.type(0.0),)  # a kernel takes no empty tuple
