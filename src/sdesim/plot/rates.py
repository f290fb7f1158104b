"""How fast something falls: errors with the step size, modes and divergences with time, losses with training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checks
from .canvas import BLUE, GREY, SKY, VERMILION, colour, drawn_on, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    ax = drawn_on(ax)
    for k, (name, e) in enumerate(data.items()):
        slope = np.polyfit(np.log(h), np.log(e), 1)[0]
        label = f"{name}: slope {slope:.2f}" if name else f"slope {slope:.2f}"
        ax.loglog(h, e, marker="os^Dv*"[k % 6], ms=5, color=colour(k), label=label)
    first = next(iter(data.values()))
    span = np.array([h.min(), h.max()])
    for k, order in enumerate(orders):
        order = checks.real("orders", order)
        line = 0.6 * first[h.argmax()] * (span / h.max()) ** order
        ax.loglog(span, line, color=GREY, ls=("--", ":", "-.")[k % 3], lw=1.2, label=f"order {order:g}")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(True, which="major", color="0.9")
    legend(ax)
    return ax


def spectrum(modes: Any, ax: "Axes | None" = None) -> "Axes":
    """The relaxation rates of a process as stems; complex ones, where a current turns, as points in the plane.

    Parameters
    ----------
    modes : relaxation modes, or rates (k,)
        As ``relaxation_modes`` returns them, or their rates, real or complex; the smallest above 0 is the spectral gap,
        which has the last word.
    """
    rates = np.ravel(np.asarray(getattr(modes, "rates", modes)))
    if rates.size == 0 or rates.dtype.kind not in "fiuc" or not np.isfinite(rates).all():
        raise ValueError("modes must hold finite rates, as relaxation_modes(process, grid, k) returns them")
    ax = drawn_on(ax)
    size = max(float(np.abs(rates).max()), 1e-300)
    slow = rates.real[rates.real > 1e-9 * size]
    gap = float(modes.gap if hasattr(modes, "gap") and rates.size > 1 else slow.min() if slow.size else 0.0)
    label = f"gap {gap:.4g}, relaxation time {1 / gap:.4g}" if gap else None
    if np.abs(rates.imag).max() > 1e-9 * size:
        ax.axhline(0.0, color="0.8", lw=0.8)
        ax.plot(rates.real, rates.imag, "o", color=BLUE, ms=5)
        ax.set(xlabel="decay rate, Re", ylabel="frequency, Im")
        if gap:
            ax.axvline(gap, color=VERMILION, ls="--", lw=1.3, label=label)
    else:
        number = np.arange(rates.size)
        ax.vlines(number, 0.0, rates.real, color=BLUE, lw=1.6)
        ax.plot(number, rates.real, "o", color=BLUE, ms=5, clip_on=False)
        ax.set(xlabel="mode", ylabel="relaxation rate", xticks=number if rates.size <= 15 else number[::5])
        if gap:
            ax.axhline(gap, color=VERMILION, ls="--", lw=1.3, label=label)
        ax.set_ylim(bottom=0.0)
    if gap:
        legend(ax)
    return ax


def decay(
    t: Any, curves: Any, ax: "Axes | None" = None, *, rates: Sequence[float] = (), ylabel: str = "KL divergence, nats"
) -> "Axes":
    """What dies away in time (an entropy, a distance), on a logarithmic axis, beside exponentials of given rates.

    Parameters
    ----------
    t : (n,)
        Times.
    curves : (n,), or a mapping from a name to (n,)
        >= 0; what is 0 or infinite is not drawn.
    rates : numbers
        Exponentials e^{−rate t} to draw for reference, through the last point of the first curve.
    """
    t = checks.array("t", t)
    named = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    if t.ndim != 1 or t.size < 2 or not named:
        raise ValueError(f"t must hold >= 2 times and curves a curve, got shape {t.shape} and {len(named)} curves")
    ax = drawn_on(ax)
    first = None
    for k, (name, curve) in enumerate(named.items()):
        values = checks.array(f"curves[{name!r}]", curve, finite=False)
        if values.shape != t.shape:
            raise ValueError(f"curves[{name!r}] has shape {values.shape}, expected {t.shape}, one for each of t")
        shown = np.isfinite(values) & (values > 0.0)
        if not shown.any():
            raise ValueError(f"curves[{name!r}] must be > 0 and finite somewhere for a logarithmic axis")
        style = ("-", "--", "-.", ":")[k % 4]
        ax.semilogy(t[shown], values[shown], style, color=colour(k), label=name or None, lw=1.8)
        first = (t[shown], values[shown]) if first is None else first
    assert first is not None
    bottom, top = ax.get_ylim()
    for k, rate in enumerate(rates):
        rate = checks.real("rates", rate)
        line = first[1][-1] * np.exp(-rate * (first[0] - first[0][-1]))
        # a little above the curve that it is to be compared with
        ax.semilogy(first[0], 1.5 * line, color=GREY, ls=("--", ":", "-.")[k % 3], lw=1.2, label=f"rate {rate:.4g}")
    ax.set(xlabel="time $t$", ylabel=ylabel, xlim=(t[0], t[-1]), ylim=(bottom, top))
    ax.grid(True, which="major", color="0.9")
    if ax.get_legend_handles_labels()[1]:
        legend(ax)
    return ax


def losses(fit: Any, ax: "Axes | None" = None, *, smooth: int | None = None) -> "Axes":
    """The losses of a training: of every batch, their running mean, and those of the points held back.

    The running mean is over the last ``smooth`` batches, and is level where training has nothing more to gain; a
    validation loss that rises while it falls tells of over-fitting. The axis is logarithmic where the mean falls by
    more than a factor of ten and every loss is > 0.

    Parameters
    ----------
    fit : Fit, or losses (n,)
        With ``losses`` (n,), and ``validation`` (k, 2) of steps and losses if there is one.
    smooth : int, optional
        By default a fiftieth of the steps.
    """
    values = checks.array("losses", getattr(fit, "losses", fit))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"losses has shape {values.shape}, expected (n,) with n >= 1 steps")
    held = checks.array("validation", getattr(fit, "validation", np.zeros((0, 2)))).reshape(-1, 2)
    width = max(1, values.size // 50) if smooth is None else checks.integer("smooth", smooth, minimum=1)
    width = min(width, values.size)
    total = np.concatenate([[0.0], np.cumsum(values)])
    mean, step = (total[width:] - total[:-width]) / width, np.arange(1, values.size + 1)
    ax = drawn_on(ax)
    ax.plot(step, values, color=SKY, lw=0.5, alpha=0.5, label="batch", rasterized=values.size > 5000)
    ax.plot(step[width - 1 :], mean, color=BLUE, lw=1.8, label=f"mean of {width}")
    shown = np.concatenate([values[width - 1 :], mean])
    if held.size:
        ax.plot(*held.T, "o--", color=VERMILION, ms=4, lw=1.3, label="validation")
        best = held[np.argmin(held[:, 1])]
        ax.plot(*best, "*", color=VERMILION, ms=11, clip_on=False, label=f"best: {best[1]:.4g}")
        shown = np.concatenate([shown, held[1:, 1] if len(held) > 1 else held[:, 1]])
    if values.min() > 0.0 and mean.max() > 10.0 * mean.min():
        ax.set_yscale("log")
    else:  # the first batches, and rare ones of points far out, would leave everything else flat
        low, high = np.quantile(shown, [0.001, 0.999])
        margin = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
    ax.set(xlabel="step", ylabel="loss", xlim=(0, values.size))
    legend(ax)
    return ax
