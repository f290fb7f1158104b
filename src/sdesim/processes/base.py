"""What a process is: two formulas, and what is known of its law.

A process is the Itô equation

    dX = a(X, t) dt + σ(X, t) dW

(Stratonovich where ``calculus`` says so), written once as the methods ``drift`` and ``diffusion`` of a frozen
dataclass whose fields are its parameters. The same two methods run on NumPy arrays, on the cells of a
Fokker-Planck grid and, compiled, on single paths; there ``self`` is a NamedTuple of the same fields, so a
coefficient may use the fields of ``self``, ``x``, ``t``, arithmetic and NumPy functions, and nothing else.

A process knows no step, horizon, seed, grid or device.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..core import checks, compile
from . import calculus as calculus_rules


@dataclasses.dataclass(frozen=True, eq=False)
class Process:
    """Base class of all processes.

    Subclasses define ``drift(x, t)`` and ``diffusion(x, t)`` and, where known, ``diffusion_dx(x, t)`` = ∂σ/∂x
    (Milstein's scheme uses it, and Platen's stands in without it; so does the Itô-Stratonovich conversion, for which
    central differences stand in).

    ``dim = None`` or ``1``
        A formula on numbers. With ``None`` it acts element by element on a state of any shape, every element
        with a Wiener process of its own; with 1 the state is one number.
    ``dim = d >= 2``
        ``x`` is a tuple of d components (``q, p = x``) and the coefficients return tuples of d components.
    ``noise``
        ``"diagonal"``: ``diffusion`` returns what ``drift`` returns (a number stands for all components).
        ``"general"``: a tuple of d rows of m entries each.
    ``calculus``
        ``"ito"`` or ``"stratonovich"``; the drift is kept as written.
    ``batch_only``
        True where a coefficient is a Python callable (a learned score) that only whole-array engines can run.
    """

    # Not annotated, so that they are no dataclass fields here and may be fields, properties or methods of a
    # subclass.
    dim = cast("int | None", None)
    noise = "diagonal"
    calculus = "ito"
    batch_only = False
    diffusion_dx = cast("Callable[..., Any] | None", None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (float, "float"):
                object.__setattr__(self, field.name, checks.real(field.name, value))

    def drift(self, x: Any, t: Any) -> Any:
        """a(x, t), in the structure of the state."""
        raise NotImplementedError(f"{type(self).__name__} defines no drift(x, t)")

    def diffusion(self, x: Any, t: Any) -> Any:
        """σ(x, t)."""
        raise NotImplementedError(f"{type(self).__name__} defines no diffusion(x, t)")

    def fields(self) -> dict[str, Any]:
        """The parameters that compiled coefficients see as the fields of ``self``."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def formula(self, name: str) -> Callable[..., Any]:
        """The plain function behind a coefficient: what is compiled.

        ``(self, x, t)`` for a formula, ``(self, x, t, out)`` for a ``*_tile`` form, which may be a property.
        """
        found = getattr(type(self), name)
        function: Callable[..., Any] = getattr(self, name) if isinstance(found, property) else found
        return function

    @functools.cached_property
    def autonomous(self) -> bool:
        """Whether the coefficients certainly do not depend on time: their formulas never read it."""
        return not any(compile.uses(self.formula(name))[1] for name in ("drift", "diffusion"))

    def _view(self) -> Any:
        """What a formula sees as ``self`` outside compiled code."""
        return self

    def check_state(self, x0: Any) -> None:
        """Raise ValueError where the process cannot be in the state ``x0``; by default it can be in any."""

    def ito_drift(self, x: Any, t: Any) -> Any:
        """The Itô drift: a, plus ½ Σₖ (σₖ·∇)σₖ where the equation is a Stratonovich one."""
        if self.calculus == "ito":
            return self.drift(x, t)
        return calculus_rules.plus(self.drift(x, t), self.noise_induced_drift(x, t), 1.0)

    def stratonovich_drift(self, x: Any, t: Any) -> Any:
        """The Stratonovich drift: a, minus ½ Σₖ (σₖ·∇)σₖ where the equation is an Itô one."""
        if self.calculus == "stratonovich":
            return self.drift(x, t)
        return calculus_rules.plus(self.drift(x, t), self.noise_induced_drift(x, t), -1.0)

    def noise_induced_drift(self, x: Any, t: Any) -> Any:
        """½ Σₖ (σₖ·∇)σₖ, from ``diffusion_dx`` where there is one, by central differences otherwise."""
        return calculus_rules.noise_induced_drift(self, np.float64)(self._view(), x, t)

    def diffusion_divergence(self, x: Any, t: Any) -> Any:
        """(∇·a)ᵢ = Σⱼ ∂ⱼ aᵢⱼ with a = σσᵀ: what time reversal adds to the drift (Anderson 1982)."""
        return calculus_rules.diffusion_divergence(self)(self._view(), x, t)
