"""Grids, starting densities, and the refinement that Richardson extrapolation uses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdesim.fokker_planck.cells import cell_averages, coarsen, gaussian, point_mass, refine
from sdesim.fokker_planck.grid import Grid


def test_a_grid_in_one_dimension_has_plain_arrays():
    grid = Grid(-1, 3, 8)
    assert grid.dim == 1
    assert grid.shape == (8,)
    assert grid.spacing == 0.5
    assert grid.cell_volume == 0.5
    np.testing.assert_allclose(grid.edges, np.linspace(-1, 3, 9))
    np.testing.assert_allclose(grid.centers, np.linspace(-0.75, 2.75, 8))
    assert grid == Grid(-1.0, 3.0, 8.0)


def test_a_grid_in_two_dimensions_has_one_array_an_axis():
    grid = Grid((0, -1), (1, 1), (4, 10))
    assert (grid.dim, grid.shape) == (2, (4, 10))
    assert [len(x) for x in grid.centers] == [4, 10]
    assert [len(x) for x in grid.edges] == [5, 11]
    np.testing.assert_allclose(grid.spacing, (0.25, 0.2))
    assert grid.cell_volume == pytest.approx(0.05)
    assert Grid((0, 0, 0), (1, 1, 1), 5).shape == (5, 5, 5)


def test_grid_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Grid(0, 1, 4).centers[0] = 3.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((4, -4, 100), ValueError, r"lower \(4\) must be < upper \(-4\)"),
        ((0, 0, 10), ValueError, "must be < upper"),
        ((0, 1, 2), ValueError, "at least 3 cells"),
        ((0, 1, 10.5), TypeError, "n_cells must be an integer"),
        ((0, 1, True), TypeError, "n_cells must be an integer"),
        ((0, math.nan, 10), ValueError, "upper must be finite"),
        (("a", 1, 10), TypeError, "lower must be a real number"),
        (((0, 0), (1, 1, 1), 5), ValueError, "one length"),
        (((0,) * 4, (1,) * 4, 5), ValueError, "1 to 3 dimensions"),
        ((1.0, 1.0 + 1e-14, 100), ValueError, "narrower than the rounding"),
    ],
)
def test_bad_grids_are_refused_with_a_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        Grid(*arguments)


def moments(grid, p):
    mass = p.sum() * grid.spacing
    mean = (p * grid.centers).sum() * grid.spacing
    return mass, mean, (p * (grid.centers - mean) ** 2).sum() * grid.spacing


@given(x=st.floats(-1.85, 2.85), order=st.sampled_from([2, 4]))
def test_a_point_mass_has_the_right_mass_and_mean_everywhere(x, order):
    grid = Grid(-2, 3, 23)
    p = point_mass(grid, x, order=order)
    mass, mean, _ = moments(grid, p)
    assert mass == pytest.approx(1, abs=1e-14)
    assert mean == pytest.approx(x, abs=1e-14)
    assert p.min() >= 0
    assert np.count_nonzero(p) <= 5


def test_a_point_mass_on_a_centre_has_the_variance_of_a_cell():
    grid = Grid(-1, 1, 21)
    h = grid.spacing
    assert moments(grid, point_mass(grid, 0.0))[2] == pytest.approx(h * h / 12, rel=1e-12)
    # half way between two centres nothing without negative weights is narrower than this
    assert moments(grid, point_mass(grid, h / 2))[2] == pytest.approx(h * h / 4, rel=1e-12)
    spline = [moments(grid, point_mass(grid, s * h, order=4))[2] for s in (0.0, 0.2, 0.5)]
    np.testing.assert_allclose(spline, h * h / 3, rtol=1e-12)


def test_a_point_mass_in_the_outer_half_cell_goes_to_that_cell():
    grid = Grid(0, 1, 10)
    np.testing.assert_allclose(point_mass(grid, 0.0), [10] + [0] * 9)
    np.testing.assert_allclose(point_mass(grid, 1.0), [0] * 9 + [10])


def test_a_point_mass_outside_is_refused():
    with pytest.raises(ValueError, match=r"x = 1.5 is outside the grid \[0, 1\]"):
        point_mass(Grid(0, 1, 10), 1.5)
    with pytest.raises(ValueError, match="order must be 2 or 4"):
        point_mass(Grid(0, 1, 10), 0.5, order=3)
    with pytest.raises(ValueError, match="x has 2 numbers, the grid has 1"):
        point_mass(Grid(0, 1, 10), (0.5, 0.5))


def test_gaussian_averages_are_exact_and_keep_both_tails():
    grid = Grid(-12, 12, 96)
    p = gaussian(grid, 0.0, 1.0)
    np.testing.assert_allclose(p, p[::-1], rtol=1e-12)
    assert p[0] > 0  # about 1e-31: 1 - Φ would have lost it on one side
    np.testing.assert_allclose(
        p, cell_averages(grid, lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi)), rtol=1e-12
    )
    mass, mean, variance = moments(grid, gaussian(grid, 0.3, 1.1))
    assert (mass, mean) == pytest.approx((1, 0.3))
    assert variance - grid.spacing**2 / 12 == pytest.approx(1.21, rel=1e-10)


def test_gaussian_is_not_renormalised():
    assert gaussian(Grid(0, 5, 50), 0.0, 1.0).sum() * 0.1 == pytest.approx(0.5, abs=1e-6)


def test_starts_in_two_dimensions_are_products():
    grid = Grid((-4, -4), (4, 4), (20, 30))
    p = gaussian(grid, (0.5, 0), (0.5, 0.7))
    assert p.shape == (20, 30)
    assert p.sum() * grid.cell_volume == pytest.approx(1, abs=1e-6)
    delta = point_mass(grid, (0.1, -0.2))
    assert delta.sum() * grid.cell_volume == pytest.approx(1)
    average = cell_averages(
        grid, lambda x, y: np.exp(-0.5 * (((x - 0.5) / 0.5) ** 2 + (y / 0.7) ** 2)) / (0.7 * math.pi)
    )
    np.testing.assert_allclose(average, p, atol=1e-9)


def test_refinement_is_conservative_positive_and_fourth_order():
    errors = []
    for n in (40, 80):
        coarse, fine = Grid(-3, 3, n), Grid(-3, 3, 2 * n)
        p, touched = refine(gaussian(coarse, 0.2, 0.6) * coarse.spacing, (False,))
        assert touched < 1e-6
        np.testing.assert_allclose(coarsen(p, 1), gaussian(coarse, 0.2, 0.6) * coarse.spacing, rtol=1e-13)
        errors.append(np.abs(p / fine.spacing - gaussian(fine, 0.2, 0.6)).max())
    assert math.log2(errors[0] / errors[1]) > 4.5
    sharp, touched = refine(point_mass(Grid(0, 1, 9), 0.5) / 9, (False,))
    assert sharp.min() == 0
    assert touched > 0.01
    assert coarse.refined(2) == fine
