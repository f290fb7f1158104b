"""Path-steps per second and core: sdesim, a C yardstick and the other tools of the field, on six jobs.

    python benchmarks/throughput.py             all jobs, float32 and float64, a few minutes
    python benchmarks/throughput.py --quick     a short run: 30 s without the optional peers, once compiled
    python benchmarks/throughput.py --json -    JSON on stdout, the table on stderr

The jobs take 1000 steps of dt = 0.01 with about 100,000 paths:

    J1  Ornstein-Uhlenbeck, θ = 0.5, σ = 0.7, from 1; Euler-Maruyama
    J2  double well, U = (x² − 1)², temperature ½, from 1; Euler-Maruyama
    J3  geometric Brownian motion, μ = 0.05, σ = 0.2, from 1; Milstein
    J4  Langevin diffusion in a mixture of 8 Gaussians, variance 0.25, on a circle of radius 4; from 0;
        Euler-Maruyama; one count is one step of one path in two dimensions (2 normals, 8 exponentials)
    J5  J1 with 10,000 paths and every state returned
    J6  J1 where only the law is wanted: weak order 1 with two-point increments (sdesim), beside C's Gaussian J1

How a figure is taken. Each contender and dtype runs in a process of its own, with one thread, and reports the
CPU seconds of that process (user and system, all threads), so a figure is a rate per core. The first run
compiles and is not counted; after it the contenders take turns, and the best run of each is kept. CPU time
forgives other work on the machine, but not a shared cache or a changing clock: **compare figures of one run
only, and ratios before figures.** In J5 a run that is not counted goes before each that is, because the first to ask
for much memory after others have used it pays for putting it in order. Slow contenders run fewer paths (the table
PATHS).

What is compared. Every contender draws a fresh normal for every path and step. After each run the mean and
variance of the end state are compared with the exact ones of the same chain of steps (no bias of the scheme
enters); a figure more than 5 standard errors off is marked with '!' and means nothing. The contenders differ
in what they promise: sdesim, C, JAX and diffrax draw from counter-based generators, NumPy, Numba, torch and
torchsde from sequential ones. In J5 each returns the states in the layout it likes best.

    C         yardstick.c, compiled when a compiler is found: Philox4x32-10 and Box-Muller, with AVX-512 or in
              plain loops; J4 is 0.23 times its J1 in float32, the ratio of a vectorised C mixture
    NumPy     in place, in blocks of 10,000 paths, which stay in the cache; Generator.standard_normal(out=)
    Numba     one compiled loop over paths and steps, a NumPy Generator handed in (its ziggurat)
    torch     eager, in place, in blocks of 50,000 paths
    JAX       jit of one scan over the steps, all paths at once
    torchsde  sdeint, diagonal noise, all paths in one batch, BrownianInterval told the step
    diffrax   one solve of all paths, UnsafeBrownianPath (J3: vmap over paths)
"""

import argparse
import concurrent.futures
import functools
import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

DT, N_STEPS = 0.01, 1000
THETA, SIGMA = 0.5, 0.7  # J1, J5
MU, VOLATILITY = 0.05, 0.2  # J3
RADIUS, VARIANCE, N_MODES = 4.0, 0.25, 8  # J4
ROOT = math.sqrt(DT)
ANGLES = 2 * math.pi * np.arange(N_MODES) / N_MODES
MODES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)

JOBS = {
    "J1": "Ornstein-Uhlenbeck",
    "J2": "double well",
    "J3": "geometric, Milstein",
    "J4": "Langevin, mixture 2-D",
    "J5": "J1, every state",
    "J6": "J1, law only (bits)",
}
CONTENDERS = ("sdesim", "C", "NumPy", "Numba", "torch", "JAX", "torchsde", "diffrax")
MODULES = {"Numba": "numba", "torch": "torch", "JAX": "jax", "torchsde": "torchsde", "diffrax": "diffrax"}
YARDSTICK = {"J1": "ou", "J2": "double_well", "J3": "gbm", "J4": "ou", "J5": "ou_saved", "J6": "ou"}
C_MIXTURE = 0.23
LAW_ONLY = ("sdesim", "C")  # who runs J6

