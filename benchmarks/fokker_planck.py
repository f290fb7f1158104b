"""Fokker-Planck densities of sdesim against exact references, and against fplanck where it is installed.

    python benchmarks/fokker_planck.py               all jobs; a minute with the peer, seconds without
    python benchmarks/fokker_planck.py --jobs F1 F3  some jobs
    python benchmarks/fokker_planck.py --json -      JSON on stdout, the table on stderr

The jobs; G(m, v) is the normal density, walls reflect unless stated, D = σ²/2:

    F1  Ornstein-Uhlenbeck: μ = −x, D = 0.5 on [−5, 5], from G(1.5, 0.01) to t = 2
    F2  double well: V = 5 (x² − 1)², D = 1 on [−2.5, 2.5], stationary: cell averages of exp(−V)/Z, and its
        values at the centres ("nodal"), which detailed balance reproduces to rounding
    F3  geometric Brownian motion: μ = 0.1 x, σ = 0.3 x on [0, 5], ln X from N(0, 0.05²) to t = 1
    F5  heat equation: D = 0.5 on [−6, 6], from a point mass at 0 to t = 1
    F6  first passage: μ = 1, σ = 1, absorbing walls at ±1, from a point mass at 0; 30 times up to t = 3. The
        L1 and max columns are the largest error of the two absorbed probabilities, against the series
    F7  time-dependent Ornstein-Uhlenbeck: μ = sin t − x, σ = 0.9 + 0.4 cos 2t, on [−6, 6], from G(0.5, 0.09)
        to t = 2
    F8  probability flow of F1 (no noise, the drift carries the exact score) from t = 2 back to 0

How a figure is taken. A solve is the public call with everything in it: checks, assembly, stepping. The first
call, which compiles or loads the kernels, is not counted. Wall and CPU seconds are medians of the repeats (3
at least, more while they fit into 5 s). References are exact cell averages: L1 = Σ |p − ref| h,
max = max |p − ref|, mass = |Σ p h − 1|, in F6 with what the walls have absorbed.

fplanck computes exp(tA) by scipy's expm_multiply. Its grid is centred on 0 and its parameters are forces and
drags at a temperature; the adapter below says kT = 1, drag = 1/D, force = μ/D, which is the Itô equation.
NumPy 2 has removed a function that its version 0.2.2 calls; it is given back for the run.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sdesim.density import Density
from sdesim.evolution import evolve_density, stationary_density
from sdesim.fokker_planck.cells import cell_averages, gaussian, point_mass
from sdesim.fokker_planck.grid import Grid
from sdesim.processes.custom import ito


@dataclasses.dataclass
class Row:
    job: str
    contender: str
    setting: str
    wall: float
    cpu: float
    l1: float
    max: float
    mass: float
    min: float


Solve = Callable[[], Any]
Job = Callable[[], Iterator[tuple[str, str, Solve, Callable[[Any], tuple[float, ...]]]]]


def measure(job: str, contender: str, setting: str, solve: Solve, judge: Any, repeats: int) -> Row:
    """Median times of ``solve`` and the errors that ``judge`` finds in its result."""
    result = solve()
    walls, cpus = [], []
    # slow contenders are repeated less often
    start = time.perf_counter()
    while len(walls) < repeats and (len(walls) < 3 or time.perf_counter() - start < 5.0):
        wall, cpu = time.perf_counter(), time.process_time()
        result = solve()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Row(job, contender, setting, statistics.median(walls), statistics.median(cpus), *judge(result))


def against(reference: np.ndarray, grid: Grid) -> Callable[[Any], tuple[float, ...]]:
    """The four measures of a density (a Density or an array of cell averages)."""

    def judge(result: Any) -> tuple[float, ...]:
        p = result.final if isinstance(result, Density) else result
        away = np.abs(p - reference)
        h = grid.spacing
        return float(away.sum() * h), float(away.max()), abs(float(p.sum() * h) - 1), float(p.min())

    return judge


# The peer


def fplanck_solver(grid: Grid, mu: Callable[..., Any], d: Callable[..., Any]) -> Any:
    """fplanck's matrix for dX = μ dt + √(2D) dW on our grid."""
    if not hasattr(np, "product"):
        setattr(np, "product", np.prod)  # noqa: B010
    import fplanck
    from scipy import constants

    middle = 0.5 * (grid.lower + grid.upper)
    return fplanck.fokker_planck(
        temperature=1 / constants.k,
        drag=lambda x: 1 / (d(x + middle) + 0 * x),
        extent=grid.n_cells * grid.spacing * (1 - 1e-12),
        resolution=grid.spacing,
        force=lambda x: mu(x + middle) / (d(x + middle) + 0 * x),
    )


