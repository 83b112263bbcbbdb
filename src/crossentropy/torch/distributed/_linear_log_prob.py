"""Log-probabilities of a linear head whose classes are split among processes."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ..._options import LossOptions, loss_options
from .._kernel import TargetTensors, row_dtype
from ._arguments import check_indices, check_targets, flat_targets, told_of
from ._functional import Group
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
from ._linear_kernel import Found, over_chunks
from ._loss import check_once

_NAME = "vocab_parallel_linear_log_prob"


@overload
def vocab_parallel_linear_log_prob(
    input: Tensor,
    weight_shard: Tensor,
    target: Tensor,
    *,
    linear_bias_shard: Tensor | None = None,
    group: Group = None,
    class_offset: int | None = None,
    sequence_parallel: bool = False,
    entropy: Literal[False] = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor: ...
@overload
def vocab_parallel_linear_log_prob(
    input: Tensor,
    weight_shard: Tensor,
    target: Tensor,
    *,
    linear_bias_shard: Tensor | None = None,
    group: Group = None,
    class_offset: int | None = None,
    sequence_parallel: bool = False,
    entropy: bool,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor | tuple[Tensor, Tensor]: ...
@torch.compiler.disable  # a compiled program calls it as it is
def vocab_parallel_linear_log_prob(
    input: Tensor,
    weight_shard: Tensor,
    target: Tensor,
    *,
    linear_bias_shard: Tensor | None = None,
    group: Group = None,
    class_offset: int | None = None,
    sequence_parallel: bool = False,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Compute `linear_log_prob` where each process of a group has the classifier's rows of some classes.

    Parameters
    ----------
    input, weight_shard, linear_bias_shard, sequence_parallel
        As for `vocab_parallel_linear_cross_entropy`.
    target : Tensor of integers, shape () or (N,)
        A class index for each row, which counts all classes, the same on every rank.
    group, class_offset, check
        As for `vocab_parallel_linear_cross_entropy`.
    entropy, ignore_index, softcap, temperature
        As for `linear_log_prob`.

    Returns
    -------
    Tensor, or a tuple of two
        As for `linear_log_prob`; the same on every rank.

    Raises
    ------
    TypeError, ValueError, NotImplementedError, IndexError
        An argument is not what it should be. Every rank raises what one alone has found.

    Notes
    -----
    As for `vocab_parallel_linear_cross_entropy`; the backward pass makes the logits again. What all classes tell of a
    row is saved.

    Examples
    --------
    Of one process:

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossentropy.torch.distributed import vocab_parallel_linear_log_prob
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> hidden = torch.tensor([[1.0, 0.5]])
    >>> vocab_parallel_linear_log_prob(hidden, torch.eye(2), torch.tensor([0]), entropy=True)
    (tensor([-0.4741]), tensor([0.6628]))
    >>> dist.destroy_process_group()
    """
    ranks = ranks_of(group)
    input = waited(input)
    given = input, weight_shard, linear_bias_shard

    def validated() -> tuple[LossOptions, TargetTensors]:
        options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
        check_split_head("", given, sequence_parallel)
        shape = logits_shape(given, target, sequence_parallel)
        check_indices(target)
        check_targets(options, shape, TargetTensors(target))
        return options, flat_targets(shape, TargetTensors(target))

    made, error = attempt(validated)
    told = {}
    if made is not None and check:
        options, targets = made
        told = told_of(_NAME, options, len(targets.target), input.dtype, targets, "input", entropy=entropy)
        told |= told_of_head("", given, sequence_parallel)
    shard, error = shard_of(ranks, 0 if made is None else weight_shard.shape[0], class_offset, told, True, error)
    assert made is not None  # else every rank has raised the error
    options, targets = made
    error = error or bad_index(options, targets.target, shard)
    sequence = rows_of_ranks(input, len(targets.target), ranks) if sequence_parallel else None
    head = SplitHead(*split_tensors(given), shard, sequence)
    wanted = tuple(torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in head[:3])
    found = _HeadLogProb.apply(*head[:3], targets.target, head[3:], options, entropy, wanted, error)
    results = tuple(each.to(row_dtype(input)) for each in found[: 2 if entropy else 1])
    if input.dim() == 1:
        results = tuple(each.squeeze(0) for each in results)
    return results if len(results) == 2 else results[0]


class _HeadLogProb(torch.autograd.Function):
    """The backward pass makes the logits again, when the upstream gradient of each number is known."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor | None]:
        *tensors, rest, options, entropy, wanted, error = args
        ctx.rest, ctx.wanted = (rest, options, entropy), wanted
        found = _evaluate(ctx, tensors, error=error)
        ctx.save_for_backward(*tensors, found.whole)
        return 0.0 - found.losses, found.entropies

    @staticmethod
    def backward(ctx: Any, dlog_prob: Tensor, dentropy: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [g for g in (dlog_prob, dentropy) if g is not None]
        check_once(_NAME, *given)
        *tensors, whole = ctx.saved_tensors
        upstreams = -dlog_prob.double().contiguous(), None if dentropy is None else dentropy.double().contiguous()
        found = _evaluate(ctx, tensors, ctx.wanted, upstreams, whole)
        return *found.gradients, *[None] * 6


def _evaluate(
    ctx: Any,
    tensors: Sequence[Any],
    wanted: Sequence[bool] = (False, False, False),
    upstreams: tuple[Tensor | None, Tensor | None] = (None, None),
    whole: Tensor | None = None,
    error: Exception | None = None,
) -> Found:
    rest, options, entropy = ctx.rest
    head, targets = SplitHead(*tensors[:3], *rest), TargetTensors(tensors[3])
    return over_chunks(options, head, targets, entropy, wanted, *upstreams, whole, error)
