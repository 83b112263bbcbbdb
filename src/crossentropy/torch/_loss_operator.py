"""The reduced loss as an operator that reads the logits once: its gradient is made with it and waits for the backward
pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._options import LossOptions, row_options
from . import _composed
from ._eager import differentiate_again, reduced_loss
from ._kernel import TYPES, TargetTensors, check, check_memory, empty_gradient, row_dtype
from ._operator import core_applies, row_losses
from ._register import differentiable_operator, operator
from ._token import fake_token, keep, take


def loss(options: LossOptions, input: Tensor, targets: TargetTensors, num_items: float | Tensor | None) -> Tensor:
    """The reduced loss: by the operator where torch compiles for it, else of the losses of rows."""
    if options.reduction != "none" and compiles(input, targets) and is_known(num_items):
        items = as_items(num_items)
        reduced: Tensor = _loss(input, *targets, items, options.reduction, options.ignore_index, options.numbers)
        return reduced
    return _composed_loss(options, input, targets, num_items)


def _composed_loss(
    options: LossOptions, input: Tensor, targets: TargetTensors, num_items: float | Tensor | None
) -> Tensor:
    return _composed.reduced(options, row_losses(options, input, targets), input, targets, num_items)


def compiles(input: Tensor, targets: TargetTensors, *others: Tensor | None) -> bool:
    """Whether torch compiles what operators can do."""
    return torch.compiler.is_compiling() and core_applies(input, targets, *others)


def is_known(num_items: float | Tensor | None) -> bool:
    """Whether the divisor is a number in the CPU's memory of which no gradient is wanted."""
    return not isinstance(num_items, Tensor) or (num_items.is_cpu and not num_items.requires_grad)


def as_items(num_items: float | Tensor | None) -> Tensor | None:
    return None if num_items is None else torch.as_tensor(num_items, dtype=torch.float64)


def asks_for_composed(grad_output: Tensor) -> bool:
    """Whether a derivative must be composed: it is to be differentiated itself, or its upstream gradient is many."""
    return (
        torch.is_grad_enabled()
        or forward_ad._current_level >= 0
        or torch._C._functorch.is_legacy_batchedtensor(grad_output)
    )


def check_numbers(like: Tensor, *numbers: Tensor | None) -> None:
    for number in numbers:
        if number is not None and (number.shape != () or number.dtype not in TYPES or number.device != like.device):
            raise ValueError(
                f"expected num_items and grad_output to be floating-point numbers on {like.device}, got "
                f"{tuple(number.shape)} of {number.dtype} on {number.device}"
            )


def _loss_and_token(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
    wanted: bool,
) -> tuple[Tensor, Tensor]:
    targets = TargetTensors(target, weight, sample_weight)
    check(input, targets)
    check_numbers(input, num_items)
    gradient = empty_gradient(input) if wanted else None
    options = row_options(ignore_index, numbers, reduction)
    divisor = None if num_items is None else num_items.item()
    return reduced_loss(options, input, targets, divisor, gradient), keep(gradient)


def _fake_loss_and_token(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    check(input, TargetTensors(target, weight, sample_weight))
    return input.new_empty((), dtype=row_dtype(input)), fake_token(input)


def _gradient(
    token: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    scale = grad_output.item()
    gradient, *_ = take(token) or (None,)
    if gradient is None or scale != 1.0:  # before it is rounded
        targets = TargetTensors(target, weight, sample_weight)
        check(input, targets)
        check_numbers(input, num_items, grad_output)
        gradient = empty_gradient(input)
        divisor = None if num_items is None else num_items.item()
        reduced_loss(row_options(ignore_index, numbers, reduction), input, targets, divisor, gradient, scale)
    return gradient


def _fake_gradient(token: Tensor, grad_output: Tensor, input: Tensor, *_: Any) -> Tensor:
    return empty_gradient(input)


_with_token = operator("_loss_and_token", _loss_and_token, _fake_loss_and_token)
_loss_gradient = operator("_loss_gradient", _gradient, _fake_gradient)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        loss, token = _with_token(*args, ctx.needs_input_grad[0])
        ctx.save_for_backward(token, *args[:5])
        ctx.rest = args[5:]
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        token, *tensors = ctx.saved_tensors
        if not (asks_for_composed(grad_output) or ctx.needs_input_grad[1]):
            return _loss_gradient(token, grad_output, *tensors, *ctx.rest), *[None] * 7
        reduction, ignore_index, numbers = ctx.rest
        input, target, weight, sample_weight, num_items = tensors
        check_memory(input=input, target=target, weight=weight, sample_weight=sample_weight)

        def again() -> Tensor:
            targets = TargetTensors(target, weight, sample_weight)
            return _composed_loss(row_options(ignore_index, numbers, reduction), input, targets, num_items)

        return differentiate_again(ctx, tensors, grad_output, again)


def _loss_alone(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    loss: Tensor = _with_token(
        input, target, weight, sample_weight, num_items, reduction, ignore_index, numbers, False
    )[0]
    return loss


_loss = differentiable_operator("loss", _loss_alone, lambda *args: _fake_loss_and_token(*args)[0], _Loss)
