"""PyTorch: the same loss for its tensors, in place of its own functions and modules."""

from ._functional import cross_entropy, linear_cross_entropy
from ._modules import CrossEntropyLoss, LinearCrossEntropyLoss

__all__ = ["CrossEntropyLoss", "LinearCrossEntropyLoss", "cross_entropy", "linear_cross_entropy"]
