"""Every figure of docs/accuracy.md is within the goal; `make accuracy` writes that page."""

import pytest
from accuracy import COLUMNS, DTYPES, GOAL, measure

from crossentropy import _core


@pytest.mark.parametrize("instruction_set", _core.available_instruction_sets)
def test_errors_against_mpmath_are_within_the_goal(instruction_set):
    measured = measure(instruction_set)
    found = [(dtype, column, *measured[dtype][column]) for dtype in DTYPES for column in COLUMNS]
    print(*found, sep="\n")
    assert all(name for *_, name in found), "a column was never measured"
    assert [entry for entry in found if entry[2] > GOAL] == []
