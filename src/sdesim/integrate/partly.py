"""A partly reflecting wall inside a step: how far the path is pushed back, and whether it is taken.

A path reflected at a wall (Skorokhod 1961) is x = y + L, y the path without the wall and L the least push that keeps x
inside: after a step from y₀ to y₁, both counted from the wall inwards,

    L = max(0, −min y),     min y = ½(y₀ + y₁ − √((y₀ − y₁)² − 2 σ²h ln U)),

the minimum of the Brownian bridge between the two, U uniform (Lépingle 1995, "Euler scheme for reflected stochastic
differential equations"). L is the local time at the wall, in the units of x. A wall that lets the current κ p out takes
a path with the probability 1 − exp(−κ L / D), D = σ²/2 (elastic Brownian motion: Itô & McKean 1974, section 2.3).
With constant drift and noise and one wall in reach the law is exact at any step; O(h) elsewhere.
"""

import math

from numba import njit

from ..core.draws import unit, words
from ..core.elementary import U64
from ..core.functions import exp, log
from .crossing import NEGLIGIBLE

# The last blocks of a component's draws in a step; the search for a crossing counts up from 0 and never gets here.
LOW_DRAW, HIGH_DRAW = U64(1023), U64(1022)


@njit(nogil=True, error_model="numpy")
def push(y0, y1, variance, taking, spot, draw):
    """L >= 0 for a step from y0 >= 0 to y1, and whether the path is taken; ``taking`` is κ/D."""
    if not 2.0 * y0 * y1 < NEGLIGIBLE * variance:
        return 0.0, False
    a, b = words(spot, draw)
    away = y0 - y1
    least = 0.5 * (y0 + y1 - math.sqrt(away * away - 2.0 * variance * log(unit(a))))
    if least >= 0.0:
        return 0.0, False
    return -least, unit(b) >= exp(taking * least)
