"""The command line."""

import json

import pytest

import sdesim
from sdesim import cli


def test_doctor_knows_the_machine(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["sdesim"] == sdesim.__version__
    assert found["cores"] >= 1
    assert found["stream_known_answer"] == "ok"
    assert cli.main(["doctor"]) == 0
    assert "stream version" in capsys.readouterr().out


def test_doctor_names_the_library_of_a_device(capsys, monkeypatch):
    """Products without cuBLAS take ten times as long, which nothing else tells before a run."""
    from sdesim.cuda import backend, products

    monkeypatch.setattr(backend, "available", lambda: (True, "a device"))
    for library, said in ((None, "a device; no cuBLAS (pip install"), ("found", "a device; cuBLAS 13.0.2")):
        monkeypatch.setattr(products, "library", lambda library=library: library)
        monkeypatch.setattr(products, "version", lambda: "13.0.2")
        assert cli.main(["doctor"]) == 0
        assert said in capsys.readouterr().out


def test_demo_holds_and_draws(tmp_path, capsys):
    picture = tmp_path / "demo.png"
    assert cli.main(["demo", "--paths", "100000", "--out", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [claim["holds"] for claim in found["claims"]] == [True] * 4
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert found["path_steps_per_second"] > 0


def test_a_wrong_demo_is_noticed(tmp_path, capsys, monkeypatch):
    """The exit code is 1 where a claim fails: here the paths belong to another noise."""
    from sdesim import demo

    monkeypatch.setattr(demo.OrnsteinUhlenbeck, "diffusion", lambda self, x, t: 1.05 * self.sigma)
    monkeypatch.setattr(demo, "CLAIMS", (demo.ornstein_uhlenbeck,))
    monkeypatch.setattr(demo, "evolve_density", _with_the_right_noise(demo.evolve_density))
    monkeypatch.setattr(demo, "picture", lambda claims, path: None)
    assert cli.main(["demo", "--paths", "100000", "--out", str(tmp_path / "x.png")]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out


def _with_the_right_noise(solve):
    def solved(process, *args, **kwargs):
        return solve(sdesim.ito(lambda x, t: -x, lambda x, t: 0.8), *args, **kwargs)

    return solved


@pytest.mark.slow
def test_bench_prints_a_table(capsys):
    assert cli.main(["bench", "--paths", "2000", "--steps", "10", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    measured = {row["method"] for row in rows}
    assert {"euler_maruyama", "weak_euler", "exact", "sri"} <= measured <= {row["name"] for row in sdesim.methods()}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["demo", "--paths", "10"], 1, "--paths must be >= 1000, got 10"),
        (["demo", "--out", "/nowhere/at/all/x.png"], 1, "cannot be written"),
        (["dance"], 2, "invalid choice"),
    ],
)
def test_errors_are_one_line(arguments, code, said, capsys):
    try:
        result = cli.main(arguments)
    except SystemExit as stop:
        result = stop.code
    assert result == code
    assert said in capsys.readouterr().err
