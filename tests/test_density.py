"""Densities of processes through the public functions, against closed forms."""

import dataclasses
import math
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest

from sdesim.core import compile
from sdesim.density import Density
from sdesim.evolution import evolve_density, stationary_density
from sdesim.fokker_planck.cells import cell_averages, gaussian, point_mass
from sdesim.fokker_planck.grid import Grid
from sdesim.processes.base import Process


@dataclasses.dataclass(frozen=True, eq=False)
class Formula(Process):
    """A process from two plain functions."""

    mu: Any = None
    sigma: Any = None

    def drift(self, x, t):
        return self.mu(x, t)

    def diffusion(self, x, t):
        return self.sigma(x, t)

    @property
    def autonomous(self):
        return not any(compile.arguments_read(f)[1] for f in (self.mu, self.sigma))


def ou(sigma=1.0):
    return Formula(lambda x, t: -x, lambda x, t: sigma)


def l1(p, q, grid):
    return np.abs(p - q).sum() * grid.spacing


def lognormal(grid, mean, variance):
    """Exact cell averages of the density of exp(N(mean, variance))."""
    below = [0.5 * math.erfc(-(math.log(e) - mean) / math.sqrt(2 * variance)) if e > 0 else 0.0 for e in grid.edges]
    return np.diff(below) / grid.spacing


def slopes(errors):
    return np.diff(-np.log2(errors))


# The closed forms


def ou_law(t, mean=1.5, std=0.1):
    return mean * math.exp(-t), math.sqrt(std**2 * math.exp(-2 * t) + 0.5 * (1 - math.exp(-2 * t)))


def test_ornstein_uhlenbeck_on_a_thousand_cells():
    grid = Grid(-5, 5, 1000)
    rho = evolve_density(ou(), gaussian(grid, 1.5, 0.1), grid, (0, 2))
    mean, std = ou_law(2)
    assert rho.method == "cf14"
    assert rho.n_steps == 1
    assert rho.p.shape == (1, 1000)
    assert l1(rho.final, gaussian(grid, mean, std), grid) <= 2e-5
    assert abs(rho.mass[0] - 1) <= 1e-12
    assert rho.minimum >= 0
    assert rho.mean[0] == pytest.approx(mean, abs=2e-5)
    assert rho.variance[0] == pytest.approx(std**2, abs=1e-5)


@pytest.mark.parametrize(("sign", "half"), [(-1, 1.0), (1, 2.0), (1, 0.5)])
def test_a_wrong_sign_or_a_lost_half_would_be_seen(sign, half):
    # negative control: the drift's sign, or D = σ² in the place of σ²/2
    grid = Grid(-5, 5, 1000)
    wrong = Formula(lambda x, t: -sign * x, lambda x, t: math.sqrt(half))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rho = evolve_density(wrong, gaussian(grid, 1.5, 0.1), grid, (0, 2))
    assert l1(rho.final, gaussian(grid, *ou_law(2)), grid) > 0.1


def test_space_error_is_second_order_and_fourth_with_richardson():
    plain, extrapolated = [], []
    for n in (125, 250, 500):
        grid = Grid(-5, 5, n)
        p0, exact = gaussian(grid, 1.5, 0.1), gaussian(grid, *ou_law(2))
        plain.append(l1(evolve_density(ou(), p0, grid, (0, 2)).final, exact, grid))
        rho = evolve_density(ou(), p0, grid, (0, 2), richardson=True)
        extrapolated.append(l1(rho.final, exact, grid))
        assert abs(rho.mass[0] - 1) < 1e-12
        assert rho.minimum > -1e-9
    np.testing.assert_allclose(slopes(plain), 2, atol=0.1)
    np.testing.assert_allclose(slopes(extrapolated), 4, atol=0.15)
    assert extrapolated[1] < 5e-8


