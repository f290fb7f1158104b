"""Did a path meet a wall inside a step, and when? The Brownian bridge between the two ends of the step.

Between x₀ and x₁, both below a wall b, the path of a step of size h with noise σ is a Brownian bridge, whatever the
drift was (a constant drift is used up by the end point). It meets the wall with probability

    p = exp(−2 (b − x₀)(b − x₁) / (σ² h)),

so a path that is looked at only at the ends of the steps misses passages, which makes first-passage times too long by
O(√h); drawing the passage from p leaves O(h), and nothing at all where the coefficients are constant (Baldi 1995,
"Exact asymptotics for the probability of exit from a domain and applications to simulation"; Gobet 2000).

**When.** With s = τ/(h − τ) the bridge up to time τ is a Brownian motion W up to s (Doob's transformation), and the
wall becomes the line α + β s, α = (b − x₀)/(σ√h), β = (b − x₁)/(σ√h). The first passage of W over that line, given
that there is one, is inverse Gaussian with mean α/|β| and shape α² for either sign of β; it is drawn with one normal
and one uniform (Michael, Schucany & Haas 1976), and τ = h s/(1 + s).

**Two walls.** A bridge that meets both walls makes the two events overlap. By reflection, meeting one wall and then
the other stretches the way from x₀ to x₁ to a length L, and has probability at most exp(−(L² − (x₁ − x₀)²)/(2σ²h)).
Where that is not negligible the step is cut in two at a midpoint drawn from the bridge, in the order of time, until
every piece meets at most one wall; the first piece with a passage ends the search. What is neglected has probability
below 10⁻¹⁶ for each piece, so the law is exact for any step.

Draws come from the stream at (step, ``ACCEPTANCE``, component, path), and no word is drawn where the exponent says that
a passage has a probability below 10⁻¹⁷.
"""

import math

from numba import njit

from ..core import stream
from ..core.draws import unit, words
from ..core.elementary import U64
from ..core.functions import exp
from ..core.normals import pair64

LOWER, NONE, UPPER = -1, 0, 1

# exp(−39.2) < 1e-17
NEGLIGIBLE = 39.2
# Pieces are not cut below h 2⁻⁵⁰; a path stays that long between walls that near with no probability to speak of.
SHORTEST = 2.0**-50
STACK = 64

# Components 2²⁰ … 2²¹ − 1 of the purpose: 1024 Philox blocks a component, one bit for the steps above 2³². A search
# that lasts a time t takes about 60 t σ²/w² blocks, w the width, and lasts so long with probability exp(−π² t σ²/2w²).
MAX_COMPONENTS = 512
_FIRST, _PER_COMPONENT, _LONG = U64((stream.ACCEPTANCE << 24) | 2**20), U64(1024), U64(2**19)
_S32, _LOW, _DRAWS, _ONE, _TWO = U64(32), U64(0xFFFFFFFF), U64(1023), U64(1), U64(2)

_scalar = njit(nogil=True, error_model="numpy")


@_scalar
def spot_of(step, component, path, seed):
    """The place in the stream where the crossings of one component in one step of one path draw from."""
    number = U64(step)
    c1 = U64(_FIRST + U64(_PER_COMPONENT * U64(component))) + U64(_LONG * U64(number >> _S32))
    return U64(number & _LOW), U64(c1), U64(path), U64(seed)


@_scalar
def passage_fraction(alpha, beta, spot, draw, choice):
    """τ/h of the first passage, given that there is one: α > 0 the scaled distance at the start, β at the end.

    ``choice`` is a uniform; the normal is drawn from block ``draw`` of the spot. Written with
    q = |β| + r + √(r (r + 2|β|)), r = Z²/(2α), so that nothing cancels and β = 0 (Lévy's law) is no special case: the
    two roots of Michael, Schucany & Haas are s = α/q and s = α q/β², the first taken with probability q/(q + |β|).
    """
    a, b = words(spot, U64(draw & _DRAWS))
    z = pair64(a, b)[0]
    slope = abs(beta)
    r = 0.5 * z * z / alpha
    q = slope + r + math.sqrt(r * (r + 2.0 * slope))
    if choice * (q + slope) <= q:
        return alpha / (alpha + q)
    return alpha * q / (alpha * q + slope * slope)


