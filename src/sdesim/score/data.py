"""Training data: checked once, summarised, and gathered row by row from memory or from a memory map."""

import hashlib
from typing import Any

import numpy as np

_CHUNK = 2**22


class Data:
    """Points (n, dim) to learn from.

    Raises
    ------
    TypeError, ValueError
        Where there are no points, their dimension is not the network's, they are not finite, or all are the same.
    """

    def __init__(self, data: Any, dim: int) -> None:
        array = data if isinstance(data, np.ndarray) else np.asarray(data)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"data must hold real numbers, got dtype {array.dtype}")
        if array.ndim == 1 and dim == 1:
            array = array.reshape(-1, 1)
        if array.ndim != 2 or array.shape[1] != dim:
            raise ValueError(f"data has shape {array.shape}, expected (n, {dim}) for a network of dim {dim}")
        if len(array) == 0:
            raise ValueError(f"data is empty: its shape is {array.shape}; at least one batch of points is needed")
        self.array, self.dim = array, dim
        self.mean, self.spread = self._summary()
        if not self.spread > 0.0:
            raise ValueError(
                f"data is constant: all {len(array)} points are the same, and a single point has no score; "
                "give points that differ"
            )

    def __len__(self) -> int:
        return len(self.array)

    def _summary(self) -> tuple[np.ndarray, float]:
        """The mean (dim,) and the root mean square distance from it per dimension."""
        step = max(1, _CHUNK // self.dim)
        total, shift = np.zeros(self.dim), None
        squares = np.zeros(self.dim)
        for start in range(0, len(self.array), step):
            part = np.asarray(self.array[start : start + step], dtype=np.float64)
            if not np.isfinite(part).all():
                row, column = (int(i) for i in np.argwhere(~np.isfinite(part))[0])
                raise ValueError(f"data must be finite, got {part[row, column]} at row {start + row}, column {column}")
            shift = part[0].copy() if shift is None else shift
            part = part - shift  # sums about a point of the data keep the digits of a small spread
            total += part.sum(axis=0)
            squares += (part**2).sum(axis=0)
        assert shift is not None
        mean = total / len(self.array)
        variance = np.maximum(squares / len(self.array) - mean**2, 0.0)
        return shift + mean, float(np.sqrt(variance.mean()))

    def digest(self) -> str:
        """What tells these points, in their order, from others."""
        digest, step = hashlib.sha256(str(self.array.shape).encode()), max(1, _CHUNK // self.dim)
        for start in range(0, len(self.array), step):
            digest.update(np.ascontiguousarray(self.array[start : start + step]).data)
        return digest.hexdigest()[:16]

    def gather(self, rows: np.ndarray, out: np.ndarray) -> None:
        """out = the given rows, in the type of ``out``."""
        if self.array.dtype == out.dtype and self.array.flags.c_contiguous:
            np.take(self.array, rows, axis=0, out=out, mode="clip")
        else:
            out[:] = self.array[rows]
