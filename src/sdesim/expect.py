r"""expect: an expectation to a stated tolerance, by multilevel Monte Carlo.

Level l simulates with n_steps · 2ˡ steps. The telescoping sum

    E[P_L] = E[P_0] + Σ_{l=1..L} E[P_l − P_{l−1}],      P_l = f of the final state with the steps of level l,

is estimated term by term from independent paths; within a term the fine and the coarse path follow one Brownian
path, so that the variance V_l of the difference falls with l and few samples are needed where a path is dear. With
C_l steps a sample and N_l ∝ √(V_l / C_l) samples the cost is least; where V_l falls faster than C_l grows (strong
order above ½) it grows as tolerance⁻², as if paths without discretisation error could be drawn (Giles 2008,
"Multilevel Monte Carlo path simulation"; Giles 2015, Acta Numerica 24, algorithm 1).
"""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from . import bind
from .core import blocks, checks, identity
from .core.checkpoint import Checkpoint
from .integrate.schemes import Scheme
from .level_sums import WARM_UP, Sampler, Sums, Tally

MOST = 2**40  # samples of a level: far beyond a day's work
BIAS_SHARE = 0.25  # of the tolerance; levels beyond the first are cheap, samples are not
FEWEST = 512  # samples of a level added later
CARRIERS = 30  # a variance that rests on fewer samples than this is not trusted


@dataclasses.dataclass(frozen=True)
class Level:
    """One term of the sum: its steps, its samples, and what they gave.

    ``mean`` and ``variance`` are those of f(X) on level 0, of the difference to the coarser level elsewhere;
    ``cost`` is the number of steps that one sample takes, all of its paths together.
    """

    n_steps: int
    n_paths: int
    mean: float
    variance: float
    cost: int


@dataclasses.dataclass(frozen=True)
class Expectation:
    """E[f(X_t1)] with its error.

    Attributes
    ----------
    value : the estimate.
    half_width : of its confidence interval, the statistical error alone.
    bias : an estimate of the discretisation error that is left; bias + half_width <= tolerance.
    tolerance, confidence : as asked.
    levels : what was done on each level.
    cost : steps taken in all, over all paths.
    plain_cost : steps that plain Monte Carlo on the finest level would have needed for the same bias and half width.
    method, seed : with them the same value can be had again.
    """

    value: float
    half_width: float
    bias: float
    tolerance: float
    confidence: float
    levels: tuple[Level, ...]
    cost: int
    plain_cost: int
    method: str
    seed: int

    def __str__(self) -> str:
        error = self.bias + self.half_width
        digits = 0 if error == 0.0 else max(0, 1 - math.floor(math.log10(error)))
        parts = f"statistical {self.half_width:.2g}, bias {self.bias:.2g}; tolerance {self.tolerance:g}"
        lines = [
            f"{self.value:.{digits}f} ± {error:.{digits}f} at confidence {self.confidence:g} ({parts})",
            f"{'n_steps':>9}{'n_paths':>12}{'mean':>13}{'variance':>12}{'cost':>8}",
        ]
        lines += [f"{r.n_steps:9d}{r.n_paths:12d}{r.mean:13.4g}{r.variance:12.3g}{r.cost:8d}" for r in self.levels]
        lines.append(f"{self.cost:.3g} steps of {self.method}; plain Monte Carlo would take {self.plain_cost:.3g}")
        return "\n".join(lines)


