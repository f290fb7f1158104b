r"""Maximum likelihood for energy models, with Langevin chains in the loop.

The gradient of −E_data[log p_θ] = E_data[E_θ] + log Z(θ) needs no Z, but points of the model:

    ∇_θ(E_data[E_θ] + log Z) = E_data[∇_θ E_θ] − E_{p_θ}[∇_θ E_θ]

The second mean is over chains that sample p_θ. **Persistent** chains go on from where they were while θ moves slowly
(Younes 1999; Tieleman 2008): once they keep up, the gradient is that of the likelihood. **Short-run** chains start anew
from noise in each step (Nijkamp et al. 2019): what they learn is a sampler of so many steps, and the energy is not that
of the data. Chains by ``mala`` keep p_θ itself; by the unadjusted algorithm they keep a law that is off by O(dt), which
the energy then makes up for, so that its own p_θ is off the other way.
"""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from .. import bind
from ..core import blas, blocks, checks, identity, stream
from ..core.checkpoint import Checkpoint
from ..integrate import batch
from ..integrate.schemes import SCHEMES
from ..processes.langevin import Langevin
from .base import SPLIT
from .data import Data
from .energy import EnergyMLP
from .feed import Feed
from .fit import _Loop
from .head import Head
from .optimizer import Adam
from .passes import Passes, Phase, each, tiles
from .team import SMALL, Team

SAMPLERS = {"langevin": "unadjusted_langevin", "mala": "mala"}
BEST_RATE = 0.574  # of acceptance (Roberts & Rosenthal 1998)
_LAST, _FAR = 100, 10.0  # a training whose last losses are farther from 0 than that, in units of kT, ran away


@dataclasses.dataclass(frozen=True)
class EnergyFit:
    """A trained energy.

    Attributes
    ----------
    energy : EnergyMLP
        With the moving average of the weights.
    net : EnergyMLP
        The same with the weights of the last step.
    losses : (steps,)
        E_data[E_θ] − E_chains[E_θ] of every batch: what the gradient is taken of. It hovers about 0 once the chains
        have the law of the data, and is no likelihood (``log_partition`` gives that).
    chains : (n_chains, dim)
        Where the chains are.
    acceptance : (steps,)
        Which share of the proposals was accepted; 1 for the unadjusted algorithm.
    step_size
        Of the chains, at the end.
    seed, seconds, success, message
        As in ``Fit``.
    """

    energy: EnergyMLP
    net: EnergyMLP
    losses: np.ndarray
    chains: np.ndarray
    acceptance: np.ndarray
    step_size: float
    seed: int
    seconds: float
    success: bool
    message: str

    @property
    def score(self) -> Any:
        """score(x, t) = −∇E_θ of ``energy``, for whatever takes a score."""
        return self.energy.score

    def __repr__(self) -> str:
        rate = f", {np.mean(self.acceptance[-100:]):.0%} accepted" if len(self.acceptance) else ""
        return f"EnergyFit({len(self.losses)} steps, step_size {self.step_size:.3g}{rate}, {self.message})"


