"""Divergences by the core: eager calls by addresses, compiled ones by operators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _core
from .._config import resolve_threads
from .._options import loss_options
from . import _operator
from ._composed_divergence import DivergenceOptions, reduced, row_divergences, values_dtype
from ._eager import check_kinds, is_plain, is_value, kinds
from ._kernel import (
    TYPES,
    WEIGHT_TYPES,
    LogitsInMemory,
    TargetTensors,
    address,
    as_weights,
    check_memory,
    class_axis,
    empty_gradient,
    readable,
    row_shape,
    scalar,
    under_transform,
)

# The sum or mean, or the values of rows; gradients of the student's logits and of the teacher's.
Found = tuple[float, Tensor | None, tuple[Tensor | None, Tensor | None]]


def divergence(
    options: DivergenceOptions, input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence."""
    targets = TargetTensors(teacher_input, None, sample_weight)
    if is_plain(input, targets):
        if torch.is_grad_enabled() and (input.requires_grad or teacher_input.requires_grad):
            return _Divergence.apply(input, teacher_input, sample_weight, options)
        return _value(evaluate(options, input, teacher_input, sample_weight), input, teacher_input)
    if torch.compiler.is_compiling() and _operator.core_applies(input, targets):
        rows = _row_divergences(input, teacher_input, sample_weight, *numbers_of(options))
    else:
        check_memory(input=input, teacher_input=teacher_input, sample_weight=sample_weight)
        rows = row_divergences(options, input, teacher_input, sample_weight)
    return reduced(options, rows, sample_weight)


