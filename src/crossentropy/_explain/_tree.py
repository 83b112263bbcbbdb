"""Formulas as trees, and the three forms of each: Unicode for a terminal, LaTeX, MathML for a browser."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ._notation import LATEX, latex_words, number

# How tightly a formula holds together: what stands in a tighter place gets brackets.
RELATION, SUM, PRODUCT, ATOM = range(4)
_TALL = (r"\frac", r"\begin")  # what brackets in LaTeX have to grow with


@dataclass(frozen=True)
class Formula:
    """A formula. Sums, products, quotients, powers and subscripts are written as Python writes them."""

    level = ATOM

    def unicode(self) -> str:
        """One line for a terminal; several where there is a matrix."""
        raise NotImplementedError

    def tex(self) -> str:
        """LaTeX's mathematics; it needs amsmath."""
        raise NotImplementedError

    def content(self) -> str:
        """MathML without the element `math` around it."""
        raise NotImplementedError

    def mathml(self, *, block: bool = False) -> str:
        """MathML, in a line of text or as a block."""
        display = ' display="block"' if block else ""
        return f"<math{display}>{self.content()}</math>"

    def __str__(self) -> str:
        return self.unicode()

    def __add__(self, other: "Operand") -> "Formula":
        return Sum((*_terms(self), (False, formula(other))))

    def __sub__(self, other: "Operand") -> "Formula":
        return Sum((*_terms(self), (True, formula(other))))

    def __rsub__(self, other: "Operand") -> "Formula":
        return formula(other) - self

    def __radd__(self, other: "Operand") -> "Formula":
        return formula(other) + self

    def __neg__(self) -> "Formula":
        return Sum(((True, self),))

    def __mul__(self, other: "Operand") -> "Formula":
        return Product((*(self.factors if isinstance(self, Product) else (self,)), formula(other)))

    def __rmul__(self, other: "Operand") -> "Formula":
        return formula(other) * self

    def __truediv__(self, other: "Operand") -> "Formula":
        return Quotient(self, formula(other))

    def __rtruediv__(self, other: "Operand") -> "Formula":
        return formula(other) / self

    def __pow__(self, other: "Operand") -> "Formula":
        return Power(self, formula(other))

    def __getitem__(self, index: "Operand") -> "Formula":
        return Subscript(self, formula(index))

    def __call__(self, *arguments: "Operand") -> "Formula":
        return Applied(self, tuple(map(formula, arguments)))


Operand = Formula | int | float | str


def formula(given: Operand) -> Formula:
    """A symbol for a text, a number for a number. A whole number of Python's is written with all its digits."""
    if isinstance(given, Formula):
        return given
    if isinstance(given, str):
        return Symbol(given)
    return Number(str(given).replace("-", "−") if isinstance(given, int) else number(given))


def _within(inner: Formula, form: str, level: int) -> str:
    """A part in one of the three forms, in brackets where it holds together less tightly than `level`."""
    text: str = getattr(inner, form)()
    if inner.level >= level:
        return text
    return _bracketed(text, form)


def _bracketed(text: str, form: str) -> str:
    if form == "content":
        return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"
    if form == "tex" and any(tall in text for tall in _TALL):
        return rf"\left({text}\right)"
    return beside("(", text, ")")


def beside(*parts: str) -> str:
    """Texts of one or more lines side by side, their middles on one line."""
    blocks = [part.split("\n") for part in parts]
    height = max(map(len, blocks))
    if height == 1:
        return "".join(parts)
    rows = [""] * height
    for block in blocks:
        width, above = max(map(len, block)), (height - len(block)) // 2
        for i in range(height):
            line = block[i - above] if 0 <= i - above < len(block) else ""
            rows[i] += line.ljust(width)
    return "\n".join(row.rstrip() for row in rows)


