r"""Samples that fit what is known: pixels (inpainting), or linear measurements (colours from greys, sharp from blurs).

**Known pixels** are put at the noise level of every time, α x + β + √v ε with fresh ε, after each step (Song et al.
2021, appendix I.2), and are exact at the end. The unknown ones are then drawn as if they did not yet know of the next
pixels; going back and forth at each level (``n_resample``) lets both agree (RePaint, Lugmayr et al. 2022).

**Measurements** y = A x₀ + N(0, τ² I) enter by Bayes' rule, ∇ log p(x | y) = s + ∇ log p(y | x), where x₀ given
x is taken for N(D, ρ² I), D the denoised mean and ρ² = r² s_d²/(r² + s_d²) for data of spread s_d (ΠGDM, Song et al.
2023): in the coordinates y′ = (x − β)/α

    ∇ log p(y | y′) = (∂D/∂y′)ᵀ Aᵀ (ρ² A Aᵀ + τ² I)⁻¹ (y − A D),     ∂D/∂y′ = I + r² ∂s/∂y′.

That is exact for data that are N(m, s_d² I); elsewhere an approximation, best late in the sampling. There the gradient
moves the denoised mean so that A D comes nearer to y, never beyond it. The derivative of a learned D can be many times
too large where the noise is strong, so that it would: the gradient is shortened to what makes A D move by |y − A D|.
"""

from typing import Any

import numpy as np

from ..core import checks

ONE_STEP = ("reverse_sde", "predictor_corrector", "annealed_langevin", "ancestral", "edm_heun", "probability_flow")


def known(observed: Any, mask: Any, n: int, d: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray] | None:
    """(mask, observed), each (n, d), or None; what is not known is taken as 0."""
    if observed is None and mask is None:
        return None
    if observed is None or mask is None:
        missing, given = ("mask", "observed") if mask is None else ("observed", "mask")
        raise ValueError(f"{given} is given without {missing}; inpainting takes both")
    marks = np.asarray(mask)
    if marks.dtype != np.bool_:
        raise TypeError(f"mask must hold True (known) and False, got dtype {marks.dtype}")
    marks = _rows("mask", marks, n, d)
    values = _rows("observed", np.asarray(observed), n, d)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"observed must hold real numbers, got dtype {values.dtype}")
    bad = marks & ~np.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"observed must be finite where mask is True, got {values[row, column]} at component {column}")
    return marks, np.where(marks, values, 0).astype(dtype)


def check_resample(n_resample: Any, mask: Any, method: str) -> int:
    """How often each step is taken."""
    count = checks.integer("n_resample", n_resample, minimum=1)
    if count > 1 and mask is None:
        raise ValueError("n_resample belongs to inpainting; give observed= and mask=")
    if count > 1 and method not in ONE_STEP:
        raise ValueError(f"n_resample > 1 needs a one-step method, {method} remembers its last step")
    return count


def _rows(name: str, value: np.ndarray, n: int, d: int) -> np.ndarray:
    """One pattern for all samples, or one each, as (n, d)."""
    if value.shape == (n, d):
        return value
    if (value.size == d and value.shape[:1] != (n,)) or value.shape == (d,):
        return np.broadcast_to(value.reshape(d), (n, d))
    if value.ndim > 2 and value.shape[0] == n and value.size == n * d:
        return value.reshape(n, d)
    raise ValueError(f"{name} has shape {value.shape}, expected ({d},), an image of {d} values, or ({n}, {d})")


