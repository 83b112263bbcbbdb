"""crossentropy eval: score saved logits."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import _scoring
from .._arrays import Array, row_type
from .._options import loss_options
from ._files import fail, load, whole_file
from ._options import IgnoreIndex, LabelSmoothing, Softcap, Temperature, ZLoss


class Reduction(StrEnum):
    """What a gradient can be of."""

    mean = "mean"
    sum = "sum"


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[LOGITS] TARGETS",
            help="Logits, float16, float32 or float64, e.g. logits.npy of shape (rows, classes), unless --hidden is "
            "there; and class indices, e.g. targets.npy of shape (rows,), or probabilities of the logits' shape.",
        ),
    ],
    hidden: Annotated[
        Path | None,
        typer.Option(
            help="Hidden states of shape (rows, width), in place of logits; none by default, "
            "e.g. --hidden hidden.npy --head head.npy."
        ),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            help="The classifier that makes logits of them, shape (classes, width); none by default, "
            "e.g. --head head.npy --hidden hidden.npy."
        ),
    ] = None,
    bias: Annotated[
        Path | None,
        typer.Option(
            help="Its bias, of shape (classes,); none by default, "
            "e.g. --bias bias.npy --hidden hidden.npy --head head.npy."
        ),
    ] = None,
    axis: Annotated[int, typer.Option(help="The class axis of the logits, e.g. --axis 1.")] = -1,
    class_weight: Annotated[
        Path | None,
        typer.Option(help="A weight for each class; all 1 by default, e.g. --class-weight weights.npy."),
    ] = None,
    sample_weight: Annotated[
        Path | None,
        typer.Option(help="A weight for each row; all 1 by default, e.g. --sample-weight rows.npy."),
    ] = None,
    ignore_index: IgnoreIndex = -100,
    label_smoothing: LabelSmoothing = 0.0,
    z_loss: ZLoss = 0.0,
    softcap: Softcap = None,
    temperature: Temperature = 1.0,
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
    """Score saved logits, or hidden states and a head: mean cross-entropy in nats and bits, perplexity, accuracy.

    The files are memory-mapped and read block by block, so they may be larger than memory. Of hidden states, logits
    are made block by block too.
    """
    logits, targets = _logits_and_targets(files, hidden, head, bias, axis, grad)
    given = (logits, targets, hidden, head, bias, class_weight, sample_weight)
    inputs = [path for path in given if path]
    for output in (per_row, grad):
        if output and any(output.exists() and output.samefile(path) for path in inputs if path.exists()):
            fail(output, "would overwrite an input")
    if per_row and per_row == grad:
        fail(grad, "is named for two outputs")
    t = load(targets)
    w, s, h, c, b = (load(path) if path else None for path in (class_weight, sample_weight, hidden, head, bias))
    if h is not None and c is not None:
        try:
            z: Array | _scoring.HeadLogits = _scoring.HeadLogits(h, c, b)
        except (TypeError, ValueError) as error:
            fail({"hidden": hidden, "classifier": head, "bias": bias}.get(str(error).partition(":")[0]), error)
        row_shape, dtype = z.shape[:-1], z.dtype
    else:
        assert logits is not None
        z = load(logits)
        if z.ndim == 0 or not -z.ndim <= axis < z.ndim:
            fail(logits, f"expected an axis {axis}, got shape {z.shape}")
        row_shape = np.moveaxis(z, axis, -1).shape[:-1]
        dtype = np.dtype(np.float64) if z.dtype.kind in "iu" else z.dtype.newbyteorder("=")
    rows = int(np.prod(row_shape, dtype=np.int64))
    console = Console(stderr=True)
    try:
        options = loss_options(ignore_index, label_smoothing, z_loss, softcap, temperature, reduction.value)
        with (
            whole_file(per_row, row_shape, row_type(dtype)) as losses,
            whole_file(grad, z.shape, dtype) as dlogits,
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
        fail(paths.get(name), error)
    if result.looks_like_probabilities and logits is not None:
        print(
            f"crossentropy: warning: {logits}: every row looks like probabilities (non-negative, sums to 1): "
            "softmax would be applied twice; logits were expected",
            file=sys.stderr,
        )
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        _print(result)


def _logits_and_targets(
    files: list[Path], hidden: Path | None, head: Path | None, bias: Path | None, axis: int, grad: Path | None
) -> tuple[Path | None, Path]:
    """Which file is which; no logits where hidden states stand in for them."""
    if (hidden is None) != (head is None):
        fail(None, "--hidden and --head: expected both or none of them")
    if hidden is None:
        if bias is not None:
            fail(None, "--bias needs --hidden and --head")
        if len(files) != 2:
            fail(None, f"expected two files, LOGITS TARGETS, or --hidden and --head and TARGETS, got {len(files)}")
        return files[0], files[1]
    if len(files) != 1:
        fail(None, f"expected one file, TARGETS, beside --hidden and --head, got {len(files)}")
    if axis != -1:
        fail(None, "--axis: hidden states have their width on the last axis")
    if grad is not None:
        fail(None, "--grad needs LOGITS: the gradient of logits made of hidden states would be as large as they are")
    return None, files[0]


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
