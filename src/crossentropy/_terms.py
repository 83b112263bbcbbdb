"""The terms of a row's loss in float64, shared by its further derivatives and its explanation.

The letters are those of the definition in `_reference.py`, which does not use this module.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Logits, as_weights
from ._call import require_mean, total_weight
from ._options import LossOptions
from ._softmax import logsumexp, scaled, softmax
from ._targets import Targets


class RowWeights(NamedTuple):
    """The weights of classes and rows; arrays of one number a row have the shape of the rows."""

    w: Array  # of each class
    s: Array  # of each row; 0 where it does not count
    omega: Array  # the class weight of each row's target; 1 for probabilities

    @property
    def in_mean(self) -> Array:
        """What each row adds to the total weight that the mean divides by."""
        product: Array = self.s * self.omega
        return product


def row_weights(
    options: LossOptions,
    logits: Logits,
    targets: Targets,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> RowWeights:
    """Check the weights, and the class indices: one out of range raises IndexError."""
    C, row_shape = logits.classes, logits.row_shape
    w = np.ones(C) if class_weight is None else as_weights("class_weight", class_weight, (C,))
    s = np.ones(row_shape)
    if sample_weight is not None:
        s = as_weights("sample_weight", sample_weight, row_shape).copy()
    if targets.ignored is not None:
        s[targets.ignored] = 0
    if options.reduction == "mean":
        require_mean(targets, w, s)
    if targets.indices is None:
        return RowWeights(w, s, np.ones(row_shape))
    total_weight(options, logits, targets)  # for its IndexError
    if options.ignore_index is not None:
        s[targets.indices == options.ignore_index] = 0
    return RowWeights(w, s, w[np.where(s != 0, targets.indices, 0)])


class Coefficients(NamedTuple):
    """The coefficients of each row and class in the loss."""

    smoothed: Array  # the targets after label smoothing
    b: Array  # and times the class weights
    B: Array  # the sum of b over the classes


def coefficients(q: Array, w: Array, counted: Array, smoothing: float) -> Coefficients:
    """Smooth and weight the target distributions `q`; rows that do not count become 0."""
    smoothed = np.where(counted[:, None], (1 - smoothing) * q + smoothing / q.shape[1], 0.0)
    b = w * smoothed
    return Coefficients(smoothed, b, b.sum(-1))


def coefficient_sum(weighted_targets: Array, w: Array, smoothing: float) -> Array:
    """B without making b, from the sum of w q over the classes. Rounded differently than the sum of b."""
    total: Array = (1 - smoothing) * weighted_targets + smoothing * w.mean()
    return total


class RowTerms(NamedTuple):
    """What loss and derivatives are computed from. The classes are last; a, lse, z_curvature are one number a row."""

    u: Array  # the logits after soft cap and temperature
    slope: Array  # du/dz
    curvature: Array  # its derivative
    p: Array  # the softmax of u
    lse: Array  # the log-sum-exp of u
    a: Array  # what the softmax is multiplied by in the gradient
    z_curvature: Array  # the second derivative of the z-loss with respect to lse


def row_terms(options: LossOptions, logits: Array, omega: Array, B: Array) -> RowTerms:
    """Compute the terms of float64 logits, given the class weight of each row's target and the sum of its b."""
    u, slope, curvature = scaled(logits, options)
    lse = np.asarray(logsumexp(u))
    z_curvature = 2 * options.z_loss * omega
    z_term = z_curvature * lse if options.z_loss > 0 else np.zeros_like(lse)
    return RowTerms(u, slope, curvature, softmax(u), lse, B + z_term, z_curvature)
