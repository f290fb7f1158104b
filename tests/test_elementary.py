"""exp, log, sin, cos, tanh and where of compiled formulas: accuracy, edges, and vector registers."""

import math
import platform
import re

import mpmath
import numpy as np
import pytest
from numba import njit, types

from sdesim.core import elementary, functions

F32, F64 = np.float32, np.float64


def loop_over(function):
    @njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


NAMES = ["exp", "log", "sin", "cos", "tanh"]
LOOPS = {name: loop_over(getattr(functions, name)) for name in NAMES}


def compiled(name, x):
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    LOOPS[name](x, out)
    assert out.dtype == x.dtype
    return out


def points(name, dtype, n=3000):
    """Where the function is used: all magnitudes, and the seams of its reduction."""
    rng = np.random.default_rng(4)
    low, high = {F32: (-86.0, 88.0), F64: (-707.0, 709.0)}[dtype]
    tiny = 10.0 ** rng.uniform(-30 if dtype == F32 else -300, 0, n) * rng.choice([-1, 1], n)
    if name == "exp":
        seams = (np.arange(-120, 120) + 0.5) * math.log(2)
        x = np.concatenate([rng.uniform(low, high, n), rng.normal(size=n), tiny, seams])
    elif name == "log":
        x = np.concatenate([np.exp(rng.uniform(low, high, n)), 1.0 + rng.normal(size=n) * 1e-2, abs(tiny)])
        x = np.append(x, 1.0 + rng.uniform(-1e-6, 1e-6, n))
    elif name == "tanh":
        x = np.concatenate([rng.uniform(-20, 20, n), rng.uniform(-1, 1, n), tiny])
    else:
        x = np.concatenate([rng.uniform(-10, 10, n), tiny, 10.0 ** rng.uniform(0, 5, n)])
        x = np.concatenate([x, np.arange(-40, 40) * math.pi / 4])
    x = x.astype(dtype)
    return x[abs(x) >= np.finfo(dtype).tiny]


def exact(name, x):
    """The function in 40 digits, as pairs of a rounded value and the rest."""
    with mpmath.workdps(40):
        values = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in x]
        rounded = np.array([float(v) for v in values])
        rest = np.array([float(v - mpmath.mpf(r)) for v, r in zip(values, rounded.tolist(), strict=True)])
    return rounded, rest


