"""The lesson: each step's formula with the reader's numbers in it."""

import math
from collections.abc import Iterable

import numpy as np

from ._notation import bracketed, factor, number, one_plus, probability, sub
from ._numbers import LossNumbers
from ._step import Cell, Step
from ._tables import MAX_TERMS, elementwise, rows_without, sum_of, symbols_of


def steps(x: LossNumbers) -> list[Step]:
    """From the logits to the gradient."""
    return [*_logits_and_targets(x), *_softmax(x), *_losses(x), *_gradient(x)]


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
    table, _ = elementwise(x, x.logits, last_column=("target", [Cell(name, words=True) for name in target]))
    folded_note = (
        f" Of {C:,} classes the likeliest and the targets are shown; the others are added up where they have a sum."
        if x.folded
        else ""
    )
    yield Step(
        "Logits",
        "A",
        "What the model returns: a row for each example, a column for each class, counted from 0. They may be any "
        "numbers, and are no probabilities." + folded_note,
        table,
    )
    table, _ = elementwise(x, x.q, sum_folded=True)
    note = "The target's class has probability 1, every other class 0."
    if x.targets is None:
        note = "As they were given."
        if (np.abs(x.q.sum(-1) - 1) > 1e-6)[counted].any():
            note += " Rows that do not sum to 1 are allowed: their sum appears in the gradient."
        if (x.q < 0)[counted].any():
            note += " Some are negative, and so no probabilities: the loss is what its definition gives for them."
        if not np.isfinite(x.q[counted]).all():
            note += " Some are not finite, and so no distribution: their row has no loss."
    yield Step("Targets, as probabilities", "Y", note, table)
    if options.label_smoothing > 0:
        eps = number(options.label_smoothing)
        table, lines = elementwise(
            x, x.smoothed, lambda i, c: f"(1 − {eps})·{factor(x.q[i, c])} + {eps}/{C}", sum_folded=True
        )
        yield Step(
            "Label smoothing: a changed target distribution",
            "Y′_c = (1 − ε)·Y_c + ε/C",
            "A part ε of each target is spread evenly over the classes, so that no logit is driven to infinity.",
            table,
            lines,
        )
    if symbols.targets == "b":
        before = "Y′" if options.label_smoothing > 0 else "Y"
        table, lines = elementwise(x, x.b, lambda i, c: f"{number(x.w[c])}·{factor(x.smoothed[i, c])}", sum_folded=True)
        yield Step(
            "Class weights: a changed weight of each class",
            f"b_c = w_c·{before}_c",
            "Each class's part of the loss is multiplied by its weight; b need not sum to 1.",
            table,
            lines,
        )
    if symbols.scaled:
        yield _scale(x)


def _scale(x: LossNumbers) -> Step:
    k, tau = x.options.softcap, x.options.temperature
    if k == math.inf:
        formula, title = "u_c = A_c/τ", "Temperature: a changed scale"
        note = "A temperature above 1 makes the probabilities more even, one below 1 makes them more extreme."
    elif tau == 1:
        formula, title = "u_c = k·tanh(A_c/k)", "Soft cap: a changed scale"
        note = "Small logits stay nearly as they are, large ones approach k and never pass it."
    else:
        formula, title = "u_c = k·tanh(A_c/k)/τ", "Soft cap and temperature: a changed scale"
        note = "Large logits approach the cap k and never pass it; then the temperature divides."

    def expression(i: int, c: int) -> str:
        A = factor(x.logits[i, c])
        if k == math.inf:
            return f"{A}/{number(tau)}"
        return f"{number(k)}·tanh({A}/{number(k)})" + (f"/{number(tau)}" if tau != 1 else "")

    return Step(title, formula, note, *elementwise(x, x.u, expression))


