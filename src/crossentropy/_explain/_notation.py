"""Numbers and formulas as text: Unicode, and the same as LaTeX."""

import math
import re

_MINUS = "−"
_SUBSCRIPTS = str.maketrans("0123456789-", "₀₁₂₃₄₅₆₇₈₉₋")


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


def bracketed(text: str) -> str:
    """A sum or a negative number in parentheses, to stand in a product or after a minus."""
    return f"({text})" if " " in text or text.startswith(_MINUS) else text


def factor(x: float) -> str:
    """A number that stands in a product or after a minus."""
    return bracketed(number(x))


def probability(p: float, rest: float) -> str:
    """A probability. One that would be printed as 1 is written as 1 minus the rest."""
    return f"1 − {number(rest)}" if 0 < rest < 5e-5 else number(p)


def one_plus(r: float) -> str:
    """The sum 1 + r. It is left as a sum where r is too small to show in four decimals."""
    return f"1 + {number(r)}" if 0 < r < 5e-5 else number(1 + r)


def sub(index: int) -> str:
    """An index as a subscript."""
    return str(index).translate(_SUBSCRIPTS)


_TEX = {
    "σ": r"\sigma ",
    "Σ": r"\textstyle\sum",
    "∂": r"\partial ",
    "ℓ": r"\ell ",
    "ε": r"\varepsilon ",
    "ζ": r"\zeta ",
    "τ": r"\tau ",
    "·": r"\cdot ",
    "−": "-",
    "′": "'",
    "²": "^2",
    "⁴": "^4",
    "ᵀ": r"^{\mathsf T}",
    "∞": r"\infty ",
    "≠": r"\neq ",
    "≈": r"\approx ",
    "←": r"\leftarrow ",
    "…": r"\dots ",
    "✗": r"\times ",
    "%": r"\%",
}
_FUNCTIONS = {"exp", "log", "tanh", "max", "sech"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "$&#_%"},
}


def tex_formula(text: str) -> str:
    """A Unicode formula in LaTeX's mathematics."""
    text = re.sub(
        "[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m[0].translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")) + "}", text
    )
    text = re.sub(r"(\d)e(−?)\+?0*(\d+)", r"\1·10^{\2\3}", text)
    parts = re.split(r"( ?_?[A-Za-z]{2,} ?)", text)  # words at odd places
    for i, part in enumerate(parts):
        word = part.strip()
        if i % 2 == 0:
            parts[i] = "".join(_TEX.get(c, c) for c in part.replace("  ", r"\quad "))
        elif word in _FUNCTIONS:
            parts[i] = f"\\{word} "
        elif word.startswith("_"):
            parts[i] = f"_{{{word[1:]}}}"
        else:
            parts[i] = part.replace(" ", r"\ ").replace(word, rf"\mathrm{{{word}}}")
    return "".join(parts)


def tex_text(text: str) -> str:
    """Plain text in LaTeX: special characters escaped, mathematical ones as mathematics."""
    return "".join(f"${_TEX[c].strip()}$" if c in _TEX and c != "%" else _SPECIAL.get(c, c) for c in text)
