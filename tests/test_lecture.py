"""The lecture's statements, row by row, each beside a broken form of itself that must fail."""

import dataclasses
import math

import numpy as np
import pytest

import sdesim as sde


def l1(a, b, grid):
    return float(np.abs(a - b).sum() * grid.spacing)


# ---- row 1: the Wiener process --------------------------------------------------------------------------------------


def brownian(n_paths, n_steps, seed=5):
    return sde.simulate(
        sde.Wiener(), 0.0, (0.0, 1.0), n_steps=n_steps, n_paths=n_paths, method="exact", save="all", seed=seed
    ).x


def test_wiener_starts_in_its_start():
    assert (brownian(1000, 4)[:, 0] == 0.0).all()


def worst_correlation(x):
    steps = np.diff(x, axis=1)
    return abs(np.corrcoef(steps.T) - np.eye(steps.shape[1])).max() * math.sqrt(len(x))


def test_wiener_increments_are_independent():
    x = brownian(100_000, 8)
    assert worst_correlation(x) < 5.5
    # increments of an Ornstein-Uhlenbeck process pull back: they are not
    ou = sde.simulate(
        sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), 0.0, (0.0, 1.0), n_steps=8, n_paths=100_000, save="all", seed=5
    ).x
    assert worst_correlation(ou) > 5.5


@pytest.mark.parametrize(("lag", "wrong"), [(1, 1.02), (3, 0.98), (8, 1.02)])
def test_wiener_increments_are_gaussian_of_variance_h(lag, wrong):
    x = brownian(100_000, 8)
    increments = x[:, lag] - x[:, 0]
    grid = sde.Grid(-7.0, 7.0, 700)

    def law(std):
        return dataclasses.replace(
            sde.evolve_density(sde.Wiener(), sde.gaussian(grid, 0.0, 0.5), grid, (0.0, 1.0)),
            t=np.array([np.inf]), p=sde.gaussian(grid, 0.0, std)[None],
        )  # fmt: skip

    std = math.sqrt(lag / 8)
    assert sde.compare(increments, law(std)).within_noise
    assert not sde.compare(increments, law(wrong * std)).within_noise


def modulus(x, lag):
    """sup |W(t + h) − W(t)| over √(2h log 1/h), which tends to 1 (Lévy 1937)."""
    h = lag / (x.shape[1] - 1)
    return np.abs(x[:, lag:] - x[:, :-lag]).max(axis=1) / math.sqrt(2 * h * math.log(1 / h))


def test_wiener_paths_are_continuous_with_levys_modulus():
    x = brownian(64, 2**14)
    moduli = [modulus(x, lag).mean() for lag in (1, 4, 16, 64)]
    assert all(0.85 < m < 1.15 for m in moduli)
    # a path with one jump of 1 has a modulus that grows without bound as h shrinks
    jumping = x + (np.linspace(0, 1, x.shape[1]) > 0.5)
    assert modulus(jumping, 1).mean() > 10
    # and √h instead of √(2h log 1/h) is not the modulus
    assert np.abs(np.diff(x, axis=1)).max(axis=1).mean() / math.sqrt(2.0**-14) > 3.5


# ---- rows 1 and 3: the heat equation --------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_the_density_of_a_wiener_process_solves_the_heat_equation_with_one_half(t):
    grid = sde.Grid(-9.0, 9.0, 900)
    rho = sde.evolve_density(sde.Wiener(), sde.point_mass(grid, 0.0), grid, (0.0, t))
    assert l1(rho.final, sde.gaussian(grid, 0.0, math.sqrt(t)), grid) < 1e-4
    assert l1(rho.final, sde.gaussian(grid, 0.0, math.sqrt(2 * t)), grid) > 0.1  # D = 1
    paths = sde.simulate(sde.Wiener(), 0.0, (0.0, t), n_steps=20, n_paths=200_000, seed=2)
    assert sde.compare(paths, rho).within_noise
    assert not sde.compare(1.02 * paths.final, rho).within_noise


