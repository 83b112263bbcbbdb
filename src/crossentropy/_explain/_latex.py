"""Formulas and words in LaTeX, with amsmath."""

import re
from collections.abc import Iterable

from . import _tree as t
from ._tree import ATOM, PRODUCT, Formula

# Mathematical characters.
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
    "∞": r"\infty",
    "≠": r"\neq",
    "≈": r"\approx",
    "←": r"\leftarrow",
    "→": r"\rightarrow",
    "…": r"\dots",
    "✗": r"\times",
}
_OF_LATEX = {"log", "max", "tanh"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "$&#_%"},
}


def latex_words(text: str) -> str:
    """Plain text: special characters escaped, mathematical ones as mathematics."""
    return "".join(f"${LATEX[c]}$" if c in LATEX else _SPECIAL.get(c, c) for c in text)


def latex(given: Formula) -> str:
    """The formula in LaTeX's mathematics."""
    match given:
        case t.Symbol(name):
            letter = name.rstrip("′")
            return _symbol(letter) + "'" * (len(name) - len(letter))
        case t.Number(text):
            text = re.sub(r"e(−?)\+?0*(\d+)$", r"\\cdot 10^{\1\2}", text).replace("NaN", r"\mathrm{NaN}")
            return text.replace("−", "-").replace("∞", r"\infty ")
        case t.Words(text):
            return rf"\text{{{latex_words(text)}}}"
        case t.Slot(name):
            return rf"\text{{{latex_words(f'{{{name}}}')}}}"
        case t.Arrow(label, back):
            return rf"\x{'left' if back else 'right'}arrow{{{latex(label)}}}"
        case t.Marked(part):
            return latex(part)
        case t.Sum():
            (sign, first, level), *others = given.signed
            terms = (f" {LATEX.get(sign, sign)} {_within(term, level)}" for sign, term, level in others)
            return LATEX.get(sign, sign) + _within(first, level) + "".join(terms)
        case t.Product(_, sign):
            space = f" {LATEX[sign]} " if sign else r"\,"
            return space.join(_within(factor, level) for factor, level in given.levelled)
        case t.Quotient(above, below):
            return rf"\frac{{{latex(above)}}}{{{latex(below)}}}"
        case t.Power(base, exponent):
            raised = r"\mathsf T" if exponent == t.TRANSPOSE else latex(exponent)
            return f"{_within(base, ATOM)}^{{{raised}}}"
        case t.Exponential(exponent):
            return f"e^{{{latex(exponent)}}}"
        case t.Subscript(base, index):
            return f"{latex(base)}_{{{_index(index)}}}"
        case t.Applied(function, arguments):
            inner = ", ".join(map(latex, arguments))
            return f"{latex(function)} {inner}" if given.bare else latex(function) + _in_brackets(inner)
        case t.Total(term, index):
            return rf"\sum{f'_{{{index}}}' if index else ''} {_within(term, PRODUCT)}"
        case t.Differential(of, sign):
            return f"{LATEX.get(sign, sign)} {_within(of, given.needs)}"
        case t.Bracketed(inner):
            return rf"\left[{latex(inner)}\right]"
        case t.Relation(sides, sign):
            return f" {LATEX.get(sign, sign)} ".join(map(latex, sides))
        case t.Several(parts, sign):
            return rf"{sign}\quad ".join(map(latex, parts))
        case t.Cases(cases):
            lines = [(latex(value), rf"\text{{if }} {latex(condition)}") for value, condition in cases]
            return rf"\begin{{cases}}{_rows(lines)}\end{{cases}}"
        case t.Matrix(rows, brackets):
            kind = "bmatrix" if brackets else "matrix"
            return rf"\begin{{{kind}}}{_rows(map(latex, row) for row in rows)}\end{{{kind}}}"
    raise TypeError(f"formula: expected a node of a formula, got {type(given).__name__}")


def _symbol(name: str) -> str:
    if name in LATEX:
        return LATEX[name]
    if len(name) == 1:
        return name
    return rf"\{name}" if name in _OF_LATEX else rf"\operatorname{{{name}}}"


def _index(index: Formula) -> str:
    """Letters of an index are indices side by side, no name."""
    return " ".join(index.name) if isinstance(index, t.Symbol) else latex(index)


def _within(inner: Formula, level: int) -> str:
    text = latex(inner)
    return text if inner.level >= level else _in_brackets(text)


def _in_brackets(text: str) -> str:
    tall = r"\frac" in text or r"\begin" in text
    return rf"\left({text}\right)" if tall else f"({text})"


def _rows(rows: Iterable[Iterable[str]]) -> str:
    return r" \\ ".join(" & ".join(row) for row in rows)