def test_state_dependent_noise_needs_no_derivative():
    # geometric Brownian motion from ln X ~ N(0, 0.05²)
    process = Formula(lambda x, t: 0.1 * x, lambda x, t: 0.3 * x)
    errors = []
    for n in (500, 1000):
        grid = Grid(0, 5, n)
        rho = evolve_density(process, lognormal(grid, 0.0, 0.0025), grid, (0, 1))
        errors.append(l1(rho.final, lognormal(grid, 0.055, 0.0925), grid))
        assert rho.minimum >= 0
        assert abs(rho.mass[0] - 1) <= 1e-12
    assert errors[1] < 4e-5
    assert slopes(errors)[0] == pytest.approx(2, abs=0.1)


@dataclasses.dataclass(frozen=True, eq=False)
class StratonovichGeometric(Process):
    calculus: ClassVar[str] = "stratonovich"
    mu: float = 0.1
    sigma: float = 0.3

    def drift(self, x, t):
        return self.mu * x

    def diffusion(self, x, t):
        return self.sigma * x


def test_a_stratonovich_equation_has_the_density_of_its_ito_form():
    grid = Grid(0, 6, 500)
    p0 = lognormal(grid, 0.0, 0.01)
    rho = evolve_density(StratonovichGeometric(), p0, grid, (0, 1))
    ito = Formula(lambda x, t: (0.1 + 0.5 * 0.3**2) * x, lambda x, t: 0.3 * x)
    assert l1(rho.final, evolve_density(ito, p0, grid, (0, 1)).final, grid) < 1e-8
    assert l1(rho.final, lognormal(grid, 0.1, 0.1), grid) < 3e-4
    # negative control: read as Itô, the mean grows more slowly
    same_drift = Formula(lambda x, t: 0.1 * x, lambda x, t: 0.3 * x)
    assert l1(rho.final, evolve_density(same_drift, p0, grid, (0, 1)).final, grid) > 0.05


@pytest.mark.parametrize("x0", [0.0, 0.037])
@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
def test_a_point_mass_spreads_as_the_heat_kernel(x0, method):
    grid = Grid(-6, 6, 1001)
    wiener = Formula(lambda x, t: 0.0, lambda x, t: 1.0)
    rho = evolve_density(wiener, point_mass(grid, x0), grid, (0, 1), save=[0.25, 1.0], method=method)
    for t, p in zip((0.25, 1.0), rho.p, strict=True):
        assert l1(p, gaussian(grid, x0, math.sqrt(t)), grid) < 8e-5
    assert rho.minimum >= 0
    np.testing.assert_allclose(rho.mean, x0, atol=1e-8)
    np.testing.assert_allclose(rho.variance, [0.25, 1.0], atol=3e-5)


def test_a_point_mass_and_richardson():
    wiener, errors = Formula(lambda x, t: 0.0, lambda x, t: 1.0), []
    for n in (100, 200):
        grid = Grid(-6, 6, n)
        rho = evolve_density(wiener, lambda g: point_mass(g, 0.013, order=4), grid, (0, 1), richardson=True)
        errors.append(l1(rho.final, gaussian(grid, 0.013, 1.0), grid))
    assert errors[1] < 2e-7
    assert slopes(errors)[0] == pytest.approx(4, abs=0.2)
    with pytest.warns(UserWarning, match="too sharp for its grid"):
        evolve_density(wiener, point_mass(grid, 0.013), grid, (0, 1), richardson=True)


