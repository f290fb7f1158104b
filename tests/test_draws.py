"""The samplers of gamma, Poisson and non-central χ² laws, and the exact transition of Cox-Ingersoll-Ross."""

import ctypes
import warnings

import numpy as np
import pytest
from scipy import stats

from sdesim.core import compile as compiler
from sdesim.core import draws, philox, stream
from sdesim.core.cache import kernel
from sdesim.core.elementary import U64
from sdesim.processes.cox_ingersoll_ross import CoxIngersollRoss
from sdesim.simulate import simulate

pytestmark = pytest.mark.slow

# names that the kernel refers to
gamma, poisson, normal, uniform = draws.gamma, draws.poisson, draws.normal, draws.uniform
chi_square, spot_of = draws.noncentral_chi_square, draws.spot_of

GAMMA, POISSON, CHI_SQUARE, NORMAL, UNIFORM = range(5)


@kernel
def fill(out, z, which, a, b, component, seed):
    for i in range(len(out)):
        spot = spot_of(3, component, i, seed)
        draw = U64(0)
        if which == 0:
            out[i], draw = gamma(a, spot, draw)
        elif which == 1:
            out[i], draw = poisson(a, spot, draw)
        elif which == 2:
            out[i], draw = chi_square(a, b, z[i], spot, draw)
        elif which == 3:
            out[i], z[i], draw = normal(spot, draw)
        else:
            out[i], z[i], draw = uniform(spot, draw)


def sample(which, a=0.0, b=0.0, n=100_000, seed=11, component=0):
    """n draws of a sampler, and the normals that drove it (or the second of a pair)."""
    out, z = np.empty(n), np.random.default_rng(seed).standard_normal(n)
    fill(out, z, which, float(a), float(b), component, U64(seed))
    return out, z


FREEDOM = (0.3, 0.9, 1.0, 2.5, 50.0)
NONCENTRALITY = (0.0, 1e-3, 1.0, 100.0, 1e5)
# p-values below this are failures: 1 % over all the Kolmogorov-Smirnov tests of this file
LEVEL = 0.01 / 70


def chi_square_law(freedom, noncentrality):
    return stats.ncx2(freedom, noncentrality) if noncentrality else stats.chi2(freedom)


def test_words_of_a_spot_are_the_streams():
    end = int(draws.FIRST_COMPONENT) + draws.MAX_COMPONENTS * int(draws.STRIDE)
    assert end <= int(draws.LONG)
    assert end + int(draws.LONG) <= stream.MAX_COMPONENTS
    first, second = sample(UNIFORM, n=4, component=2)
    words = np.empty((4, 4), np.uint32)
    component = int(draws.FIRST_COMPONENT) + 2 * int(draws.STRIDE)
    philox.words(words, 3, (stream.ACCEPTANCE << 24) | component, U64(0), U64(11))
    bits = (words.astype(np.uint64)[0::2] << np.uint64(32) | words[1::2]) >> np.uint64(11)
    np.testing.assert_array_equal(np.array([first, second]), bits * 2.0**-53 + 2.0**-54)


def test_uniforms_and_normals_of_a_spot():
    for which, law in ((UNIFORM, stats.uniform), (NORMAL, stats.norm)):
        first, second = sample(which)
        assert stats.kstest(first, law.cdf).pvalue > LEVEL
        assert stats.kstest(second, law.cdf).pvalue > LEVEL
        assert abs(np.corrcoef(first, second)[0, 1]) < 4.0 / np.sqrt(len(first))


@pytest.mark.parametrize("shape", [0.01, 0.15, 0.5, 1.0, 1.7, 25.0, 1e6, 1e12])
def test_gamma(shape):
    x, _ = sample(GAMMA, shape)
    assert stats.kstest(x, stats.gamma(shape).cdf).pvalue > LEVEL
    assert x.mean() == pytest.approx(shape, abs=5 * np.sqrt(shape / len(x)))


