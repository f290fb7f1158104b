"""From a formula to a tile function: compiled code that evaluates a coefficient on 256 paths at once.

A tile function is a C function ``(x, t, p, out, rows)`` on raw memory: x and out are (rows, 256) arrays of the
state's dtype, t the 256 times, p the process's parameters flattened into one vector. Engines call it through its
address, so that an engine is compiled once for all models and a new parameter value compiles nothing.

The formula ``(self, x, t)`` is the unbound method as the user wrote it; ``self`` becomes a NamedTuple of the same
fields, rebuilt from the vector with offsets fixed at compile time. Two things are changed on the way, on Numba's
intermediate representation, so that lambdas and closures are served as well:

* numeric constants take the dtype of the state (Numba types ``0.5 * x`` as float64 for a float32 x, which costs
  float32 its speed on every target);
* ``exp``, ``log``, ``sin``, ``cos``, ``tanh``, ``where`` and ``clip`` become the library's own (``functions``), which
  run in vector registers and give the same bits everywhere.
"""

import collections
import dis
import functools
import inspect
import keyword
import math
import types as python_types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import errors as numba_errors
from numba import njit
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.untyped_passes import IRProcessing

from ..errors import CompileError
from . import cache, call, elementary, state_dtype
from .functions import FUNCTIONS
from .plain_functions import PLAIN

LANES = 256
SPOT = LANES + 4  # where the words of a transition that draws for itself begin, in items behind the start of the times

Layout = tuple[str, tuple[tuple[str, Any], ...]]


# ---- parameters: nested fields <-> one vector -----------------------------------------------------------------------


def flatten(kind: str, fields: dict[str, Any]) -> tuple[Layout, np.ndarray]:
    """The layout of a set of fields (hashable, the compile-time half) and their values as one float64 vector.

    Fields are numbers, float arrays, or objects that have ``fields()`` themselves. Anything else (a callable) is left
    out: compiled code cannot use it.
    """
    entries: list[tuple[str, Any]] = []
    values: list[np.ndarray] = []
    for name, value in fields.items():
        if isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool):
            entries.append((name, None))
            values.append(np.array([float(value)]))
        elif isinstance(value, np.ndarray):
            entries.append((name, value.shape))
            values.append(np.ascontiguousarray(value, dtype=np.float64).ravel())
        elif hasattr(value, "fields"):
            layout, vector = flatten(type(value).__name__, value.fields())
            entries.append((name, layout))
            values.append(vector)
    vector = np.concatenate(values) if values else np.zeros(0)
    return (kind, tuple(entries)), vector


@functools.lru_cache(maxsize=256)
def view_type(kind: str, names: tuple[str, ...]) -> Any:
    """The NamedTuple that compiled coefficients see as ``self``."""
    safe = kind if kind.isidentifier() and not keyword.iskeyword(kind) else "Fields"
    return collections.namedtuple(safe, names)


def view_source(layout: Layout, offset: int, names: dict[str, Any]) -> tuple[str, int]:
    """Source text that rebuilds the view from the vector ``q``, and the offset behind it."""
    kind, entries = layout
    label = f"_View{len(names)}"
    names[label] = view_type(kind, tuple(name for name, _ in entries))
    parts = []
    for _, spec in entries:
        if spec is None:
            parts.append(f"q[{offset}]")
            offset += 1
        elif spec and isinstance(spec[0], str):
            text, offset = view_source(spec, offset, names)
            parts.append(text)
        else:
            size = math.prod(spec)
            names["_shaped"] = call.shaped
            parts.append(f"_shaped(q, {offset}, {tuple(spec)!r})")
            offset += size
    return f"{label}({', '.join(parts)})", offset


# ---- formulas -------------------------------------------------------------------------------------------------------


@register_pass(mutates_CFG=False, analysis_only=False)
class StateDtype(FunctionPass):
    """Give the numeric constants of a formula the dtype of its state, and own functions the place of libm's."""

    _name = "sdesim_state_dtype"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state_dtype.Rewriting(state.func_ir, state.args, ir).run()
        return True


# What was compiled as a formula: another target of Numba meets the plain functions, and has to know.
_formulas: weakref.WeakSet[Any] = weakref.WeakSet()


def on_other_target(state: Any, ir: Any) -> bool:
    """The same pass for another compiler of Numba's kind, whose classes are in the module ``ir``."""
    if state.func_id.func not in _formulas:
        return False
    state_dtype.Rewriting(state.func_ir, state.args, ir, {**PLAIN, **FUNCTIONS}).run()
    return True


class FormulaCompiler(CompilerBase):
    """Numba's nopython pipeline with ``StateDtype`` in it."""

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(StateDtype, IRProcessing)
        pipeline.finalize()
        return [pipeline]


