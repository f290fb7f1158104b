"""Objectives: their values by definition, their gradients by central differences, and what they have in common."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.score.head import KINDS, Head, Level
from sdesim.score.noise_levels import Times
from sdesim.score.objectives import NAMES, WEIGHTINGS, Objective, weight
from sdesim.score.passes import run
from sdesim.score.team import Team

VP = sde.VariancePreserving()
MIXTURE = sde.targets.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.2, -0.4]], [0.4, 0.8])


def network(hidden=(8, 11), kind="edm", *, dim=3, seed=3, process=VP, **options):
    net = sde.ScoreMLP(dim, hidden, dtype=np.float64, seed=seed, **options)
    noise = np.random.default_rng(seed).standard_normal(net.parameters.size)
    head = Head(kind, process, np.linspace(0.1, 0.3, dim), 1.7, 1e-3 if process else 0.0)
    return net.with_parameters(net.parameters + 0.2 * noise, head=head)


def batch(objective, seed=0):
    rng = np.random.default_rng(seed)
    shape = (objective.n, objective.dim)
    signs = np.where(rng.random(objective.directions.shape) < 0.5, -1.0, 1.0)
    return {
        "x": rng.standard_normal(shape), "t": rng.uniform(0.1, 1.0, objective.n), "noise": rng.standard_normal(shape),
        "directions": signs if objective.random_directions else None,
    }  # fmt: skip


def by_definition(net, objective, x, t, noise, directions):
    """The losses of the rows, from the network's public derivatives."""
    alpha, beta, sigma = (value[:, None] for value in net.head.noise(t))
    at = alpha * x + beta + sigma * noise
    w, s = weight(objective.weighting, net.head, t), net(at, t)
    if objective.name == "denoising":
        return w * 0.5 * ((s + noise / sigma) ** 2).sum(axis=1)
    if objective.name == "implicit":
        return w * (0.5 * (s**2).sum(axis=1) + net.divergence(at, t))
    if objective.name == "finite_difference":
        v, h = directions[0], (objective.step / net.head.scalings(t)[2])[:, None]
        plus, minus = net(at + h * v, t), net(at - h * v, t)
        return w * (0.125 * ((plus + minus) ** 2).sum(axis=1) + (v * (plus - minus) / (2 * h)).sum(axis=1))
    losses = 0.0
    for v in directions:
        bent = (v * net.jacobian_vector(at, t, v)[1]).sum(axis=1)
        norm = 0.5 * ((s**2).sum(axis=1) if objective.name == "sliced_vr" else (v * s).sum(axis=1) ** 2)
        losses = losses + w * (bent + norm) / len(directions)
    return losses


