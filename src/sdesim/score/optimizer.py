"""Adam with warm-up, decay, clipping and a moving average of the weights, in fixed pieces."""

import math
from typing import Any

import numpy as np

from ..core import checks
from . import kernels
from .passes import Phase, each

PIECE = 2**18
DECAYS = ("cosine", "linear", "one_cycle", "none")


class Adam:
    r"""Steps of Adam (Kingma & Ba 2015) on a vector, cut into pieces that do not depend on the number of threads.

    The rate rises linearly over ``warm_up`` steps, then falls to 0 along half a cosine ("cosine"), stays until half
    of the steps and falls linearly ("linear"), falls linearly at once ("one_cycle", after Smith & Topin 2019), or stays
    ("none"). ``clip`` bounds the norm of the gradient, ``decay``
    pulls the weights to 0 apart from the gradient (Loshchilov & Hutter 2019). ``average`` follows the weights with
    the factor min(ema, (1 + k)/(10 + k)) after k steps.
    """

    def __init__(
        self, parameters: np.ndarray, gradient: np.ndarray, *, n_steps: int, rate: float = 1e-3, warm_up: int = 100,
        schedule: str = "cosine", decay: float = 0.0, clip: float | None = None, ema: float = 0.999,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:  # fmt: skip
        self.n_steps, self.warm_up = n_steps, checks.integer("warm_up", warm_up, minimum=0)
        self.rate = checks.real("learning_rate", rate, above=0.0)
        self.schedule = checks.choice("decay", schedule, DECAYS)
        self.decay = checks.real("weight_decay", decay, minimum=0.0)
        self.clip = None if clip is None else checks.real("clip", clip, above=0.0)
        self.ema, self.betas = checks.real("ema", ema, minimum=0.0), betas
        if not self.ema < 1.0:
            raise ValueError(f"ema must be < 1, got {ema}")
        self.parameters, self.gradient = parameters, gradient
        self.first, self.second = np.zeros_like(parameters), np.zeros_like(parameters)
        self.average = parameters.copy()
        self.numbers = np.zeros(9, parameters.dtype)
        self.squares = np.zeros(-(-parameters.size // PIECE))
        spans = [(lo, min(lo + PIECE, parameters.size)) for lo in range(0, parameters.size, PIECE)]
        self.phases: list[Phase] = [each(self._move, spans)]
        if self.clip is not None:
            self.phases.insert(0, each(self._square, [(k, *span) for k, span in enumerate(spans)]))
            self.phases.insert(1, [self._bound])

    def rate_at(self, step: int) -> float:
        """The rate of step 0, 1, …"""
        rise = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        done = step / self.n_steps
        fall = 1.0
        if self.schedule == "cosine":
            fall = 0.5 * (1.0 + math.cos(math.pi * done))
        elif self.schedule == "linear":
            fall = min(1.0, 2.0 * (1.0 - done))
        elif self.schedule == "one_cycle":
            fall = min(1.0, (self.n_steps - step) / max(1, self.n_steps - self.warm_up))
        return self.rate * rise * fall

    def prepare(self, step: int) -> None:
        """The numbers of step 0, 1, … before its phases are run."""
        rate, k = self.rate_at(step), step + 1
        keep = min(self.ema, (1.0 + k) / (10.0 + k))
        beta1, beta2 = self.betas
        self.numbers[:] = (
            rate, beta1, beta2, 1.0 / (1.0 - beta1**k), 1.0 / (1.0 - beta2**k), 1e-8, rate * self.decay,
            1.0 - keep, 1.0,
        )  # fmt: skip

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on."""
        return {
            "parameters": self.parameters, "first": self.first, "second": self.second, "average": self.average
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        for name, array in self.state().items():
            array[:] = state[name]

    def _square(self, k: int, lo: int, hi: int) -> None:
        self.squares[k] = kernels.square_sum(self.gradient, lo, hi)

    def _bound(self) -> None:
        norm = math.sqrt(float(self.squares.sum()))
        assert self.clip is not None
        self.numbers[8] = min(1.0, self.clip / norm) if norm > 0.0 else 1.0

    def _move(self, lo: int, hi: int) -> None:
        kernels.adam(self.parameters, self.gradient, self.first, self.second, self.average, self.numbers, lo, hi)
