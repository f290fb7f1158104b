"""Figures: paths, densities, samples beside a density, convergence, score fields, images.

Each function draws on ``ax``, or on axes of a new figure, and returns the Axes; nothing is shown and
nothing is saved, so ``plot.density(rho).figure.savefig("density.png")`` is the whole of it. Matplotlib is
imported when the first figure is drawn. The colours are those of Okabe and Ito (2008), which people of
any colour vision tell apart; lines that could be confused differ in style as well, and every map of
values is printed legibly in grey.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
GREY = "#6E6E6E"


def paths(paths: Any, ax: "Axes | None" = None, *, n: int = 50, component: int | None = None) -> "Axes":
    """Trajectories over time with mean and two standard deviations; in the plane for two components.

    Parameters
    ----------
    paths : Paths
        With ``t`` (n_times,) and ``x`` (n_paths, n_times[, d]): simulate with ``save="all"``, or at
        several times.
    n : int
        How many trajectories to draw, the first n.
    component : int, optional
        Draw this component over time instead of trajectories in the plane.

    Raises
    ------
    ValueError
        Where only final states were kept, or a state of three and more components comes without
        ``component``.
    """
    n = checks.integer("n", n, minimum=1)
    t, x = np.ravel(paths.t), np.asarray(paths.x)
    if t.size < 2:
        raise ValueError("paths must hold >= 2 times to be drawn, got 1; simulate with save='all'")
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[..., 0]
    if x.ndim == 3 and component is not None:
        x = x[..., checks.integer("component", component, minimum=0, below=x.shape[2])]
    if x.ndim == 3 and x.shape[2] != 2:
        raise ValueError(f"paths have {x.shape[2]} components; choose one with component=0")
    ax = _axes(ax)
    # many thin lines read as a cloud, a few as lines
    shown = min(n, len(x))
    style: dict[str, Any] = {"lw": 0.7 if shown > 10 else 1.1, "alpha": min(1.0, max(0.15, 6 / shown))}
    if x.ndim == 3:
        for k, one in enumerate(x[:shown]):
            ax.plot(one[:, 0], one[:, 1], color=_colour(k) if shown <= 6 else BLUE, **style)
        ax.plot(*x[:shown, 0].T, "o", ms=6, color="black", mfc="white", label="start", ls="none")
        ax.plot(*x[:shown, -1].T, "s", ms=5, color="black", label="end", ls="none")
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        ax.set_aspect("equal", adjustable="datalim")
    else:
        ax.plot(t, x[:shown].T, color=BLUE, **style)
        if len(x) > 1:
            mean, sd = x.mean(axis=0), x.std(axis=0)
            ax.plot(t, mean, color=VERMILION, lw=2, label=f"mean of {len(x)} paths")
            for sign in (-1, 1):
                ax.plot(
                    t,
                    mean + 2 * sd * sign,
                    "--",
                    color=VERMILION,
                    lw=1.3,
                    label="± 2 sd" if sign > 0 else None,
                )
        name = "$x$" if component is None else f"$x_{component + 1}$"
        ax.set(xlabel="time $t$", ylabel=name, xlim=(t[0], t[-1]))
    if ax.get_legend_handles_labels()[1]:
        _legend(ax)
    return ax


def density(rho: Any, ax: "Axes | None" = None, *, style: str = "auto", time: int = -1) -> "Axes":
    """A density: lines for a few times, a space-time map for many, a map of the plane in two dimensions.

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
    edges = _axis_edges(rho.grid)
    p = np.asarray(rho.p)
    t = np.ravel(rho.t)
    if len(edges) > 2:
        raise ValueError(f"rho has {len(edges)} dimensions, a figure shows 1 or 2; draw rho.marginal(axis)")
    if len(edges) == 2:
        ax = _axes(ax, _plane(*([e[k] for e in edges] for k in (0, -1))))
        image = ax.pcolormesh(*edges, p[time].T, cmap="viridis", rasterized=True)
        ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", title=f"$t = {t[time]:.3g}$")
        ax.figure.colorbar(image, ax=ax, label="density")
        return ax
    ax = _axes(ax)
    if style == "lines" or (style == "auto" and t.size <= 6):
        centers = (edges[0][1:] + edges[0][:-1]) / 2
        for k, (colour, dash) in enumerate(zip(_shades(t.size), _dashes(t.size), strict=True)):
            ax.plot(centers, p[k], color=colour, ls=dash, label=f"$t = {t[k]:.3g}$")
        ax.set(xlabel="$x$", ylabel="density", xlim=(edges[0][0], edges[0][-1]))
        ax.set_ylim(bottom=0)
        _legend(ax)
        return ax
    between = (t[1:] + t[:-1]) / 2
    when = np.concatenate([t[:1], between, t[-1:]])
    # a point mass at the start would leave every later time dark
    top = float(np.quantile(p.max(axis=1), 0.8))
    image = ax.pcolormesh(when, edges[0], p.T, cmap="viridis", vmin=0, vmax=top, rasterized=True)
    ax.set(xlabel="time $t$", ylabel="$x$")
    ax.figure.colorbar(image, ax=ax, label="density", extend="max" if p.max() > 1.01 * top else "neither")
    return ax


