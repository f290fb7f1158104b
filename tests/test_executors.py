"""Workers elsewhere: batches of half a second, a job that travels once, and the bits of one thread on any executor."""

import concurrent.futures
import concurrent.futures.process
import hashlib
import logging
import multiprocessing
import os
import pathlib
import pickle
import sys
import threading
import time
import types

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import blocks, executors
from sdesim.core.blocks import LEAF
from sdesim.errors import WorkerError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

VP = sde.VariancePreserving()
PLANE = sde.targets.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [np.eye(2) * 0.1] * 2)


class Cluster:
    """Workers elsewhere, in this process: what they are sent is pickled, and they answer at once.

    ``forgets`` makes every worker a new one; ``at(task number)`` may raise or return what the future holds instead.
    """

    def __init__(self, num_workers=2, forgets=False, at=None):
        self.num_workers, self.forgets, self.at = num_workers, forgets, at
        self.tasks = []  # (whether the job was sent, the blocks) of every task

    def submit(self, function, token, job, blocks):
        self.tasks.append((job is not None, blocks))
        future = concurrent.futures.Future()
        if self.forgets:
            executors._held.clear()
        try:
            if self.at is not None:
                self.at(len(self.tasks) - 1)
            answer = function(*pickle.loads(pickle.dumps((token, job, blocks))))
            future.set_result(pickle.loads(pickle.dumps(answer)))
        except BaseException as error:
            future.set_exception(error)
        return future


def offset(block, *_):
    return block.offset


def offsets(plan):
    return [block.offset for block in plan]


# ---- batches


