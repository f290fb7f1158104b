r"""Score networks: multilayer perceptrons as plain arrays.

A network is a layout, one vector of parameters, and a head that turns its output into a score (``head``). It does not
change: training gives a new one. What can be asked of it, row by row and for any number of rows:

    net(x, t)                          s(x, t)
    net.jacobian_vector(x, t, v)       s and J v,   J = ∂s/∂x         (tangent pass)
    net.vector_jacobian(x, t, v)       s and vᵀJ                      (reverse pass)
    net.divergence(x, t)               tr J, exact

Rows are computed in blocks of 256, filled up where there are fewer, with one BLAS thread: a row has the same bits in
any company that starts at the same block.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import checks, stream
from . import activations, divergence
from .base import MAX_PARAMETERS, WEIGHTS, ScoreNetwork
from .evaluation import Evaluator
from .head import Head
from .layout import Layout
from .objectives import Objective


class ScoreMLP(ScoreNetwork):
    r"""A score s(x, t) by an MLP: x → hidden layers → a vector of the dimension of x.

    Parameters
    ----------
    dim : int
        The dimension d of x.
    hidden : sequence of int
        The widths of the hidden layers. With one or two the divergence is exact at the cost of one matrix product.
    activation : "silu", "tanh" or "softplus"
    time : "fourier" or None
        How the noise level enters: sines and cosines of it beside x, or not at all.
    n_frequencies : int
        How many of them, geometrically spaced from 1/16 to 1 turn per unit of c (``head.Head.level``).
    seed : int
        Of the initial weights, normal with variances that keep the size of a signal, up to the last layer.
    dtype : float32 or float64
    zero_output : bool
        Start at F = 0 exactly: the network then begins at what its head says without it.

    Notes
    -----
    ``parameters`` is read-only; ``with_parameters`` makes another network. ``net(x, t)`` takes x of shape (n, dim)
    (or (n,) for dim 1, or one point (dim,)) and t, a number or (n,), and answers in the type of x.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (128, 128), *, activation: str = "silu", time: str | None = "fourier",
        n_frequencies: int = 8, seed: int = 0, dtype: Any = np.float32, zero_output: bool = False,
    ) -> None:  # fmt: skip
        self._shape(dim, hidden, activation, time, n_frequencies)
        kind = checks.dtype(dtype)
        self.head = Head(centre=np.zeros(self.dim))
        self._set(_initial(self.layout, self.activation, checks.seed(seed), zero_output).astype(kind))

    def _shape(self, dim: Any, hidden: Any, activation: Any, time: Any, n_frequencies: Any) -> None:
        """Everything but the head and the parameters, checked."""
        dim = checks.integer("dim", dim, minimum=1)
        if isinstance(hidden, int | str) or not isinstance(hidden, Sequence):
            raise TypeError(f"hidden must be a sequence of widths such as (128, 128), got {hidden!r}")
        widths = tuple(checks.integer(f"hidden[{i}]", width, minimum=1) for i, width in enumerate(hidden))
        if not widths:
            raise ValueError("hidden must name >= 1 layer, got none")
        self.activation = checks.choice("activation", activation, activations.NAMES)
        if time is not None:
            checks.choice("time", time, ("fourier",))
        self.time = time
        self.n_frequencies = checks.integer("n_frequencies", n_frequencies, minimum=1) if time else 0
        self.layout = Layout(dim, 2 * self.n_frequencies, widths)
        if self.layout.size > MAX_PARAMETERS:
            raise ValueError(f"the network would have {self.layout.size} parameters, more than {MAX_PARAMETERS}")

    # ---- what it is

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return self.layout.hidden

    @property
    def weights(self) -> list[np.ndarray]:
        """W₁, W₂, …, each (inputs, outputs), as views of ``parameters``."""
        return self.layout.views(self.parameters)[0]

    @property
    def biases(self) -> list[np.ndarray]:
        """b₁, b₂, …"""
        return self.layout.views(self.parameters)[1]

    @property
    def frequencies(self) -> np.ndarray:
        """Turns per unit of c of the Fourier features."""
        return np.geomspace(1 / 16, 1.0, self.n_frequencies).astype(self.dtype)

    def first_biases(self, levels: np.ndarray) -> np.ndarray:
        """b₁ with what the features of each noise level add to it, (n, width): a time that all rows share is a bias."""
        return self._new_evaluator().shifts(levels)

    def __repr__(self) -> str:
        extras = "" if self.activation == "silu" else f", activation={self.activation!r}"
        extras += "" if self.time else ", time=None"
        return f"ScoreMLP({self.dim}, hidden={self.hidden}{extras}): {self.layout.size} parameters, {self.dtype}"

    def _like_me(self) -> "ScoreMLP":
        other = object.__new__(ScoreMLP)
        for name in ("activation", "time", "n_frequencies", "layout"):
            setattr(other, name, getattr(self, name))
        return other

    def learner(self, n: int, objective: str, **options: Any) -> Objective:
        """What trains it: an objective for batches of n points."""
        return Objective(self, n, objective, **options)

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings, arrays): all that :meth:`restored` needs, as plain data."""
        settings = {
            "dim": self.dim, "hidden": list(self.hidden), "activation": self.activation, "time": self.time,
            "n_frequencies": self.n_frequencies, "head": self.head.stored(),
        }  # fmt: skip
        centre = np.broadcast_to(np.asarray(self.head.centre, dtype=np.float64), (self.dim,))
        return settings, {"parameters": self.parameters, "centre": np.array(centre)}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "ScoreMLP":
        """The network that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        net = object.__new__(cls)
        net._shape(*(settings[name] for name in ("dim", "hidden", "activation", "time", "n_frequencies")))
        parameters, centre = arrays["parameters"], arrays["centre"]
        if parameters.shape != (net.layout.size,) or centre.shape != (net.dim,):
            raise ValueError(f"{parameters.size} parameters do not make a network of {net.layout.size}")
        if not (np.isfinite(parameters).all() and np.isfinite(centre).all()):
            raise ValueError("its parameters are not finite")
        checks.dtype(parameters.dtype)
        net.head = Head.restored(settings["head"], centre)
        net._set(parameters)
        return net

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers that make it, but for its head."""
        return {"parameters": self.parameters}

    def _new_evaluator(self) -> Evaluator:
        return Evaluator(self.layout, self.activation, self.parameters, self.head, self.frequencies)

    def _exact_divergence(self, evaluator: Any, rows: np.ndarray, t: Any, *given: Any) -> np.ndarray:
        return divergence.exact(evaluator, rows, t)


# 1/√E φ(z)² for a normal z: keeps the size of a signal through a layer.
_GAIN = {"silu": 1.676, "tanh": 1.593, "softplus": 1.078}


def _initial(layout: Layout, activation: str, seed: int, zero_output: bool) -> np.ndarray:
    """b = 0 and W ~ N(0, gain²/inputs), which keeps the size of a signal, but

    for x, which gets twice that (its fine structure must be told from that of the features), and for the last layer,
    which gets a tenth: what a head says without its network is a good place to start from.
    """
    parameters = np.zeros(layout.size)
    matrices, _ = layout.views(parameters)
    draws = stream.normals(seed, stream.TRAINING, -(-layout.size // 2), 1, 2, first_path=WEIGHTS).reshape(-1)
    start = 0
    for number, matrix in enumerate(matrices):
        part = draws[start : start + matrix.size].reshape(matrix.shape)
        start += matrix.size
        if number == 0:
            matrix[: layout.dim] = part[: layout.dim] * (2.0 / np.sqrt(layout.dim))
            matrix[layout.dim :] = part[layout.dim :] / np.sqrt(max(1, layout.n_features // 2))
        elif number < len(matrices) - 1 or not zero_output:
            share = 1.0 if number < len(matrices) - 1 else 0.1
            matrix[:] = part * (share * _GAIN[activation] / np.sqrt(len(matrix)))
    return parameters
