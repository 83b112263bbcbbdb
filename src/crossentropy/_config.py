"""Threads, and what the library runs on."""

import contextlib
import os
import platform
import reprlib
from pathlib import Path

import numpy as np

from ._core import available_instruction_sets, instruction_set, version
from ._keywords import teaches_keywords
from ._options import as_integer


def _checked_threads(num_threads: int, name: str) -> int:
    number = as_integer(name, num_threads)
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return min(number, 1024)


def _default_threads() -> int:
    given = os.environ.get("CROSSENTROPY_NUM_THREADS", "")
    if given:
        if not given.isdecimal() or len(given) > 18:
            raise ValueError(f"CROSSENTROPY_NUM_THREADS: expected a positive integer, got {reprlib.repr(given)}")
        return _checked_threads(int(given), "CROSSENTROPY_NUM_THREADS")
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_threads = _default_threads()


@teaches_keywords()
def set_num_threads(num_threads: int) -> None:
    """Set how many threads a call may use from now on.

    Results do not depend on it. Small calls always use one thread.

    Parameters
    ----------
    num_threads : int
        At least 1. The default is the environment variable ``CROSSENTROPY_NUM_THREADS`` or else the number of CPUs
        that the process may use, both read once at import.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.set_num_threads(2)
    >>> ce.get_num_threads()
    2
    """
    global _threads
    _threads = _checked_threads(num_threads, "num_threads")


def get_num_threads() -> int:
    """Return how many threads a call may use; see `set_num_threads`.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.get_num_threads() >= 1
    True
    """
    return _threads


def resolve_threads(num_threads: int | None) -> int:
    """How many threads a call may use: its own `num_threads`, or the general setting."""
    return _threads if num_threads is None else _checked_threads(num_threads, "num_threads")


def cpu_name() -> str:
    """Return the model of the CPU, or what the system tells instead."""
    with contextlib.suppress(OSError):  # Linux has it
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show_config() -> None:
    """Print what a bug report needs: versions, system, instruction sets and threads.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.show_config()  # doctest: +ELLIPSIS
    crossentropy ...
    Python ..., NumPy ...
    system: ...
    CPU: ...
    instruction set: ... (available: ...; CROSSENTROPY_ISA chooses)
    threads: ... (CROSSENTROPY_NUM_THREADS, set_num_threads)
    """
    import importlib.metadata  # takes as long as a third of NumPy

    available = ", ".join(available_instruction_sets)
    print(f"crossentropy {version}")
    versions = [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    for name in ("torch", "jax"):  # not imported: that takes seconds
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    print(", ".join(versions))
    print(f"system: {platform.platform()}")
    print(f"CPU: {cpu_name()}")
    print(f"instruction set: {instruction_set} (available: {available}; CROSSENTROPY_ISA chooses)")
    print(f"threads: {_threads} (CROSSENTROPY_NUM_THREADS, set_num_threads)")
