"""PyTorch across processes: classes that are split among them, rows that are, or both."""

from ._functional import vocab_parallel_cross_entropy, vocab_parallel_log_prob
from ._loss_parallel import loss_parallel
from ._modules import VocabParallelCrossEntropyLoss
from ._num_items import num_items

__all__ = [
    "VocabParallelCrossEntropyLoss",
    "loss_parallel",
    "num_items",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_log_prob",
]
