"""Metrics: closed forms, brute force, the level and the power of the tests, invariances, floors, the table."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

import sdesim as sde
from sdesim import data, metrics
from sdesim.generate.metrics import two_sample

TESTS = {
    "energy": metrics.energy_distance,
    "mmd": metrics.mmd,
    "mmd, given width": functools.partial(metrics.mmd, bandwidth=0.7),
    "sliced": functools.partial(metrics.sliced_wasserstein, n_projections=5),
    "a user's own": lambda x, y: abs(x.mean() - y.mean()),
}
LEVEL = 1e-4 / 8  # of every statistical assertion here


def clouds(n=50, m=37, d=3, seed=0, shift=0.3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 1.2 * rng.standard_normal((m, d)) + shift


def apart(x, y):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=-1))


# ---- two samples: brute force and closed forms


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (50, 37, 3), (300, 520, 2), (40, 150, 1100)])
def test_energy_and_mmd_are_their_sums(n, m, d, monkeypatch):
    x, y = clouds(n, m, d)
    # the mean over pairs of different points
    within = [apart(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    expected = 2 * apart(x, y).mean() - sum(within)
    assert metrics.energy_distance(x, y) == pytest.approx(expected, rel=1e-10, abs=1e-13)
    for width in (0.7, None):
        pooled = np.concatenate([x, y])
        h = width or np.median(apart(pooled, pooled)[np.triu_indices(n + m, 1)])
        of = [np.exp(-(apart(a, b) ** 2) / (2 * h**2)) for a, b in ((x, x), (y, y), (x, y))]
        expected = (of[0].sum() - n) / (n * (n - 1)) + (of[1].sum() - m) / (m * (m - 1)) - 2 * of[2].mean()
        assert metrics.mmd(x, y, bandwidth=width) == pytest.approx(expected, rel=1e-9, abs=1e-13)
    whole = metrics.energy_distance(x, y)
    monkeypatch.setattr(two_sample, "_ROWS", 7)
    assert metrics.energy_distance(x, y) == pytest.approx(whole, rel=1e-10, abs=1e-13)


def test_energy_and_mmd_of_gaussians_are_unbiased():
    # X − Y is N(μ, 2): E|X − Y| is a folded normal's mean, and E k(X, Y) a Gaussian integral
    shift, h = 0.8, 0.9

    def folded(mean):
        return 2 / math.sqrt(math.pi) * math.exp(-(mean**2) / 4) + mean * math.erf(mean / 2)

    def kernel(mean):
        return h / math.sqrt(h**2 + 2) * math.exp(-(mean**2) / (2 * (h**2 + 2)))

    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal(20), rng.standard_normal(30) + shift) for _ in range(2000)]
    for found, expected, of_self in (
        ([metrics.energy_distance(x, y) for x, y in pairs], 2 * folded(shift) - 2 * folded(0.0), folded(0.0)),
        ([metrics.mmd(x, y, bandwidth=h) for x, y in pairs], 2 * kernel(0.0) - 2 * kernel(shift), 1 - kernel(0.0)),
    ):
        assert abs(np.mean(found) - expected) < 4.5 * stats.sem(found)
        # what pairs of a point with itself would add is seen
        assert 4.5 * stats.sem(found) < 0.6 * of_self * (1 / 20 + 1 / 30)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 6), (5, 7), (1 + 1, 9)])
def test_sliced_wasserstein_pairs_points_in_their_order(n, m):
    x, y = clouds(n, m, 1)
    # each point as often as it takes to make the samples equally large
    shared = math.lcm(n, m)
    square = ((np.sort(np.repeat(x, shared // n)) - np.sort(np.repeat(y, shared // m))) ** 2).mean()
    assert metrics.sliced_wasserstein(x, y) == pytest.approx(math.sqrt(square), rel=1e-12)


def test_sliced_wasserstein_of_a_shift():
    x, _ = clouds(100, 2, 5)
    shift = np.array([3.0, 0, 0, 0, 4.0])
    found = metrics.sliced_wasserstein(x, x + shift, n_projections=4000, seed=1) ** 2
    # E (δ·u)² = |δ|²/d on the sphere, with the variance 2 (d − 1)|δ|⁴/(d² (d + 2))
    assert abs(found - 25 / 5) < 4.5 * math.sqrt(2 * 4 * 25**2 / (25 * 7) / 4000)
    assert metrics.sliced_wasserstein(x, x) == 0.0
    assert metrics.sliced_wasserstein(x, x + shift, seed=2) != metrics.sliced_wasserstein(x, x + shift, seed=3)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 4), st.integers(0, 99))
def test_distances_do_not_depend_on_the_order_or_the_frame(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = clouds(n, m, d, seed)
    turn, shift = np.linalg.qr(rng.standard_normal((d, d)))[0], rng.standard_normal(d)
    a, b = x[rng.permutation(n)] @ turn + shift, y[rng.permutation(m)] @ turn + shift
    for metric in (metrics.energy_distance, metrics.mmd, metrics.frechet_distance):
        assert metric(a, b) == pytest.approx(metric(x, y), abs=1e-7)
        assert metric(y, x) == pytest.approx(metric(x, y), abs=1e-7)
    if n > 3:
        np.testing.assert_allclose(metrics.coverage(b, a, k=2), metrics.coverage(y, x, k=2), atol=1e-12)
    assert metrics.sliced_wasserstein(x[rng.permutation(n)], y) == pytest.approx(metrics.sliced_wasserstein(x, y))


# ---- permutation tests


@pytest.mark.parametrize("name", TESTS)
def test_permutation_tests_keep_their_level(name, monkeypatch):
    monkeypatch.setattr(two_sample, "_MEDIAN_OF", 12)  # the bandwidth from a part of the points
    rng = np.random.default_rng(5)
    ranks = np.zeros(20, int)
    for repeat in range(300):
        z = rng.standard_exponential((19, 2))
        found = metrics.permutation_test(z[:8], z[8:], TESTS[name], n_permutations=19, seed=repeat)
        ranks[round(20 * found.pvalue) - 1] += 1
    # p is uniform on 1/20, 2/20, …, 1 where no two distances are the same
    assert stats.chisquare(ranks).pvalue > LEVEL
    assert ranks[0] <= stats.binom.isf(LEVEL, 300, 0.05)


@pytest.mark.parametrize("name", TESTS)
def test_permutation_tests_have_power(name):
    x, y = clouds(80, 80, 2, seed=3, shift=0.9)
    found = metrics.permutation_test(x, y, TESTS[name], n_permutations=199)
    assert found.pvalue == 1 / 200
    assert found.statistic > found.null.max()
    # of the same law, and the same numbers of points
    calm = metrics.permutation_test(x[:40], x[40:], TESTS[name], n_permutations=199)
    assert calm.pvalue > 0.01


@pytest.mark.parametrize("name", ["energy", "mmd", "sliced"])
def test_many_labellings_at_once_are_as_one_by_one(name, monkeypatch):
    x, y = clouds(30, 21, 3)
    metric = TESTS[name]
    fast = metrics.permutation_test(x, y, metric, n_permutations=30, seed=4)
    slow = metrics.permutation_test(x, y, lambda a, b: metric(a, b), n_permutations=30, seed=4)
    np.testing.assert_allclose(fast.null, slow.null, rtol=1e-9, atol=1e-12)
    assert fast.pvalue == slow.pvalue
    assert fast.statistic == pytest.approx(metric(x, y), rel=1e-12)
    monkeypatch.setattr(two_sample, "_COLUMNS", 4)
    np.testing.assert_allclose(
        metrics.permutation_test(x, y, metric, n_permutations=30, seed=4).null, fast.null, rtol=1e-9, atol=1e-12
    )
    # the same bits for any number of threads, others for another seed
    several = metrics.permutation_test(x, y, metric, n_permutations=30, seed=4, workers=3)
    one = metrics.permutation_test(x, y, metric, n_permutations=30, seed=4, workers=1)
    assert (several.null == one.null).all()
    assert (metrics.permutation_test(x, y, metric, n_permutations=30, seed=5).null != one.null).all()


def test_progress_and_interruption(monkeypatch):
    x, y = clouds(300, 300, 2)
    seen = []
    metrics.permutation_test(x, y, n_permutations=3, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sdesim.core.executors.Threads.wait", stopped)
    for call in (metrics.energy_distance, metrics.sliced_wasserstein, metrics.coverage):
        with pytest.raises(KeyboardInterrupt):
            call(x, y)


def test_equal_points_count_as_equal_distances():
    # 6 points of two kinds: many permutations give the same distance, and the p-value must count all of them
    x, y = np.array([0.0, 0, 0]), np.array([0.1, 0.1, 0.1])
    found = metrics.permutation_test(x, y, n_permutations=400)
    largest = np.isclose(found.null, found.statistic)
    assert 0.05 < largest.mean() < 0.16  # 2 of the 20 ways
    assert found.pvalue == (1 + largest.sum()) / 401
    same = metrics.permutation_test(np.ones(5), np.ones(4), n_permutations=19)
    assert (same.statistic, same.pvalue) == (0.0, 1.0)
    assert repr(found).startswith("PermutationTest(statistic=0.2, pvalue=")


def test_a_shift_is_found_in_targets_of_the_library():
    target = sde.targets.Gaussian([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])
    x, y = target.sample(400, 1), target.sample(400, 2)
    assert metrics.permutation_test(x, y, n_permutations=99).pvalue > 0.02
    assert metrics.permutation_test(x, y + 0.3, n_permutations=99).pvalue == 0.01


# ---- the Fréchet distance


def exactly(mean, cov, n=40, seed=0):
    """Points with just these moments."""
    draws = np.random.default_rng(seed).standard_normal((n, len(mean)))
    # columns of length √(n − 1), at right angles to each other and to the vector of ones
    z = np.linalg.qr(np.hstack([np.ones((n, 1)), draws]))[0][:, 1:] * math.sqrt(n - 1)
    return z @ np.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_gaussians():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 1.0])
    x, y = exactly(np.zeros(3), np.diag(a)), exactly(np.array([1.0, 2.0, 0.0]), np.diag(b), seed=1)
    expected = 5.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)
    rng = np.random.default_rng(2)
    factors = rng.standard_normal((2, 4, 4))
    first, second = factors @ np.swapaxes(factors, 1, 2)
    found = metrics.frechet_distance(exactly(np.zeros(4), first), exactly(np.ones(4), second, seed=3))
    expected = 4.0 + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    assert found == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-10)
    # in one dimension, and with features that never move
    assert metrics.frechet_distance(exactly([0.0], [[4.0]]), exactly([3.0], [[1.0]])) == pytest.approx(10.0)
    still = np.hstack([x, np.zeros((40, 2))])
    assert metrics.frechet_distance(still, still + 1.0) == pytest.approx(5.0)


def test_frechet_distance_in_float32_is_worked_out_in_float64():
    x, y = clouds(200, 200, 4)
    x, y = (x + 100).astype(np.float32), (y + 100).astype(np.float32)
    exact = metrics.frechet_distance(x.astype(float), y.astype(float))
    assert metrics.frechet_distance(x, y) == pytest.approx(exact, rel=1e-12)


# ---- neighbours


def test_coverage_is_its_count():
    x, y = clouds(60, 45, 2)
    found = metrics.coverage(y, x, k=3)
    radius = np.sort(apart(x, x), axis=1)[:, 3]
    inside = apart(x, y) < radius[:, None]
    assert found.coverage == pytest.approx(inside.any(axis=1).mean())
    assert found.density == pytest.approx(inside.sum() / (3 * 45))


def test_coverage_of_perfect_samples_and_of_a_lost_mode():
    rng = np.random.default_rng(0)
    found = [metrics.coverage(rng.standard_normal((30, 2)), rng.standard_normal((40, 2)), k=3) for _ in range(800)]
    expected = 1 - (39 * 38 * 37) / (69 * 68 * 67)
    assert found[0].expected == pytest.approx(expected)
    for name, wanted in (("coverage", expected), ("density", 1.0)):
        values = [getattr(one, name) for one in found]
        assert abs(np.mean(values) - wanted) < 4.5 * stats.sem(values)
        assert 4.5 * stats.sem(values) < 0.03
    two = rng.standard_normal((400, 2)) + np.where(np.arange(400) % 2, 10.0, -10.0)[:, None]
    lost = metrics.coverage(two[two[:, 0] > 0] + 0.1, two)
    assert 0.4 < lost.coverage < 0.51


def test_the_nearest_neighbour(monkeypatch):
    rng = np.random.default_rng(0)
    train = rng.uniform(-1, 1, (500, 30)) + 5.0
    chosen = rng.integers(0, 500, 40)
    off = 0.01 * rng.standard_normal((40, 30))
    for searched in (4096, 64):
        monkeypatch.setattr("sdesim.generate.metrics.neighbours._SEARCHED", searched)
        found = metrics.nearest_neighbour_rmse(train[chosen] + off, train)
        assert (found.nearest == chosen).all()
        np.testing.assert_allclose(found.rmse, np.sqrt((off**2).mean(axis=1)), rtol=1e-10)
        assert found.median == np.median(found.rmse)
    assert metrics.nearest_neighbour_rmse(train[:3], train).rmse.max() == 0.0
    brute = apart(train[:50] + 0.3, train[50:]).min(axis=1) / np.sqrt(30)
    np.testing.assert_allclose(metrics.nearest_neighbour_rmse(train[:50] + 0.3, train[50:]).rmse, brute, rtol=1e-6)


# ---- pictures


def test_probabilities_of_known_scores():
    certain = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert metrics.inception_score(certain) == pytest.approx(4.0)
    assert metrics.inception_score(np.full((5, 4), 0.25)) == pytest.approx(1.0)
    assert metrics.inception_score(certain[[0, 4]]) == pytest.approx(1.0)
    assert metrics.prediction_entropy(certain) == 0.0
    assert metrics.prediction_entropy(np.full((5, 4), 0.25)) == pytest.approx(np.log(4))
    assert metrics.class_shares(certain[[0, 1, 4]]).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    p = np.array([[0.7, 0.3], [0.1, 0.9]])
    assert metrics.confidence(p) == pytest.approx(0.8)
    kl = (p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()
    assert metrics.inception_score(p) == pytest.approx(np.exp(kl))


def test_total_variation_of_stripes():
    stripes = np.where(np.arange(6) % 2, 1.0, -1.0) * np.ones((3, 4, 1))
    assert metrics.total_variation(stripes) == 2.0
    assert metrics.total_variation(np.swapaxes(stripes, 1, 2)) == 0.0
    assert metrics.total_variation(stripes.reshape(3, -1), (4, 6)) == 2.0
    colours = np.zeros((2, 4, 5, 3))
    colours[..., 1] = np.arange(5)
    assert metrics.total_variation(colours) == pytest.approx(1 / 3)
    many = np.random.default_rng(0).standard_normal((2500, 3, 3))
    assert metrics.total_variation(many) == pytest.approx(np.abs(np.diff(many, axis=2)).mean())
    assert metrics.total_variation(data.Images(many.reshape(2500, -1), None, (3, 3))) == metrics.total_variation(many)


# ---- floors and the table


def test_floors_are_distances_of_data():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((400, 2)), rng.standard_normal((150, 2))
    floor = metrics.floor(metrics.energy_distance, train, test, 100, n_repeats=20)
    assert abs(floor.mean) < 5 * floor.sd / np.sqrt(20) + 0.02
    assert floor.values.std() > 0
    assert repr(floor).endswith("n=100, 20 repeats)")
    # what is drawn: n different training points, and the whole test set
    seen = []
    metrics.floor(lambda x, y: seen.append((x, y)) or 0.0, train, test, 100, n_repeats=2)
    (x, y), (again, _) = seen
    assert len(np.unique(x, axis=0)) == 100
    assert {*x[:, 0]} <= {*train[:, 0]}
    assert (y == test).all()
    assert {*x[:, 0]} != {*again[:, 0]}
    assert metrics.floor(lambda x, y: len(x) + 1000 * len(y), train, test, n_test=9).mean == 9150
    # the Fréchet distance falls with n, which is why floors are at the same n
    few, many = (metrics.floor(metrics.frechet_distance, train, test, n, n_repeats=20).mean for n in (20, 300))
    assert few > 3 * many
    assert math.isnan(metrics.floor(metrics.energy_distance, train, test).sd)


def striped(n, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    wave = np.sin(2 * np.pi * (np.arange(8) / 4 + rng.uniform(size=(n, 1))))
    x = np.where(labels[:, None, None], wave[:, None], wave[:, :, None]) * np.ones((1, 8, 8))
    x = np.clip(0.6 * x + 0.2 * rng.standard_normal(x.shape), -1, 1).astype(np.float32)
    return data.Images(x.reshape(n, -1), labels, (8, 8), ("across", "down"))


def test_the_table_of_a_set_of_pictures():
    train, test = striped(600, 0), striped(200, 1)
    judges = [
        metrics.image_classifier(train, kind=kind, hidden=hidden, n_epochs=3, batch_size=50, keep=False)
        for kind, hidden in (("mlp", (24, 12)), ("cnn", (12,)))
    ]
    noise = 3.0 * np.random.default_rng(2).standard_normal((100, 8, 8))
    seen = []
    sets = {"noise": noise, "fresh": striped(100, 3)}
    report = metrics.image_report(sets, train, test, judges, progress=lambda *done: seen.append(done))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [row.name for row in report.rows] == ["noise", "fresh", "train, 100", "test"]
    row, clipped = report["noise"], np.clip(noise, -1, 1).astype(np.float32)
    for judge in judges:
        expected = metrics.frechet_distance(judge.features(clipped), judge.features(test))
        assert row.frechet[judge.kind] == pytest.approx(expected, rel=1e-6)
    p = judges[1].probabilities(clipped)
    assert row.inception_score == pytest.approx(metrics.inception_score(p))
    shares = metrics.class_shares(p)
    assert (row.least_share, row.largest_share) == (shares.min(), shares.max())
    assert row.entropy == pytest.approx(metrics.prediction_entropy(p))
    assert row.confidence == pytest.approx(metrics.confidence(p))
    assert row.nearest == pytest.approx(metrics.nearest_neighbour_rmse(clipped, train).median)
    assert row.total_variation == pytest.approx(metrics.total_variation(clipped), rel=1e-6)
    assert report["train, 100"].nearest == 0.0
    assert math.isnan(report["test"].frechet["cnn"])
    for kind in ("mlp", "cnn"):
        assert max(report["fresh"].frechet[kind], report["train, 100"].frechet[kind]) < 0.2 * row.frechet[kind]
    lines = repr(report).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:5] == ["n", "FD", "mlp", "FD", "cnn"]
    assert len(lines) == 5
    with pytest.raises(KeyError, match="no row 'samples'"):
        report["samples"]
    with pytest.raises(ValueError, match="classifiers of one kind need names"):
        metrics.image_report(noise, train, test, [judges[0], judges[0]])
    with pytest.raises(ValueError, match="samples has 9 numbers a picture, the training pictures have 64"):
        metrics.image_report(np.zeros((5, 9)), train, test, judges)
    with pytest.raises(ValueError, match="samples must not be called 'test', which is the name of a row of real"):
        metrics.image_report({"test": noise}, train, test, judges)
    with pytest.raises(TypeError, match="classifiers must be one or more"):
        metrics.image_report(noise, train, test, [])


X = np.zeros((5, 2))
P = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.energy_distance(X, np.zeros((5, 3))), ValueError, "x has 2 numbers a row and y has 3"),
        (lambda: metrics.energy_distance(X[:1], X), ValueError, r"x has shape \(1, 2\), expected \(n, d\) with n >= 2"),
        (lambda: metrics.mmd(X, X + np.nan), ValueError, r"y must be finite; row 0 is not \(5 in all\)"),
        (lambda: metrics.mmd(X, X), ValueError, "their median distance is 0; give bandwidth="),
        (lambda: metrics.mmd(X, X, bandwidth=0.0), ValueError, "bandwidth must be > 0"),
        (lambda: metrics.sliced_wasserstein(X, X, n_projections=0), ValueError, "n_projections must be >= 1"),
        (lambda: metrics.frechet_distance(["a"], X), TypeError, "x must hold real numbers"),
        (lambda: metrics.permutation_test(X, X, "energy"), TypeError, r"metric must be callable as metric\(x, y\)"),
        (lambda: metrics.permutation_test(X, X, n_permutations=0), ValueError, "n_permutations must be >= 1"),
        (lambda: metrics.coverage(X, X, k=5), ValueError, "k must be < 5"),
        (lambda: metrics.floor(metrics.mmd, X, X, 6), ValueError, "n must be < 6, got 6"),
        (lambda: metrics.inception_score(X[:, 0]), ValueError, r"probabilities has shape \(5,\)"),
        (lambda: metrics.confidence(2 * P), ValueError, "probabilities must be >= 0 and sum to 1"),
        (lambda: metrics.total_variation(X), ValueError, r"images has shape \(5, 2\), expected"),
        (lambda: metrics.total_variation(np.zeros((2, 3, 1))), ValueError, "images must be >= 2 wide"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
