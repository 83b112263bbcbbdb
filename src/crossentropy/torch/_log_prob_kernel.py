"""Log-probabilities and entropy by the core: eager calls by addresses, compiled ones by operators."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _core
from .._call import Call
from .._config import resolve_threads
from .._options import LossOptions, row_options
from .._targets import Targets
from . import _composed_log_prob, _operator
from ._arguments import check_indices, check_range
from ._eager import check_kinds, is_plain, is_value, kinds
from ._kernel import (
    TYPES,
    TargetTensors,
    address,
    check_memory,
    class_axis,
    empty_gradient,
    logits_in_memory,
    readable,
    row_dtype,
    row_shape,
    under_transform,
)

Results = tuple[Tensor, Tensor | None]


def log_prob_and_entropy(options: LossOptions, input: Tensor, target: Tensor, entropy: bool) -> Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    targets = TargetTensors(target)
    if is_plain(input, targets):
        if not (torch.is_grad_enabled() and input.requires_grad):
            return evaluate(options, input, target, entropy)
        results = _LogProb.apply(input, target, options, entropy)
        return results if entropy else (results, None)
    if torch.compiler.is_compiling() and _operator.core_applies(input, targets):
        log_probs, entropies = _log_prob(input, target, entropy, options.ignore_index, options.numbers)
        return log_probs, entropies if entropy else None
    check_range(input.shape, target, options.ignore_index)
    check_memory(input=input, target=target)
    return _composed_log_prob.log_prob_and_entropy(options, input, target, entropy)


def evaluate(
    options: LossOptions,
    input: Tensor,
    target: Tensor,
    entropy: bool,
    gradient: Tensor | None = None,
    dlog_prob: Tensor | None = None,
    dentropy: Tensor | None = None,
) -> Results:
    """Log-probabilities and entropies; `gradient` receives that of the logits for the upstream gradients.

    All are plain tensors on the CPU, and their shapes are right.
    """
    input, axis = readable("input", input), class_axis(input)
    dtype, rows = row_dtype(input), row_shape(input)
    several = target.dim() == input.dim()

    def k_last(tensor: Tensor) -> Tensor:
        return (tensor.movedim(axis, -1) if several else tensor).contiguous()

    index = k_last(readable("target", target).long())
    each = None if dlog_prob is None else k_last(readable("dlog_prob", dlog_prob).to(torch.float64))
    of_entropy = None if dentropy is None else readable("dentropy", dentropy).to(torch.float64).contiguous()
    log_probs = input.new_empty(index.shape, dtype=dtype)
    entropies = input.new_empty(rows, dtype=dtype) if entropy else None
    weight = q = None
    scale = 1.0
    if several:
        check_range(input.shape, target, options.ignore_index)  # the core knows only -1 for an empty place
        k = index.shape[-1]
        empty = torch.full_like(index, False, dtype=torch.bool)
        if options.ignore_index is not None:
            empty = index == options.ignore_index
            index = torch.where(empty, -1, index)
        counts = (~empty).any(-1)
        weight = None if k and counts.all() else counts.to(torch.float64).contiguous()
        if each is not None:  # the log-probabilities times these are a loss whose target probabilities they are
            q = torch.where(empty, 0.0, -each).contiguous()
        targets = Targets(None, address(q), TYPES[torch.float64], address(index), k)
    else:  # they are minus the losses
        targets = Targets(address(index))
        scale = 0.0 if each is None else -1.0
    logits, memory = logits_in_memory(input)
    record: Any = logits
    call = Call(options, record, targets, None, address(weight), min(resolve_threads(None), torch.get_num_threads()))
    try:
        _core.loss(
            call,
            gradient_scale=scale,
            grad_output=None if several else address(each),
            losses=None if several else address(log_probs),
            dlogits=address(gradient),
            entropy_grad_output=address(of_entropy),
            entropies=address(entropies),
            log_probabilities=address(log_probs) if several else None,
        )
    except IndexError as error:
        raise IndexError(str(error).replace("targets:", "target:", 1)) from None
    del memory  # until here: the core has read it
    return log_probs.movedim(-1, axis).contiguous() if several else 0.0 - log_probs, entropies


class _LogProb(torch.autograd.Function):
    """The backward pass reads the logits again, when the upstream gradient of each number is known."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, options: LossOptions, entropy: bool) -> Any:
        ctx.save_for_backward(input, target)
        ctx.rest = options, entropy, kinds(input, target)
        ctx.set_materialize_grads(False)
        results = evaluate(options, input, target, entropy)
        return results if entropy else results[0]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        input, target = ctx.saved_tensors
        options, entropy, saved = ctx.rest
        check_kinds(saved, (input, target))
        given = [g for g in upstream if g is not None]
        if not given:
            return None, None, None, None
        if torch.is_grad_enabled() or under_transform() or not all(map(is_value, given)):
            with torch.enable_grad():
                results = _composed_log_prob.log_prob_and_entropy(options, input, target, entropy)
            wanted = [r for r, g in zip(results, upstream, strict=False) if g is not None and r is not None]
            (dinput,) = torch.autograd.grad(wanted, input, given, create_graph=torch.is_grad_enabled())
            return dinput, None, None, None
        gradient = empty_gradient(input)
        evaluate(options, input, target, False, gradient, *upstream)
        return gradient, None, None, None


