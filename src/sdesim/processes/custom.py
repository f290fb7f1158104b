"""A process from two plain functions.

    process = sde.ito(lambda x, t, theta: -theta * x, lambda x, t: 1.0, theta=2.0)

The functions are called as f(x, t) and by the names of the parameters they take. They are compiled as they
stand, so inside them x and t are numbers (or tuples of d numbers) as well as arrays: arithmetic and NumPy
functions, no branches on x.
"""

import dataclasses
import functools
import inspect
import keyword
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core import checks, compile
from .base import Process


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionProcess(Process):
    """dX = a(X, t) dt + σ(X, t) dW from plain functions; made by :func:`ito` and :func:`stratonovich`."""

    functions: dict[str, Callable[..., Any]]
    parameters: dict[str, Any]
    dim: int | None = None
    noise: str = "diagonal"
    calculus: str = "ito"
    batch_only: bool = False

    def __post_init__(self) -> None:
        taken: set[str] = set()
        everything = False
        for names in self._names.values():
            everything = everything or names is None
            taken.update(names or ())
        unused = set(self.parameters) - taken
        if unused and not everything:
            known = f"it takes {', '.join(sorted(taken))}" if taken else "neither function takes a parameter"
            raise TypeError(f"{sorted(unused)[0]} is not a parameter of drift or diffusion; {known}")

    @functools.cached_property
    def _names(self) -> dict[str, tuple[str, ...] | None]:
        """The parameters that each function takes: looked up once, not at every call."""
        return {name: argument_names(name, function, self.parameters) for name, function in self.functions.items()}

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        names = ", ".join(getattr(f, "__name__", "function") for f in self.functions.values())
        return f"{self.calculus}({names}, dim={self.dim}, noise={self.noise!r}{settings})"

    def fields(self) -> dict[str, Any]:
        return dict(self.parameters)

    def _view(self) -> Any:
        return SimpleNamespace(**self.parameters)

    def formula(self, name: str) -> Callable[..., Any]:
        if name not in self.functions:
            raise AttributeError(f"{self!r} was made without {name}")
        function = self.functions[name]
        return adapter(name, function, self._names[name])

    def drift(self, x: Any, t: Any) -> Any:
        return self._call("drift", x, t)

    def diffusion(self, x: Any, t: Any) -> Any:
        return self._call("diffusion", x, t)

    @property
    def diffusion_dx(self) -> Callable[[Any, Any], Any] | None:  # type: ignore[override]
        """∂σ/∂x where it was given, otherwise None."""
        if "diffusion_dx" not in self.functions:
            return None
        return lambda x, t: self._call("diffusion_dx", x, t)

    def _call(self, name: str, x: Any, t: Any) -> Any:
        function = self.functions[name]
        names = self._names[name]
        if names is None:
            view = namedtuple("Parameters", self.parameters)  # type: ignore[misc]
            return function(x, t, view(**self.parameters))
        return function(x, t, *(self.parameters[n] for n in names))


def ito(
    drift: Callable[..., Any],
    diffusion: Callable[..., Any],
    *,
    dim: int | None = None,
    noise: str = "diagonal",
    diffusion_dx: Callable[..., Any] | None = None,
    compiled: bool = True,
    **parameters: Any,
) -> FunctionProcess:
    """The Itô process dX = a(X, t) dt + σ(X, t) dW.

    Parameters
    ----------
    drift, diffusion : callable
        ``f(x, t)`` and, behind these, parameters by name: ``f(x, t, theta)``. A single further argument that
        is no parameter's name gets them all, ``f(x, t, p)`` with ``p.theta``.
    dim : int, optional
        None: formulas on numbers, element by element on a state of any shape. d >= 2: ``x`` is a tuple of d
        components and the functions return d components.
    noise : {"diagonal", "general"}
        For "general", ``diffusion`` returns a tuple of d rows with m entries each.
    diffusion_dx : callable, optional
        ∂σ/∂x of a diagonal noise; without it "milstein" is Platen's derivative-free scheme, and conversions between
        Itô and Stratonovich take central differences.
    compiled : bool
        False for functions that Numba cannot compile (a network, an interpolation): they run in whole-array
        steps.
    **parameters : float or float array
        Run-time arguments of the compiled code: another value compiles nothing.

    Raises
    ------
    TypeError
        Where a function cannot be called in this way, or a parameter is used by none.
    """
    return _made("ito", drift, diffusion, diffusion_dx, dim, noise, compiled, parameters)


