"""Patch mixers: exact starts, derivatives against finite differences, patches, the same bits, files, bad inputs."""

import functools
import pickle

import numpy as np
import pytest

import sdesim as sde
from sdesim.score import mixer_kernels
from sdesim.score.mixer_layout import MixerLayout
from sdesim.targets import PrincipalMixture
from test_low_rank import mixture

VP = sde.VariancePreserving()
SHAPE = (4, 6, 2)
DIM = 48
TURN = np.linalg.qr(np.random.default_rng(8).standard_normal((DIM, DIM)))[0]
PRINCIPAL = PrincipalMixture(np.arange(DIM) / 30, TURN, mixture(3, 2, 5), np.geomspace(0.5, 0.05, DIM - 5))
BACKBONES = {"principal": PRINCIPAL, "low_rank": mixture(4, 2, DIM), "none": None}
TABLE = np.random.default_rng(5).dirichlet(np.ones(3), 3)
H = 1e-5


def untrained(backbone=PRINCIPAL, *, dtype=np.float64, process=VP, width=10, n_blocks=2, **options):
    options = {"n_classes": 3, "patch": 2, "context": 1, "seed": 3, **options}
    return sde.MixerMLP(SHAPE, width, n_blocks, backbone=backbone, process=process, dtype=dtype, **options)


def network(backbone=PRINCIPAL, **options):
    """A network with no weight at its initial value."""
    net = untrained(backbone, **options, class_weights=TABLE if backbone is PRINCIPAL else None)
    noise = np.random.default_rng(1).standard_normal(net.parameters.size)
    return net.with_parameters((net.parameters + 0.2 * noise).astype(net.dtype))


def points(n, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, DIM)), rng.uniform(0.05, 1.0, n), rng.standard_normal((n, DIM)), rng.integers(-1, 3, n)
    )  # fmt: skip


