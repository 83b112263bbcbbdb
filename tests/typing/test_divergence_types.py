"""Types of the divergences: what mypy infers, and the same of what they return when they run."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

import crossentropy as ce

if TYPE_CHECKING:
    from typing import assert_type

    from test_types import A, Array, H, W, reductions
else:
    from .test_types import A, Array, H, W, assert_type, reductions


def test_divergences() -> None:
    assert_type(ce.kl_divergence(A, A), float)
    assert_type(ce.kl_divergence(A, A.tolist(), reduction="sum", direction="reverse", temperature=2), float)
    assert_type(ce.kl_divergence(A, A, reduction="none", softcap=30, teacher_softcap=None), Array)
    assert_type(ce.jensen_shannon(A, A), float)
    assert_type(ce.jensen_shannon(A, A, beta=0.1, axis=0, sample_weight=[1, 0, 1], num_threads=1), float)
    assert_type(ce.jensen_shannon(A, A, reduction="none"), Array)
    for reduction in reductions():
        assert_type(ce.kl_divergence(A, A, reduction=reduction), float | Array)


def test_divergences_with_grad() -> None:
    loss, gradients = ce.kl_divergence_with_grad(A, A, wrt=["teacher_logits"])
    assert_type(loss, float)
    assert_type(gradients, ce.DivergenceGradients)
    assert_type(gradients.logits, Array | None)
    assert_type(gradients.teacher_logits, Array | None)
    out = ce.DivergenceGradients(np.empty_like(A))
    assert_type(ce.kl_divergence_with_grad(A, A, reduction="none", out=out), tuple[Array, ce.DivergenceGradients])
    assert_type(ce.jensen_shannon_with_grad(A, A, grad_output=2), tuple[float, ce.DivergenceGradients])
    assert_type(ce.jensen_shannon_with_grad(A, A, reduction="none"), tuple[Array, ce.DivergenceGradients])


def test_linear_divergences() -> None:
    assert_type(ce.linear_kl_divergence(H, W, H, W), float)
    assert_type(ce.linear_kl_divergence(H, W, H, W, reduction="none", max_logits_bytes=100), Array)
    assert_type(ce.linear_jensen_shannon(H, W, H, W, teacher_bias=[0, 0, 1]), float)
    assert_type(ce.linear_jensen_shannon(H, W, H, W, reduction="none"), Array)
    out = ce.LinearDivergenceGradients(hidden=np.empty_like(H))
    assert_type(
        ce.linear_kl_divergence_with_grad(H, W, H, W, wrt=["hidden"], out=out),
        tuple[float, ce.LinearDivergenceGradients],
    )
    loss, gradients = ce.linear_jensen_shannon_with_grad(H, W, H, W, reduction="none", wrt=["teacher_classifier"])
    assert_type(loss, Array)
    assert_type(gradients.teacher_classifier, Array | None)
    assert_type(gradients.bias, Array | None)


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="direction: expected"):
        ce.kl_divergence(A, A, direction="both")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"'ignore_index': .*sample_weight of 0"):
        ce.kl_divergence(A, A, ignore_index=0)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'direction'"):
        ce.jensen_shannon(A, A, direction="forward")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="wrt: expected"):
        ce.linear_kl_divergence_with_grad(H, W, H, W, wrt=["logits"])  # type: ignore[list-item]
