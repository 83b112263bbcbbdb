"""Log-probabilities and divergences of a DTensor."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..._options import LossOptions
from .. import _composed, _divergence_kernel, _log_prob_kernel
from .._composed_divergence import DivergenceOptions, values_dtype
from .._kernel import TargetTensors, as_weights, row_dtype, row_shape
from ._arguments import check_place
from ._divergence_kernel import row_divergences
from ._dtensor import split
from ._group import attempt, check_same, ranks_of
from ._layout import Layout, Place, layout_of, local, placed
from ._log_prob import log_probs
from ._row_ranks import RowRanks


@torch._disable_dynamo
def log_prob_and_entropy(
    options: LossOptions, input: DTensor, target: Tensor, entropy: bool
) -> _log_prob_kernel.Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    layout = layout_of(input)
    several = target.dim() == input.dim()
    if several and layout.class_dims:
        raise ValueError(
            "target: expected one index a row, where the classes of a DTensor are split, got shape "
            f"{tuple(target.shape)}"
        )
    of_target = layout.placements if several else layout.of_rows
    ranks, dtype = RowRanks(layout.row_groups, input.device), row_dtype(input)

    def parts() -> tuple[Tensor, TargetTensors]:
        logits, index = local(layout, input=Place(input, layout.placements), target=Place(target, of_target))
        return logits, TargetTensors(index)

    def of_whole_rows() -> _log_prob_kernel.Results:
        logits, targets = parts()
        return _log_prob_kernel.log_prob_and_entropy(options, logits, targets.target, entropy)

    def of_split_rows() -> _log_prob_kernel.Results:
        values, entropies = log_probs(options, rows.logits, rows.targets.target, rows.whole, rows.shard, entropy)
        values = values.to(dtype).reshape(rows.shape)
        return values, None if entropies is None else entropies.to(dtype).reshape(rows.shape)

    if layout.class_dims:
        rows = split(options, layout, parts, target.dtype, ranks, entropy)
    values, entropies = ranks.all(of_split_rows if layout.class_dims else of_whole_rows)
    return (
        placed(values, layout, of_target, target.shape),
        None if entropies is None else placed(entropies, layout, layout.of_rows, row_shape(input)),
    )


@torch._disable_dynamo
def divergence(
    options: DivergenceOptions, input: DTensor, teacher_input: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence."""
    layout = layout_of(input)
    if layout.class_dims and not isinstance(options.kind, str):
        raise ValueError(
            f"input: expected a DTensor whose classes are not split, got {layout.placements}; kl_divergence takes it"
        )
    ranks, dtype = RowRanks(layout.row_groups, input.device), values_dtype(input, teacher_input)
    each = options._replace(student=replace(options.student, reduction="none"))

    def parts() -> list[Any]:
        return local(
            layout,
            input=Place(input, layout.placements),
            teacher_input=Place(teacher_input, layout.placements),
            sample_weight=Place(sample_weight, layout.of_rows),
        )

    def of_whole_rows() -> tuple[Tensor, Tensor | None]:
        student, teacher, weights = parts()
        return _divergence_kernel.divergence(each, student, teacher, weights), weights

    def of_split_rows() -> tuple[Tensor, Tensor | None]:
        return _split_rows(each, layout, parts)

    def sums(rows: Tensor, weights: Tensor | None) -> Tensor:
        weights = torch.ones_like(rows) if weights is None else weights
        return torch.stack([part.sum(dtype=_composed.sum_dtype(rows)) for part in (rows, weights, weights != 0)])

    work = of_split_rows if layout.class_dims else of_whole_rows
    if options.student.reduction == "none":
        rows, _ = ranks.all(work)
        return placed(rows.to(dtype), layout, layout.of_rows, row_shape(input))
    found = ranks.do(work)
    value, total, counts = ranks.add(ranks.do(lambda: sums(*found)), 3)
    if options.student.reduction == "mean":
        value = _composed.quotient(value, _composed.divisor_of(total, counts))
    return placed(value.to(dtype), layout, layout.whole, torch.Size())


def _split_rows(
    options: DivergenceOptions, layout: Layout, parts: Callable[[], list[Any]]
) -> tuple[Tensor, Tensor | None]:
    """Weighted divergences of rows of split classes in float64, and the weights."""

    def checked() -> list[Any]:
        student, teacher, weights = tensors = parts()
        for name, tensor in (("input", student), ("teacher_input", teacher), ("sample_weight", weights)):
            if tensor is not None:
                check_place(name, tensor)
        if weights is not None:
            as_weights("sample_weight", weights.detach())
        return tensors

    found, error = attempt(checked)
    shared = ranks_of(layout.mesh.get_group(*layout.class_dims))
    check_same(shared, {}, [], error)
    assert found is not None  # else every rank has raised the error
    student, teacher, weights = found
    shape, axis = row_shape(student), layout.axis

    def flat(logits: Tensor) -> Tensor:
        return logits.movedim(axis, -1).reshape(math.prod(shape), logits.shape[axis])

    counted = None if weights is None else (weights != 0).reshape(-1)
    rows = row_divergences(options, flat(student), flat(teacher), counted, shared).reshape(shape)
    return rows if weights is None else torch.where(weights != 0, weights * rows, 0.0), weights
