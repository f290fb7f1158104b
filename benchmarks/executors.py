"""Executors: are the bits the same everywhere, what does a cluster cost, and what does a worker cost that dies.

    python benchmarks/executors.py                a few minutes on two cores
    python benchmarks/executors.py --quick        fewer paths and settings; a minute
    python benchmarks/executors.py --part bits    one part only: bits, cost or deaths
    python benchmarks/executors.py --soak 10      nothing but random jobs with random kills, for ten minutes
    python benchmarks/executors.py --json -       JSON on stdout, the table on stderr

bits    One hash each for paths, histograms, first passages and the samples of a network that was trained here, over the
        numbers of threads {1, 2, 3, 8}, sizes of blocks, {our threads, a thread pool, spawned processes, Dask}, and
        {undisturbed, interrupted by Ctrl-C after a third and gone on with from the checkpoint}.
cost    A long simulation on two workers, in tasks that take half a second. "idle" is what the workers waited,
        workers x seconds / seconds of work − 1, and the claim: at most 5 % on a Dask LocalCluster. "CPU" is the CPU
        time of all processes over that of one thread, − 1. Dask's event loops and its profiler take 0.12 CPU seconds
        for every second that passes (two workers, also when they have nothing to do), which a busy machine draws out.
deaths  A worker of two is killed (SIGKILL) after a fifth of the paths: the hash of the result, and the warnings.
soak    Simulations and samples of random sizes on a process pool, a worker of which is killed at a random moment in two
        jobs of three: results that are not those of threads, the warnings, and the memory of this process.

Dask's rows are left out where distributed is not installed (pip install "sdesim[dask]").
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

import sdesim as sde
from sdesim.core import blocks, executors

WELL = sde.DoubleWell(barrier=1.0, temperature=0.5)
NOISING = sde.VariancePreserving()
QUANTITIES = ("paths", "histogram", "first passage", "samples")
CLAIM = 0.05


# ---- where the work is done


@contextlib.contextmanager
def spawned(n: int) -> Iterator[tuple[Any, Callable[[], list[int]]]]:
    """A process pool, and a function that returns the ids of its processes."""
    with concurrent.futures.ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool, lambda: list(pool._processes)


@contextlib.contextmanager
def dask(n: int) -> Iterator[tuple[Any, Callable[[], list[int]]]]:
    """The same for a Dask cluster on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=n, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor(), lambda: list(client.run(os.getpid).values())


def clusters() -> dict[str, Any]:
    found: dict[str, Any] = {"spawn": spawned}
    try:
        import distributed

        return found | {"Dask": dask} if distributed.__version__ else found
    except ImportError:
        return found


# ---- bits


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


def trained() -> Any:
    data = sde.targets.two_moons().sample(500, seed=1)
    net = sde.ScoreMLP(2, hidden=(32, 32), seed=2)
    return sde.fit_score(net, data, process=NOISING, n_iterations=60, batch_size=64, seed=3).score


