r"""Sampling with a network on a device: matrix products, and everything between them in kernels of our own.

A step with S evaluations is S times

    h ← u W₁,  h ← φ(h + b₁(c)),  h ← h W₂, …,  F ← h W_L          (products and one kernel a layer)
    y ← x + Σ coefficients · (x, F + b_L, z, m, 1),  u ← C (y − α m − β)     (one kernel)

where the last kernel draws the noise z where it is needed, from the same stream as the CPU, and leaves the network's
next input in the format of the products (``program``). States are float32 in every precision. The launches of a step
are the same for all steps, because the number of the step is in device memory: they are recorded once and replayed.

Nothing here knows a process or a class of networks: weights, biases, the scalar function φ and tables come from above.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.philox import round_keys
from . import backend, formats, graph, network_kernels, products
from .backend import cuda
from .program import Program

_LOOK = 32  # steps between looks at the device, for progress and Ctrl-C


@dataclasses.dataclass(frozen=True)
class Network:
    """An MLP as arrays: h W + b and φ, layer by layer.

    Attributes
    ----------
    weights : list of (inputs, outputs) float32
        The first acts on the components of a sample only: what the features of the noise level add is in ``first``.
    biases : list of (outputs,) float32
        Those of the second and later layers; the first layer's are in ``first``.
    first : (steps, S, width) float32
        The biases of the first layer at every evaluation of a program.
    centre : (dim,) float32
        m.
    phi : compiled scalar function
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    first: np.ndarray
    centre: np.ndarray
    phi: Any


def sample(
    network: Network, program: Program, out: np.ndarray, *, first_path: int, seed: int, precision: str, batch: int,
    tick: Callable[[int], Any] = lambda rows: None,
) -> tuple[int, int]:  # fmt: skip
    """Run a program for every row of ``out`` (n, dim), in batches; (rows that are ready, first bad step or −1).

    ``tick(rows)`` hears of every step of so many rows. Ctrl-C ends the run with the batches that were finished.
    """
    form = formats.of(precision)
    n, done = len(out), 0
    batch = min(batch, n)
    runner = None
    try:
        size = _gigabytes(network, program, form, batch)
        with backend.explained(f"a batch of {batch} rows takes {size}; give a smaller batch="):
            resident = Resident(network, program, form)
            multiply = products.of(form)
            while done < n:
                rows = min(batch, n - done)
                if runner is None or runner.rows != rows:
                    runner = None  # its memory first
                    runner = Runner(resident, rows, multiply, seed)
                bad = runner.run(first_path + done, tick)
                if bad >= 0:
                    return done, bad
                out[done : done + rows] = runner.x.copy_to_host()
                done += rows
    except KeyboardInterrupt:
        pass
    return done, -1


def _gigabytes(network: Network, program: Program, form: Any, rows: int) -> str:
    dim, wide = len(network.centre), max(w.shape[1] for w in network.weights[:-1])
    low = form.dtype.itemsize
    of_row = dim * (4 + (4 if program.kept is not None else 0) + low * (1 + program.most)) + 2 * wide * low
    fixed = low * sum(w.size for w in network.weights) + 4 * network.first.size
    return f"{(rows * of_row + fixed) / 1e9:.2g} GB"


class Resident:
    """What all batches share, uploaded once: weights, biases and tables."""

    def __init__(self, network: Network, program: Program, form: Any) -> None:
        self.program, self.form, self.dim = program, form, len(network.centre)
        largest = max(float(abs(w).max()) for w in network.weights)
        if form.name == "fp16" and not largest <= formats.LARGEST16:
            raise ValueError(
                f"the network has weights up to {largest:.3g}, beyond float16 ({formats.LARGEST16:g}); give "
                "precision='bf16' or 'fp32'"
            )
        self.weights = [_upload(formats.to_host_format(w, form.name)) for w in network.weights]
        first = np.ascontiguousarray(network.first, np.float32).reshape(-1, network.first.shape[-1])
        hidden = [np.ascontiguousarray(b, np.float32)[None] for b in network.biases[:-1]]
        self.hidden = [_upload(b) for b in [first, *hidden]]
        self.bias, self.centre = _upload(network.biases[-1]), _upload(network.centre)
        self.phi = network.phi
        kept = np.zeros((1, 1), np.float32) if program.kept is None else program.kept
        self.points, self.keep = _upload(program.points), _upload(kept)
        draws = program.draws if program.n_draws else np.zeros((program.n_steps, 1, 3), np.int64)
        self.inputs, self.draws = _upload(program.inputs), _upload(draws)


