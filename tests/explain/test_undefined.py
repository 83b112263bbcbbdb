"""Rows without a loss are told in words, and nothing is told twice or of rows that it does not hold for."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

import crossentropy as ce
from crossentropy._explain._step import plain

inf, nan = math.inf, math.nan
FINE = [2.0, 1.0, 0.1]
CASES = [
    ([nan, 1.0, 0.1], [0, 1, 0], "a logit is NaN"),
    ([inf, 1.0, 0.1], [1, 0, 0], "a logit is ∞"),
    ([-inf] * 3, [0, 1, 0], "every logit is −∞"),
    (FINE, [nan, 1, 0], "a target is NaN"),
    (FINE, [inf, 0, 0], "a target is infinite"),
    (FINE, [inf, -0.5, 0], "a target is infinite"),
]
OPTIONS = [{}, {"reduction": "sum"}, {"reduction": "none", "z_loss": 0.1, "sample_weight": [0.5, 2.0, 1.0]}]


def steps_of(lesson):
    return {step.title: SimpleNamespace(note=plain(step.note), lines=step.lines) for step in lesson.steps}


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("logits", "targets", "reason"), CASES, ids=str)
def test_why_there_is_no_number(logits, targets, reason, options):
    x = ce.explain([FINE, logits, FINE], [[0.2, 0.3, 0.5], targets, [0.0, 1.0, 0.0]], **options)
    assert np.isnan(x.losses).tolist() == [False, True, False]
    lesson = x.lesson(derivation=True, row=1)
    assert "= NaN" not in str(lesson)
    steps = steps_of(lesson)
    assert steps["Derivation for row 1: none"].note == f"The row has no loss: {reason}."
    without_loss = f"Row 1 has none: {reason}."
    for title in ("The cross-entropy of each row", "Sum and mean", "Gradient of the sum"):
        assert without_loss in steps[title].note
    has_softmax = not np.isnan(x.p[1]).any()
    assert (without_loss in steps["Softmax"].note) == (not has_softmax)
    assert ("each row sums to 1" in steps["Softmax"].note) == has_softmax
    assert "Each row sums to 0" not in str(lesson)
    assert "There is no sum and no mean." in steps["Sum and mean"].note
    assert "SCE = " not in "".join(map(str, steps["Sum and mean"].lines))
    assert len(steps["The cross-entropy of each row"].lines) == 2, "of the two rows that have one"


def test_rows_of_one_reason_are_named_together():
    x = ce.explain([[nan, 1.0], [2.0, 1.0], [nan, nan], [inf, 0.0]], [0, 0, 1, 1])
    note = steps_of(x.lesson())["Softmax"].note
    assert note.endswith("Rows 0, 2 have none: a logit is NaN. Row 3 has none: a logit is ∞.")


def test_number_that_is_too_large_on_the_way():
    x = ce.explain([[1e200, 0.0, 0.0]], [[0, 1e200, -1e200]])
    steps = steps_of(x.lesson())
    assert "Row 0 has none: a number on the way is too large." in steps["Sum and mean"].note
    assert "Each row sums to 0." in steps["Gradient of the sum"].note


def test_infinite_logit_has_no_sum():
    x = ce.explain([[inf, 0.0, 1.0]], [0])
    assert np.isnan([x.e[0, 0], x.r[0], x.S[0]]).all()


def test_losses_of_both_infinities_have_no_sum():
    x = ce.explain([[-inf, 1.0], [-inf, 1.0]], [0, 0], sample_weight=[1.0, -1.0], reduction="sum")
    step = steps_of(x.lesson())["Sum and mean"]
    assert "∞ − ∞ is no number" in step.note
    assert "= NaN" not in str(x)


def test_infinite_losses_are_shown():
    text = str(ce.explain([[-inf, 1.0], [2.0, 1.0]], [0, 0]))
    assert "SCE = ∞ + 0.3133 = ∞" in text
    assert "has none" not in text
    assert "each row sums to 1." in text


def test_no_number_to_compare():
    assert "no difference" in str(ce.explain([[nan, 1.0]], [0]).lesson(check=True))
    assert "largest difference = " in str(ce.explain([[nan, 1.0], [2.0, 1.0]], [0, 0]).lesson(check=True))


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"sample_weight": 0.5}, {"class_weight": [2.0, 1.0]}])
@pytest.mark.parametrize("logits", [[[2.0, 1.0]], [[2.0, 1.0], [0.0, 3.0]]])
def test_one_row_is_not_told_twice(logits, options):
    x = ce.explain(logits, [0, -100][: len(logits)], **{**options, **_for_each_row(options, logits)})
    lesson = x.lesson()
    assert not re.search(r"= (\S+) = \1( |$)", str(lesson), re.M)
    steps = steps_of(lesson)
    divided = x.options.reduction == "mean" and x.total_weight != 1
    assert ("Gradient of the mean" in steps) == divided
    assert ("the gradient of the mean too" in steps["Gradient of the sum"].note) == (options == {})
    assert f"{x.loss:.4f} nats" in str(lesson)


def _for_each_row(options, logits):
    return {name: [value] * len(logits) for name, value in options.items() if name == "sample_weight"}


class TestPitfalls:
    def test_only_formulas_that_fail_are_shown(self):
        x = ce.explain([[100.0, 0.0], [1.0, 2.0]], [1, 0])
        *_, first, second, right = x.lesson(pitfalls=True).steps
        assert first.title == "Pitfall: the logarithm of a softmax without the shift"
        assert second.title == "Pitfall: the logarithm of a sum without the shift"
        assert right.title == "Right on these numbers"
        failing = {pitfall.title for pitfall in x.pitfalls() if any(pitfall.marks)}
        for title in {pitfall.title for pitfall in x.pitfalls()}:
            assert (title in right.note) == (title not in failing)

    def test_all_fail(self):
        titles = [
            step.title
            for step in ce.explain([[2000.0, 0.0, -1000.0], [60.0, 0.0, 0.0]], [1, 0]).lesson(pitfalls=True).steps
        ]
        assert sum(title.startswith("Pitfall: ") for title in titles) == 5
        assert "Right on these numbers" not in titles

    def test_harmless_numbers_have_one_step(self):
        x = ce.explain([FINE], [0])
        plain, lesson = x.lesson().steps, x.lesson(pitfalls=True)
        assert [step.title for step in lesson.steps[len(plain) :]] == ["No pitfall here"]
        assert "the textbook's formulas are right" in lesson.steps[-1].note
        assert not re.search(r"^\d+\. .*\n *\n", str(lesson), re.M), "an empty line for a formula that is not there"

    def test_without_numbers_none_is_called_right(self):
        text = str(ce.explain([[nan, 1.0]], [0]).lesson(pitfalls=True))
        assert "formulas are right" not in text
        assert "there is no finite number to compare with" in text
