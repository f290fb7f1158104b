"""Samplers with exact scores: their orders without sampling noise, and their samples against fresh draws."""

import _thread
import concurrent.futures
import multiprocessing

import numpy as np
import pytest

import fresh_draws
import sdesim as sde
from linear_laws import law
from sdesim.generate import grids, reverse_sde
from sdesim.generate.linear import Noised

VP = sde.VariancePreserving()
PLANE = sde.targets.GaussianMixture(
    [0.3, 0.4, 0.3], [[-1.5, 0.3], [1.0, 0.6], [0.2, -1.1]], np.array([[[0.1, 0.04], [0.04, 0.1]]] * 3)
)


def space():
    """Four components in 16 dimensions, centred."""
    rng = np.random.default_rng(4)
    means = rng.normal(size=(4, 16))
    means -= means.mean(axis=0)
    return sde.targets.GaussianMixture(np.full(4, 0.25), means, rng.uniform(0.1, 0.4, (4, 16)))


SPACE = space()

# ---- orders, exactly ------------------------------------------------------------------------------------------------

GAUSSIAN = sde.targets.Gaussian(0.7, 0.25)
FLOWS = ("probability_flow", "edm_heun", "dpm_solver")
ORDERS = [
    ("reverse_sde", {}, 1), ("reverse_sde", {"scheme": "heun"}, 2), ("reverse_sde", {"scheme": "sra"}, 2),
    ("probability_flow", {"scheme": "midpoint"}, 2), ("probability_flow", {}, 2),
    ("probability_flow", {"scheme": "rk4"}, 4), ("edm_heun", {}, 2), ("edm_heun", {"churn": 10}, 2),
    ("dpm_solver", {}, 2), ("dpm_solver", {"scheme": "sde_2m"}, 2), ("ancestral", {}, 1), ("annealed_langevin", {}, 1),
]  # fmt: skip


def variance_error(process, method, n_steps, t_end=0.01, **options):
    """Variance of the samples over that of the exact law at t_end, less 1."""
    score = sde.marginal_score(process, GAUSSIAN)
    variance = law(process, score, method, n_steps=n_steps, t_end=t_end, denoise=False, size=1700, **options)[1]
    at = score.law(t_end).cov
    if method in FLOWS and "churn" not in options and options.get("scheme") != "sde_2m":
        # a flow carries the start's variance, v in place of v + α² s², along
        at *= process.added_variance(process.horizon) / score.law(process.horizon).cov
    return variance / at - 1.0


@pytest.mark.parametrize(("method", "options", "order"), ORDERS, ids=str)
def test_the_weak_error_falls_at_its_order(method, options, order):
    steps = (16, 32) if order == 4 else (128, 256)
    coarse, fine = (abs(variance_error(VP, method, n, **options)) for n in steps)
    assert 1e-9 < fine < 0.1
    assert abs(np.log2(coarse / fine) - order) < 0.35


@pytest.mark.parametrize(
    "process", [sde.VarianceExploding(0.01, 20.0), sde.EDM(0.002, 20.0), sde.Cosine(), sde.SubVariancePreserving()],
    ids=lambda process: type(process).__name__,
)  # fmt: skip
@pytest.mark.parametrize("method", ["reverse_sde", "probability_flow", "edm_heun", "dpm_solver", "ancestral"])
def test_every_process_with_every_method(process, method):
    n = 500 if method in ("reverse_sde", "ancestral") else 100
    assert abs(variance_error(process, method, n, t_end=0.02)) < 0.03


@pytest.mark.parametrize("scheme", reverse_sde.NAMES)
def test_every_scheme_of_the_library_runs_backward(scheme):
    assert abs(variance_error(VP, "reverse_sde", 150, scheme=scheme)) < 0.03


@pytest.mark.parametrize("method", ["reverse_sde", "probability_flow", "edm_heun", "dpm_solver", "ancestral",
                                    "annealed_langevin", "predictor_corrector"])  # fmt: skip
def test_processes_with_a_mean_of_their_own(method):
    process = sde.OrnsteinUhlenbeck(2.0, -1.0, 1.5)
    score = sde.marginal_score(process, GAUSSIAN)
    n = 100 if method in ("probability_flow", "edm_heun", "dpm_solver") else 500
    mean, variance = law(process, score, method, n_steps=n, horizon=3.0, t_end=3e-4, size=1300)
    assert abs(mean - 0.7) < 0.01
    assert abs(variance / 0.25 - 1.0) < 0.03


