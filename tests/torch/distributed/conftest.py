import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for processes.py

from processes import Processes


@pytest.fixture(scope="session")
def world():
    """Ranks, so many of them: the same for all tests, until a test has spoiled them."""
    kept = {}

    def ranks(size):
        if size in kept and kept[size].spoiled:
            kept.pop(size).close()
        if size not in kept:
            kept[size] = Processes(size)
        return kept[size]

    yield ranks
    for processes in kept.values():
        processes.close()


@pytest.fixture(params=[2, 3], ids="{} ranks".format)
def ranks(request, world):
    return world(request.param)
