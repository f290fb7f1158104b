"""Brownian paths: the stream's own, consistent over all steps, and of the right law."""

import itertools
import math

import numpy as np
import pytest
from scipy import special

import sdesim as sde
from sdesim.core import stream
from sdesim.integrate import brownian
from sdesim.integrate.brownian import BrownianPath, brownian_increments

SPAN = (0.5, 2.5)
DTYPES = [np.float64, np.float32]


def close(a, b, dtype, scale=1.0):
    return bool((abs(np.asarray(a, float) - b) <= 16 * np.finfo(dtype).eps * scale).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_base_grid_is_what_drives_simulate(dtype):
    run = sde.simulate(
        sde.Wiener(1.0), 0.0, SPAN, n_steps=37, n_paths=3, first_path=254, seed=7, dtype=dtype, save="all"
    )
    dw = brownian_increments(7, 3, SPAN, 37, first_path=254, dtype=dtype)
    assert dw.shape == (3, 37, 1)
    assert dw.dtype == dtype
    assert np.array_equal(np.cumsum(dw[:, :, 0], axis=1), run.x[:, 1:])
    one = BrownianPath(7, 255, SPAN, n_steps=37, dtype=dtype)
    assert np.array_equal(one.increments(), dw[1])
    again = sde.simulate(sde.Wiener(1.0), 0.0, SPAN, n_steps=37, n_paths=3, increments=dw, dtype=dtype, save="all")
    assert np.array_equal(again.x, run.x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answers_two_levels_down(dtype):
    """The tree by hand, from the stream's draws at the counters that the module states."""
    seed, path, dim, n_steps = 3, 1000, 2, 5
    per_block = 2 if dtype == np.float64 else 4
    h = (SPAN[1] - SPAN[0]) / n_steps

    def draws(purpose, count):
        return stream.normals(seed, purpose, 1, dim, count, first_path=path, dtype=dtype)[0].astype(float)

    w, area = math.sqrt(h) * draws(stream.WIENER, n_steps), math.sqrt(h / 12) * draws(stream.SPACE_TIME, n_steps)
    bridge = draws(stream.BRIDGE, per_block * n_steps * 3)
    for level in range(2):
        c0 = n_steps * (2**level - 1) + np.arange(n_steps << level)
        z, n = math.sqrt(h / 16) * bridge[:, per_block * c0], math.sqrt(h / 12) * bridge[:, per_block * c0 + 1]
        pairs = [(w / 2 + 1.5 * area + z, w / 2 - 1.5 * area - z)]
        pairs += [(area / 4 - z / 2 + n / 2, area / 4 - z / 2 - n / 2)]
        w, area = (np.stack(pair, axis=2).reshape(dim, -1) for pair in pairs)
        h /= 2
    path = BrownianPath(seed, path, SPAN, n_steps=n_steps, dim=dim, dtype=dtype)
    assert close(path.increments(20), w.T, dtype)
    assert close(path.space_time(20), h * (w / 2 + area).T, dtype)


# ---- the law --------------------------------------------------------------------------------------------------------


def covariance(halves, h=0.7):
    """Covariance of (W_l, H_l, W_r, H_r): exact, because the formula is linear in (w, area, z, n)."""
    matrix = np.array([halves(*np.eye(4)[i]) for i in range(4)]).T
    return matrix @ np.diag([h, h / 12, h / 16, h / 12]) @ matrix.T


def is_the_law(halves, h=0.7):
    return np.allclose(covariance(halves, h), np.diag([h / 2, h / 24, h / 2, h / 24]), rtol=0, atol=1e-15)


def mutant(shift=1.5, sign=1.0, mean=0.25, z_in_area=0.5, n_in_area=0.5):
    def halves(w, area, z, n):
        step, middle = shift * area + sign * z, mean * area - z_in_area * z
        return w / 2 + step, middle + n_in_area * n, w / 2 - step, middle - n_in_area * n

    return halves


def test_halves_are_independent_with_the_right_variances():
    assert is_the_law(brownian.halves.py_func)
    assert is_the_law(mutant())
    broken = [{"shift": 1.0}, {"shift": -1.5}, {"sign": -1.0}, {"mean": 0.5}, {"z_in_area": -0.5}, {"n_in_area": 0.25}]
    assert [is_the_law(mutant(**change)) for change in broken] == [False] * len(broken)
    # the coarse area from the fine ones: H = (H_l + H_r)/2 + (W_l − W_r)/4
    rng = np.random.default_rng(0)
    w, area, z, n = rng.normal(size=4)
    left, left_area, right, right_area = brownian.halves.py_func(w, area, z, n)
    assert left + right == pytest.approx(w)
    assert (left_area + right_area) / 2 + (left - right) / 4 == pytest.approx(area)


def worst_p_value(w):
    """Bonferroni-corrected p-value of the variances and correlations of the columns of w being those of N(0, 1)."""
    n, columns = w.shape
    scores = [(np.mean(w[:, a] ** 2) - 1) * math.sqrt(n / 2) for a in range(columns)]
    scores += [np.mean(w[:, a] * w[:, b]) * math.sqrt(n) for a, b in itertools.combinations(range(columns), 2)]
    return len(scores) * special.erfc(max(map(abs, scores)) / math.sqrt(2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fine_increments_are_independent(dtype):
    """Eight increments and eight areas, three levels below a base grid of one step."""
    n = 40_000
    both = brownian_increments(11, n, (0, 1), 1, n=8, space_time=True, dtype=dtype)
    assert both.shape == (n, 8, 2)
    w = both[:, :, 0].astype(float)
    area = 8 * both[:, :, 1].astype(float) - w / 2
    scaled = np.hstack([w * math.sqrt(8), area * math.sqrt(96)])
    assert worst_p_value(scaled) > 1e-6
    # negative control: a tenth of one increment in its neighbour
    assert worst_p_value(scaled + 0.1 * np.roll(scaled, 1, axis=1)) < 1e-6


def test_values_at_any_times_have_the_law_of_brownian_motion():
    times = np.array([0.1, 1 / 3, 0.34, math.e / 3])
    w = np.array([BrownianPath(5, path, n_steps=3)(times)[:, 0] for path in range(4000)])
    independent = np.diff(w, axis=1, prepend=0.0) / np.sqrt(np.diff(times, prepend=0.0))
    assert worst_p_value(independent) > 1e-6
    # negative control: straight lines between the grid points of the base grid, as np.interp draws them
    grid = np.concatenate(
        [np.zeros((4000, 1)), brownian_increments(5, 4000, (0, 1), 3)[:, :, 0].cumsum(axis=1)], axis=1
    )
    lines = np.array([np.interp(times, np.arange(4) / 3, row) for row in grid])
    assert worst_p_value(np.diff(lines, axis=1, prepend=0.0) / np.sqrt(np.diff(times, prepend=0.0))) < 1e-6


# ---- consistency ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_coarse_steps_are_sums_of_fine_ones(dtype):
    path = BrownianPath(1, 2, SPAN, n_steps=12, dim=3, dtype=dtype)
    base, integral = path.increments(), path.space_time()
    assert base.shape == integral.shape == (12, 3)
    for n in (24, 48, 192):
        fine, fine_integral = path.increments(n).reshape(12, -1, 3), path.space_time(n).reshape(12, -1, 3)
        assert close(fine.sum(axis=1), base, dtype)
        behind = (np.cumsum(fine, axis=1) - fine) * (SPAN[1] - SPAN[0]) / n
        assert close((fine_integral + behind).sum(axis=1), integral, dtype)
    for n in (6, 4, 1, 8, 16):  # 8 and 16 are no divisors of 12, but of 24 and 48
        assert close(path.increments(n).sum(axis=0), base.sum(axis=0), dtype)
    assert close(path.increments(4), base.reshape(4, 3, 3).sum(axis=1), dtype)
    assert close(path.increments(8).reshape(4, 2, 3).sum(axis=1), path.increments(4), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_do_not_depend_on_what_else_is_asked(dtype):
    rng = np.random.default_rng(1)
    times = rng.uniform(*SPAN, 60).reshape(3, 20)
    path = BrownianPath(9, 77, SPAN, n_steps=10, dim=2, dtype=dtype)
    values = path(times)
    assert values.shape == (3, 20, 2)
    order = rng.permutation(60)
    fresh = BrownianPath(9, 77, SPAN, n_steps=10, dim=2, dtype=dtype)
    assert np.array_equal(fresh(times.ravel()[order]), values.reshape(60, 2)[order])
    assert np.array_equal(path(float(times[1, 3])), values[1, 3])
    many = brownian_increments(9, 5, SPAN, 10, n=40, dim=2, first_path=75, dtype=dtype)
    assert np.array_equal(many[2], path.increments(40))
    # on the grid of increments, W is their sum; at the ends of the span too
    grid = SPAN[0] + np.arange(41) * (SPAN[1] - SPAN[0]) / 40
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(path.increments(40).astype(float), axis=0)])
    assert np.allclose(path(grid), sums, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-9)
    # continuous: neighbours 1e-9 apart differ by about √1e-9
    near = path(np.clip(times + 1e-9, *SPAN)) - values
    assert abs(near).max() < 3e-4


def test_one_path_drives_two_step_sizes_and_two_processes():
    process = sde.GeometricBrownian(mu=0.1, sigma=0.8)
    fine = brownian_increments(4, 200, (0, 1), 16, n=1024)
    coarse = brownian_increments(4, 200, (0, 1), 16, n=64)
    runs = [
        sde.simulate(process, 1.0, (0, 1), n_steps=dw.shape[1], n_paths=200, increments=dw, method="milstein").final
        for dw in (coarse, fine)
    ]
    exact = np.exp((0.1 - 0.32) + 0.8 * brownian_increments(4, 200, (0, 1), 16, n=1)[:, 0, 0])
    errors = [np.sqrt(np.mean((run - exact) ** 2)) for run in runs]
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 8  # sixteen times finer, strong order 1
    additive = sde.simulate(sde.Wiener(2.0), 0.0, (0, 1), n_steps=64, n_paths=200, increments=coarse).final
    assert np.allclose(additive, 2 * coarse[:, :, 0].sum(axis=1))


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_depth_ends_where_counters_do():
    for n_steps in (1, 3, 64, 1000, 2**31, 2**32 - 1):
        deepest = brownian.max_level(n_steps)
        assert n_steps * (2**deepest - 1) <= 2**32 < n_steps * (2 ** (deepest + 1) - 1)
    with pytest.raises(ValueError, match="a k <= 22"):
        BrownianPath(0, 0, n_steps=1000).increments(1000 * 2**23)


def test_messages():
    path = BrownianPath(0, 0, n_steps=12)
    with pytest.raises(ValueError, match="n=7 steps do not follow from a base grid of n_steps=12"):
        path.increments(7)
    with pytest.raises(ValueError, match=r"t=1.5 is outside the span \[0, 1\]"):
        path([0.5, 1.5])
    with pytest.raises(ValueError, match="path must be >= 0, got -1"):
        BrownianPath(0, -1, n_steps=12)
    with pytest.raises(TypeError, match="n_steps"):
        brownian_increments(0, 4, (0, 1), 2.5)
    assert repr(path).startswith("BrownianPath(seed=0, path=0, t_span=(0.0, 1.0), n_steps=12")
