"""How densities relax: the slowest modes of the operator.

A φ_j = −λ_j φ_j and Aᵀ f_j = −λ_j f_j with Σ f_i φ_j = δ_ij over the cells: the masses at time t are
Σ_j c_j φ_j e^{−λ_j t} with c_j = Σ f_j m(0), and the observable f_j decays as e^{−λ_j t}.

In detailed balance, m_i A_ji = m_j A_ij, the matrix S⁻¹ A S with S = diag(√m) is symmetric, its off-diagonal entries
are √(A_ij A_ji), rates are real, and f_j = φ_j/m (Risken 1984, chapter 6). On a line the rates are the squares of the
singular values of a bidiagonal matrix of the √rates of jumps, which bisection of its Golub-Kahan form finds to high
*relative* accuracy (Demmel & Kahan 1990): 1e-20 beside 1e5 has all its digits.

Elsewhere ARPACK (Lehoucq, Sorensen & Yang 1998) finds the eigenvalues of (A − σ)⁻¹ of largest modulus, σ > 0 small.
With a current they are complex, and those nearest to σ are not always those that decay slowest: where the modes found
turn faster than they decay, the search is repeated from a larger σ, for which they are.

Observables are not taken as φ/m, which in far tails is the quotient of two vanishing numbers: on a line a few inverse
iterations with Aᵀ give the tails their values from where the mass is, and elsewhere a search with Aᵀ itself finds them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from .box import BoxOperator
from .hitting import expected
from .linear import DIRECT, Solve, TwoLevel, guess, lu
from .operator import Operator
from .sparse import line_matrices, matrix
from .stationary import stationary
from .stationary_box import balance, box_stationary

# Cells up to which the matrix is taken as dense.
DENSE = 300
# Masses below this share of the largest hold no digits of φ/m.
SEEN = 1e-10
POLISH, POLISHED = 60, 1e-11
ARPACK_TOLERANCE = 1e-12
# Modes sought beyond those wanted.
EXTRA = 6
# A hundred solves with one matrix pay for factors of larger ones than a single solve does.
MANY_SOLVES = 3.5
# A mode turns fast if |Im λ| exceeds this times the largest Re λ of those wanted.
TURNING = 2.0

Backward = Callable[[np.ndarray, float], np.ndarray]


class Modes(NamedTuple):
    """Rates (k,), masses of the modes φ (k, *shape) and their observables f (k, *shape)."""

    rates: np.ndarray
    modes: np.ndarray
    functions: np.ndarray


def line_modes(operator: Operator, k: int) -> Modes:
    """The k slowest modes in one dimension.

    Raises ValueError for more modes than cells.
    """
    n = len(operator.widths)
    if k > n - 2:
        raise ValueError(f"k must be <= the number of cells less 2, {n - 2}, got {k}")
    lower, diagonal, upper = operator.bands
    log_m = np.concatenate([[0.0], np.cumsum(operator.exponent[: n - 1])]) - np.log(
        operator.diffusivity / operator.widths
    )
    if operator.periodic:
        i = np.arange(n)
        entries = (
            np.concatenate([lower, diagonal, upper]),
            (np.tile(i, 3), np.concatenate([(i - 1) % n, i, (i + 1) % n])),
        )
        a = sparse.csc_matrix(entries, shape=(n, n))
        scale = float(lower.mean()) * (math.pi / n) ** 2
        if operator.circulates:
            m = stationary(dataclasses.replace(operator, inflow=np.zeros(2)))
            log_m = np.log(np.maximum(m, 1e-260 * m.max()))
        return _search(a, log_m, not operator.circulates, True, k, scale, lambda b, _: lu(b, chain=False))
    from scipy.linalg import eigh_tridiagonal

    root_up, root_down = np.sqrt(lower[1:]), np.sqrt(upper[:-1])
    _, v = eigh_tridiagonal(-diagonal, -root_up * root_down, select="i", select_range=(0, k - 1))
    rates = _bidiagonal_rates(root_up, root_down, np.sqrt(operator.absorption), k)
    up, down, exits = np.append(lower[1:], 0.0), np.append(0.0, upper[:-1]), np.zeros(n)
    exits[[0, -1]] += operator.absorption

    def backward(f: np.ndarray, shift: float) -> np.ndarray:
        return np.stack(
            [expected(up, down, exits + shift, column, np.empty(n)) for column in np.ascontiguousarray(f.T)], 1
        )

    log_m -= log_m.max()
    return _on_line(rates, v, log_m, backward, not operator.absorbs)


def box_modes(operator: BoxOperator, k: int) -> Modes:
    """The k slowest modes in several dimensions.

    Raises ValueError for too many modes; RuntimeError where ARPACK or GMRES fail.
    """
    shape, size = operator.grid.shape, math.prod(operator.grid.shape)
    if k > size - 2:
        raise ValueError(f"k must be <= the number of cells less 2, {size - 2}, got {k}")
    keeps = not operator.absorbs
    balanced = balance(operator)
    if balanced is None:
        weights = np.maximum(box_stationary(operator, report=False), 0.0) if keeps else guess(operator)
    else:
        weights = balanced
    # without a chain far tails are rounding, of either sign
    least = 1e-260 if operator.is_chain else SEEN
    log_m = np.log(np.maximum(weights / weights.max(), least)).ravel()
    lines = line_matrices(operator)
    a = matrix(operator, lines)

    def invert(shifted: Any, similar: bool) -> Solve:
        if size <= MANY_SOLVES * DIRECT[len(shape)]:
            return lu(shifted, chain=operator.is_chain)
        if not similar:
            return TwoLevel(shifted, lines, guess(operator), chain=operator.is_chain).solve
        root = np.exp(0.5 * log_m)
        scaled = [_similar(part.tocsc(), log_m, False) for part in lines]
        return TwoLevel(shifted, scaled, root.reshape(shape), left=root, chain=operator.is_chain).solve

    jumping = [(axis.forward, n) for axis, n in zip(operator.axes, shape, strict=True) if axis.forward is not None]
    scale = min(float(np.mean(f)) * (math.pi / n) ** 2 for f, n in jumping) if jumping else 1.0
    found = _search(a, log_m, balanced is not None, keeps, k, scale, invert)
    return Modes(found.rates, found.modes.reshape(k, *shape), found.functions.reshape(k, *shape))


def _bidiagonal_rates(up: np.ndarray, down: np.ndarray, walls: np.ndarray, k: int) -> np.ndarray:
    """The k smallest eigenvalues of −A ~ GᵀG from the √rates, G v = √f_i v_i − √b_(i+1) v_(i+1) at the faces.

    The matrix [0 G; Gᵀ 0], faces and cells in turn, is tridiagonal with a zero diagonal.
    """
    from scipy.linalg import eigh_tridiagonal

    n = len(up) + 1
    off = np.empty(2 * n)
    off[0], off[-1] = walls
    off[1:-1:2], off[2:-1:2] = up, down
    # n negative ones and the zero that the extra face gives come first
    values = eigh_tridiagonal(
        np.zeros(2 * n + 1), off, eigvals_only=True, select="i", select_range=(n + 1, n + k),
        lapack_driver="stebz", tol=1e-300,
    )  # fmt: skip
    return np.asarray(values**2)


def _similar(a: Any, log_m: np.ndarray, symmetric: bool) -> Any:
    """S⁻¹ A S with S = diag(√m)."""
    a = a.tocoo()
    off = a.row != a.col
    row, column, values = a.row[off], a.col[off], a.data[off]
    diagonal = sparse.diags(a.diagonal())
    if symmetric:
        plain = sparse.csr_matrix((values, (row, column)), shape=a.shape)
        return (plain.multiply(plain.T).sqrt() + diagonal).tocsc()
    scaled = values * np.exp(0.5 * (log_m[column] - log_m[row]))
    return (sparse.csr_matrix((scaled, (row, column)), shape=a.shape) + diagonal).tocsc()


def _search(
    a: Any, log_m: np.ndarray, symmetric: bool, keeps: bool, k: int, scale: float, invert: Callable[[Any, bool], Solve]
) -> Modes:
    """The k slowest modes of a sparse matrix; ``scale``: about the slowest rate of diffusion."""
    b = _similar(a, log_m, symmetric)
    if a.shape[0] <= DENSE:
        values, v = np.linalg.eigh(b.toarray()) if symmetric else np.linalg.eig(b.toarray())
        others, w = np.linalg.eig(a.toarray().T)
        order, order_left = _slowest(values, k), _slowest(others, min(k + EXTRA, len(others)))
        rates, v, w = -values[order], v[:, order], w[:, order_left]
    else:
        count = k if symmetric else min(2 * k + EXTRA, a.shape[0] - 2)
        shift = 0.3 * scale
        rates, v = _arpack(b, shift, count, symmetric, invert)
        slow, fast = float(rates[:k].real.max()), float(np.abs(rates[:k].imag).max())
        if fast > TURNING * slow:
            # |σ + λ| is then smaller for all that decay more slowly than 2 slow, however they turn
            shift = fast**2 / (2.0 * slow)
            rates, v = _arpack(b, shift, count, symmetric, invert)
        order = _slowest(-rates, k)
        rates, v = rates[order], v[:, order]
        w = _arpack_left(a, shift, min(count + EXTRA, a.shape[0] - 2), invert)
    modes = np.exp(0.5 * (log_m - log_m.max()))[:, None] * v
    if not np.iscomplexobj(rates) or np.abs(rates.imag).max() <= 1e-9 * np.abs(rates).max():
        rates, modes = rates.real, _real(modes)
        w = np.concatenate([w.real, w.imag], axis=1)
    functions = w @ np.linalg.pinv(modes.T @ w, rcond=1e-9)
    return _signed(rates, modes, functions, keeps, k)


def _arpack(
    b: Any, shift: float, count: int, symmetric: bool, invert: Callable[[Any, bool], Solve]
) -> tuple[np.ndarray, np.ndarray]:
    """Rates by increasing real part and right vectors of the scaled matrix."""
    from scipy.sparse.linalg import LinearOperator, eigs, eigsh

    size = b.shape[0]
    solve = invert(b - shift * sparse.identity(size, format="csc"), True)
    ahead = LinearOperator(b.shape, matvec=solve, dtype=float)
    find = eigsh if symmetric else eigs
    ncv = min(size, max(2 * count + 20, 30))
    values, v = find(b, count, sigma=shift, OPinv=ahead, v0=_start(size), ncv=ncv, tol=ARPACK_TOLERANCE)
    order = _slowest(values, count)
    return -values[order], v[:, order]


def _arpack_left(a: Any, shift: float, count: int, invert: Callable[[Any, bool], Solve]) -> np.ndarray:
    """Vectors of Aᵀ, as many of those nearest to the shift."""
    from scipy.sparse.linalg import LinearOperator, eigs

    size = a.shape[0]
    solve = invert(a - shift * sparse.identity(size, format="csc"), False)
    behind = LinearOperator(a.shape, matvec=lambda x: solve(x, True), dtype=float)
    ncv = min(size, max(2 * count + 20, 30))
    _, w = eigs(a.T, count, sigma=shift, OPinv=behind, v0=_start(size), ncv=ncv, tol=ARPACK_TOLERANCE)
    return np.asarray(w)


def _start(size: int) -> np.ndarray:
    """Some vector, and always the same."""
    return np.asarray(1.0 + 0.5 * np.cos(0.7 * np.arange(size) ** 2))


def _slowest(values: np.ndarray, k: int) -> np.ndarray:
    """The order of increasing real part of −values, conjugates side by side, and none of the last alone."""
    order = np.lexsort((-values.imag, np.round(np.abs(values.imag), 9), np.round(-values.real, 9)))
    if k < len(values):
        last, following = values[order[k - 1]], values[order[k]]
        tied = abs(last.imag) > 0.0 and abs(last - following.conjugate()) <= 1e-8 * abs(last)
        k += int(tied)
    return np.asarray(order[:k])


def _on_line(rates: np.ndarray, v: np.ndarray, log_m: np.ndarray, backward: Backward, keeps: bool) -> Modes:
    """Modes from the vectors of S⁻¹ A S."""
    root = np.exp(0.5 * (log_m - log_m.max()))[:, None]
    if keeps:
        # the first is known; without it in them the next are right even where rates are below rounding
        v = v.copy()
        v[:, :1] = root / np.linalg.norm(root)
        v[:, 1:] -= v[:, :1] * (v[:, :1].T @ v[:, 1:])
    modes, functions = root * v, np.where(root**2 > SEEN, v / root, 0.0)
    functions = np.linalg.solve(modes.T @ functions, functions.T).T
    if not keeps or len(rates) > 1:
        functions = _polished(rates, modes, functions, backward)
    return _signed(rates, modes, functions, keeps, len(rates))


def _polished(rates: np.ndarray, modes: np.ndarray, functions: np.ndarray, backward: Backward) -> np.ndarray:
    """Inverse iterations with Aᵀ until the tails stand still: an error there shrinks as (λ τ)ⁿ/n!, τ the way in."""
    shift = 0.1 * float(rates.max())
    for _ in range(POLISH):
        new = backward(functions, shift) * (rates + shift)
        new = new @ np.linalg.inv(modes.T @ new)
        change = float((np.abs(new - functions).max(axis=0) / np.abs(new).max(axis=0)).max())
        functions = new
        if change < POLISHED:
            break
    return functions


def _signed(rates: np.ndarray, modes: np.ndarray, functions: np.ndarray, keeps: bool, k: int) -> Modes:
    """Biorthonormal columns with sizes and signs that do not depend on luck, as rows, the first k.

    Σ φ_0 = 1; for the others Σ |f_j|² φ_0 = 1, and f_j > 0 where |f_j|² φ_0 is largest.
    """
    first = np.abs(modes[:, 0] / modes[:, 0].sum())
    for j in range(modes.shape[1]):
        weight = np.abs(functions[:, j]) ** 2 * first
        highest = int(np.flatnonzero(weight >= (1.0 - 1e-6) * weight.max())[-1])
        size = functions[highest, j] / abs(functions[highest, j]) * math.sqrt(weight.sum())
        if j == 0:
            size = 1.0 / modes[:, 0].sum()
        functions[:, j] /= size
        modes[:, j] *= size
    if keeps:
        rates = rates.copy()
        rates[0], functions[:, 0] = 0.0, 1.0
    return Modes(rates[:k], np.ascontiguousarray(modes.T[:k]), np.ascontiguousarray(functions.T[:k]))


def _real(vectors: np.ndarray) -> np.ndarray:
    """Real vectors from complex ones that are real up to a phase."""
    if not np.iscomplexobj(vectors):
        return vectors
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    return np.asarray((vectors * (np.abs(largest) / largest)).real)