def fit_energy(
    net: EnergyMLP,
    data: Any,
    sampler: str = "mala",
    *,
    chains: str = "persistent",
    n_chains: int | None = None,
    n_steps: int = 10,
    step_size: float | None = None,
    standardize: bool = True,
    n_iterations: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    warm_up: int = 100,
    decay: str = "cosine",
    weight_decay: float = 0.0,
    clip: float | None = None,
    ema: float = 0.999,
    seed: int | None = None,
    workers: int | None = None,
    progress: Any = False,
    checkpoint: Any = None,
) -> EnergyFit:
    r"""Learn the energy of points drawn from p, by maximum likelihood.

    Parameters
    ----------
    net : EnergyMLP
        Where to start; it is not changed.
    data : (n, dim)
        An array or a memory map.
    sampler : "mala" or "langevin"
        How the chains move: with the Metropolis test or without. Both are the schemes of ``simulate``.
    chains : "persistent" or "short_run"
        Persistent ones start in points of the data and go on from step to step; short-run ones start in every step
        from N(m, σ_d²), m and σ_d the centre and the spread of the data.
    n_chains, n_steps : int
        How many chains (as many as ``batch_size`` unless given), and how often they move for each step of Adam.
    step_size : float, optional
        dt of dX = −∇E dt + √2 dW, in the square of the unit of the data. Unless given, 0.01 σ_d² for "langevin"; for
        "mala" it starts at 0.1 σ_d² and is led to the best rate of acceptance, 57 %. Unadjusted chains are unstable
        where dt exceeds 2 over the curvature of E, and training with them can run away (a warning tells); MALA cannot.
    standardize : bool
        Centre the data and divide by their spread inside the energy (y above); its law is that of the data as given.
    n_iterations, batch_size, learning_rate, warm_up, decay, weight_decay, clip, ema
        Of the training (``optimizer.Adam``). The average of the weights has far less noise than the last ones.
    seed, workers, progress, checkpoint
        Results depend on the seed, not on the number of threads. After Ctrl-C, the weights so far; with ``checkpoint``,
        a file, the same call goes on where it was, to the same bits (as in ``fit_score``).

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled: empty, constant or non-finite data, wrong shapes.
    TrainingError
        Where the loss became nan or infinite (chains that left for infinity among the reasons); ``error.fit`` has the
        last good weights.

    Notes
    -----
    The relative weights of modes are learned from chains that go from one to the other. Where they cannot (a barrier
    of many kT), persistent chains started in the data keep the share of the data, and the energy says nothing of it.
    """
    if not isinstance(net, EnergyMLP):
        raise TypeError(f"net must be an EnergyMLP, got {type(net).__name__}")
    points = Data(data, net.dim)
    steps = checks.integer("n_iterations", n_iterations, minimum=1, below=2**31)
    batch_size = checks.integer("batch_size", batch_size, minimum=1)
    n_chains = batch_size if n_chains is None else checks.integer("n_chains", n_chains, minimum=1)
    checks.choice("sampler", sampler, SAMPLERS)
    checks.choice("chains", chains, ("persistent", "short_run"))
    moves = checks.integer("n_steps", n_steps, minimum=1)
    kept = None if checkpoint is None else Checkpoint(checkpoint, "training")
    seed = checks.seed(seed if kept is None else kept.seed(seed))
    workers = blocks.check_executor(None, workers)
    checks.progress(progress)
    head = Head(centre=points.mean, spread=points.spread) if standardize else net.head
    unit = points.spread**2
    first = (0.1 if sampler == "mala" else 0.01) * unit
    dt = first if step_size is None else checks.real("step_size", step_size, above=0.0)
    learner: Any = Likelihood(net.with_parameters(net.parameters, head=head), batch_size, n_chains)
    adam = Adam(
        learner.parameters, learner.gradient, n_steps=steps, rate=learning_rate, warm_up=warm_up, schedule=decay,
        decay=weight_decay, clip=clip, ema=ema,
    )  # fmt: skip
    tuned = step_size is None and sampler == "mala"
    feed = Chains(learner, points, seed, SAMPLERS[sampler], chains == "short_run", moves, dt, tuned)
    small = learner.layout.flops(batch_size + n_chains * (1 + moves)) < SMALL
    loop = _EnergyLoop(
        learner.energy, learner, adam, feed, None, steps, seed, 1 if small else workers, progress, steps, None
    )
    if kept is not None:
        settings = identity.settings(
            net=repr(net), start=net.parameters, data=points.digest(), head=head, sampler=sampler, chains=chains,
            n_chains=n_chains, n_steps=moves, step_size=dt, tuned=tuned, **loop.settings(), seed=seed,
        )  # fmt: skip
        loop.keep(kept, settings)
    with blas.single_threaded():
        result: EnergyFit = loop.run()
    gap = float(np.mean(result.losses[-_LAST:])) if len(result.losses) >= 2 * _LAST else 0.0
    if abs(gap) > _FAR:
        warnings.warn(
            f"E_data − E_chains was {gap:.3g} on average over the last {_LAST} steps, far from 0: the chains do not "
            "follow the energy, which is not that of the data; take a smaller step_size or learning_rate, or "
            "sampler='mala'",
            UserWarning,
            stacklevel=2,
        )
    return result


