"""What explain is given, as people paste it: lists, printed arrays, names, some rows, DataFrames."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import crossentropy as ce
from crossentropy import _stored
from crossentropy.cli import _given

COMMAND = Path(sys.executable).with_name("crossentropy")
A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
NAMES = ["cat", "dog", "polar bear"]


def run(*arguments, cwd=None):
    return subprocess.run([COMMAND, "explain", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def numbers(*arguments, cwd=None):
    done = run(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FORMS = [
    "2.0 1.0 0.1; 0.1 2.0 1.9",
    "2.0,1.0,0.1;0.1,2.0,1.9;",
    "[[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]",
    "[[2.0, 1.0, 0.1], [0.1, 2.0, 1.9],]\n",
    "[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]",
    "[2.0, 1.0, 0.1; 0.1, 2.0, 1.9]",
    "[[2.  1.  0.1]\n [0.1 2.  1.9]]",
    "2.0 1.0 0.1\n0.1 2.0 1.9",
    "\n2.0\t1.0\t0.1\r\n\r\n0.1\t2.0\t1.9\r\n",
    "2.0, 1.0, 0.1,\n0.1, 2.0, 1.9,\n",
    "array([[2. , 1. , 0.1],\n       [0.1, 2. , 1.9]])",
    "np.array([[2. , 1. , 0.1],\n       [0.1, 2. , 1.9]], dtype=float32)",
    "tensor([[2.0000, 1.0000, 0.1000],\n        [0.1000, 2.0000, 1.9000]], device='cuda:0')",
]


class TestNumbers:
    @pytest.mark.parametrize("text", FORMS)
    def test_rows(self, text):
        np.testing.assert_array_equal(_given.numbers("logits", text), A)

    @pytest.mark.parametrize("text", ["1 0", "[1, 0]", "[1 0]", "1, 0,", "(1, 0)".strip("()"), "array([1, 0])"])
    def test_one_row(self, text):
        array = _given.numbers("targets", text)
        assert array.dtype == int
        assert array.tolist() == [1, 0]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, int])
    @pytest.mark.parametrize("shape", [(1, 3), (4, 30), (3, 1), (50,)])
    def test_what_numpy_and_python_print(self, rng, shape, dtype):
        array = (100 * rng.standard_normal(shape)).round(3).astype(dtype)
        for text in (str(array), repr(array), str(array.tolist())):
            np.testing.assert_array_equal(_given.numbers("logits", text).astype(dtype), array, err_msg=text)

    def test_minus_as_the_lesson_prints_it(self):
        assert _given.numbers("logits", "−1.5 2e−3").tolist() == [-1.5, 2e-3]
        assert _given.split_names("−1 0", ["a", "b"]) is None

    def test_integers_of_more_than_64_bits(self):
        np.testing.assert_array_equal(_given.numbers("logits", f"{10**30} 1"), [1e30, 1.0])

    def test_what_is_not_finite(self):
        array = np.array([[math.inf, -math.inf], [math.nan, 1.0]])
        for text in (str(array), repr(array), str(array.tolist())):
            np.testing.assert_array_equal(_given.numbers("logits", text), array)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[1, 2], [3]]", "logits: expected rows of equally many numbers, as in .*, got rows of 1 and 2"),
            ("[[1, 2], []]", "got rows of 0 and 2"),
            ("[]", "got none"),
            ("\n", "got none"),
            ("[[1, 2], [3, 4]", r"logits: expected a list of numbers or a list of such lists, got '\[\[1, 2\], "),
            ("[[[1, 2]]]", "a list of such lists"),
            ("]1[", "a list of such lists"),
            ("7 [1, 2]", "a list of such lists"),
            ("[1, 2] + [3]", "a list of such lists"),
            ("[1, two]", "logits: expected numbers or the name of a .npy file, got 'two'"),
            ("[[1. 2. ... 3.]]", "got '...'"),
        ],
    )
    def test_anything_else(self, text, message):
        with pytest.raises(ValueError, match=message):
            _given.numbers("logits", text)


class TestCommand:
    @pytest.mark.parametrize("text", FORMS[2:8:2])
    def test_pasted(self, text):
        assert numbers("--logits", text, "--targets", "1\n0") == ce.explain(A, [1, 0]).to_dict()

    @pytest.mark.parametrize(
        ("logits", "targets"),
        [
            ("[[2, 1, 0.1]]", "1"),
            ("2 1 0.1", "[[0, 1, 0]]"),
            ("[[2, 1, 0.1]]", "0 1 0"),
            ("[2, 1, 0.1]", "[1]"),
            ("2 1 0.1", "[[1]]"),
        ],
    )
    def test_one_row_in_every_form(self, logits, targets):
        found = numbers(
            "--logits", logits, "--targets", targets, "--sample-weight", "[0.5]", "--class-weight", "1\n2\n1"
        )
        assert found["b"] == [[0, 2, 0]]
        assert found["dtotal"] == ce.explain(A[:1], [[0.0, 2.0, 0.0]], sample_weight=[0.5]).dtotal.tolist()

    def test_one_class(self):
        assert numbers("--logits", "5;6", "--targets", "0 0")["targets"] == [0, 0]
        assert numbers("--logits", "5;6", "--targets", "1;1")["q"] == [[1], [1]]
        assert numbers("--logits", "5", "--targets", "0")["targets"] == [0]

    @pytest.mark.parametrize(
        "targets",
        ["dog cat", "dog,cat", "dog, cat,", "dog\ncat\n", "['dog', 'cat']", "['dog' 'cat']", '["dog",\n "cat"]', "1 0"],
    )
    def test_names_as_targets(self, targets):
        found = numbers("--logits", FORMS[0], "--targets", targets, "--names", ",".join(NAMES))
        assert found == ce.explain(A, [1, 0], NAMES).to_dict()

    def test_names_of_two_words(self):
        for targets in ("polar  bear, cat", "polar bear\ncat"):
            found = numbers("--logits", FORMS[0], "--targets", targets, "--names", ",".join(NAMES))
            assert found["targets"] == [2, 0]
        assert numbers("--logits", "2 1 0", "--targets", "polar bear", "--names", ",".join(NAMES))["targets"] == [2]

    def test_names_with_brackets_and_quotes(self):
        names = ["[PAD]", "[CLS]", "it's", "'em'"]
        for targets, expected in (("[CLS]", [1]), ("[CLS] [PAD]", [1, 0]), ("['it's', 'em']", [2, 3])):
            found = _given.split_names(targets.replace("\\", ""), names)
            assert found == [names[c] for c in expected], targets

    def test_a_number_is_an_index_whatever_the_names(self):
        assert numbers("--logits", FORMS[0], "--targets", "1 0", "--names", "2,1,0")["targets"] == [1, 0]

    def test_names_that_are_not_there(self):
        given = ("--logits", FORMS[0], "--targets")
        for arguments, message in (
            ((*given, "dog wolf", "--names", "cat,dog,bird"), "names out of cat, dog, bird; got 'wolf'"),
            ((*given, "dog 1", "--names", "cat,dog,bird"), "names out of cat, dog, bird; got '1'"),
            ((*given, "dog cat", "--names", "cat,dog,dog"), "got 'dog', the name of classes 1, 2"),
            ((*given, "dog cat"), "targets: expected numbers or the name of a .npy file, got 'dog'"),
        ):
            done = run(*arguments)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
            assert message in done.stderr


class TestRows:
    @pytest.fixture
    def files(self, tmp_path, rng):
        np.save(tmp_path / "logits.npy", rng.standard_normal((100, 4)).astype(np.float32))
        np.save(tmp_path / "fortran.npy", np.asfortranarray(np.load(tmp_path / "logits.npy")))
        np.save(tmp_path / "targets.npy", rng.integers(0, 4, 100))
        np.save(tmp_path / "dense.npy", rng.dirichlet(np.ones(4), 100))
        np.save(tmp_path / "weights.npy", rng.random(100))
        np.save(tmp_path / "of_classes.npy", rng.random(4))
        return tmp_path

    @pytest.mark.parametrize("logits", ["logits.npy", "fortran.npy"])
    @pytest.mark.parametrize("targets", ["targets.npy", "dense.npy"])
    @pytest.mark.parametrize(
        ("rows", "chosen"), [("3:8", slice(3, 8)), ("3", slice(3, 4)), (":2", slice(2)), ("98:", slice(98, None))]
    )
    def test_of_files(self, files, logits, targets, rows, chosen):
        given = ("--logits", logits, "--targets", targets, "--sample-weight", "weights.npy")
        found = numbers(*given, "--class-weight", "of_classes.npy", "--rows", rows, cwd=files)
        Z, Y, s, w = (np.load(files / name) for name in ("logits.npy", targets, "weights.npy", "of_classes.npy"))
        assert found == ce.explain(Z[chosen], Y[chosen], sample_weight=s[chosen], class_weight=w).to_dict()

    @pytest.mark.parametrize(("rows", "first"), [("-1", 2), (" 1 : 9 ", 1), ("-2:", 1), (":", 0)])
    def test_of_what_is_typed(self, rows, first):
        given = ("--logits", "1 2; 3 5; 6 2", "--targets", "0 1 1", "--sample-weight", "1 2 3")
        done = run(*given, f"--rows={rows}", "--json")
        x = ce.explain([[1, 2], [3, 5], [6, 2]][first:], [0, 1, 1][first:], sample_weight=[1, 2, 3][first:])
        assert json.loads(done.stdout) == x.to_dict()
        assert done.stderr == (f"row 0 is row {first} of the logits given\n" if first else "")

    def test_names_and_the_one_row(self):
        given = ("--names", "cat,dog,bird")
        assert numbers("--logits", FORMS[0], "--targets", "dog cat", *given, "--rows", "1")["targets"] == [0]
        assert numbers("--logits", "2 1 0.1", "--targets", "0 1 0", *given, "--rows", "0")["q"] == [[0, 1, 0]]

    def test_only_they_are_read(self, tmp_path, monkeypatch):
        np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (50_000, 1000))[7] = np.arange(1000)
        np.save(tmp_path / "targets.npy", np.arange(50_000) % 1000)
        read, sizes = _stored._read, []
        monkeypatch.setattr(_stored, "_read", lambda file, memory: (sizes.append(len(memory)), read(file, memory)))
        given = {"logits": str(tmp_path / "logits.npy"), "targets": str(tmp_path / "targets.npy")}
        arrays, first = _given.read(given, None, "7:9")
        assert sum(sizes) == 2 * (4000 + 8)
        assert first == 7
        np.testing.assert_array_equal(arrays["logits"], [np.arange(1000), np.zeros(1000)])
        assert arrays["targets"].tolist() == [7, 8]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--rows", "x"], "rows: expected a row such as 3, or rows such as 3:8, :8 or 3:, got 'x'"),
            (["--rows", ""], "rows: expected a row such as 3"),
            (["--rows", "1:2:3"], "rows: expected a row such as 3"),
            (["--rows", "2"], "rows: expected some of the 2 rows of the logits, counted from 0, got 2"),
            (["--rows", "1:1"], "rows: expected some of the 2 rows"),
            (["--logits", "1 2", "--targets", "1", "--rows", "1"], "rows: expected some of the 1 rows"),
            (["--rows", "1", "--row", "1"], "row: expected an integer in [0, 1), got 1"),
            (
                ["--logits", "logits.npy", "--targets", "1 0", "--rows", "1"],
                "targets: expected 100 rows, as the logits",
            ),
            (
                ["--logits", "logits.npy", "--targets", "targets.npy", "--rows", "1:50"],
                "at most 32 rows .* got 49 rows",
            ),
            (
                ["--logits", "logits.npy", "--targets", "targets.npy", "--sample-weight", "1 2", "--rows", "1"],
                "sample_weight: expected 100 rows, as the logits have, got shape (2,)",
            ),
        ],
    )
    def test_errors_are_one_line(self, files, arguments, message):
        done = run(*arguments, cwd=files)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message.split(" .* ")[0] in done.stderr
        assert message.split(" .* ")[-1] in done.stderr


class Frame:
    """What polars' DataFrame has in common with pandas'."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, np.array(rows)

    def to_numpy(self):
        return self.rows

    def __array__(self, dtype=None, copy=None):
        return self.rows

    def __iter__(self):
        return iter(self.columns)


