"""The loss of rows whose classes are split as an operator, of what `_operator.joined` returns."""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions, row_options
from .._kernel import TargetTensors, empty_gradient
from .._register import differentiable_operator, operator
from ._arguments import SplitRows
from ._loss import check_once, loss_gradient, reduced, total_weight
from ._operator import shard_at
from ._parts import losses_of, widened


def loss(options: LossOptions, rows: SplitRows, whole: Tensor, place: Tensor, items: Tensor | None) -> Tensor:
    loss: Tensor = _loss(
        rows.logits, *rows.targets, whole, place, items, options.reduction, options.ignore_index, options.numbers
    )
    return loss


def _loss_of(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    whole: Tensor,
    place: Tensor,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    options, targets = row_options(ignore_index, numbers, reduction), TargetTensors(target, weight, sample_weight)
    shard, _ = shard_at(logits, place)
    whole = widened(whole)
    losses, _ = losses_of(options, targets, shard, whole)
    return reduced(options, losses, _divisor(options, targets, whole, items))


def _fake_loss(logits: Tensor, target: Tensor, weight: Any, sample_weight: Any, whole: Tensor, *rest: Any) -> Tensor:
    reduction = rest[2]
    return whole.new_empty(whole.shape[:1] if reduction == "none" else ())


def _divisor(options: LossOptions, targets: TargetTensors, whole: Tensor, items: Tensor | None) -> float | None:
    if options.reduction != "mean":
        return None
    return total_weight(targets, whole) if items is None else items.item()


def _gradient_of_loss(
    grad_output: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    whole: Tensor,
    place: Tensor,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    options, targets = row_options(ignore_index, numbers, reduction), TargetTensors(target, weight, sample_weight)
    shard, _ = shard_at(logits, place)
    whole = widened(whole)
    divisor = _divisor(options, targets, whole, items)
    return loss_gradient(options, logits, targets, whole, shard, divisor, grad_output)


_loss_gradient = operator(
    "_split_loss_gradient", _gradient_of_loss, lambda grad_output, logits, *_: empty_gradient(logits)
)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        ctx.save_for_backward(*args[:7])
        ctx.rest = args[7:]
        loss: Tensor = _loss_alone(*args)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_cross_entropy", grad_output)
        return _loss_gradient(grad_output, *ctx.saved_tensors, *ctx.rest), *[None] * 9


_loss_alone = operator("_split_loss_alone", _loss_of, _fake_loss)
_loss = differentiable_operator("_split_loss", _loss_of, _fake_loss, _Loss)
