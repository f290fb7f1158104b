"""The pieces of elementary functions: fused multiply-add, bits of a float, and polynomials for ln, sin and cos.

libm's functions differ between C libraries and processors, and a call to them stops a loop from being vectorised.
The functions here are made of +, ×, ÷ and an explicit ``fma`` wherever a product meets a sum, so that no compiler has
anything left to contract: they give the same bits on every machine that rounds correctly, and a loop over them runs
in vector registers. Here are those that turn random bits into normals; ``functions`` has those for formulas.

Coefficients: interpolation at the Chebyshev nodes of the reduced interval, in 60-digit arithmetic.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

U32, U64, I32, I64, F32, F64 = np.uint32, np.uint64, np.int32, np.int64, np.float32, np.float64


@intrinsic
def fma(typing, a, b, c):
    """a·b + c with one rounding."""
    if not (a == b == c and isinstance(a, types.Float)):
        return None
    return a(a, b, c), lambda context, builder, signature, args: builder.fma(*args)


def _bit_cast(source: Any, target: Any, llvm_type: Any) -> Any:
    @intrinsic
    def cast(typing, x):
        if x != source:
            return None
        return target(source), lambda context, builder, signature, args: builder.bitcast(args[0], llvm_type)

    return cast


f32_bits = _bit_cast(types.float32, types.uint32, ir.IntType(32))
bits_f32 = _bit_cast(types.uint32, types.float32, ir.FloatType())
f64_bits = _bit_cast(types.float64, types.uint64, ir.IntType(64))
bits_f64 = _bit_cast(types.uint64, types.float64, ir.DoubleType())


def on_gpu(context: Any) -> bool:
    """Whether an intrinsic is being written for numba-cuda's compiler."""
    return type(context).__module__.startswith("numba.cuda")


def call_unary32(builder: Any, name: str, value: Any) -> Any:
    """Call the LLVM intrinsic of that name, float32 to float32."""
    module = builder.module
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
    return builder.call(module.globals.get(name) or ir.Function(module, kind, name), [value])


@intrinsic
def sqrt32(typing, x):
    """√x, correctly rounded, of a float32 that is 0 or between 2⁻⁹⁰ and 2⁹⁰.

    On a GPU it is the approximate 1/√x and one step of Newton's method in fma: the instructions that ptxas makes of
    sqrt.rn.f32, without their branch for numbers near the ends of the range, which costs registers.
    """
    if x != types.float32:
        return None

    def generate(context, builder, signature, args):
        (x,) = args
        if not on_gpu(context):
            return call_unary32(builder, "llvm.sqrt.f32", x)
        tiny, half = (ir.Constant(ir.FloatType(), value) for value in (2.0**-100, 0.5))
        r = call_unary32(builder, "llvm.nvvm.rsqrt.approx.ftz.f", builder.select(
            builder.fcmp_ordered(">", x, tiny), x, tiny))  # fmt: skip
        s = builder.fmul(x, r)
        rest = builder.fma(builder.fsub(ir.Constant(ir.FloatType(), -0.0), s), s, x)
        return builder.fma(rest, builder.fmul(r, half), s)

    return types.float32(types.float32), generate


@intrinsic
def wide_product(typing, a, b):
    """The low and the high word of the 64-bit product of two uint32.

    The product is taken apart by its bits: shifts and masks make a GPU's compiler multiply twice.
    """
    if not a == b == types.uint32:
        return None
    signature = types.UniTuple(types.uint32, 2)(a, b)

    def generate(context, builder, signature, args):
        word, half = ir.IntType(64), ir.IntType(32)
        product = builder.mul(builder.zext(args[0], word), builder.zext(args[1], word))
        halves = builder.bitcast(product, ir.VectorType(half, 2))
        values = [builder.extract_element(halves, ir.Constant(half, i)) for i in (0, 1)]
        return context.make_tuple(builder, signature.return_type, values)

    return signature, generate


