"""How good learned scores are in the plane: a ring of eight modes, two moons, a checkerboard.

    python benchmarks/score_quality.py                    one training of each shape
    python benchmarks/score_quality.py --trainings 3      three, from other seeds, to see how much they differ
    python benchmarks/score_quality.py --quick            a tenth of the training: the bars are not for it
    python benchmarks/score_quality.py --json -           JSON on stdout, the table on stderr

One recipe for all: variance-preserving noise, four layers of 128 with the preconditioning of Karras et al.
(2022), denoising score matching on 200 000 points, one thread; the settings are the constants below. Networks of this
width take a learning rate three times the library's default, which is for wide ones: 4000 steps with three layers bring
the checkerboard to an NLL gap of 0.20 at 2e-3, 0.12 at 5e-3 and 0.10 at 1e-2. Beside each figure of the network stands
that of the exact score by the same method, the floor. All is measured on points that were not trained on.

NLL gap       E[−log q(x)] − E[−log p(x)] over the points, nats: q is the density of the probability flow at t_min,
              with the network's exact divergence; Heun's method in 60 steps, equal in log t
samples       probability flow: Heun, 60 steps; reverse SDE: Euler-Maruyama, 240 steps; equal steps in each half decade
              of t from 1 to t_min = 0.001, then the mean of x₀ given x (Tweedie), which takes the last noise away
in support    share of the samples inside the squares of the checkerboard
modes, share  modes of the ring with a share of at least 0.02 of the samples within 4 sd; the smallest and largest share
log p         mean log density of the samples under the true law, less that of its own points: 0 for perfect samples
F(σ/α)        E|s − ∇log p_t|² / E|∇log p_t|² over p_t, at the noise-to-signal ratio σ/α of the time t

± is one standard error of the points or samples; seeds of training differ by more, see --trainings.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys
import time
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

import sdesim as sde  # noqa: E402

HIDDEN, N_FREQUENCIES = (128, 128, 128, 128), 8
STEPS, BATCH, RATE, TIMES, EMA = 8000, 512, 7e-3, (-1.5, 1.5), 0.999
DATA, POINTS, SAMPLES = 200_000, 4000, 10_000
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

PROCESS = sde.VariancePreserving()
SHAPES: dict[str, Any] = {
    "ring of 8": sde.targets.ring(), "two moons": sde.targets.two_moons(), "checkerboard": sde.targets.checkerboard(),
}  # fmt: skip
BARS = {"ring of 8": 0.05, "checkerboard": 0.2}  # of the NLL gap, nats
CPU_BAR, SUPPORT_BAR = 60.0, 0.9


def train(target: Any, steps: int, seed: int) -> tuple[Any, float]:
    """A trained score, and what training took in CPU seconds (compiled before)."""
    data = target.sample(DATA, 1).astype(np.float32)
    net = sde.ScoreMLP(2, HIDDEN, n_frequencies=N_FREQUENCIES, seed=seed)
    settings: dict[str, Any] = {
        "process": PROCESS, "batch_size": BATCH, "learning_rate": RATE, "times": TIMES, "ema": EMA, "seed": seed,
        "workers": 1,
    }  # fmt: skip
    sde.fit_score(net, data, n_iterations=2, **settings)
    start = time.process_time()
    fit = sde.fit_score(net, data, n_iterations=steps, progress=sys.stderr.isatty(), **settings)
    return fit.score, time.process_time() - start


def divergence(score: Any, x: np.ndarray, t: float) -> Any:
    """∇·s: the network's own, or central differences of a closed form."""
    if hasattr(score, "divergence"):
        return score.divergence(x, t)
    h = 1e-4 * np.sqrt(PROCESS.added_variance(t))
    return sum((score(x + h * e, t) - score(x - h * e, t)) @ e for e in np.eye(2)) / (2.0 * h)


