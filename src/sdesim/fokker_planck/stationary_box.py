"""Stationary densities in two and three dimensions: sums along paths where nothing circulates, solves where it does."""

import warnings

import numpy as np

from .box import BoxOperator
from .linear import DIRECT, guess, lu, path_sum, solver
from .sparse import line_matrices, matrix

# Relative misfit of the log ratios of rates up to which they count as balanced.
BALANCED = 1e-11
# Negative values down to this share of the peak are rounding.
ROUNDING = 1e-13


def box_stationary(operator: BoxOperator, *, report: bool = True) -> np.ndarray:
    """The stationary probabilities of the cells of a box.

    In detailed balance log m is a sum of the log ratios of rates along any path, and no system is solved. Otherwise a
    current circulates and m is the null vector of A: one cell near the maximum is fixed and the others are solved for,
    an M-matrix where there are no mixed derivatives (sparse LU in two dimensions, preconditioned GMRES in three).

    Raises ValueError where walls let mass pass, and where no axis has diffusion; RuntimeError where GMRES fails.
    Warns where mixed derivatives or axes without diffusion leave negative values, unless ``report`` is False.
    """
    if operator.absorbs:
        raise ValueError("an absorbing wall leaves no stationary density; use 'reflecting' or 'periodic'")
    if operator.source is not None:
        raise ValueError("an inflow without an exit leaves no stationary density; use 'reflecting' or 'periodic'")
    if len(operator.degenerate) == operator.grid.dim:
        raise ValueError("a process without diffusion has no stationary density: its mass gathers in points")
    balanced = balance(operator)
    if balanced is not None:
        return balanced
    m = _box_null_vector(operator)
    if report:
        _report_negative(operator, m)
    return m


def balance(operator: BoxOperator) -> np.ndarray | None:
    """The stationary masses where the rates are in detailed balance, otherwise None.

    Balanced: across every face, those that close loops included, the sum along paths reproduces the log ratio of the
    rates to rounding, so that no face carries a current (Kolmogorov's criterion).
    """
    if not operator.is_chain:
        return None
    shape = operator.grid.shape
    log_m = np.zeros(shape)
    peak = tuple(n // 2 for n in shape)
    for _ in range(2):  # the second time from the peak, where rounding should be least
        log_m = path_sum(operator, range(len(shape)), peak)
        peak = tuple(map(int, np.unravel_index(np.argmax(log_m), shape)))
    for k, axis in enumerate(operator.axes):
        assert axis.log_ratio is not None
        n_faces = axis.log_ratio.shape[k]
        step = np.take(np.roll(log_m, -1, axis=k) - log_m, range(n_faces), axis=k)
        if float(np.abs(step - axis.log_ratio).max()) > BALANCED * max(1.0, float(np.abs(axis.log_ratio).max())):
            return None
    m = np.exp(log_m - log_m.max())
    return np.asarray(m / m.sum())


def _box_null_vector(operator: BoxOperator) -> np.ndarray:
    shape, weights = operator.grid.shape, guess(operator)
    lines = line_matrices(operator)
    total = matrix(operator, lines)
    if weights.size > DIRECT[len(shape)]:
        start = weights / weights.sum()
        found = start.ravel() + solver(total, lines, operator, singular=True)(-(total @ start.ravel()))
        return np.asarray(found / found.sum()).reshape(shape)
    fixed = int(np.argmax(weights))
    for _ in range(4):
        others = np.arange(weights.size) != fixed
        kept = total[:, others]
        into = total[:, [fixed]].toarray().ravel()
        m = np.ones(weights.size)
        m[others] = lu(-kept[others], chain=operator.is_chain)(into[others])
        if not np.isfinite(m).all():
            raise ValueError("the stationary density is not unique: parts of the box do not reach each other")
        highest = int(np.argmax(m))
        if m[fixed] > 1e-4 * m[highest]:
            break
        fixed = highest  # far from the maximum the small cell that is fixed would amplify rounding
    return np.asarray(m / m.sum()).reshape(shape)


def _report_negative(operator: BoxOperator, m: np.ndarray) -> None:
    """Set what is rounding to 0, in place; warn of what is not."""
    low = float(m.min())
    if low >= 0.0:
        return
    if low < -ROUNDING * float(m.max()):
        share = float(-m[m < 0.0].sum())
        density = m / operator.grid.cell_volume
        what = "mixed derivatives" if operator.mixed else "axes without diffusion"
        warnings.warn(
            f"the stationary density is negative in places, down to {float(density.min()):.2g} (its peak is "
            f"{float(density.max()):.3g}), {share:.2g} in all: {what} need finer cells there",
            UserWarning,
            stacklevel=4,
        )
        return
    np.maximum(m, 0.0, out=m)
    m /= m.sum()
