"""Log-probabilities and entropies over split classes as an operator, of what `_operator.joined` returns."""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions, row_options
from .._kernel import empty_gradient
from .._register import differentiable_operator, operator
from ._arguments import SplitRows
from ._log_prob import evaluate, gradient_of
from ._loss import check_once
from ._operator import shard_at
from ._parts import widened


def log_probs(
    options: LossOptions, rows: SplitRows, whole: Tensor, place: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    found, entropies = _log_prob(
        rows.logits, rows.targets.target, whole, place, entropy, options.ignore_index, options.numbers
    )
    return found, entropies if entropy else None


def _log_probs_of(
    logits: Tensor,
    target: Tensor,
    whole: Tensor,
    place: Tensor,
    entropy: bool,
    ignore_index: int | None,
    numbers: list[float],
) -> tuple[Tensor, Tensor]:
    shard, _ = shard_at(logits, place)
    found, entropies = evaluate(row_options(ignore_index, numbers), target, widened(whole), shard, entropy)
    return found, found.new_empty(0) if entropies is None else entropies


def _fake_log_probs(
    logits: Tensor, target: Tensor, whole: Tensor, place: Tensor, entropy: bool, *_: Any
) -> tuple[Tensor, Tensor]:
    return whole.new_empty(whole.shape[0]), whole.new_empty(whole.shape[0] if entropy else 0)


def _gradient_of_log_probs(
    dlog_prob: Tensor,
    dentropy: Tensor,
    logits: Tensor,
    target: Tensor,
    whole: Tensor,
    place: Tensor,
    entropy: bool,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    shard, _ = shard_at(logits, place)
    options = row_options(ignore_index, numbers)
    of_entropy = dentropy if entropy else None
    return gradient_of(options, logits, target, widened(whole), shard, entropy, dlog_prob, of_entropy)


_log_prob_gradient = operator(
    "_split_log_prob_gradient", _gradient_of_log_probs, lambda dlog_prob, dentropy, logits, *_: empty_gradient(logits)
)


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*args[:4])
        ctx.rest = args[4:]
        results: tuple[Tensor, Tensor] = _log_prob_alone(*args)
        return results

    @staticmethod
    def backward(ctx: Any, dlog_prob: Tensor, dentropy: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_log_prob", dlog_prob, dentropy)
        return _log_prob_gradient(dlog_prob, dentropy, *ctx.saved_tensors, *ctx.rest), *[None] * 6


_log_prob_alone = operator("_split_log_prob_alone", _log_probs_of, _fake_log_probs)
_log_prob = differentiable_operator("_split_log_prob", _log_probs_of, _fake_log_probs, _LogProb)
