"""Fokker-Planck densities of sdesim against exact references, and against the other packages that are installed.

    python benchmarks/fokker_planck.py               all jobs; seconds without peers, some minutes with all of them
    python benchmarks/fokker_planck.py --jobs F1 F3  some jobs
    python benchmarks/fokker_planck.py --no-peers    sdesim alone
    python benchmarks/fokker_planck.py --json -      JSON on stdout, the tables on stderr

The jobs; G(m, v) is the normal density, walls reflect unless stated, D = σ²/2:

    F1  Ornstein-Uhlenbeck: μ = −x, D = 0.5 on [−5, 5], from G(1.5, 0.01) to t = 2
    F2  double well: V = 5 (x² − 1)², D = 1 on [−2.5, 2.5], stationary: cell averages of exp(−V)/Z, and its
        values at the centres ("nodal"), which detailed balance reproduces to rounding
    F3  geometric Brownian motion: μ = 0.1 x, σ = 0.3 x on [0, 5], ln X from N(0, 0.05²) to t = 1
    F4a rotating Ornstein-Uhlenbeck in 2-D: drift (−(x + 2y), 2x − y), D = 0.5 on [−5, 5]², from
        G(1.5, 0.04) x G(0, 0.04) to t = 1
    F4b gradient drift in 2-D: V = 3 (x² − 1)² + 2 y² + x y, D = 1 on [−2.5, 2.5]², stationary at the nodes
    F4c Ornstein-Uhlenbeck in 3-D, 128³ cells, one step (the difference of two runs)
    F5  heat equation: D = 0.5 on [−6, 6], from a point mass at 0 to t = 1
    F6  first passage: μ = 1, σ = 1, absorbing walls at ±1, from a point mass at 0, up to T = 3. L1 is the sum over
        both walls of |density − exact| dt, max its largest value; ours are averages over bins of time and are
        held against such averages, PyDDM's are values in time and are held against values
    F7  time-dependent Ornstein-Uhlenbeck: μ = sin t − x, σ = 0.9 + 0.4 cos 2t, on [−6, 6], from G(0.5, 0.09)
        to t = 2
    F8  probability flow of F1 (no noise, the drift carries the exact score) from t = 2 back to 0

How a figure is taken. A solve is the public call with everything in it: checks, assembly, stepping. The first
call, which compiles or loads the kernels, is not counted. Wall and CPU seconds are medians of the repeats (3
at least, more while they fit into 5 s). References are exact cell averages: L1 = Σ |p − ref| h,
max = max |p − ref|, mass = |Σ p h − 1|; in F6 mass is the estimate that the result carries of its error in time
(what remains is 1 minus what has left, in PyDDM as well, so that a sum says nothing).

The last table sets each peer's time against the fastest of our rows of that job whose L1 is not larger. What the peers
solve, and how they are told, is in density_peers.py.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import density_peers as peers
import numpy as np

from sdesim.arrival import PassageDensity, first_passage_density
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
        h = grid.cell_volume
        return float(away.sum() * h), float(away.max()), abs(float(p.sum() * h) - 1), float(p.min())

    return judge


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
    if wanted("fplanck"):
        for n in (250, 1000):
            grid, p0, judge = at(n)
            yield "fplanck", f"{n} cells", peers.fplanck(grid, lambda x: -x, lambda x: 0.5, p0, 2.0), judge
    if wanted("pychangcooper"):
        for n, steps in ((1000, 100), (1000, 1000)):
            grid, p0, judge = at(n)
            solve = peers.pychangcooper(grid, lambda x: -x, 0.5, p0, 2.0, steps)
            yield "pychangcooper", f"{n} cells, {steps} steps", solve, judge
    if wanted("pde"):
        grid, p0, judge = at(250)
        yield "py-pde", "250 cells", peers.py_pde(grid, p0, 2.0), judge
    if wanted("fipy"):
        grid, p0, judge = at(1000)
        yield "FiPy", "1000 cells, 100 steps", peers.fipy_line(grid, lambda x: -x, 0.5, p0, 2.0, 100), judge


def f2() -> Iterator[Any]:
    process = ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: math.sqrt(2.0))
    grid = Grid(-2.5, 2.5, 500)

    def law(x: np.ndarray) -> np.ndarray:
        return np.exp(-5 * (x * x - 1) ** 2)

    averages, nodes = cell_averages(grid, law), law(grid.centers)
    for name, reference in (("averages", averages), ("nodal", nodes)):
        judge = against(reference / (reference.sum() * grid.spacing), grid)
        yield "sdesim stationary", f"500 cells, {name}", lambda: stationary_density(process, grid), judge
        if wanted("fplanck"):
            solve = peers.fplanck_stationary(grid, lambda x: -20 * x * (x * x - 1), lambda x: 1.0)
            yield "fplanck", f"500 cells, {name}", solve, judge


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
        if wanted("fplanck") and not extra:
            solve = peers.fplanck(grid, lambda x: 0.1 * x, lambda x: 0.045 * x * x, p0, 1.0)
            yield "fplanck", f"{n} cells", solve, judge


def f4a() -> Iterator[Any]:
    process = ito(lambda x, t: peers.drift_rotating(*x), lambda x, t: 1.0, dim=2)
    x, y, variance = peers.gaussian_ring(1.0)

    def at(n: int) -> tuple[Grid, np.ndarray, Any]:
        grid = Grid((-5, -5), (5, 5), n)
        return grid, gaussian(grid, (1.5, 0), 0.2), against(gaussian(grid, (x, y), math.sqrt(variance)), grid)

    for n, steps, extra in ((256, 25, {}), (256, 50, {}), (256, 100, {}), (128, 100, {"richardson": True})):
        grid, p0, judge = at(n)
        start = (lambda g: gaussian(g, (1.5, 0), 0.2)) if extra else p0
        name = f"{n}², {steps} steps" + (", Richardson" if extra else "")
        yield (
            "sdesim splitting",
            name,
            lambda g=grid, p=start, k=steps, e=extra: evolve_density(process, p, g, (0, 1), n_steps=k, **e),
            judge,
        )
    grid, p0, judge = at(256)
    yield "sdesim splitting", "256², rtol 1e-4", lambda: evolve_density(process, p0, grid, (0, 1), rtol=1e-4), judge
    for n in (128, 256):
        grid, p0, judge = at(n)
        if wanted("fplanck"):
            yield "fplanck", f"{n}²", peers.fplanck_plane(grid, peers.drift_rotating, 0.5, p0, 1.0), judge
        if wanted("fipy"):
            solve = peers.fipy_plane(grid, peers.drift_rotating, 0.5, p0, 1.0, 20)
            yield "FiPy", f"{n}², 20 steps", solve, judge


def f4b() -> Iterator[Any]:
    def drift(x: Any, y: Any) -> tuple[Any, Any]:
        return -12 * x * (x * x - 1) - y, -4 * y - x

    process = ito(lambda x, t: drift(*x), lambda x, t: math.sqrt(2.0), dim=2)
    for n in (128, 256):
        grid = Grid((-2.5, -2.5), (2.5, 2.5), n)
        x, y = np.meshgrid(*grid.centers, indexing="ij")
        nodes = np.exp(-(3 * (x * x - 1) ** 2 + 2 * y * y + x * y))
        judge = against(nodes / (nodes.sum() * grid.cell_volume), grid)
        yield "sdesim stationary", f"{n}², nodal", lambda g=grid: stationary_density(process, g), judge
        if wanted("fplanck") and n == 128:
            yield "fplanck", f"{n}², nodal", peers.fplanck_plane_stationary(grid, drift, 1.0), judge


def f4c() -> Iterator[Any]:
    process = ito(lambda x, t: -x, lambda x, t: 1.0)
    grid = Grid((-4, -4, -4), (4, 4, 4), 128)
    p0 = gaussian(grid, (1, 0, -1), 0.5)
    p0 /= p0.sum() * grid.cell_volume  # 2e-9 of it lies outside

    def run(k: int) -> Density:
        return evolve_density(process, p0, grid, (0, 0.02 * k), n_steps=k)

    def judge(k: int) -> Any:
        decay = math.exp(-0.02 * k)
        std = math.sqrt(0.25 * decay**2 + 0.5 * (1 - decay**2))
        return against(gaussian(grid, (decay, 0, -decay), std), grid)

    for k in (4, 24):
        yield "sdesim splitting", f"128³, {k} steps", functools.partial(run, k), judge(k)


def f5() -> Iterator[Any]:
    process = ito(lambda x, t: 0.0, lambda x, t: 1.0)
    grid = Grid(-6, 6, 1001)
    judge, p0 = against(gaussian(grid, 0.0, 1.0), grid), point_mass(grid, 0.0)
    for method in ("cf14", "tr_bdf2"):
        solve = lambda m=method: evolve_density(process, p0, grid, (0, 1), method=m)  # noqa: E731
        yield f"sdesim {method}", "1001 cells", solve, judge
    if wanted("fplanck"):
        yield "fplanck", "1001 cells", peers.fplanck(grid, lambda x: 0 * x, lambda x: 0.5, p0, 1.0), judge


def passages(t: np.ndarray) -> np.ndarray:
    """Densities (n, 2) at t > 0 of the first passage of t + W_t out of (−1, 1) at the lower and the upper end.

    The image sum for short times, the sine series for long ones.
    """
    s = t / 4
    k = np.arange(-60, 61)[:, None]
    image = ((0.5 + 2 * k) * np.exp(-((0.5 + 2 * k) ** 2) / (2 * s))).sum(axis=0) / np.sqrt(2 * np.pi * s**3)
    k = np.arange(1, 61)[:, None]
    sine = np.pi * (k * np.exp(-((k * np.pi) ** 2) * s / 2) * np.sin(0.5 * k * np.pi)).sum(axis=0)
    low = np.where(s < 0.2, image, sine) / 4 * np.exp(-1 - t / 2)
    return np.stack([low, math.e**2 * low], axis=1)


def passage_bins(edges: np.ndarray) -> np.ndarray:
    """Averages of these densities over bins of time, by 16-point Gauss quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    width, middle = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    at = (middle[:, None] + 0.5 * width[:, None] * nodes).ravel()
    return np.einsum("bnk,n->bk", passages(at).reshape(len(width), 16, 2), 0.5 * weights)


