"""Files read and written by the commands, what they print, and the one way to fail."""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import typer
from rich.console import Console, RenderableType

from .._files import same_file, whole
from .._stored import Stored, new_array, open_array

_quiet = False


def be_quiet(wanted: bool) -> bool:
    """Print no notes and no warnings from now on, Python's own among them. It returns the value of its option."""
    global _quiet
    _quiet = wanted
    if wanted:
        warnings.simplefilter("ignore")
    return wanted


def tell(line: str) -> None:
    """Print a note or a warning to standard error, if they are wanted."""
    if not _quiet:
        _print(line)


def format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Like the commands' own warnings: of matplotlib's, where in its code they arose is nothing for a user."""
    return _printable(f"crossentropy: warning: {message}") + "\n"


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def _print(line: str) -> None:
    """Print one line to standard error, with unprintable characters escaped; ignore a closed one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(_printable(line), file=sys.stderr)


def tell_failure(path: Path | str | None, reason: object) -> None:
    _print(f"crossentropy: {f'{path}: ' if path else ''}{' '.join(str(reason).split())}")


def fail(path: Path | None, reason: object) -> NoReturn:
    """One line that names the file and the reason; exit status 2."""
    tell_failure(path, reason)
    raise typer.Exit(2)


def show(what: RenderableType) -> None:
    """Print to standard output, without rich's spaces at ends of lines; it would end the process at a closed pipe."""
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(what)
    print("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def load(path: Path, opened: contextlib.ExitStack) -> Stored:
    """Open a .npy file, which closes with `opened`."""
    try:
        array = open_array(path)
    except ValueError as error:
        fail(path, error)
    opened.callback(array.file.close)
    return array


def check_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None]) -> None:
    """Refuse an output that is the same file as an input or another output."""
    named = [path for path in outputs if path]
    for number, output in enumerate(named):
        if any(same_file(output, path) for path in inputs if path):
            fail(output, "would overwrite an input")
        if any(same_file(output, other) for other in named[:number]):
            fail(output, "is named for two outputs")


@contextlib.contextmanager
def new_file(path: Path | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Stored | None]:
    """A .npy file to write. It gets its name when it is complete; if anything fails, it is deleted."""
    if path is None:
        yield None
        return
    with whole(path) as file:
        yield new_array(file, path, shape, dtype)