def log_likelihood(score: Any, x: np.ndarray, n_steps: int = 60) -> np.ndarray:
    """log q(x) by the probability flow, d log q/dt = −∇·v along dx/dt = v (Song et al. 2021, equation 39)."""
    flow = sde.ProbabilityFlow(PROCESS, score, PROCESS.horizon, dim=2)

    def slope(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        spread = -0.5 * PROCESS.diffusion(0.0, t) ** 2 * divergence(score, x, t)
        return flow.velocity(x, t), 2.0 * PROCESS.drift(1.0, t) + spread

    gained = np.zeros(len(x))
    for t, later in itertools.pairwise(np.geomspace(PROCESS.t_min, PROCESS.horizon, n_steps + 1)):
        h = later - t
        v0, d0 = slope(x, t)
        v1, d1 = slope(x + h * v0, later)
        x, gained = x + 0.5 * h * (v0 + v1), gained + 0.5 * h * (d0 + d1)
    return sde.targets.Gaussian(np.zeros(2), PROCESS.added_variance(PROCESS.horizon)).log_density(x) + gained


def samples(score: Any, kind: type, n: int, n_steps: int, method: str) -> np.ndarray:
    """Samples along the reverse clock, n_steps in each half decade of t, and the mean of x₀ given the last of them."""
    process = kind(PROCESS, score, PROCESS.horizon, dim=2)
    x = sde.targets.Gaussian(np.zeros(2), PROCESS.added_variance(PROCESS.horizon)).sample(n, 5)
    clock = PROCESS.horizon - np.geomspace(PROCESS.horizon, PROCESS.t_min, 7)
    for k, span in enumerate(itertools.pairwise(clock)):
        x = sde.simulate(process, x, span, n_steps=n_steps, method=method, seed=6 + k, workers=1).final
    t = PROCESS.t_min
    return (x + PROCESS.added_variance(t) * score(x, t)) / PROCESS.mean_factor(t)


def mean(values: np.ndarray) -> list[float]:
    """The mean and its standard error."""
    return [float(values.mean()), float(values.std() / np.sqrt(len(values)))]


def judged(target: Any, x: np.ndarray) -> dict[str, Any]:
    """What samples are worth."""
    if hasattr(target, "contains"):
        return {"in_support": mean(target.contains(x))}
    own = mean(target.log_density(target.sample(10 * len(x), 3)))
    gap, error = mean(target.log_density(x))
    found: dict[str, Any] = {"log_p": [gap - own[0], float(np.hypot(error, own[1]))]}
    if target.n_components == 8:
        distance = np.linalg.norm(x[:, None] - target.means, axis=2)
        near = distance.min(axis=1) < 4.0 * np.sqrt(target.covs.max())
        share = np.bincount(distance.argmin(axis=1)[near], minlength=8) / len(x)
        error = float(np.sqrt(0.125 * 0.875 / len(x)))
        found |= {"modes": int((share >= 0.02).sum()), "shares": [float(share.min()), float(share.max()), error]}
    return found


def fisher(score: Any, exact: Any, target: Any, n: int) -> list[list[float]]:
    """The relative Fisher divergence and its standard error at every ratio σ/α."""
    t = np.geomspace(1e-6, PROCESS.horizon, 4001)
    times = np.interp(RATIOS, np.sqrt(PROCESS.added_variance(t)) / PROCESS.mean_factor(t), t)
    x0, noise = target.sample(n, 7), sde.targets.Gaussian(np.zeros(2), 1.0).sample(n, 8)
    rows = []
    for t in times:
        x = PROCESS.mean_factor(t) * x0 + np.sqrt(PROCESS.added_variance(t)) * noise
        true = exact(x, t)
        gap, error = mean(((score(x, t) - true) ** 2).sum(axis=1))
        size = float((true**2).sum(axis=1).mean())
        rows.append([gap / size, error / size])
    return rows


def measured(name: str, steps: int, share: int, seed: int) -> dict[str, Any]:
    """All figures of one training, and of the exact score beside it; ``share`` divides the numbers of points."""
    target = SHAPES[name]
    exact = sde.marginal_score(PROCESS, target)
    score, seconds = train(target, steps, seed)
    x = target.sample(POINTS // share, 4)
    found: dict[str, Any] = {"shape": name, "seed": seed, "cpu_seconds": seconds}
    found["nll_true"] = mean(-target.log_density(x))
    for who, s in (("network", score), ("exact", exact)):
        found[who] = {
            "nll_gap": mean(target.log_density(x) - log_likelihood(s, x)),
            "flow": judged(target, samples(s, sde.ProbabilityFlow, SAMPLES // share, 10, "heun")),
            "sde": judged(target, samples(s, sde.ReverseProcess, SAMPLES // share, 40, "euler_maruyama")),
        }
    found["fisher"] = fisher(score, exact, target, POINTS // share)
    return found


def met(row: dict[str, Any]) -> list[str]:
    """The bars of a shape, and whether they are met."""
    name, network = row["shape"], row["network"]
    bars = {f"training <= {CPU_BAR:g} CPU-s": row["cpu_seconds"] <= CPU_BAR}
    if name in BARS:
        bars[f"NLL gap <= {BARS[name]}"] = network["nll_gap"][0] <= BARS[name]
    if name == "checkerboard":
        bars[f"in support >= {SUPPORT_BAR}"] = min(network[k]["in_support"][0] for k in ("flow", "sde")) >= SUPPORT_BAR
    if name == "ring of 8":
        bars["8 of 8 modes"] = min(network[k]["modes"] for k in ("flow", "sde")) == 8
    return [f"{bar}: {'met' if good else 'NOT met'}" for bar, good in bars.items()]


def told(row: dict[str, Any], out: Any) -> None:
    print(f"\n{row['shape']}, seed {row['seed']}: {row['cpu_seconds']:.1f} CPU-s of training; "
          f"NLL of the points under the true law {row['nll_true'][0]:.4f}", file=out)  # fmt: skip
    print(f"  {'':32}{'network':>26}{'exact score':>26}", file=out)
    both = [row["network"], row["exact"]]
    lines = {"NLL gap, nats": [pm(b["nll_gap"]) for b in both]}
    for kind, label in (("flow", "probability flow"), ("sde", "reverse SDE")):
        for key, what in (("in_support", "in support"), ("log_p", "log p")):
            if key in both[0][kind]:
                lines[f"{label}, {what}"] = [pm(b[kind][key]) for b in both]
        if "modes" in both[0][kind]:
            lines[f"{label}, modes, share"] = [
                "{}/8 {:.3f}-{:.3f} ± {:.3f}".format(b[kind]["modes"], *b[kind]["shares"]) for b in both
            ]
    for label, values in lines.items():
        print(f"  {label:32}" + "".join(f"{value:>26}" for value in values), file=out)
    parts = [f"{ratio:g}: {pm(pair)}" for ratio, pair in zip(RATIOS, row["fisher"], strict=True)]
    print("  F(σ/α)  " + "  ".join(parts), file=out)
    print("  " + ";  ".join(met(row)), file=out, flush=True)


def pm(pair: list[float]) -> str:
    return f"{pair[0]:.4f} ± {pair[1]:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the training, a quarter of the points")
    parser.add_argument("--trainings", type=int, default=1, metavar="N", help="seeds of training for each shape")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="which of them")
    parser.add_argument("--json", metavar="PATH", help="write the figures to PATH ('-' for stdout)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    steps, share = (STEPS // 10, 4) if options.quick else (STEPS, 1)
    print(f"{len(HIDDEN)} x {HIDDEN[0]}, {steps} steps of {BATCH} at {RATE:g}, noise levels {TIMES}, "
          f"average {EMA:g}, one thread (load {os.getloadavg()[0]:.1f})", file=out)  # fmt: skip
    rows = []
    for name, seed in itertools.product(options.shapes, range(1, options.trainings + 1)):
        rows.append(measured(name, steps, share, seed))
        told(rows[-1], out)
    settings = {"hidden": HIDDEN, "steps": steps, "batch": BATCH, "rate": RATE, "times": TIMES, "ema": EMA}
    text = json.dumps({"settings": settings, "ratios": RATIOS, "rows": rows}, indent=1)
    if options.json == "-":
        print(text)
    elif options.json:
        pathlib.Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
