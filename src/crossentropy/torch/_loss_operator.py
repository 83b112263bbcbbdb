"""The reduced loss as an operator that reads the logits once: its gradient is made with it and waits for the backward
pass.

`torch.ops.crossentropy.loss` and its derivative `loss_gradient` run on the core.
"""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._options import LossOptions, row_options
from . import _composed
from ._eager import reduced_loss
from ._kernel import TYPES, TargetTensors, check, empty_gradient, row_dtype
from ._operator import core_applies, row_losses, save, saved, vjp_of_gradient
from ._register import operators


def loss(options: LossOptions, input: Tensor, targets: TargetTensors, num_items: float | Tensor | None) -> Tensor:
    """The reduced loss: from the core where torch compiles for it, else composed of the losses of rows."""
    if (
        options.reduction != "none"
        and torch.compiler.is_compiling()
        and core_applies(input, targets)
        and not (isinstance(num_items, Tensor) and (num_items.requires_grad or not num_items.is_cpu))
    ):
        items = None if num_items is None else torch.as_tensor(num_items, dtype=torch.float64)
        wanted = torch.is_grad_enabled() and input.requires_grad
        mean = options.reduction == "mean"
        found: tuple[Tensor, Tensor] = torch.ops.crossentropy.loss(
            input, *targets, items, mean, wanted, options.ignore_index, options.numbers
        )
        return found[0]
    return _composed.reduced(options, row_losses(options, input, targets), input, targets, num_items)


# What waits for the backward pass. An operator may not return one of its arguments, and a compiler may write other
# things where an argument was: the gradient itself as an output of the one and an argument of the other would have to
# be copied. So the graph holds a token in its place, a byte that owns the gradient. Where the token is a copy, or the
# gradient was taken before, it is computed anew.


class _Token(bytearray):
    gradient: Tensor | None


_tokens: WeakValueDictionary[int, _Token] = WeakValueDictionary()  # by the addresses of their bytes


def _keep(gradient: Tensor | None) -> Tensor:
    token = _Token(1)
    token.gradient = gradient
    tensor = torch.frombuffer(token, dtype=torch.uint8)
    _tokens[tensor.data_ptr()] = token
    return tensor


def _take(tensor: Tensor) -> Tensor | None:
    token = _tokens.get(tensor.data_ptr())
    if token is None:
        return None
    gradient, token.gradient = token.gradient, None
    return gradient


def _loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    mean: bool,
    with_gradient: bool,
    ignore_index: int | None,
    numbers: list[float],
) -> tuple[Tensor, Tensor]:
    targets = TargetTensors(target, weight, sample_weight)
    _check(input, targets, num_items)
    gradient = empty_gradient(input) if with_gradient else None
    options = row_options(ignore_index, numbers, "mean" if mean else "sum")
    divisor = None if num_items is None else num_items.item()
    return reduced_loss(options, input, targets, divisor, gradient), _keep(gradient)


def _fake_loss(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, num_items: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    _check(input, TargetTensors(target, weight, sample_weight), num_items)
    return input.new_empty((), dtype=row_dtype(input)), input.new_empty(1, dtype=torch.uint8)


def _loss_gradient(
    token: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    mean: bool,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    targets = TargetTensors(target, weight, sample_weight)
    _check(input, targets, num_items, grad_output)
    scale = grad_output.item()
    gradient = _take(token)
    if gradient is not None and scale == 1.0:
        return gradient
    gradient = empty_gradient(input)
    divisor = None if num_items is None else num_items.item()
    options = row_options(ignore_index, numbers, "mean" if mean else "sum")
    reduced_loss(options, input, targets, divisor, gradient, scale)
    return gradient


def _fake_loss_gradient(
    token: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    num_items: Tensor | None,
    *_: Any,
) -> Tensor:
    _check(input, TargetTensors(target, weight, sample_weight), num_items, grad_output)
    return empty_gradient(input)


def _check(input: Tensor, targets: TargetTensors, *numbers: Tensor | None) -> None:
    """Raise if shapes, dtypes or devices do not fit; the divisor and the upstream gradient are numbers."""
    check(input, targets)
    for number in numbers:
        if number is not None and (number.shape != () or number.dtype not in TYPES or number.device != input.device):
            raise ValueError(
                f"expected num_items and grad_output to be floating-point numbers on {input.device}, got "
                f"{tuple(number.shape)} of {number.dtype} on {number.device}"
            )


# Derivatives.


def _composed_vjp(input: Tensor, target: Tensor, grad_output: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """The composed loss's derivatives with respect to the logits and to probabilities, times grad_output."""
    weight, sample_weight, num_items, mean, ignore_index, numbers = rest
    options = row_options(ignore_index, numbers, "mean" if mean else "sum")

    def loss(input: Tensor, target: Tensor) -> Tensor:
        targets = TargetTensors(target, weight, sample_weight)
        return _composed.reduced(options, _composed.row_losses(options, input, targets), input, targets, num_items)

    if target.is_floating_point():
        return torch.func.vjp(loss, input, target)[1](grad_output)
    return torch.func.vjp(lambda z: loss(z, target), input)[1](grad_output)[0], None


def _save_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    save(ctx, (output[1], *inputs[:6], *inputs[7:]))


def _loss_backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    token, input, target, *rest = saved(ctx)
    dinput = dtarget = None
    if ctx.needs_input_grad[0]:
        if forward_ad._current_level < 0 and not torch._C._functorch.is_legacy_batchedtensor(grad_output):
            dinput = torch.ops.crossentropy.loss_gradient(token, grad_output, input, target, *rest)
        else:
            dinput = _composed_vjp(input, target, grad_output, *rest)[0]
    if ctx.needs_input_grad[1]:
        dtarget = _composed_vjp(input, target, grad_output, *rest)[1]
    return dinput, dtarget, *[None] * 7


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    save(ctx, inputs[1:])


def _gradient_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, input, target, *rest = saved(ctx)
    dinput, dtarget, dgrad = vjp_of_gradient(_composed_vjp, v, input, target, grad_output, *rest)
    return None, dgrad, dinput, dtarget, *[None] * 6


_library = operators(
    loss=(_loss, _fake_loss, _save_loss, _loss_backward),
    loss_gradient=(_loss_gradient, _fake_loss_gradient, _save_gradient, _gradient_backward),
)
