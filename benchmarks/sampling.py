"""Are the samples right, and how long does a step take? With exact scores, and beside PyTorch when it is installed.

    python benchmarks/sampling.py             both parts, about four CPU minutes
    python benchmarks/sampling.py --quick     fewer samples and rounds
    python benchmarks/sampling.py --json -    JSON on stdout, the tables on stderr

**Right.** With the exact score of a Gaussian mixture, in 2 and in 16 dimensions, every sampler's output is tested
against fresh draws: the energy distance by permutation (n = 4000), all first and second moments, and χ² tests of eight
random projections against their exact laws (n = 20 000). A p-value is that of the smallest of its tests times their
number. Broken samplers (the drift's sign turned, 1 for the flow's ½, one fifth of the score missing) stand below: their
p-values are to vanish. A p below 0.05/(number of tests) would say that a sampler is wrong.

**Speed.** CPU milliseconds a step of Euler-Maruyama with an MLP of 3 layers of 1024, batch 256, float32, one thread, as
``sample`` runs it, noise included. PyTorch runs the same step eagerly in float32. The contenders take turns in one
process; a figure is the median over rounds. Compare within one run only.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

import numpy as np  # noqa: E402

import fresh_draws  # noqa: E402
import sdesim as sde  # noqa: E402

RUNS = [
    ("reverse_sde", {"n_steps": 400}), ("reverse_sde", {"n_steps": 150, "scheme": "heun"}),
    ("reverse_sde", {"n_steps": 150, "scheme": "sra"}), ("predictor_corrector", {"n_steps": 200}),
    ("annealed_langevin", {"n_steps": 500}), ("ancestral", {"n_steps": 500}),
    ("dpm_solver", {"n_steps": 150, "scheme": "sde_2m"}), ("dpm_solver", {"n_steps": 64}),
    ("edm_heun", {"n_steps": 64}), ("edm_heun", {"n_steps": 64, "churn": 5.0}), ("probability_flow", {"n_steps": 64}),
    ("probability_flow", {"n_steps": 32, "scheme": "rk4"}), ("probability_flow", {"rtol": 1e-4}),
]  # fmt: skip
FREQUENCIES, WIDTH, BATCH = 64, 1024, 256
SPEEDS = {784: 12, 3072: 6}  # dimension: steps a round


def plane() -> Any:
    cov = np.array([[0.1, 0.04], [0.04, 0.1]])
    return sde.targets.GaussianMixture([0.3, 0.4, 0.3], [[-1.5, 0.3], [1.0, 0.6], [0.2, -1.1]], np.array([cov] * 3))


def space() -> Any:
    rng = np.random.default_rng(4)
    means = rng.normal(size=(3, 16))
    return sde.targets.GaussianMixture(np.full(3, 1 / 3), means - means.mean(axis=0), rng.uniform(0.1, 0.4, (3, 16)))


class Turned(sde.VariancePreserving):
    """The drift's sign turned, with the right marginals."""

    def drift(self, x: Any, t: Any) -> Any:
        return -super().drift(x, t)


class Doubled(sde.VariancePreserving):
    """σ² doubled, with the right marginals: the flow has 1 for its ½."""

    def diffusion(self, x: Any, t: Any) -> Any:
        return np.sqrt(2.0) * super().diffusion(x, t)


def tests(x: np.ndarray, target: Any, small: int, seed: int) -> dict[str, float]:
    return {
        "moments": fresh_draws.moments(x, target),
        "projections": fresh_draws.projected_chi_square(x, target),
        "energy": fresh_draws.energy_permutation(x[:small], target.sample(small, seed=seed)),
    }


def right(quick: bool) -> list[dict[str, Any]]:
    n, small = (4000, 1000) if quick else (20_000, 4000)
    process, rows = sde.VariancePreserving(), []
    for name, target in (("2-D", plane()), ("16-D", space())):
        score = sde.marginal_score(process, target)
        cases: list[tuple[str, Any, Any, dict[str, Any]]] = [("", process, score, options) for _, options in RUNS]
        methods = [method for method, _ in RUNS]
        if name == "2-D":
            cases += [
                ("sign of the drift", Turned(), score, {"n_steps": 250}),
                ("1 for the ½", Doubled(), score, {"n_steps": 64}),
                ("0.8 of the score", process, lambda x, t: 0.8 * score(x, t), {"n_steps": 250, "dim": 2}),  # noqa: B023
            ]
            methods += ["reverse_sde", "probability_flow", "reverse_sde"]
        for k, (method, (broken, own, s, options)) in enumerate(zip(methods, cases, strict=True)):
            started = time.process_time()
            x = sde.sample(own, s, n, method=method, seed=100 + k, **options)
            seconds = time.process_time() - started
            shown = {key: value for key, value in options.items() if key != "dim"}
            found = tests(x, target, small, 1000 + k)
            rows.append(
                {"target": name, "method": method, "options": shown, "broken": broken, "cpu_s": seconds, **found}
            )
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def ours(d: int) -> Callable[[int], None]:
    net = sde.ScoreMLP(d, (WIDTH,) * 3, n_frequencies=FREQUENCIES)
    process = sde.VariancePreserving()

    def run(steps: int) -> None:
        sde.sample(process, net, BATCH, n_steps=steps, seed=0, workers=1, denoise=False)

    return run


