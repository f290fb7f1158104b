"""Closed forms against the equations they solve; what the constructors refuse."""

import dataclasses
import warnings

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad

from problems import ON_THE_LINE, PROBLEMS, Seasonal, fokker_planck_residual
from sdesim.core import compile as compiler
from sdesim.core.call import call_tile
from sdesim.processes.base import Process
from sdesim.processes.cox_ingersoll_ross import CoxIngersollRoss
from sdesim.processes.custom import ito, stratonovich
from sdesim.processes.double_well import DoubleWell
from sdesim.processes.geometric import GeometricBrownian
from sdesim.processes.langevin import Langevin, UnderdampedLangevin
from sdesim.processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdesim.processes.structure import check_structure
from sdesim.processes.wiener import Wiener
from sdesim.targets import DoubleWellDensity, Gamma, Gaussian, GaussianMixture


def points_of(problem, n=9):
    """Points where the density of a problem is not negligible."""
    spread = np.sqrt(problem.cov)
    points = problem.mean + spread * np.linspace(-1.8, 2.2, n)
    return points[points > problem.support[0] + 0.1 * spread]


def residual(problem, drift=None, diffusion=None):
    """The largest relative Fokker-Planck residual of a 1-D problem's density."""
    process = problem.process
    drift = drift or process.ito_drift
    diffusion = diffusion or process.diffusion
    error, size = fokker_planck_residual(
        lambda x, t: (drift(x[0], t) + 0.0 * x[0],),
        lambda x, t: ((diffusion(x[0], t) + 0.0 * x[0],),),
        lambda x, t: problem.density(x[0], t),
        (points_of(problem),),
        problem.t,
    )
    return float((np.abs(error) / size).max())


@pytest.mark.parametrize("problem", ON_THE_LINE, ids=repr)
def test_density_has_the_stated_moments(problem):
    # 40 standard deviations: the lognormal tail is long
    low, high = problem.mean - 12.0 * np.sqrt(problem.cov), problem.mean + 40.0 * np.sqrt(problem.cov)
    low = max(low, problem.support[0])

    def moment(f):
        return quad(lambda x: f(x) * problem.density(x, problem.t), low, high, points=[problem.mean], limit=200)[0]

    assert moment(lambda x: 1.0) == pytest.approx(1.0, abs=1e-7)
    assert moment(lambda x: x) == pytest.approx(problem.mean, abs=1e-6)
    assert moment(lambda x: (x - problem.mean) ** 2) == pytest.approx(problem.cov, rel=1e-5)


@pytest.mark.parametrize("problem", ON_THE_LINE, ids=repr)
def test_density_solves_the_fokker_planck_equation(problem):
    assert residual(problem) < 1e-5


@pytest.mark.parametrize("problem", ON_THE_LINE, ids=repr)
def test_fokker_planck_check_sees_a_slip(problem):
    process = problem.process
    # the opposite drift (the slide's sign for Ornstein-Uhlenbeck), a diffusion σ² instead of σ²/2, no time
    if problem.name != "wiener":
        assert residual(problem, drift=lambda x, t: -process.ito_drift(x, t)) > 1e-2
    assert residual(problem, diffusion=lambda x, t: np.sqrt(2.0) * process.diffusion(x, t)) > 1e-2
    if problem.name == "stratonovich":
        assert residual(problem, drift=process.drift) > 1e-2
    if problem.name == "seasonal":
        assert residual(problem, drift=lambda x, t: process.drift(x, 0.0)) > 1e-2


GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
GAUSS_WEIGHTS = GAUSS_WEIGHTS / GAUSS_WEIGHTS.sum()


