"""What the lesson says, in text, HTML and LaTeX, is what the numbers are."""

import html.parser
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from pylatexenc.latexwalker import LatexWalker

import crossentropy as ce

A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
OPTIONS = [
    {},
    {"reduction": "none"},
    {"label_smoothing": 0.1, "reduction": "sum"},
    {"temperature": 0.5},
    {"softcap": 2.0},
    {"temperature": 2.0, "softcap": 3.0, "z_loss": 0.1, "label_smoothing": 0.3},
]
VALUES = {  # of the steps whose table has a number for each row and class
    "Logits": "logits",
    "Targets, as probabilities": "q",
    "Label smoothing": "smoothed",
    "Class weights": "b",
    "Temperature": "u",
    "Soft cap": "u",
    "Shifted logits": "shifted",
    "Exponentials": "e",
    "Softmax": "p",
    "Minus the logarithm": "log_p",
    "Gradient of the sum": "dtotal",
    "Gradient of the mean": "dmean",
}
EXTRAS = {"m": "m", "S": "S"}  # columns of a number for each row


def value_of(expression):
    """What a reader computes from a formula with numbers in it."""
    for shown, code in (("−", "-"), ("·", "*"), ("²", "**2"), ("∞", "math.inf"), ("NaN", "math.nan")):
        expression = expression.replace(shown, code)
    expression = re.sub(r"\b(exp|tanh|log)\(", r"math.\1(", expression)
    return eval(expression, {"math": math})


def close(shown, exact):
    """As close as four decimals, or three digits, tell."""
    if math.isnan(exact) or math.isinf(exact):
        return str(shown) == str(exact)
    return abs(shown - exact) <= max(5.1e-5 if abs(exact) >= 1e-2 else 0, 6e-3 * abs(exact) if abs(exact) < 1e-2 else 0)


def split(text):
    """The text's steps: title, tables of {(row, column): (expression, value)}, and other lines."""
    for part in re.split(r"(?m)^\d+\. ", text)[1:]:
        title, *lines = part.splitlines()
        cells, rest, columns, row, expressions = {}, [], [], None, []
        for line in lines:
            words = re.split(r"\s{2,}", line.strip())
            if words[0].startswith("row ") and columns:
                row, expressions = words[0], words[1:]
                cells |= {(row, name): ("", word) for name, word in zip(columns, expressions, strict=False)}
            elif words[0].startswith("= ") and row:  # the results, below what they come from
                for j, (name, word) in enumerate(zip(columns, words, strict=True)):
                    cells[row, name] = (expressions[j] if word.startswith("= ") else "", word.removeprefix("= "))
                row = None
            elif re.match(r"\s{8,}\S", line) and title.startswith(tuple(VALUES)):
                columns = words
            else:
                row = None
                rest.append(line.strip())
        yield title, cells, rest


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weights", [{}, {"class_weight": [1.0, 2.0, 0.5], "sample_weight": [1.0, 0.5]}], ids=str)
@pytest.mark.parametrize("targets", [[1, 0], [[0.2, 0.3, 0.6], [0.0, 1.0, 0.0]]], ids=str)
@pytest.mark.parametrize("logits", [A, [[40.0, 0.0, 1.0], [0.0, 30.0, -math.inf]]], ids=str)
def test_text_against_its_own_json(logits, targets, weights, options):
    x = ce.explain(logits, targets, **weights, **options)
    numbers = {name: np.array(v, float) for name, v in x.to_dict().items() if name not in ("options", "targets")}
    seen = set()
    for title, cells, rest in split(str(x)):
        key = next((key for start, key in VALUES.items() if title.startswith(start)), None)
        for (row, column), (expression, shown) in cells.items():
            if column == "target":
                continue
            i = int(row.removeprefix("row "))
            exact = numbers[EXTRAS[column]][i] if column in EXTRAS else numbers[key][i, int(column)]
            exact = -exact if key == "log_p" else exact
            value = value_of(shown)
            assert close(value, exact), (title, row, column, shown, exact)
            if expression and math.isfinite(exact):
                size = max([1.0, *(abs(float(n)) for n in re.findall(r"\d+\.?\d*", expression))])
                assert value_of(expression) == pytest.approx(value, abs=3e-4 * size), (title, expression, shown)
            seen.add(key)
        if key is None:
            for line in rest:
                match = re.search(r"^(?:.*\s)?(ℓ₀|ℓ₁|SCE|mean|N) = \S.* = (\S+)$", line)
                if match and match[1][0] == "ℓ":
                    i = "₀₁".index(match[1][1])
                    name = "cross" if title.startswith("The cross") else "losses"
                    exact = numbers[name][i] / (numbers["s"][i] if "z-loss" in title else 1)
                elif match:
                    name = {"SCE": "total", "mean": "mean", "N": "total_weight"}[match[1]]
                    exact = numbers[name]
                if match:
                    assert close(value_of(match[2]), exact), line
                    seen.add(name)
    expected = {"logits", "q", "shifted", "e", "p", "log_p", "cross", "total", "mean", "dtotal"}
    expected |= {"dmean"} if x.options.reduction == "mean" else set()
    expected |= {"u"} if "temperature" in options or "softcap" in options else set()
    expected |= {"smoothed"} if "label_smoothing" in options else set()
    expected |= {"b", "losses", "total_weight"} if weights else set()
    assert expected <= seen