def formula(function: Callable[..., Any], known: dict[int, Any] | None = None) -> Any:
    """The dispatcher of a formula; plain functions that it refers to (globals, closure cells) are compiled with it."""
    known = {} if known is None else known
    if isinstance(function, Dispatcher):
        return function
    if id(function) in known:
        return known[id(function)]
    if not isinstance(function, python_types.FunctionType):
        raise CompileError(f"{function!r} is not a plain function, so it cannot be compiled")
    if cache.is_own(function):
        return _own(function)
    return _dispatcher(function, known)


@functools.cache
def _own(function: Callable[..., Any]) -> Any:
    """One dispatcher for a formula of the package, whose globals do not change."""
    return _dispatcher(function, {})


def _dispatcher(function: Any, known: dict[int, Any]) -> Any:
    _refuse_raise(function)
    _refuse_random(function)
    scope = dict(function.__globals__)
    used = {n for n in cache.all_names(function.__code__) if isinstance(scope.get(n), python_types.FunctionType)}
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if used or any(isinstance(content, python_types.FunctionType) for content in cells):
        scope.update((name, _callee(scope[name], known)) for name in used)
        closure = tuple(python_types.CellType(_callee(content, known)) for content in cells)
        rebuilt = python_types.FunctionType(
            function.__code__, scope, function.__name__, function.__defaults__, closure or None
        )
        rebuilt.__qualname__, rebuilt.__module__ = function.__qualname__, function.__module__
        original, function = function, rebuilt
    else:
        original = function
    _formulas.add(function)
    known[id(original)] = njit(pipeline_class=FormulaCompiler, error_model="numpy", nogil=True)(function)
    return known[id(original)]


def _refuse_random(function: Callable[..., Any]) -> None:
    modules = [value for value in _values(function) if isinstance(value, python_types.ModuleType)]
    names = set(function.__code__.co_names)
    if any(m.__name__ == "random" or m.__name__.endswith(".random") for m in modules) or (
        np in modules and "random" in names
    ):
        raise CompileError(
            f"{function.__qualname__} draws random numbers, which would not be those of the seed; the noise of a "
            "process is its diffusion times dW"
        )


def _values(function: Callable[..., Any]) -> list[Any]:
    """The globals and closure cells that a function refers to."""
    code, scope = function.__code__, function.__globals__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [scope[name] for name in code.co_names if name in scope] + cells


def _callee(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, python_types.FunctionType) and value not in FUNCTIONS.values():
        return formula(value, known)
    return value


def _refuse_raise(function: Callable[..., Any]) -> None:
    if _raises(function.__code__):
        raise CompileError(
            f"{function.__qualname__} raises or asserts, which compiled coefficients cannot; return nan instead "
            "and the run stops with the path, step and time, or simulate with debug=True"
        )


@functools.lru_cache(maxsize=512)
def _raises(code: python_types.CodeType) -> bool:
    return any(instruction.opname == "RAISE_VARARGS" for instruction in dis.get_instructions(code))


_VALUE = """\
from numba import njit

@njit(error_model="numpy")
def value(q, x, t):
    self = {view}
    return _formula(self, x, t)
"""


def value_of(function: Callable[..., Any], layout: Layout, parameters: np.ndarray, dim: int | None) -> np.ndarray:
    """The value of a formula that reads neither state nor time, computed in the dtype of the parameters as tiles do."""
    names: dict[str, Any] = {"_formula": formula(function)}
    view, _ = view_source(layout, 0, names)
    one = parameters.dtype.type(1.0)
    state = one if dim is None or dim == 1 else (one,) * dim
    return np.ravel(cache.load(_VALUE.format(view=view), names).value(parameters, state, one)).astype(parameters.dtype)


# ---- tile functions -------------------------------------------------------------------------------------------------

_HEADER = """\
from numba import carray, cfunc, types

_T = types.{dtype}
_P = types.CPointer(_T)

@cfunc(types.void(_P, _P, _P, _P, types.intp), cache=CACHE, error_model="numpy")
def tile(x_, t_, p_, out_, rows):
    _wide()
    q = carray(p_, ({size},))
    self = {view}
    x = carray(x_, ({x_rows}, {lanes}))
    t = carray(t_, ({lanes} + 1,))
    out = carray(out_, ({out_rows}, {lanes}))
"""


class Tile:
    """A compiled coefficient: its address, and what an engine may leave out."""

    def __init__(self, module: Any, uses_time: bool) -> None:
        self.module = module  # keeps the machine code alive
        self.address: int = module.tile.address
        self.uses_time = uses_time


