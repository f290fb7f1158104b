r"""The score that a sampler follows: the network's, steered by labels and by guidance, and checked at every call.

Classifier-free guidance (Ho & Salimans 2022) with weight w follows

    s = s(x, t, null) + (1 + w) (s(x, t, label) − s(x, t, null)),

so that w = 0 is the conditional score and w > 0 exaggerates what the label changes. A function ``guidance(x, t)`` that
returns a gradient ∇ₓ log p(what is wanted | x at time t) is added to the score: Bayes' rule (Dhariwal & Nichol 2021).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import checks
from ..processes.components import call_score


class Guidance:
    """What the argument ``guidance`` asks for: a weight of labels, functions to add, measurements to fit."""

    def __init__(self, guidance: Any, labels: Any) -> None:
        self.weight = 0.0
        self.functions: list[Callable[..., Any]] = []
        self.measurements: list[Any] = []
        parts = guidance if isinstance(guidance, list | tuple) else [] if guidance is None else [guidance]
        for part in parts:
            if hasattr(part, "gradient"):
                self.measurements.append(part)
            elif callable(part):
                self.functions.append(part)
            else:
                self.weight = checks.real("guidance", part)
                if labels is None:
                    raise ValueError(
                        f"guidance = {self.weight:g} is a weight of labels, and there are none; give labels=, or a "
                        "function guidance(x, t)"
                    )

    def for_rows(self, here: slice) -> "Guidance":
        """The same for some rows: measurements may differ from sample to sample."""
        part = object.__new__(Guidance)
        part.weight, part.functions = self.weight, self.functions
        part.measurements = [measurement.for_rows(here) for measurement in self.measurements]
        return part


def check_labels(score: Any, labels: Any, n: int) -> np.ndarray | None:
    """One class a sample, (n,), −1 for none; or None."""
    if labels is None:
        return None
    given = np.asarray(labels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers, got dtype {given.dtype}")
    if given.ndim > 1 or (given.ndim == 1 and given.size != n):
        raise ValueError(f"labels has shape {given.shape}, expected one class or ({n},), one for each sample")
    classes = getattr(score, "n_classes", None)
    if classes is not None:
        bad = (given < -1) | (given >= classes)
        if bad.any():
            wrong = int(given.reshape(-1)[int(np.argmax(bad))])
            raise ValueError(f"labels must lie in 0 … {classes - 1}, the classes of the network, got {wrong}")
    return np.broadcast_to(given, (n,)).astype(np.int64)


class GuidedScore:
    """score(x, t) for a block of rows.

    ``rows`` are their numbers in the result (for messages), ``labels`` their classes.
    """

    def __init__(
        self, noised: Any, score: Any, guidance: Guidance, labels: np.ndarray | None, rows: Sequence[int]
    ) -> None:
        self.noised, self.score, self.guidance, self.labels, self.rows = noised, score, guidance, labels, rows

    def of(self, which: np.ndarray) -> "GuidedScore":
        """The score of some of the block's rows."""
        labels = None if self.labels is None else self.labels[which]
        return GuidedScore(self.noised, self.score, self.guidance, labels, [self.rows[i] for i in which])

    def plain(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The score with its labels, but without a function or measurement."""
        if self.labels is None:
            return call_score(self.score, x, t, rows=self.rows)
        labels, weight = self.labels, self.guidance.weight
        found = call_score(lambda x, t: self.score(x, t, labels=labels), x, t, rows=self.rows)
        if weight == 0.0:
            return found
        free = call_score(lambda x, t: self.score(x, t, labels=None), x, t, rows=self.rows)
        return free + (1.0 + weight) * (found - free)

    def __call__(self, x: np.ndarray, t: Any) -> np.ndarray:
        s = self.plain(x, t)
        for function in self.guidance.functions:
            s = s + call_score(function, x, t, rows=self.rows, name="guidance")
        if self.guidance.measurements:
            plain = s
            for measurement in self.guidance.measurements:
                s = s + np.asarray(measurement.gradient(self, x, float(t), plain), x.dtype)
        return s

    def vector_jacobian(self, x: np.ndarray, t: float, v: np.ndarray) -> np.ndarray:
        """vᵀ ∂s/∂x: by the network's reverse pass, else by a central difference along v, for a symmetric ∂s/∂x.

        The Jacobian of a gradient field is symmetric, and an exact score is one.
        """
        reverse = getattr(self.score, "vector_jacobian", None)
        if reverse is not None and self.labels is None:
            return np.asarray(reverse(x, t, v)[1])
        if reverse is not None:
            found = np.asarray(reverse(x, t, v, labels=self.labels)[1])
            if self.guidance.weight == 0.0:
                return found
            free = np.asarray(reverse(x, t, v, labels=None)[1])
            return free + (1.0 + self.guidance.weight) * (found - free)
        length = np.sqrt((v.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        length[length == 0.0] = 1.0
        precise = x.dtype == np.float64
        step = (1e-4 if precise else 1e-2) * max(np.sqrt(self.noised.variance(t)), 1e-6)
        along = np.asarray(v / length * step, x.dtype)
        change = self.plain(x + along, t) - self.plain(x - along, t)
        return change * (length / (2.0 * step))