def gradient_error(objective, inputs, gradient, parameters, seed=0, h=1e-5):
    """The largest error of the gradient along sparse random directions, relative to its norm."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(3):
        d = rng.standard_normal(gradient.size) * (rng.random(gradient.size) < 0.3)
        d /= np.linalg.norm(d)
        up, down = (objective.evaluate(**inputs, parameters=parameters + sign * h * d)[0] for sign in (1, -1))
        worst = max(worst, abs((up - down) / (2 * h) - gradient @ d))
    return worst / np.linalg.norm(gradient)


# ---- values and gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hidden", [(9,), (8, 11), (7, 8, 9)])
@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus"])
def test_values_and_gradients(name, hidden, activation):
    net = network(hidden, activation=activation)
    objective = Objective(net, 300, name, weighting="noise", n_projections=2)
    inputs = batch(objective)
    value, gradient = objective.evaluate(**inputs)
    expected = by_definition(net, objective, **inputs)
    np.testing.assert_allclose(objective.losses, expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
    assert abs(value - expected.mean()) < 1e-10 * abs(expected).mean()
    assert gradient_error(objective, inputs, gradient, net.parameters) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_prediction(name, kind):
    net = network((6, 7), kind)
    for weighting in WEIGHTINGS:
        objective = Objective(net, 20, name, weighting=weighting)
        inputs = batch(objective)
        value, gradient = objective.evaluate(**inputs)
        assert value == pytest.approx(by_definition(net, objective, **inputs).mean(), rel=1e-8)
        assert gradient_error(objective, inputs, gradient, net.parameters) < 1e-7


@pytest.mark.parametrize("slot", ["D1", "D2", "A"])
def test_the_gradient_check_sees_a_wrong_pass(slot):
    net = network((8, 11))
    objective = Objective(net, 30, "sliced_vr")
    inputs = batch(objective)
    _, gradient = objective.evaluate(**inputs)
    wrong = [getattr(objective.passes, slot)[0]]
    # spoil a derivative between the forward and the reverse pass
    objective.phases.insert(-3, [lambda: wrong[0].__imul__(0.5)])
    _, spoiled = objective.evaluate(**inputs)
    objective.phases.pop(-4)
    assert gradient_error(objective, inputs, gradient, net.parameters) < 1e-7
    assert gradient_error(objective, inputs, spoiled, net.parameters) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_single_precision(name):
    double = network((40, 30), dim=4)
    for_double = Objective(double, 64, name)
    inputs = batch(for_double)
    _, exact = for_double.evaluate(**inputs)
    _, found = Objective(double.astype(np.float32), 64, name).evaluate(**inputs)
    # a difference over 2h loses digits: 1/h of the rounding of a score
    assert np.linalg.norm(found - exact) < (2e-4 if name == "finite_difference" else 5e-6) * np.linalg.norm(exact)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_on_any_number_of_threads(name):
    net = network((600, 530), dim=3).astype(np.float32)
    objective = Objective(net, 700, name)
    inputs = batch(objective)
    _, gradient = objective.evaluate(**inputs)
    losses = objective.losses.copy()
    for workers in (2, 3, 8):
        team = Team(workers)
        objective.gradient[:] = np.nan
        with sde.core.blas.single_threaded():
            team.run(objective.phases)
        team.close()
        assert (objective.gradient == gradient).all()
        assert (objective.losses == losses).all()


# ---- what they have in common (MISSION of score matching)


def mean_and_error(values):
    return values.mean(), values.std() / np.sqrt(len(values))


def implicit_identity(sign=1.0, half=0.5, n=200_000):
    """implicit − ½F + ½E|∇log p|² on samples of a mixture: its mean and standard error; 0 if all is right."""
    x = MIXTURE.sample(n, 11)
    net = network((12, 10), "plain", dim=2, process=None)
    s, true = net(x, 0.0), MIXTURE.score(x)
    implicit = half * (s**2).sum(axis=1) + sign * net.divergence(x, 0.0)
    fisher = ((s - true) ** 2).sum(axis=1)
    return mean_and_error(implicit - 0.5 * fisher + 0.5 * (true**2).sum(axis=1))


def test_implicit_score_matching_is_the_fisher_divergence_up_to_a_constant():
    mean, error = implicit_identity()
    assert abs(mean) < 3 * error
    assert error < 0.02


@pytest.mark.parametrize("slip", [{"sign": -1.0}, {"half": 1.0}, {"sign": 0.5}])
def test_a_slip_in_the_implicit_objective_is_seen(slip):
    mean, error = implicit_identity(**slip)
    assert abs(mean) > 10 * error


def test_the_constant_between_them_is_known():
    """The same with the library's objective and divergence, and E|∇log p|² by quadrature over the plane."""
    axis = np.linspace(-7.0, 7.0, 281)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = MIXTURE.density(grid) * (axis[1] - axis[0]) ** 2
    constant = -0.5 * mass @ (MIXTURE.score(grid) ** 2).sum(axis=1)
    assert mass.sum() == pytest.approx(1.0, abs=1e-9)
    net, n = network((12, 10), "plain", dim=2, process=None), 100_000
    x = MIXTURE.sample(n, 21)
    objective = Objective(net, n, "implicit", weighting="none")
    implicit = objective.evaluate(x)[0]
    gap = implicit - 0.5 * sde.fisher_divergence(net, MIXTURE, x)
    error = (objective.losses - 0.5 * ((net(x) - MIXTURE.score(x)) ** 2).sum(axis=1)).std() / np.sqrt(n)
    assert abs(gap - constant) < 3 * error < 0.05 * abs(constant)
    assert abs(gap - 2 * constant) > 20 * error  # without its ½
    assert abs(gap + constant) > 20 * error  # with the other sign


