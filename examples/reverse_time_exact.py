"""Time reversal: from p_T back to p₀, by paths and by the Fokker-Planck equation, for two kinds of noise.

On the clock s = T − t the reverse process has drift −μ + ∂ₓσ² + σ² ∂ₓ log p_{T−s} and noise σ (Anderson 1982). With the
exact score its density retraces the forward one, and so does that of the probability flow, which has no noise at all.
Where σ depends on the state the term ∂ₓσ² is needed: without it the way back misses p₀. There the score comes from the
solved density.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

data = sde.targets.GaussianMixture([0.3, 0.7], [-1.5, 1.0], [0.06, 0.15])
grid, horizon = sde.Grid(-6.0, 6.0, 1200), 0.8
p0 = sde.cell_averages(grid, data.density)
forwards = {
    "σ = 1": sde.OrnsteinUhlenbeck(theta=1.0, mu=0.0, sigma=1.0),
    "σ = 0.6 √(1 + x²)": sde.ito(lambda x, t: -x, lambda x, t: 0.6 * np.sqrt(1.0 + x * x)),
}


def distance(p):
    """From p₀ in L1."""
    return abs(p - p0).sum() * grid.spacing


class WithoutDivergence(sde.ReverseProcess):
    """The reverse drift with ∂ₓσ² left out."""

    def drift(self, x, t):
        return super().drift(x, t) - self.process.diffusion_divergence(x, self.horizon - t)


fig, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for ax, (name, forward) in zip(axes, forwards.items(), strict=True):
    rho = sde.evolve_density(forward, p0, grid, (0.0, horizon), save=np.linspace(0.0, horizon, 81))
    exact = isinstance(forward, sde.OrnsteinUhlenbeck)
    score = sde.marginal_score(forward, data) if exact else rho.score
    span = (0.0, horizon)
    solved = {}
    for kind in (sde.ReverseProcess, sde.ProbabilityFlow, WithoutDivergence):
        if kind is WithoutDivergence and exact:
            continue  # σ does not depend on x, and there is nothing to leave out
        back = kind(forward, score, horizon)
        solved[kind] = sde.evolve_density(back, rho.final, grid, span, rtol=1e-4).final
        print(f"{name}, {kind.__name__}: the PDE returns p₀ to {distance(solved[kind]):.1e} in L1")
        assert (distance(solved[kind]) < 0.01) == (kind is not WithoutDivergence)

    noised = sde.simulate(forward, data, span, n_steps=400, n_paths=40_000, method="milstein", seed=1).final
    paths = sde.simulate(sde.ReverseProcess(forward, score, horizon), noised, span, n_steps=400, method="heun", seed=2)
    found = sde.compare(paths, data, bias=0.01)
    print(f"{name}, paths: {found}")
    assert found.within_noise

    ax.hist(paths.final, bins=120, range=(-3, 3), density=True, alpha=0.4, label="reverse paths")
    ax.plot(grid.centers, solved[sde.ReverseProcess], label="reverse Fokker-Planck")
    ax.plot(grid.centers, p0, "k:", label="$p_0$")
    ax.plot(grid.centers, rho.final, "k--", lw=1, label="$p_T$, where both start")
    if WithoutDivergence in solved:
        ax.plot(grid.centers, solved[WithoutDivergence], "r", lw=1, label="without $\\partial_x\\sigma^2$")
    ax.set(title=name, xlim=(-3.5, 3.5), xlabel="x")
    ax.legend(loc="upper left", fontsize="small")
axes[0].set_ylabel("density")
fig.savefig("reverse_time_exact.png", dpi=110)