def torch_run(d: int) -> Callable[[int], None]:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise([d + 2 * FREQUENCIES, WIDTH, WIDTH, WIDTH]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.SiLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, d))
    frequencies = 2 * np.pi * torch.logspace(-4, 0, FREQUENCIES, base=2.0)

    def run(steps: int) -> None:
        with torch.inference_mode():
            x = torch.randn(BATCH, d)
            h = 1.0 / steps
            for k in range(steps):
                t = torch.full((BATCH, 1), 1.0 - k * h)
                beta = 0.1 + 19.9 * (1.0 - k * h)
                angle = t * frequencies
                s = model(torch.cat([x, torch.sin(angle), torch.cos(angle)], dim=1))
                x = x + (0.5 * beta * x + beta * s) * h + (beta * h) ** 0.5 * torch.randn_like(x)

    return run


def speed(quick: bool, with_torch: bool) -> list[dict[str, Any]]:
    rows = []
    for d, steps in SPEEDS.items():
        runs = {"sdesim": ours(d)} | ({"torch": torch_run(d)} if with_torch else {})
        for run in runs.values():
            run(2)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(3 if quick else 9):
            for name, run in runs.items():
                start = time.process_time()
                run(2)
                middle = time.process_time()
                run(2 + steps)  # the difference leaves out what is paid once
                seconds[name].append((time.process_time() - 2 * middle + start) / steps)
        ms = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
        other = ms.get("torch", np.nan)
        rows.append({"d": d, "sdesim_ms": ms["sdesim"], "torch_ms": other, "ratio": other / ms["sdesim"], "bar": 0.9})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds")
    parser.add_argument("--part", choices=("right", "speed"), help="one part only")
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH ('-' for stdout)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    try:
        import torch

        version = torch.__version__
    except ImportError:
        version = ""
    result: dict[str, Any] = {"torch": version}
    if options.part != "speed":
        result["right"] = right(options.quick)
        print(f"{'target':8}{'method':21}{'options':36}{'p moments':>10}{'p proj.':>9}{'p energy':>10}{'CPU s':>8}",
              file=out)  # fmt: skip
        for r in result["right"]:
            text = ", ".join(f"{key}={value}" for key, value in r["options"].items())
            text += f"; broken: {r['broken']}" if r["broken"] else ""
            print(f"{r['target']:8}{r['method']:21}{text:36}{r['moments']:>10.2g}{r['projections']:>9.2g}"
                  f"{r['energy']:>10.2g}{r['cpu_s']:>8.1f}", file=out)  # fmt: skip
        whole = [r for r in result["right"] if not r["broken"]]
        least = min(min(r["moments"], r["projections"], r["energy"]) for r in whole)
        count = 3 * len(whole)
        print(f"smallest p of {count} tests of whole samplers: {least:.2g} (limit {0.05 / count:.1g})", file=out)
    if options.part != "right":
        result["speed"] = speed(options.quick, bool(version))
        where = f"{platform.machine()}, load {os.getloadavg()[0]:.1f}"
        print(f"\nA step, 3x{WIDTH}, batch {BATCH}, float32, one thread, CPU ms ({where})", file=out)
        print(f"{'d':>6}{'sdesim':>10}{'torch':>10}{'speed':>9}{'claim':>9}", file=out)
        for r in result["speed"]:
            print(f"{r['d']:>6}{r['sdesim_ms']:>10.2f}{r['torch_ms']:>10.2f}{r['ratio']:>8.2f}x{'>=':>5}{r['bar']}",
                  file=out)  # fmt: skip
        if not version:
            print("PyTorch is not installed; its column is empty (pip install torch)", file=out)
    if options.json:
        text = json.dumps(result, indent=1)
        if options.json == "-":
            print(text)
        else:
            pathlib.Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
