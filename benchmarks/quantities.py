"""What the quantities of family.py share: a peer, and where memory stands."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Step = Callable[[], object]


class Peer(NamedTuple):
    """A function that makes what is timed, and the packages whose versions belong to it."""

    make: Callable[[], Step]
    packages: tuple[str, ...]


def resident(largest: bool) -> float:
    """Bytes of memory, or the most there were since the last call. Linux only."""
    status = Path("/proc/self/status").read_text()
    bytes_of = {line.partition(":")[0]: line.split()[1] for line in status.splitlines() if line.endswith("kB")}
    Path("/proc/self/clear_refs").write_text("5")
    return 1024.0 * float(bytes_of["VmHWM" if largest else "VmRSS"])
