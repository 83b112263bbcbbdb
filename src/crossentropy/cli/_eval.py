"""crossentropy eval: score saved logits."""

import contextlib
import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import _scoring
from .._arrays import row_type
from .._options import loss_options
from .._stored import Stored
from ._files import check_outputs, fail, load, new_file, show, tell
from ._options import (
    EntropyBonus,
    FocalGamma,
    IgnoreIndex,
    LabelSmoothing,
    Quiet,
    Softcap,
    Temperature,
    ZLoss,
    integer,
    reads,
)


class Reduction(StrEnum):
    """The losses that have one gradient."""

    mean = "mean"
    sum = "sum"


def score_files(
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
    axis: Annotated[int, typer.Option(parser=integer, help="The class axis of the logits, e.g. --axis 1.")] = -1,
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
    entropy_bonus: EntropyBonus = 0.0,
    focal_gamma: FocalGamma = 0.0,
    softcap: Softcap = None,
    temperature: Temperature = 1.0,
    reduction: Annotated[
        Reduction,
        typer.Option(
            parser=reads("mean or sum", Reduction),
            help="What --grad is the gradient of; sum also scores negative weights, whose mean has no meaning, "
            "e.g. --reduction sum.",
        ),
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
        int | None,
        typer.Option(parser=integer, help="Threads at most; by default the CPUs available, e.g. --num-threads 1."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; null is what is not finite, e.g. --json.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Score saved logits, or hidden states and a head: mean cross-entropy in nats and bits, perplexity, accuracy.

    Files are read block by block, so they may be larger than memory; a pipe, as in <(zcat logits.npy.gz), is read whole
    into memory. Of hidden states, logits are made block by block too. An output takes the place of its file when it is
    complete; a pipe or a terminal is written to then.
    """
    logits, targets = _logits_and_targets(files, hidden, head, bias, axis, grad)
    check_outputs((per_row, grad), (logits, targets, hidden, head, bias, class_weight, sample_weight))
    console = Console(stderr=True)
    named = {
        "logits": logits,
        "targets": targets,
        "hidden": hidden,
        "classifier": head,
        "bias": bias,
        "class_weight": class_weight,
        "sample_weight": sample_weight,
    }
    with contextlib.ExitStack() as opened:
        arrays = {name: load(path, opened) for name, path in named.items() if path}
        whole = {name: arrays[name][()] for name in ("classifier", "bias", "class_weight") if name in arrays}
        try:
            if logits is None:
                z: Stored | _scoring.HeadLogits = _scoring.HeadLogits(
                    arrays["hidden"], whole["classifier"], whole.get("bias")
                )
            else:
                z = arrays["logits"]
                if not -z.ndim <= axis < z.ndim:
                    fail(logits, f"expected an axis {axis}, got shape {z.shape}")
                if z.ndim < arrays["targets"].ndim:
                    fail(None, f"expected LOGITS before TARGETS, got shapes {z.shape} and {arrays['targets'].shape}")
            rows, dtype = _scoring.check_logits(z, axis)
            options = loss_options(
                ignore_index=ignore_index,
                label_smoothing=label_smoothing,
                z_loss=z_loss,
                entropy_bonus=entropy_bonus,
                focal_gamma=focal_gamma,
                softcap=softcap,
                temperature=temperature,
                reduction=reduction.value,
            )
            losses = opened.enter_context(new_file(per_row, rows, row_type(dtype)))
            dlogits = opened.enter_context(new_file(grad, z.shape, dtype))
            progress = opened.enter_context(
                Progress(
                    TextColumn("scoring"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("rows"),
                    TimeRemainingColumn(),
                    console=console,
                    transient=True,
                    disable=quiet or console.is_dumb_terminal or not console.file.isatty(),
                )
            )
            task = progress.add_task("scoring", total=math.prod(rows))
            result = _scoring.score(
                z,
                arrays["targets"],
                options,
                axis=axis,
                class_weight=whole.get("class_weight"),
                sample_weight=arrays.get("sample_weight"),
                num_threads=num_threads,
                losses_out=losses,
                dlogits_out=dlogits,
                progress=lambda n: progress.advance(task, n),
            )
        except (IndexError, TypeError, ValueError) as error:
            fail(named.get(str(error).partition(":")[0]), error)
    if result.looks_like_probabilities and logits is not None:
        tell(
            f"crossentropy: warning: {logits}: every row looks like probabilities (non-negative, sums to 1): "
            "softmax would be applied twice; logits were expected, of which np.log(probabilities) are some"
        )
    if result.negative_targets:
        tell(
            f"crossentropy: warning: {targets}: some target probabilities are negative: the loss is what its "
            "definition gives for them"
        )
    if not result.rows:
        tell("crossentropy: warning: no row counts: all are ignored or of weight 0, or there is none")
    elif math.isnan(result.total):
        tell("crossentropy: warning: the loss of some rows is NaN: --per-row tells of which")
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        _print(result)


def _logits_and_targets(
    files: list[Path], hidden: Path | None, head: Path | None, bias: Path | None, axis: int, grad: Path | None
) -> tuple[Path | None, Path]:
    """Tell the files apart; the logits are None if hidden states are given instead."""
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
    if result.rows and not result.has_mean:
        table.add_row("sum", f"{result.total:.6f} nats")
    elif result.rows:
        table.add_row("cross-entropy", f"{result.mean:.6f} ± {error:.6f} nats")
        table.add_row("", f"{result.mean / math.log(2):.6f} ± {error / math.log(2):.6f} bits")
        table.add_row("perplexity", f"{result.perplexity:.4f}")
    for name, key in (("top-1 accuracy", "top1_accuracy"), ("top-5 accuracy", "top5_accuracy")):
        accuracy = numbers[key]
        table.add_row(name, "–" if accuracy is None else f"{100 * accuracy:.2f} %")
    show(table)
