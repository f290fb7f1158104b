"""A few threads that run one compiled loop together, and wait for each other inside it.

A phase of a time step takes tens of microseconds; handing it to a pool costs as much. So a kernel is started once on
each thread and runs many steps, and between phases the threads meet at a barrier: a counter in memory, looked
at in a loop that gives the processor away when the others are late. A flag raised by the calling thread, on Ctrl-C or
when another thread fails, releases whoever waits: no thread waits for ever.
"""

import concurrent.futures
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..core.blocks import available_cores
from ..core.cache import kernel

# Places in the shared words, a cache line apart.
ARRIVED, STOP, WORDS = 0, 8, 16
SPINS = 2000
# Cells below which a second thread costs more than it brings.
WORTH_A_THREAD = 8192
_compiled: set[str] = set()


class Team:
    """``threads`` threads for kernels ``kernel(member, members, shared, *arguments)``; use it in a with statement.

    A kernel that finds itself ``stopped`` returns before it has changed what cannot be made anew.
    """

    def __init__(self, threads: int | None, cells: int) -> None:
        wanted = min(available_cores(), max(1, cells // WORTH_A_THREAD)) if threads is None else threads
        self.members = max(1, wanted)
        # even a single long kernel runs beside the main thread, which alone hears Ctrl-C
        self._beside = self.members > 1 or cells > 1 << 20
        self._pool: Any = None

    def __enter__(self) -> "Team":
        if self._beside:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.members, thread_name_prefix="sdesim")
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def run(self, task: Any, *arguments: Any) -> None:
        """The kernel on every member; returns when all are done."""
        if task.__name__ not in _compiled:
            # once alone, told to stop: the compiler should not be met by several threads at once
            task(0, 1, np.ones(WORDS, np.int64), *arguments)
            _compiled.add(task.__name__)
        shared = np.zeros(WORDS, np.int64)
        if self._pool is None:
            for member in range(self.members):
                task(member, self.members, shared, *arguments)
            return
        futures = []
        try:
            for member in range(self.members):
                futures.append(self._pool.submit(task, member, self.members, shared, *arguments))
            self._wait(futures)
        except BaseException:
            shared[STOP] = 1
            concurrent.futures.wait(futures)
            raise

    def _wait(self, futures: list[Any]) -> None:
        """Wait for all; the first failure is raised at once, so that the others can be released."""
        left = set(futures)
        while left:
            # a wait with a time limit is woken by Ctrl-C on every platform
            done, left = concurrent.futures.wait(left, 0.1, concurrent.futures.FIRST_EXCEPTION)
            for future in done:
                future.result()


@intrinsic
def _arrive(typing, words, index):
    """words[index] += 1 in one piece; what it was before."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.gep(data, [args[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(words, types.intp), generate


@intrinsic
def _look(typing, words, index):
    """words[index] as the other threads left it."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(words, types.intp), generate


# Both are in the C library of every process; Windows has the other name.
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@intrinsic
def _give_way(typing):
    """Let another thread have the processor."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        name = _YIELD
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, [])

    return types.int32(), generate


@kernel
def stopped(shared):
    return _look(shared, STOP) != 0


@kernel
def meet(members, shared):
    """Wait until all members have come here as often as this one; at once where the work is to stop."""
    if members == 1:
        return
    before = _arrive(shared, ARRIVED)
    goal = (before // members + 1) * members
    spins = 0
    while _look(shared, ARRIVED) < goal and _look(shared, STOP) == 0:
        spins += 1
        if spins > SPINS:
            _give_way()
