"""Transport without diffusion: shifts of masses along an axis, turned bumps, and walls."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdesim.fokker_planck.boundary import Inflow, Robin
from sdesim.fokker_planck.cells import cell_averages, gaussian
from sdesim.fokker_planck.grid import Grid
from sdesim.fokker_planck.transport import prepare, shift, weights

CIRCLE, OPEN, CLOSED = ("periodic",) * 2, ("absorbing",) * 2, ("reflecting",) * 2


def line(n, lower=0.0, upper=1.0):
    """A grid whose axis 0 is the line under test, with three lines of it."""
    return Grid((lower, 0.0), (upper, 1.0), (n, 3))


def constant(grid, k, v):
    shape = list(grid.shape)
    shape[k] += 1
    return np.full(shape, float(v))


def slope(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


# ---- between the edges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("s", [0.0, 0.21, 0.5, 0.83, 1.0])
def test_the_part_of_a_cell_is_exact_for_densities_of_degree_four(degree, s):
    edges = np.arange(-2.0, 4.0)
    cells = np.diff(edges ** (degree + 1)) / (degree + 1)
    assert np.dot(weights(s), cells) == pytest.approx(s ** (degree + 1) / (degree + 1), abs=1e-14)


def test_degree_five_is_missed_by_the_error_constant():
    """F = x⁶ has the error (s+2)(s+1)s(s−1)(s−2)(s−3)."""
    cells, s = np.diff(np.arange(-2.0, 4.0) ** 6), 0.4
    expected = s**6 - math.prod(s + 2 - k for k in range(6))
    assert np.dot(weights(s), cells) == pytest.approx(expected, rel=1e-12)


def waves(x):
    return 1.0 + 0.5 * np.sin(2 * np.pi * x) + 0.3 * np.cos(4 * np.pi * x)


def wave_masses(grid, to):
    """Masses of ``waves`` moved by ``to``, on every line along axis 0."""
    e = grid.edges[0] - to
    f = e - 0.25 / np.pi * np.cos(2 * np.pi * e) + 0.075 / np.pi * np.sin(4 * np.pi * e)
    return np.multiply.outer(np.diff(f), grid.widths[1])


def test_a_rigid_shift_is_of_sixth_order():
    sizes, errors = (24, 36, 54), []
    for n in sizes:
        grid = line(n)
        moved, _, _ = shift(wave_masses(grid, 0.0), constant(grid, 0, 1.0), 0.43 / n, grid, 0, CIRCLE)
        errors.append(np.abs(moved - wave_masses(grid, 0.43 / n)).sum())
    assert 5.8 < slope(sizes, errors) < 6.2


def test_many_shifts_at_a_fixed_step_are_of_sixth_order():
    sizes, errors = (20, 30, 45), []
    for n in sizes:
        grid = line(n)
        move, m = prepare(constant(grid, 0, -1.0), 0.0917, grid, 0, CIRCLE), wave_masses(grid, 0.0)
        for _ in range(40):
            m, _, _ = move(m)
        errors.append(np.abs(m - wave_masses(grid, -40 * 0.0917)).sum())
    assert slope(sizes, errors) > 5.5


@pytest.mark.parametrize("turns", [0.0, 1.0, -3.0, 41.0])
def test_whole_turns_and_large_steps_change_nothing(turns):
    grid = line(30)
    m, v = wave_masses(grid, 0.0), constant(grid, 0, turns + 0.217)
    moved, low, high = shift(m, v, 1.0, grid, 0, CIRCLE)
    near, _, _ = shift(m, constant(grid, 0, 0.217), 1.0, grid, 0, CIRCLE)
    np.testing.assert_allclose(moved, near, rtol=1e-11)
    assert not low.any()
    assert not high.any()


# ---- feet -----------------------------------------------------------------------------------------------------------


def along_sine(x, t):
    """Where dx/dt = sin(2πx)/2π was a time t ago: tan(πx) shrinks by e^{−t}."""
    turns = np.round(x)
    return turns + np.arctan(np.exp(-t) * np.tan(np.pi * (x - turns))) / np.pi


def sine_problem(grid, t):
    e = along_sine(grid.edges[0], t)
    f = e - 0.25 / np.pi * np.cos(2 * np.pi * e) + 0.075 / np.pi * np.sin(4 * np.pi * e)
    velocity = np.repeat(np.sin(2 * np.pi * grid.edges[0])[:, None] / (2 * np.pi), 3, axis=1)
    return np.multiply.outer(np.diff(f), grid.widths[1]), velocity


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("steps", [1, 6])
def test_a_flow_that_squeezes_is_followed_with_order_four_at_least(graded, steps):
    sizes, errors = (48, 72, 108), []
    for n in sizes:
        axis = Grid(0.0, 1.0, n)
        if graded:
            ksi = np.linspace(0.0, 1.0, n + 1)
            axis = Grid.from_edges(ksi + 0.1 * np.sin(2 * np.pi * ksi) / (2 * np.pi))
        grid = Grid.product(axis, Grid(0.0, 1.0, 3))
        m, velocity = sine_problem(grid, 0.0)
        move = prepare(velocity, 0.9 / steps, grid, 0, CIRCLE)
        for _ in range(steps):
            m, _, _ = move(m)
        errors.append(np.abs(m - sine_problem(grid, 0.9)[0]).sum())
    assert slope(sizes, errors) > 3.7
    assert errors[-1] < 2e-5


def test_feet_have_the_rounding_of_the_tracing_only():
    grid = line(400)
    _, velocity = sine_problem(grid, 0.0)
    feet = prepare(velocity, 0.9, grid, 0, CIRCLE).feet[0] / 400
    assert np.abs(feet - along_sine(grid.edges[0], 0.9)).max() < 2e-8


@pytest.mark.parametrize("sides", [CIRCLE, OPEN, CLOSED])
@pytest.mark.parametrize("v", [0.11, -0.83, 4.1])
def test_a_rigid_shift_is_the_limit_of_traced_ones(sides, v):
    grid, wiggle = line(37), 1.0 + 1e-15 * (np.arange(38) % 2)[:, None]
    m = np.random.default_rng(1).random(grid.shape)
    rigid = prepare(constant(grid, 0, v), 0.31, grid, 0, sides)
    traced = prepare(constant(grid, 0, v) * wiggle, 0.31, grid, 0, sides)
    assert rigid.feet.shape == (3, 1)
    assert traced.feet.shape == (3, 38)
    for a, b in zip(rigid(m), traced(m), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("rigid", [True, False])
def test_every_axis_is_treated_alike(k, rigid):
    rng = np.random.default_rng(3)
    grid = Grid((0, 0, 0), (1, 1, 1), (11, 13, 17))
    order = [k, *(j for j in range(3) if j != k)]
    turned = Grid((0, 0, 0), (1, 1, 1), tuple(grid.shape[j] for j in order))
    m = rng.random(grid.shape)
    velocity = np.moveaxis(rng.normal(size=(1 if rigid else turned.shape[0] + 1, *turned.shape[1:])), 0, 0)
    velocity = np.ascontiguousarray(np.broadcast_to(velocity, (turned.shape[0] + 1, *turned.shape[1:])))
    expected = shift(np.ascontiguousarray(np.moveaxis(m, k, 0)), velocity, 0.3, turned, 0, OPEN)
    found = shift(m, np.moveaxis(velocity, 0, k), 0.3, grid, k, OPEN)
    np.testing.assert_array_equal(found[0], np.moveaxis(expected[0], 0, k))
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(a, b)


# ---- mass, sign, walls ----------------------------------------------------------------------------------------------

kinds = st.sampled_from([CIRCLE, OPEN, CLOSED, ("reflecting", "absorbing"), (Robin(2.0), Inflow(1.0))])


@settings(max_examples=120, deadline=None)
@given(
    shape=st.lists(st.integers(3, 12), min_size=1, max_size=3),
    axis=st.integers(0, 2),
    sides=kinds,
    seed=st.integers(0, 2**32 - 1),
    dt=st.sampled_from([1e-6, 0.05, 1.0, 30.0]),
    rough=st.booleans(),
    spiky=st.booleans(),
)
def test_mass_is_kept_line_by_line_and_no_mass_is_negative(shape, axis, sides, seed, dt, rough, spiky):
    rng, dim = np.random.default_rng(seed), len(shape)
    k = axis % dim
    grid = Grid.product(*(Grid(-1.0, 1.0, n) for n in shape))
    m = rng.random(grid.shape) ** (40 if spiky else 1)
    velocity = rng.normal(size=[n + (j == k) for j, n in enumerate(shape)])
    if not rough:
        velocity = np.broadcast_to(velocity.take([0], axis=k), velocity.shape)
    moved, low, high = shift(m, velocity, dt, grid, k, sides)
    assert moved.min() >= 0.0
    assert min(low.min(), high.min()) >= 0.0
    np.testing.assert_allclose(moved.sum(axis=k) + low + high, m.sum(axis=k), rtol=1e-13)
    for wall, lost in zip(sides, (low, high), strict=True):
        assert wall == "absorbing" or isinstance(wall, Robin) or not lost.any()
    several, *lost = shift(m, velocity, dt, grid, k, sides, threads=3)
    np.testing.assert_array_equal(several, moved)
    np.testing.assert_array_equal(lost[1], high)


def test_a_circle_closes_where_edges_crowd_round_its_joint():
    """A source near the joint: the feet of both ends lie in one cell, in which the reconstruction may bend down."""
    grid, rng = line(12), np.random.default_rng(11)
    velocity = np.repeat(np.sin(2 * np.pi * (grid.edges[0] - 0.03))[:, None], 3, axis=1)
    move = prepare(velocity, 0.8, grid, 0, CIRCLE)
    for _ in range(200):
        m = rng.random(grid.shape) ** 20
        moved, _, _ = move(m)
        assert moved.min() >= 0.0
        np.testing.assert_allclose(moved.sum(axis=0), m.sum(axis=0), rtol=1e-14)


def test_a_long_circle_loses_no_digits_at_its_joint():
    grid = line(4000)
    m = np.zeros(grid.shape)
    m[0] = 1.0
    velocity = constant(grid, 0, -0.3 / 4000) * (1.0 + 1e-3 * np.sin(2 * np.pi * grid.edges[0]))[:, None]
    moved, _, _ = shift(m, velocity, 1.0, grid, 0, CIRCLE)
    np.testing.assert_allclose(moved.sum(axis=0), 1.0, rtol=3e-16)


def test_a_partly_reflecting_wall_lets_through_all_that_has_no_noise():
    grid, rng = line(20), np.random.default_rng(2)
    m, velocity = rng.random(grid.shape), constant(grid, 0, 1.0)
    through, closed = (shift(m, velocity, 0.2, grid, 0, sides) for sides in ((Robin(0.1),) * 2, (Inflow(2.0),) * 2))
    for a, b in zip(through, shift(m, velocity, 0.2, grid, 0, OPEN), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(closed, shift(m, velocity, 0.2, grid, 0, CLOSED), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_passes_an_absorbing_wall_is_what_reached_it():
    grid = line(200)
    p = cell_averages(Grid(0.0, 1.0, 200), lambda x: np.exp(-0.5 * ((x - 0.7) / 0.1) ** 2))
    m = np.multiply.outer(p / p.sum(), np.ones(3))
    moved, low, high = shift(m, constant(grid, 0, 1.0), 0.34567, grid, 0, OPEN)
    below, beyond = (0.5 * math.erfc((0.7 - e) / 0.1 / math.sqrt(2.0)) for e in (1.0 - 0.34567, 1.0))
    assert high == pytest.approx(np.full(3, (beyond - below) / beyond), abs=2e-8)
    assert not low.any()
    assert not moved[:69].any()  # nothing enters


@pytest.mark.parametrize("v", [1.0, -1.0])
@pytest.mark.parametrize("traced", [False, True])
def test_what_leaves_is_known_to_third_order_where_the_density_does_not_end(v, traced):
    """e^{sin 3x} on [0, 1], 0.43 cells out through a wall: cells next to it and the loss."""
    sizes, errors = (40, 60, 90), []
    for n in sizes:
        grid, to = line(n), v * 0.43 / n
        p = cell_averages(Grid(0.0, 1.0, n), lambda x: np.exp(np.sin(3 * x)))
        later = cell_averages(Grid(0.0, 1.0, n), lambda x, to=to: np.exp(np.sin(3 * (x - to))))
        velocity = constant(grid, 0, v) * (1.0 + traced * 1e-15 * (np.arange(n + 1) % 2)[:, None])
        moved, low, high = shift(np.repeat(p[:, None], 3, axis=1), velocity, 0.43 / n, grid, 0, OPEN)
        inside = slice(1, None) if v > 0 else slice(None, -1)
        lost = p.sum() - later[inside].sum() - moved[:, 0][[0 if v > 0 else -1]].sum()
        errors.append(max(np.abs(moved[:, 0] - later)[inside].max(), np.abs((high if v > 0 else low)[0] - lost)))
    assert slope(sizes, errors) > 2.8


def test_what_is_driven_against_a_closed_wall_stays_in_the_last_cell():
    grid = line(20)
    m = np.ones(grid.shape)
    moved, low, high = shift(m, constant(grid, 0, -1.0), 0.26, grid, 0, CLOSED)
    np.testing.assert_allclose(moved[0], 1.0 + 5.2)
    np.testing.assert_allclose(moved[1:14], 1.0)
    np.testing.assert_allclose(moved[14], 0.8)
    assert not moved[15:].any()
    assert not low.any()
    assert not high.any()


def test_a_stagnation_point_at_a_wall_lets_nothing_through():
    """dx/dt = x(1 − x): both walls are reached in infinite time only."""
    grid = line(64)
    e = grid.edges[0]
    velocity = np.repeat((e * (1 - e))[:, None], 3, axis=1)
    m = np.full(grid.shape, 1.0 / 64)
    moved, low, high = shift(m, velocity, 1.0, grid, 0, OPEN)
    assert max(low.max(), high.max()) < 1e-12
    feet = e * np.exp(-1.0) / (1 - e + e * np.exp(-1.0))
    np.testing.assert_allclose(moved[:, 0], np.diff(feet), atol=2e-9)


@pytest.mark.parametrize("sides", [CIRCLE, OPEN])
def test_an_edge_of_a_density_does_not_undershoot(sides):
    grid = line(100)
    m = np.zeros(grid.shape)
    m[30:50] = 1.0
    move = prepare(constant(grid, 0, 0.0437), 0.1, grid, 0, sides)
    for _ in range(50):
        m, _, _ = move(m)
    assert m.min() == 0.0
    assert m.max() < 1.2
    assert m.sum() == pytest.approx(60.0)


# ---- two axes: a solid body turns -----------------------------------------------------------------------------------


def turned(n, steps, method="transport"):
    """A bump of sd 0.1 at (0.5, 0) after one turn of (−y, x) on n × n cells: (masses before, after)."""
    grid = Grid((-1, -1), (1, 1), (n, n))
    x, y = grid.centers
    along_x, along_y = np.repeat(-y[None], n + 1, axis=0), np.repeat(x[:, None], n + 1, axis=1)
    m = start = gaussian(grid, (0.5, 0.0), 0.1) * grid.cell_volume
    dt = 2 * np.pi / steps
    if method == "upwind":
        for _ in range(steps):
            m = m + donor_cell(m, along_x, dt * n / 2, 0) + donor_cell(m, along_y, dt * n / 2, 1)
        return start, m
    half, full = prepare(along_x, dt / 2, grid, 0, OPEN), prepare(along_y, dt, grid, 1, OPEN)
    for _ in range(steps):
        for move in (half, full, half):
            m, _, _ = move(m)
    return start, m


def donor_cell(m, velocity, courant, k):
    v, q = np.moveaxis(velocity, k, 0)[1:-1], np.moveaxis(m, k, 0)
    flux = courant * (np.maximum(v, 0.0) * q[:-1] + np.minimum(v, 0.0) * q[1:])
    out = np.zeros_like(q)
    out[:-1] -= flux
    out[1:] += flux
    return np.moveaxis(out, 0, k)


def test_a_bump_keeps_its_height_over_a_turn_where_upwind_loses_more_than_half():
    start, end = turned(128, 100)
    assert end.max() / start.max() == pytest.approx(1.0, abs=0.002)
    assert np.abs(end - start).sum() < 0.005
    start, end = turned(128, 1000, "upwind")
    assert end.max() / start.max() < 0.5


def test_a_coarse_turn_keeps_its_height_to_two_per_cent():
    start, end = turned(64, 60)
    assert end.max() / start.max() == pytest.approx(1.0, abs=0.02)


def test_strang_splitting_of_a_rotation_is_of_second_order():
    steps = np.array([20, 28, 40])
    errors = [np.abs(np.subtract(*turned(96, n))).sum() for n in steps]
    assert 1.85 < slope(steps, errors) < 2.15


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_refused_with_a_sentence():
    grid = line(5)
    good = constant(grid, 0, 1.0)
    with pytest.raises(ValueError, match=r"velocity has shape \(5, 3\), expected \(6, 3\)"):
        prepare(good[1:], 0.1, grid, 0, OPEN)
    with pytest.raises(ValueError, match=r"velocity along axis 0 is nan at index \(2, 0\)"):
        prepare(np.where(np.arange(6)[:, None] == 2, np.nan, good), 0.1, grid, 0, OPEN)
    with pytest.raises(ValueError, match="dt must be > 0"):
        prepare(good, 0.0, grid, 0, OPEN)
    with pytest.raises(ValueError, match=r"m has shape \(3, 5\)"):
        shift(np.ones((3, 5)), good, 0.1, grid, 0, OPEN)
