"""The lesson from the logits to the loss."""

import math
from collections.abc import Iterable

import numpy as np

from .._arrays import Array
from . import _formulas as f
from ._formulas import num, one_plus, probability
from ._numbers import LossNumbers
from ._step import Cell, Step
from ._tables import MAX_TERMS, elementwise, rows_without, sum_of, symbols_of
from ._tree import (
    Exponential,
    Formula,
    Product,
    Relation,
    Symbol,
    Total,
    Words,
    equal,
    labelled,
    several,
)


def forward_steps(x: LossNumbers) -> list[Step]:
    """Softmax, its logarithm, the losses of the rows, and their sum and mean."""
    return [*_softmax(x), *_losses(x)]


def _softmax(x: LossNumbers) -> Iterable[Step]:
    u = symbols_of(x).logits
    rows = range(len(x.logits))
    few = len(x.names) <= MAX_TERMS
    all_written = x.logits.size <= MAX_TERMS

    def definition(i: int, c: int) -> Formula:
        exponentials = [Exponential(num(v)) for v in x.u[i]]
        return equal(f.SIGMA(u)[c], exponentials[c] / sum_of(exponentials), probability(x.p[i, c], x.rest[i, c]))

    yield Step(
        "From logits to probabilities, by the definition",
        (f.softmax(u),),
        "The exponential makes every number positive, the division makes each row sum to 1. "
        + ("" if all_written or not few else "Here only the targets' probabilities are written out. ")
        + "Computed like this it overflows for large logits: hence the next steps.",
        lines=tuple(
            labelled(Words(f"row {i}"), definition(i, c))
            for i in rows
            if few and x.s[i] != 0 and np.isfinite(x.p[i]).all()
            for c in (range(len(x.names)) if all_written else (int(x.target_classes[i]),))
        ),
    )
    table, lines = elementwise(
        x,
        x.shifted,
        lambda i, c: num(x.u[i, c]) - num(x.m[i]),
        last_column=(f.SHIFT, [Cell(num(m)) for m in x.m]),
    )
    yield Step(
        "Shifted logits",
        (f.shifted_softmax(u),),
        (
            "Numerator and denominator are divided by ",
            Exponential(f.SHIFT),
            ", which changes no probability. The largest exponent becomes 0: no exponential can overflow then.",
            rows_without(x, x.shifted),
        ),
        table,
        lines,
    )
    table, _ = elementwise(
        x,
        x.e,
        lambda i, c: Exponential(num(x.shifted[i, c])),
        sum_folded=True,
        last_column=(f.S, [Cell(one_plus(r)) for r in x.r]),
    )
    e = Symbol("e")
    sums = tuple(
        equal(f.S[i], *((sum_of(map(num, x.e[i])),) if len(x.names) > 1 else ()), one_plus(x.r[i]))
        for i in rows
        if few and not math.isnan(x.r[i])
    )
    exponentials = several(equal(e["c"], Exponential(u["c"] - f.SHIFT)), equal(f.S, Total(e["c"], "c")))
    yield Step("Exponentials and their sum", (exponentials,), rows_without(x, x.r).strip(), table, sums)
    table, lines = elementwise(
        x,
        x.p,
        lambda i, c: num(x.e[i, c]) / one_plus(x.r[i]),
        sum_folded=True,
        as_formula=lambda i, c: probability(x.p[i, c], x.rest[i, c]),
    )
    without = rows_without(x, x.p)
    sums_to_one = "with the sum 1 in each row that has them" if without else "and each row sums to 1"
    signs = "none is negative" if (x.p == 0).any() else "positive"
    note = f"Probabilities: {signs}, {sums_to_one}.{without}"
    yield Step("Softmax", (f.softmax_of_exponentials(u),), note, table, lines)
    table, lines = elementwise(x, -x.log_p, lambda i, c: num(math.log1p(x.r[i])) - num(x.shifted[i, c]))
    yield Step(
        "Minus the logarithm of the probabilities, in nats",
        (f.minus_log_softmax(u),),
        "Not taken of the rounded probability: log S is log1p(S − 1), with S − 1 summed without the largest class, and "
        "so has all its digits where a probability rounds to 1 or to 0." + rows_without(x, x.log_p),
        table,
        lines,
    )


