"""The command line, run as a person runs it."""

import contextlib
import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

COMMAND = Path(sys.executable).with_name("crossentropy")
FILES = ["logits.npy", "targets.npy"]


def run(*arguments, cwd, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([COMMAND, *map(str, arguments)], cwd=cwd, **options)


def refused(done, *words):
    """One line on standard error, nothing on standard output, exit status 2."""
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    line = done.stderr.decode()
    assert line.startswith("crossentropy: ")
    assert line.count("\n") == 1
    for word in words:
        assert word in line


def as_bytes(array):
    memory = io.BytesIO()
    np.save(memory, array)
    return memory.getvalue()


@contextlib.contextmanager
def in_thread(work):
    """Work at the other end of a pipe, whose result is there at the end."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    yield results
    thread.join(timeout=10)
    assert not thread.is_alive(), "the other end of the pipe still waits"


@contextlib.contextmanager
def scoring(files, *arguments, ignored=()):
    """A command in the middle of its work."""

    def prepare():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [COMMAND, "eval", *FILES, "--per-row", "losses.npy", *arguments],
        cwd=files,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
    )
    deadline = time.monotonic() + 30
    while not list(files.glob(".losses.npy.*.partial")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with process:
        yield process
    assert sorted(path.name for path in files.iterdir()) == ["logits.npy", "losses.npy", "targets.npy"]
