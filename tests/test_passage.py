"""Mean first-passage times and committors against quadrature, series, dense chains and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

import sdesim as sde
from matrices import dense
from sdesim.fokker_planck import hitting
from sdesim.on_grid import line_coefficients

# V = 5 (x² − 1)², D = 1: a barrier of 5
QUARTIC = sde.ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: np.sqrt(2.0))
FREE = sde.Wiener()
TIMED = sde.ito(lambda x, t: t - x, lambda x, t: 1.0)
FREE_2D = sde.ito(lambda x, t: (0 * x[0], 0 * x[1]), lambda x, t: (1.0, 1.0), dim=2)


def quadrature(potential, start, wall, edge):
    """∫ e^V(y) ∫ e^−V(z): the mean time from start to edge with a reflecting wall, for D = 1."""

    def inside(y):
        return quad(lambda z: np.exp(-potential(z)), wall, y, epsabs=0, epsrel=1e-12)[0]

    return quad(lambda y: np.exp(potential(y)) * inside(y), start, edge, epsabs=0, epsrel=1e-11)[0]


REFERENCE = quadrature(lambda x: 5 * (x * x - 1) ** 2, -1.0, -2.5, 0.0)


def right_half(x):
    return x > 0


# Mean times, one dimension


def test_the_reference_is_the_recorded_one():
    assert pytest.approx(18.095188, abs=5e-7) == REFERENCE


@pytest.mark.parametrize(("grid_of", "options"), [
    (lambda n: sde.Grid(-2.5, 0.0, n), {"boundary": ("reflecting", "absorbing")}),
    (lambda n: sde.Grid(-2.5, 2.5, 2 * n), {"target": right_half}),
    (lambda n: sde.Grid.graded(-2.5, 0, n, near=-1, width=0.5, finest=0.4), {"boundary": ("reflecting", "absorbing")}),
])  # fmt: skip
def test_kramers_time_is_second_order_and_richardson_reaches_a_millionth(grid_of, options):
    errors = [
        sde.mean_first_passage_time(QUARTIC, grid_of(n), **options)(-1.0) / REFERENCE - 1 for n in (100, 200, 400)
    ]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(slopes, 2.0, atol=0.08)
    assert abs(errors[2]) < 2e-4
    better = sde.mean_first_passage_time(QUARTIC, grid_of(300), richardson=True, **options)(-1.0)
    assert better == pytest.approx(REFERENCE, rel=1e-6)


def test_a_time_of_e_to_the_forty_keeps_its_digits():
    # a barrier of 40 between the wells: elimination by subtraction would lose all of them
    deep = sde.ito(lambda x, t: -160 * x * (x * x - 1), lambda x, t: np.sqrt(2.0))
    grid = sde.Grid(-2.0, 2.0, 800)
    tau = sde.mean_first_passage_time(deep, grid, lambda x: x > 0, richardson=True)
    exact = quadrature(lambda x: 40 * (x * x - 1) ** 2, -1.0, -2.0, 0.0)
    assert exact > 1e15
    assert tau(-1.0) == pytest.approx(exact, rel=1e-5)
    # the chain's own time is known in closed form too: the sum over cells of what the quadrature integrates
    operator = line_coefficients(deep, grid, "reflecting").at(0.0)
    n = 400
    log_m = np.concatenate([[0.0], np.cumsum(operator.exponent[: n - 1])])
    m = np.exp(log_m - log_m.max())
    below = np.cumsum(m)
    lower = operator.bands[0]
    rates = np.append(lower[1:n], hitting.half_rate(lower[n], operator.exponent[n - 1], 1.0, 1.0))
    steps = below / (m * rates)
    sums = np.cumsum(steps[::-1])[::-1]
    plain = sde.mean_first_passage_time(deep, grid, lambda x: x > 0)
    np.testing.assert_allclose(plain.mean[:n], sums, rtol=1e-12)


def test_exit_from_an_interval_has_all_its_moments():
    # E T = (1 − x²), E T² = (1 − x²)(5 − x²)/3 for dX = dW on (−1, 1)
    grid = sde.Grid(-1.0, 1.0, 200)
    tau = sde.mean_first_passage_time(FREE, grid, boundary="absorbing", moments=3, richardson=True)
    x = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(tau(x), 1 - x * x, atol=1e-8)
    np.testing.assert_allclose(tau.moment(2)(x), (1 - x * x) * (5 - x * x) / 3, atol=1e-7)
    # Σ over the odd k of the sine series, third moment at 0: 61/15
    assert tau.moment(3)(0.0) == pytest.approx(61 / 15, rel=1e-6)
    centre = grid.centers
    np.testing.assert_allclose(tau.variance, (1 - centre**2) * (2 + 2 * centre**2) / 3, atol=1e-7)


def test_drift_to_a_wall_and_a_partly_reflecting_one():
    # dX = −v dt + σ dW from reflecting 1 to absorbing 0: x/v − (D/v²)(e^{−v(1−x)/D} − e^{−v/D})
    v, d = 2.0, 0.5
    drift = sde.ito(lambda x, t: -2.0 + 0 * x, lambda x, t: 1.0)
    tau = sde.mean_first_passage_time(
        drift, sde.Grid(0.0, 1.0, 160), boundary=("absorbing", "reflecting"), richardson=True
    )
    x = np.linspace(0.0, 1.0, 11)
    exact = x / v - (d / v**2) * (np.exp(-v * (1 - x) / d) - np.exp(-v / d))
    np.testing.assert_allclose(tau(x), exact, atol=2e-7)
    # J = κ p at 0 for dX = dW: D τ' = κ τ there, τ'' D = −1, τ'(1) = 0: τ = 1/κ + (2x − x²)/(2D)
    kappa = 0.7
    tau = sde.mean_first_passage_time(
        FREE, sde.Grid(0.0, 1.0, 160), boundary=(sde.Robin(kappa), "reflecting"), richardson=True
    )
    np.testing.assert_allclose(tau(x), 1 / kappa + (2 * x - x * x), atol=1e-6)


def test_noise_that_depends_on_the_state():
    # dX = X dW on (1, 2): L = ½x² ∂², τ = 2 log x − 2 log 2 (x − 1) with τ(1) = τ(2) = 0
    gbm = sde.GeometricBrownian(mu=0.0, sigma=1.0)
    tau = sde.mean_first_passage_time(gbm, sde.Grid(1.0, 2.0, 100), boundary="absorbing", richardson=True)
    x = np.linspace(1, 2, 11)
    np.testing.assert_allclose(tau(x), 2 * np.log(x) - 2 * np.log(2) * (x - 1), atol=1e-8)
    # and with the edges of a target inside the grid
    inside = sde.mean_first_passage_time(gbm, sde.Grid(0.5, 2.5, 200), lambda x: (x < 1) | (x > 2), richardson=True)
    np.testing.assert_allclose(inside(x), 2 * np.log(x) - 2 * np.log(2) * (x - 1), atol=2e-7)
    assert inside(0.7) == 0.0


def test_the_edge_of_a_target_is_a_wall_also_against_a_strong_drift():
    # where μ/D is constant the half cell up to the edge is known exactly: the chain is that of a wall there
    axis = sde.Grid.graded(-1.0, 1.0, 40, near=0.2, width=0.3, finest=0.5)
    for pull in (-20.0, 15.0):
        process = sde.ito(lambda x, t, pull: pull + 0 * x, lambda x, t: 1.0, pull=pull)
        low, high = 12, 33
        cells = (np.arange(40) < low) | (np.arange(40) >= high)
        inside = sde.mean_first_passage_time(process, axis, cells)
        inner = sde.Grid.from_edges(axis.edges[low : high + 1])
        walls = sde.mean_first_passage_time(process, inner, boundary="absorbing")
        np.testing.assert_allclose(inside.mean[low:high], walls.mean, rtol=1e-10)


def test_a_circle_is_left_through_its_target_from_both_sides():
    # dX = dW on a circle of length 2π with a target of width 1/8: (x − a)(b − x) from its edges
    grid = sde.Grid(0.0, 2 * np.pi, 128)
    h = grid.spacing
    for first in (0, 37, 124):
        cells = np.zeros(128, bool)
        cells[(first + np.arange(8)) % 128] = True
        tau = sde.mean_first_passage_time(FREE, grid, cells, boundary="periodic")
        away = (np.arange(128) - first - 8) % 128
        x = (away + 0.5) * h
        exact = np.where(cells, 0.0, x * (120 * h - x))
        np.testing.assert_allclose(tau.mean, exact, atol=h * h / 3)
        assert tau(grid.edges[first]) == pytest.approx(0.0, abs=1e-9)
    one = np.arange(128) == 50
    tau = sde.mean_first_passage_time(FREE, grid, one, boundary="periodic")
    x = ((np.arange(128) - 51) % 128 + 0.5) * h
    np.testing.assert_allclose(tau.mean, np.where(one, 0.0, x * (127 * h - x)), atol=h * h / 3)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(5, 30),
    slope=st.floats(-2, 1),
    wave=st.floats(-1, 1),
    walls=st.sampled_from([("absorbing", "reflecting"), ("absorbing", "absorbing"), (sde.Robin(0.5), "reflecting")]),
)
def test_moments_are_those_of_the_chain(n, slope, wave, walls):
    process = sde.ito(
        lambda x, t, slope, wave: slope * x + wave * np.sin(3 * x),
        lambda x, t: 0.5 + 0.2 * x * x,
        slope=slope,
        wave=wave,
    )
    operator = line_coefficients(process, sde.Grid(-1.0, 1.5, n), walls).at(0.0)
    a = dense(operator)
    first = np.linalg.solve(a.T, -np.ones(n))
    second = np.linalg.solve(a.T, -2 * first)
    found = hitting.passage_moments(operator, hitting.Goal(), 2)
    np.testing.assert_allclose(found[0], first, rtol=1e-8)
    np.testing.assert_allclose(found[1], second, rtol=1e-8)
    assert (found > 0).all()
    assert (found[1] >= found[0] ** 2).all()


def test_mean_time_is_the_integral_of_survival():
    grid = sde.Grid(-2.0, 2.0, 100)
    process = sde.OrnsteinUhlenbeck(1.0, 0.5, 2.0)
    p0 = sde.gaussian(grid, 0.5, 0.2)
    rho = sde.evolve_density(
        process, p0, grid, (0.0, 30.0), save=30.0 * np.linspace(0.01, 1.0, 500) ** 2, boundary="absorbing"
    )
    t, survival = np.append(0.0, rho.t), np.append(1.0, rho.mass)
    from scipy.interpolate import CubicSpline

    mean = CubicSpline(t, survival).integrate(0.0, 30.0)
    tau = sde.mean_first_passage_time(process, grid, boundary="absorbing")
    assert (tau.mean * p0).sum() * grid.spacing == pytest.approx(mean, rel=1e-6)


# Committors


def test_the_committor_is_the_ratio_of_integrals():
    def exact(x):
        def part(b):
            return quad(lambda y: np.exp(5 * (y * y - 1) ** 2), -1.0, b, epsabs=0, epsrel=1e-12)[0]

        return part(x) / part(1.0)

    errors = []
    for n in (50, 100):
        q = sde.committor(QUARTIC, sde.Grid(-1.0, 1.0, n))
        errors.append(abs(q(-0.3) - exact(-0.3)))
        assert (np.diff(q.values) > 0).all()
        assert q(-1.0) == pytest.approx(0.0, abs=1e-12)
        assert q(1.0) == pytest.approx(1.0, abs=1e-12)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)
    assert errors[1] < 2e-4
    inside = sde.committor(QUARTIC, sde.Grid(-2.5, 2.5, 250), lambda x: x < -1, lambda x: x > 1)
    assert inside(-0.3) == pytest.approx(exact(-0.3), abs=2e-4)
    assert inside(-2.0) == 0.0
    assert inside(1.5) == 1.0


def test_swapping_the_sets_gives_the_complement():
    grid = sde.Grid(-2.0, 2.0, 80)
    a, b = (lambda x: x < -1), (lambda x: (x > 0.5) & (x < 1))
    q, other = sde.committor(QUARTIC, grid, a, b), sde.committor(QUARTIC, grid, b, a)
    np.testing.assert_allclose(q.values + other.values, 1.0, atol=1e-12)
    low = sde.committor(FREE, grid, a=None, b=lambda x: x > 1)
    assert low(0.0) == pytest.approx(2 / 3, abs=1e-9)
    high = sde.committor(FREE, grid, a=lambda x: x < -1, b=None)
    assert high(0.0) == pytest.approx(1 / 3, abs=1e-9)


def test_the_committor_on_a_circle():
    # from x on a circle the two edges of one target and the other: straight lines between them
    grid = sde.Grid(0.0, 1.0, 40)
    q = sde.committor(FREE, grid, lambda x: x < 0.1, lambda x: (x > 0.5) & (x < 0.6), boundary="periodic")
    assert q(0.3) == pytest.approx(0.5, abs=1e-10)
    assert q(0.8) == pytest.approx(0.5, abs=1e-10)
    assert q(0.7) == pytest.approx(0.75, abs=1e-10)


# The function of the start


def test_it_serves_as_an_array_and_as_a_function():
    grid = sde.Grid(0.0, 1.0, 50)
    tau = sde.mean_first_passage_time(FREE, grid, boundary="absorbing")
    assert np.asarray(tau).shape == (50,)
    assert tau[3] == tau.mean[3]
    assert len(tau) == 50
    assert isinstance(tau(0.5), float)
    assert tau(np.full((2, 3), 0.5)).shape == (2, 3)
    assert "PassageTimes(50 cells" in repr(tau)
    with pytest.raises(ValueError, match=r"x = 1.2 is outside the grid \[0, 1\]"):
        tau([0.3, 1.2])
    with pytest.raises(ValueError, match="variance needs moments=2"):
        _ = tau.variance
    with pytest.raises(ValueError, match="needs moments=2, got moments=1"):
        tau.moment(2)


def test_interpolation_has_order_four_on_lines_and_in_boxes():
    for dim, shapes in ((1, (20, 40)), (2, ((20, 18), (40, 36)))):
        errors = []
        for shape in shapes:
            grid = sde.Grid(0.0, 1.0, shape) if dim == 1 else sde.Grid([0.0, 0.0], [1.0, 2.0], shape)
            mesh = np.meshgrid(*(axis.centers for axis in grid.axes), indexing="ij")
            u = sde.GridFunction(grid, np.sin(3 * sum(mesh)), None, ((None, None),) * dim)
            at = np.random.default_rng(0).uniform(0, 1, (200, dim))
            found = u(at[:, 0] if dim == 1 else at)
            errors.append(np.abs(found - np.sin(3 * at.sum(axis=1))).max())
        assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=1.0)


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: sde.mean_first_passage_time(FREE, g), "no wall absorbs and there is no target"),
        (lambda g: sde.mean_first_passage_time(FREE, g, lambda x: x > 9), "target has no cells"),
        (lambda g: sde.mean_first_passage_time(FREE, g, np.zeros(3, bool)), r"target has shape \(3,\), expected"),
        (lambda g: sde.mean_first_passage_time(FREE, g, boundary="periodic"), "never leaves"),
        (lambda g: sde.mean_first_passage_time(FREE, g, boundary="absorbing", moments=0), "moments must be >= 1"),
        (
            lambda g: sde.mean_first_passage_time(TIMED, g, boundary="absorbing"),
            "mean first-passage time needs coefficients that do not depend on time",
        ),
        (lambda g: sde.committor(FREE, g, lambda x: x < 0.5, lambda x: x > 0.2), "a and b overlap in 6 cells"),
        (lambda g: sde.committor(FREE, g, boundary="periodic"), "on a circle there are no walls"),
        (lambda g: sde.committor(FREE_2D, sde.Grid([0, 0], [1, 1], 4)), "a and b must both be given"),
        (lambda g: sde.mean_first_passage_time(FREE_2D, sde.Grid([0, 0], [1, 1], 4)), "never leaves"),
        (
            lambda g: sde.mean_first_passage_time(
                FREE_2D, sde.Grid([0, 0], [1, 1], 4), lambda x, y: x > 0.5, richardson=True
            ),
            "exits through walls",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call(sde.Grid(0.0, 1.0, 20))


def test_a_target_must_be_a_condition():
    with pytest.raises(TypeError, match="target must be a function to bool or an array of bool, got dtype float64"):
        sde.mean_first_passage_time(FREE, sde.Grid(0.0, 1.0, 20), lambda x: x)


def test_a_target_behind_a_barrier_without_noise_is_not_reached():
    # no noise below 0 and a drift away from the target: whoever is there stays there
    stuck = sde.ito(lambda x, t: np.where(x < 0, -1.0, 0.0), lambda x, t: np.where(x < 0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"no way out from .* cells"):
        sde.mean_first_passage_time(stuck, sde.Grid(-1.0, 1.0, 40), lambda x: x > 0.5)
