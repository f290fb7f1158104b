"""``sdesim random``: what comes out of the pipe are the draws of the engines, in the order that was asked for."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from sdesim import cli, random_pipe
from sdesim.core import normals, philox, stream

SRC = pathlib.Path(__file__).parents[1] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}
SDESIM = f"{sys.executable} -m sdesim"


def start(kind, **settings):
    """The first two pieces of the stream."""
    pieces = random_pipe.chunks(**settings)
    found = np.concatenate([np.frombuffer(next(pieces), kind) for _ in range(2)])
    pieces.close()
    return found


def raw_words(path, block, seed):
    out = np.empty((4, 1), np.uint32)
    philox.words(out, np.uint64(block), np.uint64(stream.WIENER << 24), np.uint64(path), np.uint64(seed))
    return out[:, 0]


@pytest.mark.parametrize("order", ["path", "step"])
def test_raw_words_are_those_of_the_wiener_increments(order):
    found = start(np.uint32, raw=True, seed=2**64 - 3, order=order, row=512).reshape(-1, 512, 4)
    for outer, inner in ((0, 0), (0, 3), (1, 511), (70, 256), (127, 17)):
        path, block = (outer, inner) if order == "path" else (inner, outer)
        assert np.array_equal(found[outer, inner], raw_words(path, block, 2**64 - 3))


@pytest.mark.parametrize("order", ["path", "step"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_are_those_of_the_wiener_increments(dtype, order):
    draws = normals.DRAWS[np.dtype(dtype)]
    found = start(dtype, raw=False, seed=7, dtype=dtype, order=order, row=256)
    if order == "path":
        expected = stream.normals(7, stream.WIENER, 512, 1, 256 * draws, dtype=dtype)[:, 0]
    else:
        expected = stream.normals(7, stream.WIENER, 256, 1, 128 * draws, dtype=dtype)[:, 0].T
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("dtype", "kind", "bits"), [("float64", np.uint32, 32), ("float32", np.uint16, 16)])
def test_words_are_the_ranks_of_the_normals(dtype, kind, bits):
    settings = {"raw": False, "seed": 7, "dtype": dtype, "row": 256}
    z, found = start(dtype, **settings), start(kind, **settings, words=True)
    ranks = np.floor(special.ndtr(z.astype(float)) * 2.0**bits)
    assert abs(found.astype(float) - ranks).max() <= 1.0
    assert (found == ranks).mean() > 0.999


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must be an integer in \[0, 2\*\*64\), got -1"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64"),
        ({"order": "paht"}, ValueError, "order must be one of 'path', 'step', got 'paht'; did you mean 'path'"),
        ({"row": 100}, ValueError, "row must be >= 256, got 100"),
        ({"row": 300}, ValueError, "row must be a multiple of 256, got 300"),
        ({"raw": True, "words": True}, ValueError, "--raw are words already"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        next(random_pipe.chunks(**{"raw": False, **settings}))


def test_a_terminal_gets_no_binary_numbers(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["random", "--raw"]) == 1
    assert "standard output is a terminal; pipe it" in capsys.readouterr().err


def test_the_pipe_carries_the_stream():
    done = subprocess.run(
        f"{SDESIM} random --raw --seed 5 | head -c 64", shell=True, env=ENVIRONMENT, capture_output=True
    )
    assert done.stdout == b"".join(raw_words(0, block, 5).tobytes() for block in range(4))
    assert done.stderr == b""


# ---- a battery of others, where it is installed: pytest -m battery

# number of the test: of samples. Birthdays, OPERM5, bit streams, count-the-1s, runs, monobits, cosine transforms
DIEHARDER = {0: 100, 1: 30, 4: 30, 8: 60, 15: 60, 100: 100, 206: 1}


def dieharder(source, environment):
    """The p-values of some tests of dieharder on a stream, each of which reads it from its beginning."""
    found = {}
    for number, samples in DIEHARDER.items():
        command = f"{source} | dieharder -g 200 -d {number} -p {samples} -D test_name -D pvalues"
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            name, _, p = line.partition("|")
            found[f"{name.strip()} {len(found)}"] = float(p)
    return found


@pytest.mark.battery
@pytest.mark.skipif(shutil.which("dieharder") is None, reason="dieharder is not installed")
@pytest.mark.parametrize("source", ["--raw --order path", "--raw --order step", "--normals --words"])
def test_dieharder(source):
    found = dieharder(f"{SDESIM} random {source} --seed 1", ENVIRONMENT)
    assert len(found) >= len(DIEHARDER)
    assert all(1e-6 < p < 1 - 1e-6 for p in found.values()), found


@pytest.mark.battery
@pytest.mark.skipif(shutil.which("dieharder") is None, reason="dieharder is not installed")
def test_dieharder_sees_three_rounds(tmp_path):
    shutil.copytree(SRC, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    philox_file = tmp_path / "src" / "sdesim" / "core" / "philox.py"
    philox_file.write_text(philox_file.read_text().replace("range(10)", "range(3)"))
    found = dieharder(f"{SDESIM} random --raw", {**ENVIRONMENT, "PYTHONPATH": str(tmp_path / "src")})
    assert min(found.values()) < 1e-6, found
