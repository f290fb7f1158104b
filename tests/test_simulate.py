"""simulate: the same bits in any company, and the paths that a hand-written loop gives."""

import concurrent.futures
import dataclasses
import re
import warnings

import numpy as np
import pytest

import sdesim as sde
from sdesim import preparation
from sdesim.core import blocks, stream
from sdesim.errors import MemoryLimitError, NonFiniteError


@dataclasses.dataclass(frozen=True)
class Driven(sde.Process):
    """Every coefficient depends on x and t, so that a wrong time or point shows in every scheme."""

    theta: float = 0.8
    sigma: float = 0.4

    def drift(self, x, t):
        return np.cos(3.0 * t) - self.theta * x

    def diffusion(self, x, t):
        return self.sigma * (1.0 + 0.5 * np.sin(5.0 * t)) * np.sqrt(1.0 + x * x)

    def diffusion_dx(self, x, t):
        return self.sigma * (1.0 + 0.5 * np.sin(5.0 * t)) * x / np.sqrt(1.0 + x * x)

    def transition(self, x, t, dt, z):  # no law of this process: a formula that knows the time and the step
        return x * (1.0 - dt) + np.sin(4.0 * t) * dt + (1.0 + t) * np.sqrt(dt) * z


class Pushed(Driven):
    """Additive noise whose strength knows the time."""

    def diffusion(self, x, t):
        return self.sigma * (1.0 + 0.5 * np.sin(5.0 * t))


class DrivenWithoutDerivative(Driven):
    diffusion_dx = None


class DrivenStratonovich(Driven):
    calculus = "stratonovich"


@dataclasses.dataclass(frozen=True)
class Coupled(sde.Process):
    """Two components, three Wiener processes, all coefficients dependent on x and t."""

    kappa: float = 0.7
    dim = 2
    noise = "general"
    calculus = "stratonovich"

    def drift(self, x, t):
        q, p = x
        return p * np.cos(t), -self.kappa * q - p

    def diffusion(self, x, t):
        q, p = x
        return (0.3 + 0.1 * t, 0.2 * q, 0.1), (0.2 * p, 0.1, 0.3 * np.cos(2.0 * t))


class CoupledIto(Coupled):
    calculus = "ito"


@dataclasses.dataclass(frozen=True)
class Pair(sde.Process):
    """Two components with diagonal noise, each of its own strength."""

    omega: float = 1.3
    dim = 2

    def drift(self, x, t):
        q, p = x
        return self.omega * p, -self.omega * q - t * p

    def diffusion(self, x, t):
        q, p = x
        return 0.2 + 0.1 * p, 0.3 * q

    def diffusion_dx(self, x, t):
        return 0.0, 0.0


class OwnPair(Pair):
    """Each component of the noise reads its own component of the state, as schemes for diagonal noise need it."""

    def diffusion(self, x, t):
        q, p = x
        return 0.2 + 0.1 * q, 0.3 * p

    def diffusion_dx(self, x, t):
        return 0.1, 0.3


def in_batches(process):
    """The same process in whole-array steps."""
    kind = type(process)
    return type(f"Batch{kind.__name__}", (kind,), {"batch_only": True})(**process.fields())


ROUTES = [
    ("euler_maruyama", Driven()),
    ("milstein", Driven()),
    ("milstein", DrivenWithoutDerivative()),
    ("heun", DrivenStratonovich()),
    ("heun", Driven()),
    ("exact", Driven()),
]


