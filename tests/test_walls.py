"""Walls for paths: the laws of the reflected, absorbed and periodic path, and the density solver's on the same grid."""

import math

import numpy as np
import pytest

import sdesim as sde

N = 40_000
DRIFTED = sde.ito(lambda x, t: 0.4, lambda x, t: 0.8)
BOX = sde.Grid(-1.0, 1.0, 200)


def final(boundary, process=DRIFTED, x0=0.3, end=1.0, n=N, n_steps=64, lower=-1.0, upper=1.0, seed=5, **more):
    walls = sde.Walls(lower, upper, boundary)
    return sde.simulate(process, x0, (0.0, end), n_steps=n_steps, n_paths=n, boundary=walls, seed=seed, **more).final


def chi_square(x, density, bins=10):
    """Of the states inside against cell averages on BOX, over the cells' number: about 1, 3 is beyond chance."""
    counts = np.histogram(x[(x >= -1) & (x < 1)], bins, (-1, 1))[0]
    expected = density.reshape(bins, -1).sum(1) * BOX.spacing * len(x)
    return ((counts - expected) ** 2 / expected).sum() / bins


# ---- laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing", "periodic", ("reflecting", "absorbing")])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_paths_and_density_agree_behind_the_same_walls(boundary, dtype):
    x = final(boundary, n_steps=256, dtype=dtype)
    rho = sde.evolve_density(DRIFTED, sde.point_mass(BOX, 0.3), BOX, (0.0, 1.0), boundary=boundary)
    assert chi_square(x, rho.final) < 3
    low, high = rho.absorbed[-1]
    for share, expected in (((x < -1).mean(), low), ((x >= 1).mean(), high)):
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / N)
    # and the paths without walls have another density
    assert chi_square(sde.simulate(DRIFTED, 0.3, (0, 1), n_steps=256, n_paths=N, seed=5).final, rho.final) > 20


@pytest.mark.parametrize("n_steps", [1, 3])
def test_folding_and_wrapping_are_exact_for_a_wiener_process_at_any_step(n_steps):
    # images: the folded Gaussian is the law of the reflected path, the wrapped one that of the path on a circle
    for boundary, end in (("reflecting", 0.3), ("periodic", 0.3), ("reflecting", 40.0), ("periodic", 40.0)):
        process = sde.Wiener(1.0)
        x = final(boundary, process, end=end, n_steps=n_steps)
        rho = sde.evolve_density(process, sde.point_mass(BOX, 0.3), BOX, (0.0, end), boundary=boundary)
        assert chi_square(x, rho.final) < 3
        assert x.min() >= -1.0
        assert x.max() < 1.0


@pytest.mark.parametrize("boundary", ["absorbing", ("absorbing", "reflecting"), ("reflecting", "absorbing")])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_absorption_is_exact_for_a_wiener_process_at_any_step(boundary, n_steps):
    process = sde.Wiener(1.0)
    x = final(boundary, process, end=2.0, n_steps=n_steps)
    rho = sde.evolve_density(process, sde.point_mass(BOX, 0.3), BOX, (0.0, 2.0), boundary=boundary)
    assert chi_square(x, rho.final) < 3
    for share, expected in zip(((x < -1).mean(), (x >= 1).mean()), rho.absorbed[-1], strict=True):
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / N)


def test_one_wall_each():
    # reflected at 0: |W|; absorbed at 0: survives t with probability erf(x/√(2t))
    x = final("reflecting", sde.Wiener(1.0), x0=0.5, n_steps=3, lower=0.0, upper=None)
    assert x.min() >= 0
    free = sde.simulate(sde.Wiener(1.0), 0.5, (0, 1), n_steps=1, n_paths=N, seed=6).final
    edges = np.linspace(0, 2.5, 11)
    a, b = np.histogram(x, edges)[0], np.histogram(abs(free), edges)[0]
    assert ((a - b) ** 2 / (a + b)).sum() / 10 < 3
    for low, high, start in ((0.0, None, 0.5), (None, 0.0, -0.5)):
        x = final("absorbing", sde.Wiener(1.0), x0=start, n_steps=2, lower=low, upper=high)
        alive = math.erf(0.5 / math.sqrt(2.0))
        assert abs((abs(x) > 1e-9).mean() - alive) < 4 * math.sqrt(alive * (1 - alive) / N)


def test_reflection_has_a_bias_of_first_order_with_drift():
    # stationary law of drift −1 above a wall at 0: exponential, mean σ²/2
    process = sde.ito(lambda x, t: -1.0, lambda x, t: 1.0)
    means = [final("reflecting", process, x0=0.5, end=12.0, n_steps=n, n=60_000, lower=0.0, upper=None).mean()
             for n in (48, 96)]  # fmt: skip
    bias = [mean - 0.5 for mean in means]
    assert abs(bias[1]) < 0.08
    assert 1.5 < bias[0] / bias[1] < 2.7