def test_correctors_and_langevin_levels_hardly_change_the_law():
    assert abs(variance_error(VP, "predictor_corrector", 400)) < 5e-3
    assert abs(variance_error(VP, "predictor_corrector", 400, snr=0.0, n_corrector=2)) < 5e-3
    for levels, n_corrector in ((500, 1), (250, 2), (100, 5)):
        assert abs(variance_error(VP, "annealed_langevin", levels, n_corrector=n_corrector)) < 0.015


class Turned(sde.VariancePreserving):
    """The right marginals with the drift's sign turned."""

    def drift(self, x, t):
        return -super().drift(x, t)


class Doubled(sde.VariancePreserving):
    """The right marginals with σ² doubled: the flow then has 1 for its ½."""

    def diffusion(self, x, t):
        return np.sqrt(2.0) * super().diffusion(x, t)


@pytest.mark.parametrize(("wrong", "method"), [(Turned, "reverse_sde"), (Turned, "probability_flow"),
                                               (Doubled, "probability_flow"), (Doubled, "reverse_sde")])  # fmt: skip
def test_a_broken_drift_or_a_missing_half_is_seen(wrong, method):
    assert abs(variance_error(VP, method, 200)) < 0.02
    assert abs(variance_error(wrong(), method, 200)) > 0.2


def test_the_start_is_the_mean_of_what_is_left_of_the_data():
    far = sde.targets.Gaussian(30.0, 0.25)
    score = sde.marginal_score(VP, far)
    mean, variance = law(VP, score, "probability_flow", n_steps=64, scheme="rk4")
    assert abs(mean - 30.0) < 1e-3
    assert abs(variance / 0.25 - 1.0) < 2e-3


# ---- against fresh draws --------------------------------------------------------------------------------------------

RUNS = [
    ("reverse_sde", {"n_steps": 300}), ("reverse_sde", {"n_steps": 150, "scheme": "sra"}),
    ("predictor_corrector", {"n_steps": 200}), ("annealed_langevin", {"n_steps": 300}),
    ("ancestral", {"n_steps": 400}), ("dpm_solver", {"n_steps": 150, "scheme": "sde_2m"}),
    ("dpm_solver", {"n_steps": 64}), ("edm_heun", {"n_steps": 64}), ("probability_flow", {"n_steps": 64}),
    ("probability_flow", {"rtol": 1e-4}),
]  # fmt: skip
LEVEL = 1e-3 / (2 * len(RUNS))


@pytest.mark.parametrize("target", [PLANE, SPACE], ids=["2-D", "16-D"])
@pytest.mark.parametrize(("method", "options"), RUNS, ids=str)
def test_samples_cannot_be_told_from_fresh_draws(method, options, target):
    x = sde.sample(VP, sde.marginal_score(VP, target), 1000, method=method, seed=11, **options)
    assert x.shape == (1000, target.dim)
    assert fresh_draws.moments(x, target) > LEVEL
    assert fresh_draws.projected_chi_square(x, target) > LEVEL


def test_energy_distance_by_permutation():
    score = sde.marginal_score(VP, PLANE)
    fresh = PLANE.sample(1000, seed=5)
    for options in ({"method": "edm_heun", "n_steps": 32}, {"method": "reverse_sde", "n_steps": 200}):
        x = sde.sample(VP, score, 1000, seed=3, **options)
        assert fresh_draws.energy_permutation(x, fresh) > 0.005
    # half of the score's pull is missing
    weak = sde.sample(VP, lambda x, t: 0.8 * score(x, t), 1000, seed=3, dim=2, n_steps=200)
    assert fresh_draws.energy_permutation(weak, fresh) < 0.01
    assert fresh_draws.moments(weak, PLANE) < 1e-6


# ---- what a seed means ----------------------------------------------------------------------------------------------

NET = sde.ScoreMLP(5, hidden=(32,), seed=1)
QUICK = [
    {"method": "reverse_sde", "n_steps": 6, "scheme": "sra"}, {"method": "predictor_corrector", "n_steps": 5},
    {"method": "annealed_langevin", "n_steps": 5, "n_corrector": 2}, {"method": "edm_heun", "n_steps": 5, "churn": 2},
    {"method": "dpm_solver", "n_steps": 5, "scheme": "sde_2m"}, {"method": "probability_flow", "rtol": 1e-3},
]  # fmt: skip


