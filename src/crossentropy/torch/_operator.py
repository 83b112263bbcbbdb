"""The losses of rows as operators that torch can compile, export, map over a batch and differentiate.

`torch.ops.crossentropy.row_losses` and its derivative `row_gradient` run on the core. What they have no rule for, the
second derivative, is that of the composed loss.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._options import LossOptions, row_options
from . import _composed
from ._kernel import PLAIN, TargetTensors, check, check_memory, empty_gradient, loss_from_core, row_dtype, row_shape


def row_losses(options: LossOptions, input: Tensor, targets: TargetTensors) -> Tensor:
    """One loss a row: from the core where it can be, else composed."""
    if core_applies(input, targets):
        target, weight, sample_weight = targets
        alone = input.dim() == 1  # an operator's rows can be mapped over where they have a batch to join
        if alone:
            input, target = input.unsqueeze(0), target.unsqueeze(0)
            sample_weight = None if sample_weight is None else sample_weight.unsqueeze(0)
        apply = _row_losses if torch.compiler.is_compiling() else _RowLosses.apply
        losses = apply(input, target, weight, sample_weight, options.ignore_index, options.numbers)
        return losses.squeeze(0) if alone else losses
    return _composed.row_losses(options, input, targets)


def core_applies(input: Tensor, targets: TargetTensors, *others: Tensor | None) -> bool:
    if forward_ad._current_level >= 0:  # operators have no rule for forward mode: torch would take a tangent of zero
        return False
    tensors = [tensor for tensor in (input, *targets, *others) if tensor is not None]
    if any(not tensor.is_cpu or tensor.layout is not torch.strided for tensor in tensors):
        return False
    if any(weight is not None and weight.requires_grad for weight in targets[1:]):
        return False
    if torch.compiler.is_compiling():
        return not torch._C._are_functorch_transforms_active()
    if torch.jit.is_tracing():
        return False
    return all(type(tensor) in PLAIN for tensor in tensors)


@torch.library.custom_op("crossentropy::row_losses", mutates_args=(), device_types="cpu")
def _row_losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    targets = TargetTensors(target, weight, sample_weight)
    check(input, targets)
    options = row_options(ignore_index, numbers)
    losses = input.new_empty(row_shape(input), dtype=row_dtype(input))
    loss_from_core(options, input, targets, losses)
    return losses


@_row_losses.register_fake
def _(input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *_: Any) -> Tensor:
    check(input, TargetTensors(target, weight, sample_weight))
    return input.new_empty(row_shape(input), dtype=row_dtype(input))


@torch.library.custom_op("crossentropy::row_gradient", mutates_args=(), device_types="cpu")
def _row_gradient(
    input: Tensor,
    target: Tensor,
    grad_output: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    targets = TargetTensors(target, weight, sample_weight)
    check(input, targets, grad_output)
    options = row_options(ignore_index, numbers)
    gradient = empty_gradient(input)
    loss_from_core(options, input, targets, gradient=gradient, row_scale=grad_output)
    return gradient


@_row_gradient.register_fake
def _(
    input: Tensor, target: Tensor, grad_output: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *_: Any
) -> Tensor:
    check(input, TargetTensors(target, weight, sample_weight), grad_output)
    return empty_gradient(input)


# Derivatives.


def _composed_vjp(input: Tensor, target: Tensor, grad_output: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """The composed loss's derivatives with respect to the logits and to probabilities, times grad_output."""
    weight, sample_weight, ignore_index, numbers = rest
    options = row_options(ignore_index, numbers)

    def losses(input: Tensor, target: Tensor) -> Tensor:
        return _composed.row_losses(options, input, TargetTensors(target, weight, sample_weight))

    if target.is_floating_point():
        return torch.func.vjp(losses, input, target)[1](grad_output)
    return torch.func.vjp(lambda z: losses(z, target), input)[1](grad_output)[0], None


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.rest = [None if isinstance(value, Tensor) else value for value in inputs]
    ctx.places = [isinstance(value, Tensor) for value in inputs]


def _saved(ctx: Any) -> list[Any]:
    saved = ctx.saved_tensors
    check_memory(**{f"saved tensor {i}": tensor for i, tensor in enumerate(saved)})
    tensors = iter(saved)
    return [next(tensors) if place else value for place, value in zip(ctx.places, ctx.rest, strict=True)]


def _losses_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    input, target, *rest = _saved(ctx)
    check(input, TargetTensors(target, *rest[:2]), grad_output)
    dinput = dtarget = None
    if ctx.needs_input_grad[0]:
        if forward_ad._current_level < 0 and not torch._C._functorch.is_legacy_batchedtensor(grad_output):
            apply = _row_gradient if torch.compiler.is_compiling() else _RowGradient.apply
            dinput = apply(input, target, grad_output, *rest)
        else:
            dinput = _composed_vjp(input, target, grad_output, *rest)[0]
    if ctx.needs_input_grad[1]:
        dtarget = _composed_vjp(input, target, grad_output, *rest)[1]
    return dinput, dtarget, *[None] * len(rest)


def _gradient_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    input, target, grad_output, *rest = _saved(ctx)

    def gradient(input: Tensor, target: Tensor, grad_output: Tensor) -> Tensor:
        return _composed_vjp(input, target, grad_output, *rest)[0]

    if target.is_floating_point():
        derivatives = torch.func.vjp(gradient, input, target, grad_output)[1](v)
    else:
        dinput, dgrad = torch.func.vjp(lambda z, g: gradient(z, target, g), input, grad_output)[1](v)
        derivatives = (dinput, None, dgrad)
    return *derivatives, *[None] * len(rest)


_row_losses.register_autograd(_losses_backward, setup_context=_save)
_row_gradient.register_autograd(_gradient_backward, setup_context=_save)


def _vmap(apply: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    """Make a mapped axis part of the batch. Mapped class weights need one call for each."""
    *rows_of, weight, sample_weight, ignore_index, numbers = args  # rows_of: logits, targets, upstream gradient
    *dims, weight_dim, sample_weight_dim, _, _ = in_dims
    tensors, dims = [*rows_of, sample_weight], [*dims, sample_weight_dim]

    def of_rows(tensors: list[Any], weight: Any) -> Tensor:
        *rows_of, sample_weight = tensors
        return apply(*rows_of, weight, sample_weight, ignore_index, numbers)

    if weight_dim is not None:
        each = [
            of_rows(
                [t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)],
                weight.select(weight_dim, i),
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(each), 0

    def joined(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        batch = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return batch.flatten(0, 1)

    rows = of_rows(list(map(joined, tensors, dims)), weight)
    return rows.unflatten(0, (info.batch_size, rows.shape[0] // info.batch_size)), 0


_row_losses.register_vmap(partial(_vmap, _row_losses))
_row_gradient.register_vmap(partial(_vmap, _row_gradient))


# The same for torch.func, whose transforms do not see through an operator's autograd.


class _RowLosses(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> Tensor:
        return _row_losses(*args)

    setup_context = staticmethod(_save)
    backward = staticmethod(_losses_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return _vmap(_RowLosses.apply, info, in_dims, *args)


class _RowGradient(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> Tensor:
        return _row_gradient(*args)

    setup_context = staticmethod(_save)
    backward = staticmethod(_gradient_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return _vmap(_RowGradient.apply, info, in_dims, *args)
