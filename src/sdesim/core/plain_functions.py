"""NumPy functions of one number, for a target of Numba that knows them as functions of math only.

numba-cuda lowers a formula's ``np.minimum`` and ``np.maximum``, but neither ``np.sqrt`` nor ``np.abs``.
"""

import math
from typing import Any

from numba import njit

_plain = njit(error_model="numpy")


@_plain
def square(x):
    """x²."""
    return x * x


@_plain
def absolute(x):
    """|x|."""
    return abs(x)


@_plain
def sign(x):
    """−1, 0 or 1; nan stays nan."""
    zero, one = type(x)(0.0), type(x)(1.0)
    return one if x > zero else (-one if x < zero else x)


@_plain
def floor(x):
    """The largest whole number <= x, in the dtype of x."""
    return type(x)(math.floor(x))


@_plain
def ceil(x):
    """The smallest whole number >= x, in the dtype of x."""
    return type(x)(math.ceil(x))


def _of_math(name: str) -> Any:
    function = getattr(math, name)

    @_plain
    def plain(x):
        return function(x)

    return plain


_SAME = "sqrt expm1 log1p log2 log10 tan sinh cosh"
_UNARY = {name: name for name in _SAME.split()}
_UNARY |= {f"arc{name}": f"a{name}" for name in ("tan", "sin", "cos", "sinh", "cosh", "tanh")}
PLAIN = {name: _of_math(own) for name, own in _UNARY.items()}
PLAIN |= {"square": square, "abs": absolute, "absolute": absolute, "fabs": absolute, "sign": sign}
PLAIN |= {"floor": floor, "ceil": ceil}
