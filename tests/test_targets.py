"""Densities, scores and samples of the targets, each against an independent computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.integrate import quad
from scipy.stats import chi2, multivariate_normal

from sdesim.core import cache, compile
from sdesim.processes.langevin import Langevin
from sdesim.targets import DoubleWellDensity, Gamma, Gaussian, GaussianMixture
from sdesim.targets.mixture_tiles import power
from test_processes import compiled_values

RING = 4.0 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
FULL = [[[1.0, 0.4], [0.4, 0.5]], [[0.6, -0.3], [-0.3, 0.9]], [[0.8, 0.0], [0.0, 0.2]]]
LINE = {
    "gaussian": Gaussian(0.4, 0.7),
    "mixture": GaussianMixture([0.3, 0.7], [-1.0, 1.5], [0.4, 0.6]),
    "double_well": DoubleWellDensity(2.5),
    "gamma": Gamma(2.5, 0.6),
}
PLANE = {
    "round_gaussian": Gaussian([0.3, -0.4], 0.7),
    "full_gaussian": Gaussian([0.3, -0.4], FULL[0]),
    "ring": GaussianMixture(np.full(8, 0.125), RING, 0.25),
    "unequal": GaussianMixture([0.2, 0.5, 0.3], RING[:3], [0.5, 1.0, 0.2]),
    "diagonal": GaussianMixture([0.2, 0.5, 0.3], RING[:3], [[0.5, 1.0], [0.2, 0.4], [1.0, 0.3]]),
    "full": GaussianMixture([0.2, 0.5, 0.3], RING[:3], FULL),
}
TARGETS = LINE | PLANE


@pytest.mark.parametrize("name", TARGETS)
def test_score_is_the_gradient_of_the_log_density(name):
    target, h = TARGETS[name], 1e-5
    x = np.random.default_rng(3).uniform(0.2, 2.5, size=(20, target.dim))
    gradient = np.empty_like(x)
    for j in range(target.dim):
        step = h * np.eye(target.dim)[j]
        gradient[:, j] = (target.log_density(x + step) - target.log_density(x - step)) / (2.0 * h)
    np.testing.assert_allclose(target.score(x), gradient, rtol=1e-6, atol=1e-6)
    assert np.abs(target.score(x) + gradient).max() > 1.0  # the opposite sign would not do


@pytest.mark.parametrize("name", LINE)
def test_densities_on_the_line_integrate_to_their_cdf_and_moments(name):
    target = LINE[name]
    low = 0.0 if name == "gamma" else -12.0
    assert quad(target.density, low, 30.0, limit=200)[0] == pytest.approx(1.0, abs=1e-9)
    mean = quad(lambda x: x * target.density(x), low, 30.0, limit=200)[0]
    assert mean == pytest.approx(target.mean, abs=1e-7)
    spread = quad(lambda x: (x - mean) ** 2 * target.density(x), low, 30.0, limit=200)[0]
    assert spread == pytest.approx(target.cov, rel=1e-6)
    for x in (0.1, 0.9):
        assert quad(target.density, low, x)[0] == pytest.approx(target.cdf(x), abs=1e-8)


def test_densities_in_the_plane_integrate_to_one():
    target = PLANE["full"]
    # the rectangle rule converges faster than any power for a smooth density that is 0 at the edges
    grid = np.linspace(-9.0, 13.0, 221)
    inside = target.density(np.stack(np.meshgrid(grid, grid), axis=-1)).sum() * (grid[1] - grid[0]) ** 2
    assert inside == pytest.approx(1.0, abs=1e-9)
    x = np.random.default_rng(0).normal(size=(6, 2))
    parts = [w * multivariate_normal(m, c).pdf(x) for w, m, c in zip([0.2, 0.5, 0.3], RING[:3], FULL, strict=True)]
    np.testing.assert_allclose(target.density(x), sum(parts), rtol=1e-12)


def test_moments_of_a_mixture():
    target = LINE["mixture"]
    for order in range(6):
        expected = quad(lambda x, n=order: x**n * target.density(x), -12.0, 12.0, limit=200)[0]
        assert target.moment(order) == pytest.approx(expected, abs=1e-7)
    plane = PLANE["full"]
    np.testing.assert_allclose(plane.moment(2) - plane.mean**2, np.diag(plane.cov), rtol=1e-12)


def _quick(name, dtype):
    return (name, dtype) in {("ring", np.float32), ("full", np.float64), ("mixture", np.float32)}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if _quick(name, dtype) else pytest.mark.slow)
        for name in [*PLANE, "gaussian", "mixture", "double_well"]
        for dtype in (np.float64, np.float32)
    ],
)
def test_tiles_are_right_near_and_far(name, dtype):
    target = TARGETS[name]
    rng = np.random.default_rng(5)
    x = rng.normal(scale=2.5, size=(target.dim, 60))
    if name != "double_well":
        x[:, 40:50] *= 1e3  # a thousand standard deviations away
        x[:, 50:] *= 1e6
    x = x.astype(dtype)
    rows = x.T.astype(np.float64)
    score = compiled_values(Langevin(target), "drift", x, dtype, "tuple", target.dim)
    expected = np.reshape(target.score(rows), (-1, target.dim)).T
    assert np.isfinite(score).all()
    tolerance = 1e-12 if dtype == np.float64 else 3e-5
    np.testing.assert_allclose(score, expected, rtol=tolerance, atol=tolerance * 4.0)
    density = compiled_values(Langevin(target), "log_density", x, dtype, "tuple", target.dim)[0]
    np.testing.assert_allclose(density, target.log_density(rows), rtol=tolerance, atol=tolerance * 4.0)


@pytest.mark.slow
def test_large_mixtures_run_with_lanes_inside():
    rng, k, d = np.random.default_rng(6), 40, 3
    means = rng.normal(scale=2.0, size=(k, d))
    a = rng.normal(size=(k, d, d))
    covs = {
        "shared": 0.5,
        "round": rng.uniform(0.3, 0.6, k),
        "full": a @ a.transpose(0, 2, 1) + 0.2 * np.eye(d),
    }
    for kind, cov in covs.items():
        target = GaussianMixture(np.full(k, 1.0 / k), means, cov)
        assert target._kind == kind
        x = rng.normal(scale=2.0, size=(d, 30))
        score = compiled_values(Langevin(target), "drift", x, np.float64, "tuple", d)
        np.testing.assert_allclose(score, target.score(x.T).T, rtol=1e-10, atol=1e-10)
        density = compiled_values(Langevin(target), "log_density", x, np.float64, "tuple", d)[0]
        np.testing.assert_allclose(density, target.log_density(x.T), rtol=1e-11)


_ONE_BY_ONE = """\
from numba import njit

