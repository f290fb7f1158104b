r"""Entropy of densities: divergences, what they lose per unit time, free energy, and entropy production.

Two solutions p and q of one Fokker-Planck equation forget their difference at the rate

    d/dt KL(p_t ‖ q_t) = −∫ p_t uᵀ D u dx,     u = ∇ log p_t − ∇ log q_t,     D = ½ σσᵀ,

whatever the drift (Risken 1989, section 6.1; ``dissipation``). Each divergence decays under its own law: for Langevin
dynamics, D = 1, with the stationary density π

    d/dt KL(p_t ‖ π) = −E_{p_t} |∇ log p_t − ∇ log π|²,     d/dt KL(π ‖ p_t) = −E_π |∇ log p_t − ∇ log π|²,

``fisher_information(p, π)`` and ``fisher_information(π, p)``; the expectations are not to be exchanged. Where
∫ p uᵀDu >= λ KL for all p (a logarithmic Sobolev inequality; Bakry & Émery 1985), KL decays at least as e^{−λt}; in the
end it decays as e^{−2gt}, with the spectral gap g.

The free energy F = ∫ V p + T ∫ p log p of dX = −∇V dt + √(2T) dW is T KL(p ‖ π) above its least value. Where a current
keeps running there is no such function, and what does not vanish at rest is the entropy production
∫ Jᵀ D⁻¹ J / p dx (``entropy_production``; Seifert 2012); without one it is what KL(p ‖ π) loses.

Everything is on the cells of the density, with error O(h²), for each saved time: arrays (n_times,). A density that has
lost mass through a wall counts as the law of what is still inside.
"""

import warnings
from typing import Any

import numpy as np

from .core import checks
from .density import Density
from .fokker_planck import entropy as on_cells
from .fokker_planck.boundary import walls_of_axes
from .fokker_planck.box import BoxOperator
from .fokker_planck.cells import cell_averages
from .fokker_planck.grid import Grid
from .on_grid import box_coefficients, line_coefficients

# Below this share of its largest cell a solved density is rounding, and its logarithm is not known.
SOLVED = 1e-13
# Share of the other law in such cells from which one is told.
UNKNOWN = 1e-8


def kl_divergence(p: Any, q: Any) -> np.ndarray:
    """KL(p ‖ q) = ∫ p log(p/q) dx in nats, at each saved time, (n_times,).

    Arguments
    ---------
    p, q : Density, target, or array over the cells
        At least one Density, whose cells serve both. Two densities with several times each must share the times; one
        with a single time (a stationary density) is held against all times of the other.

    inf where p has more than rounding in cells in which q has nothing. Warns where p lives in cells in which q is the
    rounding error of a solver: the divergence is then only known to be large.

    Raises ValueError where grids or times differ, TypeError where neither is a Density.
    """
    _, m, n = _pair(p, q)
    return np.array([on_cells.kullback_leibler(*pair) for pair in zip(m, n, strict=True)])


def fisher_information(p: Any, q: Any) -> np.ndarray:
    """The relative Fisher information E_p |∇ log p − ∇ log q|² at each saved time, (n_times,).

    The expectation is under the first argument. Arguments and warnings as for :func:`kl_divergence`.
    """
    of, m, n = _pair(p, q)
    joined = _periodic(of)
    return np.array([on_cells.quadratic_form(a, b, of.grid, joined, None) for a, b in zip(m, n, strict=True)])


def dissipation(p: Any, q: Any) -> np.ndarray:
    """∫ p uᵀ D u dx with u = ∇ log(p/q): what KL(p ‖ q) loses per unit time, at each saved time, (n_times,).

    D = ½ σσᵀ is that of the process of the density that evolves. p and q are solutions of its equation; a stationary
    density is one. Arguments and warnings as for :func:`kl_divergence`.
    """
    of, m, n = _pair(p, q)
    joined = _periodic(of)
    found = [on_cells.quadratic_form(a, b, of.grid, joined, _tensor(of, t)) for a, b, t in zip(m, n, of.t, strict=True)]
    return np.array(found)


def differential_entropy(rho: Density) -> np.ndarray:
    """S = −∫ p log p dx at each saved time, (n_times,)."""
    m = _laws("rho", _solved("rho", rho), rho.grid)
    h = rho.grid.cell_volume
    return np.array([-float(np.sum(a * np.log(np.where(a > 0.0, a / h, 1.0)))) for a in m])


def free_energy(rho: Density, potential: Any, temperature: float = 1.0) -> np.ndarray:
    """F = ∫ V p dx + T ∫ p log p dx at each saved time, (n_times,).

    It falls along dX = −∇V dt + √(2T) dW to −T log ∫ e^{−V/T} dx, and T KL(p ‖ π) is what is left to fall.

    Arguments
    ---------
    potential : callable, target or array
        V of one array for each coordinate (``process.potential``), a target (V = −log of its density), or the values at
        the cell centres.
    temperature : float
        T >= 0.
    """
    m = _laws("rho", _solved("rho", rho), rho.grid)
    temperature = checks.real("temperature", temperature, minimum=0.0)
    centers = (rho.grid.centers,) if rho.grid.dim == 1 else rho.grid.centers
    mesh = np.meshgrid(*centers, indexing="ij")
    if callable(getattr(potential, "log_density", None)):
        v = -np.asarray(potential.log_density(_points(mesh)))
    else:
        v = potential(*mesh) if callable(potential) else potential
    v = checks.array("potential", v)
    if v.shape != rho.grid.shape:
        raise ValueError(f"potential has shape {v.shape}, the grid has {rho.grid.shape} cells")
    return (m * v).reshape(len(m), -1).sum(axis=1) - temperature * differential_entropy(rho)


