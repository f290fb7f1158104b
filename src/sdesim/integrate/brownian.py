"""Brownian paths as objects: W of a (seed, path) at any time, on coarser and on finer steps.

A path is given on a base grid of n_steps steps by the increments W that ``simulate`` uses, and by the space-time areas

    H = (1/h) ∫ (W_s − W_t − (s − t)/h W) ds  ~  N(0, h/12), independent of W,    ∫ (W_s − W_t) ds = h (W/2 + H).

Below the base grid stands a tree: the interval of length h number i of level l (i counts over the whole span) is cut
in the middle with two fresh normals z ~ N(0, h/16) and n ~ N(0, h/12) into

    W_left  = W/2 + 3/2 H + z      H_left  = H/4 − z/2 + n/2
    W_right = W/2 − 3/2 H − z      H_right = H/4 − z/2 − n/2

which are four independent variables again, of variances h/2 and h/24 (Foster, Lyons & Oberhauser 2020, "An optimal
polynomial approximation of Brownian motion", SIAM J. Numer. Anal. 58; Foster 2020, thesis, Oxford). z and n are a draw
of their own for every interval, at the counter n_steps (2^l − 1) + i of purpose BRIDGE: a value does not depend on
what was asked before, and a coarser value is the sum of the finer ones.
"""

import functools
from typing import Any

import numpy as np
from numba import njit

from ..core import cache, checks, stream
from ..core.elementary import I64, U32, U64, wide_vectors
from ..core.normals import DRAWS, pair32, pair64
from ..core.philox import philox

_LOW, _S32 = U64(0xFFFFFFFF), U64(32)


# ---- formulas -------------------------------------------------------------------------------------------------------


@njit(inline="always", error_model="numpy")
def halves(w, area, z, n):
    """(W_left, H_left, W_right, H_right) of an interval with increment w and space-time area ``area``."""
    half, quarter = type(w)(0.5), type(w)(0.25)
    shift = type(w)(1.5) * area + z
    mean = quarter * area - half * z
    return half * w + shift, mean + half * n, half * w - shift, mean - half * n


@njit(inline="always", error_model="numpy")
def draw64(c0, c1, path, seed):
    """Draws 2 c0 and 2 c0 + 1 of the float64 stream."""
    a, b, c, d = philox(c0, c1, path & _LOW, path >> _S32, seed & _LOW, seed >> _S32)
    return pair64((a << _S32) | (b & _LOW), (c << _S32) | (d & _LOW))


@njit(inline="always", error_model="numpy")
def draw32(c0, c1, path, seed):
    """Draws 4 c0 to 4 c0 + 3 of the float32 stream."""
    a, b, c, d = philox(c0, c1, path & _LOW, path >> _S32, seed & _LOW, seed >> _S32)
    z0, z1 = pair32(U32(a & _LOW), U32(b & _LOW))
    z2, z3 = pair32(U32(c & _LOW), U32(d & _LOW))
    return z0, z1, z2, z3


@njit(error_model="numpy", nogil=True)
def lanes64(z, nodes, count, c1, path0, seed):
    """Two float64 normals for each of ``count`` nodes, a node being lane << 32 | c0 of the path path0 + lane."""
    wide_vectors()
    for i in range(I64(count)):
        node = nodes[i]
        z[0, i], z[1, i] = draw64(node & _LOW, c1, path0 + (node >> _S32), seed)


@njit(error_model="numpy", nogil=True)
def lanes32(z, nodes, count, c1, path0, seed):
    """Four float32 normals for each of ``count`` nodes, a node being lane << 32 | c0 of the path path0 + lane."""
    wide_vectors()
    for i in range(I64(count)):
        node = nodes[i]
        z[0, i], z[1, i], z[2, i], z[3, i] = draw32(node & _LOW, c1, path0 + (node >> _S32), seed)


