"""The autoencoder: exact bounds where the posterior is known, gradients against differences, the same bits, files."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.score.head import Head
from sdesim.score.optimizer import Adam
from sdesim.score.passes import run
from sdesim.score.vae_fit import Bound

GAUSSIAN = sde.targets.Gaussian([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]])
DATA = GAUSSIAN.sample(10_000, 1)
SHORT = {"n_iterations": 30, "batch_size": 64, "seed": 7}


def made(dim=3, latent=2, hidden=(5, 4), *, dtype=np.float64, **options):
    """An autoencoder with a centre, a spread and no weight at its initial value."""
    vae = sde.VAE(dim, latent, hidden, dtype=dtype, seed=3, **options)
    noise = np.random.default_rng(3).standard_normal(vae.size)
    head = Head(centre=np.linspace(0.1, 0.3, dim), spread=1.7)
    return vae.with_parameters((vae.parameters + 0.3 * noise).astype(dtype), head=head)


# ---- probabilistic PCA: a linear decoder, of which everything is known (Tipping & Bishop 1999)

SPREAD, NOISE, CENTRE = 1.7, 0.4, np.array([0.5, -1.0, 2.0])
LOADINGS = np.array([[1.2, -0.3], [0.9, 0.4], [0.0, 0.7]])  # orthogonal columns, so that the posterior is diagonal
EXACT = sde.targets.Gaussian(CENTRE, LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(3))


def linear_vae(shift=0.0, widen=1.0):
    """x = W z + m + s e with its posterior as encoder, its mean shifted and its standard deviation widened.

    softplus(a) − softplus(−a) = a makes a network linear.
    """
    vae = sde.VAE(3, 2, (6,), activation="softplus", dtype=np.float64)
    precision = (LOADINGS**2).sum(axis=0) / NOISE**2 + 1
    inwards = SPREAD * LOADINGS / NOISE**2 / precision  # from y to the posterior's mean
    variance = widen**2 / precision
    encoder, decoder = (np.zeros_like(part) for part in vae.split(vae.parameters))
    (w1, w2), (_, b2) = vae.layouts[0].views(encoder)
    w1[:] = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    w2[:, :2] = np.concatenate([inwards, -inwards])
    b2[:] = np.concatenate([shift * np.ones(2), np.log(variance)])
    (v1, v2), _ = vae.layouts[1].views(decoder)
    v1[:, :4] = np.concatenate([np.eye(2), -np.eye(2)], axis=1)
    v2[:4] = np.concatenate([LOADINGS.T, -LOADINGS.T]) / SPREAD
    flat = np.concatenate([encoder, decoder, [math.log(NOISE / SPREAD)]])
    return vae.with_parameters(flat, head=Head(centre=CENTRE, spread=SPREAD)), precision


def test_the_columns_of_the_example_are_orthogonal():
    assert abs(LOADINGS[:, 0] @ LOADINGS[:, 1]) < 1e-12


@pytest.mark.parametrize("count", [1, 7])
def test_with_the_posterior_as_encoder_the_bound_is_log_p(count):
    vae, _ = linear_vae()
    x = EXACT.sample(300, 1)
    exact = EXACT.log_density(x)
    np.testing.assert_allclose(vae.log_likelihood_bound(x, n_samples=count, seed=2), exact, rtol=1e-9)
    assert vae.noise == pytest.approx(NOISE)
    for broken in (vae.with_parameters(vae.parameters, head=Head(centre=CENTRE, spread=1.0)), linear_vae(0.1)[0]):
        assert abs(broken.log_likelihood_bound(x, n_samples=count, seed=2) - exact).max() > 0.1


@pytest.mark.parametrize(("shift", "widen"), [(0.0, 1.0), (0.3, 1.0), (0.0, 1.6)])
def test_the_elbo_is_below_log_p_by_the_divergence_of_the_encoder(shift, widen):
    vae, precision = linear_vae(shift, widen)
    x = EXACT.sample(300, 1)
    divergence = 0.5 * (shift**2 * precision + widen**2 - 1 - 2 * math.log(widen)).sum()
    gap = vae.elbo(x, n_samples=40, seed=3) - (EXACT.log_density(x) - divergence)
    assert abs(gap.mean()) < 4.5 * gap.std() / math.sqrt(300)
    assert gap.std() < 0.6
    if divergence:
        for factor in (0.0, -1.0):  # a KL term left out or of the wrong sign would be seen
            assert abs(gap.mean() - (factor - 1) * divergence) > 10 * gap.std() / math.sqrt(300)


def test_the_bound_grows_with_the_draws_up_to_log_p():
    vae, _ = linear_vae(0.25, 1.3)
    x = EXACT.sample(2000, 1)
    exact = EXACT.log_density(x).mean()
    gaps = [exact - vae.log_likelihood_bound(x, n_samples=k, seed=4).mean() for k in (1, 10, 100)]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    assert -0.02 < gaps[2] < 0.1
    assert abs(exact - vae.elbo(x, n_samples=4).mean() - gaps[0]) < 0.05  # one draw gives the ELBO


def test_samples_have_the_law_of_the_model():
    vae, _ = linear_vae()
    x = vae.sample(40_000, 5)
    np.testing.assert_allclose(x.mean(axis=0), CENTRE, atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), EXACT.cov, atol=0.07)
    assert (vae.sample(10, 5) == x[:10]).all()
    assert (vae.sample(10, 5, first_path=100) == x[100:110]).all()
    assert not (vae.sample(10, 6) == x[:10]).any()


# ---- gradients


@pytest.mark.parametrize("noise", [None, 0.8])
@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus"])
def test_the_gradient_against_central_differences(noise, activation):
    vae = made(noise=noise, activation=activation)
    n, rng = 300, np.random.default_rng(4)
    learner = Bound(vae, n)
    learner.x[:], learner.noise[:] = rng.standard_normal((n, 3)), rng.standard_normal(learner.noise.shape)

    def loss(parameters):
        learner.parameters[:] = parameters
        run(learner.phases)
        return learner.losses.mean()

    loss(vae.parameters)
    found, h = learner.gradient.copy(), 1e-5
    steps = h * np.eye(vae.size)
    exact = [(loss(vae.parameters + e) - loss(vae.parameters - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(found, exact, atol=1e-7)
    assert (abs(found) > 1e-4).mean() > 0.9
    assert (found[-1] == 0) == (noise is not None)


def test_the_loss_is_minus_the_elbo():
    vae = made()
    n, rng = 5, np.random.default_rng(4)
    x = rng.standard_normal((n, 3))
    learner = Bound(vae, n)
    learner.x[:] = x
    total = np.zeros(n)
    for _ in range(2000):
        learner.noise[:] = rng.standard_normal(learner.noise.shape)
        run(learner.phases)
        total -= learner.losses / 2000
    np.testing.assert_allclose(total, vae.elbo(x, n_samples=2000), rtol=0.05)


# ---- training


def test_it_learns_a_gaussian():
    vae = sde.VAE(2, 1, (32,), seed=1)
    fit = sde.fit_vae(vae, DATA, n_iterations=800, ema=0.99, seed=1, validation=0.1)
    assert fit.success
    fresh = GAUSSIAN.sample(4000, 9)
    entropy = -GAUSSIAN.log_density(fresh).mean()
    nll = -fit.vae.log_likelihood_bound(fresh, n_samples=30).mean()
    assert -0.02 < nll - entropy < 0.06
    assert -vae.with_parameters(vae.parameters, head=fit.vae.head).log_likelihood_bound(fresh).mean() > entropy + 0.4
    assert abs(fit.losses[-200:].mean() - entropy) < 0.1  # in nats of the data as given
    np.testing.assert_allclose(np.cov(fit.vae.sample(20_000, 3).T), GAUSSIAN.cov, atol=0.15)
    assert len(fit.validation) == 5
    assert fit.vae.noise == pytest.approx(math.sqrt(np.linalg.eigvalsh(GAUSSIAN.cov)[0]), rel=0.15)


def test_a_noise_that_is_given_stays():
    fit = sde.fit_vae(sde.VAE(2, 1, (8,), noise=0.3), DATA, weight_decay=0.1, **SHORT)
    assert fit.vae.noise == 0.3
    assert sde.fit_vae(sde.VAE(2, 1, (8,)), DATA, **SHORT).vae.noise != 0.3


def test_the_units_of_the_data_do_not_matter():
    fits = [sde.fit_vae(sde.VAE(2, 1, (8,), dtype=np.float64), unit * DATA, **SHORT) for unit in (1.0, 1000.0)]
    np.testing.assert_allclose(fits[1].losses, fits[0].losses + 2 * math.log(1000), rtol=1e-6)
    np.testing.assert_allclose(fits[1].vae.sample(9, 1), 1000 * fits[0].vae.sample(9, 1), rtol=1e-5)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr("sdesim.score.vae_fit.SMALL", 0.0)
    options = {"n_iterations": 5, "batch_size": 700, "seed": 2}
    a, b = (sde.fit_vae(made(2, dtype=np.float32, hidden=(520, 30)), DATA, workers=k, **options) for k in (1, 3))
    assert (a.losses == b.losses).all()
    assert (a.vae.parameters == b.vae.parameters).all()
    other = sde.fit_vae(made(2, dtype=np.float32, hidden=(520, 30)), DATA, **{**options, "seed": 3})
    assert not (other.losses == a.losses).all()


def test_ctrl_c_returns_what_there_is():
    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    fit = sde.fit_vae(sde.VAE(2, 1, (8,)), DATA, progress=stop, **SHORT)
    assert not fit.success
    assert "interrupted after 12 of 30" in fit.message
    assert len(fit.losses) == 12
    assert "12 steps" in repr(fit)


def test_a_loss_that_explodes_keeps_the_last_good_weights(monkeypatch):
    rate_at = Adam.rate_at
    monkeypatch.setattr(Adam, "rate_at", lambda self, step: 1e30 if step == 20 else rate_at(self, step))
    with pytest.raises(sde.errors.TrainingError, match="at step 21; lower learning_rate") as caught:
        sde.fit_vae(sde.VAE(2, 1, (8, 8)), DATA, **SHORT)
    fit = caught.value.fit
    assert len(fit.losses) == 21
    assert np.isfinite(fit.vae.elbo(DATA[:5])).all()


# ---- shapes, files and bad inputs


@given(n=st.integers(1, 600), dim=st.integers(1, 4), latent=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_shapes(n, dim, latent):
    vae = made(dim, latent, dtype=np.float32)
    x = np.random.default_rng(n).standard_normal((n, dim))
    mean, std = vae.encode(x)
    assert mean.shape == std.shape == (n, latent)
    assert (std > 0).all()
    assert vae.decode(mean).shape == (n, dim)
    assert vae.elbo(x).shape == vae.log_likelihood_bound(x, n_samples=2).shape == (n,)
    assert vae.sample(n, 1).shape == ((n,) if dim == 1 else (n, dim))
    if dim == 1:
        assert (vae.elbo(x[:, 0]) == vae.elbo(x)).all()


@pytest.mark.parametrize("noise", [None, 0.25])
def test_files(tmp_path, noise):
    vae = made(2, noise=noise, activation="tanh", dtype=np.float32)
    sde.save(vae, tmp_path / "vae.npz")
    again, x = sde.load(tmp_path / "vae.npz"), DATA[:9]
    for other in (again, pickle.loads(pickle.dumps(vae)), vae.astype(np.float64).astype(np.float32)):
        assert (other.elbo(x) == vae.elbo(x)).all()
        assert (other.sample(5, 1) == vae.sample(5, 1)).all()
    settings, arrays = vae.stored()
    for name, value in (("parameters", arrays["parameters"][:-1]), ("centre", np.array([0.0, np.nan]))):
        with pytest.raises(ValueError, match="parameters"):
            sde.VAE.restored(settings, {**arrays, name: value})
    with pytest.raises(TypeError, match=r"save fit\.vae"):
        sde.save(sde.fit_vae(sde.VAE(2, 1, (8,)), DATA, n_iterations=2, seed=1), tmp_path / "fit.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.VAE(0), "dim must be >= 1"),
        (lambda: sde.VAE(2, 0), "latent must be >= 1"),
        (lambda: sde.VAE(2, 1, 64), "hidden must be a sequence"),
        (lambda: sde.VAE(2, noise=-1.0), "noise must be > 0"),
        (lambda: made(3).elbo(np.zeros((4, 2))), r"x has shape \(4, 2\), expected \(n, 3\)"),
        (lambda: made(3).decode(np.zeros((4, 3))), r"expected \(n, 2\)"),
        (lambda: made(3).elbo(np.zeros((4, 3)), n_samples=0), "n_samples must be >= 1"),
        (lambda: made(3).sample(0), "n must be >= 1"),
        (lambda: made(2).with_parameters(np.zeros(3)), "parameters has shape"),
        (lambda: sde.fit_vae(sde.ScoreMLP(2), DATA), "vae must be a VAE, got ScoreMLP"),
        (lambda: sde.fit_vae(made(2), np.zeros((0, 2))), "data is empty"),
        (lambda: sde.fit_vae(made(2), np.ones((9, 2))), "data is constant"),
        (lambda: sde.fit_vae(made(2), DATA[:, 0]), "expected"),
        (lambda: sde.fit_vae(made(2), np.full((9, 2), np.inf)), "data must be finite"),
        (lambda: sde.fit_vae(made(2), DATA, batch_size=0), "batch_size must be >= 1"),
        (lambda: sde.fit_vae(made(2), DATA, validation=1.0), "validation must be < 1"),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
