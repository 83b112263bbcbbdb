"""The lesson of the gradient, and of what it tells."""

import math
from collections.abc import Iterable

import numpy as np

from . import _formulas as f
from ._formulas import num, probability
from ._numbers import LossNumbers
from ._step import Step
from ._tables import elementwise, rows_without, symbols_of
from ._tree import (
    Formula,
    Relation,
    Symbol,
    Total,
    Words,
    derivative,
    equal,
    formula,
    labelled,
)


def gradient_steps(x: LossNumbers) -> list[Step]:
    """The gradient of the sum and of the mean, and how to read it."""
    return [*_gradient(x), *_reading(x)]


def _gradient(x: LossNumbers) -> Iterable[Step]:
    options, symbols = x.options, symbols_of(x)
    counted = x.s != 0
    z_loss, capped, weighted = options.z_loss > 0, options.softcap < math.inf, bool((x.s[counted] != 1).any())
    a_is_one = not z_loss and bool((np.abs(x.B[counted] - 1) < 1e-12).all())

    def whole(a: Formula | None, p: Formula, target: Formula, weight: Formula | None, slope: Formula | None) -> Formula:
        """`a·p − target`, times the row's weight and the slope where there are such."""
        result = (p if a is None else a * p) - target
        result = result if weight is None else weight * result
        return result if slope is None else result * slope

    a, s = Symbol("a"), Symbol("s")
    formula_of_sum = whole(
        *(None if a_is_one else a, f.SIGMA(symbols.logits), symbols.targets),
        *(s if weighted else None, f.SLOPE if symbols.scaled else None),
    )
    notes: list[str | Formula] = [
        "The gradient with respect to the logits, not to the model's parameters: those follow by the chain rule."
    ]
    if not a_is_one:
        factor = 2 * f.ZETA * Symbol("w") if (x.omega != 1).any() else 2 * f.ZETA
        sum_of_targets = Total(symbols.targets)
        notes += [" Here ", equal(a, sum_of_targets + factor * f.LSE if z_loss else sum_of_targets), "."]
    if symbols.scaled:
        slope = f.SECH(f.A / f.CAP) ** 2 if capped else formula(1)
        notes += [" By the chain rule ", equal(f.SLOPE, slope / f.TAU if options.temperature != 1 else slope), "."]
    without = rows_without(x, x.dtotal)
    if not z_loss and not capped:
        notes.append(" Each row with a gradient sums to 0." if without else " Each row sums to 0.")
    same = options.reduction == "mean" and int(counted.sum()) == 1 and x.total_weight == 1
    if same:
        notes.append(" As N is 1, it is the gradient of the mean too.")
    notes.append(without)

    def of_sum(i: int, c: int) -> Formula | None:
        if not counted[i]:
            return None
        return whole(
            None if a_is_one else num(x.a[i]),
            probability(x.p[i, c], x.rest[i, c]),
            num(x.b[i, c]),
            num(x.s[i]) if weighted else None,
            num(x.slope[i, c]) if symbols.scaled else None,
        )

    def of_mean(i: int, c: int) -> Formula | None:
        return num(x.dtotal[i, c]) / num(x.total_weight) if counted[i] and x.total_weight else None

    table, lines = elementwise(x, x.dtotal, of_sum, sum_folded=True)
    yield Step("Gradient of the sum", (equal(derivative(f.SCE, f.A), formula_of_sum),), tuple(notes), table, lines)
    if options.reduction == "mean" and not same:
        table, lines = elementwise(x, x.dmean, of_mean, sum_folded=True)
        of_the_mean = equal(derivative(f.MEAN, f.A), formula_of_sum / f.N)
        note = "The division by N belongs to the mean only."
        yield Step("Gradient of the mean", (of_the_mean,), note, table, lines)


def _reading(x: LossNumbers) -> Iterable[Step]:
    """What the gradient tells, on its most negative entry."""
    finite = np.where(np.isfinite(x.dlogits), x.dlogits, 0)
    i, c = divmod(int(finite.argmin()), len(x.names))
    if finite[i, c] >= 0:
        return
    yield Step(
        "Reading the gradient",
        (Relation((f.A, f.A - f.ETA * derivative(f.L, f.A)), "←"),),
        "A negative entry means that raising this logit lowers the loss, a positive one that raising it raises the "
        "loss; the size says how fast. So a step of training goes against the gradient: η, the learning rate, says how "
        "far.",
        lines=(
            labelled(Words(f"row {i}, class {x.names[c]}"), equal(derivative(f.L, f.A[c]), num(x.dlogits[i, c]))),
            Words("raising no other logit lowers the loss faster"),
        ),
    )
