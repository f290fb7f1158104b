"""``sdesim random``: the random stream on standard output, for the test batteries of others.

    sdesim random --raw | RNG_test stdin32                             PractRand
    sdesim random --normals --words | RNG_test stdin32                 the normals, as bits
    sdesim random --raw --order step --seed 7 | dieharder -g 200 -a
    sdesim random --normals --dtype float32 | your own program         float32 numbers

What comes out is what the engines draw, by the same compiled kernels: the Wiener increments' words or normals. Their
order matters, because a counter-based generator may be good along one counter and bad along another: ``path`` follows
a path through ``row`` Philox blocks before it takes the next path, ``step`` stays at a block for ``row`` paths.
"""

import argparse
import concurrent.futures
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .core import checks, normals, stream
from .core.cache import kernel
from .core.elementary import U32, U64
from .core.philox import tile_words

ORDERS = ("path", "step")
_TILE, _DEPTH = 256, 64
_ROOT_HALF = math.sqrt(0.5)


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    words = commands.add_parser("random", help="the random stream on standard output, for test batteries")
    kind = words.add_mutually_exclusive_group(required=True)
    kind.add_argument("--raw", action="store_true", help="the 32-bit words of Philox4x32-10")
    kind.add_argument("--normals", action="store_true", help="standard normals, as binary numbers")
    words.add_argument("--words", action="store_true", help="of each normal z the leading bits of its rank Φ(z)")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--dtype", default="float64", help="of the normals: float64 or float32")
    words.add_argument("--order", default="path", help="path: along a path first; step: across paths first")
    words.add_argument("--row", type=int, default=4096, help="blocks of a path, or paths at a block, in one row")
    words.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write for ever; the reader ends it."""
    pieces = chunks(
        raw=options.raw, seed=options.seed, dtype=options.dtype, order=options.order, row=options.row,
        words=options.words,
    )  # fmt: skip
    if sys.stdout.isatty():
        raise ValueError("random writes binary numbers, and standard output is a terminal; pipe it into a program")
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    return 0


def chunks(
    *, raw: bool, seed: Any = 0, dtype: Any = "float64", order: str = "path", row: int = 4096, words: bool = False
) -> Iterator[memoryview]:
    """The stream in pieces of some megabytes, one of them drawn ahead while the last is written."""
    seed, kind, order = checks.seed(seed), checks.dtype(dtype), checks.choice("order", order, ORDERS)
    row = checks.integer("row", row, minimum=_TILE, below=2**20)
    if row % _TILE:
        raise ValueError(f"row must be a multiple of {_TILE}, got {row}")
    if raw and words:
        raise ValueError("words are made of normals, and --raw are words already; leave one of them out")
    draw = _raw(seed, order, row) if raw else _normals(seed, order, row, kind)
    if words:
        draw = _ranked(draw, kind)
    return _ahead(draw)


def _ahead(draw: Callable[[int], np.ndarray]) -> Iterator[memoryview]:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        number, waiting = 0, pool.submit(draw, 0)
        while True:
            found, number = waiting.result(), number + 1
            waiting = pool.submit(draw, number)
            yield np.ascontiguousarray(found).data.cast("B")


def _raw(seed: int, order: str, row: int) -> Callable[[int], np.ndarray]:
    """Words (paths, blocks, 4) of the n-th group of paths, or (blocks, paths, 4) of the n-th group of blocks."""
    purpose = U64(stream.WIENER << 24)

    def draw(n: int) -> np.ndarray:
        if order == "path":
            out = np.empty((_TILE, row, 4), np.uint32)
            _fill(out.transpose(1, 0, 2), U64(0), purpose, U64(n * _TILE), U64(seed))
        else:
            out = np.empty((_DEPTH, row, 4), np.uint32)
            _fill(out, U64(n * _DEPTH), purpose, U64(0), U64(seed))
        return out

    return draw


@kernel
def _fill(out, block0, purpose, path0, seed):
    """out[b, i] = the four words of path path0 + i at block block0 + b."""
    words = np.empty((4, 128), np.uint64)
    for start in range(0, out.shape[1], 256):
        for b in range(out.shape[0]):
            tile_words(words, U64(block0 + U64(b)), purpose, U64(path0 + U64(start)), seed)
            w = words.view(np.uint32)
            for i in range(256):
                for r in range(4):
                    out[b, start + i, r] = w[r, i]


def _normals(seed: int, order: str, row: int, dtype: np.dtype) -> Callable[[int], np.ndarray]:
    draws = normals.DRAWS[dtype]

    def draw(n: int) -> np.ndarray:
        if order == "path":
            return stream.normals(seed, stream.WIENER, _TILE, 1, row * draws, first_path=n * _TILE, dtype=dtype)
        out = np.empty((_DEPTH, draws, row, 1), dtype)
        for b in range(_DEPTH):
            stream.fill_steps(out[b], 0, n * _DEPTH + b, stream.WIENER, seed)
        return out

    return draw


def _ranked(draw: Callable[[int], np.ndarray], dtype: np.dtype) -> Callable[[int], np.ndarray]:
    """Φ(z) in 2³²nds for float64 normals; in 2¹⁶ths for float32 ones, which have 24 bits and not 32."""
    kind, scale = (np.uint32, 2.0**32) if dtype == np.float64 else (np.uint16, 2.0**16)

    def ranked(n: int) -> np.ndarray:
        z = draw(n).ravel()
        out = np.empty(z.size, kind)
        _rank(out, z, scale)
        return out

    return ranked


@kernel
def _rank(out, z, scale):
    for i in range(len(z)):
        out[i] = U32(min(0.5 * math.erfc(-_ROOT_HALF * z[i]) * scale, scale - 1.0))
