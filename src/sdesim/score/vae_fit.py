r"""Training a variational autoencoder: the ELBO's gradient by the reparametrisation z = μ + σ e, e ~ N(0, I).

With y the standardised point, g the decoder's output and s the standardised noise, a row's loss is

    |y − g(z)|²/2s² + d log s + ½ Σ (μ² + σ² − 1 − log σ²)

up to a constant. With δ the gradient in z, handed back by the decoder, the encoder's outputs μ and l = log σ² receive
δ + μ and ½ δ σ e + ½ (σ² − 1).
"""

import dataclasses
from typing import Any

import numpy as np

from ..core import blas, blocks, checks, identity
from ..core.checkpoint import Checkpoint
from .base import NOISE
from .data import Data
from .feed import Feed
from .fit import _Loop, _split
from .head import Head
from .optimizer import Adam
from .passes import Passes, Phase, each, tiles
from .team import SMALL
from .vae import LOG_2PI, VAE


@dataclasses.dataclass(frozen=True)
class VAEFit:
    """A trained autoencoder.

    Attributes
    ----------
    vae : VAE
        With the moving average of the weights (the best of them, where a validation split was kept).
    net : VAE
        The same with the weights of the last step.
    losses : (steps,)
        Minus the ELBO of every batch, in nats of the data in their own unit.
    validation, seed, seconds, success, message
        As in ``Fit``.
    """

    vae: VAE
    net: VAE
    losses: np.ndarray
    validation: np.ndarray
    seed: int
    seconds: float
    success: bool
    message: str

    def __repr__(self) -> str:
        last = f", last loss {np.mean(self.losses[-100:]):.4g}" if len(self.losses) else ""
        return f"VAEFit({len(self.losses)} steps{last}, {self.message})"