# ---- row 5: the Fokker-Planck equation, general coefficients --------------------------------------------------------

GENERAL = {
    "a driven drift": (lambda x, t: np.sin(3 * t) - x, lambda x, t: 0.7),
    "a noise that depends on the state": (lambda x, t: -x, lambda x, t: 0.5 * np.sqrt(1 + x * x)),
    "both, and in time": (lambda x, t: np.cos(2 * t) - x, lambda x, t: (0.4 + 0.2 * t) * np.sqrt(1 + x * x)),
}


@pytest.mark.parametrize("name", GENERAL)
def test_paths_lie_on_the_fokker_planck_equation(name):
    drift, diffusion = GENERAL[name]
    process = sde.ito(drift, diffusion)
    grid = sde.Grid(-7.0, 8.0, 750)
    start = {"n_steps": 400, "n_paths": 200_000, "seed": 4}
    paths = sde.simulate(process, 0.5, (0.0, 1.0), method="milstein", **start)
    rho = sde.evolve_density(process, sde.point_mass(grid, 0.5), grid, (0.0, 1.0), rtol=1e-4)
    assert sde.compare(paths, rho, bias=0.01).within_noise
    wrong = [sde.ito(lambda x, t: drift(x, t) + 0.03, diffusion), sde.ito(drift, lambda x, t: 1.03 * diffusion(x, t))]
    if name != "a driven drift":  # the same formulas, read as Stratonovich
        wrong.append(sde.stratonovich(drift, diffusion))
    for mutant in wrong:
        other = sde.evolve_density(mutant, sde.point_mass(grid, 0.5), grid, (0.0, 1.0), rtol=1e-4)
        assert not sde.compare(paths, other, bias=0.01).within_noise


# ---- row 6: Ornstein-Uhlenbeck --------------------------------------------------------------------------------------


def test_ou_comes_to_rest_in_its_gaussian():
    theta, sigma = 1.3, 0.8
    process = sde.OrnsteinUhlenbeck(theta, 0.0, sigma)
    grid = sde.Grid(-4.0, 4.0, 800)
    formula = math.sqrt(theta / (math.pi * sigma**2)) * np.exp(-theta * grid.centers**2 / sigma**2)
    rest = sde.stationary_density(process, grid).final
    assert l1(rest, formula, grid) < 1e-4
    late = sde.evolve_density(process, sde.point_mass(grid, 1.0), grid, (0.0, 30.0)).final
    assert l1(late, rest, grid) < 1e-10
    # the slide's sign, −∂ₓ[θxp], drives the density apart
    wrong = sde.stationary_density(sde.ito(lambda x, t: theta * x, lambda x, t: sigma), grid, "reflecting").final
    assert l1(wrong, formula, grid) > 1.0


@pytest.mark.parametrize("method", ["exact", "euler_maruyama"])
def test_two_ou_solutions_on_one_brownian_path_contract(method):
    theta, n_steps = 1.5, 200
    process = sde.OrnsteinUhlenbeck(theta, 0.0, 0.8)
    run = {"n_steps": n_steps, "n_paths": 50, "method": method, "save": "all"}
    a = sde.simulate(process, 2.0, (0.0, 2.0), seed=9, **run)
    b = sde.simulate(process, -1.0, (0.0, 2.0), seed=9, **run)
    steps = np.arange(n_steps + 1)
    law = np.exp(-theta * a.t) if method == "exact" else (1 - theta * 2.0 / n_steps) ** steps
    assert np.allclose(a.x - b.x, 3.0 * law, rtol=1e-10, atol=1e-13)
    other = sde.simulate(process, -1.0, (0.0, 2.0), seed=10, **run)
    assert not np.allclose(a.x - other.x, 3.0 * law, rtol=1e-2)


# ---- row 7: Langevin diffusion --------------------------------------------------------------------------------------

MIXTURE = sde.targets.GaussianMixture([0.35, 0.65], [-1.2, 0.9], [0.2, 0.3])
GRID = sde.Grid(-5.0, 5.0, 1000)


