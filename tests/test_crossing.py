"""Crossings inside a step: the bridge between its ends meets the walls as often, where and when it should."""

import math

import numpy as np
import pytest

from sdesim.core import cache, draws
from sdesim.integrate import crossing
from sdesim.integrate.crossing import STACK, first_crossing, spot_of

pytestmark = pytest.mark.slow

N = 60_000
INF = math.inf


@cache.kernel
def crossings(x0, x1, lower, upper, scale, step, component, seed, side, fraction, stack):
    for i in range(len(side)):
        spot = spot_of(step, component, i, seed)
        side[i], fraction[i] = first_crossing(x0, x1, lower, upper, scale, spot, stack)


def draw(x0, x1, lower, upper, scale, n=N, step=0, component=0, seed=5):
    side, fraction = np.empty(n, np.int64), np.empty(n)
    numbers = (float(x0), float(x1), float(lower), float(upper), float(scale))
    crossings(*numbers, step, component, np.uint64(seed), side, fraction, np.zeros((2, STACK)))
    return side, fraction


def exit_density(t, distance, width):
    """Density of the exit through one wall of a strip, for a standard Brownian motion: by images (all of them)."""
    k = np.arange(-60, 61)[:, None] if math.isfinite(width) else np.zeros((1, 1))
    way = distance + 2 * k * (width if math.isfinite(width) else 0.0)
    return (way / np.sqrt(2 * np.pi * t**3) * np.exp(-(way**2) / (2 * t))).sum(0)


def bridge_law(x0, x1, lower, upper, scale):
    """Times in (0, 1), and the probability that the bridge has left by each through (lower, upper)."""
    s = (np.arange(40_000) + 0.5) / 40_000
    t = s**2 * (3 - 2 * s)  # fine at both ends, where the integrand is steep
    weight = 6 * s * (1 - s) / 40_000
    width = (upper - lower) / scale
    out = []
    for wall, distance in ((lower, x0 - lower), (upper, upper - x0)):
        if math.isinf(wall):
            out.append(np.zeros_like(t))
            continue
        onward = np.exp(-(((x1 - wall) / scale) ** 2) / (2 * (1 - t)) + ((x1 - x0) / scale) ** 2 / 2) / np.sqrt(1 - t)
        out.append(np.cumsum(exit_density(t, distance / scale, width) * onward * weight))
    return t, out[0], out[1]


# x0, x1, lower, upper, σ√h: one wall, then two walls from far apart to far nearer than the step is long
ONE = [(0.0, 0.4, -INF, 1.0, 1.0), (0.2, -1.0, -1.3, INF, 0.8), (0.5, 1.5, -INF, 1.0, 0.7), (0.0, 1.0, -INF, 1.0, 1.0)]
TWO = [(0.1, 0.3, -1.0, 1.0, 0.7), (-0.5, 0.8, -1.0, 1.0, 1.5), (0.3, 1.4, -1.0, 1.0, 2.0), (0.0, -9.0, -1.0, 1.0, 4.0),
       (-0.9, 0.95, -1.0, 1.0, 6.0)]  # fmt: skip


@pytest.mark.parametrize("case", ONE + TWO)
def test_the_bridge_leaves_as_often_where_and_when_it_should(case):
    side, fraction = draw(*case)
    t, low, high = bridge_law(*case)
    limit = 4.5  # standard errors; 9 cases of 2 figures, 1e-4 in all
    for label, expected in ((-1, low[-1]), (1, high[-1])):
        count = int((side == label).sum())
        assert abs(count - N * expected) <= limit * math.sqrt(N * expected * (1 - min(expected, 1))) + 1e-6 * N
    left = side != 0
    assert (fraction[left] > 0).all()
    assert (fraction[left] <= 1).all()
    # Kolmogorov-Smirnov distance of the joint law of time and side; 1e-5 for each
    for label, law in ((-1, low), (1, high)):
        times = np.sort(fraction[side == label])
        if len(times) > 200:
            gap = np.abs(np.arange(len(times)) / N - np.interp(times, t, law)).max()
            assert gap * math.sqrt(N) < 2.5
    if case in ONE[:2]:  # the formula of the module, without an integral
        b = case[3] if math.isfinite(case[3]) else case[2]
        assert low[-1] + high[-1] == pytest.approx(
            math.exp(-2 * (b - case[0]) * (b - case[1]) / case[4] ** 2), rel=1e-6
        )


