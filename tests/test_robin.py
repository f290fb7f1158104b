"""Partly reflecting walls and inflow in one dimension, for densities and for paths."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import erfc, erfcx

import sdesim as sde

FREE = sde.Wiener(1.0)  # D = 1/2
D = 0.5


def evolve(process, p0, grid, t, boundary, **more):
    return sde.evolve_density(process, p0, grid, (0.0, t), boundary=boundary, **more)


def slopes(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


# ---- densities: partly reflecting walls -----------------------------------------------------------------------------


def survival_between(rate, length, times, terms=60):
    """Survival from the uniform density on [0, length], reflecting at 0, Robin at length: D k tan(k length) = rate."""
    found = np.zeros(len(times))
    for n in range(terms):
        low, high = n * math.pi / length + 1e-12, (n + 0.5) * math.pi / length - 1e-12
        k = brentq(lambda k: D * k * math.sin(k * length) - rate * math.cos(k * length), low, high, xtol=1e-15)
        weight = (math.sin(k * length) / k) ** 2 / (length * (length / 2 + math.sin(2 * k * length) / (4 * k)))
        found += weight * np.exp(-D * k * k * np.asarray(times))
    return found


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
def test_survival_between_a_mirror_and_a_partial_wall(mirrored, method):
    times, rate = [0.5, 1.0, 3.0], 0.8
    exact = survival_between(rate, 1.5, times)
    errors = []
    for n in (25, 50, 100):
        grid = sde.Grid(0.0, 1.5, n)
        walls = ("reflecting", sde.Robin(rate))
        rho = evolve(
            FREE,
            np.full(n, 1 / 1.5),
            grid,
            3.0,
            walls[::-1] if mirrored else walls,
            save=times,
            method=method,
            rtol=1e-9,
        )
        errors.append(np.abs(rho.mass - exact).max())
        side = 0 if mirrored else 1
        np.testing.assert_allclose(rho.absorbed[:, side] + rho.mass, 1.0, atol=1e-12)
        assert (rho.absorbed[:, 1 - side] == 0.0).all()
    assert errors[-1] < 2e-5
    assert (abs(slopes(errors) - 2.0) < 0.3).all(), errors


def test_elastic_brownian_motion_on_the_half_line():
    # survival erf(x/√4Dt) + e^{hx + h²Dt} erfc(x/√4Dt + h√Dt), h = κ/D
    rate, t, x0 = 0.6, 1.3, 0.7
    h, z = rate / D, x0 / math.sqrt(4 * D * t)
    exact = math.erf(z) + float(erfcx(z + h * math.sqrt(D * t))) * math.exp(-z * z)
    grid = sde.Grid(0.0, 9.0, 300)
    rho = evolve(
        FREE, lambda g: sde.point_mass(g, x0, order=4), grid, t, (sde.Robin(rate), "reflecting"), richardson=True
    )
    assert rho.mass[-1] == pytest.approx(exact, abs=1e-7)
    twice = evolve(FREE, sde.point_mass(grid, x0), grid, t, (sde.Robin(2 * rate), "reflecting"))
    assert abs(twice.mass[-1] - exact) > 0.09


def test_the_rate_leads_from_a_mirror_to_an_exit():
    grid, p0 = sde.Grid(-1, 1, 100), sde.gaussian(sde.Grid(-1, 1, 100), 0.2, 0.1)
    process = sde.ito(lambda x, t: 0.5 - x, lambda x, t: 0.7 + 0.2 * x)
    found = [evolve(process, p0, grid, 1.0, sde.Robin(rate)) for rate in (0.0, 0.1, 1.0, 10.0, 1e9)]
    mirror, exit_ = (evolve(process, p0, grid, 1.0, name) for name in ("reflecting", "absorbing"))
    np.testing.assert_array_equal(found[0].p, mirror.p)
    np.testing.assert_allclose(found[-1].p, exit_.p, atol=1e-8)
    np.testing.assert_allclose(found[-1].absorbed, exit_.absorbed, atol=1e-8)
    assert (np.diff([rho.mass[-1] for rho in found]) < 0.0).all()


def test_noise_that_depends_on_the_state_is_taken_at_the_wall():
    # X = e^Y of a Wiener process Y: the current is the same, so κ of X is κ of Y times |dx/dy| at the wall
    process = sde.ito(lambda x, t: 0.5 * x, lambda x, t: x)
    rate, t, errors = 0.8, 1.0, []
    fine = sde.Grid(0.0, 1.5, 800)
    exact = evolve(
        FREE, lambda g: sde.gaussian(g, 0.7, 0.1), fine, t, (sde.Robin(0.3), sde.Robin(rate)), richardson=True
    )
    for n in (40, 80, 160):
        grid = sde.Grid(1.0, math.exp(1.5), n)
        start = np.diff([0.5 * math.erfc(-(math.log(e) - 0.7) / 0.1 / math.sqrt(2)) for e in grid.edges]) / grid.spacing
        walls = (sde.Robin(0.3 * 1.0), sde.Robin(rate * math.exp(1.5)))
        errors.append(np.abs(evolve(process, start, grid, t, walls).absorbed - exact.absorbed).max())
    assert errors[-1] < 1e-4
    assert (slopes(errors) > 1.7).all(), errors


# ---- densities: inflow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
def test_inflow_adds_its_flux(method):
    grid = sde.Grid(0.0, 1.0, 40)
    p0 = np.ones(40)
    rho = evolve(FREE, p0, grid, 2.0, (sde.Inflow(0.3), sde.Inflow(0.1)), save=[0.5, 2.0], method=method)
    assert rho.method == method
    np.testing.assert_allclose(rho.mass, [1.2, 1.8], rtol=1e-12)
    np.testing.assert_allclose(rho.absorbed, [[-0.15, -0.05], [-0.6, -0.2]], atol=1e-12)
    np.testing.assert_allclose(rho.mass + rho.absorbed.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(rho.current()[[0, -1]], [0.3, -0.1], atol=1e-14)


@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
@pytest.mark.parametrize("drift", [0.0, 1.2, -0.7])
def test_inflow_to_an_exit_leaves_the_steady_profile(method, drift):
    # J = flux everywhere: p = flux/v (1 − e^{−v (1 − x)/D}), flux (1 − x)/D without drift
    grid, flux = sde.Grid(0.0, 1.0, 200), 0.4
    process = sde.ito(lambda x, t: drift, lambda x, t: 1.0)
    rho = evolve(process, np.ones(200), grid, 60.0, (sde.Inflow(flux), "absorbing"), method=method, rtol=1e-7)

    def profile(x):
        return flux * (1 - x) / D if drift == 0.0 else flux / drift * (1 - np.exp(-drift * (1 - x) / D))

    np.testing.assert_allclose(rho.final, sde.cell_averages(grid, profile), atol=3e-5)
    np.testing.assert_allclose(rho.current(), flux, atol=1e-5)
    assert rho.absorbed[-1, 0] == pytest.approx(-60.0 * flux, rel=1e-12)
    assert rho.mass[-1] + rho.absorbed[-1].sum() == pytest.approx(1.0, abs=1e-12)


def test_inflow_into_the_half_line_is_the_solution_of_the_heat_equation():
    # p = flux [2 √(t/πD) e^{−x²/4Dt} − x/D erfc(x/√4Dt)] on top of what was there
    flux, t, errors = 0.5, 0.8, []
    for n in (50, 100, 200):
        grid = sde.Grid(0.0, 8.0, n)
        p0 = sde.gaussian(grid, 4.0, 0.4)
        p0 /= p0.sum() * grid.spacing
        both = [evolve(FREE, p0, grid, t, (low, "reflecting")).final for low in (sde.Inflow(flux), "reflecting")]
        exact = sde.cell_averages(
            grid,
            lambda x: (
                flux
                * (
                    2 * math.sqrt(t / (math.pi * D)) * np.exp(-x * x / (4 * D * t))
                    - x / D * erfc(x / math.sqrt(4 * D * t))
                )
            ),
        )
        errors.append(np.abs(both[0] - both[1] - exact).sum() * grid.spacing)
    assert errors[-1] < 2e-4
    assert (abs(slopes(errors) - 2.0) < 0.3).all(), errors


def test_inflow_through_one_wall_and_out_through_both():
    # cf14 divides the loss between two exits by what each has seen: against TR-BDF2, which adds it up step by step
    grid, p0 = sde.Grid(0.0, 1.0, 80), sde.gaussian(sde.Grid(0.0, 1.0, 80), 0.3, 0.05)
    times = [0.1, 0.4, 2.0]
    for walls in ((sde.Robin(0.7), "absorbing"), (sde.Inflow(0.3), "absorbing"), (sde.Robin(2.0), sde.Inflow(0.2))):
        both = [
            evolve(FREE, p0 / (p0.sum() / 80), grid, 2.0, walls, save=times, method=m, rtol=1e-8)
            for m in ("cf14", "tr_bdf2")
        ]
        np.testing.assert_allclose(both[0].absorbed, both[1].absorbed, atol=2e-6)
        np.testing.assert_allclose(both[0].p, both[1].p, atol=2e-5)


# ---- paths ----------------------------------------------------------------------------------------------------------

GRID = sde.Grid(-1.0, 1.0, 400)
N = 60_000


def discrepancy(process, x0, t, boundary, n_steps, *, law=None, n=N, **more):
    """How far paths are from the density, in standard deviations for each wall and χ² per bin of those inside."""
    walls = sde.Walls(-1.0, 1.0, boundary)
    x = sde.simulate(process, x0, (0, t), n_steps=n_steps, n_paths=n, boundary=walls, seed=11, **more).final
    rho = evolve(
        process, lambda g: sde.point_mass(g, x0, order=4), GRID, t, boundary if law is None else law, richardson=True
    )
    taken, exact = np.array([(x < -1).mean(), (x >= 1).mean()]), rho.absorbed[-1]
    counts = np.histogram(x[(x >= -1) & (x < 1)], 20, (-1, 1))[0]
    expected = rho.final.reshape(20, -1).sum(1) * GRID.spacing * n
    away = np.abs(taken - exact) / np.sqrt(np.maximum(exact * (1 - exact), 1e-6) / n)
    return away.max(), ((counts - expected) ** 2 / expected).sum() / 20


DRIFTED = sde.ito(lambda x, t: 0.4, lambda x, t: 0.8)
BENT = sde.ito(lambda x, t: -0.3 * x, lambda x, t: 0.6 + 0.2 * np.sin(2 * x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "boundary", "n_steps", "dtype"),
    [
        (FREE, sde.Robin(1.5), 4, np.float64),
        (DRIFTED, (sde.Robin(1.5), sde.Robin(0.5)), 16, np.float64),
        (DRIFTED, (sde.Robin(1.5), sde.Robin(0.5)), 64, np.float32),
        (DRIFTED, (sde.Robin(1.5), "absorbing"), 64, np.float64),
        (DRIFTED, ("absorbing", sde.Robin(1.5)), 64, np.float64),
        (DRIFTED, ("reflecting", sde.Robin(1.5)), 256, np.float64),
        (DRIFTED, sde.Robin(0.0), 16, np.float64),
        (BENT, (sde.Robin(1.5), sde.Robin(0.7)), 256, np.float64),
    ],
)
def test_paths_and_density_agree_behind_partly_reflecting_walls(process, boundary, n_steps, dtype):
    away, chi_square = discrepancy(process, 0.3, 1.0, boundary, n_steps, dtype=dtype)
    assert away < 4.0
    assert chi_square < 2.2


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [sde.Robin(3.0), sde.Robin(0.75), sde.Robin(1.35)])
def test_another_rate_would_be_seen(wrong):
    # negative control: a factor 2 in the rate, either way, and even a tenth
    away, _ = discrepancy(FREE, 0.3, 1.0, sde.Robin(1.5), 4, law=wrong)
    assert away > 6.0


@pytest.mark.slow
def test_the_bias_with_noise_that_depends_on_the_state_is_of_first_order():
    away = [discrepancy(BENT, 0.3, 1.5, sde.Robin(1.5), n, n=400_000)[0] for n in (16, 32, 64)]
    assert away[0] > 12.0
    assert 1.4 < away[0] / away[1] < 3.0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_wall_is_exact_in_a_single_step(dtype):
    # elastic Brownian motion above 0, one step: the survival of the half line
    rate, t, x0, n = 0.6, 1.3, 0.7, 40_000
    z = x0 / math.sqrt(4 * D * t)
    exact = math.erf(z) + float(erfcx(z + rate / D * math.sqrt(D * t))) * math.exp(-z * z)
    for lower, upper, start in ((0.0, None, x0), (None, 0.0, -x0)):
        walls = sde.Walls(lower, upper, sde.Robin(rate))
        x = sde.simulate(FREE, start, (0, t), n_steps=1, n_paths=n, boundary=walls, seed=2, dtype=dtype).final
        alive = x >= 0.0 if upper is None else x < 0.0
        assert abs(alive.mean() - exact) < 4 * math.sqrt(exact * (1 - exact) / n)
        beyond = set(x[~alive].tolist())
        assert len(beyond) == 1
        assert abs(beyond.pop()) < 1e-37


def test_taken_paths_stay_and_the_others_stay_inside():
    walls = sde.Walls(0.1, 0.7, (sde.Robin(2.0), sde.Robin(1.0)))
    x = sde.simulate(
        FREE, 0.4, (0, 1.0), n_steps=40, n_paths=3000, boundary=walls, seed=1, save="all", dtype=np.float32
    ).x
    out = (x < np.float32(0.1)) | (x.astype(float) >= 0.7)
    assert 0.2 < out[:, -1].mean() < 0.98
    assert len(set(x[out].tolist())) == 2
    assert (np.diff(out.astype(int), axis=1) >= 0).all()
    assert (x[:, 1:][out[:, :-1]] == x[:, :-1][out[:, :-1]]).all()
    assert "Robin(rate=2.0)" in repr(walls)


def test_parts_of_the_paths_are_those_of_the_whole():
    walls = sde.Walls(-1.0, 1.0, sde.Robin(1.0))
    spec = {"n_steps": 10, "boundary": walls, "seed": 9}
    whole = sde.simulate(DRIFTED, 0.3, (0, 1), n_paths=700, **spec).final
    parts = [sde.simulate(DRIFTED, 0.3, (0, 1), n_paths=350, first_path=f, **spec).final for f in (0, 350)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_one_of_two_components_may_be_taken():
    process = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    walls = sde.Walls([None, None], [1.0, 1.0], [(sde.Robin(0.0), "absorbing"), (sde.Robin(0.0), sde.Robin(0.9))])
    x = sde.simulate(process, (0.0, 0.0), (0, 1.0), n_steps=200, n_paths=20_000, boundary=walls, seed=2).final
    gone = x >= 1.0
    assert not gone.all(1).any()
    first = math.erf(1 / math.sqrt(2))
    z, h = 1.0 / math.sqrt(2.0), 0.9 / D
    second = math.erf(z) + float(erfcx(z + h * math.sqrt(D))) * math.exp(-z * z)
    alive = first * second
    assert abs((~gone.any(1)).mean() - alive) < 4 * math.sqrt(alive * (1 - alive) / 20_000)


def test_what_paths_cannot_do_at_such_walls_is_said():
    with pytest.raises(ValueError, match="Inflow is for densities"):
        sde.Walls(0.0, 1.0, sde.Inflow(0.3))
    process = sde.UnderdampedLangevin(sde.targets.Gaussian([0.0], [[1.0]]))
    with pytest.raises(ValueError, match="no noise in it"):
        sde.simulate(
            process,
            (0.8, 0.0),
            (0, 1),
            n_steps=4,
            n_paths=3,
            boundary=sde.Walls(0.0, None, sde.Robin(1.0)),
            method="baoab",
        )
    pair = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    with pytest.raises(ValueError, match="of component 0 beside"):
        sde.simulate(
            pair, (0.0, 0.0), (0, 1), n_steps=4, n_paths=3, boundary=sde.Walls(-1, 1, sde.Robin(1.0), component=1),
            reduce=[sde.FirstPassage(-1.0, 1.0)],
        )  # fmt: skip
