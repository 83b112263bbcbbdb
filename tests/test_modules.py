"""CrossEntropyLoss: forward, backward, softmax."""

import numpy as np
import pytest

import crossentropy as ce

A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_as_the_functions(reduction, axis):
    options = {
        "axis": axis,
        "class_weight": [1.0, 2.0, 0.5],
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "softcap": 9.0,
        "temperature": 1.5,
        "reduction": reduction,
    }
    z = A if axis == -1 else A.T.copy()
    criterion = ce.CrossEntropyLoss(**options)
    upstream = [2.0, -3.0] if reduction == "none" else 2.0
    weight = [0.5, 1.0]
    loss, dlogits = ce.cross_entropy_with_grad(z, [1, 0], sample_weight=weight, grad_output=upstream, **options)
    for _ in range(2):  # any number of times
        for call in (criterion, criterion.forward):
            np.testing.assert_array_equal(call(z, [1, 0], weight), loss)
            np.testing.assert_allclose(criterion.backward(upstream), dlogits, rtol=1e-14)
    u = 9 * np.tanh(A / 9) / 1.5
    expected = np.exp(u) / np.exp(u).sum(1, keepdims=True)
    np.testing.assert_allclose(criterion.softmax, expected if axis == -1 else expected.T, rtol=1e-14)


def test_before_forward():
    criterion = ce.CrossEntropyLoss()
    with pytest.raises(RuntimeError, match="backward: call forward"):
        criterion.backward()
    with pytest.raises(RuntimeError, match="softmax: call forward"):
        _ = criterion.softmax


def test_logits_changed_after_forward():
    z = A.copy()
    criterion = ce.CrossEntropyLoss()
    criterion(z, [1, 0])
    expected = criterion.backward()
    z[:] = 0
    np.testing.assert_array_equal(criterion.backward(), expected)
    with pytest.raises(RuntimeError, match="have been changed"):
        _ = criterion.softmax


def test_gradients_handed_out_are_the_callers():
    criterion = ce.CrossEntropyLoss()
    criterion(A, [1, 0])
    first = criterion.backward()
    first[:] = 0
    assert criterion.backward().any()


def test_rows_that_do_not_count_stay_zero():
    criterion = ce.CrossEntropyLoss(reduction="none")
    criterion(A, [1, -100])
    dlogits = criterion.backward([2.0, np.inf])
    assert (dlogits[1] == 0).all()
    assert np.isnan(criterion.backward([np.inf, 1.0])[0]).all()


def test_options_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="label_smoothing"):
        ce.CrossEntropyLoss(label_smoothing=2)
    with pytest.raises(TypeError):
        ce.CrossEntropyLoss(sample_weight=[1.0])
    criterion = ce.CrossEntropyLoss()
    criterion(A, [1, 0])
    with pytest.raises(ValueError, match="grad_output: expected a number"):
        criterion.backward([1.0, 2.0])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data["targets"].__setitem__(0, 7), IndexError),
        (lambda data: data["sample_weight"].__setitem__(1, np.nan), ValueError),
        (lambda data: data["class_weight"].__setitem__(0, np.inf), ValueError),
    ],
    ids=["targets", "sample_weight", "class_weight"],
)
def test_backward_of_a_head_checks_what_it_reads_again(change, error, rng):
    """For 'none' the gradients are made by backward, from arrays that may have been changed."""
    data = {"targets": np.array([0, 2]), "sample_weight": np.ones(2), "class_weight": np.ones(3)}
    criterion = ce.LinearCrossEntropyLoss(reduction="none", class_weight=data["class_weight"])
    hidden, classifier = rng.standard_normal((2, 4)), rng.standard_normal((3, 4))
    criterion(hidden, classifier, data["targets"], sample_weight=data["sample_weight"])
    change(data)
    with pytest.raises(error):
        criterion.backward()


def test_backward_of_a_head_in_half_precision_is_of_one_problem(rng):
    """Changed targets do not meet the total weight of those before."""
    hidden, classifier = (rng.standard_normal(shape).astype(np.float16) for shape in ((3, 4), (5, 4)))
    targets = np.array([0, 1, 2])
    criterion = ce.LinearCrossEntropyLoss()
    criterion(hidden, classifier, targets)
    targets[0] = -100
    again = ce.linear_cross_entropy_with_grad(hidden, classifier, targets, grad_output=2.0)[1]
    np.testing.assert_array_equal(criterion.backward(2.0).classifier, again.classifier)