class Runner:
    """A batch of samples on the device, for one seed, which the recorded launches hold."""

    def __init__(self, resident: Resident, rows: int, product: Any, seed: int) -> None:
        program, form, dim = resident.program, resident.form, resident.dim
        self.resident, self.rows, self.product = resident, rows, product
        self.stream = graph.new_stream()
        keeps = program.kept is not None
        self.x = _room((rows, dim), np.float32)
        self.kept = _room((rows, dim) if keeps else (1, 1), np.float32)
        self.inp = _room((rows, dim), form.dtype)
        self.outputs = _room((program.most, rows, dim), form.dtype)
        widths = [w.shape[1] for w in resident.weights[:-1]]
        self.buffers = _alternating(widths, rows, form.dtype)
        self.step, self.first_path = _upload(np.zeros(1, np.int32)), _upload(np.zeros(1, np.uint64))
        self.keys = round_keys(seed)
        self.bad = _upload(np.full(1, network_kernels.I32_MAX))
        self.replays: dict[int, Callable[[], None] | None] = {}

    def run(self, first_path: int, tick: Callable[[int], Any] = lambda rows: None) -> int:
        """All steps from the start; the first step with a number that is none, or −1."""
        program = self.resident.program
        self.step.copy_to_device(np.zeros(1, np.int32))
        self.first_path.copy_to_device(np.array([first_path], np.uint64))
        cuda.synchronize()
        seen: set[int] = set()
        for k in range(program.n_steps):
            count = int(program.counts[k])
            if k == 0:
                self._step(count, entry=True)
            elif count in seen and self._recorded(count):
                self.replays[count]()  # type: ignore[misc]
            else:
                self._step(count, entry=program.entry)
                seen.add(count)
            tick(self.rows)
            if k % _LOOK == _LOOK - 1:
                self.stream.synchronize()
        self.stream.synchronize()
        bad = int(self.bad.copy_to_host()[0])
        return -1 if bad == network_kernels.I32_MAX else bad

    def _recorded(self, count: int) -> bool:
        """Whether steps of so many evaluations can be replayed; records one at the first question."""
        if count not in self.replays:
            entry = self.resident.program.entry
            self.replays[count] = graph.record(lambda: self._step(count, entry), self.stream)
        return self.replays[count] is not None

    def _step(self, count: int, entry: bool) -> None:
        if entry:
            self._move(0, last=False)
        for s in range(count):
            self._evaluate(s)
            self._move(s + 1, last=s + 1 == count)
        network_kernels.counter()[1, 1, self.stream](self.step)

    def _evaluate(self, s: int) -> None:
        """F number s from the network's input."""
        resident, source = self.resident, self.inp
        for layer, (weights, h) in enumerate(zip(resident.weights, self.buffers, strict=False)):
            self.product(source, weights, h, self.stream)
            blocks, threads = network_kernels.grid_of(self.rows, h.shape[1])
            # the first layer's biases change with the step: a row for each evaluation
            stride, offset = (resident.program.most, s) if layer == 0 else (0, 0)
            activate = network_kernels.activation(resident.phi, threads, resident.form)
            activate[blocks, threads, self.stream](h, resident.hidden[layer], self.step, stride, offset)
            source = h
        self.product(source, resident.weights[-1], self.outputs[s], self.stream)

    def _move(self, evaluated: int, last: bool) -> None:
        resident, program = self.resident, self.resident.program
        feeds = not last or not program.entry
        blocks, threads = network_kernels.grid_of(self.rows, resident.dim)
        kernel = network_kernels.move(
            evaluated, program.most, program.n_draws, last, program.kept is not None, feeds, threads, resident.form
        )
        kernel[blocks, threads, self.stream](
            self.x, self.kept, self.outputs, resident.bias, resident.centre, self.inp, resident.points, resident.keep,
            resident.inputs, resident.draws, self.step, self.first_path, self.keys, self.bad,
        )  # fmt: skip


def _alternating(widths: list[int], rows: int, dtype: Any) -> list[Any]:
    """The activations of every hidden layer; a layer takes the memory of the last but one of its width."""
    found: list[Any] = []
    for number, width in enumerate(widths):
        older = [k for k in range(number - 1) if widths[k] == width and found[k] is not found[number - 1]]
        found.append(found[older[-1]] if older else _room((rows, width), dtype))
    return found


def _room(shape: tuple[int, ...], dtype: Any) -> Any:
    return cuda.device_array(shape, dtype)


def _upload(array: np.ndarray) -> Any:
    return cuda.to_device(np.ascontiguousarray(array))
