"""Who works on the blocks: threads that share our memory, or workers elsewhere, who are sent batches of blocks.

Elsewhere is another process, on this machine or on another one (a process pool, Dask, MPI), and three things differ.

- Every task has a price (0.2 ms in a process pool, 5 ms in Dask), so a task is as many consecutive blocks as take half
  a second by the pace of those before it. No result depends on it: blocks are worked on one by one all the same.
- What the blocks have in common, the **job**, must travel. It goes out with the first tasks only; a worker keeps it,
  and one that has it not says so and is sent the same task once more, with the job.
- A worker may die. Its blocks are run again, in a new pool where the pool died with it. Blocks that were lost twice in
  company are run alone, and one that is lost alone is named in a WorkerError.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import pickle
import queue
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import WorkerError

TASK_SECONDS = 0.5  # of work in a task sent elsewhere
HELD_JOBS = 4  # that a worker remembers
LAST_REBUILD = 5  # without any result in between
OVERDUE = 20  # tenths of a second that a pool has to notice that a process of it died


def size_of(executor: Any) -> int | None:
    """How many tasks an executor runs at once, where it says so."""
    for name in ("_max_workers", "num_workers"):  # concurrent.futures; mpi4py.futures
        size = getattr(executor, name, None)
        if isinstance(size, int) and size > 0:
            return size
    return sum(_dask_workers(executor).values()) or None


def _is_dask(executor: Any) -> bool:
    return type(executor).__module__.partition(".")[0] == "distributed"


def _dask_workers(executor: Any) -> dict[str, int]:
    """The threads of each of Dask's workers; none where the executor is not Dask's."""
    return dict(getattr(executor, "_client", executor).ncores()) if _is_dask(executor) else {}


class Threads:
    """Workers that share our memory: a task is one block, and is given the arguments themselves."""

    ahead = 4  # tasks that wait or run, for each worker

    def __init__(
        self, executor: Any, workers: int, task: Callable[..., Any], arguments: tuple[Any, ...], blocks: Sequence[Any],
        results: dict[int, Any], unit: str,
    ) -> None:  # fmt: skip
        self.executor, self.workers, self.task, self.arguments = executor, workers, task, arguments
        self.blocks, self.results, self.unit = blocks, results, unit
        self.pending = collections.deque(number for number in range(len(blocks)) if number not in results)
        self.out: dict[int, tuple[Any, list[int]]] = {}  # tasks by ticket: their futures, and the numbers of the blocks
        self.tickets = itertools.count()
        self.home: queue.SimpleQueue[int] = queue.SimpleQueue()  # tickets of the tasks that are done

    @property
    def busy(self) -> bool:
        """Whether there are blocks without a result."""
        return bool(self.pending or self.out)

    def fill(self) -> None:
        """Hand out tasks until every worker has some in store."""
        while self.pending and len(self.out) < self.ahead * self.workers:
            number = self.pending.popleft()
            self._sent(self.executor.submit(self.task, self.blocks[number], *self.arguments), [number])

    def wait(self) -> list[int]:
        """Wait for a task and take its results in; the numbers of its blocks, none where it was lost."""
        while True:
            try:
                # A wait with a time limit is woken by Ctrl-C on every platform.
                ticket = self.home.get(timeout=0.1)
                break
            except queue.Empty:
                self._nothing_came()
        future, batch = self.out[ticket]
        found = self._received(future, batch)
        self.results.update(found)
        del self.out[ticket]  # only now, as Ctrl-C may come between any two lines
        return list(found)

    def done(self) -> Callable[[], dict[int, Any]]:
        """The results of the tasks that are done by now and were not waited for, to be opened later."""
        tasks = [(future, batch) for future, batch in self.out.values() if future.done() and not future.cancelled()]

        def opened() -> dict[int, Any]:
            found = {}
            for future, batch in tasks:
                if future.exception() is None:
                    found.update(self._opened(future.result(), batch))
            return found

        return opened

    def cancel(self) -> None:
        """Take back what no worker has begun."""
        for future, _ in list(self.out.values()):
            future.cancel()

    def close(self, wait: bool) -> None:
        """Let go of what is our own."""

    def _nothing_came(self) -> None:
        """Look after the workers: nothing came home for a tenth of a second."""

    def _sent(self, future: Any, batch: list[int]) -> None:
        ticket = next(self.tickets)
        self.out[ticket] = future, batch
        future.add_done_callback(lambda _: self.home.put(ticket))

    def _received(self, future: Any, batch: list[int]) -> dict[int, Any]:
        return self._opened(future.result(), batch)

    def _opened(self, answer: Any, batch: list[int]) -> dict[int, Any]:
        return {batch[0]: answer}


class Elsewhere(Threads):
    """Workers that share nothing with us: batches of blocks, a job that travels once, and more lives than one."""

    ahead = 2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.token = uuid.uuid4().hex
        self.present = _dask_workers(self.executor)
        self.pool: concurrent.futures.ProcessPoolExecutor | None = None  # in place of one that died
        self.options = {"pure": False} if _is_dask(self.executor) else {}  # a task sent again is not the same one
        self.job = self._packed()
        self.carried = 0
        self.pace = float("inf")  # seconds a path, the least that was seen
        self.losses: collections.Counter[int] = collections.Counter()
        self.suspects: collections.deque[int] = collections.deque()  # lost twice in company
        self.alone = False  # whether what is out is a suspect
        self.broken: BaseException | None = None
        self.rebuilt, self.barren, self.fruitless = 0, 0, True
        self.overdue = 0  # tenths of a second since the pool should have noticed a death

    @property
    def busy(self) -> bool:
        return bool(self.pending or self.out or self.suspects)

    def _packed(self) -> Any:
        job = _Job(self.task, self.arguments)
        if not isinstance(self.executor, concurrent.futures.ProcessPoolExecutor):
            return job  # Dask can pickle more than we can
        try:
            return pickle.dumps(job, protocol=5)  # once, and opened inside the task: a pool dies of what it cannot open
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise unsendable(error) from None

    def fill(self) -> None:
        """Hand out tasks, but none beside a suspect, and none to a pool that died."""
        while (self.pending or self.suspects) and len(self.out) < self.ahead * self.workers:
            if self.out and (self.suspects or self.alone or self.broken):
                return
            if self.broken:
                self._rebuild()
            self.alone = bool(self.suspects)
            self._send([self.suspects.popleft()] if self.alone else self._batch())

    def _batch(self) -> list[int]:
        """The next blocks, for half a second; but a lost one by itself, and for every worker some of the last ones."""
        batch = [self.pending.popleft()]
        most = len(self.pending) // self.workers + 1
        seconds = self.blocks[batch[0]].size * self.pace
        while self.pending and len(batch) < most and seconds < TASK_SECONDS:
            if self.losses[batch[0]] or self.losses[self.pending[0]]:
                break
            batch.append(self.pending.popleft())
            seconds += self.blocks[batch[-1]].size * self.pace
        return batch

    def _send(self, batch: list[int], *, with_job: bool = False) -> None:
        carry = with_job or self.carried < self.workers
        self.carried += carry
        job = self.job if carry else None
        blocks = [self.blocks[number] for number in batch]
        large = carry and _is_dask(self.executor)
        try:
            with warnings.catch_warnings() if large else contextlib.nullcontext():
                if large:
                    warnings.filterwarnings("ignore", "Sending large graph")  # it has to travel, and does so once
                future = self.executor.submit(_work, self.token, job, blocks, **self.options)
        except concurrent.futures.BrokenExecutor as error:
            (self.suspects if self.alone else self.pending).extendleft(reversed(batch))
            self.broken = error
            return
        self._sent(future, batch)

    def _received(self, future: Any, batch: list[int]) -> dict[int, Any]:
        try:
            answer = future.result()
        except Exception as error:
            deaths = _deaths(error)
            if not deaths:
                raise
            self._lost(batch, error, deaths)
            return {}
        if answer is None:
            self._send(batch, with_job=True)
            return {}
        self.barren, self.fruitless = 0, False
        self.pace = min(self.pace, answer[0] / sum(self.blocks[number].size for number in batch))
        return self._opened(answer, batch)

    def _opened(self, answer: Any, batch: list[int]) -> dict[int, Any]:
        return {} if answer is None else dict(zip(batch, answer[1], strict=True))

    # ---- workers that die

    def _lost(self, batch: list[int], error: BaseException, deaths: int) -> None:
        if isinstance(error, concurrent.futures.BrokenExecutor):
            self.broken = error
        for number in reversed(batch):
            if self.losses[number] >= 2:  # it was alone
                raise self._poison(number) from error
            self.losses[number] += deaths
            if self.losses[number] >= 2:
                self.suspects.appendleft(number)
            else:
                self.pending.appendleft(number)

    def _nothing_came(self) -> None:
        """Break a pool that cannot notice a death, so that its futures fail.

        Where a process is killed while it sends a result, Python's pool waits for the rest of the result for ever, as
        its other processes, and our own, could still be writing to the pipe.
        """
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        dead = any(process.exitcode not in (None, 0) for process in processes)
        self.overdue = self.overdue + 1 if dead else 0
        if self.overdue == OVERDUE:
            for process in processes:
                process.kill()
            with contextlib.suppress(AttributeError, OSError):
                self.executor._result_queue._writer.close()

    def _poison(self, number: int) -> WorkerError:
        block = self.blocks[number]
        what = f"block {number} ({self.unit} {block.first} … {block.first + block.size - 1})"
        hint = "its memory may not be enough, or compiled code of the model may crash"
        if self.fruitless:
            hint = (
                "no worker finished anything: a script that starts processes needs if __name__ == '__main__', and what "
                "the workers import must be there for them"
            )
        paths = range(block.first, block.first + block.size)
        return WorkerError(f"every worker that was given {what} died, the last one alone; {hint}", number, paths)

    def _rebuild(self) -> None:
        """A process pool dies with any of its workers; ours has as many, started in the same way."""
        error, old = self.broken, self.executor
        if not isinstance(old, concurrent.futures.ProcessPoolExecutor):
            raise WorkerError(f"the executor is broken ({error}) and cannot be made again; give another one") from error
        if self.barren >= LAST_REBUILD:
            raise WorkerError(f"{self.barren} process pools in a row broke ({error}) before any result") from error
        if not self.rebuilt:
            warnings.warn(
                "a worker process died, and its pool with it; the blocks that were lost are run again in a new pool",
                RuntimeWarning,
                stacklevel=4,
            )
        names = ("mp_context", "initializer", "initargs", "max_tasks_per_child")
        options: dict[str, Any] = {name: getattr(old, f"_{name}", None) for name in names}
        if self.pool is not None:
            self.pool.shutdown(wait=False)
        self.executor = self.pool = concurrent.futures.ProcessPoolExecutor(
            size_of(old), **{name: value for name, value in options.items() if value is not None}
        )
        self.broken, self.carried = None, 0
        self.rebuilt += 1
        self.barren += 1

    def close(self, wait: bool) -> None:
        """Shut down the pool that was made in place of a dead one, and forget the job in this process."""
        _held.pop(self.token, None)
        if self.pool is not None:
            self.pool.shutdown(wait=wait, cancel_futures=True)
        if wait and (gone := self.present.keys() - _dask_workers(self.executor).keys()):
            warnings.warn(
                f"{len(gone)} of {len(self.present)} workers left the cluster; Dask has run what they had once more",
                RuntimeWarning,
                stacklevel=3,
            )


def _deaths(error: BaseException) -> int:
    """How often a task has lost its worker by now, where this error says that it has; 0 for any other error."""
    if type(error).__name__ == "KilledWorker":  # Dask's: after several workers, beside other tasks
        return 2
    return int(isinstance(error, concurrent.futures.BrokenExecutor | concurrent.futures.CancelledError))


def unsendable(error: BaseException) -> TypeError:
    """What to say of work that cannot be pickled."""
    return TypeError(
        f"the work cannot be sent to the executor's processes ({error}); define its functions at the top level of an "
        "importable module, or run on threads"
    )


# ---- where the work is done


class _Job:
    """What the blocks of a run have in common."""

    def __init__(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.task, self.arguments = task, arguments


# The jobs that this process was sent last. There is no lock, for one that is held while another thread forks would
# stay locked in the child; single operations on a dict are atomic.
_held: dict[str, _Job] = {}


def _work(token: str, sent: Any, blocks: list[Any]) -> tuple[float, list[Any]] | None:
    """Seconds and results of the blocks; None where the job was not sent and is not known here."""
    job = _held.pop(token, None)
    if job is None and sent is not None:
        job = _unpacked(sent)
    if job is None:
        return None
    _held[token] = job  # the last one
    for old in list(_held)[:-HELD_JOBS]:
        _held.pop(old, None)
    start = time.perf_counter()
    results = [job.task(block, *job.arguments) for block in blocks]
    return time.perf_counter() - start, results


def _unpacked(sent: Any) -> _Job:
    if isinstance(sent, _Job):
        return sent
    try:
        job = pickle.loads(sent)
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise unsendable(error) from None
    assert isinstance(job, _Job)
    return job
