"""The gradient of one row, derived step by step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .._arrays import Array
from ._markup import html
from ._notation import bracketed, factor, number, probability, sub
from ._numbers import LossNumbers
from ._record import Record
from ._step import Cell, Step, Table
from ._tables import MAX_TERMS, symbols_of, why_none

MAX_CHAIN = 12  # terms of the chain rule that are written out


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


def _class_and_name(x: LossNumbers, c: int) -> str:
    return f"c = {c}" + (f", {x.names[c]}" if x.names[c] != str(c) else "")


def derivation_steps(x: LossNumbers, d: Derivation) -> list[Step]:
    """The derivation as steps, the chain rule term by term."""
    symbols = symbols_of(x)
    T, u = symbols.targets, symbols.logits
    i, c = d.row, d.target_class
    if math.isnan(x.cross[i]):
        return [Step(f"Derivation for row {i}: none", note=f"The row has no loss: {why_none(x, i)}.")]
    names = tuple(x.names[k] for k in d.classes)
    p = {k: bracketed(probability(x.p[i, k], x.rest[i, k])) for k in d.classes}
    rest = number(x.rest[i, c])
    column = d.classes.index(c)
    B = number(x.B[i])

    def row_of(values: Iterable[float]) -> tuple[Cell, ...]:
        return tuple(Cell(number(value), strong=k == c) for k, value in zip(d.classes, values, strict=True))

    cases = [
        f"k = {k} = c:  σ{sub(c)}·(1 − σ{sub(c)}) = {p[c]}·{rest} = {number(d.jacobian[column, column])}"
        if k == c
        else f"k = {k} ≠ c:  −σ{sub(c)}·σ{sub(k)} = −{p[c]}·{p[k]} = {number(d.jacobian[j, column])}"
        for j, k in enumerate(d.classes)
    ]
    with_term = [k for k in range(len(x.names)) if len(x.names) <= MAX_TERMS or d.b[k] != 0]
    chain = [
        f"k = {k}:  −{factor(d.b[k])}·" + (f"(1 − {p[c]})" if k == c else f"(0 − {p[c]})") + f" = {number(d.terms[k])}"
        for k in with_term[:MAX_CHAIN]
    ]
    if len(with_term) > MAX_CHAIN:
        chain.append(f"… and {len(with_term) - MAX_CHAIN:,} terms more")
    derivative = float(d.product[column]) if math.isfinite(d.product[column]) else float(d.terms.sum())
    shown = list(d.classes)
    b = d.b[shown]
    closed_form = f"(Σ {T})·σ{sub(c)} − {T}{sub(c)} = {factor(x.B[i])}·{p[c]} − {factor(d.b[c])}"
    table = Table(
        names,
        (f"{T}/σ", f"−({T}/σ)ᵀJ", f"(Σ {T})·σ − {T}"),
        (row_of(d.ratio), row_of(d.product), row_of((x.B[i] - b) * d.p[shown] - b * x.rest[i, shown])),
    )
    sums_to_one = abs(x.B[i] - 1) < 1e-12
    return [
        Step(
            f"Derivation for row {i}: the derivative of the softmax has two cases",
            f"∂σ_k/∂{u}_c = σ_c·(1 − σ_c)  if k = c,  −σ_c·σ_k  if k ≠ c",
            f"σ_k = e_k/S, and {u}_c stands in S always, in e_k only if k = c: the quotient rule gives two cases. Here "
            + _class_and_name(x, c)
            + ".",
            lines=tuple(cases),
        ),
        Step(
            f"Row {i}: the Jacobian",
            f"J_kc = ∂σ_k/∂{u}_c",
            "All of these derivatives: symmetric, and every column sums to 0 over all classes.",
            Table(names, names, tuple(row_of(row) for row in d.jacobian)),
        ),
        Step(
            f"Row {i}: the chain rule, term by term",
            f"∂ℓ/∂{u}_c = −Σ {T}_k·∂log σ_k/∂{u}_c,  ∂log σ_k/∂{u}_c = J_kc/σ_k = (1 if k = c, else 0) − σ_c",
            "The division by σ_k cancels: this is why softmax and logarithm belong together. The terms add up to "
            "σ_c − Y_c wherever the targets sum to 1.",
            lines=(
                *chain,
                f"sum = {number(d.terms.sum())}",
                f"{closed_form} = {number(derivative)}",
            ),
        ),
        Step(
            f"Row {i}: the same as a product of matrices",
            f"∂ℓ/∂{u} = −({T}/σ)ᵀ J = (Σ {T})·σ({u}) − {T}",
            f"The targets of this row sum to {B}"
            + (": the result is σ − Y." if sums_to_one and T == "Y" else f", so {B} stands before σ.")
            + (" Where σ = 0 the quotient does not exist, the result does." if (d.p[shown] == 0).any() else ""),
            table,
        ),
        *_to_the_loss(x, d, derivative),
    ]


def _to_the_loss(x: LossNumbers, d: Derivation, derivative: float) -> Iterable[Step]:
    """The step from the derivative of the row's cross-entropy to that of the loss, with all its options."""
    i, c, options, symbols = d.row, d.target_class, x.options, symbols_of(x)
    p = bracketed(probability(x.p[i, c], x.rest[i, c]))
    text, formula = factor(derivative), f"∂ℓ/∂{symbols.logits}_c"
    if x.s[i] == 0:
        yield Step(f"Row {i} does not count", "0", "Its loss and its gradient are 0.")
        return
    if options.z_loss > 0:
        weight = "w·" if x.omega[i] != 1 else ""
        text, formula = f"({text} + {factor(x.a[i] - x.B[i])}·{p})", f"({formula} + 2ζ·{weight}lse·σ_c)"
    if symbols.scaled:
        text, formula = f"{text}·{number(x.slope[i, c])}", f"{formula}·u′_c"
    if x.s[i] != 1:
        text, formula = f"{number(x.s[i])}·{text}", f"s·{formula}"
    if options.reduction == "mean" and x.total_weight:
        text, formula = f"{text}/{number(x.total_weight)}", f"{formula}/N"
    if formula != f"∂ℓ/∂{symbols.logits}_c":
        yield Step(
            f"Row {i}: from its derivative to that of the loss",
            f"∂loss/∂A_c = {formula}",
            f"As in the gradient above, at row {i} and {_class_and_name(x, c)}.",
            lines=(f"{text} = {number(x.dlogits[i, c])}",),
        )