class Likelihood:
    """E_data[E_θ] − E_chains[E_θ] for n points and m chains, and its gradient: what ``Objective`` is for scores."""

    random_directions = False

    def __init__(self, energy: EnergyMLP, n: int, n_chains: int) -> None:
        self.energy, self.n, self.layout, self.dim = energy, n, energy.layout, energy.dim
        self.head, dtype = energy.head, energy.dtype
        self.parameters = np.array(energy.parameters)
        self.gradient = np.zeros_like(self.parameters)
        total = n + n_chains
        self.passes = Passes(self.layout, energy.activation, self.parameters, self.gradient, total)
        self.points = np.zeros((total, self.dim), dtype)
        self.x, self.chains = self.points[:n], self.points[n:]
        self.tiles = tiles(n)
        self.losses, self.well = np.zeros(total, dtype), np.zeros(total, dtype)
        self.signs = np.repeat(np.array([1.0 / n, -1.0 / n_chains]), [n, n_chains]).astype(dtype)
        self.centre, self.scale = energy.centre.astype(dtype), dtype.type(1.0 / energy.spread)
        p = self.passes
        self.phases: list[Phase] = [
            each(self._enter, p.tiles), *p.forward(), each(self._loss, p.tiles), *p.reverse(), *p.gradient()
        ]  # fmt: skip

    def levels_at(self, t: np.ndarray) -> tuple[np.ndarray, ...]:
        """No noise levels."""
        return ()

    def take_levels(self, levels: tuple[np.ndarray, ...]) -> None:
        """No noise levels."""

    def _enter(self, p0: int, n: int, r0: int) -> None:
        rows = slice(p0, p0 + n)
        y = (self.points[rows] - self.centre) * self.scale
        self.passes.H[0][rows] = y
        self.well[rows] = self.points.dtype.type(0.5 * self.energy.confinement) * (y * y).sum(axis=1)

    def _loss(self, p0: int, n: int, r0: int) -> None:
        """Losses whose mean over all rows is the difference of the two means; the well has no parameters."""
        rows, p = slice(p0, p0 + n), self.passes
        p.D[-1][rows, 0] = self.signs[rows]
        energies = p.O[rows, 0] + p.b[-1] + self.well[rows]
        self.losses[rows] = self.points.dtype.type(len(self.points)) * self.signs[rows] * energies


