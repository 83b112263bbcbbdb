"""PyTorch: the same loss for its tensors, in place of its own functions and modules; and the family around it."""

from ._binary import BCEWithLogitsLoss, binary_cross_entropy_with_logits
from ._divergence import jensen_shannon, kl_divergence
from ._functional import cross_entropy, linear_cross_entropy
from ._linear_divergence import linear_jensen_shannon, linear_kl_divergence
from ._linear_log_prob import linear_log_prob
from ._log_prob import log_prob
from ._modules import CrossEntropyLoss, LinearCrossEntropyLoss

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "jensen_shannon",
    "kl_divergence",
    "linear_cross_entropy",
    "linear_jensen_shannon",
    "linear_kl_divergence",
    "linear_log_prob",
    "log_prob",
]
