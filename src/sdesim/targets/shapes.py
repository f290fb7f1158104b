r"""Shapes of the plane on which learned scores are tried: a ring of modes, two moons, a checkerboard.

All three keep their kind under αX + b + N(0, v I), so that the score of each is known exactly at every noise level of a
linear process (``marginal_score``):

    ring           a mixture of normal laws
    two moons      uniform on two half circles, plus noise: an integral over the angle, which a Gauss-Legendre rule
                   turns into a mixture of normal laws, to rounding
    checkerboard   uniform on squares: differences of normal distribution functions, axis by axis
"""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from .base import Target, draws
from .gaussian import LOG_2PI
from .mixture import GaussianMixture


def ring(n_modes: int = 8, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """``n_modes`` round normal laws of standard deviation ``std``, equally spaced on a circle, the first at angle 0."""
    n_modes = checks.integer("n_modes", n_modes, minimum=1)
    radius, std = checks.real("radius", radius, minimum=0.0), checks.real("std", std, above=0.0)
    angle = 2.0 * np.pi * np.arange(n_modes) / n_modes
    means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return GaussianMixture(np.full(n_modes, 1.0 / n_modes), means, std**2)


def two_moons(radius: float = 1.5, std: float = 0.08) -> GaussianMixture:
    r"""Two half circles that reach into each other, with normal noise.

    With R the radius and θ uniform on [0, π]: R (cos θ, sin θ), or R (1 − cos θ, ½ − sin θ), each with probability ½,
    plus N(0, std² I). The law is ½ Σ (1/π)∫ N(x; c(θ), std² I) dθ, whose integrand is std/R wide in θ. Gauss-Legendre
    nodes nowhere further apart than 0.83 of that give it with a relative error of e^{−2π²/0.83²} < 1e-12, a little more
    outside the circles, and the sum over the nodes is a mixture.
    """
    radius, std = checks.real("radius", radius, above=0.0), checks.real("std", std, above=0.0)
    # the nodes are furthest apart in the middle: (π/2)(π/n)
    count = max(40, int(np.ceil(6.0 * radius / std)))
    node, weight = np.polynomial.legendre.leggauss(count)
    angle = 0.5 * np.pi * (node + 1.0)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.array([1.0, 0.5]) - upper
    return GaussianMixture(np.tile(0.25 * weight, 2), radius * np.concatenate([upper, lower]), std**2)


@dataclasses.dataclass(frozen=True, eq=False)
class Checkerboard(Target):
    r"""Uniform on every second square of a board, convolved with N(0, std² I).

    The board has ``n`` × ``n`` squares around ``centre``; square (i, j) is taken where i + j is even. With the edges
    eᵢ and the mass of column i, mᵢ(x) = Φ((x − eᵢ)/std) − Φ((x − eᵢ₊₁)/std),

        p(x, y) ∝ M₀(x) M₀(y) + M₁(x) M₁(y),     M₀, M₁ the sums of mᵢ over even and odd i,

    and without noise mᵢ is 1 inside the column and 0 outside: the score is then 0 inside and nan outside.

    Parameters
    ----------
    n : int
        Squares along a side.
    side : float
        Of a square.
    centre : number or (2,)
    std : float
        Of the noise, >= 0.
    """

    n: int = 4
    side: float = 1.0
    centre: Any = 0.0
    std: float = 0.0

    dim = 2

    def __post_init__(self) -> None:
        centre = checks.array("centre", self.centre)
        if centre.shape not in ((), (2,)):
            raise ValueError(f"centre has shape {centre.shape}, expected a number or (2,)")
        object.__setattr__(self, "n", checks.integer("n", self.n, minimum=1))
        object.__setattr__(self, "side", checks.real("side", self.side, above=0.0))
        object.__setattr__(self, "centre", np.broadcast_to(centre, (2,)).copy())
        object.__setattr__(self, "std", checks.real("std", self.std, minimum=0.0))

    @property
    def squares(self) -> np.ndarray:
        """(i, j) of the squares that are taken, (k, 2)."""
        i, j = np.indices((self.n, self.n))
        return np.argwhere((i + j) % 2 == 0)

    def _corners(self) -> np.ndarray:
        """The lower left corners of the squares, (k, 2)."""
        return self.centre + self.side * (self.squares - 0.5 * self.n)

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self._corners().mean(axis=0) + 0.5 * self.side)

    @property
    def cov(self) -> np.ndarray:
        away = self._corners() - self._corners().mean(axis=0)
        return away.T @ away / len(away) + (self.side**2 / 12.0 + self.std**2) * np.eye(2)

    def contains(self, x: Any) -> Any:
        """Whether a point lies in one of the squares, the support without noise."""
        rows, points, _ = self._rows(x)
        place = np.floor((rows - self.centre) / self.side + 0.5 * self.n)
        inside = ((place >= 0) & (place < self.n)).all(axis=1) & (place.sum(axis=1) % 2 == 0)
        return inside.reshape(points)[()]

    def values(self, x: np.ndarray, *, scale: Any = 1.0, shift: Any = 0.0, noise: Any = 0.0) -> tuple[Any, Any]:
        """log density (n,) and score (n, 2) at ``x`` (n, 2) of the law of scale·X + shift + N(0, noise·I)."""
        noise = np.asarray(noise) + (scale * self.std) ** 2
        if not (noise > 0.0).all():
            raise ValueError("a checkerboard without noise has no score on its edges; ask for t > 0, or give std > 0")
        side = np.abs(scale) * self.side  # the board is its own image under reflection
        logs, slopes = np.empty((2, *x.shape)), np.empty((2, *x.shape))
        for axis in range(2):
            y = x[:, axis : axis + 1] - (scale * self.centre[axis] + shift)
            for parity in range(2):
                columns = np.arange(parity, self.n, 2)
                logs[parity, :, axis], slopes[parity, :, axis] = _columns(
                    y / np.sqrt(noise), (columns - 0.5 * self.n) * (side / np.sqrt(noise)), side / np.sqrt(noise)
                )
        both = logs.sum(axis=2)
        total = np.logaddexp(*both)
        score = (np.exp(both - total)[:, :, None] * slopes).sum(axis=0) / np.sqrt(noise)
        return total - np.log(len(self.squares) * np.reshape(side, -1) ** 2), score

    def log_density(self, x: Any) -> Any:
        rows, points, _ = self._rows(x)
        if self.std > 0.0:
            return self.values(rows)[0].reshape(points)[()]
        return np.where(self.contains(x), -np.log(len(self.squares) * self.side**2), -np.inf)[()]

    def score(self, x: Any, t: Any = None) -> Any:
        """∇ log p(x); without noise 0 inside the squares and nan elsewhere."""
        rows, _, shape = self._rows(x)
        if self.std > 0.0:
            return self.values(rows)[1].reshape(shape)[()]
        return (np.where(self.contains(x), 0.0, np.nan)[..., None] + np.zeros(2))[()]

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        from ..core import stream

        n, seed, first_path = draws(n, seed, first_path)
        # the noise has components 0 and 1 of the stream, the choice of a square and the place in it the next three
        u = stream.uniforms(seed, stream.INITIAL, n, 5, first_path=first_path)[:, 2:, 0]
        corners = self._corners()
        x = corners[np.minimum((u[:, 0] * len(corners)).astype(np.intp), len(corners) - 1)] + self.side * u[:, 1:]
        if self.std > 0.0:
            x = x + self.std * stream.normals(seed, stream.INITIAL, n, 2, first_path=first_path)[:, :, 0]
        return np.asarray(x)

    def affine(self, scale: float = 1.0, shift: Any = 0.0, noise: float = 0.0) -> "Checkerboard":
        """The law of αX + b + N(0, v I), for numbers α ≠ 0 and v."""
        return Checkerboard(
            self.n, abs(scale) * self.side, scale * self.centre + shift, float(np.hypot(scale * self.std, noise**0.5))
        )