class Clock:
    """Time that passes only while a block is worked on."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(executors, "time", clock)
    monkeypatch.setitem(globals(), "CLOCK", clock)
    return clock


def taking(block, seconds_per_leaf):
    CLOCK.now += seconds_per_leaf * block.size / LEAF  # noqa: F821, put there by the fixture
    return block.offset


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("seconds", "expected"), [(0.11, 5), (0.3, 2), (0.5, 1), (7.0, 1), (1e-4, 248)])
def test_a_task_is_as_many_blocks_as_take_half_a_second(seconds, expected):
    cluster, plan = Cluster(1), blocks.cut(0, 250 * LEAF, LEAF)
    assert blocks.run(taking, plan, (seconds,), executor=cluster, workers=1) == (offsets(plan), True)
    sizes = [len(batch) for _, batch in cluster.tasks]
    assert sizes[:2] == [1, 1]  # until the first answer nothing is known of the pace
    assert max(sizes) == expected
    assert sizes[2] == expected
    assert sum(sizes) == 250


@pytest.mark.usefixtures("clock")
def test_the_last_blocks_are_shared_out_among_the_workers():
    cluster, plan = Cluster(4), blocks.cut(0, 61 * LEAF, LEAF)
    blocks.run(taking, plan, (1e-3,), executor=cluster, workers=4)
    sizes = [len(batch) for _, batch in cluster.tasks]
    assert sizes[:8] == [1] * 8
    assert sizes[8:] == sorted(sizes[8:], reverse=True)
    assert 53 // 4 <= sizes[8] <= 53 // 4 + 1
    assert sizes[-3:] == [1, 1, 1]


@pytest.mark.usefixtures("clock")
def test_a_slow_start_is_forgotten():
    """The first block compiles; the least pace that was seen is the one that counts."""
    cluster, plan = Cluster(1), blocks.cut(0, 100 * LEAF, LEAF)
    blocks.run(compiling, plan, (), executor=cluster, workers=1)
    assert max(len(batch) for _, batch in cluster.tasks) >= 25


def compiling(block):
    return taking(block, 3.0 if block.offset == 0 else 0.02)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("forgets", [False, True])
def test_simulations_and_samples_are_the_same_bits_in_batches(workers, forgets):
    settings = dict(n_steps=6, n_paths=9001, seed=3, first_path=77)
    reduce = [sde.Moments(), sde.FirstPassage(upper=0.5, bins=5)]
    process, cluster = sde.OrnsteinUhlenbeck(), Cluster(workers, forgets)
    here = sde.simulate(process, 0.0, (0, 1), save=2, **settings)
    there = sde.simulate(process, 0.0, (0, 1), save=2, executor=cluster, workers=workers, **settings)
    assert there.x.tobytes() == here.x.tobytes()
    one, other = (
        sde.simulate(process, 0.0, (0, 1), reduce=reduce, **where, **settings).reductions
        for where in ({}, {"executor": cluster, "workers": workers})
    )
    assert pickle.dumps(one[0]) == pickle.dumps(other[0])
    assert one[1].density.tobytes() == other[1].density.tobytes()
    score, sampling = sde.marginal_score(VP, PLANE), {"n_steps": 3, "seed": 4}
    alone = sde.sample(VP, score, 5000, **sampling)
    cluster.tasks.clear()
    lent = sde.sample(VP, score, 5000, executor=cluster, workers=workers, **sampling)
    assert lent.tobytes() == alone.tobytes()
    assert max(len(batch) for _, batch in cluster.tasks) > 1


# ---- the job


class Counted:
    """It knows how often it was pickled, and how often it was opened, here."""

    pickled = opened = 0

    def __getstate__(self):
        Counted.pickled += 1
        return {"x": 1}

    def __setstate__(self, state):
        Counted.opened += 1


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counted, "pickled", 0)
    monkeypatch.setattr(Counted, "opened", 0)
    return Counted()


def test_the_job_travels_once_to_a_worker(counted):
    cluster, plan = Cluster(3), blocks.cut(0, 100 * LEAF, LEAF)
    assert blocks.run(offset, plan, (counted,), executor=cluster, workers=3) == (offsets(plan), True)
    assert [sent for sent, _ in cluster.tasks] == [True] * 3 + [False] * (len(cluster.tasks) - 3)
    assert len(cluster.tasks) > 6
    assert not executors._held  # ours is forgotten, as this process is no worker


def test_a_worker_that_does_not_know_the_job_is_sent_it(counted):
    cluster, plan = Cluster(1, forgets=True), blocks.cut(0, 20 * LEAF, LEAF)
    assert blocks.run(offset, plan, (counted,), executor=cluster, workers=1) == (offsets(plan), True)
    sent = [(carried, [block.offset for block in batch]) for carried, batch in cluster.tasks]
    refused = [batch for carried, batch in sent if not carried]
    assert refused
    assert all((True, batch) in sent for batch in refused)
    assert counted.opened == sum(carried for carried, _ in sent)


def test_a_process_pool_is_sent_bytes_that_were_pickled_once(counted):
    plan = blocks.cut(0, 40 * LEAF, LEAF)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert blocks.run(offset, plan, (counted,), executor=pool, workers=2) == (offsets(plan), True)
    assert counted.pickled == 1


def test_a_worker_remembers_a_few_jobs_only(monkeypatch):
    monkeypatch.setattr(executors, "_held", held := {})
    for number in range(10):
        executors._work(f"token {number}", executors._Job(offset, ()), [])
        executors._work("token 0", executors._Job(offset, ()), [])
    assert len(held) == executors.HELD_JOBS
    assert {"token 0", "token 9", "token 8"} <= set(held)  # the last ones that were used
    assert executors._work("token 1", None, []) is None


def test_what_a_worker_cannot_open_is_said_and_kills_no_pool(monkeypatch):
    monkeypatch.setitem(sys.modules, "only_here", module := types.ModuleType("only_here"))
    exec("def task(block):\n    return 1", module.__dict__)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(
            TypeError, match=r"cannot be sent to the executor's processes \(No module named 'only_here'"
        ):
            blocks.run(module.task, blocks.cut(0, 4 * LEAF, LEAF), (), executor=pool)
        with pytest.raises(TypeError, match="cannot be sent to the executor's processes"):
            blocks.run(lambda block: 1, blocks.cut(0, 4 * LEAF, LEAF), (), executor=pool)
        assert pool.submit(int, "3").result() == 3


# ---- faults that need no processes


def test_an_interrupted_worker_interrupts_the_run():
    def at(number):
        if number == 5:
            raise KeyboardInterrupt

    plan = blocks.cut(0, 300 * LEAF, LEAF)
    results, complete = blocks.run(pausing, plan, (), executor=Cluster(1, at=at), workers=1)
    assert not complete
    assert results == offsets(plan)[: len(results)]
    assert 5 <= len(results) < 300


def pausing(block):
    time.sleep(0.01)
    return block.offset


def test_a_broken_executor_of_another_kind_is_an_error():
    def at(number):
        raise concurrent.futures.BrokenExecutor("its ship has sunk")

    with pytest.raises(WorkerError, match=r"its ship has sunk.*cannot be made again"):
        blocks.run(offset, blocks.cut(0, 300 * LEAF, LEAF), (), executor=Cluster(at=at))


def test_pools_that_break_one_after_another_are_given_up(monkeypatch):
    pools = []

    class Sunk(concurrent.futures.ProcessPoolExecutor):
        def submit(self, *_):
            pools.append(self)
            raise concurrent.futures.process.BrokenProcessPool("sunk again")

    monkeypatch.setattr(executors.concurrent.futures, "ProcessPoolExecutor", Sunk)
    with (
        pytest.warns(RuntimeWarning, match="a worker process died"),
        pytest.raises(WorkerError, match=r"^5 process pools .* .sunk again. before any result"),
    ):
        blocks.run(offset, blocks.cut(0, 300 * LEAF, LEAF), (), executor=Sunk(1))
    assert len(set(pools)) == len(pools) == 6


def test_tasks_that_others_cancelled_are_run_again():
    """As Dask does when its workers are restarted."""

    def at(number):
        if number in (1, 2):
            raise concurrent.futures.CancelledError

    cluster, plan = Cluster(1, at=at), blocks.cut(0, 30 * LEAF, LEAF)
    assert blocks.run(offset, plan, (), executor=cluster) == (offsets(plan), True)


class KilledWorker(Exception):
    """Has the name of Dask's."""


