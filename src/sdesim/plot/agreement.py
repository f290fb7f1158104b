"""Samples beside the density that they should have."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import BLUE, GREY, SKY, VERMILION, axis_edges, drawn_on, enclosing, legend, plane, proportions

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compare(
    paths_or_samples: Any,
    rho: Any,
    ax: "Axes | None" = None,
    *,
    time: int = -1,
    component: int | None = None,
    cells: Any = None,
) -> "Axes":
    """The samples' histogram, the density as a line, two standard deviations of chance, and the distances.

    For a density of the plane, compared jointly: the deviation of each box in standard deviations, over the contours
    that enclose 50 and 90 % of the density. The arguments are those of :func:`sdesim.compare`.
    """
    from ..compare import compare as distances

    found = distances(paths_or_samples, rho, time=time, component=component, cells=cells)
    if isinstance(found.edges, tuple):
        return _deviations(found, ax)
    width = np.diff(found.edges)
    observed, expected = found.observed / width, found.expected / width
    noise = 2 * np.sqrt(found.expected * (1 - found.expected) / found.n) / width
    # the part of the axis where something is to be seen
    seen = np.flatnonzero(np.maximum(observed, expected) > 1e-3 * expected.max())
    low, high = found.edges[seen[0]], found.edges[seen[-1] + 1]
    centers = (found.edges[1:] + found.edges[:-1]) / 2
    ax = drawn_on(ax)
    label = f"{found.n:,} samples".replace(",", " ")
    ax.stairs(observed, found.edges, fill=True, color=SKY, alpha=0.55, label=label)
    ax.stairs(observed, found.edges, color=BLUE, lw=0.6)
    ax.stairs(
        expected + noise,
        found.edges,
        baseline=np.maximum(expected - noise, 0),
        fill=True,
        color=GREY,
        alpha=0.4,
        label="± 2 sd of chance",
    )
    name = "density" if found.time is None else f"density at $t = {found.time:.3g}$"
    if hasattr(rho, "grid") and len(axis_edges(rho.grid)) == 1:
        (fine,) = axis_edges(rho.grid)
        p = np.asarray(rho.final if time == -1 else rho.p[time])
        ax.plot((fine[1:] + fine[:-1]) / 2, p, color=VERMILION, lw=1.6, label=name)
    else:
        ax.plot(centers, expected, color=VERMILION, lw=1.6, label=name)
    margin = 0.03 * (high - low)
    axis = "$x$" if component is None else f"$x_{component + 1}$"
    ax.set(xlabel=axis, ylabel="density", xlim=(low - margin, high + margin))
    ax.set_ylim(0, 1.42 * max(expected.max(), observed.max()))  # room for the text above the curve
    ax.text(0.015, 0.975, _verdict(found), transform=ax.transAxes, va="top", fontsize="small", linespacing=1.35)
    legend(ax, loc="upper right")
    return ax


def _deviations(found: Any, ax: "Axes | None") -> "Axes":
    if len(found.edges) > 2:
        raise ValueError(f"rho has {len(found.edges)} dimensions, a figure shows 1 or 2; choose one with component=0")
    q, n, edges = found.expected, found.n, list(found.edges)
    z = (found.observed - q) * np.sqrt(n) / np.sqrt(np.maximum(q * (1 - q), 1e-300))
    # boxes that expect no sample and have none say nothing
    z = np.ma.masked_where((n * q < 1.0) & (found.observed == 0.0), z)
    ax = drawn_on(ax, plane(*([e[k] for e in edges] for k in (0, -1))))
    image = ax.pcolormesh(*edges, z.T, cmap="PuOr", vmin=-4, vmax=4, rasterized=True)
    ax.figure.colorbar(image, ax=ax, label="samples less density, in sd of chance", extend="both")
    volume = np.multiply.outer(*map(np.diff, edges))
    levels = sorted(set(enclosing(q / volume, volume, (0.9, 0.5))))
    centers = [(e[1:] + e[:-1]) / 2 for e in edges]
    ax.contour(*centers, (q / volume).T, levels=levels, colors="black", linewidths=0.7)
    seen = [np.flatnonzero(n * q.sum(axis=1 - k) > 0.1) for k in (0, 1)]
    low, high = ([e[s[i] + (i < 0)] for e, s in zip(edges, seen, strict=True)] for i in (0, -1))
    title = f"{found.n:,} samples".replace(",", " ")
    title += "" if found.time is None or not np.isfinite(found.time) else f", $t = {found.time:.3g}$"
    ax.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(low[0], high[0]), ylim=(low[1], high[1]), title=title)
    if 0.3 < proportions([np.array([a, b]) for a, b in zip(low, high, strict=True)]) < 3.0:
        ax.set_aspect("equal")
    box = {"facecolor": "white", "alpha": 0.75, "lw": 0}
    ax.text(0.02, 0.98, _verdict(found), transform=ax.transAxes, va="top", fontsize="x-small", bbox=box)
    return ax


def _verdict(found: Any) -> str:
    return "\n".join(
        [
            f"L1 {found.l1:.2g} (floor {found.l1_floor:.2g} ± {found.l1_sd:.1g})",
            f"KS {found.ks:.2g} (floor {found.ks_floor:.2g} ± {found.ks_sd:.1g})",
            f"$\\chi^2$ p = {found.chi2_pvalue:.2g}",
            "within noise" if found.within_noise else "beyond noise",
        ]
    )
