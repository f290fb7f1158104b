"""The time-stepping schemes, one file each; ``SCHEMES`` is the table that ``sdesim.methods()`` prints.

To add a scheme: write its stages in a file of its own and name it here. Tiles, batches and tests pick it up.
"""

from .base import Scheme, Stage
from .euler_maruyama import EULER_MARUYAMA
from .exact import EXACT
from .heun import HEUN
from .midpoint import MIDPOINT
from .milstein import MILSTEIN
from .platen import PLATEN

SCHEMES = {scheme.name: scheme for scheme in (EXACT, EULER_MARUYAMA, MILSTEIN, PLATEN, HEUN, MIDPOINT)}

__all__ = ["EULER_MARUYAMA", "EXACT", "HEUN", "MIDPOINT", "MILSTEIN", "PLATEN", "SCHEMES", "Scheme", "Stage"]