def test_a_block_that_dask_gave_up_is_run_alone_once_more():
    plan, cluster = blocks.cut(0, 30 * LEAF, LEAF), Cluster(1)

    def at(number):
        batch = cluster.tasks[number][1]
        if any(block.offset == 9 * LEAF for block in batch):
            seen.append(len(batch))
            raise KilledWorker

    seen, cluster.at = [], at
    with pytest.raises(WorkerError, match=r"block 9 \(paths 2304 … 2559\)") as caught:
        blocks.run(offset, plan, (), executor=cluster)
    assert len(seen) == 2  # its own tries are behind Dask already
    assert seen[1] == 1
    assert isinstance(caught.value.__cause__, KilledWorker)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.block, copy.paths) == (str(caught.value), 9, range(2304, 2560))


class Waiting:
    """Workers that finish when they are told."""

    def __init__(self):
        self.batches, self.futures = [], []

    def submit(self, function, token, job, blocks):
        self.batches.append(blocks)
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]


def test_a_suspect_has_no_company():
    plan, workers = blocks.cut(0, 30 * LEAF, LEAF), Waiting()
    crew = executors.Elsewhere(workers, 2, offset, (), plan, {}, "paths")

    def home(number):
        workers.futures[number].set_result((1.0, [block.offset for block in workers.batches[number]]))
        return crew.wait()

    crew.fill()
    assert workers.batches == [[plan[0]], [plan[1]], [plan[2]], [plan[3]]]
    workers.futures[1].set_exception(KilledWorker())
    assert crew.wait() == []
    for number in (0, 2):
        crew.fill()
        assert home(number) == [number]
    crew.fill()
    assert len(workers.batches) == 4  # until the others are home nobody is sent out
    assert home(3) == [3]
    crew.fill()
    crew.fill()
    assert workers.batches[4:] == [[plan[1]]]  # and then it is alone
    assert home(4) == [1]
    crew.fill()
    assert workers.batches[5:] == [[plan[4]], [plan[5]], [plan[6]], [plan[7]]]


def test_the_number_of_workers_of_an_executor():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert blocks.check_executor(pool, None) == 3
        assert blocks.check_executor(pool, 2) == 2
    assert blocks.check_executor(Cluster(5), None) == 5  # as mpi4py.futures says it
    assert blocks.check_executor(types.SimpleNamespace(submit=print), None) == blocks.available_cores()


# ---- independent trainings


def test_trainings_in_processes_give_the_bits_of_trainings_here():
    data, options = PLANE.sample(200, seed=1), {"process": VP, "n_iterations": 5, "batch_size": 32, "workers": 1}
    nets = [sde.ScoreMLP(2, hidden=(8,), seed=seed) for seed in range(3)]
    here = [sde.fit_score(net, data, seed=seed, **options) for seed, net in enumerate(nets)]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        futures = [pool.submit(sde.fit_score, net, data, seed=seed, **options) for seed, net in enumerate(nets)]
        there = [future.result() for future in futures]
    x = PLANE.sample(50, seed=2)
    for one, other in zip(here, there, strict=True):
        assert one.losses.tobytes() == other.losses.tobytes()
        assert one.score(x, 0.3).tobytes() == other.score(x, 0.3).tobytes()


