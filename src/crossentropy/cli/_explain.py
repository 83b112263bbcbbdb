"""crossentropy explain: the loss step by step on the reader's own numbers."""

import json
from pathlib import Path
from typing import Annotated, NamedTuple, cast, get_args

import typer

from .._explain import Explanation
from .._explain import explain as explain_rows
from .._options import Reduction
from ._files import check_outputs, fail, show, tell
from ._given import read
from ._options import (
    IgnoreIndex,
    LabelSmoothing,
    LogitsGiven,
    Names,
    Quiet,
    Rows,
    Softcap,
    TargetsGiven,
    Temperature,
    ZLoss,
    integer,
)


class Example(NamedTuple):
    """Numbers to begin with, and the class whose derivative is shown, if one is."""

    logits: str
    targets: str
    of_class: int | None = None


# The second and third differ in the target alone. For the third logit the term that is left of the loss is one of
# another class (k ≠ c) in `first`, and that of the class itself (k = c) in `last`.
PRESETS = {
    "worked": Example("2.0 1.0 0.1; 0.1 2.0 1.9", "1 0"),
    "first": Example("2 1 -1", "1 0 0", of_class=2),
    "last": Example("2 1 -1", "0 0 1", of_class=2),
}
WORKED_EXAMPLE = PRESETS["worked"]
EXAMPLES = (
    "crossentropy explain",
    "crossentropy explain --example first",
    'crossentropy explain --logits "2.0 1.0 0.1; 0.1 2.0 1.9" --targets "dog cat" --names cat,dog,bird',
    "crossentropy explain --logits logits.npy --targets targets.npy --rows 3:8",
    "crossentropy explain --derivation --row 1 --class 2 --check",
    'crossentropy explain --logits "1000 0 -1000; 40 0 0" --targets "1 0" --pitfalls',
    "crossentropy explain --plot explain.png",
)


def _reductions(incomplete: str) -> list[str]:
    """What a shell completes."""
    return [name for name in get_args(Reduction) if name.startswith(incomplete)]


def _presets(incomplete: str) -> list[str]:
    return [name for name in PRESETS if name.startswith(incomplete)]


def require_both(logits: str | None, targets: str | None) -> None:
    """Refuse logits without targets, and targets without logits."""
    if (logits is None) != (targets is None):
        one, missing = ("--logits", "--targets") if targets is None else ("--targets", "--logits")
        fail(
            None,
            f'{one} needs {missing}, as in --logits "{WORKED_EXAMPLE.logits}" --targets "{WORKED_EXAMPLE.targets}"',
        )


def explain(
    logits: LogitsGiven = None,
    targets: TargetsGiven = None,
    rows: Rows = None,
    example: Annotated[
        str | None,
        typer.Option(
            autocompletion=_presets,
            help="Numbers to begin with: worked, the default; or first or last, one row derived for its third logit, "
            "its target the first class or the last, e.g. --example first.",
        ),
    ] = None,
    names: Names = None,
    reduction: Annotated[
        str,
        typer.Option(
            autocompletion=_reductions, help="Which loss is differentiated: mean, sum or none, e.g. --reduction sum."
        ),
    ] = "mean",
    label_smoothing: LabelSmoothing = 0.0,
    temperature: Temperature = 1.0,
    class_weight: Annotated[
        str | None,
        typer.Option(help='A weight for each class, or a .npy file; all 1 by default, e.g. --class-weight "1 2 1".'),
    ] = None,
    sample_weight: Annotated[
        str | None,
        typer.Option(help='A weight for each row, or a .npy file; all 1 by default, e.g. --sample-weight "1 0.5".'),
    ] = None,
    ignore_index: IgnoreIndex = -100,
    z_loss: ZLoss = 0.0,
    softcap: Softcap = None,
    derivation: Annotated[
        bool, typer.Option("--derivation", help="Derive the gradient of --row for --class, e.g. --derivation.")
    ] = False,
    row: Annotated[
        int,
        typer.Option(
            parser=integer,
            help="The row that is derived and whose Jacobian is drawn, counted from the first of --rows, e.g. --row 1.",
        ),
    ] = 0,
    of_class: Annotated[
        int | None,
        typer.Option(
            "--class", parser=integer, help="The class derived by; the row's target by default, e.g. --class 2."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the gradient with differences of the loss, e.g. --check.")
    ] = False,
    pitfalls: Annotated[
        bool, typer.Option("--pitfalls", help="Show what textbook formulas give on these numbers, e.g. --pitfalls.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw it: a .png, .svg or .pdf file; no file by default, e.g. --plot explain.png."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help='Print every number; not finite ones as "NaN", "Infinity", "-Infinity", e.g. --json.'
        ),
    ] = False,
    as_tex: Annotated[bool, typer.Option("--tex", help="Print a LaTeX fragment (amsmath), e.g. --tex.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show the loss step by step: from logits to loss and gradient, with every number.

    Without logits and targets, on a worked example.
    """
    require_both(logits, targets)
    if example is not None and example not in PRESETS:
        fail(None, f"--example: expected {', '.join(PRESETS)}, got {example!r}")
    if example is not None and logits is not None:
        fail(None, "--example and --logits: expected one of them")
    preset = PRESETS[example or "worked"]
    if logits is None and preset.of_class is not None:
        derivation = True
        of_class = preset.of_class if of_class is None else of_class
    if as_json and as_tex:
        fail(None, "--json and --tex: expected one of them")
    if logits is None or targets is None:
        logits, targets = preset.logits, preset.targets
    given = {"logits": logits, "targets": targets, "class_weight": class_weight, "sample_weight": sample_weight}
    check_outputs([plot], [Path(words) for words in given.values() if words and words.endswith(".npy")])
    class_names = None if names is None else names.split(",")
    arrays, first = read(given, class_names, rows)
    try:
        x = explain_rows(
            names=class_names,
            **arrays,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            temperature=temperature,
            reduction=cast(Reduction, reduction),
        )
        lesson = x.lesson(derivation=derivation, check=check, pitfalls=pitfalls, row=row, target_class=of_class)
        derived = x.derivation(row, of_class)
    except (IndexError, TypeError, ValueError) as error:
        fail(None, error)
    if (x.q < 0)[x.s != 0].any():
        tell("crossentropy: warning: some target probabilities are negative: the loss is what its definition gives")
    if first:
        tell(f"row 0 is row {first} of the logits given")
    if plot is not None:
        _plot(x, plot, row)
    if as_json:
        numbers = x.to_dict()
        if derivation:
            numbers["derivation"] = derived.to_dict()
        if check:
            numbers["check"] = x.check().to_dict()
        if pitfalls:
            numbers["pitfalls"] = [pitfall.to_dict() for pitfall in x.pitfalls()]
        print(json.dumps(numbers, allow_nan=False))
    elif as_tex:
        print(lesson.to_tex(), end="")
    else:
        show(lesson)


def _plot(x: Explanation, path: Path, row: int) -> None:
    try:
        x.plot(path, row=row)
    except ModuleNotFoundError as error:
        fail(None, f"--plot needs {error.name}: install it with pip install matplotlib")
    except ValueError as error:
        fail(None, error)
    tell(f"wrote {path}")
