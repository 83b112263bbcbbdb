"""Formulas in MathML Core, for browsers: no attribute of style."""

from collections.abc import Iterable
from html import escape

from . import _tree as t
from ._tree import ATOM, PRODUCT, Formula


def mathml(given: Formula, *, block: bool = False) -> str:
    """The element `math` of a formula, in a line of text or as a block."""
    display = ' display="block"' if block else ""
    return f"<math{display}>{_content(given)}</math>"


def _content(given: Formula) -> str:
    match given:
        case t.Symbol(name):
            letter = name.rstrip("′")
            primes = name[len(letter) :]
            identifier = f"<mi>{escape(letter)}</mi>"
            return f"<msup>{identifier}<mo>{primes}</mo></msup>" if primes else identifier
        case t.Number(text):
            return f"{_sign('−')}<mn>{text[1:]}</mn>" if text.startswith("−") else f"<mn>{text}</mn>"
        case t.Words(text):
            return f"<mtext>{escape(text)}</mtext>"
        case t.Slot(name):
            return f'<mn data-slot="{escape(name)}"></mn>'
        case t.Arrow(label, back):
            return f"<mover>{_sign('←' if back else '→')}{_row(label)}</mover>"
        case t.Marked(part, name):
            return f'<mrow data-term="{escape(name)}">{_content(part)}</mrow>'
        case t.Sum():
            return "".join((_sign(sign) if sign else "") + _within(term, level) for sign, term, level in given.signed)
        case t.Product(factors, sign):
            unit = any(isinstance(factor, t.Words) for factor in factors)
            sign = '<mspace width="0.17em"></mspace>' if unit else _sign(sign or "\N{INVISIBLE TIMES}")
            return sign.join(_within(factor, level) for factor, level in given.levelled)
        case t.Quotient(above, below):
            return f"<mfrac>{_row(above)}{_row(below)}</mfrac>"
        case t.Power(base, exponent):
            return f"<msup><mrow>{_within(base, ATOM)}</mrow>{_row(exponent)}</msup>"
        case t.Exponential(exponent):
            return f"<msup><mi>e</mi>{_row(exponent)}</msup>"
        case t.Subscript(base, index):
            return f"<msub>{_row(base)}<mrow>{_index(index)}</mrow></msub>"
        case t.Applied(function, arguments):
            inner = _sign(",").join(map(_row, arguments))
            inner = f'<mspace width="0.17em"></mspace>{inner}' if given.bare else _in_brackets(inner)
            return _content(function) + _sign("\N{FUNCTION APPLICATION}") + inner
        case t.Total(term, index):
            sign = f"<munder>{_sign('∑')}<mi>{index}</mi></munder>" if index else _sign("∑")
            return f"{sign}{_within(term, PRODUCT)}"
        case t.Differential(of, sign):
            return f"<mi>{sign}</mi>{_within(of, given.needs)}"
        case t.Bracketed(inner):
            return f"<mrow>{_sign('[')}{_content(inner)}{_sign(']')}</mrow>"
        case t.Relation(sides, sign):
            return _sign(sign).join(map(_row, sides))
        case t.Several(parts, sign):
            return f'{_sign(sign)}<mspace width="1em"></mspace>'.join(map(_row, parts))
        case t.Cases(cases):
            rows = (
                (_content(value), f"<mtext>if\N{NO-BREAK SPACE}</mtext>{_content(condition)}")
                for value, condition in cases
            )
            return f"<mrow>{_sign('{')}{_table(rows)}</mrow>"
        case t.Matrix(rows, brackets):
            table = _table(map(_content, row) for row in rows)
            return f"<mrow>{_sign('[')}{table}{_sign(']')}</mrow>" if brackets else table
    raise TypeError(f"formula: expected a node of a formula, got {type(given).__name__}")


def _sign(sign: str) -> str:
    return f"<mo>{sign}</mo>"


def _row(inner: Formula) -> str:
    """A formula as one element: a minus at its beginning is a sign, and no difference."""
    return f"<mrow>{_content(inner)}</mrow>"


def _index(index: Formula) -> str:
    """Letters of an index are indices side by side, no name."""
    return "".join(f"<mi>{letter}</mi>" for letter in index.name) if isinstance(index, t.Symbol) else _content(index)


def _within(inner: Formula, level: int) -> str:
    text = _content(inner)
    return text if inner.level >= level else _in_brackets(text)


def _in_brackets(text: str) -> str:
    return f"<mrow>{_sign('(')}{text}{_sign(')')}</mrow>"


def _table(rows: Iterable[Iterable[str]]) -> str:
    cells = ("".join(f"<mtd>{cell}</mtd>" for cell in row) for row in rows)
    return f"<mtable>{''.join(f'<mtr>{row}</mtr>' for row in cells)}</mtable>"
