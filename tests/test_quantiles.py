"""Quantiles: order statistics up to their bins, intervals that hold what they say, exact sums."""

import itertools
import pickle

import numpy as np
import pytest
from scipy import stats

import sdesim as sde
from sdesim.core import blocks

PROBABILITIES = (0.5, 0.01, 0.25, 0.9, 0.999)
WALK = {"n_steps": 4, "seed": 21, "save": 2}


def still():
    return sde.ito(lambda x, t: 0.0, lambda x, t: 0.0)


def of(states, reduction, **more):
    """The quantiles of given states."""
    arguments = {"n_steps": 1, **more}
    return sde.simulate(still(), np.asarray(states, float), (0, 1), reduce=[reduction], **arguments).reductions[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 999, 5000])
def test_quantiles_are_the_order_statistics_up_to_their_bins(dtype, n):
    arguments = dict(WALK, n_paths=n, dtype=dtype, first_path=300)
    kept = sde.simulate(sde.GeometricBrownian(0.1, 1.5), 1.0, (0, 2), **arguments)
    result = sde.simulate(
        sde.GeometricBrownian(0.1, 1.5), 1.0, (0, 2), reduce=[sde.Quantiles(PROBABILITIES)], **arguments
    ).reductions[0]
    exact = np.quantile(kept.x.astype(float), PROBABILITIES, axis=0, method="inverted_cdf")
    assert result.n == n
    assert result.values.shape == result.value_error.shape == (5, 3)
    assert np.all(np.abs(result.values - exact) <= result.value_error)
    # half of 2^-10 of the lower edge of the bin, and no less than a quarter of 2^-10 of the state
    assert np.all(result.value_error <= 2**-11 * np.abs(exact))
    assert np.all(result.value_error >= 2**-13 * np.abs(exact))
    other = result.at(0.9)
    assert np.array_equal(other.values, result.values[3])
    # the control: the neighbour of the order statistic would be seen
    if n == 999:
        for beside in np.sort(kept.x[:, 1])[[8, 10]]:  # rank 10, counted from 1, is the one
            assert abs(result.values[1, 1] - beside) > result.value_error[1, 1]


def test_both_signs_zeros_and_the_ends_of_the_range():
    states = [-3.0, -1.5, -1e-9, 0.0, 1e-9, 0.75, 1.0, np.nextafter(1.0, 0), 40.0]
    result = of(states, sde.Quantiles((np.arange(9) + 0.5) / 9, magnitudes=(1e-3, 8.0), digits=3))
    assert np.all(np.abs(result.values[:8, 0] - np.sort(states)[:8]) <= result.value_error[:8, 0])
    zero = 2.0**-10  # 1e-3, widened
    assert result.values[2:5, 0].tolist() == [0, 0, 0]
    assert result.value_error[2:5, 0].tolist() == [zero] * 3
    # eight bins in each octave, mirrored for the negative
    assert result.values[:2, 0].tolist() == [-3.125, -1.5625]
    assert result.values[5:8, 0].tolist() == [0.78125, 1 - 1 / 32, 1 + 1 / 16]
    assert result.values[8, 0] == result.value_error[8, 0] == np.inf
    assert of(-np.array(states), sde.Quantiles(0.01, magnitudes=(1e-3, 8.0), digits=3)).values[0] == -np.inf


def test_a_nan_makes_the_quantiles_nan():
    far = sde.ito(lambda x, t: np.exp(x * x), lambda x, t: 0.0)
    with pytest.warns(RuntimeWarning, match="1 of 3 paths"):
        result = sde.simulate(
            sde.ito(lambda x, t: np.sqrt(x), lambda x, t: 0.0), np.array([1.0, -1.0, 2.0]), (0, 1), n_steps=1,
            save="all", reduce=[sde.Quantiles()], on_nonfinite="ignore",
        ).reductions[0]  # fmt: skip
    assert np.isfinite(result.values[:, 0]).all()
    for a in (result.values, result.value_error, *result.interval()):
        assert np.isnan(a[:, 1]).all()
    with pytest.warns(RuntimeWarning, match="1 of 2 paths"):
        result = sde.simulate(
            far, np.array([0.0, 27.0]), (0, 0.5), n_steps=1, reduce=[sde.Quantiles((0.5, 0.9))], on_nonfinite="ignore"
        ).reductions[0]
    assert result.values[1, 0] == np.inf


def test_components_are_chosen_and_keep_their_shape():
    process = sde.Wiener(1.0)
    x0 = np.arange(6.0).reshape(2, 3)
    arguments = dict(n_steps=2, n_paths=400, seed=3)
    x = sde.simulate(process, x0, (0, 1), **arguments).final
    reduce = [sde.Quantiles(), sde.Quantiles(0.3, components=4), sde.Quantiles((0.3, 0.6), components=(5, 0))]
    every, one, two = sde.simulate(process, x0, (0, 1), reduce=reduce, **arguments).reductions
    assert every.values.shape == (5, 1, 2, 3)
    assert one.values.shape == (1,)
    assert two.values.shape == (2, 1, 2)
    flat = x.reshape(400, 6)
    exact = np.quantile(flat[:, (5, 0)], (0.3, 0.6), axis=0, method="inverted_cdf")
    assert np.all(np.abs(two.values[:, 0] - exact) <= two.value_error[:, 0])
    assert abs(one.values[0] - np.quantile(flat[:, 4], 0.3, method="inverted_cdf")) <= one.value_error[0]


