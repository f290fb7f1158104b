"""Pictures: IDX files, sound and hostile; pixels and their levels; folders, splits and patches."""

import gzip
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sdesim import data

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


ARRAYS = st.sampled_from(sorted(CODES)).flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4)))


def encoded(array):
    """The bytes of an IDX file."""
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CODES)).flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4))), st.booleans()
)
def test_idx_files_come_back(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(encoded(array)) if zipped else encoded(array))
    found = data.idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[...] = 0  # the caller's own memory


SOUND = encoded(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
HOSTILE = {
    "empty": (b"", "is not an IDX file: it starts with nothing"),
    "text": (b"hello, world", "is not an IDX file: it starts with 68656c6c"),
    "unknown type": (b"\0\0\x0a" + SOUND[3:], "is not an IDX file"),
    "no axes": (b"\0\0\x08\0", "declares 0 axes, expected 1 to 8"),
    "many axes": (b"\0\0\x08\xff" + bytes(2000), "declares 255 axes"),
    "cut in the header": (SOUND[:9], "ends within its header, after 9 of 16 bytes"),
    "cut in the numbers": (SOUND[:-1], r"ends after 23 of the 24 bytes that its shape \(2, 3, 4\) needs"),
    "goes on": (SOUND + b"\0", "goes on after the 24 bytes"),
    "huge": (b"\0\0\x08\3" + b"\xff" * 12, "declares 79228162458924105385300197375 bytes .* more than the limit"),
    "zipped, cut": (gzip.compress(SOUND)[:-9], "is damaged|ends after"),
    "zipped, checksum": (gzip.compress(SOUND)[:-8] + bytes(8), "is damaged: CRC check failed"),
    "zipped, garbage": (gzip.compress(SOUND)[:10] + b"\xff" * 20, "is damaged"),
    "zipped, no header": (b"\x1f\x8b\xff", "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_idx_files_are_refused(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.idx(path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(encoded(np.zeros(10, np.uint8)) + bytes(50_000_000)))
    most, read = [], gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: most.append(n) or read(self, n))
    with pytest.raises(ValueError, match="goes on after the 10 bytes"):
        data.idx(path)
    assert min(most) >= 0
    assert max(most) <= 10
    with pytest.raises(ValueError, match="more than the limit max_bytes = 5"):
        data.idx(path, max_bytes=5)


# ---- Fashion-MNIST


def write_set(folder, *, n=12, labels=None, shape=(28, 28)):
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        classes = (np.arange(n) % 10).astype(np.uint8) if labels is None else labels
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encoded(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encoded(classes)))
    return images


def test_fashion_mnist_from_a_folder(tmp_path):
    last = write_set(tmp_path)
    train, test = data.fashion_mnist(tmp_path)
    assert (len(train), len(test), train.shape, train.names[9]) == (12, 12, (28, 28), "ankle boot")
    assert (data.to_pixels(test.pictures) == last).all()
    assert train.labels.dtype == np.int64
    assert train.images.dtype == np.float32
    assert repr(test) == "Images(12 of 28 x 28, 10 classes)"


def test_fashion_mnist_that_is_missing_or_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*folder of the four IDX files"):
        data.fashion_mnist(tmp_path)
    write_set(tmp_path, labels=np.arange(11, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"train has labels of shape \(11,\) for 12 images"):
        data.fashion_mnist(tmp_path)
    write_set(tmp_path, labels=np.full(12, 10, np.uint8))
    with pytest.raises(ValueError, match="labels of train must be 0 to 9, got 10"):
        data.fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(encoded(np.zeros(12, np.uint8)))
    with pytest.raises(ValueError, match=r"images of train are uint8 of shape \(12,\), expected uint8 \(n, h, w\)"):
        data.fashion_mnist(tmp_path)


@pytest.mark.skipif(not data.DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_debian_package():
    _, test = data.fashion_mnist()
    assert (len(test), test.shape) == (10_000, (28, 28))
    assert (np.bincount(test.labels) == 1000).all()
    assert np.abs(np.diff(test.pictures[:5000], axis=2)).mean() == pytest.approx(0.1769, abs=5e-5)


# ---- pixels


def test_pixels_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    x = data.to_unit(pixels)
    np.testing.assert_allclose(x, pixels / 127.5 - 1, atol=1e-7)
    assert (x[0], x[-1], x.dtype) == (-1.0, 1.0, np.float32)
    assert (data.to_pixels(x) == pixels).all()
    assert data.to_pixels([-7.0, 7.0]).tolist() == [0, 255]
    with pytest.raises(TypeError, match="pixels must be uint8"):
        data.to_unit([0.5])
    with pytest.raises(ValueError, match="x must not be nan; 1 of its 2 numbers are"):
        data.to_pixels([0.0, np.nan])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantisation_fills_the_gap_between_levels(levels):
    step = 2 / (levels - 1)
    level = np.random.default_rng(1).integers(0, levels, (4000, 5))
    x = (level * step - 1).astype(np.float32)
    y = data.dequantize(x, 3, levels=levels)
    off = (y - x) / step
    assert np.abs(off).max() <= 0.5 + 1e-4
    # uniform on ±½: mean 0, variance 1/12, fourth moment 1/80, within five standard errors
    for power, wanted, spread in ((1, 0, 1 / 12), (2, 1 / 12, 1 / 180), (4, 1 / 80, 1 / 2304 - 1 / 6400)):
        assert abs((off.astype(float) ** power).mean() - wanted) < 5 * np.sqrt(spread / off.size)
    assert np.abs(np.corrcoef(off.T) - np.eye(5)).max() < 5 / np.sqrt(4000)
    assert (data.dequantize(x, 3, levels=levels) == y).all()
    assert (data.dequantize(x, 4, levels=levels) != y).mean() > 0.99
    # the levels are found again
    assert (np.rint((y.astype(float) + 1) / step) == level).mean() > 0.999


def test_dequantisation_does_not_depend_on_its_pieces(monkeypatch):
    x = np.zeros((7, 31), np.float32)
    whole = data.dequantize(x, 5)
    monkeypatch.setattr(data, "_CHUNK", 10)
    assert (data.dequantize(x, 5) == whole).all()
    images = data.Images(x, np.arange(7), (1, 31))
    assert (data.dequantize(images, 5).images == whole).all()
    assert (x == 0).all()


# ---- splits, digits, folders, patches


def pictures(labels, d=4):
    n = len(labels)
    return data.Images(np.arange(n * d, dtype=np.float32).reshape(n, d), np.asarray(labels), (2, 2), ("a", "b", "c"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=60), st.integers(0, 9), st.data())
def test_a_split_keeps_every_picture_and_the_proportions(labels, seed, draw):
    n_test = draw.draw(st.integers(1, len(labels) - 1))
    train, test = data.split(pictures(labels), n_test=n_test, seed=seed)
    assert len(test) == n_test
    assert sorted([*train.images[:, 0], *test.images[:, 0]]) == [4.0 * k for k in range(len(labels))]
    share = n_test / len(labels)
    for label in set(labels):
        assert abs((test.labels == label).sum() - share * labels.count(label)) <= 1.5


def test_digits_with_scikit_learn_and_without(monkeypatch):
    rng = np.random.default_rng(0)
    found = types.SimpleNamespace(data=rng.integers(0, 17, (1797, 64)).astype(float), target=np.arange(1797) % 10)
    fake = types.ModuleType("sklearn.datasets")
    fake.load_digits = lambda: found
    monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", fake)
    train, test = data.digits()
    assert (len(train), len(test), test.shape) == (1297, 500, (8, 8))
    assert set(np.bincount(test.labels)) == {50}
    assert set(np.unique(train.images)) == {np.float32(k / 8 - 1) for k in range(17)}
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        data.digits()


def write_png(path, pixels):
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_of_pictures(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "b" / "2.png", first)
    write_png(tmp_path / "a" / "1.png", np.full((9, 4), 80, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    found = data.image_folder(tmp_path, (5, 7))
    assert (found.shape, found.names, found.labels.tolist()) == ((5, 7, 3), ("a", "b"), [0, 1])
    assert (data.to_pixels(found.pictures[1]) == first).all()
    assert (data.to_pixels(found.images[0]) == 80).all()
    grey = data.image_folder(tmp_path, 4, grey=True)
    assert grey.shape == (4, 4)
    assert (data.to_pixels(grey.images[0]) == 80).all()
    write_png(tmp_path / "loose.png", first)
    assert data.image_folder(tmp_path, 4).labels is None


def test_a_folder_that_is_missing_empty_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        data.image_folder(tmp_path / "none", 8)
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        data.image_folder(tmp_path, 8)
    write_png(tmp_path / "deep.png", np.full((8, 8), 40_000, np.uint16))
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits a colour"):
        data.image_folder(tmp_path, 8)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as a picture"):
        data.image_folder(tmp_path, 8)


def test_patches_are_parts_of_the_pictures_and_every_place_is_as_likely():
    # a picture whose pixels tell where they are
    big = np.stack(np.broadcast_arrays(np.arange(7)[:, None], np.arange(9), 1), axis=2).astype(np.uint8)
    small = np.stack(np.broadcast_arrays(np.arange(4)[:, None], np.arange(3), 2), axis=2).astype(np.uint8)
    found = data.patches([big, small], 3, 6000, seed=1)
    assert (found.shape, found.labels) == ((3, 3, 3), None)
    pixels = data.to_pixels(found.pictures)
    top, left, which = pixels[:, 0, 0].T
    sources = {1: big, 2: small}
    for k in range(50):
        t, s = int(top[k]), int(left[k])
        assert (pixels[k] == sources[int(which[k])][t : t + 3, s : s + 3]).all()
    places, counts = np.unique(np.stack([which, top, left]), axis=1, return_counts=True)
    assert places.shape[1] == 5 * 7 + 2 * 1
    chi2 = ((counts - 6000 / 37) ** 2 / (6000 / 37)).sum()
    assert chi2 < 36 + 5 * np.sqrt(2 * 36)
    again = data.patches([big, small], 3, 6000, seed=1)
    assert (again.images == found.images).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images is empty"),
        ([np.zeros((8, 8))], "is float64 of shape"),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)], r"images\[1\] is uint8 of shape \(8, 8, 3\)"),
        ([np.zeros((8, 3), np.uint8)], r"images\[0\] has 8 x 3 pixels, a patch 4 x 4"),
    ],
)
def test_patches_of_nothing_or_of_the_wrong_kind(images, message):
    with pytest.raises(ValueError, match=message):
        data.patches(images, 4, 10, 0)
