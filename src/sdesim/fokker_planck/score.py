"""The score ∇ log p of a density that is known on a grid.

The score is what time reversal and the probability flow need, and a density on a grid has one wherever its
logarithm can be trusted: the far tails of a numerical density are rounding, and their logarithm is noise.
"""

from typing import Any

import numpy as np

from ..core.cache import kernel
from .grid import Grid

# Below this share of its maximum a density is not trusted to have a logarithm.
TRUSTED = 1e-8


class GridScore:
    """∇ log p of a density on a grid, interpolated in x and t: a callable ``score(x, t)``.

    The logarithm of p at the cell centres (from the averages, p − Σ h²∂²p/24) is differenced to fourth order along each
    axis (third next to walls); the slopes are interpolated by cubics in x and through the saved times. Unequal cells
    are counted: all of that is done in the number ξ of the cell, x(ξ) the spline of fifth degree through the edges.

    Only cells whose p exceeds 1e-8 of the maximum have a trusted logarithm: beyond them, and beyond the outermost
    centres, the score keeps the value at the nearest cell that has one (along a circle it is periodic). A single saved
    time serves all t.

    ``x`` has shape (n, d), or (..., d); in one dimension (n,) or (n, 1), or is a number. The result has the shape of x.
    ``t`` is a number or an array (n,), within the saved times.
    """

    batch_only = True

    def __init__(self, grid: Grid, t: np.ndarray, p: np.ndarray, periodic: tuple[bool, ...]) -> None:
        self.grid, self.t, self.p, self.periodic, self.dim = grid, t, p, periodic, grid.dim
        self._cells = [_Cells(axis) for axis in grid.axes]
        self._rows: dict[int, np.ndarray] = {}
        self._last: tuple[float, np.ndarray] | None = None

    def __call__(self, x: Any, t: Any) -> np.ndarray:
        x, d = np.asarray(x, dtype=np.float64), self.dim
        if d == 1 and x.ndim > 1 and x.shape[-1] != 1:
            raise ValueError(f"the score of a 1-D density takes x of shape (n,) or (n, 1), got {x.shape}")
        if d > 1 and (x.ndim == 0 or x.shape[-1] != d):
            raise ValueError(f"the score of a {d}-D density takes x of shape (n, {d}), got {x.shape}")
        points = x.reshape(-1, d)
        places = np.zeros((len(points), 3))
        for k, cells in enumerate(self._cells):
            places[:, k] = cells.counted(points[:, k])
        if np.ndim(t) == 0:
            values, rows, weights = self._at(float(t)), np.zeros((1, 1), int), np.ones((1, 1))
        else:
            times = np.broadcast_to(np.asarray(t, dtype=np.float64).reshape(-1), (len(points),))
            rows, weights = self._times(times)
            used, rows = np.unique(rows, return_inverse=True)
            values = np.stack([self._slopes(int(i)) for i in used])
            rows = rows.reshape(weights.shape)
        values = values.reshape(*values.shape, *(1,) * (3 - d))
        out = np.empty((len(points), d))
        _interpolate(values, places, np.array((*self.periodic, *(False,) * (3 - d))), rows, weights, out)
        return out.reshape(x.shape)

    def _at(self, t: float) -> np.ndarray:
        """The slopes at one time, (1, d, *cells)."""
        if self._last is None or self._last[0] != t:
            rows, weights = self._times(np.array([t]))
            found = sum(w * self._slopes(int(i)) for i, w in zip(rows[0], weights[0], strict=True))
            self._last = (t, np.asarray(found)[None])
        return self._last[1]

    def _slopes(self, row: int) -> np.ndarray:
        """∇ log p at the cell centres at a saved time, (d, *cells)."""
        if row not in self._rows:
            self._rows[row] = _log_slopes(self.p[row] * self.grid.cell_volume, self._cells, self.periodic)
        return self._rows[row]

    def _times(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and Lagrange weights of up to four saved times around each t."""
        saved = self.t
        if len(saved) == 1:
            return np.zeros((len(t), 1), int), np.ones((len(t), 1))
        slack = 1e-9 * (saved[-1] - saved[0])
        if not ((t >= saved[0] - slack) & (t <= saved[-1] + slack)).all():
            raise ValueError(
                f"the score is known for t in [{saved[0]:g}, {saved[-1]:g}], got {t.min():g} to {t.max():g}; "
                "save the density at times that cover it"
            )
        width = min(4, len(saved))
        first = np.clip(np.searchsorted(saved, t) - width // 2, 0, len(saved) - width)
        rows = first[:, None] + np.arange(width)
        nodes = saved[rows]
        weights = np.ones(rows.shape)
        for j in range(width):
            for k in range(width):
                if k != j:
                    weights[:, j] *= (t - nodes[:, k]) / (nodes[:, j] - nodes[:, k])
        return rows, weights


class _Cells:
    """One axis as the image x(ξ) of equal cells: centre i is at ξ = i.

    ``stretch``: x′(ξ) at the centres, the local cell width; ``log_slope``: d log x′/dξ there.
    """

    def __init__(self, axis: Grid) -> None:
        self.axis, n = axis, axis.n_cells
        if axis.uniform:
            self.stretch, self.log_slope, self._inverse = np.full(n, float(axis.spacing)), np.zeros(n), None
            return
        from scipy.interpolate import make_interp_spline

        count, degree = np.arange(-0.5, n), 5 if n >= 5 else 3
        x = make_interp_spline(count, axis.edges, k=degree)
        centers = np.arange(n)
        self.stretch = x.derivative()(centers)
        self.log_slope = x.derivative(2)(centers) / self.stretch
        self._inverse = make_interp_spline(axis.edges, count, k=degree)

    def counted(self, x: np.ndarray) -> np.ndarray:
        """ξ of points; of those beyond the walls some number beyond, linear in x."""
        lower, upper, n = self.axis.lower, self.axis.upper, self.axis.n_cells
        if self._inverse is None:
            return np.asarray((x - lower) / self.axis.spacing - 0.5)
        inside = np.clip(x, lower, upper)
        return np.asarray(self._inverse(inside) + (x - inside) * (n / (upper - lower)))


def _log_slopes(m: np.ndarray, cells: list[_Cells], periodic: tuple[bool, ...]) -> np.ndarray:
    """∇ log p at the cell centres from the probabilities of the cells, (d, *cells)."""
    d = m.ndim
    point = m.copy()  # per cell, at its centre
    for k in range(d):
        bend = np.roll(m, -1, axis=k) - 2.0 * m + np.roll(m, 1, axis=k)
        if not periodic[k]:
            # next to a wall on from the two cells before
            bend[_at(k, 0)] = 2.0 * bend[_at(k, 1)] - bend[_at(k, 2)] if m.shape[k] > 4 else 0.0
            bend[_at(k, -1)] = 2.0 * bend[_at(k, -2)] - bend[_at(k, -3)] if m.shape[k] > 4 else 0.0
        point -= bend / 24.0
    volume = m / _outer([c.stretch for c in cells])
    trusted = (volume > TRUSTED * volume.max()) & (point > 0.0)
    log = np.log(np.where(trusted, point, 1.0))
    slopes, known = np.zeros((d, *m.shape)), np.zeros((d, *m.shape), bool)
    for k, of_axis in enumerate(cells):
        for reach, weights in ((1, (0.5,)), (2, (2 / 3, -1 / 12))):
            ok, value = trusted.copy(), np.zeros(m.shape)
            for step, w in enumerate(weights, start=1):
                ok &= np.roll(trusted, -step, axis=k) & np.roll(trusted, step, axis=k)
                value += w * (np.roll(log, -step, axis=k) - np.roll(log, step, axis=k))
            if not periodic[k]:
                ok[_at(k, slice(None, reach))] = ok[_at(k, slice(m.shape[k] - reach, None))] = False
            slopes[k][ok] = value[ok]
            known[k] |= ok
        if not periodic[k] and m.shape[k] > 4:
            _next_to_walls(slopes[k], known[k], log, trusted, k)
        along = [-1 if j == k else 1 for j in range(d)]
        slopes[k] = (slopes[k] - of_axis.log_slope.reshape(along)) / of_axis.stretch.reshape(along)
    return np.stack([_held_beyond(s, ok, cells, periodic) for s, ok in zip(slopes, known, strict=True)])


def _next_to_walls(slope: np.ndarray, known: np.ndarray, log: np.ndarray, trusted: np.ndarray, k: int) -> None:
    """Differences of third order towards the inside in the two cells next to each wall, in place."""
    for side, sign in ((0, 1), (-1, -1)):
        near = [side + sign * i for i in range(4)]
        ok = np.logical_and.reduce([trusted[_at(k, i)] for i in near])
        for i, weights in enumerate(((-11 / 6, 3.0, -1.5, 1 / 3), (-1 / 3, -0.5, 1.0, -1 / 6))):
            value = sign * sum(w * log[_at(k, j)] for w, j in zip(weights, near, strict=True))
            slope[_at(k, near[i])] = np.where(ok, value, slope[_at(k, near[i])])
            known[_at(k, near[i])] |= ok


def _held_beyond(slope: np.ndarray, known: np.ndarray, cells: list[_Cells], periodic: tuple[bool, ...]) -> np.ndarray:
    """The slope with the value at the nearest known cell wherever it is not known."""
    if known.all():
        return slope
    if not known.any():
        return np.zeros_like(slope)  # fewer than three trusted cells: a point mass has no score
    if slope.ndim == 1:
        n, at = len(slope), np.flatnonzero(known)
        return np.interp(np.arange(n), at, slope[at], period=n if periodic[0] else None)
    from scipy.ndimage import distance_transform_edt

    # a circle is unrolled by half a turn on either side
    turns = [(n // 2, n // 2) if joined else (0, 0) for n, joined in zip(slope.shape, periodic, strict=True)]
    unrolled = np.pad(known, turns, mode="wrap")
    sampling = [float(c.stretch.mean()) for c in cells]
    nearest = distance_transform_edt(~unrolled, sampling=sampling, return_distances=False, return_indices=True)
    inside = (slice(None), *(slice(a, a + n) for (a, _), n in zip(turns, slope.shape, strict=True)))
    return slope[tuple((i - a) % n for i, (a, _), n in zip(nearest[inside], turns, slope.shape, strict=True))]


def _at(k: int, index: Any) -> tuple[Any, ...]:
    return (slice(None),) * k + (index,)


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    out = factors[0]
    for more in factors[1:]:
        out = np.multiply.outer(out, more)
    return out


@kernel
def _interpolate(values, places, periodic, rows, weights, out):
    """Lagrange interpolation with four points along each axis, and the given weights of rows, at places (n, 3) in
    cells; values (rows, d, n0, n1, n2), of which axes with one cell are none."""
    n_points, d = out.shape
    sizes = values.shape[2:]
    index, share, many = np.zeros((3, 4), np.int64), np.zeros((3, 4)), np.ones(3, np.int64)
    for p in range(n_points):
        finite = True
        for k in range(3):
            n = sizes[k]
            if n == 1:
                many[k], index[k, 0], share[k, 0] = 1, 0, 1.0
                continue
            many[k] = 4
            y = places[p, k]
            if not np.isfinite(y):
                finite = False
                continue
            y = y - n * np.floor(y / n) if periodic[k] else min(max(y, 0.0), n - 1.0)
            i = min(int(y), n - 1)
            if not periodic[k]:
                i = min(max(i, min(1, n - 3)), max(n - 3, 0))
            s = y - i
            a, b, c = s + 1.0, s - 1.0, s - 2.0
            share[k, 0], share[k, 1] = -s * b * c / 6.0, a * b * c / 2.0
            share[k, 2], share[k, 3] = -a * s * c / 2.0, a * s * b / 6.0
            for j in range(4):
                at = i - 1 + j
                index[k, j] = at % n if periodic[k] else min(max(at, 0), n - 1)
        of = p if rows.shape[0] > 1 else 0
        for j in range(d):
            total = 0.0
            for r in range(rows.shape[1]):
                row, part = rows[of, r], 0.0
                for i0 in range(many[0]):
                    for i1 in range(many[1]):
                        line = 0.0
                        for i2 in range(many[2]):
                            line += share[2, i2] * values[row, j, index[0, i0], index[1, i1], index[2, i2]]
                        part += share[0, i0] * share[1, i1] * line
                total += weights[of, r] * part
            out[p, j] = total if finite else np.nan
