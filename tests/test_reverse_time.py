"""Time reversal: one p(x, t) solves the forward equation, the reverse one and the continuity equation."""

import numpy as np
import pytest
from scipy.linalg import expm

from problems import Seasonal, fokker_planck_residual, rotating
from sdesim.processes.cox_ingersoll_ross import CoxIngersollRoss
from sdesim.processes.custom import ito, stratonovich
from sdesim.processes.geometric import GeometricBrownian
from sdesim.processes.marginal import marginal_score
from sdesim.processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdesim.processes.reverse_time import ProbabilityFlow, ReverseProcess
from sdesim.processes.wiener import Wiener
from sdesim.targets import DoubleWellDensity, Gaussian, GaussianMixture

HORIZON, S = 1.3, 0.5
BIMODAL = GaussianMixture([0.3, 0.7], [-1.0, 1.5], [0.2, 0.3])


class Case:
    """A forward process, its exact density p(x tuple, t) and points to look at."""

    def __init__(self, name, process, density, points):
        self.name, self.process, self.density, self.points = name, process, density, points

    def score(self, x, t):
        """∇ log p by fourth-order differences: independent of every formula in the library."""
        h, d = 1e-3, x.shape[1]
        columns = tuple(x[:, j] for j in range(d))
        out = np.empty_like(x)
        for j in range(d):

            def log(k, j=j):
                return np.log(self.density(tuple(c + k * h if i == j else c for i, c in enumerate(columns)), t))

            out[:, j] = (8.0 * (log(1) - log(-1)) - (log(2) - log(-2))) / (12.0 * h)
        return out


def _line(name, process, density, points):
    return Case(name, process, lambda x, t: density(x[0], t), (np.asarray(points),))


def _linear(name, process):
    score = marginal_score(process, BIMODAL)
    return _line(name, process, lambda x, t: np.exp(score.log_density(x, t)), np.linspace(-1.4, 1.8, 6))


def _mixed_geometric():
    """X = B Y with independent geometric motions Y: general noise that depends on the state."""
    turn = np.array([[1.0, 0.5], [-0.3, 1.0]])
    back = np.linalg.inv(turn)
    parts = (GeometricBrownian(0.3, 0.5), GeometricBrownian(-0.2, 0.4))
    m = turn @ np.diag([0.3, -0.2]) @ back

    def drift(x, t):
        return m[0, 0] * x[0] + m[0, 1] * x[1], m[1, 0] * x[0] + m[1, 1] * x[1]

    def diffusion(x, t):
        y = (back[0, 0] * x[0] + back[0, 1] * x[1], back[1, 0] * x[0] + back[1, 1] * x[1])
        return (
            (turn[0, 0] * 0.5 * y[0], turn[0, 1] * 0.4 * y[1]),
            (turn[1, 0] * 0.5 * y[0], turn[1, 1] * 0.4 * y[1]),
        )

    def density(x, t):
        y = (back[0, 0] * x[0] + back[0, 1] * x[1], back[1, 0] * x[0] + back[1, 1] * x[1])
        return parts[0].density(y[0], t, 1.0) * parts[1].density(y[1], t, 1.2) * abs(np.linalg.det(back))

    y = np.stack(np.meshgrid([0.8, 1.3], [0.7, 1.2])).reshape(2, -1)
    process = ito(drift, diffusion, dim=2, noise="general")
    return Case("mixed_geometric", process, density, tuple(turn @ y))


def _rotating():
    start = np.array([1.0, -0.5])
    a = np.array([[-0.8, -1.5], [1.5, -0.8]])
    g = np.array([[0.6, 0.2], [0.0, 0.5]])
    block = np.block([[-a, g @ g.T], [np.zeros((2, 2)), a.T]])

    def density(x, t):
        e = expm(block * t)  # Van Loan (1978): mean and covariance of a linear SDE from one exponential
        flow = e[2:, 2:].T
        law = Gaussian(flow @ start, flow @ e[:2, 2:])
        return law.density(np.stack(x, axis=-1))

    law_mean = expm(a * (HORIZON - S)) @ start
    points = law_mean[:, None] + 0.4 * np.stack(np.meshgrid([-1.0, 0.2, 1.0], [-0.8, 0.9])).reshape(2, -1)
    return Case("rotating", rotating(), density, tuple(points))


