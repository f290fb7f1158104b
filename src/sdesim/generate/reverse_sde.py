r"""Sampling by the reverse SDE, with any of the library's schemes, and with Langevin corrections.

From t to an earlier t′ = t − h, a scheme takes one step of the reverse process (Anderson 1982)

    dY = (−a Y − b + g² s(Y, t)) ds + g dW,      s = T − t,

by the stage formulas that integrate paths. A corrector first moves the samples along Langevin dynamics, which keep the
law at t and mend what earlier steps did to it (Song et al. 2021, algorithms 2 and 3):

    x ← x + ε s(x, t) + √(2ε) z,      ε = 2 r² v(t)   (r is ``snr``).

Song et al. write ε = 2 (r |z|/|s|)² with norms averaged over a batch. Here |z|² and |s|² are what they are for noise of
variance v around the data, d and d/v: the step is then a number, so that the dynamics have the right law in any
dimension, and a sample does not depend on which others share its batch.
"""

import math
from typing import Any

import numpy as np

from ..core import checks, stream
from ..integrate import batch
from ..integrate.schemes import SCHEMES, Scheme
from .rows import Advance, Rows
from .sums import weighted

NAMES = tuple(
    name
    for name, scheme in SCHEMES.items()
    if scheme.on_arrays and not scheme.metropolis and scheme.noise != ("none",) and not scheme.needs
)


def scheme_of(name: str) -> Scheme:
    """A scheme by its name."""
    return SCHEMES[checks.choice("scheme", name, NAMES)]


def advance(rows: Rows, scheme: Scheme) -> Advance:
    """Steps of the reverse SDE."""
    noised, dtype = rows.noised, rows.dtype
    updates = batch.updates(scheme, dtype, False)
    flat = np.zeros(rows.shape, dtype)
    last = max(number for number, update in enumerate(updates) if update is not None)
    held: dict[Any, np.ndarray] = {}

    def memory(use: Any) -> np.ndarray:
        """Memory that is kept from step to step: of the size of a picture, it would be fetched anew each time."""
        if use not in held:
            held[use] = np.empty(rows.shape, dtype)
        return held[use]

    def drift(x: np.ndarray, t: float, number: int) -> np.ndarray:
        g2, offset = noised.diffusion(t) ** 2, noised.offset(t)
        value = weighted((-noised.slope(t), x), (g2, rows.score(x, t)), out=memory(("drift", number)))
        return value if offset == 0.0 else value - offset

    def diffusion(t: float, number: int) -> np.ndarray:
        level = memory(("diffusion", number))
        level.fill(noised.diffusion(t))
        return level

    def step(x: np.ndarray, k: int, t: float, later: float) -> np.ndarray:
        dt = t - later
        h, root = dtype.type(dt), dtype.type(math.sqrt(dt))
        w = np.multiply(rows.normals(k), root, out=memory("increment"))
        z = flat
        if scheme.space_time:  # ∫ (W_s − W_t) ds = h (½ ΔW + √(h/12) ζ)
            z = weighted((0.5 * dt, w), (dt * math.sqrt(dt / 12.0), rows.normals(k, stream.SPACE_TIME)))
        point, f, g = x, [], []
        for number, (stage, update) in enumerate(zip(scheme.stages, updates, strict=True)):
            now = t - stage.at * dt
            f += [drift(point, now, number) for _ in stage.drifts]
            g += [diffusion(now, number) if name == "diffusion" else flat for name in stage.noises]
            if update is not None:
                # the state of the last step is what this one starts from
                out = memory(("state", k % 2)) if number == last else memory(("point", number))
                update(x, *f, *g, w, z, h, root, out)
                point = out
        return point

    return step


def langevin(rows: Rows, x: np.ndarray, t: float, epsilon: float, k: int, less: float = 0.0) -> np.ndarray:
    """x + ε s(x, t) + √(2ε − less) z."""
    z = rows.normals(k, stream.CORRECTION)
    return weighted((1.0, x), (epsilon, rows.score(x, t)), (math.sqrt(max(2.0 * epsilon - less, 0.0)), z))


def corrected(rows: Rows, scheme: Scheme, snr: float, n_corrector: int) -> Advance:
    """Langevin corrections at t, then a step of the reverse SDE."""
    predict = advance(rows, scheme)

    def step(x: np.ndarray, k: int, t: float, later: float) -> np.ndarray:
        epsilon = 2.0 * snr**2 * rows.noised.variance(t)
        for i in range(n_corrector):
            x = langevin(rows, x, t, epsilon, k * n_corrector + i)
        return predict(x, k, t, later)

    return step


def annealed(rows: Rows, step_size: float, n_corrector: int) -> Advance:
    r"""Langevin dynamics at one noise level after another (Song & Ermon 2019, algorithm 1): ε = ½ c v at each.

    What is left of the data is scaled to the next level before its dynamics start; the noise then has variance v + Δ.
    Langevin dynamics take Δ away at the rate c a step where the noise is large, but hardly where the data's own spread
    is: the samples would lag behind for good, by 2/c steps. So the first step of a level gets noise of variance
    c v − Δ in place of c v (as in consistent annealed sampling, Jolicoeur-Martineau et al. 2021).
    """

    def step(x: np.ndarray, k: int, t: float, later: float) -> np.ndarray:
        ratio = rows.noised.scale(later) / rows.noised.scale(t)
        variance = rows.noised.variance(later)
        x = rows.carried(x, t, later)
        excess = ratio**2 * rows.noised.variance(t) - variance
        for i in range(n_corrector):
            x = langevin(rows, x, later, 0.5 * step_size * variance, k * n_corrector + i, excess if i == 0 else 0.0)
        return x

    return step


def default_step(ratios: np.ndarray) -> float:
    """The step c of annealed Langevin: twice the largest Δ/v, so that half of the noise is fresh, but at most 1."""
    return float(min(2.0 * np.max((ratios[:-1] / ratios[1:]) ** 2 - 1.0), 1.0))


def options(method: str, snr: Any, n_corrector: Any, step_size: Any) -> tuple[float, int, float | None]:
    """The settings of correctors, checked."""
    count = checks.integer("n_corrector", n_corrector, minimum=1)
    size = None if step_size is None else checks.real("step_size", step_size, above=0.0)
    if size is not None and method != "annealed_langevin":
        raise ValueError(f"step_size belongs to annealed_langevin, {method} takes snr")
    return checks.real("snr", snr, minimum=0.0), count, size
