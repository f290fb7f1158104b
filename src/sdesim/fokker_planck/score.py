"""The score ∇ log p of a density that is known on a grid.

The score is what time reversal and the probability flow need, and a density on a grid has one wherever its
logarithm can be trusted: the far tails of a numerical density are rounding, and their logarithm is noise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .grid import Grid

# Below this share of its maximum a density is not trusted to have a logarithm.
TRUSTED = 1e-8


class GridScore:
    """∇ log p of a density on a 1-D grid, interpolated in x and t: a callable ``score(x, t)``.

    The logarithm of p at the cell centres (from the averages, p − h²p''/24) is differenced to fourth order;
    the slope is interpolated by cubics in x and through the saved times. Only cells whose p exceeds 1e-8 of
    the maximum have a trusted logarithm: beyond them, and beyond the outermost centres, the score keeps the
    value at the last trusted cell (on a circle it is periodic). A single saved time serves all t.

    ``x`` has shape (n,) or (n, 1), or is a number; the result has the shape of x. ``t`` is a number or an
    array (n,), within the saved times.
    """

    batch_only = True

    def __init__(self, grid: Grid, t: np.ndarray, p: np.ndarray, periodic: tuple[bool, ...]) -> None:
        self.grid, self.t, self.periodic = grid, t, periodic[0]
        self.slopes = np.array([_log_slope(row, grid.spacing, self.periodic) for row in p])

    def __call__(self, x: Any, t: Any) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim > 1 and x.shape[-1] != 1:
            raise ValueError(f"the score of a 1-D density takes x of shape (n,) or (n, 1), got {x.shape}")
        flat = x.reshape(-1)
        if np.ndim(t) == 0:
            rows, weights = self._times(np.array([float(t)]))
            slope = weights[0] @ self.slopes[rows[0]]
            return self._at(flat, lambda i: slope[i]).reshape(x.shape)
        rows, weights = self._times(np.broadcast_to(np.asarray(t, dtype=np.float64).reshape(-1), flat.shape))
        return self._at(flat, lambda i: (weights * self.slopes[rows, i[:, None]]).sum(axis=1)).reshape(x.shape)

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

    def _at(self, x: np.ndarray, values: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Four-point Lagrange interpolation at x of values at the cell centres."""
        n = self.grid.n_cells
        y = (x - self.grid.lower) / self.grid.spacing - 0.5
        y = np.mod(y, n) if self.periodic else np.clip(y, 0.0, n - 1.0)
        i = np.minimum(np.nan_to_num(y).astype(np.int64), n - 1)
        if not self.periodic:
            i = np.clip(i, min(1, n - 3), max(n - 3, 0))
        s = y - i
        a, b, c = s + 1.0, s - 1.0, s - 2.0
        index = (lambda j: np.mod(j, n)) if self.periodic else (lambda j: np.clip(j, 0, n - 1))
        return np.asarray(
            -s * b * c / 6.0 * values(index(i - 1))
            + a * b * c / 2.0 * values(i)
            - a * s * c / 2.0 * values(index(i + 1))
            + a * s * b / 6.0 * values(index(i + 2))
        )


def _log_slope(p: np.ndarray, h: float, periodic: bool) -> np.ndarray:
    """∂x log p at the cell centres, held constant beyond the cells that are trusted."""
    n = len(p)
    q = np.pad(p, 1, mode="wrap") if periodic else np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    point = p - (q[2:] - 2.0 * p + q[:-2]) / 24.0
    trusted = (p > TRUSTED * p.max()) & (point > 0.0)
    log = np.log(np.where(trusted, point, 1.0))
    slope, order = np.zeros(n), np.zeros(n, int)
    for reach, weights in ((1, (0.5,)), (2, (2 / 3, -1 / 12))):
        ok, value = trusted.copy(), np.zeros(n)
        for k, w in enumerate(weights, start=1):
            ahead, behind = np.roll(log, -k), np.roll(log, k)
            ok &= np.roll(trusted, -k) & np.roll(trusted, k)
            value += w * (ahead - behind) / h
        if not periodic:
            ok[:reach] = ok[n - reach :] = False
        slope, order = np.where(ok, value, slope), np.where(ok, reach, order)
    known = np.flatnonzero(order)
    if len(known) == 0:
        # fewer than three trusted cells: a point mass has no score
        return np.zeros(n)
    return np.interp(np.arange(n), known, slope[known], period=n if periodic else None)
