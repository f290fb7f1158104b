"""Divergences, the identities by which they decay, free energy and entropy production, on the grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_continuous_lyapunov
from scipy.stats import linregress
from scipy.stats import t as student

import sdesim as sde
from sdesim import entropy
from sdesim.fokker_planck import entropy as on_cells
from sdesim.fokker_planck.sparse import matrix
from sdesim.on_grid import box_coefficients, line_coefficients

OU = sde.OrnsteinUhlenbeck(theta=1.3, mu=0.2, sigma=0.9)
WELL = sde.DoubleWell(barrier=1.5, temperature=1.0)
B, L = np.array([[1.0, 1.5], [-0.8, 1.4]]), np.array([[1.0, 0.0], [0.5, 0.8]])


def spring(rotation=2.0):
    return sde.ito(lambda x, t: (-(x[0] + rotation * x[1]), rotation * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2)


def skew():
    """dX = −B X dt + L dW: rotation, and correlated noise."""
    return sde.ito(
        lambda x, t: (-x[0] - 1.5 * x[1], 0.8 * x[0] - 1.4 * x[1]),
        lambda x, t: ((1.0, 0.0), (0.5, 0.8)),
        dim=2,
        noise="general",
    )


def density(process, grid, *p, t=0.0, boundary="reflecting"):
    """A Density at one time with the given cell averages."""
    sides = (boundary, boundary) if grid.dim == 1 else ((boundary, boundary),) * grid.dim
    absorbed = np.zeros((len(p), 2) if grid.dim == 1 else (len(p), grid.dim, 2))
    return sde.Density(np.arange(len(p)) + t, np.stack(p), grid, process, sides, absorbed, "given")


def order(sizes, errors):
    """The slope of log error against log 1/n, and half of its 95 % interval."""
    fit = linregress(-np.log(sizes), np.log(np.abs(errors)))
    return fit.slope, fit.stderr * student.ppf(0.975, len(sizes) - 2)


def assert_order(sizes, errors, expected):
    slope, half = order(sizes, errors)
    assert half < 0.3, (slope, half, errors)
    assert abs(slope - expected) < half + 0.1, (slope, half, errors)


def normals(m, v, s, mean=0.0):
    """KL and Fisher information of N(m, v) against N(mean, s)."""
    away = (m - mean) ** 2
    return 0.5 * (v / s + away / s - 1 - np.log(v / s)), v * (1 / s - 1 / v) ** 2 + away / s**2


# Divergences


def test_by_hand():
    grid = sde.Grid(0.0, 3.0, 3)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    rho = density(OU, grid, p)
    expected = 0.5 * np.log(2.5) + 0.3 * np.log(1.5) + 0.2 * np.log(1 / 3)
    assert entropy.kl_divergence(rho, q) == pytest.approx(expected)
    assert entropy.kl_divergence(q, rho) == pytest.approx(0.2 * np.log(0.4) + 0.2 * np.log(1 / 1.5) + 0.6 * np.log(3))
    slopes = np.array([np.log(1.5 / 2.5), np.log((1 / 3) / 1.5)])
    assert entropy.fisher_information(rho, q) == pytest.approx(np.array([0.4, 0.25]) @ slopes**2)
    assert entropy.fisher_information(q, rho) == pytest.approx(np.array([0.2, 0.4]) @ slopes**2)
    assert entropy.dissipation(rho, q) == pytest.approx(0.405 * np.array([0.4, 0.25]) @ slopes**2)
    assert entropy.differential_entropy(rho) == pytest.approx(-np.sum(p * np.log(p)))
    three = density(OU, grid, p, q, p)
    assert entropy.kl_divergence(three, q) == pytest.approx([expected, 0.0, expected])


@pytest.mark.parametrize("graded", [False, True])
def test_gaussians_are_of_second_order(graded):
    sizes = [80, 120, 180, 270]
    found = []
    for n in sizes:
        edges = np.linspace(-4.0, 4.5, n + 1)
        grid = sde.Grid.from_edges(1.5 * np.sinh(edges) / 15 + edges if graded else edges)
        p, q = sde.gaussian(grid, 0.6, 0.7), sde.gaussian(grid, -0.1, 0.9)
        rho = density(OU, grid, p / (p * grid.cell_volume).sum())
        found.append([f(rho, q)[0] for f in (entropy.kl_divergence, entropy.fisher_information)])
    exact = normals(0.6, 0.49, 0.81, -0.1)
    for k in (0, 1):
        assert_order(sizes, np.array(found)[:, k] - exact[k], 2.0)


def test_a_divergence_of_close_laws_keeps_its_digits():
    """Down to 10⁻¹⁸, although the laws themselves sum to 1 to 10⁻¹⁶ only."""
    rng = np.random.default_rng(6)
    m, away = (w / w.sum() for w in rng.random((2, 1000)))
    for eps in (1e-3, 1e-6, 1e-9):
        n = (1 - eps) * m + eps * away
        expected = eps**2 / 2 * np.sum((away - m) ** 2 / m)
        assert on_cells.kullback_leibler(m, n) == pytest.approx(expected, rel=2 * eps**0.3, abs=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_divergences_are_not_negative(seed, periodic):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 7, rng.integers(1, 4)))
    grid = sde.Grid((0.0,) * len(shape), (1.0,) * len(shape), shape)
    m, n = (w / w.sum() for w in rng.random((2, *shape)) ** 4)
    joined = (periodic,) * len(shape)
    assert on_cells.kullback_leibler(m, n) > 0
    assert on_cells.kullback_leibler(m, m) == 0
    assert on_cells.quadratic_form(m, n, grid, joined, None) > 0
    assert on_cells.quadratic_form(m, m, grid, joined, None) == 0
    # coarser cells see less (the data-processing inequality)
    two = [np.add.reduceat(w.ravel(), np.arange(0, w.size, 2)) for w in (m, n)]
    assert on_cells.kullback_leibler(*two) <= on_cells.kullback_leibler(m, n) + 1e-15


def test_what_is_missing_from_q():
    grid = sde.Grid(0.0, 4.0, 4)
    rho = density(OU, grid, np.array([0.4, 0.3, 0.3, 0.0]))
    assert entropy.kl_divergence(rho, [0.5, 0.5, 0.0, 0.0])[0] == np.inf
    assert np.isfinite(entropy.kl_divergence(rho, [0.3, 0.3, 0.4, 0.0])[0])
    assert entropy.fisher_information(rho, [0.5, 0.5, 0.0, 0.0])[0] == np.inf
    with pytest.warns(UserWarning, match="q is rounding error in cells that hold 0.25 of p"):
        entropy.kl_divergence([0.25] * 4, rho)


# The identities of the lecture's exercise


def chain_rate(process, grid, m, n, boundary="reflecting"):
    """d/dt Σ m log(m/n) where both follow the grid's equation, from its matrix."""
    if grid.dim == 1:
        lower, diagonal, upper = line_coefficients(process, grid, boundary).at(0.0).bands
        slopes = [lower * np.roll(w, 1) + diagonal * w + upper * np.roll(w, -1) for w in (m, n)]
    else:
        a = matrix(box_coefficients(process, grid, boundary).at(0.0))
        slopes = [(a @ w.ravel()).reshape(w.shape) for w in (m, n)]
    live = (m > 0) & (n > 0)
    return float((slopes[0][live] * np.log(m[live] / n[live])).sum() - (m[live] * slopes[1][live] / n[live]).sum())