@pytest.mark.parametrize("dt", [1e-12, 1e-3, 0.8, 5.0])
@pytest.mark.parametrize(
    "process",
    [
        Wiener(0.7),
        OrnsteinUhlenbeck(1.3, 0.4, 0.8),
        OrnsteinUhlenbeck(-0.6, 0.4, 0.8),
        OrnsteinUhlenbeck(0.0, 0.4, 0.8),
        OrnsteinUhlenbeck(1e-13, 0.4, 0.8),
        GeometricBrownian(0.3, 0.4),
    ],
    ids=repr,
)
def test_transition_has_the_exact_mean_and_variance(process, dt):
    x = 1.7
    after = process.transition(x, 0.3, dt, GAUSS_NODES)
    mean = GAUSS_WEIGHTS @ after
    assert mean == pytest.approx(process.mean(dt, x), rel=1e-13)
    # the increment itself, so that rounding in x + dx does not hide it for a tiny dt
    moved = GAUSS_WEIGHTS @ (after - process.mean(dt, x)) ** 2
    assert moved == pytest.approx(process.variance(dt, x), rel=1e-9)


def test_ornstein_uhlenbeck_reaches_wiener_as_theta_vanishes():
    slow, wiener = OrnsteinUhlenbeck(1e-14, 3.0, 0.8), Wiener(0.8)
    still = OrnsteinUhlenbeck(0.0, 3.0, 0.8)
    for process in (slow, still):
        assert process.variance(2.0, 0.0) == pytest.approx(wiener.variance(2.0, 0.0), rel=1e-12)
        assert process.transition(1.0, 0.0, 2.0, 0.7) == pytest.approx(wiener.transition(1.0, 0.0, 2.0, 0.7), rel=1e-12)
    # 1 − exp(−2θ dt) computed as a difference would have lost all its digits here
    assert OrnsteinUhlenbeck(1.0, 0.0, 1.0).added_variance(1e-18) == pytest.approx(1e-18, rel=1e-14)


def test_ornstein_uhlenbeck_stationary_density_is_the_slides():
    theta, sigma = 1.3, 0.8
    x = np.linspace(-2.0, 2.0, 9)
    slide = np.sqrt(theta / (np.pi * sigma**2)) * np.exp(-theta * x**2 / sigma**2)
    np.testing.assert_allclose(OrnsteinUhlenbeck(theta, 0.0, sigma).stationary().density(x), slide, rtol=1e-13)


def test_two_paths_driven_by_one_path_contract():
    process = OrnsteinUhlenbeck(1.3, 0.4, 0.8)
    apart = process.transition(2.0, 0.0, 0.7, 1.1) - process.transition(-1.0, 0.0, 0.7, 1.1)
    assert apart == pytest.approx(3.0 * np.exp(-1.3 * 0.7), rel=1e-14)


@pytest.mark.parametrize(
    ("process", "points"),
    [
        (OrnsteinUhlenbeck(1.3, 0.4, 0.8), np.linspace(-1.5, 2.0, 8)),
        (CoxIngersollRoss(1.5, 0.9, 0.6), np.linspace(0.3, 2.0, 8)),
        (DoubleWell(2.0, 0.7), np.linspace(-1.6, 1.7, 8)),
        (Langevin(GaussianMixture([0.3, 0.7], [-1.0, 1.5], [0.4, 0.6])), np.linspace(-2.0, 3.0, 8)),
        (Langevin(Gaussian(0.5, 0.8), temperature=0.4), np.linspace(-1.0, 2.0, 8)),
    ],
    ids=["ornstein_uhlenbeck", "cox_ingersoll_ross", "double_well", "langevin", "cold_langevin"],
)
def test_stationary_law_carries_no_current(process, points):
    law, h = process.stationary(), 1e-4

    def spread(x):
        return process.diffusion(x, 0.0) ** 2 * law.density(x)

    def current(factor):
        slope = (spread(points + h) - spread(points - h)) / (2.0 * h)
        return np.abs(process.drift(points, 0.0) * law.density(points) - factor * slope).max()

    assert current(0.5) < 1e-6
    assert current(1.0) > 1e-2  # without the ½ there would be one
    assert quad(law.density, -np.inf if points[0] < 0 else 0.0, np.inf)[0] == pytest.approx(1.0, abs=1e-8)


