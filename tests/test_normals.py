"""The stream's normals: exact values, the law, and tests that would notice a slip."""

import json
import math
import pathlib

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from sdesim.core import normals, philox, stream

DATA = pathlib.Path(__file__).parent / "data"
N = 1_000_000
# Twelve statistics per dtype are judged; together they fail once in a million fresh streams.
ALPHA = 1e-6 / 24
DTYPES = [np.float32, np.float64]


def drawn(dtype, seed=20):
    draws = normals.DRAWS[np.dtype(dtype)]
    return stream.normals(seed, stream.WIENER, N // draws, 1, draws, dtype=dtype).reshape(-1, draws).astype(float)


def statistics(z):
    """p-values of everything that a wrong normal would show in."""
    flat = z.ravel()
    n = flat.size

    def two_sided(value):
        return float(special.erfc(abs(value) / math.sqrt(2)))

    p = {}
    for k, (mean, var) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        p[f"moment {k}"] = two_sided((np.mean(flat**k) - mean) / math.sqrt(var / n))
    cells = np.floor(special.ndtr(flat) * 64).astype(int).clip(0, 63)
    counts = np.bincount(cells, minlength=64)
    p["chi-square, 64 cells"] = float(special.chdtrc(63, ((counts - n / 64) ** 2 / (n / 64)).sum()))
    for level in (3.5, 4.0):
        expected = n * special.erfc(level / math.sqrt(2))
        count = int((abs(flat) > level).sum())
        tail = min(special.pdtr(count, expected), special.pdtrc(count - 1, expected))
        p[f"tail {level}"] = float(min(1.0, 2 * tail))
    ordered = np.sort(special.ndtr(flat))
    gap = max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max())
    p["Kolmogorov"] = float(special.kolmogorov(gap * math.sqrt(n)))
    a, b = z[:, 0], z[:, 1]
    p["partners"] = two_sided(np.mean(a * b) * math.sqrt(a.size))
    p["partners, squares"] = two_sided(np.mean((a**2 - 1) * (b**2 - 1)) / 2 * math.sqrt(a.size))
    p["neighbouring paths"] = two_sided(np.mean(a[1:] * a[:-1]) * math.sqrt(a.size - 1))
    pair = np.floor(special.ndtr(np.stack([a, b])) * 16).astype(int).clip(0, 15)
    table = np.bincount(pair[0] * 16 + pair[1], minlength=256)
    p["pairs, 256 cells"] = float(special.chdtrc(255, ((table - a.size / 256) ** 2 / (a.size / 256)).sum()))
    return p


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_law(dtype):
    z = drawn(dtype)
    failed = {name: p for name, p in statistics(z).items() if p < ALPHA}
    assert not failed
    assert len(np.unique(z)) > (0.999 if dtype == np.float64 else 0.9) * z.size


MUTANTS = {
    "standard deviation 1 % too large": lambda z: 1.01 * z,
    "standard deviation 2 % too large": lambda z: 1.02 * z,
    "mean off by 0.02": lambda z: z + 0.02,
    "Student's t with 30 degrees": lambda z: z * np.sqrt(28 / np.random.default_rng(1).chisquare(30, z.shape)),
    "skewed": lambda z: z + 0.01 * (z**2 - 1),
    "mean off by 0.01": lambda z: z + 0.01,
    "tails cut at 3.5": lambda z: np.clip(z, -3.5, 3.5) * (abs(z) < 3.5),
    "partners equal up to sign": lambda z: np.column_stack([z[:, 0], abs(z[:, 0]) * np.sign(z[:, 1])]),
    "a path repeated": lambda z: np.repeat(z[::2], 2, axis=0),
    "the radius of another pair": lambda z: z * np.sqrt(np.roll((z**2).sum(1), 1) / (z**2).sum(1))[:, None] ** 0.2,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name):
    z = MUTANTS[name](drawn(np.float64))
    assert min(statistics(z).values()) < ALPHA


