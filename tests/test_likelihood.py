"""Likelihoods by the probability flow against densities that are known, and latent codes there and back."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.generate import likelihood

PLANE = sde.targets.GaussianMixture([0.3, 0.4, 0.3], [[-1.5, 0.3], [1.0, 0.6], [0.2, -1.1]], [0.1, 0.2, 0.15])
VP = sde.VariancePreserving()
PROCESSES = [VP, sde.VarianceExploding(), sde.SubVariancePreserving(), sde.EDM(), sde.Cosine()]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_the_exact_score_gives_the_exact_density(process):
    x = PLANE.sample(200, seed=3)
    found = sde.log_likelihood(process, sde.marginal_score(process, PLANE), x)
    assert np.abs(found - PLANE.log_density(x)).mean() < 3e-4


def test_fixed_steps_and_sixteen_dimensions():
    rng = np.random.default_rng(1)
    target = sde.targets.GaussianMixture(np.full(3, 1 / 3), rng.normal(size=(3, 16)), rng.uniform(0.1, 0.5, (3, 16)))
    x = target.sample(50, seed=4)
    score = sde.marginal_score(VP, target)
    error = {
        n: np.abs(sde.log_likelihood(VP, score, x, n_steps=n) - target.log_density(x)).mean() for n in (12, 24, 64)
    }
    assert error[64] < 1e-3
    assert error[12] / error[24] > 8  # order 4
    assert np.abs(sde.log_likelihood(VP, score, x, rtol=1e-4) - target.log_density(x)).mean() < 3e-3


def test_one_dimension():
    target = sde.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.8], [0.15, 0.2])
    x = np.linspace(-2.5, 2.5, 40)
    found = sde.log_likelihood(VP, sde.marginal_score(VP, target), x)
    assert np.abs(found - target.log_density(x)).max() < 1e-3


class Half(sde.VariancePreserving):
    """σ² halved with the marginals kept: the ½ of the flow becomes ¼."""

    def diffusion(self, x, t):
        return np.sqrt(0.5) * super().diffusion(x, t)


def test_a_wrong_factor_or_a_missing_divergence_is_seen(monkeypatch):
    x = PLANE.sample(50, seed=3)
    score = sde.marginal_score(VP, PLANE)
    assert np.abs(sde.log_likelihood(Half(), score, x, n_steps=40) - PLANE.log_density(x)).mean() > 0.1
    monkeypatch.setattr(likelihood, "divergence_of", lambda *a, **k: lambda x, t, rows: np.zeros(len(x)) - 1e-3)
    assert np.abs(sde.log_likelihood(VP, score, x, n_steps=40) - PLANE.log_density(x)).mean() > 1.0


def test_hutchinson_is_unbiased_and_its_spread_falls_with_probes():
    x = PLANE.sample(400, seed=3)
    score = sde.marginal_score(VP, PLANE)
    true = PLANE.log_density(x)
    spread = {}
    for n_probes in (1, 16):
        run = {"divergence": "hutchinson", "n_probes": n_probes, "n_steps": 24, "seed": 5}
        error = sde.log_likelihood(VP, score, x, **run) - true
        spread[n_probes] = error.std()
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(x))
    assert 3.0 < spread[1] / spread[16] < 5.3
    one = sde.log_likelihood(VP, score, x, divergence="hutchinson", n_steps=24, seed=5, workers=1)
    assert np.array_equal(
        one[:256], sde.log_likelihood(VP, score, x[:256], divergence="hutchinson", n_steps=24, seed=5)
    )


def test_a_networks_closed_form_is_used_and_agrees_with_its_probes():
    net = sde.ScoreMLP(3, hidden=(24, 24), seed=2, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(20, 3))
    exact = sde.log_likelihood(VP, net, x, n_steps=16)
    plain = sde.log_likelihood(VP, lambda x, t: net(x, t), x, n_steps=16)
    assert np.allclose(exact, plain, atol=1e-5)
    probed = sde.log_likelihood(VP, net, x, n_steps=16, divergence="hutchinson", n_probes=25)
    assert np.abs(exact - probed).mean() < 0.3
    assert abs((exact - probed).mean()) < 4 * (exact - probed).std() / np.sqrt(20)


def test_densities_integrate_to_one():
    score = sde.marginal_score(VP, PLANE)
    axis = np.linspace(-4, 4, 41)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    p = np.exp(sde.log_likelihood(VP, score, points, n_steps=24))
    assert abs(p.sum() * (axis[1] - axis[0]) ** 2 - 1.0) < 2e-3


def test_bits_per_dim_of_uniform_pixels_and_of_a_normal_law():
    # a score whose law is N(0, s²) on the scale of the pixels: the cross entropy is known
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, size=(300, 2, 2))
    law = sde.targets.Gaussian(np.zeros(4), 0.3)
    bits = sde.bits_per_dim(VP, sde.marginal_score(VP, law), pixels, n_steps=16, seed=1)
    # E over uniform x on (−1, 1): ½ log₂(2π s²) + (1/3)/(2 s²) log₂ e, and 8 − 1 bits of the scale
    expected = 0.5 * np.log2(2 * np.pi * 0.3) + (1 / 3) / (2 * 0.3) * np.log2(np.e) + 7.0
    assert bits.shape == (300,)
    assert abs(bits.mean() - expected) < 4 * bits.std() / np.sqrt(300)
    few = sde.bits_per_dim(VP, sde.marginal_score(VP, law), pixels // 16, levels=16, n_steps=16, seed=1)
    assert abs(few.mean() - (expected - 4.0)) < 4 * few.std() / np.sqrt(300)


# ---- classes --------------------------------------------------------------------------------------------------------

MEANS, VARIANCES = np.array([[-1.5, 0.3], [1.0, 0.6], [0.2, -1.1]]), np.array([0.1, 0.2, 0.15])
PARTS = [sde.targets.Gaussian(mean, variance) for mean, variance in zip(MEANS, VARIANCES, strict=True)]
WHOLE = sde.marginal_score(VP, PLANE)
SCORES = [sde.marginal_score(VP, part) for part in PARTS]


def parts(x, t, labels=None):
    """The score of a mixture whose class k is component k, and of the whole mixture without a class."""
    found = WHOLE(x, t)
    if labels is not None:
        assert len(labels) == len(x)
        for k, score in enumerate(SCORES):
            found = np.where((labels == k)[:, None], score(x, t), found)
    return found


def of_classes(x, labels):
    return np.select([labels == k for k in (-1, 0, 1, 2)], [PLANE.log_density(x), *(p.log_density(x) for p in PARTS)])


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])  # J is a multiple of 1 in a class, so probes are exact
def test_each_point_has_the_density_of_its_class(divergence):
    x = PLANE.sample(300, seed=6)
    labels = np.arange(300) % 3
    run = {"divergence": divergence, "rtol": 1e-7}
    found = sde.log_likelihood(VP, parts, x, labels=labels, **run)
    assert np.abs(found - of_classes(x, labels)).max() < 1e-4
    fixed = sde.log_likelihood(VP, parts, x, labels=labels, divergence=divergence, n_steps=64)
    assert np.abs(fixed - of_classes(x, labels)).max() < 1e-4
    other = sde.log_likelihood(VP, parts, x[:30], labels=(labels[:30] + 1) % 3, **run)
    assert np.abs(other - found[:30]).min() > 1e-2
    one = sde.log_likelihood(VP, parts, x[:30], labels=2, **run)
    assert np.array_equal(one[2::3], sde.log_likelihood(VP, parts, x[2:30:3], labels=np.full(10, 2), **run))


def test_a_divergence_without_the_classes_is_seen_and_none_is_the_whole(monkeypatch):
    x, labels = PLANE.sample(30, seed=6), np.arange(30) % 3
    plain = sde.log_likelihood(VP, parts, x, labels=-1, n_steps=64)
    assert np.abs(plain - PLANE.log_density(x)).max() < 1e-3
    near = sde.log_likelihood(VP, parts, x, labels=np.where(labels == 1, -1, labels), n_steps=64)
    assert np.allclose(near[labels == 1], plain[labels == 1], atol=1e-9)
    known = likelihood.divergence_of
    monkeypatch.setattr(likelihood, "divergence_of", lambda *a, **k: known(*a, **{**k, "labels": None}))
    wrong = sde.log_likelihood(VP, parts, x, labels=labels, n_steps=64)
    assert np.abs(wrong - of_classes(x, labels)).mean() > 0.05


def test_a_network_with_classes():
    net = sde.ResidualMLP(3, width=16, n_blocks=1, n_classes=2, process=VP, seed=1, dtype=np.float64)
    net = net.with_parameters(net.parameters + 0.2 * np.random.default_rng(0).normal(size=net.parameters.size))
    x, labels = np.random.default_rng(1).normal(size=(12, 3)), np.arange(12) % 3 - 1
    exact = sde.log_likelihood(VP, net, x, labels=labels, n_steps=16)
    plain = sde.log_likelihood(VP, lambda x, t, labels: net(x, t, labels), x, labels=labels, n_steps=16)
    assert np.allclose(exact, plain, atol=1e-5)
    other = sde.log_likelihood(VP, net, x, labels=np.where(labels >= 0, 1 - labels, -1), n_steps=16)
    assert np.abs(exact - other)[labels >= 0].min() > 1e-3
    assert np.abs(exact - sde.log_likelihood(VP, net, x, n_steps=16))[labels < 0].max() < 1e-12  # −1 is no class
    run = {"labels": labels, "n_steps": 16, "divergence": "hutchinson", "n_probes": 3}
    probed = sde.log_likelihood(VP, net, x, **run)
    differences = sde.log_likelihood(VP, lambda x, t, labels: net(x, t, labels), x, **run)
    assert np.allclose(probed, differences, atol=1e-5)
    for call in (sde.log_likelihood, sde.encode, sde.decode):
        with pytest.raises(ValueError, match="labels must lie in 0 … 1, the classes of the network, got 2"):
            call(VP, net, x, labels=2)
        with pytest.raises(ValueError, match=r"labels has shape \(3,\), expected one class or \(12,\)"):
            call(VP, net, x, labels=[0, 1, 1])
        with pytest.raises(TypeError, match="labels must be whole numbers, got dtype float64"):
            call(VP, net, x, labels=np.zeros(12))


def test_bits_of_a_class():
    pixels = np.random.default_rng(2).integers(0, 256, size=(20, 2))
    bits = sde.bits_per_dim(VP, parts, pixels, labels=1, n_steps=24, seed=1)
    alone = sde.bits_per_dim(VP, SCORES[1], pixels, n_steps=24, seed=1)
    assert np.allclose(bits, alone, atol=1e-4)
    assert np.abs(bits - sde.bits_per_dim(VP, parts, pixels, labels=0, n_steps=24, seed=1)).max() > 0.1


def test_codes_of_classes():
    x, labels = PLANE.sample(60, seed=8), np.arange(60) % 3
    z = sde.encode(VP, parts, x, labels=labels)
    assert np.abs(sde.decode(VP, parts, z, labels=labels) - x).max() < 1e-4
    # the flow of N(m, v 1) is linear: a code is the point in the units of its class, in any class
    own = (x - MEANS[labels]) / np.sqrt(VARIANCES[labels])[:, None]
    assert np.abs(z - own).max() < 0.02
    other = (labels + 1) % 3
    there = sde.decode(VP, parts, z, labels=other)
    assert np.abs(there - MEANS[other] - np.sqrt(VARIANCES[other])[:, None] * own).max() < 0.01


# ---- latent codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [VP, sde.EDM()], ids=["VP", "EDM"])
def test_codes_go_there_and_back(process):
    score = sde.marginal_score(process, PLANE)
    x = PLANE.sample(300, seed=8)
    z = sde.encode(process, score, x)
    away = np.abs(sde.decode(process, score, z) - x)
    assert away.mean() < 5e-5
    assert away.max() < 5e-3  # between the modes, where the flow pulls neighbours apart
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(300)
    assert np.abs(z.std(axis=0) - 1).max() < 4 / np.sqrt(600)


def test_interpolation_keeps_the_length_of_noise():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 784))
    path = sde.interpolate(a, b, 9)
    assert path.shape == (9, 5, 784)
    assert np.allclose(path[0], a)
    assert np.allclose(path[-1], b)
    assert np.abs(np.linalg.norm(path, axis=-1) / np.sqrt(784) - 1).max() < 0.1
    straight = 0.5 * (a + b)
    assert np.linalg.norm(straight, axis=-1).max() / np.sqrt(784) < 0.8
    angles = np.arccos([(path[i] * path[i + 1]).sum(-1) / np.linalg.norm(path[i], axis=-1)
                        / np.linalg.norm(path[i + 1], axis=-1) for i in range(8)])  # fmt: skip
    assert np.ptp(angles, axis=0).max() < 0.03  # equal but for the lengths of a and b
    assert np.allclose(sde.interpolate(a[0], 2 * a[0], 3)[1], 1.5 * a[0])
    assert np.isfinite(sde.interpolate(a[0], -a[0], 3)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: sde.log_likelihood(VP, s, x, t_end=1.0), "t_end must lie below the horizon = 1"),
        (lambda s, x: sde.log_likelihood(VP, s, x, n_steps=4, rtol=1e-3), "n_steps and rtol are both given"),
        (lambda s, x: sde.log_likelihood(VP, s, x[:, :1]), r"x has shape \(5, 1\), expected \(n, 2\)"),
        (lambda s, x: sde.log_likelihood(VP, s, x, divergence="trace"), "divergence must be one of"),
        (lambda s, x: sde.log_likelihood(VP, lambda x, t: -x, np.zeros((2, 100))), "differences in 100 dimensions"),
        (lambda s, x: sde.log_likelihood(VP, lambda x, t: np.nan * x, x), "score returned nan at row 0, .* t = 0.001"),
        (lambda s, x: sde.log_likelihood(VP, s, x * np.inf), "x must be finite"),
        (lambda s, x: sde.bits_per_dim(VP, s, np.full((2, 2), 256)), "pixels must lie in 0 … 255, got 256 to 256"),
        (lambda s, x: sde.interpolate(x[0], x, 3), "z0 and z1 have shapes"),
        (lambda s, x: sde.encode(VP, s, x[0]), r"x has shape \(2,\), expected \(n, 2\)"),
    ],
)  # fmt: skip
def test_wrong_arguments(call, message):
    x = PLANE.sample(5, seed=1)
    with pytest.raises(ValueError, match=message):
        call(sde.marginal_score(VP, PLANE), x)


def test_pixels_are_whole_numbers():
    with pytest.raises(TypeError, match="pixels must be whole numbers"):
        sde.bits_per_dim(VP, sde.marginal_score(VP, PLANE), np.zeros((2, 2)))
