"""Numbers as text, and what LaTeX has for characters."""

import math

_MINUS = "−"


def number(x: float) -> str:
    """Four decimals, or more for three significant digits. A number that needs fewer is written with fewer."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else f"{_MINUS}∞"
    size = abs(x)
    if size == 0:
        return "0"
    if 1e-4 <= size < 1e6:
        text = f"{x:.{max(4, 2 - math.floor(math.log10(size)))}f}"
        if float(text) == float(f"{x:.12g}"):
            text = text.rstrip("0").rstrip(".")
    else:
        text = f"{x:.3g}"
    return text.replace("-", _MINUS)


# Mathematical characters in LaTeX.
LATEX = {
    "σ": r"\sigma",
    "Σ": r"\textstyle\sum",
    "∂": r"\partial",
    "ℓ": r"\ell",
    "δ": r"\delta",
    "ε": r"\varepsilon",
    "ζ": r"\zeta",
    "η": r"\eta",
    "ι": r"\iota",
    "τ": r"\tau",
    "𝐚": r"\mathbf{a}",
    "𝐲": r"\mathbf{y}",
    "ŷ": r"\hat{y}",
    "·": r"\cdot",
    "∘": r"\circ",
    "×": r"\times",
    "−": "-",
    "′": "'",
    "²": "^2",
    "⁴": "^4",
    "ᵀ": r"^{\mathsf T}",
    "∞": r"\infty",
    "≠": r"\neq",
    "≈": r"\approx",
    "←": r"\leftarrow",
    "→": r"\rightarrow",
    "…": r"\dots",
    "⋯": r"\cdots",
    "✗": r"\times",
}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "$&#_%"},
}


def latex_words(text: str) -> str:
    """Plain text in LaTeX: special characters escaped, mathematical ones as mathematics."""
    return "".join(f"${LATEX[c]}$" if c in LATEX else _SPECIAL.get(c, c) for c in text)