def test_underdamped_stationary_law_solves_its_fokker_planck_equation():
    target = Gaussian(0.5, 0.8)
    process = UnderdampedLangevin(target, friction=1.3, temperature=0.6)
    law = process.stationary()
    q, v = np.meshgrid(np.linspace(-1.0, 1.5, 4), np.linspace(-1.2, 1.0, 4))

    def density(x, t):
        return law.density(np.stack(x, axis=-1))

    def rows(x, t):
        g = process.diffusion(x, t)
        return ((g[0] + 0.0 * x[0], 0.0 * x[0]), (0.0 * x[0], g[1] + 0.0 * x[0]))

    error, size = fokker_planck_residual(process.drift, rows, density, (q, v), 0.0)
    assert np.abs(error / size.max()).max() < 1e-6
    wrong = UnderdampedLangevin(target, friction=1.3, temperature=0.6 * 1.1)
    error, size = fokker_planck_residual(
        wrong.drift,
        lambda x, t: tuple(tuple(1.05 * e for e in row) for row in rows(x, t)),
        density,
        (q, v),
        0.0,
    )
    assert np.abs(error / size.max()).max() > 1e-3


def test_underdamped_stationary_law_of_a_mixture():
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 2.0]], [0.5, 0.8])
    law = UnderdampedLangevin(target, 2.0).stationary()
    x = np.array([0.3, -0.2, 0.7, 0.1])
    expected = target.log_density(x[:2]) + Gaussian(np.zeros(2), 1.0).log_density(x[2:])
    assert law.log_density(x) == pytest.approx(expected, rel=1e-12)


def test_cox_ingersoll_ross_cdf_and_start_at_zero():
    process = CoxIngersollRoss(1.5, 0.9, 0.6)
    for x0 in (0.0, 1e-12, 0.7):
        part = quad(lambda x, x0=x0: process.density(x, 0.4, x0), 0.0, 0.8)[0]
        assert part == pytest.approx(process.cdf(0.8, 0.4, x0), abs=1e-7)
    assert process.density(-0.1, 0.4, 0.7) == 0.0
    # below zero a path returns with the drift κθ and no noise
    assert process.drift(-0.2, 0.0) == pytest.approx(1.5 * 0.9)
    assert process.diffusion(-0.2, 0.0) == 0.0
    assert process.diffusion(0.0, 0.0) * process.diffusion_dx(0.0, 0.0) == 0.0


