"""The linear head on torch's tensors: logits a chunk of rows at a time, in one buffer, never all of them."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._head import BLOCK_BYTES
from .._options import LossOptions
from . import _composed
from ._eager import check_saved, differentiate_again, is_plain, is_value, kinds, reciprocal
from ._head_chunks import HeadTensors, composed_head_loss, rows_of
from ._kernel import (
    TargetTensors,
    autocasts,
    check_memory,
    empty,
    loss_from_core,
    mean_divisor,
    readable,
    row_dtype,
    row_shape,
    scalar,
    under_transform,
)


def head_loss(
    options: LossOptions, head: HeadTensors, targets: TargetTensors, num_items: float | Tensor | None
) -> Tensor:
    """Reduce the losses of a head's rows."""
    plain = not isinstance(num_items, Tensor) and is_plain(head.input, targets, head.weight, head.bias)
    if not plain or targets.target.requires_grad:
        check_memory(input=head.input, linear_weight=head.weight, linear_bias=head.bias, **targets._asdict())
        return composed_head_loss(options, head, targets, num_items)
    assert not isinstance(num_items, Tensor)
    divisor = head_divisor(options, head, targets, num_items)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in head[:3]):
        return _HeadLoss.apply(*head[:3], *targets, head.shape, options, divisor)
    return loss_and_gradients(options, head, targets, divisor)[0]


def head_divisor(options: LossOptions, head: HeadTensors, targets: TargetTensors, num_items: float | None) -> float:
    divisor = mean_divisor(options, head.logits.shape, targets)  # a class index out of range raises
    if options.reduction != "mean":
        return 1.0
    return divisor if num_items is None else float(num_items)


class _HeadLoss(torch.autograd.Function):
    """The gradients for an upstream gradient of 1 are made with the loss and returned once.

    For 'none', and in half precision for another upstream gradient, they are made anew, so that they are rounded once.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        input, weight, bias, target, class_weight, sample_weight, shape, options, divisor = args
        ctx.save_for_backward(input, weight, bias, target, class_weight, sample_weight)
        ctx.rest = shape, options, divisor
        ctx.saved = kinds(*(tensor for tensor in (input, weight, bias, target) if tensor is not None))
        wanted = (False,) * 3 if options.reduction == "none" else ctx.needs_input_grad[:3]
        head, targets = HeadTensors(input, weight, bias, shape), TargetTensors(target, class_weight, sample_weight)
        loss, ctx.gradients = loss_and_gradients(options, head, targets, divisor, wanted)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, target, class_weight, sample_weight = tensors = ctx.saved_tensors
        shape, options, divisor = ctx.rest
        head, targets = HeadTensors(input, weight, bias, shape), TargetTensors(target, class_weight, sample_weight)
        check_saved(ctx.saved, [tensor for tensor in tensors[:4] if tensor is not None], head.logits, targets)
        if torch.is_grad_enabled() or under_transform() or not is_value(grad_output):
            return differentiate_again(
                ctx, tensors, grad_output, lambda: composed_head_loss(options, head, targets, divisor)
            )
        made, ctx.gradients = ctx.gradients, None
        gradients = upstream_gradients(
            grad_output,
            made,
            options.reduction == "none",
            head.input.element_size() == 2,
            lambda *scales: loss_and_gradients(options, head, targets, divisor, ctx.needs_input_grad[:3], *scales)[1],
        )
        return *gradients, *[None] * 6


def upstream_gradients(
    grad_output: Tensor,
    made: Sequence[Tensor | None] | None,
    per_row: bool,
    half: bool,
    again: Callable[[float, Tensor | None], Sequence[Tensor | None]],
) -> Sequence[Tensor | None]:
    """Gradients times the upstream one: those made for 1, or others where a product would round in half precision."""
    if per_row:
        return again(1.0, grad_output)
    scale = grad_output.item()
    if made is None or (scale != 1.0 and (half or not math.isfinite(scale))):
        return again(scale, None)
    return made if scale == 1.0 else [None if gradient is None else gradient.mul_(scale) for gradient in made]


def loss_and_gradients(
    options: LossOptions,
    head: HeadTensors,
    targets: TargetTensors,
    divisor: float,
    wanted: tuple[bool, ...] = (False, False, False),
    scale: float = 1.0,
    row_scale: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Loss, and the gradients wanted times the scales, from the rows that count."""
    per_row = options.reduction == "none"
    factor = reciprocal(divisor)
    head = HeadTensors(
        readable("input", head.input),
        readable("linear_weight", head.weight),
        None if head.bias is None else readable("linear_bias", head.bias),
        head.shape,
    )
    losses = head.input.new_zeros(row_shape(head.logits), dtype=row_dtype(head.input))
    kept = _kept(options, head, targets)
    count = head.input.shape[0] if kept is None else len(kept)
    if not (per_row or factor):  # no row counts, and rows may hold NaN
        count = 0
    step = min(head.rows_of_chunk(count), count)
    of_chunk = options if per_row else replace(options, reduction="sum")
    with torch.autocast("cpu", enabled=False) if autocasts(head.input) else nullcontext():
        gradients = GradientAccumulator(head, wanted)
        buffer = empty(head.input, step, head.weight.shape[0])
        sums = []
        for begin in range(0, count, step or 1):
            rows = slice(begin, min(begin + step, count)) if kept is None else kept[begin : begin + step]
            hidden = head.input[rows]
            z = buffer[: len(hidden)]
            _multiply(hidden, head.weight.t(), z)
            if head.bias is not None:
                z += head.bias
            chunk = TargetTensors(targets.target[rows], targets.weight, rows_of(targets.sample_weight, rows))
            logits = z.unflatten(1, head.shape)
            chunk_losses = losses.new_empty(row_shape(logits)) if per_row else None
            sums.append(
                loss_from_core(
                    of_chunk,
                    logits,
                    chunk,
                    chunk_losses,
                    z if any(wanted) else None,
                    scale * factor,
                    rows_of(row_scale, rows),
                )
            )
            if chunk_losses is not None:
                losses[rows] = chunk_losses
            gradients.add(rows, hidden, z)
    if not per_row:
        total = math.fsum(sums) if all(map(math.isfinite, sums)) else sum(sums)
        losses = scalar(total * factor if factor else 0.0, losses.dtype)
    return losses, gradients.result()


