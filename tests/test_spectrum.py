"""Relaxation modes against Hermite functions, Bessel-free closed forms, dense matrices and densities that relax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.fokker_planck import linear, spectrum
from sdesim.fokker_planck.sparse import matrix
from sdesim.on_grid import box_coefficients, line_coefficients

QUARTIC = sde.ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: np.sqrt(2.0))
SPRING = sde.OrnsteinUhlenbeck(theta=1.0, mu=0.0, sigma=np.sqrt(2.0))


def turning(omega):
    return sde.ito(
        lambda x, t, omega: (-(x[0] + omega * x[1]), omega * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2, omega=omega
    )


def flat(modes):
    """Functions and masses of the modes as (k, cells)."""
    k = modes.n
    return modes.functions.reshape(k, -1), (modes.modes * modes.grid.cell_volume).reshape(k, -1)


def check_pairs(modes, a, rtol=1e-8):
    """Right and left eigenvectors of the matrix, biorthonormal."""
    f, m = flat(modes)
    np.testing.assert_allclose(f @ m.T, np.eye(modes.n), atol=1e-8)
    scale = np.abs(a.diagonal()).max()
    for rate, left, right in zip(modes.rates, f, m, strict=True):
        assert np.abs(a @ right + rate * right).sum() < rtol * scale * np.abs(right).sum()
        assert np.abs(a.T @ left + rate * left).max() < rtol * scale * np.abs(left).max()


# One dimension


def test_the_spring_has_integer_rates_and_hermite_functions():
    errors = []
    for n in (200, 400):
        modes = sde.relaxation_modes(SPRING, sde.Grid(-8.0, 8.0, n), 6)
        errors.append(np.abs(modes.rates - np.arange(6)).max())
        assert modes.rates[0] == 0.0
        assert modes.gap == modes.rates[1]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)
    x = modes.grid.centers
    inside = np.abs(x) < 5.5
    hermite = [np.ones_like(x), x, (x**2 - 1) / np.sqrt(2), (x**3 - 3 * x) / np.sqrt(6)]
    density = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    for j, exact in enumerate(hermite):
        # far tails too, where density and mode are 1e-7 and less
        np.testing.assert_allclose(modes.functions[j][inside], exact[inside], atol=5e-3 * np.abs(exact[inside]).max())
        np.testing.assert_allclose(modes.modes[j], exact * density, atol=1e-3)


def test_the_gap_of_the_double_well():
    gaps = [sde.relaxation_modes(QUARTIC, sde.Grid(-2.5, 2.5, n)).gap for n in (500, 1000, 2000)]
    assert gaps[2] == pytest.approx(0.0555233, abs=5e-8)
    assert np.log2((gaps[0] - gaps[1]) / (gaps[1] - gaps[2])) == pytest.approx(2.0, abs=0.01)
    # twice the mean time from one well to the top of the barrier, up to the time within a well
    tau = sde.mean_first_passage_time(QUARTIC, sde.Grid(-2.5, 2.5, 1000), lambda x: x > 0)
    assert gaps[1] == pytest.approx(1 / tau(-1.0), rel=0.01)


def test_a_gap_of_e_to_the_minus_sixty_has_its_digits():
    # the reciprocal of a mean time, which is computed by another, positive algorithm
    deep = sde.ito(lambda x, t: -240 * x * (x * x - 1), lambda x, t: np.sqrt(2.0))
    grid = sde.Grid(-1.8, 1.8, 400)
    modes = sde.relaxation_modes(deep, grid, 4)
    assert 0.0 < modes.gap < 1e-20
    tau = sde.mean_first_passage_time(deep, grid, lambda x: x > 0)
    assert modes.gap == pytest.approx(1 / tau(-1.0), rel=1e-3)
    operator = line_coefficients(deep, grid, ("reflecting", "reflecting")).at(0.0)
    half = sde.relaxation_modes(deep, sde.Grid(-1.8, 0.0, 200), 2, boundary=("reflecting", "absorbing"))
    # odd symmetry: the slow mode of the whole is the slowest of a half with an absorbing wall
    assert half.gap == pytest.approx(modes.gap, rel=1e-9)
    np.testing.assert_allclose(np.abs(modes.functions[1][[100, 120, 280, 300]]), 1.0, rtol=1e-6)
    assert modes.functions[1][100] < 0 < modes.functions[1][300]
    assert abs(modes.modes[1].sum() * grid.spacing) < 1e-12
    assert operator.bands[1].min() < -1e4  # the rates beside it: 24 orders of magnitude


def test_diffusion_between_walls_has_the_rates_of_a_string():
    grid = sde.Grid(0.0, 1.0, 300)
    base = np.pi**2 / 2
    for boundary, numbers in (
        ("absorbing", [1, 2, 3, 4]),
        ("reflecting", [0, 1, 2, 3]),
        (("absorbing", "reflecting"), [0.5, 1.5, 2.5, 3.5]),
    ):
        modes = sde.relaxation_modes(sde.Wiener(), grid, 4, boundary=boundary)
        np.testing.assert_allclose(modes.rates, base * np.square(numbers), rtol=1e-3, atol=1e-12)
    # Robin: √λ tan √λ = κ for D τ' = κ τ at one end
    kappa = 0.8
    modes = sde.relaxation_modes(sde.Wiener(), grid, 2, boundary=("reflecting", sde.Robin(kappa)))
    z = np.sqrt(2 * modes.rates)
    np.testing.assert_allclose(0.5 * z * np.tan(z), kappa, rtol=1e-3)


def test_the_first_mode_between_absorbing_walls_is_quasi_stationary():
    grid = sde.Grid(0.0, 1.0, 200)
    modes = sde.relaxation_modes(sde.Wiener(), grid, 3, boundary="absorbing")
    np.testing.assert_allclose(modes.modes[0], np.pi / 2 * np.sin(np.pi * grid.centers), atol=1e-3)
    assert modes.gap == modes.rates[0]
    rho = sde.evolve_density(sde.Wiener(), sde.point_mass(grid, 0.3), grid, (0.0, 1.0), boundary="absorbing")
    np.testing.assert_allclose(modes.density(sde.point_mass(grid, 0.3), 1.0), rho.final, rtol=1e-6)


def test_a_density_relaxes_as_its_modes_say():
    grid = sde.Grid(-2.5, 2.5, 200)
    p0 = sde.gaussian(grid, -1.0, 0.2)
    modes = sde.relaxation_modes(QUARTIC, grid, 5)
    rho = sde.evolve_density(QUARTIC, p0, grid, (0.0, 1.0))
    assert np.abs(modes.density(p0, 1.0) - rho.final).max() < 1e-8
    assert modes.amplitudes(p0)[0] == pytest.approx(1.0, abs=1e-12)
    # negative control: without the slow one
    assert np.abs(modes.modes[0] - rho.final).max() > 0.1


@pytest.mark.parametrize("n", [60, 400])
def test_a_tilted_circle_has_complex_pairs(n):
    process = sde.ito(lambda x, t: 0.7 - np.sin(x), lambda x, t: 1.0)
    grid = sde.Grid(-np.pi, np.pi, n)
    modes = sde.relaxation_modes(process, grid, 5, boundary="periodic")
    np.testing.assert_allclose(modes.rates[1::2], modes.rates[2::2].conj(), rtol=1e-8)
    assert (modes.rates[1:].imag != 0).all()
    operator = line_coefficients(process, grid, ("periodic", "periodic")).at(0.0)
    a, i = np.zeros((n, n)), np.arange(n)
    a[i, i] += operator.bands[1]
    a[i, (i - 1) % n] += operator.bands[0]
    a[i, (i + 1) % n] += operator.bands[2]
    check_pairs(modes, a)
    exact = np.sort_complex(-np.linalg.eigvals(a))[:5]
    np.testing.assert_allclose(np.sort_complex(modes.rates), exact, atol=1e-7)


def test_free_drift_round_a_circle():
    # e^{ikx}: λ = D k² ∓ i v k
    v, d = 2.0, 0.5
    process = sde.ito(lambda x, t: 2.0 + 0 * x, lambda x, t: 1.0)
    modes = sde.relaxation_modes(process, sde.Grid(0.0, 2 * np.pi, 400), 5, boundary="periodic")
    exact = [0.0, d - 1j * v, d + 1j * v, 4 * d - 2j * v, 4 * d + 2j * v]
    np.testing.assert_allclose(np.sort_complex(modes.rates), np.sort_complex(exact), atol=2e-3)
    still = sde.relaxation_modes(sde.Wiener(), sde.Grid(0.0, 2 * np.pi, 400), 5, boundary="periodic")
    assert not np.iscomplexobj(still.rates)
    np.testing.assert_allclose(still.rates, [0, 0.5, 0.5, 2, 2], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(6, 40),
    k=st.integers(1, 4),
    slope=st.floats(-2, 2),
    wave=st.floats(-2, 2),
    boundary=st.sampled_from(["reflecting", "absorbing", ("reflecting", "absorbing")]),
)
def test_rates_are_the_eigenvalues_of_the_matrix(n, k, slope, wave, boundary):
    process = sde.ito(
        lambda x, t, slope, wave: slope * x + wave * np.cos(2 * x), lambda x, t: 0.6 + 0.1 * x, slope=slope, wave=wave
    )
    grid = sde.Grid(-1.0, 1.5, n)
    modes = sde.relaxation_modes(process, grid, k, boundary=boundary)
    lower, diagonal, upper = line_coefficients(process, grid, boundary).at(0.0).bands
    a = np.diag(diagonal) + np.diag(lower[1:], -1) + np.diag(upper[:-1], 1)
    exact = np.sort(-np.linalg.eigvals(a).real)[:k]
    np.testing.assert_allclose(modes.rates, exact, rtol=1e-7, atol=1e-9 * np.abs(diagonal).max())
    check_pairs(modes, a)


# Several dimensions


def test_two_springs_add_their_rates():
    process = sde.ito(lambda x, t: (-x[0], -1.7 * x[1]), lambda x, t: (1.0, 1.0), dim=2)
    grid = sde.Grid([-4.0, -3.0], [4.0, 3.0], (60, 50))
    modes = sde.relaxation_modes(process, grid, 6)
    np.testing.assert_allclose(modes.rates, [0, 1, 1.7, 2, 2.7, 3], atol=0.04)
    check_pairs(modes, matrix(box_coefficients(process, grid, "reflecting").at(0.0)))
    line = sde.relaxation_modes(sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sde.Grid(-4.0, 4.0, 60), 2)
    assert modes.rates[1] == pytest.approx(line.rates[1], rel=1e-9)
    np.testing.assert_allclose(modes.functions[1], np.repeat(line.functions[1][:, None], 50, axis=1), atol=1e-6)


@pytest.mark.parametrize("omega", [0.5, 2.0, 10.0])
def test_a_turning_spring_has_complex_rates_in_order(omega):
    # n + m ± i ω (n − m) for n, m = 0, 1, …
    grid = sde.Grid([-4.0, -4.0], [4.0, 4.0], 64)
    modes = sde.relaxation_modes(turning(omega), grid, 6)
    exact = [0, 1 - 1j * omega, 1 + 1j * omega, 2, 2 - 2j * omega, 2 + 2j * omega]
    errors = [np.abs(modes.rates - value).min() for value in exact]
    assert max(errors) < 0.01 + 0.04 * omega
    assert (np.diff(modes.rates.real) > -1e-9).all()
    check_pairs(modes, matrix(box_coefficients(turning(omega), grid, "reflecting").at(0.0)))
    np.testing.assert_allclose(modes.modes[0], sde.stationary_density(turning(omega), grid).final, atol=1e-9)


def test_mixed_derivatives_keep_the_rates_of_the_drift():
    process = sde.ito(lambda x, t: (-x[0], -2.0 * x[1]), lambda x, t: ((1.0, 0.0), (0.4, 0.9)), dim=2, noise="general")
    grid = sde.Grid([-4.0, -3.5], [4.0, 3.5], (60, 60))
    modes = quietly(lambda: sde.relaxation_modes(process, grid, 4))
    np.testing.assert_allclose(np.sort(modes.rates.real), [0, 1, 2, 2], atol=0.03)


def test_the_kinetic_spring():
    # eigenvalues n λ₁ + m λ₂ with λ² − γ λ + 1 = 0
    process = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 3.0, 1.0)
    grid = sde.Grid([-5.0, -5.0], [5.0, 5.0], (64, 64))
    modes = quietly(lambda: sde.relaxation_modes(process, grid, 4))
    slow = (3 - np.sqrt(5)) / 2
    np.testing.assert_allclose(modes.rates.real, slow * np.arange(4), atol=0.01)


def quietly(call):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call()


def test_observables_in_far_tails_are_right():
    # at the corners the mass is 1e-31 of the peak and φ/m has no digits
    process = sde.ito(lambda x, t: (-x[0], -1.5 * x[1]), lambda x, t: (1.0, 1.0), dim=2)
    grid = sde.Grid([-6.0, -5.0], [6.0, 5.0], (60, 50))
    modes = sde.relaxation_modes(process, grid, 3)
    x = grid.axes[0].centers
    assert sde.stationary_density(process, grid).final.min() < 1e-28
    line = sde.relaxation_modes(sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sde.Grid(-6.0, 6.0, 60), 2)
    np.testing.assert_allclose(modes.functions[1], np.repeat(line.functions[1][:, None], 50, axis=1), atol=1e-5)
    inside = np.abs(x) < 4
    np.testing.assert_allclose(modes.functions[1][inside, 0], np.sqrt(2) * x[inside], rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_three_dimensions_by_both_solvers(monkeypatch):
    for omega in (0.0, 1.0):
        process = sde.ito(
            lambda x, t, omega: (-x[0] - omega * x[1], omega * x[0] - x[1], -1.5 * x[2]),
            lambda x, t: (1.0, 1.0, 1.0),
            dim=3,
            omega=omega,
        )
        grid = sde.Grid([-3] * 3, [3] * 3, (10, 10, 8))
        with monkeypatch.context() as patch:
            direct = sde.relaxation_modes(process, grid, 4)
            patch.setitem(linear.DIRECT, 3, 0)
            patch.setitem(linear.BLOCKS, 3, 4**3)
            iterated = sde.relaxation_modes(process, grid, 4)
        np.testing.assert_allclose(iterated.rates, direct.rates, atol=1e-7)
        check_pairs(iterated, matrix(box_coefficients(process, grid, "reflecting").at(0.0)), rtol=1e-6)


def test_every_sign_is_the_same_again():
    grid = sde.Grid([-4.0, -4.0], [4.0, 4.0], 40)
    first, again = (sde.relaxation_modes(turning(0.7), grid, 4) for _ in range(2))
    np.testing.assert_array_equal(first.modes, again.modes)


# What is refused


def test_what_cannot_be_answered_says_why():
    grid = sde.Grid(-1.0, 1.0, 10)
    with pytest.raises(ValueError, match="the spectrum needs coefficients that do not depend on time"):
        sde.relaxation_modes(sde.ito(lambda x, t: t - x, lambda x, t: 1.0), grid)
    with pytest.raises(ValueError, match="a process without diffusion forgets nothing at a rate"):
        sde.relaxation_modes(sde.ito(lambda x, t: -x, lambda x, t: 0.0), grid)
    with pytest.raises(ValueError, match=r"k must be <= the number of cells less 2, 8, got 9"):
        sde.relaxation_modes(SPRING, grid, 9)
    with pytest.raises(ValueError, match="k must be >= 1"):
        sde.relaxation_modes(SPRING, grid, 0)
    with pytest.raises(ValueError, match="the gap needs k >= 2"):
        _ = sde.relaxation_modes(SPRING, grid, 1).gap
    with pytest.raises(ValueError, match=r"p has shape \(3,\), expected \(10,\)"):
        sde.relaxation_modes(SPRING, grid, 2).amplitudes(np.ones(3))


def test_relative_accuracy_comes_from_the_bidiagonal_form():
    # a chain of two halves joined by a rate of 1e-12, whose slow rate is known to first order: 2 · 1e-12 / n
    n = 20
    up = np.ones(n - 1)
    up[n // 2 - 1] = 1e-6  # √1e-12
    rates = spectrum._bidiagonal_rates(up, up, np.zeros(2), 2)
    assert rates[0] < 1e-30
    assert rates[1] == pytest.approx(1e-12 * 4 / n, rel=1e-9)
    dense = np.linalg.eigvalsh(np.diff(np.eye(n), axis=0).T @ np.diag(up**2) @ np.diff(np.eye(n), axis=0))
    assert dense[1] == pytest.approx(1e-12 * 4 / n, rel=1e-2)  # and not better than that
