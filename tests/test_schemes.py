"""Schemes: observed orders, exact moments of the recursions, and mutants that the same checks must catch."""

import dataclasses
import importlib.util
import math
import pathlib
import sys

import numpy as np
import pytest
from numba import njit
from scipy import special, stats

import sdesim as sde
from sdesim import bind
from sdesim.core import stream
from sdesim.execution import execute
from sdesim.integrate.schemes import (
    EULER_MARUYAMA,
    HEUN,
    MILSTEIN,
    SCHEMES,
    Scheme,
    Stage,
    baoab,
    euler_maruyama,
    mala,
    sri,
)  # fmt: skip
from sdesim.preparation import prepare

LEVELS = np.array([5, 6, 7, 8, 9])  # log2 of the steps
FINE = 13
N_PATHS = 400
T = 1.0


@pytest.fixture(autouse=True, scope="module")
def _only_the_schemes_of_the_library():
    """The benchmark opens law-only schemes and keeps them in the table; other tests look at that table."""
    before = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(before)


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


# ---- every scheme's order, measured as benchmarks/convergence.py does --------------------------------------


def _benchmark():
    """benchmarks/convergence.py as a module: its problems and its measurements."""
    path = pathlib.Path(__file__).resolve().parent.parent / "benchmarks" / "convergence.py"
    spec = importlib.util.spec_from_file_location("convergence", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _benchmark()


@pytest.fixture(scope="module")
def strong():
    return bench.Strong(quick=True)


STRONG = [
    ("sra", bench.Circle(), "additive", 1.5),
    ("sri", bench.Tanh(), "diagonal", 1.5),
    ("tamed_euler", bench.Tanh(), "diagonal", 0.5),
    ("implicit_euler", bench.SeasonalGBM(), "diagonal", 0.5),
    ("implicit_euler", bench.Circle(), "additive", 1.0),
    ("implicit_trapezoid", bench.SeasonalGBM(), "diagonal", 0.5),
    ("milstein_commutative", bench.TwoAssets(), "commutative", 1.0),
    ("milstein_commutative", bench.TwoTurns(), "general", 0.5),
    ("milstein_levy", bench.TwoTurns(), "general", 1.0),
    ("baoab", bench.UNDERDAMPED, "additive", 1.0),
]


def lies_near(found, order):
    """Within a quarter: these are few paths and levels, and intervals are the benchmark's business."""
    return abs(found["slope"] - order) < 0.25


@pytest.mark.parametrize(("method", "process", "kind", "order"), STRONG, ids=lambda v: getattr(v, "name", str(v)))
def test_the_strong_order_of_each_noise(method, process, kind, order, strong):
    assert bench.stated(SCHEMES[method], kind)[0] == order
    found = strong.measure(method, process)
    assert lies_near(found, order), found


WEAK = [
    ("sra", bench.Circle(), "additive", 2.0),
    ("sri", bench.Circle(), "additive", 2.0),
    ("implicit_trapezoid", bench.SeasonalGBM(), "diagonal", 1.0),
    ("weak_euler", bench.SeasonalGBM(), "diagonal", 1.0),
    ("weak_second", bench.SeasonalGBM(), "diagonal", 2.0),
    ("weak_second", bench.TwoTurns(), "general", 2.0),
    ("milstein_levy", bench.TwoTurns(), "general", 1.0),
    ("baoab", bench.UNDERDAMPED_GAUSSIAN, "additive", 2.0),
]


@pytest.mark.parametrize(("method", "process", "kind", "order"), WEAK, ids=lambda v: getattr(v, "name", str(v)))
def test_the_weak_order_without_sampling(method, process, kind, order):
    assert bench.stated(SCHEMES[method], kind)[1] == order
    found = bench.weak_order(SCHEMES[method], process, quick=True)
    assert lies_near(found, order), found


def test_rk4_has_order_four():
    assert bench.verdict(bench.ode_order(SCHEMES["rk4"], bench.Cubic()), 4.0)


@pytest.mark.parametrize(
    ("method", "process"), [("weak_second", bench.SeasonalGBM()), ("weak_second", bench.TwoTurns())], ids=str
)
def test_paths_of_a_law_only_scheme_have_the_moments_of_its_recursion(method, process, monkeypatch):
    bound = 4.5  # at most 6 moments
    assert bench.paths_against_recursion(SCHEMES[method], process) < bound
    shifted = bench.moments(SCHEMES["weak_euler"], process, 8)
    monkeypatch.setattr(bench, "moments", lambda *_: shifted)
    assert bench.paths_against_recursion(SCHEMES[method], process) > bound


# ---- mutants of these ----------------------------------------------------------------------------------------


def mutated(scheme, number, **parts):
    """The scheme with parts of one of its stages replaced."""
    stages = list(scheme.stages)
    stages[number] = dataclasses.replace(stages[number], **parts)
    return dataclasses.replace(scheme, name="mutant", stages=tuple(stages))


@njit(inline="always")
def weak_support_kick(y, g0, g1, dw, dz, dt, root_dt):
    return y + g1 * dz / dt  # 3/2 lost


@njit(inline="always")
def kick_without_cubes(y, g0, g1, g2, g3, dw, dz, dt, root_dt):
    return y + sri.milstein_part(g0, g1, g2, dw, root_dt)


@njit(inline="always")
def one_sided_kick(y, g0, g1, dw, dt, root_dt):
    return y + g0 * dw  # the drift's effect on the noise lost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "process"),
    [
        (mutated(SCHEMES["sra"], 1, kick=weak_support_kick), bench.Circle()),
        (mutated(SCHEMES["sri"], 4, kick=kick_without_cubes), bench.Tanh()),
    ],
    ids=["sra without 3/2", "sri without its correction"],
)
def test_a_mutant_has_not_strong_order_one_and_a_half(scheme, process, strong, monkeypatch):
    monkeypatch.setitem(SCHEMES, "mutant", scheme)
    assert not lies_near(strong.measure("mutant", process), 1.5)


