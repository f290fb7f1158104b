r"""Energy models: an MLP whose output is a single number, and the law that it defines.

    p_θ(x) = e^{−E_θ(x)} / Z(θ),    Z(θ) = ∫ e^{−E_θ(x)} dx,    ∇ log p_θ = −∇E_θ

The score needs no Z, so Langevin dynamics samples p_θ as it is; a likelihood does:

    −E[log p_θ(X)] = E[E_θ(X)] + log Z(θ)

with Z from ``log_partition``. The energy is that of the network and a weak quadratic well,

    E_θ(x) = f_θ(y) + ½ κ |y|²,    y = (x − m)/σ_d,

m the centre and σ_d the spread of the data: an MLP of the activations here grows at most linearly, so that for κ > 0
the integral Z is finite whatever the weights are, and at f = 0 the model is N(m, σ_d²/κ). Without it (κ = 0) nothing
keeps chains from leaving in a direction in which f falls.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import blas, checks
from ..targets.base import Target
from . import activations, arguments
from .base import MAX_PARAMETERS
from .evaluation import Evaluator
from .head import Head
from .layout import Layout
from .network import _initial


class EnergyMLP(Target):
    r"""The unnormalised law e^{−E_θ} of an MLP E_θ: x → hidden layers → a number.

    A target without its constant: ``Langevin(energy)`` samples it (``unadjusted_langevin``, ``mala``), its ``score``
    is −∇E_θ by a reverse pass, and ``log_density`` is −E_θ, which is log p_θ + log Z.

    Parameters
    ----------
    dim : int
        The dimension d of x.
    hidden : sequence of int
        The widths of the hidden layers.
    activation : "silu", "tanh" or "softplus"
    confinement : float
        κ > 0, the strength of the quadratic well.
    seed : int
        Of the initial weights.
    dtype : float32 or float64

    Notes
    -----
    ``parameters`` is read-only; ``with_parameters`` makes another energy. x has the shape (n, dim), (n,) for dim 1, or
    (dim,) for one point; answers come in the type of x.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (64, 64), *, activation: str = "silu", confinement: float = 0.25,
        seed: int = 0, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        self._shape(dim, hidden, activation, confinement)
        kind = checks.dtype(dtype)
        self.head = Head(centre=np.zeros(self.dim))
        self._set(_initial(self.layout, self.activation, checks.seed(seed), False).astype(kind))

    def _shape(self, dim: Any, hidden: Any, activation: Any, confinement: Any) -> None:
        self.dim = checks.integer("dim", dim, minimum=1)
        self.layout = Layout(self.dim, 0, arguments.widths(hidden), 1)
        self.activation = checks.choice("activation", activation, activations.NAMES)
        self.confinement = checks.real("confinement", confinement, above=0.0)
        if self.layout.size > MAX_PARAMETERS:
            raise ValueError(f"the energy would have {self.layout.size} parameters, more than {MAX_PARAMETERS}")

    def _set(self, parameters: np.ndarray) -> None:
        self.parameters = np.ascontiguousarray(parameters)
        self.parameters.flags.writeable = False
        self._local = threading.local()

    # ---- what it is

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return self.layout.hidden

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters, and of all arithmetic."""
        return self.parameters.dtype

    @property
    def centre(self) -> np.ndarray:
        """m, (dim,)."""
        return np.broadcast_to(np.asarray(self.head.centre, dtype=np.float64), (self.dim,))

    @property
    def spread(self) -> float:
        """σ_d."""
        return self.head.spread

    def __repr__(self) -> str:
        extras = "" if self.activation == "silu" else f", activation={self.activation!r}"
        return f"EnergyMLP({self.dim}, hidden={self.hidden}{extras}): {self.layout.size} parameters, {self.dtype}"

    def with_parameters(self, parameters: Any, *, head: Head | None = None) -> "EnergyMLP":
        """The same energy with other parameters (and another centre and spread)."""
        given = np.asarray(parameters)
        if given.shape != (self.layout.size,):
            raise ValueError(f"parameters has shape {given.shape}, expected ({self.layout.size},)")
        other = object.__new__(EnergyMLP)
        for name in ("dim", "layout", "activation", "confinement"):
            setattr(other, name, getattr(self, name))
        other.head = self.head if head is None else head
        other._set(np.array(given, dtype=given.dtype if given.dtype.kind == "f" else self.dtype))
        return other

    def astype(self, dtype: Any) -> "EnergyMLP":
        """The same energy with float32 or float64 parameters."""
        return self.with_parameters(self.parameters.astype(checks.dtype(dtype)))

    def normalized(self, log_z: Any) -> "EnergyMLP":
        """The energy E_θ + log Z, of which e^{−E} integrates to 1: no score sees the constant, a likelihood does.

        ``log_z`` is a number or the result of ``log_partition``.
        """
        raised = np.array(self.parameters)
        raised[-1] += float(log_z)  # the bias of the last layer
        return self.with_parameters(raised)

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings, arrays): all that :meth:`restored` needs, as plain data."""
        settings = {
            "dim": self.dim, "hidden": list(self.hidden), "activation": self.activation,
            "confinement": self.confinement, "head": self.head.stored(),
        }  # fmt: skip
        return settings, {"parameters": self.parameters, "centre": np.array(self.centre)}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "EnergyMLP":
        """The energy that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        energy = object.__new__(cls)
        energy._shape(*(settings[name] for name in ("dim", "hidden", "activation", "confinement")))
        parameters, centre = arrays["parameters"], arrays["centre"]
        if parameters.shape != (energy.layout.size,) or centre.shape != (energy.dim,):
            raise ValueError(f"{parameters.size} parameters do not make an energy of {energy.layout.size}")
        if not (np.isfinite(parameters).all() and np.isfinite(centre).all()):
            raise ValueError("its parameters are not finite")
        checks.dtype(parameters.dtype)
        energy.head = Head.restored(settings["head"], centre)
        if energy.head.kind != "plain" or energy.head.process is not None:
            raise ValueError("an energy has no noise levels")
        energy._set(parameters)
        return energy

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set(state["parameters"])

    # ---- what it computes

    def energy(self, x: Any) -> Any:
        """E_θ(x), one number a point."""
        rows, points, _, kind = self._asked(x)
        found = np.empty(len(rows), kind)
        with blas.single_threaded():
            for where, *_ in self._evaluator().blocks(rows, 0.0):
                found[where] = self._of_block(where)
        return found.reshape(points)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        """−∇E_θ(x) = ∇ log p_θ(x), of the shape of x, by a reverse pass; ``t`` is ignored, as by every target."""
        return self.energy_and_score(x)[1]

    def energy_and_score(self, x: Any) -> tuple[Any, Any]:
        """E_θ(x) and −∇E_θ(x), for little more than the second alone."""
        rows, points, shape, kind = self._asked(x)
        found, score = np.empty(len(rows), kind), np.empty(rows.shape, kind)
        evaluator, scale = self._evaluator(), self.dtype.type(-1.0 / self.spread)
        well = self.dtype.type(self.confinement)
        with blas.single_threaded():
            for where, *_ in evaluator.blocks(rows, 0.0, slopes=True):
                n = where.stop - where.start
                found[where] = self._of_block(where)
                y = evaluator.x[:n].copy()
                score[where] = scale * (evaluator.pull(np.ones((n, 1), self.dtype)) + well * y)
        return found.reshape(points)[()], score.reshape(shape)[()]

    def log_density(self, x: Any) -> Any:
        """−E_θ(x): log p_θ(x) **up to the constant** log Z(θ); of ``normalized(log_z)``, log p_θ itself."""
        return -self.energy(x)

    def density(self, x: Any) -> Any:
        """e^{−E_θ(x)}, **not normalised** but for ``normalized(log_z)``."""
        return np.exp(self.log_density(x))

    def _of_block(self, where: slice) -> np.ndarray:
        """E of the block that the evaluator has just entered."""
        evaluator, n = self._evaluator(), where.stop - where.start
        y = evaluator.x[:n]
        well: np.ndarray = evaluator.out[:n, 0] + self.dtype.type(0.5 * self.confinement) * (y * y).sum(axis=1)
        return well

    def _asked(self, x: Any) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...], np.dtype]:
        """Rows (n, dim), the shape of the set of points, that of x, and the type of the answer; as every target."""
        x = np.asarray(x)
        rows, _, kind = arguments.rows(x.reshape(-1) if self.dim == 1 else x, self.dim)
        whole = self.dim == 1 and not (x.ndim >= 2 and x.shape[-1] == 1)
        return rows, x.shape if whole else x.shape[:-1], x.shape, kind

    def _evaluator(self) -> Evaluator:
        """Buffers of this thread."""
        found: Evaluator | None = getattr(self._local, "evaluator", None)
        if found is None:
            none = np.zeros(0, self.dtype)
            found = Evaluator(self.layout, self.activation, self.parameters, self.head, none)
            self._local.evaluator = found
        return found
