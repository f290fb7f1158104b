"""One call on a machine with an NVIDIA GPU: is it right, how fast is it, and how fast could it be?

    python benchmarks/gpu.py                       everything, at most eight minutes
    python benchmarks/gpu.py --seconds 240         less: cases that no longer fit are left out, and said to be
    python benchmarks/gpu.py --json gpu.json       and the figures as JSON, written anew after every section
    python benchmarks/gpu.py --dry                 every line of it on tiny cases in the simulator, without a GPU

The sections stand in the order of what one would want first if the machine went away; each prints its table when it is
done, and an error in one is kept and does not lose the rest.

    machine    versions, the device, and what the first launch of a kernel costs
    ceilings   copies within device memory and matrix products: what this card, in this minute, can do
    right      normals and end states against the CPU's, bit by bit; samples against the CPU's, to the rounding of their
               precision; the same samples with and without recorded launches
    paths      path-steps per second: Ornstein-Uhlenbeck, double well, 3-component geometric Brownian motion (the case
               that DiffEqGPU.jl publishes at 3.0e9 on a card that it does not name), a mixture in two dimensions; with
               the CPU's bits ("cuda") and with the card's own logarithm and sine ("cuda:fast"). Two runs of different
               length are timed, and the rate is that of the steps between them; what a call costs once stands beside
    normals    normals alone, drawn and added up, by both kinds of functions
    sampling   microseconds a step of Euler-Maruyama, 3072-1024x4-3072 and 784-1024x3-784 at batches of 256 and 4096.
               The floor is what the products alone took in this call, recorded and replayed, plus the bytes that must
               move (state in and out, outputs, inputs, activations in and out of every layer) at the speed of a copy
    peers      the same steps by PyTorch, as one writes them and as a CUDA graph, and by JAX's jit of a scan, where they
               are installed; normals are theirs. And the ensembles' first case by both
    claims     what was to be shown on an H200, and whether it was

Times are wall times between synchronisations, the best of some repeats after one that compiles. Compare within a call.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

DRY = "--dry" in sys.argv
if DRY:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when numba is imported
os.environ["NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS"] = "0"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import numpy as np  # noqa: E402

import sdesim as sde  # noqa: E402
from sdesim.core import stream  # noqa: E402
from sdesim.core.philox import round_keys  # noqa: E402
from sdesim.cuda import backend, formats, graph, network_kernels, products  # noqa: E402
from sdesim.cuda import network as engine  # noqa: E402
from sdesim.cuda.backend import cuda  # noqa: E402
from sdesim.score.head import Head  # noqa: E402

NETWORKS = {"3072-1024x4-3072": (3072, (1024,) * 4), "784-1024x3-784": (784, (1024,) * 3)}
BATCHES = (4096, 256)
FREQUENCIES = 16


MIXTURE = sde.targets.GaussianMixture(np.full(3, 1 / 3), [[-1.5, 0.3], [1.0, 0.6], [0.2, -1.1]], 0.25)
PATHS = {
    "Ornstein-Uhlenbeck": (sde.OrnsteinUhlenbeck(0.5, 0.0, 0.7), 1.0, "euler_maruyama"),
    "double well": (sde.DoubleWell(1.0, 0.5), 1.0, "euler_maruyama"),
    "geometric, 3 components": (sde.GeometricBrownian(0.05, 0.2), [1.0, 1.0, 1.0], "euler_maruyama"),
    "mixture in 2-D": (sde.Langevin(MIXTURE), [0.0, 0.0], "euler_maruyama"),
}
PUBLISHED = 3.0e9  # path-steps/s, DiffEqGPU.jl
VP = sde.VariancePreserving()


class Report:
    """Figures, errors and the clock of a call."""

    def __init__(self, seconds: float, path: str | None) -> None:
        self.end, self.path, self.started = time.perf_counter() + seconds, path, time.perf_counter()
        self.figures: dict[str, Any] = {}
        self.errors: dict[str, str] = {}

    @property
    def left(self) -> float:
        return self.end - time.perf_counter()

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """Rows of a table, printed and written when the section is over, whatever happened in it."""
        rows: list[dict[str, Any]] = []
        try:
            yield rows
        except Exception as error:
            self.failed(name, error)
        self.figures[name] = rows
        print(f"\n== {name} ({time.perf_counter() - self.started:.0f} s)", flush=True)
        table(rows)
        if name in self.errors:
            print(f"   ended by {self.errors[name].splitlines()[0]}", flush=True)
        self.write()

    def case(self, rows: list[dict[str, Any]], needs: float, row: dict[str, Any], run: Callable[[], dict]) -> None:
        """One row: left out where the time is up, with its error where it fails."""
        if self.left < needs:
            row["note"] = "left out, the time is up"
        else:
            try:
                row |= run()
            except Exception as error:
                self.failed(" ".join(str(value) for value in row.values()), error)
                row["note"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90]
        rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)

    def failed(self, where: str, error: Exception) -> None:
        self.errors[where] = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"

    def write(self) -> None:
        if self.path:
            result = {"dry": DRY, **self.figures, "errors": self.errors}
            pathlib.Path(self.path).write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> None:
    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    names = sorted(dict.fromkeys(name for row in rows for name in row), key="note".__eq__)
    cells = [[shown(row.get(name, "")) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in [names, *cells]:
        print(
            "   " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True
        )


def seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    """The best of some runs, after the one that compiles."""
    return min(timed(run) for _ in range(repeats))


def timed(run: Callable[[], Any]) -> float:
    cuda.synchronize()
    start = time.perf_counter()
    run()
    cuda.synchronize()
    return time.perf_counter() - start


# ---- machine and ceilings -------------------------------------------------------------------------------------------


def machine(report: Report) -> None:
    with report.section("machine") as rows:
        ready, reason = backend.available()
        if not ready:
            raise SystemExit(f"benchmarks/gpu.py needs a GPU: {reason}; --dry runs without one")
        rows.append({"what": "device", "is": reason})
        for name in ("sdesim", "numba", "numba-cuda", "cuda-toolkit", "nvidia-cublas", "numpy", "torch", "jax"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                rows.append({"what": name, "is": metadata.version(name)})
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = "name,driver_version,clocks.sm,clocks.max.sm,power.limit,memory.total"
            command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
            rows.append({"what": query, "is": said})
        rows.append({"what": "cuBLAS", "is": "none" if products.library() is None else products.version()})
        rows.append({"what": "python", "is": f"{platform.python_version()}, {os.cpu_count()} cores"})
        step = cuda.to_device(np.zeros(1, np.int32))
        for call in ("first", "second"):
            cost = timed(lambda: network_kernels.counter()[1, 1](step))
            rows.append({"what": f"{call} launch, ms", "is": 1e3 * cost})
        if not backend.simulated:
            rows.append(
                {"what": "a launch, us", "is": 1e6 * timed(lambda: many(network_kernels.counter(), step)) / 1000}
            )


def many(kernel: Any, step: Any) -> None:
    launch = kernel[1, 1]
    for _ in range(1000):
        launch(step)


def ceilings(report: Report) -> dict[str, float]:
    found = {"copy": math.nan}
    with report.section("ceilings") as rows:
        size = 2**10 if DRY else 2**30
        a, b = cuda.device_array(size, np.uint8), cuda.device_array(size, np.uint8)
        found["copy"] = 2 * size / seconds(lambda: b.copy_to_device(a), 5)
        rows.append({"what": "copy within memory, read and write", "GB/s": found["copy"] / 1e9})
        shapes = [(8, 8, 8)] if DRY else [(8192, 8192, 8192), (4096, 3072, 1024), (4096, 1024, 1024), (256, 1024, 1024)]
        for precision in ("fp16", "bf16", "tf32", "fp32"):
            for m, k, n in shapes:
                row: dict[str, Any] = {"what": f"product, {precision}", "shape": f"{m}x{k}x{n}"}
                report.case(rows, 5.0, row, lambda p=precision, m=m, k=k, n=n: product_rate(p, m, k, n))
    return found


def numbers(shape: tuple[int, ...], precision: str, size: float = 1.0) -> np.ndarray:
    """Normals in a format, over and over: products of zeros take less power, and a faster clock."""
    some = np.float32(size) * np.random.default_rng(0).standard_normal(2**20, np.float32)
    return np.resize(formats.to_host_format(some, precision), shape)


def product_rate(precision: str, m: int, k: int, n: int) -> dict[str, float]:
    form = formats.of(precision)
    a, b = cuda.to_device(numbers((m, k), precision)), cuda.to_device(numbers((k, n), precision, 1 / 32))
    out, flow = cuda.device_array((m, n), form.dtype), graph.new_stream()
    multiply, count = products.of(form), 1 if DRY else 20

    def run() -> None:
        for _ in range(count):
            multiply(a, b, out, flow)

    cost = replayed(run, flow) / count
    return {"TFLOP/s": 2e-12 * m * k * n / cost, "us": 1e6 * cost}


def replayed(run: Callable[[], None], flow: Any) -> float:
    """Seconds of launches that are recorded, where that can be, after one run outside."""
    run()
    flow.synchronize()
    replay = graph.record(run, flow) or run
    replay()
    return seconds(replay, 5)


# ---- right ----------------------------------------------------------------------------------------------------------


def right(report: Report) -> None:
    with report.section("right") as rows:
        report.case(rows, 5.0, {"what": "float32 normals"}, bits_of_normals)
        n, steps = (64, 5) if DRY else (100_000, 100)
        for dtype in (np.float32, np.float64):
            for name, (process, x0, method) in list(PATHS.items())[: 4 if dtype is np.float32 else 1]:
                row = {"what": name, "case": np.dtype(dtype).name}
                report.case(
                    rows, 20.0, row,
                    lambda p=process, x0=x0, m=method, dtype=dtype: bits_of_paths(p, x0, m, n, steps, dtype),
                )  # fmt: skip
        report.case(rows, 20.0, {"what": "histogram", "case": "float32"}, lambda: bits_of_a_histogram(n, steps))
        for precision in ("fp32", "tf32", "fp16", "bf16"):
            report.case(
                rows, 30.0, {"what": "samples, 784-1024x3-784", "case": precision}, lambda p=precision: distance(p)
            )


def agreement(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    same = np.asarray(ours) == np.asarray(theirs)
    scale = float(np.abs(theirs).max())
    return {
        "numbers": same.size,
        "equal bits": float(same.mean()),
        "largest difference / largest": float(np.abs(np.float64(ours) - theirs).max()) / scale,
    }


def lanes(out: Any, first_path: Any, keys: Any) -> None:
    """Kernel: four normals of a block for each row and column."""
    i, j = cuda.blockIdx.x, cuda.threadIdx.x
    for lane in range(4):
        out[i, j, lane] = network_kernels.normal(keys, first_path, i, j, 0, 3, lane)


def bits_of_normals() -> dict[str, Any]:
    n, columns = (8, 8) if DRY else (4096, 256)
    out, first, seed = cuda.to_device(np.zeros((n, columns, 4), np.float32)), 2**32 - 100, 2**63 + 5
    cuda.jit(lanes)[n, columns](out, np.uint64(first), round_keys(seed))
    wanted = np.empty((4, n, columns), np.float32)
    stream.fill_steps(wanted, first, 3, 0, seed)
    return agreement(np.moveaxis(out.copy_to_host(), 2, 0), wanted)


def bits_of_paths(process: Any, x0: Any, method: str, n: int, steps: int, dtype: Any) -> dict[str, Any]:
    run = {"n_steps": steps, "n_paths": n, "method": method, "seed": 5, "dtype": dtype}
    ours = sde.simulate(process, x0, (0.0, 1.0), device="cuda", **run)
    return agreement(ours.final, sde.simulate(process, x0, (0.0, 1.0), **run).final)


def bits_of_a_histogram(n: int, steps: int) -> dict[str, Any]:
    process, x0, _ = PATHS["Ornstein-Uhlenbeck"]
    counts = []
    for device in ("cuda", "cpu"):
        reduce = [sde.Histogram(-3.0, 3.0, 64)]
        run = sde.simulate(
            process, x0, (0.0, 1.0), n_steps=steps, n_paths=n, seed=5, dtype=np.float32, reduce=reduce, device=device
        )
        (found,) = run.reductions if isinstance(run.reductions, (list, tuple)) else [run.reductions]
        counts.append(np.asarray(found.counts))
    return agreement(counts[0], counts[1])


def network(dim: int, hidden: tuple[int, ...]) -> Any:
    """A network with weights of the usual size, and a head that knows its process."""
    net = sde.ScoreMLP(dim, hidden, n_frequencies=FREQUENCIES, seed=1)
    return net.with_parameters(net.parameters, head=Head("edm", VP, np.zeros(dim), 0.5, VP.t_min))


def distance(precision: str) -> dict[str, Any]:
    dim, hidden = (6, (8, 8)) if DRY else NETWORKS["784-1024x3-784"]
    net, n = network(dim, hidden), 4 if DRY else 300
    run = {"n_steps": 3 if DRY else 20, "seed": 5, "first_path": 3}
    ours = sde.sample(VP, net, n, device="cuda", precision=precision, **run)
    found = agreement(ours, sde.sample(VP, net, n, **run))
    record, graph.record = graph.record, lambda launches, flow: None
    try:
        plain = sde.sample(VP, net, n, device="cuda", precision=precision, **run)
    finally:
        graph.record = record
    return {**found, "recorded = launched": bool((plain == ours).all())}


# ---- paths and normals ----------------------------------------------------------------------------------------------


def paths(report: Report) -> None:
    cases = [(name, device, np.float32) for name in PATHS for device in ("cuda", "cuda:fast")]
    cases += [("Ornstein-Uhlenbeck", "cuda", np.float64)]
    cases = cases[:3] if DRY else cases
    with report.section("paths") as rows:
        for name, device, dtype in cases:
            row = {"what": name, "device": device, "dtype": np.dtype(dtype).name}
            report.case(rows, 20.0, row, lambda n=name, v=device, t=dtype: path_rate(n, v, t))


def path_rate(name: str, device: str, dtype: Any) -> dict[str, Any]:
    process, x0, method = PATHS[name]
    n = 64 if DRY else 2**23

    def run(steps: int) -> None:
        sde.simulate(
            process,
            x0,
            (0.0, 0.001 * steps),
            n_steps=steps,
            n_paths=n,
            method=method,
            seed=1,
            dtype=dtype,
            device=device,
        )

    short, long = (4, 8) if DRY else (1024, 1024)
    first = timed(lambda: run(short))
    once = seconds(lambda: run(short))
    if not DRY:  # long enough for what a call costs once to be forgotten
        per_step = max(once / short, 1e-9)
        long = int(min(max(4 * short, 2.0 / per_step), 60_000))
    cost = seconds(lambda: run(long), 1 if DRY else 2) - once
    rate = n * (long - short) / cost if cost > 0 else math.nan
    found = {"path-steps/s": rate, "paths": n, "steps": long, "first call, s": first}
    if name.startswith("geometric"):
        found["/ published"] = rate / PUBLISHED
    return found


def normals(report: Report) -> None:
    with report.section("normals") as rows:
        for kind in ("cuda",) if DRY else ("cuda", "cuda:fast"):
            report.case(rows, 10.0, {"what": "float32 normals", "device": kind}, lambda k=kind: normal_rate(k))


def normal_rate(kind: str) -> dict[str, Any]:
    """A walk without drift does nothing but draw normals and add them: its path-steps are normals."""
    process = sde.Wiener(1.0)
    n, short, long = (64, 4, 8) if DRY else (2**23, 1024, 16384)

    def run(steps: int) -> None:
        sde.simulate(
            process, 0.0, (0.0, 1.0), n_steps=steps, n_paths=n, seed=1, dtype=np.float32, method="euler_maruyama",
            device=kind,
        )  # fmt: skip

    run(short)
    once = seconds(lambda: run(short))
    cost = seconds(lambda: run(long), 2) - once
    return {"normals/s": n * (long - short) / cost if cost > 0 else math.nan}


# ---- sampling -------------------------------------------------------------------------------------------------------


def sampling(report: Report, copy: float) -> dict[tuple[str, int], float]:
    best: dict[tuple[str, int], float] = {}
    cases = [(name, batch, "fp16") for name in NETWORKS for batch in BATCHES]
    cases += [("3072-1024x4-3072", 4096, precision) for precision in ("bf16", "tf32", "fp32")]
    if DRY:
        cases = [(name, 4, "fp32") for name in NETWORKS]
    with report.section("sampling") as rows:
        for name, batch, precision in cases:
            row = {"network": name, "batch": batch, "precision": precision}
            report.case(rows, 15.0, row, lambda n=name, b=batch, p=precision: step_cost(n, b, p, copy))
            if precision in ("fp16", "fp32") and "us a step" in rows[-1]:
                best.setdefault((name, batch), rows[-1]["us a step"])
    return best


def step_cost(name: str, batch: int, precision: str, copy: float) -> dict[str, Any]:
    dim, hidden = (6, (8,) * len(NETWORKS[name][1])) if DRY else NETWORKS[name]
    net = network(dim, hidden)
    steps = 3 if DRY else 500
    form = formats.of(precision)
    given, program = parts(net, steps)
    runner = engine.Runner(engine.Resident(given, program, form), batch, products.of(form), 1)
    cost = seconds(lambda: runner.run(0)) / program.n_steps

    def whole() -> None:
        sde.sample(VP, net, batch, n_steps=steps, seed=1, device="cuda", precision=precision, denoise=False)

    called = seconds(whole, 1)
    widths = [dim, *hidden, dim]
    flow, multiply = graph.new_stream(), products.of(form)
    arrays = [cuda.to_device(numbers((batch, width), precision)) for width in widths]
    weights = [cuda.to_device(numbers(shape, precision, 1 / 32)) for shape in itertools.pairwise(widths)]

    def alone() -> None:
        for k, w in enumerate(weights):
            multiply(arrays[k], w, arrays[k + 1], flow)

    gemm = replayed(alone, flow)
    low = form.dtype.itemsize
    moved = batch * (dim * (8 + 2 * low) + sum(hidden) * 2 * low)
    floor = gemm + moved / copy
    return {
        "us a step": 1e6 * cost, "recorded": all(runner.replays.values()) and bool(runner.replays),
        "products, us": 1e6 * gemm, "memory, us": 1e6 * moved / copy, "/ floor": cost / floor,
        f"sample() of {steps}, s": called,
    }  # fmt: skip


def parts(net: Any, steps: int) -> tuple[Any, Any]:
    """The arrays and the table that ``sample`` hands to the device."""
    from sdesim.generate import device

    caught: list[Any] = []

    def catch(plan: Any, n: int, first_path: int, advance_of: Any, **_: Any) -> None:
        caught.extend(device.described(plan, advance_of))

    draw, device.draw = device.draw, catch  # type: ignore[assignment]
    try:
        sde.sample(VP, net, 1, n_steps=steps, seed=1, device="cuda", denoise=False)
    finally:
        device.draw = draw
    return caught[0], caught[1]


# ---- peers ----------------------------------------------------------------------------------------------------------


def peers(report: Report, ours: dict[tuple[str, int], float]) -> None:
    found = [name for name in ("torch", "jax") if importlib.util.find_spec(name)]
    with report.section("peers") as rows:
        if not found:
            rows.append({"what": "neither torch nor jax is installed"})
        for (name, batch), cost in ours.items():
            for peer in found:
                for kind in ("eager", "graph") if peer == "torch" else ("jit of a scan",):
                    row = {"network": name, "batch": batch, "peer": f"{peer}, {kind}"}
                    make = torch_step if peer == "torch" else jax_step
                    report.case(
                        rows, 25.0, row, lambda m=make, n=name, b=batch, k=kind, c=cost: compared(m(n, b, k), c)
                    )
        for peer in found:
            row = {"network": "Ornstein-Uhlenbeck", "peer": peer}
            report.case(rows, 25.0, row, torch_paths if peer == "torch" else jax_paths)


def compared(us: float, ours: float) -> dict[str, float]:
    return {"us a step": us, "sdesim, us": ours, "sdesim is faster by": us / ours}


def torch_device() -> Any:
    import torch

    return torch.device("cpu" if DRY else "cuda")


def torch_step(name: str, batch: int, kind: str) -> float:
    """Microseconds of a step in float16 with a float32 state, as one writes it in PyTorch."""
    import torch

    device = torch_device()
    dim, hidden = (6, (8,) * len(NETWORKS[name][1])) if DRY else NETWORKS[name]
    half = torch.float32 if DRY else torch.float16
    layers: list[Any] = []
    for inputs, outputs in zip([dim + 2 * FREQUENCIES, *hidden], hidden, strict=False):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.SiLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(hidden[-1], dim)).to(device, half)
    frequencies = 2 * math.pi * torch.logspace(-4, 0, FREQUENCIES, base=2.0, device=device)
    steps = 2 if DRY else 200
    h = 1.0 / 1000

    def step(x: Any, t: Any) -> Any:
        beta = 0.1 + 19.9 * t
        angle = (t * frequencies).expand(batch, FREQUENCIES)
        s = model(torch.cat([x.to(half), torch.sin(angle).to(half), torch.cos(angle).to(half)], dim=1))
        return x + (0.5 * beta * x + beta * s) * h + (beta * h) ** 0.5 * torch.randn_like(x)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        x, t = torch.randn(batch, dim, device=device), torch.ones(1, device=device)
        advance: Callable[[], Any]
        if kind == "graph" and device.type == "cuda":
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    x.copy_(step(x, t))
            wait()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                x.copy_(step(x, t))
                t.sub_(h)
            advance = graph.replay
        else:

            def advance() -> None:
                x.copy_(step(x, t))
                t.sub_(h)

        costs = []
        for _ in range(4):
            x.normal_()
            t.fill_(1.0)
            wait()
            start = time.perf_counter()
            for _ in range(steps):
                advance()
            wait()
            costs.append((time.perf_counter() - start) / steps)
    return 1e6 * min(costs)


def jax_step(name: str, batch: int, kind: str) -> float:
    """Microseconds of a step in float16 with a float32 state, all steps in one compiled scan."""
    import jax
    import jax.numpy as jnp

    dim, hidden = (6, (8,) * len(NETWORKS[name][1])) if DRY else NETWORKS[name]
    widths, half = [dim + 2 * FREQUENCIES, *hidden, dim], jnp.float32 if DRY else jnp.float16
    key = jax.random.key(0)
    weights = [
        jax.random.normal(jax.random.fold_in(key, k), shape, half) / math.sqrt(shape[0])
        for k, shape in enumerate(itertools.pairwise(widths))
    ]
    frequencies = 2 * math.pi * jnp.logspace(-4, 0, FREQUENCIES, base=2.0)
    steps = 2 if DRY else 200
    h = 1.0 / 1000

    @jax.jit
    def run(x: Any, key: Any) -> Any:
        def step(x: Any, k: Any) -> Any:
            t = 1.0 - k * h
            beta = 0.1 + 19.9 * t
            angle = jnp.broadcast_to(t * frequencies, (batch, FREQUENCIES))
            u = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], axis=1).astype(half)
            for number, w in enumerate(weights):
                u = u @ w
                u = jax.nn.silu(u) if number + 1 < len(weights) else u
            z = jax.random.normal(jax.random.fold_in(key, k), x.shape)
            return x + (0.5 * beta * x + beta * u.astype(jnp.float32)) * h + jnp.sqrt(beta * h) * z, None

        return jax.lax.scan(step, x, jnp.arange(steps))[0]

    x = jax.random.normal(key, (batch, dim))
    run(x, key).block_until_ready()
    costs = []
    for _ in range(3):
        start = time.perf_counter()
        run(x, key).block_until_ready()
        costs.append((time.perf_counter() - start) / steps)
    return 1e6 * min(costs)


def torch_paths() -> dict[str, float]:
    """Ornstein-Uhlenbeck in PyTorch, in place, eager."""
    import torch

    device = torch_device()
    n, steps = (64, 4) if DRY else (2**23, 256)
    with torch.inference_mode():
        x, z = torch.ones(n, device=device), torch.empty(n, device=device)

        def run() -> None:
            for _ in range(steps):
                z.normal_()
                x.mul_(1.0 - 0.5 * 0.001).add_(z, alpha=0.7 * math.sqrt(0.001))
            if device.type == "cuda":
                torch.cuda.synchronize()

        run()
        start = time.perf_counter()
        run()
        return {"path-steps/s": n * steps / (time.perf_counter() - start)}


def jax_paths() -> dict[str, float]:
    """Ornstein-Uhlenbeck in JAX, one compiled scan."""
    import jax
    import jax.numpy as jnp

    n, steps = (64, 4) if DRY else (2**23, 256)

    @jax.jit
    def run(key: Any) -> Any:
        def step(x: Any, k: Any) -> Any:
            z = jax.random.normal(jax.random.fold_in(key, k), (n,))
            return x - 0.5 * x * 0.001 + 0.7 * math.sqrt(0.001) * z, None

        return jax.lax.scan(step, jnp.ones(n), jnp.arange(steps))[0]

    run(jax.random.key(0)).block_until_ready()
    start = time.perf_counter()
    run(jax.random.key(1)).block_until_ready()
    return {"path-steps/s": n * steps / (time.perf_counter() - start)}


# ---- what was to be shown on an H200 --------------------------------------------------------------------------------

CLAIMS = [  # section, row, figure, bar, whether the figure is to be above it
    ("right", {"what": "float32 normals"}, "equal bits", 1.0, True),
    *[("right", {"what": name, "case": "float32"}, "equal bits", 1.0, True) for name in (*PATHS, "histogram")],
    ("right", {"case": "fp32"}, "largest difference / largest", 3e-5, False),
    ("paths", {"what": "Ornstein-Uhlenbeck", "device": "cuda", "dtype": "float32"}, "path-steps/s", 4e11, True),
    ("paths", {"what": "Ornstein-Uhlenbeck", "device": "cuda:fast"}, "path-steps/s", 1e12, True),
    ("paths", {"what": "geometric, 3 components", "device": "cuda:fast"}, "/ published", 100.0, True),
    *[("sampling", {"network": n, "batch": 4096, "precision": "fp16"}, "/ floor", 1.5, False) for n in NETWORKS],
    *[("peers", {"network": n, "batch": 4096, "peer": "torch, eager"}, "sdesim is faster by", 1.5, True)
      for n in NETWORKS],
]  # fmt: skip


def claims(report: Report) -> None:
    with report.section("claims") as rows:
        for section, wanted, figure, bar, above in CLAIMS:
            found = [row for row in report.figures[section] if wanted.items() <= row.items() and figure in row]
            value = found[0][figure] if found else math.nan
            met = "not measured" if math.isnan(value) else value >= bar if above else value <= bar
            case = ", ".join(str(part) for part in wanted.values())
            rows.append({"what": case, "figure": figure, "bar": bar, "found": value, "met": met})


# ---- in the simulator -----------------------------------------------------------------------------------------------


def stand_in() -> None:
    """NumPy for the products, which the simulator would take minutes for."""

    class Host:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, a: Any, b: Any, out: Any, flow: Any) -> None:
            left, right = (formats.from_host_format(v.copy_to_host(), self.name) for v in (a, b))
            out.copy_to_device(formats.to_host_format(left @ right, self.name))

    products.of = lambda form: Host(form.name)  # type: ignore[assignment]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="tiny cases in the simulator, without a GPU")
    parser.add_argument("--seconds", type=float, default=450.0, help="when to stop starting new cases")
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH after every section")
    options = parser.parse_args()
    if options.dry:
        stand_in()
    report = Report(options.seconds, options.json)
    machine(report)
    copy = ceilings(report)["copy"]
    right(report)
    paths(report)
    ours = sampling(report, copy)
    normals(report)
    peers(report, ours)
    claims(report)
    print(f"\n{time.perf_counter() - report.started:.0f} s in all, {len(report.errors)} errors", flush=True)
    for where, error in report.errors.items():
        print(f"-- {where}: {error.splitlines()[0]}", file=sys.stderr)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