def f6() -> Iterator[Any]:
    process = ito(lambda x, t: 1.0, lambda x, t: 1.0)

    def judge(found: PassageDensity) -> tuple[float, ...]:
        error = np.abs(found.density - passage_bins(found.t))
        l1 = float((error * np.diff(found.t)[:, None]).sum())
        return l1, float(error.max()), found.time_error, float(found.density.min())

    for n, extra in (
        (81, {}),
        (201, {}),
        (401, {}),
        (1001, {}),
        (50, {"richardson": True}),
        (100, {"richardson": True}),
    ):
        grid = Grid(-1, 1, n)
        name = f"{n} cells" + (", Richardson" if extra else "")
        solve = lambda g=grid, e=extra: first_passage_density(process, g, 0.0, (0, 3), **e)  # noqa: E731
        yield "sdesim first_passage", name, solve, judge
    if not wanted("pyddm"):
        return

    def judge_values(found: tuple[np.ndarray, np.ndarray]) -> tuple[float, ...]:
        densities = np.stack(found, axis=1)
        dt = 3.0 / (len(densities) - 1)
        t = dt * np.arange(1, len(densities))
        # its values belong to times, or to the bins before them: whichever is nearer
        errors = [np.abs(densities[1:] - exact) for exact in (passages(t), passage_bins(np.append(0.0, t)))]
        error = min(errors, key=lambda e: float(e.sum()))
        return float(error.sum() * dt), float(error.max()), math.nan, float(densities.min())

    for dx, dt, solver, name in (
        (0.01, 0.01, "solve_numerical_c", "C"), (0.005, 0.0005, "solve_numerical_c", "C"),
        (0.01, 0.01, "solve_numerical_cn", "CN"), (0.005, 0.005, "solve_numerical_cn", "CN"),
        (0.002, 0.002, "solve_numerical_cn", "CN"),
    ):  # fmt: skip
        yield f"PyDDM {name}", f"dx {dx:g}, dt {dt:g}", peers.pyddm(dx, dt, 3.0, solver), judge_values


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
    p0 /= p0.sum() * grid.spacing
    yield "sdesim characteristics", "1000 cells", lambda: evolve_density(process, p0, grid, (0, 2)), judge