def test_the_implicit_objective_is_that_one():
    net = network((12, 10), "plain", dim=2, process=None)
    x = MIXTURE.sample(500, 3)
    objective = Objective(net, 500, "implicit", weighting="none")
    objective.evaluate(x)
    np.testing.assert_allclose(objective.losses, 0.5 * (net(x) ** 2).sum(axis=1) + net.divergence(x), rtol=1e-10)
    deep = network((7, 8, 9), "plain", dim=2, process=None)  # by tangents instead of the closed form
    objective = Objective(deep, 500, "implicit", weighting="none")
    objective.evaluate(x)
    np.testing.assert_allclose(objective.losses, 0.5 * (deep(x) ** 2).sum(axis=1) + deep.divergence(x), rtol=1e-10)


@pytest.mark.parametrize("name", ["sliced", "sliced_vr"])
@pytest.mark.parametrize("entries", ["signs", "normals"])
def test_sliced_is_unbiased_for_implicit(name, entries):
    net, n = network((12, 10), "plain", dim=2, process=None), 40_000
    x = MIXTURE.sample(n, 5)
    implicit = Objective(net, n, "implicit")
    implicit.evaluate(x)
    rng = np.random.default_rng(8)
    v = rng.standard_normal((1, n, 2)) if entries == "normals" else np.where(rng.random((1, n, 2)) < 0.5, -1.0, 1.0)
    sliced = Objective(net, n, name)
    sliced.evaluate(x, directions=v)
    mean, error = mean_and_error(sliced.losses.astype(float) - implicit.losses)
    assert abs(mean) < 3 * error
    # directions of another size, E[vvᵀ] ≠ I, are seen
    sliced.evaluate(x, directions=1.4 * v)
    mean, error = mean_and_error(sliced.losses.astype(float) - implicit.losses)
    assert abs(mean) > 5 * error


SLICED_SLIPS = {
    "right": lambda s, v, along: (v * along).sum(axis=1) + 0.5 * (v * s).sum(axis=1) ** 2,
    "∇ᵥs without vᵀ": lambda s, v, along: along.sum(axis=1) + 0.5 * (v * s).sum(axis=1) ** 2,
    "no ½(vᵀs)²": lambda s, v, along: (v * along).sum(axis=1),
    "no ½": lambda s, v, along: (v * along).sum(axis=1) + (v * s).sum(axis=1) ** 2,
    "sign": lambda s, v, along: -(v * along).sum(axis=1) + 0.5 * (v * s).sum(axis=1) ** 2,
    "vᵀs, not its square": lambda s, v, along: (v * along).sum(axis=1) + 0.5 * (v * s).sum(axis=1),
}


@pytest.mark.parametrize("slip", SLICED_SLIPS)
def test_a_slip_in_sliced_score_matching_is_seen(slip):
    # the slide prints ∇ᵥ s, a vector, where vᵀ(∇ₓs)v is meant
    net, n = network((12, 10), "plain", dim=2, process=None), 40_000
    x = MIXTURE.sample(n, 6)
    v = np.where(np.random.default_rng(8).random((n, 2)) < 0.5, -1.0, 1.0)
    s, along = net.jacobian_vector(x, 0.0, v)
    mean, error = mean_and_error(SLICED_SLIPS[slip](s, v, along) - 0.5 * (s**2).sum(axis=1) - net.divergence(x))
    assert abs(mean) < 3 * error if slip == "right" else abs(mean) > 10 * error