@dataclass(frozen=True)
class Symbol(Formula):
    """A letter, or the name of a function or quantity, with primes."""

    name: str

    def unicode(self) -> str:
        return self.name

    def tex(self) -> str:
        name = self.name.rstrip("′")
        return _tex_name(name) + "'" * (len(self.name) - len(name))

    def content(self) -> str:
        name = self.name.rstrip("′")
        primes = self.name[len(name) :]
        return f"<msup><mi>{escape(name)}</mi><mo>{primes}</mo></msup>" if primes else f"<mi>{escape(name)}</mi>"


def _tex_name(name: str) -> str:
    if name in LATEX:
        return LATEX[name]
    if len(name) == 1:
        return name
    known = {"exp", "log", "tanh", "max"}
    return rf"\{name}" if name in known else rf"\operatorname{{{name}}}"


@dataclass(frozen=True)
class Number(Formula):
    """A number as `number` writes it."""

    text: str

    @property
    def level(self) -> int:  # type: ignore[override]
        return SUM if self.text.startswith("−") else ATOM

    def unicode(self) -> str:
        return self.text

    def tex(self) -> str:
        text = re.sub(r"e(−?)\+?0*(\d+)$", r"\\cdot 10^{\1\2}", self.text)
        return {"NaN": r"\mathrm{NaN}"}.get(text, text).replace("−", "-").replace("∞", r"\infty ")

    def content(self) -> str:
        return f"<mo>−</mo><mn>{self.text[1:]}</mn>" if self.text.startswith("−") else f"<mn>{self.text}</mn>"


@dataclass(frozen=True)
class Words(Formula):
    """Words in a formula's place."""

    text: str

    def unicode(self) -> str:
        return self.text

    def tex(self) -> str:
        return rf"\text{{{latex_words(self.text)}}}"

    def content(self) -> str:
        return f"<mtext>{escape(self.text)}</mtext>"


@dataclass(frozen=True)
class Slot(Formula):
    """A place for a number that is filled in later, by its name."""

    name: str

    def unicode(self) -> str:
        return f"{{{self.name}}}"

    def tex(self) -> str:
        return rf"\{{\text{{{latex_words(self.name)}}}\}}"

    def content(self) -> str:
        return f'<mn data-slot="{escape(self.name)}"></mn>'


@dataclass(frozen=True)
class Marked(Formula):
    """A part that a page can light up, by its name."""

    part: Formula
    name: str

    @property
    def level(self) -> int:  # type: ignore[override]
        return self.part.level

    def unicode(self) -> str:
        return self.part.unicode()

    def tex(self) -> str:
        return self.part.tex()

    def content(self) -> str:
        return f'<mrow data-term="{escape(self.name)}">{self.part.content()}</mrow>'


@dataclass(frozen=True)
class Sum(Formula):
    """Terms, each with whether it is subtracted."""

    terms: tuple[tuple[bool, Formula], ...]

    level = SUM

    def _parts(self, form: str) -> Iterable[tuple[str, str]]:
        for i, (minus, term) in enumerate(self.terms):
            level = PRODUCT if i or minus else SUM
            yield ("−" if minus else "+") if i or minus else "", _within(term, form, level)

    def unicode(self) -> str:
        (first_sign, first), *others = self._parts("unicode")
        return beside(first_sign, first, *(part for sign, term in others for part in (f" {sign} ", term)))

    def tex(self) -> str:
        (first_sign, first), *others = self._parts("tex")
        signed = [first_sign + first, *(f"{sign} {term}" for sign, term in others)]
        return " ".join(signed).replace("−", "-")

    def content(self) -> str:
        return "".join((f"<mo>{sign}</mo>" if sign else "") + term for sign, term in self._parts("content"))


def _terms(inner: Formula) -> tuple[tuple[bool, Formula], ...]:
    return inner.terms if isinstance(inner, Sum) else ((False, inner),)


