"""a x + b y (+ c z) over arrays of rows, in one pass and in the type of the rows.

Every step of a sampler is such a sum with numbers a, b, c; written in NumPy it would take a pass for each operation.
"""

from typing import Any

import numpy as np

from ..core.cache import kernel
from ..core.elementary import wide_vectors


@kernel
def _two(out, a, x, b, y):
    wide_vectors()
    for i in range(out.size):
        out[i] = a * x[i] + b * y[i]


@kernel
def _three(out, a, x, b, y, c, z):
    wide_vectors()
    for i in range(out.size):
        out[i] = a * x[i] + b * y[i] + c * z[i]


def weighted(*terms: tuple[float, np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
    """Σ aₖ xₖ for two or three terms (aₖ, xₖ), all of one shape and type; into ``out`` where it is given."""
    kind = terms[0][1].dtype
    out = np.empty(terms[0][1].shape, kind) if out is None else out
    flat: list[Any] = [out.reshape(-1)]
    for number, array in terms:
        flat += [kind.type(number), np.ascontiguousarray(array, kind).reshape(-1)]
    (_two if len(terms) == 2 else _three)(*flat)
    return out
