"""Training steps per second of score networks, and what the objectives cost, beside PyTorch when it is installed.

    python benchmarks/score.py             all cases, about three minutes
    python benchmarks/score.py --quick     fewer rounds
    python benchmarks/score.py --json -    JSON on stdout, the table on stderr

Denoising score matching, variance-preserving noise, input x beside 128 Fourier features of the noise level, SiLU,
Adam with a moving average of the weights, float32; one step is: draw a batch, forward, backward, update. PyTorch runs
eagerly with its fused Adam, also in float32 (on processors with bfloat16 matrix units it can be faster in that type,
which is another calculation). The contenders take turns in one process with one thread each; a figure is the median
over rounds of CPU seconds a step. CPU time forgives other work on the machine, but not a shared cache or a changing
clock: **compare within one run only.** "of sgemm" is the share of the rate that NumPy's own matrix product reaches in
the same rounds at 256 × 1024 × 1024, counting the operations of the network's matrix products alone.

The second table is the cost of the other objectives as a multiple of a denoising step of the same network.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

import sdesim as sde  # noqa: E402
from sdesim.core import blas  # noqa: E402
from sdesim.score.data import Data  # noqa: E402
from sdesim.score.feed import Feed  # noqa: E402
from sdesim.score.head import Head  # noqa: E402
from sdesim.score.noise_levels import Times  # noqa: E402
from sdesim.score.optimizer import Adam  # noqa: E402
from sdesim.score.passes import run  # noqa: E402

CASES = {  # dimension, width, hidden layers, batch, steps a round, the least speed-up that is claimed
    "2-D": (2, 512, 3, 512, 15, 1.0),
    "digits 64-D": (64, 512, 3, 512, 15, 1.0),
    "images 784-D": (784, 1024, 3, 256, 6, 0.95),
    "small 2-D": (2, 64, 3, 128, 300, 2.5),
}
FREQUENCIES = 64
COSTS = {"2-D": (2, 512, 512, 10), "64-D": (64, 512, 512, 10), "784-D": (784, 1024, 256, 4)}  # two hidden layers
OBJECTIVES = ("implicit", "sliced", "sliced_vr", "finite_difference")

Step = Callable[[], Any]


def points(d: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((10_000, d)).astype(np.float32)


def ours(d: int, width: int, depth: int, batch: int, objective: str = "denoising") -> Step:
    """One training step of sdesim, as ``fit_score`` runs it."""
    return learning(sde.ScoreMLP(d, (width,) * depth, n_frequencies=FREQUENCIES), batch, objective)


def learning(net: Any, batch: int, objective: str = "denoising") -> Step:
    data = Data(points(net.dim), net.dim)
    head = Head("edm", sde.VariancePreserving(), data.mean, data.spread, 1e-3)
    learner = net.learner(batch, objective, head=head)
    adam = Adam(learner.parameters, learner.gradient, n_steps=10**6)
    feed = Feed(learner, data, np.arange(0), Times(head, 1.0), 0, False)
    count = iter(range(10**6))

    def step() -> float:
        k = next(count)
        feed.prepare(k)
        run(feed.phase)
        run(learner.phases)
        adam.prepare(k)
        run(adam.phases)
        return float(learner.losses.mean())

    return step


def torch_step(d: int, width: int, depth: int, batch: int) -> Step:
    """The same step in PyTorch."""
    import torch

    widths = [d + 2 * FREQUENCIES, *[width] * depth]
    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.SiLU()]
    return torch_learning(torch.nn.Sequential(*layers, torch.nn.Linear(width, d)), d, batch)


def torch_learning(model: Any, d: int, batch: int) -> Step:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    adam = torch.optim.Adam(parameters, 1e-3, fused=True)
    data = torch.from_numpy(points(d))
    frequencies = 2 * np.pi * torch.logspace(-4, 0, FREQUENCIES, base=2.0)

    def step() -> float:
        x = data[torch.randint(0, len(data), (batch,))]
        t = torch.rand(batch, 1) * 0.999 + 1e-3
        alpha = torch.exp(-0.25 * t * t * 19.9 - 0.05 * t)
        sigma = torch.sqrt(1.0 - alpha * alpha)
        noise = torch.randn_like(x)
        angle = torch.log(sigma / alpha) * 0.25 * frequencies
        out = model(torch.cat([alpha * x + sigma * noise, torch.sin(angle), torch.cos(angle)], dim=1))
        loss = torch.nn.functional.mse_loss(out, noise)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-3)
        return loss.item()

    return step


def torch_mixer(net: Any) -> Any:
    """The network of a MixerMLP without a backbone or classes, as a PyTorch module of x beside 128 features."""
    import torch
    from torch import nn

    layout = net.layout
    w, t, side = layout.width, layout.n_tokens, layout.shape[0]

    class Normalised(nn.Module):
        """(1 + γ) LayerNorm(h) + β, then a layer over patches or over channels."""

        def __init__(self, inner: Any, across: bool) -> None:
            super().__init__()
            self.film, self.inner, self.across = nn.Linear(2 * FREQUENCIES, 2 * w), inner, across

        def forward(self, h: Any, features: Any) -> Any:
            gamma, beta = self.film(features)[:, None].chunk(2, dim=2)
            n = nn.functional.layer_norm(h, (w,)) * (1.0 + gamma) + beta
            return self.inner(n.transpose(1, 2)).transpose(1, 2) if self.across else self.inner(n)

    def mlp(inputs: int, hidden: int) -> Any:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, inputs))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.places = nn.Linear(layout.n_inputs, w), nn.Parameter(torch.zeros(t, w))
            self.blocks = nn.ModuleList()
            for _ in range(layout.n_blocks):
                self.blocks += [Normalised(mlp(t, layout.token_width), True)]
                self.blocks += [Normalised(mlp(w, layout.channel_width), False)]
            self.leave = Normalised(nn.Linear(w, layout.n_outputs), False)

        def forward(self, x: Any) -> Any:
            pictures, features = x[:, : net.dim].reshape(-1, 1, side, side), x[:, net.dim :]
            windows = nn.functional.unfold(
                pictures.expand(-1, layout.n_views, -1, -1), layout.patch + 2 * layout.context,
                padding=layout.context, stride=layout.patch,
            )  # fmt: skip
            h = self.enter(windows.transpose(1, 2)) + self.places
            for block in self.blocks:
                h = h + block(h, features)
            out = self.leave(h, features).transpose(1, 2)
            return nn.functional.fold(out, (side, side), layout.patch, stride=layout.patch).reshape(-1, net.dim)

    return Mixer()


def gemm() -> Step:
    a, b = (np.random.default_rng(1).standard_normal(s).astype(np.float32) for s in ((256, 1024), (1024, 1024)))
    out = np.empty((256, 1024), np.float32)
    return lambda: np.matmul(a, b, out=out)


def turns(steps: dict[str, tuple[Step, int]], rounds: int) -> dict[str, float]:
    """CPU seconds a step of each contender, the median over rounds in which all take their turn."""
    for step, _ in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (step, count) in steps.items():
            start = time.process_time()
            for _ in range(count):
                step()
            seconds[name].append((time.process_time() - start) / count)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def training(rounds: int, with_torch: bool) -> list[dict[str, Any]]:
    rows = []
    mixer = sde.MixerMLP((28, 28), n_frequencies=FREQUENCIES)
    for case, (d, width, depth, batch, count, bar) in [*CASES.items(), ("mixer 28x28", (784, 96, 4, 256, 2, 1.0))]:
        mixing = case.startswith("mixer")
        net = mixer if mixing else sde.ScoreMLP(d, (width,) * depth, n_frequencies=FREQUENCIES)
        steps = {"sdesim": (learning(net, batch), count), "sgemm": (gemm(), 20)}
        if with_torch:
            peer = torch_learning(torch_mixer(net), d, batch) if mixing else torch_step(d, width, depth, batch)
            steps["torch"] = (peer, count)
        seconds = turns(steps, rounds)
        flops = net.layout.flops(batch)
        rows.append(
            {
                "case": case, "net": f"{depth}x{width}", "batch": batch, "sdesim_ms": 1e3 * seconds["sdesim"],
                "torch_ms": 1e3 * seconds.get("torch", np.nan), "bar": bar,
                "ratio": seconds.get("torch", np.nan) / seconds["sdesim"], "gflops": flops / seconds["sdesim"] / 1e9,
                "of_sgemm": flops / seconds["sdesim"] / (2 * 256 * 1024 * 1024 / seconds["sgemm"]),
            }
        )  # fmt: skip
    return rows


def costs(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for case, (d, width, batch, count) in COSTS.items():
        steps = {name: (ours(d, width, 2, batch, name), count) for name in ("denoising", *OBJECTIVES)}
        seconds = turns(steps, rounds)
        rows.append(
            {"case": case, "net": f"2x{width}", "batch": batch, "denoising_ms": 1e3 * seconds["denoising"]}
            | {name: seconds[name] / seconds["denoising"] for name in OBJECTIVES}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH ('-' for stdout)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    try:
        import torch

        version = torch.__version__
    except ImportError:
        version = ""
    rounds = 5 if options.quick else 11
    with blas.single_threaded():
        trained, cost = training(rounds, bool(version)), costs(max(3, rounds // 2))
    print(f"Training step, float32, one thread, CPU ms ({platform.machine()}, load {os.getloadavg()[0]:.1f})", file=out)
    print(f"{'case':14}{'net':>8}{'batch':>7}{'sdesim':>9}{'torch':>9}{'speed':>8}{'claim':>8}{'GFLOP/s':>9}"
          f"{'of sgemm':>10}", file=out)  # fmt: skip
    for r in trained:
        print(f"{r['case']:14}{r['net']:>8}{r['batch']:>7}{r['sdesim_ms']:>9.2f}{r['torch_ms']:>9.2f}"
              f"{r['ratio']:>7.2f}x{'>=':>4}{r['bar']:<4}{r['gflops']:>9.0f}{100 * r['of_sgemm']:>9.0f}%",
              file=out)  # fmt: skip
    print(f"\nObjectives, as multiples of a denoising step\n{'case':14}{'net':>8}{'batch':>7}{'ms':>9}"
          + "".join(f"{name:>19}" for name in OBJECTIVES), file=out)  # fmt: skip
    for r in cost:
        print(f"{r['case']:14}{r['net']:>8}{r['batch']:>7}{r['denoising_ms']:>9.2f}"
              + "".join(f"{r[name]:>18.2f}x" for name in OBJECTIVES), file=out)  # fmt: skip
    if not version:
        print("PyTorch is not installed; its columns are empty (pip install torch)", file=out)
    if options.json:
        text = json.dumps({"torch": version, "training": trained, "objectives": cost}, indent=1)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    main()