@njit(error_model="numpy")
def each(q, x, t, out):
    self = {view}
    for i in range(x.shape[1]):
        _formula(self, x[:, i : i + 1], t, out[:, i : i + 1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["shared", "round", "full"])
def test_a_point_has_the_bits_of_its_tile(kind, dtype):
    """The loops over many components, lanes inside, and those of one point, which are written apart."""
    rng, k, d = np.random.default_rng(7), 30, 3
    a = rng.normal(size=(k, d, d))
    cov = {"shared": 0.5, "round": rng.uniform(0.3, 0.6, k), "full": a @ a.transpose(0, 2, 1) + 0.2 * np.eye(d)}[kind]
    target = GaussianMixture(np.full(k, 1.0 / k), rng.normal(scale=2.0, size=(k, d)), cov)
    assert target.score_point is not target.score_tile
    x = rng.normal(scale=2.0, size=(d, 60)).astype(dtype)
    x[:, 50:] *= 1e3
    layout, parameters = compile.flatten("Target", target.fields())
    names = {"_formula": compile.formula(target.score_point)}
    view, _ = compile.view_source(layout, 0, names)
    out = np.empty_like(x)
    cache.load(_ONE_BY_ONE.format(view=view), names).each(parameters.astype(dtype), x, np.zeros(1, dtype), out)
    np.testing.assert_array_equal(out, compiled_values(Langevin(target), "drift", x, dtype, "tuple", d))


def test_far_from_every_mode_the_nearest_component_rules():
    target = GaussianMixture([0.3, 0.7], [-1.0, 1.5], [0.4, 0.4])
    x = 1.5 + 1e3 * np.sqrt(0.4)
    assert target.score(x) == pytest.approx(-(x - 1.5) / 0.4, rel=1e-12)
    assert target.log_density(x) == pytest.approx(Gaussian(1.5, 0.4).log_density(x) + np.log(0.7), rel=1e-12)
    # two widths: the wide component rules at both ends
    wide = GaussianMixture([0.5, 0.5], [0.0, 1.0], [0.01, 4.0])
    assert wide.score(-50.0) == pytest.approx(51.0 / 4.0, rel=1e-12)


def test_components_of_weight_zero_do_not_count():
    with_zero = GaussianMixture([0.5, 0.0, 0.5], [-1.0, 0.0, 1.0], 0.3)
    without = GaussianMixture([0.5, 0.5], [-1.0, 1.0], 0.3)
    x = np.linspace(-3.0, 3.0, 7)
    np.testing.assert_allclose(with_zero.score(x), without.score(x), rtol=1e-13)
    assert with_zero.fields().keys() == without.fields().keys()
    assert len(with_zero.fields()["biases"]) == 2


@pytest.mark.parametrize("name", ["gaussian", "mixture", "full"])
def test_affine_images_have_the_stated_law(name):
    target = TARGETS[name]
    image = target.affine(0.6, 0.5, 0.3)
    # by hand: the density of αX + b + N(0, v) is the convolution of the scaled density with the normal one
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    y = np.random.default_rng(2).normal(size=(5, target.dim))
    if target.dim == 1:
        before = (y - np.sqrt(0.3) * nodes - 0.5) / 0.6
        direct = (target.density(before) / 0.6) @ weights
        np.testing.assert_allclose(image.density(y), direct, rtol=1e-8)
    else:
        noise = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
        both = np.outer(weights, weights).reshape(-1)
        before = (y[:, None, :] - np.sqrt(0.3) * noise - 0.5) / 0.6
        np.testing.assert_allclose(image.density(y), (target.density(before) / 0.36) @ both, rtol=1e-6)
        turn = np.array([[0.0, -1.0], [1.0, 0.0]])
        np.testing.assert_allclose(target.affine(turn).score(y), target.score(y @ turn) @ turn.T, rtol=1e-10)
        np.testing.assert_allclose(target.affine(turn).cov, turn @ target.cov @ turn.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LINE)
def test_samples_on_the_line_fill_equiprobable_bins(name):
    target, n = LINE[name], 40_000
    x = target.sample(n, seed=11)
    assert x.shape == (n,)

    def p_value(values):
        counts = np.bincount(np.minimum((values * 64).astype(int), 63), minlength=64)
        return chi2.sf(((counts - n / 64) ** 2).sum() / (n / 64), 63)

    assert p_value(target.cdf(x)) > 1e-7
    assert p_value(target.cdf(target.mean + 1.05 * (x - target.mean))) < 1e-7  # 5 % too wide is seen


@pytest.mark.parametrize("name", PLANE)
def test_samples_in_the_plane_have_the_stated_moments(name):
    target, n = PLANE[name], 40_000
    x = target.sample(n, seed=12)
    assert x.shape == (n, 2)
    away = np.linalg.solve(np.linalg.cholesky(target.cov), (x - target.mean).T)
    assert np.abs(away.mean(axis=1)).max() < 5.5 / np.sqrt(n)
    second = away @ away.T / n - np.eye(2)
    fourth = np.sqrt(((away[:, None] * away[None]) ** 2).mean(axis=2) / n)
    assert (np.abs(second) < 5.5 * fourth).all()


@pytest.mark.parametrize("name", TARGETS)
def test_a_sample_depends_on_its_seed_and_number_only(name):
    target = TARGETS[name]
    whole = target.sample(50, seed=4)
    np.testing.assert_array_equal(target.sample(20, seed=4, first_path=30), whole[30:])
    assert not np.array_equal(target.sample(50, seed=5), whole)
    assert target.sample(3).shape == whole[:3].shape  # a seed from the operating system


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 4), max_size=3), d=st.integers(1, 4), k=st.integers(1, 3))
def test_shapes_of_scores_and_densities(shape, d, k):
    rng = np.random.default_rng(0)
    mixture = GaussianMixture(np.full(k, 1.0 / k), rng.normal(size=(k, d)), 0.5)
    for target in (mixture, Gaussian(np.zeros(d), 1.0)):
        x = rng.normal(size=(*shape, d))
        assert target.score(x).shape == x.shape
        assert np.shape(target.log_density(x)) == (tuple(shape) if d > 1 or shape else (1,))
    if d == 1:
        x = rng.normal(size=(*shape, 2))  # any shape is a set of points
        assert np.shape(mixture.log_density(x)) == x.shape
        assert np.shape(mixture.score(0.3)) == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0, -1.0), "cov must be > 0, got -1"),
        (
            lambda: Gaussian([0.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]),
            "positive definite, its smallest eigenvalue is -1",
        ),
        (lambda: Gaussian([0.0, 1.0], [[1.0, 0.5], [0.2, 1.0]]), "cov must be symmetric"),
        (
            lambda: Gaussian([0.0, 1.0], np.ones(3)),
            r"cov has shape \(3,\), expected a number, \(2,\) or \(2, 2\)",
        ),
        (lambda: Gaussian(np.nan), "mean must be finite"),
        (lambda: Gaussian([0.0, 1.0]).score(np.zeros(3)), r"x has shape \(3,\), expected \(2,\)"),
        (lambda: Gaussian([0.0, 1.0]).cdf(0.0), "cdf is known for dim 1"),
        (lambda: GaussianMixture([0.5, 0.4], [0.0, 1.0]), "weights must sum to 1, got 0.9"),
        (lambda: GaussianMixture([1.5, -0.5], [0.0, 1.0]), "weights must be >= 0, got -0.5 at index 1"),
        (lambda: GaussianMixture([0.5, 0.5], [0.0, 1.0, 2.0]), r"means has shape \(3,\), expected \(2,\)"),
        (lambda: GaussianMixture([0.5, 0.5], [0.0, 1.0], [1.0, 0.0]), r"covs\[1\] must be > 0"),
        (
            lambda: GaussianMixture([0.5, 0.5], np.eye(2), np.ones((3, 3))),
            r"covs has shape \(3, 3\), expected",
        ),
        (lambda: Gamma(0.0, 1.0), "shape must be > 0"),
        (lambda: DoubleWellDensity(-1.0), "beta must be > 0"),
        (lambda: Gaussian().sample(0, 1), "n must be >= 1"),
        (lambda: Gaussian().sample(1, -1), "seed must be an integer"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@njit
def power_of_all(z, out):
    for i in range(z.size):
        out[i] = power(z[i])


@pytest.mark.parametrize(("dtype", "lowest", "tolerance"), [(np.float32, -60.0, 3e-7), (np.float64, -200.0, 6e-16)])
def test_powers_of_two_to_the_last_places(dtype, lowest, tolerance):
    z = np.linspace(lowest, 0.0, 20_001).astype(dtype)
    out = np.empty_like(z)
    power_of_all(z, out)
    exact = np.exp2(z.astype(np.longdouble))
    assert float(np.abs(out / exact - 1.0).max()) < tolerance
    far = np.array([lowest - 1.0, -1e30, -np.inf], dtype)
    power_of_all(far, out)
    np.testing.assert_allclose(out[:3], 2.0**lowest, rtol=2.0 * tolerance)  # never a denormal number