def gibbs(temperature=1.0):
    p = np.exp(MIXTURE.log_density(GRID.centers) / temperature)
    return p / (p.sum() * GRID.spacing)


def test_langevin_reaches_its_target_and_keeps_it():
    process = sde.Langevin(MIXTURE)
    start = sde.point_mass(GRID, 1.0)
    assert l1(sde.evolve_density(process, start, GRID, (0.0, 60.0)).final, gibbs(), GRID) < 1e-5
    held = sde.simulate(process, MIXTURE, (0.0, 0.5), n_steps=50, n_paths=200_000, method="heun", seed=3)
    assert sde.compare(held, MIXTURE).within_noise
    wrong = sde.Langevin(MIXTURE, temperature=1.1)
    warm = sde.simulate(wrong, MIXTURE, (0.0, 0.5), n_steps=50, n_paths=200_000, method="heun", seed=3)
    assert not sde.compare(warm, MIXTURE).within_noise


def test_temperature_t_leads_to_p_to_the_one_over_t():
    rest = sde.stationary_density(sde.Langevin(MIXTURE, temperature=2.0), GRID).final
    assert l1(rest, gibbs(2.0), GRID) < 1e-6
    assert l1(rest, gibbs(0.5), GRID) > 0.1


def test_on_the_half_clock_every_rate_halves():
    full = sde.Langevin(MIXTURE)
    half = sde.ito(lambda x, t: 0.5 * MIXTURE.score(x), lambda x, t: 1.0, compiled=False)
    start = sde.gaussian(GRID, 1.0, 0.3)
    on_full = sde.evolve_density(full, start, GRID, (0.0, 0.7)).final
    on_half = sde.evolve_density(half, start, GRID, (0.0, 1.4)).final
    assert l1(on_full, on_half, GRID) < 1e-9
    assert l1(on_full, sde.evolve_density(half, start, GRID, (0.0, 0.7)).final, GRID) > 0.02


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_euler_maruyama_for_langevin_has_no_extra_step(tau):
    """X + (τ/2) s(X) + √τ ξ on the clock ½∇log p dt + dW; the slide multiplies both terms by dt and dξ once more."""
    target = sde.targets.Gaussian(0.0, 1.0)
    half = sde.ito(lambda x, t: 0.5 * target.score(x), lambda x, t: 1.0, compiled=False)
    x, noise = target.sample(500, 1), np.random.default_rng(2).standard_normal((500, 1))
    one = sde.simulate(half, x, (0.0, tau), n_steps=1, increments=math.sqrt(tau) * noise).final
    np.testing.assert_allclose(one, x + 0.5 * tau * target.score(x) + math.sqrt(tau) * noise[:, 0], rtol=1e-12)

    def variance(process):
        paths = sde.simulate(process, target, (0.0, 20.0), n_steps=round(20 / tau), n_paths=40_000, seed=3)
        return paths.final.var()

    # the chain X ← (1 − τ/2) X + √τ ξ rests with the variance τ/(1 − (1 − τ/2)²) = 1/(1 − τ/4), and so at 1 for τ → 0
    rest, error = 1.0 / (1.0 - tau / 4.0), math.sqrt(2.0 / 40_000)
    assert abs(variance(half) / rest - 1.0) < 4.0 * error
    slide = sde.ito(lambda x, t: 0.5 * tau * target.score(x), lambda x, t: 1.0, compiled=False)
    assert (abs(variance(slide) / rest - 1.0) > 20.0 * error) == (tau != 1.0)  # dt = 1 would hide it


# ---- rows 17 and 20: reversal in time -------------------------------------------------------------------------------


