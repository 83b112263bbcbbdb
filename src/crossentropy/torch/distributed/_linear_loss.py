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
from ._linear_kernel import Found, SplitHead, over_chunks
from ._loss import check_once, reduced
from ._parts import total

_NO_GRADIENTS = (False, False, False)


def mean_divisor(options: LossOptions, targets: TargetTensors, shard: Shard, error: Exception | None) -> float:
    """What the mean divides by, before anything else is known of the rows; 0 if no row counts."""
    target, weight, sample_weight = targets
    counted = torch.ones(target.shape[0], dtype=torch.float64)
    if not target.is_floating_point():
        if weight is not None:
            counted = _weights_of_targets(target, weight, shard, error)
        if options.ignore_index is not None:
            counted[target == options.ignore_index] = 0.0
    return total(counted if sample_weight is None else counted * sample_weight)


def _weights_of_targets(target: Tensor, weight: Tensor, shard: Shard, error: Exception | None) -> Tensor:
    """The class weight of each target, which one rank knows."""
    place = target - shard.first
    known = (place >= 0) & (place < shard.size)
    part = weight.new_zeros(target.shape[0], 1)
    part[known, 0] = weight[place[known]]
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
    tensors, rest = head[:3], (head.shard, head.sequence)
    wanted = tuple(torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in tensors)
    loss: Tensor = _HeadLoss.apply(*tensors, *targets, rest, options, divisor, wanted, error)
    return loss


class _HeadLoss(torch.autograd.Function):
    """As in one process: gradients for an upstream gradient of 1 are made with the loss and returned once. For 'none',
    and in half precision for another one, they are made anew, from what all classes tell of each row.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, rest, options, divisor, wanted, error = args
        ctx.rest, ctx.wanted = (rest, options, divisor), wanted
        per_row = options.reduction == "none"
        found = _evaluate(ctx, tensors, _NO_GRADIENTS if per_row else ctx.wanted, error=error)
        ctx.gradients = found.gradients
        ctx.save_for_backward(*tensors, found.whole)
        if per_row:
            return found.losses
        return reduced(options, found.losses, divisor)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_linear_cross_entropy", grad_output)
        *tensors, whole = ctx.saved_tensors
        _, options, _ = ctx.rest
        made, ctx.gradients = ctx.gradients, None
        gradients = upstream_gradients(
            grad_output,
            made,
            options.reduction == "none",
            tensors[0].element_size() == 2,
            lambda *scales: _evaluate(ctx, tensors, ctx.wanted, *scales, whole=whole).gradients,
        )
        return *gradients, *[None] * 8


def _evaluate(
    ctx: Any,
    tensors: Sequence[Any],
    wanted: Sequence[bool],
    scale: float = 1.0,
    row_scale: Tensor | None = None,
    whole: Tensor | None = None,
    error: Exception | None = None,
) -> Found:
    rest, options, divisor = ctx.rest
    factor = reciprocal(divisor) if options.reduction == "mean" else 1.0
    head, targets = SplitHead(*tensors[:3], *rest), TargetTensors(*tensors[3:])
    rows = targets.target.shape[0]
    upstream = torch.full((rows,), scale * factor, dtype=torch.float64) if row_scale is None else row_scale.double()
    if not factor:  # no row counts, and they may hold NaN
        targets = TargetTensors(targets.target[:0], targets.weight)
    return over_chunks(options, head, targets, False, wanted, upstream, whole=whole, error=error)
