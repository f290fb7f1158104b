"""How fast a process forgets: the slowest modes of its Fokker-Planck operator."""

import dataclasses
from typing import Any

import numpy as np

from .core import checks
from .fokker_planck.boundary import walls, walls_of_axes
from .fokker_planck.grid import Grid
from .on_grid import check_process, coefficients, need_constant


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RelaxationModes:
    """p(t) = Σ_j c_j φ_j e^{−λ_j t}, c_j = ∫ f_j p₀: rates λ, modes φ and observables f on a grid.

    Attributes
    ----------
    rates : (k,)
        λ_j by increasing real part; complex, in conjugate pairs, where a current circulates. λ_0 = 0 where mass is
        kept; otherwise it is the rate at which mass is lost in the end.
    modes : (k, *grid.shape)
        Densities φ_j (cell averages), right eigenvectors. φ_0 integrates to 1: the stationary density, or with walls
        that absorb the quasi-stationary one.
    functions : (k, *grid.shape)
        Observables f_j, left eigenvectors: E[f_j(X_t) | X_0 = x] = e^{−λ_j t} f_j(x). ∫ f_i φ_j = δ_ij and
        ∫ |f_j|² φ_0 = 1 for j > 0; f_0 = 1 where mass is kept.
    grid, process, boundary
        What was solved, and where.
    """

    rates: np.ndarray
    modes: np.ndarray
    functions: np.ndarray
    grid: Grid
    process: Any
    boundary: Any

    def __repr__(self) -> str:
        shown = ", ".join(f"{rate:.6g}" for rate in self.rates[:4]) + (", …" if self.n > 4 else "")
        return f"RelaxationModes({type(self.process).__name__}, {self.n} rates: {shown})"

    def __len__(self) -> int:
        return self.n

    @property
    def n(self) -> int:
        """How many modes there are."""
        return len(self.rates)

    @property
    def gap(self) -> float:
        """The rate of the slowest decay: Re λ_1 where mass is kept, λ_0 where it is lost."""
        index = 1 if self.rates[0] == 0.0 else 0
        if index >= self.n:
            raise ValueError("the gap needs k >= 2 modes where mass is kept, got k = 1")
        return float(self.rates[index].real)

    def amplitudes(self, p: Any) -> np.ndarray:
        """c_j = ∫ f_j p of a density (cell averages), (k,)."""
        m = checks.array("p", p) * self.grid.cell_volume
        if m.shape != self.grid.shape:
            raise ValueError(f"p has shape {m.shape}, expected {self.grid.shape}")
        return np.asarray(self.functions.reshape(self.n, -1) @ m.ravel())

    def density(self, p0: Any, t: float) -> np.ndarray:
        """p(t) from p0 as far as these modes carry it: good once e^{−λ_k t} is small. Shape grid.shape."""
        share = self.amplitudes(p0) * np.exp(-self.rates * checks.real("t", t, minimum=0.0))
        return np.asarray(np.tensordot(share, self.modes, axes=1).real)


def relaxation_modes(process: Any, grid: Grid, k: int = 6, *, boundary: Any = "reflecting") -> RelaxationModes:
    """The k modes of the Fokker-Planck operator that decay slowest: rates, densities and observables.

    Arguments
    ---------
    process : Process
        Its coefficients must not depend on time.
    k : int
        How many; the stationary one counts.
    boundary
        As in ``evolve_density``.

    Returns
    -------
    RelaxationModes

    Raises
    ------
    ValueError
        For coefficients that depend on time, a process without diffusion, and more modes than cells.
    RuntimeError
        Where the iterations do not converge.

    Rates are those of the grid's operator, O(h²) from those of the process. In one dimension by the symmetric
    tridiagonal eigenproblem, rates to high relative accuracy; on circles and in several dimensions by shift-inverted
    Lanczos or, with a current, Arnoldi iterations: sparse LU up to some 1000² cells or 36³ (half a minute), GMRES
    beyond (many minutes for 64³ cells). Modes that turn many times faster than they decay can be missed.
    """
    from .fokker_planck import spectrum  # with sparse matrices, which take a while to import

    check_process(process, grid)
    k = checks.integer("k", k, minimum=1)
    sides = walls(boundary) if grid.dim == 1 else walls_of_axes(boundary, grid.dim)
    made = coefficients(process, grid, sides if grid.dim == 1 else boundary)
    need_constant(made, process, "the spectrum")
    if grid.dim == 1 and made.still(0.0):
        raise ValueError("a process without diffusion forgets nothing at a rate: it carries its density along")
    find = spectrum.line_modes if grid.dim == 1 else spectrum.box_modes
    rates, modes, functions = find(made.at(0.0), k)
    return RelaxationModes(rates, modes / grid.cell_volume, functions, grid, process, sides)
