"""Files of every kind, whole and broken, given to the commands: one line and exit status 2, or the right result."""

import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from attack.command import COMMAND, FILES, as_bytes, in_thread, refused, run, scoring

import crossentropy as ce
from crossentropy._stored import new_array, open_array


def read(path):
    stored = open_array(path)
    with stored.file:
        return stored[()]


class TestInputs:
    def test_pipes(self, files, arrays):
        for name in ("logits", "targets"):
            os.mkfifo(files / name)
        whole = run("eval", *FILES, "--json", cwd=files).stdout
        write = [lambda name=name: (files / name[:-4]).write_bytes((files / name).read_bytes()) for name in FILES]
        with in_thread(write[0]), in_thread(write[1]):
            done = run("eval", "logits", "targets", "--json", cwd=files)
        assert done.stdout == whole
        assert json.loads(whole)["mean_nats"] == pytest.approx(ce.cross_entropy(*arrays), rel=1e-7)
        done = run(
            "eval", "/dev/stdin", "targets.npy", "--json", cwd=files, input=as_bytes(np.asfortranarray(arrays[0]))
        )
        assert done.stdout == whole

    def test_pipe_that_ends_early(self, files):
        given = (files / "logits.npy").read_bytes()
        for cut, words in (
            (0, "expected a NumPy .npy file"),
            (20, ".npy header"),
            (200, "expected 1,400 bytes for shape (50, 7) of float32, got 72"),
        ):
            refused(run("eval", "/dev/stdin", "targets.npy", cwd=files, input=given[:cut]), "/dev/stdin: ", words)

    def test_pipe_that_no_one_writes_is_interrupted(self, files):
        os.mkfifo(files / "pipe")
        process = subprocess.Popen([COMMAND, "eval", "pipe", FILES[1]], cwd=files, stderr=subprocess.PIPE)
        writer = os.open(files / "pipe", os.O_WRONLY)  # waits until the command has opened it
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == (None, b"")
        assert process.returncode == 130
        os.close(writer)

    def test_terminal_is_refused(self, files):
        leader, follower = os.openpty()
        done = run("eval", "/dev/stdin", "targets.npy", cwd=files, stdin=follower)
        refused(done, "/dev/stdin: expected a file or a pipe, got a character device")
        os.close(leader)
        os.close(follower)

    def test_file_that_shrinks(self, large):
        with scoring(large) as process:
            os.truncate(large / "logits.npy", 1_000_000)
            out, errors = process.communicate(timeout=30)
        refused(subprocess.CompletedProcess([], process.returncode, out, errors), "logits.npy: ", "shrank")
        assert (large / "losses.npy").read_text() == "kept"

    def test_what_is_not_finite_is_no_warning(self, tmp_path):
        for name, array in (
            ("logits.npy", np.array([[np.inf, 1.0], [-np.inf, 2.0], [1e308, -1e308], [0.0, 1.0]])),
            ("targets.npy", np.array([0, 0, 1, 1])),
            ("hidden.npy", np.full((4, 2), 1e30, np.float32)),
            ("head.npy", np.full((2, 2), 1e30, np.float32)),
            ("bias.npy", np.full(2, -1e300)),
        ):
            np.save(tmp_path / name, array)
        head = ["--hidden", "hidden.npy", "--head", "head.npy", "--bias", "bias.npy", "targets.npy"]
        for given in (FILES, head):
            done = run("eval", *given, "--json", cwd=tmp_path)
            assert done.returncode == 0
            assert done.stderr == b"crossentropy: warning: the loss of some rows is NaN: --per-row tells of which\n"
            assert json.loads(done.stdout)["mean_nats"] is None
        signalling = np.array([0x7F800001, 0, 0], "<u4").view("<f4")  # a NaN that NumPy warns of when it is widened
        np.save(tmp_path / "nan.npy", signalling)
        done = run("explain", "--logits", "nan.npy", "--targets", "1", "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        done = run("explain", "--logits", "1 2 3", "--targets", "1", "--class-weight", "nan.npy", cwd=tmp_path)
        refused(done, "class_weight: expected finite weights")

    def test_nothing_counts(self, files):
        np.save(files / "targets.npy", np.full(50, -100))
        done = run("eval", *FILES, cwd=files)
        assert done.stderr.startswith(b"crossentropy: warning: no row counts")
        assert b"perplexity" not in done.stdout
        assert json.loads(run("eval", *FILES, "--json", cwd=files).stdout)["perplexity"] is None

    def test_one_row(self, tmp_path):
        np.save(tmp_path / "logits.npy", np.array([2.0, 1.0, 0.1]))
        np.save(tmp_path / "targets.npy", np.array(1))
        found = json.loads(run("eval", *FILES, "--json", cwd=tmp_path).stdout)
        assert found["mean_nats"] == pytest.approx(ce.reference.cross_entropy_with_grad([[2.0, 1.0, 0.1]], [1])[0])

    def test_weights_that_are_not_real(self, files):
        np.save(files / "rows.npy", np.ones(50, complex))
        done = run("eval", *FILES, "--sample-weight", "rows.npy", "--grad", "g.npy", cwd=files)
        refused(done, "rows.npy: sample_weight: expected real numbers, got complex128")

    def test_version_to_come(self, files):
        (files / "logits.npy").write_bytes(b"\x93NUMPY\x09\x00" + bytes(100))
        refused(run("eval", *FILES, cwd=files), "logits.npy: expected version 1, 2 or 3 of the .npy format, got 9.0")

    def test_bfloat16_as_numpy_saves_it(self, files):
        np.save(files / "logits.npy", np.zeros((50, 7), "V2"))
        refused(run("eval", *FILES, cwd=files), "got dtype |V2 (NumPy saves bfloat16 so: save it as float32)")

    def test_pipe_larger_than_memory(self, files):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 1000)}"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        script = f"import sys\nsys.stdout.buffer.write({start})\nwhile True: sys.stdout.buffer.write(bytes(1 << 24))"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([sys.executable, "-c", script], **pipes) as source:
            done = run("eval", "/dev/stdin", "targets.npy", cwd=files, stdin=source.stdout, preexec_fn=limit)
            source.stdout.close()
        refused(done, "/dev/stdin: not enough memory to read a pipe whole; a file is read block by block")


