"""Where a result would be wrong or misleading, the library says so, or does the right thing."""

import math
import warnings

import numpy as np
import pytest

import sdesim as sde


def test_frozen_paths_stay_frozen_when_they_are_simulated_again():
    process = sde.ito(lambda x, t: x**3, lambda x, t: 0.1)
    run = {"n_steps": 20, "seed": 1, "on_nonfinite": "freeze"}
    x0 = np.array([0.1, 3.0, 0.2, 5.0])
    with pytest.warns(RuntimeWarning, match="frozen"):
        kept = sde.simulate(process, x0, (0, 1), **run)
    with pytest.warns(RuntimeWarning, match="frozen"):
        reduced = sde.simulate(process, x0, (0, 1), reduce=[sde.Moments()], **run)
    assert np.array_equal(kept.final, reduced.final)
    assert np.isfinite(reduced.final).all()


def test_float32_times_far_from_zero_are_pointed_out():
    driven = sde.ito(lambda x, t: 10 * np.sin(40 * t), lambda x, t: 0.0)
    with pytest.warns(UserWarning, match="in float32 the times near"):
        sde.simulate(driven, 0.0, (1e5, 1e5 + 1), n_steps=10, n_paths=1, dtype=np.float32)
    # near 0, in float64, or without a formula that reads the time there is nothing to say
    sde.simulate(driven, 0.0, (0, 1), n_steps=10, n_paths=1, dtype=np.float32)
    sde.simulate(driven, 0.0, (1e5, 1e5 + 1), n_steps=10, n_paths=1)
    sde.simulate(sde.Wiener(), 0.0, (1e5, 1e5 + 1), n_steps=10, n_paths=1, dtype=np.float32)


@pytest.mark.parametrize("drift", [lambda x, t: np.random.normal() * x, lambda x, t: np.random.random() - x])  # noqa: NPY002
def test_random_numbers_inside_a_formula_are_refused(drift):
    with pytest.raises(TypeError, match="draws random numbers"):
        sde.simulate(sde.ito(drift, lambda x, t: 1.0), 0.0, (0, 1), n_steps=2, n_paths=2, seed=1)


def test_math_functions_and_branches_are_served_on_paths_and_explained_on_grids():
    process = sde.ito(lambda x, t: -math.exp(x) if x > 0 else min(-x, 2.0), lambda x, t: 1.0)
    paths = sde.simulate(process, 0.1, (0, 1), n_steps=50, n_paths=1000, seed=3)
    same = sde.ito(lambda x, t: np.where(x > 0, -np.exp(x), np.minimum(-x, 2.0)), lambda x, t: 1.0)
    assert np.array_equal(paths.final, sde.simulate(same, 0.1, (0, 1), n_steps=50, n_paths=1000, seed=3).final)
    grid = sde.Grid(-6, 6, 100)
    with pytest.raises(ValueError, match=r"np\.where"):
        sde.evolve_density(process, sde.gaussian(grid, 0, 1), grid, (0, 1))


def test_clip_compiles():
    process = sde.ito(lambda x, t: -np.clip(x, -1, 0.5), lambda x, t: 1.0)
    w = np.random.default_rng(0).normal(0, 0.1, (20, 100))
    x = np.full(20, 0.4)
    for k in range(100):
        x = x - np.clip(x, -1, 0.5) * 0.01 + w[:, k]
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
        run = sde.simulate(process, 0.4, (0, 1), n_steps=100, n_paths=20, increments=w, dtype=dtype)
        assert np.allclose(run.final, x, atol=tolerance)


def test_a_short_pulse_is_not_taken_for_nothing():
    pulse = sde.ito(lambda x, t: 100.0 * ((t > 0.31) & (t < 0.32)), lambda x, t: 1.0)
    grid = sde.Grid(-8, 8, 400)
    rho = sde.evolve_density(pulse, sde.point_mass(grid, 0.5), grid, (0, 1), rtol=1e-4)
    assert abs(rho.mean[0] - 1.5) < 0.01


def test_a_drift_too_strong_for_the_cells_is_pointed_out_with_the_cells_needed():
    process = sde.ito(lambda x, t: -5 * (x - 0.3), lambda x, t: 1e-2)
    grid = sde.Grid(-2, 2, 1000)
    with pytest.warns(UserWarning, match=r"cells of 0\.004 add .* to the diffusion"):
        sde.evolve_density(process, sde.gaussian(grid, -1.0, 0.1), grid, (0, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
        sde.evolve_density(calm, sde.gaussian(grid, 0.0, 0.1), grid, (0, 0.1))


def test_a_stationary_density_without_mass_is_refused():
    with pytest.raises(ValueError, match="no stationary density"):
        sde.stationary_density(sde.GeometricBrownian(0.02, 0.4), sde.Grid(0, 6, 300))
    with pytest.warns(UserWarning, match=r"grows like r\^-0\.75"):
        sde.stationary_density(sde.GeometricBrownian(0.1, 0.4), sde.Grid(0, 6, 300), "reflecting")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sde.stationary_density(sde.CoxIngersollRoss(2.0, 1.0, 0.5), sde.Grid(0, 6, 300))


def test_one_path_has_no_variance_to_show():
    one = sde.simulate(sde.Wiener(), 0.0, (0, 1), n_steps=2, n_paths=1, reduce=[sde.Moments()]).reductions[0]
    assert np.isnan(one.variance).all()
    assert np.isnan(one.standard_error).all()