# ---- Dask


class AsDask(Cluster):
    """Takes the option of Dask, to which two tasks of the same arguments are one unless they are not pure."""

    def submit(self, *arguments, pure=True):
        assert not pure
        return super().submit(*arguments)

    def ncores(self):
        return {"tcp://one": 2, "tcp://two": 1}


AsDask.__module__ = "distributed.client"


def test_a_task_sent_to_dask_again_is_not_the_old_one():
    cluster, plan = AsDask(None), blocks.cut(0, 30 * LEAF, LEAF)
    assert blocks.check_executor(cluster, None) == 3
    assert blocks.run(offset, plan, (), executor=cluster) == (offsets(plan), True)


@pytest.fixture(scope="module")
def dask():
    """A scheduler and two workers, which are processes."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def on_dask(executor, **settings):
    process = sde.OrnsteinUhlenbeck(1.0, 0.2, 0.8)
    reduce = [sde.Histogram(-3, 3, 20), sde.FirstPassage(upper=0.9, bins=8)]
    paths = sde.simulate(
        process, 0.1, (0, 1), n_paths=20_001, n_steps=12, seed=9, reduce=reduce, executor=executor, **settings
    )
    histogram, passage = paths.reductions
    return hashlib.sha256(histogram.counts.tobytes() + passage.density.tobytes()).hexdigest()


@pytest.mark.slow
def test_dask_gives_the_bits_of_threads(dask):
    for executor in (dask.get_executor(), dask):
        assert blocks.check_executor(executor, None) == 2
        seen = []
        assert on_dask(executor, progress=lambda *done: seen.append(done)) == on_dask(None)  # noqa: B023
        assert seen[-1] == (20_001, 20_001)
    factor, plan = 3, blocks.cut(0, 400 * LEAF, LEAF)
    tripled, _ = blocks.run(lambda block: factor * block.offset, plan, (), executor=dask)  # a closure: Dask can
    assert tripled == [factor * block.offset for block in plan]
    large = np.zeros(2_000_000)  # beyond what Dask warns of
    sizes, _ = blocks.run(length, plan, (large,), executor=dask)
    assert sizes == [2_000_000] * 400
    score = sde.marginal_score(VP, PLANE)
    lent = sde.sample(VP, score, 1500, n_steps=4, seed=1, executor=dask.get_executor())
    assert lent.tobytes() == sde.sample(VP, score, 1500, n_steps=4, seed=1).tobytes()


def length(block, x):
    return len(x)


@pytest.mark.slow
def test_a_worker_that_dask_loses_costs_time_one_warning_and_no_bits(dask, tmp_path):
    flag = str(tmp_path / "death")
    plan = blocks.cut(0, 40 * LEAF, LEAF)
    with pytest.warns(RuntimeWarning, match="1 of 2 workers left the cluster") as caught:
        results, complete = blocks.run(dying_once, plan, (flag,), executor=dask.get_executor())
    assert os.path.exists(flag)
    assert (results, complete) == (offsets(plan), True)
    assert len(caught) == 1


def dying_once(block, flag):
    if block.offset == 7 * LEAF and not os.path.exists(flag):
        pathlib.Path(flag).touch()
        os._exit(9)
    time.sleep(0.01)
    return block.offset


@pytest.mark.slow
def test_a_block_that_kills_dasks_workers_is_named(dask):
    def first_deaths(dask_scheduler):
        dask_scheduler.allowed_failures = 0  # to be done in seconds

    dask.run_on_scheduler(first_deaths)
    with pytest.raises(WorkerError, match=r"block 3 \(paths 768 … 1023\)"):
        blocks.run(dying, blocks.cut(0, 8 * LEAF, LEAF), (), executor=dask.get_executor())


def dying(block):
    if block.offset == 3 * LEAF:
        os._exit(9)
    return block.offset


@pytest.mark.slow
def test_ctrl_c_on_dask(dask):
    plan = blocks.cut(0, 2000 * LEAF, LEAF)
    dask.wait_for_workers(2, timeout=60)

    def progress(done, total):
        if done > 20 * LEAF:
            raise KeyboardInterrupt

    start = time.perf_counter()
    results, complete = blocks.run(pausing, plan, (), executor=dask.get_executor(), progress=progress)
    assert time.perf_counter() - start < 10
    assert not complete
    assert results == offsets(plan)[: len(results)]
    assert threading.active_count() < 100