def _losses(x: LossNumbers) -> Iterable[Step]:
    options, symbols = x.options, symbols_of(x)
    rows = [i for i in range(len(x.logits)) if x.s[i] != 0]
    with_loss = [i for i in rows if not math.isnan(x.losses[i])]
    without = rows_without(x, x.losses)
    one_hot = symbols.targets == f.Y and bool(x.one_hot[rows].all())

    def terms(i: int) -> Formula:
        classes = range(len(x.names)) if len(x.names) <= MAX_TERMS else np.flatnonzero(x.b[i])
        return sum_of(num(x.b[i, c]) * num(-x.log_p[i, c]) for c in classes)

    def of_row(i: int) -> Formula:
        if x.s[i] == 0:
            return several(equal(f.ELL[i], 0), Words(f"as row {i} does not count"))
        return equal(f.ELL[i], terms(i), num(x.cross[i]))

    yield Step(
        "The cross-entropy of each row",
        (f.cross_entropies(symbols.logits, symbols.targets), f.cross_entropy(symbols.targets)),
        (
            "∘ multiplies element by element, and the product with the column of ones adds up each row. ",
            "All terms but the target's are 0: what is left is −log σ of the target. " if one_hot else "",
            "A term with factor 0 is 0, whatever the logarithm: 0·∞ too.",
            without,
        ),
        lines=tuple(of_row(i) for i in range(len(x.logits)) if x.s[i] == 0 or not math.isnan(x.losses[i])),
    )
    penalty = np.zeros(len(x.logits))
    if options.z_loss > 0:
        weighted = bool((x.omega != 1).any())
        with np.errstate(over="ignore"):
            penalty = options.z_loss * x.omega * x.lse**2
        zeta = [num(options.z_loss) * num(omega) if weighted else num(options.z_loss) for omega in x.omega]
        factor = f.ZETA * Symbol("w") if weighted else f.ZETA
        yield Step(
            "z-loss: a penalty added",
            (
                Relation((f.ELL, f.ELL + factor * f.LSE**2), "←"),
                equal(f.LSE, f.SHIFT + f.LOG(f.S)),
            ),
            "It keeps the log-sum-exp near 0, where rounding is smallest"
            + ("; w is the weight of the row's target." if weighted else "."),
            lines=tuple(
                equal(f.ELL[i], num(x.cross[i]) + zeta[i] * num(x.lse[i]) ** 2, num(x.cross[i] + penalty[i]))
                for i in with_loss
            ),
        )
    if (x.s[rows] != 1).any():
        yield Step(
            "Sample weights: a changed weight of each row",
            (Relation((f.ELL, Symbol("s") * f.ELL), "←"),),
            "A row of weight 0 does not count, whatever it holds.",
            lines=tuple(
                equal(f.ELL[i], num(x.s[i]) * num(x.cross[i] + penalty[i]), num(x.losses[i])) for i in with_loss
            ),
        )
    yield _sum_and_mean(x, rows, without)


def _sum_and_mean(x: LossNumbers, rows: list[int], without: str) -> Step:
    """Sum and mean, over the rows that count."""
    weights = x.s * x.omega
    all_one = bool((weights[rows] == 1).all())
    alone = len(rows) == 1

    def added(symbol: Formula, terms: Array, total: float) -> Formula:
        return equal(symbol, *(() if len(rows) < 2 else (sum_of(map(num, terms)),)), num(total))

    lines: list[Formula] = [] if math.isnan(x.total) else [added(f.SCE, x.losses[rows], x.total)]
    if not (all_one or math.isnan(x.total_weight)):
        lines.append(added(f.N, weights[rows], x.total_weight))
    if math.isnan(x.total_weight):
        lines.append(Words("no mean: some weights are negative, so that their sum may be nearly 0"))
    elif math.isnan(x.total):
        pass
    elif x.total_weight > 0:
        lines.append(equal(f.MEAN, num(x.total) / num(x.total_weight), num(x.mean)))
    else:
        lines.append(several(equal(f.MEAN, 0), Words("as nothing counts")))
    chosen = {
        "mean": equal(f.L, f.MEAN, Product((num(x.mean), Words("nats")), "")),
        "sum": equal(f.L, f.SCE, Product((num(x.total), Words("nats")), "")),
        "none": several(equal(f.L, f.ELL), Words("one for each row")),
    }[x.options.reduction]
    divisor = "the number of rows that count"
    if not all_one:
        sample, of_class = bool((x.s[rows] != 1).any()), bool((x.omega[rows] != 1).any())
        names = [
            name for name, is_used in (("sample weight", sample), ("class weight of the target", of_class)) if is_used
        ]
        divisor = f"the sum over the rows of the {' times the '.join(names)}"
    note = f"N is {divisor}. The mean is what PyTorch returns unless told otherwise, and this library too."
    if math.isnan(x.total):
        note += f" There is no sum and no mean.{without}" if without else " ∞ − ∞ is no number: there is no sum."
    elif alone and all_one:
        note += " Here N is 1, so that sum and mean are that row's loss."
        lines = []
    if x.options.reduction == "none" or not math.isnan(x.total):
        lines.append(chosen)
    return Step("Sum and mean", (f.sum_of_losses(), f.mean_of_losses()), note, lines=tuple(lines))