def compare(
    paths_or_samples: Any,
    rho: Any,
    ax: "Axes | None" = None,
    *,
    time: int = -1,
    component: int | None = None,
    cells: int | None = None,
) -> "Axes":
    """The samples' histogram, the density as a line, two standard deviations of chance, and the distances.

    The arguments are those of :func:`sdesim.compare`.
    """
    from .compare import compare as distances

    found = distances(paths_or_samples, rho, time=time, component=component, cells=cells)
    width = np.diff(found.edges)
    observed, expected = found.observed / width, found.expected / width
    noise = 2 * np.sqrt(found.expected * (1 - found.expected) / found.n) / width
    # the part of the axis where something is to be seen
    seen = np.flatnonzero(np.maximum(observed, expected) > 1e-3 * expected.max())
    low, high = found.edges[seen[0]], found.edges[seen[-1] + 1]
    centers = (found.edges[1:] + found.edges[:-1]) / 2
    ax = _axes(ax)
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
    if hasattr(rho, "grid") and len(_axis_edges(rho.grid)) == 1:
        (fine,) = _axis_edges(rho.grid)
        p = np.asarray(rho.final if time == -1 else rho.p[time])
        ax.plot((fine[1:] + fine[:-1]) / 2, p, color=VERMILION, lw=1.6, label=name)
    else:
        ax.plot(centers, expected, color=VERMILION, lw=1.6, label=name)
    margin = 0.03 * (high - low)
    axis = "$x$" if component is None else f"$x_{component + 1}$"
    ax.set(xlabel=axis, ylabel="density", xlim=(low - margin, high + margin))
    ax.set_ylim(0, 1.42 * max(expected.max(), observed.max()))  # room for the text above the curve
    text = "\n".join(
        [
            f"L1 {found.l1:.2g} (floor {found.l1_floor:.2g} ± {found.l1_sd:.1g})",
            f"KS {found.ks:.2g} (floor {found.ks_floor:.2g} ± {found.ks_sd:.1g})",
            f"$\\chi^2$ p = {found.chi2_pvalue:.2g}",
            "within noise" if found.within_noise else "beyond noise",
        ]
    )
    ax.text(0.015, 0.975, text, transform=ax.transAxes, va="top", fontsize="small", linespacing=1.35)
    _legend(ax, loc="upper right")
    return ax


def convergence(
    step_sizes: Any,
    errors: Any,
    ax: "Axes | None" = None,
    *,
    orders: Sequence[float] = (),
    xlabel: str = "step size $h$",
    ylabel: str = "error",
) -> "Axes":
    """Errors against step sizes, both logarithmic; fitted slopes in the legend, reference slopes in grey.

    Parameters
    ----------
    step_sizes : (n,)
        Positive, at least two of them different.
    errors : (n,), or a mapping from a name to (n,)
        One curve each; > 0.
    orders : numbers
        Slopes to draw for reference, through the first curve's point of the largest step.
    """
    h = checks.array("step_sizes", step_sizes)
    if h.ndim != 1 or h.size < 2 or h.min() <= 0 or h.min() == h.max():
        raise ValueError(f"step_sizes must hold >= 2 different positive numbers, got {h.tolist()}")
    curves = dict(errors) if isinstance(errors, Mapping) else {"": errors}
    if not curves:
        raise ValueError("errors must hold at least one curve, got none")
    data = {}
    for name, curve in curves.items():
        label = f"errors[{name!r}]" if name else "errors"
        e = checks.array(label, curve)
        if e.shape != h.shape:
            raise ValueError(f"{label} has shape {e.shape}, expected {h.shape}, one for each of step_sizes")
        if e.min() <= 0:
            raise ValueError(f"{label} must be > 0 for a logarithmic axis, got {e.min():g} at index {e.argmin()}")
        data[name] = e
    ax = _axes(ax)
    for k, (name, e) in enumerate(data.items()):
        slope = np.polyfit(np.log(h), np.log(e), 1)[0]
        label = f"{name}: slope {slope:.2f}" if name else f"slope {slope:.2f}"
        ax.loglog(h, e, marker="os^Dv*"[k % 6], ms=5, color=_colour(k), label=label)
    first = next(iter(data.values()))
    span = np.array([h.min(), h.max()])
    for k, order in enumerate(orders):
        order = checks.real("orders", order)
        line = 0.6 * first[h.argmax()] * (span / h.max()) ** order
        ax.loglog(span, line, color=GREY, ls=("--", ":", "-.")[k % 3], lw=1.2, label=f"order {order:g}")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(True, which="major", color="0.9")
    _legend(ax)
    return ax


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
    x = _lattice(low, high, side)
    flat = x.reshape(-1, 2)
    arrows = np.asarray(score.score(flat) if of_target else score(flat, checks.real("t", t)))
    if arrows.shape != flat.shape:
        raise ValueError(f"score(x, t) returned shape {arrows.shape}, expected {flat.shape}")
    ax = _axes(ax, _plane(low, high))
    if hasattr(score, "log_density"):
        fine = _lattice(low, high, side / 8)
        p = np.exp(np.asarray(score.log_density(fine.reshape(-1, 2)))).reshape(fine.shape[:2])
        ax.contourf(fine[..., 0], fine[..., 1], p, levels=12, cmap="Blues", alpha=0.8)
    size = np.linalg.norm(arrows, axis=1)
    typical = float(np.median(size[size > 0])) if np.any(size > 0) else 1.0
    length = np.log1p(size / typical)
    length *= side / max(length.max(), 1e-300)
    unit = arrows / np.maximum(size, 1e-300)[:, None]
    quiver = ax.quiver(
        *flat.T,
        *(unit * length[:, None]).T,
        size,
        cmap="cividis_r",
        norm="log" if size.min() > 0 and size.max() > 30 * size.min() else "linear",
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        width=0.0042,
    )
    ax.figure.colorbar(quiver, ax=ax, label=r"$|\nabla \log p|$")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return ax


