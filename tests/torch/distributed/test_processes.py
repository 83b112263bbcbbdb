"""The harness itself: results, exceptions, deaths, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import NoAnswerError, ProcessDiedError, Processes, RankError


def summed(x):
    total = torch.tensor([x + dist.get_rank()])
    dist.all_reduce(total)
    return total


def one_raises(rank):
    if dist.get_rank() == rank:
        raise ValueError("this one")
    return os.getpid()


def waits(seconds):
    time.sleep(seconds)
    return os.getpid()


def test_ranks_stay(ranks):
    assert ranks.run(summed, 5) == [ranks.size * 5 + sum(range(ranks.size))] * ranks.size
    pids = ranks.run(waits, 0)
    assert len({*pids, os.getpid()}) == ranks.size + 1
    assert pids == ranks.run(waits, 0)


def test_what_a_rank_raises(world):
    ranks = world(2)
    one, other = ranks.outcomes(one_raises, 1)
    assert isinstance(one, int)
    with pytest.raises(ValueError, match="this one"):
        raise other
    assert "in one_raises" in other.__notes__[0]
    assert ranks.spoiled
    ranks = world(2)
    assert not ranks.spoiled
    with pytest.raises(RankError, match=r"rank 0: ValueError\('this one'\)\n(.*\n)*.*in one_raises(.*\n)*rank 1: \d+"):
        ranks.run(one_raises, 0)


def test_a_rank_that_is_killed_or_late():
    with Processes(2) as ranks:
        ranks.start(waits, 30)
        ranks.kill(0)
        killed, late = ranks.collect(within=1)
        assert isinstance(killed, ProcessDiedError)
        assert f"exit code -{signal.SIGKILL.value}" in str(killed)
        assert isinstance(late, NoAnswerError)
        assert ranks.spoiled


ENDS = """
import os, signal, sys
sys.path.insert(0, {folder!r})
if __name__ == "__main__":
    from processes import Processes
    from test_processes import waits
    ranks = Processes(3)
    print(*ranks.run(waits, 0), flush=True)
    ranks.start(waits, 100)
    ranks.stop(2)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "(zombie)" not in status.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_no_rank_outlives_the_tests(tmp_path):
    """Neither one that works nor one that is stopped."""
    script = tmp_path / "ends.py"
    script.write_text(ENDS.format(folder=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = done.stdout.split()
    assert len(pids) == 3
    end = time.monotonic() + 10
    while any(map(runs, pids)):
        assert time.monotonic() < end
        time.sleep(0.05)