# Paths of a full run: 100,000 (J5: 10,000), or what a slow contender does in a second or two.
PATHS = {
    ("NumPy", "J4"): 20_000, ("Numba", "J4"): 10_000, ("torch", "J4"): 20_000, ("JAX", "J4"): 10_000,
    ("torchsde", "J4"): 5_000, ("diffrax", "J4"): 5_000, ("diffrax", "J3"): 10_000,
}  # fmt: skip

# A short run divides the paths; not where a call or a step has a cost of its own, which many paths hide.
QUICK = {"NumPy": 10, "Numba": 10, "sdesim": 2, "C": 2}

# Paths that a contender advances together: NumPy's fit the cache, torch's hide the cost of its calls.
BLOCK = {"NumPy": 10_000, "torch": 50_000}

Run = Callable[[int, int], np.ndarray]  # (n_paths, seed) -> end states, (n_paths,) or (n_paths, 2)


# ---- the exact laws ----------------------------------------------------------------------------------------


@functools.cache
def exact_law(job: str) -> tuple[float, float]:
    """Mean and variance of the end state of the chain of steps itself (J4: of either component)."""
    if job in ("J1", "J5", "J6"):
        a = 1 - THETA * DT
        return a**N_STEPS, SIGMA**2 * DT * (1 - a ** (2 * N_STEPS)) / (1 - a**2)
    if job == "J2":
        # the density of the chain by quadrature; the trapezium rule is exact to rounding for such a kernel
        x = np.linspace(-3.5, 3.5, 401)
        spacing = x[1] - x[0]
        move = x - 4 * DT * x * (x * x - 1)
        kernel = np.exp(-((x[:, None] - move) ** 2) / (2 * DT)) * spacing / math.sqrt(2 * math.pi * DT)
        p = np.exp(-((x - 1) ** 2) / (2 * DT)) / math.sqrt(2 * math.pi * DT)
        for _ in range(N_STEPS - 1):
            p = kernel @ p
        mean = float(spacing * (p @ x))
        return mean, float(spacing * (p @ x**2)) - mean**2
    if job == "J3":
        growth = 1 + MU * DT
        second = growth**2 + VOLATILITY**2 * DT + VOLATILITY**4 * DT**2 / 2
        return growth**N_STEPS, second**N_STEPS - growth ** (2 * N_STEPS)
    # E|X|²/2 by the backward equation of the chain on a grid (spacings 0.06 and 0.04 agree to 5·10⁻⁷)
    return 0.0, 8.25431


def follows_law(job: str, x: np.ndarray) -> bool:
    """Whether mean and variance of the end states lie within 5 standard errors of the exact ones."""
    mean, variance = exact_law(job)
    for component in np.asarray(x, dtype=np.float64).reshape(len(x), -1).T:
        d = component - mean
        sample = float(np.mean(d**2))
        error = math.sqrt(max(float(np.mean(d**4)) - sample**2, 0.0) / len(d))
        if not (abs(np.mean(d)) < 5 * math.sqrt(variance / len(d)) and abs(sample - variance) < 5 * error):
            return False
    return True


# ---- the contenders: each takes a job and a dtype and returns a function that runs it ----------------------


def prepare_sdesim(job: str, dtype: Any) -> Run:
    import sdesim as sde

    x0: Any = 1.0
    method = "euler_maruyama"
    if job in ("J1", "J5", "J6"):
        process: Any = sde.OrnsteinUhlenbeck(theta=THETA, mu=0.0, sigma=SIGMA)
        method = "weak_euler" if job == "J6" else method
    elif job == "J2":
        process = sde.DoubleWell(barrier=1.0, temperature=0.5)
    elif job == "J3":
        process, method = sde.GeometricBrownian(mu=MU, sigma=VOLATILITY), "milstein"
    else:
        weights, covs = np.full(N_MODES, 1 / N_MODES), np.broadcast_to(VARIANCE * np.eye(2), (N_MODES, 2, 2))
        process, x0 = sde.Langevin(sde.targets.GaussianMixture(weights, MODES, covs)), (0.0, 0.0)

    def run(n_paths: int, seed: int) -> np.ndarray:
        paths = sde.simulate(
            process, x0, (0.0, N_STEPS * DT), n_steps=N_STEPS, n_paths=n_paths, method=method, dtype=dtype,
            seed=seed, workers=1, save="all" if job == "J5" else "final",
        )  # fmt: skip
        return paths.x[:, -1] if job == "J5" else paths.final

    return run


