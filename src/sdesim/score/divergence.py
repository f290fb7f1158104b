r"""tr ∂s/∂x of an MLP score.

With one or two hidden layers the sum over the diagonal can be taken over the inputs first, where no data appear:

    one    F = φ(x W₁) W₂             tr = Σⱼ uⱼ kⱼ,        kⱼ = Σᵢ W₁[i, j] W₂[j, i]
    two    F = φ(φ(x W₁) W₂) W₃       tr = Σⱼₖ uⱼ Mⱼₖ vₖ,   M = W₂ ∘ (W₃ W₁)ᵀ

with u and v the slopes φ′ of the layers: a path from input i to output i goes through one unit of each layer. M is made
once for given weights; after that a row costs one product with a w × w matrix, whatever the dimension. Deeper networks
do not factor and take one tangent for each dimension.
"""

from typing import Any

import numpy as np

from ..core import stream
from . import kernels
from .evaluation import Evaluator


def factor(weights: list[np.ndarray], dim: int) -> np.ndarray:
    """k or M above, for two or three matrices of weights; rows beyond ``dim`` of the first belong to features."""
    first = weights[0][:dim]
    if len(weights) == 2:
        return np.einsum("ij,ji->j", first, weights[1])
    return weights[1] * (weights[2] @ first).T


def exact(evaluator: Evaluator, rows: np.ndarray, t: Any) -> np.ndarray:
    """The divergence at every row: in closed form for one and two hidden layers, by ``dim`` tangents otherwise."""
    dim, found = evaluator.layout.dim, np.empty(len(rows))
    straight = dim * evaluator._straight(t, rows)[:, 0]
    weights = evaluator.W
    if evaluator.factor is None and len(weights) <= 3:
        evaluator.factor = factor(weights, dim)
    known: Any = evaluator.factor
    dots = np.empty(len(evaluator.x), evaluator.dtype)
    for where, _, _, bc in evaluator.blocks(rows, t, slopes=True):
        n = where.stop - where.start
        if len(weights) == 2:
            dots[:] = evaluator.slopes[0] @ known
        elif len(weights) == 3:
            kernels.row_dots(np.matmul(evaluator.slopes[0], known, out=evaluator.spare[1]), evaluator.slopes[1], dots)
        else:
            dots[:] = 0.0
            for i in range(dim):
                unit = np.zeros((n, dim), evaluator.dtype)
                unit[:, i] = 1.0
                dots[:n] += evaluator.push(unit)[:, i]
        found[where] = straight[where] + np.reshape(bc, -1) * dots[:n]
    return found


def hutchinson(
    evaluator: Any, rows: np.ndarray, t: Any, n_probes: int, seed: int, first_path: int, *given: Any
) -> np.ndarray:
    """The mean of vᵀJv over vectors v of independent signs: E[vvᵀ] = I (Hutchinson 1989)."""
    n, dim = rows.shape
    draws = stream.normals(seed, stream.TRAINING, n, dim, n_probes, first_path=first_path)
    signs = np.where(draws >= 0.0, 1.0, -1.0)
    total = np.zeros(n)
    for k in range(n_probes):
        v = np.ascontiguousarray(signs[:, :, k])
        total += (v * evaluator.tangents(rows, t, v[None], *given)[1][0]).sum(axis=1)
    return total / n_probes