def test_intervals_hold_the_quantiles_of_the_law():
    """Components are independent experiments: intervals of 95 % hold the true quantile in 95 % of them, or more."""
    n, experiments, p = 300, 400, np.array([0.1, 0.5, 0.97])
    result = sde.simulate(
        sde.Wiener(1.0), np.zeros(experiments), (0, 1), n_steps=1, n_paths=n, seed=8, reduce=[sde.Quantiles(p)]
    ).reductions[0]
    true = stats.norm.ppf(p)[:, None]

    def coverage(confidence):
        low, high = result.interval(confidence)
        return np.mean((low[:, 0] <= true) & (true <= high[:, 0]), axis=1)

    slack = stats.norm.isf(1e-4 / 3) * np.sqrt(0.95 * 0.05 / experiments)
    assert np.all(coverage(0.95) > 0.95 - slack)
    assert np.all(coverage(0.95) < 0.985 + 0.005)  # discreteness and bins widen them, but not by much
    assert np.all(coverage(0.85) < 0.95 - slack)  # the control: intervals somewhat too narrow are seen


def test_the_ranks_of_an_interval_are_binomial():
    n = 50
    result = of(np.arange(1, n + 1), sde.Quantiles((0.02, 0.5, 0.99)))
    low, high = (a[:, 0] for a in result.interval(0.9))
    for p, a, b in zip((0.02, 0.5, 0.99), low, high, strict=True):
        law = stats.binom(n, p)
        ranks = np.arange(0, n + 1)
        lower = ranks[law.cdf(ranks - 1) <= 0.05].max()
        upper = next(u for u in range(1, n + 2) if law.cdf(u - 1) >= 0.95)
        assert a == -np.inf if lower == 0 else a <= lower <= a * (1 + 2**-10)
        assert b == np.inf if upper == n + 1 else upper <= b <= upper * (1 + 2**-9)
    assert low[0] == -np.inf
    assert high[2] == np.inf


def same(a, b):
    return a.n == b.n and a.counts == b.counts and a.values.tobytes() == b.values.tobytes()


def test_quantiles_are_the_same_for_any_blocks_workers_and_halves(monkeypatch):
    process = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.7)
    arguments = dict(WALK, reduce=[sde.Quantiles()])

    def run(first, last, **more):
        n = last - first
        return sde.simulate(process, 0.1, (0, 1), n_paths=n, first_path=first, **arguments, **more).reductions[0]

    whole = run(30, 3030, workers=1)
    cut = blocks.cut
    for size, workers in ((256, 1), (768, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "cut", lambda first, n, _, size=size: cut(first, n, size))
            assert same(run(30, 3030, workers=workers), whole)
    borders = [30, 31, 256, 1700, 3030]
    parts = [run(a, b) for a, b in itertools.pairwise(borders)]
    total = pickle.loads(pickle.dumps(parts[2])) + parts[0] + parts[3] + parts[1]
    assert same(total, whole)
    assert not same(parts[3], whole)
    with pytest.raises(ValueError, match="quantiles add only when"):
        _ = whole + whole.at(0.3)


def test_a_closed_part_is_small():
    block = blocks.Block(0, 65536, 0)
    part = sde.Quantiles().start(block, 1, 1)
    x = np.random.default_rng(1).normal(size=65536)
    bins = part.bins
    part.keys[...] = bins.n + 1 + np.sign(x) * ((np.abs(x).view(np.int64) >> bins.shift) - bins.first + 1)
    assert part.keys.nbytes == 2**18
    part.close()
    assert part.keys is None
    assert len(pickle.dumps(part)) < 32_000


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        (dict(probabilities=(0.5, 1.0)), ValueError, r"probabilities must lie in \(0, 1\), got 1 at index 1"),
        (dict(probabilities=()), ValueError, "probabilities must be a number or a sequence"),
        (dict(probabilities="half"), TypeError, "probabilities must hold real numbers"),
        (dict(components=-1), ValueError, "components must be >= 0"),
        (dict(components=(0, 1.5)), TypeError, "components must be an integer"),
        (dict(magnitudes=(1.0, 1.0)), ValueError, "magnitudes must increase"),
        (dict(magnitudes=(0.0, 1.0)), ValueError, r"magnitudes\[0\] must be >= "),
        (dict(magnitudes=3), ValueError, "magnitudes must be a pair"),
        (dict(digits=30), ValueError, "digits must be < 17"),
    ],
)
def test_bad_quantiles_are_refused(arguments, kind, match):
    with pytest.raises(kind, match=match):
        sde.Quantiles(**arguments)


def test_a_component_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="components 1, but the state has 1"):
        of([1.0, 2.0], sde.Quantiles(components=1))
    result = of([1.0, 2.0], sde.Quantiles())
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got 95"):
        result.interval(95)
