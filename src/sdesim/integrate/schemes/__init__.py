"""The time-stepping schemes, one file each; ``SCHEMES`` is the table that ``sdesim.methods()`` prints.

To add a scheme: write its stages in a file of its own and name it here. Tiles, batches and tests pick it up.
"""

from .adaptive_sri import ADAPTIVE_SRI
from .baoab import BAOAB
from .base import Fan, Scheme, Stage
from .dopri5 import DOPRI5
from .euler_maruyama import EULER_MARUYAMA
from .exact import EXACT
from .heun import HEUN
from .implicit import IMPLICIT_EULER, IMPLICIT_TRAPEZOID
from .mala import MALA
from .midpoint import MIDPOINT
from .milstein import MILSTEIN
from .milstein_commutative import MILSTEIN_COMMUTATIVE
from .milstein_levy import MILSTEIN_LEVY
from .platen import PLATEN
from .rk4 import RK4
from .sra import SRA
from .sri import SRI
from .tamed_euler import TAMED_EULER
from .unadjusted_langevin import UNADJUSTED_LANGEVIN
from .weak_euler import WEAK_EULER
from .weak_second import WEAK_SECOND

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        EXACT,
        EULER_MARUYAMA,
        MILSTEIN,
        PLATEN,
        HEUN,
        MIDPOINT,
        SRA,
        SRI,
        TAMED_EULER,
        IMPLICIT_EULER,
        IMPLICIT_TRAPEZOID,
        WEAK_EULER,
        WEAK_SECOND,
        MILSTEIN_COMMUTATIVE,
        MILSTEIN_LEVY,
        BAOAB,
        UNADJUSTED_LANGEVIN,
        MALA,
        RK4,
        ADAPTIVE_SRI,
        DOPRI5,
    )
}

__all__ = [
    "EULER_MARUYAMA", "EXACT", "HEUN", "MIDPOINT", "MILSTEIN", "PLATEN", "SCHEMES", "WEAK_EULER", "Fan",
    "Scheme", "Stage",
]  # fmt: skip
