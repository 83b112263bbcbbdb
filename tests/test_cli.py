"""The command line, run as a person runs it."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer

import crossentropy as ce
from crossentropy import _scoring, cli
from crossentropy._options import loss_options

COMMAND = Path(sys.executable).with_name("crossentropy")
MODULE = (sys.executable, "-m", "crossentropy")


def run(*arguments, cwd, command=(COMMAND,), **options):
    return subprocess.run([*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, **options)


def on_terminal(*arguments, cwd, **environment):
    """What a command shows on standard error, which is a terminal of 80 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    done = subprocess.run([COMMAND, *arguments], cwd=cwd, stderr=follower, stdout=subprocess.PIPE, env=environment)
    os.write(follower, b"end")  # reading nothing would be an error
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 0
    return shown.removesuffix("end")


@pytest.fixture
def files(tmp_path, rng):
    rows, classes = 500, 7
    logits = (2 * rng.standard_normal((rows, classes))).astype(np.float32)
    targets = rng.integers(0, classes, rows)
    targets[::9] = -100
    np.save(tmp_path / "logits.npy", logits)
    np.save(tmp_path / "targets.npy", targets)
    np.save(tmp_path / "weights.npy", rng.random(classes))
    np.save(tmp_path / "rows.npy", rng.random(rows))
    for name, shape in (("hidden", (rows, 4)), ("head", (classes, 4)), ("bias", (classes,))):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal(shape).astype(np.float32))
    return tmp_path


HEAD = ["--hidden", "hidden.npy", "--head", "head.npy"]