@dataclass(frozen=True)
class Product(Formula):
    """Factors with a sign between them: a dot, a ring for products element by element, or none."""

    factors: tuple[Formula, ...]
    sign: str = "·"

    level = PRODUCT

    def _parts(self, form: str) -> list[str]:
        *first, last = self.factors
        # A sum with Σ reaches as far as it can: it stands last, or in brackets.
        return [
            *(_within(f, form, ATOM if isinstance(f, Total) else PRODUCT) for f in first),
            _within(last, form, PRODUCT),
        ]

    def unicode(self) -> str:
        sign = f" {self.sign} " if self.sign == "∘" else self.sign
        first, *others = self._parts("unicode")
        return beside(first, *(part for factor in others for part in (sign or " ", factor)))

    def tex(self) -> str:
        return {"·": r" \cdot ", "∘": r" \circ ", "": r"\,"}[self.sign].join(self._parts("tex"))

    def content(self) -> str:
        sign = self.sign or "\N{INVISIBLE TIMES}"
        return f"<mo>{sign}</mo>".join(self._parts("content"))


@dataclass(frozen=True)
class Quotient(Formula):
    """A fraction; in Unicode with a slash."""

    above: Formula
    below: Formula

    level = PRODUCT

    def unicode(self) -> str:
        below = _within(self.below, "unicode", PRODUCT if isinstance(self.below, Total) else ATOM)
        return beside(_within(self.above, "unicode", PRODUCT), "/", below)

    def tex(self) -> str:
        return rf"\frac{{{self.above.tex()}}}{{{self.below.tex()}}}"

    def content(self) -> str:
        return f"<mfrac>{_row(self.above)}{_row(self.below)}</mfrac>"


def _row(inner: Formula) -> str:
    return f"<mrow>{inner.content()}</mrow>"


@dataclass(frozen=True)
class Power(Formula):
    """A power; T as the exponent stands for the transpose."""

    base: Formula
    exponent: Formula

    def unicode(self) -> str:
        exponent = self.exponent.unicode()
        raised = exponent.translate(_RAISED) if set(exponent) <= set("0123456789T") else f"^{exponent}"
        return beside(_within(self.base, "unicode", ATOM), raised)

    def tex(self) -> str:
        exponent = r"\mathsf T" if self.exponent == TRANSPOSE else self.exponent.tex()
        return f"{_within(self.base, 'tex', ATOM)}^{{{exponent}}}"

    def content(self) -> str:
        return f"<msup><mrow>{_within(self.base, 'content', ATOM)}</mrow>{_row(self.exponent)}</msup>"


TRANSPOSE = Symbol("T")


@dataclass(frozen=True)
class Exponential(Formula):
    """e to a power; in Unicode exp, as powers are hard to read there."""

    exponent: Formula

    def unicode(self) -> str:
        return beside("exp(", self.exponent.unicode(), ")")

    def tex(self) -> str:
        return f"e^{{{self.exponent.tex()}}}"

    def content(self) -> str:
        return f"<msup><mi>e</mi>{_row(self.exponent)}</msup>"


@dataclass(frozen=True)
class Subscript(Formula):
    """A formula with an index."""

    base: Formula
    index: Formula

    def unicode(self) -> str:
        index = self.index.unicode()
        return self.base.unicode() + (index.translate(_LOWERED) if index.isdecimal() else f"_{index}")

    def tex(self) -> str:
        return f"{self.base.tex()}_{{{self.index.tex()}}}"

    def content(self) -> str:
        return f"<msub><mrow>{self.base.content()}</mrow>{_row(self.index)}</msub>"