def max_level(n_steps: int) -> int:
    """The finest level whose parents have counters of 32 bits: n_steps (2^l − 1) <= 2³²."""
    return (stream.MAX_BLOCKS // n_steps + 1).bit_length() - 1


# ---- kernels --------------------------------------------------------------------------------------------------------

_KERNELS = """\
import math

import numpy as np
from numba import njit, types

I64, U64 = np.int64, np.uint64
_T = types.{dtype}
_A, _W, _I, _Z, _N = _T[:, :, ::1], types.uint64, types.int64, _T[:, ::1], types.uint64[::1]

@njit(types.void(_A, _W, _W, _W, _Z, _N), nogil=True, cache=CACHE, error_model="numpy")
def draws(out, path0, purpose, seed, z, nodes):
    n, m, count = out.shape
    blocks = (count + {S} - 1) // {S}
    for start in range(0, blocks, 256):
        size = min(256, blocks - start)
        for c in range(size):
            nodes[c] = U64(start + c)
        for i in range(n):
            for k in range(m):
                _lanes(z, nodes, U64(size), U64((purpose << U64(24)) | U64(k)), U64(path0 + U64(i)), seed)
                for s in range({S} * start, min({S} * (start + size), count)):
                    out[i, k, s] = z[s % {S}, s // {S} - start]

@njit(types.void(_A, _A, _A, _A, _T, _T, _W, _W, _W, _Z, _N), nogil=True, cache=CACHE, error_model="numpy")
def split(w, area, w_out, area_out, size_z, size_n, node0, path0, seed, z, nodes):
    n, m, count = w.shape
    for start in range(0, count, 256):
        size = min(256, count - start)
        for c in range(size):
            nodes[c] = U64(node0 + U64(start + c))
        for i in range(n):
            for k in range(m):
                _lanes(z, nodes, U64(size), U64(U64({bridge}) | U64(k)), U64(path0 + U64(i)), seed)
                for c in range(size):
                    s = start + c
                    left, left_area, right, right_area = _halves(
                        w[i, k, s], area[i, k, s], size_z * z[0, c], size_n * z[1, c]
                    )
                    w_out[i, k, 2 * s], w_out[i, k, 2 * s + 1] = left, right
                    area_out[i, k, 2 * s], area_out[i, k, 2 * s + 1] = left_area, right_area

@njit(types.void(types.float64[::1], types.float64, _Z, _Z, _Z, _I, _W, _W, _Z), nogil=True, cache=CACHE,
      error_model="numpy")
def values(steps, dt, start, w, area, depth, path, seed, out):
    m, n_steps = w.shape
    for q in range(steps.shape[0]):
        base = min(I64(steps[q]), n_steps - 1)
        for k in range(m):
            c1 = U64(U64({bridge}) | U64(k))
            rest, index = steps[q] - base, base
            at, v, a, h = start[k, base], w[k, base], area[k, base], dt
            for l in range(depth):
                z = _draw(U64(n_steps * ((1 << l) - 1) + index), c1, path, seed)
                left, left_area, right, right_area = _halves(
                    v, a, {T}(math.sqrt(h / 16.0)) * z[0], {T}(math.sqrt(h / 12.0)) * z[1]
                )
                rest, index, h = 2.0 * rest, 2 * index, 0.5 * h
                if rest < 1.0:
                    v, a = left, left_area
                else:
                    rest, index, at, v, a = rest - 1.0, index + 1, at + left, right, right_area
            r = {T}(rest)
            out[q, k] = at + r * v + {T}(6.0) * r * ({T}(1.0) - r) * a
"""


@functools.cache
def _kernels(dtype: np.dtype) -> Any:
    """``draws`` (a stream's draws, path by path), ``split`` (a level from the one above) and ``values`` (W at times).

    All arrays are (paths, components, steps): the draws of a loop over steps differ in their counters only.
    """
    single = dtype == np.float32
    text = _KERNELS.format(
        dtype=dtype.name, T=f"np.{dtype.name}", S=DRAWS[dtype], bridge=stream.BRIDGE << 24
    )  # fmt: skip
    names = {"_draw": draw32 if single else draw64, "_lanes": lanes32 if single else lanes64, "_halves": halves}
    return cache.load(text, names)


def _scratch(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((DRAWS[dtype], 256), dtype), np.empty(256, np.uint64)


def _normals(
    purpose: int, variance: float, seed: int, first_path: int, shape: tuple[int, int, int], dtype: np.dtype
) -> np.ndarray:
    """The stream's draws on the base grid, (paths, components, steps), of the given variance."""
    out = np.empty(shape, dtype)
    _kernels(dtype).draws(out, first_path, purpose, seed, *_scratch(dtype))
    out *= dtype.type(np.sqrt(variance))
    return out


def _increments(seed: int, first_path: int, shape: tuple[int, int, int], dt: float, dtype: np.dtype) -> np.ndarray:
    return _normals(stream.WIENER, dt, seed, first_path, shape, dtype)


def _areas(seed: int, first_path: int, shape: tuple[int, int, int], dt: float, dtype: np.dtype) -> np.ndarray:
    return _normals(stream.SPACE_TIME, dt / 12.0, seed, first_path, shape, dtype)


def _refined(
    w: np.ndarray, area: np.ndarray, level: int, seed: int, first_path: int, dt: float, n_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Level ``level`` of the tree from the base grid's values."""
    n, m, _ = w.shape
    for above in range(level):
        h = dt / 2**above
        count = n_steps << above
        fine, fine_area = (np.empty((n, m, 2 * count), w.dtype) for _ in range(2))
        sizes = [w.dtype.type(np.sqrt(h / 16.0)), w.dtype.type(np.sqrt(h / 12.0))]
        _kernels(w.dtype).split(
            w, area, fine, fine_area, *sizes, n_steps * (2**above - 1), first_path, seed, *_scratch(w.dtype)
        )
        w, area = fine, fine_area
    return w, area


def _sums(w: np.ndarray, ratio: int) -> np.ndarray:
    """Increments over steps that are ``ratio`` steps each."""
    n, m, count = w.shape
    return w if ratio == 1 else w.reshape(n, m, count // ratio, ratio).sum(axis=3)


def _integrals(w: np.ndarray, area: np.ndarray, ratio: int, h: float) -> np.ndarray:
    """∫ (W_s − W_t) ds over steps from t that are ``ratio`` steps of length h each."""
    n, m, count = w.shape
    w, area = (a.reshape(n, m, count // ratio, ratio) for a in (w, area))
    kind = w.dtype.type
    behind = np.cumsum(w, axis=3) - w  # W at the start of each part, from the start of the step
    return (kind(h) * (kind(0.5) * w + area + behind)).sum(axis=3)


def _level(n_steps: int, wanted: int) -> int:
    """The coarsest level of which ``wanted`` steps are sums."""
    for level in range(max_level(n_steps) + 1):
        if (n_steps << level) % wanted == 0:
            return level
    raise ValueError(
        f"n={wanted} steps do not follow from a base grid of n_steps={n_steps}: n must divide n_steps·2^k for a "
        f"k <= {max_level(n_steps)}; take n = n_steps·2^k, or a divisor of n_steps"
    )


# ---- public ---------------------------------------------------------------------------------------------------------


class BrownianPath:
    """The Brownian motion of a (seed, path), W(t0) = 0, as a function of time.

    Its increments over the base grid are those that ``simulate(..., t_span=t_span, n_steps=n_steps, seed=seed,
    first_path=path, n_paths=1)`` is driven by; finer values are Brownian bridges between them, coarser ones sums.

        path = sde.BrownianPath(seed=1, path=0, t_span=(0.0, 1.0), n_steps=64)
        path([0.1, 0.25])           # W at any times, (2, 1)
        path.increments(16)         # over 16 steps, (16, 1)
        path.increments(1024)       # over 1024 steps

    Parameters
    ----------
    seed, path : the seed of the stream, and the number of the path.
    n_steps : steps of the base grid. A path is one for a base grid: other n_steps are other paths.
    dim : the number of Wiener processes.
    dtype : float64 or float32, as in the run to be driven (the two are different streams).
    """

    def __init__(
        self,
        seed: int,
        path: int,
        t_span: tuple[float, float] = (0.0, 1.0),
        *,
        n_steps: int,
        dim: int = 1,
        dtype: Any = np.float64,
    ) -> None:
        self.seed = checks.seed(seed)
        self.path = checks.integer("path", path, minimum=0, below=stream.MAX_PATHS)
        self.t_span = checks.time_span(t_span)
        self.n_steps = checks.integer("n_steps", n_steps, minimum=1, below=2**32)
        self.dim = checks.integer("dim", dim, minimum=1, below=stream.MAX_COMPONENTS)
        self.dtype = checks.dtype(dtype)

    def __repr__(self) -> str:
        return (
            f"BrownianPath(seed={self.seed}, path={self.path}, t_span={self.t_span}, n_steps={self.n_steps}, "
            f"dim={self.dim}, dtype={self.dtype})"
        )

    @property
    def dt(self) -> float:
        """The base step."""
        return (self.t_span[1] - self.t_span[0]) / self.n_steps

    @property
    def depth(self) -> int:
        """Levels of the tree below the base grid; a whole span has about 2³² finest intervals."""
        return max_level(self.n_steps)

    @functools.cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W at the start of each base step, increments and areas, each (dim, n_steps)."""
        where = (self.seed, self.path, (1, self.dim, self.n_steps), self.dt, self.dtype)
        w, area = _increments(*where)[0], _areas(*where)[0]
        start = np.zeros_like(w)
        np.cumsum(w[:, :-1], axis=1, out=start[:, 1:])
        return start, w, area

    def __call__(self, t: Any) -> np.ndarray:
        """W at the times t (any shape, inside the span): (*t.shape, dim).

        Exact at the dyadic times t0 + j dt/2^k, k <= ``depth``. Between the two of these next to t it is the mean
        given W and H there, a parabola that is off by at most ¼ √(dt/2^depth): 1/260 000 of the size of W at the end.
        """
        times = checks.array("t", t)
        t0, t1 = self.t_span
        outside = ~((times >= t0) & (times <= t1))
        if outside.any():
            raise ValueError(f"t={times[outside].flat[0]:g} is outside the span [{t0:g}, {t1:g}] of this path")
        out = np.empty((times.size, self.dim), self.dtype)
        steps = np.ascontiguousarray(((times - t0) / self.dt).ravel())
        _kernels(self.dtype).values(steps, self.dt, *self._grid, self.depth, self.path, self.seed, out)
        return out.reshape(*times.shape, self.dim)

    def increments(self, n: int | None = None) -> np.ndarray:
        """W over each of n equal steps (n, dim); n divides n_steps·2^k for some k, and is n_steps if not given."""
        w, _, ratio, _ = self._tree(n)
        return _sums(w, ratio)[0].T.copy()

    def space_time(self, n: int | None = None) -> np.ndarray:
        """The integrals dZ = ∫ (W_s − W_t) ds over each of n equal steps from t (n, dim); H = dZ/dt − dW/2."""
        return _integrals(*self._tree(n))[0].T.copy()

    def _tree(self, n: int | None) -> tuple[np.ndarray, np.ndarray, int, float]:
        """W and H of the level whose intervals make up n steps, how many of them make one, and their length."""
        _, w, area = self._grid
        wanted = self.n_steps if n is None else checks.integer("n", n, minimum=1)
        level = _level(self.n_steps, wanted)
        w, area = _refined(w[None], area[None], level, self.seed, self.path, self.dt, self.n_steps)
        return w, area, (self.n_steps << level) // wanted, self.dt / 2**level


def brownian_increments(
    seed: int, n_paths: int, t_span: tuple[float, float], n_steps: int, *, n: int | None = None, dim: int = 1,
    first_path: int = 0, dtype: Any = np.float64, space_time: bool = False,
) -> np.ndarray:  # fmt: skip
    """Increments of the Brownian paths of ``seed`` over n equal steps, (n_paths, n, dim), for ``increments=``.

    The base grid has n_steps steps, over which ``simulate(..., n_steps=n_steps, seed=seed)`` is driven by just these
    paths. With another n (a divisor of n_steps, or n_steps·2^k) the same paths are handed to a run with coarser or
    finer steps, or to another process:

        fine = sde.simulate(process, x0, (0, 1), n_steps=256, n_paths=100, seed=1)
        dw = sde.brownian_increments(1, 100, (0, 1), 256, n=64)
        coarse = sde.simulate(process, x0, (0, 1), n_steps=64, n_paths=100, increments=dw)

    With ``space_time`` the integrals dZ = ∫ (W_s − W_t) ds of the steps stand behind the increments,
    (n_paths, n, 2 dim), as schemes of order 1.5 take them.
    """
    seed = checks.seed(seed)
    n_paths = checks.integer("n_paths", n_paths, minimum=1)
    t0, t1 = checks.time_span(t_span)
    n_steps = checks.integer("n_steps", n_steps, minimum=1, below=2**32)
    wanted = n_steps if n is None else checks.integer("n", n, minimum=1)
    dim = checks.integer("dim", dim, minimum=1, below=stream.MAX_COMPONENTS)
    first_path = checks.integer("first_path", first_path, minimum=0)
    checks.integer("first_path + n_paths", first_path + n_paths, below=stream.MAX_PATHS)
    kind = checks.dtype(dtype)
    level, dt = _level(n_steps, wanted), (t1 - t0) / n_steps
    out = np.empty((n_paths, wanted, dim * (1 + space_time)), kind)
    rows = max(1, 2**14 // (dim * (n_steps << level)))  # paths at once, so that a block stays in the cache
    ratio = (n_steps << level) // wanted
    for start in range(0, n_paths, rows):
        block = out[start : start + rows]
        first = first_path + start
        where = (seed, first, (len(block), dim, n_steps), dt, kind)
        w = _increments(*where)
        if level or space_time:
            w, area = _refined(w, _areas(*where), level, seed, first, dt, n_steps)
            if space_time:
                block[:, :, dim:] = _integrals(w, area, ratio, dt / 2**level).transpose(0, 2, 1)
        block[:, :, :dim] = _sums(w, ratio).transpose(0, 2, 1)
    return out


# ---- for engines ----------------------------------------------------------------------------------------------------

_SOURCE = """\
from numba import carray, cfunc, types

_P, _U, _W = types.CPointer(types.{dtype}), types.CPointer(types.uint64), types.uint64

@cfunc(types.void(_P, _U, _W, _W, _W, _W), cache=CACHE, error_model="numpy")
def source(z, nodes, count, counter, path0, seed):
    _lanes(carray(z, ({draws}, 256)), carray(nodes, (256,)), count, counter, path0, seed)
"""


@functools.cache
def source(dtype: np.dtype) -> Any:
    """The compiled noise source of lanes that stand at different nodes: (z, nodes, count, c1, path0, seed)."""
    names = {"_lanes": lanes32 if dtype == np.float32 else lanes64}
    return cache.load(_SOURCE.format(dtype=dtype.name, draws=DRAWS[dtype]), names).source
