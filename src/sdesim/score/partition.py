r"""log Z of an unnormalised density, by annealed importance sampling (Neal 2001, "Annealed importance sampling").

From a normalised Gaussian q to p̃ = Z p by way of f_β = q^{1−β} p̃^β, 0 = β₀ < β₁ < … < β_L = 1: every chain starts in
q, collects

    log w = Σⱼ (βⱼ₊₁ − βⱼ) (log p̃(xⱼ) − log q(xⱼ))

and moves at each level by Metropolis-adjusted Langevin steps, which keep f_β. However few the levels, E[w] = Z exactly;
with more of them the weights scatter less. Chains are independent, so that their scatter tells the error of their mean.
"""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from .. import bind
from ..core import blas, blocks, checks
from ..integrate import batch
from ..integrate.schemes import SCHEMES
from ..processes.langevin import Langevin
from ..targets.base import Target
from ..targets.gaussian import Gaussian
from .energy_fit import BEST_RATE, nothing

_PILOT = 1 << 62  # the first path of the noise of the pilot run
_FEW = 30.0


@dataclasses.dataclass(frozen=True)
class LogPartition:
    """An estimate of log Z; ``float()`` of it is the value.

    Attributes
    ----------
    value : float
        log of the mean weight. The mean weight is unbiased for Z; its logarithm is low by about ½ standard_error².
    standard_error : float
        Of the value, by the jackknife over the independent chains. It knows what the chains have seen: a mode of p that
        none of them found is in neither number, which is why the reference must be wider than p.
    effective_sample_size : float
        (Σw)²/Σw²: how many equal weights would scatter as these do.
    log_weights : (n_chains,)
    acceptance : (n_levels,)
        The share of accepted proposals at each level, the first excepted.
    seed, success, message
        ``success`` is False after Ctrl-C: the estimate is then that of the chains that were finished.
    """

    value: float
    standard_error: float
    effective_sample_size: float
    log_weights: np.ndarray
    acceptance: np.ndarray
    seed: int
    success: bool
    message: str

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"LogPartition({self.value:.5f} ± {self.standard_error:.2g}, effective_sample_size "
            f"{self.effective_sample_size:.0f} of {len(self.log_weights)})"
        )


def log_partition(
    target: Any,
    *,
    n_chains: int = 1024,
    n_levels: int = 100,
    n_steps: int = 2,
    step_size: float | None = None,
    reference: Gaussian | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Any = False,
) -> LogPartition:
    r"""log Z = log ∫ e^{log_density(x)} dx, by annealed importance sampling.

    With it an energy model has a likelihood in nats: −E[log p_θ] = E[E_θ] + log Z(θ), which is what
    ``energy.normalized(log_z).log_density`` gives.

    Parameters
    ----------
    target : EnergyMLP, a target, or any object with ``log_density(x)`` and ``score(x)``
        Of points (n, dim).
    n_chains, n_levels, n_steps : int
        Independent chains; the levels between the reference and the target; Metropolis-adjusted Langevin steps at each.
    step_size : float, optional
        dt of these steps. Unless given, a pilot run of its own noise finds for every level the one that accepts 57 %.
    reference : Gaussian, optional
        q, to be wider than the target. Unless given, it has the mean and the covariance of the target where these are
        known, and N(m, σ_d²) of the data for an energy.
    seed, workers, progress
        The result depends on the seed, not on the number of threads.

    Raises
    ------
    TypeError, ValueError
        Where the target has no log_density and score, or no reference is known.
    RuntimeError
        Where the weights are not finite: the target's log density is nan or +inf somewhere.
    """
    for name in ("log_density", "score"):
        checks.function(f"target.{name}", getattr(target, name, None), f"{name}(x)")
    start = _reference(target, reference)
    n = checks.integer("n_chains", n_chains, minimum=2)
    levels = checks.integer("n_levels", n_levels, minimum=1, below=2**30)
    moves = checks.integer("n_steps", n_steps, minimum=1)
    seed = checks.seed(seed)
    workers = blocks.check_executor(None, workers)
    checks.progress(progress)
    anneal = _Annealing(target, start, levels, moves, seed)
    with blas.single_threaded(), np.errstate(over="ignore", invalid="ignore"):
        if step_size is None:
            anneal.pilot()
        else:
            anneal.steps[:] = checks.real("step_size", step_size, above=0.0)
        plan = blocks.cut(0, n, blocks.LEAF)
        parts, complete = blocks.run(
            anneal.run, plan, (), workers=workers, stop=anneal.stop, progress=progress, unit=" chains"
        )
    if not parts:
        raise KeyboardInterrupt
    log_w = np.concatenate([part[0] for part in parts])
    if not ((log_w < math.inf).all() and log_w.max() > -math.inf):  # -inf is a weight of 0; nan and +inf are none
        raise RuntimeError(
            "the weights are no numbers: target.log_density returned nan, +inf, or -inf wherever the chains went"
        )
    accepted = np.sum([part[1] for part in parts], axis=0)
    value, error, size = _estimate(log_w)
    if size < _FEW:
        warnings.warn(
            f"the weights are those of {size:.1f} of {len(log_w)} chains in effect, too few for an error bar to be "
            "trusted; take more n_levels or n_steps, or a reference nearer to the target",
            UserWarning,
            stacklevel=2,
        )
    message = "all chains done" if complete else f"interrupted: {len(log_w)} of {n} chains done"
    return LogPartition(value, error, size, log_w, accepted / (moves * len(log_w)), seed, complete, message)