def test_the_variance_reduced_form_has_less_variance():
    # for a score −c x and random signs vᵀJv is −c d, whatever the signs: all variance is that of (v·s)²
    net = sde.ScoreMLP(2, (8,), dtype=np.float64, zero_output=True)
    net = net.with_parameters(net.parameters, head=Head("edm", VP, np.zeros(2), 1.5, 1e-3))
    x = np.tile([[1.0, -0.5]], (1000, 1))
    v = np.where(np.random.default_rng(8).random((1, 1000, 2)) < 0.5, -1.0, 1.0)
    spread = {}
    for name in ("sliced", "sliced_vr"):
        objective = Objective(net, 1000, name)
        objective.evaluate(x, 0.3, directions=v)
        spread[name] = objective.losses.std() / abs(objective.losses.mean())
    assert spread["sliced_vr"] < 1e-12
    assert spread["sliced"] > 0.05


def test_finite_differences_approach_sliced_at_second_order():
    net = network((12, 10), "plain", dim=2, process=None)
    x = MIXTURE.sample(400, 5)
    v = np.where(np.random.default_rng(8).random((1, 400, 2)) < 0.5, -1.0, 1.0)
    exact = Objective(net, 400, "sliced_vr").evaluate(x, directions=v)[0]
    steps = np.array([0.02, 0.01, 0.005, 0.0025])
    gaps = [Objective(net, 400, "finite_difference", step=h).evaluate(x, directions=v)[0] - exact for h in steps]
    slope = np.polyfit(np.log(steps), np.log(np.abs(gaps)), 1)[0]
    assert 1.9 < slope < 2.1


def denoising_gaps(sign):
    """Denoising minus ½E|s − ∇log p_σ|² for two networks, in standard errors of their difference (0 if right)."""
    sigma, n = 0.5, 200_000
    rng = np.random.default_rng(2)
    x, e = MIXTURE.sample(n, 4), rng.standard_normal((n, 2))
    noisy = x + sigma * e
    true = MIXTURE.affine(1.0, 0.0, sigma**2).score(noisy)
    rows = []
    for seed in (3, 4):
        s = network((12, 10), "noise", dim=2, seed=seed, process=Level(sigma))(noisy, 0.0)
        rows.append(0.5 * ((s + sign * e / sigma) ** 2).sum(axis=1) - 0.5 * ((s - true) ** 2).sum(axis=1))
    mean, error = mean_and_error(rows[0] - rows[1])
    return mean / error


def test_denoising_is_the_fisher_divergence_to_the_perturbed_score_up_to_a_constant():
    assert abs(denoising_gaps(+1.0)) < 3
    assert abs(denoising_gaps(-1.0)) > 20  # the slide's sign


def test_the_minimiser_of_denoising_is_the_perturbed_score():
    # for Gaussian data a zero network with an edm head is the perturbed score; its loss has no slope there
    law = sde.targets.Gaussian([0.1, 0.2], 1.7**2 * np.eye(2))
    net = sde.ScoreMLP(2, (8, 8), dtype=np.float64, seed=1, zero_output=True)
    n, rng = 400_000, np.random.default_rng(0)
    x, e, t = law.sample(n, 3), rng.standard_normal((n, 2)), rng.uniform(0.05, 1.0, n)
    head = Head("edm", VP, np.array([0.1, 0.2]), 1.7, 1e-3)
    slope = np.linalg.norm(Objective(net, n, head=head).evaluate(x, t, noise=e)[1])
    wrong = np.linalg.norm(Objective(net, n, head=head).evaluate(x, t, noise=-0.8 * e)[1])
    off = np.linalg.norm(
        Objective(net, n, head=Head("edm", VP, np.array([0.1, 0.2]), 1.2, 1e-3)).evaluate(x, t, noise=e)[1]
    )
    assert slope < 0.02
    assert wrong > 10 * slope
    assert off > 10 * slope


