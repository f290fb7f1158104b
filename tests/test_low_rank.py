"""Mixtures of low rank: against dense covariances, finite differences and float64; fits to data of known cells."""

import dataclasses
import itertools
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.core import blas
from sdesim.targets import Gaussian, GaussianMixture, LowRankMixture, PrincipalMixture, cells, clusters

K, Q, D = 5, 3, 11


def mixture(k=K, q=Q, d=D, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    directions = np.stack([np.linalg.qr(rng.standard_normal((d, q)))[0].T for _ in range(k)])
    return LowRankMixture(
        rng.dirichlet(np.ones(k)), spread * rng.standard_normal((k, d)), directions, 0.2 + 2 * rng.random((k, q)),
        0.1 + rng.random(k),
    )  # fmt: skip


def dense(low):
    """The same law with its covariances written out."""
    eye = np.eye(low.dim)
    covs = [
        v.T @ np.diag(lam) @ v + s * (eye - v.T @ v)
        for v, lam, s in zip(low.directions, low.variances, low.residual, strict=True)
    ]
    return GaussianMixture(low.weights, low.means, np.stack([(c + c.T) / 2 for c in covs]))


LOW = mixture()
DENSE = dense(LOW)
X = 2 * np.random.default_rng(1).standard_normal((300, D))
PROCESSES = [sde.VariancePreserving(), sde.EDM(), sde.OrnsteinUhlenbeck(1.0, 0.5, 1.0)]


@given(st.integers(1, 3000), st.integers(1, 600))
def test_spans_cover_a_length_in_nearly_equal_parts(length, most):
    parts = blas.spans(length, most)
    sizes = [hi - lo for lo, hi in parts]
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


# ---- density and score


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**20))
def test_any_shape_agrees_with_dense_covariances(k, q, more, seed):
    low = mixture(k, q, q + more, seed)
    x = np.random.default_rng(seed).standard_normal((7, low.dim))
    np.testing.assert_allclose(low.log_density(x), dense(low).log_density(x[:, 0] if low.dim == 1 else x), rtol=1e-9)
    scores = dense(low).score(x)
    np.testing.assert_allclose(low.score(x), scores, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_noised_law(process):
    t = np.random.default_rng(2).uniform(0.01, 1.0, len(X))
    low, full = sde.marginal_score(process, LOW), sde.marginal_score(process, DENSE)
    np.testing.assert_allclose(low(X, t), full(X, t), atol=1e-11)
    np.testing.assert_allclose(low.log_density(X, t), full.log_density(X, t), atol=1e-11)
    np.testing.assert_allclose(low.law(0.3).score(X), full(X, 0.3), atol=1e-11)
    single = low(X.astype(np.float32), t)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, full(X, t), atol=3e-5)


@pytest.mark.parametrize("slip", ["offset", "residual", "direction"])
def test_a_slip_in_the_laws_is_seen(slip):
    known = cells.Cells(LOW, np.float64, LOW.mean)
    {"offset": known.offsets, "residual": known.residual, "direction": known.variances}[slip][...] *= 1.01
    block = cells.Block(known, len(X))
    block.fill(X - LOW.mean, 1.0, 0.0)
    for phase in block.phases():
        for task in phase:
            task()
    assert np.abs(block.out - DENSE.score(X)).max() > 1e-3


def test_the_score_is_the_slope_of_the_log_density():
    h = 1e-5
    slopes = [(LOW.log_density(X + h * e) - LOW.log_density(X - h * e)) / (2 * h) for e in np.eye(D)]
    np.testing.assert_allclose(LOW.score(X), np.stack(slopes, axis=1), atol=1e-7)


def test_the_derivative_of_the_score_is_symmetric_and_right():
    block = cells.Block(cells.Cells(LOW, np.float64, LOW.mean), len(X))
    tangents = cells.Tangents(block)
    block.fill(X - 0.7 * LOW.mean, 0.7, 0.2)
    for phase in tangents.phases:
        for task in phase:
            task()
    hessian = np.stack([tangents.along(np.tile(e, (len(X), 1))).copy() for e in np.eye(D)], axis=2)
    np.testing.assert_allclose(hessian, hessian.transpose(0, 2, 1), atol=1e-12)
    law, h = LOW.affine(0.7, 0.0, 0.2), 1e-5
    slopes = np.stack([(law.score(X + h * e) - law.score(X - h * e)) / (2 * h) for e in np.eye(D)], axis=2)
    np.testing.assert_allclose(hessian, slopes, atol=1e-6)


