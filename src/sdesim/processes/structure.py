"""One look at a process before anything is compiled: do its coefficients return what they should?"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Process


def check_structure(process: Process, x: Any, t: float) -> None:
    """Evaluate drift and diffusion once at ``(x, t)`` and raise where their structure or their values are
    wrong.

    ``x`` is in the structure that the process takes: a number or an array for dim None or 1, a tuple of d of
    them otherwise; a few states are enough.

    Raises
    ------
    ValueError
        For a wrong number of components, rows or a wrong shape, a value that is not finite, or a state that
        the process cannot be in.
    TypeError
        For values that are not real numbers.
    """
    process.check_state(np.asarray(x) if not isinstance(x, tuple) else np.stack(np.broadcast_arrays(*x)))
    shape = np.broadcast_shapes(*(np.shape(xi) for xi in x)) if isinstance(x, tuple) else np.shape(x)
    components = process.dim if process.dim is not None and process.dim >= 2 else None
    values = {}
    for name in ("drift", "diffusion", "diffusion_dx"):
        if getattr(process, name) is None:
            continue
        try:
            with np.errstate(all="ignore"):
                values[name] = getattr(process, name)(x, t)
        except Exception as error:
            error.add_note(f"{name} was evaluated at x0 = {_brief(x)}, t0 = {t:g}, before the first step")
            raise
    for name, value in values.items():
        if name == "diffusion" and process.noise == "general":
            _check_rows(value, components, shape)
        elif components is None:
            _check_number(name, value, shape, process.dim)
        else:
            _check_tuple(name, value, components, shape)
        for number in _numbers(value):
            array = np.asarray(number)
            if array.dtype.kind not in "fiu":
                raise TypeError(f"{name} must return real numbers, got dtype {array.dtype}")
            bad = ~np.isfinite(array)
            if bad.any():
                raise ValueError(f"{name}(x0, t0) is {array[bad].flat[0]} at x0 = {_brief(x)}, t0 = {t:g}")


def on_arrays(name: str, formula: Callable[..., Any], x: Any, t: Any) -> Any:
    """formula(x, t) on arrays; what works on single numbers only is refused with the way out.

    Compiled paths serve branches on x and functions of ``math``; grids and whole-array steps cannot.
    """
    try:
        return formula(x, t)
    except (TypeError, ValueError) as error:
        told = str(error)
        if "ambiguous" in told or "0-dimensional" in told or "length-1" in told or "inhomogeneous" in told:
            raise ValueError(
                f"{name} works on single numbers, and here it is evaluated on arrays ({told}); write branches on x as "
                "np.where(x > 0, a, b), and np.exp, np.minimum, np.maximum for math.exp, min, max"
            ) from None
        raise


def components_of(name: str, value: Any, dim: int) -> tuple[Any, ...]:
    """The ``dim`` components of the value of a coefficient; a number (or one array) stands for all of them."""
    if not isinstance(value, (tuple, list)):
        return (value,) * dim
    if len(value) != dim:
        raise ValueError(f"{name} returned {len(value)} components, expected {dim}")
    return tuple(value)


def rows_of(value: Any, dim: int) -> tuple[tuple[Any, ...], ...]:
    """The ``dim`` rows of the value of a general diffusion, each with as many entries as there are noises."""
    rows = value if isinstance(value, (tuple, list)) else ()
    lengths = {len(row) if isinstance(row, (tuple, list)) else 0 for row in rows}
    if len(rows) != dim or len(lengths) != 1 or 0 in lengths:
        got = f"{len(rows)} rows of {sorted(lengths)} entries" if rows else _kind(value)
        raise ValueError(
            f"diffusion returned {got}, noise='general' needs {dim} rows of m entries: a tuple of {dim} tuples"
        )
    return tuple(map(tuple, rows))


def _check_number(name: str, value: Any, shape: tuple[int, ...], dim: int | None) -> None:
    if isinstance(value, (tuple, list)) and dim is None:
        raise ValueError(
            f"{name} returned {len(value)} components, expected one number for each element of x; "
            f"pass dim={len(value)} for a process of several components"
        )
    _check_shape(name, value, shape)


def _check_tuple(name: str, value: Any, components: int, shape: tuple[int, ...]) -> None:
    if not isinstance(value, tuple):
        if name != "drift" and np.ndim(value) == 0:
            return  # a number stands for all components
        raise ValueError(f"{name} returned {_kind(value)}, expected a tuple of {components} components")
    if len(value) != components:
        raise ValueError(f"{name} returned {len(value)} components, expected {components}")
    for i, part in enumerate(value):
        _check_shape(f"{name}, component {i},", part, shape)


def _check_rows(value: Any, components: int | None, shape: tuple[int, ...]) -> None:
    need = f"noise='general' needs {components} rows of m entries"
    if not isinstance(value, tuple) or not all(isinstance(row, tuple) for row in value):
        got = f"({len(value)},)" if isinstance(value, tuple) else _kind(value)
        raise ValueError(f"diffusion returned {got}, {need}: a tuple of {components} tuples")
    lengths = {len(row) for row in value}
    if len(value) != components or len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"diffusion returned {len(value)} rows of {sorted(lengths)} entries, {need}")
    for i, row in enumerate(value):
        for k, entry in enumerate(row):
            _check_shape(f"diffusion, row {i}, entry {k},", entry, shape)


def _check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    try:
        got = np.shape(value)
        fits = np.broadcast_shapes(got, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} returned shape {np.shape(value)}, expected {shape}")


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [number for part in value for number in _numbers(part)]
    return [value]


def _kind(value: Any) -> str:
    return f"shape {np.shape(value)}" if np.ndim(value) else "a number"


def _brief(x: Any) -> str:
    if isinstance(x, tuple):
        return "(" + ", ".join(_brief(part) for part in x) + ")"
    return np.array2string(np.asarray(x), threshold=4, precision=4)
