"""Samples of several components against a density in the plane or in space: known values, floors, levels, power."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

import sdesim as sde
from sdesim.compare import JointComparison, compare
from sdesim.compare.counting import count_points
from sdesim.compare.measures import winding
from sdesim.core import distances
from sdesim.fokker_planck.cells import cell_averages
from sdesim.fokker_planck.grid import Grid

GRADED = Grid.graded(-5.0, 5.0, 60, near=0.0, width=1.0, finest=0.4)
PLANE = Grid.product(GRADED, Grid(-6.0, 4.0, 80))
RHO = 0.6
COV = np.array([[1.0, RHO], [RHO, 1.0]])


def solved(grid, density, mass=1.0):
    """A density as the solver returns it."""
    p = cell_averages(grid, density, n_points=4)
    p *= mass / (p * grid.cell_volume).sum()
    return SimpleNamespace(grid=grid, final=p, p=p[None], t=np.array([1.0]))


def correlated(grid, rho=RHO):
    def density(x, y):
        return np.exp(-(x * x - 2 * rho * x * y + y * y) / (2 * (1 - rho**2)))

    return solved(grid, density)


PAIR = correlated(PLANE)


def draws(n, seed, rho=RHO, d=2):
    z = np.random.default_rng(seed).standard_normal((n, d))
    z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
    return z


def histogram(counts, edges, **outside):
    return SimpleNamespace(counts=np.asarray(counts), edges=tuple(edges), **outside)


def repeated(n, repetitions, seed, **options):
    rng = np.random.default_rng(seed)
    q = (PAIR.final * PLANE.cell_volume).ravel()
    counts = rng.multinomial(n, q / q.sum(), size=repetitions).reshape(repetitions, *PLANE.shape)
    return [compare(histogram(c, PLANE.edges), PAIR, **options) for c in counts]


@pytest.fixture(scope="module")
def null():
    return repeated(20_000, 200, seed=1)


def test_distances_by_hand():
    grid = Grid((0.0, 0.0), (3.0, 3.0), 3)
    q = np.array([[4.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 4.0]]) / 22
    rho = SimpleNamespace(grid=grid, final=q, p=q[None], t=[0.0])
    counts = np.array([[50, 10, 15], [25, 30, 20], [5, 25, 40]])
    n, share = 220, counts / 220
    found = compare(histogram(counts, grid.edges), rho, cells=3)
    assert isinstance(found, JointComparison)
    assert found.l1 == pytest.approx(np.abs(share - q).sum())
    assert found.kl == pytest.approx(np.sum(share * np.log(share / q)))
    assert found.kl_floor == pytest.approx(8 / (2 * n) + (np.sum(1 / q) - 1) / (12 * n**2))
    assert found.l1_floor == pytest.approx(distances.mean_deviation(n, q.ravel()).sum())
    assert (found.n, found.n_cells, found.n_outside) == (220, 9, 0)
    assert found.ks == pytest.approx(max(np.abs(np.cumsum((share - q).sum(axis=k))).max() for k in (0, 1)))
    x = np.array([-1.0, 0.0, 1.0])
    product = np.outer(x, x)
    mean = np.sum(q * product)
    sd = math.sqrt(np.sum(q * (product - mean) ** 2) / n)
    assert found.covariance_z == pytest.approx((np.sum(share * product) - mean) / sd)
    np.testing.assert_allclose(found.observed, share)
    np.testing.assert_allclose(found.expected, q)
    assert [e.tolist() for e in found.edges] == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("name", ["l1", "kl", "ks", "wasserstein"])
def test_floors_are_the_mean_and_spread_of_exact_draws(null, name):
    of = null if name in ("l1", "kl") else [one for found in null for one in found.marginals]
    values = np.array([getattr(c, name) for c in of])
    z = np.array([(getattr(c, name) - getattr(c, name + "_floor")) / getattr(c, name + "_sd") for c in of])
    slack = 0.02 * values.mean() / getattr(of[0], name + "_sd") if name == "ks" else 0.0
    assert abs(z.mean()) < 5 / math.sqrt(len(null)) + slack
    assert abs(z.std() - 1) < 0.2


def test_p_value_and_covariance_have_their_laws_under_the_null(null):
    p = np.sort([c.chi2_pvalue for c in null])
    deviation = np.abs(p - (np.arange(p.size) + 0.5) / p.size).max()
    assert deviation < math.sqrt(math.log(2 / 1e-4) / (2 * p.size))
    z = np.array([c.covariance_z for c in null])
    assert abs(z.mean()) < 5 / math.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / math.sqrt(2 * z.size)


def test_samples_of_the_density_are_within_noise(null):
    assert all(c.within_noise for c in null)


def test_the_level_is_shared_by_all_measures():
    """At alpha = 0.96 each of the 12 measures has level 0.08."""
    runs = repeated(5_000, 300, seed=7, alpha=0.96)
    for name in ("kl", "chi2_pvalue", "covariance_z"):
        assert 7 < sum(name in c.beyond_noise for c in runs) < 48  # 24 expected; 3.5 sd below, 5 above
    for name in ("mean_z", "variance_z"):  # the worse of two components
        assert 20 < sum(name in c.beyond_noise for c in runs) < 78
    for name in ("l1", "ks", "wasserstein"):
        assert sum(name in c.beyond_noise for c in runs) < 60
    limits, level = runs[0].limits, 0.08
    assert limits["chi2_pvalue"] == pytest.approx(level)
    assert limits["ks"] == pytest.approx(math.sqrt(math.log(2 / level) / 10_000))
    assert limits["l1"] == pytest.approx(runs[0].l1_floor + math.sqrt(2 * math.log(1 / level) / 5_000))
    for name in ("mean_z", "variance_z", "covariance_z"):
        assert limits[name] == pytest.approx(-ndtri(level / 2), abs=0.1)


@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        (lambda x: x * [1.0, -1.0], {"l1", "kl", "chi2_pvalue", "covariance_z"}),
        (lambda x: x + np.array([0.0, 0.03]), {"mean_z"}),
        (lambda x: x * [1.03, 1.0], {"variance_z"}),
        (lambda x: np.where(np.abs(x).max(axis=1, keepdims=True) < 0.3, np.abs(x), x), {"chi2_pvalue"}),
    ],
)
def test_errors_are_found(change, found_by):
    x = draws(100_000, seed=8)
    assert compare(x, PAIR).within_noise  # the control: the same draws, unchanged
    assert found_by <= set(compare(change(x), PAIR).beyond_noise)


def test_a_wrong_correlation_with_right_marginals_is_found():
    x = draws(100_000, seed=3, rho=RHO - 0.05)
    found = compare(x, PAIR)
    assert all(one.within_noise for one in found.marginals)
    assert {"covariance_z", "chi2_pvalue"} <= set(found.beyond_noise)
    assert not {"ks", "wasserstein", "mean_z", "variance_z"} & set(found.beyond_noise)


def test_a_wrong_dependence_without_correlation_is_found():
    """The sign of a product decides: all pairs are uncorrelated normal variables."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((50_000, 2))
    independent = correlated(PLANE, 0.0)
    assert compare(x, independent).within_noise
    x[:, 1] = np.abs(x[:, 1]) * np.where(np.abs(x[:, 0]) < 0.6745, 1.0, -1.0)  # the median of |x|
    found = compare(x, independent)
    assert all(one.within_noise for one in found.marginals)
    assert abs(found.covariance_z) < found.limits["covariance_z"]
    assert {"l1", "kl", "chi2_pvalue"} <= set(found.beyond_noise)


