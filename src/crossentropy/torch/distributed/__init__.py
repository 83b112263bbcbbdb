"""Classes that are split among the processes of a group: each holds some of the logits of every row."""

from ._functional import vocab_parallel_cross_entropy
from ._functional_log_prob import vocab_parallel_log_prob
from ._modules import VocabParallelCrossEntropyLoss

__all__ = ["VocabParallelCrossEntropyLoss", "vocab_parallel_cross_entropy", "vocab_parallel_log_prob"]
