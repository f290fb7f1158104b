"""Mean and covariance of functions of the state at the recorded times."""

import inspect
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import errors as numba_errors

from ...core import cache, call, checks, compile, elementary
from ...core.compile import LANES
from ...errors import CompileError
from .moments import MERGING, MOMENTS, MomentsPart, MomentsResult, MomentTree
from .recorder import Recorder, bound

_TILE = """\
from numba import carray, cfunc, types

_T = types.{dtype}
_P = types.CPointer(_T)

@cfunc(types.void(_P, _P, _P, _P, types.intp), cache=CACHE, error_model="numpy")
def tile(x_, t_, p_, out_, rows):
    _wide()
    x = carray(x_, ({d}, {L}))
    t = carray(t_, ({L} + 1,))
    out = carray(out_, ({n_values}, {L}))
    for i in range({L}):
        r = _formula({arguments})
{store}
"""

_OBSERVED = f"""\
    t = carray(t_, ({LANES} + 1,))
    y = carray(_state_pointer(slots[11]), (slots[1], {LANES}))
    _tile(slots[10], x, t, t, y, d)
"""

MAX_COMPONENTS = 64


class Observable:
    """Mean, variance, covariance and standard error of f(x) at every recorded time.

    Parameters
    ----------
    f : a plain function ``f(x)`` or ``f(x, t)``, written like a formula of a process and compiled like one: x is a
        number where the state is one number, else the tuple of the state's d <= 64 numbers (those of a state of
        shape (k,) or (k, l) in their order). It returns a number, a truth value (whose mean is a probability), or a
        tuple of those. It may refer to numbers around it (closures, globals).

    In a float32 run f is evaluated in float32; the sums are float64, by the same fixed tree as those of ``Moments``.
    The result has ``mean``, ``variance`` and ``standard_error``, (n_times,) or (n_times, m) for a tuple of m numbers,
    and ``covariance`` (n_times, m, m).

        Observable(lambda x: (x[0] * x[1], x[0] > 1.0))
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = checks.function("f", f, "f(x) or f(x, t)")
        try:
            parameters = inspect.signature(f).parameters.values()
        except (TypeError, ValueError):
            raise TypeError(f"f must be a plain function f(x) or f(x, t), got {f!r}") from None
        needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if len(needed) not in (1, 2):
            names = ", ".join(p.name for p in needed)
            raise TypeError(f"f must be a function of x, or of x and t; it takes ({names})")
        self.takes_time = len(needed) == 2
        self._compiled: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Machine code stays where it is; another process takes it from the disk."""
        return {**self.__dict__, "_compiled": {}}

    def check(self, d: int) -> None:
        """Raise where the state has too many components, or f does not return numbers."""
        if d > MAX_COMPONENTS:
            raise ValueError(
                f"Observable hands f a tuple of at most {MAX_COMPONENTS} numbers, and the state has {d} components; "
                "use Moments, or a function of paths.x"
            )
        self.value_shape(d)

    def value_shape(self, d: int) -> tuple[int, ...]:
        """() where f returns a number and (m,) where it returns m, seen by calling it."""
        failure: Exception | None = None
        for trial in (1.0, 0.5, -0.5, 2.0, 0.0):
            # numbers that are not all the same, so that f may divide by a difference
            state = tuple(np.float64(trial + 0.125 * trial * j) for j in range(d))
            x = state[0] if d == 1 else state
            try:
                with np.errstate(all="ignore"):
                    value = self.f(x, np.float64(trial)) if self.takes_time else self.f(x)
            except Exception as error:  # of a user's function, anything
                failure = failure or error
                continue
            values = value if isinstance(value, tuple) else (value,)
            if not values or not all(isinstance(v, (numbers.Real, np.bool_)) for v in values):
                raise TypeError(f"f must return a number or a tuple of numbers, got {value!r} at x = {_shown(x)}")
            return (len(values),) if isinstance(value, tuple) else ()
        what = "a number" if d == 1 else f"a tuple of {d} numbers"
        raise ValueError(f"f cannot be called with {what}: {type(failure).__name__}: {failure}") from failure

    def start(self, block: Any, d: int, n_times: int) -> "ObservablePart":
        """An empty part for one block of paths."""
        return ObservablePart(self, block, d, n_times)

    def restored(self, arrays: dict[str, np.ndarray], block: Any, d: int, n_times: int) -> "ObservablePart":
        """The closed part of a block, from its ``arrays()``."""
        shape = self.value_shape(d)
        part = ObservablePart.of(MomentTree(**arrays, n_values=int(np.prod(shape, dtype=int))), block)
        part.value_shape = shape
        return part

    def result(self, parts: list[Any], t: np.ndarray, state_shape: tuple[int, ...]) -> "ObservableResult":
        """The moments of all blocks together."""
        tree = MomentTree.join([part.tree for part in parts])
        return ObservableResult(t, tree, parts[0].value_shape)

    def compiled(self, d: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """The tile function of f: a module with ``tile``."""
        key = (d, shape, np.dtype(dtype))
        if key not in self._compiled:
            self._compiled[key] = _tile(self.f, self.takes_time, d, shape, np.dtype(dtype))
        return self._compiled[key]


def _shown(x: Any) -> str:
    return ", ".join(f"{v:g}" for v in (x if isinstance(x, tuple) else (x,)))


def _tile(f: Callable[..., Any], takes_time: bool, d: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    state = "x[0, i]" if d == 1 else "(" + ", ".join(f"x[{j}, i]" for j in range(d)) + ")"
    returned = [f"r[{k}]" for k in range(shape[0])] if shape else ["r"]
    store = "\n".join(f"        out[{k}, i] = {value}" for k, value in enumerate(returned))
    text = _TILE.format(
        dtype=dtype.name, d=d, L=LANES, n_values=len(returned),
        arguments=f"{state}, t[i]" if takes_time else state, store=store,
    )  # fmt: skip
    try:
        return cache.load(text, {"_wide": elementary.wide_vectors, "_formula": compile.formula(f)})
    except (numba_errors.NumbaError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if compile._tells(line)), lines[0])
        raise CompileError(
            f"f of Observable does not compile: it may use x, t, numbers, arithmetic and NumPy functions; "
            f"Numba says: {reason}"
        ) from None


class ObservablePart(MomentsPart):
    """The nodes of one block of paths, filled by its recorder."""

    def __init__(self, spec: Observable, block: Any, d: int, n_times: int) -> None:
        self.spec, self.d = spec, d
        self.value_shape = spec.value_shape(d)
        super().__init__(block.first, block.size, int(np.prod(self.value_shape, dtype=int)), n_times)

    def recorder(self, dtype: Any) -> Recorder:
        """The compiled recorder that evaluates f on tiles and fills the nodes."""
        words, keep = self.words(self.d)
        module = self.spec.compiled(self.d, self.value_shape, dtype)
        y = np.empty((self.tree.n_values, LANES), dtype)
        words += [module.tile.address, y.ctypes.data]
        return bound(_OBSERVED + MOMENTS, dtype, words, (*keep, module, y), _tile=call.call_tile, **MERGING)

    def close(self) -> None:
        """Merge siblings; f is not needed any more."""
        super().close()
        del self.spec


class ObservableResult(MomentsResult):
    """Moments of f(x) at the recorded times; results of disjoint sets of paths add with ``+``."""
