"""The example learns the same on two processes as on one."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[3] / "examples" / "vocab_parallel.py"


def test_vocab_parallel():
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLE, "--steps", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    classes = int(re.search(r"vocabulary of ([\d,]+), 2 processes", done.stdout)[1].replace(",", ""))
    losses = [(float(one), float(two)) for one, two in re.findall(r"(?m)^ \d+ +(\d+\.\d+) +(\d+\.\d+) *$", done.stdout)]
    assert len(losses) == 3
    assert losses[0][0] > losses[2][0]
    assert abs(losses[0][0] / np.log(classes) - 1) < 1e-2, "untrained: every word as likely as any other"
    for one, two in losses:
        assert abs(two / one - 1) <= 1e-6
    assert float(re.search(r"largest relative difference of a loss (\S+)", done.stdout)[1]) <= 1e-6
