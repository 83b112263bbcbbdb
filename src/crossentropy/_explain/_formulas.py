"""The formulas of the loss, as they stand in the lesson, its chapter and the live page. Classes count from 0."""

from collections.abc import Sequence

from ._notation import number
from ._tree import (
    TRANSPOSE,
    Arrow,
    Bracketed,
    Cases,
    Exponential,
    Formula,
    Matrix,
    Number,
    Operand,
    Product,
    Quotient,
    Relation,
    Several,
    Sum,
    Symbol,
    Total,
    Words,
    column_vector,
    derivative,
    equal,
    formula,
    row_vector,
    several,
)

A, Y, H, L, N, C, J = map(Symbol, "AYHLNCJ")
a, y = Symbol("𝐚"), Symbol("𝐲")  # the softmax and the targets of one row, as vectors
SIGMA, ELL, IOTA, DELTA = map(Symbol, "σℓιδ")
SHIFT, S, LSE, SCE, MEAN = map(Symbol, ("m", "S", "lse", "SCE", "mean"))  # L is the loss: SCE, the sum, or the mean
LOG, MAX, TANH, SECH = map(Symbol, ("log", "max", "tanh", "sech"))
SLOPE = Symbol("u′")
EPSILON, ZETA, TAU, CAP, ETA = Symbol("ε"), Symbol("ζ"), Symbol("τ"), Symbol("k"), Symbol("η")


def symbol(name: str) -> Formula:
    """A letter that stands for itself."""
    return Symbol(name)


def exponential(exponent: Operand) -> Formula:
    """Euler's number to a power."""
    return Exponential(formula(exponent))


def of_logits(loss: Formula) -> Formula:
    """The derivative by the logits."""
    return derivative(loss, A)


def num(x: float) -> Formula:
    """A number, written as `number` writes it."""
    return Number(number(x))


def probability(p: float, rest: float) -> Formula:
    """A probability. One that would be printed as 1 is written as 1 minus the rest."""
    return 1 - num(rest) if 0 < rest < 5e-5 else num(p)


def one_plus(r: float) -> Formula:
    """The sum 1 + r. It is left as a sum where r is too small to show in four decimals."""
    return 1 + num(r) if 0 < r < 5e-5 else num(1 + r)


# Forward.


def drawing(rows: int | str, classes: int | str) -> Formula:
    """What is computed from what, its shape, and the way back."""
    nothing, scalar = Words(""), Words("scalar")
    of_logits, of_losses = (Product((formula(rows), formula(columns)), "×") for columns in (classes, 1))
    cross_entropy, reduction = Arrow(-(Y * LOG(SIGMA))), Arrow(Words("sum, mean"))
    of_softmax, of_cross_entropy = Arrow(J, back=True), Arrow(-(Y / SIGMA), back=True)
    of_reduction = Arrow(Several((formula(1), 1 / N)), back=True)
    return Matrix(
        (
            (A, Arrow(Words("softmax")), SIGMA(A), cross_entropy, H, reduction, L),
            (of_logits, nothing, of_logits, nothing, of_losses, nothing, scalar),
            (
                *(derivative(L, A), of_softmax, derivative(L, SIGMA), of_cross_entropy),
                *(derivative(L, H), of_reduction, formula(1)),
            ),
        ),
        brackets=False,
    )


def softmax(u: Formula) -> Formula:
    return equal(SIGMA(u)["c"], Quotient(Exponential(u["c"]), Total(Exponential(u["k"]), "k")))


def shifted_softmax(u: Formula) -> Formula:
    """The softmax with each row's maximum subtracted, which changes nothing."""
    e_c, e_k = Exponential(u["c"] - SHIFT), Exponential(u["k"] - SHIFT)
    return several(equal(SIGMA(u)["c"], Quotient(e_c, Total(e_k, "k"))), equal(SHIFT, MAX(u)))


def softmax_of_exponentials(u: Formula) -> Formula:
    return equal(SIGMA["c"], SIGMA(u)["c"], Symbol("e")["c"] / S)


def minus_log_softmax(u: Formula) -> Formula:
    return equal(-LOG(SIGMA["c"]), LOG(S) - (u["c"] - SHIFT))


def cross_entropy(targets: Formula) -> Formula:
    """The loss of one row."""
    return equal(ELL, -Total(targets["c"] * LOG(SIGMA["c"]), "c"))


def cross_entropies(u: Formula, targets: Formula) -> Formula:
    """The losses of all rows, as a column."""
    return equal(H(u, targets), -Product((targets, LOG(SIGMA(u))), "∘") * IOTA["C"])


def sum_of_losses() -> Formula:
    return equal(SCE, IOTA["N"] ** TRANSPOSE * H, Total(ELL))


def mean_of_losses() -> Formula:
    return equal(MEAN, SCE / N)


# Backward, by terms.


def terms_of_loss(targets: Formula, classes: Sequence[int]) -> Formula:
    """The loss of one row, written out."""
    return equal(ELL, Sum(tuple((True, targets[k] * LOG(SIGMA[k])) for k in classes)))


