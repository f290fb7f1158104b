"""Kernels compiled for an H200 (sm_90) where there is none: no spills, nothing contracted, few instructions a step."""

import math
import re

import numpy as np
import pytest
from sass import assembled, leaf_ptx, missing, model_of, operations, ptx, step_loop, tool
from zoo import CASES, MIXTURES, OU

import sdesim as sde
from sdesim.core.blocks import Block
from sdesim.core.elementary import sqrt32
from sdesim.cuda import kernel, model, reductions

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
needs_nvdisasm = pytest.mark.skipif(tool("nvdisasm") is None, reason="no nvdisasm; pip install nvidia-cuda-nvdisasm")

DRAWS = 4
# of the source: two Box-Muller pairs, each with a logarithm, a square root, a sine and a cosine
NORMALS = {"FFMA": 42, "FMUL": 20, "FADD": 2}
STEPS = {
    # root·z, θ (μ − x), and the two fma of the stage
    "OrnsteinUhlenbeck": (OU, {"FFMA": 2, "FMUL": 2, "FADD": 1}),
    # root·z, 4b·x (1 − x·x): a product that feeds a sum
    "DoubleWell": (sde.DoubleWell(1.3, 0.7), {"FFMA": 2, "FMUL": 4, "FADD": 1}),
}


@pytest.mark.parametrize("name", STEPS)
@needs_nvdisasm
def test_every_operation_is_one_of_the_source(name, tmp_path):
    """In the loop over whole blocks stand the source's multiplications, additions and fma: nothing was contracted."""
    process, per_step = STEPS[name]
    text = ptx(model_of(process))
    found = assembled(text, tmp_path, kernel.REGISTERS)
    body = step_loop(found.code)
    counted = operations(body)
    assert {name: counted[name] for name in NORMALS} == {n: NORMALS[n] + DRAWS * per_step[n] for n in NORMALS}
    assert found.spills == found.stack == 0
    assert ".f64" not in text
    assert len(body) / DRAWS <= 50


@needs_nvdisasm
def test_contraction_would_be_seen(tmp_path):
    process, per_step = STEPS["DoubleWell"]
    counted = operations(step_loop(assembled(ptx(model_of(process), contract=True), tmp_path).code))
    assert counted["FFMA"] > NORMALS["FFMA"] + DRAWS * per_step["FFMA"]


@needs_nvdisasm
def test_fast_mode_takes_half_the_instructions(tmp_path):
    text = ptx(model_of(OU, fast=True))
    found = assembled(text, tmp_path, kernel.REGISTERS)
    assert len(step_loop(found.code)) / DRAWS <= 25
    assert found.spills == found.stack == 0
    assert ".f64" not in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", CASES)
def test_every_scheme_compiles_without_spills(method, dtype, tmp_path):
    process, x0 = CASES[method]
    model = model_of(process, method=method, dtype=dtype, d=np.size(x0))
    text = ptx(model)
    found = assembled(text, tmp_path)
    assert found.spills == 0
    assert ".rn.f" in text
    assert "mul.f32" not in text  # which ptxas might contract
    assert "add.f32" not in text
    if dtype == np.float32:
        # the clock of processes that read it is float64, as on the CPU; nothing else becomes that
        assert "cvt.f64.f32" not in text
        assert model.uses_time or ".f64" not in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MIXTURES)
def test_scores_compile_without_spills(name, dtype, tmp_path):
    process = sde.UnderdampedLangevin(MIXTURES[name]) if "many" in name else sde.Langevin(MIXTURES[name])
    text = ptx(model_of(process, dtype=dtype, d=process.dim))
    found = assembled(text, tmp_path)
    assert found.spills == found.stack == 0  # the arrays of one point are registers
    assert ".rn.f" in text
    assert "mul.f32" not in text
    assert dtype == np.float64 or ".f64" not in text


def test_parameters_that_are_arrays_compile(tmp_path):
    process = sde.ito(lambda x, t, a: -a[0] * x + a[1] * x * x, lambda x, t: 0.3, a=np.array([0.4, 0.3]))
    assert assembled(ptx(model_of(process)), tmp_path).spills == 0


@needs_nvdisasm
def test_the_square_root_is_the_compilers_own(tmp_path):
    """After the approximate 1/√x stand the four instructions of a correctly rounded root, without its branch."""
    found = {}
    for name, root in {"math": math.sqrt, "own": sqrt32}.items():
        code = assembled(leaf_ptx(root), tmp_path).code
        lines = [line.split(";")[0].split("/")[-1].split() for line in code.splitlines() if "/*0" in line]
        plain = [word for line in lines for word in line if re.match(r"MUFU.RSQ|F(MUL|FMA)\b", word)]
        found[name] = [word.removesuffix(".FTZ") for word in plain]
        assert ("slowpath" in code) == (name == "math")
    assert found["math"][:5] == ["MUFU.RSQ", "FMUL", "FMUL", "FFMA", "FFMA"]
    assert found["own"] == found["math"][:5]


def test_reductions_and_first_passages_compile(tmp_path):
    parts = [
        r.start(Block(5, 900, 0), 1, 3)
        for r in (sde.Histogram(-1.0, 1.0, 20), sde.Moments(), sde.Observable(lambda x: x * x))
    ]
    takes = reductions.all_taken(parts, np.dtype(np.float32))
    passage = sde.FirstPassage(-1.0, 1.0).start(Block(5, 900, 0), 1, 3)
    takes.append(reductions.passed(passage, 1, True, (0.0, 0.1, 10)))
    found = assembled(ptx(model_of(OU, watch=model.Watch(0)), takes=takes), tmp_path)
    assert found.spills == 0
