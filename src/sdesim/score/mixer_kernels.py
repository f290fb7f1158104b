"""Element-wise loops of patch mixers, over arrays (patches, pictures, channels)."""

import numpy as np

from ..core.cache import kernel
from ..core.elementary import wide_vectors
from ..core.functions import exp

_FAST = ("contract", "reassoc", "nsz")


@kernel
def gather(views, pixels, out):
    """out[t, i] = the window of patch t in every view (n_views, n, d) of picture i, 0 beyond its edge."""
    wide_vectors()
    m = pixels.shape[1]
    for i in range(views.shape[1]):
        for t in range(pixels.shape[0]):
            row, places = out[t, i], pixels[t]
            for v in range(views.shape[0]):
                picture = views[v, i]
                for j in range(m):
                    at = places[j]
                    row[v * m + j] = picture[at] if at >= 0 else 0


@kernel
def scatter(windows, pixels, views):
    """The transpose of ``gather``: every pixel gets the sum of its places in the windows."""
    m = pixels.shape[1]
    views[:] = 0
    for i in range(views.shape[1]):
        for t in range(pixels.shape[0]):
            row, places = windows[t, i], pixels[t]
            for v in range(views.shape[0]):
                picture = views[v, i]
                for j in range(m):
                    at = places[j]
                    if at >= 0:
                        picture[at] += row[v * m + j]


@kernel(fastmath=_FAST)
def normalise(h, film, level, hat, scale, out):
    """n = (h − mean)/√(var + 1e-5) over the channels; out = (1 + γ) n + β, with n and 1/√ kept beside."""
    wide_vectors()
    w = h.shape[2]
    one = h.dtype.type(1.0)
    first, second, third = 2 * level * w, (2 * level + 1) * w, (2 * level + 2) * w
    for t in range(h.shape[0]):
        for i in range(h.shape[1]):
            row, normal, to = h[t, i], hat[t, i], out[t, i]
            gamma, beta = film[i, first:second], film[i, second:third]
            total = one - one
            for j in range(w):
                total += row[j]
            mean, square = total / h.dtype.type(w), one - one
            for j in range(w):
                v = row[j] - mean
                square += v * v
            factor = one / np.sqrt(square / h.dtype.type(w) + h.dtype.type(1e-5))
            scale[t, i] = factor
            for j in range(w):
                v = (row[j] - mean) * factor
                normal[j] = v
                to[j] = v + gamma[j] * v + beta[j]


@kernel(fastmath=_FAST)
def normalise_back(of_n, film, level, hat, scale, of_film, of_h):
    """of_h += the gradient in h, from that in (1 + γ) n + β; the gradients in γ and β go to their columns."""
    wide_vectors()
    w = of_n.shape[2]
    one = of_n.dtype.type(1.0)
    share = one / of_n.dtype.type(w)
    first, second, third = 2 * level * w, (2 * level + 1) * w, (2 * level + 2) * w
    pull = np.empty(w, of_n.dtype)
    of_film[:, first:third] = 0
    for t in range(of_n.shape[0]):
        for i in range(of_n.shape[1]):
            incoming, normal, out, factor = of_n[t, i], hat[t, i], of_h[t, i], scale[t, i]
            gamma, of_gamma, of_beta = film[i, first:second], of_film[i, first:second], of_film[i, second:third]
            mean, along = one - one, one - one
            for j in range(w):
                d = incoming[j]
                of_beta[j] += d
                of_gamma[j] += d * normal[j]
                g = d + gamma[j] * d
                pull[j] = g
                mean += g
                along += g * normal[j]
            mean *= share
            along *= share
            for j in range(w):
                out[j] += factor * (pull[j] - mean - along * normal[j])


@kernel(fastmath=_FAST)
def normalise_along(v, film, level, hat, scale, out):
    """The tangent of (1 + γ) n + β from that of h."""
    wide_vectors()
    w = v.shape[2]
    one = v.dtype.type(1.0)
    share = one / v.dtype.type(w)
    for t in range(v.shape[0]):
        for i in range(v.shape[1]):
            row, normal, to, factor = v[t, i], hat[t, i], out[t, i], scale[t, i]
            gamma = film[i, 2 * level * w : (2 * level + 1) * w]
            mean, along = one - one, one - one
            for j in range(w):
                mean += row[j]
                along += row[j] * normal[j]
            mean *= share
            along *= share
            for j in range(w):
                to[j] = (one + gamma[j]) * factor * (row[j] - mean - along * normal[j])


@kernel(fastmath=_FAST)
def activate(z, rows, columns, slope):
    """z ← φ(z + rows[i] + columns[j]) in a matrix z, φ the SiLU, with φ′ kept beside."""
    wide_vectors()
    one = z.dtype.type(1.0)
    for i in range(z.shape[0]):
        row, bent, offset = z[i], slope[i], rows[i]
        for j in range(row.shape[0]):
            v = row[j] + (offset + columns[j])
            s = one / (one + exp(-v))
            row[j] = v * s
            bent[j] = s + v * s * (one - s)


@kernel
def multiply(z, slope):
    """z ← z ∘ slope, matrices."""
    wide_vectors()
    for i in range(z.shape[0]):
        row, bent = z[i], slope[i]
        for j in range(row.shape[0]):
            row[j] *= bent[j]


@kernel
def add(h, step, rows, columns):
    """h ← h + step + rows[i] + columns[j], matrices."""
    wide_vectors()
    for i in range(h.shape[0]):
        row, much, offset = h[i], step[i], rows[i]
        for j in range(row.shape[0]):
            row[j] += much[j] + (offset + columns[j])


@kernel
def views(y, s, scales, spread, out, lo):
    """The pictures the network sees: y/√(α² σ_d² + σ²), and (y + σ² s)/(α σ_d), the backbone's denoised mean."""
    wide_vectors()
    for i in range(out.shape[1]):
        at, slope, alpha, noise = y[lo + i], s[lo + i], scales[lo + i, 0], scales[lo + i, 1]
        unit = alpha * spread
        whole, row = np.sqrt(unit * unit + noise), out[0, i]
        for j in range(row.shape[0]):
            row[j] = at[j] / whole
        if out.shape[0] > 1:
            answer = out[1, i]
            for j in range(answer.shape[0]):
                answer[j] = (at[j] + noise * slope[j]) / unit