# As operators, for compilation.


@torch.library.custom_op("crossentropy::log_prob", mutates_args=(), device_types="cpu")
def _log_prob(
    input: Tensor, target: Tensor, entropy: bool, ignore_index: int | None, numbers: list[float]
) -> tuple[Tensor, Tensor]:
    check_indices(input.shape, target)
    log_probs, entropies = evaluate(row_options(ignore_index, numbers), input, target, entropy)
    return log_probs, log_probs.new_empty(0) if entropies is None else entropies


@_log_prob.register_fake
def _(input: Tensor, target: Tensor, entropy: bool, *_: Any) -> tuple[Tensor, Tensor]:
    check_indices(input.shape, target)
    like = input.new_empty(target.shape, dtype=row_dtype(input))
    return like, like.new_empty(row_shape(input) if entropy else (0,))


@torch.library.custom_op("crossentropy::log_prob_gradient", mutates_args=(), device_types="cpu")
def _log_prob_gradient(
    input: Tensor,
    target: Tensor,
    dlog_prob: Tensor | None,
    dentropy: Tensor | None,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    _check_upstream(input, target, dlog_prob, dentropy)
    gradient = empty_gradient(input)
    evaluate(row_options(ignore_index, numbers), input, target, False, gradient, dlog_prob, dentropy)
    return gradient


@_log_prob_gradient.register_fake
def _(input: Tensor, target: Tensor, dlog_prob: Tensor | None, dentropy: Tensor | None, *_: Any) -> Tensor:
    _check_upstream(input, target, dlog_prob, dentropy)
    return empty_gradient(input)


def _check_upstream(input: Tensor, target: Tensor, dlog_prob: Tensor | None, dentropy: Tensor | None) -> None:
    check_indices(input.shape, target)
    for name, tensor, shape in (("dlog_prob", dlog_prob, target.shape), ("dentropy", dentropy, row_shape(input))):
        if tensor is not None and (tensor.shape != shape or tensor.dtype not in TYPES):
            raise ValueError(
                f"{name}: expected real numbers of shape {tuple(shape)}, got {tuple(tensor.shape)} of {tensor.dtype}"
            )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, target, entropy, ignore_index, numbers = inputs
    ctx.save_for_backward(input, target)
    ctx.rest = entropy, ignore_index, numbers


def _backward(ctx: Any, dlog_prob: Tensor | None, dentropy: Tensor | None) -> tuple[Tensor | None, ...]:
    input, target = ctx.saved_tensors
    entropy, *rest = ctx.rest
    dentropy = dentropy if entropy else None
    if forward_ad._current_level >= 0:
        gradient = _composed_vjp(input, target, dlog_prob, dentropy, *rest)
    else:
        gradient = _log_prob_gradient(input, target, dlog_prob, dentropy, *rest)
    return gradient, None, None, None, None


def _composed_vjp(
    input: Tensor, target: Tensor, dlog_prob: Tensor | None, dentropy: Tensor | None, *rest: Any
) -> Tensor:
    options = row_options(*rest)

    def results(input: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, entropies = _composed_log_prob.log_prob_and_entropy(options, input, target, True)
        assert entropies is not None
        return log_probs, entropies

    (log_probs, entropies), vjp = torch.func.vjp(results, input)
    given = (
        torch.zeros_like(like) if upstream is None else upstream.to(like.dtype)
        for like, upstream in ((log_probs, dlog_prob), (entropies, dentropy))
    )
    (gradient,) = vjp(tuple(given))
    return gradient


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, target, dlog_prob, dentropy, *ctx.rest = inputs
    ctx.save_for_backward(input, target, dlog_prob, dentropy)


def _gradient_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    input, target, *upstream = ctx.saved_tensors
    given = [g for g in upstream if g is not None]

    def gradient(input: Tensor, *given: Tensor) -> Tensor:
        left = iter(given)
        return _composed_vjp(input, target, *(None if g is None else next(left) for g in upstream), *ctx.rest)

    dinput, *rest = torch.func.vjp(gradient, input, *given)[1](v)
    found = iter(rest)
    return dinput, None, *(None if g is None else next(found) for g in upstream), None, None


_log_prob.register_autograd(_backward, setup_context=_save)
_log_prob_gradient.register_autograd(_gradient_backward, setup_context=_save_gradient)
