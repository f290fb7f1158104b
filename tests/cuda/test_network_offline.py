"""The kernels of a sampler compiled for an H200 where there is none: no spill, no float64, nothing to contract."""

import contextlib
import re
import types as plain

import numpy as np
import pytest
from numba import types
from ptx_machine import Machine, width
from sass import HOPPER, assembled, missing

from sdesim.core.philox import round_keys
from sdesim.cuda import backend, formats, network_kernels, products
from sdesim.score import activations

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

LOW = {"fp32": types.float32, "fp16": types.float16, "bf16": types.uint16}


def array(kind, dims):
    return types.Array(kind, dims, "C")


@pytest.fixture
def compiled(monkeypatch):
    """(kernel, argument types) -> PTX; ``contract=False`` switches off what libNVVM takes together."""
    # numba-cuda asks the current device, of which there is none
    hopper = plain.SimpleNamespace(compute_capability=HOPPER)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: hopper)

    def compile(kernel, *arguments, contract=True):
        with contextlib.nullcontext() if contract else backend.compiling():
            signature = types.void(*arguments)
            return backend.cuda.compile(kernel.py_func, signature, cc=HOPPER, device=False, abi="numba")[0]

    return compile


def check(ptx, folder):
    found = assembled(ptx, folder)
    assert found.spills == found.stack == 0
    assert found.registers <= 32  # so that a multiprocessor is full
    assert ".f64" not in re.sub(r"%f64\b", "", ptx)


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", activations.NAMES)
def test_activations(compiled, precision, name, tmp_path):
    phi = activations.scalar(name, np.dtype(np.float32))
    kernel = network_kernels.activation(phi, 256, formats.of(precision))
    number, low = types.int64, array(LOW[precision], 2)
    check(compiled(kernel, low, array(types.float32, 2), array(types.int32, 1), number, number), tmp_path)


# outputs so far, S, R, last, keeps, feeds: Euler-Maruyama, DPM-Solver++, Heun's two moves, an entry, Runge-Kutta
MOVES = [(1, 1, 1, True, False, True), (1, 1, 0, True, True, True), (1, 2, 0, False, False, True),
         (2, 2, 0, True, False, True), (0, 1, 1, False, False, True), (4, 4, 0, True, False, True)]  # fmt: skip


def move_arguments(low):
    f4, ints = types.float32, types.int32
    return (
        array(f4, 2), array(f4, 2), array(low, 3), array(f4, 1), array(f4, 1), array(low, 2), array(f4, 3),
        array(f4, 2), array(f4, 3), array(types.int64, 3), array(ints, 1), array(types.uint64, 1),
        types.UniTuple(types.uint32, 20), array(ints, 1),
    )  # fmt: skip


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", MOVES, ids=str)
def test_moves(compiled, precision, case, tmp_path):
    kernel = network_kernels.move(*case, 256, formats.of(precision))
    check(compiled(kernel, *move_arguments(LOW[precision])), tmp_path)


def test_products_and_counters(compiled, tmp_path):
    check(compiled(network_kernels.product(products.TILE), *[array(types.float32, 2)] * 3), tmp_path)
    check(compiled(network_kernels.counter(), array(types.int32, 1)), tmp_path)


# ---- the bits of noise and states do not depend on what a compiler takes together: there is nothing to take ---------


def fused(ptx):
    return len(re.findall(r"fma\.rn\.f32", ptx))


def sums_of_products(ptx):
    """Sums in PTX that take a bare product, which an assembler may make one operation of."""
    bare = set(re.findall(r"mul\.f32\s+(%f\d+),", ptx))
    sums = re.findall(r"(?:add|sub)\.f32\s+%f\d+, (\S+), (\S+);", ptx)
    return [pair for pair in sums if bare & {name.lstrip("-") for name in pair}]


@pytest.mark.parametrize("case", MOVES, ids=str)
def test_a_move_leaves_nothing_to_contract(compiled, case):
    arguments = move_arguments(types.float32)
    kernel = network_kernels.move(*case, 256, formats.of("fp32"))
    ptx = compiled(kernel, *arguments)
    assert fused(ptx) == fused(compiled(kernel, *arguments, contract=False)) > 0
    assert not sums_of_products(ptx)


def test_a_contraction_would_be_seen(compiled):
    from sdesim.cuda.backend import cuda

    def careless(x, a, b):
        x[cuda.threadIdx.x] = a * x[cuda.threadIdx.x] + b

    kernel, arguments = cuda.jit(careless), (array(types.float32, 1), types.float32, types.float32)
    assert [fused(compiled(kernel, *arguments, contract=flag)) for flag in (True, False)] == [1, 0]
    assert sums_of_products("mul.f32 %f4, %f3, %f1;\nadd.f32 %f5, %f2, %f4;") == [("%f2", "%f4")]


class Integers(Machine):
    """With the low half of integer products, which addresses and selections are made of."""

    def step(self, name, places):
        if name[:2] == ["mul", "lo"]:
            a, b = (self.read(place) for place in places[1:])
            self.registers[places[0]] = a * b & (2 ** width(name[-1]) - 1)
        else:
            super().step(name, places)


def test_the_noise_of_a_move_has_the_bits_of_the_cpu(compiled):
    """Its PTX, as libNVVM makes it with every contraction that it may take, run instruction by instruction."""

    def leaf(out, first_path, row, column, purpose, block, lane, keys):
        out[0] = network_kernels.normal(keys, first_path, row, column, purpose, block, lane)

    words = [types.uint32] * 5
    keys_type = types.UniTuple(types.uint32, 20)
    ptx = compiled(plain.SimpleNamespace(py_func=leaf), array(types.float32, 1), types.uint64, *words, keys_type)
    machine, rng = Integers(ptx), np.random.default_rng(0)
    for number in range(100):
        first_path, seed = int(rng.integers(0, 2**62)), int(rng.integers(0, 2**63))
        place = [int(rng.integers(0, most)) for most in (2**16, 2**24, 11, 2**20)] + [number % 4]
        keys = round_keys(seed)
        wanted = network_kernels.normal(keys, np.uint64(first_path), *map(np.uint32, place))
        # an array is seven parameters, of which the fifth is its address
        (found,) = machine.run([0] * 7 + [first_path, *place, *map(int, keys)], 4)
        assert found == int(np.float32(wanted).view(np.uint32))
