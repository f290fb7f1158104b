"""Classifiers of pictures: convolutions against sums, gradients against differences, the same bits, the cache."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdesim import data
from sdesim.core import cache, storage
from sdesim.errors import TrainingError
from sdesim.generate.classification import Architecture, Classification, softmax
from sdesim.generate.classifier import ImageClassifier, image_classifier
from sdesim.generate.convolution import Stem, chain, fold, unfold
from sdesim.score.optimizer import Adam
from sdesim.score.passes import run

NETWORKS = {
    "mlp": ((), (), (7, 5)),
    "one convolution": ((3,), (1,), (6, 4)),
    "three convolutions": ((3, 4, 5), (2, 2, 1), (6,)),
}
RECIPE = {"n_epochs": 4, "batch_size": 32, "keep": False}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_state", {"folder": tmp_path, "warned": False})
    return tmp_path


def classification(name, shape, n, dtype=np.float64):
    rng = np.random.default_rng(0)
    network = Architecture(shape, *NETWORKS[name], 4)
    parameters = (network.initial(3) + 0.05 * rng.standard_normal(network.size)).astype(dtype)
    gradient = np.zeros_like(parameters)
    work = Classification(network, parameters, gradient, n)
    work.x[:] = rng.standard_normal(work.x.shape)
    work.labels[:] = rng.integers(0, 4, n)
    return work, parameters, gradient


def stripes(n, seed=0, size=12):
    """Three classes that a small network can learn: stripes down, stripes across, noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    wave = np.sin(2 * np.pi * (np.arange(size) / 4.0 + rng.uniform(size=(n, 1))))
    kinds = np.stack([wave[:, None, :] + 0 * wave[:, :, None], wave[:, :, None] + 0 * wave[:, None, :]])
    clean = np.where((labels == 2)[:, None, None], 0.0, kinds[np.minimum(labels, 1), np.arange(n)])
    x = np.clip(0.6 * clean + 0.3 * rng.standard_normal(clean.shape), -1, 1).astype(np.float32)
    return data.Images(x.reshape(n, -1), labels, (size, size), ("down", "across", "noise"))


# ---- convolutions


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_convolutions_are_sums_over_neighbours(height, width, channels, stride, seed):
    rng = np.random.default_rng(seed)
    (layer,) = chain((height, width, channels), (2,), (stride,))
    x = rng.standard_normal((3, height, width, channels))
    weights = rng.standard_normal((9 * channels, 2))
    rows = np.full((3 * layer.rows * layer.columns, 9 * channels), np.nan)
    unfold(x, stride, rows)
    found = (rows @ weights).reshape(3, layer.rows, layer.columns, 2)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = weights.reshape(3, 3, channels, 2)
    for i in range(layer.rows):
        for j in range(layer.columns):
            window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            np.testing.assert_allclose(found[:, i, j], np.einsum("nabc,abco->no", window, kernel), atol=1e-12)
    # <unfold x, r> = <x, fold r>
    r, back = rng.standard_normal(rows.shape), np.full(x.shape, np.nan)
    fold(r, stride, back)
    assert (rows * r).sum() == pytest.approx((x * back).sum(), abs=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(7, 9), (8, 8, 3)])
def test_gradients_against_central_differences(name, shape):
    work, parameters, gradient = classification(name, shape, 37)  # more than a tile, not a multiple of it
    run(work.learn)
    found, start, h = gradient.copy(), parameters.copy(), 1e-6

    def loss(at):
        parameters[:] = at
        run(work.learn)
        return work.losses.mean()

    for direction in np.random.default_rng(1).standard_normal((5, start.size)):
        slope = (loss(start + h * direction) - loss(start - h * direction)) / (2 * h)
        assert slope == pytest.approx(found @ direction, abs=1e-8 * np.linalg.norm(found) * np.sqrt(start.size))
    # negative control: a gradient that forgets a tenth of its numbers is found out
    direction = found.copy()
    slope = (loss(start + h * direction) - loss(start - h * direction)) / (2 * h)
    assert slope == pytest.approx(found @ direction, rel=1e-6)
    assert slope != pytest.approx(np.where(np.arange(found.size) % 10, found, 0.0) @ direction, rel=1e-3)