def test_steps_and_components_are_other_draws():
    z = stream.normals(3, stream.WIENER, 4000, 3, 8)
    columns = z.reshape(4000, -1)
    correlation = np.corrcoef(columns.T) - np.eye(24)
    assert abs(correlation).max() < 6 / math.sqrt(4000)
    purposes = [stream.normals(3, purpose, 100)[:, 0, 0] for purpose in range(8)]
    assert len({float(p[0]) for p in purposes}) == 8


def exact_pair(a, b, bits):
    """Box-Muller in 50 digits."""
    with mpmath.workdps(50):
        if bits == 32:
            u, turn = (mpmath.mpf(a) + 0.5) / 2**32, mpmath.mpf(b) / 2**32
        else:
            u, turn = (mpmath.mpf(a >> 11) + 0.5) / 2**53, mpmath.mpf(b) / 2**64
        r = mpmath.sqrt(-2 * mpmath.log(u))
        return float(r * mpmath.cospi(2 * turn)), float(r * mpmath.sinpi(2 * turn))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-6), (np.float64, 4e-15)])
def test_box_muller_against_fifty_digits(dtype, bound):
    n = 400
    words = np.empty((4, n), np.uint32)
    philox.words(words, np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(77))
    draws = normals.DRAWS[np.dtype(dtype)]
    z = stream.normals(77, stream.WIENER, n, 1, draws, dtype=dtype)[:, 0]
    for i in range(n):
        a, b, c, d = (int(w) for w in words[:, i])
        if dtype == np.float32:
            exact = (*exact_pair(a, b, 32), *exact_pair(c, d, 32))
        else:
            exact = exact_pair(a << 32 | b, c << 32 | d, 64)
        # near u = 1 the rounding of u to float32 is all there is, as in any 32-bit Box-Muller
        assert np.allclose(z[i], exact, rtol=0, atol=bound if min(abs(np.array(exact))) > 1e-3 else 3e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("purpose", range(8))
def test_known_answers_of_the_stream(dtype, purpose):
    """Version 1 is frozen: the same draws for ever, on every machine."""
    known = json.loads((DATA / f"stream_v1_purpose{purpose}.json").read_text())[dtype]
    for case in known:
        z = stream.normals(case["seed"], purpose, 3, 2, 5, first_path=case["first_path"], dtype=np.dtype(dtype))
        assert [float(v).hex() for v in z.ravel()] == case["normals"]


def test_uniforms_lie_inside_and_are_uniform():
    u = stream.uniforms(5, stream.ACCEPTANCE, 100_000, 1, 2)
    assert u.min() > 0
    assert u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(u[:, 0].T)[0, 1]) < 5 / math.sqrt(1e5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_by_step_are_the_same_draws(dtype):
    per_block = normals.DRAWS[np.dtype(dtype)]
    whole = stream.normals(9, stream.KNOWN, 300, 70, 3 * per_block, first_path=40, dtype=dtype)
    out = np.empty((per_block, 300, 70), dtype)
    stream.fill_steps(out, 40, 2, stream.KNOWN, 9)
    assert np.array_equal(out, whole[:, :, 2 * per_block :].transpose(2, 0, 1))


def test_a_square_root_by_newton_is_correctly_rounded():
    """What ``sqrt32`` does on a GPU, from the float32 nearest to 1/√x, for every mantissa of float32.

    Products are exact in float64, and so are the remainders. From a neighbour of that float32 five mantissas fail: on
    a device it rests on its being what the compiler makes of a correctly rounded root, see test_compiled.
    """
    wrong = {0: 0, 1: 0}
    for start in range(2**23, 2**25, 2**21):
        mantissa = np.arange(start, start + 2**21, 2 if start >= 2**24 else 1)
        x = (mantissa * 2.0**-23).astype(np.float32)  # [1, 4): an even and an odd exponent
        exact = np.sqrt(x.astype(float))
        for ulps in wrong:
            r = ((1.0 / exact).astype(np.float32).view(np.int32) + ulps).view(np.float32)
            s = x * r
            rest = (x.astype(float) - s.astype(float) ** 2).astype(np.float32)
            root = (s.astype(float) + rest.astype(float) * (np.float32(0.5) * r).astype(float)).astype(np.float32)
            wrong[ulps] += int((root != exact.astype(np.float32)).sum())
    assert wrong[0] == 0
    assert 0 < wrong[1] < 5
