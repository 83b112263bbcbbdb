"""PyTorch across processes: classes that are split among them, rows that are, or both."""

from ._divergence import vocab_parallel_kl_divergence
from ._functional import vocab_parallel_cross_entropy
from ._functional_log_prob import vocab_parallel_log_prob
from ._linear import vocab_parallel_linear_cross_entropy
from ._linear_divergence import vocab_parallel_linear_kl_divergence
from ._linear_log_prob import vocab_parallel_linear_log_prob
from ._linear_module import VocabParallelLinearCrossEntropyLoss
from ._loss_parallel import loss_parallel
from ._modules import VocabParallelCrossEntropyLoss
from ._num_items import num_items

__all__ = [
    "VocabParallelCrossEntropyLoss",
    "VocabParallelLinearCrossEntropyLoss",
    "loss_parallel",
    "num_items",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_kl_divergence",
    "vocab_parallel_linear_cross_entropy",
    "vocab_parallel_linear_kl_divergence",
    "vocab_parallel_linear_log_prob",
    "vocab_parallel_log_prob",
]
