"""Samples that fit what is known: pixels exactly, linear measurements in law where the posterior is known."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.generate.guided import Guidance, GuidedScore
from sdesim.generate.linear import Noised
from sdesim.generate.rows import Rows

VP = sde.VariancePreserving()
ROUND = sde.targets.Gaussian(np.array([0.5, -0.3, 0.2]), 0.49)
CORRELATED = sde.targets.Gaussian(np.array([0.4, -0.2]), np.array([[1.0, 0.8], [0.8, 1.0]]))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "reverse_sde", "n_steps": 10}, {"method": "probability_flow", "n_steps": 10},
        {"method": "predictor_corrector", "n_steps": 5, "n_resample": 2}, {"method": "dpm_solver", "n_steps": 10},
        {"method": "edm_heun", "n_steps": 5}, {"method": "ancestral", "n_steps": 10, "denoise": False},
    ],
    ids=str,
)  # fmt: skip
def test_known_pixels_are_kept_exactly_and_the_others_differ_between_seeds(options):
    score = sde.ScoreMLP(16, hidden=(32,), seed=3)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    observed = np.where(mask, np.linspace(-1, 1, 16).reshape(4, 4), np.nan)
    fills = [sde.sample(VP, score, 20, observed=observed, mask=mask, seed=seed, **options) for seed in (1, 2)]
    for x in fills:
        assert x.dtype == np.float32
        assert (x[:, mask.reshape(-1)] == observed[mask].astype(np.float32)).all()
        assert np.isfinite(x).all()
    assert not np.isclose(fills[0][:, ~mask.reshape(-1)], fills[1][:, ~mask.reshape(-1)]).any()


def test_each_sample_may_have_its_own_pixels():
    rng = np.random.default_rng(1)
    mask = rng.random((300, 2)) < 0.5
    observed = rng.normal(size=(300, 2))
    score = sde.marginal_score(VP, CORRELATED)
    run = {"n_steps": 8, "seed": 1}
    x = sde.sample(VP, score, 300, observed=observed, mask=mask, **run)
    assert (x[mask] == observed[mask]).all()
    part = sde.sample(VP, score, 44, observed=observed[256:], mask=mask[256:], first_path=256, **run)
    assert np.array_equal(x[256:], part)


def test_known_pixels_have_the_noise_of_their_time():
    mask, observed = np.array([[True, False]] * 4000), np.array([[1.6, 0.0]] * 4000)
    score = GuidedScore(Noised(VP), sde.marginal_score(VP, CORRELATED), Guidance(None, None), None, range(4000))
    rows = Rows(Noised(VP), score, (4000, 2), np.dtype(np.float64), 0, 1, known=(mask, observed))
    x = np.full((4000, 2), 9.0)
    for k, t in enumerate((0.02, 0.4, 1.0)):
        kept, std = rows.keep(x, t, k), VP.std(t)
        assert (kept[:, 1] == 9.0).all()
        assert abs(kept[:, 0].mean() - 1.6 * VP.scale(t)) < 4 * std / np.sqrt(4000)
        assert abs(kept[:, 0].std() / std - 1.0) < 4 / np.sqrt(8000)
    assert np.array_equal(rows.keep(x, 0.0, 0)[:, 0], observed[:, 0])


def conditional_error(n_resample):
    """Of the mean and the standard deviation of the second component, given the first."""
    x = sde.sample(
        VP, sde.marginal_score(VP, CORRELATED), 2000, n_steps=80, seed=2, observed=np.array([1.6, 0.0]),
        mask=np.array([True, False]), n_resample=n_resample,
    )[:, 1]  # fmt: skip
    return abs(x.mean() - (-0.2 + 0.8 * 1.2)), abs(x.std() - 0.6)


def test_resampling_brings_the_fills_closer_to_the_conditional_law():
    once, often = conditional_error(1), conditional_error(8)
    assert often[0] < 0.08
    assert often[1] < 0.04
    assert once[0] > 2 * often[0]


MATRIX, OBSERVED = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]), np.array([0.9, 0.4])


def posterior(noise):
    """Mean and covariance of the round Gaussian given its measurements."""
    prior = 0.49 * np.eye(3)
    gain = prior @ MATRIX.T @ np.linalg.inv(MATRIX @ prior @ MATRIX.T + noise**2 * np.eye(2))
    return ROUND.mean + gain @ (OBSERVED - MATRIX @ ROUND.mean), prior - gain @ MATRIX @ prior


@pytest.mark.parametrize("process", [VP, sde.EDM(), sde.SubVariancePreserving()], ids=lambda p: type(p).__name__)
def test_the_guided_score_of_round_gaussian_data_is_the_score_of_the_posterior(process):
    measurement = sde.LinearMeasurement(MATRIX, OBSERVED, noise=0.3, data_std=0.7)
    plain = sde.marginal_score(process, ROUND)
    guided = GuidedScore(Noised(process), plain, Guidance(measurement, None), None, range(20))
    exact = sde.marginal_score(process, sde.targets.Gaussian(*posterior(0.3)))
    x = np.random.default_rng(1).normal(size=(20, 3))
    for t in process.horizon * np.array([0.01, 0.2, 0.9]):
        y = x * np.sqrt(process.mean_factor(t) ** 2 + process.added_variance(t))
        assert np.allclose(guided(y, t), exact(y, t), rtol=1e-5, atol=1e-7 * np.abs(exact(y, t)).max())
        assert not np.allclose(plain(y, t), exact(y, t), rtol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_linear_measurements_give_the_posterior_of_round_gaussian_data(noise):
    measurement = sde.LinearMeasurement(MATRIX, OBSERVED, noise=noise, data_std=0.7)
    score = sde.marginal_score(VP, ROUND)
    x = sde.sample(VP, score, 2000, n_steps=250, seed=3, guidance=measurement)
    mean, cov = posterior(noise)
    assert np.abs(x.mean(axis=0) - mean).max() < 4 * 0.7 / np.sqrt(2000) + 0.01
    assert np.abs(np.cov(x.T) - cov).max() < 0.05
    if noise == 0.0:
        assert np.abs(x @ MATRIX.T - OBSERVED).max() < 0.1


def test_a_measurement_for_each_sample():
    matrix = np.eye(3)[:1]
    y = np.linspace(-1, 1, 300)[:, None]
    measurement = sde.LinearMeasurement(matrix, y, data_std=0.7)
    x = sde.sample(VP, sde.marginal_score(VP, ROUND), 300, method="edm_heun", n_steps=40, seed=3, guidance=measurement)
    assert np.abs(x[:, 0] - y[:, 0]).max() < 0.02


def test_vector_jacobians_by_reverse_pass_and_by_differences():
    net = sde.ScoreMLP(4, hidden=(16,), seed=2, dtype=np.float64)
    rng = np.random.default_rng(3)
    x, v = rng.normal(size=(2, 10, 4))
    noised, none = Noised(VP), Guidance(None, None)
    direct = GuidedScore(noised, net, none, None, range(10)).vector_jacobian(x, 0.3, v)
    h = 1e-6
    for i in range(4):
        e = np.zeros(4)
        e[i] = h
        column = (net(x + e, 0.3) - net(x - e, 0.3)) / (2 * h)
        assert np.allclose(direct[:, i], (v * column).sum(axis=1), atol=1e-7)
    law = sde.marginal_score(VP, CORRELATED)  # a gradient field, without a reverse pass of its own
    x, v = rng.normal(size=(2, 10, 2))
    marginal = VP.mean_factor(0.3) ** 2 * CORRELATED.cov + VP.added_variance(0.3) * np.eye(2)
    found = GuidedScore(noised, law, none, None, range(10)).vector_jacobian(x, 0.3, v)
    assert np.allclose(found, -v @ np.linalg.inv(marginal), atol=1e-7)


def test_the_operators_of_colourisation_and_deblurring():
    rng = np.random.default_rng(0)
    image = rng.random((3, 4, 3))
    grey = sde.greys((3, 4, 3)) @ image.reshape(-1)
    assert np.allclose(grey.reshape(3, 4), image @ [0.299, 0.587, 0.114])
    blurred = sde.blur((3, 4, 3), 1.0) @ image.reshape(-1)
    for channel in range(3):
        alone = sde.blur((3, 4), 1.0) @ image[:, :, channel].reshape(-1)
        assert np.allclose(blurred.reshape(3, 4, 3)[:, :, channel], alone.reshape(3, 4))
    assert np.allclose(sde.blur((5, 6), 1.5).sum(axis=1), 1.0)
    assert np.allclose(sde.blur((5, 6), 0.01), np.eye(30))


def test_colourisation_keeps_the_greys():
    shape = (2, 2, 3)
    matrix = sde.greys(shape)
    law = sde.targets.Gaussian(np.zeros(12), 0.25 * (0.6 * np.eye(12) + 0.4))
    truth = law.sample(1, seed=5)[0]
    score = sde.marginal_score(VP, law)
    measurement = sde.LinearMeasurement(matrix, matrix @ truth, data_std=0.5)
    x = sde.sample(VP, score, 200, method="edm_heun", n_steps=40, seed=1, guidance=measurement)
    assert np.abs(x @ matrix.T - matrix @ truth).max() < 0.03
    assert x.std(axis=0).min() > 0.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask": np.ones(3, bool)}, ValueError, r"mask has shape \(3,\), expected \(2,\), an image of 2 values"),
        ({"observed": np.ones((4, 2))}, ValueError, r"observed has shape \(4, 2\), expected"),
        ({"mask": np.ones(2)}, TypeError, "mask must hold True"),
        ({"mask": None}, ValueError, "observed is given without mask"),
        ({"observed": None}, ValueError, "mask is given without observed"),
        ({"observed": [np.nan, 0.0]}, ValueError, "observed must be finite where mask is True, got nan at component 0"),
        ({"method": "dpm_solver", "n_resample": 2}, ValueError, "dpm_solver remembers its last step"),
        ({"method": "probability_flow", "rtol": 1e-3, "n_steps": None}, ValueError, "need fixed steps"),
        ({"guidance": sde.LinearMeasurement(np.eye(3), np.zeros(3))}, ValueError, "matrix has 3 columns, expected 2"),
        ({"guidance": sde.LinearMeasurement(np.eye(2), np.zeros((4, 2)))}, ValueError, "observed has 4 rows, expected"),
    ],
)  # fmt: skip
def test_wrong_arguments(options, error, message):
    arguments = {"n_steps": 5, "observed": np.zeros(2), "mask": np.array([True, False]), **options}
    with pytest.raises(error, match=message):
        sde.sample(VP, sde.marginal_score(VP, CORRELATED), 10, **arguments)


def test_wrong_measurements():
    with pytest.raises(ValueError, match=r"matrix has shape \(3,\)"):
        sde.LinearMeasurement(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="the matrix has 2 rows"):
        sde.LinearMeasurement(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="shape has 4 channels, expected 3"):
        sde.greys((2, 2, 4))
    with pytest.raises(ValueError, match="guidance returned nan at row 0"):
        sde.sample(VP, lambda x, t: -x, 3, n_steps=4, dim=2, guidance=lambda x, t: np.nan * x)


def rough(x, t):
    """The score of N(0, ½² I), with an error in D that is small, and large in the derivative of D where t is large."""
    wide = 0.25 + np.asarray(t) ** 2
    return -x / wide + 0.15 * np.sin(3.0 * x / np.sqrt(wide)) / t**2


@pytest.mark.parametrize("bounded", [True, False])
def test_a_gradient_that_is_too_large_takes_the_mean_no_further_than_the_measurement(monkeypatch, bounded):
    """As at a learned score; without the bound some samples end fifty away, or diverge."""
    if not bounded:
        monkeypatch.setattr("sdesim.generate.conditional._bounded", lambda through, moved, misfit: through)
    matrix = np.eye(16)[:8]
    observed = np.linspace(-0.5, 0.5, 8)
    measurement = sde.LinearMeasurement(matrix, observed, noise=0.02, data_std=0.1)
    run = {"method": "edm_heun", "n_steps": 30, "t_end": 0.02, "seed": 1, "guidance": measurement, "dim": 16}
    try:
        x = sde.sample(sde.EDM(), rough, 50, **run)
        near = abs(x[:, :8] - observed).max() < 1.0  # the error of this D is of that size itself
    except sde.errors.NonFiniteError:
        near = False
    assert near == bounded
