"""The splitting in two and three dimensions: each step against its formula with matrices, walls, threads, control."""

import functools
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse as sp
from scipy.sparse.linalg import expm_multiply, spsolve

from sdesim.fokker_planck import sparse, splitting, sweeps, team
from sdesim.fokker_planck.boundary import Inflow, Robin, walls_of_axes
from sdesim.fokker_planck.box import BoxCoefficients
from sdesim.fokker_planck.bundles import layout, restored, stored
from sdesim.fokker_planck.grid import Grid
from sdesim.fokker_planck.operator import Coefficients
from sdesim.fokker_planck.steppers import tr_bdf2

WALLS = ["reflecting", "absorbing", "periodic", Robin(0.7), Inflow(0.3)]
FIRST = {2: ("periodic", ("absorbing", "reflecting")), 3: (("absorbing", Robin(2.0)), "periodic", "reflecting")}


def box(shape, boundary="reflecting", *, mixed=True, graded=False, still=None, autonomous=True, turn=1.3, noise=0.5):
    """A turning spring with noise that varies in space, in as many dimensions as the shape has."""
    dim = len(shape)

    def drift(x, t):
        swing = 1.0 if autonomous else 1.0 + np.sin(3.0 * t)
        return tuple(-x[k] + turn * swing * x[(k + 1) % dim] for k in range(dim))

    def tensor(x, t):
        rows = [[0.0] * dim for _ in range(dim)]
        for k in range(dim):
            rows[k][k] = 0.0 if k == still else noise * (1.0 + 0.2 * np.cos(x[k] + x[k - 1]))
            for j in range(k + 1, dim):
                if mixed and still not in (j, k):
                    rows[k][j] = rows[j][k] = noise * (0.1 + 0.3 * np.cos(x[k] + x[j]))
        return tuple(map(tuple, rows))

    axes = [np.linspace(-2.0, 2.5, n + 1) for n in shape]
    if graded:
        axes = [x + 0.15 * np.sin(2 * np.pi * (x + 2.0) / 4.5) for x in axes]
    grid = Grid.from_edges(*axes)
    return BoxCoefficients(drift, tensor, grid, walls_of_axes(boundary, dim), autonomous)


def start(shape, seed=0):
    m = np.random.default_rng(seed).random(shape)
    return m / m.sum()


def smooth(coefficients, at=0.2, width=0.6):
    factors = [np.exp(-0.5 * ((c - at) / width) ** 2) for c in coefficients.grid.centers]
    m = functools.reduce(np.multiply.outer, factors) * coefficients.grid.cell_volume
    return m / m.sum()


def parts(operator):
    """The matrices of the axes, their sum with the mixed parts, and the source."""
    shape = operator.grid.shape
    lines = [sparse.jumps(axis, shape, k) for k, axis in enumerate(operator.axes)]
    source = np.zeros(operator.grid.shape) if operator.source is None else operator.source
    return lines, sparse.matrix(operator), source.ravel()


def inverse(lines, g, x):
    for a in lines:
        x = spsolve(sp.identity(a.shape[0], format="csc") - g * a.tocsc(), x)
    return x


def by_matrices(operator, m, dt, half=0.5, theta=None):
    """A step by the formulas of the module, with sparse matrices."""
    lines, a, s = parts(operator)
    theta = theta or (0.5 + np.sqrt(3.0) / 6.0 if operator.mixed else 0.5)
    m = m.ravel()
    r = dt * (a @ m + s)
    delta = inverse(lines, theta * dt, r)
    if operator.mixed:
        m = m + inverse(lines, theta * dt, r + half * dt * (a @ delta) - delta)
    return (m + delta).reshape(operator.grid.shape)


def damped_by_matrices(operator, m, dt):
    lines, a, s = parts(operator)
    g, m = 0.5 * dt, m.ravel()
    for order in (1, -1):
        m = inverse(lines[::order], g, m + g * ((a - sum(lines)) @ m) + g * s)
    return m.reshape(operator.grid.shape)


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return splitting.evolve(*args, **kwargs)


