"""Element-wise loops of the network's passes, over a tile of rows and columns.

Rows of a pass may be **stacked**: a tile of n points with m tangents holds the n points first, then n rows for each
tangent. Loops run over views that start at column 0, which lets them become vector instructions.
"""

import math

import numpy as np

from ..core.cache import kernel
from ..core.elementary import wide_vectors
from ..core.functions import cos, sin

_FAST = ("contract", "reassoc", "nsz")


@kernel
def head_in(rows, centre, c, x):
    """x = c (row − centre), and 0 in the rows that are not there."""
    wide_vectors()
    n, d = rows.shape
    for i in range(n):
        row, out = rows[i], x[i]
        for j in range(d):
            out[j] = c * (row[j] - centre[j])
    x[n:] = 0


@kernel
def head_out(rows, centre, a, b, net, score):
    """score = a (row − centre) + b net."""
    wide_vectors()
    n, d = rows.shape
    for i in range(n):
        row, f, out = rows[i], net[i], score[i]
        for j in range(d):
            out[j] = a * (row[j] - centre[j]) + b * f[j]


@kernel
def tangent(h, d1, a, r0, n, m, p0, c0, c1):
    """Tangent rows through an activation: h ← φ′ h, the value before kept in ``a`` (same rows as h)."""
    wide_vectors()
    for k in range(1, m + 1):
        for i in range(n):
            row, slope, before = h[r0 + k * n + i, c0:c1], d1[p0 + i, c0:c1], a[r0 + k * n + i, c0:c1]
            for j in range(c1 - c0):
                before[j] = row[j]
                row[j] *= slope[j]


@kernel
def scale_rows(h, d1, r0, n, m, p0):
    """Tangent rows through an activation, for evaluation: h ← φ′ h."""
    wide_vectors()
    for k in range(1, m + 1):
        for i in range(n):
            row, slope = h[r0 + k * n + i], d1[p0 + i]
            for j in range(row.shape[0]):
                row[j] *= slope[j]


@kernel
def reverse(d, d1, part, r0, n, p0, c0, c1):
    """Gradients through an activation: d ← φ′ d; ``part`` receives their column sums, the gradient of the bias."""
    wide_vectors()
    total = part[c0:c1]
    total[:] = 0
    for i in range(n):
        row, slope = d[r0 + i, c0:c1], d1[p0 + i, c0:c1]
        for j in range(c1 - c0):
            v = row[j] * slope[j]
            row[j] = v
            total[j] += v


@kernel
def reverse_plus(d, d1, more, part, r0, n, p0, c0, c1):
    """The same with gradients that reach z by another way: d ← φ′ d + more."""
    wide_vectors()
    total = part[c0:c1]
    total[:] = 0
    for i in range(n):
        row, slope, extra = d[r0 + i, c0:c1], d1[p0 + i, c0:c1], more[p0 + i, c0:c1]
        for j in range(c1 - c0):
            v = row[j] * slope[j] + extra[j]
            row[j] = v
            total[j] += v


@kernel
def reverse_tangent(d, d1, d2, a, part, r0, n, m, p0, c0, c1):
    """Gradients (p, q₁ … q_m) of points and tangents: p ← φ′ p + φ″ Σₖ qₖ aₖ, qₖ ← φ′ qₖ."""
    wide_vectors()
    total = part[c0:c1]
    total[:] = 0
    for i in range(n):
        row, slope, bend = d[r0 + i, c0:c1], d1[p0 + i, c0:c1], d2[p0 + i, c0:c1]
        for j in range(c1 - c0):
            row[j] *= slope[j]
        for k in range(1, m + 1):
            q, before = d[r0 + k * n + i, c0:c1], a[r0 + k * n + i, c0:c1]
            for j in range(c1 - c0):
                row[j] += q[j] * before[j] * bend[j]
                q[j] *= slope[j]
        for j in range(c1 - c0):
            total[j] += row[j]


@kernel
def column_sum(d, part, r0, n):
    """part = Σ rows r0 … r0 + n of d."""
    wide_vectors()
    part[:] = 0
    for i in range(n):
        row = d[r0 + i]
        for j in range(row.shape[0]):
            part[j] += row[j]


@kernel
def add_rows(parts, out):
    """out = Σ of the rows of ``parts``, in order."""
    out[:] = parts[0]
    for k in range(1, parts.shape[0]):
        for j in range(out.shape[0]):
            out[j] += parts[k, j]


@kernel
def add_bias(o, b, r0, n):
    wide_vectors()
    for i in range(n):
        row = o[r0 + i]
        for j in range(row.shape[0]):
            row[j] += b[j]


