"""Save and load: networks as plain numbers in one file, without pickle."""

from typing import Any

from .core import storage
from .score.energy import EnergyMLP
from .score.mixer import MixerMLP
from .score.network import ScoreMLP
from .score.residual import ResidualMLP
from .score.vae import VAE

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (ScoreMLP, ResidualMLP, MixerMLP, EnergyMLP, VAE)}


def save(obj: Any, path: Any) -> None:
    """Write a network to a file, whole or not at all.

    The file is an npz archive without pickled objects: arrays, and a header in JSON with their SHA-256.

    Raises
    ------
    TypeError
        For anything but a network of the library (of a fit, save ``fit.score``, ``fit.energy`` or ``fit.vae``), and for
        one whose noising process is not one of the library's own.
    """
    name = type(obj).__name__
    if _KINDS.get(name) is not type(obj):
        parts = [part for part in ("energy", "vae", "score") if hasattr(obj, "losses") and hasattr(obj, part)]
        hint = f"; save fit.{parts[0]}" if parts else ""
        raise TypeError(f"save takes {', '.join(_KINDS)}, got {name}{hint}")
    settings, arrays = obj.stored()
    storage.write(path, name, settings, arrays)


def load(path: Any, *, max_bytes: int = storage.MAX_BYTES) -> Any:
    """What :func:`save` wrote.

    Nothing in the file is run, and nothing in it is believed: sizes, types and digests are checked before memory is
    asked for.

    Raises
    ------
    ValueError
        Where the file is no such file, is damaged, holds another kind of object, or is larger than ``max_bytes``.
    """
    kind, settings, arrays = storage.read(path, max_bytes=max_bytes)
    if kind not in _KINDS:
        raise ValueError(
            f"{path} holds a {storage.brief(kind)}, which load does not make; it makes {', '.join(_KINDS)}"
        )
    try:
        return _KINDS[kind].restored(settings, arrays)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{path} does not describe a {kind}: {storage.brief(error)}") from None
