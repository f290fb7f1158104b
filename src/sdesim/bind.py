"""From a process and the name of a method to what an engine runs.

The only place that knows both sides: it picks the scheme, converts the drift between Itô and Stratonovich where the
scheme reads it in the other sense, and turns every coefficient into a tile function or into a function of whole
arrays.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .core import checks, compile, fuse, normals
from .errors import DeviceError
from .integrate import adaptive, brownian, noise, tiles
from .integrate.schemes import PLATEN, SCHEMES, Scheme
from .integrate.step_text import FLAGS
from .processes import calculus
from .processes.structure import on_arrays


def methods() -> list[dict[str, Any]]:
    """The table of schemes: name, strong and weak order, noise and calculus, reference.

    ``strong_order`` inf means: draws from the exact transition law; 0: its paths follow no Brownian path. ``orders``
    has what is different for some kind of noise, as (strong, weak) by "additive", "diagonal", "commutative", "general".
    """
    keys = ("name", "strong_order", "weak_order", "noise", "calculus", "reference")
    rows = [{key: getattr(scheme, key) for key in keys} for scheme in SCHEMES.values()]
    return [{**row, "orders": dict(SCHEMES[row["name"]].orders)} for row in rows]


def pick_scheme(process: Any, method: Any) -> Scheme:
    """The scheme of that name, in the form that the process allows."""
    scheme = SCHEMES[checks.choice("method", method, SCHEMES)]
    label = type(process).__name__
    if (
        process.noise not in scheme.noise
        and not _lifted(process, scheme)
        and not (kinds_of_noise(process) & set(scheme.noise))
    ):
        kinds = kinds_of_noise(process)
        fitting = [repr(s.name) for s in SCHEMES.values() if kinds & set(s.noise) and _can_run(process, s)]
        raise ValueError(
            f"{scheme.name} takes {' or '.join(_NOISES[kind] for kind in scheme.noise)}, and {label} has "
            f"noise={process.noise!r}{_reading(process, scheme)}; use {' or '.join(fitting)}"
        )
    missing = [name for name in (*scheme.coefficients, *scheme.needs) if not _has(process, name)]
    if missing:
        raise ValueError(
            f"method={scheme.name!r} needs a process with {' and '.join(missing)}, such as "
            f"{_EXAMPLES.get(scheme.name, 'another one')}; {label} has none"
        )
    if scheme.name == "mala" and not process.temperature > 0.0:
        raise ValueError("mala needs temperature > 0: at 0 there is no law to keep")
    if scheme.name == "exact":
        if not hasattr(process, "transition") and not hasattr(process, "transition_tile"):
            raise ValueError(f"method='exact' needs a process with a known transition(x, t, dt, z); {label} has none")
        if process.batch_only:
            raise ValueError(f"method='exact' runs a compiled transition, and {label} runs in whole-array steps only")
    if process.batch_only and not scheme.on_arrays:
        kinds = kinds_of_noise(process)
        fitting = [
            repr(s.name) for s in SCHEMES.values() if s.on_arrays and kinds & set(s.noise) and _can_run(process, s)
        ]
        raise ValueError(
            f"{scheme.name} runs compiled coefficients, and {label} runs in whole-array steps only; "
            f"use {' or '.join(fitting)}"
        )
    if scheme.noise == ("diagonal",) and scheme.name not in ("exact",):
        _check_own_component(process, scheme)
    if scheme.name == "milstein" and process.diffusion_dx is None:
        return PLATEN
    return scheme


_EXAMPLES = {
    "baoab": "UnderdampedLangevin(target)",
    "mala": "Langevin(target), with a target that knows its log density",
    "unadjusted_langevin": "Langevin(target) or Langevin(score)",
}
_NOISES = {
    "none": "no noise (sigma = 0)",
    "additive": "additive noise (a diffusion that does not read x)",
    "diagonal": "diagonal noise",
    "general": "general noise",
}


def kinds_of_noise(process: Any) -> set[str]:
    """The kinds of noise that a process has: "diagonal" or "general", and "additive" and "none" where they hold."""
    kinds = {process.noise}
    kinds |= {"additive"} if _additive(process) else set()
    return kinds | {"none"} if _is_silent(process) else kinds


def _reading(process: Any, scheme: Scheme) -> str:
    return " that reads x" if "additive" in scheme.noise and not _additive(process) else ""


def _is_silent(process: Any) -> bool:
    """Whether σ = 0: by its value where it is constant, elsewhere at many states and times."""
    d = process.dim or 1
    directions = np.linspace(1.0, 1.7, d)
    constant = not process.batch_only and compile.uses(process.formula("diffusion")) == (False, False)
    sizes = (1.0,) if constant else (1.0, 0.0, -0.1, 0.1, -0.4, 0.4, -1.0, -2.3, 2.3, -7.0, 7.0, -30.0, 30.0, 300.0)
    times = (0.0,) if constant else (0.0, 0.1, 0.3, 0.7, 1.3, 3.0, 10.0, 30.0)
    for size in sizes:
        for t in times:
            with np.errstate(all="ignore"):
                value = process.diffusion(_one_state(process, size * directions), t)
            if not all((entry == 0.0).all() for entry in _entries_of(value)):
                return False
    return True


def _one_state(process: Any, x: np.ndarray) -> Any:
    """One state as the compiled formulas see it: numbers, so that branches and ``math`` functions are served."""
    if process.batch_only:
        return process_state(process, x.reshape(1, -1))
    return tuple(x) if process.dim is not None and process.dim >= 2 else x[0]


def _entries_of(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [entry for part in value for entry in _entries_of(part)]
    return [np.asarray(value, float)]


def _lifted(process: Any, scheme: Scheme) -> bool:
    """Whether diagonal noise is run as general noise: σ_j may then depend on every component."""
    return process.noise == "diagonal" and scheme.noise == ("general",) and (process.dim or 1) >= 2


def is_general(process: Any, scheme: Scheme) -> bool:
    """Whether the engine sees a matrix of noise."""
    return process.noise == "general" or _lifted(process, scheme)


def _can_run(process: Any, scheme: Scheme) -> bool:
    """Whether a process has what a scheme evaluates beside drift and diffusion."""
    wanted = [name for name in tiles.coefficients(scheme, False) if name != "diffusion_dx"]
    return all(_has(process, name) for name in (*wanted, *scheme.needs))


def _has(process: Any, name: str) -> bool:
    return getattr(process, name, None) is not None or hasattr(process, f"{name}_tile")


def _check_own_component(process: Any, scheme: Scheme) -> None:
    """Raise where σ_j reads another component than x_j: such noise does not commute, and the order is lost."""
    if process.dim is None or process.dim < 2 or _additive(process) or process.batch_only:
        return
    x = 1.0 + 0.1 * np.arange(process.dim)
    with np.errstate(all="ignore"):
        before = np.ravel(process.diffusion(tuple(x), 0.7))
        for k in range(process.dim):
            moved = x.copy()
            moved[k] += 0.25
            after = np.ravel(process.diffusion(tuple(moved), 0.7))
            for j in np.flatnonzero(before != after):
                if j != k and len(before) == process.dim:
                    raise ValueError(
                        f"{scheme.name} needs a diffusion whose component j reads component j of the state only, and "
                        f"component {j} of {type(process).__name__}.diffusion reads x[{k}]; use 'milstein_levy', "
                        "which takes any noise, or 'euler_maruyama'"
                    )


def noise_dim(process: Any, d: int) -> int:
    """The number of Wiener processes that drive a path with d components."""
    return calculus.noise_dim(process) if process.noise == "general" else d


def _drift_sign(process: Any, scheme: Scheme) -> float:
    """+1 where the noise-induced drift is to be added, −1 where it is to be taken off, 0 where neither."""
    if process.calculus == scheme.calculus or "drift" not in tiles.coefficients(scheme, False):
        return 0.0
    return 1.0 if scheme.calculus == "ito" else -1.0


@dataclass(frozen=True)
class Compiled:
    """A scheme's engine and a process's tile functions, ready to run."""

    run: Any
    source: Any
    tiles: dict[int, compile.Tile]
    constants: dict[int, np.ndarray]
    parameters: np.ndarray
    flags: np.ndarray

    @property
    def addresses(self) -> np.ndarray:
        """Addresses of the tile functions, in the engine's order."""
        count = len(self.flags) - FLAGS
        return np.array([self.tiles[i].address if i in self.tiles else 0 for i in range(count)], np.int64)


