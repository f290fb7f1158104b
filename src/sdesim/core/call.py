"""Calling compiled code through its address.

Numba's own first-class functions pass every array as nine words and check each call; here a call is four pointers
and an integer, which is what makes one call per tile of 256 paths negligible.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


def _pointer(context, builder, kind, value):
    array = context.make_array(kind)(context, builder, value)
    return builder.bitcast(array.data, ir.IntType(8).as_pointer())


@intrinsic
def call_tile(typing, address, x, t, p, out, rows):
    """Run the tile function at ``address`` on the arrays' memory: (x, t, p, out, rows)."""
    signature = types.void(types.intp, x, t, p, out, types.intp)

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte, byte, byte, byte, word])
        function = builder.inttoptr(args[0], kind.as_pointer())
        pointers = [_pointer(context, builder, signature.args[i], args[i]) for i in range(1, 5)]
        builder.call(function, [*pointers, args[5]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def call_step(typing, address, x, z, times, p, first, count, rows):
    """Run the fused step at ``address``: (x, normals or words, times, p, first draw, number of draws, rows)."""
    signature = types.void(types.intp, x, z, times, p, types.intp, types.intp, types.intp)

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte] * 4 + [word] * 3)
        function = builder.inttoptr(args[0], kind.as_pointer())
        pointers = [_pointer(context, builder, signature.args[i], args[i]) for i in range(1, 5)]
        builder.call(function, [*pointers, *args[5:]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def call_recorder(typing, address, x, t, lo, hi, row, index, slots):
    """Run the recorder at ``address``: (x, t, first lane, last lane, row of lane 0, index of the time, slots)."""
    word_type = types.intp
    signature = types.void(word_type, x, t, word_type, word_type, word_type, word_type, slots)

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte, byte, word, word, word, word, byte])
        function = builder.inttoptr(args[0], kind.as_pointer())
        x_, t_, slots_ = (_pointer(context, builder, signature.args[i], args[i]) for i in (1, 2, 7))
        builder.call(function, [x_, t_, *args[3:7], slots_])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def call_watcher(typing, address, before, x, g, lo, hi, row, step, start, seed, slots):
    """Run the watcher at ``address``: (states before and after the step, diffusion before it, first lane, last lane,
    row of lane 0, step, path of lane 0, seed, slots)."""
    word_type = types.intp
    signature = types.void(word_type, before, x, g, *[word_type] * 4, types.uint64, types.uint64, slots)

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte] * 3 + [word] * 6 + [byte])
        function = builder.inttoptr(args[0], kind.as_pointer())
        arrays = [_pointer(context, builder, signature.args[i], args[i]) for i in (1, 2, 3, 10)]
        builder.call(function, [*arrays[:3], *args[4:10], arrays[3]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def call_source(typing, address, z, words, block, counter, path0, seed):
    """Run the noise source at ``address``: (z, words, block of steps, purpose and component, first path, seed)."""
    word_type = types.uint64
    signature = types.void(types.intp, z, words, word_type, word_type, word_type, word_type)

    def generate(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte, byte, word, word, word, word])
        function = builder.inttoptr(args[0], kind.as_pointer())
        pointers = [_pointer(context, builder, signature.args[i], args[i]) for i in (1, 2)]
        builder.call(function, [*pointers, *args[3:]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def pointer_f32(typing, word):
    """An address as a float32 pointer."""
    return _from_word(types.CPointer(types.float32), ir.FloatType())


@intrinsic
def pointer_f64(typing, word):
    """An address as a float64 pointer."""
    return _from_word(types.CPointer(types.float64), ir.DoubleType())


@intrinsic
def pointer_i64(typing, word):
    """An address as an int64 pointer."""
    return _from_word(types.CPointer(types.int64), ir.IntType(64))


@intrinsic
def words_behind(typing, pointer, items):
    """The memory ``items`` items behind a pointer, as a pointer to uint64."""
    if not isinstance(pointer, types.CPointer):
        return None

    def generate(context, builder, signature, args):
        place = builder.gep(args[0], [args[1]])
        return builder.bitcast(place, ir.IntType(64).as_pointer())

    return types.CPointer(types.uint64)(pointer, types.int64), generate


@intrinsic
def shaped(typing, q, start, shape):
    """The part of a vector that begins at ``start``, as an array of that shape; q must outlive it.

    What ``q[start:stop].reshape(shape)`` is, without the call of a C function, which a GPU has not.
    """
    n = len(shape)
    result = q.copy(ndim=n, layout="C")

    def generate(context, builder, signature, args):
        source = context.make_array(signature.args[0])(context, builder, args[0])
        made = context.make_array(signature.return_type)(context, builder)
        extents = cgutils.unpack_tuple(builder, args[2], n)
        strides = [source.itemsize]
        for extent in reversed(extents[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        populate_array(
            made, data=builder.gep(source.data, [args[1]]), shape=extents, strides=strides, itemsize=source.itemsize,
            meminfo=None,
        )  # fmt: skip
        return made._getvalue()

    return result(q, types.intp, types.UniTuple(types.intp, n)), generate


def _from_word(kind, llvm):
    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], llvm.as_pointer())

    return kind(types.int64), generate
