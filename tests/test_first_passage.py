"""First passages: the exact law at any step with the bridge, the known bias without it, and exact bookkeeping."""

import concurrent.futures
import ctypes
import math

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import blocks
from sdesim.integrate.watchers import StepContext

pytestmark = pytest.mark.slow

LOWER, UPPER, MU, SIGMA, START, END = -1.0, 1.5, 0.6, 1.2, 0.3, 2.0
DRIFTED = sde.ito(lambda x, t: 0.6, lambda x, t: 1.2)


def passages(process=DRIFTED, x0=START, span=(0.0, END), n=20_000, n_steps=4, seed=3, more=None, **spec):
    spec = {"lower": LOWER, "upper": UPPER, **spec}
    reduce = [sde.FirstPassage(**spec)]
    return sde.simulate(process, x0, span, n_steps=n_steps, n_paths=n, reduce=reduce, seed=seed, **(more or {})
                        ).reductions[0]  # fmt: skip


def exact(t, mu=MU):
    """P(passed by t) through (lower, upper) of x + μt + σW: the share in the end, less the tail of the eigenfunctions.

    Shares by the scale function; Darling & Siegert (1953), Cox & Miller (1965, section 5.7).
    """
    width, k = UPPER - LOWER, np.arange(1, 400)[:, None]
    rate = mu**2 / (2 * SIGMA**2) + (k * math.pi * SIGMA / width) ** 2 / 2

    def tail(distance, drift):
        series = k * np.sin(k * math.pi * distance / width) / rate * np.exp(-rate * t)
        return np.exp(-drift * distance / SIGMA**2) * math.pi * (SIGMA / width) ** 2 * series.sum(0)

    power = 2 * mu / SIGMA**2
    share = np.expm1(-power * (START - LOWER)) / np.expm1(-power * width)
    return 1 - share - tail(START - LOWER, mu), share - tail(UPPER - START, -mu)


GRID = np.linspace(2e-3, END, 4000)
LAW = exact(GRID)


def distances(result):
    """√n times the largest gap between the counts and the exact law, for each side."""
    at = np.interp(result.edges, GRID, LAW[0]), np.interp(result.edges, GRID, LAW[1])
    passed = np.cumsum(result.counts, axis=1) / result.n
    return [np.abs(p - law[1:]).max() * math.sqrt(result.n) for p, law in zip(passed, at, strict=True)]


# ---- the law ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [1, 4, 64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_drifted_motion_has_the_exact_law_at_every_step(n_steps, dtype):
    result = passages(n=40_000, n_steps=n_steps, bins=200, more={"dtype": dtype}, seed=n_steps)
    assert max(distances(result)) < 1.95  # 12 distances, 1e-3 each by Kolmogorov's law and less for part of the mass
    assert result.probability == pytest.approx(np.ravel(exact(np.array([END]))), abs=4.0 / math.sqrt(40_000) / 2)
    middle = np.diff(np.interp(result.edges, GRID, LAW[1]))[20:160] / np.diff(result.edges)[20:160]
    assert np.abs(result.density[1, 20:160] - middle).max() < 0.12
    assert result.density.sum() * END / 200 == pytest.approx(result.probability.sum())


def test_without_the_bridge_passages_are_missed_by_the_square_root_of_the_step():
    missed = []
    for n_steps in (16, 256):
        result = passages(n=40_000, n_steps=n_steps, bridge=False)
        assert max(distances(result)) > 5
        missed.append(sum(float(v[0]) for v in exact(np.array([END]))) - result.probability.sum())
    assert 3.0 < missed[0] / missed[1] < 5.3  # 16 times the steps: slope ½ is a factor 4


def test_one_level_against_the_reflection_principle():
    result = passages(n=40_000, n_steps=2, lower=None, upper=UPPER)
    a, root = UPPER - START, SIGMA * math.sqrt(END)
    phi = [0.5 * math.erfc(-v / math.sqrt(2)) for v in ((MU * END - a) / root, (-MU * END - a) / root)]
    expected = phi[0] + math.exp(2 * MU * a / SIGMA**2) * phi[1]
    assert result.probability[0] == 0
    assert abs(result.probability[1] - expected) < 4 * result.probability_error[1]


def test_general_noise_has_the_sum_of_its_squares():
    process = sde.ito(
        lambda x, t: (0.0, 0.6), lambda x, t: ((1.0, 0.0), (0.72, 0.96)), dim=2, noise="general"
    )  # 0.72² + 0.96² = 1.2²
    result = passages(process, (5.0, START), n=40_000, n_steps=2, component=1, bins=200)
    assert max(distances(result)) < 1.95