@pytest.mark.parametrize(("process", "start"), [(OU, (0.9, 0.45)), (WELL, (0.6, 0.4))])
def test_both_identities_along_the_evolution(process, start):
    """The slope of KL in time, by central differences of the solution, is minus D times the Fisher information."""
    sizes, t, dt = [100, 150, 225, 340], 0.2, 0.01
    d = 0.405 if process is OU else 1.0
    errors = {"forward": [], "mirror": []}
    for n in sizes:
        grid = sde.Grid(-2.8, 3.2, n)
        rest = sde.stationary_density(process, grid)
        times = t + dt * np.arange(-2, 3)
        rho = sde.evolve_density(process, sde.gaussian(grid, *start), grid, (0.0, times[-1]), save=times, rtol=1e-12)
        for name, pair in (("forward", (rho, rest)), ("mirror", (rest, rho))):
            kl = entropy.kl_divergence(*pair)
            slope = (kl[0] - 8 * kl[1] + 8 * kl[3] - kl[4]) / (12 * dt)
            information = entropy.fisher_information(*pair)[2]
            errors[name].append(slope + d * information)
            assert slope < -0.1
            assert entropy.dissipation(*pair)[2] == pytest.approx(d * information, rel=1e-12)
            # the expectation under the other law does not belong to this divergence
            swapped = d * entropy.fisher_information(*pair[::-1])[2]
            assert abs(slope + swapped) > 0.1 * abs(slope)
            assert abs(errors[name][-1]) < 2e-2 * abs(slope)
    for name in errors:
        assert_order(sizes, errors[name], 2.0)


