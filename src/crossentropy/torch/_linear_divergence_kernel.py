"""Divergences between linear heads: by the core a chunk of rows at a time, or composed."""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from . import _composed
from ._composed_divergence import DivergenceOptions, reduced, row_divergences, values_dtype
from ._divergence_kernel import evaluate
from ._eager import check_kinds, is_plain, is_value, kinds, reciprocal
from ._head_chunks import HeadTensors, in_chunks, kept_rows, logits_of, rows_of
from ._kernel import TargetTensors, autocasts, check_memory, empty, readable, row_shape, scalar, under_transform
from ._linear import GradientAccumulator, _multiply, upstream_gradients

_NAMES = ("input", "linear_weight", "linear_bias")


def head_divergence(
    options: DivergenceOptions, student: HeadTensors, teacher: HeadTensors, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence between two heads."""
    tensors = (*student[:3], *teacher[:3])
    if not is_plain(student.input, TargetTensors(teacher.input, None, sample_weight), *tensors):
        check_memory(**dict(zip(_NAMES, student[:3], strict=True)), sample_weight=sample_weight)
        check_memory(**{f"teacher_{name}": tensor for name, tensor in zip(_NAMES, teacher[:3], strict=True)})
        return composed_head_divergence(options, student, teacher, sample_weight)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _HeadDivergence.apply(*tensors, sample_weight, student.shape, options)
    return over_chunks(options, (student, teacher), sample_weight)[0]


class _HeadDivergence(torch.autograd.Function):
    """The gradients for an upstream gradient of 1 are made with the value and returned once.

    For 'none', and in half precision for another upstream gradient, they are made anew, so that they are rounded once.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, sample_weight, shape, options = args
        ctx.save_for_backward(*tensors, sample_weight)
        ctx.rest = shape, options
        ctx.saved = kinds(*(tensor for tensor in tensors if tensor is not None))
        wanted = (False,) * 6 if options.student.reduction == "none" else ctx.needs_input_grad[:6]
        value, ctx.gradients = over_chunks(options, heads_of(tensors, shape), sample_weight, wanted)
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, sample_weight = ctx.saved_tensors
        shape, options = ctx.rest
        check_kinds(ctx.saved, [tensor for tensor in tensors if tensor is not None])
        heads, wanted = heads_of(tensors, shape), ctx.needs_input_grad[:6]
        if torch.is_grad_enabled() or under_transform() or not is_value(grad_output):
            with torch.enable_grad():
                value = composed_head_divergence(options, *heads, sample_weight)
            inputs = [tensor for tensor, asked in zip(tensors, wanted, strict=True) if asked]
            found = iter(torch.autograd.grad(value, inputs, grad_output, create_graph=torch.is_grad_enabled()))
            return *(next(found) if asked else None for asked in wanted), None, None, None
        made, ctx.gradients = ctx.gradients, None
        gradients = upstream_gradients(
            grad_output,
            made,
            options.student.reduction == "none",
            any(head.input.element_size() == 2 for head in heads),
            lambda *scales: over_chunks(options, heads, sample_weight, wanted, *scales)[1],
        )
        return *gradients, None, None, None


def heads_of(tensors: Any, shape: tuple[int, ...]) -> tuple[HeadTensors, HeadTensors]:
    a, b, c, d, e, f = tensors
    return HeadTensors(a, b, c, shape), HeadTensors(d, e, f, shape)


def _readable(head: HeadTensors, of: str) -> HeadTensors:
    input, weight, bias = (
        None if tensor is None else readable(of + name, tensor) for name, tensor in zip(_NAMES, head[:3], strict=True)
    )
    assert input is not None
    assert weight is not None
    return HeadTensors(input, weight, bias, head.shape)


def _rows_of_chunk(heads: tuple[HeadTensors, HeadTensors], count: int) -> int:
    return min(head.rows_of_chunk(count) for head in heads)


def over_chunks(
    options: DivergenceOptions,
    heads: tuple[HeadTensors, HeadTensors],
    sample_weight: Tensor | None,
    wanted: tuple[bool, ...] = (False,) * 6,
    scale: float = 1.0,
    row_scale: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The reduced divergence, and the gradients wanted times the scales, from the rows that count."""
    heads = _readable(heads[0], ""), _readable(heads[1], "teacher_")
    rows_shape, dtype = row_shape(heads[0].logits), values_dtype(heads[0].input, heads[1].input)
    reduction, factor = options.student.reduction, 1.0
    if reduction == "mean":
        targets = TargetTensors(heads[0].logits, None, sample_weight)
        factor = reciprocal(_composed.composed_divisor(options.student, heads[0].logits, targets).item())
    values = heads[0].input.new_zeros(rows_shape, dtype=dtype) if reduction == "none" else None
    of_chunk = options if values is not None else options.summed()
    kept = None if sample_weight is None else kept_rows(sample_weight != 0)
    count = heads[0].input.shape[0] if kept is None else len(kept)
    if not factor:  # no row counts, and rows may hold NaN
        count = 0
    step = min(_rows_of_chunk(heads, count), count)
    asked = [any(wanted[:3]), any(wanted[3:])]
    with torch.autocast("cpu", enabled=False) if autocasts(heads[0].input) else nullcontext():
        accumulators = [GradientAccumulator(heads[0], wanted[:3]), GradientAccumulator(heads[1], wanted[3:])]
        buffers = [empty(head.input, step, head.weight.shape[0]) for head in heads]
        sums = []
        for begin in range(0, count, step or 1):
            rows = slice(begin, min(begin + step, count)) if kept is None else kept[begin : begin + step]
            hidden = [head.input[rows] for head in heads]
            logits = [buffer[: len(h)] for buffer, h in zip(buffers, hidden, strict=True)]
            for head, h, z in zip(heads, hidden, logits, strict=True):
                _multiply(h, head.weight.t(), z)
                if head.bias is not None:
                    z += head.bias
            student, teacher = (z.unflatten(1, head.shape) for z, head in zip(logits, heads, strict=True))
            s, upstream = rows_of(sample_weight, rows), rows_of(row_scale, rows)
            value, of_rows, gradients = evaluate(
                of_chunk, student, teacher, s, (asked[0], asked[1]), scale * factor, upstream, in_place=True
            )
            sums.append(value)
            if values is not None:
                values[rows] = of_rows
            for accumulator, h, dz in zip(accumulators, hidden, gradients, strict=True):
                if dz is not None:
                    accumulator.add(rows, h, dz.flatten(1))
    found = [gradient for accumulator in accumulators for gradient in accumulator.result()]
    if values is not None:
        return values, found
    total = math.fsum(sums) if all(map(math.isfinite, sums)) else sum(sums)
    return scalar(total * factor if factor else 0.0, dtype), found


def composed_head_divergence(
    options: DivergenceOptions, student: HeadTensors, teacher: HeadTensors, sample_weight: Tensor | None
) -> Tensor:
    def chunk(
        input: Tensor,
        teacher_input: Tensor,
        s: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
    ) -> tuple[Tensor]:
        counted = input.new_ones(input.shape[:1]).bool() if s is None else s != 0
        logits = logits_of(input, weight, bias, student.shape, counted)
        of_teacher = logits_of(teacher_input, teacher_weight, teacher_bias, student.shape, counted)
        return (row_divergences(options, logits, of_teacher, s),)

    def rows_of_chunk(count: int) -> int:
        return _rows_of_chunk((student, teacher), count)

    of_rows = (student.input, teacher.input, sample_weight)
    (rows,) = in_chunks(chunk, rows_of_chunk, of_rows, (student.weight, student.bias, teacher.weight, teacher.bias))
    return reduced(options, rows, sample_weight)
