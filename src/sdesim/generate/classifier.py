r"""Small classifiers of pictures, trained here and kept on disk: their last hidden layer is a space to compare in.

Distances between sets of pictures are measured in the features of a network that tells them apart (Heusel et al. 2017,
with an Inception network). Here the network is a small one, trained on the data themselves in a minute: the numbers
belong to the one classifier, and are to be read beside the floor of real pictures.

Training is a function of the pictures, the settings and the seed, and not of the number of threads; its result is
written into the library's cache folder, so that it is done once a machine.
"""

import contextlib
import hashlib
import math
import pathlib
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import blas, blocks, cache, checks, storage, stream
from ..errors import TrainingError
from ..score.base import NOISE, SPLIT
from ..score.optimizer import Adam
from ..score.passes import Phase, each
from ..score.team import Team
from .classification import Architecture, Classification
from .data import Images

KINDS = ("cnn", "mlp")
BLOCK = 256
_RECIPE = 1  # to be raised where the same settings would train another network
_FEED = 64  # rows that one task fills; with any number of pixels their noise is whole blocks of the stream
# width of the dense layers, channels and strides of the convolutions before them
_DEFAULTS = {"cnn": ((64,), (24, 48, 64), (2, 2, 1)), "mlp": ((512, 256, 64), (), ())}


class Judgement(NamedTuple):
    """What a classifier says of n pictures: features (n, width) and probabilities (n, n_classes)."""

    features: np.ndarray
    probabilities: np.ndarray


class ImageClassifier:
    """A trained classifier; :func:`image_classifier` makes one.

    Attributes
    ----------
    kind : "cnn" or "mlp"
    network : Architecture
    parameters : read-only vector
    losses : (steps,), the loss of every batch of the training
    seconds : float
        CPU time of the training, on all threads.
    """

    def __init__(
        self, kind: str, network: Architecture, parameters: np.ndarray, losses: np.ndarray, seconds: float
    ) -> None:
        self.kind, self.network, self.losses, self.seconds = kind, network, losses, seconds
        self.parameters = np.array(parameters)
        self.parameters.flags.writeable = False
        self._lock = threading.Lock()
        self._pass: Classification | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.network.shape))
        return f"ImageClassifier({self.kind}, {shape}, {self.network.n_classes} classes, hidden={self.network.hidden})"

    def judge(self, x: Any) -> Judgement:
        """Features and probabilities of pictures x, (n, d) or (n, *shape), as float32.

        Rows are computed in blocks of 256, filled up where there are fewer: they do not depend on the threads.
        """
        rows = _rows(x, self.network.shape)
        n, width = len(rows), self.network.hidden[-1]
        found = Judgement(np.empty((n, width), np.float32), np.empty((n, self.network.n_classes), np.float32))
        team = Team(blocks.available_cores() if n > 4 * BLOCK else 1)
        try:
            with self._lock, blas.single_threaded():
                if self._pass is None:
                    own = np.array(self.parameters)  # the kernels are compiled for memory that may be written
                    self._pass = Classification(self.network, own, np.zeros_like(own), BLOCK)
                for lo in range(0, n, BLOCK):
                    part = slice(lo, min(lo + BLOCK, n))
                    self._pass.x[: part.stop - lo] = rows[part]
                    self._pass.x[part.stop - lo :] = 0.0
                    team.run(self._pass.forward)
                    found.features[part] = self._pass.features[: part.stop - lo]
                    found.probabilities[part] = self._pass.probabilities[: part.stop - lo]
        finally:
            team.close()
        return found

    def features(self, x: Any) -> np.ndarray:
        """The last hidden layer after its ReLU, (n, width)."""
        return self.judge(x).features

    def probabilities(self, x: Any) -> np.ndarray:
        """The probability of every class, (n, n_classes)."""
        return self.judge(x).probabilities

    def accuracy(self, x: Any, labels: Any = None) -> float:
        """The share of pictures whose most probable class is their label."""
        rows, wanted = _labelled(x, labels, self.network.shape)
        return float((self.probabilities(rows).argmax(axis=1) == wanted).mean())

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings, arrays): all that :meth:`restored` needs, as plain data."""
        net = self.network
        settings = {
            "kind": self.kind, "shape": list(net.shape), "channels": list(net.channels), "strides": list(net.strides),
            "hidden": list(net.hidden), "n_classes": net.n_classes, "seconds": self.seconds,
        }  # fmt: skip
        return settings, {"parameters": self.parameters, "losses": self.losses}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "ImageClassifier":
        """The classifier that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        parts = [tuple(map(int, settings[name])) for name in ("shape", "channels", "strides", "hidden")]
        network = Architecture(parts[0], parts[1], parts[2], parts[3], int(settings["n_classes"]))
        parameters = arrays["parameters"]
        if parameters.shape != (network.size,) or parameters.dtype != np.float32:
            raise ValueError(f"{parameters.size} parameters do not make a network of {network.size}")
        if not np.isfinite(parameters).all():
            raise ValueError("its parameters are not finite")
        kind = checks.choice("kind", settings["kind"], KINDS)
        return cls(kind, network, parameters, arrays["losses"], float(settings["seconds"]))


