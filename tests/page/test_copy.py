"""What the page gives away: code that runs and prints its loss, LaTeX that parses, a link, a drawing."""

import io
import re
import subprocess
import sys
import types
from contextlib import redirect_stdout
from unittest.mock import patch
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


def copied(page, what):
    page.evaluate("navigator.clipboard.writeText('nothing')")
    page.locator(f"[data-control=copy-{what}]").click()
    page.locator("#status", has_text="copied").wait_for(state="attached")
    return page.evaluate("navigator.clipboard.readText()")


def floats(text):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


def run_numpy(source):
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return floats(done.stdout)


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


def run_torch(source):
    out = io.StringIO()
    with patch.dict(sys.modules, stand_in()), redirect_stdout(out):
        exec(compile(source, "snippet", "exec"), {})
    return floats(out.getvalue())


@pytest.mark.parametrize("name", STATES)
def test_copies(open_page, name):
    page = open_page(STATES[name], clock=False)
    seen = read(page)
    loss = pytest.approx(State(seen["fragment"]).x.loss, rel=1e-12, abs=1e-300)
    assert loss in run_numpy(copied(page, "numpy"))
    assert loss in run_torch(copied(page, "torch"))
    check_latex(copied(page, "latex"))
    check_svg(copied(page, "svg"))
    link = copied(page, "link")
    other = read(open_page(link[link.index("#") :]))
    assert wrong(other) == []
    assert [(n["name"], n["value"]) for n in other["numbers"]] == [(n["name"], n["value"]) for n in seen["numbers"]]


def check_latex(source):
    LatexWalker(source, tolerant_parsing=False).get_latex_nodes()
    assert "\\frac" in source
    assert "\\sigma" in source
    assert "undefined" not in source
    assert "NaN" not in source
    assert source.isascii()


def check_svg(source):
    drawing = ElementTree.fromstring(source)
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.findall(r"href|src|url\(|@import|https?:", source.replace("http://www.w3.org/2000/svg", ""))
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
