"""What a grid does not hold is said: cut domains, coarse cells, coefficients and starts that cannot be."""

import warnings

import numpy as np
import pytest

import sdesim as sde

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
PLANE = sde.ito(lambda x, t: (-x[0], -2.0 * x[1]), lambda x, t: (1.0, 1.0), dim=2)


def silent(process, p0, grid, span=(0, 1), **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sde.evolve_density(process, p0, grid, span, **more)


# ---- domains that cut -----------------------------------------------------------------------------------------------


def test_a_density_that_runs_into_walls_nobody_asked_for_is_told():
    grid = sde.Grid(-2.0, 2.0, 100)
    p0 = sde.gaussian(grid, 0.0, 0.1)
    with pytest.warns(UserWarning, match="the domain cuts it off") as told:
        rho = sde.evolve_density(sde.Wiener(1.0), p0, grid, (0, 1))
    share = 100 * rho.final[0] / rho.final.max()
    assert [f"at t = 1 the density at the {side} wall is {share:.2g} % of its peak" in str(w.message) for side, w in
            zip(("low", "high"), told, strict=True)] == [True, True]  # fmt: skip
    assert f"with {100 * rho.final[0] * grid.spacing:.2g} % of the mass in the outermost cell" in str(told[0].message)
    assert "pass boundary='reflecting' if the wall is meant" in str(told[0].message)
    # said to be meant, or wide enough, it is no matter
    np.testing.assert_array_equal(silent(sde.Wiener(1.0), p0, grid, boundary="reflecting").p, rho.p)
    wide = sde.Grid(-5.0, 5.0, 250)
    silent(sde.Wiener(1.0), sde.gaussian(wide, 0.0, 0.1), wide)


def test_only_the_side_that_cuts_is_named():
    process = sde.ito(lambda x, t: 2.0, lambda x, t: 0.5)
    grid = sde.Grid(-3.0, 2.0, 200)
    with pytest.warns(UserWarning, match="the domain cuts it off") as told:
        sde.evolve_density(process, sde.gaussian(grid, 0.0, 0.1), grid, (0, 1))
    assert len(told) == 1
    assert "at the high wall" in str(told[0].message)


def test_where_the_process_ends_by_itself_nothing_is_cut():
    grid = sde.Grid(0.0, 6.0, 300)
    square_root = sde.CoxIngersollRoss(1.0, 0.4, 0.8)
    rho = silent(square_root, sde.gaussian(grid, 0.6, 0.1), grid, (0, 2))
    assert rho.final[0] > 0.05 * rho.final.max()
    silent(sde.GeometricBrownian(0.0, 0.5), sde.gaussian(grid, 1.0, 0.1), grid, (0, 0.5))
    # and a start that fills its box belongs to it
    box = sde.Grid(-1.0, 1.0, 50)
    silent(sde.Wiener(1.0), np.full(50, 0.5), box)
    silent(OU, np.full(50, 0.5), box)


def test_transport_without_noise_is_cut_too():
    grid = sde.Grid(-1.0, 1.0, 100)
    with pytest.warns(UserWarning, match="at the high wall"):
        sde.evolve_density(sde.ito(lambda x, t: 1.0, lambda x, t: 0.0), sde.gaussian(grid, 0.0, 0.1), grid, (0, 1))


def test_cut_domains_and_starts_in_two_dimensions():
    grid = sde.Grid((-4.0, -0.8), (4.0, 3.0), (40, 40))
    p0 = sde.gaussian(grid, (0.0, 1.2), (0.4, 0.3))
    with pytest.warns(UserWarning, match="the domain cuts it off") as told:
        sde.evolve_density(PLANE, p0 / (p0.sum() * grid.cell_volume), grid, (0, 1), rtol=1e-3)
    assert any("the density at the low wall of axis 1 is" in str(w.message) for w in told)
    assert not any("axis 0" in str(w.message) for w in told)
    grid = sde.Grid((-4.0, -1.0), (4.0, 4.0), (120, 60))
    p0 = sde.gaussian(grid, (3.9, 1.2), (0.4, 0.3))
    with pytest.warns(UserWarning, match=r"% of p0 lies in the boundary cells of axis 0: widen the domain"):
        sde.evolve_density(PLANE, p0 / (p0.sum() * grid.cell_volume), grid, (0, 0.1), rtol=1e-3)


def test_a_domain_that_cuts_a_stationary_density_is_told():
    for grid, process, where in (
        (sde.Grid(-1.0, 5.0, 60), OU, "low wall is"),
        (sde.Grid((-1.0, -5.0), (5.0, 5.0), 30), PLANE, "low wall of axis 0 is"),
    ):
        with pytest.warns(UserWarning, match=f"at rest the density at the {where} .* % of its peak") as told:
            rho = sde.stationary_density(process, grid)
        assert len(told) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            meant = sde.stationary_density(process, grid, "reflecting")
        np.testing.assert_array_equal(meant.p, rho.p)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sde.stationary_density(OU, sde.Grid(-5.0, 5.0, 60))
        sde.stationary_density(sde.CoxIngersollRoss(2.0, 1.0, 0.5), sde.Grid(0.0, 6.0, 300))


# ---- cells too coarse -----------------------------------------------------------------------------------------------


def test_cells_too_coarse_for_the_drift_say_how_many_would_do():
    process = sde.ito(lambda x, t: 1.0, lambda x, t: 0.2)
    grid = sde.Grid(-1.0, 3.0, 100)
    with pytest.warns(UserWarning, match="strong against the diffusion") as told:
        sde.evolve_density(process, sde.gaussian(grid, 0.0, 0.1), grid, (0, 1))
    # Pe = h/2D = 1: Pe coth Pe − 1 = 31 %
    assert "cells of 0.04 add 31 % to the diffusion" in str(told[0].message)
    needed = int(str(told[0].message).split("about ")[1].split()[0])
    finer = sde.Grid(-1.0, 3.0, needed)
    silent(process, sde.gaussian(finer, 0.0, 0.1), finer)


def test_cells_too_coarse_in_two_dimensions_name_their_axis():
    process = sde.ito(lambda x, t: (0.1 - x[0], 1.0), lambda x, t: (1.0, 0.2), dim=2)
    grid = sde.Grid((-4.0, -1.0), (4.0, 3.0), (30, 60))
    with pytest.warns(UserWarning, match="of axis 1 add .* % to the diffusion"):
        sde.evolve_density(process, sde.gaussian(grid, (0.0, 0.0), (0.4, 0.2)), grid, (0, 0.5), rtol=1e-3)


def test_no_diffusion_along_an_axis_is_not_a_coarse_cell():
    process = sde.UnderdampedLangevin(sde.targets.Gaussian([0.0], [[1.0]]))
    grid = sde.Grid((-5.0, -5.0), (5.0, 5.0), 48)
    silent(process, sde.gaussian(grid, (0.5, 0.0), (0.7, 0.7)), grid, (0, 0.2), rtol=1e-3)


# ---- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "tr_bdf2"])
def test_coefficients_that_are_not_numbers_are_told_with_the_place(method):
    grid = sde.Grid(-1.0, 1.0, 20)
    p0 = np.full(20, 0.5)
    for process, message in (
        (sde.ito(lambda x, t: 1.0 / np.maximum(x, 0.0), lambda x, t: 1.0), r"drift is inf at x = -0\.9\d*, t = 0"),
        (sde.ito(lambda x, t: 0.0, lambda x, t: np.sqrt(x)), r"diffusion is nan at x = -0\.9\d*, t = 0"),
        (sde.ito(lambda x, t: -x, lambda x, t: np.ones(7)), r"diffusion returned shape \(7,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            sde.evolve_density(process, p0, grid, (0, 1), method=method)
    later = sde.ito(lambda x, t: np.where(t > 0.5, np.nan, -x), lambda x, t: 1.0)
    with pytest.raises(ValueError, match=r"drift is nan at x = .*, t = 0\.[5-9]"):
        sde.evolve_density(later, p0, grid, (0, 1), boundary="reflecting")


def test_coefficients_that_are_not_numbers_in_two_dimensions():
    grid = sde.Grid((-1.0, -1.0), (1.0, 1.0), (8, 10))
    p0 = np.full((8, 10), 0.25)
    for process, message in (
        (
            sde.ito(lambda x, t: (np.sqrt(x[1]), 0.0), lambda x, t: (1.0, 1.0), dim=2),
            r"drift is nan at x = \(.*, -0\.9\)",
        ),
        (sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, np.log(x[0])), dim=2), r"diffusion is nan at x = \(-0\."),
    ):
        with pytest.raises(ValueError, match=message):
            sde.evolve_density(process, p0, grid, (0, 1))


def test_how_many_points_are_not_numbers_is_told():
    grid = sde.Grid(-1.0, 1.0, 20)
    process = sde.ito(lambda x, t: np.where(np.abs(x) < 0.03, np.inf, -x), lambda x, t: 1.0)
    # one of the three quadrature points of the face at 0
    with pytest.raises(ValueError, match=r"drift is inf at x = 0, t = 0; it must be finite"):
        sde.evolve_density(process, np.full(20, 0.5), grid, (0, 1))
    half = sde.ito(lambda x, t: np.sqrt(x[0]), lambda x, t: 1.0, dim=2)
    plane = sde.Grid((-1.0, -1.0), (1.0, 1.0), (8, 10))
    with pytest.raises(ValueError, match=r"drift is nan at x = \(.*\), t = 0 and at 39 more of 70 points"):
        sde.evolve_density(half, np.full((8, 10), 0.25), plane, (0, 1))


def test_coefficients_of_the_wrong_structure_are_refused():
    plane, line = sde.Grid((-1.0, -1.0), (1.0, 1.0), (8, 10)), sde.Grid(-1.0, 1.0, 20)
    flat, rest = np.full((8, 10), 0.25), lambda x, t: (0.0, 0.0)
    for process, error, message in (
        (sde.ito(lambda x, t: (-x[0],), lambda x, t: 1.0, dim=2), ValueError, "drift returned 1 components"),
        (sde.ito(rest, lambda x, t: (1.0, 1.0, 1.0), dim=2), ValueError, "diffusion returned 3 components, expected 2"),
        (
            sde.ito(rest, lambda x, t: ((1.0, 0.0), (1.0,)), dim=2, noise="general"), ValueError,
            r"diffusion returned 2 rows of \[1, 2\] entries, noise='general' needs 2 rows of m entries",
        ),
        (sde.ito(rest, lambda x, t: 1.0, dim=2, noise="general"), ValueError, "diffusion returned a number, noise="),
        (sde.ito(lambda x, t: (1j * x[0], x[1]), lambda x, t: 1.0, dim=2), TypeError, "drift must return real numbers"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            sde.evolve_density(process, flat, plane, (0, 1))
    with pytest.raises(TypeError, match="diffusion must return real numbers, got dtype complex128"):
        sde.stationary_density(sde.ito(lambda x, t: -x, lambda x, t: np.sqrt(x + 0j)), line)


def test_a_diffusivity_below_zero_is_told_with_the_place():
    from sdesim.fokker_planck.operator import Coefficients

    made = Coefficients(lambda x, t: 0.0, lambda x, t: 0.3 - x, sde.Grid(0.0, 1.0, 10), "reflecting")
    with pytest.raises(ValueError, match=r"diffusion is negative at x = 0\.\d+, t = 2: D = -\d"):
        made.at(2.0)


@pytest.mark.parametrize("dim", [1, 2])
def test_starts_that_are_no_densities_say_by_how_much(dim):
    grid = sde.Grid((-3.0,) * dim, (3.0,) * dim, (24,) * dim) if dim > 1 else sde.Grid(-3.0, 3.0, 24)
    process, p0 = (OU, PLANE)[dim - 1], sde.gaussian(grid, 0.0, 0.5)
    negative = p0.copy()
    negative[(3,) * dim] = -0.25
    place = "3" if dim == 1 else r"\(3, 3\)"
    for start, message in (
        (
            0.83 * p0,
            r"p0 integrates to 0\.83, expected 1 .* widen .* pass p0 / \(p0\.sum\(\) \* grid\.cell_volume\)",
        ),
        (negative, f"p0 is negative in cell {place}: -0.25"),
        (np.where(p0 == p0.max(), np.nan, p0), "p0 must be finite, got nan at index"),
        (p0[:-1], "p0 has .* values, grid has"),
    ):
        with pytest.raises(ValueError, match=message):
            sde.evolve_density(process, start, grid, (0, 1))
