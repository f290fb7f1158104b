"""The PTX that a GPU would be given computes the CPU's bits: shown on a machine for it, instruction by instruction."""

import numpy as np
import pytest
from ptx_machine import FLOATS, Machine
from sass import leaf_ptx_of, missing

from sdesim.core import compile, normals, philox

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
N = 300
DTYPES = {"f32": np.float32, "f64": np.float64}


@pytest.mark.parametrize("kind", DTYPES)
def test_normals_are_those_of_the_cpu(kind):
    draw = normals.path_normals32 if kind == "f32" else normals.path_normals64
    machine = Machine(leaf_ptx_of(draw, kind, normals.DRAWS[np.dtype(DTYPES[kind])]))
    rng = np.random.default_rng(0)

    def run(counter, keys):
        # an array is seven parameters, of which the fifth is its address
        return machine.run([0] * 7 + [int(w) for w in (*counter, *keys)], np.dtype(DTYPES[kind]).itemsize)

    for _ in range(N):
        counter = rng.integers(0, 2**32, 4, np.uint32)
        keys = philox.round_keys(int(rng.integers(0, 2**63)))
        expected = np.array(draw(*counter, keys), DTYPES[kind]).view(FLOATS[kind][0]).tolist()
        assert run(counter, keys) == expected
    assert run(counter, keys[::-1]) != expected


def formula(x, t):
    """What a formula may use, with products that feed sums."""
    wave = np.sin(x) * np.exp(-t) + x / (1.0 + x * x) - x**3
    return wave + np.tanh(x) * np.log(1.0 + x * x) + 0.3 * np.sqrt(abs(x)) * t


@pytest.mark.parametrize("contract", [False, True], ids=["", "contracted"])
@pytest.mark.parametrize("kind", DTYPES)
def test_a_formula_has_the_bits_of_the_cpu(kind, contract):
    compiled = compile.formula(formula)
    real = DTYPES[kind]
    machine = Machine(leaf_ptx_of(compiled, kind, 1, contract=contract))
    rng = np.random.default_rng(1)
    equal = 0
    for x, t in rng.normal(0.0, 2.0, (N, 2)).astype(real):
        words = np.array([x, t]).view(FLOATS[kind][0]).tolist()
        (found,) = machine.run([0] * 7 + words, np.dtype(real).itemsize)
        equal += found == int(np.array(compiled(x, t), real).view(FLOATS[kind][0]))
    assert equal == N if not contract else equal < 0.9 * N
