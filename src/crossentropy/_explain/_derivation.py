"""The gradient of one row, derived step by step."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .._arrays import Array
from . import _formulas as f
from ._formulas import num, one_plus, probability
from ._markup import html
from ._numbers import LossNumbers
from ._record import Record
from ._step import Cell, Step, Table
from ._tables import MAX_TERMS, symbols_of, why_none
from ._tree import Formula, Product, Relation, Sum, Symbol, Total, Words, derivative, equal, formula, labelled

MAX_CHAIN = 12  # terms of the chain rule that are written out with their numbers
MAX_WRITTEN = 3  # classes of formulas that are written out


@dataclass(frozen=True, eq=False)
class Derivation(Record):
    """The parts of the gradient of one row's cross-entropy with respect to its logits.

    The logits are taken after soft cap and temperature, the loss before sample weight and z-loss.

    Attributes
    ----------
    row, target_class : int
        The row; the class c for whose logit the chain rule is shown.
    classes : tuple of int
        The K classes of `jacobian`, `ratio` and `product`: all, or where there are many, the ones shown.
    p, b : ndarray of shape (C,)
        The row's softmax and target coefficients.
    jacobian : ndarray of shape (K, K)
        The derivatives of p_k with respect to u_c.
    dlog, terms : ndarray of shape (C,)
        For each k the derivative of log p_k with respect to u_c, and the term -b_k dlog_k of the chain rule.
    ratio, product : ndarray of shape (K,)
        b / p, and minus its product with the Jacobian.
    """

    row: int
    target_class: int
    classes: tuple[int, ...]
    p: Array
    b: Array
    jacobian: Array
    dlog: Array
    terms: Array
    ratio: Array
    product: Array
    _of: LossNumbers = field(repr=False)

    @np.errstate(all="ignore")  # as in `explain`
    def _repr_html_(self) -> str:
        return html(derivation_steps(self._of, self))


def require_index(name: str, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise IndexError(f"{name}: expected an integer in [0, {count}), got {index}")


def derive(x: LossNumbers, row: int, target_class: int | None) -> Derivation:
    """Compute the derivation of a row; for its target where `target_class` is None."""
    N, C = x.logits.shape
    require_index("row", row, N)
    c = int(x.target_classes[row]) if target_class is None else target_class
    require_index("class", c, C)
    classes = tuple(sorted({*x.shown, c}))
    p, b, columns = x.p[row], x.b[row], np.array(classes)
    with np.errstate(all="ignore"):
        jacobian = -p[:, None] * p[columns]
        jacobian[columns, np.arange(len(columns))] = p[columns] * x.rest[row, columns]
        dlog = np.where(np.arange(C) == c, x.rest[row, c], -p[c])
        ratio = np.where(b == 0, 0.0, b / p)
        terms = np.where(b == 0, 0.0, -b * dlog)
        product = -np.where(ratio[:, None] == 0, 0.0, ratio[:, None] * jacobian).sum(0)
    return Derivation(row, c, classes, p, b, jacobian[columns], dlog, terms, ratio[columns], product, x)


def derivation_steps(x: LossNumbers, d: Derivation) -> list[Step]:
    """The derivation as steps: once term by term, once with matrices, and on to the loss."""
    if math.isnan(x.cross[d.row]):
        return [Step(f"Derivation for row {d.row}: none", note=f"The row has no loss: {why_none(x, d.row)}.")]
    column = d.classes.index(d.target_class)
    derivative_of_row = float(d.product[column]) if math.isfinite(d.product[column]) else float(d.terms.sum())
    return [*_by_terms(x, d, derivative_of_row), *_by_matrices(x, d), *_to_the_loss(x, d, derivative_of_row)]


def _class_and_name(x: LossNumbers, c: int) -> str:
    return f"c = {c}" + (f", {x.names[c]}" if x.names[c] != str(c) else "")


def _few(classes: Sequence[int], c: int) -> list[int]:
    """The classes of formulas that are written out: some of many, c among them."""
    return sorted({*[k for k in classes if k != c][: MAX_WRITTEN - 1], c})


def _by_terms(x: LossNumbers, d: Derivation, derivative_of_row: float) -> Iterable[Step]:
    T, u = symbols_of(x).targets, symbols_of(x).logits
    i, c = d.row, d.target_class
    p = {k: probability(x.p[i, k], x.rest[i, k]) for k in d.classes}
    rest, S = num(x.rest[i, c]), one_plus(x.r[i])
    e = {k: num(x.e[i, k]) for k in d.classes}
    few = _few(d.classes, c)
    written = "" if len(few) == len(x.names) else f" Written out for {len(few)} of {len(x.names):,} classes."
    yield Step(
        f"Derivation for row {i}, class {c}: the loss is a sum, and so is its derivative",
        (f.derivative_of_terms(u, T),),
        f"Each term is differentiated alone. The targets do not depend on the logits: each stands before the "
        f"derivative. Here {_class_and_name(x, c)}.{written}",
        lines=(f.terms_of_loss(T, few), f.derivative_of_row(u, T, few, c)),
    )
    yield Step(
        f"Row {i}: the derivative of a logarithm, by the chain rule",
        (f.derivative_of_log(), f.chain_through_softmax(u)),
        ("The chain goes through ", f.SIGMA["k"], ", whose logarithm it is, whichever logit is moved."),
    )
    yield Step(
        f"Row {i}: the derivative of the softmax, by the quotient rule, in two cases",
        (f.quotient_rule(u, same=True), f.quotient_rule(u, same=False)),
        (
            u["c"],
            " stands in ",
            f.sum_of_exponentials(u),
            " always, in the numerator only if ",
            equal("k", "c"),
            ". The first case has the form of the sigmoid's derivative: ",
            f.sigmoid(),
            ". In the numbers every exponent is shifted by m, as above; that cancels.",
        ),
        lines=tuple(
            labelled(
                equal("k", k, "c") if k == c else Relation((equal("k", k), formula("c")), "≠"),
                equal(
                    (e[c] * S - e[c] * e[c]) / S**2 if k == c else (0 * S - e[k] * e[c]) / S**2,
                    p[c] * rest if k == c else -(p[k] * p[c]),
                    num(d.jacobian[j, d.classes.index(c)]),
                ),
            )
            for j, k in enumerate(d.classes)
        ),
    )
    yield Step(
        f"Row {i}: divided by the softmax",
        (f.derivative_of_log_softmax(u),),
        "The division cancels a factor: this is why softmax and logarithm belong together.",
        lines=tuple(
            equal(
                derivative(f.LOG(f.SIGMA[k]), u[c]),
                num(d.jacobian[j, d.classes.index(c)]) / p[k],
                *((1 - p[c],) if k == c else ()),
                num(d.dlog[k]),
            )
            for j, k in enumerate(d.classes)
            if x.p[i, k] > 0
        ),
    )
    with_term = [k for k in range(len(x.names)) if len(x.names) <= MAX_TERMS or d.b[k] != 0]
    chain: list[Formula] = [
        labelled(
            equal("k", k), equal(-(num(d.b[k]) * Sum(((False, formula(int(k == c))), (True, p[c])))), num(d.terms[k]))
        )
        for k in with_term[:MAX_CHAIN]
    ]
    if len(with_term) > MAX_CHAIN:
        chain.append(Words(f"… and {len(with_term) - MAX_CHAIN:,} terms more"))
    sums_to_one = abs(x.B[i] - 1) < 1e-12
    yield Step(
        f"Row {i}: the terms put together",
        (f.combined(u, T), *((f.gradient_of_row(u, T),) if sums_to_one else ())),
        (f.DELTA["kc"], " is 1 if ", equal("k", "c"), ", else 0. ", _about_the_sum(x, i, T)),
        lines=(
            *chain,
            equal(Words("sum"), num(d.terms.sum())),
            equal(f.SIGMA[c] * Total(T) - T[c], p[c] * num(x.B[i]) - num(d.b[c]), num(derivative_of_row)),
        ),
    )


def _about_the_sum(x: LossNumbers, i: int, T: Formula) -> str:
    B = num(x.B[i])
    if abs(x.B[i] - 1) < 1e-12:
        return f"The targets of this row sum to 1: the result is σ − {T}."
    return f"The targets of this row sum to {B}, so {B} stands before σ."


def _by_matrices(x: LossNumbers, d: Derivation) -> Iterable[Step]:
    T, u = symbols_of(x).targets, symbols_of(x).logits
    i, c = d.row, d.target_class
    names = tuple(x.names[k] for k in d.classes)
    few = list(range(len(x.names))) if len(x.names) < MAX_WRITTEN else list(range(MAX_WRITTEN))
    for_few = "" if len(few) == len(x.names) else f" Written out as for {len(few)} classes."

    def row_of(values: Iterable[float]) -> tuple[Cell, ...]:
        return tuple(Cell(num(value), strong=k == c) for k, value in zip(d.classes, values, strict=True))

    yield Step(
        f"Row {i} once more, with matrices: a vector by a vector",
        (f.softmax_as_vector(u, few),),
        "Every output depends on every input, as S has them all. So the derivative of the vector 𝐚 by the vector of "
        f"the logits is a matrix; that of a number by a vector is a vector.{for_few}",
    )
    yield Step(
        f"Row {i}: the Jacobian",
        (f.jacobian(u, few),),
        "All derivatives of the softmax: σ·(1 − σ) on the diagonal, minus the product of two elsewhere. It is "
        f"symmetric, and every column sums to 0 over all classes.{for_few}",
        Table(names, names, tuple(row_of(row) for row in d.jacobian)),
    )
    yield Step(
        f"Row {i}: the derivative of the loss by the softmax",
        (f.loss_by_softmax(few),),
        (
            "A number by a vector: a vector, here a row. ",
            f"𝐲 is the row of {T}. " if T != f.Y else "𝐲 is the row of the targets. ",
            "Of a one-hot row only one entry is not 0.",
            " Where σ = 0 the quotient does not exist, but the result does." if (x.p[i] == 0).any() else "",
            for_few,
        ),
        Table(names, (derivative(f.ELL, f.a),), (row_of(-d.ratio),)),
    )
    shown = list(d.classes)
    b = d.b[shown]
    yield Step(
        f"Row {i}: the row times the Jacobian",
        f.row_times_jacobian(u, few),
        (
            "Each entry of the product is a sum over the classes, and in each of its terms a factor cancels. ",
            _about_the_sum(x, i, T),
            for_few,
        ),
        Table(
            names,
            (
                Product((derivative(f.ELL, f.a), f.J), ""),
                Total(T) * f.SIGMA - T,
            ),
            (row_of(d.product), row_of((x.B[i] - b) * d.p[shown] - b * x.rest[i, shown])),
        ),
    )


def _to_the_loss(x: LossNumbers, d: Derivation, derivative_of_row: float) -> Iterable[Step]:
    """The step from the derivative of the row's cross-entropy to that of the loss, with all its options."""
    i, c, options, symbols = d.row, d.target_class, x.options, symbols_of(x)
    if x.s[i] == 0:
        yield Step(
            f"Row {i} does not count", (equal(derivative(f.L, f.A["c"]), 0),), "Its loss and its gradient are 0."
        )
        return
    if options.reduction == "mean" and x.total_weight == 0:
        yield Step(
            "Nothing counts in the mean",
            (equal(derivative(f.L, f.A["c"]), 0),),
            "The weights that it divides by are all 0: it is 0 by definition, and so is its gradient.",
        )
        return
    of_row = derivative(f.ELL, symbols.logits["c"])
    general, numbers = of_row, num(derivative_of_row)
    if options.z_loss > 0:
        factor = 2 * f.ZETA * Symbol("w") if x.omega[i] != 1 else 2 * f.ZETA
        general = general + factor * f.LSE * f.SIGMA["c"]
        numbers = numbers + num(2 * options.z_loss * x.omega[i] * x.lse[i]) * probability(x.p[i, c], x.rest[i, c])
    if symbols.scaled:
        general, numbers = general * f.SLOPE["c"], numbers * num(x.slope[i, c])
    if x.s[i] != 1:
        general, numbers = Symbol("s") * general, num(x.s[i]) * numbers
    if options.reduction == "mean" and x.total_weight != 1:
        general, numbers = general / f.N, numbers / num(x.total_weight)
    if general != of_row:
        yield Step(
            f"Row {i}: from its derivative to that of the loss",
            (equal(derivative(f.L, f.A["c"]), general),),
            f"As in the gradient above, at row {i} and {_class_and_name(x, c)}.",
            lines=(equal(numbers, num(x.dlogits[i, c])),),
        )