# ---- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_states_inside_are_inside_in_their_own_dtype(dtype):
    # walls that neither dtype can hold, 0.1 rounded up and 0.7 rounded down in float32; the second box is so narrow
    # that every number in it is met
    for low, high in ((0.1, 0.7), (0.7, 0.7 + 20 * float(np.spacing(dtype(0.7)))), (0.7, 1.1)):
        for boundary in ("reflecting", "periodic"):
            middle = float(dtype(0.5 * (low + high)))
            x = final(boundary, sde.Wiener(3.0), x0=middle, lower=low, upper=high, n_steps=4, dtype=dtype, n=5000)
            assert x.dtype == dtype
            assert x.astype(float).min() >= low
            assert x.astype(float).max() < high


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_absorbed_path_stays_just_outside_for_ever(dtype):
    walls = sde.Walls(0.1, 0.7, "absorbing")
    spec = {"n_steps": 30, "n_paths": 2000, "boundary": walls, "seed": 1, "dtype": dtype, "save": "all"}
    x = sde.simulate(sde.Wiener(1.0), 0.4, (0.0, 0.2), **spec).x
    low, high = (np.nextafter(dtype(w), dtype(s * np.inf)) for w, s in ((0.1, -1), (0.7, 1)))
    out = (x < 0.1) | (x >= 0.7)
    assert out.any()
    assert set(x[out].tolist()) == {float(low), float(high)}
    assert (np.diff(out.astype(int), axis=1) >= 0).all()
    assert (x[:, 1:][out[:, :-1]] == x[:, :-1][out[:, :-1]]).all()
    with pytest.warns(UserWarning, match="9.% of the paths and more lie in no bin"):
        counted = sde.simulate(
            sde.Wiener(1.0), 0.4, (0.0, 0.2), **{**spec, "save": "final"}, reduce=[sde.Histogram(0.1, 0.7, 7)]
        ).reductions[0]
    assert counted.outside[-1] == out[:, -1].sum()


def test_a_path_is_absorbed_when_and_where_it_passes():
    passage = sde.FirstPassage(-1.0, 1.0, keep=True)
    spec = {"n_steps": 3, "n_paths": 3000, "seed": 4}
    passed = sde.simulate(DRIFTED, 0.3, (0, 1), **spec, reduce=[passage]).reductions[0]
    x = sde.simulate(DRIFTED, 0.3, (0, 1), **spec, boundary=sde.Walls(-1.0, 1.0, "absorbing")).final
    assert np.array_equal(np.where(x < -1, -1, np.where(x >= 1, 1, 0)), passed.sides)


def test_walls_for_several_components():
    process = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    walls = sde.Walls([0.0, None], [1.0, 2.0], [("reflecting", "reflecting"), ("absorbing", "absorbing")])
    x = sde.simulate(process, (0.5, 1.0), (0, 1), n_steps=16, n_paths=N, boundary=walls, seed=2).final
    assert x[:, 0].min() >= 0
    assert x[:, 0].max() < 1
    gone = x[:, 1] > 2
    assert len(set(x[gone, 1].tolist())) == 1
    alive = math.erf(1.0 / math.sqrt(2.0))
    assert abs(1 - gone.mean() - alive) < 4 * math.sqrt(alive * (1 - alive) / N)
    assert abs(x[:, 0].mean() - 0.5) < 4 * math.sqrt(1 / 12 / N)
    second = sde.Walls(None, 2.0, "absorbing", component=1)
    assert (second.components, second.absorbing) == ((1,), ((1, -math.inf, 2.0),))
    held = sde.simulate(process, (0.5, 1.0), (0, 1), n_steps=4, n_paths=500, boundary=second, seed=2, save="all").x
    out = held[:, :, 1] > 2
    assert (held[:, 1:][out[:, :-1]] == held[:, :-1][out[:, :-1]]).all()  # the whole state is held


def test_absorption_in_a_corner_takes_the_wall_that_is_met_first():
    process = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: (1.0, 1.0), dim=2)
    walls = sde.Walls([None, None], [1.0, 1.0], "absorbing")
    x = sde.simulate(process, (0.0, 0.0), (0, 50.0), n_steps=1, n_paths=10_000, boundary=walls, seed=2).final
    first, second = x[:, 0] > 1, x[:, 1] > 1
    assert not (first & second).any()
    assert abs(first.mean() - second.mean()) < 4 * math.sqrt(1 / 10_000)
    alive = math.erf(0.1) ** 2
    assert abs(1 - (first | second).mean() - alive) < 4 * math.sqrt(alive / 10_000)


def test_general_noise_has_the_sum_of_its_squares():
    process = sde.ito(lambda x, t: (0.0, 0.0), lambda x, t: ((0.6, 0.8), (0.0, 1.0)), dim=2, noise="general")
    walls = sde.Walls(None, 1.0, "absorbing")
    x = sde.simulate(process, (0.0, 0.0), (0, 1.0), n_steps=2, n_paths=N, boundary=walls, seed=2).final
    gone = math.erfc(1 / math.sqrt(2))
    assert abs((x[:, 0] > 1).mean() - gone) < 4 * math.sqrt(gone * (1 - gone) / N)


