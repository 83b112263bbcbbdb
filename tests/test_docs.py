"""Docstrings, the README and the demo do what they say."""

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce

ROOT = Path(__file__).parent.parent
PACKAGE = Path(ce.__file__).parent
SOURCES = [path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
# All but the adapters, which need their framework and have tests of their own.
MODULES = [".".join(path.parts).removesuffix(".__init__") for path in SOURCES if path.parts[1] not in ("torch", "jax")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    threads = ce.get_num_threads()
    try:
        assert doctest.testmod(importlib.import_module(name)).failed == 0
    finally:
        ce.set_num_threads(threads)


def test_every_public_function_shows_an_example_that_runs():
    functions = [name for name in ce.__all__ if callable(getattr(ce, name))]
    assert len(functions) > 8
    for name in functions:
        assert ">>> " in getattr(ce, name).__doc__, name


def test_readme_code():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        names: dict = {}
        exec(block, names)
        if "hidden" in names:
            logits = names["hidden"] @ names["classifier"].T
            loss, dlogits = ce.reference.cross_entropy_with_grad(logits, names["targets"])
            assert names["loss"] == pytest.approx(loss, rel=1e-12)
            gradients = names["gradients"]
            np.testing.assert_allclose(gradients.hidden, dlogits @ names["classifier"], atol=1e-14)
            shown = re.findall(r"\((\d+), (\d+)\)", block[block.index("# gradients") :])
            assert [tuple(map(int, shape)) for shape in shown] == [gradients.hidden.shape, gradients.classifier.shape]
            assert gradients.bias is None
            continue
        np.testing.assert_allclose(names["loss"], 2.018508394741883, rtol=1e-12)
        shown = np.array(eval(re.search(r"# dlogits = .* = (\[\[.*\]\])", block)[1]))
        np.testing.assert_allclose(names["dlogits"], shown, atol=5e-5)


def test_demo(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a progress bar in a pipe"
    hidden, head, targets = (np.load(tmp_path / f"{name}.npy") for name in ("hidden", "head", "targets"))
    exact = ce.reference.cross_entropy_with_grad(hidden @ head.T, targets)[0]
    assert f"held out {exact:.4f}" in done.stdout
    assert exact < 0.5, "it has learnt: log 10 is 2.3"
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_word_model(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "word_model.py", tmp_path, "--epochs", "0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a progress bar in a pipe"
    classes = int(re.search(r"vocabulary of ([\d,]+)", done.stdout)[1].replace(",", ""))
    assert classes > 10_000
    hidden, head, bias, targets = (np.load(tmp_path / f"{name}.npy") for name in ("hidden", "head", "bias", "targets"))
    exact = ce.reference.cross_entropy_with_grad(hidden[:500] @ head.T + bias, targets[:500])[0]
    assert exact == pytest.approx(np.log(classes), rel=1e-2), "untrained: every word as likely as any other"
    losses = re.findall(r"(?:linear head|whole logits)\s+\d+\s+\d+\s+([\d.]+)", done.stdout)
    assert len(losses) == 2
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)


def test_pages_are_what_the_library_computes(tmp_path):
    """`make docs` writes them anew."""

    def comparable(page):  # the rounding left in a finite difference is no promise
        return re.sub(r"(?m)^   largest difference = .*$", "", page.read_text())

    subprocess.run([sys.executable, ROOT / "docs" / "build.py", tmp_path], check=True, capture_output=True)
    pages = sorted(tmp_path.glob("*.md"))
    assert [page.name for page in pages] == ["the-loss.md"]
    for page in pages:
        assert comparable(page) == comparable(ROOT / "docs" / page.name)
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert (tmp_path / picture).stat().st_size > 10_000
            assert (ROOT / "docs" / picture).exists()


def commands():
    """Every command a reader finds, and whether it is shown to fail."""
    for page in PAGES:
        text = page.read_text()
        for command, after in re.findall(r"(?m)^(?:    |\$ )(crossentropy .*)\n(.*)$", text):
            yield command, after.startswith("crossentropy: ")
        for command in re.findall(r"`(crossentropy [^`\n]+)`", text):
            yield command, False


@pytest.mark.parametrize(("command", "fails"), sorted(set(commands())))
def test_commands(command, fails, tmp_path, rng):
    np.save(tmp_path / "logits.npy", rng.standard_normal((5, 3)))
    np.save(tmp_path / "targets.npy", rng.integers(0, 3, 5))
    np.save(tmp_path / "hidden.npy", rng.standard_normal((5, 2)))
    np.save(tmp_path / "head.npy", rng.standard_normal((3, 2)))
    program = Path(sys.executable).with_name("crossentropy")
    done = subprocess.run([program, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (2 if fails else 0), done.stderr
    assert done.stderr if fails else done.stdout


def test_there_are_commands():
    assert len(set(commands())) > 10