def _softmax(x: LossNumbers) -> Iterable[Step]:
    u = symbols_of(x).logits
    rows = range(len(x.logits))
    table, lines = elementwise(
        x,
        x.shifted,
        lambda i, c: f"{number(x.u[i, c])} − {factor(x.m[i])}",
        last_column=("m", [Cell(number(m)) for m in x.m]),
    )
    yield Step(
        "Shifted logits",
        f"{u}_c − m,  m = max {u}",
        "The largest becomes 0. No exponential can overflow then, and the softmax stays the same."
        + rows_without(x, x.shifted),
        table,
        lines,
    )
    table, _ = elementwise(
        x,
        x.e,
        lambda i, c: f"exp({number(x.shifted[i, c])})",
        sum_folded=True,
        last_column=("S", [Cell(one_plus(r)) for r in x.r]),
    )
    sums = tuple(
        f"S{sub(i)} = {sum_of(number(e) for e in x.e[i])} = {one_plus(x.r[i])}"
        for i in rows
        if len(x.names) <= MAX_TERMS and not math.isnan(x.r[i])
    )
    note = rows_without(x, x.r).strip()
    yield Step("Exponentials and their sum", f"e_c = exp({u}_c − m),  S = Σ e_c", note, table, sums)
    S = [bracketed(one_plus(r)) for r in x.r]
    table, lines = elementwise(
        x,
        x.p,
        lambda i, c: f"{number(x.e[i, c])}/{S[i]}",
        sum_folded=True,
        as_text=lambda i, c: probability(x.p[i, c], x.rest[i, c]),
    )
    without = rows_without(x, x.p)
    sums_to_one = "with the sum 1 in each row that has them" if without else "and each row sums to 1"
    yield Step(
        "Softmax",
        f"σ_c = σ({u})_c = e_c/S",
        f"Probabilities: positive, {sums_to_one}.{without}",
        table,
        lines,
    )
    table, lines = elementwise(x, -x.log_p, lambda i, c: f"{number(math.log1p(x.r[i]))} − {factor(x.shifted[i, c])}")
    yield Step(
        "Minus the logarithm of the probabilities, in nats",
        f"−log σ_c = log S − ({u}_c − m)",
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
    skipped = tuple(f"ℓ{sub(i)} = 0, as row {i} does not count" for i in range(len(x.logits)) if x.s[i] == 0)
    one_hot = symbols.targets == "Y" and bool(x.one_hot[rows].all())

    def terms(i: int) -> str:
        classes = range(len(x.names)) if len(x.names) <= MAX_TERMS else np.flatnonzero(x.b[i])
        return sum_of(f"{factor(x.b[i, c])}·{factor(-x.log_p[i, c])}" for c in classes)

    yield Step(
        "The cross-entropy of each row",
        f"ℓ = −Σ {symbols.targets}_c·log σ_c",
        ("All terms but the target's are 0: what is left is −log σ of the target. " if one_hot else "")
        + "A term with factor 0 is 0, whatever the logarithm: 0·∞ too."
        + without,
        lines=(*(f"ℓ{sub(i)} = {terms(i)} = {number(x.cross[i])}" for i in with_loss), *skipped),
    )
    penalty = np.zeros(len(x.logits))
    if options.z_loss > 0:
        weighted = bool((x.omega != 1).any())
        with np.errstate(over="ignore"):
            penalty = options.z_loss * x.omega * x.lse**2
        zeta = [f"{number(options.z_loss)}" + (f"·{number(omega)}" if weighted else "") for omega in x.omega]
        yield Step(
            "z-loss: a penalty added",
            "ℓ ← ℓ + ζ·" + ("w·" if weighted else "") + "lse²,  lse = m + log S",
            "It keeps the log-sum-exp near 0, where rounding is smallest"
            + ("; w is the weight of the row's target." if weighted else "."),
            lines=tuple(
                f"ℓ{sub(i)} = {number(x.cross[i])} + {zeta[i]}·{factor(x.lse[i])}² = {number(x.cross[i] + penalty[i])}"
                for i in with_loss
            ),
        )
    if (x.s[rows] != 1).any():
        yield Step(
            "Sample weights: a changed weight of each row",
            "ℓ ← s·ℓ",
            "A row of weight 0 does not count, whatever it holds.",
            lines=tuple(
                f"ℓ{sub(i)} = {number(x.s[i])}·{factor(x.cross[i] + penalty[i])} = {number(x.losses[i])}"
                for i in with_loss
            ),
        )
    yield _reduced(x, rows, without)


def _reduced(x: LossNumbers, rows: list[int], without: str) -> Step:
    """Sum and mean, over the rows that count."""
    options, weights = x.options, x.s * x.omega
    all_one = bool((weights[rows] == 1).all())
    alone = len(rows) == 1

    def added(terms: Iterable[str], total: float) -> str:
        return number(total) if alone else f"{sum_of(terms)} = {number(total)}"

    lines = [] if math.isnan(x.total) else [f"L = {added((factor(loss) for loss in x.losses[rows]), x.total)}"]
    if not (all_one or math.isnan(x.total_weight)):
        lines.append(f"N = {added((number(weights[i]) for i in rows), x.total_weight)}")
    if math.isnan(x.total_weight):
        lines.append("no mean: some weights are negative, so that their sum may be nearly 0")
    elif math.isnan(x.total):
        pass
    elif x.total_weight > 0:
        lines.append(f"mean = {factor(x.total)}/{number(x.total_weight)} = {number(x.mean)}")
    else:
        lines.append("mean = 0, as nothing counts")
    chosen = {
        "mean": f"loss = mean = {number(x.mean)} nats",
        "sum": f"loss = L = {number(x.total)} nats",
        "none": "loss = ℓ, one for each row",
    }[options.reduction]
    divisor = "the number of rows that count"
    if not all_one:
        sample, of_class = bool((x.s[rows] != 1).any()), bool((x.omega[rows] != 1).any())
        names = [
            name for name, is_used in (("sample weight", sample), ("class weight of the target", of_class)) if is_used
        ]
        divisor = f"the sum over the rows of the {' times the '.join(names)}"
    note = f"N is {divisor}."
    if math.isnan(x.total):
        note += f" There is no sum and no mean.{without}" if without else " ∞ − ∞ is no number: there is no sum."
    elif alone and all_one:
        note = "N is the number of rows that count. Here it is 1, so that sum and mean are that row's loss."
        lines = []
    if options.reduction == "none" or not math.isnan(x.total):
        lines.append(chosen)
    return Step("Sum and mean", "L = Σ ℓ,  mean = L/N", note, lines=tuple(lines))


def _gradient(x: LossNumbers) -> Iterable[Step]:
    options, symbols = x.options, symbols_of(x)
    counted = x.s != 0
    z_loss, capped, weighted = options.z_loss > 0, options.softcap < math.inf, bool((x.s[counted] != 1).any())
    a_is_one = not z_loss and bool((np.abs(x.B[counted] - 1) < 1e-12).all())
    formula = f"{'' if a_is_one else 'a·'}σ({symbols.logits}) − {symbols.targets}"
    if weighted or symbols.scaled:
        formula = f"{'s·' if weighted else ''}({formula}){'·u′' if symbols.scaled else ''}"
    notes = ["The gradient with respect to the logits, not to the model's parameters: those follow by the chain rule."]
    without = rows_without(x, x.dtotal)
    if not a_is_one:
        zeta = f" + 2ζ·{'w·' if (x.omega != 1).any() else ''}lse" if z_loss else ""
        notes.append(f"Here a = Σ {symbols.targets}{zeta}.")
    if symbols.scaled:
        slope = "sech²(A/k)" if capped else "1"
        notes.append(f"By the chain rule u′ = {slope}{'/τ' if options.temperature != 1 else ''}.")
    if not z_loss and not capped:
        notes.append("Each row with a gradient sums to 0." if without else "Each row sums to 0.")
    same = options.reduction == "mean" and int(counted.sum()) == 1 and x.total_weight == 1
    if same:
        notes.append("As N is 1, it is the gradient of the mean too.")

    def sum_expression(i: int, c: int) -> str:
        if not counted[i]:
            return ""
        text = bracketed(probability(x.p[i, c], x.rest[i, c]))
        text = f"{'' if a_is_one else f'{factor(x.a[i])}·'}{text} − {factor(x.b[i, c])}"
        if weighted or symbols.scaled:
            text = f"{f'{number(x.s[i])}·' if weighted else ''}({text})"
            text += f"·{number(x.slope[i, c])}" if symbols.scaled else ""
        return text

    def mean_expression(i: int, c: int) -> str:
        return f"{factor(x.dtotal[i, c])}/{number(x.total_weight)}" if counted[i] and x.total_weight else ""

    table, lines = elementwise(x, x.dtotal, sum_expression, sum_folded=True)
    yield Step("Gradient of the sum", f"∂L/∂A = {formula}", " ".join(notes) + without, table, lines)
    if options.reduction == "mean" and not same:
        table, lines = elementwise(x, x.dmean, mean_expression, sum_folded=True)
        whole = formula if weighted and not symbols.scaled else f"({formula})"
        note = "The division by N belongs to the mean only."
        yield Step("Gradient of the mean", f"{whole}/N", note, table, lines)
