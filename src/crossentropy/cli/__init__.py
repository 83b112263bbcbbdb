"""The command line: score saved logits, explain the loss and show it as a page, tell the configuration."""

import contextlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn, cast

from .. import __version__, show_config

try:
    import typer

    from . import _eval, _explain, _explore
    from ._files import format_warning, tell_failure
except ModuleNotFoundError as error:
    if (error.name or "").startswith("crossentropy"):
        raise
    raise SystemExit(
        f"crossentropy: the command line needs {error.name}: install it with pip install 'crossentropy[cli]'"
    ) from None


def _examples(*commands: str) -> str:
    """Make an epilog whose lines stay whole, to be copied."""
    return "Examples:\n\n\b\n" + "\n".join(commands)


app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # the same help on a terminal and in a pipe
    pretty_exceptions_enable=False,
    help="Softmax cross-entropy: exact, reproducible, fast.",
)
app.command(
    "eval",
    short_help="Score saved logits, or hidden states and a head.",
    epilog=_examples(
        "crossentropy eval logits.npy targets.npy --per-row losses.npy",
        "crossentropy eval --hidden hidden.npy --head head.npy targets.npy",
    ),
)(_eval.score_files)
app.command("explain", short_help="Show the loss step by step.", epilog=_examples(*_explain.EXAMPLES))(_explain.explain)
app.command("explore", short_help="Show the loss as a live page.", epilog=_examples(*_explore.EXAMPLES))(
    _explore.explore
)


@app.command(short_help="Tell what a bug report needs.", epilog=_examples("crossentropy info"))
def info() -> None:
    """Tell what a bug report needs: versions, system, instruction sets and threads."""
    show_config()


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(
    epilog=_examples("crossentropy explain", "crossentropy eval logits.npy targets.npy", "crossentropy eval --help")
)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the program itself."""


_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
# click's UsageError, or what newer versions of typer have in its place.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def main() -> None:
    """Run the command line: a failure is one line and exit status 2, a signal leaves no partial file."""
    if sys.stdout is None:  # standard output is closed: what is printed is discarded
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a formula's letters shows question marks
    warnings.formatwarning = format_warning
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _end)
    sys.exit(_status())


def _end(number: int, _: object) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second signal would interrupt the clean-up
    sys.exit(128 + number)


def _status() -> int:
    try:
        # One name, however it is started: that of the usage, and the one that a shell completes.
        status: int = app(sys.argv[1:] or ["--help"], prog_name="crossentropy", standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except _UsageError as error:
        message = error.format_message()
        if isinstance(error, typer.BadParameter) and error.param and error.message:
            message = f"{error.param.opts[-1]}: {error.message}"
        tell_failure(None, f"{message} ({error.ctx.command_path} --help tells more)" if error.ctx else message)
        return 2
    except BrokenPipeError:
        _print_no_more()
        return 1  # as click and rich have it
    except OSError as error:
        if error.filename is None:
            _print_no_more()
        tell_failure(error.filename or "standard output", error.strerror or error)
        return 2
    except MemoryError as error:
        tell_failure(None, f"not enough memory: {error}".rstrip(": "))
        return 2
    return status


def _print_no_more() -> None:
    """Discard what is still to be printed: it would fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