class TestEval:
    @pytest.mark.parametrize("bias", [[], ["--bias", "bias.npy"]])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_hidden_states_and_a_head(self, files, dtype, bias):
        hidden, head, offset = (np.load(files / f"{name}.npy").astype(dtype) for name in ("hidden", "head", "bias"))
        for name, array in (("hidden", hidden), ("head", head), ("bias", offset)):
            np.save(files / f"{name}.npy", array)
        wide = np.float64 if dtype == np.float64 else np.float32
        logits = hidden.astype(wide) @ head.astype(wide).T + (offset.astype(wide) if bias else 0)
        np.save(files / "logits.npy", logits)
        options = ["--label-smoothing", "0.1", "--class-weight", "weights.npy", "--per-row"]
        expected = run("eval", "logits.npy", "targets.npy", *options, "a.npy", "--json", cwd=files)
        done = run("eval", *HEAD, *bias, "targets.npy", *options, "b.npy", "--json", cwd=files)
        assert done.returncode == 0, done.stderr
        found, right = json.loads(done.stdout), json.loads(expected.stdout)
        assert found.keys() == right.keys()
        for key in right:
            assert found[key] == pytest.approx(right[key], rel=2e-6), key
        losses = np.load(files / "b.npy")
        assert losses.dtype == wide
        np.testing.assert_allclose(losses, np.load(files / "a.npy"), rtol=2e-6)
        assert "perplexity" in run("eval", *HEAD, *bias, "targets.npy", cwd=files).stdout

    @pytest.mark.parametrize("small_blocks", [False, True])
    @pytest.mark.parametrize("axis", [-1, 1])
    @pytest.mark.parametrize("dense", [False, True])
    def test_agrees_with_the_library(self, files, axis, dense, small_blocks, monkeypatch, rng):
        monkeypatch.setattr(_scoring, "BLOCK_ELEMENTS", 40 if small_blocks else 1 << 22)
        logits = rng.standard_normal((20, 7, 3, 2)) if axis == 1 else rng.standard_normal((50, 7))
        row_shape = np.moveaxis(logits, axis, -1).shape[:-1]
        targets = rng.random(logits.shape) if dense else rng.integers(-1, 7, row_shape)
        given = {"axis": axis, "class_weight": rng.random(7), "sample_weight": rng.random(row_shape)}
        options = {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.01, "softcap": 3.0, "temperature": 2.0}
        losses, dlogits = np.empty(row_shape), np.empty(logits.shape)
        found = _scoring.score(
            logits, targets, loss_options(reduction="mean", **options), **given, losses_out=losses, dlogits_out=dlogits
        )
        mean, dmean = ce.cross_entropy_with_grad(logits, targets, **given, **options)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-13)
        np.testing.assert_allclose(dlogits, dmean, rtol=1e-12, atol=1e-18)
        np.testing.assert_array_equal(losses, ce.cross_entropy(logits, targets, reduction="none", **given, **options))
        counted = losses[losses > 0].size
        assert (found.rows, found.ignored, found.classes) == (counted, losses.size - counted, 7)

    def test_standard_error_and_accuracy(self, files):
        logits, targets = np.load(files / "logits.npy"), np.load(files / "targets.npy")
        kept = targets != -100
        done = run("eval", "logits.npy", "targets.npy", "--json", cwd=files)
        found = json.loads(done.stdout)
        losses = ce.cross_entropy(logits[kept].astype(float), targets[kept], reduction="none")
        assert found["rows"] == kept.sum()
        assert found["ignored"] == (~kept).sum()
        assert found["mean_nats"] == pytest.approx(losses.mean(), rel=1e-7)
        assert found["mean_bits"] == pytest.approx(losses.mean() / np.log(2), rel=1e-7)
        assert found["standard_error_nats"] == pytest.approx(losses.std(ddof=1) / np.sqrt(losses.size), rel=1e-5)
        assert found["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-6)
        order = np.argsort(-logits[kept], axis=1)
        assert found["top1_accuracy"] == pytest.approx((order[:, 0] == targets[kept]).mean())
        assert found["top5_accuracy"] == pytest.approx((order[:, :5] == targets[kept][:, None]).any(1).mean())

    def test_text_says_the_same_as_json(self, files):
        text = run("eval", "logits.npy", "targets.npy", cwd=files).stdout
        found = json.loads(run("eval", "logits.npy", "targets.npy", "--json", cwd=files).stdout)
        assert f"{found['mean_nats']:.6f} ± {found['standard_error_nats']:.6f} nats" in text
        assert f"{found['mean_bits']:.6f} ± {found['standard_error_bits']:.6f} bits" in text
        assert f"{found['perplexity']:.4f}" in text
        assert f"{100 * found['top1_accuracy']:.2f} %" in text
        assert f"{100 * found['top5_accuracy']:.2f} %" in text

    def test_equal_logits_are_not_all_hits(self, tmp_path):
        np.save(tmp_path / "logits.npy", np.zeros((10, 10)))
        np.save(tmp_path / "targets.npy", np.arange(10))
        found = json.loads(run("eval", "logits.npy", "targets.npy", "--json", cwd=tmp_path).stdout)
        assert (found["top1_accuracy"], found["top5_accuracy"]) == (0.1, 0.5)

    def test_what_is_not_finite_is_null(self, tmp_path):
        np.save(tmp_path / "logits.npy", np.full((2, 3), np.nan))
        np.save(tmp_path / "targets.npy", np.array([0, 1]))
        found = json.loads(run("eval", "logits.npy", "targets.npy", "--json", cwd=tmp_path).stdout)
        assert found["mean_nats"] is None
        assert found["top1_accuracy"] == 0

    def test_outputs(self, files):
        done = run("eval", "logits.npy", "targets.npy", "--per-row", "l.npy", "--grad", "g.npy", cwd=files)
        assert done.returncode == 0, done.stderr
        logits, targets = np.load(files / "logits.npy"), np.load(files / "targets.npy")
        np.testing.assert_array_equal(np.load(files / "l.npy"), ce.cross_entropy(logits, targets, reduction="none"))
        np.testing.assert_allclose(np.load(files / "g.npy"), ce.cross_entropy_with_grad(logits, targets)[1], rtol=1e-6)
        run("eval", "logits.npy", "targets.npy", "--reduction", "sum", "--grad", "g.npy", cwd=files)
        expected = ce.cross_entropy_with_grad(logits, targets, reduction="sum")[1]
        np.testing.assert_array_equal(np.load(files / "g.npy"), expected)

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["absent.npy", "targets.npy"], "absent.npy: No such file"),
            (["text.npy", "targets.npy"], "text.npy: expected a NumPy .npy file"),
            (["pickled.npy", "targets.npy"], "pickled.npy: pickled objects are refused"),
            (["cut.npy", "targets.npy"], "cut.npy: "),
            (
                ["complex.npy", "targets.npy"],
                "complex.npy: logits: expected float16, bfloat16, float32, float64 or integ",
            ),
            (["logits.npy", "logits.npy", "--axis", "2"], "logits.npy: expected an axis 2, got shape (500, 7)"),
            (
                ["targets.npy", "logits.npy"],
                "expected LOGITS before TARGETS, got shapes (500,) and (500, 7)",
            ),
            (["logits.npy", "rows.npy"], "rows.npy: targets: expected class indices"),
            (["logits.npy", "weights.npy"], "weights.npy: targets: expected class indices (integers) of shape (500,)"),
            (
                ["logits.npy", "beyond.npy"],
                "beyond.npy: targets: expected class indices in [0, 7) or ignore_index -100, got 7",
            ),
            (
                ["logits.npy", "targets.npy", "--class-weight", "rows.npy"],
                "rows.npy: class_weight: expected shape (7,)",
            ),
            (["logits.npy", "targets.npy", "--sample-weight", "weights.npy"], "weights.npy: sample_weight: expected"),
            (["logits.npy", "targets.npy", "--temperature", "0"], "temperature: expected a finite positive number"),
            (["logits.npy", "targets.npy", "--temperature", "x"], "--temperature: expected a number, got 'x' ("),
            (["logits.npy", "targets.npy", "--softcap", ""], "--softcap: expected a number, got '' ("),
            (["logits.npy", "targets.npy", "--axis", "1.5"], "--axis: expected an integer, got '1.5' ("),
            (["logits.npy", "targets.npy", "--reduction", "max"], "--reduction: expected mean or sum, got 'max' ("),
            (["logits.npy", "targets.npy", "--grd", "g.npy"], "No such option: --grd"),
            (["logits.npy", "targets.npy", "--grad", "logits.npy"], "logits.npy: would overwrite an input"),
            (["logits.npy", "targets.npy", "--grad", "absent/g.npy"], "absent/g.npy: No such file"),
            (["targets.npy"], "expected two files, LOGITS TARGETS, or --hidden and --head and TARGETS, got 1"),
            (["targets.npy", "--hidden", "hidden.npy"], "--hidden and --head: expected both or none of them"),
            (["logits.npy", "targets.npy", "--bias", "bias.npy"], "--bias needs --hidden and --head"),
            ([*HEAD, "logits.npy", "targets.npy"], "expected one file, TARGETS, beside --hidden and --head, got 2"),
            ([*HEAD, "targets.npy", "--grad", "g.npy"], "--grad needs LOGITS"),
            ([*HEAD, "targets.npy", "--axis", "0"], "--axis: hidden states have their width on the last axis"),
            ([*HEAD, "targets.npy", "--bias", "rows.npy"], "rows.npy: bias: expected shape (7,), got (500,)"),
            ([*HEAD[:3], "logits.npy", "targets.npy"], "logits.npy: classifier: expected shape (C, 4)"),
            (
                [*HEAD, "beyond.npy"],
                "beyond.npy: targets: expected class indices in [0, 7) or ignore_index -100, got 7",
            ),
        ],
    )
    def test_wrong_files_get_one_line_and_leave_nothing(self, files, arguments, line):
        (files / "text.npy").write_text("hello")
        np.save(files / "pickled.npy", np.array([object()]), allow_pickle=True)
        (files / "cut.npy").write_bytes((files / "logits.npy").read_bytes()[:500])
        np.save(files / "complex.npy", np.zeros((500, 7), complex))
        beyond = np.load(files / "targets.npy")
        beyond[499] = 7
        np.save(files / "beyond.npy", beyond)
        before = {path.name: path.read_bytes() for path in files.iterdir()}
        done = run("eval", *arguments, "--per-row", "out.npy", cwd=files)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"crossentropy: {line}"), done.stderr
        assert done.stderr.count("\n") == 1
        assert {path.name: path.read_bytes() for path in files.iterdir()} == before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, tmp_path, number):
        """A file that takes seconds, stopped in the middle: no output, whole or partial."""
        logits = np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (300_000, 1000))
        del logits
        np.save(tmp_path / "targets.npy", np.zeros(300_000, int))
        process = subprocess.Popen(
            [COMMAND, "eval", "logits.npy", "targets.npy", "--per-row", "losses.npy"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore interrupts
        )
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".losses.npy.*.partial")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode != 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["logits.npy", "targets.npy"]

    def test_probabilities_given_as_logits(self, files):
        np.save(files / "p.npy", ce.softmax(np.load(files / "logits.npy")))
        done = run("eval", "p.npy", "targets.npy", cwd=files)
        assert done.returncode == 0
        assert "every row looks like probabilities" in done.stderr
        assert "softmax would be applied twice" in done.stderr
        assert "probabilities" not in run("eval", "logits.npy", "targets.npy", cwd=files).stderr

    def test_negative_probabilities(self, files, rng):
        q = rng.standard_normal((500, 7))
        np.save(files / "q.npy", q)
        done = run("eval", "logits.npy", "q.npy", "--json", cwd=files)
        assert done.stderr == (
            "crossentropy: warning: q.npy: some target probabilities are negative: the loss is what its definition "
            "gives for them\n"
        )
        found, exact = json.loads(done.stdout), ce.reference.cross_entropy_with_grad(np.load(files / "logits.npy"), q)
        assert found["mean_nats"] == pytest.approx(exact[0], rel=1e-6)
        assert found["negative_targets"]
        np.save(files / "q.npy", np.abs(q))
        assert run("eval", "logits.npy", "q.npy", cwd=files).stderr == ""
        q[1:], counts = np.abs(q[1:]), np.arange(500) > 0  # negative in a row that does not count
        np.save(files / "q.npy", q)
        np.save(files / "rows.npy", counts)
        assert run("eval", "logits.npy", "q.npy", "--sample-weight", "rows.npy", cwd=files).stderr == ""

    def test_negative_weights(self, files, rng):
        """They have a sum and its gradient, no mean."""
        s = rng.standard_normal(500)
        np.save(files / "rows.npy", s)
        call = ("eval", "logits.npy", "targets.npy", "--sample-weight", "rows.npy", "--grad", "g.npy")
        refused = run(*call, cwd=files)
        assert refused.returncode == 2
        assert "reduction: expected 'sum' or 'none' for weights of which some are negative" in refused.stderr
        assert not (files / "g.npy").exists()
        done = run(*call, "--reduction", "sum", "--json", cwd=files)
        assert done.stderr == ""
        found, logits, t = json.loads(done.stdout), np.load(files / "logits.npy"), np.load(files / "targets.npy")
        exact = ce.reference.cross_entropy_with_grad(logits, t, sample_weight=s, reduction="sum")
        assert found["sum_nats"] == pytest.approx(exact[0], rel=1e-5)
        assert found["mean_nats"] is found["standard_error_nats"] is found["perplexity"] is None
        assert found["rows"] == (t >= 0).sum()
        np.testing.assert_allclose(np.load(files / "g.npy"), exact[1], atol=1e-6)
        text = run(*call, "--reduction", "sum", cwd=files).stdout
        assert f"sum             {found['sum_nats']:.6f} nats" in text
        assert "perplexity" not in text
        logits[np.flatnonzero(t >= 0)[0]] = np.nan
        np.save(files / "logits.npy", logits)
        warned = run(*call, "--reduction", "sum", cwd=files).stderr
        assert warned == "crossentropy: warning: the loss of some rows is NaN: --per-row tells of which\n"

    @pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<i8", ">i4", "|u1"])
    def test_every_dtype(self, files, dtype):
        logits = np.abs(np.load(files / "logits.npy") * 3).astype(dtype)
        np.save(files / "other.npy", logits)
        done = run(
            "eval", "other.npy", "targets.npy", "--per-row", "rows.npy", "--grad", "grad.npy", "--json", cwd=files
        )
        assert done.returncode == 0, done.stderr
        targets = np.load(files / "targets.npy")
        losses = ce.cross_entropy(logits, targets, reduction="none")
        mean, gradient = ce.cross_entropy_with_grad(logits, targets)
        assert json.loads(done.stdout)["mean_nats"] == pytest.approx(mean, rel=1e-7)
        for name, right in (("rows.npy", losses), ("grad.npy", gradient)):
            assert np.load(files / name).dtype == right.dtype
            np.testing.assert_array_equal(np.load(files / name), right)

    def test_progress_on_a_terminal_and_none_in_a_pipe(self, files):
        assert run("eval", "logits.npy", "targets.npy", cwd=files).stderr == ""
        colours = {**os.environ, "FORCE_COLOR": "1"}  # asks for colours, not for a bar that moves
        assert run("eval", "logits.npy", "targets.npy", cwd=files, env=colours).stderr == ""
        shown = on_terminal("eval", "logits.npy", "targets.npy", cwd=files)
        assert "scoring" in shown
        assert "500/500" in shown
        assert on_terminal("eval", "logits.npy", "targets.npy", cwd=files, TERM="dumb") == ""

    @pytest.mark.parametrize("option", ["-q", "--quiet"])
    def test_quiet(self, files, option):
        probabilities, zeros = ce.softmax(np.load(files / "logits.npy")), np.zeros(500)
        np.save(files / "p.npy", probabilities)
        np.save(files / "zeros.npy", zeros)
        np.save(files / "nan.npy", np.full((500, 7), np.nan))
        for arguments in (["p.npy"], ["nan.npy"], ["logits.npy", "--sample-weight", "zeros.npy"]):
            loud = run("eval", *arguments, "targets.npy", cwd=files)
            quiet = run("eval", *arguments, "targets.npy", option, cwd=files)
            assert loud.stderr.startswith("crossentropy: warning: ")
            assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, loud.stdout, "")
            assert on_terminal("eval", *arguments, "targets.npy", option, cwd=files) == ""
        done = run("eval", option, "absent.npy", "targets.npy", cwd=files)
        assert (done.returncode, done.stderr) == (2, "crossentropy: absent.npy: No such file or directory\n")

    def test_file_larger_than_the_memory_allowed(self, tmp_path):
        """1.2 GB of logits, scored with 600 MB of data in reach."""
        logits = np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (300_000, 1000))
        del logits  # a hole on disk: all zeros
        np.save(tmp_path / "targets.npy", np.zeros(300_000, int))
        script = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (600 << 20,) * 2); "
            "from crossentropy.cli import main; "
            "sys.argv = ['crossentropy', 'eval', 'logits.npy', 'targets.npy', '--json']; main()"
        )
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its buffers count too, and grow with the CPUs
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["mean_nats"] == pytest.approx(np.log(1000), rel=1e-12)


