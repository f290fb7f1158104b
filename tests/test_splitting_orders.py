"""Orders of the splitting in time, and in space and time together, measured with their intervals on exact solutions."""

import dataclasses
import warnings

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.stats import t as student

import sdesim as sde
from sdesim.fokker_planck import sparse, splitting
from sdesim.fokker_planck.cells import cell_averages, coarsen
from sdesim.on_grid import box_coefficients
from test_splitting import by_matrices, inverse, parts


def order(sizes, errors):
    """The slope of log error against log size, and half its 95 % interval."""
    x, y = np.log(sizes), np.log(errors)
    (slope, _), residual, *_ = np.polyfit(x, y, 1, full=True)
    spread = np.sqrt(residual[0] / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return -slope, student.ppf(0.975, len(x) - 2) * spread


def assert_order(sizes, errors, expected, width=0.15):
    found, half = order(sizes, errors)
    assert half < width, (found, half, errors)
    assert abs(found - expected) < half + 0.1, (found, half, errors)


def assert_towards(sizes, errors, expected, within):
    """Slopes between neighbouring sizes that rise towards the order, and have come near."""
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(sizes))
    assert (np.diff(slopes) > 0.0).all(), slopes
    assert slopes[-1] == pytest.approx(expected, abs=within), slopes


def averages(grid, mean, covariance):
    """Exact cell averages of a normal density, by quadrature."""
    precision, norm = np.linalg.inv(covariance), np.sqrt(np.linalg.det(2.0 * np.pi * covariance))

    def density(*x):
        away = np.stack(np.broadcast_arrays(*(y - c for y, c in zip(x, mean, strict=True))), -1)
        return np.exp(-0.5 * np.einsum("...i,ij,...j", away, precision, away)) / norm

    return cell_averages(grid, density, n_points=4)


# ---- a linear equation whose coefficients all depend on time, with correlated noise ---------------------------------


def pull(t):
    return np.array([[-1.0 - 0.5 * np.sin(2 * t), -1.2 * np.cos(t)], [0.9, -0.7]])


def push(t):
    return np.array([0.6 * np.cos(3 * t), -0.4 * t])


def noise(t):
    return np.array([[0.7 + 0.2 * np.sin(t), 0.0], [0.45 * np.cos(2 * t), 0.6 + 0.1 * t]])


@dataclasses.dataclass(frozen=True)
class Driven(sde.Process):
    """dX = (B(t) X + c(t)) dt + S(t) dW with S neither constant nor diagonal."""

    dim = 2
    noise = "general"

    def drift(self, x, t):
        a, b = x
        (p, q), (r, s) = pull(t)
        u, v = push(t)
        return p * a + q * b + u, r * a + s * b + v

    def diffusion(self, x, t):
        (p, q), (r, s) = noise(t)
        return (p, q), (r, s)


MEAN, COVARIANCE = np.array([0.5, -0.3]), np.array([[0.3, 0.1], [0.1, 0.25]])


def moments(t1):
    def slope(t, y):
        mean, c = y[:2], y[2:].reshape(2, 2)
        b, s = pull(t), noise(t)
        return np.concatenate([b @ mean + push(t), (b @ c + c @ b.T + s @ s.T).ravel()])

    y = solve_ivp(slope, (0.0, t1), np.concatenate([MEAN, COVARIANCE.ravel()]), rtol=1e-11, atol=1e-12).y[:, -1]
    return y[:2], y[2:].reshape(2, 2)


def solved(n, n_steps, t1=0.5, **options):
    grid = sde.Grid((-4, -4), (4, 4), (n, n))
    return evolved(Driven(), lambda g: averages(g, MEAN, COVARIANCE), grid, (0.0, t1), n_steps=n_steps, **options)