@pytest.mark.slow
def test_a_mutant_of_weak_second_has_not_order_two(monkeypatch):
    law_only = SCHEMES["weak_second"]
    stages = (*law_only.general_stages[:2], dataclasses.replace(law_only.general_stages[2], kick=one_sided_kick))
    scheme = dataclasses.replace(law_only, name="mutant", general_stages=stages)
    monkeypatch.setitem(SCHEMES, "mutant", scheme)
    monkeypatch.delitem(SCHEMES, "mutant, increments given", raising=False)
    assert not lies_near(bench.weak_order(scheme, bench.TwoTurns(), quick=True), 2.0)


@njit(inline="always")
def whole_move(x, rate, dt):
    return x + type(dt)(0.55) * dt * rate


@pytest.mark.slow
def test_a_mutant_of_baoab_has_not_order_two(monkeypatch):
    monkeypatch.setattr(baoab, "half_move", whole_move)
    scheme = dataclasses.replace(SCHEMES["baoab"], name="mutant")
    monkeypatch.setitem(SCHEMES, "mutant", scheme)
    assert not lies_near(bench.weak_order(scheme, bench.UNDERDAMPED_GAUSSIAN, quick=True), 2.0)


# ---- what single schemes are for -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Steep(sde.Process):
    """dX = −X³ dt + dW: Euler's moments blow up from far out."""

    def drift(self, x, t):
        return -x * x * x

    def diffusion(self, x, t):
        return 1.0


def test_tamed_euler_comes_back_from_where_euler_blows_up():
    n, n_steps = 300, 400
    w = math.sqrt(20.0 / n_steps) * stream.normals(5, stream.WIENER, n, 1, n_steps)[:, 0]
    end = sde.simulate(Steep(), 50.0, (0, 20), n_steps=n_steps, n_paths=n, method="tamed_euler", increments=w).final
    assert abs(end).max() < 4.0
    with pytest.raises(RuntimeError, match="non-finite"):
        sde.simulate(Steep(), 50.0, (0, 20), n_steps=n_steps, n_paths=n, increments=w)


@dataclasses.dataclass(frozen=True)
class Stiff(sde.Process):
    """dX = −1000 (X − cos t) dt + dW."""

    name, start = "stiff", (1.0,)

    def drift(self, x, t):
        return -1000.0 * (x - np.cos(t))

    def diffusion(self, x, t):
        return 1.0


@pytest.mark.parametrize("method", ["implicit_euler", "implicit_trapezoid"])
def test_implicit_steps_are_stable_where_the_drift_is_stiff(method):
    """A step of 100 time constants; the trapezium keeps the stationary variance 1/2000, implicit Euler damps it."""
    h, rate = 0.1, 1000.0
    points, weights = bench.nodes(SCHEMES[method], Stiff(), h, True, 6)
    at_zero, at_one = (
        bench.advance(Stiff(), SCHEMES[method], np.full((6, 1), x), 0.0, h, points)[:, 0] for x in (0.0, 1.0)
    )
    factor = at_one - at_zero
    np.testing.assert_allclose(factor, factor[0], rtol=1e-9)
    assert abs(factor[0]) < 1.0
    variance = weights @ (at_zero - weights @ at_zero) ** 2 / (1.0 - factor[0] ** 2)
    expected = {"implicit_euler": h / ((1 + rate * h) ** 2 - 1), "implicit_trapezoid": 1.0 / (2.0 * rate)}[method]
    assert variance == pytest.approx(expected, rel=1e-9)
    w = math.sqrt(h) * stream.normals(5, stream.WIENER, 300, 1, 10)[:, 0]
    end = sde.simulate(Stiff(), 1.0, (0, 1), n_steps=10, n_paths=300, method=method, increments=w).final
    assert abs(end.mean() - math.cos(1.0)) < 0.02


def lattice_distance(run):
    """L1 distance of a histogram on 100 bins from the law of W at time 1."""
    end = execute(run, executor=None, workers=1, progress=False).final[:, 0]
    edges = np.linspace(-4.0, 4.0, 101)
    counts = np.histogram(end, edges)[0] / len(end)
    return abs(counts - np.diff(special.ndtr(edges))).sum()


