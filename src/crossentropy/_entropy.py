"""The entropy of the prediction and its gradient."""

from __future__ import annotations

from typing import Literal, Never, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_logits, as_weights
from ._call import Call, loss, loss_and_gradient, require_mean
from ._config import resolve_threads
from ._keywords import refuse_keywords, teaches_keywords
from ._options import Reduction, loss_options
from ._targets import Targets

_REASONS = {
    "targets": "the entropy is that of the prediction; that of targets and prediction is cross_entropy",
    "ignore_index": "there are no targets; rows of sample_weight 0 do not count",
}


class _Given(TypedDict, total=False):
    axis: int
    sample_weight: npt.ArrayLike | None
    softcap: float | None
    temperature: float
    num_threads: int | None


@overload
def entropy(logits: npt.ArrayLike, *, reduction: Literal["none"] = "none", **options: Unpack[_Given]) -> Array: ...
@overload
def entropy(logits: npt.ArrayLike, *, reduction: Literal["mean", "sum"], **options: Unpack[_Given]) -> float: ...
@teaches_keywords(**_REASONS)
def entropy(
    logits: npt.ArrayLike,
    *,
    axis: int = -1,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "none",
    num_threads: int | None = None,
    **unknown: Never,
) -> float | Array:
    r"""Compute the entropy of the softmax of logits, in nats.

    Parameters
    ----------
    logits, axis, softcap, temperature, num_threads
        As for `cross_entropy`.
    sample_weight : array_like of the logits' shape without the class axis, optional
        A weight for each row, as for `cross_entropy`. A row of weight 0 does not count, whatever it holds.
    reduction : {'none', 'mean', 'sum'}
        'none': one entropy a row, times its weight. 'mean' divides their sum by the sum of the weights.

    Returns
    -------
    ndarray or float
        For 'none' one number a row, float64 for float64 logits, else float32; for logits of shape (C,) a NumPy scalar.
        For 'mean' and 'sum' a float.

    Raises
    ------
    TypeError, ValueError
        As for `cross_entropy`.

    See Also
    --------
    log_prob_and_entropy : with the log-probabilities of chosen classes, in one pass.

    Notes
    -----
    With :math:`m` the largest logit and :math:`r` the sum of :math:`\exp(z_c - m)` over every class but one that
    attains it, :math:`H = \log(1 + r) + \sum_c p_c (m - z_c)`: no term is negative, so none cancels. Within 4 ULP; 0
    only where every other probability is.

    References
    ----------
    C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27, 1948.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.entropy([[2.0, 1.0, 0.1], [0.0, 0.0, 0.0]]).round(6)
    array([0.846738, 1.098612])
    >>> ce.entropy([60.0, 0.0])
    np.float64(5.3414715652448765e-25)
    """
    if unknown:
        refuse_keywords(entropy, unknown)
    return loss(_prepare(logits, axis, sample_weight, softcap, temperature, reduction, num_threads))


class _GivenWithGrad(_Given, total=False):
    grad_output: npt.ArrayLike
    out: Array | None


@overload
def entropy_with_grad(
    logits: npt.ArrayLike, *, reduction: Literal["none"] = "none", **options: Unpack[_GivenWithGrad]
) -> tuple[Array, Array]: ...
@overload
def entropy_with_grad(
    logits: npt.ArrayLike, *, reduction: Literal["mean", "sum"], **options: Unpack[_GivenWithGrad]
) -> tuple[float, Array]: ...
@teaches_keywords(**_REASONS)
def entropy_with_grad(
    logits: npt.ArrayLike,
    *,
    axis: int = -1,
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "none",
    num_threads: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
    **unknown: Never,
) -> tuple[float | Array, Array]:
    r"""Compute the entropy of the softmax of logits, in nats, and its gradient with respect to the logits.

    Parameters
    ----------
    logits, axis, sample_weight, softcap, temperature, reduction, num_threads
        As for `entropy`.
    grad_output, out
        As for `cross_entropy_with_grad`.

    Returns
    -------
    entropy : ndarray or float
        As `entropy` returns it.
    dlogits : ndarray
        :math:`p \circ ((m - z) - A)` with :math:`A = \sum_c p_c (m - z_c)`, of the logits' shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As for `entropy`; also for an `out` that does not fit.

    Examples
    --------
    >>> import crossentropy as ce
    >>> H, dlogits = ce.entropy_with_grad([[2.0, 1.0, 0.1]])
    >>> dlogits.round(4)
    array([[-0.2832,  0.1383,  0.1449]])
    """
    if unknown:
        refuse_keywords(entropy_with_grad, unknown)
    call = _prepare(logits, axis, sample_weight, softcap, temperature, reduction, num_threads)
    return loss_and_gradient(call, grad_output, out)


def _prepare(
    logits: npt.ArrayLike,
    axis: int,
    sample_weight: npt.ArrayLike | None,
    softcap: float | None,
    temperature: float,
    reduction: Reduction,
    num_threads: int | None,
) -> Call:
    """The entropy as a loss: no target, and an entropy bonus of minus 1."""
    options = loss_options(entropy_bonus=-1.0, softcap=softcap, temperature=temperature, reduction=reduction)
    z = as_logits(logits, axis)
    targets = Targets(sparse_indices=np.empty(1, np.int64))  # 0 classes of each row
    s = None if sample_weight is None else as_weights("sample_weight", sample_weight, z.row_shape)
    if reduction == "mean":
        require_mean(targets, None, s)
    return Call(options, z, targets, None, s, resolve_threads(num_threads), (sample_weight,))
