"""The shapes of the plane: densities, scores and samples of one law, with noise and without."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.stats import norm

import sdesim as sde
from sdesim.targets import Checkerboard, checkerboard, ring, two_moons

SMOOTH = {
    "ring": ring(), "ring of 3": ring(3, 1.0, 0.4), "moons": two_moons(), "wide moons": two_moons(1.0, 0.5),
    "board": Checkerboard(std=0.1), "odd board": Checkerboard(3, 0.7, [0.5, -1.0], 0.3),
    "square": Checkerboard(1, std=0.2),
}  # fmt: skip
VP = sde.VariancePreserving()


@pytest.mark.parametrize("name", SMOOTH)
def test_densities_integrate_to_one_and_to_their_moments(name):
    target = SMOOTH[name]
    # the rectangle rule converges faster than any power for a smooth density that is 0 at the edges
    axis = np.linspace(-5.0, 5.0, 321)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = target.density(x) * (axis[1] - axis[0]) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(mass @ x, target.mean, atol=1e-9)
    np.testing.assert_allclose((mass[:, None] * x).T @ x - np.outer(target.mean, target.mean), target.cov, atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_score_is_the_gradient_of_the_log_density(name):
    target, h = SMOOTH[name], 1e-5
    x = np.random.default_rng(3).uniform(-3.0, 3.0, size=(200, 2))
    gradient = np.stack(
        [(target.log_density(x + step) - target.log_density(x - step)) / (2.0 * h) for step in h * np.eye(2)], axis=1
    )
    np.testing.assert_allclose(target.score(x), gradient, rtol=1e-6, atol=1e-5)
    assert np.abs(target.score(x) + gradient).max() > 1.0  # the opposite sign would not do


def arc_integral(x, radius, std):
    """½ Σ (1/π)∫ N(x; c(θ), std² I) dθ over the two half circles, by adaptive quadrature."""

    def along(theta, flipped):
        c = np.array([np.cos(theta), np.sin(theta)])
        c = radius * (np.array([1.0, 0.5]) - c if flipped else c)
        return np.exp(-0.5 * ((x - c) ** 2).sum() / std**2) / (2.0 * np.pi * std**2)

    return sum(
        quad(along, 0.0, np.pi, (flipped,), points=np.linspace(0.2, 3.0, 20), limit=200, epsabs=0, epsrel=1e-11)[0]
        for flipped in (False, True)
    ) / (2.0 * np.pi)


@pytest.mark.parametrize(("radius", "std"), [(1.5, 0.08), (1.0, 0.5), (1.0, 0.02)])
def test_the_moons_are_half_circles_with_noise(radius, std):
    target, rng = two_moons(radius, std), np.random.default_rng(5)
    theta = rng.uniform(0.0, np.pi, 8)
    on = radius * np.stack([np.cos(theta), np.sin(theta)], axis=1) + 3.0 * std * rng.standard_normal((8, 2))
    ends = radius * np.array([[1.0, 0.0], [-1.0, -0.02], [0.0, 0.5], [2.0, 0.45]])
    for x in (*on, *ends):
        assert target.density(x) == pytest.approx(arc_integral(x, radius, std), rel=1e-9)
    # the image of one moon under the point reflection x ↦ R (1, ½) − x is the other
    np.testing.assert_allclose(target.density(radius * np.array([1.0, 0.5]) - on), target.density(on), rtol=1e-12)


def test_the_ring():
    target = ring()
    assert target.n_components == 8
    np.testing.assert_allclose(np.linalg.norm(target.means, axis=1), 2.0)
    np.testing.assert_allclose(np.linalg.norm(np.diff(target.means, axis=0), axis=1), 4.0 * np.sin(np.pi / 8))
    np.testing.assert_allclose(target.cov, (2.0 + 0.15**2) * np.eye(2), atol=1e-12)


def test_the_checkerboard_without_noise():
    board = checkerboard()
    assert len(board.squares) == 8
    x = np.array([[-1.5, -1.5], [-1.5, -0.5], [0.5, 0.5], [0.2, 1.9], [1.7, 1.1], [2.5, 1.5], [-1.5, -2.5]])
    inside = np.array([True, False, True, False, True, False, False])
    np.testing.assert_array_equal(board.contains(x), inside)
    np.testing.assert_array_equal(board.log_density(x), np.where(inside, -np.log(8.0), -np.inf))
    np.testing.assert_array_equal(board.score(x), np.where(inside, 0.0, np.nan)[:, None] + np.zeros(2))
    assert dblquad(lambda b, a: float(board.density(np.array([a, b]))), 0.0, 1.0, 0.0, 1.0)[0] == pytest.approx(1 / 8)
    sample = board.sample(20_000, 4)
    assert board.contains(sample).all()
    assert np.isclose(board.log_density(sample), -2.0794415416798357).all()
    np.testing.assert_allclose(np.cov(sample.T), board.cov, atol=0.05)


def product_board(x, std):
    """The smoothed checkerboard, square by square."""
    total = 0.0
    for i in range(4):
        for j in range(4):
            if (i + j) % 2 == 0:
                low = np.array([i - 2.0, j - 2.0])
                total = total + np.prod(norm.cdf((x - low) / std) - norm.cdf((x - low - 1.0) / std), axis=1)
    return total / 8.0


def test_the_checkerboard_with_noise_is_a_sum_over_its_squares():
    x = np.random.default_rng(1).uniform(-2.5, 2.5, (100, 2))
    for std in (0.05, 0.3, 2.0):
        np.testing.assert_allclose(Checkerboard(std=std).density(x), product_board(x, std), rtol=1e-6, atol=1e-12)


def test_the_checkerboard_is_right_far_out():
    board = Checkerboard(std=0.1)
    # far to the right only the nearest column counts, and in it the nearest square
    x = np.array([[1e4, 1.5], [1e4, 0.5], [-1e4, -1.5]])
    score = board.score(x)
    assert np.isfinite(score).all()
    np.testing.assert_allclose(score[:, 0], [-(1e4 - 2) / 0.01, -(1e4 - 2) / 0.01, (1e4 - 2) / 0.01], rtol=1e-3)
    assert np.isfinite(board.log_density(x)).all()


def boxes(target, n=60, edge=4.0):
    grid = sde.Grid((-edge, -edge), (edge, edge), (n, n))
    p = sde.cell_averages(grid, lambda x, y: target.density(np.stack(np.broadcast_arrays(x, y), axis=-1)), n_points=4)
    return SimpleNamespace(grid=grid, final=p / (p.sum() * grid.cell_volume))


@pytest.mark.parametrize(
    ("target", "other"),
    [
        (ring(), ring(8, 2.0, 0.16)), (two_moons(), two_moons(1.5, 0.085)), (checkerboard(), Checkerboard(std=0.05)),
        (Checkerboard(3, 1.0, [0.5, -0.3], 0.2), Checkerboard(3, 1.0, [0.47, -0.3], 0.2)),
    ],
)  # fmt: skip
def test_samples_have_the_density(target, other):
    sample = target.sample(40_000, 9)
    n = 32 if isinstance(target, Checkerboard) else 60  # the edges of the squares are edges of the cells
    assert sde.compare(sample, boxes(target, n)).within_noise
    assert not sde.compare(sample, boxes(other, n)).within_noise


@pytest.mark.parametrize("target", [ring(), two_moons(), checkerboard(), Checkerboard(std=0.1)])
def test_a_draw_does_not_depend_on_its_company(target):
    whole = target.sample(700, 3)
    np.testing.assert_array_equal(np.concatenate([target.sample(300, 3), target.sample(400, 3, first_path=300)]), whole)
    assert not np.array_equal(target.sample(700, 4), whole)
    # noise, choice and place come from different parts of the stream
    assert abs(np.corrcoef(whole.T)[0, 1] - target.cov[0, 1] / np.sqrt(np.prod(np.diag(target.cov)))) < 0.15


@pytest.mark.parametrize("target", [ring(), two_moons(), checkerboard()])
def test_marginals_under_a_noising_process_are_exact(target):
    score, t = sde.marginal_score(VP, target), 0.15
    law, alpha, sigma = score.law(t), VP.mean_factor(t), np.sqrt(VP.added_variance(t))
    x = np.random.default_rng(2).uniform(-2.0, 2.0, (50, 2))
    np.testing.assert_allclose(score(x, t), law.score(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(score.log_density(x, t), law.log_density(x), rtol=1e-9)
    times = np.linspace(0.01, 1.0, 50)
    one_by_one = np.concatenate([score(x[k : k + 1], times[k]) for k in range(50)])
    np.testing.assert_allclose(score(x, times), one_by_one, rtol=1e-9, atol=1e-9)
    noise = np.random.default_rng(6).standard_normal((40_000, 2))
    noisy = alpha * target.sample(40_000, 5) + sigma * noise
    assert sde.compare(noisy, boxes(law, 32)).within_noise
    assert not sde.compare(noisy, boxes(score.law(1.1 * t), 32)).within_noise
    # Tweedie: the score is E[−ε/σ | x], so it is uncorrelated with what is left, for any function of x
    left = score(noisy, t) + noise / sigma
    for f in (1.0, noisy[:, :1], np.sin(3.0 * noisy)):
        product = f * left
        assert (abs(product.mean(axis=0)) < 4.0 * product.std(axis=0) / 200.0).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5), side=st.floats(0.1, 3.0), centre=st.floats(-2.0, 2.0), scale=st.floats(-2.0, 2.0),
    shape=st.lists(st.integers(1, 3), max_size=2),
)  # fmt: skip
def test_boards_of_any_size(n, side, centre, scale, shape):
    board = Checkerboard(n, side, [centre, -0.3])
    x = np.random.default_rng(0).normal(size=(*shape, 2))
    assert np.shape(board.log_density(x)) == tuple(shape)
    assert board.score(x).shape == x.shape
    assert np.shape(board.contains(x)) == tuple(shape)
    sample = board.sample(200, 1)
    assert board.contains(sample).all()
    assert np.isclose(board.log_density(sample[0]), -np.log(len(board.squares) * side**2))
    if abs(scale) > 0.05:
        image = board.affine(scale, 0.7)
        assert image.contains(scale * sample + 0.7).mean() > 0.99  # but for rounding at the edges
        np.testing.assert_allclose(image.mean, scale * board.mean + 0.7, atol=1e-12)
        noisy = board.affine(scale, 0.7, 0.25)
        values = board.values(x.reshape(-1, 2), scale=scale, shift=0.7, noise=0.25)
        np.testing.assert_allclose(values[0].reshape(shape), noisy.log_density(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ring(0), "n_modes must be >= 1, got 0"),
        (lambda: ring(std=0.0), "std must be > 0"),
        (lambda: two_moons(radius=-1.0), "radius must be > 0"),
        (lambda: checkerboard(0), "n must be >= 1"),
        (lambda: Checkerboard(side=0.0), "side must be > 0"),
        (lambda: Checkerboard(centre=[0.0, 1.0, 2.0]), r"centre has shape \(3,\), expected a number or \(2,\)"),
        (lambda: Checkerboard(std=-0.1), "std must be >= 0"),
        (lambda: checkerboard().contains(np.zeros(3)), r"x has shape \(3,\), expected \(2,\)"),
        (lambda: sde.marginal_score(VP, checkerboard())(np.zeros((1, 2)), 0.0), "no score on its edges; ask for t > 0"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
