"""The loss of a linear head whose classes are split among processes, as it is called."""

import torch
from torch import Tensor

from ..._options import LossOptions, Reduction, loss_options
from .._kernel import TargetTensors, row_dtype
from .._loss_operator import as_items
from . import _linear_operator
from ._arguments import check_targets, flat_targets, told_of
from ._functional import Group, divisor_given
from ._group import attempt, ranks_of, shard_of
from ._linear_arguments import (
    bad_index,
    check_split_head,
    logits_shape,
    rows_of_ranks,
    split_tensors,
    told_of_head,
    waited,
)
from ._linear_head import SplitHead
from ._linear_loss import NAME, head_loss


def vocab_parallel_linear_cross_entropy(
    input: Tensor,
    weight_shard: Tensor,
    target: Tensor,
    *,
    linear_bias_shard: Tensor | None = None,
    group: Group = None,
    class_offset: int | None = None,
    sequence_parallel: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    num_items: float | Tensor | None = None,
    check: bool = __debug__,
) -> Tensor:
    r"""Compute `linear_cross_entropy` where each process of a group has the classifier's rows of some classes.

    The logits of a rank's classes are made a chunk of rows at a time and never held all at once, nor is their gradient.
    Every rank gets the loss of all classes, with the same bits.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (D,) or (N, D)
        Hidden states, the same on every rank; with `sequence_parallel` (N_r, D), the rank's own rows of them.
    weight_shard : Tensor of shape (C_r, D)
        The classifier's rows of this rank's classes. A rank may have any number of them, also none.
    target : Tensor
        Class indices of shape () or (N,), which count all classes, the same on every rank; or probabilities of this
        rank's classes, of shape (C_r,) or (N, C_r). Of all N rows, also with `sequence_parallel`.
    linear_bias_shard : Tensor of shape (C_r,), optional
        Added to the logits.
    group, class_offset, check
        As for `vocab_parallel_cross_entropy`; but the header of `check` is sent in any case.
    sequence_parallel : bool
        Whether the rows of the hidden states are split too: each rank has some, as many as it likes, which follow each
        other in the order of ranks. They are gathered a chunk at a time, and their gradients stop after the sum over
        ranks: each rank keeps those of its own rows.
    weight : Tensor of shape (C_r,), optional
        A weight for each of this rank's classes; every rank gives one, or none does.
    ignore_index, reduction, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `linear_cross_entropy`.
    sample_weight, num_items
        As for `linear_cross_entropy`, the same on every rank.

    Returns
    -------
    Tensor
        As for `linear_cross_entropy`; the same on every rank.

    Raises
    ------
    TypeError, ValueError, NotImplementedError, IndexError
        An argument is not what it should be. Every rank raises what one alone has found.

    Notes
    -----
    Backward is to be called on every rank, with the same upstream gradients. The gradient of the hidden states is the
    sum over all ranks, made in their order in float64 of parts in float32 or wider, and rounded once: the same bits on
    every rank. That of `weight_shard` and `linear_bias_shard` stays local. Where a classifier's rows are tied to an
    embedding, or a stage of a pipeline holds a copy, adding up the gradients of the copies is the caller's.

    While what a chunk tells of its rows travels, the next chunk's logits are made; while its hidden gradients travel,
    the next one's gradients. Chunks take 64 MiB of the largest shard's logits, in half precision those of all rows.
    The gradient cannot be differentiated again (`create_graph`).

    Examples
    --------
    Of one process:

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossentropy.torch.distributed import vocab_parallel_linear_cross_entropy
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> hidden = torch.tensor([[1.0, 0.5]], requires_grad=True)
    >>> loss = vocab_parallel_linear_cross_entropy(hidden, torch.eye(2), torch.tensor([0]))
    >>> loss.backward()
    >>> hidden.grad
    tensor([[-0.3775,  0.3775]])
    >>> dist.destroy_process_group()
    """
    ranks = ranks_of(group)
    input = waited(input)
    given = input, weight_shard, linear_bias_shard

    def validated() -> tuple[LossOptions, TargetTensors, float | Tensor | None]:
        options = loss_options(
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            entropy_bonus=entropy_bonus,
            focal_gamma=focal_gamma,
            softcap=softcap,
            temperature=temperature,
            reduction=reduction,
        )
        check_split_head("", given, sequence_parallel)
        targets = TargetTensors(target, weight, sample_weight)
        shape = logits_shape(given, target, sequence_parallel)
        check_targets(options, shape, targets)
        items = None if num_items is None else divisor_given(num_items, reduction)
        return options, flat_targets(shape, targets), items

    if torch.compiler.is_compiling():
        options, targets, items = validated()
        loss = _linear_operator.head_loss(
            options, split_tensors(given), targets, as_items(items), ranks, class_offset, sequence_parallel, check
        )
    else:
        made, error = attempt(validated)
        told = {}
        if made is not None and check:
            options, targets, items = made
            told = told_of(NAME, options, len(targets.target), input.dtype, targets, "input", num_items=items)
            told |= told_of_head("", given, sequence_parallel)
            told["weight"] = None if targets.weight is None else "one"
        shard, error = shard_of(ranks, 0 if made is None else weight_shard.shape[0], class_offset, told, True, error)
        assert made is not None  # else every rank has raised the error
        options, targets, items = made
        sequence = rows_of_ranks(input, len(targets.target), ranks) if sequence_parallel else None
        error = error or bad_index(options, targets.target, shard)
        loss = head_loss(options, SplitHead(*split_tensors(given), shard, sequence), targets, items, error)
    loss = loss.to(row_dtype(input))
    return loss if input.dim() == 2 or reduction != "none" else loss.squeeze(0)
