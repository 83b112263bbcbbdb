"""PyTorch: the same loss for its tensors, in place of its own functions and modules."""

from ._binary import BCEWithLogitsLoss, binary_cross_entropy_with_logits
from ._functional import cross_entropy, linear_cross_entropy
from ._modules import CrossEntropyLoss, LinearCrossEntropyLoss

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "linear_cross_entropy",
]
