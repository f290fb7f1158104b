"""Normals by the GPU's own logarithm, sine, cosine and square root: twice as fast, and not the bits of the CPU.

The words of the stream are the same. lg2.approx near 1 and sin.approx, cos.approx have documented absolute errors of
2⁻²² and 2⁻²¹, so that a normal is off by some 10⁻⁶, and by up to 6·10⁻⁴ near 0; float64 is left to the polynomials.
Where kernels are simulated these functions are the polynomials too.
"""

import math

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..core.elementary import F32, call_unary32, fma, minus_two_log32, on_gpu, sincos_turn32
from ..core.normals import _HALF32, _UNIT32
from ..core.philox import philox32

_MINUS_TWO_LN2, _TURN, _ZERO = F32(-2.0 * math.log(2.0)), F32(math.pi * 2.0**-31), F32(0.0)


@njit(error_model="numpy")
def _radius_by_polynomial(u):
    return F32(math.sqrt(minus_two_log32(u)))


@intrinsic
def radius(typing, u):
    """√(−2 ln u) of a float32 u in (0, 1]."""
    signature = types.float32(types.float32)

    def generate(context, builder, signature, args):
        if not on_gpu(context):
            return context.compile_internal(builder, _radius_by_polynomial.py_func, signature, args)
        log2 = call_unary32(builder, "llvm.nvvm.lg2.approx.ftz.f", args[0])
        square = builder.fmul(log2, ir.Constant(ir.FloatType(), float(_MINUS_TWO_LN2)))
        # the logarithm of a u next to 1 may come out above 0
        above = builder.fcmp_ordered(">", square, ir.Constant(ir.FloatType(), 0.0))
        square = builder.select(above, square, ir.Constant(ir.FloatType(), 0.0))
        return call_unary32(builder, "llvm.nvvm.sqrt.approx.ftz.f", square)

    return signature, generate


@intrinsic
def sincos_turn(typing, w):
    """sin and cos of 2π w/2³² for a uint32 w."""
    signature = types.UniTuple(types.float32, 2)(types.uint32)

    def generate(context, builder, signature, args):
        if not on_gpu(context):
            return context.compile_internal(builder, sincos_turn32.py_func, signature, args)
        angle = builder.fmul(
            builder.sitofp(args[0], ir.FloatType()), ir.Constant(ir.FloatType(), float(_TURN))
        )  # within half a turn, where the unit's error is smallest
        values = [call_unary32(builder, f"llvm.nvvm.{name}.approx.ftz.f", angle) for name in ("sin", "cos")]
        return context.make_tuple(builder, signature.return_type, values)

    return signature, generate


@njit(error_model="numpy")
def _pair(a, b):
    r = radius(fma(F32(a), _UNIT32, _HALF32))
    sine, cosine = sincos_turn(b)
    return r * cosine, r * sine


@njit(error_model="numpy")
def path_normals32(c0, c1, low, high, keys):
    """The four float32 normals of one path's block, like those of ``core.normals``."""
    a, b, c, d = philox32(c0, c1, low, high, keys)
    z0, z1 = _pair(a, b)
    z2, z3 = _pair(c, d)
    return z0, z1, z2, z3