def prepare_numpy(job: str, dtype: Any) -> Run:
    # Scalars of the dtype, so that float32 arrays stay float32.
    h, root, volatility = dtype(DT), dtype(ROOT), dtype(VOLATILITY)

    def step(x: np.ndarray, z: np.ndarray, u: np.ndarray) -> None:
        """One step in place; u is scratch."""
        if job in ("J1", "J5"):
            x *= dtype(1 - THETA * DT)
            z *= dtype(SIGMA * ROOT)
            x += z
        elif job == "J2":
            np.multiply(x, x, out=u)
            u *= -4 * h
            u += 1 + 4 * h
            x *= u
            z *= root
            x += z
        else:
            np.multiply(z, volatility**2 * h / 2, out=u)
            u += volatility * root
            u *= z
            u += dtype(1 + MU * DT - VOLATILITY**2 * DT / 2)
            x *= u

    def step_mixture(x: np.ndarray, z: np.ndarray, exponent: np.ndarray) -> None:
        # x (2, n); −|x − m|²/2v is m·x/v up to a factor common to all modes, for modes on one circle
        np.matmul(modes_over_v, x, out=exponent)
        exponent -= exponent.max(axis=0)
        np.maximum(exponent, -80, out=exponent)  # subnormal exponentials would take many times longer
        np.exp(exponent, out=exponent)
        pull = modes_over_v.T @ exponent
        pull /= exponent.sum(axis=0)
        pull *= h
        x *= dtype(1 - DT / VARIANCE)
        x += pull
        z *= dtype(math.sqrt(2 * DT))
        x += z

    modes_over_v = (MODES / VARIANCE).astype(dtype)
    block = BLOCK["NumPy"]

    def run(n_paths: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if job == "J5":
            saved = np.empty((N_STEPS + 1, n_paths), dtype)
            saved[0] = 1
        shape = (2, n_paths) if job == "J4" else (n_paths,)
        final = np.full(shape, 0 if job == "J4" else 1, dtype)
        for start in range(0, n_paths, block):
            x = final[..., start : start + block].copy()
            z = np.empty_like(x)
            scratch = np.empty((N_MODES, x.shape[-1]) if job == "J4" else x.shape, dtype)
            for k in range(N_STEPS):
                rng.standard_normal(out=z, dtype=dtype)
                (step_mixture if job == "J4" else step)(x, z, scratch)
                if job == "J5":
                    saved[k + 1, start : start + block] = x
            final[..., start : start + block] = x
        return final.T if job == "J4" else final

    return run


def prepare_numba(job: str, dtype: Any) -> Run:
    import numba

    # A Generator hands out single float32 normals only as arrays, so both dtypes draw a path's normals at a time.
    modes, one, half = MODES.astype(dtype), dtype(1), dtype(0.5)
    h, root, theta, sigma = dtype(DT), dtype(ROOT), dtype(THETA), dtype(SIGMA)
    mu, volatility, four, pull = dtype(MU), dtype(VOLATILITY), dtype(4), dtype(DT / VARIANCE)
    steepness, spread, zero = dtype(-0.5 / VARIANCE), dtype(math.sqrt(2 * DT)), dtype(0)

    @numba.njit
    def line(rng: Any, x: np.ndarray, saved: np.ndarray) -> None:
        for i in range(x.shape[0]):
            y = x[i]
            normals = rng.standard_normal(N_STEPS, dtype)
            for k in range(N_STEPS):
                z = normals[k]
                if job == "J2":
                    y += -four * y * (y * y - one) * h + root * z
                elif job == "J3":
                    y += y * (mu * h + volatility * root * z + half * volatility * volatility * h * (z * z - one))
                else:
                    y += -theta * y * h + sigma * root * z
                if job == "J5":
                    saved[i, k + 1] = y
            x[i] = y

    @numba.njit
    def mixture(rng: Any, x: np.ndarray) -> None:
        for i in range(x.shape[0]):
            a, b = x[i, 0], x[i, 1]
            normals = rng.standard_normal(2 * N_STEPS, dtype)
            for k in range(N_STEPS):
                total = pull_a = pull_b = zero
                for j in range(N_MODES):
                    da, db = modes[j, 0] - a, modes[j, 1] - b
                    w = math.exp(steepness * (da * da + db * db))
                    total += w
                    pull_a += w * da
                    pull_b += w * db
                a += pull_a / total * pull + spread * normals[2 * k]
                b += pull_b / total * pull + spread * normals[2 * k + 1]
            x[i, 0], x[i, 1] = a, b

    def run(n_paths: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if job == "J4":
            points = np.zeros((n_paths, 2), dtype)
            mixture(rng, points)
            return points
        x = np.ones(n_paths, dtype)
        line(rng, x, np.empty((n_paths, N_STEPS + 1) if job == "J5" else (0, 0), dtype))
        return x

    return run


def prepare_torch(job: str, dtype: Any) -> Run:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the exponentials of far modes
    block = BLOCK["torch"]
    kind = torch.float32 if dtype is np.float32 else torch.float64
    modes_over_v = torch.tensor(MODES / VARIANCE, dtype=kind)

    def step(x: Any, z: Any) -> Any:
        if job in ("J1", "J5"):
            return x.mul_(1 - THETA * DT).add_(z, alpha=SIGMA * ROOT)
        if job == "J2":
            return x.mul_(torch.square(x).mul_(-4 * DT).add_(1 + 4 * DT)).add_(z, alpha=ROOT)
        if job == "J3":
            factor = z.mul(VOLATILITY**2 * DT / 2).add_(VOLATILITY * ROOT).mul_(z)
            return x.mul_(factor.add_(1 + MU * DT - VOLATILITY**2 * DT / 2))
        pull = modes_over_v.T @ torch.softmax(modes_over_v @ x, dim=0)
        return x.mul_(1 - DT / VARIANCE).add_(pull, alpha=DT).add_(z, alpha=math.sqrt(2 * DT))

    @torch.no_grad()
    def run(n_paths: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        saved = torch.empty((N_STEPS + 1, n_paths), dtype=kind) if job == "J5" else None
        final = torch.zeros((2, n_paths), dtype=kind) if job == "J4" else torch.ones(n_paths, dtype=kind)
        for start in range(0, n_paths, block):
            x = final[..., start : start + block].clone()
            z = torch.empty_like(x)
            if saved is not None:
                saved[0, start : start + block] = x
            for k in range(N_STEPS):
                step(x, z.normal_())
                if saved is not None:
                    saved[k + 1, start : start + block] = x
            final[..., start : start + block] = x
        return (final.T if job == "J4" else final).numpy()

    return run


def prepare_jax(job: str, dtype: Any) -> Run:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype is np.float64)
    modes = jnp.asarray(MODES, dtype)

    def step(x: Any, key: Any) -> Any:
        z = jax.random.normal(key, x.shape, dtype)
        if job == "J2":
            x = x - 4 * x * (x * x - 1) * DT + ROOT * z
        elif job == "J3":
            x = x + x * (MU * DT + VOLATILITY * ROOT * z + 0.5 * VOLATILITY**2 * DT * (z * z - 1))
        elif job == "J4":
            weights = jax.nn.softmax(modes @ x / VARIANCE, axis=0)
            x = x + (modes.T @ weights - x) / VARIANCE * DT + math.sqrt(2 * DT) * z
        else:
            x = x - THETA * x * DT + SIGMA * ROOT * z
        return x, (x if job == "J5" else None)

    @jax.jit
    def solve(key: Any, x: Any) -> Any:
        return jax.lax.scan(step, x, jax.random.split(key, N_STEPS))

    def run(n_paths: int, seed: int) -> np.ndarray:
        x = jnp.zeros((2, n_paths), dtype) if job == "J4" else jnp.ones(n_paths, dtype)
        x, saved = jax.block_until_ready(solve(jax.random.key(seed), x))
        return np.asarray(saved[-1] if job == "J5" else x.T)

    return run


def prepare_torchsde(job: str, dtype: Any) -> Run:
    import torch
    import torchsde

    torch.set_num_threads(1)
    kind = torch.float32 if dtype is np.float32 else torch.float64
    modes = torch.tensor(MODES, dtype=kind)

    class Problem(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, y: Any) -> Any:
            if job == "J2":
                return -4 * y * (y * y - 1)
            if job == "J3":
                return MU * y
            if job == "J4":
                return (torch.softmax(y @ modes.T / VARIANCE, dim=-1) @ modes - y) / VARIANCE
            return -THETA * y

        def g(self, t: Any, y: Any) -> Any:
            if job == "J3":
                return VOLATILITY * y
            return torch.full_like(y, {"J2": 1.0, "J4": math.sqrt(2.0)}.get(job, SIGMA))

    method = "milstein" if job == "J3" else "euler"
    times = torch.linspace(0, N_STEPS * DT, N_STEPS + 1 if job == "J5" else 2, dtype=kind)

    @torch.no_grad()
    def run(n_paths: int, seed: int) -> np.ndarray:
        y0 = torch.zeros((n_paths, 2), dtype=kind) if job == "J4" else torch.ones((n_paths, 1), dtype=kind)
        # told the step, the interval builds its tree in advance and is four times faster than the default one
        noise = torchsde.BrownianInterval(
            t0=times[0], t1=times[-1], size=y0.shape, dtype=kind, entropy=seed, dt=DT, pool_size=24
        )
        end = torchsde.sdeint(Problem(), y0, times, bm=noise, dt=DT, method=method)[-1].numpy()
        return end if job == "J4" else end[:, 0]

    return run


def prepare_diffrax(job: str, dtype: Any) -> Run:
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    jax.config.update("jax_enable_x64", dtype is np.float64)
    modes = jnp.asarray(MODES, dtype)

    def drift(t: Any, y: Any, args: Any) -> Any:
        if job == "J2":
            return -4 * y * (y * y - 1)
        if job == "J3":
            return MU * y
        if job == "J4":
            x = y.reshape(2, -1)
            return ((modes.T @ jax.nn.softmax(modes @ x / VARIANCE, axis=0) - x) / VARIANCE).reshape(-1)
        return -THETA * y

    def diffusion(t: Any, y: Any, args: Any) -> Any:
        if job == "J3":
            return VOLATILITY * y  # one path a solve, one Wiener process
        sigma = {"J2": 1.0, "J4": math.sqrt(2.0)}.get(job, SIGMA)
        return lineax.DiagonalLinearOperator(jnp.full_like(y, sigma))

    def solve(key: Any, y0: Any) -> Any:
        noise = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(y0.shape, dtype), key)
        return diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise)),
            diffrax.ItoMilstein() if job == "J3" else diffrax.Euler(),
            t0=0.0, t1=N_STEPS * DT, dt0=DT, y0=y0, max_steps=N_STEPS + 10, adjoint=diffrax.ForwardMode(),
            saveat=diffrax.SaveAt(t0=True, steps=True) if job == "J5" else diffrax.SaveAt(t1=True),
        )  # fmt: skip

    compiled = jax.jit(jax.vmap(solve) if job == "J3" else solve)

    def run(n_paths: int, seed: int) -> np.ndarray:
        key = jax.random.key(seed)
        if job == "J3":
            return np.asarray(compiled(jax.random.split(key, n_paths), jnp.ones(n_paths, dtype)).ys)[:, -1]
        y0 = jnp.zeros(2 * n_paths, dtype) if job == "J4" else jnp.ones(n_paths, dtype)
        solution = jax.block_until_ready(compiled(key, y0))
        if job == "J5":
            return np.asarray(solution.ys[solution.stats["num_accepted_steps"]])
        end = np.asarray(solution.ys[-1])
        return end.reshape(2, -1).T if job == "J4" else end

    return run