def evaluate(
    options: DivergenceOptions,
    input: Tensor,
    teacher_input: Tensor,
    sample_weight: Tensor | None,
    wanted: tuple[bool, bool] = (False, False),
    scale: float = 1.0,
    row_scale: Tensor | None = None,
    in_place: bool = False,
) -> Found:
    """The sum or mean of the divergences, those of the rows for 'none', and the gradients wanted, times the scales.

    All are plain tensors on the CPU, and their shapes are right. The gradients may take the place of the logits.
    """
    axis = class_axis(input)

    def classes_last(name: str, logits: Tensor) -> Tensor:
        return readable(name, logits).movedim(axis, -1).contiguous()

    logits = classes_last("input", input), classes_last("teacher_input", teacher_input)
    places = (
        logits if in_place else [empty_gradient(z) if asked else z for z, asked in zip(logits, wanted, strict=True)]
    )
    gradients = [place if asked else None for place, asked in zip(places, wanted, strict=True)]
    dtype, reduction = values_dtype(input, teacher_input), options.student.reduction
    values = input.new_empty(row_shape(input), dtype=dtype) if reduction == "none" else None
    weight = None if sample_weight is None else as_weights("sample_weight", sample_weight)
    if row_scale is not None:
        row_scale = readable("grad_output", row_scale).to(torch.float64).contiguous()
    softcaps = [of.softcap for of in (options.student, options.teacher)]
    first, second = (0, 1) if options.kind == "reverse" else (1, 0)
    records = [LogitsInMemory(z.numel() // z.shape[-1], z.shape[-1], 1, z.data_ptr(), TYPES[z.dtype]) for z in logits]
    value = _core.divergence(
        first=records[first],
        second=records[second],
        beta=None if isinstance(options.kind, str) else options.kind,
        softcap_first=softcaps[first],
        softcap_second=softcaps[second],
        temperature=options.student.temperature,
        reduction=reduction,
        sample_weight=address(weight),
        gradient_scale=scale,
        grad_output=address(row_scale),
        values=address(values),
        dfirst=address(gradients[first]),
        dsecond=address(gradients[second]),
        num_threads=min(resolve_threads(None), torch.get_num_threads()),
    )
    student, teacher = (None if dz is None else dz.movedim(-1, axis) for dz in gradients)
    return value, values, (student, teacher)


def _value(found: Found, input: Tensor, teacher_input: Tensor) -> Tensor:
    return scalar(found[0], values_dtype(input, teacher_input)) if found[1] is None else found[1]


class _Divergence(torch.autograd.Function):
    """The gradients for an upstream gradient of 1 are made with the value and returned once.

    For another one, and for 'none', they are made anew, the upstream gradient applied before they are rounded.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None, options: DivergenceOptions
    ) -> Tensor:
        ctx.save_for_backward(input, teacher_input, sample_weight)
        ctx.rest = options, kinds(input, teacher_input)
        wanted = (False, False) if options.student.reduction == "none" else ctx.needs_input_grad[:2]
        found = evaluate(options, input, teacher_input, sample_weight, wanted)
        ctx.gradients = found[2]
        return _value(found, input, teacher_input)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, teacher_input, sample_weight = ctx.saved_tensors
        options, saved = ctx.rest
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or under_transform() or not is_value(grad_output):
            check_kinds(saved, (input, teacher_input))
            of = [z for z, asked in zip((input, teacher_input), wanted, strict=True) if asked]
            with torch.enable_grad():
                rows = row_divergences(options, input, teacher_input, sample_weight)
                value = reduced(options, rows, sample_weight)
            found = iter(torch.autograd.grad(value, of, grad_output, create_graph=torch.is_grad_enabled()))
            return *(next(found) if asked else None for asked in wanted), None, None
        gradients, ctx.gradients = ctx.gradients, None
        per_row = options.student.reduction == "none"
        scale = 1.0 if per_row else grad_output.item()
        if gradients is None or per_row or scale != 1.0:
            check_kinds(saved, (input, teacher_input))
            row_scale = grad_output if per_row else None
            gradients = evaluate(options, input, teacher_input, sample_weight, wanted, scale, row_scale)[2]
        return *gradients, None, None


# As operators, for compilation.


def numbers_of(options: DivergenceOptions) -> tuple[str, list[float]]:
    kind = options.kind
    of = [0.0 if isinstance(kind, str) else kind, options.student.softcap, options.teacher.softcap]
    return kind if isinstance(kind, str) else "jensen_shannon", [*of, options.student.temperature]


def options_of(kind: str, numbers: Sequence[float], reduction: Any = "none") -> DivergenceOptions:
    beta, softcap, teacher_softcap, temperature = numbers
    return DivergenceOptions(
        beta if kind == "jensen_shannon" else kind,
        loss_options(softcap=softcap, temperature=temperature, reduction=reduction),
        loss_options(softcap=teacher_softcap, temperature=temperature),
    )


def _check(
    input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None, grad_output: Tensor | None = None
) -> None:
    """Raise if shapes, dtypes or devices do not fit: an operator may be called without other checks."""
    rows = row_shape(input) if input.dim() else None
    for name, tensor, shape, types in (
        ("input", input, input.shape, tuple(TYPES)),
        ("teacher_input", teacher_input, input.shape, tuple(TYPES)),
        ("sample_weight", sample_weight, rows, WEIGHT_TYPES),
        ("grad_output", grad_output, rows, tuple(TYPES)),
    ):
        if tensor is not None and (tensor.shape != shape or tensor.dtype not in types or not input.dim()):
            raise ValueError(
                f"{name}: expected real numbers of shape {shape}, got {tuple(tensor.shape)} of {tensor.dtype}"
            )
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(f"{name}: expected a tensor on {input.device}, got one on {tensor.device}")
    if input.shape[class_axis(input)] == 0:
        raise ValueError(f"input: expected at least one class, got shape {tuple(input.shape)}")


@torch.library.custom_op("crossentropy::row_divergences", mutates_args=(), device_types="cpu")
def _row_divergences(
    input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None, kind: str, numbers: list[float]
) -> Tensor:
    _check(input, teacher_input, sample_weight)
    return _value(evaluate(options_of(kind, numbers), input, teacher_input, sample_weight), input, teacher_input)


@_row_divergences.register_fake
def _(input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None, *_: Any) -> Tensor:
    _check(input, teacher_input, sample_weight)
    return input.new_empty(row_shape(input), dtype=values_dtype(input, teacher_input))


@torch.library.custom_op("crossentropy::divergence_gradients", mutates_args=(), device_types="cpu")
def _divergence_gradients(
    input: Tensor,
    teacher_input: Tensor,
    sample_weight: Tensor | None,
    grad_output: Tensor,
    student: bool,
    teacher: bool,
    kind: str,
    numbers: list[float],
) -> tuple[Tensor, Tensor]:
    """The gradients wanted, those of one class at the end of memory; no elements where none is wanted."""
    _check(input, teacher_input, sample_weight, grad_output)
    found = evaluate(
        options_of(kind, numbers), input, teacher_input, sample_weight, (student, teacher), row_scale=grad_output
    )[2]
    a, b = (
        z.new_empty(0) if dz is None else dz.contiguous() for z, dz in zip((input, teacher_input), found, strict=True)
    )
    return a, b


@_divergence_gradients.register_fake
def _(
    input: Tensor,
    teacher_input: Tensor,
    sample_weight: Tensor | None,
    grad_output: Tensor,
    student: bool,
    teacher: bool,
    *_: Any,
) -> tuple[Tensor, Tensor]:
    _check(input, teacher_input, sample_weight, grad_output)
    return input.new_empty(input.shape if student else 0), teacher_input.new_empty(input.shape if teacher else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.kind, ctx.numbers = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[:2]
    if forward_ad._current_level >= 0:
        found = _composed_vjp(tensors[0], tensors[1], tensors[2], grad_output, ctx.kind, ctx.numbers)
    else:
        found = _divergence_gradients(*tensors, grad_output, *wanted, ctx.kind, ctx.numbers)
    return *(dz if asked else None for dz, asked in zip(found, wanted, strict=True)), None, None, None


def _composed_vjp(
    input: Tensor,
    teacher_input: Tensor,
    sample_weight: Tensor | None,
    grad_output: Tensor,
    kind: str,
    numbers: list[float],
) -> tuple[Tensor, Tensor]:
    options = options_of(kind, numbers)
    vjp = torch.func.vjp(lambda z, w: row_divergences(options, z, w, sample_weight), input, teacher_input)[1]
    return vjp(grad_output)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.student, ctx.teacher, ctx.kind, ctx.numbers = inputs
    ctx.save_for_backward(*tensors)


def _gradients_backward(ctx: Any, v: Tensor | None, w: Tensor | None) -> tuple[Tensor | None, ...]:
    input, teacher_input, sample_weight, grad_output = ctx.saved_tensors

    def gradients(input: Tensor, teacher_input: Tensor, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        return _composed_vjp(input, teacher_input, sample_weight, grad_output, ctx.kind, ctx.numbers)

    found, vjp = torch.func.vjp(gradients, input, teacher_input, grad_output)
    upstream = tuple(
        given if given is not None and asked else torch.zeros_like(dz)
        for given, asked, dz in zip((v, w), (ctx.student, ctx.teacher), found, strict=True)
    )
    dinput, dteacher, dgrad = vjp(upstream)
    return dinput, dteacher, None, dgrad, None, None, None, None


_row_divergences.register_autograd(_backward, setup_context=_save)
_divergence_gradients.register_autograd(_gradients_backward, setup_context=_save_gradients)
