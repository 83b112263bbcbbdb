"""The symbolic formulas of the derivation, evaluated on numbers: every side is the same, derivatives by differences."""

import itertools

import mpmath
import pytest

from crossentropy._explain import _formulas as f
from crossentropy._explain import _tree as t

A, Y = [mpmath.mpf(v) for v in ("2", "1", "-0.75")], [mpmath.mpf(v) for v in ("0.2", "0.7", "0.1")]
ROWS = range(len(A))


def numbers(logits, *, shift=0, **given):
    """What the symbols stand for, where the logits are these."""
    e = [mpmath.exp(z - shift) for z in logits]
    S = mpmath.fsum(e)
    p = [v / S for v in e]
    loss = -mpmath.fsum(y * mpmath.log(q) for y, q in zip(Y, p, strict=True))
    delta = {(k, c): int(k == c) for k, c in itertools.product(ROWS, ROWS)}
    return {"A": logits, "Y": Y, "e": e, "S": S, "σ": p, "ℓ": loss, "m": max(logits), "δ": delta} | {
        "a": p,
        "y": Y,
        "𝐚": p,
        "𝐲": Y,
        "x": mpmath.mpf("0.3"),
        "shift": shift,
        **given,
    }


def value(node, at):
    match node:
        case t.Number(text):
            return mpmath.mpf(text.replace("−", "-"))
        case t.Symbol(name):
            return at[name]
        case t.Sum(terms):
            return sum((-1 if minus else 1) * value(term, at) for minus, term in terms)
        case t.Product(factors):
            return mpmath.fprod(value(factor, at) for factor in factors)
        case t.Quotient(t.Differential(above), t.Differential(below)):
            return mpmath.diff(lambda v: value(above, moved(below, v, at)), value(below, at))
        case t.Quotient(above, below):
            return value(above, at) / value(below, at)
        case t.Power(base, exponent):
            return value(base, at) ** value(exponent, at)
        case t.Exponential(exponent):
            return mpmath.exp(value(exponent, at))
        case t.Subscript(t.Symbol("δ"), t.Symbol(name)):
            return at["δ"][tuple(at[letter] for letter in name)]
        case t.Subscript(base, index):
            return value(base, at)[int(value(index, at))]
        case t.Applied(t.Symbol("log"), (inner,)):
            return mpmath.log(value(inner, at))
        case t.Applied(t.Symbol("s"), (inner,)):
            return 1 / (1 + mpmath.exp(-value(inner, at)))
        case t.Applied(t.Symbol("max"), (inner,)):
            return max(value(inner, at))
        case t.Applied(t.Symbol("σ"), _):
            return at["σ"]
        case t.Total(term, index) if index:
            return mpmath.fsum(value(term, at | {index: k}) for k in ROWS)
        case t.Total(term):
            return mpmath.fsum(value(term, at))
        case t.Bracketed(inner):
            return value(inner, at)
        case t.Cases(cases):
            (chosen,) = (part for part, condition in cases if (at["k"] == at["c"]) == (condition.sign == "="))
            return value(chosen, at)
        case t.Relation(sides):
            first, *others = (value(side, at) for side in sides)
            for other in others:
                assert other == pytest.approx(first, rel=1e-9, abs=1e-12), str(node)
            return first
        case t.Several(parts):
            return [value(part, at) for part in parts]
    raise TypeError(node)


def moved(symbol, v, at):
    """The numbers where one logit, or x, is another."""
    if isinstance(symbol, t.Symbol):
        return at | {symbol.name: v, "s": 1 / (1 + mpmath.exp(-v))}
    c = int(value(symbol.index, at))
    given = {name: at[name] for name in ("k", "c", "i") if name in at}
    return numbers([v if j == c else z for j, z in enumerate(at["A"])], shift=at["shift"], **given)


@pytest.mark.parametrize("k", ROWS)
@pytest.mark.parametrize("c", ROWS)
def test_formulas_hold(k, c):
    at = numbers(A, k=k, c=c, i=c)
    u, T = f.A, f.Y
    for formula in (
        f.softmax(u),
        f.cross_entropy(T),
        f.terms_of_loss(T, ROWS),
        f.derivative_of_terms(u, T),
        f.derivative_of_row(u, T, ROWS, c),
        f.derivative_of_log(),
        f.chain_through_softmax(u),
        f.sum_of_exponentials(u),
        f.derivative_of_log_softmax(u),
        f.combined(u, T),
        f.gradient_of_row(u, T),
        f.quotient_rule(u, same=True),
        *((f.quotient_rule(u, same=False),) if k != c else ()),
        f.row_times_jacobian(u, ROWS)[2],
    ):
        value(formula, at)
    shifted = numbers(A, shift=max(A), k=k, c=c)
    for formula in (f.shifted_softmax(u), f.softmax_of_exponentials(u), f.minus_log_softmax(u)):
        value(formula, shifted)


def test_sigmoid():
    x = mpmath.mpf("0.3")
    value(f.sigmoid(), {"x": x, "s": 1 / (1 + mpmath.exp(-x))})


def test_matrices():
    at = numbers(A)
    entries = f.jacobian(f.A, ROWS).sides[-1].rows
    for k, c in itertools.product(ROWS, ROWS):
        of_softmax = t.derivative(f.SIGMA[k], f.A[c])
        assert value(entries[k][c], at) == pytest.approx(value(of_softmax, at), rel=1e-9)
    (minus, ratios) = f.loss_by_softmax(ROWS).sides[-1].terms[0]
    row = [(-1 if minus else 1) * value(cell, at) for cell in ratios.rows[0]]
    for c in ROWS:
        product = mpmath.fsum(row[k] * value(entries[k][c], at) for k in ROWS)
        assert product == pytest.approx(value(t.derivative(f.ELL, f.A[c]), at), rel=1e-9)


def test_a_wrong_formula_is_noticed():
    right = f.combined(f.A, f.Y)
    wrong = t.Relation((*right.sides[:2], f.SIGMA["c"] * t.Total(f.Y["k"], "k") + f.Y["c"]))
    with pytest.raises(AssertionError):
        value(wrong, numbers(A, k=0, c=1))
