"""Multilevel Monte Carlo: the tolerance, the coupling of the levels, the antithetic pairs, what is refused."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

import sdesim as sde
from sdesim.core import stream
from sdesim.expect import (
    Expectation,
    allocation,
    expect,
    guarded,
    is_antithetic,
    pick_scheme,
    remaining_bias,
    state_shape,
)  # fmt: skip
from sdesim.level_sums import LEVEL_SHIFT, Sampler, Tally

pytestmark = pytest.mark.slow

GBM = sde.GeometricBrownian(0.05, 0.2)
SPAN = (0.0, 1.0)
# E[max(S_1 − 1, 0)] from S_0 = 1 (Black & Scholes 1973, undiscounted)
CALL = math.exp(0.05) * ndtr(0.35) - ndtr(0.15)


def call(x):
    return np.maximum(x - 1.0, 0.0)


def clark_cameron():
    """dX = dW₁, dY = X dW₂: the simplest noise that does not commute (Clark & Cameron 1980)."""
    return sde.ito(
        lambda x, t: (0.0 * x[0], 0.0 * x[1]), lambda x, t: ((1.0, 0.0), (0.0, x[0])), dim=2, noise="general"
    )


def sampler(process, f, x0, *, antithetic=None, method=None, n_steps=4, seed=3, dtype=np.float64):
    scheme = pick_scheme(process, method)
    pairs = is_antithetic(process, scheme) if antithetic is None else antithetic
    return Sampler(
        process, f, x0, state_shape(process, x0), SPAN, scheme.name, n_steps, pairs, seed, np.dtype(dtype), None, 1
    )


# ---- the tolerance --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls():
    return [expect(GBM, call, 1.0, SPAN, 1e-3, seed=seed) for seed in range(20)]


def test_value_is_within_the_tolerance(calls):
    errors = np.array([result.value - CALL for result in calls])
    assert (abs(errors) <= 1e-3).mean() >= 0.95
    # the stated half width is that of the errors' scatter, and not twice or half of it
    spread = np.mean([result.half_width for result in calls]) / 2.576
    assert 0.6 * spread < errors.std(ddof=1) < 1.5 * spread
    for result in calls:
        assert result.half_width + result.bias <= result.tolerance
        assert result.value == pytest.approx(sum(level.mean for level in result.levels), rel=1e-12)
        assert result.cost == sum(level.n_paths * level.cost for level in result.levels)


def test_the_corrections_are_needed(calls):
    # level 0 alone is off by its discretisation bias, which the stated bias of the whole sum is not
    coarse = np.mean([result.levels[0].mean for result in calls]) - CALL
    assert abs(coarse) > 1e-3
    assert abs(np.mean([result.value for result in calls]) - CALL) < 4e-4


def test_tighter_confidence_narrows_the_interval():
    loose = expect(GBM, call, 1.0, SPAN, 2e-3, confidence=0.8, seed=1)
    tight = expect(GBM, call, 1.0, SPAN, 2e-3, confidence=0.9999, seed=1)
    # samples grow as the square of the normal quantile: (3.891 / 1.282)²
    assert tight.levels[0].n_paths / loose.levels[0].n_paths == pytest.approx(9.2, rel=0.1)


def test_cost_grows_as_the_inverse_square():
    costs = [expect(GBM, call, 1.0, SPAN, tolerance, seed=1).cost for tolerance in (1e-3, 2.5e-4)]
    assert math.log(costs[1] / costs[0]) / math.log(4.0) == pytest.approx(2.0, abs=0.15)


def test_plain_cost_is_what_plain_monte_carlo_needs(calls):
    result = calls[0]
    n_steps = result.levels[-1].n_steps
    n_paths = result.plain_cost // n_steps
    x = sde.simulate(GBM, 1.0, SPAN, n_steps=n_steps, n_paths=n_paths, method="milstein", seed=1).final
    assert 2.576 * call(x).std() / math.sqrt(n_paths) == pytest.approx(result.half_width, rel=0.08)


def test_additive_noise_and_a_target_to_start_from():
    # X_0 of N(0.5, 0.2²), then Ornstein-Uhlenbeck: X_1 is normal, E[X_1²] = mean² + variance
    process, start = sde.OrnsteinUhlenbeck(1.3, 0.4, 0.8), sde.targets.Gaussian(0.5, 0.04)
    kept = math.exp(-1.3)
    mean, variance = 0.4 + 0.1 * kept, 0.04 * kept**2 + 0.64 * (1 - kept**2) / 2.6
    result = expect(process, lambda x: x * x, start, SPAN, 4e-3, seed=2)
    assert result.method == "euler_maruyama"
    assert abs(result.value - mean**2 - variance) <= 4e-3
    # fine and coarse start in one state: with independent starts the difference would vary like x² itself
    assert result.levels[1].variance < 0.05 * result.levels[0].variance


def test_general_noise():
    # Clark & Cameron: E cos Y_1 = 1/√cosh 1 (Lévy's formula, conditional on the path of X)
    result = expect(clark_cameron(), lambda x: np.cos(x[:, 1]), (0.0, 0.0), SPAN, 5e-3, seed=4)
    assert result.method == "milstein_commutative"
    assert abs(result.value - 1.0 / math.sqrt(math.cosh(1.0))) <= 5e-3


def test_without_noise_there_is_no_statistical_error():
    process = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.0)
    result = expect(process, lambda x: x, 1.0, SPAN, 1e-3, seed=1)
    assert result.half_width == 0.0
    assert abs(result.value - math.exp(-1.0)) <= 1e-3


# ---- levels on one Brownian path ------------------------------------------------------------------------------------


def given(n_steps, n, first, m=1):
    """The Wiener increments (n, n_steps, m) of the paths first, first + 1, …"""
    z = stream.normals(3, stream.WIENER, n, m, n_steps, first_path=first)
    return np.swapaxes(z, 1, 2) * math.sqrt(1.0 / n_steps)


def test_fine_and_coarse_follow_one_brownian_path():
    level, n = 2, 300
    draw = sampler(GBM, lambda x: x, 1.0)
    fine = given(16, n, level << LEVEL_SHIFT)
    values, on_fine = draw.sample(level, 0, n)
    expected = [
        sde.simulate(GBM, np.ones(n), SPAN, n_steps=steps, method="milstein", increments=dw).final
        for steps, dw in ((16, fine), (8, fine[:, 0::2] + fine[:, 1::2]))
    ]
    np.testing.assert_allclose(on_fine, expected[0], rtol=1e-12)
    np.testing.assert_allclose(values, expected[0] - expected[1], rtol=0, atol=1e-12)


def test_the_antithetic_path_exchanges_the_members_of_each_pair():
    process, level, n = clark_cameron(), 1, 300
    draw = sampler(process, lambda x: x[:, 1], (0.3, 0.0))
    fine = given(8, n, level << LEVEL_SHIFT, 2)
    swapped = fine.reshape(n, 4, 2, 2)[:, :, ::-1].reshape(fine.shape)
    x0 = np.tile((0.3, 0.0), (n, 1))
    y = [
        sde.simulate(process, x0, SPAN, n_steps=dw.shape[1], method="milstein_commutative", increments=dw).final[:, 1]
        for dw in (fine, np.ascontiguousarray(swapped), fine[:, 0::2] + fine[:, 1::2])
    ]
    values, _ = draw.sample(level, 0, n)
    np.testing.assert_allclose(values, 0.5 * (y[0] + y[1]) - y[2], rtol=0, atol=1e-12)


def test_the_sum_telescopes():
    # the coarse path of level l has the law of the fine path of level l − 1
    draw, n = sampler(GBM, call, 1.0), 50_000
    fine = draw.values(0, 0, n, n_steps=4)
    coarse = draw.values(1, 0, n, n_steps=4, coarsen=2)
    gap = abs(fine.mean() - coarse.mean()) / math.hypot(fine.std(), coarse.std()) * math.sqrt(n)
    assert gap < 4.0
    assert not np.isin(fine[fine > 0.0], coarse).any()  # from paths of their own


def decay(draw, levels=(1, 2, 3, 4, 5), n=8192):
    """β in V_l ∝ 2^{−βl}."""
    variances = [draw.sample(level, 0, n)[0].var() for level in levels]
    return -np.polyfit(levels, np.log2(variances), 1)[0]


def test_milstein_couples_at_order_one():
    assert decay(sampler(GBM, call, 1.0)) == pytest.approx(2.0, abs=0.2)
    assert decay(sampler(GBM, call, 1.0, method="euler_maruyama")) == pytest.approx(1.0, abs=0.2)


def test_antithetic_pairs_stand_in_for_levy_areas():
    process = clark_cameron()

    def f(x):
        return np.sin(2.0 * x[:, 1])

    assert decay(sampler(process, f, (0.0, 0.0))) > 1.7
    # the same scheme without its pairs is of strong order ½
    assert decay(sampler(process, f, (0.0, 0.0), antithetic=False)) < 1.3


# ---- the pieces -----------------------------------------------------------------------------------------------------


def test_tally_does_not_depend_on_the_pieces():
    values = 1e6 + np.random.default_rng(1).standard_normal(10_000)
    tally = Tally()
    for piece in np.array_split(values, 7):
        tally.add(piece)
    assert tally.n == len(values)
    assert tally.mean == pytest.approx(values.mean(), rel=1e-14)
    assert tally.variance == pytest.approx(values.var(ddof=1), rel=1e-9)


def test_allocation_reaches_the_target_at_the_least_cost():
    variances, costs, target = [0.04, 3e-4, 2e-5], [4, 12, 24], 1e-3

    def of(n):
        return sum(v / k for v, k in zip(variances, n, strict=True)), sum(c * k for c, k in zip(costs, n, strict=True))

    best = np.array(allocation(variances, costs, target), float)
    assert of(best)[0] == pytest.approx(target**2, rel=0.01)
    for shift in ((1.1, 1.0, 1.0), (1.0, 1.1, 1.0), (1.0, 1.0, 1.1), (0.9, 1.0, 1.0), (1.0, 0.9, 1.0)):
        other = best * shift
        other *= of(other)[0] / target**2  # brought to the target
        assert of(other)[1] >= of(best)[1]
    assert allocation([0.0, 0.0], [1, 3], 1e-3) == [0, 0]


def tallies(*moments, n=10**6, carriers=10**6):
    made = []
    for mean, variance in moments:
        tally = Tally()
        tally.n, tally.mean, tally.squares = n, mean, (n - 1) * variance
        tally.second, tally.fourth = 1.0, 1.0 / carriers
        made.append(tally)
    return made


def test_a_variance_that_few_samples_missed_has_a_floor():
    seen = (0, 1.0), (0, 0.08), (0, 1e-9), (0, 0.0)
    assert guarded(tallies(*seen)) == pytest.approx([1.0, 0.08, 0.01, 0.00125])
    assert guarded(tallies(*seen, n=500)) == pytest.approx([1.0, 0.08, 0.01, 0.00125])
    # 500 samples of which three make up the variance
    assert guarded(tallies(*seen, n=500, carriers=3)) == pytest.approx([1.0, 0.08, 0.01, 0.002])
    assert guarded(tallies((0, 1.0), (0, 0.0), n=500, carriers=3))[1] == pytest.approx(0.002)


def test_carriers_of_a_variance():
    few, all_zero = Tally(), Tally()
    few.add(np.r_[np.zeros(100), 2.0, -2.0])
    few.add(np.r_[np.zeros(50), 2.0])
    all_zero.add(np.zeros(10))
    assert (few.carriers, all_zero.carriers) == (3.0, 0.0)


def test_a_jump_that_few_pairs_of_paths_feel():
    # P(S_1 > 1): a thousand pairs may agree to the last, so that the corrections seem to be exactly 0
    exact = ndtr((0.05 - 0.02) / 0.2)
    results = [expect(GBM, lambda x: x > 1.0, 1.0, SPAN, 4e-3, seed=seed) for seed in range(8)]
    assert max(abs(result.value - exact) for result in results) <= 4e-3
    assert min(result.levels[1].n_paths for result in results) >= 2048


def test_bias_is_judged_by_three_levels():
    # differences 2^{−l}: all three estimates are the true remainder
    assert remaining_bias(tallies((5, 1), (0.5, 1), (-0.25, 1), (0.125, 1))) == pytest.approx(0.125)
    # the last is small by chance
    assert remaining_bias(tallies((5, 1), (0.5, 1), (0.25, 1), (1e-9, 1))) == pytest.approx(0.125)


def test_the_scheme_follows_from_the_noise():
    pairs = sde.ito(lambda x, t: x, lambda x, t: ((x[0], x[1]), (0.0, x[0])), dim=2, noise="general")
    single = sde.ito(lambda x, t: x, lambda x, t: ((x[0],), (x[1],)), dim=2, noise="general")
    crossed = sde.ito(lambda x, t: x, lambda x, t: (x[1], x[0]), dim=2)
    constant = sde.ito(lambda x, t: x, lambda x, t: ((1.0, 0.2), (0.0, 1.0)), dim=2, noise="general")
    bare = sde.ito(lambda x, t: x, lambda x, t: np.sin(x))
    expected = [
        (GBM, "milstein", False), (bare, "platen", False), (sde.OrnsteinUhlenbeck(), "euler_maruyama", False),
        (constant, "euler_maruyama", False), (pairs, "milstein_commutative", True),
        (single, "milstein_commutative", False), (crossed, "milstein_commutative", True),
    ]  # fmt: skip
    for process, name, antithetic in expected:
        scheme = pick_scheme(process, None)
        assert (scheme.name, is_antithetic(process, scheme)) == (name, antithetic)


def test_the_value_does_not_depend_on_the_workers():
    one = expect(GBM, call, 1.0, SPAN, 4e-3, seed=9, workers=1)
    assert expect(GBM, call, 1.0, SPAN, 4e-3, seed=9, workers=3) == one
    assert expect(GBM, call, 1.0, SPAN, 4e-3, seed=10) != one
    drawn = expect(GBM, call, 1.0, SPAN, 4e-3)
    assert expect(GBM, call, 1.0, SPAN, 4e-3, seed=drawn.seed) == drawn


def test_float32_states():
    result = expect(GBM, call, 1.0, SPAN, 2e-3, seed=1, dtype=np.float32)
    assert abs(result.value - CALL) <= 2e-3


def test_progress_counts_steps():
    seen = []
    result = expect(GBM, call, 1.0, SPAN, 4e-3, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (result.cost, result.cost)
    assert all(done <= total for done, total in seen)


def test_it_prints_its_uncertainty(calls):
    text = str(calls[0])
    assert isinstance(calls[0], Expectation)
    error = calls[0].half_width + calls[0].bias
    assert text.startswith(f"{calls[0].value:.5f} ± {error:.5f} at confidence 0.99")
    assert len(text.splitlines()) == 3 + len(calls[0].levels)


# ---- refusals -------------------------------------------------------------------------------------------------------


def ask(f=call, process=GBM, x0=1.0, tolerance=1e-2, **options):
    return expect(process, f, x0, SPAN, tolerance, seed=1, **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tolerance": 0.0}, ValueError, "tolerance must be > 0"),
        ({"confidence": 1.0}, ValueError, "confidence must be < 1"),
        ({"n_steps": 0}, ValueError, "n_steps must be >= 1"),
        ({"max_levels": 1}, ValueError, "max_levels must be >= 2"),
        ({"f": 3.0}, TypeError, "f must be callable"),
        ({"process": sde.GeometricBrownian}, TypeError, "is a class; make one"),
        ({"f": lambda x: 1.0}, ValueError, r"f returned shape \(\).*one number a path"),
        ({"f": lambda x: np.stack([x, x])}, ValueError, "f returned shape"),
        ({"f": lambda x: x + 1j}, TypeError, "real numbers"),
        ({"f": lambda x: np.where(x > 1.2, np.nan, x)}, ValueError, "f returned nan for the state 1"),
        ({"method": "weak_euler"}, ValueError, "follow one Brownian path"),
        ({"method": "exact"}, ValueError, "no discretisation error"),
        ({"method": "sri"}, ValueError, "more of the Brownian path"),
        (
            {"process": clark_cameron(), "x0": np.zeros((5, 2))},
            ValueError,
            r"x0 has shape \(5, 2\), expected one state",
        ),
        ({"process": sde.Langevin(lambda x: -x)}, ValueError, "whole-array steps only"),
        ({"method": "milstien"}, ValueError, "did you mean 'milstein'"),
    ],
)
def test_refusals(options, error, words):
    with pytest.raises(error, match=words):
        ask(**options)


def test_a_bias_that_will_not_come_down():
    with pytest.raises(RuntimeError, match=r"with 4 steps the bias is still about .* take a larger tolerance"):
        ask(tolerance=5e-4, n_steps=1, max_levels=2)


def test_a_coarsest_step_that_is_unstable():
    steep = sde.ito(lambda x, t: -(x**3), lambda x, t: 1.0)
    words = r"on level 1 .*more steps on the coarsest level \(n_steps is 4"
    with pytest.raises(sde.errors.NonFiniteError, match=words):
        expect(steep, lambda x: x, 50.0, SPAN, 0.1, seed=1)
    # finite after four steps, but useless: the variance says so before anyone waits for the samples
    with pytest.raises(RuntimeError, match=r"would take .* samples of 4 steps"):
        expect(steep, lambda x: x, 3.3, SPAN, 0.1, seed=1)
    with pytest.raises(RuntimeError, match=r"variance on level 0 is inf"):
        expect(steep, lambda x: np.exp(np.minimum(abs(x), 500.0)), 3.3, SPAN, 0.1, seed=1)
    assert expect(steep, lambda x: x, 3.3, SPAN, 0.1, seed=1, n_steps=16).bias < 0.025