def test_three_dimensions():
    grid = Grid((-5.0, -5.0, 0.0), (5.0, 5.0, 2.0), (40, 50, 12))
    rho = solved(grid, lambda x, y, z: np.exp(-(x * x - 1.2 * x * y + y * y) / 1.28) + 0.0 * z)
    x = draws(60_000, seed=5, d=3)
    x[:, 2] = np.random.default_rng(6).uniform(0, 2, len(x))
    found = compare(x, rho)
    assert found.within_noise
    assert len(found.marginals) == 3
    assert found.limits["chi2_pvalue"] == pytest.approx(1e-4 / 18)
    turned = x.copy()
    turned[:, 0] = np.where(x[:, 2] > 1.0, x[:, 0], -x[:, 0])  # the dependence of x and y turns with z
    assert not compare(turned, rho).within_noise
    assert compare(x[:, [0]], rho, component=0).within_noise


def test_one_answer_for_every_form_of_the_samples():
    x = draws(20_000, seed=9)
    paths = SimpleNamespace(final=2 * x, t=np.array([0.0, 1.0, 2.0]), x=np.stack([0 * x, x, 2 * x], axis=1))
    counts, _ = np.histogramdd(x, PLANE.edges)
    outside = len(x) - int(counts.sum())
    forms = [
        [tuple(row) for row in x],
        np.asfortranarray(x),
        paths,
        histogram(counts, PLANE.edges, outside=outside),
        histogram([0 * counts, counts], PLANE.edges, outside=[0, outside], t=[0.0, 1.0]),
    ]
    reference = compare(x, PAIR)
    assert all(compare(form, PAIR) == reference for form in forms)
    np.testing.assert_allclose(compare(x, PAIR, cells=PLANE.shape).observed * len(x), counts, rtol=1e-12)
    assert compare(x.astype(np.float32), PAIR).within_noise


