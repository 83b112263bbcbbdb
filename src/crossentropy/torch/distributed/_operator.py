"""What all classes tell of rows, for programs that torch compiles: functional collectives between operators that make
what is sent, and join what comes.
"""

from typing import Any

import torch
from torch import Tensor

from ..._options import LossOptions, row_options
from .._kernel import TargetTensors
from .._register import operator
from ._arguments import SplitRows, told_of
from ._exchange import chunks_for, collect, pack, packed_shape, start, unpack
from ._group import Ranks, Shard, agree, attempt, shard_of, shards_changed, wait
from ._parts import fields_of, joining, part_of_rows

_NOBODY = Ranks("", 0, 1)  # for what asks no other rank


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


def shard_at(logits: Tensor, place: Tensor, ranks: Ranks = _NOBODY) -> tuple[Shard, Exception | None]:
    first, classes, largest, changed = place.tolist()
    size = logits.shape[1]
    return Shard(ranks, first, size, classes, largest), shards_changed(size) if changed else None


def _try_part(
    options: LossOptions, logits: Tensor, targets: TargetTensors, place: Tensor, entropy: bool, ranks: Ranks
) -> tuple[Tensor | None, Exception | None]:
    shard, changed = shard_at(logits, place, ranks)
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