def evolved(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coarse cells are the point
        return sde.evolve_density(*args, **options)


def distance(rho, p):
    return float((abs(rho.final - p) * rho.grid.cell_volume).sum())


def test_second_order_in_time_with_coefficients_that_depend_on_it():
    steps = [12, 16, 24, 32, 48]
    found = {n: solved(32, n) for n in (*steps, 64, 128)}
    exact = (4.0 * found[128].final - found[64].final) / 3.0
    errors = [distance(found[n], exact) for n in steps]
    assert_order(steps, errors, 2.0)


def test_second_order_in_space_and_time_and_fourth_with_richardson():
    mean, covariance = moments(0.5)
    cells = [24, 32, 48, 64]
    plain = [solved(n, n // 4) for n in cells]
    exact = [averages(rho.grid, mean, covariance) for rho in plain]
    assert_order(cells, [distance(rho, p) for rho, p in zip(plain, exact, strict=True)], 2.0)
    errors = [distance(solved(n, n, richardson=True), p) for n, p in zip(cells, exact, strict=True)]
    assert_towards(cells, errors, 4.0, 0.25)
    # few steps show what extrapolation leaves of the damped start, of third order in the step
    fewer = distance(solved(64, 16, richardson=True), exact[-1])
    assert errors[-1] < fewer < 0.02 * distance(plain[-1], exact[-1])


def test_the_moments_are_those_of_the_ordinary_differential_equations():
    mean, covariance = moments(0.5)
    rho = solved(48, 16, richardson=True)
    np.testing.assert_allclose(rho.mean[-1], mean, atol=2e-4)
    np.testing.assert_allclose(rho.covariance[-1], covariance, atol=2e-3)


# ---- the second stage and its half ----------------------------------------------------------------------------------


def stepped(operator, m, n, half, t1=0.4):
    for _ in range(n):
        m = by_matrices(operator, m, t1 / n, half)
    return m


def test_the_half_of_the_second_stage_makes_the_order():
    # What the formula with matrices does, which the kernels are equal to; and what it would do without its half.
    spring = sde.ito(
        lambda x, t: (-x[0] - x[1], x[0] - x[1]), lambda x, t: ((1.0, 0.0), (0.6, 0.8)), dim=2, noise="general"
    )
    grid = sde.Grid((-4, -4), (4, 4), (12, 12))
    operator = box_coefficients(spring, grid, "reflecting").at(0.0)
    m = averages(grid, MEAN, COVARIANCE) * grid.cell_volume
    exact = (expm(0.4 * sparse.matrix(operator).toarray()) @ m.ravel()).reshape(m.shape)
    steps = [8, 12, 16, 24]
    assert_order(steps, [abs(stepped(operator, m, n, 0.5) - exact).sum() for n in steps], 2.0)
    for wrong in (0.0, 1.0):
        found, half = order(steps, [abs(stepped(operator, m, n, wrong) - exact).sum() for n in steps])
        assert found + half < 1.5

    lines, a, _ = parts(operator)
    once = []
    for n in steps:  # without the second stage at all
        y = m.ravel()
        for _ in range(n):
            y = y + inverse(lines, 0.5 * 0.4 / n, 0.4 / n * (a @ y))
        once.append(abs(y.reshape(m.shape) - exact).sum())
    assert order(steps, once)[0] < 1.5


# ---- three dimensions -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_ornstein_uhlenbeck_process_in_three_dimensions():
    pull = np.array([[1.0, 0.8, 0.0], [-0.8, 1.0, 0.4], [0.0, -0.4, 0.7]])
    push = np.array([[0.7, 0.0, 0.0], [0.2, 0.6, 0.0], [-0.1, 0.3, 0.7]])
    process = sde.ito(
        lambda x, t: tuple(-sum(float(b) * y for b, y in zip(row, x, strict=True)) for row in pull),
        lambda x, t: tuple(map(tuple, push.tolist())),
        dim=3,
        noise="general",
    )
    start_mean, start = np.array([0.4, -0.3, 0.2]), 0.35 * np.eye(3)
    decay, rest = expm(-0.4 * pull), solve_continuous_lyapunov(pull, push @ push.T)
    covariance = decay @ start @ decay.T + rest - decay @ rest @ decay.T
    cells, plain, better = [20, 24, 32, 40], [], []
    for n in cells:
        grid = sde.Grid((-3.4,) * 3, (3.4,) * 3, n)
        exact = averages(grid, decay @ start_mean, covariance)
        for richardson, errors in ((False, plain), (True, better)):
            if not richardson or n <= 32:
                rho = evolved(
                    process, lambda g: averages(g, start_mean, start), grid, (0.0, 0.4),
                    n_steps=n // 2, richardson=richardson,
                )  # fmt: skip
                if not richardson:
                    inside = float(averages(grid, start_mean, start).sum() * grid.cell_volume)
                    assert rho.mass[-1] == pytest.approx(inside, abs=1e-12)
                errors.append(distance(rho, exact))
    assert_towards(cells, plain, 2.0, 0.15)
    assert_towards(cells[:3], better, 4.0, 0.5)
    assert better[-1] < 0.1 * plain[2]


# ---- figures --------------------------------------------------------------------------------------------------------

TURNING = sde.ito(lambda x, t: (-x[0] - 2 * x[1], 2 * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2)


def turned(grid, t):
    v = 0.04 * np.exp(-2 * t) + 0.5 * (1 - np.exp(-2 * t))
    return averages(grid, 1.5 * np.exp(-t) * np.array([np.cos(2 * t), np.sin(2 * t)]), v * np.eye(2))


@pytest.mark.slow
def test_a_turning_field_to_two_parts_in_a_hundred_thousand():
    grid = sde.Grid((-5, -5), (5, 5), 128)
    rho = sde.evolve_density(TURNING, lambda g: turned(g, 0.0), grid, (0.0, 1.0), n_steps=100, richardson=True)
    assert distance(rho, turned(grid, 1.0)) < 1.2e-5
    assert abs(rho.mass[-1] - 1.0) < 1e-12
    assert rho.minimum > -1e-12
    plain = evolved(TURNING, lambda g: turned(g, 0.0), grid, (0.0, 1.0), rtol=1e-4)
    assert plain.minimum >= 0.0
    assert distance(plain, turned(grid, 1.0)) == pytest.approx(4.58e-3, rel=0.02)


def test_circles():
    # Each axis a circle with a drift round it: a wrapped normal density, the product of two.
    process = sde.ito(lambda x, t: (1.0, -0.5), lambda x, t: (0.5, 0.4), dim=2)
    cells, errors = [24, 32, 48, 64], []

    def exact(grid, t):
        factors = []
        for k, (drift, sigma) in enumerate(((1.0, 0.5), (-0.5, 0.4))):
            turns = np.arange(-3, 4)
            mean, variance = 0.3 + drift * t + 2 * np.pi * turns, 0.16 + sigma**2 * t
            axis = grid.axes[k]
            factors.append(
                cell_averages(
                    axis,
                    lambda x, m=mean, v=variance: (
                        np.exp(-0.5 * (x[..., None] - m) ** 2 / v) / np.sqrt(2 * np.pi * v)
                    ).sum(-1),
                )
            )
        return np.multiply.outer(*factors)

    for n in cells:
        grid = sde.Grid((0.0, 0.0), (2 * np.pi, 2 * np.pi), (n, n))
        rho = evolved(
            process, lambda g: exact(g, 0.0), grid, (0.0, 3.0), n_steps=2 * n, boundary="periodic", richardson=True
        )
        errors.append(distance(rho, exact(grid, 3.0)))
        assert rho.mass[-1] == pytest.approx(1.0, abs=1e-12)
    found, half = order(cells, errors)
    assert found + half > 3.8, (found, half, errors)


def test_halves_and_fine_cells_agree_with_the_formula_for_richardson():
    # What evolve_density does, by hand: the fine run repeats the coarse run's own steps in halves.
    coarse, fine = (box_coefficients(TURNING, sde.Grid((-4, -4), (4, 4), n), "reflecting") for n in (24, 48))
    start = [turned(c.grid, 0.0) * c.grid.cell_volume for c in (coarse, fine)]
    first = splitting.evolve(coarse, start[0], 0.0, [0.5], 1e-5)
    second = splitting.evolve(fine, start[1], 0.0, [0.5], 1e-5, halved=first.steps)
    by_hand = (4.0 * coarsen(second.m, 2) - first.m)[0] / 3.0 / coarse.grid.cell_volume
    rho = evolved(
        TURNING, lambda g: turned(g, 0.0), coarse.grid, (0.0, 0.5), rtol=1e-4, richardson=True, boundary="reflecting"
    )
    np.testing.assert_allclose(rho.final, by_hand, rtol=0, atol=1e-12)
