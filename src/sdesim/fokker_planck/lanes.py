"""Eight numbers side by side: a vector type for compiled code, and the turning of rows into lanes.

Tridiagonal systems are recursions along a line; what can run in parallel is lines side by side. Left to itself the
compiler finds those vectors only where it can prove that no two arrays overlap. Here the vectors are written out: a
value of the type ``lanes`` is a vector of eight float64, which LLVM puts into one, two or four registers as the
machine has them. Lines along the last axis of an array lie in memory one after another: blocks of 8 x 8 numbers
are turned by shuffles on their way in and out of a buffer.

Arrays are flat; indices count numbers. Nothing is checked.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

WIDTH = 8
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_INT = ir.IntType(32)


class Lanes(types.Type):
    """Eight float64."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


def _place(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def load(typing, array, index):
    """array[index : index + 8]."""

    def generate(context, builder, signature, args):
        return builder.load(_place(context, builder, signature.args[0], *args), align=8)

    return lanes(array, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    """array[index : index + 8] = value."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def spread(typing, number):
    """The number in every lane."""

    def generate(context, builder, signature, args):
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT, WIDTH), [0] * WIDTH))

    return lanes(types.float64), generate


@intrinsic
def add(typing, x, y):
    def generate(context, builder, signature, args):
        return builder.fadd(*args)

    return lanes(lanes, lanes), generate


@intrinsic
def sub(typing, x, y):
    def generate(context, builder, signature, args):
        return builder.fsub(*args)

    return lanes(lanes, lanes), generate


@intrinsic
def mul(typing, x, y):
    def generate(context, builder, signature, args):
        return builder.fmul(*args)

    return lanes(lanes, lanes), generate


@intrinsic
def div(typing, x, y):
    def generate(context, builder, signature, args):
        return builder.fdiv(*args)

    return lanes(lanes, lanes), generate


@intrinsic
def fma(typing, x, y, z):
    """x y + z, rounded once where the machine can."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return builder.call(builder.module.declare_intrinsic(f"llvm.fmuladd.v{WIDTH}f64", (), kind), args)

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def rows_to_lanes(typing, source, start, stride, target, place):
    """target[place + 8 c + r] = source[start + stride r + c] for eight rows r and eight columns c."""

    def generate(context, builder, signature, args):
        source, start, stride, target, place = args
        rows = []
        for r in range(WIDTH):
            at = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
            rows.append(builder.load(_place(context, builder, signature.args[0], source, at), align=8))
        for c, column in enumerate(_turned(builder, rows)):
            at = builder.add(place, ir.Constant(place.type, WIDTH * c))
            builder.store(column, _place(context, builder, signature.args[3], target, at), align=8)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp), generate


@intrinsic
def lanes_to_rows(typing, source, place, target, start, stride):
    """target[start + stride r + c] = source[place + 8 c + r], the inverse."""

    def generate(context, builder, signature, args):
        source, place, target, start, stride = args
        columns = []
        for c in range(WIDTH):
            at = builder.add(place, ir.Constant(place.type, WIDTH * c))
            columns.append(builder.load(_place(context, builder, signature.args[0], source, at), align=8))
        for r, row in enumerate(_turned(builder, columns)):
            at = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
            builder.store(row, _place(context, builder, signature.args[2], target, at), align=8)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), generate


def _turned(builder, rows):
    """The columns of an 8 x 8 block in three rounds of shuffles: of numbers, of pairs, of halves."""

    def shuffle(x, y, order):
        return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT, WIDTH), order))

    for distance, low, high in (
        (1, [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
        (2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
        (4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    ):
        turned = list(rows)
        for k in range(WIDTH):
            if not k & distance:
                x, y = rows[k], rows[k + distance]
                turned[k], turned[k + distance] = shuffle(x, y, low), shuffle(x, y, high)
        rows = turned
    return rows
