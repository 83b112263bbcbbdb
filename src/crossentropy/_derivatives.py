"""Further derivatives of the loss: the second with respect to the logits, the first with respect to the targets.

The core computes the Hessian's diagonal. The others are computed here in float64 and rounded once to the logits' dtype.
"""

import math
from dataclasses import replace
from typing import Literal, Never, Unpack, overload

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Logits, as_array, as_logits, rounds_to_nearest
from ._call import loss_and_gradient, prepare
from ._keywords import refuse_keywords, teaches_keywords
from ._options import GivenOptions, LossOptions, Reduction, loss_options
from ._softmax import as_vector, centred, log_softmax, scaled
from ._targets import Targets, TopKTargets, as_targets
from ._terms import RowWeights, coefficient_sum, row_terms, row_weights


@teaches_keywords()
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
    logits, targets, axis, class_weight, sample_weight
        As for `cross_entropy`.
    ignore_index, label_smoothing, z_loss, softcap, temperature, reduction
        As for `cross_entropy`; 'none' gives each row the Hessian of its own loss.
    v : array_like of the logits' shape
        The vector, real numbers.

    Returns
    -------
    ndarray
        Of the logits' shape and dtype. Rows that do not count are zero.

    Notes
    -----
    With :math:`x = u' \circ v` and :math:`\pi = p \cdot x` a row of the result is
    :math:`u' \circ [a\, p \circ (x - \pi) + 2 \zeta \omega \pi p] + (\partial \ell / \partial u) \circ u'' \circ v`,
    where :math:`a = B + 2 \zeta \omega\, \mathrm{lse}` as in the gradient.

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
    z = as_logits(logits, axis)
    t = as_targets(targets, z, options.ignore_index, sample_weight)
    weights = row_weights(options, z, t, class_weight, sample_weight)
    v = np.moveaxis(as_vector(v, z.given), z.axis, -1)
    targets = _classes_last(targets, t, z)
    B = coefficient_sum(_weighted_sum(targets, weights), weights.w, options.label_smoothing)
    terms = row_terms(options, np.moveaxis(z.given, z.axis, -1).astype(np.float64), weights.omega, B)
    p, slope = terms.p, terms.slope
    z_curvature = terms.z_curvature[..., None]
    # A z-loss of weight 0 adds nothing, even where lse is infinite.
    a = np.where(z_curvature == 0, B[..., None], terms.a[..., None])
    du = _gradient_of_u(options, terms.u, targets, weights)
    around_mean, mean = centred(p, slope * v)
    hessian_u = a * p * around_mean + z_curvature * mean * p
    return _reduced(slope * hessian_u + du * terms.curvature * v, options, weights, z)


class _Given(GivenOptions, total=False):
    axis: int
    class_weight: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None


@overload
def cross_entropy_hessian_diagonal(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_Given],
) -> tuple[float, Array, Array]: ...
@overload
def cross_entropy_hessian_diagonal(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["none"],
    **options: Unpack[_Given],
) -> tuple[Array, Array, Array]: ...
@teaches_keywords()
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
    **unknown: Never,
) -> tuple[float | Array, Array, Array]:
    r"""Compute the loss, its gradient and the diagonal of its Hessian with respect to the logits.

    These are what gradient boosting needs from a loss.

    Parameters
    ----------
    logits, targets, axis, class_weight, sample_weight
        As for `cross_entropy`.
    ignore_index, label_smoothing, z_loss, softcap, temperature, reduction
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
    if unknown:
        refuse_keywords(cross_entropy_hessian_diagonal, unknown)
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


@teaches_keywords()
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

    For training that changes the targets too: those of a teacher, or of a mixture of examples.

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
        and dtype. Rows of sample weight 0 are zero. The gradient is infinite at a class whose softmax is 0.

    Raises
    ------
    TypeError
        The targets are class indices.

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
    z = as_logits(logits, axis)
    t = as_targets(targets, z, None, sample_weight)
    if t.probabilities is None:
        raise TypeError(f"targets: expected probabilities of shape {z.shape}, got class indices")
    weights = row_weights(options, z, t, class_weight, sample_weight)
    u = scaled(np.moveaxis(z.given, z.axis, -1).astype(np.float64), options)[0]
    w = weights.w
    rows = np.where(w == 0, 0.0, w * (1 - label_smoothing) * -log_softmax(u))
    return _reduced(rows, options, weights, z)


def _classes_last(targets: npt.ArrayLike | TopKTargets, t: Targets, logits: Logits) -> Array | TopKTargets:
    """The targets with the class axis last, probabilities of all classes in float64."""
    if t.indices is not None:
        return t.indices
    if isinstance(targets, TopKTargets):
        assert t.sparse_indices is not None
        assert t.probabilities is not None
        shape = (*logits.row_shape, t.sparse_indices.shape[-1])
        return TopKTargets(t.sparse_indices.reshape(shape), t.probabilities.reshape(shape))
    return np.moveaxis(as_array("targets", targets), logits.axis, -1).astype(np.float64)


def _weighted_sum(targets: Array | TopKTargets, weights: RowWeights) -> Array:
    """The sum of w q over the classes, one number a row."""
    w = weights.w
    if isinstance(targets, TopKTargets):
        total: Array = (np.asarray(targets.probabilities) * w[np.asarray(targets.indices)]).sum(-1)
    elif targets.ndim == weights.s.ndim:  # class indices
        total = weights.omega
    else:
        total = np.where(w == 0, 0.0, targets * w).sum(-1)
    return total


def _gradient_of_u(options: LossOptions, u: Array, targets: Array | TopKTargets, weights: RowWeights) -> Array:
    """The gradient of each row's loss with respect to u, before the sample weight."""
    unscaled = replace(options, softcap=math.inf, temperature=1.0, reduction="sum")
    counted = (weights.s != 0).astype(np.float64)
    return loss_and_gradient(prepare(unscaled, u, targets, class_weight=weights.w, sample_weight=counted))[1]


def _reduced(rows: Array, options: LossOptions, weights: RowWeights, logits: Logits) -> Array:
    """Derivatives of each row's loss as those of the reduced loss, in the shape and dtype of the logits."""
    total = float(weights.in_mean.sum()) if options.reduction == "mean" else 1.0
    scale = (weights.s / total if total else np.zeros_like(weights.s))[..., None]
    reduced = np.where(scale != 0, scale * rows, 0.0)
    return np.ascontiguousarray(np.moveaxis(reduced, -1, logits.axis), logits.data.dtype)
