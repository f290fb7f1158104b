"""The probability flow of an ODE, ∂p/∂t = −∇·(μ p): the continuity equation (Liouville), carried without smearing.

With σ = 0 a density is constant along paths, up to the volume that they squeeze. Finite differences of the flux add a
diffusion that is not there; here the distribution function is carried along characteristics, in two dimensions along
one axis after the other. A logistic population grows, a bump is turned about the origin, a pendulum swings.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

# one axis: dX = X(1 − X) dt moves log(X/(1 − X)) at speed 1
logistic, line, t = sde.ito(lambda x, t: x * (1.0 - x), lambda x, t: 0.0), sde.Grid(0.0, 1.0, 400), 2.0
rho = sde.evolve_density(logistic, sde.gaussian(line, 0.3, 0.04), line, (0.0, t))
grown, first = lambda x: x + (1.0 - x) * np.exp(t), sde.targets.Gaussian(0.3, 0.0016)
exact = sde.cell_averages(line, lambda x: first.density(x / grown(x)) * np.exp(t) / grown(x) ** 2)
print(f"logistic growth: L1 error {np.abs(rho.final - exact).sum() * line.spacing:.1e} on 400 cells")
assert np.abs(rho.final - exact).sum() * line.spacing < 1e-4

# two axes: a bump of sd 0.1 at (0.5, 0) turns once about the origin
still, turn = lambda x, t: (0.0, 0.0), lambda x, t: (-x[1], x[0])
grid = sde.Grid((-1.0, -1.0), (1.0, 1.0), 128)
p0 = sde.gaussian(grid, (0.5, 0.0), 0.1)
p0 /= p0.sum() * grid.cell_volume
carried = sde.evolve_density(sde.ito(turn, still, dim=2), p0, grid, (0.0, 2 * np.pi), n_steps=100)
upwind, n_steps = p0.copy(), 1000
for _ in range(n_steps):  # donor cells: what flows through a face is speed times the density it comes from
    new = upwind.copy()
    for p, q, speed in ((upwind, new, -grid.centers[1]), (upwind.T, new.T, grid.centers[0])):
        flux = 2 * np.pi / n_steps / grid.spacing[0] * (np.maximum(speed, 0) * p[:-1] + np.minimum(speed, 0) * p[1:])
        q[:-1] -= flux
        q[1:] += flux
    upwind = new
kept = [p.max() / p0.max() for p in (carried.final, upwind)]
print(f"one turn on 128 x 128 cells: {kept[0]:.2%} of the peak left; first-order upwind: {kept[1]:.2%}")
assert abs(kept[0] - 1.0) < 0.02
assert kept[1] < 0.5

# a pendulum, its angle on a circle: the density against a million paths
pendulum = sde.ito(lambda x, t: (x[1], -np.sin(x[0])), still, dim=2)
phase, times = sde.Grid((-np.pi, -3.0), (np.pi, 3.0), (512, 384)), (0.0, 4.0, 8.0, 16.0)
around, start = ("periodic", "reflecting"), sde.gaussian(phase, (1.0, 0.0), 0.3)
flow = sde.evolve_density(pendulum, start, phase, (0.0, 16.0), save=times, n_steps=640, boundary=around)
first = np.random.default_rng(4).normal((1.0, 0.0), 0.3, (1_000_000, 2))
paths = sde.simulate(pendulum, first, (0.0, 16.0), n_steps=320, method="rk4").final
paths[:, 0] = np.mod(paths[:, 0] + np.pi, 2 * np.pi) - np.pi
found = sde.compare(paths, flow)
print(found)
assert found.within_noise

fig, axes = plt.subplots(2, 4, figsize=(14, 7), layout="constrained")
for ax, p, title in zip(axes[0], (p0, carried.final, upwind), ("start", "after one turn", "upwind"), strict=False):
    ax.pcolormesh(*grid.edges, p.T, vmin=0.0, vmax=p0.max())
    ax.set(aspect="equal", xlabel="x", ylabel="y", title=f"{title}: peak {p.max():.1f}")
axes[0, 3].plot(line.centers, sde.gaussian(line, 0.3, 0.04), "0.6", line.centers, rho.final, "C0")
axes[0, 3].plot(line.centers, exact, "k--")
axes[0, 3].legend(["start", "solved", "exact"])
axes[0, 3].set(xlabel="x", ylabel="density", title="logistic growth, t = 0 and 2")
for ax, p, t in zip(axes[1], flow.p, times, strict=True):
    ax.pcolormesh(*phase.edges, np.sqrt(p).T)
    ax.set(xlabel="angle", ylabel="speed" if t == 0.0 else "", title=f"pendulum, t = {t:g} (√p)")
fig.savefig("liouville.png", dpi=110)
