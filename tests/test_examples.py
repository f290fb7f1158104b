"""Every example runs, makes its picture, and bears out its own claim (each asserts it)."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

import sdesim as sde

EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.py"))
ARGUMENTS = {"fashion_mnist": ["--quick"]}
NEEDS = {"cluster": "distributed", "digits": "sklearn", "faces": "skimage", "colour_patches": "skimage"}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(path, tmp_path):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    if path.stem == "fashion_mnist" and not sde.data.DEBIAN.exists():
        pytest.skip("Fashion-MNIST is not on this machine")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(path), *ARGUMENTS.get(path.stem, [])],
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
