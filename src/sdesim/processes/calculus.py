"""Itô, Stratonovich and the divergence of the diffusion tensor, for any noise.

Three terms are derivatives of the diffusion σ, of which a user need not give the derivative:

    noise-induced drift   ½ Σₖ (σₖ·∇)σₖ     (Stratonovich drift + it = Itô drift; Kloeden & Platen 1992, eq.
    4.9.11) divergence of a=σσᵀ   Σⱼ ∂ⱼ aᵢⱼ          (time reversal; Anderson 1982)

For diagonal noise both come from ∂σ/∂x, given as ``diffusion_dx`` or taken by central differences; for
general noise they are central differences along the columns of σ and along the axes. Each function here
returns a plain formula ``(self, x, t)`` that runs on arrays and, compiled, on single paths alike.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Formula = Callable[..., Any]


def plus(a: Any, b: Any, sign: float) -> Any:
    """a + sign·b, component by component where the state is a tuple."""
    if isinstance(b, tuple):
        return tuple(ai + sign * bi for ai, bi in zip(a, b, strict=True))
    return a + sign * b


def difference_step(dtype: Any) -> float:
    """Relative step of a central difference: eps^(1/3) balances truncation and rounding."""
    return float(np.finfo(dtype).eps ** (1 / 3))


def diffusion_derivative(process: Any, dtype: Any = np.float64) -> Formula:
    """∂σⱼ/∂xⱼ of a diagonal noise, as a formula."""
    if process.diffusion_dx is not None:
        return process.formula("diffusion_dx")
    sigma, step = process.formula("diffusion"), difference_step(dtype)
    if process.dim is None or process.dim == 1:

        def slope(self, x, t):
            h = step * (1.0 + np.abs(x))
            return (sigma(self, x + h, t) - sigma(self, x - h, t)) / (2.0 * h)

        return slope
    return _assembled(_slope_lines(process.dim, _entry(process, "diffusion")), sigma=sigma, step=step)


def noise_induced_drift(process: Any, dtype: Any = np.float64) -> Formula:
    """½ Σₖ (σₖ·∇)σₖ as a formula in the structure of the state."""
    sigma = process.formula("diffusion")
    if process.noise == "diagonal":
        slope = diffusion_derivative(process, dtype)
        if process.dim is None or process.dim == 1:

            def induced(self, x, t):
                return 0.5 * sigma(self, x, t) * slope(self, x, t)

            return induced
        g, s = _entry(process, "diffusion"), "s[{}]"
        if process.diffusion_dx is not None:
            s = _entry(process, "diffusion_dx").replace("g", "s")
        lines = ["g = sigma(self, x, t)", "s = slope(self, x, t)"]
        result = [f"0.5 * {g.format(i)} * {s.format(i)}" for i in range(process.dim)]
        return _assembled((lines, result), sigma=sigma, slope=slope)
    return _assembled(_directional_lines(process), sigma=sigma, step=difference_step(dtype))


def diffusion_divergence(process: Any, dtype: Any = np.float64) -> Formula:
    """(∇·a)ᵢ = Σⱼ ∂ⱼ aᵢⱼ as a formula in the structure of the state."""
    if process.noise == "diagonal":
        induced = noise_induced_drift(process, dtype)  # ∂ⱼ σⱼ² = 2 σⱼ ∂ⱼσⱼ, four times that
        if process.dim is None or process.dim == 1:

            def divergence(self, x, t):
                return 4.0 * induced(self, x, t)

            return divergence
        result = [f"4.0 * c[{i}]" for i in range(process.dim)]
        return _assembled((["c = induced(self, x, t)"], result), induced=induced)
    return _assembled(_divergence_lines(process), sigma=process.formula("diffusion"), step=difference_step(dtype))


def diagonal_rows(process: Any) -> Formula:
    """A diagonal σ as the rows of a matrix, for what treats all noise as general."""
    g = _entry(process, "diffusion")
    rows = [
        "(" + ", ".join(g.format(i) if i == k else f"0.0 * {g.format(i)}" for k in range(process.dim)) + ",)"
        for i in range(process.dim)
    ]
    return _assembled((["g = sigma(self, x, t)"], rows), sigma=process.formula("diffusion"))


def noise_dim(process: Any) -> int:
    """The number m of Wiener processes that drive a process with a d-tuple state."""
    if process.noise == "diagonal":
        return 1 if process.dim is None else process.dim
    return len(_probe(process, "diffusion")[0])


# Formulas on d-tuples are written out component by component, because a tuple has no arithmetic; the text
# below is the same for arrays and for compiled scalars.


def _probe(process: Any, name: str) -> Any:
    """The value of a coefficient somewhere, for the structure of what it returns."""
    with np.errstate(all="ignore"):
        return getattr(process, name)(tuple(np.ones(process.dim)), np.float64(0.0))


def _entry(process: Any, name: str) -> str:
    """How component i of the value g of a coefficient is written: a number stands for all components."""
    return "g[{}]" if isinstance(_probe(process, name), tuple) else "g"


def _shifted(d: int, j: int, sign: str) -> str:
    return "(" + ", ".join(f"x[{i}] {sign} h" if i == j else f"x[{i}]" for i in range(d)) + ",)"


def _slope_lines(d: int, entry: str) -> tuple[list[str], list[str]]:
    lines, result = [], []
    for j in range(d):
        lines += [
            f"h = step * (1.0 + np.abs(x[{j}]))",
            f"g = sigma(self, {_shifted(d, j, '+')}, t)",
            f"u{j} = {entry.format(j)}",
            f"g = sigma(self, {_shifted(d, j, '-')}, t)",
            f"s{j} = (u{j} - {entry.format(j)}) / (2.0 * h)",
        ]
        result.append(f"s{j}")
    return lines, result


def _directional_lines(process: Any) -> tuple[list[str], list[str]]:
    d, m = process.dim, noise_dim(process)
    lines = ["g = sigma(self, x, t)", "h = step"]
    terms: list[list[str]] = [[] for _ in range(d)]
    for k in range(m):
        for sign, name in (("+", "u"), ("-", "l")):
            moved = ", ".join(f"x[{i}] {sign} h * g[{i}][{k}]" for i in range(d))
            lines.append(f"{name}{k} = sigma(self, ({moved},), t)")
        for i in range(d):
            terms[i].append(f"(u{k}[{i}][{k}] - l{k}[{i}][{k}])")
    return lines, [f"0.25 / h * ({' + '.join(row)})" for row in terms]


def _divergence_lines(process: Any) -> tuple[list[str], list[str]]:
    d, m = process.dim, noise_dim(process)
    lines: list[str] = []
    terms: list[list[str]] = [[] for _ in range(d)]
    for j in range(d):
        lines.append(f"h = step * (1.0 + np.abs(x[{j}]))")
        lines += [
            f"u{j} = sigma(self, {_shifted(d, j, '+')}, t)",
            f"l{j} = sigma(self, {_shifted(d, j, '-')}, t)",
        ]
        for i in range(d):
            upper = " + ".join(f"u{j}[{i}][{k}] * u{j}[{j}][{k}]" for k in range(m))
            lower = " + ".join(f"l{j}[{i}][{k}] * l{j}[{j}][{k}]" for k in range(m))
            lines.append(f"a{i}{j} = (({upper}) - ({lower})) / (2.0 * h)")
            terms[i].append(f"a{i}{j}")
    return lines, [" + ".join(row) for row in terms]


def _assembled(parts: tuple[list[str], list[str]], **names: Any) -> Formula:
    """The formula of these lines and this result; a closure over ``names``, which the compiler follows."""
    lines, result = parts
    body = "".join(f"        {line}\n" for line in lines)
    body += f"        return ({', '.join(result)},)\n"
    text = f"def make({', '.join(names)}):\n    def formula(self, x, t):\n{body}"
    scope: dict[str, Any] = {"np": np, "__name__": __name__}
    exec(text + "    return formula\n", scope)
    formula: Formula = scope["make"](**names)
    return formula


def shifted_drift(process: Any, sign: float, dtype: Any = np.float64) -> Formula:
    """The drift plus ``sign`` times the noise-induced drift, as one formula."""
    drift, induced = process.formula("drift"), noise_induced_drift(process, dtype)
    if process.dim is None or process.dim == 1:

        def shifted(self, x, t):
            return drift(self, x, t) + sign * induced(self, x, t)

        return shifted
    lines = ["f = drift(self, x, t)", "c = induced(self, x, t)"]
    result = [f"f[{i}] + sign * c[{i}]" for i in range(process.dim)]
    return _assembled((lines, result), drift=drift, induced=induced, sign=sign)
