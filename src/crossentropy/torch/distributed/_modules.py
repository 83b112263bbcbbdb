"""The loss over split classes as a module."""

import torch
from torch import Tensor

from ..._options import Reduction
from ._functional import Group, vocab_parallel_cross_entropy


class VocabParallelCrossEntropyLoss(torch.nn.Module):
    """`vocab_parallel_cross_entropy` as a module.

    Parameters
    ----------
    weight : Tensor of shape (C_r,), optional
        Weights of this rank's classes.
    ignore_index, reduction, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `vocab_parallel_cross_entropy`.
    group, class_offset, check
        As for `vocab_parallel_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch.distributed import VocabParallelCrossEntropyLoss
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> criterion = VocabParallelCrossEntropyLoss(label_smoothing=0.1)
    >>> criterion(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([0]))
    tensor(0.5137)
    >>> torch.distributed.destroy_process_group()
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        entropy_bonus: float = 0.0,
        focal_gamma: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        group: Group = None,
        class_offset: int | None = None,
        check: bool = __debug__,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
        self.z_loss, self.softcap, self.temperature = z_loss, softcap, temperature
        self.entropy_bonus, self.focal_gamma = entropy_bonus, focal_gamma
        self.group, self.class_offset, self.check = group, class_offset, check

    def forward(
        self,
        input_shard: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; arguments as for `vocab_parallel_cross_entropy`."""
        return vocab_parallel_cross_entropy(
            input_shard,
            target,
            group=self.group,
            class_offset=self.class_offset,
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
