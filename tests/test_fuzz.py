"""The fuzzers for a moment; `make fuzz` lets them go on."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.parametrize("seed", [0, 1_000_000])
def test_front_end(seed):
    done = subprocess.run(
        [sys.executable, "-W", "error", FUZZ / "front_end.py", "--problems", "2000", "--seed", str(seed)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2000 problems\n"
