r"""A variational autoencoder: two MLPs and a Gaussian latent space (Kingma & Welling 2014; Rezende et al. 2014).

    z ~ N(0, I),   x | z ~ N(g_θ(z), s² I)          decoder
    z | x ≈ N(μ_φ(x), diag σ_φ(x)²)                 encoder, q_φ(z | x)

A family with a tractable sampler whose likelihood ∫ p(x | z) p(z) dz is not, so that what is maximised is a bound,

    log p(x) >= E_q[log p(x | z)] − KL(q_φ(z | x) ‖ N(0, I))                       (the ELBO)

and what is reported is a tighter one with K draws from q (Burda et al. 2016, "Importance weighted autoencoders"):

    log p(x) >= E log 1/K Σ_k p(x | z_k) p(z_k)/q(z_k | x),   from below to log p(x) as K → ∞

All densities are of x in its own unit. The networks work in y = (x − m)/σ_d, where log p is higher by d log σ_d.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import blas, checks, stream
from ..targets.base import draws
from . import activations, arguments
from .base import MAX_PARAMETERS, PROBES
from .evaluation import Evaluator
from .head import Head
from .layout import Layout
from .network import _initial

LOG_2PI = float(np.log(2.0 * np.pi))


class VAE:
    r"""A Gaussian variational autoencoder.

    Parameters
    ----------
    dim : int
        The dimension d of x.
    latent : int
        The dimension of z.
    hidden : sequence of int
        The widths of the hidden layers of the encoder; the decoder has them in the opposite order.
    activation : "silu", "tanh" or "softplus"
    noise : float, optional
        s, the standard deviation of the observation, in the unit of x. Learned unless given.
    seed : int
        Of the initial weights.
    dtype : float32 or float64

    Notes
    -----
    ``parameters`` holds the encoder, the decoder and log s/σ_d, and is read-only; ``with_parameters`` makes another.
    """

    def __init__(
        self, dim: int, latent: int = 2, hidden: Sequence[int] = (128, 128), *, activation: str = "silu",
        noise: float | None = None, seed: int = 0, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        self._shape(dim, latent, hidden, activation, noise)
        kind, seed = checks.dtype(dtype), checks.seed(seed)
        self.head = Head(centre=np.zeros(self.dim))
        parts = [
            _initial(part, self.activation, (seed + k) % checks.MAX_SEED, False) for k, part in enumerate(self.layouts)
        ]
        self._set(np.concatenate([*parts, np.zeros(1)]).astype(kind))

    def _shape(self, dim: Any, latent: Any, hidden: Any, activation: Any, noise: Any) -> None:
        self.dim = checks.integer("dim", dim, minimum=1)
        self.latent = checks.integer("latent", latent, minimum=1)
        widths = arguments.widths(hidden)
        self.layouts = (Layout(self.dim, 0, widths, 2 * self.latent), Layout(self.latent, 0, widths[::-1], self.dim))
        self.activation = checks.choice("activation", activation, activations.NAMES)
        self.fixed_noise = None if noise is None else checks.real("noise", noise, above=0.0)
        if self.size > MAX_PARAMETERS:
            raise ValueError(f"the autoencoder would have {self.size} parameters, more than {MAX_PARAMETERS}")

    def _set(self, parameters: np.ndarray) -> None:
        self.parameters = np.ascontiguousarray(parameters)
        self.parameters.flags.writeable = False
        self._local = threading.local()

    # ---- what it is

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of the encoder's hidden layers."""
        return self.layouts[0].hidden

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.layouts[0].size + self.layouts[1].size + 1

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters, and of the networks' arithmetic."""
        return self.parameters.dtype

    @property
    def noise(self) -> float:
        """s, in the unit of x."""
        if self.fixed_noise is not None:
            return self.fixed_noise
        return float(np.exp(np.float64(self.parameters[-1])) * self.head.spread)

    def split(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The encoder's and the decoder's part of a vector of parameters, or of their gradient."""
        first = self.layouts[0].size
        return flat[:first], flat[first : first + self.layouts[1].size]

    def __repr__(self) -> str:
        return f"VAE({self.dim}, latent={self.latent}, hidden={self.hidden}): {self.size} parameters, {self.dtype}"

    def with_parameters(self, parameters: Any, *, head: Head | None = None) -> "VAE":
        """The same networks with other parameters (and another centre and spread of the data)."""
        given = np.asarray(parameters)
        if given.shape != (self.size,):
            raise ValueError(f"parameters has shape {given.shape}, expected ({self.size},)")
        other = object.__new__(VAE)
        for name in ("dim", "latent", "layouts", "activation", "fixed_noise"):
            setattr(other, name, getattr(self, name))
        other.head = self.head if head is None else head
        other._set(np.array(given, dtype=given.dtype if given.dtype.kind == "f" else self.dtype))
        return other

    def astype(self, dtype: Any) -> "VAE":
        """The same with float32 or float64 parameters."""
        return self.with_parameters(self.parameters.astype(checks.dtype(dtype)))

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings, arrays): all that :meth:`restored` needs, as plain data."""
        settings = {
            "dim": self.dim, "latent": self.latent, "hidden": list(self.hidden), "activation": self.activation,
            "noise": self.fixed_noise, "head": self.head.stored(),
        }  # fmt: skip
        centre = np.broadcast_to(np.asarray(self.head.centre, dtype=np.float64), (self.dim,))
        return settings, {"parameters": self.parameters, "centre": np.array(centre)}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "VAE":
        """The autoencoder that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        vae = object.__new__(cls)
        vae._shape(*(settings[name] for name in ("dim", "latent", "hidden", "activation", "noise")))
        parameters, centre = arrays["parameters"], arrays["centre"]
        if parameters.shape != (vae.size,) or centre.shape != (vae.dim,):
            raise ValueError(f"{parameters.size} parameters do not make an autoencoder of {vae.size}")
        if not (np.isfinite(parameters).all() and np.isfinite(centre).all()):
            raise ValueError("its parameters are not finite")
        checks.dtype(parameters.dtype)
        vae.head = Head.restored(settings["head"], centre)
        if vae.head.kind != "plain" or vae.head.process is not None:
            raise ValueError("an autoencoder has no noise levels")
        vae._set(parameters)
        return vae

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set(state["parameters"])

    # ---- what it computes

    def encode(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """μ_φ(x) and σ_φ(x) of q(z | x), (n, latent) each, in float64."""
        rows, _, _ = arguments.rows(x, self.dim)
        found = self._run(0, (rows - np.asarray(self.head.centre)) / self.head.spread)
        return found[:, : self.latent], np.exp(0.5 * found[:, self.latent :])

    def decode(self, z: Any) -> np.ndarray:
        """g_θ(z), the mean of x given z, (n, dim), in float64."""
        rows, _, _ = arguments.rows(z, self.latent)
        return np.asarray(self.head.centre) + self.head.spread * self._run(1, rows)

    def sample(self, n: int, seed: int | None = None, *, first_path: int = 0) -> np.ndarray:
        """Draw n points, of shape (n,) for dim 1 and (n, dim) otherwise; point i depends on seed and first_path + i."""
        n, seed, first_path = draws(n, seed, first_path)
        e = stream.normals(seed, stream.INITIAL, n, self.latent + self.dim, first_path=first_path)[:, :, 0]
        x = self.decode(e[:, : self.latent]) + self.noise * e[:, self.latent :]
        return x[:, 0] if self.dim == 1 else x

    def elbo(self, x: Any, *, n_samples: int = 1, seed: int | None = 0) -> np.ndarray:
        """E_q[log p(x | z)] − KL(q ‖ N(0, I)) at every point, (n,): the mean over so many z, the KL in closed form."""
        rows, mean, std = self._encoded(x)
        count = checks.integer("n_samples", n_samples, minimum=1)
        total = np.zeros(len(rows))
        for z, _ in self._latents(mean, std, count, checks.seed(seed)):
            total += self._log_likelihood(rows, z)
        return total / count - 0.5 * (mean**2 + std**2 - 1.0 - 2.0 * np.log(std)).sum(axis=1)

    def log_likelihood_bound(self, x: Any, *, n_samples: int = 100, seed: int | None = 0) -> np.ndarray:
        """log 1/K Σ p(x | z_k) p(z_k)/q(z_k | x) at every point, (n,), with K = ``n_samples`` draws.

        In expectation a lower bound on log p(x) that grows with K (Burda et al. 2016, theorem 1); exact for any K where
        q is the posterior.
        """
        rows, mean, std = self._encoded(x)
        count = checks.integer("n_samples", n_samples, minimum=1)
        total = np.full(len(rows), -np.inf)
        for z, e in self._latents(mean, std, count, checks.seed(seed)):
            prior, posterior = -0.5 * (z**2).sum(axis=1), -0.5 * (e**2).sum(axis=1) - np.log(std).sum(axis=1)
            total = np.logaddexp(total, self._log_likelihood(rows, z) + prior - posterior)
        return total - np.log(count)

    def _encoded(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, _, _ = arguments.rows(x, self.dim)
        return (rows, *self.encode(rows))

    def _latents(self, mean: np.ndarray, std: np.ndarray, count: int, seed: int) -> Any:
        """Pairs z = μ + σ e and e."""
        for k in range(count):
            e = stream.normals(seed, stream.TRAINING, *mean.shape, first_path=PROBES + (k << 32))[:, :, 0]
            yield mean + std * e, e

    def _log_likelihood(self, rows: np.ndarray, z: np.ndarray) -> np.ndarray:
        """log p(x | z)."""
        squares = (((rows - self.decode(z)) / self.noise) ** 2).sum(axis=1)
        found: np.ndarray = -0.5 * squares - self.dim * (np.log(self.noise) + 0.5 * LOG_2PI)
        return found

    def _run(self, which: int, rows: np.ndarray) -> np.ndarray:
        """The encoder's (0) or the decoder's (1) outputs."""
        found: list[Evaluator] | None = getattr(self._local, "evaluators", None)
        if found is None:
            none = np.zeros(0, self.dtype)
            found = [
                Evaluator(layout, self.activation, part, Head(centre=np.zeros(layout.dim)), none)
                for layout, part in zip(self.layouts, self.split(self.parameters), strict=True)
            ]
            self._local.evaluators = found
        out = np.empty((len(rows), self.layouts[which].n_outputs))
        with blas.single_threaded():
            for where, *_ in found[which].blocks(np.asarray(rows, dtype=np.float64), 0.0):
                out[where] = found[which].out[: where.stop - where.start]
        return out
