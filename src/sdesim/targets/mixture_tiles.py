"""The score of a Gaussian mixture over a tile of 256 points, for compiled paths.

One exponential for each component and point is the cost that cannot be avoided, so the rest is kept out of
its way:

* exponents are in base 2 (the factor log₂e is folded into the coefficients) and at most 0 after the largest
has been
  subtracted, so 2ᶻ needs no overflow branch and no two-part reduction: 12 instructions;
* components of one shared variance need no squares: |x|² is common to all exponents and cancels;
* for few components the loop over them is written out, so that one pass over the lanes keeps every exponent
in a
  register; for many, the components are outside, the lanes inside, and the exponents in one scratch array.

The three kinds are named by what a component is: "shared" (round, one variance for all), "round" (a variance
each) and "full" (a precision matrix each). ``GaussianMixture.fields`` gives the coefficients.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from ..core import elementary
from ..core.elementary import bits_f32, bits_f64, f32_bits, f64_bits, minus_two_log32, minus_two_log64

# Any: a type checker sees an intrinsic with the arguments of its code generator.
fma: Any = elementary.fma
wide_vectors: Any = elementary.wide_vectors

# Terms (components × entries of a component) up to which the loop over components is written out: beyond, the
# registers are long spilt and the compile time grows.
WRITTEN_OUT = 64

# 2ʳ for |r| <= 1/2, interpolated at Chebyshev nodes: relative error 1.0e-7 (float32) and 2.9e-16 (float64).
_POWER32 = tuple(
    np.float32(c) for c in (0.001339086336, 0.009676031918, 0.05550357114, 0.2402210749, 0.693147188, 1.000000075)
)
_POWER64 = (
    7.0725859492692237e-9, 1.02086902999583058e-7, 1.32154425879216897e-6, 1.52526572602008371e-5,
    1.54035304417360502e-4, 1.33335582301649739e-3, 9.61812910760688853e-3, 0.0555041086644477192,
    0.240226506959100982, 0.693147180559949983, 1.0,
)  # fmt: skip
# Adding 1.5·2^m rounds to an integer, which then stands in the low bits, ready to be added to the exponent.
_ROUND32, _LOWEST32, _SHIFT32 = np.float32(1.5 * 2.0**23), np.float32(-60.0), np.uint32(23)
_ROUND64, _LOWEST64, _SHIFT64 = 1.5 * 2.0**52, -200.0, np.uint64(52)
_U32, _U64 = np.uint32, np.uint64


@njit(inline="always", error_model="numpy")
def _power32(z):
    z = _LOWEST32 if z < _LOWEST32 else z
    shifted = z + _ROUND32
    r = z - (shifted - _ROUND32)
    p = fma(_POWER32[0], r, _POWER32[1])
    p = fma(p, r, _POWER32[2])
    p = fma(p, r, _POWER32[3])
    p = fma(p, r, _POWER32[4])
    p = fma(p, r, _POWER32[5])
    return bits_f32(_U32(f32_bits(p) + _U32(f32_bits(shifted) << _SHIFT32)))


@njit(inline="always", error_model="numpy")
def _power64(z):
    z = _LOWEST64 if z < _LOWEST64 else z
    shifted = z + _ROUND64
    r = z - (shifted - _ROUND64)
    p = fma(_POWER64[0], r, _POWER64[1])
    p = fma(p, r, _POWER64[2])
    p = fma(p, r, _POWER64[3])
    p = fma(p, r, _POWER64[4])
    p = fma(p, r, _POWER64[5])
    p = fma(p, r, _POWER64[6])
    p = fma(p, r, _POWER64[7])
    p = fma(p, r, _POWER64[8])
    p = fma(p, r, _POWER64[9])
    p = fma(p, r, _POWER64[10])
    return bits_f64(_U64(f64_bits(p) + _U64(f64_bits(shifted) << _SHIFT64)))


# The plain functions say what the overloads choose, so that the fingerprint of a compiled formula, which
# follows names, reaches the polynomials through them.


def _power(z: Any) -> Any:
    return _power32(z) if z.dtype == np.float32 else _power64(z)


@overload(_power)
def _power_of(z):
    if z == types.float32:
        return lambda z: _power32(z)
    if z == types.float64:
        return lambda z: _power64(z)
    return None


def _minus_two_log(u: Any) -> Any:
    return minus_two_log32(u) if u.dtype == np.float32 else minus_two_log64(u)


@overload(_minus_two_log)
def _minus_two_log_of(u):
    if u == types.float32:
        return lambda u: minus_two_log32(u)
    if u == types.float64:
        return lambda u: minus_two_log64(u)
    return None


@njit(error_model="numpy")
def power(z):
    """2ᶻ for z <= 0, at least 2⁻⁶⁰ (float32) or 2⁻²⁰⁰: nothing beside the 1 in the same sum.

    A smaller one would make denormal products, each of which costs a processor a hundred cycles.
    """
    return _power(z)


@njit(error_model="numpy")
def minus_two_log(u):
    """−2 ln u for u in (0, 1]."""
    return _minus_two_log(u)


@functools.lru_cache(maxsize=64)
def score_tile(kind: str, d: int, k: int) -> Callable[..., None]:
    """The score of a mixture of k components in dimension d as a tile formula (self, x, t, out)."""
    return _written_out(kind, d, k, "score_tile") if _is_small(kind, d, k) else _LOOPS[kind]


@functools.lru_cache(maxsize=64)
def score_point(kind: str, d: int, k: int) -> Callable[..., None]:
    """The score of one point, x and out of shape (d, 1), in the bits of the tile's."""
    return score_tile(kind, d, k) if _is_small(kind, d, k) else _POINTS[kind]


