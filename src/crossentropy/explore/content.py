"""What the page takes from the library when it is built: formulas, and the titles and notes of the lesson.

A formula has slots, which the script fills with numbers. The script itself writes no formula.
"""

from typing import Any

import crossentropy as ce

# Paths of the numbers that stand in the text: $i is the chosen row, $t the class of its target.
PROSE = (
    "$name",
    "p[$i][$t]",
    "-log_p[$i][$t]",
    "losses[$i]",
    "tangent[$i]",
    "uniform",
    "mean",
    "total",
    "total_weight",
    "loss",
    "smoothed[$i][$t]",
    "dtotal[$i][$t]",
    "dmean[$i][$t]",
    "-dmean[$i][$t]",
    "twice[$i]",
    "off_by_one[$i]",
    "entropy[$i]",
    "bits",
    "perplexity",
)

# The steps of the lesson whose notes the page takes.
NOTES = {
    "softmax": "Softmax",
    "shifted": "Shifted logits",
    "row_loss": "The cross-entropy of each row",
    "gradient_mean": "Gradient of the mean",
}


def content(example: dict[str, Any]) -> dict[str, Any]:
    """Formulas as MathML by name, and the words of the lesson on the example by step."""
    names = ("temperature", "label_smoothing", "reduction")
    explanation = ce.explain(
        example["logits"], example["targets"], example["names"], **{name: example[name] for name in names}
    )
    notes = {step.title: step.note for step in explanation.lesson().steps}
    return {
        "formulas": formulas(),
        "notes": {name: notes[title] for name, title in NOTES.items()},
        "settings": {name: example[name] for name in ("rate", "temperature", "label_smoothing")},
        "prose": PROSE,
        "snippets": SNIPPETS,
    }


def m(tag: str, *children: str) -> str:
    return f"<{tag}>{''.join(children)}</{tag}>"


def sub(base: str, index: str) -> str:
    return m("msub", m("mi", base), m("mi", index))


def frac(top: str, bottom: str) -> str:
    return m("mfrac", m("mrow", top), m("mrow", bottom))


def op(text: str) -> str:
    return m("mo", text)


def slot(name: str) -> str:
    return f'<mn data-slot="{name}"></mn>'


def log(x: str) -> str:
    return m("mi", "log") + op("\u2061") + x


def exp(x: str) -> str:
    return m("mi", "exp") + op("\u2061") + x


def group(*children: str) -> str:
    return m("mrow", op("("), *children, op(")"))


def summed(over: str) -> str:
    return m("munder", op("∑"), m("mi", over))


EQ, MINUS, PLUS, DOT = op("="), op("−"), op("+"), op("·")
ONE, ZERO = m("mn", "1"), m("mn", "0")
A, L, N, S, Y, p = (m("mi", name) for name in ("A", "L", "N", "S", "Y", "p"))
DLDA = frac(op("∂") + L, op("∂") + A)


def gradient(minus: bool, scaled: bool, mean: bool) -> str:
    """Of the loss by one logit; with a minus, the push on it."""
    bottom = DOT.join([*([m("mi", "τ")] if scaled else []), *([N] if mean else [])])
    below = DOT.join([*([slot("temperature")] if scaled else []), *([slot("N")] if mean else [])])
    symbols, numbers = sub("σ", "c") + MINUS + sub("Y", "c"), slot("p") + MINUS + slot("y")
    if bottom:
        symbols, numbers = frac(symbols, bottom), frac(numbers, below)
    if minus:
        symbols, numbers = (
            MINUS + symbols if bottom else MINUS + group(symbols),
            MINUS + numbers if bottom else MINUS + group(numbers),
        )
    left = (MINUS if minus else "") + frac(op("∂") + L, op("∂") + sub("A", "c"))
    return left + EQ + symbols + EQ + numbers + EQ + slot("value")


