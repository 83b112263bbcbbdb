"""What the page takes from the library when it is built: formulas, and titles and notes of the lesson.

A formula has slots, which the script fills with numbers. The script itself writes no formula.
"""

import re
from typing import Any

import crossentropy as ce
from crossentropy._explain import _formulas as f
from crossentropy._explain._markup import html_prose
from crossentropy._explain._tree import (
    Applied,
    Exponential,
    Formula,
    Marked,
    Quotient,
    Relation,
    Slot,
    Symbol,
    Total,
    derivative,
    equal,
)

# The steps of the lesson whose titles and notes the page takes; of a title what follows the colon.
STEPS = {
    "logits": "Logits",
    "softmax": "Softmax",
    "sum": "Sum and mean",
    "mean": "Gradient of the mean",
    "reading": "Reading the gradient",
    "vectors": "Row 0 once more, with matrices: a vector by a vector",
    "quotient": "Row 0: the derivative of the softmax, by the quotient rule, in two cases",
    "divided": "Row 0: divided by the softmax",
    "jacobian": "Row 0: the Jacobian",
    "product": "Row 0: the row times the Jacobian",
    "temperature": "Temperature: a changed scale",
    "smoothing": "Label smoothing: a changed target distribution",
    "overflow": "Pitfall: the logarithm of a softmax without the shift",
    "lost": "Pitfall: the logarithm of a sum, shifted",
}

# Paths of the numbers that stand in the text: $i is the chosen row, $t the class of its target.
PROSE = (
    *("$name", "p[$i][$t]", "losses[$i]", "total_weight", "off_by_one[$i]", "twice[$i]"),
    *("dtotal[$i][$t]", "dmean[$i][$t]", "-dmean[$i][$t]"),
)

# Texts to copy; the script puts the reader's numbers between the braces.
SNIPPETS = {
    "numpy": """\
import numpy as np

A = np.array({logits})
Y = np.array({distributions})
tau, epsilon = {temperature}, {label_smoothing}

Y = (1 - epsilon) * Y + epsilon / A.shape[1]
u = (A - A.max(1, keepdims=True)) / tau
e = np.exp(u)
e[range(len(A)), A.argmax(1)] = 0  # exp(0) = 1, the largest: log1p adds it
log_p = u - np.log1p(e.sum(1, keepdims=True))
losses = -(Y * log_p).sum(1)
loss = losses.{reduction}()
dlogits = (np.exp(log_p) - Y) / tau{divided}
print(loss)
""",
    "torch": """\
import torch
import torch.nn.functional as F

logits = torch.tensor({logits}, dtype=torch.float64, requires_grad=True)
targets = torch.tensor({targets})
loss = F.cross_entropy(logits / {temperature}, targets, label_smoothing={label_smoothing}, reduction="{reduction}")
loss.backward()
print(loss.item())
print(logits.grad)
""",
    "latex": r"""\[
A = \begin{pmatrix} {A} \end{pmatrix}, \quad
Y = \begin{pmatrix} {Y} \end{pmatrix}, \quad
\sigma(A) = \begin{pmatrix} {p} \end{pmatrix}
\]
\[
L = {loss}, \quad
\frac{\partial L}{\partial A} = \begin{pmatrix} {dlogits} \end{pmatrix}
\]
""",
}


def content(example: dict[str, Any]) -> dict[str, Any]:
    """Formulas as MathML by name, titles and notes of the lesson on the example, and what the script fills in."""
    explanation = ce.explain(example["logits"], example["targets"], example["names"])
    with_options = ce.explain(example["logits"], example["targets"], temperature=2, label_smoothing=0.1)
    failing = ce.explain([[1000, 0], [40, 0]], [1, 0])
    lessons = explanation.lesson(derivation=True), with_options.lesson(), failing.lesson(pitfalls=True)
    steps = [step for lesson in lessons for step in lesson.steps]
    by_title = {step.title: step for step in reversed(steps)}
    found = {name: by_title[title] for name, title in STEPS.items()}
    titles = {name: step.title.split(": ", 1)[-1] for name, step in found.items()}
    operations = _operations()
    return {
        "operations": {name: str(tree) for name, tree in operations.items()},
        "formulas": {
            **{name: _mathml(tree) for name, tree in {**_symbols(), **operations}.items()},
            **{name: _sides(tree) for name, tree in {**_shown(), **_origins()}.items()},
        },
        "live": ["options", *_origins()],  # those with slots, which the script needs
        "titles": {name: title[0].upper() + title[1:] for name, title in titles.items()},
        "notes": {name: html_prose(step.note) for name, step in found.items()},
        "settings": {name: example[name] for name in ("rate", "temperature", "label_smoothing")},
        "prose": PROSE,
        "snippets": SNIPPETS,
    }


E, P, R, LOG1P = map(Symbol, ("e", "p", "r", "log1p"))
ROW_LOSS = equal(f.ELL["i"], -Total(f.Y["c"] * f.LOG(f.SIGMA["c"]), "c"))


def _mathml(tree: Formula) -> str:
    """MathML without the rows of one child, which are half of it."""
    return re.sub(r"<mrow>(<m[ino]>[^<]*</m[ino]>)</mrow>", r"\1", tree.mathml())


def _sides(tree: Formula) -> str:
    """A formula that stands by itself: an element for each side but the first, so that it can be broken there."""
    if not isinstance(tree, Relation):
        return _mathml(tree)
    first, *others = (_mathml(side) for side in (Relation(tree.sides[:2], tree.sign), *tree.sides[2:]))
    sign = f"<math><mo>{tree.sign}</mo>"
    return " ".join((first, *(other.replace("<math>", sign, 1) for other in others)))


