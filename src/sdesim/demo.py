"""The demonstration: four processes, each seen as a million paths and as the solution of its Fokker-Planck equation."""

import contextlib
import dataclasses
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import bind
from .compare import Comparison, compare
from .core import blocks, cache
from .density import Density
from .evolution import evolve_density, stationary_density
from .fokker_planck.cells import gaussian, point_mass
from .fokker_planck.grid import Grid
from .integrate.reductions import Histogram
from .integrate.schemes import HEUN
from .integrate.tiles import Variant
from .processes.custom import ito
from .processes.double_well import DoubleWell
from .processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from .processes.wiener import Wiener
from .simulate import simulate

SEED = 2026


@dataclasses.dataclass
class Claim:
    """One statement, the figures it rests on, and whether they bear it out."""

    title: str
    statement: str
    figures: dict[str, float]
    holds: bool
    comparison: Comparison
    histogram: Any
    rho: Density
    path_steps: int
    seconds: float

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in self.figures.items())
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        rate = self.path_steps / self.seconds / 1e6
        return f"{self.title}: {self.statement}: {verdict} ({numbers}; {rate:.0f} million path-steps a second)"


def _l1(a: np.ndarray, b: np.ndarray, grid: Grid) -> float:
    return float(np.abs(a - b).sum() * grid.spacing)


def _against(found: Comparison) -> dict[str, float]:
    return {
        "L1": found.l1,
        "expected by chance": found.l1_floor,
        "chi-square p": found.chi2_pvalue,
    }


def _paths(
    process: Any, x0: Any, grid: Grid, t1: float, n_steps: int, n_paths: int | None, progress: Any
) -> tuple[Any, float]:
    """The histogram of the paths on the cells of the grid at t1 (nothing is stored), and the seconds it took."""
    start = time.perf_counter()
    histogram = Histogram(grid.lower, grid.upper, grid.n_cells)
    # float32 and Heun's scheme: the fastest pair whose bias stays below the noise of a million paths
    paths = simulate(
        process, x0, (0.0, t1), n_steps=n_steps, n_paths=n_paths, method="heun", reduce=[histogram], seed=SEED,
        dtype=np.float32, progress=progress,
    )  # fmt: skip
    return paths.reductions[0], time.perf_counter() - start


def wiener(n_paths: int, progress: Any = False) -> Claim:
    """Brownian motion from a point spreads by the heat equation with D = ½."""
    process, grid, n_steps = Wiener(), Grid(-6.0, 6.0, 600), 100
    histogram, seconds = _paths(process, 0.0, grid, 1.0, n_steps, n_paths, progress)
    rho = evolve_density(process, point_mass(grid, 0.0), grid, (0.0, 1.0))
    found = compare(histogram, rho)
    closed = _l1(rho.final, gaussian(grid, 0.0, 1.0), grid)
    return Claim(
        "Wiener process", "paths lie on the heat equation, and that on exp(−x²/2t)/√(2πt)",
        {**_against(found), "PDE − closed form (L1)": closed}, found.within_noise and closed < 1e-3,
        found, histogram, rho, n_paths * n_steps, seconds,
    )  # fmt: skip


def ornstein_uhlenbeck(n_paths: int, progress: Any = False) -> Claim:
    """A spring with noise: the law is Gaussian at every time."""
    process, grid, n_steps = OrnsteinUhlenbeck(1.0, 0.0, 0.8), Grid(-3.0, 4.0, 700), 100
    histogram, seconds = _paths(process, 2.0, grid, 1.0, n_steps, n_paths, progress)
    rho = evolve_density(process, point_mass(grid, 2.0), grid, (0.0, 1.0))
    found = compare(histogram, rho)
    mean, std = process.mean(1.0, 2.0), np.sqrt(process.variance(1.0, 2.0))
    closed = _l1(rho.final, gaussian(grid, mean, std), grid)
    return Claim(
        "Ornstein-Uhlenbeck", "paths lie on the Fokker-Planck solution, and that on the closed form",
        {**_against(found), "PDE − closed form (L1)": closed}, found.within_noise and closed < 1e-3,
        found, histogram, rho, n_paths * n_steps, seconds,
    )  # fmt: skip


