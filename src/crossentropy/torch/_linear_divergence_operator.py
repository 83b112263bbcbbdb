"""Divergences between linear heads as an operator, one for all numbers of rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _linear_divergence_kernel
from ._composed_divergence import DivergenceOptions, values_dtype
from ._divergence_kernel import numbers_of, options_of
from ._eager import differentiate_again
from ._head_chunks import HeadTensors
from ._head_operator import check_head, fake_gradients, gradients_or_nothing
from ._kernel import WEIGHT_TYPES, TargetTensors, check_memory, row_shape
from ._linear import upstream_gradients
from ._linear_divergence_kernel import composed_head_divergence, heads_of, over_chunks
from ._loss_operator import asks_for_composed, compiles
from ._register import differentiable_operator, operator
from ._token import fake_token, keep, take

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def head_divergence(
    options: DivergenceOptions, student: HeadTensors, teacher: HeadTensors, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence between two heads."""
    if compiles(student.input, TargetTensors(teacher.input, None, sample_weight), *student[1:3], *teacher[1:3]):
        rest = student.shape, options.student.reduction, *numbers_of(options)
        divergence: Tensor = _divergence(*student[:3], *teacher[:3], sample_weight, *rest)
        return divergence
    return _linear_divergence_kernel.head_divergence(options, student, teacher, sample_weight)


def _checked(
    tensors: Sequence[Tensor | None], sample_weight: Tensor | None, shape: Sequence[int]
) -> tuple[HeadTensors, HeadTensors]:
    heads = heads_of(tensors, tuple(shape))
    for head in heads:
        check_head(head)
    rows = row_shape(heads[0].logits)
    if heads[0].input.shape[0] != heads[1].input.shape[0] or heads[0].input.device != heads[1].input.device:
        raise ValueError("expected two heads with as many rows on one device")
    if sample_weight is not None and (sample_weight.shape != rows or sample_weight.dtype not in WEIGHT_TYPES):
        raise ValueError(f"sample_weight: expected real numbers of shape {tuple(rows)}")
    return heads


def _value_and_token(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_input: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    sample_weight: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    kind: str,
    numbers: Sequence[float],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    tensors = input, weight, bias, teacher_input, teacher_weight, teacher_bias
    heads = _checked(tensors, sample_weight, shape)
    made = (False,) * 6 if reduction == "none" else tuple(wanted)
    value, gradients = over_chunks(options_of(kind, numbers, reduction), heads, sample_weight, made)
    return value, keep(*gradients) if any(made) else keep()


def _fake_value_and_token(*args: Any) -> tuple[Tensor, Tensor]:
    student, teacher = _checked(args[:6], args[6], args[7])
    shape = row_shape(student.logits) if args[8] == "none" else ()
    return student.input.new_empty(shape, dtype=values_dtype(student.input, teacher.input)), fake_token(args[0])


def _gradients(
    token: Tensor,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_input: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    sample_weight: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    kind: str,
    numbers: Sequence[float],
    wanted: Sequence[bool],
) -> Six:
    tensors = input, weight, bias, teacher_input, teacher_weight, teacher_bias
    heads = _checked(tensors, sample_weight, shape)
    options = options_of(kind, numbers, reduction)
    half = any(head.input.element_size() == 2 for head in heads)

    def again(scale: float, row_scale: Tensor | None) -> Sequence[Tensor | None]:
        return over_chunks(options, heads, sample_weight, tuple(wanted), scale, row_scale)[1]

    gradients = upstream_gradients(grad_output, take(token) or None, reduction == "none", half, again)
    a, b, c, d, e, f = gradients_or_nothing(gradients, input)
    return a, b, c, d, e, f


def _fake_gradients(token: Tensor, grad_output: Tensor, *args: Any) -> Six:
    a, b, c, d, e, f = fake_gradients(args[:6], args[-1])
    return a, b, c, d, e, f


_with_token = operator("_head_divergence_and_token", _value_and_token, _fake_value_and_token)
_head_gradients = operator("_head_divergence_gradients", _gradients, _fake_gradients)


class _HeadDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        value, token = _with_token(*args, ctx.needs_input_grad[:6])
        ctx.save_for_backward(token, *args[:7])
        ctx.rest = args[7:]
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        token, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:6]
        if not asks_for_composed(grad_output):
            found = _head_gradients(token, grad_output, *tensors, *ctx.rest, wanted)
            return *(gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)), *[None] * 5
        *of_heads, sample_weight = tensors
        shape, reduction, kind, numbers = ctx.rest
        check_memory(**{f"saved tensor {i}": tensor for i, tensor in enumerate(tensors)})
        options, heads = options_of(kind, numbers, reduction), heads_of(of_heads, tuple(shape))
        return differentiate_again(
            ctx, tensors, grad_output, lambda: composed_head_divergence(options, *heads, sample_weight)
        )


def _value_alone(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_input: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    sample_weight: Tensor | None,
    shape: Sequence[int],
    reduction: str,
    kind: str,
    numbers: Sequence[float],
) -> Tensor:
    heads = input, weight, bias, teacher_input, teacher_weight, teacher_bias
    value: Tensor = _with_token(*heads, sample_weight, shape, reduction, kind, numbers, (False,) * 6)[0]
    return value


_divergence = differentiable_operator(
    "head_divergence", _value_alone, lambda *args: _fake_value_and_token(*args)[0], _HeadDivergence
)
