"""Real processes, joined by gloo on loopback, that run functions of the tests and stay for the next.

    from processes import Processes

    def double(x):                       # at the top of a test file: found there by its file and name
        return dist.get_rank(), 2 * x

    with Processes(3) as ranks:          # in tests the fixture `ranks`, or `world(3)`: kept for all of them
        assert ranks.run(double, 21) == [(0, 42), (1, 42), (2, 42)]

`run` calls the function on every rank at once, with the same arguments, and returns the results in the order of ranks;
where a rank raises, it raises RankError with every rank's traceback. `outcomes` returns what each rank raised in the
place of its result instead. `start` and `collect` are its halves: between them a rank may be killed or stopped, by
`kill` and `stop`. Arguments and results are pickled; each rank has one thread, and warnings are errors there as well.

Where some ranks raised and others did not, or one has died or is late, the group is spoiled: collectives may wait for
partners that have gone. `world` starts another then. No process outlives the one that started it.
"""

import contextlib
import ctypes
import faulthandler
import functools
import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

PR_SET_PDEATHSIG = 1


class RankError(AssertionError):
    """What a rank raised that should not."""


class ProcessDiedError(Exception):
    """In the place of a result: the process has ended."""


class NoAnswerError(Exception):
    """In the place of a result: none came in time."""


class Processes:
    """So many ranks; `timeout` is that of their collectives, in seconds."""

    def __init__(self, size: int, timeout: float = 20.0) -> None:
        self.size, self.spoiled = size, False
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self._processes, self._connections = [], []
        context, tests = multiprocessing.get_context("forkserver"), os.getpid()
        context.set_forkserver_preload(["crossentropy.torch", "torch.distributed.tensor"])  # seconds, once
        for rank in range(size):
            here, there = context.Pipe()
            arguments = (there, tests, rank, size, f"file://{self._folder.name}/store", timeout)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._connections.append(here)
        self.collect(within=60)  # until all have joined
        if self.spoiled:
            self.close()
            raise RuntimeError("the ranks have not joined")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, function: Callable[..., Any], *arguments: Any, within: float = 60.0) -> None:
        """Call a function on every rank, without waiting; one that takes longer prints where it is."""
        code = function.__code__
        message = pickle.dumps((code.co_filename, function.__qualname__, arguments, within))
        for connection in self._connections:
            with contextlib.suppress(BrokenPipeError):  # its end is told by collect
                connection.send_bytes(message)

    def collect(self, within: float = 60.0, of: Sequence[int] | None = None) -> list[Any]:
        """What each rank returned or raised; with `of` only these, and the group is spoiled."""
        found: list[Any] = [None] * self.size
        asked, end = range(self.size) if of is None else of, time.monotonic() + within
        waiting = {self._connections[rank]: rank for rank in asked}
        while waiting and (ready := wait(list(waiting), max(0.0, end - time.monotonic()))):
            for connection in ready:
                rank = waiting.pop(connection)
                try:
                    found[rank] = pickle.loads(connection.recv_bytes())
                except (EOFError, ConnectionResetError):
                    self._processes[rank].join(5)
                    found[rank] = ProcessDiedError(f"exit code {self._processes[rank].exitcode}")
        for rank in waiting.values():
            found[rank] = NoAnswerError(f"within {within} s")
        raised = [isinstance(each, Exception) for each in found]
        gone = any(isinstance(each, ProcessDiedError | NoAnswerError) for each in found)
        self.spoiled |= of is not None or gone or any(raised) != all(raised)
        return found

    def outcomes(self, function: Callable[..., Any], *arguments: Any, within: float = 60.0) -> list[Any]:
        """What each rank returns or raises."""
        self.start(function, *arguments, within=within)
        return self.collect(within)

    def run(self, function: Callable[..., Any], *arguments: Any, within: float = 60.0) -> list[Any]:
        """What each rank returns; RankError where one raises."""
        found = self.outcomes(function, *arguments, within=within)
        if any(isinstance(each, Exception) for each in found):
            told = ("".join([f"rank {rank}: {x!r}", *getattr(x, "__notes__", ())]) for rank, x in enumerate(found))
            raise RankError("\n".join(told))
        return found

    def kill(self, rank: int) -> None:
        """SIGKILL."""
        self._processes[rank].kill()

    def stop(self, rank: int) -> None:
        """SIGSTOP: it is there, and does nothing."""
        os.kill(self._processes[rank].pid, signal.SIGSTOP)

    def close(self) -> None:
        """End all processes; a spoiled group's at once."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(0 if self.spoiled else 5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._folder.cleanup()


@functools.cache
def _module(path: str) -> Any:
    """The file of a test, whatever name pytest gave it."""
    spec = importlib.util.spec_from_file_location(f"on_ranks_{Path(path).stem}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _told(error: BaseException) -> Exception:
    """An exception as it can be sent, with its traceback."""
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = None
    if not isinstance(sent, Exception):
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("\n" + "".join(traceback.format_exception(error)))
    return sent


def _serve(connection: Connection, tests: int, rank: int, size: int, store: str, timeout: float) -> None:
    """A rank: joins the group, then runs what it is sent until nobody is there to send."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests'
    if sys.platform == "linux":  # even a rank that waits, or is stopped, ends with the server that made it, and that
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # with the tests, once no rank holds its pipe
        os.close(multiprocessing.forkserver._forkserver._forkserver_alive_fd)
        if not Path(f"/proc/{tests}").exists():
            return
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    import torch
    import torch.distributed as dist

    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store, timedelta(seconds=timeout), size, rank)
    connection.send_bytes(pickle.dumps(None))
    while True:
        try:
            path, name, arguments, within = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            break
        faulthandler.dump_traceback_later(within)
        try:
            result = pickle.dumps(getattr(_module(path), name)(*arguments))
        except SystemExit:
            raise
        except BaseException as error:  # that of pytest.fail is no Exception
            result = pickle.dumps(_told(error))
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(result)
    dist.destroy_process_group()