@kernel
def fourier(c, frequencies, out, column, r0, s0, n):
    """Row r0 + i of ``out`` from ``column`` on: sin 2πfc, then cos 2πfc, for c[s0 + i]."""
    wide_vectors()
    turn = c.dtype.type(2.0 * math.pi)
    k = frequencies.shape[0]
    for i in range(n):
        angle = turn * c[s0 + i]
        first, second = out[r0 + i, column : column + k], out[r0 + i, column + k : column + 2 * k]
        for j in range(k):
            first[j] = sin(angle * frequencies[j])
        for j in range(k):
            second[j] = cos(angle * frequencies[j])


@kernel
def noisy(x, e, centre, rows, y, target, p0, n):
    """y = α (x − m) + σ e and the regression's target t_x (x − m) + t_e e; rows holds (α, σ, t_x, t_e) a point.

    ``e`` is flat: point p0 + i has d numbers from d (p0 + i) on.
    """
    wide_vectors()
    d = centre.shape[0]
    for i in range(p0, p0 + n):
        point, noise, out, wanted = x[i], e[d * i : d * (i + 1)], y[i], target[i]
        alpha, sigma, of_x, of_e = rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3]
        for j in range(d):
            v = point[j] - centre[j]
            u = noise[j]
            out[j] = alpha * v + sigma * u
            wanted[j] = of_x * v + of_e * u


@kernel
def scaled(y, factors, inp, r0, p0, n):
    """The network's input: inp = C y, row by row."""
    wide_vectors()
    for i in range(n):
        row, out, c = y[p0 + i], inp[r0 + i], factors[p0 + i]
        for j in range(row.shape[0]):
            out[j] = c * row[j]


@kernel(fastmath=_FAST)
def regression(o, b, target, weights, share, d, losses, r0, p0, n):
    """losses = ½ q |F − T|² with F = o + b; d = share q (F − T), the gradient of their mean."""
    wide_vectors()
    half = b.dtype.type(0.5)
    for i in range(n):
        row, wanted, out = o[r0 + i], target[p0 + i], d[r0 + i]
        q, total = weights[p0 + i], b[0] - b[0]
        pull = q * share
        for j in range(b.shape[0]):
            r = row[j] + b[j] - wanted[j]
            total += r * r
            out[j] = pull * r
        losses[p0 + i] = half * q * total


@kernel(fastmath=_FAST)
def projected(o, b, y, v, rows, weights, share, full, d, losses, r0, p0, n, m):
    """Sliced score matching of n points with m directions each, and its gradient in the network's outputs.

    s = A y + B F; losses = w [½|s|² or κ Σ ½(vₖ·s)²] + w κ Σₖ (A |vₖ|² + B C vₖ·aₖ) with aₖ the tangent outputs; rows
    holds (A, B, B C, κ) a point, v the directions (m, points, d).
    """
    wide_vectors()
    size = b.shape[0]
    zero = b[0] - b[0]
    half = b.dtype.type(0.5)
    for i in range(n):
        p = p0 + i
        a_of, b_of, bc, kappa = rows[p, 0], rows[p, 1], rows[p, 2], rows[p, 3]
        w = weights[p]
        primal, at, out = o[r0 + i], y[p], d[r0 + i]
        total = zero
        if full:
            for j in range(size):
                s = a_of * at[j] + b_of * (primal[j] + b[j])
                total += s * s
                out[j] = share * w * b_of * s
            total *= half
        else:
            out[:] = zero
        for k in range(m):
            direction, image, back = v[k, p], o[r0 + (k + 1) * n + i], d[r0 + (k + 1) * n + i]
            bent, norm, along = zero, zero, zero
            for j in range(size):
                u = direction[j]
                bent += u * image[j]
                norm += u * u
                along += u * (a_of * at[j] + b_of * (primal[j] + b[j]))
                back[j] = share * w * kappa * bc * u
            total += kappa * (a_of * norm + bc * bent)
            if not full:
                total += kappa * half * along * along
                pull = share * w * kappa * b_of * along
                for j in range(size):
                    out[j] += pull * direction[j]
        losses[p] = w * total


@kernel(fastmath=_FAST)
def two_sided(o, b, y, v, rows, weights, share, d, losses, p0, n):
    """Finite-difference sliced score matching: all rows of y + εv, then all of y − εv; rows holds (A, B, ε, 1/2ε).

    losses = w [½|½(s₊ + s₋)|² + v·(s₊ − s₋)/2ε].
    """
    wide_vectors()
    size, points = b.shape[0], y.shape[0]
    zero, half = b[0] - b[0], b.dtype.type(0.5)
    for p in range(p0, p0 + n):
        a_of, b_of, epsilon, slope = rows[p, 0], rows[p, 1], rows[p, 2], rows[p, 3]
        w, at, direction = weights[p], y[p], v[0, p]
        plus, minus, up, down = o[p], o[points + p], d[p], d[points + p]
        square, bent = zero, zero
        for j in range(size):
            f, g, u = plus[j] + b[j], minus[j] + b[j], direction[j]
            mean = a_of * at[j] + b_of * half * (f + g)
            square += mean * mean
            bent += u * (a_of * (epsilon + epsilon) * u + b_of * (f - g))
            up[j] = share * w * b_of * (half * mean + slope * u)
            down[j] = share * w * b_of * (half * mean - slope * u)
        losses[p] = w * (half * square + slope * bent)


