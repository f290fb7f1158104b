"""What has left through the walls until many times at once: the Laplace transform, inverted along a hyperbola.

With A constant, the transform of dm/dt = A m is (z − A)⁻¹ m(0), and what has left through a wall of rate r is

    L(t) = (1/2πi) ∫ e^{zt} r [(z − A)⁻¹ m(0)]_wall dz/z

along any contour round the spectrum of A. On z(u) = μ(1 + sin(iu − α)), which opens to the left, the trapezoidal rule
converges geometrically, and one contour serves all t in a window [t₁/4, t₁] (López-Fernández & Palencia 2004;
Weideman & Trefethen 2007): 24 nodes of the upper half plane give 1e-12 for a real spectrum. Windows follow one
another down to the first time, so that n_t times cost about log₄(t_last/t_first) · 24 tridiagonal solves instead of
n_t time steps. Only the values at the two walls are wanted: two runs of the elimination, one from each end, no
back-substitution and nothing stored; eight nodes go side by side, one a SIMD lane.

Where drift outweighs diffusion on the way to a wall, the density behaves as if the spectrum were complex and filled
Im² = κ |Re| with κ = μ² t/D, t the time of the passage. The nodes were chosen with that in view: the error is 1e-12 at
κ = 10, 4e-10 at 20, 1e-6 at 40, and grows fast from there. Neighbouring windows share the time where they meet, and
``leaving`` returns by how much they disagree there, which is as large as the error.
"""

import math

import numpy as np

from ..core.cache import kernel
from .operator import Operator

WINDOW = 4.0
_ALPHA, _STEP, _SCALE, _NODES = 0.91053264, 0.08692299, 40.43262629, 24
_U = (np.arange(_NODES) + 0.5) * _STEP
# z t₁ at the nodes, and the weights of e^{zt} F(z)/z, of which the imaginary part is taken
NODES = _SCALE * (1.0 + np.sin(1j * _U - _ALPHA))
WEIGHTS = _STEP / math.pi * 1j * _SCALE * np.cos(1j * _U - _ALPHA) / NODES
TABLE = np.array([NODES.real, NODES.imag, WEIGHTS.real, WEIGHTS.imag])
# Seen from the shortest times of a long run nothing has moved yet.
MOST_WINDOWS = 24


def leaving(operator: Operator, m: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, float]:
    """What has left through the low and the high wall until each of ``times``, (n_t, 2), and a measure of the error.

    ``times`` are counted from the start, increasing, the first one may be 0; no periodic walls and no inflow. The
    measure is the largest disagreement of neighbouring windows where they meet.
    """
    found: tuple[np.ndarray, float] = _leaving(operator.bands, operator.absorption, m, times, TABLE)
    return found


@kernel(fastmath=("reassoc", "contract"))
def _walls(bands, exits, m, zr, zi):
    """The first and the last component of (z − A)⁻¹ m for each z: (2: real, imaginary; 2: low, high; nodes).

    Pivots are rates on plus what has been carried along, z and exits, and no differences (see ``tridiagonal.factor``):
    the cells are far faster than z.
    """
    n, count = len(m), len(zr)
    lower, upper = bands[0], bands[2]
    out = np.empty((2, 2, count))
    for first in range(0, count, 8):
        # reciprocal pivots, right side and what is carried along, of the runs upwards (u) and downwards (d)
        uqr, uqi, uxr, uxi, uer, uei = np.empty(8), np.empty(8), np.empty(8), np.empty(8), np.empty(8), np.empty(8)
        dqr, dqi, dxr, dxi, der, dei = np.empty(8), np.empty(8), np.empty(8), np.empty(8), np.empty(8), np.empty(8)
        sr, si = zr[first : first + 8], zi[first : first + 8]
        for k in range(8):
            uer[k], uei[k] = sr[k] + exits[0], si[k]
            br = lower[1] + uer[k]
            s = 1.0 / (br * br + si[k] * si[k])
            uqr[k], uqi[k], uxr[k], uxi[k] = br * s, -si[k] * s, m[0], 0.0
            der[k], dei[k] = sr[k] + exits[1], si[k]
            br = upper[n - 2] + der[k]
            s = 1.0 / (br * br + si[k] * si[k])
            dqr[k], dqi[k], dxr[k], dxi[k] = br * s, -si[k] * s, m[n - 1], 0.0
        for i in range(1, n):
            j = n - 1 - i
            below, above, right, left = lower[i], upper[j], m[i], m[j]
            # the rates of cell i back and on, and those of cell j
            back, ahead, high = upper[i - 1], 0.0, exits[1]
            returns, onward, low = lower[j + 1], 0.0, exits[0]
            if i + 1 < n:
                ahead, high, onward, low = lower[i + 1], 0.0, upper[j - 1], 0.0
            for k in range(8):
                ar, ai, yr, yi = uqr[k], uqi[k], uxr[k], uxi[k]
                uxr[k] = right + below * (ar * yr - ai * yi)
                uxi[k] = below * (ar * yi + ai * yr)
                er, ei = uer[k], uei[k]
                uer[k] = sr[k] + high + back * (ar * er - ai * ei)
                uei[k] = si[k] + back * (ar * ei + ai * er)
                br, bi = ahead + uer[k], uei[k]
                s = 1.0 / (br * br + bi * bi)
                uqr[k], uqi[k] = br * s, -bi * s
                ar, ai, yr, yi = dqr[k], dqi[k], dxr[k], dxi[k]
                dxr[k] = left + above * (ar * yr - ai * yi)
                dxi[k] = above * (ar * yi + ai * yr)
                er, ei = der[k], dei[k]
                der[k] = sr[k] + low + returns * (ar * er - ai * ei)
                dei[k] = si[k] + returns * (ar * ei + ai * er)
                br, bi = onward + der[k], dei[k]
                s = 1.0 / (br * br + bi * bi)
                dqr[k], dqi[k] = br * s, -bi * s
        for k in range(8):
            out[0, 0, first + k] = dqr[k] * dxr[k] - dqi[k] * dxi[k]
            out[1, 0, first + k] = dqr[k] * dxi[k] + dqi[k] * dxr[k]
            out[0, 1, first + k] = uqr[k] * uxr[k] - uqi[k] * uxi[k]
            out[1, 1, first + k] = uqr[k] * uxi[k] + uqi[k] * uxr[k]
    return out