def test_the_distance_notices_times_that_are_uniform():
    case = ONE[0]
    side, _ = draw(*case)
    t, _, high = bridge_law(*case)
    count = int((side == 1).sum())
    times = (np.arange(count) + 0.5) / count
    assert np.abs(np.arange(count) / N - np.interp(times, t, high)).max() * math.sqrt(N) > 5


def test_a_step_without_noise_is_a_straight_line():
    side, fraction = draw(0.0, 2.0, -1.0, 0.5, 0.0, n=3)
    assert side.tolist() == [1, 1, 1]
    assert fraction.tolist() == [0.25, 0.25, 0.25]
    side, fraction = draw(0.0, -4.0, -1.0, 0.5, 0.0, n=1)
    assert (side[0], fraction[0]) == (-1, 0.25)
    assert draw(0.0, 0.4, -1.0, 0.5, 0.0, n=1)[0][0] == 0


def test_starts_on_a_wall_and_states_without_value():
    assert [v[0] for v in draw(1.0, 0.0, -1.0, 1.0, 0.5, n=1)] == [1, 0.0]
    assert [v[0] for v in draw(-3.0, 0.0, -1.0, 1.0, 0.5, n=1)] == [-1, 0.0]
    for x in (math.nan, math.inf, -math.inf):
        assert draw(0.0, x, -1.0, 1.0, 0.5, n=1)[0][0] == 0


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e6, 1e12])
def test_steps_of_any_length_come_to_an_end(scale):
    # the noise that leaves an interval of width 2 has a step of scale² times its time to do so
    side, fraction = draw(0.0, 0.5 * min(scale, 1.0), -1.0, 1.0, scale, n=2000)
    assert ((side != 0) == (scale > 1)).all()
    if scale >= 1e6:
        return
    if scale == 30.0:  # the mean exit time from the middle is 1, less what the bridge's end takes off
        assert (fraction * scale**2).mean() == pytest.approx(1.0, abs=0.1)


def test_far_from_the_walls_nothing_is_drawn():
    # the exponent 2 · 4.5 · 4.5 = 40.5 is above the limit: no seed makes a crossing, and none is computed
    assert not draw(0.0, 0.0, -4.5, 4.5, 1.0)[0].any()
    assert math.exp(-crossing.NEGLIGIBLE) < 1e-17


def test_every_step_component_path_and_seed_has_draws_of_its_own():
    def fractions(**more):
        return draw(0.0, 2.0, -INF, 1.0, 1.0, n=50, **more)[1]

    base = fractions()
    assert np.array_equal(base, fractions())
    assert len(set(base)) == 50
    for more in ({"step": 1}, {"step": 2**32}, {"component": 1}, {"component": 511}, {"seed": 6}, {"seed": 2**40 + 5}):
        assert not np.isin(fractions(**more), base).any()


def test_places_in_the_stream_do_not_overlap():
    first, last = 2**20, 2**21
    for step in (0, 2**32 - 1, 2**33 - 1):
        for component in (0, 1, crossing.MAX_COMPONENTS - 1):
            c0, c1, path, seed = spot_of.py_func(step, component, 9, 7)
            assert (int(path), int(seed), int(c0)) == (9, 7, step % 2**32)
            assert int(c1) >> 24 == 3
            number = int(c1) & (2**24 - 1)
            assert first <= number
            assert number + 1023 < last <= int(draws.FIRST_COMPONENT)
            assert number == first + 1024 * component + 2**19 * (step >> 32)


def test_known_answers():
    side, fraction = draw(0.1, 0.3, -1.0, 1.0, 1.5, n=6, seed=2**63 + 11)
    assert side.tolist() == [1, 1, 1, 0, -1, 1]
    assert fraction.tolist() == [
        0.20333643957764133, 0.4912947713975727, 0.7514961793623883, 0.0, 0.14558121542100982, 0.08858179174885845,
    ]  # fmt: skip
