"""Processes for the tests of the device: one of each kind of noise, and a formula that uses what formulas may."""

import numpy as np

import sdesim as sde

OU = sde.OrnsteinUhlenbeck(1.3, 0.4, 0.8)
GEOMETRIC = sde.GeometricBrownian(0.3, 0.4)
OWN = sde.ito(
    lambda x, t, a: a * np.sin(x) - x * t + x / (1.0 + x * x),
    lambda x, t, b: b * np.sqrt(1.0 + x * x) + 0.1 * np.exp(-t),
    a=0.7,
    b=0.4,
)
SILENT = sde.ito(lambda x, t: -x * x + np.cos(t), lambda x, t: 0.0)
ADDITIVE = sde.ito(lambda x, t: -x * x * x, lambda x, t: 0.3 + 0.2 * t)
# two Wiener processes that do not commute, and the time in both coefficients
GENERAL = sde.ito(
    lambda x, t: (-x[0] + 0.2 * x[1] * t, -x[1] * x[0]),
    lambda x, t: ((0.3 * x[1], 0.2 + 0.1 * x[0]), (0.1 * t, 0.4 * x[0])),
    dim=2,
    noise="general",
)
COMMUTING = sde.ito(
    lambda x, t: (-x[0], -x[1]),
    lambda x, t: ((0.3 * x[0], 0.2 * x[0]), (0.1 * x[1], 0.4 * x[1])),
    dim=2,
    noise="general",
)

# scores that are written on tiles: with the loop over components written out, and with loops for many components
POSITIONS = np.random.default_rng(8).normal(size=(36, 2))
MIXTURES = {
    "shared": sde.targets.GaussianMixture([0.5, 0.3, 0.2], POSITIONS[:3], 0.3),
    "round": sde.targets.GaussianMixture([0.5, 0.3, 0.2], POSITIONS[:3], [0.3, 0.2, 0.4]),
    "full": sde.targets.GaussianMixture(
        [0.6, 0.4], POSITIONS[:2], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.5]]]
    ),
    "shared, many": sde.targets.GaussianMixture(np.full(36, 1 / 36), POSITIONS, 0.3),
    "round, many": sde.targets.GaussianMixture(np.full(36, 1 / 36), POSITIONS, np.linspace(0.2, 0.4, 36)),
    "full, many": sde.targets.GaussianMixture(
        np.full(36, 1 / 36), POSITIONS, np.linspace(1.0, 2.0, 36)[:, None, None] * [[0.3, 0.1], [0.1, 0.2]]
    ),
}

# a process and a start for every scheme that runs on the device
CASES = {
    "euler_maruyama": (OWN, 0.5),
    "milstein": (GEOMETRIC, 1.2),
    "platen": (OWN, 0.5),
    "heun": (GENERAL, [0.5, 0.2]),
    "midpoint": (OWN, 0.5),
    "sra": (ADDITIVE, 0.5),
    "sri": (GEOMETRIC, 1.2),
    "tamed_euler": (GENERAL, [0.5, 0.2]),
    "weak_euler": (OU, 0.5),
    "weak_second": (GENERAL, [0.5, 0.2]),
    "milstein_commutative": (COMMUTING, [0.5, 0.2]),
    "rk4": (SILENT, 0.5),
    "unadjusted_langevin": (sde.Langevin(MIXTURES["shared"]), [0.5, 0.2]),
}
