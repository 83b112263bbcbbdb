"""The lesson: each step's formula with the reader's numbers in it."""

import math
from collections.abc import Iterable

import numpy as np

from .._arrays import Array
from . import _formulas as f
from ._formulas import num, one_plus, probability
from ._numbers import LossNumbers
from ._step import Cell, Step, Table
from ._tables import MAX_TERMS, elementwise, rows_without, sum_of, symbols_of
from ._tree import (
    Exponential,
    Formula,
    Product,
    Relation,
    Symbol,
    Total,
    Words,
    derivative,
    equal,
    formula,
    labelled,
    several,
)


def steps(x: LossNumbers) -> list[Step]:
    """From the logits to the gradient."""
    return [_symbols(x), *_logits_and_targets(x), *_softmax(x), *_losses(x), *_gradient(x)]


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
    note = f"Probabilities: positive, {sums_to_one}.{without}"
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
    yield from _reading(x)


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