def lattice_run(method):
    return prepare(
        sde.Wiener(1.0), 0.0, (0, 1), n_steps=200, n_paths=400_000, method=method, save="final", reduce=None, seed=3,
        dtype=np.float64, first_path=0, increments=None, boundary=None, rtol=None, atol=None, on_nonfinite="raise",
    )  # fmt: skip


def test_four_gaussian_steps_take_the_lattice_away():
    floor = lattice_distance(lattice_run("euler_maruyama"))
    assert lattice_distance(lattice_run("weak_euler")) < 1.3 * floor
    without = lattice_run("weak_euler")
    without.landings = np.zeros(0, np.int64)
    assert lattice_distance(without) > 10.0 * floor


# ---- the areas of milstein_levy ------------------------------------------------------------------------------


def levy_areas(n=20_000, n_steps=64, span=2.0):
    """Areas A_12 and increments of every step, read off dX = (dW_1, X_1 dW_2, dW_2): X_2 collects I_(1,2)."""
    process = sde.ito(
        lambda x, t: (0.0 * x[0], 0.0 * x[0], 0.0 * x[0]),
        lambda x, t: ((1.0, 0.0), (0.0, x[0]), (0.0, 1.0)),
        dim=3, noise="general",
    )  # fmt: skip
    x = sde.simulate(
        process, (0.0, 0.0, 0.0), (0, span), n_steps=n_steps, n_paths=n, method="milstein_levy", save="all", seed=12
    ).x
    dw = np.diff(x[..., [0, 2]], axis=1)
    iterated = np.diff(x[..., 1], axis=1) - x[:, :-1, 0] * dw[..., 1]
    h = span / n_steps
    return (iterated - 0.5 * dw[..., 0] * dw[..., 1]).ravel() / h, dw.reshape(-1, 2) / math.sqrt(h)


def area_scores(area, w):
    """In standard errors: mean, E A² = 1/4, E A² given W (1 + |W|²)/12, E A⁴ = 5/16 (from E e^{iuA} = 1/cosh(u/2))."""
    given = (1.0 + (w**2).sum(axis=1)) / 12.0
    residual = [
        area, area * area - 0.25, (area * area - given) * ((w**2).sum(axis=1) - 2.0), area**4 - 5.0 / 16.0,
        area * w[:, 0], area * w[:, 0] * w[:, 1],
    ]  # fmt: skip
    return np.array([r.mean() / (r.std() / math.sqrt(len(r))) for r in residual])


def test_levy_areas_have_their_moments():
    area, w = levy_areas()
    bound = stats.norm.isf(0.5 * 0.001 / 6)
    scores = area_scores(area, w)
    assert (abs(scores) < bound).all(), scores
    assert abs(area_scores(0.98 * area, w)[1]) > bound  # 4 % of the variance
    assert abs(area_scores(area, np.roll(w, 1, axis=0))[2]) > bound
    normal = 0.5 * stream.normals(1, stream.TRAINING, len(area))[:, 0, 0]
    assert abs(area_scores(normal, w)[3]) > bound


# ---- mala ----------------------------------------------------------------------------------------------------

WELLS = sde.DoubleWell(1.0, 0.4).stationary()


def invariance_scores(method, h=0.05, n=100_000):
    """E x² and E x⁴ after 20 steps from the target's law, in standard errors."""
    x = np.linspace(-4.0, 4.0, 20001)
    p = np.exp(WELLS.log_density(x[:, None])).ravel()
    end = sde.simulate(sde.Langevin(WELLS), WELLS, (0, 20 * h), n_steps=20, n_paths=n, method=method, seed=5)
    q = end.final.ravel()
    scores = [(np.mean(q**k) - p @ x**k / p.sum()) / (np.std(q**k) / math.sqrt(n)) for k in (2, 4)]
    return np.array(scores), end.steps_rejected.mean() / 20.0


def test_mala_keeps_its_target():
    scores, rejected = invariance_scores("mala")
    assert (abs(scores) < 4.0).all(), scores
    assert 0.1 < rejected < 0.4


@njit(inline="always")
def ratio_without_proposals(before, after, forward, backward, g, dt):
    return type(dt)(2.0) * (after - before) / (g * g)


@pytest.mark.slow
def test_a_mutant_of_mala_does_not(monkeypatch):
    monkeypatch.setattr(mala, "log_ratio", ratio_without_proposals)
    monkeypatch.setitem(SCHEMES, "mutant", dataclasses.replace(SCHEMES["mala"], name="mutant"))
    assert abs(invariance_scores("mutant")[0]).max() > 6.0


# ---- the table -------------------------------------------------------------------------------------------


def test_the_table_of_methods():
    table = {row["name"]: row for row in sde.methods()}
    assert {"exact", "euler_maruyama", "milstein", "heun"} <= set(table)
    for row in table.values():
        assert set(row) == {"name", "strong_order", "weak_order", "noise", "calculus", "reference", "orders"}
        assert row["calculus"] in ("ito", "stratonovich")
        assert set(row["noise"]) <= {"none", "additive", "diagonal", "general"}
