"""Densities where noise acts on some axes or none: Liouville's equation and the kinetic Fokker-Planck equation."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import sdesim as sde
from sdesim.fokker_planck import sparse
from sdesim.fokker_planck.stationary_box import box_stationary
from sdesim.on_grid import box_coefficients


def still(drift, dim=2):
    return sde.ito(drift, lambda x, t: (0.0,) * dim, dim=dim)


def slope(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def distance(p, q, grid):
    return float((np.abs(p - q) * grid.cell_volume).sum())


def bump(grid, *args):
    p = sde.gaussian(grid, *args)
    return p / (p * grid.cell_volume).sum()


# ---- no noise at all ------------------------------------------------------------------------------------------------

ROTATION = still(lambda x, t: (-x[1], x[0]))


def test_a_turned_bump_keeps_its_height():
    grid = sde.Grid((-1, -1), (1, 1), 128)
    p0 = bump(grid, (0.5, 0.0), 0.1)
    rho = sde.evolve_density(ROTATION, p0, grid, (0.0, 2 * np.pi), n_steps=100)
    assert rho.final.max() / p0.max() == pytest.approx(1.0, abs=0.002)
    assert distance(rho.final, p0, grid) < 0.005
    assert rho.minimum >= 0.0
    assert rho.mass[-1] == pytest.approx(1.0, abs=1e-12)


def test_the_error_of_a_turn_is_of_second_order_in_the_step():
    grid = sde.Grid((-1, -1), (1, 1), 96)
    p0, steps = bump(grid, (0.5, 0.0), 0.12), (20, 28, 40)
    errors = [
        distance(sde.evolve_density(ROTATION, p0, grid, (0, 2 * np.pi), n_steps=n).final, p0, grid) for n in steps
    ]
    assert 1.85 < slope(steps, errors) < 2.2


def test_the_steps_that_the_error_control_takes_keep_the_height_as_well():
    grid = sde.Grid((-1, -1), (1, 1), 64)
    p0 = bump(grid, (0.45, 0.0), 0.15)
    rho = sde.evolve_density(ROTATION, p0, grid, (0.0, 2 * np.pi), rtol=1e-4)
    assert rho.final.max() / p0.max() == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("boundary", [("reflecting", "periodic"), ("periodic", "reflecting")])
def test_a_shear_on_a_cylinder_is_exact_in_time(boundary):
    """dx = y dt, or the other way round, with x on a circle: one step or many, the same density."""
    swap = boundary[0] == "reflecting"
    grid = sde.Grid((-1, -2) if swap else (-2, -1), (1, 2) if swap else (2, 1), (40, 80) if swap else (80, 40))
    shear = still((lambda x, t: (0.0 * x[0], x[0])) if swap else (lambda x, t: (x[1], 0.0 * x[1])))
    p0 = bump(grid, (0.3, 0.5) if swap else (0.5, 0.3), 0.2)
    rho = sde.evolve_density(shear, p0, grid, (0.0, 7.0), n_steps=1, boundary=boundary)
    along, across = (1, 0) if swap else (0, 1)
    start, end = (np.moveaxis(p, along, 0) for p in (p0, rho.final))
    x, y = grid.centers[along], grid.centers[across]
    # the mean direction of each line on the circle turns by 2π · 7 y / 4
    turn = np.angle(np.exp(0.5j * np.pi * x) @ end / (np.exp(0.5j * np.pi * x) @ start))
    seen = start.sum(axis=0) > 1e-6 * start.sum(axis=0).max()
    np.testing.assert_allclose(np.exp(1j * turn)[seen], np.exp(3.5j * np.pi * y)[seen], atol=1e-5)


def squeezed(grid, t):
    """Cell averages of p where dx = (−x + y²) dt, dy = −y dt: e^{2t} p0 at the point that came here."""

    def density(x, y):
        y0 = y * np.exp(t)
        x0 = x * np.exp(t) - y0**2 * (1 - np.exp(-t))
        return np.exp(2 * t - 0.5 * ((x0 - 0.3) ** 2 + (y0 - 0.4) ** 2) / 0.35**2) / (2 * np.pi * 0.35**2)

    return sde.cell_averages(grid, density)


def test_a_flow_that_squeezes_has_the_density_of_its_characteristics():
    """Lines move as their centres do: second order across them, which Richardson extrapolation takes away."""
    process = still(lambda x, t: (-x[0] + x[1] ** 2, -x[1]))
    sizes, plain, extrapolated = (48, 72, 108), [], []
    for n in sizes:
        grid = sde.Grid((-2.5, -2.0), (3.5, 2.4), n)
        for errors, richardson in ((plain, False), (extrapolated, True)):
            rho = sde.evolve_density(
                process, lambda g: squeezed(g, 0.0), grid, (0.0, 0.5), n_steps=50, richardson=richardson
            )
            errors.append(distance(rho.final, squeezed(grid, 0.5), grid))
    assert plain[-1] < 6e-4
    assert slope(sizes, plain) > 1.9
    assert extrapolated[-1] < 2.5e-5
    assert slope(sizes, extrapolated) > 3.7


def test_a_pendulum_carries_its_density_along():
    """q on a circle, p0 = exp(cos(q − 1) 8 − 8 p²) carried by dq = p dt, dp = −sin q dt."""
    process = still(lambda x, t: (x[1], -np.sin(x[0])))
    grid = sde.Grid((-np.pi, -3.2), (np.pi, 3.2), (72, 72))

    def density(q, p):
        return np.exp(8.0 * np.cos(q - 1.0) - 8.0 - 8.0 * p**2)

    def later(q, p):
        q, p = np.broadcast_arrays(q, p)
        flow = lambda t, y: np.concatenate([-y[y.size // 2 :], np.sin(y[: y.size // 2])])  # noqa: E731
        back = solve_ivp(flow, (0.0, 3.0), np.concatenate([q.ravel(), p.ravel()]), rtol=1e-6, atol=1e-6).y[:, -1]
        return density(*back.reshape(2, *q.shape))

    total = (sde.cell_averages(grid, density) * grid.cell_volume).sum()
    p0 = sde.cell_averages(grid, density) / total
    rho = sde.evolve_density(process, p0, grid, (0.0, 3.0), n_steps=120, boundary=("periodic", "reflecting"))
    assert distance(rho.final, sde.cell_averages(grid, later) / total, grid) < 8e-3
    assert rho.final.max() == pytest.approx(p0.max(), rel=0.01)


def test_a_bump_turns_in_three_dimensions():
    """About the axis (1, 1, 1): after a third of a turn x, y, z have changed places."""
    process = still(lambda x, t: (x[2] - x[1], x[0] - x[2], x[1] - x[0]), 3)
    grid = sde.Grid((-1,) * 3, (1,) * 3, 40)
    p0, after = bump(grid, (0.35, 0.0, 0.0), 0.15), bump(grid, (0.0, 0.35, 0.0), 0.15)
    rho = sde.evolve_density(process, p0, grid, (0.0, 2 * np.pi / 3 / np.sqrt(3.0)), n_steps=24)
    assert distance(rho.final, after, grid) < 0.01
    assert rho.final.max() == pytest.approx(after.max(), rel=0.01)


# ---- noise on the velocity ------------------------------------------------------------------------------------------

FRICTION = 0.5
SPRING = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), FRICTION, 1.0)
MEAN, STD, END = (1.5, 0.0), (0.5, 0.6), 2.0


def spring_law(t):
    """Mean and covariance of dq = v dt, dv = (−q − γ v) dt + √(2γ) dW."""
    e = expm(t * np.array([[0.0, 1.0], [-1.0, -FRICTION]]))
    return e @ MEAN, np.eye(2) + e @ (np.diag(np.square(STD)) - np.eye(2)) @ e.T


def spring_density(grid, t):
    mean, cov = spring_law(t)
    a, b, c = np.linalg.inv(cov)[[0, 0, 1], [0, 1, 1]]

    def density(q, v):
        q, v = q - mean[0], v - mean[1]
        return np.exp(-0.5 * (a * q * q + 2 * b * q * v + c * v * v)) * np.sqrt(a * c - b * b) / (2 * np.pi)

    return sde.cell_averages(grid, density)


def spring(n, steps, richardson=False):
    grid = sde.Grid((-6, -6), (6, 6), n)
    start = lambda g: sde.gaussian(g, MEAN, STD)  # noqa: E731
    return grid, sde.evolve_density(SPRING, start, grid, (0, END), n_steps=steps, richardson=richardson)


def test_the_kinetic_density_of_a_spring_is_the_exact_gaussian():
    grid, rho = spring(96, 64, richardson=True)
    mean, cov = spring_law(END)
    assert distance(rho.final, spring_density(grid, END), grid) < 5e-5
    np.testing.assert_allclose(rho.mean[0], mean, atol=5e-5)
    np.testing.assert_allclose(rho.covariance[0], cov, atol=5e-5)


def test_its_error_is_of_second_order_in_the_step():
    _, reference = spring(48, 320)
    steps = (24, 36, 54)
    errors = [distance(spring(48, n)[1].final, reference.final, reference.grid) for n in steps]
    assert 1.8 < slope(steps, errors) < 2.3


def test_and_in_the_cells():
    sizes = (40, 60, 90)
    errors = []
    for n in sizes:
        grid, rho = spring(n, 200)
        errors.append(distance(rho.final, spring_density(grid, END), grid))
    assert 1.6 < slope(sizes, errors) < 2.4


def kinetic_equilibrium(grid, beta):
    def density(q, v):
        return np.exp(-beta * (q * q - 1) ** 2 - 0.5 * v * v)

    p = sde.cell_averages(grid, density)
    return p / (p * grid.cell_volume).sum()


def test_the_boltzmann_law_is_kept_to_second_order():
    """p(q) N(v; 0, T) at rest in the quartic well, by the steps and by the matrix of steady problems."""
    process = sde.UnderdampedLangevin(sde.targets.DoubleWellDensity(2.0), 1.0, 1.0)
    sizes, moved, residuals = (60, 84, 120), [], []
    for n in sizes:
        grid = sde.Grid((-2.3, -5.5), (2.3, 5.5), n)
        p = kinetic_equilibrium(grid, 2.0)
        rho = sde.evolve_density(process, p, grid, (0.0, 1.0), n_steps=200)
        moved.append(distance(rho.final, p, grid))
        operator = box_coefficients(process, grid, "reflecting").at(0.0)
        residuals.append(np.abs(sparse.matrix(operator) @ (p * grid.cell_volume).ravel()).sum())
    assert moved[-1] < 0.004
    assert slope(sizes, moved) > 1.8
    assert slope(sizes, residuals) > 1.8


def test_what_crosses_an_open_wall_is_counted():
    process = sde.UnderdampedLangevin(sde.targets.DoubleWellDensity(1.0), 1.0, 1.0)
    grid = sde.Grid((-2.3, -5.0), (0.0, 5.0), (60, 60))
    p0 = bump(grid, (-1.0, 0.0), (0.15, 0.8))
    rho = sde.evolve_density(
        process, p0, grid, (0.0, 3.0), n_steps=300, boundary=(("reflecting", "absorbing"), "reflecting")
    )
    assert rho.mass[-1] + rho.absorbed[-1].sum() == pytest.approx(1.0, abs=1e-12)
    assert 0.2 < rho.absorbed[-1][0, 1] < 0.8
    assert np.abs(rho.absorbed[-1].sum() - rho.absorbed[-1][0, 1]) < 1e-12
    # nothing comes back: next to the wall the density of v < 0 is that of what has turned round inside
    q_last = rho.final[-1]
    v = grid.centers[1]
    assert q_last[v < -0.5].sum() < 0.2 * q_last[v > 0.5].sum()


# ---- at rest and out of the well ------------------------------------------------------------------------------------

WELL = sde.UnderdampedLangevin(sde.targets.DoubleWellDensity(2.0), 1.0, 1.0)
OUT = (("reflecting", "absorbing"), "reflecting")


def test_the_density_at_rest_is_boltzmanns():
    sizes, errors = (48, 72, 108), []
    for n in sizes:
        grid = sde.Grid((-2.0, -5.0), (2.0, 5.0), n)
        operator = box_coefficients(WELL, grid, "reflecting").at(0.0)
        m = box_stationary(operator, report=False)
        errors.append(distance(m / grid.cell_volume, kinetic_equilibrium(grid, 2.0), grid))
    assert errors[-1] < 0.006
    assert slope(sizes, errors) > 1.8


def test_times_over_the_barrier_converge_and_end_where_the_flow_leads_out():
    grids = [sde.Grid((-2.2, -5.0), (0.0, 5.0), cells) for cells in ((40, 60), (60, 90), (90, 136))]
    times = [sde.mean_first_passage_time(WELL, grid, boundary=OUT, richardson=True) for grid in grids]
    first, second, third = (u([-1.0, 0.0]) for u in times)
    assert third == pytest.approx(16.464, rel=3e-4)
    assert abs(third - second) < 0.5 * abs(second - first)
    # at the wall the clock stops for v > 0 only
    assert times[-1]([-0.001, 2.0]) < 0.01
    assert times[-1]([-0.001, -1.0]) == pytest.approx(times[-1]([-0.05, -1.0]), rel=0.05)


@pytest.mark.slow
def test_times_over_the_barrier_are_those_of_paths():
    n, steps = 100_000, 6000
    watch = sde.FirstPassage(upper=0.0, bins=2)
    run = sde.simulate(
        WELL, [-1.0, 0.0], (0.0, 100.0), n_steps=steps, n_paths=n, method="baoab", reduce=[watch], seed=1
    )
    passed = run.reductions[0]
    half, left = passed.survival[1:]
    late = 50.0 / np.log(half / left)
    mean = passed.mean_time * (1.0 - left) + left * (100.0 + late)
    grid = sde.Grid((-2.2, -5.5), (0.0, 5.5), (100, 140))
    solved = sde.mean_first_passage_time(WELL, grid, boundary=OUT, richardson=True)([-1.0, 0.0])
    assert abs(mean - solved) < 3.0 * late / np.sqrt(n)
    # the power of this: two per cent off is found
    assert abs(mean - 1.02 * solved) > 3.0 * late / np.sqrt(n)


@pytest.mark.slow
def test_the_gap_is_the_rate_at_which_the_autocorrelation_falls():
    process = sde.Langevin(sde.targets.DoubleWellDensity(2.0))
    gap = sde.relaxation_modes(process, sde.Grid(-2.5, 2.5, 400), 2).gap
    rates = []
    for seed in range(16):
        start = process.target.sample(4096, seed=seed)
        follow = sde.Autocorrelation(24)
        run = sde.simulate(process, start, (0.0, 40.0), n_steps=4000, method="sra", save=25, reduce=[follow], seed=seed)
        rho = run.reductions[0].autocorrelation
        rates.append(np.log(rho[2] / rho[12]) / 2.5)
    error = np.std(rates, ddof=1) / 4.0
    assert error < 0.01 * gap
    assert abs(np.mean(rates) - gap) < 3.0 * error
