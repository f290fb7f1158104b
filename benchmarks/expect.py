"""Multilevel Monte Carlo: is the tolerance met, how does the cost grow, and what would plain Monte Carlo cost.

    python benchmarks/expect.py              100 seeds a tolerance; some minutes
    python benchmarks/expect.py --quick      20 seeds, looser tolerances; seconds
    python benchmarks/expect.py --json -     JSON on stdout, the table on stderr

The problems, both E[max(S_T − 1, 0)] (Lipschitz, with a kink) at T = 1 from S_0 = 1:

    gbm      dS = 0.05 S dt + 0.2 S dW, diagonal noise, Milstein. Exact value: Black & Scholes 1973.
    heston   dS = 0.05 S dt + √V S dW₁, dV = 2 (0.09 − V) dt + 0.3 √V (−0.7 dW₁ + √(1 − 0.49) dW₂), V_0 = 0.09, with
             max(V, 0) in the coefficients (full truncation). Feller ratio 2κθ/ξ² = 4. The two columns of noise do not
             commute: antithetic truncated Milstein. Exact value: the characteristic function (Heston 1993, in the form
             of Albrecher, Mayer, Schoutens & Tistaert 2007) integrated by Lewis's formula.

Columns: the share of seeds whose error is within the tolerance (confidence 0.99), the root mean square of the errors
over the tolerance, the mean cost in path-steps, plain Monte Carlo's cost for the same bias and half width, their ratio,
CPU seconds a call. Below: the slope d ln cost / d ln tolerance⁻¹ of a straight-line fit, with its 95 % interval. The
first call of a problem, which compiles or loads the kernels, is not counted.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr, stdtrit

from sdesim.expect import expect
from sdesim.processes.custom import ito
from sdesim.processes.geometric import GeometricBrownian

GROWTH, STRIKE, HORIZON = 0.05, 1.0, 1.0


@dataclasses.dataclass
class Problem:
    process: Any
    x0: Any
    f: Callable[[np.ndarray], np.ndarray]
    exact: float
    facts: str


@dataclasses.dataclass
class Row:
    problem: str
    tolerance: float
    seeds: int
    share_within: float
    rms_over_tolerance: float
    cost: float
    plain_cost: float
    levels: float
    cpu: float


def geometric(sigma: float = 0.2) -> Problem:
    def payoff(x: np.ndarray) -> np.ndarray:
        return np.maximum(x - STRIKE, 0.0)

    spread = sigma * math.sqrt(HORIZON)
    up = (math.log(1.0 / STRIKE) + (GROWTH + 0.5 * sigma**2) * HORIZON) / spread
    exact = math.exp(GROWTH * HORIZON) * ndtr(up) - STRIKE * ndtr(up - spread)
    return Problem(GeometricBrownian(GROWTH, sigma), 1.0, payoff, float(exact), "call on geometric Brownian motion")


def heston(kappa: float = 2.0, theta: float = 0.09, xi: float = 0.3, rho: float = -0.7) -> Problem:
    v0 = theta

    def drift(x, t, mu, kappa, theta):
        s, v = x
        return mu * s, kappa * (theta - np.maximum(v, 0.0))

    def diffusion(x, t, xi, rho):
        s, v = x
        root = np.sqrt(np.maximum(v, 0.0))
        return (root * s, 0.0), (xi * rho * root, xi * np.sqrt(1.0 - rho * rho) * root)

    def characteristic(u: complex) -> complex:
        """E exp(iu ln S_T)."""
        b = kappa - rho * xi * 1j * u
        d = np.sqrt(b * b + xi**2 * (1j * u + u * u))
        g, decay = (b - d) / (b + d), np.exp(-d * HORIZON)
        level = kappa * theta / xi**2 * ((b - d) * HORIZON - 2.0 * np.log((1.0 - g * decay) / (1.0 - g)))
        return complex(np.exp(1j * u * GROWTH * HORIZON + level + v0 * (b - d) / xi**2 * (1 - decay) / (1 - g * decay)))

    def integrand(u: float) -> float:
        return (characteristic(u - 0.5j) * np.exp(-1j * u * math.log(STRIKE))).real / (u * u + 0.25)

    exact = math.exp(GROWTH * HORIZON) - math.sqrt(STRIKE) / math.pi * quad(integrand, 0.0, 200.0, limit=500)[0]
    process = ito(
        drift, diffusion, dim=2, noise="general", mu=GROWTH, kappa=kappa, theta=theta, xi=xi, rho=rho
    )  # fmt: skip
    return Problem(
        process, (1.0, v0), lambda x: np.maximum(x[:, 0] - STRIKE, 0.0), exact,
        f"call in Heston's model, Feller ratio {2 * kappa * theta / xi**2:g}",
    )  # fmt: skip


def measure(name: str, problem: Problem, tolerance: float, seeds: int) -> Row:
    results = []
    start = time.process_time()
    for seed in range(seeds):
        results.append(expect(problem.process, problem.f, problem.x0, (0.0, HORIZON), tolerance, seed=seed))
    cpu = (time.process_time() - start) / seeds
    errors = np.array([result.value - problem.exact for result in results]) / tolerance
    return Row(
        name, tolerance, seeds, float((abs(errors) <= 1.0).mean()), float(np.sqrt((errors**2).mean())),
        float(np.mean([result.cost for result in results])), float(np.mean([result.plain_cost for result in results])),
        float(np.mean([len(result.levels) for result in results])), cpu,
    )  # fmt: skip


def slope(rows: list[Row], cost: Callable[[Row], float]) -> tuple[float, float]:
    """d ln cost / d ln tolerance⁻¹ and half its 95 % interval (Student's, from the scatter about the line)."""
    x = -np.log([row.tolerance for row in rows])
    y = np.log([cost(row) for row in rows])
    fit = np.polynomial.Polynomial.fit(x, y, 1).convert()
    rest, freedom = y - fit(x), len(x) - 2
    if freedom < 1:
        return float(fit.coef[1]), math.nan
    error = math.sqrt((rest**2).sum() / freedom / ((x - x.mean()) ** 2).sum())
    return float(fit.coef[1]), float(stdtrit(freedom, 0.975)) * error


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, looser tolerances")
    parser.add_argument("--json", metavar="PATH", help="write the figures as JSON to PATH, or to stdout with -")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    tolerances, seeds = ((4e-3, 2e-3, 1e-3), 20) if options.quick else ((2e-3, 1e-3, 5e-4, 2.5e-4), 100)
    record: dict[str, Any] = {"rows": [], "slopes": {}}
    head = f"{'tolerance':>10}{'within':>8}{'rms/tol':>9}{'levels':>8}{'cost':>11}{'plain':>11}{'ratio':>8}{'CPU s':>8}"
    for name, problem in (("gbm", geometric()), ("heston", heston())):
        print(f"{name}: {problem.facts}, exact {problem.exact:.8f}\n{head}", file=out)
        expect(problem.process, problem.f, problem.x0, (0.0, HORIZON), tolerances[0], seed=0)
        rows = []
        for tolerance in tolerances:
            row = measure(name, problem, tolerance, seeds)
            rows.append(row)
            print(
                f"{row.tolerance:10.2g}{row.share_within:8.2f}{row.rms_over_tolerance:9.2f}{row.levels:8.1f}"
                f"{row.cost:11.3g}{row.plain_cost:11.3g}{row.plain_cost / row.cost:8.1f}{row.cpu:8.2f}",
                file=out,
                flush=True,
            )
        found, half = slope(rows, lambda row: row.cost)
        plain, plain_half = slope(rows, lambda row: row.plain_cost)
        print(f"cost slope {found:.2f} ± {half:.2f}, plain Monte Carlo {plain:.2f} ± {plain_half:.2f}\n", file=out)
        record["rows"] += [dataclasses.asdict(row) for row in rows]
        record["slopes"][name] = {"slope": found, "half_width": half, "plain": plain}
    if options.json:
        text = json.dumps(record, indent=1)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    main()
