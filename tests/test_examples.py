"""Every example runs, makes its picture, and bears out its own claim (each asserts it)."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.py"))
NEEDS = {"faces": "skimage", "colour_patches": "skimage"}  # whose pictures they take


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(path, tmp_path):
    if path.stem in NEEDS and importlib.util.find_spec(NEEDS[path.stem]) is None:
        pytest.skip(f"{NEEDS[path.stem]} is not installed")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path, env={**os.environ, "MPLBACKEND": "agg", "SDESIM_EXAMPLE_PATHS": "200000"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) == 1
    assert pictures[0].stat().st_size > 10_000


@pytest.mark.slow
def test_work_precision_without_peers(tmp_path):
    """The benchmark runs with sdesim alone, and its errors fall as the orders say."""
    script = pathlib.Path(__file__).parent.parent / "benchmarks" / "work_precision.py"
    run = subprocess.run(
        [sys.executable, str(script), "--quick", "--contenders", "sdesim", "--json", "out.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    curves = json.loads((tmp_path / "out.json").read_text())["curves"]
    assert [curve["failed"] for curve in curves] == [""] * len(curves)
    points = {(curve["problem"], curve["scheme"]): curve["points"] for curve in curves}

    def fall(problem, scheme, kind):
        """The order between the first two numbers of steps, a factor of 8 apart."""
        first, second = points[problem, scheme][:2]
        return math.log(first[kind] / second[kind], second["n_steps"] / first["n_steps"])

    assert 0.8 < fall("gbm", "milstein", "strong") < 1.2
    assert 1.2 < fall("gbm", "sri", "strong") < 1.8
    assert 0.8 < fall("well", "weak_euler", "weak") < 1.2
    assert 1.8 < fall("well", "weak_second", "weak") < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_examples_say_which_pictures_are_missing(name, tmp_path):
    (tmp_path / "skimage.py").write_text("raise ModuleNotFoundError('No module named skimage')")
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, str(EXAMPLES[0].parent / f"{name}.py")], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": places},
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.strip().endswith("pip install scikit-image")
    assert "Traceback" not in run.stderr
