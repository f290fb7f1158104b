r"""Score networks for images: what a closed-form model of the data leaves over, learned by a residual MLP.

    s(x, t) = s_backbone(x, t) + A (B(t) ∘ F),    B_i = α sd_i/(σ √(α² sd_i² + σ²))

The backbone is the exact score of a noised Gaussian or mixture of low rank (``targets.LowRankMixture``): it knows the
small noise levels, at which an MLP is poor. A holds its principal axes and sd_i the spreads along them, so that F of
size one moves the denoised mean by no more than the noise leaves unknown along each axis. F starts at 0.
"""

from typing import Any

import numpy as np

from ..core import checks
from ..processes.gaussian import GaussianProcess
from .backboned import BackboneNetwork
from .residual_evaluation import ResidualEvaluator
from .residual_objective import ResidualObjective
from .residual_passes import ResidualLayout


class ResidualMLP(BackboneNetwork):
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
        self._shape(dim, width, n_blocks, n_classes, n_components, bool(see_backbone), n_frequencies)
        self._begin(
            backbone, class_weights, process, lambda drawn: _initial(self.layout, self.n_frequencies, drawn), seed,
            dtype,
        )  # fmt: skip

    def _shape(
        self, dim: Any, width: Any, n_blocks: Any, n_classes: Any, n_components: Any, see_backbone: Any,
        n_frequencies: Any,
    ) -> None:  # fmt: skip
        """The layout, checked."""
        dim, width = checks.integer("dim", dim, minimum=1), checks.integer("width", width, minimum=1)
        n_blocks = checks.integer("n_blocks", n_blocks, minimum=1)
        self.n_classes = None if n_classes is None else checks.integer("n_classes", n_classes, minimum=1)
        self.n_components = checks.integer("n_components", n_components, minimum=1)
        if self.n_components > dim:
            raise ValueError(f"n_components must be <= {dim}, the dimension, got {self.n_components}")
        self.sees_backbone = bool(see_backbone)
        self.n_frequencies = checks.integer("n_frequencies", n_frequencies, minimum=1)
        n_inputs = self.n_components * (2 if self.sees_backbone else 1)
        self.layout = ResidualLayout(dim, n_inputs, self.n_conditions, width, n_blocks)
        self._small_enough()

    # ---- what it is

    def __repr__(self) -> str:
        layout = self.layout
        extras = "" if self.n_classes is None else f", n_classes={self.n_classes}"
        extras += "" if self.backbone is None else f", backbone={self.backbone!r}"
        extras += f", n_components={self.n_components}" + ("" if self.sees_backbone else ", see_backbone=False")
        shape = f"{self.dim}, {layout.width}, {layout.n_blocks}"
        return f"ResidualMLP({shape}{extras}): {layout.size} parameters, {self.dtype}"

    def learner(self, n: int, objective: str, **options: Any) -> ResidualObjective:
        """What trains it: an objective for batches of n points."""
        return ResidualObjective(self, n, objective, **options)

    def _sizes(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "dim": self.dim, "width": layout.width, "n_blocks": layout.n_blocks, "n_classes": self.n_classes,
            "n_components": self.n_components, "see_backbone": self.sees_backbone,
            "n_frequencies": self.n_frequencies,
        }  # fmt: skip

    def _new_evaluator(self) -> ResidualEvaluator:
        return ResidualEvaluator(self)


def _initial(layout: ResidualLayout, n_frequencies: int, normals: np.ndarray) -> np.ndarray:
    """Normal weights that keep the size of a signal, classes without effect, and W_out = 0: F = 0.

    1.676 is 1/√E φ(z)² for a normal z; the blocks together add as much as they are given. The bias b_in is as large as
    an input of unit variance, so that normalisation leaves the size of a smaller input to be seen.
    """
    parameters = np.zeros(layout.size)
    views = layout.views(parameters)
    drawn = layout.views(normals)
    views.enter[:] = drawn.enter / np.sqrt(layout.n_inputs)
    views.enter_bias[:] = drawn.enter_bias
    views.film[: 2 * n_frequencies] = drawn.film[: 2 * n_frequencies] * (0.3 / np.sqrt(n_frequencies))
    for matrix, part in zip(views.blocks, drawn.blocks, strict=True):
        matrix[:] = part * (1.676 / np.sqrt(layout.width * layout.n_blocks))
    return parameters