class Chains(Feed):
    """Chooses the points of a step, and moves the chains by the whole-array engine."""

    learner: Any

    def __init__(
        self, learner: Any, points: Data, seed: int, method: str, short_run: bool, moves: int, dt: float,
        tuned: bool,
    ) -> None:  # fmt: skip
        super().__init__(learner, points, np.arange(0), None, seed, False)
        self.scheme, self.short_run, self.moves, self.dt, self.tuned = SCHEMES[method], short_run, moves, dt, tuned
        self.acceptance: list[float] = []
        self.blocks = blocks.cut(0, len(learner.chains), blocks.LEAF)
        self.counts = [np.zeros((2, block.size), np.int64) for block in self.blocks]
        self.phase = [self.phase[0] + each(self._move, [(k,) for k in range(len(self.blocks))])]
        if not short_run:
            u = stream.uniforms(seed, stream.TRAINING, len(learner.chains), first_path=SPLIT)[:, 0, 0]
            points.gather((u * len(points)).astype(np.intp), learner.chains)

    def prepare(self, step: int) -> None:
        """Choose the points; fix the energy, the start and the step size of the chains."""
        super().prepare(step)
        learner = self.learner
        if self.short_run:
            noise = stream.normals(
                self.seed, stream.INITIAL, len(learner.chains), learner.dim, first_path=step << 32
            )[:, :, 0]  # fmt: skip
            learner.chains[:] = learner.energy.centre + learner.energy.spread * noise
        self.now = learner.energy.with_parameters(learner.parameters)
        self.coefficients = bind.batch_coefficients(Langevin(self.now), self.scheme, learner.chains.dtype, learner.dim)

    def look(self) -> None:
        """After a step: the share of accepted proposals, and the step size that would bring it to the best one."""
        moved = self.moves * len(self.learner.chains)
        rate = sum(int(count[0].sum()) for count in self.counts) / moved if self.scheme.metropolis else 1.0
        self.acceptance.append(rate)
        if self.tuned:
            self.dt *= math.exp(0.2 * (rate - BEST_RATE))

    def _move(self, k: int) -> None:
        """``moves`` steps of a block of chains; the noise of step s of the training is that of the paths from s 2³²."""
        block, counts = self.blocks[k], self.counts[k]
        rows = slice(block.offset, block.offset + block.size)
        counts[:] = 0
        self.learner.chains[rows], _ = batch.run(
            self.scheme, {**self.coefficients, **_together(self.now)}, self.learner.chains[rows],
            first_path=(self.step << 32) + block.first, t0=0.0, dt=self.dt, n_steps=self.moves, seed=self.seed,
            noise_dim=self.learner.dim, general=False, increments=None, records=np.zeros(0, np.int64),
            record=nothing, look=None, freeze=False, counts=counts, stop=np.zeros(1, np.uint8),
        )  # fmt: skip


def _together(energy: EnergyMLP) -> dict[str, Any]:
    """log p and the score by one pass where both are asked for at the same points, as the Metropolis test does.

    They are unchecked: a score that is no number is the loss's to tell.
    """
    known: dict[str, Any] = {}

    def log_density(x: np.ndarray, t: float) -> np.ndarray:
        energies, known["score"] = energy.energy_and_score(x)
        known["x"] = x
        found: np.ndarray = -energies
        return found

    def drift(x: np.ndarray, t: float) -> np.ndarray:
        score: np.ndarray = known.pop("score") if known.pop("x", None) is x else energy.score(x)
        return score

    return {"log_density": log_density, "drift": drift}


def nothing(index: int, states: np.ndarray) -> None:
    pass


class _EnergyLoop(_Loop):
    """The training loop, with chains in its result."""

    net: Any
    learner: Any
    feed: Any
    also = " or step_size"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._remember()

    def _remember(self) -> None:
        """The chains after the last step: those of the learner move on before the next one is done."""
        self.chains = np.array(self.learner.chains)

    def state(self) -> dict[str, np.ndarray]:
        rates = np.array(self.feed.acceptance, dtype=np.float64)
        return {**super().state(), "chains": self.chains, "acceptance": rates, "step_size": np.array([self.feed.dt])}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        super().restore(arrays)
        self.learner.chains[:] = arrays["chains"]
        self.feed.acceptance, self.feed.dt = arrays["acceptance"].tolist(), float(arrays["step_size"][0])
        self._remember()

    def _update(self, team: Team, step: int, loss: float) -> None:
        super()._update(team, step, loss)
        self.feed.look()
        self._remember()

    def _result(self, seconds: float, success: bool, message: str) -> EnergyFit:
        return EnergyFit(
            energy=self.net.with_parameters(self.average(), head=self.learner.head),
            net=self.net.with_parameters(self.adam.parameters, head=self.learner.head),
            losses=self.losses[: self.done].copy(),
            chains=self.chains.copy(),
            acceptance=np.array(self.feed.acceptance[: self.done]),
            step_size=self.feed.dt,
            seed=self.seed,
            seconds=seconds,
            success=success,
            message=message,
        )
