"""Work in blocks of paths: any executor, progress, interruption, and sums that do not depend on the blocks.

A **leaf** is the absolute group of 256 paths path // 256. Blocks are ranges of paths cut at leaves; what they compute
does not depend on how they were cut. Kernels release the GIL, so that threads are the default executor; the main
thread only waits, which is what lets Ctrl-C be answered at once.
"""

import concurrent.futures
import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks

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
        return int(getattr(executor, "_max_workers", None) or available_cores())
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
) -> tuple[list[Any], bool]:
    """``task(block, *arguments)`` for every block: the results in the order of the blocks, and whether all were run.

    On Ctrl-C the flag ``stop`` is raised (kernels look at it between steps), and the results of the blocks finished
    until then, a gapless run from the first, are returned.
    """
    own = None
    if executor is None:
        executor = own = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="sdesim")
    futures: list[Any] = []
    bar = progress_bar(progress, sum(block.size for block in blocks), unit)
    try:
        waited = 0
        for block in blocks:
            futures.append(executor.submit(task, block, *arguments))
            if len(futures) - waited >= 4 * workers:
                _wait(futures[waited])
                bar.update(blocks[waited].size)
                waited += 1
        for block, future in zip(blocks[waited:], futures[waited:], strict=True):
            _wait(future)
            bar.update(block.size)
        return [future.result() for future in futures], True
    except KeyboardInterrupt:
        # Asked before the flag is raised: what is done afterwards may have been cut short by it.
        done = list(itertools.takewhile(lambda future: future.done(), futures))
        if stop is not None:
            stop[0] = 1
        for future in futures[len(done) :]:
            future.cancel()
        return [future.result() for future in done], False
    except BaseException as error:
        if stop is not None:
            stop[0] = 1
        for future in futures:
            future.cancel()
        if isinstance(error, pickle.PicklingError | AttributeError) and "pickle" in str(error):
            raise TypeError(
                f"the work cannot be sent to the executor's processes ({error}); define its functions at "
                "the top level of an importable module, or run on threads"
            ) from None
        raise
    finally:
        bar.close()
        if own is not None:
            own.shutdown(wait=True, cancel_futures=True)


def _wait(future: Any) -> None:
    while True:
        try:
            # A wait with a time limit is woken by Ctrl-C on every platform.
            future.result(timeout=0.1)
            return
        except concurrent.futures.TimeoutError:
            if future.done():
                raise


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
