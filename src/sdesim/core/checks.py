"""Argument checks, one per kind of argument.

Each returns the value in the form the library works with, or raises with a sentence that says what arrived, what
was needed and, where there is one, the way out. All of them run before anything compiles.
"""

import difflib
import math
import numbers
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

MAX_SEED = 2**64


def real(
    name: str, value: Any, *, above: float | None = None, minimum: float | None = None, finite: bool = True
) -> float:
    """A real number as float, optionally ``> above`` or ``>= minimum``."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    if finite and not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    if above is not None and not number > above:
        raise ValueError(f"{name} must be > {above:g}, got {number:g}")
    if minimum is not None and not number >= minimum:
        raise ValueError(f"{name} must be >= {minimum:g}, got {number:g}")
    return number


def integer(name: str, value: Any, *, minimum: int | None = None, below: int | None = None) -> int:
    """An integer; an integral float such as 1e6 is taken, a bool is not."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value}")
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {number}")
    if below is not None and number >= below:
        raise ValueError(f"{name} must be < {below}, got {number}")
    return number


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of a set of names, with the nearest one proposed for a slip of the pen."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}{hint}")


def array(name: str, value: Any, *, finite: bool = True) -> np.ndarray:
    """A real float64 array (integers are converted); nan and inf are refused with the index of the first."""
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} must be a rectangular array of real numbers: {error}") from None
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {given.dtype}")
    out = np.ascontiguousarray(given, dtype=np.float64).reshape(given.shape)
    if finite:
        bad = ~np.isfinite(out)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            where = "" if not first else f" at index {first[0] if len(first) == 1 else first}"
            raise ValueError(f"{name} must be finite, got {out[first]}{where} ({int(bad.sum())} non-finite in all)")
    return out


def seed(value: Any) -> int:
    """A seed in [0, 2**64); ``None`` draws one from the operating system, to be recorded in the result."""
    if value is None:
        return secrets.randbits(64)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"seed must be an integer in [0, 2**64) or None, got {value!r}")
    if not 0 <= int(value) < MAX_SEED:
        raise ValueError(f"seed must be an integer in [0, 2**64), got {value}")
    return int(value)


def dtype(value: Any) -> np.dtype:
    """float32 or float64."""
    try:
        kind = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {value!r}") from None
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {kind}")
    return kind


def time_span(value: Any) -> tuple[float, float]:
    """``(t0, t1)`` with t0 < t1, both finite."""
    try:
        t0, t1 = value
    except (TypeError, ValueError):
        raise ValueError(f"t_span must be a pair (t0, t1), got {value!r}") from None
    t0, t1 = real("t_span[0]", t0), real("t_span[1]", t1)
    if not t1 > t0:
        raise ValueError(
            f"t_span must increase, got t1 = {t1:g} after t0 = {t0:g}; to go backward in time use ReverseProcess"
        )
    return t0, t1


def truth(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def progress(value: Any) -> Any:
    """True, False, or a function of (done, total)."""
    if not isinstance(value, (bool, np.bool_)) and not callable(value):
        raise TypeError(f"progress must be True, False or a function progress(done, total), got {value!r}")
    return value


def function(name: str, value: Any, usage: str) -> Callable:
    """A callable, described by ``usage`` in the message."""
    if not callable(value):
        raise TypeError(f"{name} must be callable as {usage}, got {type(value).__name__}")
    return value
