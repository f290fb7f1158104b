"""Blocks of paths: every path once, any executor, progress, errors, and Ctrl-C."""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.core import blocks
from sdesim.core.blocks import LEAF, Block

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.5)


@settings(max_examples=200, deadline=None)
@given(
    first=st.one_of(st.integers(0, 3000), st.integers(2**32 - 3000, 2**32 + 3000), st.just(2**63 - 10_000)),
    n=st.integers(1, 9000),
    size=st.integers(1, 5000),
)
def test_cut_covers_every_path_once_at_leaves(first, n, size):
    cut = blocks.cut(first, n, size)
    assert cut[0].first == first
    assert cut[0].offset == 0
    assert sum(block.size for block in cut) == n
    step = max(LEAF, size // LEAF * LEAF)
    for block, following in zip(cut, [*cut[1:], Block(first + n, 1, n)], strict=True):
        assert 1 <= block.size <= step
        assert block.first + block.size == following.first
        assert block.offset + block.size == following.offset
    assert all(block.first % step == 0 for block in cut[1:])


def test_a_cut_of_nothing():
    assert blocks.cut(5, 0, 256) == []


def squares(block, power):
    return [(block.first + i) ** power for i in range(block.size)]


def slowly(block, seconds):
    time.sleep(seconds if block.offset % (2 * LEAF) else 0.0)  # later blocks are done first
    return block.offset


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_results_come_in_the_order_of_the_blocks(workers):
    plan = blocks.cut(100, 5000, 256)
    results, complete = blocks.run(slowly, plan, (0.003,), workers=workers)
    assert complete
    assert results == [block.offset for block in plan]


def test_no_blocks_no_results():
    assert blocks.run(squares, [], (2,)) == ([], True)


def test_threads_and_processes_give_one_result():
    plan = blocks.cut(7, 3000, 512)
    own, _ = blocks.run(squares, plan, (2,), workers=2)
    assert list(itertools.chain(*own)) == [k**2 for k in range(7, 3007)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert blocks.run(squares, plan, (2,), executor=pool, workers=2) == (own, True)
        assert pool.submit(int, "3").result() == 3  # an executor that was lent is left running


class Inline:
    """The least that an executor can be."""

    def __init__(self):
        self.submitted = 0

    def submit(self, function, *arguments):
        self.submitted += 1
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_anything_with_submit_is_an_executor():
    inline = Inline()
    here = sde.simulate(OU, 0.0, (0, 1), n_steps=4, n_paths=3000, seed=1, executor=inline)
    assert inline.submitted > 1
    assert np.array_equal(here.final, sde.simulate(OU, 0.0, (0, 1), n_steps=4, n_paths=3000, seed=1).final)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_processes_give_the_bits_of_threads():
    """A library process in spawned workers, that compile (or load) for themselves."""
    settings = dict(n_steps=5, n_paths=2500, seed=3, save=2)
    here = sde.simulate(OU, 0.0, (0, 1), **settings)
    moments = sde.simulate(OU, 0.0, (0, 1), reduce=[sde.Moments(), sde.Histogram(-1, 1, 9)], **settings).reductions
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        there = sde.simulate(OU, 0.0, (0, 1), executor=pool, **settings)
        reduced = sde.simulate(
            OU, 0.0, (0, 1), executor=pool, reduce=[sde.Moments(), sde.Histogram(-1, 1, 9)], **settings
        ).reductions
    assert np.array_equal(there.x, here.x)
    assert np.array_equal(there.final, here.final)
    assert reduced[0].mean.tobytes() == moments[0].mean.tobytes()
    assert reduced[0].variance.tobytes() == moments[0].variance.tobytes()
    assert np.array_equal(reduced[1].counts, moments[1].counts)


def test_progress_counts_to_the_end():
    seen = []
    sde.simulate(
        OU, 0.0, (0, 1), n_steps=2, n_paths=5000, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert [total for _, total in seen] == [5000] * len(seen)
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert len(set(done)) == len(done) > 3
    assert done[-1] == 5000


def test_a_bar_is_drawn_and_leaves_nothing(capsys):
    sde.simulate(OU, 0.0, (0, 1), n_steps=2, n_paths=5000, seed=0, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""


def failing(block, at):
    if block.offset >= at:
        raise ZeroDivisionError(f"block at {block.offset}")
    return block.offset


@pytest.mark.parametrize("executor", [None, "threads"])
def test_an_error_of_a_task_is_raised_and_the_rest_is_not_run(executor):
    stop = np.zeros(1, np.uint8)
    ran = []

    def task(block, at):
        ran.append(block.offset)
        return failing(block, at)

    plan = blocks.cut(0, 100 * LEAF, LEAF)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with pytest.raises(ZeroDivisionError, match="block at 768"):
            blocks.run(task, plan, (3 * LEAF,), executor=pool if executor else None, workers=2, stop=stop)
        assert stop[0] == 1
    assert len(ran) <= 20


def test_a_timeout_of_the_task_itself_is_an_error_like_any_other():
    def task(block):
        raise TimeoutError("from inside")

    with pytest.raises(TimeoutError, match="from inside"):
        blocks.run(task, blocks.cut(0, 10, 256), ())


def test_an_error_of_progress_is_raised():
    def progress(done, total):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        sde.simulate(OU, 0.0, (0, 1), n_steps=2, n_paths=5000, seed=0, progress=progress)


def test_an_error_of_a_coefficient_in_whole_array_steps_is_the_users_own():
    def drift(x, t):
        if t > 0.5:
            raise LookupError("no drift beyond 0.5")
        return -x

    process = sde.ito(drift, lambda x, t: 1.0, compiled=False)
    with pytest.raises(LookupError, match=r"beyond 0\.5"):
        sde.simulate(process, 0.0, (0, 1), n_steps=10, n_paths=600, seed=0)


# ---- results that are had already, and results to keep ------------------------------------------------------


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_blocks_with_a_result_are_not_run_and_are_counted(executor):
    plan, ran, seen = blocks.cut(100, 5000, 256), [], []

    def task(block):
        ran.append(block.offset)
        return block.offset

    def progress(done, total):
        seen.append((done, total))

    found = {number: -number for number in (0, 3, 4, len(plan) - 1)}
    lent = Inline() if executor == "inline" else None
    results, complete = blocks.run(task, plan, (), workers=2, found=found, progress=progress, executor=lent)
    assert complete
    assert results == [found.get(number, block.offset) for number, block in enumerate(plan)]
    assert sorted(ran) == [block.offset for number, block in enumerate(plan) if number not in found]
    assert seen[0] == (sum(plan[number].size for number in found), 5000)
    assert seen[-1] == (5000, 5000)
    everything = dict(enumerate(results))
    assert blocks.run(task, plan, (), found=everything) == (results, True)
    assert found == {number: -number for number in (0, 3, 4, len(plan) - 1)}  # the caller's own is left alone


def test_keep_is_told_of_all_results_by_the_thread_that_waits():
    plan, told = blocks.cut(0, 20 * LEAF, LEAF), []

    def keep(results):
        assert threading.current_thread() is threading.main_thread()
        told.append(dict(results))

    results, _ = blocks.run(slowly, plan, (0.002,), workers=3, found={7: "had"}, keep=keep)
    assert [len(one) for one in told] == list(range(2, 21))
    assert all(one[7] == "had" for one in told)
    assert told[-1] == dict(enumerate(results))
    assert all(value == results[number] for one in told for number, value in one.items())


def test_keep_is_told_at_an_error_once_the_flag_is_up():
    stop, told = np.zeros(1, np.uint8), []

    def keep(results):
        told.append((int(stop[0]), dict(results)))

    with pytest.raises(ZeroDivisionError):
        blocks.run(failing, blocks.cut(0, 9 * LEAF, LEAF), (4 * LEAF,), workers=1, stop=stop, keep=keep)
    assert told[-1] == (1, {number: number * LEAF for number in range(4)})
    assert [flag for flag, _ in told[:-1]] == [0] * 4


def test_an_error_of_keep_is_raised_and_keep_not_called_again():
    called = []

    def keep(results):
        called.append(len(results))
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        blocks.run(squares, blocks.cut(0, 9 * LEAF, LEAF), (1,), workers=1, keep=keep)
    assert called == [1]


def test_an_interruption_keeps_what_is_finished_out_of_order_too():
    plan, told, stop = blocks.cut(0, 6 * LEAF, LEAF), [], np.zeros(1, np.uint8)
    release = threading.Event()

    def task(block):
        if block.offset == 2 * LEAF:
            release.wait(10)
        return block.offset

    def keep(results):
        told.append((int(stop[0]), sorted(results)))
        if stop[0]:
            release.set()
        elif len(results) == 5:
            raise KeyboardInterrupt

    results, complete = blocks.run(task, plan, (), workers=2, stop=stop, keep=keep)
    assert not complete
    assert results == [0, LEAF]  # gapless
    assert told[-1] == (1, [0, 1, 3, 4, 5])


# ---- Ctrl-C -------------------------------------------------------------------------------------------------


def interrupted(after, run, once=None):
    """Send SIGINT ``after`` seconds into ``run()``, or into what sets ``once``; its result, and how long it took."""
    sent = []

    def send():
        if once is not None:
            once.wait(10)
            time.sleep(after)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.0 if once else after, send)
    timer.start()
    try:
        result = run()
        answered = time.perf_counter()
    finally:
        timer.join()
    return result, answered - sent[0]


needs_signals = pytest.mark.skipif(os.name != "posix", reason="os.kill sends no SIGINT here")


@needs_signals
@pytest.mark.parametrize("executor", [None, "threads"])
@pytest.mark.parametrize("reduce", [False, True])
def test_ctrl_c_is_answered_with_the_finished_paths(executor, reduce):
    n_steps = 4000
    reduction = [sde.Moments()] if reduce else None

    def run(n_paths=2_000_000):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return sde.simulate(
                OU, 0.0, (0, 1), n_steps=n_steps, n_paths=n_paths, seed=5, reduce=reduction,
                executor=pool if executor else None,
            )  # fmt: skip

    run(256)
    paths, delay = interrupted(0.8, run)
    assert delay < 0.5
    assert not paths.success
    assert f"interrupted: {paths.n_paths} of 2000000" in paths.message
    assert paths.n_paths < 2_000_000
    if reduce:
        if paths.n_paths:
            assert paths.reductions[0].n == paths.n_paths
        else:
            assert paths.reductions == []
    else:
        assert paths.final.shape == (paths.n_paths,)
        assert np.isfinite(paths.final).all()


@needs_signals
def test_the_paths_finished_at_ctrl_c_are_those_of_an_undisturbed_run(monkeypatch):
    cut = blocks.cut
    monkeypatch.setattr(blocks, "cut", lambda first, n, size: cut(first, n, 256))

    def run(n_paths):
        return sde.simulate(OU, 0.0, (0, 1), n_steps=2000, n_paths=n_paths, seed=5, save=1000)

    run(256)
    paths, delay = interrupted(0.5, lambda: run(1_000_000))
    assert delay < 0.5
    n = paths.n_paths
    assert n % 256 == 0
    assert n > 0
    whole = run(n)
    assert np.array_equal(paths.final, whole.final)
    assert np.array_equal(paths.x, whole.x)
    assert whole.success


@needs_signals
def test_ctrl_c_stops_whole_array_steps():
    process = sde.ito(lambda x, t: -x, lambda x, t: 1.0, compiled=False)

    def run(n_steps=200_000):
        return sde.simulate(process, 0.0, (0, 1), n_steps=n_steps, n_paths=10_000, seed=5)

    run(2)
    paths, delay = interrupted(0.5, run)
    assert delay < 0.5
    assert not paths.success
    assert paths.n_paths == 0
    assert paths.final.shape == (0,)


class StoppedLate:
    """A stand-in for a kernel that the flag cuts short the instant it is raised."""

    def __init__(self):
        self.stop = np.zeros(1, np.uint8)
        self.started = threading.Event()

    def task(self, block):
        if block.offset == 0:
            return "whole"
        self.started.set()
        while not self.stop[0]:
            time.sleep(0)
        return "cut short"


@needs_signals
def test_a_block_cut_short_by_the_flag_is_not_taken_for_finished():
    for _ in range(20):
        late = StoppedLate()

        def run(late=late):
            return blocks.run(late.task, blocks.cut(0, 4 * LEAF, LEAF), (), workers=3, stop=late.stop)

        (results, complete), _ = interrupted(0.02, run, late.started)
        assert not complete
        assert results == ["whole"]