@functools.lru_cache(maxsize=64)
def log_density_tile(kind: str, d: int, k: int) -> Callable[..., None]:
    """The log density, into row 0 of ``out``."""
    return _written_out(kind, d, k, "log_density_tile") if _is_small(kind, d, k) else _DENSITY_LOOPS[kind]


def _is_small(kind: str, d: int, k: int) -> bool:
    """Whether the loop over components is written out."""
    return k * (d * d if kind == "full" else d) <= WRITTEN_OUT


def _written_out(kind: str, d: int, k: int, name: str) -> Callable[..., None]:
    """The formula with the loops over components m and axes j written out, and the lanes i the only loop."""
    axes, parts = range(d), range(k)
    head: list[str] = ["wide_vectors()"]
    body: list[str] = []
    if kind == "shared":
        head += [f"c{j} = self.centre[{j}]" for j in axes]
        head += [f"a{m}_{j} = self.slopes[{m}, {j}]" for m in parts for j in axes]
        body += [f"y{j} = x[{j}, i] - c{j}" for j in axes]
    else:
        head += [f"c{m}_{j} = self.means[{m}, {j}]" for m in parts for j in axes]
        body += [f"y{m}_{j} = c{m}_{j} - x[{j}, i]" for m in parts for j in axes]
    head += [f"b{m} = self.biases[{m}]" for m in parts]
    if kind == "round":
        head += [f"h{m} = self.half_precisions[{m}]" for m in parts]
        head += [f"p{m} = self.precisions[{m}]" for m in parts]
    if kind == "full":
        head += [f"p{m}_{j}_{n} = self.precisions[{m}, {j}, {n}]" for m in parts for j in axes for n in axes]
        for m in parts:  # g = C⁻¹(μ − x) serves the exponent and the score
            for j in axes:
                body.append(f"g{m}_{j} = " + _fma_sum([(f"p{m}_{j}_{n}", f"y{m}_{n}") for n in axes]))
    for m in parts:
        if kind == "shared":
            body.append(f"l{m} = " + _fma_sum([(f"a{m}_{j}", f"y{j}") for j in axes], f"b{m}"))
        elif kind == "round":
            body.append("q = " + _fma_sum([(f"y{m}_{j}", f"y{m}_{j}") for j in axes]))
            body.append(f"l{m} = fma(-h{m}, q, b{m})")
        else:
            body.append("q = " + _fma_sum([(f"y{m}_{j}", f"g{m}_{j}") for j in axes]))
            body.append(f"l{m} = fma(-self.half, q, b{m})")
    body.append("top = l0")
    body += [f"top = l{m} if l{m} > top else top" for m in parts if m > 0]
    body += [f"e{m} = power(l{m} - top)" for m in parts]
    body.append("share = 1.0 / (" + " + ".join(f"e{m}" for m in parts) + ")")
    if name == "log_density_tile":
        body += _log_density_end(kind, axes)
    else:
        body += _score_end(kind, axes, parts)
    text = f"def {name}(self, x, t, out):\n" + "".join(f"    {line}\n" for line in head)
    text += "    for i in range(x.shape[1]):\n" + "".join(f"        {line}\n" for line in body)
    scope: dict[str, Any] = {
        "fma": fma,
        "power": power,
        "minus_two_log": minus_two_log,
        "wide_vectors": wide_vectors,
        "__name__": __name__,
    }
    exec(text, scope)
    formula: Callable[..., None] = scope[name]
    return formula


def _fma_sum(products: list[tuple[str, str]], start: str | None = None) -> str:
    text = start
    for a, b in products:
        text = f"{a} * {b}" if text is None else f"fma({a}, {b}, {text})"
    assert text is not None
    return text


