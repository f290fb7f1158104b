"""Training a score network: the loop around an objective and Adam.

Every random number is a function of the seed, the step and its place in the batch, and every sum has a fixed order: a
training that was interrupted goes on to the same bits, and so does one on another number of threads.
"""

import contextlib
import dataclasses
import math
import time
from typing import Any

import numpy as np

from ..core import blas, blocks, checks, identity, stream
from ..core.checkpoint import Checkpoint
from ..errors import TrainingError
from ..processes.gaussian import GaussianProcess
from . import checkpoints
from .base import SPLIT, ScoreNetwork, checked_labels
from .data import Data
from .feed import Feed
from .head import KINDS, Head, Level
from .noise_levels import Times
from .optimizer import Adam
from .team import SMALL, Team

_GOOD = 200  # steps between copies of weights known to be good
_VALIDATION_STEP = 2**31  # the stream's steps of validation, which no training reaches
_MAX_VALIDATION_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained score.

    Attributes
    ----------
    score : ScoreMLP, ResidualMLP or MixerMLP
        ``score(x, t)`` with the moving average of the weights (the best of them, where a validation split was kept).
    net : ScoreMLP, ResidualMLP or MixerMLP
        The same with the weights of the last step.
    losses : (steps,)
        The loss of every batch.
    validation : (k, 2)
        Step and loss on the points held back.
    seed, seconds
        The seed that was used, and the time that training took.
    success, message
        Whether all iterations were run, or what ended them.
    """

    score: Any
    net: Any
    losses: np.ndarray
    validation: np.ndarray
    seed: int
    seconds: float
    success: bool
    message: str

    def __repr__(self) -> str:
        last = f", last loss {np.mean(self.losses[-100:]):.4g}" if len(self.losses) else ""
        return f"Fit({len(self.losses)} steps{last}, {self.message})"


def fit_score(
    net: Any,
    data: Any,
    *,
    labels: Any = None,
    label_drop: float = 0.1,
    process: GaussianProcess | None = None,
    objective: str = "denoising",
    sigma: float | None = None,
    prediction: str = "edm",
    weighting: str = "prediction",
    times: Any = (-1.2, 1.5),
    levels: int | None = None,
    horizon: float | None = None,
    t_min: float | None = None,
    n_projections: int = 1,
    projection: str = "rademacher",
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
    checkpoint_every: int | None = None,
) -> Fit:
    r"""Learn ∇log p from points drawn from p.

    Parameters
    ----------
    net : ScoreMLP, ResidualMLP or MixerMLP
        Where to start; it is not changed.
    data : (n, dim)
        An array or a memory map.
    labels : (n,) of int, optional
        The class of every point, for a ``ResidualMLP`` or ``MixerMLP`` with ``n_classes``; −1 where it is not known.
    label_drop : float
        The chance that a point is shown without its label, from which the score of all classes together is learned.
    process : GaussianProcess, optional
        A noising process (VariancePreserving, …, or any linear process): learn ∇log p_t at all its times. Without
        one, the score of the data themselves (implicit, sliced), or at one noise level (denoising).
    objective : "denoising", "implicit", "sliced", "sliced_vr" or "finite_difference"
        See ``objectives``.
    sigma : float, optional
        The one noise level of denoising without a process; a tenth of the data's spread unless given.
    prediction : "edm", "noise", "data", "velocity" or "plain"
        What the network's output means (``head``).
    weighting : "prediction", "noise", "data", "likelihood" or "none"
        How noise levels are weighed against each other (``objectives.weight``).
    times, levels
        Which noise levels are drawn (``noise_levels.Times``).
    horizon, t_min : float
        The times to learn; the process's own unless given.
    n_projections, projection
        Directions of sliced score matching, with "rademacher" or "gaussian" entries.
    standardize : bool
        Centre the data and divide by their spread inside the head; the score is that of the data as given.
    n_iterations, batch_size, learning_rate, warm_up, decay, weight_decay, clip, ema
        Of the training (``optimizer.Adam``).
    validation : float
        The fraction of the points held back; every ``validate_every`` steps the averaged weights are tried on them,
        and training ends where the best loss is ``patience`` trials old.
    seed, workers, progress, checkpoint
        Results depend on the seed, not on the number of threads. A training that is interrupted goes on from its
        ``checkpoint`` file, to the same bits: it is written every 30 s, and every ``checkpoint_every`` steps where that
        is given, on Ctrl-C and SIGTERM, and at the end.

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled: empty, constant or non-finite data, wrong shapes, an objective without its noise.
    TrainingError
        Where the loss became nan or infinite; ``error.fit`` has the last good weights.
    """
    if not isinstance(net, ScoreNetwork):
        raise TypeError(f"net must be a ScoreMLP, a ResidualMLP or a MixerMLP, got {type(net).__name__}")
    points = Data(data, net.dim)
    classes = _classes(net, labels, len(points))
    drop = checks.real("label_drop", label_drop, minimum=0.0)
    if drop > 1.0:
        raise ValueError(f"label_drop must be <= 1, a chance, got {drop:g}")
    steps = checks.integer("n_iterations", n_iterations, minimum=1, below=_VALIDATION_STEP)
    batch = checks.integer("batch_size", batch_size, minimum=1)
    kept = None if checkpoint is None else Checkpoint(checkpoint, "training")
    seed = checks.seed(seed if kept is None else kept.seed(seed))
    checks.choice("projection", projection, ("rademacher", "gaussian"))
    workers = blocks.check_executor(None, workers)
    checks.progress(progress)
    head, last = _head(points, process, objective, sigma, prediction, standardize, horizon, t_min)
    draw_times = None if head.process is None else Times(head, last, times, levels)
    learner = net.learner(batch, objective, head=head, weighting=weighting, n_projections=n_projections)
    adam = Adam(
        learner.parameters, learner.gradient, n_steps=steps, rate=learning_rate, warm_up=warm_up, schedule=decay,
        decay=weight_decay, clip=clip, ema=ema,
    )  # fmt: skip
    training, held = _split(len(points), checks.real("validation", validation, minimum=0.0), seed)
    feed = Feed(learner, points, training, draw_times, seed, projection == "gaussian", classes, drop)
    held_feed = None
    if held.size:
        held_feed = Feed(learner, points, held, draw_times, seed, projection == "gaussian", classes, drop)
    small = learner.flops < SMALL
    loop = _Loop(
        net, learner, adam, feed, held_feed, steps, seed, 1 if small else workers, progress,
        checks.integer("validate_every", validate_every, minimum=1),
        None if patience is None else checks.integer("patience", patience, minimum=1),
    )  # fmt: skip
    if kept is not None:
        settings = identity.settings(
            net=repr(net), start=net.arrays(), data=points.digest(), head=head, horizon=last, labels=classes,
            label_drop=drop, objective=objective, weighting=weighting, times=times, levels=levels,
            n_projections=n_projections, projection=projection, **loop.settings(), seed=seed,
            validation=float(validation),
        )  # fmt: skip
        loop.keep(kept, settings, checkpoint_every)
    with blas.single_threaded():
        return loop.run()


def _classes(net: ScoreNetwork, labels: Any, n: int) -> np.ndarray | None:
    """The labels of the points, where the network has classes."""
    if labels is None:
        if net.n_classes is not None:
            raise ValueError(f"the network has {net.n_classes} classes; give labels=, one for each of the {n} points")
        return None
    return checked_labels(labels, net.n_classes, n)


def _head(
    points: Data, process: Any, objective: str, sigma: float | None, prediction: str, standardize: bool,
    horizon: float | None, t_min: float | None,
) -> tuple[Head, float]:  # fmt: skip
    """The head that the arguments ask for, and the last time."""
    checks.choice("prediction", prediction, KINDS)
    centre, spread = (points.mean, points.spread) if standardize else (np.zeros(points.dim), 1.0)
    if process is None and objective == "denoising":
        level = 0.1 * points.spread if sigma is None else checks.real("sigma", sigma, above=0.0)
        return Head(prediction, Level(level), centre, spread), 1.0
    if sigma is not None:
        raise ValueError("sigma is the level of denoising without a process; leave it out here")
    if process is None:
        return Head("plain", None, centre, spread), 1.0
    if not isinstance(process, GaussianProcess):
        raise TypeError(
            f"process must be linear (VariancePreserving, OrnsteinUhlenbeck, ...), got {type(process).__name__}: "
            "noise is added by its exact transition"
        )
    last = getattr(process, "horizon", None) if horizon is None else horizon
    if last is None:
        raise ValueError(f"{type(process).__name__} has no horizon of its own; give horizon=")
    last = checks.real("horizon", last, above=0.0)
    first = checks.real("t_min", getattr(process, "t_min", 1e-3 * last) if t_min is None else t_min, minimum=0.0)
    if not first < last:
        raise ValueError(f"t_min must be < horizon = {last:g}, got {first:g}")
    return Head(prediction, process, centre, spread, first), last


def _split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on and those held back."""
    if not fraction < 1.0:
        raise ValueError(f"validation must be < 1, the fraction of points held back, got {fraction:g}")
    held = round(n * fraction)
    if held == 0:
        return np.arange(n) if fraction else np.arange(0), np.arange(0)
    if held == n:
        raise ValueError(f"validation = {fraction:g} leaves none of the {n} points to train on")
    order = np.argsort(stream.uniforms(seed, stream.TRAINING, n, first_path=SPLIT)[:, 0, 0], kind="stable")
    return np.sort(order[held:]), np.sort(order[:held])


