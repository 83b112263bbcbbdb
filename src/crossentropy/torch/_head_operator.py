"""The loss of a linear head as an operator: one for all numbers of rows, which goes through them in chunks itself."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._options import LossOptions, row_options
from . import _linear
from ._eager import differentiate_again
from ._head_chunks import HeadTensors, composed_head_loss
from ._kernel import TYPES, TargetTensors, check, check_memory, row_dtype, row_shape
from ._linear import head_divisor, loss_and_gradients, upstream_gradients
from ._loss_operator import as_items, asks_for_composed, check_numbers, compiles, is_known
from ._register import differentiable_operator, operator
from ._token import fake_token, keep, take


def head_loss(
    options: LossOptions, head: HeadTensors, targets: TargetTensors, num_items: float | Tensor | None
) -> Tensor:
    """Reduce the losses of a head's rows."""
    if (
        compiles(head.input, targets, head.weight, head.bias)
        and is_known(num_items)
        and not targets.target.requires_grad
    ):
        rest = as_items(num_items), head.shape, options.reduction, options.ignore_index, options.numbers
        loss: Tensor = _loss(*head[:3], *targets, *rest)
        return loss
    return _linear.head_loss(options, head, targets, num_items)


def check_head(head: HeadTensors) -> None:
    """Raise if shapes, dtypes or devices do not fit."""
    input, weight, bias, shape = head
    tensors = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if (
        input.dim() != 2
        or not shape
        or weight.shape != (math.prod(shape), input.shape[1])
        or (bias is not None and bias.shape != weight.shape[:1])
        or any(tensor.dtype not in TYPES or tensor.dtype != input.dtype for tensor in tensors)
        or any(tensor.device != input.device for tensor in tensors)
    ):
        described = ", ".join(f"{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}" for tensor in tensors)
        raise ValueError(
            f"expected hidden states, a classifier and a bias of a head with logits {shape}, got {described}"
        )


def gradients_or_nothing(gradients: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
    """What an operator returns of gradients: no elements where none is wanted."""
    return tuple(like.new_empty(0) if gradient is None else gradient for gradient in gradients)


def fake_gradients(tensors: Sequence[Tensor | None], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    like = tensors[0]
    assert like is not None
    return gradients_or_nothing(
        [
            tensor.new_empty(tensor.shape) if tensor is not None and asked else None
            for tensor, asked in zip(tensors, wanted, strict=True)
        ],
        like,
    )


def _loss_and_token(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    head, targets = _checked(input, weight, bias, target, class_weight, sample_weight, num_items, shape)
    options = row_options(ignore_index, numbers, reduction)
    divisor = head_divisor(options, head, targets, None if num_items is None else num_items.item())
    made = (False,) * 3 if reduction == "none" else tuple(wanted)
    loss, gradients = loss_and_gradients(options, head, targets, divisor, made)
    return loss, keep(*gradients) if any(made) else keep()


def _fake_loss_and_token(*args: Any) -> tuple[Tensor, Tensor]:
    head, _ = _checked(*args[:8])
    shape = row_shape(head.logits) if args[8] == "none" else ()
    return head.input.new_empty(shape, dtype=row_dtype(head.input)), fake_token(head.input)


def _checked(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    shape: Sequence[int],
) -> tuple[HeadTensors, TargetTensors]:
    head, targets = HeadTensors(input, weight, bias, tuple(shape)), TargetTensors(target, class_weight, sample_weight)
    check_head(head)
    check(head.logits, targets)
    check_numbers(input, num_items)
    return head, targets


def _gradients(
    token: Tensor,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    head, targets = _checked(input, weight, bias, target, class_weight, sample_weight, num_items, shape)
    options = row_options(ignore_index, numbers, reduction)

    def again(scale: float, row_scale: Tensor | None) -> Sequence[Tensor | None]:
        divisor = head_divisor(options, head, targets, None if num_items is None else num_items.item())
        return loss_and_gradients(options, head, targets, divisor, tuple(wanted), scale, row_scale)[1]

    half = input.element_size() == 2
    dinput, dweight, dbias = gradients_or_nothing(
        upstream_gradients(grad_output, take(token) or None, reduction == "none", half, again), input
    )
    return dinput, dweight, dbias


def _fake_gradients(token: Tensor, grad_output: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    dinput, dweight, dbias = fake_gradients(args[:3], args[-1])
    return dinput, dweight, dbias


_with_token = operator("_head_loss_and_token", _loss_and_token, _fake_loss_and_token)
_head_gradients = operator("_head_gradients", _gradients, _fake_gradients)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        loss, token = _with_token(*args, ctx.needs_input_grad[:3])
        ctx.save_for_backward(token, *args[:7])
        ctx.rest = args[7:]
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        token, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if not (asks_for_composed(grad_output) or ctx.needs_input_grad[3]):
            found = _head_gradients(token, grad_output, *tensors, *ctx.rest, wanted)
            return *(gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)), *[None] * 8
        input, weight, bias, *of_targets, num_items = tensors
        shape, reduction, ignore_index, numbers = ctx.rest
        head, targets = HeadTensors(input, weight, bias, tuple(shape)), TargetTensors(*of_targets)
        check_memory(input=input, linear_weight=weight, linear_bias=bias, **targets._asdict())
        options = row_options(ignore_index, numbers, reduction)
        return differentiate_again(
            ctx, tensors, grad_output, lambda: composed_head_loss(options, head, targets, num_items)
        )


def _loss_alone(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    ignore_index: int | None,
    numbers: Sequence[float],
) -> Tensor:
    of_targets = target, class_weight, sample_weight
    options = shape, reduction, ignore_index, numbers
    loss: Tensor = _with_token(input, weight, bias, *of_targets, num_items, *options, (False,) * 3)[0]
    return loss


_loss = differentiable_operator("head_loss", _loss_alone, lambda *args: _fake_loss_and_token(*args)[0], _HeadLoss)
