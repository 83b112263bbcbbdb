"""Formulas as trees. `_unicode`, `_latex` and `_mathml` write them."""

from dataclasses import dataclass

from ._notation import number

# How tightly a formula holds together: what stands in a tighter place gets brackets.
RELATION, SUM, PRODUCT, POWER, ATOM = range(5)


@dataclass(frozen=True)
class Formula:
    """A formula. Sums, products, quotients, powers and indices are written as Python writes them."""

    @property
    def level(self) -> int:
        """How tightly it holds together."""
        match self:
            case Relation() | Several() | Cases():
                return RELATION
            case Sum():
                return SUM
            case Number(text) if text.startswith("−"):
                return SUM
            case Number(text) if "e" in text:  # times a power of ten
                return PRODUCT
            case Product() | Quotient() | Total():
                return PRODUCT
            case Applied() if self.bare:
                return PRODUCT
            case Marked(part):
                return part.level
            case Power() | Exponential():
                return POWER
        return ATOM

    def unicode(self) -> str:
        """One line for a terminal; several where there is a matrix."""
        from ._unicode import unicode

        return unicode(self)

    def tex(self) -> str:
        """LaTeX's mathematics; it needs amsmath."""
        from ._latex import latex

        return latex(self)

    def mathml(self, *, block: bool = False) -> str:
        """The element `math`, in a line of text or as a block."""
        from ._mathml import mathml

        return mathml(self, block=block)

    def __str__(self) -> str:
        return self.unicode()

    def __add__(self, other: "Operand") -> "Formula":
        return Sum((*_terms(self), (False, formula(other))))

    def __radd__(self, other: "Operand") -> "Formula":
        return formula(other) + self

    def __sub__(self, other: "Operand") -> "Formula":
        return Sum((*_terms(self), (True, formula(other))))

    def __rsub__(self, other: "Operand") -> "Formula":
        return formula(other) - self

    def __neg__(self) -> "Formula":
        return Sum(((True, self),))

    def __mul__(self, other: "Operand") -> "Formula":
        factors = self.factors if isinstance(self, Product) and self.sign == "·" else (self,)
        return Product((*factors, formula(other)))

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


# What stands alone.


@dataclass(frozen=True)
class Symbol(Formula):
    """A letter, or the name of a function or quantity, with primes."""

    name: str


@dataclass(frozen=True)
class Number(Formula):
    """A number as `number` writes it."""

    text: str


@dataclass(frozen=True)
class Words(Formula):
    """Words in a formula's place."""

    text: str


@dataclass(frozen=True)
class Slot(Formula):
    """A place for a number that a page fills in, by its name."""

    name: str


@dataclass(frozen=True)
class Arrow(Formula):
    """An arrow with what it stands for above it, to the right or back to the left."""

    label: Formula
    back: bool = False


# What is made of others.


@dataclass(frozen=True)
class Marked(Formula):
    """A part that a page can light up, by its name."""

    part: Formula
    name: str


@dataclass(frozen=True)
class Sum(Formula):
    """Terms, each with whether it is subtracted."""

    terms: tuple[tuple[bool, Formula], ...]

    @property
    def signed(self) -> list[tuple[str, Formula, int]]:
        """Each term with its sign, none before a first one that is added, and the level that it needs."""
        return [
            ("−" if minus else "+" if i else "", term, PRODUCT if i or minus else SUM)
            for i, (minus, term) in enumerate(self.terms)
        ]


def _terms(inner: Formula) -> tuple[tuple[bool, Formula], ...]:
    return inner.terms if isinstance(inner, Sum) else ((False, inner),)


@dataclass(frozen=True)
class Product(Formula):
    """Factors with a sign between them: a dot, a ring for products element by element, a cross, or none."""

    factors: tuple[Formula, ...]
    sign: str = "·"

    @property
    def levelled(self) -> list[tuple[Formula, int]]:
        """Each factor with the level that it needs. A sum with Σ reaches as far as it can: last, or in brackets."""
        *first, last = self.factors
        return [*((f, ATOM if isinstance(f, Total) else PRODUCT) for f in first), (last, PRODUCT)]


@dataclass(frozen=True)
class Quotient(Formula):
    """A fraction."""

    above: Formula
    below: Formula


@dataclass(frozen=True)
class Power(Formula):
    """A power; the symbol T as its exponent stands for the transpose."""

    base: Formula
    exponent: Formula


@dataclass(frozen=True)
class Exponential(Formula):
    """Euler's number to a power."""

    exponent: Formula


@dataclass(frozen=True)
class Subscript(Formula):
    """A formula with an index."""

    base: Formula
    index: Formula


@dataclass(frozen=True)
class Applied(Formula):
    """A function of something."""

    function: Formula
    arguments: tuple[Formula, ...]

    @property
    def bare(self) -> bool:
        """Whether it needs no brackets: the logarithm or the largest of one thing."""
        bare = self.function in (Symbol("log"), Symbol("max")) and len(self.arguments) == 1
        return bare and (self.arguments[0].level == ATOM or isinstance(self.arguments[0], Total))


@dataclass(frozen=True)
class Total(Formula):
    """Σ over an index, or over all that there is."""

    term: Formula
    index: str = ""


@dataclass(frozen=True)
class Differential(Formula):
    """The upper or the lower part of a derivative."""

    of: Formula
    sign: str = "∂"

    @property
    def needs(self) -> int:
        """The level that the inner formula needs."""
        return PRODUCT if isinstance(self.of, Applied) else POWER


@dataclass(frozen=True)
class Bracketed(Formula):
    """A formula in square brackets."""

    inner: Formula


@dataclass(frozen=True)
class Relation(Formula):
    """Formulas with the same sign between them: =, ≠, ≈, ← or →."""

    sides: tuple[Formula, ...]
    sign: str = "="


@dataclass(frozen=True)
class Several(Formula):
    """Formulas one after the other, with commas; or, after a label, with a colon."""

    parts: tuple[Formula, ...]
    sign: str = ","


@dataclass(frozen=True)
class Cases(Formula):
    """Formulas, each with the condition under which it holds."""

    cases: tuple[tuple[Formula, Formula], ...]


@dataclass(frozen=True)
class Matrix(Formula):
    """A matrix, or a drawing in rows and columns without brackets."""

    rows: tuple[tuple[Formula, ...], ...]
    brackets: bool = True


TRANSPOSE = Symbol("T")


def equal(*sides: Operand) -> Relation:
    """Formulas that are equal."""
    return Relation(tuple(map(formula, sides)))


def several(*parts: Operand) -> Several:
    """Formulas with commas between them."""
    return Several(tuple(map(formula, parts)))


def labelled(label: Operand, part: Operand) -> Several:
    """A formula after a label and a colon."""
    return Several((formula(label), formula(part)), ":")


def derivative(above: Operand, below: Operand, sign: str = "∂") -> Formula:
    """The derivative of one thing by another: partial, or with d where there is one variable."""
    return Quotient(Differential(formula(above), sign), Differential(formula(below), sign))


def row_vector(*cells: Operand) -> Matrix:
    """A matrix of one row."""
    return Matrix((tuple(map(formula, cells)),))


def column_vector(*cells: Operand) -> Matrix:
    """A matrix of one column."""
    return Matrix(tuple((formula(cell),) for cell in cells))
