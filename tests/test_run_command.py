"""sdesim run: a study from a file, its outputs, its errors, its exit codes."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import sdesim as sde
from sdesim import cli, execution, study
from sdesim.core import checkpoint

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "study.toml"
SRC = pathlib.Path(sde.__file__).parent.parent
SMALL = """
[process]
class = "OrnsteinUhlenbeck"
theta = 2.0

[simulate]
x0 = 1.0
t_span = [0.0, 1.0]
n_steps = 8
n_paths = 3000
seed = 1
save = 4

[output]
folder = "out"
results = "results.npz"
"""


def written(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_example_runs_and_is_right(capsys):
    assert cli.main(["run", str(EXAMPLE), "--paths", "20000"]) == 0
    said = capsys.readouterr().out
    assert "Paths(n_paths=20000" in said
    found = np.load("study/results.npz", allow_pickle=False)
    ou = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.7)
    for k, t in enumerate(found["t"][1:], 1):
        assert found["moments.mean"][k] == pytest.approx(ou.mean(t, 2.0), abs=0.02)
        assert found["moments.variance"][k] == pytest.approx(ou.variance(t, 2.0), rel=0.05)
    assert found["histogram.counts"].sum(axis=1) + found["histogram.outside"] == pytest.approx(20000)
    assert 0.0 < found["firstpassage.mean_time"] < 1.0
    assert found["density.p"].shape == (4, 700)
    rows = [line.split(",") for line in pathlib.Path("study/summary.csv").read_text().splitlines()]
    assert rows[0] == ["of", "t", "component", "mean", "variance"]
    assert float(rows[-1][3]) == pytest.approx(ou.mean(1.0, 2.0), abs=1e-3)
    assert pathlib.Path("study/study.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(os.listdir("study")) == ["results.npz", "study.png", "summary.csv"]


def test_the_same_numbers_as_the_library(tmp_path):
    assert cli.main(["run", written(tmp_path, SMALL)]) == 0
    same = sde.simulate(sde.OrnsteinUhlenbeck(2.0), 1.0, (0.0, 1.0), n_steps=8, n_paths=3000, seed=1, save=4)
    assert np.array_equal(np.load("out/results.npz")["x"], same.x)


def test_options_take_the_place_of_the_file(tmp_path):
    assert cli.main(["run", written(tmp_path, SMALL), "--seed", "9", "--paths", "50", "--out", "other"]) == 0
    same = sde.simulate(sde.OrnsteinUhlenbeck(2.0), 1.0, (0.0, 1.0), n_steps=8, n_paths=50, seed=9, save=4)
    assert np.array_equal(np.load("other/results.npz")["x"], same.x)
    assert not pathlib.Path("out").exists()


def test_states_go_to_a_file(tmp_path):
    assert cli.main(["run", written(tmp_path, SMALL + 'states = "x.npy"\nsummary = "s.csv"\n')]) == 0
    assert np.load("out/x.npy").shape == (3000, 3)
    assert "x" not in np.load("out/results.npz").files
    assert len(pathlib.Path("out/s.csv").read_text().splitlines()) == 4


def test_targets_walls_and_functions_of_ones_own(tmp_path):
    (tmp_path / "mine_for_a_study.py").write_text(
        "import sdesim\n"
        "def process(rate):\n    return sdesim.ito(lambda x, t, r: -r * x, lambda x, t: 0.5, r=rate)\n"
        "def square(x):\n    return x * x\n"
    )
    text = """
    [process]
    function = "mine_for_a_study:process"
    rate = 2.0
    [simulate]
    x0 = {class = "Gaussian", mean = 0.2, cov = 0.01}
    t_span = [0.0, 1.0]
    n_steps = 8
    n_paths = 2000
    seed = 1
    boundary = {class = "Walls", lower = -1.0, upper = 1.0, kinds = "reflecting"}
    reduce = [{class = "Observable", f = {reference = "mine_for_a_study:square"}}]
    [output]
    folder = "out"
    results = "r.npz"
    """
    import inspect

    text = text.replace("kinds", list(inspect.signature(sde.Walls).parameters)[2])
    assert cli.main(["run", written(tmp_path, text)]) == 0
    process = sde.ito(lambda x, t, r: -r * x, lambda x, t: 0.5, r=2.0)
    same = sde.simulate(
        process, sde.targets.Gaussian(0.2, 0.01), (0.0, 1.0), n_steps=8, n_paths=2000, seed=1,
        boundary=sde.Walls(-1.0, 1.0, "reflecting"), reduce=[sde.Observable(lambda x: x * x)],
    )  # fmt: skip
    assert np.array_equal(np.load("out/r.npz")["observable.mean"], same.reductions[0].mean)


WRONG = [
    ("theta = 2.0", "thetta = 2.0", "has no key 'thetta', only theta, mu, sigma; did you mean 'theta'?"),
    ('"OrnsteinUhlenbeck"', '"OrnsteinUlenbeck"', "did you mean 'OrnsteinUhlenbeck'?"),
    (
        "[simulate]",
        "[simulation]",
        "the file has no key 'simulation', only process, simulate, density, output; did you mean",
    ),
    ("n_steps = 8", "nsteps = 8", r"[simulate] has no key 'nsteps'"),
    ("x0 = 1.0", "", "[simulate] needs x0"),
    ("n_paths = 3000", "n_paths = -1", "[simulate]: n_paths must be >= 1, got -1"),
    ("theta = 2.0", 'theta = "two"', "[process]: theta must be a real number"),
    ("save = 4", 'method = "eulr"', "method must be one of"),
    ('results = "results.npz"', 'result = "r.npz"', "did you mean 'results'?"),
    ('results = "results.npz"', 'results = "../r.npz"', "must be the name of a file in it"),
    ('results = "results.npz"', 'results = "r.csv"', "must end in .npz"),
    ("save = 4", 'reduce = [{class = "Histogramm"}]', "[simulate] reduce[0] knows no class 'Histogramm'; did you mean"),
    ("save = 4", "reduce = [{lower = 0.0}]", "needs one of class, function and reference, got none"),
    ("save = 4", 'reduce = [{class = "os.system", command = "x"}]', "knows no class 'os.system'"),
    ('class = "OrnsteinUhlenbeck"', "function = \"__import__('os')\"", 'is not of the form "module:function"'),
    ('class = "OrnsteinUhlenbeck"', 'function = "os:system(1)"', 'is not of the form "module:function"'),
    ('class = "OrnsteinUhlenbeck"', 'function = "no_such_module:f"', "cannot be imported: No module named"),
    ('class = "OrnsteinUhlenbeck"', 'class = "Moments"', "[process]"),
    ("[process]", "[process", "is no TOML"),
    ("[output]", "[density]\nlower = 0.0\n[output]", "[density] needs upper"),
    ("[output]", "[density]\nlower=-3.0\nupper=3.0\nn_cells=9\nstart={at=1.0}\n[output]", "start must be {point = x}"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG, ids=[new.strip() for _, new, _ in WRONG])
def test_what_is_wrong_with_a_file_is_said(old, new, said, tmp_path, capsys):
    assert old in SMALL
    assert cli.main(["run", written(tmp_path, SMALL.replace(old, new, 1))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not pathlib.Path("out/results.npz").exists()


def test_a_file_that_is_not_there(capsys):
    assert cli.main(["run", "nowhere.toml"]) == 2
    assert "nowhere.toml cannot be read: No such file" in capsys.readouterr().err


@pytest.fixture
def in_pieces(monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(execution, "block_size", lambda run, workers: 256)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_goes_on(number, code, tmp_path, capsys, in_pieces, monkeypatch):
    path, before = written(tmp_path, SMALL), signal.getsignal(signal.SIGTERM)
    inner, done = study.simulate, []

    def simulate(*given, **options):
        def stop(n, total):
            done.append(n)
            if not (tmp_path / "sent").exists() and n > 1000:
                (tmp_path / "sent").touch()
                os.kill(os.getpid(), number)

        return inner(*given, **{**options, "progress": stop})

    monkeypatch.setattr(study, "simulate", simulate)
    assert cli.main(["run", path]) == code
    assert signal.getsignal(signal.SIGTERM) is before
    error = capsys.readouterr().err
    assert re.search(rf"interrupted: \d+ of 3000 paths .*go on with: sdesim run {re.escape(path)} --resume", error)
    assert cli.main(["run", path]) == 2  # not thrown away by mistake
    assert "was not finished; pass --resume" in capsys.readouterr().err
    done.clear()
    assert cli.main(["run", path, "--resume"]) == 0
    assert done[0] >= 1000
    assert sorted(os.listdir("out")) == ["results.npz"]
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert cli.main(["run", path, "--out", "whole"]) == 0
    assert pathlib.Path("out/results.npz").read_bytes() == pathlib.Path("whole/results.npz").read_bytes()


def test_a_checkpoint_of_another_study_is_refused(tmp_path, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    ou = sde.OrnsteinUhlenbeck(2.0)
    sde.simulate(
        ou, 1.0, (0.0, 1.0), n_steps=16, n_paths=3000, seed=1, save=4, checkpoint=folder / "paths.checkpoint.npz"
    )
    assert cli.main(["run", written(tmp_path, SMALL), "--resume"]) == 1
    assert "belongs to a different run: n_steps 16 != 8" in capsys.readouterr().err


def test_sigterm_ends_the_command_with_143(tmp_path):
    """F3, from outside."""
    text = SMALL.replace("n_paths = 3000", "n_paths = 100_000_000").replace("n_steps = 8", "n_steps = 800")
    text = text.replace("save = 4", 'reduce = [{class = "Moments"}]')
    child = subprocess.Popen(
        [sys.executable, "-m", "sdesim", "run", written(tmp_path, text)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lock = tmp_path / "out" / "paths.checkpoint.npz.lock"
    deadline = time.monotonic() + 60
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 143, error
    assert "go on with: sdesim run" in error
    assert set(os.listdir(tmp_path / "out")) <= {"paths.checkpoint.npz"}  # none where it was still compiling