def formulas() -> dict[str, str]:
    sigma_c, sigma_k = sub("σ", "c"), sub("σ", "k")
    found = {
        "A": A,
        "sigma": m("mi", "σ"),
        "push": MINUS + frac(op("∂") + L, op("∂") + A),
        "softmax": sigma_c + EQ + frac(exp(sub("A", "c")), summed("k") + exp(sub("A", "k"))),
        "row-loss": m("mi", "ℓ") + EQ + MINUS + summed("c") + sub("Y", "c") + log(sigma_c),
        "slope": frac(m("mi", "d"), m("mi", "d") + p) + group(MINUS + log(p)) + EQ + MINUS + frac(ONE, p),
        "mean": L + EQ + frac(ONE, N) + summed("i") + sub("ℓ", "i"),
        "gradient": DLDA
        + EQ
        + frac(m("mi", "σ") + group(A) + MINUS + Y, N),
        "step": A + op("←") + A + MINUS + m("mi", "η") + DLDA,
        "quotient": frac(op("∂") + sigma_k, op("∂") + sub("A", "c"))
        + EQ
        + m(
            "mrow",
            op("{"),
            m(
                "mtable",
                m("mtr", m("mtd", sigma_c + group(ONE + MINUS + sigma_c)), m("mtd", m("mtext", "if k = c"))),
                m("mtr", m("mtd", MINUS + sigma_c + sigma_k), m("mtd", m("mtext", "if k ≠ c"))),
            ),
        ),
        "jacobian-same": frac(op("∂") + sigma_c, op("∂") + sub("A", "c"))
        + EQ
        + frac(slot("e_c") + DOT + slot("S") + MINUS + slot("e_c") + DOT + slot("e_c"), m("msup", slot("S"), m("mn", "2")))
        + EQ
        + sigma_c
        + group(ONE + MINUS + sigma_c)
        + EQ
        + slot("p_c")
        + DOT
        + slot("rest")
        + EQ
        + slot("J"),
        "jacobian-other": frac(op("∂") + sigma_k, op("∂") + sub("A", "c"))
        + EQ
        + frac(ZERO + DOT + slot("S") + MINUS + slot("e_k") + DOT + slot("e_c"), m("msup", slot("S"), m("mn", "2")))
        + EQ
        + MINUS
        + sigma_k
        + sigma_c
        + EQ
        + MINUS
        + slot("p_k")
        + DOT
        + slot("p_c")
        + EQ
        + slot("J"),
        "product": MINUS
        + m("msup", group(frac(Y, m("mi", "σ"))), m("mi", "T"))
        + m("mi", "J")
        + EQ
        + m("mi", "σ")
        + MINUS
        + Y,
        "options": m("mi", "ℓ")
        + EQ
        + MINUS
        + summed("c")
        + group(
            group(ONE + MINUS + slot("label_smoothing")) + sub("Y", "c") + PLUS + frac(slot("label_smoothing"), slot("C"))
        )
        + log(m("mi", "σ") + m("msub", group(frac(A, slot("temperature"))), m("mi", "c"))),
        # What a number comes from.
        "p": sigma_c + EQ + frac(exp(group(sub("A", "c") + MINUS + m("mi", "m"))), S) + EQ + frac(slot("e"), slot("S")) + EQ + slot("value"),
        "log_p": MINUS + log(sigma_c) + EQ + MINUS + log(slot("p")) + EQ + slot("value"),
        "losses": sub("ℓ", "i") + EQ + MINUS + summed("c") + sub("Y", "c") + log(sigma_c) + EQ + slot("value"),
        "losses-one-hot": sub("ℓ", "i") + EQ + MINUS + log(sub("σ", "t")) + EQ + MINUS + log(slot("p")) + EQ + slot("value"),
        "total": L + EQ + summed("i") + sub("ℓ", "i") + EQ + slot("losses") + EQ + slot("value"),
        "mean-of": L + EQ + frac(ONE, N) + summed("i") + sub("ℓ", "i") + EQ + frac(slot("total"), slot("N")) + EQ + slot("value"),
        "tangent": MINUS + frac(ONE, p) + EQ + MINUS + frac(ONE, slot("p")) + EQ + slot("value"),
        "bits": frac(slot("mean"), log(m("mn", "2"))) + EQ + slot("value"),
        "perplexity": exp(slot("mean")) + EQ + slot("value"),
        "ratio": MINUS + frac(sub("Y", "k"), sigma_k) + EQ + MINUS + frac(slot("y"), slot("p")) + EQ + slot("value"),
        "product-of": MINUS + summed("k") + frac(sub("Y", "k"), sigma_k) + sub("J", "kc") + EQ + slot("p") + MINUS + slot("y") + EQ + slot("value"),
        "entropy": m("mi", "H") + group(Y) + EQ + MINUS + summed("c") + sub("Y", "c") + log(sub("Y", "c")) + EQ + slot("value"),
        # The operations of the textbook's formula and of the stable one.
        "textbook-exp": sub("e", "c") + EQ + exp(sub("A", "c")),
        "textbook-sum": S + EQ + summed("c") + sub("e", "c"),
        "textbook-quotient": sub("σ", "t") + EQ + frac(sub("e", "t"), S),
        "textbook-log": log(sub("σ", "t")),
        "textbook-loss": m("mi", "ℓ") + EQ + MINUS + log(sub("σ", "t")),
        "stable-max": m("mi", "m") + EQ + m("mi", "max") + A,
        "stable-shift": sub("A", "c") + MINUS + m("mi", "m"),
        "stable-exp": sub("e", "c") + EQ + exp(group(sub("A", "c") + MINUS + m("mi", "m"))),
        "stable-sum": m("mi", "r") + EQ + S + MINUS + ONE,
        "stable-log1p": m("mi", "log1p") + op("\u2061") + m("mi", "r"),
        "stable-loss": m("mi", "ℓ") + EQ + m("mi", "log1p") + m("mi", "r") + MINUS + group(sub("A", "t") + MINUS + m("mi", "m")),
    }
    for scaled in (False, True):
        for mean in (False, True):
            for minus in (False, True):
                name = f"{'push' if minus else 'gradient'}{'-scaled' if scaled else ''}{'-mean' if mean else '-sum'}"
                found[name] = gradient(minus, scaled, mean)
    return {name: m("math", m("mrow", text)) for name, text in found.items()}


# Texts to copy; the script puts the reader's numbers between the braces.
SNIPPETS = {
    "numpy": """import numpy as np

A = np.array({logits})
Y = np.array({distributions})
Y = (1 - {label_smoothing}) * Y + {label_smoothing} / A.shape[1]
u = A / {temperature}
u = u - u.max(1, keepdims=True)
log_p = u - np.log(np.exp(u).sum(1, keepdims=True))
loss = -(Y * log_p).sum(1).{reduction}()
dlogits = (np.exp(log_p) - Y) / ({temperature} * {divisor})
print(loss)
""",
    "torch": """import torch
import torch.nn.functional as F

logits = torch.tensor({logits}, dtype=torch.float64, requires_grad=True)
targets = torch.tensor({targets}{target_type})
loss = F.cross_entropy(logits / {temperature}, targets, label_smoothing={label_smoothing}, reduction="{reduction}")
loss.backward()
print(loss.item())
print(logits.grad)
""",
    "latex": r"""\[
A = \begin{pmatrix} {A} \end{pmatrix},\quad
Y = \begin{pmatrix} {Y} \end{pmatrix},\quad
\sigma(A) = \begin{pmatrix} {p} \end{pmatrix}
\]
\[
L = {loss},\quad
\frac{\partial L}{\partial A} = \begin{pmatrix} {dlogits} \end{pmatrix}
\]
""",
}
