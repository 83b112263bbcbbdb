"""Loss and gradient in one pass of the core, where no transform but autograd is active."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .._options import LossOptions
from . import _composed
from ._kernel import (
    TargetTensors,
    check,
    empty_gradient,
    is_memory,
    loss_from_core,
    row_dtype,
    row_shape,
    scalar,
    under_transform,
)
from ._operator import row_losses


def is_value(grad_output: Tensor) -> bool:
    """Whether an upstream gradient has values to read. One of a batch (`is_grads_batched`) has none."""
    return type(grad_output) is Tensor and not torch._C._functorch.is_legacy_batchedtensor(grad_output)


def is_plain(input: Tensor, targets: TargetTensors, *others: Tensor | None) -> bool:
    """Whether the tensors are memory that the core may read, now and when their loss is differentiated."""
    if under_transform():
        return False
    target, *weights = targets
    for weight in weights:
        if weight is not None and (weight.requires_grad or not is_memory(weight)):
            return False
    for other in others:
        if other is not None and not is_memory(other):
            return False
    return is_memory(input) and is_memory(target)


def loss(
    options: LossOptions, input: Tensor, targets: TargetTensors, num_items: float | None, *, rounded: bool = True
) -> Tensor:
    """The reduced loss of plain tensors; for `rounded` in the dtype of a row's, else in that of their sum."""
    divisor = None if num_items is None else float(num_items)
    if torch.is_grad_enabled() and (input.requires_grad or targets.target.requires_grad):
        unwrapped = torch._C._functorch.unwrap_if_dead  # what a transform that has ended left wrapped
        tensors = [None if tensor is None else unwrapped(tensor) for tensor in (input, *targets)]
        return _apply(*tensors, options, divisor, rounded)
    return reduced_loss(options, input, targets, divisor, rounded=rounded)


def reduced_loss(
    options: LossOptions,
    input: Tensor,
    targets: TargetTensors,
    divisor: float | None,
    gradient: Tensor | None = None,
    scale: float = 1.0,
    row_scale: Tensor | None = None,
    *,
    rounded: bool = True,
) -> Tensor:
    if options.reduction == "none":
        losses = input.new_empty(row_shape(input), dtype=row_dtype(input))
        loss_from_core(options, input, targets, losses, gradient, scale, row_scale)
        return losses
    factor = 1.0
    if divisor is not None and options.reduction == "mean":
        options, factor = replace(options, reduction="sum"), reciprocal(divisor)
    value = loss_from_core(options, input, targets, None, gradient, scale * factor)
    if not factor and gradient is not None:
        gradient.zero_()  # where the gradient is NaN too
    return scalar(value * factor if factor else 0.0, row_dtype(input) if rounded else torch.float64)


class _Loss(torch.autograd.Function):
    """The gradient for an upstream gradient of 1 is made with the loss and returned once.

    For another one it is made anew, the upstream gradient applied before it is rounded: a stored gradient in half
    precision times a loss scale would be mostly zeros.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        options: LossOptions,
        divisor: float | None,
        rounded: bool,
    ) -> Tensor:
        ctx.save_for_backward(input, target, weight, sample_weight)
        ctx.rest = options, divisor, rounded, kinds(input, target)
        wanted = options.reduction != "none" and ctx.needs_input_grad[0]
        ctx.gradient = gradient = empty_gradient(input) if wanted else None
        targets = TargetTensors(target, weight, sample_weight)
        return reduced_loss(options, input, targets, divisor, gradient, rounded=rounded)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # raises where one was changed in place
        options, divisor, rounded, saved = ctx.rest
        gradient, ctx.gradient = ctx.gradient, None
        per_row = options.reduction == "none"
        composed = torch.is_grad_enabled() or ctx.needs_input_grad[1] or under_transform() or not is_value(grad_output)
        scale = 1.0 if per_row or composed else grad_output.item()
        if gradient is None or scale != 1.0 or composed:
            input, *rest = tensors
            targets = TargetTensors(*rest)
            check_saved(saved, (input, targets.target), input, targets)
            if composed:

                def again() -> Tensor:
                    rows = row_losses(options, input, targets)
                    return _composed.reduced(options, rows, input, targets, divisor, rounded=rounded)

                return differentiate_again(ctx, tensors, grad_output, again)
            gradient = empty_gradient(input)
            reduced_loss(options, input, targets, divisor, gradient, scale, grad_output if per_row else None)
        return gradient, *[None] * 6


def _apply(*arguments: Any) -> Any:
    """torch.autograd.Function.apply without its questions for transforms, which have been asked: they cost 3 µs."""
    function: Any = super(torch.autograd.Function, _Loss)
    return function.apply(*arguments)


def kinds(*tensors: Tensor) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]


def check_saved(saved: Any, tensors: Sequence[Tensor], logits: Tensor, targets: TargetTensors) -> None:
    """Raise unless saved tensors came back as what they were: a hook may hand back anything."""
    check_kinds(saved, tensors)
    check(logits, targets)


def check_kinds(saved: Any, tensors: Sequence[Tensor]) -> None:
    found = kinds(*tensors)
    if found != saved:
        raise RuntimeError(f"saved tensors: expected {saved}, got {found}")
    for tensor in tensors:
        if not tensor.is_cpu:
            raise RuntimeError(f"saved tensors: expected all on the CPU, got one on {tensor.device}")


def differentiate_again(
    ctx: Any, tensors: tuple[Tensor | None, ...], grad_output: Tensor, loss: Callable[[], Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients by autograd through the composed loss, so that they can be differentiated again."""
    with torch.enable_grad():
        value = loss()
    wanted = [tensor for tensor, needed in zip(tensors, ctx.needs_input_grad, strict=False) if needed]
    found = iter(torch.autograd.grad(value, wanted, grad_output, create_graph=torch.is_grad_enabled()))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def reciprocal(divisor: float) -> float:
    """The factor of the sum of losses; 0 for a divisor of 0, so that the mean is 0 then."""
    return 1.0 / divisor if divisor else 0.0