def test_a_marginal_is_the_comparison_of_the_component():
    x = np.clip(draws(20_000, seed=10), -3.9, 3.9)  # inside the grid: a joint outside has no side
    counts, _ = np.histogramdd(x, PLANE.edges)
    joint = compare(x, PAIR)
    for k in (0, 1):
        alone = compare(x, PAIR, component=k)
        assert joint.marginals[k].ks == pytest.approx(alone.ks)
        assert joint.marginals[k].l1 == pytest.approx(alone.l1)
        assert joint.marginals[k].mean_z == pytest.approx(alone.mean_z)
        assert compare(histogram(counts, PLANE.edges), PAIR, component=k).l1 == pytest.approx(alone.l1)


def test_coarser_and_narrower_histograms():
    x = draws(50_000, seed=11)
    grid = Grid((-6.0, -6.0), (6.0, 6.0), 120)
    rho = correlated(grid)
    edges = (np.linspace(-6, 6, 41), np.linspace(-3, 3, 31))
    counts, _ = np.histogramdd(x, edges)
    inside = histogram(counts, edges, outside=len(x) - int(counts.sum()))
    found = compare(inside, rho)
    assert found.within_noise
    assert found.n_outside == len(x) - int(counts.sum())
    assert found.expected_outside == pytest.approx(2 * len(x) * ndtr(-3), rel=1e-2)
    assert not compare(histogram(np.roll(counts, 1, axis=1), edges, outside=inside.outside), rho).within_noise
    assert not compare(histogram(counts, edges, outside=inside.outside + 200), rho).within_noise
    with pytest.raises(ValueError, match="must share edges with the grid, 0 of its 31 do"):
        compare(histogram(counts, (edges[0], edges[1] + 0.03)), rho)


def test_absorbed_paths_stand_against_the_lost_mass():
    survivors = draws(70_000, seed=12)
    rho = SimpleNamespace(grid=PLANE, final=0.7 * PAIR.final, p=0.7 * PAIR.p, t=PAIR.t)
    found = compare(survivors, rho, absorbed=30_080)
    assert found.within_noise
    assert found.expected_outside == pytest.approx(30_000, rel=1e-3)
    assert not compare(survivors, rho, absorbed=27_000).within_noise
    assert not compare(survivors, rho).within_noise
    stuck = np.concatenate([survivors, np.full((30_080, 2), 9.0)])
    assert compare(stuck, rho) == found


def test_cells_follow_the_law_and_the_number_of_samples():
    few, many = compare(draws(300, seed=13), PAIR), compare(draws(100_000, seed=13), PAIR)
    assert few.n_cells < many.n_cells
    assert many.n_cells == math.prod(many.observed.shape)
    assert 100 < many.n_cells * filled(many.expected) < 512
    assert compare(draws(1000, seed=14), PAIR, cells=(5, 7)).observed.shape == (5, 7)


def filled(q):
    """The part of the cells that the law fills."""
    q = q[q > 0]
    return math.exp(-float(q @ np.log(q))) / q.size


