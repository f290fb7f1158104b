"""``sample(device="cuda")``: what a device is given, and what is not for it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import blocks, checks
from ..cuda.program import Program
from ..errors import NonFiniteError
from ..score import activations
from ..score.network import ScoreMLP
from . import stages
from .rows import Advance, Rows

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
BATCH = 4096


def settings(device: str, precision: Any, batch: Any) -> tuple[str, int]:
    """The precision of products and the rows of a batch, checked; they belong to the device."""
    checks.choice("device", device, ("cpu", "cuda"))
    if device == "cpu":
        for name, value in (("precision", precision), ("batch", batch)):
            if value is not None:
                raise ValueError(f"{name} belongs to device='cuda', and device is 'cpu'")
    chosen = checks.choice("precision", "fp32" if precision is None else precision, PRECISIONS)
    return chosen, checks.integer("batch", BATCH if batch is None else batch, minimum=1)


def check(score: Any, dtype: np.dtype, **asked: Any) -> None:
    """Raise where a run is not one for the device, or where there is none; ``asked`` are arguments it cannot take."""
    if not isinstance(score, ScoreMLP):
        raise TypeError(
            f"device='cuda' runs a ScoreMLP, got {type(score).__name__}; other scores are Python functions: use "
            "device='cpu'"
        )
    if np.float64 in (dtype, score.dtype):
        raise ValueError(
            "device='cuda' computes in float32, and the score or dtype is float64; give net.astype(np.float32) and "
            "dtype=np.float32, or use device='cpu'"
        )
    for name, value in asked.items():
        if value is not None:
            raise ValueError(f"device='cuda' does not take {name}; leave it out, or use device='cpu'")
    from ..cuda import backend

    backend.require()


def described(plan: Any, advance_of: Callable[[Rows], Advance]) -> tuple[Any, Program]:
    """The network and the sampler of a plan (``samplers``) as arrays and tables."""
    from ..cuda.network import Network

    net = plan.score
    program = stages.program(plan.noised, net.head, advance_of, plan.times, plan.denoise, np.float32)
    levels = program.levels
    network = Network(
        weights=[net.weights[0][: net.dim], *net.weights[1:]],
        biases=net.biases[1:],
        first=net.first_biases(levels.reshape(-1)).reshape(*levels.shape, -1),
        centre=np.array(np.broadcast_to(net.head.centre, (net.dim,)), np.float32),
        phi=activations.scalar(net.activation, np.dtype(np.float32)),
    )
    return network, program


def draw(
    plan: Any, n: int, first_path: int, advance_of: Callable[[Rows], Advance], *, precision: str, batch: int,
    progress: Any,
) -> np.ndarray:  # fmt: skip
    """n samples of a plan (``samplers``) by a network on the device, ``batch`` rows at a time."""
    from ..cuda import network

    given, program = described(plan, advance_of)
    out = np.empty((n, plan.dim), np.float32)
    bar = blocks.progress_bar(progress, n * program.n_steps, " steps")
    try:
        done, bad = network.sample(
            given, program, out, first_path=first_path, seed=plan.seed, precision=precision, batch=batch,
            tick=bar.update,
        )  # fmt: skip
    finally:
        bar.close()
    if bad >= 0:
        cure = "" if precision in ("fp32", "tf32") else ", or precision='fp32', which has more room for large numbers"
        raise NonFiniteError(
            f"samples became non-finite at t = {program.times[bad]:g}; take more steps (n_steps), or a finer grid "
            f"where the noise is strong{cure}"
        )
    if done == 0:
        raise KeyboardInterrupt
    if done < n:
        warnings.warn(f"interrupted: {done} of {n} samples are returned", RuntimeWarning, stacklevel=3)
    return out[:done]