def stratonovich(
    drift: Callable[..., Any],
    diffusion: Callable[..., Any],
    *,
    dim: int | None = None,
    noise: str = "diagonal",
    diffusion_dx: Callable[..., Any] | None = None,
    compiled: bool = True,
    **parameters: Any,
) -> FunctionProcess:
    """The Stratonovich process dX = a(X, t) dt + σ(X, t) ∘ dW: arguments as for :func:`ito`.

    Its Itô drift is a + ½ Σₖ (σₖ·∇)σₖ, which Itô schemes and the Fokker-Planck solver use.
    """
    return _made("stratonovich", drift, diffusion, diffusion_dx, dim, noise, compiled, parameters)


def _made(
    calculus: str,
    drift: Any,
    diffusion: Any,
    diffusion_dx: Any,
    dim: Any,
    noise: Any,
    compiled: bool,
    parameters: dict[str, Any],
) -> FunctionProcess:
    functions = {"drift": drift, "diffusion": diffusion}
    if diffusion_dx is not None:
        functions["diffusion_dx"] = diffusion_dx
    dim = dim if dim is None else checks.integer("dim", dim, minimum=1)
    noise = checks.choice("noise", noise, ("diagonal", "general"))
    if noise == "general" and (dim is None or dim < 2):
        raise ValueError(f"noise='general' needs dim >= 2, got dim={dim}; in one dimension noise is diagonal")
    if noise == "general" and diffusion_dx is not None:
        raise ValueError("diffusion_dx belongs to diagonal noise; general noise takes its derivatives by differences")
    values = {name: _value(name, value) for name, value in parameters.items()}
    return FunctionProcess(functions, values, dim, noise, calculus, not compiled)


def _value(name: str, value: Any) -> Any:
    if name.startswith("_") or keyword.iskeyword(name) or name in ("x", "t"):
        raise TypeError(f"{name} cannot be the name of a parameter")
    return checks.real(name, value) if np.ndim(value) == 0 else checks.array(name, value)


def argument_names(name: str, function: Any, parameters: dict[str, Any]) -> tuple[str, ...] | None:
    """The parameters that a function takes behind x and t; None where it takes all of them as one."""
    usage = f"{name}(x, t[, parameters])"
    checks.function(name, function, usage)
    try:
        signature = inspect.signature(getattr(function, "py_func", function))
    except (TypeError, ValueError):
        return ()  # a builtin without a signature is called with (x, t)
    places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    gathers = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    needed = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if needed:
        raise TypeError(f"{name} must be callable as {usage}; {needed[0]} can only be given by keyword")
    if len(places) < 2 and not gathers:
        plural = "" if len(places) == 1 else "s"
        raise TypeError(f"{name} must be callable as {usage}; got {len(places)} argument{plural}")
    further = places[2:]
    names = []
    for place in further:
        if place.name in parameters:
            names.append(place.name)
        elif place.default is not place.empty:
            break  # an argument with a default of its own, and so are those behind it
        elif len(further) == 1 and parameters:
            return None
        else:
            given = ", ".join(parameters) or "none"
            raise TypeError(
                f"{name} must be callable as {usage}; it takes {place.name}, which is no parameter (given: {given})"
            )
    behind = [place.name for place in further[len(names) :] if place.name in parameters]
    if behind:
        raise TypeError(f"{name} takes the parameter {behind[0]} behind an argument with a default; put it before")
    return tuple(names)


def adapter(name: str, function: Callable[..., Any], names: tuple[str, ...] | None) -> Callable[..., Any]:
    """The formula (self, x, t) that calls ``function``: a closure over it, which the compiler follows.

    An argument that the function never reads is not read here either, so that engines see that the noise is
    additive or that nothing depends on time, and leave out what follows from that.
    """
    reads_x, reads_t = (compile.arguments_read(function) or [True, True])[:2]
    x, t = ("x" if reads_x else "t" if reads_t else "0.0"), ("t" if reads_t else "0.0")
    passed = ", self" if names is None else "".join(f", self.{n}" for n in names)
    body = f"    def {name}(self, x, t):\n        return function({x}, {t}{passed})\n"
    text = f"def make(function):\n{body}    return {name}\n"
    scope: dict[str, Any] = {"__name__": __name__}
    exec(text, scope)
    formula: Callable[..., Any] = scope["make"](function)
    return formula