def frames(columns, rows):
    return pd.DataFrame(rows, columns=columns), Frame(columns, rows)


class TestPython:
    def test_columns_are_the_names(self):
        expected = ce.explain(A, [1, 0], NAMES).to_dict()
        for logits in frames(NAMES, A):
            assert ce.explain(logits, [1, 0]).to_dict() == expected
            assert ce.explain(logits, ["dog", "cat"]).to_dict() == expected
            assert ce.explain(logits, pd.Series(["dog", "cat"])).to_dict() == expected
            assert ce.explain(logits, [1, 0], ["a", "b", "c"]).names == ("a", "b", "c")
        unnamed = ce.explain(pd.DataFrame(A), [1, 0])
        assert unnamed.names == ("0", "1", "2")

    def test_columns_of_targets(self):
        Y = [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]
        for logits, targets in zip(frames(NAMES, A), frames(NAMES, Y), strict=True):
            assert ce.explain(logits, targets).to_dict() == ce.explain(A, Y, NAMES).to_dict()
            assert ce.explain(A, targets).to_dict() == ce.explain(A, Y).to_dict()
        for logits, targets in zip(frames(NAMES, A), frames(NAMES[::-1], Y), strict=True):
            with pytest.raises(
                ValueError, match="targets: expected the columns of the logits, cat, dog, polar bear, got"
            ):
                ce.explain(logits, targets)

    @pytest.mark.parametrize(
        "targets",
        [
            ["dog", "cat"],
            ("dog", "cat"),
            np.array(["dog", "cat"]),
            np.array(["dog", "cat"], object),
            pd.Series(["dog", "cat"], index=[5, 7]),
            pd.Series(["dog", "cat"], dtype="category"),
            ["dog", " cat\n"],
        ],
        ids=repr,
    )
    def test_names_as_targets(self, targets):
        assert ce.explain(A, targets, NAMES).to_dict() == ce.explain(A, [1, 0], NAMES).to_dict()

    def test_one_name(self):
        assert ce.explain(A[0], "polar bear", NAMES).targets.tolist() == [2]

    def test_names_that_are_not_there(self):
        with pytest.raises(ValueError, match="names out of cat, dog, polar bear; got 'wolf'"):
            ce.explain(A, ["wolf", "cat"], NAMES)
        many = [f"name{c}" for c in range(30)]
        with pytest.raises(ValueError, match="name19 and 10 more; got 'wolf'"):
            ce.explain([np.zeros(30)], ["wolf"], many)
        with pytest.raises(TypeError, match="targets: expected class indices"):
            ce.explain(A, ["dog", "cat"])
        with pytest.raises(TypeError, match="targets: expected an array of numbers, got 'dog'"):
            ce.explain(A[0], "dog")
        with pytest.raises(TypeError, match="targets: expected class indices"):
            ce.explain(A, ["dog", 0], NAMES)

    def test_top_k_targets_with_names(self):
        targets = ce.TopKTargets([[1, 0], [2, 0]], [[0.5, 0.5], [0.9, 0.1]])
        assert ce.explain(A, targets, NAMES).q.tolist() == [[0.5, 0.5, 0], [0.1, 0, 0.9]]


def test_pandas_is_not_imported():
    script = (
        "import sys, crossentropy as ce; ce.explain([[2.0, 1.0]], ['b'], ['a', 'b']); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.stdout == "False\n"