def test_two_independent_components_pass_on_their_own():
    process = sde.ito(lambda x, t: 0.0, lambda x, t: 1.0)
    both = [sde.FirstPassage(-1.0, 1.0, component=j, keep=True) for j in (0, 1)]
    first, second = sde.simulate(
        process, (0.0, 0.0), (0.0, 0.7), n_steps=1, n_paths=20_000, reduce=both, seed=4
    ).reductions
    a, b = first.sides != 0, second.sides != 0
    assert abs((a & b).mean() - a.mean() * b.mean()) < 4 * 0.25 / math.sqrt(20_000)


def test_time_dependent_noise_is_taken_where_the_step_starts():
    # σ(t)² = 2t: from 0 to 1 the clock of the path runs to 1
    process = sde.ito(lambda x, t: 0.0 * x, lambda x, t: np.sqrt(2 * t) + 0.0 * x)
    result = passages(process, 0.0, (0.0, 1.0), n=20_000, n_steps=64, lower=None, upper=0.8)
    assert abs(result.probability[1] - math.erfc(0.8 / math.sqrt(2))) < 4 * result.probability_error[1] + 0.01


# ---- bookkeeping ------------------------------------------------------------------------------------------------


def test_counts_times_and_means_tell_the_same():
    t0 = 0.75
    r = passages(n=3001, span=(t0, t0 + END), keep=True, bins=37, more={"first_path": 77})
    assert np.array_equal(r.edges, np.linspace(t0, t0 + END, 38))
    passed = r.sides != 0
    assert np.array_equal(np.isnan(r.times), ~passed)
    assert r.n == 3001
    assert r.n_survived == (~passed).sum()
    for row, label in enumerate((-1, 1)):
        t = r.times[r.sides == label]
        assert np.array_equal(np.histogram(t, r.edges)[0], r.counts[row])
        assert r.n_passed[row] == len(t)
    t = r.times[passed]
    assert r.mean_time == pytest.approx(t.mean() - t0, abs=2e-9)
    assert r.standard_error == pytest.approx(t.std(ddof=1) / math.sqrt(len(t)), rel=1e-7)
    assert r.survival[0] == 1.0
    assert r.survival[-1] == pytest.approx(r.n_survived / r.n)
    p = passed.mean()
    assert 1 - r.survival[-1] == pytest.approx(p)
    assert r.probability_error[0] == pytest.approx(math.sqrt(r.probability[0] * (1 - r.probability[0]) / r.n))


def test_the_end_of_the_step_belongs_to_the_bin_that_ends_there():
    more = {"n": 2000, "n_steps": 3, "span": (0.0, 3.0), "bridge": False}
    r = passages(**more, bins=3)
    x = sde.simulate(DRIFTED, START, (0.0, 3.0), n_steps=3, n_paths=2000, save="all", seed=3).x
    out = (x <= LOWER) | (x >= UPPER)
    first = np.where(out.any(1), out.argmax(1), 0)
    assert r.counts.sum(0).tolist() == [(first == s).sum() for s in (1, 2, 3)]
    assert r.counts[1, 0] == (x[:, 1] >= UPPER).sum()
    np.testing.assert_allclose(r.survival, [1.0, *(((first == 0) | (first > s)).mean() for s in (1, 2, 3))])
    assert r.mean_time == pytest.approx(first[first > 0].mean(), abs=1e-8)


def test_the_bits_do_not_depend_on_blocks_or_workers():
    whole = passages(n=1500, keep=True, more={"first_path": 100})
    halves = [passages(n=n, keep=True, more={"first_path": f}) for f, n in ((100, 411), (511, 1089))]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        spread = passages(n=1500, keep=True, more={"first_path": 100, "executor": pool, "workers": 3})
    for other in (halves[0] + halves[1], spread):
        assert np.array_equal(other.counts, whole.counts)
        assert np.array_equal(other.times, whole.times, equal_nan=True)
        assert np.array_equal(other.sides, whole.sides)
        assert (other.mean_time, other.standard_error) == (whole.mean_time, whole.standard_error)
        assert other.n == whole.n


def test_the_whole_array_engine_finds_the_same_passages():
    def drift(x, t):
        return 0.6 - 0.3 * x

    def diffusion(x, t):
        return 1.2 + 0.0 * x

    compiled = passages(sde.ito(drift, diffusion), n=700, keep=True, more={"first_path": 30})
    whole = passages(sde.ito(drift, diffusion, compiled=False), n=700, keep=True, more={"first_path": 30})
    assert np.array_equal(whole.sides, compiled.sides)
    np.testing.assert_allclose(whole.times, compiled.times, atol=1e-12)


def test_reductions_leave_the_paths_alone():
    spec = {"n_steps": 5, "n_paths": 300, "seed": 8}
    plain = sde.simulate(DRIFTED, START, (0, 1), **spec)
    watched = sde.simulate(DRIFTED, START, (0, 1), **spec, reduce=[sde.FirstPassage(LOWER, UPPER)])
    assert np.array_equal(watched.final, plain.final)


# ---- sets, levels and what may go wrong -----------------------------------------------------------------------------