# ---- one step -------------------------------------------------------------------------------------------------------


boxes = st.builds(
    dict,
    shape=st.one_of(
        st.tuples(st.integers(3, 20), st.integers(3, 20)),
        st.tuples(st.integers(3, 10), st.integers(3, 10), st.integers(3, 10)),
    ),
    wall=st.sampled_from([*WALLS, "each its own"]),
    mixed=st.booleans(),
    graded=st.booleans(),
)


def of_case(case):
    dim = len(case["shape"])
    boundary = FIRST[dim] if case["wall"] == "each its own" else case["wall"]
    # few cells make graded ones too different
    return box(case["shape"], boundary, mixed=case["mixed"], graded=case["graded"] and min(case["shape"]) > 7)


@settings(max_examples=60, deadline=None)
@given(boxes)
def test_the_operator_applied_is_its_matrix_applied(case):
    operator, m = of_case(case).at(0.0), start(case["shape"])
    _, a, s = parts(operator)
    found = sweeps.apply(operator, m)
    np.testing.assert_allclose(found.ravel(), a @ m.ravel() + s, rtol=0, atol=1e-13 * abs(a).max())


@settings(max_examples=60, deadline=None)
@given(boxes, st.floats(0.01, 2.0))
def test_steps_are_those_of_the_formula(case, dt):
    operator, m = of_case(case).at(0.0), start(case["shape"])
    lost, lost_damped = np.zeros((2, m.ndim, 2))
    with team.Team(1, m.size) as one:
        ready = sweeps.Sweeps(operator, one)
        step, damped = ready.steps(m, dt, 1, lost), ready.damped(m, dt, lost_damped)
    np.testing.assert_allclose(step, by_matrices(operator, m, dt), rtol=0, atol=1e-13)
    np.testing.assert_allclose(damped, damped_by_matrices(operator, m, dt), rtol=0, atol=1e-13)
    # what has left through the walls closes the balance, with what has entered
    entered = dt * parts(operator)[2].sum()
    assert step.sum() + lost.sum() == pytest.approx(1.0 + entered, abs=1e-13)
    assert damped.sum() + lost_damped.sum() == pytest.approx(1.0 + entered, abs=1e-13)
    if not operator.mixed:
        assert damped.min() >= 0.0


@pytest.mark.parametrize("mixed", [False, True])
def test_each_wall_is_charged_with_what_passes_it(mixed):
    # With everything of one wall only, the balance leaves no doubt.
    for k in range(3):
        for side in range(2):
            sides = [["reflecting", "reflecting"] for _ in range(3)]
            sides[k][side] = "absorbing"
            coefficients = box((6, 5, 9), tuple(map(tuple, sides)), mixed=mixed)
            m = start((6, 5, 9))
            found = quiet(coefficients, m, 0.0, [0.1], 1e-5, n_steps=5)
            expected = np.zeros((3, 2))
            expected[k, side] = 1.0 - found.m.sum()
            assert expected.sum() > 1e-3
            np.testing.assert_allclose(found.absorbed[0], expected, rtol=0, atol=1e-14)


def test_a_kernel_applies_what_the_steps_solve_for_axes_without_diffusion_too():
    operator, m = box((9, 12), still=0).at(0.0), start((9, 12))
    expected = (sparse.matrix(operator) @ m.ravel()).reshape(m.shape)
    np.testing.assert_allclose(sweeps.apply(operator, m), expected, rtol=0, atol=1e-13)


@given(st.integers(3, 40), st.integers(3, 12), st.integers(3, 40))
def test_what_is_stored_comes_back(a, b, c):
    for shape in ((a, c), (a, b, c)):
        at, m = layout(shape), start(shape)
        flat = stored(m, at)
        assert flat.sum() == pytest.approx(1.0)
        assert at.row % 16 == 8
        np.testing.assert_array_equal(restored(flat, at, shape), m)


