"""The options of the loss that every command takes."""

from typing import Annotated

import typer

IgnoreIndex = Annotated[int, typer.Option(help="Rows with this class index do not count, e.g. --ignore-index 0.")]
LabelSmoothing = Annotated[
    float, typer.Option(help="Part of each target spread over all classes, 0 to 1, e.g. --label-smoothing 0.1.")
]
ZLoss = Annotated[float, typer.Option(help="Factor of the squared log-sum-exp, at least 0, e.g. --z-loss 0.0001.")]
Softcap = Annotated[
    float | None, typer.Option(help="Cap logits smoothly at this size; none by default, e.g. --softcap 30.")
]
Temperature = Annotated[float, typer.Option(help="Divides the logits, above 0, e.g. --temperature 2.")]