# Largest error in units in the last place; for sin and cos, of the larger of the value and ½.
BOUNDS = {
    ("exp", F32): 1.1, ("exp", F64): 1.1,
    ("log", F32): 1.5, ("log", F64): 1.1,
    ("sin", F32): 1.5, ("sin", F64): 1.5,
    ("cos", F32): 1.5, ("cos", F64): 1.5,
    ("tanh", F32): 2.5, ("tanh", F64): 2.5,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_in_units_of_the_last_place(name, dtype):
    x = points(name, dtype)
    rounded, rest = exact(name, x)
    floor = 0.5 if name in ("sin", "cos") else 0.0
    spacing = np.spacing(np.maximum(abs(rounded), floor).astype(dtype)).astype(float)
    error = abs((compiled(name, x).astype(float) - rounded) - rest) / spacing
    worst = int(error.argmax())
    assert error[worst] < BOUNDS[name, dtype], (x[worst], error[worst])
    # the measure itself can fail: a relative error of 1e-6 (or 1e-15) is seen
    relative = 4 * float(np.finfo(dtype).eps)
    assert (abs(rounded * relative) / spacing).max() > BOUNDS[name, dtype]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", ["sin", "tanh"])
def test_near_zero_sine_and_tanh_keep_relative_accuracy(name, dtype):
    x = np.array([1e-3, -1e-3, 1e-10, 1e-20, -1e-30], dtype)
    assert (abs(compiled(name, x) / x - 1) < 1e-6).all()
    tiny = np.array([1e-10, 1e-20], dtype)
    assert np.array_equal(compiled(name, tiny), tiny)


EDGES = {
    "exp": ([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], [np.nan, np.inf, 0.0, 1.0, 1.0, np.inf, 0.0]),
    "log": ([np.nan, np.inf, 0.0, -0.0, -1.0, -np.inf, 1.0], [np.nan, np.inf, -np.inf, -np.inf, np.nan, np.nan, 0.0]),
    "sin": ([np.nan, np.inf, -np.inf, 0.0], [np.nan, np.nan, np.nan, 0.0]),
    "cos": ([np.nan, np.inf, -np.inf, 0.0], [np.nan, np.nan, np.nan, 1.0]),
    "tanh": ([np.nan, np.inf, -np.inf, 0.0, 50.0, -50.0, 1e30], [np.nan, 1.0, -1.0, 0.0, 1.0, -1.0, 1.0]),
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", NAMES)
def test_edge_values(name, dtype):
    x, expected = EDGES[name]
    np.testing.assert_array_equal(compiled(name, np.array(x, dtype)), np.array(expected, dtype))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_exp_overflows_and_underflows_where_it_should(dtype):
    top = dtype(np.log(np.finfo(dtype).max))
    below, above = np.nextafter(top, dtype(0)), np.nextafter(np.nextafter(top, dtype(np.inf)), dtype(np.inf))
    low, high = compiled("exp", np.array([below, above], dtype))
    assert np.isfinite(low)
    assert low > 0.999 * float(np.finfo(dtype).max)
    assert high == np.inf
    bottom = dtype({F32: -86.6, F64: -707.7}[dtype])
    assert compiled("exp", np.array([bottom], dtype))[0] > 0
    assert compiled("exp", np.array([bottom * dtype(1.001)], dtype))[0] == 0
    x = np.linspace(bottom, below, 4001, dtype=dtype)
    assert (np.diff(compiled("exp", x).astype(float)) >= 0).all()


@pytest.mark.parametrize("dtype", [F32, F64])
def test_log_of_subnormals(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.array([smallest, 3 * smallest, np.finfo(dtype).tiny / 2, np.finfo(dtype).max], dtype)
    np.testing.assert_allclose(compiled("log", x), np.log(x.astype(np.longdouble)).astype(float), rtol=3e-7)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_large_angles_are_right_or_nan(dtype):
    limit = {F32: 2.0**22, F64: 2.0**51}[dtype]
    x = np.array([0.999 * limit, -0.999 * limit, limit / 3, limit, -2 * limit], dtype)
    for name in ("sin", "cos"):
        out = compiled(name, x)
        rounded, _ = exact(name, x[:3])
        np.testing.assert_allclose(out[:3], rounded, rtol=0, atol=4 * float(np.finfo(dtype).eps))
        assert np.isnan(out[3:]).all()


def test_where_selects_numbers_and_takes_their_type():
    @njit
    def choose(x):
        return functions.where(x > 0, x, functions.where(x < F32(-1), F32(7.0), F32(3.0)))

    assert [choose(F32(v)) for v in (2.0, -0.5, -2.0)] == [2.0, 3.0, 7.0]
    assert choose.nopython_signatures[0].return_type == types.float32
    assert np.isnan(choose(F32(np.nan))) == np.isnan(F32(3.0))


def test_outside_compiled_code_they_are_numpys():
    x = np.linspace(0.1, 2.0, 7)
    for name in NAMES:
        assert np.array_equal(getattr(functions, name)(x), getattr(np, name)(x))
    assert np.array_equal(functions.where(x > 1, x, 0.0), np.where(x > 1, x, 0.0))


X86 = platform.machine().lower() in ("x86_64", "amd64")
MOVES = re.compile(r"^\s+(v?(?:mul|add|fmadd|fnmadd|fmsub)\w*p[sd])\s.*%?[yz]mm\d", re.M)
CALLS = re.compile(r"^\s+call\w*\s+\*?%?(.*)$", re.M)


def assembly(function, kind):
    loop = loop_over(function)
    array = types.Array(kind, 1, "C")
    loop.compile((array, array))
    (text,) = loop.inspect_asm().values()
    # every libm that the code calls is named somewhere, be it through a register
    return text, [name for name in ("exp", "log", "sin", "cos", "tanh") if re.search(rf"\b_?{name}f?\b", text)]


@pytest.mark.skipif(not X86, reason="the registers of x86 are looked for")
@pytest.mark.parametrize("kind", [types.float32, types.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_loop_runs_in_vector_registers_and_calls_no_libm(name, kind):
    text, libm = assembly(getattr(functions, name), kind)
    assert not libm
    packed = MOVES.findall(text)
    assert len(packed) > 4, "no packed arithmetic in wide registers"
    assert any(move.endswith("ps" if kind == types.float32 else "pd") for move in packed)


@pytest.mark.skipif(not X86, reason="the registers of x86 are looked for")
def test_libm_would_be_seen():
    text, libm = assembly(njit(lambda x: math.exp(x)), types.float64)
    assert libm == ["exp"]
    assert not MOVES.findall(text)


@pytest.mark.parametrize(("dtype", "multiply_add"), [(F32, 2.0**-24), (F64, 2.0**-53)])
def test_fma_rounds_once(dtype, multiply_add):
    @njit
    def f(a, b, c):
        return elementary.fma(a, b, c)

    a = dtype(1.0 + multiply_add * 2)
    exact_rest = float(a) * 0.0 + (multiply_add * 2) ** 2
    assert float(f(a, a, -dtype(1.0 + multiply_add * 4))) == exact_rest
