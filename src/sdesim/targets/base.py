"""What a target is: a distribution on ℝᵈ with a log density and a score.

The score of a density p is the vector field

    s(x) = ∇ log p(x)

which points uphill in probability and does not see the normalising constant. A target is what Langevin
diffusion samples, what a learned score is compared with, and what a linear SDE can be started from.

Points: for ``dim = 1``, ``x`` of shape ``(n,)`` (or any shape) is that many points, and ``(n, 1)`` works too;
for ``dim = d >= 2`` the last axis has length d. A score has the shape of ``x``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Base class of all targets.

    Subclasses define ``dim``, ``log_density(x)`` and ``score(x, t=None)``; ``sample``, ``cdf``, ``mean`` and
    ``cov`` where they are known. A target that gives ``score_tile(self, x, t, out)`` (and
    ``log_density_tile``) runs inside compiled paths: ``x`` and ``out`` are arrays of shape (d, 256), or (1,
    256) for a log density, and ``self`` is a NamedTuple of ``fields()``. ``score_point(self, x, t, out)`` is the score
    of one point, with ``x`` and ``out`` of shape (d, 1), in the same bits and without memory of its own: what a thread
    of a GPU runs. A tile formula that takes its lanes from ``x.shape[1]`` serves as both.
    """

    dim = 1

    def log_density(self, x: Any) -> Any:
        """log p(x), one number a point."""
        raise NotImplementedError(f"{type(self).__name__} defines no log_density(x)")

    def score(self, x: Any, t: Any = None) -> Any:
        """∇ log p(x), in the shape of ``x``.

        ``t`` is ignored: with it a target's score is a score(x, t) like any other.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no score(x)")

    def density(self, x: Any) -> Any:
        """p(x), one number a point."""
        return np.exp(self.log_density(x))

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        """Draw n points, of shape (n,) for dim 1 and (n, d) otherwise.

        Point i depends on the seed and on first_path + i only.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no sample(n, seed)")

    def fields(self) -> dict[str, Any]:
        """The numbers and arrays that compiled code sees as the fields of ``self``."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def formula(self, name: str) -> Callable[..., Any]:
        """The plain function behind a method or a property: what is compiled."""
        found = getattr(type(self), name)
        function: Callable[..., Any] = getattr(self, name) if isinstance(found, property) else found
        return function

    def _rows(self, x: Any) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
        """``x`` as points (n, d), with the shape of the set of points and the shape of ``x``."""
        given = np.asarray(x, dtype=np.float64)
        d = self.dim
        if d == 1:
            points = given.shape[:-1] if given.ndim >= 2 and given.shape[-1] == 1 else given.shape
        else:
            if given.ndim == 0 or given.shape[-1] != d:
                raise ValueError(
                    f"x has shape {given.shape}, expected ({d},) or (n, {d}): components are in the last axis"
                )
            points = given.shape[:-1]
        return given.reshape(-1, d), points, given.shape


def draws(n: Any, seed: Any, first_path: Any) -> tuple[int, int, int]:
    """The arguments of ``sample``, checked; ``seed=None`` takes one from the operating system."""
    return (
        checks.integer("n", n, minimum=1),
        checks.seed(seed),
        checks.integer("first_path", first_path, minimum=0),
    )
