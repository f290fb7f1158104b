"""Orders of the density solvers in the cells and in the steps, with 95 % intervals, on time-dependent problems in 2-D.

    python benchmarks/density_orders.py           half a minute
    python benchmarks/density_orders.py --json -  JSON on stdout, the table on stderr

Linear equations dX = (B(t) X + c(t)) dt + S(t) dW have Gaussian densities whose moments solve ordinary differential
equations; everything below depends on time:

    mixed      S neither diagonal nor constant: D_xy ≠ 0 (Hundsdorfer-Verwer stages)
    diagonal   the same without correlation (Douglas)
    kinetic    a driven oscillator: noise in the velocity only (transport and Douglas, Strang)
    flow       no noise at all: the continuity equation (transport, Strang)

In t: the error of the solution on one grid against its own extrapolation to steps of no length, (4 fine − coarse)/3 of
runs with many more steps. In h, t: the error against exact cell averages with cells and steps refined together; with
Richardson extrapolation the same of (4 fine − coarse)/3. An order is the slope of log error over log size; the interval
is that of the regression (Student, three degrees of freedom).
"""

import argparse
import json
import math
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.stats import t as student

import sdesim as sde

MEAN, COVARIANCE = np.array([0.4, -0.3]), np.array([[0.25, 0.06], [0.06, 0.2]])
END = 0.5


def pull(t: float) -> np.ndarray:
    return np.array([[-1.0 - 0.5 * math.sin(2 * t), -1.2 * math.cos(t)], [0.9, -0.7]])


def push(t: float) -> np.ndarray:
    return np.array([0.6 * math.cos(3 * t), -0.4 * t])


def oscillator(t: float) -> np.ndarray:
    return np.array([[0.0, 1.0], [-1.5 - 0.5 * math.cos(2 * t), -0.6]])


def turning(t: float) -> np.ndarray:
    return np.array([[0.0, 1.0 + 0.3 * t], [-1.5, 0.0]])


PROBLEMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mixed": (pull, lambda t: ((0.7 + 0.2 * math.sin(t), 0.0), (0.45 * math.cos(2 * t), 0.6 + 0.1 * t))),
    "diagonal": (pull, lambda t: ((0.7 + 0.2 * math.sin(t), 0.0), (0.0, 0.6 + 0.1 * t))),
    "kinetic": (oscillator, lambda t: ((0.0, 0.0), (0.0, 0.8 + 0.2 * math.sin(3 * t)))),
    "flow": (turning, lambda t: ((0.0, 0.0), (0.0, 0.0))),
}


def process(name: str) -> Any:
    matrix, noise = PROBLEMS[name]

    def drift(x: Any, t: float) -> tuple[Any, Any]:
        (a, b), (c, d) = matrix(t)
        u, v = push(t)
        return a * x[0] + b * x[1] + u, c * x[0] + d * x[1] + v

    if name == "mixed":
        return sde.ito(drift, lambda x, t: noise(t), dim=2, noise="general", compiled=False)
    return sde.ito(drift, lambda x, t: (noise(t)[0][0], noise(t)[1][1]), dim=2, compiled=False)


def moments(name: str) -> tuple[np.ndarray, np.ndarray]:
    matrix, noise = PROBLEMS[name]

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        b, s, c = matrix(t), np.array(noise(t)), y[2:].reshape(2, 2)
        return np.concatenate([b @ y[:2] + push(t), (b @ c + c @ b.T + s @ s.T).ravel()])

    start = np.concatenate([MEAN, COVARIANCE.ravel()])
    y = solve_ivp(slope, (0.0, END), start, rtol=1e-11, atol=1e-13).y[:, -1]
    return y[:2], y[2:].reshape(2, 2)


def averages(grid: sde.Grid, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    precision, norm = np.linalg.inv(covariance), 2 * math.pi * math.sqrt(np.linalg.det(covariance))

    def density(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a, b = x - mean[0], y - mean[1]
        (p, q), (_, r) = precision
        return np.exp(-0.5 * (p * a * a + 2 * q * a * b + r * b * b)) / norm

    return sde.cell_averages(grid, density, n_points=5)


def solve(name: str, n: int, n_steps: int, richardson: bool = False) -> Any:
    grid = sde.Grid((-4, -4), (4, 4), n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coarse cells are the point
        return sde.evolve_density(
            process(name), lambda g: averages(g, MEAN, COVARIANCE), grid, (0.0, END), n_steps=n_steps,
            richardson=richardson,
        )  # fmt: skip


def distance(rho: Any, p: np.ndarray) -> float:
    return float(np.abs(rho.final - p).sum() * rho.grid.cell_volume)


def order(sizes: list[int], errors: list[float]) -> tuple[float, float]:
    """The slope of log error against log size, and half its 95 % interval."""
    x, y = np.log(sizes), np.log(errors)
    slope, offset = np.polyfit(x, y, 1)
    residual = float(((y - slope * x - offset) ** 2).sum())
    spread = math.sqrt(residual / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    return -float(slope), float(student.ppf(0.975, len(x) - 2)) * spread


def measured(name: str) -> list[dict[str, Any]]:
    rows = []
    steps = [24, 32, 48, 64, 96]
    n = 160 if name == "flow" else 40  # transport errs by a sixth power of h in every step, whatever its length
    fine, finer = (solve(name, n, k).final for k in (384, 768))
    limit = (4 * finer - fine) / 3
    rows.append(("in t", steps, [distance(solve(name, n, k), limit) for k in steps]))
    mean, covariance = moments(name)
    cells = [64, 80, 96, 112, 128]
    for richardson, label in ((False, "in h, t"), (True, "in h, t, Richardson")):
        errors = []
        for n in cells:
            rho = solve(name, n, n // 2, richardson)
            errors.append(distance(rho, averages(rho.grid, mean, covariance)))
        rows.append((label, cells, errors))
    found = []
    for label, sizes, errors in rows:
        slope, half = order(sizes, errors)
        found.append({"problem": name, "what": label, "order": slope, "half": half, "sizes": sizes, "errors": errors})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders of the density solvers in two dimensions.")
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the table to stderr)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    print(f"{'problem':10}{'order':22}{'slope':>8}{'± 95 %':>9}   errors in L1", file=out)
    rows = []
    for name in PROBLEMS:
        for row in measured(name):
            rows.append(row)
            errors = "  ".join(f"{k}: {e:.1e}" for k, e in zip(row["sizes"], row["errors"], strict=True))
            print(f"{name:10}{row['what']:22}{row['order']:8.3f}{row['half']:9.3f}   {errors}", file=out, flush=True)
    text = json.dumps({"rows": rows}, indent=1)
    if options.json == "-":
        print(text)
    elif options.json:
        pathlib.Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
