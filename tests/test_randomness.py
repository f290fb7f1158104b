"""The battery that always runs: what a counter-based stream of normals could hide from tests of its law alone.

``test_normals.py`` has the law (moments, χ², Kolmogorov, partners). Here are the neighbours of a counter, far tails,
coincidences, and correlations along a path, across paths, components and seeds; each with a mutant that it must catch.
``docs/randomness.md`` has the batteries of others.
"""

import inspect
import math
import sys
import types

import numpy as np
import pytest
from scipy import special

from sdesim.core import normals, philox, stream

# Some 240 numbers are judged; together they fail once in a million fresh streams.
ALPHA = 1e-6 / 240
BOUND = math.sqrt(2) * special.erfcinv(ALPHA)  # 5.9 standard deviations


def of_count(count, expected):
    """The p-value of a Poisson count, two-sided."""
    return min(1.0, 2.0 * min(special.pdtr(count, expected), special.pdtrc(count - 1, expected)))


# ---- words: the bits of neighbouring counters ----------------------------------------------------------------


def with_rounds(rounds):
    """The module philox with so many rounds in place of ten."""
    text = inspect.getsource(philox).replace("range(10)", f"range({rounds})")
    module = types.ModuleType(f"sdesim.core.philox_{rounds}")
    module.__package__ = "sdesim.core"
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), module.__dict__)
    return module


def raw_words(module, n_blocks=2048, n_paths=256, seed=0):
    """Words (blocks, 4, paths)."""
    out = np.empty((n_blocks, 4, n_paths), np.uint32)
    for b in range(n_blocks):
        module.words(out[b], np.uint64(b), np.uint64(0), np.uint64(0), np.uint64(seed))
    return out


def bit_statistics(w, other_seed):
    """z-scores of bits that differ (half of them should) between pairs of words with nearly the same counter."""
    pairs = {f"words {i} and {j}": (w[:, i], w[:, j]) for i in range(4) for j in range(i)}
    for lag in (1, 2, 3, 4, 16, 128):
        pairs[f"blocks, lag {lag}"] = w[lag:], w[:-lag]
        pairs[f"paths, lag {lag}"] = w[:, :, lag:], w[:, :, :-lag]
    pairs["seeds"] = w, other_seed
    z = {}
    for name, (a, b) in pairs.items():
        differ = np.bitwise_count(a ^ b).astype(float)
        z[name] = (differ.mean() - 16.0) / math.sqrt(8.0 / differ.size)
        z[f"{name}, spread"] = (((differ - 16.0) ** 2).mean() / 8.0 - 1.0) / math.sqrt(2.0 / differ.size)
    ones = [((w >> np.uint32(k)) & np.uint32(1)).mean() for k in range(32)]
    z |= {f"bit {k}": (share - 0.5) * 2.0 * math.sqrt(w.size) for k, share in enumerate(ones)}
    return {name: abs(value) for name, value in z.items()}


def test_neighbouring_counters_have_unlike_words():
    found = bit_statistics(raw_words(philox), raw_words(philox, seed=1))
    assert max(found.values()) < BOUND, found


@pytest.mark.parametrize("rounds", [3, 5])
def test_fewer_rounds_are_noticed(rounds):
    """Three rounds fail everything; with five the words of neighbours are still alike."""
    module = with_rounds(rounds)
    found = bit_statistics(raw_words(module), raw_words(module, seed=1))
    assert max(found.values()) > BOUND
    assert (found["blocks, lag 1"] > 1000) == (rounds == 3)


# ---- normals: far tails --------------------------------------------------------------------------------------

LEVELS = (4.0, 4.5, 5.0)
N_TAILS = 40_000_000