def interrupted(verb: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """The result of a run that Ctrl-C ends after a third, and that goes on from its checkpoint."""

    def stop(done: int, total: int) -> None:
        if 3 * done >= total:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = pathlib.Path(folder) / "run.npz"
        with contextlib.suppress(KeyboardInterrupt):
            verb(*given, **options, checkpoint=kept, progress=stop)
        return verb(*given, **options, checkpoint=kept)


def undisturbed(verb: Callable[..., Any], *given: Any, **options: Any) -> Any:
    return verb(*given, **options)


def hashes(net: Any, n: int, where: dict[str, Any], done: Callable[..., Any]) -> dict[str, str]:
    """The four results as one hash each; n is odd."""
    run = {"n_paths": n, "n_steps": 40, "seed": 7, "first_path": 3, **where}
    paths = done(sde.simulate, WELL, -1.0, (0, 2), save=10, **run)
    reduce = [sde.Histogram(-2, 2, 50), sde.Moments(), sde.FirstPassage(upper=0.0, bins=20)]
    histogram, moments, passage = done(sde.simulate, WELL, -1.0, (0, 2), reduce=reduce, **run).reductions
    samples = done(sde.sample, NOISING, net, n // 5, n_steps=10, seed=4, **where)
    return dict(
        zip(
            QUANTITIES,
            (
                digest(paths.t, paths.x, paths.final), digest(histogram.counts, moments.mean, moments.variance),
                digest(passage.density, passage.mean_time), digest(samples),
            ),
            strict=True,
        )
    )  # fmt: skip


def in_blocks_of(size: int | None) -> Any:
    """Runs inside cut their paths into blocks of this size, or as usual."""
    cut = blocks.cut
    if size is None:
        return contextlib.nullcontext()
    return mock.patch.object(blocks, "cut", lambda first, n, _: cut(first, n, size))


def bits(quick: bool) -> list[dict[str, Any]]:
    net, n = trained(), 5001 if quick else 20_001
    sizes = (None, 256, 4096) if quick else (None, 256, 768, 4096, 65536)
    rows = []

    def row(name: str, **where: Any) -> None:
        for done in (undisturbed, interrupted):
            for size in sizes:
                with in_blocks_of(size):
                    found = hashes(net, n, where, done)
                rows.append({"where": name, "block": size, "run": done.__name__, **found})

    for workers in (1, 2, 3, 8):
        row(f"{workers} thread{'s' * (workers > 1)}", workers=workers)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        row("thread pool", executor=pool)
    for name, cluster in clusters().items():
        with cluster(2) as (executor, _):
            row(name, executor=executor)
    return rows


# ---- cost


@contextlib.contextmanager
def work_seconds() -> Iterator[list[float]]:
    """The seconds that each task of the runs inside takes where it is done."""
    seen: list[float] = []
    opened = executors.Elsewhere._opened

    def watched(crew: Any, answer: Any, batch: list[int]) -> dict[int, Any]:
        seen.append(answer[0])
        return opened(crew, answer, batch)

    with mock.patch.object(executors.Elsewhere, "_opened", watched):
        yield seen


def long_run(n_paths: int, **where: Any) -> Any:
    reduce = [sde.Histogram(-2, 2, 50), sde.FirstPassage(upper=0.0, bins=20)]
    return sde.simulate(WELL, -1.0, (0, 2), n_paths=n_paths, n_steps=1000, reduce=reduce, seed=7, **where)


def cpu(pids: list[int]) -> float:
    """CPU seconds of this process and those (Linux; 0 for the others elsewhere)."""
    total = time.process_time()
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def cost(quick: bool) -> list[dict[str, Any]]:
    n = 4_000_000 if quick else 20_000_000
    long_run(100_000, workers=1)
    start = time.process_time()
    long_run(n, workers=1)
    alone, rows = time.process_time() - start, []
    for name, cluster in clusters().items():
        with cluster(2) as (executor, pids):
            long_run(1_000_000, executor=executor)  # every worker has loaded what it runs
            known = pids()
            before, start = cpu(known), time.perf_counter()
            with work_seconds() as seen:
                long_run(n, executor=executor)
            seconds, after = time.perf_counter() - start, cpu(known)
        rows.append(
            {
                "executor": name, "tasks": len(seen), "task_s": float(np.median(seen)), "seconds": seconds,
                "idle": 2 * seconds / sum(seen) - 1, "cpu": (after - before) / alone - 1, "claim": CLAIM,
            }
        )  # fmt: skip
    return rows


# ---- deaths


def deaths(quick: bool) -> list[dict[str, Any]]:
    n, rows = 2_000_000 if quick else 8_000_000, []

    def bits_of(paths: Any) -> str:
        histogram, passage = paths.reductions
        return digest(histogram.counts, passage.density, passage.mean_time)

    alone = bits_of(long_run(n))
    for name, cluster in clusters().items():
        with cluster(2) as (executor, pids):
            long_run(1_000_000, executor=executor)
            victims, killed = pids(), list[int]()

            def kill(done: int, total: int, victims: Any = victims, killed: Any = killed) -> None:
                if done > 0.2 * total and not killed:
                    killed.append(victims[0])
                    os.kill(victims[0], signal.SIGKILL)

            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                start = time.perf_counter()
                found = bits_of(long_run(n, executor=executor, progress=kill))
                seconds = time.perf_counter() - start
        rows.append(
            {
                "executor": name, "killed": len(killed), "seconds": seconds, "same": found == alone,
                "hash": found, "warnings": [str(warning.message) for warning in caught],
            }
        )  # fmt: skip
    return rows


# ---- soak


def resident() -> float:
    """MiB of this process (Linux)."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def random_job(draw: random.Random, net: Any) -> Callable[..., str]:
    """A simulation or some samples, as a function of where they are made that returns their hash."""
    kind, n, seed = draw.choice(("states", "statistics", "samples")), draw.randrange(1, 60_000), draw.getrandbits(64)
    steps, first = draw.randrange(1, 400), draw.randrange(10**6)
    dtype, bins = draw.choice((np.float32, np.float64)), draw.randrange(1, 200)

    def job(**where: Any) -> str:
        if kind == "samples":
            return digest(sde.sample(NOISING, net, 1 + n // 10, n_steps=1 + steps // 20, seed=seed, **where))
        run = {"n_steps": steps, "n_paths": n, "seed": seed, "first_path": first, "dtype": dtype, **where}
        if kind == "states":
            return digest(sde.simulate(WELL, -1.0, (0, 2), save=[0.0, 2.0], **run).x)
        reduce = [sde.Histogram(-2, 2, bins), sde.Moments(), sde.FirstPassage(upper=0.0, bins=bins)]
        histogram, moments, passage = sde.simulate(WELL, -1.0, (0, 2), reduce=reduce, **run).reductions
        return digest(histogram.counts, moments.variance, passage.density)

    return job


def soak(minutes: float) -> dict[str, Any]:
    draw, net, context = random.Random(1), trained(), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sdesim"])
    jobs = kills = wrong = warned = 0
    memory: list[float] = []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            pool.submit(int).result()
            died = False
            while not died and time.monotonic() < end:  # a pool is used until it is broken
                job = random_job(draw, net)
                twin, victim = job(), draw.choice(list(pool._processes.values()))
                timer = threading.Timer(draw.uniform(0.0, 0.3), victim.kill)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    if draw.random() < 2 / 3:
                        timer.start()
                    wrong += job(executor=pool) != twin
                    timer.cancel()
                died = not victim.is_alive()
                jobs, kills, warned = jobs + 1, kills + died, warned + len(caught)
                memory.append(resident())
    quarter = max(1, len(memory) // 4)
    return {
        "minutes": minutes, "jobs": jobs, "kills": kills, "warnings": warned, "wrong": wrong,
        "mib_first_quarter": max(memory[:quarter]), "mib_last_quarter": max(memory[-quarter:]),
    }  # fmt: skip


# ---- the table


def table(result: dict[str, Any], out: Any) -> bool:
    """Print it; whether every claim holds."""
    right = True
    if rows := result.get("bits"):
        print(f"{'where':14}{'block':>7}  {'run':13}" + "".join(f"{name:18}" for name in QUANTITIES), file=out)
        for r in rows:
            print(
                f"{r['where']:14}{r['block'] or 'auto':>7}  {r['run']:13}" + "".join(f"{r[q]:18}" for q in QUANTITIES),
                file=out,
            )
        distinct = {q: len({r[q] for r in rows}) for q in QUANTITIES}
        print("distinct hashes: " + ", ".join(f"{q} {n}" for q, n in distinct.items()) + "\n", file=out)
        right &= set(distinct.values()) == {1}
    if rows := result.get("cost"):
        print(f"{'executor':10}{'tasks':>7}{'s a task':>10}{'seconds':>9}{'idle':>8}{'claim':>9}{'CPU':>8}", file=out)
        for r in rows:
            print(f"{r['executor']:10}{r['tasks']:>7}{r['task_s']:>10.2f}{r['seconds']:>9.1f}{r['idle']:>8.1%}"
                  f"{'<=':>4}{r['claim']:>5.0%}{r['cpu']:>8.1%}", file=out)  # fmt: skip
        print(f"load {os.getloadavg()[0]:.1f} on {blocks.available_cores()} cores\n", file=out)
        right &= all(r["idle"] <= r["claim"] for r in rows)
    if rows := result.get("deaths"):
        print(f"{'executor':10}{'killed':>7}{'seconds':>9}{'same bits':>11}  warnings", file=out)
        for r in rows:
            print(f"{r['executor']:10}{r['killed']:>7}{r['seconds']:>9.1f}{'yes' if r['same'] else 'NO':>11}  "
                  f"{len(r['warnings'])}: {'; '.join(r['warnings'])}", file=out)  # fmt: skip
        right &= all(r["same"] and r["killed"] and len(r["warnings"]) == 1 for r in rows)
    if r := result.get("soak"):
        print(f"{r['minutes']:g} minutes: {r['jobs']} jobs, {r['kills']} kills, {r['warnings']} warnings, "
              f"{r['wrong']} wrong results; {r['mib_first_quarter']:.0f} MiB in the first quarter, "
              f"{r['mib_last_quarter']:.0f} in the last", file=out)  # fmt: skip
        right &= not r["wrong"]
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer paths and settings")
    parser.add_argument("--part", choices=("bits", "cost", "deaths"), help="one part only")
    parser.add_argument("--soak", metavar="MINUTES", type=float, help="random jobs with random kills, and nothing else")
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH ('-' for stdout)")
    options = parser.parse_args()
    parts = {"bits": bits, "cost": cost, "deaths": deaths}
    result: dict[str, Any] = {"soak": soak(options.soak)} if options.soak else {
        name: part(options.quick) for name, part in parts.items() if options.part in (None, name)
    }  # fmt: skip
    right = table(result, sys.stderr if options.json == "-" else sys.stdout)
    if options.json:
        text = json.dumps(result, indent=1)
        if options.json == "-":
            print(text)
        else:
            pathlib.Path(options.json).write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