def test_halves_and_engines_agree():
    walls = sde.Walls(-1.0, 1.0, ("reflecting", "absorbing"))
    spec = {"n_steps": 10, "boundary": walls, "seed": 9}
    whole = sde.simulate(DRIFTED, 0.3, (0, 1), n_paths=700, **spec).final
    parts = [sde.simulate(DRIFTED, 0.3, (0, 1), n_paths=350, first_path=f, **spec).final for f in (0, 350)]
    assert np.array_equal(np.concatenate(parts), whole)

    def drift(x, t):
        return 0.4 + 0.0 * x

    def diffusion(x, t):
        return 0.8 + 0.0 * x

    batch = sde.simulate(sde.ito(drift, diffusion, compiled=False), 0.3, (0, 1), n_paths=700, **spec).final
    np.testing.assert_allclose(batch, whole, atol=1e-12)


# ---- what may go wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "needs a wall"),
        ((1.0, 0.0), "must be < upper"),
        ((0.0, 1.0, "sticky"), "boundary must be one of"),
        ((0.0, None, "periodic"), "both lower and upper"),
        ((0.0, 1.0, ("periodic", "absorbing")), "periodic at both"),
        (([0.0, 1.0], [2.0, 3.0, 4.0]), "entries"),
        (([0.0, 1.0], [2.0, 3.0], [("reflecting", "absorbing")]), "boundary has 1 entries"),
        (([0.0, 1.0], [2.0, 3.0], "reflecting", (1, 1)), "twice"),
        ((0.0, 1.0, "reflecting", -1), "component"),
    ],
)
def test_what_cannot_be_is_said(arguments, text):
    with pytest.raises(ValueError, match=text):
        sde.Walls(*arguments)


def test_starts_outside_and_components_that_do_not_fit():
    with pytest.raises(ValueError, match=r"x0 is outside of the walls: 2 at path 1 is not in \[-1, 1\]"):
        sde.simulate(DRIFTED, [0.0, 2.0], (0, 1), n_steps=2, boundary=sde.Walls(-1, 1))
    with pytest.raises(ValueError, match="component 1, but the state has 1"):
        sde.simulate(DRIFTED, 0.0, (0, 1), n_steps=2, n_paths=2, boundary=sde.Walls(-1, 1, component=1))
    sde.Walls(0.1, 1.0).check(1, np.array([[0.1], [1.0]], np.float32))
    assert "reflecting" in repr(sde.Walls(0.0, 1.0))


def box(*arguments):
    return sde.Walls(*arguments)


def passing(walls, passage, process=None, x0=0.5, **settings):
    process = sde.Wiener() if process is None else process
    n_paths = None if np.ndim(x0) > 1 else 300
    return sde.simulate(
        process, x0, (0.0, 1.0), n_steps=8, n_paths=n_paths, seed=1, boundary=walls, reduce=passage, **settings
    )


@pytest.mark.parametrize(
    ("walls", "passage", "message"),
    [
        (box(0.0, 1.0, "absorbing"), sde.FirstPassage(-0.1, 1.1), "beyond the walls"),
        (box(0.0, 1.0, "reflecting"), sde.FirstPassage(None, 1.5), "beyond the walls"),
        (box(0.0, 1.0, "periodic"), sde.FirstPassage(0.1, None), "periodic seam"),
        (box(0.0, 1.0, "absorbing"), sde.FirstPassage(of=lambda x: abs(x) < 2.0), "before a wall acts"),
    ],
)
def test_a_passage_that_cannot_be_told_beside_walls_is_refused(walls, passage, message):
    with pytest.raises(ValueError, match=message):
        passing(walls, [passage])


def test_a_passage_beside_an_absorbing_wall_of_another_component_is_refused():
    pair = sde.ito(lambda x, t: (0.0 * x[0], 0.0 * x[1]), lambda x, t: (1.0, 1.0), dim=2)
    with pytest.raises(ValueError, match="of component 0 beside an absorbing wall of component 1"):
        passing(box(-0.3, 0.3, "absorbing", 1), [sde.FirstPassage(-1.0, 1.0)], pair, (0.0, 0.0))


def test_passing_is_being_absorbed_where_levels_are_walls():
    found = passing(box(0.0, 1.0, "absorbing"), [sde.FirstPassage(0.0, 1.0)])
    held = ~((found.final >= 0.0) & (found.final < 1.0))
    assert found.reductions[0].n_passed.sum() == held.sum() > 100


def test_a_mirror_for_a_component_without_noise_is_refused():
    process = sde.UnderdampedLangevin(sde.targets.Gaussian([0.0], [[1.0]]))
    with pytest.raises(ValueError, match="no noise in it"):
        passing(box(0.0, None), [], process, (0.8, 0.0), method="baoab")


def test_a_target_that_reaches_beyond_the_walls_is_refused():
    with pytest.raises(ValueError, match="outside of the walls"):
        passing(box(0.0, 1.0, "absorbing"), [], x0=sde.targets.Gaussian(0.5, 1.0))


def test_proposals_and_walls_do_not_go_together():
    with pytest.raises(ValueError, match="makes proposals"):
        passing(box(0.0, None), [], sde.Langevin(sde.targets.Gaussian(0.0, 1.0)), method="mala")
