"""The loss of a linear head, and its gradients: what users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Never, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._head import LinearGradients
from ._keywords import refuse_keywords, teaches_keywords
from ._linear_call import Wrt, linear_loss, linear_loss_and_gradients, prepare_linear
from ._options import GivenOptions, Reduction, loss_options
from ._targets import TopKTargets


class _Given(GivenOptions, total=False):
    bias: npt.ArrayLike | None
    class_weight: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    num_threads: int | None
    max_logits_bytes: int | None


@overload
def linear_cross_entropy(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_Given],
) -> float: ...
@overload
def linear_cross_entropy(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["none"],
    **options: Unpack[_Given],
) -> Array: ...
@teaches_keywords()
def linear_cross_entropy(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    bias: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
    **unknown: Never,
) -> float | Array:
    r"""Compute the cross-entropy, in nats, of the logits ``hidden @ classifier.T + bias`` without holding them all.

    Parameters
    ----------
    hidden : array_like of float16, bfloat16, float32 or float64, shape (..., D)
        Hidden states, one a row. Lists and integers are taken as float64.
    classifier : array_like of such a dtype, shape (C, D)
        Also called the output embedding or the head's weight. A transposed view is used as it is.
    targets : array_like
        Class indices of shape (...), probabilities of shape (..., C), or `TopKTargets`; as for `cross_entropy`.
    bias : array_like of such a dtype, shape (C,), optional
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma
        As for `cross_entropy`.
    softcap, temperature, reduction, num_threads
        As for `cross_entropy`. Threads of the products are those of NumPy's BLAS.
    max_logits_bytes : int, optional
        At most so many bytes of logits at a time, but at least one row; 64 MiB by default.

    Returns
    -------
    float or ndarray
        For 'mean' and 'sum' a float. For 'none' one loss a row, of shape (...): float64 where the products are, else
        float32; for hidden states of shape (D,) a NumPy scalar.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `cross_entropy`; also for hidden states, a classifier and a bias whose shapes do not fit.

    See Also
    --------
    linear_cross_entropy_with_grad : the gradients too.

    Notes
    -----
    Logits are made by NumPy's matrix product, in float64 if the hidden states or the classifier are, else in float32:
    half precision is converted block by block. The loss is as exact as that of `cross_entropy` for these logits. Rows
    that do not count are left out of the products. Bits are the same for the same BLAS and `max_logits_bytes` only.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(ce.linear_cross_entropy(hidden, classifier, [0, 1]), 6)
    0.764641
    >>> round(ce.cross_entropy(hidden @ classifier.T, [0, 1]), 6)
    0.764641
    """
    if unknown:
        refuse_keywords(linear_cross_entropy, unknown)
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_linear(
        options,
        hidden,
        classifier,
        targets,
        bias=bias,
        class_weight=class_weight,
        sample_weight=sample_weight,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    return linear_loss(call)


class _GivenWithGrad(_Given, total=False):
    grad_output: npt.ArrayLike
    wrt: Sequence[Wrt]
    out: LinearGradients | None


@overload
def linear_cross_entropy_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenWithGrad],
) -> tuple[float, LinearGradients]: ...
@overload
def linear_cross_entropy_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenWithGrad],
) -> tuple[Array, LinearGradients]: ...
@teaches_keywords()
def linear_cross_entropy_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    bias: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    wrt: Sequence[Wrt] = ("hidden", "classifier", "bias"),
    out: LinearGradients | None = None,
    **unknown: Never,
) -> tuple[float | Array, LinearGradients]:
    r"""Compute the loss of `linear_cross_entropy` and its gradients, without holding the logits or their gradient.

    Parameters
    ----------
    hidden, classifier, targets, bias, class_weight, sample_weight
        As for `linear_cross_entropy`.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction, num_threads
        As for `linear_cross_entropy`.
    max_logits_bytes
        As for `linear_cross_entropy`.
    grad_output : float, or for reduction 'none' also an array with one number a row
        The upstream gradient. Each row is multiplied by it before rows are added up.
    wrt : sequence of 'hidden', 'classifier', 'bias'
        The gradients to compute; each one left out saves its product.
    out : LinearGradients, optional
        Where to write gradients: for each, an array of the shape and dtype of what it belongs to, C-contiguous, of
        memory that nothing else shares; or None for a new one.

    Returns
    -------
    loss : float or ndarray
        As `linear_cross_entropy` returns it.
    gradients : LinearGradients
        Each of the shape and dtype of what it belongs to; None where not asked for, or where there is no bias. Hidden
        states that do not count have a gradient of zero.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `linear_cross_entropy`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    With the gradient :math:`G` of the logits (see `cross_entropy_with_grad`) those of hidden states, classifier and
    bias are :math:`G W`, :math:`G^T H` and the sum of the rows of :math:`G`. A classifier in half precision has its
    gradient added up in float32, which takes 4 C D bytes.

    Beside inputs and gradients it takes `max_logits_bytes` and a few MiB.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> hidden = np.array([[1.0, 0.5], [-1.0, 2.0]])
    >>> classifier = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, gradients = ce.linear_cross_entropy_with_grad(hidden, classifier, [0, 1])
    >>> gradients.hidden.round(4)
    array([[-0.0932,  0.3464],
           [ 0.1473, -0.0176]])
    >>> gradients.bias is None
    True
    """
    if unknown:
        refuse_keywords(linear_cross_entropy_with_grad, unknown)
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_linear(
        options,
        hidden,
        classifier,
        targets,
        bias=bias,
        class_weight=class_weight,
        sample_weight=sample_weight,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    return linear_loss_and_gradients(call, wrt=wrt, grad_output=grad_output, out=out)
