"""JAX: the same losses for its arrays, and in place of optax's."""

from ._binary import binary_cross_entropy, sigmoid_binary_cross_entropy, sigmoid_focal_loss
from ._divergence import jensen_shannon, kl_divergence
from ._functional import cross_entropy, softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from ._linear import linear_cross_entropy
from ._linear_divergence import linear_jensen_shannon, linear_kl_divergence
from ._log_prob import linear_log_prob, log_prob
from ._vocab_parallel import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "jensen_shannon",
    "kl_divergence",
    "linear_cross_entropy",
    "linear_jensen_shannon",
    "linear_kl_divergence",
    "linear_log_prob",
    "log_prob",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]