def test_far_out_and_close_to_a_thin_cell():
    thin = LowRankMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [[[1.0, 0.0]]] * 2, [[1.0]] * 2, 1e-4)
    x = np.array([[0.3, 0.0], [0.3, 0.05], [1e4, -1e4], [-50.0, 3.0]])
    np.testing.assert_allclose(thin.score(x), dense(thin).score(x), rtol=1e-10)
    assert np.isfinite(thin.score(x.astype(np.float32))).all()


def test_single_precision_is_close_over_the_noise_levels_of_images():
    low = mixture(20, 8, 200, spread=0.5)
    score = sde.marginal_score(sde.EDM(), low)
    x0 = low.sample(64, 3)
    for t in (0.01, 0.1, 1.0, 10.0, 80.0):
        x = (x0 + t * np.random.default_rng(4).standard_normal(x0.shape)).astype(np.float32)
        mean = x + t**2 * score(x.astype(np.float64), t)
        np.testing.assert_allclose(x + t**2 * score(x, t), mean, atol=2e-5 * (1 + t))


def test_a_row_has_the_same_bits_in_any_company_and_on_any_thread():
    x = np.random.default_rng(5).standard_normal((600, D)).astype(np.float32)
    whole = LOW.score(x)
    assert (LOW.score(x[:1]) == whole[:1]).all()
    assert (LOW.score(x[256:300]) == whole[256:300]).all()
    assert (pickle.loads(pickle.dumps(LOW)).score(x) == whole).all()
    found = [None] * 4

    def work(i):
        found[i] = LOW.score(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((other == whole).all() for other in found)


def test_shapes():
    assert LOW.score(X[0]).shape == (D,)
    assert LOW.log_density(X[0]).shape == ()
    assert LOW.score(X.reshape(3, 100, D)).shape == (3, 100, D)
    assert LOW.log_density(X.reshape(3, 100, D)).shape == (3, 100)
    assert "5 cells of rank 3 in dimension 11" in repr(LOW)
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        LOW.score(np.zeros(3))


def test_other_targets_as_cells_of_full_rank():
    one = Gaussian(np.arange(4.0), np.diag([1.0, 2.0, 0.1, 3.0]) + 0.05)
    two = GaussianMixture([0.3, 0.7], [[0.0, 1.0], [2.0, 0.0]], [0.5, 2.0])
    line = Gaussian(1.0, 4.0)
    for target in (one, two, line, LOW):
        low = LowRankMixture.of(target)
        x = np.random.default_rng(6).standard_normal((9, target.dim))
        np.testing.assert_allclose(low.score(x), target.score(x), atol=1e-10)
        np.testing.assert_allclose(low.cov, np.reshape(target.cov, (target.dim, target.dim)), atol=1e-12)
    with pytest.raises(TypeError, match="got DoubleWellDensity"):
        LowRankMixture.of(sde.targets.DoubleWellDensity())


# ---- draws and moments


def test_draws_have_the_mean_and_covariance():
    n = 200_000
    x = LOW.sample(n, 1)
    np.testing.assert_allclose(LOW.mean, DENSE.mean)
    np.testing.assert_allclose(LOW.cov, DENSE.cov, atol=1e-12)
    # entries of a sample covariance have standard errors of at most √2 max C / √n; 5 of them for 66 entries
    np.testing.assert_allclose(np.cov(x.T), LOW.cov, atol=5 * np.sqrt(2 / n) * LOW.cov.max() * 2)
    np.testing.assert_allclose(x.mean(axis=0), LOW.mean, atol=5 * np.sqrt(LOW.cov.max() / n))
    assert (LOW.sample(50, 1, first_path=7)[:20] == LOW.sample(57, 1)[7:27]).mean() > 0.9
    np.testing.assert_allclose(LOW.sample(50, 1, first_path=7), LOW.sample(57, 1)[7:], atol=1e-12)


def test_draws_without_residual_lie_in_the_planes_of_their_cells():
    one = mixture(1, 2, 6)
    away = one.sample(500, 1, residual=False) - one.means[0]
    inside = away @ one.directions[0].T
    np.testing.assert_allclose(inside @ one.directions[0], away, atol=1e-12)
    assert abs(inside.var(axis=0) / one.variances[0] - 1).max() < 0.3
    assert one.sample(500, 1).shape == (500, 6)


# ---- a mixture in the leading principal coordinates

TURN = np.linalg.qr(np.random.default_rng(8).standard_normal((7, 7)))[0]
PRINCIPAL = PrincipalMixture(np.arange(7.0) / 3, TURN, mixture(3, 2, 4), [0.3, 0.02, 1.5])


def written_out(law):
    """A PrincipalMixture as a mixture of dense covariances."""
    low, m = dense(law.mixture), law.mixture.dim
    covs = np.zeros((low.n_components, law.dim, law.dim))
    covs[:, :m, :m], covs[:, m:, m:] = low.covs, np.diag(law.tail)
    covs = law.axes @ covs @ law.axes.T
    return GaussianMixture(
        low.weights, law.centre + low.means @ law.axes[:, :m].T, (covs + covs.transpose(0, 2, 1)) / 2
    )  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_noised_law_in_principal_coordinates(process):
    rng = np.random.default_rng(2)
    x, t = 2 * rng.standard_normal((300, 7)), rng.uniform(0.01, 1.0, 300)
    law, full = sde.marginal_score(process, PRINCIPAL), sde.marginal_score(process, written_out(PRINCIPAL))
    np.testing.assert_allclose(law(x, t), full(x, t), atol=1e-10)
    np.testing.assert_allclose(law.log_density(x, t), full.log_density(x, t), atol=1e-10)
    np.testing.assert_allclose(law(x, 0.4), full(x, 0.4), atol=1e-10)
    np.testing.assert_allclose(law.law(0.3).score(x), full(x, 0.3), atol=1e-10)
    np.testing.assert_allclose(law(x.astype(np.float32), t), full(x, t), atol=1e-4)
    whole = law(x.astype(np.float32), t)
    assert (law(x[256:].astype(np.float32), t[256:]) == whole[256:]).all()
    assert (pickle.loads(pickle.dumps(PRINCIPAL)).score(x) == PRINCIPAL.score(x)).all()


def test_moments_and_draws_in_principal_coordinates():
    full, n = written_out(PRINCIPAL), 100_000
    np.testing.assert_allclose(PRINCIPAL.cov, full.cov, atol=1e-12)
    np.testing.assert_allclose(PRINCIPAL.mean, full.mean, atol=1e-12)
    np.testing.assert_allclose(PRINCIPAL.spreads**2, np.diag(TURN.T @ full.cov @ TURN), atol=1e-12)
    x = PRINCIPAL.sample(n, 1)
    np.testing.assert_allclose(np.cov(x.T), full.cov, atol=10 * np.sqrt(2 / n) * full.cov.max())
    np.testing.assert_allclose(x.mean(axis=0), full.mean, atol=5 * np.sqrt(full.cov.max() / n))
    flat = (PRINCIPAL.sample(20, 1, residual=False) - PRINCIPAL.centre) @ TURN
    assert abs(flat[:, 4:]).max() < 1e-12


def test_other_targets_in_principal_coordinates():
    one = Gaussian(np.arange(4.0), np.diag([1.0, 2.0, 0.1, 3.0]) + 0.05)
    for target in (one, LOW, DENSE, Gaussian(1.0, 4.0), PRINCIPAL):
        law = PrincipalMixture.of(target)
        x = np.random.default_rng(6).standard_normal((9, target.dim))
        np.testing.assert_allclose(law.score(x), target.score(x), atol=1e-10)
    assert PrincipalMixture.of(one).mixture.dim == 1  # a Gaussian costs next to nothing


def test_a_fit_in_principal_coordinates_is_likelier_where_the_rest_is_uneven():
    """Coordinates that hardly change beside others that do: one variance for both is the wrong model."""
    rng = np.random.default_rng(4)
    low = mixture(3, 2, 6, seed=5, spread=4.0)
    spread = np.concatenate([np.full(6, 1.0), np.geomspace(0.5, 0.005, 14)])
    x = spread * np.concatenate([low.sample(4000, 1), rng.standard_normal((4000, 14))], axis=1)
    x = x @ np.linalg.qr(rng.standard_normal((20, 20)))[0].T
    train, test = x[:3000], x[3000:]
    flat = LowRankMixture.fit(train, 3, 2)
    law = PrincipalMixture.fit(train, 3, 2, n_components=6)
    assert law.log_density(test).mean() > flat.log_density(test).mean() + 5
    np.testing.assert_allclose(law.tail, spread[6:] ** 2, rtol=0.2, atol=1e-3)
    assert "6 principal coordinates of 20" in repr(law)
    with pytest.raises(ValueError, match="n_components must be <= 20"):
        PrincipalMixture.fit(train, 3, 2, n_components=21)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": 0.0}, "centre has shape"),
        ({"axes": np.eye(6)}, r"axes has shape \(6, 6\), expected \(7, 7\)"),
        ({"axes": 1.1 * TURN}, "orthonormal columns"),
        ({"mixture": DENSE}, "must be a LowRankMixture, got GaussianMixture"),
        ({"tail": [0.1]}, r"tail has shape \(1,\), expected \(3,\): 7 coordinates less 4"),
        ({"tail": [0.1, 0.0, 0.1]}, "tail must be > 0"),
    ],
)
def test_bad_principal_arguments(change, message):
    good = {"centre": np.zeros(7), "axes": TURN, "mixture": PRINCIPAL.mixture, "tail": np.ones(3)}
    with pytest.raises((ValueError, TypeError), match=message):
        PrincipalMixture(**{**good, **change})


