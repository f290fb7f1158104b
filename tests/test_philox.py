"""Philox4x32-10 and the words of the stream."""

import json
import pathlib

import numpy as np
import pytest

from sdesim.core import philox, stream

KNOWN = json.loads((pathlib.Path(__file__).parent / "data" / "philox4x32_10.json").read_text())


def words_of(counter, key):
    out = np.empty((4, 1), np.uint32)
    c0, c1, c2, c3 = counter
    philox.words(out, np.uint64(c0), np.uint64(c1), np.uint64(c2 | c3 << 32), np.uint64(key[0] | key[1] << 32))
    return [int(w) for w in out[:, 0]]


@pytest.mark.parametrize("case", KNOWN["vectors"], ids=["zeros", "ones", "pi"])
def test_known_answers_of_random123(case):
    counter, key, answer = ([int(w, 16) for w in case[k]] for k in ("counter", "key", "words"))
    assert words_of(counter, key) == answer


def philox_in_python(counter, key, rounds):
    """The definition (Salmon et al. 2011, §3.3), in exact integers."""
    (c0, c1, c2, c3), (k0, k1), mask = counter, key, 2**32 - 1
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def test_equals_the_definition_and_not_nine_rounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        w = [int(v) for v in rng.integers(0, 2**32, 6)]
        assert words_of(w[:4], w[4:]) == philox_in_python(w[:4], w[4:], 10)
        assert words_of(w[:4], w[4:]) != philox_in_python(w[:4], w[4:], 9)


def test_paths_beyond_32_bits_are_other_paths():
    near = stream.normals(1, stream.WIENER, 1, first_path=5)
    far = stream.normals(1, stream.WIENER, 1, first_path=2**32 + 5)
    assert near[0, 0, 0] != far[0, 0, 0]
    run = stream.normals(1, stream.WIENER, 8, first_path=2**32 - 3)
    assert np.array_equal(run[5:6], stream.normals(1, stream.WIENER, 1, first_path=2**32 + 2))
