"""The engines on arrays: operator, rational exponential, TR-BDF2, stationary states, characteristics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import dense
from sdesim.fokker_planck import advection, cells, operator, steppers
from sdesim.fokker_planck.boundary import walls
from sdesim.fokker_planck.grid import Grid
from sdesim.fokker_planck.operator import Coefficients
from sdesim.fokker_planck.stationary import stationary


def l1(m, other):
    return np.abs(m - other).sum()


def gaussian(grid, mean, std):
    """Probabilities of the cells, which is what the engines work on."""
    return cells.gaussian(grid, mean, std) * grid.spacing


def point_mass(grid, x):
    return cells.point_mass(grid, x) * grid.spacing


def ring(circulation):
    return Coefficients(
        lambda x, t: circulation - 2 * np.sin(x),
        lambda x, t: 0.5 + 0 * x,
        Grid(-np.pi, np.pi, 60),
        "periodic",
    )


# Walls


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        ("reflect", "did you mean 'reflecting'"),
        (("periodic", "reflecting"), "periodic at both walls or at neither"),
        (("absorbing",) * 3, "a pair"),
        (3, "boundary must be one of"),
    ],
)
def test_bad_walls_are_refused(boundary, message):
    with pytest.raises(ValueError, match=message):
        walls(boundary)


def test_one_name_stands_for_both_walls():
    assert walls("absorbing") == ("absorbing", "absorbing")
    assert walls(["absorbing", "reflecting"]) == ("absorbing", "reflecting")


# The operator


@pytest.mark.parametrize("boundary", ["reflecting", "periodic"])
def test_columns_sum_to_zero_and_rates_are_not_negative(boundary):
    op = Coefficients(lambda x, t: np.cos(3 * x) * 40, lambda x, t: 0.01 + x * x, Grid(-1, 2, 37), boundary).at(0.0)
    a = dense(op)
    assert np.abs(a.sum(axis=0)).max() < 1e-12 * np.abs(a).max()
    assert (op.bands[[0, 2]] >= 0).all()


def test_the_bernoulli_function_has_no_cancellation_or_overflow():
    w = np.array([-2000.0, -800, -30, -1, -1.1e-3, -0.9e-3, 0, 1e-9, 0.9e-3, 1.1e-3, 0.5, 50, 699, 5000])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.where(w == 0, 1.0, w / np.expm1(w))
    got = np.array([operator.bernoulli(v) for v in w])
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(got[:, 1], np.where(w < 0, got[::1, 0] + w, got[:, 1]), rtol=1e-12, atol=1e-12)


def test_a_circle_has_no_seam():
    def at(shift):
        grid = Grid(-np.pi + shift * 2 * np.pi / 30, np.pi + shift * 2 * np.pi / 30, 30)
        return Coefficients(lambda x, t: np.sin(x + 1), lambda x, t: 1.2 + np.cos(x), grid, "periodic").at(0.0)

    here, there = at(0), at(7)
    np.testing.assert_allclose(np.roll(here.bands, -7, axis=1), there.bands, rtol=1e-12)
    np.testing.assert_allclose(np.roll(here.exponent, -7), there.exponent, rtol=1e-10, atol=1e-13)


def test_vanishing_diffusion_is_the_upwind_scheme():
    grid = Grid(0, 1, 20)
    op = Coefficients(lambda x, t: 2.0, lambda x, t: 0.0 * x, grid, "absorbing").at(0.0)
    h = grid.spacing
    np.testing.assert_allclose(op.bands[1], -2 / h, rtol=1e-10)
    np.testing.assert_allclose(op.bands[0, 1:], 2 / h, rtol=1e-10)
    np.testing.assert_allclose(op.bands[2], 0, atol=1e-8)
    np.testing.assert_allclose(op.absorption, [0, 2 / h], rtol=1e-10, atol=1e-8)


def test_diffusion_that_stops_half_way_gives_a_finite_operator():
    grid = Grid(-1, 1, 41)
    for speed in (-1.0, 1.0):
        c = Coefficients(lambda x, t, s=speed: s + 0 * x, lambda x, t: np.where(x < 0, 0.5, 0.0), grid, "reflecting")
        p0 = gaussian(grid, 0, 0.1)
        p = steppers.tr_bdf2(c, p0, 0.0, [0.3], 1e-6, constant=True).m[0]
        assert np.isfinite(p).all()
        assert p.min() >= 0
        assert p.sum() == pytest.approx(p0.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("drift", "diffusivity", "message"),
    [
        (lambda x, t: np.where(x > 0.4, np.nan, x), lambda x, t: 1.0, r"drift is nan at x = 0\.4"),
        (lambda x, t: 1 / (x - x), lambda x, t: 1.0, "drift is (nan|inf) at x"),
        (lambda x, t: x, lambda x, t: 0.5 - x, r"diffusion is negative at x = 0\.\d+, t = 0"),
        (lambda x, t: x[:3], lambda x, t: 1.0, r"drift returned shape \(3,\), expected"),
    ],
)
def test_bad_coefficients_are_refused_with_the_place(drift, diffusivity, message):
    with pytest.raises(ValueError, match=message):
        Coefficients(drift, diffusivity, Grid(0, 1, 10), "reflecting").at(0.0)


def test_the_operator_is_kept_while_coefficients_do_not_change():
    c = Coefficients(lambda x, t: -x, lambda x, t: 1.0 if t < 1 else 2.0, Grid(0, 1, 10), "reflecting")
    assert c.at(0.0) is c.at(0.5)
    assert c.at(0.5) is not c.at(1.5)
    assert c.constant((0.0, 0.3, 0.9))
    assert not c.constant((0.0, 0.3, 1.1))


def test_the_current_of_a_linear_profile_is_minus_d_times_its_slope():
    grid = Grid(0, 1, 50)
    c = Coefficients(lambda x, t: 0.0, lambda x, t: 0.3, grid, "reflecting")
    current = c.at(0.0).current(2 * grid.centers * grid.spacing)
    np.testing.assert_allclose(current[1:-1], -0.6, rtol=1e-12)
    assert current[0] == current[-1] == 0
    # what the operator changes is the divergence of the current
    p = gaussian(grid, 0.4, 0.1)
    np.testing.assert_allclose(dense(c.at(0.0)) @ p, -np.diff(c.at(0.0).current(p)), atol=1e-9)


# The rational exponential


def rational(z):
    pairs = steppers.RESIDUES / (z[:, None] - steppers.POLES)
    pairs = pairs + steppers.RESIDUES.conj() / (z[:, None] - steppers.POLES.conj())
    return steppers.AT_INFINITY + pairs.sum(axis=1)


def indicator(z):
    t = steppers.INDICATOR / (z[:, None] - steppers.POLES)
    t = t + steppers.INDICATOR.conj() / (z[:, None] - steppers.POLES.conj())
    return 1 + t.sum(axis=1)


def test_the_rational_function_is_the_exponential_on_the_negative_axis():
    x = -np.concatenate([[0], np.logspace(-6, 9, 3000)])
    error = np.abs(rational(x + 0j) - np.exp(x)).max()
    assert error < steppers.UNIFORM_ERROR
    assert np.abs(indicator(x + 0j)).max() < 1 + 1e-7


@pytest.mark.parametrize("kappa", [1, 2, 4, 6, 8, 10, 15, 20, 30])
def test_the_indicator_foretells_the_error_off_the_axis(kappa):
    s = np.logspace(-4, 3, 700)
    z = -s + 1j * np.sqrt(kappa * s)
    error = np.abs(rational(z) - np.exp(z)).max()
    foretold = steppers.UNIFORM_ERROR * np.abs(indicator(z)).max() ** 2
    assert 0.5 * foretold < error < 2 * foretold


@pytest.mark.parametrize("boundary", ["reflecting", ("absorbing", "reflecting"), "absorbing", "periodic"])
def test_it_equals_the_dense_exponential(boundary):
    from scipy.linalg import expm

    grid = Grid(-2, 2, 40)
    op = Coefficients(lambda x, t: -np.sin(np.pi * x), lambda x, t: 0.3 + 0.1 * np.cos(np.pi * x), grid, boundary).at(
        0.0
    )
    p0 = point_mass(grid, 0.3)
    result = steppers.rational_exponential(op, p0, 0.0, [0.5, 1.7], 1e-8)
    for t, p in zip((0.5, 1.7), result.m, strict=True):
        np.testing.assert_allclose(p, expm(t * dense(op)) @ p0, atol=2e-11)
    lost = result.absorbed.sum(axis=1) + result.m.sum(axis=1)
    np.testing.assert_allclose(lost, 1, atol=1e-13)


def drift_dominated(grid):
    return Coefficients(lambda x, t: 1.0, lambda x, t: 0.005, grid, "reflecting").at(0.0)


def test_drift_that_dominates_cuts_the_way_into_parts():
    grid = Grid(-1, 3, 800)
    op, p0 = drift_dominated(grid), gaussian(grid, 0, 0.1)
    result = steppers.rational_exponential(op, p0, 0.0, [1.0], 1e-8)
    assert result.n_rejected > 0
    assert result.n_steps > 4
    fine = p0
    for _ in range(256):
        fine, _ = steppers._exponential(op, fine, 1 / 256)
    assert l1(result.m[0], fine) < 1e-8 * result.n_steps


def test_without_the_indicator_it_would_be_wrong():
    # the negative control of the test above: one part is not even near a density
    grid = Grid(-1, 3, 800)
    p, size = steppers._exponential(drift_dominated(grid), gaussian(grid, 0, 0.1), 1.0)
    assert p.min() < -1
    assert size > 1e4


# TR-BDF2


def moving(grid):
    """dX = (sin t − X) dt + σ(t) dW, with D(t) = ½ (0.9 + 0.4 cos 2t)²."""
    return Coefficients(
        lambda x, t: np.sin(t) - x, lambda x, t: 0.5 * (0.9 + 0.4 * np.cos(2 * t)) ** 2, grid, "reflecting"
    )


def time_errors(coefficients, grid):
    p0 = gaussian(grid, 0.5, 0.4)
    runs = [
        steppers.tr_bdf2(coefficients, p0, 0.0, [2.0], 1.0, fixed_step=2 / n).m[0] for n in (32, 64, 128, 256, 1024)
    ]
    exact = (16 * runs[-1] - runs[-2]) / 15
    return np.array([l1(p, exact) for p in runs[:-1]])


def test_tr_bdf2_is_of_second_order_with_time_dependent_coefficients():
    grid = Grid(-5, 5, 200)
    slopes = np.diff(-np.log2(time_errors(moving(grid), grid)))
    assert ((slopes > 1.9) & (slopes < 2.1)).all()


def test_coefficients_frozen_at_the_start_of_a_step_would_be_of_first_order():
    # negative control: the same stepper, told that nothing changes within a step
    class Frozen(Coefficients):
        step = 0.0

        def at(self, t):
            return super().at(np.floor(t / self.step + 1e-9) * self.step)

    grid = Grid(-5, 5, 200)
    original, errors = moving(grid), []
    p0 = gaussian(grid, 0.5, 0.4)
    exact = steppers.tr_bdf2(original, p0, 0.0, [2.0], 1.0, fixed_step=2 / 1024).m[0]
    for n in (64, 128):
        frozen = Frozen(original.drift, original.diffusivity, grid, "reflecting")
        frozen.step = 2 / n
        errors.append(l1(steppers.tr_bdf2(frozen, p0, 0.0, [2.0], 1.0, fixed_step=2 / n).m[0], exact))
    assert np.log2(errors[0] / errors[1]) < 1.3


def test_tr_bdf2_follows_the_tolerance():
    grid = Grid(-5, 5, 200)
    p0 = point_mass(grid, 1.0)
    op = Coefficients(lambda x, t: -x, lambda x, t: 0.5, grid, "reflecting")
    exact = steppers.rational_exponential(op.at(0.0), p0, 0.0, [1.0], 1e-9).m[0]
    errors = []
    for tolerance in (1e-4, 1e-5, 1e-6, 1e-7):
        result = steppers.tr_bdf2(op, p0, 0.0, [1.0], tolerance, constant=True)
        assert result.m[0].min() >= 0
        errors.append(l1(result.m[0], exact))
    assert errors[-1] < 5e-6
    assert (np.diff(np.log10(errors)) < -0.4).all()


def test_steps_grow_as_the_stiff_modes_die_out():
    grid = Grid(-2.5, 2.5, 400)
    c = Coefficients(lambda x, t: -20 * x * (x * x - 1), lambda x, t: 1.0, grid, "reflecting")
    result = steppers.tr_bdf2(c, point_mass(grid, -1.0), 0.0, [400.0], 1e-5, constant=True)
    assert result.n_steps < 400
    assert l1(result.m[0], stationary(c.at(0.0))) < 1e-6


def test_the_error_estimate_is_bounded_for_stiff_modes():
    # a step wipes out a mode that it cannot resolve; unfiltered, the estimate would be 1e5 times the mode
    grid = Grid(0, 1, 100)
    op = Coefficients(lambda x, t: 0.0, lambda x, t: 1.0, grid, "reflecting").at(0.0)
    mode = np.where(np.arange(100) % 2, 1.0, -1.0)
    dt = 1e6 / np.abs(op.bands[1]).max()
    bands, exits = op.bands, op.absorption
    factors = steppers._factor(bands, exits, False, 1.0, steppers.ALPHA * dt, False)
    slope = steppers._apply(bands, exits, False, mode, op.inflow)
    q, _, _, error = steppers._step(
        mode, slope, bands, exits, bands, exits, op.inflow, factors, factors, dt, False
    )  # fmt: skip
    assert np.abs(q).sum() < 1e-3 * 100
    assert error < 2 * 100


def test_tr_bdf2_on_a_circle_with_a_current_equals_the_dense_exponential():
    from scipy.linalg import expm

    c = ring(0.7)
    assert c.at(0.0).circulates
    p0 = gaussian(c.grid, 0, 0.3)
    p = steppers.tr_bdf2(c, p0, 0.0, [2.0], 1e-9, constant=True).m[0]
    assert l1(p, expm(2 * dense(c.at(0.0))) @ p0) < 1e-6


def test_what_walls_absorb_is_the_time_integral_of_the_current():
    grid = Grid(-1, 1, 100)
    c = Coefficients(lambda x, t: 1 + np.sin(5 * t), lambda x, t: 0.5, grid, "absorbing")
    times = np.linspace(0, 1, 401)
    result = steppers.tr_bdf2(c, gaussian(grid, 0, 0.1), 0.0, list(times), 1e-7)
    currents = np.array([c.at(t).current(p)[[0, -1]] for t, p in zip(times, result.m, strict=True)])
    flow = ((currents[1:] + currents[:-1]) / 2 * np.diff(times)[:, None]).sum(axis=0)
    np.testing.assert_allclose(result.absorbed[-1], [-flow[0], flow[1]], atol=2e-5)
    total = result.absorbed.sum(axis=1) + result.m.sum(axis=1)
    np.testing.assert_allclose(total, gaussian(grid, 0, 0.1).sum(), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    a=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    b=st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    noise=st.floats(0.05, 2.0),
    boundary=st.sampled_from(["reflecting", "periodic", "absorbing", ("absorbing", "reflecting")]),
    centre=st.floats(-1.5, 1.5),
)
def test_mass_is_kept_and_densities_stay_positive(a, b, noise, boundary, centre):
    grid = Grid(-2, 2, 48)
    k = np.pi / 2

    def drift(x, t):
        return a[0] + a[1] * np.sin(k * x) + a[2] * np.cos(2 * k * x)

    def diffusivity(x, t):
        return noise * (1.1 + b[0] * np.sin(k * x)) ** 2

    c = Coefficients(drift, diffusivity, grid, boundary)
    p0 = point_mass(grid, centre)
    runs = [steppers.tr_bdf2(c, p0, 0.0, [0.05, 0.8], 1e-5, constant=True)]
    if not c.at(0.0).circulates:
        runs.append(steppers.rational_exponential(c.at(0.0), p0, 0.0, [0.05, 0.8], 1e-8))
    for run in runs:
        total = run.m.sum(axis=1) + run.absorbed.sum(axis=1)
        np.testing.assert_allclose(total, 1, atol=1e-12)
        assert run.m.min() >= 0
        assert run.absorbed.min() >= 0
    if len(runs) == 2:
        assert l1(runs[0].m[1], runs[1].m[1]) < 2e-3


# Stationary states


def test_detailed_balance_holds_at_the_nodes():
    grid = Grid(-2.5, 2.5, 500)
    c = Coefficients(lambda x, t: -20 * x * (x * x - 1), lambda x, t: 1.0, grid, "reflecting")
    p = stationary(c.at(0.0))
    nodes = np.exp(-5 * (grid.centers**2 - 1) ** 2)
    nodes /= nodes.sum()
    assert l1(p, nodes) < 1e-12
    assert np.abs(c.at(0.0).current(p)).max() < 1e-11
    # negative control: half the diffusion is another law
    other = Coefficients(c.drift, lambda x, t: 0.5, grid, "reflecting").at(0.0)
    assert l1(stationary(other), nodes) > 0.1


def test_state_dependent_noise_has_its_own_stationary_density():
    # dX = −x dt + √(1 + x²) dW: D p ∝ exp(∫ μ/D) gives p ∝ (1 + x²)⁻²
    errors = []
    for n in (200, 400):
        grid = Grid(-10, 10, n)
        c = Coefficients(lambda x, t: -x, lambda x, t: 0.5 * (1 + x * x), grid, "reflecting")
        exact = (1 + grid.centers**2) ** -2.0
        errors.append(l1(stationary(c.at(0.0)), exact / (exact.sum())))
    assert errors[1] < 1e-9


def test_deep_wells_do_not_overflow():
    grid = Grid(-2, 2, 300)
    c = Coefficients(lambda x, t: -8000 * x * (x * x - 1), lambda x, t: 1.0, grid, "reflecting")
    p = stationary(c.at(0.0))
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, p[::-1], rtol=1e-8)


def test_a_tilted_circle_has_a_constant_current_and_the_quadrature_density():
    from scipy.integrate import quad

    errors = []
    for n in (100, 200):
        grid = Grid(-np.pi, np.pi, n)
        c = Coefficients(lambda x, t: 0.7 - np.sin(x), lambda x, t: 0.5, grid, "periodic")
        p = stationary(c.at(0.0))
        current = c.at(0.0).current(p)
        assert current.min() > 0.01
        assert np.ptp(current) < 1e-12

        # u' = 2 μ u − J with u(x + 2π) = u(x): u = ∫ exp(φ(x) − φ(y)) dy over one turn ahead, up to a factor
        def phi(x):
            return 2 * (0.7 * x + np.cos(x))

        def exact(x):
            return quad(lambda y: np.exp(phi(x) - phi(y)), x, x + 2 * np.pi, epsabs=1e-11)[0]

        reference = np.array([exact(x) for x in grid.centers[::10]])
        total = sum(exact(x) for x in grid.centers)
        errors.append(np.abs(p[::10] - reference / total).max() / grid.spacing)
    assert errors[1] < 1e-4
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_absorbing_walls_leave_nothing():
    c = Coefficients(lambda x, t: -x, lambda x, t: 1.0, Grid(-1, 1, 10), ("reflecting", "absorbing"))
    with pytest.raises(ValueError, match="absorbing wall leaves no stationary density"):
        stationary(c.at(0.0))


# Characteristics


def transported(drift, grid, p0, t, boundary="reflecting"):
    result = advection.transport(drift, grid, boundary, p0, 0.0, [t], 1e-6)
    return result.m[0], result.absorbed[0]


def test_a_bump_that_contracts_keeps_its_mass_and_its_peak():
    grid = Grid(-4, 4, 400)
    p, _ = transported(lambda x, t: -x, grid, gaussian(grid, 1.0, 0.4), 1.0)
    exact = gaussian(grid, np.exp(-1), 0.4 * np.exp(-1))
    assert l1(p, exact) < 1e-6
    assert p.max() == pytest.approx(exact.max(), rel=1e-6)
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_edges_that_leave_the_box_do_not_slow_the_others():
    grid = Grid(-5, 5, 200)
    p0 = gaussian(grid, 0.0, 1.0)
    result = advection.transport(lambda x, t: -20 * x, grid, "reflecting", p0, 0.0, [0.1], 1e-6)
    assert result.n_steps + result.n_rejected < 40
    assert l1(result.m[0], gaussian(grid, 0.0, np.exp(-2))) < 1e-5


def test_ten_turns_round_a_circle_smear_nothing():
    grid = Grid(0, 1, 100)
    p0 = gaussian(grid, 0.5, 0.03)
    p, _ = transported(lambda x, t: 1.0, grid, p0, 10.0, "periodic")
    assert l1(p, p0) < 1e-10
    moved, _ = transported(lambda x, t: 1.0, grid, p0, 10.203, "periodic")
    assert moved.max() > 0.98 * p0.max()
    assert l1(moved, gaussian(grid, 0.703, 0.03)) < 2e-3
    # negative control: the upwind limit of the finite volumes has lost most of the peak
    upwind = Coefficients(lambda x, t: 1.0, lambda x, t: 0.0, grid, "periodic")
    assert steppers.tr_bdf2(upwind, p0, 0.0, [1.0], 1e-3, constant=True).m[0].max() < 0.5 * p0.max()


def test_transport_converges_with_at_least_third_order():
    errors = []
    for n in (100, 200, 400):
        grid = Grid(-4, 4, n)
        p, _ = transported(lambda x, t: 0.3 + 0.6 * np.sin(x) * np.cos(t), grid, gaussian(grid, -0.5, 0.35), 1.0)
        fine = Grid(-4, 4, 3200)
        q, _ = transported(lambda x, t: 0.3 + 0.6 * np.sin(x) * np.cos(t), fine, gaussian(fine, -0.5, 0.35), 1.0)
        errors.append(l1(p, q.reshape(n, -1).sum(axis=1)))
    assert (np.diff(-np.log2(errors)) > 2.8).all()


def test_walls_without_diffusion():
    grid = Grid(0, 1, 100)
    p0 = gaussian(grid, 0.5, 0.05)
    left, lost = transported(lambda x, t: 1.0, grid, p0, 0.5, "absorbing")
    assert left.sum() == pytest.approx(0.5, abs=1e-9)
    np.testing.assert_allclose(lost, [0, 0.5], atol=1e-9)
    held, lost = transported(lambda x, t: 1.0, grid, p0, 0.5)
    assert held.sum() == pytest.approx(1, abs=1e-12)
    assert held[-1] > 0.5
    assert not lost.any()
    # there and back: what a wall has gathered leaves it as one lump, the rest is where it was
    back, _ = transported(lambda x, t: np.where(t < 0.5, 1.0, -1.0), grid, p0, 1.0)
    np.testing.assert_allclose(back[:45], p0[:45], atol=1e-3)
    assert back.sum() == pytest.approx(1, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(a=st.lists(st.floats(-2, 2), min_size=3, max_size=3), centre=st.floats(-1.5, 1.5))
def test_transport_keeps_mass_and_sign(a, centre):
    grid = Grid(-2, 2, 60)
    p0 = point_mass(grid, centre)
    result = advection.transport(
        lambda x, t: a[0] + a[1] * np.sin(2 * x) + a[2] * np.cos(3 * x + t),
        grid,
        "reflecting",
        p0,
        0.0,
        [0.7],
        1e-5,
    )
    assert result.m.min() >= 0
    assert result.m.sum() == pytest.approx(1, abs=1e-12)
