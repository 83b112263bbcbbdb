"""What the formulas of textbooks give on the reader's numbers, compared with the library."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._arrays import Array
from .._functional import cross_entropy, cross_entropy_with_grad
from . import _formulas as f
from ._formulas import num
from ._markup import html
from ._notation import number
from ._numbers import LossNumbers
from ._record import Record
from ._step import Cell, Step, Table
from ._tree import Exponential, Formula, Total, Words

DTYPES = ("float32", "float64")


class _Formula(NamedTuple):
    title: str
    formula: Formula
    note: str
    compute: Callable[[Array, Array], Array]  # from the logits u and the coefficients b, the loss of each row
    of_gradient: bool = False  # the gradient in its place, to be shown at the target


def _log_of_softmax(A: Array, Y: Array) -> Array:
    p = np.exp(A) / np.exp(A).sum(-1, keepdims=True)
    loss: Array = -np.where(Y != 0, Y * np.log(p), 0).sum(-1)
    return loss


def _log_of_sum(A: Array, Y: Array) -> Array:
    loss: Array = (np.where(Y != 0, Y * (np.log(np.exp(A).sum(-1, keepdims=True)) - A), 0)).sum(-1)
    return loss


def _log_of_shifted_sum(A: Array, Y: Array) -> Array:
    return _log_of_sum(A - A.max(-1, keepdims=True), Y)


def _shifted_softmax(A: Array) -> Array:
    e = np.exp(A - A.max(-1, keepdims=True))
    p: Array = e / e.sum(-1, keepdims=True)
    return p


def _one_hot_times_log(A: Array, Y: Array) -> Array:
    loss: Array = -(Y * np.log(_shifted_softmax(A))).sum(-1)
    return loss


def _softmax_minus_one_hot(A: Array, Y: Array) -> Array:
    difference: Array = _shifted_softmax(A) * Y.sum(-1, keepdims=True, dtype=Y.dtype) - Y
    return difference


_FORMULAS = (
    _Formula(
        "The logarithm of a softmax without the shift",
        -Total(f.Y["c"] * f.LOG(Exponential(f.A["c"]) / Total(Exponential(f.A)))),
        "exp overflows for logits above 88 in float32, 709 in float64: ∞/∞ is NaN. Below −87 and −708 it underflows, "
        "and log 0 is −∞.",
        _log_of_softmax,
    ),
    _Formula(
        "The logarithm of a sum without the shift",
        Total(f.Y["c"] * (f.LOG(Total(Exponential(f.A))) - f.A["c"])),
        "The sum overflows where a logit is large, and is 0 where all are very negative.",
        _log_of_sum,
    ),
    _Formula(
        "The logarithm of a sum, shifted",
        Total(f.Y["c"] * (f.LOG(Total(Exponential(f.A - f.SHIFT))) - (f.A["c"] - f.SHIFT))),
        "The largest exponential is 1: whatever is smaller than half the spacing of the numbers there is lost in "
        "1 + r, and a confident row's loss is 0. log1p(r) keeps it.",
        _log_of_shifted_sum,
    ),
    _Formula(
        "One-hot targets times the logarithm",
        -Total(f.Y["c"] * f.LOG(f.SIGMA(f.A)["c"])),
        "Shifted, and still: a probability that underflows gives log 0 = −∞, and 0·∞ is NaN, though the class is not "
        "the target.",
        _one_hot_times_log,
    ),
    _Formula(
        "Softmax minus one-hot, at the target",
        f.SIGMA(f.A)["t"] - f.Y["t"],
        "A probability that rounds to 1 leaves a gradient of 0 at the target: the row teaches nothing more. −r/(1 + r) "
        "is that difference, with all its digits.",
        _softmax_minus_one_hot,
        of_gradient=True,
    ),
)


@dataclass(frozen=True, eq=False)
class Pitfall(Record):
    """A textbook formula and the library on the same rows.

    Attributes
    ----------
    title, formula, note : str
        What is computed, and what goes wrong.
    dtype : str
        The precision, 'float32' or 'float64'.
    textbook, library : ndarray of shape (N,)
        What each of the two returns; NaN for rows that do not count.
    marks : tuple of str
        What is wrong with the textbook's number of each row: 'NaN', 'inf', '0', 'digits' (a relative error of more
        than one in a thousand), or '' where nothing is.
    """

    title: str
    formula: str
    note: str
    dtype: str
    textbook: Array
    library: Array
    marks: tuple[str, ...]


class Pitfalls(list[Pitfall]):
    """The pitfalls, each formula in each precision. A notebook shows those that fail."""

    def __init__(self, found: Iterable[Pitfall], x: LossNumbers) -> None:
        super().__init__(found)
        self._of = x

    def _repr_html_(self) -> str:
        return html(pitfall_steps(self._of, self))


def find_pitfalls(x: LossNumbers) -> Pitfalls:
    """Evaluate each formula in float32 and float64, on the logits and targets as the options change them."""
    found = []
    counted = x.s != 0
    at_target = np.arange(int(counted.sum())), x.target_classes[counted]
    for formula in _FORMULAS:
        for dtype in DTYPES:
            textbook, library = (np.full(len(x.u), math.nan) for _ in range(2))
            with np.errstate(all="ignore"):
                A, Y = x.u[counted].astype(dtype), x.b[counted].astype(dtype)
                computed = formula.compute(A, Y)
            textbook[counted] = computed[at_target] if formula.of_gradient else computed
            if formula.of_gradient:
                library[counted] = cross_entropy_with_grad(A, Y, reduction="sum")[1][at_target]
            else:
                library[counted] = cross_entropy(A, Y, reduction="none")
            marks = tuple(
                _mark(float(given), float(right)) if counts else ""
                for given, right, counts in zip(textbook, library, counted, strict=True)
            )
            found.append(Pitfall(formula.title, str(formula.formula), formula.note, dtype, textbook, library, marks))
    return Pitfalls(found, x)


def _mark(textbook: float, right: float) -> str:
    """What is wrong with the textbook's number; nothing where the right one is not finite either."""
    if not math.isfinite(right):
        return ""
    if math.isnan(textbook):
        return "NaN"
    if math.isinf(textbook):
        return "inf"
    if textbook == 0 != right:
        return "0"
    return "digits" if abs(textbook - right) > 1e-3 * abs(right) else ""