@intrinsic
def wide_vectors(typing):
    """Let LLVM use 512-bit registers in the function that calls this, where the processor has them.

    LLVM prefers 256 bits by default, a choice made for processors that lowered their clock under 512-bit load.
    """

    def generate(context, builder, signature, args):
        if not on_gpu(context):
            # llvmlite's attribute set knows no string attributes; the base class takes any text.
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


# ---- logarithm, mantissa in [√½, √2) ------------------------------------------------------------------

# log(1+f) = f − f²/2 + f³ P(f)
_LOG32 = tuple(
    F32(c)
    for c in (0.0697161147, -0.114797338, 0.116854199, -0.124256873, 0.142490576, -0.166678023, 0.200007157,
              -0.24999997, 0.333333312)
)  # fmt: skip
# log(1+f) = f − s (f − z P(z)), s = f/(2+f), z = s²
_LOG64 = (
    0.146164496850889051, 0.153317216005516905, 0.181828891252618821, 0.22222211134795077, 0.285714286259754849,
    0.399999999998995045, 0.666666666666666969,
)  # fmt: skip
_LN2, _LN2_F, _HALF_F, _ONE_F, _MINUS_TWO_F = math.log(2.0), F32(math.log(2.0)), F32(0.5), F32(1.0), F32(-2.0)
_ROOT_HALF32, _EXPONENT32, _MANTISSA32 = U32(0x3F3504F3), I32(23), U32(0x007FFFFF)
_ROOT_HALF64, _EXPONENT64, _MANTISSA64 = U64(0x3FE6A09E667F3BCD), I64(52), U64(0x000FFFFFFFFFFFFF)


@njit(inline="always", error_model="numpy")
def split32(x):
    """A normal positive float32 as (e, f) with x = 2^e (1 + f), 1 + f in [√½, √2)."""
    t = U32(f32_bits(x) - _ROOT_HALF32)
    return F32(I32(I32(t) >> _EXPONENT32)), bits_f32(U32(U32(t & _MANTISSA32) + _ROOT_HALF32)) - _ONE_F


@njit(inline="always", error_model="numpy")
def split64(x):
    """A normal positive float64 as (e, f) with x = 2^e (1 + f), 1 + f in [√½, √2)."""
    t = U64(f64_bits(x) - _ROOT_HALF64)
    return F64(I64(I64(t) >> _EXPONENT64)), bits_f64(U64(U64(t & _MANTISSA64) + _ROOT_HALF64)) - 1.0


@njit(inline="always", error_model="numpy")
def log1p32(f):
    """ln(1 + f) for 1 + f in [√½, √2)."""
    z = f * f
    p = fma(_LOG32[0], f, _LOG32[1])
    p = fma(p, f, _LOG32[2])
    p = fma(p, f, _LOG32[3])
    p = fma(p, f, _LOG32[4])
    p = fma(p, f, _LOG32[5])
    p = fma(p, f, _LOG32[6])
    p = fma(p, f, _LOG32[7])
    p = fma(p, f, _LOG32[8])
    return fma(p * f, z, fma(-_HALF_F, z, f))


@njit(inline="always", error_model="numpy")
def log1p64(f):
    """ln(1 + f) for 1 + f in [√½, √2)."""
    s = f / (2.0 + f)
    z = s * s
    p = fma(_LOG64[0], z, _LOG64[1])
    p = fma(p, z, _LOG64[2])
    p = fma(p, z, _LOG64[3])
    p = fma(p, z, _LOG64[4])
    p = fma(p, z, _LOG64[5])
    p = fma(p, z, _LOG64[6])
    return fma(-s, fma(-z, p, f), f)


@njit(inline="always", error_model="numpy")
def minus_two_log32(u):
    """−2 ln u for a normal float32 u in (0, 1]."""
    e, f = split32(u)
    return _MINUS_TWO_F * fma(e, _LN2_F, log1p32(f))


@njit(inline="always", error_model="numpy")
def minus_two_log64(u):
    """−2 ln u for a normal float64 u in (0, 1]."""
    e, f = split64(u)
    return -2.0 * fma(e, _LN2, log1p64(f))