@kernel(fastmath=_FAST)
def score_and_trace(o, b, y, g, v, rows, weights, share, d, losses, r0, p0, n):
    """Implicit score matching with the trace of a factored network: tr ∂F = Σⱼ g v, row by row.

    losses = w (½|A y + B F|² + A d + B C tr ∂F); rows holds (A, B, B C).
    """
    wide_vectors()
    size, width = b.shape[0], g.shape[1]
    zero, half = b[0] - b[0], b.dtype.type(0.5)
    for i in range(n):
        p = p0 + i
        a_of, b_of, bc, w = rows[p, 0], rows[p, 1], rows[p, 2], weights[p]
        row, at, out = o[r0 + i], y[p], d[r0 + i]
        square, trace = zero, zero
        for j in range(size):
            s = a_of * at[j] + b_of * (row[j] + b[j])
            square += s * s
            out[j] = share * w * b_of * s
        left, right = g[p], v[p]
        for j in range(width):
            trace += left[j] * right[j]
        losses[p] = w * (half * square + a_of * b.dtype.type(size) + bc * trace)


@kernel(fastmath=_FAST)
def row_dots(g, v, out):
    """out = Σⱼ g v, row by row."""
    wide_vectors()
    for i in range(g.shape[0]):
        left, right = g[i], v[i]
        total = left[0] - left[0]
        for j in range(g.shape[1]):
            total += left[j] * right[j]
        out[i] = total


@kernel
def product(a, b, factors, out, r0, n):
    """out = f a b on rows r0 … r0 + n, with a factor f a row."""
    wide_vectors()
    for i in range(r0, r0 + n):
        left, right, result, f = a[i], b[i], out[i], factors[i]
        for j in range(left.shape[0]):
            result[j] = f * left[j] * right[j]


@kernel
def weigh(a, factors, out, r0, n):
    """out = f a on rows r0 … r0 + n."""
    wide_vectors()
    for i in range(r0, r0 + n):
        left, result, f = a[i], out[i], factors[i]
        for j in range(left.shape[0]):
            result[j] = f * left[j]


@kernel(fastmath=_FAST)
def square_sum(g, lo, hi):
    """Σ g² over lo:hi, in float64 over short runs of the array's own type."""
    wide_vectors()
    part = g[lo:hi]
    total = 0.0
    for start in range(0, part.shape[0], 4096):
        run = part[start : start + 4096]
        some = run[0] - run[0]
        for j in range(run.shape[0]):
            some += run[j] * run[j]
        total += np.float64(some)
    return total


@kernel
def adam(p, g, m, v, a, steps, lo, hi):
    """One step of Adam on p[lo:hi], decoupled weight decay, and the moving average a.

    steps = (rate, β₁, β₂, 1/(1 − β₁ᵏ), 1/(1 − β₂ᵏ), ε, rate × decay, 1 − EMA factor, factor on the gradient).
    Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019 for the decay.
    """
    wide_vectors()
    rate, beta1, beta2, first, second = steps[0], steps[1], steps[2], steps[3], steps[4]
    epsilon, decay, gain, factor = steps[5], steps[6], steps[7], steps[8]
    one = epsilon - epsilon + p.dtype.type(1.0)
    ps, gs, ms, vs, averages = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], a[lo:hi]
    for i in range(hi - lo):
        slope = factor * gs[i]
        mean = beta1 * ms[i] + (one - beta1) * slope
        square = beta2 * vs[i] + (one - beta2) * slope * slope
        ms[i], vs[i] = mean, square
        now = ps[i] - decay * ps[i] - rate * (mean * first) / (np.sqrt(square * second) + epsilon)
        ps[i] = now
        averages[i] += gain * (now - averages[i])


@kernel
def offset(y, v, factors, steps, inp, r0, p0, n):
    """The network's input beside a point: inp = C (y + ε v), row by row."""
    wide_vectors()
    for i in range(n):
        row, direction, out, c, step = y[p0 + i], v[p0 + i], inp[r0 + i], factors[p0 + i], steps[p0 + i]
        for j in range(row.shape[0]):
            out[j] = c * (row[j] + step * direction[j])