def _score_end(kind: str, axes: range, parts: range) -> list[str]:
    lines = []
    if kind == "shared":
        for j in axes:
            total = _fma_sum([(f"e{m}", f"a{m}_{j}") for m in parts])
            lines.append(f"out[{j}, i] = fma(-self.precision, y{j}, ({total}) * (share * self.ln2))")
        return lines
    if kind == "round":
        lines += [f"e{m} = e{m} * p{m}" for m in parts]
    pull = "y" if kind == "round" else "g"
    for j in axes:
        total = _fma_sum([(f"e{m}", f"{pull}{m}_{j}") for m in parts])
        lines.append(f"out[{j}, i] = ({total}) * share")
    return lines


def _log_density_end(kind: str, axes: range) -> list[str]:
    # log Σ = top ln 2 + ln w, and ln w = ½ (−2 ln 1/w)
    value = "fma(0.5, minus_two_log(share), top * self.ln2)"
    if kind != "shared":
        return [f"out[0, i] = {value}"]
    square = _fma_sum([(f"y{j}", f"y{j}") for j in axes])
    return [f"out[0, i] = fma(-self.half_precision, {square}, {value})"]


# ---- many components or many dimensions: lanes inside, exponents in a scratch array
# ---------------------------------


@njit(error_model="numpy")
def _shared_exponents(self, x, e):
    wide_vectors()
    for m in range(e.shape[0]):
        bias = self.biases[m]
        for i in range(e.shape[1]):
            e[m, i] = bias
        for j in range(x.shape[0]):
            slope, centre = self.slopes[m, j], self.centre[j]
            for i in range(e.shape[1]):
                e[m, i] = fma(slope, x[j, i] - centre, e[m, i])


@njit(error_model="numpy")
def _round_exponents(self, x, e):
    wide_vectors()
    for m in range(e.shape[0]):
        bias, half = self.biases[m], self.half_precisions[m]
        for i in range(e.shape[1]):
            e[m, i] = bias
        for j in range(x.shape[0]):
            mean = self.means[m, j]
            for i in range(e.shape[1]):
                y = mean - x[j, i]
                e[m, i] = fma(-half * y, y, e[m, i])


@njit(error_model="numpy")
def _full_exponents(self, x, e):
    wide_vectors()
    for m in range(e.shape[0]):
        bias = self.biases[m]
        for i in range(e.shape[1]):
            e[m, i] = bias
        for j in range(x.shape[0]):
            for n in range(x.shape[0]):
                half = self.half * self.precisions[m, j, n]
                mean_j, mean_n = self.means[m, j], self.means[m, n]
                for i in range(e.shape[1]):
                    e[m, i] = fma(-half * (mean_j - x[j, i]), mean_n - x[n, i], e[m, i])


@njit(error_model="numpy")
def _weights(e, top, share):
    """Exponents become posterior weights times their sum, ``share`` one over it, ``top`` the largest one."""
    wide_vectors()
    for i in range(top.shape[0]):
        top[i] = e[0, i]
        share[i] = e[0, i] - e[0, i]
    for m in range(1, e.shape[0]):
        for i in range(top.shape[0]):
            top[i] = e[m, i] if e[m, i] > top[i] else top[i]
    for m in range(e.shape[0]):
        for i in range(top.shape[0]):
            e[m, i] = power(e[m, i] - top[i])
            share[i] += e[m, i]
    for i in range(top.shape[0]):
        share[i] = e.dtype.type(1.0) / share[i]


