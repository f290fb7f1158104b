"""Paths over time and in the plane."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checks
from .canvas import BLUE, VERMILION, colour, drawn_on, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    ax = drawn_on(ax)
    # many thin lines read as a cloud, a few as lines
    shown = min(n, len(x))
    style: dict[str, Any] = {"lw": 0.7 if shown > 10 else 1.1, "alpha": min(1.0, max(0.15, 6 / shown))}
    if x.ndim == 3:
        for k, one in enumerate(x[:shown]):
            ax.plot(one[:, 0], one[:, 1], color=colour(k) if shown <= 6 else BLUE, **style)
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
        legend(ax)
    return ax