def test_loss_and_probabilities():
    work, _, _ = classification("mlp", (7, 9), 20)
    run(work.learn)
    z = work.passes.O + work.passes.b[-1]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(work.probabilities, expected, rtol=1e-12)
    np.testing.assert_allclose(work.losses, -np.log(expected[np.arange(20), work.labels]), rtol=1e-12)
    # far out nothing overflows
    p, log_sum = np.zeros((1, 3)), np.zeros(1)
    softmax(np.array([[1e4, -1e4, 0.0]]), np.zeros(3), p, log_sum)
    assert p.tolist() == [[1.0, 0.0, 0.0]]
    assert log_sum[0] == 1e4


def test_initial_weights_keep_the_size_of_a_signal():
    network = Architecture((16, 16), (24, 48, 64), (1, 1, 1), (256, 256), 10)
    parameters = network.initial(0)
    work = Classification(network, parameters, np.zeros_like(parameters), 16)
    work.x[:] = np.random.default_rng(0).standard_normal(work.x.shape)
    run(work.forward)
    assert 0.4 < np.mean(work.features**2) < 2.0  # 4/9 in the mean of the first rows, at a border, and 1 inside
    assert work.passes.O.std() < 3.0


def test_the_one_cycle_rate():
    adam = Adam(np.zeros(1), np.zeros(1), n_steps=100, rate=2.0, warm_up=30, schedule="one_cycle")
    rates = np.array([adam.rate_at(step) for step in range(100)])
    np.testing.assert_allclose(rates[:30], 2.0 * np.arange(1, 31) / 30)
    np.testing.assert_allclose(rates[30:], 2.0 * np.arange(70, 0, -1) / 70)


# ---- training


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_classifier_learns_and_does_not_depend_on_threads(kind):
    train, test = stripes(640), stripes(300, 1)
    one = image_classifier(train, kind=kind, workers=1, **RECIPE)
    three = image_classifier(train, kind=kind, workers=3, **RECIPE)
    assert (one.parameters == three.parameters).all()
    assert (one.losses == three.losses).all()
    assert one.losses.size == 4 * 20
    assert one.accuracy(test) > 0.9
    assert one.losses[-20:].mean() < 0.5 * one.losses[:5].mean()
    features, probabilities = one.judge(test.pictures)
    assert features.shape == (300, 64)
    assert (features >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    # a row is the same in any company of its place
    assert (one.features(test.images[:10]) == features[:10]).all()
    assert (one.probabilities(test) == probabilities).all()
    other = image_classifier(train, kind=kind, seed=1, **RECIPE)
    assert (other.parameters != one.parameters).mean() > 0.5


def test_hidden_widths_noise_and_weight_decay():
    train = stripes(320)
    plain = image_classifier(train, kind="mlp", hidden=(16, 8), noise=0.0, **RECIPE)
    assert plain.features(train).shape == (320, 8)
    pulled = image_classifier(train, kind="mlp", hidden=(16, 8), noise=0.0, weight_decay=10.0, **RECIPE)
    assert np.linalg.norm(pulled.parameters) < 0.9 * np.linalg.norm(plain.parameters)
    shaken = image_classifier(train, kind="mlp", hidden=(16, 8), noise=0.5, **RECIPE)
    assert (shaken.parameters != plain.parameters).any()
    assert repr(plain) == "ImageClassifier(mlp, 12 x 12, 3 classes, hidden=(16, 8))"


def test_colour_pictures_and_shapes_of_arrays():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (96, 6, 5, 3)).astype(np.float32)
    labels = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    pictures = image_classifier(x, labels, **RECIPE)
    rows = image_classifier(x.reshape(96, -1), labels, shape=(6, 5, 3), **RECIPE)
    assert (pictures.parameters == rows.parameters).all()
    with pytest.raises(ValueError, match=r"90 numbers a row, which is no square; give shape="):
        image_classifier(x.reshape(96, -1), labels, **RECIPE)
    with pytest.raises(ValueError, match=r"images has shape \(4, 80\), expected \(n, 90\) or \(n, 6, 5, 3\)"):
        rows.features(np.zeros((4, 80)))


