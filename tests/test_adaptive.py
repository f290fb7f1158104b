"""Adaptive steps: error falls with tolerance, paths follow their Brownian path, and the law is the right one."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
from numba import njit
from scipy import integrate as scipy_integrate
from scipy import special

import sdesim as sde
from sdesim.integrate.schemes import SCHEMES
from sdesim.integrate.schemes.adaptive_sri import ADAPTIVE_SRI, expected_error, probe_kick, realised_error
from sdesim.integrate.schemes.dopri5 import DOPRI5
from sdesim.integrate.schemes.sri import SRI, drift_support_kick

pytestmark = pytest.mark.slow

N = 1000


@dataclasses.dataclass(frozen=True)
class Sinh(sde.Process):
    """dX = (X/2 + √(1 + X²)) dt + √(1 + X²) dW: X = sinh(t + W), nonlinear in drift and noise."""

    def drift(self, x, t):
        return 0.5 * x + np.sqrt(1.0 + x * x)

    def diffusion(self, x, t):
        return np.sqrt(1.0 + x * x)

    def solution(self, w, t):
        return np.sinh(t + w)


@dataclasses.dataclass(frozen=True)
class Seasonal(sde.Process):
    """dX = (0.2 + cos 3t) X dt + e^{-t} X dW: both coefficients depend on time."""

    def drift(self, x, t):
        return (0.2 + np.cos(3.0 * t)) * x

    def diffusion(self, x, t):
        return np.exp(-t) * x


@dataclasses.dataclass(frozen=True)
class VanDerPol(sde.Process):
    """An oscillator that is slow and fast in turn; no noise."""

    mu: float = 5.0
    dim = 2

    def drift(self, x, t):
        q, v = x
        return v, self.mu * (1.0 - q * q) * v - q

    def diffusion(self, x, t):
        return 0.0


def run(process, x0, tol, *, method="adaptive_sri", n_steps=4, **options):
    options = {"n_paths": N, "seed": 3, "workers": 1} | options
    return sde.simulate(process, x0, (0, 1), n_steps=n_steps, method=method, rtol=tol, atol=tol, **options)


def rms(x):
    return float(np.sqrt(np.mean(np.asarray(x, float) ** 2)))


def slope(x, y):
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def brownian_end(n_paths=N, n_steps=4, dim=1, seed=3):
    return sde.brownian_increments(seed, n_paths, (0, 1), n_steps, n=1, dim=dim)[:, 0]


# ---- error and tolerance --------------------------------------------------------------------------------------------

TOLERANCES = 10.0 ** -np.arange(2.0, 5.5, 0.5)


def strong_errors(tolerances=TOLERANCES):
    exact = Sinh().solution(brownian_end()[:, 0], 1.0)
    runs = [run(Sinh(), 0.0, tol) for tol in tolerances]
    errors = np.array([rms(r.final - exact) for r in runs])
    work = np.array([(r.steps_taken + r.steps_rejected).mean() for r in runs])
    return errors, work


def test_the_error_is_proportional_to_the_tolerance():
    errors, work = strong_errors()
    in_tolerance, in_work = slope(TOLERANCES, errors), slope(work, errors)
    print(f"\nstrong error ~ tolerance^{in_tolerance:.2f} ~ steps^{in_work:.2f}")
    assert 0.9 < in_tolerance < 1.15
    assert -1.7 < in_work < -1.35  # strong order 1.5


def test_steps_chosen_by_the_realised_error_alone_lose_half_an_order(monkeypatch):
    """Why the estimate is an expected one: steps must not look into their own increments."""

    @njit(inline="always", error_model="numpy")
    def realised(f0, f1, g0, g1, g2, g3, dw, dz, dt, root_dt):
        return realised_error(f0, f1, g0, g1, g2, g3, dw, dz, dt)

    broken = dataclasses.replace(ADAPTIVE_SRI, stages=SRI.stages, error=realised)
    monkeypatch.setitem(SCHEMES, "adaptive_sri", broken)
    tolerances = 10.0 ** -np.arange(3.0, 5.5, 0.5)
    errors, work = strong_errors(tolerances)
    assert slope(tolerances, errors) < 0.8
    assert slope(work, errors) > -1.25


def test_the_expected_error_is_the_mean_square_of_the_realised_one():
    """By Gauss-Hermite quadrature over ΔW and H, which is exact for these polynomials."""
    g, h = (0.7, 1.1, -0.4, 2.3), 0.3
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    total, support = 0.0, 0.0
    for (z1, w1), (z2, w2) in itertools.product(zip(nodes, weights, strict=True), repeat=2):
        dw, area = math.sqrt(h) * z1, math.sqrt(h / 12) * z2
        dz, chance = h * (dw / 2 + area), w1 * w2 / (2 * math.pi)
        total += chance * realised_error(0.0, 0.0, *g, dw, dz, h) ** 2
        support += chance * drift_support_kick(0.0, g[0], dw, dz, h, math.sqrt(h)) ** 2
    assert expected_error(0.0, 0.0, *g, h) == pytest.approx(math.sqrt(total), rel=1e-12)
    assert probe_kick(0.0, *g, 0.0, 0.0, h, math.sqrt(h)) == pytest.approx(math.sqrt(support), rel=1e-12)
    assert expected_error(1.0, 4.0, 0.0, 0.0, 0.0, 0.0, h) == pytest.approx(2 * h)
    assert realised_error(1.0, 4.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, h) == pytest.approx(2 * h)


def test_paths_follow_their_brownian_path():
    """Against fixed steps on the same path, refined 64 times; three components, coefficients that depend on time."""
    x0 = [0.5, 1.0, 2.0]
    both = sde.brownian_increments(3, 200, (0, 1), 32, n=2048, dim=3, space_time=True)
    fine = sde.simulate(Seasonal(), x0, (0, 1), n_steps=2048, n_paths=200, increments=both, method="sri").final
    errors = [rms(run(Seasonal(), x0, tol, n_steps=32, n_paths=200).final - fine) for tol in (1e-3, 1e-4, 1e-5)]
    assert errors[0] < 2e-3
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1] / 4
    # negative control: another seed is another path
    assert rms(run(Seasonal(), x0, 1e-5, n_steps=32, n_paths=200, seed=4).final - fine) > 0.1


def test_float32():
    final = run(Sinh(), 0.0, 1e-3, dtype=np.float32, n_paths=300)
    w = sde.brownian_increments(3, 300, (0, 1), 4, n=1, dtype=np.float32)[:, 0, 0]
    assert final.final.dtype == np.float32
    assert rms(final.final - Sinh().solution(w.astype(float), 1.0)) < 5e-3


# ---- the same bits in any company -----------------------------------------------------------------------------------


def test_a_path_is_the_same_in_any_company():
    whole = run(Sinh(), 0.0, 1e-2, n_paths=700, save="all", n_steps=8)
    alone = run(Sinh(), 0.0, 1e-2, n_paths=1, first_path=600, n_steps=8)
    assert alone.final[0] == whole.final[600]
    assert alone.steps_taken[0] == whole.steps_taken[600]
    parts = [run(Sinh(), 0.0, 1e-2, n_paths=n, first_path=first, n_steps=8) for first, n in ((0, 333), (333, 367))]
    for name in ("final", "steps_taken", "steps_rejected"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    # waiting for each other at the recorded times changes nothing; nor do other workers and other blocks
    for workers in (1, 2):
        other = run(Sinh(), 0.0, 1e-2, n_paths=700, save=4, n_steps=8, workers=workers)
        assert np.array_equal(other.x, whole.x[:, ::4])
        assert np.array_equal(other.steps_rejected, whole.steps_rejected)
    moments = run(Sinh(), 0.0, 1e-2, n_paths=700, n_steps=8, reduce=[sde.Moments()]).reductions[0]
    assert moments.mean == pytest.approx(whole.final.mean(), rel=1e-12)


def test_steps_are_counted_and_differ_between_paths():
    paths = run(Sinh(), 0.0, 1e-3)
    assert paths.steps_taken.shape == paths.steps_rejected.shape == (N,)
    assert paths.steps_taken.dtype == np.int64
    assert paths.steps_taken.min() >= 4
    assert len(np.unique(paths.steps_taken)) > 20
    assert paths.steps_rejected.sum() < 0.1 * paths.steps_taken.sum()
    constant = run(sde.Wiener(1.0), 0.0, 1e-3)
    assert set(constant.steps_taken) == {4}
    assert not constant.steps_rejected.any()


# ---- the law --------------------------------------------------------------------------------------------------------


def p_value(x, mean, variance):
    """Bonferroni-corrected p-value of mean and variance being those of a normal law."""
    n = len(x)
    scores = [(x.mean() - mean) * math.sqrt(n / variance), (((x - mean) ** 2).mean() / variance - 1) * math.sqrt(n / 2)]
    return 2 * float(special.erfc(max(map(abs, scores)) / math.sqrt(2)))


def emulated(redraw, tol=0.02, n=20_000, finest=8, sigma=0.8):
    """Milstein steps on dX = σ X dW that halve where the realised error is large, on fixed or on redrawn increments."""
    rng = np.random.default_rng(1)
    cells = 2**finest
    w = np.concatenate([np.zeros((n, 1)), rng.normal(size=(n, cells)).cumsum(axis=1) / math.sqrt(cells)], axis=1)
    x, at, size = np.ones(n), np.zeros(n, int), np.full(n, cells // 4)
    while (at < cells).any():
        rows = np.flatnonzero(at < cells)
        h = size[rows] / cells
        dw = w[rows, at[rows] + size[rows]] - w[rows, at[rows]]
        if redraw:
            dw = rng.normal(size=len(rows)) * np.sqrt(h)
        error = abs(sigma**3 * x[rows] * (dw**3 - 3 * h * dw) / 6)
        good = (error <= tol) | (size[rows] == 1)
        x[rows[good]] *= 1 + sigma * dw[good] + sigma**2 * (dw[good] ** 2 - h[good]) / 2
        at[rows[good]] += size[rows[good]]
        size[rows[good]] = np.where(
            at[rows[good]] % (2 * size[rows[good]]) == 0, 2 * size[rows[good]], size[rows[good]]
        )
        size[rows[good]] = np.minimum(size[rows[good]], cells // 4)
        size[rows[~good]] //= 2
    return np.log(x)


def test_rejection_does_not_bend_the_law():
    sigma = 0.8
    paths = run(sde.GeometricBrownian(mu=0.0, sigma=sigma), 1.0, 3e-3, n_paths=50_000, workers=2)
    assert paths.steps_rejected.sum() > 10_000
    assert p_value(np.log(paths.final), -(sigma**2) / 2, sigma**2) > 1e-5
    ou = run(sde.OrnsteinUhlenbeck(theta=3.0, mu=0.0, sigma=1.0), 2.0, 1e-2, n_paths=50_000, workers=2)
    assert p_value(ou.final, 2 * math.exp(-3.0), (1 - math.exp(-6.0)) / 6) > 1e-5


def test_an_engine_that_redraws_after_rejection_would_be_caught():
    kept, redrawn = emulated(redraw=False), emulated(redraw=True)
    assert p_value(kept, -0.32, 0.64) > 1e-5
    assert p_value(redrawn, -0.32, 0.64) < 1e-5


# ---- without noise --------------------------------------------------------------------------------------------------


def reference(span=10.0):
    def right_side(t, x):
        return [x[1], 5.0 * (1.0 - x[0] ** 2) * x[1] - x[0]]

    exact = scipy_integrate.solve_ivp(right_side, (0, span), [2.0, 0.0], method="DOP853", rtol=1e-13, atol=1e-13)
    scipys = [
        scipy_integrate.solve_ivp(right_side, (0, span), [2.0, 0.0], method="RK45", rtol=tol, atol=tol)
        for tol in (1e-4, 1e-6, 1e-8)
    ]
    return exact.y[:, -1], scipys


def test_dopri5_against_scipy():
    exact, scipys = reference()
    runs = [
        sde.simulate(VanDerPol(), [[2.0, 0.0]], (0, 10), method="dopri5", rtol=tol, atol=tol)
        for tol in (1e-4, 1e-6, 1e-8)
    ]
    ours = [abs(paths.final[0] - exact).max() for paths in runs]
    theirs = [abs(solution.y[:, -1] - exact).max() for solution in scipys]
    assert slope([1e-4, 1e-6, 1e-8], ours) > 0.8
    for mine, other, paths, solution in zip(ours, theirs, runs, scipys, strict=True):
        assert mine < 5 * other
        assert paths.steps_taken[0] < 2 * len(solution.t)
        assert paths.steps_rejected[0] < 0.2 * paths.steps_taken[0]


def fixed_error(n_steps):
    """With a tolerance that refuses nothing, dopri5 takes the n_steps as they are."""
    paths = sde.simulate(
        Seasonal0(), 1.0, (0, 1), n_steps=n_steps, n_paths=1, method="dopri5", rtol=1e9, atol=1e9, on_nonfinite="ignore"
    )
    assert paths.steps_taken[0] == n_steps
    return abs(paths.final[0] - math.exp(0.2 + math.sin(3.0) / 3))


@dataclasses.dataclass(frozen=True)
class Seasonal0(Seasonal):
    """Without noise: x = exp(0.2 t + sin(3t)/3)."""

    def diffusion(self, x, t):
        return 0.0


def test_dopri5_has_order_5():
    steps = np.array([8, 16, 32, 64])
    assert slope(1 / steps, [fixed_error(n) for n in steps]) == pytest.approx(5.0, abs=0.25)


def tableau():
    """(A, b, b − b*) of the stage functions, which are linear in the evaluations: one number at a time."""
    a = np.zeros((7, 7))
    for row, stage in enumerate(DOPRI5.stages[:-1], start=1):
        a[row, :row] = [stage.move(0.0, *np.eye(row)[j], 1.0) for j in range(row)]
    return a, a[6], np.array([DOPRI5.error(*np.eye(7)[j], 1.0) for j in range(7)])


@functools.cache
def trees(order):
    """Rooted trees, as sorted tuples of their branches."""
    if order == 1:
        return [()]
    return sorted(
        {
            tuple(sorted(branches))
            for sizes in partitions(order - 1)
            for branches in itertools.product(*[trees(size) for size in sizes])
        }
    )


def partitions(n, largest=None):
    for first in range(min(n, largest or n), 0, -1):
        for rest in partitions(n - first, first) if n > first else [()]:
            yield (first, *rest)


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * math.prod(map(density, tree))


def weight(tree, a):
    return math.prod([a @ weight(branch, a) for branch in tree], start=np.ones(len(a)))


def order_of(a, b):
    """The largest p <= 6 with b·Φ(τ) = 1/γ(τ) for all trees of up to p nodes (Hairer et al. 1993, Theorem II.2.13)."""
    for order in range(1, 7):
        if any(abs(b @ weight(tree, a) - 1 / density(tree)) > 1e-12 for tree in trees(order)):
            return order - 1
    return 6


def test_the_tableau_of_dopri5():
    a, b, difference = tableau()
    assert [len(trees(order)) for order in range(1, 6)] == [1, 1, 2, 4, 9]
    assert [stage.at for stage in DOPRI5.stages] == pytest.approx(a.sum(axis=1), abs=1e-14)
    assert order_of(a, b) == 5
    assert order_of(a, b - difference) == 4
    # any entry that is off by a thousandth is seen
    for row, column in np.argwhere(a[:6] != 0):
        broken = a.copy()
        broken[row, column] *= 1.001
        assert order_of(broken, b) < 5, (row, column)
    for column in np.flatnonzero(b):
        assert order_of(a, b * (1 + 0.001 * np.eye(7)[column])) == 0


def test_dopri5_draws_no_random_numbers():
    x0 = np.random.default_rng(0).normal(size=(300, 2))
    runs = [
        sde.simulate(VanDerPol(), x0, (0, 3), method="dopri5", rtol=1e-5, seed=seed, first_path=first, save=[1.5, 3.0])
        for seed, first in ((1, 0), (2, 100))
    ]
    assert np.array_equal(runs[0].x, runs[1].x)
    assert len(np.unique(runs[0].steps_taken)) > 5


# ---- arguments, and what cannot be had ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Explosion(sde.Process):
    """x' = x²: x = 1/(1/x₀ − t) ends at t = 1/x₀."""

    def drift(self, x, t):
        return x * x

    def diffusion(self, x, t):
        return 0.0


def test_a_path_without_an_end_is_named():
    x0 = np.array([0.1, 0.5, 1.25, 0.2])
    with pytest.raises(sde.errors.NonFiniteError, match=r"1 of 4 paths .* first path 2 at step 26 .*loosen them"):
        sde.simulate(Explosion(), x0, (0, 1), method="dopri5", n_steps=32)
    with pytest.warns(RuntimeWarning, match="frozen at their last finite states"):
        paths = sde.simulate(Explosion(), x0, (0, 1), method="dopri5", n_steps=32, on_nonfinite="freeze")
    assert paths.final[[0, 1, 3]] == pytest.approx(1 / (1 / x0[[0, 1, 3]] - 1), rel=1e-3)
    assert np.isfinite(paths.final[2])
    assert paths.final[2] > 1e5