def moving_law(t, mean, variance):
    """Mean and variance of dX = (sin t − X) dt + (0.9 + 0.4 cos 2t) dW, by Gauss quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s, w = 0.5 * t * (nodes + 1), 0.5 * t * weights
    decay = np.exp(s - t)
    noise = (0.9 + 0.4 * np.cos(2 * s)) ** 2
    return mean * math.exp(-t) + w @ (decay * np.sin(s)), variance * math.exp(-2 * t) + w @ (decay**2 * noise)


def test_time_dependent_coefficients_give_the_moving_gaussian():
    process = Formula(lambda x, t: np.sin(t) - x, lambda x, t: 0.9 + 0.4 * np.cos(2 * t))
    grid = Grid(-6, 6, 400)
    rho = evolve_density(
        process, lambda g: gaussian(g, 0.5, 0.3), grid, (0, 2), save=[0.5, 2], rtol=1e-6, richardson=True
    )
    assert rho.method == "magnus"
    for t, p in zip(rho.t, rho.p, strict=True):
        mean, variance = moving_law(t, 0.5, 0.09)
        assert l1(p, gaussian(grid, mean, math.sqrt(variance)), grid) < 1e-5
    np.testing.assert_allclose(rho.mass, 1, atol=1e-12)


def test_a_start_at_another_time_is_another_problem():
    process = Formula(lambda x, t: np.sin(t) - x, lambda x, t: 0.9 + 0.4 * np.cos(2 * t))
    grid = Grid(-6, 6, 200)
    first = evolve_density(process, gaussian(grid, 0.5, 0.3), grid, (0, 1))
    whole = evolve_density(process, gaussian(grid, 0.5, 0.3), grid, (0, 2))
    second = evolve_density(process, first.final, grid, (1, 2))
    assert l1(second.final, whole.final, grid) < 1e-5
    assert l1(evolve_density(process, first.final, grid, (0, 1)).final, whole.final, grid) > 0.1


# Walls


def first_passage(t, v=1.0, b=1.0, terms=60):
    """Densities of the exit at +b and −b at time t of v t + W_t from 0 (image sum, then sine series)."""
    t = np.asarray(t, float)
    s = np.maximum(t, 1e-12) / (2 * b) ** 2
    k = np.arange(-terms, terms + 1)[:, None]
    early = ((0.5 + 2 * k) * np.exp(-((0.5 + 2 * k) ** 2) / (2 * s))).sum(axis=0) / np.sqrt(2 * np.pi * s**3)
    k = np.arange(1, terms + 1)[:, None]
    late = np.pi * (k * np.exp(-((k * np.pi) ** 2) * s / 2) * np.sin(0.5 * k * np.pi)).sum(axis=0)
    low = np.where(s < 0.2, early, late) / (2 * b) ** 2 * np.exp(-v * b - v * v * t / 2)
    return low * np.exp(2 * v * b), low


def exits(t):
    """Probabilities of the exit at +1 and at −1 until t, by Gauss quadrature on 40 pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(0, t, 41)
    s = (0.5 * (edges[1:] + edges[:-1])[:, None] + 0.5 * t / 40 * nodes).ravel()
    return [float(f @ np.tile(0.5 * t / 40 * weights, 40)) for f in first_passage(s)]


@pytest.mark.parametrize("method", ["cf14", "tr_bdf2"])
def test_absorbing_walls_have_the_exit_probabilities_of_the_series(method):
    grid = Grid(-1, 1, 401)
    process = Formula(lambda x, t: 1.0, lambda x, t: 1.0)
    times = [0.2, 0.5, 1.0, 3.0]
    rho = evolve_density(process, point_mass(grid, 0.0), grid, (0, 3), save=times, boundary="absorbing", method=method)
    expected = np.array([exits(t)[::-1] for t in times])
    np.testing.assert_allclose(rho.absorbed, expected, atol=6e-6)
    np.testing.assert_allclose(rho.mass + rho.absorbed.sum(axis=1), 1, atol=1e-11)
    np.testing.assert_allclose(rho.mass, 1 - expected.sum(axis=1), atol=6e-6)
    high, low = first_passage(1.0)
    current = rho.current(2)
    assert current[-1] == pytest.approx(high, abs=1e-4)
    assert current[0] == pytest.approx(-low, abs=1e-4)


def test_one_absorbing_wall_takes_all_that_is_lost():
    grid = Grid(-4, 1, 500)
    process = Formula(lambda x, t: 0.0, lambda x, t: 1.0)
    rho = evolve_density(process, point_mass(grid, 0.0), grid, (0, 1), boundary=("reflecting", "absorbing"))
    # reflection principle: P(max W > 1) = 2 P(W_1 > 1)
    assert rho.absorbed[0, 0] == 0
    assert rho.absorbed[0, 1] == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=1e-5)
    assert rho.mean[0] < 0