def image_classifier(
    images: Any,
    labels: Any = None,
    *,
    kind: str = "cnn",
    hidden: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    n_epochs: int = 5,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    noise: float = 0.05,
    weight_decay: float = 0.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Any = False,
    keep: bool = True,
) -> ImageClassifier:
    r"""Train a classifier of pictures, or take it from the cache folder where it was trained before.

    Adam on the cross entropy with a one-cycle rate: up over three tenths of the steps, then down to 0.

    Parameters
    ----------
    images : Images, or (n, d), (n, height, width[, colours])
        Pictures in [−1, 1].
    labels : (n,) integers, optional
        0, 1, …; those of ``images`` unless given.
    kind : "cnn" or "mlp"
        "cnn": 3 x 3 convolutions with 24, 48 and 64 channels, strides 2, 2 and 1, then the dense layers. "mlp": the
        dense layers only. ReLUs throughout.
    hidden : sequence of int
        Widths of the dense layers, by default (64,) for "cnn" and (512, 256, 64) for "mlp". The last is the feature
        space.
    shape : (height, width) or (height, width, colours)
        Of a picture; needed where ``images`` is (n, d) and d is no square.
    n_epochs, batch_size, learning_rate
        Of the training; the rate is the peak.
    noise : float
        Standard deviation of the Gaussian noise that every picture gets, anew in every epoch.
    weight_decay : float
        Pull on the weights (Loshchilov & Hutter 2019).
    seed, workers, progress
        The result depends on the seed, not on the number of threads.
    keep : bool
        Use the cache folder (``sdesim cache path``).

    Raises
    ------
    ValueError, TypeError
        Before anything is trained: pictures that are not finite or do not fit their shape, labels that do not fit.
    TrainingError
        Where the loss became nan or infinite.
    """
    checks.choice("kind", kind, KINDS)
    widths, channels, strides = _DEFAULTS[kind]
    if hidden is not None:
        if isinstance(hidden, int | str) or not isinstance(hidden, Sequence) or not len(hidden):
            raise TypeError(f"hidden must be a sequence of widths such as (64,), got {hidden!r}")
        widths = tuple(checks.integer(f"hidden[{k}]", width, minimum=1) for k, width in enumerate(hidden))
    shape = _shape(images, shape)
    rows, classes = _labelled(images, labels, shape)
    network = Architecture(shape, channels, strides, widths, int(classes.max()) + 1)
    recipe = {
        "epochs": checks.integer("n_epochs", n_epochs, minimum=1),
        "batch": min(checks.integer("batch_size", batch_size, minimum=1), len(rows)),
        "rate": checks.real("learning_rate", learning_rate, above=0.0),
        "noise": checks.real("noise", noise, minimum=0.0),
        "decay": checks.real("weight_decay", weight_decay, minimum=0.0),
        "seed": checks.seed(seed),
    }
    workers = blocks.check_executor(None, workers)
    path = _kept_at(kind, network, recipe, rows, classes) if keep else None
    found = _from_disk(path)
    if found is None:
        with blas.single_threaded():
            found = _Training(kind, network, recipe, rows, classes).run(workers, progress)
        if path is not None:
            with contextlib.suppress(OSError):  # a full or read-only folder costs the next process a training
                storage.write(path, "ImageClassifier", *found.stored())
    return found


def _kept_at(
    kind: str, network: Architecture, recipe: dict[str, Any], rows: np.ndarray, labels: np.ndarray
) -> pathlib.Path | None:
    """The file of this very training, or None where no folder can be written."""
    home = cache.folder()
    if home is None:
        return None
    digest = hashlib.sha256(f"{_RECIPE} {stream.VERSION} {kind} {network} {sorted(recipe.items())}".encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.float32).data)
    digest.update(np.ascontiguousarray(labels).data)
    return home / f"classifier_{digest.hexdigest()[:32]}.npz"


