"""A function of the start: values at the centres of a grid's cells, and between them."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck.grid import Grid


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GridFunction:
    """u(x) for a process that starts at x: a probability, a mean time or an expectation, as the grid gives it.

    Use it as an array over the cells (``u[i]``, ``np.asarray(u)``) or as a function (``u(x)``).

    Attributes
    ----------
    grid : Grid
    values : shape grid.shape
        u at the centres of the cells.
    fixed : bool, shape grid.shape, or None
        Cells where u is given (a target): their value holds up to their faces.
    walls : ((low, high), …) for each axis
        u at the walls where it is known (0 at one that absorbs), None where not, "periodic" on a circle.
    """

    grid: Grid
    values: np.ndarray
    fixed: np.ndarray | None = None
    walls: tuple[tuple[Any, Any], ...] = ()

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.grid.shape))
        return f"{type(self).__name__}({cells} cells, {self.values.min():.6g} to {self.values.max():.6g})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __call__(self, x: Any) -> Any:
        """u at points of the grid: numbers or an array in one dimension, an array (…, d) in several.

        In one dimension by cubic splines through the centres and the known values at walls and edges of the target; in
        several by cubics through four points along each axis, linear beside a target, of order four and two.

        Raises ValueError for points outside the grid.
        """
        points, dim = checks.array("x", x), self.grid.dim
        if dim == 1:
            points = points[..., None]
        elif points.shape[-1:] != (dim,):
            raise ValueError(f"x has shape {points.shape}, expected (…, {dim})")
        flat = points.reshape(-1, dim)
        for k, axis in enumerate(self.grid.axes):
            outside = (flat[:, k] < axis.lower) | (flat[:, k] > axis.upper)
            if outside.any():
                at = flat[np.argmax(outside), k]
                raise ValueError(f"x = {at:g} is outside the grid [{axis.lower:g}, {axis.upper:g}] of axis {k}")
        found = self._on_line(flat[:, 0]) if dim == 1 else self._in_box(flat)
        out = found.reshape(points.shape[:-1])
        return float(out) if out.ndim == 0 else out

    def _on_line(self, x: np.ndarray) -> np.ndarray:
        edges, values = np.asarray(self.grid.edges), self.values
        fixed = np.zeros(len(values), bool) if self.fixed is None else self.fixed
        cell = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(values) - 1)
        out = values[cell]
        for start, stop, spline in self._splines:
            inside = (edges[start] <= x) & (x <= edges[stop]) & ~fixed[cell]
            out[inside] = spline(x[inside])
        return np.asarray(out)

    @functools.cached_property
    def _splines(self) -> list[tuple[int, int, Any]]:
        """(first cell, cell after the last, spline) of every run of cells between fixed ones."""
        from scipy.interpolate import CubicSpline, PchipInterpolator

        grid, n = self.grid, len(self.values)
        edges, centers = np.asarray(grid.edges), np.asarray(grid.centers)
        low, high = self.walls[0] if self.walls else (None, None)
        circle = low == "periodic"
        if self.fixed is None or not self.fixed.any():
            if circle:
                length = grid.upper - grid.lower
                turns = np.concatenate([centers - length, centers, centers + length])
                return [(0, n, CubicSpline(turns, np.tile(self.values, 3)))]
            runs = [(0, n)]
        else:
            change = np.diff(np.concatenate([[True], self.fixed, [True]]).astype(int))
            runs = list(zip(np.flatnonzero(change < 0), np.flatnonzero(change > 0), strict=True))
        found = []
        for start, stop in runs:
            x: Any = list(centers[start:stop])
            u: Any = list(self.values[start:stop])
            left = low if start == 0 else self.values[start - 1]
            right = high if stop == n else self.values[stop]
            if circle and start == 0:
                left = self.values[-1] if self.fixed is not None and self.fixed[-1] else None
            if circle and stop == n:
                right = self.values[0] if self.fixed is not None and self.fixed[0] else None
            if left is not None:
                x, u = [float(edges[start]), *x], [float(left), *u]
            if right is not None:
                x, u = [*x, float(edges[stop])], [*u, float(right)]
            if len(x) < 2:
                x, u = [x[0], x[0] + 1.0], [u[0], u[0]]
            found.append((int(start), int(stop), CubicSpline(x, u) if len(x) > 3 else PchipInterpolator(x, u)))
        return found

    def _in_box(self, points: np.ndarray) -> np.ndarray:
        """Cubic through four points of each axis; linear where these include cells of the target."""
        nodes, values, touched = self._extended
        dim, index, weights = self.grid.dim, [], []
        for k, x in enumerate(nodes):
            first = np.clip(np.searchsorted(x, points[:, k]) - 2, 0, len(x) - 4)
            near = x[first[:, None] + np.arange(4)]
            index.append(first)
            weights.append(_lagrange(near, points[:, k]))
        out, mixed = np.zeros(len(points)), np.zeros(len(points), bool)
        for corner in itertools.product(range(4), repeat=dim):
            place = tuple(index[k] + c for k, c in enumerate(corner))
            out += np.prod([weights[k][:, c] for k, c in enumerate(corner)], axis=0) * values[place]
            mixed |= touched[place]
        if mixed.any():
            out[mixed] = self._multilinear(points[mixed])
        return out

    @functools.cached_property
    def _extended(self) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Nodes of each axis (centres, and walls where u is known), values there, and whether a cell is fixed."""
        u = self.values
        touched = np.zeros(u.shape, bool) if self.fixed is None else self.fixed
        nodes = []
        for k, axis in enumerate(self.grid.axes):
            low, high = self.walls[k] if self.walls else (None, None)
            x, n = np.asarray(axis.centers), axis.n_cells
            if low == "periodic":
                length = axis.upper - axis.lower
                x = np.concatenate([x[-2:] - length, x, x[:2] + length])
                around = np.arange(-2, n + 2) % n
                u, touched = np.take(u, around, axis=k), np.take(touched, around, axis=k)
            else:
                pad = [(0, 0)] * u.ndim
                pad[k] = (int(low is not None), int(high is not None))
                values = [(0.0, 0.0)] * u.ndim
                values[k] = (low or 0.0, high or 0.0)
                u, touched = np.pad(u, pad, constant_values=values), np.pad(touched, pad, mode="edge")
                x = np.concatenate([[axis.lower][: pad[k][0]], x, [axis.upper][: pad[k][1]]])
            nodes.append(x)
        return nodes, u, touched

    def _multilinear(self, points: np.ndarray) -> np.ndarray:
        from scipy.interpolate import RegularGridInterpolator

        assert self.fixed is not None
        found = np.asarray(RegularGridInterpolator(*self._padded)(points))
        cell = tuple(
            np.clip(np.searchsorted(axis.edges, points[:, k], side="right") - 1, 0, axis.n_cells - 1)
            for k, axis in enumerate(self.grid.axes)
        )
        return np.where(self.fixed[cell], self.values[cell], found)

    @functools.cached_property
    def _padded(self) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Centres and values with one cell more at every wall, set so that the line meets the value at the wall."""
        u = self._reflected()
        coordinates = []
        for k, axis in enumerate(self.grid.axes):
            low, high = self.walls[k] if self.walls else (None, None)
            first, last = np.take(u, [0], axis=k), np.take(u, [-1], axis=k)
            if low == "periodic":
                before, after = last, first
            else:
                before = first if low is None else 2.0 * low - first
                after = last if high is None else 2.0 * high - last
            u = np.concatenate([before, u, after], axis=k)
            c, (h,) = np.asarray(axis.centers), axis.widths
            coordinates.append(np.concatenate([[c[0] - h[0]], c, [c[-1] + h[-1]]]))
        return tuple(coordinates), u

    def _reflected(self) -> np.ndarray:
        """The values, those of fixed cells beside others moved so that the line between takes them at the face."""
        if self.fixed is None or not self.fixed.any():
            return self.values
        total, count = np.zeros(self.grid.shape), np.zeros(self.grid.shape)
        for k in range(self.grid.dim):
            for shift in (1, -1):
                beside = np.roll(self.values, shift, axis=k)
                seen = self.fixed & ~np.roll(self.fixed, shift, axis=k)
                if self.walls and self.walls[k][0] != "periodic":
                    seen[(slice(None),) * k + (0 if shift > 0 else -1,)] = False
                total += np.where(seen, 2.0 * self.values - beside, 0.0)
                count += seen
        return np.where(count > 0, total / np.maximum(count, 1), self.values)


def _lagrange(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights (n, 4) of the values at four nodes (n, 4) in the cubic through them, at x (n,)."""
    out = np.ones(nodes.shape)
    for i in range(4):
        for j in range(4):
            if i != j:
                out[:, i] *= (x - nodes[:, j]) / (nodes[:, i] - nodes[:, j])
    return out