def test_free_diffusion_on_a_circle_is_the_wrapped_normal():
    grid = Grid(-np.pi, np.pi, 300)

    def wrapped(g, std):
        turns = [Grid(g.lower + 2 * np.pi * k, g.upper + 2 * np.pi * k, g.n_cells) for k in range(-6, 7)]
        return sum(gaussian(turn, 2.0, std) for turn in turns)

    process = Formula(lambda x, t: 0.0, lambda x, t: 1.0)
    for method in ("cf14", "tr_bdf2"):
        rho = evolve_density(process, wrapped(grid, 0.3), grid, (0, 2), boundary="periodic", method=method)
        assert l1(rho.final, wrapped(grid, math.sqrt(2.09)), grid) < 3e-5
        assert rho.mass[0] == pytest.approx(1, abs=1e-12)


def test_a_tilted_circle_reaches_its_current_carrying_state():
    grid = Grid(-np.pi, np.pi, 100)
    process = Formula(lambda x, t: 0.7 - np.sin(x), lambda x, t: 1.0)
    rho = evolve_density(process, gaussian(grid, 0, 0.3), grid, (0, 50), boundary="periodic")
    steady = stationary_density(process, grid, "periodic")
    assert rho.method == "tr_bdf2"
    assert l1(rho.final, steady.final, grid) < 1e-8
    assert np.ptp(steady.current()) < 1e-12
    assert steady.current()[0] > 0.01


# Stationary densities


def test_the_double_well_is_exact_at_the_nodes():
    grid = Grid(-2.5, 2.5, 500)
    process = Formula(lambda x, t: -20 * x * (x * x - 1), lambda x, t: math.sqrt(2.0))
    steady = stationary_density(process, grid)
    nodes = np.exp(-5 * (grid.centers**2 - 1) ** 2)
    assert l1(steady.final, nodes / (nodes.sum() * grid.spacing), grid) <= 1e-12
    averages = cell_averages(grid, lambda x: np.exp(-5 * (x**2 - 1) ** 2))
    assert l1(steady.final, averages / (averages.sum() * grid.spacing), grid) < 2e-4
    assert np.isinf(steady.t[0])
    late = evolve_density(process, gaussian(grid, -1, 0.1), grid, (0, 400))
    assert l1(late.final, steady.final, grid) < 1e-8


@pytest.mark.parametrize(
    ("process", "boundary", "message"),
    [
        (Formula(lambda x, t: -x * t, lambda x, t: 1.0), "reflecting", "depend on time"),
        (Formula(lambda x, t: -x, lambda x, t: 0.0), "reflecting", "without diffusion"),
        (Formula(lambda x, t: -x, lambda x, t: 1.0), "absorbing", "leaves no stationary density"),
    ],
)
def test_what_has_no_stationary_density(process, boundary, message):
    with pytest.raises(ValueError, match=message):
        stationary_density(process, Grid(-1, 1, 20), boundary)


# Reversal in time, and the probability flow

GEOMETRIC = Formula(lambda x, t: 0.1 * x, lambda x, t: 0.3 * x)
HORIZON = 1.0


def geometric_law(t):
    return 0.055 * t, 0.04 + 0.09 * t


def geometric_score(x, t):
    m, v = geometric_law(t)
    return -1 / x - (np.log(x) - m) / (v * x)


def reversed_drift(x, s, divergence=1.0):
    """−μ + ∂ₓσ² + σ² ∂ₓ log p at t = T − s (Anderson 1982)."""
    return -0.1 * x + divergence * 0.18 * x + 0.09 * x * x * geometric_score(x, HORIZON - s)


def test_the_reverse_equation_gives_the_start_back_with_state_dependent_noise():
    grid = Grid(0, 8, 800)
    backward = Formula(reversed_drift, lambda x, s: 0.3 * x)
    rho = evolve_density(backward, lognormal(grid, *geometric_law(1.0)), grid, (0, 1), save=[0.5, 1.0])
    assert l1(rho.p[0], lognormal(grid, *geometric_law(0.5)), grid) < 1e-4
    assert l1(rho.final, lognormal(grid, *geometric_law(0.0)), grid) < 3e-4
    assert rho.mass[1] == pytest.approx(rho.mass[0], abs=1e-12)


