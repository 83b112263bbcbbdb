"""The binary loss and its gradient in one pass of the core, where no transform but autograd is active."""

from typing import Any

import torch
from torch import Tensor

from .. import _core
from .._arrays import LARGE
from .._binary_call import BinaryCall, BinaryOptions, ElementWeights, weights_pattern
from .._config import resolve_threads
from ._binary_composed import composed_losses, reduced
from ._eager import differentiate_again, is_value, kinds
from ._kernel import TYPES, as_weights, empty, readable, row_dtype, scalar, under_transform


def loss_from_core(
    options: BinaryOptions,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    *,
    gradient: Tensor | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """The reduced loss. Writes the gradient times a number, or for 'none' also times one an element."""
    z, y = readable("input", input).contiguous(), readable("target", target).contiguous()
    # Weights of another dtype are copied: the core reads them while these live.
    held_pos, held = _weights("pos_weight", pos_weight, z.shape), _weights("weight", weight, z.shape)
    mean = options.reduction == "mean"
    factor, scales = scale if isinstance(scale, float) else 1.0, None
    if isinstance(scale, Tensor):
        scales = readable("grad_output", scale).to(torch.float64).contiguous()
    losses = None
    if options.reduction == "none":
        losses = torch.empty(z.shape, dtype=row_dtype(z))
    memory: Any = (z.data_ptr(), y.data_ptr())
    call = BinaryCall(
        logits=memory[0],
        type=TYPES[z.dtype],
        size=z.numel(),
        targets=memory[1],
        targets_type=TYPES[y.dtype],
        pos_weight=None if held_pos is None else held_pos[0],
        sample_weight=None if held is None else held[0],
        label_smoothing=options.label_smoothing,
        focal_gamma=options.focal_gamma,
        reduction="sum",  # torch's mean divides by the number of elements
        num_threads=min(resolve_threads(None), torch.get_num_threads()),
    )
    count = max(z.numel(), 1)
    value = _core.binary(
        call,
        gradient_scale=factor / count if mean else factor,
        grad_output=None if scales is None else scales.data_ptr(),
        losses=None if losses is None else losses.data_ptr(),
        dlogits=None if gradient is None else gradient.data_ptr(),
    )
    return scalar(value / count if mean else value, row_dtype(z)) if losses is None else losses


def _weights(name: str, weight: Tensor | None, shape: torch.Size) -> tuple[ElementWeights, Tensor] | None:
    """Weights as the core reads them, and the tensor that holds them."""
    if weight is None or 0 in shape:
        return None
    if weight.dtype is torch.float32:
        held = readable(name, weight.detach()).contiguous()
        if not held.isfinite().all():
            held = as_weights(name, held.double())  # raises
    else:
        held = as_weights(name, weight.detach())
    pattern = weights_pattern(held.shape, shape)
    if pattern is None:
        held = held.expand(shape).contiguous()
        pattern = 1, held.numel()
    address: Any = held.data_ptr()
    return ElementWeights(address, TYPES[held.dtype], *pattern), held


class BinaryLoss(torch.autograd.Function):
    """The gradient for an upstream gradient of 1 is made with the loss and returned once; see `_eager`."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pos_weight: Tensor | None,
        options: BinaryOptions,
    ) -> Tensor:
        tensors = (input, target, weight, pos_weight)
        ctx.save_for_backward(*tensors)
        ctx.rest = options, kinds(*(tensor for tensor in tensors if tensor is not None))
        ctx.gradient = None
        if options.reduction != "none" and ctx.needs_input_grad[0]:
            ctx.gradient = empty_gradient(input)
        return loss_from_core(options, *tensors, gradient=ctx.gradient)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        options, saved = ctx.rest
        others = any(ctx.needs_input_grad[1:4])
        if torch.is_grad_enabled() or others or under_transform() or not is_value(grad_output):
            _check_saved(saved, tensors)
            return differentiate_again(
                ctx, tensors, grad_output, lambda: reduced(options, composed_losses(options, *tensors))
            )
        gradient, ctx.gradient = ctx.gradient, None
        per_element = options.reduction == "none"
        scale = grad_output if per_element else grad_output.item()
        if gradient is None or scale != 1.0:
            _check_saved(saved, tensors)
            gradient = empty_gradient(tensors[0])
            loss_from_core(options, *tensors, gradient=gradient, scale=scale)
        return gradient, None, None, None, None


def empty_gradient(input: Tensor) -> Tensor:
    return empty(input, *input.shape) if input.nbytes >= LARGE else torch.empty(input.shape, dtype=input.dtype)


def _check_saved(saved: Any, tensors: tuple[Tensor | None, ...]) -> None:
    """Raise unless saved tensors came back as what they were: a hook may hand back anything."""
    there = [tensor for tensor in tensors if tensor is not None]
    found = kinds(*there)
    if found != saved:
        raise RuntimeError(f"saved tensors: expected {saved}, got {found}")
    for tensor in there:
        if not tensor.is_cpu:
            raise RuntimeError(f"saved tensors: expected all on the CPU, got one on {tensor.device}")
