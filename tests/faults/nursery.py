"""Runs that are killed: a process that has everything compiled, and forks a child for every life of a run.

``python nursery.py SEED NAME…`` prints a line of JSON for each of the named runs: how often it was killed, and whether
what it ended with, result and checkpoint file, has the bytes of the run that nobody disturbed.
"""

import gc
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import warnings

import numpy as np

import sdesim as sde
from sdesim import execution, level_sums
from sdesim.core import checkpoint

OU = sde.OrnsteinUhlenbeck(1.0, 0.2, 0.7)
WELL = sde.Langevin(sde.targets.GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.1, 0.1]))
KINETIC = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0))
PLAIN = sde.ito(lambda x, t: -x, lambda x, t: 0.5 + 0.0 * x, compiled=False)
TURNING = sde.ito(lambda x, t: -x + np.sin(6 * t), lambda x, t: 0.6 + 0.2 * np.cos(3 * t))
PLANE = sde.ito(lambda x, t: (-x[0] + x[1], -x[0] - x[1]), lambda x, t: (0.8, 0.7), dim=2)
OBLIQUE = sde.ito(lambda x, t: (-x[0], -x[1]), lambda x, t: ((0.8, 0.0), (0.5, 0.6)), dim=2, noise="general")
VP = sde.VariancePreserving()
SCORE = sde.marginal_score(VP, sde.targets.GaussianMixture([0.5, 0.5], [[-1.0, 0], [1.0, 0.5]], [0.1 * np.eye(2)] * 2))
DATA = np.random.default_rng(0).standard_normal((300, 2))
LINE, SQUARE = sde.Grid(-3, 4, 150), sde.Grid((-3, -3), (3, 3), (30, 30))
TRAINING = {"n_iterations": 120, "batch_size": 64, "seed": 1}


def paths(process, x0, folder, kept, **options):
    given = {"n_steps": 200, "n_paths": 12000, "seed": 3, "save": "final", **options}
    if given.pop("file", False):
        given["out"] = folder / "states.npy"
    found = sde.simulate(process, x0, (0.0, 1.0), checkpoint=kept, **given)
    parts = [found.steps_taken, found.steps_rejected]
    parts += [found.x, found.final] if not found.reductions else []
    parts += found.reductions
    if "out" in given and given["out"].exists():
        parts.append(given["out"].read_bytes())
    return found.success, parts


def density(process, mean, grid, kept, **options):
    width = 0.3 if grid.dim == 1 else (0.4, 0.4)
    rho = sde.evolve_density(
        process, lambda g: sde.gaussian(g, mean, width), grid, (0.0, 1.0), save=3, checkpoint=kept, **options
    )
    return rho.success, [rho.p, rho.absorbed, rho.n_steps, rho.n_rejected]


def training(fit):
    networks = [getattr(fit, name) for name in ("score", "energy", "vae", "net") if hasattr(fit, name)]
    parts = [net.parameters for net in networks if hasattr(net, "parameters")]
    return fit.success, [*parts, fit.losses, *(getattr(fit, n) for n in ("chains", "acceptance") if hasattr(fit, n))]


def samples(kept, **options):
    x = sde.sample(VP, SCORE, 8000, dim=2, seed=3, checkpoint=kept, **options)
    return len(x) == 8000, [x]


def expectation(kept):
    found = sde.expect(
        sde.GeometricBrownian(0.05, 0.2), lambda x: np.maximum(x - 1, 0), 1.0, (0.0, 1.0), 1e-3, seed=4, checkpoint=kept
    )
    return True, [found.value, found.half_width, found.bias, [level.variance for level in found.levels]]


def reductions():
    return [
        sde.Moments(), sde.Histogram(-3, 3, 40), sde.FirstPassage(-1.0, 1.5, keep=True), sde.Quantiles(),
        sde.Observable(lambda x, t: (x * x, x > t)), sde.Occupation(-3, 3, 10), sde.Autocorrelation(3),
    ]  # fmt: skip


NORMAL = sde.targets.Gaussian(0.0, 1.0)
RUNS = {
    "one stage, reductions": lambda f, c: paths(OU, 0.5, f, c, save=40, reduce=reductions()),
    "one stage, walls": lambda f, c: paths(OU, 0.5, f, c, boundary=sde.Walls(-1, 1, "absorbing")),
    "multi-stage": lambda f, c: paths(OU, NORMAL, f, c, method="sri", save=100),
    "adaptive": lambda f, c: paths(OU, 0.5, f, c, method="adaptive_sri", n_steps=64, rtol=1e-3),
    "batch engine": lambda f, c: paths(PLAIN, 0.5, f, c, n_steps=60, save=20, reduce=[sde.Moments(), sde.Quantiles()]),
    "weak bits": lambda f, c: paths(OBLIQUE, (0.5, 0.1), f, c, method="weak_second", dtype=np.float32),
    "mala": lambda f, c: paths(WELL, 0.5, f, c, method="mala"),
    "baoab": lambda f, c: paths(KINETIC, (0.5, 0.0), f, c, method="baoab"),
    "file": lambda f, c: paths(OU, 0.5, f, c, save=20, file=True),
    "file and reductions": lambda f, c: paths(OU, 0.5, f, c, save=[0.25], file=True, reduce=[sde.Moments()]),
    "tr_bdf2": lambda f, c: density(OU, 1.0, LINE, c, method="tr_bdf2"),
    "magnus, two grids": lambda f, c: density(TURNING, 1.0, LINE, c, richardson=True),
    "splitting": lambda f, c: density(PLANE, (1.0, 0.0), SQUARE, c, rtol=1e-6),
    "splitting, two grids": lambda f, c: density(PLANE, (1.0, 0.0), SQUARE, c, rtol=1e-4, richardson=True),
    "mixed derivatives": lambda f, c: density(OBLIQUE, (1.0, 0.0), SQUARE, c, rtol=1e-6, boundary="absorbing"),
    "fit_score": lambda f, c: training(sde.fit_score(
        sde.ScoreMLP(2, (8,)), DATA, process=VP, validation=0.1, validate_every=10, learning_rate=0.5, decay="none",
        ema=0.5, checkpoint=c, **TRAINING)),  # the best of the trials is not the last one
    "fit_energy": lambda f, c: training(sde.fit_energy(sde.EnergyMLP(2, (8,)), DATA, checkpoint=c, **TRAINING)),
    "fit_vae": lambda f, c: training(sde.fit_vae(sde.VAE(2, 1, (8,)), DATA, checkpoint=c, **TRAINING)),
    "sample": lambda f, c: samples(c, n_steps=10),
    "probability flow": lambda f, c: samples(c, method="probability_flow", rtol=1e-3),
    "expect": lambda f, c: expectation(c),
}  # fmt: skip


