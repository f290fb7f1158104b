"""An expectation to a stated tolerance, by multilevel Monte Carlo; its cost against plain Monte Carlo's.

The price of a call, E[(X − 1)⁺] for dX = 0.05 X dt + 0.2 X dW, is known (Black & Scholes 1973). Many cheap coarse paths
carry the expectation, few fine ones correct it, so the cost grows as tolerance⁻² (Giles 2008), as if the paths had
no discretisation error.
"""

import math

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

mu, sigma = 0.05, 0.2
asset = sde.GeometricBrownian(mu, sigma)


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


d1 = (mu + 0.5 * sigma**2) / sigma
exact = math.exp(mu) * normal_cdf(d1) - normal_cdf(d1 - sigma)

tolerances = np.array([4e-3, 2e-3, 1e-3, 5e-4])
results = [sde.expect(asset, lambda x: np.maximum(x - 1.0, 0.0), 1.0, (0.0, 1.0), tol, seed=3) for tol in tolerances]
print(results[-1])
for tol, result in zip(tolerances, results, strict=True):
    print(f"tolerance {tol:7.1e}: error {abs(result.value - exact):7.1e}, {result.cost:.2e} path-steps")
    assert abs(result.value - exact) < tol

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.loglog(tolerances, [r.cost for r in results], "o-", label="multilevel")
ax.loglog(tolerances, [r.plain_cost for r in results], "s--", label="plain Monte Carlo (estimated)")
ax.loglog(tolerances, results[0].cost * (tolerances[0] / tolerances) ** 2, "k:", label="slope −2")
ax.set(xlabel="tolerance", ylabel="path-steps", title="cost of E[(X − 1)⁺] at confidence 0.99")
ax.legend()
fig.savefig("expectation.png", dpi=110)