def test_fisher_divergence():
    x = MIXTURE.sample(50_000, 1)
    assert sde.fisher_divergence(MIXTURE.score, MIXTURE, x) == 0.0
    shifted = sde.fisher_divergence(lambda x, t: MIXTURE.score(x) + np.array([3.0, 4.0]), MIXTURE, x)
    assert shifted == pytest.approx(25.0)
    # two Gaussians: E_p |x/v − x/w|² = d v (1/v − 1/w)²
    p = sde.targets.Gaussian(np.zeros(2), 2.0 * np.eye(2))
    found = sde.fisher_divergence(lambda x, t: -x / 3.0, p, p.sample(200_000, 1))
    assert found == pytest.approx(2 * 2.0 * (1 / 2 - 1 / 3) ** 2, rel=0.01)


# ---- noise levels


@pytest.mark.parametrize("process", [VP, sde.VarianceExploding(), sde.SubVariancePreserving(), sde.EDM()])
def test_the_law_of_the_noise_levels(process):
    head = Head("edm", process, 0.0, 2.0, process.t_min)
    u = (np.arange(4000) + 0.5) / 4000
    uniform = Times(head, process.horizon, "uniform")(u)
    np.testing.assert_allclose(uniform, process.t_min + u * (process.horizon - process.t_min))

    def ratio(t):
        alpha, _, sigma = head.noise(np.asarray(t))
        return np.log(sigma / (2.0 * alpha))

    low, high = ratio(process.t_min), ratio(process.horizon)
    spread = ratio(Times(head, process.horizon, "log_uniform")(u))
    np.testing.assert_allclose(spread, low + u * (high - low), atol=2e-3 * (high - low))
    normal = ratio(Times(head, process.horizon, (-0.5, 0.6))(u))
    assert abs(np.median(normal) + 0.5) < 0.01
    assert abs(np.std(normal) - 0.6) < 0.01
    few = Times(head, process.horizon, levels=10)(u)
    found = ratio(np.unique(few))
    assert len(found) == 10
    np.testing.assert_allclose(found, np.linspace(low, high, 10), atol=2e-3 * (high - low))


def test_the_weights_are_what_they_say():
    head, t = Head("edm", VP, 0.0, 1.5, 1e-3), np.array([0.01, 0.3, 1.0])
    alpha, _, sigma = head.noise(t)
    np.testing.assert_allclose(weight("noise", head, t), sigma**2)
    np.testing.assert_allclose(weight("data", head, t), sigma**4 / alpha**2)
    np.testing.assert_allclose(weight("likelihood", head, t), VP.diffusion(0, t) ** 2)
    # the weight of Karras et al. (2022), (σ̂² + σ_d²)/(σ̂ σ_d)² on the denoiser's error, σ̂ = σ/α
    level = sigma / alpha
    karras = (level**2 + 1.5**2) / (level * 1.5) ** 2
    np.testing.assert_allclose(weight("prediction", head, t), karras * weight("data", head, t))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(network(), 8, "score"), "objective must be one of"),
        (lambda: Objective(network(process=None, kind="plain"), 8), "denoising needs noise"),
        (lambda: Objective(network((4, 4, 4), dim=65), 8, "implicit"), "two hidden layers have a closed form"),
        (lambda: Objective(network(), 8, "sliced", n_projections=0), "n_projections must be >= 1"),
        (lambda: Times(network().head, 1.0, "all"), "times must be one of"),
        (lambda: Times(network().head, 1.0, 3.0), r"\(mean, std\)"),
        (lambda: Times(Head("edm", VP, 0.0, 1.0, 0.0), 1.0), "choose t_min > 0"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_phases_write_disjoint_memory():
    # run the tasks of every phase in reverse: the result must not know
    net = network((600, 530), dim=3).astype(np.float32)
    for name in NAMES:
        objective = Objective(net, 300, name)
        inputs = batch(objective)
        _, gradient = objective.evaluate(**inputs)
        with sde.core.blas.single_threaded():
            run([list(reversed(phase)) for phase in objective.phases])
        assert (objective.gradient == gradient).all()