PREPARE: dict[str, Callable[[str, Any], Run]] = {
    "sdesim": prepare_sdesim, "NumPy": prepare_numpy, "Numba": prepare_numba, "torch": prepare_torch,
    "JAX": prepare_jax, "torchsde": prepare_torchsde, "diffrax": prepare_diffrax,
}  # fmt: skip


# ---- measuring ---------------------------------------------------------------------------------------------

# Set for the processes of the contenders: one thread, no accelerator.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    "NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


@functools.cache
def prepared(contender: str, job: str, dtype: str) -> Run:
    return PREPARE[contender](job, getattr(np, dtype))


def timed_run(contender: str, job: str, dtype: str, n_paths: int, seed: int) -> tuple[float, bool]:
    """CPU seconds of one run in this process, and whether the end states follow the exact law."""
    run = prepared(contender, job, dtype)
    if job == "J5":
        run(n_paths, seed + 1000)  # or whoever comes first pays for the state in which others left the memory
    start = time.process_time()
    final = run(n_paths, seed)
    seconds = time.process_time() - start
    if len(final) != n_paths or not np.isfinite(final).all():
        raise RuntimeError(f"{len(final)} end states, finite: {bool(np.isfinite(final).all())}")
    return seconds, follows_law(job, final)


def end_with_parent() -> None:
    """Let a contender's process not outlive a benchmark that was killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Entry:
    """The figures of one contender in one job and dtype."""

    def __init__(self, contender: str, job: str, dtype: str, n_paths: int):
        self.contender, self.job, self.dtype, self.n_paths = contender, job, dtype, n_paths
        self.rate, self.law, self.failed = 0.0, True, ""

    def take(self, rate: float, law: bool) -> None:
        self.rate, self.law = max(self.rate, rate), self.law and law


class Workers:
    """One process for each contender and dtype, so that none sees another's threads, flags or crash."""

    def __init__(self, timeout: float):
        self.timeout = timeout
        self.context = multiprocessing.get_context("spawn")
        self.pools: dict[tuple[str, str], concurrent.futures.ProcessPoolExecutor] = {}

    def run(self, entry: Entry, seed: int) -> tuple[float, bool]:
        key = entry.contender, entry.dtype
        if key not in self.pools:
            self.pools[key] = concurrent.futures.ProcessPoolExecutor(
                1, mp_context=self.context, initializer=end_with_parent
            )
        what = entry.contender, entry.job, entry.dtype, entry.n_paths
        future = self.pools[key].submit(timed_run, *what, seed)
        try:
            return future.result(timeout=self.timeout)
        except (concurrent.futures.BrokenExecutor, TimeoutError):
            self.stop(*key)
            raise

    def stop(self, *key: str) -> None:
        pool = self.pools.pop(key)  # type: ignore[arg-type]
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        for key in list(self.pools):
            self.stop(*key)


