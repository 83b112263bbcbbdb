"""The same as operators, for programs that torch compiles: what ranks know of their rows is sent by functional
collectives between operators that make it, join it, and make the losses and gradients of it.
"""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions, row_options
from .._kernel import TargetTensors, empty_gradient
from .._register import differentiable_operator, operator
from ._arguments import SplitRows, told_of
from ._exchange import chunks_for, collect, pack, packed_shape, start, unpack
from ._group import Ranks, Shard, agree, attempt, shard_of, shards_changed, wait
from ._log_prob import evaluate, gradient_of
from ._loss import check_once, loss_gradient, reduced, total_weight
from ._parts import fields_of, joining, losses_of, part_of_rows, widened


def joined(
    function: str,
    options: LossOptions,
    rows: SplitRows,
    ranks: Ranks,
    class_offset: int | None,
    check: bool,
    items: Tensor | None = None,
    entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """What all classes tell of each row, and where this rank's are: its first, all, and whether that has changed."""
    logits = rows.logits.detach()
    of = [options.reduction, options.ignore_index, options.numbers, *ranks]
    place = _place(logits, *rows.targets, items, *of, function, class_offset, check)
    data = [logits, *rows.targets, place, entropy, *of]
    chunks = chunks_for((logits.shape[0], fields_of(options, rows.targets, entropy)), ranks)
    part = _join(wait(start(_pack(*data, chunks), ranks)), *data)
    return collect(part, logits.shape[0], chunks, ranks), place


def loss(options: LossOptions, rows: SplitRows, whole: Tensor, place: Tensor, items: Tensor | None) -> Tensor:
    loss: Tensor = _loss(
        rows.logits, *rows.targets, whole, place, items, options.reduction, options.ignore_index, options.numbers
    )
    return loss


def log_probs(
    options: LossOptions, rows: SplitRows, whole: Tensor, place: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    found, entropies = _log_prob(
        rows.logits, rows.targets.target, whole, place, entropy, options.ignore_index, options.numbers
    )
    return found, entropies if entropy else None


def _place_of(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
    group: str,
    rank: int,
    count: int,
    function: str,
    class_offset: int | None,
    check: bool,
) -> Tensor:
    options = row_options(ignore_index, numbers, reduction)
    targets = TargetTensors(target, weight, sample_weight)
    values, error = attempt(
        lambda: told_of(
            function, options, logits.shape[0], logits.dtype, targets, num_items=None if items is None else items.item()
        )
    )
    shard, changed = shard_of(Ranks(group, rank, count), logits.shape[1], class_offset, values or {}, check, error)
    return torch.tensor([shard.first, shard.classes, shard.largest, changed is not None])


def _fake_place(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(4, dtype=torch.int64)


def _shard(logits: Tensor, place: Tensor, ranks: Ranks) -> tuple[Shard, Exception | None]:
    first, classes, largest, changed = place.tolist()
    size = logits.shape[1]
    return Shard(ranks, first, size, classes, largest), shards_changed(size) if changed else None


def _try_part(
    options: LossOptions, logits: Tensor, targets: TargetTensors, place: Tensor, entropy: bool, ranks: Ranks
) -> tuple[Tensor | None, Exception | None]:
    shard, changed = _shard(logits, place, ranks)
    if changed is not None:
        return None, changed
    return attempt(lambda: part_of_rows(options, logits, targets, shard, entropy))


def _packed(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    place: Tensor,
    entropy: bool,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
    group: str,
    rank: int,
    count: int,
    chunks: int,
) -> Tensor:
    options, ranks = row_options(ignore_index, numbers, reduction), Ranks(group, rank, count)
    targets = TargetTensors(target, weight, sample_weight)
    part, _ = _try_part(options, logits, targets, place, entropy, ranks)
    return pack(part, (logits.shape[0], fields_of(options, targets, entropy)), chunks)


def _fake_packed(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    place: Tensor,
    entropy: bool,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
    group: str,
    rank: int,
    count: int,
    chunks: int,
) -> Tensor:
    fields = fields_of(row_options(ignore_index, numbers, reduction), TargetTensors(target), entropy)
    return logits.new_empty(packed_shape((logits.shape[0], fields), chunks), dtype=torch.float64)


def _joined(
    received: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    place: Tensor,
    entropy: bool,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
    group: str,
    rank: int,
    count: int,
) -> Tensor:
    options, ranks = row_options(ignore_index, numbers, reduction), Ranks(group, rank, count)
    targets = TargetTensors(target, weight, sample_weight)
    parts, failed = unpack(received)
    if failed:  # on some rank; if on this one, it fails again
        agree(ranks, _try_part(options, logits, targets, place, entropy, ranks)[1])
    return joining(options, targets, entropy)(parts)


def _fake_joined(received: Tensor, *_: Any) -> Tensor:
    return received.new_empty(received.shape[1] - 1, received.shape[2])


_place = operator("_split_place", _place_of, _fake_place)
_pack = operator("_split_pack", _packed, _fake_packed)
_join = operator("_split_join", _joined, _fake_joined)


def _loss_of(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    whole: Tensor,
    place: Tensor,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    options, targets = row_options(ignore_index, numbers, reduction), TargetTensors(target, weight, sample_weight)
    shard, _ = _shard(logits, place, _NOBODY)
    whole = widened(whole)
    losses, _ = losses_of(options, targets, shard, whole)
    return reduced(options, losses, _divisor(options, targets, whole, items))


def _fake_loss(logits: Tensor, target: Tensor, weight: Any, sample_weight: Any, whole: Tensor, *rest: Any) -> Tensor:
    reduction = rest[2]
    return whole.new_empty(whole.shape[:1] if reduction == "none" else ())


def _divisor(options: LossOptions, targets: TargetTensors, whole: Tensor, items: Tensor | None) -> float | None:
    if options.reduction != "mean":
        return None
    return total_weight(targets, whole) if items is None else items.item()


def _gradient_of_loss(
    grad_output: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    whole: Tensor,
    place: Tensor,
    items: Tensor | None,
    reduction: str,
    ignore_index: int | None,
    numbers: list[float],
) -> Tensor:
    options, targets = row_options(ignore_index, numbers, reduction), TargetTensors(target, weight, sample_weight)
    shard, _ = _shard(logits, place, _NOBODY)
    whole = widened(whole)
    divisor = _divisor(options, targets, whole, items)
    return loss_gradient(options, logits, targets, whole, shard, divisor, grad_output)


_NOBODY = Ranks("", 0, 1)  # for what asks no other rank
_loss_gradient = operator(
    "_split_loss_gradient", _gradient_of_loss, lambda grad_output, logits, *_: empty_gradient(logits)
)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        ctx.save_for_backward(*args[:7])
        ctx.rest = args[7:]
        loss: Tensor = _loss_alone(*args)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_cross_entropy", grad_output)
        return _loss_gradient(grad_output, *ctx.saved_tensors, *ctx.rest), *[None] * 9


_loss_alone = operator("_split_loss_alone", _loss_of, _fake_loss)
_loss = differentiable_operator("_split_loss", _loss_of, _fake_loss, _Loss)


def _log_probs_of(
    logits: Tensor,
    target: Tensor,
    whole: Tensor,
    place: Tensor,
    entropy: bool,
    ignore_index: int | None,
    numbers: list[float],
) -> tuple[Tensor, Tensor]:
    shard, _ = _shard(logits, place, _NOBODY)
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
    shard, _ = _shard(logits, place, _NOBODY)
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