def tile(
    label: str, function: Callable[..., Any], layout: Layout, dtype: Any, *, dim: int | None, entries: str, m: int = 1
) -> Tile:
    """Compile the coefficient ``function`` of a process into a tile function.

    Parameters
    ----------
    label : what to call the coefficient in a message, for example ``"OrnsteinUhlenbeck.drift"``.
    function : the formula ``(self, x, t)``, or ``(self, x, t, out)`` on tiles when ``entries == "tile"``.
    layout : of the parameters, from :func:`flatten`.
    dim : None or 1 for a formula on numbers, d for one on a d-tuple.
    entries : ``"number"`` (one value for every component), ``"tuple"``, ``"rows"`` (general noise, d rows of m),
        ``"transition"`` (a formula ``(self, x, t, dt, z)``; x holds the state's rows, then those of z, and dt stands
        behind the 256 times), ``"tile"`` (written by hand on tiles) or ``"transition_tile"`` (a transition written by
        hand on tiles, ``(self, x, t, dt, z, spot, out)``: as for ``"transition"``, and behind the times, from byte
        ``SPOT`` · itemsize on, stand the uint64 words seed, path of lane 0 and number of the step).
    """
    dtype = np.dtype(dtype)
    names: dict[str, Any] = {"_wide": elementary.wide_vectors}
    if entries == "transition_tile":
        names["_words"] = call.words_behind
    view, size = view_source(layout, 0, names)
    scalar = dim is None or dim == 1
    rows = "rows" if scalar else str(dim)
    x_rows, out_rows = rows, rows
    if entries in ("tile", "transition_tile"):
        rows = x_rows = out_rows = "rows"
        if entries == "transition_tile":
            x_rows = "2 * rows"
    elif entries == "transition":
        x_rows = f"2 * {rows}"
    elif entries == "rows":
        out_rows = f"{dim} * {m}"
    text = _HEADER.format(dtype=dtype.name, size=size, view=view, x_rows=x_rows, out_rows=out_rows, lanes=LANES)
    text += _loops(entries, scalar, dim, m)
    try:
        names["_formula"] = formula(function)
        module = cache.load(text, names)
    except (numba_errors.NumbaError, NotImplementedError) as error:
        raise CompileError(explanation(label, layout, function, error)) from None
    return Tile(module, entries in ("tile", "transition", "transition_tile") or uses(function)[1])


def _loops(entries: str, scalar: bool, dim: int | None, m: int) -> str:
    if entries == "tile":
        return f"    _formula(self, x, t[:{LANES}], out)\n"
    if entries == "transition_tile":
        return (
            f"    spot = carray(_words(t_, {SPOT}), (3,))\n"
            f"    _formula(self, x[:rows], t[:{LANES}], t[{LANES}], x[rows:], spot, out)\n"
        )
    if entries == "transition":
        state, noise = "x[j, i]", "x[rows + j, i]"
        return (
            f"    dt = t[{LANES}]\n    for j in range(rows):\n        for i in range({LANES}):\n"
            f"            out[j, i] = _formula(self, {state}, t[i], dt, {noise})\n"
        )
    if scalar:
        return (
            f"    for j in range(rows):\n        for i in range({LANES}):\n"
            "            out[j, i] = _formula(self, x[j, i], t[i])\n"
        )
    assert dim is not None
    state = "(" + ", ".join(f"x[{j}, i]" for j in range(dim)) + ",)"
    lines = [f"    for i in range({LANES}):", f"        r = _formula(self, {state}, t[i])"]
    if entries == "number":
        lines += [f"        out[{j}, i] = r" for j in range(dim)]
    elif entries == "tuple":
        lines += [f"        out[{j}, i] = r[{j}]" for j in range(dim)]
    else:
        lines += [f"        out[{j * m + k}, i] = r[{j}][{k}]" for j in range(dim) for k in range(m)]
    return "\n".join(lines) + "\n"


def uses(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a formula (self, x, t) reads its state and its time at all, judged by its bytecode."""
    read = arguments_read(function)
    return (True, True) if len(read) != 3 else (read[1], read[2])


def arguments_read(function: Any) -> list[bool]:
    """For each positional argument of a function whether its bytecode reads it; empty where that cannot be told."""
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    gathers = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    if code is None or code.co_flags & gathers or getattr(function, "__self__", None) is not None:
        return []
    return list(_arguments_of_code(code))


@functools.lru_cache(maxsize=512)
def _arguments_of_code(code: python_types.CodeType) -> tuple[bool, ...]:
    names: set[Any] = set(code.co_cellvars)
    for instruction in dis.get_instructions(code):
        found = instruction.argval
        names.update(found if isinstance(found, tuple) else (found,) if isinstance(found, str) else ())
    return tuple(name in names for name in code.co_varnames[: code.co_argcount])


def explanation(label: str, layout: Layout, function: Callable[..., Any], error: Exception) -> str:
    fields = ", ".join(name for name, _ in layout[1]) or "none"
    text = str(error)
    reason = next((line.strip() for line in text.splitlines() if _tells(line)), text.strip().splitlines()[0])
    return (
        f"{label} does not compile: coefficients may use the fields of self ({fields}), x, t, arithmetic and NumPy "
        f"functions; Numba says: {reason}; a function that cannot be compiled runs in whole-array steps with "
        "compiled=False (or batch_only = True on a class)"
    )


def _tells(line: str) -> bool:
    marks = ("Unknown attribute", "Untyped global", "No implementation", "NameError", "Cannot", "Use of unsupported",
             "Invalid use", "not supported", "unsupported", "cannot", "Undeclared")  # fmt: skip
    return any(mark in line for mark in marks)