@pytest.mark.parametrize("process", [VP, sde.EDM(), sde.SubVariancePreserving()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("backbone", ["principal", "low_rank"])
def test_the_start_is_the_backbones_score_exactly(backbone, process):
    law = BACKBONES[backbone]
    x, t, _, labels = points(270)
    t = process.t_min + t * (process.horizon - process.t_min)
    exact = sde.marginal_score(process, law)(x, t)
    net = untrained(law, process=process)
    for given in (None, labels):
        np.testing.assert_allclose(net(x, t, given), exact, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(net.astype(np.float32)(x, t), exact, rtol=3e-4, atol=3e-5 * abs(exact).max())


@pytest.mark.parametrize("see_backbone", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_derivatives_in_x_against_central_differences(backbone, see_backbone):
    net = network(BACKBONES[backbone], see_backbone=see_backbone)
    x, t, v, labels = points(19)
    columns = [(net(x + H * e, t, labels) - net(x - H * e, t, labels)) / (2 * H) for e in np.eye(DIM)]
    j = np.stack(columns, axis=2)
    bound = 1e-7 * abs(j).max()
    s, along = net.jacobian_vector(x, t, v, labels)
    np.testing.assert_allclose(s, net(x, t, labels), rtol=1e-12)
    np.testing.assert_allclose(along, np.einsum("nij,nj->ni", j, v), atol=10 * bound)
    s, back = net.vector_jacobian(x, t, v, labels)
    np.testing.assert_allclose(s, net(x, t, labels), rtol=1e-12)
    np.testing.assert_allclose(back, np.einsum("nij,ni->nj", j, v), atol=10 * bound)
    np.testing.assert_allclose(net.divergence(x, t, labels=labels), np.einsum("nii->n", j), atol=30 * bound)
    assert abs(net(x, t) - net(x, t, labels)).max() > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_loss_is_the_denoising_loss(backbone):
    net = network(BACKBONES[backbone], process=sde.OrnsteinUhlenbeck(1.0, 0.5, 1.0))
    x, t, noise, labels = points(70)
    loss, _ = net.learner(70, "denoising").evaluate(x, t, noise=noise, labels=labels)
    alpha, beta, sigma = (np.reshape(u, (-1, 1)) for u in net.head.noise(t))
    s = net(alpha * x + beta + sigma * noise, t, labels)
    wanted = np.mean(0.5 * ((s + noise / sigma) ** 2).sum(axis=1) / net.head.scalings(t)[1] ** 2)
    assert loss == pytest.approx(wanted, rel=1e-10)


def worst_slope(backbone="principal", n=21, **options):
    """The largest error of the gradient against central differences, over some parameters of every array."""
    net = network(BACKBONES[backbone], **options)
    learner = net.learner(n, "denoising")
    x, t, noise, labels = points(n)
    learner.evaluate(*points(n, 9)[:2], noise=noise, labels=labels)  # what an earlier batch left must not matter
    loss = functools.partial(learner.evaluate, x, t, noise=noise, labels=labels)
    slopes = loss()[1]
    rng, worst, start = np.random.default_rng(2), 0.0, 0
    for shape in net.layout.shapes:
        size = int(np.prod(shape))
        for i in start + rng.choice(size, min(size, 10), replace=False):
            step = np.zeros(slopes.size)
            step[i] = 1e-6
            wanted = (loss(parameters=net.parameters + step)[0] - loss(parameters=net.parameters - step)[0]) / 2e-6
            worst = max(worst, abs(wanted - slopes[i]))
        start += size
    return worst / abs(slopes).max()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_gradient_against_central_differences(backbone):
    assert worst_slope(backbone) < 1e-7


def test_the_gradient_of_a_batch_of_more_blocks_than_are_kept_apart(monkeypatch):
    monkeypatch.setattr("sdesim.score.mixer_objective._PARTS", 2)
    assert worst_slope(n=77, width=6, n_blocks=1) < 1e-7


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("normalise", 3),  # the normalised signal
        ("normalise_back", 5),  # the gradient in γ and β
        ("normalise_back", 6),  # in h
        ("activate", 3),  # φ′
        ("multiply", 0),  # the gradient in z
    ],
)
def test_a_broken_pass_is_seen(monkeypatch, name, array):
    kernel = getattr(mixer_kernels, name)

    def broken(*arguments):
        kernel(*arguments)
        arguments[array][:] *= 1.01

    monkeypatch.setattr(mixer_kernels, name, broken)
    assert worst_slope() > 1e-4


def test_single_precision_follows_double():
    double = network()
    single = double.astype(np.float32)
    x, t, v, labels = points(40)
    assert single(x, t, labels).dtype == np.float64
    for name in ("jacobian_vector", "vector_jacobian"):
        for found, wanted in zip(
            getattr(single, name)(x, t, v, labels), getattr(double, name)(x, t, v, labels), strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=3e-4 * abs(wanted).max())


def test_windows_and_patches_hold_the_pixels_that_they_should():
    layout = MixerLayout((6, 4, 2), 2, 1, 2, 3, 5, 4, 7, 1)
    picture = np.arange(48)
    image = picture.reshape(6, 4, 2)
    assert layout.n_tokens == 6
    assert layout.size == sum(int(np.prod(shape)) for shape in layout.shapes)
    assert layout.n_outputs == 8
    assert layout.n_inputs == 2 * 2 * 16
    assert sorted(layout.patches.reshape(-1)) == list(range(48))
    assert (layout.patches[3].reshape(2, 2, 2) == image[2:4, 2:4]).all()
    window = layout.windows[3].reshape(4, 4, 2)
    assert (window[:, :3] == image[1:5, 1:4]).all()
    assert (window[:, 3] == -1).all()
    views = np.arange(96.0).reshape(2, 1, 48)
    out = np.full((6, 1, 64), np.nan)
    mixer_kernels.gather(views, layout.windows, out)
    shown = out[3, 0].reshape(2, 4, 4, 2)
    assert (shown[1, :, :3] == views[1, 0].reshape(6, 4, 2)[1:5, 1:4]).all()
    assert (shown[:, :, 3] == 0).all()
    # the transpose: <gather v, w> = <v, scatter w>
    rng = np.random.default_rng(0)
    v, w, back = rng.standard_normal((2, 3, 48)), rng.standard_normal((6, 3, 64)), np.empty((2, 3, 48))
    there = np.empty((6, 3, 64))
    mixer_kernels.gather(v, layout.windows, there)
    mixer_kernels.scatter(w, layout.windows, back)
    assert (there * w).sum() == pytest.approx((v * back).sum(), rel=1e-12)


def test_a_network_without_context_mixes_patches_all_the_same():
    net = network(None, context=0)
    x, t, *_ = points(1)
    far = x.copy()
    far[0, -1] += 1.0  # a pixel of the last patch
    assert abs(net(far, t) - net(x, t))[0, 0] > 1e-6  # moves a pixel of the first


def test_a_row_has_the_same_bits_in_any_company():
    net = network(dtype=np.float32)
    x, t, _, labels = points(300)
    whole = net(x, t, labels)
    for lo, hi in ((0, 1), (3, 20), (17, 280), (256, 300)):
        assert (net(x[lo:hi], t[lo:hi], labels[lo:hi]) == whole[lo:hi]).all()


RNG = np.random.default_rng(4)
CLASSES = RNG.integers(0, 2, 500)
DATA = (RNG.standard_normal((500, 12)) @ RNG.standard_normal((12, DIM)) * 0.3 + 0.8 * CLASSES[:, None]).astype(
    np.float32
)
SHORT = {"process": VP, "n_iterations": 20, "batch_size": 50, "seed": 1, "warm_up": 5}


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr("sdesim.score.fit.SMALL", 0.0)
    net = untrained(dtype=np.float32, n_classes=2)
    fits = [sde.fit_score(net, DATA, labels=CLASSES, workers=k, **SHORT) for k in (1, 2, 5)]
    for fit in fits[1:]:
        assert (fit.losses == fits[0].losses).all()
        assert (fit.score.parameters == fits[0].score.parameters).all()


def test_training_lowers_the_loss_below_the_backbones():
    backbone = PrincipalMixture.fit(DATA, 1, 4, n_components=20)
    net = untrained(backbone, dtype=np.float32, n_classes=2, width=24)
    fit = sde.fit_score(net, DATA, labels=CLASSES, **{**SHORT, "n_iterations": 600, "learning_rate": 4e-3})
    learner = net.learner(500, "denoising")
    x, rng = DATA, np.random.default_rng(7)
    t, noise = rng.uniform(0.2, 0.8, 500), rng.standard_normal((500, DIM))
    loss = functools.partial(learner.evaluate, x, t, noise=noise, labels=CLASSES)
    before, after = loss(parameters=net.parameters)[0], loss(parameters=fit.score.parameters)[0]
    assert after < 0.95 * before


@pytest.mark.parametrize("backbone", BACKBONES)
def test_save_load_and_pickle_keep_the_bits(tmp_path, backbone):
    net = network(BACKBONES[backbone], dtype=np.float32)
    x, t, _, labels = points(10)
    sde.save(net, tmp_path / "net.npz")
    for other in (sde.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net))):
        assert (other(x, t, labels) == net(x, t, labels)).all()
        assert repr(other) == repr(net)
        assert not other.parameters.flags.writeable