def derivative_of_terms(u: Formula, targets: Formula) -> Formula:
    """The targets do not depend on the logits, so they stand before the derivative."""
    of_log = derivative(LOG(SIGMA["k"]), u["c"])
    inside = derivative(targets["k"] * LOG(SIGMA["k"]), u["c"])
    return equal(derivative(ELL, u["c"]), -Total(inside, "k"), -Total(targets["k"] * of_log, "k"))


def derivative_of_row(u: Formula, targets: Formula, classes: Sequence[int], c: int) -> Formula:
    """The same with all its terms, for one logit."""
    terms = tuple((True, targets[k] * derivative(LOG(SIGMA[k]), u[c])) for k in classes)
    return equal(derivative(ELL, u[c]), Sum(terms))


def derivative_of_log() -> Formula:
    return equal(derivative(LOG(Symbol("x")), "x", "d"), 1 / Symbol("x"))


def chain_through_softmax(u: Formula) -> Formula:
    """The logarithm of σ_k depends on the logit through σ_k, whichever logit it is."""
    return equal(derivative(LOG(SIGMA["k"]), u["c"]), 1 / SIGMA["k"] * derivative(SIGMA["k"], u["c"]))


def quotient_rule(u: Formula, *, same: bool) -> Formula:
    """The derivative of e_k/S by the logit of class c, for k = c or another k."""
    e_c, e_k = Exponential(u["c"]), Exponential(u["k"])
    if same:
        return equal(
            derivative(SIGMA["c"], u["c"]),
            (e_c * S - e_c * e_c) / S**2,
            e_c / S * ((S - e_c) / S),
            SIGMA["c"] * (1 - SIGMA["c"]),
        )
    return equal(
        derivative(SIGMA["k"], u["c"]),
        (0 * S - e_k * e_c) / S**2,
        -(e_k / S * (e_c / S)),
        -(SIGMA["k"] * SIGMA["c"]),
    )


def sum_of_exponentials(u: Formula) -> Formula:
    return equal(S, Total(Exponential(u["j"]), "j"))


def sigmoid() -> Formula:
    """The softmax of two classes, the other's logit being 0, and its derivative."""
    x, s = Symbol("x"), Symbol("s")
    return several(
        equal(s(x), 1 / (1 + Exponential(-x))),
        equal(derivative(s, x, "d"), s * (1 - s)),
    )


def derivative_of_log_softmax(u: Formula) -> Formula:
    is_target, is_other = equal("k", "c"), Relation((Symbol("k"), Symbol("c")), "≠")
    cases = Cases(((1 - SIGMA["c"], is_target), (-SIGMA["c"], is_other)))
    return equal(derivative(LOG(SIGMA["k"]), u["c"]), cases)


def combined(u: Formula, targets: Formula) -> Formula:
    """The gradient of one row, for targets of any sum."""
    return equal(
        derivative(ELL, u["c"]),
        -Total(targets["k"] * (DELTA["kc"] - SIGMA["c"]), "k"),
        SIGMA["c"] * Total(targets["k"], "k") - targets["c"],
    )


def gradient_of_row(u: Formula, targets: Formula) -> Formula:
    """What is left where the targets sum to 1."""
    return equal(derivative(ELL, u["c"]), SIGMA["c"] - targets["c"])


# Backward, by matrices. The row's softmax is the vector a, its targets the vector y.


def _entries(name: str, classes: Sequence[int]) -> list[Formula]:
    return [Symbol(name)[k] for k in classes]


def softmax_as_vector(u: Formula, classes: Sequence[int]) -> Formula:
    """Every output depends on every input: S has them all."""
    outputs = [Exponential(u[k]) / S for k in classes]
    return Relation(
        (
            column_vector(*(u[k] for k in classes)),
            equal(
                column_vector(*outputs), column_vector(*_entries("a", classes)), column_vector(*_entries("ŷ", classes))
            ),
        ),
        "→",
    )


def _jacobian_entries(classes: Sequence[int]) -> Matrix:
    entries = _entries("a", classes)
    return Matrix(
        tuple(tuple(p * (1 - p) if i == j else -(p * o) for j, o in enumerate(entries)) for i, p in enumerate(entries))
    )


def jacobian(u: Formula, classes: Sequence[int]) -> Formula:
    return equal(J, derivative(a, u), _jacobian_entries(classes))


def _ratios(classes: Sequence[int]) -> Matrix:
    return row_vector(*(t / p for t, p in zip(_entries("y", classes), _entries("a", classes), strict=True)))


def loss_by_softmax(classes: Sequence[int]) -> Formula:
    """A number by a vector: a vector."""
    return equal(derivative(ELL, a), -_ratios(classes))


def row_times_jacobian(u: Formula, classes: Sequence[int]) -> tuple[Formula, ...]:
    """The chain rule with matrices, carried out."""
    first, *others = _entries("y", classes)
    total = sum(others, first)
    whole = derivative(ELL, u)
    return (
        equal(whole, Product((derivative(ELL, a), derivative(a, u)), "")),
        equal(whole, -Product((_ratios(classes), _jacobian_entries(classes)), "")),
        equal(derivative(ELL, u["i"]), -Bracketed(Symbol("y")["i"] - Symbol("a")["i"] * total)),
        equal(whole, Total(y) * a - y),
    )
