"""Numbers out of range: F8 paths that blow up, F9 requests beyond memory, F20 counters beyond 2³², denormals."""

import time
import tracemalloc

import numpy as np
import pytest

import sdesim as sde
from sdesim import execution, preparation
from sdesim.core import draws, normals, philox, stream
from sdesim.core.cache import kernel
from sdesim.core.draws import spot_of, words
from sdesim.core.elementary import U64
from sdesim.errors import MemoryLimitError, NonFiniteError

CUBIC = sde.ito(lambda x, t: x * x * x, lambda x, t: 0.1)
BLOW_UP = {"n_steps": 20, "seed": 1, "first_path": 1000}
X0 = np.array([0.1] * 11 + [6.0] + [0.2] * 8 + [5.0])


# ---- F8: blow-up


def test_a_blow_up_names_the_first_path_its_step_and_the_way_out():
    with pytest.raises(NonFiniteError) as caught:
        sde.simulate(CUBIC, X0, (0.0, 2.0), **BLOW_UP)
    with pytest.warns(RuntimeWarning, match="2 of 21"):
        x = sde.simulate(CUBIC, X0, (0.0, 2.0), save="all", on_nonfinite="ignore", **BLOW_UP).x
    step = int(np.argmax(~np.isfinite(x[11])))
    assert str(caught.value) == (
        f"2 of 21 paths became non-finite, first path 1011 at step {step} (t={step * 0.1:g}); take more steps "
        "(dt is 0.1), or pass on_nonfinite='freeze' or 'ignore'"
    )


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_frozen_paths_keep_their_last_finite_state():
    with pytest.warns(RuntimeWarning, match="2 of 21 paths became non-finite.*frozen at their last finite states"):
        frozen = sde.simulate(CUBIC, X0, (0.0, 2.0), save="all", on_nonfinite="freeze", **BLOW_UP)
    assert np.isfinite(frozen.x).all()
    assert not frozen.success
    moves = np.diff(frozen.x[11]) != 0.0
    assert moves[:3].all()
    assert not moves[-3:].any()
    with pytest.warns(RuntimeWarning, match="they are in the result"):
        ignored = sde.simulate(CUBIC, X0, (0.0, 2.0), on_nonfinite="ignore", **BLOW_UP)
    assert (~np.isfinite(ignored.final)).nonzero()[0].tolist() == [11, 20]


# ---- F9: memory


@pytest.mark.parametrize(("n_paths", "save"), [(10**12, "final"), (10**9, "all"), (10**18, "final")])
def test_a_request_beyond_memory_is_refused_at_once(n_paths, save):
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(MemoryLimitError, match=r"GiB are free; .*save=k.*reduce=\[.*out='paths\.npy'") as caught:
            sde.simulate(sde.Wiener(), 0.0, (0, 1), n_steps=1000, n_paths=n_paths, save=save)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 1.0
    assert peak < 10**6
    assert isinstance(caught.value, MemoryError)


def test_each_proposal_is_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(preparation, "_available_memory", lambda: 3e5)
    run = {"n_steps": 20, "n_paths": 3000, "seed": 1}
    with pytest.raises(MemoryLimitError):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), save="all", **run)
    assert sde.simulate(sde.Wiener(), 0.0, (0, 1), save=5, **run).x.shape == (3000, 5)
    assert sde.simulate(sde.Wiener(), 0.0, (0, 1), save="all", reduce=[sde.Moments()], **run).reductions[0].n == 3000
    assert sde.simulate(sde.Wiener(), 0.0, (0, 1), save="all", out=tmp_path / "x.npy", **run).x.shape == (3000, 21)


def test_paths_that_were_not_kept_are_not_made_where_they_would_not_fit(monkeypatch):
    paths = sde.simulate(sde.Wiener(), 0.0, (0, 1), n_steps=20, n_paths=3000, save="all", reduce=[sde.Moments()])
    monkeypatch.setattr(preparation, "_available_memory", lambda: 1e5)
    with pytest.raises(MemoryLimitError):
        _ = paths.x


def test_without_the_check_room_would_be_asked_for(monkeypatch):
    """The control."""

    def storage(run):
        raise MemoryError(f"{run.n_paths} rows")

    monkeypatch.setattr(preparation, "check_memory", lambda *_: None)
    monkeypatch.setattr(execution, "_storage", storage)
    with pytest.raises(MemoryError, match="1000000000000 rows"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), n_steps=1, n_paths=10**12)


# ---- F20: counters


def by_definition(seed, purpose, component, path, block):
    """The words of one counter, by the scalar kernel that Random123's known answers are tested with."""
    out = np.empty((4, 1), np.uint32)
    philox.words(out, U64(block), U64(purpose << 24 | component), U64(path), U64(seed))
    return out[:, 0]


