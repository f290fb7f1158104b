"""Workers that die, start late, are forked after threads, or are many: the bits are those of one thread, or one error.

The bodies of F6, F7 and F16 to F19. A fatal start kills its process while it draws initial states, as the kernel's
killer of processes would in the middle of a block.
"""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
import time

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import blocks, executors
from sdesim.core.blocks import LEAF
from sdesim.errors import WorkerError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
multiprocessing.get_context("forkserver").set_forkserver_preload(["sdesim"])

OU = sde.OrnsteinUhlenbeck(1.0, 0.2, 0.8)
N = 5001
REDUCE = [sde.Moments(), sde.Histogram(-3, 3, 20), sde.FirstPassage(upper=0.9, bins=8)]


def pool(kind, workers=2, **options):
    context = multiprocessing.get_context(kind)
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, **options)


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def of_paths(paths):
    return digest(paths.t, paths.x, paths.final)


def of_statistics(paths):
    moments, histogram, passage = paths.reductions
    return digest(moments.mean, moments.variance, histogram.counts, passage.density, passage.mean_time)


def run(x0=0.1, n_paths=N, **settings):
    return sde.simulate(OU, x0, (0, 1), n_paths=n_paths, n_steps=12, seed=9, save=4, **settings)


@dataclasses.dataclass(frozen=True)
class Fatal:
    """A normal start that kills the process which draws path ``at``, as often as there are flags to be put down."""

    at: int
    flags: tuple[str, ...] = ()
    dim: int = 1

    def sample(self, n, seed, first_path=0):
        if first_path <= self.at < first_path + n and multiprocessing.parent_process() is not None:
            standing = [flag for flag in self.flags if not os.path.exists(flag)]
            if standing:
                pathlib.Path(standing[0]).touch()
            if standing or not self.flags:
                os._exit(9)
        return sde.targets.Gaussian(0.0, 1.0).sample(n, seed, first_path=first_path)


def flags(folder, n):
    return tuple(str(folder / f"death-{k}") for k in range(n))


# ---- F6: a worker dies


@pytest.mark.parametrize(("kind", "workers"), [("fork", 2), ("spawn", 1)])
def test_a_worker_that_dies_costs_time_and_no_bits(tmp_path, kind, workers):
    undisturbed = of_paths(run(sde.targets.Gaussian(0.0, 1.0)))
    fatal, seen = Fatal(1000, flags(tmp_path, 1)), []
    with pool(kind, workers) as lent, pytest.warns(RuntimeWarning, match="a worker process died") as caught:
        paths = run(fatal, executor=lent, progress=lambda done, total: seen.append((done, total)))
    assert len(caught) == 1
    assert os.path.exists(fatal.flags[0])
    assert of_paths(paths) == undisturbed
    assert paths.success
    assert seen[-1] == (N, N)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})  # no block is counted twice


def test_the_pool_in_its_place_is_as_large_started_alike_and_shut_down(tmp_path, monkeypatch):
    made = []
    real = executors.concurrent.futures.ProcessPoolExecutor

    class Watched(real):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(executors.concurrent.futures, "ProcessPoolExecutor", Watched)
    with (
        pool("forkserver", 3, initializer=os.getpid) as lent,
        pytest.warns(RuntimeWarning, match="run again in a new pool"),
    ):
        run(Fatal(1000, flags(tmp_path, 1)), executor=lent)
    theirs, ours = made
    for name in ("_max_workers", "_mp_context", "_initializer", "_initargs"):
        assert getattr(ours, name) == getattr(theirs, name), name
    with pytest.raises(RuntimeError, match="after shutdown"):
        ours.submit(int)


def test_several_deaths_of_one_block_are_no_poison_while_it_may_have_been_its_company(tmp_path):
    """Twice it is lost beside other blocks; alone it lives."""
    undisturbed = of_paths(run(sde.targets.Gaussian(0.0, 1.0)))
    with pool("fork") as lent, pytest.warns(RuntimeWarning, match="a worker process died") as caught:
        paths = run(Fatal(1000, flags(tmp_path, 2)), executor=lent)
    assert len(caught) == 1
    assert of_paths(paths) == undisturbed


