"""Distances between samples and a density: known values, noise floors, levels, power, refusals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from sdesim.compare import Comparison, compare
from sdesim.core import distances

FAMILY = 1e-4  # the default level of within_noise


def solved(cdf, lower=-6.0, upper=6.0, n_cells=1000, t=1.0, mass=1.0):
    """A density as the solver returns it, from exact cell averages."""
    edges = np.linspace(lower, upper, n_cells + 1)
    q = np.diff(cdf(edges))
    p = mass * q / (q.sum() or 1.0) / np.diff(edges)
    grid = SimpleNamespace(edges=edges, centers=(edges[1:] + edges[:-1]) / 2, spacing=edges[1] - edges[0], dim=1)
    return SimpleNamespace(grid=grid, final=p, p=p[None], t=np.array([t]))


def histogram(counts, edges, **outside):
    return SimpleNamespace(counts=np.asarray(counts), edges=np.asarray(edges), **outside)


NORMAL = solved(ndtr)


def repeated(rho, n, repetitions, seed):
    """Comparisons of exact draws: multinomial counts are the histograms of n samples of rho."""
    rng = np.random.default_rng(seed)
    q = rho.final * np.diff(rho.grid.edges)
    counts = rng.multinomial(n, q / q.sum(), size=repetitions)
    return [compare(histogram(c, rho.grid.edges), rho) for c in counts]


@pytest.fixture(scope="module")
def null():
    """Many comparisons under the null: fine cells, and coarse cells with few samples."""
    return repeated(NORMAL, 20_000, 400, seed=1), repeated(solved(ndtr, n_cells=200), 300, 400, seed=2)


# Known values


def test_distances_by_hand():
    rho = solved(lambda x: x, 0.0, 1.0, n_cells=4)
    found = compare(histogram([30, 20, 40, 10], rho.grid.edges), rho)
    share, q, n = np.array([0.3, 0.2, 0.4, 0.1]), 0.25, 100
    assert found.l1 == pytest.approx(0.05 + 0.05 + 0.15 + 0.15)
    assert found.kl == pytest.approx(float(np.sum(share * np.log(share / q))))
    assert found.ks == pytest.approx(0.15)  # |F_n − F| = 0.05, 0, 0.15 at the inner edges
    assert found.wasserstein == pytest.approx(0.25 * (0.05 + 0.0 + 0.15))
    assert found.kl_floor == pytest.approx(3 / (2 * n) + (4 / q - 1) / (12 * n**2))
    assert found.kl_sd == pytest.approx(math.sqrt(2 * 3) / (2 * n))
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    mean, variance = 0.5, float(np.mean((centres - 0.5) ** 2))
    assert found.mean_z == pytest.approx(float(share @ centres - mean) / math.sqrt(variance / n))
    fourth = float(np.mean(((centres - 0.5) ** 2 - variance) ** 2))
    assert found.variance_z == pytest.approx(float(share @ (centres - 0.5) ** 2 - variance) / math.sqrt(fourth / n))
    # Pearson's statistic is n Σ (share − q)²/q = 20, on three degrees of freedom
    x = 20.0
    tail = math.erfc(math.sqrt(x / 2)) + math.sqrt(2 * x / math.pi) * math.exp(-x / 2)
    assert found.chi2_pvalue == pytest.approx(tail, rel=1e-9)
    assert found.n == 100
    assert found.n_cells == 4


def test_wasserstein_of_a_shift_is_the_shift():
    x = np.random.default_rng(3).standard_normal(400_000)
    assert compare(x + 0.5, NORMAL).wasserstein == pytest.approx(0.5, abs=0.01)
    assert compare(1.5 * x, NORMAL).wasserstein == pytest.approx(0.5 * math.sqrt(2 / math.pi), abs=0.01)


@pytest.mark.parametrize("n", [100, 1000, 10**6])
def test_mean_deviation_is_the_binomial_sum(n):
    q = np.array([0.0, 1e-9, 1e-5, 0.003, 0.02, 0.3, 0.5, 0.77, 0.999, 1.0])
    k = np.arange(n + 1)
    exact = [float(binom.pmf(k, n, one) @ np.abs(k / n - one)) for one in q]
    np.testing.assert_allclose(distances.mean_deviation(n, q), exact, rtol=2e-5, atol=1e-15)


def test_mean_deviation_of_many_samples_has_no_cancellation():
    q = np.array([1e-12, 1e-9, 1e-5 * (1 - 1e-9), 0.25])
    found = distances.mean_deviation(10**9, q)
    exact = [
        2 * q[0] * math.exp(-1e-3),
        2e-9 * math.exp(-1),
        *np.sqrt(2 * q[2:] * (1 - q[2:]) / (np.pi * 1e9)),
    ]
    np.testing.assert_allclose(found, exact, rtol=1e-4)


# The floors


@pytest.mark.parametrize("name", ["l1", "kl", "ks", "wasserstein"])
@pytest.mark.parametrize("many", [True, False])
def test_floors_are_the_mean_and_spread_of_exact_draws(null, name, many):
    runs = null[0 if many else 1]
    values = np.array([getattr(c, name) for c in runs])
    floor, sd = getattr(runs[0], name + "_floor"), getattr(runs[0], name + "_sd")
    # 16 tests of mean and spread; 5 standard errors each. KS on a lattice is known to 2 %
    slack = 0.02 * floor if name == "ks" else 0.0
    assert abs(values.mean() - floor) < 5 * sd / math.sqrt(values.size) + slack
    assert abs(values.std() / sd - 1) < 0.2


def test_floor_is_not_the_floor_of_another_size():
    """Negative control: floors of twice the samples are seen to be wrong by the test above."""
    runs = repeated(NORMAL, 10_000, 200, seed=4)
    other = compare(np.random.default_rng(5).standard_normal(20_000), NORMAL, cells=runs[0].n_cells)
    for name in ("l1", "kl", "ks", "wasserstein"):
        values = np.array([getattr(c, name) for c in runs])
        off = abs(values.mean() - getattr(other, name + "_floor"))
        assert off > 5 * getattr(other, name + "_sd") / math.sqrt(values.size) + 0.02 * values.mean()


def test_l1_spread_of_few_cells_knows_that_they_are_correlated():
    q, n = np.array([0.5, 0.3, 0.2]), 1000
    counts = np.random.default_rng(23).multinomial(n, q, size=40_000)
    values = np.abs(counts / n - q).sum(axis=1)
    _, floor, sd = distances.l1(distances.Cells(q, counts[0], n))
    assert values.mean() == pytest.approx(floor, rel=0.015)
    assert values.std() == pytest.approx(sd, rel=0.03)  # 0.19 less if the cells were independent


def test_floor_falls_as_the_root_of_n():
    x = np.random.default_rng(6).standard_normal(400_000)
    few, many = (compare(x[:n], NORMAL, cells=100) for n in (4_000, 400_000))
    for name in ("l1", "ks", "wasserstein"):
        assert getattr(few, name + "_floor") / getattr(many, name + "_floor") == pytest.approx(10, rel=0.01)
    assert few.kl_floor / many.kl_floor == pytest.approx(100, rel=0.3)  # more cells count as n grows


# Levels and power


@pytest.mark.parametrize("name", ["chi2_pvalue", "ks_pvalue"])
@pytest.mark.parametrize("many", [True, False])
def test_p_values_are_uniform_under_the_null(null, name, many):
    values = np.sort([getattr(c, name) for c in null[0 if many else 1]])
    n = values.size
    deviation = np.abs(values - (np.arange(n) + 0.5) / n).max()
    assert deviation < math.sqrt(math.log(2 / 1e-4) / (2 * n))


def test_z_scores_are_standard_normal_under_the_null(null):
    for runs in null:
        for name in ("mean_z", "variance_z"):
            z = np.array([getattr(c, name) for c in runs])
            assert abs(z.mean()) < 5 / math.sqrt(z.size)
            assert abs(z.std() - 1) < 5 / math.sqrt(z.size)


def test_samples_of_the_density_are_within_noise(null):
    assert all(c.within_noise for runs in null for c in runs)  # 800 runs at level 1e-4


def test_level_is_not_below_alpha_by_an_error_of_the_limits(null):
    """At alpha = 0.7 each measure has level 0.1: some are refused, and not more than alpha allows."""
    rng = np.random.default_rng(7)
    q = NORMAL.final * np.diff(NORMAL.grid.edges)
    runs = [compare(histogram(c, NORMAL.grid.edges), NORMAL, alpha=0.7) for c in rng.multinomial(5000, q, 300)]
    for name in ("kl", "chi2_pvalue", "mean_z", "variance_z"):
        refused = sum(name in c.beyond_noise for c in runs)
        assert 10 < refused < 60  # 30 expected, binomial: beyond 4 standard deviations either way
    for name in ("l1", "ks", "wasserstein"):  # inequalities: at most the level
        assert sum(name in c.beyond_noise for c in runs) < 50


@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        (lambda x: 1.02 * x, {"variance_z", "chi2_pvalue"}),
        (lambda x: 0.98 * x, {"variance_z", "chi2_pvalue"}),
        (lambda x: x + 0.02, {"mean_z", "ks"}),
        (lambda x: np.sign(x) * np.abs(x) ** 1.05, {"chi2_pvalue", "kl"}),
        (lambda x: np.where(np.abs(x) < 0.1, np.abs(x), x), {"l1", "kl", "chi2_pvalue"}),
    ],
)
def test_small_errors_are_found(change, found_by):
    x = np.random.default_rng(8).standard_normal(200_000)
    assert compare(x, NORMAL).within_noise  # the control: the same draws, unchanged
    assert found_by <= set(compare(change(x), NORMAL).beyond_noise)


def test_limits_are_the_stated_inequalities():
    found = compare(np.random.default_rng(25).standard_normal(5000), NORMAL)
    a, n = FAMILY / 7, 5000
    assert found.limits["l1"] == pytest.approx(found.l1_floor + math.sqrt(2 * math.log(1 / a) / n))
    assert found.limits["ks"] == pytest.approx(math.sqrt(math.log(2 / a) / (2 * n)))
    assert found.limits["wasserstein"] == pytest.approx(  # the standard deviation of rho is 1
        found.wasserstein_floor + math.sqrt(2 * math.log(1 / a) / n), rel=1e-3
    )
    assert found.limits["chi2_pvalue"] == a
    assert found.limits["mean_z"] == pytest.approx(4.34, abs=0.01)


def test_an_error_below_the_stated_power_is_not_found():
    x = np.random.default_rng(9).standard_normal(10_000)
    assert compare(x + 0.005, NORMAL).within_noise
    assert not compare(x + 0.09, NORMAL).within_noise


def test_declared_bias_allows_for_the_error_and_for_no_more():
    x = np.random.default_rng(10).standard_normal(400_000)
    edges = NORMAL.grid.edges
    off = 0.02  # N(0.02, 1) against N(0, 1): (∫ (δp)²/p)^½ = (e^{δ²} − 1)^½ = 0.02
    shifted = solved(lambda x: ndtr(x - off))
    q, wrong = (r.final * np.diff(edges) for r in (shifted, NORMAL))
    true = math.sqrt(np.sum((q - wrong) ** 2 / wrong))
    assert true == pytest.approx(math.sqrt(math.expm1(off**2)), rel=1e-3)
    assert not compare(x + off, NORMAL).within_noise
    assert compare(x + off, NORMAL, bias=1.01 * true).within_noise
    assert compare(x + off, NORMAL, bias=1.01 * true).chi2_pvalue > 1e-3
    assert not compare(x + 2 * off, NORMAL, bias=1.01 * true).within_noise


def test_p_values_with_the_true_bias_are_uniform():
    rng = np.random.default_rng(24)
    edges = NORMAL.grid.edges[::10]
    cdf = {"true": ndtr(edges - 0.05), "solved": ndtr(edges)}
    q, wrong = (np.diff(f) / (f[-1] - f[0]) for f in cdf.values())
    bias = math.sqrt(np.sum((q - wrong) ** 2 / wrong))
    rho = solved(ndtr, n_cells=100)
    runs = [compare(histogram(c, edges), rho, bias=bias) for c in rng.multinomial(20_000, q, 200)]
    p = np.array([c.chi2_pvalue for c in runs])
    assert abs(p.mean() - 0.5) < 0.08  # 4 standard errors
    assert all(c.within_noise for c in runs)


# What may stand on either side


def test_cells_are_those_of_numpy_histogram():
    rng = np.random.default_rng(11)
    edges = NORMAL.grid.edges
    x = np.concatenate([rng.standard_normal(300_000), edges, edges[1:-1] - 1e-15, np.nextafter(edges, -9)])
    inside = x[(x >= edges[0]) & (x <= edges[-1])]
    expected, _ = np.histogram(inside, edges)
    found = compare(x, NORMAL, cells=1000)
    np.testing.assert_array_equal(np.round(found.observed * found.n), expected)
    assert found.n == x.size
    assert found.n_outside == x.size - inside.size == 1


def test_one_answer_for_every_form_of_the_samples():
    x = np.random.default_rng(12).standard_normal(20_000).astype(np.float32)
    paths = SimpleNamespace(final=x, t=np.array([0.0, 1.0]), x=np.stack([0 * x, x], axis=1))
    counts, edges = np.histogram(x.astype(float), NORMAL.grid.edges)
    forms = [
        x.astype(np.float64),
        x[:, None],
        list(x),
        paths,
        histogram(counts, edges),
        histogram([counts * 0, counts], edges, outside=[0, 0], t=[0.0, 1.0]),
    ]
    reference = compare(x, NORMAL)
    assert all(compare(form, NORMAL) == reference for form in forms)
    two = np.stack([np.ones_like(x), x], axis=1)
    assert compare(two, NORMAL, component=1) == reference
    assert compare(np.repeat(x, 3)[::3], NORMAL) == reference


def test_paths_are_taken_at_the_time_of_the_density():
    x = np.random.default_rng(13).standard_normal((5000, 3)) * [0.5, 1.0, 2.0]
    paths = SimpleNamespace(x=x, final=x[:, -1], t=np.array([0.5, 1.0, 2.0]))
    assert compare(paths, NORMAL).within_noise  # t = 1 is in the middle of the paths' times
    last = solved(lambda x: ndtr(x / 2), -12, 12, t=2.0)
    last.p, last.t = np.stack([NORMAL.final, last.final]), np.array([1.0, 2.0])
    assert compare(paths, last).within_noise
    assert compare(paths, last).time == 2.0
    wrong = compare(paths, SimpleNamespace(grid=NORMAL.grid, t=last.t, p=last.p, final=last.final), time=0)
    assert wrong.within_noise
    assert wrong.time == 1.0
    with pytest.raises(ValueError, match=r"paths must hold the time of rho, t = 3, got times from 0\.5 to 2;"):
        compare(paths, solved(ndtr, t=3.0))


def test_marginal_of_a_density_of_two_dimensions():
    other = solved(lambda x: x, 0.0, 2.0, n_cells=30)
    p = np.outer(NORMAL.final, other.final)
    rho = SimpleNamespace(grid=SimpleNamespace(edges=(NORMAL.grid.edges, other.grid.edges)), final=p, t=[1.0])
    rng = np.random.default_rng(14)
    x = np.stack([rng.standard_normal(50_000), rng.uniform(0, 2, 50_000)], axis=1)
    assert compare(x, rho, component=0).within_noise
    assert compare(x, rho, component=1).within_noise
    assert not compare(x[:, ::-1], rho, component=1).within_noise
    with pytest.raises(ValueError, match=r"shape \(50000,\), a 2-D density needs \(n, 2\); .*component=0"):
        compare(x[:, 0], rho)


def test_distribution_function_instead_of_a_density():
    x = np.random.default_rng(15).standard_normal(100_000)
    exact, grid = compare(x, ndtr), compare(x, NORMAL)
    assert exact.within_noise
    assert exact.ks == pytest.approx(grid.ks, rel=0.1)
    assert exact.wasserstein == pytest.approx(grid.wasserstein, rel=0.05)
    assert not compare(1.02 * x, SimpleNamespace(cdf=ndtr)).within_noise
    counts, edges = np.histogram(x, np.linspace(-4, 4, 81))
    out = histogram(counts, edges, outside=int((np.abs(x) > 4).sum()))
    assert compare(out, ndtr).within_noise


def test_heavy_tails_against_a_distribution_function():
    x = np.random.default_rng(16).standard_cauchy(100_000)

    def cdf(x):
        return 0.5 + np.arctan(x) / np.pi

    found = compare(x, cdf)
    assert found.within_noise
    assert found.n_outside > 1000  # a Cauchy sample has 1.6 % beyond 40
    assert not compare(1.06 * x, cdf).within_noise


def test_histogram_is_taken_at_the_time_of_the_density():
    x = np.random.default_rng(22).standard_normal(50_000)
    counts = [np.histogram(s * x, NORMAL.grid.edges)[0] for s in (0.5, 1.0, 1.2)]
    three = histogram(counts, NORMAL.grid.edges, outside=[0, 0, 0], t=np.array([0.5, 1.0, 2.0]))
    assert compare(three, NORMAL).within_noise
    stationary = solved(ndtr, t=np.inf)
    assert not compare(three, stationary).within_noise  # the last of the histograms
    last = histogram(counts[:2], NORMAL.grid.edges, outside=[0, 0], t=np.array([0.5, 2.0]))
    assert compare(last, stationary).within_noise
    with pytest.raises(ValueError, match="histogram must hold the time of rho, t = 1"):
        compare(last, NORMAL)
    joint = SimpleNamespace(counts=np.ones((1, 3, 3)), edges=(np.arange(4), np.arange(4)))
    with pytest.raises(ValueError, match=r"the histogram has 2 components.*components=0"):
        compare(joint, NORMAL)


def test_coarser_histogram_uses_the_shared_edges():
    x = np.random.default_rng(17).standard_normal(50_000)
    counts, edges = np.histogram(x, np.linspace(-6, 6, 251))  # every fourth edge of the grid
    assert compare(histogram(counts, edges), NORMAL).within_noise
    assert not compare(histogram(np.roll(counts, 1), edges), NORMAL).within_noise
    narrow, edges = np.histogram(x, np.linspace(-3, 3, 501))  # half the range of the grid
    outside = int((np.abs(x) > 3).sum())
    found = compare(histogram(narrow, edges, outside=outside), NORMAL)
    assert found.within_noise
    assert found.n_outside == outside
    assert not compare(histogram(narrow, edges, outside=outside + 150), NORMAL).within_noise
    assert found.expected_outside == pytest.approx(50_000 * 2 * ndtr(-3), rel=1e-3)
    with pytest.raises(ValueError, match=r"share edges with the grid, 0 of its 72 do; give it the range \(-6, 6\)"):
        compare(histogram(np.ones(71) * 10, np.linspace(-5.003, 5.001, 72)), NORMAL)


def test_samples_outside_the_grid_are_counted():
    x = np.random.default_rng(18).standard_normal(20_000)
    narrow = solved(ndtr, -6.0, 1.5)  # the law of reflected paths, say: no mass is beyond 1.5
    found = compare(x, narrow)
    assert found.n_outside == int((x > 1.5).sum())
    assert found.expected_outside == pytest.approx(0, abs=1e-6)
    assert not found.within_noise
    assert f"outside the grid {found.n_outside} (expected" in str(found)


def test_absorbed_paths_stand_against_the_lost_mass():
    rng = np.random.default_rng(19)
    survivors = rng.standard_normal(70_000)
    rho = solved(ndtr, mass=0.7)
    assert compare(survivors, rho, absorbed=30_080).within_noise
    assert {"l1", "ks", "chi2_pvalue"} <= set(compare(survivors, rho, absorbed=27_000).beyond_noise)
    assert "ks" in compare(survivors, rho, absorbed=28_500).beyond_noise
    assert not compare(survivors, rho).within_noise
    stuck = np.concatenate([survivors, np.full(20_000, -7.0), np.full(10_080, 7.0)])
    assert compare(stuck, rho) == compare(survivors, rho, absorbed=30_080)
    assert "variance_z" in compare(1.03 * survivors, rho, absorbed=30_080).beyond_noise


def test_point_mass_and_equal_laws():
    rho = solved(lambda x: (x >= 0.005) * 1.0)
    assert compare(np.full(1000, 0.001), rho).within_noise
    off = compare(np.full(1000, 1.0), rho)
    assert off.l1 == pytest.approx(2.0)
    assert not off.within_noise


def test_cells_follow_the_density_and_the_number_of_samples():
    x = np.random.default_rng(20).standard_normal(100_000)
    assert compare(x[:200], NORMAL).n_cells < compare(x, NORMAL).n_cells <= 250
    wide = solved(ndtr, -60.0, 60.0, 10_000)
    assert compare(x, wide).n_cells > 1000  # cells of the same width, most of them empty
    assert compare(x, wide).l1_floor == pytest.approx(compare(x, NORMAL).l1_floor, rel=0.1)
    assert compare(x, NORMAL, cells=40).n_cells == 40


# Printing and refusing


def test_text_names_each_distance_with_its_floor():
    x = np.random.default_rng(21).standard_normal(50_000)
    text = str(compare(x, NORMAL))
    assert text.splitlines()[0].startswith("50000 samples against the density at t = 1, ")
    assert "L1          0.0" in text
    assert text.count("noise floor") == 4
    assert "±" in text
    assert text.endswith("within noise (level 0.0001)")
    bad = compare(1.05 * x, NORMAL, bias=0.001)
    assert str(bad).endswith(f"beyond noise: {', '.join(bad.beyond_noise)} (level 0.0001, declared bias 0.001)")
    assert "array" not in repr(bad)


def test_comparison_begins_with_its_five_numbers():
    names = list(Comparison.__dataclass_fields__)
    assert names[:6] == ["l1", "kl", "ks", "wasserstein", "chi2_pvalue", "n"]
    with pytest.raises(AttributeError):
        compare(np.linspace(-3, 3, 200), NORMAL).l1 = 0.0


GOOD = np.linspace(-3, 3, 200)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: compare(GOOD[:20], NORMAL), ValueError, r"must hold >= 100 samples, got 20"),
        (
            lambda: compare(histogram(np.zeros(1000), NORMAL.grid.edges), NORMAL),
            ValueError,
            r">= 100 samples, got 0",
        ),
        (
            lambda: compare(np.where(np.arange(200) == 7, np.nan, GOOD), NORMAL),
            ValueError,
            r"samples must be finite, got nan at index 7 \(1 non-finite in all\)",
        ),
        (lambda: compare(np.where(np.arange(200) > 7, np.inf, GOOD), ndtr), ValueError, "got inf at index 8"),
        (
            lambda: compare(np.ones((200, 3)), NORMAL),
            ValueError,
            r"shape \(200, 3\).*3 components with component=0",
        ),
        (lambda: compare(np.ones((200, 3)), NORMAL, component=3), ValueError, "component must be < 3, got 3"),
        (lambda: compare(np.ones((200, 3, 2)), NORMAL), ValueError, r"shape \(200, 3, 2\), expected \(n,\)"),
        (lambda: compare(GOOD.astype(complex), NORMAL), TypeError, "real numbers, got dtype complex128"),
        (lambda: compare(GOOD, GOOD), TypeError, r"rho must be a density.*cdf\(x\), got ndarray"),
        (lambda: compare(GOOD, solved(ndtr, mass=1.3)), ValueError, r"probability <= 1, got mass 1\.3"),
        (lambda: compare(GOOD, solved(lambda x: 2 * x**2 + x)), ValueError, "rho must be >= 0, cell 0 holds"),
        (lambda: compare(GOOD, lambda x: x), ValueError, r"cdf\(x\) must increase from 0 to 1"),
        (lambda: compare(GOOD, lambda x: 0.5), ValueError, r"cdf\(x\) must return the shape of x"),
        (lambda: compare(np.ones(200), ndtr), ValueError, "must not all be equal, got 1"),
        (lambda: compare(GOOD, NORMAL, time=0.5), TypeError, "time must be an integer, the index"),
        (lambda: compare(GOOD, NORMAL, time=4), ValueError, "index into the 1 saved times of rho, got 4"),
        (lambda: compare(GOOD, NORMAL, cells=1001), ValueError, "cells must be <= 1000"),
        (lambda: compare(GOOD, NORMAL, alpha=0), ValueError, "alpha must be > 0"),
        (lambda: compare(GOOD, NORMAL, alpha=2), ValueError, "alpha must be < 1"),
        (lambda: compare(GOOD, NORMAL, bias=-1), ValueError, "bias must be >= 0"),
        (lambda: compare(GOOD, NORMAL, absorbed=-1), ValueError, "absorbed must be >= 0"),
        (
            lambda: compare(histogram([1.5] * 1000, NORMAL.grid.edges), NORMAL),
            ValueError,
            "whole numbers >= 0",
        ),
        (lambda: compare(histogram([100, 200], [0, 1]), NORMAL), ValueError, "its edges make 1 cells"),
        (lambda: compare(histogram([100], [1, 0]), NORMAL), ValueError, "increasing array of edges"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refuses_a_density_that_does_not_fit_its_grid():
    rho = SimpleNamespace(grid=NORMAL.grid, final=NORMAL.final[:-1], t=NORMAL.t)
    with pytest.raises(ValueError, match=r"rho has shape \(999,\), its grid has \(1000,\) cells"):
        compare(GOOD, rho)
