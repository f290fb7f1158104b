"""Walls for paths: reflecting, absorbing, periodic, partly reflecting; the same that the Fokker-Planck solver has.

``"reflecting"``  a path that has stepped over the wall is folded back, x → 2b − x: the symmetrised Euler scheme, weak
                  order 1 (Bossy, Gobet & Talay 2004, "A symmetrized Euler scheme for an efficient approximation of
                  reflected diffusions"). The density has no current through the wall.
``"absorbing"``   a path that meets the wall, also inside a step (drawn from the Brownian bridge, ``crossing``), stays
                  just outside for ever. The density of the others is 0 at the wall.
``"periodic"``    the two walls are one point of a circle: what leaves through one enters through the other.
``Robin(rate)``   a path that meets the wall is pushed back, and taken with a probability that grows with the push
                  (``partly``); one that is taken stays just outside for ever. The current out is rate · p.

A box with walls is [lower, upper): a state that has not been absorbed is ``>= lower`` and ``< upper`` in its own dtype,
so that a histogram over the box counts it, and an absorbed one is the next number beyond the wall.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from ..core import checks
from ..core.compile import LANES
from ..fokker_planck import boundary as fokker_planck
from ..fokker_planck.boundary import Robin
from .crossing import MAX_COMPONENTS, NEGLIGIBLE, STACK, first_crossing, spot_of
from .partly import HIGH_DRAW, LOW_DRAW, push
from .reductions.recorder import Recorder
from .watchers import StepContext, bound

_KINDS = {"none": 0, "reflecting": 1, "absorbing": 2, "periodic": 3}


@njit(nogil=True, error_model="numpy")
def folded(x, lower, upper, low_kind, high_kind):
    """A state beyond reflecting or periodic walls put back between them; nan where it is not finite."""
    width = upper - lower
    if low_kind == 3:
        return x - width * math.floor((x - lower) / width)
    if low_kind == 1 and high_kind == 1:
        y = (x - lower) - 2.0 * width * math.floor((x - lower) / (2.0 * width))
        return lower + (y if y <= width else 2.0 * width - y)
    if low_kind == 1 and x < lower:
        return lower + (lower - x)
    if high_kind == 1 and x > upper:
        return upper - (x - upper)
    return x


_WALLS = f"""\
    n = slots[2]
    if step < 0:
        return
    component = carray(_int_pointer(slots[3]), (n,))
    kind = carray(_int_pointer(slots[4]), (n, 2))
    wall = carray(_float_pointer(slots[5]), (n, 10))
    dt = carray(_float_pointer(slots[6]), (1,))[0]
    stack = carray(_float_pointer(slots[7]), (2, {STACK}))
    flag = carray(_int_pointer(slots[8]), ({LANES},))
    variance = carray(_float_pointer(slots[9]), ({LANES},))
    rate = carray(_float_pointer(slots[11]), (n, 2))
    takes = slots[10] != 0
    if takes:
        for i in range({LANES}):
            flag[i] = 0
        for c in range(n):
            j, low, high, held_low, held_high = component[c], wall[c, 2], wall[c, 3], wall[c, 4], wall[c, 5]
            for i in range({LANES}):
                variance[i] = 0.0
            for k in range(m):
                for i in range({LANES}):
                    noise = np.float64(g[j * m + k, i])
                    variance[i] += noise * noise * dt
            for i in range({LANES}):
                a, b = np.float64(before[j, i]), np.float64(x[j, i])
                reach = {0.5 * NEGLIGIBLE} * variance[i]
                near = ((high - a) * (high - b) <= reach) | ((a - low) * (b - low) <= reach)
                flag[i] |= (1 if near else 0) | (2 if (a < held_low) | (a > held_high) else 0)
        for r in range(d):
            for i in range({LANES}):
                x[r, i] = before[r, i] if flag[i] >= 2 else x[r, i]
        for i in range(lo, hi):
            if flag[i] == 1:
                soonest, where, beyond = 2.0, -1, 0.0
                for c in range(n):
                    j, low, high = component[c], wall[c, 2], wall[c, 3]
                    spread = 0.0
                    for k in range(m):
                        noise = np.float64(g[j * m + k, i])
                        spread += noise * noise * dt
                    spot = _spot_of(step, j, U64(start + U64(i)), seed)
                    a, b = np.float64(before[j, i]), np.float64(x[j, i])
                    side, part = _first_crossing(a, b, low, high, math.sqrt(spread), spot, stack)
                    if side != 0 and part < soonest:
                        soonest, where, beyond = part, j, wall[c, 8] if side < 0 else wall[c, 9]
                if where >= 0:
                    for r in range(d):
                        a, b = np.float64(before[r, i]), np.float64(x[r, i])
                        x[r, i] = a + soonest * (b - a)
                    for c in range(n):
                        # the straight line may be beyond a wall that the bridge has not met yet
                        j, low, high = component[c], wall[c, 4], wall[c, 5]
                        b = np.float64(x[j, i])
                        if b < low or b >= high:
                            b = _folded(b, wall[c, 0], wall[c, 1], 1 if b < low else 0, 1 if b >= high else 0)
                            b = wall[c, 6] if b < low else wall[c, 7] if b >= high else b
                            x[j, i] = b
                    x[where, i] = beyond
                    flag[i] = 2
        for c in range(n):
            j, lower, upper, least, most = component[c], wall[c, 0], wall[c, 1], wall[c, 6], wall[c, 7]
            if kind[c, 0] != 4 and kind[c, 1] != 4:
                continue
            for i in range(lo, hi):
                if flag[i] >= 2:
                    continue
                spread = 0.0
                for k in range(m):
                    noise = np.float64(g[j * m + k, i])
                    spread += noise * noise * dt
                a, b = np.float64(before[j, i]), np.float64(x[j, i])
                reach = {0.5 * NEGLIGIBLE} * spread
                if not ((kind[c, 0] == 4 and (a - lower) * (b - lower) <= reach)
                        or (kind[c, 1] == 4 and (upper - a) * (upper - b) <= reach)):
                    continue
                spot = _spot_of(step, j, U64(start + U64(i)), seed)
                moved, taken = 0.0, 0
                if kind[c, 0] == 4:
                    back, out = _push(a - lower, b - lower, spread, 2.0 * dt * rate[c, 0] / spread, spot, _LOW_DRAW)
                    moved, taken = back, 1 if out else 0
                if kind[c, 1] == 4:
                    back, out = _push(upper - a, upper - b, spread, 2.0 * dt * rate[c, 1] / spread, spot, _HIGH_DRAW)
                    moved, taken = moved - back, 2 if out and taken == 0 else taken
                b = b + moved
                if taken != 0:
                    x[j, i] = wall[c, 8] if taken == 1 else wall[c, 9]
                    flag[i] = 2
                    continue
                if moved != 0.0 and (b < least or b > most):
                    # pushed over to the other side, by rounding or in a step too long for the box
                    b = _folded(b, lower, upper, 1 if kind[c, 0] != 0 else 0, 1 if kind[c, 1] != 0 else 0)
                    b = least if b < least else most if b > most else b
                x[j, i] = b
    for c in range(n):
        j, lower, upper, least, most = component[c], wall[c, 0], wall[c, 1], wall[c, 6], wall[c, 7]
        below, above = kind[c, 0], kind[c, 1]
        folds_low, folds_high = below == 1 or below == 3, above == 1 or above == 3
        if folds_low or folds_high:
            first = least if folds_low else -np.inf
            last = most if folds_high else np.inf
            outside = 0
            for i in range({LANES}):
                b = np.float64(x[j, i])
                outside += 1 if (b < first) | (b > last) else 0
            if outside == 0:
                continue
            for i in range({LANES}):
                b = np.float64(x[j, i])
                if b < first or b > last:
                    b = _folded(b, lower, upper, below, above)
                    # the fold is rounded, and the box holds its lower wall but not its upper one
                    x[j, i] = first if b < first else last if b > last else b
