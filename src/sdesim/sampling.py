"""Pictures from a saved network at once: what ``sdesim sample`` does, and the small network that ships with it."""

import dataclasses
import importlib.resources
import time
from typing import Any

import numpy as np

from .core import checks
from .generate.samplers import sample
from .saving import load
from .score.base import ScoreNetwork

SHIPPED = "digits"


def shipped(name: str = SHIPPED) -> Any:
    """A network inside the package.

    "digits" is a ``MixerMLP`` of the 8 x 8 handwritten digits of Alpaydin & Kaynak (UCI repository, 1998), which
    scikit-learn brings; ``examples/digits.py --model`` made it. Its classes are the ten digits.
    """
    checks.choice("name", name, (SHIPPED,))
    with importlib.resources.as_file(importlib.resources.files("sdesim") / "models" / f"{name}.npz") as path:
        return load(path)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Pictures (n, d), how they are to be shown, and what they cost."""

    images: np.ndarray
    shape: tuple[int, ...] | None
    seconds: float

    def picture(self, path: Any) -> None:
        """Write them into one file, in rows of ten at most."""
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt

        from .plot import images

        columns = min(10, len(self.images))
        rows = -(-len(self.images) // columns)
        fig, ax = plt.subplots(figsize=(0.7 * columns, 0.7 * rows), layout="constrained")
        images(self.images, ax, shape=self.shape, columns=columns, value_range=(-1, 1))
        fig.savefig(path, dpi=150)
        plt.close(fig)


def draw(
    net: Any, n: int, *, label: int | None = None, guidance: float = 0.5, n_steps: int = 14,
    t_end: float | None = None, seed: int | None = None, progress: Any = False,
) -> Drawn:  # fmt: skip
    """n pictures by Heun's method; of a class where a label is given, else all classes by turns where there are any.

    ``t_end`` is where the steps end and the denoised mean is returned: where the noise is a sixth of the data's
    spread, unless given. Below there is little but grain in what a small network draws.
    """
    if not isinstance(net, ScoreNetwork):
        raise TypeError(f"a saved score network is needed, got a {type(net).__name__}")
    process = net.head.process
    if process is None:
        raise ValueError("the network has no noising process: it was not trained to generate")
    n = checks.integer("n", n, minimum=1)
    labels: Any = None
    if label is not None:
        labels = np.full(n, label)
    elif net.n_classes is not None:
        labels = np.arange(n) % net.n_classes
    if t_end is None:
        times = np.linspace(0.0, 1.0, 2001)[1:] ** 3 * getattr(process, "horizon", 1.0)
        alpha, _, sigma = net.head.noise(times)
        t_end = float(times[np.searchsorted(sigma / alpha, net.head.spread / 6.0)])
    started = time.perf_counter()
    found = sample(
        process, net, n, method="edm_heun", n_steps=n_steps, t_end=t_end, seed=seed, labels=labels,
        guidance=None if labels is None else guidance, progress=progress,
    )  # fmt: skip
    shape = getattr(net.layout, "shape", None)
    if shape is not None and shape[2] == 1:
        shape = shape[:2]
    return Drawn(found, shape, time.perf_counter() - started)