def digest(parts):
    h = hashlib.sha256()
    for part in parts:
        feed(h, part)
    return h.hexdigest()


def feed(h, value):
    """Every number in a value, by its bits."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        h.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, bytes):
        h.update(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            feed(h, item)
    elif hasattr(value, "__dict__") and vars(value):
        feed(h, [item for _, item in sorted(vars(value).items())])
    else:
        h.update(repr(value).encode())


def life(run, folder, report, sent, marks, delay):
    """One life of a run, in a child: a byte for every checkpoint that it writes, then its digest. Does not return.

    After so many checkpoints it is ``sent`` a signal, at once or after a moment.
    """
    code, count = 1, 0
    sys.setswitchinterval(1e-4)  # a timer is not to wait for a busy thread
    try:
        write = checkpoint.Checkpoint.write

        def marked(self, arrays, *, wait=True):
            nonlocal count
            done = write(self, arrays, wait=wait)
            os.write(report, b".")
            count += 1
            if sent is not None and count == marks:
                if delay:
                    threading.Timer(delay, os.kill, (os.getpid(), sent)).start()
                else:
                    os.kill(os.getpid(), sent)
            return done

        checkpoint.Checkpoint.write = marked
        success, parts = run(folder, folder / "c.npz")
        os.write(report, b"|" + ("+" if success else "-").encode() + digest(parts).encode())
        code = 0
    except KeyboardInterrupt:
        os.write(report, b"|-interrupted")
        code = 0
    except BaseException as error:
        os.write(report, f"|!{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def live(run, folder, sent=None, marks=0, delay=0.0):
    """A child's life: how many checkpoints it wrote, what it ended with, and whether a signal ended it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        life(run, folder, theirs, sent, marks, delay)
    os.close(theirs)
    said = b""
    while data := os.read(ours, 4096):
        said += data
    os.close(ours)
    status = os.waitpid(child, 0)[1]
    written, _, end = said.partition(b"|")
    return written.count(b"."), end.decode(), os.WIFSIGNALED(status)


def ordeal(name, run, rng):
    """A run undisturbed; one that is killed three times, then ended by SIGTERM and by Ctrl-C; one killed at its end."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ordeal"))
    try:
        (folder / "a").mkdir(), (folder / "b").mkdir()
        plain = "+" + digest(run(folder, None)[1])  # also compiles
        shutil.rmtree(folder / "a"), (folder / "a").mkdir()
        for file in folder.glob("states*"):
            file.unlink()
        n, whole, _ = live(run, folder / "a")
        kills, others = 0, []
        for sent in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            marks, delay = rng.randint(max(1, n // 12), max(1, n // 7)), rng.choice([0.0, rng.uniform(0.0, 0.001)])
            if sent != signal.SIGKILL:
                delay = 0.0  # or a quick run comes to its end before
            _, end, killed = live(run, folder / "b", sent, marks, delay)
            kills += killed
            if sent != signal.SIGKILL:
                others.append(end[:1])
        written, end, _ = live(run, folder / "b")
        again, finished, _ = live(run, folder / "b")
        # all may be done by the last checkpoint but one, in a file that does not say so yet
        (folder / "c").mkdir()
        live(run, folder / "c", signal.SIGKILL, max(1, n - 1))
        _, late, _ = live(run, folder / "c")
        return {
            "name": name, "checkpoints": n, "kills": kills, "others": others, "whole": whole == plain,
            "same": end == plain, "late": late == plain, "end": end, "written": written,
            "same_files": len({(folder / life / "c.npz").read_bytes() for life in "abc"}) == 1,
            "again": again, "finished": finished == plain,
            "left": sorted(path.name for path in (folder / "b").iterdir()),
        }  # fmt: skip
    finally:
        shutil.rmtree(folder)


def settle():
    """Small blocks, and a checkpoint after each."""
    checkpoint.INTERVAL = 0.0
    os.fsync = lambda file: None  # a process that is killed leaves what it wrote to the system, as a machine does not
    execution.block_size = lambda run, workers: 256
    level_sums.CHUNK = 2048


def main(seed, names):
    warnings.simplefilter("ignore")
    gc.set_threshold(100_000, 20, 100)  # much is compiled: see conftest.py
    settle()
    for name in names:
        print(json.dumps(ordeal(name, RUNS[name], random.Random(f"{seed} {name}"))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or list(RUNS))