def _cases():
    geometric, cir = GeometricBrownian(0.3, 0.5), CoxIngersollRoss(1.5, 0.9, 0.6)
    strato = stratonovich(lambda x, t: (0.3 - 0.125) * x, lambda x, t: 0.5 * x)
    diagonal = ito(lambda x, t: (0.3 * x[0], -0.2 * x[1]), lambda x, t: (0.5 * x[0], 0.4 * x[1]), dim=2)
    other = GeometricBrownian(-0.2, 0.4)

    def product(x, t):
        return geometric.density(x[0], t, 1.2) * other.density(x[1], t, 1.0)

    plane = tuple(np.stack(np.meshgrid([0.8, 1.4], [0.7, 1.2])).reshape(2, -1))
    return [
        _linear("wiener", Wiener(0.7)),
        _linear("ornstein_uhlenbeck", OrnsteinUhlenbeck(1.2, 0.3, 0.8)),
        _linear("seasonal", Seasonal()),
        _line("geometric", geometric, lambda x, t: geometric.density(x, t, 1.2), [0.7, 1.0, 1.5, 2.2]),
        _line("cox_ingersoll_ross", cir, lambda x, t: cir.density(x, t, 0.6), [0.4, 0.7, 1.0, 1.4]),
        _line("stratonovich", strato, lambda x, t: geometric.density(x, t, 1.2), [0.7, 1.0, 1.5, 2.2]),
        Case("diagonal_plane", diagonal, product, plane),
        _rotating(),
        _mixed_geometric(),
    ]  # fmt: skip


CASES = {case.name: case for case in _cases()}
STATE_DEPENDENT = ["geometric", "cox_ingersoll_ross", "stratonovich", "diagonal_plane", "mixed_geometric"]


def rows_of(process, x, t):
    """σ as d rows, whatever the noise."""
    sigma = process.diffusion(x if len(x) > 1 else x[0], t)
    if process.noise == "general":
        return sigma
    parts = sigma if isinstance(sigma, tuple) else (sigma,) * len(x)
    return tuple(tuple(parts[i] if k == i else 0.0 for k in range(len(x))) for i in range(len(x)))


def residual(case, process, *, drift=None, noise=True):
    """How badly q(x, s) = p(x, T − s) fails the Fokker-Planck equation of ``process`` on its clock s."""

    def own_drift(x, s):
        value = process.drift(x if len(x) > 1 else x[0], s)
        return value if isinstance(value, tuple) else (value,)

    error, size = fokker_planck_residual(
        drift or own_drift,
        (lambda x, s: rows_of(process, x, s)) if noise else None,
        lambda x, s: case.density(x, HORIZON - s),
        case.points,
        S,
    )
    return float((np.abs(error) / size).max())


@pytest.mark.parametrize("name", CASES)
def test_reverse_process_has_the_densities_backward(name):
    case = CASES[name]
    reverse = ReverseProcess(case.process, case.score, HORIZON)
    assert reverse.batch_only
    assert reverse.noise == case.process.noise
    assert residual(case, reverse) < 2e-5


