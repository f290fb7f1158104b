"""Residual networks: exact starts, derivatives against finite differences, labels, the same bits, files, bad inputs."""

import dataclasses
import functools
import pickle
import threading

import numpy as np
import pytest

import sdesim as sde
from sdesim.score import residual_kernels
from sdesim.score.head import Head
from sdesim.score.residual_passes import ResidualLayout
from sdesim.targets import Gaussian, GaussianMixture, PrincipalMixture
from test_low_rank import mixture

VP = sde.VariancePreserving()
DIM = 6
LOW = mixture(4, 2, DIM)
GAUSSIAN = Gaussian(np.linspace(-1, 1, DIM), np.diag(np.geomspace(2.0, 0.1, DIM)) + 0.05)
TURN = np.linalg.qr(np.random.default_rng(8).standard_normal((DIM, DIM)))[0]
PRINCIPAL = PrincipalMixture(np.arange(DIM) / 3, TURN, mixture(3, 2, 4), [0.3, 0.02])
BACKBONES = {"principal": PRINCIPAL, "low_rank": LOW, "gaussian": GAUSSIAN, "none": None}
TABLE = np.random.default_rng(5).dirichlet(np.ones(3), 3)  # weights of PRINCIPAL's cells in three classes
H = 1e-5


def untrained(backbone=LOW, *, dtype=np.float64, process=VP, width=20, n_blocks=2, **options):
    options = {"n_classes": 3, "n_components": 4, "seed": 3, **options}
    return sde.ResidualMLP(DIM, width, n_blocks, backbone=backbone, process=process, dtype=dtype, **options)


def network(backbone=LOW, **options):
    """A network with no weight at its initial value."""
    net = untrained(backbone, **options, class_weights=TABLE if backbone is PRINCIPAL else None)
    noise = np.random.default_rng(1).standard_normal(net.parameters.size)
    return net.with_parameters((net.parameters + 0.2 * noise).astype(net.dtype))


def points(n, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, DIM)), rng.uniform(0.05, 1.0, n), rng.standard_normal((n, DIM)), rng.integers(-1, 3, n)
    )  # fmt: skip


def jacobian(net, x, t, labels):
    """J[:, i, j] = ∂sᵢ/∂xⱼ by central differences."""
    columns = [(net(x + H * e, t, labels) - net(x - H * e, t, labels)) / (2 * H) for e in np.eye(DIM)]
    return np.stack(columns, axis=2)


# ---- where it starts


