"""Linear systems with the matrix of a box's operator: sparse LU where it is affordable, Krylov elsewhere.

In two dimensions elimination in the order of least degree fills a band of about 30 entries a row, and the (weakly)
diagonally dominant matrices here need no pivoting, which keeps the small components of a density relatively
accurate. In three dimensions the fill grows like N^{4/3}; from some 20³ cells on GMRES (Saad & Schultz 1986) takes
over, preconditioned by two levels: one implicit step along every axis in turn smooths what varies between neighbours
(Peaceman & Rachford 1955), and a Galerkin matrix on blocks of cells, solved by LU, takes the rest. Mass is spread
inside a block in proportion to a guess of the stationary mass (aggregation, Horton & Leutenegger 1994). The number of
iterations then hardly grows with the number of cells: about 30 for 1e-9.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from .box import BoxOperator

# Cells up to which LU is taken: in two and in three dimensions.
DIRECT = {2: 1_200_000, 3: 14_000}
# Blocks of the coarse level, at most.
BLOCKS = {2: 64**2, 3: 16**3}
TOLERANCE = 1e-12
RESTART, ROUNDS = 80, 5

Solve = Callable[..., np.ndarray]


class NoConvergence(RuntimeError):
    """A Krylov solve that did not reach its tolerance."""


def lu(matrix: Any, *, chain: bool = True) -> Solve:
    """solve(b, transposed=False) by sparse LU; ``chain``: diagonally dominant, so that no pivoting is needed.

    Raises ValueError where the matrix is singular.
    """
    from scipy.sparse.linalg import splu

    options = {"SymmetricMode": True} if chain else {}
    try:
        factors: Any = splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A" if chain else "COLAMD",
            diag_pivot_thresh=0.0 if chain else 1.0,
            options=options,
        )
    except RuntimeError as error:
        raise ValueError(f"the linear system has no unique solution ({error})") from None

    def solve(b: np.ndarray, transposed: bool = False) -> np.ndarray:
        return np.asarray(factors.solve(b, trans="T" if transposed else "N"))

    return solve


def solver(
    matrix: Any, lines: Sequence[Any], operator: BoxOperator, *, singular: bool = False, chain: bool | None = None
) -> Solve:
    """solve(b, transposed=False) for ``matrix``, cells in C order, the sum of ``lines``, one for each axis, and more.

    ``singular``: the columns sum to 0, and so must b.
    """
    shape = operator.grid.shape
    chain = operator.is_chain if chain is None else chain
    if math.prod(shape) <= DIRECT[len(shape)] and not singular:
        return lu(matrix, chain=chain)
    return TwoLevel(matrix, lines, guess(operator), singular=singular, chain=chain).solve


class TwoLevel:
    """GMRES with a preconditioner of implicit steps along the axes and a coarse grid of blocks.

    ``weights`` is what a solution looks like within a block, ``left`` what one of the transposed system does.
    """

    def __init__(
        self,
        matrix: Any,
        lines: Sequence[Any],
        weights: np.ndarray,
        *,
        left: np.ndarray | None = None,
        singular: bool = False,
        chain: bool = True,
    ) -> None:
        self.matrix, self.singular, shape = matrix.tocsr(), singular, weights.shape
        self.size = math.prod(shape)
        blocks = _blocks(shape)
        count = int(blocks.max()) + 1
        column = np.arange(self.size)
        left = np.ones(self.size) if left is None else left
        self.sums = sparse.csr_matrix((left, (blocks, column)), shape=(count, self.size))
        w = np.maximum(weights.ravel(), np.finfo(float).tiny)
        self.spread = sparse.csr_matrix((w / (self.sums @ w)[blocks], (column, blocks)), shape=(self.size, count))
        coarse = (self.sums @ self.matrix @ self.spread).tolil()
        self.pinned = int(np.argmax(self.sums @ w)) if singular else None
        if self.pinned is not None:
            coarse[self.pinned, :] = 0.0
            coarse[:, self.pinned] = 0.0
            coarse[self.pinned, self.pinned] = -1.0
        self.coarse = lu(coarse.tocsc(), chain=chain)
        # About the time of a passage over a block smooths what the blocks cannot show; longer steps suffer from the
        # splitting.
        width = max(-(-n // round(count ** (1.0 / len(shape)))) for n in shape)
        self.dt = 0.08 * width**2 / max(float(np.abs(self.matrix.diagonal()).max()) / len(shape), np.finfo(float).tiny)
        unit = sparse.eye(self.size, format="csc")
        self.steps = [_line_factors(unit - self.dt * part.tocsc()) for part in lines]

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """matrix x = b, to a relative residual of 1e-12.

        Raises NoConvergence.
        """
        from scipy.sparse.linalg import LinearOperator, gmres

        flat = np.asarray(b, dtype=float).ravel()
        apply = self.matrix.T.tocsr() if transposed else self.matrix
        precondition = functools.partial(self._precondition, apply, transposed=transposed)
        near = LinearOperator(apply.shape, precondition)
        # GMRES measures the preconditioned residual; the true one is what counts, so it starts again where needed
        x, goal = np.zeros(self.size), TOLERANCE * float(np.linalg.norm(flat))
        for _ in range(ROUNDS):
            rest = flat - apply @ x
            norm = float(np.linalg.norm(rest))
            if norm <= max(goal, 4e-16 * float(np.linalg.norm(np.abs(apply) @ np.abs(x)))):
                return x.reshape(np.shape(b))
            step, _ = gmres(apply, rest, M=near, rtol=max(0.1 * goal / norm, 1e-14), restart=RESTART, maxiter=1)
            x = x + step
        reached = float(np.linalg.norm(flat - apply @ x)) / max(float(np.linalg.norm(flat)), np.finfo(float).tiny)
        if reached > 1e3 * TOLERANCE:
            raise NoConvergence(
                f"the iterative solution stopped at a relative residual of {reached:.1g} (wanted {TOLERANCE:g}); "
                "take finer cells where the drift is strong, or fewer than "
                f"{DIRECT[3]} cells, which are solved directly"
            )
        return x.reshape(np.shape(b))

    def _precondition(self, apply: Any, r: np.ndarray, *, transposed: bool) -> np.ndarray:
        order = self.steps[::-1] if transposed else self.steps
        trans = "T" if transposed else "N"

        def smooth(rest: np.ndarray) -> np.ndarray:
            y = -self.dt * rest
            for step in order:
                y = step.solve(y, trans=trans)
            return y

        d = smooth(r)
        down, up = (self.spread.T, self.sums.T) if transposed else (self.sums, self.spread)
        c = down @ (r - apply @ d)
        if self.pinned is not None:
            c[self.pinned] = 0.0
        d += up @ self.coarse(c, transposed)
        d += smooth(r - apply @ d)
        return np.asarray(d)


def guess(operator: BoxOperator) -> np.ndarray:
    """The stationary masses up to a factor, roughly: the mean of log m along paths that take the axes in turn.

    Exact in detailed balance; axes without diffusion count as flat.
    """
    shape, dim = operator.grid.shape, operator.grid.dim
    middle = tuple(n // 2 for n in shape)
    total = np.zeros(shape)
    orders = [tuple(range(s, dim)) + tuple(range(s)) for s in range(dim)] + [tuple(range(dim))[::-1]]
    for order in orders:
        total += path_sum(operator, order, middle)
    total /= len(orders)
    return np.asarray(np.exp(np.maximum(total - total.max(), -600.0)))


def path_sum(operator: BoxOperator, order: Sequence[int], start: tuple[int, ...]) -> np.ndarray:
    """log m − log m(start), summed from cell to cell along the axes in this order."""
    shape, done = operator.grid.shape, []
    total = np.zeros(shape)
    for k in order:
        ratio = operator.axes[k].log_ratio
        if ratio is not None:
            # on the lines that the path has reached so far
            place = tuple(slice(None) if j in done or j == k else slice(s, s + 1) for j, s in enumerate(start))
            along = np.moveaxis(ratio[place], k, 0)[: shape[k] - 1]
            sums = np.concatenate([np.zeros((1, *along.shape[1:])), np.cumsum(along, axis=0)])
            total += np.moveaxis(sums - sums[start[k]], 0, k)
        done.append(k)
    return total


def _blocks(shape: tuple[int, ...]) -> np.ndarray:
    """For every cell the number of its block."""
    across = BLOCKS[len(shape)] ** (1.0 / len(shape))
    size = max(1, math.ceil(max(shape) / round(across)))
    index, number = [np.arange(n) // size for n in shape], np.zeros(shape, dtype=int)
    for k, part in enumerate(index):
        number = number * (int(part.max()) + 1) + part.reshape([-1 if j == k else 1 for j in range(len(shape))])
    return number.ravel()


def _line_factors(matrix: Any) -> Any:
    """LU of a matrix that couples cells along one axis only: in the order of the cells it has no fill."""
    from scipy.sparse.linalg import splu

    return splu(matrix.tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
