"""Log-probabilities and entropy of a linear head: by the core a chunk of rows at a time, or composed."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .._options import LossOptions
from . import _composed_log_prob
from ._arguments import check_range
from ._eager import check_kinds, is_plain, is_value, kinds
from ._head_chunks import HeadTensors, in_chunks, kept_rows, logits_of
from ._kernel import TargetTensors, autocasts, check_memory, empty, readable, row_dtype, row_shape, under_transform
from ._linear import GradientAccumulator, _multiply
from ._log_prob_kernel import Results, evaluate

Gradients = list[Tensor | None]  # of hidden states, classifier and bias


def head_log_prob(options: LossOptions, head: HeadTensors, target: Tensor, entropy: bool) -> Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    check_range(head.logits.shape, target, options.ignore_index)
    if not is_plain(head.input, TargetTensors(target), head.weight, head.bias):
        check_memory(input=head.input, linear_weight=head.weight, linear_bias=head.bias, target=target)
        return composed(options, head, target, entropy)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in head[:3]):
        results = _HeadLogProb.apply(*head[:3], target, head.shape, options, entropy)
        return results if entropy else (results, None)
    return over_chunks(options, head, target, entropy)[0]


class _HeadLogProb(torch.autograd.Function):
    """The backward pass makes the logits again, when the upstream gradient of each number is known."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        input, weight, bias, target, shape, options, entropy = args
        ctx.save_for_backward(input, weight, bias, target)
        ctx.rest = shape, options, entropy
        ctx.saved = kinds(*(tensor for tensor in (input, weight, bias, target) if tensor is not None))
        ctx.set_materialize_grads(False)
        results = over_chunks(options, HeadTensors(input, weight, bias, shape), target, entropy)[0]
        return results if entropy else results[0]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        input, weight, bias, target = tensors = ctx.saved_tensors
        shape, options, entropy = ctx.rest
        check_kinds(ctx.saved, [tensor for tensor in tensors if tensor is not None])
        head, wanted = HeadTensors(input, weight, bias, shape), ctx.needs_input_grad[:3]
        given = [g for g in upstream if g is not None]
        gradients: Gradients = [None] * 3
        if given and (torch.is_grad_enabled() or under_transform() or not all(map(is_value, given))):
            with torch.enable_grad():
                results = composed(options, head, target, entropy)
            of = [r for r, g in zip(results, upstream, strict=False) if g is not None and r is not None]
            inputs = [tensor for tensor, asked in zip(head[:3], wanted, strict=True) if asked]
            found = iter(torch.autograd.grad(of, inputs, given, create_graph=torch.is_grad_enabled()))
            gradients = [next(found) if asked else None for asked in wanted]
        elif given:
            gradients = over_chunks(options, head, target, False, wanted, *upstream)[1]
        return *gradients, *[None] * 4


def over_chunks(
    options: LossOptions,
    head: HeadTensors,
    target: Tensor,
    entropy: bool,
    wanted: tuple[bool, ...] = (False, False, False),
    dlog_prob: Tensor | None = None,
    dentropy: Tensor | None = None,
) -> tuple[Results, Gradients]:
    """Log-probabilities and entropies, and the gradients wanted, from the rows that count."""
    head = HeadTensors(
        readable("input", head.input),
        readable("linear_weight", head.weight),
        None if head.bias is None else readable("linear_bias", head.bias),
        head.shape,
    )
    target, dtype = readable("target", target), row_dtype(head.input)
    log_probs = head.input.new_zeros(target.shape, dtype=dtype)
    entropies = head.input.new_zeros(row_shape(head.logits), dtype=dtype) if entropy else None
    kept = None if options.ignore_index is None else kept_rows(target.long() != options.ignore_index)
    count = head.input.shape[0] if kept is None else len(kept)
    step = min(head.rows_of_chunk(count), count)
    with torch.autocast("cpu", enabled=False) if autocasts(head.input) else nullcontext():
        gradients = GradientAccumulator(head, wanted)
        buffer = empty(head.input, step, head.weight.shape[0])
        for begin in range(0, count, step or 1):
            rows = slice(begin, min(begin + step, count)) if kept is None else kept[begin : begin + step]
            hidden = head.input[rows]
            z = buffer[: len(hidden)]
            _multiply(hidden, head.weight.t(), z)
            if head.bias is not None:
                z += head.bias
            log_probs[rows], of_entropy = evaluate(
                options,
                z.unflatten(1, head.shape),
                target[rows],
                entropy,
                z if any(wanted) else None,
                None if dlog_prob is None else dlog_prob[rows],
                None if dentropy is None else dentropy[rows],
            )
            if entropies is not None:
                entropies[rows] = of_entropy
            gradients.add(rows, hidden, z)
    return (log_probs, entropies), gradients.result()


def composed(options: LossOptions, head: HeadTensors, target: Tensor, entropy: bool) -> Results:
    def chunk(input: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        counted = target == target if options.ignore_index is None else target.long() != options.ignore_index
        logits = logits_of(input, weight, bias, head.shape, counted)
        log_probs, entropies = _composed_log_prob.log_prob_and_entropy(options, logits, target, entropy)
        return (log_probs,) if entropies is None else (log_probs, entropies)

    log_probs, *rest = in_chunks(chunk, head.rows_of_chunk, (head.input, target), (head.weight, head.bias))
    return log_probs, rest[0] if rest else None
