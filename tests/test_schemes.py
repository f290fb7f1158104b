"""Schemes: observed orders, exact moments of the recursions, and mutants that the same checks must catch."""

import dataclasses
import math

import numpy as np
import pytest
from numba import njit

import sdesim as sde
from sdesim import bind
from sdesim.core import stream
from sdesim.integrate.schemes import EULER_MARUYAMA, HEUN, MILSTEIN, SCHEMES, Scheme, Stage, euler_maruyama

LEVELS = np.array([5, 6, 7, 8, 9])  # log2 of the steps
FINE = 13
N_PATHS = 400
T = 1.0


@dataclasses.dataclass(frozen=True)
class Seasonal(sde.Process):
    """dX = (μ + cos 3t) X dt + σ X dW: multiplicative, time-dependent, and known path by path."""

    mu: float = 0.2
    sigma: float = 1.0

    def drift(self, x, t):
        return (self.mu + np.cos(3.0 * t)) * x

    def diffusion(self, x, t):
        return self.sigma * x

    def diffusion_dx(self, x, t):
        return self.sigma

    def solution(self, x0, w):
        ito = 0.5 * self.sigma**2 if self.calculus == "ito" else 0.0
        return x0 * np.exp((self.mu - ito) * T + np.sin(3.0 * T) / 3.0 + self.sigma * w)


class SeasonalWithoutDerivative(Seasonal):
    diffusion_dx = None


class SeasonalStratonovich(Seasonal):
    calculus = "stratonovich"


@dataclasses.dataclass(frozen=True)
class Spring(sde.Process):
    """dX = (cos 3t − X³) dt + σ dW: additive noise, nonlinear drift."""

    sigma: float = 0.6

    def drift(self, x, t):
        return np.cos(3.0 * t) - x * x * x

    def diffusion(self, x, t):
        return self.sigma


def fine_increments():
    z = stream.normals(31, stream.WIENER, N_PATHS, 1, 2**FINE)
    return np.sqrt(T / 2**FINE) * z[:, 0]


def run(process, method, level, w):
    """The end points with 2^level steps on the Brownian paths ``w``."""
    coarse = w.reshape(N_PATHS, 2**level, -1).sum(axis=2)
    return sde.simulate(process, 1.0, (0, T), n_steps=2**level, n_paths=N_PATHS, method=method, increments=coarse)


def strong_order(process, method):
    """The 95 % bootstrap interval of the slope of log E|X_h − X| against log h, on common Brownian paths."""
    w = fine_increments()
    levels = LEVELS
    if hasattr(process, "solution"):
        true = process.solution(1.0, w.sum(axis=1))
    else:
        true, levels = run(process, method, FINE, w).final, LEVELS - 1
    errors = np.stack([abs(run(process, method, level, w).final - true) for level in levels])
    rng = np.random.default_rng(1)
    h = -levels * math.log(2)
    h -= h.mean()
    slopes = []
    for _ in range(400):
        mean = errors[:, rng.integers(0, N_PATHS, N_PATHS)].mean(axis=1)
        slopes.append(h @ np.log(mean) / (h @ h))
    return np.quantile(slopes, [0.025, 0.975])


def has_order(interval, order):
    low, high = interval
    return low <= order <= high and low > order - 0.25 and high < order + 0.25


ORDERS = [
    ("euler_maruyama", Seasonal(), 0.5),
    ("euler_maruyama", Spring(), 1.0),
    ("milstein", Seasonal(), 1.0),
    ("milstein", SeasonalWithoutDerivative(), 1.0),
    ("platen", Seasonal(), 1.0),
    ("heun", SeasonalStratonovich(), 1.0),
    ("midpoint", SeasonalStratonovich(), 1.0),
    ("heun", Seasonal(), 1.0),
]


@pytest.mark.parametrize(
    ("method", "process", "order"),
    ORDERS,
    ids=lambda v: str(v) if not isinstance(v, sde.Process) else type(v).__name__,
)
def test_strong_order(method, process, order):
    interval = strong_order(process, method)
    assert has_order(interval, order), interval
    assert SCHEMES[method].strong_order == order or isinstance(process, Spring)


# ---- mutants: each must fail the check that the scheme passes --------------------------------------------


@njit(inline="always")
def scaled_kick(y, g, dw, dt, root_dt):
    return y + g * dw / root_dt  # the √dt lost


@njit(inline="always")
def kick_without_half(y, g, dg, dw, dt, root_dt):
    return y + g * dw + g * dg * (dw * dw - dt)


@njit(inline="always")
def kick_without_dt(y, g, dg, dw, dt, root_dt):
    half = type(dw)(0.5)
    return y + g * dw + half * g * dg * dw * dw


