"""From formulas to machine code: the value of NumPy, the dtype of the state, and clear refusals."""

import ctypes
import dataclasses
import math
import pathlib
import re
import sys
import types as python_types

import numpy as np
import pytest
from numba import njit, types
from scipy import special

import sdesim as sde
from sdesim.core import cache, compile
from sdesim.core.plain_functions import PLAIN
from sdesim.errors import CompileError

LANES = compile.LANES


def evaluate(owner, name, x, t, dtype):
    """A coefficient of a process by its compiled tile function, on rows (rows, 256) and times (256,)."""
    dtype = np.dtype(dtype)
    layout, vector = compile.flatten(type(owner).__name__, owner.fields())
    tile = compile.tile(name, owner.formula(name), layout, dtype, dim=owner.dim, entries="number")
    x, t, p = (np.ascontiguousarray(a, dtype) for a in (x, np.append(t, 0.1), vector))
    out = np.full_like(x, np.nan)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_ssize_t)(tile.address)
    call(x.ctypes.data, t.ctypes.data, p.ctypes.data, out.ctypes.data, len(x))
    return out


@dataclasses.dataclass(frozen=True)
class Well:
    """Something nested in a process."""

    depth: float
    centre: np.ndarray

    def fields(self):
        return {"depth": self.depth, "centre": self.centre}


@dataclasses.dataclass(frozen=True)
class Rich(sde.Process):
    """Numbers, arrays and nested objects as fields."""

    theta: float
    count: int
    levels: np.ndarray
    well: Well
    matrix: np.ndarray

    def diffusion(self, x, t):
        return 1.0


RICH = Rich(
    1.7,
    3,
    np.array([0.5, -1.25, 2.0]),
    Well(0.8, np.array([0.3, 0.4])),
    np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]),
)

RATE = 0.37
TABLE = np.array([0.1, 0.2, 0.7])


def helper(x, slope=0.25):
    return slope * x + second_helper(x)


def second_helper(x):
    return RATE * np.exp(-0.5 * x * x)


@njit
def compiled_helper(x):
    return 0.5 * x + 1.0


def closure_over(k):
    def inner(x):
        return k * x - 0.1

    def drift(self, x, t):
        return inner(x) * k + t

    return drift


def loop(self, x, t):
    total = 0.0
    for level in self.levels:
        total += level * x
    return total


def loop_over_indices(self, x, t):
    total = 0.0 * x
    for i in range(3):
        total += self.levels[i] * (x + i) * (i + 1) / 3
    return total


def branch(self, x, t):
    if x > 0.3 and t < 1:
        return 2 * x
    elif x < -1:
        return -1.0
    return 1 - x


def local_names(self, x, t):
    a, b = x + 0.5, self.theta
    c = (a * b, a / b)
    a *= 2
    a -= 0.5
    return a + c[0] - c[1]


