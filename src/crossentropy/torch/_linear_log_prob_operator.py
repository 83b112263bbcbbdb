"""Log-probabilities and entropy of a linear head as an operator, one for all numbers of rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._options import LossOptions, row_options
from . import _linear_log_prob_kernel
from ._arguments import check_indices
from ._head_chunks import HeadTensors
from ._head_operator import check_head, fake_gradients, gradients_or_nothing
from ._kernel import TYPES, TargetTensors, check_memory, row_dtype, row_shape
from ._linear_log_prob_kernel import composed, over_chunks
from ._log_prob_kernel import Results
from ._loss_operator import asks_for_composed, compiles
from ._register import differentiable_operator, operator


def head_log_prob(options: LossOptions, head: HeadTensors, target: Tensor, entropy: bool) -> Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    if compiles(head.input, TargetTensors(target), head.weight, head.bias):
        rest = head.shape, entropy, options.ignore_index, options.numbers
        log_probs, entropies = _log_prob(*head[:3], target, *rest)
        return log_probs, entropies if entropy else None
    return _linear_log_prob_kernel.head_log_prob(options, head, target, entropy)


def _checked(input: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Sequence[int]) -> HeadTensors:
    head = HeadTensors(input, weight, bias, tuple(shape))
    check_head(head)
    check_indices(head.logits.shape, target)
    return head


def _both(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    shape: Sequence[int],
    entropy: bool,
    ignore_index: int | None,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies; no elements where these are not asked for."""
    head = _checked(input, weight, bias, target, shape)
    log_probs, entropies = over_chunks(row_options(ignore_index, numbers), head, target, entropy)[0]
    return log_probs, log_probs.new_empty(0) if entropies is None else entropies


def _fake_both(
    input: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Sequence[int], entropy: bool, *_: Any
) -> tuple[Tensor, Tensor]:
    head = _checked(input, weight, bias, target, shape)
    log_probs = input.new_empty(target.shape, dtype=row_dtype(input))
    return log_probs, log_probs.new_empty(row_shape(head.logits) if entropy else 0)


def _gradients(
    dlog_prob: Tensor | None,
    dentropy: Tensor | None,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    shape: Sequence[int],
    ignore_index: int | None,
    numbers: Sequence[float],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    head = _checked(input, weight, bias, target, shape)
    for name, tensor, of in (("dlog_prob", dlog_prob, target.shape), ("dentropy", dentropy, row_shape(head.logits))):
        if tensor is not None and (tensor.shape != of or tensor.dtype not in TYPES):
            raise ValueError(f"{name}: expected real numbers of shape {tuple(of)}, got {tuple(tensor.shape)}")
    options = row_options(ignore_index, numbers)
    found = over_chunks(options, head, target, False, tuple(wanted), dlog_prob, dentropy)[1]
    dinput, dweight, dbias = gradients_or_nothing(found, input)
    return dinput, dweight, dbias


def _fake_gradients(dlog_prob: Tensor | None, dentropy: Tensor | None, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    dinput, dweight, dbias = fake_gradients(args[:3], args[-1])
    return dinput, dweight, dbias


_values = operator("_head_log_prob", _both, _fake_both)
_head_gradients = operator("_head_log_prob_gradients", _gradients, _fake_gradients)


class _HeadLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*args[:4])
        ctx.rest = args[4:]
        ctx.set_materialize_grads(False)
        log_probs, entropies = _values(*args)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, dlog_prob: Tensor | None, dentropy: Tensor | None) -> tuple[Tensor | None, ...]:
        input, weight, bias, target = tensors = ctx.saved_tensors
        shape, entropy, *rest = ctx.rest
        wanted = ctx.needs_input_grad[:3]
        upstream = dlog_prob, dentropy if entropy else None
        given = [g for g in upstream if g is not None]
        if not given:
            return (None,) * 8
        if not any(map(asks_for_composed, given)):
            gradients = _head_gradients(*upstream, *tensors, shape, *rest, wanted)
        else:
            check_memory(input=input, linear_weight=weight, linear_bias=bias, target=target)
            head = HeadTensors(input, weight, bias, tuple(shape))
            with torch.enable_grad():
                results = composed(row_options(*rest), head, target, entropy)
            of = [r for r, g in zip(results, upstream, strict=True) if g is not None and r is not None]
            inputs = [tensor for tensor, asked in zip(head[:3], wanted, strict=True) if asked]
            found = iter(torch.autograd.grad(of, inputs, given, create_graph=torch.is_grad_enabled()))
            gradients = [next(found) if asked else None for asked in wanted]
        return *(gradient if asked else None for gradient, asked in zip(gradients, wanted, strict=True)), *[None] * 5


_log_prob = differentiable_operator("head_log_prob", _both, _fake_both, _HeadLogProb)
