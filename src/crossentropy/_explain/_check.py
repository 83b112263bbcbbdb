"""The gradient compared with finite differences of the loss."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from .._arrays import Array
from .._call import loss, prepare
from ._formulas import A, L, num
from ._markup import html
from ._numbers import LossNumbers
from ._record import Record
from ._step import Cell, Step, Table
from ._tree import Bracketed, Formula, Relation, Symbol, Words, derivative, equal


@dataclass(frozen=True, eq=False)
class Check(Record):
    """The gradient and finite differences of the loss.

    Attributes
    ----------
    classes : tuple of int
        The K classes whose logits were moved.
    step : float
        The step h of the difference formula.
    gradient, differences : ndarray of shape (N, K)
        As `cross_entropy_with_grad` computes it, and from differences of the loss.
    largest : float
        The largest distance between the two, where both are finite.
    """

    classes: tuple[int, ...]
    step: float
    gradient: Array
    differences: Array
    largest: float
    _of: LossNumbers = field(repr=False)

    def _repr_html_(self) -> str:
        return html([check_step(self._of, self)])


def check_gradient(x: LossNumbers) -> Check:
    """Compute fourth-order central differences of the loss, one logit at a time."""
    N = len(x.logits)
    h = 2.0**-9 * min(1.0, x.options.temperature, x.options.softcap)
    classes = np.array(x.shown)
    rows = np.arange(N)
    differences = np.zeros((N, len(classes)))
    per_row = replace(x.options, reduction="none")
    targets = x.q if x.targets is None else x.targets
    with np.errstate(all="ignore"):
        for j, c in enumerate(classes):
            for steps, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                moved = x.logits.copy()
                moved[:, c] += steps * h
                call = prepare(per_row, moved, targets, class_weight=x.w, sample_weight=x.s, num_threads=1)
                differences[rows, j] += factor * np.asarray(loss(call))
        differences /= 12 * h
        if x.options.reduction == "mean":
            differences /= x.total_weight or math.inf
        distance = np.abs(differences - x.dlogits[:, classes])
    finite = distance[np.isfinite(distance)]
    return Check(x.shown, h, x.dlogits[:, classes], differences, float(finite.max(initial=0.0)), x)


def check_step(x: LossNumbers, check: Check) -> Step:
    """The check as a step."""
    columns = tuple(x.names[c] for c in check.classes)
    largest: Formula = equal(Words("largest difference"), num(check.largest))
    if not np.isfinite(check.gradient - check.differences).any():
        largest = Words("no difference: there are no finite numbers to compare")
    rows, cells = [], []
    for i, (gradient, differences) in enumerate(zip(check.gradient, check.differences, strict=True)):
        rows += [f"row {i}: gradient", "by differences"]
        cells += [tuple(Cell(num(v)) for v in values) for values in (gradient, differences)]
    h = Symbol("h")
    differences_of = L(A - 2 * h) - 8 * L(A - h) + 8 * L(A + h) - L(A + 2 * h)
    return Step(
        "Check: the gradient by differences of the loss",
        (Relation((derivative(L, A), Bracketed(differences_of) / (12 * h)), "≈"),),
        (
            "One logit is moved at a time, and the loss computed anew. The formula errs by about ",
            h**4,
            ", and by the rounding of the loss, some 1e−16 of it, divided by h.",
        ),
        Table(columns, tuple(rows), tuple(cells)),
        (equal(h, num(check.step)), largest),
    )
