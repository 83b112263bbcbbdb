"""The losses of a linear head whose classes are split over ranks, a chunk of rows at a time, one behind the other.

While what a chunk tells of its rows travels, the logits of the next are made; while its hidden gradients travel, the
gradients of the next.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _core
from ..._options import LossOptions
from .. import _composed
from .._head_chunks import rows_of
from .._kernel import TargetTensors
from ._exchange import Exchange
from ._group import attempt
from ._linear_head import Chunk, HeadRun, Rows, SplitHead, chunks, without_autocast
from ._parts import fields_of, joining, losses_of, part_of_rows, widened, write_gradient
from ._pipeline import pipelined


class Found(NamedTuple):
    """What is known of each row in float64, 0 of those that do not count, and the gradients wanted."""

    losses: Tensor
    entropies: Tensor | None
    whole: Tensor  # what all classes tell of it
    gradients: list[Tensor | None]  # of the rank's hidden states, classifier and bias


def over_chunks(
    options: LossOptions,
    head: SplitHead,
    targets: TargetTensors,
    entropy: bool,
    wanted: Sequence[bool] = (False, False, False),
    upstream: Tensor | None = None,
    entropy_upstream: Tensor | None = None,
    whole: Tensor | None = None,
    error: Exception | None = None,
) -> Found:
    """Losses and entropies, and the gradients wanted times upstream ones of float64; `whole` where it is known.

    `targets` are `in_memory`, of all rows. An error is raised on every rank.
    """
    head = head.readable()
    shard, rows, known = head.shard, targets.target.shape[0], whole is not None
    losses = torch.zeros(rows, dtype=torch.float64)
    entropies = torch.zeros_like(losses) if entropy else None
    of_rows = torch.zeros(rows, _core.part_fields, dtype=torch.float64) if whole is None else whole
    fields, join = fields_of(options, targets, entropy), joining(options, targets, entropy)
    run = HeadRun(head, wanted)

    def work(chunk: Chunk) -> Iterator[None]:
        hidden = yield from run.hidden(chunk)
        z, t = run.logits(hidden), _of_rows(targets, chunk.rows)
        if not known:
            part, failed = None, error
            if error is None:
                part, failed = attempt(lambda: part_of_rows(options, z, t, shard, entropy))
            exchange = Exchange(part, (len(z), fields), join, shard.ranks, failed)
            yield
            of_rows[chunk.rows] = widened(exchange.wait())
            losses[chunk.rows], of_entropy = losses_of(options, t, shard, of_rows[chunk.rows], entropy)
            if entropies is not None:
                entropies[chunk.rows] = of_entropy
        partial = None
        if run.wants:
            assert upstream is not None
            scales = upstream[chunk.rows], rows_of(entropy_upstream, chunk.rows)
            write_gradient(options, z, t, shard, of_rows[chunk.rows], scales[0], z, scales[1], entropy)
            partial = run.add(chunk, hidden, z)
        run.give_back(z)
        yield from run.send(chunk, partial)

    with without_autocast(head):
        pipelined(work(chunk) for chunk in chunks(rows, kept_rows(options, targets), [head], 2))
    if error is not None:  # of rows that do not count
        raise error
    return Found(losses, entropies, of_rows, run.result())


def kept_rows(options: LossOptions, targets: TargetTensors) -> Tensor | None:
    """Those that count, or None for all of them."""
    target = targets.target
    stand_in = target if target.dim() == 2 else target.unsqueeze(1)  # logits with as many rows
    counted = _composed.counted_rows(options, stand_in, targets)[1]
    return None if counted is None or counted.all() else counted.nonzero().squeeze(1)


def _of_rows(targets: TargetTensors, rows: Rows) -> TargetTensors:
    return TargetTensors(targets.target[rows], targets.weight, rows_of(targets.sample_weight, rows))