def fplanck_solve(grid: Grid, mu: Callable[..., Any], d: Callable[..., Any], p0: np.ndarray, t: float) -> Solve:
    def solve() -> np.ndarray:
        probability = fplanck_solver(grid, mu, d).propagate(lambda x: p0 * grid.spacing, t)
        return np.asarray(probability) / grid.spacing

    return solve


PEER = importlib.util.find_spec("fplanck") is not None


# The jobs


def f1() -> Iterator[Any]:
    process = ito(lambda x, t: -x, lambda x, t: 1.0)
    std = math.sqrt(0.01 * math.exp(-4) + 0.5 * (1 - math.exp(-4)))

    def at(n: int) -> tuple[Grid, np.ndarray, Any]:
        grid = Grid(-5, 5, n)
        return grid, gaussian(grid, 1.5, 0.1), against(gaussian(grid, 1.5 * math.exp(-2), std), grid)

    for n, extra in ((250, {}), (1000, {}), (125, {"richardson": True}), (1000, {"richardson": True})):
        grid, p0, judge = at(n)
        name = f"{n} cells" + (", Richardson" if extra else "")
        yield (
            "sdesim cf14",
            name,
            lambda g=grid, p=p0, e=extra: evolve_density(process, p, g, (0, 2), **e),
            judge,
        )
    grid, p0, judge = at(1000)
    yield (
        "sdesim tr_bdf2",
        "1000 cells",
        lambda: evolve_density(process, p0, grid, (0, 2), method="tr_bdf2"),
        judge,
    )
    if PEER:
        yield "fplanck", "1000 cells", fplanck_solve(grid, lambda x: -x, lambda x: 0.5, p0, 2.0), judge


def f2() -> Iterator[Any]:
    process = ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: math.sqrt(2.0))
    grid = Grid(-2.5, 2.5, 500)

    def law(x: np.ndarray) -> np.ndarray:
        return np.exp(-5 * (x * x - 1) ** 2)

    averages, nodes = cell_averages(grid, law), law(grid.centers)
    for name, reference in (("averages", averages), ("nodal", nodes)):
        judge = against(reference / (reference.sum() * grid.spacing), grid)
        yield "sdesim stationary", f"500 cells, {name}", lambda: stationary_density(process, grid), judge
        if PEER:

            def steady() -> np.ndarray:
                solver = fplanck_solver(grid, lambda x: -20 * x * (x * x - 1), lambda x: 1.0)
                return np.asarray(solver.steady_state()) / grid.spacing

            yield "fplanck", f"500 cells, {name}", steady, judge


def f3() -> Iterator[Any]:
    process = ito(lambda x, t: 0.1 * x, lambda x, t: 0.3 * x)

    def lognormal(grid: Grid, mean: float, variance: float) -> np.ndarray:
        z = [(math.log(e) - mean) / math.sqrt(2 * variance) if e > 0 else -math.inf for e in grid.edges]
        return np.diff([0.5 * math.erfc(-v) for v in z]) / grid.spacing

    for n, extra in ((1000, {}), (250, {"richardson": True})):
        grid = Grid(0, 5, n)
        p0, judge = lognormal(grid, 0, 0.0025), against(lognormal(grid, 0.055, 0.0925), grid)
        name = f"{n} cells" + (", Richardson" if extra else "")
        yield (
            "sdesim cf14",
            name,
            lambda g=grid, p=p0, e=extra: evolve_density(process, p, g, (0, 1), **e),
            judge,
        )
        if PEER and not extra:
            solve = fplanck_solve(grid, lambda x: 0.1 * x, lambda x: 0.045 * x * x, p0, 1.0)
            yield "fplanck", f"{n} cells", solve, judge


def f5() -> Iterator[Any]:
    process = ito(lambda x, t: 0.0, lambda x, t: 1.0)
    grid = Grid(-6, 6, 1001)
    judge, p0 = against(gaussian(grid, 0.0, 1.0), grid), point_mass(grid, 0.0)
    for method in ("cf14", "tr_bdf2"):
        solve = lambda m=method: evolve_density(process, p0, grid, (0, 1), method=m)  # noqa: E731
        yield f"sdesim {method}", "1001 cells", solve, judge
    if PEER:
        yield "fplanck", "1001 cells", fplanck_solve(grid, lambda x: 0 * x, lambda x: 0.5, p0, 1.0), judge