def compiled(process: Any, scheme: Scheme, dtype: np.dtype, d: int, n_steps: int, variant: tiles.Variant) -> Compiled:
    """Compile a process for a scheme; from the disk in every later process of the same formulas."""
    layout, vector = compile.flatten(type(process).__name__, process.fields())
    general = is_general(process, scheme)
    m = noise_dim(process, d)
    built: dict[int, compile.Tile] = {}
    constants: dict[int, np.ndarray] = {}
    of_name: dict[str, compile.Tile] = {}
    for position, name in enumerate(tiles.coefficients(scheme, general, variant)):
        if name in ("step", "bit_step"):
            built[position] = _fused(process, scheme, layout, dtype, two_point=name == "bit_step")
        elif _is_constant(process, scheme, name):
            constants[position] = _constant(process, scheme, name, d).astype(dtype)
        else:
            if name not in of_name:
                of_name[name] = _tile(process, scheme, name, layout, dtype, m)
            built[position] = of_name[name]
    uses_time = any(tile.uses_time for tile in built.values())
    held = [int(i in constants) for i in range(len(built) + len(constants))]
    coupled = process.dim is not None and process.dim >= 2
    flags = np.array([m, uses_time, coupled, noise.area_blocks(n_steps, dtype), *held], np.int64)
    with np.errstate(over="ignore"):
        parameters = vector.astype(dtype)
    if (np.isfinite(vector) & ~np.isfinite(parameters)).any():
        raise ValueError(f"a parameter of {type(process).__name__} is too large for {dtype}; use dtype=float64")
    if scheme.adaptive:
        engine, source = adaptive.engine(scheme, dtype), brownian.source(dtype)
    else:
        engine, source = tiles.engine(scheme, dtype, general, variant), normals.source(dtype)
    return Compiled(engine, source, built, constants, parameters, flags)