# ---- many steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("shape", "boundary"), [((9, 12), "reflecting"), ((10, 8), FIRST[2]), ((6, 7, 8), FIRST[3])])
def test_small_steps_are_the_matrix_exponential(shape, boundary, mixed):
    coefficients, m = box(shape, boundary, mixed=mixed), start(shape)
    exact = expm_multiply(0.1 * sparse.matrix(coefficients.at(0.0)), m.ravel()).reshape(shape)
    coarse, fine = (quiet(coefficients, m, 0.0, [0.1], 1e-5, n_steps=n).m[-1] for n in (100, 200))
    assert abs(fine - exact).sum() < 1e-5
    assert abs(4.0 * fine - coarse - 3.0 * exact).sum() / 3.0 < 2e-8


def test_what_is_at_rest_stays_at_rest():
    coefficients = box((24, 20), mixed=True)
    a = sparse.matrix(coefficients.at(0.0)).toarray()
    a[0] = 1.0  # in place of one balance of the cells: the mass
    rest = np.linalg.solve(a, np.eye(len(a))[0]).reshape(24, 20)
    found = quiet(coefficients, rest, 0.0, [5.0], 1e-5, n_steps=20).m[-1]
    # the damped start splits the axes, and is forgotten
    assert abs(found - rest).sum() < 2e-3
    with team.Team(1, rest.size) as one:
        steps = sweeps.Sweeps(coefficients.at(0.0), one).steps(rest, 0.5, 20, np.zeros((2, 2)))
    assert abs(steps - rest).max() < 1e-14


LINE = {"absorbing": 1e-8, Robin(0.7): 1e-8, Inflow(0.3): 1e-8, "periodic": 1e-8}


@pytest.mark.parametrize("wall", LINE)
@pytest.mark.parametrize("axis", [0, 1])
def test_walls_are_those_of_one_dimension(wall, axis):
    # Axes that know nothing of each other: the marginal is the density of one dimension.
    n, length = 40, 2.5
    other = Grid(-1.0, length - 1.0, 10)
    line = Grid(-1.0, 1.5, n)
    grid = Grid.product(line, other) if axis == 0 else Grid.product(other, line)
    drift = lambda x, t: 0.5 + 0.3 * np.sin(2.0 * np.pi * x / 2.5)  # noqa: E731
    coefficients = BoxCoefficients(
        lambda x, t: tuple(drift(y, t) if k == axis else -y for k, y in enumerate(x)),
        lambda x, t: tuple(tuple(0.4 if j == k else 0.0 for j in range(2)) for k in range(2)),
        grid,
        walls_of_axes(tuple((wall, wall) if k == axis else ("reflecting",) * 2 for k in range(2)), 2),
        True,
    )
    along = np.exp(-2.0 * line.centers**2)
    along /= along.sum()
    m = np.multiply.outer(along, np.full(10, 0.1)) if axis == 0 else np.multiply.outer(np.full(10, 0.1), along)
    if isinstance(wall, Inflow):
        wall = Inflow(wall.flux * length)  # per unit of the wall there, in all here
    exact = tr_bdf2(Coefficients(drift, lambda x, t: 0.4 + 0 * x, line, wall), along, 0.0, [0.5], 1e-9)
    found = splitting.evolve(coefficients, m, 0.0, [0.5], 1e-8)
    np.testing.assert_allclose(found.m[0].sum(axis=1 - axis), exact.m[0], rtol=0, atol=3e-7)
    np.testing.assert_allclose(found.absorbed[0, axis], exact.absorbed[0], rtol=0, atol=3e-6)
    np.testing.assert_allclose(found.absorbed[0, 1 - axis], 0.0, atol=1e-14)
    assert found.m.sum() + found.absorbed.sum() == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.sampled_from(WALLS),
    st.floats(0.02, 3.0),
    st.floats(-8.0, 8.0),
    st.integers(0, 2**31),
)
def test_no_density_falls_below_zero_and_no_mass_is_lost(shape, wall, noise, turn, seed):
    coefficients = box(shape, wall, mixed=False, turn=turn, noise=noise)
    m = np.zeros(shape)
    m.flat[seed % m.size] = 1.0
    found = splitting.evolve(coefficients, m, 0.0, [0.05, 0.3], 1e-4)
    assert found.m.min() >= -1e-12 * found.m.max()
    totals = found.m.sum(axis=(1, 2)) + found.absorbed.sum(axis=(1, 2))
    np.testing.assert_allclose(totals, 1.0, rtol=0, atol=1e-12)


