"""The kernels of a sampler as an H200 would run them, compiled without one: no spill, no float64, few registers."""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import types as plain

import numpy as np
import pytest
from numba import types

from sdesim.cuda import backend
from sdesim.score import activations


def assembler():
    """ptxas: on the path, or in NVIDIA's wheel."""
    found = shutil.which("ptxas")
    spec = importlib.util.find_spec("nvidia")
    for place in [] if found or spec is None else spec.submodule_search_locations:
        for path in pathlib.Path(place).glob("cu*/bin/ptxas"):
            found = str(path)
    return found


MISSING = (
    "the simulator compiles nothing" if backend.simulated
    else "needs numba-cuda: pip install 'sdesim[cuda]'" if importlib.util.find_spec("numba_cuda") is None
    else "needs ptxas: pip install 'sdesim[cuda]'" if assembler() is None
    else ""
)  # fmt: skip
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

LOW = {"fp32": types.float32, "fp16": types.float16, "bf16": types.uint16}


def array(kind, dims):
    return types.Array(kind, dims, "C")


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """(kernel, signature) -> (PTX, what ptxas says)."""
    hopper = plain.SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: hopper)

    def compile(kernel, *arguments):
        ptx, _ = backend.cuda.compile(
            kernel.py_func, types.void(*arguments), cc=(9, 0), device=False, abi="numba"
        )  # fmt: skip
        path = tmp_path / "kernel.ptx"
        path.write_text(ptx)
        command = [assembler(), "-arch=sm_90", "-v", str(path), "-o", str(tmp_path / "kernel.cubin")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ptx, done.stderr

    return compile


def check(ptx, said):
    assert not re.findall(r"\.f64", ptx)
    assert "__local_depot" not in ptx
    assert re.search(r"0 bytes spill stores, 0 bytes spill loads", said)
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= 32  # so that a multiprocessor is full


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", activations.NAMES)
def test_activations(compiled, precision, name):
    from sdesim.cuda import formats, network_kernels

    kernel = network_kernels.activation(activations.scalar(name, np.dtype(np.float32)), 256, formats.of(precision))
    number, low = types.int64, array(LOW[precision], 2)
    check(*compiled(kernel, low, array(types.float32, 2), array(types.int32, 1), number, number))


# outputs so far, S, R, last, keeps, feeds: Euler-Maruyama, DPM-Solver++, Heun's two moves, an entry, Runge-Kutta
MOVES = [(1, 1, 1, True, False, True), (1, 1, 0, True, True, True), (1, 2, 0, False, False, True),
         (2, 2, 0, True, False, True), (0, 1, 1, False, False, True), (4, 4, 0, True, False, True)]  # fmt: skip


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", MOVES, ids=str)
def test_moves(compiled, precision, case):
    from sdesim.cuda import formats, network_kernels

    kernel = network_kernels.move(*case, 256, formats.of(precision))
    check(*compiled(kernel, *move_arguments(LOW[precision])))


def move_arguments(low):
    f4, ints = types.float32, types.int32
    return (
        array(f4, 2), array(f4, 2), array(low, 3), array(f4, 1), array(f4, 1), array(low, 2), array(f4, 3),
        array(f4, 2), array(f4, 3), array(types.int64, 3), array(ints, 1), array(types.uint64, 1),
        types.UniTuple(types.uint32, 20), array(ints, 1),
    )  # fmt: skip


def test_products_and_counters(compiled):
    from sdesim.cuda import network_kernels, products

    check(*compiled(network_kernels.product(products.TILE), *[array(types.float32, 2)] * 3))
    check(*compiled(network_kernels.counter(), array(types.int32, 1)))


def fused(ptx):
    return len(re.findall(r"fma\.rn\.f32", ptx))


def sums_of_products(ptx):
    """Sums in PTX that take a bare product, which an assembler may make one operation of."""
    products = set(re.findall(r"mul\.f32\s+(%f\d+),", ptx))
    sums = re.findall(r"(?:add|sub)\.f32\s+%f\d+, (\S+), (\S+);", ptx)
    return [pair for pair in sums if products & {name.lstrip("-") for name in pair}]


@pytest.mark.parametrize("case", MOVES, ids=str)
def test_a_move_leaves_nothing_to_contract(compiled, case):
    """The bits of noise and states do not depend on what a compiler takes together: there is nothing to take."""
    from sdesim.cuda import formats, network_kernels

    arguments = move_arguments(types.float32)
    kernel = network_kernels.move(*case, 256, formats.of("fp32"))
    ptx, _ = compiled(kernel, *arguments)
    with backend.compiling():  # contraction switched off
        apart, _ = compiled(kernel, *arguments)
    assert fused(ptx) == fused(apart) > 0
    assert not sums_of_products(ptx)


def test_a_contraction_would_be_seen(compiled):
    from sdesim.cuda.backend import cuda

    def careless(x, a, b):
        x[cuda.threadIdx.x] = a * x[cuda.threadIdx.x] + b

    arguments = (array(types.float32, 1), types.float32, types.float32)
    ptx, _ = compiled(cuda.jit(careless), *arguments)
    with backend.compiling():
        apart, _ = compiled(cuda.jit(careless), *arguments)
    assert (fused(ptx), fused(apart)) == (1, 0)
    assert sums_of_products("mul.f32 %f4, %f3, %f1;\nadd.f32 %f5, %f2, %f4;") == [("%f2", "%f4")]