def is_fused(process: Any, scheme: Scheme, variant: tiles.Variant) -> bool:
    """Whether the process and the scheme are compiled together: one stage, and formulas rather than tiles."""
    if process.batch_only or not noise.can_fuse(scheme, is_general(process, scheme), variant):
        return False
    return not any(hasattr(process, f"{name}_tile") for name in tiles.coefficients(scheme, False))


def _fused(process: Any, scheme: Scheme, layout: Any, dtype: np.dtype, two_point: bool) -> compile.Tile:
    stage = scheme.stages[0]
    coefficients = []
    for name in tiles.coefficients(scheme, False):
        function = _converted_drift(process, scheme, dtype) if name == "drift" else process.formula(name)
        coefficients.append((name, function, _entries(process, name)))
    label = f"{type(process).__name__}.drift"
    return fuse.fused(
        label, coefficients, stage.move, stage.kick, layout, dtype, dim=process.dim, two_point=two_point
    )  # fmt: skip


def _is_constant(process: Any, scheme: Scheme, name: str) -> bool:
    """Whether a coefficient reads neither the state nor the time: it is evaluated here and never compiled."""
    if name == "transition" or hasattr(process, f"{name}_tile"):
        return False
    if isinstance(getattr(process, name), (int, float)):
        return True  # a parameter
    if name == "drift" and _drift_sign(process, scheme) and not _additive(process):
        return False
    return compile.uses(process.formula(name)) == (False, False)


def _constant(process: Any, scheme: Scheme, name: str, d: int) -> np.ndarray:
    """Its value, a row for each component (and each Wiener process, where the noise is general)."""
    value = getattr(process, name)
    if callable(value):
        value = value(process_state(process, np.ones((1, d))), 0.0)
    if isinstance(value, (tuple, list)):
        rows = [float(np.ravel(v)[0]) for row in value for v in (row if isinstance(row, tuple) else (row,))]
        numbers = np.array(rows)
    else:
        numbers = np.broadcast_to(np.asarray(value, float).ravel(), (d,))
    if name == "diffusion" and _lifted(process, scheme):
        return np.diag(numbers).ravel()
    return numbers


