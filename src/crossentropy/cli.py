"""The command line: score saved logits, tell the configuration."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np

from . import __version__, _scoring, show_config
from ._arrays import Array
from ._options import loss_options

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table
except ModuleNotFoundError as error:
    raise SystemExit(
        f"crossentropy: the command line needs {error.name}: install it with pip install 'crossentropy[cli]'"
    ) from None

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Softmax cross-entropy: exact, reproducible, fast.",
)


class Reduction(StrEnum):
    """What a gradient can be of."""

    mean = "mean"
    sum = "sum"


def _fail(path: Path | None, reason: object) -> NoReturn:
    """One line that names the file and the reason; exit status 2."""
    print(f"crossentropy: {f'{path}: ' if path else ''}{' '.join(str(reason).split())}", file=sys.stderr)
    raise typer.Exit(2)


def _load(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                _fail(path, "expected a NumPy .npy file")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        _fail(path, error.strerror or error)
    except ValueError as error:
        _fail(path, "pickled objects are refused" if "object" in str(error).lower() else error)
    return np.asarray(array)


@contextlib.contextmanager
def _whole_file(path: Path | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Array | None]:
    """An .npy file to fill, which gets its name when it is complete; on any failure nothing is left."""
    if path is None:
        yield None
        return
    partial = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            size = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            file.flush()
            if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a crash while writing
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        array = np.lib.format.open_memmap(partial, mode="r+") if np.prod(shape) else np.empty(shape, dtype)
        yield np.asarray(array)
        if isinstance(array, np.memmap):
            array.flush()
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        _fail(path, error.strerror or error)
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@app.command("eval", epilog="Example: crossentropy eval logits.npy targets.npy --per-row losses.npy")
def evaluate(
    logits: Annotated[
        Path, typer.Argument(help="Logits, float32 or float64, e.g. logits.npy of shape (rows, classes).")
    ],
    targets: Annotated[
        Path,
        typer.Argument(help="Class indices, e.g. targets.npy of shape (rows,), or probabilities of the logits' shape."),
    ],
    axis: Annotated[int, typer.Option(help="The class axis of the logits, e.g. --axis 1.")] = -1,
    class_weight: Annotated[
        Path | None,
        typer.Option(help="A weight for each class; all 1 by default, e.g. --class-weight weights.npy."),
    ] = None,
    sample_weight: Annotated[
        Path | None,
        typer.Option(help="A weight for each row; all 1 by default, e.g. --sample-weight rows.npy."),
    ] = None,
    ignore_index: Annotated[
        int, typer.Option(help="Rows with this class index do not count, e.g. --ignore-index 0.")
    ] = -100,
    label_smoothing: Annotated[
        float, typer.Option(help="Part of each target spread over all classes, 0 to 1, e.g. --label-smoothing 0.1.")
    ] = 0.0,
    z_loss: Annotated[
        float, typer.Option(help="Factor of the squared log-sum-exp, at least 0, e.g. --z-loss 0.0001.")
    ] = 0.0,
    softcap: Annotated[
        float | None, typer.Option(help="Cap logits smoothly at this size; none by default, e.g. --softcap 30.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Divides the logits, above 0, e.g. --temperature 2.")] = 1.0,
    reduction: Annotated[
        Reduction, typer.Option(help="What --grad is the gradient of, e.g. --reduction sum.")
    ] = Reduction.mean,
    per_row: Annotated[
        Path | None,
        typer.Option(help="Write each row's loss, in nats; no file by default, e.g. --per-row losses.npy."),
    ] = None,
    grad: Annotated[
        Path | None,
        typer.Option(help="Write the gradient; no file by default, e.g. --grad dlogits.npy."),
    ] = None,
    num_threads: Annotated[
        int | None, typer.Option(help="Threads at most; by default the CPUs available, e.g. --num-threads 1.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; null is what is not finite, e.g. --json.")
    ] = False,
) -> None:
    """Score saved logits: mean cross-entropy in nats and bits, perplexity, accuracy.

    The files are memory-mapped and read block by block, so they may be larger than memory.
    """
    inputs = [path for path in (logits, targets, class_weight, sample_weight) if path]
    for output in (per_row, grad):
        if output and any(output.exists() and output.samefile(path) for path in inputs if path.exists()):
            _fail(output, "would overwrite an input")
    if per_row and per_row == grad:
        _fail(grad, "is named for two outputs")
    z, t = _load(logits), _load(targets)
    w, s = (_load(path) if path else None for path in (class_weight, sample_weight))
    if z.ndim == 0 or not -z.ndim <= axis < z.ndim:
        _fail(logits, f"expected an axis {axis}, got shape {z.shape}")
    row_shape = np.moveaxis(z, axis, -1).shape[:-1]
    dtype = np.dtype(np.float64) if z.dtype.kind in "iu" else z.dtype.newbyteorder("=")
    rows = int(np.prod(row_shape, dtype=np.int64))
    console = Console(stderr=True)
    try:
        options = loss_options(ignore_index, label_smoothing, z_loss, softcap, temperature, reduction.value)
        with (
            _whole_file(per_row, row_shape, dtype) as losses,
            _whole_file(grad, z.shape, dtype) as dlogits,
            Progress(
                TextColumn("scoring"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            ) as progress,
        ):
            task = progress.add_task("scoring", total=rows)
            result = _scoring.score(
                z,
                t,
                options,
                axis=axis,
                class_weight=w,
                sample_weight=s,
                num_threads=num_threads,
                losses_out=losses,
                dlogits_out=dlogits,
                progress=lambda n: progress.advance(task, n),
            )
    except (IndexError, TypeError, ValueError) as error:
        name = str(error).partition(":")[0]
        paths = {"logits": logits, "targets": targets, "class_weight": class_weight, "sample_weight": sample_weight}
        _fail(paths.get(name), error)
    if result.looks_like_probabilities:
        print(
            f"crossentropy: warning: {logits}: every row looks like probabilities (non-negative, sums to 1): "
            "softmax would be applied twice; logits were expected",
            file=sys.stderr,
        )
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        _print(result)


def _print(result: _scoring.Score) -> None:
    numbers = result.to_dict()
    table = Table(show_header=False, box=None)
    table.add_row("rows counted", f"{result.rows:,}")
    table.add_row("rows ignored", f"{result.ignored:,}")
    table.add_row("classes", f"{result.classes:,}")
    error = result.standard_error
    table.add_row("cross-entropy", f"{result.mean:.6f} ± {error:.6f} nats")
    table.add_row("", f"{result.mean / np.log(2):.6f} ± {error / np.log(2):.6f} bits")
    table.add_row("perplexity", f"{result.perplexity:.4f}")
    for name, key in (("top-1 accuracy", "top1_accuracy"), ("top-5 accuracy", "top5_accuracy")):
        accuracy = numbers[key]
        table.add_row(name, "–" if accuracy is None else f"{100 * accuracy:.2f} %")
    Console(highlight=False).print(table)


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
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()
