"""Arrows in the plane: scores and currents."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checks
from .canvas import BLUE, at_time, axis_edges, drawn_on, lattice, plane, proportions

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def score_field(
    score: Any,
    lower: Any,
    upper: Any,
    ax: "Axes | None" = None,
    *,
    t: float = 0.0,
    n: int = 22,
) -> "Axes":
    """The arrows of a score in the plane, over the density where it is known.

    An arrow points where log p grows fastest. Its length grows like the logarithm of the score's size,
    because a score may be a thousand times larger in the tails than between the modes.

    Parameters
    ----------
    score : callable score(x (n, 2), t) -> (n, 2), or a target with ``score(x)`` and ``log_density(x)``
    lower, upper : number or pair
        Corners of the rectangle.
    t : float
        Time at which the score is asked.
    n : int
        Arrows along the longer side.
    """
    n = checks.integer("n", n, minimum=2)
    low = np.broadcast_to(checks.array("lower", lower), (2,))
    high = np.broadcast_to(checks.array("upper", upper), (2,))
    if not np.all(high > low):
        raise ValueError(f"lower must be < upper, got {low} and {high}")
    of_target = hasattr(score, "score")
    if not of_target:
        checks.function("score", score, "score(x, t)")
    side = float((high - low).max()) / n
    x = lattice(low, high, side)
    flat = x.reshape(-1, 2)
    arrows = np.asarray(score.score(flat) if of_target else score(flat, checks.real("t", t)))
    if arrows.shape != flat.shape:
        raise ValueError(f"score(x, t) returned shape {arrows.shape}, expected {flat.shape}")
    ax = drawn_on(ax, plane(low, high))
    if hasattr(score, "log_density"):
        fine = lattice(low, high, side / 8)
        p = np.exp(np.asarray(score.log_density(fine.reshape(-1, 2)))).reshape(fine.shape[:2])
        ax.contourf(fine[..., 0], fine[..., 1], p, levels=12, cmap="Blues", alpha=0.8)
    size = np.linalg.norm(arrows, axis=1)
    typical = float(np.median(size[size > 0])) if np.any(size > 0) else 1.0
    length = np.log1p(size / typical)
    length *= side / max(length.max(), 1e-300)
    unit = arrows / np.maximum(size, 1e-300)[:, None]
    shown = np.maximum(size, 1e-3 * size.max())  # a zero of the score on the lattice would take all the colours
    quiver = ax.quiver(
        *flat.T,
        *(unit * length[:, None]).T,
        shown,
        cmap="cividis_r",
        norm="log" if shown.min() > 0 and shown.max() > 30 * shown.min() else "linear",
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        width=0.0042,
    )
    ax.figure.colorbar(quiver, ax=ax, label=r"$|\nabla \log p|$")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return ax


def current(rho: Any, ax: "Axes | None" = None, *, time: int = -1, n: int = 20) -> "Axes":
    """The probability current: in the plane arrows over the density, the phase portrait of what flows; a line in 1-D.

    The length of an arrow is proportional to |J|. A current that circulates at rest tells that there is no detailed
    balance.

    Parameters
    ----------
    rho : Density
        Of one or two dimensions, with ``current(index)``.
    time : int
        Which of the saved times.
    n : int
        Arrows along the longer side.
    """
    n = checks.integer("n", n, minimum=2)
    edges, t, p = axis_edges(rho.grid), np.ravel(rho.t), np.asarray(rho.p)
    if len(edges) > 2:
        raise ValueError(f"rho has {len(edges)} dimensions, a figure shows 1 or 2")
    flow = rho.current(time)
    if len(edges) == 1:
        ax = drawn_on(ax)
        ax.axhline(0.0, color="0.8", lw=0.8)
        ax.plot(edges[0], np.asarray(flow), color=BLUE)
        ax.set(xlabel="$x$", ylabel="current $J$", xlim=(edges[0][0], edges[0][-1]), title=at_time(t[time]))
        return ax
    low, high = (np.array([e[k] for e in edges]) for k in (0, -1))
    ax = drawn_on(ax, plane(low, high))
    image = ax.pcolormesh(*edges, p[time].T, cmap="Blues", vmin=0, rasterized=True)
    ax.figure.colorbar(image, ax=ax, label="density")
    sides = (high - low) / (high - low).max()
    count = np.maximum(np.round(n * np.maximum(sides, 0.4)), 2).astype(int)
    step = (high - low) / count
    x = np.stack(np.meshgrid(*(low[k] + (np.arange(count[k]) + 0.5) * step[k] for k in (0, 1)), indexing="ij"), axis=-1)
    x = x.reshape(-1, 2)
    arrows = np.stack([_sampled(flow[k], edges, k, x) for k in (0, 1)], axis=1)
    size = np.linalg.norm(arrows, axis=1)
    # the longest arrow reaches a little beyond its cell of the lattice; dots where nothing flows are left out
    longest = max(float((np.abs(arrows) / step).max()), 1e-300)
    seen = size > 0.02 * size.max() if size.max() > 0.0 else np.zeros(len(x), bool)
    if seen.any():
        quiver = ax.quiver(
            *x[seen].T, *arrows[seen].T, angles="xy", scale_units="xy", scale=longest / 1.3, pivot="mid",
            color="black", width=0.0045,
        )  # fmt: skip
        typical = float(f"{0.7 * size.max():.1g}")
        ax.quiverkey(
            quiver, 0.8, 1.035, typical, f"$|J| = {typical:g}$", labelpos="E", fontproperties={"size": "small"}
        )
    ax.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set_title(at_time(t[time]), loc="left")
    if 0.3 < proportions(edges) < 3.0:
        ax.set_aspect("equal")
    return ax


def _sampled(flow: np.ndarray, edges: list[np.ndarray], k: int, x: np.ndarray) -> np.ndarray:
    """J_k, given at the faces across axis k, in the cells where the points are."""
    at = [np.clip(np.searchsorted(e, x[:, j], side="right") - 1, 0, e.size - 2) for j, e in enumerate(edges)]
    above = [i + 1 if j == k else i for j, i in enumerate(at)]
    return np.asarray(0.5 * (flow[tuple(at)] + flow[tuple(above)]))