def _shared_loops(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _shared_exponents(self, x, e)
    _weights(e, top, share)
    for j in range(x.shape[0]):
        centre = self.centre[j]
        for i in range(n):
            out[j, i] = 0.0
        for m in range(k):
            slope = self.slopes[m, j]
            for i in range(n):
                out[j, i] = fma(e[m, i], slope, out[j, i])
        for i in range(n):
            out[j, i] = fma(-self.precision, x[j, i] - centre, out[j, i] * (share[i] * self.ln2))


def _round_loops(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _round_exponents(self, x, e)
    _weights(e, top, share)
    for j in range(x.shape[0]):
        for i in range(n):
            out[j, i] = 0.0
        for m in range(k):
            mean, precision = self.means[m, j], self.precisions[m]
            for i in range(n):
                out[j, i] = fma(e[m, i] * precision, mean - x[j, i], out[j, i])
        for i in range(n):
            out[j, i] *= share[i]


def _full_loops(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _full_exponents(self, x, e)
    _weights(e, top, share)
    for j in range(x.shape[0]):
        for i in range(n):
            out[j, i] = 0.0
        for m in range(k):
            for c in range(x.shape[0]):
                mean, precision = self.means[m, c], self.precisions[m, j, c]
                for i in range(n):
                    out[j, i] = fma(e[m, i] * precision, mean - x[c, i], out[j, i])
        for i in range(n):
            out[j, i] *= share[i]


def _shared_density(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _shared_exponents(self, x, e)
    _weights(e, top, share)
    for i in range(n):
        out[0, i] = fma(0.5, minus_two_log(share[i]), top[i] * self.ln2)
    for j in range(x.shape[0]):
        centre = self.centre[j]
        for i in range(n):
            y = x[j, i] - centre
            out[0, i] = fma(-self.half_precision * y, y, out[0, i])


def _round_density(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _round_exponents(self, x, e)
    _weights(e, top, share)
    for i in range(n):
        out[0, i] = fma(0.5, minus_two_log(share[i]), top[i] * self.ln2)


def _full_density(self, x, t, out):
    wide_vectors()
    k, n = self.biases.shape[0], x.shape[1]
    e, top, share = np.empty((k, n), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    _full_exponents(self, x, e)
    _weights(e, top, share)
    for i in range(n):
        out[0, i] = fma(0.5, minus_two_log(share[i]), top[i] * self.ln2)


# ---- one point, for a thread of a GPU: exponents are computed twice, and nothing is stored ----


@njit(error_model="numpy")
def _shared_exponent(self, x, m):
    e = self.biases[m]
    for j in range(x.shape[0]):
        e = fma(self.slopes[m, j], x[j, 0] - self.centre[j], e)
    return e


@njit(error_model="numpy")
def _round_exponent(self, x, m):
    e = self.biases[m]
    for j in range(x.shape[0]):
        y = self.means[m, j] - x[j, 0]
        e = fma(-self.half_precisions[m] * y, y, e)
    return e


@njit(error_model="numpy")
def _full_exponent(self, x, m):
    e = self.biases[m]
    for j in range(x.shape[0]):
        for n in range(x.shape[0]):
            half = self.half * self.precisions[m, j, n]
            e = fma(-half * (self.means[m, j] - x[j, 0]), self.means[m, n] - x[n, 0], e)
    return e


def _shared_point(self, x, t, out):
    top = _shared_exponent(self, x, 0)
    total = top - top
    for m in range(1, self.biases.shape[0]):
        exponent = _shared_exponent(self, x, m)
        top = exponent if exponent > top else top
    for j in range(x.shape[0]):
        out[j, 0] = 0.0
    for m in range(self.biases.shape[0]):
        e = power(_shared_exponent(self, x, m) - top)
        total += e
        for j in range(x.shape[0]):
            out[j, 0] = fma(e, self.slopes[m, j], out[j, 0])
    share = 1.0 / total
    for j in range(x.shape[0]):
        out[j, 0] = fma(-self.precision, x[j, 0] - self.centre[j], out[j, 0] * (share * self.ln2))


def _round_point(self, x, t, out):
    top = _round_exponent(self, x, 0)
    total = top - top
    for m in range(1, self.biases.shape[0]):
        exponent = _round_exponent(self, x, m)
        top = exponent if exponent > top else top
    for j in range(x.shape[0]):
        out[j, 0] = 0.0
    for m in range(self.biases.shape[0]):
        e = power(_round_exponent(self, x, m) - top)
        total += e
        for j in range(x.shape[0]):
            out[j, 0] = fma(e * self.precisions[m], self.means[m, j] - x[j, 0], out[j, 0])
    share = 1.0 / total
    for j in range(x.shape[0]):
        out[j, 0] *= share


def _full_point(self, x, t, out):
    top = _full_exponent(self, x, 0)
    total = top - top
    for m in range(1, self.biases.shape[0]):
        exponent = _full_exponent(self, x, m)
        top = exponent if exponent > top else top
    for j in range(x.shape[0]):
        out[j, 0] = 0.0
    for m in range(self.biases.shape[0]):
        e = power(_full_exponent(self, x, m) - top)
        total += e
        for j in range(x.shape[0]):
            for c in range(x.shape[0]):
                out[j, 0] = fma(e * self.precisions[m, j, c], self.means[m, c] - x[c, 0], out[j, 0])
    share = 1.0 / total
    for j in range(x.shape[0]):
        out[j, 0] *= share


_POINTS: dict[str, Callable[..., None]] = {"shared": _shared_point, "round": _round_point, "full": _full_point}
_LOOPS: dict[str, Callable[..., None]] = {"shared": _shared_loops, "round": _round_loops, "full": _full_loops}
_DENSITY_LOOPS: dict[str, Callable[..., None]] = {
    "shared": _shared_density,
    "round": _round_density,
    "full": _full_density,
}