def test_a_classifier_is_trained_once(folder, monkeypatch):
    train = stripes(64)
    first = image_classifier(train, kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)
    (path,) = folder.glob("classifier_*.npz")
    with monkeypatch.context() as patch:
        patch.setattr("sdesim.generate.classifier._Training.run", None)
        again = image_classifier(train, kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)
    assert (again.parameters == first.parameters).all()
    assert (again.losses == first.losses).all()
    assert again.seconds == first.seconds
    assert repr(again) == repr(first)
    # other pictures, labels or settings are another training
    image_classifier(stripes(64, 1), kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)
    image_classifier(train, train.labels[::-1], kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)
    image_classifier(train, kind="mlp", hidden=(8,), n_epochs=1, batch_size=32, noise=0.1)
    assert len(list(folder.glob("classifier_*.npz"))) == 4
    # a damaged file costs a training and a warning, never an answer
    sound = path.read_bytes()
    for damaged in (sound[: len(sound) // 2], sound[:-200] + b"\1" * 200, b""):
        path.write_bytes(damaged)
        with pytest.warns(RuntimeWarning, match="is trained anew"):
            anew = image_classifier(train, kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)
        assert (anew.parameters == first.parameters).all()
        assert path.read_bytes() != damaged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_classifier(train, kind="mlp", hidden=(8,), n_epochs=1, batch_size=32)


def test_a_kept_file_that_does_not_fit(tmp_path):
    found = image_classifier(stripes(64), kind="mlp", hidden=(8,), **RECIPE)
    about, arrays = found.stored()
    storage.write(tmp_path / "c", "ImageClassifier", about, arrays)
    _, about, arrays = storage.read(tmp_path / "c")
    assert (ImageClassifier.restored(about, arrays).parameters == found.parameters).all()
    with pytest.raises(ValueError, match="do not make a network"):
        ImageClassifier.restored({**about, "hidden": [9]}, arrays)
    with pytest.raises(ValueError, match="not finite"):
        ImageClassifier.restored(about, {**arrays, "parameters": np.full_like(arrays["parameters"], np.nan)})


def test_a_loss_that_is_no_number():
    with pytest.raises(TrainingError, match=r"the loss became .* lower learning_rate"):
        image_classifier(stripes(64), kind="mlp", hidden=(8,), learning_rate=1e30, **RECIPE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "cnm"}, ValueError, "kind must be one of 'cnn', 'mlp', got 'cnm'; did you mean 'cnn'"),
        ({"hidden": 8}, TypeError, r"hidden must be a sequence of widths such as \(64,\), got 8"),
        ({"hidden": (0,)}, ValueError, r"hidden\[0\] must be >= 1"),
        ({"shape": (12, 13)}, ValueError, r"images has shape \(64, 144\), expected \(n, 156\)"),
        ({"shape": (144,)}, ValueError, r"shape must be \(height, width\)"),
        ({"labels": np.zeros(3, int)}, ValueError, r"labels has shape \(3,\), expected \(64,\)"),
        ({"labels": np.zeros(64)}, TypeError, "labels must be integers, got dtype float64"),
        ({"labels": np.full(64, -1)}, ValueError, "labels must be >= 0, got -1"),
        ({"images": np.full((64, 144), np.nan)}, ValueError, "images must be finite; row 0 is not"),
        ({"images": np.zeros((64, 144))}, TypeError, "labels are needed"),
        ({"n_epochs": 0}, ValueError, "n_epochs must be >= 1"),
        ({"noise": -1.0}, ValueError, "noise must be >= 0"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be > 0"),
    ],
)
def test_bad_arguments(options, error, message):
    options = {"images": stripes(64), **options}
    if isinstance(options["images"], np.ndarray) and np.isnan(options["images"]).any():
        options["labels"] = np.zeros(64, int)
    with pytest.raises(error, match=message):
        image_classifier(**options)


def test_the_stem_leaves_other_pictures_alone():
    layers = chain((6, 6), (4,), (1,))
    parameters = np.random.default_rng(0).standard_normal(sum(layer.size for layer in layers))
    stem = Stem(layers, parameters, np.zeros_like(parameters), 40)
    stem.x[:] = np.random.default_rng(1).standard_normal(stem.x.shape)
    run(stem.forward)
    before = stem.out.copy()
    stem.x[17] = 5.0
    run(stem.forward)
    assert (np.flatnonzero((stem.out != before).any(axis=1)) == [17]).all()
