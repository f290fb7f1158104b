"""A sampler as a table of numbers: what a device needs to know of a process, a network's head and a method.

Between two evaluations of a network every sampler moves its samples by sums of arrays: of the state x at the start of
a step, of the network's outputs F₁, F₂, … in this step, of normals z₁, z₂, …, and of a fixed row m (the centre of the
data) and 1. A step with S evaluations is therefore 1 + S rows of coefficients, and the whole run is a table that is
uploaded once; the device needs no formula of any method.
"""

import dataclasses

import numpy as np

# columns of a row of coefficients: x, what is kept, m, 1, then F₁ …, then z₁ …
STATE, KEPT, CENTRE, ONE, FIRST = range(5)


@dataclasses.dataclass(frozen=True)
class Program:
    r"""Steps of a sampler, each up to S evaluations of a network and up to R normals long.

    Attributes
    ----------
    counts : (steps,)
        How many evaluations each step takes.
    points : (steps, 1 + S, 4 + S + R) float32
        Row s gives the point after s evaluations, y = x + Σ coefficients: where the network is evaluated next, and for
        the last one the next state. The column of x holds its coefficient less 1: small steps keep their digits.
    kept : (steps, 4 + S) float32, or None
        What a step keeps for the next one, a sum of x and its outputs (multistep methods).
    inputs : (steps, 1 + S, 3) float32
        (C, α, β) of the evaluation that follows a point: the network sees C (y − α m − β).
    levels : (steps, S) float64
        The noise levels c that the features show.
    draws : (steps, R, 3) int64
        (purpose, block, lane) of every normal in the random stream.
    times : (steps,)
        The time of the state after each step, for messages.
    entry : bool
        Whether steps begin with a move of their own before the first evaluation. Otherwise the first point is x itself,
        and the last move of a step can write the network's input for the next one.
    """

    counts: np.ndarray
    points: np.ndarray
    kept: np.ndarray | None
    inputs: np.ndarray
    levels: np.ndarray
    draws: np.ndarray
    times: np.ndarray
    entry: bool

    @property
    def n_steps(self) -> int:
        """The number of steps, the start and the last denoising among them."""
        return len(self.counts)

    @property
    def most(self) -> int:
        """S."""
        return self.points.shape[1] - 1

    @property
    def n_draws(self) -> int:
        """R."""
        return self.draws.shape[1]
