"""The binary losses of elements as an operator that torch can compile, export and differentiate.

`torch.ops.crossentropy.binary_losses` and its derivative `binary_gradient` run on the core. What they have no rule for,
the second derivative, is that of the composed loss.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._binary_call import BinaryOptions, broadcasts_to
from ._binary_composed import composed_losses
from ._binary_eager import empty_gradient, loss_from_core
from ._kernel import TYPES, WEIGHT_TYPES, row_dtype


def element_losses(
    options: BinaryOptions, input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Tensor:
    """One loss an element: from the core where torch compiles for it, else composed."""
    tensors = [tensor for tensor in (input, target, weight, pos_weight) if tensor is not None]
    if (
        torch.compiler.is_compiling()
        and forward_ad._current_level < 0  # operators have no rule for forward mode
        and not torch._C._are_functorch_transforms_active()
        and all(tensor.is_cpu and tensor.layout is torch.strided for tensor in tensors)
        and not any(tensor.requires_grad for tensor in tensors[1:])
    ):
        return _losses(input, target, weight, pos_weight, options.label_smoothing, options.focal_gamma)
    return composed_losses(options, input, target, weight, pos_weight)


def fits(input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None) -> bool:
    """Whether shapes and dtypes fit."""
    return (
        input.shape == target.shape
        and input.dtype in TYPES
        and target.dtype in TYPES
        and all(
            w is None or (isinstance(w, Tensor) and w.dtype in WEIGHT_TYPES and broadcasts_to(w.shape, input.shape))
            for w in (weight, pos_weight)
        )
    )


def _check(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, grad_output: Tensor | None = None
) -> None:
    """Raise if shapes, dtypes or devices do not fit: an operator may be called without other checks."""
    tensors = [tensor for tensor in (input, target, weight, pos_weight, grad_output) if tensor is not None]
    upstream = grad_output is None or (grad_output.shape == input.shape and grad_output.dtype in TYPES)
    if not (fits(input, target, weight, pos_weight) and upstream):
        got = ", ".join(f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in tensors)
        raise ValueError(
            "expected floating-point logits, targets and upstream gradients of one shape and real weights that "
            f"broadcast to it, got {got}"
        )
    for tensor in tensors:
        if tensor.device != input.device:
            raise RuntimeError(f"expected all tensors on {input.device}, got one on {tensor.device}")


@torch.library.custom_op("crossentropy::binary_losses", mutates_args=(), device_types="cpu")
def _losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    label_smoothing: float,
    focal_gamma: float,
) -> Tensor:
    _check(input, target, weight, pos_weight)
    return loss_from_core(BinaryOptions(label_smoothing, focal_gamma, "none"), input, target, weight, pos_weight)


@_losses.register_fake
def _(input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *_: Any) -> Tensor:
    _check(input, target, weight, pos_weight)
    return input.new_empty(input.shape, dtype=row_dtype(input))


@torch.library.custom_op("crossentropy::binary_gradient", mutates_args=(), device_types="cpu")
def _gradient(
    input: Tensor,
    target: Tensor,
    grad_output: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    label_smoothing: float,
    focal_gamma: float,
) -> Tensor:
    _check(input, target, weight, pos_weight, grad_output)
    gradient = empty_gradient(input)
    options = BinaryOptions(label_smoothing, focal_gamma, "none")
    loss_from_core(options, input, target, weight, pos_weight, gradient=gradient, scale=grad_output)
    return gradient


@_gradient.register_fake
def _(
    input: Tensor, target: Tensor, grad_output: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *_: Any
) -> Tensor:
    _check(input, target, weight, pos_weight, grad_output)
    return input.new_empty(input.shape)


# Derivatives.


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-2])
    ctx.numbers = inputs[-2:]


def _losses_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    input, target, weight, pos_weight = ctx.saved_tensors
    if any(ctx.needs_input_grad[1:4]):
        raise NotImplementedError("binary_losses: only the gradient with respect to the logits is defined")
    return _gradient(input, target, grad_output, weight, pos_weight, *ctx.numbers), *[None] * 5


def _gradient_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    input, target, grad_output, weight, pos_weight = ctx.saved_tensors
    label_smoothing, focal_gamma = ctx.numbers
    options = BinaryOptions(label_smoothing, focal_gamma, "none")

    def gradient(input: Tensor, grad_output: Tensor) -> Tensor:
        def losses(input: Tensor) -> Tensor:
            return composed_losses(options, input, target, weight, pos_weight)

        return torch.func.vjp(losses, input)[1](grad_output)[0]

    dinput, dgrad = torch.func.vjp(gradient, input, grad_output)[1](v)
    return dinput, None, dgrad, *[None] * 4


_losses.register_autograd(_losses_backward, setup_context=_save)
_gradient.register_autograd(_gradient_backward, setup_context=_save)
