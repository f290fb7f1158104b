"""First passage between two walls: the bias with and without the Brownian bridge, and what 10⁻³ costs.

    python benchmarks/first_passage.py            two minutes, once compiled
    python benchmarks/first_passage.py --quick    a quarter of the paths
    python benchmarks/first_passage.py --json -   JSON on stdout, the tables on stderr

The problems; a path starts at x0, and its time is the first one at which it is outside of (lower, upper):

    P1  drifted Brownian motion, dX = 0.6 dt + 1.2 dW, in (−1, 1.5) from 0.3 to t = 2
    P2  Ornstein-Uhlenbeck, dX = 2 (1 − X) dt + dW, in (−1, 1) from −0.6 to t = 0.5
    P3  noise that depends on the state, dX = −0.5 X dt + (1 + 0.5 X) dW, in (−1, 1) from 0.2 to t = 1

**P1** has an exact law: shares of the sides by the scale function less the tail of the eigenfunction series
(Cox & Miller 1965, section 5.7). With the bridge every step is exact: the errors of the two shares and of E
min(τ, t) are printed in standard errors, and so is √n times the Kolmogorov-Smirnov distance of the times,
whose 99.9 % point is 1.95. Without the bridge E min(τ, t) is too long, and its bias falls with slope ½.

**P2, P3.** Euler-Maruyama freezes the coefficients for a step, which leaves a bias of order h, in the share S
of the paths that have not passed. The reference is the density solver with absorbing walls: S is the mass
that is left, by Richardson extrapolation on two grids. Beside the bias of the paths stands the bias that the
chain of steps has exactly, by quadrature: one step is the kernel N(y; x + a h, σ² h) times the chance that
its bridge stays inside, by images, and n steps are its n-th power at 400 Gauss-Legendre points. The slope is
a fit of log |bias| with weights 1/variance, with its 95 % interval. "gap" is the largest distance between the
paths' and the solver's P(τ <= t) through one of the walls, at 20 times.

**Cost.** CPU seconds of one thread for an error of 10⁻³ in S of P3, root mean square: paths with a standard
error of 0.8e-3 and, with the bridge, a bias below 0.6e-3; without it the number of steps for that bias
follows from the one measured and slope ½, and the time from the time of a step. The solver takes the coarsest
of its grids that is as good.
"""

import argparse
import json
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import sdesim as sde

P1 = {"lower": -1.0, "upper": 1.5, "mu": 0.6, "sigma": 1.2, "x0": 0.3, "end": 2.0}
STEPS = {True: (1, 4, 16, 64, 256), False: (64, 256, 1024, 4096)}
ORDER_STEPS = (32, 64, 128, 256)
GOAL = 1e-3


class Problem:
    """A process with plain formulas a(x) and σ(x), an interval, a start and an end."""

    def __init__(
        self, name: str, a: Callable[[Any], Any], sigma: Callable[[Any], Any], span: tuple[float, ...]
    ) -> None:
        self.name, self.a, self.sigma = name, a, sigma
        self.lower, self.upper, self.x0, self.end = span
        self.process = sde.ito(lambda x, t: a(x), lambda x, t: sigma(x))

    def paths(self, n_steps: int, n: int, *, bridge: bool = True, seed: int = 1, **more: Any) -> Any:
        passage = sde.FirstPassage(self.lower, self.upper, bridge=bridge, bins=200, **more)
        return sde.simulate(
            self.process, self.x0, (0.0, self.end), n_steps=n_steps, n_paths=n, reduce=[passage], seed=seed, workers=1
        ).reductions[0]

    def density(self, n_cells: int, richardson: bool = True, rtol: float = 1e-8, save: Any = "final") -> Any:
        grid = sde.Grid(self.lower, self.upper, n_cells)
        return sde.evolve_density(
            self.process, lambda g: sde.point_mass(g, self.x0, order=4), grid, (0.0, self.end),
            boundary="absorbing", richardson=richardson, rtol=rtol, save=save,
        )  # fmt: skip


DRIFTED = Problem(
    "P1 drifted Brownian motion", lambda x: 0.6 + 0.0 * x, lambda x: 1.2 + 0.0 * x,
    (P1["lower"], P1["upper"], P1["x0"], P1["end"]),
)  # fmt: skip
OU = Problem("P2 Ornstein-Uhlenbeck", lambda x: 2.0 * (1.0 - x), lambda x: 1.0 + 0.0 * x, (-1.0, 1.0, -0.6, 0.5))
STATE = Problem("P3 state-dependent noise", lambda x: -0.5 * x, lambda x: 1.0 + 0.5 * x, (-1.0, 1.0, 0.2, 1.0))


# ---- exact figures ------------------------------------------------------------------------------------------


