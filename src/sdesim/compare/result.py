"""What a comparison found: the distances, their noise floors, their limits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """The distances between n samples and a density, each with its noise floor; printing it shows all.

    Attributes
    ----------
    l1, kl, ks, wasserstein : float
        The distances, as the module defines them; KL is KL(p̂ ‖ p) in nats, W1 is in the units of x.
    chi2_pvalue, ks_pvalue : float
        Probability of a larger statistic if the samples do come from the density.
    n : int
        Number of samples, those outside the grid included.
    mean_z, variance_z : float
        (sample mean − mean of rho) in standard deviations of the sample mean, and the same for the variance.
    l1_floor, kl_floor, ks_floor, wasserstein_floor : float
        Mean of each distance under the density; ``*_sd`` the standard deviation.
    n_outside, expected_outside : int, float
        Samples outside the grid (or absorbed), and how many rho expects there.
    n_cells : int
        Cells of L1 and of ``observed``; chi-square and KL join those that expect fewer than 5 samples.
    time : float or None
        Time of the density, if it has one.
    limits : mapping
        The largest value of each measure (|z| for the two moments; the smallest p-value) that counts as
        noise.
    alpha, bias : float
        As given to :func:`compare`.
    edges, observed, expected : arrays (n_cells + 1,), (n_cells,), (n_cells,)
        The cells, the fraction p̂ of samples and the probability q in each.
    """

    l1: float
    kl: float
    ks: float
    wasserstein: float
    chi2_pvalue: float
    n: int
    mean_z: float
    variance_z: float
    ks_pvalue: float
    l1_floor: float
    l1_sd: float
    kl_floor: float
    kl_sd: float
    ks_floor: float
    ks_sd: float
    wasserstein_floor: float
    wasserstein_sd: float
    n_outside: int
    expected_outside: float
    n_cells: int
    time: float | None
    alpha: float
    bias: float
    limits: Mapping[str, float] = field(repr=False, compare=False)
    edges: Any = field(repr=False, compare=False)
    observed: np.ndarray = field(repr=False, compare=False)
    expected: np.ndarray = field(repr=False, compare=False)

    @property
    def beyond_noise(self) -> tuple[str, ...]:
        """Names of the measures that chance does not explain, in the order of ``limits``."""
        outside = []
        for name, limit in self.limits.items():
            value = getattr(self, name)
            if value < limit if name == "chi2_pvalue" else not abs(value) <= limit:
                outside.append(name)
        return tuple(outside)

    @property
    def within_noise(self) -> bool:
        r"""Whether all seven measures are what chance gives: samples of rho fail with probability <= alpha.

        Each measure is held to level a = alpha/7 (Bonferroni), so that the seven together err at most
        with alpha:

        - L1 <= floor + √(2 log(1/a)/n), McDiarmid's inequality (1989), true for every n;
        - KS <= √(log(2/a)/(2n)), the Dvoretzky-Kiefer-Wolfowitz inequality (Massart 1990), true for every n;
        - W1 <= floor + s √(2 log(1/a)/n), s the standard deviation of rho: the Borell-TIS inequality for
          the Gaussian limit of F_n − F, whose largest projection is the mean;
        - KL <= the chi-square quantile/(2n) with Williams' correction (1976); chi-square p-value >= a;
        - mean_z, variance_z: the normal quantile, widened for the statistic's skewness (Cornish-Fisher).

        The chi-square law is a limit: where many cells expect only five samples, its true level at 1e-5
        is up to three times the nominal one (KL's is right); the three inequalities leave that unused.

        With the default alpha = 1e-4 a limit is about 4.3 standard deviations (more for L1 and W1, whose
        inequalities are safe rather than sharp). A declared ``bias`` b, a bound on (Σ (q_i − true
        q_i)²/q_i)^½, moves each by what such an error can do at most: L1 by b, KS by b/2, W1 by b
        ∫√(F(1−F)) dx, z by b√n, and chi-square and KL to the non-central law of parameter n b².
        """
        return not self.beyond_noise

    def __str__(self) -> str:
        at = "" if self.time is None else f" at t = {self.time:g}"
        head = f"{self.n} samples against the density{at}, {self._cells()}"
        rows = [f"{head}; outside the grid {self.n_outside} (expected {self.expected_outside:.3g})"]
        for label, name in (("L1", "l1"), ("KL", "kl"), ("KS", "ks"), ("Wasserstein", "wasserstein")):
            value, floor, sd = (getattr(self, name + tail) for tail in ("", "_floor", "_sd"))
            extra = f", p = {self.ks_pvalue:.3g}" if name == "ks" else ""
            rows.append(f"  {label:<12}{value:<10.3g}(noise floor {floor:.3g} ± {sd:.1g}{extra})")
        rows.append(f"  {'chi-square':<12}p = {self.chi2_pvalue:.3g}")
        rows.append(f"  {'moments':<12}{self._moments()} standard deviations off")
        rows.extend(self._marginal_rows())
        verdict = "within noise" if self.within_noise else "beyond noise: " + ", ".join(self.beyond_noise)
        bias = f", declared bias {self.bias:g}" if self.bias else ""
        rows.append(f"  {verdict} (level {self.alpha:g}{bias})")
        return "\n".join(rows)

    def _cells(self) -> str:
        return f"{self.n_cells} cells"

    def _moments(self) -> str:
        return f"mean {self.mean_z:+.2f}, variance {self.variance_z:+.2f}"

    def _marginal_rows(self) -> Iterator[str]:
        """A line for each component, in several dimensions."""
        yield from ()


@dataclass(frozen=True)
class JointComparison(Comparison):
    """The distances between samples of d components and a density of d dimensions.

    L1, KL and chi-square are those of the boxes of the grid, ``edges`` a tuple of d arrays, ``observed`` and
    ``expected`` arrays over the joined boxes. ``ks``, ``wasserstein``, ``mean_z`` and ``variance_z`` are those of the
    component that is nearest to its limit, each with that component's own floor; the worst of d components lies
    above the floor more often than one does, which the limits allow for.

    Attributes
    ----------
    marginals : tuple of d Comparisons
        Each component against its marginal of the density, at the level alpha of its own.
    covariance_z : float
        (sample covariance − covariance of rho) in standard deviations, of the pair of components nearest to its limit.
    """

    marginals: tuple[Comparison, ...] = ()
    covariance_z: float = 0.0

    @property
    def within_noise(self) -> bool:
        r"""Whether all measures are what chance gives: samples of rho fail with probability <= alpha.

        L1, KL and chi-square of the boxes, four measures of each component and one covariance of each pair, held to
        the limits of :attr:`Comparison.within_noise` at the level alpha/(3 + 4d + d(d − 1)/2) each (Bonferroni).
        """
        return not self.beyond_noise

    def _cells(self) -> str:
        return " x ".join(str(n) for n in np.shape(self.observed)) + " boxes"

    def _moments(self) -> str:
        return f"{super()._moments()}, covariance {self.covariance_z:+.2f}"

    def _marginal_rows(self) -> Iterator[str]:
        for k, one in enumerate(self.marginals):
            parts = (
                f"KS {one.ks:.3g} (floor {one.ks_floor:.3g})",
                f"W1 {one.wasserstein:.3g} ({one.wasserstein_floor:.3g})",
            )
            moments = f"mean {one.mean_z:+.2f}, variance {one.variance_z:+.2f}"
            yield f"  component {k}: {', '.join(parts)}, {moments}"
