"""The figure of an explanation: readable in grey, labelled, the same bytes every time."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context

from .._arrays import Array
from .._files import whole, write_all
from ._derivation import derive
from ._notation import number
from ._numbers import LossNumbers

MAX_BARS = 4  # the rows that are drawn side by side
_DPI = 120
_SUFFIXES = (".png", ".svg", ".pdf")
_STYLE: dict[Any, Any] = {"svg.hashsalt": "crossentropy", "hatch.linewidth": 0.6, "font.size": 9, "axes.titlesize": 10}
_HATCHES = ("", "////", "....", "xxxx")
_MAP = matplotlib.colormaps["cividis"]  # its lightness rises steadily: readable without colour vision


class _Shown(Figure):
    """A figure that a notebook shows, as it does one of pyplot's."""

    def _repr_png_(self) -> bytes:
        return _as_bytes(self, "png", {"Software": None}).getvalue()


@np.errstate(all="ignore")  # as in `explain`
def draw(x: LossNumbers, row: int) -> Figure:
    """Draw five panels. The Jacobian is that of `row`, which is always among the rows drawn."""
    first = min(max(0, row - MAX_BARS + 1), max(0, len(x.logits) - MAX_BARS))
    rows = list(range(first, min(first + MAX_BARS, len(x.logits))))
    with context("default"), matplotlib.rc_context(_STYLE):
        figure = _Shown(figsize=(11, 6.5), dpi=_DPI, layout="constrained")
        grid = figure.add_gridspec(2, 3)
        logits, probabilities, curve = (figure.add_subplot(grid[0, i]) for i in range(3))
        gradient, jacobian = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2])
        _bars(logits, x, rows, x.logits, "Logits")
        _bars(probabilities, x, rows, x.p, "Softmax, and target (diamonds)")
        _targets(probabilities, x, rows)
        figure.legend(*logits.get_legend_handles_labels(), loc="outside upper right", ncols=len(rows))
        _curve(curve, x, rows)
        reduced = "mean" if x.options.reduction == "mean" else "sum"
        _bars(gradient, x, rows, x.dlogits, f"Gradient of the {reduced} with respect to the logits")
        _jacobian(jacobian, x, row)
        no_mean = math.isnan(x.total_weight)
        parts = [f"{'sum' if no_mean else 'mean'} cross-entropy {number(x.total if no_mean else x.mean)} nats"]
        if len(rows) < len(x.logits):
            parts.append(f"rows {rows[0]} to {rows[-1]} of {len(x.logits)}")
        if x.folded:
            parts.append(f"{len(x.shown)} of {len(x.names):,} classes")
        figure.suptitle(", ".join(parts))
        figure.draw_without_rendering()  # the layout, while the style is in force
        figure.set_layout_engine("none")  # computed again it would change a little
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, which is left as it was if that fails."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"plot: expected a file name that ends in {', '.join(_SUFFIXES)}, got {str(path)!r}")
    undated = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[suffix]
    memory = _as_bytes(figure, suffix[1:], undated)
    with whole(path) as file:
        write_all(file, memory.getbuffer())


def _as_bytes(figure: Figure, form: str, metadata: dict[str, None]) -> io.BytesIO:
    memory = io.BytesIO()
    with context("default"), matplotlib.rc_context(_STYLE):
        figure.savefig(memory, format=form, dpi=_DPI, metadata=metadata)
    return memory


def _shade(place: int, count: int) -> tuple[float, ...]:
    shade: tuple[float, ...] = _MAP(0.15 + 0.75 * place / max(1, count - 1))
    return shade


