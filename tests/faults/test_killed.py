"""F1, F2, F3, F11, F23: runs that are killed, interrupted or ended; checkpoints that are damaged, foreign or shared."""

import functools
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import sdesim as sde
from sdesim import execution
from sdesim.core import checkpoint, storage
from sdesim.errors import CheckpointError

HERE = pathlib.Path(__file__).parent
SRC = pathlib.Path(sde.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{SRC}", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
SEED = 20261129
ORDEALS = [
    "one stage, reductions", "one stage, walls", "multi-stage", "adaptive", "batch engine", "weak bits", "mala",
    "baoab", "file", "file and reductions", "tr_bdf2", "magnus, two grids", "splitting",
    "splitting, two grids", "mixed derivatives", "fit_score", "fit_energy", "fit_vae", "sample", "probability flow",
    "expect",
]  # fmt: skip

# ---- F1, F2, F3: three lives that end by kill -9, one by SIGTERM, one by Ctrl-C, and one to the end


@functools.cache
def nurseries():
    """Two processes that share the ordeals; ``conftest.py`` may start them early."""
    return [
        subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py"), str(SEED), *ORDEALS[k::2]], env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for k in (0, 1)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ordeals():
    """What befell every kind of run."""
    found, errors = {}, ""
    for child in nurseries():
        out, error = child.communicate(timeout=600)
        found |= {line["name"]: line for line in map(json.loads, out.splitlines())}
        errors += error
    assert not errors
    return found


@pytest.mark.parametrize("name", ORDEALS)
def test_a_run_that_is_killed_ends_in_the_same_bytes(ordeals, name):
    found = ordeals[name]
    assert found["kills"] == 3
    assert found["whole"], "with a checkpoint, undisturbed"
    assert found["same"], found["end"]
    assert found["late"], "killed at its last checkpoint but one"
    assert found["same_files"], "the last checkpoints"


@pytest.mark.parametrize("name", ORDEALS)
def test_a_run_that_is_ended_says_so(ordeals, name):
    assert ordeals[name]["others"] == ["-", "-"]  # success is False, or KeyboardInterrupt where a part is no answer


@pytest.mark.parametrize("name", ORDEALS)
def test_a_finished_run_returns_at_once_and_nothing_is_left_behind(ordeals, name):
    found = ordeals[name]
    assert found["finished"]
    assert found["again"] == 0  # checkpoints written
    assert set(found["left"]) <= {"c.npz", "c.npz.previous", "states.npy"}


# ---- F2: Ctrl-C is answered within half a second

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.7)
VP = sde.VariancePreserving()
TARGET = sde.targets.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.1 * np.eye(2)] * 2)
DATA = np.random.default_rng(0).standard_normal((300, 2))
SQUARE = sde.Grid((-3, -3), (3, 3), (300, 300))
PLANE = sde.ito(lambda x, t: (-x[0] + x[1], -x[0] - x[1]), lambda x, t: (0.8, 0.7), dim=2)
PLAIN = sde.ito(lambda x, t: -x, lambda x, t: 0.5 + 0.0 * x, compiled=False)


def simulation(long, **options):
    n_paths = (10**8 if "reduce" in options else 10**6) if long else 300
    return sde.simulate(OU, 0.5, (0.0, 1.0), n_steps=2000 if long else 2, n_paths=n_paths, seed=1, **options)


