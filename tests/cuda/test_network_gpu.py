"""Sampling with a network on a real device: what the simulator cannot show."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import stream
from sdesim.core.philox import round_keys
from sdesim.cuda import graph, network, network_kernels
from sdesim.cuda.backend import cuda
from sdesim.errors import MemoryLimitError
from sdesim.score.head import Head

pytestmark = pytest.mark.gpu

VP, DIM, N = sde.VariancePreserving(), 784, 300
# 20 steps of sums over a thousand products, for a network that does not amplify: of the largest component
BOUNDS = {"fp32": 3e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 5e-2}


@pytest.fixture(scope="module")
def net():
    made = sde.ScoreMLP(DIM, (256, 256), n_frequencies=8, seed=1)
    return made.with_parameters(made.parameters, head=Head("edm", VP, np.linspace(-0.5, 0.5, DIM), 0.5, VP.t_min))


def sample(net, device="cuda", **options):
    options = {"n_steps": 20, "seed": 3, "first_path": 2**33 + 5, **options}
    return sde.sample(VP, net, N, device=device, **options)


def lanes(out, first_path, keys):
    """Kernel: four normals of a block for each row and column."""
    i, j = cuda.blockIdx.x, cuda.threadIdx.x
    for lane in range(4):
        out[lane, i, j] = network_kernels.normal(keys, first_path, i, j, 0, 3, lane)


def test_the_noise_has_the_bits_of_the_cpu():
    rows, columns, first, seed = 1000, 256, 2**32 - 500, 2**63 + 5
    out = cuda.to_device(np.zeros((4, rows, columns), np.float32))
    cuda.jit(lanes)[rows, columns](out, np.uint64(first), round_keys(seed))
    wanted = np.empty((4, rows, columns), np.float32)
    stream.fill_steps(wanted, first, 3, 0, seed)
    assert out.copy_to_host().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("precision", BOUNDS)
def test_samples_are_the_cpus(net, precision):
    wanted, found = sample(net, "cpu"), sample(net, precision=precision)
    assert abs(found - wanted).max() <= BOUNDS[precision] * abs(wanted).max()


@pytest.mark.parametrize("method", ["probability_flow", "edm_heun", "dpm_solver", "ancestral", "predictor_corrector"])
def test_every_method(net, method):
    wanted, found = sample(net, "cpu", method=method), sample(net, method=method)
    assert abs(found - wanted).max() <= 1e-4 * abs(wanted).max()


def test_steps_are_recorded_and_a_replay_is_a_launch(net, monkeypatch):
    made = []

    def watched(launches, flow, record=graph.record):
        made.append(record(launches, flow))
        return made[-1]

    monkeypatch.setattr(graph, "record", watched)
    recorded = sample(net, precision="fp16")
    assert made[0] is not None
    monkeypatch.setattr(graph, "record", lambda launches, flow: None)
    assert (sample(net, precision="fp16") == recorded).all()
    monkeypatch.undo()
    assert (sample(net, precision="fp16") == recorded).all()


def test_batches(net):
    whole, parts = sample(net), sample(net, batch=128)
    assert abs(whole - parts).max() <= BOUNDS["fp32"] * abs(whole).max()


def test_out_of_memory(net, monkeypatch):
    from sdesim.generate import device

    def draw(plan, n, first_path, advance_of, **_):
        nowhere = np.broadcast_to(np.float32(0.0), (10**9, DIM))  # as many rows, in no memory of the host
        network.sample(
            *device.described(plan, advance_of), nowhere, first_path=0, seed=0, precision="fp32", batch=10**9
        )

    monkeypatch.setattr(device, "draw", draw)
    with pytest.raises(MemoryLimitError, match="give a smaller batch="):
        sample(net)