def test_without_the_divergence_of_the_noise_it_would_not():
    # negative control: ∂ₓ(σ² log p) in the place of (1/p) ∂ₓ(σ² p)
    grid = Grid(0, 8, 400)
    backward = Formula(lambda x, s: reversed_drift(x, s, divergence=0.0), lambda x, s: 0.3 * x)
    rho = evolve_density(backward, lognormal(grid, *geometric_law(1.0)), grid, (0, 1))
    assert l1(rho.final, lognormal(grid, *geometric_law(0.0)), grid) > 0.1


def test_the_probability_flow_carries_the_density_without_noise():
    grid = Grid(0, 8, 400)

    def flow(x, t):
        return 0.1 * x - 0.09 * x - 0.045 * x * x * geometric_score(x, t)

    forward = Formula(flow, lambda x, t: 0.0 * x)
    rho = evolve_density(forward, lognormal(grid, *geometric_law(0.0)), grid, (0, 1))
    assert rho.method == "characteristics"
    assert l1(rho.final, lognormal(grid, *geometric_law(1.0)), grid) < 1e-5
    backward = Formula(lambda x, s: -flow(x, HORIZON - s), lambda x, s: 0.0)
    rho = evolve_density(backward, lognormal(grid, *geometric_law(1.0)), grid, (0, 1))
    assert l1(rho.final, lognormal(grid, *geometric_law(0.0)), grid) < 1e-5
    assert rho.final.max() == pytest.approx(lognormal(grid, *geometric_law(0.0)).max(), rel=1e-4)


def test_the_score_of_a_solved_density_reverses_it():
    grid = Grid(-2.5, 2.5, 300)
    well = Formula(lambda x, t: -4 * x * (x * x - 1), lambda x, t: 1.0)

    def start(g):
        return 0.3 * gaussian(g, -0.8, 0.25) + 0.7 * gaussian(g, 1.0, 0.2)

    rho = evolve_density(well, start, grid, (0, 0.5), save=50, richardson=True)
    score = rho.score
    end = np.maximum(rho.final, 0)
    reverse = Formula(lambda x, s: -well.mu(x, s) + score(x, 0.5 - s), lambda x, s: 1.0)
    assert l1(evolve_density(reverse, end, grid, (0, 0.5), rtol=1e-5).final, start(grid), grid) < 5e-4
    flow = Formula(lambda x, s: -well.mu(x, s) + 0.5 * score(x, 0.5 - s), lambda x, s: 0.0)
    assert l1(evolve_density(flow, end, grid, (0, 0.5)).final, start(grid), grid) < 5e-5


# The result


def test_the_score_is_that_of_the_gaussian_between_the_saved_times():
    grid = Grid(-5, 5, 400)
    rho = evolve_density(ou(), lambda g: gaussian(g, 1.0, 0.5), grid, (0, 1), save=20, richardson=True)
    x = np.linspace(-1.5, 2.5, 201)
    for t in (0.0, 0.333, 1.0):
        mean, std = ou_law(t, 1.0, 0.5)
        np.testing.assert_allclose(rho.score(x, t), -(x - mean) / std**2, atol=2e-4)
    column = rho.score(x[:, None], np.full(len(x), 0.333))
    assert column.shape == (201, 1)
    np.testing.assert_allclose(column[:, 0], rho.score(x, 0.333), rtol=1e-12)
    assert rho.score(0.5, 0.5).shape == ()
    # beyond the trusted cells the score is held, and points inwards
    assert rho.score(np.array([-50.0]), 0.0) == rho.score(np.array([-4.99]), 0.0)
    assert rho.score(np.array([-50.0]), 0.0)[0] > 5
    with pytest.raises(ValueError, match=r"the score is known for t in \[0, 1\], got 1.5"):
        rho.score(x, 1.5)
    with pytest.raises(ValueError, match=r"\(n,\) or \(n, 1\)"):
        rho.score(np.zeros((3, 2)), 0.5)