def distribution_of_counts(k, law):
    """P(K < k) + U P(K = k), which is uniform where K has the law."""
    return law.cdf(k) - np.random.default_rng(1).random(len(k)) * law.pmf(k)


@pytest.mark.parametrize("mean", [0.1, 3.0, 9.9, 10.0, 30.0, 1e3, 1e6, 1e10])
def test_poisson(mean):
    k, _ = sample(POISSON, mean)
    np.testing.assert_array_equal(k, np.round(k))
    u = distribution_of_counts(k, stats.poisson(mean))
    assert stats.kstest(u, "uniform").pvalue > LEVEL
    assert k.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / len(k)))
    assert k.var() == pytest.approx(mean, rel=5 * np.sqrt((2 + 1 / mean) / len(k)))


def test_poisson_of_mean_zero():
    assert not sample(POISSON, 0.0, n=100)[0].any()


@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize("noncentrality", NONCENTRALITY)
def test_noncentral_chi_square(freedom, noncentrality):
    x, _ = sample(CHI_SQUARE, freedom, noncentrality, n=20_000)
    assert stats.kstest(x, chi_square_law(freedom, noncentrality).cdf).pvalue > LEVEL
    mean, variance = freedom + noncentrality, 2 * (freedom + 2 * noncentrality)
    assert x.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / len(x)))
    fourth = 48 * (freedom + 4 * noncentrality)  # cumulant
    assert x.var() == pytest.approx(variance, abs=5 * np.sqrt((fourth + 2 * variance**2) / len(x)))


@pytest.mark.parametrize(("freedom", "noncentrality"), [(0.3, 1.0), (0.9, 0.0), (2.5, 1.0), (50.0, 1.0)])
def test_the_law_tests_see_five_percent_of_freedom(freedom, noncentrality):
    x, _ = sample(CHI_SQUARE, 1.05 * freedom, noncentrality, n=20_000)
    assert stats.kstest(x, chi_square_law(freedom, noncentrality).cdf).pvalue < LEVEL


@pytest.mark.parametrize("freedom", FREEDOM)
def test_noncentral_chi_square_follows_its_normal(freedom):
    # for a large non-centrality the normal is nearly all the noise there is, on both sides of one degree of freedom
    x, z = sample(CHI_SQUARE, freedom, 1e5, n=2000)
    assert np.corrcoef(x, z)[0, 1] > 0.999


# ---- the transition of Cox-Ingersoll-Ross ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def below_fellers_bound():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Feller's condition")
        yield


def step(process, x, dt, *, dtype=np.float64, seed=5, number=0, first=0):
    """One exact step of states x (n,), through the address of the compiled tile as an engine would take it."""
    layout, vector = compiler.flatten("CoxIngersollRoss", process.fields())
    tile = compiler.tile(
        "CoxIngersollRoss.transition_tile", process.formula("transition_tile"), layout, dtype, dim=None,
        entries="transition_tile",
    )  # fmt: skip
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_ssize_t)(tile.address)
    n, lanes = len(x), compiler.LANES
    z = stream.normals(seed, stream.WIENER, n, 1, number + 1, first_path=first, dtype=dtype)[:, 0, number]
    p, out = vector.astype(dtype), np.empty(n, dtype)
    memory = np.zeros(8 * (lanes + 8), np.uint8)
    t = memory[: np.dtype(dtype).itemsize * (lanes + 1)].view(dtype)
    t[lanes] = dt
    spot = memory[np.dtype(dtype).itemsize * compiler.SPOT :][:24].view(np.uint64)
    for start in range(0, n, lanes):
        pair, after = np.zeros((2, lanes), dtype), np.empty((1, lanes), dtype)
        size = min(lanes, n - start)
        pair[0, :size], pair[1, :size] = x[start : start + size], z[start : start + size]
        spot[:] = seed, first + start, number
        run(pair.ctypes.data, t.ctypes.data, p.ctypes.data, after.ctypes.data, 1)
        out[start : start + size] = after[0, :size]
    return out


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize(("x0", "dt"), [(0.0, 0.5), (0.7, 0.5), (0.7, 1e-4), (0.7, 30.0)])
def test_transition_has_the_law(freedom, x0, dt, dtype):
    sigma, kappa = 0.6, 1.5
    process = CoxIngersollRoss(kappa, freedom * sigma**2 / (4 * kappa), sigma)
    x = step(process, np.full(20_000, x0, dtype), dt, dtype=dtype)
    assert x.dtype == dtype
    assert x.min() >= 0.0
    exact = float(dtype(x0)), float(dtype(dt))
    if not (dtype == np.float32 and dt == 1e-4):  # there the rounding of the states themselves shows
        assert stats.kstest(x, lambda y: process.cdf(y, exact[1], exact[0])).pvalue > LEVEL / 2
    assert x.mean(dtype=float) == pytest.approx(
        process.mean(dt, x0), abs=5 * np.sqrt(process.variance(dt, x0) / len(x)) + 1e-7 * x0
    )


