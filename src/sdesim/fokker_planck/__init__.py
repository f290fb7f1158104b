"""Fokker-Planck equations on arrays: grids, finite volumes, time stepping, stationary densities."""
