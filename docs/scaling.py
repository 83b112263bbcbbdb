"""A model of a step of a linear head whose classes are split over many ranks: what scaling.md says of it, its picture.

It counts what a rank computes, reads and sends, one after another, on the machine that is assumed.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from figures import RESULTS, digits, table
from matplotlib.figure import Figure

from crossentropy._head import MAX_LOGITS_BYTES

MEASURED = RESULTS["distributed"]
RANKS = [8, 16, 32, 64, 128, 256, 512]


class Machine(NamedTuple):
    """What a rank is assumed to be."""

    operations: float  # in a second, of matrix products
    memory: float  # bytes in a second
    network: float  # bytes in a second, each way
    latency: float  # seconds of a message


class Step(NamedTuple):
    """Loss and gradients of so many rows, float32."""

    rows: int
    width: int
    classes: int


# A socket of a server each, with a link of 200 gigabits.
MACHINE = Machine(operations=2e12, memory=2e11, network=2.5e10, latency=1e-5)
STEP = Step(rows=8192, width=4096, classes=262144)


def statistics(ranks: int, rows: int) -> float:
    """Bytes of the numbers of rows that a rank sends: to all, or to those that join them and then what is joined."""
    whole = rows * MEASURED["row bytes"]
    gathers = ranks <= MEASURED["gather ranks"] or ranks * whole <= MEASURED["gather bytes"]
    return (ranks - 1) * whole if gathers else 2 * (ranks - 1) / ranks * whole


def hidden_gradient(ranks: int, step: Step) -> float:
    """Bytes of it that a rank sends: parts to those that add them up, and then its part of the sum."""
    return 2 * (ranks - 1) / ranks * step.rows * step.width * 4


def chunks(ranks: int, step: Step) -> int:
    """Of rows, so many that the logits of two, of a rank's classes, are held at a time."""
    return math.ceil(2 * step.rows * 4 * (step.classes / ranks) / MAX_LOGITS_BYTES)


def seconds(ranks: int, step: Step = STEP, machine: Machine = MACHINE) -> dict[str, float]:
    """Of each part of a step."""
    logits = step.rows * step.classes / ranks
    messages = 4 * (ranks - 1) * chunks(ranks, step)
    return {
        "products": 3 * 2 * step.width * logits / machine.operations,
        "loss": 3 * 4 * logits / machine.memory,  # read for what is told of rows, read and written for the gradient
        "hidden gradient": hidden_gradient(ranks, step) / machine.network,
        "numbers of rows": statistics(ranks, step.rows) / machine.network,
        "latency": messages * machine.latency,
    }


def gathered_logits(ranks: int, step: Step = STEP, machine: Machine = MACHINE) -> float:
    """Seconds that a rank would take to receive the logits of all others, and nothing else."""
    return (ranks - 1) / ranks * step.rows * step.classes * 4 / machine.network


def model() -> str:
    """Milliseconds of each part of a step, and what a rank holds."""
    rows = []
    for ranks in RANKS:
        parts = seconds(ranks)
        shard = 4 * STEP.width * STEP.classes / ranks
        cells = [digits(1e3 * x, 2) for x in (*parts.values(), sum(parts.values()), gathered_logits(ranks))]
        rows.append([str(ranks), *cells, digits(shard / 2**20)])
    header = ["ranks", *seconds(8), "together", "for comparison: gathering the logits", "classifier of a rank, MiB"]
    return table(header, rows, left=0)


def measured(shape: str) -> str:
    """Time and bytes of a step on this machine, beside the formula and torch."""
    rows = []
    for ranks, peers in MEASURED["shapes"][shape].items():
        ours = peers["crossentropy"]["milliseconds"]
        for peer, x in peers.items():
            derived = digits(x["derived bytes"]) if "derived bytes" in x else ""
            times = (digits(x["milliseconds"]), digits(x["milliseconds"] / ours))
            rows.append([ranks, peer, *times, digits(x["bytes"]), derived, f"{x['messages']:.0f}"])
    header = [shape, "", "ms", "ratio to crossentropy", "bytes that a rank sends", "derived", "messages"]
    return table(header, rows, left=2)


def largest_difference() -> float:
    """Of the bytes measured from those derived, in percent."""
    found = [ranks["crossentropy"] for shape in MEASURED["shapes"].values() for ranks in shape.values()]
    return 100 * max(abs(x["bytes"] / x["derived bytes"] - 1) for x in found if x["derived bytes"])


def draw(path: Path) -> None:
    """The parts of a step against the number of ranks; the picture says what it is drawn from."""
    parts = {ranks: seconds(ranks) for ranks in RANKS}
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":", (0, (1, 4)))
    for name, style in zip(seconds(8), styles, strict=True):
        axes.loglog(RANKS, [1e3 * parts[ranks][name] for ranks in RANKS], color="black", ls=style, lw=1.2, label=name)
    together = [1e3 * sum(parts[ranks].values()) for ranks in RANKS]
    axes.loglog(RANKS, together, color="black", lw=2.5, label="together")
    gathered = [1e3 * gathered_logits(ranks) for ranks in RANKS]
    axes.loglog(RANKS, gathered, color="C3", lw=1.2, label="gathering the logits")
    axes.set_xticks(RANKS, [str(ranks) for ranks in RANKS], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="ranks", ylabel="milliseconds of a step")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize="small")
    drawn_from = {"step": STEP._asdict(), "machine": MACHINE._asdict(), "seconds": parts}
    figure.savefig(path, dpi=110, metadata={"Description": json.dumps(drawn_from)})


def gathering_dominates() -> int:
    """The least number of ranks at which gathering the logits takes longer than a whole step."""
    return next(ranks for ranks in RANKS if gathered_logits(ranks) > sum(seconds(ranks).values()))
