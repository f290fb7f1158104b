"""Time stepping: a rational exponential for constant coefficients, adaptive TR-BDF2 for all others.

**Rational exponential.** With A constant, p(t) = e^{tA} p(0), and the exponential of a real negative spectrum
is, to 3e-14, a sum over seven pairs of poles (Cody, Meinardus & Varga 1969; Carpenter, Ruttan & Varga 1984;
"CF-14"):

    e^{tA} p ≈ ε p + 2 Re Σ_k c_k (tA − z_k)⁻¹ p.

Seven complex tridiagonal solves reach any t; no step size appears. The sweeps of all poles run side by side,
one pole a SIMD lane, which hides the latency of the recursion.

In one dimension without circulation A is similar to a symmetric matrix and its spectrum is real. Where drift
outweighs diffusion, though, that similarity is so ill-conditioned that the density behaves as if the spectrum
were complex: for dX = μ dt + σ dW it fills the parabola Im² = κ |Re|, κ = μ² t/D, and beyond κ ≈ 10 the
formula is wrong, by 1e-2 at κ = 40 and without bound after. Each solve therefore evaluates a second rational
function T with the same poles, T(z) = Re B(√−z) with B the Blaschke product of the poles: |T| <= 1 on the
negative axis, and off it the error of the exponential is 3e-14 |T|² (to a factor of two, on every such
parabola). From |T(tA) p| the stepper decides whether t must be cut into parts; well-resolved diffusion is
done in one.

**TR-BDF2** (Bank et al. 1985; Hosea & Shampine 1996): the trapezoidal rule to t + γ dt, then BDF2 to t + dt,
γ = 2 − √2; second order, L-stable, one matrix for both stages where A is constant. The embedded third-order
formula gives the error, filtered by one more solve; steps move on a ladder of √2 so that factors can be kept.
With time-dependent A the stages use A(t), A(t + γ dt) and A(t + dt), which keeps order two.

**Walls.** Mass lost through absorbing walls is the integral of rate × p, from the stages of TR-BDF2 with
their own weights, or from ∫ p dt = A⁻¹ (p(t) − p(0)); what remains and what was absorbed add up to the start
to rounding.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..core.cache import kernel
from .mark import Mark
from .operator import Coefficients, Operator
from .tridiagonal import apply as _apply
from .tridiagonal import factor as _factor
from .tridiagonal import solve as _solve

Report = Callable[[float], None]


class Evolution(NamedTuple):
    """Masses of the cells at the requested times, what has left through the walls until then, and the work done."""

    m: np.ndarray
    absorbed: np.ndarray
    n_steps: int
    n_rejected: int


# Poles (upper half plane) and residues of the best rational approximation of degree 14 to exp on (−∞, 0].
POLES = np.array([
    -8.8977731864688888199e0 + 1.6630982619902085304e1j,
    -3.7032750494234480603e0 + 1.3656371871483268171e1j,
    -0.2087586382501301251e0 + 1.0991260561901260913e1j,
    3.9933697105785685194e0 + 6.0048316422350373178e0j,
    5.0893450605806245066e0 + 3.5888240290270065102e0j,
    5.6231425727459771248e0 + 1.1940690463439669766e0j,
    2.2697838292311127097e0 + 8.4617379730402214019e0j,
])  # fmt: skip
RESIDUES = np.array([
    -7.1542880635890672853e-5 + 1.4361043349541300111e-4j,
    9.4390253107361688779e-3 - 1.7184791958483017511e-2j,
    -3.7636003878226968717e-1 + 3.3518347029450104214e-1j,
    -2.3498232091082701191e1 - 5.8083591297142074004e0j,
    4.6933274488831293047e1 + 4.5643649768827760791e1j,
    -2.7875161940145646468e1 - 1.0214733999056451434e2j,
    4.8071120988325088907e0 - 1.3209793837428723881e0j,
])  # fmt: skip
AT_INFINITY = 1.8321743782540412751e-14
UNIFORM_ERROR = 3e-14
# Negative values down to this share of the peak are the rounding of the engines: they are set to zero.
ROUNDING = 1e-12
# Share of the span below which no step is taken. A point mass under strong drift needs 1e-6 of the time of a cell at
# first, and may be followed over the rarest of escapes.
SHORTEST = 1e-24

LANES = 8


def indicator_residues(poles: np.ndarray) -> np.ndarray:
    """Residues of T(z) = 1 + 2 Re-type sum over the poles, the rational function that foretells the error.

    With z = −s² the poles lie at s = ±b_k; B(s) = Π (s − b̄_k)/(s − b_k) over those of the upper half plane
    has |B| = 1 on real s, where T = Re B. T has the single poles z_k.
    """
    both = np.concatenate([poles, poles.conj()])
    b = 1j * np.sqrt(both)
    b = np.where(b.imag > 0, b, -b)
    out = np.empty(len(poles), complex)
    for k in range(len(poles)):
        others = np.arange(len(b)) != k
        ratio = (b[k] - b[others].conj()) / (b[k] - b[others])
        out[k] = -b[k] * (b[k] - b[k].conj()) * np.prod(ratio)
    return out


INDICATOR = indicator_residues(POLES)


def _lanes(values: np.ndarray, fill: complex) -> np.ndarray:
    padded = np.full(LANES, fill, complex)
    padded[: len(values)] = values
    return np.array([padded.real, padded.imag])


# Rows: poles, residues, indicator residues, each real then imaginary; the eighth lane is idle.
TABLE = np.concatenate([_lanes(POLES, 1 + 1j), _lanes(RESIDUES, 0), _lanes(INDICATOR, 0)])

GAMMA = 2.0 - math.sqrt(2.0)
ALPHA = 0.5 * GAMMA
W = math.sqrt(2.0) / 4.0
C1 = 1.0 / (GAMMA * (2.0 - GAMMA))
C2 = (1.0 - GAMMA) ** 2 * C1
# Embedded third order minus second order, on the slopes at t, t + γ dt, t + dt.
E0, E1, E2 = (1.0 - W) / 3.0 - W, (3.0 * W + 1.0) / 3.0 - W, ALPHA / 3.0 - ALPHA


def rational_exponential(
    operator: Operator,
    p0: np.ndarray,
    t0: float,
    times: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    least: float = 1e-6,
    mark: Mark | None = None,
) -> Evolution:
    """exp((t − t0) A) p0 at each of ``times``, plus what has come in; L1 error about ``tolerance`` a part of the way.

    Raises RuntimeError if a part would be shorter than the share ``least`` of the way.
    """
    # the error is UNIFORM_ERROR · T², so this is what T may reach; sharp starts alone make it about 10
    allowed = max(math.sqrt(tolerance / UNIFORM_ERROR), 30.0)
    mass, enters, rate = float(p0.sum()), float(operator.inflow.sum()), float(np.abs(operator.bands[1]).max())
    p, t, steps, rejected = p0, t0, 0, 0
    trial = math.inf
    rows: list[np.ndarray] = []
    lost: list[np.ndarray] = []
    mark = mark or Mark()
    if found := mark.start(rows, lost):
        p, steps, rejected = found["m"], int(found["steps"]), int(found["rejected"])
        t, trial, mass = float(found["t"]), float(found["trial"]), float(found["mass"])
    for goal in times[len(rows) :]:
        while t < goal:
            dt = min(trial, goal - t)
            q, size = _exponential(operator, p, dt)
            peak = max(float(p.max()), float(q.max()))
            if not (size <= allowed and float(q.min()) >= -ROUNDING * peak):
                trial, rejected = 0.25 * dt, rejected + 1
                if trial < least * (times[-1] - t0):
                    raise RuntimeError(f"the rational exponential needs steps below {trial:.1g}; use method='tr_bdf2'")
                continue
            mass += dt * enters
            p = _settled(q, None if operator.absorbs else mass, dt * rate)
            t, steps = t + dt, steps + 1
            if goal - t <= 1e-14 * abs(goal - t0):
                t = goal
            if size < 0.1 * allowed and trial < math.inf:
                trial = 2.0 * dt
            out = functools.partial(_absorbed, operator, p0, p, t - t0)
            mark.note(rows, lost, m=p, t=t, lost=out, steps=steps, rejected=rejected, trial=trial, mass=mass)
            if report:
                report(t)
        rows.append(p)
        lost.append(_absorbed(operator, p0, p, goal - t0))
    return Evolution(np.array(rows), np.array(lost), steps, rejected)


def tr_bdf2(
    coefficients: Coefficients,
    p0: np.ndarray,
    t0: float,
    times: Sequence[float],
    tolerance: float,
    report: Report | None = None,
    *,
    constant: bool = False,
    fixed_step: float | None = None,
    mark: Mark | None = None,
) -> Evolution:
    """p at each of ``times`` by adaptive TR-BDF2, the L1 error of each step below ``tolerance``.

    ``constant`` spares the evaluation of coefficients known not to depend on time; ``fixed_step`` switches
    the error control off (for order tests).

    Raises RuntimeError when the step falls below rounding.
    """
    operator = coefficients.at(t0)
    periodic, keeps = operator.periodic, operator.keeps_mass
    mass = float(p0.sum())
    p, t, steps, rejected = p0, t0, 0, 0
    lost = np.zeros(2)
    rows: list[np.ndarray] = []
    walls: list[np.ndarray] = []
    # the largest mass of a cell so far: rounding from then may outlive it where walls absorb
    top = float(p0.max())
    span = times[-1] - t0
    rate = float(np.abs(operator.bands[1]).max())
    dt = fixed_step or min(span, 0.1 / rate if rate > 0.0 else span)
    factors: dict[int, tuple[float, Operator, np.ndarray]] = {}
    slope = _apply(operator.bands, operator.absorption, False, p, operator.inflow)
    mark, known = mark or Mark(), t0
    if found := mark.start(rows, walls):
        p, slope, lost, steps = found["m"], found["slope"], found["lost"], int(found["steps"])
        t, dt, top, rejected = float(found["t"]), float(found["dt"]), float(found["top"]), int(found["rejected"])
        known = float(found["known"])
        operator = operator if constant else coefficients.at(known)

    def factor(slot: int, of: Operator, step: float) -> np.ndarray:
        kept = factors.get(slot) or factors.get(1 - slot)
        if kept is None or kept[0] != step or kept[1] is not of:
            kept = (step, of, _factor(of.bands, of.absorption, False, 1.0, ALPHA * step, periodic))
        factors[slot] = kept
        return kept[2]

    for goal in times[len(rows) :]:
        while t < goal:
            left = goal - t
            # a remainder just above dt is halved rather than left as a sliver
            step = left if dt >= left * (1.0 - 1e-12) else (0.5 * left if dt > 0.5 * left else dt)
            middle = operator if constant else coefficients.at(t + GAMMA * step)
            end = operator if constant else coefficients.at(t + step)
            f1, f2 = factor(0, middle, step), factor(1, end, step)
            q, r, new_slope, error = _step(
                p, slope, middle.bands, middle.absorption, end.bands, end.absorption, operator.inflow,
                f1, f2, step, periodic,
            )  # fmt: skip
            ratio = error / tolerance
            low = float(q.min())
            grow = 0.9 * max(ratio, 1e-6) ** (-1.0 / 3.0)
            if fixed_step is None and not (ratio <= 1.0 and low >= -0.1 * ROUNDING * top):
                rejected += 1
                dt = step * (max(0.1, min(0.7, grow)) if ratio > 1.0 else 0.5)
                if not dt > max(1e-14 * abs(t), SHORTEST * span):
                    raise RuntimeError(
                        f"the step fell to {dt:.1g} at t = {t:g}; the coefficients change too fast there"
                    )
                continue
            if not keeps:
                ends = [0, -1]
                stages = W * operator.absorption * p[ends] + W * middle.absorption * r[ends]
                lost = lost + step * (stages + ALPHA * end.absorption * q[ends] - operator.inflow)
            p, slope, operator, known = q, new_slope, end, t + step
            top = max(top, float(q.max()))
            t, steps = (goal if step == left else t + step), steps + 1
            if fixed_step is None and step >= 0.5 * dt and grow > 1.4:
                dt = max(dt, step * min(4.0, 2.0 ** (math.floor(2.0 * math.log2(grow)) / 2.0)))
            mark.note(
                rows, walls, m=p, t=t, slope=slope, lost=lost, dt=dt, top=top, known=known, steps=steps,
                rejected=rejected,
            )  # fmt: skip
            if report:
                report(t)
        rows.append(_settled(p, mass - float(lost.sum()), span * rate))
        walls.append(lost)
    return Evolution(np.array(rows), np.array(walls), steps, rejected)


def _settled(p: np.ndarray, mass: float | None, jumps: float = 0.0) -> np.ndarray:
    """p without the negatives that the stepper has accepted as rounding, its sum restored.

    ``mass`` is what the sum should be; a sum that differs by more than rounding is left for all to see. On a circle
    rounding is 1e-16 of the number of ``jumps`` out of a cell that there is time for.
    """
    total = float(p.sum())
    keep = total if mass is None or not abs(total - mass) <= max(1e-6, 1e-14 * jumps) * total else mass
    if float(p.min()) < 0.0:
        p = np.maximum(p, 0.0)
        total = float(p.sum())
    return p * (keep / total) if total > 0.0 else p


def _absorbed(operator: Operator, p0: np.ndarray, p: np.ndarray, t: float) -> np.ndarray:
    """What each wall has taken on the way from p0 to p, less what has come in through it.

    The total is known, and ∫ p dt = (−A)⁻¹ (p0 + t s − p) divides it.
    """
    rates, entered = operator.absorption, t * operator.inflow
    total = max(float(p0.sum() + entered.sum() - p.sum()), 0.0)
    if not (rates > 0.0).all():
        return np.asarray(total * (rates > 0.0) - entered)
    occupation = p0 - p
    _solve(_factor(operator.bands, rates, False, 0.0, 1.0, False), occupation, False)
    shares = np.maximum(rates * occupation[[0, -1]], 0.0)
    return total * shares / shares.sum() if shares.sum() > 0.0 else 0.0 * rates


def _exponential(operator: Operator, p: np.ndarray, t: float, turned: bool = False) -> tuple[np.ndarray, float]:
    """e^{tA} p and the L1 sum of the indicator; ``turned`` tells that the bands are those of the transpose."""
    if operator.periodic:
        return _exponential_on_circle(operator, p, t)
    return _sweeps(operator.bands, operator.absorption, turned, p, t, t * operator.inflow, TABLE, AT_INFINITY)


def _exponential_on_circle(operator: Operator, p: np.ndarray, t: float) -> tuple[np.ndarray, float]:
    """The same sum with cyclic matrices: the corners are a rank-one term (Sherman & Morrison 1950)."""
    from scipy.linalg import solve_banded

    lower, diagonal, upper = t * operator.bands
    n = len(p)
    out, indicator = AT_INFINITY * p, p.copy()
    band = np.zeros((3, n), complex)
    band[0, 1:], band[2, :-1] = upper[:-1], lower[1:]
    for z, c, d in zip(POLES, RESIDUES, INDICATOR, strict=True):
        band[1] = diagonal - z
        corner = -band[1, 0]
        band[1, 0] -= corner
        band[1, -1] -= upper[-1] * lower[0] / corner
        right = np.zeros((n, 2), complex)
        right[:, 0] = p
        right[0, 1], right[-1, 1] = corner, upper[-1]
        y, w = solve_banded((1, 1), band, right, overwrite_b=True, check_finite=False).T
        ratio = lower[0] / corner
        y = y - w * ((y[0] + ratio * y[-1]) / (1.0 + w[0] + ratio * w[-1]))
        out += 2.0 * (c * y).real
        indicator += 2.0 * (d * y).real
    return out, float(np.abs(indicator).sum())


@kernel(fastmath=("reassoc", "contract"))
def _sweeps(bands, exits, turned, p, t, entering, table, at_infinity):
    """ε p + 2 Re Σ c_k (tA − z_k)⁻¹ (p + s t/z_k) and the L1 sum of the indicator; LU sweeps, the poles as lanes.

    The term with what enters, s t (at the two ends), makes it the exponential of [[tA, s t], [0, 0]] on (p, 1).

    The pivot of a cell is −(t·up + e): its rate to the cell above, and the z and exits of the cells below, carried
    along as in ``tridiagonal.factor`` instead of found by subtraction. Over long times tA is much above z, and a
    difference would change the slowest modes by 1e-16 times the fastest rate times t.
    """
    n = len(p)
    lower, upper = bands[0], bands[2]
    zr, zi, cr, ci, er, ei = table[0], table[1], table[2], table[3], table[4], table[5]
    # reciprocal pivots and the solution, real and imaginary parts apart; z and exits of the cells so far
    qr, qi = np.empty((n, 8)), np.empty((n, 8))
    xr, xi = np.empty((n, 8)), np.empty((n, 8))
    gr, gi = np.empty(8), np.empty(8)
    out = np.empty(n)
    up = t * (upper[0] if turned else lower[1])
    for k in range(8):
        gr[k], gi[k] = zr[k] + t * exits[0], zi[k]
        br, bi = up + gr[k], gi[k]
        s = 1.0 / (br * br + bi * bi)
        qr[0, k], qi[0, k] = -br * s, bi * s
        share = entering[0] / (zr[k] * zr[k] + zi[k] * zi[k])
        xr[0, k], xi[0, k] = p[0] + share * zr[k], -share * zi[k]
    for i in range(1, n):
        below, right = t * lower[i], p[i]
        down = below if turned else t * upper[i - 1]
        up, leaving = 0.0, 0.0
        if i + 1 < n:
            up = t * (upper[i] if turned else lower[i + 1])
        else:
            leaving = t * exits[1]
        for k in range(8):
            ar, ai = qr[i - 1, k], qi[i - 1, k]
            fr, fi = gr[k], gi[k]
            gr[k] = zr[k] + leaving - down * (ar * fr - ai * fi)
            gi[k] = zi[k] - down * (ar * fi + ai * fr)
            br, bi = up + gr[k], gi[k]
            s = 1.0 / (br * br + bi * bi)
            qr[i, k], qi[i, k] = -br * s, bi * s
            yr, yi = xr[i - 1, k], xi[i - 1, k]
            xr[i, k] = right - below * (ar * yr - ai * yi)
            xi[i, k] = -below * (ar * yi + ai * yr)
    for k in range(8):
        share = entering[1] / (zr[k] * zr[k] + zi[k] * zi[k])
        xr[n - 1, k] += share * zr[k]
        xi[n - 1, k] -= share * zi[k]
    size = 0.0
    for i in range(n - 1, -1, -1):
        j = i + 1 if i + 1 < n else i
        above = t * upper[i] if i + 1 < n else 0.0
        total, indicator = 0.0, 0.0
        for k in range(8):
            yr = xr[i, k] - above * xr[j, k]
            yi = xi[i, k] - above * xi[j, k]
            vr = yr * qr[i, k] - yi * qi[i, k]
            vi = yr * qi[i, k] + yi * qr[i, k]
            xr[i, k], xi[i, k] = vr, vi
            total += cr[k] * vr - ci[k] * vi
            indicator += er[k] * vr - ei[k] * vi
        out[i] = at_infinity * p[i] + 2.0 * total
        size += abs(p[i] + 2.0 * indicator)
    return out, size


@kernel
def _step(p, slope, middle, middle_exits, end, end_exits, inflow, f1, f2, dt, periodic):
    """One step of TR-BDF2: p(t + dt), the stage at t + γ dt, the slope at t + dt, the L1 sum of the error."""
    n = len(p)
    r, q, e = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        r[i] = p[i] + ALPHA * dt * slope[i]
    r[0] += ALPHA * dt * inflow[0]
    r[n - 1] += ALPHA * dt * inflow[1]
    _solve(f1, r, periodic)
    for i in range(n):
        q[i] = C1 * r[i] - C2 * p[i]
    q[0] += ALPHA * dt * inflow[0]
    q[n - 1] += ALPHA * dt * inflow[1]
    _solve(f2, q, periodic)
    slope1 = _apply(middle, middle_exits, False, r, inflow)
    slope2 = _apply(end, end_exits, False, q, inflow)
    for i in range(n):
        e[i] = dt * (E0 * slope[i] + E1 * slope1[i] + E2 * slope2[i])
    _solve(f2, e, periodic)
    error = 0.0
    for i in range(n):
        error += abs(e[i])
    return q, r, slope2, error
