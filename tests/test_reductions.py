"""Reductions: NumPy's own numbers, in bits that do not depend on how the work was cut."""

import itertools
import resource
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.core import blocks

N_STEPS = 6
WIDE = {"n_steps": N_STEPS, "seed": 17}


def process_of(d):
    if d == 1:
        return sde.ito(lambda x, t: np.cos(t) - x, lambda x, t: 1.0 + 0.3 * np.sin(x)), 0.3
    return (
        sde.ito(
            lambda x, t: (x[1] - x[0], -x[0] * t),
            lambda x, t: ((0.5, 0.2), (0.1 * x[0], 0.4)),
            dim=2,
            noise="general",
        ),
        (0.3, -0.2),
    )


def run(d=1, n=2000, first_path=0, **more):
    process, x0 = process_of(d)
    return sde.simulate(process, x0, (0, 1.5), n_paths=n, first_path=first_path, **{**WIDE, "save": 2, **more})


# ---- histograms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lower", "upper", "bins"), [(-1.0, 2.0, 37), (0.1, 0.7, 3), (-30.0, 30.0, 1)])
def test_a_histogram_is_numpys(dtype, lower, upper, bins):
    n = 3001
    kept = run(n=n, dtype=dtype, first_path=77)
    counted = run(n=n, dtype=dtype, first_path=77, reduce=[sde.Histogram(lower, upper, bins)])
    result = counted.reductions[0]
    assert np.array_equal(result.t, kept.t)
    assert np.array_equal(result.edges, np.linspace(lower, upper, bins + 1))
    for k, x in enumerate(kept.x.T.astype(float)):
        expected, _ = np.histogram(x, bins, (lower, upper))
        assert np.array_equal(result.counts[k], expected)
        assert result.outside[k] == n - expected.sum()
    assert result.n == n
    volume = (upper - lower) / bins
    np.testing.assert_allclose(result.density * volume * n, result.counts, rtol=1e-14)


@pytest.mark.parametrize("components", [None, (1, 0), (0, 1)])
def test_a_joint_histogram_is_numpys(components):
    n = 1500
    kept = run(2, n)
    boxes = sde.Histogram((-1.0, -2.0), (2.0, 1.0), (7, 11), components=components)
    result = run(2, n, reduce=[boxes]).reductions[0]
    a, b = components or (0, 1)
    for k in range(len(kept.t)):
        x = kept.x[:, k]
        expected, ea, eb = np.histogram2d(x[:, a], x[:, b], (7, 11), ((-1, 2), (-2, 1)))
        assert np.array_equal(result.counts[k], expected)
        assert result.outside[k] == n - expected.sum()
    assert np.array_equal(result.edges[0], ea)
    assert np.array_equal(result.edges[1], eb)
    inside = result.density[-1].sum() * (3 / 7) * (3 / 11)
    assert inside == pytest.approx(1 - result.outside[-1] / n)


def test_a_histogram_of_one_component_of_two():
    kept = run(2, 600)
    result = run(2, 600, reduce=[sde.Histogram(-2, 2, 20, components=1)]).reductions[0]
    assert np.array_equal(result.counts[-1], np.histogram(kept.final[:, 1], 20, (-2, 2))[0])


def test_the_edges_of_bins():
    """A bin holds its lower edge; the last upper edge, nan and inf are outside."""
    x0 = np.array([0.0, 0.25, 0.5, 0.75, 1.0, -1e-9, np.nextafter(1.0, 0.0)])
    still = sde.ito(lambda x, t: 0.0, lambda x, t: 0.0)
    result = sde.simulate(still, x0, (0, 1), n_steps=1, reduce=[sde.Histogram(0, 1, 4)]).reductions[0]
    assert result.counts.tolist() == [[1, 1, 1, 2]]
    assert result.outside.tolist() == [2]
    far = sde.ito(lambda x, t: np.exp(x * x), lambda x, t: 0.0)
    with pytest.warns(RuntimeWarning, match="1 of 2 paths"):
        result = sde.simulate(
            far, np.array([0.0, 27.0]), (0, 0.5), n_steps=1, reduce=[sde.Histogram(0, 1, 2)],
            on_nonfinite="ignore",
        ).reductions[0]  # fmt: skip
    assert result.counts.tolist() == [[0, 1]]
    assert result.outside.tolist() == [1]


