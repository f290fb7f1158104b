"""What a run was made of, in plain words and numbers: the attributes of the files and labelled arrays it leaves."""

import dataclasses
import hashlib
import inspect
import json
import platform
import textwrap
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from .core import cache, stream

_MOST_NUMBERS = 64  # of an array that is written out


def attributes(
    process: Any, *, x0: Any, t_span: tuple[float, float], n_steps: int, method: str, seed: int, dtype: np.dtype,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Numbers, lists of numbers and texts that say how to have the same paths again.

    Parameters are JSON text; of a large array its shape and SHA-256 are told. The process's own formulas come as their
    source text, where Python has it.
    """
    found = {
        "process": type(process).__name__,
        "process_repr": repr(process),
        "parameters": json.dumps(_plain(process.fields())),
        **{f"formula_{name}": text for name in ("drift", "diffusion") if (text := _source(process, name))},
        "method": method,
        "seed": seed,
        "n_steps": n_steps,
        "t_span": list(t_span),
        "dtype": dtype.name,
        "x0": _said(x0),
    }
    found |= {name: _said(value) for name, value in settings.items() if value is not None}
    found["stream_version"] = stream.VERSION
    for name in ("sdesim", "numpy", "numba"):
        found[f"{name}_version"] = metadata.version(name)
    return found | {"python_version": platform.python_version()}


def _said(value: Any) -> Any:
    plain = _plain(value)
    return plain if isinstance(plain, (int, float, str)) and not isinstance(plain, bool) else json.dumps(plain)


def _plain(value: Any) -> Any:
    """A value in the terms of JSON."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.size <= _MOST_NUMBERS:
            return value.tolist()
        digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        return f"{value.dtype} {value.shape}, sha256 {digest}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **parts}
    return _text_of(value) or repr(value)


def _source(process: Any, name: str) -> str | None:
    """The text of a formula that is not the library's own."""
    functions = getattr(process, "functions", None)
    function = functions.get(name) if functions else getattr(type(process), name, None)
    return None if function is None or cache.is_own(function) else _text_of(function)


def _text_of(function: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function)).strip()
    except (OSError, TypeError):
        return None
