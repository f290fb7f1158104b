"""Figures: paths, densities, currents, samples beside a density, spectra, convergence and decay, score fields, losses,
images.

Each function draws on ``ax``, or on axes of a new figure, and returns the Axes; nothing is shown and
nothing is saved, so ``plot.density(rho).figure.savefig("density.png")`` is the whole of it. Matplotlib is
imported when the first figure is drawn. The colours are those of Okabe and Ito (2008), which people of
any colour vision tell apart; lines that could be confused differ in style as well, and every map of
values is printed legibly in grey.
"""

from .agreement import compare as compare
from .densities import density as density
from .densities import frames as frames
from .flow import current as current
from .flow import score_field as score_field
from .pictures import images as images
from .rates import convergence as convergence
from .rates import decay as decay
from .rates import losses as losses
from .rates import spectrum as spectrum
from .trajectories import paths as paths