@pytest.mark.parametrize(("lower", "upper", "bins"), [(0.1, 0.7, 3), (-0.3, 1.1, 70), (-1 / 3, 1 / 7, 1000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_states_on_the_edges_go_where_numpy_puts_them(lower, upper, bins, dtype):
    """(x − lower)/width rounds across an edge now and then; the edges themselves decide."""
    edges = np.linspace(lower, upper, bins + 1)
    near = np.concatenate([edges, np.nextafter(edges, -9), np.nextafter(edges, 9), np.round(edges, 2)])
    near = near.astype(dtype)
    near = near[near < upper]  # the one difference: NumPy's last bin holds its upper edge
    still = sde.ito(lambda x, t: 0.0, lambda x, t: 0.0)
    reduce = [sde.Histogram(lower, upper, bins)]
    result = sde.simulate(still, near, (0, 1), n_steps=1, reduce=reduce, dtype=dtype).reductions[0]
    expected, _ = np.histogram(near.astype(float), bins, (lower, upper))
    assert np.array_equal(result.counts[0], expected)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 1499), size=st.sampled_from([256, 512, 1280]), first=st.sampled_from([0, 1, 200, 256]))
def test_histograms_of_halves_add(cut, size, first):
    boxes = [sde.Histogram(-1, 2, 30)]
    whole = run(n=1500, first_path=first, reduce=boxes).reductions[0]
    left = run(n=cut, first_path=first, reduce=boxes).reductions[0]
    right = run(n=1500 - cut, first_path=first + cut, reduce=boxes).reductions[0]
    both = left + right
    assert np.array_equal(both.counts, whole.counts)
    assert np.array_equal(both.outside, whole.outside)


def test_histograms_of_other_bins_do_not_add():
    a = run(n=10, reduce=[sde.Histogram(-1, 2, 30)]).reductions[0]
    b = run(n=10, reduce=[sde.Histogram(-1, 3, 30)]).reductions[0]
    c = run(n=10, save="final", reduce=[sde.Histogram(-1, 2, 30)]).reductions[0]
    for other in (b, c):
        with pytest.raises(ValueError, match="same"):
            _ = a + other


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((1.0, 0.0, 5), ValueError, "lower 1 must be < upper 0"),
        ((0.0, np.nan, 5), ValueError, "upper must be finite"),
        ((0.0, 1.0, 0), ValueError, "bins must be >= 1"),
        ((0.0, 1.0, 2.5), TypeError, "bins must be an integer"),
        (((0.0, 1.0), 1.0, 5), ValueError, "one length"),
        (("a", 1.0, 5), TypeError, "lower must be a real number"),
    ],
)
def test_bad_histograms_are_refused(arguments, kind, match):
    with pytest.raises(kind, match=match):
        sde.Histogram(*arguments)


def test_a_component_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="component 2, but the state has 2"):
        run(2, 5, reduce=[sde.Histogram(0, 1, 5, components=2)])
    with pytest.raises(ValueError, match="component"):
        run(1, 5, reduce=[sde.Histogram((0, 0), (1, 1), (5, 5))])
    with pytest.raises(TypeError, match="reductions such as Histogram"):
        run(1, 5, reduce=["mean"])


# ---- moments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 1000, 4097])
@pytest.mark.parametrize("d", [1, 2])
def test_moments_are_numpys(n, d):
    kept = run(d, n, first_path=130)
    result = run(d, n, first_path=130, reduce=[sde.Moments()]).reductions[0]
    assert result.n == n
    assert np.array_equal(result.t, kept.t)
    x = kept.x.astype(np.longdouble)
    np.testing.assert_allclose(result.mean, x.mean(axis=0).astype(float), rtol=1e-12, atol=1e-14)
    if n > 1:
        np.testing.assert_allclose(result.variance, x.var(axis=0, ddof=1).astype(float), rtol=1e-12, atol=1e-28)
        np.testing.assert_allclose(result.standard_error, np.sqrt(result.variance / n), rtol=1e-14)
    if d == 2 and n > 1:
        for k in range(len(kept.t)):
            covariance = np.cov(kept.x[:, k].T)
            np.testing.assert_allclose(result.covariance[k], covariance, rtol=1e-11, atol=1e-15)
            assert np.array_equal(result.covariance[k], result.covariance[k].T)


