"""Paths on the device are the CPU's, bit by bit, in numba's simulator; and what cannot run there is said.

A simulated thread takes its time: no test runs more than a few dozen paths or 256 of one leaf.
"""

import numpy as np
import pytest
from zoo import CASES, GENERAL, GEOMETRIC, MIXTURES, OU

import sdesim as sde
from sdesim.core import philox, stream
from sdesim.cuda import backend, paths, steps
from sdesim.errors import DeviceError, MemoryLimitError, NonFiniteError
from sdesim.integrate.schemes import SCHEMES

DTYPES = [np.float32, np.float64]
RUN = {"n_steps": 37, "save": 9, "n_paths": 12, "seed": 3}


def both(process, x0, span=(0.1, 1.0), **options):
    """The same run on the CPU and on the device."""
    given = {**RUN, **options}
    return sde.simulate(process, x0, span, **given), sde.simulate(process, x0, span, device="cuda", **given)


def test_every_scheme_made_of_stages_is_tried():
    assert set(CASES) == {scheme.name for scheme in SCHEMES.values() if paths.runs(scheme)}


# one scheme of each kind is compiled for the simulator in a minute; the others are slow tests
QUICK = {("euler_maruyama", np.float32), ("milstein", np.float64), ("heun", np.float64), ("sri", np.float32),
         ("weak_euler", np.float64), ("weak_second", np.float32)}  # fmt: skip


@pytest.mark.cudasim
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        pytest.param(method, dtype, marks=() if (method, dtype) in QUICK else pytest.mark.slow)
        for method in CASES
        for dtype in DTYPES
    ],
)
def test_paths_are_those_of_the_cpu(method, dtype):
    process, x0 = CASES[method]
    # the steps do not divide by the draws of a block, the paths cross from one leaf into the next
    cpu, device = both(process, x0, method=method, dtype=dtype, first_path=250)
    np.testing.assert_array_equal(device.x, cpu.x)
    np.testing.assert_array_equal(device.final, cpu.final)
    assert device.method == cpu.method == method
    assert device.x.dtype == dtype


SCORES = {
    **MIXTURES,
    "gaussian": sde.targets.Gaussian([0.3, -0.2], [[0.5, 0.1], [0.1, 0.3]]),
    "double well": sde.DoubleWell(1.3, 0.7).stationary(),
}


@pytest.mark.cudasim
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) == ("round, many", np.float32) else pytest.mark.slow)
        for name in SCORES
        for dtype in DTYPES
    ],
)
def test_scores_written_on_tiles_run_one_path_at_a_time(name, dtype):
    target = SCORES[name]
    x0 = 0.4 if target.dim == 1 else [0.4, 0.1]
    cpu, device = both(sde.Langevin(target, 0.7), x0, method="unadjusted_langevin", dtype=dtype, first_path=250)
    np.testing.assert_array_equal(device.x, cpu.x)
    if name == "full, many":
        cpu, device = both(sde.UnderdampedLangevin(target, 0.5), [*x0, 0.2, -0.1], dtype=dtype, first_path=250)
        np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.cudasim
def test_paths_beyond_two_to_the_32_are_others():
    cpu, device = both(GEOMETRIC, 1.2, method="milstein", first_path=2**32 + 250)
    np.testing.assert_array_equal(device.x, cpu.x)
    assert not np.array_equal(both(GEOMETRIC, 1.2, method="milstein", first_path=250)[1].x, device.x)


@pytest.mark.cudasim
def test_another_stream_is_seen(monkeypatch):
    """The equality above is one of bits: a wrong key, another purpose or a lost √dt shows at once."""
    run = {"n_steps": 9, "n_paths": 4, "seed": 3, "dtype": np.float32}
    cpu = sde.simulate(OU, 0.5, (0.0, 1.0), **run)

    def equal():
        return np.array_equal(sde.simulate(OU, 0.5, (0.0, 1.0), device="cuda", **run).x, cpu.x)

    assert equal()
    with monkeypatch.context() as patch:
        patch.setattr(paths, "round_keys", lambda seed: philox.round_keys(seed ^ 2**32))
        assert not equal()
    with monkeypatch.context() as patch:
        patch.setattr(stream, "WIENER", stream.SPACE_TIME)
        assert not equal()
    increments = steps.Text._increments
    with monkeypatch.context() as patch:
        lost = lambda text, slot: [line.replace("root *", "") for line in increments(text, slot)]  # noqa: E731
        patch.setattr(steps.Text, "_increments", lost)
        assert not equal()
    assert equal()


