"""Time reversal: from p_T back to p_0, by paths and by the Fokker-Planck equation (Anderson 1982).

On the clock s = T − t the reverse process has drift −μ + ∂ₓσ² + σ² ∂ₓ log p_{T−s} and noise σ. With the exact score
its density retraces the forward one; so does that of the probability flow, which has no noise at all.
"""

import matplotlib.pyplot as plt

import sdesim as sde

forward = sde.OrnsteinUhlenbeck(theta=1.0, mu=0.0, sigma=1.0)
data = sde.targets.GaussianMixture([0.3, 0.7], [-1.5, 1.0], [0.06, 0.15])
score = sde.marginal_score(forward, data)  # exact ∇ log p_t
horizon = 1.5

grid = sde.Grid(-5.0, 5.0, 1000)
p0 = sde.cell_averages(grid, data.density)
p_T = sde.evolve_density(forward, p0, grid, (0.0, horizon)).final

reverse = sde.ReverseProcess(forward, score, horizon)
flow = sde.ProbabilityFlow(forward, score, horizon)
solved = {
    "reverse process": sde.evolve_density(reverse, p_T, grid, (0.0, horizon)),
    "probability flow": sde.evolve_density(flow, p_T, grid, (0.0, horizon)),
}
for name, rho in solved.items():
    error = abs(rho.final - p0).sum() * grid.spacing
    print(f"{name}: the PDE returns p₀ to {error:.1e} in L1")
    assert error < 2e-3

noised = sde.simulate(forward, data, (0.0, horizon), n_steps=1, n_paths=50_000, method="exact", seed=1).final
paths = sde.simulate(reverse, noised, (0.0, horizon), n_steps=400, method="heun", seed=2)
found = sde.compare(paths, solved["reverse process"])
print(found)
assert found.within_noise

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
sde.plot.compare(paths, solved["reverse process"], ax=ax)
ax.plot(grid.centers, p_T, "k--", label="$p_T$, where the reverse paths start")
ax.plot(grid.centers, p0, "k:", label="$p_0$")
ax.set_ylim(0, 1.25)
ax.legend(loc="upper right", fontsize="small")
fig.savefig("reverse_time.png", dpi=110)