def images(x: Any, ax: "Axes | None" = None, *, columns: int | None = None, value_range: Any = None) -> "Axes":
    """A sheet of pictures, row by row.

    Parameters
    ----------
    x : (n, height, width) or (n, height, width, 3), or (n, side²)
        Grey or colour pictures; flat square ones are unfolded.
    columns : int, optional
        Pictures in a row; by default about as many as rows.
    value_range : pair, optional
        Values shown as black and white; by default the smallest and the largest of all pictures.
    """
    x = checks.array("x", x)
    if x.ndim == 2:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(f"x has shape {x.shape}, not of square pictures; reshape to (n, height, width)")
        x = x.reshape(-1, side, side)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 3) or len(x) == 0:
        raise ValueError(f"x has shape {x.shape}, expected (n, height, width[, 3]) or (n, side²)")
    low, high = (x.min(), x.max()) if value_range is None else checks.array("value_range", value_range)
    x = np.clip((x - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    n = len(x)
    columns = math.ceil(math.sqrt(n)) if columns is None else checks.integer("columns", columns, minimum=1)
    rows = math.ceil(n / columns)
    height, width = x.shape[1:3]
    # one white line between pictures
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, *x.shape[3:]))
    for k, one in enumerate(x):
        i, j = divmod(k, columns)
        sheet[i * (height + 1) : i * (height + 1) + height, j * (width + 1) : j * (width + 1) + width] = one
    ax = _axes(ax, figsize=(4.8, max(1.0, 4.8 * sheet.shape[0] / sheet.shape[1])))
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _axes(ax: "Axes | None", figsize: tuple[float, float] = (6.0, 3.8)) -> "Axes":
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=figsize, dpi=110, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _legend(ax: "Axes", **placed: Any) -> None:
    ax.legend(frameon=False, fontsize="small", **placed)


def _colour(k: int) -> str:
    return (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)[k % 6]


def _plane(low: Any, high: Any) -> tuple[float, float]:
    """Size of a figure whose axes show the rectangle with equal scales beside a colour bar."""
    ratio = float((high[1] - low[1]) / (high[0] - low[0]))
    return (5.4, min(9.0, max(2.0, 4.1 * ratio + 0.6)))


def _shades(n: int) -> list[Any]:
    """n colours of one order, light to dark, as time goes."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](s) for s in (np.linspace(0.2, 1.0, n) if n > 1 else [1.0])]


def _dashes(n: int) -> list[str]:
    return [("-", "--", "-.", ":")[k % 4] for k in range(n)][::-1]


def _axis_edges(grid: Any) -> list[np.ndarray]:
    flat = isinstance(grid.edges, np.ndarray) and grid.edges.ndim == 1
    return [np.asarray(edges) for edges in ([grid.edges] if flat else grid.edges)]


def _lattice(low: np.ndarray, high: np.ndarray, side: float) -> np.ndarray:
    """Centres of squares that fill the rectangle, (rows, columns, 2)."""
    axes = []
    for a, b in zip(low, high, strict=True):
        cells = max(2, round((b - a) / side))
        axes.append(a + (np.arange(cells) + 0.5) * (b - a) / cells)
    return np.stack(np.meshgrid(*axes), axis=-1)
