r"""Score networks for images that know where pixels lie: patches mixed by small MLPs, over a closed-form backbone.

    s(x, t) = s_backbone(x, t) + B(t) ∘ F,    B_i = α sd_i/(σ √(α² sd_i² + σ²))

with sd_i the spread of pixel i. A ``ResidualMLP`` sees a picture as a vector; here every patch is treated alike, so
that a picture of 49 patches teaches 49 times as much about edges and textures, with a tenth of the parameters.
"""

from typing import Any

import numpy as np

from ..core import checks
from ..processes.gaussian import GaussianProcess
from .backboned import BackboneNetwork
from .head import Head
from .mixer_evaluation import MixerEvaluator
from .mixer_layout import MixerLayout
from .mixer_objective import MixerObjective
from .mixer_passes import initial

_FLOOR = 0.05


class MixerMLP(BackboneNetwork):
    r"""A score s(x, t, label) of pictures: a closed-form backbone, corrected by an MLP-Mixer (Tolstikhin et al. 2021).

    Parameters
    ----------
    shape : (height, width) or (height, width, channels)
        Of a picture; x has rows of height · width · channels numbers, channels last.
    width : int
        Channels of a patch inside the network.
    n_blocks : int
        Each mixes the patches, channel by channel, then the channels, patch by patch (``mixer_passes``).
    patch : int
        The side of a patch in pixels; it divides height and width.
    context : int
        Pixels on each side by which the window that a patch is seen by is larger than the patch.
    token_width, channel_width : int
        Hidden units of the two mixings; two thirds and twice the width unless given.
    n_classes : int, optional
        Learn the classes 0 … n_classes − 1 apart: ``net(x, t, labels)``. A label of −1, or no labels, is the score of
        all classes together.
    backbone, class_weights, process, see_backbone, n_frequencies, seed, dtype
        As for ``ResidualMLP``; with ``see_backbone`` the backbone's denoised mean is a second picture beside x.

    Notes
    -----
    For images: ``backbone = targets.PrincipalMixture.fit(images)``, then ``fit_score(net, images, labels=labels,
    process=EDM(), times=(0.7, 1.4), learning_rate=4e-3, decay="one_cycle")``.

    It learns by denoising only. ``net(x, t)``, ``jacobian_vector``, ``vector_jacobian`` and ``divergence`` are those
    of a ``ScoreMLP``, each with ``labels=``; the exact divergence takes a tangent for each dimension. All arithmetic is
    in ``dtype``; the answer has the type of x.
    """

    layout: MixerLayout

    def __init__(
        self, shape: Any, width: int = 96, n_blocks: int = 4, *, patch: int = 4, context: int = 2,
        token_width: int | None = None, channel_width: int | None = None, n_classes: int | None = None,
        backbone: Any = None, class_weights: Any = None, process: GaussianProcess | None = None,
        see_backbone: bool = True, n_frequencies: int = 8, seed: int = 0, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        width = checks.integer("width", width, minimum=1)
        token_width = max(1, 2 * width // 3) if token_width is None else token_width
        channel_width = 2 * width if channel_width is None else channel_width
        self._shape(
            shape, width, n_blocks, patch, context, token_width, channel_width, n_classes, see_backbone, n_frequencies
        )  # fmt: skip
        self._begin(backbone, class_weights, process, lambda drawn: initial(self.layout, drawn), seed, dtype)

    def _shape(
        self, shape: Any, width: Any, n_blocks: Any, patch: Any, context: Any, token_width: Any, channel_width: Any,
        n_classes: Any, see_backbone: Any, n_frequencies: Any,
    ) -> None:  # fmt: skip
        """The layout, checked."""
        sides = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
        if len(sides) not in (2, 3):
            raise ValueError(f"shape must be (height, width) or (height, width, channels), got {shape!r}")
        height, width_, *channels = (checks.integer("shape", side, minimum=1) for side in sides)
        patch = checks.integer("patch", patch, minimum=1)
        if height % patch or width_ % patch:
            raise ValueError(f"patches of {patch} x {patch} pixels do not tile a picture of {height} x {width_}")
        self.n_classes = None if n_classes is None else checks.integer("n_classes", n_classes, minimum=1)
        self.sees_backbone = bool(see_backbone)
        self.n_frequencies = checks.integer("n_frequencies", n_frequencies, minimum=1)
        self.layout = MixerLayout(
            (height, width_, channels[0] if channels else 1), patch, checks.integer("context", context, minimum=0),
            2 if self.sees_backbone else 1, self.n_conditions, checks.integer("width", width, minimum=1),
            checks.integer("token_width", token_width, minimum=1),
            checks.integer("channel_width", channel_width, minimum=1), checks.integer("n_blocks", n_blocks, minimum=1),
        )  # fmt: skip
        self._small_enough()

    # ---- what it is

    def __repr__(self) -> str:
        layout = self.layout
        extras = "" if self.n_classes is None else f", n_classes={self.n_classes}"
        extras += "" if self.backbone is None else f", backbone={self.backbone!r}"
        extras += "" if self.sees_backbone else ", see_backbone=False"
        shape = f"{layout.shape}, {layout.width}, {layout.n_blocks}, patch={layout.patch}, context={layout.context}"
        return f"MixerMLP({shape}{extras}): {layout.size} parameters, {self.dtype}"

    def _sizes(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "shape": list(layout.shape), "width": layout.width, "n_blocks": layout.n_blocks, "patch": layout.patch,
            "context": layout.context, "token_width": layout.token_width, "channel_width": layout.channel_width,
            "n_classes": self.n_classes, "see_backbone": self.sees_backbone, "n_frequencies": self.n_frequencies,
        }  # fmt: skip

    def pixel_spreads(self, dtype: Any, head: Head) -> np.ndarray:
        """sd_i, (d,), not less than a part of the spread of all pixels: some pixels of the data may never change."""
        if self.backbone is None:
            return np.full(self.dim, head.spread, dtype)
        variances = np.diag(self.backbone.cov)
        return np.sqrt(variances + _FLOOR**2 * variances.mean()).astype(dtype)

    def learner(self, n: int, objective: str, **options: Any) -> MixerObjective:
        """What trains it: an objective for batches of n points."""
        return MixerObjective(self, n, objective, **options)

    def _new_evaluator(self) -> MixerEvaluator:
        return MixerEvaluator(self)
