"""Formulas in Unicode, for a terminal: one line, or several where there is a matrix."""

from . import _tree as t
from ._tree import ATOM, POWER, PRODUCT, Formula

_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_RAISED = str.maketrans("0123456789T", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵀ")


def unicode(given: Formula) -> str:
    """The formula as text."""
    match given:
        case t.Symbol(text) | t.Number(text) | t.Words(text):
            return text
        case t.Slot(name):
            return f"{{{name}}}"
        case t.Arrow(label, back):
            return f"◀─ {unicode(label)} ──" if back else f"── {unicode(label)} ─▶"
        case t.Marked(part):
            return unicode(part)
        case t.Sum():
            (sign, first, level), *others = given.signed
            parts = (part for sign, term, level in others for part in (f" {sign} ", _within(term, level)))
            return _beside(sign, _within(first, level), *parts)
        case t.Product(_, sign):
            space = f" {sign} " if sign in ("∘", "×") else sign or " "
            return _joined(space, [_within(factor, level) for factor, level in given.levelled])
        case t.Quotient(above, below):
            needs = PRODUCT if isinstance(below, t.Total) else POWER
            return _beside(_within(above, PRODUCT), "/", _within(below, needs))
        case t.Power(base, exponent):
            text = unicode(exponent)
            raised = text.translate(_RAISED) if set(text) <= set("0123456789T") else f"^{text}"
            return _beside(_within(base, ATOM), raised)
        case t.Exponential(exponent):  # exp, as a raised formula cannot be written
            return f"exp({unicode(exponent)})"
        case t.Subscript(base, index):
            text = unicode(index)
            return unicode(base) + (text.translate(_LOWERED) if text.isdecimal() else f"_{text}")
        case t.Applied(function, arguments):
            inner = ", ".join(map(unicode, arguments))
            return f"{unicode(function)} {inner}" if given.bare else f"{unicode(function)}({inner})"
        case t.Total(term, index):
            return f"Σ{f'_{index}' if index else ''} {_within(term, PRODUCT)}"
        case t.Differential(of, sign):
            space = " " if sign == "d" and isinstance(of, t.Applied) else ""
            return f"{sign}{space}{_within(of, given.needs)}"
        case t.Bracketed(inner):
            return _beside("[", unicode(inner), "]")
        case t.Relation(sides, sign):
            return _joined(f" {sign} ", [unicode(side) for side in sides])
        case t.Several(parts, sign):
            return _joined(f"{sign}  ", [unicode(part) for part in parts])
        case t.Cases(cases):
            return ",  ".join(f"{unicode(value)}  if {unicode(condition)}" for value, condition in cases)
        case t.Matrix(rows, brackets):
            return _matrix([[unicode(cell) for cell in row] for row in rows], brackets)
    raise TypeError(f"formula: expected a node of a formula, got {type(given).__name__}")


def _within(inner: Formula, level: int) -> str:
    text = unicode(inner)
    return text if inner.level >= level else _beside("(", text, ")")


def _joined(between: str, parts: list[str]) -> str:
    first, *others = parts
    return _beside(first, *(text for part in others for text in (between, part)))


def _beside(*parts: str) -> str:
    """Texts of one or more lines side by side, their middles on one line."""
    blocks = [part.split("\n") for part in parts]
    height = max(map(len, blocks))
    rows = [""] * height
    for block in blocks:
        width, above = max(map(len, block)), (height - len(block)) // 2
        for i in range(height):
            rows[i] += (block[i - above] if 0 <= i - above < len(block) else "").ljust(width)
    return "\n".join(row.rstrip() for row in rows) if height > 1 else rows[0]


def _matrix(texts: list[list[str]], brackets: bool) -> str:
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ["  ".join(text.center(width) for text, width in zip(row, widths, strict=True)) for row in texts]
    if not brackets:
        return "\n".join(line.rstrip() for line in lines)
    if len(lines) == 1:
        return f"[{lines[0]}]"
    edges = [("⎡", "⎤"), *[("⎢", "⎥")] * (len(lines) - 2), ("⎣", "⎦")]
    return "\n".join(f"{left}{line}{right}" for (left, right), line in zip(edges, lines, strict=True))
