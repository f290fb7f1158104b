"""First-passage densities: closed forms, the matrix exponential, time changes, and paths."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

import sdesim as sde
from matrices import dense
from sdesim.fokker_planck import contour
from sdesim.fokker_planck.operator import Coefficients

DRIFTING = sde.ito(lambda x, t: 1.0, lambda x, t: 1.0)
EDGES = np.linspace(0.0, 3.0, 301)


def passage(t, v=1.0):
    """Densities at both walls of the first passage of v t + W_t from 0 through −1 and 1; image and sine series."""
    s = t / 4.0
    k = np.arange(-20, 21).reshape(-1, *[1] * np.ndim(t))
    with np.errstate(all="ignore"):
        image = ((0.5 + 2 * k) * np.exp(-((0.5 + 2 * k) ** 2) / (2 * s))).sum(0) / np.sqrt(2 * np.pi * s**3)
    k = np.arange(1, 21).reshape(-1, *[1] * np.ndim(t))
    sine = np.pi * (k * np.exp(-((k * np.pi) ** 2) * s / 2) * np.sin(0.5 * k * np.pi)).sum(0)
    low = np.where(s < 0.2, image, sine) / 4.0 * np.exp(-v - 0.5 * v * v * t)
    return np.stack([low, math.exp(2 * v) * low], -1)


def in_bins(edges, v=1.0):
    """Probabilities to leave in each bin, by quadrature of the series."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    half = 0.5 * np.diff(edges)
    t = 0.5 * (edges[1:] + edges[:-1])[:, None] + half[:, None] * nodes
    return np.einsum("bqs,q,b->bs", passage(t, v), weights, half)


BINS = in_bins(EDGES)


def distance(found, exact=BINS):
    return float(np.abs(np.diff(found.cdf, axis=0) - exact).sum())


def by_exponential(operator, m, times):
    """∫ e^{sA} m ds by the matrix exponential of [[A, 0], [rates, 0]]."""
    n = len(m)
    a = np.zeros((n + 2, n + 2))
    a[:n, :n] = dense(operator)
    a[n, 0], a[n + 1, n - 1] = operator.absorption
    return np.array([(expm(t * a) @ np.append(m, [0.0, 0.0]))[n:] for t in times])


# ---- the inversion in time ------------------------------------------------------------------------------------------


