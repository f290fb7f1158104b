"""``benchmarks/gpu.py --dry`` runs every line that needs no GPU, so that the real call finds no slip."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.cudasim
def test_the_benchmark_runs_dry(tmp_path):
    path = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--dry", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    assert figures["errors"] == {}
    assert all(row["met"] is True for row in figures["claims"] if row["figure"] == "equal bits")
    for row in figures["right"]:
        assert row.get("largest difference / largest", 0.0) < 1e-2, row
    assert all(row["recorded = launched"] for row in figures["right"] if "recorded = launched" in row)
    assert {"machine", "ceilings", "paths", "sampling", "normals", "peers"} <= figures.keys()


def test_without_a_gpu_it_says_so():
    from sdesim.cuda import backend

    if backend.available()[0]:
        pytest.skip("kernels can run here")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "benchmarks/gpu.py needs a GPU" in done.stderr
    assert "--dry runs without one" in done.stderr