def test_double_well_potential_is_the_integral_of_the_drift():
    process = DoubleWell(2.0, 0.7)
    x, h = np.linspace(-1.5, 1.5, 7), 1e-5
    slope = (process.potential(x + h) - process.potential(x - h)) / (2.0 * h)
    np.testing.assert_allclose(process.drift(x, 0.0), -slope, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wiener(-0.2), "sigma must be >= 0, got -0.2"),
        (lambda: Wiener(np.nan), "sigma must be finite, got nan"),
        (lambda: OrnsteinUhlenbeck(np.inf), "theta must be finite"),
        (lambda: OrnsteinUhlenbeck(1.0, 0.0, -1.0), "sigma must be >= 0"),
        (lambda: OrnsteinUhlenbeck(-1.0).stationary(), "has a stationary law only for theta > 0, got -1.0"),
        (lambda: OrnsteinUhlenbeck(1.0, 0.0, 0.0).stationary(), "only for sigma > 0"),
        (lambda: Wiener().stationary(), "no stationary law"),
        (lambda: GeometricBrownian(0.1, 0.2).stationary(), "no stationary law"),
        (lambda: GeometricBrownian(0.1, -0.2), "sigma must be >= 0"),
        (lambda: CoxIngersollRoss(0.0, 1.0, 0.5), "kappa must be > 0, got 0"),
        (
            lambda: CoxIngersollRoss(1.0, 1.0, 0.5).mean(1.0, -0.1),
            "x0 must be >= 0 for CoxIngersollRoss, got min -0.1",
        ),
        (lambda: DoubleWell(barrier=0.0), "barrier must be > 0"),
        (lambda: DoubleWell(temperature=-1.0), "temperature must be >= 0"),
        (lambda: DoubleWell(temperature=0.0).stationary(), "temperature > 0"),
        (lambda: Wiener().density(0.0, 0.0, 0.0), "ask for t > 0"),
        (lambda: Wiener().mean(-1.0, 0.0), "t must be >= 0"),
        (lambda: Langevin(Gaussian(), temperature=-1.0), "temperature must be >= 0"),
        (lambda: Langevin(Gaussian(), dim=2), "dim must be 1"),
        (lambda: Langevin(lambda x: -x).stationary(), "given a target"),
        (lambda: Langevin(DoubleWellDensity(), 0.5).stationary(), "no closed form"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_types_are_refused():
    with pytest.raises(TypeError, match="sigma must be a real number"):
        Wiener("big")
    with pytest.raises(TypeError, match="target must be callable"):
        Langevin(3.0)
    with pytest.raises(TypeError, match="a bare score gives no dimension"):
        UnderdampedLangevin(lambda x: -x)


def test_feller_condition_warns():
    with pytest.warns(UserWarning, match="Feller"):
        CoxIngersollRoss(0.5, 0.1, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoxIngersollRoss(2.0, 1.0, 1.0)


def test_langevin_takes_targets_scores_and_bound_scores():
    target = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 1.0]], 0.5)
    x = (np.array([0.3, 0.1]), np.array([-0.2, 2.0]))
    expected = target.score(np.stack(x, axis=1))
    for process in (
        Langevin(target),
        Langevin(target.score),
        Langevin(lambda x: target.score(x), dim=2),
        Langevin(lambda x, t: target.score(x), dim=2),
    ):
        assert process.dim == 2
        np.testing.assert_allclose(np.stack(process.drift(x, 0.0), axis=1), expected)
        np.testing.assert_allclose(process.drift_batch(np.stack(x, axis=1), 0.0), expected)
    assert not Langevin(target.score).batch_only
    assert Langevin(lambda x: -x).batch_only
    # one dimension: numbers and arrays of any shape
    line = Langevin(Gaussian(1.0, 2.0))
    assert line.drift(0.0, 0.0) == pytest.approx(0.5)
    assert line.drift(np.zeros((3, 4)), 0.0).shape == (3, 4)
    with pytest.raises(ValueError, match=r"score returned shape \(2,\), expected \(2, 1\)"):
        Langevin(lambda x: x[:, 0]).drift(np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="score returned nan at row 1"):
        Langevin(lambda x: np.where(x > 0.0, x, np.nan)).drift(np.array([1.0, 0.0]), 0.0)


# ---- processes from functions


def test_functions_get_parameters_by_name_or_all_at_once():
    by_name = ito(lambda x, t, theta: -theta * x, lambda x, t: 1.0, theta=2)
    together = ito(lambda x, t, p: -p.theta * x + p.b[0], lambda x, t, p: p.theta, theta=2.0, b=np.array([1.0, 2.0]))
    assert by_name.drift(1.5, 0.0) == -3.0
    assert together.drift(1.5, 0.0) == -2.0
    assert by_name.fields() == {"theta": 2.0}
    assert isinstance(by_name.fields()["theta"], float)
    assert ito(lambda x, t, k=3.0: k * x, lambda *xt: 1.0).drift(2.0, 0.0) == 6.0
    assert ito(lambda x, t: x, lambda x, t: x, diffusion_dx=lambda x, t: 1.0).diffusion_dx(3.0, 0.0) == 1.0


