"""Training: known scores are learned, the same bits come back after an interruption, bad inputs are told."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import storage
from sdesim.score import kernels
from sdesim.score.optimizer import Adam

VP = sde.VariancePreserving()
GAUSSIAN = sde.targets.Gaussian([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]])
DATA = GAUSSIAN.sample(20_000, 1)
SHORT = {"n_iterations": 60, "batch_size": 64, "seed": 7}


def small(**options):
    return sde.ScoreMLP(2, options.pop("hidden", (32, 32)), seed=1, **options)


def relative(score, target, t=0.0, n=5000):
    """E|s − s*|² / E|s*|² on fresh points."""
    x = target.sample(n, 99)
    return sde.fisher_divergence(score, target, x, t) / (np.square(target.score(x)).sum() / n)


# ---- what is learned


@pytest.mark.parametrize("objective", ["implicit", "sliced", "sliced_vr", "finite_difference"])
def test_the_score_of_a_gaussian_without_noise(objective):
    fit = sde.fit_score(small(time=None), DATA, objective=objective, n_iterations=800, batch_size=256, seed=1)
    assert fit.success
    assert len(fit.losses) == 800
    assert relative(fit.score, GAUSSIAN) < 0.05
    assert relative(small(time=None), GAUSSIAN) > 0.5


def test_the_score_at_one_noise_level():
    fit = sde.fit_score(small(time=None), DATA, sigma=0.4, n_iterations=800, seed=1)
    assert relative(fit.score, GAUSSIAN.affine(1.0, 0.0, 0.16)) < 0.03
    default = sde.fit_score(small(time=None), DATA, n_iterations=5, seed=1)
    assert default.score.head.process.sigma == pytest.approx(0.1 * np.sqrt(1.25), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"process": VP},
        {"process": VP, "prediction": "noise", "times": "uniform"},
        {"process": VP, "prediction": "data"},
        {"process": VP, "prediction": "velocity", "weighting": "likelihood"},
        {"process": sde.SubVariancePreserving()},
        {"process": sde.VarianceExploding(0.01, 20.0), "weighting": "noise", "levels": 10, "t_min": 0.4},
        {"process": sde.EDM(0.01, 20.0)},
        {"process": sde.OrnsteinUhlenbeck(1.0, 0.5, 1.0), "horizon": 3.0},
        {"process": VP, "objective": "sliced_vr"},
    ],
    ids=str,
)
def test_the_score_at_all_noise_levels(options):
    fit = sde.fit_score(small(hidden=(64, 64)), DATA, n_iterations=1500, seed=1, **options)
    process = options["process"]
    horizon = options.get("horizon", getattr(process, "horizon", None))
    exact = sde.marginal_score(process, GAUSSIAN)
    shares = (0.1, 0.3, 0.6, 1.0) if "levels" not in options else (0.4, 1.0)  # the first and the last of the levels
    for share in shares:
        t = share * horizon
        assert relative(lambda x, _, t=t: fit.score(x, t), exact.law(t)) < 0.05


def test_a_learned_score_turns_noise_into_data():
    fit = sde.fit_score(small(hidden=(64, 64)), DATA, process=VP, n_iterations=600, seed=1)
    start = np.random.default_rng(0).standard_normal((3000, 2)) * 1.0
    reverse = sde.ReverseProcess(VP, fit.score, 1.0)
    x = sde.simulate(reverse, start, (0.0, 0.999), n_steps=150, seed=2).final
    np.testing.assert_allclose(x.mean(axis=0), [1.0, -2.0], atol=0.12)
    np.testing.assert_allclose(np.cov(x.T), GAUSSIAN.cov, atol=0.25)


def test_langevin_samples_a_learned_score():
    fit = sde.fit_score(small(time=None), DATA, objective="implicit", n_iterations=600, seed=1)
    x = sde.simulate(sde.Langevin(fit.score), np.zeros(2), (0.0, 5.0), n_steps=250, n_paths=2000, seed=4).final
    np.testing.assert_allclose(x.mean(axis=0), [1.0, -2.0], atol=0.25)


def test_the_units_of_the_data_do_not_matter():
    fits = []
    for unit in (1.0, 1000.0):
        fit = sde.fit_score(small(time=None), unit * DATA, objective="sliced_vr", n_iterations=100, seed=1)
        fits.append(unit * fit.score(unit * DATA[:50], 0.0))
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-2, atol=1e-2)


# ---- the same bits


@pytest.mark.parametrize("objective", ["denoising", "sliced_vr", "implicit"])
def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path, objective):
    options = {**SHORT, "objective": objective, "process": VP, "validation": 0.1, "validate_every": 20, "clip": 1.0}
    whole = sde.fit_score(small(), DATA, **options)

    def stop(done, total):
        if done >= 37:
            raise KeyboardInterrupt

    path = tmp_path / "training.npz"
    part = sde.fit_score(small(), DATA, **options, checkpoint=path, checkpoint_every=25, progress=stop)
    assert not part.success
    assert "interrupted after 37 of 60" in part.message
    rest = sde.fit_score(small(), DATA, **options, checkpoint=path)
    assert rest.success
    assert (rest.losses == whole.losses).all()
    assert (rest.score.parameters == whole.score.parameters).all()
    assert (rest.net.parameters == whole.net.parameters).all()
    assert (rest.validation == whole.validation).all()
    again = sde.fit_score(small(), DATA, **options, checkpoint=path)  # finished: nothing is left to do
    assert (again.score.parameters == whole.score.parameters).all()
    with pytest.raises(ValueError, match=r"belongs to a different run: learning_rate 0.002 != 0.0001"):
        sde.fit_score(small(), DATA, **options, checkpoint=path, learning_rate=1e-4)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "net.npz"
    sde.save(small(), path)
    with pytest.raises(ValueError, match="holds a ScoreMLP, not a training"):
        sde.fit_score(small(), DATA, **SHORT, checkpoint=path)
    path.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="not a file of sdesim"):
        sde.fit_score(small(), DATA, **SHORT, checkpoint=path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("losses", lambda a: None, "has no losses"),
        ("losses", lambda a: np.zeros(61), r"losses of shape \(61,\)"),
        ("losses", lambda a: np.append(a[:-1], np.nan), "losses that are not finite"),
        ("tried", lambda a: np.zeros(3), r"tried of shape \(3,\)"),
        ("best_loss", lambda a: np.zeros(0), "best_loss of shape"),
        ("parameters", lambda a: a[:-1], "parameters of shape"),
        ("first", lambda a: a[:1], "first of shape"),  # NumPy would spread it over all
        ("average", lambda a: a.astype(np.float64), "type float64, expected"),
        ("second", lambda a: -1.0 - a, "squares of the gradient below 0"),
    ],
)
def test_a_checkpoint_from_which_no_training_can_go_on(tmp_path, name, change, message):
    path = tmp_path / "training.npz"
    sde.fit_score(small(), DATA, **SHORT, process=VP, checkpoint=path)
    kind, settings, arrays = storage.read(path)
    changed = change(arrays.pop(name))
    storage.write(path, kind, settings, arrays if changed is None else {**arrays, name: changed})
    with pytest.raises(ValueError, match=message):
        sde.fit_score(small(), DATA, **SHORT, process=VP, checkpoint=path)


@pytest.mark.parametrize("objective", ["denoising", "implicit"])
def test_any_number_of_threads_gives_the_same_bits(objective, monkeypatch):
    monkeypatch.setattr("sdesim.score.fit.SMALL", 0.0)
    options = {"n_iterations": 6, "batch_size": 700, "seed": 2, "process": VP, "clip": 0.5}
    fits = [sde.fit_score(small(hidden=(520, 300)), DATA, objective=objective, workers=k, **options) for k in (1, 2, 5)]
    for fit in fits[1:]:
        assert (fit.losses == fits[0].losses).all()
        assert (fit.score.parameters == fits[0].score.parameters).all()


def test_the_seed_decides():
    a, b, c = (sde.fit_score(small(), DATA, **{**SHORT, "seed": seed}, process=VP) for seed in (1, 1, 2))
    assert (a.losses == b.losses).all()
    assert not (a.losses == c.losses).all()
    assert sde.fit_score(small(), DATA, **{**SHORT, "seed": None}, process=VP).seed > 0


def test_memory_maps_and_other_types_are_data_too(tmp_path):
    single = DATA.astype(np.float32)
    np.save(tmp_path / "x.npy", single)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = (sde.fit_score(small(), data, **SHORT, process=VP) for data in (single, mapped))
    assert (a.score.parameters == b.score.parameters).all()
    c = sde.fit_score(small(), single.astype(np.float64), **SHORT, process=VP)
    assert (a.score.parameters == c.score.parameters).all()
    whole = sde.fit_score(small(), np.rint(10 * DATA).astype(np.int16), **SHORT, process=VP)
    assert np.isfinite(whole.losses).all()
    line = sde.fit_score(sde.ScoreMLP(1, (8,)), DATA[:, 0], **SHORT, process=VP)
    assert line.score.dim == 1


def test_double_precision_follows_the_same_training():
    fit = sde.fit_score(small(dtype=np.float64), DATA, **SHORT, process=VP)
    assert fit.score.dtype == np.float64
    assert fit.losses[-20:].mean() < fit.losses[:5].mean() + 0.2


def test_the_network_that_was_given_stays_as_it_is():
    net = small()
    before = net.parameters.copy()
    fit = sde.fit_score(net, DATA, **SHORT, process=VP)
    assert (net.parameters == before).all()
    assert not (fit.score.parameters == before).all()
    assert "60 steps" in repr(fit)


def test_a_trained_score_can_be_saved(tmp_path):
    fit = sde.fit_score(small(), DATA, **SHORT, process=VP)
    sde.save(fit.score, tmp_path / "score.npz")
    assert (sde.load(tmp_path / "score.npz")(DATA[:9], 0.3) == fit.score(DATA[:9], 0.3)).all()
    with pytest.raises(TypeError, match=r"save fit\.score"):
        sde.save(fit, tmp_path / "score.npz")


# ---- Adam


@pytest.mark.parametrize("clip", [None, 0.3])
def test_adam_is_what_the_paper_writes(clip):
    rng = np.random.default_rng(0)
    p, slopes = rng.standard_normal(50), rng.standard_normal((30, 50))
    parameters, gradient = p.copy(), np.zeros(50)
    adam = Adam(
        parameters, gradient, n_steps=30, rate=0.01, warm_up=5, schedule="cosine", decay=0.1, clip=clip, ema=0.9
    )
    m, v, average = np.zeros(50), np.zeros(50), p.copy()
    for k, g in enumerate(slopes, start=1):
        gradient[:] = g
        adam.prepare(k - 1)
        for phase in adam.phases:
            for task in phase:
                task()
        g = g * min(1.0, clip / np.linalg.norm(g)) if clip else g
        rate = 0.01 * min(1.0, k / 5) * 0.5 * (1 + np.cos(np.pi * (k - 1) / 30))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - rate * 0.1 * p - rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        average += (1 - min(0.9, (1 + k) / (10 + k))) * (p - average)
        np.testing.assert_allclose(parameters, p, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(adam.average, average, rtol=1e-10, atol=1e-12)


def test_pieces_cover_the_whole_vector():
    g = np.random.default_rng(0).standard_normal(600_001).astype(np.float32)
    adam = Adam(g.copy(), g, n_steps=10, clip=1.0)
    adam.prepare(0)
    for phase in adam.phases:
        for task in phase:
            task()
    assert adam.numbers[8] == pytest.approx(1 / np.linalg.norm(g.astype(float)), rel=1e-5)
    assert (adam.parameters != g).mean() > 0.99
    assert kernels.square_sum(g, 0, 10) == pytest.approx((g[:10].astype(float) ** 2).sum(), rel=1e-6)


# ---- validation, failure, bad inputs


def test_early_stopping_keeps_the_best_weights():
    few = DATA[:40]  # a few points that a network can learn by heart
    fit = sde.fit_score(
        small(hidden=(64, 64)), few, sigma=0.05, n_iterations=3000, batch_size=20, validation=0.5, validate_every=50,
        patience=3, learning_rate=5e-3, warm_up=0, decay="none", ema=0.5, seed=1,
    )  # fmt: skip
    assert fit.success
    assert "no better validation loss in 3 trials" in fit.message
    assert len(fit.losses) < 3000
    steps, losses = fit.validation.T
    assert np.argmin(losses) == len(losses) - 4
    assert (np.diff(steps) == 50).all()
    assert not (fit.score.parameters == fit.net.parameters).all()


def test_validation_tries_the_averaged_weights():
    options = {**SHORT, "process": VP, "validation": 0.2, "validate_every": 30}
    now, averaged = (sde.fit_score(small(), DATA, **options, ema=ema) for ema in (0.0, 0.99))
    assert (now.losses == averaged.losses).all()  # the average does not act back on the training
    assert (now.net.parameters == averaged.net.parameters).all()
    assert now.validation[0, 1] == averaged.validation[0, 1]
    assert now.validation[-1, 1] != averaged.validation[-1, 1]


def test_points_held_back_are_not_trained_on():
    data = np.concatenate([np.full((50, 2), 1.0), np.full((50, 2), 1e6)])
    from sdesim.score.fit import _split

    rows, held = _split(len(data), 0.3, 5)
    assert len(held) == 30
    assert not set(rows) & set(held)
    assert len(set(rows) | set(held)) == 100


@pytest.fixture
def exploding(monkeypatch):
    """A rate that throws the weights out of the range of numbers at step 40."""
    rate_at = Adam.rate_at
    monkeypatch.setattr(Adam, "rate_at", lambda self, step: 1e30 if step == 40 else rate_at(self, step))


@pytest.mark.usefixtures("exploding")
def test_a_loss_that_explodes_keeps_the_last_good_weights():
    with pytest.raises(sde.errors.TrainingError, match=r"the loss became (nan|inf) at step 41; lower") as caught:
        sde.fit_score(small(), DATA, process=VP, n_iterations=100, seed=1)
    fit = caught.value.fit
    assert not fit.success
    assert len(fit.losses) == 41
    assert np.isfinite(fit.losses).all()
    for net in (fit.score, fit.net):
        assert abs(net.parameters).max() < 100
        assert np.isfinite(net(DATA[:100], 0.5)).all()


@pytest.mark.usefixtures("exploding")
@pytest.mark.parametrize("every", [1, 7, 41])
def test_the_last_good_checkpoint_survives(tmp_path, every):
    path = tmp_path / "training.npz"
    with pytest.raises(sde.errors.TrainingError):
        sde.fit_score(
            small(), DATA, process=VP, n_iterations=100, seed=1, checkpoint=path, checkpoint_every=every
        )  # fmt: skip
    if every == 41:  # what is not known to be good is not written
        assert not path.exists()
        return
    _, _, arrays = storage.read(path)
    assert len(arrays["losses"]) == 40 // every * every
    assert abs(arrays["parameters"]).max() < 100


def hole(value):
    data = DATA[:100].copy()
    data[17, 1] = value
    return data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.zeros((0, 2))}, "data is empty"),
        ({"data": np.ones((10, 2))}, "data is constant: all 10 points are the same"),
        ({"data": DATA[:1]}, "data is constant"),
        ({"data": hole(np.nan)}, "data must be finite, got nan at row 17, column 1"),
        ({"data": hole(-np.inf)}, "got -inf at row 17"),
        ({"data": np.zeros((10, 3))}, r"data has shape \(10, 3\), expected \(n, 2\)"),
        ({"data": DATA[:, 0]}, "expected"),
        ({"data": DATA.astype(str)}, "real numbers"),
        ({"data": DATA.astype(complex)}, "real numbers"),
        ({"net": lambda x, t: x}, "net must be a ScoreMLP, a ResidualMLP or a MixerMLP, got function"),
        ({"objective": "likelihood"}, "objective must be one of"),
        ({"objective": "slicedvr"}, "did you mean 'sliced_vr'"),
        ({"process": sde.GeometricBrownian(0.1, 0.2)}, "process must be linear"),
        ({"process": sde.OrnsteinUhlenbeck()}, "no horizon of its own"),
        ({"process": VP, "sigma": 0.1}, "leave it out"),
        ({"process": VP, "t_min": 2.0}, "t_min must be < horizon"),
        ({"prediction": "x"}, "prediction must be one of"),
        ({"weighting": "snr"}, "weighting must be one of"),
        ({"sigma": 0.0}, "sigma must be > 0"),
        ({"n_iterations": 0}, "n_iterations must be >= 1"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"learning_rate": -1.0}, "learning_rate must be > 0"),
        ({"decay": "exp"}, "decay must be one of"),
        ({"ema": 1.0}, "ema must be < 1"),
        ({"clip": 0.0}, "clip must be > 0"),
        ({"validation": 1.0}, "validation must be < 1"),
        ({"projection": "sphere"}, "projection must be one of"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_inputs(options, message):
    arguments = {"net": small(), "data": DATA, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        sde.fit_score(arguments.pop("net"), arguments.pop("data"), **{"n_iterations": 5, **arguments})
