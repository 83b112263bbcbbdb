"""The loss of rows whose classes are split, and its gradient: two looks at the logits, one exchange between them."""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions
from .._eager import check_kinds, kinds, reciprocal
from .._kernel import TargetTensors, empty_gradient
from .._loss_operator import asks_for_composed
from ._exchange import Exchange
from ._group import Shard, attempt
from ._parts import (
    WEIGHT_OF_TARGET,
    fields_of,
    joining,
    losses_of,
    part_of_rows,
    total,
    widened,
    write_gradient,
)


def joined(
    options: LossOptions,
    logits: Tensor,
    targets: TargetTensors,
    shard: Shard,
    entropy: bool = False,
    error: Exception | None = None,
) -> Tensor:
    """What all classes tell of each row, as the core reads it. An error of one rank is raised on all.

    `logits` are contiguous, (n, C_r), `targets` (n,) or (n, C_r).
    """
    part = None
    if error is None:
        part, error = attempt(lambda: part_of_rows(options, logits.detach(), targets, shard, entropy))
    shape = logits.shape[0], fields_of(options, targets, entropy)
    return widened(Exchange(part, shape, joining(options, targets, entropy), shard.ranks, error).wait())


def total_weight(targets: TargetTensors, whole: Tensor) -> float:
    """What the mean divides by; 0 if no row counts, NaN if the weights of those that do add up to 0."""
    _, _, sample_weight = targets
    if targets.target.is_floating_point():
        return float(whole.shape[0]) if sample_weight is None else total(sample_weight.to(torch.float64))
    weights = whole[:, WEIGHT_OF_TARGET]  # 0 for rows that do not count
    return total(weights if sample_weight is None else weights * sample_weight)


def reduced_loss(
    options: LossOptions,
    logits: Tensor,
    targets: TargetTensors,
    whole: Tensor,
    shard: Shard,
    divisor: float | None = None,
) -> Tensor:
    """The loss in float64, differentiable by the logits; a mean divides by `divisor`, unless that is None."""
    if options.reduction == "mean" and divisor is None:
        divisor = total_weight(targets, whole)
    loss: Tensor = _Loss.apply(logits, *targets, whole, options, shard, divisor)
    return loss


class _Loss(torch.autograd.Function):
    """The gradient is made in the backward pass, of the saved logits and of what all classes tell: no rank waits for
    another, and the upstream gradient is applied before it is rounded.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        whole: Tensor,
        options: LossOptions,
        shard: Shard,
        divisor: float | None,
    ) -> Tensor:
        ctx.save_for_backward(logits, target, weight, sample_weight, whole)
        ctx.rest = options, shard, divisor, kinds(logits, target)
        losses, _ = losses_of(options, TargetTensors(target, weight, sample_weight), shard, whole)
        return reduced(options, losses, divisor)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_cross_entropy", grad_output)
        logits, target, weight, sample_weight, whole = ctx.saved_tensors
        options, shard, divisor, saved = ctx.rest
        check_kinds(saved, (logits, target))
        targets = TargetTensors(target, weight, sample_weight)
        return loss_gradient(options, logits, targets, whole, shard, divisor, grad_output), *[None] * 7


def reduced(options: LossOptions, losses: Tensor, divisor: float | None) -> Tensor:
    """The reduction of losses of rows, in float64, with the same bits on every rank."""
    if options.reduction == "none":
        return losses
    loss = total(losses)
    if loss != loss and losses.isfinite().all():
        loss = 0.0  # losses of both signs, which are no weights
    if options.reduction == "mean":
        loss = loss / divisor if divisor else 0.0
    return torch.tensor(loss, dtype=torch.float64)


def loss_gradient(
    options: LossOptions,
    logits: Tensor,
    targets: TargetTensors,
    whole: Tensor,
    shard: Shard,
    divisor: float | None,
    grad_output: Tensor,
) -> Tensor:
    logits = logits.contiguous()
    gradient = empty_gradient(logits)
    factor = reciprocal(divisor or 0.0) if options.reduction == "mean" else 1.0
    if not factor:
        return gradient.zero_()  # where it is NaN too
    scale = grad_output.to(torch.float64) * factor
    write_gradient(options, logits, targets, shard, whole, scale.expand(whole.shape[0]).contiguous(), gradient)
    return gradient


def check_once(name: str, *grad_outputs: Tensor) -> None:
    """Refuse to differentiate a gradient."""
    if any(map(asks_for_composed, grad_outputs)):
        raise NotImplementedError(
            f"{name}: expected create_graph=False and one upstream gradient at a time: the gradient cannot be "
            "differentiated, since it depends on logits of other processes"
        )
