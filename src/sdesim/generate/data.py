r"""Images to learn from: what a machine without a hub has, as rows of numbers in [−1, 1].

An :class:`Images` holds n pictures as rows (n, d) of float32, each the pixels of a picture of shape (height, width) or
(height, width, 3), row by row. The 256 values of a pixel k become k/127.5 − 1 (:func:`to_unit`), and :func:`to_pixels`
is the way back. Likelihoods of such numbers mean something only after :func:`dequantize`, which spreads each level
over the gap between its neighbours.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import checks, stream
from .idx import idx as idx

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MAX_PIXELS = 2**26
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
_CHUNK = 2**22
# Where the draws of this module lie in the stream of purpose ``INITIAL``: ranges of paths.
_SPLIT, _PATCHES, _LEVELS = (k << 40 for k in range(1, 4))


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Pictures as rows.

    Attributes
    ----------
    images : (n, d) float32
        Pixels in [−1, 1]; for :func:`dequantize` half a level more on either side.
    labels : (n,) int64 or None
        The class of every picture.
    shape : (height, width) or (height, width, 3)
        Of one picture; d is its product.
    names : tuple of str
        What the labels stand for.
    """

    images: np.ndarray
    labels: np.ndarray | None
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        of = f", {len(self.names)} classes" if self.names else ""
        return f"Images({len(self)} of {' x '.join(map(str, self.shape))}{of})"

    @property
    def pictures(self) -> np.ndarray:
        """The images as (n, height, width) or (n, height, width, 3)."""
        return self.images.reshape(-1, *self.shape)

    def take(self, rows: Any) -> "Images":
        """The pictures of the given rows (indices, a slice or a mask)."""
        labels = None if self.labels is None else self.labels[rows]
        return dataclasses.replace(self, images=self.images[rows], labels=labels)


class Split(NamedTuple):
    """Pictures to learn from, and others to test with."""

    train: Images
    test: Images


# ---- pixels


def to_unit(pixels: Any) -> np.ndarray:
    """Pixels 0 … 255 as k/127.5 − 1 in [−1, 1], float32."""
    given = np.asarray(pixels)
    if given.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8 (0 to 255), got dtype {given.dtype}")
    return (np.arange(256) / 127.5 - 1.0).astype(np.float32)[given]