def exact_law(t: np.ndarray) -> np.ndarray:
    """P(passed by t) through the lower and the upper wall in P1, (2, len(t))."""
    lower, upper, mu, sigma, x0 = (P1[name] for name in ("lower", "upper", "mu", "sigma", "x0"))
    width, k = upper - lower, np.arange(1, 400)[:, None]
    rate = mu**2 / (2 * sigma**2) + (k * math.pi * sigma / width) ** 2 / 2

    def tail(distance: float, drift: float) -> np.ndarray:
        series = k * np.sin(k * math.pi * distance / width) / rate * np.exp(-rate * t)
        return np.asarray(np.exp(-drift * distance / sigma**2) * math.pi * (sigma / width) ** 2 * series.sum(0))

    power = 2 * mu / sigma**2
    share = math.expm1(-power * (x0 - lower)) / math.expm1(-power * width)
    return np.stack([1 - share - tail(x0 - lower, mu), share - tail(upper - x0, -mu)])


def chain_survival(problem: Problem, n_steps: int, points: int = 400) -> float:
    """S of the chain of Euler steps with the bridge, without any paths."""
    lower, upper, h = problem.lower, problem.upper, problem.end / n_steps
    nodes, weights = np.polynomial.legendre.leggauss(points)
    y = lower + (nodes + 1) / 2 * (upper - lower)
    weights = weights * (upper - lower) / 2

    def kernel(x: np.ndarray) -> np.ndarray:
        variance = (problem.sigma(x) ** 2 * h)[:, None]
        step = np.exp(-((y - (x + problem.a(x) * h)[:, None]) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        inside = np.zeros_like(step)
        direct = (y - x[:, None]) ** 2
        for k in range(-3, 4):
            turns = 2 * k * (upper - lower)
            inside += np.exp(-((turns + y - x[:, None]) ** 2 - direct) / (2 * variance))
            inside -= np.exp(-((turns + y - lower + x[:, None] - lower) ** 2 - direct) / (2 * variance))
        return np.asarray(step * inside * weights)

    alive, onward = np.ones(points), kernel(y)
    for _ in range(n_steps - 1):
        alive = onward @ alive
    return float(kernel(np.array([problem.x0]))[0] @ alive)


# ---- measuring ----------------------------------------------------------------------------------------------


def mean_stopped(result: Any, end: float) -> tuple[float, float]:
    """E min(τ, end) and its standard error, from the times of the paths."""
    stopped = np.where(np.isnan(result.times), end, result.times)
    return float(stopped.mean()), float(stopped.std() / math.sqrt(result.n))


def slope_of(steps: Any, biases: Any, errors: Any) -> tuple[float, float]:
    """Slope of log |bias| against log h and the half width of its 95 % interval."""
    x, y = -np.log(steps), np.log(np.abs(biases))
    weight = (np.asarray(biases) / np.asarray(errors)) ** 2
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    return float((weight * (x - centre) * y).sum() / spread), 1.96 / math.sqrt(spread)


def drifted(n: int, out: Any) -> dict[str, Any]:
    end = P1["end"]
    grid = np.linspace(0.0, end, 20_001)[1:]
    law = exact_law(grid)
    stopped = end - float(np.trapezoid(np.concatenate([[0.0], law.sum(0)]), np.concatenate([[0.0], grid])))
    rows = []
    print(f"\n{DRIFTED.name}, {n} paths; errors in standard errors, KS as √n D", file=out)
    print(f"{'':>10}{'steps':>8}{'lower':>10}{'upper':>10}{'E min(τ,t)':>12}{'bias':>12}{'KS':>8}", file=out)
    for bridge in (True, False):
        for n_steps in STEPS[bridge]:
            count = n if bridge else n // 8 if n_steps > 1000 else n // 2
            r = DRIFTED.paths(n_steps, count, bridge=bridge, keep=True, seed=n_steps)
            mean, error = mean_stopped(r, end)
            off = (r.probability - law[:, -1]) / r.probability_error
            times = np.sort(r.times[~np.isnan(r.times)])
            gap = np.abs((np.arange(len(times)) + 0.5) / r.n - np.interp(times, grid, law.sum(0))).max()
            rows.append({
                "bridge": bridge, "steps": n_steps, "n": r.n, "lower": float(off[0]), "upper": float(off[1]),
                "bias": mean - stopped, "error": error, "ks": float(gap * math.sqrt(r.n)),
            })  # fmt: skip
            row = rows[-1]
            print(
                f"{'bridge' if bridge else 'none':>10}{n_steps:>8}{off[0]:>10.2f}{off[1]:>10.2f}"
                f"{row['bias'] / error:>12.2f}{row['bias']:>12.2e}{row['ks']:>8.2f}", file=out, flush=True,
            )  # fmt: skip
    plain = [row for row in rows if not row["bridge"]]
    slope, half = slope_of(*([row[key] for row in plain] for key in ("steps", "bias", "error")))
    worst = max(max(abs(row["lower"]), abs(row["upper"]), abs(row["bias"] / row["error"]))
                for row in rows if row["bridge"])  # fmt: skip
    print(f"with the bridge: no figure off by more than {worst:.2f} standard errors", file=out)
    print(f"without: slope {slope:.3f} ± {half:.3f}", file=out)
    return {"rows": rows, "worst": worst, "slope_without": slope, "interval": half}


def ordered(problem: Problem, n: int, out: Any) -> dict[str, Any]:
    rho = problem.density(1600, save=np.linspace(0.0, problem.end, 21)[1:])
    reference = float(rho.mass[-1])
    rows = []
    print(f"\n{problem.name}, {n} paths; S = {reference:.6f} by the density solver", file=out)
    print(f"{'steps':>8}{'bias':>12}{'± s.e.':>10}{'exact chain':>14}{'local slope':>13}{'gap':>12}", file=out)
    chain = [chain_survival(problem, k) - reference for k in ORDER_STEPS]
    for i, n_steps in enumerate(ORDER_STEPS):
        r = problem.paths(n_steps, n, seed=n_steps)
        bias, error = float(r.survival[-1]) - reference, math.sqrt(reference * (1 - reference) / n)
        passed = np.cumsum(r.counts, axis=1)[:, 9::10] / r.n
        gap = float(np.abs(passed - rho.absorbed.T).max())
        rows.append({"steps": n_steps, "bias": bias, "error": error, "chain": chain[i], "gap": gap})
        local = f"{math.log2(chain[i] / chain[i + 1]):>13.3f}" if i + 1 < len(chain) else " " * 13
        print(f"{n_steps:>8}{bias:>12.2e}{error:>10.1e}{chain[i]:>14.2e}{local}{gap:>12.1e}", file=out, flush=True)
    slope, half = slope_of(*([row[key] for row in rows] for key in ("steps", "bias", "error")))
    off = max(abs(row["bias"] - row["chain"]) / row["error"] for row in rows)
    print(f"slope {slope:.3f} ± {half:.3f}; paths against the exact chain: at most {off:.2f} standard errors", file=out)
    return {"problem": problem.name, "reference": reference, "rows": rows, "slope": slope, "interval": half, "off": off}


def cpu_seconds(call: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The least CPU time of some calls after one that is not counted, and what the call returns."""
    value, best = call(), math.inf
    for _ in range(repeats):
        start = time.process_time()
        value = call()
        best = min(best, time.process_time() - start)
    return best, value


def cost(out: Any) -> dict[str, Any]:
    problem = STATE
    reference = float(problem.density(1600).mass[-1])
    n = math.ceil(reference * (1 - reference) / (0.8 * GOAL) ** 2)
    n_steps = next(k for k in (4 * 2**i for i in range(12)) if abs(chain_survival(problem, k) - reference) < 0.6 * GOAL)
    found = {}
    seconds, r = cpu_seconds(lambda: problem.paths(n_steps, n))
    found["bridge"] = {"seconds": seconds, "steps": n_steps, "n": n, "error": float(r.survival[-1]) - reference}
    seconds, r = cpu_seconds(lambda: problem.paths(1024, n, bridge=False), repeats=1)
    bias = float(r.survival[-1]) - reference
    needed = math.ceil(1024 * (bias / (0.6 * GOAL)) ** 2)
    found["no bridge"] = {"seconds": seconds * needed / 1024, "steps": needed, "n": n, "bias_at_1024": bias}
    for n_cells in (16, 32, 64, 128, 256, 512):
        seconds, rho = cpu_seconds(lambda k=n_cells: problem.density(k, richardson=False, rtol=1e-5))
        error = float(rho.mass[-1]) - reference
        finer = float(problem.density(2 * n_cells, richardson=False, rtol=1e-5).mass[-1]) - reference
        if max(abs(error), abs(finer)) < GOAL:  # not by chance
            break
    found["density"] = {"seconds": seconds, "cells": n_cells, "error": error}
    print(f"\nCPU seconds for an error of {GOAL:g} in S of {problem.name}", file=out)
    for name, row in found.items():
        extra = ", ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "seconds")
        print(f"{name:>10}{row['seconds']:>12.4f}  {extra}", file=out)
    print("without the bridge the figure is extrapolated from 1024 steps with slope ½", file=out)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="First passage between two walls: bias and cost.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the paths")
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the tables to stderr)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    share = 4 if options.quick else 1
    report = {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "numpy": np.__version__, "quick": options.quick,
        "drifted": drifted(1_000_000 // share, out),
        "order": [ordered(problem, 4_000_000 // share, out) for problem in (OU, STATE)],
        "cost": cost(out),
    }  # fmt: skip
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
