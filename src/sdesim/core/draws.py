"""Draws from laws that one normal cannot carry: gamma, Poisson and non-central χ², by rejection, from the stream.

A rejection method needs an unknown number of random words. It takes them from a **spot** (c0, c1, path, seed) of the
stream, the counter of a (step, purpose, component, path): the running number of the draw is added to c1, and every
Philox block there gives two 64-bit words. The spots of two components are ``STRIDE`` blocks apart, beyond the
components that other draws of the same purpose use; one bit is kept for the steps above 2³².

Every sampler takes (…, spot, draw) and returns (value, next draw). All of them compute in float64 with our own
logarithm and exponential, so that a draw has the same bits on every machine.
"""

import math

import numpy as np
from numba import njit

from . import stream
from .elementary import U64, minus_two_log64
from .functions import exp, log
from .normals import pair64
from .philox import philox

_LOW, _S32, _S24, _S11 = U64(0xFFFFFFFF), U64(32), U64(24), U64(11)
_UNIT64, _HALF64 = 2.0**-53, 2.0**-54

FIRST_COMPONENT, STRIDE, LONG = U64(2**21), U64(256), U64(2**23)
MAX_COMPONENTS = (2**23 - 2**21) // 256
_ACCEPTANCE = U64(stream.ACCEPTANCE)
_ONE, _TWO = U64(1), U64(2)

_sampler = njit(nogil=True, error_model="numpy")


@_sampler
def spot_of(step, component, path, seed):
    """The spot of a component (< ``MAX_COMPONENTS``) in a step of a path."""
    number = U64(step)
    place = U64(FIRST_COMPONENT + U64(STRIDE * U64(component))) + U64(LONG * U64(number >> _S32))
    return U64(number & _LOW), U64(_ACCEPTANCE << _S24) | U64(place), U64(path), U64(seed)


@_sampler
def words(spot, draw):
    """Two random 64-bit words: Philox block number ``draw`` of a spot."""
    c0, c1, path, seed = spot
    a, b, c, d = philox(c0, U64(c1 + draw), path & _LOW, path >> _S32, seed & _LOW, seed >> _S32)
    return (a << _S32) | (b & _LOW), (c << _S32) | (d & _LOW)


@_sampler
def unit(word):
    """A uniform in (0, 1): k + ½ over 2⁵³ for the upper 53 bits k."""
    return np.float64(np.int64(word >> _S11)) * _UNIT64 + _HALF64


@_sampler
def uniform(spot, draw):
    """Two uniforms in (0, 1), and the next draw."""
    a, b = words(spot, draw)
    return unit(a), unit(b), U64(draw + _ONE)


@_sampler
def normal(spot, draw):
    """Two standard normals, and the next draw."""
    a, b = words(spot, draw)
    first, second = pair64(a, b)
    return first, second, U64(draw + _ONE)


@_sampler
def ln(u):
    """ln u for a uniform in (0, 1)."""
    return -0.5 * minus_two_log64(u)


# ---- gamma ----------------------------------------------------------------------------------------------------------


@_sampler
def _log_ratio(x, scale, y, v):
    """½x² + s (1 − v + ln v) for v = (1 + y)³, s = scale, y = x / 3√s: the logarithm that an attempt is accepted with.

    Its terms up to y³ cancel, which for a large scale would leave only rounding: there the rest of the series of
    ln(1 + y) is summed.
    """
    if abs(y) > 0.05:
        return 0.5 * x * x + scale * (1.0 - v + log(v))
    rest, power = 0.0, y * y * y
    for k in range(4, 16):
        power = -power * y
        rest += power / k
    return 3.0 * scale * rest


@_sampler
def gamma(shape, spot, draw):
    """A draw of the Gamma law with the given shape > 0 and scale 1: density x^{a−1} e^{−x} / Γ(a).

    Marsaglia & Tsang 2000, "A simple method for generating gamma variables": s v with s = a − ⅓, v = (1 + x/3√s)³ and
    a normal x, accepted where ln u < ½x² + s − s v + s ln v; a shape below 1 is drawn as Gamma(a + 1) U^{1/a}.
    """
    boosted = shape < 1.0
    scale = (shape + 1.0 if boosted else shape) - 1.0 / 3.0
    step = 1.0 / (3.0 * math.sqrt(scale))
    while True:
        x, _, draw = normal(spot, draw)
        u, extra, draw = uniform(spot, draw)
        y = step * x
        if y <= -1.0:
            continue
        v = (1.0 + y) * (1.0 + y) * (1.0 + y)
        square = x * x
        if u < 1.0 - 0.0331 * square * square or ln(u) < _log_ratio(x, scale, y, v):
            value = scale * v
            return (value * exp(ln(extra) / shape) if boosted else value), draw


