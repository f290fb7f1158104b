"""What all figures share: colours, axes of their own, legends, and the layout of maps of the plane."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
GREY = "#6E6E6E"


def drawn_on(ax: "Axes | None", figsize: tuple[float, float] = (6.0, 3.8)) -> "Axes":
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=figsize, dpi=110, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def legend(ax: "Axes", **placed: Any) -> None:
    ax.legend(frameon=False, fontsize="small", **placed)


def colour(k: int) -> str:
    return (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)[k % 6]


def plane(low: Any, high: Any) -> tuple[float, float]:
    """Size of a figure whose axes show the rectangle with equal scales beside a colour bar."""
    ratio = float((high[1] - low[1]) / (high[0] - low[0]))
    return (5.4, min(9.0, max(2.0, 4.1 * ratio + 0.6)))


def shades(n: int) -> list[Any]:
    """n colours of one order, light to dark, as time goes."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](s) for s in (np.linspace(0.2, 1.0, n) if n > 1 else [1.0])]


def dashes(n: int) -> list[str]:
    return [("-", "--", "-.", ":")[k % 4] for k in range(n)][::-1]


def axis_edges(grid: Any) -> list[np.ndarray]:
    flat = isinstance(grid.edges, np.ndarray) and grid.edges.ndim == 1
    return [np.asarray(edges) for edges in ([grid.edges] if flat else grid.edges)]


def lattice(low: np.ndarray, high: np.ndarray, side: float) -> np.ndarray:
    """Centres of squares that fill the rectangle, (rows, columns, 2)."""
    along = []
    for a, b in zip(low, high, strict=True):
        cells = max(2, round((b - a) / side))
        along.append(a + (np.arange(cells) + 0.5) * (b - a) / cells)
    return np.stack(np.meshgrid(*along), axis=-1)


def proportions(edges: list[np.ndarray]) -> float:
    """Height over width of a rectangle."""
    return float((edges[1][-1] - edges[1][0]) / (edges[0][-1] - edges[0][0]))


def at_time(t: float) -> str:
    """A time as a title; that of a stationary density is infinite."""
    return f"$t = {t:.3g}$" if np.isfinite(t) else "at rest"


def enclosing(p: np.ndarray, volume: Any, shares: tuple[float, ...] = (0.99, 0.9, 0.5)) -> list[float]:
    """The values of p above which lie these shares of the probability."""
    order = np.argsort(p, axis=None)[::-1]
    mass = np.cumsum((p * volume).ravel()[order])
    at = np.searchsorted(mass, np.asarray(shares) * mass[-1])
    return [float(v) for v in p.ravel()[order][np.minimum(at, p.size - 1)]]
