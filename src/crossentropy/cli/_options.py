"""The options that more than one command takes, and the numbers that options are."""

import reprlib
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from ._files import be_quiet

T = TypeVar("T")


def reads(kind: str, convert: Callable[[str], T]) -> Callable[[str], T]:
    """What typer calls with the word after an option. Its own messages do not say what came."""

    def parse(word: str) -> T:
        try:
            return convert(word)
        except ValueError:
            raise typer.BadParameter(f"expected {kind}, got {reprlib.repr(word)}") from None

    return parse


integer, number = reads("an integer", int), reads("a number", float)

IgnoreIndex = Annotated[
    int, typer.Option(parser=integer, help="Rows with this class index do not count, e.g. --ignore-index 0.")
]
LabelSmoothing = Annotated[
    float,
    typer.Option(
        parser=number, help="Part of each target spread over all classes, 0 to 1, e.g. --label-smoothing 0.1."
    ),
]
ZLoss = Annotated[
    float, typer.Option(parser=number, help="Factor of the squared log-sum-exp, at least 0, e.g. --z-loss 0.0001.")
]
EntropyBonus = Annotated[
    float,
    typer.Option(
        parser=number, help="Factor of each row's entropy, subtracted from its loss, e.g. --entropy-bonus 0.1."
    ),
]
FocalGamma = Annotated[
    float,
    typer.Option(parser=number, help="Focal loss: the loss times (1 - p)^gamma, at least 0, e.g. --focal-gamma 2."),
]
Softcap = Annotated[
    float | None,
    typer.Option(parser=number, help="Cap logits smoothly at this size; none by default, e.g. --softcap 30."),
]
Temperature = Annotated[float, typer.Option(parser=number, help="Divides the logits, above 0, e.g. --temperature 2.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=be_quiet,
        help="Print no progress, notes or warnings to standard error, only what fails, e.g. --quiet.",
    ),
]
LogitsGiven = Annotated[
    str | None,
    typer.Option(
        help="Logits, rows parted by ';', line breaks or brackets, as Python and NumPy print them, or a .npy file; "
        'a worked example by default, e.g. --logits "2 1 0.1; 0 1 2" --targets "1 0".'
    ),
]
TargetsGiven = Annotated[
    str | None,
    typer.Option(
        help="A class index for each row, or its name where there are --names, or a distribution for each row, or "
        'a .npy file; by default those of the worked example, e.g. --logits "2 1 0.1" --targets "0 0.5 0.5".'
    ),
]
Rows = Annotated[
    str | None,
    typer.Option(
        help="The rows of logits, targets and sample weights that are explained, 3, 3:8, :8 or 3:, named from 0 "
        "as in logits[3:8]; by default all, e.g. --rows 1:2."
    ),
]
Names = Annotated[
    str | None,
    typer.Option(help="The classes' names; by default their indices, e.g. --names cat,dog,bird."),
]