def test_what_a_function_does_not_read_is_known():
    uses = {"both": (True, True), "state": (True, False), "time": (False, True), "neither": (False, False)}
    functions = {
        "both": lambda x, t, k: k * x * t,
        "state": lambda x, t, k: k * x,
        "time": lambda x, t, k: k * t,
        "neither": lambda x, t, k: k,
    }
    for name, function in functions.items():
        process = ito(function, lambda x, t: 1.0, k=2.0)
        assert compiler.uses(process.formula("drift")) == uses[name]
        assert process.formula("drift")(process._view(), 3.0, 5.0) == process.drift(3.0, 5.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ito(3.0, lambda x, t: 1.0), "drift must be callable"),
        (
            lambda: ito(lambda x: x, lambda x, t: 1.0),
            r"drift must be callable as drift\(x, t\[, parameters\]\); got 1 argument$",
        ),
        (lambda: ito(lambda x, t: x, lambda: 1.0), "diffusion must be callable .* got 0 arguments"),
        (lambda: ito(lambda x, t, theta: x, lambda x, t: 1.0), "takes theta, which is no parameter"),
        (lambda: ito(lambda x, t, a, c: x, lambda x, t: 1.0, a=1.0, b=2.0), "takes c, which is no parameter"),
        (
            lambda: ito(lambda x, t, theta: x, lambda x, t: 1.0, theta=1.0, tehta=2.0),
            "tehta is not a parameter",
        ),
        (lambda: ito(lambda x, t, *, k: x, lambda x, t: 1.0), "only be given by keyword"),
        (lambda: ito(lambda x, t, theta: x, lambda x, t: 1.0, theta="a"), "theta must be"),
        (lambda: ito(lambda x, t, _a: x, lambda x, t: 1.0, _a=1.0), "cannot be the name"),
    ],
)
def test_wrong_functions_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"noise must be one of .* did you mean 'general'"):
        ito(lambda x, t: x, lambda x, t: 1.0, noise="genral")
    with pytest.raises(ValueError, match="noise='general' needs dim >= 2"):
        ito(lambda x, t: x, lambda x, t: 1.0, noise="general")
    with pytest.raises(ValueError, match="dim must be >= 1"):
        ito(lambda x, t: x, lambda x, t: 1.0, dim=0)


PAIR = (0.5, -0.3)
MALFORMED = [
    (
        lambda x, t: (x[0], x[1], x[0]),
        lambda x, t: 1.0,
        PAIR,
        {"dim": 2},
        "drift returned 3 components, expected 2",
    ),
    (lambda x, t: x[0], lambda x, t: 1.0, PAIR, {"dim": 2}, "drift returned a number, expected a tuple of 2"),
    (
        lambda x, t: x,
        lambda x, t: (1.0, 2.0),
        PAIR,
        {"dim": 2, "noise": "general"},
        r"diffusion returned \(2,\), noise='general' needs 2 rows of m entries",
    ),
    (
        lambda x, t: x,
        lambda x, t: ((1.0,), (1.0, 2.0)),
        PAIR,
        {"dim": 2, "noise": "general"},
        "needs 2 rows of m entries",
    ),
    (
        lambda x, t: np.array([1.0, 2.0]),
        lambda x, t: 1.0,
        np.ones(3),
        {},
        r"drift returned shape \(2,\), expected \(3,\)",
    ),
    (lambda x, t: (x, x), lambda x, t: 1.0, np.ones(3), {}, "pass dim=2"),
    (lambda x, t: np.log(x), lambda x, t: 1.0, -1.0, {}, r"drift\(x0, t0\) is nan at x0 = -1"),
    (lambda x, t: x, lambda x, t: np.inf, 1.0, {}, r"diffusion\(x0, t0\) is inf"),
]


@pytest.mark.parametrize(("drift", "diffusion", "x", "kind", "message"), MALFORMED)
def test_structure_is_checked_with_a_sentence(drift, diffusion, x, kind, message):
    with pytest.raises(ValueError, match=message):
        check_structure(ito(drift, diffusion, **kind), x, 0.0)


def test_a_state_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="x0 must be >= 0"):
        check_structure(CoxIngersollRoss(2.0, 1.0, 1.0), np.array([0.5, -0.1]), 0.0)


