"""Unequal cells: grids that hold them, starts on them, the solver's orders, grids that follow the solution, domains."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.fokker_planck.cells import coarsen, refine
from sdesim.fokker_planck.operator import Coefficients

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
WELLS = sde.ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: math.sqrt(2.0))


def graded(n, lower=-5.0, upper=5.0, near=(0.2, 1.5), width=0.8, finest=0.25):
    return sde.Grid.graded(lower, upper, n, near=near, width=width, finest=finest)


def l1(p, q, grid):
    return float((np.abs(p - q) * grid.cell_volume).sum())


def slopes(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


def ou_law(t, mean=1.5, std=0.1):
    return mean * math.exp(-t), math.sqrt(std**2 * math.exp(-2 * t) + 0.5 * (1 - math.exp(-2 * t)))


# ---- grids ----------------------------------------------------------------------------------------------------------


def test_a_graded_grid_is_fine_where_it_was_asked_to_be():
    grid = graded(200)
    (h,) = grid.widths
    assert not grid.uniform
    assert grid.shape == (200,)
    assert (grid.edges[0], grid.edges[-1]) == (-5.0, 5.0)
    assert h.sum() == pytest.approx(10.0, rel=1e-14)
    np.testing.assert_allclose(grid.centers, 0.5 * (grid.edges[1:] + grid.edges[:-1]))
    np.testing.assert_array_equal(grid.cell_volume, grid.spacing)
    assert h.min() / h.max() == pytest.approx(0.25, rel=0.02)
    for point in (0.2, 1.5):
        assert h[np.argmin(np.abs(grid.centers - point))] < 1.02 * h.min()
    # two points at one place are one
    twice = graded(200, near=(0.3, 0.3 + 1e-9))
    assert twice.widths[0].min() / twice.widths[0].max() == pytest.approx(0.25, rel=0.02)


def test_cells_hold_equal_shares_of_the_density_that_was_asked_for():
    grid = sde.Grid.equidistributed(0.0, 2.0, 50, lambda x: 1.0 + x**2)
    shares = np.diff(grid.edges + grid.edges**3 / 3)
    np.testing.assert_allclose(shares, (2 + 8 / 3) / 50, rtol=1e-6)
    assert sde.Grid.equidistributed(0.0, 2.0, 50, lambda x: 3.0 + 0 * x).uniform


def test_products_and_refinement_keep_what_the_axes_are():
    x, y = graded(40), sde.Grid(0.0, 1.0, 10)
    both = sde.Grid.product(x, y)
    assert both.shape == (40, 10)
    assert [a.uniform for a in both.axes] == [False, True]
    assert both.axes[0] == x
    assert both.axes[1] == y
    assert both.cell_volume.shape == (40, 10)
    assert both.cell_volume.sum() == pytest.approx(10.0, rel=1e-13)
    np.testing.assert_allclose(both.cell_volume, np.outer(x.spacing, np.full(10, y.spacing)))
    fine = both.refined(2)
    assert fine.shape == (80, 20)
    np.testing.assert_allclose(fine.axes[0].edges[::2], x.edges, atol=1e-14)
    assert fine.axes[1] == y.refined(2)
    # the finer edges lie on the same map, to fourth order
    away = []
    for n in (40, 80, 160):
        halved = graded(n).refined(2).edges - graded(2 * n).edges
        away.append(np.abs(halved).max() * n)
    assert (slopes(away) > 2.7).all()


def test_grids_are_equal_where_their_edges_are():
    assert graded(30) == graded(30)
    assert hash(graded(30)) == hash(graded(30))
    assert graded(30) != graded(31)
    assert graded(30) != sde.Grid(-5.0, 5.0, 30)
    assert sde.Grid.from_edges(np.linspace(0, 1, 11)) == sde.Grid(0.0, 1.0, 10)
    assert sde.Grid.from_edges(np.linspace(0, 1, 11), graded(30).edges).shape == (10, 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.Grid.from_edges([0, 1, 2]), "at least 4 numbers"),
        (lambda: sde.Grid.from_edges([0, 1, 1, 2]), "edges must increase; index 2: 1 after 1"),
        (lambda: sde.Grid.from_edges([0, 1, 2, 4]), "neighbouring cells differ too much: widths 1 and 2 at 2"),
        (lambda: sde.Grid.from_edges(), "1 to 3 dimensions, got 0"),
        (lambda: graded(30, finest=1.5), "finest must be <= 1"),
        (lambda: graded(30, width=0.0), "width must be > 0"),
        (lambda: graded(12, width=0.05, finest=0.01), "grade the cells more slowly"),
        (lambda: sde.Grid.equidistributed(0.0, 1.0, 20, lambda x: x - 0.5), "a number > 0 for each x"),
        (lambda: sde.Grid.equidistributed((0, 0), (1, 1), 20, lambda x: 1 + x), "combine several"),
    ],
)
def test_edges_that_make_no_grid_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- starts ---------------------------------------------------------------------------------------------------------


@given(x=st.floats(-4.85, 4.85))
@settings(max_examples=60)
def test_a_point_mass_has_the_right_mean_on_unequal_cells(x):
    grid = graded(41)
    m = sde.point_mass(grid, x) * grid.cell_volume
    i = int(np.argmin(np.abs(grid.centers - x)))
    assert m.sum() == pytest.approx(1.0, abs=1e-13)
    assert m.min() >= 0.0
    assert np.count_nonzero(m) <= 3
    if 0 < i < 40:
        assert m @ grid.centers == pytest.approx(x, abs=1e-12)
        variance = float(m @ (grid.centers - x) ** 2)
        h = grid.widths[0]
        assert h[i] ** 2 / 12 * (1 - 1e-9) <= variance <= 0.3 * h[i - 1 : i + 2].max() ** 2
    spline = sde.point_mass(grid, x, order=4) * grid.cell_volume
    assert spline.sum() == pytest.approx(1.0, abs=1e-13)
    assert spline.min() >= 0.0


def test_gaussians_and_their_halves_on_unequal_cells():
    errors = []
    for n in (60, 120):
        grid = graded(n)
        m = sde.gaussian(grid, 0.4, 0.5) * grid.cell_volume
        assert m.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(
            sde.gaussian(grid, 0.4, 0.5),
            sde.cell_averages(grid, lambda x: np.exp(-2 * (x - 0.4) ** 2) / math.sqrt(math.pi / 2)),
            atol=1e-9,
        )
        fine = grid.refined(2)
        halves, touched = refine(m, (False,))
        assert touched < 1e-6
        np.testing.assert_allclose(coarsen(halves, 1), m, atol=1e-16)
        errors.append(np.abs(halves - sde.gaussian(fine, 0.4, 0.5) * fine.cell_volume).sum())
    assert slopes(errors)[0] > 3.5


def test_a_gaussian_narrower_than_its_cells_is_warned_of():
    grid = sde.Grid(-5.0, 5.0, 100)
    with pytest.warns(UserWarning, match=r"std = 0.02 is narrower than the cells .* Take about 250 cells"):
        sde.gaussian(grid, 0.03, 0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sde.gaussian(grid, 0.03, 0.05)
        sde.gaussian(graded(200, near=0.0, width=0.3, finest=0.1), 0.03, 0.02)


# ---- orders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("richardson", "order"), [(False, 2), (True, 4)])
def test_the_orders_are_those_of_equal_cells(richardson, order):
    laws = {"gaussian": [], "point": [], "wells": []}
    passages = []
    exact_passage = sde.first_passage_density(OU, sde.Grid(-1, 1, 600), 0.0, (0, 2), bins=20, richardson=True).cdf
    for n in (60, 120, 240):
        grid = graded(n)
        rho = sde.evolve_density(OU, lambda g: sde.gaussian(g, 1.5, 0.1), grid, (0, 2), richardson=richardson)
        laws["gaussian"].append(l1(rho.final, sde.gaussian(grid, *ou_law(2)), grid))
        assert abs(rho.mass[-1] - 1.0) < 1e-12
        grid = graded(n, -6, 6, near=0.31, width=1.0)
        start = 4 if richardson else 2
        rho = sde.evolve_density(
            sde.Wiener(1.0), lambda g, s=start: sde.point_mass(g, 0.31, order=s), grid, (0, 1), richardson=richardson
        )
        laws["point"].append(l1(rho.final, sde.gaussian(grid, 0.31, 1.0), grid))
        grid = graded(n, -2.5, 2.5, near=(-1, 1), width=0.4, finest=0.3)
        m = sde.stationary_density(WELLS, grid).masses[0]
        if richardson:
            m = (4 * coarsen(sde.stationary_density(WELLS, grid.refined(2)).masses[0], 1) - m) / 3
        exact = sde.cell_averages(grid, lambda x: np.exp(-5 * (x * x - 1) ** 2)) * grid.cell_volume
        laws["wells"].append(float(np.abs(m - exact / exact.sum()).sum()))
        grid = graded(n, -1, 1, near=(-1, 1), width=0.3, finest=0.3)
        found = sde.first_passage_density(OU, grid, 0.0, (0, 2), bins=20, richardson=richardson)
        passages.append(np.abs(found.cdf - exact_passage).max())
    for name, errors in {**laws, "passage": passages}.items():
        assert (abs(slopes(errors) - order) < 0.45).all(), (name, errors)


def test_time_dependence_and_state_dependent_noise_on_unequal_cells():
    # dX = σ X dW (Itô) with a clock c(t): lognormal with variance σ² ∫ c
    process = sde.ito(lambda x, t: 0.0 * x, lambda x, t: 0.3 * x * np.sqrt(1.0 + 0.5 * np.sin(3.0 * t)))
    s2 = 0.09 * (1.0 + 0.5 * (1.0 - math.cos(3.0)) / 3.0) + 0.01

    def law(grid, v, m):
        z = (np.log(grid.edges) - m) / math.sqrt(2 * v)
        return np.diff([0.5 * math.erfc(-a) for a in z]) / grid.spacing

    errors = []
    for n in (60, 120, 240):
        grid = sde.Grid.equidistributed(0.1, 8.0, n, lambda x: 1.0 / x)
        rho = sde.evolve_density(process, law(grid, 0.01, -0.005), grid, (0, 1), rtol=1e-7)
        errors.append(l1(rho.final, law(grid, s2, -0.5 * s2), grid))
    assert errors[-1] < 3e-4
    assert (abs(slopes(errors) - 2.0) < 0.3).all(), errors


@given(seed=st.integers(0, 10**6), boundary=st.sampled_from(["reflecting", "periodic", "absorbing"]))
@settings(max_examples=25, deadline=None)
def test_the_operator_is_a_generator_on_any_cells(seed, boundary):
    rng = np.random.default_rng(seed)
    edges = np.concatenate([[0.0], np.cumsum(np.exp(np.cumsum(rng.uniform(-0.3, 0.3, 20))))])
    grid = sde.Grid.from_edges(edges * (3.0 / edges[-1]))
    operator = Coefficients(lambda x, t: np.sin(x), lambda x, t: 1.1 + np.cos(x), grid, boundary).at(0.0)
    lower, diagonal, upper = operator.bands
    lost = np.zeros(20)
    lost[[0, -1]] = operator.absorption
    np.testing.assert_allclose(np.roll(lower, -1) + diagonal + np.roll(upper, 1), -lost, atol=1e-12 * -diagonal.min())
    assert min(lower.min(), upper.min()) >= 0.0
    if boundary == "reflecting":
        # detailed balance: D p exponential of ∫ μ/D at the nodes
        m = sde.stationary_density(sde.ito(lambda x, t: -x, lambda x, t: 1.0), grid, boundary).final
        np.testing.assert_allclose(np.diff(np.log(m)), -np.diff(grid.centers**2), rtol=1e-10, atol=1e-10)


def test_characteristics_refuse_unequal_cells():
    with pytest.raises(ValueError, match="needs equal cells"):
        sde.evolve_density(
            sde.ito(lambda x, t: -x, lambda x, t: 0.0), sde.gaussian(graded(50), 0, 1), graded(50), (0, 1)
        )


# ---- grids that follow the solution ---------------------------------------------------------------------------------


def sharp_start(grid):
    return sde.gaussian(grid, 0.3, 0.03)


@pytest.mark.parametrize(("richardson", "gain"), [(False, 25.0), (True, 1000.0)])
def test_an_adapted_grid_has_a_smaller_error_where_the_density_is_sharp(richardson, gain):
    even = sde.Grid(-5.0, 5.0, 300)
    grid = sde.adapted_grid(sde.Wiener(1.0), sharp_start, even, (0, 0.01))
    assert grid.shape == (300,)
    assert (grid.lower, grid.upper) == (-5.0, 5.0)
    (h,) = grid.widths
    assert np.maximum(h[1:] / h[:-1], h[:-1] / h[1:]).max() < 1.3
    errors = []
    for g in (even, grid):
        rho = sde.evolve_density(sde.Wiener(1.0), sharp_start, g, (0, 0.01), richardson=richardson)
        errors.append(l1(rho.final, sde.gaussian(g, 0.3, math.sqrt(0.0109)), g))
    assert errors[0] / errors[1] > gain


def test_an_adapted_grid_keeps_the_order():
    errors = []
    for n in (60, 120, 240):
        grid = sde.adapted_grid(OU, lambda g: sde.gaussian(g, 1.5, 0.1), sde.Grid(-5, 5, n), (0, 2))
        rho = sde.evolve_density(OU, lambda g: sde.gaussian(g, 1.5, 0.1), grid, (0, 2), richardson=True)
        errors.append(l1(rho.final, sde.gaussian(grid, *ou_law(2)), grid))
    assert errors[-1] < 1e-7
    assert (slopes(errors) > 3.0).all(), errors


def test_adapting_to_a_density_that_fills_its_box_changes_little():
    even = sde.Grid(0.0, 1.0, 60)
    grid = sde.adapted_grid(sde.Wiener(1.0), lambda g: np.ones(g.shape), even, (0, 1))
    assert (grid.lower, grid.upper, grid.n_cells) == (0.0, 1.0, 60)
    around = sde.adapted_grid(
        sde.ito(lambda x, t: np.sin(x), lambda x, t: 0.6),
        0.5,
        sde.Grid(-math.pi, math.pi, 80),
        (0, 1),
        boundary="periodic",
    )
    (h,) = around.widths
    assert max(h[0] / h[-1], h[-1] / h[0]) < 1.2


def test_what_cannot_be_adapted_is_said():
    with pytest.raises(TypeError, match="an array suits one grid only"):
        sde.adapted_grid(OU, np.full(50, 0.1), sde.Grid(-5, 5, 50), (0, 1))
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        sde.adapted_grid(OU, 0.0, sde.Grid(-5, 5, 50), (0, 1), rounds=0)


# ---- domains --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [1e-3, 1e-9])
def test_the_domain_holds_all_but_the_tail(tail):
    for process, x0, t, law in (
        (sde.Wiener(1.0), 0.4, 1.0, (0.4, 1.0)),
        (OU, 1.5, 2.0, ou_law(2.0, std=0.0)),
        (sde.OrnsteinUhlenbeck(2.0, 7.0, 0.1), 7.0, 1e3, (7.0, 0.05)),
    ):
        low, high = sde.domain(process, x0, (0, t), tail=tail)
        z = normal_quantile(tail)
        for wall, sign in ((low, -1), (high, 1)):
            beyond = 0.5 * math.erfc(sign * (wall - law[0]) / law[1] / math.sqrt(2))
            assert beyond <= tail
        assert high - low < max(2.6 * z * law[1], x0 - law[0] + 2.6 * z * law[1])


def normal_quantile(tail):
    from scipy.special import ndtri

    return -float(ndtri(tail))


def test_domains_end_where_the_process_does():
    assert sde.domain(sde.CoxIngersollRoss(1.0, 0.5, 0.6), 0.3, (0, 3))[0] == 0.0
    assert sde.domain(sde.ito(lambda x, t: 0.5 - x, lambda x, t: np.sqrt(x * (1 - x))), 0.3, (0, 2)) == (0.0, 1.0)
    low, high = sde.domain(sde.GeometricBrownian(0.1, 0.3), 1.0, (0, 1))
    assert 0.0 < low < 0.2
    assert 5.0 < high < 9.0
    assert sde.domain(sde.GeometricBrownian(0.1, 1.5), 1.0, (0, 1), tail=1e-3)[0] == 0.0
    # noise that vanishes where the drift leads on is no end
    assert sde.domain(sde.ito(lambda x, t: -3.0 + 0 * x, lambda x, t: 0.5 * x), 1.0, (0, 1))[0] < -1.0


def test_domains_from_targets_for_time_dependent_coefficients_and_in_two_dimensions():
    low, high = sde.domain(OU, sde.targets.Gaussian(2.0, 0.25), (0, 1))
    assert low < 2 * math.exp(-1) - 4 * 0.7
    assert 2.0 + 5 * 0.5 < high < 2.0 + 9 * 0.5
    moving = sde.ito(lambda x, t: 4 * np.cos(t), lambda x, t: 0.2)
    low, high = sde.domain(moving, 0.0, (0, math.pi), tail=1e-6)
    assert -2.5 < low < -0.8
    assert 5.0 < high < 6.5  # where it was on the way, not where it ends
    lower, upper = sde.domain(
        sde.UnderdampedLangevin(sde.targets.Gaussian([0.0], [[1.0]])), (0.0, 0.0), (0, 5), tail=1e-6
    )
    assert len(lower) == len(upper) == 2
    assert all(-8.0 < a < -4.5 for a in lower)
    assert all(4.5 < b < 8.0 for b in upper)


def test_what_has_no_domain_is_said():
    with pytest.raises(ValueError, match="It explodes"):
        sde.domain(sde.ito(lambda x, t: x**3, lambda x, t: 1.0), 1.0, (0, 5))
    with pytest.raises(ValueError, match="tail must be < "):
        sde.domain(OU, 0.0, (0, 1), tail=0.6)
    with pytest.raises(ValueError, match="tail must be >= 1e-12"):
        sde.domain(OU, 0.0, (0, 1), tail=1e-20)