def double_well(n_paths: int, progress: Any = False) -> Claim:
    """Langevin diffusion in two wells: on its way at t = 0.5, at rest in exp(−U/T) in the end."""
    process, grid, n_steps = DoubleWell(barrier=1.5, temperature=0.75), Grid(-2.6, 2.6, 520), 100
    histogram, seconds = _paths(process, -1.0, grid, 0.5, n_steps, n_paths, progress)
    rho = evolve_density(process, point_mass(grid, -1.0), grid, (0.0, 0.5))
    found = compare(histogram, rho)
    rest = stationary_density(process, grid)
    late = evolve_density(process, point_mass(grid, -1.0), grid, (0.0, 100.0))
    reached = _l1(late.final, rest.final, grid)
    at_rest = rest.quantile(np.random.default_rng(SEED).random(n_paths))
    kept, more = _paths(process, at_rest, grid, 0.2, 40, None, progress)
    still = compare(kept, rest)
    return Claim(
        "Double-well Langevin", "paths lie on the PDE; exp(−U/T) is reached by the PDE and kept by the paths",
        {
            **_against(found),
            "PDE(t=100) − exp(−U/T) (L1)": reached,
            "kept by the paths, chi-square p": still.chi2_pvalue,
        },
        found.within_noise and reached < 1e-6 and still.within_noise,
        found, histogram, rho, n_paths * (n_steps + 40), seconds + more,
    )  # fmt: skip


def own_process(n_paths: int, progress: Any = False) -> Claim:
    """A process of one's own, in two lambdas: a driven drift and a noise that grows with |x|."""
    process, grid, n_steps = _own(), Grid(-8.0, 10.0, 900), 200
    histogram, seconds = _paths(process, 0.5, grid, 1.0, n_steps, n_paths, progress)
    rho = evolve_density(process, point_mass(grid, 0.5), grid, (0.0, 1.0), rtol=1e-4)
    found = compare(histogram, rho)
    return Claim(
        "Own process", "dX = (2 sin 4t − X) dt + ½√(1 + X²) dW, from two lambdas: paths lie on its PDE",
        _against(found), found.within_noise, found, histogram, rho, n_paths * n_steps, seconds,
    )  # fmt: skip


def _own() -> Any:
    return ito(lambda x, t: 2.0 * np.sin(4.0 * t) - x, lambda x, t: 0.5 * np.sqrt(1.0 + x * x))


def _compile_densities() -> None:
    """What a second process compiles at the first demonstration, while the first one compiles the paths."""
    grid = Grid(-6.0, 6.0, 60)
    for process in (Wiener(), _own()):
        evolve_density(process, gaussian(grid, 0.0, 1.0), grid, (0.0, 0.1), rtol=1e-2)
    bind.compiled(_own(), HEUN, np.dtype(np.float32), 1, 1, Variant())
    importlib.import_module("matplotlib.font_manager")  # its first import in an account writes the list of fonts


class _Aside:
    """Compile in a second process, once for each version of the library: Numba compiles on one core a process."""

    def __init__(self) -> None:
        folder = cache.folder()
        self.mark = folder / f"demo_{cache.own_digest()[:32]}.done" if folder else None
        self.process: subprocess.Popen[bytes] | None = None
        if self.mark is not None and not self.mark.exists() and blocks.available_cores() > 1:
            program = "from sdesim import demo; demo._compile_densities()"
            self.process = subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Until its kernels lie on the disk; if it failed, they are compiled here."""
        if self.process is not None and self.process.wait() == 0 and self.mark is not None:
            with contextlib.suppress(OSError):
                self.mark.touch()
        self.process = None

    def stop(self) -> None:
        """End it, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


CLAIMS: tuple[Callable[..., Claim], ...] = (wiener, ornstein_uhlenbeck, double_well, own_process)


def run(
    n_paths: int = 1_000_000, *, progress: Any = False, report: Callable[[Claim], Any] | None = None
) -> list[Claim]:
    """Check all four claims; ``report`` is called with each as it is known."""
    claims = []
    aside = _Aside()
    try:
        for process in (Wiener(), OrnsteinUhlenbeck(), DoubleWell()):
            _paths(process, 0.0, Grid(-6.0, 6.0, 60), 1.0, 1, 1000, False)  # what is left to compile, meanwhile
        aside.wait()
        for check in CLAIMS:
            claim = check(n_paths, progress)
            claims.append(claim)
            if report is not None:
                report(claim)
    finally:
        aside.stop()
    return claims


def picture(claims: list[Claim], path: Any) -> None:
    """Histogram over PDE for each claim, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from . import plot

    figure = Figure(figsize=(11.0, 7.6))
    figure.subplots_adjust(left=0.06, right=0.985, top=0.95, bottom=0.07, hspace=0.28, wspace=0.16)
    FigureCanvasAgg(figure)
    for ax, claim in zip(figure.subplots(2, 2).flat, claims, strict=True):
        plot.compare(claim.histogram, claim.rho, ax=ax)
        ax.set_title(claim.title)
    figure.savefig(path, dpi=110)