@given(
    slope=st.floats(-3, 3), push=st.floats(-2, 2), noise=st.floats(0.5, 2.0), x0=st.floats(-0.95, 0.95),
    walls=st.sampled_from(["absorbing", ("reflecting", "absorbing"), ("absorbing", "reflecting"), sde.Robin(0.7)]),
    first=st.floats(1e-5, 0.5), n_times=st.integers(1, 10),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_the_contour_is_the_matrix_exponential(slope, push, noise, x0, walls, first, n_times):
    grid = sde.Grid(-1, 1, 16)
    coefficients = Coefficients(lambda x, t: push + slope * x, lambda x, t: 0.5 * noise + 0 * x, grid, walls)
    operator = coefficients.at(0.0)
    m = sde.point_mass(grid, x0) * grid.cell_volume
    times = np.append(0.0, np.geomspace(first, 2.0, n_times) if n_times > 1 else [first])
    found, gap = contour.leaving(operator, m, times)
    np.testing.assert_allclose(found, by_exponential(operator, m, times), atol=2e-11)
    assert gap < 2e-11
    assert (found[0] == 0.0).all()


def test_equal_and_unequal_steps_of_time_agree():
    grid = sde.Grid(-1, 1, 60)
    operator = Coefficients(lambda x, t: 1.0, lambda x, t: 0.5, grid, "absorbing").at(0.0)
    m = sde.point_mass(grid, 0.1) * grid.cell_volume
    even = np.linspace(0.0, 2.0, 1001)
    kept = np.sort(np.random.default_rng(1).choice(np.arange(1, 1000), 300, replace=False))
    found = contour.leaving(operator, m, even)[0]
    np.testing.assert_allclose(
        contour.leaving(operator, m, even[np.append(kept, 1000)])[0][:-1], found[kept], atol=3e-12
    )


@pytest.mark.parametrize(("drift", "least", "most"), [(2.0, 0.0, 1e-10), (20.0, 1e-9, 1e-7), (40.0, 1e-2, 1e9)])
def test_a_spectrum_that_looks_complex_is_noticed(drift, least, most):
    grid = sde.Grid(-1, 1, 400)
    operator = Coefficients(lambda x, t: drift, lambda x, t: 0.5, grid, "absorbing").at(0.0)
    m = sde.point_mass(grid, -0.9) * grid.cell_volume
    found, gap = contour.leaving(operator, m, EDGES)
    assert least <= gap < most
    # and it is no smaller than the error
    stepped = sde.evolve_density(
        sde.ito(lambda x, t: drift, lambda x, t: 1.0), m / grid.cell_volume, grid, (0, 3), save=[0.05, 0.1, 0.5, 3.0],
        boundary="absorbing", method="tr_bdf2", rtol=1e-8,
    ) if drift < 10 else None  # fmt: skip
    if stepped is not None:
        np.testing.assert_allclose(found[[5, 10, 50, 300]], stepped.absorbed, atol=1e-6)


# ---- against closed forms -------------------------------------------------------------------------------------------


def test_drift_between_two_walls_is_the_series():
    # the bars of the benchmark job: 5e-4 and 4e-5 in L1 over both walls
    assert distance(sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 81), 0.0, (0, 3))) < 5e-4
    found = sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 401), 0.0, (0, 3))
    assert found.method == "contour"
    assert distance(found) < 2e-5
    assert found.density.shape == (300, 2)
    assert found.density.min() >= 0.0
    assert found.time_error < 1e-9
    np.testing.assert_allclose(found.probability, BINS.sum(0), atol=1e-6)
    np.testing.assert_allclose(found.survival, 1.0 - found.cdf.sum(1), atol=1e-15)
    assert sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 401), 0.0, (0, 20)).mean == pytest.approx(
        math.tanh(1.0), abs=5e-6
    )
    # negative controls: half the drift, or D = σ²
    for wrong in (sde.ito(lambda x, t: 0.5, lambda x, t: 1.0), sde.ito(lambda x, t: 1.0, lambda x, t: 2.0**0.5)):
        assert distance(sde.first_passage_density(wrong, sde.Grid(-1, 1, 201), 0.0, (0, 3))) > 0.1


@pytest.mark.parametrize(("richardson", "order", "cells"), [(False, 2, (50, 101, 200)), (True, 4, (40, 61, 80, 120))])
def test_order_in_the_cells_whether_the_start_is_on_a_centre_or_not(richardson, order, cells):
    errors = [
        distance(sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, n), 0.0, (0, 3), richardson=richardson))
        for n in cells
    ]
    slopes = np.log(np.divide(errors[:-1], errors[1:])) / np.log(np.divide(cells[1:], cells[:-1]))
    assert (abs(slopes - order) < 0.35).all(), slopes


def test_fine_cells_lose_no_digits():
    # pivots found by subtraction lose them like h^−2: 2e-10 on 1001 cells, 2e-9 on 4001
    for n in (1001, 4001):
        found = sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, n), 0.0, (0, 3))
        assert found.method == "contour"
        assert found.time_error < 2e-12


def test_a_time_dependent_clock_moves_the_density_along():
    # dX = c(t) dt + √c(t) dW is the drifting process at time s(t) = ∫ c
    def clock(t):
        return t + 0.4 * np.sin(2.0 * t)

    process = sde.ito(lambda x, t: 1.0 + 0.8 * np.cos(2.0 * t), lambda x, t: np.sqrt(1.0 + 0.8 * np.cos(2.0 * t)))
    edges = np.linspace(0.0, 2.0, 41)
    exact = in_bins(clock(edges))
    for options, bound in (({}, 3e-4), ({"richardson": True, "rtol": 1e-8}, 3e-6)):
        found = sde.first_passage_density(process, sde.Grid(-1, 1, 101), 0.0, (0, 2), bins=edges, **options)
        assert found.method == "magnus"
        assert math.isnan(found.time_error)
        assert distance(found, exact) < bound
    assert distance(found, in_bins(edges)) > 0.05