def test_where_smaller_steps_do_not_keep_it_positive_damped_ones_do(monkeypatch):
    coefficients = box((58, 11), mixed=False, turn=-9.6, noise=1.5)
    m = np.zeros((58, 11))
    m[4, 5] = 1.0
    exact = splitting.evolve(coefficients, m, 0.0, [1.0], 1e-7).m[-1]
    for halvings in (splitting.HALVINGS, 0):
        monkeypatch.setattr(splitting, "HALVINGS", halvings)
        found = splitting.evolve(coefficients, m, 0.0, [1.0], 5e-4)
        damped = sum(count for stretch in found.steps for _, count, damp in stretch if damp)
        assert found.n_rejected > 0
        assert (damped > 2) == (halvings == 0)
        assert found.m.min() >= 0.0
        assert found.m.sum() == pytest.approx(1.0, abs=1e-12)
        assert abs(found.m[-1] - exact).sum() < 5e-3


# ---- control of the step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"mixed": False}, {"autonomous": False}])
def test_the_error_follows_the_tolerance(kind):
    coefficients = box((16, 16), "reflecting", **kind)
    m = smooth(coefficients)
    exact = quiet(coefficients, m, 0.0, [1.0], 0.0, n_steps=1500).m[-1]
    errors, work = [], []
    for tolerance in (1e-4, 1e-5, 1e-6):
        found = quiet(coefficients, m, 0.0, [1.0], tolerance)
        errors.append(abs(found.m[-1] - exact).sum())
        work.append(found.n_steps)
        assert errors[-1] < 0.5 * found.n_steps * tolerance
    # the error goes with tolerance^(2/3) and the number of steps with tolerance^(−1/3)
    assert errors[2] < errors[1] / 2.5 < errors[0] / 6.0
    assert 3.0 < work[2] / work[0] < 9.0