def checkerboard(n: int = 4, side: float = 1.0) -> Checkerboard:
    """Uniform on every second of n × n squares around 0: eight unit squares in [−2, 2]² unless told otherwise."""
    return Checkerboard(n, side)


def _columns(y: np.ndarray, left: np.ndarray, width: Any) -> tuple[np.ndarray, np.ndarray]:
    """log M and (log M)′ of M(y) = Σᵢ Φ(y − leftᵢ) − Φ(y − leftᵢ − width), for y (n, 1) in standard deviations.

    Φ(u) − Φ(v) is taken in the tail where both are small, as a difference of logarithms: right arbitrarily far out.
    """
    from scipy.special import log_ndtr, logsumexp

    u = y - left
    if u.shape[1] == 0:
        return np.full(len(y), -np.inf), np.zeros(len(y))
    v = u - width
    upper = u + v > 0.0
    high, low = log_ndtr(np.where(upper, -v, u)), log_ndtr(np.where(upper, -u, v))
    log_mass = high + np.log1p(-np.exp(low - high))
    slope = np.exp(-0.5 * (u * u + LOG_2PI) - log_mass) - np.exp(-0.5 * (v * v + LOG_2PI) - log_mass)
    total = logsumexp(log_mass, axis=1)
    return total, (np.exp(log_mass - total[:, None]) * slope).sum(axis=1)
