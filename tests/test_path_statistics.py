"""Observables, occupation and autocorrelation: NumPy's numbers, honest errors, and the same bits however it is cut."""

import ctypes
import itertools
import math
import pickle

import numpy as np
import pytest
from scipy import stats

import sdesim as sde
from sdesim.core import blocks
from sdesim.errors import CompileError

RATE = 0.7


def spiral():
    return sde.ito(
        lambda x, t: (x[1] - x[0], -x[0] - 0.5 * x[1]),
        lambda x, t: ((0.5, 0.2), (0.1 * x[0], 0.4)),
        dim=2,
        noise="general",
    )


def run(reduce, process=None, x0=(0.3, -0.2), n=1000, span=(0.5, 2), **more):
    arguments = {"n_steps": 12, "seed": 5, "save": 2, "n_paths": n, **more}
    process = spiral() if process is None else process
    return sde.simulate(process, x0, span, reduce=[reduce] if reduce is not None else None, **arguments)


def reduced(reduce, *rest, **more):
    return run(reduce, *rest, **more).reductions[0]


# ---- observables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 257, 1000])
def test_an_observable_is_the_mean_of_its_values(n):
    kept = run(None, n=n, first_path=130)
    result = reduced(sde.Observable(lambda x, t: (x[0] * x[1] + RATE, np.exp(x[0]) * t, x[0] > 0)), n=n, first_path=130)
    x, y = np.moveaxis(kept.x, -1, 0)
    values = np.stack([x * y + RATE, np.exp(x) * kept.t, x > 0], axis=-1)
    assert result.n == n
    np.testing.assert_allclose(result.mean, values.mean(axis=0), rtol=1e-11, atol=1e-14)
    if n > 1:
        np.testing.assert_allclose(result.variance, values.var(axis=0, ddof=1), rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(result.standard_error, np.sqrt(result.variance / n), rtol=1e-14)
        for k in range(len(kept.t)):
            np.testing.assert_allclose(result.covariance[k], np.cov(values[:, k].T), rtol=1e-8, atol=1e-14)


def test_the_states_themselves_have_the_bits_of_their_moments():
    moments, both = run(sde.Moments()).reductions[0], reduced(sde.Observable(lambda x: (x[0], x[1])))
    assert moments.mean.tobytes() == both.mean.tobytes()
    assert moments.covariance.tobytes() == both.covariance.tobytes()
    with pytest.raises(ValueError, match="moments add only"):
        _ = moments + both


def test_the_shape_follows_the_function():
    number = reduced(sde.Observable(lambda x: x[0]))
    one = reduced(sde.Observable(lambda x: (x[0],)))
    assert number.mean.shape == number.variance.shape == (7,)
    assert one.mean.shape == (7, 1)
    assert number.covariance.shape == one.covariance.shape == (7, 1, 1)
    assert np.array_equal(number.mean, one.mean[:, 0])


def test_elementwise_states_are_tuples_of_their_numbers():
    process = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    x0 = np.arange(6.0).reshape(2, 3)
    kept = run(None, process, x0)
    result = reduced(sde.Observable(lambda x: x[5] - x[0] * x[4]), process, x0)
    x = kept.x
    expected = (x[:, :, 1, 2] - x[:, :, 0, 0] * x[:, :, 1, 1]).mean(axis=0)
    np.testing.assert_allclose(result.mean, expected, rtol=1e-12)
    single = reduced(sde.Observable(lambda x: math.cos(x)), process, np.array([0.3]))
    np.testing.assert_allclose(single.mean, np.cos(run(None, process, np.array([0.3])).x[..., 0]).mean(axis=0))
    with pytest.raises(ValueError, match="at most 64 numbers, and the state has 65"):
        run(sde.Observable(lambda x: x[0]), process, np.zeros(65))


def test_float32_runs_evaluate_in_float32():
    process, small = sde.Wiener(1.0), 1e-3
    arguments = dict(n=1, dtype=np.float32, x0=0.3, process=process)
    x = run(None, **arguments).x[0]
    found = reduced(sde.Observable(lambda x: (x + small) - x), **arguments).mean
    single = (x + np.float32(small)) - x
    assert single.dtype == np.float32
    assert np.array_equal(found, single.astype(float))
    double = (x.astype(float) + small) - x.astype(float)
    assert not np.array_equal(found, double.astype(np.float32))  # the control: constants of 64 bits


def test_functions_that_are_none_are_refused():
    for f, kind, match in [
        (3, TypeError, "f must be callable as"),
        (lambda: 1.0, TypeError, "a function of x, or of x and t"),
        (lambda x, t, u: 1.0, TypeError, r"it takes \(x, t, u\)"),
    ]:
        with pytest.raises(kind, match=match):
            sde.Observable(f)
    for f, kind, match in [
        (lambda x: [x[0], x[1]], TypeError, r"must return a number or a tuple of numbers, got \[.*at x = 1, 1.125"),
        (lambda x: "a", TypeError, "must return a number"),
        (lambda x: x[2], ValueError, "cannot be called with a tuple of 2 numbers: IndexError"),
        (lambda x: math.fsum(x), CompileError, "f of Observable does not compile"),
    ]:
        with pytest.raises(kind, match=match):
            run(sde.Observable(f))


def test_a_default_is_no_argument():
    found = reduced(sde.Observable(lambda x, power=2: x[0] ** power), n=1)
    np.testing.assert_allclose(found.mean, run(None, n=1).x[0, :, 0] ** 2, rtol=1e-14)


# ---- occupation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 700])
def test_occupation_is_the_histogram_over_times_and_paths(n, dtype):
    process = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    arguments = dict(process=process, x0=0.2, n=n, dtype=dtype, first_path=99)
    x = run(None, **arguments).x
    result = reduced(sde.Occupation(-1.0, 0.9, 11), **arguments)
    per_path = np.array([np.histogram(path, 11, (-1.0, 0.9))[0] for path in x])
    assert np.array_equal(result.visits, per_path.sum(axis=0))
    np.testing.assert_allclose(result.fraction, (per_path / 7).mean(axis=0), rtol=1e-14)
    assert result.fraction.sum() + result.outside == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(result.density * (1.9 / 11), result.fraction, rtol=1e-14)
    if n > 1:
        np.testing.assert_allclose(result.standard_error, (per_path / 7).std(axis=0, ddof=1) / np.sqrt(n), rtol=1e-12)
        # the control: recorded times of a path are not independent
        below = reduced(sde.Occupation(-5.0, 0.0, 1), **arguments)
        assert below.standard_error > 1.4 * np.sqrt(below.fraction * (1 - below.fraction) / (7 * n))
    else:
        assert np.isnan(result.standard_error).all()


def test_joint_occupation():
    x = run(None).x
    result = reduced(sde.Occupation((-1, -1), (1, 1.5), (4, 5), components=(1, 0)))
    counts, a, b = np.histogram2d(x[..., 1].ravel(), x[..., 0].ravel(), (4, 5), ((-1, 1), (-1, 1.5)))
    assert np.array_equal(result.visits, counts)
    assert np.array_equal(result.edges[0], a)
    assert np.array_equal(result.edges[1], b)
    assert result.standard_error.shape == (4, 5)
    with pytest.raises(ValueError, match="Occupation counts component 2"):
        run(sde.Occupation(0, 1, 3, components=2))


# ---- autocorrelation ------------------------------------------------------------------------------------------------


def naive(x, n_lags):
    """C_k (n_lags + 1, d) of states (n, T, d)."""
    y = x - x.mean(axis=(0, 1))
    n_times = y.shape[1]
    return np.array([(y[:, : n_times - k] * y[:, k:]).mean(axis=(0, 1)) for k in range(n_lags + 1)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "n_lags"), [(1, 3), (40, 1), (700, 6)])
def test_autocovariances_are_their_definition(n, n_lags, dtype):
    arguments = dict(n=n, dtype=dtype, first_path=70)
    x = run(None, **arguments).x.astype(float)
    result = reduced(sde.Autocorrelation(n_lags, center=(0.1, -0.3)), **arguments)
    y = x - x.mean(axis=(0, 1))
    # Σ (y_t − m)(y_{t+k} − m) has the mean of all times in it, at every lag
    np.testing.assert_allclose(result.autocovariance, naive(x, n_lags), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(result.autocovariance[0], (y**2).mean(axis=(0, 1)), rtol=1e-11)
    np.testing.assert_allclose(result.mean, x.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(result.lags, np.arange(n_lags + 1) * 0.25)
    assert result.n == n
    assert np.array_equal(result.autocorrelation, result.autocovariance / result.autocovariance[0])
    plain = reduced(sde.Autocorrelation(n_lags), **arguments)
    np.testing.assert_allclose(plain.autocovariance, result.autocovariance, rtol=1e-9, atol=1e-13)
    assert np.isnan(result.autocovariance_error).all() == (n == 1)


def test_errors_are_those_of_a_jackknife_over_groups():
    n, n_lags = 333, 4
    x = run(None, n=n, first_path=70).x
    result = reduced(sde.Autocorrelation(n_lags), n=n, first_path=70)
    group = (70 + np.arange(n)) % 32
    left_out = np.array([naive(x[group != g], n_lags) for g in range(32)])

    def spread(values):
        return np.sqrt(31 / 32 * ((values - values.mean(axis=0)) ** 2).sum(axis=0))

    np.testing.assert_allclose(result.autocovariance_error, spread(left_out), rtol=1e-8)
    np.testing.assert_allclose(result.autocorrelation_error, spread(left_out / left_out[:, :1]), rtol=1e-8, atol=1e-15)


def stationary(n_experiments, theta=1.5, **more):
    """Components are independent experiments with ρ(s) = exp(−θ s)."""
    process = sde.OrnsteinUhlenbeck(theta, 2.0, 1.0)
    rng = np.random.default_rng(4)
    n = more.pop("n", 300)
    x0 = 2.0 + rng.normal(size=(n, n_experiments)) / np.sqrt(2 * theta)
    more = {"n_steps": 60, "save": "all", "method": "exact", "seed": 3, **more}
    return sde.simulate(process, x0, (0, 6), reduce=[sde.Autocorrelation(40)], **more).reductions[0]


def test_the_autocorrelation_of_ornstein_uhlenbeck():
    """ρ(k Δt) = exp(−θ k Δt), the variance is σ²/2θ, the integrated time 1/θ; errors as large as they say."""
    theta, experiments = 1.5, 60
    result = stationary(experiments, theta)
    exact = np.exp(-theta * result.lags)
    level = stats.t.isf(1e-4 / (2 * 40), 31)
    pooled = result.autocorrelation.mean(axis=1)
    error = np.sqrt((result.autocorrelation_error**2).sum(axis=1)) / experiments
    # forty correlated lags; the bias of a ratio, 2τ/nT, is a hundredth of an error
    assert np.all(np.abs(pooled - exact)[1:] < level * error[1:])
    wrong = np.exp(-1.03 * theta * result.lags)
    assert np.any(np.abs(pooled - wrong)[1:] > level * error[1:])
    z = (result.autocorrelation - exact[:, None])[1:] / result.autocorrelation_error[1:]
    # the variance of t with 31 degrees is 31/29; 60 experiments at a lag say it to 18 %
    assert np.all(np.abs((z**2).mean(axis=1) / (31 / 29) - 1) < 4.5 * np.sqrt(2.2 / experiments))
    assert result.autocovariance[0].mean() == pytest.approx(1 / (2 * theta), rel=0.01)
    np.testing.assert_allclose(result.mean.mean(), 2.0, atol=0.01)
    # Δt (½ + Σ ρ_k) up to 5 τ: without the tail, e^-5 of it; to leave out the ½ would be eight errors
    error = np.sqrt((result.integrated_time_error**2).sum()) / experiments
    assert abs(result.integrated_time.mean() - (1 - np.exp(-5)) / theta) < 4.5 * error
    assert 7 * error < 0.05
    assert 0.6 < np.std((result.integrated_time - 1 / theta) / result.integrated_time_error) < 1.4


def test_too_few_lags_have_no_integrated_time():
    result = reduced(sde.Autocorrelation(3))
    assert np.isnan(result.integrated_time).all()
    assert result.integrated_time.shape == (2,)


def test_white_noise_has_half_a_step():
    hold = sde.ito(lambda x, t: -10.0 * x, lambda x, t: 1.0)  # x ← x − x + ΔW: independent states
    x0 = np.random.default_rng(0).normal(size=4000) * np.sqrt(0.1)
    result = sde.simulate(hold, x0, (0, 1), n_steps=10, save="all", seed=1, reduce=[sde.Autocorrelation(8)]).reductions[
        0
    ]
    assert np.all(np.abs(result.autocorrelation[1:]) < 4.5 * result.autocorrelation_error[1:])
    assert result.integrated_time == pytest.approx(0.05, abs=5 * result.integrated_time_error)


def test_a_mean_far_from_zero_wants_a_center():
    process = sde.OrnsteinUhlenbeck(1.0, 2.0**24, 1.0)
    arguments = dict(process=process, x0=2.0**24, n=500)
    exact = naive(run(None, **arguments).x[..., None] - 2.0**24, 3)[:, 0]
    found = reduced(sde.Autocorrelation(3, center=2.0**24), **arguments).autocovariance
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    plain = reduced(sde.Autocorrelation(3), **arguments).autocovariance
    assert np.abs(plain / exact - 1).max() > 1e-3  # the control


def test_times_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="needs at least 8 recorded times, got 7"):
        run(sde.Autocorrelation(7))
    with pytest.raises(ValueError, match=r"equally spaced times; they go by 0.625, but from 1.75 to 2 at index 2"):
        run(sde.Autocorrelation(2), save=5)
    with pytest.raises(ValueError, match="center has 3 numbers, but the state has 2"):
        run(sde.Autocorrelation(2, center=(1, 2, 3)))
    with pytest.raises(ValueError, match="n_lags must be >= 1"):
        sde.Autocorrelation(0)


# ---- however the work is cut ----------------------------------------------------------------------------------------


def content(result):
    """The numbers of a result, as bytes."""
    names = ("n", "mean", "covariance", "fraction", "standard_error", "outside", "autocovariance",
             "autocovariance_error", "autocorrelation_error", "integrated_time", "integrated_time_error")  # fmt: skip
    return {name: np.asarray(getattr(result, name)).tobytes() for name in names if hasattr(result, name)}


REDUCTIONS = {
    "observable": sde.Observable(lambda x, t: (x[0] * t, np.sin(x[1]))),
    "occupation": sde.Occupation(-0.5, 0.5, 7),
    "autocorrelation": sde.Autocorrelation(5),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_same_bits_for_any_blocks_workers_and_halves(name, monkeypatch):
    reduction = REDUCTIONS[name]
    whole = reduced(reduction, n=3001, first_path=45, workers=1)
    cut = blocks.cut
    for size, workers in ((256, 1), (768, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "cut", lambda first, n, _, size=size: cut(first, n, size))
            assert content(reduced(reduction, n=3001, first_path=45, workers=workers)) == content(whole)
    borders = [45, 46, 253, 256, 1703, 3046]
    parts = [reduced(reduction, n=b - a, first_path=a) for a, b in itertools.pairwise(borders)]
    total = parts[3]
    for i in (0, 4, 2, 1):
        total = pickle.loads(pickle.dumps(total)) + parts[i]
    assert content(total) == content(whole)
    assert content(parts[3]) != content(whole)
    other = reduced(reduction, n=10, first_path=9000, span=(0.5, 1))
    with pytest.raises(ValueError, match="add only when"):
        _ = whole + other


@pytest.mark.parametrize("name", ["observable", "autocorrelation"])
def test_overlapping_paths_do_not_add(name):
    result = reduced(REDUCTIONS[name], n=300)
    with pytest.raises(ValueError, match="disjoint"):
        _ = result + result


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_whole_array_engine_feeds_them_too(name):
    def drift(x, t):
        return (x[1] - x[0], -x[0])

    def diffusion(x, t):
        return (0.5, 1.0)

    reduction = sde.Observable(lambda x, t: (x[0] * t, x[1] > 0)) if name == "observable" else REDUCTIONS[name]
    tiles = reduced(reduction, sde.ito(drift, diffusion, dim=2), n=700, first_path=3)
    whole = reduced(reduction, sde.ito(drift, diffusion, dim=2, compiled=False), n=700, first_path=3)
    attribute = {"observable": "covariance", "occupation": "fraction", "autocorrelation": "autocovariance"}[name]
    np.testing.assert_allclose(getattr(whole, attribute), getattr(tiles, attribute), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["occupation", "autocorrelation"])
def test_a_recorder_that_is_handed_two_leaves_at_a_time_says_so(name):
    """They remember the states of a leaf from one recorded time to the next."""
    reduction = REDUCTIONS[name]
    x, t = np.zeros((2, 256)), np.zeros(257)
    for fits in (True, False):
        part = reduction.start(blocks.Block(0, 512, 0), 2, 6)
        recorder = part.recorder(np.float64)
        kinds = [ctypes.c_void_p] * 2 + [ctypes.c_ssize_t] * 4 + [ctypes.c_void_p]
        record = ctypes.CFUNCTYPE(None, *kinds)(recorder.address)
        calls = [(row, index) for row in (0, 256) for index in range(6)]
        if not fits:
            calls.sort(key=lambda pair: pair[1])
        for row, index in calls:
            record(x.ctypes.data, t.ctypes.data, 0, 256, row, index, recorder.slots.ctypes.data)
        if fits:
            assert reduction.result([part], np.arange(6.0), (2,)).n == 512
        else:
            with pytest.raises(RuntimeError, match="one for each leaf of 256 paths"):
                reduction.result([part], np.arange(6.0), (2,))


def test_closed_parts_are_small():
    block = blocks.Block(0, 4096, 0)
    for reduction in (sde.Moments(), *REDUCTIONS.values()):
        part = reduction.start(block, 2, 7)
        if hasattr(part, "close"):
            part.close()
            assert len(part.tree.levels) == 1
            assert len(pickle.dumps(part)) < 10_000
