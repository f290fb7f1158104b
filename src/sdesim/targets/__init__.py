"""Floor 2: distributions that know their log density, their score and how to be sampled."""

from .base import Target as Target
from .double_well import DoubleWellDensity as DoubleWellDensity
from .gamma import Gamma as Gamma
from .gaussian import Gaussian as Gaussian
from .low_rank import LowRankMixture as LowRankMixture
from .mixture import GaussianMixture as GaussianMixture
from .principal import PrincipalMixture as PrincipalMixture
from .shapes import Checkerboard as Checkerboard
from .shapes import checkerboard as checkerboard
from .shapes import ring as ring
from .shapes import two_moons as two_moons
