"""What steps have in common: the symbols of their formulas, tables of a number for each row and class, sums."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .._arrays import Array
from ._formulas import num
from ._numbers import LossNumbers
from ._step import Cell, Table
from ._tree import Formula, Sum, Symbol, Words, equal, labelled

MAX_DETAILED = 8  # where more classes are shown, only one cell a row shows what it is computed from
MAX_TERMS = 8


class Symbols(NamedTuple):
    """The symbols of logits and targets in the formulas, which depend on the options."""

    scaled: bool  # by soft cap or temperature, so that the softmax is taken of u, not of the logits A
    logits: Formula
    targets: Formula


def symbols_of(x: LossNumbers) -> Symbols:
    scaled = x.options.temperature != 1 or x.options.softcap < math.inf
    weighted, smoothed = bool((x.w != 1).any()), x.options.label_smoothing > 0
    return Symbols(scaled, Symbol("u" if scaled else "A"), Symbol("b" if weighted else "Y′" if smoothed else "Y"))


def rows_without(x: LossNumbers, values: Array) -> str:
    """A sentence on the rows in which `values` are NaN, and why; nothing where there are none."""
    rows: dict[str, list[str]] = {}
    for i in np.flatnonzero(np.isnan(values).reshape(len(values), -1).any(-1)):
        rows.setdefault(why_none(x, int(i)), []).append(str(i))
    return "".join(
        f" Row {of_reason[0]} has none: {reason}."
        if len(of_reason) == 1
        else f" Rows {', '.join(of_reason)} have none: {reason}."
        for reason, of_reason in rows.items()
    )


def why_none(x: LossNumbers, row: int) -> str:
    """Why a row has no softmax, or no loss."""
    logits, q = x.logits[row], x.q[row]
    reasons = (
        (np.isnan(logits).any(), "a logit is NaN"),
        ((logits == math.inf).any(), "a logit is ∞"),
        ((logits == -math.inf).all(), "every logit is −∞"),
        (np.isnan(q).any(), "a target is NaN"),
        (np.isinf(q).any(), "a target is infinite"),
    )
    return next((words for holds, words in reasons if holds), "a number on the way is too large")


def row_names(x: LossNumbers) -> tuple[str, ...]:
    return tuple(f"row {i}" for i in range(len(x.logits)))


def elementwise(
    x: LossNumbers,
    values: Array,
    expression: Callable[[int, int], Formula | None] | None = None,
    *,
    sum_folded: bool = False,
    last_column: tuple[str | Formula, Sequence[Cell]] | None = None,
    as_formula: Callable[[int, int], Formula] | None = None,
) -> tuple[Table, tuple[Formula, ...]]:
    """Tabulate a number for each row and class shown.

    `expression(i, c)` says what a number is computed from. It stands in the number's cell; where many classes are
    shown, in a line for the target of each row, and these lines are returned beside the table. Of NaN it says nothing.
    `as_formula(i, c)` writes a number otherwise than `num` does. With `sum_folded` the classes that are not shown are
    added up.
    """
    result = as_formula or (lambda i, c: num(values[i, c]))
    detailed = expression is not None and len(x.shown) <= MAX_DETAILED
    columns: list[str | Formula] = [x.names[c] for c in x.shown]
    if x.folded:
        columns.append(f"{x.folded:,} others")
    if last_column is not None:
        columns.append(last_column[0])
    folded = np.ones(len(x.names), bool)
    folded[list(x.shown)] = False
    cells, lines = [], []
    for i in range(len(x.logits)):
        row = [
            Cell(
                result(i, c),
                expression(i, c) if detailed and expression is not None and not math.isnan(values[i, c]) else None,
                strong=bool(x.s[i] != 0 and x.q[i, c] > 0 and x.q[i, c] == x.q[i].max()),
            )
            for c in x.shown
        ]
        if x.folded:
            row.append(Cell(num(values[i, folded].sum()) if sum_folded else Words("…")))
        if last_column is not None:
            row.append(last_column[1][i])
        cells.append(tuple(row))
        if expression is not None and not detailed and x.s[i] != 0:
            c = int(x.target_classes[i])
            if math.isnan(values[i, c]):
                continue
            origin = expression(i, c)
            lines.append(labelled(Words(f"row {i}, class {c}"), equal(*filter(None, (origin, result(i, c))))))
    return Table(tuple(columns), row_names(x), tuple(cells)), tuple(lines)


def sum_of(terms: Iterable[Formula]) -> Formula:
    """The terms with plus signs; of many only the first."""
    shown = list(terms)
    if len(shown) == 1:
        return shown[0]
    if len(shown) > MAX_TERMS:
        shown = [*shown[: MAX_TERMS - 1], Words("…")]
    return Sum(tuple((False, term) for term in shown)) if shown else num(0)
