"""The picture: what is drawn, for every eye, the same bytes every time."""

import math
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colors

import crossentropy as ce
from crossentropy._explain import _picture

A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]


@pytest.fixture
def x():
    return ce.explain(A, [1, 0], names=["cat", "dog", "bird"])


def panel(figure, start):
    return next(axes for axes in figure.axes if axes.get_title().startswith(start))


def heights(axes, rows, classes):
    return np.array([bar.get_height() for bar in axes.patches]).reshape(rows, classes)


def test_bars_points_and_map_are_the_numbers(x):
    figure = x.plot(row=1)
    np.testing.assert_array_equal(heights(panel(figure, "Logits"), 2, 3), x.logits)
    np.testing.assert_array_equal(heights(panel(figure, "Softmax"), 2, 3), x.p)
    np.testing.assert_array_equal(heights(panel(figure, "Gradient of the mean"), 2, 3), x.dlogits)
    diamonds = [line.get_ydata() for line in panel(figure, "Softmax").lines if line.get_marker() == "D"]
    np.testing.assert_array_equal(np.nan_to_num(diamonds), x.q)  # none where the target is 0
    assert np.isnan(diamonds).sum() == 4
    curve = panel(figure, "−log p")
    (line,) = (line for line in curve.lines if len(line.get_xdata()) > 2)
    np.testing.assert_allclose(-np.log(line.get_xdata()), line.get_ydata(), atol=1e-12)
    points = [(*line.get_xdata(), *line.get_ydata()) for line in curve.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(sorted(points), sorted(zip(x.p[[0, 1], [1, 0]], x.losses, strict=True)), rtol=1e-14)
    jacobian = panel(figure, "Jacobian of the softmax, row 1")
    np.testing.assert_array_equal(jacobian.images[0].get_array(), x.derivation(1).jacobian)
    for axes in (panel(figure, "Logits"), panel(figure, "Gradient"), jacobian):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "bird"]


def test_gradient_of_the_sum():
    figure = ce.explain(A, [1, 0], reduction="sum").plot()
    assert panel(figure, "Gradient of the sum")


def test_rows_differ_in_grey_and_in_pattern():
    def lightness(colour):
        red, green, blue, _ = colors.to_rgba(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for rows in (2, 3, 4):
        bars = panel(ce.explain(np.eye(4)[:rows] * 2, np.zeros(rows, int)).plot(), "Logits").containers
        shades = [lightness(bar[0].get_facecolor()) for bar in bars]
        assert np.diff(shades).min() > 0.12
        assert len({bar[0].get_hatch() for bar in bars}) == rows
    values = [lightness(_picture._MAP(v)) for v in np.linspace(0, 1, 20)]
    assert np.diff(values).min() > 0, "the sign of the Jacobian shows in grey"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_same_bytes_every_time(x, tmp_path, suffix):
    x.plot(tmp_path / f"here{suffix}")
    script = (
        "import matplotlib, sys, time; matplotlib.rcParams['font.size'] = 20; import crossentropy as ce; "
        f"ce.explain({A}, [1, 0], names=['cat', 'dog', 'bird']).plot(sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", script, tmp_path / f"there{suffix}"], check=True, env=environment)
    assert (tmp_path / f"here{suffix}").read_bytes() == (tmp_path / f"there{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_notebook_shows_it(x, tmp_path):
    with matplotlib.rc_context({"font.size": 20}):
        shown = x.plot(tmp_path / "a.png")
        assert isinstance(shown, matplotlib.figure.Figure)
        assert shown._repr_png_() == (tmp_path / "a.png").read_bytes()


def test_leaves_matplotlib_as_it_was(x, tmp_path):
    before = dict(matplotlib.rcParams)
    x.plot(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([[2.0, -math.inf, 0.0], [math.nan, 1.0, 0.0]], [1, 0]),
        ([[1000.0, 0.0]], [1]),
        ([[50.0, 0.0]], [0]),
        ([[1.0], [2.0]], [0, 0]),
        ([[1.0, 2.0]], [-100]),
        ([[3.0, 2.0, 1.0]] * 7, [[0.5, 2.0, 0.0]] * 7),
    ],
)
def test_draws_whatever_it_is_given(logits, targets, tmp_path):
    ce.explain(logits, targets, names=["$x$", "_^\\", "ü" * 40][: len(logits[0])]).plot(tmp_path / "a.svg")


def test_many_rows_and_classes(rng, tmp_path):
    x = ce.explain(rng.standard_normal((32, 9000)), rng.integers(0, 9000, 32))
    figure = x.plot(tmp_path / "a.png", row=20)
    title = figure.get_suptitle()
    assert "rows 17 to 20 of 32" in title
    assert f"{len(x.shown)} of 9,000 classes" in title


def test_errors(x, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"ends in .png, .svg, .pdf, got '.*a.gif'"):
        x.plot(tmp_path / "a.gif")
    with pytest.raises(IndexError, match="row: expected"):
        x.plot(tmp_path / "a.png", row=2)
    with pytest.raises(FileNotFoundError):
        x.plot(tmp_path / "missing" / "a.png")
    (tmp_path / "a.png").write_text("kept")
    monkeypatch.setattr(_picture.Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        x.plot(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
    assert (tmp_path / "a.png").read_text() == "kept"