def to_pixels(x: Any) -> np.ndarray:
    """Numbers in [−1, 1] as pixels 0 … 255, the nearest; what lies outside is cut off."""
    given = np.asarray(x)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"x must hold real numbers, got dtype {given.dtype}")
    if np.isnan(given).any():
        raise ValueError(f"x must not be nan; {int(np.isnan(given).sum())} of its {given.size} numbers are")
    return np.rint((np.clip(given, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def dequantize(x: Any, seed: int | None = None, *, levels: int = 256) -> Any:
    r"""x + h (u − ½) with u uniform and h = 2/(levels − 1): the step between the levels −1, −1 + h, …, 1 filled in.

    A density q of the result bounds the probability of the pictures: log₂ P(x) ≥ E log₂ q(x + h (u − ½)) + d log₂ h
    (Theis, van den Oord & Bethge 2016), which is what bits/dim means.

    Parameters
    ----------
    x : Images, or (n, d)
        Numbers on the levels. The answer is of the same kind, float32.
    levels : int
        256 for pixels of a byte, 17 for :func:`digits`.
    """
    step = 2.0 / (checks.integer("levels", levels, minimum=2) - 1)
    seed = checks.seed(seed)
    if isinstance(x, Images):
        return dataclasses.replace(x, images=_dequantized(x.images, step, seed))
    given = np.asarray(x)
    if given.dtype.kind not in "fiu" or given.ndim != 2:
        raise ValueError(f"x has shape {given.shape} and dtype {given.dtype}, expected real numbers (n, d)")
    return _dequantized(given, step, seed)


def _dequantized(x: np.ndarray, step: float, seed: int) -> np.ndarray:
    out = np.array(x, dtype=np.float32, order="C")
    flat = out.reshape(-1)
    # two numbers a path of the stream; cut into pieces, so that memory is asked for once
    for lo in range(0, flat.size, _CHUNK):
        part = flat[lo : lo + _CHUNK]
        u = stream.uniforms(seed, stream.INITIAL, -(-part.size // 2), 1, 2, first_path=_LEVELS + lo // 2)
        part += (step * (u.reshape(-1)[: part.size] - 0.5)).astype(np.float32)
    return out


# ---- data sets


def fashion_mnist(path: Any = None) -> Split:
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 60 000 + 10 000 grey pictures 28 x 28 of ten kinds of garment.

    Parameters
    ----------
    path : folder, optional
        Where the four IDX files are, gzipped or not: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``. By default the folder of the Debian package
        ``dataset-fashion-mnist``.

    Raises
    ------
    FileNotFoundError
        Where the files are not there; the message says how to get them.
    ValueError
        Where they are damaged, or do not belong together.
    """
    folder = DEBIAN if path is None else pathlib.Path(path)
    return Split(_part(folder, "train"), _part(folder, "t10k"))


def _part(folder: pathlib.Path, name: str) -> Images:
    pixels, labels = (idx(_found(folder, f"{name}-{rest}")) for rest in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError(f"the images of {name} are {pixels.dtype} of shape {pixels.shape}, expected uint8 (n, h, w)")
    if labels.dtype != np.uint8 or labels.shape != (len(pixels),) or not len(pixels):
        raise ValueError(f"{name} has labels of shape {labels.shape} for {len(pixels)} images, expected one each")
    if labels.max() >= len(GARMENTS):
        raise ValueError(f"the labels of {name} must be 0 to {len(GARMENTS) - 1}, got {labels.max()}")
    shape = pixels.shape[1:]
    return Images(to_unit(pixels.reshape(len(pixels), -1)), labels.astype(np.int64), shape, GARMENTS)


def _found(folder: pathlib.Path, name: str) -> pathlib.Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no {name} or {name}.gz; install the Debian package (apt-get install dataset-fashion-mnist), "
        "or call fashion_mnist(path) with the folder of the four IDX files"
    )


def digits(*, n_test: int = 500, seed: int = 0) -> Split:
    """Scikit-learn's handwritten digits: 1797 pictures 8 x 8 with the levels 0 … 16, as k/8 − 1.

    The test pictures have the classes in the proportions of the whole.

    Raises
    ------
    ModuleNotFoundError
        Where scikit-learn, which brings the pictures, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed; pip install scikit-learn"
        ) from None
    found = load_digits()
    labels = np.asarray(found.target, dtype=np.int64)
    whole = Images((found.data / 8.0 - 1.0).astype(np.float32), labels, (8, 8), tuple(map(str, range(10))))
    return split(whole, n_test=n_test, seed=seed)


def split(whole: Images, *, n_test: int, seed: int = 0) -> Split:
    """Pictures to learn from and ``n_test`` others, drawn class by class where there are labels."""
    n = len(whole)
    n_test = checks.integer("n_test", n_test, minimum=1, below=n)
    order = np.argsort(stream.uniforms(checks.seed(seed), stream.INITIAL, n, first_path=_SPLIT)[:, 0, 0], kind="stable")
    if whole.labels is not None:
        # the k-th of the m of a class gets the place (k + ½)/m: the first n_test places hold every class in proportion
        labels = whole.labels[order]
        place = np.empty(n)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            place[members] = (np.arange(members.size) + 0.5) / members.size
        order = order[np.argsort(place, kind="stable")]
    return Split(whole.take(np.sort(order[n_test:])), whole.take(np.sort(order[:n_test])))


def image_folder(path: Any, size: int | tuple[int, int], *, grey: bool = False) -> Images:
    """All pictures of a folder, cut to the middle and scaled to ``size``.

    Pictures in subfolders are labelled with them, in alphabetical order (unless some lie in the folder itself).

    Parameters
    ----------
    path : folder
    size : int or (height, width)
    grey : bool
        One number a pixel, its luminance, instead of red, green and blue.

    Raises
    ------
    FileNotFoundError
        Where there is no such folder, or no picture in it.
    ValueError
        Where a file is no picture, has more than 2²⁶ pixels, or more than 8 bits a colour.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # matplotlib depends on it

    height, width = (size, size) if np.ndim(size) == 0 else tuple(size)  # type: ignore[arg-type]
    height, width = (checks.integer("size", side, minimum=1) for side in (height, width))
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give one that holds pictures")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} holds no picture (a file that ends in {', '.join(sorted(_SUFFIXES))})")
    shape = (height, width) if grey else (height, width, 3)
    out = np.empty((len(files), math.prod(shape)), np.float32)
    for row, file in zip(out, files, strict=True):
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"{file} has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS}")
                if picture.mode[0] in "IF":  # Pillow would cut everything above 255 off
                    raise ValueError(f"{file} has more than 8 bits a colour; save it with 8")
                upright = ImageOps.exif_transpose(picture).convert("L" if grey else "RGB")
                fitted = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} cannot be read as a picture: {error}") from None
        row[:] = to_unit(np.asarray(fitted)).reshape(-1)
    folders = [file.relative_to(folder).parts[0] for file in files if file.parent != folder]
    if len(folders) < len(files):
        return Images(out, None, shape)
    names, labels = np.unique(folders, return_inverse=True)
    return Images(out, labels.astype(np.int64), shape, tuple(map(str, names)))


def patches(images: Sequence[Any], size: int, n: int, seed: int | None = None) -> Images:
    """n square patches from random places of some pictures; every place of every picture is equally likely.

    Parameters
    ----------
    images : sequence of (height, width) or (height, width, 3) arrays
        Pixels as uint8; sizes may differ, the number of colours may not.
    size : int
        Height and width of a patch.
    """
    size, n = checks.integer("size", size, minimum=1), checks.integer("n", n, minimum=1)
    seed = checks.seed(seed)
    pictures = [np.asarray(image) for image in images]
    if not pictures:
        raise ValueError("images is empty; at least one picture is needed")
    for k, picture in enumerate(pictures):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] != pictures[0].shape[2:]:
            raise ValueError(
                f"images[{k}] is {picture.dtype} of shape {picture.shape}, expected uint8 (height, width) or "
                "(height, width, colours), with as many colours as images[0]"
            )
        if min(picture.shape[:2]) < size:
            raise ValueError(f"images[{k}] has {picture.shape[0]} x {picture.shape[1]} pixels, a patch {size} x {size}")
    places = np.cumsum([math.prod(side - size + 1 for side in picture.shape[:2]) for picture in pictures])
    u = stream.uniforms(seed, stream.INITIAL, n, first_path=_PATCHES)[:, 0, 0]
    chosen = np.minimum((u * places[-1]).astype(np.int64), places[-1] - 1)
    shape = (size, size, *pictures[0].shape[2:])
    out = np.empty((n, math.prod(shape)), np.uint8)
    which = np.searchsorted(places, chosen, side="right")
    for row, k, place in zip(out, which, chosen - np.append(0, places)[which], strict=True):
        top, left = divmod(int(place), pictures[k].shape[1] - size + 1)
        row[:] = pictures[k][top : top + size, left : left + size].reshape(-1)
    return Images(to_unit(out), None, shape)
