r"""Score networks for images: what a closed-form model of the data leaves over, learned by a residual MLP.

    s(x, t) = s_backbone(x, t) + A (B(t) ∘ F),    B_i = α sd_i/(σ √(α² sd_i² + σ²))

The backbone is the exact score of a noised Gaussian or mixture of low rank (``targets.LowRankMixture``): it knows the
small noise levels, at which an MLP is poor. A holds its principal axes and sd_i the spreads along them, so that F of
size one moves the denoised mean by no more than the noise leaves unknown along each axis. F starts at 0.
"""

import threading
from typing import Any

import numpy as np

from ..core import checks, stream
from ..processes.gaussian import GaussianProcess
from ..targets.cells import Cells
from ..targets.low_rank import LowRankMixture
from ..targets.principal import PrincipalMixture
from .base import MAX_PARAMETERS, WEIGHTS, ScoreNetwork, checked_labels
from .head import Head
from .residual_evaluation import ResidualEvaluator
from .residual_objective import ResidualObjective
from .residual_passes import ResidualLayout

_CELLS = ("weights", "means", "directions", "variances", "residual")


class ResidualMLP(ScoreNetwork):
    r"""A score s(x, t, label): a closed-form backbone and a residual network that corrects it.

    Parameters
    ----------
    dim : int
        The dimension d of x.
    width, n_blocks : int
        Of the network: blocks h + φ(FiLM(LayerNorm h)) W, φ the SiLU (``residual_passes``).
    n_classes : int, optional
        Learn the classes 0 … n_classes − 1 apart: ``net(x, t, labels)``. A label of −1, or no labels, is the score of
        all classes together.
    backbone : Gaussian, GaussianMixture, LowRankMixture or PrincipalMixture, optional
        The law whose noised score the network starts from, exactly. Without one that of N(m, σ_d²), as ``head`` "edm".
    class_weights : (n_classes, k), optional
        The weights of the backbone's k cells in each class (its method ``class_weights(x, labels)``): with a label the
        network then starts from the backbone's model of the class.
    process : GaussianProcess, optional
        The noising process of the untrained network; ``fit_score`` gives the one it is trained with.
    n_components : int
        The network sees x by its first principal coordinates, each weighted by its signal to noise,
        α sd_i z_i/(α² sd_i² + σ²); 256 unless given (all of them in lower dimension).
    see_backbone : bool
        And by as many coordinates of the backbone's denoised mean.
    n_frequencies : int
        Of the Fourier features of the noise level c (``head.Head.level``), from 1/16 to 1 turn per unit.
    seed : int
        Of the initial weights.
    dtype : float32 or float64

    Notes
    -----
    For images: ``backbone = targets.PrincipalMixture.fit(images)`` takes seconds, and with ``class_weights =
    backbone.class_weights(images, labels)`` most of what a label says is known before any training. Train with
    ``fit_score(net, images, labels=labels, process=EDM(), times=(mean, std))`` of ln(σ/σ_d) about 0.7 and 1.4 (the
    levels at which an MLP has something to add; the EDM paper's −1.2 is for convolutional networks), ema 0.998.

    It learns by denoising only. ``net(x, t)``, ``jacobian_vector``, ``vector_jacobian`` and ``divergence`` are those
    of a ``ScoreMLP``, each with ``labels=``. All arithmetic is in ``dtype``; the answer has the type of x.
    """

    def __init__(
        self, dim: int, width: int = 1024, n_blocks: int = 3, *, n_classes: int | None = None, backbone: Any = None,
        class_weights: Any = None, process: GaussianProcess | None = None, n_components: int | None = None,
        see_backbone: bool = True, n_frequencies: int = 8, seed: int = 0, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        dim = checks.integer("dim", dim, minimum=1)
        if n_components is None:
            n_components = min(dim, 256)
        law = None if backbone is None else PrincipalMixture.of(backbone)
        if law is not None and law.dim != dim:
            raise ValueError(f"the backbone has dimension {law.dim}, the network {dim}")
        if process is not None and not isinstance(process, GaussianProcess):
            raise TypeError(f"process must be linear (EDM, VariancePreserving, ...), got {type(process).__name__}")
        self._shape(dim, width, n_blocks, n_classes, n_components, bool(see_backbone), n_frequencies)
        kind, seed = checks.dtype(dtype), checks.seed(seed)
        self._rest(law, class_weights)
        centre, spread = np.zeros(dim), 1.0
        if law is not None and self._spreads is not None:
            centre, spread = law.mean, float(np.sqrt((self._spreads**2).mean()))
        self.head = Head("edm", process, centre, spread, getattr(process, "t_min", 0.0))
        self._set(_initial(self.layout, self.n_frequencies, seed).astype(kind))

    def _shape(
        self, dim: Any, width: Any, n_blocks: Any, n_classes: Any, n_components: Any, sees_backbone: Any,
        n_frequencies: Any,
    ) -> None:  # fmt: skip
        """The layout, checked."""
        dim, width = checks.integer("dim", dim, minimum=1), checks.integer("width", width, minimum=1)
        n_blocks = checks.integer("n_blocks", n_blocks, minimum=1)
        self.n_classes = None if n_classes is None else checks.integer("n_classes", n_classes, minimum=1)
        self.n_components = checks.integer("n_components", n_components, minimum=1)
        if self.n_components > dim:
            raise ValueError(f"n_components must be <= {dim}, the dimension, got {self.n_components}")
        self.sees_backbone = bool(sees_backbone)
        self.n_frequencies = checks.integer("n_frequencies", n_frequencies, minimum=1)
        # one for each class, and one for none: what is said of no class is learned apart from what classes share
        n_conditions = 2 * self.n_frequencies + 1 + (0 if self.n_classes is None else self.n_classes + 1)
        n_inputs = self.n_components * (2 if self.sees_backbone else 1)
        self.layout = ResidualLayout(dim, n_inputs, n_conditions, width, n_blocks)
        if self.layout.size > MAX_PARAMETERS:
            raise ValueError(f"the network would have {self.layout.size} parameters, more than {MAX_PARAMETERS}")

    def _rest(self, backbone: PrincipalMixture | None, class_weights: Any) -> None:
        self.backbone, self.class_weights = backbone, None
        if class_weights is not None:
            if backbone is None or self.n_classes is None:
                raise ValueError("class_weights are those of a backbone's cells in n_classes classes: give both")
            table, shape = checks.array("class_weights", class_weights), (self.n_classes, len(backbone.mixture.weights))
            if table.shape != shape:
                raise ValueError(f"class_weights has shape {table.shape}, expected {shape}: classes, cells")
            if (table < 0.0).any() or (abs(table.sum(axis=1) - 1.0) > 1e-6).any():
                raise ValueError("class_weights must be >= 0 and sum to 1 in every class")
            self.class_weights = table
        self._spreads = None if backbone is None else backbone.spreads
        self._lock = threading.Lock()
        self._cells: dict[np.dtype, Cells] = {}

    # ---- what it is

    @property
    def frequencies(self) -> np.ndarray:
        """Turns per unit of c of the Fourier features."""
        return np.geomspace(1 / 16, 1.0, self.n_frequencies).astype(self.dtype)

    def __repr__(self) -> str:
        layout = self.layout
        extras = "" if self.n_classes is None else f", n_classes={self.n_classes}"
        extras += "" if self.backbone is None else f", backbone={self.backbone!r}"
        extras += f", n_components={self.n_components}" + ("" if self.sees_backbone else ", see_backbone=False")
        shape = f"{self.dim}, {layout.width}, {layout.n_blocks}"
        return f"ResidualMLP({shape}{extras}): {layout.size} parameters, {self.dtype}"

    def frame(self, dtype: Any, head: Head | None = None) -> tuple[np.ndarray | None, np.ndarray]:
        """The principal axes (columns; None for those of x) and the spreads along them."""
        head = self.head if head is None else head
        if self.backbone is None or self._spreads is None:
            return None, np.full(self.dim, head.spread, dtype)
        return self.backbone.axes.astype(dtype), self._spreads.astype(dtype)

    def centre(self, head: Head) -> np.ndarray:
        """The point that coordinates are counted from: the backbone's own, or that of a head."""
        if self.backbone is not None:
            return np.asarray(self.backbone.centre)
        return np.array(np.broadcast_to(np.asarray(head.centre, np.float64), (self.dim,)))

    def cells(self, dtype: Any) -> Cells | None:
        """The backbone's mixture in its coordinates."""
        if self.backbone is None:
            return None
        with self._lock:
            if np.dtype(dtype) not in self._cells:
                self._cells[np.dtype(dtype)] = Cells(self.backbone.mixture, dtype, 0.0, self.class_weights)
        return self._cells[np.dtype(dtype)]

    def learner(self, n: int, objective: str, **options: Any) -> ResidualObjective:
        """What trains it: an objective for batches of n points."""
        return ResidualObjective(self, n, objective, **options)

    def _like_me(self) -> "ResidualMLP":
        other = object.__new__(ResidualMLP)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_local", "parameters", "head")})
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_lock", "_cells")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._rest(self.backbone, self.class_weights)

    # ---- files

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers that make it, but for its head."""
        found = {"parameters": self.parameters}
        if self.backbone is not None:
            law = self.backbone
            found |= {name: getattr(law.mixture, name) for name in _CELLS}
            found |= {"axes": law.axes, "origin": law.centre, "tail": law.tail}
        if self.class_weights is not None:
            found["class_weights"] = self.class_weights
        return found

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings, arrays): all that :meth:`restored` needs, as plain data."""
        layout = self.layout
        settings = {
            "dim": self.dim, "width": layout.width, "n_blocks": layout.n_blocks, "n_classes": self.n_classes,
            "n_components": self.n_components, "see_backbone": self.sees_backbone,
            "n_frequencies": self.n_frequencies, "backbone": self.backbone is not None, "head": self.head.stored(),
        }  # fmt: skip
        centre = np.broadcast_to(np.asarray(self.head.centre, dtype=np.float64), (self.dim,))
        return settings, {**self.arrays(), "centre": np.array(centre)}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "ResidualMLP":
        """The network that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        net = object.__new__(cls)
        names = ("dim", "width", "n_blocks", "n_classes", "n_components", "see_backbone", "n_frequencies")
        net._shape(*(settings[name] for name in names))
        parameters, centre = arrays["parameters"], arrays["centre"]
        if parameters.shape != (net.layout.size,) or centre.shape != (net.dim,):
            raise ValueError(f"{parameters.size} parameters do not make a network of {net.layout.size}")
        if not (np.isfinite(parameters).all() and np.isfinite(centre).all()):
            raise ValueError("its parameters are not finite")
        checks.dtype(parameters.dtype)
        law = None
        if settings["backbone"]:
            mixture = LowRankMixture(*(arrays[name] for name in _CELLS))
            law = PrincipalMixture(arrays["origin"], arrays["axes"], mixture, arrays["tail"])
            if law.dim != net.dim:
                raise ValueError(f"its backbone has dimension {law.dim}, the network {net.dim}")
        net._rest(law, arrays.get("class_weights"))
        net.head = Head.restored(settings["head"], centre)
        net._set(parameters)
        return net

    # ---- what it computes

    def _new_evaluator(self) -> ResidualEvaluator:
        return ResidualEvaluator(self)

    def _exact_divergence(self, evaluator: Any, rows: np.ndarray, t: Any, *given: Any) -> np.ndarray:
        found: np.ndarray = evaluator.divergence(rows, t, *given)
        return found

    def _conditions(self, labels: Any, n: int) -> tuple[Any, ...]:
        if self.head.process is None:
            raise ValueError(
                "the network has no noising process yet: train it with fit_score(net, data, process=...), or make it "
                "with process="
            )
        return (checked_labels(labels, self.n_classes, n),)


def _initial(layout: ResidualLayout, n_frequencies: int, seed: int) -> np.ndarray:
    """Normal weights that keep the size of a signal, classes without effect, and W_out = 0: F = 0.

    1.676 is 1/√E φ(z)² for a normal z; the blocks together add as much as they are given. The bias b_in is as large as
    an input of unit variance, so that normalisation leaves the size of a smaller input to be seen.
    """
    parameters = np.zeros(layout.size)
    views = layout.views(parameters)
    draws = stream.normals(seed, stream.TRAINING, -(-layout.size // 2), 1, 2, first_path=WEIGHTS).reshape(-1)
    drawn = layout.views(draws[: layout.size])
    views.enter[:] = drawn.enter / np.sqrt(layout.n_inputs)
    views.enter_bias[:] = drawn.enter_bias
    views.film[: 2 * n_frequencies] = drawn.film[: 2 * n_frequencies] * (0.3 / np.sqrt(n_frequencies))
    for matrix, part in zip(views.blocks, drawn.blocks, strict=True):
        matrix[:] = part * (1.676 / np.sqrt(layout.width * layout.n_blocks))
    return parameters