def entropy_production(rho: Density) -> np.ndarray:
    """∫ Jᵀ D⁻¹ J / p dx >= 0, J the probability current, at each saved time, (n_times,).

    0 at rest in detailed balance, positive in a stationary state through which a current runs. Summed over the faces of
    the cells as (J⁺ − J⁻) log(J⁺/J⁻), J⁺ and J⁻ the flows both ways (Schnakenberg 1976), which is >= 0 in each; with
    mixed derivatives as the integral. What passes through walls is left out; inf for a start that leaves cells empty.

    Raises ValueError for a process that has no noise along some axis: its entropy production is not defined by D⁻¹.
    """
    found = []
    for m, t in zip(_solved("rho", rho).masses, rho.t, strict=True):
        operator, tensor = _operator(rho, float(t))
        found.append(on_cells.production(operator, m, tensor))
    return np.array(found)


def _solved(name: str, rho: Any) -> Density:
    if not isinstance(rho, Density):
        raise TypeError(f"{name} must be a Density, as evolve_density returns it, got {type(rho).__name__}")
    return rho


def _pair(p: Any, q: Any) -> tuple[Density, np.ndarray, np.ndarray]:
    """The density that evolves, and the laws of the cells (n_times, *cells) of both."""
    solved = [one for one in (p, q) if isinstance(one, Density)]
    if not solved:
        raise TypeError(
            f"p or q must be a Density, as evolve_density returns it, got {type(p).__name__} and {type(q).__name__}"
        )
    of = max(solved, key=lambda one: len(one.t))
    # of two with one time each, the one that is not at rest has the time
    of = min((one for one in solved if len(one.t) == len(of.t)), key=lambda one: one.t[0])
    if len(solved) == 2:
        if p.grid.shape != q.grid.shape or not all(map(np.allclose, _edges(p), _edges(q))):
            raise ValueError("p and q must be on one grid; solve both on the same Grid")
        if len(p.t) == len(q.t) > 1 and not np.allclose(p.t, q.t, rtol=1e-9, atol=1e-12):
            raise ValueError("p and q must have the same saved times, or one of them a single time")
    m, n = _laws("p", p, of.grid), _laws("q", q, of.grid)
    if len(m) != len(n) and 1 not in (len(m), len(n)):
        raise ValueError(f"p has {len(m)} saved times and q has {len(n)}; save the same times, or one")
    times = max(len(m), len(n))
    m, n = (np.broadcast_to(a, (times, *a.shape[1:])) for a in (m, n))
    if isinstance(q, Density) and q.method != "stationary":
        unknown = n < SOLVED * n.reshape(times, -1).max(axis=1).reshape(-1, *(1,) * (n.ndim - 1))
        share = np.where(unknown, m, 0.0).reshape(times, -1).sum(axis=1)
        if share.max() > UNKNOWN:
            warnings.warn(
                f"q is rounding error in cells that hold {share.max():.2g} of p: what depends on log q is not known "
                f"there (first at t = {of.t[int(np.argmax(share > UNKNOWN))]:g}); start from a wider density, or later",
                UserWarning,
                stacklevel=3,
            )
    return of, m, n


def _laws(name: str, given: Any, grid: Grid) -> np.ndarray:
    """The probabilities of the cells, (n_times, *cells), each summing to 1."""
    if isinstance(given, Density):
        m = given.masses
    elif callable(getattr(given, "density", None)):
        m = (cell_averages(grid, lambda *x: given.density(_points(np.broadcast_arrays(*x)))) * grid.cell_volume)[None]
    else:
        p = checks.array(name, given)
        if p.shape != grid.shape:
            raise ValueError(f"{name} has shape {p.shape}, the grid has {grid.shape} cells")
        m = (p * grid.cell_volume)[None]
    # Richardson extrapolation and mixed derivatives may leave a little below zero
    m = np.maximum(m, 0.0)
    return np.asarray(m / m.reshape(len(m), -1).sum(axis=1).reshape(-1, *(1,) * grid.dim))


def _points(coordinates: Any) -> np.ndarray:
    """Points as a target takes them: the components in the last axis, none in one dimension."""
    return coordinates[0] if len(coordinates) == 1 else np.stack(coordinates, axis=-1)


def _edges(rho: Density) -> list[np.ndarray]:
    return [axis.edges for axis in rho.grid.axes]


def _periodic(rho: Density) -> tuple[bool, ...]:
    return tuple(low == "periodic" for low, _ in _sides(rho))


def _sides(rho: Density) -> tuple[Any, ...]:
    return (rho.boundary,) if rho.grid.dim == 1 else walls_of_axes(rho.boundary, rho.grid.dim)


def _tensor(rho: Density, t: float) -> list[list[Any]]:
    """D at the cell centres."""
    t = t if np.isfinite(t) else 0.0
    grid = rho.grid
    if grid.dim == 1:
        return [[line_coefficients(rho.process, grid, rho.boundary).diffusivity(grid.centers, t)]]
    mesh = tuple(np.meshgrid(*grid.centers, indexing="ij"))
    return [list(row) for row in box_coefficients(rho.process, grid, rho.boundary).tensor(mesh, t)]


def _operator(rho: Density, t: float) -> tuple[Any, list[list[Any]]]:
    tensor = _tensor(rho, t)
    t = t if np.isfinite(t) else 0.0
    if any(not np.any(row[k]) for k, row in enumerate(tensor)):
        raise ValueError(
            "entropy production needs noise along every axis; where D vanishes the current is not driven by it alone"
        )
    if rho.grid.dim == 1:
        return line_coefficients(rho.process, rho.grid, rho.boundary).at(t), tensor
    operator: BoxOperator = box_coefficients(rho.process, rho.grid, rho.boundary).at(t)
    return operator, tensor
