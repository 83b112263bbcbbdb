"""Docstrings, the README and the demo do what they say."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce

ROOT = Path(__file__).parent.parent
MODULES = ["crossentropy", *(f"crossentropy.{m.name}" for m in pkgutil.iter_modules(ce.__path__) if m.name != "_core")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    threads = ce.get_num_threads()
    try:
        assert doctest.testmod(importlib.import_module(name)).failed == 0
    finally:
        ce.set_num_threads(threads)


def test_every_public_function_shows_an_example_that_runs():
    for name in ("cross_entropy", "cross_entropy_with_grad", "softmax", "log_softmax", "logsumexp", "CrossEntropyLoss"):
        assert ">>> " in getattr(ce, name).__doc__, name


def test_readme_code():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        names: dict = {}
        exec(block, names)
        np.testing.assert_allclose(names["loss"], 2.018508394741883, rtol=1e-12)
        shown = np.array(eval(re.search(r"# dlogits = .* = (\[\[.*\]\])", block)[1]))
        np.testing.assert_allclose(names["dlogits"], shown, atol=5e-5)


def test_readme_is_complete():
    assert re.findall(r"@[A-Z_]+@", (ROOT / "README.md").read_text()) == []


def test_demo(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "mean 2.0185 nats" in done.stdout
    assert done.stderr == "", "a progress bar in a pipe"
    logits, targets = np.load(tmp_path / "logits.npy"), np.load(tmp_path / "targets.npy")
    exact = ce.reference.cross_entropy_with_grad(logits, targets)[0]
    assert f"held out {exact:.4f}" in done.stdout
    assert exact < 0.5, "it has learnt: log 10 is 2.3"
    assert (tmp_path / "loss.png").stat().st_size > 10_000