def compile_yardstick(folder: str) -> pathlib.Path | str:
    """The compiled yardstick, or the reason why there is none."""
    compiler = next((found for name in ("gcc", "clang", "cc") if (found := shutil.which(name))), None)
    if compiler is None:
        return "no C compiler found"
    source, program = pathlib.Path(__file__).with_name("yardstick.c"), pathlib.Path(folder, "yardstick")
    for flags in (["-march=native", "-mprefer-vector-width=512"], ["-march=native"], []):
        command = [compiler, "-O3", "-ffast-math", *flags, str(source), "-o", str(program), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return program
    return "compiler: " + (done.stderr.strip().splitlines() or ["failed"])[0]


def yardstick_run(program: pathlib.Path | str, entry: Entry) -> tuple[float, bool]:
    """Rate and checks of the yardstick in the entry's job."""
    # The mixture has a float32 figure only: the ratio was measured on it.
    kind = "f32" if entry.job == "J4" or entry.dtype == "float32" else "f64"
    rate = f"{YARDSTICK[entry.job]}_{kind}"
    paths = entry.n_paths * (10 if entry.job == "J5" else 1)  # it saves a tenth of the paths asked for
    done = subprocess.run([str(program), "1", str(paths), rate], capture_output=True, text=True, timeout=600)
    figures = json.loads(done.stdout)
    return figures[rate] * (C_MIXTURE if entry.job == "J4" else 1.0), done.returncode == 0


def measure(jobs: list[str], contenders: list[str], quick: bool, repeats: int, log: Any) -> dict[str, Any]:
    entries: list[Entry] = []
    for job in jobs:
        for dtype in ("float32", "float64"):
            for contender in contenders:
                if contender in MODULES and importlib.util.find_spec(MODULES[contender]) is None:
                    continue
                if job == "J6" and contender not in LAW_ONLY:
                    continue
                if contender == "C" and dtype == "float64" and job == "J4":
                    continue
                n_paths = PATHS.get((contender, job), 10_000 if job == "J5" else 100_000)
                if quick:
                    n_paths //= QUICK.get(contender, 1)
                entries.append(Entry(contender, job, dtype, n_paths))
    os.environ.update(ENVIRONMENT)
    workers = Workers(timeout=600)
    with tempfile.TemporaryDirectory() as folder:
        program = compile_yardstick(folder) if "C" in contenders else "not asked for"
        try:
            for entry in entries:  # compile; nothing is counted
                if entry.contender != "C":
                    attempt(entry, lambda e: (0.0, workers.run(e, seed=1)[1]), log)
                elif isinstance(program, str):
                    entry.failed = program
            for repeat in range(repeats):
                for entry in entries:
                    if entry.contender == "C":
                        attempt(entry, functools.partial(yardstick_run, program), log)
                    else:
                        attempt(entry, functools.partial(rate_of, workers, 2 + repeat), log)
        finally:
            workers.close()
    return {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "numpy": np.__version__, "repeats": repeats, "quick": quick, "n_steps": N_STEPS, "dt": DT,
        "unit": "million path-steps per CPU second", "results": [vars(entry) for entry in entries],
    }  # fmt: skip


def rate_of(workers: Workers, seed: int, entry: Entry) -> tuple[float, bool]:
    seconds, law = workers.run(entry, seed)
    return entry.n_paths * N_STEPS / seconds / 1e6, law


def attempt(entry: Entry, figure: Callable[[Entry], tuple[float, bool]], log: Any) -> None:
    """Take one figure; whatever a contender does wrong is noted, and it is not asked again."""
    if entry.failed:
        return
    try:
        entry.take(*figure(entry))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        entry.failed = f"{type(error).__name__}: {first[:120]}"
        print(f"{entry.contender} {entry.job} {entry.dtype} failed: {entry.failed}", file=log, flush=True)


def print_table(report: dict[str, Any], out: Any) -> None:
    found = {(r["job"], r["dtype"], r["contender"]): r for r in report["results"]}
    names = [c for c in CONTENDERS if any(key[2] == c for key in found)]
    rows = list(dict.fromkeys(key[:2] for key in found))

    def table(title: str, columns: list[str], cell: Callable[[str, str, str], str]) -> None:
        print(f"\n{title}\n{'':<36}" + "".join(f"{name:>11}" for name in columns), file=out)
        for job, dtype in rows:
            cells = "".join(f"{cell(job, dtype, name):>11}" for name in columns)
            print(f"{job + ' ' + JOBS[job]:<26}{dtype:<10}{cells}", file=out)

    def rate(job: str, dtype: str, name: str) -> str:
        r = found.get((job, dtype, name))
        if r is None or r["failed"]:
            return "" if r is None else "failed"
        return f"{r['rate']:.3g}" + ("" if r["law"] else "!")

    def ratio(job: str, dtype: str, name: str) -> str:
        ours, theirs = (found.get((job, dtype, who)) for who in ("sdesim", name))
        if not (ours and theirs) or ours["failed"] or theirs["failed"]:
            return ""
        return f"{ours['rate'] / theirs['rate']:.2f}" + ("" if ours["law"] and theirs["law"] else "!")

    print(f"{report['repeats']} repeats, {report['machine']}, Python {report['python']}", file=out)
    table("Million path-steps per CPU second (one core)", names, rate)
    if "sdesim" in names:
        table("sdesim / contender", [name for name in names if name != "sdesim"], ratio)
    if any(not r["law"] for r in found.values()):
        print("\n! mean or variance of the end states is off by more than 5 standard errors", file=out)
    for r in found.values():
        if r["failed"]:
            print(f"{r['contender']} {r['job']} {r['dtype']} failed: {r['failed']}", file=out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Path-steps per second and core of sdesim and others.")
    parser.add_argument("--quick", action="store_true", help="fewer paths, 2 repeats")
    parser.add_argument("--repeats", type=int, help="runs of each, the best is kept (default 5, quick 2)")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", metavar="PATH", help="write the figures ('-': stdout, the table to stderr)")
    options = parser.parse_args()
    out = sys.stderr if options.json == "-" else sys.stdout
    repeats = options.repeats or (2 if options.quick else 5)
    report = measure(options.jobs, options.contenders, options.quick, repeats, sys.stderr)
    print_table(report, out)
    if options.json == "-":
        print(json.dumps(report, indent=1))
    elif options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