@pytest.mark.parametrize(
    ("method", "dtype"),
    [("euler_maruyama", np.float32), ("euler_maruyama", np.float64), ("weak_euler", np.float64)],
)
def test_paths_beyond_32_bits(dtype, method):
    """A tile that ends at path 2³² and its neighbour: every path is what it is alone, and none is path − 2³²."""
    run = {"n_steps": 6, "method": method, "seed": 9, "dtype": dtype}
    first = 2**32 - 3
    together = sde.simulate(sde.OrnsteinUhlenbeck(), 0.0, (0, 1), n_paths=9, first_path=first, **run).final
    for i in (0, 2, 3, 8):
        alone = sde.simulate(sde.OrnsteinUhlenbeck(), 0.0, (0, 1), n_paths=1, first_path=first + i, **run).final
        assert together[i] == alone[0]
    low = sde.simulate(sde.OrnsteinUhlenbeck(), 0.0, (0, 1), n_paths=6, **run).final
    if method == "euler_maruyama":
        assert not np.isin(together[3:], low).any()
    top = sde.simulate(sde.OrnsteinUhlenbeck(), 0.0, (0, 1), n_paths=4, first_path=2**63 - 5, **run)
    assert np.isfinite(top.final).all()


def test_the_normals_of_the_last_blocks_are_those_of_the_definition():
    """n_steps may be 2³³ − 1: in float64 the last of 2³² blocks, of two steps each."""
    block, path = 2**32 - 1, 2**40 + 7
    out = np.empty((2, 1, 1))
    stream.fill_steps(out, path, block, stream.WIENER, 11)
    a, b, c, d = (int(w) for w in by_definition(11, stream.WIENER, 0, path, block))
    u, turn = ((a << 32 | b) >> 11) + 0.5, (c << 32 | d) / 2**64
    r = np.sqrt(-2.0 * np.log(u / 2**53))
    np.testing.assert_allclose(out[:, 0, 0], [r * np.cos(2 * np.pi * turn), r * np.sin(2 * np.pi * turn)], rtol=1e-12)
    first = np.empty((2, 1, 1))
    stream.fill_steps(first, path, 0, stream.WIENER, 11)
    assert not np.isin(first, out).any()
    assert normals.DRAWS[np.dtype(np.float64)] * 2**32 == 2**33


@kernel
def spots(out, steps, seed):
    for i in range(len(steps)):
        out[i, 0], out[i, 1] = words(spot_of(steps[i], 0, 5, seed), U64(0))


def test_rejection_draws_of_steps_beyond_32_bits_are_others():
    steps = np.array([3, 2**32 + 3, 2**33 - 1, 2**32 - 1], np.uint64)
    out = np.empty((4, 2), np.uint64)
    spots(out, steps, U64(1))
    assert len(np.unique(out)) == 8
    assert int(draws.LONG) + int(draws.FIRST_COMPONENT) < stream.MAX_COMPONENTS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 2**33}, "n_steps must be < 8589934592, got 8589934592"),
        ({"n_steps": 2**33 + 5}, "n_steps must be < 8589934592"),
        ({"first_path": 2**63 - 2}, r"first_path \+ n_paths must be < 9223372036854775808, got 9223372036854775809"),
        ({"first_path": 2**64}, r"first_path \+ n_paths must be <"),
    ],
)
def test_what_the_counters_cannot_hold_is_refused(settings, message, monkeypatch):
    monkeypatch.setattr(execution, "work", None)  # it would run for ever
    with pytest.raises(ValueError, match=message):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), **{"n_steps": 3, "n_paths": 3, **settings})


# ---- denormals


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_denormal_states_are_neither_flushed_nor_lost(dtype):
    """x ← x − x/2: exact in every binade, down to the smallest number there is and no further."""
    tiny = np.finfo(dtype)
    n = 40
    halving = sde.ito(lambda x, t: -x, lambda x, t: 0.0 * x)
    x0 = np.array([1.0, -1.0, 1.5]) * float(tiny.smallest_normal) * 8
    x = sde.simulate(halving, x0, (0.0, n / 2), n_steps=n, dtype=dtype, seed=1, save="all").x
    expected = x0.astype(dtype)[:, None] * dtype(2.0) ** -np.arange(n + 1, dtype=dtype)
    exact = abs(expected) >= 4 * tiny.smallest_subnormal
    assert (x[exact] == expected[exact]).all()
    assert (abs(x[:2, :]) >= 0).all()
    below = (abs(expected) < tiny.smallest_normal) & exact
    assert below.sum() > 30
    assert (x[below] != 0.0).all()


def test_denormal_densities_stay_positive():
    grid = sde.Grid(-40, 40, 800)
    rho = sde.evolve_density(sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sde.gaussian(grid, 0.0, 0.7), grid, (0, 1))
    assert rho.final.min() >= -1e-12
    assert abs(rho.mass[-1] - 1.0) < 1e-12
