"""Phases of tasks on several threads: whoever is free takes the next task; a phase ends when all of it is done."""

import concurrent.futures
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .passes import Phase, run

# Below so many operations a step, handing tasks to threads costs more than it saves.
SMALL = 3e8


class Team:
    """Runs phases on ``workers`` threads, the caller's among them. The results do not depend on their number."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool = None
        if workers > 1:
            self.pool = concurrent.futures.ThreadPoolExecutor(workers - 1, thread_name_prefix="sdesim-fit")

    def run(self, phases: Sequence[Phase]) -> None:
        """Every phase after the other."""
        if self.pool is None:
            run(phases)
            return
        for phase in phases:
            if len(phase) == 1:
                run([phase])
                continue
            numbers = itertools.count()  # next() of it is atomic

            def drain(phase: Phase = phase, numbers: Any = numbers) -> None:
                with np.errstate(over="ignore", invalid="ignore"):  # belongs to a thread
                    while (number := next(numbers)) < len(phase):
                        phase[number]()

            helpers = [self.pool.submit(drain) for _ in range(min(self.workers, len(phase)) - 1)]
            try:
                drain()
            finally:
                concurrent.futures.wait(helpers)
            for helper in helpers:
                helper.result()

    def close(self) -> None:
        """Let the threads go."""
        if self.pool is not None:
            self.pool.shutdown(wait=True)
