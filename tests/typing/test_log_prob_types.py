"""Types of log-probabilities and entropies: what mypy infers, and the same of what they return when they run."""

from typing import TYPE_CHECKING

import pytest

import crossentropy as ce

if TYPE_CHECKING:
    from typing import assert_type

    from test_types import A, Array, H, T, W, reductions
else:
    from .test_types import A, Array, H, T, W, assert_type, reductions


def test_log_prob() -> None:
    assert_type(ce.log_prob(A, T, axis=-1, softcap=30, temperature=2, num_threads=1), Array)
    assert_type(ce.log_prob(A, [[0, 1], [2, 0]], ignore_index=None), Array)
    log_p, dlogits = ce.log_prob_with_grad(A, T, grad_output=[1.0, -1.0], out=A.copy())
    assert_type(log_p, Array)
    assert_type(dlogits, Array)
    assert_type(ce.log_prob_and_entropy(A, T), tuple[Array, Array])
    values, dlogits = ce.log_prob_and_entropy_vjp(A, T, [1.0, -1.0], -0.1)
    assert_type(values, tuple[Array, Array])
    assert_type(dlogits, Array)


def test_entropy() -> None:
    assert_type(ce.entropy(A), Array)
    assert_type(ce.entropy(A, reduction="mean", sample_weight=[1, 0]), float)
    assert_type(ce.entropy(A, reduction="sum", axis=0), float)
    assert_type(ce.entropy_with_grad(A), tuple[Array, Array])
    assert_type(ce.entropy_with_grad(A, reduction="sum", grad_output=2, out=A.copy()), tuple[float, Array])
    for reduction in reductions():
        assert_type(ce.entropy(A, reduction=reduction), float | Array)


def test_linear_log_prob() -> None:
    assert_type(ce.linear_log_prob(H, W, T, bias=[0, 0, 0], max_logits_bytes=100), Array)
    assert_type(ce.linear_log_prob_and_entropy(H, W, T), tuple[Array, Array])
    log_p, gradients = ce.linear_log_prob_with_grad(H, W, T, wrt=["hidden"])
    assert_type(log_p, Array)
    assert_type(gradients, ce.LinearGradients)
    values, gradients = ce.linear_log_prob_and_entropy_vjp(H, W, T, 1.0, [0.0, 0.5])
    assert_type(values, tuple[Array, Array])
    assert_type(gradients, ce.LinearGradients)


def test_looks_like_probabilities() -> None:
    assert_type(ce.looks_like_probabilities(A, axis=0), bool)


def test_wrong_calls() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        ce.entropy(A, weight=[1, 2])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'targets'"):
        ce.log_prob(A, targets=T)  # type: ignore[call-arg]
