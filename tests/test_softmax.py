"""Softmax, log-softmax and log-sum-exp; their accuracy is measured in test_accuracy.py."""

import numpy as np
import pytest

import crossentropy as ce


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 5, 130), (2, 130, 4)])
def test_against_the_formula_along_every_axis(shape, dtype, rng):
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    wide = z.astype(np.float64)
    rtol = 8 * np.finfo(dtype).eps
    for axis in range(-len(shape), len(shape)):
        lse = np.log(np.exp(wide).sum(axis, keepdims=True))
        np.testing.assert_allclose(ce.logsumexp(z, axis=axis, keepdims=True), lse, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(ce.logsumexp(z, axis=axis), np.squeeze(lse, axis), rtol=rtol, atol=rtol)
        np.testing.assert_allclose(ce.log_softmax(z, axis=axis), wide - lse, rtol=rtol, atol=rtol)
        softmax = ce.softmax(z, axis=axis)
        np.testing.assert_allclose(softmax, np.exp(wide - lse), rtol=2 * rtol)
        assert softmax.flags.c_contiguous
        assert softmax.dtype == dtype


def test_input_is_not_written_to(rng):
    z = rng.standard_normal((4, 7))
    before = z.copy()
    ce.softmax(z), ce.log_softmax(z), ce.logsumexp(z)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("function", [ce.softmax, ce.log_softmax, ce.logsumexp])
def test_input_of_no_meaning(function):
    with pytest.raises(TypeError, match="logits: expected"):
        function([True, False])
    with pytest.raises(ValueError, match="at least one class"):
        function(np.zeros((2, 0)))
    with pytest.raises(ValueError, match="axis"):
        function(np.zeros((2, 3)), axis=2)


def test_confident_log_softmax_keeps_its_digits():
    for dtype in (np.float32, np.float64):
        for classes in (2, 200):
            z = np.zeros(classes, dtype)
            z[1] = 50
            rest = (classes - 1) * np.exp(-50.0)
            np.testing.assert_allclose(ce.log_softmax(z)[1], -rest, rtol=4 * np.finfo(dtype).eps)