class TestHelp:
    @staticmethod
    def commands():
        group = typer.main.get_command(cli.app)
        return {"": group, **group.commands}

    def test_every_option_names_default_and_example(self):
        for name, command in self.commands().items():
            for parameter in command.params:
                if name and parameter.name != "help":
                    assert "e.g. " in parameter.help, parameter.name
                    has_default = parameter.required or parameter.default is not None or "default" in parameter.help
                    assert has_default, parameter.name

    @pytest.mark.parametrize("name", ["", "eval", "explain", "explore", "info"])
    def test_it_reads_well(self, tmp_path, name):
        words = [name] if name else []
        shown = run(*words, "--help", cwd=tmp_path)
        assert shown.returncode == 0
        assert shown.stdout.startswith(" ".join(["Usage: crossentropy", *words, "[OPTIONS]"]))
        assert "  -h, --help " in shown.stdout
        text, examples = shown.stdout.split("  Examples:\n\n")
        assert max(map(len, text.splitlines())) <= 80
        noise = "[\u2500-\u257f]|<bool>|[\\w,]\\.\\.\\.$"  # boxes, types of flags, sentences cut
        assert not re.search(noise, text, re.MULTILINE)
        assert all(line.startswith("  crossentropy") for line in examples.splitlines())  # whole, to be copied
        for command in ((COMMAND,), MODULE):
            assert run(*words, "-h", cwd=tmp_path, command=command).stdout == shown.stdout
        if not name:
            assert run(cwd=tmp_path).stdout == shown.stdout

    def test_completion(self, tmp_path):
        script = """
        crossentropy --install-completion >&2 || exit
        . ~/.bashrc
        complete -p crossentropy
        complete_words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _crossentropy_completion crossentropy
            echo "${COMPREPLY[@]}"
        }
        complete_words crossentropy ev
        complete_words crossentropy eval --temp
        complete_words crossentropy eval --reduction s
        complete_words crossentropy explain --reduction ""
        complete_words crossentropy explain --reduction n
        complete_words crossentropy explore --reduction ""
        complete_words crossentropy eval logits
        """
        environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
        done = run("-c", script, cwd=tmp_path, command=["bash"], env=environment)
        registered, *completed = done.stdout.splitlines()
        assert "-o default" in registered, done.stderr  # bash completes names of files where there is nothing else
        assert completed == ["eval", "--temperature", "sum", "mean sum none", "none", "mean sum", ""]

    def test_every_example_runs(self, files):
        examples = []
        for name, command in self.commands().items():
            found = re.findall(r"(?:^|: |; |\n)crossentropy ?(.*?)(?=$|\n|; crossentropy)", command.epilog)
            assert found, f"{name}: no example"
            examples += map(shlex.split, found)
            positional = ["logits.npy", "targets.npy"] if name == "eval" else []
            for parameter in command.params:
                option = re.search(r"e\.g\. (--.*?)\.?$", parameter.help or "")
                if name and option:
                    given = positional[1:] if "--hidden" in option[1] else positional
                    examples.append([name, *given, *shlex.split(option[1])])
        assert len(examples) > 38
        np.save(files / "targets.npy", np.abs(np.load(files / "targets.npy")) % 7)
        for example in examples:
            explores = example[:1] == ["explore"]
            if explores and not {"-o", "--output"} & set(example):
                example += ["-o", "page.html"]  # it would serve the page until Ctrl-C
            done = run(*example, cwd=files)
            assert done.returncode == 0, (example, done.stderr)
            assert done.stdout or (explores and (files / "page.html").exists())
            (files / "page.html").unlink(missing_ok=True)

    def test_version_and_info(self, tmp_path):
        assert run("--version", cwd=tmp_path).stdout.strip() == ce.__version__
        assert "instruction set: " in run("info", cwd=tmp_path).stdout
        assert run("eval", cwd=tmp_path).returncode == 2

    @pytest.mark.parametrize("command", [(COMMAND,), MODULE], ids=["command", "module"])
    @pytest.mark.parametrize(
        ("variable", "expected"),
        [
            ("CROSSENTROPY_NUM_THREADS", "a positive integer"),
            ("CROSSENTROPY_KEPT_MEMORY", "bytes, 0 or more"),
            ("CROSSENTROPY_ISA", "one of baseline"),
        ],
    )
    def test_wrong_environment(self, tmp_path, command, variable, expected):
        done = run("info", cwd=tmp_path, command=command, env={**os.environ, variable: "x"})
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"crossentropy: {variable}: expected {expected}")
        assert done.stderr.endswith("got 'x'\n")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "line",
        [
            *("", "-h", "eval -h", "info", "--version", "eval p.npy targets.npy", "eval p.npy targets.npy --json"),
            *("explain --derivation --check --pitfalls --plot a.svg", "explain --json", "explain --tex"),
            *("evil", "eval", "eval absent.npy targets.npy", "eval --temperature x", "explain --names a"),
        ],
    )
    def test_no_escape_codes_in_a_pipe(self, files, line):
        np.save(files / "p.npy", ce.softmax(np.load(files / "logits.npy")))
        environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "GITHUB_ACTIONS": "true", "PY_COLORS": "1"}
        plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
        done = run(*line.split(), cwd=files, env={**plain, **environment})
        assert done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr

    def test_without_its_libraries(self):
        script = "import sys; sys.modules['typer'] = None; import crossentropy.cli"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.strip() == (
            "crossentropy: the command line needs typer: install it with pip install 'crossentropy[cli]'"
        )
