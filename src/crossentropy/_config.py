"""Threads, kept memory, and what the library runs on."""

import contextlib
import os
import platform
import reprlib
from pathlib import Path

import numpy as np

from ._core import (
    available_instruction_sets,
    instruction_set,
    kept_memory,
    limit_kept_memory,
    no_limit,
    version,
)
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


def _default_kept_memory() -> int | None:
    given = os.environ.get("CROSSENTROPY_KEPT_MEMORY", "")
    if not given:
        return None
    if not given.isdecimal() or len(given) > 18:
        raise ValueError(f"CROSSENTROPY_KEPT_MEMORY: expected bytes, 0 or more, got {reprlib.repr(given)}")
    return int(given)


def _limit_kept_memory(max_bytes: int | None) -> None:
    limit_kept_memory(no_limit if max_bytes is None else max_bytes)


_kept_memory = _default_kept_memory()
_limit_kept_memory(_kept_memory)


@teaches_keywords()
def set_kept_memory(max_bytes: int | None) -> None:
    """Set how much memory of results that are gone may be kept for the next ones.

    Results of 32 MiB or more, of NumPy and of ``crossentropy.torch``, take over the memory of earlier ones, since fresh
    memory costs more than the loss and its gradient. Until it is written again the system may take what is kept, at
    any time. Tools that show what a process holds count it still; what they show as available counts it too.

    Parameters
    ----------
    max_bytes : int or None
        At least 0. None stands for as much as results have ever held at once, of which those that are alive hold a
        part: more is never kept. 0 keeps nothing, and leaves all results to NumPy's and PyTorch's own allocators. The
        default is the environment variable ``CROSSENTROPY_KEPT_MEMORY`` or else None.

    Notes
    -----
    Nothing is kept where it would count like memory in use: under a limit of the address space (``ulimit -v``) or of
    data (``ulimit -d``), and where the system does not overcommit. A child of ``fork`` begins with nothing kept.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.set_kept_memory(0)  # gives back what is kept
    >>> ce.set_kept_memory(None)
    """
    global _kept_memory
    if max_bytes is not None:
        max_bytes = as_integer("max_bytes", max_bytes, "an integer or None")
        if max_bytes < 0:
            raise ValueError(f"max_bytes: expected at least 0, got {max_bytes}")
    _limit_kept_memory(max_bytes)
    _kept_memory = max_bytes


def cpu_name() -> str:
    """Return the model of the CPU, or what the system tells instead."""
    with contextlib.suppress(OSError):  # Linux has it
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show_config() -> None:
    """Print what a bug report needs: versions, system, instruction sets, threads and memory of large results.

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
    memory of large results: ... MiB in use, ... MiB kept, at most ... (CROSSENTROPY_KEPT_MEMORY, set_kept_memory)
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
    live, kept = (f"{bytes_ / 2**20:.0f} MiB" for bytes_ in kept_memory())
    most = "as much as was in use at once" if _kept_memory is None else f"{_kept_memory} bytes"
    print(
        f"memory of large results: {live} in use, {kept} kept, at most {most} "
        "(CROSSENTROPY_KEPT_MEMORY, set_kept_memory)"
    )
