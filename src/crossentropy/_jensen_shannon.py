"""The Jensen-Shannon divergence between the predictions of two models, from their logits, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._divergence_call import (
    DivergenceGradients,
    GivenDivergence,
    GivenWithGrad,
    Wrt,
    divergence,
    divergence_and_gradients,
    divergence_options,
    prepare_divergence,
    refuses_targets,
)
from ._options import Reduction


class _GivenJs(GivenDivergence, total=False):
    beta: float


@overload
def jensen_shannon(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenJs],
) -> float: ...
@overload
def jensen_shannon(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenJs],
) -> Array: ...
@refuses_targets
def jensen_shannon(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    beta: float = 0.5,
    axis: int = -1,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
) -> float | Array:
    r"""Compute the Jensen-Shannon divergence between the softmax of two models' logits, in nats.

    With the student :math:`p`, the teacher :math:`q` and their mixture :math:`m = \beta q + (1 - \beta) p` it is
    :math:`\beta\,\mathrm{KL}(q \| m) + (1 - \beta)\,\mathrm{KL}(p \| m)` [1]_: between 0 and log 2.

    Parameters
    ----------
    logits, teacher_logits
        As for `kl_divergence`.
    beta : float between 0 and 1
        The teacher's part of the mixture. For a small one the divergence is nearly `beta` times the forward KL, for one
        near 1 nearly 1 - `beta` times the reverse KL; at 0 and 1 it is 0, and refused.
    axis, sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads
        As for `kl_divergence`.

    Returns
    -------
    float or ndarray
        As of `kl_divergence`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `kl_divergence`; ValueError also for a `beta` of 0 or 1, or outside.

    See Also
    --------
    jensen_shannon_with_grad : the gradients too.

    Notes
    -----
    Never negative, and exactly 0 for equal logits. The two terms of a class are
    :math:`\beta q\,\psi(m / q - 1) + (1 - \beta) p\,\psi(m / p - 1)` with :math:`\psi(y) = y - \log(1 + y)`, computed
    in float64 for logits of every dtype; within 1e-13 of itself for float64 logits. It stays finite where a class is
    impossible (``-inf``) in one model. A NaN, a ``+inf``, or nothing but ``-inf`` in a row of either makes it NaN.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37(1),
       1991.

    Examples
    --------
    >>> import crossentropy as ce
    >>> round(ce.jensen_shannon([[2.0, 1.0, 0.1]], [[2.5, 0.5, 0.1]]), 12)
    0.017706326323
    """
    options = divergence_options(
        beta=beta, softcap=softcap, teacher_softcap=teacher_softcap, temperature=temperature, reduction=reduction
    )
    call = prepare_divergence(
        options, logits, teacher_logits, axis=axis, sample_weight=sample_weight, num_threads=num_threads
    )
    return divergence(call)


class _GivenJsWithGrad(_GivenJs, GivenWithGrad, total=False):
    pass


@overload
def jensen_shannon_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenJsWithGrad],
) -> tuple[float, DivergenceGradients]: ...
@overload
def jensen_shannon_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenJsWithGrad],
) -> tuple[Array, DivergenceGradients]: ...
@refuses_targets
def jensen_shannon_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    beta: float = 0.5,
    axis: int = -1,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    wrt: Sequence[Wrt] = ("logits",),
    grad_output: npt.ArrayLike = 1.0,
    out: DivergenceGradients | None = None,
) -> tuple[float | Array, DivergenceGradients]:
    r"""Compute the divergence of `jensen_shannon`, in nats, and its gradients with respect to the logits.

    Parameters
    ----------
    logits, teacher_logits, beta, axis, sample_weight, softcap, teacher_softcap, temperature, reduction, num_threads
        As for `jensen_shannon`.
    wrt, grad_output, out
        As for `kl_divergence_with_grad`.

    Returns
    -------
    loss : float or ndarray
        As `jensen_shannon` returns it, the same bits.
    gradients : DivergenceGradients
        Each of the shape and dtype of its logits; None where not asked for. Rows that do not count are zero.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `jensen_shannon`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    The student's gradient is :math:`(1 - \beta) p_c (\sum_k p_k \lambda_k - \lambda_c)` with
    :math:`\lambda = \log (m / p)`; the teacher's has :math:`\beta`, :math:`q` and :math:`\log (m / q)` in its place.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, gradients = ce.jensen_shannon_with_grad([[2.0, 1.0, 0.1]], [[2.5, 0.5, 0.1]])
    >>> gradients.logits.round(6)
    array([[-0.042337,  0.036574,  0.005763]])
    """
    options = divergence_options(
        beta=beta, softcap=softcap, teacher_softcap=teacher_softcap, temperature=temperature, reduction=reduction
    )
    call = prepare_divergence(
        options, logits, teacher_logits, axis=axis, sample_weight=sample_weight, num_threads=num_threads
    )
    return divergence_and_gradients(call, wrt, grad_output, out)