def by_hand(method, process, x, t0, dt, increments):
    """The textbook step of each scheme in NumPy, apart from the library's stages; x after every step."""
    out = [x]
    root = np.sqrt(dt)
    for s in range(increments.shape[1]):
        w, t = increments[:, s], t0 + s * dt
        a, b = process.drift(x, t), process.diffusion(x, t)
        if method == "euler_maruyama":
            x = x + a * dt + b * w
        elif method == "milstein" and process.diffusion_dx is not None:
            x = x + a * dt + b * w + 0.5 * b * process.diffusion_dx(x, t) * (w**2 - dt)
        elif method == "milstein":
            support = process.diffusion(x + a * dt + b * root, t)
            x = x + a * dt + b * w + (support - b) * (w**2 - dt) / (2.0 * root)
        elif method == "heun":

            def drift(y, s):
                taken = 0.5 * process.diffusion(y, s) * process.diffusion_dx(y, s)
                return process.drift(y, s) - (taken if process.calculus == "ito" else 0.0)

            a = drift(x, t)
            y = x + a * dt + b * w
            x = x + 0.5 * (a + drift(y, t + dt)) * dt + 0.5 * (b + process.diffusion(y, t + dt)) * w
        else:
            x = process.transition(x, t, dt, w / root)
        out.append(x)
    return np.stack(out, axis=1)


def wiener_increments(seed, n_paths, n_steps, dt, m=1, *, first_path=0, dtype=np.float64):
    """√dt times the stream's normals, as (paths, steps[, m]) in the state's dtype."""
    z = stream.normals(seed, stream.WIENER, n_paths, m, n_steps, first_path=first_path, dtype=dtype)
    w = (np.dtype(dtype).type(np.sqrt(dt)) * z).transpose(0, 2, 1)
    return w[:, :, 0] if m == 1 else w


# ---- the right paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "process"), ROUTES, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_each_scheme_is_the_textbook_step(method, process):
    n, n_steps, t_span = 300, 21, (0.4, 1.9)
    dt = 1.5 / n_steps
    x0 = np.linspace(-2.0, 2.0, n)
    paths = sde.simulate(process, x0, t_span, n_steps=n_steps, method=method, save="all", seed=3)
    w = wiener_increments(3, n, n_steps, dt)
    expected = by_hand(method, process, x0, 0.4, dt, w)
    assert paths.x.shape == (n, n_steps + 1)
    np.testing.assert_allclose(paths.x, expected, rtol=1e-12, atol=1e-12)
    # a step that reads the time of the next one is far away
    late = by_hand(method, process, x0, 0.4 + dt, dt, w)
    assert abs(late - expected).max() > 1e-3


@pytest.mark.parametrize("method", ["euler_maruyama", "heun"])
@pytest.mark.parametrize("process", [Coupled(), CoupledIto()], ids=["stratonovich", "ito"])
def test_general_noise_is_the_textbook_step(method, process):
    n, n_steps, dt = 270, 12, 0.05
    x0 = np.column_stack([np.linspace(-1, 1, n), np.linspace(2, -1, n)])
    paths = sde.simulate(process, x0, (0.2, 0.2 + n_steps * dt), n_steps=n_steps, method=method, save="all", seed=9)
    increments = wiener_increments(9, n, n_steps, dt, 3)

    def noise(x, t):
        return np.array([[np.broadcast_to(v, n) for v in row] for row in process.diffusion(tuple(x), t)])

    def correction(x, t):  # ½ Σₖ (σₖ·∇)σₖ by hand
        q, p = x
        return 0.5 * np.array([0.2 * (0.2 * q), 0.2 * (0.2 * p)]) + 0.0 * t

    sign = {"ito": {"heun": -1.0}, "stratonovich": {"euler_maruyama": 1.0}}[process.calculus].get(method, 0.0)

    def drift(x, t):
        return np.array(process.drift(tuple(x), t)) + sign * correction(x, t)

    x = x0.T
    for s in range(n_steps):
        t, w = 0.2 + s * dt, increments[:, s].T
        step = drift(x, t) * dt + np.einsum("ijn,jn->in", noise(x, t), w)
        if method == "heun":
            y = x + step
            later = drift(y, t + dt) * dt + np.einsum("ijn,jn->in", noise(y, t + dt), w)
            step = 0.5 * (step + later)
        x = x + step
    # the correction is a central difference of linear functions in the library: exact up to its rounding
    np.testing.assert_allclose(paths.final, x.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "process"),
    [(m, p) for m, p in ROUTES if m != "exact"]
    + [("euler_maruyama", Coupled()), ("heun", Coupled()), ("heun", CoupledIto())]
    + [("euler_maruyama", Pair()), ("milstein", OwnPair()), ("heun", Pair())]
    + [("sra", Pushed()), ("sri", OwnPair()), ("tamed_euler", Pair())],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_both_engines_give_the_same_paths(method, process):
    x0 = 0.7 if process.dim is None else (0.7, -0.3)
    settings = dict(n_steps=13, n_paths=400, method=method, save=5, seed=4, first_path=100)
    tiles = sde.simulate(process, x0, (0.1, 1.4), **settings)
    batch = sde.simulate(in_batches(process), x0, (0.1, 1.4), **settings)
    assert np.array_equal(tiles.t, batch.t)
    np.testing.assert_allclose(tiles.x, batch.x, rtol=1e-9, atol=1e-9)
    assert np.ptp(tiles.final) > 0.1


