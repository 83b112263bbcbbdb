"""Further derivatives of the loss: the second, and that with respect to its targets.

Computed in float64 from what the core returns, and rounded once to the logits' dtype.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_logits, as_weights, rounds_to_nearest
from ._call import loss_and_gradient, prepare, total_weight
from ._options import LossOptions, Reduction, loss_options
from ._softmax import centred, log_softmax, logsumexp, probabilities, scaled, vector
from ._targets import TopKTargets, as_targets


@rounds_to_nearest
def cross_entropy_hvp(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    v: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Multiply the Hessian of the loss with respect to the logits by a vector.

    Parameters
    ----------
    logits, targets, axis, class_weight, sample_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, \
    reduction
        As for `cross_entropy`; 'none' gives each row the Hessian of its own loss.
    v : array_like of the logits' shape

    Returns
    -------
    ndarray
        Of the logits' shape and dtype. Rows that do not count are zero.

    Notes
    -----
    With :math:`x = u' \circ v` and :math:`\pi = p \cdot x` a row of the result is
    :math:`u' \circ [a\, p \circ (x - \pi) + 2 \zeta \omega \pi p] + (\partial \ell / \partial u) \circ u'' \circ v`,
    :math:`a = B + 2 \zeta \omega\, \mathrm{lse}` as in the gradient.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.cross_entropy_hvp([[2.0, 1.0, 0.1]], [1], [[1.0, 0.0, 0.0]]).round(4)
    array([[ 0.2247, -0.1598, -0.065 ]])
    """
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    rows = _rows(options, logits, targets, axis, class_weight, sample_weight)
    v = rows.last(vector(v, rows.given))
    with np.errstate(all="ignore"):
        around_mean, mean = centred(rows.p, rows.slope * v)
        hessian_u = rows.a * rows.p * around_mean + rows.tail * mean * rows.p
        return rows.result(rows.slope * hessian_u + rows.du * rows.curvature * v)


