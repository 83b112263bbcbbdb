"""Log-probabilities of classes that are split, and entropies of their rows."""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions
from .._eager import check_kinds, kinds
from .._kernel import TargetTensors, empty_gradient
from ._group import Shard
from ._loss import check_once
from ._parts import losses_of, write_gradient

Results = tuple[Tensor, Tensor | None]


def log_probs(
    options: LossOptions, logits: Tensor, target: Tensor, whole: Tensor, shard: Shard, entropy: bool
) -> Results:
    """Of each row the log-probability, and where asked the entropy, in float64 and differentiable by the logits."""
    if not entropy:
        return _LogProb.apply(logits, target, whole, options, shard, False), None
    both: tuple[Tensor, Tensor] = _LogProb.apply(logits, target, whole, options, shard, True)
    return both


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        whole: Tensor,
        options: LossOptions,
        shard: Shard,
        entropy: bool,
    ) -> Any:
        ctx.save_for_backward(logits, target, whole)
        ctx.rest = options, shard, entropy, kinds(logits, target)
        ctx.set_materialize_grads(False)
        found, entropies = evaluate(options, target, whole, shard, entropy)
        return found if entropies is None else (found, entropies)

    @staticmethod
    def backward(ctx: Any, dlog_prob: Tensor | None, dentropy: Tensor | None = None) -> tuple[Tensor | None, ...]:
        given = [g for g in (dlog_prob, dentropy) if g is not None]
        if not given:
            return (None,) * 6
        check_once("vocab_parallel_log_prob", *given)
        logits, target, whole = ctx.saved_tensors
        options, shard, entropy, saved = ctx.rest
        check_kinds(saved, (logits, target))
        return gradient_of(options, logits, target, whole, shard, entropy, dlog_prob, dentropy), *[None] * 5


def evaluate(options: LossOptions, target: Tensor, whole: Tensor, shard: Shard, entropy: bool) -> Results:
    losses, entropies = losses_of(options, TargetTensors(target), shard, whole, entropy)
    return 0.0 - losses, entropies


def gradient_of(
    options: LossOptions,
    logits: Tensor,
    target: Tensor,
    whole: Tensor,
    shard: Shard,
    entropy: bool,
    dlog_prob: Tensor | None,
    dentropy: Tensor | None,
) -> Tensor:
    logits = logits.contiguous()
    gradient = empty_gradient(logits)
    of_losses = whole.new_zeros(whole.shape[0]) if dlog_prob is None else -dlog_prob.to(torch.float64)
    of_entropies = None if dentropy is None else dentropy.to(torch.float64).contiguous()
    targets = TargetTensors(target)
    write_gradient(options, logits, targets, shard, whole, of_losses.contiguous(), gradient, of_entropies, entropy)
    return gradient
