"""Docstrings, the README and the demo do what they say."""

import ast
import doctest
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crossentropy as ce

ROOT = Path(__file__).parent.parent
PACKAGE = Path(ce.__file__).parent
SOURCES = [path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
# All but the adapters, which need their framework and have tests of their own.
MODULES = [".".join(path.parts).removesuffix(".__init__") for path in SOURCES if path.parts[1] not in ("torch", "jax")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEMPLATES = sorted((ROOT / "docs").glob("*.md.j2"))
ALL_PAGES = [*PAGES, *ROOT.glob("[CS]*.md"), ROOT / "benchmarks" / "README.md"]


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


@pytest.mark.parametrize("page", ["README.md", "docs/linear-head.md"])
def test_code(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
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
        assert float(re.search(r"# loss = ([\d.]+) nats", block)[1]) == pytest.approx(names["loss"], rel=1e-12)
        shown = np.array(eval(re.search(r"# dlogits = .* = (\[\[.*\]\])", block)[1]))
        np.testing.assert_allclose(names["dlogits"], shown, atol=5e-5)


CHAPTER = ROOT / "docs" / "the-loss.md"


def defined_in_the_chapter(name):
    (code,) = re.findall(rf"```python\n(class {name}:.*?\n)\n\n\S", CHAPTER.read_text(), re.S)
    names = {"np": np}
    exec(code, names)
    assert len(re.findall(r"(?m)^ .*\S", code)) <= 12
    return names[name]()


@pytest.mark.parametrize("spread", [1.0, 20.0, 300.0])
def test_the_class_of_the_chapter_is_right(spread, rng):
    loss = defined_in_the_chapter("CrossEntropyLoss")
    for classes in (2, 3, 50):
        A = rng.normal(0, spread, (7, classes))
        one_hot = np.eye(classes)[rng.integers(0, classes, 7)]
        one_hot[0] = np.eye(classes)[A[0].argmax()]  # confident, and right
        soft = rng.dirichlet(np.ones(classes), 7)
        for Y in (one_hot, one_hot.astype(int), soft):
            expected, dlogits = ce.reference.cross_entropy_with_grad(A, Y)
            assert loss.forward(A, Y) == pytest.approx(expected, rel=1e-13, abs=1e-300)
            np.testing.assert_allclose(loss.backward(), dlogits, rtol=1e-11, atol=1e-17)


def test_the_class_of_the_chapter_keeps_the_digits_of_a_confident_row():
    loss, A, Y = defined_in_the_chapter("CrossEntropyLoss"), np.array([[50.0, 0.0, -800.0]]), np.array([[1, 0, 0]])
    assert loss.forward(A, Y) == pytest.approx(np.exp(-50), rel=1e-14)
    assert loss.backward()[0, 0] == pytest.approx(-np.exp(-50), rel=1e-14)
    assert loss.forward(np.array([[-np.inf, 0.0]]), np.array([[0, 1]])) == 0


def test_the_naive_class_of_the_chapter_breaks():
    loss, A, Y = defined_in_the_chapter("Naive"), np.array([[2.0, 1.0, 0.1]]), np.array([[0, 1, 0]])
    assert loss.forward(A, Y) == pytest.approx(ce.cross_entropy(A, Y), rel=1e-12)
    np.testing.assert_allclose(loss.backward(), ce.cross_entropy_with_grad(A, Y)[1], atol=1e-15)
    with pytest.raises(TypeError, match="not callable"):
        loss.forward(A, Y)


def test_the_chapter():
    page, template = CHAPTER.read_text(), CHAPTER.with_suffix(".md.j2").read_text()
    typed = re.sub(r"(?s)\{\{.*?\}\}|\{%.*?%\}", "", template)
    assert "$" not in typed.replace("begins with `$`", ""), "a formula that comes from no tree"
    blocks = re.findall(r"(?s)```console\n\$ (.*?)\n(.*?)```", page)
    excerpts = [(command, title) for command, text in blocks for title in re.findall(r"(?m)^\d+\. (.*)$", text)]
    assert len(excerpts) > 20
    assert len(set(excerpts)) == len(excerpts), "an excerpt twice"
    for _, text in blocks:
        assert text.startswith("⋮\n") or not re.match(r"\d+\. ", text), "an excerpt is marked as one"
    assert re.findall(r"(?m)^\*\*(\d)\. ", page) == list("123456")
    assert page.count("<summary>Answer</summary>") == 6
    for reference in ("11-785", "https://www.youtube.com/watch?v=rf4WF-5y8uY", "*Deep Learning*, MIT Press"):
        assert reference in page


def test_demo(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a progress bar in a pipe"
    hidden, head, targets = (np.load(tmp_path / f"{name}.npy") for name in ("hidden", "head", "targets"))
    exact = ce.reference.cross_entropy_with_grad(hidden @ head.T, targets)[0]
    before = f"{np.log(10):.4f}"  # a step: every class as likely as any other
    assert re.search(rf"training loss {before} -> \S+ nats, held out {before} -> {exact:.4f}$", done.stdout, re.M)
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


def printed_by(example, *arguments):
    command = [sys.executable, ROOT / "examples" / example, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a progress bar in a pipe"
    return done.stdout


def test_distil(tmp_path):
    printed = printed_by("distil.py", tmp_path, "--seeds", "2", "--steps", "150")
    number = r" +(\d+\.\d+) ± \d+\.\d+"  # not nan, not inf
    rows = re.findall(rf"(?m)^ (labels|the teacher's [\w ]+?){3 * number} *$", printed)
    loss, right, divergence = ({way: float(cells[i]) for way, *cells in rows} for i in range(3))
    assert list(loss) == ["labels", "the teacher's top 3", "the teacher's logits"]
    for way in ("the teacher's top 3", "the teacher's logits"):
        assert 0 < divergence[way] < divergence["labels"]
        assert loss[way] < loss["labels"] < np.log(10)
    assert all(80 < percent < 100 for percent in right.values())
    assert (tmp_path / "teacher.png").stat().st_size > 10_000


def test_policy_gradient(tmp_path):
    printed = printed_by("policy_gradient.py", tmp_path, "--steps", "100")
    runs = re.findall(r"bonus (\S+): mean reward (\S+) -> (\S+), entropy (\S+) -> (\S+) nats.* (\d+):", printed)
    plain, with_bonus = ([float(cell) for cell in cells] for cells in runs)
    for bonus, reward_before, reward, entropy_before, entropy, _ in (plain, with_bonus):
        assert reward_before < 0.2 < 0.9 < reward <= 1, bonus
        assert entropy < entropy_before == pytest.approx(np.log(6), abs=1e-3), "untrained: any bracket is as likely"
    assert plain[0] == 0 < with_bonus[0]
    assert with_bonus[4] > 3 * plain[4]
    assert with_bonus[5] > plain[5], "different sequences"
    assert (tmp_path / "reward.png").stat().st_size > 10_000
    assert printed == printed_by("policy_gradient.py", tmp_path, "--steps", "100"), "the same again"


def test_the_page_around_the_target():
    """What its code prints says what its words say; that the library prints it, the next test sees."""
    page = (ROOT / "docs" / "family.md").read_text()
    outputs = re.findall(r"```text\n(.*?)\n```", page, re.S)
    cross_entropy, entropy_and_divergence = outputs[0].split()
    assert cross_entropy == entropy_and_divergence
    forward, reverse, between = zip(
        *re.findall(r"forward (\S+), reverse (\S+), between (\S+)", outputs[1]), strict=True
    )
    assert forward == reverse[::-1]
    assert all(0 < float(value) < np.log(2) for value in between)
    cut, rest, whole = map(float, re.findall(r"-?\d+\.\d+", outputs[2]))
    assert cut < 0 < rest <= whole
    assert len(outputs) == 6


def test_pages_are_what_the_library_computes_and_what_was_measured(tmp_path):
    """`make docs` writes them anew: no figure is changed by hand."""

    def comparable(page):  # the rounding left in a finite difference is no promise
        return re.sub(r"(?m)^   largest difference = .*$", "", page.read_text())

    subprocess.run([sys.executable, ROOT / "docs" / "build.py", tmp_path], check=True, capture_output=True)
    pages = [page.relative_to(tmp_path) for page in tmp_path.rglob("*.md")]
    assert {page.name for page in pages} == {template.stem for template in TEMPLATES} >= {"README.md", "the-loss.md"}
    pictures = set()
    for page in pages:
        assert comparable(tmp_path / page) == comparable(ROOT / page)
        pictures |= {page.parent / picture for picture in re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / page).read_text())}
    assert {picture.name for picture in pictures} == {"speed.png", "the-loss.png", "scaling.png"}
    for picture in pictures:
        assert (tmp_path / picture).stat().st_size > 10_000
        drawn_from, expected = (Image.open(root / picture).text.get("Description") for root in (ROOT, tmp_path))
        assert drawn_from == expected


WRITTEN = [*TEMPLATES, *(page for page in PAGES if page.name not in {template.stem for template in TEMPLATES})]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_no_figure_is_typed(page):
    """What was measured comes from results.json, through a template."""
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", page.read_text(), flags=re.S)
    unit = r"(?:ns|µs|ms|s|seconds|min|minutes|hours|[KMG]i?B|ULP|units in the last place|×|times|%)"
    assert re.findall(rf"\d[\d.]* ?{unit}(?!\w).*", text) == []


def anchors(page):
    """What a link to a heading of a page may name."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?s)```.*?```", "", page.read_text()))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), link
        assert not anchor or anchor in anchors(to), link


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", (ROOT / "README.md").read_text()))
    assert linked == {f"docs/{page.name}" for page in PAGES[1:]}


def imports():
    """From which room of the package which other is imported."""
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts
        room = here[0].strip("_") if len(here) > 1 else "cli" if here == ("__main__.py",) else "front"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level and here != ("__init__.py",):
                modules = [node.module] if node.module else [name.name for name in node.names]
                for module in modules:
                    first, *rest = [*here[: len(here) - node.level], *module.split(".")]
                    is_room = rest or (PACKAGE / first).is_dir()
                    yield room, "bindings" if first == "_core" else first.strip("_") if is_room else "front"


def test_the_house_is_as_drawn():
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"(\w+) --> (\w+)", page[: page.index("## One call")]))
    below = {("bindings", "core"), ("core", "kernels")}
    assert drawn - below == {(room, other) for room, other in imports() if room != other}
    known = {path.name for path in (ROOT / "src").rglob("*.?pp")} | {path.name for path in PACKAGE.rglob("*.py")}
    assert set(re.findall(r"\w+\.(?:py|hpp|cpp)\b", page)) <= known


def test_results_are_taken_whole_or_not_at_all(tmp_path):
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    kept = (ROOT / "docs" / "results.json").read_text()
    found = json.loads(kept)
    assert results.text(found) == kept, "as it is written"
    taken, measured = tmp_path / "results.json", tmp_path / "measured"
    taken.write_text(kept)
    measured.mkdir()
    del found["loss"]["milliseconds"]["32 x 10"]["torch"]
    found["words"]["perplexity"] = 99.87654
    for section in ("loss", "words"):
        (measured / f"{section}.json").write_text(json.dumps(found[section]))
    (refused,) = results.take(measured, taken)
    assert refused == "loss: not taken, for it has nothing of milliseconds: 32 x 10: torch"
    now = json.loads(taken.read_text())
    assert now["words"]["perplexity"] == 99.88
    assert now["loss"] == json.loads(kept)["loss"]


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
    program, words = Path(sys.executable).with_name("crossentropy"), shlex.split(command)[1:]
    if words[0] == "explore" and "-o" not in words:
        words += ["-o", "page.html"]  # it would serve the page until Ctrl-C
    done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (2 if fails else 0), done.stderr
    assert done.stderr if fails else done.stdout or list(tmp_path.glob("*.html"))


def test_there_are_commands():
    assert len(set(commands())) > 10
