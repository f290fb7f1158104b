"""How a density forgets its start: both Kullback-Leibler divergences fall, each under its own law.

Along dX = ∇log p dt + √2 dW, with ∇log p_t − ∇log p = u,

    d/dt KL(p_t ‖ p) = −E_{p_t} |u|²,     d/dt KL(p ‖ p_t) = −E_p |u|²,

and the expectations are not to be exchanged. Where (log p)″ <= −λ, KL falls at least as e^{−2λt} (Bakry & Émery 1985).
A double well has no such bound; its KL falls as e^{−2gt} in the end, with the spectral gap g.
"""

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

cases = {
    "Ornstein-Uhlenbeck": (sde.OrnsteinUhlenbeck(1.0, 0.0, np.sqrt(2.0)), sde.Grid(-6.0, 6.0, 600), (1.0, 0.8), 3.0),
    "double well": (sde.DoubleWell(1.5, 1.0), sde.Grid(-2.8, 2.8, 560), (0.4, 0.4), 8.0),
}
fig, axes = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
for (name, (process, grid, start, horizon)), (above, below) in zip(cases.items(), axes.T, strict=True):
    rest = sde.stationary_density(process, grid)
    times = np.linspace(0.1, horizon, 600)
    rho = sde.evolve_density(process, sde.gaussian(grid, *start), grid, (0.0, horizon), save=times, rtol=1e-10)
    gap = sde.relaxation_modes(process, grid, 3).gap
    pairs = {"KL(pₜ ‖ p)": (rho, rest), "KL(p ‖ pₜ)": (rest, rho)}
    curves = {label: sde.entropy.kl_divergence(*pair) for label, pair in pairs.items()}
    middle = times[1:-1]
    for k, (label, pair) in enumerate(pairs.items()):
        kl, information = curves[label], sde.entropy.fisher_information(*pair)
        slope = (kl[2:] - kl[:-2]) / (times[2:] - times[:-2])
        swapped = sde.entropy.fisher_information(*pair[::-1])
        # at first KL falls faster than the saved times can tell
        off, wrong = (float(np.abs(slope[20:] / r[21:-1] + 1.0).max()) for r in (information, swapped))
        print(f"{name}: d/dt {label} = −E|u|² within {100 * off:.2f} %, under the other law off by {100 * wrong:.0f} %")
        assert off < 0.01 < 0.1 < wrong
        below.semilogy(middle, -slope, color=f"C{k}", lw=3, alpha=0.4, label=f"−d/dt {label}")
        below.semilogy(times, information, "k", lw=0.9, ls=("-", "--")[k], label=("E|u|² under pₜ", "E|u|² under p")[k])
    first = curves["KL(pₜ ‖ p)"]
    final = -np.log(first[-1] / first[-60]) / (times[-1] - times[-60])
    print(f"{name}: KL falls at the rate {final:.4f} in the end, twice the gap is {2 * gap:.4f}")
    assert abs(final - 2 * gap) < 0.02 * gap
    if name == "Ornstein-Uhlenbeck":
        assert (first[1:] <= first[0] * np.exp(-2 * (times[1:] - times[0])) * (1 + 1e-4)).all()
    sde.plot.decay(times, curves, ax=above, rates=[2 * gap])
    above.set_title(name)
    below.set(xlabel="time $t$", ylabel="loss of KL per unit time")
    below.legend(fontsize="small")
fig.savefig("kl_decay.png", dpi=90)
