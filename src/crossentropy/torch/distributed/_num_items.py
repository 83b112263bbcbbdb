"""What the mean divides by where ranks have different rows, and their gradients are averaged."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from ..._options import loss_options
from .. import _composed
from .._arguments import check_range, check_weights
from .._kernel import INTEGERS, WEIGHT_TYPES, TargetTensors, as_weights, is_distributed, is_memory
from ._functional import Group
from ._group import ranks_of
from ._row_ranks import RowRanks


def num_items(
    target: Tensor,
    group: Group = None,
    *,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Count the items of all ranks, over the number of ranks: `num_items` for a loss whose gradients are averaged.

    Every rank of the group calls it. `torch.nn.parallel.DistributedDataParallel` and fully sharded data parallelism
    average the gradients of their ranks: with this divisor the average is the gradient of the mean over all ranks'
    items, however many each has.

    Parameters
    ----------
    target : Tensor of integers
        Class indices of this rank's rows, of any shape.
    group : ProcessGroup or DeviceMesh, optional
        The ranks whose gradients are averaged; all of them where it is not given. Where torch.distributed is not
        initialized, this process alone.
    ignore_index : int
        Rows with this class index do not count.
    weight : Tensor of shape (C,), optional
        A weight for each class: the items' weights are added, as the mean adds them.
    sample_weight : Tensor of the target's shape, optional
        A weight for each row.

    Returns
    -------
    Tensor
        A float64 scalar on the target's device, the same bits on every rank. 0 where nothing counts: the loss is 0
        then. NaN where weights of both signs add up to 0.

    Raises
    ------
    TypeError, ValueError, IndexError
        An argument is not what it should be, on this rank or another.

    Examples
    --------
    Gradients that are accumulated over parts of a batch have one divisor: count first, over all parts.

    >>> import torch
    >>> from crossentropy.torch import cross_entropy
    >>> from crossentropy.torch.distributed import num_items
    >>> model = torch.nn.Linear(4, 3)
    >>> parts = [(torch.ones(2, 4), torch.tensor([0, 2])), (torch.ones(2, 4), torch.tensor([1, -100]))]
    >>> items = sum(num_items(target) for _, target in parts)
    >>> items
    tensor(3., dtype=torch.float64)
    >>> for input, target in parts:
    ...     cross_entropy(model(input), target, num_items=items).backward()
    """
    options = loss_options(ignore_index=ignore_index)
    groups, count = [], 1
    if dist.is_available() and dist.is_initialized():
        count = ranks_of(group).count  # which refuses a group without this rank
        groups = [group.get_group() if isinstance(group, DeviceMesh) else group]
    ranks = RowRanks(groups, target.device if isinstance(target, Tensor) else torch.device("cpu"))

    def own() -> Tensor:
        if not isinstance(target, Tensor) or is_distributed(target) or target.dtype not in INTEGERS:
            got = target.dtype if type(target) is Tensor else type(target).__name__
            raise TypeError(f"target: expected a tensor of class indices (integers), this rank's own, got {got}")
        if weight is not None and (weight.dim() != 1 or weight.dtype not in WEIGHT_TYPES):
            raise ValueError(
                f"weight: expected real numbers of shape (C,), got {tuple(weight.shape)} of {weight.dtype}"
            )
        check_weights(target.shape, None, sample_weight)
        for name, tensor in (("weight", weight), ("sample_weight", sample_weight)):
            if tensor is not None and is_memory(tensor):
                as_weights(name, tensor.detach())
        if weight is not None:
            check_range(torch.Size((1, weight.numel())), target, options.ignore_index)
        logits = torch.empty_like(target, dtype=torch.float32).unsqueeze(min(1, target.dim()))  # of one class
        total, counts = _composed.total_weight(options, logits, TargetTensors(target, weight, sample_weight))
        return torch.stack([total, counts.to(total.dtype)])

    with torch.no_grad():
        items = _composed.divisor_of(*ranks.add(ranks.do(own), 2))
        return items / count