def _kept(options: LossOptions, head: HeadTensors, targets: TargetTensors) -> Tensor | None:
    """The hidden states with a loss that counts, or None for all of them."""
    counted = _composed.counted_rows(options, head.logits, targets)[1]
    if counted is None or counted.all():
        return None
    return counted.flatten(1).any(1).nonzero().squeeze(1) if counted.dim() > 1 else counted.nonzero().squeeze(1)


class GradientAccumulator:
    """Gradients of the head, added up chunk by chunk."""

    def __init__(self, head: HeadTensors, wanted: tuple[bool, ...]) -> None:
        self.head = head
        self.input = empty(head.input, *head.input.shape).zero_() if wanted[0] else None
        self.weight = empty(head.weight, *head.weight.shape) if wanted[1] else None
        self.bias = torch.zeros(head.weight.shape[:1], dtype=torch.float64) if wanted[2] else None
        self.started = False

    def add(self, rows: slice | Tensor, hidden: Tensor, dz: Tensor) -> None:
        if self.input is not None:
            if isinstance(rows, slice):
                _multiply(dz, self.head.weight, self.input[rows])
            else:
                self.input[rows] = _multiply(dz, self.head.weight, torch.empty_like(hidden))
        if self.weight is not None:
            (_add_product if self.started else _multiply)(dz.t(), hidden, self.weight)
        if self.bias is not None:
            self.bias += dz.sum(0, dtype=row_dtype(dz))
        self.started = True

    def result(self) -> list[Tensor | None]:
        if self.weight is not None and not self.started:
            self.weight.zero_()
        return [self.input, self.weight, None if self.bias is None else self.bias.to(self.head.weight.dtype)]


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write the product of two matrices."""
    if _numpy_multiplies(a.dtype):
        np.matmul(_array(a), _array(b), out=_array(out))
        return out
    return torch.mm(a, b, out=out)


def _add_product(a: Tensor, b: Tensor, total: Tensor) -> None:
    """Add the product of two matrices: in half precision, and with NumPy, a block at a time, while it is cached."""
    if a.element_size() > 2 and not _numpy_multiplies(a.dtype):
        total.addmm_(a, b)
        return
    step = max(1, BLOCK_BYTES // max(b[0].nbytes, 1))
    product = b.new_empty(min(step, a.shape[0]), b.shape[1])
    for begin in range(0, a.shape[0], step):
        block = total[begin : begin + step]
        block += _multiply(a[begin : begin + step], b, product[: len(block)])


def _array(matrix: Tensor) -> Any:
    """A NumPy view of a matrix. (After `Tensor.numpy` the storage could never be resized again.)"""
    size = matrix.element_size()
    interface = {
        "version": 3,
        "data": (matrix.data_ptr(), False),
        "shape": tuple(matrix.shape),
        "strides": tuple(size * step for step in matrix.stride()),
        "typestr": np.dtype(f"f{size}").str,
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface))


@cache
def _numpy_multiplies(dtype: torch.dtype) -> bool:
    """Whether NumPy's BLAS is much the faster of the two: measured once, on a product of 512 x 512 matrices.

    torch's MKL uses half of what some CPUs of other makers can do. Threads of both wait in loops after their work, so
    that they slow each other: torch is measured alone, NumPy after it, and must be half as fast again.
    """
    if dtype not in (torch.float32, torch.float64):
        return False
    matrix = torch.ones(512, 512, dtype=dtype)
    array, out = matrix.numpy(), torch.empty_like(matrix)

    def seconds(multiply: Callable[[], object]) -> float:
        begin = time.perf_counter()
        multiply()
        return time.perf_counter() - begin

    theirs = min(seconds(lambda: torch.mm(matrix, matrix, out=out)) for _ in range(10))
    ours = min(seconds(lambda: np.matmul(array, array, out=out.numpy())) for _ in range(10))
    return 1.5 * ours < theirs
