"""Time-dependent coefficients by the fourth-order Magnus formula: order, walls, error control, where it gives way."""

import math

import numpy as np
import pytest

import sdesim as sde
from sdesim import evolution
from sdesim.fokker_planck import magnus
from sdesim.on_grid import line_coefficients

MOVING = sde.ito(lambda x, t: np.sin(3.0 * t) - x, lambda x, t: 0.9 + 0.4 * np.cos(2.0 * t))
# drift and noise that do not commute at different times, and bend in x
BENT = sde.ito(lambda x, t: np.sin(2.0 * x + 3.0 * t), lambda x, t: 0.7 + 0.2 * np.cos(x - 4.0 * t))


def moving_law(t, mean, variance):
    """Mean and standard deviation of MOVING, a Gaussian throughout."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s, w = 0.5 * t * (nodes + 1.0), 0.5 * t * weights
    mean = mean * math.exp(-t) + float(w @ (np.exp(s - t) * np.sin(3.0 * s)))
    variance = variance * math.exp(-2 * t) + float(w @ (np.exp(2 * (s - t)) * (0.9 + 0.4 * np.cos(2.0 * s)) ** 2))
    return mean, math.sqrt(variance)


def l1(p, q, grid):
    return float((np.abs(p - q) * grid.cell_volume).sum())


def slopes(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


def solve(grid, n_steps, method="magnus", boundary="reflecting"):
    p0 = sde.gaussian(grid, 0.2, 0.2)
    return sde.evolve_density(BENT, p0, grid, (0, 1), boundary=boundary, method=method, n_steps=n_steps)


def test_fourth_order_in_the_step_away_from_walls():
    grid = sde.Grid(-6.0, 6.0, 240)
    exact = solve(grid, 400)
    errors = [l1(solve(grid, n).final, exact.final, grid) for n in (6, 12, 24, 48)]
    assert (abs(slopes(errors) - 4.0) < 0.15).all(), errors
    assert l1(solve(grid, 400, "tr_bdf2").final, exact.final, grid) < 5e-5


@pytest.mark.parametrize(
    ("boundary", "order"),
    [
        ("reflecting", 2.0),
        ("absorbing", 3.0),
        ((sde.Robin(0.8), "absorbing"), 2.5),
        ((sde.Inflow(0.3), "absorbing"), 2.0),
    ],
)
def test_what_leaves_is_balanced_and_of_the_order_of_the_density(boundary, order):
    grid = sde.Grid(-1.5, 1.5, 60)
    exact = solve(grid, 400, boundary=boundary)
    found = [solve(grid, n, boundary=boundary) for n in (6, 12, 24, 48)]
    errors = [l1(rho.final, exact.final, grid) for rho in found]
    assert (slopes(errors) > order).all(), errors
    assert errors[-1] < 1e-5
    for rho in found:
        assert rho.minimum >= 0.0
        np.testing.assert_allclose(rho.mass + rho.absorbed.sum(axis=1), 1.0, atol=1e-12)
    gone = [np.abs(rho.absorbed - exact.absorbed).max() for rho in found]
    assert gone[-1] <= errors[-1]
    # another engine agrees
    other = solve(grid, 3000, "tr_bdf2", boundary)
    assert l1(other.final, exact.final, grid) < 3e-6
    np.testing.assert_allclose(other.absorbed, exact.absorbed, atol=2e-6)


@pytest.mark.parametrize("wrong", ["weights", "nodes"])
def test_weights_or_nodes_exchanged_would_be_of_lower_order(monkeypatch, wrong):
    # negative control
    names = ("A", "B") if wrong == "weights" else ("EARLY", "LATE")
    first, second = getattr(magnus, names[0]), getattr(magnus, names[1])
    monkeypatch.setattr(magnus, names[0], 0.25 if wrong == "weights" else 0.0)
    monkeypatch.setattr(magnus, names[1], 0.25 if wrong == "weights" else 1.0)
    assert first + second in (0.5, 1.0)
    grid = sde.Grid(-6.0, 6.0, 240)
    found = [solve(grid, n).final for n in (12, 24, 48, 200)]
    errors = [l1(p, found[-1], grid) for p in found[:-1]]
    assert (slopes(errors) < 3.0).all(), errors


def test_the_moving_gaussian_to_the_tolerance():
    for rtol, cells, bound in ((1e-4, 200, 3e-5), (1e-8, 400, 2e-6)):
        grid = sde.Grid(-6.0, 6.0, cells)
        rho = sde.evolve_density(MOVING, lambda g: sde.gaussian(g, 0.5, 0.3), grid, (0, 2), rtol=rtol, richardson=True)
        assert rho.method == "magnus"
        assert l1(rho.final, sde.gaussian(grid, *moving_law(2.0, 0.5, 0.09)), grid) < bound


def test_saved_times_change_neither_the_result_nor_the_balance():
    grid = sde.Grid(-2.0, 2.0, 80)
    p0 = sde.gaussian(grid, 0.2, 0.2)
    few = sde.evolve_density(BENT, p0, grid, (0, 1), boundary="absorbing", save=[0.37, 1.0], rtol=1e-7)
    many = sde.evolve_density(BENT, p0, grid, (0, 1), boundary="absorbing", save=100, rtol=1e-7)
    assert l1(few.p[0], many.p[37], grid) < 1e-7
    assert l1(few.p[1], many.p[100], grid) < 1e-7
    np.testing.assert_allclose(many.mass + many.absorbed.sum(axis=1), 1.0, atol=1e-12)
    assert (np.diff(many.absorbed, axis=0) > -1e-14).all()


def test_a_jump_and_a_short_pulse_are_seen():
    jump = sde.ito(lambda x, t: 0.0 * x, lambda x, t: np.where(t < 0.4142, 0.5, 1.0))
    grid = sde.Grid(-6.0, 6.0, 300)
    rho = sde.evolve_density(jump, lambda g: sde.gaussian(g, 0.0, 0.3), grid, (0, 1), rtol=1e-5, richardson=True)
    variance = 0.09 + 0.25 * 0.4142 + 0.5858
    assert l1(rho.final, sde.gaussian(grid, 0.0, math.sqrt(variance)), grid) < 1e-4
    pulse = sde.ito(lambda x, t: 0.0 * x, lambda x, t: np.sqrt(0.25 + 20.0 * np.exp(-0.5 * ((t - 0.613) / 0.01) ** 2)))
    rho = sde.evolve_density(pulse, lambda g: sde.gaussian(g, 0.0, 0.3), grid, (0, 1), rtol=1e-5, richardson=True)
    variance = 0.09 + 0.25 + 20.0 * 0.01 * math.sqrt(2 * math.pi)
    assert l1(rho.final, sde.gaussian(grid, 0.0, math.sqrt(variance)), grid) < 1e-4


def test_drift_that_outweighs_diffusion_cuts_steps_or_is_stepped_instead(monkeypatch):
    process = sde.ito(lambda x, t: 2.0 + np.sin(t), lambda x, t: 0.05)
    grid = sde.Grid(-1.0, 8.0, 1200)
    p0 = sde.gaussian(grid, 0.0, 0.1)
    found = {}
    for longest, method in ((2e-3, "magnus"), (0.04, "tr_bdf2")):
        monkeypatch.setattr(evolution, "SHORTEST_PART", longest)
        with pytest.warns(UserWarning, match="strong against the diffusion"):
            found[method] = sde.evolve_density(process, p0, grid, (0, 2), rtol=1e-5)
        assert found[method].method == method
        assert found[method].mean[-1] == pytest.approx(4.0 + 1.0 - math.cos(2.0), abs=2e-3)
    assert found["magnus"].n_rejected > 0
    assert l1(found["magnus"].final, found["tr_bdf2"].final, grid) < 1e-3
    steep = sde.ito(lambda x, t: 200.0 + t, lambda x, t: 1e-3)
    fine = sde.Grid(0.0, 1.0, 3000)
    with pytest.raises(RuntimeError, match="use method='tr_bdf2'"):
        magnus.magnus(
            line_coefficients(steep, fine, "absorbing"), np.full(3000, 1 / 3000), 0.0, [1.0], 1e-6, least=1e-3
        )


def test_what_it_does_not_do_is_said():
    grid = sde.Grid(-1.0, 1.0, 40)
    with pytest.raises(ValueError, match="a current may run round a circle"):
        sde.evolve_density(BENT, np.full(40, 0.5), grid, (0, 1), boundary="periodic", method="magnus")
    assert sde.evolve_density(BENT, np.full(40, 0.5), grid, (0, 0.1), boundary="periodic").method == "tr_bdf2"
    # a noise that all but vanishes within a step makes mixtures that are no generators
    flicker = sde.ito(lambda x, t: 0.0, lambda x, t: 1e-3 + np.sin(6.0 * t) ** 2)
    with pytest.raises(RuntimeError, match="is too long; take more steps"):
        sde.evolve_density(flicker, np.full(40, 0.5), grid, (0, 2), method="magnus", n_steps=4, boundary="reflecting")