def expect(
    process: Any,
    f: Callable[[np.ndarray], Any],
    x0: Any,
    t_span: tuple[float, float],
    tolerance: float,
    confidence: float = 0.99,
    *,
    method: str | None = None,
    n_steps: int = 4,
    max_levels: int = 12,
    seed: int | None = None,
    dtype: Any = np.float64,
    executor: Any = None,
    workers: int | None = None,
    progress: Any = False,
    checkpoint: Any = None,
) -> Expectation:
    """E[f(X_t1)] within ``tolerance`` at the stated confidence, by multilevel Monte Carlo (see the module).

    Levels are added, each with twice the steps of the one before, until the estimated bias is within a quarter of the
    tolerance; the samples of each level are chosen from its measured variance, so that the statistical error at the
    stated confidence takes the other three quarters.

    Parameters
    ----------
    process : a process.
    f : a function of the final states of many paths, (n,) or (n, d) as in ``paths.final``, that returns n numbers.
        In theory Lipschitz; a jump (an indicator) is served, but costs more than tolerance⁻². What fewer than one
        path in a thousand shows, the first 4096 samples may miss, and with it the variance.
    x0 : one state, or a target to draw initial states from.
    t_span : (t0, t1).
    tolerance : > 0, absolute.
    confidence : the probability, in (0, 1), that |value − E[f]| <= tolerance.
    method : a scheme that follows a Brownian path. By default one of strong order 1, which makes the cost grow as
        tolerance⁻²: ``euler_maruyama`` for additive noise (and without noise), ``milstein`` for diagonal noise
        (``platen`` where the process has no diffusion_dx), and for general noise ``milstein_commutative`` in antithetic
        pairs: half the samples of f on a fine path and on the one with the members of each pair of increments
        exchanged cancels the Lévy areas, which are neither needed nor drawn (Giles & Szpruch 2014, "Antithetic
        multilevel Monte Carlo estimation for multi-dimensional SDEs without Lévy area simulation").
    n_steps : of level 0, the coarsest. Enough for the scheme to be stable.
    max_levels : levels beyond 0 before a RuntimeError says that the bias will not come down; at least 2.
    seed : an integer in [0, 2⁶⁴), or None for one from the operating system (recorded in the result). The value has
        the same bits for any executor and number of workers.
    dtype : float64 or float32 states; the sums are float64.
    executor, workers, progress : as in ``simulate``; progress counts steps, and its total grows with the plan.
    checkpoint : a file that the sums are written to, every 30 s, on Ctrl-C and SIGTERM, and at the end; with it the
        same call goes on where it was, to the same bits.

    Returns
    -------
    Expectation, which prints as a table of its levels. Ctrl-C raises KeyboardInterrupt: a sum with levels missing is
    no estimate.

    Raises
    ------
    ValueError for a method that follows no Brownian path, and for an f that returns nan or infinity;
    NonFiniteError where paths blow up (``n_steps`` too small for the scheme); RuntimeError where the bias does not
    come down within ``max_levels``, or the samples would be more than 10¹².
    """
    tolerance = checks.real("tolerance", tolerance, above=0.0)
    confidence = checks.real("confidence", confidence, above=0.0)
    if not confidence < 1.0:
        raise ValueError(f"confidence must be < 1, got {confidence:g}; 0.99 leaves one run in a hundred out")
    checks.function("f", f, "f(x) with the final states x (n,) or (n, d)")
    n_steps = checks.integer("n_steps", n_steps, minimum=1, below=2**33)
    max_levels = checks.integer("max_levels", max_levels, minimum=2, below=32)
    if isinstance(process, type):
        name = process.__name__
        raise TypeError(f"process must be a process, and {name} is a class; make one: {name}(...)")
    checks.integer("n_steps · 2^max_levels", n_steps << max_levels, below=2**33)
    scheme = pick_scheme(process, method)
    span, kind, workers = checks.time_span(t_span), checks.dtype(dtype), blocks.check_executor(executor, workers)
    shape = state_shape(process, x0)
    with Checkpoint(checkpoint, "expectation") if checkpoint is not None else contextlib.nullcontext() as kept:
        seed = checks.seed(seed if kept is None else kept.seed(seed))
        sampler = Sampler(
            process, f, x0, shape, span, scheme.name, n_steps, is_antithetic(process, scheme), seed, kind, executor,
            workers,
        )  # fmt: skip
        settings = {
            "process": process, "f": f, "x0": x0, "t_span": span, "tolerance": tolerance, "confidence": confidence,
            "method": scheme.name, "n_steps": n_steps, "max_levels": max_levels, "seed": seed, "dtype": kind.name,
        }  # fmt: skip
        bar = blocks.progress_bar(checks.progress(progress), 0, " steps")
        try:
            sums = Sums(sampler, bar, kept)
            if kept is not None:
                sums.restore(kept.begin(identity.settings(**settings)))
            return _refine(sums, tolerance, confidence, max_levels)
        finally:
            bar.close()