@pytest.mark.parametrize("name", CASES)
def test_probability_flow_has_the_densities_without_noise(name):
    case = CASES[name]
    flow = ProbabilityFlow(case.process, case.score, HORIZON)
    assert residual(case, flow, noise=False) < 2e-5
    x = case.points if len(case.points) > 1 else case.points[0]
    np.testing.assert_allclose(flow.velocity(x, HORIZON - S), -np.asarray(flow.drift(x, S)), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_slips_are_seen(name):
    case = CASES[name]
    process = case.process
    reverse = ReverseProcess(process, case.score, HORIZON)

    def parts(x, s):
        state = x if len(x) > 1 else x[0]
        t = HORIZON - s
        d = len(x)
        drift, divergence = (
            value if isinstance(value, tuple) else (value,) * d
            for value in (process.ito_drift(state, t), process.diffusion_divergence(state, t))
        )
        shape = np.broadcast_shapes(*(np.shape(c) for c in x))
        flat = np.stack([np.broadcast_to(c, shape).reshape(-1) for c in x], axis=1)
        score = case.score(flat, t).T.reshape(d, *shape)
        g = rows_of(process, x, t)
        spread = tuple(
            sum(sum(g[i][k] * g[j][k] for k in range(len(g[0]))) * score[j] for j in range(d)) for i in range(d)
        )
        return drift, divergence, spread

    def combined(a, b, c):
        return lambda x, s: tuple(-a * m + b * v + c * p for m, v, p in zip(*parts(x, s), strict=True))

    assert residual(case, reverse, drift=combined(1.0, 1.0, 1.0)) < 2e-5  # what it should be
    assert residual(case, reverse, drift=combined(1.0, 1.0, -1.0)) > 1e-2  # the score with the other sign
    assert residual(case, reverse, drift=combined(1.0, 1.0, 0.5)) > 1e-2  # half of it, as in the flow
    if name != "wiener":
        assert residual(case, reverse, drift=combined(-1.0, 1.0, 1.0)) > 1e-2  # the forward drift not reversed
    assert residual(case, reverse, drift=combined(1.0, 0.5, 0.5), noise=False) < 2e-5
    assert residual(case, reverse, drift=combined(1.0, 1.0, 1.0), noise=False) > 1e-2  # the flow without its ½
    if name in STATE_DEPENDENT:
        assert residual(case, reverse, drift=combined(1.0, 0.0, 1.0)) > 1e-2  # without ∇·a
        assert residual(case, reverse, drift=combined(1.0, 0.0, 0.5), noise=False) > 1e-2


def test_the_slides_formula_fails_where_sigma_depends_on_x():
    # the slide: −μ + ∂ₓ(σ² log p), in place of −μ + (1/p) ∂ₓ(σ² p)
    for name, right in (("ornstein_uhlenbeck", True), ("geometric", False), ("cox_ingersoll_ross", False)):
        case = CASES[name]
        process, h = case.process, 1e-4

        def slide(x, s, process=process, case=case, h=h):
            t = HORIZON - s
            f = lambda y: process.diffusion(y, t) ** 2 * np.log(case.density((y,), t))  # noqa: E731
            return (-process.drift(x[0], t) + (f(x[0] + h) - f(x[0] - h)) / (2.0 * h),)

        error = residual(case, ReverseProcess(process, case.score, HORIZON), drift=slide)
        assert (error < 1e-4) == right, (name, error)


def test_structures_of_the_state():
    process, score = (
        OrnsteinUhlenbeck(1.2, 0.3, 0.8),
        marginal_score(OrnsteinUhlenbeck(1.2, 0.3, 0.8), BIMODAL),
    )
    reverse, flow = ReverseProcess(process, score, 2.0), ProbabilityFlow(process, score, 2.0)
    assert reverse.dim == 1
    points = np.linspace(-1.0, 1.0, 6)
    line = reverse.drift(points, 0.5)
    assert line.shape == (6,)
    np.testing.assert_allclose(reverse.drift(points.reshape(2, 3), 0.5), line.reshape(2, 3))
    np.testing.assert_allclose(reverse.drift(points[:, None], 0.5)[:, 0], line)
    np.testing.assert_allclose(reverse.drift_batch(points[:, None], 0.5)[:, 0], line)
    assert reverse.drift(0.2, 0.5) == pytest.approx(reverse.drift(np.array([0.2]), 0.5)[0])
    # a time for every path
    times = np.linspace(0.1, 1.9, 6)
    each = [float(reverse.drift(x, s)) for x, s in zip(points, times, strict=True)]
    np.testing.assert_allclose(reverse.drift(points, times), each)
    assert flow.diffusion(points, 0.3) == 0.0
    assert reverse.diffusion(points, 0.3) == 0.8
    assert reverse.diffusion_dx(points, 0.3) == 0.0


def test_a_vector_score_on_an_elementwise_process():
    process = OrnsteinUhlenbeck(1.2, 0.3, 0.8)
    target = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.3, 0.4])
    score = marginal_score(process, target)
    reverse = ReverseProcess(process, score, 2.0)
    assert reverse.dim == 2
    x = np.random.default_rng(0).normal(size=(5, 2))
    expected = -process.drift(x, 0.0) + 0.64 * score(x, 1.5)
    np.testing.assert_allclose(np.stack(reverse.drift((x[:, 0], x[:, 1]), 0.5), axis=1), expected)
    np.testing.assert_allclose(reverse.drift(x, 0.5), expected)
    np.testing.assert_allclose(reverse.drift_batch(x, 0.5), expected)
    # without a known dimension an array of two axes holds points
    free = ReverseProcess(process, lambda x, t: score(x, t), 2.0)
    assert free.dim is None
    np.testing.assert_allclose(free.drift(x, 0.5), expected)
    times = np.linspace(0.2, 1.8, 5)
    expected = -process.drift(x, 0.0) + 0.64 * score(x, 2.0 - times)
    np.testing.assert_allclose(free.drift(x, times), expected)
    np.testing.assert_allclose(np.stack(reverse.drift((x[:, 0], x[:, 1]), times), axis=1), expected)
    assert reverse.diffusion((x[:, 0], x[:, 1]), 0.5) == (0.8, 0.8)


