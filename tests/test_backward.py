"""Expectations backwards: closed forms, duality with densities, orders, and the engines against exponentials."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import expm_multiply

import sdesim as sde
from matrices import dense
from sdesim.fokker_planck import adjoint, adjoint_box
from sdesim.fokker_planck.sparse import matrix
from sdesim.on_grid import box_coefficients, line_coefficients

SPRING = sde.OrnsteinUhlenbeck(1.0, 0.3, 0.7)
SEASON = sde.ito(lambda x, t: np.cos(3 * t) - x, lambda x, t: 0.5 + 0.2 * np.sin(2 * t) + 0 * x)


def turning(omega=2.0):
    return sde.ito(
        lambda x, t, omega: (-(x[0] + omega * x[1]), omega * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2, omega=omega
    )


def wave(x):
    return x * x + np.sin(3 * x)


def masses(grid, mean, std):
    m = sde.gaussian(grid, mean, std) * grid.cell_volume
    return m / m.sum()


# One dimension


def test_the_mean_and_the_square_of_a_spring():
    errors = []
    for n in (150, 300):
        u = sde.evolve_expectation(SPRING, lambda x: x * x, sde.Grid(-4.0, 4.0, n), (0.0, 1.0))
        x = np.linspace(-1.5, 2.0, 15)
        errors.append(np.abs(u(x) - (SPRING.mean(1.0, x) ** 2 + SPRING.variance(1.0, x))).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)
    assert errors[1] < 1e-3


@pytest.mark.parametrize(("method", "tolerance"), [("cf14", 1e-9), ("tr_bdf2", 3e-6)])
@pytest.mark.parametrize(
    "boundary", ["reflecting", "absorbing", ("absorbing", "reflecting"), (sde.Robin(0.5), "reflecting")]
)
def test_duality_with_the_density(method, tolerance, boundary):
    grid = sde.Grid(-1.0, 1.5, 120)
    p0 = sde.gaussian(grid, 0.4, 0.15)
    p0 /= (p0 * grid.spacing).sum()
    rho = sde.evolve_density(SPRING, p0, grid, (0.0, 0.8), boundary=boundary, method=method)
    u = sde.evolve_expectation(SPRING, wave, grid, (0.0, 0.8), boundary=boundary, method=method)
    after = (sde.cell_averages(grid, wave) * rho.final).sum() * grid.spacing
    before = (u.final * p0).sum() * grid.spacing
    assert before == pytest.approx(after, abs=tolerance)
    # negative control: the forward operator in place of its transpose
    line = line_coefficients(SPRING, grid, boundary).at(0.0)
    wrong = adjoint.rational_exponential(adjoint.transposed(line), sde.cell_averages(grid, wave), [0.8], 1e-8).u[0]
    assert abs((wrong * p0).sum() * grid.spacing - after) > 1e-3


def test_equal_steps_are_dual_to_rounding():
    grid = sde.Grid(-4.0, 4.0, 200)
    p0 = masses(grid, 0.5, 0.3) / grid.spacing
    f = sde.cell_averages(grid, wave)
    rho = sde.evolve_density(SPRING, p0, grid, (0.0, 1.0), n_steps=20)
    u = sde.evolve_expectation(SPRING, f, grid, (0.0, 1.0), n_steps=20)
    assert u.n_steps == 20
    assert (f * rho.final).sum() == pytest.approx((u.final * p0).sum(), rel=1e-12)


def test_what_is_constant_stays_so_and_survival_is_the_mass():
    grid = sde.Grid(-1.0, 1.0, 100)
    ones = sde.evolve_expectation(SPRING, lambda x: 1.0 + 0 * x, grid, (0.0, 5.0))
    np.testing.assert_array_equal(ones.final, 1.0)
    lives = sde.evolve_expectation(SPRING, lambda x: 1.0 + 0 * x, grid, (0.0, 2.0), boundary="absorbing", save=4)
    assert (np.diff(lives.u, axis=0) > 0).all()  # the later the start, the likelier
    assert ((lives.u >= 0) & (lives.u <= 1)).all()
    for index in (0, 2):
        rho = sde.evolve_density(
            SPRING, sde.point_mass(grid, 0.31), grid, (0.0, 2.0 - lives.t[index]), boundary="absorbing"
        )
        mass = (lives.u[index] * sde.point_mass(grid, 0.31)).sum() * grid.spacing
        assert mass == pytest.approx(rho.mass[-1], abs=1e-9)
    assert lives(1.0) == pytest.approx(0.0, abs=1e-12)


def test_an_indicator_gives_the_normal_distribution_function():
    from scipy.special import ndtr

    for method in ("cf14", "tr_bdf2"):
        u = sde.evolve_expectation(SPRING, lambda x: x > 0.31, sde.Grid(-3.0, 3.0, 400), (0.0, 0.5), method=method)
        x = np.linspace(-1, 1.5, 26)
        exact = ndtr((SPRING.mean(0.5, x) - 0.31) / np.sqrt(SPRING.variance(0.5, x)))
        np.testing.assert_allclose(u(x), exact, atol=1e-3)
        assert u.u.min() > -1e-9
        assert u.u.max() < 1 + 1e-9


def test_coefficients_that_depend_on_time_run_backwards():
    # X_T is linear in x: E X_T = x e^{−T} + ∫ cos(3s) e^{s − T} ds, whatever the noise
    grid = sde.Grid(-4.0, 4.0, 400)
    t0, t1 = 0.2, 1.7
    u = sde.evolve_expectation(SEASON, lambda x: x, grid, (t0, t1), rtol=1e-7, save=[t0, 0.9, t1])
    assert u.method == "tr_bdf2"
    for index, t in enumerate(u.t):
        drift = [(np.cos(3 * s) + 3 * np.sin(3 * s)) * np.exp(s - t1) / 10 for s in (t, t1)]
        exact = 1.1 * np.exp(t - t1) + drift[1] - drift[0]
        assert u(1.1, index) == pytest.approx(exact, abs=2e-4)
    errors = []
    for n in (20, 40, 80):
        v = sde.evolve_expectation(SEASON, lambda x: x, grid, (t0, t1), n_steps=n)
        errors.append(np.abs(v.final - u.u[0]).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.1)


def test_formulas_that_read_the_time_are_only_asked_within_the_span():
    grid = sde.Grid(-4.0, 4.0, 200)
    process = sde.ito(lambda x, t: -x + 0.0 * np.sqrt(1.0 - t) * np.sqrt(t), lambda x, t: 1.0)
    u = sde.evolve_expectation(process, lambda x: x, grid, (0.0, 1.0), method="cf14")
    assert u(1.1) == pytest.approx(1.1 * np.exp(-1.0), abs=1e-3)
    pulse = sde.ito(lambda x, t: np.where((t > 0.4) & (t < 0.5), -x, 0.0), lambda x, t: 1.0)
    with pytest.raises(ValueError, match="coefficients that do not depend on time"):
        sde.evolve_expectation(pulse, lambda x: x, grid, (0.0, 1.0), method="cf14")


def test_round_a_circle_with_a_current():
    # e^{ix} under constant drift v: E cos(X_t) = e^{−D t} cos(x + v t)
    process = sde.ito(lambda x, t: 2.0 + 0 * x, lambda x, t: 0.6)
    grid = sde.Grid(0.0, 2 * np.pi, 300)
    u = sde.evolve_expectation(process, np.cos, grid, (0.0, 1.0), boundary="periodic")
    assert u.method == "tr_bdf2"
    x = np.linspace(0, 2 * np.pi, 33)
    np.testing.assert_allclose(u(x), np.exp(-0.18) * np.cos(x + 2.0), atol=2e-3)
    still = sde.evolve_expectation(sde.Wiener(), np.cos, grid, (0.0, 1.0), boundary="periodic")
    assert still.method == "cf14"
    np.testing.assert_allclose(still(x), np.exp(-0.5) * np.cos(x), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 25),
    t=st.floats(0.01, 3.0),
    slope=st.floats(-2, 2),
    boundary=st.sampled_from(["reflecting", "absorbing", "periodic", ("absorbing", "reflecting")]),
)
def test_it_is_the_exponential_of_the_transpose(n, t, slope, boundary):
    process = sde.ito(lambda x, t, slope: slope * np.sin(x), lambda x, t: 0.8 + 0.1 * np.cos(x), slope=slope)
    grid = sde.Grid(-np.pi, np.pi, n)
    operator = line_coefficients(process, grid, boundary).at(0.0)
    np.testing.assert_array_equal(dense(adjoint.transposed(operator)), dense(operator).T)
    f = np.cos(np.arange(n))
    found = sde.evolve_expectation(process, f, grid, (0.0, t), boundary=boundary, rtol=1e-6).final
    np.testing.assert_allclose(found, expm_multiply(t * dense(operator).T, f), atol=1e-5)
    assert found.max() <= max(f.max(), 0.0) + 1e-6
    assert found.min() >= min(f.min(), 0.0) - 1e-6


# Several dimensions


def test_a_turning_spring_turns_its_mean():
    grid = sde.Grid([-4.0, -4.0], [4.0, 4.0], 64)
    u = sde.evolve_expectation(turning(), lambda x, y: x, grid, (0.0, 0.7), rtol=1e-4)
    x, y = 0.8, -0.5
    exact = np.exp(-0.7) * (x * np.cos(1.4) - y * np.sin(1.4))
    assert u([x, y]) == pytest.approx(exact, abs=5e-3)


PROBLEMS = {
    "turning": (turning(), "reflecting", ([-3.0, -3.0], [3.0, 3.0], (30, 26))),
    "walls": (
        turning(),
        (("absorbing", "reflecting"), (sde.Robin(1.0), "absorbing")),
        ([-1.0, -1.0], [1.5, 1.0], (24, 20)),
    ),
    "mixed": (
        sde.ito(lambda x, t: (-x[0], x[0] - x[1]), lambda x, t: ((0.8, 0.0), (0.4, 0.7)), dim=2, noise="general"),
        "reflecting",
        ([-3.0, -3.0], [3.0, 3.0], (30, 26)),
    ),
    "circle": (
        sde.ito(lambda x, t: (1.0 - np.sin(x[0]), np.cos(x[0]) - x[1]), lambda x, t: (0.7, 0.7), dim=2),
        ("periodic", "reflecting"),
        ([-np.pi, -2.5], [np.pi, 2.5], (24, 22)),
    ),
    "three": (
        sde.ito(
            lambda x, t: (-(x[0] + 2 * x[1]), 2 * x[0] - x[1] + x[2], -x[2] - x[1]), lambda x, t: (1.0, 1.0, 1.0), dim=3
        ),
        "reflecting",
        ([-3.0] * 3, [3.0] * 3, (12, 10, 8)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["walls", "circle", "three"])
def test_implicit_lines_are_solved_exactly(name):
    from sdesim.fokker_planck.sparse import line_matrices

    process, boundary, box = PROBLEMS[name]
    operator = box_coefficients(process, sde.Grid(*box), boundary).at(0.0)
    step = adjoint_box._Step(operator, 0.1)
    x = np.cos(np.arange(operator.grid.shape[0] * 7919))[: np.prod(operator.grid.shape)].reshape(operator.grid.shape)
    for k, part in enumerate(line_matrices(operator)):
        f, b, circle = step.rates[k]
        y = x.copy()
        adjoint_box._sweep(f, b, *step.damping[k], 0.05, circle, adjoint_box._lines(y, k))
        np.testing.assert_allclose(y.ravel() - 0.05 * (part.T @ y.ravel()), x.ravel(), atol=1e-12)
    applied = step._apply(x)
    np.testing.assert_allclose(applied.ravel(), matrix(operator).T @ x.ravel(), atol=1e-11)


def test_coefficients_of_boxes_that_depend_on_time():
    # E X_T = x e^{−(T − t)} + ∫ cos(3s) e^{s − T} ds for the first component
    process = sde.ito(lambda x, t: (np.cos(3 * t) - x[0], -x[1]), lambda x, t: (0.5 + 0.2 * np.sin(2 * t), 0.6), dim=2)
    grid = sde.Grid([-3.0, -2.0], [3.0, 2.0], (120, 8))
    t0, t1 = 0.2, 1.7
    u = sde.evolve_expectation(process, lambda x, y: x, grid, (t0, t1), n_steps=60)
    drift = [(np.cos(3 * s) + 3 * np.sin(3 * s)) * np.exp(s - t1) / 10 for s in (t0, t1)]
    assert u([0.9, 0.0]) == pytest.approx(0.9 * np.exp(t0 - t1) + drift[1] - drift[0], abs=2e-3)
    finer = sde.evolve_expectation(process, lambda x, y: x, grid, (t0, t1), n_steps=640).final
    errors = [
        np.abs(sde.evolve_expectation(process, lambda x, y: x, grid, (t0, t1), n_steps=n).final - finer).max()
        for n in (20, 40, 80)
    ]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.3)


def bump(*x):
    return np.exp(-sum((xk - 0.3) ** 2 for xk in x)) + 0.5 * np.tanh(x[0])


@pytest.mark.parametrize("name", PROBLEMS)
def test_boxes_follow_the_exponential_of_the_transpose(name):
    process, boundary, box = PROBLEMS[name]
    grid = sde.Grid(*box)
    a = matrix(box_coefficients(process, grid, boundary).at(0.0))
    f = sde.cell_averages(grid, bump)
    exact = expm_multiply(0.6 * a.T.tocsr(), f.ravel()).reshape(grid.shape)
    errors = []
    for n in (32, 64, 128):
        u = sde.evolve_expectation(process, f, grid, (0.0, 0.6), boundary=boundary, n_steps=n)
        errors.append(np.abs(u.final - exact).max())
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.35)
    free = sde.evolve_expectation(process, f, grid, (0.0, 0.6), boundary=boundary, rtol=1e-4)
    assert np.abs(free.final - exact).max() < 3e-4 * np.ptp(f)
    assert free.method == "splitting"


@pytest.mark.parametrize("name", ["turning", "walls", "mixed"])
def test_duality_in_the_plane(name):
    process, boundary, box = PROBLEMS[name]
    grid = sde.Grid(*box)
    m = masses(grid, 0.2, 0.4)
    u = sde.evolve_expectation(process, bump, grid, (0.0, 0.6), boundary=boundary, rtol=1e-5)
    with np.errstate(all="ignore"):
        rho = quietly(lambda: sde.evolve_density(process, m / grid.cell_volume, grid, (0.0, 0.6), boundary=boundary))
    after = (sde.cell_averages(grid, bump) * rho.masses[-1]).sum()
    assert (u.final * m).sum() == pytest.approx(after, abs=5e-5)


def quietly(call):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call()


def test_a_kinetic_mean_swings_like_the_oscillator():
    from scipy.linalg import expm

    process = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 0.5, 1.0)
    grid = sde.Grid([-5.0, -5.0], [5.0, 5.0], 64)
    u = sde.evolve_expectation(process, lambda q, v: q, grid, (0.0, 1.5), rtol=1e-4)
    exact = expm(1.5 * np.array([[0.0, 1.0], [-1.0, -0.5]]))[0] @ [1.0, 0.5]
    assert u([1.0, 0.5]) == pytest.approx(exact, abs=6e-3)


def test_without_any_noise_a_bump_turns_with_the_flow():
    process = sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: (0.0, 0.0), dim=2)
    errors = []
    for n in (32, 64):
        grid = sde.Grid([-2.0, -2.0], [2.0, 2.0], n)
        u = sde.evolve_expectation(
            process, lambda x, y: np.exp(-4 * ((x - 0.5) ** 2 + y * y)), grid, (0.0, np.pi / 2), n_steps=n
        )
        errors.append(abs(u([0.0, -0.5]) - 1.0))
    assert errors[1] < 5e-3
    assert errors[1] < errors[0] / 3


def test_mixed_and_damped_steps_keep_constants():
    process, _, box = PROBLEMS["mixed"]
    u = sde.evolve_expectation(process, lambda x, y: 1.0 + 0 * x, sde.Grid(*box), (0.0, 0.6), n_steps=5)
    np.testing.assert_allclose(u.final, 1.0, atol=1e-12)


def test_steps_are_counted_and_shared_among_saved_times():
    grid = sde.Grid([-3.0, -3.0], [3.0, 3.0], 16)
    u = sde.evolve_expectation(turning(), lambda x, y: x * y, grid, (0.0, 1.0), save=[0.0, 0.3, 1.0], n_steps=10)
    assert u.n_steps == 10
    assert u.u.shape == (3, 16, 16)
    np.testing.assert_array_equal(u.u[2], sde.cell_averages(grid, lambda x, y: x * y))
    once = sde.evolve_expectation(turning(), lambda x, y: x * y, grid, (0.3, 1.0), n_steps=7)
    np.testing.assert_allclose(u.u[1], once.final, atol=1e-12)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"f": np.ones(3)}, r"f has shape \(3,\), expected \(20,\)"),
        ({"f": lambda x: 1 / (x - x)}, "density\\(x\\) must be finite|f must be finite"),
        ({"method": "splitting"}, "method 'splitting' is for several dimensions"),
        ({"method": "cf15"}, "did you mean 'cf14'"),
        ({"t_span": (1.0, 0.0)}, "t_span must increase"),
        ({"save": [0.5, 0.2]}, "save must be strictly increasing"),
        ({"method": "cf14", "n_steps": 3}, "takes no steps"),
        ({"process": SEASON, "method": "cf14"}, "coefficients that do not depend on time"),
        ({"process": sde.ito(lambda x, t: -x, lambda x, t: 0.0)}, "follow the path with simulate"),
        ({"f": lambda x: 1.0 if x > 0 else 0.0}, "f works on single numbers, and here it is evaluated on arrays"),
    ],
)
def test_what_cannot_be_answered_says_why(arguments, message):
    given = {"process": SPRING, "f": np.cos, "grid": sde.Grid(-1.0, 1.0, 20), "t_span": (0.0, 1.0), **arguments}
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        sde.evolve_expectation(**given)


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(adjoint_box, "MOST", 32)
    with pytest.raises(RuntimeError, match=r"32 steps leave an error of .* in time"):
        sde.evolve_expectation(turning(), bump, sde.Grid([-3.0, -3.0], [3.0, 3.0], 16), (0.0, 5.0), rtol=1e-9)