# ---- classes


def test_posterior_weights_and_the_weights_of_classes():
    logs = np.stack([
        np.log(w) + Gaussian(mean, cov).log_density(X)
        for w, mean, cov in zip(DENSE.weights, DENSE.means, DENSE.covs, strict=True)
    ], axis=1)  # fmt: skip
    wanted = np.exp(logs - DENSE.log_density(X)[:, None])
    np.testing.assert_allclose(LOW.posterior(X), wanted, atol=1e-10)
    labels = (X[:, 0] > 0).astype(int)
    table = LOW.class_weights(X, labels)
    np.testing.assert_allclose(table.sum(axis=1), 1.0)
    n = (labels == 1).sum()
    np.testing.assert_allclose(table[1], (wanted[labels == 1].sum(axis=0) + LOW.weights) / (n + 1), atol=1e-10)
    z = np.random.default_rng(3).standard_normal((300, 7))
    inside = ((z - PRINCIPAL.centre) @ TURN)[:, :4]
    np.testing.assert_allclose(
        PRINCIPAL.class_weights(z, labels), PRINCIPAL.mixture.class_weights(inside, labels), atol=1e-10
    )
    for wrong in (labels[1:], labels + 1, labels - 1, labels * 1.0):
        with pytest.raises(ValueError, match="labels must be"):
            LOW.class_weights(X, wrong)


