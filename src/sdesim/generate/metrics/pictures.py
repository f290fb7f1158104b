r"""What can be said of pictures by the features and probabilities of a classifier, and without one.

The Fréchet distance is that of two Gaussians with the moments of the features (Dowson & Landau 1982; Heusel et al.
2017), |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½). It belongs to the classifier whose features it is measured in,
and grows as the number of samples falls.
"""

from typing import Any

import numpy as np

from ..data import Images
from .rows import pair


def frechet_distance(x: Any, y: Any) -> float:
    """The squared Fréchet (2-Wasserstein) distance between Gaussians with the moments of two samples.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Features; their moments are worked out in float64, the covariances without bias.
    """
    first, second = pair(x, y)
    # covariances RᵀR, by QR: tr (C₁^½ C₂ C₁^½)^½ is then the sum of the singular values of R₁R₂ᵀ, without the root of a
    # small eigenvalue, which would keep half of the digits where a covariance is singular
    of_x, of_y = (np.linalg.qr(z - z.mean(axis=0), mode="r") / np.sqrt(len(z) - 1) for z in (first, second))
    shared = np.linalg.svd(of_x @ of_y.T, compute_uv=False).sum()
    apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return float(apart + (of_x**2).sum() + (of_y**2).sum() - 2.0 * shared)


def _probabilities(value: Any) -> np.ndarray:
    """Rows of probabilities, checked."""
    p = np.asarray(value, dtype=np.float64)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities has shape {p.shape}, expected (n, n_classes) with n >= 1")
    if not (np.isfinite(p).all() and (p >= 0.0).all() and np.abs(p.sum(axis=1) - 1.0).max() < 1e-3):
        raise ValueError("probabilities must be >= 0 and sum to 1 in every row")
    return p


def inception_score(probabilities: Any) -> float:
    """exp of the mean of KL(p(class | picture) ‖ p(class)) (Salimans et al. 2016): 1 to the number of classes."""
    from scipy.special import xlogy

    p = _probabilities(probabilities)
    mean = p.mean(axis=0)
    return float(np.exp((xlogy(p, p) - xlogy(p, np.where(mean > 0.0, mean, 1.0))).sum(axis=1).mean()))


def confidence(probabilities: Any) -> float:
    """The mean of the largest probability."""
    return float(_probabilities(probabilities).max(axis=1).mean())


def prediction_entropy(probabilities: Any) -> float:
    """The mean entropy of the probabilities of a picture, in nats."""
    from scipy.special import entr

    return float(entr(_probabilities(probabilities)).sum(axis=1).mean())


def class_shares(probabilities: Any) -> np.ndarray:
    """The share of pictures in every class, by their most probable one, (n_classes,)."""
    p = _probabilities(probabilities)
    return np.bincount(p.argmax(axis=1), minlength=p.shape[1]) / len(p)


def total_variation(images: Any, shape: tuple[int, ...] | None = None) -> float:
    """The mean absolute difference of horizontal neighbours: above that of the data is grain, below it blur.

    Parameters
    ----------
    images : Images, (n, height, width), (n, height, width, colours), or (n, d) with ``shape``
    shape : (height, width) or (height, width, colours), optional
    """
    if shape is None:
        shape = images.shape if isinstance(images, Images) else np.shape(images)[1:]
    x = np.asarray(getattr(images, "images", images))
    if len(shape) not in (2, 3) or x.ndim < 2 or np.prod(x.shape[1:]) != np.prod(shape) or len(x) == 0:
        raise ValueError(f"images has shape {x.shape}, expected (n, height, width[, colours]), or (n, d) with shape=")
    if shape[1] < 2:
        raise ValueError(f"images must be >= 2 wide to have neighbours, got width {shape[1]}")
    total = 0.0
    for lo in range(0, len(x), 1024):
        part = np.asarray(x[lo : lo + 1024], dtype=np.float64).reshape(-1, *shape)
        total += np.abs(np.diff(part, axis=2)).mean(axis=(1, 2) if len(shape) == 2 else (1, 2, 3)).sum()
    return float(total / len(x))
