"""The law that a sampler gives to Gaussian data, without sampling noise.

For data N(m, s²) the score is linear, and so is every step: the sample is c + Σ aₖ zₖ over the normals zₖ that the
sampler draws. Row 0 of a block gets no noise at all, and each other row a 1 in place of one draw: the first is the
mean, and the squares of the others' differences from it sum to the variance.
"""

import types

import numpy as np

import sdesim as sde
from sdesim.generate import samplers
from sdesim.generate.guided import Guidance, GuidedScore
from sdesim.generate.rows import Rows


class Impulses(Rows):
    """Rows that draw no random numbers."""

    def normals(self, k, purpose=0):
        places = self.__dict__.setdefault("places", {})
        row = places.setdefault((purpose, k), len(places) + 1)
        out = np.zeros(self.shape, self.dtype)
        out[row] = 1.0
        return out


def law(process, score, method, *, size=4000, **options):
    """(mean, variance) of the samples; ``options`` are those of ``sample``."""
    kept = {}

    def instead(plan, n, *_):
        noised = plan.noised
        rows = Impulses(
            noised,
            GuidedScore(noised, plan.score, Guidance(None, None), None, range(size)),
            (size, 1),
            plan.dtype,
            0,
            0,
        )
        x = samplers.draw(rows, types.SimpleNamespace(**vars(plan)))[:, 0]
        kept["law"] = x[0], ((x[1:] - x[0]) ** 2).sum()
        return x

    run = samplers._run
    samplers._run = instead
    try:
        sde.sample(process, score, 1, method=method, **options)
    finally:
        samplers._run = run
    return kept["law"]
