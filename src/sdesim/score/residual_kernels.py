"""Element-wise loops of residual networks, over rows lo … hi of a block."""

import math

import numpy as np

from ..core.cache import kernel
from ..core.elementary import wide_vectors
from ..core.functions import exp

_FAST = ("contract", "reassoc", "nsz")


@kernel(fastmath=_FAST)
def activate(h, before, residual, bias, film, level, hat, scale, bent, a, lo, hi):
    """h ← h + b (+ before); n = (h − mean)/√(var + 1e-5); a = φ((1 + γ) n + β), with 1/√ and φ′ kept beside."""
    wide_vectors()
    w = bias.shape[0]
    one = h.dtype.type(1.0)
    for i in range(lo, hi):
        row, normal, slope, out = h[i], hat[i], bent[i], a[i]
        gamma, beta = film[i, 2 * level * w : (2 * level + 1) * w], film[i, (2 * level + 1) * w : (2 * level + 2) * w]
        total = one - one
        if residual:
            last = before[i]
            for j in range(w):
                v = row[j] + bias[j] + last[j]
                row[j] = v
                total += v
        else:
            for j in range(w):
                v = row[j] + bias[j]
                row[j] = v
                total += v
        mean, square = total / h.dtype.type(w), one - one
        for j in range(w):
            v = row[j] - mean
            square += v * v
        factor = one / np.sqrt(square / h.dtype.type(w) + h.dtype.type(1e-5))
        scale[i] = factor
        for j in range(w):
            v = (row[j] - mean) * factor
            normal[j] = v
            z = v + gamma[j] * v + beta[j]
            s = one / (one + exp(-z))
            out[j] = z * s
            slope[j] = s + z * s * (one - s)


@kernel(fastmath=_FAST)
def reverse(of_a, beyond, residual, film, level, hat, scale, bent, of_film, of_h, lo, hi):
    """The gradients in γ, β and h from that in a; ``beyond`` is the gradient that comes along the residual."""
    wide_vectors()
    w = of_a.shape[1]
    one = of_a.dtype.type(1.0)
    share = one / of_a.dtype.type(w)
    for i in range(lo, hi):
        incoming, normal, slope, out, factor = of_a[i], hat[i], bent[i], of_h[i], scale[i]
        first, second, third = 2 * level * w, (2 * level + 1) * w, (2 * level + 2) * w
        gamma, of_gamma, of_beta = film[i, first:second], of_film[i, first:second], of_film[i, second:third]
        mean, along = one - one, one - one
        for j in range(w):
            dz = incoming[j] * slope[j]
            of_beta[j] = dz
            of_gamma[j] = dz * normal[j]
            g = dz + gamma[j] * dz
            out[j] = g
            mean += g
            along += g * normal[j]
        mean *= share
        along *= share
        if residual:
            straight = beyond[i]
            for j in range(w):
                out[j] = straight[j] + factor * (out[j] - mean - along * normal[j])
        else:
            for j in range(w):
                out[j] = factor * (out[j] - mean - along * normal[j])


@kernel(fastmath=_FAST)
def tangent(carried, film, level, hat, scale, bent, moved, n):
    """moved = the tangent of a from that of h."""
    wide_vectors()
    w = carried.shape[1]
    one = carried.dtype.type(1.0)
    share = one / carried.dtype.type(w)
    for i in range(n):
        row, normal, slope, out, factor = carried[i], hat[i], bent[i], moved[i], scale[i]
        gamma = film[i, 2 * level * w : (2 * level + 1) * w]
        mean, along = one - one, one - one
        for j in range(w):
            mean += row[j]
            along += row[j] * normal[j]
        mean *= share
        along *= share
        for j in range(w):
            out[j] = slope[j] * (one + gamma[j]) * factor * (row[j] - mean - along * normal[j])


@kernel
def divide(y, leading, spreads, scales, s, lo, hi):
    """The leading coordinates for the backbone's mixture; in the others the score of N(0, α² sd² + σ²)."""
    wide_vectors()
    m = leading.shape[1]
    for i in range(lo, hi):
        at, out, shrink, noise = y[i], s[i], scales[i, 0] * scales[i, 0], scales[i, 1]
        for j in range(m):
            leading[i, j] = at[j]
        rest, slope, widths = at[m:], out[m:], spreads[m:]
        for j in range(rest.shape[0]):
            slope[j] = -rest[j] / (shrink * widths[j] * widths[j] + noise)


@kernel
def inputs(y, leading, s, spreads, scales, spread, n_components, answer, out, lo, hi):
    """α sd y/(α² sd² + σ²) for the first components, then (y + σ² s)/(α σ_d): the backbone's denoised mean.

    ``leading`` are the mixture's scores, which are put in their place in s.
    """
    wide_vectors()
    for i in range(lo, hi):
        for j in range(leading.shape[1]):
            s[i, j] = leading[i, j]
        at, slope, row, alpha, noise = y[i], s[i], out[i], scales[i, 0], scales[i, 1]
        for j in range(n_components):
            wide = alpha * spreads[j]
            row[j] = wide * at[j] / (wide * wide + noise)
        if answer:
            rest, unit = row[n_components : 2 * n_components], alpha * spread
            for j in range(n_components):
                rest[j] = (at[j] + noise * slope[j]) / unit


@kernel
def conditions(levels, classes, frequencies, out, lo, hi):
    """Sines and cosines of 2πfc, a one, and a one in the column of the class, the last for a class < 0."""
    k = frequencies.shape[0]
    turn = levels.dtype.type(2.0 * math.pi)
    for i in range(lo, hi):
        row = out[i]
        row[:] = 0
        for j in range(k):
            angle = turn * levels[i] * frequencies[j]
            row[j], row[k + j] = np.sin(angle), np.cos(angle)
        row[2 * k] = 1
        if out.shape[1] > 2 * k + 1:
            row[2 * k + 1 + classes[i] if classes[i] >= 0 else out.shape[1] - 1] = 1


@kernel
def correct(o, b, spreads, scales, s, lo, hi):
    """s ← s + B ∘ (o + b),  B = α sd/(σ √(α² sd² + σ²))."""
    wide_vectors()
    for i in range(lo, hi):
        row, slope, alpha, noise = o[i], s[i], scales[i, 0], scales[i, 1]
        sigma = np.sqrt(noise)
        for j in range(row.shape[0]):
            wide = alpha * spreads[j]
            slope[j] += wide / (sigma * np.sqrt(wide * wide + noise)) * (row[j] + b[j])


@kernel(fastmath=_FAST)
def regression(o, b, s, target, spreads, scales, units, weights, share, d, losses, lo, hi):
    """losses = ½ w B₀² |(B/B₀) (o + b) − (T − s)/B₀|² and its gradient in o; ``target`` is T/B₀, ``units`` 1/B₀."""
    wide_vectors()
    half = b.dtype.type(0.5)
    for i in range(lo, hi):
        row, slope, wanted, out, alpha, noise = o[i], s[i], target[i], d[i], scales[i, 0], scales[i, 1]
        unit, q, total = units[i], weights[i], half - half
        pull, per = q * share, unit / np.sqrt(noise)
        for j in range(row.shape[0]):
            wide = alpha * spreads[j]
            gain = per * wide / np.sqrt(wide * wide + noise)
            r = gain * (row[j] + b[j]) + unit * slope[j] - wanted[j]
            total += r * r
            out[j] = pull * gain * r
        losses[i] = half * q * total
