"""exp, log, sin, cos, tanh, where and clip for compiled formulas: same bits everywhere, in vector registers.

A formula's ``np.exp`` becomes the ``exp`` of this module when it is compiled (so does ``math.exp``). Outside compiled
code each of them is NumPy's. Errors: at most about one unit in the last place of float64, two of float32; for sin and
cos of large angles the error is absolute, of that size.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from .elementary import (
    F32,
    U32,
    U64,
    bits_f32,
    bits_f64,
    eighth32,
    eighth64,
    f32_bits,
    f64_bits,
    fma,
    log1p32,
    log1p64,
    split32,
    split64,
)  # fmt: skip

__all__ = ["FUNCTIONS", "clip", "cos", "exp", "log", "sin", "tanh", "where"]

# ---- exp: x = k ln 2 + r, |r| <= ln 2 / 2;  exp r = 1 + r + r² P(r) -------------------------------------------------

_EXP32 = tuple(F32(c) for c in (0.00139262508, 0.00836323288, 0.0416665542, 0.166665767, 0.5))
_EXP64 = (
    2.51003854955103191e-8, 2.76200884454097482e-7, 2.75572684599970648e-6, 2.48015212959543751e-5,
    1.98412698630536169e-4, 1.38888889172137169e-3, 8.33333333333006183e-3, 4.16666666666241279e-2,
    1.66666666666666675e-1, 5.00000000000000102e-1,
)  # fmt: skip
_LOG2E, _LN2_HI, _LN2_LO = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
_LOG2E_F, _LN2_HI_F, _LN2_LO_F = F32(_LOG2E), F32(0.693359375), F32(-2.12194440e-4)
# Adding 1.5·2^m rounds to an integer and leaves it in the low bits, without a conversion instruction.
_ROUND32, _ROUND64 = F32(1.5 * 2.0**23), 1.5 * 2.0**52
_ONE_F, _TWO_F, _ZERO_F, _INF_F, _NAN_F = F32(1.0), F32(2.0), F32(0.0), F32(np.inf), F32(np.nan)
_MAX32, _MIN32, _MAX64, _MIN64 = F32(88.72283), F32(-86.6), 709.782712893384, -707.7
_BIAS32, _BIAS64, _SHIFT32, _SHIFT64 = U32(126), U64(1022), U32(23), U64(52)


@njit(inline="always", error_model="numpy")
def _exp32(x):
    c = x
    c = _MAX32 if c > _MAX32 else c
    c = _MIN32 if c < _MIN32 else c
    shifted = fma(c, _LOG2E_F, _ROUND32)
    k = shifted - _ROUND32
    r = fma(-k, _LN2_LO_F, fma(-k, _LN2_HI_F, c))
    p = fma(_EXP32[0], r, _EXP32[1])
    p = fma(p, r, _EXP32[2])
    p = fma(p, r, _EXP32[3])
    p = fma(p, r, _EXP32[4])
    y = fma(p * r, r, r) + _ONE_F
    # 2^(k-1) twice over, because k = 128 has no exponent of its own
    scale = bits_f32(U32(U32(f32_bits(shifted) + _BIAS32) << _SHIFT32))
    y = y * scale * _TWO_F
    y = _INF_F if x > _MAX32 else y
    return _ZERO_F if x < _MIN32 else y


@njit(inline="always", error_model="numpy")
def _exp64(x):
    c = x
    c = _MAX64 if c > _MAX64 else c
    c = _MIN64 if c < _MIN64 else c
    shifted = fma(c, _LOG2E, _ROUND64)
    k = shifted - _ROUND64
    r = fma(-k, _LN2_LO, fma(-k, _LN2_HI, c))
    p = fma(_EXP64[0], r, _EXP64[1])
    p = fma(p, r, _EXP64[2])
    p = fma(p, r, _EXP64[3])
    p = fma(p, r, _EXP64[4])
    p = fma(p, r, _EXP64[5])
    p = fma(p, r, _EXP64[6])
    p = fma(p, r, _EXP64[7])
    p = fma(p, r, _EXP64[8])
    p = fma(p, r, _EXP64[9])
    y = fma(p * r, r, r) + 1.0
    scale = bits_f64(U64(U64(f64_bits(shifted) + _BIAS64) << _SHIFT64))
    y = y * scale * 2.0
    y = np.inf if x > _MAX64 else y
    return 0.0 if x < _MIN64 else y


def exp(x: Any) -> Any:
    """eˣ to 1 unit in the last place; below about −86.6 (float32) or −707.7 (float64) exactly 0, nan stays nan.

    On arrays outside compiled code this is ``numpy.exp``.
    """
    return np.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp32(x)
    if x == types.float64:
        return lambda x: _exp64(x)
    return None


# ---- sin, cos of any angle: x = k π/2 + r, |r| <= π/4 ---------------------------------------------------------------

_TWO_BY_PI, _QUARTER_HI, _QUARTER_LO = 0.6366197723675814, 1.5707963267948966, 6.123233995736766e-17
_TWO_BY_PI_F, _QUARTER_HI_F, _QUARTER_LO_F = F32(_TWO_BY_PI), F32(1.5707963705062866), F32(-4.371138828673793e-08)
_ANGLE32, _ANGLE64 = F32(2.0**22), 2.0**51
_I0, _I1, _I2, _S30, _L0, _L1, _L2, _S62 = U32(0), U32(1), U32(2), U32(30), U64(0), U64(1), U64(2), U64(62)


@njit(inline="always", error_model="numpy")
def _sine32(x, quarters):
    """sin(x + quarters π/2)."""
    shifted = fma(x, _TWO_BY_PI_F, _ROUND32)
    k = shifted - _ROUND32
    # with fma the two-part reduction is right for every k that the rounding above can hold
    s, c = eighth32(fma(-k, _QUARTER_LO_F, fma(-k, _QUARTER_HI_F, x)))
    q = U32(f32_bits(shifted) + quarters)
    y = c if U32(q & _I1) != _I0 else s
    y = bits_f32(U32(f32_bits(y) ^ U32(U32(q & _I2) << _S30)))
    return y if abs(x) < _ANGLE32 else _NAN_F


@njit(inline="always", error_model="numpy")
def _sine64(x, quarters):
    """sin(x + quarters π/2)."""
    shifted = fma(x, _TWO_BY_PI, _ROUND64)
    k = shifted - _ROUND64
    s, c = eighth64(fma(-k, _QUARTER_LO, fma(-k, _QUARTER_HI, x)))
    q = U64(f64_bits(shifted) + quarters)
    y = c if U64(q & _L1) != _L0 else s
    y = bits_f64(U64(f64_bits(y) ^ U64(U64(q & _L2) << _S62)))
    return y if abs(x) < _ANGLE64 else np.nan


def sin(x: Any) -> Any:
    """sin x; nan for |x| beyond 2²² (float32) or 2⁵¹ (float64), where the spacing of x is near a whole turn."""
    return np.sin(x)


def cos(x: Any) -> Any:
    """cos x; nan where :func:`sin` is."""
    return np.cos(x)


@overload(sin)
def _sin(x):
    if x == types.float32:
        return lambda x: _sine32(x, _I0)
    if x == types.float64:
        return lambda x: _sine64(x, _L0)
    return None


@overload(cos)
def _cos(x):
    if x == types.float32:
        return lambda x: _sine32(x, _I1)
    if x == types.float64:
        return lambda x: _sine64(x, _L1)
    return None


# ---- log: x = 2^e (1 + f) -------------------------------------------------------------------------------------------

_TINY32, _LIFT32, _LIFTED32, _LN2_F = F32(2.0**-126), F32(2.0**23), F32(23.0), F32(np.log(2.0))
_TINY64, _LIFT64, _LIFTED64 = 2.0**-1022, 2.0**52, 52.0


@njit(inline="always", error_model="numpy")
def _log32(x):
    small = x < _TINY32
    e, f = split32(x * _LIFT32 if small else x)
    y = fma(e - _LIFTED32 if small else e, _LN2_F, log1p32(f))
    y = _INF_F if x == _INF_F else y
    y = -_INF_F if x == _ZERO_F else y
    return y if x >= _ZERO_F else _NAN_F


@njit(inline="always", error_model="numpy")
def _log64(x):
    small = x < _TINY64
    e, f = split64(x * _LIFT64 if small else x)
    e = e - _LIFTED64 if small else e
    y = fma(e, _LN2_HI, fma(e, _LN2_LO, log1p64(f)))
    y = np.inf if x == np.inf else y
    y = -np.inf if x == 0.0 else y
    return y if x >= 0.0 else np.nan


def log(x: Any) -> Any:
    """ln x; −inf at 0, nan below."""
    return np.log(x)


@overload(log)
def _log(x):
    if x == types.float32:
        return lambda x: _log32(x)
    if x == types.float64:
        return lambda x: _log64(x)
    return None


# ---- tanh: its own polynomial near 0, 1 − 2/(e^{2|x|} + 1) elsewhere ------------------------------------------------

_TANH32 = tuple(F32(c) for c in (-0.00661022783, 0.0213093887, -0.0539094288, 0.133331137, -0.33333332))
_TANH64 = (
    -1.72448744948439599e-5, 7.95995573526473193e-5, -2.30776162695197909e-4, 5.87437286009437859e-4,
    -1.45530929753464193e-3, 3.5920589774734553e-3, -8.86322983092570874e-3, 2.18694882605591146e-2,
    -5.39682539613955708e-2, 1.33333333333266577e-1, -3.33333333333333226e-1,
)  # fmt: skip
_NEAR32, _NEAR64 = F32(0.55), 0.625


@njit(inline="always", error_model="numpy")
def _tanh32(x):
    z = x * x
    p = fma(_TANH32[0], z, _TANH32[1])
    p = fma(p, z, _TANH32[2])
    p = fma(p, z, _TANH32[3])
    p = fma(p, z, _TANH32[4])
    size = abs(x)
    far = _ONE_F - _TWO_F / (_exp32(_TWO_F * size) + _ONE_F)
    return fma(p * z, x, x) if size < _NEAR32 else (-far if x < _ZERO_F else far)


@njit(inline="always", error_model="numpy")
def _tanh64(x):
    z = x * x
    p = fma(_TANH64[0], z, _TANH64[1])
    p = fma(p, z, _TANH64[2])
    p = fma(p, z, _TANH64[3])
    p = fma(p, z, _TANH64[4])
    p = fma(p, z, _TANH64[5])
    p = fma(p, z, _TANH64[6])
    p = fma(p, z, _TANH64[7])
    p = fma(p, z, _TANH64[8])
    p = fma(p, z, _TANH64[9])
    p = fma(p, z, _TANH64[10])
    size = abs(x)
    far = 1.0 - 2.0 / (_exp64(2.0 * size) + 1.0)
    return fma(p * z, x, x) if size < _NEAR64 else (-far if x < 0.0 else far)


def tanh(x: Any) -> Any:
    """tanh x."""
    return np.tanh(x)


@overload(tanh)
def _tanh(x):
    if x == types.float32:
        return lambda x: _tanh32(x)
    if x == types.float64:
        return lambda x: _tanh64(x)
    return None


# ---- where ----------------------------------------------------------------------------------------------------------


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere; on single numbers a selection, which Numba's own is not."""
    return np.where(condition, a, b)


@overload(where)
def _where(condition, a, b):
    if all(isinstance(kind, (types.Number, types.Boolean)) for kind in (condition, a, b)):
        return lambda condition, a, b: a if condition else b
    return None


def clip(x: Any, low: Any, high: Any) -> Any:
    """x, held between low and high; nan stays nan."""
    return np.clip(x, low, high)


@overload(clip)
def _clip(x, low, high):
    if all(isinstance(kind, types.Number) for kind in (x, low, high)):
        return lambda x, low, high: low if x < low else (high if x > high else x)
    return None


FUNCTIONS = {"exp": exp, "log": log, "sin": sin, "cos": cos, "tanh": tanh, "where": where, "clip": clip}