@kernel(fastmath=("reassoc", "contract"))
def _inverted(zr, zi, wr, wi, times, out):
    """Im Σ_k w_k e^{z_k t} for both walls at each time; equal steps of time are multiplied, not exponentiated anew."""
    n, count = len(times), len(zr)
    er, ei, fr, fi = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    gap, fresh = 0.0, 0
    for i in range(n):
        t = times[i]
        step = t - times[i - 1] if i > 0 else 0.0
        if i > 0 and abs(step - gap) <= 1e-15 * t and fresh < 64:
            fresh += 1
            for k in range(count):
                a, b = er[k], ei[k]
                er[k], ei[k] = a * fr[k] - b * fi[k], a * fi[k] + b * fr[k]
        else:
            fresh = 0
            for k in range(count):
                size = np.exp(zr[k] * t)
                er[k], ei[k] = size * np.cos(zi[k] * t), size * np.sin(zi[k] * t)
            following = times[i + 1] - t if i + 1 < n else gap
            if abs(following - gap) > 1e-15 * t:
                gap = following
                for k in range(count):
                    size = np.exp(zr[k] * gap)
                    fr[k], fi[k] = size * np.cos(zi[k] * gap), size * np.sin(zi[k] * gap)
        low, high = 0.0, 0.0
        for k in range(count):
            low += wr[0, k] * ei[k] + wi[0, k] * er[k]
            high += wr[1, k] * ei[k] + wi[1, k] * er[k]
        out[i, 0], out[i, 1] = low, high


@kernel
def _leaving(bands, absorption, m, times, table):
    """The windows, from the last time down."""
    n, count = len(times), table.shape[1]
    out, seam, here, spot = np.zeros((n, 2)), np.empty((1, 2)), np.empty((1, 2)), np.empty(1)
    wr, wi = np.empty((2, count)), np.empty((2, count))
    end, high, worst = times[n - 1], n, 0.0
    for window in range(MOST_WINDOWS):
        zr, zi = table[0] / end, table[1] / end
        found = _walls(bands, absorption, m, zr, zi)
        for side in range(2):
            for k in range(count):
                xr, xi = found[0, side, k], found[1, side, k]
                wr[side, k] = absorption[side] * (table[2, k] * xr - table[3, k] * xi)
                wi[side, k] = absorption[side] * (table[2, k] * xi + table[3, k] * xr)
        if window > 0:
            spot[0] = end
            _inverted(zr, zi, wr, wi, spot, here)
            worst = max(worst, abs(here[0, 0] - seam[0, 0]), abs(here[0, 1] - seam[0, 1]))
        low = np.searchsorted(times, end / WINDOW)
        _inverted(zr, zi, wr, wi, times[low:high], out[low:high])
        end, high = end / WINDOW, low
        if high == 0 or times[high - 1] <= 0.0:
            break
        spot[0] = end
        _inverted(zr, zi, wr, wi, spot, seam)
    return out, worst