@njit(inline="always")
def left_point_kick(y, g0, g1, dw, dt, root_dt):
    return y + g0 * dw  # Itô's left point in a Stratonovich scheme


def mutant_of(scheme, *stages):
    return dataclasses.replace(scheme, name="mutant", stages=stages)


MILSTEIN_NOISES = ("diffusion", "diffusion_dx")
HEUN_START, HEUN_END = HEUN.stages


def milstein_with(kick):
    return mutant_of(MILSTEIN, Stage(euler_maruyama.move, kick, noises=MILSTEIN_NOISES))


STRATONOVICH = SeasonalStratonovich()
MUTANTS = {
    "euler without root dt": (
        mutant_of(EULER_MARUYAMA, Stage(euler_maruyama.move, scaled_kick)), Seasonal(), 0.5,
    ),
    "milstein without the half": (milstein_with(kick_without_half), Seasonal(), 1.0),
    "milstein without dt": (milstein_with(kick_without_dt), Seasonal(), 1.0),
    "heun with the left point": (
        mutant_of(HEUN, HEUN_START, Stage(HEUN_END.move, left_point_kick, at=1.0)), STRATONOVICH, 1.0,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_has_not_the_order(name, monkeypatch):
    scheme, process, order = MUTANTS[name]
    assert isinstance(scheme, Scheme)
    monkeypatch.setitem(SCHEMES, "mutant", scheme)
    interval = strong_order(process, "mutant")
    assert not has_order(interval, order), interval


@pytest.mark.parametrize(("method", "process"), [("heun", Seasonal()), ("euler_maruyama", SeasonalStratonovich())])
def test_a_missing_conversion_has_no_order(method, process, monkeypatch):
    monkeypatch.setattr(bind, "_drift_sign", lambda process, scheme: 0.0)
    interval = strong_order(process, method)
    assert not has_order(interval, SCHEMES[method].strong_order), interval


# ---- one Stratonovich equation, four routes --------------------------------------------------------------

MU, SIGMA = 0.3, 0.5


def routes():
    written = sde.stratonovich(lambda x, t, mu: mu * x, lambda x, t, sigma: sigma * x, mu=MU, sigma=SIGMA)
    with_derivative = sde.stratonovich(
        lambda x, t, mu: mu * x, lambda x, t, sigma: sigma * x,
        diffusion_dx=lambda x, t, sigma: sigma, mu=MU, sigma=SIGMA,
    )  # fmt: skip
    twin = sde.GeometricBrownian(MU + 0.5 * SIGMA**2, SIGMA)
    return [
        (written, "heun"), (written, "euler_maruyama"), (written, "milstein"),
        (with_derivative, "heun"), (with_derivative, "euler_maruyama"),
        (twin, "heun"), (twin, "euler_maruyama"), (twin, "exact"),
    ]  # fmt: skip


def means_against_the_closed_form():
    """Relative distance of each route's mean from that of the closed form on the same Brownian paths."""
    n, n_steps = 20_000, 256
    w = sde.simulate(sde.Wiener(1.0), 0.0, (0, T), n_steps=n_steps, n_paths=n, seed=41).final
    true = np.exp(MU * T + SIGMA * w)
    return [
        sde.simulate(process, 1.0, (0, T), n_steps=n_steps, n_paths=n, seed=41, method=method).final.mean()
        / true.mean()
        - 1.0
        for process, method in routes()
    ]


def test_a_stratonovich_equation_by_all_routes_has_one_mean():
    assert np.abs(means_against_the_closed_form()).max() < 2e-3


def test_without_the_conversion_the_means_differ(monkeypatch):
    monkeypatch.setattr(bind, "_drift_sign", lambda process, scheme: 0.0)
    off = np.abs(means_against_the_closed_form())
    converted = [True, True]  # Itô schemes on the Stratonovich process, Heun on the Itô one
    assert [off[1] > 0.1, off[5] > 0.1] == converted
    assert max(off[0], off[6]) < 2e-3


# ---- exact steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "process",
    [
        sde.OrnsteinUhlenbeck(1.7, 0.4, 0.9),
        sde.OrnsteinUhlenbeck(0.0, 0.4, 0.9),
        sde.OrnsteinUhlenbeck(-0.5),
        sde.GeometricBrownian(0.3, 0.5),
        sde.Wiener(0.7),
    ],
)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_exact_steps_have_the_law(process, n_steps):
    n, t = 200_000, 1.3
    x = sde.simulate(process, 1.2, (0, t), n_steps=n_steps, n_paths=n, method="exact", seed=n_steps).final
    mean, variance = float(process.mean(t, 1.2)), float(process.variance(t, 1.2))
    assert abs(x.mean() - mean) < 4.5 * math.sqrt(variance / n)
    fourth = ((x - mean) ** 4).mean()
    assert abs(x.var() - variance) < 4.5 * math.sqrt((fourth - variance**2) / n)
    # a spread wrong by 2 % would be noticed
    assert abs(1.02**2 * x.var() - variance) > 4.5 * math.sqrt((fourth - variance**2) / n)


def test_exact_geometric_steps_are_the_closed_form_for_any_step():
    w = fine_increments()
    process = sde.GeometricBrownian(0.3, 0.5)
    true = np.exp(0.3 - 0.125 + 0.5 * w.sum(axis=1))
    for level in (0, 3, 8):
        np.testing.assert_allclose(run(process, "exact", level, w).final, true, rtol=1e-12)


# ---- exact moments of the recursions: no sampling error on one side --------------------------------------

A, S, STEPS, SPAN = 0.4, 0.5, 8, 2.0
H = SPAN / STEPS


def power(first, second, x0=1.0):
    """Mean and second moment after STEPS multiplications by a random factor with these moments."""
    return x0 * first**STEPS, x0**2 * second**STEPS


def ou_euler(theta=A, mu=0.7, sigma=S, x0=1.0):
    m, v = x0, 0.0
    for _ in range(STEPS):
        m, v = m + theta * (mu - m) * H, (1 - theta * H) ** 2 * v + sigma**2 * H
    return m, v + m * m


def heun_factor(a=A, s=S):
    """1 + u + u²/2 for u ~ N(ah, s²h)."""
    m, v = a * H, s * s * H
    u2, u3, u4 = m**2 + v, m**3 + 3 * m * v, m**4 + 6 * m**2 * v + 3 * v**2
    return 1 + m + u2 / 2, 1 + 2 * m + 2 * u2 + u3 + u4 / 4


RECURSIONS = {
    "euler, OU": (sde.OrnsteinUhlenbeck(A, 0.7, S), "euler_maruyama", ou_euler(), ou_euler(theta=1.05 * A)),
    "euler, GBM": (
        sde.GeometricBrownian(A, S), "euler_maruyama",
        power(1 + A * H, (1 + A * H) ** 2 + S**2 * H), power(math.exp(A * H), math.exp((2 * A + S**2) * H)),
    ),
    "milstein, GBM": (
        sde.GeometricBrownian(A, S), "milstein",
        power(1 + A * H, (1 + A * H) ** 2 + S**2 * H + 0.5 * S**4 * H**2),
        power(1 + A * H + 0.5 * S**2 * H, (1 + A * H) ** 2 + S**2 * H),
    ),
    "heun, Stratonovich GBM": (
        sde.stratonovich(lambda x, t, a: a * x, lambda x, t, s: s * x, a=A, s=S), "heun",
        power(*heun_factor()), power(1 + A * H, (1 + A * H) ** 2 + S**2 * H),
    ),
    "heun, Ito GBM": (
        sde.GeometricBrownian(A, S), "heun",
        power(*heun_factor(A - 0.5 * S**2)), power(*heun_factor()),
    ),
    "euler, Stratonovich GBM": (
        sde.stratonovich(lambda x, t, a: a * x, lambda x, t, s: s * x, a=A, s=S), "euler_maruyama",
        power(1 + (A + 0.5 * S**2) * H, (1 + (A + 0.5 * S**2) * H) ** 2 + S**2 * H),
        power(1 + A * H, (1 + A * H) ** 2 + S**2 * H),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), [(name, np.float64) for name in RECURSIONS] + [("euler, GBM", np.float32)])
def test_moments_of_the_recursion(name, dtype):
    process, method, (mean, second), wrong = RECURSIONS[name]
    n = 400_000
    x = sde.simulate(process, 1.0, (0, SPAN), n_steps=STEPS, n_paths=n, method=method, seed=6, dtype=dtype).final
    x = x.astype(float)
    error = np.array([x.std(), (x * x).std()]) / math.sqrt(n)
    found = np.array([x.mean(), (x * x).mean()])
    assert (abs(found - (mean, second)) < 4 * error).all()
    assert (abs(found - wrong) > 4 * error).any()


# ---- the table -------------------------------------------------------------------------------------------


def test_the_table_of_methods():
    table = {row["name"]: row for row in sde.methods()}
    assert {"exact", "euler_maruyama", "milstein", "heun"} <= set(table)
    for row in table.values():
        assert set(row) == {"name", "strong_order", "weak_order", "noise", "calculus", "reference"}
        assert row["calculus"] in ("ito", "stratonovich")
        assert set(row["noise"]) <= {"none", "additive", "diagonal", "general"}
