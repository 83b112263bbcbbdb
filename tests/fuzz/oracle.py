"""Run a command in this process, and say how it may end."""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
import numpy as np

from crossentropy import cli

CORPUS = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def text_stream():
    return io.TextIOWrapper(io.BytesIO(), "utf-8")


def text_of(stream):
    stream.flush()
    return stream.buffer.getvalue().decode()


def run(words):
    """The exit status and what was printed; AssertionError for what no input may lead to."""
    out, err = text_stream(), text_stream()
    status, sys.argv = None, ["crossentropy", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    printed, lines = text_of(out), text_of(err).split("\n")
    assert not told, f"warnings: {[str(one.message) for one in told]}"
    assert not list(Path().glob(".*.partial")), "a partial file stays"
    assert lines.pop() == "", f"half a line: {lines}"
    if status == 0:
        assert printed, "nothing printed"
        assert all(line.startswith(("crossentropy: warning: ", "wrote ", "row 0 is row ")) for line in lines), lines
    else:
        assert status == 2, f"exit status {status}: {lines}"
        assert len(lines) == 1, f"not one line: {lines}"
        assert lines[0].startswith("crossentropy: "), lines
        assert not printed, f"printed in spite of a failure: {printed}"
    return status, printed


def as_bytes(array, version=(1, 0)):
    memory = io.BytesIO()
    np.lib.format.write_array(memory, np.asanyarray(array), version)
    return memory.getvalue()


def fuzz(name, seeds, files, one_input, flags, **setup):
    """Fuzz in a folder of its own that holds the files; with files named as arguments, run those inputs again."""
    given = [str(Path(word).resolve()) for word in sys.argv[1:] if not word.startswith("-")]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    flags = [*flags, "-timeout=30", f"-artifact_prefix={CORPUS}/{name}-"]
    flags += [word for word in sys.argv[1:] if word.startswith("-")]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for path, array in files.items():
            Path(path).write_bytes(as_bytes(array))
        Path("folder.npy").mkdir()
        atheris.Setup([sys.argv[0], *flags, *(given or [str(corpus)])], one_input, **setup)
        atheris.Fuzz()