def test_save_times():
    grid = Grid(-5, 5, 50)
    p0 = gaussian(grid, 0, 0.5)
    assert evolve_density(ou(), p0, grid, (1, 2)).t.tolist() == [2.0]
    np.testing.assert_allclose(evolve_density(ou(), p0, grid, (0, 1), save=4).t, [0, 0.25, 0.5, 0.75, 1])
    everything = evolve_density(ou(), p0, grid, (0, 1), save="all")
    assert everything.t.shape == (101,)
    np.testing.assert_array_equal(everything.p[0], p0)
    assert everything.mass.shape == everything.mean.shape == everything.variance.shape == (101,)
    assert everything.absorbed.shape == (101, 2)
    assert evolve_density(ou(), p0, grid, (0, 1), save=np.array([0.1, 0.9])).t.tolist() == [0.1, 0.9]
    np.testing.assert_array_equal(everything.marginal(0), everything.p)


def test_moments_are_those_of_the_density_not_of_its_cells():
    grid = Grid(-5, 5, 60)
    rho = evolve_density(ou(), gaussian(grid, 0.7, 0.5), grid, (0, 1), save=[0.0, 1.0])
    assert rho.mean[0] == pytest.approx(0.7, abs=1e-12)
    assert rho.variance[0] == pytest.approx(0.25, abs=1e-9)


def test_the_current_without_noise_is_drift_times_density():
    grid = Grid(-3, 3, 300)
    flow = Formula(lambda x, t: 2.0 + x, lambda x, t: 0.0)
    p0 = gaussian(grid, 0.0, 1.0)
    p0 /= p0.sum() * grid.spacing
    edges = grid.edges
    density = np.exp(-edges * edges / 2) / math.sqrt(2 * math.pi)
    for boundary in ("absorbing", "reflecting"):
        rho = evolve_density(flow, p0, grid, (0, 0.1), save=[0.0], boundary=boundary)
        current = rho.current()
        np.testing.assert_allclose(current[1:-1], ((2 + edges) * density)[1:-1], atol=5e-3)
        # out at the upper wall, and at the lower one too, where the drift is −1
        expected = [-density[0], 5 * density[-1]] if boundary == "absorbing" else [0, 0]
        np.testing.assert_allclose(current[[0, -1]], expected, atol=5e-3 * (boundary == "absorbing"), rtol=0.05)


def test_cdf_and_quantiles():
    grid = Grid(-5, 5, 1000)
    rho = evolve_density(ou(), gaussian(grid, 0, 0.5), grid, (0, 1))
    std = ou_law(1, 0, 0.5)[1]
    assert rho.cdf.shape == (1, 1001)
    assert rho.quantile(0.5) == pytest.approx(0, abs=1e-3)
    assert rho.quantile([0.025, 0.975]) == pytest.approx([-1.959964 * std, 1.959964 * std], abs=1e-3)
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\]"):
        rho.quantile(1.5)


def test_the_repr_is_one_line():
    grid = Grid(-5, 5, 50)
    text = repr(evolve_density(ou(), gaussian(grid, 0, 0.5), grid, (0, 1)))
    assert text == "Density(Formula, t = 1, 50 cells, cf14, mass 1)"


def test_the_bar_ends_with_the_span(capsys):
    # a bar that went beyond its end, because a time is told twice or told again, would warn
    process, grid = ou(), Grid((-4, -4), (4, 4), 24)
    p0 = gaussian(grid, (0, 0), 0.5)
    rho = evolve_density(process, p0 / (p0.sum() * grid.cell_volume), grid, (0, 1), rtol=1e-3, progress=True)
    assert rho.method == "splitting"
    assert "100%" in capsys.readouterr().err


def test_progress_does_not_change_the_result(capsys):
    grid = Grid(-5, 5, 50)
    p0 = gaussian(grid, 0, 0.5)
    quiet = evolve_density(ou(), p0, grid, (0, 1), save=3, method="tr_bdf2")
    loud = evolve_density(ou(), p0, grid, (0, 1), save=3, method="tr_bdf2", progress=True)
    np.testing.assert_array_equal(quiet.p, loud.p)
    assert "density" in capsys.readouterr().err


