"""Densities in two and three dimensions: implicit along one axis at a time, and transport where nothing diffuses.

dm/dt = A m + s with A = A_0 + … + A_(d−1), one part for each axis, is solved in steps of

    δ = (I − θ dt A_0)⁻¹ … (I − θ dt A_(d−1))⁻¹ dt (A m + s),     m(t + dt) = m + δ,     θ = ½

(Douglas 1962; Douglas & Gunn 1964): second order, tridiagonal systems only, and what is at rest stays so, since
A m + s = 0 gives δ = 0. **Mixed derivatives** are explicit; they take a second stage (Hundsdorfer & Verwer 2003; in 't
Hout & Welfert 2007, 2009), with θ = ½ + √3/6 and Π for the product of inverses,

    m(t + dt) = m + δ + Π [dt (A m + s) + ½ dt A δ − δ].

With coefficients that depend on time A is that of the middle of the step, which keeps order two.

**Damped start.** θ = ½ leaves alone what is rough on the scale of the cells (Rannacher 1984). Each of the first two
steps is two half steps m → Π (m + dt/2 (mixed part) m + dt/2 s), the axes in one order and then in the other, which
damp it and keep m >= 0 (where nothing is mixed). They are of first order, but their number is fixed: the order stays
two, and Richardson extrapolation leaves O(dt³) of them. With θ = ½ they use the same factors.

**Axes without diffusion** are transported instead (``transport``): half a step along each of them, a whole step of the
rest, half a step again in reverse order (Strang 1968), the halves of consecutive steps joined where the flow is
constant.

**Steps** are taken in pairs, and a pair is compared with one step of twice the size: that differs by six times the
error of a step. With constant coefficients e^(tA) and, nearly, each step contract in L1: the error of a step can only
fall from one to the next, few pairs need be compared, and no step is taken once |A m| times the time left is below the
tolerance. A step that brings p below 0 by more than rounding is halved,
twice at most, and then replaced by a damped one.

**Stability.** In two dimensions both formulas are stable for any step. In three neither is for drift without diffusion,
nor is that of modified Craig-Sneyd: waves that drift along the diagonal of the axes grow, by up to 5/3 a step (1.9 with
mixed derivatives) where each axis carries them nearly half their length a step; with more diffusion than drift
(|Im z| <= |Re z| for the eigenvalues z of each axis) nothing grows. The comparison of steps sees such growth; with a
given number of steps it shows as negative p, and is reported.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .box import BoxCoefficients, BoxOperator
from .mark import Mark, Numbers
from .steppers import ROUNDING
from .stretches import Stretch, halves, packed, pieces, strang, unpacked
from .sweeps import Sweeps
from .team import Team
from .transport import Shift, prepare

Report = Callable[[float], None]

DAMPED_STEPS = 2
# Pairs between two comparisons, at most.
MAX_UNCHECKED = 32
# How often a step is halved because of negative p before a damped one takes its place, and for how many pairs.
HALVINGS, CAUTIOUS = 2, 8


class Splitting(NamedTuple):
    """Masses of the cells at the requested times, what has left through the walls until then, and the work done.

    ``steps`` lists the stretches up to each time; a run that is given it as ``halved`` repeats them in halves.
    """

    m: np.ndarray
    absorbed: np.ndarray
    n_steps: int
    n_rejected: int
    steps: tuple[tuple[Stretch, ...], ...]


def evolve(
    coefficients: BoxCoefficients,
    m0: np.ndarray,
    t0: float,
    times: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    *,
    n_steps: int | None = None,
    halved: tuple[tuple[Stretch, ...], ...] | None = None,
    threads: int | None = None,
    mark: Mark | None = None,
) -> Splitting:
    """The masses of the cells at each of ``times``, the L1 error of each step below ``tolerance``.

    Arguments
    ---------
    coefficients : BoxCoefficients
    m0 : (*grid.shape)
        Probabilities of the cells at t0.
    n_steps : int, optional
        Take that many equal steps from t0 to the last time (more where a time lies between), without error control.
    halved : optional
        ``steps`` of a run with twice the width of cells: each of them is taken as two halves, with as many
        damped steps as there, so that the errors of both runs are a series in h² and dt² with the same coefficients.
    threads : int, optional
        The result does not depend on it.

    Where axes are transported the error of the transport, which does not fall with the step, is measured and added to
    the tolerance.

    Raises RuntimeError when the step falls below rounding. Warns of negative p, and by how much: of any but rounding;
    with mixed derivatives, of more of the probability than ten times the tolerance.
    """
    with Team(threads, m0.size) as team:
        run = _Run(coefficients, team, np.array(m0, float), t0, times[-1], tolerance, report)
        run.mark = mark or Mark()
        if found := run.mark.start(run.rows, run.walls):
            run.restore(found)
        for i, goal in enumerate(times[len(run.rows) :], len(run.rows)):
            if goal > run.begin:
                if halved is not None:
                    run.repeat(halved[i])
                elif n_steps is not None:
                    run.equal(goal, n_steps)
                else:
                    run.adapt(goal)
                run.t = goal
            m, lost = run.settle(), run.lost.copy()
            run.steps.append(tuple(run.taken))
            run.taken, run.begin = [], run.t
            run.walls.append(lost)
            run.rows.append(m)
    rows, walls, steps = run.rows, run.walls, run.steps
    _warn_of_negatives(rows, coefficients, 10.0 * tolerance if run.mixed else 0.0)
    return Splitting(np.array(rows), np.array(walls), run.n_steps, run.n_rejected, tuple(steps))


class _Run:
    """A run: where it is, and what it has done."""

    def __init__(
        self, coefficients: BoxCoefficients, team: Team, m: np.ndarray, t0: float, t1: float, tolerance: float,
        report: Report | None,
    ) -> None:  # fmt: skip
        self.coefficients, self.team, self.m, self.t = coefficients, team, m, t0
        self.span, self.end, self.tolerance, self.report = t1 - t0, t1, tolerance, report
        self.mass, self.lost = float(m.sum()), np.zeros((m.ndim, 2))
        self.n_steps = self.n_rejected = self.n_damped = self.cautious = self.halvings = 0
        self.taken: list[Stretch] = []
        self.rows: list[np.ndarray] = []
        self.walls: list[np.ndarray] = []
        self.steps: list[tuple[Stretch, ...]] = []
        self.mark, self.begin = Mark(), t0  # the time of the last saved density
        self.next, self.unchecked, self.patience, self.ceiling = 0.0, 0, 1, math.inf
        self.mixed, self.keeps_mass, self.implicit = False, True, True
        self._sweeps: Sweeps | None = None
        self._shifts: dict[tuple[int, float], Shift] = {}

    # ---- given steps --------------------------------------------------------------------------------------------

    def equal(self, goal: float, n_steps: int) -> None:
        """Equal steps to the goal, as many as its share of ``n_steps``, rounded up."""
        left = goal - self.begin
        count = max(1, math.ceil(left * n_steps / self.span * (1.0 - 1e-12)))
        before = self.n_damped - sum(n for _, n, damp in self.taken if damp)
        damped = min(count, max(0, DAMPED_STEPS - before))
        self._take([Stretch(left / count, n, damp) for n, damp in ((damped, True), (count - damped, False))])

    def repeat(self, stretches: Sequence[Stretch]) -> None:
        """Each step as two halves."""
        self._take(halves(stretches))

    def _take(self, stretches: Sequence[Stretch]) -> None:
        """These stretches, but for those that have been taken already, in pieces."""
        for piece in pieces(stretches)[len(self.taken) :]:
            lost = self.lost.copy()
            m = self._advance(self.m, self.t, *piece, lost, self.report)
            self._accept(m, lost, piece)
            self._marked()

    # ---- marks

    def _marked(self) -> None:
        before, n, now, k = self.steps, len(self.steps), self.taken, len(self.taken)
        counts = (
            self.n_steps, self.n_rejected, self.n_damped, self.cautious, self.halvings, self.unchecked, self.patience,
            self.mixed, self.keeps_mass, self.implicit,
        )  # fmt: skip
        self.mark.note(
            self.rows, self.walls, m=self.m, t=self.t, lost=self.lost, mass=self.mass, next=self.next,
            ceiling=self.ceiling, begin=self.begin, counts=counts, taken=lambda: packed((*before[:n], now[:k])),
        )  # fmt: skip

    def restore(self, found: Numbers) -> None:
        """Go on from a mark."""
        self.m, self.lost = found["m"], found["lost"]
        self.t, self.mass, self.next, self.ceiling, self.begin = (
            float(found[name]) for name in ("t", "mass", "next", "ceiling", "begin")
        )
        counts = [int(n) for n in found["counts"]]
        self.n_steps, self.n_rejected, self.n_damped, self.cautious, self.halvings = counts[:5]
        self.unchecked, self.patience = counts[5:7]
        self.mixed, self.keeps_mass, self.implicit = (bool(n) for n in counts[7:])
        stretches = unpacked(found["taken"], len(self.rows) + 1)
        self.steps, self.taken = list(stretches[:-1]), list(stretches[-1])

    def _record(self, stretch: Stretch) -> None:
        self.t += stretch.n_steps * stretch.dt
        self.n_steps += stretch.n_steps
        self.n_damped += stretch.n_steps * stretch.damped
        self.taken.append(stretch)

    # ---- steps with error control -------------------------------------------------------------------------------

    def adapt(self, goal: float) -> None:
        """Pairs of steps to the goal, those in between compared as often as they must be."""
        if self.next == 0.0:
            self.next = min(0.5 * self.span, 0.1 / _fastest(self._note(self.coefficients.at(self.t))))
        while self.t < goal:
            if self.unchecked == 0 and self._at_rest():
                return
            pairs = math.ceil((goal - self.t) / (2.0 * self.next) * (1.0 - 1e-9))
            dt = self._familiar((goal - self.t) / (2 * pairs))
            if self.unchecked and self.coefficients.autonomous and not self.cautious and self.halvings == 0:
                n = min(pairs, self.unchecked)
                lost = self.lost.copy()
                m = self._advance(self.m, self.t, dt, 2 * n, False, lost, self.report)
                if self._positive(m):
                    self._accept(m, lost, Stretch(dt, 2 * n, False))
                    pairs -= n
                else:
                    self.n_rejected += 2 * n
                self.unchecked = 0
            elif self._pair(dt):
                pairs -= 1
            else:
                continue
            if pairs == 0:
                self.t = goal
            self._marked()
            if self.report:
                self.report(self.t)

    def _pair(self, dt: float) -> bool:
        """Two steps, if they pass the comparison with one of twice the size; sets the size of the next."""
        damped = (self.n_damped < DAMPED_STEPS or self.cautious > 0) and self.implicit
        lost, unused = self.lost.copy(), self.lost.copy()
        m = self._advance(self.m, self.t, dt, 2, damped, lost)
        error = float(np.abs(m - self._advance(self.m, self.t, 2.0 * dt, 1, damped, unused)).sum())
        error /= 2.0 if damped else 6.0
        allowed = self.tolerance + self._blurred(dt)
        grow = 0.9 * max(error / allowed, 1e-6) ** (-0.5 if damped else -1.0 / 3.0)
        if not error <= allowed:
            self.n_rejected += 2
            self.next = dt * (max(0.1, min(0.7, grow)) if math.isfinite(error) else 0.1)
            if not self.next > 1e-14 * max(self.span, abs(self.t)):
                raise RuntimeError(
                    f"the step fell to {self.next:.1g} at t = {self.t:g}; the coefficients change too fast there"
                )
            return False
        if not self._positive(m):
            self.n_rejected += 2
            self.halvings += 1
            self.ceiling = 0.7 * dt
            if self.halvings > HALVINGS:
                self.cautious = CAUTIOUS
            else:
                self.next = 0.5 * dt
            return False
        self._accept(m, lost, Stretch(dt, 2, damped))
        self.halvings, self.cautious = 0, max(0, self.cautious - 1)
        # a step that was too large for p >= 0 is tried again only after a while
        self.ceiling *= 1.1
        grow = min(grow, self.ceiling / dt)
        if grow > 1.4:
            self.next = max(self.next, dt * min(4.0, 2.0 ** (math.floor(2.0 * math.log2(grow)) / 2.0)))
            self.unchecked, self.patience = 0, 1
        else:
            self.patience = min(2 * self.patience, MAX_UNCHECKED)
            self.unchecked = self.patience
        return True

    def _at_rest(self) -> bool:
        """Whether less than the tolerance of a step is left to change until the last time of all.

        e^(tA) of a chain contracts in L1: the change is at most the time left times |A m|.
        """
        operator = self.coefficients.at(self.t)
        if not (self.coefficients.autonomous and operator.is_chain and operator.keeps_mass and self.n_steps):
            return False
        return (self.end - self.t) * float(np.abs(self._sweep(self.t).apply(self.m)).sum()) <= self.tolerance

    def _accept(self, m: np.ndarray, lost: np.ndarray, stretch: Stretch) -> None:
        self.m, self.lost = m, lost
        self._record(stretch)

    def _familiar(self, dt: float) -> float:
        """dt, or the last one if it is the same but for rounding, so that its factors serve again."""
        if self.taken and abs(dt - self.taken[-1].dt) <= 1e-10 * dt:
            return self.taken[-1].dt
        return dt

    def _positive(self, m: np.ndarray) -> bool:
        """Whether m >= 0 as far as the operator promises it."""
        if self.mixed:
            return True
        low, high = float(m.min()), float(m.max())
        return low >= -0.1 * ROUNDING * high or bool(self.cautious)

    def _blurred(self, dt: float) -> float:
        """What transport by 2 dt differs by in L1 when done in two parts: the error of cells, not of steps."""
        total = 0.0
        for k in self.coefficients.at(self.t + dt).degenerate:
            twice = self._shift(k, dt, self.t + dt, self._shift(k, dt, self.t + dt, self.m)[0])[0]
            total += float(np.abs(twice - self._shift(k, 2.0 * dt, self.t + dt, self.m)[0]).sum())
        return total

    # ---- steps --------------------------------------------------------------------------------------------------

    def _advance(
        self,
        m: np.ndarray,
        t: float,
        dt: float,
        count: int,
        damped: bool,
        lost: np.ndarray,
        report: Report | None = None,
    ) -> np.ndarray:
        """m after ``count`` steps from t; what leaves through the walls is added to ``lost``."""
        operator = self._note(self.coefficients.at(t + 0.5 * dt))
        if self.coefficients.autonomous and not operator.degenerate and not damped:
            done = None if report is None else lambda k: report(t + k * dt)
            m = self._sweep(t).steps(m, dt, count, lost, done)
            lost -= count * dt * _inflow(operator)
            return m
        waiting: tuple[int, float] | None = None  # a transport that the next step may prolong
        for i in range(count):
            here = t + (i + 0.5) * dt
            operator = self._note(self.coefficients.at(here))
            lost -= dt * _inflow(operator)
            for axis, time in strang(operator.degenerate, dt, self.implicit):
                if waiting is not None and axis != waiting[0]:
                    m, waiting = self._carry(m, here, waiting, lost), None
                if axis is None:
                    sweeps = self._sweep(here)
                    m = sweeps.damped(m, dt, lost) if damped else sweeps.steps(m, dt, 1, lost)
                else:
                    waiting = (axis, time + (waiting[1] if waiting is not None else 0.0))
            if waiting is not None and (i + 1 == count or not self.coefficients.autonomous):
                m, waiting = self._carry(m, here, waiting, lost), None
            if report:
                report(here + 0.5 * dt)
        return m

    def _carry(self, m: np.ndarray, t: float, move: tuple[int, float], lost: np.ndarray) -> np.ndarray:
        m, low, high = self._shift(*move, t, m)
        lost[move[0]] += (np.sum(low), np.sum(high))
        return m

    def _sweep(self, t: float) -> Sweeps:
        operator = self.coefficients.at(t)
        if self._sweeps is None or self._sweeps.operator is not operator:
            self._sweeps = Sweeps(operator, self.team, self._sweeps)
        return self._sweeps

    def _shift(self, k: int, time: float, t: float, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        operator = self.coefficients.at(t)
        if not self.coefficients.autonomous:
            self._shifts.clear()
        found = self._shifts.get((k, time))
        if found is None:
            if len(self._shifts) > 8:
                self._shifts.clear()
            axis = operator.axes[k]
            assert axis.velocity is not None
            found = self._shifts[k, time] = prepare(axis.velocity, time, operator.grid, k, axis.sides)
        return found(m, threads=self.team.members)

    def _note(self, operator: BoxOperator) -> BoxOperator:
        self.mixed |= bool(operator.mixed)
        self.keeps_mass &= operator.keeps_mass
        self.implicit = len(operator.degenerate) < self.m.ndim or operator.source is not None
        return operator

    def settle(self) -> np.ndarray:
        """m, without negatives that are rounding, and with its mass restored where nothing passes the walls."""
        m = self.m
        low, high = float(m.min()), float(m.max())
        mass = self.mass if self.keeps_mass else float(m.sum())
        if -ROUNDING * high <= low < 0.0:
            m = np.maximum(m, 0.0)
        total = float(m.sum())
        self.m = m * (mass / total) if total > 0.0 else m
        return self.m


def _inflow(operator: BoxOperator) -> np.ndarray:
    """What enters through the walls per unit time, (d, 2)."""
    lengths = [float(h.sum()) for h in operator.grid.widths]
    areas = [math.prod(lengths[:k] + lengths[k + 1 :]) for k in range(len(lengths))]
    return np.array([area * axis.inflow for area, axis in zip(areas, operator.axes, strict=True)])


def _fastest(operator: BoxOperator) -> float:
    """The highest rate, per unit time, at which a cell is left."""
    rates = [float(np.finfo(float).tiny)]
    for k, axis in enumerate(operator.axes):
        if axis.velocity is not None:
            rates.append(float(np.abs(axis.velocity).max() / operator.grid.widths[k].min()))
        elif axis.forward is not None and axis.backward is not None:
            rates.append(float((axis.forward + axis.backward).max()))
    return max(rates)


def _warn_of_negatives(rows: list[np.ndarray], coefficients: BoxCoefficients, allowed: float) -> None:
    """Say how far p falls below 0, where that is more than rounding, and more of the probability than is allowed."""
    volume = coefficients.grid.cell_volume
    worst = min(rows, key=lambda m: float((m / volume).min()))
    p, share = worst / volume, float(-worst[worst < 0.0].sum())
    if p.min() < -ROUNDING * p.max() and share > allowed:
        why = "mixed derivatives" if allowed else "steps too large for what is rough or fast"
        warnings.warn(
            f"the density falls to {p.min():.2g} (its peak is {p.max():.2g}; {share:.2g} of the probability is "
            f"negative): {why}; take more cells, or more steps",
            UserWarning,
            stacklevel=5,
        )