def test_the_identities_have_the_closed_forms_of_the_ornstein_uhlenbeck_process():
    grid = sde.Grid(-4.0, 4.4, 600)
    rest = sde.stationary_density(OU, grid)
    rho = sde.evolve_density(OU, sde.gaussian(grid, 1.0, 0.4), grid, (0.0, 1.0), save=4)
    s = OU.sigma**2 / (2 * OU.theta)
    decay = np.exp(-OU.theta * rho.t)
    m, v = 0.2 + 0.8 * decay, s + (0.16 - s) * decay**2
    kl, information = normals(m, v, s, 0.2)
    np.testing.assert_allclose(entropy.kl_divergence(rho, rest), kl, rtol=1e-3)
    np.testing.assert_allclose(entropy.fisher_information(rho, rest), information, rtol=1e-3)
    np.testing.assert_allclose(entropy.kl_divergence(rho, OU.stationary()), kl, rtol=1e-3)
    late = sde.evolve_density(OU, sde.gaussian(grid, 1.0, 0.4), grid, (0.0, 1.0), save=[0.5, 0.75, 1.0])
    kl, information = normals(0.2, s, v[2:], m[2:])
    np.testing.assert_allclose(entropy.kl_divergence(rest, late), kl, rtol=1e-3)
    np.testing.assert_allclose(entropy.fisher_information(rest, late), information, rtol=1e-3)


def test_two_solutions_forget_their_difference_whatever_the_drift():
    """Rotation and correlated noise; q is no stationary density."""
    sizes, errors = [32, 48, 72, 108], []
    for n in sizes:
        grid = sde.Grid((-4.0, -4.2), (4.2, 4.0), (n, n + 4))
        p, q = (sde.cell_averages(grid, f) for f in (bump(0.4, 0.2, 0.3), bump(-0.2, 0.1, -0.2)))
        rho, other = density(skew(), grid, p), density(skew(), grid, q)
        m, w = (r.masses[0] / r.mass[0] for r in (rho, other))
        errors.append(chain_rate(skew(), grid, m, w) + entropy.dissipation(rho, other)[0])
    assert_order(sizes, errors, 2.0)
    assert abs(errors[-1]) < 1e-2 * entropy.dissipation(rho, other)[0]


def bump(a, b, r, sd=0.8):
    norm = 2 * np.pi * sd**2 * np.sqrt(1 - r * r)
    return lambda x, y: (
        np.exp(-((x - a) ** 2 - 2 * r * (x - a) * (y - b) + (y - b) ** 2) / (2 * sd**2 * (1 - r * r))) / norm
    )


def test_dissipation_knows_a_diffusion_that_depends_on_the_place():
    process = sde.ito(lambda x, t: -x, lambda x, t: np.sqrt(1.0 + 0.5 * np.sin(x)))
    sizes, errors = [80, 120, 180, 270], []
    for n in sizes:
        grid = sde.Grid(-5.0, 5.0, n)
        rho, other = (density(process, grid, sde.gaussian(grid, m, 0.7)) for m in (0.3, -0.2))
        m, w = (r.masses[0] / r.mass[0] for r in (rho, other))
        errors.append(chain_rate(process, grid, m, w) + entropy.dissipation(rho, other)[0])
    assert_order(sizes, errors, 2.0)


# Free energy


