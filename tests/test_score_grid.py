"""∇ log p of a solved density: its order, its edges, unequal cells, several dimensions, and the reversal it drives."""

import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

import sdesim as sde
from sdesim.fokker_planck.cells import cell_averages
from sdesim.fokker_planck.grid import Grid
from sdesim.fokker_planck.score import GridScore

COV = np.array([[0.5, 0.3], [0.3, 0.6]])
INVERSE = np.linalg.inv(COV)
WALLS = (False, False, False)


def correlated(*x):
    z = [xi - 0.2 for xi in x]
    return np.exp(-0.5 * sum(INVERSE[i, j] * z[i] * z[j] for i in range(2) for j in range(2)))


def even(n):
    return Grid((-4.0, -4.5), (4.5, 4.0), (n, n + 8))


def stretched(lower, upper, n, at=0.3, by=0.7):
    """Cells that are finest at ``at``: the image of equal ones under a sinh."""
    ends = np.arcsinh((np.array([lower, upper]) - at) / by)
    edges = at + by * np.sinh(np.linspace(*ends, n + 1))
    return Grid.from_edges(edges)


def graded(n):
    return Grid.product(stretched(-4.0, 4.5, n), stretched(-4.5, 4.0, n + 8, by=2.0))


def points(n, d=2, seed=1, scale=0.5):
    """Random points; by default where the density is that of a few standard deviations, all trusted."""
    z = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, d))
    return scale * z


def order(sizes, errors):
    """The slope of log error against log 1/n, and half of its 95 % interval."""
    fit = linregress(-np.log(sizes), np.log(errors))
    return fit.slope, fit.stderr * student.ppf(0.975, len(sizes) - 2)


@pytest.mark.parametrize("grid_of", [even, graded])
def test_the_score_is_of_fourth_order_in_the_plane(grid_of):
    x = points(400, scale=1.0)
    exact = -(x - 0.2) @ INVERSE
    sizes, errors = [40, 56, 80, 112], []
    for n in sizes:
        grid = grid_of(n)
        score = GridScore(grid, np.zeros(1), cell_averages(grid, correlated)[None], WALLS[:2])
        errors.append(np.abs(score(x, 0.3) - exact).mean())
    slope, half = order(sizes, errors)
    assert slope - half > 3.5, (slope, half, errors)
    assert errors[-1] < 2e-4


def test_unequal_cells_on_the_line_are_of_fourth_order():
    x = np.linspace(-1.5, 2.5, 201)

    def density(x):
        return np.exp(-x * x) + 0.5 * np.exp(-2 * (x - 1.5) ** 2)

    e1, e2 = np.exp(-x * x), 0.5 * np.exp(-2 * (x - 1.5) ** 2)
    exact = (-2 * x * e1 - 4 * (x - 1.5) * e2) / (e1 + e2)
    sizes, errors = [60, 84, 120, 168], []
    for n in sizes:
        grid = stretched(-6.0, 7.0, n)
        score = GridScore(grid, np.zeros(1), cell_averages(grid, density)[None], WALLS[:1])
        errors.append(np.abs(score(x, 0.0) - exact).mean())
    slope, half = order(sizes, errors)
    assert slope - half > 3.5, (slope, half, errors)