JOBS: dict[str, Job] = {
    "F1": f1, "F2": f2, "F3": f3, "F4a": f4a, "F4b": f4b, "F4c": f4c, "F5": f5, "F6": f6, "F7": f7, "F8": f8,
}  # fmt: skip

USED: set[str] = set()


def wanted(peer: str) -> bool:
    """Whether a peer takes part: installed, and not excluded."""
    return peer in USED


def ratios(rows: list[Row]) -> list[dict[str, Any]]:
    """Each peer's time over that of our fastest row of the job that is at least as exact."""
    found = []
    for peer in rows:
        if peer.contender.startswith("sdesim"):
            continue
        ours = [
            row
            for row in rows
            if row.job == peer.job
            and row.contender.startswith("sdesim")
            and row.l1 <= peer.l1
            and ("nodal" in row.setting) == ("nodal" in peer.setting)
        ]
        if ours:
            best = min(ours, key=lambda r: r.wall)
            found.append(
                {"job": peer.job, "peer": peer.contender, "setting": peer.setting, "l1": peer.l1,
                 "sdesim": best.setting, "sdesim l1": best.l1, "wall": peer.wall / best.wall,
                 "cpu": peer.cpu / max(best.cpu, 1e-9)}
            )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and error of Fokker-Planck solutions.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="which jobs to run")
    parser.add_argument("--repeats", type=int, default=21, help="solves per figure (at least 3, at most 5 s)")
    parser.add_argument("--no-peers", action="store_true", help="sdesim alone")
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the tables to stderr)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    if not options.no_peers:
        USED.update(name for name in ("fplanck", "pychangcooper", "pde", "fipy", "pyddm") if peers.installed(name))
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
    box = [row for row in rows if row.job == "F4c"]
    if box:
        step = (box[1].wall - box[0].wall) / 20
        print(f"\na step of 128³ cells: {1e3 * step:.1f} ms", file=out)
    compared = ratios(rows)
    if compared:
        print(f"\n{'job':5}{'peer':16}{'setting':24}{'L1':>9}  {'sdesim':28}{'L1':>9}{'times':>9}{'CPU':>9}", file=out)
    for r in compared:
        print(
            f"{r['job']:5}{r['peer']:16}{r['setting']:24}{r['l1']:9.1e}  {r['sdesim']:28}{r['sdesim l1']:9.1e}"
            f"{r['wall']:9.3g}{r['cpu']:9.3g}",
            file=out,
        )
    report = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rows": [dataclasses.asdict(row) for row in rows],
        "ratios": compared,
    }
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
