"""In the picture nothing overlaps, and what is not finite is marked: by the boxes that matplotlib draws."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import crossentropy as ce
from crossentropy._explain import _names

inf, nan = math.inf, math.nan
A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
NAMES = ["cat", "dog", "bird"]


def long(count, letter="n"):
    return [f"{c}th class with a very long name {letter * 20}"[:40] for c in range(count)]


def normal(rows, classes, scale=2.0):
    return scale * np.random.default_rng(7).standard_normal((rows, classes))


CASES = {
    "worked": (A, [1, 0], NAMES),
    "ten classes": (normal(4, 10), [1, 2, 3, 4]),
    "ten long names": (normal(4, 10), [1, 1, 1, 1], long(10)),
    "ten wide names": (normal(4, 10), [1, 2, 3, 9], [str(c) + "W" * 39 for c in range(10)]),
    "eight names": (normal(2, 8), [1, 2], long(8, "i")),
    "ten distributions": (normal(4, 10), np.full((4, 10), 0.1), long(10)),
    "distributions and classes": (A, [[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], NAMES),
    "one row": ([[2.0, 1.0]], [0]),
    "one class": ([[2.0]], [0], long(1)),
    "the same row": ([[2.0, 1.0, 0.1]] * 4, [1] * 4, long(3)),
    "losses that are nearly the same at the top": ([[0.0, 9.0 + i / 100] for i in range(4)], [0] * 4),
    "many rows": (normal(32, 5), [0] * 32),
    "36 classes": (normal(4, 36), [1, 2, 3, 35], long(36)),
    "folded": (normal(4, 500), [0, 1, 2, 499]),
    "large": ([[1e6, -1e6, 3e5], [2.0, 1.0, 0.0]], [1, 0]),
    "larger": ([[1e200, -1e200, 3e5], [2.0, 1.0, 0.0]], [1, 0], long(3)),
    "small": (normal(2, 3, 1e-7), [1, 0]),
    "confident": ([[50.0, 0.0, 0.0], [0.0, 60.0, 1.0]], [0, 1]),
    "infinite": ([[2.0, -inf, 0.0], [nan, 1.0, 0.0], [inf, 1.0, 0.0], [-inf, 2.0, 1.0]], [0, 0, 1, 0], long(3, "W")),
    "infinite, ten classes": (np.where(np.eye(4, 10), [[-inf], [nan], [inf], [-inf]], normal(4, 10)), [0, 0, 1, 3]),
    "nothing finite": ([[nan, nan], [inf, inf]], [0, 1]),
    "nothing counts": (A, [-100, -100], NAMES),
    "formulas": (A, [1, 0], [r"$\frac$", "a$_^b$\\$c", "$" * 40]),
    "foreign letters": (A, [1, 0], ["猫", "dog 🐕", "πουλί"]),
}


def figure_of(case, **options):
    logits, targets, *names = CASES[case]
    return ce.explain(logits, targets, *names, **options).plot(row=len(logits) - 1)


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


def texts(figure):
    """Each text that is drawn: the axes around or in which it stands, whether inside, itself."""
    found = [(None, False, figure._suptitle)] + [(None, False, text) for text in figure.legends[0].get_texts()]
    for axes in figure.axes:
        around = [axes.title, axes.xaxis.label, axes.yaxis.label, axes.yaxis.get_offset_text()]
        around += tick_labels(axes.xaxis) + tick_labels(axes.yaxis)
        found += [(axes, False, text) for text in around] + [(axes, True, text) for text in axes.texts]
    return [entry for entry in found if entry[2].get_visible() and entry[2].get_text().strip()]


def box(text):
    """Of the letters alone, without the arrow of an annotation."""
    return Text.get_window_extent(text)


def overlap(a, b, allowed=0.5):
    common = Bbox.intersection(a, b)
    return common is not None and common.width > allowed and common.height > allowed


def bar_panels(figure):
    return [axes for axes in figure.axes if axes.containers]


def markers(axes):
    """The box of every marker in an axes."""
    for line in axes.lines:
        if line.get_marker() in ("D", "^", "v", "x"):
            style = MarkerStyle(line.get_marker())
            outline = style.get_path().transformed(style.get_transform()).get_extents()
            scale = line.figure.dpi / 72 * line.get_markersize()
            for x, y in line.get_transform().transform(np.column_stack(line.get_data())):
                if math.isfinite(y):
                    yield Bbox.from_bounds(
                        x + outline.x0 * scale, y + outline.y0 * scale, outline.width * scale, outline.height * scale
                    )


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps(case):
    figure = figure_of(case)
    drawn = [(axes, inside, text, box(text)) for axes, inside, text in texts(figure)]
    for (*_, a, box_a), (*_, b, box_b) in itertools.combinations(drawn, 2):
        assert not overlap(box_a, box_b), (a.get_text(), b.get_text())
    legend = figure.legends[0].get_window_extent()
    whole = figure.bbox
    for axes, inside, text, where in drawn:
        assert whole.x0 <= where.x0, text
        assert where.x1 <= whole.x1, text
        assert whole.y0 <= where.y0, text
        assert where.y1 <= whole.y1, text
        for other in figure.axes:
            if other is axes and inside:
                assert other.bbox.x0 <= where.x0, text
                assert where.x1 <= other.bbox.x1, text
                assert other.bbox.y0 <= where.y0, text
                assert where.y1 <= other.bbox.y1, text
            else:
                assert not overlap(where, other.bbox), text
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1
    assert not any(overlap(legend, axes.get_tightbbox()) for axes in figure.axes)
    if len(CASES[case][0][0]) <= 10:
        for axes in bar_panels(figure):
            for a, b in itertools.combinations(markers(axes), 2):
                assert not overlap(a, b), axes.get_title()


@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"reduction": "sum"}], ids=str)
def test_nothing_overlaps_with_options(options):
    figure = figure_of("ten long names", **options)
    for (*_, a), (*_, b) in itertools.combinations(texts(figure), 2):
        assert not overlap(box(a), box(b)), (a.get_text(), b.get_text())
    for axes in bar_panels(figure):
        assert not any(overlap(a, b) for a, b in itertools.combinations(markers(axes), 2))


def marks(axes, marker):
    found = [line.get_data() for line in axes.lines if line.get_marker() == marker]
    return sorted((round(x), round(y, 2)) for xs, ys in found for x, y in zip(xs, ys, strict=True))


def test_what_is_not_finite_is_marked_where_it_would_stand():
    figure = figure_of("infinite")
    logits, softmax, curve, gradient, *_ = figure.axes
    assert marks(logits, "^") == [(0, 0.97)]
    assert marks(logits, "v") == [(0, 0.03), (1, 0.03)]
    assert marks(logits, "x") == [(0, 0)]
    for axes in (softmax, gradient):
        assert marks(axes, "x") == [(0, 0), (0, 0), (1, 0), (1, 0), (2, 0), (2, 0)]
    assert marks(curve, "^") == [(0, 4)]
    assert [text.get_text() for text in curve.texts] == ["row 0: 0.1269", "row 1: NaN", "row 2: NaN", "row 3: ∞"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][4:] == ["∞", "−∞", "NaN"]
    assert figure.get_suptitle() == "no mean cross-entropy, as not every row has a loss"
    assert len(figure_of("worked").legends[0].get_texts()) == 2, "no marks where there is nothing to mark"


def test_bars_and_marks_share_a_place():
    logits = figure_of("infinite").axes[0]
    third = logits.containers[2]
    (mark,) = (line for line in logits.lines if line.get_marker() == "^")
    assert mark.get_xdata()[0] == pytest.approx(third[0].get_x() + third[0].get_width() / 2)
    assert math.isnan(third[0].get_height())


def test_targets_are_called_what_they_are():
    def said(*case):
        figure = ce.explain(*case).plot()
        titles = [axes.get_title() for axes in figure.axes]
        return [text.get_text() for text in figure.legends[0].get_texts()], titles[1:3]

    assert said(A, [1, -100], NAMES) == (
        ["row 0, target: dog", "row 1, which does not count"],
        ["Softmax, and target (diamonds)", "−log p of the target"],
    )
    assert said(A, [[0.2, 0.5, 0.3]] * 2, NAMES) == (
        ["row 0, target: a distribution", "row 1, target: a distribution"],
        ["Softmax, and target distribution (diamonds)", "mean −log p over the target distribution"],
    )
    assert said(A, [[0.2, 0.5, 0.3], [1, 0, 0]], NAMES) == (
        ["row 0, target: a distribution", "row 1, target: cat"],
        ["Softmax, and target distribution (diamonds)", "−log p of the target, or its mean"],
    )


def test_names_stay_distinct():
    def labels(names):
        return _names.labels(ce.explain([np.arange(2.0, len(names) + 2)], [0], names), range(len(names)))

    assert labels(NAMES) == NAMES
    assert labels(["a very long name, the first", "a very long name, the second"]) == ["a very…first", "a very…econd"]
    assert labels([f"the same at both ends {c} of the name" for c in range(3)]) == ["0", "1", "2"]
    assert labels(["a", "a", "", "b"]) == ["0", "1", "2", "b"]
    assert labels(["猫", "dog 🐕", "πουλί", "кошка"]) == ["0", "dog □", "πουλί", "кошка"]