def _symbols() -> dict[str, Formula]:
    """Those that stand in a line."""
    return {"A": f.A, "sigma": f.SIGMA, "push": -derivative(f.L, f.A)}


def _shown() -> dict[str, Formula]:
    """Those that stand by themselves."""
    smoothed = (1 - Slot("label_smoothing")) * Marked(f.Y["c"], "soft") + Slot("label_smoothing") / Slot("C")
    scaled = f.A / Slot("temperature")
    return {
        "softmax": f.softmax(f.A),
        "row-loss": f.cross_entropy(f.Y),
        "slope": equal(derivative(-f.LOG(P), P, "d"), -(1 / P)),
        "total-loss": f.sum_of_losses(),
        "mean-loss": f.mean_of_losses(),
        "gradients": equal(derivative(f.MEAN, f.A), (f.SIGMA(f.A) - f.Y) / f.N),
        "step": Relation((f.A, f.A - f.ETA * derivative(f.L, f.A)), "←"),
        "quotient-same": f.quotient_rule(f.A, same=True),
        "quotient-other": f.quotient_rule(f.A, same=False),
        "divided": f.derivative_of_log_softmax(f.A),
        "jacobian": f.jacobian(f.A, range(3)),
        "ratios": f.loss_by_softmax(range(3)),
        "result": f.row_times_jacobian(f.A, range(3))[2],
        "gradient": f.gradient_of_row(f.A, f.Y),
        "options": equal(
            f.ELL,
            -Total(
                Marked(smoothed, "smooth") * f.LOG(Applied(f.SIGMA, (Marked(scaled, "hot"),))["c"]),
                "c",
            ),
        ),
    }


def _origins() -> dict[str, Formula]:
    """Where a number comes from, with slots for the numbers that it comes from."""
    p, y, S, N, value = map(Slot, ("p", "y", "S", "N", "value"))
    e_k, e_c, p_k, p_c = map(Slot, ("e_k", "e_c", "p_k", "p_c"))
    epsilon = Slot("label_smoothing")
    found: dict[str, Formula] = {
        "smoothed": equal(
            Symbol("Y′")["c"],
            (1 - f.EPSILON) * f.Y["c"] + f.EPSILON / f.C,
            (1 - epsilon) * Slot("q") + epsilon / Slot("C"),
            value,
        ),
        "p": equal(f.SIGMA["c"], E["c"] / f.S, Slot("e") / S, value),
        "log_p": equal(-f.LOG(f.SIGMA["c"]), -f.LOG(p), value),
        "losses": equal(*ROW_LOSS.sides, value),
        "losses-one-hot": equal(*ROW_LOSS.sides, -f.LOG(p), value),
        "total": equal(f.SCE, Total(f.ELL["i"], "i"), Slot("losses"), value),
        "mean": equal(f.MEAN, f.SCE / f.N, Slot("total") / N, value),
        "tangent": equal(-(1 / P), -(1 / p), value),
        "bits": equal(f.MEAN / f.LOG("2"), value),
        "perplexity": equal(Exponential(f.MEAN), Exponential(Slot("mean")), value),
        "entropy": equal(f.H(f.Y), -Total(f.Y["c"] * f.LOG(f.Y["c"]), "c"), value),
        "jacobian-same": equal(
            derivative(f.SIGMA["c"], f.A["c"]), (e_c * S - e_c * e_c) / S**2, p_c * Slot("rest"), value
        ),
        "jacobian-other": equal(derivative(f.SIGMA["k"], f.A["c"]), (0 * S - e_k * e_c) / S**2, -(p_k * p_c), value),
        "ratio": equal(-(f.Y["k"] / f.SIGMA["k"]), -(y / p), value),
        "product-of": equal(-Total(f.Y["k"] / f.SIGMA["k"] * f.J["kc"], "k"), f.SIGMA["c"] - f.Y["c"], p - y, value),
    }
    for scaled in (False, True):
        for mean in (False, True):
            symbols, numbers = f.SIGMA["c"] - f.Y["c"], p - y
            if scaled:
                symbols, numbers = symbols / f.TAU, numbers / Slot("temperature")
            if mean:
                symbols, numbers = symbols / f.N, numbers / N
            of = derivative(f.MEAN if mean else f.SCE, f.A["c"])
            name = f"{'-scaled' if scaled else ''}-{'mean' if mean else 'sum'}"
            found[f"gradient{name}"] = equal(of, symbols, numbers, value)
            found[f"push{name}"] = equal(-of, -symbols, -numbers, value)
    return found


def _operations() -> dict[str, Formula]:
    """The textbook's formula and the stable one, an operation at a time."""
    shifted = f.A["c"] - f.SHIFT
    return {
        "textbook-exp": equal(E["c"], Exponential(f.A["c"])),
        "textbook-sum": equal(f.S, Total(E["c"], "c")),
        "textbook-quotient": equal(f.SIGMA["t"], Quotient(E["t"], f.S)),
        "textbook-log": f.LOG(f.SIGMA["t"]),
        "textbook-loss": equal(f.ELL, -f.LOG(f.SIGMA["t"])),
        "stable-max": equal(f.SHIFT, f.MAX(f.A), f.A["j"]),
        "stable-shift": shifted,
        "stable-exp": equal(E["c"], Exponential(shifted)),
        "stable-sum": equal(R, Total(E["c"], "c≠j")),
        "stable-log1p": LOG1P(R),
        "stable-loss": equal(f.ELL, LOG1P(R) - (f.A["t"] - f.SHIFT)),
    }