@pytest.mark.parametrize("process", [VP, sde.EDM(), sde.SubVariancePreserving()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    "backbone", [LOW, PRINCIPAL, GAUSSIAN, GaussianMixture([0.4, 0.6], np.eye(DIM)[:2], [0.5, 2.0])]
)
def test_the_start_is_the_backbones_score_exactly(backbone, process):
    x, t, _, labels = points(270)
    t = process.t_min + t * (process.horizon - process.t_min)
    exact = sde.marginal_score(process, backbone)(x, t)
    net = untrained(backbone, process=process)
    for given in (None, labels):
        np.testing.assert_allclose(net(x, t, given), exact, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(net.astype(np.float32)(x, t), exact, rtol=2e-4, atol=2e-5 * abs(exact).max())


def classified(**options):
    return untrained(PRINCIPAL, class_weights=TABLE, **options)


def test_with_class_weights_it_starts_at_the_backbones_model_of_the_class():
    net = classified()
    x, t, _, labels = points(270)
    found = net(x, t, labels)
    for k, weights in enumerate([*TABLE, PRINCIPAL.mixture.weights]):
        law = dataclasses.replace(PRINCIPAL, mixture=dataclasses.replace(PRINCIPAL.mixture, weights=weights))
        rows = labels == (k if k < 3 else -1)
        exact = sde.marginal_score(VP, law)(x[rows], t[rows])
        np.testing.assert_allclose(found[rows], exact, atol=1e-10)
    np.testing.assert_allclose(net(x, t), untrained(PRINCIPAL)(x, t), atol=1e-12)


def test_without_a_backbone_it_starts_at_a_normal_law_of_the_heads_spread():
    net = untrained(None)
    head = Head("edm", VP, np.arange(DIM), 1.7, 1e-3)
    x, t, *_ = points(20)
    start = sde.marginal_score(VP, Gaussian(np.arange(DIM), np.full(DIM, 1.7**2)))
    np.testing.assert_allclose(net.with_parameters(net.parameters, head=head)(x, t), start(x, t), atol=1e-12)


def test_any_centre_of_the_head_leaves_the_backbone_as_it_is():
    net = untrained()
    head = Head("edm", VP, np.full(DIM, 3.0), 0.4, 1e-3)
    x, t, *_ = points(20)
    np.testing.assert_allclose(net.with_parameters(net.parameters, head=head)(x, t), net(x, t), atol=1e-11)


# ---- derivatives in x


@pytest.mark.parametrize("see_backbone", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_derivatives_in_x_against_central_differences(backbone, see_backbone):
    net = network(BACKBONES[backbone], see_backbone=see_backbone)
    x, t, v, labels = points(30)
    j = jacobian(net, x, t, labels)
    bound = 1e-8 * abs(j).max()
    s, along = net.jacobian_vector(x, t, v, labels)
    np.testing.assert_allclose(s, net(x, t, labels), rtol=1e-12)
    np.testing.assert_allclose(along, np.einsum("nij,nj->ni", j, v), atol=10 * bound)
    _, back = net.vector_jacobian(x, t, v, labels)
    np.testing.assert_allclose(back, np.einsum("nij,ni->nj", j, v), atol=10 * bound)
    np.testing.assert_allclose(net.divergence(x, t, labels=labels), np.einsum("nii->n", j), atol=30 * bound)
    assert abs(net.divergence(x, t) - net.divergence(x, t, labels=labels)).max() > 1e-3


def test_hutchinson_is_unbiased():
    net = network()
    x, t, _, labels = points(4)
    exact = net.divergence(x, t, labels=labels)
    j = jacobian(net, x, t, labels)
    symmetric = (j + j.transpose(0, 2, 1)) / 2
    variance = 2 * ((symmetric**2).sum(axis=(1, 2)) - np.einsum("nii->ni", symmetric**2).sum(axis=1))
    found = net.divergence(x, t, method="hutchinson", n_probes=1000, seed=5, labels=labels)
    assert (abs(found - exact) < 4.5 * np.sqrt(variance / 1000)).all()


# ---- the gradient in the parameters


def by_definition(net, x, t, noise, labels):
    """w ½ |s + ε/σ|² with ε given in principal coordinates."""
    alpha, beta, sigma = (np.reshape(u, (-1, 1)) for u in net.head.noise(t))
    axes, _ = net.frame(np.float64)
    e = noise if axes is None else noise @ axes.T
    s = net(alpha * x + beta + sigma * e, t, labels)
    return np.mean(0.5 * ((s + e / sigma) ** 2).sum(axis=1) / net.head.scalings(t)[1] ** 2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_loss_is_the_denoising_loss(backbone):
    net = network(BACKBONES[backbone], process=sde.OrnsteinUhlenbeck(1.0, 0.5, 1.0))
    x, t, noise, labels = points(70)
    loss, _ = net.learner(70, "denoising").evaluate(x, t, noise=noise, labels=labels)
    assert loss == pytest.approx(by_definition(net, x, t, noise, labels), rel=1e-10)


def worst_slope(backbone="principal", n=40):
    """The largest error of the gradient against central differences, over some parameters of every array."""
    net = network(BACKBONES[backbone])
    learner = net.learner(n, "denoising")
    x, t, noise, labels = points(n)
    loss = functools.partial(learner.evaluate, x, t, noise=noise, labels=labels)
    slopes = loss()[1]
    rng, worst, start = np.random.default_rng(2), 0.0, 0
    for shape in net.layout.shapes:
        size = int(np.prod(shape))
        for i in start + rng.choice(size, min(size, 24), replace=False):
            step = np.zeros(slopes.size)
            step[i] = 1e-6
            wanted = (loss(parameters=net.parameters + step)[0] - loss(parameters=net.parameters - step)[0]) / 2e-6
            worst = max(worst, abs(wanted - slopes[i]))
        start += size
    return worst / abs(slopes).max()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_gradient_against_central_differences(backbone):
    assert worst_slope(backbone) < 1e-7


def breaking(kernel, arrays, part):
    """The kernel, after which a part of one of its arrays is scaled."""

    def broken(*arguments):
        kernel(*arguments)
        lo, hi = arguments[-2:]
        arguments[arrays][lo:hi, part] *= 1.01

    return broken


@pytest.mark.parametrize(
    ("name", "array", "part"),
    [
        ("activate", 8, slice(None)),  # φ′
        ("activate", 6, slice(None)),  # the normalised signal
        ("reverse", 8, slice(0, 20)),  # the gradient in γ
        ("reverse", 8, slice(20, 40)),  # in β
        ("reverse", 9, slice(None)),  # in h
        ("regression", 9, slice(None)),  # in the output
    ],
)
def test_a_broken_pass_is_seen(monkeypatch, name, array, part):
    kernel = getattr(residual_kernels, name)
    monkeypatch.setattr(residual_kernels, name, breaking(kernel, array, part))
    assert worst_slope() > 1e-4


def test_single_precision_follows_double():
    net, n = network(), 40
    x, t, noise, labels = points(n)
    found = [
        one.learner(n, "denoising").evaluate(x, t, noise=noise, labels=labels) for one in (net, net.astype(np.float32))
    ]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-5 * abs(found[0][1]).max())


def test_the_layout_covers_the_vector():
    layout = ResidualLayout(3, 5, 7, 11, 2)
    flat = np.arange(layout.size)
    views = layout.views(flat)
    parts = [views.enter, views.enter_bias, views.film, *views.blocks, *views.biases, views.leave, views.leave_bias]
    assert sorted(np.concatenate([part.reshape(-1) for part in parts])) == list(range(layout.size))


# ---- labels


def test_labels_matter_and_no_label_is_the_unconditional_score():
    net = network()
    x, t, *_ = points(5)
    given = [net(x, t, np.full(5, k)) for k in (-1, 0, 1, 2)]
    assert (given[0] == net(x, t)).all()
    assert (net(x, t, 1) == given[2]).all()
    for a in range(4):
        for b in range(a):
            assert abs(given[a] - given[b]).max() > 1e-3
    mixed = net(x, t, np.array([-1, 0, 1, 2, 2]))
    for row, k in enumerate([0, 1, 2, 3, 3]):
        assert (mixed[row] == given[k][row]).all()


CLASSES = np.random.default_rng(0).integers(0, 2, 4000)
DATA = (
    np.random.default_rng(1).standard_normal((4000, DIM)) * np.array([0.3, 0.3, 1, 1, 1, 1])
    + np.where(CLASSES, 1.5, -1.5)[:, None] * np.eye(DIM)[0]
).astype(np.float32)
SHORT = {"n_iterations": 30, "batch_size": 70, "seed": 7, "process": VP, "learning_rate": 2e-3}


def test_classes_are_learned():
    """From one Gaussian as backbone: two classes apart, and with no label both."""
    net = sde.ResidualMLP(DIM, 64, 2, n_classes=2, backbone=Gaussian(DATA.mean(axis=0), np.cov(DATA.T)), seed=1)
    fit = sde.fit_score(net, DATA, labels=CLASSES, label_drop=0.2, **{**SHORT, "n_iterations": 300, "batch_size": 256})
    cov = np.diag([0.09, 0.09, 1, 1, 1, 1])
    centres = np.array([-1.5, 1.5])[:, None] * np.eye(DIM)[0]
    both = GaussianMixture([0.5, 0.5], centres, np.stack([cov, cov]))
    t = 0.3
    for labels, law in ((None, both), (0, Gaussian(centres[0], cov)), (1, Gaussian(centres[1], cov))):
        exact = sde.marginal_score(VP, law)
        x = exact.law(t).sample(2000, 3)
        error = ((fit.score(x, t, labels) - exact(x, t)) ** 2).sum() / (exact(x, t) ** 2).sum()
        assert error < 0.03
    start = net.with_parameters(net.parameters, head=fit.score.head)
    assert ((start(x, t) - exact(x, t)) ** 2).sum() / (exact(x, t) ** 2).sum() > 0.1


def test_dropped_labels_and_unknown_ones():
    net = untrained(dtype=np.float32, n_classes=2)
    fits = [sde.fit_score(net, DATA, labels=CLASSES, label_drop=drop, **SHORT) for drop in (0.0, 0.5, 1.0)]
    assert not (fits[0].losses == fits[1].losses).all()
    unknown = sde.fit_score(net, DATA, labels=np.full(len(DATA), -1), **SHORT)
    assert (unknown.losses == fits[2].losses).all()
    x, t, *_ = points(5)
    assert (unknown.score(x, t, 0) == unknown.score(x, t, 1)).all()  # nothing was learned of the classes
    assert not (unknown.score(x, t, 0) == unknown.score(x, t)).all()


# ---- the same bits


def test_a_row_has_the_same_bits_in_any_company():
    net = network(dtype=np.float32)
    x, t, _, labels = points(600)
    whole = net(x, t, labels)
    assert (net(x[256:300], t[256:300], labels[256:300]) == whole[256:300]).all()
    assert (net(x[:1], t[0], labels[:1]) == whole[:1]).all()
    found = [None] * 3

    def work(i):
        found[i] = net(x, t, labels)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((other == whole).all() for other in found)


@pytest.mark.parametrize("backbone", ["principal", "none"])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, backbone):
    monkeypatch.setattr("sdesim.score.fit.SMALL", 0.0)
    net = untrained(BACKBONES[backbone], dtype=np.float32, width=600, n_classes=2)
    options = {**SHORT, "n_iterations": 4, "batch_size": 300, "clip": 1.0}
    fits = [sde.fit_score(net, DATA, labels=CLASSES, workers=k, **options) for k in (1, 2, 5)]
    for fit in fits[1:]:
        assert (fit.losses == fits[0].losses).all()
        assert (fit.score.parameters == fits[0].score.parameters).all()


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path):
    net = untrained(dtype=np.float32, n_classes=2)
    options = {**SHORT, "labels": CLASSES, "validation": 0.1, "validate_every": 10}
    whole = sde.fit_score(net, DATA, **options)

    def stop(done, total):
        if done >= 17:
            raise KeyboardInterrupt

    path = tmp_path / "training.npz"
    part = sde.fit_score(net, DATA, **options, checkpoint=path, checkpoint_every=5, progress=stop)
    assert "interrupted after 17 of 30" in part.message
    rest = sde.fit_score(net, DATA, **options, checkpoint=path)
    assert (rest.losses == whole.losses).all()
    assert (rest.score.parameters == whole.score.parameters).all()
    for changed in ({"label_drop": 0.3}, {"labels": 1 - CLASSES}):
        with pytest.raises(ValueError, match="belongs to a different run: label"):
            sde.fit_score(net, DATA, **{**options, **changed}, checkpoint=path)
    other = sde.ResidualMLP(
        DIM, 20, 2, n_classes=2, n_components=4, seed=3, backbone=mixture(4, 2, DIM, seed=9), process=VP
    )  # fmt: skip
    assert (other.parameters == net.parameters).all()
    with pytest.raises(ValueError, match="different run: start"):
        sde.fit_score(other, DATA, **options, checkpoint=path)


# ---- files


@pytest.mark.parametrize("backbone", BACKBONES)
def test_save_load_and_pickle_keep_the_bits(tmp_path, backbone):
    net = network(BACKBONES[backbone], dtype=np.float32)
    x, t, _, labels = points(10)
    sde.save(net, tmp_path / "net.npz")
    for other in (sde.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net))):
        assert (other(x, t, labels) == net(x, t, labels)).all()
        assert repr(other) == repr(net)
        assert not other.parameters.flags.writeable
        assert (other.with_parameters(other.parameters)(x, t) == net(x, t)).all()