# ---- fits


def test_a_fit_finds_separate_cells():
    truth = mixture(3, 2, 20, seed=5, spread=8.0)
    truth = dataclasses.replace(truth, weights=[0.2, 0.5, 0.3], variances=[[9.0, 5.0]] * 3)
    x = truth.sample(6000, 2)
    fit = LowRankMixture.fit(x, 3, 2, seed=1)
    order = [int(((fit.means - m) ** 2).sum(axis=1).argmin()) for m in truth.means]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(fit.weights[order], truth.weights, atol=0.02)
    np.testing.assert_allclose(fit.means[order], truth.means, atol=0.3)
    np.testing.assert_allclose(fit.residual[order], truth.residual, rtol=0.05)
    aligned = [
        np.linalg.svd(fit.directions[i] @ v.T, compute_uv=False).min()
        for i, v in zip(order, truth.directions, strict=True)
    ]
    assert min(aligned) > 0.95
    gap = (truth.log_density(x) - fit.log_density(x)).mean()
    assert -0.05 < gap < 0.02  # maximum likelihood: as likely as the truth, and more by its own parameters


def test_a_cell_is_what_a_singular_value_decomposition_says():
    rng = np.random.default_rng(0)
    for shape in ((400, 6), (40, 90)):
        x = rng.standard_normal(shape) * np.geomspace(3.0, 0.3, shape[1])
        fit = LowRankMixture.fit(x, rank=3, labels=np.zeros(len(x), int))
        _, sizes, rows = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        np.testing.assert_allclose(fit.variances[0], (sizes[:3] ** 2) / len(x), rtol=1e-8)
        np.testing.assert_allclose(np.abs(np.sum(fit.directions[0] * rows[:3], axis=1)), 1.0, atol=1e-8)
        rest = (sizes[3:] ** 2).sum() / len(x) / (shape[1] - 3)
        np.testing.assert_allclose(fit.residual, rest, rtol=1e-8)
        np.testing.assert_allclose(fit.means[0], x.mean(axis=0), atol=1e-12)


