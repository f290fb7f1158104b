"""log Z by annealed importance sampling: known constants are found, and the error bar is one."""

import math

import numpy as np
import pytest

import sdesim as sde
from sdesim.score import partition

GAUSSIAN = sde.targets.Gaussian([1.0, 2.0], [[1.0, 0.5], [0.5, 2.0]])
MIXTURE = sde.targets.GaussianMixture([0.3, 0.7], [-2.0, 1.5], [0.3, 0.5])
WIDE = sde.targets.Gaussian([0.0, 0.0], 9.0 * np.eye(2))
LOG_Z = 3.7


class Scaled:
    """A law times e^{LOG_Z}: no Target, only something with log_density and score."""

    def __init__(self, law, log_z=LOG_Z):
        self.law, self.log_z, self.dim = law, log_z, law.dim
        self.mean, self.cov = law.mean, law.cov

    def log_density(self, x):
        return self.law.log_density(x) + self.log_z

    def score(self, x):
        return self.law.score(x)


CASES = [
    (GAUSSIAN, WIDE, {"n_levels": 20, "n_steps": 1}),
    (MIXTURE, None, {"n_levels": 20, "n_steps": 1}),
    (MIXTURE, sde.targets.Gaussian(0.5, 9.0), {"n_levels": 12, "n_steps": 2, "step_size": 0.3}),
]


def scores(law, reference, options, seeds=30, n_chains=128):
    """(estimate − truth)/standard error for many seeds."""
    found = [
        sde.log_partition(Scaled(law), reference=reference, n_chains=n_chains, seed=seed, workers=1, **options)
        for seed in range(seeds)
    ]
    return np.array([(r.value - LOG_Z) / r.standard_error for r in found]), found


def covered(z):
    """Whether errors look like those that their bars promise, at a level of about 1e-3 each."""
    n = len(z)
    within = (abs(z) < 1.0).sum()
    mean = abs(z.mean()) < 3.5 / math.sqrt(n) + 0.15  # the logarithm of a mean is low by half a bar of its square
    return 0.683 * n - 3.3 * math.sqrt(n * 0.217) < within < 0.683 * n + 3.3 * math.sqrt(n * 0.217) and mean


@pytest.mark.parametrize(("law", "reference", "options"), CASES)
def test_the_error_bar_covers_the_truth(law, reference, options):
    z, found = scores(law, reference, options)
    assert covered(z), z
    assert abs(z).max() < 5
    assert all(0.001 < r.standard_error < 0.3 for r in found)
    assert not covered(3.0 * z)  # a bar of a third of its length would be seen


class Broken(partition._Annealing):
    """The annealing with one slip."""

    slip = ""

    def run(self, block, tune=False):
        log_w, accepted = super().run(block, tune)
        start = self.start.sample(block.size, self.seed, first_path=block.first)
        return {"sign": -log_w, "no log q": log_w + self.start.log_density(start)}.get(self.slip, log_w), accepted


@pytest.mark.parametrize("slip", ["", "sign", "no log q"])
def test_a_slip_is_seen(slip, monkeypatch):
    monkeypatch.setattr(partition, "_Annealing", type("Slipped", (Broken,), {"slip": slip}))
    near = sde.targets.Gaussian(GAUSSIAN.mean, 1.5 * GAUSSIAN.cov)
    z, _ = scores(GAUSSIAN, near, {"n_levels": 20, "n_steps": 1}, seeds=4)
    assert abs(z).min() > 5 if slip else abs(z).max() < 4


def test_transitions_that_keep_another_law_are_seen(monkeypatch):
    """Without the Metropolis test the chains keep a law that is too wide, and the weights are those of no Z."""
    from sdesim.integrate.schemes import SCHEMES

    options = {"n_levels": 100, "n_steps": 2, "step_size": 0.9, "n_chains": 1024, "seed": 1}
    right = sde.log_partition(Scaled(GAUSSIAN), reference=WIDE, **options)
    assert abs(right.value - LOG_Z) < 4 * right.standard_error
    monkeypatch.setitem(SCHEMES, "mala", SCHEMES["unadjusted_langevin"])
    wrong = sde.log_partition(Scaled(GAUSSIAN), reference=WIDE, **options)
    assert abs(wrong.value - LOG_Z) > 8 * wrong.standard_error


@pytest.mark.parametrize(("law", "start"), [(GAUSSIAN, WIDE), (MIXTURE, sde.targets.Gaussian(0.5, 9.0))])
def test_the_densities_between(law, start):
    """log f_β = (1 − β) log q + β log p̃ and its gradient: a wrong one would only slow the transitions down."""
    between, x, h = partition._Between(Scaled(law), start, 0.3), start.sample(20, 1).reshape(20, -1), 1e-6
    at = partition._points
    expected = 0.7 * start.log_density(at(x)) + 0.3 * (law.log_density(at(x)) + LOG_Z)
    np.testing.assert_allclose(between.log_density(at(x)), expected, rtol=1e-12)
    slope = [
        (between.log_density(at(x + h * e)) - between.log_density(at(x - h * e))) / (2 * h) for e in np.eye(x.shape[1])
    ]
    np.testing.assert_allclose(between.score(x), np.stack(slope, axis=1), atol=1e-6)