def cross_entropy_hessian_diagonal(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> tuple[float | Array, Array, Array]:
    r"""Compute the loss, its gradient and the diagonal of its Hessian with respect to the logits.

    What gradient boosting needs of a loss.

    Parameters
    ----------
    logits, targets, axis, class_weight, sample_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, \
    reduction
        As for `cross_entropy`; 'none' gives each row the diagonal of its own loss's Hessian.

    Returns
    -------
    loss, dlogits
        As `cross_entropy_with_grad` returns them.
    diagonal : ndarray
        Of the logits' shape and dtype. Rows that do not count are zero.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, dlogits, diagonal = ce.cross_entropy_hessian_diagonal([[2.0, 1.0, 0.1]], [1])
    >>> diagonal.round(4)
    array([[0.2247, 0.1837, 0.0889]])
    """
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare(options, logits, targets, axis=axis, class_weight=class_weight, sample_weight=sample_weight)
    diagonal = np.empty(call.logits.shape, call.logits.data.dtype)
    return *loss_and_gradient(call, diagonal=diagonal), diagonal


@rounds_to_nearest
def cross_entropy_dtargets(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Compute the gradient of the loss with respect to target probabilities.

    For who trains through the targets: a teacher, or a mixture of examples.

    Parameters
    ----------
    logits, axis, class_weight, sample_weight, label_smoothing, softcap, temperature, reduction
        As for `cross_entropy`; 'none' gives each row the gradient of its own loss. The z-loss does not depend on the
        targets.
    targets : array_like of the logits' shape
        Probabilities; the gradient does not depend on them.

    Returns
    -------
    ndarray
        :math:`s\, w_c (1 - \varepsilon)(\mathrm{lse} - u_c)`, over the total weight for 'mean': of the logits' shape
        and dtype. Rows of sample weight 0 are zero; a class of probability 0 has an infinite one.

    Raises
    ------
    TypeError
        The targets are no probabilities.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.cross_entropy_dtargets([[2.0, 1.0, 0.1]], [[0.2, 0.7, 0.1]]).round(4)
    array([[0.417, 1.417, 2.317]])
    """
    options = loss_options(
        ignore_index=None,
        label_smoothing=label_smoothing,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    given = as_logits(logits, axis)
    if as_targets(targets, given, None).probabilities is None:
        raise TypeError(f"targets: expected probabilities of shape {given.shape}, got class indices")
    rows = _rows(options, logits, targets, axis, class_weight, sample_weight)
    w = 1.0 if class_weight is None else as_weights("class_weight", class_weight, (given.classes,))
    with np.errstate(all="ignore"):
        distance = -log_softmax(rows.u)
        return rows.result(np.where(w == 0, 0.0, w * (1 - label_smoothing) * distance))


class _Rows(NamedTuple):
    """What derivatives of a loss are made of: float64, the classes last, one number a row with a last axis of one."""

    given: Array
    axis: int
    dtype: np.dtype[np.generic]
    u: Array
    slope: Array  # du/dz
    curvature: Array  # its derivative
    p: Array
    a: Array  # B + 2 zeta omega lse
    tail: Array  # 2 zeta omega
    du: Array  # the gradient of a row's loss with respect to u
    scale: Array  # of the row in the reduced loss; 0 where it does not count

    def last(self, array: Array) -> Array:
        return np.moveaxis(array, self.axis, -1)

    def result(self, rows: Array) -> Array:
        scaled = np.where(self.scale > 0, self.scale * rows, 0.0)
        return np.ascontiguousarray(np.moveaxis(scaled, -1, self.axis), self.dtype)


def _rows(
    options: LossOptions,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    axis: int,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> _Rows:
    given = as_logits(logits, axis)
    t = as_targets(targets, given, options.ignore_index)
    C, axis = given.classes, given.axis
    w = np.ones(C) if class_weight is None else as_weights("class_weight", class_weight, (C,))
    s = np.ones(given.row_shape)
    if sample_weight is not None:
        s = as_weights("sample_weight", sample_weight, given.row_shape).copy()
    omega = np.ones(given.row_shape)
    if t.indices is not None:
        if options.ignore_index is not None:
            s[t.indices == options.ignore_index] = 0
        total_weight(options, given, t, None, s)  # an index out of range raises
        omega = w[np.where(s > 0, t.indices, 0)]
        targets, mass = t.indices, omega
    elif isinstance(targets, TopKTargets):
        assert t.sparse_indices is not None
        assert t.probabilities is not None
        if t.ignored is not None:
            s[t.ignored] = 0
        mass = (t.probabilities * w[t.sparse_indices]).sum(-1).reshape(given.row_shape)
        shape = (*given.row_shape, t.sparse_indices.shape[-1])
        targets = TopKTargets(t.sparse_indices.reshape(shape), t.probabilities.reshape(shape))
    else:
        targets = np.moveaxis(as_array("targets", targets), axis, -1).astype(np.float64)
        mass = np.where(w == 0, 0.0, targets * w).sum(-1)
    smoothing = options.label_smoothing
    B = (1 - smoothing) * mass + smoothing * w.mean()

    A = np.moveaxis(given.given, axis, -1).astype(np.float64)
    with np.errstate(all="ignore"):
        u, slope, curvature = scaled(A, options)
        p = probabilities(u)[0]
        tail = 2 * options.z_loss * omega
        a = B + np.where(tail == 0, 0.0, tail * logsumexp(u))
        plain = replace(options, softcap=math.inf, temperature=1.0, reduction="sum")
        call = prepare(plain, u, targets, class_weight=w, sample_weight=(s > 0).astype(np.float64))
        du = loss_and_gradient(call)[1]
    total = float((s * omega).sum()) if options.reduction == "mean" else 1.0
    scale = s / total if total else np.zeros_like(s)
    column = (..., None)
    return _Rows(
        given.given, axis, given.data.dtype, u, slope, curvature, p, a[column], tail[column], du, scale[column]
    )