def state_shape(process: Any, x0: Any) -> tuple[int, ...]:
    """The shape of one state."""
    if hasattr(x0, "sample"):
        return () if x0.dim == 1 else (x0.dim,)
    shape = checks.array("x0", x0).shape
    wanted = [shape] if process.dim is None else [(), (1,)] if process.dim == 1 else [(process.dim,)]
    if shape not in wanted:
        raise ValueError(
            f"x0 has shape {shape}, expected one state of shape {' or '.join(map(str, wanted))}, or a target to draw "
            "states from; for an expectation over given states call expect for each"
        )
    return shape


# ---- which scheme ---------------------------------------------------------------------------------------------------


def pick_scheme(process: Any, method: str | None) -> Scheme:
    """The scheme for the levels: one whose fine and coarse steps can follow one Brownian path."""
    if process.batch_only:
        raise ValueError(
            f"expect runs compiled coefficients, and {type(process).__name__} runs in whole-array steps only; average "
            "f over paths.final of simulate"
        )
    if method is None:
        kinds = bind.kinds_of_noise(process)
        if "additive" in kinds or "none" in kinds:
            method = "euler_maruyama"
        elif "diagonal" in kinds and _reads_own_components(process):
            method = "milstein"
        else:
            method = "milstein_commutative"
    scheme = bind.pick_scheme(process, method)
    areas = scheme.fan is not None and scheme.fan.iterated == "levy"
    reasons = {
        "draws each path from bits, so that no two of its paths follow one Brownian path": scheme.law_only,
        "chooses its own steps": scheme.adaptive,
        "accepts or rejects its steps at random": scheme.counts,
        "has no discretisation error to refine: simulate with n_steps=1 and average": scheme.name == "exact",
        "takes more of the Brownian path than its increments, which a coarse step sums": scheme.space_time or areas,
        "takes no noise": scheme.noise == ("none",),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(
                f"expect cannot couple levels with method={scheme.name!r}, which {reason}; leave method out, or use "
                "'euler_maruyama', 'milstein' or 'milstein_commutative'"
            )
    return scheme


def _reads_own_components(process: Any) -> bool:
    """Whether Milstein's scheme for diagonal noise serves: each σ_j reads x_j alone."""
    try:
        bind.pick_scheme(process, "milstein")
    except ValueError:
        return False
    return True


def is_antithetic(process: Any, scheme: Scheme) -> bool:
    """Whether the levels need antithetic pairs: a truncated Milstein step of more than one Wiener process."""
    return scheme.fan is not None and (process.noise != "general" or bind.noise_dim(process, process.dim) > 1)


# ---- levels ---------------------------------------------------------------------------------------------------------


def _refine(sums: Sums, tolerance: float, confidence: float, max_levels: int) -> Expectation:
    """Sample, estimate, add levels, until bias and statistical error are within their shares."""
    quantile = statistics.NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    target = (1.0 - BIAS_SHARE) * tolerance / quantile  # standard error of the sum
    sampler = sums.sampler
    while True:
        sums.carry_out()
        differences, fine = sums.differences, sums.fine
        costs = [sampler.cost(level) for level in range(len(differences))]
        variances = guarded(differences)
        wanted = allocation(variances, costs, target)
        if max(wanted) > MOST:
            level = int(np.argmax(wanted))
            raise RuntimeError(
                f"tolerance {tolerance:g} would take more than {MOST:.0e} samples of {sampler.n_steps << level} steps, "
                f"because the variance on level {level} is {variances[level]:.2g}; take a larger tolerance, or, where "
                f"so coarse a step is unstable, more steps on the coarsest level (n_steps is {sampler.n_steps})"
            )
        short = [level for level, n in enumerate(wanted) if n > differences[level].n]
        if short:
            sums.plan = [(level, math.ceil(1.01 * wanted[level])) for level in short]  # so that this comes to an end
            continue
        bias = remaining_bias(differences)
        if bias <= BIAS_SHARE * tolerance:
            break
        if len(differences) > max_levels:
            raise RuntimeError(
                f"with {sampler.n_steps << max_levels} steps the bias is still about {bias:.2g}, more than "
                f"{BIAS_SHARE:g} of the tolerance {tolerance:g}; take a larger tolerance, n_steps (of level 0, now "
                f"{sampler.n_steps}) or max_levels (now {max_levels})"
            )
        predicted = variances[-1] * min(0.5, variances[-1] / variances[-2] if variances[-2] > 0.0 else 0.5)
        costs.append(sampler.cost(len(differences)))
        n = max(FEWEST, allocation([*variances, predicted], costs, target)[-1])
        sums.plan = [(len(differences), n)]
    sums.finish()
    error = math.sqrt(sum(v / d.n for v, d in zip(variances, differences, strict=True)))
    finest = sampler.n_steps << (len(differences) - 1)
    # of f itself: a level with many samples tells it best, and the last such level is the nearest to the finest
    plain = next(tally.variance for tally in reversed(fine) if tally.n >= WARM_UP[0])
    return Expectation(
        value=math.fsum(d.mean for d in differences),
        half_width=quantile * error,
        bias=bias,
        tolerance=tolerance,
        confidence=confidence,
        levels=tuple(
            Level(sampler.n_steps << level, d.n, d.mean, d.variance, cost)
            for level, (d, cost) in enumerate(zip(differences, costs, strict=True))
        ),
        cost=sum(d.n * cost for d, cost in zip(differences, costs, strict=True)),
        plain_cost=math.ceil(plain / error**2) * finest if error > 0.0 else finest,
        method=sampler.method,
        seed=sampler.seed,
    )


def guarded(differences: list[Tally]) -> list[float]:
    """The variances, with floors under what few samples may have missed.

    At strong order 1 they fall by 4 a level: none is taken to be less than an eighth of the one before. An f with a
    jump is the same on most pairs of paths, and where it differs, it differs by the whole jump: a variance that rests
    on fewer than ``CARRIERS`` samples is taken to be at least V_0 / n, as if one more sample were that far out.
    """
    variances = [tally.variance for tally in differences]
    for level in range(1, len(variances)):
        if differences[level].carriers < CARRIERS:
            variances[level] = max(variances[level], variances[0] / differences[level].n)
        if level > 1:
            variances[level] = max(variances[level], variances[level - 1] / 8.0)
    return variances


def allocation(variances: list[float], costs: list[int], target: float) -> list[int]:
    """Samples N_l ∝ √(V_l / C_l) that reach the standard error ``target`` at the least cost Σ N_l C_l."""
    total = sum(math.sqrt(v * c) for v, c in zip(variances, costs, strict=True))
    wanted = [total * math.sqrt(v / c) / target**2 for v, c in zip(variances, costs, strict=True)]
    return [math.ceil(n) if n <= MOST else 2 * MOST for n in wanted]


def remaining_bias(differences: list[Tally]) -> float:
    """|E[P − P_L]| from the last differences, which at weak order 1 halve from level to level and so sum to the last.

    The largest of three estimates is taken (of L, and of L − 1 and L − 2 carried forward), since one of them may be
    near 0 by chance.
    """
    last = [abs(tally.mean) for tally in differences[1:]][::-1][:3]
    return max(mean * 0.5**behind for behind, mean in enumerate(last))
