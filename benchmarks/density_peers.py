"""What other packages need to solve the jobs of benchmarks/fokker_planck.py; each function returns a solve().

fplanck (0.2.2)      exp(tA) by scipy's expm_multiply. Its grid is centred on 0 and its parameters are forces and drags
                     at a temperature: kT = 1, drag = 1/D, force = μ/D, which is the Itô equation. NumPy 2 has removed
                     a function that it calls; it is given back for the run.
pychangcooper        Chang and Cooper's fluxes, implicit Euler. It ships a logarithmic grid only; a subclass gives it
                     the uniform one. Where μ is 0 at a face it divides by 0, so there it is 1e-6.
py-pde               explicit, adaptive; its expressions are compiled at every new equation (the first call, not
                     counted, and some of each solve).
FiPy                 exponential convection, implicit Euler, SciPy solvers.
PyDDM                implicit (C) and Crank-Nicolson (Python); only absorbing walls, and a start of its own.
"""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Solve = Callable[[], Any]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def fplanck_solver(grid: Any, force: Callable[..., Any], drag: Any) -> Any:
    if not hasattr(np, "product"):
        setattr(np, "product", np.prod)  # noqa: B010
    import fplanck
    from scipy import constants

    widths = np.atleast_1d(grid.spacing)
    return fplanck.fokker_planck(
        temperature=1 / constants.k,
        drag=drag,
        extent=np.array(grid.shape) * widths * (1 - 1e-12),
        resolution=grid.spacing if grid.dim == 1 else widths,
        force=force,
    )


def fplanck_line(grid: Any, mu: Callable[..., Any], d: Callable[..., Any]) -> Any:
    """fplanck's matrix for dX = μ dt + √(2D) dW."""
    middle = 0.5 * (grid.lower + grid.upper)
    return fplanck_solver(
        grid,
        lambda x: mu(x + middle) / (d(x + middle) + 0 * x),
        lambda x: 1 / (d(x + middle) + 0 * x),
    )


def fplanck(grid: Any, mu: Callable[..., Any], d: Callable[..., Any], p0: np.ndarray, t: float) -> Solve:
    def solve() -> np.ndarray:
        probability = fplanck_line(grid, mu, d).propagate(lambda x: p0 * grid.spacing, t)
        return np.asarray(probability) / grid.spacing

    return solve


def fplanck_stationary(grid: Any, mu: Callable[..., Any], d: Callable[..., Any]) -> Solve:
    return lambda: np.asarray(fplanck_line(grid, mu, d).steady_state()) / grid.spacing


def fplanck_plane(grid: Any, drift: Callable[..., Any], d: float, p0: np.ndarray, t: float) -> Solve:
    def solve() -> np.ndarray:
        solver = fplanck_solver(grid, lambda x, y: np.array(drift(x, y)) / d, 1 / d)
        return np.asarray(solver.propagate(lambda x, y: p0 * grid.cell_volume, t)) / grid.cell_volume

    return solve


def fplanck_plane_stationary(grid: Any, drift: Callable[..., Any], d: float) -> Solve:
    def solve() -> np.ndarray:
        solver = fplanck_solver(grid, lambda x, y: np.array(drift(x, y)) / d, 1 / d)
        return np.asarray(solver.steady_state()) / grid.cell_volume

    return solve


def pychangcooper(grid: Any, mu: Callable[..., Any], d: float, p0: np.ndarray, t: float, n_steps: int) -> Solve:
    from pychangcooper.chang_cooper import ChangCooper

    n, h = grid.n_cells, grid.spacing

    class Uniform(ChangCooper):  # type: ignore[misc]
        def _build_grid(self) -> None:
            self._grid, self._half_grid, self._step = grid.centers, grid.edges[1:-1], 1.0
            self._grid2, self._half_grid2 = self._grid**2, self._half_grid**2
            self._delta_grid, self._delta_grid_bar = np.full(n + 1, h), np.full(n, h)

        def _define_terms(self) -> None:
            heating = -mu(self._half_grid)
            self._heating_term = np.where(np.abs(heating) < 1e-9, 1e-6, heating)
            self._dispersion_term = np.full(n - 1, d)

    def solve() -> np.ndarray:
        solver = Uniform(n_grid_points=n, delta_t=t / n_steps, initial_distribution=p0)
        for _ in range(n_steps):
            solver.solve_time_step()
        return np.asarray(solver.n)

    return solve


