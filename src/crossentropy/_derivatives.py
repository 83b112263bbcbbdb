"""Further derivatives of the loss: the second with respect to the logits, the first with respect to the targets.

The core computes the Hessian's diagonal. The others are computed here in float64 and rounded once to the logits' dtype.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple, Never, Unpack, overload

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Logits, as_array, as_logits, empty, rounds_to_nearest
from ._call import check_options, loss_and_gradient, prepare
from ._curvature import Curvature, focal_factor
from ._keywords import refuse_keywords, teaches_keywords
from ._options import GivenOptions, LossOptions, Reduction, loss_options
from ._softmax import as_vector, centred, log_softmax, probabilities, scaled
from ._targets import Targets, TopKTargets, as_targets
from ._terms import RowTerms, RowWeights, coefficient_sum, row_terms, row_weights


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
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Multiply the Hessian of the loss with respect to the logits by a vector.

    Parameters
    ----------
    logits, targets, axis, class_weight, sample_weight
        As for `cross_entropy`.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction
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
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    z = as_logits(logits, axis)
    of = _second_order(options, z, targets, class_weight, sample_weight)
    terms = of.terms
    v = np.moveaxis(as_vector(v, z.given), z.axis, -1)
    x = terms.slope * v
    around_mean, mean = centred(terms.p, x)
    hessian_u = of.a * terms.p * around_mean + of.z_curvature * mean * terms.p + of.more.times(x)
    return _reduced(terms.slope * hessian_u + of.du * terms.curvature * v, options, of.weights, z)


class _SecondOrder(NamedTuple):
    """What the Hessian of the rows' losses is made of. The classes are last."""

    terms: RowTerms
    weights: RowWeights
    a: Array  # the Hessian in u is a (diag p - p p^T) + z_curvature p p^T + more
    z_curvature: Array
    more: Curvature
    du: Array  # the gradient in u


def _second_order(
    options: LossOptions,
    z: Logits,
    targets: npt.ArrayLike | TopKTargets,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> _SecondOrder:
    t = as_targets(targets, z, options.ignore_index, sample_weight)
    check_options(options, t, class_weight)
    weights = row_weights(options, z, t, class_weight, sample_weight)
    targets = _classes_last(targets, t, z)
    B = coefficient_sum(_weighted_sum(targets, weights), weights.w, options.label_smoothing)
    terms = row_terms(options, np.moveaxis(z.given, z.axis, -1).astype(np.float64), weights.omega, B)
    indices = rest = None
    if options.focal_gamma:
        assert t.indices is not None
        indices = np.where(weights.s != 0, t.indices, 0)
        terms = terms._replace(a=terms.a + B * (focal_factor(options, terms.u, indices) - 1))
        B = B * focal_factor(options, terms.u, indices)
    if t.remainder is not None:
        assert t.sparse_indices is not None
        shared = np.ones((z.rows, z.classes + 1), bool)  # one more for slots that are empty
        np.put_along_axis(shared, t.sparse_indices, False, -1)
        rest = t.remainder.reshape(z.row_shape), shared[:, :-1].reshape(terms.u.shape)
    # A z-loss of weight 0 adds nothing, even where lse is infinite.
    a = np.where(terms.z_curvature == 0, B, terms.a)[..., None]
    more = Curvature(options, terms, weights.omega, indices, rest)
    return _SecondOrder(
        terms, weights, a, terms.z_curvature[..., None], more, _gradient_of_u(options, terms.u, targets, weights)
    )


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
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
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
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction
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
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare(options, logits, targets, axis=axis, class_weight=class_weight, sample_weight=sample_weight)
    if options.entropy_bonus or options.focal_gamma or call.targets.remainder is not None:
        return *loss_and_gradient(call), _diagonal(options, call.logits, targets, class_weight, sample_weight)
    diagonal = empty(call.logits.shape, call.logits.data.dtype)
    return *loss_and_gradient(call, diagonal=diagonal), diagonal


@rounds_to_nearest
def _diagonal(
    options: LossOptions,
    z: Logits,
    targets: npt.ArrayLike | TopKTargets,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> Array:
    """The diagonal of the Hessian where the core does not compute it."""
    of = _second_order(options, z, targets, class_weight, sample_weight)
    p, complement = probabilities(of.terms.u)
    hessian_u = of.a * p * complement + of.z_curvature * p * p + of.more.diagonal()
    rows = of.terms.slope**2 * hessian_u + of.du * of.terms.curvature
    return _reduced(rows, options, of.weights, z)


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
        raise TypeError(
            f"targets: expected probabilities of shape {z.shape}, got class indices: np.eye(C)[targets] would do"
        )
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
        # What is left of a NaN would be refused as a mass; the probability itself makes its row NaN.
        mass = None if t.remainder is None else np.where(np.isfinite(t.remainder), t.remainder, 0.0)
        remainder = "ignore" if mass is None else mass.reshape(logits.row_shape)
        return TopKTargets(t.sparse_indices.reshape(shape), t.probabilities.reshape(shape), remainder=remainder)
    return np.moveaxis(as_array("targets", targets), logits.axis, -1).astype(np.float64)


def _weighted_sum(targets: Array | TopKTargets, weights: RowWeights) -> Array:
    """The sum of w q over the classes, one number a row."""
    w = weights.w
    if isinstance(targets, TopKTargets):
        total: Array = (np.asarray(targets.probabilities) * w[np.asarray(targets.indices)]).sum(-1)
        if not isinstance(targets.remainder, str):
            total = total + np.asarray(targets.remainder)
    elif targets.ndim == weights.s.ndim:  # class indices
        total = weights.omega
    else:
        total = np.where(w == 0, 0.0, targets * w).sum(-1)
    return total


def _gradient_of_u(options: LossOptions, u: Array, targets: Array | TopKTargets, weights: RowWeights) -> Array:
    """The gradient of each row's loss with respect to u, before the sample weight."""
    ignored = -1 if isinstance(targets, TopKTargets) else options.ignore_index  # its empty slots
    unscaled = replace(options, ignore_index=ignored, softcap=math.inf, temperature=1.0, reduction="sum")
    has_remainder = isinstance(targets, TopKTargets) and not isinstance(targets.remainder, str)
    counted = (weights.s != 0).astype(np.float64)
    call = prepare(unscaled, u, targets, class_weight=None if has_remainder else weights.w, sample_weight=counted)
    return loss_and_gradient(call)[1]


def _reduced(rows: Array, options: LossOptions, weights: RowWeights, logits: Logits) -> Array:
    """Derivatives of each row's loss as those of the reduced loss, in the shape and dtype of the logits."""
    total = float(weights.in_mean.sum()) if options.reduction == "mean" else 1.0
    scale = (weights.s / total if total else np.zeros_like(weights.s))[..., None]
    reduced = np.where(scale != 0, scale * rows, 0.0)
    return np.ascontiguousarray(np.moveaxis(reduced, -1, logits.axis), logits.data.dtype)
