"""Orders of convergence: what each scheme states, and what is measured, strongly and weakly.

    python benchmarks/convergence.py                       under four minutes, once compiled
    python benchmarks/convergence.py --quick               under one minute: fewer paths, levels and problems
    python benchmarks/convergence.py --schemes sra sri     these schemes only
    python benchmarks/convergence.py --json - --plot orders.png

A row of the table is a scheme with a kind of noise that it takes. All problems but one depend on time:

    additive     "circle, σ(t)": dX = (0.3 cos 3t + sin X) dt + (1.2 + 0.3 sin 2t) dW
    diagonal     "seasonal GBM": dX = (0.1 + ½ cos 3t) X dt + 0.7 X dW, known path by path, linear;
                 "tanh": dX = −b² X (1 − X²) dt + b (1 − X²) dW = d tanh(bW + artanh x0), nonlinear (strong), with
                 "circle, σ(x, t)": drift 1.6 + 0.3 cos 3t + sin X, σ = (0.5 + 0.2 cos X)(1 + 0.3 sin 2t) (weak);
                 for sri "quiet circle": dX = (0.5 + 0.2 cos X) dW: its weak order is 1.5, and 2 where σ is linear in X
    commutative  "two assets": dX_j = (μ_j + ½ cos 3t) X_j dt + X_j (σ_j1 dW_1 + σ_j2 dW_2), known path by path
    general      "two turns": dX = A(t) X dt + G_1 X dW_1 + G_2 X dW_2 with G_1 G_2 ≠ G_2 G_1
    none         dX = (cos 3t − X³) dt

**Strong.** E|X_h(T) − X(T)| on common Brownian paths of 2^13 steps: ΔW, the space-time integrals ∫ (W_s − W_t) ds and
the Lévy areas (their Legendre series, the rest a normal variable) are made for the fine steps, summed to coarser ones
(areas by Chen's relation), and handed to ``simulate(increments=...)``. Without a closed form the truth is a scheme of
higher order at the finest step: ``sra`` (additive noise), ``milstein_levy`` with the fine areas (general noise).

**Weak.** No sampling. Linear problems by moment recursion: the compiled scheme runs one step from 0 and from the unit
vectors at every node of a quadrature of its increments, which gives x' = A x + B node by node; E X and E X Xᵀ follow
step by step and are compared with their differential equations. Nonlinear ones by the backward recursion on a circle
or a torus: u(x) ← Σ w_q u(step(x, q)) at the points of a grid, u being a trigonometric polynomial, against the
backward Kolmogorov equation; the error is the root mean square over all starting points. Quadrature: Gauss-Hermite for
ΔW and dZ, ± the conditional standard deviation for Lévy areas (moments need no more), the exact points for two- and
three-point increments, whose last four steps are Gaussian. Law-only schemes refuse increments, so their stages run as
a scheme of their own that takes them; that their own draws have the law assumed is seen by comparing 200 000 paths
with the recursion ("paths: z").

**Intervals.** The slope p of log error against log h by least squares. Its 95 % half width is the root of the sum of
squares of: Student's for the residuals of the fit, which are the scatter of the local slopes; twice the amount by
which p moves when the fit has a term for curvature (h weakly, √h strongly); for strong errors the bootstrap's over
paths, and the amount by which p would move if the error of a numerical reference were wholly that of the scheme. At
least 0.005. "ok": the interval contains the stated order and excludes a quarter above and below.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import integrate, special, stats

import sdesim as sde
from sdesim import bind
from sdesim.core import blocks, stream
from sdesim.execution import work
from sdesim.integrate.schemes import SCHEMES, Fan, Scheme
from sdesim.preparation import Run, prepare

END = 1.0


# ---- problems ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Circle(sde.Process):
    """dX = (a + 0.3 cos 3t + sin X) dt + (1.2 + 0.3 sin 2t) dW: nonlinear, and periodic in X; a = 0, where not said."""

    base: float = 0.0
    name = "circle, σ(t)"
    start = (0.4,)

    def drift(self, x, t):
        return self.base + 0.3 * np.cos(3.0 * t) + np.sin(x)

    def diffusion(self, x, t):
        return 1.2 + 0.3 * np.sin(2.0 * t)

    def diffusion_dx(self, x, t):
        return 0.0


@dataclasses.dataclass(frozen=True)
class NoisyCircle(sde.Process):
    """The same drift with σ = (0.5 + 0.2 cos X)(1 + 0.3 sin 2t)."""

    name = "circle, σ(x, t)"
    start = (0.4,)

    def drift(self, x, t):
        return 1.6 + 0.3 * np.cos(3.0 * t) + np.sin(x)

    def diffusion(self, x, t):
        return (0.5 + 0.2 * np.cos(x)) * (1.0 + 0.3 * np.sin(2.0 * t))

    def diffusion_dx(self, x, t):
        return -0.2 * np.sin(x) * (1.0 + 0.3 * np.sin(2.0 * t))


@dataclasses.dataclass(frozen=True)
class QuietCircle(sde.Process):
    """dX = (0.5 + 0.2 cos X) dW: no drift."""

    name = "quiet circle"
    start = (0.4,)

    def drift(self, x, t):
        return 0.0 * x

    def diffusion(self, x, t):
        return 0.5 + 0.2 * np.cos(x)


@dataclasses.dataclass(frozen=True)
class SeasonalGBM(sde.Process):
    """dX = (0.1 + ½ cos 3t) X dt + 0.7 X dW."""

    name = "seasonal GBM"
    start = (1.0,)

    def drift(self, x, t):
        return (0.1 + 0.5 * np.cos(3.0 * t)) * x

    def diffusion(self, x, t):
        return 0.7 * x

    def diffusion_dx(self, x, t):
        return 0.7

    def solution(self, w):
        return np.exp((0.1 - 0.245) * END + np.sin(3.0 * END) / 6.0 + 0.7 * w)

    def linear(self, t):
        return np.array([[0.1 + 0.5 * math.cos(3.0 * t)]]), [0.7 * np.eye(1)], np.zeros(1), [np.zeros(1)]


@dataclasses.dataclass(frozen=True)
class Tanh(sde.Process):
    """dX = −b² X (1 − X²) dt + b (1 − X²) dW, which is tanh(b W + artanh x0)."""

    b: float = 0.9
    name = "tanh"
    start = (0.2,)

    def drift(self, x, t):
        return -self.b * self.b * x * (1.0 - x * x)

    def diffusion(self, x, t):
        return self.b * (1.0 - x * x)

    def diffusion_dx(self, x, t):
        return -2.0 * self.b * x

    def solution(self, w):
        return np.tanh(self.b * w + math.atanh(self.start[0]))


RATES = np.array([0.3, -0.2])
VOLATILITIES = np.array([[0.6, 0.3], [-0.2, 0.5]])


@dataclasses.dataclass(frozen=True)
class TwoAssets(sde.Process):
    """dX_j = (μ_j + ½ cos 3t) X_j dt + X_j Σ σ_jk dW_k: the columns of the noise commute."""

    name = "two assets"
    start = (1.0, 0.8)
    dim = 2
    noise = "general"

    def drift(self, x, t):
        season = 0.5 * np.cos(3.0 * t)
        return (0.3 + season) * x[0], (season - 0.2) * x[1]

    def diffusion(self, x, t):
        return (0.6 * x[0], 0.3 * x[0]), (-0.2 * x[1], 0.5 * x[1])

    def solution(self, w):
        rate = RATES - 0.5 * (VOLATILITIES**2).sum(axis=1)
        return np.array(self.start) * np.exp(rate * END + 0.5 * np.sin(3.0 * END) / 3.0 + w @ VOLATILITIES.T)

    def linear(self, t):
        drift = np.diag(RATES + 0.5 * math.cos(3.0 * t))
        return drift, [np.diag(column) for column in VOLATILITIES.T], np.zeros(2), [np.zeros(2)] * 2


@dataclasses.dataclass(frozen=True)
class TwoTurns(sde.Process):
    """dX = A(t) X dt + G_1 X dW_1 + G_2 X dW_2: the columns of the noise do not commute."""

    name = "two turns"
    start = (1.0, 0.5)
    dim = 2
    noise = "general"

    def drift(self, x, t):
        turn = 0.4 + 0.3 * np.cos(3.0 * t)
        return -0.2 * x[0] + turn * x[1], -turn * x[0] - 0.1 * x[1]

    def diffusion(self, x, t):
        return (0.1 * x[0] + 0.7 * x[1], 0.0 * x[0]), (0.1 * x[1], -0.7 * x[0] + 0.1 * x[1])

    def linear(self, t):
        turn = 0.4 + 0.3 * math.cos(3.0 * t)
        first, second = np.array([[0.1, 0.7], [0.0, 0.1]]), np.array([[0.0, 0.0], [-0.7, 0.1]])
        return np.array([[-0.2, turn], [-turn, -0.1]]), [first, second], np.zeros(2), [np.zeros(2)] * 2


@dataclasses.dataclass(frozen=True)
class CommutingTorus(sde.Process):
    """Two angles; g_1 = (s(x_1), 0), g_2 = (½ s(x_1), r(x_2)) commute."""

    name = "torus, commuting"
    start = (0.4, 1.0)
    dim = 2
    noise = "general"

    def drift(self, x, t):
        return 1.2 + 0.3 * np.cos(3.0 * t) + 0.5 * np.sin(x[1]), 1.0 + 0.4 * np.cos(x[0])

    def diffusion(self, x, t):
        s = 0.4 + 0.2 * np.cos(x[0])
        return (s, 0.5 * s), (0.0 * s, 0.5 + 0.2 * np.sin(x[1]))


@dataclasses.dataclass(frozen=True)
class Torus(sde.Process):
    """Two angles; g_1 = (s(x_2), 0), g_2 = (0.2, r(x_1)) do not commute."""

    name = "torus"
    start = (0.4, 1.0)
    dim = 2
    noise = "general"

    def drift(self, x, t):
        return 1.2 + 0.3 * np.cos(3.0 * t) + 0.5 * np.sin(x[1]), 1.0 + 0.4 * np.cos(x[0])

    def diffusion(self, x, t):
        return (0.5 + 0.3 * np.cos(x[1]), 0.2 + 0.0 * x[0]), (0.0 * x[0], 0.5 + 0.3 * np.sin(x[0]))


@dataclasses.dataclass(frozen=True)
class Cubic(sde.Process):
    """dX = (cos 3t − X³) dt."""

    name = "dX = (cos 3t − X³) dt"
    start = (1.0,)

    def drift(self, x, t):
        return np.cos(3.0 * t) - x * x * x

    def diffusion(self, x, t):
        return 0.0


def named(process: Any, name: str, start: tuple[float, ...], linear: Any = None) -> Any:
    """A process of the library as a problem."""
    for key, value in {"name": name, "start": start, "linear": linear}.items():
        object.__setattr__(process, key, value)
    return process


MIXTURE = sde.targets.GaussianMixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.5]], [[0.4]]])
OVERDAMPED = named(sde.Langevin(MIXTURE), "Langevin, mixture", (0.3,))
OVERDAMPED_GAUSSIAN = named(
    sde.Langevin(sde.targets.Gaussian(0.0, 1.0)), "Langevin, Gaussian", (1.5,),
    lambda t: (-np.eye(1), [np.zeros((1, 1))], np.zeros(1), [np.full(1, math.sqrt(2.0))]),
)  # fmt: skip
UNDERDAMPED = named(sde.UnderdampedLangevin(MIXTURE, 0.8), "underdamped, mixture", (0.3, 0.5))
UNDERDAMPED_GAUSSIAN = named(
    sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 0.8), "underdamped, Gaussian", (1.5, 0.5),
    lambda t: (
        np.array([[0.0, 1.0], [-1.0, -0.8]]), [np.zeros((2, 2))], np.zeros(2), [np.array([0.0, math.sqrt(1.6)])],
    ),
)  # fmt: skip


# ---- slopes and their intervals ---------------------------------------------------------------------------------


def fitted(h: np.ndarray, y: np.ndarray, power: float | None) -> np.ndarray:
    """Slope of y on log h, for each row of y; with ``power`` beside a term in h^power."""
    x = np.log(h)
    columns = [np.ones_like(x), x] + ([] if power is None else [h**power])
    return np.asarray(np.linalg.lstsq(np.stack(columns, axis=1), np.atleast_2d(y).T, rcond=None)[0][1])


def interval(
    h: Any, errors: Any, power: float, replicas: np.ndarray | None = None, finest: float = 0.0
) -> dict[str, Any]:
    """The slope of log error against log h with its 95 % half width (see the text at the top).

    ``replicas`` are errors from resampled paths; ``finest`` is the step of a reference that has an error of its own.
    """
    h, errors = np.asarray(h, float), np.asarray(errors, float)
    x, y = np.log(h), np.log(errors)
    slope = float(fitted(h, y, None)[0])
    residual = y - y.mean() - slope * (x - x.mean())
    freedom = len(h) - 2
    scatter = stats.t.ppf(0.975, freedom) * math.sqrt((residual**2).sum() / freedom / ((x - x.mean()) ** 2).sum())
    curvature = float(fitted(h, y, power)[0]) - slope
    shift = float(fitted(h, y - np.log1p(-((finest / h) ** slope)), None)[0]) - slope if finest else 0.0
    chance = 0.0
    if replicas is not None:
        low, high = np.quantile(fitted(h, np.log(replicas), None), [0.025, 0.975])
        chance = 0.5 * float(high - low)
    half = math.sqrt(scatter**2 + (2.0 * curvature) ** 2 + chance**2 + shift**2)
    return {
        "slope": slope, "half": max(half, 0.005), "scatter": scatter, "curvature": curvature, "chance": chance,
        "reference": shift, "h": h.tolist(), "errors": errors.tolist(),
    }  # fmt: skip


def verdict(found: dict[str, Any] | None, order: float) -> bool:
    """Whether an interval contains the order and excludes a quarter above and below."""
    if found is None:
        return True
    low, high = found["slope"] - found["half"], found["slope"] + found["half"]
    return low <= order <= high and low > order - 0.25 and high < order + 0.25


def stated(scheme: Scheme, kind: str) -> tuple[float, float]:
    """(strong, weak) as the scheme's file states them for this kind of noise."""
    return scheme.orders.get(kind, (scheme.strong_order, scheme.weak_order))


