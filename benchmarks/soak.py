"""A soak: random jobs, killed at random, for minutes on end; every result against its undisturbed twin, memory flat.

    python benchmarks/soak.py                10 minutes
    python benchmarks/soak.py --quick        half a minute
    python benchmarks/soak.py --minutes 60 --seed 4 --json -

A job is one of the runs of tests/faults/nursery.py (every family of integrators, densities, trainings, samples,
expectations) with a checkpoint of its own. It lives in a child process, which is ended again and again: by SIGKILL at a
random moment mostly, by SIGTERM and Ctrl-C at times. Now and then its newest checkpoint is damaged in between, and the
one before has to do. In the end result and checkpoint file must have the bytes of the twin that nobody disturbed.

Then the parent does that in its own memory too: jobs that Ctrl-C ends in a checkpoint, and that go on; its resident
memory is read after each. "Flat" is: in the second half of the time it grows by at most 5 % of what it was at the
start, and by at most 8 MB. Exits 0 where all of that holds.
"""

import argparse
import json
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "faults"))
import nursery

MEGABYTE = 2**20
DAMAGE = 0.15  # how often a checkpoint is damaged between two lives
MOST_LIVES = 12


def resident() -> float:
    """Resident memory of this process, in MB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status: the soak needs Linux")


def damaged(path: pathlib.Path, rng: random.Random) -> bool:
    """Flip a byte of the newest checkpoint, or cut it, where there is one before it to fall back to."""
    if not path.exists() or not path.with_name(path.name + ".previous").exists():
        return False
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    return True


def job(name: str, twins: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One job, ended at random until it comes to its end."""
    run, folder = nursery.RUNS[name], pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    try:
        if name not in twins:
            (folder / "twin").mkdir()
            run(folder / "twin", None)  # in this process, so that every child has it compiled
            shutil.rmtree(folder / "twin")
            (folder / "twin").mkdir()
            checkpoints, end, _ = nursery.live(run, folder / "twin")
            twins[name] = checkpoints, end, (folder / "twin" / "c.npz").read_bytes()
        checkpoints, end, file = twins[name]
        place = folder / "job"
        place.mkdir()
        kills = damages = 0
        for _ in range(MOST_LIVES):
            sent = rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [8, 1, 1])[0]
            marks, delay = rng.randint(1, max(1, checkpoints // 4)), rng.choice([0.0, rng.uniform(0.0, 0.01)])
            _, found, killed = nursery.live(run, place, sent, marks, delay)
            kills += killed
            if found == end:
                break
            if rng.random() < DAMAGE:
                damages += damaged(place / "c.npz", rng)
        _, found, _ = nursery.live(run, place)
        same = found == end and (place / "c.npz").read_bytes() == file
        left = [path.name for path in place.iterdir() if path.name.endswith((".tmp", ".lock", ".partial"))]
        return {"job": name, "kills": kills, "damages": damages, "same": same and not left, "end": found, "left": left}
    finally:
        shutil.rmtree(folder)


def at_home(names: list[str], rng: random.Random) -> bool:
    """A job in this process, interrupted in a checkpoint and gone on with: whether it ends as one undisturbed."""
    name, count = rng.choice(names), 0
    run, folder = nursery.RUNS[name], pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    write, stop = nursery.checkpoint.Checkpoint.write, rng.randint(1, 10)

    def interrupted(self: Any, arrays: Any, *, wait: bool = True) -> Any:
        nonlocal count
        done, count = write(self, arrays, wait=wait), count + 1
        if count == stop:
            raise KeyboardInterrupt
        return done

    try:
        nursery.checkpoint.Checkpoint.write = interrupted  # type: ignore[method-assign]
        try:
            run(folder, folder / "c.npz")
        except KeyboardInterrupt:
            pass
        finally:
            nursery.checkpoint.Checkpoint.write = write  # type: ignore[method-assign]
        first = nursery.digest(run(folder, folder / "c.npz")[1])
        shutil.rmtree(folder)
        folder.mkdir()
        return first == nursery.digest(run(folder, None)[1])
    finally:
        shutil.rmtree(folder)


def soak(seconds: float, seed: int) -> dict[str, Any]:
    """Jobs until the time is over."""
    nursery.settle()
    rng, twins = random.Random(seed), dict[str, Any]()
    names, rows, memory, home = list(nursery.RUNS), list[dict[str, Any]](), list[float](), list[bool]()
    quick = seconds < 120
    if quick:  # half a minute is too short for a warm-up of everything
        names = ["one stage, reductions", "batch engine", "file", "tr_bdf2", "fit_score"]
    for name in names:  # what is loaded and compiled once is no leak
        job(name, twins, rng)
        at_home([name], rng)
    begin, start = time.perf_counter(), resident()
    while time.perf_counter() - begin < seconds:
        rows.append(job(rng.choice(names), twins, rng))
        home.append(at_home(names, rng))
        memory.append(resident())
    later = memory[len(memory) // 2 :]
    growth = statistics.median(later[-5:]) - statistics.median(later[:5])
    return {
        "seed": seed, "seconds": time.perf_counter() - begin, "jobs": len(rows), "kills": sum(r["kills"] for r in rows),
        "damages": sum(r["damages"] for r in rows), "different": [r for r in rows if not r["same"]],
        "different_at_home": home.count(False), "rss_start_mb": start, "rss_end_mb": memory[-1],
        "growth_mb": growth, "flat": growth <= min(0.05 * start, 8.0),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="half a minute, of five kinds of jobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH ('-' for stdout)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = soak(15.0 if options.quick else 60.0 * options.minutes, options.seed)
    out = sys.stderr if options.json == "-" else sys.stdout
    wrong, home = len(found["different"]), found["different_at_home"]
    print(
        f"{found['jobs']} jobs in {found['seconds']:.0f} s, ended {found['kills']} times by SIGKILL, their\n"
        f"checkpoints damaged {found['damages']} times; other bytes than their twins: {wrong}, in this process {home}\n"
        f"resident memory {found['rss_start_mb']:.0f} MB at the start, "
        f"{found['rss_end_mb']:.0f} MB at the end, {found['growth_mb']:+.1f} MB in the second half: "
        f"{'flat' if found['flat'] else 'NOT FLAT'}",
        file=out,
    )
    for row in found["different"]:
        print(row, file=out)
    if options.json:
        text = json.dumps(found, indent=1)
        if options.json == "-":
            print(text)
        else:
            pathlib.Path(options.json).write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if found["flat"] and not found["different"] and not found["different_at_home"] else 1)


if __name__ == "__main__":
    main()