@pytest.mark.cudasim
@pytest.mark.parametrize("method", ["weak_euler", pytest.param("weak_second", marks=pytest.mark.slow)])
def test_landings_take_their_digits_where_the_cpu_does(method):
    """Records that fall into blocks of random bits leave some of these behind."""
    cpu, device = both(OU, 0.5, (0.0, 1.0), method=method, n_steps=200, save=[0.025, 0.05, 0.115, 0.5, 1.0])
    np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.cudasim
def test_one_state_or_one_for_each_path_or_draws_from_a_target():
    starts = np.linspace(0.5, 1.5, 12)
    cpu, device = both(GEOMETRIC, starts, method="milstein", n_paths=None)
    np.testing.assert_array_equal(device.x, cpu.x)
    cpu, device = both(GEOMETRIC, sde.targets.Gaussian(1.0, 0.1), method="milstein", first_path=77)
    np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.cudasim
def test_components_of_an_element_wise_process_have_their_own_noise():
    cpu, device = both(OU, [0.5, 0.2, -0.3], save="all", n_steps=9)
    np.testing.assert_array_equal(device.x, cpu.x)
    assert device.x.shape == (12, 10, 3)


@pytest.mark.cudasim
@pytest.mark.slow
def test_array_parameters():
    process = sde.ito(lambda x, t, a: -a[0] * x + a[1] * a[2] * x * x, lambda x, t: 0.3, a=np.array([0.4, 0.3, -0.2]))
    cpu, device = both(process, 0.5)
    np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.cudasim
def test_blocks_stream_through_the_memory_there_is(monkeypatch, tmp_path):
    whole = sde.simulate(GEOMETRIC, 1.2, (0.1, 1.0), device="cuda", method="milstein", **{**RUN, "n_paths": 600})
    monkeypatch.setattr(paths, "block_size", lambda *sizes: 256)
    told = []
    parts = sde.simulate(
        GEOMETRIC, 1.2, (0.1, 1.0), device="cuda", method="milstein", out=tmp_path / "x.npy",
        progress=lambda done, total: told.append((done, total)), **{**RUN, "n_paths": 600},
    )  # fmt: skip
    np.testing.assert_array_equal(parts.x, whole.x)
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_a_block_fits_into_the_free_memory(monkeypatch):
    monkeypatch.setattr(backend, "free_memory", lambda: 2**30)
    size = paths.block_size(10**9, 100, 1000, 1, 4)
    assert 0.5 * 2**30 < size * (102 * 4 + 64) < 2**30
    assert paths.block_size(1000, 1, 10, 1, 4) <= 1256
    # few enough that Ctrl-C is answered, many enough to fill the device
    monkeypatch.setattr(backend, "free_memory", lambda: 2**37)
    assert paths.block_size(10**9, 1, 10**9, 1, 4) == paths.FULL


@pytest.mark.cudasim
@pytest.mark.slow
def test_paths_that_become_infinite_are_named_or_frozen():
    explosive = sde.ito(lambda x, t: x * x * x, lambda x, t: 0.1)
    run = {"n_steps": 20, "n_paths": 6, "seed": 1, "dtype": np.float32}
    messages = []
    for device in ("cpu", "cuda"):
        with pytest.raises(NonFiniteError) as raised:
            sde.simulate(explosive, 2.0, (0.0, 4.0), device=device, **run)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    with pytest.warns(RuntimeWarning, match="frozen"):
        cpu = sde.simulate(explosive, 2.0, (0.0, 4.0), on_nonfinite="freeze", **run)
    with pytest.warns(RuntimeWarning, match="frozen"):
        device = sde.simulate(explosive, 2.0, (0.0, 4.0), on_nonfinite="freeze", device="cuda", **run)
    np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.cudasim
