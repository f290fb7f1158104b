"""Error against CPU time, strong and weak: sdesim beside torchsde, diffrax and sdeint on three problems.

    python benchmarks/work_precision.py                  every contender that is installed; some minutes
    python benchmarks/work_precision.py --quick          few step sizes and paths; seconds without the peers
    python benchmarks/work_precision.py --json -         JSON on stdout, the tables on stderr
    python benchmarks/work_precision.py --plot out.png   the work-precision picture

The problems, over 0 <= t <= 1:

    gbm   dX = 0.5 X dt + 0.8 X dW, X_0 = 1. The truth is x0 exp((μ − σ²/2) t + σ W_t).
    ou    dX = −100 X dt + 10 dW, X_0 = 1: stiff, explicit steps need more than 50. The truth is the stochastic
          integral ∫ e^{−θ(t−s)} dW_s, on 8192 steps, in each of which W is taken by its increment and its area.
    well  dX = 4X(1 − X²) dt + dW, X_0 = ½. The truth is SRA1 on 8192 steps (strong), written here in NumPy;
          and a spectral solution of the backward equation (weak).

What an error is. Strong: E|X_h − X|, the mean over 1000 Brownian paths (sdeint: the first 200 of them; of the well up
to 2048 steps, a quarter of the truth's). **All contenders follow the same paths**: each
is handed, through the door that it has for this (increments of sdesim, a Brownian path object of torchsde and diffrax,
dW of sdeint), the increments and space-time areas of one fine path, so that no difference between two curves is chance.
Weak: |E X_h² − E X²|, **without sampling**: one step of the contender, from each node of a grid and along each node of
a Gauss-Hermite rule for its noise, is a transition operator; its n-th power is what n steps do. (Of a linear problem
the operator is two numbers, E[X_h² | x] = A x² + B.) Two- and three-point schemes are enumerated; their last four steps
are Gaussian, as in simulate().

What the time is. The job is 100,000 paths; each contender does it in batches of the size that suits it best, and one
batch is timed with the contender's own noise: CPU seconds, printed for 10,000 paths, in a process of its own, with one
thread, after a run that compiles, the best of the repeats. They include all noise that the scheme needs, and nothing of
the measurement of errors. The peers get their quickest noise: diffrax UnsafeBrownianPath, which cannot repeat a path on
other steps; torchsde a BrownianInterval told the step. float64 for all.

    sdesim    one call; exact steps (ou) are shown and left out of the ratios: one of them has no weak error
    torchsde  batches of 50,000; srk with noise_type "additive" where the noise is
    diffrax   batches of 20,000, one solve of a batch with a diagonal operator (ItoMilstein: vmap over the paths)
    sdeint    a Python loop over paths, which is the only way it has; 20 paths are timed

The ratio. At an error e, the cost of a contender is that of its cheapest scheme, interpolated in the logarithms of
both. Printed: peers / sdesim at the smallest error that each peer reaches, and the least ratio over all its errors.
On ou the implicit trapezoid has the stationary variance of a linear problem right at every step size, so that only its
memory of x0 is wrong; the curve of weak_second shows what a scheme without that gift does.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from throughput import ENVIRONMENT, end_with_parent

Array = np.ndarray

MU, VOLATILITY = 0.5, 0.8  # gbm
THETA, SIGMA = 100.0, 10.0  # ou
TEMPERATURE = 0.5  # well: √(2T) = 1
FINE = 8192  # steps of the paths that everybody follows
# The most steps whose strong error the truth can tell: that of the well comes from a scheme, on FINE steps itself.
TOLD = {"gbm": FINE, "ou": FINE, "well": FINE // 4}


@dataclasses.dataclass(frozen=True)
class Problem:
    """dX = drift dt + diffusion dW from x0 over [0, 1]; steps: the numbers of steps; ours go on, up to FINE."""

    title: str
    x0: float
    additive: bool
    linear: bool
    steps: tuple[int, ...]

    def ours(self) -> tuple[int, ...]:
        """Numbers of steps for sdesim, which reaches further in the same time."""
        further = (self.steps[-1] * 2**k for k in range(1, 5))
        return (*self.steps, *(n for n in further if n <= FINE))


PROBLEMS = {
    "gbm": Problem("geometric Brownian motion", 1.0, False, True, tuple(2**k for k in range(2, 10))),
    "ou": Problem("stiff Ornstein-Uhlenbeck, θ = 100", 1.0, True, True, tuple(2**k for k in range(6, 11))),
    "well": Problem("double well", 0.5, True, False, tuple(2**k for k in range(3, 10))),
}
SCHEMES = {
    ("sdesim", "gbm"): ("euler_maruyama", "milstein", "sri", "weak_euler", "weak_second"),
    ("sdesim", "ou"): ("euler_maruyama", "sra", "implicit_euler", "implicit_trapezoid", "weak_second", "exact"),
    ("sdesim", "well"): ("euler_maruyama", "heun", "sra", "weak_euler", "weak_second"),
    ("torchsde", "gbm"): ("euler", "milstein", "srk"),
    ("torchsde", "ou"): ("euler", "srk"),
    ("torchsde", "well"): ("euler", "srk"),
    ("diffrax", "gbm"): ("Euler", "ItoMilstein", "SlowRK"),
    ("diffrax", "ou"): ("Euler", "SRA1", "ShARK"),
    ("diffrax", "well"): ("Euler", "SRA1", "ShARK"),
    ("sdeint", "gbm"): ("itoEuler", "itoSRI2"),
    ("sdeint", "ou"): ("itoEuler", "itoSRI2"),
    ("sdeint", "well"): ("itoEuler", "itoSRI2"),
}
CONTENDERS = ("sdesim", "torchsde", "diffrax", "sdeint")
LAW_ONLY = {"weak_euler", "weak_second"}
AREAS = {"sri", "sra", "srk", "SlowRK", "SRA1", "ShARK"}  # schemes that take ∫ W ds besides W
UNCONDITIONAL = {"implicit_euler", "implicit_trapezoid", "exact"}  # stiff: coarse steps serve as well


def drift(problem: str, x: Any) -> Any:
    if problem == "gbm":
        return MU * x
    return -THETA * x if problem == "ou" else 4.0 * x * (1.0 - x * x)


def diffusion(problem: str, x: Any) -> Any:
    """Of an additive problem, a number."""
    return VOLATILITY * x if problem == "gbm" else SIGMA if problem == "ou" else math.sqrt(2 * TEMPERATURE)


# ---- the truth ---------------------------------------------------------------------------------------------


@functools.cache
def fine_noise(n_paths: int) -> tuple[Array, Array]:
    """Increments W ~ N(0, h) and areas H = (1/h) ∫ (W_s − s W/h) ds ~ N(0, h/12) over the fine steps, (paths, FINE)."""
    rng = np.random.default_rng(20)
    w, area = rng.standard_normal((2, n_paths, FINE))
    return w / math.sqrt(FINE), area / math.sqrt(12 * FINE)


def noise_of(n_paths: int, n_steps: int) -> tuple[Array, Array]:
    """W and H of the same paths over n_steps steps: h (W/2 + H) = ∫ (W_s − W_0) ds adds up over the parts."""
    w, area = (a.reshape(n_paths, n_steps, -1) for a in fine_noise(n_paths))
    total = w.sum(axis=2)
    mean = (np.cumsum(w, axis=2) - 0.5 * w + area).mean(axis=2)
    return total, mean - 0.5 * total


@functools.cache
def end_states(problem: str, n_paths: int) -> Array:
    """The solution at t = 1 along the fine paths."""
    w, area = fine_noise(n_paths)
    h = 1.0 / FINE
    if problem == "gbm":
        return np.exp(MU - 0.5 * VOLATILITY**2 + VOLATILITY * w.sum(axis=1))
    x = np.full(n_paths, PROBLEMS[problem].x0)
    if problem == "ou":
        # ∫ e^{−θ(h−s)} dW_s = W − θ ∫ e^{−θ(h−s)} W_s ds, W_s replaced by (s/h) W + 6 (s/h)(1 − s/h) H
        y = THETA * h
        decay = math.exp(-y)
        on_w, on_area = (1 - decay) / y, -6 * (y * (1 + decay) - 2 * (1 - decay)) / y**2
        for k in range(FINE):
            x = decay * x + SIGMA * (on_w * w[:, k] + on_area * area[:, k])
        return x
    g = diffusion(problem, x)
    for k in range(FINE):
        mean = 0.5 * w[:, k] + area[:, k]
        f = drift(problem, x)
        x = x + h / 3 * (f + 2 * drift(problem, x + 0.75 * h * f + 1.5 * g * mean)) + g * w[:, k]
    return x


@functools.cache
def second_moment(problem: str) -> float:
    """E X² at t = 1."""
    if problem == "gbm":
        return math.exp(2 * MU + VOLATILITY**2)
    if problem == "ou":
        return math.exp(-2 * THETA) - SIGMA**2 / (2 * THETA) * math.expm1(-2 * THETA)
    # With ψ = u e^{−U/2T} the backward equation is ψ' = T ψ'' − (U'²/4T − U''/2) ψ, symmetric: sinc functions on a
    # uniform grid converge exponentially (Colbert & Miller 1992).
    step = 0.05
    x = step * np.arange(-60, 61)
    slope, curvature = 4 * x * (x * x - 1), 12 * x * x - 4
    gap = np.arange(len(x))[:, None] - np.arange(len(x))
    kinetic = np.where(gap == 0, math.pi**2 / 3, 2.0 * (-1.0) ** gap / np.where(gap == 0, 1, gap) ** 2)
    matrix = TEMPERATURE * kinetic / step**2 + np.diag(slope**2 / (4 * TEMPERATURE) - curvature / 2)
    rates, modes = np.linalg.eigh(matrix)
    weight = np.exp(-((x * x - 1) ** 2) / (2 * TEMPERATURE))
    psi = modes @ (np.exp(-rates) * (modes.T @ (x * x * weight)))
    start = int(np.argmin(abs(x - PROBLEMS[problem].x0)))
    return float(psi[start] / weight[start])


# ---- the weak error of a chain of steps, without sampling --------------------------------------------------

# One step: (x (n,), w (n,), area (n,), dt) -> (n,)
Step = Callable[[Array, Array, Array, float], Array]
GRID = 0.025 * np.arange(-120, 121)  # of the well; beyond ±3 its density is below e^-60


def gaussian_nodes(n: int, variance: float) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes * math.sqrt(variance), weights / weights.sum()


def interpolation(x: Array) -> tuple[Array, Array]:
    """Indices and weights (n, 8) that interpolate values on GRID at x by polynomials of degree 7."""
    place = (np.clip(x, GRID[0], GRID[-1]) - GRID[0]) / (GRID[1] - GRID[0])
    first = np.clip(np.floor(place).astype(int) - 3, 0, len(GRID) - 8)
    local = (place - first)[:, None]
    weights = np.ones((len(x), 8))
    for j in range(8):
        for k in range(8):
            if k != j:
                weights[:, j] *= (local[:, 0] - k) / (j - k)
    return first[:, None] + np.arange(8), weights


def transfer(problem: str, step: Step, dt: float, law: str, areas: bool) -> Callable[[Array], Array]:
    """u ↦ E[u(X_dt) | X_0 = ·]: on GRID, or of u = a x² + c for linear problems on (a, c)."""
    if law == "gaussian":
        w, on_w = gaussian_nodes(20, dt)
    else:
        root = math.sqrt(3 * dt) if law == "three_point" else math.sqrt(dt)
        w = np.array([-root, 0.0, root]) if law == "three_point" else np.array([-root, root])
        on_w = np.array([1 / 6, 2 / 3, 1 / 6]) if law == "three_point" else np.array([0.5, 0.5])
    area, on_area = gaussian_nodes(10 if areas else 1, dt / 12)
    starts = np.array([0.0, 1.0]) if PROBLEMS[problem].linear else GRID
    x, w, area = (a.ravel() for a in np.meshgrid(starts, w, area, indexing="ij"))
    weights = np.outer(on_w, on_area).ravel()
    ends = step(x, w, area, dt)
    if PROBLEMS[problem].linear:
        at_0, at_1 = (ends**2).reshape(2, -1) @ weights
        return lambda u: np.array([u[0] * (at_1 - at_0), u[1] + u[0] * at_0])
    columns, values = interpolation(ends)
    matrix = np.zeros((len(GRID), len(GRID)))
    rows = np.repeat(np.arange(len(GRID)), len(weights))
    np.add.at(matrix, (rows[:, None], columns), values * np.tile(weights, len(GRID))[:, None])
    return lambda u: matrix @ u


def weak_error(problem: str, scheme: str, step: Step, n_steps: int) -> float:
    """E X_h² − E X² of n_steps steps."""
    dt, x0 = 1.0 / n_steps, PROBLEMS[problem].x0
    last = transfer(problem, step, dt, "gaussian", scheme in AREAS)
    law = {"weak_euler": "two_point", "weak_second": "three_point"}.get(scheme)
    first = transfer(problem, step, dt, law, False) if law else last
    u = np.array([1.0, 0.0]) if PROBLEMS[problem].linear else GRID**2
    for k in range(n_steps):
        u = last(u) if k < 4 else first(u)
    value = u[0] * x0**2 + u[1] if PROBLEMS[problem].linear else u[int(np.argmin(abs(GRID - x0)))]
    return float(value) - second_moment(problem)


# ---- the contenders ----------------------------------------------------------------------------------------


class Contender:
    """A scheme of a package on a problem: along given noise for the errors, with its own for the time."""

    n_paths = 100_000  # of a timed run: the batch that suits the contender

    def __init__(self, problem: str, scheme: str, quick: bool):
        self.problem, self.scheme = problem, scheme
        if quick:
            self.n_paths = max(self.n_paths // 10, 1)

    def follow(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        """End states of paths from x0 (n,) along increments w and areas (n, steps) over steps of length dt."""
        raise NotImplementedError

    def step(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        """One step."""
        return self.follow(x0, w[:, None], area[:, None], dt)

    def run(self, n_steps: int, seed: int) -> Array:
        """End states of n_paths paths from x0 with noise of its own."""
        raise NotImplementedError


class Sdesim(Contender):
    def __init__(self, problem: str, scheme: str, quick: bool):
        import sdesim as sde

        super().__init__(problem, scheme, quick)
        self.simulate = sde.simulate
        self.process: Any = {
            "gbm": sde.GeometricBrownian(mu=MU, sigma=VOLATILITY),
            "ou": sde.OrnsteinUhlenbeck(theta=THETA, mu=0.0, sigma=SIGMA),
            "well": sde.DoubleWell(barrier=1.0, temperature=TEMPERATURE),
        }[problem]
        if scheme in LAW_ONLY:
            self.check_step(sde.Wiener())

    def follow(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        noise = np.stack([w, dt * (0.5 * w + area)], axis=2) if self.scheme in AREAS else w[:, :, None]
        return self.simulate(
            self.process, x0, (0.0, w.shape[1] * dt), n_steps=w.shape[1], method=self.scheme, increments=noise,
            workers=1, seed=1, on_nonfinite="ignore",
        ).final  # fmt: skip

    def step(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        if self.scheme not in LAW_ONLY:
            return super().step(x0, w, area, dt)
        # these take no given increments; the same formula in NumPy, which check_step compares
        f, g, root = drift(self.problem, x0), diffusion(self.problem, x0), math.sqrt(dt)
        if self.scheme == "weak_euler":
            return x0 + f * dt + g * w
        y = x0 + f * dt
        g_y, upper, lower = (diffusion(self.problem, x) for x in (y, x0 + g * root, x0 - g * root))
        return (
            x0 + 0.5 * (f + drift(self.problem, y + g * w)) * dt + 0.5 * (g + g_y) * w
            + 0.25 * (upper + lower - 2 * g) * w + 0.25 * (upper - lower) * (w * w - dt) / root
        )  # fmt: skip

    def check_step(self, wiener: Any) -> None:
        """One step of simulate() is Gaussian, with the increment of the stream."""
        x0 = np.linspace(0.5, 1.5, 64)
        run = functools.partial(self.simulate, t_span=(0.0, 0.1), n_steps=1, seed=5, workers=1)
        w = run(wiener, np.zeros(64)).final
        theirs = run(self.process, x0, method=self.scheme).final
        np.testing.assert_allclose(self.step(x0, w, w, 0.1), theirs, rtol=1e-12)

    def run(self, n_steps: int, seed: int) -> Array:
        return self.simulate(
            self.process, PROBLEMS[self.problem].x0, (0.0, 1.0), n_steps=n_steps, n_paths=self.n_paths,
            method=self.scheme, seed=seed, workers=1, on_nonfinite="ignore",
        ).final  # fmt: skip


class Torchsde(Contender):
    n_paths = 50_000

    def __init__(self, problem: str, scheme: str, quick: bool):
        import torch
        import torchsde

        super().__init__(problem, scheme, quick)
        torch.set_num_threads(1)
        self.torch, self.torchsde = torch, torchsde
        matrix = scheme == "srk" and PROBLEMS[problem].additive

        class Coefficients(torch.nn.Module):
            noise_type, sde_type = "additive" if matrix else "diagonal", "ito"

            def f(self, t: Any, y: Any) -> Any:
                return drift(problem, y)

            def g(self, t: Any, y: Any) -> Any:
                g = diffusion(problem, y)
                g = torch.full_like(y, g) if isinstance(g, float) else g
                return g[:, :, None] if matrix else g

        self.coefficients = Coefficients()

        class Given(torchsde.BaseBrownian):
            """The noise of one table, at its steps."""

            def __init__(self, w: Any, area: Any, dt: float):
                self.w, self.u, self.dt = w, dt * (0.5 * w + area), dt

            def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
                k = round(float(ta) / self.dt)
                if abs(float(tb) - (k + 1) * self.dt) > 1e-9 or return_A:
                    raise ValueError(f"asked for W from {float(ta)} to {float(tb)}, which is no step of {self.dt}")
                return (self.w[:, k : k + 1], self.u[:, k : k + 1]) if return_U else self.w[:, k : k + 1]

            def __repr__(self) -> str:
                return "Given()"

            dtype, device = torch.float64, torch.device("cpu")
            levy_area_approximation = "space-time"

            @property
            def shape(self) -> Any:
                return (len(self.w), 1)

        self.given = Given

    def solve(self, y0: Any, horizon: float, dt: float, noise: Any) -> Array:
        times = self.torch.tensor([0.0, horizon], dtype=self.torch.float64)
        with self.torch.no_grad():
            return self.torchsde.sdeint(self.coefficients, y0, times, bm=noise, dt=dt, method=self.scheme)[-1, :, 0]

    def follow(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        noise = self.given(self.torch.tensor(w), self.torch.tensor(area), dt)
        return np.asarray(self.solve(self.torch.tensor(x0)[:, None], w.shape[1] * dt, dt, noise))

    def run(self, n_steps: int, seed: int) -> Array:
        y0 = self.torch.full((self.n_paths, 1), PROBLEMS[self.problem].x0, dtype=self.torch.float64)
        dt = 1.0 / n_steps
        noise = self.torchsde.BrownianInterval(
            t0=0.0, t1=1.0, size=y0.shape, dtype=y0.dtype, entropy=seed, dt=dt, pool_size=24,
            levy_area_approximation="space-time" if self.scheme == "srk" else "none",
        )  # fmt: skip
        return np.asarray(self.solve(y0, 1.0, dt, noise))


class Diffrax(Contender):
    n_paths = 20_000

    def __init__(self, problem: str, scheme: str, quick: bool):
        import diffrax
        import jax
        import jax.numpy as jnp
        import lineax

        super().__init__(problem, scheme, quick)
        jax.config.update("jax_enable_x64", True)
        kind = diffrax.SpaceTimeLevyArea if scheme in AREAS else diffrax.BrownianIncrement
        vmapped = scheme == "ItoMilstein"

        class Given(diffrax.AbstractBrownianPath):
            """The noise of one table (steps, paths), at its steps."""

            w: Any
            area: Any
            dt: Any
            levy_area: Any = kind
            t0: Any = 0.0
            t1: Any = math.inf

            def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
                k = jnp.rint(t0 / self.dt).astype(int)
                if not use_levy:
                    return self.w[k]
                dt = jnp.asarray(t1 - t0)
                return kind(dt, self.w[k], self.area[k]) if scheme in AREAS else kind(dt, self.w[k])

        def slope(t: Any, y: Any, args: Any) -> Any:
            # SlowRK solves the Stratonovich equation, whose drift is less by ½ σ σ'
            return drift(problem, y) - (0.5 * VOLATILITY**2 * y if scheme == "SlowRK" else 0.0)

        def kick(t: Any, y: Any, args: Any) -> Any:
            g = diffusion(problem, y) * jnp.ones_like(y)
            return g if vmapped else lineax.DiagonalLinearOperator(g)

        def solve(y0: Any, noise: Any, horizon: Any, dt: Any) -> Any:
            return diffrax.diffeqsolve(
                diffrax.MultiTerm(diffrax.ODETerm(slope), diffrax.ControlTerm(kick, noise)),
                getattr(diffrax, scheme)(), t0=0.0, t1=horizon, dt0=dt, y0=y0, max_steps=8192,
                adjoint=diffrax.ForwardMode(), saveat=diffrax.SaveAt(t1=True),
            ).ys[-1]  # fmt: skip

        def along(y0: Any, w: Any, area: Any, horizon: Any, dt: Any) -> Any:
            return solve(y0, Given(w, area, dt), horizon, dt)

        def alone(y0: Any, key: Any, horizon: Any, dt: Any) -> Any:
            shape = jax.ShapeDtypeStruct(y0.shape, jnp.float64)
            return solve(y0, diffrax.UnsafeBrownianPath(shape, key, levy_area=kind), horizon, dt)

        self.along = jax.jit(jax.vmap(along, (0, 1, 1, None, None)) if vmapped else along)
        self.alone = jax.jit(jax.vmap(alone, (0, 0, None, None)) if vmapped else alone)
        self.random, self.vmapped = jax.random, vmapped

    def follow(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        # one shape for all numbers of steps, so that it is compiled once
        n = w.shape[1]
        room = 1 if n == 1 else PROBLEMS[self.problem].steps[-1]
        tables = (np.pad(a.T, ((0, room - n), (0, 0))) for a in (w, area))
        return np.asarray(self.along(x0, *tables, n * dt, dt))

    def run(self, n_steps: int, seed: int) -> Array:
        x0, key = np.full(self.n_paths, PROBLEMS[self.problem].x0), self.random.key(seed)
        key = self.random.split(key, self.n_paths) if self.vmapped else key
        return np.asarray(self.alone(x0, key, 1.0, 1.0 / n_steps))


class Sdeint(Contender):
    n_paths = 20

    def __init__(self, problem: str, scheme: str, quick: bool):
        import sdeint

        super().__init__(problem, scheme, quick)
        self.sdeint = sdeint

    def path(self, x0: float, times: Array, **noise: Any) -> float:
        integrate = getattr(self.sdeint, self.scheme)
        return float(integrate(self.drift, self.diffusion, x0, times, **noise)[-1, 0])

    def drift(self, y: Any, t: float) -> Any:
        return drift(self.problem, y)

    def diffusion(self, y: Any, t: float) -> Any:
        return diffusion(self.problem, y)

    def follow(self, x0: Array, w: Array, area: Array, dt: float) -> Array:
        times = dt * np.arange(w.shape[1] + 1)
        ends = np.empty(len(x0))
        for i, x in enumerate(x0):
            noise = {"dW": w[i, :, None]}
            if self.scheme == "itoSRI2":
                noise["I"] = 0.5 * (w[i] ** 2 - dt)[:, None, None]
            ends[i] = self.path(float(x), times, **noise)
        return ends

    def run(self, n_steps: int, seed: int) -> Array:
        times = np.linspace(0.0, 1.0, n_steps + 1)
        rng = np.random.default_rng(seed)
        x0 = PROBLEMS[self.problem].x0
        return np.array([self.path(x0, times, generator=rng) for _ in range(self.n_paths)])


KINDS = {"sdesim": Sdesim, "torchsde": Torchsde, "diffrax": Diffrax, "sdeint": Sdeint}


# ---- measuring ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    n_steps: int
    cpu: float  # seconds for 10,000 paths
    strong: float | None
    weak: float | None


@dataclasses.dataclass
class Curve:
    """A scheme of a contender on a problem."""

    problem: str
    contender: str
    scheme: str
    points: list[Point]
    failed: str = ""


def numbers_of_steps(problem: str, contender: str, scheme: str, quick: bool) -> list[int]:
    steps = list(PROBLEMS[problem].steps if contender != "sdesim" else PROBLEMS[problem].ours())
    if contender == "sdeint":
        steps = [n for n in steps if n <= 256]
    if scheme in UNCONDITIONAL:
        steps = [1, 8, 16, 32, *steps]
    return steps[1::3] if quick else steps


def measure_curve(problem: str, contender: str, scheme: str, quick: bool, repeats: int) -> list[Point]:
    """Errors and CPU times of one scheme, in the process of its package."""
    solver = KINDS[contender](problem, scheme, quick)
    n_paths = 200 if quick or contender == "sdeint" else 1000
    points = []
    for n_steps in numbers_of_steps(problem, contender, scheme, quick):
        strong = None
        if scheme not in LAW_ONLY and n_steps <= TOLD[problem]:
            # the first n_paths of the same 1000 paths
            w, area = (a[:n_paths] for a in noise_of(200 if quick else 1000, n_steps))
            x0 = np.full(n_paths, PROBLEMS[problem].x0)
            truth = end_states(problem, 200 if quick else 1000)[:n_paths]
            strong = float(np.mean(abs(solver.follow(x0, w, area, 1.0 / n_steps) - truth)))
        weak = abs(weak_error(problem, scheme, solver.step, n_steps))
        points.append(Point(n_steps, math.inf, finite(strong), finite(weak)))
    solver.run(points[0].n_steps, 1)
    for repeat in range(repeats):
        for point in points:
            start = time.process_time()
            ends = solver.run(point.n_steps, 2 + repeat)
            seconds = time.process_time() - start
            assert len(ends) == solver.n_paths
            point.cpu = min(point.cpu, seconds * 10_000 / solver.n_paths)
    return points


def finite(error: float | None) -> float | None:
    """An error, or None where the steps blew up."""
    return error if error is not None and error < 1e3 else None


def measure(problems: list[str], contenders: list[str], quick: bool, repeats: int, log: Any) -> list[Curve]:
    os.environ.update(ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    installed = [name for name in contenders if importlib.util.find_spec(name) is not None]
    pools = {
        name: concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent)
        for name in installed
    }
    curves = []
    try:
        for problem in problems:
            for name in installed:
                for scheme in SCHEMES[name, problem]:
                    curve = Curve(problem, name, scheme, [])
                    curves.append(curve)
                    try:
                        work = pools[name].submit(measure_curve, problem, name, scheme, quick, repeats)
                        curve.points = work.result(timeout=900)
                    except Exception as error:
                        curve.failed = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
                        print(f"{problem} {name} {scheme} failed: {curve.failed}", file=log, flush=True)
    finally:
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)
    return curves


# ---- ratios ------------------------------------------------------------------------------------------------


def cost_at(points: list[tuple[float, float]], error: float) -> float:
    """The least cost that reaches an error, on the polygon through (error, cost) in logarithms; inf where none does."""
    cost = min((c for e, c in points if e <= error), default=math.inf)
    for (e0, c0), (e1, c1) in itertools.pairwise(points):
        low, high = min(e0, e1), max(e0, e1)
        if 0 < low <= error <= high and low < high:
            share = math.log(error / e0) / math.log(e1 / e0)
            cost = min(cost, c0 * (c1 / c0) ** share)
    return cost


@dataclasses.dataclass
class Ratio:
    """CPU time of a peer over that of sdesim at equal error."""

    problem: str
    measure: str
    peer: str
    error: float  # the smallest that the peer reaches
    peer_scheme: str
    scheme: str
    ratio: float  # at that error; 0 where sdesim does not reach it
    least: float  # over all errors of the peer
    least_error: float


def line_of(curve: Curve, measure: str) -> list[tuple[float, float]]:
    return [(e, p.cpu) for p in curve.points if (e := getattr(p, measure)) is not None]


def ratios(curves: list[Curve]) -> list[Ratio]:
    found = []
    for problem in dict.fromkeys(c.problem for c in curves):
        for measure in ("strong", "weak"):
            lines = {
                (c.contender, c.scheme): line
                for c in curves
                if c.problem == problem and c.scheme != "exact" and (line := line_of(c, measure))
            }

            def best(name: str, error: float, lines: Any = lines) -> tuple[float, str]:
                costs = [(cost_at(line, error), scheme) for (who, scheme), line in lines.items() if who == name]
                return min(costs, default=(math.inf, "none"))

            for peer in dict.fromkeys(who for who, _ in lines if who != "sdesim"):
                errors = [e for (who, _), line in lines.items() if who == peer for e, _ in line]
                smallest, largest = min(errors), max(errors)
                at = np.geomspace(smallest, largest, 200)
                at[0] = smallest
                values = [best(peer, e)[0] / best("sdesim", e)[0] for e in at]
                low = int(np.argmin(values))
                theirs, ours = best(peer, smallest)[1], best("sdesim", smallest)[1]
                row = (problem, measure, peer, smallest, theirs, ours, values[0], values[low], float(at[low]))
                found.append(Ratio(*row))
    return found


# ---- output ------------------------------------------------------------------------------------------------


def print_tables(curves: list[Curve], found: list[Ratio], out: Any) -> None:
    def number(value: float | None) -> str:
        return "" if value is None else "0" if value < 1e-13 else f"{value:.2e}"

    for problem in dict.fromkeys(c.problem for c in curves):
        title = f"\n{PROBLEMS[problem].title}: CPU seconds for 10,000 paths, one core; E|X_h − X|; |E X_h² − E X²|"
        print(title, file=out)
        print(f"{'':<30}{'steps':>7}{'CPU s':>11}{'strong':>11}{'weak':>11}", file=out)
        for curve in (c for c in curves if c.problem == problem):
            label = f"{curve.contender} {curve.scheme}"
            if curve.failed:
                print(f"{label:<30}failed: {curve.failed}", file=out)
            for p in curve.points:
                print(f"{label:<30}{p.n_steps:>7}{p.cpu:>11.2e}{number(p.strong):>11}{number(p.weak):>11}", file=out)
                label = ""
    if not found:
        return
    print("\nCPU time of the peer / CPU time of sdesim at equal error", file=out)
    head = f"{'':<14}{'peer':<22}{'its least error':>16}{'ratio there':>13}  {'sdesim by':<20}{'least ratio':>11}"
    print(head + "  at error", file=out)
    for r in found:
        peer = f"{r.peer} {r.peer_scheme}"
        print(
            f"{r.problem + ' ' + r.measure:<14}{peer:<22}{r.error:>16.2e}{r.ratio:>13.3g}  {r.scheme:<20}"
            f"{r.least:>11.3g}  {r.least_error:.1e}",
            file=out,
        )
    behind = [r for r in found if r.least < 1]
    for r in behind:
        what = "does not reach that error" if r.least == 0 else f"takes {1 / r.least:.2g} times the CPU time"
        print(f"NOT AHEAD: {r.problem} {r.measure}, {r.peer} at error {r.least_error:.2g}: sdesim {what}", file=out)
    if not behind:
        print("sdesim is the lower-left curve at every error that a peer reaches.", file=out)


COLOURS = {
    "sdesim": (
        "#08306b", "#2171b5", "#00a6d6", "#7b3fbf", "#c2429f", "#000000", "#5a7d9a", "#4f9dff", "#00c2a8", "#9f86ff",
    ),
    "torchsde": ("#8c2d04", "#d94801", "#fd8d3c"),
    "diffrax": ("#00552b", "#238b45", "#74c476", "#a1d99b"),
    "sdeint": ("#666666", "#aaaaaa"),
}  # fmt: skip
MARKERS = {"sdesim": "oPv*hXd<p>", "torchsde": "s", "diffrax": "^", "sdeint": "D"}


def draw(curves: list[Curve], path: str) -> None:
    """Rows strong and weak, columns the problems."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    problems = list(dict.fromkeys(c.problem for c in curves))
    figure, axes = plt.subplots(2, len(problems), figsize=(4.6 * len(problems), 8.6), squeeze=False)
    schemes: dict[str, list[str]] = {name: [] for name in CONTENDERS}
    for curve in curves:
        if curve.scheme not in schemes[curve.contender]:
            schemes[curve.contender].append(curve.scheme)
    handles: dict[tuple[str, str], Any] = {}
    for row, measure in enumerate(("strong", "weak")):
        for column, problem in enumerate(problems):
            ax = axes[row, column]
            for curve in reversed([c for c in curves if c.problem == problem]):
                line = [(e, cpu) for e, cpu in line_of(curve, measure) if e > 1e-11]
                if not line:
                    continue
                ours = curve.contender == "sdesim"
                palette, markers = COLOURS[curve.contender], MARKERS[curve.contender]
                number = schemes[curve.contender].index(curve.scheme)
                errors, costs = zip(*line, strict=True)
                (handle,) = ax.plot(
                    costs, errors, marker=markers[number % len(markers)], color=palette[number % len(palette)],
                    markersize=6 if ours else 4, linewidth=1.8 if ours else 1.2, linestyle="-" if ours else "--",
                )  # fmt: skip
                handles[curve.contender, curve.scheme] = handle
            ax.set(xscale="log", yscale="log")
            ax.grid(alpha=0.25)
            ax.set_title(PROBLEMS[problem].title if row == 0 else "", fontsize=11)
            if row == 1:
                ax.set_xlabel("CPU seconds for 10,000 paths")
            if column == 0:
                ax.set_ylabel(r"strong: $E|X_h - X|$" if row == 0 else r"weak: $|E X_h^2 - E X^2|$")
            exact = [c for c in curves if c.problem == problem and c.scheme == "exact" and c.points]
            if measure == "weak" and exact:
                cpu = exact[0].points[0].cpu
                low = ax.get_ylim()[0]
                ax.plot([cpu], [low], marker="v", markersize=10, color="#111111", clip_on=False, linestyle="")
                ax.annotate("exact: one step, no error", (cpu, low), (6, 8), textcoords="offset points", fontsize=8)
                ax.set_ylim(bottom=low)
    order = [(name, scheme) for name in CONTENDERS for scheme in schemes[name] if (name, scheme) in handles]
    figure.legend(
        [handles[key] for key in order], [f"{name} {scheme}" for name, scheme in order], loc="lower center", ncol=5,
        fontsize=10, frameon=False,
    )  # fmt: skip
    rows = -(-len(order) // 5)
    figure.tight_layout(rect=(0, 0.025 * rows + 0.01, 1, 1))
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})


def main() -> None:
    parser = argparse.ArgumentParser(description="Error against CPU time of sdesim, torchsde, diffrax and sdeint.")
    parser.add_argument("--quick", action="store_true", help="few step sizes, fewer paths, one repeat")
    parser.add_argument("--repeats", type=int, help="timed runs of each, the best is kept (default 2, quick 1)")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the tables to stderr)")
    parser.add_argument("--plot", metavar="PATH", help="draw the picture (matplotlib)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    repeats = options.repeats or (1 if options.quick else 2)
    curves = measure(options.problems, options.contenders, options.quick, repeats, sys.stderr)
    found = ratios(curves) if any(c.contender == "sdesim" for c in curves) else []
    print_tables(curves, found, out)
    if options.plot:
        draw(curves, options.plot)
    report = {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "repeats": repeats, "quick": options.quick, "unit": "CPU seconds for 10,000 paths, one core, float64",
        "curves": [dataclasses.asdict(c) for c in curves], "ratios": [dataclasses.asdict(r) for r in found],
    }  # fmt: skip
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