def test_contour_and_steps_agree_behind_walls_of_all_kinds():
    process, grid = sde.DoubleWell(barrier=2.0), sde.Grid(-2, 0.4, 120)
    for boundary in ("absorbing", ("reflecting", "absorbing"), ("reflecting", sde.Robin(2.0))):
        both = [
            sde.first_passage_density(process, grid, -1.0, (0, 4), bins=16, boundary=boundary, method=method)
            for method in ("contour", "steps")
        ]
        np.testing.assert_allclose(both[0].cdf, both[1].cdf, atol=1e-9)
        assert both[0].cdf[-1].sum() > 0.05


def test_a_drift_that_outweighs_diffusion_is_stepped():
    process = sde.ito(lambda x, t: 1.0, lambda x, t: 0.1)
    grid = sde.Grid(-1, 1, 1500)
    found = sde.first_passage_density(process, grid, -0.5, (0, 3), bins=30)
    assert found.method != "contour"
    # one wall in effect: inverse Gaussian with mean a/v and shape a²/σ²
    a, v, s2 = 1.5, 1.0, 0.01

    def normal(z):
        return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in np.atleast_1d(z)])

    t = found.t[1:]
    exact = normal((v * t - a) / np.sqrt(s2 * t)) + math.exp(2 * v * a / s2) * normal(-(v * t + a) / np.sqrt(s2 * t))
    np.testing.assert_allclose(found.cdf[1:, 1], exact, atol=8e-4)
    with pytest.raises(ValueError, match="drift outweighs diffusion too far"):
        sde.first_passage_density(process, grid, -0.5, (0, 3), method="contour")


def test_without_noise_all_arrive_together():
    found = sde.first_passage_density(
        sde.ito(lambda x, t: 1.0, lambda x, t: 0.0), sde.Grid(-1, 1, 100), lambda g: sde.gaussian(g, 0.0, 0.05), (0, 2)
    )
    assert found.method == "characteristics"
    assert found.probability[1] == pytest.approx(1.0, abs=1e-9)
    assert found.mean == pytest.approx(1.0, abs=2e-3)


# ---- the result -----------------------------------------------------------------------------------------------------


def test_quantiles_and_representation():
    found = sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 101), 0.0, (0, 3))
    left = 1.0 - found.survival
    t = found.quantile([0.1, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(np.interp(t[:3], found.t, left), [0.1, 0.5, 0.9], atol=1e-12)
    assert math.isinf(t[3])
    assert "300 bins in [0, 3], contour, 99.2" in repr(found)
    with pytest.raises(ValueError, match="q must lie in"):
        found.quantile(1.5)
    early = sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 101), 0.0, (0, 1e-4), bins=3)
    assert early.cdf.max() < 1e-12


