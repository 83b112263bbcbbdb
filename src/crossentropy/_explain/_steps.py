"""The lesson: each step's formula with the reader's numbers in it. Here its beginning: symbols, and what was given."""

import math
from collections.abc import Iterable

import numpy as np

from . import _formulas as f
from ._formulas import num
from ._forward import forward_steps
from ._gradient import gradient_steps
from ._numbers import LossNumbers
from ._step import Cell, Step, Table
from ._tables import elementwise, symbols_of
from ._tree import (
    Formula,
    Symbol,
    Words,
    derivative,
    equal,
    formula,
)


def steps(x: LossNumbers) -> list[Step]:
    """From the logits to the gradient."""
    return [_symbols(x), *_logits_and_targets(x), *forward_steps(x), *gradient_steps(x)]


def _symbols(x: LossNumbers) -> Step:
    """What the letters mean, and what is computed from what."""
    N, C = x.logits.shape
    symbols = (
        (f.A, f"{N} × {C}", "logits, the model's scores", "z"),
        (f.Y, f"{N} × {C}", "targets, as distributions", "y, 𝐲"),
        (f.SIGMA(f.A), f"{N} × {C}", "softmax, probabilities", "𝐚, ŷ, p"),
        (f.H(f.A, f.Y), f"{N} × 1", "cross-entropy of each row", "ℓ, −log p"),
        (f.L, "scalar", "the loss: sum or mean of H", "SCE, mean"),
        (derivative(f.L, f.A), f"{N} × {C}", "gradient of the loss", "dA, dlogits"),
        (f.IOTA["N"], f"{N} × 1", "a column of ones", "1"),
        (f.IOTA["C"], f"{C} × 1", "a column of ones", "1"),
    )
    return Step(
        "The symbols, and the way from the logits to the loss and back",
        note=f"N = {N} is the number of rows, one for each example, C = {C} that of the classes. Both are counted "
        "from 0 as in code; textbooks count from 1. The loss is computed from left to right, the gradient from right "
        "to left.",
        table=Table(
            ("shape", "what it is", "also called"),
            tuple(symbol for symbol, *_ in symbols),
            tuple(tuple(Cell(Words(text)) for text in texts) for _, *texts in symbols),
        ),
        lines=(f.drawing(N, C),),
    )


def _logits_and_targets(x: LossNumbers) -> Iterable[Step]:
    """What was given, and what the options make of it."""
    options, symbols = x.options, symbols_of(x)
    N, C = x.logits.shape
    counted = x.s != 0
    if x.targets is None:
        target = [
            x.names[int(q.argmax())] if one_hot else "a distribution" if counts else "ignored"
            for q, one_hot, counts in zip(x.q, x.one_hot, counted, strict=True)
        ]
    else:
        ignored = np.full(N, False) if options.ignore_index is None else x.targets == options.ignore_index
        target = ["ignored" if skip else x.names[t] for t, skip in zip(x.targets, ignored, strict=True)]
    table, _ = elementwise(x, x.logits, last_column=("target", [Cell(Words(name)) for name in target]))
    folded_note = (
        f" Of {C:,} classes the likeliest and the targets are shown; the others are added up where they have a sum."
        if x.folded
        else ""
    )
    yield Step(
        "Logits",
        (f.A,),
        "What the model returns: a row for each example, a column for each class. They may be any numbers, and are no "
        "probabilities." + folded_note,
        table,
    )
    table, _ = elementwise(x, x.q, sum_folded=True)
    note = "The target's class has probability 1, every other class 0."
    if "ignored" in target:
        note += " A row that is ignored has no target: all are 0."
    if x.targets is None:
        note = "As they were given."
        if (np.abs(x.q.sum(-1) - 1) > 1e-6)[counted].any():
            note += " Rows that do not sum to 1 are allowed: their sum appears in the gradient."
        if (x.q < 0)[counted].any():
            note += " Some are negative, and so no probabilities: the loss is what its definition gives for them."
        if not np.isfinite(x.q[counted]).all():
            note += " Some are not finite, and so no distribution: their row has no loss."
    yield Step("Targets, as probabilities", (f.Y,), note, table)
    if options.label_smoothing > 0:
        eps = num(options.label_smoothing)
        table, lines = elementwise(
            x,
            x.smoothed,
            lambda i, c: (1 - eps) * num(x.q[i, c]) + eps / formula(C) if counted[i] else None,
            sum_folded=True,
        )
        yield Step(
            "Label smoothing: a changed target distribution",
            (equal(Symbol("Y′")["c"], (1 - f.EPSILON) * f.Y["c"] + f.EPSILON / f.C),),
            "A part ε of each target is spread evenly over the classes, so that no logit is driven to infinity.",
            table,
            lines,
        )
    if symbols.targets == Symbol("b"):
        before = Symbol("Y′" if options.label_smoothing > 0 else "Y")
        table, lines = elementwise(x, x.b, lambda i, c: num(x.w[c]) * num(x.smoothed[i, c]), sum_folded=True)
        yield Step(
            "Class weights: a changed weight of each class",
            (equal(symbols.targets["c"], Symbol("w")["c"] * before["c"]),),
            "Each class's part of the loss is multiplied by its weight; b need not sum to 1.",
            table,
            lines,
        )
    if symbols.scaled:
        yield _scale(x)


def _scale(x: LossNumbers) -> Step:
    k, tau = x.options.softcap, x.options.temperature
    if k == math.inf:
        title = "Temperature: a changed scale"
        note = "A temperature above 1 makes the probabilities more even, one below 1 makes them more extreme."
    elif tau == 1:
        title = "Soft cap: a changed scale"
        note = "Small logits stay nearly as they are, large ones approach k and never pass it."
    else:
        title = "Soft cap and temperature: a changed scale"
        note = "Large logits approach the cap k and never pass it; then the temperature divides."

    def scaled(A: Formula, cap: Formula, temperature: Formula) -> Formula:
        capped = A if k == math.inf else cap * f.TANH(A / cap)
        return capped / temperature if tau != 1 else capped

    table, lines = elementwise(x, x.u, lambda i, c: scaled(num(x.logits[i, c]), num(k), num(tau)))
    return Step(title, (equal(Symbol("u")["c"], scaled(f.A["c"], f.CAP, f.TAU)),), note, table, lines)