def test_derivation_and_check_say_their_numbers():
    x = ce.explain(A, [1, 0])
    d, text = x.derivation(1, 2), str(x.lesson(derivation=True, row=1, target_class=2, check=True))
    for k, value in enumerate(d.jacobian[:, 2]):
        line = re.search(rf"k = {k} .=? ?.*c:  .* = (\S+) = (\S+)$", text, re.M)
        assert close(value_of(line[2]), value)
        assert value_of(line[1]) == pytest.approx(value, abs=1e-4)
    for k, term in enumerate(d.terms):
        line = re.search(rf"k = {k}:  (.*) = (\S+)$", text, re.M)
        assert close(value_of(line[2]), term)
        assert value_of(line[1]) == pytest.approx(term, abs=1e-4)
    assert close(value_of(re.search(r"^   sum = (\S+)$", text, re.M)[1]), d.terms.sum())
    assert close(value_of(re.search(r"^   ∂ℓ/∂𝐚 J +(\S+) ", text, re.M)[1]), d.product[0])
    assert "c = 2" in text
    largest = value_of(re.search(r"largest difference = (\S+)", text)[1])
    assert largest == pytest.approx(x.check().largest, rel=0.01)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_derivation_ends_at_the_gradient(options):
    x = ce.explain(A, [1, 0], class_weight=[1.0, 2.0, 0.5], sample_weight=[0.5, 2.0], **options)
    for row in range(2):
        for c in range(3):
            last = x.lesson(derivation=True, row=row, target_class=c).steps[-1]
            expression, _, shown = str(last.lines[-1]).rpartition(" = ")
            assert close(value_of(shown), x.dlogits[row, c])
            assert value_of(expression) == pytest.approx(x.dlogits[row, c], abs=2e-4)


def test_rows_that_do_not_count_are_not_smoothed():
    x = ce.explain(A, [-100, 1], label_smoothing=0.3)
    ((_, cells, _),) = [step for step in split(str(x)) if step[0].startswith("Label smoothing")]
    assert {cells["row 0", str(c)] for c in range(3)} == {("", "0")}
    assert cells["row 1", "1"][0] == "(1 − 0.3)·1 + 0.3/3"


def test_derivation_where_nothing_counts_in_the_mean():
    x = ce.explain(A, [1, 0], class_weight=[0.0, 0.0, 1.0], label_smoothing=0.3, softcap=3.0)
    assert x.total_weight == 0
    assert x.dtotal.any()
    assert not x.dlogits.any()
    last = x.lesson(derivation=True).steps[-1]
    assert last.title == "Nothing counts in the mean"
    assert str(last.formulas[0]).endswith("= 0")


def test_a_small_z_loss_keeps_its_digits():
    x = ce.explain(A, [1, 0], z_loss=1e-15, reduction="sum")
    line = str(x.lesson(derivation=True, target_class=0).steps[-1].lines[-1])
    assert value_of(line.split(" + ")[1].split("·")[0]) == pytest.approx(2e-15 * x.lse[0], rel=6e-3)


def test_options_are_explained_as_what_they_change():
    titles = {
        "label_smoothing": "Label smoothing: a changed target distribution",
        "temperature": "Temperature: a changed scale",
        "softcap": "Soft cap: a changed scale",
        "class_weight": "Class weights: a changed weight of each class",
        "sample_weight": "Sample weights: a changed weight of each row",
        "z_loss": "z-loss: a penalty added",
    }
    plain = str(ce.explain(A, [1, 0]))
    for option, title in titles.items():
        value = {"class_weight": [1, 2, 3], "sample_weight": [1, 0.5]}.get(option, 0.5)
        assert title not in plain
        assert title in str(ce.explain(A, [1, 0], **{option: value}))