def _marked(x: float, mark: str) -> Cell:
    return Cell(Words(f"✗ {number(x)}"), strong=True) if mark else Cell(num(x))


def pitfall_steps(x: LossNumbers, found: list[Pitfall]) -> list[Step]:
    """Each formula that fails as a step, with its result in each precision; those that do not are named at the end."""
    rows = [i for i in range(len(x.u)) if x.s[i] != 0]
    steps, right = [], []
    for textbook, single, double in zip(_FORMULAS, found[::2], found[1::2], strict=True):
        if not any((*single.marks, *double.marks)):
            right.append(single.title)
            continue
        cells = tuple(
            tuple(
                cell
                for pitfall in (single, double)
                for cell in (
                    _marked(pitfall.textbook[i], pitfall.marks[i]),
                    Cell(num(pitfall.library[i])),
                )
            )
            for i in rows
        )
        columns = tuple(f"{who}, {dtype}" for dtype in DTYPES for who in ("textbook", "ours"))
        steps.append(
            Step(
                f"Pitfall: {single.title[0].lower()}{single.title[1:]}",
                (textbook.formula,),
                single.note,
                Table(columns, tuple(f"row {i}" for i in rows), cells),
            )
        )
    if steps and right:
        steps.append(Step("Right on these numbers", note=f"{'; '.join(right)}."))
    elif not steps:
        comparable = any(math.isfinite(value) for pitfall in found for value in pitfall.library)
        verdict = "the textbook's formulas are right" if comparable else "there is no finite number to compare with"
        steps.append(
            Step(
                "No pitfall here",
                note=f"On these numbers {verdict}. Try them on logits far apart or far from 0, such as 1000 0 −1000, "
                "or 40 0 0 with target 0.",
            )
        )
    return steps
