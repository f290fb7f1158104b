"""Stationary densities in two and three dimensions, in detailed balance and with a current."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.fokker_planck import linear, stationary_box
from sdesim.fokker_planck.sparse import line_matrices, matrix
from sdesim.on_grid import box_coefficients


def well(x, y):
    return 3 * (x * x - 1) ** 2 + 2 * y * y + x * y


# dX = −∇V dt + √2 dW
GRADIENT = sde.ito(
    lambda x, t: (-(12 * x[0] * (x[0] ** 2 - 1) + x[1]), -(4 * x[1] + x[0])),
    lambda x, t: (np.sqrt(2.0), np.sqrt(2.0)),
    dim=2,
)
# N(0, I/2) whatever ω, with the current p (−ω y, ω x)
TURNING = sde.ito(
    lambda x, t, omega: (-(x[0] + omega * x[1]), omega * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2, omega=2.0
)


def mesh(grid):
    return np.meshgrid(*(axis.centers for axis in grid.axes), indexing="ij")


def nodes(grid, density):
    p = density(*mesh(grid)) * grid.cell_volume
    return p / p.sum()


def divergence(rho):
    """The sum over cells of what more flows out than in, per unit time."""
    grid, total = rho.grid, 0.0
    for k, flow in enumerate(rho.current()):
        area = grid.cell_volume / grid.widths[k].reshape([-1 if j == k else 1 for j in range(grid.dim)])
        total = total + np.diff(flow, axis=k) * area
    return float(np.abs(total).sum())


def null_residual(rho):
    operator = box_coefficients(rho.process, rho.grid, rho.boundary).at(0.0)
    m = rho.masses[0].ravel()
    return float(np.abs(matrix(operator) @ m).sum() / np.abs(matrix(operator).diagonal()).max())


# Detailed balance


def test_a_gradient_is_exact_at_the_nodes():
    grid = sde.Grid([-2.5, -2.5], [2.5, 2.5], (128, 100))
    rho = sde.stationary_density(GRADIENT, grid)
    assert np.abs(rho.masses[0] - nodes(grid, lambda x, y: np.exp(-well(x, y)))).sum() < 1e-12
    assert max(np.abs(flow).max() for flow in rho.current()) < 1e-12
    # negative control: twice the temperature is another law
    assert np.abs(rho.masses[0] - nodes(grid, lambda x, y: np.exp(-0.5 * well(x, y)))).sum() > 0.1


def test_and_in_three_dimensions_on_graded_cells():
    axis = sde.Grid.graded(-2.5, 2.5, 24, near=[-1.0, 1.0], width=0.5, finest=0.5)
    grid = sde.Grid.product(axis, sde.Grid(-2.5, 2.5, 20), sde.Grid(-3.0, 3.0, 18))
    process = sde.ito(
        lambda x, t: (
            -(12 * x[0] * (x[0] ** 2 - 1) + x[1] + 0.5 * x[2]), -(4 * x[1] + x[0]), -(2 * x[2] + 0.5 * x[0]),
        ),
        lambda x, t: (np.sqrt(2.0),) * 3,
        dim=3,
    )  # fmt: skip
    rho = sde.stationary_density(process, grid)
    exact = nodes(grid, lambda x, y, z: np.exp(-well(x, y) - z * z - 0.5 * x * z))
    assert np.abs(rho.masses[0] - exact).sum() < 1e-12


def test_noise_that_depends_on_the_state_along_each_axis():
    # D p ∝ exp(∫ μ/D): independent axes with p ∝ (1 + x²)⁻² each
    process = sde.ito(lambda x, t: (-x[0], -x[1]), lambda x, t: (np.sqrt(1 + x[0] ** 2), np.sqrt(1 + x[1] ** 2)), dim=2)
    grid = sde.Grid([-6, -6], [6, 6], 96)
    rho = sde.stationary_density(process, grid)
    assert np.abs(rho.masses[0] - nodes(grid, lambda x, y: ((1 + x * x) * (1 + y * y)) ** -2.0)).sum() < 1e-8


def test_balance_is_seen_round_plaquettes_and_round_circles():
    grid = sde.Grid([-2, -2], [2, 2], 16)

    def balanced(process, boundary="reflecting", where=grid):
        return stationary_box.balance(box_coefficients(process, where, boundary).at(0.0)) is not None

    assert balanced(GRADIENT)
    assert not balanced(TURNING)
    assert not balanced(dataclass_with(TURNING, omega=1e-6))
    assert balanced(dataclass_with(TURNING, omega=0.0))
    circle = sde.Grid([-np.pi, -1], [np.pi, 1], 16)
    for tilt, expected in ((0.0, True), (0.01, False)):
        process = sde.ito(lambda x, t, tilt: (tilt - np.sin(x[0]), -x[1]), lambda x, t: (1.0, 1.0), dim=2, tilt=tilt)
        assert balanced(process, ("periodic", "reflecting"), circle) is expected


def dataclass_with(process, **parameters):
    return dataclasses.replace(process, parameters={**process.parameters, **parameters})


# With a current


def test_a_turning_spring_keeps_its_gaussian_and_circulates():
    errors, flows = [], []
    for n in (40, 80):
        grid = sde.Grid([-4, -4], [4, 4], n)
        rho = sde.stationary_density(TURNING, grid)
        exact = sde.gaussian(grid, 0.0, np.sqrt(0.5))
        errors.append(np.abs(rho.final - exact).sum() * grid.cell_volume)
        x, y = grid.axes[0].edges[:, None], grid.axes[1].centers[None, :]
        along = -2.0 * y * np.exp(-x * x - y * y) / np.pi  # J_x = −ω y p
        flows.append(np.abs(rho.current()[0] - along).max())
        assert rho.minimum > 0.0
        assert divergence(rho) < 1e-11
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)
    assert np.log2(flows[0] / flows[1]) == pytest.approx(2.0, abs=0.3)
    assert flows[1] < 0.02


def test_small_masses_keep_their_relative_accuracy():
    # far out, where the mass is 1e-25 of the peak, the null vector is still that of the matrix to many digits
    grid = sde.Grid([-5, -5], [5, 5], 60)
    rho = sde.stationary_density(TURNING, grid)
    operator = box_coefficients(TURNING, grid, "reflecting").at(0.0)
    m = rho.masses[0]
    assert m.min() < 1e-18 * m.max()
    a = matrix(operator).tocsr()
    loss = np.abs(a.diagonal() * m.ravel())
    assert (np.abs(a @ m.ravel()) / loss).max() < 1e-9


def test_correlated_noise_has_the_gaussian_of_lyapunov():
    # dX = −X dt + σ dW with A = I: covariance σσᵀ/2
    process = sde.ito(lambda x, t: (-x[0], -x[1]), lambda x, t: ((1.0, 0.0), (0.6, 0.8)), dim=2, noise="general")
    errors = []
    for n in (40, 80):
        grid = sde.Grid([-4.5, -4.5], [4.5, 4.5], n)
        rho = quietly(lambda grid=grid: sde.stationary_density(process, grid))
        c = np.linalg.inv(0.5 * np.array([[1.0, 0.6], [0.6, 1.0]]))

        def gauss(x, y, c=c):
            return np.exp(-0.5 * (c[0, 0] * x * x + 2 * c[0, 1] * x * y + c[1, 1] * y * y))

        p = sde.cell_averages(grid, gauss)
        errors.append(np.abs(rho.masses[0] - p / p.sum()).sum())
        assert divergence(rho) < 1e-11
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)
    assert errors[1] < 8e-3


def test_negative_values_of_mixed_derivatives_are_reported():
    process = sde.ito(lambda x, t: (-x[0], -x[1]), lambda x, t: ((1.0, 0.0), (0.95, 0.31)), dim=2, noise="general")
    with pytest.warns(UserWarning, match=r"negative in places, down to .* mixed derivatives need finer cells"):
        sde.stationary_density(process, sde.Grid([-4, -4], [4, 4], 24))


def test_a_kinetic_process_keeps_boltzmann():
    process = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 1.0, 1.0)
    errors = []
    for n in (40, 80):
        grid = sde.Grid([-6, -6], [6, 6], n)
        rho = quietly(lambda grid=grid: sde.stationary_density(process, grid))
        errors.append(np.abs(rho.final - sde.gaussian(grid, 0.0, 1.0)).sum() * grid.cell_volume)
        assert null_residual(rho) < 1e-12
        assert divergence(rho) < 1e-11
    assert np.log2(errors[0] / errors[1]) > 1.8
    assert errors[1] < 5e-3


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call()


def test_a_current_round_a_torus():
    # constant drift on a torus: the uniform density, and the current μ p through every face
    process = sde.ito(lambda x, t: (0.7 + 0 * x[0], -0.3 + 0 * x[1]), lambda x, t: (0.5, 0.8), dim=2)
    grid = sde.Grid([0, 0], [1, 2], (12, 17))
    rho = sde.stationary_density(process, grid, "periodic")
    np.testing.assert_allclose(rho.final, 0.5, rtol=1e-12)
    for flow, speed in zip(rho.current(), (0.7, -0.3), strict=True):
        np.testing.assert_allclose(flow, 0.5 * speed, rtol=1e-11)


# Three dimensions without balance: the two-level solver


def turning_3d():
    return sde.ito(
        lambda x, t: (-(x[0] + 2 * x[1]), 2 * x[0] - x[1] + x[2], -x[2] - x[1]), lambda x, t: (1.0, 1.0, 1.0), dim=3
    )


def test_the_two_level_solver_agrees_with_lu(monkeypatch):
    grid = sde.Grid([-3] * 3, [3] * 3, (18, 16, 14))
    direct = sde.stationary_density(turning_3d(), grid, "reflecting")
    monkeypatch.setitem(linear.DIRECT, 3, 0)
    monkeypatch.setitem(linear.BLOCKS, 3, 6**3)
    iterated = sde.stationary_density(turning_3d(), grid, "reflecting")
    assert np.abs(direct.masses - iterated.masses).sum() < 1e-11
    assert iterated.minimum >= 0.0
    operator = box_coefficients(turning_3d(), grid, "absorbing").at(0.0)
    lines = line_matrices(operator)
    a = matrix(operator, lines)
    b = np.cos(np.arange(a.shape[0]))
    solver, calls = linear.TwoLevel(a, lines, linear.guess(operator)), []
    plain = solver._precondition
    monkeypatch.setattr(solver, "_precondition", lambda *args, **kw: (calls.append(1), plain(*args, **kw))[1])
    for transposed in (False, True):
        calls.clear()
        x = solver.solve(b, transposed)
        exact = linear.lu(a)(b, transposed)
        assert np.abs(x - exact).max() < 1e-8 * np.abs(exact).max()
        assert len(calls) < 60


@pytest.mark.slow
def test_three_dimensions_with_a_current_are_second_order():
    errors = []
    for n in (20, 40):
        grid = sde.Grid([-3.5] * 3, [3.5] * 3, n)
        rho = sde.stationary_density(turning_3d(), grid)
        exact = sde.gaussian(grid, 0.0, np.sqrt(0.5))
        errors.append(np.abs(rho.final - exact).sum() * grid.cell_volume)
        assert divergence(rho) < 1e-9
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


def test_a_solve_that_does_not_converge_says_so(monkeypatch):
    operator = box_coefficients(turning_3d(), sde.Grid([-3] * 3, [3] * 3, 8), "absorbing").at(0.0)
    lines = line_matrices(operator)
    monkeypatch.setattr(linear, "ROUNDS", 1)
    monkeypatch.setattr(linear, "RESTART", 1)
    monkeypatch.setitem(linear.BLOCKS, 3, 2**3)
    solver = linear.TwoLevel(matrix(operator, lines), lines, linear.guess(operator))
    with pytest.raises(RuntimeError, match=r"stopped at a relative residual of .* finer cells"):
        solver.solve(np.cos(np.arange(512)))


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    a=st.floats(0.2, 2.0),
    omega=st.floats(-3.0, 3.0),
    circle=st.booleans(),
)
def test_any_linear_drift_gives_a_positive_null_vector(shape, a, omega, circle):
    process = sde.ito(
        lambda x, t, a, omega: (-a * np.sin(x[0]) - omega * x[1], omega * np.cos(x[0]) - x[1]),
        lambda x, t: (0.9, 0.7),
        dim=2,
        a=a,
        omega=omega,
    )
    grid = sde.Grid([-np.pi, -2], [np.pi, 2], shape)
    rho = sde.stationary_density(process, grid, ("periodic", "reflecting") if circle else "reflecting")
    assert rho.minimum > 0.0
    assert rho.mass[0] == pytest.approx(1.0, abs=1e-13)
    assert null_residual(rho) < 1e-12


# What has none


@pytest.mark.parametrize(
    ("process", "boundary", "message"),
    [
        (GRADIENT, "absorbing", "an absorbing wall leaves no stationary density"),
        (GRADIENT, ("reflecting", ("reflecting", sde.Robin(1.0))), "absorbing wall leaves no"),
        (GRADIENT, ((sde.Inflow(0.1), "reflecting"), "reflecting"), "an inflow without an exit"),
        (sde.ito(lambda x, t: (-x[0], -x[1]), lambda x, t: (0.0, 0.0), dim=2), "reflecting", "without diffusion"),
        (sde.ito(lambda x, t: (-x[0] * t, -x[1]), lambda x, t: (1.0, 1.0), dim=2), "reflecting", "depend on time"),
    ],
)
def test_what_has_no_stationary_density(process, boundary, message):
    with pytest.raises(ValueError, match=message):
        sde.stationary_density(process, sde.Grid([-2, -2], [2, 2], 8), boundary)