def test_moments_of_an_elementwise_state_keep_its_shape():
    process, _ = process_of(1)
    x0 = np.zeros((2, 3))
    kept = sde.simulate(process, x0, (0, 1), n_paths=300, **WIDE)
    result = sde.simulate(process, x0, (0, 1), n_paths=300, reduce=[sde.Moments()], **WIDE).reductions[0]
    assert result.mean.shape == result.variance.shape == (1, 2, 3)
    assert result.covariance.shape == (1, 6, 6)
    np.testing.assert_allclose(result.mean[0], kept.final.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance[0], np.cov(kept.final.reshape(300, 6).T), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_mean_costs_no_digits(dtype):
    """Mean 2²⁰, spread 1: a sum of squares would keep 4 digits of the variance, and in float32 none."""
    process = sde.Wiener(1.0)
    arguments = dict(n_steps=1, n_paths=5000, seed=2, dtype=dtype)
    kept = sde.simulate(process, 2.0**20, (0, 1), **arguments)
    result = sde.simulate(process, 2.0**20, (0, 1), reduce=[sde.Moments()], **arguments).reductions[0]
    x = kept.final.astype(np.longdouble) - 2**20
    assert float(result.variance[0]) == pytest.approx(float(x.var(ddof=1)), rel=1e-9)
    assert float(result.mean[0]) == pytest.approx(2**20 + float(x.mean()), rel=1e-15)


def same(a, b):
    return a.n == b.n and a.mean.tobytes() == b.mean.tobytes() and a.covariance.tobytes() == b.covariance.tobytes()


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 1399), min_size=1, max_size=4, unique=True),
    first=st.integers(0, 1100),
    order=st.randoms(use_true_random=False),
)
@example(cuts=[1], first=255, order=None)
@example(cuts=[1399], first=0, order=None)
def test_moments_of_parts_are_the_bits_of_the_whole(cuts, first, order):
    reduce = [sde.Moments()]
    whole = run(n=1400, first_path=first, reduce=reduce).reductions[0]
    borders = [0, *sorted(cuts), 1400]
    parts = [run(n=b - a, first_path=first + a, reduce=reduce).reductions[0] for a, b in itertools.pairwise(borders)]
    if order is not None:
        order.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert same(total, whole)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("first_path", [0, 19, 256])
def test_moments_do_not_depend_on_blocks_and_workers(d, first_path, monkeypatch):
    reduce = [sde.Moments(), sde.Histogram(-1, 1, 5)]
    whole = run(d, 5003, first_path, reduce=reduce, workers=1).reductions
    cut = blocks.cut
    for size in (256, 768, 2048):
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "cut", lambda first, n, _, size=size: cut(first, n, size))
            for workers in (1, 3):
                other = run(d, 5003, first_path, reduce=reduce, workers=workers).reductions
                assert same(other[0], whole[0])
                assert np.array_equal(other[1].counts, whole[1].counts)


def test_the_whole_array_engine_feeds_reductions_too():
    def drift(x, t):
        return -x

    def diffusion(x, t):
        return 1.0

    reduce = [sde.Moments(), sde.Histogram(-1, 1, 9)]
    arguments = dict(n_steps=4, n_paths=1300, first_path=70, seed=1, save=2)
    tiles = sde.simulate(sde.ito(drift, diffusion), 0.5, (0, 1), reduce=reduce, **arguments).reductions
    batch = sde.simulate(sde.ito(drift, diffusion, compiled=False), 0.5, (0, 1), reduce=reduce, **arguments).reductions
    np.testing.assert_allclose(batch[0].mean, tiles[0].mean, rtol=1e-12)
    np.testing.assert_allclose(batch[0].variance, tiles[0].variance, rtol=1e-12, atol=1e-30)
    assert np.array_equal(batch[1].counts, tiles[1].counts)


def test_overlapping_paths_do_not_add():
    a = run(n=300, reduce=[sde.Moments()]).reductions[0]
    for first in (0, 256):
        b = run(n=300, first_path=first, reduce=[sde.Moments()]).reductions[0]
        with pytest.raises(ValueError, match="disjoint"):
            _ = a + b
    with pytest.raises(ValueError, match="same"):
        _ = a + run(n=300, first_path=300, save="final", reduce=[sde.Moments()]).reductions[0]


def resident_megabytes():
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@pytest.mark.slow
def test_ten_million_paths_need_no_memory():
    def task(n):
        return sde.simulate(
            sde.Wiener(1.0), 0.0, (0, 1), n_steps=2, n_paths=n, seed=5,
            reduce=[sde.Moments(), sde.Histogram(-4, 4, 100)],
        ).reductions  # fmt: skip

    task(10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    now = resident_megabytes()
    moments, histogram = task(10_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - max(before, now) < 50
    assert moments.n == histogram.n == 10_000_000
    assert abs(moments.mean[0]) < 6 / np.sqrt(1e7)
    assert abs(moments.variance[0] - 1) < 6 * np.sqrt(2 / 1e7)