class Reversible:
    """A forward process, its densities, and p_T: linear with additive noise, or with a state-dependent σ."""

    horizon = 0.6

    def __init__(self, kind):
        self.grid = sde.Grid(-6.0, 6.0, 600)
        self.start = sde.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.8], [0.15, 0.2])
        p0 = sde.cell_averages(self.grid, self.start.density)
        if kind == "additive":
            self.process = sde.OrnsteinUhlenbeck(1.0, 0.2, 0.9)
        else:
            self.process = sde.ito(lambda x, t: np.sin(2 * t) - x, lambda x, t: 0.6 * np.sqrt(1 + x * x))
        self.rho = sde.evolve_density(
            self.process, p0, self.grid, (0.0, self.horizon), save=np.linspace(0, self.horizon, 61), rtol=1e-5
        )
        self.p0, self.p_T = p0, self.rho.final
        self.score = sde.marginal_score(self.process, self.start) if kind == "additive" else self.rho.score

    def back(self, process):
        """L1 distance from p₀ after the horizon, starting in p_T."""
        solved = sde.evolve_density(process, self.p_T, self.grid, (0.0, self.horizon), rtol=1e-4)
        return l1(solved.final, self.p0, self.grid)


@pytest.fixture(scope="module", params=["additive", "state-dependent"])
def forward(request):
    return Reversible(request.param)


def test_the_reverse_equation_returns_p0_on_the_grid(forward):
    """Row 20: one p(x, t) solves both equations, so also halfway."""
    reverse = sde.ReverseProcess(forward.process, forward.score, forward.horizon)
    assert forward.back(reverse) < 5e-3
    halfway = sde.evolve_density(reverse, forward.p_T, forward.grid, (0.0, forward.horizon / 2), rtol=1e-4)
    assert l1(halfway.final, forward.rho.p[30], forward.grid) < 5e-3


def test_the_probability_flow_returns_p0_on_the_grid(forward):
    assert forward.back(sde.ProbabilityFlow(forward.process, forward.score, forward.horizon)) < 5e-3


@pytest.mark.slow
def test_reverse_paths_return_p0(forward):
    reverse = sde.ReverseProcess(forward.process, forward.score, forward.horizon)
    noised = sde.simulate(
        forward.process, forward.start, (0.0, forward.horizon), n_steps=300, n_paths=40_000, method="milstein", seed=1
    ).final
    paths = sde.simulate(reverse, noised, (0.0, forward.horizon), n_steps=300, method="heun", seed=2)
    assert sde.compare(paths, forward.start, bias=0.01).within_noise
    flow = sde.ProbabilityFlow(forward.process, forward.score, forward.horizon)
    carried = sde.simulate(flow, noised, (0.0, forward.horizon), n_steps=100, method="heun", seed=2)
    assert sde.compare(carried, forward.start, bias=0.01).within_noise


class Broken(sde.ReverseProcess):
    """A reverse drift with one term changed: −μ + c·∇·a + k·a ∇log p + slide."""

    def drift(self, x, t):
        right = super().drift(x, t)
        forward_time = self.horizon - t
        sigma = self.process.diffusion(x, forward_time) * np.ones_like(x)
        score = np.asarray(self.score(x.reshape(-1, 1), forward_time)).reshape(x.shape)
        divergence = self.process.diffusion_divergence(x, forward_time)
        return {
            "no divergence": right - divergence,
            "the score's sign": right - 2 * sigma**2 * score,
            "half the score": right - 0.5 * sigma**2 * score,
            "the score at s": right + sigma**2 * (np.asarray(self.score(x.reshape(-1, 1), t)).reshape(x.shape) - score),
        }[self.slip]


@pytest.mark.filterwarnings("ignore:the drift is strong", "ignore:at t = ")  # a slip can blow the drift up
@pytest.mark.parametrize("slip", ["no divergence", "the score's sign", "half the score", "the score at s"])
def test_a_slip_in_the_reverse_drift_is_seen(forward, slip):
    broken = type("Slipped", (Broken,), {"slip": slip})(forward.process, forward.score, forward.horizon)
    if slip == "no divergence" and isinstance(forward.process, sde.OrnsteinUhlenbeck):
        assert forward.back(broken) < 5e-3  # additive noise has no ∇·a to leave out
    else:
        assert forward.back(broken) > 0.03