def test_files_that_do_not_fit_together_are_refused():
    settings, arrays = network().stored()
    for change in ({"patch": 3}, {"width": 11}, {"shape": [4, 5, 2]}, {"shape": 7}, {"extra": 1}):
        with pytest.raises((ValueError, TypeError)):
            sde.MixerMLP.restored({**settings, **change}, arrays)
    with pytest.raises(ValueError, match="not finite"):
        sde.MixerMLP.restored(settings, {**arrays, "parameters": arrays["parameters"] * np.nan})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.MixerMLP((28, 28), patch=5), "do not tile a picture of 28 x 28"),
        (lambda: sde.MixerMLP(784), "shape must be"),
        (lambda: sde.MixerMLP((28, 0)), "shape"),
        (lambda: sde.MixerMLP((4, 4), context=-1), "context"),
        (lambda: sde.MixerMLP((8, 8), backbone=PRINCIPAL), "the backbone has dimension 48, the network 64"),
        (lambda: untrained(None, class_weights=TABLE), "give both"),
        (lambda: untrained(n_classes=2, class_weights=TABLE), r"expected \(2, 3\)"),
        (lambda: sde.MixerMLP((4096, 4096), 4096), "parameters, more than"),
        (lambda: untrained()(np.zeros((3, 47)), 0.5), r"expected \(n, 48\)"),
        (lambda: untrained()(np.zeros((3, DIM)), 0.5, [0, 1, 3]), "labels must be in 0 … 2"),
        (lambda: untrained(process=None)(np.zeros((3, DIM)), 0.5), "no noising process yet"),
        (lambda: untrained().learner(4, "implicit"), "a MixerMLP learns by denoising"),
        (lambda: sde.fit_score(untrained(), DATA, process=VP), "give labels="),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