@pytest.mark.slow
def test_fast_mode_draws_from_the_same_stream():
    """Where kernels are simulated its normals are the polynomials; on a device they are near them."""
    cpu = sde.simulate(OU, 0.5, (0.0, 1.0), n_steps=8, n_paths=8, seed=2, dtype=np.float32)
    fast = sde.simulate(OU, 0.5, (0.0, 1.0), n_steps=8, n_paths=8, seed=2, dtype=np.float32, device="cuda:fast")
    np.testing.assert_allclose(fast.x, cpu.x, rtol=1e-6)


# ---- what cannot run there ------------------------------------------------------------------------------------------


class OnTiles(sde.OrnsteinUhlenbeck):
    """A drift for the CPU alone."""

    def drift_tile(self, x, t, out):
        for i in range(256):
            out[0, i] = -x[0, i]


REFUSED = {
    "implicit": (OU, 0.0, {"method": "implicit_euler"}, "method='implicit_euler' has no form for the GPU"),
    "exact": (OU, 0.0, {"method": "exact"}, "or one of 'euler_maruyama'"),
    "levy": (GENERAL, [0.0, 0.0], {"method": "milstein_levy"}, "has no form"),
    "adaptive": (OU, 0.0, {"method": "adaptive_sri", "n_steps": None}, "has no form"),
    "tiles": (OnTiles(1.0), 0.0, {}, "drift is written on tiles of 256 paths"),
    "batch": (sde.Langevin(lambda x, t: -x), 0.0, {}, "whole-array steps"),
    "walls": (OU, 0.0, {"boundary": sde.Walls(-1.0, 1.0, "reflecting")}, "boundary= acts between steps on the CPU"),
    "increments": (OU, 0.0, {"increments": np.zeros((12, 37))}, "increments= are taken on the CPU"),
    "freeze": (OU, [0.0, 0.0], {"on_nonfinite": "freeze"}, "on_nonfinite='freeze' needs all components"),
    "passages": (OU, 0.0, {"reduce": 2 * [sde.FirstPassage(-1.0, 1.0)]}, "one FirstPassage in a run"),
    "set": (OU, [0.0, 0.0], {"reduce": [sde.FirstPassage(of=lambda x: x[0] < 1.0)]}, "all components of a state"),
    "wide": (sde.ito(lambda x, t: x, lambda x, t: x, dim=17), np.ones(17), {}, "has 17 components"),
}  # fmt: skip


@pytest.mark.parametrize(("process", "x0", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_run_on_the_device_is_said(process, x0, options, said):
    with pytest.raises(DeviceError) as raised:
        sde.simulate(process, x0, (0.0, 1.0), device="cuda", **{**RUN, "save": "final", **options})
    assert said in str(raised.value)


def test_a_device_is_one_of_three():
    with pytest.raises(ValueError, match="did you mean 'cuda'"):
        sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=4, n_paths=4, device="cude")


@pytest.mark.cudasim
def test_executors_belong_to_the_cpu():
    with pytest.raises(ValueError, match="leave executor and workers out"):
        sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=4, n_paths=4, device="cuda", workers=2)


@pytest.mark.skipif(backend.available()[0], reason="there is a device")
def test_without_a_device_the_reason_is_said():
    with pytest.raises(DeviceError, match="device='cuda' cannot be used: "):
        sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=4, n_paths=4, device="cuda")


@pytest.mark.cudasim
def test_memory_that_the_device_refuses_is_said(monkeypatch):
    def refuse(*shape):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(backend.cuda, "device_array", refuse)
    with pytest.raises(MemoryLimitError, match="save fewer times"):
        sde.simulate(OU, 0.0, (0.0, 1.0), n_steps=4, n_paths=4, device="cuda")


# ---- on a device ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", CASES)
def test_a_device_makes_the_paths_of_the_cpu(method, dtype):
    process, x0 = CASES[method]
    cpu, device = both(process, x0, method=method, dtype=dtype, first_path=2**32 + 250, n_paths=5000)
    np.testing.assert_array_equal(device.x, cpu.x)


@pytest.mark.gpu
def test_fast_normals_have_the_law():
    device = sde.simulate(sde.Wiener(), 0.0, (0.0, 1.0), n_steps=64, n_paths=10**6, seed=1, dtype=np.float32,
                          device="cuda:fast", reduce=[sde.Moments()])  # fmt: skip
    assert abs(device.reductions[0].mean[0]) < 5e-3
    assert abs(device.reductions[0].variance[0] - 1.0) < 7e-3
