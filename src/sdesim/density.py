"""A density on a grid at some times, and what can be read off it."""

import dataclasses
import functools
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck import advection
from .fokker_planck.boundary import Sides
from .fokker_planck.grid import Grid
from .fokker_planck.operator import Coefficients
from .fokker_planck.score import GridScore
from .on_grid import box_coefficients, line_coefficients


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Density:
    """A density on a grid of d dimensions at one or more times.

    Attributes
    ----------
    t : (n_times,)
        Saved times (inf for a stationary density).
    p : (n_times, *grid.shape)
        Cell averages.
    grid, process
        What was solved, and where.
    boundary : (low, high), or one such pair for each axis
        The walls.
    absorbed : (n_times, 2), or (n_times, d, 2) in several dimensions
        Probability that has left through the low and the high wall (of each axis) so far, less what has come in:
        ``mass`` and the sum of ``absorbed`` add up to 1.
    method : str
        The engine that was used.
    n_steps, n_rejected : int
        Steps (rational exponentials, implicit steps, steps along characteristics) taken and rejected.
    success, message
        Whether all of the time span was solved for, and if not, how far.
    """

    t: np.ndarray
    p: np.ndarray
    grid: Grid
    process: Any
    boundary: Any
    absorbed: np.ndarray
    method: str
    n_steps: int = 0
    n_rejected: int = 0
    success: bool = True
    message: str = ""

    def __repr__(self) -> str:
        name = type(self.process).__name__
        times = f"t = {self.t[0]:g}" if len(self.t) == 1 else f"{len(self.t)} times in [{self.t[0]:g}, {self.t[-1]:g}]"
        cells = " x ".join(map(str, self.grid.shape))
        rest = "" if self.success else f", {self.message}"
        return f"Density({name}, {times}, {cells} cells, {self.method}, mass {self.mass[-1]:.6g}{rest})"

    @property
    def final(self) -> np.ndarray:
        """The density at the last saved time, shape ``grid.shape``."""
        return np.asarray(self.p[-1])

    @property
    def masses(self) -> np.ndarray:
        """The probabilities of the cells, (n_times, *grid.shape)."""
        return np.asarray(self.p * self.grid.cell_volume)

    @property
    def minimum(self) -> float:
        """The smallest cell average: 0 or above, except by Richardson extrapolation on coarse grids and with mixed
        derivatives."""
        return float(self.p.min())

    @property
    def mass(self) -> np.ndarray:
        """Probability inside the grid at each saved time, (n_times,)."""
        return np.asarray(self.masses.reshape(len(self.t), -1).sum(axis=1))

    @property
    def mean(self) -> np.ndarray:
        """E[X | not absorbed] at each saved time, (n_times,) or (n_times, d)."""
        means = [(self.probabilities(k) @ axis.centers) / self.mass for k, axis in enumerate(self.grid.axes)]
        return means[0] if self.grid.dim == 1 else np.stack(means, axis=1)

    @property
    def variance(self) -> np.ndarray:
        """The variance of each component, given that it was not absorbed, (n_times,) or (n_times, d).

        The variance of the cell centres under p less the mean of h²/12, the part that cells add (Sheppard 1898).
        """
        found = []
        for k, axis in enumerate(self.grid.axes):
            m = self.probabilities(k) / self.mass[:, None]
            away = axis.centers - (m @ axis.centers)[:, None]
            found.append((m * (away**2 - np.square(axis.spacing) / 12.0)).sum(axis=1))
        return found[0] if self.grid.dim == 1 else np.stack(found, axis=1)

    @property
    def covariance(self) -> np.ndarray:
        """The covariance matrix at each saved time, (n_times, d, d)."""
        dim, mean = self.grid.dim, self.mean.reshape(len(self.t), self.grid.dim)
        variance = self.variance.reshape(len(self.t), dim)
        out = np.stack([np.diag(v) for v in variance])
        for j in range(dim):
            for k in range(j + 1, dim):
                others = tuple(1 + i for i in range(dim) if i not in (j, k))
                m = self.masses.sum(axis=others) / self.mass[:, None, None]
                x, y = (self.grid.axes[i].centers for i in (j, k))
                out[:, j, k] = out[:, k, j] = np.einsum("tij,i,j->t", m, x, y) - mean[:, j] * mean[:, k]
        return out

    @property
    def cdf(self) -> np.ndarray:
        """P[X <= edge] at each saved time on the n + 1 edges, (n_times, n + 1), as far as not absorbed."""
        self._one_axis("cdf")
        inside = np.cumsum(self.masses, axis=-1)
        return np.concatenate([np.zeros((len(self.t), 1)), inside], axis=-1)

    def quantile(self, q: Any, index: int = -1) -> Any:
        """The q-quantiles of X, given that it was not absorbed, at a saved time; linear inside a cell."""
        self._one_axis("quantile")
        levels = checks.array("q", q)
        if not ((levels >= 0.0) & (levels <= 1.0)).all():
            raise ValueError(f"q must lie in [0, 1], got {levels.min():g} to {levels.max():g}")
        f = self.cdf[index] / self.mass[index]
        rising = np.concatenate([[True], np.diff(f) > 0.0])
        # a level of 0 is where the density begins, not where the grid does
        start = max(int(np.argmax(f > 0.0)) - 1, 0)
        rising[:start] = False
        rising[start] = True
        return np.interp(levels, f[rising], self.grid.edges[rising])

    def probabilities(self, axis: int = 0) -> np.ndarray:
        """The probabilities of the cells of one axis, summed over the others, (n_times, n_cells of that axis)."""
        axis = checks.integer("axis", axis)
        if not 0 <= axis < self.grid.dim:
            raise ValueError(f"axis must be in 0..{self.grid.dim - 1}, got {axis}")
        return np.asarray(self.masses.sum(axis=tuple(1 + k for k in range(self.grid.dim) if k != axis)))

    def marginal(self, axis: int = 0) -> np.ndarray:
        """The density of one component, integrated over the others, (n_times, n_cells of that axis)."""
        if self.grid.dim == 1 and axis == 0:
            return self.p
        m = self.probabilities(axis)
        return np.asarray(m / self.grid.axes[axis].spacing)

    def current(self, index: int = -1) -> Any:
        """The current J_k = μ_k p − Σ_l ∂_l(D_kl p), positive towards increasing x_k; 0 at reflecting walls.

        On the n + 1 edges in one dimension; in several a tuple of d arrays, J_k at the faces across axis k, n_k + 1
        along it and as many as cells along the others.
        """
        t = float(self.t[index])
        t = t if np.isfinite(t) else 0.0
        if self.grid.dim > 1:
            from .fokker_planck.currents import box_current  # with sparse matrices, which take a while to import

            operator = box_coefficients(self.process, self.grid, self.boundary).at(t)
            return box_current(operator, self.masses[index])
        coefficients = line_coefficients(self.process, self.grid, self.boundary)
        if self.method == "characteristics":
            return self._advective_current(coefficients, t, self.p[index])
        return coefficients.at(t).current(self.masses[index])

    @functools.cached_property
    def score(self) -> GridScore:
        """∇ log p as a callable score(x, t), see GridScore; a reversal needs many saved times."""
        sides = (self.boundary,) if self.grid.dim == 1 else self.boundary
        return GridScore(self.grid, self.t, self.p, tuple(low == "periodic" for low, _ in sides))

    def _one_axis(self, name: str) -> None:
        if self.grid.dim > 1:
            raise ValueError(f"{name} is for one dimension; take marginal(axis) of a density of {self.grid.dim}")

    def _advective_current(self, coefficients: Coefficients, t: float, p: np.ndarray) -> np.ndarray:
        sides: Sides = self.boundary
        edges, periodic = self.grid.edges, sides[0] == "periodic"
        speed = np.broadcast_to(np.asarray(coefficients.drift(edges, t), dtype=float), edges.shape)
        out = speed * advection.edge_values(p, periodic=periodic)
        for end, kind in zip((0, -1), sides, strict=True):
            outward = speed[end] * (1 if end else -1)
            if kind == "reflecting" or (kind == "absorbing" and outward < 0.0):
                out[end] = 0.0
        return out