LONG = {
    "simulate": lambda long, folder, kept: simulation(long, reduce=[sde.Moments(), sde.Histogram(-3, 3, 50)], **kept),
    "simulate(out=)": lambda long, folder, kept: simulation(long, out=folder / f"{long}.npy", **kept),
    "batch engine": lambda long, folder, kept: sde.simulate(
        PLAIN, 0.5, (0.0, 1.0), n_steps=10**4 if long else 2, n_paths=10**5 if long else 9, seed=1, **kept),
    "tr_bdf2": lambda long, folder, kept: sde.evolve_density(
        OU, lambda g: sde.gaussian(g, 1.0, 0.3), sde.Grid(-3, 4, 900), (0.0, 1.0), method="tr_bdf2",
        n_steps=10**6 if long else 2, **kept),
    "splitting": lambda long, folder, kept: sde.evolve_density(
        PLANE, lambda g: sde.gaussian(g, (1.0, 0.0), (0.4, 0.4)), SQUARE, (0.0, 1.0), n_steps=10**6 if long else 2,
        **kept),
    "fit_score": lambda long, folder, kept: sde.fit_score(
        sde.ScoreMLP(2, (64, 64)), DATA, process=VP, n_iterations=10**6 if long else 2, seed=1, **kept),
    "fit_energy": lambda long, folder, kept: sde.fit_energy(
        sde.EnergyMLP(2, (32,)), DATA, n_iterations=10**6 if long else 2, seed=1, **kept),
    "sample": lambda long, folder, kept: sde.sample(
        VP, sde.marginal_score(VP, TARGET), 10**6 if long else 9, n_steps=200 if long else 2, dim=2, seed=1, **kept),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("verb", LONG)
def test_ctrl_c_is_answered_at_once(verb, tmp_path, monkeypatch):
    """With the part of the result that is there, and its checkpoint."""
    LONG[verb](False, tmp_path, {})  # compiles
    kept, sent = tmp_path / "c.npz", []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    timer = threading.Timer(0.6, interrupt)
    timer.start()
    try:
        if verb in ("tr_bdf2", "splitting", "sample"):
            with pytest.warns(RuntimeWarning, match="interrupted"):
                found = LONG[verb](True, tmp_path, {"checkpoint": kept})
        else:
            found = LONG[verb](True, tmp_path, {"checkpoint": kept})
        answered = time.perf_counter()
    finally:
        timer.cancel()
    assert answered - sent[0] < 0.5
    if verb != "sample":
        assert not found.success
        assert "interrupted" in found.message
    assert storage.read(kept)[2]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_sigterm_is_heard_only_while_a_run_with_a_checkpoint_is_on(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look(done, total):
        seen.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)

    given = {"n_steps": 4, "n_paths": 2000, "seed": 1, "workers": 1}
    part = sde.simulate(OU, 0.5, (0.0, 1.0), **given, progress=look, checkpoint=tmp_path / "c.npz")
    assert not part.success
    assert seen[0] is not before
    assert signal.getsignal(signal.SIGTERM) is before
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:  # a handler of the user's own is asked, and decides
        whole = sde.simulate(OU, 0.5, (0.0, 1.0), **given, progress=look, checkpoint=tmp_path / "d.npz")
        assert whole.success
        assert asked
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- F11: a checkpoint that is damaged or foreign

GIVEN = {"n_steps": 20, "n_paths": 3000, "seed": 5, "workers": 1}


def run(path, **options):
    return sde.simulate(OU, 0.5, (0.0, 1.0), **{**GIVEN, "checkpoint": path, **options})


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run that wrote some checkpoints and was interrupted: the path of the last one."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(execution, "block_size", lambda run, workers: 256)

    def stop(done, total):
        if done > 1200:
            raise KeyboardInterrupt

    path = tmp_path / "runs.npz"
    assert not run(path, progress=stop).success
    return path


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


class Trap:
    """A pickle that would run code where it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


DAMAGES = {
    "truncated": lambda data: data[: len(data) - 100],
    "cut short": lambda data: data[:60],
    "flipped": flipped,
    "empty": lambda data: b"",
    "pickled": lambda data: pickle.dumps(Trap()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(interrupted, damage, monkeypatch):
    monkeypatch.chdir(interrupted.parent)
    interrupted.write_bytes(DAMAGES[damage](interrupted.read_bytes()))
    with pytest.warns(RuntimeWarning, match=r"goes on from the one before it, runs.npz.previous"):
        found = run(interrupted)
    assert found.x.tobytes() == run(None).x.tobytes()
    assert not pathlib.Path("trapped").exists()
    assert run(interrupted).x.tobytes() == found.x.tobytes()  # and is whole again


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_alone_is_refused(interrupted, damage):
    interrupted.with_name("runs.npz.previous").unlink()
    interrupted.write_bytes(DAMAGES[damage](interrupted.read_bytes()))
    with pytest.raises(CheckpointError, match="there is no previous one, delete it to start again"):
        run(interrupted)


@pytest.mark.parametrize("verb", ["simulate", "sample", "tr_bdf2", "fit_score"])
def test_a_damaged_checkpoint_of_a_finished_run_is_mended(verb, tmp_path):
    """The one before it was of the end as well: nothing is left to do, and nothing would be written."""
    kept = tmp_path / "c.npz"
    LONG[verb](False, tmp_path, {"checkpoint": kept})
    good = kept.read_bytes()
    kept.with_name("c.npz.previous").write_bytes(good)
    kept.write_bytes(good[: len(good) // 2])
    with pytest.warns(RuntimeWarning, match="goes on from the one before it"):
        LONG[verb](False, tmp_path, {"checkpoint": kept})
    assert kept.read_bytes() == good
    LONG[verb](False, tmp_path, {"checkpoint": kept})  # without a warning
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "c.npz.previous"]


def test_a_damaged_file_never_becomes_the_one_before(interrupted):
    good = interrupted.with_name("runs.npz.previous").read_bytes()
    interrupted.write_bytes(b"rubbish")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="goes on from the one before"):
        run(interrupted, progress=stop)
    assert interrupted.with_name("runs.npz.previous").read_bytes() in (good, interrupted.read_bytes())
    storage.read(interrupted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_steps": 200}, "n_steps 20 != 200"),
        ({"seed": 6}, "seed 5 != 6"),
        ({"n_paths": 3001}, "n_paths 3000 != 3001"),
        ({"method": "sra"}, "method euler_maruyama != sra"),
        ({"dtype": np.float32}, "dtype float64 != float32"),
        ({"reduce": [sde.Moments()]}, r"reduce \(\) != Moments|reduce.*Moments"),
        ({"save": 5}, "save int64"),
        ({"on_nonfinite": "freeze"}, "on_nonfinite raise != freeze"),
        ({"first_path": 256}, "first_path 0 != 256"),
        ({"boundary": sde.Walls(-1, 1)}, "boundary"),
    ],
)
def test_a_different_run_is_refused_with_the_setting_that_differs(interrupted, options, said):
    before = interrupted.read_bytes()
    with pytest.raises(CheckpointError, match=rf"runs.npz belongs to a different run: .*({said})"):
        run(interrupted, **options)
    assert interrupted.read_bytes() == before


def test_a_different_process_or_start_is_refused(interrupted):
    given = {**GIVEN, "checkpoint": interrupted}
    with pytest.raises(CheckpointError, match=r"process.theta 1.0 != 2.0"):
        sde.simulate(sde.OrnsteinUhlenbeck(2.0, 0.0, 0.7), 0.5, (0.0, 1.0), **given)
    with pytest.raises(CheckpointError, match=r"x0 float64 1x1"):
        sde.simulate(OU, 0.6, (0.0, 1.0), **given)
    with pytest.raises(CheckpointError, match="holds a simulation, not a training"):
        sde.fit_score(sde.ScoreMLP(2, (4,)), DATA, checkpoint=interrupted)


def test_rows_of_a_file_that_were_changed_are_simulated_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(execution, "block_size", lambda run, workers: 256)

    def stop(done, total):
        if done > 1200:
            raise KeyboardInterrupt

    kept, out = tmp_path / "c.npz", tmp_path / "x.npy"
    run(kept, out=out, progress=stop)
    partial = tmp_path / "x.npy.partial"
    data = bytearray(partial.read_bytes())
    data[500] ^= 1
    partial.write_bytes(data[:20000])  # and most of it is gone
    with pytest.warns(RuntimeWarning, match="are not what was written; they are simulated again"):
        found = run(kept, out=out)
    assert np.array_equal(found.x, run(None).x)
    assert np.array_equal(np.load(out), found.x)


def test_an_output_belongs_to_its_run_before_its_first_checkpoint(tmp_path, monkeypatch):
    """A run that is killed in its first seconds goes on, too."""

    def die(self, results):
        raise SystemExit

    kept, out = tmp_path / "c.npz", tmp_path / "x.npy"
    with monkeypatch.context() as patch:
        patch.setattr("sdesim.keeping.Kept.keep", die)
        with pytest.raises(SystemExit):
            run(kept, out=out)
    assert (tmp_path / "x.npy.partial").exists()
    assert np.array_equal(run(kept, out=out).x, run(None).x)


def test_a_complete_output_outlives_its_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(execution, "block_size", lambda run, workers: 256)
    kept, out = tmp_path / "c.npz", tmp_path / "x.npy"
    whole = np.array(run(kept, out=out).x)
    kept.write_bytes(b"rubbish")
    with pytest.warns(RuntimeWarning, match="goes on from the one before it"):
        assert np.array_equal(run(kept, out=out).x, whole)
    assert np.array_equal(np.load(out), whole)


# ---- F23: two runs at once

SHARED = """
import sys, sdesim as sde
from sdesim import execution
from sdesim.core import checkpoint
checkpoint.INTERVAL = 0.0
execution.block_size = lambda run, workers: 256
def mark(done, total):
    print("on", flush=True)
    sys.stdin.readline()
sde.simulate(sde.OrnsteinUhlenbeck(1.0, 0.0, 0.7), 0.5, (0.0, 1.0), n_steps=20, n_paths=3000, seed=5, workers=1,
             checkpoint="runs.npz", out="x.npy", progress=mark)
"""


def test_two_runs_of_one_checkpoint_or_one_output(tmp_path, monkeypatch):
    """The second is told; and once the first was killed, it goes on with the work of that."""
    monkeypatch.chdir(tmp_path)
    first = subprocess.Popen(
        [sys.executable, "-c", SHARED], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "on\n"
        with pytest.raises(CheckpointError, match=r"runs.npz is in use by another run"):
            run("runs.npz", out="x.npy")
        with pytest.raises(FileExistsError, match="another run writes it"):
            run("other.npz", out="x.npy")
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "on\n"
    finally:
        first.kill()
        first.wait()
        first.stdin.close(), first.stdout.close()
    found = run("runs.npz", out="x.npy")
    assert np.array_equal(np.load("x.npy"), run(None).x)
    assert found.success
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.npz", "runs.npz.previous", "x.npy"]