FORMULAS = {
    "closure": closure_over(0.7),
    "global number": lambda self, x, t: RATE * x,
    "global array": lambda self, x, t: TABLE[1] * x + TABLE[2],
    "plain helper": lambda self, x, t: helper(x) + helper(x, 0.5),
    "compiled helper": lambda self, x, t: compiled_helper(x) * t,
    "default": lambda self, x, t: helper(x),
    "integers": lambda self, x, t: 2 * x - x / 3 + (1 - x) * 4 + 7,
    "integers alone": lambda self, x, t: x * (3 * 2 - 1) / 2,
    "pi and e": lambda self, x, t: np.pi * x + math.e * t - math.pi,
    "where": lambda self, x, t: np.where(x > 0, x, -2 * x) + np.where(x < 0.5, 1, 0) * x,
    "powers": lambda self, x, t: x**2 - 0.5 * x**3 + abs(x) ** 0.5 + 2.0**x + x**-1,
    "powers by name": lambda self, x, t: np.power(np.abs(x), 1.5) + np.square(x) + np.sqrt(abs(x)),
    "functions": lambda self, x, t: np.exp(-x) + np.log(1.0 + x * x) + np.sin(x) * np.cos(t) + np.tanh(x),
    "math functions": lambda self, x, t: math.exp(-x) + math.log(2 + x * x) + math.sin(x) + math.sqrt(1 + x * x),
    "extrema": lambda self, x, t: np.maximum(x, 0) + np.minimum(1, x) + max(x, 0.5) + min(x, 2) + np.abs(x) + abs(x),
    "rounding": lambda self, x, t: np.floor(3 * x) + np.sign(x) + np.ceil(x),
    "remainder": lambda self, x, t: (x % 1.0) + np.mod(t, 0.4) + x // 2,
    "expm1": lambda self, x, t: np.expm1(x) + np.log1p(x * x) + np.hypot(x, t) + np.arctan2(x, 2.0),
    "conditional expression": lambda self, x, t: (1 if x > 0 else -1) * x,
    "comparison as a number": lambda self, x, t: (x > 0) * x,
    "minus and plus": lambda self, x, t: -(x - 3) + (+x) - 1,
    "a constant": lambda self, x, t: 1.5,
    "an integer": lambda self, x, t: 2,
    "time only": lambda self, x, t: np.cos(3 * t),
    "numpy scalars": lambda self, x, t: np.float64(0.3) * x + np.float32(2.0),
    "a field": lambda self, x, t: self.theta * x,
    "an integer field": lambda self, x, t: x / self.count + self.count,
    "array fields": lambda self, x, t: self.levels[0] * x + self.matrix[1, 2] - self.matrix[0][1],
    "nested fields": lambda self, x, t: self.well.depth * (x - self.well.centre[1]),
    "a loop": loop,
    "a loop over indices": loop_over_indices,
    "branches": branch,
    "local names": local_names,
}


def bound(formula):
    return type("Rich", (Rich,), {"drift": formula})(
        **{f.name: getattr(RICH, f.name) for f in dataclasses.fields(Rich)}
    )


# float64 because it is asked for by name, or by a rule that no constant decides: an integer made at
# run time meets a float32
MAY_BE_DOUBLE = {"conditional expression", "comparison as a number", "a loop over indices", "numpy scalars"}
MAY_BE_DOUBLE.add("compiled helper")  # the user's own compilation, taken as it is
ARITHMETIC = re.compile(r"= (?:fast )?f(?:add|sub|mul|div|rem|neg|cmp|ptrunc|pext)[^\n]*\bdouble\b")


def view_of(owner, dtype):
    """The fields of ``owner`` as compiled code sees them."""
    values = {}
    for name, value in owner.fields().items():
        if hasattr(value, "fields"):
            values[name] = view_of(value, dtype)
        else:
            values[name] = np.asarray(value, dtype)[()]
    return compile.view_type(type(owner).__name__, tuple(values))(**values)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.slow), np.float32])
def test_the_compiled_value_is_numpys_and_of_the_states_dtype(name, dtype):
    process = bound(FORMULAS[name])
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=60).astype(dtype), rng.uniform(0, 2, 60).astype(dtype)
    expected = [process.drift(float(a), float(b)) for a, b in zip(x, t, strict=True)]
    dispatcher = compile.formula(process.formula("drift"))
    view = view_of(process, dtype)
    out = [dispatcher(view, a, b) for a, b in zip(x, t, strict=True)]
    tolerance = 1e-13 if dtype == np.float64 else 3e-6
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    (signature,) = dispatcher.nopython_signatures
    if dtype == np.float32 and name not in MAY_BE_DOUBLE:
        assert signature.args[1:] == (types.float32, types.float32)
        assert isinstance(signature.return_type, types.Integer) or signature.return_type == types.float32
        text = "".join(dispatcher.inspect_llvm().values())
        bodies = [body for body in text.split("\ndefine ") if "cpython" not in body.partition("{")[0]]
        doubles = ARITHMETIC.findall("\n".join(bodies[1:]))
        assert not doubles, doubles


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_tile_is_the_formula_on_every_lane(dtype):
    def drift(self, x, t):
        nested = self.well.depth * (x - self.well.centre[1]) + self.matrix[1, 2] - self.matrix[0][1]
        return nested + self.theta * t + self.levels[2] / self.count + helper(x)

    process = bound(drift)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, LANES)).astype(dtype), rng.uniform(0, 2, LANES).astype(dtype)
    out = evaluate(process, "drift", x, t, dtype)
    assert out.dtype == dtype
    tolerance = 1e-13 if dtype == np.float64 else 3e-6
    np.testing.assert_allclose(out, process.drift(x.astype(float), t.astype(float)), rtol=tolerance, atol=tolerance)


