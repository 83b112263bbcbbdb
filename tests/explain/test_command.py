"""crossentropy explain, run as a person runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce

COMMAND = Path(sys.executable).with_name("crossentropy")
A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]


def run(*arguments, cwd=None):
    return subprocess.run([COMMAND, "explain", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def numbers(*arguments, cwd=None):
    done = run(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_worked_example(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = run()
    assert done.returncode == 0
    assert done.stderr == ""
    assert "mean = 4.0370/2 = 2.0185" in done.stdout
    assert numbers() == ce.explain(A, [1, 0]).to_dict()
    assert done.stdout.rstrip("\n").splitlines() == str(ce.explain(A, [1, 0])).splitlines()


@pytest.mark.parametrize(
    ("arguments", "logits", "targets"),
    [
        (["--logits", "2.0 1.0 0.1; 0.1 2.0 1.9", "--targets", "1 0"], A, [1, 0]),
        (["--logits", "2,1,0.1;0.1,2,1.9;", "--targets", "0 1 0; 1 0 0"], A, [[0, 1, 0], [1, 0, 0]]),
        (["--logits", "-2 1e3 -inf", "--targets", "1"], [-2.0, 1e3, -np.inf], 1),
        (["--logits", "2 1 0.1", "--targets", "0.5 0.25 0.25"], [2.0, 1.0, 0.1], [0.5, 0.25, 0.25]),
    ],
)
def test_numbers_on_the_command_line(arguments, logits, targets):
    assert numbers(*arguments) == ce.explain(logits, targets).to_dict()


def test_files(tmp_path, rng):
    logits, targets = rng.standard_normal((3, 4)).astype(np.float32), np.array([0, 3, 1])
    np.save(tmp_path / "logits.npy", logits)
    np.save(tmp_path / "targets.npy", targets)
    np.save(tmp_path / "weights.npy", np.arange(4.0))
    found = numbers("--logits", "logits.npy", "--targets", "targets.npy", "--class-weight", "weights.npy", cwd=tmp_path)
    assert found == ce.explain(logits, targets, class_weight=np.arange(4.0)).to_dict()


def test_options_reach_the_library():
    found = numbers(
        *("--reduction", "sum", "--label-smoothing", "0.1", "--temperature", "2", "--class-weight", "1 2 1"),
        *("--sample-weight", "1 0.5", "--z-loss", "0.01", "--softcap", "3", "--names", "cat,dog,bird"),
        *("--derivation", "--row", "1", "--class", "2", "--check", "--pitfalls", "--ignore-index", "2"),
    )
    x = ce.explain(
        A,
        [1, 0],
        names=["cat", "dog", "bird"],
        reduction="sum",
        label_smoothing=0.1,
        temperature=2.0,
        class_weight=[1, 2, 1],
        sample_weight=[1, 0.5],
        z_loss=0.01,
        softcap=3.0,
        ignore_index=2,
    )
    assert found.pop("derivation") == x.derivation(1, 2).to_dict()
    assert found.pop("check") == x.check().to_dict()
    assert found.pop("pitfalls") == [pitfall.to_dict() for pitfall in x.pitfalls()]
    assert found == x.to_dict()


@pytest.mark.parametrize(("example", "targets", "surviving"), [("first", [1, 0, 0], 0), ("last", [0, 0, 1], 2)])
def test_presets_are_derived_for_the_third_logit(example, targets, surviving):
    x = ce.explain([[2.0, 1.0, -1.0]], [targets])
    found = numbers("--example", example)
    assert found.pop("derivation") == x.derivation(0, 2).to_dict()
    assert found == x.to_dict()
    text = run("--example", example).stdout
    p = np.exp(-1) / np.exp([2.0, 1.0, -1.0]).sum()
    terms = {int(k): (delta, value) for k, delta, value in re.findall(r"k = (\d):  −\d·\(([01]) − .*\) = (\S+)", text)}
    assert {k: value for k, (_, value) in terms.items() if value != "0"} == {
        surviving: f"{p - targets[2]:.4f}".replace("-", "−")
    }
    assert {k: delta for k, (delta, _) in terms.items()} == {0: "0", 1: "0", 2: "1"}
    assert "Derivation for row 0, class 1" in run("--example", example, "--class", "1").stdout


def test_negative_probabilities():
    done = run("--logits", "2 1 0.1", "--targets", "1.2 -0.2 0")
    assert done.returncode == 0
    assert done.stderr == (
        "crossentropy: warning: some target probabilities are negative: the loss is what its definition gives\n"
    )
    assert "Some are negative, and so no probabilities" in done.stdout


def test_one_row_with_a_sample_weight():
    found = numbers("--logits", "2 1 0.1", "--targets", "0", "--sample-weight", "0.5", "--reduction", "sum")
    assert found["loss"] == 0.5 * ce.cross_entropy([2.0, 1.0, 0.1], 0)


def test_tex():
    assert run("--tex").stdout == ce.explain(A, [1, 0]).to_tex()
    derived = ce.explain(A, [1, 0]).lesson(derivation=True, row=1, target_class=2)
    assert run("--tex", "--derivation", "--row", "1", "--class", "2").stdout == derived.to_tex()


def test_plot(tmp_path):
    done = run("--plot", "a.svg", "--names", "cat,dog,bird", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "wrote a.svg\n"
    ce.explain(A, [1, 0], names=["cat", "dog", "bird"]).plot(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_quiet(tmp_path):
    given = ("--logits", "2 1 0.1", "--targets", "1.2 -0.2 0")
    loud = run(*given, "--plot", "a.svg", cwd=tmp_path)
    warning, wrote = loud.stderr.splitlines()
    assert wrote == "wrote a.svg"
    assert warning.startswith("crossentropy: warning: some target probabilities are negative")
    quiet = run(*given, "--plot", "b.svg", "--quiet", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, loud.stdout, "")
    assert (tmp_path / "b.svg").exists()
    failed = run("-q", "--row", "2")
    assert (failed.returncode, failed.stderr) == (2, "crossentropy: row: expected an integer in [0, 2), got 2\n")


def test_letters_that_the_font_of_the_picture_lacks_are_no_warning(tmp_path):
    done = run("--plot", "a.svg", "--names", "猫,dog,bird", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote a.svg\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "1 2"], "--logits needs --targets, as in --logits"),
        (["--targets", "1"], "--targets needs --logits"),
        (["--logits", "0.2 0.8", "--targets", "1"], "these look like probabilities"),
        (["--logits", "1 2 3; 4 5 6", "--targets", "3 1"], "classes count from 0: did you mean [2, 0]?"),
        (["--logits", "1 2; 3", "--targets", "1"], "rows of equally many numbers"),
        (["--logits", "", "--targets", "1"], "logits: expected rows of equally many numbers"),
        (["--logits", "1 two", "--targets", "1"], "expected numbers or the name of a .npy file, got 'two'"),
        (["--logits", "1 2", "--targets", "missing.npy"], "missing.npy: No such file"),
        (["--logits", "1 2", "--targets", "1.0"], "targets: expected class indices"),
        (["--names", "cat,dog"], "names: expected 3, one for each class, got 2"),
        (["--reduction", "avg"], "reduction: expected 'mean', 'sum' or 'none', got 'avg'"),
        (["--derivation", "--row", "2"], "row: expected an integer in [0, 2), got 2"),
        (["--example", "third"], "--example: expected worked, first, last, got 'third'"),
        (["--example", "last", "--logits", "1 2", "--targets", "0"], "--example and --logits: expected one of them"),
        (["--class", "3"], "class: expected an integer in [0, 3), got 3"),
        (["--temperature", "0"], "temperature: expected"),
        (["--temperature", "hot"], "--temperature: expected a number, got 'hot' ("),
        (["--class", "dog"], "--class: expected an integer, got 'dog' ("),
        (["--json", "--tex"], "--json and --tex: expected one of them"),
        (["--plot", "a.gif"], "plot: expected a file name that ends in .png, .svg, .pdf, got 'a.gif'"),
        (["--plot", "missing/a.png"], "missing/a.png: No such file or directory"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("crossentropy: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_large_file_is_refused_unread(tmp_path):
    np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (50_000, 1000))  # a hole on disk
    np.save(tmp_path / "targets.npy", np.zeros(50_000, int))
    done = run("--logits", "logits.npy", "--targets", "targets.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search("at most 32 rows .* got 50,000 rows .* 'crossentropy eval'", done.stderr)


def test_output_without_unicode(tmp_path):
    done = subprocess.run([COMMAND, "explain"], capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"= 2.0185" in done.stdout
