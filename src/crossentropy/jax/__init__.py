"""JAX: the same loss for its arrays, and in place of optax's."""

from ._divergence import jensen_shannon, kl_divergence
from ._functional import cross_entropy, softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from ._linear import linear_cross_entropy
from ._linear_divergence import linear_jensen_shannon, linear_kl_divergence
from ._log_prob import linear_log_prob, log_prob

__all__ = [
    "cross_entropy",
    "jensen_shannon",
    "kl_divergence",
    "linear_cross_entropy",
    "linear_jensen_shannon",
    "linear_kl_divergence",
    "linear_log_prob",
    "log_prob",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]