# ---- sin, cos of 2π w / 2^bits for an unsigned integer w: the reduction to an eighth of a turn is exact -------------

_SIN32 = tuple(F32(c) for c in (-0.000195878909, 0.00833274827, -0.166666647))
_COS32 = tuple(F32(c) for c in (2.45479421e-5, -0.0013888303, 0.0416666647))
_SIN64 = (
    1.59181292948663809e-10, -2.50511318450036206e-8, 2.75573161025524401e-6, -1.98412698367585743e-4,
    8.33333333333094849e-3, -1.66666666666666646e-1,
)  # fmt: skip
_COS64 = (
    -1.13826324255215756e-11, 2.08761462684031955e-9, -2.75573172717297929e-7, 2.48015872987656879e-5,
    -1.38888888888873972e-3, 4.16666666666666654e-2,
)  # fmt: skip
_TURN32, _TURN64 = F32(2.0 * math.pi * 2.0**-34), 2.0 * math.pi * 2.0**-66
_BIT30, _BIT31, _BIT62, _BIT63 = U32(1 << 30), U32(1 << 31), U64(1 << 62), U64(1 << 63)
_EIGHTH32, _EIGHTH64 = U32(1 << 29), U64(1 << 61)
_I2, _I0, _L2, _L0 = U32(2), U32(0), U64(2), U64(0)


@njit(inline="always", error_model="numpy")
def eighth32(t):
    """sin t and cos t for |t| <= π/4."""
    z = t * t
    s = fma(fma(fma(_SIN32[0], z, _SIN32[1]), z, _SIN32[2]) * z, t, t)
    c = fma(fma(fma(fma(_COS32[0], z, _COS32[1]), z, _COS32[2]), z, -_HALF_F), z, _ONE_F)
    return s, c


@njit(inline="always", error_model="numpy")
def eighth64(t):
    """sin t and cos t for |t| <= π/4."""
    z = t * t
    p = fma(_SIN64[0], z, _SIN64[1])
    p = fma(p, z, _SIN64[2])
    p = fma(p, z, _SIN64[3])
    p = fma(p, z, _SIN64[4])
    p = fma(p, z, _SIN64[5])
    s = fma(p * z, t, t)
    p = fma(_COS64[0], z, _COS64[1])
    p = fma(p, z, _COS64[2])
    p = fma(p, z, _COS64[3])
    p = fma(p, z, _COS64[4])
    p = fma(p, z, _COS64[5])
    c = fma(fma(p, z, -0.5), z, 1.0)
    return s, c


@njit(inline="always", error_model="numpy")
def sincos_turn32(w):
    """sin and cos of 2π w/2³² for a uint32 w."""
    # Bits 31 and 30 of w + 1/8 turn number the quadrant; w << 2, read as signed, is four times the offset from it.
    q = U32(w + _EIGHTH32)
    s, c = eighth32(F32(I32(U32(w << _I2))) * _TURN32)
    odd = U32(q & _BIT30) != _I0
    sine, cosine = (c if odd else s), (s if odd else c)
    sine = bits_f32(U32(f32_bits(sine) ^ U32(q & _BIT31)))
    cosine = bits_f32(U32(f32_bits(cosine) ^ U32(U32(q + _BIT30) & _BIT31)))
    return sine, cosine


@njit(inline="always", error_model="numpy")
def sincos_turn64(w):
    """sin and cos of 2π w/2⁶⁴ for a uint64 w."""
    q = U64(w + _EIGHTH64)
    s, c = eighth64(F64(I64(U64(w << _L2))) * _TURN64)
    odd = U64(q & _BIT62) != _L0
    sine, cosine = (c if odd else s), (s if odd else c)
    sine = bits_f64(U64(f64_bits(sine) ^ U64(q & _BIT63)))
    cosine = bits_f64(U64(f64_bits(cosine) ^ U64(U64(q + _BIT62) & _BIT63)))
    return sine, cosine