def test_equal_cells_given_by_their_edges_have_the_same_score():
    """The path of unequal cells on edges that are equal but for one part in 10⁹."""
    n = 60
    edges = np.linspace(-5.0, 5.0, n + 1)
    tilted = Grid.from_edges(edges + 1e-9 * np.sin(edges) * (25.0 - edges**2))
    assert not tilted.uniform
    x = np.linspace(-5.0, 5.0, 77)
    found = [
        GridScore(g, np.zeros(1), cell_averages(g, lambda x: np.exp(-x * x / 2))[None], WALLS[:1])(x, 0.0)
        for g in (Grid(-5.0, 5.0, n), tilted)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_cells_next_to_walls():
    """A density that is largest at a wall: ∇ log p = (−1, 2) throughout."""
    grid = Grid((0.0, -1.0), (2.0, 1.0), (40, 50))
    p = cell_averages(grid, lambda x, y: np.exp(2 * y - x))
    score = GridScore(grid, np.zeros(1), p[None], WALLS[:2])
    x = np.random.default_rng(5).uniform([0.0, -1.0], [2.0, 1.0], (200, 2))
    np.testing.assert_allclose(score(x, 0.0), np.broadcast_to([-1.0, 2.0], x.shape), atol=2e-3)


def test_three_dimensions_and_a_circle():
    grid = Grid((-4.0, 0.0, -4.0), (4.0, 2 * np.pi, 4.0), (48, 40, 44))
    p = cell_averages(grid, lambda x, a, y: np.exp(-x * x / 2 - y * y + 0.4 * x * y + 1.2 * np.cos(a)), n_points=4)
    score = GridScore(grid, np.zeros(1), p[None], (False, True, False))
    x = points(300, 3, scale=1.5)
    x[:, 1] = np.random.default_rng(2).uniform(-3.0, 9.0, 300)  # the angle may be given beyond one turn
    exact = np.stack([-x[:, 0] + 0.4 * x[:, 2], -1.2 * np.sin(x[:, 1]), -2 * x[:, 2] + 0.4 * x[:, 0]], axis=1)
    np.testing.assert_allclose(score(x, 0.0), exact, atol=3e-3)
    np.testing.assert_allclose(score(x + np.array([0, 2 * np.pi, 0]), 0.0), score(x, 0.0), atol=1e-9)


def test_times_between_the_saved_ones():
    """A Gaussian whose precision is a cubic in time: interpolation through four times is exact."""
    grid, times = Grid((-5.0, -5.0), (5.0, 5.0), 60), np.array([0.0, 0.3, 0.5, 1.0, 1.4])

    def precision(t):
        return 1.0 + t - 0.4 * t**2 + 0.1 * t**3

    def at(a):
        return cell_averages(grid, lambda x, y: np.exp(-a * (x * x + y * y) / 2))

    p = np.stack([at(precision(t)) for t in times])
    score, x = GridScore(grid, times, p, WALLS[:2]), points(50)
    for t in (0.0, 0.2, 0.77, 1.4):
        np.testing.assert_allclose(score(x, t), -precision(t) * x, atol=2e-3)
    each = np.linspace(0.0, 1.4, 50)
    rows = np.concatenate([score(x[[i]], t) for i, t in enumerate(each)])
    np.testing.assert_allclose(score(x, each), rows, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match=r"the score is known for t in \[0, 1.4\], got 1.5 to 1.5"):
        score(x, 1.5)


def test_beyond_the_trusted_cells_the_score_is_held():
    grid = Grid((-9.0, -9.0), (9.0, 9.0), 90)
    p = cell_averages(grid, lambda x, y: np.exp(-(x * x + y * y) / 2))
    noise = 1e-13 * np.random.default_rng(3).random(p.shape)
    score, clean = (GridScore(grid, np.zeros(1), q[None], WALLS[:2]) for q in (p + noise, p))
    far = 8.0 * np.stack([np.cos(np.linspace(0, 6, 40)), np.sin(np.linspace(0, 6, 40))], axis=1)
    found = score(far, 0.0)
    np.testing.assert_allclose(found, clean(far, 0.0), atol=1e-2)  # noise is not differentiated
    radius = np.sqrt(-2 * np.log(1e-8))
    np.testing.assert_allclose(found, -radius * far / 8.0, atol=0.6)  # as at the border of the trusted disc
    np.testing.assert_array_equal(score(3 * far, 0.0)[:, 0] < 0, far[:, 0] > 0)
    assert np.isnan(score([[np.nan, 0.0]], 0.0)).all()


def test_forms_of_points():
    grid = even(40)
    score = GridScore(grid, np.zeros(1), cell_averages(grid, correlated)[None], WALLS[:2])
    x = points(12)
    assert score.dim == 2
    assert score(x[0], 0.0).shape == (2,)
    np.testing.assert_array_equal(score(x.reshape(3, 4, 2), 0.0).reshape(12, 2), score(x, 0.0))
    with pytest.raises(ValueError, match=r"the score of a 2-D density takes x of shape \(n, 2\), got \(12,\)"):
        score(x[:, 0], 0.0)
    point = np.zeros(grid.shape)
    point[20, 20] = 1.0
    assert (GridScore(grid, np.zeros(1), point[None], WALLS[:2])(x, 0.0) == 0.0).all()


def spring():
    """A rotating, correlated Ornstein-Uhlenbeck process: dX = −B X dt + L dW."""
    return sde.ito(
        lambda x, t: (-x[0] - 1.5 * x[1], 1.5 * x[0] - x[1]),
        lambda x, t: ((1.0, 0.0), (0.4, 0.7)),
        dim=2,
        noise="general",
    )


def spring_law(t, c0):
    """The covariance at time t from c0, by the matrix exponential of the Lyapunov operator."""
    from scipy.linalg import expm, solve_continuous_lyapunov

    b, spread = np.array([[1.0, 1.5], [-1.5, 1.0]]), np.array([[1.0, 0.0], [0.4, 0.7]])
    rest = solve_continuous_lyapunov(b, spread @ spread.T)
    e = expm(-b * t)
    return e, rest + e @ (c0 - rest) @ e.T


@pytest.mark.filterwarnings("ignore:the density falls")  # of mixed derivatives, to rounding
def test_the_score_of_a_solved_density_is_the_exact_one():
    grid, mean = Grid((-5.0, -5.0), (5.0, 5.0), 100), np.array([0.8, -0.4])
    rho = sde.evolve_density(spring(), sde.gaussian(grid, mean, 0.6), grid, (0.0, 0.8), save=8)
    x = points(300, scale=1.2)
    for t in (0.0, 0.4, 0.8):
        e, cov = spring_law(t, 0.36 * np.eye(2))
        exact = -(x - e @ mean) @ np.linalg.inv(cov)
        assert np.abs(rho.score(x, t) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the density falls")
def test_the_reverse_process_with_the_score_of_the_grid_returns_the_start():
    start = sde.targets.GaussianMixture([0.4, 0.6], [[-1.2, -0.5], [1.0, 0.8]], [0.15, 0.25])
    process, grid, horizon, n = spring(), Grid((-5.0, -5.0), (5.0, 5.0), 100), 0.6, 20_000
    p0 = cell_averages(grid, lambda x, y: start.density(np.stack(np.broadcast_arrays(x, y), axis=-1)))
    rho = sde.evolve_density(process, p0, grid, (0.0, horizon), save=40)
    begun = sde.evolve_density(process, p0, grid, (0.0, 1e-9))
    noised = sde.simulate(process, start, (0.0, horizon), n_steps=200, n_paths=n, seed=1).final
    assert sde.compare(noised, rho).within_noise
    assert not sde.compare(noised, begun).within_noise
    for reverse in (sde.ReverseProcess(process, rho.score, horizon), sde.ProbabilityFlow(process, rho.score, horizon)):
        back = sde.simulate(reverse, noised, (0.0, horizon), n_steps=100, method="heun", seed=2).final
        assert sde.compare(back, begun, bias=0.03).within_noise
    wrong = sde.ReverseProcess(process, lambda x, t: 0.95 * rho.score(x, t), horizon)
    back = sde.simulate(wrong, noised, (0.0, horizon), n_steps=100, method="heun", seed=2).final
    assert not sde.compare(back, begun, bias=0.03).within_noise