class LinearMeasurement:
    r"""y = A x₀ + N(0, τ² I), to be passed as ``guidance``.

    Parameters
    ----------
    matrix : (m, d)
        A: ``greys`` and ``blur`` make two of them, rows of the identity observe single pixels.
    observed : (m,) or (n, m)
        y, one for all samples or one each.
    noise : float
        τ >= 0, the standard deviation of the measurement's noise.
    data_std : float
        s_d, the spread of the data (of one pixel).
    strength : float
        A factor of the gradient; 1 is Bayes' rule.

    References
    ----------
    Song, Vahdat, Mardani & Kautz (2023), "Pseudoinverse-guided diffusion models for inverse problems"; Chung et al.
    (2023), "Diffusion posterior sampling", for the gradient through the denoiser.
    """

    def __init__(
        self, matrix: Any, observed: Any, *, noise: float = 0.0, data_std: float = 1.0, strength: float = 1.0
    ) -> None:
        self.matrix = checks.array("matrix", matrix)
        if self.matrix.ndim != 2:
            raise ValueError(f"matrix has shape {self.matrix.shape}, expected (m, d): one row a measurement")
        self.observed = checks.array("observed", observed)
        if self.observed.ndim not in (1, 2) or self.observed.shape[-1] != len(self.matrix):
            raise ValueError(
                f"observed has shape {self.observed.shape}, expected ({len(self.matrix)},) or (n, {len(self.matrix)}): "
                f"the matrix has {len(self.matrix)} rows"
            )
        self.noise = checks.real("noise", noise, minimum=0.0)
        self.data_std = checks.real("data_std", data_std, above=0.0)
        self.strength = checks.real("strength", strength, minimum=0.0)
        # A Aᵀ = U diag(λ) Uᵀ once; each time then needs no more than a division
        values, self._axes = np.linalg.eigh(self.matrix @ self.matrix.T)
        self._values = np.maximum(values, 0.0)
        self._floor = 1e-10 * float(max(values.max(), 1e-300))

    def check(self, d: int, n: int) -> None:
        """Raise ValueError where it does not fit samples (n, d)."""
        if self.matrix.shape[1] != d:
            raise ValueError(f"matrix has {self.matrix.shape[1]} columns, expected {d}, the dimension of the samples")
        if self.observed.ndim == 2 and len(self.observed) != n:
            raise ValueError(f"observed has {len(self.observed)} rows, expected one or {n}, one for each sample")

    def for_rows(self, here: slice) -> "LinearMeasurement":
        """The measurement of some of the samples."""
        if self.observed.ndim == 1:
            return self
        part = object.__new__(LinearMeasurement)
        part.__dict__.update(self.__dict__, observed=self.observed[here])
        return part

    def gradient(self, score: Any, x: np.ndarray, t: float, s: np.ndarray) -> np.ndarray:
        """∇ₓ log p(y | x) at time t, s the score there."""
        noised = score.noised
        alpha, variance = noised.scale(t), noised.variance(t)
        ratio2 = variance / alpha**2
        mean = (x - noised.shift(t) + variance * s) / alpha
        spread2 = ratio2 * self.data_std**2 / (ratio2 + self.data_std**2)
        misfit = self.observed - mean @ self.matrix.T
        weights = np.maximum(spread2 * self._values + self.noise**2, spread2 * self._floor + 1e-300)
        pull = ((misfit @ self._axes) / weights) @ self._axes.T @ self.matrix
        v = np.asarray(pull, x.dtype)
        # vᵀ ∂D/∂y′ with ∂s_{y′}/∂y′ = α² ∂s/∂x, and ∇ₓ = ∇_{y′}/α
        through = v + ratio2 * alpha**2 * score.vector_jacobian(x, t, v)
        # Tweedie: a change g of the score of y′ moves D by r² g
        return self.strength * _bounded(through, ratio2 * through @ self.matrix.T, misfit) / alpha


def _bounded(through: np.ndarray, moved: np.ndarray, misfit: np.ndarray) -> np.ndarray:
    """The gradient, shortened in rows where A D would move by more than the misfit."""
    far, wanted = (np.linalg.norm(part, axis=1, keepdims=True) for part in (moved, misfit))
    kept = np.where(far > wanted, wanted / np.maximum(far, 1e-300), 1.0)
    return through * np.asarray(kept, through.dtype)


def greys(shape: tuple[int, int, int], weights: tuple[float, float, float] = (0.299, 0.587, 0.114)) -> np.ndarray:
    """A for colourisation: the luminance of an image (height, width, 3), (height·width, 3·height·width)."""
    height, width, channels = shape
    if channels != len(weights):
        raise ValueError(f"shape has {channels} channels, expected {len(weights)}, one for each weight")
    return np.kron(np.eye(height * width), np.asarray(weights, dtype=np.float64)[None, :])


def blur(shape: tuple[int, ...], std: float) -> np.ndarray:
    """A for deblurring: a Gaussian blur of ``std`` pixels of an image (height, width) or (height, width, channels).

    Rows sum to 1: the weights of pixels beyond the border go to those inside.
    """
    std = checks.real("std", std, above=0.0)
    if len(shape) not in (2, 3):
        raise ValueError(f"shape must be (height, width) or (height, width, channels), got {shape}")

    def axis(n: int) -> np.ndarray:
        away = np.subtract.outer(np.arange(n), np.arange(n))
        weights = np.exp(-0.5 * (away / std) ** 2)
        return weights / weights.sum(axis=1, keepdims=True)

    both = np.kron(axis(shape[0]), axis(shape[1]))
    return both if len(shape) == 2 else np.kron(both, np.eye(shape[2]))