def test_bad_scores_and_times_are_refused():
    process = OrnsteinUhlenbeck()
    good = marginal_score(process, BIMODAL)
    reverse = ReverseProcess(process, good, 2.0)
    for s in (-0.1, 2.1, np.nan):
        with pytest.raises(ValueError, match=r"s must lie in \[0, horizon\] = \[0, 2\]"):
            reverse.drift(0.0, s)
    reverse.drift(0.0, 2.0 + 1e-12)  # rounding of the last step is no error
    with pytest.raises(ValueError, match=r"score returned shape \(3,\), expected \(3, 1\)"):
        ReverseProcess(process, lambda x, t: x[:, 0], 1.0).drift(np.zeros(3), 0.5)
    with pytest.raises(ValueError, match=r"score returned nan at row 2, x = \[-1.0\], t = 0.5"):
        ReverseProcess(process, lambda x, t: np.sqrt(np.abs(x)) + np.where(x < 0.0, np.nan, 0.0), 1.0).drift(
            np.array([1.0, 2.0, -1.0]), 0.5
        )
    with pytest.raises(TypeError, match="score must be callable"):
        ReverseProcess(process, 3.0, 1.0)
    with pytest.raises(TypeError, match="process must be a process"):
        ReverseProcess(good, good, 1.0)
    with pytest.raises(ValueError, match="horizon must be > 0"):
        ProbabilityFlow(process, good, 0.0)
    with pytest.raises(ValueError, match="dim must be 2"):
        ReverseProcess(rotating(), lambda x, t: x, 1.0, dim=3)


@pytest.mark.parametrize("process", [Wiener(0.7), OrnsteinUhlenbeck(1.2, 0.3, 0.8), Seasonal()], ids=repr)
def test_marginal_score_is_the_gradient_of_the_exact_density(process):
    # the density by hand: the process's own transition density integrated over the start
    nodes = np.linspace(-6.0, 7.0, 4001)
    start = BIMODAL.density(nodes)
    x, t, h = np.linspace(-1.5, 2.0, 7), 0.6, 1e-4

    def log_density(points):
        return np.log(np.trapezoid(process.density(points[:, None], t, nodes) * start, nodes, axis=1))

    score = marginal_score(process, BIMODAL)
    np.testing.assert_allclose(score.log_density(x, t), log_density(x), rtol=1e-8)
    np.testing.assert_allclose(score(x, t), (log_density(x + h) - log_density(x - h)) / (2.0 * h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(score(x, 0.0), BIMODAL.score(x), rtol=1e-12)
    np.testing.assert_allclose(score.law(t).score(x), score(x, t), rtol=1e-10)


@pytest.mark.parametrize("covs", ["round", "full"])
def test_marginal_score_takes_a_time_for_every_point(covs):
    cov = [0.3, 0.5] if covs == "round" else [[[0.5, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.6]]]
    target = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], cov)
    for start in (target, Gaussian([0.2, 0.4], cov[0])):
        score = marginal_score(Seasonal(), start)
        x, times = np.random.default_rng(0).normal(size=(6, 2)), np.linspace(0.0, 2.0, 6)
        each = np.stack([score(x[i], times[i]) for i in range(6)])
        np.testing.assert_allclose(score(x, times), each, rtol=1e-12)
        np.testing.assert_allclose(each[3], score.law(times[3]).score(x[3]), rtol=1e-10)
    line = marginal_score(Seasonal(), BIMODAL)
    x = np.linspace(-1.0, 1.0, 6)
    np.testing.assert_allclose(line(x, times), line(x[:, None], times)[:, 0])


def test_marginal_score_is_right_far_from_everything():
    score = marginal_score(OrnsteinUhlenbeck(1.0, 0.0, 1.0), BIMODAL)
    law = score.law(0.5)
    assert score(1e4, 0.5) == pytest.approx(law.score(1e4), rel=1e-10)
    assert np.isfinite(score(np.array([-1e8, 1e8]), 0.5)).all()


def test_marginal_score_refuses_what_it_cannot_do():
    with pytest.raises(TypeError, match=r"needs a linear process .* got GeometricBrownian"):
        marginal_score(GeometricBrownian(0.1, 0.2), BIMODAL)
    with pytest.raises(TypeError, match=r"needs a start whose law with noise is known .* got DoubleWellDensity"):
        marginal_score(Wiener(), DoubleWellDensity())
    with pytest.raises(ValueError, match="t must be >= 0"):
        marginal_score(Wiener(), BIMODAL)(0.0, -1.0)