def test_good_structure_passes():
    with pytest.raises(TypeError, match="drift must return real numbers, got dtype complex128"):
        check_structure(ito(lambda x, t: 1j * x, lambda x, t: 1.0), 1.0, 0.0)
    for problem in PROBLEMS:
        check_structure(problem.process, problem.x0, 0.0)
    check_structure(UnderdampedLangevin(Gaussian([0.0, 1.0], 1.0)), (0.0, 1.0, 2.0, 3.0), 0.0)
    check_structure(Langevin(Gaussian([0.0, 1.0], 1.0)), (np.ones(4), np.zeros(4)), 0.0)


# ---- compiled and plain


@njit
def call_once(address, x, t, p, out, rows):
    call_tile(address, x, t, p, out, rows)


def compiled_values(process, name, x, dtype, entries, out_rows):
    """A coefficient through its tile function, on up to 256 states x (rows, n)."""
    layout, vector = compiler.flatten(type(process).__name__, process.fields())
    form = f"{name}_tile" if hasattr(type(process), f"{name}_tile") else name
    kind = "tile" if form != name else entries
    m = out_rows // x.shape[0] if entries == "rows" else 1
    tile = compiler.tile(
        f"{process!r}.{name}", process.formula(form), layout, dtype, dim=process.dim, entries=kind, m=m
    )
    states = np.repeat(x[:, :1], 256, axis=1).astype(dtype)
    states[:, : x.shape[1]] = x
    out = np.zeros((out_rows, 256), dtype)
    times = np.full(257, 0.3, dtype)
    call_once(tile.address, states, times, vector.astype(dtype), out, x.shape[0])
    return out[:, : x.shape[1]]


ZOO = [
    *(problem.process for problem in PROBLEMS),
    DoubleWell(2.0, 0.7),
    Langevin(GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 1.0]], 0.5)),
    UnderdampedLangevin(Gaussian([0.2, 0.1], [[1.0, 0.3], [0.3, 0.5]]), 1.5, 0.7),
    ito(lambda x, t, a: (a[0] * x[1], a[1] * x[0]), lambda x, t: (0.5, x[0]), dim=2, a=np.array([1.0, 2.0])),
]


@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.slow), np.float32])
@pytest.mark.parametrize("process", ZOO, ids=[f"{i}_{type(process).__name__}" for i, process in enumerate(ZOO)])
def test_compiled_coefficients_are_the_plain_ones(process, dtype):
    d = process.dim or 1
    x = np.random.default_rng(1).uniform(0.2, 2.0, size=(d, 7)).astype(dtype)
    state = tuple(x.astype(np.float64)) if d > 1 else x[0].astype(np.float64)
    for name in ("drift", "diffusion"):
        value = getattr(process, name)(state, 0.3)
        if name == "diffusion" and process.noise == "general":
            value = [entry for row in value for entry in row]
            entries, rows = "rows", len(value)
        else:
            entries, rows = ("tuple" if isinstance(value, tuple) else "number"), d
            value = list(value) if isinstance(value, tuple) else [value] * d
        expected = np.stack([np.broadcast_to(v, 7) for v in value])
        got = compiled_values(process, name, x, dtype, entries, rows)
        exact = dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-12 if exact else 2e-5, atol=1e-13 if exact else 1e-6)


def test_a_subclass_of_process_needs_no_decorator_without_parameters():
    class Plain(Process):
        def drift(self, x, t):
            return -x

        def diffusion(self, x, t):
            return 1.0

    assert Plain().fields() == {}
    assert Plain().drift(2.0, 0.0) == -2.0
    assert Plain().ito_drift(2.0, 0.0) == -2.0


def test_processes_are_frozen_values():
    assert OrnsteinUhlenbeck(2) == OrnsteinUhlenbeck(2.0)
    assert isinstance(OrnsteinUhlenbeck(2).theta, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Wiener().sigma = 2.0
    assert stratonovich(lambda x, t: x, lambda x, t: x).calculus == "stratonovich"
    assert Seasonal().mean(0.0, 1.0) == pytest.approx(1.0)
    assert isinstance(CoxIngersollRoss(2.0, 1.0, 1.0).stationary(), Gamma)
