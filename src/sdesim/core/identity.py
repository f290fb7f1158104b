"""What a run was asked for, as a flat list of settings: what a checkpoint is compared with before it is used.

A setting is a number, a truth value or a short text. Objects of several parameters give one setting for each, under
dotted names, so that a difference can be told by its name (``process.theta 1.0 != 2.0``); arrays, functions and all
else give a text that ends in a digest of their content.
"""

import dataclasses
import functools
import hashlib
import pickle
import sys
import sysconfig
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import cache

Setting = float | int | str | bool | None
_SHORT = 12  # a tuple, a mapping or an object of no more parts is written out


def settings(**named: Any) -> dict[str, Setting]:
    """The settings that these arguments make."""
    found: dict[str, Setting] = {}
    for name, value in named.items():
        _flatten(name, value, found, 0)
    return found


def _flatten(name: str, value: Any, found: dict[str, Setting], depth: int) -> None:
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        found[name] = value if not isinstance(value, str) or len(value) <= 80 else _digest_of(value)
        return
    if isinstance(value, float):
        found[name] = value if np.isfinite(value) else str(value)  # JSON has no infinities
        return
    if isinstance(value, (tuple, list)) and len(value) <= _SHORT and all(_is_plain(item) for item in value):
        found[name] = repr(tuple(item.item() if isinstance(item, np.generic) else item for item in value))
        return
    parts = None if depth > 3 else _parts(value)
    if parts is None or len(parts) > _SHORT:
        found[name] = _digest_of(value)
        return
    found[name] = type(value).__name__
    for part, content in parts.items():
        _flatten(f"{name}.{part}", content, found, depth + 1)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, np.number, np.bool_))


def _is_ours(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == __package__.partition(".")[0]


def _parts(value: Any) -> dict[str, Any] | None:
    """The named parts of a value whose parts say all of it, or None."""
    if isinstance(value, Mapping):
        return dict(value) if all(isinstance(key, str) for key in value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {**fields, **_methods(type(value))}
    if isinstance(value, (tuple, list)):
        return {str(i): item for i, item in enumerate(value)}
    if _is_ours(value) and hasattr(value, "__dict__") and not callable(value):
        # what is marked as private in a class of the library is derived from the rest
        return {key: item for key, item in vars(value).items() if not key.startswith("_")}
    return None


def _methods(kind: type) -> dict[str, Any]:
    """The methods that a user has written for a class of his own: they decide as much as its numbers do."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if _is_installed(base):
            continue
        for name, value in vars(base).items():
            function = next((f for at in ("fget", "func", "__func__") if (f := getattr(value, at, None))), value)
            if isinstance(function, types.FunctionType) and (name == "__call__" or not name.startswith("__")):
                found.setdefault(f"{name}()", function)
    return found


def _is_installed(kind: type) -> bool:
    """Whether a class is of this library, of Python or of an installed package, whose versions tell what it does."""
    name = kind.__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if name.partition(".")[0] == __package__.partition(".")[0] or name == "builtins":
        return True
    folders = (sysconfig.get_path(part) for part in ("stdlib", "purelib", "platlib"))
    return name != "__main__" and (file is None or any(file.startswith(folder) for folder in folders))


def _digest_of(value: Any) -> str:
    """A short text that tells one value from another."""
    h = hashlib.sha256()
    _feed(h, value, {})
    label = getattr(value, "__name__", None) or type(value).__name__
    if isinstance(value, np.ndarray):
        label = f"{value.dtype.name} {'x'.join(map(str, value.shape))}"
    return f"{label[:40]} {h.hexdigest()[:16]}"


def _feed(h: Any, value: Any, seen: dict[int, tuple[int, Any]]) -> None:
    """Hash by value everything that the value is made of.

    ``seen`` has what was met before by its address, and holds it: the address of what is gone is soon another's.
    """
    kind = np.ndarray if isinstance(value, np.ndarray) else type(value)  # a memory map is an array like any other
    h.update(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype)):
        h.update(repr(value).encode())
    elif id(value) in seen:
        h.update(str(seen[id(value)][0]).encode())
    else:
        seen[id(value)] = (len(seen), value)
        _feed_parts(h, value, seen)


def _feed_parts(h: Any, value: Any, seen: dict[int, tuple[int, Any]]) -> None:
    if isinstance(value, np.ndarray) and value.dtype != object:
        h.update(f"{value.dtype.str}{value.shape}".encode())
        h.update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            _feed(h, key, seen)
            _feed(h, value[key], seen)
    elif isinstance(value, (tuple, list, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        h.update(str(len(value)).encode())
        for item in items:
            _feed(h, item, seen)
    elif isinstance(value, functools.partial):
        _feed(h, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        _feed(h, (value.__func__, value.__self__), seen)
    elif cache.is_own(getattr(value, "py_func", value)):
        h.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif hasattr(value, "py_func"):  # a function compiled by Numba
        _feed(h, value.py_func, seen)
    elif isinstance(value, types.FunctionType):
        code = value.__code__
        used = cache.all_names(code) & value.__globals__.keys()
        _feed(h, [(name, value.__globals__[name]) for name in sorted(used)], seen)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _feed(h, (code, value.__defaults__, value.__kwdefaults__, cells), seen)
    elif isinstance(value, types.CodeType):
        _feed(h, (value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_consts), seen)
    elif isinstance(value, types.ModuleType):
        h.update(f"{value.__name__} {getattr(value, '__version__', '')}".encode())
    elif isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        h.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}".encode())
    elif (parts := _parts(value)) is not None:
        _feed(h, parts, seen)
    elif _is_ours(value) and hasattr(value, "__dict__"):
        _feed(h, {key: item for key, item in vars(value).items() if not key.startswith("_")}, seen)
    elif hasattr(value, "__dict__") and type(value).__reduce_ex__ is object.__reduce_ex__:
        _feed(h, {**vars(value), **_methods(type(value))}, seen)
    else:
        try:
            h.update(pickle.dumps(value, protocol=4))  # written to be told apart, and never read
        except Exception as error:  # of a class that is not ours, anything
            raise TypeError(
                f"a checkpoint must tell this run from others, and cannot look into a {type(value).__name__} "
                f"({type(error).__name__}: {error}); leave checkpoint out, or make it of arrays, numbers and functions"
            ) from None
