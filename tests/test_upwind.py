"""Third-order upwind fluxes along axes without diffusion: orders, walls, balance."""

import numpy as np
import pytest

from sdesim.fokker_planck.boundary import Robin
from sdesim.fokker_planck.box import Axis
from sdesim.fokker_planck.cells import cell_averages
from sdesim.fokker_planck.grid import Grid
from sdesim.fokker_planck.upwind import flows, upwind


def axis(velocity, sides):
    return Axis(None, None, None, velocity, sides, np.zeros(2))


def slope(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def vanishing(x):
    """A density that is 0 at both walls of [0, 1]."""
    return np.sin(np.pi * x) * np.exp(x)


def smooth(x):
    return np.exp(np.sin(3.0 * x))


# v from left to right, to the left, and out at both ends; the density is 0 where the flow enters
OPEN_FLOWS = {
    "up": (lambda x: 1.0 + 0.5 * x, lambda x: x * np.exp(x)),
    "down": (lambda x: -1.0 - 0.5 * x, lambda x: (1.0 - x) * np.exp(x)),
    "apart": (lambda x: x - 0.4, smooth),
    "together": (lambda x: 0.4 - x, vanishing),
}


def flux_errors(n, velocity, density, sides, graded=False):
    grid = Grid(0.0, 1.0, n)
    if graded:
        ksi = np.linspace(0.0, 1.0, n + 1)
        grid = Grid.from_edges(ksi + 0.08 * np.sin(2 * np.pi * ksi))
    v = velocity(grid.edges)
    return flows(axis(v, sides), grid, 0) @ (cell_averages(grid, density) * grid.spacing) - v * density(grid.edges)


@pytest.mark.parametrize("name", OPEN_FLOWS)
@pytest.mark.parametrize(("graded", "order"), [(False, 3), (True, 2)])
def test_fluxes_between_open_walls_have_their_order(name, graded, order):
    sizes = (80, 160, 320)
    errors = [np.abs(flux_errors(n, *OPEN_FLOWS[name], ("absorbing",) * 2, graded)).max() for n in sizes]
    assert slope(sizes, errors) > order - 0.15


def test_fluxes_on_a_circle_are_of_third_order_at_every_face():
    sizes = (40, 80, 160)
    wave = (lambda x: np.sin(2 * np.pi * x), lambda x: np.exp(np.sin(2 * np.pi * x)))
    errors = [np.abs(flux_errors(n, *wave, ("periodic",) * 2)).max() for n in sizes]
    assert 2.85 < slope(sizes, errors) < 3.3


def test_beside_closed_walls_fluxes_are_of_second_order():
    sizes, errors = (40, 80, 160), []
    for n in sizes:
        errors.append(
            np.abs(flux_errors(n, lambda x: np.sin(np.pi * x) + 0.2, smooth, ("reflecting",) * 2)[1:-1]).max()
        )
    assert slope(sizes, errors) > 1.85


@pytest.mark.parametrize("name", ["up", "down"])
def test_a_steady_flow_with_decay_is_solved_with_third_order(name):
    """(v p)' + p = s between open walls."""
    velocity, density = OPEN_FLOWS[name]
    sizes, errors = (40, 80, 160), []
    for n in sizes:
        grid = Grid(0.0, 1.0, n)
        v, exact = velocity(grid.edges), cell_averages(grid, density)
        source = np.diff(v * density(grid.edges)) + exact * grid.spacing
        found = np.linalg.solve(np.eye(n) - upwind(axis(v, ("absorbing",) * 2), grid, 0).toarray(), source)
        errors.append(np.abs(found - exact * grid.spacing).sum())
    assert 2.8 < slope(sizes, errors) < 3.5


SIDES = [
    ("absorbing",) * 2,
    ("reflecting",) * 2,
    ("periodic",) * 2,
    ("reflecting", "absorbing"),
    (Robin(1.0), "reflecting"),
]


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_what_cells_lose_passes_the_walls(sides, k):
    rng = np.random.default_rng(5)
    grid = Grid((0, 0, 0), (1, 2, 3), (5, 6, 7))
    shape = tuple(n + (j == k) for j, n in enumerate(grid.shape))
    velocity = rng.normal(size=shape)
    if sides[0] == "periodic":
        np.moveaxis(velocity, k, 0)[-1] = np.moveaxis(velocity, k, 0)[0]
    one = axis(velocity, sides)
    m = rng.random(grid.shape)
    through = np.moveaxis((flows(one, grid, k) @ m.ravel()).reshape(shape), k, 0)
    change = (upwind(one, grid, k) @ m.ravel()).reshape(grid.shape).sum(axis=k)
    np.testing.assert_allclose(change, through[0] - through[-1], atol=1e-12)
    speed = np.moveaxis(velocity, k, 0)
    if sides[0] == "periodic":
        np.testing.assert_array_equal(through[0], through[-1])
    else:
        assert not through[0][speed[0] > 0].any()  # nothing enters
        assert not through[-1][speed[-1] < 0].any()
    for end, wall in zip((0, -1), sides, strict=True):
        if wall == "reflecting":
            assert not through[end].any()
        elif wall != "periodic":
            assert through[end].any()
