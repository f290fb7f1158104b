"""Work in blocks of paths: any executor, progress, interruption, and sums that do not depend on the blocks.

A **leaf** is the absolute group of 256 paths path // 256. Blocks are ranges of paths cut at leaves; what they compute
does not depend on how they were cut. Kernels release the GIL, so that threads are the default executor; the main
thread only waits, which is what lets Ctrl-C be answered at once.
"""

import concurrent.futures
import itertools
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks, executors

LEAF = 256


@dataclass(frozen=True)
class Block:
    """The paths first, first + 1, …, first + size − 1, of which the first is row ``offset`` of the result."""

    first: int
    size: int
    offset: int


def cut(first_path: int, n_paths: int, paths_per_block: int) -> list[Block]:
    """Blocks whose inner borders are multiples of ``paths_per_block``, itself a multiple of the leaf."""
    step = max(LEAF, paths_per_block // LEAF * LEAF)
    blocks = []
    start, end = first_path, first_path + n_paths
    while start < end:
        stop = min(end, (start // step + 1) * step)
        blocks.append(Block(start, stop - start, start - first_path))
        start = stop
    return blocks


def available_cores() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_executor(executor: Any, workers: Any) -> int:
    """The number of workers; raises TypeError for an executor that cannot be used."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must have submit(function, *args), got {type(executor).__name__}")
    if workers is None:
        return executors.size_of(executor) or available_cores()
    return checks.integer("workers", workers, minimum=1)


def run(
    task: Callable[..., Any],
    blocks: Sequence[Block],
    arguments: tuple[Any, ...],
    *,
    executor: Any = None,
    workers: int = 1,
    stop: np.ndarray | None = None,
    progress: Any = False,
    unit: str = " paths",
    found: Mapping[int, Any] | None = None,
    keep: Callable[[Mapping[int, Any]], None] | None = None,
) -> tuple[list[Any], bool]:
    """``task(block, *arguments)`` for every block: the results in the order of the blocks, and whether all were run.

    ``found`` has results that are known, by the number of the block; these blocks are not run. ``keep`` is called by
    this thread with all results so far, by number, whenever there are more of them, and a last time at an
    interruption or an error, when the flag ``stop`` is up.

    On Ctrl-C the flag ``stop`` is raised (kernels look at it between steps), and the results of the blocks finished
    until then, a gapless run from the first, are returned.

    An exception of a task is raised here. Where a worker process dies the blocks it had are run again, with one
    RuntimeWarning; a block that kills every worker is named in a WorkerError (``executors``).
    """
    results = dict(found or {})
    own = None
    if executor is None:
        executor = own = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="sdesim")
    shared = isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    bar = progress_bar(progress, sum(block.size for block in blocks), unit)
    crew: executors.Threads | None = None
    complete = keeping = False
    try:
        if results:
            bar.update(sum(blocks[number].size for number in results))
        kind = executors.Threads if shared else executors.Elsewhere
        crew = kind(executor, workers, task, arguments, blocks, results, unit.strip())
        while crew.busy:
            crew.fill()
            further = crew.wait()
            if not further:
                continue
            bar.update(sum(blocks[number].size for number in further))
            if keep is not None:
                keeping = True
                keep(results)
                keeping = False
        complete = True
        return [results[number] for number in range(len(blocks))], True
    except BaseException as error:
        # Asked before the flag is raised: what is done afterwards may have been cut short by it.
        late = crew.done() if crew is not None else dict
        if stop is not None:
            stop[0] = 1
        if crew is not None:
            crew.cancel()
        results.update(late())
        interrupted = isinstance(error, KeyboardInterrupt)
        if keep is not None and (interrupted or not keeping):
            keep(results)
        if interrupted:
            return [results[n] for n in itertools.takewhile(results.__contains__, range(len(blocks)))], False
        if isinstance(error, pickle.PicklingError | AttributeError) and "pickle" in str(error):
            raise executors.unsendable(error) from None
        raise
    finally:
        bar.close()
        if crew is not None:
            crew.close(complete)
        if own is not None:
            own.shutdown(wait=True, cancel_futures=True)


class _Silent:
    def update(self, size: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Reporting:
    """A bar that calls progress(done, total)."""

    def __init__(self, report: Callable[[int, int], Any], total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def update(self, size: int) -> None:
        self.done += size
        self.report(self.done, self.total)

    def close(self) -> None:
        pass


def progress_bar(progress: Any, total: int, unit: str) -> Any:
    """What shows progress: tqdm's bar, a caller of progress(done, total), or nothing; with update(), total, close()."""
    if callable(progress):
        return _Reporting(progress, total)
    if not progress:
        return _Silent()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, unit_scale=True, leave=False, delay=0.5)
