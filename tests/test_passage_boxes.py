"""Mean first-passage times and committors in two and three dimensions: series, reductions to a line, both solvers."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.fokker_planck import linear
from sdesim.fokker_planck.sparse import matrix
from sdesim.on_grid import box_coefficients

QUARTIC = sde.ito(lambda x, t: -20 * x * (x * x - 1), lambda x, t: np.sqrt(2.0))
FREE_2D = sde.ito(lambda x, t: (0 * x[0], 0 * x[1]), lambda x, t: (1.0, 1.0), dim=2)


def right_half(x):
    return x > 0


def test_exit_from_a_square():
    # ½ Δτ = −1 on [−1, 1]²: τ(0) = 2 (½ − (16/π³) Σ ± 1/(k³ cosh kπ/2))
    exact = 1 - (32 / np.pi**3) * sum(
        (-1) ** k / ((2 * k + 1) ** 3 * np.cosh((2 * k + 1) * np.pi / 2)) for k in range(20)
    )
    square = sde.Grid([-1, -1], [1, 1], 32)
    tau = sde.mean_first_passage_time(FREE_2D, square, boundary="absorbing", richardson=True, moments=2)
    assert tau([0.0, 0.0]) == pytest.approx(exact, rel=5e-6)
    assert tau([[1.0, 0.3], [-0.2, -1.0]]) == pytest.approx([0.0, 0.0], abs=1e-12)
    errors = []
    for n in (32, 64):
        grid = sde.Grid([-2, -2], [2, 2], n)
        inside = sde.mean_first_passage_time(FREE_2D, grid, lambda x, y: (abs(x) > 1) | (abs(y) > 1), moments=2)
        errors.append(abs(inside([0.0, 0.0]) - exact))
        # the same chain as on the small square, target or wall
        walls = sde.mean_first_passage_time(
            FREE_2D, sde.Grid([-1, -1], [1, 1], n // 2), boundary="absorbing", moments=2
        )
        middle = slice(n // 4, 3 * n // 4)
        np.testing.assert_allclose(inside.moments[:, middle, middle], walls.moments, rtol=1e-11)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_a_second_axis_that_does_nothing_changes_nothing():
    both = sde.ito(lambda x, t: (-20 * x[0] * (x[0] ** 2 - 1), -x[1]), lambda x, t: (np.sqrt(2.0), 1.0), dim=2)
    for boundary, target in (("reflecting", lambda x, y: x > 0), (("reflecting", "periodic"), lambda x, y: x > 0)):
        plane = sde.Grid([-2.5, -2.0], [2.5, 2.0], (100, 8))
        tau = sde.mean_first_passage_time(both, plane, target, boundary=boundary, moments=2)
        line = sde.mean_first_passage_time(QUARTIC, sde.Grid(-2.5, 2.5, 100), right_half, moments=2)
        np.testing.assert_allclose(tau.moments, np.repeat(line.moments[:, :, None], 8, axis=2), rtol=1e-9)
        q = sde.committor(both, plane, lambda x, y: x < -1, lambda x, y: x > 1, boundary=boundary)
        q_line = sde.committor(QUARTIC, sde.Grid(-2.5, 2.5, 100), lambda x: x < -1, lambda x: x > 1)
        np.testing.assert_allclose(q.values, np.repeat(q_line.values[:, None], 8, axis=1), atol=1e-11)


def test_mixed_derivatives_and_graded_cells_against_the_sheared_problem():
    # X = U + V, Y = V with independent U, V: leaving |U| < 1 does not depend on the shear
    shear = sde.ito(lambda x, t: (0 * x[0], 0 * x[1]), lambda x, t: ((1.0, 0.5), (0.0, 0.5)), dim=2, noise="general")
    errors = []
    for n in (20, 40):
        grid = sde.Grid([-2.0, -1.0], [2.0, 1.0], (2 * n, n))
        tau = sde.mean_first_passage_time(shear, grid, lambda x, y: abs(x - y) > 1, boundary="reflecting")
        inner = tau([0.0, 0.0])
        errors.append(abs(inner - 1.0))
    # steps of a staircase: first order only, and walls that reflect across the shear
    assert errors[1] < 0.6 * errors[0] + 0.02


def test_time_to_a_disc_in_an_annulus():
    # dX = dW between r = ½ (target) and 2 (target): E T = [ (R² − r²) − (R² − a²) log(R/r)/log(R/a) ]/2
    a, big = 0.5, 2.0
    grid = sde.Grid([-2.2, -2.2], [2.2, 2.2], 110)
    tau = sde.mean_first_passage_time(FREE_2D, grid, lambda x, y: (np.hypot(x, y) < a) | (np.hypot(x, y) > big))
    q = sde.committor(FREE_2D, grid, lambda x, y: np.hypot(x, y) < a, lambda x, y: np.hypot(x, y) > big)
    for r in (0.8, 1.2, 1.6):
        point = [r * np.cos(0.4), r * np.sin(0.4)]
        exact = 0.5 * (big**2 - r**2 - (big**2 - a**2) * np.log(big / r) / np.log(big / a))
        assert tau(point) == pytest.approx(exact, abs=0.02)
        assert q(point) == pytest.approx(np.log(r / a) / np.log(big / a), abs=0.015)


def test_between_the_last_centres_and_an_edge_the_function_goes_to_its_value():
    # the strip |x| < 1 between targets, y free: 1 − x² also within the last half cell, and at the walls in y
    grid = sde.Grid([-1.5, 0.0], [1.5, 1.0], (30, 6))
    tau = sde.mean_first_passage_time(FREE_2D, grid, lambda x, y: abs(x) > 1)
    for x in (0.93, 0.97, 0.99, -0.985):
        assert tau([x, 0.4]) == pytest.approx(1 - x * x, rel=0.1)
        assert tau([x, 1.0]) == pytest.approx(1 - x * x, rel=0.1)
    # with absorbing walls in y the corner between wall and target is 0 along both
    walls = ("reflecting", ("absorbing", "absorbing"))
    tau = sde.mean_first_passage_time(FREE_2D, grid, lambda x, y: abs(x) > 1, boundary=walls)
    np.testing.assert_allclose(tau([[0.97, 1.0], [0.93, 0.0], [1.0, 0.5]]), 0.0, atol=1e-12)
    q = sde.committor(FREE_2D, grid, lambda x, y: x < -1, lambda x, y: x > 1)
    for x in (0.93, 0.99, -0.97):
        assert q([x, 0.4]) == pytest.approx((1 + x) / 2, abs=1e-10)


def test_three_dimensions_by_both_solvers(monkeypatch):
    process = sde.ito(lambda x, t: (-x[0] - x[1], x[0] - x[1], -x[2]), lambda x, t: (1.0, 1.0, 1.0), dim=3)
    grid = sde.Grid([-2] * 3, [2] * 3, (14, 12, 10))

    def solve():
        return sde.mean_first_passage_time(process, grid, lambda x, y, z: x + y > 1, moments=2).moments

    direct = solve()
    monkeypatch.setitem(linear.DIRECT, 3, 0)
    monkeypatch.setitem(linear.BLOCKS, 3, 5**3)
    np.testing.assert_allclose(solve(), direct, rtol=1e-8, atol=1e-12)


def test_kinetic_exit_follows_the_transpose_of_the_matrix():
    process = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 1.0, 1.0)
    grid = sde.Grid([-4.0, -5.0], [1.0, 5.0], (40, 40))
    boundary = (("reflecting", "absorbing"), "reflecting")
    tau = sde.mean_first_passage_time(process, grid, boundary=boundary)
    a = matrix(box_coefficients(process, grid, boundary).at(0.0))
    np.testing.assert_allclose(a.T @ tau.mean.ravel(), -1.0, atol=1e-8)
    # fast to the right leaves soonest
    assert tau([0.9, 3.0]) < 0.2 < tau([0.9, -3.0])


def test_a_target_along_an_axis_without_diffusion_is_a_wall():
    process = sde.UnderdampedLangevin(sde.targets.Gaussian(0.0, 1.0), 1.0, 1.0)
    boundary = (("reflecting", "absorbing"), "reflecting")
    walls = sde.mean_first_passage_time(process, sde.Grid([-4.0, -5.0], [1.0, 5.0], (30, 24)), boundary=boundary)
    grid = sde.Grid([-4.0, -5.0], [2.0, 5.0], (36, 24))
    inside = sde.mean_first_passage_time(process, grid, lambda q, v: q > 1)
    np.testing.assert_allclose(inside[:30], walls.mean, rtol=1e-9)
    # from the other side, and on a circle turned so that the target lies across its joint
    mirrored = sde.mean_first_passage_time(process, sde.Grid([-2.0, -5.0], [4.0, 5.0], (36, 24)), lambda q, v: q < -1)
    np.testing.assert_allclose(mirrored[6:], walls.mean[::-1, ::-1], rtol=1e-9)
    turn = sde.ito(lambda x, t: (1.0 + 0.5 * np.sin(x[1]), 0 * x[0]), lambda x, t: (0.0, 1.0), dim=2)
    times = []
    for shift in (0, 5):
        ring = sde.Grid([0.0, 0.0], [2 * np.pi, 2 * np.pi], (40, 20))
        cells = np.zeros((40, 20), bool)
        cells[(np.arange(4) + shift - 2) % 40] = True
        tau = sde.mean_first_passage_time(turn, ring, cells, boundary="periodic")
        times.append(np.roll(tau.mean, -shift, axis=0))
    np.testing.assert_allclose(times[0], times[1], rtol=1e-9, atol=1e-12)


def test_time_along_a_flow_without_diffusion_has_second_order():
    # q moves at the speed 2 + sin v, v turns freely: with D → 0 in v, (1 − q)/(2 + sin v)
    process = sde.ito(lambda x, t: (2.0 + np.sin(x[1]), 0 * x[0]), lambda x, t: (0.0, 1e-4), dim=2)
    errors = []
    for n in (20, 40):
        grid = sde.Grid([0.0, 0.0], [1.5, 2 * np.pi], (3 * n // 2, 20))
        tau = sde.mean_first_passage_time(process, grid, lambda q, v: q > 1, boundary=("reflecting", "periodic"))
        q, v = np.meshgrid(*grid.centers, indexing="ij")
        exact = np.where(q > 1, 0.0, (1 - q) / (2 + np.sin(v)))
        # away from the target, beside which single cells are first order
        errors.append(np.abs(tau.mean - exact)[(q > 0.3) & (q < 0.7)].max())
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 1e-3


def test_a_barrier_too_high_for_elimination_in_two_dimensions_is_told():
    deep = sde.ito(lambda x, t: (-80 * x[0] * (x[0] ** 2 - 1), -x[1]), lambda x, t: (np.sqrt(2.0), 1.0), dim=2)
    with pytest.warns(UserWarning, match="accurate to about"):
        sde.mean_first_passage_time(deep, sde.Grid([-2, -2], [2, 2], (80, 4)), lambda x, y: x > 0)
