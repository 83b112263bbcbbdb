"""Classes that are split among the processes of a group: each holds some of the logits of every row."""

from ._divergence import vocab_parallel_kl_divergence
from ._functional import vocab_parallel_cross_entropy, vocab_parallel_log_prob
from ._linear import vocab_parallel_linear_cross_entropy
from ._linear_divergence import vocab_parallel_linear_kl_divergence
from ._linear_log_prob import vocab_parallel_linear_log_prob
from ._linear_module import VocabParallelLinearCrossEntropyLoss
from ._modules import VocabParallelCrossEntropyLoss

__all__ = [
    "VocabParallelCrossEntropyLoss",
    "VocabParallelLinearCrossEntropyLoss",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_kl_divergence",
    "vocab_parallel_linear_cross_entropy",
    "vocab_parallel_linear_kl_divergence",
    "vocab_parallel_linear_log_prob",
    "vocab_parallel_log_prob",
]