def _bars(axes: Axes, x: LossNumbers, rows: list[int], values: Array, title: str) -> None:
    classes = np.array(x.shown)
    width = 0.8 / len(rows)
    for place, i in enumerate(rows):
        heights = np.where(np.isfinite(values[i, classes]), values[i, classes], np.nan)
        at = np.arange(len(classes)) + (place - (len(rows) - 1) / 2) * width
        axes.bar(
            at,
            heights,
            width,
            label=f"row {i}",
            color=_shade(place, len(rows)),
            hatch=_HATCHES[place],
            edgecolor="black",
            linewidth=0.6,
        )
        for position, value in zip(at, values[i, classes], strict=True):
            if not math.isfinite(value):
                axes.annotate(number(value), (position, 0), ha="center", va="bottom")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_title(title)
    _name_classes(axes, x, list(x.shown))


def _name_classes(axes: Axes, x: LossNumbers, classes: list[int]) -> None:
    names = [_short(x.names[c]) for c in classes]
    crowded = sum(map(len, names)) > 30
    axes.set_xticks(range(len(classes)), names, rotation=90 if crowded else 0, parse_math=False)
    axes.set_xlabel("class")


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"


def _targets(axes: Axes, x: LossNumbers, rows: list[int]) -> None:
    width = 0.8 / len(rows)
    for place, i in enumerate(rows):
        if x.s[i] != 0:
            at = np.arange(len(x.shown)) + (place - (len(rows) - 1) / 2) * width
            axes.plot(at, x.smoothed[i, list(x.shown)], "D", color="white", markeredgecolor="black", clip_on=False)
    finite = x.smoothed[rows][np.isfinite(x.smoothed[rows])]
    axes.set_ylim(1.08 * finite.min(initial=0.0), 1.08 * finite.max(initial=1.0))


def _curve(axes: Axes, x: LossNumbers, rows: list[int]) -> None:
    """Each row's loss against the probability of its target, or where it has several, their geometric mean."""
    points = {}
    for i in rows:
        counted = x.s[i] != 0 and np.isfinite(x.log_p[i]).any() and not (x.q[i] < 0).any()
        loss = -(np.where(x.q[i] == 0, 0.0, x.q[i] * x.log_p[i]).sum()) / (x.q[i].sum() or 1.0)
        if counted and math.isfinite(loss):
            points[i] = loss
    ceiling = max([4.0, *(1.15 * loss for loss in points.values())])
    nats = np.concatenate([np.linspace(0, 4, 200), np.linspace(4, ceiling, 200)])
    axes.plot(np.exp(-nats), nats, color="black", linewidth=1)
    height = -math.inf  # of a label, each above the one before
    for i in sorted(points, key=lambda i: points[i]):
        at, height = (math.exp(-points[i]), points[i]), max(points[i], height + 0.07 * ceiling)
        axes.plot(*at, "o", color=_shade(rows.index(i), len(rows)), markeredgecolor="black", markersize=8)
        axes.annotate(
            f"row {i}: {number(points[i])}",
            at,
            (1.06, height),
            va="center",
            arrowprops={"arrowstyle": "-", "color": "grey"},
        )
    axes.set(title="−log p of the target", xlabel="probability of the target", ylabel="nats", xlim=(-0.03, 1.6))
    axes.set_ylim(-0.05 * ceiling, ceiling)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _jacobian(axes: Axes, x: LossNumbers, row: int) -> None:
    derivation = derive(x, row, None)
    J, classes = derivation.jacobian, list(derivation.classes)
    size = np.nanmax(np.abs(J), initial=0) or 1.0
    image = axes.imshow(J, cmap=_MAP, vmin=-size, vmax=size)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.colorbar(image, ax=axes)
    _name_classes(axes, x, classes)
    axes.set_yticks(range(len(classes)), [_short(x.names[c]) for c in classes], parse_math=False)
    axes.set(title=f"Jacobian of the softmax, row {row}", ylabel="σ of class", xlabel="by the logit of class")
    if len(classes) <= 8:
        for k, line in enumerate(J):
            for c, value in enumerate(line):
                shade = "white" if not value > 0 else "black"
                axes.text(c, k, number(value), ha="center", va="center", color=shade, fontsize=8)