def exits(t: float) -> list[float]:
    """Probabilities that t + W_t has left (−1, 1) at the lower and the upper end until t.

    Integrals of the densities of the first passage: image sum for short times, sine series for long ones.
    """
    nodes, weights = np.polynomial.legendre.leggauss(12)
    pieces = np.linspace(0, t, 41)
    s = (0.5 * (pieces[1:] + pieces[:-1])[:, None] + 0.5 * t / 40 * nodes).ravel()
    k = np.arange(-60, 61)[:, None]
    image = ((0.5 + 2 * k) * np.exp(-((0.5 + 2 * k) ** 2) / (0.5 * s))).sum(axis=0) / np.sqrt(2 * np.pi * (s / 4) ** 3)
    k = np.arange(1, 61)[:, None]
    sine = np.pi * (k * np.exp(-((k * np.pi) ** 2) * s / 8) * np.sin(0.5 * k * np.pi)).sum(axis=0)
    low = np.where(s < 0.8, image, sine) / 4 * np.exp(-1 - s / 2)
    probability = float(low @ np.tile(0.5 * t / 40 * weights, 40))
    return [probability, math.exp(2) * probability]


def f6() -> Iterator[Any]:
    process = ito(lambda x, t: 1.0, lambda x, t: 1.0)
    times = np.linspace(0.1, 3.0, 30)
    reference = np.array([exits(t) for t in times])

    def judge(rho: Density) -> tuple[float, ...]:
        error = np.abs(rho.absorbed - reference)
        mass = np.abs(rho.mass + rho.absorbed.sum(axis=1) - 1).max()
        return float(error.max()), float(error.max()), float(mass), rho.minimum

    for n, method, extra in (
        (401, "cf14", {}),
        (1001, "cf14", {}),
        (101, "cf14", {"richardson": True}),
        (401, "tr_bdf2", {}),
    ):
        grid = Grid(-1, 1, n)

        def solve(g: Grid = grid, m: str = method, e: dict[str, Any] = extra) -> Density:
            order = 4 if e else 2
            return evolve_density(
                process,
                lambda k: point_mass(k, 0.0, order=order),
                g,
                (0, 3),
                save=times,
                boundary="absorbing",
                method=m,
                **e,
            )

        yield f"sdesim {method}", f"{n} cells" + (", Richardson" if extra else ""), solve, judge


def f7() -> Iterator[Any]:
    process = ito(lambda x, t: np.sin(t) - x, lambda x, t: 0.9 + 0.4 * np.cos(2 * t))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s, w = nodes + 1.0, weights
    mean = 0.5 * math.exp(-2) + float(w @ (np.exp(s - 2) * np.sin(s)))
    variance = 0.09 * math.exp(-4) + float(w @ (np.exp(2 * s - 4) * (0.9 + 0.4 * np.cos(2 * s)) ** 2))
    for n, rtol, extra in ((1000, 1e-4, {}), (1000, 1e-6, {}), (400, 1e-6, {"richardson": True})):
        grid = Grid(-6, 6, n)
        judge = against(gaussian(grid, mean, math.sqrt(variance)), grid)

        def solve(g: Grid = grid, r: float = rtol, e: dict[str, Any] = extra) -> Density:
            return evolve_density(process, lambda k: gaussian(k, 0.5, 0.3), g, (0, 2), rtol=r, **e)

        yield "sdesim tr_bdf2", f"{n} cells, rtol {rtol:g}" + (", Richardson" if extra else ""), solve, judge


def f8() -> Iterator[Any]:
    def law(t: float) -> tuple[float, float]:
        return 1.5 * math.exp(-t), 0.01 * math.exp(-2 * t) + 0.5 * (1 - math.exp(-2 * t))

    def back(x: Any, s: float) -> Any:
        mean, variance = law(2 - s)
        return x - 0.5 * (x - mean) / variance

    process = ito(back, lambda x, t: 0.0)
    grid = Grid(-5, 5, 1000)
    mean, variance = law(2.0)
    p0, judge = gaussian(grid, mean, math.sqrt(variance)), against(gaussian(grid, 1.5, 0.1), grid)
    yield "sdesim characteristics", "1000 cells", lambda: evolve_density(process, p0, grid, (0, 2)), judge


JOBS: dict[str, Job] = {"F1": f1, "F2": f2, "F3": f3, "F5": f5, "F6": f6, "F7": f7, "F8": f8}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and error of Fokker-Planck solutions.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="which jobs to run")
    parser.add_argument("--repeats", type=int, default=21, help="solves per figure (at least 3, at most 5 s)")
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the table to stderr)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    print(
        f"{'job':4}{'contender':24}{'setting':28}{'wall ms':>10}{'CPU ms':>10}"
        f"{'L1':>10}{'max':>10}{'mass':>10}{'min p':>10}",
        file=out,
    )
    rows = []
    for job in options.jobs:
        for contender, setting, solve, judge in JOBS[job]():
            row = measure(job, contender, setting, solve, judge, options.repeats)
            rows.append(row)
            print(
                f"{row.job:4}{row.contender:24}{row.setting:28}{1e3 * row.wall:10.3f}{1e3 * row.cpu:10.3f}"
                f"{row.l1:10.1e}{row.max:10.1e}{row.mass:10.1e}{row.min:10.1e}",
                file=out,
                flush=True,
            )
    report = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