class TestHeaders:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-500, 7)}", "integers of at least 0, got (-500, 7)"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 7)}", "integers of at least 0, got (True, 7)"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (2**63, 0)}", ".npy header"),
            (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**63}, 0)}}", f"bytes, got shape ({2**63}, 0)"),
            (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**61}, 1)}}", f"bytes, got shape ({2**61}, 1)"),
            (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, 1)}}", "expected 4,398,046,511,104 bytes"),
            (f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 33}}}", "at most 32 axes"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (0x" + "f" * 5000 + ", 1)}", "limit"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (50, 7", ".npy header"),
            ("{'descr': 'O', 'fortran_order': False, 'shape': (1,)}", "pickled objects are refused"),
            ("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}", "expected an array of numbers, got dtype <U4"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "expected an array of numbers"),
            ("{'descr': ('<f4', (7,)), 'fortran_order': False, 'shape': (50,)}", "expected an array of numbers"),
            ("(" * 9000, ".npy header"),
            ("-" * 9000 + "1", ".npy header"),
            ("1+1j" * 2400, ".npy header"),
            ("1+1j+" * 1900 + "1", ".npy header"),
            ("'\\d'", ".npy header"),
            ("{" + "'a':" * 2000, ".npy header"),
            ("", ".npy header"),
        ],
    )
    @pytest.mark.parametrize("version", [1, 2])
    def test_refused(self, tmp_path, text, words, version):
        length = struct.pack("<H" if version == 1 else "<I", len(text))
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + text.encode())
        with pytest.raises(ValueError, match=re.escape(words)):
            open_array(tmp_path / "a.npy")

    @pytest.mark.parametrize("size", [10_001, 2**30, 2**32 - 1])
    def test_header_of_any_size(self, tmp_path, size):
        """A hole on disk: it is refused by its length, before a byte of it is read."""
        with (tmp_path / "a.npy").open("wb") as file:
            file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", size))
            file.truncate(size + 12)
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"header of at most 10,000 bytes, got {size:,}"):
            open_array(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    def test_told_in_one_line(self, files):
        text = b"-" * 9000
        (files / "a\nb.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        refused(run("eval", "a\nb.npy", "targets.npy", cwd=files), "a\\nb.npy: expected a .npy header")
        refused(
            run("explain", "--logits", "a\nb.npy", "--targets", "1", cwd=files), "a\\nb.npy: expected a .npy header"
        )

    def test_every_version_and_what_python_2_wrote(self, tmp_path):
        a = np.arange(6.0).reshape(2, 3)
        for version in ((1, 0), (2, 0), (3, 0)):
            with (tmp_path / "a.npy").open("wb") as file:
                np.lib.format.write_array(file, a, version)
            np.testing.assert_array_equal(read(tmp_path / "a.npy"), a)
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 3L)}"
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + a.tobytes())
        np.testing.assert_array_equal(read(tmp_path / "a.npy"), a)

    @pytest.mark.parametrize(
        ("shape", "dtype", "words"),
        [
            ((2**60, 0), "<f4", "expected at least one class"),
            ((0, 0), "<f4", "expected at least one class"),
            ((0, 3), "<c8", "expected float16"),
            ((2**40, 0, 3), "<f4", None),
        ],
    )
    def test_nothing_in_it(self, tmp_path, shape, dtype, words):
        """Rows of no classes are not counted one by one; what has no block is checked all the same."""
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        done = run("eval", "a.npy", "a.npy", "--json", "--per-row", "out.npy", cwd=tmp_path)
        if words:
            refused(done, words)
            assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
        else:
            assert json.loads(done.stdout)["mean_nats"] == 0
            assert np.load(tmp_path / "out.npy").shape == shape[:-1]


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_are_those_of_the_array(tmp_path, rng, order):
    for _ in range(200):
        shape = tuple(rng.integers(0, 5, rng.integers(0, 5)))
        axes = rng.permutation(len(shape))
        array = np.asarray(rng.integers(0, 100, shape), rng.choice(["<i2", ">f8"]))
        np.save(tmp_path / "a.npy", array.astype(array.dtype, order))
        stored = open_array(tmp_path / "a.npy")
        found, expected = stored.transpose(axes), array.transpose(axes)
        with stored.file, (tmp_path / "b.npy").open("w+b", buffering=0) as file:
            copy = new_array(file, Path("b.npy"), array.shape, array.dtype).transpose(axes)
            copy[()] = expected
            at = tuple(
                int(rng.integers(0, n)) if n and rng.random() < 0.3 else slice(*sorted(rng.integers(0, n + 1, 2)))
                for n in expected.shape[: rng.integers(0, len(shape) + 1)]
            )
            np.testing.assert_array_equal(found[at], expected[(*at, ...)], strict=True)
            changed = expected.copy()
            changed[at] = copy[at] = rng.integers(0, 100, changed[at].shape)
        np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), changed.transpose(np.argsort(axes)), strict=True)
