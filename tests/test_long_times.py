"""Times that are long against the fastest jumps between cells by ten orders and more: what is slow keeps its digits.

In one dimension an elimination that finds its pivots by subtraction would leave an error of 1e-16 times the fastest
rate times t: a mass off by 4e-5 at t = 1e10 in the first test, and by 2 % at 1e12.
"""

import numpy as np
import pytest

import sdesim as sde
from matrices import dense
from sdesim.fokker_planck import tridiagonal
from sdesim.fokker_planck.operator import Coefficients
from sdesim.fokker_planck.steppers import ALPHA

SPRING, GRID = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sde.Grid(-5, 5, 100)


@pytest.mark.parametrize("t", [1e8, 1e10, 1e12, 1e15])
@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
def test_a_spring_comes_to_rest_and_keeps_its_mass(method, t):
    rho = sde.evolve_density(SPRING, sde.point_mass(GRID, 1.0), GRID, (0.0, t), method=method)
    assert abs(rho.mass[0] - 1.0) < 1e-14
    assert abs(rho.final - sde.stationary_density(SPRING, GRID).final).max() < 1e-13
    assert rho.n_steps < 1000


@pytest.mark.parametrize(("method", "t"), [("cf14", 1e15), ("tr_bdf2", 1e9)])
def test_expectations_forget_their_start(method, t):
    u = sde.evolve_expectation(SPRING, GRID.centers**2, GRID, (0.0, t), method=method).final
    rest = sde.stationary_density(SPRING, GRID).final @ GRID.centers**2 * GRID.spacing
    assert abs(u - rest).max() < 1e-11


@pytest.mark.parametrize("share", [1e-3, 0.3, 1.0, 3.0])
def test_wells_mix_at_the_rate_of_their_gap(share):
    # a barrier of 20 kT: it is passed once in 2.7e7 units of time, in which there are 1e11 jumps between cells
    process, grid = sde.DoubleWell(10.0, 0.5), sde.Grid(-2.5, 2.5, 400)
    gap = sde.relaxation_modes(process, grid, 2).gap
    assert gap < 1e-7
    rho = sde.evolve_density(process, sde.point_mass(grid, 1.0), grid, (0.0, share / gap))
    assert rho.mass[0] == pytest.approx(1.0, abs=1e-14)
    passed = rho.cdf[0, 200]
    assert passed == pytest.approx(-0.5 * np.expm1(-share), rel=1e-4 if share < 0.1 else 1e-7)


@pytest.mark.parametrize("method", ["cf14", "contour", "backwards"])
def test_the_survivors_of_a_rare_escape_are_those_of_its_slowest_mode(method):
    process, grid, walls = sde.DoubleWell(20.0, 1.0), sde.Grid(-2.5, 0.0, 200), ("reflecting", "absorbing")
    rate = float(sde.relaxation_modes(process, grid, 1, boundary=walls).rates[0])
    assert rate < 1e-7
    t = 3.0 / rate
    if method == "cf14":
        rho = sde.evolve_density(process, sde.point_mass(grid, -1.0), grid, (0.0, t), boundary=walls)
        left = rho.mass[0]
        assert left + rho.absorbed.sum() == pytest.approx(1.0, abs=1e-14)
    elif method == "contour":
        left = sde.first_passage_density(process, grid, -1.0, (0.0, t), boundary=walls, bins=20).survival[-1]
    else:
        left = sde.evolve_expectation(process, np.ones(200), grid, (0.0, t), boundary=walls)(-1.0)
    # from the bottom of the well the mode starts with all of the mass but a few parts in 1e9
    assert left == pytest.approx(np.exp(-3.0), rel=1e-7)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("walls", ["reflecting", "absorbing", ("absorbing", sde.Robin(0.7))])
def test_factors_and_products_do_not_read_the_diagonal(turned, walls):
    grid = sde.Grid(-1.0, 2.0, 12)
    operator = Coefficients(lambda x, t: 3.0 * np.sin(2.0 * x), lambda x, t: 0.5 + x * x, grid, walls).at(0.0)
    lower, diagonal, upper = operator.bands
    a, bands = dense(operator), operator.bands
    if turned:
        a, bands = a.T, np.stack([np.roll(upper, 1), diagonal, np.roll(lower, -1)])
    bands = bands.copy()
    bands[1] = np.nan
    x = np.random.default_rng(3).random(12)
    applied = tridiagonal.apply(bands, operator.absorption, turned, x, np.zeros(2))
    np.testing.assert_allclose(applied, a @ x, rtol=1e-12, atol=1e-12)
    factors = tridiagonal.factor(bands, operator.absorption, turned, 1.0, ALPHA * 0.3, False)
    y = x.copy()
    tridiagonal.solve(factors, y, False)
    np.testing.assert_allclose(y, np.linalg.solve(np.eye(12) - ALPHA * 0.3 * a, x), rtol=1e-12)


def test_a_turning_density_in_the_plane_is_left_alone_once_it_is_at_rest():
    process = sde.ito(lambda x, t: (-x[0] - x[1], x[0] - x[1]), lambda x, t: 1.0, dim=2)
    grid = sde.Grid((-4.0, -4.0), (4.0, 4.0), 32)
    p0 = sde.gaussian(grid, (0.5, 0.0), 0.5)
    p0 /= p0.sum() * grid.cell_volume
    rest = sde.stationary_density(process, grid).final
    rho = sde.evolve_density(process, p0, grid, (0.0, 1e6), save=[1.0, 1e3, 1e6], rtol=1e-5)
    assert rho.n_steps < 1000
    assert abs(rho.p[1:] - rest).max() < 1e-6 < abs(rho.p[0] - rest).max()
    # times that are close together are none the less stepped to: what each of them leaves out would add up
    close = np.linspace(0.0, 0.5, 501)[1:]
    seen = sde.evolve_density(process, p0, grid, (0.0, 0.5), save=close, rtol=1e-2).final
    exact = sde.evolve_density(process, p0, grid, (0.0, 0.5), rtol=1e-4).final
    assert abs(seen - exact).max() < 2e-3 < 0.05 < abs(p0 - exact).max()