def test_a_pool_that_is_broken_when_it_is_lent_is_replaced():
    with pool("fork") as lent:
        with pytest.raises(concurrent.futures.BrokenExecutor):
            lent.submit(os._exit, 9).result()
        with pytest.warns(RuntimeWarning, match="a worker process died"):
            assert of_statistics(run(reduce=REDUCE, executor=lent)) == of_statistics(run(reduce=REDUCE))


def test_a_worker_killed_while_it_sends_its_result(tmp_path):
    """The pool would wait for the other half for ever."""
    plan, flag = blocks.cut(0, 12 * LEAF, LEAF), str(tmp_path / "half")
    with pool("fork") as lent, pytest.warns(RuntimeWarning, match="a worker process died"):
        found = blocks.run(sending_half, plan, (flag,), executor=lent, workers=2)
    assert found == ([block.offset for block in plan], True)
    assert os.path.exists(flag)


def sending_half(block, flag):
    if block.offset == 3 * LEAF and not os.path.exists(flag):
        pathlib.Path(flag).touch()
        multiprocessing.connection.Connection._send_bytes = half
    return block.offset


def half(pipe, message):
    os.write(pipe.fileno(), len(message).to_bytes(4, "big") + bytes(message[: len(message) // 2]))
    os.kill(os.getpid(), signal.SIGKILL)


def test_samples_survive_a_worker(tmp_path):
    process = sde.VariancePreserving()
    score = Mortal(sde.marginal_score(process, sde.targets.Gaussian(np.zeros(2), np.eye(2))), flags(tmp_path, 1))
    here = sde.sample(process, score, 1500, n_steps=5, seed=3)
    with pool("fork") as lent, pytest.warns(RuntimeWarning, match="a worker process died"):
        there = sde.sample(process, score, 1500, n_steps=5, seed=3, executor=lent)
    assert there.tobytes() == here.tobytes()


class Mortal:
    """A score that kills its process at some call from the third on, once."""

    dim = 2

    def __init__(self, score, flags):
        self.score, self.flags, self.calls = score, flags, 0

    def __call__(self, x, t):
        self.calls += 1
        away = multiprocessing.parent_process() is not None
        if self.calls >= 3 and away and not os.path.exists(self.flags[0]):
            pathlib.Path(self.flags[0]).touch()
            os._exit(9)
        return self.score(x, t)


# ---- F7: a block that kills every worker


def test_poison_is_named_and_what_is_finished_is_kept():
    plan, kept, stop = blocks.cut(0, 12 * LEAF, LEAF), [], np.zeros(1, np.uint8)

    def keep(results):
        kept.append((int(stop[0]), dict(results)))

    with pool("fork") as lent, pytest.warns(RuntimeWarning), pytest.raises(WorkerError) as caught:
        blocks.run(deadly, plan, (3 * LEAF,), executor=lent, workers=2, stop=stop, keep=keep)
    assert caught.value.block == 3
    assert caught.value.paths == range(3 * LEAF, 4 * LEAF)
    assert "block 3 (paths 768 … 1023) died, the last one alone; its memory may not be enough" in str(caught.value)
    assert isinstance(caught.value.__cause__, concurrent.futures.BrokenExecutor)
    flag, results = kept[-1]
    assert flag == 1
    assert set(results) >= {0, 1, 2}  # and blocks that were only in its company are not blamed
    assert all(result == LEAF * number for number, result in results.items())


def deadly(block, at):
    if block.first <= at < block.first + block.size:
        time.sleep(0.05)
        os._exit(9)
    return block.offset


def test_poison_in_a_simulation():
    with pool("fork") as lent, pytest.warns(RuntimeWarning), pytest.raises(WorkerError, match="paths 512 … 1023"):
        run(Fatal(1000), executor=lent)


def test_workers_that_cannot_even_start_are_told_from_poison():
    lent = pool("fork", initializer=os._exit, initargs=(9,))
    with lent, pytest.warns(RuntimeWarning), pytest.raises(WorkerError, match="no worker finished anything"):
        run(executor=lent)


def test_an_exception_is_no_death(tmp_path):
    """It is raised at once, with the traceback of the user's function, and the block is not run again."""
    diary = tmp_path / "diary"
    with pool("fork") as lent, pytest.raises(LookupError, match="no drift here") as caught:
        blocks.run(raising, blocks.cut(0, 4 * LEAF, LEAF), (str(diary),), executor=lent, workers=1)
    assert "in raising" in str(caught.value.__cause__)
    assert diary.read_text().split() == ["0", str(LEAF)]
    with pool("fork") as lent, pytest.raises(sde.errors.NonFiniteError, match="3001 of 3001 paths became non-finite"):
        sde.simulate(sde.ito(runaway, one), 9.0, (0, 40), n_steps=40, n_paths=3001, seed=1, executor=lent)


def raising(block, diary):
    with open(diary, "a") as file:
        file.write(f"{block.offset} ")
    if block.offset == LEAF:
        raise LookupError("no drift here")
    time.sleep(0.05)


def runaway(x, t):
    return x * x * x


def one(x, t):
    return 1.0


# ---- F16: many processes and a cold cache


def cold(folder):
    os.environ["SDESIM_CACHE_DIR"] = folder


def small(seed):
    return sde.simulate(sde.ito(runaway, one), 0.1, (0, 0.1), n_steps=3, n_paths=600, seed=seed).final.tobytes()


def test_eight_processes_fill_a_cold_cache_together(tmp_path):
    with pool("forkserver", 8, initializer=cold, initargs=(str(tmp_path),)) as lent:
        futures = [lent.submit(small, 5) for _ in range(8)]
        found = {future.result() for future in futures}
    assert found == {small(5)}
    assert list(tmp_path.rglob("*.nbi"))


# ---- F17: processes after threads


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
def test_processes_started_after_threads_have_worked(kind):
    here = run(reduce=REDUCE, workers=3)
    held = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        threads.submit(held.wait)  # a thread that is at work while the processes start
        try:
            with pool(kind, 1) as lent:
                assert lent.submit(statistics_on_threads).result(60) == of_statistics(here)  # threads inside the child
                assert of_statistics(run(reduce=REDUCE, executor=lent)) == of_statistics(here)
        finally:
            held.set()
    assert of_statistics(run(reduce=REDUCE, workers=3)) == of_statistics(here)


def statistics_on_threads():
    return of_statistics(run(reduce=REDUCE, workers=2))


# ---- F18: calls at the same time


def test_calls_from_four_threads_at_once():
    process = sde.VariancePreserving()
    score = sde.marginal_score(process, sde.targets.Gaussian(np.zeros(2), np.eye(2)))
    calls = [
        lambda: of_paths(run(n_paths=700, workers=2)),
        lambda: of_statistics(run(n_paths=901, reduce=REDUCE, workers=3)),
        lambda: of_paths(run(n_paths=300, dtype=np.float32)),
        lambda: digest(sde.sample(process, score, 300, n_steps=3, seed=1, workers=2)),
    ]
    alone = [call() for call in calls]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda k: calls[k % 4](), range(200)))
    assert together == alone * 50


def test_runs_that_share_a_pool_of_processes_do_not_take_each_others_jobs():
    """More runs at a time than a worker remembers jobs."""
    seeds = range(3 * executors.HELD_JOBS)

    def call(seed, **settings):
        return digest(sde.simulate(OU, 0.1, (0, 1), n_steps=4, n_paths=2000, seed=seed, **settings).final)

    with pool("fork") as lent, concurrent.futures.ThreadPoolExecutor(len(seeds)) as threads:
        lent.submit(int).result()
        together = list(threads.map(lambda seed: call(seed, executor=lent), seeds))
    assert together == [call(seed) for seed in seeds]
    assert not executors._held


# ---- F19: one thread or many


@pytest.mark.parametrize("n", [1, 255, 257, N])
def test_any_number_of_threads_gives_the_bits_of_one(n):
    process = sde.VariancePreserving()
    score = sde.marginal_score(process, sde.targets.Gaussian(np.zeros(2), np.eye(2)))

    def everything(workers):
        return (
            of_paths(run(n_paths=n, workers=workers, first_path=77)),
            of_statistics(run(n_paths=n, workers=workers, first_path=77, reduce=REDUCE)),
            digest(sde.sample(process, score, n, n_steps=4, seed=2, workers=workers)),
        )

    alone = everything(1)
    assert [everything(workers) for workers in (2, 3, 8)] == [alone] * 3
