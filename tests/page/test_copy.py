"""What the page gives away: code that runs and prints its loss, LaTeX that parses, a link, a drawing."""

import io
import re
import subprocess
import sys
import types
from contextlib import redirect_stdout
from xml.etree import ElementTree

import numpy as np
import pytest
from page.opening import settle
from page.oracle import State
from page.reading import read, wrong
from pylatexenc.latexwalker import LatexWalker

import crossentropy as ce

STATES = {
    "example": "",
    "options": "#v1;A=3,1,-2/0.5,2,1.5;Y=2,0;names=cat,dog,bird;t=2;eps=0.1;r=sum;rate=0.5;trace=3",
    "soft": "#v1;A=1,-30,4,2.5;Y=0.25,0,0.5,0.25;names=a,b%20%25,c_d,%5Ce",
    "far": "#v1;A=1000,0/0,800;Y=0,0;names=no,yes",
    "sure": "#v1;A=60,0,0/0,50,0;Y=0,1;names=a,b,c",
}


@pytest.fixture(params=STATES)
def page(request, open_page):
    return open_page(STATES[request.param], clock=False)


def copied(page, what):
    page.evaluate("navigator.clipboard.writeText('nothing')")
    page.locator(f"[data-control=copy-{what}]").click()
    page.locator("#status", has_text="copied").wait_for(state="attached")
    return page.evaluate("navigator.clipboard.readText()")


def floats(text):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


def test_numpy(page):
    loss = State(read(page)["fragment"]).x.loss
    done = subprocess.run([sys.executable, "-c", copied(page, "numpy")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert any(x == pytest.approx(loss, rel=1e-12, abs=1e-15) for x in floats(done.stdout)), done.stdout


def stand_in():
    """Of PyTorch what the snippet uses, by this library."""

    class Tensor(np.ndarray):
        def requires_grad_(self):
            return self

        def backward(self):
            pass

        @property
        def grad(self):
            return 0

    def cross_entropy(logits, target, **options):
        target = np.asarray(target)
        return np.asarray(ce.cross_entropy(np.asarray(logits), target, **options)).view(Tensor)

    def tensor(values, dtype=None, requires_grad=False):
        return np.array(values, dtype).view(Tensor)

    functional = types.ModuleType("torch.nn.functional")
    functional.cross_entropy = cross_entropy
    nn = types.ModuleType("torch.nn")
    nn.functional = functional
    torch = types.ModuleType("torch")
    torch.nn, torch.tensor, torch.float64, torch.double = nn, tensor, np.float64, np.float64
    return {"torch": torch, "torch.nn": nn, "torch.nn.functional": functional}


def test_torch(page, monkeypatch):
    loss = State(read(page)["fragment"]).x.loss
    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(copied(page, "torch"), "snippet", "exec"), {})
    assert any(x == pytest.approx(loss, rel=1e-12) for x in floats(out.getvalue())), out.getvalue()


def test_latex(page):
    source = copied(page, "latex")
    LatexWalker(source, tolerant_parsing=False).get_latex_nodes()
    assert "\\frac" in source or "\\sigma" in source
    assert "undefined" not in source
    assert source.isascii()


def test_link(page, open_page):
    link, seen = copied(page, "link"), read(page)
    other = open_page(link[link.index("#") :])
    assert wrong(read(other)) == []
    values = [[(n["name"], n["value"]) for n in numbers] for numbers in (seen["numbers"], read(other)["numbers"])]
    assert values[0] == values[1]


def test_svg(page):
    source = copied(page, "svg")
    drawing = ElementTree.fromstring(source)
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.findall(r"(?:href|src|url\(|@import|https?:)", source.replace("http://www.w3.org/2000/svg", ""))
    assert "var(--" not in source
    assert "class=" not in source


def test_without_a_clipboard_the_text_is_selected(open_page):
    page = open_page()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')) }")
    for what in ("numpy", "torch", "latex", "link", "svg"):
        page.locator(f"[data-control=copy-{what}]").click()
        settle(page)
        selected = page.evaluate("getSelection().toString()").strip()
        assert len(selected) > 40, what
        assert "selected" in page.locator("#status").inner_text()