def py_pde(grid: Any, p0: np.ndarray, t: float) -> Solve:
    """dp/dt = ∂x(x p) + ½ ∂²x p, with p = 0 at the walls."""
    import pde

    lattice = pde.CartesianGrid([[grid.lower, grid.upper]], grid.n_cells, periodic=False)
    equation = pde.PDE({"p": "d_dx(x*p) + 0.5*laplace(p)"}, bc={"value": 0})
    start = pde.ScalarField(lattice, p0)
    return lambda: np.asarray(equation.solve(start, t_range=t, dt=1e-4, adaptive=True, tracker=None).data)


def fipy_line(grid: Any, mu: Callable[..., Any], d: float, p0: np.ndarray, t: float, n_steps: int) -> Solve:
    import fipy

    mesh = fipy.Grid1D(dx=grid.spacing, nx=grid.n_cells)
    mesh += ((grid.lower,),)  # a mesh plus a vector is the mesh moved
    (faces,) = mesh.faceCenters
    return _fipy(mesh, np.array([mu(np.asarray(faces))]), d, p0, t, n_steps)


def fipy_plane(grid: Any, drift: Callable[..., Any], d: float, p0: np.ndarray, t: float, n_steps: int) -> Solve:
    import fipy

    (hx, hy), (nx, ny) = grid.spacing, grid.shape
    mesh = fipy.Grid2D(dx=hx, dy=hy, nx=nx, ny=ny)
    mesh += ((grid.lower[0],), (grid.lower[1],))
    solve = _fipy(mesh, np.array(drift(*np.asarray(mesh.faceCenters))), d, p0.T.ravel(), t, n_steps)
    return lambda: solve().reshape(ny, nx).T


def _fipy(mesh: Any, velocity: np.ndarray, d: float, p0: np.ndarray, t: float, n_steps: int) -> Solve:
    import fipy

    flow = fipy.FaceVariable(mesh=mesh, rank=1)
    flow.setValue(np.where(np.asarray(mesh.exteriorFaces), 0.0, velocity))  # nothing is carried through a wall
    equation = fipy.TransientTerm() == fipy.DiffusionTerm(d) - fipy.ExponentialConvectionTerm(flow)

    def solve() -> np.ndarray:
        p = fipy.CellVariable(mesh=mesh, value=p0)
        for _ in range(n_steps):
            equation.solve(var=p, dt=t / n_steps)
        return np.asarray(p.value)

    return solve


def pyddm(dx: float, dt: float, t: float, solver: str) -> Solve:
    """Drift 1, noise 1, walls at ±1, from 0; density of the passages at dt, 2 dt, …, (low, high)."""
    from pyddm import Model
    from pyddm.models import BoundConstant, DriftConstant, NoiseConstant

    def solve() -> tuple[np.ndarray, np.ndarray]:
        model = Model(
            drift=DriftConstant(drift=1), noise=NoiseConstant(noise=1), bound=BoundConstant(B=1), dx=dx, dt=dt, T_dur=t
        )
        solution = getattr(model, solver)()
        return solution.pdf("error"), solution.pdf("correct")

    return solve


def drift_rotating(x: Any, y: Any) -> tuple[Any, Any]:
    return -(x + 2 * y), 2 * x - y


def gaussian_ring(t: float) -> tuple[float, float, float]:
    """Mean and variance of the rotating Ornstein-Uhlenbeck process from G(1.5, 0.04) x G(0, 0.04)."""
    radius = 1.5 * math.exp(-t)
    return radius * math.cos(2 * t), radius * math.sin(2 * t), 0.04 * math.exp(-2 * t) + 0.5 * (1 - math.exp(-2 * t))
