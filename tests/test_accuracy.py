"""Every error that `make accuracy` measures is within the goal."""

import option_accuracy
import pytest
from accuracy import beyond, measure

from crossentropy import _core


@pytest.mark.parametrize("instruction_set", _core.available_instruction_sets)
def test_errors_against_mpmath_are_within_the_goal(instruction_set):
    assert beyond(measure(instruction_set)) == []


@pytest.mark.parametrize("instruction_set", _core.available_instruction_sets)
def test_errors_with_options_are_within_the_goal(instruction_set):
    assert option_accuracy.beyond(option_accuracy.measure(instruction_set), instruction_set) == []
