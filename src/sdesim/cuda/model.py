"""A process and a scheme as the device sees them: compiled formulas, constants, and what is watched."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.compile import Layout
from ..integrate.schemes import Scheme


@dataclass(frozen=True)
class Coefficient:
    """A coefficient as compiled scalar code, or as constants.

    ``entries`` says what the function returns: "number", "tuple" or "rows"; or "point" for one that reads and writes
    arrays of shape (d, 1). Without a function the coefficient reads neither state nor time, and ``constants`` has a
    value for each component (and Wiener process).
    """

    name: str
    entries: str
    function: Any = None
    uses_time: bool = False
    constants: tuple[float, ...] = ()


@dataclass(frozen=True)
class Watch:
    """A first passage that is looked for after every step.

    Of ``component`` out of levels, with the Brownian bridge between the ends of the step; or, where ``inside`` is
    given, of the state out of a set.
    """

    component: int
    inside: Any = None


@dataclass(frozen=True)
class Model:
    """A process and a scheme, as the device sees them.

    ``coefficients`` follow ``tiles.coefficients(scheme, general)``. ``scalar`` formulas take a number, and a thread
    takes one component after the other; others take a tuple of d. ``parameters`` are those of the process.
    """

    scheme: Scheme
    dtype: np.dtype
    d: int
    m: int
    scalar: bool
    general: bool
    coefficients: tuple[Coefficient, ...]
    layout: Layout
    parameters: np.ndarray
    freeze: bool = False
    fast: bool = False
    watch: Watch | None = None  # the last coefficient is then the diffusion, as watchers see it

    @property
    def uses_time(self) -> bool:
        """Whether a coefficient reads the time."""
        return any(coefficient.uses_time for coefficient in self.coefficients)

    @property
    def by_points(self) -> bool:
        """Whether a coefficient reads and writes arrays, which a thread then has in memory of its own."""
        return any(coefficient.entries == "point" for coefficient in self.coefficients)

    @property
    def width(self) -> int:
        """Components that a thread has in registers at a time."""
        return 1 if self.scalar else self.d

    @property
    def wieners(self) -> int:
        """Wiener processes that these components are driven by."""
        return 1 if self.scalar else self.m

    @property
    def values(self) -> np.ndarray:
        """Parameters and constants, as the text reads them from ``q``."""
        constants = [value for c in self.coefficients for value in self.constants_of(c)]
        return np.concatenate([self.parameters, np.array(constants, self.dtype)]).astype(self.dtype)

    def constants_of(self, coefficient: Coefficient) -> tuple[float, ...]:
        """The constants of one coefficient in a thread: those of all components are one where a formula is scalar."""
        return coefficient.constants[:1] if self.scalar else coefficient.constants
