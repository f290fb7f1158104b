"""Energy models: the score is −∇E, the gradient that of the likelihood, chains keep the law, the bits come back."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.score import activations
from sdesim.score.energy_fit import Likelihood
from sdesim.score.head import Head
from sdesim.score.optimizer import Adam
from sdesim.score.passes import run

GAUSSIAN = sde.targets.Gaussian([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]])
DATA = GAUSSIAN.sample(10_000, 1)
SHORT = {"n_iterations": 30, "batch_size": 64, "n_steps": 3, "seed": 7}


def made(dim=3, hidden=(8, 11), *, dtype=np.float64, seed=3, **options):
    """An energy with a centre, a spread and no weight at its initial value."""
    energy = sde.EnergyMLP(dim, hidden, seed=seed, dtype=dtype, **options)
    noise = np.random.default_rng(seed).standard_normal(energy.parameters.size)
    head = Head(centre=np.linspace(0.1, 0.3, dim), spread=1.7)
    return energy.with_parameters((energy.parameters + 0.3 * noise).astype(dtype), head=head)


def gaussian_energy(dim=1, spread=1.0, centre=0.0, confinement=1.0, dtype=np.float64):
    """f = 0: the law N(centre, spread²/confinement)."""
    energy = sde.EnergyMLP(dim, (4,), confinement=confinement, dtype=dtype)
    return energy.with_parameters(0.0 * energy.parameters, head=Head(centre=centre * np.ones(dim), spread=spread))


# ---- the energy and its score


def test_the_energy_is_a_network_and_a_well():
    energy = made(2, (5, 4), activation="tanh", confinement=0.3)
    x = np.random.default_rng(0).standard_normal((300, 2))
    layout = energy.layout.views(energy.parameters)
    y = h = (x - energy.centre) / 1.7
    for weights, bias in list(zip(*layout, strict=True))[:-1]:
        h = np.tanh(h @ weights + bias)
    f = (h @ layout[0][-1] + layout[1][-1])[:, 0]
    np.testing.assert_allclose(energy.energy(x), f + 0.15 * (y**2).sum(axis=1), rtol=1e-12)
    assert (energy.log_density(x) == -energy.energy(x)).all()
    np.testing.assert_allclose(energy.density(x), np.exp(-energy.energy(x)))


@pytest.mark.parametrize("hidden", [(9,), (8, 11), (7, 8, 9)])
@pytest.mark.parametrize("activation", activations.NAMES)
def test_the_score_is_minus_the_gradient(hidden, activation):
    energy = made(3, hidden, activation=activation)
    x, h = 2.0 * np.random.default_rng(1).standard_normal((300, 3)), 1e-5
    slope = np.stack([(energy.energy(x + h * e) - energy.energy(x - h * e)) / (2 * h) for e in np.eye(3)], axis=1)
    s = energy.score(x, 0.7)
    np.testing.assert_allclose(s, -slope, atol=1e-8 * abs(slope).max())
    assert abs(s - slope).max() > 0.1 * abs(slope).max()  # the other sign would be seen
    e, both = energy.energy_and_score(x)
    np.testing.assert_allclose(e, energy.energy(x), rtol=1e-14)
    assert (both == s).all()


def test_without_its_network_it_is_a_gaussian():
    energy = gaussian_energy(2, spread=1.5, centre=0.4, confinement=0.5)
    exact = sde.targets.Gaussian([0.4, 0.4], 1.5**2 / 0.5 * np.eye(2))
    x = np.random.default_rng(2).standard_normal((50, 2))
    np.testing.assert_allclose(energy.score(x), exact.score(x), rtol=1e-12)
    gap = energy.log_density(x) - exact.log_density(x)
    np.testing.assert_allclose(gap, math.log(2 * math.pi * 1.5**2 / 0.5), rtol=1e-12)  # log Z


@pytest.mark.parametrize("activation", activations.NAMES)
def test_it_confines_whatever_the_weights_are(activation):
    energy = made(2, activation=activation)
    energy = energy.with_parameters(20.0 * energy.parameters)
    rays = np.random.default_rng(3).standard_normal((200, 2))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    far = 1e6 * rays
    assert (energy.energy(far) > 1e9).all()
    assert ((energy.score(far) * rays).sum(axis=1) < 0).all()


def test_the_energy_of_n_0_theta_is_plus_x_squared_over_two_theta():
    """Slip 3: E = +x²/2θ, and −E[log p] = E[E] + log Z, here the entropy ½ log 2πeθ."""
    theta = 2.3
    energy = gaussian_energy(1, spread=math.sqrt(theta))
    x = math.sqrt(theta) * np.random.default_rng(4).standard_normal(200_000)
    np.testing.assert_allclose(energy.energy(x), x**2 / (2 * theta), rtol=1e-12)
    log_z, entropy = 0.5 * math.log(2 * math.pi * theta), 0.5 * math.log(2 * math.pi * math.e * theta)
    assert abs(energy.energy(x).mean() + log_z - entropy) < 5 * math.sqrt(0.5 / len(x))
    assert abs(energy.energy(x).mean() - log_z - entropy) > 1  # the slide's sign
    normal = energy.normalized(log_z)
    np.testing.assert_allclose(normal.log_density(x), sde.targets.Gaussian(0.0, theta).log_density(x), rtol=1e-9)
    assert (normal.score(x) == energy.score(x)).all()


def test_without_z_the_objective_has_no_minimum():
    """E[E_θ] of N(0, θ) alone falls for ever as θ grows; with log Z its minimum is at θ = E[x²]."""
    x = np.random.default_rng(5).normal(0.0, 1.5, 5000)
    thetas = np.geomspace(0.1, 100.0, 301)
    means = np.array([gaussian_energy(1, spread=math.sqrt(theta)).energy(x).mean() for theta in thetas])
    assert (np.diff(means) < 0).all()
    best = thetas[np.argmin(means + 0.5 * np.log(2 * math.pi * thetas))]
    assert best == pytest.approx((x**2).mean(), rel=0.03)


@given(n=st.integers(1, 600), dim=st.integers(1, 4), single=st.booleans())
@settings(max_examples=20, deadline=None)
def test_shapes_and_types(n, dim, single):
    energy = made(dim, dtype=np.float32)
    x = np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32 if single else np.float64)
    assert energy.energy(x).shape == (n,)
    assert energy.score(x).shape == x.shape
    assert energy.energy(x).dtype == energy.score(x).dtype == x.dtype
    assert (energy.energy(x[:7]) == energy.energy(x)[:7]).all()
    if dim == 1:
        assert (energy.energy(x[:, 0]) == energy.energy(x)).all()
        assert energy.score(x[:, 0]).shape == (n,)
        assert energy.energy(0.5).shape == ()
    else:
        assert energy.energy(x[0]).shape == ()
        assert energy.score(x[0]).shape == (dim,)


# ---- where it plugs in


@pytest.mark.parametrize(("method", "biased"), [("mala", False), ("unadjusted_langevin", True)])
def test_simulate_samples_it(method, biased):
    """Of N(0, v) the unadjusted algorithm keeps N(0, v/(1 − dt/2v)), MALA the law itself."""
    energy, dt, n = gaussian_energy(2, spread=2.0, centre=1.0, dtype=np.float32), 2.0, 4000
    paths = sde.simulate(
        sde.Langevin(energy), np.ones(2), (0.0, 40 * dt), n_steps=40, n_paths=n, method=method, dtype=np.float32, seed=3
    )
    v = 4.0 / (1 - dt / 8.0) if biased else 4.0
    error = v / math.sqrt(n)  # √2 v/√(2n)
    assert abs(paths.final.var() - v) < 4.5 * error
    assert abs(paths.final.var() - (4.0 if biased else 5.33)) > 10 * error
    if method == "mala":
        assert 0.6 < 1 - paths.steps_rejected.mean() / 40 < 0.99


def test_it_plugs_into_the_fisher_divergence_and_the_score_field():
    import matplotlib.pyplot as plt

    energy = gaussian_energy(2, spread=1.5)
    exact = sde.targets.Gaussian([0.0, 0.0], 2.25 * np.eye(2))
    x = exact.sample(1000, 1)
    assert sde.fisher_divergence(energy.score, exact, x) < 1e-20
    assert sde.fisher_divergence(lambda x, t: -energy.score(x), exact, x) > 1
    ax = sde.plot.score_field(energy, -3.0, 3.0, n=6)
    plt.close(ax.figure)


# ---- the gradient of the likelihood


def test_the_gradient_against_central_differences():
    energy = made(2, (7, 5))
    learner = Likelihood(energy, 20, 300)
    rng = np.random.default_rng(5)
    learner.points[:] = rng.standard_normal(learner.points.shape)

    def loss(parameters):
        now = energy.with_parameters(parameters)
        return now.energy(learner.x).mean() - now.energy(learner.chains).mean()

    run(learner.phases)
    assert learner.losses.mean() == pytest.approx(loss(energy.parameters), rel=1e-10)
    found, h = learner.gradient.copy(), 1e-6
    steps = h * np.eye(len(found))
    exact = [(loss(energy.parameters + step) - loss(energy.parameters - step)) / (2 * h) for step in steps]
    np.testing.assert_allclose(found, exact, atol=1e-8)
    assert abs(found).max() > 0.01


def test_the_gradient_is_that_of_the_likelihood():
    """E_data[∇E] − E_model[∇E] = ∇(E_data[E] + log Z), by quadrature on a line."""
    energy = made(1, (6, 5))
    grid = np.linspace(-25, 25, 20_001)
    data = np.random.default_rng(6).normal(0.5, 0.7, 400)

    def parts(parameters):
        now = energy.with_parameters(parameters)
        return np.array([now.energy(data).mean(), math.log(np.exp(-now.energy(grid)).sum() * 0.0025)])

    p = np.cumsum(energy.density(grid))
    n = 4000
    quantiles = np.interp((np.arange(n) + 0.5) / n, p / p[-1], grid + 0.00125)  # a sample of the model without noise
    learner = Likelihood(energy, len(data), n)
    learner.x[:, 0], learner.chains[:, 0] = data, quantiles
    run(learner.phases)
    h, steps = 1e-5, np.eye(energy.layout.size)
    slopes = np.array([parts(energy.parameters + h * e) - parts(energy.parameters - h * e) for e in steps]) / (2 * h)
    for log_z, close in ((1.0, True), (-1.0, False), (0.0, False)):  # the slide's sign, and no Z at all
        gap = abs(learner.gradient - slopes @ [1.0, log_z]).max() / abs(learner.gradient).max()
        assert (gap < 5e-3) == close, (log_z, gap)


# ---- training


def moments(energy, lower=-10.0, upper=10.0, n=400):
    """Mean and covariance of a law in the plane by quadrature."""
    line = np.linspace(lower, upper, n)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    p = energy.density(x).astype(float)
    p /= p.sum()
    mean = p @ x
    return mean, np.einsum("n,ni,nj->ij", p, x - mean, x - mean)


@pytest.mark.parametrize("sampler", ["mala", "langevin"])
def test_it_learns_a_gaussian(sampler):
    net = sde.EnergyMLP(2, (32, 32), seed=1)
    step = None if sampler == "mala" else 0.05
    fit = sde.fit_energy(
        net, DATA, sampler, n_iterations=400, batch_size=128, n_steps=5, step_size=step, ema=0.99, seed=1
    )
    assert fit.success
    assert len(fit.losses) == len(fit.acceptance) == 400
    mean, cov = moments(fit.energy)
    np.testing.assert_allclose(mean, GAUSSIAN.mean, atol=0.25)
    np.testing.assert_allclose(cov, GAUSSIAN.cov, atol=0.45)
    assert abs(moments(net.with_parameters(net.parameters, head=fit.energy.head))[1] - GAUSSIAN.cov).max() > 2.0
    if sampler == "mala":
        assert 0.5 < fit.acceptance[-100:].mean() < 0.65
    else:
        assert (fit.acceptance == 1.0).all()


@pytest.mark.slow
def test_it_learns_the_weights_of_two_modes():
    target = sde.targets.GaussianMixture([0.3, 0.7], [-1.3, 1.3], [0.35, 0.3])
    data = target.sample(20_000, 1)
    net = sde.EnergyMLP(1, (32, 32), seed=1)
    fit = sde.fit_energy(net, data, n_iterations=1000, n_chains=512, n_steps=5, ema=0.995, seed=1)
    x = np.linspace(-8, 8, 4001)
    p = fit.energy.density(x).astype(float)
    left = p[x < 0].sum() / p.sum()
    assert abs(left - target.density(x)[x < 0].sum() * 0.004) < 0.03
    kl = (target.density(x) * (target.log_density(x) - np.log(p / (p.sum() * 0.004)))).sum() * 0.004
    assert kl < 0.02


def test_short_run_chains_start_from_noise():
    fit = sde.fit_energy(sde.EnergyMLP(2, (16,)), DATA, chains="short_run", step_size=1e-9, **SHORT)
    assert abs(fit.chains.mean(axis=0) - DATA.mean(axis=0)).max() < 0.6
    spread = math.sqrt(DATA.var(axis=0).mean())
    np.testing.assert_allclose(fit.chains.std(axis=0), spread, rtol=0.35)  # isotropic, which the data are not
    held = sde.fit_energy(sde.EnergyMLP(2, (16,)), DATA, step_size=1e-9, **SHORT)
    near = np.linalg.norm(held.chains[:, None] - DATA[None].astype(np.float32), axis=2).min(axis=1)
    assert near.max() < 1e-2  # persistent ones start in the data


@pytest.mark.parametrize("sampler", ["mala", "langevin"])
def test_any_number_of_threads_gives_the_same_bits(sampler, monkeypatch):
    monkeypatch.setattr("sdesim.score.energy_fit.SMALL", 0.0)
    options = {"n_iterations": 5, "batch_size": 300, "n_chains": 600, "n_steps": 3, "seed": 2}
    a, b = (sde.fit_energy(made(2, dtype=np.float32), DATA, sampler, workers=k, **options) for k in (1, 3))
    assert (a.losses == b.losses).all()
    assert (a.chains == b.chains).all()
    assert (a.energy.parameters == b.energy.parameters).all()
    other = sde.fit_energy(made(2, dtype=np.float32), DATA, sampler, **{**options, "seed": 3})
    assert not (other.losses == a.losses).all()


def test_the_noise_of_every_step_is_new():
    """Chains that do not feel the energy are Brownian: their steps from one iteration to the next are independent."""
    ends = []
    for n in (1, 2, 3):
        fit = sde.fit_energy(
            sde.EnergyMLP(2, (4,), dtype=np.float64), DATA, "langevin", n_iterations=n, n_steps=1, step_size=1e-6,
            batch_size=400, seed=1,
        )  # fmt: skip
        ends.append(fit.chains)
    first, second = ends[1] - ends[0], ends[2] - ends[1]
    assert abs(first.std() / math.sqrt(2e-6) - 1) < 0.15
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4.5 / math.sqrt(800)


def test_ctrl_c_returns_what_there_is():
    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    fit = sde.fit_energy(sde.EnergyMLP(2, (16,)), DATA, progress=stop, **SHORT)
    assert not fit.success
    assert "interrupted after 12 of 30" in fit.message
    assert len(fit.losses) == len(fit.acceptance) == 12
    assert np.isfinite(fit.energy.energy(DATA[:5])).all()


@pytest.mark.parametrize("sampler", ["mala", "langevin"])
def test_a_loss_that_explodes_keeps_the_last_good_weights(monkeypatch, sampler):
    rate_at = Adam.rate_at
    monkeypatch.setattr(Adam, "rate_at", lambda self, step: 1e30 if step == 20 else rate_at(self, step))
    with pytest.raises(
        sde.errors.TrainingError, match=r"step 21; lower learning_rate \(0.002\) or step_size"
    ) as caught:
        sde.fit_energy(sde.EnergyMLP(2, (16, 16)), DATA, sampler, **SHORT)
    fit = caught.value.fit
    assert not fit.success
    assert len(fit.losses) == 21
    assert np.isfinite(fit.energy.energy(DATA[:5])).all()


def test_chains_that_leave_are_told():
    with pytest.raises(sde.errors.TrainingError, match="or step_size"):
        sde.fit_energy(sde.EnergyMLP(2, (16, 16)), DATA, "langevin", step_size=1e4, **{**SHORT, "n_steps": 60})


def test_a_training_that_runs_away_is_told():
    modes = sde.targets.GaussianMixture([0.3, 0.7], [[-1.2, -0.5], [1.2, 0.5]], [0.3, 0.3]).sample(2000, 1)
    net, options = sde.EnergyMLP(2, (16, 16), seed=1), {**SHORT, "n_iterations": 300, "learning_rate": 1e-2}
    with pytest.warns(UserWarning, match="far from 0: the chains do not follow"):
        sde.fit_energy(net, modes, "langevin", step_size=0.4, **options)
    assert abs(sde.fit_energy(net, modes, "mala", **options).losses[-100:].mean()) < 0.5


def test_the_energy_that_was_given_stays_as_it_is():
    net = sde.EnergyMLP(2, (16,))
    before = net.parameters.copy()
    fit = sde.fit_energy(net, DATA, **SHORT)
    assert (net.parameters == before).all()
    assert not (fit.energy.parameters == before).all()
    assert "30 steps" in repr(fit)
    assert (fit.score(DATA[:9], 0.3) == fit.energy.score(DATA[:9])).all()
    with pytest.raises(ValueError, match="read-only"):
        net.parameters[0] = 1.0


# ---- files and bad inputs


def test_files(tmp_path):
    energy = made(2, (8, 9), activation="softplus", dtype=np.float32, confinement=0.7)
    sde.save(energy, tmp_path / "energy.npz")
    again = sde.load(tmp_path / "energy.npz")
    x = DATA[:9]
    assert (again.energy(x) == energy.energy(x)).all()
    assert (again.score(x) == energy.score(x)).all()
    assert (pickle.loads(pickle.dumps(energy)).energy(x) == energy.energy(x)).all()
    with pytest.raises(TypeError, match=r"save fit\.energy"):
        sde.save(sde.fit_energy(energy, DATA, n_iterations=2, seed=1), tmp_path / "fit.npz")
    settings, arrays = energy.stored()
    for name, value in (("parameters", arrays["parameters"][:-1]), ("centre", np.array([0.0, np.nan]))):
        with pytest.raises(ValueError, match="parameters"):
            sde.EnergyMLP.restored(settings, {**arrays, name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.EnergyMLP(0), "dim must be >= 1"),
        (lambda: sde.EnergyMLP(2, 64), "hidden must be a sequence"),
        (lambda: sde.EnergyMLP(2, activation="relu"), "activation must be one of"),
        (lambda: sde.EnergyMLP(2, confinement=0.0), "confinement must be > 0"),
        (lambda: made(3).energy(np.zeros((4, 2))), r"x has shape \(4, 2\), expected \(n, 3\)"),
        (lambda: made(2).score(np.zeros((4, 2), complex)), "real numbers"),
        (lambda: made(2).with_parameters(np.zeros(3)), "parameters has shape"),
        (lambda: sde.fit_energy(sde.ScoreMLP(2), DATA), "net must be an EnergyMLP, got ScoreMLP"),
        (lambda: sde.fit_energy(made(2), np.zeros((0, 2))), "data is empty"),
        (lambda: sde.fit_energy(made(2), np.ones((9, 2))), "data is constant"),
        (lambda: sde.fit_energy(made(2), DATA[:, 0]), "expected"),
        (lambda: sde.fit_energy(made(2), np.full((9, 2), np.nan)), "data must be finite"),
        (lambda: sde.fit_energy(made(2), DATA, "hmc"), "sampler must be one of 'langevin', 'mala'"),
        (lambda: sde.fit_energy(made(2), DATA, chains="long"), "chains must be one of"),
        (lambda: sde.fit_energy(made(2), DATA, step_size=0.0), "step_size must be > 0"),
        (lambda: sde.fit_energy(made(2), DATA, n_chains=0), "n_chains must be >= 1"),
        (lambda: sde.fit_energy(made(2), DATA, n_steps=0), "n_steps must be >= 1"),
        (lambda: sde.fit_energy(made(2), DATA, seed=-1), "seed must be"),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
