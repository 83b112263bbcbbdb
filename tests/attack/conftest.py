import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def alone():
    """Run a script in a process of its own, which a crash ends alone, and return what it prints."""

    def run(script, *arguments, timeout=120, **environment):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    return run


@pytest.fixture
def arrays(rng):
    return (2 * rng.standard_normal((50, 7))).astype(np.float32), rng.integers(0, 7, 50)


@pytest.fixture
def files(tmp_path, arrays):
    for name, array in zip(("logits.npy", "targets.npy"), arrays, strict=True):
        np.save(tmp_path / name, array)
    return tmp_path


@pytest.fixture
def large(tmp_path):
    """Files that take seconds: 4 GB of zeros, a hole on disk."""
    np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (1_000_000, 1000))
    np.save(tmp_path / "targets.npy", np.zeros(1_000_000, int))
    (tmp_path / "losses.npy").write_text("kept")
    return tmp_path