@pytest.mark.parametrize("options", QUICK, ids=str)
def test_a_seed_gives_the_same_samples_in_any_company(options):
    whole = sde.sample(VP, NET, 600, seed=3, workers=1, **options)
    assert whole.dtype == np.float32
    assert np.array_equal(whole, sde.sample(VP, NET, 600, seed=3, workers=3, **options))
    assert np.array_equal(whole[:300], sde.sample(VP, NET, 300, seed=3, **options))
    assert np.array_equal(whole[256:], sde.sample(VP, NET, 344, seed=3, first_path=256, **options))
    odd = sde.sample(VP, NET, 500, seed=3, first_path=100, **options)  # rows stand elsewhere in their products
    assert np.allclose(whole[100:], odd, rtol=1e-3, atol=1e-4)
    assert not np.allclose(whole, sde.sample(VP, NET, 600, seed=4, **options))


def test_float32_and_float64_agree_without_noise():
    options = {"method": "dpm_solver", "n_steps": 10, "dim": 2}
    score = sde.marginal_score(VP, PLANE)
    z = np.linspace(-1, 1, 20).reshape(10, 2)

    def flow(dtype):
        return sde.sample(VP, lambda x, t: score(x, t).astype(dtype), 10, seed=1, dtype=dtype, **options)

    assert flow(np.float32).dtype == np.float32
    assert np.isfinite(flow(np.float64)).all()
    assert z.shape == flow(np.float32).shape


def test_ctrl_c_returns_the_samples_that_are_finished():
    score = sde.marginal_score(VP, PLANE)

    def interrupt(done, total):
        if done == 3 * 256 * 10:
            _thread.interrupt_main()

    with pytest.warns(RuntimeWarning, match="samples are returned"):
        x = sde.sample(VP, score, 2560, n_steps=10, seed=1, progress=interrupt, workers=1)
    assert 0 < len(x) < 2560
    assert np.array_equal(x, sde.sample(VP, score, 2560, n_steps=10, seed=1)[: len(x)])


@pytest.mark.parametrize("method", ["reverse_sde", "probability_flow", "dpm_solver"])
def test_an_executor_gives_the_bits_of_our_threads(method):
    score, seen = sde.marginal_score(VP, PLANE), []
    run = {"method": method, "n_steps": 6, "seed": 4, "first_path": 100}
    alone = sde.sample(VP, score, 900, **run)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lent = sde.sample(VP, score, 900, executor=pool, progress=lambda *counts: seen.append(counts), **run)
        assert pool.submit(int, "3").result() == 3  # it is left running
        labels = np.arange(600) % 3
        of_classes = sde.sample(VP, Classes(), 600, labels=labels, executor=pool, **run)
    assert lent.tobytes() == alone.tobytes()
    assert of_classes.tobytes() == sde.sample(VP, Classes(), 600, labels=labels, **run).tobytes()
    assert seen[-1] == (5400, 5400)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_processes_give_the_bits_of_threads():
    """Exact scores and networks are sent to spawned workers; a function that cannot be sent is named."""
    net = sde.ResidualMLP(4, width=16, n_blocks=1, n_classes=2, process=VP, seed=1)
    grey = sde.LinearMeasurement(np.full((1, 4), 0.25), [0.3])
    runs = [
        (sde.marginal_score(VP, PLANE), {"scheme": "heun"}),
        (net, {"labels": np.arange(600) % 2, "guidance": [0.5, grey], "method": "edm_heun", "churn": 3}),
        (net, {"observed": np.ones(4), "mask": [True, False, False, True]}),
    ]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for score, options in runs:
            run = {"n_steps": 4, "seed": 2, **options}
            there = sde.sample(VP, score, 600, executor=pool, **run)
            assert there.tobytes() == sde.sample(VP, score, 600, **run).tobytes()
        with pytest.raises(TypeError, match="the work cannot be sent to the executor's processes"):
            sde.sample(VP, lambda x, t: -x, 600, dim=2, n_steps=4, executor=pool)