def test_k_means_lowers_the_distances_and_dissolves_small_cells():
    x = mixture(4, 2, 8, seed=3, spread=3.0).sample(2000, 1)
    labels = clusters._k_means(x, 12, 100, 0, 20, False)
    assert np.bincount(labels).min() >= 100
    centres = np.stack([x[labels == k].mean(axis=0) for k in np.unique(labels)])
    distance = ((x[:, None] - centres) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == labels).mean() > 0.9
    assert distance.min(axis=1).mean() < 0.7 * ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    again = clusters._k_means(x, 12, 100, 0, 20, False)
    assert (again == labels).all()


def test_single_precision_constants_and_flat_data():
    rng = np.random.default_rng(0)
    x = np.zeros((500, 10), np.float32)
    x[:, :2] = rng.standard_normal((500, 2))  # eight pixels never change
    fit = LowRankMixture.fit(x, 4, 3)
    assert (fit.residual > 0.0).all()
    assert np.isfinite(fit.score(x)).all()
    assert fit.rank == 3


DATA = np.random.default_rng(0).standard_normal((100, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": DATA[0]}, r"data has shape \(4,\), expected \(n, d\)"),
        ({"data": np.zeros((0, 4))}, "data has shape"),
        ({"data": np.ones((100, 4))}, "data is constant"),
        ({"data": np.where(DATA > 2, np.nan, DATA)}, "data must be finite, got nan at row"),
        ({"data": DATA.astype(str)}, "real numbers"),
        ({"data": DATA[:3]}, "3 points do not make a cell of rank 2: at least 4"),
        ({"rank": 5}, "rank must be <= 4"),
        ({"rank": 0}, "rank must be >= 1"),
        ({"n_cells": 0}, "n_cells must be >= 1"),
        ({"labels": np.zeros(99, int)}, "labels must be 100 integers"),
        ({"labels": np.r_[np.zeros(99, int), 7]}, "label 7 has 1 points, fewer than the 4"),
        ({"floor": 0.0}, "floor must be > 0"),
    ],
)
def test_bad_data(options, message):
    arguments = {"data": DATA, "n_cells": 3, "rank": 2, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        LowRankMixture.fit(arguments.pop("data"), **arguments)


GOOD = {"weights": [1.0], "means": [[0.0, 0.0]], "directions": [[[1.0, 0.0]]], "variances": [[1.0]], "residual": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [[1.0]]}, "weights has shape"),
        ({"weights": [0.5]}, "sum to 1"),
        ({"weights": [-1.0]}, ">= 0"),
        ({"means": [0.0]}, r"means has shape \(1,\), expected \(1, d\)"),
        ({"directions": [[1.0, 0.0]]}, "directions has shape"),
        ({"directions": [[[1.0, 0.5]]]}, "directions must be orthonormal .* cell 0"),
        ({"variances": [1.0]}, r"variances has shape \(1,\), expected \(1, 1\)"),
        ({"variances": [[0.0]]}, "variances must be > 0"),
        ({"residual": -1.0}, "residual must be > 0"),
        ({"residual": [0.1, 0.1]}, "residual has shape"),
        ({"means": [[np.nan, 0.0]]}, "means must be finite"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        LowRankMixture(**{**GOOD, **change})
    with pytest.raises(ValueError, match="numbers scale and noise"):
        LowRankMixture(**GOOD).affine(np.eye(2))