def _estimate(log_w: np.ndarray) -> tuple[float, float, float]:
    """log of the mean weight, its jackknife error and the effective sample size."""
    n, top = len(log_w), float(log_w.max())
    w = np.exp(log_w - top)
    total = w.sum()
    with np.errstate(divide="ignore"):
        without = np.log(np.maximum(total - w, 0.0) / (n - 1))
    spread = without - without.mean() if np.isfinite(without).all() else np.full(n, math.inf)
    error = math.sqrt((n - 1) / n * float(np.square(spread).sum()))
    return top + math.log(total / n), error, float(total**2 / np.square(w).sum())


def _reference(target: Any, reference: Any) -> Gaussian:
    dim = getattr(target, "dim", None)
    if reference is not None:
        if not isinstance(reference, Gaussian):
            raise TypeError(f"reference must be a targets.Gaussian, got {type(reference).__name__}")
        if isinstance(dim, int) and dim != reference.dim:
            raise ValueError(f"reference has dim {reference.dim}, the target {dim}")
        return reference
    if hasattr(target, "spread") and hasattr(target, "centre"):
        mean, cov = target.centre, target.spread**2 * np.eye(target.dim)
    elif hasattr(target, "mean") and hasattr(target, "cov"):
        mean, cov = target.mean, target.cov
    else:
        raise ValueError(
            f"{type(target).__name__} has no mean and cov; give reference=targets.Gaussian(mean, cov), wider than it"
        )
    return Gaussian(np.reshape(mean, -1)[0], np.reshape(cov, -1)[0]) if dim == 1 else Gaussian(mean, cov)


class _Between(Target):
    """f_β = q^{1−β} p̃^β at points (n, d)."""

    def __init__(self, target: Any, start: Gaussian, beta: float) -> None:
        self.target, self.start, self.beta, self.dim = target, start, beta, start.dim

    def log_density(self, x: Any) -> Any:
        return self.start.log_density(x) + self.beta * self.gain(x)

    def gain(self, x: Any) -> Any:
        """log p̃ − log q, (n,)."""
        of_target = np.asarray(self.target.log_density(x), dtype=np.float64).reshape(np.shape(x)[:1])
        return of_target - self.start.log_density(x)

    def score(self, x: Any, t: Any = None) -> Any:
        of_target = np.asarray(self.target.score(_points(x)), dtype=np.float64).reshape(np.shape(x))
        return (1.0 - self.beta) * self.start.score(x) + self.beta * of_target


class _Annealing:
    """The levels, the step size at each, and blocks of chains that go through them."""

    def __init__(self, target: Any, start: Gaussian, n_levels: int, moves: int, seed: int) -> None:
        self.target, self.start, self.moves, self.seed = target, start, moves, seed
        self.betas = np.linspace(0.0, 1.0, n_levels + 1)
        # a Gaussian of variance v in d dimensions accepts 57 % at about 2.7 v/d^{1/3} (Roberts & Rosenthal 1998)
        narrowest = float(np.linalg.eigvalsh(np.reshape(start.cov, (start.dim, start.dim)))[0])
        self.steps = np.full(n_levels + 1, narrowest / start.dim ** (1 / 3))
        self.stop = np.zeros(1, np.uint8)

    def pilot(self) -> None:
        """Choose the step sizes: one block of chains with noise of its own, whose weights are thrown away."""
        self.run(blocks.Block(_PILOT, blocks.LEAF, 0), tune=True)

    def run(self, block: blocks.Block, tune: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The log weights of a block of chains and the accepted proposals at each level."""
        n, d = block.size, self.start.dim
        x = self.start.sample(n, self.seed, first_path=block.first).reshape(n, d)
        log_w, accepted = np.zeros(n), np.zeros(len(self.betas) - 1)
        for level in range(1, len(self.betas)):
            between = _Between(self.target, self.start, float(self.betas[level]))
            log_w += (self.betas[level] - self.betas[level - 1]) * between.gain(_points(x))
            if self.stop[0]:
                break
            x, accepted[level - 1] = self._move(between, x, level, block.first)
            if tune and level + 1 < len(self.betas):
                rate = accepted[level - 1] / (self.moves * n)
                self.steps[level + 1] = self.steps[level] * math.exp(rate - BEST_RATE)
        return log_w, accepted

    def _move(self, between: _Between, x: np.ndarray, level: int, first: int) -> tuple[np.ndarray, float]:
        """The transitions at a level, of which the noise is that of the paths from level 2³² on."""
        scheme, counts = SCHEMES["mala"], np.zeros((2, len(x)), np.int64)
        moved, _ = batch.run(
            scheme, bind.batch_coefficients(Langevin(between), scheme, x.dtype, x.shape[1]), x,
            first_path=(level << 32) + first, t0=0.0, dt=float(self.steps[level]), n_steps=self.moves, seed=self.seed,
            noise_dim=x.shape[1], general=False, increments=None, records=np.zeros(0, np.int64), record=nothing,
            look=None, freeze=False, counts=counts, stop=np.zeros(1, np.uint8),
        )  # fmt: skip
        return moved, float(counts[0].sum())


def _points(x: np.ndarray) -> np.ndarray:
    """Rows (n, d) as targets take them: (n,) for dim 1."""
    return x[:, 0] if x.shape[1] == 1 else x