def test_both_engines_accept_and_reject_the_same_proposals():
    target = sde.targets.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.5, 1.0]], [0.3 * np.eye(2), 0.5 * np.eye(2)])
    compiled, whole = sde.Langevin(target), sde.Langevin(target)
    object.__setattr__(whole, "batch_only", True)
    settings = dict(n_steps=31, n_paths=300, method="mala", seed=4, first_path=100)
    a, b = (sde.simulate(process, (0.3, 0.0), (0, 12), **settings) for process in (compiled, whole))
    np.testing.assert_allclose(a.final, b.final, rtol=1e-9, atol=1e-12)
    assert np.array_equal(a.steps_rejected, b.steps_rejected)
    assert (a.steps_taken + a.steps_rejected == 31).all()
    assert 5 < a.steps_rejected.mean() < 15


def test_the_exact_method_needs_a_formula():
    with pytest.raises(ValueError, match="exact"):
        sde.simulate(in_batches(Driven()), 0.0, (0, 1), n_steps=2, n_paths=2, method="exact")


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ("exact", lambda theta, t, n: np.exp(-theta * t)),
        ("euler_maruyama", lambda theta, t, n: (1 - theta * t / n) ** n),
    ],
)
def test_two_solutions_on_one_path_approach_each_other(method, rate):
    theta, n_steps, t = 1.7, 40, 2.0
    process = sde.OrnsteinUhlenbeck(theta, 0.3, 0.9)
    a, b = (
        sde.simulate(process, x0, (0, t), n_steps=n_steps, n_paths=300, method=method, seed=8, save="all").x
        for x0 in (2.0, -1.0)
    )
    steps = np.arange(n_steps + 1)
    expected = np.array([rate(theta, k * t / n_steps, k) if k else 1.0 for k in steps])
    np.testing.assert_allclose((a - b) / 3.0, np.broadcast_to(expected, a.shape), rtol=1e-13, atol=1e-14)


def test_a_stratonovich_tile_of_float32_follows_float64():
    settings = dict(n_steps=30, n_paths=300, method="euler_maruyama", seed=5)
    w = wiener_increments(5, 300, 30, 1 / 30)
    double = sde.simulate(Driven(), 0.5, (0, 1), increments=w, **settings)
    single = sde.simulate(Driven(), 0.5, (0, 1), increments=w, dtype=np.float32, **settings)
    assert single.final.dtype == np.float32
    error = abs(single.final - double.final).max()
    assert 0 < error < 2e-5


# ---- the same bits in any company ------------------------------------------------------------------------


def bits(paths):
    return paths.x.tobytes() + paths.final.tobytes()


COMPANY = [
    (Driven(), 0.5, "euler_maruyama", np.float64),
    (Driven(), 0.5, "euler_maruyama", np.float32),
    (Driven(), 0.5, "milstein", np.float64),
    (Coupled(), (0.3, 0.1), "heun", np.float64),
    (in_batches(Driven()), 0.5, "euler_maruyama", np.float64),
    (sde.OrnsteinUhlenbeck(), sde.targets.Gaussian(0.5, 2.0), "exact", np.float64),
]