def test_ctrl_c_is_answered_with_a_lent_executor():
    score, run = sde.marginal_score(VP, PLANE), {"n_steps": 10, "seed": 1}

    def interrupt(done, total):
        if done == 3 * 256 * 10:
            raise KeyboardInterrupt

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with pytest.warns(RuntimeWarning, match="samples are returned"):
            x = sde.sample(VP, score, 25600, progress=interrupt, executor=pool, **run)
        assert 768 <= len(x) < 25600
        assert np.array_equal(x, sde.sample(VP, score, len(x), executor=pool, **run))


# ---- grids ----------------------------------------------------------------------------------------------------------


def test_the_grids_are_what_they_say():
    noised = Noised(VP)
    t = grids.times(noised, 10, "uniform", None, "uniform")
    assert np.allclose(np.diff(t), (1e-3 - 1.0) / 10)
    t = grids.times(noised, 10, "log_snr", None, "uniform")
    assert np.allclose(np.diff(np.log(VP.snr(t))), np.log(VP.snr(1e-3) / VP.snr(1.0)) / 10)
    edm = sde.EDM()
    t = grids.times(Noised(edm), 17, "edm", None, "uniform")
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert np.allclose(t, expected, rtol=1e-9)
    assert np.array_equal(grids.times(Noised(edm), 17, "auto", None, "uniform"), t)
    own = np.array([1.0, 0.5, 0.1])
    assert np.array_equal(grids.times(noised, None, own, None, "uniform"), own)


def test_denoising_is_tweedies_formula():
    score = sde.marginal_score(VP, PLANE)
    options = {"method": "edm_heun", "n_steps": 8, "t_end": 0.2, "seed": 2}
    x = sde.sample(VP, score, 50, denoise=False, **options)
    mean = (x + VP.added_variance(0.2) * score(x, 0.2)) / VP.mean_factor(0.2)
    assert np.allclose(sde.sample(VP, score, 50, **options), mean, rtol=1e-12)


# ---- labels and guidance --------------------------------------------------------------------------------------------


class Classes:
    """Scores of N(m, 1) for three classes, and of N(0, 1) without one."""

    dim, n_classes = 1, 3
    means = np.array([-2.0, 0.5, 3.0])

    def __call__(self, x, t, labels=None):
        mean = 0.0 if labels is None else self.means[labels][:, None]
        return -(x - VP.mean_factor(t) * mean)


def test_labels_and_classifier_free_guidance():
    labels = np.arange(600) % 3
    run = {"method": "probability_flow", "n_steps": 16, "scheme": "rk4", "seed": 1}
    x = sde.sample(VP, Classes(), 600, labels=labels, **run)
    free = sde.sample(VP, Classes(), 600, **run)
    # the scores are of unit normal laws: a flow moves every point by the class's mean
    assert np.allclose((x - free)[:, 0], Classes.means[labels], atol=1e-3)
    more = sde.sample(VP, Classes(), 600, labels=labels, guidance=0.5, **run)
    assert np.allclose((more - free)[:, 0], 1.5 * Classes.means[labels], atol=2e-3)
    one = sde.sample(VP, Classes(), 300, labels=2, **run)
    assert np.allclose((one - free[:300])[:, 0], 3.0, atol=1e-3)
    split = sde.sample(VP, Classes(), 344, labels=labels[256:], first_path=256, **run)
    assert np.array_equal(x[256:], split)


def test_a_guidance_function_is_added_to_the_score():
    half = sde.targets.GaussianMixture([1.0], [[1.0, 0.6]], np.array([[[0.1, 0.04], [0.04, 0.1]]]))
    whole, part = sde.marginal_score(VP, PLANE), sde.marginal_score(VP, half)
    run = {"method": "edm_heun", "n_steps": 32, "seed": 1}
    x = sde.sample(VP, whole, 1000, guidance=lambda x, t: part(x, t) - whole(x, t), **run)
    assert fresh_draws.moments(x, half) > 1e-3
    assert fresh_draws.moments(sde.sample(VP, whole, 1000, **run), half) < 1e-6


# ---- errors ---------------------------------------------------------------------------------------------------------


