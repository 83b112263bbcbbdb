"""A linear head whose classes are split, with its loss, as a module."""

import torch
from torch import Tensor

from ..._options import Reduction
from ._functional import Group
from ._group import ranks_of
from ._linear import vocab_parallel_linear_cross_entropy


class VocabParallelLinearCrossEntropyLoss(torch.nn.Module):
    """A rank's rows of a classifier, and `vocab_parallel_linear_cross_entropy`, as a module.

    Parameters
    ----------
    in_features, num_classes, bias, device, dtype
        Of the whole classifier. Its rows are split evenly in the order of ranks, as by `Tensor.tensor_split`: `linear`
        has those of this rank.
    weight : Tensor of shape (C_r,), optional
        Weights of this rank's classes.
    sequence_parallel, reduction, ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma
        As for `vocab_parallel_linear_cross_entropy`.
    softcap, temperature, group, check
        As for `vocab_parallel_linear_cross_entropy`.

    Examples
    --------
    Of one process:

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossentropy.torch.distributed import VocabParallelLinearCrossEntropyLoss
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> criterion = VocabParallelLinearCrossEntropyLoss(16, 1000)
    >>> criterion(torch.zeros(4, 16), torch.tensor([1, 2, 3, 4])).item() - torch.tensor(1000.0).log().item()
    0.0
    >>> dist.destroy_process_group()
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        sequence_parallel: bool = False,
        reduction: Reduction = "mean",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        entropy_bonus: float = 0.0,
        focal_gamma: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        group: Group = None,
        check: bool = __debug__,
    ) -> None:
        super().__init__()
        ranks = ranks_of(group)
        if num_classes < ranks.count:
            raise ValueError(f"num_classes: expected at least one for each of {ranks.count} ranks, got {num_classes}")
        size = num_classes // ranks.count + (ranks.rank < num_classes % ranks.count)
        self.linear = torch.nn.Linear(in_features, size, bias, device, dtype)
        self.register_buffer("weight", weight)
        self.sequence_parallel = sequence_parallel
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
        self.z_loss, self.softcap, self.temperature = z_loss, softcap, temperature
        self.entropy_bonus, self.focal_gamma = entropy_bonus, focal_gamma
        self.group, self.check = group, check

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; arguments as for `vocab_parallel_linear_cross_entropy`."""
        return vocab_parallel_linear_cross_entropy(
            input,
            self.linear.weight,
            target,
            linear_bias_shard=self.linear.bias,
            group=self.group,
            sequence_parallel=self.sequence_parallel,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            entropy_bonus=self.entropy_bonus,
            focal_gamma=self.focal_gamma,
            softcap=self.softcap,
            temperature=self.temperature,
            sample_weight=sample_weight,
            num_items=num_items,
            check=self.check,
        )