def test_a_set_is_looked_at_when_a_step_ends():
    level = passages(bridge=False, n=2000, n_steps=20)
    low, high = LOWER, UPPER
    as_set = passages(lower=None, upper=None, of=lambda x: (x > low) & (x < high), n=2000, n_steps=20)
    assert as_set.labels == ("outside",)
    assert np.array_equal(as_set.counts[0], level.counts.sum(0))
    assert as_set.mean_time == level.mean_time


def test_a_set_of_two_components():
    process = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    disc = sde.FirstPassage(of=lambda x: x[0] ** 2 + x[1] ** 2 < 1.0, keep=True)
    paths = sde.simulate(process, (0.0, 0.0), (0.0, 1.0), n_steps=8, n_paths=500, reduce=[disc], save="all", seed=2)
    out = (paths.x**2).sum(-1) >= 1
    expected = np.where(out.any(1), out.argmax(1) / 8, np.nan)
    np.testing.assert_allclose(paths.reductions[0].times, expected)


def test_without_noise_the_passage_is_on_the_straight_line():
    r = passages(sde.ito(lambda x, t: 1.0, lambda x, t: 0.0), 0.0, (0.0, 1.0), n=5, n_steps=10, upper=0.55, keep=True)
    np.testing.assert_allclose(r.times, 0.55, rtol=1e-12)
    assert r.standard_error == pytest.approx(0.0, abs=1e-9)


def test_a_path_that_starts_outside_has_passed_at_once():
    r = passages(x0=np.array([0.0, 1.5, 9.0, -1.0]), n=None, span=(1.0, 2.0), keep=True, more={}, n_steps=3)
    assert r.sides[1:].tolist() == [1, 1, -1]
    assert r.times[1:].tolist() == [1.0, 1.0, 1.0]
    assert r.counts[1, 0] >= 2


def test_nobody_passes():
    r = passages(n=10, lower=-1e9, upper=1e9)
    assert (r.n_survived, r.counts.sum()) == (10, 0)
    assert math.isnan(r.mean_time)
    assert math.isnan(r.standard_error)


@pytest.mark.parametrize("absorbing", [(), ((0, -0.5, math.inf),), ((0, -math.inf, -0.7),)])
def test_a_path_held_at_an_absorbing_wall_passes_nothing(absorbing):
    # the engine's step leads from beyond the wall at −½ over the level; the walls put it back afterwards
    part = sde.FirstPassage(upper=0.5).start(blocks.Block(0, 256, 0), 1, 1)
    watcher = part.watcher(np.float64, StepContext(0.0, 0.1, 10, 1, 1, False, absorbing))
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 4, *[ctypes.c_uint64] * 2,
                            ctypes.c_void_p)(watcher.address)  # fmt: skip
    states = [np.full((1, 256), value) for value in (-0.6, -0.6, 1.0)]
    for step, (before, after) in ((-1, states[:2]), (0, states[1:])):
        g = np.ones((1, 256))
        call(before.ctypes.data, after.ctypes.data, g.ctypes.data, 3, 256, 0, step, 0, 1, watcher.slots.ctypes.data)
    assert part.counts.sum() == (0 if absorbing else 253)


def test_sides_are_shared_between_a_wall_and_a_level():
    # from 0 a Wiener path meets ½ before an absorbing wall at −½ as often as not
    walls = sde.Walls(-0.5, None, "absorbing")
    r = passages(sde.Wiener(), 0.0, (0.0, 6.0), n=20_000, n_steps=300, lower=None, upper=0.5, more={"boundary": walls})
    assert abs(r.probability[1] - 0.5) < 4 * r.probability_error[1]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "needs a level"),
        ({"lower": 1.0, "upper": 0.0}, ValueError, "must be < upper"),
        ({"lower": math.nan}, ValueError, "finite"),
        ({"lower": 0.0, "of": lambda x: True}, ValueError, "levels or a set"),
        ({"of": 3}, TypeError, "inside"),
        ({"upper": 1.0, "component": -1}, ValueError, "component"),
        ({"upper": 1.0, "bins": 0}, ValueError, "bins"),
    ],
)
def test_what_cannot_be_is_said(arguments, error, text):
    with pytest.raises(error, match=text):
        sde.FirstPassage(**arguments)


def test_components_and_sets_that_do_not_fit():
    with pytest.raises(ValueError, match="component 1, but the state has 1"):
        passages(component=1, n=5)
    with pytest.raises(sde.errors.CompileError, match="of=inside"):
        passages(lower=None, upper=None, of=lambda x: x.nothing > 0, n=5)
    a, b = passages(n=5, bins=3), passages(n=5, bins=4)
    with pytest.raises(ValueError, match="bins"):
        _ = a + b
    with pytest.raises(ValueError, match="neither did"):
        _ = a + passages(n=5, bins=3, keep=True)
