"""Threads, and what the library runs on."""

import os
import reprlib

from . import _core
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


def show_config() -> None:
    """Print version, instruction sets and threads.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.show_config()  # doctest: +ELLIPSIS
    crossentropy ...
    instruction set: ... (available: ...; CROSSENTROPY_ISA chooses)
    threads: ... (CROSSENTROPY_NUM_THREADS, set_num_threads)
    """
    available = ", ".join(_core.available_instruction_sets)
    print(f"crossentropy {_core.version}")
    print(f"instruction set: {_core.instruction_set} (available: {available}; CROSSENTROPY_ISA chooses)")
    print(f"threads: {_threads} (CROSSENTROPY_NUM_THREADS, set_num_threads)")