# ---- strong -----------------------------------------------------------------------------------------------------


class Brownian:
    """Brownian paths on fine steps: ΔW, dZ and, for two Wiener processes, the Lévy areas; and on coarser ones."""

    def __init__(self, m: int, n_paths: int, fine: int, seed: int = 31, terms: int = 2) -> None:
        self.m, self.n_paths, self.fine = m, n_paths, fine
        n, h = 2**fine, END / 2**fine

        def draw(purpose: int, count: int) -> np.ndarray:
            return np.ascontiguousarray(stream.normals(seed, purpose, n_paths, count, n).transpose(0, 2, 1))

        xi = draw(stream.WIENER, m)
        self.dw = math.sqrt(h) * xi
        self.dz = h * (0.5 * self.dw + math.sqrt(h / 12.0) * draw(stream.SPACE_TIME, m))
        self.area = np.zeros((n_paths, n, 0))
        if m == 2:
            z = draw(stream.LEVY_AREA, m * terms + 1)
            before, area = xi, 0.0
            for q in range(1, terms + 1):
                after = z[:, :, 2 * q - 2 : 2 * q]
                cross = before[:, :, 0] * after[:, :, 1] - after[:, :, 0] * before[:, :, 1]
                area = area + 0.5 * h * cross / math.sqrt(4.0 * q * q - 1.0)
                before = after
            self.area = (area + 0.5 * h * z[:, :, -1] / math.sqrt(2.0 * terms + 1.0))[:, :, None]

    @functools.cache  # noqa: B019 - lives as long as the run
    def at(self, level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(dW, dZ, areas) on 2^level steps, from pairs of the steps of the next finer level."""
        if level == self.fine:
            return self.dw, self.dz, self.area
        dw, dz, area = self.at(level + 1)
        (w, w_next), (z, z_next) = (dw[:, ::2], dw[:, 1::2]), (dz[:, ::2], dz[:, 1::2])
        joined = area[:, ::2] + area[:, 1::2]
        if self.m == 2:
            joined += 0.5 * (w[..., :1] * w_next[..., 1:] - w[..., 1:] * w_next[..., :1])
        return w + w_next, z + z_next + END / 2 ** (level + 1) * w, joined

    def increments(self, scheme: Scheme, process: Any, level: int) -> np.ndarray:
        """What ``simulate(increments=...)`` takes for this scheme."""
        dw, dz, area = self.at(level)
        if scheme.space_time:
            return np.concatenate([dw, dz], axis=2)
        wanted = noise_columns(scheme, process, self.m)
        return np.concatenate([dw, area], axis=2) if wanted > self.m else dw


def noise_columns(scheme: Scheme, process: Any, m: int) -> int:
    """The columns of given increments."""
    areas = scheme.fan is not None and scheme.fan.iterated == "levy" and bind.is_general(process, scheme)
    return 2 * m if scheme.space_time else m + (m * (m - 1) // 2 if areas else 0)


def ends(process: Any, method: str, level: int, brownian: Brownian) -> np.ndarray:
    """The end points (n, d) on these Brownian paths with 2^level steps."""
    increments = brownian.increments(SCHEMES[method], process, level)
    start = process.start if len(process.start) > 1 else process.start[0]
    final = sde.simulate(
        process, start, (0.0, END), n_steps=2**level, n_paths=brownian.n_paths, method=method, increments=increments,
        workers=1,
    ).final  # fmt: skip
    return final.reshape(brownian.n_paths, -1)


class Strong:
    """Measures strong orders; keeps Brownian paths and reference solutions."""

    def __init__(self, quick: bool) -> None:
        self.fine, self.n_paths = (12, 1500) if quick else (13, 2000)
        self.levels = np.arange(4, 10) if quick else np.arange(5, 11)
        self._brownian: dict[int, Brownian] = {}
        self._truth: dict[str, np.ndarray] = {}

    def brownian(self, m: int) -> Brownian:
        """Paths of m Wiener processes."""
        if m not in self._brownian:
            # two Wiener processes: a quarter of the paths, steps half as long
            self._brownian[m] = Brownian(m, self.n_paths // m**2, self.fine + m - 1)
        return self._brownian[m]

    def truth(self, process: Any) -> np.ndarray:
        """The solution at the end, from the closed form or by a scheme of higher order at the finest step."""
        if process.name not in self._truth:
            brownian = self.brownian(wiener_processes(process))
            if hasattr(process, "solution"):
                w = brownian.dw.sum(axis=1)
                value = process.solution(w if len(process.start) > 1 else w[:, 0]).reshape(brownian.n_paths, -1)
            else:
                value = ends(process, "milstein_levy" if process.noise == "general" else "sra", brownian.fine, brownian)
            self._truth[process.name] = value
        return self._truth[process.name]

    def measure(self, method: str, process: Any) -> dict[str, Any]:
        """The slope of the mean error, with bootstrap over paths."""
        brownian, truth = self.brownian(wiener_processes(process)), self.truth(process)
        # a reference of order 1 has to be far finer than what it judges
        levels, finest = self.levels, 0.0
        if not hasattr(process, "solution"):
            finest = END / 2.0**brownian.fine
            levels = levels - 1 if process.noise == "general" else levels
        errors = np.stack([np.linalg.norm(ends(process, method, int(k), brownian) - truth, axis=1) for k in levels])
        rng = np.random.default_rng(1)
        draws = rng.integers(0, brownian.n_paths, (300, brownian.n_paths))
        replicas = np.stack([errors[:, draw].mean(axis=1) for draw in draws])
        return interval(END / 2.0**levels, errors.mean(axis=1), 0.5, replicas, finest)


def wiener_processes(process: Any) -> int:
    """The Wiener processes that drive a path."""
    return bind.noise_dim(process, len(process.start))


# ---- weak: one step of the compiled scheme at the nodes of a quadrature --------------------------------------------


def opened(scheme: Scheme) -> Scheme:
    """A law-only scheme's stages as a scheme that takes increments; others as they are."""
    if not scheme.law_only:
        return scheme
    name = f"{scheme.name}, increments given"
    fan = None if scheme.fan is None else Fan(scheme.fan.supports, scheme.fan.spread, "levy")
    return SCHEMES.setdefault(name, dataclasses.replace(scheme, name=name, increment="gaussian", fan=fan))


def nodes(scheme: Scheme, process: Any, h: float, gaussian: bool, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, columns) and weights of one step's increments; ``gaussian``: they are normal in any scheme."""
    m = wiener_processes(process)
    points, weights = np.polynomial.hermite_e.hermegauss(degree)
    law = scheme.increment
    if law == "two_point" and not gaussian:
        points, weights = np.array([-1.0, 1.0]), np.ones(2)
    elif law == "three_point" and not gaussian:
        points, weights = math.sqrt(3.0) * np.array([-1.0, 0.0, 1.0]), np.array([1.0, 4.0, 1.0])
    weights = weights / weights.sum()
    axes = [(math.sqrt(h) * points, weights)] * m
    if scheme is SCHEMES["baoab"]:  # the positions' columns are not read
        axes[: m // 2] = [(np.zeros(1), np.ones(1))] * (m // 2)
    if scheme.space_time:
        inner, inner_weights = np.polynomial.hermite_e.hermegauss(min(degree, 6))
        axes += [(inner, inner_weights / inner_weights.sum())] * m
    areas = noise_columns(opened(scheme), process, m) - m if scheme.fan is not None else 0
    axes += [(np.array([-1.0, 1.0]), np.full(2, 0.5))] * areas
    grid = np.stack([a.ravel() for a in np.meshgrid(*[x for x, _ in axes], indexing="ij")], axis=1)
    weight = functools.reduce(np.multiply.outer, [w for _, w in axes]).ravel()
    if scheme.space_time:
        grid[:, m:] = h * (0.5 * grid[:, :m] + math.sqrt(h / 12.0) * grid[:, m:])
    elif areas:
        assert m == 2
        # the conditional variance of a Lévy area is h²/12 + h |dW|²/12; V_12/2 is ±h/2
        levy = scheme.fan is not None and scheme.fan.iterated == "levy"
        grid[:, m] *= np.sqrt(h * (h + (grid[:, :m] ** 2).sum(axis=1)) / 12.0) if levy else 0.5 * h
    return grid, weight


@functools.cache
def prepared(process: Any, scheme: Scheme) -> Run:
    """A run of one step with given increments, to be used again with other states, times and increments."""
    m, d = wiener_processes(process), len(process.start)
    return prepare(
        process, np.zeros((1, d)) if d > 1 else np.zeros(1), (0.0, 1.0), n_steps=1, n_paths=None, method=scheme.name,
        save="final", reduce=None, seed=0, dtype=np.float64, first_path=0,
        increments=np.zeros((1, 1, noise_columns(scheme, process, m))), boundary=None, rtol=None, atol=None,
        on_nonfinite="raise",
    )  # fmt: skip


def advance(process: Any, scheme: Scheme, x: np.ndarray, t: float, h: float, increments: np.ndarray) -> np.ndarray:
    """One step of the compiled scheme, from (n, d) at time t: what ``simulate`` does, prepared once for many steps."""
    run = prepared(process, scheme)
    run.x0, run.n_paths, run.t0, run.t1 = np.ascontiguousarray(x), len(x), t, t + h
    run.increments = np.ascontiguousarray(increments[:, None, :])
    final = np.empty_like(run.x0)
    work(blocks.Block(0, len(x), 0), run, (final, None))
    return final


def step_nodes(scheme: Scheme, process: Any, n_steps: int, degree: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The quadrature of every step: the last four are Gaussian."""
    h = END / n_steps
    usual, last = (nodes(scheme, process, h, gaussian, degree) for gaussian in (False, True))
    return [last if scheme.law_only and s >= n_steps - 4 else usual for s in range(n_steps)]


def moments(scheme: Scheme, process: Any, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """E X and E X Xᵀ at the end, of the recursion that the compiled scheme is on a linear equation."""
    d, h = len(process.start), END / n_steps
    runner = opened(scheme)
    mean = np.array(process.start)
    second = np.outer(mean, mean)
    starts = np.concatenate([np.zeros((1, d)), np.eye(d)])
    for s, (points, w) in enumerate(step_nodes(scheme, process, n_steps, 6)):
        x = np.repeat(starts, len(points), axis=0)
        y = advance(process, runner, x, s * h, h, np.tile(points, (d + 1, 1))).reshape(d + 1, len(points), d)
        b = y[0]
        a = (y[1:] - b).transpose(1, 2, 0)  # (node, row, column)
        turned = a @ mean
        cross = np.einsum("q,qi,qj->ij", w, turned, b)
        second = np.einsum("q,qij,jk,qlk->il", w, a, second, a) + cross + cross.T + np.einsum("q,qi,qj->ij", w, b, b)
        mean = w @ (turned + b)
    return mean, second


@functools.cache
def exact_moments(process: Any) -> tuple[np.ndarray, np.ndarray]:
    """E X and E X Xᵀ from their differential equations."""
    d = len(process.start)
    x0 = np.array(process.start)

    def slope(t: float, state: np.ndarray) -> np.ndarray:
        mean, second = state[:d], state[d:].reshape(d, d)
        a, g, b, c = process.linear(t)
        drift = a @ second + np.outer(b, mean)
        growth = drift + drift.T
        for gk, ck in zip(g, c, strict=True):
            cross = np.outer(gk @ mean, ck)
            growth = growth + gk @ second @ gk.T + cross + cross.T + np.outer(ck, ck)
        return np.concatenate([a @ mean + b, growth.ravel()])

    start = np.concatenate([x0, np.outer(x0, x0).ravel()])
    end = integrate.solve_ivp(slope, (0.0, END), start, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
    return end[:d], end[d:].reshape(d, d)


def moment_error(scheme: Scheme, process: Any, n_steps: int) -> float:
    """The relative distance of both moments from the exact ones."""
    found, exact = moments(scheme, process, n_steps), exact_moments(process)
    return float(np.linalg.norm([np.linalg.norm(f - e) / np.linalg.norm(e) for f, e in zip(found, exact, strict=True)]))


def _mesh(d: int) -> np.ndarray:
    """The points (n, d) of the grid on the circle or the torus."""
    n = 32 if d == 1 else 16
    x = 2.0 * math.pi * np.arange(n) / n
    return np.stack([a.ravel() for a in np.meshgrid(*[x] * d, indexing="ij")], axis=1)


def _observed(x: np.ndarray) -> np.ndarray:
    return np.exp(1j * x.sum(axis=1))


@functools.cache
def kolmogorov(process: Any) -> np.ndarray:
    """E f(X_T) from every point of the grid, f = exp(i Σ x): the backward equation, in Fourier space."""
    x = _mesh(d := len(process.start))
    n = round(len(x) ** (1.0 / d))
    k = np.fft.fftfreq(n, 1.0 / n)
    waves = np.meshgrid(*[k] * d, indexing="ij")
    axes = tuple(range(d))
    state = tuple(x.T.reshape(d, *[n] * d)) if d > 1 else x[:, 0]

    def parts(t: float) -> tuple[list[Any], list[list[Any]]]:
        drift, g = process.drift(state, t), process.diffusion(state, t)
        if d == 1:
            return [drift], [[g * g]]
        return list(drift), [[sum(p * q for p, q in zip(g[i], g[j], strict=True)) for j in range(d)] for i in range(d)]

    def slope(tau: float, u: np.ndarray) -> np.ndarray:
        drift, a = parts(END - tau)
        hat = np.fft.fftn(u.reshape([n] * d), axes=axes)
        total = 0.0
        for i in range(d):
            total = total + drift[i] * np.fft.ifftn(1j * waves[i] * hat, axes=axes)
            for j in range(d):
                total = total - 0.5 * a[i][j] * np.fft.ifftn(waves[i] * waves[j] * hat, axes=axes)
        return np.asarray(total).ravel()

    solution = integrate.solve_ivp(slope, (0.0, END), _observed(x), method="DOP853", rtol=1e-12, atol=1e-13)
    return np.asarray(solution.y[:, -1])


def backward_error(scheme: Scheme, process: Any, n_steps: int) -> float:
    """Root mean square over all starts of the error of E f(X_T), by the scheme's own backward recursion."""
    x = _mesh(d := len(process.start))
    n, h = round(len(x) ** (1.0 / d)), END / n_steps
    runner = opened(scheme)
    k = np.fft.fftfreq(n, 1.0 / n)
    u = None
    for s, (points, w) in reversed(list(enumerate(step_nodes(scheme, process, n_steps, 8 if d == 1 else 6)))):
        y = advance(process, runner, np.repeat(x, len(points), axis=0), s * h, h, np.tile(points, (len(x), 1)))
        if u is None:
            values = _observed(y)
        else:
            hat = np.fft.fftn(u.reshape([n] * d)) / n**d
            waves = [np.exp(1j * y[:, [j]] * k) for j in range(d)]
            values = waves[0] @ hat if d == 1 else ((waves[0] @ hat) * waves[1]).sum(axis=1)
        u = values.reshape(len(x), len(points)) @ w
    assert u is not None
    return float(np.sqrt(np.mean(np.abs(u - kolmogorov(process)) ** 2)))


def weak_order(scheme: Scheme, process: Any, quick: bool) -> dict[str, Any]:
    """The slope of errors without chance."""
    first = 4 + scheme.law_only  # whose last four steps are of another kind
    steps = 2 ** np.arange(first, first + (4 if quick else 5))
    error = moment_error if getattr(process, "linear", None) is not None else backward_error
    return interval(END / steps, [error(scheme, process, int(n)) for n in steps], 1.0)


def paths_against_recursion(scheme: Scheme, process: Any, n: int = 200_000, n_steps: int = 8) -> float:
    """The largest distance, in standard errors, of the moments of paths from those of the recursion."""
    mean, second = moments(scheme, process, n_steps)
    start = process.start if len(process.start) > 1 else process.start[0]
    x = sde.simulate(
        process, start, (0.0, END), n_steps=n_steps, n_paths=n, method=scheme.name, seed=8, workers=1
    ).final.reshape(n, -1)
    products = np.einsum("ni,nj->nij", x, x).reshape(n, -1)
    found = np.concatenate([x, products], axis=1)
    spread = found.std(axis=0) / math.sqrt(n)
    return float((abs(found.mean(axis=0) - np.concatenate([mean, second.ravel()])) / spread).max())


# ---- the table ----------------------------------------------------------------------------------------------------

Pair = tuple[Any, Any]  # the problem of the strong order, and that of the weak one

BY_KIND: dict[str, list[Pair]] = {
    "additive": [(Circle(), Circle())],
    "diagonal": [(SeasonalGBM(), SeasonalGBM()), (Tanh(), NoisyCircle())],
    "commutative": [(TwoAssets(), TwoAssets())],
    "general": [(TwoTurns(), TwoTurns())],
}


def problems(scheme: Scheme, quick: bool) -> list[tuple[str, Any, Any]]:
    """(kind, strong problem, weak problem) for each row of a scheme."""
    if scheme.name == "unadjusted_langevin":
        return [("additive", OVERDAMPED, OVERDAMPED_GAUSSIAN)]
    if scheme.name == "baoab":
        return [("additive", UNDERDAMPED, UNDERDAMPED_GAUSSIAN)]
    if scheme.noise == ("none",):
        return [("none", Cubic(), Cubic())]
    kinds = [k for k, of in KINDS_OF.items() if set(of) & set(scheme.noise)]
    rows = [(kind, *pair) for kind in kinds for pair in BY_KIND[kind]]
    if scheme.name == "sri":
        rows = [(kind, of, QuietCircle() if kind == "diagonal" else weak) for kind, of, weak in rows]
    if scheme.name == "tamed_euler":  # tamed steps are not linear
        torus = {"commutative": (TwoAssets(), CommutingTorus()), "general": (TwoTurns(), Torus())}
        torus["additive"] = (Circle(), Circle(1.6))  # |drift| is to be smooth
        rows = [(kind, *torus.get(kind, pair)) for kind, *pair in rows if pair[1].name != "seasonal GBM"]
    elif quick:
        rows = [row for row in rows if row[1].name != "tanh"]
    return rows


KINDS_OF = {
    "additive": ("additive", "diagonal"), "diagonal": ("diagonal",), "commutative": ("general",),
    "general": ("general",),
}  # fmt: skip


def ode_end(process: Any, end: float = END) -> float:
    """X at the end, where there is no noise."""
    solution: Any = integrate.solve_ivp(
        lambda t, x: process.drift(x, t), (0.0, end), process.start, method="DOP853", rtol=1e-13, atol=1e-14
    )
    return float(solution.y[0, -1])


def ode_order(scheme: Scheme, process: Any) -> dict[str, Any]:
    """The slope of the error on an ordinary differential equation."""
    exact, errors, steps = ode_end(process), [], 2 ** np.arange(3, 8)
    for n in steps:
        end = sde.simulate(
            process, process.start[0], (0.0, END), n_steps=int(n), n_paths=1, method=scheme.name, workers=1
        ).final
        errors.append(abs(float(end[0]) - exact))
    return interval(END / steps, errors, 1.0)


def measure(scheme: Scheme, kind: str, of_strong: Any, of_weak: Any, strong: Strong, quick: bool) -> dict[str, Any]:
    """One row."""
    orders = stated(scheme, kind)
    if kind == "none":
        found: dict[str, Any] | None = ode_order(scheme, of_strong)
        weak = found
    else:
        found = None if scheme.law_only else strong.measure(scheme.name, of_strong)
        weak = weak_order(scheme, of_weak, quick)
    linear = getattr(of_weak, "linear", None) is not None
    compare = (scheme.law_only or scheme.name == "baoab") and linear
    return {
        "scheme": scheme.name, "noise": kind, "strong_problem": None if scheme.law_only else of_strong.name,
        "weak_problem": of_weak.name, "stated": orders, "strong": found, "weak": weak,
        "z": paths_against_recursion(scheme, of_weak) if compare else None,
        "ok": verdict(found, orders[0]) and verdict(weak, orders[1]),
    }  # fmt: skip


def printed(row: dict[str, Any]) -> str:
    """A row as text."""

    def part(order: float, found: dict[str, Any] | None) -> str:
        if found is None:
            return f"{'law only':>20}"
        return f"{order:>6.1f}{found['slope']:>8.3f} ±{found['half']:.3f}"

    (strong, weak), names = row["stated"], [row["strong_problem"], row["weak_problem"]]
    problem = " / ".join(dict.fromkeys(name for name in names if name))
    z = "" if row["z"] is None else f"  paths: z {row['z']:.1f}"
    fate = "ok" if row["ok"] else "OFF"
    left = f"{row['scheme']:<21}{row['noise']:<12}{problem:<44}"
    return f"{left}{part(strong, row['strong'])}{part(weak, row['weak'])}  {fate}{z}"


# ---- schemes without a fixed-step order ---------------------------------------------------------------------------


def exact_laws(n: int) -> list[dict[str, Any]]:
    """The Kolmogorov-Smirnov test of exact steps against closed forms."""
    ou, gbm, wiener = sde.OrnsteinUhlenbeck(1.7, 0.4, 0.9), sde.GeometricBrownian(0.3, 0.5), sde.Wiener(0.7)
    cir, t, x0 = sde.CoxIngersollRoss(1.5, 0.9, 0.6), 1.3, 1.2

    def normal(process: Any) -> Callable[[Any], Any]:
        mean, spread = float(process.mean(t, x0)), math.sqrt(float(process.variance(t, x0)))
        return lambda x: special.ndtr((x - mean) / spread)

    laws = [
        (ou, normal(ou)), (wiener, normal(wiener)), (cir, lambda x: cir.cdf(x, t, x0)),
        (gbm, lambda x: special.ndtr((np.log(x / x0) - (0.3 - 0.125) * t) / (0.5 * math.sqrt(t)))),
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for process, cdf in laws:
        for n_steps in (1, 3):
            x = sde.simulate(process, x0, (0, t), n_steps=n_steps, n_paths=n, method="exact", seed=n_steps).final
            test = stats.kstest(x, cdf)
            rows.append(
                {"process": type(process).__name__, "steps": n_steps, "n": n, "sqrt_n_D": math.sqrt(n) * test.statistic,
                 "p": float(test.pvalue)}
            )  # fmt: skip
    for row in rows:
        row["ok"] = row["p"] > 0.01 / len(rows)
    return rows


def unadjusted_bias() -> dict[str, Any]:
    """The stationary variance of the unadjusted Langevin algorithm on N(0, 1): 1/(1 − h/2), from its own step."""
    scheme, steps = SCHEMES["unadjusted_langevin"], 2.0 ** -np.arange(3, 9)
    biases = []
    for h in steps:
        points, w = nodes(scheme, OVERDAMPED_GAUSSIAN, h, True, 6)
        b, y = (advance(OVERDAMPED_GAUSSIAN, scheme, np.full((6, 1), x), 0.0, h, points)[:, 0] for x in (0.0, 1.0))
        biases.append(w @ b**2 / (1.0 - w @ (y - b) ** 2) - 1.0)
    found = interval(steps, biases, 1.0)
    off = float(np.abs(np.array(biases) / (1.0 / (1.0 - steps / 2.0) - 1.0) - 1.0).max())
    return {**found, "off_closed_form": off, "ok": verdict(found, 1.0) and off < 1e-9}


def invariance(n: int) -> list[dict[str, Any]]:
    """Moments of a double-well target after MALA steps from it, in standard errors; beside them without the test."""
    target = sde.DoubleWell(1.0, 0.4).stationary()
    process = sde.Langevin(target)
    x = np.linspace(-4.0, 4.0, 20001)
    p = np.exp(target.log_density(x[:, None] if target.dim is not None else x)).ravel()
    exact = [float(np.sum(x**k * p) / np.sum(p)) for k in (1, 2, 4)]
    rows = []
    for h in (0.01, 0.03, 0.1, 0.2):
        row: dict[str, Any] = {"h": h, "n": n}
        for method in ("mala", "unadjusted_langevin"):
            if method == "unadjusted_langevin" and h > 0.05:
                row[method] = None  # paths that leave the wells blow up
                continue
            end = sde.simulate(process, target, (0.0, 20 * h), n_steps=20, n_paths=n, method=method, seed=5, workers=1)
            q, powers = end.final.ravel(), zip((1, 2, 4), exact, strict=True)
            row[method] = [float((np.mean(q**k) - e) / (np.std(q**k) / math.sqrt(n))) for k, e in powers]
            if end.steps_rejected is not None:
                row["acceptance"] = float(1.0 - end.steps_rejected.sum() / (20 * n))
        row["ok"] = max(abs(z) for z in row["mala"]) < 3.0
        rows.append(row)
    return rows


def stationary_positions(n: int) -> dict[str, Any]:
    """The bias of E q² on a double well under BAOAB, time averages of many paths."""
    target = sde.DoubleWell(1.0, 1.0).stationary()
    x = np.linspace(-4.0, 4.0, 20001)
    p = np.exp(target.log_density(x[:, None])).ravel()
    exact = float(np.sum(x**2 * p) / np.sum(p))
    process = sde.UnderdampedLangevin(target, 1.0)
    rows = []
    for h in (0.25, 0.2, 0.15):
        n_steps = round(40.0 / h)
        rng = np.random.default_rng(3)
        start = np.stack([target.sample(n, 4).ravel(), rng.standard_normal(n)], axis=1)
        q = sde.simulate(process, start, (0.0, n_steps * h), n_steps=n_steps, method="baoab", save=1, seed=6, workers=1)
        mean = (q.x[:, n_steps // 4 :, 0] ** 2).mean(axis=1)
        rows.append({"h": h, "bias": float(mean.mean() - exact), "error": float(mean.std() / math.sqrt(n))})
    return {"exact": exact, "rows": rows}


def adaptive(n: int) -> list[dict[str, Any]]:
    """Root-mean-square error against tolerance, for the adaptive methods that there are."""
    found = []
    runs: list[tuple[str, Any, float, int, int]] = [
        ("adaptive_sri", Tanh(), END, 5, 4), ("dopri5", Cubic(), 20.0, 9, 1),
    ]  # fmt: skip
    for method, problem, end, finest, base in runs:
        if method not in SCHEMES:
            continue
        tolerances = 10.0 ** -np.arange(finest - 3.0, finest + 0.1, 0.5)
        if method == "adaptive_sri":
            exact = problem.solution(sde.brownian_increments(3, n, (0, end), base, n=1, dim=1)[:, 0, 0])
        else:
            exact = np.array([ode_end(problem, end)])
        errors, steps = [], []
        for tol in tolerances:
            r = sde.simulate(
                problem, problem.start[0], (0.0, end), n_steps=base, n_paths=len(exact), method=method, rtol=tol,
                atol=tol, seed=3, workers=1,
            )  # fmt: skip
            assert r.steps_taken is not None
            assert r.steps_rejected is not None
            errors.append(float(np.sqrt(np.mean((r.final - exact) ** 2))))
            steps.append(float((r.steps_taken + r.steps_rejected).mean()))
        found.append(
            {
                "scheme": method, "problem": problem.name, "tolerances": tolerances.tolist(), "errors": errors,
                "steps": steps, "against_tolerance": interval(tolerances, errors, 0.5),
                "against_steps": interval(1.0 / np.array(steps), errors, 0.5),
            }
        )  # fmt: skip
    return found


def others(quick: bool, chosen: set[str], out: Any) -> dict[str, Any]:
    """Everything that is not a fixed-step order, printed."""
    share = 4 if quick else 1
    report: dict[str, Any] = {}
    if "exact" in chosen:
        report["exact"] = exact_laws(400_000 // share)
        print("\nexact steps against the law: √n D of Kolmogorov and Smirnov, p (1 and 3 steps)", file=out)
        for row in report["exact"]:
            fate = "ok" if row["ok"] else "OFF"
            print(f"  {row['process']:<20}{row['steps']:>2}{row['sqrt_n_D']:>8.3f}{row['p']:>8.3f}  {fate}", file=out)
    if "unadjusted_langevin" in chosen:
        report["unadjusted"] = row = unadjusted_bias()
        fate = "ok" if row["ok"] else "OFF"
        print(
            f"\nunadjusted_langevin on N(0, 1): bias of the variance, order {row['slope']:.3f} ±{row['half']:.3f}; "
            f"off 1/(1 − h/2) by {row['off_closed_form']:.1e} of it  {fate}", file=out,
        )  # fmt: skip
    if "mala" in chosen:
        report["mala"] = invariance(400_000 // share)
        print("\nmala from its law, 20 steps: E x, E x², E x⁴ off by (standard errors); unadjusted beside it", file=out)
        for row in report["mala"]:
            beside = row["unadjusted_langevin"]
            plain = "blows up" if beside is None else " ".join(f"{z:7.1f}" for z in beside)
            mala = " ".join(f"{z:5.1f}" for z in row["mala"])
            fate = "ok" if row["ok"] else "OFF"
            print(f"  h {row['h']:<6}accepts {row['acceptance']:.3f}  {mala}   ({plain})  {fate}", file=out)
    if "baoab" in chosen:
        report["baoab"] = stationary_positions(20_000 // share)
        print(f"\nbaoab on a double well: E q² = {report['baoab']['exact']:.5f}, bias ± standard error", file=out)
        for row in report["baoab"]["rows"]:
            print(f"  h {row['h']:<6}{row['bias']:>10.5f} ± {row['error']:.5f}", file=out)
    if chosen & {"adaptive_sri", "dopri5"}:
        report["adaptive"] = adaptive(1000 // share)
        for row in report["adaptive"]:
            a, b = row["against_tolerance"], row["against_steps"]
            print(
                f"\n{row['scheme']} on {row['problem']}: error ~ tolerance^({a['slope']:.2f} ±{a['half']:.2f}) "
                f"~ steps^(−{b['slope']:.2f} ±{b['half']:.2f})", file=out,
            )  # fmt: skip
            print("  " + "  ".join(f"{t:.0e}: {e:.1e}" for t, e in zip(row["tolerances"], row["errors"],
                                                                      strict=True)), file=out)  # fmt: skip
    return report


# ---- the picture --------------------------------------------------------------------------------------------------


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Errors against step sizes, a column for each kind of noise, with the stated slopes in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    kinds = [kind for kind in BY_KIND if any(row["noise"] == kind for row in rows)]
    if not kinds:
        return
    fig, axes = plt.subplots(2, len(kinds), figsize=(4.2 * len(kinds), 9.0), squeeze=False, layout="constrained")
    names = list(dict.fromkeys(row["scheme"] for row in rows))
    for (line, column), ax in np.ndenumerate(axes):
        sense, kind = ("strong", "weak")[line], kinds[column]
        drawn: set[str] = set()
        tops: dict[float, tuple[float, float]] = {}
        for row in rows:
            found, name = row[sense], row["scheme"]
            if row["noise"] != kind or found is None or name in drawn:
                continue
            drawn.add(name)
            h, errors, i = np.array(found["h"]), np.array(found["errors"]), names.index(name)
            ax.loglog(h, errors, label=f"{name} {found['slope']:.2f}", lw=1.2, ms=4, marker="osD^v*"[i % 6],
                      color=plt.get_cmap("tab20")(i % 20))  # fmt: skip
            order = row["stated"][line]
            top = (float(h.max()), 1.6 * float(errors[h.argmax()]))
            tops[order] = max(tops.get(order, (0.0, 0.0)), top, key=lambda point: point[1])
        for order, (h0, e0) in tops.items():
            ax.loglog([h0, h0 / 32.0], [e0, e0 / 32.0**order], color="0.6", ls="--", lw=1)
            ax.annotate(f"{order:g}", (h0 / 32.0, e0 / 32.0**order), color="0.4", fontsize=9, va="bottom")
        ax.set_title(f"{sense}, {kind} noise", fontsize=10)
        ax.set(xlabel="step", ylabel="error")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(True, which="major", color="0.92")
        if drawn:
            ax.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    fig.savefig(path, dpi=130)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders of convergence, stated and measured.")
    parser.add_argument("--quick", action="store_true", help="fewer paths, levels and problems")
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the tables to stderr)")
    parser.add_argument("--plot", metavar="PATH", help="draw the errors")
    parser.add_argument("--schemes", nargs="+", metavar="NAME", help="these schemes only")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    known = [row["name"] for row in sde.methods()]
    unknown = set(options.schemes or ()) - set(known)
    if unknown:
        parser.error(f"no scheme {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = options.schemes or known
    began = time.perf_counter()
    strong, rows = Strong(options.quick), []
    head = f"{'scheme':<21}{'noise':<12}{'problem (strong / weak)':<44}"
    print(f"{head}{'strong: stated, found':>21}{'weak: stated, found':>20}", file=out)
    for name in chosen:
        scheme = SCHEMES[name]
        if scheme.adaptive or name in ("exact", "mala"):
            continue
        for kind, of_strong, of_weak in problems(scheme, options.quick):
            rows.append(measure(scheme, kind, of_strong, of_weak, strong, options.quick))
            print(printed(rows[-1]), file=out, flush=True)
    good = sum(row["ok"] for row in rows)
    print(f"{good} of {len(rows)} rows: the interval contains the stated order and excludes a quarter around", file=out)
    rest = others(options.quick, set(chosen), out)
    seconds = time.perf_counter() - began
    print(f"\n{seconds:.0f} s", file=out)
    if options.plot:
        draw(rows, options.plot)
    report = {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "numpy": np.__version__, "quick": options.quick, "seconds": seconds, "rows": rows, **rest,
    }  # fmt: skip
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
