"""A formula says the same in Unicode, LaTeX and MathML, and a real TeX reads it."""

import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pylatexenc.latexwalker import LatexWalker

import crossentropy as ce
from crossentropy._explain import _formulas
from crossentropy._explain._tree import Bracketed, Exponential, Number, Symbol, formula

EVERYTHING = {
    "label_smoothing": 0.1,
    "softcap": 3.0,
    "temperature": 2.0,
    "z_loss": 0.1,
    "class_weight": [1.0, 2.0, 0.5],
    "sample_weight": [1.0, 0.5],
}


def lesson(logits=((2.0, 1.0, 0.1), (0.1, 2.0, 1.9)), targets=(1, 0), **options):
    return ce.explain(logits, targets, **options).lesson(derivation=True, check=True, pitfalls=True)


def formulas_of(lesson):
    for step in lesson.steps:
        yield from (*step.formulas, *step.lines)
        for row in step.table.cells if step.table else ():
            for cell in row:
                yield from filter(None, (cell.value, cell.expression))


LESSONS = [lesson(), lesson(**EVERYTHING), lesson([[1000.0, 0.0, math.nan], [-math.inf, 3.0, 40.0]], [0, 1])]
FORMULAS = [f for each in LESSONS for f in formulas_of(each)]


def numeric():
    """Trees of numbers, and what Python makes of the same operations."""
    numbers = st.integers(-9, 9).map(lambda n: (formula(n), float(n)))

    def grown(inner):
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda p: (p[0][0] + p[1][0], p[0][1] + p[1][1])),
            pairs.map(lambda p: (p[0][0] - p[1][0], p[0][1] - p[1][1])),
            pairs.map(lambda p: (p[0][0] * p[1][0], p[0][1] * p[1][1])),
            pairs.map(lambda p: (p[0][0] / p[1][0], p[0][1] / p[1][1] if p[1][1] else math.nan)),
            inner.map(lambda p: (-p[0], -p[1])),
            inner.filter(lambda p: abs(p[1]) < 1e50).map(lambda p: (p[0] ** 2, p[1] ** 2)),
            inner.map(lambda p: (Bracketed(p[0]), p[1])),
        )

    return st.recursive(numbers, grown, max_leaves=8).filter(lambda p: not math.isnan(p[1]))


def of_unicode(text):
    for shown, code in (("−", "-"), ("·", "*"), ("²", "**2"), ("[", "("), ("]", ")")):
        text = text.replace(shown, code)
    return eval(text)


def of_latex(text):
    for shown, code in (
        (r"\left", ""),
        (r"\right", ""),
        (r"\cdot", "*"),
        ("^", "**"),
        *zip("[]{}", "()()", strict=True),
    ):
        text = text.replace(shown, code)
    return eval(text)


def of_mathml(element):
    parts = [of_mathml(child) for child in element]
    if element.tag == "mn":
        return element.text
    if element.tag == "mo":
        return {"−": "-", "·": "*", "[": "(", "]": ")"}.get(element.text, element.text)
    if element.tag == "mfrac":
        return f"(({parts[0]})/({parts[1]}))"
    if element.tag == "msup":
        return f"({parts[0]})**({parts[1]})"
    return "".join(parts)


@given(numeric())
@settings(max_examples=400, deadline=None)
def test_the_three_forms_have_one_value(tree):
    given, value = tree
    assert of_unicode(given.unicode()) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert of_latex(latex_groups(given.tex())) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert eval(of_mathml(ET.fromstring(given.mathml()))) == pytest.approx(value, rel=1e-9, abs=1e-9)


def latex_groups(text):
    """Fractions in brackets of their own, as they stand on the page."""
    while r"\frac" in text:
        begin = text.rindex(r"\frac")
        above, rest = group(text[begin + 5 :])
        below, rest = group(rest)
        text = f"{text[:begin]}(({above})/({below})){rest}"
    return text


def group(text):
    assert text[0] == "{"
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return text[1:i], text[i + 1 :]
    raise AssertionError(text)


def test_forms_of_a_few():
    A, k = Symbol("A"), Symbol("k")
    assert str(A["k"] - 1) == "A_k − 1"
    assert (A["k"] / (k + 1)).tex() == r"\frac{A_{k}}{k + 1}"
    assert str(Exponential(-A[12]) * Number("8.5e−18")) == "exp(−A₁₂)·8.5e−18"
    assert (Exponential(A) * Number("8.5e−18")).tex() == r"e^{A} \cdot 8.5\cdot 10^{-18}"
    assert str(_formulas.jacobian(A, (0, 1))).splitlines() == [
        "J = ∂𝐚/∂A = ⎡a₀·(1 − a₀)     −a₀·a₁  ⎤",
        "            ⎣   −a₁·a₀    a₁·(1 − a₁)⎦",
    ]


@pytest.mark.parametrize("given", [pytest.param(each, id=str(i)) for i, each in enumerate(LESSONS)])
def test_latex_of_a_lesson(given):
    text = given.to_tex()
    LatexWalker(text, tolerant_parsing=False).get_latex_nodes()  # raises where a bracket is open
    assert r"\_" not in text, "an index of a formula, written as text"
    assert "/" not in re.sub(
        r"\\text(?:bf)?\{(?:[^{}]|\{[^{}]*\})*\}", "", "".join(re.findall(r"(?s)\\\[.*?\\\]", text))
    )
    assert r"\frac" in text


def test_mathml_of_lessons():
    known = {"math", "mi", "mn", "mo", "mtext", "mrow", "mfrac", "msup", "msub", "munder", "mover", "mspace"}
    known |= {"mtable", "mtr", "mtd"}
    counts = {"mfrac": 2, "msup": 2, "msub": 2, "munder": 2, "mover": 2}
    for each in FORMULAS:
        root = ET.fromstring(each.mathml(block=True))
        assert root.attrib == {"display": "block"}
        for element in root.iter():
            assert element.tag in known
            assert len(element) == counts.get(element.tag, len(element)), each
            assert set(element.attrib) <= {"display", "width"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX: sudo apt install texlive-latex-base")
def test_tex_reads_the_lessons(tmp_path):
    body = "\n".join(each.to_tex() for each in LESSONS)
    (tmp_path / "lesson.tex").write_text(
        "\\documentclass{article}\\usepackage{amsmath}\\begin{document}\n" + body + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "lesson.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "lesson.log").read_text(errors="replace")
    assert (tmp_path / "lesson.pdf").stat().st_size > 10_000
