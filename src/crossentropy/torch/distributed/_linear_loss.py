"""The losses of a linear head whose classes are split, as autograd sees them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions
from .._eager import reciprocal
from .._kernel import TargetTensors
from .._linear import upstream_gradients
from ._exchange import Exchange
from ._group import Shard
from ._linear_head import SplitHead
from ._linear_kernel import Found, over_chunks
from ._loss import check_once, reduced
from ._parts import total

NAME = "vocab_parallel_linear_cross_entropy"


def mean_divisor(options: LossOptions, targets: TargetTensors, shard: Shard, error: Exception | None) -> float:
    """What the mean divides by, before anything else is known of the rows; 0 if no row counts."""
    target, weight, sample_weight = targets
    counted = torch.ones(target.shape[0], dtype=torch.float64)
    if not target.is_floating_point():
        if weight is not None:
            counted = _weights_of_targets(target, weight, shard, error)
        if options.ignore_index is not None:
            counted[target.long() == options.ignore_index] = 0.0
    return total(counted if sample_weight is None else counted * sample_weight)


def _weights_of_targets(target: Tensor, weight: Tensor, shard: Shard, error: Exception | None) -> Tensor:
    """The class weight of each target, which one rank knows."""
    place = target.long() - shard.first
    known = (place >= 0) & (place < shard.size)
    part = torch.zeros(target.shape[0], 1, dtype=torch.float64)
    part[known, 0] = weight[place[known]].double()
    told = None if error is not None else part
    return Exchange(told, (len(part), 1), lambda parts: parts.sum(0), shard.ranks, error).wait().squeeze(1)


def head_loss(
    options: LossOptions,
    head: SplitHead,
    targets: TargetTensors,
    divisor: float | None,
    error: Exception | None = None,
) -> Tensor:
    """The reduced loss in float64; a mean divides by `divisor`. An error of one rank is raised on all."""
    if options.reduction == "mean" and divisor is None:
        divisor = mean_divisor(options, targets, head.shard, error)
    wanted = tuple(torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in head[:3])
    loss: Tensor = _HeadLoss.apply(*head[:3], *targets, head[3:], options, divisor, wanted, error)
    return loss


class _HeadLoss(torch.autograd.Function):
    """As in one process: gradients for an upstream gradient of 1 are made with the loss and returned once. For 'none',
    and in half precision for another one, they are made anew, from what all classes tell of each row.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, rest, options, divisor, wanted, error = args
        head, targets = SplitHead(*tensors[:3], *rest), TargetTensors(*tensors[3:])
        loss, whole, ctx.gradients = loss_and_gradients(options, head, targets, divisor, wanted, error)
        ctx.save_for_backward(*tensors, whole)
        ctx.rest = rest, options, divisor, wanted
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once(NAME, grad_output)
        *tensors, whole = ctx.saved_tensors
        rest, options, divisor, wanted = ctx.rest
        head, targets = SplitHead(*tensors[:3], *rest), TargetTensors(*tensors[3:])
        made, ctx.gradients = ctx.gradients, None
        gradients = gradients_from(grad_output, made, options, head, targets, divisor, wanted, whole)
        return *gradients, *[None] * 8


def loss_and_gradients(
    options: LossOptions,
    head: SplitHead,
    targets: TargetTensors,
    divisor: float | None,
    wanted: Sequence[bool],
    error: Exception | None = None,
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The reduced loss, what all classes tell of each row, and the gradients for an upstream gradient of 1, if that is
    one number.
    """
    if options.reduction == "none":
        wanted = (False, False, False)
    found = _over_chunks(options, head, targets, divisor, wanted, error=error)
    return reduced(options, found.losses, divisor), found.whole, found.gradients


def gradients_from(
    grad_output: Tensor,
    made: Sequence[Tensor | None] | None,
    options: LossOptions,
    head: SplitHead,
    targets: TargetTensors,
    divisor: float | None,
    wanted: Sequence[bool],
    whole: Tensor,
) -> Sequence[Tensor | None]:
    """The gradients times an upstream one. Those `wanted` are of the forward pass, so that all ranks make the same."""

    def again(scale: float, row_scale: Tensor | None) -> Sequence[Tensor | None]:
        return _over_chunks(options, head, targets, divisor, wanted, scale, row_scale, whole).gradients

    half = head.input.element_size() == 2
    return upstream_gradients(grad_output, made, options.reduction == "none", half, again)


def _over_chunks(
    options: LossOptions,
    head: SplitHead,
    targets: TargetTensors,
    divisor: float | None,
    wanted: Sequence[bool],
    scale: float = 1.0,
    row_scale: Tensor | None = None,
    whole: Tensor | None = None,
    error: Exception | None = None,
) -> Found:
    factor = reciprocal(divisor or 0.0) if options.reduction == "mean" else 1.0
    rows = targets.target.shape[0]
    upstream = (
        torch.full((rows,), scale * factor, dtype=torch.float64)
        if row_scale is None
        else row_scale.double().contiguous()
    )
    if not factor:  # no row counts, and they may hold NaN
        targets = TargetTensors(targets.target[:0], targets.weight)
    return over_chunks(options, head, targets, False, wanted, upstream, whole=whole, error=error)
