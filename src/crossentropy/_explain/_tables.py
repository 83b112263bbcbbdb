"""Parts that steps share: the formulas' symbols, tables of a number for each row and class, sums."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .._arrays import Array
from ._notation import number
from ._numbers import LossNumbers
from ._step import Cell, Table

MAX_DETAILED = 8  # with more classes on show, only one cell a row shows how it comes about
MAX_TERMS = 8


class Symbols(NamedTuple):
    """What stands for logits and targets in the formulas, with these options."""

    scaled: bool  # u stands for the logits A
    logits: str
    targets: str


def symbols_of(x: LossNumbers) -> Symbols:
    scaled = x.options.temperature != 1 or x.options.softcap < math.inf
    weighted, smoothed = bool((x.w != 1).any()), x.options.label_smoothing > 0
    return Symbols(scaled, "u" if scaled else "A", "b" if weighted else "Y′" if smoothed else "Y")


def row_names(x: LossNumbers) -> tuple[str, ...]:
    return tuple(f"row {i}" for i in range(len(x.logits)))


def elementwise(
    x: LossNumbers,
    values: Array,
    expression: Callable[[int, int], str] | None = None,
    *,
    others: bool = False,
    extra: tuple[str, Sequence[Cell]] | None = None,
    shown: Callable[[int, int], str] | None = None,
) -> tuple[Table, tuple[str, ...]]:
    """A number for each row and class shown, how each comes about, and a further column."""
    result = shown or (lambda i, c: number(values[i, c]))
    detailed = expression is not None and len(x.shown) <= MAX_DETAILED
    columns = [x.names[c] for c in x.shown]
    if x.folded:
        columns.append(f"{x.folded:,} others")
    if extra is not None:
        columns.append(extra[0])
    hidden = np.ones(len(x.names), bool)
    hidden[list(x.shown)] = False
    cells, lines = [], []
    for i in range(len(x.logits)):
        row = [
            Cell(
                result(i, c),
                expression(i, c) if detailed and expression is not None else "",
                strong=bool(x.s[i] > 0 and x.q[i, c] > 0 and x.q[i, c] == x.q[i].max()),
            )
            for c in x.shown
        ]
        if x.folded:
            row.append(Cell(number(values[i, hidden].sum()) if others else "…"))
        if extra is not None:
            row.append(extra[1][i])
        cells.append(tuple(row))
        if expression is not None and not detailed and x.s[i] > 0:
            c = int(np.nanargmax(x.q[i]))
            lines.append(f"row {i}, class {c}: {expression(i, c)} = {result(i, c)}")
    return Table(tuple(columns), row_names(x), tuple(cells)), tuple(lines)


def sum_of(terms: Iterable[str]) -> str:
    every = list(terms)
    kept = every if len(every) <= MAX_TERMS else [*every[: MAX_TERMS - 1], "…"]
    return " + ".join(kept) if kept else "0"