def test_two_half_steps_have_the_law_of_one():
    for process in (CoxIngersollRoss(1.5, 0.02, 0.6), CoxIngersollRoss(1.5, 0.4, 0.6)):
        half = step(process, np.full(20_000, 0.3), 0.4, number=0)
        whole = step(process, half, 0.4, number=1)
        assert stats.kstest(whole, lambda y, process=process: process.cdf(y, 0.8, 0.3)).pvalue > LEVEL
        # the same words in both steps would tie them together
        again = step(process, half, 0.4, number=0)
        assert stats.kstest(again, lambda y, process=process: process.cdf(y, 0.8, 0.3)).pvalue < LEVEL


def test_transition_is_the_paths_own():
    process = CoxIngersollRoss(1.5, 0.02, 0.6)
    whole = step(process, np.full(600, 0.3), 0.4)
    np.testing.assert_array_equal(step(process, np.full(344, 0.3), 0.4, first=256), whole[256:])
    assert len(np.unique(whole)) == len(whole)


def test_transition_follows_the_wiener_path():
    process, dt = CoxIngersollRoss(1.5, 0.4, 0.6), 1e-3
    x = step(process, np.full(5000, 0.3), dt)
    z = stream.normals(5, stream.WIENER, 5000)[:, 0, 0]
    first_order = 0.3 + 1.5 * 0.1 * dt + 0.6 * np.sqrt(0.3 * dt) * z
    assert np.corrcoef(x, z)[0, 1] > 0.999
    np.testing.assert_allclose(x, first_order, atol=20 * dt * 0.6**2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_simulate_takes_exact_steps(dtype):
    process = CoxIngersollRoss(1.5, 0.02, 0.6)
    paths = simulate(process, 0.3, (0.0, 0.8), n_steps=2, n_paths=300, method="exact", save="all", seed=5, dtype=dtype)
    x = np.full(300, 0.3, dtype)
    for number in range(2):
        x = step(process, x, 0.4, number=number, dtype=dtype)
        # not the same bits: the engine holds √dt z, and divides by √dt
        np.testing.assert_allclose(paths.x[:, number + 1], x, rtol=0, atol=20 * np.finfo(dtype).eps)
        x = paths.x[:, number + 1]


@pytest.mark.parametrize("sigma", [0.0, 1e-200, 1e-12])
def test_transition_without_noise(sigma):
    process = CoxIngersollRoss(1.5, 0.4, sigma)
    for x0 in (0.0, 2.0):
        np.testing.assert_allclose(step(process, np.full(3, x0), 0.7), process.mean(0.7, x0), rtol=1e-10)


def test_transition_over_a_vanishing_step():
    process = CoxIngersollRoss(1.5, 0.02, 0.6)
    np.testing.assert_allclose(step(process, np.full(300, 0.7), 1e-300), 0.7, rtol=1e-15)
    x = step(process, np.full(20_000, 0.7), 1e-12)
    assert x.std() == pytest.approx(0.6 * np.sqrt(0.7e-12), rel=0.02)