def test_a_start_may_be_a_number_cells_or_a_function():
    grid = sde.Grid(-1, 1, 100)
    point = sde.first_passage_density(DRIFTING, grid, 0.13, (1, 2), bins=5)
    for start in (sde.point_mass(grid, 0.13), lambda g: sde.point_mass(g, 0.13), np.float64(0.13)):
        np.testing.assert_array_equal(sde.first_passage_density(DRIFTING, grid, start, (1, 2), bins=5).cdf, point.cdf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": [0, 1]}, "reach from t0 = 0 to t1 = 3, got 0 to 1"),
        ({"bins": [0, 2, 1, 3]}, "bins must increase; index 2: 1 after 2"),
        ({"bins": 0}, "bins must be >= 1"),
        ({"bins": [[0, 3]]}, "at least two edges"),
        ({"boundary": "reflecting"}, "no wall takes what reaches it"),
        ({"boundary": sde.Robin(0.0)}, "no wall takes what reaches it"),
        ({"boundary": (sde.Inflow(1.0), "absorbing")}, "Inflow lets them start later"),
        ({"method": "contours"}, "did you mean 'contour'"),
        ({"start": 1.5}, "outside the grid"),
        ({"grid": sde.Grid((-1, -1), (1, 1), 8)}, "a start in 2 dimensions is a point of 2 numbers, .* got 0.0"),
        ({"start": np.ones(7)}, "p0 has 7 values, grid has 50 cells"),
        ({"rtol": 0.0}, "rtol must be > 0"),
        ({"process": sde.ito(lambda x, t: t, lambda x, t: 1.0), "method": "contour"}, "do not depend on time"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(change, message):
    arguments = {"process": DRIFTING, "grid": sde.Grid(-1, 1, 50), "start": 0.0, "t_span": (0, 3), **change}
    with pytest.raises(ValueError, match=message):
        sde.first_passage_density(**arguments)


@pytest.mark.slow
def test_paths_arrive_as_the_density_says():
    process, n = sde.OrnsteinUhlenbeck(1.0, 0.2, 0.8), 200_000
    found = sde.first_passage_density(process, sde.Grid(-0.8, 0.9, 400), 0.1, (0, 2), bins=10)
    walls = sde.FirstPassage(-0.8, 0.9, keep=True)
    paths = sde.simulate(process, 0.1, (0, 2), n_steps=800, n_paths=n, reduce=[walls], seed=3).reductions[0]

    def chi_square(cdf):
        statistic = 0.0
        for side, column in ((-1, 0), (1, 1)):
            counts = np.histogram(paths.times[paths.sides == side], found.t)[0]
            expected = n * np.diff(cdf[:, column])
            statistic += float(((counts - expected) ** 2 / expected).sum())
        return statistic / 20

    assert chi_square(found.cdf) < 2.0
    # negative control: sides exchanged, or times half a per cent too long, are found
    assert chi_square(found.cdf[:, ::-1]) > 20
    slow = np.stack([np.interp(found.t / 1.02, found.t, c) for c in found.cdf.T], 1)
    assert chi_square(slow) > 4


# ---- several dimensions ---------------------------------------------------------------------------------------------


def test_two_independent_components_leave_through_whichever_is_first():
    # survival is the product of the survivals, and a wall of axis k has f_k times the survival of the other
    process = sde.ito(lambda x, t: (1.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    grid = sde.Grid((-1.0, -1.5), (1.0, 1.5), (40, 40))
    edges = np.linspace(0.0, 1.0, 11)
    found = sde.first_passage_density(process, grid, (0.0, 0.2), (0, 1), bins=edges, rtol=1e-4)
    assert found.density.shape == (10, 2, 2)
    fine = np.linspace(0.0, 1.0, 401)
    first = sde.first_passage_density(DRIFTING, sde.Grid(-1, 1, 400), 0.0, (0, 1), bins=fine)
    second = sde.first_passage_density(sde.Wiener(1.0), sde.Grid(-1.5, 1.5, 400), 0.2, (0, 1), bins=fine)
    np.testing.assert_allclose(found.survival, (first.survival * second.survival)[::40], atol=2e-3)
    for k, (own, other) in enumerate(((first, second), (second, first))):
        middle = 0.5 * (other.survival[1:] + other.survival[:-1])
        exact = np.cumsum(np.diff(own.cdf, axis=0) * middle[:, None], axis=0)[39::40]
        np.testing.assert_allclose(found.cdf[1:, k], exact, atol=2e-3)
    assert found.mean == pytest.approx(
        float(np.diff(-found.survival) @ (edges[1:] + edges[:-1]) / 2) / (1 - found.survival[-1]), abs=0.01
    )


def test_too_many_bins_for_the_memory_are_refused():
    process = sde.ito(lambda x, t: (1.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    with pytest.raises(ValueError, match=r"301 saved densities would take 1\.4 GB; take fewer bins or cells"):
        sde.first_passage_density(process, sde.Grid((-1, -1), (1, 1), 800), (0.0, 0.0), (0, 1))
