"""Draw time against the number of classes and against the number of rows, for crossentropy and its peers.

    make picture                                             measures, about ten minutes, and draws docs/speed.png
    python benchmarks/picture.py --json build/picture.json   draws what was measured before

Each peer runs in a process of its own, once for each point.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from peers import PEERS
from rich.console import Console
from rich.progress import track
from run import run

from crossentropy._config import cpu_name

ELEMENTS = 1 << 22  # of the sweep over classes, whatever their number
CLASSES = (10, 100, 1000, 10_000, 100_000, 1_000_000, 4_000_000)
ROWS = (1, 8, 64, 512, 4096, 32_768)
CLASSES_OF_ROWS = 1000
STYLES = {
    "copy": {"color": "0.6", "lw": 1.2},
    "crossentropy": {"color": "black", "lw": 2.5},
    "crossentropy, out=": {"color": "black", "lw": 2.5, "ls": ":"},
}

Figures = dict[str, dict[str, float]]  # milliseconds by regime and peer


def regimes() -> list[str]:
    over_classes = [f"{max(1, ELEMENTS // classes)} x {classes}" for classes in CLASSES]
    return over_classes + [f"{rows} x {CLASSES_OF_ROWS}" for rows in ROWS]


def measured() -> Figures:
    figures: Figures = {}
    turns = [(regime, peer) for regime in dict.fromkeys(regimes()) for peer in PEERS]
    for regime, peer in track(turns, "timing", console=Console(stderr=True), transient=True):
        found = run(peer, regime)
        if "best" in found:
            figures.setdefault(regime, {})[peer] = float(str(found["best"]))
    return figures


def draw(axes: Axes, figures: Figures, names: list[str], along: int) -> None:
    for i, peer in enumerate(PEERS):
        points = [
            (int(name.split(" x ")[along]), figures[name][peer]) for name in names if peer in figures.get(name, {})
        ]
        if points:
            style = STYLES.get(peer, {"color": f"C{i - len(STYLES)}", "lw": 1.2})
            axes.loglog(*zip(*points, strict=True), marker=".", label=peer, **style)
    axes.set_ylabel("loss and gradient, ms")
    axes.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="figures of an earlier run")
    parser.add_argument("--out", type=Path, default=Path("docs/speed.png"), help="where the picture goes")
    arguments = parser.parse_args()
    if arguments.json:
        figures: Figures = json.loads(arguments.json.read_text())
    else:
        figures = measured()
        Path("build").mkdir(exist_ok=True)
        Path("build/picture.json").write_text(json.dumps(figures, indent=1) + "\n")
    names = regimes()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    draw(left, figures, names[: len(CLASSES)], 1)
    left.set_xlabel(f"classes C (rows: about {ELEMENTS:,} / C)")
    draw(right, figures, names[len(CLASSES) :], 0)
    right.set_xlabel(f"rows N ({CLASSES_OF_ROWS:,} classes)")
    right.legend(frameon=False, fontsize="small")
    figure.suptitle(f"float32, 2 threads, {cpu_name()}", fontsize="medium")
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
