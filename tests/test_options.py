"""The options of the loss: one list, which the core reads by name, and which survives a copy."""

import copy
import dataclasses
import pickle
from typing import get_type_hints

import numpy as np
import pytest

import crossentropy as ce
from crossentropy import _core
from crossentropy._call import prepare
from crossentropy._options import NUMBERS, GivenOptions, LossOptions, loss_options, row_options

CHANGED = LossOptions(
    ignore_index=None,
    label_smoothing=0.25,
    z_loss=0.5,
    entropy_bonus=0.125,
    softcap=30.0,
    temperature=0.5,
    reduction="sum",
)
NAMES = [field.name for field in dataclasses.fields(LossOptions)]


def test_core_has_the_same_options():
    assert _core.option_names == NAMES


def test_overloads_have_the_same_options():
    assert list(get_type_hints(GivenOptions)) == [name for name in NAMES if name != "reduction"]


def test_core_reads_every_option():
    """Of options that the core would not read, a changed one would leave the loss as it was."""
    logits, targets = [[2.0, 1.0, 0.1], [0.5, 0.2, 3.0]], [0, 2]
    plain = ce.cross_entropy(logits, targets, ignore_index=None)
    changes = {name: getattr(CHANGED, name) for name in NAMES} | {"ignore_index": 2, "focal_gamma": 2.0}
    assert list(changes) == NAMES
    for name, value in changes.items():
        assert ce.cross_entropy(logits, targets, **{"ignore_index": None, name: value}) != plain, name


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("options", [LossOptions(), CHANGED])
def test_copies_are_equal_and_make_what_the_core_reads_anew(duplicate, options):
    held = options.core
    again = duplicate(options)
    assert again == options
    assert hash(again) == hash(options)
    assert "core" not in vars(again)
    assert again.core is not held


def test_what_the_core_reads_is_made_when_it_is_asked_for():
    options = dataclasses.replace(CHANGED)
    assert "core" not in vars(options)
    assert options.core is options.core


def test_options_of_rows_from_their_numbers():
    assert row_options(None, CHANGED.numbers) == dataclasses.replace(CHANGED, reduction="none")
    assert NUMBERS == ("label_smoothing", "z_loss", "entropy_bonus", "focal_gamma", "softcap", "temperature")
    assert CHANGED.numbers == [0.25, 0.5, 0.125, 0.0, 30.0, 0.5]


@pytest.mark.parametrize("targets", [[1, 0], [[0.2, 0.3, 0.5]] * 2, ce.TopKTargets([[1], [0]], [[1.0], [1.0]])])
def test_records_of_a_call_have_all_their_fields(targets):
    """They are made without a count of their fields."""
    call = prepare(LossOptions(), [[2.0, 1.0, 0.1], [0.5, 0.2, 3.0]], targets)
    for record in (call, call.logits, call.targets):
        assert len(record) == len(record._fields)


def test_defaults_share_one_instance():
    assert loss_options() is loss_options(softcap=None, temperature=1.0)
    assert loss_options(temperature=2.0) is not loss_options()


@pytest.mark.parametrize("options", [None, object(), "options", np.zeros(3)])
def test_the_core_refuses_other_objects(options):
    with pytest.raises((AttributeError, TypeError, ValueError)):
        _core.total_weight(options, logits=None, targets=None, class_weight=None, sample_weight=None)
    with pytest.raises((AttributeError, TypeError)):
        _core.loss(options)
