"""Sampling with a network on a device, in the simulator: the CPU's noise bit by bit, its samples to rounding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdesim as sde
from sdesim.core import stream
from sdesim.core.philox import round_keys
from sdesim.cuda import backend, formats, graph, network, network_kernels, products
from sdesim.errors import DeviceError, MemoryLimitError, NonFiniteError
from sdesim.score import activations
from sdesim.score.head import Head

pytestmark = pytest.mark.cudasim

N, DIM, SEED, PATH = 5, 6, 3, 2**33 + 7
RNG = np.random.default_rng(0)
CENTRES, WEIGHTS = RNG.normal(size=DIM), RNG.normal(size=4000)
VP = sde.VariancePreserving()
F32 = np.dtype(np.float32)


class Host:
    """The product by NumPy, in float32 from numbers in a format."""

    def __init__(self, name):
        self.name = name

    def __call__(self, a, b, out, stream):
        left, right = (formats.from_host_format(array.copy_to_host(), self.name) for array in (a, b))
        with np.errstate(invalid="ignore", over="ignore"):
            out.copy_to_device(formats.to_host_format(np.matmul(left, right), self.name))


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(products, "of", lambda form: Host(form.name))


@pytest.fixture
def tiled(monkeypatch):
    monkeypatch.setattr(products, "of", lambda form: products.Tiled(4))


def net_of(process=VP, hidden=(16, 12), dim=DIM, **options):
    net = sde.ScoreMLP(dim, hidden, n_frequencies=4, **options)
    head = Head("edm", process, CENTRES[:dim], 1.3, process.t_min)
    return net.with_parameters((0.3 * WEIGHTS[: net.layout.size]).astype(np.float32), head=head)


def sample(net, device="cuda", process=VP, n=N, **options):
    options = {"n_steps": 5, "seed": SEED, "first_path": PATH, **options}
    return sde.sample(process, net, n, device=device, **options)


# ---- noise ----------------------------------------------------------------------------------------------------------


def test_the_noise_has_the_bits_of_the_stream():
    rows, columns, draws = 5, 7, 9
    for purpose, seed, first in ((stream.WIENER, 2**64 - 1, 2**32 - 2), (stream.CORRECTION, 5, 0)):
        wanted = stream.normals(seed, purpose, rows, columns, draws, first_path=first, dtype=np.float32)
        found = [
            network_kernels.normal(round_keys(seed), np.uint64(first), i, j, purpose, k // 4, k % 4)
            for i in range(rows) for j in range(columns) for k in range(draws)
        ]  # fmt: skip
        assert np.array(found, np.float32).tobytes() == wanted.reshape(-1).tobytes()


def test_a_sample_of_nothing_but_noise_has_the_bits_of_the_stream(host):
    # one step from the horizon of variance 1 back to t_end, with a score of 0: x = z₀ + g √h z₁
    process = sde.VarianceExploding(0.01, 1.0)
    net = sde.ScoreMLP(DIM, (4,), zero_output=True)
    net = net.with_parameters(net.parameters, head=Head("plain", process, np.zeros(DIM), 1.0, process.t_min))
    grid = [1.0, 0.5]
    found = sample(net, process=process, n_steps=None, grid=grid, denoise=False)
    first = stream.normals(SEED, stream.INITIAL, N, DIM, 4, first_path=PATH, dtype=np.float32)[:, :, 0]
    second = stream.normals(SEED, stream.WIENER, N, DIM, 4, first_path=PATH, dtype=np.float32)[:, :, 0]
    start = np.float32(np.sqrt(process.added_variance(1.0))) * first
    size = np.float32(process.diffusion(0.0, 1.0) * np.sqrt(0.5))
    fused = (size.astype(np.float64) * second.astype(np.float64) + start.astype(np.float64) * 0.0).astype(np.float32)
    assert (found == start + fused).all()
    # and so has the CPU
    wanted = sample(net, "cpu", process=process, n_steps=None, grid=grid, denoise=False)
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=1e-6)


# ---- samples --------------------------------------------------------------------------------------------------------

METHODS = [
    {}, {"denoise": False}, {"scheme": "heun"}, {"method": "probability_flow"}, {"method": "edm_heun"},
    {"method": "edm_heun", "churn": 3.0}, {"method": "dpm_solver"}, {"method": "dpm_solver", "scheme": "sde_2m"},
    {"method": "ancestral"}, {"method": "predictor_corrector"}, {"method": "annealed_langevin"},
]  # fmt: skip
# Bound: 5 steps and sums of a few dozen terms in float32, of numbers up to the largest sample.
ROUNDING = 64 * 2.0**-23


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_samples_are_the_cpus_to_rounding(host, options):
    net = net_of()
    wanted = sample(net, "cpu", **options)
    assert abs(sample(net, **options) - wanted).max() <= ROUNDING * abs(wanted).max()


@pytest.mark.parametrize("activation", activations.NAMES)
@pytest.mark.parametrize("hidden", [(9,), (8, 8, 8)], ids=str)
def test_samples_of_other_networks(host, activation, hidden):
    net = net_of(activation=activation, hidden=hidden)
    wanted = sample(net, "cpu", n_steps=3)
    assert abs(sample(net, n_steps=3) - wanted).max() <= ROUNDING * abs(wanted).max()


def test_samples_with_the_librarys_own_product(tiled):
    net = net_of(hidden=(5,), dim=3)
    wanted = sample(net, "cpu", n_steps=3)
    assert abs(sample(net, n_steps=3) - wanted).max() <= ROUNDING * abs(wanted).max()


@pytest.mark.parametrize(("precision", "bound"), [("tf32", 1e-5), ("fp16", 5e-3), ("bf16", 5e-2)])
def test_samples_in_low_precision(host, precision, bound):
    net = net_of()
    wanted, found = sample(net, "cpu"), sample(net, precision=precision)
    error = abs(found - wanted).max() / abs(wanted).max()
    assert error <= bound
    assert precision == "tf32" or error > 1e-5  # it was another precision indeed


def test_a_batch_may_be_split(tiled):
    net = net_of(hidden=(4,), dim=3)
    whole = sample(net, n_steps=3)
    assert (sample(net, n_steps=3, batch=2) == whole).all()
    parts = [sample(net, n_steps=3, n=2), sample(net, n_steps=3, n=3, first_path=PATH + 2)]
    assert (np.concatenate(parts) == whole).all()


def test_a_recorded_step_is_every_step(host, monkeypatch):
    """Replayed, the launches of one step must do for all of them: nothing of the step may be in their arguments."""
    net, recorded = net_of(), []

    def record(launches, stream):
        calls = []

        def replay():
            calls.append(1)
            launches()

        recorded.append(calls)
        return replay

    plain = {k: sample(net, n_steps=7, **options) for k, options in enumerate(METHODS[-5:])}
    monkeypatch.setattr(graph, "record", record)
    for k, options in enumerate(METHODS[-5:]):
        recorded.clear()
        assert (sample(net, n_steps=7, **options) == plain[k]).all()
        assert sum(map(len, recorded)) >= 6


# ---- kernels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", activations.NAMES)
def test_activations(name):
    z = np.linspace(-30.0, 30.0, 36, dtype=np.float32).reshape(2, 18)
    bias = RNG.normal(size=(3, 18)).astype(np.float32)
    h, step = backend.cuda.to_device(z), backend.cuda.to_device(np.array([1], np.int32))
    blocks, threads = network_kernels.grid_of(2, 18)
    kernel = network_kernels.activation(activations.scalar(name, F32), threads, formats.of("fp32"))
    kernel[blocks, threads](h, backend.cuda.to_device(bias), step, 1, 1)
    v = z.astype(np.float64) + bias[2]
    exact = {"silu": v / (1.0 + np.exp(-v)), "tanh": np.tanh(v), "softplus": np.logaddexp(0.0, v)}[name]
    np.testing.assert_allclose(h.copy_to_host(), exact, rtol=2e-6, atol=1e-6)


def test_the_product_of_tiles():
    for rows, inner, columns in ((5, 7, 3), (4, 4, 4), (1, 9, 6)):
        a, b = (RNG.normal(size=shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
        out = backend.cuda.to_device(np.zeros((rows, columns), np.float32))
        products.Tiled(4)(backend.cuda.to_device(a), backend.cuda.to_device(b), out, backend.cuda.stream())
        np.testing.assert_allclose(out.copy_to_host(), a.astype(np.float64) @ b, atol=1e-6)


@given(st.lists(st.sampled_from([8, 4]), min_size=1, max_size=9))
def test_no_layer_is_written_over_its_input(widths):
    found = network._alternating(widths, 1, np.float32)
    assert [h.shape[1] for h in found] == widths
    assert all(a is not b for a, b in itertools.pairwise(found))
    assert len({id(h) for h in found}) <= 4


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_is_the_nearest(x):
    x = np.float32(x)
    bits = int(formats.narrowed(x))
    assert bits == int(formats.to_host_format(np.array([x]), "bf16")[0])
    near = [np.array([b << 16], np.uint32).view(np.float32)[0] for b in (bits - 1, bits, bits + 1) if 0 <= b < 2**16]
    here = formats.widened(np.uint16(bits))
    if np.isfinite(x) and np.isfinite(here):
        gaps = [abs(np.float64(v) - np.float64(x)) for v in near if np.isfinite(v)]
        assert abs(np.float64(here) - np.float64(x)) == min(gaps)


def test_bfloat16_keeps_what_is_no_number():
    assert np.isnan(formats.widened(np.uint16(formats.narrowed(np.float32(np.nan)))))
    assert formats.widened(np.uint16(formats.narrowed(np.float32(-np.inf)))) == -np.inf
    # halfway between two: the even one
    assert formats.widened(np.uint16(formats.narrowed(np.float32(1.0 + 2.0**-8)))) == 1.0
    assert formats.widened(np.uint16(formats.narrowed(np.float32(1.0 + 3 * 2.0**-8)))) == 1.0 + 2.0**-6


# ---- what cannot be had ---------------------------------------------------------------------------------------------


def test_without_cublas(monkeypatch):
    with pytest.raises(DeviceError, match="precision='bf16' needs cuBLAS, and the simulator has no cuBLAS, or give"):
        sample(net_of(), precision="bf16")
    monkeypatch.setattr(products, "library", lambda: None)
    monkeypatch.setattr(backend, "simulated", False)
    with pytest.raises(DeviceError, match=r"needs cuBLAS, and cuBLAS was not found; pip install 'cuda-toolkit\[cublas"):
        products.of(formats.of("fp16"))
    with pytest.warns(RuntimeWarning, match="cuBLAS was not found, and products run in a kernel ten times slower"):
        assert isinstance(products.of(formats.of("fp32")), products.Tiled)


def test_sentences(host):
    net = net_of()
    cases = [
        ({"precision": "fp8"}, ValueError, "precision must be one of 'fp32', 'tf32', 'fp16', 'bf16', got 'fp8'"),
        ({"batch": 0}, ValueError, "batch must be >= 1"),
        ({"labels": 3}, ValueError, "device='cuda' does not take labels; leave it out, or use device='cpu'"),
        ({"guidance": lambda x, t: x}, ValueError, "does not take guidance"),
        ({"observed": np.zeros(DIM), "mask": np.zeros(DIM, bool)}, ValueError, "does not take observed"),
        ({"method": "probability_flow", "rtol": 1e-3, "n_steps": None}, ValueError, "does not take rtol"),
        ({"dtype": np.float64}, ValueError, "computes in float32"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            sample(net, **options)
    with pytest.raises(ValueError, match=r"give net.astype\(np.float32\)"):
        sample(net.astype(np.float64))
    for other in (sde.ResidualMLP(DIM, 8, 1), lambda x, t: -x):
        with pytest.raises(TypeError, match="device='cuda' runs a ScoreMLP, got"):
            sample(other, dim=DIM)


def test_out_of_memory_names_a_smaller_batch(host, monkeypatch):
    def full(shape, dtype):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(network, "_room", full)
    with pytest.raises(MemoryLimitError, match=r"out of memory; a batch of 5 rows takes .* GB; give a smaller batch="):
        sample(net_of())


def test_numbers_that_are_none(host):
    net = net_of()
    huge = np.array(net.parameters)
    for matrix in net.layout.views(huge)[0]:
        matrix[:] *= 1e4  # in float16, which ends at 65504, but not their products
    with pytest.raises(NonFiniteError, match=r"non-finite at t = 1; take more steps .*, or precision='fp32'"):
        sample(net.with_parameters(huge), precision="fp16")
    with pytest.raises(ValueError, match=r"weights up to .*, beyond float16 \(65504\); give precision='bf16'"):
        sample(net.with_parameters(100.0 * huge), precision="fp16")


def test_an_interrupted_run_returns_its_batches(host, monkeypatch):
    net, rows = net_of(), []
    whole = sample(net)
    run = network.Runner.run

    def stopped(self, first_path, tick):
        rows.append(self.rows)
        if len(rows) >= 3:
            raise KeyboardInterrupt
        return run(self, first_path, tick)

    monkeypatch.setattr(network.Runner, "run", stopped)
    with pytest.warns(RuntimeWarning, match="interrupted: 4 of 5 samples are returned"):
        found = sample(net, batch=2)
    np.testing.assert_allclose(found, whole[:4], atol=1e-5)
    with pytest.raises(KeyboardInterrupt):
        sample(net, n=1)
