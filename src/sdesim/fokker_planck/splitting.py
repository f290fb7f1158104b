"""Splitting: to be written."""


def evolve(*a, **k):
    raise NotImplementedError