def tails(dtype, change=lambda z: z, seed=3):
    """p-values of the counts beyond ±4, ±4.5 and ±5, where of 4·10⁷ normals 2534, 272 and 23 are right; and a side."""
    counts, n = np.zeros((2, len(LEVELS)), int), 2**20
    draws = normals.DRAWS[np.dtype(dtype)]
    for k in range(N_TAILS // n):
        z = stream.normals(seed, stream.WIENER, n // draws, 1, draws, first_path=k * n // draws, dtype=dtype).ravel()
        z = change(z[abs(z) > 3.0])
        counts += [[(z > level).sum() for level in LEVELS], [(z < -level).sum() for level in LEVELS]]
    side = N_TAILS // n * n * special.ndtr(-np.array(LEVELS))
    rows = [(counts[0], side), (counts[1], side), (counts.sum(axis=0), 2.0 * side)]
    return np.array([[of_count(c, e) for c, e in zip(*row, strict=True)] for row in rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_beyond_five_sigma(dtype):
    assert tails(dtype).min() > ALPHA


@pytest.mark.parametrize(
    "change", [lambda z: z[abs(z) < 4.95], lambda z: 1.01 * z, lambda z: np.where(z < 0, np.maximum(z, -4.5), z)],
    ids=["cut at 4.95", "sd x 1.01", "clipped on the left"],
)  # fmt: skip
def test_other_tails_are_noticed(change):
    assert tails(np.float32, change).min() < ALPHA


# ---- normals: coincidences -----------------------------------------------------------------------------------


def coincidences(z):
    """How many pairs of equal values there are, and how many there should be among rounded normals.

    Two normals round to one number z with the probability ∫ φ(x)² ulp(x) dx.
    """
    found = np.unique(z, return_counts=True)[1].astype(float)
    digits = np.finfo(z.dtype).nmant
    edges = 2.0 ** np.arange(-30, 5)
    density = np.diff(special.ndtr(math.sqrt(2.0) * edges)) / math.sqrt(math.pi)  # 2 ∫ φ² over [2ᵏ, 2ᵏ⁺¹)
    p = (density * edges[:-1] * 2.0**-digits).sum()
    return (found * (found - 1) / 2).sum(), z.size * (z.size - 1) / 2 * p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_coincide_as_often_as_rounding_makes_them(dtype):
    draws = normals.DRAWS[np.dtype(dtype)]
    z = stream.normals(4, stream.WIENER, 2**20 // draws, 1, draws, dtype=dtype).ravel()
    assert of_count(*coincidences(z)) > ALPHA
    rough = z.astype(np.float16).astype(dtype)
    assert of_count(*coincidences(rough)) < ALPHA
    repeated = z.copy()
    repeated[:1000] = repeated[-1000:]  # a thousandth of the draws used twice
    assert of_count(*coincidences(repeated)) < ALPHA


# ---- normals: correlations -----------------------------------------------------------------------------------


def correlation_statistics(z, other_seed):
    """z-scores of correlations of values and of squares: z is (paths, components, draws)."""
    pairs = {"components": (z[:, 0], z[:, 1]), "seeds": (z, other_seed)}
    pairs |= {f"steps, lag {lag}": (z[:, :, lag:], z[:, :, :-lag]) for lag in (1, 2, 3, 4, 5, 8, 16, 32)}
    pairs |= {f"paths, lag {lag}": (z[lag:], z[:-lag]) for lag in (1, 2, 3, 127, 128, 255, 256, 257, 4096)}
    scores = {}
    for name, (a, b) in pairs.items():
        scores[name] = abs(float((a * b).mean())) * math.sqrt(a.size)
        scores[f"{name}, squares"] = abs(float(((a**2 - 1.0) * (b**2 - 1.0)).mean())) / 2.0 * math.sqrt(a.size)
    return scores


def block_of(dtype, seed=5):
    return stream.normals(seed, stream.WIENER, 8192, 2, 64, dtype=dtype).astype(float)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_paths_components_and_seeds_are_uncorrelated(dtype):
    found = correlation_statistics(block_of(dtype), block_of(dtype, seed=6))
    assert max(found.values()) < BOUND, found


def mixed(z, share, shift, axis):
    """A little of a neighbour mixed into every draw."""
    return math.sqrt(1.0 - share**2) * z + share * np.roll(z, shift, axis)


CORRELATED = {
    "a hundredth of the step before": lambda z: mixed(z, 0.01, 1, 2),
    "a hundredth of the path one tile off": lambda z: mixed(z, 0.01, 256, 0),
    "sizes like those of the next path": lambda z: z * (0.98 + 0.02 * abs(np.roll(z, 1, 0)) / math.sqrt(2 / math.pi)),
    "two components alike up to sign": lambda z: np.stack([z[:, 0], np.sign(z[:, 1]) * abs(z[:, 0])], axis=1),
    "a tile of paths used again": lambda z: np.concatenate([z[:256], z[:-256]]),
}


@pytest.mark.parametrize("name", CORRELATED)
def test_correlated_draws_are_noticed(name):
    z = CORRELATED[name](block_of(np.float64))
    assert max(correlation_statistics(z, block_of(np.float64, seed=6)).values()) > BOUND


def test_seeds_that_share_a_stream_are_noticed():
    z = block_of(np.float64)
    assert correlation_statistics(z, z)["seeds"] > BOUND