def nan_at(row, below):
    def score(x, t):
        s = -x
        if t < below:
            s = s.copy()
            s[row] = np.nan
        return s

    return score


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "edm_huen"}, ValueError, "method must be one of .*did you mean 'edm_heun'"),
        ({"scheme": "rk4"}, ValueError, "scheme must be one of"),
        ({"method": "edm_heun", "scheme": "heun"}, ValueError, "takes no scheme"),
        ({"n_steps": None}, ValueError, "n_steps is missing"),
        ({"n_steps": 0}, ValueError, "n_steps must be >= 1"),
        ({"t_end": 1.0}, ValueError, "t_end must lie below the horizon = 1, got 1"),
        ({"t_end": -0.1}, ValueError, "t_end must be >= 0"),
        ({"grid": [1.0, 0.5, 0.7]}, ValueError, "grid must decrease"),
        ({"grid": [1.5, 0.5]}, ValueError, r"grid must lie in \[0, horizon\] = \[0, 1\], got 1.5"),
        ({"grid": [1.0, 0.5]}, ValueError, "n_steps = 5 contradicts a grid of 2 times"),
        ({"grid": "cosine"}, ValueError, "grid must be one of"),
        ({"rtol": 1e-3}, ValueError, "rtol belongs to method='probability_flow'"),
        ({"churn": 3.0}, ValueError, "churn belongs to method='edm_heun'"),
        ({"step_size": 0.1}, ValueError, "step_size belongs to annealed_langevin"),
        ({"executor": 3}, TypeError, r"executor must have submit\(function, \*args\), got int"),
        ({"device": "cuda"}, TypeError, "device='cuda' runs a ScoreMLP"),
        ({"device": "gpu"}, ValueError, "device must be one of"),
        ({"precision": "fp16"}, ValueError, "precision belongs to device='cuda'"),
        ({"batch": 5}, ValueError, "batch belongs to device='cuda'"),
        ({"dim": 3}, ValueError, "dim must be 2, the dimension of the score"),
        ({"guidance": 1.0}, ValueError, "guidance = 1 is a weight of labels, and there are none"),
        ({"n_resample": 2}, ValueError, "n_resample belongs to inpainting"),
        ({"dtype": int}, ValueError, "dtype must be float32 or float64"),
    ],
)  # fmt: skip
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        sde.sample(VP, sde.marginal_score(VP, PLANE), 10, **{"n_steps": 5, **options})


def test_wrong_scores_processes_and_labels():
    with pytest.raises(ValueError, match="the score has no attribute dim; give dim="):
        sde.sample(VP, lambda x, t: -x, 10, n_steps=5)
    with pytest.raises(TypeError, match="process must be a noising process"):
        sde.sample(sde.DoubleWell(), lambda x, t: -x, 10, n_steps=5, dim=1)
    with pytest.raises(ValueError, match="Wiener has no horizon of its own"):
        sde.sample(sde.Wiener(), lambda x, t: -x, 10, n_steps=5, dim=1)
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, the classes of the network, got 3"):
        sde.sample(VP, Classes(), 4, n_steps=5, labels=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"labels has shape \(3,\), expected one class or \(4,\)"):
        sde.sample(VP, Classes(), 4, n_steps=5, labels=[0, 1, 2])
    with pytest.raises(ValueError, match=r"score returned shape \(10, 3\), expected \(10, 2\)"):
        sde.sample(VP, lambda x, t: np.zeros((len(x), 3)), 10, n_steps=5, dim=2)


def test_a_score_that_returns_nan_is_named_with_its_time_and_row():
    with pytest.raises(ValueError, match=r"score returned nan at row 7, x = .*, t = 0\.4"):
        sde.sample(VP, nan_at(7, 0.5), 10, n_steps=10, dim=2, t_end=0.0)

    def second_block(x, t):
        return nan_at(7, 0.5)(x, t) if len(x) == 44 else -x

    with pytest.raises(ValueError, match="score returned nan at row 263"):
        sde.sample(VP, second_block, 300, n_steps=10, dim=2)

    def late(x, t):  # in adaptive steps rows arrive at different times
        s = -x
        s[(x[:, 0] == s_start[41, 0]) & (t < 0.999)] = np.nan
        return s

    s_start = sde.sample(VP, lambda x, t: -x, 100, method="probability_flow", rtol=1e-3, dim=2, seed=1)
    with pytest.raises(ValueError, match="score returned nan at row 41"):
        sde.encode(VP, late, s_start, t_end=0.5)


def test_samples_that_diverge_are_named():
    with pytest.raises(sde.errors.NonFiniteError, match=r"10 of 10 samples became non-finite, first row 0 at t = "):
        sde.sample(VP, lambda x, t: np.full_like(x, 1e308), 10, n_steps=50, dim=2)