def test_bias_allows_for_the_error_of_the_density():
    x = draws(200_000, seed=15, rho=RHO + 0.02)
    exact, wrong = (multivariate_normal([0, 0], [[1, r], [r, 1]]).pdf for r in (RHO + 0.02, RHO))
    points = np.stack(np.meshgrid(*PLANE.centers, indexing="ij"), axis=-1)
    true = math.sqrt(((exact(points) - wrong(points)) ** 2 / wrong(points) * PLANE.cell_volume).sum())
    assert not compare(x, PAIR).within_noise
    assert compare(x, PAIR, bias=1.01 * true).within_noise
    assert not compare(draws(200_000, seed=15, rho=RHO + 0.06), PAIR, bias=1.01 * true).within_noise


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_a_winding_path_visits_all_boxes_neighbour_by_neighbour(shape):
    path = winding(tuple(shape))
    assert sorted(path) == list(range(math.prod(shape)))
    places = np.stack(np.unravel_index(path, shape), axis=1)
    assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_counts_are_those_of_numpy(seed, d):
    rng = np.random.default_rng(seed)
    axes = tuple(np.sort(rng.choice(np.linspace(-2, 2, 401), 8, replace=False)) for _ in range(d))
    x = rng.standard_normal((300, d))
    x[::5] = np.stack([rng.choice(edges, len(x[::5])) for edges in axes], axis=1)  # on the edges themselves
    counts, outside = count_points(x, axes)
    expected, _ = np.histogramdd(x, axes)
    np.testing.assert_array_equal(counts, expected)
    assert outside == len(x) - expected.sum()


def test_text_names_the_boxes_and_the_components():
    text = str(compare(draws(50_000, seed=16), PAIR))
    lines = text.splitlines()
    assert lines[0].startswith("50000 samples against the density at t = 1, ")
    assert " boxes; outside the grid" in lines[0]
    assert "covariance" in text
    assert sum(line.startswith("  component ") for line in lines) == 2
    assert lines[-1].endswith("within noise (level 0.0001)")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(np.ones((200, 3)), PAIR), r"shape \(200, 3\), a 2-D density needs \(n, 2\)"),
        (lambda: compare(np.ones((50, 2)), PAIR), "must hold >= 100 samples, got 50"),
        (lambda: compare(np.full((200, 2), np.nan), PAIR), r"got nan at index \(0, 0\) \(400 non-finite in all\)"),
        (lambda: compare(np.ones((200, 2)), PAIR, component=2), "component must be < 2, got 2"),
        (lambda: compare(np.ones((200, 2)), PAIR, cells=(5, 100)), "cells must be <= 80"),
        (
            lambda: compare(histogram(np.ones((3, 3, 3)), [np.arange(4.0)] * 3), PAIR),
            "the histogram has 3 components, compare needs 2",
        ),
        (
            lambda: compare(histogram(np.ones((3, 3)), [np.arange(4.0), np.arange(5.0)]), PAIR),
            r"counts has shape \(3, 3\), its edges make 3 x 4 cells",
        ),
        (
            lambda: compare(draws(200, 1), SimpleNamespace(grid=PLANE, final=-PAIR.final, t=[1.0])),
            r"rho must be >= 0, cell \(\d+, \d+\) holds",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_paths_and_the_density_of_a_rotating_spring():
    """The whole way: simulated paths and their joint histogram against the solved density, at two times."""

    def spring(rotation):
        return sde.ito(
            lambda x, t, w: (-x[0] - w * x[1], w * x[0] - x[1]), lambda x, t, w: (1.0, 0.7), dim=2, w=rotation
        )

    grid, times = sde.Grid((-3.2, -3.2), (3.2, 3.2), 128), [0.4, 1.0]
    start = sde.targets.Gaussian([1.0, 0.0], 0.09)
    rho = sde.evolve_density(spring(2.0), sde.gaussian(grid, [1.0, 0.0], 0.3), grid, (0.0, 1.0), save=times)
    paths = sde.simulate(
        spring(2.0), start, (0.0, 1.0), n_steps=200, n_paths=60_000, method="heun", save=times, seed=1,
        reduce=[sde.Histogram((-3.2, -3.2), (3.2, 3.2), (64, 64))],
    )  # fmt: skip
    for k in (0, 1):
        assert compare(paths, rho, time=k).within_noise
        assert compare(paths.reductions[0], rho, time=k).within_noise
        assert compare(paths.x[:, k], rho, time=k).l1 == compare(paths, rho, time=k).l1
    other = sde.evolve_density(spring(1.9), sde.gaussian(grid, [1.0, 0.0], 0.3), grid, (0.0, 1.0), save=times)
    assert not compare(paths, other).within_noise
