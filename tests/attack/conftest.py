import os
import subprocess
import sys

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