def test_free_energy_is_the_divergence_and_falls():
    grid = sde.Grid.graded(-2.5, 2.5, 150, near=0.0, width=0.6, finest=0.5)
    process = sde.DoubleWell(barrier=1.2, temperature=0.7)
    rest = sde.stationary_density(process, grid)
    rho = sde.evolve_density(process, sde.gaussian(grid, 0.8, 0.3), grid, (0.0, 2.0), save=10)
    f = entropy.free_energy(rho, process.potential, 0.7)
    least = entropy.free_energy(rest, process.potential, 0.7)[0]
    np.testing.assert_allclose(f - least, 0.7 * entropy.kl_divergence(rho, rest), rtol=1e-9)
    assert (np.diff(f) < 0).all()
    even = sde.Grid(-2.5, 2.5, 400)
    z = float(np.exp(-process.potential(even.centers) / 0.7).sum() * even.spacing)
    assert least == pytest.approx(-0.7 * np.log(z), rel=1e-4)
    values = process.potential(grid.centers)
    np.testing.assert_array_equal(entropy.free_energy(rho, values, 0.7), f)


def test_free_energy_of_a_target_in_the_plane():
    target = sde.targets.GaussianMixture([0.5, 0.5], [[-0.8, 0.0], [0.8, 0.3]], 0.3)
    grid = sde.Grid((-3.5, -3.0), (3.5, 3.2), (70, 60))
    rho = density(sde.Langevin(target), grid, sde.gaussian(grid, [0.3, 0.2], 0.5))
    # V = −log p has Z = 1, so that F is the divergence itself
    assert entropy.free_energy(rho, target) == pytest.approx(entropy.kl_divergence(rho, target), rel=2e-3)


# Entropy production


@pytest.mark.parametrize("graded", [False, True])
def test_a_chain_in_detailed_balance_produces_what_its_divergence_loses(graded):
    edges = np.linspace(-2.4, 2.4, 81)
    grid = sde.Grid.from_edges(edges + 0.1 * edges**3) if graded else sde.Grid(-2.4, 2.4, 80)
    rest = sde.stationary_density(WELL, grid)
    m = np.random.default_rng(1).random(80)
    rho = density(WELL, grid, m / m.sum() / grid.spacing)
    rate = chain_rate(WELL, grid, rho.masses[0], rest.masses[0])
    assert entropy.entropy_production(rho)[0] == pytest.approx(-rate, rel=1e-9)
    assert entropy.entropy_production(rest)[0] == pytest.approx(0.0, abs=1e-12)


def test_a_chain_in_the_plane_produces_what_its_divergence_loses():
    target = sde.targets.Gaussian([0.1, -0.2], [[0.5, 0.2], [0.2, 0.6]])
    grid = sde.Grid((-2.0, -2.5), (2.2, 2.5), (20, 16))
    process = sde.Langevin(target)
    rest = sde.stationary_density(process, grid, "reflecting")
    m = 0.1 + np.random.default_rng(2).random(grid.shape)
    rho = density(process, grid, m / m.sum() / grid.cell_volume)
    rate = chain_rate(process, grid, rho.masses[0], rest.masses[0])
    assert entropy.entropy_production(rho)[0] == pytest.approx(-rate, rel=1e-8)


def test_production_of_a_rotating_spring():
    """dX = −X dt + ω J X dt + √(2D) dW: ω² E|X|²/D = 2ω² at rest."""
    sizes, errors = [40, 60, 90, 135], []
    for n in sizes:
        grid = sde.Grid((-4.5, -4.5), (4.5, 4.5), n)
        p = sde.gaussian(grid, 0.0, np.sqrt(0.5))
        errors.append(entropy.entropy_production(density(spring(2.0), grid, p / p.sum() / grid.cell_volume))[0] - 8.0)
    assert_order(sizes, errors, 2.0)
    assert abs(errors[-1]) < 0.02


@pytest.mark.parametrize("mean", [(0.0, 0.0), (0.5, -0.4)])
def test_production_with_correlated_noise(mean):
    """N(m, S) flows with the velocity v = −B x + D S⁻¹(x − m), and produces E vᵀ D⁻¹ v; at rest BS + SBᵀ = 2D."""
    d, m = 0.5 * L @ L.T, np.array(mean)
    s = solve_continuous_lyapunov(B, 2 * d) + (0.1 * np.eye(2) if m.any() else 0.0)
    inverse = np.linalg.inv(s)
    drift = d @ inverse - B
    exact = np.trace(drift.T @ np.linalg.inv(d) @ drift @ s) + B @ m @ np.linalg.inv(d) @ B @ m
    sizes, errors = [50, 70, 98, 137], []
    for n in sizes:
        grid = sde.Grid((-4.2, -4.2), (4.4, 4.2), n)

        def law(x, y):
            a, b = x - m[0], y - m[1]
            return np.exp(-0.5 * (inverse[0, 0] * a * a + 2 * inverse[0, 1] * a * b + inverse[1, 1] * b * b))

        p = sde.cell_averages(grid, law)
        errors.append(entropy.entropy_production(density(skew(), grid, p / p.sum() / grid.cell_volume))[0] - exact)
    assert exact > 1.0
    assert abs(errors[-1]) < 0.01 * exact
    assert_order(sizes, errors, 2.0)