def test_a_moment_in_which_all_changes_is_not_stepped_over():
    def drift(x, t):
        return (-x[0] + 8.0 * np.exp(-0.5 * ((t - 1.0) / 0.05) ** 2), -x[1])

    coefficients = BoxCoefficients(
        drift,
        lambda x, t: ((0.5, 0.0), (0.0, 0.5)),
        Grid((-3, -3), (3, 3), (24, 20)),
        walls_of_axes("reflecting", 2),
        False,
    )
    found = splitting.evolve(coefficients, smooth(coefficients, 0.0, 0.7), 0.0, [2.0], 1e-4)
    sizes = np.array([dt for stretch in found.steps for dt, count, _ in stretch for _ in range(count)])
    assert sizes[len(sizes) // 2] < 0.02 < 0.05 < sizes.max()
    mean = (found.m[-1].sum(axis=1) * coefficients.grid.centers[0]).sum()
    exact = splitting.evolve(coefficients, smooth(coefficients, 0.0, 0.7), 0.0, [2.0], 0.0, n_steps=2000)
    assert mean == pytest.approx((exact.m[-1].sum(axis=1) * coefficients.grid.centers[0]).sum(), abs=2e-3)
    assert mean > 0.1


def test_steps_grow_as_the_density_comes_to_rest_and_end_at_each_time():
    coefficients = box((20, 20), mixed=False, turn=0.3)
    times = [0.0, 0.3, 1.0, 1.0 + 1e-9, 40.0]
    found = splitting.evolve(coefficients, smooth(coefficients), 0.0, times, 1e-6)
    spans = [sum(dt * count for dt, count, _ in s) for s in found.steps]
    assert spans[:-1] == pytest.approx(np.diff([0.0, *times])[:-1])
    assert 15.0 < spans[-1] < 39.0  # no steps are taken at rest
    assert found.n_steps == sum(count for s in found.steps for _, count, _ in s)
    last = [dt for dt, _, _ in found.steps[-1]]
    assert last[-1] > 30.0 * last[0]
    np.testing.assert_array_equal(found.m[0], smooth(coefficients))


@pytest.mark.parametrize("autonomous", [True, False])
def test_halves_of_the_same_steps(autonomous):
    coefficients = box((12, 12), mixed=False, autonomous=autonomous)
    m = smooth(coefficients)
    coarse = splitting.evolve(coefficients, m, 0.0, [0.2, 0.5], 1e-4)
    fine = splitting.evolve(coefficients, m, 0.0, [0.2, 0.5], 1e-4, halved=coarse.steps)
    finest = splitting.evolve(coefficients, m, 0.0, [0.2, 0.5], 1e-4, halved=fine.steps)
    assert fine.n_steps == 2 * coarse.n_steps
    for run in (coarse, fine, finest):
        assert sum(count for s in run.steps for _, count, damped in s if damped) == 2
    # both differences are of one series in dt²: each is a quarter of the one before
    first, second = fine.m - coarse.m, finest.m - fine.m
    np.testing.assert_allclose(abs(second).sum(), 0.25 * abs(first).sum(), rtol=0.02)
    assert abs(second - 0.25 * first).sum() < 0.05 * abs(second).sum()


def test_the_damped_start_keeps_a_point_mass_positive():
    coefficients = box((20, 20), mixed=False, turn=0.0)
    m = np.zeros((20, 20))
    m[10, 10] = 1.0
    with team.Team(1, m.size) as one:
        step = sweeps.Sweeps(coefficients.at(0.0), one).steps(m, 2.0, 1, np.zeros((2, 2)))
    assert step.min() < -1e-3
    found = splitting.evolve(coefficients, m, 0.0, [2.0], 1e-5, n_steps=2)
    assert found.m.min() >= 0.0


# ---- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "kind"), [((33, 40), {}), ((33, 40), {"mixed": False}), ((9, 10, 11), {})])
def test_the_result_does_not_depend_on_the_number_of_threads(shape, kind):
    coefficients, m = box(shape, FIRST[len(shape)], **kind), start(shape)
    first, *others = (quiet(coefficients, m, 0.0, [0.05, 0.1], 1e-4, threads=k) for k in (1, 2, 3, 5))
    for other in others:
        np.testing.assert_array_equal(other.m, first.m)
        np.testing.assert_array_equal(other.absorbed, first.absorbed)


def test_progress_is_told():
    for autonomous in (True, False):
        told = []
        coefficients = box((12, 12), mixed=False, autonomous=autonomous)
        splitting.evolve(coefficients, smooth(coefficients), 0.0, [0.1, 0.3], 1e-4, told.append)
        assert told == sorted(told)
        assert told[-1] == pytest.approx(0.3)
        told.clear()
        splitting.evolve(coefficients, smooth(coefficients), 0.0, [0.1, 0.3], 1e-4, told.append, n_steps=10)
        assert told[-1] == pytest.approx(0.3)


def test_members_wait_for_each_other_and_nobody_waits_for_ever():
    def work(member, members, shared, order, meetings, fails):
        for k in range(meetings):
            if fails and member == 1 and k == 1:
                raise ZeroDivisionError
            order.append((k, member))
            team.meet(members, shared)
            if team.stopped(shared):
                return

    team._compiled.add("work")
    with team.Team(3, 1) as three:
        order = []
        three.run(work, order, 5, False)
        assert [k for k, _ in order] == sorted(k for k, _ in order)
        begin = time.perf_counter()
        with pytest.raises(ZeroDivisionError):
            three.run(work, [], 5, True)
        assert time.perf_counter() - begin < 5.0


@pytest.mark.slow
def test_an_interruption_stops_the_work_at_once():
    import _thread

    coefficients = box((400, 400), mixed=False)
    m = smooth(coefficients)
    quiet(coefficients, m, 0.0, [1e-4], 1e-4, n_steps=3, threads=2)
    sent = []
    timer = threading.Timer(0.3, lambda: (sent.append(time.perf_counter()), _thread.interrupt_main()))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        quiet(coefficients, m, 0.0, [1.0], 1e-4, n_steps=200_000, threads=2)
    assert time.perf_counter() - sent[0] < 0.5


# ---- stability ------------------------------------------------------------------------------------------------------


def growth(z, theta, two_stages):
    total, inverse = z.sum(axis=0), np.prod(1.0 / (1.0 - theta * z), axis=0)
    delta = inverse * total
    second = inverse * (total + 0.5 * total * delta - delta) if two_stages else 0.0
    return np.abs(1.0 + delta + second)


@pytest.mark.parametrize(("theta", "two_stages"), [(0.5, False), (0.5 + np.sqrt(3.0) / 6.0, True)])
def test_in_two_dimensions_nothing_grows_and_in_three_only_drift_along_the_diagonal(theta, two_stages):
    generator = np.random.default_rng(0)
    for dim, widest, most in ((2, 0.5, 1.0), (3, 0.25, 1.0), (3, 0.5, 1.9)):
        size = 10.0 ** generator.uniform(-3, 4, (dim, 200_000))
        angle = np.pi * generator.uniform(-widest, widest, size.shape)
        assert growth(-size * np.exp(1j * angle), theta, two_stages).max() < most + 1e-9
    diagonal = growth(1j * np.full((3, 1), 2.8), theta, two_stages)[0]
    assert diagonal > 1.5
    if not two_stages:
        assert diagonal == pytest.approx(5.0 / 3.0, abs=1e-3)


def test_the_control_of_the_step_sees_what_grows_in_three_dimensions():
    # A point carried along the diagonal, with hardly any diffusion: given steps are unstable, chosen ones are not.
    grid = Grid((0.0,) * 3, (1.0,) * 3, (16,) * 3)
    coefficients = BoxCoefficients(
        lambda x, t: (1.0, 1.0, 1.0),
        lambda x, t: tuple(tuple(0.01 if j == k else 0.0 for j in range(3)) for k in range(3)),
        grid, walls_of_axes("periodic", 3), True,
    )  # fmt: skip
    m = smooth(coefficients, 0.5, 0.1)
    with pytest.warns(UserWarning, match=r"falls to -[0-9.e+]+ \(its peak is .*; [0-9.e+]+ of the probability is"):
        wild = splitting.evolve(coefficients, m, 0.0, [40.0], 1e-4, n_steps=100)
    assert abs(wild.m[-1]).sum() > 10.0
    found = splitting.evolve(coefficients, m, 0.0, [20.0], 1e-4)
    np.testing.assert_allclose(found.m[-1], 1.0 / m.size, rtol=0.05)
    assert found.m.min() >= 0.0


def test_what_memory_held_before_does_not_matter():
    """Buffers are taken from memory that was nan: the lanes that only fill up a vector must not bring it in."""
    for shape in ((11, 15), (9, 12), (5, 6, 9)):
        operator, m = box(shape, "absorbing", mixed=True).at(0.0), start(shape)
        for _ in range(20):
            poison = [np.full(size, np.nan) for size in range(64, 400, 2) for _ in range(8)]
            del poison
            lost, lost_damped = np.zeros((2, m.ndim, 2))
            with team.Team(1, m.size) as one:
                ready = sweeps.Sweeps(operator, one)
                step, damped = ready.steps(m, 0.3, 1, lost), ready.damped(m, 0.3, lost_damped)
            assert step.sum() + lost.sum() == pytest.approx(1.0, abs=1e-13)
            assert damped.sum() + lost_damped.sum() == pytest.approx(1.0, abs=1e-13)