# ---- Poisson --------------------------------------------------------------------------------------------------------


@_sampler
def stirling_error(k):
    """ln k! − ln(√(2πk) (k/e)^k) for a whole number k >= 1, by its asymptotic series from 12 on."""
    lifted = 0.0
    while k < 12.0:
        # δ(k) = δ(k + 1) + (k + ½) ln(1 + 1/k) − 1
        lifted += (k + 0.5) * log(1.0 + 1.0 / k) - 1.0
        k += 1.0
    r = 1.0 / k
    s = r * r
    return lifted + r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * (1 / 1188 - s * (691 / 360360))))))


@_sampler
def deviance(k, mean):
    """k ln(k/m) + m − k, to full relative accuracy also near k = m."""
    gap = k - mean
    if abs(gap) > 0.1 * (k + mean):
        return k * log(k / mean) - gap
    v = gap / (k + mean)
    square = v * v
    total, term = gap * v, 2.0 * k * v
    for j in range(1, 9):  # |v| <= 0.1: each term is a hundredth of the one before
        term *= square
        total += term / (2 * j + 1)
    return total


@_sampler
def log_poisson(k, mean):
    """ln of the Poisson probability of k, in the saddle-point form of Loader 2000, which loses no digits."""
    if k == 0.0:
        return -mean
    return -stirling_error(k) - deviance(k, mean) - 0.5 * log(2.0 * math.pi * k)


@_sampler
def poisson(mean, spot, draw):
    """A draw of the Poisson law, as float64.

    Below a mean of 10 the distribution function is inverted; above, PTRS, the transformed rejection with squeeze of
    Hörmann 1993 ("The transformed rejection method for generating Poisson random variables").
    """
    if mean < 10.0:
        u, _, draw = uniform(spot, draw)
        k, p = 0.0, exp(-mean)
        while u > p and k < 150.0:  # P(K > 150) < 1e-110: a guard against rounding at the end of the sum
            u -= p
            k += 1.0
            p *= mean / k
        return k, draw
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        u, v, draw = uniform(spot, draw)
        u -= 0.5
        side = 0.5 - abs(u)
        k = math.floor((2.0 * a / side + b) * u + mean + 0.43)
        if side >= 0.07 and v <= squeeze:
            return k, draw
        if k < 0.0 or (side < 0.013 and v > side):
            continue
        if log(v * inverse_alpha / (a / (side * side) + b)) <= log_poisson(k, mean):
            return k, draw


# ---- non-central χ² -------------------------------------------------------------------------------------------------

_MANY = 2.0**36


@_sampler
def _half_even_poisson(mean, spot, draw):
    """Half of a Poisson number that is known to be even."""
    if mean > _MANY:
        return 0.5 * mean, draw
    while True:
        k, draw = poisson(mean, spot, draw)
        half = math.floor(0.5 * k)
        if 2.0 * half == k:
            return half, draw


@_sampler
def noncentral_chi_square(freedom, noncentrality, z, spot, draw):
    """A draw of the non-central χ² law with f > 0 degrees of freedom, λ >= 0, that follows the standard normal z.

    Y = (z + √λ)² has one degree of freedom.

    * f > 1: Y + χ²_{f−1} (Johnson, Kotz & Balakrishnan 1995, section 29.1).
    * f < 1: a non-central χ² law is χ²_{f+2N} with N of the Poisson law with mean λ/2. Given Y the number N of f = 1
      has the Bessel law p(n) ∝ (λY)ⁿ / (2n)!: 2N is a Poisson number with mean √(λY), given that it is even (Devroye
      2002, "Simulating Bessel random variables", at order −½). And χ²_{f+2N} = χ²_{1+2N} · Beta(f/2 + N, (1 − f)/2),
      so that thinning Y by that factor leaves f degrees of freedom.

    For √(λY) > 2³⁶ the number N is taken at its mean: the factor differs from 1 by about 1/2N, and what N's
    fluctuation √N changes of it is below the rounding of float64.
    """
    shifted = z + math.sqrt(noncentrality)
    y = shifted * shifted
    if freedom == 1.0:
        return y, draw
    if freedom > 1.0:
        more, draw = gamma(0.5 * (freedom - 1.0), spot, draw)
        return y + 2.0 * more, draw
    n, draw = _half_even_poisson(math.sqrt(noncentrality) * abs(shifted), spot, draw)
    kept, draw = gamma(0.5 * freedom + n, spot, draw)
    lost, draw = gamma(0.5 * (1.0 - freedom), spot, draw)
    return y * (kept / (kept + lost)), draw