def _tile(process: Any, scheme: Scheme, name: str, layout: Any, dtype: np.dtype, m: int) -> compile.Tile:
    label = f"{type(process).__name__}.{name}"
    build = functools.partial(compile.tile, label, layout=layout, dtype=dtype)
    if hasattr(process, f"{name}_tile"):
        _refuse_conversion(process, scheme, name)
        entries = "transition_tile" if name == "transition" else "tile"
        return build(process.formula(f"{name}_tile"), dim=process.dim, entries=entries)
    if name == "transition":
        return build(process.formula(name), dim=process.dim, entries="transition")
    if name == "diffusion" and _lifted(process, scheme):
        return build(calculus.diagonal_rows(process), dim=process.dim, entries="rows", m=m)
    function = process.formula(name)
    if name == "drift":
        function = _converted_drift(process, scheme, dtype)
    return build(function, dim=process.dim, entries=_entries(process, name), m=m)


def _refuse_conversion(process: Any, scheme: Scheme, name: str) -> None:
    """Raise where a scheme reads the drift of the other calculus, and the drift is no formula that can be shifted."""
    if name == "drift" and _drift_sign(process, scheme) and not _additive(process):
        raise ValueError(
            f"{scheme.name} reads the drift of a {scheme.calculus} equation, and {type(process).__name__}.drift is "
            f"written on tiles; use a scheme for {process.calculus} equations"
        )


def _additive(process: Any) -> bool:
    return not compile.uses(process.formula("diffusion"))[0]


def _converted_drift(process: Any, scheme: Scheme, dtype: np.dtype) -> Callable[..., Any]:
    sign = _drift_sign(process, scheme)
    if not sign or _additive(process):
        return process.formula("drift")
    return calculus.shifted_drift(process, sign, dtype)


def _entries(process: Any, name: str) -> str:
    """The structure that a coefficient returns, seen by evaluating it once."""
    if process.dim is None or process.dim == 1:
        return "number"
    if name == "diffusion" and process.noise == "general":
        return "rows"
    with np.errstate(all="ignore"):
        value = getattr(process, name)(tuple(np.ones(process.dim)), 0.0)
    return "tuple" if isinstance(value, (tuple, list)) else "number"


# ---- the device ----


def device_model(
    process: Any, scheme: Scheme, dtype: np.dtype, d: int, *, fused: bool, freeze: bool, fast: bool, watch: Any = None
) -> Any:
    """A process and a scheme for the CUDA engine: the same formulas and constants as the CPU engines take.

    Where the CPU compiles process and scheme together (``fused``) constants are computed in the state's dtype.
    """
    from .cuda.model import Coefficient, Model

    layout, vector = compile.flatten(type(process).__name__, process.fields())
    with np.errstate(over="ignore"):
        parameters = vector.astype(dtype)
    general, m = is_general(process, scheme), noise_dim(process, d)
    scalar = process.dim is None or process.dim == 1
    coefficients = []
    names = tiles.coefficients(scheme, general, tiles.Variant(watch=watch is not None))
    for position, name in enumerate(names):
        entries = _device_entries(process, scheme, name)
        watched = watch is not None and position == len(names) - 1
        if (watched or not fused) and _is_constant(process, scheme, name):
            values = _constant(process, scheme, name, d).astype(dtype)
            coefficients.append(Coefficient(name, entries, constants=tuple(values.tolist())))
            continue
        if hasattr(process, f"{name}_point"):
            _refuse_conversion(process, scheme, name)
            function = compile.formula(process.formula(f"{name}_point"))
            coefficients.append(Coefficient(name, "point", function, not process.autonomous))
            continue
        function = process.formula(name)
        if name == "drift":
            function = _converted_drift(process, scheme, dtype)
        elif name == "diffusion" and _lifted(process, scheme):
            function = calculus.diagonal_rows(process)
        read = compile.uses(function)
        if read == (False, False) and entries != "rows":
            # as the step that the CPU compiles has it, in the dtype of the state
            values = np.broadcast_to(compile.value_of(function, layout, parameters, process.dim), (d,))
            coefficients.append(Coefficient(name, entries, constants=tuple(values.tolist())))
        else:
            coefficients.append(Coefficient(name, entries, compile.formula(function), read[1]))
    return Model(
        scheme, dtype, d, m, scalar, general, tuple(coefficients), layout, parameters, freeze=freeze, fast=fast,
        watch=watch,
    )  # fmt: skip