"""


class Walls:
    """Walls for the paths of a process: a box that they are kept in, or where they end.

    Parameters
    ----------
    lower, upper : the walls of one component, or sequences with one for each component; None where a side is open.
    boundary : "reflecting", "absorbing", "periodic" or Robin(rate), or a pair (low, high) of those but "periodic"; for
        several components also a list of such pairs, one for each.
    component : the component that has the walls, by default the first one; for several, a sequence (by default the
        first ones).

    Reflecting walls act along the axis of their component, which is what the equation of the density does at a wall
    without current where the noises of the components are independent. The stages of a scheme still see states beyond a
    wall, before they are folded, so the coefficients must be defined a little way beyond it. Absorption is exact for
    constant drift and diffusion at any step, O(h) elsewhere; an absorbed path is held as a whole, where the straight
    line through its step was at that time. A partly reflecting wall is as exact as long as no step reaches from it to
    the other wall.

    Example: paths and density with the same walls.

    >>> grid = sde.Grid(-1.0, 1.0, 100)
    >>> walls = sde.Walls(grid.lower, grid.upper, "absorbing")
    >>> paths = sde.simulate(sde.Wiener(), 0.0, (0.0, 0.5), n_steps=10, n_paths=100_000, boundary=walls, seed=1)
    >>> rho = sde.evolve_density(sde.Wiener(), sde.point_mass(grid, 0.0), grid, (0.0, 0.5), boundary="absorbing")
    >>> abs(float((abs(paths.final) <= 1.0).mean()) - float(rho.mass[-1])) < 0.006
    True
    """

    def __init__(
        self, lower: Any = None, upper: Any = None, boundary: Any = "reflecting", component: Any = None
    ) -> None:
        count = max((len(v) for v in (lower, upper, component) if np.ndim(v) > 0), default=1)
        lowers, uppers = _each("lower", lower, count), _each("upper", upper, count)
        numbers = range(count) if component is None else _each("component", component, count)
        self.components = tuple(checks.integer("component", c, minimum=0, below=MAX_COMPONENTS) for c in numbers)
        if len(set(self.components)) < count:
            raise ValueError(f"component names one twice: {self.components}")
        self.lower = tuple(-math.inf if v is None else checks.real("lower", v) for v in lowers)
        self.upper = tuple(math.inf if v is None else checks.real("upper", v) for v in uppers)
        self.kinds = tuple(
            _open(_known(kind), low, high)
            for kind, low, high in zip(_boundaries(boundary, count), self.lower, self.upper, strict=True)
        )
        for low, high in zip(self.lower, self.upper, strict=True):
            if not low < high:
                raise ValueError(f"lower ({low:g}) must be < upper ({high:g})")
            if math.isinf(low) and math.isinf(high):
                raise ValueError("Walls needs a wall: lower, upper or both")

    def __repr__(self) -> str:
        return f"Walls(lower={self.lower}, upper={self.upper}, kinds={self.kinds}, components={self.components})"

    @property
    def absorbing(self) -> tuple[tuple[int, float, float], ...]:
        """(component, lower, upper) of the walls that take paths, wholly or partly, −inf or inf where there is none."""
        found = []
        for c, kinds, low, high in zip(self.components, self.kinds, self.lower, self.upper, strict=True):
            if any(map(_takes, kinds)):
                found.append((c, low if _takes(kinds[0]) else -math.inf, high if _takes(kinds[1]) else math.inf))
        return tuple(found)

    def check_passage(self, passage: Any) -> None:
        """Raise where a first passage cannot be told beside these walls: it is judged before they act on a path."""
        if passage.of is not None:
            raise ValueError(
                "FirstPassage(of=...) looks at states before a wall acts on them; give levels, or no walls"
            )
        for c, kinds, low, high in zip(self.components, self.kinds, self.lower, self.upper, strict=True):
            if c != passage.component:
                if any(map(_takes, kinds)):
                    raise ValueError(
                        f"FirstPassage of component {passage.component} beside an absorbing wall of component {c} "
                        "would count passages of paths that the wall ends in the same step; leave the wall out"
                    )
                continue
            if "periodic" in kinds:
                raise ValueError(
                    "FirstPassage cannot see a level across a periodic seam; leave the walls out, and give the levels "
                    "and their images as lower and upper"
                )
            for level, side in ((passage.lower, "lower"), (passage.upper, "upper")):
                if math.isfinite(level) and not low <= level <= high:
                    raise ValueError(
                        f"{side}={level:g} of FirstPassage lies beyond the walls [{low:g}, {high:g}], where no path "
                        "gets"
                    )

    def check(self, d: int, states: Any = None) -> None:
        """Raise where a component is missing, or an initial state (rows, d) lies outside of the walls."""
        if max(self.components) >= d:
            raise ValueError(f"Walls has walls for component {max(self.components)}, but the state has {d}")
        if states is None:
            return
        rows = np.asarray(states).reshape(-1, d)
        for c, low, high in zip(self.components, self.lower, self.upper, strict=True):
            column = rows[:, c]
            outside = np.flatnonzero((column < rows.dtype.type(low)) | (column > rows.dtype.type(high)))
            if outside.size:
                raise ValueError(
                    f"x0 is outside of the walls: {column[outside[0]]:g} at path {outside[0]} is not in "
                    f"[{low:g}, {high:g}] ({outside.size} in all); start the paths between the walls"
                )

    def watcher(self, dtype: Any, context: StepContext) -> Recorder:
        """The compiled watcher that keeps the states inside, or holds the absorbed ones."""
        kind = np.array([[4 if isinstance(k, Robin) else _KINDS[k] for k in pair] for pair in self.kinds], np.int64)
        rate = np.array([[k.rate if isinstance(k, Robin) else 0.0 for k in pair] for pair in self.kinds])
        walls = zip(self.kinds, self.lower, self.upper, strict=True)
        wall = np.array([_numbers(*one, np.dtype(dtype)) for one in walls])
        component, dt = np.array(self.components, np.int64), np.array([context.dt])
        stack, flag, variance = np.empty((2, STACK)), np.empty(LANES, np.int64), np.empty(LANES)
        keep = (component, kind, wall, dt, stack, flag, variance)
        slots = [context.d, context.columns, len(component), *(a.ctypes.data for a in keep), int(bool(self.absorbing))]
        slots.append(rate.ctypes.data)
        text = _WALLS.replace("_LOW_DRAW", f"U64({LOW_DRAW})").replace("_HIGH_DRAW", f"U64({HIGH_DRAW})")
        names = {"_first_crossing": first_crossing, "_spot_of": spot_of, "_folded": folded, "_push": push}
        return bound(text, dtype, slots, (*keep, rate), **names)


def _takes(kind: Any) -> bool:
    """Whether a wall takes paths, wholly or partly."""
    return kind == "absorbing" or isinstance(kind, Robin)


def _numbers(kinds: tuple[Any, Any], low: float, high: float, dtype: np.dtype) -> list[float]:
    """What the watcher reads of one pair of walls.

    lower, upper; the walls of the bridge; where a path is held, below and above; the least and the largest state
    inside; where an absorbed path is put, below and above.
    """
    just_below, just_above = (_beyond(wall, sign, dtype) for wall, sign in ((low, -1), (high, 1)))
    absorbing = [kind == "absorbing" for kind in kinds]
    # Between a reflecting and an absorbing wall the path is unfolded: its other absorbing wall is the mirror image.
    bridge = [low if absorbing[0] else -math.inf, high if absorbing[1] else math.inf]
    put = [just_below, just_above]
    if kinds == ("reflecting", "absorbing"):
        bridge[0], put[0] = 2.0 * low - high, just_above
    elif kinds == ("absorbing", "reflecting"):
        bridge[1], put[1] = 2.0 * high - low, just_below
    held = [low if _takes(kinds[0]) else -math.inf, high if _takes(kinds[1]) else math.inf]
    least = float(dtype.type(low))
    least = least if least >= low else float(np.nextafter(dtype.type(low), dtype.type(np.inf)))
    most = float(dtype.type(high))
    most = most if most < high else float(np.nextafter(dtype.type(high), dtype.type(-np.inf)))
    return [low, high, *bridge, *held, least, most, *put]


def _beyond(wall: float, sign: int, dtype: np.dtype) -> float:
    """The next number of the dtype beyond a wall."""
    return float(np.nextafter(dtype.type(wall), dtype.type(sign * np.inf)))


def _each(name: str, value: Any, count: int) -> list[Any]:
    if np.ndim(value) == 0:
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries, and there are walls for {count} components")
    return list(value)


def _boundaries(boundary: Any, count: int) -> list[Any]:
    """One boundary for each component: a list of pairs is one for each, anything else is for all of them."""
    if isinstance(boundary, (list, tuple)) and any(isinstance(entry, (list, tuple)) for entry in boundary):
        if len(boundary) != count:
            raise ValueError(f"boundary has {len(boundary)} entries, and there are walls for {count} components")
        return list(boundary)
    return [boundary] * count


def _known(boundary: Any) -> tuple[Any, Any]:
    low, high = fokker_planck.walls(boundary)
    for wall in (low, high):
        if isinstance(wall, fokker_planck.Inflow):
            raise ValueError("Inflow is for densities: paths start at t0, and none come in later; use 'reflecting'")
        if not isinstance(wall, Robin):
            checks.choice("boundary", wall, list(_KINDS)[1:])
    return low, high


def _open(kinds: tuple[Any, Any], low: float, high: float) -> tuple[Any, Any]:
    """Sides without a wall are of no kind."""
    if kinds[0] == "periodic" and not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("periodic walls need both lower and upper: they are one point of a circle")
    return ("none" if math.isinf(low) else kinds[0]), ("none" if math.isinf(high) else kinds[1])
