"""Sums over paths by one fixed binary tree on the absolute path index.

Floating-point sums depend on their order. Here the order is that of a binary tree over all path numbers 0, 1, 2, …:
a set of paths is the union of its maximal dyadic nodes, and two siblings are always merged. What is left depends on
the set of paths alone, and not on how it was cut into blocks and runs, or in which order these came in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.compile import LANES


@dataclass
class Tree:
    """Maximal dyadic nodes of a set of paths: node (level, index) stands for the paths index·2^level + [0, 2^level).

    ``values`` (nodes, …) holds what the paths of each node add up to; what adding means is :meth:`merge`.
    """

    levels: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    def merge(self, a: np.ndarray, b: np.ndarray, na: float, nb: float) -> np.ndarray:
        """The values of na paths and of the nb paths behind them, together."""
        raise NotImplementedError

    @classmethod
    def join(cls, trees: Sequence[Self]) -> Self:
        """The nodes of the union of disjoint sets."""
        first = trees[0]
        levels = np.concatenate([tree.levels for tree in trees])
        indices = np.concatenate([tree.indices for tree in trees])
        values = np.concatenate([tree.values for tree in trees])
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        level = int(levels.min()) if len(levels) else 0
        while len(levels):
            here = levels == level
            order = np.argsort(indices[here], kind="stable")
            index, value = indices[here][order], values[here][order]
            rest = ~here
            levels, indices, values = levels[rest], indices[rest], values[rest]
            left = np.flatnonzero((index[:-1] % 2 == 0) & (index[1:] == index[:-1] + 1))
            alone = np.ones(len(index), bool)
            alone[left] = alone[left + 1] = False
            done.append((np.full(int(alone.sum()), level), index[alone], value[alone]))
            if len(left):
                merged = first.merge(value[left], value[left + 1], float(2**level), float(2**level))
                levels = np.concatenate([levels, np.full(len(left), level + 1)])
                indices = np.concatenate([indices, index[left] // 2])
                values = np.concatenate([values, merged])
            if len(levels):
                level = int(levels.min())
        levels = np.concatenate([part[0] for part in done])
        indices = np.concatenate([part[1] for part in done])
        values = np.concatenate([part[2] for part in done])
        starts = indices << levels
        order = np.lexsort((levels, starts))
        levels, indices, values, starts = levels[order], indices[order], values[order], starts[order]
        if (np.diff(starts) < (1 << levels[:-1])).any():
            raise ValueError("results add only over disjoint sets of paths; give the second run another first_path")
        return replace(first, levels=levels, indices=indices, values=values)

    def arrays(self) -> dict[str, np.ndarray]:
        """The nodes, as arrays to be kept in a file."""
        return {"levels": self.levels, "indices": self.indices, "values": self.values}

    def total(self) -> tuple[int, np.ndarray]:
        """The number of paths and the values of all of them, folded in the order of the paths."""
        count, value = 2 ** int(self.levels[0]), self.values[0]
        for level, node in zip(self.levels[1:].tolist(), self.values[1:], strict=True):
            value = self.merge(value, node, float(count), float(2**level))
            count += 2**level
        return count, value


def dyadic_nodes(first: int, size: int, leaf: int = LANES) -> list[tuple[int, int]]:
    """The nodes (level, index) that a leaf-by-leaf walk over [first, first + size) emits, in its order."""
    nodes = []
    for start in range(first // leaf * leaf, first + size, leaf):
        lo, hi = max(first, start), min(first + size, start + leaf)
        width, level = 1, 0
        while width <= leaf:
            for a in range(start, start + leaf, width):
                up = a // (2 * width) * (2 * width)
                if a >= lo and a + width <= hi and (width == leaf or up < lo or up + 2 * width > hi):
                    nodes.append((level, a // width))
            width, level = 2 * width, level + 1
    return nodes


def block_nodes(first: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels and indices of the nodes of a block of paths, and the position of each leaf's first node."""
    levels: list[int] = []
    indices: list[int] = []
    positions: list[int] = []
    start = first
    while start < first + size:
        end = min(first + size, (start // LANES + 1) * LANES)
        positions.append(len(levels))
        if end - start == LANES:
            levels.append(LANES.bit_length() - 1)
            indices.append(start // LANES)
        else:
            for level, index in dyadic_nodes(start, end - start):
                levels.append(level)
                indices.append(index)
        start = end
    return np.array(levels), np.array(indices), np.array(positions, np.int64)