def check_device(process: Any, scheme: Scheme, d: int, freeze: bool) -> None:
    """Raise where a process cannot run on the device."""
    from .cuda import paths

    label = type(process).__name__
    paths.check_scheme(scheme)
    if process.batch_only:
        raise DeviceError(
            f"{label} runs in whole-array steps on the CPU (its score or formula is a Python function), and "
            "device='cuda' needs formulas that compile; use device='cpu'"
        )
    for name in tiles.coefficients(scheme, False):
        if hasattr(process, f"{name}_tile") and not hasattr(process, f"{name}_point"):
            form = "score_point (Target)" if hasattr(process, "target") else f"{name}_point"
            raise DeviceError(
                f"{label}.{name} is written on tiles of 256 paths, for the CPU, and device='cuda' needs it for one "
                f"path; give it a {form}, write the process with sde.ito(drift, diffusion), or use device='cpu'"
            )
    if process.dim is not None and process.dim > paths.MOST_COMPONENTS:
        raise DeviceError(
            f"{label} has {process.dim} components, and a thread of device='cuda' holds {paths.MOST_COMPONENTS} at "
            "most; use device='cpu'"
        )
    if freeze and (process.dim is None or process.dim == 1) and d > 1:
        raise DeviceError(
            "on_nonfinite='freeze' needs all components of a path at once, and device='cuda' takes those of "
            f"{label} one after the other; use on_nonfinite='ignore' or device='cpu'"
        )


def _device_entries(process: Any, scheme: Scheme, name: str) -> str:
    if name == "diffusion" and is_general(process, scheme):
        return "rows"
    return _entries(process, name)


# ---- whole arrays ---------------------------------------------------------------------------------------------------


def batch_coefficients(process: Any, scheme: Scheme, dtype: np.dtype, d: int) -> dict[str, Callable[..., np.ndarray]]:
    """Functions of (x (n, d), t) for the whole-array engine."""
    m = noise_dim(process, d)
    sign = _drift_sign(process, scheme)

    def drift(x: np.ndarray, t: float) -> np.ndarray:
        if hasattr(process, "drift_batch"):
            value = process.drift_batch(x, t)
            if sign and not _additive(process):
                value = value + sign * evaluate(process.noise_induced_drift, x, t)
            return np.ascontiguousarray(value, dtype)
        formula = process.ito_drift if scheme.calculus == "ito" else process.stratonovich_drift
        return evaluate(formula if sign else process.drift, x, t)

    def evaluate(formula: Callable[..., Any], x: np.ndarray, t: float) -> np.ndarray:
        value = on_arrays(formula.__name__, formula, process_state(process, x), t)
        out = np.empty(x.shape, dtype)
        if isinstance(value, (tuple, list)):
            for j, part in enumerate(value):
                out[:, j] = part
        else:
            value = np.asarray(value)
            out[...] = value[:, None] if value.ndim == 1 and process.dim == 1 else value
        return out

    def diffusion(x: np.ndarray, t: float) -> np.ndarray:
        if process.noise == "diagonal":
            return evaluate(process.diffusion, x, t)
        rows = process.diffusion(process_state(process, x), t)
        out = np.empty((*x.shape, m), dtype)
        for j, row in enumerate(rows):
            for k, entry in enumerate(row):
                out[:, j, k] = entry
        return out

    def diffusion_dx(x: np.ndarray, t: float) -> np.ndarray:
        return evaluate(process.diffusion_dx, x, t)

    def log_density(x: np.ndarray, t: float) -> np.ndarray:
        return process.log_density(process_state(process, x) if process.dim == 1 else x)

    found = {"drift": drift, "diffusion": diffusion, "diffusion_dx": diffusion_dx, "log_density": log_density}
    return found


def process_state(process: Any, x: np.ndarray) -> Any:
    """Rows (n, d) in the structure that the process's formulas take."""
    if process.dim is None:
        return x
    return x[:, 0] if process.dim == 1 else tuple(x[:, j] for j in range(process.dim))