def test_files_that_do_not_fit_together_are_refused():
    settings, arrays = network(dtype=np.float32).stored()
    for change, message in (
        ({"axes": np.eye(3)}, "axes has shape"),
        ({"axes": 2 * np.eye(DIM)}, "orthonormal columns"),
        ({"origin": np.full(DIM, np.nan)}, "centre must be finite"),
        ({"tail": np.ones(1)}, "tail has shape"),
        ({"directions": arrays["directions"] * 2}, "orthonormal"),
        ({"variances": -arrays["variances"]}, "variances must be > 0"),
        ({"parameters": arrays["parameters"][:-1]}, "do not make a network"),
        ({"parameters": np.full_like(arrays["parameters"], np.inf)}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            sde.ResidualMLP.restored(settings, {**arrays, **change})
    with pytest.raises(ValueError, match="n_components must be <= 6"):
        sde.ResidualMLP.restored({**settings, "n_components": 7}, arrays)


# ---- bad inputs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.ResidualMLP(0), "dim must be >= 1"),
        (lambda: sde.ResidualMLP(3, 0), "width must be >= 1"),
        (lambda: sde.ResidualMLP(3, 8, 0), "n_blocks must be >= 1"),
        (lambda: sde.ResidualMLP(3, 8, n_classes=0), "n_classes must be >= 1"),
        (lambda: sde.ResidualMLP(3, 8, n_components=4), "n_components must be <= 3"),
        (lambda: sde.ResidualMLP(3, 8, backbone=LOW), "the backbone has dimension 6, the network 3"),
        (lambda: sde.ResidualMLP(3, 8, backbone=sde.targets.DoubleWellDensity()), "got DoubleWellDensity"),
        (lambda: sde.ResidualMLP(3, 8, process=sde.GeometricBrownian(0.1, 0.2)), "process must be linear"),
        (lambda: sde.ResidualMLP(3, 2**20), "parameters, more than"),
        (lambda: sde.ResidualMLP(DIM, 8, class_weights=TABLE, n_classes=3), "give both"),
        (lambda: sde.ResidualMLP(DIM, 8, class_weights=TABLE, backbone=PRINCIPAL), "give both"),
        (lambda: untrained(PRINCIPAL, class_weights=TABLE[:2]), r"shape \(2, 3\), expected \(3, 3\)"),
        (lambda: untrained(PRINCIPAL, class_weights=2 * TABLE), "sum to 1 in every class"),
        (lambda: sde.ResidualMLP(3, 8)(np.zeros((2, 3)), 0.1), "no noising process yet"),
        (lambda: network()(np.zeros((2, 5)), 0.1), r"x has shape \(2, 5\)"),
        (lambda: network()(np.zeros((2, 6)), [0.1] * 3), r"t has shape \(3,\)"),
        (lambda: network()(np.zeros((2, 6)), 0.1, [0, 3]), r"labels must be in 0 … 2, or -1 .* got 3 at index 1"),
        (lambda: network()(np.zeros((2, 6)), 0.1, [0.5, 1.0]), "labels must be integers"),
        (lambda: network()(np.zeros((2, 6)), 0.1, [0, 1, 2]), r"labels has shape \(3,\), expected \(2,\)"),
        (lambda: untrained(n_classes=None)(np.zeros((2, 6)), 0.1, [0, 1]), "knows no classes"),
        (lambda: sde.ScoreMLP(2)(np.zeros((2, 2)), 0.1, [0, 1]), "ScoreMLP knows no classes"),
        (lambda: sde.fit_score(sde.ScoreMLP(DIM), DATA, labels=CLASSES), "knows no classes"),
        (lambda: sde.fit_score(untrained(), DATA, process=VP), "the network has 3 classes; give labels="),
        (lambda: sde.fit_score(untrained(), DATA, labels=CLASSES[1:], process=VP), "labels has shape"),
        (lambda: sde.fit_score(untrained(), DATA, labels=CLASSES + 2, process=VP), "got 3 at index"),
        (lambda: sde.fit_score(untrained(), DATA, labels=CLASSES, process=VP, label_drop=1.5), "label_drop must be <="),
        (
            lambda: sde.fit_score(untrained(), DATA, labels=CLASSES, process=VP, objective="sliced_vr"),
            "learns by denoising; objective='sliced_vr'",
        ),
        (
            lambda: sde.fit_score(untrained(), DATA, labels=CLASSES, process=VP, prediction="noise"),
            "which is prediction='edm'; got 'noise'",
        ),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
