"""The Fokker-Planck operator of one dimension as a full matrix, to hold engines against linear algebra."""

import numpy as np


def dense(operator):
    """A of dm/dt = A m + s, (n, n); the corners are what passes the joint of a circle."""
    n = operator.bands.shape[1]
    a, i = np.zeros((n, n)), np.arange(n)
    a[i, i] += operator.bands[1]
    a[i, (i - 1) % n] += operator.bands[0]
    a[i, (i + 1) % n] += operator.bands[2]
    return a
