"""The loss of a linear head whose classes are split, as an operator for programs that torch compiles.

It goes through the chunks, and meets the other ranks, inside: they overlap there as they do without compilation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _core
from ..._options import LossOptions, row_options
from .._kernel import TargetTensors
from .._register import differentiable_operator, operator
from .._token import fake_token, keep, take
from ._arguments import told_of
from ._group import Ranks, Shard, shard_of
from ._linear_arguments import bad_index, rows_of_ranks, told_of_head
from ._linear_head import SplitHead
from ._linear_loss import NAME, gradients_from, loss_and_gradients, mean_divisor
from ._loss import check_once


def head_loss(
    options: LossOptions,
    tensors: Sequence[Tensor | None],
    targets: TargetTensors,
    items: Tensor | None,
    ranks: Ranks,
    class_offset: int | None,
    sequence_parallel: bool,
    check: bool,
) -> Tensor:
    """The reduced loss in float64."""
    rest = options.reduction, options.ignore_index, options.numbers, *ranks, class_offset, sequence_parallel, check
    loss: Tensor = _loss(*tensors, *targets, items, *rest)
    return loss


def _loss_and_rest(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
    group: str,
    rank: int,
    count: int,
    class_offset: int | None,
    sequence_parallel: bool,
    check: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, a token of its gradients, what all classes tell of each row, and where this rank's are, in float64: the
    divisor of the mean, the first class, all, those of the largest shard, and the rows of each rank.
    """
    options, ranks = row_options(ignore_index, numbers, reduction), Ranks(group, rank, count)
    targets, given = TargetTensors(target, class_weight, sample_weight), (input, weight, bias)
    told: dict[str, object] = {}
    divisor = None if items is None else items.item()
    if check:
        told = told_of(NAME, options, len(target), input.dtype, targets, "input", num_items=divisor)
        told |= told_of_head("", given, sequence_parallel)
        told["weight"] = None if targets.weight is None else "one"
        told["gradients of hidden states"] = wanted[0]
    shard, error = shard_of(ranks, weight.shape[0], class_offset, told, True)
    sequence = rows_of_ranks(input, len(target), ranks) if sequence_parallel else None
    error = error or bad_index(options, target, shard)
    if reduction == "mean" and divisor is None:
        divisor = mean_divisor(options, targets, shard, error)
    head = SplitHead(*given, shard, sequence)
    loss, whole, gradients = loss_and_gradients(options, head, targets, divisor, wanted, error)
    place = [divisor or 0.0, shard.first, shard.classes, shard.largest, *(sequence or ())]
    token = keep() if reduction == "none" else keep(*gradients)
    return loss, token, whole, torch.tensor(place, dtype=torch.float64)


def _fake_loss_and_rest(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    input, target, reduction, count, sequence_parallel = args[0], args[3], args[7], args[12], args[14]
    double = input.new_empty((), dtype=torch.float64)
    loss = double.new_empty(target.shape[:1] if reduction == "none" else ())
    place = double.new_empty(4 + count if sequence_parallel else 4)
    return loss, fake_token(input), double.new_empty(target.shape[0], int(_core.part_fields)), place


def _gradients(
    grad_output: Tensor,
    token: Tensor,
    whole: Tensor,
    place: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
    group: str,
    rank: int,
    count: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    options = row_options(ignore_index, numbers, reduction)
    divisor, first, classes, largest, *sequence = place.tolist()
    shard = Shard(Ranks(group, rank, count), int(first), weight.shape[0], int(classes), int(largest))
    head = SplitHead(input, weight, bias, shard, tuple(map(int, sequence)) or None)
    targets = TargetTensors(target, class_weight, sample_weight)
    made = take(token) or None
    found = gradients_from(grad_output, made, options, head, targets, divisor, wanted, whole)
    a, b, c = (input.new_empty(0) if gradient is None else gradient for gradient in found)
    return a, b, c


def _fake_gradients(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    tensors, wanted = args[4:7], args[-1]
    a, b, c = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) if asked else tensors[0].new_empty(0)
        for tensor, asked in zip(tensors, wanted, strict=True)
    )
    return a, b, c


_with_rest = operator("_split_head_loss_and_rest", _loss_and_rest, _fake_loss_and_rest)
_head_gradients = operator("_split_head_gradients", _gradients, _fake_gradients)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        ctx.wanted = ctx.needs_input_grad[:3]
        loss, *made = _with_rest(*args, ctx.wanted)
        ctx.save_for_backward(*made, *args[:6])
        ctx.rest = args[7:13]
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once(NAME, grad_output)
        found = _head_gradients(grad_output, *ctx.saved_tensors, *ctx.rest, ctx.wanted)
        return *(dx if asked else None for dx, asked in zip(found, ctx.wanted, strict=True)), *[None] * 13


def _loss_alone(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
    group: str,
    rank: int,
    count: int,
    class_offset: int | None,
    sequence_parallel: bool,
    check: bool,
) -> Tensor:
    tensors = input, weight, bias, target, class_weight, sample_weight, items
    of_ranks = group, rank, count, class_offset, sequence_parallel, check
    loss: Tensor = _with_rest(*tensors, reduction, ignore_index, numbers, *of_ranks, (False,) * 3)[0]
    return loss


_loss = differentiable_operator("_split_head_loss", _loss_alone, lambda *args: _fake_loss_and_rest(*args)[0], _HeadLoss)
