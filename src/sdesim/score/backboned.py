"""What networks share that start from the closed-form score of a law: the law, its weights in each class, labels."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import checks, stream
from ..processes.gaussian import GaussianProcess
from ..targets.cells import Cells
from ..targets.low_rank import LowRankMixture
from ..targets.principal import PrincipalMixture
from .base import MAX_PARAMETERS, WEIGHTS, ScoreNetwork, checked_labels
from .head import Head

_CELLS = ("weights", "means", "directions", "variances", "residual")


class BackboneNetwork(ScoreNetwork):
    """A score s(x, t, label) = s_backbone(x, t, label) + what a network adds.

    Subclasses make their ``layout``, call :meth:`_begin`, and give ``learner``, ``_new_evaluator`` and ``_sizes`` (the
    settings that their layout is made of).
    """

    _shape: Callable[..., None]  # the layout, checked, from what _sizes gives
    n_frequencies: int
    backbone: PrincipalMixture | None = None
    class_weights: np.ndarray | None = None

    def _begin(
        self, backbone: Any, class_weights: Any, process: Any, initial: Any, seed: Any, dtype: Any
    ) -> None:  # fmt: skip
        """All but the layout; ``initial`` makes a vector of parameters from as many normals."""
        law = None if backbone is None else PrincipalMixture.of(backbone)
        if law is not None and law.dim != self.dim:
            raise ValueError(f"the backbone has dimension {law.dim}, the network {self.dim}")
        if process is not None and not isinstance(process, GaussianProcess):
            raise TypeError(f"process must be linear (EDM, VariancePreserving, ...), got {type(process).__name__}")
        kind, seed = checks.dtype(dtype), checks.seed(seed)
        self._rest(law, class_weights)
        centre, spread = np.zeros(self.dim), 1.0
        if law is not None and self._spreads is not None:
            centre, spread = law.mean, float(np.sqrt((self._spreads**2).mean()))
        self.head = Head("edm", process, centre, spread, getattr(process, "t_min", 0.0))
        size = self.layout.size
        draws = stream.normals(seed, stream.TRAINING, -(-size // 2), 1, 2, first_path=WEIGHTS).reshape(-1)
        self._set(initial(draws[:size]).astype(kind))

    def _small_enough(self) -> None:
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

    @property
    def n_conditions(self) -> int:
        """Fourier features, a one, and one for each class and for none: what is said of no class is learned apart."""
        return 2 * self.n_frequencies + 1 + (0 if self.n_classes is None else self.n_classes + 1)

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

    def _like_me(self) -> Any:
        other = object.__new__(type(self))
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_local", "parameters", "head")})
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_lock", "_cells")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._rest(self.backbone, self.class_weights)

    # ---- files

    def _sizes(self) -> dict[str, Any]:
        raise NotImplementedError

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
        settings = {**self._sizes(), "backbone": self.backbone is not None, "head": self.head.stored()}
        centre = np.broadcast_to(np.asarray(self.head.centre, dtype=np.float64), (self.dim,))
        return settings, {**self.arrays(), "centre": np.array(centre)}

    @classmethod
    def restored(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        """The network that :meth:`stored` described; raises ValueError where the parts do not fit together."""
        net = object.__new__(cls)
        known = {name: value for name, value in settings.items() if name not in ("backbone", "head")}
        net._shape(**known)
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
