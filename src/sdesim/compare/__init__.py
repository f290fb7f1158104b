r"""Samples against a density: five distances, each beside the value that pure chance would give it.

A histogram of n samples never equals the density it was drawn from, so a distance by itself says nothing:
an L1 of 0.008 is perfect agreement for 10^6 samples in 120 cells and a plain error for 10^8. Every
distance is therefore reported with its *noise floor*, the mean it has when the samples do come from the
density, and that mean's standard deviation. Write q_i for the probability of cell i under the density,
c_i for the samples counted in it, p̂_i = c_i/n, and F and F_n for the two distribution functions:

========== ============================ ========================================================
distance   definition                   floor: its mean over n independent draws from the density
========== ============================ ========================================================
L1         Σ |p̂_i − q_i|                Σ E|c_i − n q_i|/n, de Moivre's exact sum
KL         Σ p̂_i log(p̂_i/q_i)           (K − 1)/(2n) + (Σ 1/q_i − 1)/(12n²), K cells of n q_i >= 5
KS         max |F_n − F| at the edges   (0.8687 − 0.5826 √Σq_i²)/√n
W1         ∫ |F_n − F| dx               ∫ E|F_n − F| dx, the same exact sum
chi-square Σ (c_i − n q_i)²/(n q_i)     given as its p-value, on the cells of the KL distance
========== ============================ ========================================================

The exact sum tends to √(2q(1 − q)/(πn)) where many samples are expected.
0.8687 = √(π/2) log 2 is the mean of the largest value of a Brownian bridge, and 0.5826 = −ζ(1/2)/√(2π)
what it loses by being looked at on a lattice only (Broadie, Glasserman and Kou 1997). Two more numbers
are far sharper against the commonest errors, a shifted mean and a wrong width: the deviations of mean and
variance in standard deviations.

**Which cells.** KS, Wasserstein and the two moments use every cell of the grid, which costs them nothing.
The noise of L1, KL and chi-square grows with the number of cells, so these three use a coarser partition:
neighbouring cells are joined until the density occupies about 64 (fewer for small n) of them, counted by
its perplexity exp(−Σ q log q); a normal density then shows some 120. Whatever lies outside the grid is
one more cell on either side, and where rho has lost mass through an absorbing wall, one cell for all that
is gone: nothing is dropped.

**What n finds.** With the default level, every second time (and nearly always at 1.7 times these errors):

========== =================== ================== =================================================
n          mean, in units of   standard deviation an error spread over all cells, as its L1 distance
           the deviation
========== =================== ================== =================================================
10^4       0.043               3.1 %              0.084
10^6       0.0043              0.31 %             0.0091
10^8       0.00043             0.031 %            0.00095
========== =================== ================== =================================================

The moments find the first two, the chi-square the third; KS alone needs an error of the mean of 0.006 at
n = 10^6, and hardly sees the tails. The limits of L1 and Wasserstein are wide, those two are there to say
how far apart the laws are.

**Several dimensions.** Samples of d components against a density on a grid of d axes are compared jointly. L1, KL and
chi-square are those of the boxes of the grid, joined along each axis until the density occupies about 256 of them (512
in three dimensions), counted as above; chi-square joins neighbours along a path that winds through the grid. KS,
Wasserstein and the two moments are those of each component, of which the one nearest to its limit is shown, and the
covariance of each pair of components is compared as the moments are. A wrong dependence between components whose
laws are right, which no marginal can show, is found by the covariances and the chi-square. Samples outside the grid
are one cell.
"""

from .result import Comparison as Comparison
from .result import JointComparison as JointComparison
from .verb import MIN_SAMPLES as MIN_SAMPLES
from .verb import compare as compare