_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_RAISED = str.maketrans("0123456789T", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵀ")


@dataclass(frozen=True)
class Applied(Formula):
    """A function of something. The logarithm of a single symbol needs no brackets."""

    function: Formula
    arguments: tuple[Formula, ...]

    @property
    def level(self) -> int:  # type: ignore[override]
        return PRODUCT if self._bare else ATOM

    @property
    def _bare(self) -> bool:
        bare = self.function in (Symbol("log"), Symbol("max")) and len(self.arguments) == 1
        return bare and (self.arguments[0].level == ATOM or isinstance(self.arguments[0], Total))

    def unicode(self) -> str:
        if self._bare:
            return f"{self.function} {self.arguments[0]}"
        return f"{self.function}({', '.join(map(str, self.arguments))})"

    def tex(self) -> str:
        inner = ", ".join(argument.tex() for argument in self.arguments)
        if self._bare:
            return f"{self.function.tex()} {inner}"
        return self.function.tex() + _bracketed(inner, "tex")

    def content(self) -> str:
        inner = "<mo>,</mo>".join(argument.content() for argument in self.arguments)
        inner = inner if self._bare else _bracketed(inner, "content")
        return f"{self.function.content()}<mo>\N{FUNCTION APPLICATION}</mo>{inner}"


@dataclass(frozen=True)
class Total(Formula):
    """Σ over an index, or over all that there is."""

    term: Formula
    index: str = ""

    level = PRODUCT

    def unicode(self) -> str:
        return f"Σ{f'_{self.index}' if self.index else ''} {_within(self.term, 'unicode', PRODUCT)}"

    def tex(self) -> str:
        index = f"_{{{self.index}}}" if self.index else ""
        return rf"\sum{index} {_within(self.term, 'tex', PRODUCT)}"

    def content(self) -> str:
        sign = f"<munder><mo>∑</mo><mi>{self.index}</mi></munder>" if self.index else "<mo>∑</mo>"
        return f"{sign}{_within(self.term, 'content', PRODUCT)}"


@dataclass(frozen=True)
class Differential(Formula):
    """The upper or the lower part of a derivative."""

    of: Formula
    sign: str = "∂"

    def _part(self, form: str) -> str:
        return _within(self.of, form, PRODUCT if isinstance(self.of, Applied) else ATOM)

    def unicode(self) -> str:
        return f"{self.sign}{' ' if self.sign == 'd' and isinstance(self.of, Applied) else ''}{self._part('unicode')}"

    def tex(self) -> str:
        return f"{LATEX.get(self.sign, self.sign)} {self._part('tex')}"

    def content(self) -> str:
        return f"<mo>{self.sign}</mo>{self._part('content')}"


def derivative(above: Operand, below: Operand, sign: str = "∂") -> Formula:
    """The derivative of one thing by another: partial, or with d where there is one variable."""
    return Quotient(Differential(formula(above), sign), Differential(formula(below), sign))


@dataclass(frozen=True)
class Bracketed(Formula):
    """A formula in square brackets."""

    inner: Formula

    def unicode(self) -> str:
        return beside("[", self.inner.unicode(), "]")

    def tex(self) -> str:
        return rf"\left[{self.inner.tex()}\right]"

    def content(self) -> str:
        return f"<mrow><mo>[</mo>{self.inner.content()}<mo>]</mo></mrow>"


@dataclass(frozen=True)
class Relation(Formula):
    """Formulas with the same sign between them: =, ≠, ≈, ← or →."""

    sides: tuple[Formula, ...]
    sign: str = "="

    level = RELATION

    def unicode(self) -> str:
        first, *others = (side.unicode() for side in self.sides)
        return beside(first, *(part for side in others for part in (f" {self.sign} ", side)))

    def tex(self) -> str:
        sign = LATEX.get(self.sign, self.sign)
        return f" {sign} ".join(side.tex() for side in self.sides)

    def content(self) -> str:
        return f"<mo>{self.sign}</mo>".join(side.content() for side in self.sides)


def equal(*sides: Operand) -> Relation:
    """Formulas that are equal."""
    return Relation(tuple(map(formula, sides)))


@dataclass(frozen=True)
class Several(Formula):
    """Formulas one after the other, with commas; or, after a label, with a colon."""

    parts: tuple[Formula, ...]
    sign: str = ","

    level = RELATION

    def unicode(self) -> str:
        return beside(*_between([part.unicode() for part in self.parts], f"{self.sign}  "))

    def tex(self) -> str:
        return rf"{self.sign}\quad ".join(part.tex() for part in self.parts)

    def content(self) -> str:
        return f'<mo>{self.sign}</mo><mspace width="1em"></mspace>'.join(part.content() for part in self.parts)


def _between(parts: list[str], sign: str) -> list[str]:
    return [text for part in parts for text in (part, sign)][:-1]


def several(*parts: Operand) -> Several:
    """Formulas with commas between them."""
    return Several(tuple(map(formula, parts)))


def labelled(label: Operand, *parts: Operand) -> Several:
    """A formula after a label and a colon."""
    return Several((formula(label), several(*parts) if len(parts) > 1 else formula(parts[0])), ":")


@dataclass(frozen=True)
class Cases(Formula):
    """Formulas, each with the condition under which it holds."""

    cases: tuple[tuple[Formula, Formula], ...]

    level = RELATION

    def unicode(self) -> str:
        return ",  ".join(f"{value}  if {condition}" for value, condition in self.cases)

    def tex(self) -> str:
        lines = (rf"{value.tex()} & \text{{if }} {condition.tex()}" for value, condition in self.cases)
        body = r" \\ ".join(lines)
        return rf"\begin{{cases}}{body}\end{{cases}}"

    def content(self) -> str:
        rows = (
            f"<mtr><mtd>{value.content()}</mtd><mtd><mtext>if </mtext>{condition.content()}</mtd></mtr>"
            for value, condition in self.cases
        )
        return f"<mrow><mo>{{</mo><mtable>{''.join(rows)}</mtable></mrow>"


@dataclass(frozen=True)
class Arrow(Formula):
    """An arrow with a word above it, to the right or back to the left."""

    word: str
    back: bool = False

    def unicode(self) -> str:
        return f"◀─ {self.word} ──" if self.back else f"── {self.word} ─▶"

    def tex(self) -> str:
        return rf"\x{'left' if self.back else 'right'}arrow{{\text{{{latex_words(self.word)}}}}}"

    def content(self) -> str:
        return f"<mover><mo>{'←' if self.back else '→'}</mo><mtext>{escape(self.word)}</mtext></mover>"


@dataclass(frozen=True)
class Matrix(Formula):
    """A matrix, or a drawing in rows and columns without brackets; in Unicode it takes a line for each row."""

    rows: tuple[tuple[Formula, ...], ...]
    brackets: bool = True

    def unicode(self) -> str:
        texts = [[str(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = ["  ".join(text.center(width) for text, width in zip(row, widths, strict=True)) for row in texts]
        if not self.brackets:
            return "\n".join(line.rstrip() for line in lines)
        if len(lines) == 1:
            return f"[{lines[0]}]"
        edges = [("⎡", "⎤"), *[("⎢", "⎥")] * (len(lines) - 2), ("⎣", "⎦")]
        return "\n".join(f"{left}{line}{right}" for (left, right), line in zip(edges, lines, strict=True))

    def tex(self) -> str:
        lines = r" \\ ".join(" & ".join(cell.tex() for cell in row) for row in self.rows)
        kind = "bmatrix" if self.brackets else "matrix"
        return rf"\begin{{{kind}}}{lines}\end{{{kind}}}"

    def content(self) -> str:
        rows = "".join(f"<mtr>{''.join(f'<mtd>{cell.content()}</mtd>' for cell in row)}</mtr>" for row in self.rows)
        table = f"<mtable>{rows}</mtable>"
        return f"<mrow><mo>[</mo>{table}<mo>]</mo></mrow>" if self.brackets else table


def row_vector(*cells: Operand) -> Matrix:
    """A matrix of one row."""
    return Matrix((tuple(map(formula, cells)),))


def column_vector(*cells: Operand) -> Matrix:
    """A matrix of one column."""
    return Matrix(tuple((formula(cell),) for cell in cells))
