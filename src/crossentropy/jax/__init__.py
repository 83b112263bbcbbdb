"""JAX: the same loss for its arrays, and in place of optax's."""

from ._binary import binary_cross_entropy, sigmoid_binary_cross_entropy, sigmoid_focal_loss
from ._functional import cross_entropy, softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from ._linear import linear_cross_entropy

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "linear_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]
