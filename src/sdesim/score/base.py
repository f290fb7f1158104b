"""What every score network is: arguments in, rows to an evaluator, answers in the shape and type of x.

A network is a vector of parameters with a head, and does not change. It gives an evaluator of its own kind, which knows
``score``, ``tangents`` and ``reverse`` of rows (n, dim); everything here is the same for all kinds.
"""

import threading
from typing import Any

import numpy as np

from ..core import blas, checks
from . import divergence
from .head import Head

# Where the draws of this package lie in the stream of purpose ``TRAINING``: ranges of paths.
WEIGHTS, NOISE, TIMES, DIRECTIONS, SPLIT, PROBES, DROPS = (k << 40 for k in range(7))

MAX_PARAMETERS = 2**28


class ScoreNetwork:
    """Base of the score networks: what can be asked of them, with the arguments checked.

    Subclasses give ``layout`` (with ``dim`` and ``size``), ``learner`` (the objective that trains them), ``arrays``,
    ``_like_me`` (a copy without parameters), ``_new_evaluator`` and ``_exact_divergence``.
    """

    layout: Any
    head: Head
    parameters: np.ndarray
    n_classes: int | None = None

    def _set(self, parameters: np.ndarray) -> None:
        self.parameters = np.ascontiguousarray(parameters)
        self.parameters.flags.writeable = False
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set(state["parameters"])

    @property
    def dim(self) -> int:
        """The dimension of x."""
        return int(self.layout.dim)

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters, and of all arithmetic."""
        return self.parameters.dtype

    def with_parameters(self, parameters: Any, *, head: Head | None = None) -> Any:
        """The same network with other parameters (and another head)."""
        given = np.asarray(parameters)
        if given.shape != (self.layout.size,):
            raise ValueError(f"parameters has shape {given.shape}, expected ({self.layout.size},)")
        other = self._like_me()
        other.head = self.head if head is None else head
        other._set(np.array(given, dtype=given.dtype if given.dtype.kind == "f" else self.dtype))
        return other

    def astype(self, dtype: Any) -> Any:
        """The same network with float32 or float64 parameters."""
        return self.with_parameters(self.parameters.astype(checks.dtype(dtype)))

    # ---- what it computes

    def __call__(self, x: Any, t: Any = 0.0, labels: Any = None) -> Any:
        """s(x, t), of the shape of x; ``labels`` (n,) for a network with classes, None for no class."""
        rows, times, shape, kind = self._arguments(x, t)
        given = self._conditions(labels, len(rows))
        with blas.single_threaded():
            return self._evaluator().score(rows, times, *given).astype(kind, copy=False).reshape(shape)

    def jacobian_vector(self, x: Any, t: Any, v: Any, labels: Any = None) -> tuple[Any, Any]:
        """s(x, t) and J v with J[i, j] = ∂sᵢ/∂xⱼ, for one direction v a row: of the shape of x each."""
        rows, times, shape, kind = self._arguments(x, t)
        given, directions = self._conditions(labels, len(rows)), self._like(v, rows, shape)
        with blas.single_threaded():
            s, along = self._evaluator().tangents(rows, times, directions[None], *given)
        return s.astype(kind, copy=False).reshape(shape), along[0].astype(kind, copy=False).reshape(shape)

    def vector_jacobian(self, x: Any, t: Any, v: Any, labels: Any = None) -> tuple[Any, Any]:
        """s(x, t) and vᵀJ, for one v a row: of the shape of x each."""
        rows, times, shape, kind = self._arguments(x, t)
        given, directions = self._conditions(labels, len(rows)), self._like(v, rows, shape)
        with blas.single_threaded():
            s, back = self._evaluator().reverse(rows, times, directions, *given)
        return s.astype(kind, copy=False).reshape(shape), back.astype(kind, copy=False).reshape(shape)

    def divergence(
        self, x: Any, t: Any = 0.0, *, method: str = "exact", n_probes: int = 1, seed: int | None = 0,
        labels: Any = None,
    ) -> np.ndarray:  # fmt: skip
        r"""∇·s = tr J at every row, (n,).

        Parameters
        ----------
        method : "exact" or "hutchinson"
            Exact: for an MLP of one or two hidden layers in closed form, at the cost of one product of the width
            squared, whatever the dimension; for other networks by ``dim`` tangents. Hutchinson: the mean of vᵀJv over
            ``n_probes`` vectors of random signs, unbiased, with variance 2 Σ_{i≠j} (½(J + Jᵀ))ᵢⱼ² / n_probes.
        """
        checks.choice("method", method, ("exact", "hutchinson"))
        rows, times, shape, kind = self._arguments(x, t)
        given, evaluator = self._conditions(labels, len(rows)), self._evaluator()
        with blas.single_threaded():
            if method == "hutchinson":
                count = checks.integer("n_probes", n_probes, minimum=1)
                found = divergence.hutchinson(evaluator, rows, times, count, checks.seed(seed), PROBES, *given)
            else:
                found = self._exact_divergence(evaluator, rows, times, *given)
        return found.astype(kind, copy=False).reshape(shape[:-1] if self.dim > 1 or len(shape) > 1 else shape)

    def learner(self, n: int, objective: str, **options: Any) -> Any:
        """What trains it: an objective for batches of n points."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers that make it, but for its head."""
        raise NotImplementedError

    def _like_me(self) -> Any:
        raise NotImplementedError

    def _new_evaluator(self) -> Any:
        raise NotImplementedError

    def _exact_divergence(self, evaluator: Any, rows: np.ndarray, t: Any, *given: Any) -> np.ndarray:
        raise NotImplementedError

    def _evaluator(self) -> Any:
        """Buffers of this thread."""
        found = getattr(self._local, "evaluator", None)
        if found is None:
            found = self._local.evaluator = self._new_evaluator()
        return found

    def _conditions(self, labels: Any, n: int) -> tuple[Any, ...]:
        """What the evaluator takes beside points and times."""
        if labels is not None:
            raise ValueError(f"{type(self).__name__} knows no classes: leave labels out, or take a MixerMLP")
        return ()

    def _arguments(self, x: Any, t: Any) -> tuple[np.ndarray, Any, tuple[int, ...], np.dtype]:
        x = np.asarray(x)
        if x.dtype.kind not in "fiu":
            raise TypeError(f"x must hold real numbers, got dtype {x.dtype}")
        kind = x.dtype if x.dtype in (np.dtype(np.float32), np.dtype(np.float64)) else np.dtype(np.float64)
        d = self.dim
        good = x.ndim >= 1 and (x.shape[-1] == d or (d == 1 and x.ndim == 1))
        if not good:
            raise ValueError(f"x has shape {x.shape}, expected (n, {d}): a row of {d} numbers a point")
        rows = x.reshape(-1, d)
        times = np.asarray(t, dtype=np.float64)
        if times.ndim and times.size == 1 and len(rows) != 1:
            times = times.reshape(())
        if times.ndim and times.size != len(rows):
            raise ValueError(f"t has shape {times.shape}, expected a number or ({len(rows)},)")
        return rows, (float(times) if times.ndim == 0 else times.reshape(-1)), x.shape, kind

    def _like(self, v: Any, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        v = np.asarray(v)
        if v.shape != shape:
            raise ValueError(f"v has shape {v.shape}, expected {shape}, the shape of x")
        return v.reshape(rows.shape)


def checked_labels(labels: Any, n_classes: int | None, n: int) -> np.ndarray:
    """Labels (n,), 0 … n_classes − 1, with −1 for no class; one for all, or None for no class at all."""
    if labels is None:
        return np.full(n, -1)
    if n_classes is None:
        raise ValueError("the network knows no classes: leave labels out, or make it with n_classes=")
    given = np.asarray(labels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {given.dtype}")
    if given.ndim == 0:
        given = np.full(n, int(given))
    if given.shape != (n,):
        raise ValueError(f"labels has shape {given.shape}, expected ({n},): one for each row")
    wrong = (given < -1) | (given >= n_classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"labels must be in 0 … {n_classes - 1}, or -1 for no class, got {int(given[first])} at index {first}"
        )
    return given.astype(np.intp)