def test_every_class_of_a_few_dozen_is_printed(rng):
    x = ce.explain(rng.standard_normal((2, 36)), [3, 30], names=[f"name{c}" for c in range(36)])
    for title, cells, _ in split(str(x)):
        if title == "Softmax":
            assert len({column for _, column in cells}) == 36
            assert close(value_of(cells["row 1", "name35"][1]), x.p[1, 35])
            break
    assert max(map(len, str(x).splitlines())) <= 80


def test_folded_classes_are_added_up(rng):
    x = ce.explain(rng.standard_normal((1, 1000)), [5])
    for title, cells, _ in split(str(x)):
        if title in ("Softmax", "Gradient of the sum"):
            total = sum(value_of(shown) for _, shown in cells.values())
            assert total == pytest.approx(1 if title == "Softmax" else 0, abs=1e-3)


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []

    def handle_starttag(self, tag, attributes):
        assert attributes in ([], [("display", "block")], [("width", "1em")], [("width", "0.17em")])
        self.seen.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


NASTY = ["<script>alert(1)</script>", "a & b", "$x_1^2$ 100% #{~\\}"]


def test_html_is_whole_and_escaped():
    x = ce.explain(A, [1, 0], names=NASTY)
    tags = _Tags()
    tags.feed(x._repr_html_())
    assert tags.open == []
    of_page = {"ol", "li", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "p"}
    assert of_page <= tags.seen
    assert tags.seen - of_page <= {"math", *(tag for tag in tags.seen if re.match("m[a-z]+$", tag))}
    assert set(NASTY) <= set(tags.text)
    assert "0.2424" in tags.text
    assert x.lesson(derivation=True, pitfalls=True, check=True)._repr_html_().startswith("<ol>")


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        (lambda x: x.derivation(1, 2), {"derivation": True, "row": 1, "target_class": 2}),
        (lambda x: x.check(), {"check": True}),
        (lambda x: x.pitfalls(), {"pitfalls": True}),
    ],
)
def test_parts_show_their_steps_in_a_notebook(part, whole):
    x = ce.explain([[100.0, 0.0, 0.0], [0.1, 2.0, 1.9]], [1, 0], names=NASTY)
    shown, lesson = part(x)._repr_html_(), x.lesson(**whole)._repr_html_()
    tags = _Tags()
    tags.feed(shown)
    assert tags.open == []
    steps = shown.removeprefix("<ol>").removesuffix("</ol>")
    assert steps
    assert lesson == x._repr_html_().removesuffix("</ol>") + steps + "</ol>"


def test_tex_is_whole_and_escaped():
    x = ce.explain(A, [1, 0], names=NASTY, label_smoothing=0.1, softcap=3.0, z_loss=0.1, sample_weight=[1, 0.5])
    fragment = x.lesson(derivation=True, pitfalls=True, check=True).to_tex()
    LatexWalker(fragment, tolerant_parsing=False).get_latex_nodes()  # raises where a bracket is open
    assert r"\text{\$x\_1\textasciicircum{}2\$ 100\% \#\{\textasciitilde{}\textbackslash{}\}}" in fragment
    assert set(re.findall(r"[^\x00-\x7f]", fragment)) == set()
    for columns, table in re.findall(r"\\begin\{array\}\{(l?r+)\}\n(.*?)\\end\{array\}", fragment, re.S):
        for line in table.splitlines():
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    assert fragment.count(r"\item") == len(re.findall(r"\\textbf", fragment))
    assert "0.2" in ce.explain(A, [1, 0]).to_tex()


def test_tex_has_the_numbers():
    x = ce.explain([[20.0, 0.0]], [0])
    fragment = x.to_tex()
    assert re.search(r"-2\.06\\cdot\s*10\^\{-9\}", fragment)
    assert x.dmean[0, 0] == pytest.approx(-2.06e-9, rel=1e-2)


def test_without_rich():
    script = (
        "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None; import crossentropy as ce; "
        "x = ce.explain([[2.0, 1.0]], [0]); x._repr_html_(); x.to_tex(); print(repr(x)); print(x)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("<Explanation of 1 rows over 2 classes: mean of the losses 0.31")
    assert "a lesson is printed by rich: install it with pip install 'crossentropy[cli]'" in done.stderr