class _Loop:
    """The training itself, with what it keeps to go on from, to fall back to and to return."""

    also = ""  # what else may be lowered where the loss explodes

    def __init__(
        self, net: ScoreNetwork, learner: Any, adam: Adam, feed: Feed, held: Feed | None, n_steps: int, seed: int,
        workers: int, progress: Any, validate_every: int, patience: int | None,
    ) -> None:  # fmt: skip
        self.net, self.learner, self.adam, self.feed, self.held = net, learner, adam, feed, held
        self.n_steps, self.seed, self.workers, self.progress = n_steps, seed, workers, progress
        self.validate_every, self.patience = validate_every, patience
        self.losses = np.full(n_steps, np.nan)
        self.tried: list[tuple[int, float]] = []
        self.best = (math.inf, np.array(adam.average))
        self.done, self.written, self.whole = 0, -1, True
        self.kept: Checkpoint | None = None
        self.asked: dict[str, Any] = {}
        self.every: int | None = None
        self.good = (0, np.array(adam.parameters), np.array(adam.average))

    def settings(self) -> dict[str, Any]:
        """What of the loop and its steps decides the bits."""
        adam = self.adam
        return {
            "n_iterations": self.n_steps, "batch_size": self.learner.n, "learning_rate": adam.rate,
            "warm_up": adam.warm_up, "decay": adam.schedule, "weight_decay": adam.decay, "clip": adam.clip,
            "ema": adam.ema, "validate_every": self.validate_every, "patience": self.patience,
        }  # fmt: skip

    def keep(self, kept: Checkpoint, settings: dict[str, Any], every: Any = None) -> None:
        """Go on from a checkpoint, if it is there, and write it from now on; also every so many steps."""
        self.kept, self.asked = kept, settings
        self.every = None if every is None else checks.integer("checkpoint_every", every, minimum=1)
        arrays = kept.begin(settings)
        if arrays is None:
            return
        checkpoints.check(kept, arrays, {**self.state(), "best": self.best[1]}, self.n_steps)
        self.done = self.written = len(arrays["losses"])
        self.losses[: self.done] = arrays["losses"]
        self.tried = [(int(step), float(loss)) for step, loss in arrays["tried"]]
        self.best = (float(arrays["best_loss"][0]), arrays["best"])
        self.restore(arrays)
        self.good = (self.done, np.array(self.adam.parameters), np.array(self.adam.average))

    def state(self) -> dict[str, np.ndarray]:
        """What the next step depends on, beside the seed and the number of the step."""
        return self.adam.state()

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        self.adam.restore(arrays)

    def _write(self, wait: bool = True) -> None:
        if self.kept is None:
            return
        arrays = {
            **self.state(), "losses": self.losses[: self.done], "best": self.best[1],
            "best_loss": np.array([self.best[0]]), "tried": np.array(self.tried, dtype=np.float64).reshape(-1, 2),
        }  # fmt: skip
        self.written = self.done  # before a Ctrl-C that waits for the file can be heard
        if not self.kept.write(arrays, wait=wait):
            self.written = -1

    def _held(self) -> contextlib.AbstractContextManager[None]:
        """Ctrl-C waits a moment, in which weights and counts do not belong together."""
        return contextlib.nullcontext() if self.kept is None else self.kept.held()

    def run(self) -> Any:
        """All steps, or those that are left."""
        with self.kept or contextlib.nullcontext():
            return self._run()

    def _run(self) -> Any:
        team = Team(self.workers)
        started, message = time.perf_counter(), "all iterations done"
        bar = blocks.progress_bar(self.progress, self.n_steps, " steps")
        bar.update(self.done)
        try:
            if self.done % self.validate_every == 0 and (not self.tried or self.tried[-1][0] != self.done):
                self._validate(team, self.done)
            for step in range(self.done, self.n_steps):
                if self._finished(step):
                    message = f"stopped after {step} steps: no better validation loss in {self.patience} trials"
                    break
                self._step(team, step)
                bar.update(1)
                if self.progress and step % 50 == 0 and hasattr(bar, "set_postfix"):
                    bar.set_postfix(loss=f"{np.mean(self.losses[max(0, step - 49) : step + 1]):.4g}", refresh=False)
        except KeyboardInterrupt:
            message = f"interrupted after {self.done} of {self.n_steps} steps"
            # in the middle of an update there is no state to go on from but the last one written
            if self.whole and self.written != self.done:
                self._write(wait=False)
        finally:
            bar.close()
            team.close()
        success = not message.startswith("interrupted")
        if success and self.written != self.done:
            self._write()
        return self._result(time.perf_counter() - started, success, message)

    def _step(self, team: Team, step: int) -> None:
        self.feed.prepare(step)
        team.run(self.feed.phase)
        team.run(self.learner.phases)
        loss = float(self.learner.losses.mean(dtype=np.float64))
        if not math.isfinite(loss):
            self._give_up(step, loss)
        # the loss was finite with the weights before this step: they are worth keeping, those after are not known yet
        if step % _GOOD == 0:
            self.good = (step, np.array(self.adam.parameters), np.array(self.adam.average))
        if self.kept is not None and step and (self.kept.due() or (self.every and step % self.every == 0)):
            self._write()
        with self._held():
            self.whole = False
            self._update(team, step, loss)
            self.whole = True
        if self.done % self.validate_every == 0:
            self._validate(team, self.done)

    def _update(self, team: Team, step: int, loss: float) -> None:
        """Move the weights: from here on the step is done."""
        self.adam.prepare(step)
        team.run(self.adam.phases)
        self.losses[step] = loss
        self.done = step + 1

    def _give_up(self, step: int, loss: float) -> None:
        at, parameters, average = self.good
        self.adam.parameters[:], self.adam.average[:] = parameters, average
        self.done = step
        message = f"the loss became {loss} at step {step}"
        raise TrainingError(
            f"{message}; lower learning_rate ({self.adam.rate:g}){self.also}, give clip=1.0, or look at the data; "
            f"error.fit has the weights of step {at}",
            self._result(0.0, False, message),
        )

    def _finished(self, step: int) -> bool:
        if self.patience is None or not self.tried:
            return False
        losses = [loss for _, loss in self.tried]
        return len(losses) - 1 - int(np.argmin(losses)) >= self.patience

    def _validate(self, team: Team, step: int) -> None:
        """The loss of the averaged weights on the points held back, with the same noise every time."""
        if self.held is None:
            return
        now = np.array(self.learner.parameters)
        self.learner.parameters[:] = self.adam.average
        count = min(_MAX_VALIDATION_BATCHES, -(-self.held.count // self.learner.n))
        losses = []
        try:
            for k in range(count):
                self.held.prepare(_VALIDATION_STEP + k)
                team.run(self.held.phase)
                team.run(self.learner.phases)
                losses.append(float(self.learner.losses.mean(dtype=np.float64)))
        finally:
            self.learner.parameters[:] = now
        loss = float(np.mean(losses))
        with self._held():
            self.tried.append((step, loss))
            if loss < self.best[0]:
                self.best = (loss, np.array(self.adam.average))

    def average(self) -> np.ndarray:
        """The averaged weights, the best of them where a validation split was kept."""
        return self.best[1] if self.held is not None and math.isfinite(self.best[0]) else self.adam.average

    def _result(self, seconds: float, success: bool, message: str) -> Any:
        return Fit(
            score=self.net.with_parameters(self.average(), head=self.learner.head),
            net=self.net.with_parameters(self.adam.parameters, head=self.learner.head),
            losses=self.losses[: self.done].copy(),
            validation=np.array(self.tried, dtype=np.float64).reshape(-1, 2),
            seed=self.seed,
            seconds=seconds,
            success=success,
            message=message,
        )