def _from_disk(path: pathlib.Path | None) -> ImageClassifier | None:
    if path is None or not path.exists():
        return None
    try:
        kind, settings, arrays = storage.read(path)
        if kind != "ImageClassifier":
            raise ValueError(f"it holds a {kind}")
        return ImageClassifier.restored(settings, arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the classifier kept in {path} is trained anew ({error})", RuntimeWarning, stacklevel=3)
        return None


class _Training:
    """The loop around the passes and Adam."""

    def __init__(
        self, kind: str, network: Architecture, recipe: dict[str, Any], rows: np.ndarray, labels: np.ndarray
    ) -> None:
        self.kind, self.network, self.rows, self.labels = kind, network, rows, labels
        self.seed, self.noise, self.batch = recipe["seed"], recipe["noise"], recipe["batch"]
        self.per_epoch = len(rows) // self.batch
        self.n_steps = recipe["epochs"] * self.per_epoch
        self.parameters = network.initial(self.seed).astype(np.float32)
        gradient = np.zeros_like(self.parameters)
        self.passes = Classification(network, self.parameters, gradient, self.batch)
        self.adam = Adam(
            self.parameters, gradient, n_steps=self.n_steps, rate=recipe["rate"], decay=recipe["decay"],
            warm_up=round(0.3 * self.n_steps), schedule="one_cycle", ema=0.0,
        )  # fmt: skip
        self.normals = stream.normals_kernel(self.parameters.dtype)
        self.drawn = np.zeros((-(-self.batch * network.dim // 4), 1, 4), np.float32)
        self.chosen = np.zeros(self.batch, np.intp)
        self.feed: Phase = each(self._fill, [(lo, min(lo + _FEED, self.batch)) for lo in range(0, self.batch, _FEED)])
        self.step = 0

    def _fill(self, lo: int, hi: int) -> None:
        """Gather pictures and add noise; the noise of a picture depends on the step and its place in the batch."""
        d, out = self.network.dim, self.passes.x[lo:hi]
        np.take(self.rows, self.chosen[lo:hi], axis=0, out=out, mode="clip")
        if self.noise:
            first, last = lo * d // 4, -(-hi * d // 4)
            self.normals(self.drawn[first:last], NOISE + first, self.step, stream.TRAINING, self.seed)
            noise = self.drawn.reshape(-1)[lo * d : hi * d].reshape(hi - lo, d)
            noise *= np.float32(self.noise)
            out += noise

    def run(self, workers: int, progress: Any) -> ImageClassifier:
        losses = np.zeros(self.n_steps)
        team, started = Team(workers), time.process_time()
        bar = blocks.progress_bar(progress, self.n_steps, " steps")
        try:
            for step in range(self.n_steps):
                epoch, place = divmod(step, self.per_epoch)
                if place == 0:
                    order = self._order(epoch)
                self.step, self.chosen[:] = step, order[place * self.batch : (place + 1) * self.batch]
                self.passes.labels[:] = self.labels[self.chosen]
                self.adam.prepare(step)
                team.run([self.feed, *self.passes.learn, *self.adam.phases])
                losses[step] = self.passes.losses.mean(dtype=np.float64)
                if not math.isfinite(losses[step]):
                    raise TrainingError(
                        f"the loss became {losses[step]} at step {step}; lower learning_rate ({self.adam.rate:g})"
                    )
                bar.update(1)
        finally:
            bar.close()
            team.close()
        seconds = time.process_time() - started
        return ImageClassifier(self.kind, self.network, self.parameters, losses, seconds)

    def _order(self, epoch: int) -> np.ndarray:
        """The pictures in the order of an epoch."""
        u = stream.uniforms(self.seed, stream.TRAINING, len(self.rows), first_path=SPLIT + (epoch << 32))
        return np.argsort(u[:, 0, 0], kind="stable")


# ---- arguments


def _shape(images: Any, shape: Any) -> tuple[int, ...]:
    """The shape of a picture."""
    if shape is None:
        given = images.shape if isinstance(images, Images) else np.shape(images)[1:]
        if len(given) != 1:
            shape = given
        elif math.isqrt(given[0]) ** 2 == given[0]:
            shape = (math.isqrt(given[0]),) * 2
        else:
            raise ValueError(f"images has {given[0]} numbers a row, which is no square; give shape=(height, width, …)")
    out = tuple(checks.integer(f"shape[{k}]", side, minimum=1) for k, side in enumerate(shape))
    if len(out) not in (2, 3):
        raise ValueError(f"shape must be (height, width) or (height, width, colours), got {out}")
    return out


def _rows(images: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures as rows (n, d) of float32, checked."""
    x = images.images if isinstance(images, Images) else np.asarray(images)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"images must hold real numbers, got dtype {x.dtype}")
    d = math.prod(shape)
    if x.ndim < 2 or math.prod(x.shape[1:]) != d or len(x) == 0:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"images has shape {x.shape}, expected (n, {d}) or (n, {expected}) with n >= 1")
    rows = np.ascontiguousarray(x.reshape(len(x), d), dtype=np.float32)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"images must be finite; row {row} is not")
    return rows


def _labelled(images: Any, labels: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as rows and their labels, checked."""
    rows = _rows(images, shape)
    if labels is None:
        labels = getattr(images, "labels", None)
    if labels is None:
        raise TypeError("labels are needed; give one integer for every picture")
    classes = np.asarray(labels)
    if classes.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {classes.dtype}")
    if classes.shape != (len(rows),):
        raise ValueError(f"labels has shape {classes.shape}, expected ({len(rows)},), one for every picture")
    if classes.min() < 0:
        raise ValueError(f"labels must be >= 0, got {classes.min()}")
    return rows, classes.astype(np.int64)