def fit_vae(
    vae: VAE,
    data: Any,
    *,
    standardize: bool = True,
    n_iterations: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    warm_up: int = 100,
    decay: str = "cosine",
    weight_decay: float = 0.0,
    clip: float | None = None,
    ema: float = 0.999,
    validation: float = 0.0,
    validate_every: int = 200,
    patience: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Any = False,
    checkpoint: Any = None,
) -> VAEFit:
    r"""Maximise the ELBO over points drawn from p.

    Parameters
    ----------
    vae : VAE
        Where to start; it is not changed.
    data : (n, dim)
        An array or a memory map.
    standardize : bool
        Centre the data and divide by their spread inside the networks; the law is that of the data as given.
    n_iterations, batch_size, learning_rate, warm_up, decay, weight_decay, clip, ema
        Of the training (``optimizer.Adam``).
    validation, validate_every, patience, seed, workers, progress, checkpoint
        As in ``fit_score``.

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled: empty, constant or non-finite data, wrong shapes.
    TrainingError
        Where the loss became nan or infinite; ``error.fit`` has the last good weights.
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae must be a VAE, got {type(vae).__name__}")
    points = Data(data, vae.dim)
    steps = checks.integer("n_iterations", n_iterations, minimum=1, below=2**31)
    batch = checks.integer("batch_size", batch_size, minimum=1)
    kept = None if checkpoint is None else Checkpoint(checkpoint, "training")
    seed = checks.seed(seed if kept is None else kept.seed(seed))
    workers = blocks.check_executor(None, workers)
    checks.progress(progress)
    head = Head(centre=points.mean, spread=points.spread) if standardize else vae.head
    learner: Any = Bound(vae.with_parameters(vae.parameters, head=head), batch)
    adam = Adam(
        learner.parameters, learner.gradient, n_steps=steps, rate=learning_rate, warm_up=warm_up, schedule=decay,
        decay=weight_decay, clip=clip, ema=ema,
    )  # fmt: skip
    training, held = _split(len(points), checks.real("validation", validation, minimum=0.0), seed)
    feed = _Feed(learner, points, training, None, seed, False)
    held_feed = _Feed(learner, points, held, None, seed, False) if held.size else None
    small = sum(layout.flops(batch) for layout in vae.layouts) < SMALL
    loop = _VAELoop(
        learner.vae, learner, adam, feed, held_feed, steps, seed, 1 if small else workers, progress,
        checks.integer("validate_every", validate_every, minimum=1),
        None if patience is None else checks.integer("patience", patience, minimum=1),
    )  # fmt: skip
    if kept is not None:
        settings = identity.settings(
            net=repr(vae), start=vae.parameters, data=points.digest(), head=head, **loop.settings(), seed=seed,
            validation=float(validation),
        )  # fmt: skip
        loop.keep(kept, settings)
    with blas.single_threaded():
        fit: VAEFit = loop.run()
    return fit


class Bound:
    """Minus the ELBO of n points and its gradient: what ``Objective`` is for scores.

    Inputs: ``x`` (n, d) and ``noise``, flat, of which point i has the normals from latent · i on.
    """

    random_directions = False

    def __init__(self, vae: VAE, n: int) -> None:
        self.vae, self.n, self.dim, self.head = vae, n, vae.dim, vae.head
        self.parameters = np.array(vae.parameters)
        self.gradient = np.zeros_like(self.parameters)
        dtype = self.parameters.dtype
        self.encoder, self.decoder = (
            Passes(layout, vae.activation, weights, slope, n)
            for layout, weights, slope in zip(
                vae.layouts, vae.split(self.parameters), vae.split(self.gradient), strict=True
            )
        )
        self.x = np.zeros((n, self.dim), dtype)
        self.noise = np.zeros(-(-n * vae.latent // 4) * 4, dtype)
        self.losses, self.squares = np.zeros(n, dtype), np.zeros(n)
        self.std = np.zeros((n, vae.latent), dtype)
        self.centre = np.broadcast_to(np.asarray(self.head.centre, dtype), (self.dim,)).copy()
        self.share, self.scale = dtype.type(1.0 / n), dtype.type(1.0 / self.head.spread)
        self.constant = dtype.type(self.dim * (np.log(self.head.spread) + 0.5 * LOG_2PI))
        self.tiles = tiles(n)
        e, d = self.encoder, self.decoder
        self.phases: list[Phase] = [
            each(self._enter, self.tiles), *e.forward(), each(self._draw, self.tiles), *d.forward(),
            each(self._loss, self.tiles), *d.reverse(), *d.gradient(), each(self._back, self.tiles), *e.reverse(),
            *e.gradient(), [self._of_noise],
        ]  # fmt: skip

    def levels_at(self, t: np.ndarray) -> tuple[np.ndarray, ...]:
        """No noise levels."""
        return ()

    def take_levels(self, levels: tuple[np.ndarray, ...]) -> None:
        """No noise levels."""

    def _enter(self, p0: int, n: int, r0: int) -> None:
        rows = slice(p0, p0 + n)
        self.encoder.H[0][rows] = (self.x[rows] - self.centre) * self.scale

    def _draw(self, p0: int, n: int, r0: int) -> None:
        """z = μ + σ e; the outputs of the encoder receive their bias here."""
        rows, k, e = slice(p0, p0 + n), self.vae.latent, self.encoder
        e.O[rows] += e.b[-1]
        np.exp(self.share.dtype.type(0.5) * e.O[rows, k:], out=self.std[rows])
        self.decoder.H[0][rows] = e.O[rows, :k] + self.std[rows] * self._noise(p0, n)

    def _noise(self, p0: int, n: int) -> np.ndarray:
        k = self.vae.latent
        return self.noise[p0 * k : (p0 + n) * k].reshape(n, k)

    def _loss(self, p0: int, n: int, r0: int) -> None:
        rows, k, half = slice(p0, p0 + n), self.vae.latent, self.share.dtype.type(0.5)
        d, e, log_s = self.decoder, self.encoder, self._log_s()
        precision = np.exp(-2 * log_s)
        gap = d.O[rows] + d.b[-1] - self.encoder.H[0][rows]
        square = precision * (gap * gap).sum(axis=1)
        d.D[-1][rows] = self.share * precision * gap
        mean, log_var, std = e.O[rows, :k], e.O[rows, k:], self.std[rows]
        divergence = half * (mean * mean + std * std - 1 - log_var).sum(axis=1)
        self.losses[rows] = half * square + self.dim * log_s + self.constant + divergence
        self.squares[rows] = square

    def _back(self, p0: int, n: int, r0: int) -> None:
        """From the decoder's input to the encoder's outputs."""
        rows, k, half = slice(p0, p0 + n), self.vae.latent, self.share.dtype.type(0.5)
        e, std = self.encoder, self.std[rows]
        pull = self.decoder.D[0][rows] @ self.decoder.W[0].T
        e.D[-1][rows, :k] = pull + self.share * e.O[rows, :k]
        e.D[-1][rows, k:] = half * (pull * std * self._noise(p0, n) + self.share * (std * std - 1))

    def _log_s(self) -> Any:
        fixed = self.vae.fixed_noise
        return self.parameters[-1] if fixed is None else self.share.dtype.type(np.log(fixed / self.head.spread))

    def _of_noise(self) -> None:
        """The gradient in log s: d − |y − g|²/s², on average."""
        learned = self.vae.fixed_noise is None
        self.gradient[-1] = self.dim - self.squares.sum() / self.n if learned else 0.0


class _Feed(Feed):
    """Points and the normals of the latent space."""

    learner: Any

    def _draw(self, p0: int, n: int) -> None:
        super()._draw(p0, n)
        k = self.learner.vae.latent
        self._fill(self.learner.noise, p0 * k, n * k, NOISE)


class _VAELoop(_Loop):
    """The training loop, with an autoencoder in its result."""

    net: Any
    learner: Any

    def _result(self, seconds: float, success: bool, message: str) -> VAEFit:
        return VAEFit(
            vae=self.net.with_parameters(self.average(), head=self.learner.head),
            net=self.net.with_parameters(self.adam.parameters, head=self.learner.head),
            losses=self.losses[: self.done].copy(),
            validation=np.array(self.tried, dtype=np.float64).reshape(-1, 2),
            seed=self.seed,
            seconds=seconds,
            success=success,
            message=message,
        )