@pytest.mark.parametrize(("process", "x0", "method", "dtype"), COMPANY)
@pytest.mark.parametrize("save", ["final", 3])
def test_any_workers_blocks_halves_and_executors(process, x0, method, dtype, save, monkeypatch):
    n = 2307

    def run(n_paths=n, **settings):
        return sde.simulate(
            process,
            x0,
            (0, 1),
            n_steps=7,
            n_paths=n_paths,
            method=method,
            dtype=dtype,
            seed=11,
            save=save,
            **settings,
        )

    one = run(workers=1)
    assert one.final.dtype == dtype
    assert len(np.unique(one.final.reshape(n, -1)[:, 0])) > (n - 3 if dtype == np.float64 else n - 60)
    for workers in (2, 3):
        assert bits(run(workers=workers)) == bits(one)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert bits(run(executor=pool)) == bits(one)
    cut = blocks.cut
    for size in (256, 512, 4096):
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "cut", lambda first, count, _, size=size: cut(first, count, size))
            assert bits(run()) == bits(one)
    for split in (1, 255, 1000, 2306):
        left, right = run(split), run(n - split, first_path=split)
        assert np.concatenate([left.x, right.x]).tobytes() == one.x.tobytes()
        assert np.concatenate([left.final, right.final]).tobytes() == one.final.tobytes()


