"""Implicit schemes: the equation is solved in any unit, and a path is the same in any company."""

import numpy as np
import pytest

import sdesim as sde

pytestmark = pytest.mark.slow

EPSILON = {np.float64: 1e-12, np.float32: 1e-5}


def cubic(size):
    """dX = −10 X − 10 X³/s² dt + 0.1 s dW: the same equation for X/s whatever the unit s is."""
    return sde.ito(lambda x, t, a, b: -10.0 * x - a * x * x * x, lambda x, t, a, b: b, a=10.0 / size**2, b=0.1 * size)


@pytest.mark.parametrize("dtype", EPSILON)
def test_the_unit_of_the_state_does_not_matter(dtype):
    def run(size):
        paths = sde.simulate(
            cubic(size), size, (0.0, 1.0), n_steps=10, n_paths=200, method="implicit_euler", seed=1, dtype=dtype
        )
        return paths.final.astype(float) / size

    one = run(1.0)
    assert 0.01 < one.std() < 0.03
    for size in (1e-8, 1e-4, 1e3, 1e6):
        assert abs(run(size) - one).max() < EPSILON[dtype]


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("dim", [None, 2])
def test_a_path_is_the_same_in_any_company(dtype, dim):
    if dim is None:
        process = sde.ito(lambda x, t: -50.0 * x * x * x + 3.0 * x, lambda x, t: 0.5 + 0.3 * x)
        x0 = np.linspace(-3.0, 3.0, 600)
    else:
        process = sde.ito(
            lambda x, t: (x[1], -30.0 * (x[0] * x[0] - 1.0) * x[1] - x[0]), lambda x, t: (0.0, 0.2), dim=2
        )
        x0 = np.stack([np.linspace(-2.0, 2.0, 600), np.linspace(1.0, -1.0, 600)], axis=1)
    settings = dict(n_steps=100, method="implicit_trapezoid", seed=5, dtype=dtype)
    whole = sde.simulate(process, x0, (0.0, 1.0), **settings).final
    parts = [
        sde.simulate(process, x0[a:b], (0.0, 1.0), first_path=a, **settings).final for a, b in ((0, 130), (130, 600))
    ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_an_equation_without_a_solution_is_said_to_be_unsolved():
    # y = x + ½ (4 + y²) has no real solution
    process = sde.ito(lambda x, t: 4.0 + x * x, lambda x, t: 0.1)
    with pytest.raises(sde.errors.NonFiniteError, match="did not solve"):
        sde.simulate(process, 0.0, (0.0, 1.0), n_steps=2, n_paths=3, method="implicit_euler", seed=1)