def test_numbas_own_rule_would_widen():
    """The control of the test above: without the rewriting a constant makes float64 of everything."""
    plain = njit(lambda x: 0.5 * x)
    assert plain(np.float32(1.0)) == 0.5
    assert plain.nopython_signatures[0].return_type == types.float64


def test_float64_states_keep_all_their_digits():
    process = bound(lambda self, x, t: 0.1 * x + np.pi)
    out = evaluate(process, "drift", np.ones((1, LANES)), np.zeros(LANES), np.float64)
    assert (out == 0.1 + np.pi).all()


# ---- what is read ----------------------------------------------------------------------------------------


def nothing(self, x, t):
    return self.theta


def state(self, x, t):
    return x


def time(self, x, t):
    return np.cos(t)


def both_in_a_closure(self, x, t):
    return (lambda: x + t)()


def overwritten(self, x, t):
    x = 1.0
    return x


def unpacked(self, x, t):
    q, p = x
    return q + p


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nothing, (False, False)),
        (state, (True, False)),
        (time, (False, True)),
        (both_in_a_closure, (True, True)),
        (overwritten, (True, False)),
        (unpacked, (True, False)),
        (njit(nothing), (False, False)),
        (njit(time), (False, True)),
        (lambda *arguments: 0.0, (True, True)),
        (lambda self, x, t, k=1: 0.0, (True, True)),
    ],
)
def test_uses(function, expected):
    assert compile.uses(function) == expected


# ---- refusals --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Base(sde.Process):
    theta: float = 1.0
    kappa: float = 2.0

    @property
    def product(self):
        return self.theta * self.kappa

    def twice(self, x):
        return 2.0 * x

    def diffusion(self, x, t):
        return 1.0


def raising(self, x, t):
    if x > 1e6:
        raise ValueError("too far")
    return -x


def asserting(self, x, t):
    assert x < 1e6
    return -x


class Opaque:
    value = 1.0


OPAQUE = Opaque()

