"""The figure of an explanation: readable in grey, labelled, the same bytes every time."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context

from .._arrays import Array
from .._files import whole, write_all
from ._derivation import derive
from ._names import FONT, FONT_SIZE, labels, text_width
from ._notation import number
from ._numbers import LossNumbers

MAX_BARS = 4  # the rows that are drawn side by side
_DPI = 120
_SUFFIXES = (".png", ".svg", ".pdf")
_SMALL = 8  # the size of numbers
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "crossentropy",
    "hatch.linewidth": 0.6,
    "font.sans-serif": [FONT],
    "font.size": FONT_SIZE,
    "axes.titlesize": 10,
}
_POINT: dict[str, Any] = {"markeredgecolor": "black", "markersize": 8, "clip_on": False}
_HATCHES = ("", "////", "....", "xxxx")
_MAP = matplotlib.colormaps["cividis"]  # its lightness rises steadily: readable without colour vision
# The least width in points that the layout leaves for the classes of a panel.
_NARROW, _WIDE, _SQUARE = 190, 420, 130


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
        figure = _Shown(figsize=(11, 7), dpi=_DPI, layout="constrained")
        grid = figure.add_gridspec(2, 3)
        logits, probabilities, curve = (figure.add_subplot(grid[0, i]) for i in range(3))
        gradient, jacobian = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2])
        _bars(logits, x, rows, x.logits, "Logits", _NARROW)
        one_hot = ((x.smoothed[rows] == 0) | (x.smoothed[rows] == 1)).all()
        target = "target" if one_hot else "target distribution"
        _bars(probabilities, x, rows, x.p, f"Softmax, and {target} (diamonds)", _NARROW)
        _targets(probabilities, x, rows)
        _curve(curve, x, rows)
        reduced = "mean" if x.options.reduction == "mean" else "sum"
        _bars(gradient, x, rows, x.dlogits, f"Gradient of the {reduced} with respect to the logits", _WIDE)
        _jacobian(jacobian, x, row)
        _legend(figure, logits, x, rows)
        figure.suptitle(_title(x, rows))
        figure.draw_without_rendering()  # the layout, while the style is in force
        figure.set_layout_engine("none")  # computed again it would change a little
    return figure


def _title(x: LossNumbers, rows: list[int]) -> str:
    kind, value = ("sum", x.total) if math.isnan(x.total_weight) else ("mean", x.mean)
    parts = [f"{kind} cross-entropy {number(value)} nats"]
    if math.isnan(value):
        parts = [f"no {kind} cross-entropy, as not every row has a loss"]
    if len(rows) < len(x.logits):
        parts.append(f"rows {rows[0]} to {rows[-1]} of {len(x.logits)}")
    if x.folded:
        parts.append(f"{len(x.shown)} of {len(x.names):,} classes")
    return ", ".join(parts)


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


def _bars(axes: Axes, x: LossNumbers, rows: list[int], values: Array, title: str, points: int) -> None:
    classes = list(x.shown)
    for place, i in enumerate(rows):
        at, width = _places(place, rows, classes)
        shown = values[i, classes]
        axes.bar(
            at,
            np.where(np.isfinite(shown), shown, np.nan),
            width,
            color=_shade(place, len(rows)),
            hatch=_HATCHES[place],
            edgecolor="black",
            linewidth=0.6,
        )
        # What is not finite is marked where it would stand: NaN at 0, an infinity at the edge.
        edge, size = axes.get_xaxis_transform(), _marker(width, classes, points)
        for where, marker, height, transform in (
            (shown == math.inf, "^", 0.97, edge),
            (shown == -math.inf, "v", 0.03, edge),
            (np.isnan(shown), "x", 0.0, axes.transData),
        ):
            if where.any():
                heights = np.full(where.sum(), height)
                axes.plot(
                    at[where], heights, marker, markersize=size, color="black", transform=transform, clip_on=False
                )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_title(title)
    axes.set_xlim(-0.6, len(classes) - 0.4)
    _name_classes(axes, x, classes, points)
    axes.set_xlabel("class")


def _places(place: int, rows: list[int], classes: list[int]) -> tuple[Array, float]:
    """Where the bars of a row stand, and how wide they are."""
    width = 0.8 / len(rows)
    return np.arange(len(classes)) + (place - (len(rows) - 1) / 2) * width, width


def _marker(width: float, classes: list[int], points: int) -> float:
    """The size of a marker that fits a bar, if it can still be seen."""
    return min(max(0.6 * width * points / (len(classes) + 0.2), 2.0), 6.0)


def _name_classes(axes: Axes, x: LossNumbers, classes: list[int], points: int) -> None:
    """Name the classes below the axes; of many, each second, third …"""
    names = labels(x, classes)
    slot = points / len(classes)
    upright = max(text_width(name) for name in names) + 4 > slot
    step = math.ceil(1.4 * FONT_SIZE / slot) if upright else 1
    axes.set_xticks(range(0, len(classes), step), names[::step], rotation=90 if upright else 0, parse_math=False)


def _legend(figure: Figure, axes: Axes, x: LossNumbers, rows: list[int]) -> None:
    """Say of each row its target, and of the marks what they stand for."""
    handles: list[Any] = list(axes.containers)
    names = [f"row {i}, {_target(x, i)}" for i in rows]
    drawn = np.concatenate([values[np.ix_(rows, list(x.shown))] for values in (x.logits, x.p, x.dlogits)])
    for marker, name, occurs in (
        ("^", "∞", (drawn == math.inf).any()),
        ("v", "−∞", (drawn == -math.inf).any()),
        ("x", "NaN", np.isnan(drawn).any()),
    ):
        if occurs:
            handles.append(Line2D([], [], marker=marker, color="black", linestyle=""))
            names.append(name)
    widths = [text_width(name) + 5 * FONT_SIZE for name in names]
    lines = math.ceil(sum(widths) / (0.95 * 72 * figure.get_figwidth()))
    legend = figure.legend(handles, names, loc="outside lower center", ncols=math.ceil(len(names) / lines))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _target(x: LossNumbers, row: int) -> str:
    if x.s[row] == 0:
        return "which does not count"
    if not x.one_hot[row]:
        return "target: a distribution"
    return f"target: {labels(x, x.shown)[x.shown.index(int(x.target_classes[row]))]}"


def _targets(axes: Axes, x: LossNumbers, rows: list[int]) -> None:
    """Draw the targets that are not 0."""
    classes = list(x.shown)
    for place, i in enumerate(rows):
        if x.s[i] != 0:
            at, width = _places(place, rows, classes)
            q = np.where(x.smoothed[i, classes] == 0, np.nan, x.smoothed[i, classes])
            size = _marker(width, classes, _NARROW)
            axes.plot(at, q, "D", color="white", markeredgecolor="black", markersize=size, clip_on=False)
    finite = x.smoothed[rows][np.isfinite(x.smoothed[rows])]
    axes.set_ylim(1.08 * finite.min(initial=0.0), 1.08 * finite.max(initial=1.0))


def _curve(axes: Axes, x: LossNumbers, rows: list[int]) -> None:
    """Each row's loss against the probability of its target, or where it has several, their geometric mean."""
    points = {}
    for i in rows:
        if x.s[i] != 0 and not (x.q[i] < 0).any():
            points[i] = -(np.where(x.q[i] == 0, 0.0, x.q[i] * x.log_p[i]).sum()) / (x.q[i].sum() or 1.0)
    finite = [loss for loss in points.values() if math.isfinite(loss)]
    ceiling = max([4.0, *(1.15 * loss for loss in finite)])
    nats = np.concatenate([np.linspace(0, 4, 200), np.linspace(4, ceiling, 200)])
    axes.plot(np.exp(-nats), nats, color="black", linewidth=1)
    # A loss of ∞ stands at the upper edge, one that is NaN nowhere: it is only named, above those that are finite.
    order = sorted(points, key=lambda i: (math.isinf(points[i]), math.isnan(points[i]), points[i]))
    stands = [points[i] if math.isfinite(points[i]) else ceiling for i in order]
    for i, y, height in zip(order, stands, _apart(stands, 0.1 * ceiling, 0.94 * ceiling), strict=True):
        loss, shade = points[i], _shade(rows.index(i), len(rows))
        if not math.isnan(loss):
            axes.plot(math.exp(-loss), y, "o" if math.isfinite(loss) else "^", color=shade, **_POINT)
        axes.annotate(
            f"row {i}: {number(loss)}",
            (math.exp(-loss), y) if not math.isnan(loss) else (1.06, height),
            (1.06, height),
            va="center",
            fontsize=_SMALL,
            arrowprops=None if math.isnan(loss) else {"arrowstyle": "-", "color": "grey"},
        )
    soft = [not x.one_hot[i] for i in points]
    title, xlabel = "−log p of the target", "probability of the target"
    if any(soft):
        xlabel = "geometric mean of p over the distribution"
        title = "mean −log p over the target distribution"
        if not all(soft):
            title, xlabel = "−log p of the target, or its mean", "p of the target, or its geometric mean"
    axes.set(title=title, xlabel=xlabel, ylabel="nats", xlim=(-0.03, 1.85))
    axes.set_ylim(-0.05 * ceiling, ceiling)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _apart(heights: list[float], gap: float, top: float) -> list[float]:
    """Rising heights moved apart, up where there is room below the top, else down."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], top - gap * (len(moved) - 1 - place))
    return moved


def _jacobian(axes: Axes, x: LossNumbers, row: int) -> None:
    derivation = derive(x, row, None)
    J, classes = derivation.jacobian, list(derivation.classes)
    size = np.nanmax(np.abs(J), initial=0) or 1.0
    image = axes.imshow(J, cmap=_MAP, vmin=-size, vmax=size, aspect="auto")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.colorbar(image, ax=axes)
    _name_classes(axes, x, classes, _SQUARE)
    step = math.ceil(1.4 * FONT_SIZE * len(classes) / _SQUARE)
    axes.set_yticks(range(0, len(classes), step), labels(x, classes)[::step], parse_math=False)
    axes.set(title=f"Jacobian of the softmax, row {row}", ylabel="σ of class", xlabel="by the logit of class")
    slot = _SQUARE / len(classes)
    if slot > _SMALL and max(text_width(number(value), _SMALL) for value in J.flat) + 2 < slot:
        for k, line in enumerate(J):
            for c, value in enumerate(line):
                shade = "white" if value <= 0 else "black"
                axes.text(c, k, number(value), ha="center", va="center", color=shade, fontsize=_SMALL)
