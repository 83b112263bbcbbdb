"""The loss of a DTensor: each rank computes on its part, and what is reduced is added in the order of the ranks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..._options import LossOptions
from .. import _composed, _eager
from .._arguments import divisor_of
from .._kernel import TargetTensors, mean_divisor, row_dtype, row_shape
from .._operator import row_losses
from . import _loss
from ._arguments import SplitRows, split_rows
from ._group import Shard, ranks_of
from ._layout import Layout, Place, layout_of, local, placed
from ._row_ranks import RowRanks


@torch._disable_dynamo
def loss(options: LossOptions, input: DTensor, targets: TargetTensors, num_items: float | Tensor | None) -> Tensor:
    """The reduced loss. The arguments fit, but perhaps for where they lie."""
    if input.dim() == 1:
        target, weight, sample_weight = targets
        one_row = TargetTensors(_one(target), weight, None if sample_weight is None else _one(sample_weight))
        one = loss(options, _one(input), one_row, num_items)
        return one.squeeze(0) if options.reduction == "none" else one
    layout = layout_of(input)
    ranks = RowRanks(layout.row_groups, input.device)
    part = (_joined if layout.class_dims else _own)(options, layout, input, targets, ranks)
    if options.reduction == "none":
        rows = ranks.all(lambda: part.losses(options, None))
        return placed(rows.to(row_dtype(input)), layout, layout.of_rows, row_shape(input))
    divisor = None
    if num_items is not None:
        divisor = _number(num_items)
    elif options.reduction == "mean":
        total, counts = ranks.add(ranks.do(lambda: part.total_weight(options)), 2)
        divisor = _composed.divisor_of(total, counts)
    value = ranks.add(ranks.do(lambda: part.losses(options, divisor)))[0]
    if divisor is not None and divisor.requires_grad:  # each rank's part of the divisor counts for all their losses
        value = _composed.quotient(value, divisor)
    return placed(value.to(row_dtype(input)), layout, layout.whole, torch.Size())


def _one(tensor: Tensor) -> Tensor:
    """The tensor of one row as a batch of it."""
    return tensor.unsqueeze(0)


def _number(num_items: float | Tensor) -> Tensor:
    """The divisor that the caller gives, the same on every rank."""
    if isinstance(num_items, DTensor):
        num_items = divisor_of(num_items.full_tensor(), "mean")
    if isinstance(num_items, Tensor) and num_items.requires_grad:
        raise ValueError("num_items: expected a number for logits that are a DTensor, got a tensor that requires grad")
    return torch.as_tensor(num_items, dtype=torch.float64)


class _WholeRows(NamedTuple):
    """Rows of which this rank has every class."""

    input: Tensor
    targets: TargetTensors

    def total_weight(self, options: LossOptions) -> Tensor:
        """The weights of the rows, added, and 1 if any is not 0."""
        if _eager.is_plain(*self):
            return _known(mean_divisor(options, self.input.shape, self.targets))
        total, counts = _composed.total_weight(options, *self)
        return torch.stack([total, counts.to(total.dtype)])

    def losses(self, options: LossOptions, divisor: Tensor | None) -> Tensor:
        """What the rows add to the reduced loss, not rounded; for 'none' their losses.

        They are divided by the divisor, unless that is differentiated too.
        """
        if divisor is not None and divisor.requires_grad:
            options, divisor = replace(options, reduction="sum"), None
        if _eager.is_plain(*self):
            return _eager.loss(options, *self, None if divisor is None else divisor.item(), rounded=False)
        return _composed.reduced(options, row_losses(options, *self), *self, divisor, rounded=False)


class _SplitRows(NamedTuple):
    """Rows of which this rank has some of the classes, and knows what all of them tell."""

    logits: Tensor
    targets: TargetTensors
    whole: Tensor
    shard: Shard
    shape: torch.Size

    def total_weight(self, options: LossOptions) -> Tensor:
        return _known(_loss.total_weight(self.targets, self.whole))

    def losses(self, options: LossOptions, divisor: Tensor | None) -> Tensor:
        number = None if divisor is None else divisor.item()
        found = _loss.reduced_loss(options, self.logits, self.targets, self.whole, self.shard, number)
        return found.reshape(self.shape) if options.reduction == "none" else found


def _known(divisor: float) -> Tensor:
    """The total weight that gave a divisor, and 1 unless all weights are 0: it is NaN where they add up to 0."""
    return torch.tensor([0.0 if divisor != divisor else divisor, divisor != 0.0], dtype=torch.float64)


def _own(options: LossOptions, layout: Layout, input: DTensor, targets: TargetTensors, ranks: RowRanks) -> _WholeRows:
    rows: _WholeRows = ranks.do(lambda: _WholeRows(*_parts(layout, input, targets)))
    return rows


def _joined(
    options: LossOptions, layout: Layout, input: DTensor, targets: TargetTensors, ranks: RowRanks
) -> _SplitRows:
    return split(options, layout, lambda: _parts(layout, input, targets), targets.target.dtype, ranks)


def split(
    options: LossOptions,
    layout: Layout,
    parts: Callable[[], tuple[Tensor, TargetTensors]],
    target_dtype: torch.dtype,
    ranks: RowRanks,
    entropy: bool = False,
) -> _SplitRows:
    """Rows of split classes, joined.

    Every rank comes to the exchange, one with an error too: those with other classes of its rows raise it with it.
    """
    (over,), (shape, first), axis = layout.class_dims, layout.part, layout.axis
    ranks_of_row, classes = ranks_of(layout.mesh.get_group(over)), layout.shape[axis]
    shard = Shard(ranks_of_row, first[axis], shape[axis], classes, largest=-(-classes // ranks_of_row.count))
    rows = ranks.do(lambda: split_rows(options, *parts()))
    error, ranks.error = ranks.error, None
    if error is not None:
        count = math.prod(shape[:axis] + shape[axis + 1 :])
        stand_in = TargetTensors(torch.empty(count, dtype=target_dtype))
        rows = SplitRows(torch.empty(count, shape[axis]), stand_in, torch.Size())
    whole = ranks.do(lambda: _loss.joined(options, rows.logits, rows.targets, shard, entropy, error))
    return _SplitRows(rows.logits, rows.targets, whole, shard, rows.shape)


def _parts(layout: Layout, input: DTensor, targets: TargetTensors) -> tuple[Tensor, TargetTensors]:
    """What this rank has of the logits and of what belongs to them."""
    target, weight, sample_weight = targets
    dense, of_weight = target.shape == input.shape, None if layout.class_dims else layout.summands
    logits, *of_rows = local(
        layout,
        input=Place(input, layout.placements),
        target=Place(target, layout.placements if dense else layout.of_rows),
        weight=Place(weight, layout.of_classes, of_weight),
        sample_weight=Place(sample_weight, layout.of_rows),
    )
    return logits, TargetTensors(*of_rows)
