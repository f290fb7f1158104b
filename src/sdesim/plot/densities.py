"""Densities: lines, maps over space and time, maps of the plane, frames."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checks
from .canvas import at_time, axis_edges, dashes, drawn_on, enclosing, legend, plane, proportions, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def density(rho: Any, ax: "Axes | None" = None, *, style: str = "auto", time: int = -1) -> "Axes":
    """A density: lines for a few times, a space-time map for many, a map of the plane in two dimensions.

    On the map of the plane the contours enclose 50, 90 and 99 % of the probability, as the densest regions that do.

    Parameters
    ----------
    rho : Density
        With ``grid`` (``edges``, ``centers``), ``t`` and ``p`` (n_times, \\*cells).
    style : "auto", "lines" or "map"
        For one dimension; "auto" draws lines up to six times.
    time : int
        For two dimensions: which of the saved times.
    """
    style = checks.choice("style", style, ("auto", "lines", "map"))
    edges = axis_edges(rho.grid)
    p = np.asarray(rho.p)
    t = np.ravel(rho.t)
    if len(edges) > 2:
        raise ValueError(f"rho has {len(edges)} dimensions, a figure shows 1 or 2; draw rho.marginal(axis)")
    if len(edges) == 2:
        ax = drawn_on(ax, plane(*([e[k] for e in edges] for k in (0, -1))))
        image = _map(ax, edges, p[time])
        _contours(ax, edges, p[time])
        ax.set(title=at_time(t[time]))
        ax.figure.colorbar(image, ax=ax, label="density")
        return ax
    ax = drawn_on(ax)
    if style == "lines" or (style == "auto" and t.size <= 6):
        centers = (edges[0][1:] + edges[0][:-1]) / 2
        for k, (colour, dash) in enumerate(zip(shades(t.size), dashes(t.size), strict=True)):
            ax.plot(centers, p[k], color=colour, ls=dash, label=at_time(t[k]))
        ax.set(xlabel="$x$", ylabel="density", xlim=(edges[0][0], edges[0][-1]))
        ax.set_ylim(bottom=0)
        legend(ax)
        return ax
    between = (t[1:] + t[:-1]) / 2
    when = np.concatenate([t[:1], between, t[-1:]])
    # a point mass at the start would leave every later time dark
    top = float(np.quantile(p.max(axis=1), 0.8))
    image = ax.pcolormesh(when, edges[0], p.T, cmap="viridis", vmin=0, vmax=top, rasterized=True)
    ax.set(xlabel="time $t$", ylabel="$x$")
    ax.figure.colorbar(image, ax=ax, label="density", extend="max" if p.max() > 1.01 * top else "neither")
    return ax


def frames(rho: Any, axes: Any = None, *, n: int = 6, columns: int = 3, component: int | None = None) -> np.ndarray:
    """A density at several times side by side, on one scale: maps of the plane, or lines over the first of them.

    Parameters
    ----------
    rho : Density
        Of one or two dimensions; of more with ``component``.
    axes : sequence of Axes, optional
        One for each frame; by default those of a new figure.
    n : int
        How many of the saved times, as evenly spread as they allow.
    columns : int
        Frames in a row.
    component : int, optional
        Draw the density of this component.

    Returns
    -------
    array of Axes, one a frame.
    """
    edges, t, p = axis_edges(rho.grid), np.ravel(rho.t), np.asarray(rho.p)
    if component is not None and len(edges) > 1:
        component = checks.integer("component", component, minimum=0, below=len(edges))
        p, edges = np.asarray(rho.marginal(component)), [edges[component]]
    if len(edges) > 2:
        raise ValueError(f"rho has {len(edges)} dimensions, a frame shows 1 or 2; choose one with component=0")
    n = min(checks.integer("n", n, minimum=1), t.size)
    chosen = np.unique(np.round(np.linspace(0, t.size - 1, n)).astype(int))
    if axes is None:
        axes = _sheet(len(chosen), checks.integer("columns", columns, minimum=1), edges)
    found = np.ravel(np.asarray(axes, dtype=object))
    if len(found) < len(chosen):
        raise ValueError(
            f"axes must hold one for each of the {len(chosen)} frames, got {len(found)}; give n={len(found)}"
        )
    # a sharp start would leave every later frame dark
    peaks = p[chosen].reshape(len(chosen), -1).max(axis=1)
    top = float(np.quantile(peaks, 0.7))
    name = "x" if component is None else f"x_{component + 1}"
    for ax, k in zip(found, chosen, strict=False):
        if len(edges) == 2:
            image = _map(ax, edges, p[k], top)
            _contours(ax, edges, p[k], label=False)
        else:
            centers = (edges[0][1:] + edges[0][:-1]) / 2
            ax.fill_between(centers, p[chosen[0]], color="0.85", lw=0, label=at_time(t[chosen[0]]))
            ax.plot(centers, p[k], color=shades(1)[0])
            ax.set(xlabel=f"${name}$", ylabel="density", xlim=(edges[0][0], edges[0][-1]), ylim=(0, 1.05 * top))
        ax.set_title(at_time(t[k]), fontsize="medium")
        if ax.get_subplotspec() is not None:
            ax.label_outer()
    used = found[: len(chosen)]
    if len(edges) == 2:
        extend = "max" if peaks.max() > 1.01 * top else "neither"
        used[0].figure.colorbar(image, ax=list(used), label="density", extend=extend, shrink=0.9)
    return used


def _sheet(n: int, columns: int, edges: list[np.ndarray]) -> np.ndarray:
    import matplotlib.pyplot as plt

    columns = min(columns, n)
    rows = -(-n // columns)
    height = 2.3 if len(edges) == 1 else min(3.6, max(1.4, 2.5 * proportions(edges)))
    figure, found = plt.subplots(
        rows, columns, figsize=(2.7 * columns + 0.8, height * rows + 0.5), dpi=110, layout="constrained",
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for ax in found.flat[n:]:
        figure.delaxes(ax)
    return np.asarray(found.flat[:n])


def _map(ax: "Axes", edges: list[np.ndarray], p: np.ndarray, top: float | None = None) -> Any:
    image = ax.pcolormesh(*edges, p.T, cmap="viridis", vmin=0, vmax=top, rasterized=True)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    if 0.3 < proportions(edges) < 3.0:
        ax.set_aspect("equal")
    return image


def _contours(ax: "Axes", edges: list[np.ndarray], p: np.ndarray, label: bool = True) -> None:
    """The edges of the densest regions that hold 50, 90 and 99 % of the probability."""
    volume = np.multiply.outer(*map(np.diff, edges))
    names = {level: f"{100 * share:g} %" for share, level in zip((0.99, 0.9, 0.5), enclosing(p, volume), strict=True)}
    levels = sorted(names)
    if len(levels) < 3 or p.max() <= levels[-1]:
        return  # too few cells to draw a line round
    lines = ax.contour(
        *((e[1:] + e[:-1]) / 2 for e in edges), p.T, levels=levels, colors=["0.75", "white", "black"],
        linewidths=0.9, linestyles=["dotted", "dashed", "solid"],
    )  # fmt: skip
    if label:
        ax.clabel(lines, fmt=names, fontsize="x-small", inline_spacing=3)
