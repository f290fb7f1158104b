"""Philox4x32-10 and the words of the stream."""

import json
import pathlib

import numpy as np
import pytest
from numba import types

from sdesim.core import normals, philox, stream

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


@pytest.mark.parametrize("case", KNOWN["vectors"], ids=["zeros", "ones", "pi"])
def test_known_answers_word_by_word(case):
    """The form for one path at a time, whose words are uint32 throughout: as uint64 they would not wrap."""
    counter, key, answer = ([int(w, 16) for w in case[k]] for k in ("counter", "key", "words"))
    keys = philox.round_keys(key[0] | key[1] << 32)
    assert [int(w) for w in philox.philox32(*np.array(counter, np.uint32), keys)] == answer
    assert set(philox.philox32.nopython_signatures[0].return_type) == {types.uint32}
    assert [int(w) for w in philox.philox32(*np.array(counter, np.uint32), keys[::-1])] != answer


@pytest.mark.parametrize(
    ("dtype", "words"), [(np.float32, normals.path_normals32), (np.float64, normals.path_normals64)]
)
def test_the_normals_of_one_path_are_those_of_its_tile(dtype, words):
    seed, path, step = 2**40 + 3, 2**33 + 77, 4
    draws = normals.DRAWS[np.dtype(dtype)]
    tile = stream.normals(seed, stream.SPACE_TIME, 1, 3, (step + 1) * draws, first_path=path, dtype=dtype)[0, 2]
    counter = (
        np.uint32(step),
        np.uint32(stream.SPACE_TIME << 24 | 2),
        np.uint32(path & 0xFFFFFFFF),
        np.uint32(path >> 32),
    )
    assert words(*counter, philox.round_keys(seed)) == tuple(tile[step * draws :])
