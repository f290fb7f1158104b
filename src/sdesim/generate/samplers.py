r"""``sample``: new points from a score, by any of the samplers of score-based generative models.

reverse_sde           the reverse SDE with a scheme of the library (``reverse_sde``)
predictor_corrector   the same with Langevin corrections between the steps
annealed_langevin     Langevin dynamics at falling noise levels
ancestral             draws from q(x_t′ | x_t, x₀ = D) with D the denoised mean (``denoised``)
dpm_solver            DPM-Solver++ 2M, or its stochastic form
edm_heun              Heun's method of Karras et al., with churn
probability_flow      the ODE with fixed or adaptive steps (``flow``)
"""

import contextlib
import dataclasses
import functools
import itertools
import threading
import warnings
from typing import Any

import numpy as np

from ..core import blas, blocks, checks, identity
from ..core.checkpoint import Checkpoint
from ..core.kept_rows import KeptRows
from . import conditional, denoised, flow, grids, reverse_sde
from . import device as gpu
from .guided import Guidance, GuidedScore, check_labels
from .linear import Noised
from .rows import Rows, Stopped

# method: the grid that "auto" stands for, the default scheme
METHODS = {
    "reverse_sde": ("uniform", "euler_maruyama"),
    "probability_flow": ("edm", "heun"),
    "predictor_corrector": ("uniform", "euler_maruyama"),
    "annealed_langevin": ("edm", None),
    "edm_heun": ("edm", None),
    "dpm_solver": ("log_snr", "2m"),
    "ancestral": ("log_snr", None),
}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A run as every block needs it."""

    method: str
    noised: Noised
    score: Any
    guidance: Guidance
    labels: np.ndarray | None
    known: tuple[np.ndarray, np.ndarray] | None
    n_resample: int
    times: np.ndarray
    scheme: Any
    denoise: bool
    rtol: float | None
    corrector: tuple[float, int, float | None]
    churn: denoised.Churn
    dim: int
    dtype: np.dtype
    seed: int
    stop: np.ndarray
    tick: Any


def sample(
    process: Any,
    score: Any,
    n: int,
    *,
    method: str = "reverse_sde",
    n_steps: int | None = None,
    scheme: str | None = None,
    grid: Any = "auto",
    t_end: float | None = None,
    denoise: bool = True,
    rtol: float | None = None,
    snr: float = 0.16,
    n_corrector: int = 1,
    step_size: float | None = None,
    churn: Any = 0.0,
    seed: int | None = None,
    labels: Any = None,
    guidance: Any = None,
    observed: Any = None,
    mask: Any = None,
    n_resample: int = 1,
    dim: int | None = None,
    horizon: float | None = None,
    dtype: Any = None,
    device: str = "cpu",
    precision: str | None = None,
    batch: int | None = None,
    first_path: int = 0,
    executor: Any = None,
    workers: int | None = None,
    progress: Any = False,
    checkpoint: Any = None,
) -> np.ndarray:
    r"""Draw n points from the law whose noised scores are ``score``.

    Parameters
    ----------
    process : VariancePreserving, VarianceExploding, SubVariancePreserving, EDM, Cosine, or any linear process
        What the score's noise levels belong to.
    score : callable
        ``score(x, t)``, ∇ log p_t, with x of shape (n, d) and t a number or (n,), returning (n, d): exact
        (``marginal_score``) or learned. A network with classes takes ``labels=`` as well, None for no class.
    n : int
    method : str
        "reverse_sde", "probability_flow", "predictor_corrector", "annealed_langevin", "edm_heun", "dpm_solver" or
        "ancestral".
    n_steps : int
        Steps from the horizon to ``t_end``; each costs one evaluation of the score ("edm_heun" and two-stage schemes
        two, "predictor_corrector" 1 + n_corrector, "annealed_langevin" n_corrector).
    scheme : str
        Of "reverse_sde" and of the predictor: "euler_maruyama", "heun", "sra" or another scheme of the library; of
        "probability_flow": "heun", "midpoint", "rk4"; of "dpm_solver": "2m" or "sde_2m".
    grid : "auto", "uniform", "log_snr", "edm", or decreasing times
        Where the steps lie (``grids``).
    t_end : float
        Where to stop, the process's ``t_min`` unless given.
    denoise : bool
        Return the mean E[X₀ | X_{t_end}] (Tweedie) in place of X_{t_end}, at one more evaluation of the score.
    rtol : float
        For "probability_flow": adaptive steps (Dormand & Prince) with this relative and absolute tolerance.
    snr, n_corrector, step_size, churn
        Of the corrector (r, steps), of annealed Langevin (c; chosen by itself unless given), and of "edm_heun"
        (S_churn, or the four of (S_churn, S_min, S_max, S_noise)).
    seed : int
        One seed gives the same samples for any number of threads, and sample i does not depend on n: with
        ``first_path`` a run can be split, at multiples of 256 to the same bits.
    labels : int or (n,)
        Classes; ``guidance`` may then be a weight w: s_null + (1 + w) (s_label − s_null).
    guidance : number, callable, LinearMeasurement, or several of them
        A function (x, t) -> ∇ₓ log p(wanted | x) is added to the score; a ``LinearMeasurement`` makes A x = y.
    observed, mask : (d,) or (n, d)
        Inpainting: where ``mask`` is True the samples are ``observed``, exactly; ``n_resample`` > 1 takes every step
        that often, which lets the rest agree with it (RePaint).
    dim : int
        d, where the score has no attribute ``dim``.
    dtype : float32 or float64
        Of the samples, and of the arithmetic outside the score; the score's own (its ``dtype``) unless given.
    device : "cpu" or "cuda"
        On an NVIDIA GPU: a float32 ``ScoreMLP``, every method with fixed steps, without labels, guidance or masks. One
        seed gives the same noise as on the CPU, bit for bit, and the same samples up to the rounding of the products.
    precision : "fp32", "tf32", "fp16" or "bf16"
        Of the network on the device: how its weights and activations are kept and multiplied. Sums, noise and states
        are float32 in all of them.
    batch : int
        Rows that are on the device at once, 4096 unless given.
    executor, workers
        Anything with ``submit`` (threads by default) and how many. The samples have the same bits for any of them.
        Processes are sent the score, the guidance and all that belongs to them, which must be picklable: library
        scores, networks, and functions at the top level of an importable module.
    checkpoint : path
        A file that finished samples are written to, 256 at a time: every 30 s, on Ctrl-C and SIGTERM, and at the end.
        With it the same call goes on where it was, to the same bits.

    Returns
    -------
    (n, d) array
        On Ctrl-C the samples that were finished, with a warning.

    Raises
    ------
    ValueError, TypeError
        Before anything runs: unknown names, wrong shapes, classes the network does not have, times outside the
        horizon. While it runs: a score that returns nan, with the time and the row.
    NonFiniteError
        Where samples diverge.
    DeviceError, MemoryLimitError
        Where there is no device that can be used, or not enough memory on it.

    References
    ----------
    Song et al. (2021); Song & Ermon (2019, 2020); Ho et al. (2020); Karras et al. (2022); Lu et al. (2022).
    """
    precision, batch = gpu.settings(device, precision, batch)
    n = checks.integer("n", n, minimum=1)
    noised = Noised(process, horizon)
    checks.function("score", score, "score(x, t) with x of shape (n, d)")
    d = _dim(score, dim)
    auto, usual = METHODS[checks.choice("method", method, METHODS)]
    kind = checks.dtype(dtype if dtype is not None else getattr(score, "dtype", np.float64))
    first_path = checks.integer("first_path", first_path, minimum=0)
    if device == "cuda":
        gpu.check(
            score, kind, rtol=rtol, labels=labels, guidance=guidance, observed=observed, mask=mask, executor=executor
        )
    n_workers = blocks.check_executor(executor, workers)
    checks.progress(progress)
    if rtol is not None:
        if method != "probability_flow":
            raise ValueError(f"rtol belongs to method='probability_flow', {method} takes n_steps")
        if n_steps is not None or scheme is not None:
            raise ValueError("rtol chooses its own steps; leave out n_steps and scheme")
        rtol, n_steps = checks.real("rtol", rtol, above=0.0), 1
    if usual is None and scheme is not None:
        raise ValueError(f"method={method!r} takes no scheme, got {scheme!r}")
    times = grids.times(noised, n_steps, grid, t_end, auto)
    if noised.variance(float(times[-1])) == 0.0 and method == "annealed_langevin":
        raise ValueError("annealed_langevin needs t_end > 0: at t = 0 its steps have no length")
    corrector = reverse_sde.options(method, snr, n_corrector, step_size)
    if method == "annealed_langevin" and corrector[2] is None:
        ratios = np.array([noised.ratio(t) for t in times.tolist()])
        corrector = (*corrector[:2], reverse_sde.default_step(ratios))
    wanted = Guidance(guidance, labels)
    if rtol is not None and (wanted.measurements or mask is not None):
        raise ValueError("measurements and masks need fixed steps; give n_steps instead of rtol")
    for measurement in wanted.measurements:
        measurement.check(d, n)
    file = None if checkpoint is None else Checkpoint(checkpoint, "sampling")
    seed = checks.seed(seed if file is None else file.seed(seed))
    plan = _Plan(
        method=method, noised=noised, score=score, guidance=wanted, labels=check_labels(score, labels, n),
        known=conditional.known(observed, mask, n, d, kind),
        n_resample=conditional.check_resample(n_resample, mask, method), times=times,
        scheme=_scheme(method, usual if scheme is None else scheme), denoise=bool(denoise), rtol=rtol,
        corrector=corrector, churn=denoised.churn_of(churn, method), dim=d, dtype=kind, seed=seed,
        stop=np.zeros(1, np.int64), tick=_uncounted,
    )  # fmt: skip
    if device == "cuda":
        if file is not None:
            raise ValueError("checkpoint= keeps samples that are drawn on the CPU; leave it out with device='cuda'")
        return gpu.draw(
            plan, n, first_path, lambda rows: _advance(rows, plan), precision=precision, batch=batch, progress=progress
        )
    settings = None
    if file is not None:
        settings = identity.settings(
            process=process, horizon=horizon, score=score, n=n, method=method, scheme=scheme or usual,
            times=times, denoise=plan.denoise, rtol=rtol, corrector=corrector, churn=plan.churn, labels=plan.labels,
            guidance=guidance, known=plan.known, n_resample=plan.n_resample, dim=d, dtype=kind.name,
            first_path=first_path, seed=seed,
        )  # fmt: skip
    with file or contextlib.nullcontext():
        kept = None if file is None or settings is None else KeptRows(file, settings, (d,), kind)
        return _run(plan, n, first_path, executor, n_workers, progress, kept)


def _dim(score: Any, dim: Any) -> int:
    known = getattr(score, "dim", None)
    if dim is None and not isinstance(known, int):
        raise ValueError("the score has no attribute dim; give dim=, the number of components of a sample")
    d = checks.integer("dim", known if dim is None else dim, minimum=1)
    if isinstance(known, int) and d != known:
        raise ValueError(f"dim must be {known}, the dimension of the score, got {d}")
    return d


def _scheme(method: str, name: str | None) -> Any:
    if method in ("reverse_sde", "predictor_corrector"):
        return reverse_sde.scheme_of(str(name))
    if method == "probability_flow":
        return checks.choice("scheme", name, flow.FIXED)
    if method == "dpm_solver":
        return checks.choice("scheme", name, denoised.SCHEMES)
    return None


def _uncounted(rows: int) -> None:
    """Steps of which nobody hears."""


def _run(
    plan: _Plan, n: int, first_path: int, executor: Any, workers: int, progress: Any, kept: KeptRows | None
) -> np.ndarray:
    """All blocks. Threads of our own fill one array and count every step; a lent executor sends its samples back."""
    n_steps = len(plan.times) - 1
    bar = blocks.progress_bar(progress, n * n_steps, " steps")
    work = blocks.cut(first_path, n, blocks.LEAF)
    lock, counted = threading.Lock(), 0

    def tick(rows: int) -> None:
        with lock:
            bar.update(rows)

    def arrived(done: int, _: int) -> None:
        nonlocal counted
        bar.update((done - counted) * n_steps)
        counted = done

    storage = None
    if executor is None:
        storage, plan = np.empty((n, plan.dim), plan.dtype), dataclasses.replace(plan, tick=tick)
    found = {} if kept is None else kept.begin(work, storage)
    try:
        if executor is None:
            bar.update(sum(work[number].size for number in found) * n_steps)
        done, whole = blocks.run(
            _block, work, (plan, storage), executor=executor, workers=workers, stop=plan.stop,
            progress=False if executor is None else arrived, found=found,
            keep=None if kept is None else functools.partial(kept.keep, plan.stop),
        )  # fmt: skip
    finally:
        bar.close()
    if kept is not None and whole:
        kept.finish(done)
    done = list(itertools.takewhile(lambda part: part is not None, done))
    n_done = sum(block.size for block in work[: len(done)])
    if n_done == 0:
        raise KeyboardInterrupt
    if not whole:
        warnings.warn(f"interrupted: {n_done} of {n} samples are returned", RuntimeWarning, stacklevel=3)
    return np.concatenate(done) if storage is None else storage[:n_done]


def _block(block: blocks.Block, plan: _Plan, storage: np.ndarray | None) -> np.ndarray | None:
    """All steps of one block: its samples, written into ``storage`` or sent back; None where it was stopped."""
    here = slice(block.offset, block.offset + block.size)
    labels = None if plan.labels is None else plan.labels[here]
    guidance = plan.guidance.for_rows(here)
    score = GuidedScore(plan.noised, plan.score, guidance, labels, range(here.start, here.stop))
    known = None if plan.known is None else (plan.known[0][here], plan.known[1][here])
    rows = Rows(
        plan.noised, score, (block.size, plan.dim), plan.dtype, block.first, plan.seed, known=known,
        n_resample=plan.n_resample, stop=plan.stop, tick=plan.tick,
    )  # fmt: skip
    try:
        with blas.single_threaded():
            found = draw(rows, plan)
    except Stopped:
        return None
    if storage is None:
        return found
    storage[here] = found
    return storage[here]


def draw(rows: Rows, plan: Any) -> np.ndarray:
    """From the prior to the samples."""
    times = plan.times
    start, end = float(times[0]), float(times[-1])
    x = rows.keep(rows.start(start), start, rows.count(times))
    if plan.rtol is not None:
        field = flow.velocity(rows)
        x = flow.adaptive(field, x.astype(np.float64), start, end, plan.rtol, plan.rtol, plan.stop)
        rows.tick(rows.shape[0])
        x = x.astype(rows.dtype)
    else:
        x = rows.run(_advance(rows, plan), x, times)
    if plan.denoise and end > 0.0:
        x = rows.denoised(x, end)
    return rows.keep(x, 0.0, 0)


def _advance(rows: Rows, plan: Any) -> Any:
    snr, n_corrector, step_size = plan.corrector
    if plan.method == "reverse_sde":
        return reverse_sde.advance(rows, plan.scheme)
    if plan.method == "predictor_corrector":
        return reverse_sde.corrected(rows, plan.scheme, snr, n_corrector)
    if plan.method == "annealed_langevin":
        return reverse_sde.annealed(rows, step_size, n_corrector)
    if plan.method == "edm_heun":
        return denoised.edm_heun(rows, plan.churn, plan.times)
    if plan.method == "dpm_solver":
        return denoised.multistep(rows, plan.scheme)
    if plan.method == "ancestral":
        return denoised.multistep(rows, "sde_2m", second_order=False)
    move = flow.step(flow.velocity(rows), plan.scheme, rows.shape, rows.dtype)
    return lambda x, k, t, later: move(x, t, later)