# Arguments

GRID = Grid(-5, 5, 128)
P0 = gaussian(GRID, 0.0, 0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"p0": 0.83 * P0},
            ValueError,
            r"p0 integrates to 0\.83, expected 1 \(tol 1e-06\); widen .*, or pass p0 / \(p0\.sum\(\)",
        ),
        ({"p0": P0 - 0.01}, ValueError, "p0 is negative in cell 0: -0.01"),
        ({"p0": np.ones(100) / 10}, ValueError, "p0 has 100 values, grid has 128 cells"),
        (
            {"p0": np.where(np.arange(128) == 7, np.nan, P0)},
            ValueError,
            "p0 must be finite, got nan at index 7",
        ),
        ({"p0": "gaussian"}, TypeError, "p0 must hold real numbers"),
        ({"p0": 1.0}, ValueError, "p0 must be an array over the cells"),
        ({"grid": (-5, 5, 128)}, TypeError, "grid must be a Grid, got tuple"),
        ({"grid": Grid((0, 0), (1, 1), 8)}, ValueError, r"p0 has 128 values, grid has \(8, 8\) cells"),
        ({"t_span": (1, 0)}, ValueError, "t_span must increase"),
        ({"t_span": 1.0}, ValueError, "t_span must be a pair"),
        ({"save": [0.2, 0.5, 0.2]}, ValueError, "save must be strictly increasing; index 2: 0.2 after 0.5"),
        ({"save": [0.2, 2.0]}, ValueError, r"save\[1\] = 2 is outside t_span \[0, 1\]"),
        ({"save": "fine"}, ValueError, "did you mean 'final'"),
        ({"save": 0}, ValueError, "save must be >= 1"),
        ({"save": []}, ValueError, "save must be"),
        ({"rtol": 0}, ValueError, "rtol must be > 0"),
        ({"rtol": -1e-3}, ValueError, "rtol must be > 0"),
        ({"boundary": "periodical"}, ValueError, "did you mean 'periodic'"),
        ({"boundary": ("periodic", "reflecting")}, ValueError, "at both walls or at neither"),
        (
            {"method": "euler"},
            ValueError,
            "method must be one of 'auto', 'cf14', 'magnus', 'tr_bdf2'",
        ),
        ({"method": "characteristics"}, ValueError, "processes without diffusion"),
        ({"process": 3}, TypeError, "process must be a Process"),
        (
            {"process": Formula(lambda x, t: -x * t, lambda x, t: 1.0), "method": "cf14"},
            ValueError,
            "use 'tr_bdf2'",
        ),
        ({"process": Formula(lambda x, t: np.nan * x, lambda x, t: 1.0)}, ValueError, "drift is nan at x"),
        ({"process": Formula(lambda x, t: x, lambda x, t: x[:2])}, ValueError, "diffusion returned shape"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(change, error, message):
    arguments = {"process": ou(), "p0": P0, "grid": GRID, "t_span": (0, 1), **change}
    with pytest.raises(error, match=message):
        evolve_density(**arguments)


def test_a_circle_with_a_current_refuses_the_rational_exponential():
    process = Formula(lambda x, t: 1.0, lambda x, t: 1.0)
    with pytest.raises(ValueError, match="a current runs round the circle"):
        evolve_density(process, P0, GRID, (0, 1), boundary="periodic", method="cf14")


def test_a_start_cut_off_by_a_wall_is_warned_of():
    p0 = gaussian(GRID, 4.6, 0.5)
    p0 /= p0.sum() * GRID.spacing
    with pytest.warns(UserWarning, match=r"\d+\.\d% of p0 lies in the boundary cells: widen the domain"):
        evolve_density(ou(), p0, GRID, (0, 0.1))
    # a box that is filled evenly is no accident
    evolve_density(ou(), np.full(128, 0.1), GRID, (0, 0.1))


def test_results_are_densities():
    assert isinstance(evolve_density(ou(), P0, GRID, (0, 1)), Density)
