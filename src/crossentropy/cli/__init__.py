"""The command line: score saved logits, explain the loss, tell the configuration."""

import io
import signal
import sys
from typing import Annotated

from .. import __version__, show_config

try:
    import typer

    from . import _eval, _explain
except ModuleNotFoundError as error:
    if (error.name or "").startswith("crossentropy"):
        raise
    raise SystemExit(
        f"crossentropy: the command line needs {error.name}: install it with pip install 'crossentropy[cli]'"
    ) from None

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Softmax cross-entropy: exact, reproducible, fast.",
)
app.command(
    "eval",
    epilog="Examples: crossentropy eval logits.npy targets.npy --per-row losses.npy; "
    "crossentropy eval --hidden hidden.npy --head head.npy targets.npy",
)(_eval.evaluate)
app.command("explain", epilog="Examples:\n\n" + "\n\n".join(_explain.EXAMPLES))(_explain.explain)


@app.command(epilog="Example: crossentropy info")
def info() -> None:
    """Tell version, instruction sets and threads."""
    show_config()


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(epilog="Examples: crossentropy eval logits.npy targets.npy; crossentropy info; crossentropy --version")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the program itself."""


def main() -> None:
    """Run the command line; a termination unwinds like an interrupt, so that no partial file stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a formula's letters shows question marks
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()
