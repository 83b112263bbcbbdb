"""The Jensen-Shannon divergence between two linear heads, and its gradients: what users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._divergence_call import divergence_options, refuses_targets
from ._linear_divergence_call import (
    GivenLinear,
    GivenLinearWithGrad,
    LinearDivergenceGradients,
    Wrt,
    linear_divergence,
    linear_divergence_and_gradients,
    prepare_linear_divergence,
)
from ._options import Reduction


class _GivenJs(GivenLinear, total=False):
    beta: float


class _GivenJsWithGrad(_GivenJs, GivenLinearWithGrad, total=False):
    pass


@overload
def linear_jensen_shannon(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenJs],
) -> float: ...
@overload
def linear_jensen_shannon(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenJs],
) -> Array: ...
@refuses_targets
def linear_jensen_shannon(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    teacher_bias: npt.ArrayLike | None = None,
    beta: float = 0.5,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> float | Array:
    """Compute the divergence of `jensen_shannon`, in nats, between two heads' logits without holding them all.

    Parameters
    ----------
    hidden, classifier, teacher_hidden, teacher_classifier, bias, teacher_bias
        As for `linear_kl_divergence`.
    beta : float between 0 and 1
        As for `jensen_shannon`.
    sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads, max_logits_bytes
        As for `linear_kl_divergence`.

    Returns
    -------
    float or ndarray
        As of `linear_kl_divergence`.

    Raises
    ------
    TypeError, ValueError
        As for `linear_kl_divergence`; ValueError also for a `beta` of 0 or 1, or outside.

    See Also
    --------
    linear_jensen_shannon_with_grad : the gradients too.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(ce.linear_jensen_shannon(hidden, classifier, hidden, 0.5 * classifier), 6)
    0.012394
    """
    options = divergence_options(
        beta=beta,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_linear_divergence(
        options,
        hidden,
        classifier,
        teacher_hidden,
        teacher_classifier,
        bias=bias,
        teacher_bias=teacher_bias,
        sample_weight=sample_weight,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    return linear_divergence(call)


@overload
def linear_jensen_shannon_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenJsWithGrad],
) -> tuple[float, LinearDivergenceGradients]: ...
@overload
def linear_jensen_shannon_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenJsWithGrad],
) -> tuple[Array, LinearDivergenceGradients]: ...
@refuses_targets
def linear_jensen_shannon_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    teacher_bias: npt.ArrayLike | None = None,
    beta: float = 0.5,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
    wrt: Sequence[Wrt] = ("hidden", "classifier", "bias"),
    grad_output: npt.ArrayLike = 1.0,
    out: LinearDivergenceGradients | None = None,
) -> tuple[float | Array, LinearDivergenceGradients]:
    """Compute the divergence of `linear_jensen_shannon` and its gradients, without holding the logits.

    Parameters
    ----------
    hidden, classifier, teacher_hidden, teacher_classifier, bias, teacher_bias, beta
        As for `linear_jensen_shannon`.
    sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads, max_logits_bytes
        As for `linear_kl_divergence`.
    wrt, grad_output, out
        As for `linear_kl_divergence_with_grad`.

    Returns
    -------
    loss : float or ndarray
        As `linear_jensen_shannon` returns it.
    gradients : LinearDivergenceGradients
        As of `linear_kl_divergence_with_grad`.

    Raises
    ------
    TypeError, ValueError
        As for `linear_jensen_shannon`; also for an `out` that does not fit. Nothing has been written then.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, gradients = ce.linear_jensen_shannon_with_grad(hidden, classifier, hidden, 0.5 * classifier)
    >>> gradients.hidden.round(4)
    array([[ 0.008 ,  0.0028],
           [-0.0171,  0.0073]])
    """
    options = divergence_options(
        beta=beta,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_linear_divergence(
        options,
        hidden,
        classifier,
        teacher_hidden,
        teacher_classifier,
        bias=bias,
        teacher_bias=teacher_bias,
        sample_weight=sample_weight,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    return linear_divergence_and_gradients(call, wrt, grad_output, out)