@_scalar
def exponent_both(y0, y1, lower, upper, variance):
    """E where the chance that a bridge from y0 (between the walls) to y1 meets both walls is at most 2 exp(−E)."""
    if y1 >= upper:
        return 2.0 * (y0 - lower) * (y1 - lower) / variance
    if y1 <= lower:
        return 2.0 * (upper - y0) * (upper - y1) / variance
    up_first = (upper - y0) + (upper - lower) + (y1 - lower)
    down_first = (y0 - lower) + (upper - lower) + (upper - y1)
    length = down_first if down_first < up_first else up_first
    return 0.5 * (length - abs(y1 - y0)) * (length + abs(y1 - y0)) / variance


@_scalar
def first_crossing(x0, x1, lower, upper, scale, spot, stack):
    """Side (−1 lower, 0 none, +1 upper) and time (as a fraction of the step) of the first passage in a step.

    Parameters
    ----------
    x0, x1 : the states at the two ends, float64.
    lower, upper : the walls, −inf and inf where there is none.
    scale : σ√h; where it is 0 the path is the straight line from x0 to x1.
    spot : where the draws come from (:func:`spot_of`).
    stack : float64 (2, ``STACK``), memory for the pieces still to come.

    A state on a wall or beyond it at the start has passed at once; a path that is not finite does not pass.
    """
    if not (math.isfinite(x0) and math.isfinite(x1)):
        return NONE, 0.0
    if x0 <= lower:
        return LOWER, 0.0
    if x0 >= upper:
        return UPPER, 0.0
    if not scale > 0.0:
        if x1 <= lower:
            return LOWER, (lower - x0) / (x1 - x0)
        if x1 >= upper:
            return UPPER, (upper - x0) / (x1 - x0)
        return NONE, 0.0
    draw = U64(0)
    y0, start, y1, length, depth = x0, 0.0, x1, 1.0, 0
    while True:
        variance = scale * scale * length
        if length > SHORTEST and exponent_both(y0, y1, lower, upper, variance) < NEGLIGIBLE:
            stack[0, depth], length = y1, 0.5 * length
            stack[1, depth] = length
            depth += 1
            a, b = words(spot, U64(draw & _DRAWS))
            draw = U64(draw + _ONE)
            y1 = 0.5 * (y0 + y1) + 0.5 * math.sqrt(variance) * pair64(a, b)[0]
            continue
        below, above = 2.0 * (y0 - lower) * (y1 - lower) / variance, 2.0 * (upper - y0) * (upper - y1) / variance
        if below < NEGLIGIBLE or above < NEGLIGIBLE:
            a, b = words(spot, U64(draw & _DRAWS))
            u, side = unit(a), NONE
            # one of the two is negligible, or the events are disjoint to rounding: their probabilities add
            reaches_low = 1.0 if y1 <= lower else exp(-below)
            if y1 >= upper:
                side = UPPER
            elif u < reaches_low:
                side = LOWER
            elif u < reaches_low + exp(-above):
                side = UPPER
            if side != NONE:
                root = math.sqrt(variance)
                wall = upper if side == UPPER else lower
                alpha, beta = abs(wall - y0) / root, abs(wall - y1) / root
                return side, start + length * passage_fraction(alpha, beta, spot, U64(draw + _ONE), unit(b))
            draw = U64(draw + _TWO)
        if depth == 0:
            return NONE, 0.0
        depth -= 1
        start, y0 = start + length, y1
        y1, length = stack[0, depth], stack[1, depth]
