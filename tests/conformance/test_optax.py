"""optax's own test cases of its softmax and sigmoid cross-entropies (those that come with optax 0.2.8), run on ours.

All that call one of them, through the poly loss and under an optimizer too. None touches what differs on purpose:
losses of half-precision logits are float32, and logits without a class are an error.
"""

import unittest
from contextlib import nullcontext

import numpy as np
import pytest
from optax._src import alias_test
from optax.losses import _classification, _classification_test, _fenchel_young_test
from other_device import composed_on_the_cpu

import crossentropy.jax as cj

OURS = {
    function.__name__: function
    for function in (
        cj.softmax_cross_entropy,
        cj.softmax_cross_entropy_with_integer_labels,
        cj.sigmoid_binary_cross_entropy,
        cj.sigmoid_focal_loss,
    )
}
# Their cases, those whose names begin so.
WANTED = (
    (_classification_test.SoftmaxCrossEntropyTest, ""),
    (_classification_test.SoftmaxCrossEntropyWithIntegerLabelsTest, ""),
    (_classification_test.SafeSoftmaxCrossEntropyTest, "test_against_plain_implementation"),
    (_classification_test.PolyLossTest, ""),
    (_classification_test.SigmoidCrossEntropyTest, ""),
    (_classification_test.SigmoidFocalLossTest, ""),
    (_fenchel_young_test.FenchelYoungTest, ""),
    (alias_test.LBFGSTest, "test_multiclass_logreg"),
)
CASES = {
    f"{group.__name__}.{name}": group(name)
    for group, start in WANTED
    for name in unittest.defaultTestLoader.getTestCaseNames(group)
    if name.startswith(start)
}


@pytest.fixture(scope="module", params=["core", "composed"])
def path(request):
    """The path of the CPU, and that of other devices on the CPU."""
    with composed_on_the_cpu() if request.param == "composed" else nullcontext():
        yield


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", CASES)
def test_as_optax_does(name, monkeypatch):
    called = []

    def counted(function):
        def call(*args, **kwargs):
            called.append(function)
            return function(*args, **kwargs)

        return call

    for of_loss, function in OURS.items():
        monkeypatch.setattr(_classification, of_loss, counted(function))
    # A new function, since a compiled one would not call ours again.
    poly_loss = _classification.poly_loss_cross_entropy
    monkeypatch.setattr(_classification, "poly_loss_cross_entropy", lambda *args, **given: poly_loss(*args, **given))
    np.random.seed(0)  # noqa: NPY002 - their cases draw from it
    CASES[name].debug()
    assert called


def test_all_cases_are_here():
    assert len(CASES) == 72
