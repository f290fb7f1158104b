"""Euler's scheme with two-point increments: weak order 1 from one random bit a step.

    x + f dt + g ΔŴ,   ΔŴ = ±√dt with probability ½ each

(Kloeden & Platen 1992, §14.1): for expectations of smooth functions. A walk of two-point steps lives on a lattice, so
the four steps before each recorded time are Gaussian, which gives histograms back their noise floor; what is recorded
therefore takes part in what the paths are. They follow no Brownian path.
"""

from .base import Scheme
from .euler_maruyama import EULER_MARUYAMA

WEAK_EULER = Scheme(
    name="weak_euler",
    stages=EULER_MARUYAMA.stages,
    strong_order=0.0,
    weak_order=1.0,
    noise=("diagonal", "general"),
    calculus="ito",
    reference="Kloeden & Platen 1992, §14.1",
    increment="two_point",
)
