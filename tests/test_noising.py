"""Noising processes: their laws solve their equations, by derivatives, by paths, and back again."""

import numpy as np
import pytest

import sdesim as sde

PROCESSES = [
    sde.VariancePreserving(), sde.VariancePreserving(0.5, 8.0), sde.SubVariancePreserving(), sde.VarianceExploding(),
    sde.VarianceExploding(0.1, 5.0), sde.EDM(0.01, 10.0), sde.Cosine(), sde.Cosine(0.02, 0.8),
]  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_mean_and_variance_solve_the_equations_of_the_coefficients(process):
    # d α/dt = f α and d v/dt = 2 f v + g², with drift f x and diffusion g
    t = process.horizon * np.array([0.05, 0.2, 0.5, 0.9])
    h = 1e-5 * process.horizon
    f, g = process.drift(1.0, t), process.diffusion(0.0, t)
    for value, slope in (
        (process.mean_factor, f * process.mean_factor(t)),
        (process.added_variance, 2 * f * process.added_variance(t) + g**2),
    ):
        measured = (value(t + h) - value(t - h)) / (2 * h)
        np.testing.assert_allclose(measured, slope, rtol=1e-6, atol=1e-9)
    assert process.mean_factor(0.0) == 1.0
    assert process.added_variance(0.0) == 0.0


def test_the_marginals_of_song_et_al():
    t = np.linspace(0, 1, 7)
    total = 0.5 * t**2 * 19.9 + 0.1 * t
    vp, sub, ve = sde.VariancePreserving(), sde.SubVariancePreserving(), sde.VarianceExploding(0.01, 50.0)
    np.testing.assert_allclose(vp.mean_factor(t), np.exp(-0.5 * total))
    np.testing.assert_allclose(vp.added_variance(t), 1 - np.exp(-total))
    np.testing.assert_allclose(sub.added_variance(t), (1 - np.exp(-total)) ** 2)
    np.testing.assert_allclose(ve.added_variance(t), (0.01 * 5000.0**t) ** 2 - 0.01**2, rtol=1e-10)
    np.testing.assert_allclose(sde.EDM().added_variance(t), t**2)


def test_the_cosine_schedule_of_nichol_and_dhariwal():
    process, t = sde.Cosine(), np.linspace(0, 0.99, 100)
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(process.mean_factor(t) ** 2, f / f[0], rtol=1e-12)
    assert 0.005 < process.mean_factor(1.0) < 0.007
    assert np.isfinite(process.drift(1.0, 1.0))
    assert process.diffusion(0.0, 1.0) == process.diffusion(0.0, 0.99)
    assert np.isfinite(process.drift(np.float32(1.0), np.float32(1.0)))


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_the_names_that_samplers_use(process):
    t = process.horizon * np.array([0.01, 0.3, 1.0])
    np.testing.assert_array_equal(process.scale(t), process.mean_factor(t))
    np.testing.assert_allclose(process.std(t) ** 2, process.added_variance(t), rtol=1e-14)
    np.testing.assert_allclose(process.snr(t), (process.scale(t) / process.std(t)) ** 2, rtol=1e-12)
    assert (np.diff(process.snr(t)) < 0).all()
    assert process.snr(0.0) == np.inf
    prior = process.prior(784)
    assert prior.dim == 784
    assert prior.std == process.std(process.horizon)


def test_the_prior_is_a_normal_law_in_any_dimension():
    prior = sde.VarianceExploding(0.01, 3.0).prior(2)
    same = sde.targets.Gaussian(np.zeros(2), prior.std**2)
    x = prior.sample(4000, seed=1)
    np.testing.assert_allclose(prior.log_density(x), same.log_density(x), rtol=1e-12)
    np.testing.assert_allclose(prior.score(x), same.score(x), rtol=1e-12)
    np.testing.assert_array_equal(x, same.sample(4000, seed=1))
    np.testing.assert_array_equal(x[256:], prior.sample(3744, seed=1, first_path=256))
    assert prior.sample(3, seed=1, dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("process", [PROCESSES[1], PROCESSES[2], PROCESSES[4], PROCESSES[5], PROCESSES[6]], ids=repr)
def test_paths_have_these_moments(process):
    n, t = 20_000, 0.5 * process.horizon
    x = sde.simulate(process, 1.5, (0.0, t), n_steps=400, n_paths=n, seed=3).final
    mean, variance = process.mean(t, 1.5), process.variance(t, 1.5)
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / n) + 0.005
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / n) + 0.02


@pytest.mark.parametrize("process", [PROCESSES[1], PROCESSES[4]], ids=repr)
def test_the_reverse_process_gives_the_data_back(process):
    law = sde.targets.GaussianMixture([0.3, 0.7], [-1.0, 1.0], 0.1)
    score = sde.marginal_score(process, law)
    start = score.law(process.horizon).sample(4000, 1)
    reverse = sde.ReverseProcess(process, score, process.horizon, dim=1)
    x = sde.simulate(reverse, start, (0.0, process.horizon - 1e-3), n_steps=400, seed=2).final
    assert abs((x < 0).mean() - 0.3) < 0.03
    assert abs(x[x > 0].mean() - 1.0) < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.VarianceExploding(0.0, 1.0), "sigma_min must be > 0"),
        (lambda: sde.VarianceExploding(2.0, 1.0), "sigma_max must be > sigma_min = 2, got 1"),
        (lambda: sde.VariancePreserving(-1.0, 1.0), "beta_min must be > 0"),
        (lambda: sde.SubVariancePreserving(1.0, 1.0), "beta_max must be > beta_min"),
        (lambda: sde.Cosine(-0.1), "offset must be >= 0"),
        (lambda: sde.Cosine(last=1.0), "last must be < 1"),
        (lambda: sde.EDM(1.0, 0.5), "sigma_max must be >"),
    ],
)
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
