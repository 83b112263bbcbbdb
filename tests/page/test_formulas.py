"""The formulas that the page fills with numbers: each side that holds numbers alone has the value of the last."""

import math
from collections.abc import Iterable
from itertools import groupby
from xml.etree import ElementTree

import pytest
from page.opening import settle
from page.oracle import State

STATES = {
    "example": "",
    "options": "#v1;A=3,1,-2/0.5,2,1.5;Y=2,0;names=cat,dog,bird;t=2;eps=0.1;r=sum;row=0",
    "mean": "#v1;A=3,1,-2/0.5,2,1.5;Y=2,0;names=cat,dog,bird;t=0.5;row=1",
}
SIGNS = {"·": "*", "−": "-", "+": "+", "(": "(", ")": ")", "\N{FUNCTION APPLICATION}": ""}
# Of these the formula holds symbols only, before the value.
SYMBOLIC = {"bits", "entropy", "losses", "smoothed"}


class Symbolic(Exception):  # noqa: N818
    """A symbol that stands for no number."""


def written(element: ElementTree.Element) -> str:
    """MathML as an expression of Python."""
    if element.tag == "mn":
        return f"({element.get('data-value', element.text)})"
    if element.tag in ("mi", "mo"):
        found = {**SIGNS, "log": "log", "e": "E", "2": "2"}.get(element.text or "")
        if found is None:
            raise Symbolic(element.text)
        return found
    if element.tag in ("mfrac", "msup"):
        left, right = (row([part]) for part in element)
        return f"(({left}){'/' if element.tag == 'mfrac' else '**'}({right}))"
    if element.tag == "mspace":
        return ""
    if element.tag == "mrow":
        return row(element)
    raise Symbolic(element.tag)


def row(elements: Iterable[ElementTree.Element]) -> str:
    parts = [part for part in map(written, elements) if part]
    for i in range(len(parts) - 1):
        if parts[i] == "log":  # of what comes next
            parts[i : i + 2] = ["", f"log({parts[i + 1]})"]
    return "".join(parts)


def values(markup: str) -> list[float]:
    """The sides of a chain of equations that have values."""
    root = ElementTree.fromstring(f"<root>{markup}</root>")
    flat = [part for formula in root.iter("math") for part in formula]
    found = []
    for is_sign, side in groupby(flat, lambda part: part.tag == "mo" and part.text == "="):
        if is_sign:
            continue
        try:
            expression = row(side)
        except Symbolic:
            continue
        found.append(eval(expression, {"log": math.log, "E": math.e}))
    return found


def test_values():
    formula = "<math><mi>x</mi><mo>=</mo><mi>log</mi><mfrac><mn>1</mn><mn>2</mn></mfrac><mo>=</mo><mn>4</mn></math>"
    assert values(formula) == [pytest.approx(-math.log(2)), 4]


@pytest.mark.parametrize("name", STATES)
def test_panel(open_page, name):
    page = open_page(STATES[name])
    unfolded, panel = page.locator("[data-figure=unfolded]"), page.locator("#panel")
    state, asked = State(STATES[name]), set()
    for button in page.locator("button[data-name]").all():
        path = button.get_attribute("data-name")
        if path in asked:
            continue
        asked.add(path)
        button.click()
        settle(page)
        shown = unfolded if path.startswith("jacobian") else panel
        sides = values("".join(shown.locator("math").evaluate_all("all => all.map(e => e.outerHTML)")))
        assert len(sides) >= 1 + (path.split("[")[0] not in SYMBOLIC), path
        value = float(button.get_attribute("data-value"))
        assert sides == pytest.approx([value] * len(sides), rel=1e-9, abs=1e-12), path
        if "[" not in path or path.split("[")[1] == f"{state.row}]":  # the inputs of another row may not be on the page
            assert page.locator(".lit").count() > 0, path
    assert len(asked) > 30
