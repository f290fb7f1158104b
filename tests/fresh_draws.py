"""Tests of samples against a known law: can they be told from fresh draws?"""

import numpy as np
from scipy import stats

import sdesim as sde


def energy_permutation(x, y, n_permutations=200, seed=0):
    """The p-value of the energy distance 2E|X−Y| − E|X−X′| − E|Y−Y′| under exchanges of the two samples.

    With D the distances between all points and s = ±1 their sample, of equal sizes, the distance is −sᵀDs/n².
    """
    both = np.concatenate([x, y]).astype(np.float32)
    square = (both**2).sum(axis=1)
    distance = np.sqrt(np.maximum(square[:, None] + square[None, :] - 2.0 * both @ both.T, 0.0))
    rng = np.random.default_rng(seed)
    signs = np.ones((len(both), n_permutations + 1), np.float32)
    signs[len(x) :] = -1.0
    for k in range(1, n_permutations + 1):
        signs[:, k] = rng.permutation(signs[:, 0])
    found = -(signs * (distance @ signs)).sum(axis=0)
    return float((found >= found[0] * (1 - 1e-6)).sum() / (n_permutations + 1))


def projected_chi_square(x, law, n_directions=8, n_bins=20, seed=0):
    """The smallest p-value of χ² tests of projections against their exact laws, times their number."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_directions, law.dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    smallest = 1.0
    for v in directions:
        variances = np.einsum("i,kij,j->k", v, law._matrices(), v)
        line = sde.targets.GaussianMixture(law.weights, law.means @ v, variances)
        counts = np.bincount((line.cdf(x @ v) * n_bins).astype(int).clip(0, n_bins - 1), minlength=n_bins)
        smallest = min(smallest, stats.chisquare(counts).pvalue)
    return min(1.0, smallest * n_directions)


def moments(x, law):
    """The smallest p-value of all first and second moments of x against the law's, times their number.

    The spread of a second moment is taken from the samples themselves.
    """
    n, d = x.shape
    i, j = np.triu_indices(d)
    centred = x - law.mean
    values = np.concatenate([centred, centred[:, i] * centred[:, j]], axis=1)
    expected = np.concatenate([np.zeros(d), np.asarray(law.cov)[i, j]])
    z = (values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(n))
    return float(min(1.0, 2.0 * stats.norm.sf(np.abs(z)).min() * len(z)))