REFUSED = {
    "a property": (lambda self, x, t: self.product * x, r"drift does not compile.*\(theta, kappa\).*product"),
    "a method": (lambda self, x, t: self.twice(x), r"\(theta, kappa\).*twice"),
    "a plain object": (lambda self, x, t: OPAQUE.value * x, "does not compile.*OPAQUE"),
    "a generator": (lambda self, x, t: sum(x for _ in range(2)), "does not compile"),
    "a function of SciPy": (lambda self, x, t: special.erf(x), "does not compile.*erf"),
    "raise": (raising, "raises or asserts.*nan"),
    "assert": (asserting, "raises or asserts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_explained(name):
    formula, match = REFUSED[name]
    process = type("Custom", (Base,), {"drift": formula})()
    with pytest.raises(CompileError, match=match) as caught:
        sde.simulate(process, 0.5, (0, 1), n_steps=2, n_paths=2)
    message = str(caught.value)
    assert "\n" not in message
    assert "Custom.drift" in message or "raises" in message
    assert "compiled=False" in message or "raises" in message
    # and the way out that the message names works
    free = type("Custom", (Base,), {"drift": formula, "batch_only": True})()
    if name not in ("raise", "assert", "a generator"):
        assert sde.simulate(free, 0.5, (0, 1), n_steps=2, n_paths=2).success


@pytest.mark.parametrize(
    ("formula", "error"),
    [
        (lambda self, x, t: self.thetta * x, AttributeError),
        (lambda self, x, t: undefined_name * x, NameError),  # noqa: F821
    ],
)
def test_slips_of_the_pen_are_pythons_own_errors(formula, error):
    process = type("Custom", (Base,), {"drift": formula})()
    with pytest.raises(error, match=r"thetta|undefined_name"):
        sde.simulate(process, 0.5, (0, 1), n_steps=2, n_paths=2)


# ---- the same process, other constants -------------------------------------------------------------------


def end(process, **more):
    return sde.simulate(process, 1.0, (0, 1), n_steps=2, n_paths=1, increments=np.zeros((1, 2)), **more).final[0]


SPEED = 0.5


def moving_helper(x):
    return SPEED * x


@pytest.fixture
def constants(monkeypatch):
    module = python_types.ModuleType("constants_of_a_user")
    module.speed = 0.5
    monkeypatch.setitem(sys.modules, "constants_of_a_user", module)
    return module


def changes(function, change):
    before = cache.fingerprint("", {"_formula": compile.formula(function)})
    assert cache.fingerprint("", {"_formula": compile.formula(function)}) == before
    change()
    return cache.fingerprint("", {"_formula": compile.formula(function)}) != before


def test_a_changed_constant_is_another_formula(constants, monkeypatch):
    assert changes(lambda x, t: SPEED * x, lambda: monkeypatch.setitem(globals(), "SPEED", 1.0))
    assert changes(lambda x, t: moving_helper(x), lambda: monkeypatch.setitem(globals(), "SPEED", 0.5))
    speed = 0.5

    def closed(x, t):
        return speed * x

    def faster():
        nonlocal speed
        speed = 1.0

    assert changes(closed, faster)
    table = np.array([0.5])
    assert changes(lambda x, t: table[0] * x, lambda: table.__setitem__(0, 1.0))
    assert changes(lambda x, t: constants.speed * x, lambda: setattr(constants, "speed", 1.0))
    assert not changes(lambda x, t: constants.speed * x, lambda: setattr(constants, "other", 1.0))
    assert changes(lambda x, t: moving_helper(x), lambda: setattr(moving_helper, "__defaults__", (2.0,)))


def test_a_changed_constant_is_noticed_by_the_next_run(constants):
    process = sde.ito(lambda x, t: constants.speed * x, lambda x, t: 0.0)
    assert end(process) == pytest.approx(1.25**2)
    constants.speed = 1.0
    assert end(process) == pytest.approx(1.5**2)


def kernels(folder):
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def test_a_new_parameter_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(cache._state, "folder", tmp_path)
    ends = []
    before = None
    for value in (0.5, 1.0, -2.0):
        ends.append(end(sde.ito(lambda x, t, a: a * x, lambda x, t: 0.0, a=value)))
        if before is None:
            before = kernels(tmp_path)
            assert any("kernel_" in name for name in before)
        assert kernels(tmp_path) == before
    np.testing.assert_allclose(ends, [1.25**2, 1.5**2, 0.0], atol=1e-15)
    monkeypatch.undo()


def test_two_lambdas_of_one_line_are_two_formulas():
    a, b = (lambda x, t: 0.5 * x), (lambda x, t: 1.0 * x)
    assert end(sde.ito(a, lambda x, t: 0.0)) == pytest.approx(1.25**2)
    assert end(sde.ito(b, lambda x, t: 0.0)) == pytest.approx(1.5**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(PLAIN))
def test_functions_that_stand_in_for_numpys_on_a_gpu(name, dtype):
    for x in (0.3, 0.75) if name in ("arctanh", "arcsin", "arccos") else (1.25, 2.5, 7.0):
        value, expected = PLAIN[name](dtype(x)), getattr(np, name)(dtype(x))
        assert value == pytest.approx(expected, rel=4 * float(np.finfo(dtype).eps))
    assert all(s.return_type == s.args[0] for s in PLAIN[name].nopython_signatures)
