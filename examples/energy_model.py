"""An energy model of two modes in the plane, its log Z, and a variational autoencoder in the same table.

p_θ = e^{−E_θ}/Z is learned by maximum likelihood, with Langevin chains in the loop. Its score needs no Z; a likelihood
does: −E[log p_θ] = E[E_θ] + log Z(θ), with log Z by annealed importance sampling, checked here by quadrature. Chains
without the Metropolis test (ULA) keep another law, off by O(dt), which shows in training and in sampling.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

target = sde.targets.GaussianMixture(
    [0.3, 0.7], [[-1.2, -0.5], [1.2, 0.5]], [[[0.4, 0.12], [0.12, 0.3]], [[0.3, -0.1], [-0.1, 0.35]]]
)
data, test, n = target.sample(20_000, 1), target.sample(20_000, 2), 5000
grid = sde.Grid((-5.0, -4.0), (5.0, 4.0), (200, 160))
cells = np.stack(np.meshgrid(*grid.centers, indexing="ij"), axis=-1).reshape(-1, 2)
law = sde.stationary_density(sde.Langevin(target), grid)


def left(x):
    return x @ np.array([1.2, 0.5]) < 0


def integral(f):
    return float(np.sum(f, dtype=np.float64) * grid.cell_volume)


true_weight = integral(np.exp(target.log_density(cells)) * left(cells))
net = sde.EnergyMLP(2, (32, 32), seed=1)
options = {"n_iterations": 1500, "batch_size": 512, "n_steps": 8, "learning_rate": 5e-3, "ema": 0.995, "seed": 1}
models = {
    "energy, MALA": sde.fit_energy(net, data, "mala", **options).energy,
    "energy, ULA dt 0.05": sde.fit_energy(net, data, "langevin", step_size=0.05, **options).energy,
    "VAE": sde.fit_vae(sde.VAE(2, 2, (64, 64), seed=1), data, n_iterations=3000, ema=0.995, seed=1).vae,
}


def row(name, model):
    """Print NLL (above the entropy), weight of the left mode, L1 distance of n samples, log Z, each with its error."""
    log_z, z_text = 0.0, ""
    if isinstance(model, sde.EnergyMLP):
        log_z = sde.log_partition(model, n_chains=2048, seed=3)
        by_quadrature = np.log(integral(model.density(cells)))
        z_text = f"{log_z.value:9.4f} ± {log_z.standard_error:.4f} ({by_quadrature:.4f})"
        assert abs(log_z.value - by_quadrature) < 3 * log_z.standard_error < 0.05
        log_p = model.normalized(log_z).log_density(test)
        run = {"n_steps": 300, "method": "mala", "dtype": np.float32, "seed": 4}
        samples = sde.simulate(sde.Langevin(model), data[:n], (0.0, 90.0), **run).final
    else:
        samples = model.sample(n, 5)
        is_vae = isinstance(model, sde.VAE)
        log_p = model.log_likelihood_bound(test, n_samples=100) if is_vae else model.log_density(test)
    gap = target.log_density(test) - log_p
    error = np.hypot(gap.std() / len(gap) ** 0.5, getattr(log_z, "standard_error", 0.0))
    share, seen = left(samples).mean(), sde.compare(samples, law)
    print(
        f"{name:20}{gap.mean():8.4f} ± {error:.4f}{share:9.3f} ± {(share * (1 - share) / n) ** 0.5:.3f}"
        f"{seen.l1:9.3f} ({seen.l1_floor:.3f}){z_text}"
    )
    return samples, gap.mean()


print(f"entropy {-target.log_density(test).mean():.4f} nats, weight of the left mode {true_weight:.3f}; for the VAE")
print("the NLL is a bound from above, by 100 importance-weighted draws")
print(f"{'':20}{'NLL − entropy':>17}{'left mode':>17}{'L1 (by chance)':>17}{'log Z (quadrature)':>26}")
rows = {name: row(name, model) for name, model in {"fresh draws": target, **models}.items()}
energy, (start, gap) = models["energy, MALA"], rows["energy, MALA"]
p = energy.density(cells)
weight = integral(p * left(cells)) / integral(p)
print(f"weight of the left mode in the density of the energy trained with MALA, by quadrature: {weight:.4f}")
assert abs(weight - true_weight) < 0.03
assert gap < 0.02 < rows["VAE"][1]

# the learned law, sampled with and without the Metropolis test: E[E_θ] against its value by quadrature
mean_energy = integral(p * energy.energy(cells)) / integral(p)
steps, biases = np.array([0.4, 0.2, 0.1, 0.05]), {}
for method in ("unadjusted_langevin", "mala"):
    found = [
        energy.energy(
            sde.simulate(
                sde.Langevin(energy), start, (0.0, 8.0), n_steps=round(8 / dt), method=method, dtype=np.float32, seed=7
            ).final
        )
        for dt in steps
    ]
    biases[method] = np.array([[e.mean() - mean_energy, e.std() / n**0.5] for e in found]).T
    for dt, bias, error in zip(steps, *biases[method], strict=True):
        print(f"{method:20} dt {dt:<5g} E[E] − exact = {bias:+.3f} ± {error:.3f}")
assert (np.abs(biases["mala"][0]) < 4 * biases["mala"][1]).all()
assert (biases["unadjusted_langevin"][0] > 4 * biases["unadjusted_langevin"][1])[:3].all()

fig, axes = plt.subplots(2, 2, figsize=(11, 7.8), layout="constrained")
truth = np.exp(target.log_density(cells)).reshape(grid.shape)
for ax, values, title in (
    (axes[0, 0], truth, "(a) true density (its contours in all)"),
    (axes[0, 1], p.reshape(grid.shape) / integral(p), r"(b) energy model $e^{-E_\theta}/Z$"),
):
    image = ax.pcolormesh(*grid.edges, values.T, vmin=0, vmax=truth.max(), cmap="Blues", rasterized=True)
    fig.colorbar(image, ax=ax, label="density", shrink=0.85)
    ax.set_title(title)
counts = axes[1, 0].hist2d(
    *models["VAE"].sample(100_000, 6).T, bins=100, range=[(-5, 5), (-4, 4)], density=True, vmax=truth.max(),
    cmap="Blues", rasterized=True,
)  # fmt: skip
fig.colorbar(counts[3], ax=axes[1, 0], label="density", shrink=0.85)
axes[1, 0].set_title("(c) samples of the VAE")
for ax in axes.flat[:3]:
    ax.contour(*grid.centers, truth.T, levels=[0.01, 0.05, 0.15], colors="C1", linewidths=1.0)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-4, 4), ylim=(-3, 3))
ax = axes[1, 1]
for (bias, error), label, style in zip(biases.values(), ("ULA", "MALA"), ("o--", "s-"), strict=True):
    ax.errorbar(steps, bias, 2 * error, fmt=style, capsize=3, label=f"{label} (±2 standard errors)")
ax.axhline(0.0, color="0.6", lw=0.8)
ax.set(xlabel="step size dt", ylabel=r"mean of $E_\theta$ over samples − exact", xlim=(0, 0.43))
ax.set_title("(d) bias of sampling the learned law")
ax.legend()
fig.savefig("energy_model.png", dpi=90)