def test_production_of_a_current_round_a_circle():
    """A constant drift v: p is uniform, J = v p, and the production v²/D."""
    process = sde.ito(lambda x, t: 0.7 + 0.0 * x, lambda x, t: 0.8)
    rho = sde.stationary_density(process, sde.Grid(0.0, 1.0, 64), boundary="periodic")
    assert entropy.entropy_production(rho)[0] == pytest.approx(0.49 / 0.32, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_production_is_not_negative_and_infinite_next_to_nothing(seed):
    rng = np.random.default_rng(seed)
    grid = sde.Grid((-1.0, -1.0), (1.0, 1.0), (5, 4))
    m = rng.random(grid.shape) ** 3
    process = spring(float(rng.uniform(-3, 3)))
    assert entropy.entropy_production(density(process, grid, m / m.sum() / grid.cell_volume))[0] > 0
    m[2, 1] = 0.0
    assert entropy.entropy_production(density(process, grid, m / m.sum() / grid.cell_volume))[0] == np.inf


def test_three_dimensions():
    process = sde.ito(lambda x, t: (-x[0] - x[1], x[0] - x[1], -x[2]), lambda x, t: (1.0, 1.0, 1.0), dim=3)
    grid = sde.Grid((-3.5,) * 3, (3.5,) * 3, 36)
    p = sde.gaussian(grid, 0.0, np.sqrt(0.5))
    rho = density(process, grid, p / p.sum() / grid.cell_volume)
    assert entropy.entropy_production(rho)[0] == pytest.approx(2.0, rel=0.02)
    q = sde.gaussian(grid, [0.3, 0.0, -0.2], [0.8, 0.7, 0.6])
    kl, information = zip(*(normals(m, 0.5, s * s) for m, s in ((0.3, 0.8), (0.0, 0.7), (0.2, 0.6))), strict=True)
    assert entropy.kl_divergence(rho, q)[0] == pytest.approx(sum(kl), rel=0.02)
    assert entropy.fisher_information(rho, q)[0] == pytest.approx(sum(information), rel=0.02)


def test_refusals():
    grid = sde.Grid(-2.0, 2.0, 40)
    p = sde.gaussian(grid, 0.0, 0.3)
    rho, other = density(WELL, grid, p, p), density(WELL, grid.refined(2), np.repeat(p, 2))
    cases = [
        (lambda: entropy.kl_divergence(p, p), TypeError, "p or q must be a Density"),
        (lambda: entropy.kl_divergence(rho, p[:-1]), ValueError, r"q has shape \(39,\), the grid has \(40,\) cells"),
        (lambda: entropy.kl_divergence(rho, other), ValueError, "p and q must be on one grid"),
        (lambda: entropy.kl_divergence(rho, density(WELL, grid, p, p, t=1.0)), ValueError, "the same saved times"),
        (
            lambda: entropy.kl_divergence(rho, density(WELL, grid, p, p, p)),
            ValueError,
            "p has 2 saved times and q has 3",
        ),
        (lambda: entropy.entropy_production(p), TypeError, "rho must be a Density"),
        (lambda: entropy.free_energy(rho, p[:3]), ValueError, r"potential has shape \(3,\)"),
        (lambda: entropy.free_energy(rho, WELL.potential, -1.0), ValueError, "temperature must be >= 0"),
    ]
    still = density(sde.ito(lambda x, t: -x, lambda x, t: 0.0), grid, p)
    cases.append((lambda: entropy.entropy_production(still), ValueError, "needs noise along every axis"))
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()


def test_names_are_public():
    names = ("kl_divergence", "fisher_information", "dissipation", "free_energy", "entropy_production")
    assert all(callable(getattr(sde.entropy, name)) for name in itertools.chain(names, ["differential_entropy"]))
