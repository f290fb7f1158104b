r"""From a network's output to a score: scalings that depend on the noise level, and nothing else.

With y = x − α(t) m − β(t), m the centre of the data and σ_d their spread, every head is

    s(x, t) = A(t) y + B(t) F(C(t) y, c(t))

where F is the network and c the number that its features show. At noise level t, x = α x₀ + β + σ ε:

    kind       F learns               A                B                  C            S = σ² + α² σ_d²
    plain      σ_d s                  0                1/σ_d              1/σ_d
    noise      −ε                     0                1/σ                1/√S
    data       (x₀ − m)/σ_d           −1/σ²            α σ_d/σ²           1/√S
    velocity   (α_n ε − σ_n x₀/σ_d)   −1/S             −α σ_d/(σ √S)      1/√S         α_n = α σ_d/√S, σ_n = σ/√S
    edm        minus the velocity     −1/S             +α σ_d/(σ √S)      1/√S

``edm`` starts at the exact score of N(m, σ_d²) (its F has unit variance and input of unit variance at every level):
the preconditioning of Karras et al. (2022), for any linear process; ``velocity`` is the v-prediction of Salimans & Ho
(2022), which is the same up to a sign. ``noise`` and ``data`` are ε- and x-prediction (Ho et al. 2020).
"""

import dataclasses
from typing import Any

import numpy as np

from ..core import checks
from ..processes import noising
from ..processes.gaussian import GaussianProcess
from ..processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from ..processes.wiener import Wiener

KINDS = ("plain", "noise", "data", "velocity", "edm")


@dataclasses.dataclass(frozen=True)
class Level(GaussianProcess):
    """One noise level for all times: X = x₀ + N(0, σ²). What denoising at a single level trains on."""

    sigma: float = 0.1
    horizon = 1.0
    t_min = 0.0

    def mean_factor(self, t: Any) -> Any:
        return 1.0 + 0.0 * np.asarray(t, dtype=np.float64)[()]

    def added_variance(self, t: Any) -> Any:
        return self.sigma**2 + 0.0 * np.asarray(t, dtype=np.float64)[()]


# The processes that a saved network may name; their fields are numbers.
STORED = {
    kind.__name__: kind
    for kind in (
        noising.VarianceExploding, noising.VariancePreserving, noising.SubVariancePreserving, noising.Cosine,
        noising.EDM,
        OrnsteinUhlenbeck, Wiener, Level,
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The scalings of a score network.

    Parameters
    ----------
    kind : one of ``KINDS``
    process : GaussianProcess or None
        Gives α, β, σ; without it (kind "plain") the score has no noise level, and c = t.
    centre : (dim,)
        m.
    spread : float
        σ_d > 0.
    t_min : float
        Times below are taken as this one, because σ vanishes at 0.
    """

    kind: str = "plain"
    process: GaussianProcess | None = None
    centre: Any = 0.0
    spread: float = 1.0
    t_min: float = 0.0

    def noise(self, t: np.ndarray) -> tuple[Any, Any, Any]:
        """α, β, σ at times t, in float64."""
        if self.process is None:
            return np.ones_like(t), np.zeros_like(t), np.zeros_like(t)
        t = np.maximum(t, self.t_min)
        alpha, beta = self.process.mean_factor(t), self.process.mean_shift(t)
        return alpha + 0.0 * t, beta + 0.0 * t, np.sqrt(self.process.added_variance(t) + 0.0 * t)

    def scalings(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A, B, C and c at times t, in float64."""
        if self.kind == "plain":
            flat = np.full_like(t, 1.0 / self.spread)
            return np.zeros_like(t), flat, flat, self.level(t)
        alpha, _, sigma = self.noise(t)
        square = sigma**2 + (alpha * self.spread) ** 2
        root = np.sqrt(square)
        zero = np.zeros_like(t)
        a, b = {
            "noise": (zero, 1.0 / sigma),
            "data": (-1.0 / sigma**2, alpha * self.spread / sigma**2),
            "velocity": (-1.0 / square, -alpha * self.spread / (sigma * root)),
            "edm": (-1.0 / square, alpha * self.spread / (sigma * root)),
        }[self.kind]
        return a, b, 1.0 / root, self.level(t)

    def level(self, t: np.ndarray) -> np.ndarray:
        """c: ¼ ln(σ/(α σ_d)), a quarter of the logarithm of the noise-to-signal ratio; t itself without a process."""
        if self.process is None:
            return t
        alpha, _, sigma = self.noise(t)
        return 0.25 * np.log(sigma / (alpha * self.spread))

    def regression(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(t_x, t_e): what F should be for a given (x₀, ε), t_x (x₀ − m) + t_e ε, if s is to be −ε/σ."""
        alpha, _, sigma = self.noise(t)
        a, b, _, _ = self.scalings(t)
        of_noise = -(alpha**2) * self.spread**2 / (sigma * (sigma**2 + (alpha * self.spread) ** 2))
        # −1/σ − A σ, written without the difference where A = −1/S
        pull = {"edm": of_noise, "velocity": of_noise, "data": 0.0 * t}.get(self.kind, -1.0 / sigma)
        return -a * alpha / b, pull / b

    def shift(self, t: np.ndarray) -> np.ndarray:
        """α(t) m + β(t): (dim,) or (n, dim) for the times (n,)."""
        alpha, beta, _ = self.noise(t)
        return np.multiply.outer(alpha, np.asarray(self.centre, dtype=np.float64)) + np.asarray(beta)[..., None]

    def stored(self) -> dict[str, Any]:
        """The head as plain data, without its centre."""
        process = None
        if self.process is not None:
            name = type(self.process).__name__
            if STORED.get(name) is not type(self.process):
                raise TypeError(
                    f"a network trained with {name} cannot be saved: a file names one of {', '.join(STORED)}; save "
                    "net.parameters and make the network anew"
                )
            process = {"name": name, "fields": {key: float(value) for key, value in self.process.fields().items()}}
        return {"kind": self.kind, "process": process, "spread": float(self.spread), "t_min": float(self.t_min)}

    @classmethod
    def restored(cls, settings: dict[str, Any], centre: np.ndarray) -> "Head":
        """The head that :meth:`stored` described."""
        kind = checks.choice("kind", settings["kind"], KINDS)
        spread = checks.real("spread", settings["spread"], above=0.0)
        t_min = checks.real("t_min", settings["t_min"], minimum=0.0)
        process = settings["process"]
        if process is not None:
            name = checks.choice("process", process["name"], STORED)
            process = STORED[name](**process["fields"])
        return cls(kind, process, centre, spread, t_min)
