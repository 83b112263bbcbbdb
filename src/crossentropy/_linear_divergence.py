"""The Kullback-Leibler divergence between two linear heads, and its gradients: what users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._divergence_call import Direction, divergence_options, refuses_targets
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


class _GivenKl(GivenLinear, total=False):
    direction: Direction


class _GivenKlWithGrad(_GivenKl, GivenLinearWithGrad, total=False):
    pass


@overload
def linear_kl_divergence(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenKl],
) -> float: ...
@overload
def linear_kl_divergence(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenKl],
) -> Array: ...
@refuses_targets
def linear_kl_divergence(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    teacher_bias: npt.ArrayLike | None = None,
    direction: Direction = "forward",
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> float | Array:
    r"""Compute the divergence of `kl_divergence`, in nats, between two heads' logits without holding them all.

    The student's logits are ``hidden @ classifier.T + bias``, the teacher's ``teacher_hidden @ teacher_classifier.T +
    teacher_bias``.

    Parameters
    ----------
    hidden : array_like of float16, bfloat16, float32 or float64, shape (..., D)
        The student's hidden states, one a row. Lists and integers are taken as float64.
    classifier : array_like of such a dtype, shape (C, D)
        The student's. A transposed view is used as it is.
    teacher_hidden : array_like of such a dtype, shape (..., E)
        The teacher's, of the same rows. Their width E may differ from D.
    teacher_classifier : array_like of such a dtype, shape (C, E)
        The teacher's, of the same classes.
    bias, teacher_bias : array_like of such a dtype, shape (C,), optional
    direction, sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads
        As for `kl_divergence`. Threads of the products are those of NumPy's BLAS.
    max_logits_bytes : int, optional
        At most so many bytes of the logits of each model at a time, but at least one row; 64 MiB by default.

    Returns
    -------
    float or ndarray
        For 'mean' and 'sum' a float. For 'none' one divergence a row, of shape (...): float64 where any of the products
        is, else float32; for hidden states of shape (D,) a NumPy scalar.

    Raises
    ------
    TypeError, ValueError
        As for `kl_divergence`; also for hidden states, classifiers and biases whose shapes do not fit.

    See Also
    --------
    linear_kl_divergence_with_grad : the gradients too.

    Notes
    -----
    Logits are made by NumPy's matrix products, for each model in float64 if its hidden states or its classifier are,
    else in float32. The divergence is as exact as that of `kl_divergence` for these logits: exactly 0 for the same
    arrays given twice, but for models that hardly differ its digits end with those of the products, whose errors differ
    too. Rows of sample weight 0 are left out of the products. Bits are the same for the same BLAS and
    `max_logits_bytes` only.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> ce.linear_kl_divergence(hidden, classifier, hidden, classifier)
    0.0
    >>> round(ce.linear_kl_divergence(hidden, classifier, hidden, 0.5 * classifier), 6)
    0.056626
    >>> round(ce.kl_divergence(hidden @ classifier.T, hidden @ classifier.T / 2), 6)
    0.056626
    """
    options = divergence_options(
        direction=direction,
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
def linear_kl_divergence_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenKlWithGrad],
) -> tuple[float, LinearDivergenceGradients]: ...
@overload
def linear_kl_divergence_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenKlWithGrad],
) -> tuple[Array, LinearDivergenceGradients]: ...
@refuses_targets
def linear_kl_divergence_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    teacher_bias: npt.ArrayLike | None = None,
    direction: Direction = "forward",
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
    r"""Compute the divergence of `linear_kl_divergence` and its gradients, without holding the logits.

    Parameters
    ----------
    hidden, classifier, teacher_hidden, teacher_classifier, bias, teacher_bias
        As for `linear_kl_divergence`.
    direction, sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads, max_logits_bytes
        As for `linear_kl_divergence`.
    wrt : sequence of 'hidden', 'classifier', 'bias', 'teacher_hidden', 'teacher_classifier', 'teacher_bias'
        The gradients to compute; each one left out saves its product.
    grad_output : float, or for reduction 'none' also an array with one number a row
        The upstream gradient. Each row is multiplied by it before rows are added up.
    out : LinearDivergenceGradients, optional
        Where to write gradients: for each, an array of the shape and dtype of what it belongs to, C-contiguous, of
        memory that nothing else shares; or None for a new one.

    Returns
    -------
    loss : float or ndarray
        As `linear_kl_divergence` returns it.
    gradients : LinearDivergenceGradients
        Each of the shape and dtype of what it belongs to; None where not asked for, or where there is no bias. Hidden
        states that do not count have a gradient of zero.

    Raises
    ------
    TypeError, ValueError
        As for `linear_kl_divergence`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    Beside inputs and gradients it takes twice `max_logits_bytes` and a few MiB. A classifier in half precision has its
    gradient added up in float32, which takes 4 C D bytes.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, gradients = ce.linear_kl_divergence_with_grad(hidden, classifier, hidden, 0.5 * classifier)
    >>> gradients.hidden.round(4)
    array([[ 0.034 ,  0.0096],
           [-0.0794,  0.0434]])
    >>> gradients.teacher_hidden is None
    True
    """
    options = divergence_options(
        direction=direction,
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