def test_one_level_is_importance_sampling():
    found = sde.log_partition(Scaled(GAUSSIAN), reference=WIDE, n_levels=1, n_chains=2000, seed=3)
    x = WIDE.sample(2000, 3)
    log_w = GAUSSIAN.log_density(x) + LOG_Z - WIDE.log_density(x)
    np.testing.assert_allclose(found.log_weights, log_w, rtol=1e-12)
    w = np.exp(log_w)
    assert found.value == pytest.approx(math.log(w.mean()), rel=1e-12)
    assert found.standard_error == pytest.approx(w.std(ddof=1) / w.mean() / math.sqrt(2000), rel=0.02)
    assert found.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-9)


def test_more_levels_scatter_less():
    few, many = (sde.log_partition(Scaled(GAUSSIAN), reference=WIDE, n_levels=n, n_chains=256, seed=1) for n in (4, 60))
    assert many.standard_error < 0.5 * few.standard_error
    assert many.effective_sample_size > 1.5 * few.effective_sample_size
    assert 0.4 < many.acceptance[20:].mean() < 0.75  # the pilot found step sizes


def test_a_reference_that_is_the_target_gives_it_exactly():
    found = sde.log_partition(Scaled(GAUSSIAN), n_chains=64, n_levels=3, seed=1)  # its own mean and cov
    assert found.value == pytest.approx(LOG_Z, abs=1e-12)
    assert found.standard_error < 1e-12
    assert found.effective_sample_size == pytest.approx(64)
    assert float(found) == found.value
    assert "of 64" in repr(found)


def test_an_energy_gets_its_log_likelihood():
    """Against quadrature; the normalised energy integrates to 1."""
    energy = sde.EnergyMLP(2, (16, 16), seed=4)
    energy = energy.with_parameters(1.7 * energy.parameters)
    line = np.linspace(-12, 12, 481)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    exact = math.log(energy.density(x).astype(float).sum() * 0.05**2)
    found = sde.log_partition(energy, reference=sde.targets.Gaussian([0.0, 0.0], 6.0 * np.eye(2)), seed=1)
    assert abs(found.value - exact) < 4 * found.standard_error < 0.1
    mass = energy.normalized(found).density(x).astype(float).sum() * 0.05**2
    assert mass == pytest.approx(1.0, abs=0.1)
    default = sde.log_partition(energy, n_levels=10, n_chains=300, seed=1)  # from N(m, σ_d²)
    assert abs(default.value - exact) < 5 * default.standard_error


def test_any_number_of_threads_gives_the_same_bits():
    options = {"reference": WIDE, "n_levels": 5, "n_chains": 700, "seed": 5}
    a, b = (sde.log_partition(Scaled(GAUSSIAN), workers=k, **options) for k in (1, 3))
    assert (a.log_weights == b.log_weights).all()
    assert a.seed == 5
    part = sde.log_partition(Scaled(GAUSSIAN), **{**options, "n_chains": 300})
    assert (part.log_weights == a.log_weights[:300]).all()


def test_ctrl_c_returns_the_chains_that_are_done():
    def stop(done, total):
        if done >= 256:
            raise KeyboardInterrupt

    found = sde.log_partition(
        Scaled(GAUSSIAN), reference=WIDE, n_levels=5, n_chains=2048, seed=5, workers=1, progress=stop
    )
    assert not found.success
    assert 256 <= len(found.log_weights) < 2048
    assert "of 2048 chains done" in found.message


def test_weights_that_hang_on_a_few_chains_are_told():
    narrow = sde.targets.Gaussian([0.0, 0.0], 1e-4 * np.eye(2))
    with pytest.warns(UserWarning, match="too few for an error bar"):
        sde.log_partition(Scaled(narrow), reference=WIDE, n_levels=1, n_chains=200, seed=1)


class Hollow(Scaled):
    """A density that is no number somewhere."""

    value = math.nan

    def log_density(self, x):
        return np.where(x[:, 0] > 2.0, self.value, super().log_density(x))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_density_that_is_no_number_is_told(value):
    target = Hollow(GAUSSIAN)
    target.value = value
    with pytest.raises(RuntimeError, match="the weights are no numbers"):
        sde.log_partition(target, reference=WIDE, n_levels=3, n_chains=64, seed=1)


def test_a_density_may_vanish():
    """Of half a Gaussian: log_density = −inf on the other side is a weight of 0."""

    class Half(Hollow):
        value = -math.inf

    target = Half(sde.targets.Gaussian([2.0, 0.0], np.eye(2)))
    found = sde.log_partition(target, n_levels=30, n_chains=512, seed=1)
    assert abs(found.value - (LOG_Z - math.log(2))) < 4 * found.standard_error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": lambda x: x}, "target.log_density must be callable"),
        ({"target": sde.ScoreMLP(2)}, "target.log_density must be callable"),
        ({"reference": MIXTURE}, "reference must be a targets.Gaussian, got GaussianMixture"),
        ({"reference": sde.targets.Gaussian(0.0, 1.0)}, "reference has dim 1, the target 2"),
        ({"n_chains": 1}, "n_chains must be >= 2"),
        ({"n_levels": 0}, "n_levels must be >= 1"),
        ({"n_steps": 0}, "n_steps must be >= 1"),
        ({"step_size": -1.0}, "step_size must be > 0"),
        ({"seed": 0.5}, "seed must be"),
    ],
)
def test_bad_inputs(options, message):
    arguments = {"target": Scaled(GAUSSIAN), **options}
    with pytest.raises((ValueError, TypeError), match=message):
        sde.log_partition(arguments.pop("target"), **arguments)


def test_a_target_of_unknown_spread_needs_a_reference():
    target = Scaled(GAUSSIAN)
    del target.mean
    with pytest.raises(ValueError, match=r"give reference=targets\.Gaussian"):
        sde.log_partition(target)