@pytest.mark.parametrize("first_path", [0, 300, 2**32 - 100, 2**60 + 7])
def test_a_path_is_a_function_of_its_number(first_path):
    """One path alone equals the same path among 600, also where the number needs both words."""
    company = sde.simulate(Driven(), 0.5, (0, 1), n_steps=5, n_paths=600, seed=2, first_path=first_path)
    for k in (0, 1, 255, 256, 599):
        alone = sde.simulate(Driven(), 0.5, (0, 1), n_steps=5, n_paths=1, seed=2, first_path=first_path + k)
        assert alone.final[0] == company.final[k]
    w = wiener_increments(2, 600, 5, 0.2, first_path=first_path)
    by_numbers = by_hand("euler_maruyama", Driven(), np.full(600, 0.5), 0.0, 0.2, w)
    np.testing.assert_allclose(company.final, by_numbers[:, -1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_increments_reproduce_the_stream(dtype):
    w = wiener_increments(6, 301, 9, 1 / 9, first_path=50, dtype=dtype)
    settings = dict(n_steps=9, n_paths=301, seed=6, first_path=50, dtype=dtype, save="all")
    own = sde.simulate(Driven(), 0.5, (0, 1), **settings)
    for given in (w, w[:, :, None]):
        fed = sde.simulate(Driven(), 0.5, (0, 1), increments=given, **{**settings, "seed": 77})
        assert bits(fed) == bits(own)
    other = sde.simulate(Driven(), 0.5, (0, 1), increments=w[::-1], **settings)
    assert not np.array_equal(other.final, own.final)


def test_increments_of_general_noise_and_of_vector_states():
    w = wiener_increments(6, 40, 9, 1 / 9, 3)
    own = sde.simulate(Coupled(), (0.1, 0.2), (0, 1), n_steps=9, n_paths=40, seed=6, method="heun")
    fed = sde.simulate(Coupled(), (0.1, 0.2), (0, 1), n_steps=9, n_paths=40, increments=w, method="heun")
    assert bits(own) == bits(fed)
    start = np.array([[0.5, 0.1], [0.2, -1.0]])
    w = wiener_increments(6, 40, 9, 1 / 9, 4)
    own = sde.simulate(Driven(), start, (0, 1), n_steps=9, n_paths=40, seed=6)
    for given in (w, w.reshape(40, 9, 2, 2)):
        assert bits(sde.simulate(Driven(), start, (0, 1), n_steps=9, n_paths=40, increments=given)) == bits(own)


def test_the_seed_is_recorded_and_repeats_the_run():
    first = sde.simulate(Driven(), 0.5, (0, 1), n_steps=3, n_paths=10)
    second = sde.simulate(Driven(), 0.5, (0, 1), n_steps=3, n_paths=10)
    assert first.seed != second.seed
    assert not np.array_equal(first.final, second.final)
    assert np.array_equal(
        sde.simulate(Driven(), 0.5, (0, 1), n_steps=3, n_paths=10, seed=first.seed).final, first.final
    )
    for seed in (0, 2**64 - 1, np.uint64(2**63)):
        assert sde.simulate(Driven(), 0.5, (0, 1), n_steps=3, n_paths=1, seed=seed).seed == int(seed)


def test_one_seed_drives_all_processes_by_one_brownian_path():
    """W is the sum of the increments: every scheme and process of one seed shares it."""
    w = sde.simulate(sde.Wiener(1.0), 0.0, (0, 1), n_steps=8, n_paths=50, seed=21).final
    twice = sde.simulate(sde.Wiener(2.0), 0.0, (0, 1), n_steps=8, n_paths=50, seed=21, method="heun").final
    exact = sde.simulate(sde.GeometricBrownian(0.1, 0.4), 1.0, (0, 1), n_steps=8, n_paths=50, seed=21, method="exact")
    np.testing.assert_allclose(twice, 2.0 * w, rtol=1e-13)
    np.testing.assert_allclose(exact.final, np.exp(0.1 - 0.08 + 0.4 * w), rtol=1e-13)


def test_calls_from_several_threads_at_once():
    def run(k):
        return sde.simulate(sde.OrnsteinUhlenbeck(1.0 + k % 2), 0.5, (0, 1), n_steps=20, n_paths=700, seed=4, workers=2)

    expected = [run(k).final for k in range(2)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for k, paths in enumerate(pool.map(run, range(40))):
            assert np.array_equal(paths.final, expected[k % 2])


# ---- what is saved ---------------------------------------------------------------------------------------


def test_save_variants_agree_with_each_other():
    def run(save):
        return sde.simulate(Driven(), 0.5, (1.0, 3.0), n_steps=40, n_paths=270, seed=1, save=save)

    everything = run("all")
    np.testing.assert_allclose(everything.t, np.linspace(1, 3, 41), rtol=1e-15)
    assert everything.t[-1] == 3.0
    assert np.array_equal(everything.x[:, 0], np.full(270, 0.5))
    last = run("final")
    assert last.t.tolist() == [3.0]
    assert np.array_equal(last.x[:, 0], everything.x[:, -1])
    for every in (1, 7, 40, 1000):
        some = run(every)
        steps = [*range(0, 40, every), 40]
        assert np.array_equal(some.x, everything.x[:, steps])
        assert np.array_equal(some.t, everything.t[steps])
    for times in ([1.0], [3.0], [1.05, 2.0, 2.95], np.linspace(1, 3, 21)):
        some = run(times)
        steps = np.rint((np.asarray(times) - 1.0) / 0.05).astype(int)
        assert np.array_equal(some.x, everything.x[:, steps])
        np.testing.assert_allclose(some.t, times, rtol=1e-14)
    for paths in (last, run([2.0]), run(7)):
        assert np.array_equal(paths.final, everything.x[:, -1])


@pytest.mark.parametrize(
    ("process", "x0", "n_paths", "state"),
    [
        (Driven(), 0.5, 5, ()),
        (Driven(), [0.5], 5, (1,)),
        (Driven(), [0.5, 1.0, 2.0], 5, (3,)),
        (Driven(), np.zeros((2, 3)), 5, (2, 3)),
        (Driven(), np.linspace(0, 1, 5), None, ()),
        (Driven(), np.zeros((5, 3)), None, (3,)),
        (Pair(), (0.5, 1.0), 5, (2,)),
        (Pair(), np.zeros((5, 2)), None, (2,)),
        (Coupled(), (1, 2), 5, (2,)),
        (sde.ito(lambda x, t: -x, lambda x, t: 1.0, dim=1), 0.5, 5, ()),
        (sde.ito(lambda x, t: -x, lambda x, t: 1.0, dim=1), [0.5], 5, (1,)),
        (sde.ito(lambda x, t: -x, lambda x, t: 1.0, dim=1), np.zeros(5), None, ()),
        (Driven(), sde.targets.Gaussian(0.0, 1.0), 5, ()),
        (Pair(), sde.targets.Gaussian([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]), 5, (2,)),
    ],
)
def test_shapes(process, x0, n_paths, state):
    for make in (lambda p: p, in_batches if isinstance(process, (Driven, Pair)) else (lambda p: p)):
        paths = sde.simulate(make(process), x0, (0, 1), n_steps=4, n_paths=n_paths, seed=0, save=2)
        assert paths.t.shape == (3,)
        assert paths.x.shape == (5, 3, *state)
        assert paths.final.shape == (5, *state)
        assert np.array_equal(paths.x[:, -1], paths.final)
        assert paths.success
        assert "Paths(n_paths=5" in repr(paths)


def test_the_components_of_an_elementwise_state_are_independent():
    paths = sde.simulate(sde.Wiener(1.0), np.zeros((2, 2)), (0, 1), n_steps=2, n_paths=4000, seed=1)
    correlation = np.corrcoef(paths.final.reshape(4000, 4).T) - np.eye(4)
    assert abs(correlation).max() < 6 / np.sqrt(4000)
    alone = sde.simulate(sde.Wiener(1.0), 0.0, (0, 1), n_steps=2, n_paths=4000, seed=1)
    assert np.array_equal(paths.final[:, 0, 0], alone.final)


def test_x0_rows_and_targets_go_to_their_paths():
    x0 = np.random.default_rng(0).normal(size=700)
    paths = sde.simulate(Driven(), x0, (0, 1), n_steps=3, seed=5, save="all", first_path=77)
    assert np.array_equal(paths.x[:, 0], x0)
    target = sde.targets.Gaussian(0.3, 2.0)
    drawn = sde.simulate(Driven(), target, (0, 1), n_steps=3, n_paths=700, seed=5, save="all", first_path=77)
    assert np.array_equal(drawn.x[:, 0], target.sample(700, 5, first_path=77))
    again = sde.simulate(Driven(), drawn.x[:, 0], (0, 1), n_steps=3, seed=5, first_path=77)
    assert np.array_equal(again.final, drawn.final)


def test_paths_after_a_reduction_are_run_again():
    settings = dict(n_steps=8, n_paths=600, seed=3, save=4, first_path=3)
    kept = sde.simulate(Driven(), 0.5, (0, 1), **settings)
    reduced = sde.simulate(Driven(), 0.5, (0, 1), reduce=[sde.Moments()], **settings)
    assert np.array_equal(reduced.x, kept.x)
    assert np.array_equal(reduced.final, kept.final)
    assert reduced.x is reduced.x
    target = sde.targets.Gaussian(0.0, 1.0)
    kept = sde.simulate(Driven(), target, (0, 1), **settings)
    reduced = sde.simulate(Driven(), target, (0, 1), reduce=[sde.Moments()], **settings)
    assert np.array_equal(reduced.x, kept.x)


# ---- paths that leave the numbers ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cubic(sde.Process):
    """dX = −X³ dt + σ dW: with a step that is too long, far-away paths overshoot into infinity."""

    sigma: float = 0.5

    def drift(self, x, t):
        return -x * x * x

    def diffusion(self, x, t):
        return self.sigma


def exploding(n=700):
    x0 = np.full(n, 0.1)
    x0[[300, 301, 650]] = [30.0, 25.0, -40.0]
    w = wiener_increments(12, n, 20, 0.1, first_path=1000)
    with np.errstate(all="ignore"):
        states = by_hand("euler_maruyama", Cubic(), x0, 2.0, 0.1, w)
    bad = ~np.isfinite(states)
    assert bad.any(axis=1).sum() == 3
    return x0, states, int(bad[300].argmax())


@pytest.mark.parametrize("process", [Cubic(), in_batches(Cubic())], ids=["tiles", "batch"])
@pytest.mark.parametrize("reduce", [None, [sde.Moments()]], ids=["kept", "reduced"])
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_the_error_names_path_step_and_time(process, reduce):
    x0, _, step = exploding()
    with pytest.raises(NonFiniteError) as caught:
        sde.simulate(process, x0, (2.0, 4.0), n_steps=20, seed=12, first_path=1000, reduce=reduce)
    expected = f"3 of 700 paths became non-finite, first path 1300 at step {step} (t={2.0 + 0.1 * step:g})"
    assert expected in str(caught.value)
    assert "more steps" in str(caught.value)


@pytest.mark.parametrize("process", [Cubic(), in_batches(Cubic())], ids=["tiles", "batch"])
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_freeze_and_ignore(process):
    x0, states, step = exploding()
    settings = dict(n_steps=20, seed=12, first_path=1000, save="all")
    with pytest.warns(RuntimeWarning, match=r"first path 1300 at step .* frozen"):
        frozen = sde.simulate(process, x0, (2.0, 4.0), on_nonfinite="freeze", **settings)
    assert not frozen.success
    assert np.isfinite(frozen.x).all()
    for path in (300, 301, 650):
        last = int((~np.isfinite(states[path])).argmax()) - 1
        np.testing.assert_allclose(frozen.x[path, last:], states[path, last], rtol=1e-9)
    good = np.isfinite(states).all(axis=1)
    np.testing.assert_allclose(frozen.x[good], states[good], rtol=1e-9, atol=1e-12)
    with pytest.warns(RuntimeWarning, match="in the result"):
        ignored = sde.simulate(process, x0, (2.0, 4.0), on_nonfinite="ignore", **settings)
    assert np.array_equal(~np.isfinite(ignored.x[:, -1]), ~good)
    assert int((~np.isfinite(ignored.x[300])).argmax()) == step
    assert not ignored.success
    assert re.search(r"\d+ of 700", ignored.message)


def test_a_bad_lane_outside_the_block_is_no_bad_path():
    """Lanes outside the asked paths are computed and dropped; what happens there is nobody's error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # only path 255 of the leaf explodes, by the noise it is given
        w = np.zeros((255, 4))
        assert sde.simulate(Cubic(), 0.1, (0, 1), n_steps=4, n_paths=255, increments=w).success
        x0 = np.full(257, 0.1)
        x0[256] = 1e200
        with pytest.raises(NonFiniteError, match=r"1 of 257 paths .* path 256 at step 1 "):
            sde.simulate(Cubic(), x0, (0, 1), n_steps=4, increments=np.zeros((257, 4)))


@pytest.mark.parametrize("process", [Cubic(), in_batches(Cubic())], ids=["tiles", "batch"])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_the_error_is_found_again_with_given_increments(process):
    """Only the noise throws path 270 out: far away after step 3, infinite at step 4."""
    w = np.zeros((300, 6))
    w[270, 2] = 1e200
    with pytest.raises(NonFiniteError, match=r"1 of 300 paths .* path 270 at step 4 \(t=4\)"):
        sde.simulate(process, 0.1, (0, 6), n_steps=6, n_paths=300, increments=w)


# ---- memory ----------------------------------------------------------------------------------------------


def test_a_result_that_cannot_fit_is_refused_at_once():
    with pytest.raises(MemoryLimitError, match=r"GiB.*reduce"):
        sde.simulate(Driven(), 0.0, (0, 1), n_steps=10, n_paths=10**12)
    with pytest.raises(MemoryError, match="save=k"):
        sde.simulate(Driven(), 0.0, (0, 1), n_steps=10**7, n_paths=10**6, save="all")


def test_the_limit_counts_every_saved_state(monkeypatch):
    monkeypatch.setattr(preparation, "_available_memory", lambda: 1e6)
    settings = dict(n_steps=10, n_paths=10_000, seed=0)
    assert sde.simulate(Driven(), 0.0, (0, 1), **settings).final.shape == (10_000,)
    with pytest.raises(MemoryLimitError):
        sde.simulate(Driven(), 0.0, (0, 1), save="all", **settings)
    with pytest.raises(MemoryLimitError):
        sde.simulate(Driven(), np.zeros(20), (0, 1), **settings)
    reduced = sde.simulate(Driven(), 0.0, (0, 1), save="all", reduce=[sde.Moments()], **settings)
    with pytest.raises(MemoryLimitError):
        _ = reduced.x
