"""Escape over a barrier: exact times, Kramers' estimate, a million paths, and the gap of the spectrum.

U = b (q² − 1)² has wells at ±1 and a barrier b at 0. Overdamped, dq = −U' dt + √2 dW, the mean time from the well to
the top is a double integral. Underdamped, dq = v dt, dv = (−U' − v) dt + √2 dW, it solves a steady equation in (q, v)
without a formula, and paths measure it. Paths that cross to and fro forget their well at the rate of the spectral gap.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import quad

import sdesim as sde

N = int(os.environ.get("SDESIM_EXAMPLE_PATHS", 1_000_000))
line, heights, exact, found, wall = sde.Grid(-3.0, 0.0, 600), np.arange(1.0, 11.0), [], [], ("reflecting", "absorbing")
for b in heights:
    u = lambda q, b=b: b * (q * q - 1.0) ** 2  # noqa: E731
    inner = lambda y, u=u: quad(lambda z: np.exp(u(y) - u(z)), -3.0, y, epsabs=0.0, epsrel=1e-12)[0]  # noqa: E731
    exact.append(quad(inner, -1.0, 0.0, epsabs=0.0, epsrel=1e-11)[0])
    overdamped = sde.Langevin(sde.targets.DoubleWellDensity(b))
    found.append(sde.mean_first_passage_time(overdamped, line, boundary=wall, richardson=True)(-1.0))
    print(f"overdamped, b = {b:2g}: {found[-1]:.9g} on the grid, {exact[-1]:.9g} by integrals")
assert np.abs(np.divide(found, exact) - 1.0).max() < 1e-6
kramers = np.pi / np.sqrt(32.0 * heights**2) * np.exp(heights)

well = sde.targets.DoubleWellDensity(2.0)
process = sde.UnderdampedLangevin(well, friction=1.0)
phases = [sde.Grid((-2.2, -5.5), (0.0, 5.5), cells) for cells in ((100, 140), (140, 200))]
times = [sde.mean_first_passage_time(process, g, boundary=(wall, "reflecting"), richardson=True) for g in phases]
coarser, solved = (u([-1.0, 0.0]) for u in times)
print(f"underdamped, b = 2: {solved:.4f} on the grid, {coarser:.4f} on a coarser one")
for dt, n in ((0.05, N // 4), (0.0125, N)):
    watch, steps = sde.FirstPassage(upper=0.0, bins=2), round(100.0 / dt)
    paths = sde.simulate(process, [-1, 0], (0, 100), n_steps=steps, n_paths=n, method="baoab", reduce=[watch], seed=1)
    half, left = paths.reductions[0].survival[1:]
    late = 50.0 / np.log(half / left)  # whoever is left leaves at the slowest rate
    mean, error = paths.reductions[0].mean_time * (1.0 - left) + left * (100.0 + late), late / np.sqrt(n)
    print(f"    {mean:.4f} ± {error:.4f} by {n} paths in steps of {dt:g}")
assert abs(mean - solved) < 3.0 * error

gaps = [sde.relaxation_modes(process, sde.Grid((-2.2, -5.0), (2.2, 5.0), n), 2).gap for n in (80, 160)]
gap, curves = (4.0 * gaps[1] - gaps[0]) / 3.0, []
for seed in range(16):
    start = np.stack([well.sample(4096, seed=seed), np.random.default_rng(seed).normal(size=4096)], axis=1)
    follow = sde.Autocorrelation(24)
    paths = sde.simulate(process, start, (0, 100), n_steps=4000, method="baoab", save=40, reduce=[follow], seed=seed)
    curves.append(paths.reductions[0].autocorrelation[:, 0])
rates = np.log([c[5] / c[13] for c in curves]) / 8.0  # between the lags 5 and 13, the fast modes being gone
rate, error = rates.mean(), rates.std(ddof=1) / 4.0
print(f"spectral gap {gap:.5f}; the autocorrelation of the paths falls at {rate:.5f} ± {error:.5f}")
assert abs(rate - gap) < 3.0 * error

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
left.plot(heights, np.divide(found, exact), "ko-", heights, kramers / exact, "s-")
left.legend(["grid", "Kramers' formula"])
left.set(xlabel="barrier $b$", ylabel="ratio to the double integral", title="overdamped: mean time to the top")
fig.colorbar(middle.pcolormesh(*phases[1].edges, times[1].mean.T), ax=middle, label="mean time")
middle.set(xlabel="$q$", ylabel="$v$", title="underdamped: mean time to $q = 0$")
lags = paths.reductions[0].lags
right.semilogy(lags, np.transpose(curves), "C0", linewidth=0.5)
right.semilogy(lags, curves[0][5] * np.exp(-gap * (lags - lags[5])), "k--", label="spectral gap")
right.set(xlabel="lag", title="autocorrelation of $q$: 16 runs of 4096 paths")
right.legend()
fig.savefig("kramers.png", dpi=110)
